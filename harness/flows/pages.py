"""``report.html`` of a run of flows, and of one of queues.

Law: that of ``harness.page``: it is whole in itself and made from rows alone. Its numbers are those of the summary.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import pyarrow as pa

from harness.flows import growth, plots, queues, running
from harness.flows.running import Result
from harness.flows.table import SPEED, events_of, phase_cells, phase_heads, shape, speed_cells
from harness.flows.waiting import HEADS, cells, explained
from harness.page import FILE, framed
from harness.records import provenance_of


def page_of(folder: Path, summary: Mapping[str, Any]) -> str:
    """The page of the run in a folder, or of runs with more and more Services, from its rows and its ``summary``.

    Raises OSError and pa.ArrowInvalid.
    """
    if summary["kind"] == growth.KIND:
        return framed(summary, provenance_of(growth.largest(folder)), _growth(summary))
    if summary["kind"] == "queues":
        waits, active = queues.read(folder)
        return framed(summary, provenance_of(waits), _queues(waits, active, summary))
    steering, backends = running.read(folder)
    return framed(summary, provenance_of(steering), _flows(backends, summary))


def with_page(result: Result) -> Result:
    """Puts its page beside the rows of a run."""
    (result.folder / FILE).write_text(page_of(result.folder, result.summary), encoding="utf-8")
    return result


def _flows(backends: pa.Table, summary: Mapping[str, Any]) -> Iterator[str]:
    yield from _interrupted(summary, "balancers")
    yield f"<p>{escape(shape(summary))}</p>"
    yield "<h2>Million flows/s by stage</h2>"
    yield table_of(SPEED, [("", [(row["algorithm"], speed_cells(row)) for row in summary["algorithms"]])])
    if max(len(row["phases"]) for row in summary["algorithms"]) > 1:
        yield "<h2>Disrupted: moved although the endpoint is there</h2>"
        yield plots.by_event("disrupted", summary, _percent("disrupted_share"), "% of flows", linear_up_to=0.1)
        yield "<h2>Moved, with what could not stay</h2>"
        yield plots.by_event("moved", summary, _percent("moved_share"), "% of flows", linear_up_to=0.1)
    if any(phase["imbalance"] for row in summary["algorithms"] for phase in row["phases"]):
        yield "<h2>Imbalance: the busiest for its weight, over the mean</h2>"
        yield plots.by_event("imbalance", summary, _busiest, "the mean is 1")
        if any(phase["imbalance_by_bytes"] for row in summary["algorithms"] for phase in row["phases"]):
            yield "<h2>Imbalance by bytes</h2>"
            yield plots.by_event("bytes", summary, partial(_busiest, by="imbalance_by_bytes"), "the mean is 1")
        yield "<h2>How even it is at first</h2>"
        yield plots.evenness(backends, summary)
    yield "<h2>Making the tables</h2>"
    yield plots.by_event("tables", summary, _made_ms, "ms", log=True)
    if any(phase["slots_changed"] for row in summary["algorithms"] for phase in row["phases"]):
        yield "<h2>Slots of rings that changed</h2>"
        yield plots.by_event("slots", summary, _slots, "% of slots", linear_up_to=0.1)
    yield "<h2>Phase by phase, each against the one before</h2>"
    groups = [
        (event, [(name, phase_cells(summary, phase)) for name, phase in rows]) for event, rows in events_of(summary)
    ]
    yield table_of(phase_heads(summary), groups)


def _queues(waits: pa.Table, active: pa.Table, summary: Mapping[str, Any]) -> Iterator[str]:
    yield from _interrupted(summary, "algorithms")
    yield f"<p>{escape(explained(summary))}</p>"
    loads = list(dict.fromkeys(row["load"] for row in summary["queues"]))
    yield table_of(
        HEADS,
        [
            (
                f"load {100 * load:.4g} %",
                [(row["algorithm"], cells(row)) for row in summary["queues"] if row["load"] == load],
            )
            for load in loads
        ],
    )
    if len(loads) > 1:
        yield "<h2>99th percentile of the time waited, by load</h2>"
        yield plots.by_load(summary)
    for load in loads:
        yield f"<h2>Time waited by percentile, load {100 * load:.4g} %</h2>"
        yield plots.tails(waits, summary, load)
    for load in loads:
        yield f"<h2>The busiest backend over time, load {100 * load:.4g} %</h2>"
        yield plots.active_over_time(active, summary, load)


def _growth(summary: Mapping[str, Any]) -> Iterator[str]:
    yield from _interrupted(summary, "sizes")
    groups = [
        (f"{size['frontends']:,} frontends", [(row["algorithm"], growth.cells(row)) for row in size["algorithms"]])
        for size in summary["sizes"]
    ]
    yield table_of(growth.HEADS, groups)
    yield "<h2>Steering a flow</h2>"
    yield plots.growth(summary, "steering", [(growth.steered_ns, "")], "ns")
    yield "<h2>Making the tables</h2>"
    made: list[tuple[plots.Value, str]] = [(growth.first_ms, "from nothing"), (growth.change_ms, "after an event")]
    yield plots.growth(summary, "making", made, "ms")
    yield "<h2>How large they are</h2>"
    yield plots.growth(summary, "bytes", [(growth.table_mib, "")], "MiB")


def table_of(heads: Sequence[str], groups: Iterable[tuple[str, Iterable[tuple[str, Sequence[str]]]]]) -> str:
    """A table of numbers: groups with a heading, which may be empty, of rows (name, cells)."""
    lines = [
        "<table><tr><th></th>" + "".join(f'<th class="number">{escape(head)}</th>' for head in heads) + "</tr>",
    ]
    for heading, rows in groups:
        if heading:
            lines.append(f'<tr><th colspan="{len(heads) + 1}">{escape(heading)}</th></tr>')
        for name, texts in rows:
            numbers = "".join(f'<td class="number">{escape(text)}</td>' for text in texts)
            lines.append(f"<tr><td>{escape(name)}</td>{numbers}</tr>")
    return "\n".join([*lines, "</table>"])


def _interrupted(summary: Mapping[str, Any], what: str) -> Iterator[str]:
    if summary["interrupted"]:
        yield f'<p class="missed">Interrupted: only the {what} that were finished by then are counted.</p>'


def _percent(name: str) -> plots.Value:
    return lambda phase: None if phase[name] is None else 100 * phase[name]


def _busiest(phase: Mapping[str, Any], by: str = "imbalance") -> float | None:
    return phase[by]["max_over_mean"] if phase[by] else None


def _made_ms(phase: Mapping[str, Any]) -> float:
    return float(phase["compile_ns"] + phase["build_ns"]) / 1e6


def _slots(phase: Mapping[str, Any]) -> float | None:
    return 100 * phase["slots_changed"] / phase["slots"] if phase["phase"] and phase["slots"] else None
