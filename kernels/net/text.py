"""Bytes that are composed: pieces of others, text, and numbers in digits, one behind the other.

Law: each of these writes at ``to`` and returns the place behind what it wrote. What would not fit, or is not there to
be read, is not written, and -1 is returned; a -1 as ``to`` is passed on, so whoever composes something asks once, at
its end. Every check stands here, beside the copying.
"""

import numpy as np

from kernels.jit import inner, kernel, move_bytes

_ZERO, _LETTER = 48, 87  # digits from 10 on are small letters, from 97
CRLF = np.frombuffer(b"\r\n", np.uint8)
_DOT = np.frombuffer(b".", np.uint8)


@kernel
def put(out, to, data, first, last):
    """Write ``data[first:last]``, which may be within ``out`` itself, and overlap."""
    size = np.int64(last - first)
    if to < 0 or first < 0 or size < 0 or last > data.size or size > out.size - to:
        return np.int64(-1)
    move_bytes(out, to, data, first, size)
    return np.int64(to + size)


@kernel
def put_all(out, to, text):
    """Write all of ``text``."""
    return put(out, to, text, np.int64(0), np.int64(text.size))


@kernel
def end_line(out, to):
    return put_all(out, to, CRLF)


@kernel
def put_decimal(out, to, number):
    """Write a number that is not negative."""
    digits, rest = np.int64(1), number
    while rest >= 10:
        rest //= 10
        digits += 1
    if to < 0 or digits > out.size - to:
        return np.int64(-1)
    for i in range(digits):
        out[to + digits - 1 - i] = _ZERO + number % 10
        number //= 10
    return np.int64(to + digits)


@kernel
def put_hex(out, to, number, digits):
    """Write the last so many digits of a hexadecimal number (uint64), in lower case."""
    if to < 0 or digits > out.size - to:
        return np.int64(-1)
    for i in range(digits):
        digit = (number >> np.uint64(4 * (digits - 1 - i))) & np.uint64(15)
        out[to + i] = digit + np.uint64(_ZERO if digit < 10 else _LETTER)
    return np.int64(to + digits)


@kernel
def hex_digits(number):
    """How many digits a hexadecimal number (not negative) has, without zeroes before it."""
    digits, rest = np.int64(1), number >> 4
    while rest:
        rest >>= 4
        digits += 1
    return digits


@kernel
def hex_value(byte):
    """The value of a hexadecimal digit, -1 for any other byte."""
    if 48 <= byte <= 57:
        return np.int64(byte) - _ZERO
    low = np.int64(byte) | 0x20
    return low - _LETTER if 97 <= low <= 102 else np.int64(-1)


@inner
def put_ip(out, to, ip):
    """Write an IPv4 address."""
    for i in range(4):
        to = put_decimal(out, to, (ip >> (24 - 8 * i)) & 255)
        if i < 3:
            to = put_all(out, to, _DOT)
    return to
