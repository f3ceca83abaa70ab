"""Latencies of the last seconds of a load, counted in buckets: for whoever looks on while it runs.

Law: nothing that is kept comes from here; percentiles of a run are computed from its rows. A bucket is no wider than
``ERROR`` of its lower bound, so that a percentile is at most so much too high, and never too low. One thread adds, any
may ask.
"""

import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from harness.recorder import NEVER

PARTS = 64  # buckets of an octave
ERROR = 1 / PARTS
SECONDS = 5
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
_BUCKETS = 64 * PARTS


def bucket_of(latencies_ns: np.ndarray) -> np.ndarray:
    """The bucket int64[n] of each latency, which is at least 0."""
    mantissa, exponent = np.frexp(latencies_ns.astype(np.float64))
    part = np.maximum((mantissa - 0.5) * (2 * PARTS), 0).astype(np.int64)
    return exponent.astype(np.int64) * PARTS + part


def bound_of(bucket: int) -> int:
    """Where a bucket ends, in ns: no latency in it is longer."""
    exponent, part = divmod(bucket, PARTS)
    return int(np.ldexp(0.5 + (part + 1) / (2 * PARTS), exponent))


def percentiles_of(counts: Mapping[int, int]) -> dict[str, int | None]:
    """Of counts by bucket, as of a Tally or of several together: by the names of SHARES in ns.

    None where the rank falls on one without an answer; empty: nothing ended.
    """
    buckets = sorted(counts)
    ended = np.cumsum([counts[bucket] for bucket in buckets])
    if not buckets:
        return {}
    ranks = {name: max(int(np.ceil(share * ended[-1])), 1) for name, share in SHARES.items()}
    places = {name: buckets[int(np.searchsorted(ended, rank))] for name, rank in ranks.items()}
    return {name: bound_of(place) if place < _BUCKETS else None for name, place in places.items()}


class Tally:
    """How long the requests took that ended in the last ``SECONDS``, as rows told of them when they were added."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: deque[tuple[int, np.ndarray]] = deque()  # by second, the last bucket: without an answer

    def add(self, rows: Mapping[str, Any]) -> None:
        """Rows that have ended, by the columns of ``recorder.Recorded``."""
        answered = rows["done_ns"] != NEVER
        latencies_ns = (rows["done_ns"] - rows["intended_ns"])[answered]
        counts = np.bincount(bucket_of(latencies_ns), minlength=_BUCKETS + 1)
        counts[-1] = len(answered) - len(latencies_ns)
        second = int(time.monotonic())
        with self._lock:
            if self._counts and self._counts[-1][0] == second:
                self._counts[-1][1][:] += counts
            else:
                self._counts.append((second, counts))
            self._forget(second)

    def counts(self) -> dict[int, int]:
        """How many there are in each bucket that has any; in the last are those without an answer."""
        with self._lock:
            self._forget(int(time.monotonic()))
            counts = sum((counts for _, counts in self._counts), np.zeros(_BUCKETS + 1, np.int64))
        return {int(bucket): int(counts[bucket]) for bucket in np.flatnonzero(counts)}

    def percentiles(self) -> dict[str, int | None]:
        """``percentiles_of`` its counts."""
        return percentiles_of(self.counts())

    def _forget(self, second: int) -> None:
        while self._counts and self._counts[0][0] <= second - SECONDS:
            self._counts.popleft()
