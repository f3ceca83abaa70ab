"""Messages that come back: where the id of a request stands, and whether what was read is what was sent.

Law: the bytes of requests are shared by all clients, so an id is put into them just before they are sent or compared.
"""

import numpy as np

from kernels.jit import kernel
from kernels.layout_load import NEVER, PROTOCOL
from kernels.net.httpanswers import MORE

ID_DIGITS = 16


@kernel
def put_id(content, at, number):
    """Write a number in hex digits into ``content`` from there on."""
    for i in range(ID_DIGITS):
        digit = (number >> np.uint64(4 * (ID_DIGITS - 1 - i))) & np.uint64(15)
        content[at + i] = np.uint8(digit + np.uint64(48 if digit < 10 else 87))


@kernel
def compare(buffer, got, client, asked, content, number, datagrams):
    """Hold ``buffer[:got]`` against what of the message is to come back. Returns 0 where all is, MORE, or PROTOCOL.

    The message is ``asked`` (REQUEST) of ``content``, with that number. A datagram with another one, late or doubled,
    is passed over.
    """
    at = asked.size - client.left
    put_id(content, asked.start + asked.id_at, number)
    first = asked.start + at
    if datagrams and got >= ID_DIGITS and not _is_same(buffer, content, first, np.int64(ID_DIGITS)):
        client.row.bytes_in -= got
        client.row.first_byte_ns = NEVER
        return np.int64(MORE)
    if at + got > client.sent or (datagrams and got != asked.size) or not _is_same(buffer, content, first, got):
        return np.int64(PROTOCOL)
    client.left -= got
    client.keep = 1
    return np.int64(0 if client.left == 0 else MORE)


@kernel
def _is_same(buffer, content, first, size):
    """Whether the buffer begins with what stands there in ``content``."""
    differing = 0
    for i in range(size):
        differing += buffer[i] != content[first + i]
    return differing == 0
