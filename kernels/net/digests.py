"""BLAKE2b of short texts (RFC 7693), to 8 bytes: what ``plane.affinity`` tells endpoints and Services apart by.

Law: no key, one block, so 128 bytes at most. A digest is a number whose hexadecimal digits, 16 of them, are those of
``hashlib.blake2b(text, digest_size=8).hexdigest()``; so the greater text is the greater number.
"""

import numpy as np

from kernels.jit import kernel, part
from kernels.layout import freeze

BLOCK_BYTES = 128
WORDS = 32  # of room that a digest takes: the block, then the state
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


@part
def digest(data, size, words):
    """Of ``data[:size]``, which is no more than a block, uint64; ``words``: uint64[WORDS], room to work in."""
    for i in range(16):
        words[i] = 0
    for i in range(min(size, BLOCK_BYTES)):
        words[i // 8] |= np.uint64(data[i]) << np.uint64(8 * (i % 8))
    for i in range(8):
        words[16 + i] = words[24 + i] = _IV[i]
    words[16] ^= _PARAMETERS
    words[28] ^= np.uint64(size)
    words[30] ^= _ALL  # it is the last block
    for turn in range(_ROUNDS):
        for i in range(8):
            _mix(words, _MIXED[i], words[_SIGMA[turn % 10, 2 * i]], words[_SIGMA[turn % 10, 2 * i + 1]])
    return _turned(_IV[0] ^ _PARAMETERS ^ words[16] ^ words[24])


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
