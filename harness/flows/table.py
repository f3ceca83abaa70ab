"""The summary of a run of flows as tables for a terminal or a job's log."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.flows.steering import STAGES
from harness.units import format_ns


def tables(summary: Mapping[str, Any]) -> RenderableType:
    """The summary of ``summary.summarise``: speed by stage, then what became of flows by phase."""
    phases = Text("phase by phase, each against the one before; max and p99 over the mean:", style="bold")
    parts: list[RenderableType] = [Text(_titles(summary), style="bold"), _speed(summary), "", phases, _phases(summary)]
    if summary["interrupted"]:
        parts += ["", Text("interrupted: only the balancers that were finished by then are counted", style="yellow")]
    return Group(*parts)


def _table(numbers: tuple[str, ...]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("algorithm", no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _titles(summary: Mapping[str, Any]) -> str:
    balancers = f"{summary['balancers']:,} balancer" + ("s" if summary["balancers"] > 1 else "")
    shape = f"{summary['flows']:,} flows, {balancers}, {summary['seconds']:.1f} s"
    return f"{summary['scenario']}  {summary['run']}\n{shape}; million flows/s by stage:"


def _speed(summary: Mapping[str, Any]) -> Table:
    table = _table(("steered", *STAGES, "all"))
    for row in summary["algorithms"]:
        rates = (row["stages"][stage]["flows_per_s"] for stage in (*STAGES, "all"))
        table.add_row(row["algorithm"], f"{row['steered']:,}", *("" if r is None else f"{r / 1e6:,.1f}" for r in rates))
    return table


def _phases(summary: Mapping[str, Any]) -> Table:
    """A line with the event, then one for each algorithm. Eighty columns have room for all but the longest events."""
    lost = any(phase["without"] for row in summary["algorithms"] for phase in row["phases"])
    numbers = ("moved", "disrupted", *(("without",) if lost else ()), "max", "p99", "tables", "slots")
    table = _table(numbers)
    count = max((len(row["phases"]) for row in summary["algorithms"]), default=0)
    for number in range(count):
        table.add_row(Text(summary["algorithms"][0]["phases"][number]["event"], style="bold"))
        for row in summary["algorithms"]:
            phase = row["phases"][number]
            even = phase["imbalance"] or {}
            made_ns = phase["compile_ns"] + phase["build_ns"]
            table.add_row(
                f"  {row['algorithm']}",
                percent(phase["moved_share"]),
                Text(percent(phase["disrupted_share"]), style="red" if phase["disrupted"] else ""),
                *((f"{phase['without']:,}",) if lost else ()),
                *(f"{even[name]:.3f}" if even else "" for name in ("max_over_mean", "p99_over_mean")),
                format_ns(made_ns) if made_ns else "",
                percent(phase["slots_changed"] / phase["slots"]) if number and phase["slots"] else "",
            )
    return table


def percent(part: float | None) -> str:
    """A share for people: two digits, and no rounding of little to nothing."""
    if part is None:
        return ""
    return f"{100 * part:.2f} %" if part >= 5e-5 or part == 0 else f"{100 * part:.1g} %"
