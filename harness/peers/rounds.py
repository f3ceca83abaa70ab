"""Rounds: every subject once in each, in an order that turns, so that what drifts meanwhile meets all of them alike.

Law: one subject at a time is up. It is started afresh in every round, with a client and backends of its own, it gets
one core and they share another. A wrong or missing answer is an error in the place of a number, and nothing hides it:
the other rows go on.
"""

import json
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass

from harness.peers.client import Job, Measured
from harness.peers.direct import Direct
from harness.peers.haproxy import Haproxy
from harness.peers.nftables import Nftables
from harness.peers.nginx import Nginx
from harness.peers.peer import Peer
from harness.peers.process import Process
from harness.peers.records import Row
from harness.peers.relay import Relay
from harness.peers.scene import Scene, Target
from harness.peers.workloads import ANSWER_BYTES, REQUEST_BYTES, WORKLOADS, Workload
from kernels import warm
from plane.descriptors import allow_descriptors
from plane.errors import ManifestError, PlaneError, Problem

CLIENT_PATIENCE_S = 60.0  # beyond the time that is measured
DESCRIPTORS = 20_000  # two for each of the most connections there are, and some


def peers() -> dict[str, Peer]:
    """Every L4 subject there is, by name, in the order of the table."""
    every: tuple[Peer, ...] = (Direct(), Relay(), Haproxy(), Nginx(), Nftables(), Nftables(rules=False))
    return {peer.name: peer for peer in every}


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    rounds: int = 5
    seconds: float = 2.0
    warm_s: float = 0.5
    workloads: tuple[Workload, ...] = WORKLOADS


@dataclass(frozen=True)
class Cores:
    """``subject`` has one to itself, client and backends share the other."""

    subject: int
    others: int


def cores() -> Cores:
    """The first two cores that this process may use. Raises PlaneError where there is one only."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise PlaneError("two cores are needed, one for the proxy and one for client and backends; there is one")
    return Cores(*allowed[:2])


def measure(
    subjects: Sequence[Peer], scene: Scene, effort: Effort, say: Callable[[str], None] | None = None
) -> Iterator[Row]:
    """All rows, as they come; ``say`` is told what has to be done before. Raises PlaneError where none can be had."""
    places = cores()
    warm.warm(say)
    allow_descriptors(DESCRIPTORS)
    for number in range(1, effort.rounds + 1):
        turned = number % len(subjects)
        for place, peer in enumerate([*subjects[turned:], *subjects[:turned]], start=1):
            yield from _of_subject(peer, scene, effort, places, (number, place))


def carried(peer: Peer, scene: Scene, effort: Effort) -> list[Workload]:
    """The workloads that a peer does not refuse."""
    return [workload for workload in effort.workloads if not peer.refuses(target_of(scene, workload))]


def _of_subject(peer: Peer, scene: Scene, effort: Effort, places: Cores, turn: tuple[int, int]) -> Iterator[Row]:
    """The rows of one subject in one round."""
    waiting = deque(carried(peer, scene, effort))
    if not waiting:
        return
    try:
        with running(peer, scene, places) as client:
            while waiting:
                measured = _one(peer, scene, effort, places, waiting[0], client)
                yield _row(peer, waiting.popleft(), turn, measured)
    except PlaneError as failure:
        for workload in waiting:
            yield _row(peer, workload, turn, str(failure))


def _one(peer: Peer, scene: Scene, effort: Effort, places: Cores, workload: Workload, client: Process) -> Measured:
    ground, target = peer.ground(), target_of(scene, workload)
    job = Job(
        protocol=workload.protocol,
        addresses=list(peer.reach(target)),
        sources=[ground.address(ip) for ip in scene.clients],
        connections=workload.connections,
        fresh=workload.fresh,
        request_bytes=REQUEST_BYTES,
        answer_bytes=workload.answer_bytes,
        warm_s=effort.warm_s,
        seconds=effort.seconds,
        pids=list(peer.pids()),
        core=places.subject,
    )
    client.say(json.dumps(asdict(job)))
    return Measured(**json.loads(client.line(effort.warm_s + effort.seconds + CLIENT_PATIENCE_S)))


@contextmanager
def running(peer: Peer, scene: Scene, places: Cores) -> Iterator[Process]:
    """A client that waits for jobs, with the peer and the backends up; all of it ended on the way out."""
    with ExitStack() as stack:
        stack.callback(peer.stop)
        peer.start(scene, places.subject)
        ground = peer.ground()
        desks = {
            (target.protocol, ground.address(each.ip), each.port, ANSWER_BYTES[target.port_name])
            for target in scene.targets
            if target.port_name in ANSWER_BYTES
            for each in target.backends
        }
        backends = _module("harness.peers.backends", json.dumps(sorted(desks)), places.others, ground.backends)
        stack.callback(backends.end)
        client = _module("harness.peers.client", "", places.others, ground.client)
        stack.callback(client.end)
        for process in (backends, client):
            if (line := process.line()) != "ready":
                raise PlaneError(line)
        yield client


def _module(name: str, argument: str, core: int, prefix: Sequence[str]) -> Process:
    return Process([sys.executable, "-m", name, argument], core, prefix)


def target_of(scene: Scene, workload: Workload) -> Target:
    """The target that a workload goes through. Raises ManifestError where there is none."""
    wanted = workload.port, workload.protocol
    for target in scene.targets:
        if (target.port_name, target.protocol) == wanted:
            return target
    reason = f"no Service has a {workload.protocol} port named {workload.port}, for {workload.name}; name one so"
    raise ManifestError([Problem("", 0, "", "spec.ports", reason)])


def _row(peer: Peer, workload: Workload, turn: tuple[int, int], outcome: Measured | str) -> Row:
    """What a measurement came to; in the place of one, why there is none."""
    described = peer.name, workload.name, *turn, workload.connections, workload.unit, workload.answer_bytes
    return row_of(described, outcome, has_processes=bool(peer.pids()))


def row_of(described: tuple[str, str, int, int, int, str, int], outcome: Measured | str, *, has_processes: bool) -> Row:
    """``described`` are the first fields of the Row; an outcome that is a text, or has misses, is all that follows."""
    if isinstance(outcome, str):
        return Row(*described, error=outcome)
    if outcome.misses:
        return Row(*described, error=", ".join(f"{count} {why}" for why, count in outcome.misses.items()))
    return Row(
        *described,
        answered=outcome.answered,
        duration_ns=outcome.duration_ns,
        cpu_ns=outcome.cpu_ns if has_processes else None,
        core_ns=outcome.core_ns,
        p50_ns=outcome.p50_ns,
        p99_ns=outcome.p99_ns,
        max_ns=outcome.max_ns,
    )
