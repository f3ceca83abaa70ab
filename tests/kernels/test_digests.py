"""Digests of short texts are those of hashlib."""

import hashlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kernels.jit import kernel
from kernels.net import digests


@kernel
def digest(data, size, words):
    """What compiled code alone can call."""
    return digests.digest(data, size, words)


@given(st.binary(max_size=3 * digests.BLOCK_BYTES + 1), st.binary(max_size=3))
def test_a_digest_is_that_of_hashlib_whatever_follows_the_text(text: bytes, more: bytes) -> None:
    words = np.full(digests.WORDS, 7, np.uint64)
    found = int(digest(np.frombuffer(text + more + b"x", np.uint8).copy(), len(text), words))
    assert f"{found:016x}" == hashlib.blake2b(text, digest_size=8).hexdigest()
