"""A scenario from its file to its results: plane up, loads on, rows written. With ``flowruns`` all there is of Ray.

Law: in a scenario with loads each load has a process of its own, or several (``harness.shares``), Ray actors around the
ordinary ``Stream``, and all begin at one agreed instant of the machine's monotonic clock; the actors are on the
driver's machine, because the plane's addresses and that clock are, unless a scenario without a plane spreads them: then
that instant, and the rows, are carried from clock to clock (``harness.clocks``). A load that has lost a generator goes
on with the others, says so, and keeps the rows that were on disk. Ray carries orders and results, never a request. A
run that is interrupted (SIGINT, SIGTERM) is a run: what was measured so far is written like any other.
"""

import plane.rayenvironment  # noqa: F401  # Ray reads it when it is imported

# isort: split
import asyncio
import contextlib
import json
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from harness import (
    certificates,
    clocks,
    connections,
    controllers,
    events,
    flowruns,
    matrix,
    maxrate,
    outcome,
    provenance,
    records,
    resources,
    rounds,
    shares,
    targets,
    traffic,
)
from harness.certificates import Issued
from harness.clocks import Ask, Offset
from harness.drivers.process import LoadProcess
from harness.drivers.stream import Progress, Task
from harness.events import Happened, Planned
from harness.flows.running import Result
from harness.journal import Header, noting
from harness.matrix import Variant
from harness.maxrate import Probe, Search, Wanted
from harness.peers.web.peer import Peer
from harness.progress import Seen, shown
from harness.recorder import Recorded
from harness.replay import Log
from harness.resources import Sample
from harness.scenario import KIND, OURS, Load, Scenario, ScenarioError, kind_of, parse, read, text_of
from harness.shares import Part
from harness.targets import HTTPS_PORT, Resolved, Surroundings
from harness.units import NS_PER_S, format_rate
from plane import manifests, offline
from plane.addresses import AddressPlan
from plane.advice import advise
from plane.api import Api
from plane.cluster import Cluster, connected, running
from plane.control import AgentLostError
from plane.controllers.scheduling import node_is_ready
from plane.errors import PlaneError, Problem
from plane.kubeconfig import Access
from plane.manifests import Manifest
from plane.model import Object
from plane.up import checked, warn

READY_TIMEOUT_S = 120.0
POLL_S = 0.2
COUNT_S = 1.0
# From the order to start to the first request: longer than it takes to tell every actor.
LEAD_NS = NS_PER_S // 2


@dataclass(frozen=True)
class Surface:
    """Where a run happens and where its results go; the plane's options are those of ``plane up``."""

    out: Path
    instance: int = 0
    port_offset: int | None = None
    ray_address: str | None = None


def run(file: Path, surface: Surface, console: Console) -> Result:
    """Runs the scenario in a file; what is said meanwhile goes to ``console``.

    Raises ScenarioError and ManifestError before anything has started, PlaneError, and KeyboardInterrupt where it was
    interrupted before the first request.
    """
    kind = kind_of(text_of(file))
    if run_of_kind := flowruns.KINDS.get(kind):
        return run_of_kind(file, surface.out, surface.ray_address, console)
    if kind and kind != KIND:
        reason = f"{kind!r} is no kind of scenario: write {', '.join((KIND, *flowruns.KINDS))}"
        raise ScenarioError([Problem(str(file), 1, "", "kind", reason)])
    scenario, text = read(file)
    loaded = manifests.load([str(file.parent / name) for name in scenario.spec.manifests])
    asked = Asked(scenario, text, file, surface, console, traffic.logs_of(scenario, file))
    for line in traffic.warnings(scenario, asked.logs):
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    variants = matrix.variants(scenario, file, loaded)
    prepared = [_prepared(asked, variant, first=place == 0) for place, variant in enumerate(variants)]
    folder = surface.out / scenario.name
    if not scenario.spec.in_rounds:
        return _once(asked, prepared[0], folder, asyncio.Event())

    def turn(place: int, folder: Path) -> Result:
        stop = asyncio.Event()
        result = _once(asked, prepared[place], folder, stop)
        if stop.is_set() and not result.summary["interrupted"]:  # while its plane came down
            raise KeyboardInterrupt
        return result

    names = [variant.name for variant in variants]
    return rounds.play(names, scenario.spec.repeats, turn, folder / provenance.run_id(), console)


@dataclass(frozen=True)
class Asked:
    """What the command was given: the scenario with its text and file, where it runs and where it says so.

    logs  what loads replay, by their places in the scenario
    """

    scenario: Scenario
    text: str
    file: Path
    surface: Surface
    console: Console
    logs: Mapping[int, Log]


@dataclass(frozen=True)
class Prepared:
    """All that is known of a run before it starts."""

    variant: str
    ingress: str
    objects: list[Object]
    timeline: Sequence[Planned]
    issued: Issued


def _prepared(asked: Asked, variant: Variant, *, first: bool) -> Prepared:
    """A variant that is known to lead somewhere; the ``first`` says what the manifests warn of."""
    scenario, file = asked.scenario, str(asked.file)
    if not scenario.spec.manifests:
        targets.resolve(scenario, file, None)
        return Prepared(variant.name, variant.ingress, [], [], Issued())
    clashes = certificates.clashes(scenario.spec.certificates, (row.object for row in variant.loaded.objects))
    if problems := [Problem(file, 1, f"Scenario {scenario.name}", *clash) for clash in clashes]:
        raise ScenarioError(problems)
    issued = certificates.issued(scenario.spec.certificates)
    made = tuple(Manifest(file, 1, secret) for secret in issued.secrets)
    loaded = checked(replace(variant.loaded, objects=(*variant.loaded.objects, *made)), asked.surface.instance)
    for warning in loaded.warnings if first else ():
        warn(asked.console, warning)
    objects = [manifest.object for manifest in loaded.objects if manifest not in made]
    # Where the loads would go is known from the manifests alone: what leads nowhere is found before anything runs.
    plan = AddressPlan(asked.surface.instance)
    settled = offline.settled(
        [*objects, *issued.secrets, *targets.client_pods(scenario)], nodes=scenario.spec.nodes, plan=plan
    )
    timeline = events.planned(scenario, asked.file, settled, issued)
    targets.resolve(scenario, file, Surroundings(settled, plan, (plan.vip(1), plan.bound_port(80))))
    if variant.ingress != OURS:
        if lacking := controllers.lacks(variant.ingress):
            raise PlaneError(lacking)
        controllers.site_of(settled, plan, scenario.spec.ingress_upstream, file)
    return Prepared(variant.name, variant.ingress, objects, timeline, issued)


def _once(asked: Asked, prepared: Prepared, folder: Path, stop: asyncio.Event) -> Result:
    """One run, whose results go to a folder in the given one; ``stop`` is set where it was interrupted.

    Raises KeyboardInterrupt where that was before the first request.
    """
    try:
        return asyncio.run(_run(asked, prepared, folder, stop))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def max_rate(file: Path, wanted: Wanted, surface: Surface, console: Console) -> Result:
    """Looks for the highest rate at which a load keeps its objectives, on one plane; raises as ``run``."""
    scenario, text = read(file)
    place = maxrate.place_of(scenario, str(file), wanted)
    found = maxrate.search(scenario, place, wanted)
    maxrate.first_probe(text, str(file), place, wanted, found.start)  # what a probe would be refused for
    loaded = manifests.load([str(file.parent / name) for name in scenario.spec.manifests])
    asked = Asked(scenario, text, file, surface, console, traffic.logs_of(scenario, file))
    for line in traffic.warnings(scenario, asked.logs):
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    (variant,) = matrix.variants(scenario, file, loaded)
    prepared = _prepared(asked, variant, first=True)
    try:
        return asyncio.run(_search(asked, prepared, place, wanted, found))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _search(asked: Asked, prepared: Prepared, place: int, wanted: Wanted, found: Search) -> Result:
    """Probe after probe, until the search ends or is interrupted."""
    console, load = asked.console, asked.scenario.spec.loads[place]
    stop = asyncio.Event()
    folder = asked.surface.out / asked.scenario.name / provenance.run_id()
    probes: list[dict[str, Any]] = []
    async with _ready(asked, prepared) as scene:
        _on_signals(stop.set)
        while not stop.is_set() and (step := found.next()) is not None:
            why, rate = step
            text = maxrate.text_of(asked.text, place, wanted, rate, len(probes))
            probing = replace(asked, scenario=parse(text, str(asked.file)), text=text)
            parts = _parts(probing, _tasks(probing, scene.resolved))
            await asyncio.gather(
                *(_of(actor.take.remote(part.task)) for actor, part in zip(scene.actors, parts, strict=True))
            )
            result = await _measured(probing, prepared, scene, folder, stop)
            if any(row["generators_lost"] for row in result.summary["loads"]):
                raise PlaneError(f"a generator was lost in the probe of {format_rate(float(rate))}: {result.folder}")
            objectives = probing.scenario.objectives(probing.scenario.spec.loads[place])
            if stop.is_set():
                break
            achieved = maxrate.answered_at(records.read(result.folder), load.name, rate)
            probes.append(
                maxrate.probe_of(
                    why, rate, result.summary, load.name, objectives, result.folder, achieved, wanted.tolerance
                )
            )
            console.print(f"probe {len(probes)}: {maxrate.line(probes[-1])}", markup=False, soft_wrap=True)
            found.tell(why, Probe(rate, probes[-1]["met"], probes[-1]["spoilt"]))
    if not probes:
        raise KeyboardInterrupt
    summary = maxrate.summarise(
        asked.scenario, load, found, probes, folder.name, tolerance=wanted.tolerance, interrupted=stop.is_set()
    )
    (folder / maxrate.FILE).write_text(json.dumps(summary, indent=2) + "\n")
    return Result(folder, summary)


async def _run(asked: Asked, prepared: Prepared, folder: Path, stop: asyncio.Event) -> Result:
    async with _ready(asked, prepared) as scene:
        _on_signals(stop.set)
        return await _measured(asked, prepared, scene, folder, stop)


@dataclass(frozen=True)
class Scene:
    """What is there for loads to run: the plane and another ingress before its pods, if any; an actor for each part.

    away  of each actor, whether it is on another of Ray's nodes than the run
    """

    cluster: Cluster | None
    controller: Peer | None
    resolved: Sequence[Resolved]
    actors: Sequence[Any]
    away: Sequence[bool]
    access: Access | None


@asynccontextmanager
async def _ready(asked: Asked, prepared: Prepared) -> AsyncIterator[Scene]:
    """All of it there; SIGINT and SIGTERM end what makes it."""
    scenario, surface, console = asked.scenario, asked.surface, asked.console
    async with AsyncExitStack() as stack:
        _on_signals(_canceller(console))
        cluster = None
        if prepared.objects:
            cluster = await stack.enter_async_context(_plane(scenario, prepared, surface, console))
        else:
            await stack.enter_async_context(connected(surface.ray_address))
        around = _surroundings(cluster, prepared.issued) if cluster else None
        controller = None
        if around and prepared.ingress != OURS:
            site = controllers.site_of(around.snapshot, around.plan, scenario.spec.ingress_upstream, str(asked.file))
            controller = await stack.enter_async_context(controllers.running(prepared.ingress, site))
            around = replace(around, ingress=controllers.address_of(around.plan), https_port=HTTPS_PORT)
            console.print(f"before the pods: {controller.version()}", markup=False, soft_wrap=True)
        resolved = targets.resolve(scenario, str(asked.file), around)
        parts = _parts(asked, _tasks(asked, resolved))
        machines = _machines()
        placed = shares.placed(parts, [load.spread for load in scenario.spec.loads], machines)
        if len(machines) == 1 and any(load.spread for load in scenario.spec.loads):
            console.print("all generators are on this machine: the Ray cluster has no other", markup=False)
        actors = await stack.enter_async_context(_actors(scenario, parts, placed))
        access = await stack.enter_async_context(_api(cluster)) if cluster and prepared.timeline else None
        away = [machine != machines[0] for machine in placed]
        yield Scene(cluster, controller, resolved, actors, away, access)


def _tasks(asked: Asked, resolved: Sequence[Resolved]) -> list[Task]:
    return [traffic.task(asked.scenario, place, target, asked.logs.get(place)) for place, target in enumerate(resolved)]


def _parts(asked: Asked, tasks: Sequence[Task]) -> list[Part]:
    """What each actor has to do, in the order of the actors."""
    return shares.parts(tasks, [load.generators for load in asked.scenario.spec.loads])


async def _measured(asked: Asked, prepared: Prepared, scene: Scene, folder: Path, stop: asyncio.Event) -> Result:
    """Runs the loads, whose actors have them already; the results are in a folder in the given one."""
    scenario, console = asked.scenario, asked.console
    tasks = _tasks(asked, scene.resolved)
    parts = _parts(asked, tasks)
    started = datetime.now(UTC)
    asks = [partial(_of_clock, actor) for actor in scene.actors]
    own, named = clocks.name(), [(scenario.spec.loads[part.load].name, part.number) for part in parts]
    try:
        offsets = [await clocks.offset(ask, own) for ask in asks]
    except RayError as error:
        raise PlaneError(f"the process of a load was lost before it began: {error}") from error
    epoch_ns, epoch_unix_ns = time.monotonic_ns() + LEAD_NS, time.time_ns() + LEAD_NS
    processes = _Processes(scenario, parts, scene)
    facts = {
        "run": provenance.run_id(started),
        "started": started.isoformat(timespec="milliseconds"),
        "epoch_monotonic_ns": str(epoch_ns),
        "epoch_unix_ns": str(epoch_unix_ns),
        "clocks": clocks.described(named, offsets, epoch_ns),
        **provenance.of_machine(),
        **provenance.of_input(asked.text, prepared.objects),
    }
    if prepared.variant:
        facts["variant"] = prepared.variant
    if scene.controller:
        facts["ingress"] = scene.controller.version()
    folder = folder / facts["run"]
    folder.mkdir(parents=True)
    headers = _headers(asked, tasks, parts, facts, folder)
    async with (
        _noted(prepared, scene, processes, epoch_ns, folder) as (samples, happened),
        _counted(scene.cluster) as pods,
    ):
        look = partial(_seen, parts, scene.actors, [Progress()] * len(parts), pods, happened)
        orders = [_by_clock(epoch_ns, header, offset) for header, offset in zip(headers, offsets, strict=True)]
        theirs = await _measure(scenario.spec.loads, parts, scene.actors, orders, epoch_ns, stop, console, look)
    offsets = [await _since(ask, each, rows) for ask, each, rows in zip(asks, offsets, theirs, strict=True)]
    found = [
        None if rows is None else clocks.by_ours(rows, offset) for rows, offset in zip(theirs, offsets, strict=True)
    ]
    measured = _by_load(parts, found)
    outcome.say_limits(scenario.spec.loads, measured, console)
    joined = await outcome.joined(headers, parts, scene.resolved, found, scene.cluster)
    described = outcome.descriptions(scenario.spec.loads, asked.logs, tasks, measured)
    compared = clocks.described(named, offsets, epoch_ns)
    ended = {"interrupted": str(stop.is_set()).lower(), "loads": described, "clocks": compared}
    table = records.tabulate([rows for rows, _ in joined], epoch_ns, {**facts, **ended})
    left = [header.path for header, recorded in zip(headers, found, strict=True) if recorded is None]
    table = records.with_rescued(table, left, headers[0].loads)
    dialled = connections.tabulate(joined, epoch_ns, facts["run"])
    beside = {
        connections.FILE: connections.with_rescued(dialled, table, left),
        events.FILE: events.tabulate(happened, facts["run"]),
        resources.FILE: resources.tabulate(samples, facts["run"]),
    }
    result = outcome.written(table, beside, folder)
    for actor, is_away in zip(scene.actors, scene.away, strict=True):
        if is_away:
            with contextlib.suppress(RayActorError):
                await _of(actor.forget.remote(headers[0].path.parent))
    return result


@asynccontextmanager
async def _noted(
    prepared: Prepared, scene: Scene, processes: "_Processes", epoch_ns: int, folder: Path
) -> AsyncIterator[tuple[list[Sample], list[Happened]]]:
    """What processes use and what happens to the plane while the context lasts, and it is in journals meanwhile."""
    with (
        noting(folder / resources.FILE, partial(resources.tabulate, run=folder.name)) as used,
        noting(folder / events.FILE, partial(events.tabulate, run=folder.name)) as happening,
    ):
        async with (
            resources.watching(processes.pids, epoch_ns, used) as samples,
            events.playing(prepared.timeline, scene.access, processes, epoch_ns, happening) as happened,
        ):
            yield samples, happened


@asynccontextmanager
async def _plane(scenario: Scenario, prepared: Prepared, surface: Surface, console: Console) -> AsyncIterator[Cluster]:
    """A plane that runs the manifests, and the pods that loads come from, all of it ready."""

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    async with running(
        nodes=scenario.spec.nodes,
        instance=surface.instance,
        port_offset=surface.port_offset,
        ray_address=surface.ray_address,
        recording=True,
        gateway=scenario.spec.gateway,
        progress=say,
    ) as cluster:
        await cluster.apply([*prepared.objects, *prepared.issued.secrets, *targets.client_pods(scenario)])
        say("waiting for the pods")
        await cluster.ready(READY_TIMEOUT_S)
        yield cluster


@asynccontextmanager
async def _api(cluster: Cluster) -> AsyncIterator[Access]:
    """The plane's API, for the events of a run and nobody else."""
    token = secrets.token_urlsafe(32)
    api = Api(cluster.store, token=token, wait=cluster.wait, advise=advise, connections=cluster.open_connections)
    await api.start()
    try:
        yield Access(api.url, token, api.ca_pem)
    finally:
        await api.stop()


class _Processes:
    """The processes of a run on this machine: this one, those of loads, and those of the plane's nodes and ingresses.

    What befalls them is ``events.Faults``.
    """

    def __init__(self, scenario: Scenario, parts: Sequence[Part], scene: Scene):
        names = [f"{scenario.spec.loads[part.load].name} {part.number}".rstrip() for part in parts]
        each = zip(names, scene.actors, scene.away, strict=True)
        self._loads = {name: actor for name, actor, is_away in each if not is_away}
        self._cluster = scene.cluster
        self._controller = scene.controller

    async def pids(self) -> Mapping[str, int]:
        """By name; those that are down are left out."""
        found = {"control": os.getpid()}
        for name, actor in self._loads.items():
            with contextlib.suppress(RayActorError):
                found[f"load {name}"] = await _of(actor.__ray_call__.remote(lambda _: os.getpid()))
        for member in [*self._cluster.nodes.values(), *self._cluster.ingresses.values()] if self._cluster else ():
            with contextlib.suppress(AgentLostError):
                if member.agent is not None:
                    found[member.name] = await member.agent.pid()
        if self._controller is not None:
            name = self._controller.name
            found |= {f"{name} {place}" if place else name: pid for place, pid in enumerate(self._controller.pids())}
        return found

    async def kill_node(self, number: int) -> int:
        """SIGKILL for the process of a node. The generation that does without it, once traffic goes by that.

        Raises PlaneError where it is down already, or the plane does not notice.
        """
        cluster = self._cluster
        assert cluster is not None
        member = cluster.nodes[number]
        if member.agent is None:
            raise PlaneError(f"{member.name} is down already")
        os.kill(await member.agent.pid(), signal.SIGKILL)
        snapshot = cluster.store.snapshot
        try:
            async with asyncio.timeout(events.ACKNOWLEDGE_S):
                while node_is_ready(snapshot.get("Node", "", member.name) or {}):
                    snapshot = await cluster.store.changed_since(snapshot.generation)
                await cluster.wait(snapshot.generation)
        except TimeoutError:
            reason = f"traffic does not go without it after {events.ACKNOWLEDGE_S:g} s"
            raise PlaneError(f"{member.name} is killed, and {reason}") from None
        return snapshot.generation

    async def cut_off(self, nodes: frozenset[int]) -> int:
        """Nobody but who is cut off notices: the generation stays."""
        assert self._cluster is not None
        await self._cluster.cut_off(nodes)
        return self._cluster.store.snapshot.generation


def _machines() -> list[str]:
    """Ray's nodes by id, the one where the run was started first."""
    here = ray.get_runtime_context().get_node_id()
    return [here, *sorted(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != here)]


@asynccontextmanager
async def _actors(scenario: Scenario, parts: Sequence[Part], placed: Sequence[str]) -> AsyncIterator[list[Any]]:
    """An actor for each part of a load, on that of Ray's nodes, all of them there."""
    # Threads: one runs the load, the others answer while it does.
    options = {"num_cpus": 0, "max_concurrency": 3}
    actor_class: Any = ray.remote(LoadProcess)
    actors = [
        actor_class.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False), **options).remote(
            part.task
        )
        for part, node in zip(parts, placed, strict=True)
    ]
    try:
        for part, actor in zip(parts, actors, strict=True):
            try:
                await actor.ready.remote()
            except RayError as error:
                raise PlaneError(f"load {scenario.spec.loads[part.load].name} does not start: {error}") from error
        yield actors
    finally:
        for actor in actors:
            ray.kill(actor)


def _headers(
    asked: Asked, tasks: Sequence[Task], parts: Sequence[Part], facts: Mapping[str, str], folder: Path
) -> list[Header]:
    """Of the journals of all parts. Who reads one reads of a run that did not end: it was interrupted."""
    names = [load.name for load in asked.scenario.spec.loads]
    described = outcome.descriptions(asked.scenario.spec.loads, asked.logs, tasks, [[] for _ in tasks])
    known = {**facts, "interrupted": "true", "loads": described}
    path = folder.absolute()  # a load's process may work in another folder
    epoch_ns = int(facts["epoch_monotonic_ns"])
    warm_ns = [epoch_ns + load.start + load.warm_up if load.warm_up else 0 for load in asked.scenario.spec.loads]
    return [
        Header(
            records.journal_of(path, place), names[part.load], names, known, warm_ns[part.load], share=part.task.share
        )
        for place, part in enumerate(parts)
    ]


async def _measure(
    loads: Sequence[Load],
    parts: Sequence[Part],
    actors: Sequence[Any],
    orders: Sequence[tuple[int, Header]],
    epoch_ns: int,
    stop: asyncio.Event,
    console: Console,
    look: Callable[[], Awaitable[Seen]],
) -> list[Recorded | None]:
    """Runs all loads from the epoch on and returns what each part found; ends them early once ``stop`` is set.

    ``orders`` has the epoch and the header of each part by the clock of its actor, as what it finds is. None: that
    generator was lost, while others of its load were not. ``look`` says how it is going.
    """
    runs = [asyncio.ensure_future(_of(actor.run.remote(*order))) for actor, order in zip(actors, orders, strict=True)]
    stopping = asyncio.ensure_future(stop.wait())
    try:
        with shown(loads, console) as show:
            while pending := [run for run in runs if not run.done()]:
                await asyncio.wait([*pending, stopping], timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    await asyncio.gather(*(_of(actor.stop.remote()) for actor in actors), return_exceptions=True)
                    break
                elapsed_s = (time.monotonic_ns() - epoch_ns) / NS_PER_S
                show(elapsed_s, await look())
        return _unless_lost(loads, parts, await asyncio.gather(*runs, return_exceptions=True), console)
    except RayError as error:
        folder = orders[0][1].path.parent
        raise PlaneError(f"a load broke off; what was measured until then is in {folder}: {error}") from error
    finally:
        stopping.cancel()


def _by_clock(epoch_ns: int, header: Header, offset: Offset) -> tuple[int, Header]:
    """A run's epoch and the header of a journal by the clock of who writes it."""
    ahead_ns = offset.before.offset_ns
    warm_ns = header.warm_ns + ahead_ns if header.warm_ns else 0
    return epoch_ns + ahead_ns, replace(header, warm_ns=warm_ns)


async def _of_clock(actor: Any) -> Any:
    return await _of(actor.clock.remote())


async def _since(ask: Ask, before: Offset, rows: Recorded | None) -> Offset:
    """How a generator's clock stands to ours after its run; as before where it is lost."""
    try:
        return before if rows is None else await clocks.again(before, ask)
    except RayActorError:
        return before


def _unless_lost(
    loads: Sequence[Load], parts: Sequence[Part], found: Sequence[Recorded | BaseException], console: Console
) -> list[Recorded | None]:
    """What generators found, None and a line for each that was lost. Raises what a load broke off by."""
    going = {part.load for part, each in zip(parts, found, strict=True) if isinstance(each, Recorded)}
    kept: list[Recorded | None] = []
    for part, each in zip(parts, found, strict=True):
        if isinstance(each, Recorded):
            kept.append(each)
            continue
        if not isinstance(each, RayActorError) or part.load not in going:
            raise each
        lost = f"load {loads[part.load].name}: generator {part.number} of {part.task.share.of} was lost"
        said = "of its rows those are kept that were on disk by then, and what was due of its share is missing"
        console.print(f"{lost}; {said}: {each}", markup=False, soft_wrap=True)
        kept.append(None)
    return kept


def _by_load(parts: Sequence[Part], found: Sequence[Recorded | None]) -> list[list[Recorded | None]]:
    """The same by load, in the order of the generators."""
    by_load: list[list[Recorded | None]] = [[] for _ in range(_loads(parts))]
    for part, recorded in zip(parts, found, strict=True):
        by_load[part.load].append(recorded)
    return by_load


@asynccontextmanager
async def _counted(cluster: Cluster | None) -> AsyncIterator[dict[str, int]]:
    """How many requests each pod has answered, as of a second ago at most; the counts grow while the context lasts."""
    counts: dict[str, int] = {}

    async def count() -> None:
        while cluster is not None:
            counts.update(await cluster.served_counts())
            await asyncio.sleep(COUNT_S)

    task = asyncio.create_task(count())
    try:
        yield counts
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()):
            raise error


async def _seen(
    parts: Sequence[Part],
    actors: Sequence[Any],
    last: list[Progress],
    pods: Mapping[str, int],
    happened: Sequence[Happened],
) -> Seen:
    """How it is going; ``last`` is how far each part was, and stays so for one that is lost."""
    told = await asyncio.gather(*(_of(actor.progress.remote()) for actor in actors), return_exceptions=True)
    for place, each in enumerate(told):
        if isinstance(each, BaseException) and not isinstance(each, RayActorError):
            raise each
        last[place] = last[place] if isinstance(each, BaseException) else each
    loads = [[last[place] for place, part in enumerate(parts) if part.load == load] for load in range(_loads(parts))]
    return Seen([shares.progress(each) for each in loads], pods, happened)


def _loads(parts: Sequence[Part]) -> int:
    return parts[-1].load + 1


async def _of(reference: Any) -> Any:
    """What a call of an actor returns, as a coroutine."""
    return await reference


def _surroundings(cluster: Cluster, issued: Issued) -> Surroundings:
    address, http_port, https_port = cluster.ingress_address
    return Surroundings(cluster.store.snapshot, cluster.plan, (address, http_port), https_port, issued.authority)


def _canceller(console: Console) -> Callable[[], None]:
    task = asyncio.current_task()
    assert task is not None

    def cancel() -> None:
        if not task.cancelling():  # a second Ctrl-C must not cut the way out short
            console.print("stopping: what is starting is ended first", markup=False)
            task.cancel()

    return cancel


def _on_signals(act: Callable[[], object]) -> None:
    """SIGINT and SIGTERM do that from here on."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, act)
