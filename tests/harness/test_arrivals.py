"""The schedule of an open loop."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness import arrivals

S = 1_000_000_000


def test_requests_are_due_at_equal_distances_from_the_start() -> None:
    due = arrivals.constant(Fraction(4), S)
    assert due.dtype == np.int64
    assert due.tolist() == [0, S // 4, S // 2, 3 * S // 4]


def test_a_period_that_is_no_whole_number_of_nanoseconds_does_not_drift() -> None:
    due = arrivals.constant(Fraction(3), 3600 * S)
    assert len(due) == 3 * 3600
    assert due[:4].tolist() == [0, 333_333_333, 666_666_666, S]
    assert due[-3] == 3599 * S


@given(
    rate=st.fractions(min_value=Fraction(1, 3600), max_value=2_000, max_denominator=3600),
    duration_ns=st.integers(1, 5 * S),
)
def test_each_is_due_at_its_number_times_the_period_rounded_down(rate: Fraction, duration_ns: int) -> None:
    due = arrivals.constant(rate, duration_ns)
    assert due.tolist() == [index * S // rate for index in range(len(due))]
    assert due[-1] < duration_ns
    assert len(due) * S / rate >= duration_ns


def test_a_high_rate_for_long_stays_in_range() -> None:
    due = arrivals.constant(Fraction("99999.999999"), 200 * S)
    assert abs(len(due) - 20_000_000) <= 1
    assert (np.diff(due) > 0).all()
    assert due[-1] == (len(due) - 1) * S // Fraction("99999.999999")
