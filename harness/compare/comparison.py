"""A comparison from the folders of runs to its summary."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.compare import sides, verdict
from harness.compare.limits import Limit, broken
from harness.compare.sides import CompareError, Side

BY_RUNS = "runs changed sides in the test: it speaks of runs like these"
BY_BLOCKS = (
    f"blocks of time changed sides in the test: it speaks of these runs only; with {verdict.RUNS} runs a side or more "
    "it would speak of runs like these"
)


def summarise(paths: Sequence[Path], limits: Sequence[Limit], least: float, *, force: bool) -> dict[str, Any]:
    """The first run, or runs that repeat each other, with each of the others held against it (docs/compare.md).

    Raises CompareError.
    """
    base, *others = [sides.side(path) for path in paths]
    pairs = [_pair(base, other, limits, least, force=force) for other in others]
    return {
        "base": _described(base),
        "comparisons": [{name: part for name, part in pair.items() if name != "broken"} for pair in pairs],
        "broken": [row for pair in pairs for row in pair["broken"]],
    }


def _pair(base: Side, other: Side, limits: Sequence[Limit], least: float, *, force: bool) -> dict[str, Any]:
    refusals = sides.refusals(base, other)
    if refusals and not force:
        listed = "\n".join(f"  {line}" for line in refusals)
        raise CompareError(
            f"{base.name} and {other.name} are no whole runs of one scenario:\n{listed}\nCompare them with --force"
        )
    findings = verdict.compare(base, other, least)
    return {
        "other": _described(other),
        "differences": sides.differences(base, other),
        "forced": refusals,
        "test": BY_RUNS if verdict.by_runs(base, other) else BY_BLOCKS,
        "findings": [asdict(row) for row in findings],
        "broken": [
            {"limit": limit.text, "name": other.name, "load": row.load} for limit, row in broken(limits, findings)
        ],
    }


def _described(side: Side) -> dict[str, Any]:
    return {"name": side.name, "runs": side.runs}
