"""A scenario of flows from its file to its results.

Law: whoever carries shards is given the course and the shards, and may carry them anywhere and in any order. The rows
of each are on disk as soon as it is finished, and put in order of the balancers at the end. Algorithms have their turn
one after the other, so that the tables of only one are in memory. A run that is interrupted is a run: it has the shards
that were finished.
"""

import json
import resource
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from rich.console import Console

from harness import provenance, records
from harness.flows import fleet, making, shards, timeline
from harness.flows.making import CONFIGURED, Made, Maker
from harness.flows.progress import shown
from harness.flows.records import BACKENDS_FILE, FILE, Measured, tabulate
from harness.flows.scenario import FLOWS_OF_BALANCER_AT_MOST, FlowScenario, rival_of
from harness.flows.steering import Carried, Course, Shard, carry, ready
from harness.flows.summary import summarise
from harness.flows.timeline import Phase
from harness.flows.traces import Trace, read_trace
from harness.records import PREFIX, provenance_of
from harness.scenario import ScenarioError, read_as
from kernels.lb.consistent.tables import WITHOUT_WEIGHTS
from kernels.warm import LOAD_BALANCING, warm
from plane import manifests, offline
from plane.errors import ManifestError, PlaneError, Problem
from plane.families import Family
from plane.frontends import PROTOCOLS
from plane.manifests import Loaded
from plane.model import Service, Snapshot, weight_of

SUMMARY_FILE = "summary.json"
# A worker's turn is at most one part in so many of all balancers: large enough that asking for the next costs nothing,
# small enough to see how it goes. And it is at most one in so many of a worker's part of what is left, so that none
# waits long for the last one.
PARTS_OF_ALL, PARTS_OF_LEFT = 16, 2

# Carries shards of a course, in any order; ends early, between two of them, once it is told to.
Carry = Callable[[Course, Sequence[Shard], threading.Event], Iterator[Carried]]


@dataclass(frozen=True)
class Result:
    """A run that is over: the folder that holds its files, and its summary."""

    folder: Path
    summary: dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """All that is known before the first flow is made."""

    scenario: FlowScenario
    text: str
    manifests: Loaded
    phases: list[Phase]
    trace: Trace | None

    @property
    def algorithms(self) -> list[str]:
        return self.scenario.spec.algorithms or [CONFIGURED]


@making.without_collections()
def prepare(file: Path, count: int | None = None) -> Prepared:
    """Reads a scenario and its manifests, and has everything on its timeline happen. Raises ManifestError.

    count  how many Services are made up, where the scenario has several counts
    """
    scenario, text = read_as(FlowScenario, file)
    trace = None
    if scenario.spec.trace is not None:
        trace = read_trace(file.parent / scenario.spec.trace, scenario.spec.family)
        scenario = _with_flows(scenario, str(file), len(trace.flows.proto))
    spec = scenario.spec
    if spec.services is not None:
        counts = spec.services.count
        shape = count or counts[0], spec.services.endpoints, spec.services.nodes, counts[-1]
        made = fleet.made_up(*shape, spec.family)
        snapshot, loaded = Snapshot().changed(made), Loaded((), ())
    else:
        paths = [str(file.parent / name) for name in spec.manifests]
        snapshot, loaded = offline.snapshot(paths, nodes=spec.nodes, family=spec.family), _loaded(paths)
    found = timeline.phases(scenario, str(file), snapshot)
    _check_target(scenario, str(file), snapshot)
    return Prepared(scenario, text, loaded, found, trace)


def _loaded(paths: Sequence[str]) -> Loaded:
    """What ``offline.snapshot`` has read: manifests, or what a cluster gave out."""
    try:
        return manifests.load(paths)
    except ManifestError:
        return manifests.load(paths, lenient=True)


def _with_flows(scenario: FlowScenario, file: str, count: int) -> FlowScenario:
    """The scenario whose trace has so many flows. Raises ScenarioError."""
    spec = scenario.spec
    if not (spec.balancers or 1) <= count <= FLOWS_OF_BALANCER_AT_MOST * (spec.balancers or count):
        reason = (
            f"has {count:,} flows for {spec.balancers or 1:,} balancers; each has 1 to {FLOWS_OF_BALANCER_AT_MOST:,}"
        )
        raise ScenarioError([Problem(file, 1, f"FlowScenario {scenario.name}", "spec.trace", reason)])
    return scenario.model_copy(update={"spec": spec.model_copy(update={"flows": count})})


def run(
    prepared: Prepared,
    out: Path,
    console: Console,
    carry: Carry,
    stop: threading.Event,
    load: Callable[[], object] = lambda: None,
    lost: Callable[[], int] = lambda: 0,
) -> Result:
    """Carries all flows and writes what became of them, to a folder in ``out``; what is said goes to ``console``.

    load  returns once the processes that ``carry`` has beside this one have loaded compiled code, as this one has; a
          run begins then, however many there are
    lost  how many of them had to be replaced by now

    Raises ManifestError, PlaneError, and KeyboardInterrupt where nothing was finished before it was to stop.
    """
    for warning in warnings(prepared):
        console.print(f"warning: {warning}", markup=False, soft_wrap=True, style="yellow")
    warm(lambda line: console.print(line, markup=False, soft_wrap=True), LOAD_BALANCING)
    pa.array(())  # the first one imports pandas where that is installed, which the workers would be short of
    load()
    begin, known = time.monotonic(), _facts(prepared)
    folder, algorithms = out / known["run"], prepared.algorithms

    def facts() -> dict[str, str]:
        """As far as they are known by now."""
        peak_rss_bytes = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            **known,
            "interrupted": "true",
            "seconds": f"{time.monotonic() - begin:.3f}",
            "workers_lost": str(lost()),
            "peak_rss_bytes": str(peak_rss_bytes),
        }

    try:
        with shown(len(algorithms), prepared.scenario.spec.flows * len(prepared.phases), console) as show:
            for place, algorithm in enumerate(algorithms):
                if stop.is_set():
                    break
                for shard in _measured(prepared, place, carry, stop, show):
                    described = [*map(_described, shard.phases, shard.made)]
                    rows = tabulate(shard, {**facts(), "phases": json.dumps({algorithm: described})})
                    shards.put(folder, place, shard.carried.shard, rows)
    except KeyboardInterrupt:
        stop.set()
    except PlaneError as error:
        if not shards.are_in(folder):
            raise
        raise PlaneError(f"{error}; what was finished until then is in {folder}") from error
    if not shards.are_in(folder):
        raise KeyboardInterrupt
    return _written(folder, {**facts(), "interrupted": str(stop.is_set()).lower()})


def here(course: Course, shards: Sequence[Shard], stop: threading.Event) -> Iterator[Carried]:
    """Carries shards in this process, one after the other."""
    for shard in shards:
        if stop.is_set():
            return
        yield carry(course, shard)


def holds_run(folder: Path) -> bool:
    """Whether ``read`` finds the rows of a run there."""
    return (folder / FILE).exists() or shards.are_in(folder)


def read(folder: Path) -> tuple[pa.Table, pa.Table]:
    """The tables of a run; of one that was killed, those of its shards. Raises OSError and pa.ArrowInvalid."""
    if not (folder / FILE).exists() and shards.are_in(folder):
        return shards.gathered(folder)
    return records.read(folder / FILE), records.read(folder / BACKENDS_FILE)


def shards_of(balancers: int, workers: int) -> list[Shard]:
    """All balancers, cut into shards, of which the last are smaller and smaller (factoring: Hummel et al. 1992)."""
    shards, first = [], 0
    while first < balancers:
        left = balancers - first
        size = max(1, min(balancers // PARTS_OF_ALL, left // (PARTS_OF_LEFT * workers)))
        shards.append(Shard(first, first + size))
        first += size
    return shards


def course_of(prepared: Prepared, algorithm: str) -> tuple[Course, list[Made]]:
    """What flows of one algorithm go through, and what its tables took to make, phase by phase."""
    spec, phases, trace = prepared.scenario.spec, prepared.phases, prepared.trace
    tables, made = Maker(prepared.scenario, algorithm).make(phases)
    course = Course(
        tables=tuple(tables),
        at_ns=tuple(phase.at_ns for phase in phases),
        failed=tuple(phase.failed for phase in phases),
        population=None if trace else making.population_of(spec, tables[0].fib, phases[0].snapshot),
        trace=trace.flows if trace else None,
        sizes=trace.bytes if trace else spec.sizes,
        flows=spec.flows,
        share=spec.of_balancer,
        tracked=spec.tracked,
        idle_ns=spec.idle,
        address=spec.family.address,
    )
    return course, made


def warnings(prepared: Prepared) -> Iterator[str]:
    """What the scenario and its manifests ask for and do not get."""
    yield from map(str, prepared.manifests.warnings)
    yield from prepared.trace.notes if prepared.trace else ()
    rivals = {name: rival for name in prepared.algorithms if name != CONFIGURED and (rival := rival_of(name))}
    services = [Service.of(obj) for obj in prepared.phases[0].snapshot.all("Service")]
    weights = {weight_of(obj) for phase in prepared.phases for obj in phase.snapshot.all("EndpointSlice")}
    for name, (algorithm, _) in rivals.items():
        if len(weights - {0}) > 1 and algorithm in WITHOUT_WEIGHTS:
            yield f"{name} knows no weights: endpoints of any weight but 0 have equal shares"
        if any(service.affinity_s for service in services):
            yield f"{name} leaves session affinity out"
    if any(service.slow_start_s for service in services):
        yield "slow start is left out: every endpoint has its whole share at once"


def _measured(
    prepared: Prepared, place: int, carry: Carry, stop: threading.Event, show: Callable[[str, int], None]
) -> Iterator[Measured]:
    """One algorithm's shards, as they are finished."""
    spec, phases, algorithm = prepared.scenario.spec, prepared.phases, prepared.algorithms[place]
    show(f"making tables for {algorithm}", 0)
    course, made = course_of(prepared, algorithm)
    ready(course)  # before others do: processes that fill one cache at a time can spoil it for each other
    for carried in carry(course, shards_of(spec.balancer_count, spec.workers), stop):
        yield Measured(prepared.algorithms, place, phases, course, made, carried)
        show(algorithm, int(carried.outcomes.sum()))


def _facts(prepared: Prepared) -> dict[str, str]:
    """What is known of a run that begins now."""
    spec, started = prepared.scenario.spec, datetime.now(UTC)
    return {
        "run": provenance.run_id(started),
        "started": started.isoformat(timespec="milliseconds"),
        "name": json.dumps(prepared.scenario.name),
        "flows": str(spec.flows),
        "balancers": str(spec.balancer_count),
        "workers": str(spec.workers),
        "seed": str(spec.seed),
        **provenance.of_machine(),
        **provenance.of_input(prepared.text, [manifest.object for manifest in prepared.manifests.objects]),
    }


def _described(phase: Phase, made: Made) -> dict[str, Any]:
    """A phase and its tables, for whoever reads the rows without the scenario at hand."""
    return {
        "event": phase.name,
        "at_ns": phase.at_ns,
        "compile_ns": made.compile_ns,
        "build_ns": made.build_ns,
        "slots": made.slots,
        "slots_changed": made.slots_changed,
        "frontends": made.frontends,
        "table_bytes": made.table_bytes,
    }


def _check_target(scenario: FlowScenario, file: str, snapshot: Snapshot) -> None:
    """Raises ScenarioError where flows have no Service to go to."""
    target, family = scenario.spec.target, scenario.spec.family
    named = f"FlowScenario {scenario.name}"
    if target is None:
        if all(_unreached(Service.of(obj), family) for obj in snapshot.all("Service")):
            reason = f"have no Service with a ClusterIP of {family.name} and a TCP or UDP port to go to: give one both"
            raise ScenarioError([Problem(file, 1, named, "spec.manifests", reason)])
        return
    name = f"{target.namespace}/{target.service}"
    obj = snapshot.rows("Service").get((target.namespace, target.service))
    if obj is None:
        names = ", ".join("/".join(each) for each in list(snapshot.rows("Service"))[:10])
        reason = f"there is no Service {name}; there are: {names or 'none'}"
        raise ScenarioError([Problem(file, 1, named, "spec.target.service", reason)])
    service = Service.of(obj)
    if why := _unreached(service, family):
        raise ScenarioError([Problem(file, 1, named, "spec.target.service", f"Service {name} {why}")])
    ports = [port.port for port in service.ports if port.protocol in PROTOCOLS]
    if target.port is not None and target.port not in ports:
        reason = f"Service {name} has no port {target.port}; there are: {ports}"
        raise ScenarioError([Problem(file, 1, named, "spec.target.port", reason)])


def _unreached(service: Service, family: Family) -> str:
    """Why no flow of a family can go to a Service, empty where one can."""
    if not any(map(family.number, service.cluster_ips)):
        there = ", ".join(service.cluster_ips) or "none"
        return f"has no ClusterIP of {family.name}, which flows of this scenario are of: give it one, it has {there}"
    return "" if any(port.protocol in PROTOCOLS for port in service.ports) else "has no TCP or UDP port to go to"


def _written(folder: Path, facts: Mapping[str, str]) -> Result:
    """All shards together: their rows with these facts, and what they say."""
    steering, backends = (
        rows.replace_schema_metadata({PREFIX + key: text for key, text in {**provenance_of(rows), **facts}.items()})
        for rows in shards.gathered(folder)
    )
    records.write(backends, folder / BACKENDS_FILE)
    records.write(steering, folder / FILE)  # last: where it is, a run is read without its shards
    summary = summarise(steering, backends)
    (folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n")
    return Result(folder, summary)
