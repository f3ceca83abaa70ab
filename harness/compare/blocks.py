"""The requests of a load as counts by run, block of time and latency: what resampling works on.

Law: the values that are shown come from the rows, exactly. Only resampling, which asks for a percentile thousands of
times, counts latencies in steps of ``STEP``: what it says of a percentile is off by less than that. A request without
an answer is slower than all others, as in ``harness.report``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness import records
from harness.recorder import ERROR_STATUS, ERRORS, INTERRUPTED
from harness.report import percentiles
from harness.units import NS_PER_S

BLOCKS = 20  # of equal length, over the duration of a load
STEP = 0.001  # relative width of a step of latency
# How long a request took that was never answered: longer than any other, and yet a number to reckon with.
NEVER_NS = 1e18

PERCENTILES = {"p50": 0.50, "p90": 0.90, "p99": 0.99, "p99.9": 0.999}
METRICS = (*PERCENTILES, "errors", "rate")


@dataclass(frozen=True)
class Rows:
    """Of one load of one run: float64 latencies, the block each was due in, and what became of it."""

    latency_ns: np.ndarray
    block: np.ndarray
    answered: np.ndarray
    error: np.ndarray

    @classmethod
    def of(cls, table: pa.Table, load: Mapping[str, Any]) -> "Rows":
        """``load`` is a description (``loads`` in the metadata of a run) with name, start_ns and duration_ns."""
        rows = records.settled(table.filter(pc.equal(table["load"], load["name"])))
        rows = rows.filter(pc.invert(pc.fill_null(pc.equal(rows["error"], ERRORS[INTERRUPTED]), False)))
        intended = rows["intended_ns"].to_numpy()
        answered = np.asarray(pc.is_valid(rows["done_ns"]))
        done = pc.fill_null(rows["done_ns"], 0).to_numpy()
        latency = np.where(answered, np.maximum(done - intended, 1), NEVER_NS)
        refused = np.asarray(pc.fill_null(pc.greater_equal(rows["status"], ERROR_STATUS), False))
        block = (intended - load["start_ns"]) * BLOCKS // load["duration_ns"]
        return cls(latency, np.clip(block, 0, BLOCKS - 1), answered, ~answered | refused)


@dataclass(frozen=True)
class Units:
    """What is drawn again or changes sides: blocks, runs, or blocks of runs, each of ``seconds``.

    latency   float64[units, steps]: requests by their latency
    errors    float64[units]: requests without an answer, or answered with a status of 400 or more
    answered  float64[units]
    """

    latency: np.ndarray
    errors: np.ndarray
    answered: np.ndarray
    seconds: float

    def __add__(self, other: "Units") -> "Units":
        return Units(
            np.concatenate([self.latency, other.latency]),
            np.concatenate([self.errors, other.errors]),
            np.concatenate([self.answered, other.answered]),
            self.seconds,
        )

    def __len__(self) -> int:
        return len(self.errors)


@dataclass(frozen=True)
class Counts:
    """The requests of one load of all runs of a side.

    latency   float64[runs, BLOCKS, steps]
    errors, answered  float64[runs, BLOCKS]
    """

    latency: np.ndarray
    errors: np.ndarray
    answered: np.ndarray
    block_s: float

    @property
    def runs(self) -> int:
        return len(self.errors)

    def cells(self) -> Units:
        """Every block of every run, run by run."""
        flat = self.runs * BLOCKS
        return Units(self.latency.reshape(flat, -1), self.errors.ravel(), self.answered.ravel(), self.block_s)

    def by_run(self) -> Units:
        seconds = self.block_s * BLOCKS
        return Units(self.latency.sum(axis=1), self.errors.sum(axis=1), self.answered.sum(axis=1), seconds)

    def by_block(self) -> Units:
        """The blocks, each the mean of all runs."""
        return Units(self.latency.mean(axis=0), self.errors.mean(axis=0), self.answered.mean(axis=0), self.block_s)


def counted(sides: Sequence[Sequence[Rows]], duration_ns: int) -> tuple[list[Counts], np.ndarray]:
    """The rows of the runs of each side as counts, and what the steps of latency are, float64[steps], ascending."""
    steps = [[np.floor(np.log(run.latency_ns) / np.log1p(STEP)).astype(np.int64) for run in side] for side in sides]
    known = np.unique(np.concatenate([each for side in steps for each in side]))
    ladder_ns = np.exp((known + 0.5) * np.log1p(STEP))
    ladder_ns[ladder_ns > NEVER_NS / 2] = NEVER_NS
    made = [
        Counts(
            np.stack(
                [_by_latency(run, np.searchsorted(known, step), len(known)) for run, step in zip(*both, strict=True)]
            ),
            np.stack([np.bincount(run.block, run.error, BLOCKS) for run in both[0]]),
            np.stack([np.bincount(run.block, run.answered, BLOCKS) for run in both[0]]),
            duration_ns / BLOCKS / NS_PER_S,
        )
        for both in zip(sides, steps, strict=True)
    ]
    return made, ladder_ns


def exactly(runs: Sequence[Rows], duration_ns: int) -> dict[str, float]:
    """METRICS by the rows of all runs of a side together: ns, a share, answers per second."""
    scheduled = sum(len(run.block) for run in runs)
    latencies = np.concatenate([run.latency_ns[run.answered] for run in runs])
    ranked = percentiles(latencies, scheduled)
    return {
        **{name: NEVER_NS if (ns := ranked[name]) is None else float(ns) for name in PERCENTILES},
        "errors": sum(int(run.error.sum()) for run in runs) / max(scheduled, 1),
        "rate": len(latencies) * NS_PER_S / (len(runs) * duration_ns),
    }


def metrics(units: Units, weights: np.ndarray, ladder_ns: np.ndarray) -> np.ndarray:
    """METRICS as float64[n, metrics], of units of which each counts ``weights`` float64[n, units] times."""
    below = np.cumsum(weights @ units.latency, axis=1)
    requests = below[:, -1]
    found = np.empty((len(weights), len(METRICS)))
    for place, share in enumerate(PERCENTILES.values()):
        # Nearest rank: the first step that has this share of all in it or before it; a hair less, for the rounding of
        # sums.
        rank = (share * requests * (1 - 1e-12))[:, None]
        found[:, place] = ladder_ns[np.argmax(below >= rank, axis=1)]
    found[:, METRICS.index("errors")] = weights @ units.errors / np.maximum(requests, 1e-9)
    found[:, METRICS.index("rate")] = weights @ units.answered / (weights.sum(axis=1) * units.seconds)
    return found


def _by_latency(run: Rows, places: np.ndarray, steps: int) -> np.ndarray:
    """float64[BLOCKS, steps]"""
    return np.bincount(run.block * steps + places, minlength=BLOCKS * steps).reshape(BLOCKS, steps).astype(float)
