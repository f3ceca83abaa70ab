"""What the rows of a comparison say: medians, spreads and ratios. Pure, and from the rows alone.

Law: a ratio is taken within one round, where both were measured minutes apart at most, and the median of these is
given; it is not the ratio of two medians. Where a subject was wrong once, it has an error and no number.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

import pyarrow as pa

from harness.records import provenance_of

BASELINE = "direct"


class Contest(NamedTuple):
    """Whom rates are a share of, which of ours is held against whom, and by how much it is to be ahead."""

    baseline: str
    ours: str
    rival: str
    goals: Mapping[str, float]


CONTESTS = {
    "services": Contest(BASELINE, "relay", "haproxy", {"rate": 1.0, "cpu": 1.2}),
    "ingress": Contest("nginx", "trafficplane", "nginx", {"rate": 1.0, "cpu": 1.0}),
}

Cell = Mapping[str, Any]
FACTS = ("run", "started", "interrupted", "command", "client", "cpu", "kernel", "commit", "rounds", "seconds")
LISTS = ("versions", "peers", "skipped", "refused", "placement")


def summarise(table: pa.Table) -> dict[str, Any]:
    """A table of ``harness.peers.records`` as plain data; docs/peers.md lists it."""
    facts = provenance_of(table)
    kind = facts.get("kind", "services")
    cells: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for row in table.to_pylist():
        cells[row["workload"], row["subject"]].append(row)
    return {
        "kind": kind,
        **{name: facts.get(name, "") for name in FACTS},
        **{name: json.loads(facts.get(name, "{}")) for name in LISTS},
        "rows": [_row(cells, *key, CONTESTS[kind].baseline) for key in cells],
        "beside": _beside(cells, CONTESTS[kind]),
        "errors": sum(row["error"] is not None for rows in cells.values() for row in rows),
    }


def rate(row: Cell) -> float:
    """What was answered a second: of bulk bytes, else answers."""
    each = row["answer_bytes"] if row["unit"] == "bytes" else 1
    return row["answered"] * each * 1e9 / row["duration_ns"]


def cpu_us(row: Cell, column: str = "cpu_ns") -> float:
    """CPU time an answer took, in µs."""
    return row[column] / row["answered"] / 1e3


def ratios(ours: Sequence[Cell], others: Sequence[Cell]) -> list[float]:
    """Rate to rate in each round that has both."""
    return [rate(one) / rate(other) for one, other in _same_round(ours, others)]


def _row(cells: Mapping[tuple[str, str], list[Cell]], workload: str, subject: str, baseline: str) -> dict[str, Any]:
    rows = cells[workload, subject]
    first = {name: rows[0][name] for name in ("workload", "subject", "unit", "connections", "answer_bytes")}
    if errors := _counted(row["error"] for row in rows if row["error"] is not None):
        return {**first, "errors": errors}
    rates = [rate(row) for row in rows]
    to_baseline = ratios(rows, _whole(cells.get((workload, baseline), ())))
    return {
        **first,
        "errors": {},
        "rounds": len(rows),
        "rate": {"median": median(rates), "lowest": min(rates), "highest": max(rates)},
        "ratio": median(to_baseline) if to_baseline else None,
        "cpu_us": None if rows[0]["cpu_ns"] is None else median(map(cpu_us, rows)),
        "core_us": median(cpu_us(row, "core_ns") for row in rows),
        "core_busy": median(row["core_ns"] / row["duration_ns"] for row in rows),
        "p50_ns": median(row["p50_ns"] for row in rows),
        "p99_ns": median(row["p99_ns"] for row in rows),
    }


def _beside(cells: Mapping[tuple[str, str], list[Cell]], contest: Contest) -> list[dict[str, Any]]:
    """Ours held against its rival, workload by workload, both better the larger; ``short``: by how much of 1."""
    found = []
    for workload in dict.fromkeys(workload for workload, _ in cells):
        pairs = _same_round(
            _whole(cells.get((workload, contest.ours), ())), _whole(cells.get((workload, contest.rival), ()))
        )
        if not pairs:
            continue
        reached = {
            "rate": median(rate(one) / rate(other) for one, other in pairs),
            "cpu": median(cpu_us(other) / cpu_us(one) for one, other in pairs),
        }
        short = {name: max(0.0, 1 - reached[name] / goal) for name, goal in contest.goals.items()}
        found.append({"workload": workload, **reached, "short": short})
    return found


def _same_round(ours: Sequence[Cell], others: Sequence[Cell]) -> list[tuple[Cell, Cell]]:
    by_round = {row["round"]: row for row in others}
    return [(row, by_round[row["round"]]) for row in ours if row["round"] in by_round]


def _whole(rows: Iterable[Cell]) -> list[Cell]:
    """The rows of a subject that was never wrong, else none."""
    found = list(rows)
    return [] if any(row["error"] is not None for row in found) else found


def _counted(words: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = defaultdict(int)
    for word in words:
        counts[word] += 1
    return dict(counts)
