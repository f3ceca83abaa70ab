"""The header of the PROXY protocol, versions 1 and 2, that begins a connection and says who its client is.

https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt

Law: bytes in, numbers out; no socket, no copy. Each place that comes from the bytes stands beside its check. What is
not plainly a header that names a client by TCP over IPv4, or nobody, is UNUSUAL, which is no judgement: whoever reads
all of the protocol (``plane.ingress.announced``) is to see it, and reads what is taken here no otherwise.
"""

import numpy as np

from kernels.jit import kernel, part

UNUSUAL = -1
V1_BYTES = 107  # longest header of version 1
V2_BYTES = 4096  # longest of version 2 that is taken, with its type-length-values
_FIXED = 16  # bytes of version 2 before addresses
_ADDRESSES = 12  # of TCP over IPv4
_CHECKSUM = 3  # the type of the value that is one
_ZERO, _NINE, _SPACE, _DOT, _CR, _LF = 48, 57, 32, 46, 13, 10


def _bytes(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


_SIGNATURE = _bytes(b"\r\n\r\n\0\r\nQUIT\n")
_TCP4, _UNKNOWN = _bytes(b"PROXY TCP4 "), _bytes(b"PROXY UNKNOWN\r\n")


@kernel
def is_within(networks, ip):
    """Whether an address (uint32) is in one of NETWORK[…]."""
    for i in range(networks.size):  # noqa: SIM110  # any() of a generator does not compile
        if ip & networks[i]["mask"] == networks[i]["ip"]:
            return True
    return False


@kernel
def read(data, size, found):
    """Read the header that begins the connection of which ``data[:size]`` is here into ``found``, of ANNOUNCEMENT.

    Returns its size, 0 where more bytes are wanted, or UNUSUAL.
    """
    found["named"] = 0
    if _begins(data, size, _SIGNATURE):
        return _read_binary(data, size, found) if size >= _FIXED else np.int64(0)
    if _begins(data, size, _TCP4):
        return _read_line(data, size, found)
    if _begins(data, size, _UNKNOWN):
        return np.int64(_UNKNOWN.size if size >= _UNKNOWN.size else 0)
    return np.int64(UNUSUAL)


@kernel
def _begins(data, size, text):
    """Whether what is here is as ``text`` begins, or begins so."""
    for i in range(min(size, text.size)):  # noqa: SIM110  # all() of a generator does not compile
        if data[i] != text[i]:
            return False
    return True


@kernel
def _pair(data, at):
    """A big-endian number of two bytes."""
    return np.int64(data[at]) << 8 | np.int64(data[at + 1])


@kernel
def _read_binary(data, size, found):
    """Version 2, of which the fixed part is here."""
    command, kind, end = data[12], data[13], _FIXED + _pair(data, 14)
    if (command != 0x20 and command != 0x21) or end > V2_BYTES or end > data.size:
        return np.int64(UNUSUAL)
    if command == 0x21 and (kind != 0x11 or end < _FIXED + _ADDRESSES):
        return np.int64(UNUSUAL)
    if size < end:
        return np.int64(0)
    at = np.int64(_FIXED)
    if command == 0x21:
        found["ip"] = _pair(data, at) << 16 | _pair(data, at + 2)
        found["port"] = _pair(data, at + 8)
        at += _ADDRESSES
    while at < end:  # values, of which none counts; a checksum is for somebody else to look at
        if at + 3 > end or at + 3 + _pair(data, at + 1) > end or data[at] == _CHECKSUM:
            return np.int64(UNUSUAL)
        at += 3 + _pair(data, at + 1)
    found["named"] = command == 0x21
    return np.int64(end)


@kernel
def _read_line(data, size, found):
    """Version 1 of TCP over IPv4: two addresses and two ports, one blank between each."""
    end = np.int64(_TCP4.size)
    while end < size and end < V1_BYTES and data[end] != _LF:
        end += 1
    if end == V1_BYTES:
        return np.int64(UNUSUAL)
    if end >= size:
        return np.int64(0)
    ip, at = read_address(data, np.int64(_TCP4.size), end)
    at = _behind(data, at, end, _SPACE)
    _, at = read_address(data, at, end)
    at = _behind(data, at, end, _SPACE)
    port, at = _number(data, at, end, 65535)
    at = _behind(data, at, end, _SPACE)
    _, at = _number(data, at, end, 65535)
    at = _behind(data, at, end, _CR)
    if at != end:
        return np.int64(UNUSUAL)
    found["ip"], found["port"], found["named"] = ip, port, 1
    return np.int64(end + 1)


@part
def read_address(data, at, end):
    """An IPv4 address, without zeroes before its numbers: (address, the place behind it, -1 where there is none)."""
    address = np.int64(0)
    for i in range(4):
        if i > 0:
            at = _behind(data, at, end, _DOT)
        number, at = _number(data, at, end, 255)
        address = address << 8 | number
    return address, at


@kernel
def _number(data, at, end, most):
    """A number in digits, without zeroes before it: (number, the place behind it, -1 where there is none)."""
    number, first = np.int64(0), at
    while 0 <= at < end and _ZERO <= data[at] <= _NINE and number <= most:
        number = number * 10 + np.int64(data[at]) - _ZERO
        at += 1
    if at <= first or number > most or (data[first] == _ZERO and at - first > 1):
        return np.int64(0), np.int64(-1)
    return number, np.int64(at)


@kernel
def _behind(data, at, end, byte):
    """The place behind a byte that stands at ``at``, -1 where another one does."""
    if at < 0 or at >= end or data[at] != byte:
        return np.int64(-1)
    return np.int64(at + 1)
