"""A comparison as tables: for a terminal, and as Markdown for the docs."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.peers.summary import BASELINE, CONTESTS, Contest
from harness.units import format_ns

BESIDE = ("rate", "answers for the same CPU", "short of the goal")
WIDTH = 7  # columns of numbers
GENERATED = "<!-- Written by `plane bench peers --write`; changes here are lost. -->\n"


def tables(summary: Mapping[str, Any]) -> RenderableType:
    """The whole of it for a terminal."""
    parts: list[RenderableType] = [_rich(_title(summary), ("workload", "subject"), _columns(summary), _cells(summary))]
    if summary["beside"]:
        parts += ["", _rich(" beside ".join(_rivals(summary)), ("workload",), BESIDE, _beside(summary))]
    parts += ["", *(Text(line) for line in notes(summary))]
    return Group(*parts)


def markdown(summary: Mapping[str, Any]) -> str:
    """The same as a file of the docs."""
    parts = [GENERATED, f"{_title(summary)}.\n", _lines(("workload", "subject"), _columns(summary), _cells(summary))]
    if summary["beside"]:
        parts += [
            "{} beside {}:\n".format(*(f"`{name}`" for name in _rivals(summary))),
            _lines(("workload",), BESIDE, _beside(summary)),
        ]
    parts.append("".join(f"- {line}\n" for line in notes(summary)))
    return "\n".join(parts)


def _contest(summary: Mapping[str, Any]) -> Contest:
    return CONTESTS[summary["kind"]]


def _rivals(summary: Mapping[str, Any]) -> tuple[str, str]:
    return _contest(summary).ours, _contest(summary).rival


def _columns(summary: Mapping[str, Any]) -> tuple[str, ...]:
    share = f"× {_contest(summary).baseline}"
    return ("rate", "lowest to highest", share, "CPU, an answer", "core busy", "p50", "p99")


def notes(summary: Mapping[str, Any]) -> list[str]:
    """What one must know beside the numbers: who was what, where, and who is missing why."""
    versions = ", ".join(f"{name} {version}" for name, version in summary["peers"].items())
    placement = summary["placement"]
    shared = ", the other thread of the same core" if placement["siblings"] else ""
    lines = [
        f"versions: {versions}",
        f"subject on core {placement['subject']}; client and backends share core {placement['others']}{shared}",
        f"{summary['cpu']}, Linux {summary['kernel']}",
    ]
    lines += [f"client: {summary['client']}"] if summary["client"] else []
    lines += [f"{name} was skipped: {reason}" for name, reason in summary["skipped"].items()]
    lines += [f"{name}: {reason}" for name, reason in summary["refused"].items()]
    if any("(core)" in cell for cells in _cells(summary) for cell in cells):
        lines.append("(core): how long its core was not idle, where the work is the kernel's and no process has it")
    if summary["interrupted"] == "true":
        lines.append("interrupted: this was measured until then")
    return lines


def rate_text(unit: str, per_second: float) -> str:
    """A rate for people: of bulk in GB/s."""
    return f"{per_second / 1e9:.2f} GB/s" if unit == "bytes" else f"{per_second:,.0f}/s"


def _title(summary: Mapping[str, Any]) -> str:
    rounds = int(summary["rounds"] or 0)
    often = "1 round" if rounds == 1 else f"medians of {rounds} rounds"
    return f"peers {summary['run']}: {often}, {summary['seconds']} s each"


def _cells(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The cells of the first table, workload by workload; an error takes the place of its numbers."""
    order = {row["workload"]: None for row in summary["rows"]}
    subjects = list(summary["peers"])
    rows = sorted(summary["rows"], key=lambda row: (list(order).index(row["workload"]), subjects.index(row["subject"])))
    return [(row["workload"], row["subject"], *_numbers(row)) for row in rows]


def _numbers(row: Mapping[str, Any]) -> tuple[str, ...]:
    if row["errors"]:
        wrong = "; ".join(f"{text} ({count} ×)" if count > 1 else text for text, count in row["errors"].items())
        return (f"error: {wrong}", *[""] * (WIDTH - 1))
    spread = " to ".join(rate_text(row["unit"], row["rate"][name]) for name in ("lowest", "highest"))
    return (
        rate_text(row["unit"], row["rate"]["median"]),
        spread,
        "" if row["ratio"] is None else f"{row['ratio']:.2f}",
        _cpu_text(row),
        f"{row['core_busy']:.0%}",
        format_ns(round(row["p50_ns"])),
        format_ns(round(row["p99_ns"])),
    )


def _cpu_text(row: Mapping[str, Any]) -> str:
    if row["subject"] == BASELINE:  # nobody is on its core
        return ""
    return f"{row['core_us']:,.1f} µs (core)" if row["cpu_us"] is None else f"{row['cpu_us']:,.1f} µs"


def _beside(summary: Mapping[str, Any]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for row in summary["beside"]:
        short = [f"{name} by {by:.0%}" for name, by in row["short"].items() if by > 0]
        goals = "met (rate {rate:g} ×, CPU {cpu:g} ×)".format(**_contest(summary).goals)
        rows.append((row["workload"], f"{row['rate']:.2f} ×", f"{row['cpu']:.2f} ×", ", ".join(short) or goals))
    return rows


def _rich(title: str, texts: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in texts:
        table.add_column(name, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right")
    for row, following in zip(rows, [*rows[1:], ("",)], strict=True):
        style = "red" if any(cell.startswith("error") for cell in row) else ""
        table.add_row(*(Text(cell, style=style) for cell in row), end_section=row[0] != following[0])
    return table


def _lines(texts: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = [*texts, *numbers]
    rule = [*["---"] * len(texts), *["---:"] * len(numbers)]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |\n" for row in (head, rule, *rows))
