"""How a run of flows is going: a bar on a terminal, plain lines in a job's log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness.units import format_rate

LINE_EVERY_S = 2.0

# Told the algorithm and how many more of its flows have been steered.
Show = Callable[[str, int], None]


@contextmanager
def shown(algorithms: int, flows: int, console: Console) -> Iterator[Show]:
    """Something to call whenever a shard is finished; ``flows`` are those of each algorithm, over all phases."""
    begin = time.monotonic()
    done = 0

    def rate() -> str:
        return f"{done:,} of {algorithms * flows:,} flows, {format_rate(done / max(time.monotonic() - begin, 1e-3))}"

    if not console.is_terminal:
        next_s = LINE_EVERY_S

        def line(algorithm: str, count: int) -> None:
            nonlocal done, next_s
            done += count
            if (elapsed_s := time.monotonic() - begin) >= next_s:
                next_s = elapsed_s + LINE_EVERY_S
                console.print(f"{elapsed_s:6.1f} s  {algorithm}: {rate()}", markup=False, soft_wrap=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(
        *columns, TimeRemainingColumn(), TextColumn("{task.fields[rate]}"), console=console, transient=True
    ) as bars:
        bar = bars.add_task("making tables", total=algorithms * flows, rate="")

        def advance(algorithm: str, count: int) -> None:
            nonlocal done
            done += count
            bars.update(bar, completed=done, description=algorithm, rate=rate())

        yield advance
