"""A scenario of queues, from its file to its rows: connections that arrive, last, and wait.

Law: arrivals and durations follow from the seed and the load, or are those of a trace, so every algorithm has the same
connections, and equal scenarios have equal rows but for the column of times. Of those that are made, the first tenth
finds backends emptier than they will be: it is carried and not counted. An interrupted run is a run: what was finished
by then is written.
"""

import json
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field, InstanceOf
from rich.console import Console

from harness import provenance, records, units
from harness.flows.fleet import Fleet, made_up
from harness.flows.running import SUMMARY_FILE, Result
from harness.flows.scenario import Network
from harness.flows.shapes import LONGEST, Shape, shape_of
from harness.flows.steering import Batch
from harness.flows.timeline import population
from harness.flows.traces import Trace, read_trace
from harness.flows.waiting import NAMES, summarise
from harness.records import PREFIX
from harness.scenario import Duration, Metadata, ScenarioError, parse_as, text_of
from kernels import warm
from kernels.layout import ALGORITHMS, RANDOM, Fib, Flows
from kernels.lb.ewma import BY_POOL
from kernels.lb.ewma import NAMES as NAMES_BY_SPEED
from kernels.lb.forward import create_steering
from kernels.lb.population import generate
from kernels.lb.queueing import Arrivals, Waits, create_queues, queue
from plane import fib as fibs
from plane.errors import Problem
from plane.families import FAMILIES, Family
from plane.model import Snapshot
from plane.strict import Contradiction, Part, at, read_by

KIND = "QueueScenario"
VERSION = "queues/1"
FILE, ACTIVE_FILE = "waits.arrow", "active.arrow"
# Those that are named, and between them as many as a curve needs: four to each nine.
QUANTILES = tuple(sorted({*NAMES, *(round(1 - 10 ** (-each / 4), 9) for each in range(21))}))
SETTLING = 10  # one in so many is not counted
LOOKS = 100  # so often it is looked at who has how many
CONNECTIONS_AT_MOST = 10_000_000
LONGEST_NS = 100 * 365 * 24 * 3600 * units.NS_PER_S
CLIENTS: Mapping[str, Network] = {"IPv4": IPv4Network("100.64.0.0/10"), "IPv6": IPv6Network("2001:db8::/32")}
# How each algorithm picks: (one of the pool's, one of ``ewma``'s).
BY = {name: (place, BY_POOL) for place, name in enumerate(ALGORITHMS)} | {
    name: (RANDOM, by) for by, name in enumerate(NAMES_BY_SPEED) if by != BY_POOL
}


class Stream(NamedTuple):
    """Connections that come: how many of all places they keep busy, from which one on they are counted."""

    load: float
    flows: Flows
    arrivals: Arrivals
    first: int


def _load(value: Any) -> Fraction:
    found = units.share(value)
    if isinstance(found, int) or not Fraction(1, 100) <= found < 1:
        raise ValueError(f"{value!r} is no load: write a part of what backends can serve, from 1% to less than 100%")
    return found


def _algorithm(value: Any) -> str:
    if value in BY:
        return str(value)
    raise ValueError(f"{value!r} is no algorithm of the plane: choose from {', '.join(BY)}")


class Slow(Part):
    """So many of the endpoints take so many times as long as the others."""

    endpoints: Annotated[int, Field(ge=1, le=1_000)]
    times: Annotated[float, Field(gt=1, le=1_000)]


class QueueSpec(Part):
    """One Service of ``endpoints``, each of which serves ``places`` connections at once."""

    one_of: ClassVar = ("connections", "trace")
    _with_connections: ClassVar = ("lasts", "shape", "loads")
    connections: Annotated[int, Field(ge=1_000, le=CONNECTIONS_AT_MOST)] | None = None
    trace: str | None = None
    addresses: Literal["IPv4", "IPv6"] = "IPv4"
    endpoints: Annotated[int, Field(ge=1, le=1_000)]
    places: Annotated[int, Field(ge=1, le=1_000)] = 1
    slow: Slow | None = None
    lasts: Duration = 10_000_000
    shape: Annotated[InstanceOf[Shape], read_by(shape_of)] = Shape("exponential")
    loads: Annotated[list[Annotated[InstanceOf[Fraction], read_by(_load)]], Field(min_length=1)] | None = None
    algorithms: Annotated[list[Annotated[str, read_by(_algorithm)]], Field(min_length=1)]
    fade: Duration = 10 * units.NS_PER_S
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @property
    def family(self) -> Family:
        """What addresses connections have."""
        return FAMILIES[self.addresses]

    @property
    def able(self) -> float:
        """How many connections are served at once, counted by what an endpoint that is not slow gets done."""
        slow = self.slow.endpoints * (1 - 1 / self.slow.times) if self.slow else 0.0
        return self.places * (self.endpoints - slow)

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        if "trace" in given:
            for name in given.keys() & {*cls._with_connections}:
                yield (name,), "goes with connections; those of a trace come and last as it says"
        elif "loads" not in given:
            yield ("loads",), "is required with connections"
        slow, endpoints = at(given.get("slow"), "endpoints"), given.get("endpoints")
        if isinstance(slow, int) and isinstance(endpoints, int) and slow > endpoints:
            yield ("slow", "endpoints"), f"are {slow:,}, more than there are endpoints"
        for name in ("loads", "algorithms"):
            values = given.get(name)
            listed = values if isinstance(values, list) else []
            for place, value in enumerate(listed):
                if value in listed[:place]:
                    yield (name, place), f"{value!r} is there already"
        try:
            longest = units.duration(given.get("lasts", "10ms")) * int(given.get("connections", 0)) * 100
        except (TypeError, ValueError):
            return
        if longest > LONGEST_NS:
            yield ("lasts",), "makes a run of more than a hundred years: fewer connections, or shorter ones"


class QueueScenario(Part):
    """A file that ``plane bench run`` takes."""

    api_version: Literal["trafficplane.dev/v1alpha1"]
    kind: Literal["QueueScenario"]
    metadata: Metadata
    spec: QueueSpec

    @property
    def name(self) -> str:
        return self.metadata.name


def _column(name: str, kind: pa.DataType, unit: str, meaning: str) -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"unit": unit, "description": meaning})


_WHOSE = [
    _column("algorithm", pa.string(), "1", "how backends were picked"),
    _column("load", pa.float64(), "1", "part of all places that the connections keep busy"),
]
WAITS = pa.schema(
    [
        *_WHOSE,
        _column("connections", pa.int64(), "1", "connections that were counted"),
        _column("waiting", pa.int64(), "1", "of them, those that waited at all"),
        _column("waited_ns", pa.int64(), "ns", "mean of the time that connections waited for a place"),
        _column("quantile", pa.float64(), "1", "the part of connections that waited no longer than the next column"),
        _column("quantile_ns", pa.int64(), "ns", "time waited"),
        _column("quantile_all_ns", pa.int64(), "ns", "likewise, time waited and served"),
        _column("carried", pa.int64(), "1", "all connections, with those that were not counted"),
        _column("spent_ns", pa.int64(), "ns", "time that carrying all connections took"),
    ]
)
ACTIVE = pa.schema(
    [
        *_WHOSE,
        _column("at_ns", pa.int64(), "ns", "time since the first connection that was counted might have come"),
        _column("backend", pa.uint32(), "1", "id of the backend"),
        _column("active", pa.int32(), "1", "connections that it had then, waiting ones too"),
    ]
)


def read_scenario(file: Path) -> tuple[QueueScenario, str]:
    """The scenario in a file, and its text. Raises ScenarioError."""
    text = text_of(file)
    return parse_as(QueueScenario, text, str(file)), text


def read(folder: Path) -> tuple[pa.Table, pa.Table]:
    """The tables of a run. Raises OSError and pa.ArrowInvalid."""
    return records.read(folder / FILE), records.read(folder / ACTIVE_FILE)


def run(file: Path, out: Path, console: Console, stop: threading.Event) -> Result:
    """Carries all connections, and writes what became of them; what is said meanwhile goes to ``console``.

    Raises ScenarioError, and KeyboardInterrupt where nothing was finished before it was to stop.
    """
    scenario, text = read_scenario(file)

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    lasts_ns, streams = _streams(scenario, file, console)
    warm.warm(say)
    warm.once(
        f"queues-{scenario.spec.addresses}",
        lambda: carry(scenario.spec, "random", made(scenario.spec, Fraction(1, 2), 1_000)),
    )
    started, begin = datetime.now(UTC), time.monotonic()
    rows: list[tuple[pa.Table, pa.Table]] = []
    for stream, algorithm in ((stream, name) for stream in streams for name in scenario.spec.algorithms):
        if not stop.is_set():
            say(f"{time.monotonic() - begin:6.1f} s  {algorithm}, load {stream.load:.4g}")
            rows.append(carry(scenario.spec, algorithm, stream))
    if not rows:
        raise KeyboardInterrupt
    facts = {
        "schema": VERSION,
        "run": provenance.run_id(started),
        "started": started.isoformat(timespec="milliseconds"),
        "interrupted": str(stop.is_set()).lower(),
        "seconds": f"{time.monotonic() - begin:.3f}",
        "name": json.dumps(scenario.name),
        "lasts_ns": str(lasts_ns),
        "seed": str(scenario.spec.seed),
        **provenance.of_machine(),
        **provenance.of_input(text, []),
    }
    waits, active = (_whole([pair[side] for pair in rows], facts) for side in (0, 1))
    folder = out / scenario.name / facts["run"]
    folder.mkdir(parents=True)
    records.write(waits, folder / FILE)
    records.write(active, folder / ACTIVE_FILE)
    summary = summarise(waits, active)
    (folder / SUMMARY_FILE).write_text(json.dumps(summary, indent=2) + "\n")
    return Result(folder, summary)


def _streams(scenario: QueueScenario, file: Path, console: Console) -> tuple[int, Iterable[Stream]]:
    """How long connections last on average, in ns, and all that come. Raises ScenarioError."""
    spec = scenario.spec
    if spec.trace is None:
        return spec.lasts, (made(spec, load, spec.connections or 0) for load in spec.loads or ())
    trace = read_trace(file.parent / spec.trace, spec.family)
    for note in trace.notes:
        console.print(f"warning: {note}", markup=False, soft_wrap=True, style="yellow")
    stream = traced(scenario, str(file), trace)
    return round(stream.arrivals.lasts_ns.mean()), [stream]


def made(spec: QueueSpec, load: Fraction, count: int) -> Stream:
    """So many connections that keep the load busy, from clients that follow from the seed."""
    fib, row = _tables(spec, RANDOM)
    flows = Batch(count, spec.family.address).flows
    generate(fib, population(spec.seed, CLIENTS[spec.addresses], row), 0, flows)
    return Stream(float(load), flows, arrivals_of(spec, load, count), count // SETTLING)


def arrivals_of(spec: QueueSpec, load: Fraction, count: int) -> Arrivals:
    """The connections at a load: Poisson arrivals, durations as the scenario has them."""
    source = np.random.default_rng([spec.seed, load.numerator, load.denominator])
    between_ns = spec.lasts / (float(load) * spec.able)
    at = np.cumsum(source.exponential(between_ns, count))
    lasts = np.minimum(spec.shape.draw(source, count), LONGEST) * spec.lasts
    return Arrivals(at.astype(np.int64), lasts.astype(np.int64))


def traced(scenario: QueueScenario, file: str, trace: Trace) -> Stream:
    """The connections of a trace, in the order of time.

    Raises ScenarioError where it does not say when they come and how long they last.
    """
    arrival_ns, duration_ns = trace.arrival_ns, trace.duration_ns
    count = len(trace.flows.proto)
    reason = ""
    if arrival_ns is None or duration_ns is None:
        missing = [name for name in ("arrival_ns", "duration_ns") if getattr(trace, name) is None]
        reason = f"has no column {' and '.join(missing)}: when connections come and how long they last"
    elif not 1 <= count <= CONNECTIONS_AT_MOST:
        reason = f"has {count:,} flows; 1 to {CONNECTIONS_AT_MOST:,} can be carried"
    elif int(arrival_ns.max()) + int(duration_ns.max()) > LONGEST_NS:
        reason = "goes on for more than a hundred years: are arrival_ns and duration_ns in ns, from the first one on?"
    if reason or arrival_ns is None or duration_ns is None:
        raise ScenarioError([Problem(file, 1, f"QueueScenario {scenario.name}", "spec.trace", reason)])
    order = np.argsort(arrival_ns, kind="stable")
    at_ns, lasts_ns = arrival_ns[order] - arrival_ns.min(), duration_ns[order]
    load = float(lasts_ns.sum() / max(int(at_ns[-1]), 1) / scenario.spec.able)
    return Stream(load, Flows(*(column[order] for column in trace.flows)), Arrivals(at_ns, lasts_ns), 0)


def carry(spec: QueueSpec, algorithm: str, stream: Stream) -> tuple[pa.Table, pa.Table]:
    """The rows of these connections under ``WAITS`` and ``ACTIVE``."""
    of_pool, by_speed = BY[algorithm]
    fib, row = _tables(spec, of_pool)
    count = len(stream.flows.proto)
    waits = Waits(np.empty(count, np.uint32), np.empty(count, np.int64), np.empty(count, np.int64))
    queues = create_queues(len(fib.backends), spec.places, count, by=by_speed, fade_ns=spec.fade)
    if spec.slow:
        queues.pace[1 : 1 + spec.slow.endpoints] = spec.slow.times
    steering, pool = create_steering(fib, 0), int(fib.frontends[row[0]]["outside"])
    begin = time.perf_counter_ns()
    queue(fib, steering, pool, stream.flows, stream.arrivals, queues, waits)
    spent_ns = time.perf_counter_ns() - begin
    whose = {"algorithm": algorithm, "load": stream.load}
    return _waited(whose, stream, waits, spent_ns), _active(whose, stream, waits, len(fib.backends))


def _tables(spec: QueueSpec, algorithm: int) -> tuple[Fib, np.ndarray]:
    """The Fib of the Service, and the row of its frontend."""
    objects = made_up(1, spec.endpoints, 1, family=spec.family)
    fleet = Fleet(Snapshot().changed(objects), spec.seed, spec.family)
    fib = fibs.compile(fleet.snapshot, algorithm, spec.family)
    return fib, np.flatnonzero(fib.frontends["proto"]).astype(np.uint32)


def _waited(whose: Mapping[str, Any], stream: Stream, waits: Waits, spent_ns: int) -> pa.Table:
    waited, whole = waits.waited_ns[stream.first :], (waits.waited_ns + waits.served_ns)[stream.first :]
    columns = {
        **whose,
        "connections": len(waited),
        "waiting": np.count_nonzero(waited),
        "waited_ns": round(waited.mean()),
        "quantile": np.array(QUANTILES),
        "quantile_ns": np.quantile(waited, QUANTILES, method="inverted_cdf"),
        "quantile_all_ns": np.quantile(whole, QUANTILES, method="inverted_cdf"),
        "carried": len(waits.waited_ns),
        "spent_ns": spent_ns,
    }
    return _table(WAITS, columns, len(QUANTILES))


def _active(whose: Mapping[str, Any], stream: Stream, waits: Waits, backends: int) -> pa.Table:
    """Who had how many connections, at so many times after those that are not counted."""
    arrivals = stream.arrivals
    ends_ns = arrivals.at_ns + waits.waited_ns + waits.served_ns
    first_ns, last_ns = (int(arrivals.at_ns[place]) for place in (stream.first, -1))
    looks = np.linspace(first_ns, last_ns, LOOKS).astype(np.int64)
    came = np.searchsorted(arrivals.at_ns, looks, side="right")
    order = np.argsort(ends_ns, kind="stable")
    went = np.searchsorted(ends_ns[order], looks, side="right")
    counts = _counted(waits.backend, came, backends) - _counted(waits.backend[order], went, backends)
    columns = {
        **whose,
        "at_ns": np.repeat(looks - first_ns, backends - 1),
        "backend": np.tile(np.arange(1, backends), LOOKS),
        "active": counts[:, 1:].ravel(),
    }
    return _table(ACTIVE, columns, LOOKS * (backends - 1))


def _counted(ids: np.ndarray, until: np.ndarray, backends: int) -> np.ndarray:
    """int64[looks, backends]: how often each is among the first so many, for each of an ascending ``until``."""
    parts = np.split(ids, until)[:-1]
    return np.cumsum([np.bincount(part, minlength=backends) for part in parts], axis=0)


def _table(schema: pa.Schema, columns: Mapping[str, Any], rows: int) -> pa.Table:
    arrays = []
    for field in schema:
        value = columns[field.name]
        values = value if isinstance(value, np.ndarray) else [value] * rows
        arrays.append(pa.array(values).cast(field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _whole(tables: list[pa.Table], facts: Mapping[str, str]) -> pa.Table:
    return pa.concat_tables(tables).replace_schema_metadata({PREFIX + key: text for key, text in facts.items()})
