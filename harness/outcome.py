"""What becomes of what loads have measured: joined with what the plane knows of it, described, and written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from harness import page, records, report, shares
from harness.connections import Opened
from harness.drivers.stream import Task
from harness.flows.running import SUMMARY_FILE, Result
from harness.join import join, of_protocol, opened
from harness.journal import Header
from harness.recorder import Recorded
from harness.records import LoadRows
from harness.replay import Log
from harness.scenario import Load
from harness.shares import Part
from harness.targets import Resolved
from harness.units import format_ns
from kernels.layout import TCP, UDP

if TYPE_CHECKING:
    from plane.cluster import Cluster  # with which comes Ray


async def joined(
    headers: Sequence[Header],
    parts: Sequence[Part],
    resolved: Sequence[Resolved],
    found: Sequence[Recorded | None],
    cluster: "Cluster | None",
) -> list[tuple[LoadRows, Opened]]:
    """The rows of each load, and its connections, with what the plane knows of them."""
    ingress = await cluster.ingress_records() if cluster else []
    relayed = await cluster.connections() if cluster else []
    pods = cluster.pods_seen() if cluster else {}
    served = await cluster.served() if cluster else []
    found_with = []
    for header, part, recorded in zip(headers, parts, found, strict=True):
        if recorded is None:
            continue
        task, target = part.task, resolved[part.load]
        datagrams = task.mix.protocol == "udp"
        dialled: dict[str, Any] = {
            "frontend": target.frontend,
            "service": target.service,
            "connections": [of_protocol(columns, UDP if datagrams else TCP) for columns in relayed],
            "pods": pods,
        }
        route = join(recorded, id_key=task.id_key, ingress=ingress, served=served, datagrams=datagrams, **dialled)
        asked = task.mix.asked_first(len(recorded.requests["intended_ns"]))
        rows = LoadRows(header.load, recorded, route, task.id_key, asked, header.warm_ns, task.share)
        found_with.append((rows, opened(recorded, **dialled)))
    return found_with


def descriptions(
    loads: Sequence[Load], logs: Mapping[int, Log], tasks: Sequence[Task], measured: Sequence[Sequence[Recorded | None]]
) -> str:
    """What each load was, as metadata of its rows (JSON); ``logs``: what is replayed, by the load's place."""
    rows = [_described(*each) for each in zip(loads, tasks, measured, strict=True)]
    for place, log in logs.items():
        rows[place]["replay"] = log.said()
    return json.dumps(rows)


def _described(load: Load, task: Task, measured: Sequence[Recorded | None]) -> dict[str, Any]:
    """What a load was, for whoever reads its rows without the scenario at hand.

    measured  what each of its generators has found, None of a lost one; empty: it has not ended
    """
    found = [recorded for recorded in measured if recorded is not None]
    return {
        "name": load.name,
        "arrivals": task.text,
        "rate": task.mean_rate,
        "connections": task.connections,
        "start_ns": task.start_ns,
        "duration_ns": task.duration_ns,
        "warm_up_ns": load.warm_up,
        "stages": [
            {"stage": stage.text, "start_ns": task.start_ns + stage.start_ns, "duration_ns": stage.duration_ns}
            for stage in task.stages
        ],
        "timeout_ns": task.timeout_ns,
        "protocol": task.mix.protocol,
        "method": task.mix.workloads[0].method,
        "host": task.mix.workloads[0].host,
        "path": task.mix.workloads[0].path,
        "address": f"{task.destination.ip}:{task.destination.port}",
        "tls": task.destination.tls is not None,
        "source": ", ".join(task.destination.sources) or None,
        "generators": load.generators,
        "generators_lost": len(measured) - len(found),
        "generator": asdict(shares.generator([each.generator for each in found])) if found else None,
        "generator_limited": any(each.limited for each in found) if found else None,
    }


def say_limits(loads: Sequence[Load], measured: Sequence[Sequence[Recorded | None]], console: Console) -> None:
    """A line for each generator that was not compiled, or that, and not the subject, is what was measured."""
    for load, of_load in zip(loads, measured, strict=True):
        for place, recorded in enumerate(of_load, 1):
            if recorded is None:
                continue
            named = f"load {load.name}" + (f", generator {place}," if load.generators > 1 else "")
            generator, rows = recorded.generator, len(recorded.requests["intended_ns"])
            if generator.reason:
                console.print(f"{named} ran by asyncio: {generator.reason}", markup=False, soft_wrap=True)
            if recorded.limited:
                line = (
                    f"{named} is generator-limited: its thread was busy {generator.busy:.0%} of the time, and "
                    f"{generator.late:,} of {rows:,} requests began more than 1 ms late, "
                    f"the latest by {format_ns(generator.latest_ns)}"
                )
                console.print(line, markup=False, soft_wrap=True)


def written(table: Any, beside: Mapping[str, Any], folder: Path) -> Result:
    """Writes requests.arrow, what is ``beside`` it by name, the summary and the page."""
    for name, each in beside.items():
        records.write(each, folder / name)
    records.write(table, folder / records.FILE)
    records.forget_journals(folder)
    summary = report.summarise(table, report.beside(folder))
    (folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n")
    (folder / page.FILE).write_text(page.page(table, summary, report.beside(folder)), encoding="utf-8")
    return Result(folder, summary)
