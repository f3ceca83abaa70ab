"""Runs of flows and of queues as pictures, by the law of ``harness.plots``: SVG, and no more than the rows say."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

from harness.flows.table import events_of
from harness.flows.waiting import of
from harness.plots import COLOURS, legend, svg
from harness.units import NS_PER_S, format_ns

MARKERS = ("o", "s", "^", "D")  # the next one each time the colours are used up
DASHES = ("-", "--", ":", "-.")
NINES = (1, 10, 100, 1_000, 10_000, 100_000)

Summary = Mapping[str, Any]
Value = Callable[[Mapping[str, Any]], float | None]


def by_event(
    name: str, summary: Summary, value: Value, label: str, *, log: bool = False, linear_up_to: float = 0.0
) -> str:
    """One value of each algorithm in each phase: a row for the event, in it a dot for each algorithm.

    log           on a logarithmic axis, where a value of 0 is left out
    linear_up_to  the same, but linear from 0 to there
    """

    def draw(axes: Axes) -> None:
        events = list(events_of(summary))
        names = [row["algorithm"] for row in summary["algorithms"]]
        for place, (algorithm, style) in enumerate(zip(names, _styles(names), strict=True)):
            values = [value(rows[place][1]) for _, rows in events]
            shown = np.array([np.nan if each is None or (log and not each) else each for each in values], float)
            at = np.arange(len(events)) + (place + 0.5 - len(names) / 2) * 0.7 / len(names)
            axes.plot(shown, at, style["marker"], color=style["color"], markersize=4.5, label=algorithm)
        if log:
            axes.set_xscale("log")
        elif linear_up_to:
            axes.set_xscale("symlog", linthresh=linear_up_to, linscale=0.5)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axes.set_yticks(range(len(events)), [event for event, _ in events])
        between: Any = {"transform": axes.get_yaxis_transform(), "color": "#b0b0b0", "alpha": 0.25, "linewidth": 0.8}
        axes.hlines(np.arange(1, len(events)) - 0.5, 0, 1, **between)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(events) - 0.5, -0.5)
        axes.set_xlabel(label)
        legend(axes)

    height_in = 0.9 + sum(0.12 + 0.09 * len(summary["algorithms"]) for _ in events_of(summary))
    return svg(name, max(height_in, 1.6), draw)


def evenness(backends: pa.Table, summary: Summary) -> str:
    """What backends have for their weight over the mean, from the one with the most to the one with the least.

    Of the first phase; ``backends`` as ``flows.records.BACKENDS``.
    """

    def draw(axes: Axes) -> None:
        names = [row["algorithm"] for row in summary["algorithms"]]
        first = backends.filter(pc.and_(pc.equal(backends["phase"], 0), pc.equal(backends["member"], 1)))
        for algorithm, style in zip(names, _styles(names), strict=True):
            rows = first.filter(pc.and_(pc.equal(first["algorithm"], algorithm), pc.greater(first["weight"], 0)))
            flows, weights = rows["flows"].to_numpy(), rows["weight"].to_numpy().astype(np.int64)
            if flows.sum():
                ordered = np.sort(flows / weights)[::-1] / (flows.sum() / weights.sum())
                rank = (np.arange(len(ordered)) + 0.5) / len(ordered) * 100
                # So many points are more than a picture has: first, last and those between evenly.
                some = np.unique(np.linspace(0, len(ordered) - 1, 500).astype(np.int64))
                axes.plot(rank[some], ordered[some], style["line"], color=style["color"], label=algorithm)
        axes.set_xlabel("% of backends, the busiest first")
        axes.set_ylabel("flows for its weight, over the mean")
        legend(axes)

    return svg("evenness", 3.2, draw)


def tails(waits: pa.Table, summary: Summary, load: float) -> str:
    """The time waited by percentile, each nine as wide as the one before; ``waits`` as ``queues.WAITS``."""

    def draw(axes: Axes) -> None:
        least = 1
        for algorithm, style in _of_queues(summary):
            rows = of(waits, load, algorithm)
            count = rows["connections"][0].as_py()
            least = max(least, count)
            share, waited = rows["quantile"].to_numpy(), rows["quantile_ns"].to_numpy() / 1e6
            one_of = 1 / np.maximum(1 - share, 1 / count)
            axes.plot(one_of, waited, style["line"], color=style["color"], label=algorithm)
        axes.set_xscale("log")
        nines = [each for each in NINES if each <= least]
        axes.set_xticks(nines, [f"{100 * (1 - 1 / each):.6g}%" for each in nines])
        axes.minorticks_off()
        axes.set_xlim(1, least)
        axes.set_xlabel("share of connections that wait no longer")
        _waited_axis(axes, summary)
        legend(axes)

    return svg(f"tails-{load:g}", 3.2, draw)


def by_load(summary: Summary) -> str:
    """The 99th percentile of the time waited by how busy all are."""

    def draw(axes: Axes) -> None:
        for algorithm, style in _of_queues(summary):
            rows = [row for row in summary["queues"] if row["algorithm"] == algorithm]
            at, waited = [100 * row["load"] for row in rows], [row["waited_ns"]["p99"] / 1e6 for row in rows]
            axes.plot(at, waited, style["marker"] + style["line"], color=style["color"], label=algorithm)
        axes.set_xlabel("% of all places that are busy")
        _waited_axis(axes, summary)
        legend(axes)

    return svg("by-load", 3.2, draw)


def active_over_time(active: pa.Table, summary: Summary, load: float) -> str:
    """The most connections that a backend has at each look, and the mean; ``active`` as ``queues.ACTIVE``."""

    def draw(axes: Axes) -> None:
        for algorithm, style in _of_queues(summary):
            rows = of(active, load, algorithm)
            looks, place = np.unique(rows["at_ns"].to_numpy(), return_inverse=True)
            most = np.zeros(len(looks))
            np.maximum.at(most, place, rows["active"].to_numpy())
            axes.plot(looks / NS_PER_S, most, style["line"], color=style["color"], linewidth=1.2, label=algorithm)
        mean = np.bincount(place, rows["active"].to_numpy()) / np.bincount(place)
        axes.plot(looks / NS_PER_S, mean, color="#999999", linewidth=1.0, label=f"mean of all ({algorithm})")
        axes.set_xlabel("s")
        axes.set_ylabel("connections of the busiest backend")
        axes.set_ylim(bottom=0)
        legend(axes)

    return svg(f"active-{load:g}", 2.8, draw)


def growth(summary: Summary, name: str, curves: Sequence[tuple[Value, str]], label: str) -> str:
    """Values of each algorithm by the number of frontends, each curve with its own line; ``summary`` of ``growth``."""

    def draw(axes: Axes) -> None:
        names = list(dict.fromkeys(row["algorithm"] for size in summary["sizes"] for row in size["algorithms"]))
        for algorithm, style in zip(names, _styles(names), strict=True):
            rows = [
                (size["frontends"], row)
                for size in summary["sizes"]
                for row in size["algorithms"]
                if row["algorithm"] == algorithm
            ]
            for (value, curve), line in zip(curves, DASHES, strict=False):
                values = [np.nan if (found := value(row)) is None else found for _, row in rows]
                line_of: Any = {
                    "color": style["color"],
                    "linestyle": line,
                    "marker": style["marker"],
                    "markersize": 4.5,
                }
                axes.plot([at for at, _ in rows], values, label=f"{algorithm} {curve}".strip(), **line_of)
        axes.set_xscale("log")
        axes.set_yscale("log")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("frontends")
        axes.set_ylabel(label)
        legend(axes)

    return svg(f"growth-{name}", 3.0, draw)


def _waited_axis(axes: Axes, summary: Summary) -> None:
    """ms, logarithmic from a hundredth of what serving one takes, linear from 0 to there."""
    axes.set_yscale("symlog", linthresh=summary["lasts_ns"] / 1e8, linscale=0.5)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: format_ns(round(y * 1e6))))
    axes.set_ylabel("waited")


def _of_queues(summary: Summary) -> Iterator[tuple[str, dict[str, str]]]:
    names = list(dict.fromkeys(row["algorithm"] for row in summary["queues"]))
    return zip(names, _styles(names), strict=True)


def _styles(names: Sequence[str]) -> list[dict[str, str]]:
    """A colour for each, and another marker and line once colours are used up."""
    count = len(COLOURS)
    return [
        {
            "color": COLOURS[place % count],
            "marker": MARKERS[place // count % len(MARKERS)],
            "line": DASHES[place // count % len(DASHES)],
        }
        for place in range(len(names))
    ]
