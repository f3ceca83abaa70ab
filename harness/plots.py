"""A run's rows as pictures: matplotlib figures, as SVG with its text as text.

Law: a picture says no more than the rows do. A percentile is a nearest rank over the scheduled requests of its window
or pod, as in ``report``; where it falls on a request without an answer the line is broken. Times are seconds since the
run's epoch, latencies have a logarithmic axis in ms.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from harness import hops, records
from harness.units import NS_PER_S, format_ns

WINDOWS = 100  # of equal length, over a load's duration
WIDTH_IN = 9.6
# Okabe and Ito's, which those who see colours otherwise can tell apart: https://jfly.uni-koeln.de/color/
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
STYLE: Any = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.parse_math": False,  # a name may have a dollar sign in it
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}
# Of ``hops.HOPS``: client grey, ingress blue, pod green, ways between them yellow and red.
_SHADES = (
    *("#777777", "#bbbbbb", "#dddddd", "#e69f00", "#0072b2", "#56b4e9", "#f0e442"),
    *("#009e73", "#a5d8c5", "#7a9cc6", "#d55e00", "#cc79a7", "#ecc9dc"),
)
COLOUR_OF_HOP = dict(zip(hops.NAMES, _SHADES, strict=True))
PODS_AT_MOST = 40
LABEL_POINTS = 7.0
LABEL_SHARE = 0.018  # of the breadth of a picture's axes, that a line of such a label takes with its margins

Loads = Sequence[Mapping[str, Any]]


def over_time(table: pa.Table, loads: Loads, events: Sequence[Mapping[str, Any]] = ()) -> str:
    """Median and 99th percentile of each load, by when requests were due; windows with errors are marked below.

    Stages of a load begin at lines in its colour, and its warm-up has a ground of it.

    events  rows of ``harness.events.SCHEMA``: a line for each, from when it began to when it was in force
    """

    def draw(axes: Axes) -> None:
        begins: list[_Label] = []
        for load, colour in zip(loads, _colours(loads), strict=True):
            rows = table.filter(pc.equal(table["load"], load["name"]))
            place = (rows["intended_ns"].to_numpy() - load["start_ns"]) * WINDOWS // load["duration_ns"]
            place = np.clip(place, 0, WINDOWS - 1)
            at_s = (load["start_ns"] + (np.arange(WINDOWS) + 0.5) * load["duration_ns"] / WINDOWS) / NS_PER_S
            latency = latencies_ns(rows)
            ranked = {share: by_group(latency, place, WINDOWS, share) / 1e6 for share in (0.5, 0.99)}
            axes.plot(at_s, ranked[0.99], color=colour, linewidth=1.6, label=f"{load['name']} p99")
            axes.plot(at_s, ranked[0.5], color=colour, linewidth=0.9, alpha=0.6, label=f"{load['name']} p50")
            failed = np.bincount(place[~np.isfinite(latency)], minlength=WINDOWS) > 0
            if failed.any():
                low = np.full(failed.sum(), 0.02)
                marks: Any = {"marker": "x", "color": "#c00000", "linestyle": "", "markersize": 4.0}
                axes.plot(at_s[failed], low, transform=axes.get_xaxis_transform(), label="without an answer", **marks)
            begins += _mark_stages(axes, load.get("stages", ()), colour)
            if warm_up_ns := load.get("warm_up_ns"):
                begun_s, ended_s = (load["start_ns"] + ns for ns in (0, warm_up_ns))
                axes.axvspan(begun_s / NS_PER_S, ended_s / NS_PER_S, color=colour, alpha=0.08)
        for event in events:
            begun_s = event["begun_ns"] / NS_PER_S
            axes.axvspan(begun_s, (event["done_ns"] or event["begun_ns"]) / NS_PER_S, color="#666666", alpha=0.15)
            axes.axvline(begun_s, color="#666666", linestyle=":", linewidth=1.0)
            begins.append(_Label(begun_s, event["event"], "#222222", top=True))
        axes.set_xlabel("s since the start")
        _latency_axis(axes.set_yscale, axes.yaxis, axes.set_ylabel)
        _label(axes, begins)
        legend(axes)

    return svg("over-time", 3.2, draw)


def percentile_curve(table: pa.Table, loads: Loads) -> str:
    """Latency by percentile, each nine as wide as the one before."""

    def draw(axes: Axes) -> None:
        most = 10.0
        for load, colour in zip(loads, _colours(loads), strict=True):
            ordered = np.sort(latencies_ns(_of(table, load["name"]))) / 1e6
            if not np.isfinite(ordered).any():
                continue
            # One of how many requests is slower: 1 is the fastest, as many as there are the slowest.
            one_of = np.geomspace(1, len(ordered), 400)
            rank = np.ceil((1 - 1 / one_of) * len(ordered)).astype(np.int64)
            shown = ordered[np.clip(rank, 0, len(ordered) - 1)]
            axes.plot(one_of, np.where(np.isfinite(shown), shown, np.nan), color=colour, label=load["name"])
            most = max(most, float(len(ordered)))
        axes.set_xscale("log")
        nines = [each for each in (1, 2, 10, 100, 1_000, 10_000, 100_000, 1_000_000) if each <= most]
        axes.set_xticks(nines, [f"{100 * (1 - 1 / each):.6g}%" for each in nines])
        axes.minorticks_off()
        axes.set_xlim(1, most)
        axes.set_xlabel("share of requests that are faster")
        _latency_axis(axes.set_yscale, axes.yaxis, axes.set_ylabel)
        legend(axes)

    return svg("percentiles", 3.2, draw)


def decomposition(load: Mapping[str, Any]) -> str:
    """Where the time of the requests around each percentile went, as shares of it; ``load`` of a summary."""

    def draw(axes: Axes) -> None:
        around = load["hops"]
        left = np.zeros(len(around))
        totals = np.array([sum(means.values()) for means in around.values()], float)
        for name in hops.known(around):
            share = np.array([means.get(name, 0) for means in around.values()]) / totals * 100
            axes.barh(range(len(around)), share, left=left, color=COLOUR_OF_HOP[name], label=name)
            left += share
        for row, total in enumerate(totals):
            axes.annotate(f" {format_ns(round(total))}", (100, row), verticalalignment="center")
        axes.set_yticks(range(len(around)), list(around))
        axes.invert_yaxis()
        axes.set_xlim(0, 112)
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel("% of the time of the requests around this percentile")
        legend(axes)

    return svg(f"hops-{load['name']}", 2.6, draw)


def by_pod(table: pa.Table, load: Mapping[str, Any]) -> str:
    """The latency of a load by the pod that was chosen: median, 90th and 99th percentile; the busiest pods only."""

    def draw(axes: Axes) -> None:
        rows = _of(table, load["name"])
        pods = rows["pod"].combine_chunks()
        index = pc.fill_null(pods.indices, -1).to_numpy()
        names, place = np.unique(index, return_inverse=True)
        counts = np.bincount(place)
        busiest = np.argsort(-counts, kind="stable")[:PODS_AT_MOST]
        latency = latencies_ns(rows)
        p50, p90, p99 = (by_group(latency, place, len(names), share) / 1e6 for share in (0.5, 0.9, 0.99))
        texts = [pods.dictionary[int(name)].as_py() if name >= 0 else "(unknown)" for name in names]
        for row, pod in enumerate(busiest):
            axes.plot([p50[pod], p99[pod]], [row, row], color="#999999", linewidth=1.2)
        places = np.arange(len(busiest))
        for values, colour, label in ((p50, COLOURS[0], "p50"), (p90, COLOURS[4], "p90"), (p99, COLOURS[1], "p99")):
            axes.plot(values[busiest], places, "o", color=colour, markersize=5, label=label)
        axes.set_yticks(places, [f"{texts[pod]}  ({counts[pod]:,})" for pod in busiest])
        axes.set_ylim(len(busiest) - 0.5, -0.5)
        _latency_axis(axes.set_xscale, axes.xaxis, axes.set_xlabel)
        legend(axes)

    return svg(f"pods-{load['name']}", 1.0 + 0.24 * min(len(table["pod"].unique()), PODS_AT_MOST), draw)


def processor(used: pa.Table) -> str:
    """Cores that each process kept busy, from one reading to the next; ``used`` by ``harness.resources.SCHEMA``."""

    def draw(axes: Axes) -> None:
        for name, rows in _by_process(used):
            at_ns, cpu_ns, pid = (rows[column].to_numpy() for column in ("at_ns", "cpu_ns", "pid"))
            # A process that came back counts from nothing again.
            cores = np.where(np.diff(pid) == 0, np.diff(cpu_ns) / np.diff(at_ns), np.nan)
            axes.plot(at_ns[1:] / NS_PER_S, cores, label=name)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("s since the start")
        axes.set_ylabel("cores")
        legend(axes)

    return svg("processor", 2.4, draw)


def memory(used: pa.Table) -> str:
    """Resident memory of each process, of which they share some."""

    def draw(axes: Axes) -> None:
        for name, rows in _by_process(used):
            axes.plot(rows["at_ns"].to_numpy() / NS_PER_S, rows["rss_bytes"].to_numpy() / 2**20, label=name)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("s since the start")
        axes.set_ylabel("MiB")
        legend(axes)

    return svg("memory", 2.4, draw)


def _by_process(used: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    for name in used["process"].unique().to_pylist():
        yield name, used.filter(pc.equal(used["process"], name))


def latencies_ns(rows: pa.Table) -> np.ndarray:
    """float64: from when each request was due to its whole answer, infinite where there is none."""
    answered = np.asarray(pc.is_valid(rows["done_ns"]))
    done = pc.fill_null(rows["done_ns"], 0).to_numpy()
    return np.where(answered, done - rows["intended_ns"].to_numpy(), np.inf)


def by_group(values: np.ndarray, group: np.ndarray, groups: int, share: float) -> np.ndarray:
    """Nearest-rank percentile of each group, nan where there is none or it is infinite; ``group`` int64 from 0."""
    ordered = values[np.lexsort((values, group))]
    counts = np.bincount(group, minlength=groups)
    first = np.cumsum(counts) - counts
    rank = np.maximum(np.ceil(share * counts * (1 - 1e-12)).astype(np.int64) - 1, 0)
    there = counts > 0
    found = np.full(groups, np.nan)
    found[there] = ordered[(first + rank)[there]]
    found[~np.isfinite(found)] = np.nan
    return found


def _of(table: pa.Table, load: str) -> pa.Table:
    """The rows of a load, without those of its warm-up."""
    return records.settled(table.filter(pc.equal(table["load"], load)))


def _colours(loads: Loads) -> list[str]:
    return [COLOURS[place % len(COLOURS)] for place in range(len(loads))]


def _latency_axis(scale: Callable[..., Any], axis: Any, label: Callable[..., Any]) -> None:
    scale("log")
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    label("ms")


@dataclass(frozen=True)
class _Label:
    """What begins at a time, upright beside its line, from above or from below."""

    at_s: float
    text: str
    colour: str
    top: bool


def _mark_stages(axes: Axes, stages: Sequence[Mapping[str, Any]], colour: str) -> list[_Label]:
    """A line in the load's colour where each stage begins; what is to be said there: its rate."""
    labels = [_Label(stage["start_ns"] / NS_PER_S, stage["stage"], colour, top=False) for stage in stages]
    for label in labels:
        axes.axvline(label.at_s, color=colour, linestyle="--", linewidth=0.7, alpha=0.6)
    return labels


def _label(axes: Axes, labels: Sequence[_Label]) -> None:
    """Writes labels, each where it belongs or, where others are, as near to that as there is room."""
    if not labels:
        return
    axes.set_xlim(*(limits := axes.get_xlim()))
    breadth = (limits[1] - limits[0]) * LABEL_SHARE
    ordered = sorted(labels, key=lambda label: label.at_s)
    places = apart([label.at_s for label in ordered], breadth, limits[1])
    for label, place in zip(ordered, places, strict=True):
        axes.annotate(
            f" {label.text}",
            (place, 0.99 if label.top else 0.01),
            xycoords=axes.get_xaxis_transform(),
            rotation=90,
            va="top" if label.top else "bottom",
            ha="left",
            fontsize=LABEL_POINTS,
            color=label.colour,
        )


def apart(places: Sequence[float], breadth: float, end: float) -> list[float]:
    """Places, in order, each moved no further than needed for all to have that breadth before the next and the end.

    To the left where there is no room to the right.
    """
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + breadth) if moved else place)
    for number in range(len(moved) - 1, -1, -1):
        moved[number] = min(moved[number], (moved[number + 1] if number + 1 < len(moved) else end) - breadth)
    return moved


def legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))


def svg(name: str, height_in: float, draw: Callable[[Axes], None]) -> str:
    """The figure as an ``<svg>`` element; ``name`` keeps the ids in it apart from those of the page's others."""
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        draw(figure.add_subplot())
        written = io.StringIO()
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    text = written.getvalue()
    return text[text.index("<svg") :]
