"""What the rows of a run of queues say, as a summary and as a table for a terminal.

Law: every number comes from the two tables and their metadata.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.records import provenance_of
from harness.units import format_ns

NAMES = {0.5: "p50", 0.9: "p90", 0.99: "p99", 0.999: "p99.9", 1.0: "max"}
HEADS = ("wait", "mean", "p50", "p99", "p99.9", "busiest", "M flows/s")


def summarise(waits: pa.Table, active: pa.Table) -> dict[str, Any]:
    """The summary of a run, as ``summary.json`` holds it. Raises ValueError where it is no such run."""
    facts = provenance_of(waits)
    if "lasts_ns" not in facts:
        raise ValueError("the file was not written by this harness: its schema has no trafficplane metadata of queues")
    return {
        "kind": "queues",
        "run": facts["run"],
        "scenario": json.loads(facts["name"]),
        "started": facts["started"],
        "interrupted": facts["interrupted"] == "true",
        "seconds": float(facts["seconds"]),
        "seed": int(facts["seed"]),
        "lasts_ns": int(facts["lasts_ns"]),
        "queues": list(_results(waits, active)),
        "met": True,
    }


def _results(waits: pa.Table, active: pa.Table) -> Iterator[dict[str, Any]]:
    whose = dict.fromkeys(zip(waits["load"].to_pylist(), waits["algorithm"].to_pylist(), strict=True))
    for load, algorithm in whose:
        rows, looks = (of(table, load, algorithm) for table in (waits, active))
        first = rows.slice(0, 1).to_pylist()[0]
        had = looks["active"].to_numpy()
        yield {
            "algorithm": algorithm,
            "load": load,
            "flows": first["carried"],
            "seconds": first["spent_ns"] / 1e9,
            "flows_per_s": 1e9 * first["carried"] / first["spent_ns"] if first["spent_ns"] else None,
            "waiting_share": first["waiting"] / first["connections"],
            "waited_ns": {"mean": first["waited_ns"], **_named(rows, "quantile_ns")},
            "all_ns": _named(rows, "quantile_all_ns"),
            "active": {"mean": float(had.mean()), "p99": float(np.quantile(had, 0.99)), "max": int(had.max())},
        }


def _named(rows: pa.Table, column: str) -> dict[str, int]:
    """The percentiles that have a name."""
    pairs = zip(rows["quantile"].to_pylist(), rows[column].to_pylist(), strict=True)
    return {NAMES[quantile]: value for quantile, value in pairs if quantile in NAMES}


def of(table: pa.Table, load: float, algorithm: str) -> pa.Table:
    """The rows of an algorithm at a load."""
    return table.filter(pc.and_(pc.equal(table["load"], load), pc.equal(table["algorithm"], algorithm)))


def tables(summary: Mapping[str, Any]) -> RenderableType:
    """The summary for a terminal: a line for each load, then one for each algorithm."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("algorithm", no_wrap=True)
    for name in HEADS:
        table.add_column(name, justify="right", no_wrap=True)
    last = None
    for row in summary["queues"]:
        if row["load"] != last:
            last = row["load"]
            table.add_row(Text(f"load {100 * last:.4g} %", style="bold"))
        table.add_row(f"  {row['algorithm']}", *cells(row))
    title = f"{summary['scenario']}  {summary['run']}\n{explained(summary)}:"
    parts: list[RenderableType] = [Text(title, style="bold"), table]
    if summary["interrupted"]:
        parts.append(Text("interrupted: only what was finished by then is counted", style="yellow"))
    return Group(*parts)


def explained(summary: Mapping[str, Any]) -> str:
    """What the tables are about."""
    shape = f"connections last {format_ns(summary['lasts_ns'])} on average; {summary['seconds']:.1f} s"
    return f"{shape}; how many wait, for how long, and the most that one has"


def cells(row: Mapping[str, Any]) -> list[str]:
    """What ``HEADS`` has of an algorithm at a load."""
    waited = (format_ns(row["waited_ns"][name]) for name in ("mean", "p50", "p99", "p99.9"))
    rate = f"{row['flows_per_s'] / 1e6:.1f}" if row["flows_per_s"] else ""
    return [f"{100 * row['waiting_share']:.1f} %", *waited, f"{row['active']['max']:,}", rate]
