"""``plane connections``: what is under way through Services."""

import json
import time
from collections.abc import Callable, Sequence

import click

from plane.cli.arguments import Command, connect
from plane.model import Object

EVERY_S = 1.0
COLUMNS = ("CLIENT", "SERVICE", "FRONTEND", "BACKEND", "POD", "NODE", "STATE", "TO-POD", "TO-CLIENT", "AGE", "BECAUSE")
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


@click.command(cls=Command)
@click.option("-s", "--service", metavar="[NS/]NAME", help="Only those of this Service.")
@click.option("-o", "--output", type=click.Choice(["json"]), help="Another form than a table.")
@click.option("-w", "--watch", is_flag=True, help="Go on and show them anew each second, until Ctrl-C.")
def connections(service: str | None, output: str | None, watch: bool) -> int:
    """Show the connections through Services that are open: client, frontend, pod, bytes, age and why this pod."""
    with connect() as client:

        def found() -> list[Object]:
            name = service if service is None or "/" in service else f"{client.namespace}/{service}"
            return [row for row in client.connections() if name is None or row["service"].rpartition(":")[0] == name]

        if output == "json":
            click.echo(json.dumps({"kind": "ConnectionList", "items": found()}, indent=2))
        elif watch:
            _watch(found)
        else:
            rows = found()
            click.echo(_text(rows) if rows else "No connection is open.")
    return 0


def _cells(row: Object) -> tuple[str, ...]:
    moved = _bytes(row["bytesToBackend"]), _bytes(row["bytesToClient"])
    names = (row[name] for name in ("client", "service", "frontend", "backend", "pod", "node", "state"))
    return (*names, *moved, f"{row['ageSeconds']:.1f}s", row["because"])


def _text(rows: Sequence[Object]) -> str:
    table = [COLUMNS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table
    )


def _watch(found: Callable[[], Sequence[Object]]) -> None:
    """Shows them in place, again and again."""
    from rich import box  # takes a while to load, and only this needs it
    from rich.live import Live
    from rich.table import Table

    def table() -> Table:
        rows = found()
        shown = Table(*COLUMNS, box=box.SIMPLE_HEAD, caption=f"{len(rows)} open")
        for row in rows:
            shown.add_row(*_cells(row))
        return shown

    with Live(table(), auto_refresh=False) as live:
        while True:
            time.sleep(EVERY_S)
            live.update(table(), refresh=True)


def _bytes(number: float) -> str:
    for unit in UNITS:
        if number < 1024 or unit == UNITS[-1]:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return ""
