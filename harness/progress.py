"""How a run is going, while it goes: a bar for each load on a terminal, plain lines in a job's log."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from harness.drivers.stream import Progress
from harness.scenario import Load
from harness.units import NS_PER_S, format_rate

LINE_EVERY_S = 2.0

# Told the seconds since the run's epoch and how far each load is.
Show = Callable[[float, Sequence[Progress]], None]


@contextmanager
def shown(loads: Sequence[Load], console: Console) -> Iterator[Show]:
    """Something to call every now and then while the loads run."""
    if console.is_terminal:
        with _bars(console) as bars:
            yield _on_terminal(loads, bars)
    else:
        yield _in_log(loads, console)


def _bars(console: Console) -> Bars:
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[counts]}"),
        console=console,
        transient=True,
    )


def _on_terminal(loads: Sequence[Load], bars: Bars) -> Show:
    rows = [bars.add_task(load.name, total=load.duration / NS_PER_S or None, counts="") for load in loads]
    counts = _Counts(loads)

    def show(elapsed_s: float, progress: Sequence[Progress]) -> None:
        for row, load, text in zip(rows, loads, counts(elapsed_s, progress), strict=True):
            into_s = elapsed_s - load.start / NS_PER_S
            bars.update(row, completed=min(max(into_s, 0), load.duration / NS_PER_S), counts=text)

    return show


def _in_log(loads: Sequence[Load], console: Console) -> Show:
    counts = _Counts(loads)
    next_s = LINE_EVERY_S

    def show(elapsed_s: float, progress: Sequence[Progress]) -> None:
        nonlocal next_s
        if elapsed_s < next_s:
            return
        next_s = elapsed_s + LINE_EVERY_S
        texts = (f"{load.name} {text}" for load, text in zip(loads, counts(elapsed_s, progress), strict=True))
        console.print(f"{elapsed_s:6.1f} s  " + "; ".join(texts))

    return show


class _Counts:
    """The rate since the last call, requests done and errors, as text for each load."""

    def __init__(self, loads: Sequence[Load]):
        self._at_s = 0.0
        self._done = [0] * len(loads)

    def __call__(self, elapsed_s: float, progress: Sequence[Progress]) -> list[str]:
        step_s = max(elapsed_s - self._at_s, 1e-3)
        texts = [
            f"{format_rate((now.done - before) / step_s)}, {now.done:,} done, {now.errors:,} errors"
            for now, before in zip(progress, self._done, strict=True)
        ]
        self._at_s = elapsed_s
        self._done = [now.done for now in progress]
        return texts
