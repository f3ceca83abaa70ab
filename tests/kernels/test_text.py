"""Composed bytes are what Python's would be, whole, or -1; and nothing is read or written elsewhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.net import text

FILL = 0x7F
places = st.integers(-2, 12)


def room(size: int) -> np.ndarray:
    """So many bytes to write to, and more that nobody may touch."""
    return np.full(size + 32, FILL, np.uint8)


@given(st.integers(0, 10), places, st.binary(max_size=10), places, places)
def test_a_piece_is_put_where_it_fits(size: int, to: int, data: bytes, first: int, last: int) -> None:
    out = room(size)
    end = text.put(out[:size], to, np.frombuffer(data, np.uint8), first, last)
    right = to >= 0 and 0 <= first <= last <= len(data) and to + last - first <= size
    assert end == (to + last - first if right else -1)
    piece = data[first:last] if right else b""
    to = max(to, 0)
    assert out.tobytes() == bytes([FILL]) * to + piece + bytes([FILL]) * (len(out) - to - len(piece))


@given(st.binary(min_size=1, max_size=100), st.data())
def test_a_piece_may_overlap_where_it_goes(data: bytes, draw: st.DataObject) -> None:
    to, first, last = sorted(draw.draw(st.tuples(*3 * [st.integers(0, len(data))])))
    for here, there in ((to, first), (first, to)):
        both = np.frombuffer(data, np.uint8).copy()
        size = min(last - first, len(data) - first)
        assert text.put(both, here, both, there, there + size) == here + size
        right = bytearray(data)
        right[here : here + size] = data[there : there + size]
        assert both.tobytes() == bytes(right)


@pytest.mark.parametrize("number", [0, 7, 9, 10, 15, 16, 99, 100, 255, 256, 65_535, 10**18 - 1, 2**63 - 1])
def test_numbers_are_put_in_digits(number: int) -> None:
    decimal, hexadecimal = b"%d" % number, b"%x" % number
    digits = int(text.hex_digits(number))
    assert digits == len(hexadecimal)
    for size in range(25):
        out = room(size)
        fits = len(decimal) + 3 <= size
        assert text.put_decimal(out[:size], 3, number) == (3 + len(decimal) if fits else -1)
        assert out.tobytes().strip(bytes([FILL])) == (decimal if fits else b"")
        out = room(size)
        fits = digits + 3 <= size
        assert text.put_hex(out[:size], 3, np.uint64(number), digits) == (3 + digits if fits else -1)
        assert out.tobytes().strip(bytes([FILL])) == (hexadecimal if fits else b"")


def test_what_did_not_fit_is_passed_on() -> None:
    out = room(8)
    assert text.end_line(out, text.put_all(out, -1, text.CRLF)) == -1
    assert text.put_decimal(out, -1, 5) == text.put_hex(out, -1, np.uint64(5), 1) == -1
    assert set(out.tolist()) == {FILL}


def test_a_hexadecimal_digit_is_one_in_either_case() -> None:
    for byte in range(256):
        value = int(bytes([byte]), 16) if bytes([byte]) in b"0123456789abcdefABCDEF" and byte else -1
        assert text.hex_value(np.uint8(byte)) == value
