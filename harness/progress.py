"""How a run is going, while it goes: a picture on a terminal, plain lines in a job's log.

Law: what is shown is told by those who measure and never kept; a look costs the load nothing but an answer from another
thread. Percentiles are those of the last seconds, from a histogram (``harness.tally``, which says how exact they are).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness import tally
from harness.drivers.stream import Progress
from harness.events import Happened, told
from harness.objectives import latency_text
from harness.scenario import Load
from harness.units import NS_PER_S, format_ns, format_rate

LINE_EVERY_S = 2.0
PODS_AT_MOST = 12
EVENTS_AT_MOST = 6
BAR_WIDTH = 24
CAPTION = (
    f"percentiles: the last {tally.SECONDS} s by a histogram, up to {tally.ERROR:.1%} too high; the report's are exact"
)


@dataclass(frozen=True)
class Seen:
    """What there is to show: how far each load is, requests that each pod has answered, events in their order."""

    loads: Sequence[Progress]
    pods: Mapping[str, int] = field(default_factory=dict)
    events: Sequence[Happened] = ()


# Told the seconds since the run's epoch and what is to be seen then.
Show = Callable[[float, Seen], None]


@contextmanager
def shown(loads: Sequence[Load], console: Console) -> Iterator[Show]:
    """Something to call every now and then while the loads run."""
    if console.is_terminal:
        with Live(console=console, transient=True, auto_refresh=False) as live:
            picture = Picture(loads)
            yield lambda elapsed_s, seen: live.update(picture(elapsed_s, seen), refresh=True)
    else:
        yield _in_log(loads, console)


class Picture:
    """The picture of a run from one moment to the next."""

    def __init__(self, loads: Sequence[Load]):
        self._loads = loads
        self._done = _Rates()
        self._answered = _Rates()

    def __call__(self, elapsed_s: float, seen: Seen) -> RenderableType:
        parts: list[RenderableType] = [self._table_of_loads(elapsed_s, seen.loads)]
        if pods := {pod: count for pod, count in seen.pods.items() if count}:
            parts += ["", self._table_of_pods(elapsed_s, pods)]
        if seen.events:
            parts += ["", *(Text(_told(event)) for event in seen.events[-EVENTS_AT_MOST:])]
        return Group(*parts)

    def _table_of_loads(self, elapsed_s: float, progress: Sequence[Progress]) -> Table:
        rates = self._done(elapsed_s, {load.name: now.done for load, now in zip(self._loads, progress, strict=True)})
        table = _table("load", "", "of", "rate", "done", "errors", *tally.SHARES)
        table.caption, table.caption_justify = CAPTION, "left"
        for load, now in zip(self._loads, progress, strict=True):
            into_ns = max(round(elapsed_s * NS_PER_S) - load.start, 0)
            # Of a log the scenario alone does not know how long it is.
            total_ns = load.duration or None
            table.add_row(
                load.name,
                ProgressBar(total=total_ns, completed=min(into_ns, total_ns or into_ns), width=BAR_WIDTH),
                format_ns(total_ns) if total_ns else "",
                format_rate(rates[load.name]),
                f"{now.done:,}",
                Text(f"{now.errors:,}", style="red" if now.errors else ""),
                *(latency_text(now.latency_ns[name]) if now.latency_ns else "" for name in tally.SHARES),
            )
        return table

    def _table_of_pods(self, elapsed_s: float, pods: Mapping[str, int]) -> Table:
        rates = self._answered(elapsed_s, pods)
        table = _table("pod", "", "rate", "answered")
        busiest = sorted(pods, key=lambda pod: (-rates[pod], pod))
        most = max(rates.values()) or 1.0
        for pod in sorted(busiest[:PODS_AT_MOST]):
            bar = ProgressBar(total=most, completed=rates[pod], width=BAR_WIDTH, complete_style="green")
            table.add_row(pod, bar, format_rate(rates[pod]), f"{pods[pod]:,}")
        if len(pods) > PODS_AT_MOST:
            table.caption, table.caption_justify = f"and {len(pods) - PODS_AT_MOST} that have less to do", "left"
        return table


def _in_log(loads: Sequence[Load], console: Console) -> Show:
    rates_of = _Rates()
    next_s = LINE_EVERY_S
    told: set[str] = set()

    def show(elapsed_s: float, seen: Seen) -> None:
        nonlocal next_s
        for line in map(_told, seen.events):
            if line not in told:
                told.add(line)
                console.print(line, markup=False, soft_wrap=True)
        if elapsed_s < next_s:
            return
        next_s = elapsed_s + LINE_EVERY_S
        rates = rates_of(elapsed_s, {load.name: now.done for load, now in zip(loads, seen.loads, strict=True)})
        texts = [_line(load.name, rates[load.name], now) for load, now in zip(loads, seen.loads, strict=True)]
        console.print(f"{elapsed_s:6.1f} s  " + "; ".join(texts), markup=False, soft_wrap=True)

    return show


def _line(load: str, rate: float, now: Progress) -> str:
    latencies = "".join(f", {name} {latency_text(now.latency_ns[name])}" for name in ("p50", "p99") if now.latency_ns)
    return f"{load} {format_rate(rate)}, {now.done:,} done, {now.errors:,} errors{latencies}"


def _told(event: Happened) -> str:
    """An event as a line, another one once it is in force or has failed."""
    what, became = event.event, "under way"
    if event.error:
        what, became = told(vars(event)), f"failed: {event.error}"
    elif event.done_ns is not None:
        what, became = told(vars(event)), f"in force after {format_ns(event.done_ns - event.begun_ns)}"
    return f"{event.begun_ns / NS_PER_S:6.1f} s  {what}: {became}"


def _table(*heads: str) -> Table:
    """Names to the left, then a bar, then numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for place, name in enumerate(heads):
        table.add_column(name, justify="left" if place < 2 else "right", no_wrap=True)
    return table


class _Rates:
    """How much each of several counts grows in a second, since one moment at least a second ago."""

    def __init__(self) -> None:
        self._moments: list[tuple[float, dict[str, int]]] = [(0.0, {})]

    def __call__(self, elapsed_s: float, counts: Mapping[str, int]) -> dict[str, float]:
        self._moments.append((elapsed_s, dict(counts)))
        while len(self._moments) > 2 and self._moments[1][0] <= elapsed_s - 1:
            del self._moments[0]
        at_s, before = self._moments[0]
        step_s = max(elapsed_s - at_s, 1e-3)
        return {name: (count - before.get(name, 0)) / step_s for name, count in counts.items()}
