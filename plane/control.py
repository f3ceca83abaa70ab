"""The control plane: keeps what runs equal to what the store wants.

Law: everything is driven by levels, not by edges. The publisher compiles the newest Snapshot; each agent (a node or an
ingress) has a keeper that hands it the newest tables and waits for its acknowledgement; a node is told about its pods
only from a Snapshot whose tables *every* live agent has acknowledged, so a pod never stops while somebody still sends
to it. An agent that is lost is started again and brought to the newest state like a new one; the others go on.

This file knows no Ray: a ``Fleet`` says where agents run.
"""

import asyncio
import contextlib
import logging
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Collection, Container, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from kernels.layout import RANDOM
from plane import connections, environment, routepatches, statuses
from plane.addresses import AddressPlan
from plane.compiler import Compiler
from plane.dns.names import Names
from plane.errors import NotReadyError, PlaneError
from plane.ingressclass import served, unserved_because
from plane.installed import Installed
from plane.journal import Journal
from plane.model import Key, Name, Object, Service, Snapshot, key_of
from plane.nodetables import NodeTables
from plane.pods.status import PodStatus
from plane.routes import Routes
from plane.rows import Followed
from plane.store import Store, utc_now

STATUS_POLL_S = 20.0  # an agent that does not answer for this long and some more is lost
RESTART_DELAY_S = 0.5
EVENTS_KEPT = 500
SEEN_AT_AN_ADDRESS = 256  # pods that are remembered
RESTART_DELAY_AT_MOST_S = 10.0
ADDRESSES_PAUSE_S = 0.1  # between two times, at least, that Ingresses are told where they are served

log = logging.getLogger(__name__)


class AgentLostError(Exception):
    """The process of an agent is gone or does not answer."""


class NodeAgent(Protocol):
    """A node, wherever it runs (``plane.node.Node`` here, or an actor that holds one)."""

    async def install(self, fib: Any, patch: Any, health: Any, names: Any) -> Installed: ...
    async def sync(self, pods: Sequence[Object]) -> None: ...
    async def statuses(self, seen: int, timeout_s: float) -> tuple[int, list[PodStatus]]: ...
    async def connections(self) -> dict[str, Any]: ...
    async def open_connections(self) -> dict[str, Any]: ...
    async def cut_off(self, nodes: frozenset[int]) -> None: ...
    async def stop(self, grace_s: float) -> None: ...


class IngressAgent(Protocol):
    """An ingress, wherever it runs."""

    async def install(self, routes: Any, patch: Any) -> Installed: ...
    async def beat(self, timeout_s: float) -> None: ...
    async def records(self) -> dict[str, Any]: ...
    async def cut_off(self, nodes: frozenset[int]) -> None: ...
    async def stop(self, grace_s: float) -> None: ...


class Fleet(Protocol):
    """Where agents run. ``share`` turns compiled tables into what agents are handed, once for all of them."""

    async def start_node(self, number: int) -> NodeAgent: ...
    async def start_ingress(self, number: int) -> IngressAgent: ...
    def share(self, tables: Any) -> Any: ...


@dataclass(frozen=True)
class Published:
    """A Snapshot with what is compiled of it, and the form of that which agents are handed."""

    snapshot: Snapshot
    node_tables: NodeTables
    names: Names
    routes: Routes
    journal: Journal  # of the tables of nodes
    shared_names: Any

    @property
    def generation(self) -> int:
        return self.snapshot.generation

    def for_node(self, last: "Published | None") -> tuple[Any, ...]:
        """What ``NodeAgent.install`` is given where ``last`` has been installed, or nothing has."""
        fib, patch = self.journal.since(last.node_tables.generation if last else None)
        health = None if last and last.node_tables.health is self.node_tables.health else self.node_tables.health
        names = None if last and last.names is self.names else self.shared_names
        return fib, patch, health, names


@dataclass
class Member:
    """One agent as the control plane sees it. ``acknowledged`` is None while it does not serve."""

    number: int
    name: str
    agent: Any = None
    acknowledged: int | None = None
    lives: int = 0
    failure: str = ""
    joining: bool = False  # its first tables are on their way: from then on it may be sending to their endpoints
    problems: tuple[str, ...] = ()  # what it could not do of the tables it has
    restarts: dict[str, int] = field(default_factory=dict)  # pod uid → restarts in earlier lives of the node


class SeenPod(NamedTuple):
    """A pod that has an address from a generation on, until another has it."""

    since: int
    name: str  # namespace/name
    node: str


class ControlPlane:
    """Store, publisher and keepers of one plane. Use ``start``, then the store and ``apply``; ``stop`` ends all."""

    def __init__(
        self,
        plan: AddressPlan,
        fleet: Fleet,
        notice: Callable[[str], None] = lambda line: None,
        *,
        algorithm: int = RANDOM,
        zones: int = 1,
    ):
        """``notice`` is called in the event loop with a line when an agent is lost, and when it is back.

        ``algorithm`` is that of Services which name none, ``zones`` the number of zones that nodes are spread over.
        """
        self._compiler = Compiler(algorithm, plan.bound_port)
        self._zones = zones
        self.plan = plan
        self.fleet = fleet
        self._notice = notice
        self.store = Store(plan)
        self.nodes: dict[int, Member] = {}
        self.ingresses: dict[int, Member] = {}
        self._published: Published | None = None
        self._whole_routes: tuple[Routes, Any] | None = None  # the newest that an agent was handed whole, and the form
        self._journal = Journal()
        self._noted: NodeTables | None = None  # the last tables that are in it
        self._settled: Snapshot = self.store.snapshot
        self._progress = asyncio.Condition()
        self._tasks: list[asyncio.Task[None]] = []
        self._crash: BaseException | None = None
        self._refused: tuple[int, str] = (0, "")  # newest generation that could not be compiled, and why
        self._seen_pods: dict[str, deque[SeenPod]] = defaultdict(lambda: deque(maxlen=SEEN_AT_AN_ADDRESS))
        self._pods: Followed[Name, Object] = Followed()
        self._cut_off: frozenset[int] = frozenset()

    async def start(self, *, nodes: int, ingresses: int = 1) -> None:
        """Starts the agents and returns when all of them serve. Raises PlaneError where one cannot start."""
        self._spawn(self._publish())
        for number in range(1, nodes + 1):
            self.nodes[number] = member = Member(number, statuses.node_name(number))
            self._spawn(self._supervise(member, self._run_node))
        for number in range(1, ingresses + 1):
            self.ingresses[number] = member = Member(number, f"ingress-{number}")
            self._spawn(self._supervise(member, self._run_ingress))
        self._spawn(self._give_addresses())
        await self._until(lambda: all(member.acknowledged is not None or member.failure for member in self._members()))
        failures = [member.failure for member in self._members() if member.failure]
        if failures:
            await self.stop(grace_s=0)
            raise PlaneError("\n".join(dict.fromkeys(failures)))

    async def stop(self, grace_s: float = 5.0) -> None:
        """Drains: ingresses first, then nodes with their pods."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for group in (self.ingresses, self.nodes):
            agents = [member.agent for member in group.values() if member.agent is not None]
            await asyncio.gather(*(agent.stop(grace_s) for agent in agents), return_exceptions=True)

    async def apply(self, objects: Sequence[Object]) -> list[tuple[str, Object]]:
        """Creates or updates all of the objects or none, and returns when every agent has the tables that follow."""
        results = self.store.apply(objects)
        await self.wait(self.store.snapshot.generation)
        return results

    async def wait(self, generation: int) -> None:
        """Returns once every live agent has acknowledged the generation.

        Raises PlaneError where no tables can be made of it; those of the generation before stay in force.
        """
        await self._until(lambda: self._settled.generation >= generation or self._refused[0] >= generation)
        if self._settled.generation < generation:
            raise PlaneError(self._refused[1])

    async def ready(self, timeout_s: float = 60.0) -> None:
        """Returns once every pod that should run is ready, its endpoints are in every table and Ingresses have
        addresses. Raises NotReadyError naming what is not ready in time, and why."""
        waiting = ["the tables of the newest generation are not acknowledged"]
        try:
            async with asyncio.timeout(timeout_s):
                await self.wait(self.store.snapshot.generation)
                while waiting := unready(self._settled):
                    await self.wait(self._settled.generation + 1)
        except TimeoutError:
            listing = "\n".join(f"  {line}" for line in waiting)
            raise NotReadyError(f"not ready after {timeout_s:g} s:\n{listing}") from None

    async def broken(self) -> None:
        """Never returns. Raises PlaneError should the control plane break."""
        await self._until(lambda: False)

    def pods_seen(self) -> dict[str, list[SeenPod]]:
        """Pod address → the pods that had it, one after the other, also those that have gone; the last so many."""
        return {address: list(pods) for address, pods in self._seen_pods.items()}

    async def open_connections(self) -> list[Object]:
        """The connections through Services there are now, node by node, as ``connections.described`` has them."""
        members = [member for member in self.nodes.values() if member.acknowledged is not None]
        found = await asyncio.gather(*(member.agent.open_connections() for member in members), return_exceptions=True)
        columns = {
            member.name: each
            for member, each in zip(members, found, strict=True)
            if not isinstance(each, BaseException)  # a node that is lost meanwhile has none
        }
        pods = {address: seen[-1].name for address, seen in self._seen_pods.items()}
        return connections.described(self.store.snapshot, pods, columns, time.monotonic_ns())

    async def cut_off(self, nodes: Collection[int]) -> None:
        """Tears the network between these nodes and everybody else, and no other, as ``plane.partition`` has it.

        An agent that is lost meanwhile hears of it when it is started again.
        """
        self._cut_off = frozenset(nodes)
        agents = [member.agent for member in self._members() if member.agent is not None]
        told = await asyncio.gather(*(agent.cut_off(self._cut_off) for agent in agents), return_exceptions=True)
        for error in told:
            if isinstance(error, BaseException) and not isinstance(error, AgentLostError):
                raise error

    def event(self, obj: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Records an Event about an object, as ``plane describe`` shows it."""
        self.store.update([_event(obj, reason, message, warning=warning)], self._old_events())

    def _members(self) -> list[Member]:
        return [*self.nodes.values(), *self.ingresses.values()]

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a loop of the control plane; one that fails stops nobody silently: whoever waits is told."""

        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                self._crash = error
                async with self._progress:
                    self._progress.notify_all()

        self._tasks.append(asyncio.create_task(guarded()))

    async def _until(self, met: Callable[[], bool]) -> None:
        """Waits for a condition on what agents have acknowledged. Raises PlaneError where the control plane broke."""
        async with self._progress:
            await self._progress.wait_for(lambda: self._crash is not None or met())
        if self._crash is not None:
            raise PlaneError(f"the control plane stopped: {self._crash!r}") from self._crash

    async def _publish(self) -> None:
        """Compiles the newest Snapshot, again and again; tables that did not change stay the same objects."""
        seen = -1
        while True:
            snapshot = await self.store.changed_since(seen)
            seen = snapshot.generation
            try:
                published = await self._made_of(snapshot)
            except Exception as error:  # whatever it is: one object must not stop the others being served
                log.exception("generation %d cannot be published", seen)
                why = f"no tables can be made of generation {seen}, those before stay in force: {error!r}"
                self._notice(why)
                async with self._progress:
                    self._refused = seen, why
                    self._progress.notify_all()
                continue
            async with self._progress:
                self._published = published
                self._settle()
                self._progress.notify_all()

    async def _made_of(self, snapshot: Snapshot) -> Published:
        """What is published of a Snapshot; of what did not change, what agents have been handed already."""
        last = self._published
        tables, names, found = await asyncio.to_thread(self._compiler.compile, snapshot)
        self._note(tables)
        shared_names = last.shared_names if last and last.names is names else self.fleet.share(names)
        self._see_pods(snapshot)
        return Published(snapshot, tables, names, found, self._journal, shared_names)

    def _note(self, tables: NodeTables) -> None:
        """Brings tables of nodes into the journal, also those of which nothing can be published for other reasons."""
        if self._noted is tables:
            return
        self._noted = tables
        self._journal = self._journal.noted(tables.patch)
        if tables.whole is not None:
            nbytes = sum(table.nbytes for table in tables.whole[1:])
            self._journal = self._journal.begun(self.fleet.share(tables.whole), tables.generation, nbytes)

    def _see_pods(self, snapshot: Snapshot) -> None:
        for _, _, pod in self._pods.news(snapshot.rows("Pod")):
            if pod is not None and (address := (pod.get("status") or {}).get("podIP")):
                name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
                node = pod["spec"].get("nodeName", "")
                seen = self._seen_pods[address]
                if not seen or seen[-1][1:] != (name, node):
                    seen.append(SeenPod(snapshot.generation, name, node))

    def _settle(self) -> None:
        """Moves ``_settled`` to the published Snapshot once every live agent has it. Called under ``_progress``."""
        published = self._published
        live = [
            -1 if member.acknowledged is None else member.acknowledged
            for member in self._members()
            if member.joining or member.acknowledged is not None
        ]
        if published and all(generation >= published.generation for generation in live):
            self._settled = published.snapshot

    async def _supervise(self, member: Member, run: Callable[[Member], Awaitable[None]]) -> None:
        """Runs an agent; when it is lost, starts it again. A first start that fails is reported by ``start``."""
        delay_s = RESTART_DELAY_S
        while True:
            served = False
            try:
                await run(member)
            except* Exception as group:
                if group.subgroup(lambda error: not isinstance(error, (ExceptionGroup, AgentLostError, PlaneError))):
                    log.exception("%s has failed", member.name)
                served = member.acknowledged is not None
                why = str(group.exceptions[0])
                if not member.lives:
                    member.failure = why
                elif served:
                    self._notice(f"{member.name} is lost, it is started again")
                else:
                    self._notice(f"{member.name} does not start: {why}")
            agent, member.agent = member.agent, None
            async with self._progress:
                member.acknowledged, member.joining, member.problems = None, False, ()
                self._settle()
                self._progress.notify_all()
            if agent is not None:  # it may live: nothing of it may go on when its successor starts
                with contextlib.suppress(Exception):
                    await agent.stop(0)
            if member.failure:
                return
            delay_s = RESTART_DELAY_S if served else min(2 * delay_s, RESTART_DELAY_AT_MOST_S)
            await asyncio.sleep(delay_s)

    async def _run_node(self, member: Member) -> None:
        member.agent = agent = await self.fleet.start_node(member.number)
        try:
            if self._cut_off:
                await agent.cut_off(self._cut_off)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep(member, agent, self._hand_node, self._node_up))
                group.create_task(self._place(member, agent))
                group.create_task(self._listen(member, agent))
        finally:
            self._node_down(member)

    async def _run_ingress(self, member: Member) -> None:
        member.agent = agent = await self.fleet.start_ingress(member.number)
        if self._cut_off:
            await agent.cut_off(self._cut_off)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(member, agent, self._hand_ingress))
            group.create_task(self._watch(agent))

    async def _keep(
        self,
        member: Member,
        agent: Any,
        hand: Callable[[Any, Published, Published | None], Awaitable[Installed | None]],
        up: Callable[[Member], None] | None = None,
    ) -> None:
        """Hands an agent what is newest, and notes its acknowledgement."""
        last: Published | None = None
        while True:
            async with self._progress:
                await self._progress.wait_for(
                    lambda: self._published is not None and self._published.generation > (member.acknowledged or -1)
                )
                published = self._published
                member.joining = True
            assert published is not None
            if installed := await hand(agent, published, last):
                self._tell_problems(member, installed.problems)
            last = published
            first = member.acknowledged is None
            async with self._progress:
                member.acknowledged, member.joining = published.generation, False
                self._settle()
                self._progress.notify_all()
            if first:
                if member.lives:
                    self._notice(f"{member.name} is back")
                member.lives += 1
                if up is not None:
                    up(member)

    async def _hand_node(self, agent: NodeAgent, published: Published, last: Published | None) -> Installed | None:
        """Hands a node what is new to it since ``last``; all of it where it turns out to have other tables."""
        if last and last.node_tables is published.node_tables and last.names is published.names:
            return None
        installed = await agent.install(*published.for_node(last))
        if installed.generation < published.node_tables.generation:
            installed = await agent.install(*published.for_node(None))
        return installed

    async def _hand_ingress(
        self, agent: IngressAgent, published: Published, last: Published | None
    ) -> Installed | None:
        """The same for an ingress."""
        routes = published.routes
        if last and last.routes is routes:
            return None
        if last and routepatches.is_small(patch := routepatches.between(last.routes, routes), routes):
            installed = await agent.install(None, patch)
            if installed.generation >= routes.generation:
                return installed
        return await agent.install(self._shared(routes), None)

    def _shared(self, routes: Routes) -> Any:
        """Whole Routes in the form that agents are handed, once for those who need the same at once."""
        if self._whole_routes is None or self._whole_routes[0] is not routes:
            self._whole_routes = routes, self.fleet.share(routes)
        return self._whole_routes[1]

    def _tell_problems(self, member: Member, problems: tuple[str, ...]) -> None:
        """Says what a node could not do, once for as long as it cannot; every node may have the same to say."""
        told = {problem for other in self._members() for problem in other.problems}
        for problem in problems:
            if problem not in told:
                self._notice(problem)
                node = self.store.snapshot.get("Node", "", member.name)
                if node is not None:
                    self.event(node, "FailedToListen", problem, warning=True)
        member.problems = problems

    async def _watch(self, agent: IngressAgent) -> None:
        """Ends by AgentLostError: without a call that waits, the loss of an agent shows only at the next change."""
        while True:
            await agent.beat(STATUS_POLL_S)

    async def _place(self, member: Member, agent: NodeAgent) -> None:
        """Tells a node its pods, those that have an address, from settled Snapshots only."""
        name, seen = statuses.node_name(member.number), -1
        told: dict[str, tuple[int | None, Object]] | None = None  # by uid, see ``_told_of``
        there: dict[Name, Object] = {}
        followed: Followed[Name, Object] = Followed()
        while True:
            async with self._progress:
                await self._progress.wait_for(
                    lambda seen=seen: member.acknowledged is not None and self._settled.generation > seen  # type: ignore[misc]
                )
                snapshot = self._settled
            seen = snapshot.generation
            news = followed.news(snapshot.rows("Pod"))
            for pod_name, _, pod in news:
                there.pop(pod_name, None)
                if pod is not None and pod["spec"].get("nodeName") == name and (pod.get("status") or {}).get("podIP"):
                    there[pod_name] = pod
            if not news and told is not None:
                continue
            pods = [there[pod_name] for pod_name in sorted(there)]
            wanted = {pod["metadata"]["uid"]: _told_of(pod) for pod in pods}
            if wanted != told:
                await agent.sync(self._surrounded(pods, told or {}, snapshot))
                told = wanted

    def _surrounded(self, pods: Iterable[Object], told: Container[str], snapshot: Snapshot) -> list[Object]:
        """The pods, new ones with the variables of their namespace's Services, which containers get as they start."""
        variables: dict[str, dict[str, str]] = {}
        surrounded = []
        for pod in pods:
            namespace = pod["metadata"]["namespace"]
            if pod["metadata"]["uid"] not in told:
                if namespace not in variables:
                    services = map(Service.of, snapshot.inside("Service", namespace))
                    variables[namespace] = environment.of_services(services, self.plan.bound_port)
                pod = environment.with_services(pod, variables[namespace])
            surrounded.append(pod)
        return surrounded

    async def _listen(self, member: Member, agent: NodeAgent) -> None:
        """Brings what a node says of its pods into the store."""
        seen = 0
        while True:
            seen, reports = await agent.statuses(seen, STATUS_POLL_S)
            put, drop, now = [], [], utc_now()
            for report in reports:
                pod = self.store.snapshot.get("Pod", report.namespace, report.name)
                if pod is None or pod["metadata"]["uid"] != report.uid:
                    continue
                if report.gone:
                    drop.append(key_of(pod))
                    continue
                put.append(statuses.pod(pod, report, now, restarts=member.restarts.get(report.uid, 0)))
                put.extend(_pod_events(pod, report))
            self.store.update(put, [*drop, *self._old_events()])

    def _node_up(self, member: Member) -> None:
        before = self.store.snapshot.get("Node", "", statuses.node_name(member.number))
        obj = statuses.node(member.number, self.plan, ready=True, now=utc_now(), before=before, zones=self._zones)
        self.store.update([obj, _event(obj, "NodeReady", "the node has acknowledged its tables")])

    def _node_down(self, member: Member) -> None:
        """A lost node's pods serve nobody until it is back; those on their way out are gone."""
        name, now = statuses.node_name(member.number), utc_now()
        before = self.store.snapshot.get("Node", "", name)
        if before is None:
            return
        put, drop = [statuses.node(member.number, self.plan, ready=False, now=now, before=before)], []
        restarts = {}
        for pod in self.store.snapshot.all("Pod"):
            if pod["spec"].get("nodeName") != name:
                continue
            if "deletionTimestamp" in pod["metadata"]:
                drop.append(key_of(pod))
                continue
            containers = (pod.get("status") or {}).get("containerStatuses") or [{}]
            restarts[pod["metadata"]["uid"]] = containers[0].get("restartCount", 0) + 1
            put.append(statuses.pod_lost(pod, now))
        member.restarts = restarts
        put.append(_event(before, "NodeNotReady", "the node does not answer; it is started again", warning=True))
        self.store.update(put, drop)

    async def _give_addresses(self) -> None:
        """Ingresses that are served say where, once they really are, and the others no more.

        It is a change as any, which the next one would wait for. So of Ingresses that come one after the other all that
        come within a pause have it written at once.
        """
        seen = -1
        ingresses: Followed[Name, Object] = Followed()
        classes: object = None
        ports = [{"port": self.plan.bound_port(port), "protocol": "TCP"} for port in (80, 443)]
        status = {"loadBalancer": {"ingress": [{"ip": self.plan.vip(1), "ports": ports}]}}
        while True:
            async with self._progress:
                await self._progress.wait_for(
                    lambda seen=seen: (  # type: ignore[misc]
                        self._settled.generation > seen
                        and any(member.acknowledged is not None for member in self.ingresses.values())
                    )
                )
                snapshot = self._settled
            seen = snapshot.generation
            news = [now for _, _, now in ingresses.news(snapshot.rows("Ingress")) if now is not None]
            if classes is not snapshot.rows("IngressClass"):
                classes, news = snapshot.rows("IngressClass"), list(snapshot.all("Ingress"))
            put, events = [], []
            for ingress in news:
                obj, here = self.store.snapshot.get(*key_of(ingress)), not unserved_because(ingress, snapshot)
                if obj is None or (obj.get("status") == status) == here:
                    continue
                if here:
                    put.append({**obj, "status": status})
                    events.append(_event(obj, "Sync", f"served at {self.plan.vip(1)}"))
                else:
                    put.append({**obj, "status": {"loadBalancer": {}}})
                    events.append(_event(obj, "Sync", f"no longer served at {self.plan.vip(1)}"))
            if put:  # of thousands of events the first would go at the next change, which would wait for it
                self.store.update([*put, *events[-EVENTS_KEPT:]], self._old_events())
                await asyncio.sleep(ADDRESSES_PAUSE_S)

    def _old_events(self) -> list[Key]:
        events = sorted(self.store.snapshot.all("Event"), key=lambda obj: int(obj["metadata"]["resourceVersion"]))
        return [key_of(obj) for obj in events[: max(0, len(events) - EVENTS_KEPT)]]


def _told_of(pod: Object) -> tuple[int | None, Object]:
    """What a node is to know of a pod that it has: the seconds that one on its way out has, and its annotations."""
    metadata = pod["metadata"]
    return metadata.get("deletionGracePeriodSeconds"), metadata.get("annotations") or {}


def unready(snapshot: Snapshot) -> list[str]:
    """A line for each thing that should serve and does not yet."""
    lines = []
    for row in snapshot.all("ReplicaSet"):
        wanted, there = row["spec"].get("replicas", 1), row["status"]["replicas"]
        if there < wanted:
            lines.append(f"{key_of(row)}: {there} of {wanted} pods exist")
    for row in snapshot.all("Deployment"):
        status, wanted = row.get("status") or {}, row["spec"].get("replicas", 1)
        if status.get("updatedReplicas", 0) != wanted or status.get("replicas") != wanted:
            lines.append(f"{key_of(row)}: {status.get('updatedReplicas', 0)} of {wanted} pods are up to date")
    for pod in snapshot.all("Pod"):
        status = pod.get("status") or {}
        if "deletionTimestamp" in pod["metadata"] or status.get("phase") == "Succeeded" or statuses.ready(pod):
            continue
        rows = [row for row in status.get("conditions") or () if row["status"] == "False"]
        why = " ".join(part for row in rows[-1:] for part in (row.get("reason", ""), row.get("message", "")) if part)
        lines.append(f"{key_of(pod)}: {status.get('phase', 'Pending')} {why}".rstrip())
    for obj in served(snapshot):
        if not (obj.get("status") or {}).get("loadBalancer"):
            lines.append(f"{key_of(obj)}: has no address yet")
    return lines


def _pod_events(pod: Object, report: PodStatus) -> list[Object]:
    before = (pod.get("status") or {}).get("containerStatuses") or [{}]
    was_running = "running" in (before[0].get("state") or {})
    rows = [row for row in (pod.get("status") or {}).get("conditions") or () if row["type"] == "Ready"]
    said = rows[0].get("message", "") if rows else ""
    if report.phase == "Running" and not was_running:
        return [_event(pod, "Started", f"started on {pod['spec']['nodeName']} at {pod['status']['podIP']}")]
    if not report.ready and report.message and report.message != said:
        return [_event(pod, report.reason or "Unhealthy", report.message, warning=True)]
    return []


def _event(obj: Object, reason: str, message: str, *, warning: bool = False) -> Object:
    key, now = key_of(obj), utc_now()
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{key.name}.{uuid.uuid4().hex[:16]}",
            "namespace": key.namespace or "default",
            "uid": str(uuid.uuid4()),
            "creationTimestamp": now,
        },
        "involvedObject": {
            "apiVersion": obj["apiVersion"],
            "kind": key.kind,
            "namespace": key.namespace,
            "name": key.name,
            "uid": obj["metadata"].get("uid", ""),
        },
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "message": message,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
        "source": {"component": "trafficplane"},
    }
