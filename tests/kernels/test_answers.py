"""Requests and answers byte by byte, against their twin."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kernels.net import answers
from tests import reference

BLOCK = answers.create_block()
BYTES = BLOCK.tobytes()
IDS = st.integers(0, 2**64 - 1)
LENGTHS = st.integers(answers.HEAD, 3 * answers.PERIOD)


@given(st.integers(0, 4 * answers.PERIOD))
def test_the_block_goes_round_behind_the_id(offset: int) -> None:
    whole = reference.answer(BYTES, 7, offset + 1)
    assert offset < answers.HEAD or BLOCK[answers.place(offset)] == whole[offset]


@given(IDS, LENGTHS, st.data())
def test_any_part_of_the_right_answer_is_right(number: int, length: int, data: st.DataObject) -> None:
    whole = np.frombuffer(reference.answer(BYTES, number, length), np.uint8).copy()
    first = data.draw(st.integers(0, length - 1))
    assert answers.is_right(BLOCK, whole[first:], first, np.uint64(number))


@given(IDS, st.integers(answers.HEAD, 2 * answers.LOOKED_AT), st.data())
def test_one_wrong_bit_of_a_small_answer_is_seen(number: int, length: int, data: st.DataObject) -> None:
    whole = np.frombuffer(reference.answer(BYTES, number, length), np.uint8).copy()
    whole[data.draw(st.integers(0, length - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert not answers.is_right(BLOCK, whole, 0, np.uint64(number))


@given(IDS, st.integers(200_000, 300_000), st.integers(100, 99_000), st.integers(1, 70_000))
def test_lost_and_doubled_bytes_of_a_large_answer_are_seen(number: int, length: int, first: int, count: int) -> None:
    whole = reference.answer(BYTES, number, length)
    for moved in (whole[:first] + whole[first + count :], whole[: first + count] + whole[first:]):
        read = np.frombuffer(moved[:length], np.uint8).copy()
        assert not answers.is_right(BLOCK, read, 0, np.uint64(number))


@given(IDS, IDS)
def test_the_answer_to_another_request_is_wrong(number: int, other: int) -> None:
    message = BLOCK[:64].copy()
    answers.put_id(message, np.uint64(number))
    assert message.tobytes() == reference.answer(BYTES, number, 64)
    assert bool(answers.is_right(BLOCK, message, 0, np.uint64(other))) == (number == other)
