"""A balancer's flows through all phases: batch by batch, in memory that does not grow with their number.

Law: a balancer is one thread of steering with a conntrack of its own, as each node of a plane is, and what its flows
are follows from their numbers. So every balancer can be carried anywhere and in any order, and comes to the same. In a
phase all flows of a balancer send once, in the order of their numbers.
"""

import time
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from harness.flows.making import Tables
from harness.flows.shapes import Sizes
from harness.units import NS_PER_S
from kernels import warm
from kernels.layout import FATES_OF_FLOWS, OUTCOMES, Fib, Flows, Population, Steering, Verdicts
from kernels.layout_ipv6 import Population6
from kernels.lb import conntrack
from kernels.lb.consistent import forward as consistent
from kernels.lb.forward import create_steering, forward
from kernels.lb.population import count_off, follow, generate
from plane.families import IPV4

# Columns of so many flows stay in a core's own cache from one stage to the next.
BATCH = 1 << 15
STAGES = ("generate", "steer", "follow")


@dataclass(frozen=True)
class Course:
    """What flows of one algorithm go through.

    tables   of each phase
    at_ns    when each phase begins
    failed   how many balancers, the first ones, have forgotten everything by then
    population, trace  the flows are made, or they are these
    sizes    int64[flows]: bytes of each flow of the trace, or how many the made ones have; None where nobody says
    flows    all there are; ``share`` of them for each balancer but the last, which may have fewer
    tracked  how many flows a balancer has room to remember
    idle_ns  for how long
    address  what columns of addresses consist of
    """

    tables: tuple[Tables, ...]
    at_ns: tuple[int, ...]
    failed: tuple[int, ...]
    population: Population | Population6 | None
    trace: Flows | None
    sizes: np.ndarray | Sizes | None
    flows: int
    share: int
    tracked: int
    idle_ns: int
    address: np.dtype = IPV4.address


class Shard(NamedTuple):
    """Balancers ``first`` … ``last`` - 1, counted from 0."""

    first: int
    last: int


@dataclass
class Carried:
    """What became of the flows of a shard.

    outcomes  int64[balancers, phases, OUTCOMES]
    fates     int64[balancers, phases, FATES_OF_FLOWS]
    tracked   int64[balancers, phases, 2]: flows that the conntrack holds, and flows it had no room for in the phase
    spent_ns  int64[balancers, phases, STAGES]
    loads     for each phase int64[...]: flows by backend id, of all balancers together
    volumes   likewise, bytes of these flows
    """

    shard: Shard
    outcomes: np.ndarray
    fates: np.ndarray
    tracked: np.ndarray
    spent_ns: np.ndarray
    loads: list[np.ndarray] = field(default_factory=list)
    volumes: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def nothing(cls, shard: Shard, course: Course) -> "Carried":
        rows = shard.last - shard.first, len(course.tables)
        outcomes, fates, tracked, spent_ns = (
            np.zeros((*rows, columns), np.int64) for columns in (len(OUTCOMES), len(FATES_OF_FLOWS), 2, len(STAGES))
        )
        loads, volumes = ([np.zeros(len(each.fib.backends), np.int64) for each in course.tables] for _ in range(2))
        return cls(shard, outcomes, fates, tracked, spent_ns, loads, volumes)


class Batch:
    """Columns for so many flows, to be used again and again; ``address`` is what those of addresses consist of."""

    def __init__(self, size: int, address: np.dtype):
        kinds = (address, address, np.uint16, np.uint16, np.uint8)
        self.flows = Flows(*(np.empty(size, kind) for kind in kinds))
        self.verdicts = Verdicts(np.empty(size, np.uint8), np.empty(size, np.uint32), np.empty(size, np.uint32))

    def head(self, count: int) -> tuple[Flows, Verdicts]:
        """The first so many rows."""
        return Flows(*(column[:count] for column in self.flows)), Verdicts(
            *(column[:count] for column in self.verdicts)
        )


def ready(course: Course) -> None:
    """Has this process compile, or load, whatever the course needs, with one flow."""
    one = replace(course, flows=1, share=1, tracked=1)
    kind = f"{'flows' if course.tables[0].rival is None else 'rivals'}-{course.address.itemsize}"
    room = Batch(1, one.address), np.empty(1, np.uint32)
    warm.once(kind, lambda: _carry_one(one, 0, 0, *room, Carried.nothing(Shard(0, 1), one)))


def carry(course: Course, shard: Shard) -> Carried:
    """Carries the flows of these balancers through all phases."""
    ready(course)
    carried = Carried.nothing(shard, course)
    batch = Batch(min(BATCH, course.share), course.address)
    last = np.empty(course.share, np.uint32)  # for all balancers: pages that the process has cost no more
    for balancer in range(shard.first, shard.last):
        _carry_one(course, balancer, balancer - shard.first, batch, last, carried)
    return carried


class Worker:
    """What the runner makes an actor of: it is apart from it, so that such a process imports nothing of Ray's."""

    def load(self) -> None:
        """Loads what is compiled."""
        warm.warm(None, warm.LOAD_BALANCING)

    def take(self, course: Course | None) -> None:
        """What the next shards are of, None for nothing any more.

        Once for all of them, because each call that has an object among its arguments waits for the object store.
        """
        self._course = course

    def carry(self, shard: Shard) -> Carried:
        assert self._course is not None
        return carry(self._course, shard)


def _carry_one(course: Course, balancer: int, row: int, batch: Batch, last: np.ndarray, carried: Carried) -> None:
    """Into a row of ``carried``; ``batch`` and ``last`` are room, the latter for the share of a balancer."""
    first = balancer * course.share
    last = last[: course.flows - first]  # the backend of each flow in the phase before
    last.fill(0)
    steering = _remembering(course, course.tables[0].fib)
    for phase, tables in enumerate(course.tables):
        steering = _under(tables, steering)
        if balancer < course.failed[phase]:  # another takes its flows over, and knows none of them
            steering = _remembering(course, tables.fib)._replace(active=steering.active)
        refused = int(steering.conntrack.counts[conntrack.REFUSED])
        _phase(course, phase, first, last, steering, batch, carried, row)
        carried.outcomes[row, phase] = steering.outcomes
        counts = steering.conntrack.counts
        carried.tracked[row, phase] = counts[conntrack.HELD], counts[conntrack.REFUSED] - refused


def _phase(
    course: Course,
    phase: int,
    first: int,
    last: np.ndarray,
    steering: Steering,
    batch: Batch,
    carried: Carried,
    row: int,
) -> None:
    fib, rival, stays = course.tables[phase]
    now_ns = NS_PER_S + course.at_ns[phase]
    fates, loads, volumes = carried.fates[row, phase], carried.loads[phase], carried.volumes[phase]
    generate_ns = steer_ns = follow_ns = 0
    flows, verdicts = batch.head(min(BATCH, len(last)))
    for begin in range(0, len(last), BATCH):
        some = last[begin : begin + BATCH]
        if len(some) < len(flows.proto):
            flows, verdicts = batch.head(len(some))
        generating = time.perf_counter_ns()
        _fill(course, fib, first + begin, flows)
        generated = time.perf_counter_ns()
        if not course.tracked:  # every connection is opened anew
            count_off(stays, steering, some, verdicts, False)
        steering_begins = time.perf_counter_ns()
        if rival is None:
            forward(fib, steering, flows, now_ns, verdicts)
        else:
            consistent.forward(fib, rival, steering, flows, now_ns, verdicts)
        steered = time.perf_counter_ns()
        if course.tracked:  # those that conntrack did not know
            count_off(stays, steering, some, verdicts, True)
        follow(stays, verdicts, some, fates, loads)
        if course.sizes is not None:
            np.add.at(volumes, verdicts.backend, _bytes(course.sizes, first + begin, len(some)))
        generate_ns += generated - generating
        steer_ns += steered - steering_begins
        follow_ns += steering_begins - generated + time.perf_counter_ns() - steered
    carried.spent_ns[row, phase] = generate_ns, steer_ns, follow_ns


def _fill(course: Course, fib: Fib, first: int, flows: Flows) -> None:
    """Puts the flows of these numbers into the columns."""
    if course.trace is None:
        generate(fib, course.population, first, flows)
        return
    for column, given in zip(flows, course.trace, strict=True):
        column[:] = given[first : first + len(column)]


def _bytes(sizes: np.ndarray | Sizes, first: int, count: int) -> np.ndarray:
    return sizes.of(first, count) if isinstance(sizes, Sizes) else sizes[first : first + count]


def _remembering(course: Course, fib: Fib) -> Steering:
    """A balancer that has seen nothing yet."""
    steering = create_steering(fib, course.tracked)
    steering.idle_ns[0] = course.idle_ns
    return steering


def _under(tables: Tables, steering: Steering) -> Steering:
    """What a balancer remembers, as far as it means something under the next tables; turns go on in the same pools."""
    fib, stays = tables.fib, tables.stays
    active = np.zeros(len(fib.backends), np.int32)
    both = min(len(active), len(stays))
    active[:both] = np.where(stays[:both], steering.active[:both], 0)
    turns = steering.turns if len(steering.turns) == len(fib.pools) else np.zeros((len(fib.pools), 2), np.int64)
    return steering._replace(
        turns=turns,
        active=active,
        ready_ns=np.zeros(len(active), np.int64),
        outcomes=np.zeros(len(OUTCOMES), np.int64),
        marks=np.zeros(len(active), np.uint32),
    )
