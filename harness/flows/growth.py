"""A scenario of flows with more and more Services: how tables, changes and look-ups grow with them.

Law: each size is a run like any other, in a folder of its own; the summary and its page are made from their rows alone.

    <folder>/summary.json, <folder>/report.html, <folder>/<count>-services/<run>/…
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness import provenance
from harness.flows import running
from harness.flows.running import Prepared, Result, prepare
from harness.flows.scenario import FlowScenario
from harness.flows.summary import summarise as summarise_run
from harness.flows.turns import taken
from harness.units import format_ns

KIND = "growth"
HEADS = ("M flows/s", "ns a flow", "tables", "after an event", "MiB")


def play(
    scenario: FlowScenario, file: Path, run: Callable[[Prepared, Path], Result], out: Path, console: Console
) -> Result:
    """Runs the scenario in a file with each of its numbers of Services, and sums up.

    ``run(prepared, folder)`` carries one, and leaves its rows in a folder of the one it is given. Raises as ``taken``.
    """
    folder = out / scenario.name / provenance.run_id()

    def sized(count: int) -> Result:
        return run(prepare(file, count), folder / f"{count}-services")

    turns = ((f"{count:,} Services", partial(sized, count)) for count in scenario.spec.counts)
    return taken(turns, folder, is_growth, summarise, console)


def is_growth(folder: Path) -> bool:
    """Whether runs of one scenario with several numbers of Services are in the folder."""
    return bool(_runs(folder))


def largest(folder: Path) -> pa.Table:
    """The rows of the run with the most Services. Raises OSError and pa.ArrowInvalid."""
    return running.read(_runs(folder)[-1])[0]


def summarise(folder: Path) -> dict[str, Any]:
    """The summary of all sizes. Raises OSError, ValueError and pa.ArrowException where what is there is no run."""
    each = [summarise_run(*running.read(run)) for run in _runs(folder)]
    return {
        "kind": KIND,
        "run": folder.name,
        "scenario": each[0]["scenario"],
        "interrupted": any(summary["interrupted"] for summary in each),
        "sizes": [
            {
                "run": summary["run"],
                "frontends": summary["algorithms"][0]["phases"][0]["frontends"],
                "backends": summary["algorithms"][0]["phases"][0]["backends"],
                "flows": summary["flows"],
                "algorithms": [_grown(row) for row in summary["algorithms"]],
            }
            for summary in each
        ],
        "met": True,
    }


def tables(summary: Mapping[str, Any]) -> RenderableType:
    """The summary for a terminal: a line for each size, then one for each algorithm."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("algorithm", no_wrap=True)
    for name in HEADS:
        table.add_column(name, justify="right", no_wrap=True)
    for size in summary["sizes"]:
        table.add_row(Text(f"{size['frontends']:,} frontends", style="bold"))
        for row in size["algorithms"]:
            table.add_row(f"  {row['algorithm']}", *cells(row))
    parts: list[RenderableType] = [Text(f"{summary['scenario']}  {summary['run']}", style="bold"), table]
    if summary["interrupted"]:
        parts.append(Text("interrupted: only the sizes that were finished by then are counted", style="yellow"))
    return Group(*parts)


def cells(row: Mapping[str, Any]) -> list[str]:
    """What ``HEADS`` has of an algorithm at one size."""
    rate, steered = row["flows_per_s"], steered_ns(row)
    return [
        "" if rate is None else f"{rate / 1e6:,.1f}",
        "" if steered is None else f"{steered:.1f}",
        format_ns(row["first_ns"]),
        "" if row["change_ns"] is None else format_ns(row["change_ns"]),
        f"{table_mib(row):,.1f}",
    ]


def steered_ns(row: Mapping[str, Any]) -> float | None:
    return 1e9 / row["flows_per_s"] if row["flows_per_s"] else None


def first_ms(row: Mapping[str, Any]) -> float:
    return float(row["first_ns"]) / 1e6


def change_ms(row: Mapping[str, Any]) -> float | None:
    return None if row["change_ns"] is None else row["change_ns"] / 1e6


def table_mib(row: Mapping[str, Any]) -> float:
    return float(row["table_bytes"]) / 2**20


def _grown(row: Mapping[str, Any]) -> dict[str, Any]:
    """One algorithm at one size: steering by itself, its first tables, and the costliest change of them."""
    made_ns = [phase["compile_ns"] + phase["build_ns"] for phase in row["phases"]]
    return {
        "algorithm": row["algorithm"],
        "flows_per_s": row["stages"]["steer"]["flows_per_s"],
        "first_ns": made_ns[0],
        "change_ns": max((each for each in made_ns[1:] if each), default=None),
        "table_bytes": row["phases"][0]["table_bytes"],
        "disrupted": sum(phase["disrupted"] for phase in row["phases"]),
    }


def _runs(folder: Path) -> list[Path]:
    """In the order of their numbers of Services."""
    found = [run for run in folder.glob("*-services/*") if running.holds_run(run)]
    return sorted(found, key=lambda run: int(run.parent.name.removesuffix("-services")))
