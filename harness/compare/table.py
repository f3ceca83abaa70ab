"""A comparison as tables for a terminal or a job's log."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.compare.verdict import BETTER, FEW, WORSE
from harness.units import format_ns, format_rate

STYLES = {BETTER: "green", WORSE: "bold red", FEW: "dim"}


def tables(summary: Mapping[str, Any]) -> RenderableType:
    """The summary of ``comparison.summarise``: a table for each run that is held against the first."""
    parts: list[RenderableType] = []
    for pair in summary["comparisons"]:
        parts += [*_heading(summary["base"], pair), _table(pair["findings"]), ""]
    for row in summary["broken"]:
        parts.append(Text(f"{row['load']}: {row['limit']} is so in {row['name']}", style="bold red"))
    return Group(*parts)


def _heading(base: Mapping[str, Any], pair: Mapping[str, Any]) -> Sequence[RenderableType]:
    lines = [Text(f"base   {_named(base)}", style="bold"), Text(f"other  {_named(pair['other'])}", style="bold")]
    lines += [Text(f"differs in {line}", style="dim") for line in pair["differences"]]
    lines += [Text(f"forced although: {line}", style="yellow") for line in pair["forced"]]
    lines += [Text(pair["test"], style="dim"), Text("")]
    return lines


def _named(side: Mapping[str, Any]) -> str:
    runs = side["runs"]
    return f"{side['name']} ({len(runs)} runs)" if len(runs) > 1 else side["name"]


def _table(findings: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("load", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    for name in ("base", "other", "change", "95% interval", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    load = ""
    for row in findings:
        change, metric = row["change"], row["metric"]
        table.add_row(
            row["load"] if row["load"] != load else "",
            metric,
            value_text(metric, row["base"]["value"]),
            value_text(metric, row["other"]["value"]),
            change_text(metric, change["value"]),
            "" if row["p"] is None else f"{change_text(metric, change['low'])} … {change_text(metric, change['high'])}",
            "" if row["p"] is None else f"{row['p']:.3f}",
            Text(row["verdict"], style=STYLES.get(row["verdict"], "")),
        )
        load = row["load"]
    return table


def value_text(metric: str, value: float | None) -> str:
    """A value of a metric for people."""
    if metric == "errors":
        return f"{(value or 0) * 100:.3g}%"
    if metric == "rate":
        return format_rate(value or 0)
    return "never" if value is None else format_ns(round(value))


def change_text(metric: str, change: float | None) -> str:
    """A change of a metric for people: of errors in points of a hundred."""
    if change is None:
        return "never"
    return f"{change * 100:+.2f} pt" if metric == "errors" else f"{change * 100:+.1f}%"
