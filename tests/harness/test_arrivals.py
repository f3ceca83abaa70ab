"""The schedule of an open loop."""

from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from harness import arrivals
from harness.arrivals import Slope

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


def slopes(*stages: tuple[int, Fraction, Fraction]) -> list[Slope]:
    """Of (duration in ns, first, last) one after the other."""
    starts = np.cumsum([0, *(duration_ns for duration_ns, _, _ in stages)]).tolist()
    return [Slope(start, *stage) for start, stage in zip(starts, stages, strict=False)]


def due_until(stages: list[Slope], ns: int) -> Fraction:
    """The integral of the rate until then, exactly."""
    total = Fraction(0)
    for stage in stages:
        into = min(max(ns - stage.start_ns, 0), stage.duration_ns)
        at_end = stage.first + (stage.last - stage.first) * Fraction(into, stage.duration_ns)
        total += (stage.first + at_end) / 2 * into / S
    return total


def test_a_ramp_makes_its_requests_due_ever_closer() -> None:
    # From 0 to 100/s in 2 s are 100 requests; the k-th is due when 25 t^2 = k.
    due = arrivals.staged(slopes((2 * S, Fraction(0), Fraction(100))), None)
    assert len(due) == 100
    assert due[[0, 1, 25, 49]].tolist() == [0, S // 5, S, 7 * S // 5]


def test_stages_of_one_rate_are_that_rate() -> None:
    rate = Fraction(7, 3)
    due = arrivals.staged(slopes((S, rate, rate), (9 * S, rate, rate)), None)
    assert np.abs(due - arrivals.constant(rate, 10 * S)).max() <= 1


RATES = st.fractions(min_value=0, max_value=1_000, max_denominator=60)


@given(stages=st.lists(st.tuples(st.integers(1, 2 * S), RATES, RATES), min_size=1, max_size=4))
def test_request_k_is_due_when_k_were_to_be(stages: list[tuple[int, Fraction, Fraction]]) -> None:
    made = slopes(*stages)
    due = arrivals.staged(made, None)
    total = sum((stage.requests for stage in made), Fraction(0))
    assert len(due) == -(-total.numerator // total.denominator)
    assert (np.diff(due) >= 0).all()
    end_ns = made[-1].start_ns + made[-1].duration_ns
    for number in {0, len(due) // 2, len(due) - 1} & set(range(len(due))):
        # A microsecond of patience: where the rate is next to nothing a float of a time has no more digits.
        before, after = (due_until(made, int(due[number]) + step) for step in (-1000, 1000))
        assert before <= number + Fraction(1, 10**6)
        assert number - Fraction(1, 10**6) <= after or due[number] == end_ns - 1


def test_a_poisson_process_of_a_rate_that_changes_has_as_many_as_its_integral() -> None:
    made = slopes((50 * S, Fraction(0), Fraction(2000)), (50 * S, Fraction(1000), Fraction(1000)))
    due = arrivals.staged(made, (1, 0))
    assert due.tolist() == arrivals.staged(made, (1, 0)).tolist()
    assert due.tolist() != arrivals.staged(made, (1, 1)).tolist()
    # 12,500 until half the ramp, 50,000 at its end, 100,000 in all: five standard deviations, and the seed is fixed.
    for until_ns, number in ((25 * S, 12_500), (50 * S, 50_000), (100 * S, 100_000)):
        assert abs((due < until_ns).sum() - number) < 5 * number**0.5
