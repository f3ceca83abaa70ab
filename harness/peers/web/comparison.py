"""A comparison of ingresses from manifests to files: what ``plane bench peers ingress`` does.

Law: that of ``harness.peers.comparison``: what is missing is named with its remedy before anything is measured, and
again below the table. Interrupted, it ends what runs and keeps what was measured.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from harness import provenance
from harness.peers.comparison import FOLDER, Compared, are_siblings, keep, shown, terminable
from harness.peers.records import Row, tabulate
from harness.peers.rounds import cores
from harness.peers.summary import CONTESTS
from harness.peers.web import client, rounds
from harness.peers.web.peer import Peer
from harness.peers.web.rounds import Effort
from harness.peers.web.site import Site, compose
from kernels import warm
from plane import manifests
from plane.addresses import AddressPlan, claimed
from plane.errors import PlaneError

CLIENT = "{}; backends compiled"
ALWAYS = ("direct", CONTESTS["ingress"].baseline)  # what ratios are made with


def compare(paths: Sequence[str], only: Sequence[str], effort: Effort, out: Path, console: Console) -> Compared:
    """Measures the subjects named, or all, each beside direct and nginx; what is said meanwhile goes to ``console``.

    Raises ManifestError, PlaneError where nothing can be measured, and KeyboardInterrupt where nothing was yet.
    """
    if lacking := client.lacks(effort.workloads, effort.client):
        raise PlaneError(lacking)
    chosen = {name: peer for name, peer in rounds.peers().items() if not only or name in only or name in ALWAYS}
    skipped = {name: reason for name, peer in chosen.items() if (reason := peer.lacks())}
    for name, reason in skipped.items():
        console.print(f"{name} is skipped: {reason}", markup=False, soft_wrap=True, style="yellow")
    subjects = [peer for name, peer in chosen.items() if name not in skipped]
    plan, started = AddressPlan(), datetime.now(UTC)
    objects = [manifest.object for manifest in manifests.load(paths).objects]
    sites = {count: compose(objects, plan, count) for count in sorted({each.rules for each in effort.workloads})}
    placement = cores()
    facts = {
        "kind": "ingress",
        "run": provenance.run_id(started),
        "started": started.isoformat(timespec="milliseconds"),
        **provenance.of_machine(),
        "manifests_sha256": provenance.of_input("", objects)["manifests_sha256"],
        "peers": json.dumps({peer.name: peer.version() for peer in subjects}),
        "skipped": json.dumps(skipped),
        "refused": json.dumps(_refused(subjects, effort)),
        "client": CLIENT.format(client.told(effort.workloads, effort.client)),
        "rounds": str(effort.rounds),
        "seconds": str(effort.seconds),
        "placement": json.dumps({**asdict(placement), "siblings": are_siblings(placement)}),
    }
    with claimed(plan), terminable():
        warm.warm(lambda line: console.print(line, markup=False, soft_wrap=True))
        rows, interrupted = _measured(subjects, sites, effort, console)
    if not rows:
        raise KeyboardInterrupt
    table = tabulate(rows, {**facts, "interrupted": str(interrupted).lower()})
    return keep(table, out / FOLDER / facts["run"])


def _refused(subjects: Sequence[Peer], effort: Effort) -> dict[str, str]:
    return {
        f"{peer.name}, {workload.name}": reason
        for peer in subjects
        for workload in effort.workloads
        if (reason := peer.refuses(workload))
    }


def _measured(
    subjects: Sequence[Peer], sites: Mapping[int, Site], effort: Effort, console: Console
) -> tuple[list[Row], bool]:
    """The rows, and whether they were cut short."""
    total = effort.rounds * sum(len(rounds.carried(peer, effort)) for peer in subjects)
    rows: list[Row] = []
    with shown(total, effort.rounds, console) as show:
        try:
            for row in rounds.measure(subjects, sites, effort):
                rows.append(row)
                show(row)
        except KeyboardInterrupt:
            return rows, True
    return rows, False
