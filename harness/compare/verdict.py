"""Whether a load did better, worse or the same, metric by metric.

Law: a difference is claimed where chance would rarely make one so large, and where it is large enough to matter.

How rare is asked of a permutation test (``scipy.stats.permutation_test``): if nothing has changed, which side a run was
on says nothing. Where both sides have ``RUNS`` runs or more, whole runs change sides. Where one has fewer there are not
enough ways to do so, and blocks of time change sides, each with the block of the same place in time, so that an event
of the timeline is held against itself; such a test speaks of these runs, and cannot know what another run of the same
would have been like. The p-values of a comparison are adjusted together for how many they are (Benjamini-Hochberg).

How large is a bootstrap's answer: runs are drawn again with replacement, and blocks of time within them. Every draw is
seeded, so a comparison says the same each time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from harness.compare.blocks import BLOCKS, METRICS, NEVER_NS, PERCENTILES, Counts, Rows, counted, exactly, metrics
from harness.compare.sides import Side

RUNS = 5  # a side, from which on runs themselves change sides: in 252 ways
ALPHA = 0.05
CONFIDENCE = 0.95
DRAWS = 2000
AT_A_TIME = 100  # draws: bounds memory
SEED = 20260102
# Requests beyond a percentile's rank without which it is the word of a few.
BEYOND = 10

BETTER, WORSE, SAME, FEW = "better", "worse", "no difference", "too few requests"


@dataclass(frozen=True)
class Measure:
    """A value and the bounds of its confidence interval; None: longer than any number, or not to be had."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Finding:
    """One metric of one load of two sides.

    Latencies are in ns, ``errors`` a share of all scheduled requests, ``rate`` in answers per second of the load's
    duration. ``change`` is a part of the base's value; of ``errors`` it is the difference of the shares. ``p`` is
    adjusted; None where there are too few requests to ask.
    """

    load: str
    metric: str
    base: Measure
    other: Measure
    change: Measure
    p: float | None
    verdict: str


def compare(base: Side, other: Side, least: float) -> list[Finding]:
    """The findings for all loads that both sides have; a change of less than ``least``, a share, is none."""
    there = {load["name"] for load in other.loads}
    found = [row for load in base.loads if load["name"] in there for row in _of_load(base, other, load)]
    asked = [place for place, row in enumerate(found) if row.p is not None]
    adjusted = stats.false_discovery_control([found[place].p for place in asked]) if asked else []
    for place, p in zip(asked, adjusted, strict=True):
        row = replace(found[place], p=float(p))
        found[place] = replace(row, verdict=_verdict(row, least))
    return found


def by_runs(base: Side, other: Side) -> bool:
    """Whether whole runs change sides."""
    return min(len(base.tables), len(other.tables)) >= RUNS


def _of_load(base: Side, other: Side, load: Mapping[str, Any]) -> Iterator[Finding]:
    rows = [[Rows.of(table, load) for table in side.tables] for side in (base, other)]
    if not all(len(run.block) for side in rows for run in side):
        return
    values = [exactly(side, load["duration_ns"]) for side in rows]
    counts, ladder_ns = counted(rows, load["duration_ns"])
    drawn = _drawn_again(counts, ladder_ns)
    chance = _chance(counts, ladder_ns)
    fewest = min(each.latency.sum() for each in counts)
    for place, metric in enumerate(METRICS):
        few = fewest * (1 - PERCENTILES.get(metric, 0)) < BEYOND
        one, two = (
            _measure(value[metric], None if few else draws[:, place])
            for value, draws in zip(values, drawn, strict=True)
        )
        changes = _change(metric, drawn[0][:, place], drawn[1][:, place])
        change = _measure(
            float(_change(metric, np.array(values[0][metric]), np.array(values[1][metric]))), None if few else changes
        )
        yield Finding(load["name"], metric, one, two, change, None if few else float(chance[place]), FEW)


def _drawn_again(counts: list[Counts], ladder_ns: np.ndarray) -> list[np.ndarray]:
    """METRICS float64[DRAWS, metrics] of both sides: blocks are drawn alike for both, runs for each side by itself."""
    rng = np.random.default_rng(SEED)
    blocks = rng.multinomial(BLOCKS, np.full(BLOCKS, 1 / BLOCKS), DRAWS)
    found = []
    for side in counts:
        runs = rng.multinomial(side.runs, np.full(side.runs, 1 / side.runs), DRAWS)
        weights = (runs[:, :, None] * blocks[:, None, :]).reshape(DRAWS, -1).astype(float)
        parts = np.split(weights, range(AT_A_TIME, DRAWS, AT_A_TIME))
        cells = side.cells()
        found.append(np.concatenate([metrics(cells, part, ladder_ns) for part in parts]))
    return found


def _chance(counts: list[Counts], ladder_ns: np.ndarray) -> np.ndarray:
    """The p-value of each of METRICS, two-sided and not adjusted."""
    whole = min(side.runs for side in counts) >= RUNS
    first, second = (side.by_run() if whole else side.by_block() for side in counts)
    pool = first + second

    def difference(one: np.ndarray, two: np.ndarray, axis: int) -> np.ndarray:
        """Of units by number in the pool; every metric is a row of the same numbers: one permutation serves all."""
        sides = []
        for numbers in (one, two):
            chosen = np.atleast_2d(numbers[..., 0, :]).astype(np.int64)
            weights = np.zeros((len(chosen), len(pool)))
            np.put_along_axis(weights, chosen, 1.0, axis=1)
            sides.append(metrics(pool, weights, ladder_ns))
        # Percentiles by their ratio, so that a side's slowest request does not outweigh all.
        ranked = len(PERCENTILES)
        apart = np.log(sides[1][:, :ranked]) - np.log(sides[0][:, :ranked])
        apart = np.concatenate([apart, sides[1][:, ranked:] - sides[0][:, ranked:]], axis=1)
        return apart if one.ndim > 2 else apart[0]

    numbers = np.arange(len(pool))
    result = stats.permutation_test(
        [np.tile(each, (len(METRICS), 1)) for each in np.split(numbers, [len(first)])],
        difference,
        permutation_type="independent" if whole else "samples",
        vectorized=True,
        n_resamples=DRAWS,
        batch=AT_A_TIME,
        axis=-1,
        rng=np.random.default_rng(SEED),
    )
    return np.asarray(result.pvalue)


def _change(metric: str, base: np.ndarray, other: np.ndarray) -> np.ndarray:
    """From the base to the other: a share of the base, infinite where it has no measure; of errors the difference."""
    if metric == "errors":
        return other - base
    with np.errstate(divide="ignore", invalid="ignore"):
        change = other / base - 1
    change = np.where(other == base, 0.0, change)
    return np.where((other >= NEVER_NS) & (base < NEVER_NS), np.inf, change)


def _measure(value: float, draws: np.ndarray | None) -> Measure:
    tail = (1 - CONFIDENCE) / 2
    # Of draws themselves, not between them: half way to "never" is nowhere.
    low, high = (None, None) if draws is None else np.quantile(draws, (tail, 1 - tail), method="inverted_cdf").tolist()
    return Measure(*(None if each is None or each >= NEVER_NS else float(each) for each in (value, low, high)))


def _verdict(row: Finding, least: float) -> str:
    change = np.inf if row.change.value is None else row.change.value
    # A share of errors is no measure that a share of it could be left out of: every real difference counts.
    small = change == 0 if row.metric == "errors" else abs(change) < least
    if row.p is None or row.p > ALPHA or small:
        return SAME
    return BETTER if (change > 0) == (row.metric == "rate") else WORSE
