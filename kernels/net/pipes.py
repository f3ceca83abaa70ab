"""The pipes of a relay, taken by a stream for as long as bytes of it are on their way.

Law: a pipe that is given back is empty; one that is not is closed instead. A pipe is opened when it is first wanted,
and stays open until the relay ends. Where none is to be had (all taken, no descriptor, more pages than the user may
have in pipes), whoever asked copies.
"""

import numpy as np

from kernels.jit import inner, kernel
from kernels.layout import Pipes
from kernels.net import syscalls

PIPE_BYTES = 262144  # half of it costs a quarter more CPU a byte
READ, WRITE = 0, 1


def create(most: int) -> Pipes:
    """Room for so many pipes, none of them open yet."""
    return Pipes(
        ends=np.full((most + 1, 2), -1, np.int32),
        free=np.arange(most, 0, -1, dtype=np.uint32),
        left=np.full(1, most, np.int64),
    )


@inner
def take(pipes, exchange):
    """The row of an empty pipe, int64; 0 where none is to be had."""
    if pipes.left[0] == 0:
        return np.int64(0)
    row = np.int64(pipes.free[pipes.left[0] - 1])
    if pipes.ends[row, READ] < 0 and not _open(pipes, exchange, row):
        return np.int64(0)
    pipes.left[0] -= 1
    return row


@kernel
def _open(pipes, exchange, row):
    """Open a pipe of ``PIPE_BYTES``. A smaller one is no use: beyond its user's share, Linux gives it two pages."""
    if syscalls.pipe(exchange) < 0:
        return False
    pipes.ends[row, READ] = exchange.option[READ]
    pipes.ends[row, WRITE] = exchange.option[WRITE]
    if syscalls.size_pipe(pipes.ends[row, WRITE], PIPE_BYTES) < PIPE_BYTES:
        _close(pipes, row)
        return False
    return True


@inner
def give_back(pipes, row):
    """Take an empty pipe back; the next who takes one gets it."""
    pipes.free[pipes.left[0]] = row
    pipes.left[0] += 1


@inner
def spill(pipes, row):
    """Take a pipe back with what is in it, which is lost."""
    _close(pipes, row)
    give_back(pipes, row)


@kernel
def _close(pipes, row):
    for end in range(2):
        if pipes.ends[row, end] >= 0:
            syscalls.close(pipes.ends[row, end])
        pipes.ends[row, end] = -1


@kernel
def close_all(pipes):
    """Close those that are open; none may be taken."""
    for row in range(1, pipes.ends.shape[0]):
        _close(pipes, row)
