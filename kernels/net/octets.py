"""What HTTP/1.1 is written in: kinds of octets, tokens, words, numbers, and the names of fields.

Law: as in ``http1``. What is asked is about ``data[at:end]``, all of which is here.
"""

import numpy as np

from kernels.jit import inner, kernel
from kernels.layout_http import (
    CONTROL,
    LINE_END,
    NAME_BYTES,
    NAME_MULTIPLIER,
    NAME_SIZES,
    NAME_SLOTS,
    NAMES,
    SLOTS_OF_NAMES,
    freeze,
)

CR, LF, SPACE, TAB, COLON, SLASH, HASH, QUERY = 13, 10, 32, 9, 58, 47, 35, 63
SEMICOLON, EQUALS, QUOTE, BACKSLASH, COMMA, DEL = 59, 61, 34, 92, 44, 127
TOKEN, IN_HOST, IN_TARGET = 1, 2, 4


def of(said: str) -> np.ndarray:
    """uint8[]: those of a word in ASCII."""
    return freeze(np.frombuffer(said.encode("ascii"), np.uint8).copy())


def _classes() -> np.ndarray:
    """uint8[256]: which of the sets below a byte is in."""
    classes = np.zeros(256, np.uint8)
    alphanumeric = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    classes[list(alphanumeric + b"!#$%&'*+-.^_`|~")] |= TOKEN
    classes[list(alphanumeric + b"-._")] |= IN_HOST
    classes[[*range(0x21, HASH), *range(HASH + 1, DEL)]] |= IN_TARGET
    return freeze(classes)


CLASSES = _classes()
VERSION = of(" HTTP/1.1\r\n")
CLOSE = of("close")
KEEP_ALIVE = of("keep-alive")


@inner
def text_end(data, at, end):
    """Where the first byte is that may not be within a line (all controls but tab), ``end`` if there is none."""
    while at < end:
        byte = data[at]
        if (byte < SPACE and byte != TAB) or byte == DEL:
            break
        at += 1
    return at


@inner
def not_text(byte):
    """Why a byte may not be where it is, within a line."""
    return LINE_END if byte == LF else CONTROL


@inner
def is_same(data, at, end, word):
    """Whether ``data[at:end]`` is this word."""
    same = end - at == word.size
    for i in range(word.size if same else 0):
        same &= data[at + i] == word[i]
    return same


@inner
def is_folded(data, at, end, word):
    """Whether it is this word, of lower-case letters and hyphens, in any case."""
    same = end - at == word.size
    for i in range(word.size if same else 0):
        same &= data[at + i] | 0x20 == word[i]
    return same


@inner
def is_blank(byte):
    return byte in (SPACE, TAB)


@kernel
def decimal(data, at, end, digits):
    """The decimal number that ``data[at:end]`` is; -1 where it is none, or has more than so many digits."""
    if at >= end:
        return np.int64(-1)
    while at < end - 1 and data[at] == 48:
        at += 1
    if end - at > digits:
        return np.int64(-1)
    number = np.int64(0)
    for i in range(at, end):
        digit = np.int64(data[i]) - 48
        if digit < 0 or digit > 9:
            return np.int64(-1)
        number = 10 * number + digit
    return number


@inner
def token_end(data, at, stop):
    """Where the token ends that begins at ``at``; ``at`` where none does."""
    while at < stop and CLASSES[data[at]] & TOKEN:
        at += 1
    return at


@kernel
def member(data, at, end):
    """The member of a list that begins at or behind ``at``: (its first byte, its end, where the next one begins)."""
    comma = at
    while comma < end and data[comma] != COMMA:
        comma += 1
    last = comma
    while at < last and is_blank(data[at]):
        at += 1
    while last > at and is_blank(data[last - 1]):
        last -= 1
    return at, last, comma + 1


@inner
def name_row(data, at, end):
    """The row of NAMES that a field's name, which is not empty, has in any case; 0 for none."""
    size = end - at
    if size < 2 or size > NAME_BYTES:
        return 0
    key = size * 65536 + (np.int64(data[at + size // 2]) | 0x20) * 256 + (np.int64(data[end - 2]) | 0x20)
    row = NAME_SLOTS[(key * NAME_MULTIPLIER >> 16) % SLOTS_OF_NAMES]
    if NAME_SIZES[row] != size:
        return 0
    for i in range(size):
        if data[at + i] | 0x20 != NAMES[row, i]:
            return 0
    return np.int64(row)
