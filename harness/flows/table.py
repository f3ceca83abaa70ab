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
    parts: list[RenderableType] = [_speed(summary), "", _phases(summary)]
    if summary["interrupted"]:
        parts += ["", Text("interrupted: only the balancers that were finished by then are counted", style="yellow")]
    return Group(*parts)


def _table(title: str, texts: tuple[str, ...], numbers: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in texts:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _speed(summary: Mapping[str, Any]) -> Table:
    shape = f"{summary['flows']:,} flows, {summary['balancers']:,} balancers, {summary['seconds']:.1f} s"
    title = f"{summary['scenario']}  {summary['run']}  {shape}"
    stages = tuple(f"{stage}, M flows/s" for stage in (*STAGES, "all"))
    table = _table(title, ("algorithm",), ("steered", *stages))
    for row in summary["algorithms"]:
        rates = (row["stages"][stage]["flows_per_s"] for stage in (*STAGES, "all"))
        table.add_row(row["algorithm"], f"{row['steered']:,}", *("" if r is None else f"{r / 1e6:,.1f}" for r in rates))
    return table


def _phases(summary: Mapping[str, Any]) -> Table:
    numbers = ("moved", "disrupted", "without", "max/mean", "p99/mean", "tables", "slots changed")
    table = _table("phase by phase, each against the one before", ("event", "algorithm"), numbers)
    count = max((len(row["phases"]) for row in summary["algorithms"]), default=0)
    for number in range(count):
        for row in summary["algorithms"]:
            phase = row["phases"][number]
            even = phase["imbalance"] or {}
            made_ns = phase["compile_ns"] + phase["build_ns"]
            first = row is summary["algorithms"][0]
            table.add_row(
                phase["event"] if first else "",
                row["algorithm"],
                percent(phase["moved_share"]),
                Text(percent(phase["disrupted_share"]), style="red" if phase["disrupted"] else ""),
                f"{phase['without']:,}" if phase["without"] else "",
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
