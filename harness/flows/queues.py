"""A scenario of queues, from its file to its rows: connections that arrive, last, and wait.

Law: arrivals and durations follow from the seed and the load, or are those of a trace, so every algorithm has the same
connections, and equal scenarios have equal rows but for the column of times. Of those that are made, the first tenth
finds backends emptier than they will be: it is carried and not counted. An interrupted run is a run: what was finished
by then is written.
"""

import json
import threading
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from rich.console import Console

from harness import provenance, records
from harness.flows.fleet import Fleet, made_up
from harness.flows.making import population
from harness.flows.queuescenario import BY, CONNECTIONS_AT_MOST, LONGEST_NS, QueueScenario, QueueSpec, read_scenario
from harness.flows.running import SUMMARY_FILE, Result
from harness.flows.scenario import Network
from harness.flows.shapes import LONGEST
from harness.flows.steering import Batch
from harness.flows.traces import Trace, read_trace
from harness.flows.waiting import NAMES, summarise
from harness.records import PREFIX, column
from harness.scenario import ScenarioError
from kernels import warm
from kernels.layout import RANDOM, Fib, Flows
from kernels.lb.forward import create_steering
from kernels.lb.population import generate
from kernels.lb.queueing import Arrivals, Waits, create_queues, queue
from plane import fib as fibs
from plane.errors import Problem
from plane.model import Snapshot

VERSION = "queues/1"
FILE, ACTIVE_FILE = "waits.arrow", "active.arrow"
# Those that are named, and between them as many as a curve needs: four to each nine.
QUANTILES = tuple(sorted({*NAMES, *(round(1 - 10 ** (-each / 4), 9) for each in range(21))}))
SETTLING = 10  # one in so many is not counted
LOOKS = 100  # so often it is looked at who has how many
CLIENTS: Mapping[str, Network] = {"IPv4": IPv4Network("100.64.0.0/10"), "IPv6": IPv6Network("2001:db8::/32")}


class Stream(NamedTuple):
    """Connections that come: how many of all places they keep busy, from which one on they are counted."""

    load: float
    flows: Flows
    arrivals: Arrivals
    first: int


_WHOSE = [
    column("algorithm", pa.string(), "1", "how backends were picked"),
    column("load", pa.float64(), "1", "part of all places that the connections keep busy"),
]
WAITS = pa.schema(
    [
        *_WHOSE,
        column("connections", pa.int64(), "1", "connections that were counted"),
        column("waiting", pa.int64(), "1", "of them, those that waited at all"),
        column("waited_ns", pa.int64(), "ns", "mean of the time that connections waited for a place"),
        column("quantile", pa.float64(), "1", "the part of connections that waited no longer than the next column"),
        column("quantile_ns", pa.int64(), "ns", "time waited"),
        column("quantile_all_ns", pa.int64(), "ns", "likewise, time waited and served"),
        column("carried", pa.int64(), "1", "all connections, with those that were not counted"),
        column("spent_ns", pa.int64(), "ns", "time that carrying all connections took"),
    ]
)
ACTIVE = pa.schema(
    [
        *_WHOSE,
        column("at_ns", pa.int64(), "ns", "time since the first connection that was counted might have come"),
        column("backend", pa.uint32(), "1", "id of the backend"),
        column("active", pa.int32(), "1", "connections that it had then, waiting ones too"),
    ]
)


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
    warm.warm(say, warm.LOAD_BALANCING)
    warm.once(
        f"queues-{scenario.spec.addresses}",
        lambda: carry(scenario.spec, "random", made(scenario.spec, Fraction(1, 2), 1_000)),
    )
    started, begin = datetime.now(UTC), time.monotonic()
    rows: list[tuple[pa.Table, pa.Table]] = []
    try:
        for stream, algorithm in ((stream, name) for stream in streams for name in scenario.spec.algorithms):
            if stop.is_set():
                break
            say(f"{time.monotonic() - begin:6.1f} s  {algorithm}, load {stream.load:.4g}")
            rows.append(carry(scenario.spec, algorithm, stream))
    except KeyboardInterrupt:
        stop.set()
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
