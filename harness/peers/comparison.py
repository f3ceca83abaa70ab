"""A comparison from manifests to files: what ``plane bench peers`` does.

Law: what is missing is named with its remedy before anything is measured, and again below the table. Interrupted, it
ends what runs and keeps what was measured.
"""

import json
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from harness import provenance, records
from harness.peers import rounds
from harness.peers.peer import Peer
from harness.peers.records import FILE, Row, tabulate
from harness.peers.rounds import Cores, Effort
from harness.peers.scene import Scene, compose
from harness.peers.summary import BASELINE, rate, summarise
from harness.peers.table import markdown, rate_text
from plane import manifests
from plane.addresses import AddressPlan, claimed
from plane.errors import PlaneError
from plane.model import Object

FOLDER = "peers"
SUMMARY_FILE, TABLE_FILE = "summary.json", "table.md"


@dataclass(frozen=True)
class Compared:
    """A comparison that is over: the folder that holds its files, and its summary."""

    folder: Path
    summary: dict[str, Any]


def compare(paths: Sequence[str], only: Sequence[str], effort: Effort, out: Path, console: Console) -> Compared:
    """Measures the subjects named, or all, each beside direct; what is said meanwhile goes to ``console``.

    Raises ManifestError, PlaneError where nothing can be measured, and KeyboardInterrupt where nothing was yet.
    """
    plan = AddressPlan()
    objects = [manifest.object for manifest in manifests.load(paths).objects]
    scene = compose(objects, plan)
    chosen = {name: peer for name, peer in rounds.peers().items() if not only or name in only or name == BASELINE}
    skipped = {name: reason for name, peer in chosen.items() if (reason := peer.lacks())}
    for name, reason in skipped.items():
        console.print(f"{name} is skipped: {reason}", markup=False, soft_wrap=True, style="yellow")
    subjects = [peer for name, peer in chosen.items() if name not in skipped]
    if len(subjects) < 2 and only != (BASELINE,):
        raise PlaneError("nothing to compare: " + "; ".join(f"{name}: {reason}" for name, reason in skipped.items()))
    started = datetime.now(UTC)
    facts = {
        "run": provenance.run_id(started),
        "started": started.isoformat(timespec="milliseconds"),
        **_facts(scene, subjects, skipped, effort, objects),
    }
    with claimed(plan), terminable():
        rows, interrupted = _measured(subjects, scene, effort, console)
    if not rows:
        raise KeyboardInterrupt
    table = tabulate(rows, {**facts, "interrupted": str(interrupted).lower()})
    return keep(table, out / FOLDER / facts["run"])


def keep(table: pa.Table, folder: Path) -> Compared:
    """Writes rows, summary and table into a folder that is not there yet."""
    folder.mkdir(parents=True)
    records.write(table, folder / FILE)
    summary = summarise(table)
    (folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n")
    (folder / TABLE_FILE).write_text(markdown(summary))
    return Compared(folder, summary)


def _facts(
    scene: Scene, subjects: Sequence[Peer], skipped: dict[str, str], effort: Effort, objects: Sequence[Object]
) -> dict[str, str]:
    placement = rounds.cores()
    refused = {
        f"{peer.name}, {workload.name}": reason
        for peer in subjects
        for workload in effort.workloads
        if (reason := peer.refuses(rounds.target_of(scene, workload)))
    }
    return {
        **provenance.of_machine(),
        "manifests_sha256": provenance.of_input("", objects)["manifests_sha256"],
        "peers": json.dumps({peer.name: peer.version() for peer in subjects}),
        "skipped": json.dumps(skipped),
        "refused": json.dumps(refused),
        "rounds": str(effort.rounds),
        "seconds": f"{effort.seconds:g}",
        "placement": json.dumps({**asdict(placement), "siblings": are_siblings(placement)}),
    }


def are_siblings(placement: Cores) -> bool:
    """Whether the two are threads of one core, as far as the system tells."""
    file = Path(f"/sys/devices/system/cpu/cpu{placement.subject}/topology/thread_siblings")
    try:
        threads = int(file.read_text().replace(",", ""), 16)
    except (OSError, ValueError):
        return False
    return bool(threads >> placement.others & 1)


def _measured(subjects: Sequence[Peer], scene: Scene, effort: Effort, console: Console) -> tuple[list[Row], bool]:
    """The rows, and whether they were cut short."""
    total = effort.rounds * sum(len(rounds.carried(peer, scene, effort)) for peer in subjects)
    rows: list[Row] = []

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    with shown(total, effort.rounds, console) as show:
        try:
            for row in rounds.measure(subjects, scene, effort, say):
                rows.append(row)
                show(row)
        except KeyboardInterrupt:
            return rows, True
    return rows, False


@contextmanager
def shown(total: int, of_rounds: int, console: Console) -> Iterator[Any]:
    """Something to call with each row: a bar on a terminal, lines in a log."""

    def text(row: Row) -> str:
        reached = row.error or rate_text(row.unit, rate(asdict(row)))
        return f"round {row.round} of {of_rounds}: {row.subject}, {row.workload}: {reached}"

    if not console.is_terminal:
        yield lambda row: console.print(text(row), markup=False, soft_wrap=True)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.description}"), console=console, transient=True) as bars:
        bar = bars.add_task("starting", total=total)
        yield lambda row: bars.update(bar, advance=1, description=text(row))


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does, through every way out."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
