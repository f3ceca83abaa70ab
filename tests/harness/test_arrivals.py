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


def test_poisson_arrivals_have_exponential_gaps_of_the_mean_that_was_asked_for() -> None:
    due = arrivals.poisson(Fraction(1000), 100 * S, (1, 0))
    assert due.dtype == np.int64
    assert (np.diff(due) >= 0).all()
    assert due[0] >= 0
    assert due[-1] < 100 * S
    # 100,000 of them with a standard deviation of 316; of exponential gaps the distance to their law is 1.63/sqrt(n) at
    # most in 99 of 100 seeds, and this seed is fixed.
    assert abs(len(due) - 100_000) < 4 * 316
    gaps = np.sort(np.diff(due)) / (S / 1000)
    law = 1 - np.exp(-gaps)
    assert np.abs(law - np.arange(len(gaps)) / len(gaps)).max() < 1.63 / len(gaps) ** 0.5


@given(
    rate=st.fractions(min_value=Fraction(1, 3600), max_value=2_000, max_denominator=3600),
    duration_ns=st.integers(1, 5 * S),
    seed=st.integers(0, 2**63 - 1),
)
def test_poisson_arrivals_follow_from_the_seed(rate: Fraction, duration_ns: int, seed: int) -> None:
    due = arrivals.poisson(rate, duration_ns, (seed, 3))
    assert due.tolist() == arrivals.schedule(rate, duration_ns, (seed, 3)).tolist()
    assert (np.diff(due) >= 0).all()
    assert ((due >= 0) & (due < duration_ns)).all()
    if len(due) > 20:
        assert due.tolist() != arrivals.poisson(rate, duration_ns, (seed, 4)).tolist()
