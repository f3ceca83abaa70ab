"""BLAKE2b (RFC 7693), without a key and to 8 bytes: what ``plane.affinity`` tells endpoints and Services apart by.

Law: a digest is a number whose hexadecimal digits, 16 of them, are those of
``hashlib.blake2b(text, digest_size=8).hexdigest()``; so the greater text is the greater number. Of texts that begin
alike what is common is read once: ``absorb`` it, and ``finish`` each.
"""

import numpy as np

from kernels.jit import kernel, part
from kernels.layout import freeze

BLOCK_BYTES = 128
_BEGUN, _ENDED = 32, 40  # where the chaining values of an absorbed beginning are, and of what follows it
WORDS = 48  # of room that a digest takes: the block, the state that it is mixed in, and those
_ROUNDS = 12
_IV = freeze(
    np.array(
        [
            0x6A09E667F3BCC908,
            0xBB67AE8584CAA73B,
            0x3C6EF372FE94F82B,
            0xA54FF53A5F1D36F1,
            0x510E527FADE682D1,
            0x9B05688C2B3E6C1F,
            0x1F83D9ABFB41BD6B,
            0x5BE0CD19137E2179,
        ],
        np.uint64,
    )
)
_SIGMA = freeze(
    np.array(
        [
            (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
            (14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3),
            (11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4),
            (7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8),
            (9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13),
            (2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9),
            (12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11),
            (13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10),
            (6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5),
            (10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0),
        ],
        np.int64,
    )
)
# Of a state of 4 by 4 words: its columns, then its diagonals.
_MIXED = freeze(
    np.array(
        [
            (0, 4, 8, 12),
            (1, 5, 9, 13),
            (2, 6, 10, 14),
            (3, 7, 11, 15),
            (0, 5, 10, 15),
            (1, 6, 11, 12),
            (2, 7, 8, 13),
            (3, 4, 9, 14),
        ],
        np.int64,
    )
)
_PARAMETERS = np.uint64(0x01010008)  # no key, 8 bytes
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_8, _16, _24, _32, _63, _64, _255 = map(np.uint64, (8, 16, 24, 32, 63, 64, 255))


@kernel
def digest(data, size, words):
    """Of ``data[:size]``, uint64; ``words``: uint64[WORDS], room to work in."""
    return finish(data, absorb(data, size, words), size, words)


@part
def absorb(data, size, words):
    """Begin the digests of texts that begin with ``data[:size]``. Returns how much of it ``finish`` need not read."""
    for i in range(8):
        words[_BEGUN + i] = _IV[i]
    words[_BEGUN] ^= _PARAMETERS
    at = np.int64(0)
    while size - at > BLOCK_BYTES:  # the last block is another matter
        _take_in(data, at, at + BLOCK_BYTES, size, words, _BEGUN)
        at += BLOCK_BYTES
    return at


@part
def finish(data, at, size, words):
    """The digest, uint64, of ``data[:size]``, of which ``absorb`` has taken in ``data[:at]``."""
    for i in range(8):
        words[_ENDED + i] = words[_BEGUN + i]
    while size - at > BLOCK_BYTES:
        _take_in(data, at, at + BLOCK_BYTES, size, words, _ENDED)
        at += BLOCK_BYTES
    _take_in(data, at, size, size, words, _ENDED)
    return _turned(words[_ENDED])


@part
def _take_in(data, first, last, size, words, into):
    """The block ``data[first:last]``, less than a whole one only at the end of a text of this size: F of RFC 7693."""
    for i in range(16):
        words[i] = 0
    for i in range(last - first):
        words[i // 8] |= np.uint64(data[first + i]) << np.uint64(8 * (i % 8))
    for i in range(8):
        words[16 + i], words[24 + i] = words[into + i], _IV[i]
    words[28] ^= np.uint64(last)
    if last == size:
        words[30] ^= _ALL
    for turn in range(_ROUNDS):
        for i in range(8):
            _mix(words, _MIXED[i], words[_SIGMA[turn % 10, 2 * i]], words[_SIGMA[turn % 10, 2 * i + 1]])
    for i in range(8):
        words[into + i] ^= words[16 + i] ^ words[24 + i]


@kernel
def _mix(words, places, x, y):
    """G of RFC 7693 on four words of the state."""
    a, b, c, d = 16 + places[0], 16 + places[1], 16 + places[2], 16 + places[3]
    words[a] = words[a] + words[b] + x
    words[d] = _rotated(words[d] ^ words[a], _32)
    words[c] = words[c] + words[d]
    words[b] = _rotated(words[b] ^ words[c], _24)
    words[a] = words[a] + words[b] + y
    words[d] = _rotated(words[d] ^ words[a], _16)
    words[c] = words[c] + words[d]
    words[b] = _rotated(words[b] ^ words[c], _63)


@kernel
def _rotated(word, bits):
    """To the right."""
    return word >> bits | word << _64 - bits


@kernel
def _turned(word):
    """The number with its 8 bytes in the other order."""
    turned = np.uint64(0)
    for _ in range(8):
        turned = turned << _8 | word & _255
        word >>= _8
    return turned
