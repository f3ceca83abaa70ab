"""When each request of an open loop is due.

Law: the schedule is fixed before the first request is sent and does not know how the subject fares. That is what makes
the load open: a stalled server meets the same arrivals as a fast one, and the requests it kept waiting carry the wait
in their latency (Tene's coordinated omission; Schroeder, Wierman, Harchol-Balter, NSDI '06, on open and closed loops).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from harness.units import NS_PER_S, format_rate


@dataclass(frozen=True)
class Slope:
    """A stage of an open loop, from its start: the rate, in requests per second, goes evenly from first to last."""

    start_ns: int
    duration_ns: int
    first: Fraction
    last: Fraction

    @property
    def requests(self) -> Fraction:
        return (self.first + self.last) / 2 * self.duration_ns / NS_PER_S

    @property
    def text(self) -> str:
        if self.first == self.last:
            return format_rate(float(self.first))
        return f"{format_rate(float(self.first)).removesuffix('/s')} to {format_rate(float(self.last))}"


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


def staged(stages: Sequence[Slope], seed: Sequence[int] | None) -> np.ndarray:
    """The same of rates that change, int64[n] ascending; Poisson arrivals where there is a seed.

    The number of requests due until a time is the integral of the rate, and request k is due when it is k: none is lost
    or doubled where one stage meets the next. A Poisson process of such a rate is one of rate 1 with its time bent in
    the same way (Çinlar, Introduction to Stochastic Processes, 1975, 4.7).
    """
    total = sum((stage.requests for stage in stages), Fraction(0))
    if seed is None:
        counts = np.arange(-(-total.numerator // total.denominator), dtype=np.float64)
    else:
        counts = np.concatenate([np.zeros(0), *_unit(float(total), np.random.default_rng(seed))])
    return _when(stages, counts)


def _unit(total: float, random: np.random.Generator) -> Iterator[np.ndarray]:
    """Parts of a Poisson process of rate 1, float64, until there is as much of it."""
    at = 0.0
    while at < total:
        times = at + np.cumsum(random.exponential(1.0, int(total - at) + 16))
        yield times[times < total]
        at = float(times[-1])


def _when(stages: Sequence[Slope], counts: np.ndarray) -> np.ndarray:
    """When so many requests are due, int64[n] ns; ``counts`` float64[n] ascending, below the number of all."""
    due = np.empty(len(counts), np.int64)
    begun = Fraction(0)
    first = 0
    for stage in stages:
        end = int(np.searchsorted(counts, float(begun + stage.requests), side="left"))
        due[first:end] = stage.start_ns + _within(stage, counts[first:end] - float(begun))
        begun += stage.requests
        first = end
    due[first:] = stages[-1].start_ns + stages[-1].duration_ns - 1  # what rounding has put beyond the end
    return due


def _within(stage: Slope, counts: np.ndarray) -> np.ndarray:
    """The same for a stage, from its own beginning: where first·t + (last − first)·t²/2T is the count."""
    first, gain = float(stage.first), float((stage.last - stage.first) * NS_PER_S / stage.duration_ns)
    # This form of the root loses no digits, whatever the slope.
    root = first + np.sqrt(np.maximum(first * first + 2 * gain * counts, 0))
    at_s = np.divide(2 * counts, root, out=np.zeros(len(counts)), where=root > 0)
    return np.minimum(np.rint(at_s * NS_PER_S).astype(np.int64), stage.duration_ns - 1)
