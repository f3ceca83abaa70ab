"""When each request of an open loop is due.

Law: the schedule is fixed before the first request is sent and does not know how the subject fares. That is what makes
the load open: a stalled server meets the same arrivals as a fast one, and the requests it kept waiting carry the wait
in their latency (Tene's coordinated omission; Schroeder, Wierman, Harchol-Balter, NSDI '06, on open and closed loops).
"""

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
