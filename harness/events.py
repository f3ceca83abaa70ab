"""What happens to the plane while loads run, and when it did: ``events.arrow``.

Law: an event is what a user of the plane could do: it goes through the API, by ``plane.client``. Only what befalls a
node does not, because no API has that (``Faults``): its process is killed, or its network torn. An event is done once
traffic goes by its generation everywhere. One that failed has an error and misses what was asked of the run, as an
objective would. What a scenario's events need is looked for before anything runs.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from harness.certificates import Issued
from harness.records import PREFIX, column
from harness.scenario import Event, Scenario, ScenarioError
from harness.units import NS_PER_S
from plane import manifests
from plane.client import Client
from plane.errors import ConflictError, ManifestError, NotFoundError, PlaneError, Problem
from plane.kinds import KINDS
from plane.kubeconfig import Access
from plane.model import Key, Object, Snapshot, key_of
from plane.statuses import node_name
from plane.validation.metadata import selects

VERSION = "events/1"
FILE = "events.arrow"
ACKNOWLEDGE_S = 30.0
RESTARTED = "kubectl.kubernetes.io/restartedAt"
NONE_ISSUED = Issued()


SCHEMA = pa.schema(
    [
        column("event", pa.string(), "1", "what happened"),
        column("pod", pa.string(), "1", "namespace/name of the pod that it happened to, if to one", nullable=True),
        column("intended_ns", pa.int64(), "ns", "when it was due"),
        column("begun_ns", pa.int64(), "ns", "when the plane was told, a process killed or a network torn"),
        column("done_ns", pa.int64(), "ns", "when traffic went by its generation everywhere", nullable=True),
        column("generation", pa.int64(), "1", "generation of the objects after it; null: it failed", nullable=True),
        column("error", pa.string(), "1", "why it failed; null: it did not", nullable=True),
    ]
)


@dataclass(frozen=True)
class Planned:
    """An event with the objects that it applies."""

    event: Event
    objects: Sequence[Object] = ()


@dataclass
class Happened:
    """A row of SCHEMA; times in ns since the run's epoch."""

    event: str
    intended_ns: int
    begun_ns: int
    done_ns: int | None = None
    generation: int | None = None
    error: str | None = None
    pod: str | None = None


class Faults(Protocol):
    """What befalls a plane, and no API has a word for."""

    async def kill_node(self, number: int) -> int:
        """Kills the process of a node. The generation that does without it, once traffic goes by that everywhere.

        Raises PlaneError."""

    async def cut_off(self, nodes: frozenset[int]) -> int:
        """Cuts the network of these nodes off from all others, and of no more. The generation then, which stays."""


def planned(scenario: Scenario, file: Path, snapshot: Snapshot, issued: Issued = NONE_ISSUED) -> list[Planned]:
    """The events of a scenario in the order of time. Raises ScenarioError and ManifestError for what can't happen.

    snapshot  what the manifests make of the plane before the first event
    issued    the scenario's certificates
    """
    problems, found = [], []
    certificates = {(each.namespace, each.secret): each for each in scenario.spec.certificates}
    for place, event in enumerate(scenario.spec.timeline):
        field = f"spec.timeline[{place}]"

        def refuse(part: str, reason: str, field: str = field) -> None:
            problems.append(Problem(str(file), 1, f"Scenario {scenario.name}", f"{field}{part}", reason))

        name = event.deployment
        if name is not None and snapshot.get("Deployment", event.namespace, name) is None:
            there = ", ".join(sorted(_named(obj) for obj in snapshot.all("Deployment"))) or "none"
            refuse("", f"there is no Deployment {event.namespace}/{name}; there are: {there}")
        objects: list[Object] = []
        if event.apply is not None:
            path = file.parent / event.apply
            if path.exists():
                objects = [manifest.object for manifest in manifests.load([str(path)]).objects]
            else:
                refuse(".apply", f"there is no {path}")
        if event.rotate_certificate is not None and issued.again is not None:
            objects = [issued.again(certificates[event.namespace, event.rotate_certificate])]
        found.append(Planned(event, objects))
    if problems:
        raise ScenarioError(problems)
    return sorted(found, key=lambda each: each.event.at)


@asynccontextmanager
async def playing(
    events: Sequence[Planned],
    access: Access | None,
    faults: Faults,
    epoch_ns: int,
    note: Callable[[Happened], object] = lambda _: None,
) -> AsyncIterator[list[Happened]]:
    """Has the events happen, each at its time, while the context lasts; the list grows as they do.

    Those that are not due when it ends never happen; one that is under way is waited for. What is cut off then is so no
    more. ``access`` may be None where there are no events. ``note`` is given each that is done or has failed.
    """
    happened: list[Happened] = []
    torn = _Torn(faults)
    tasks = [asyncio.create_task(_at_its_time(each, access, torn, epoch_ns, happened, note)) for each in events]
    try:
        yield happened
    finally:
        due_ns = time.monotonic_ns() - epoch_ns
        for each, task in zip(events, tasks, strict=True):
            if each.event.at > due_ns:
                task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        await torn.heal_all()
    for error in ended:
        if isinstance(error, Exception):  # an error of ours: what the plane refuses is in a row
            raise error


def told(row: Mapping[str, Any]) -> str:
    """A row of SCHEMA, or of an earlier form of it, as people are told of it."""
    return f"{row['event']}: {row['pod']}" if row.get("pod") else str(row["event"])


def tabulate(happened: Sequence[Happened], run: str) -> pa.Table:
    """The events of a run under SCHEMA."""
    schema = SCHEMA.with_metadata({PREFIX + "schema": VERSION, PREFIX + "run": run})
    return pa.Table.from_pylist([vars(row) for row in happened], schema)


async def _at_its_time(
    planned: Planned,
    access: Access | None,
    torn: "_Torn",
    epoch_ns: int,
    happened: list[Happened],
    note: Callable[[Happened], object],
) -> None:
    event = planned.event
    await asyncio.sleep((epoch_ns + event.at - time.monotonic_ns()) / NS_PER_S)
    row = Happened(event.text, event.at, time.monotonic_ns() - epoch_ns)
    happened.append(row)
    try:
        if event.kill_node is not None:
            row.generation = await torn.faults.kill_node(event.kill_node)
        elif event.partition_node is not None or event.heal_node is not None:
            row.generation = await torn.change(event.partition_node, event.heal_node)
        else:
            assert access is not None
            row.generation = await asyncio.to_thread(act, planned, access, row)
    except ManifestError as error:
        row.error = "; ".join(str(problem) for problem in error.problems)
    except (PlaneError, NotFoundError, ConflictError) as error:
        row.error = str(error)
    else:
        row.done_ns = time.monotonic_ns() - epoch_ns
    note(row)


class _Torn:
    """The nodes that are cut off."""

    def __init__(self, faults: Faults):
        self.faults = faults
        self._nodes: frozenset[int] = frozenset()

    async def change(self, cut: int | None, healed: int | None) -> int:
        self._nodes = (self._nodes | {cut}) - {healed} if cut is not None else self._nodes - {healed}
        return await self.faults.cut_off(self._nodes)

    async def heal_all(self) -> None:
        if self._nodes:
            self._nodes = frozenset()
            await self.faults.cut_off(self._nodes)


def act(planned: Planned, access: Access, row: Happened) -> int:
    """Does what an event says and returns its generation once traffic goes by it; ``row`` gets the pod, if it is one's.

    Blocks. Raises PlaneError.
    """
    event = planned.event
    with Client(access) as client:
        if event.apply is not None or event.rotate_certificate is not None:
            generation = client.apply(planned.objects).generation
        elif event.scale is not None:
            generation = _generation(client.scale(_key(event), event.scale.replicas))
        elif event.restart is not None:
            now = datetime.now(UTC).isoformat()
            template = {"metadata": {"annotations": {RESTARTED: now}}}
            generation = _generation(client.patch(_key(event), {"spec": {"template": template}}))
        elif event.drain_node is not None:
            generation = _drain(client, event.drain_node)
        elif event.uncordon_node is not None:
            schedulable = {"spec": {"unschedulable": None}}
            generation = _generation(client.patch(Key("Node", "", node_name(event.uncordon_node)), schedulable))
        else:
            generation = _befall_a_pod(client, event, row)
        client.wait(generation, ACKNOWLEDGE_S)
    return generation


def _befall_a_pod(client: Client, event: Event, row: Happened) -> int:
    """Deletes the first pod, or has it behave otherwise; one that ends of itself meanwhile makes room for the next."""
    while True:
        pod = _first_pod(client, event)
        row.pod = f"{pod.namespace}/{pod.name}"
        with contextlib.suppress(NotFoundError):
            if event.behaviour:
                return _generation(client.patch(pod, {"metadata": {"annotations": event.behaviour}}))
            return _deleted(client, pod)  # as ``kubectl delete pod``


def _drain(client: Client, number: int) -> int:
    """As ``kubectl drain --ignore-daemonsets``: the node gets no more pods, and those that come again go.

    Pods that nobody would make again stay, as those that loads come from.
    """
    name = node_name(number)
    generation = _generation(client.patch(Key("Node", "", name), {"spec": {"unschedulable": True}}))
    pods, _ = client.list(KINDS["Pod"])
    for pod in pods:
        owners = pod["metadata"].get("ownerReferences") or ()
        if pod["spec"].get("nodeName") == name and any(owner.get("controller") for owner in owners):
            with contextlib.suppress(NotFoundError):
                generation = max(generation, _deleted(client, key_of(pod)))
    return generation


def _deleted(client: Client, key: Key) -> int:
    """The generation after a deletion."""
    client.delete(key)
    with contextlib.suppress(NotFoundError):
        return _generation(client.get(key))
    return int(client.list(KINDS[key.kind], key.namespace)[1])


def _first_pod(client: Client, event: Event) -> Key:
    """The first by name of the Deployment's pods that are not ending. Raises PlaneError."""
    wanted = client.get(_key(event))["spec"]["selector"]
    pods, _ = client.list(KINDS["Pod"], event.namespace)
    meant = (pod["metadata"] for pod in pods if selects(wanted, pod["metadata"].get("labels") or {}))
    names = sorted(metadata["name"] for metadata in meant if "deletionTimestamp" not in metadata)
    if not names:
        raise PlaneError(f"Deployment {event.namespace}/{event.deployment} has no pod that this could happen to")
    return Key("Pod", event.namespace, names[0])


def _key(event: Event) -> Key:
    return Key("Deployment", event.namespace, event.deployment or "")


def _generation(obj: Any) -> int:
    return int(obj["metadata"]["resourceVersion"])


def _named(obj: Object) -> str:
    return f"{obj['metadata'].get('namespace', 'default')}/{obj['metadata']['name']}"
