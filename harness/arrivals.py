"""When each request of an open loop is due.

Law: the schedule is fixed before the first request is sent and does not know how the subject fares. That is what makes
the load open: a stalled server meets the same arrivals as a fast one, and the requests it kept waiting carry the wait
in their latency (Tene's coordinated omission; Schroeder, Wierman, Harchol-Balter, NSDI '06, on open and closed loops).
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from harness.units import NS_PER_S


def constant(rate: Fraction, duration_ns: int) -> np.ndarray:
    """Due times int64[n] in ns from the start of the load, all below ``duration_ns``; the first is 0.

    Request i is due at i/rate, rounded down to a nanosecond by integer arithmetic: no drift however long the run.
    """
    period = NS_PER_S / rate
    number = -(-duration_ns * period.denominator // period.numerator)
    whole, rest = divmod(period.numerator, period.denominator)
    index = np.arange(number, dtype=np.int64)
    return index * whole + index * rest // period.denominator


def poisson(rate: Fraction, duration_ns: int, seed: Sequence[int]) -> np.ndarray:
    """The same of a Poisson process, as independent users make it: gaps are exponential with a mean of 1/rate.

    Times and their number follow from the seed (``numpy.random.default_rng``; the version is in a run's metadata).
    """
    return np.concatenate([np.zeros(0, np.int64), *_drawn(rate, duration_ns, np.random.default_rng(seed))])


def _drawn(rate: Fraction, duration_ns: int, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Parts of it, until the duration is over."""
    mean_ns = float(NS_PER_S / rate)
    at_ns = 0.0
    while at_ns < duration_ns:
        times = at_ns + np.cumsum(random.exponential(mean_ns, int((duration_ns - at_ns) / mean_ns) + 16))
        yield times[times < duration_ns].astype(np.int64)
        at_ns = float(times[-1])


def schedule(rate: Fraction, duration_ns: int, seed: Sequence[int] | None) -> np.ndarray:
    """Poisson arrivals where there is a seed, else constant ones."""
    return constant(rate, duration_ns) if seed is None else poisson(rate, duration_ns, seed)
