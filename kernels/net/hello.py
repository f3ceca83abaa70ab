"""What the ClientHello of a client by TLS says before anything is answered: whom it asks for, and what it would speak.

https://www.rfc-editor.org/rfc/rfc8446#section-4.1.2, RFC 6066 (3) for the name, RFC 7301 for the protocols.

Law: bytes in, numbers out; no socket, no copy. Each place that comes from the bytes stands beside its check. What is
not plainly one hello in one record is UNUSUAL, which is no judgement: whoever speaks all of TLS is to see it.
"""

import numpy as np

from kernels.jit import kernel

UNUSUAL = -1
RECORD_BYTES = 5
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_NAMES, _PROTOCOLS = 0, 16  # extensions
_HTTP1 = np.frombuffer(b"http/1.1", np.uint8)
_HASH_OFFSET, _HASH_PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)  # FNV-1a, 64 bits
_STAR, _DOT, _A, _Z = 42, 46, 65, 90


@kernel
def _pair(data, at):
    """A big-endian number of two bytes."""
    return np.int64(data[at]) << 8 | np.int64(data[at + 1])


@kernel
def read(data, size, hello):
    """Read the hello that begins the connection of which ``data[:size]`` is here into ``hello``, a row of HELLO.

    Returns 1, 0 where more bytes are wanted, or UNUSUAL.
    """
    hello["name"] = hello["name_size"] = 0
    hello["http1"], hello["others"] = 1, 0
    end = _end(data, size)
    if end <= 0:
        return end
    at = np.int64(RECORD_BYTES + 4 + 34)  # version and random
    for width in (1, 2, 1):  # session, ciphers, compression
        if at + width > end:
            return np.int64(UNUSUAL)
        at += width + (np.int64(data[at]) if width == 1 else _pair(data, at))
    if at == end:
        return np.int64(1)
    if at + 2 > end or at + 2 + _pair(data, at) != end:
        return np.int64(UNUSUAL)
    return np.int64(1 if _read_extensions(data, at + 2, end, hello) else UNUSUAL)


@kernel
def _end(data, size):
    """Where the record ends, which is whole and a hello; else what ``read`` returns."""
    if size > 0 and data[0] != _HANDSHAKE:
        return np.int64(UNUSUAL)
    if size < RECORD_BYTES + 4:
        return np.int64(0)
    end = RECORD_BYTES + _pair(data, 3)
    body = np.int64(data[RECORD_BYTES + 1]) << 16 | _pair(data, RECORD_BYTES + 2)
    if data[RECORD_BYTES] != _CLIENT_HELLO or RECORD_BYTES + 4 + body != end or end > data.size:
        return np.int64(UNUSUAL)
    return end if size >= end else np.int64(0)


@kernel
def _read_extensions(data, at, end, hello):
    """Take those that matter. Returns whether all are right, as those below do."""
    while at < end:
        if at + 4 > end or at + 4 + _pair(data, at + 2) > end:
            return False
        kind, first, last = _pair(data, at), at + 4, at + 4 + _pair(data, at + 2)
        right = True
        if kind == _NAMES:
            right = _read_name(data, first, last, hello)
        elif kind == _PROTOCOLS:
            right = _read_protocols(data, first, last, hello)
        if not right:
            return False
        at = last
    return True


@kernel
def _read_name(data, at, end, hello):
    """Take the list of names, which has one, of a host."""
    if at + 5 > end or at + 2 + _pair(data, at) != end or data[at + 2] != 0 or at + 5 + _pair(data, at + 3) != end:
        return False
    hello["name"], hello["name_size"] = at + 5, end - at - 5
    return True


@kernel
def _read_protocols(data, at, end, hello):
    """Take the list of protocols."""
    if at + 2 > end or at + 2 + _pair(data, at) != end:
        return False
    hello["http1"] = 0
    at += 2
    while at < end:
        last = at + 1 + np.int64(data[at])
        if last > end:
            return False
        same = last - at - 1 == _HTTP1.size
        for i in range(_HTTP1.size if same else 0):
            same &= data[at + 1 + i] == _HTTP1[i]
        if same:
            hello["http1"] = 1
        else:
            hello["others"] = 1
        at = last
    return True


@kernel
def _mixed(hashed, data, at, end):
    for i in range(at, end):
        byte = np.uint64(data[i])
        if _A <= data[i] <= _Z:
            byte |= np.uint64(0x20)
        hashed = (hashed ^ byte) * _HASH_PRIME
    return hashed


@kernel
def hash_of(data, at, end):
    """The hash of the name ``data[at:end]``, in any case; never 0."""
    return _mixed(_HASH_OFFSET, data, at, end) | np.uint64(1)


@kernel
def find(names, data, hello):
    """The row of ``names`` for whom a hello asks: of the name itself, else of its domain's wildcard, else 0."""
    at, end = np.int64(hello["name"]), np.int64(hello["name"]) + hello["name_size"]
    if end > at and data[end - 1] == _DOT:
        end -= 1
    row = _row_of(names, hash_of(data, at, end))
    if row != 0:
        return row
    while at < end and data[at] != _DOT:
        at += 1
    wildcard = (_HASH_OFFSET ^ np.uint64(_STAR)) * _HASH_PRIME
    return _row_of(names, _mixed(wildcard, data, at, end) | np.uint64(1))


@kernel
def _row_of(names, hashed):
    """Where a hash is among the ascending ``names``, 0: nowhere."""
    low, high = 0, names.size
    while low < high:
        middle = (low + high) // 2
        if names[middle] < hashed:
            low = middle + 1
        else:
            high = middle
    return np.int64(low if low < names.size and names[low] == hashed else 0)
