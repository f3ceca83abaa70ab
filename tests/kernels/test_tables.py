"""Tables that change where they lie: what is noted makes another table the same; copies begin where lines do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.layout import INDEX
from kernels.lb.tables import HUGE_PAGE_BYTES, LARGE_BYTES, LINE_BYTES, NEAR, Table, lined_up

# Mostly alike, so that few rows differ, and longer than what is near.
contents = st.lists(st.sampled_from([0, 0, 0, 0, 0, 0, 0, 7]), max_size=4 * NEAR)


@given(st.lists(contents, min_size=1, max_size=5))
def test_what_is_noted_when_all_rows_are_replaced_makes_the_same_of_another_table(steps: list[list[int]]) -> None:
    table, other = Table(np.dtype(np.uint32)), np.zeros(0, np.uint32)
    for step in steps:
        before = other
        table.replace(np.array(step, np.uint32))
        runs = table.taken()
        other = np.zeros(len(table.rows), np.uint32)
        other[: len(before)] = before[: len(other)]
        for first, rows in runs:
            other[first : first + len(rows)] = rows
        assert other.tolist() == table.rows.tolist() == step
        if len(before) == len(step):
            differing = np.flatnonzero(before != np.array(step, np.uint32))
            assert all(first in differing and first + len(rows) - 1 in differing for first, rows in runs)
            assert sum(len(rows) for _, rows in runs) <= NEAR * len(differing)


def test_of_a_large_table_little_is_noted_when_little_differs() -> None:
    table = Table(INDEX)
    rows = np.zeros(4096, INDEX)
    table.replace(rows)
    table.taken()
    rows = rows.copy()
    rows["row"][[5, 4000]], rows["pool"][7] = 1, 2
    table.replace(rows)
    assert [(first, len(few)) for first, few in table.taken()] == [(5, 3), (4000, 1)]


def test_a_table_keeps_its_rows_when_it_grows_and_a_large_one_its_place() -> None:
    table = Table(np.dtype(np.uint32))
    lengths = [1, 17, 1000, LARGE_BYTES // 4]
    for length in lengths:
        table.lengthen(length)
        table.rows[length - 1] = length
    before = table.rows
    table.lengthen(LARGE_BYTES)
    assert np.shares_memory(before, table.rows)
    assert [int(table.rows[length - 1]) for length in (1, 17, 1000, LARGE_BYTES // 4)] == [
        1,
        17,
        1000,
        LARGE_BYTES // 4,
    ]
    assert len(table.rows) == LARGE_BYTES
    assert not table.rows[LARGE_BYTES // 4 :].any()


@pytest.mark.parametrize(("rows", "length"), [(3, 0), (0, 100), (3, 100), (100, 3), (1 << 18, 0)])
def test_a_copy_begins_with_a_line_or_a_huge_page_and_has_zeros_beyond_what_is_copied(rows: int, length: int) -> None:
    original = np.ones(rows, INDEX)
    copy = lined_up(original, length)
    assert copy.ctypes.data % (HUGE_PAGE_BYTES if copy.nbytes >= HUGE_PAGE_BYTES else LINE_BYTES) == 0
    assert len(copy) == max(rows, length)
    assert copy[:rows].tobytes() == original.tobytes()
    assert not copy[rows:]["row"].any()
    original["row"][:] = 2
    assert not (copy["row"] == 2).any(), "it is a copy"
