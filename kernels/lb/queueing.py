"""Connections in time: who arrives when and for how long, whom a pool gives them to, and how long they wait there.

Law: a backend serves as many connections at once as it has places, the others in the order in which they came; nobody
gives up, and none is refused. How long a connection takes does not depend on who serves it. So its beginning and end
are known once it has a backend (Kiefer and Wolfowitz, "On the theory of queues with many servers", 1955), and what is
left to come is who ends next: a binary heap (Knuth, TAOCP 3, 5.2.3). At its end a connection is counted off before any
that arrives at that time, and those that wait are connections of their backend, as they are to a plane that sees them
open. Picks are ``select.pick``, those of live traffic; a Fib and its pool stay as they are meanwhile.
"""

from typing import NamedTuple

import numpy as np

from kernels.jit import kernel
from kernels.lb.hashing import flow_hash
from kernels.lb.select import pick


class Arrivals(NamedTuple):
    """When connections come and how long they are served, as columns of equal length, in the order of time."""

    at_ns: np.ndarray  # int64
    lasts_ns: np.ndarray  # int64, 0 or more


class Waits(NamedTuple):
    """What became of each connection; the caller owns the columns."""

    backend: np.ndarray  # uint32, 0: there was none
    waited_ns: np.ndarray  # int64


class Queues(NamedTuple):
    """What is under way.

    free_ns   int64[backends, places]: from when on each place of a backend is free
    ends_ns   int64[n]: when connections end that are not counted off yet, a heap; n is the most that there may be
    leaving   uint32[n]: the backend of each
    held      int64[1]: how many there are
    """

    free_ns: np.ndarray
    ends_ns: np.ndarray
    leaving: np.ndarray
    held: np.ndarray


def create_queues(backends: int, places: int, connections: int) -> Queues:
    """Idle backends with ids below ``backends``, of ``places`` each, and room for so many connections at once.

    Raises ValueError where a backend has no place.
    """
    if places < 1:
        raise ValueError(f"a backend serves at least one connection at a time, not {places}")
    return Queues(
        free_ns=np.zeros((backends, places), np.int64),
        ends_ns=np.zeros(connections, np.int64),
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
        backend = pick(fib, steering, pool, flow, flow_hash(flow[0], flow[1], flow[2], flow[3], flow[4]), now_ns)
        waits.backend[i] = 0
        waits.waited_ns[i] = 0
        if backend == 0 or backend >= min(queues.free_ns.shape[0], steering.active.size):
            continue
        if queues.held[0] >= queues.ends_ns.size:
            continue
        begins_ns = _serve(queues.free_ns, backend, now_ns, arrivals.lasts_ns[i])
        _enter(queues, begins_ns + arrivals.lasts_ns[i], backend)
        steering.active[backend] += 1
        waits.backend[i] = backend
        waits.waited_ns[i] = begins_ns - now_ns


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
        steering.active[queues.leaving[0]] -= 1
        _leave(queues)


@kernel
def _enter(queues, ends_ns, backend):
    """Into the heap, which has room."""
    at = queues.held[0]
    queues.held[0] += 1
    while at > 0:
        above = (at - 1) // 2
        if queues.ends_ns[above] <= ends_ns:
            break
        queues.ends_ns[at], queues.leaving[at] = queues.ends_ns[above], queues.leaving[above]
        at = above
    queues.ends_ns[at], queues.leaving[at] = ends_ns, backend


@kernel
def _leave(queues):
    """The first one out of the heap, which is not empty."""
    queues.held[0] -= 1
    last = queues.held[0]
    ends_ns, backend = queues.ends_ns[last], queues.leaving[last]
    at = np.int64(0)
    while 2 * at + 1 < last:
        below = 2 * at + 1
        if below + 1 < last and queues.ends_ns[below + 1] < queues.ends_ns[below]:
            below += 1
        if ends_ns <= queues.ends_ns[below]:
            break
        queues.ends_ns[at], queues.leaving[at] = queues.ends_ns[below], queues.leaving[below]
        at = below
    queues.ends_ns[at], queues.leaving[at] = ends_ns, backend
