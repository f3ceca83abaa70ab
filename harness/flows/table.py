"""The summary of a run of flows as tables for a terminal or a job's log."""

from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.flows.steering import STAGES
from harness.units import format_ns

SPEED = ("steered", *STAGES, "all")


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


def shape(summary: Mapping[str, Any]) -> str:
    """How large the run was."""
    balancers = f"{summary['balancers']:,} balancer" + ("s" if summary["balancers"] > 1 else "")
    return f"{summary['flows']:,} flows, {balancers}, {summary['seconds']:.1f} s"


def _titles(summary: Mapping[str, Any]) -> str:
    return f"{summary['scenario']}  {summary['run']}\n{shape(summary)}; million flows/s by stage:"


def _speed(summary: Mapping[str, Any]) -> Table:
    table = _table(SPEED)
    for row in summary["algorithms"]:
        table.add_row(row["algorithm"], *speed_cells(row))
    return table


def speed_cells(row: Mapping[str, Any]) -> list[str]:
    """What ``SPEED`` has of an algorithm."""
    rates = (row["stages"][stage]["flows_per_s"] for stage in (*STAGES, "all"))
    return [f"{row['steered']:,}", *("" if rate is None else f"{rate / 1e6:,.1f}" for rate in rates)]


def _phases(summary: Mapping[str, Any]) -> Table:
    """A line with the event, then one for each algorithm. Eighty columns have room for all but the longest events."""
    table = _table(phase_heads(summary))
    for event, rows in events_of(summary):
        table.add_row(Text(event, style="bold"))
        for name, phase in rows:
            moved, disrupted, *others = phase_cells(summary, phase)
            red = Text(disrupted, style="red" if phase["disrupted"] else "")
            table.add_row(f"  {name}", moved, red, *others)
    return table


def events_of(summary: Mapping[str, Any]) -> Iterator[tuple[str, list[tuple[str, Mapping[str, Any]]]]]:
    """Each event, and the phase after it of every algorithm, by name."""
    phases = [[(row["algorithm"], phase) for phase in row["phases"]] for row in summary["algorithms"]]
    for rows in zip(*phases, strict=True):
        yield rows[0][1]["event"], list(rows)


def phase_heads(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """What ``phase_cells`` are; ``without`` only where flows are."""
    return ("moved", "disrupted", *(("without",) if _lost(summary) else ()), "max", "p99", "tables", "slots")


def phase_cells(summary: Mapping[str, Any], phase: Mapping[str, Any]) -> list[str]:
    """One algorithm's phase: shares of flows, the busiest over the mean, making the tables, part of slots changed."""
    even = phase["imbalance"] or {}
    made_ns = phase["compile_ns"] + phase["build_ns"]
    return [
        percent(phase["moved_share"]),
        percent(phase["disrupted_share"]),
        *((f"{phase['without']:,}",) if _lost(summary) else ()),
        *(f"{even[name]:.3f}" if even else "" for name in ("max_over_mean", "p99_over_mean")),
        format_ns(made_ns) if made_ns else "",
        percent(phase["slots_changed"] / phase["slots"]) if phase["phase"] and phase["slots"] else "",
    ]


def _lost(summary: Mapping[str, Any]) -> bool:
    return any(phase["without"] for row in summary["algorithms"] for phase in row["phases"])


def percent(part: float | None) -> str:
    """A share for people: two digits, and no rounding of little to nothing."""
    if part is None:
        return ""
    return f"{100 * part:.2f} %" if part >= 5e-5 or part == 0 else f"{100 * part:.1g} %"
