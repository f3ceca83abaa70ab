"""Pieces that descriptions are put together from: fields, tables, conditions. Pure."""

from collections.abc import Callable, Iterable, Sequence

from plane.columns import NONE
from plane.model import Object, Snapshot
from plane.printing import aligned

# A field and its value, of one line or of several.
Row = tuple[str, str | Sequence[str]]
# What a kind has to show besides what all have: fields, then blocks of text.
Description = Callable[[Snapshot, Object], tuple[list[Row], list[str]]]


def fields(rows: Iterable[Row], indent: str = "") -> str:
    """``Name:   value`` lines with the values below each other."""
    rows = list(rows)
    width = max((len(name) + 3 for name, _ in rows), default=0)
    text = ""
    for name, value in rows:
        first, *more = [value] if isinstance(value, str) else [*value] or [NONE]
        text += f"{indent}{name + ':':{width}}{first}\n" + "".join(f"{indent}{'':{width}}{line}\n" for line in more)
    return text


def block(title: str, rows: Sequence[Sequence[str]], empty: str = NONE) -> str:
    """A titled table; the first of the rows is its header."""
    if len(rows) < 2:
        return fields([(title, empty)])
    header, *body = rows
    table = aligned([header, ["-" * len(name) for name in header], *body])
    return f"{title}:\n" + "".join(f"  {line.rstrip()}\n" for line in table.splitlines())


def lines(mapping: dict[str, str] | None, between: str) -> list[str]:
    return [f"{name}{between}{value}" for name, value in sorted((mapping or {}).items())]


def conditions(obj: Object) -> str:
    rows = [
        (row["type"], row["status"], row.get("reason", ""), row.get("message", ""))
        for row in (obj.get("status") or {}).get("conditions") or ()
    ]
    return block("Conditions", [("Type", "Status", "Reason", "Message"), *rows])
