"""Runs that belong together: repeats of a scenario, and the variants of its matrix. A folder of them and its summary.

Law: each is a run like any other, with a plane of its own and a folder of its own. They take turns, all variants and
then all again, so that a machine that gets slower does so for all. The summary is made from their rows alone;
percentiles are of the rows of all repeats together, never averages of percentiles.

    <folder>/summary.json, <folder>/<variant>/<run>/…; without a matrix <folder>/<run>/…
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console, Group, RenderableType
from rich.text import Text

from harness import records, report
from harness.flows.running import Result
from harness.flows.turns import taken
from harness.objectives import PERCENTILES, latency_text
from harness.records import provenance_of
from harness.tables import table_of
from harness.units import format_rate

KIND = "rounds"
# Facts that runs which repeat each other share.
ALIKE = ("scenario_sha256", "manifests_sha256", "variant")


def play(
    variants: Sequence[str], repeats: int, run: Callable[[int, Path], Result], folder: Path, console: Console
) -> Result:
    """Has every variant run so many times, and sums up.

    ``run(place, folder)`` runs the variant at that place, and leaves its rows in a folder of the one it is given.
    Raises as ``taken``.
    """
    each = [(place, name) for _ in range(repeats) for place, name in enumerate(variants)]
    turns = (
        (f"run {number} of {len(each)}{': ' if name else ''}{name}", partial(run, place, folder / name))
        for number, (place, name) in enumerate(each, 1)
    )
    return taken(turns, folder, is_rounds, summarise, console)


def sides(folder: Path) -> list[Path]:
    """The folders of the variants in a folder of rounds, in the order they ran in first; none where it has none."""
    first: dict[Path, str] = {}
    for file in folder.glob(f"*/*/{records.FILE}"):
        variant = file.parent.parent
        first[variant] = min(first.get(variant, file.parent.name), file.parent.name)
    return sorted(first, key=lambda variant: first[variant])


def is_rounds(folder: Path) -> bool:
    """Whether runs that belong together are in the folder."""
    return not (folder / records.FILE).exists() and bool(sides(folder) or _runs(folder))


def summarise(folder: Path) -> dict[str, Any]:
    """The summary of a folder of rounds.

    Raises OSError, ValueError and pa.ArrowException where what is in it is no run, or runs that don't belong together.
    """
    rows = [_variant(variant) for variant in sides(folder) or [folder]]
    return {
        "kind": KIND,
        "run": folder.name,
        "scenario": rows[0]["scenario"],
        "interrupted": any(run["interrupted"] for row in rows for run in row["runs"]),
        "variants": rows,
        "met": all(row["met"] for row in rows),
    }


def tables(summary: Mapping[str, Any]) -> RenderableType:
    """A row for each variant and load; what tells repeats apart only where there are some."""
    repeated = any(len(variant["runs"]) > 1 for variant in summary["variants"])
    columns = ("requests", "achieved", "errors", *PERCENTILES, *(("runs", "their p99") if repeated else ()))
    table = table_of(f"{summary['scenario']}  {summary['run']}", "variant", "load", numbers=columns)
    table.add_column("", no_wrap=True)
    for variant in summary["variants"]:
        verdict = Text("met", style="green") if variant["met"] else Text("missed", style="bold red")
        for load in variant["loads"]:
            table.add_row(
                variant["variant"],
                load["name"],
                f"{load['scheduled']:,}",
                format_rate(load["achieved_rate"]),
                Text(f"{load['errors']:,}", style="red" if load["errors"] else ""),
                *(latency_text(load["latency_ns"][name]) for name in PERCENTILES),
                *((str(len(variant["runs"])), _spread(load["p99_ns_of_runs"])) if repeated else ()),
                verdict if variant["judged"] else "",
            )
    notes = [Text("interrupted: not every run was made", style="yellow")] if summary["interrupted"] else []
    return Group(table, *notes)


def _variant(folder: Path) -> dict[str, Any]:
    """What the runs in a folder, which repeat each other, say together."""
    runs = [records.read(run) for run in _runs(folder)]
    if len({tuple(provenance_of(table).get(fact, "") for fact in ALIKE) for table in runs}) > 1:
        raise ValueError(f"runs in {folder} do not repeat each other: scenario or manifests differ")
    each = [report.summarise(table, report.beside(run)) for table, run in zip(runs, _runs(folder), strict=True)]
    names = [load["name"] for load in each[0]["loads"]]
    return {
        "variant": provenance_of(runs[0]).get("variant", ""),
        "scenario": each[0]["scenario"],
        "runs": [{name: summary[name] for name in ("run", "met", "interrupted")} for summary in each],
        "judged": any(summary["objectives"] or summary["events"] for summary in each),
        "met": all(summary["met"] for summary in each),
        "loads": [_load(name, runs, [_of(summary["loads"], name) for summary in each]) for name in names],
    }


def _load(name: str, runs: Sequence[pa.Table], each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scheduled = sum(load["scheduled"] for load in each)
    latencies = np.concatenate([_latencies(report.rows_of(table, name)[0]) for table in runs])
    return {
        "name": name,
        "scheduled": scheduled,
        "answered": len(latencies),
        "errors": sum(load["errors"] for load in each),
        "achieved_rate": sum(load["achieved_rate"] for load in each) / len(each),
        "latency_ns": report.percentiles(latencies, scheduled),
        "p99_ns_of_runs": [load["latency_ns"]["p99"] for load in each],
    }


def _latencies(rows: pa.Table) -> np.ndarray:
    """ns of the requests that were answered, int64[n]."""
    return pc.subtract(rows["done_ns"], rows["intended_ns"]).drop_null().to_numpy()


def _of(loads: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next(load for load in loads if load["name"] == name)


def _runs(folder: Path) -> list[Path]:
    return sorted(file.parent for file in folder.glob(f"*/{records.FILE}"))


def _spread(p99_ns: Sequence[int | None]) -> str:
    """The least and the most."""
    ordered = sorted(p99_ns, key=lambda ns: (ns is None, ns))
    return f"{latency_text(ordered[0])} … {latency_text(ordered[-1])}"
