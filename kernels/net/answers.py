"""What a load generator asks and a responder answers, byte by byte.

Law: a request and its answer begin with the same HEAD bytes, the request's id, so an answer that belongs to another
request is seen; from there on both are one endless block, whose period is a prime, so bytes that are lost, doubled or
moved are seen wherever a read begins or ends.
"""

import numpy as np

from kernels.jit import kernel

HEAD = 8
PERIOD = 262_139
LOOKED_AT = 64  # bytes at either end of what was read that are compared; a small answer is compared whole


def create_block() -> np.ndarray:
    """uint8[HEAD + PERIOD]: room for an id, then what all requests and answers consist of."""
    return np.random.default_rng(1).integers(0, 256, HEAD + PERIOD, np.uint8)


@kernel
def place(offset):
    """Where in the block the byte at ``offset`` of a request or an answer stands."""
    return offset if offset < HEAD else HEAD + (offset - HEAD) % PERIOD


@kernel
def put_id(message, number):
    """Write a request's id (uint64) to the beginning of a message."""
    for i in range(HEAD):
        message[i] = _byte_of(number, i)


@kernel
def _byte_of(number, i):
    return np.uint8((number >> np.uint64(8 * i)) & np.uint64(255))


@kernel
def is_right(block, buffer, offset, number):
    """Whether ``buffer`` begins and ends as an answer to request ``number`` does from ``offset`` on."""
    size = buffer.size
    differing = 0
    for i in range(min(size, 2 * LOOKED_AT)):
        at = i if i < LOOKED_AT else size - 1 - (i - LOOKED_AT)
        differing += buffer[at] != _expected(block, offset + at, number)
    return differing == 0


@kernel
def _expected(block, offset, number):
    return _byte_of(number, offset) if offset < HEAD else block[place(offset)]
