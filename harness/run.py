"""A scenario from its file to its results: plane up, loads on, rows written. The only file of the harness with Ray.

Law: in a scenario with loads each load has a process of its own, a Ray actor around the ordinary ``Stream``, and all
begin at one agreed instant of the machine's monotonic clock; the actors are on the driver's machine, because the
plane's addresses and that clock are. Ray carries orders and results, never a request. A scenario of flows needs no
plane, and Ray only for more than one worker: then actors carry shards of flows, by tables that lie in the object store,
and what an actor had under way when it was lost is carried by another. A run that is interrupted (SIGINT, SIGTERM) is a
run: what was measured so far is written like any other.
"""

import plane.rayenvironment  # noqa: F401  # Ray reads it when it is imported

# isort: split
import asyncio
import contextlib
import json
import os
import secrets
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from harness import events, matrix, page, provenance, records, report, resources, rounds, targets
from harness.drivers.process import LoadProcess
from harness.drivers.stream import Task
from harness.events import Happened, Planned
from harness.flows import growth, pages, queues
from harness.flows import running as flows
from harness.flows.running import SUMMARY_FILE, Result
from harness.flows.scenario import KIND as FLOWS
from harness.flows.scenario import FlowScenario
from harness.flows.steering import Carried, Course, Shard, Worker
from harness.join import join
from harness.journal import Header
from harness.matrix import Variant
from harness.progress import shown
from harness.recorder import Recorded
from harness.records import LoadRows, provenance_of
from harness.resources import Sample
from harness.scenario import Load, Scenario, kind_of, read, read_as, text_of
from harness.targets import Resolved, Surroundings
from harness.units import NS_PER_S, format_ns, format_rate
from harness.workload import id_key
from plane import manifests, offline
from plane.addresses import AddressPlan
from plane.advice import advise
from plane.api import Api
from plane.cluster import Cluster, connected, running
from plane.control import AgentLostError
from plane.errors import PlaneError
from plane.kubeconfig import Access
from plane.model import Object
from plane.up import checked, warn

READY_TIMEOUT_S = 120.0
POLL_S = 0.2
LOST_AT_MOST = 8  # workers of one run of flows
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
    if kind == FLOWS:
        return _run_flows(file, surface, console)
    if kind == queues.KIND:
        stop = threading.Event()
        with _stopping(stop, console):
            return pages.with_page(queues.run(file, surface.out, console, stop))
    scenario, text = read(file)
    loaded = manifests.load([str(file.parent / name) for name in scenario.spec.manifests])
    asked = Asked(scenario, text, file, surface, console)
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
    """What the command was given: the scenario with its text and file, where it runs and where it says so."""

    scenario: Scenario
    text: str
    file: Path
    surface: Surface
    console: Console


@dataclass(frozen=True)
class Prepared:
    """All that is known of a run before it starts."""

    variant: str
    objects: list[Object]
    timeline: Sequence[Planned]


def _prepared(asked: Asked, variant: Variant, *, first: bool) -> Prepared:
    """A variant that is known to lead somewhere; the ``first`` says what the manifests warn of."""
    scenario, file = asked.scenario, str(asked.file)
    if not scenario.spec.manifests:
        targets.resolve(scenario, file, None)
        return Prepared(variant.name, [], [])
    loaded = checked(variant.loaded, asked.surface.instance)
    for warning in loaded.warnings if first else ():
        warn(asked.console, warning)
    objects = [manifest.object for manifest in loaded.objects]
    # Where the loads would go is known from the manifests alone: what leads nowhere is found before anything runs.
    plan = AddressPlan(asked.surface.instance)
    settled = offline.settled([*objects, *targets.client_pods(scenario)], nodes=scenario.spec.nodes, plan=plan)
    timeline = events.planned(scenario, asked.file, settled)
    targets.resolve(scenario, file, Surroundings(settled, plan, (plan.vip(1), plan.bound_port(80))))
    return Prepared(variant.name, objects, timeline)


def _once(asked: Asked, prepared: Prepared, folder: Path, stop: asyncio.Event) -> Result:
    """One run, whose results go to a folder in the given one; ``stop`` is set where it was interrupted.

    Raises KeyboardInterrupt where that was before the first request.
    """
    try:
        return asyncio.run(_run(asked, prepared, folder, stop))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _run_flows(file: Path, surface: Surface, console: Console) -> Result:
    """One run, or one for each count of Services."""
    stop = threading.Event()

    def carried(prepared: flows.Prepared, folder: Path) -> Result:
        if prepared.scenario.spec.workers == 1:
            return pages.with_page(flows.run(prepared, folder, console, flows.here, stop))
        return pages.with_page(asyncio.run(_on_actors(prepared, folder, surface, console, stop)))

    scenario, _ = read_as(FlowScenario, file)
    with _stopping(stop, console):
        if scenario.spec.counts:
            return pages.with_page(growth.play(scenario, file, carried, surface.out, console))
        return carried(flows.prepare(file), surface.out / scenario.name)


async def _on_actors(
    prepared: flows.Prepared, folder: Path, surface: Surface, console: Console, stop: threading.Event
) -> Result:
    carrying = FlowActors(prepared.scenario.spec.workers)
    async with connected(surface.ray_address):
        try:
            return await asyncio.to_thread(flows.run, prepared, folder, console, carrying, stop)
        finally:
            carrying.end()


@contextmanager
def _stopping(stop: threading.Event, console: Console) -> Iterator[None]:
    """SIGINT and SIGTERM have a run of flows end after the shards that are under way, and the second time at once."""

    def act(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        console.print("what is under way is finished first; once more ends it at once", markup=False)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, act) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class FlowActors:
    """Carries shards by so many actors, each with one under way; ``lost`` counts those that had to be replaced."""

    def __init__(self, workers: int):
        self.lost = 0
        self._workers = workers
        self._idle: list[Any] = []
        self._under_way: dict[Any, tuple[Any, Shard]] = {}

    def __call__(self, course: Course, shards: Sequence[Shard], stop: threading.Event) -> Iterator[Carried]:
        """As ``flows.here``. Raises PlaneError where actors are lost again and again."""
        shared = ray.put(course)
        waiting = list(reversed(shards))
        self._idle += [_flow_actor() for _ in range(min(self._workers, len(shards)) - len(self._idle))]
        while waiting or self._under_way:
            while waiting and self._idle:
                actor, shard = self._idle.pop(), waiting.pop()
                self._under_way[actor.carry.remote(shared, shard)] = actor, shard
            done, _ = ray.wait(list(self._under_way), timeout=POLL_S)
            for reference in done:
                actor, shard = self._under_way.pop(reference)
                try:
                    carried = ray.get(reference)
                except RayActorError as error:
                    self._replace(error)
                    waiting.append(shard)
                except RayError as error:
                    raise PlaneError(
                        f"balancers {shard.first} to {shard.last - 1} can't be carried: {error}"
                    ) from error
                else:
                    self._idle.append(actor)
                    yield carried
            if stop.is_set():
                waiting.clear()

    def _replace(self, error: RayActorError) -> None:
        self.lost += 1
        if self.lost > LOST_AT_MOST:
            raise PlaneError(f"{self.lost} workers were lost one after the other, the last because: {error}") from error
        self._idle.append(_flow_actor())

    def end(self) -> None:
        for actor in [*self._idle, *(actor for actor, _ in self._under_way.values())]:
            ray.kill(actor)


def _flow_actor() -> Any:
    actor_class: Any = ray.remote(Worker)
    return actor_class.options(num_cpus=0, scheduling_strategy="SPREAD").remote()


async def _run(asked: Asked, prepared: Prepared, folder: Path, stop: asyncio.Event) -> Result:
    scenario, surface, console = asked.scenario, asked.surface, asked.console
    objects, timeline = prepared.objects, prepared.timeline
    async with AsyncExitStack() as stack:
        _on_signals(_canceller())
        cluster = None
        if objects:
            cluster = await stack.enter_async_context(_plane(scenario, objects, surface, console))
        else:
            await stack.enter_async_context(connected(surface.ray_address))
        resolved = targets.resolve(scenario, str(asked.file), _surroundings(cluster) if cluster else None)
        tasks = [_task(scenario, place, target) for place, target in enumerate(resolved)]
        actors = await stack.enter_async_context(_actors(scenario, tasks))
        access = await stack.enter_async_context(_api(cluster)) if cluster and timeline else None
        _on_signals(stop.set)
        started = datetime.now(UTC)
        epoch_ns = time.monotonic_ns() + LEAD_NS
        processes = _Processes(scenario, actors, cluster)
        facts = {
            "run": provenance.run_id(started),
            "started": started.isoformat(timespec="milliseconds"),
            "epoch_monotonic_ns": str(epoch_ns),
            **provenance.of_machine(),
            **provenance.of_input(asked.text, objects),
        }
        if prepared.variant:
            facts["variant"] = prepared.variant
        folder = folder / facts["run"]
        folder.mkdir(parents=True)
        headers = _headers(scenario, tasks, facts, folder)
        async with (
            resources.watching(processes.pids, epoch_ns) as samples,
            events.playing(timeline, access, processes.kill_node, epoch_ns) as happened,
        ):
            measured = await _measure(scenario.spec.loads, actors, headers, epoch_ns, stop, console)
        _say_limits(scenario.spec.loads, measured, console)
        rows = await _joined(scenario, tasks, resolved, measured, cluster)
        ended = {"interrupted": str(stop.is_set()).lower(), "loads": _descriptions(scenario, tasks, measured)}
        table = records.tabulate(rows, epoch_ns, {**facts, **ended})
        return _written(table, happened, samples, folder)


@asynccontextmanager
async def _plane(
    scenario: Scenario, objects: list[Object], surface: Surface, console: Console
) -> AsyncIterator[Cluster]:
    """A plane that runs the manifests, and the pods that loads come from, all of it ready."""

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    async with running(
        nodes=scenario.spec.nodes,
        instance=surface.instance,
        port_offset=surface.port_offset,
        ray_address=surface.ray_address,
        recording=True,
        progress=say,
    ) as cluster:
        await cluster.apply([*objects, *targets.client_pods(scenario)])
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
    """The processes of a run: this one, those of loads, and those of the plane's nodes and ingresses."""

    def __init__(self, scenario: Scenario, actors: Sequence[Any], cluster: Cluster | None):
        self._loads = dict(zip((load.name for load in scenario.spec.loads), actors, strict=True))
        self._cluster = cluster

    async def pids(self) -> Mapping[str, int]:
        """By name; those that are down are left out."""
        found = {"control": os.getpid()}
        for name, actor in self._loads.items():
            found[f"load {name}"] = await _of(actor.__ray_call__.remote(lambda _: os.getpid()))
        for member in [*self._cluster.nodes.values(), *self._cluster.ingresses.values()] if self._cluster else ():
            with contextlib.suppress(AgentLostError):
                if member.agent is not None:
                    found[member.name] = await member.agent.pid()
        return found

    async def kill_node(self, number: int) -> None:
        """SIGKILL for the process of a node. Raises PlaneError where it is down already."""
        assert self._cluster is not None
        member = self._cluster.nodes[number]
        if member.agent is None:
            raise PlaneError(f"{member.name} is down already")
        os.kill(await member.agent.pid(), signal.SIGKILL)


@asynccontextmanager
async def _actors(scenario: Scenario, tasks: Sequence[Task]) -> AsyncIterator[list[Any]]:
    """An actor for each load, all of them there."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # Threads: one runs the load, the others answer while it does.
    options = {"num_cpus": 0, "max_concurrency": 3, "scheduling_strategy": here}
    actor_class: Any = ray.remote(LoadProcess)
    actors = [actor_class.options(**options).remote(task) for task in tasks]
    try:
        for load, actor in zip(scenario.spec.loads, actors, strict=True):
            try:
                await actor.ready.remote()
            except RayError as error:
                raise PlaneError(f"load {load.name} does not start: {error}") from error
        yield actors
    finally:
        for actor in actors:
            ray.kill(actor)


def _headers(scenario: Scenario, tasks: Sequence[Task], facts: Mapping[str, str], folder: Path) -> list[Header]:
    """Of the loads' journals. Who reads one reads of a run that did not end: it was interrupted."""
    names = [load.name for load in scenario.spec.loads]
    known = {**facts, "interrupted": "true", "loads": _descriptions(scenario, tasks, [None] * len(tasks))}
    path = folder.absolute()  # a load's process may work in another folder
    return [Header(records.journal_of(path, place), name, names, known) for place, name in enumerate(names)]


async def _measure(
    loads: Sequence[Load],
    actors: Sequence[Any],
    headers: Sequence[Header],
    epoch_ns: int,
    stop: asyncio.Event,
    console: Console,
) -> list[Recorded]:
    """Runs all loads from the epoch on and returns their rows; ends them early once ``stop`` is set."""
    runs = [
        asyncio.ensure_future(_of(actor.run.remote(epoch_ns, header)))
        for actor, header in zip(actors, headers, strict=True)
    ]
    stopping = asyncio.ensure_future(stop.wait())
    try:
        with shown(loads, console) as show:
            while pending := [run for run in runs if not run.done()]:
                await asyncio.wait([*pending, stopping], timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    await asyncio.gather(*(_of(actor.stop.remote()) for actor in actors))
                    break
                elapsed_s = (time.monotonic_ns() - epoch_ns) / NS_PER_S
                show(elapsed_s, await asyncio.gather(*(_of(actor.progress.remote()) for actor in actors)))
        return await asyncio.gather(*runs)
    except RayError as error:
        folder = headers[0].path.parent
        raise PlaneError(f"a load broke off; what was measured until then is in {folder}: {error}") from error
    finally:
        stopping.cancel()


async def _of(reference: Any) -> Any:
    """What a call of an actor returns, as a coroutine."""
    return await reference


async def _joined(
    scenario: Scenario,
    tasks: Sequence[Task],
    resolved: Sequence[Resolved],
    measured: Sequence[Recorded],
    cluster: Cluster | None,
) -> list[LoadRows]:
    ingress = await cluster.ingress_records() if cluster else []
    connections = await cluster.connections() if cluster else []
    pods = cluster.pods_seen() if cluster else {}
    return [
        LoadRows(
            load.name,
            recorded,
            join(
                recorded,
                id_key=task.id_key,
                frontend=target.frontend,
                service=target.service,
                ingress=ingress,
                connections=connections,
                pods=pods,
            ),
            task.id_key,
        )
        for load, task, target, recorded in zip(scenario.spec.loads, tasks, resolved, measured, strict=True)
    ]


def _task(scenario: Scenario, place: int, target: Resolved) -> Task:
    load = scenario.spec.loads[place]
    return Task(
        target.destination,
        target.workload,
        load.arrivals.rate,
        load.arrivals.connections or load.arrivals.max_connections,
        load.start,
        load.duration,
        scenario.timeout_ns(load),
        id_key(scenario.spec.seed, place),
        (scenario.spec.seed, place) if load.arrivals.process == "poisson" else None,
    )


def _descriptions(scenario: Scenario, tasks: Sequence[Task], measured: Sequence[Recorded | None]) -> str:
    return json.dumps([_described(*each) for each in zip(scenario.spec.loads, tasks, measured, strict=True)])


def _described(load: Load, task: Task, recorded: Recorded | None) -> dict[str, Any]:
    """What a load was, for whoever reads its rows without the scenario at hand; ``recorded`` None: it has not ended."""
    if task.rate is None:
        arrivals = f"{task.connections} connection" + ("s" if task.connections > 1 else "")
    else:
        arrivals = format_rate(float(task.rate)) + (" (Poisson)" if task.poisson else "")
    return {
        "name": load.name,
        "arrivals": arrivals,
        "rate": None if task.rate is None else float(task.rate),
        "connections": task.connections,
        "start_ns": task.start_ns,
        "duration_ns": task.duration_ns,
        "timeout_ns": task.timeout_ns,
        "method": task.workload.method,
        "host": task.workload.host,
        "path": task.workload.path,
        "address": f"{task.destination.ip}:{task.destination.port}",
        "source": task.destination.source_ip,
        "generator": recorded and asdict(recorded.generator),
        "generator_limited": recorded and recorded.generator.limited(len(recorded.requests["intended_ns"])),
    }


def _say_limits(loads: Sequence[Load], measured: Sequence[Recorded], console: Console) -> None:
    """A line for each load whose generator, and not the subject, is what was measured."""
    for load, recorded in zip(loads, measured, strict=True):
        generator, rows = recorded.generator, len(recorded.requests["intended_ns"])
        if generator.limited(rows):
            line = (
                f"load {load.name} is generator-limited: its thread was busy {generator.busy:.0%} of the time, and "
                f"{generator.late:,} of {rows:,} requests began more than 1 ms late, "
                f"the latest by {format_ns(generator.latest_ns)}"
            )
            console.print(line, markup=False, soft_wrap=True)


def _surroundings(cluster: Cluster) -> Surroundings:
    address, http_port, _ = cluster.ingress_address
    return Surroundings(cluster.store.snapshot, cluster.plan, (address, http_port))


def _written(table: Any, happened: Sequence[Happened], samples: Sequence[Sample], folder: Path) -> Result:
    run = provenance_of(table)["run"]
    records.write(table, folder / records.FILE)
    records.forget_journals(folder)
    records.write(events.tabulate(happened, run), folder / events.FILE)
    records.write(resources.tabulate(samples, run), folder / resources.FILE)
    summary = report.summarise(table, report.beside(folder))
    (folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n")
    (folder / page.FILE).write_text(page.page(table, summary, report.beside(folder)), encoding="utf-8")
    return Result(folder, summary)


def _canceller() -> Callable[[], object]:
    task = asyncio.current_task()
    assert task is not None
    return lambda: task.cancelling() or task.cancel()  # a second Ctrl-C must not cut the way out short


def _on_signals(act: Callable[[], object]) -> None:
    """SIGINT and SIGTERM do that from here on."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, act)
