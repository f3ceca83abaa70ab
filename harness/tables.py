"""A summary as tables for a terminal or a job's log."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness import hops
from harness.events import told
from harness.objectives import PERCENTILES, latency_text
from harness.units import format_ns, format_rate

# What a log has room for: rich takes 80 columns where there is no terminal, which breaks the rows.
WIDTH_WITHOUT_TERMINAL = 140


def console(*, stderr: bool = False) -> Console:
    """A console that does not break rows where there is no terminal."""
    made = Console(stderr=stderr, highlight=False)
    if not made.is_terminal:
        made.width = max(made.width, WIDTH_WITHOUT_TERMINAL)
    return made


def tables(summary: Mapping[str, Any]) -> RenderableType:
    """The summary of ``report.summarise``: loads, requests by pod, objectives."""
    parts: list[RenderableType] = [_loads(summary)]
    if any(load["hops"] for load in summary["loads"]):
        parts += ["", _hops(summary)]
    for title, column, rows in parted(summary):
        parts += ["", _parts(title, column, rows)]
    for line in notes(summary):
        parts += ["", Text(line, style="yellow")]
    if any(load["handshakes"] for load in summary["loads"]):
        parts += ["", _handshakes(summary)]
    if any(row["pod"] for row in summary["pods"]):
        parts += ["", _pods(summary)]
    if summary["events"]:
        parts += ["", _events(summary)]
    if summary["objectives"]:
        parts += ["", _objectives(summary)]
    if summary["interrupted"]:
        cut_off = sum(load["cut_off"] for load in summary["loads"])
        reason = f"interrupted: this was measured until then; {cut_off:,} requests under way were cut off"
        parts += ["", Text(reason, style="yellow")]
    return Group(*parts)


def table_of(title: str, *texts: str, numbers: tuple[str, ...] = ()) -> Table:
    """An empty table with columns of text, then of numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in texts:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _loads(summary: Mapping[str, Any]) -> Table:
    columns = ("requests", "offered", "achieved", "errors", *PERCENTILES)
    table = table_of(f"{summary['scenario']}  {summary['run']}", "load", "arrivals", numbers=columns)
    for load in summary["loads"]:
        errors = ", ".join(f"{count:,} {kind}" for kind, count in load["errors_by_kind"].items())
        table.add_row(
            load["name"],
            load["arrivals"],
            f"{load['scheduled']:,}",
            "" if load["offered_rate"] is None else format_rate(load["offered_rate"]),
            format_rate(load["achieved_rate"]),
            Text(errors or "0", style="red" if errors else ""),
            *latency_cells(load),
        )
    return table


def parted(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, Sequence[Mapping[str, Any]]]]:
    """(title, what tells the rows apart, rows) of the loads of whose rows there are several kinds."""
    for load in summary["loads"]:
        if load["stages"]:
            yield f"{load['name']} by stage", "stage", load["stages"]
        if load["requests"]:
            yield f"{load['name']} by request", "request", load["requests"]


def _parts(title: str, column: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = table_of(title, column, numbers=("requests", "share", "errors", *PERCENTILES))
    for name, *cells in part_cells(column, rows):
        table.add_row(Text(name), *cells[:2], Text(cells[2], style="red" if cells[2] != "0" else ""), *cells[3:])
    return table


def part_cells(column: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Cells of each row of such a table."""
    total = max(sum(row["scheduled"] for row in rows), 1)
    for row in rows:
        yield [
            row[column],
            f"{row['scheduled']:,}",
            f"{row['scheduled'] / total:.1%}",
            f"{row['errors']:,}",
            *latency_cells(row),
        ]


def latency_cells(part: Mapping[str, Any]) -> Iterator[str]:
    """The percentiles of a load, or of some of its rows; nothing where none of its requests was due."""
    return (latency_text(part["latency_ns"][name]) if part["scheduled"] else "" for name in PERCENTILES)


def notes(summary: Mapping[str, Any]) -> Iterator[str]:
    """A line for each load with rows that count for nothing else here, or lines of a log that were not replayed."""
    for load in summary["loads"]:
        if load["warm_up"]:
            yield f"{load['name']}: {load['warm_up']:,} requests of its warm-up have rows, and count for nothing here"
        if lost := load["generators_lost"]:
            several = f"{lost} of its {load['generators']} generators"
            yield f"{load['name']}: {several} were lost: requests of theirs are missing here, and objectives not met"
        log = load["replay"]
        if log and log["unreadable"]:
            numbers = ", ".join(str(row["line"]) for row in log["unread"])
            more = ", …" if log["unreadable"] > len(log["unread"]) else ""
            counts = f"{log['unreadable']:,} of {log['lines']:,} lines of {log['log']} are no requests"
            yield f"{load['name']}: {counts} and were not replayed: {numbers}{more}"


def _handshakes(summary: Mapping[str, Any]) -> Table:
    table = table_of("TLS handshakes", "load", numbers=("made", *PERCENTILES))
    for name, *cells in handshake_cells(summary):
        table.add_row(name, *cells)
    return table


def handshake_cells(summary: Mapping[str, Any]) -> Iterator[list[str]]:
    """A row for each load that shook hands: its name, how often, and how long that took."""
    for load in summary["loads"]:
        if made := load["handshakes"]:
            yield [
                load["name"],
                f"{made['made']:,}",
                *(latency_text(made["latency_ns"][name]) for name in PERCENTILES),
            ]


def _hops(summary: Mapping[str, Any]) -> Table:
    """Where the time of the requests around the median and the 99th percentile went: a row for each hop."""
    shown = {
        f"{load['name']} {name}": load["hops"][name]
        for load in summary["loads"]
        for name in ("p50", "p99")
        if load["hops"]
    }
    table = table_of("where the time went", "mean around", numbers=tuple(shown))
    for hop in hops.known(shown):
        table.add_row(hop, *(format_ns(means[hop]) if hop in means else "" for means in shown.values()))
    table.add_row("all", *(format_ns(sum(means.values())) for means in shown.values()))
    return table


BY_POD = "answered requests by pod"


def _pods(summary: Mapping[str, Any]) -> Table:
    heads, rows = pod_cells(summary)
    table = table_of(BY_POD, *heads[:2], numbers=heads[2:])
    for row in rows:
        table.add_row(*row)
    return table


def pod_cells(summary: Mapping[str, Any]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Heads, two of which are texts, and the cells of each pod: how many requests of each load it has answered."""
    loads = [load["name"] for load in summary["loads"]]
    counts: dict[tuple[str, str], dict[str, int]] = {}
    for row in summary["pods"]:
        counts.setdefault((row["pod"], row["node"]), {})[row["load"]] = row["answered"]
    rows = []
    for (pod, node), by_load in sorted(counts.items(), key=lambda item: (not item[0][0], item[0])):
        cells = (f"{by_load.get(load, 0):,}" for load in loads)
        rows.append([pod or "(unknown)", node, *cells, f"{sum(by_load.values()):,}"])
    return ("pod", "node", *loads, "all"), rows


def _events(summary: Mapping[str, Any]) -> Table:
    table = table_of("events", "event", numbers=("at", "in force after", "generation"))
    table.add_column("", no_wrap=True)
    for row in summary["events"]:
        took = "" if row["done_ns"] is None else format_ns(row["done_ns"] - row["begun_ns"])
        generation = "" if row["generation"] is None else str(row["generation"])
        error = Text(row["error"] or "", style="bold red")
        table.add_row(told(row), format_ns(row["begun_ns"]), took, generation, error)
    return table


def _objectives(summary: Mapping[str, Any]) -> Table:
    table = table_of("objectives", "load", "objective", numbers=("limit", "measured"))
    table.add_column("", no_wrap=True)
    for row in summary["objectives"]:
        verdict = Text("met", style="green") if row["met"] else Text("missed", style="bold red")
        table.add_row(row["load"], row["objective"], row["limit"], row["actual"], verdict)
    return table
