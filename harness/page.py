"""``report.html``: a run as one page, made from its rows alone.

Law: the page is whole in itself. It asks for nothing else, runs no script, and so opens offline, in a mail or among the
artifacts of a CI job that forbids scripts. Its numbers are those of ``report.summarise``.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any

import pyarrow as pa

from harness import hops, plots
from harness.events import told
from harness.objectives import PERCENTILES
from harness.records import provenance_of
from harness.report import NOTHING, Beside
from harness.tables import BY_POD, handshake_cells, latency_cells, notes, part_cells, parted, pod_cells
from harness.units import format_ns, format_rate

FILE = "report.html"
FACTS = ("command", "started", "commit", "versions", "kernel", "cpu", "cores", "scenario_sha256", "manifests_sha256")
STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; color: #222; }
h1 { font-size: 1.5em; margin-bottom: 0; } h2 { font-size: 1.1em; margin: 2em 0 0.3em; }
h1 small { font-weight: normal; color: #666; font-size: 0.6em; }
svg { width: 100%; height: auto; } pre { background: #f6f6f6; padding: 1em; overflow-x: auto; }
table { border-collapse: collapse; margin: 0.5em 0; } th { text-align: left; color: #666; font-weight: normal; }
td, th { padding: 0.15em 1.2em 0.15em 0; vertical-align: top; overflow-wrap: anywhere; }
th { white-space: nowrap; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.met { color: #00704f; } .missed { color: #c00000; font-weight: bold; }
"""


def page(table: pa.Table, summary: Mapping[str, Any], beside: Beside = NOTHING) -> str:
    """The page of a run: its rows, what ``report.summarise`` says of them, and what lies beside them."""
    facts = provenance_of(table)
    loads = json.loads(facts["loads"])
    parts = [
        *_summary(summary),
        "<h2>Latency over time</h2>",
        plots.over_time(table, loads, summary["events"]),
        "<h2>Latency by percentile</h2>",
        plots.percentile_curve(table, loads),
    ]
    for load, measured in zip(loads, summary["loads"], strict=True):
        if measured["answered"]:
            parts += [f"<h2>Where the time went: {escape(load['name'])}</h2>", plots.decomposition(measured)]
            parts.append(_hops(measured["hops"]))
    for load in loads:
        if any(row["pod"] for row in summary["pods"] if row["load"] == load["name"]):
            parts += [f"<h2>By pod: {escape(load['name'])}</h2>", plots.by_pod(table, load)]
    if beside.resources is not None and len(beside.resources["at_ns"].unique()) > 1:  # a line needs two readings
        parts += ["<h2>Processor</h2>", plots.processor(beside.resources)]
        parts += ["<h2>Memory</h2>", plots.memory(beside.resources)]
    return framed(summary, facts, parts)


def framed(summary: Mapping[str, Any], facts: Mapping[str, str], parts: Iterable[str]) -> str:
    """The page around its parts: whose it is, and below them where it comes from."""
    scenario, run = escape(summary["scenario"]), escape(summary["run"])
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{scenario} {run}</title><style>{STYLE}</style>'
    rows = "".join(f"<tr><th>{name}</th><td>{escape(facts[name])}</td></tr>" for name in FACTS if facts.get(name))
    whole = [
        f"{head}<h1>{scenario} <small>{run}</small></h1>",
        *parts,
        f"<h2>Where it comes from</h2><table>{rows}</table>",
        f"<details><summary>the scenario</summary><pre>{escape(facts['scenario'])}</pre></details></html>",
    ]
    return "\n".join(whole) + "\n"


def _hops(around: Mapping[str, Mapping[str, int]]) -> str:
    """The mean time that requests around each percentile spent on each hop."""
    said = {hop.name: hop for hop in hops.HOPS}
    heads = "".join(f'<th class="number">around {name}</th>' for name in around)
    rows = []
    for name in hops.known(around):
        cells = "".join(f'<td class="number">{format_ns(means.get(name, 0))}</td>' for means in around.values())
        timer = f" ({said[name].timer})" if said[name].timer else ""
        rows.append(f"<tr><th>{name}{timer}</th>{cells}<td>{escape(said[name].meaning)}</td></tr>")
    totals = "".join(f'<td class="number">{format_ns(sum(means.values()))}</td>' for means in around.values())
    return f"<table><tr><th></th>{heads}<th></th></tr>{''.join(rows)}<tr><th>all</th>{totals}<td></td></tr></table>"


def _summary(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary["interrupted"]:
        yield '<p class="missed">Interrupted: this was measured until then.</p>'
    heads = ("requests", "offered", "achieved", "errors", *PERCENTILES)
    numbers = "".join(f'<th class="number">{name}</th>' for name in heads)
    yield f"<table><tr><th>load</th><th>arrivals</th>{numbers}</tr>"
    for load in summary["loads"]:
        errors = ", ".join(f"{count:,} {kind}" for kind, count in load["errors_by_kind"].items())
        cells = [
            f"{load['scheduled']:,}",
            "" if load["offered_rate"] is None else format_rate(load["offered_rate"]),
            format_rate(load["achieved_rate"]),
            errors or "0",
            *latency_cells(load),
        ]
        texts = "".join(f'<td class="number">{escape(cell)}</td>' for cell in cells)
        yield f"<tr><td>{escape(load['name'])}</td><td>{escape(load['arrivals'])}</td>{texts}</tr>"
    yield "</table>"
    for title, column, rows in parted(summary):
        numbers = "".join(f'<th class="number">{name}</th>' for name in ("requests", "share", "errors", *PERCENTILES))
        yield f"<table><tr><th>{escape(title)}</th>{numbers}</tr>"
        for name, *cells in part_cells(column, rows):
            texts = "".join(f'<td class="number">{escape(cell)}</td>' for cell in cells)
            yield f"<tr><td>{escape(name)}</td>{texts}</tr>"
        yield "</table>"
    for line in notes(summary):
        yield f"<p>{escape(line)}</p>"
    if handshakes := list(handshake_cells(summary)):
        numbers = "".join(f'<th class="number">{name}</th>' for name in ("made", *PERCENTILES))
        yield f"<table><tr><th>TLS handshakes</th>{numbers}</tr>"
        for name, *cells in handshakes:
            texts = "".join(f'<td class="number">{escape(cell)}</td>' for cell in cells)
            yield f"<tr><td>{escape(name)}</td>{texts}</tr>"
        yield "</table>"
    if any(row["pod"] for row in summary["pods"]):
        (_, second, *names), pods = pod_cells(summary)
        numbers = "".join(f'<th class="number">{escape(name)}</th>' for name in names)
        yield f"<table><tr><th>{BY_POD}</th><th>{second}</th>{numbers}</tr>"
        for pod, node, *cells in pods:
            texts = "".join(f'<td class="number">{cell}</td>' for cell in cells)
            yield f"<tr><td>{escape(pod)}</td><td>{escape(node)}</td>{texts}</tr>"
        yield "</table>"
    if summary["events"]:
        yield "<table><tr><th>event</th><th>at</th><th>in force after</th><th>generation</th></tr>"
        for event in summary["events"]:
            took = event["error"] or (
                "" if event["done_ns"] is None else format_ns(event["done_ns"] - event["begun_ns"])
            )
            cells = [told(event), format_ns(event["begun_ns"]), took, str(event["generation"] or "")]
            texts = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            yield f"<tr>{texts}</tr>"
        yield "</table>"
    if summary["objectives"]:
        yield "<table><tr><th>objective</th><th>load</th><th>limit</th><th>measured</th><th></th></tr>"
        for row in summary["objectives"]:
            word = "met" if row["met"] else "missed"
            cells = [row["objective"], row["load"], row["limit"], row["actual"]]
            texts = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            yield f'<tr>{texts}<td class="{word}">{word}</td></tr>'
        yield "</table>"
