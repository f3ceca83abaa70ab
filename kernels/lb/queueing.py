"""Connections in time: who arrives when and for how long, whom a pool gives them to, and how long they wait there.

Law: a backend serves as many connections at once as it has places, the others in the order in which they came; nobody
gives up, and none is refused. How long a connection takes follows from itself and from the pace of who serves it. So
its beginning and end are known once it has a backend (Kiefer and Wolfowitz, "On the theory of queues with many
servers", 1955), and what is left to come is who ends next: a binary heap (Knuth, TAOCP 3, 5.2.3). At its end a
connection is counted off before any that arrives at that time, and those that wait are connections of their backend, as
they are to a plane that sees them open. Picks are ``select.pick``, those of live traffic, or go by how long connections
took of late (``ewma``); a Fib and its pool stay as they are meanwhile.
"""

from typing import NamedTuple

import numpy as np

from kernels.jit import kernel
from kernels.lb.ewma import BY_POOL, Speeds, create_speeds, faster_of_two, hear
from kernels.lb.hashing import flow_hash
from kernels.lb.select import pick


class Arrivals(NamedTuple):
    """When connections come and how long they are served, as columns of equal length, in the order of time."""

    at_ns: np.ndarray  # int64
    lasts_ns: np.ndarray  # int64, 0 or more, by a backend of pace 1


class Waits(NamedTuple):
    """What became of each connection; the caller owns the columns."""

    backend: np.ndarray  # uint32, 0: there was none
    waited_ns: np.ndarray  # int64
    served_ns: np.ndarray  # int64


class Queues(NamedTuple):
    """What is under way.

    free_ns   int64[backends, places]: from when on each place of a backend is free
    pace      float64[backends]: how many times as long as others it takes
    speeds    Speeds, which are kept where ``by`` says so
    ends_ns   int64[n]: when connections end that are not counted off yet, a heap; n is the most that there may be
    came_ns   int64[n]: when each came
    leaving   uint32[n]: the backend of each
    held      int64[1]: how many there are
    """

    free_ns: np.ndarray
    pace: np.ndarray
    speeds: Speeds
    ends_ns: np.ndarray
    came_ns: np.ndarray
    leaving: np.ndarray
    held: np.ndarray


def create_queues(
    backends: int, places: int, connections: int, *, by: int = BY_POOL, fade_ns: int = 10_000_000_000
) -> Queues:
    """Idle backends with ids below ``backends``, of ``places`` each, and room for so many connections at once.

    by, fade_ns  as for ``ewma.Speeds``

    Raises ValueError where a backend has no place.
    """
    if places < 1:
        raise ValueError(f"a backend serves at least one connection at a time, not {places}")
    return Queues(
        free_ns=np.zeros((backends, places), np.int64),
        pace=np.ones(backends),
        speeds=create_speeds(backends, by, fade_ns),
        ends_ns=np.zeros(connections, np.int64),
        came_ns=np.zeros(connections, np.int64),
        leaving=np.zeros(connections, np.uint32),
        held=np.zeros(1, np.int64),
    )


@kernel
def queue(fib, steering, pool, flows, arrivals, queues, waits):
    """Gives each connection of a batch a backend of a pool when it arrives, and notes how long it waits there.

    fib       Fib, read-only
    steering  Steering; its turns and ``active`` move on, its conntrack is not asked
    pool      row of ``fib.pools``
    flows     Flows of n, the connections
    arrivals  Arrivals of n, none before the last of the batch before
    queues    Queues, which move on; a connection that they have no room for has no backend
    waits     Waits of n, every row of which is written
    """
    for i in range(flows.proto.size):
        now_ns = arrivals.at_ns[i]
        _count_off(steering, queues, now_ns)
        flow = (flows.src_ip[i], flows.dst_ip[i], flows.src_port[i], flows.dst_port[i], flows.proto[i])
        key = flow_hash(flow[0], flow[1], flow[2], flow[3], flow[4])
        if queues.speeds.by[0] == BY_POOL:
            backend = pick(fib, steering, pool, flow, key, now_ns)
        else:
            backend = faster_of_two(fib, steering, pool, queues.speeds, key, now_ns)
        waits.backend[i] = 0
        waits.waited_ns[i] = 0
        waits.served_ns[i] = 0
        if backend == 0 or backend >= min(queues.free_ns.shape[0], steering.active.size):
            continue
        if queues.held[0] >= queues.ends_ns.size:
            continue
        lasts_ns = np.int64(np.float64(arrivals.lasts_ns[i]) * queues.pace[backend])
        begins_ns = _serve(queues.free_ns, backend, now_ns, lasts_ns)
        _enter(queues, begins_ns + lasts_ns, now_ns, backend)
        steering.active[backend] += 1
        waits.backend[i] = backend
        waits.waited_ns[i] = begins_ns - now_ns
        waits.served_ns[i] = lasts_ns


@kernel
def _serve(free_ns, backend, now_ns, lasts_ns):
    """When a connection that arrives now begins to be served: at the place that is free first, which it takes."""
    first = np.int64(0)
    for place in range(1, free_ns.shape[1]):
        if free_ns[backend, place] < free_ns[backend, first]:
            first = np.int64(place)
    begins_ns = max(now_ns, free_ns[backend, first])
    free_ns[backend, first] = begins_ns + lasts_ns
    return begins_ns


@kernel
def _count_off(steering, queues, now_ns):
    """Has the connections end that are over by now."""
    while queues.held[0] > 0 and queues.ends_ns[0] <= now_ns:
        backend, ends_ns = queues.leaving[0], queues.ends_ns[0]
        steering.active[backend] -= 1
        if queues.speeds.by[0] != BY_POOL:
            hear(queues.speeds, backend, ends_ns - queues.came_ns[0], ends_ns)
        _leave(queues)


@kernel
def _enter(queues, ends_ns, came_ns, backend):
    """Into the heap, which has room."""
    at = queues.held[0]
    queues.held[0] += 1
    while at > 0:
        above = (at - 1) // 2
        if queues.ends_ns[above] <= ends_ns:
            break
        _move(queues, above, at)
        at = above
    queues.ends_ns[at], queues.came_ns[at], queues.leaving[at] = ends_ns, came_ns, backend


@kernel
def _leave(queues):
    """The first one out of the heap, which is not empty."""
    queues.held[0] -= 1
    last = queues.held[0]
    ends_ns = queues.ends_ns[last]
    at = np.int64(0)
    while 2 * at + 1 < last:
        below = 2 * at + 1
        if below + 1 < last and queues.ends_ns[below + 1] < queues.ends_ns[below]:
            below += 1
        if ends_ns <= queues.ends_ns[below]:
            break
        _move(queues, below, at)
        at = below
    _move(queues, last, at)


@kernel
def _move(queues, one, other):
    """A row of the heap into the place of another."""
    queues.ends_ns[other] = queues.ends_ns[one]
    queues.came_ns[other] = queues.came_ns[one]
    queues.leaving[other] = queues.leaving[one]
