"""The tables of one algorithm in all phases, one phase after the other, and what making them took.

Law: frontends are the same in all phases. Tables are compiled as a plane does it, from nothing for the first phase and
then what has changed; those of algorithms that are none of the plane's are made from nothing each time. Where an event
changes no endpoint, the tables are those of the phase before.
"""

import gc
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from harness.flows.scenario import FlowScenario, FlowSpec, Network, Target, rival_of
from harness.flows.timeline import Phase
from kernels.layout import ALGORITHMS, GONE, INSIDE, OUTSIDE, RANDOM, READY, SLOTS, Fib, Population, Rival, freeze
from kernels.layout_ipv6 import ADDRESS6, Population6
from kernels.lb.consistent.tables import Builder
from kernels.lb.population import key_of
from plane import fib as fibs
from plane.endpointindex import EndpointIndex
from plane.errors import PlaneError
from plane.families import Family, halves
from plane.frontends import PROTOCOLS, frontends_of_service, nodes_of
from plane.model import ALGORITHM_ANNOTATIONS, Object, Service, Snapshot

CONFIGURED = "configured"  # the algorithm of each Service is what it says itself


class Tables(NamedTuple):
    """What flows are steered by in one phase.

    rival    None: by the algorithms of the Fib's own pools
    stays    uint8[...], read-only: by backend id of the phase before, 1 where its endpoint is still there
    """

    fib: Fib
    rival: Rival | None
    stays: np.ndarray


@dataclass(frozen=True)
class Made:
    """What came of making the tables of one phase.

    compile_ns     the Fib; 0 where it is that of the phase before, here and below
    build_ns       the tables of an algorithm that is none of the plane's
    slots          of rings that flows may be steered by, changed ones since the phase before; 0 without rings
    members        ids of the backends that flows may be steered to
    frontends      how many there are
    table_bytes    of all tables
    """

    compile_ns: int
    build_ns: int
    slots: int
    slots_changed: int
    members: np.ndarray
    frontends: int
    table_bytes: int


@contextmanager
def without_collections() -> Iterator[None]:
    """Has the collector wait: of millions of objects that all stay, looking through them takes a third of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class Maker:
    """Makes the tables of all phases for one algorithm."""

    def __init__(self, scenario: FlowScenario, algorithm: str):
        self._target, self._family = scenario.spec.target, scenario.spec.family
        self._algorithm = algorithm
        rival = None if algorithm == CONFIGURED else rival_of(algorithm)
        self._builder = None if rival is None else Builder(*rival)
        self._default = ALGORITHMS.index(algorithm) if algorithm in ALGORITHMS else RANDOM
        self._compiler, self._index = fibs.Compiler(self._default, self._family), EndpointIndex()

    @without_collections()
    def make(self, found: Sequence[Phase]) -> tuple[list[Tables], list[Made]]:
        """Tables and what came of making them, one for each phase."""
        tables: list[Tables] = []
        made: list[Made] = []
        for number, phase in enumerate(found):
            if number and phase.snapshot is found[number - 1].snapshot:
                tables.append(tables[-1]._replace(stays=_staying(tables[-1].fib, tables[-1].fib)))
                made.append(replace(made[-1], compile_ns=0, build_ns=0, slots_changed=0))
                continue
            begin = time.perf_counter_ns()
            fib = self._compiled(phase.snapshot)
            compiled = time.perf_counter_ns()
            rival = None if self._builder is None else self._builder.build(fib)
            built = time.perf_counter_ns() - compiled if self._builder else 0
            before = tables[-1] if tables else Tables(fib, rival, _staying(fib, fib))
            if not _same_frontends(before.fib, fib):
                raise PlaneError(f"{phase.name}: the Services have other addresses than before")
            tables.append(Tables(fib, rival, _staying(before.fib, fib)))
            rows = frontends_of(fib, phase.snapshot, self._target, self._family)
            slots, changed = _slots(before, tables[-1], rows)
            sizes = int(np.count_nonzero(fib.frontends["proto"])), _bytes(fib) + (_bytes(rival) if rival else 0)
            made.append(Made(compiled - begin, built, slots, changed, _members(fib, rows), *sizes))
        return tables, made

    def _compiled(self, snapshot: Snapshot) -> Fib:
        if self._algorithm != CONFIGURED:
            snapshot = _unannotated(snapshot)
        if self._builder:  # it reads all rows of pools, and of a Fib that has changed some are nobody's
            return fibs.compile(snapshot, self._default, self._family)
        self._compiler.follow(snapshot, self._index, self._index.follow(snapshot))
        self._index.forget()
        return self._compiler.whole(snapshot.generation)


def population_of(spec: FlowSpec, fib: Fib, snapshot: Snapshot) -> Population | Population6:
    """The flows that are made. Raises PlaneError where they have nowhere to go."""
    rows = frontends_of(fib, snapshot, spec.target, spec.family)
    if not rows.size:
        raise PlaneError("no Service that is meant has an address and a TCP or UDP port that flows could go to")
    return population(spec.seed, spec.clients, rows)


def population(seed: int, network: Network, rows: np.ndarray) -> Population | Population6:
    """Flows from all addresses of a network to the frontends of these rows."""
    key, frontends = key_of(seed), freeze(rows)
    if network.version == 4:
        return Population(key, np.uint32(int(network.network_address)), np.uint64(network.num_addresses), frontends)
    first, own = (
        freeze(np.array([halves(int(each))], ADDRESS6)) for each in (network.network_address, network.hostmask)
    )
    return Population6(key, first, own, frontends)


def frontends_of(fib: Fib, snapshot: Snapshot, target: Target | None, family: Family) -> np.ndarray:
    """Rows of the frontends that flows go to, uint32[...]: all of them, or those of the target."""
    rows = np.flatnonzero(fib.frontends["proto"]).astype(np.uint32)
    if target is None:
        return rows
    obj = snapshot.get("Service", target.namespace, target.service)
    meant = frontends_of_service(0, Service.of(obj), (), nodes_of(snapshot), family) if obj else ()
    addresses = {
        (family.cell(family.number(each.ip)), each.port, PROTOCOLS[each.service_port.protocol])
        for each in meant
        if target.port in (None, each.port)
    }
    table = fib.frontends[rows]
    there = zip(*(table[name].tolist() for name in ("ip", "port", "proto")), strict=True)
    return rows[[address in addresses for address in there]]


def _unannotated(snapshot: Snapshot) -> Snapshot:
    """The same Services, none of which says by which algorithm."""

    def stripped(obj: Object) -> Object:
        metadata = obj["metadata"]
        annotations = metadata.get("annotations") or {}
        if not annotations.keys() & {*ALGORITHM_ANNOTATIONS}:
            return obj
        kept = {name: text for name, text in annotations.items() if name not in ALGORITHM_ANNOTATIONS}
        return {**obj, "metadata": {**metadata, "annotations": kept}}

    return snapshot.changed(map(stripped, snapshot.all("Service")))


def _same_frontends(one: Fib, other: Fib) -> bool:
    return all(np.array_equal(one.frontends[name], other.frontends[name]) for name in ("ip", "port", "proto"))


def _same_endpoints(before: Fib, after: Fib) -> np.ndarray:
    """bool[...] by backend id of ``before``: whether ``after`` has the same endpoint under it."""
    both = min(len(before.backends), len(after.backends))
    same = np.zeros(len(before.backends), bool)
    one, other = before.backends[:both], after.backends[:both]
    same[:both] = np.all([one[name] == other[name] for name in ("ip", "port", "proto")], axis=0)
    same[:both] &= other["state"] != GONE
    return same


def _staying(before: Fib, after: Fib) -> np.ndarray:
    return freeze(_same_endpoints(before, after).astype(np.uint8))


def _pools(fib: Fib, rows: Iterable[int]) -> list[int]:
    """The pools of these frontends, in order, each as often as it is used."""
    nodes = fibs.highest_node(fib.frontends, fib.sources)
    found: list[int] = []
    for row in rows:
        frontend = fib.frontends[row]
        for side, flag in (("inside", INSIDE), ("outside", OUTSIDE)):
            first = int(frontend[side])
            found += range(first, first + 1 + (nodes if frontend["by_node"] & flag else 0))
    return found


def _members(fib: Fib, rows: np.ndarray) -> np.ndarray:
    """Ids of the backends that the pools of these frontends have, ascending."""
    if len(rows) == np.count_nonzero(fib.frontends["proto"]):
        return np.flatnonzero(fib.backends["state"] == READY)
    runs = ((int(fib.pools[pool]["first_member"]), int(fib.pools[pool]["members"])) for pool in set(_pools(fib, rows)))
    return np.unique(np.concatenate([np.zeros(0, np.uint32), *(fib.members[first:][:count] for first, count in runs)]))


def _slots(before: Tables, after: Tables, rows: np.ndarray) -> tuple[int, int]:
    """Of the rings of these frontends: how many slots there are, and how many have another endpoint than before."""
    if not _rings(after)[0]["count"].any():
        return 0, 0
    pairs = dict.fromkeys(zip(_pools(before.fib, rows), _pools(after.fib, rows), strict=True))
    same = np.append(_same_endpoints(before.fib, after.fib), False)
    slots = changed = 0
    for one, other in pairs:
        was, now = _ring(before, one), _ring(after, other)
        slots += len(now)
        if len(was) != len(now):
            changed += len(now)
        elif was is not now:
            changed += int(np.count_nonzero((was != now) | ~same[np.minimum(was, len(same) - 1)]))
    return slots, changed


def _bytes(tables: Fib | Rival) -> int:
    return sum(table.nbytes for table in tables if isinstance(table, np.ndarray))


def _rings(tables: Tables) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Runs of slots by pool, ``first`` and ``count``, and what they are runs of."""
    fib, rival = tables.fib, tables.rival
    if rival is None:
        return {"first": fib.pools["first_slot"], "count": fib.pools["slots"]}, fib.rings
    counts = rival.runs["count"] if rival.algorithm == SLOTS else np.zeros_like(rival.runs["count"])
    return {"first": rival.runs["first"], "count": counts}, rival.owners


def _ring(tables: Tables, pool: int) -> np.ndarray:
    runs, owners = _rings(tables)
    return owners[int(runs["first"][pool]) :][: int(runs["count"][pool])]
