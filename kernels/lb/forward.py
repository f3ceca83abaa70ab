"""Flows in, verdicts out: the page to read first.

    flow ─► frontend? ─► known flow? ─► pool for this client? ─► affinity? ─► pick a backend ─► remember ─► verdict
             │ no          │ yes           │ not allowed           │ yes        │ none           NEW
             NO_FRONTEND   TRACKED         DROP                    NEW          REJECT or DROP

Law: a batch in, caller-owned columns out; no allocation, no exception, no clock. Flows and Fib are of one family, IPv4
or, with the tables of ``layout_ipv6``, IPv6; how an address counts is in ``families`` and ``hashing``. A known flow
keeps its backend as long as that is the endpoint it was given, ready or draining; it is given another once the id is
gone or stands for another endpoint. A new flow is NEW also where the table has no room for it: it is served, and its
next batch picks again. Session affinity is kept per client address and Service port; its time begins anew with each new
flow, and it ends with the endpoint's readiness (kube-proxy's ``recent`` match,
https://kubernetes.io/docs/reference/networking/virtual-ips).
"""

import numpy as np

from kernels.jit import kernel, prefetch, prefetch_read
from kernels.layout import (
    BACKEND,
    DROP,
    FRONTEND,
    GONE,
    INSIDE,
    NEW,
    NO_FRONTEND,
    OUTCOMES,
    OUTSIDE,
    POOL,
    RANGE,
    READY,
    TRACKED,
    Fib,
    Flows,
    Steering,
    Verdicts,
    freeze,
)
from kernels.lb import conntrack
from kernels.lb.families import not_above
from kernels.lb.frontends import build_index, find_from, home
from kernels.lb.hashing import endpoint_seed, flow_hash, joined, mix64
from kernels.lb.select import is_member, pick, rendezvous

# Linux' nf_conntrack forgets an established TCP flow after five days; Cilium, which like us sees connections being
# opened only, after 2 h 13 min 20 s (its --bpf-ct-timeout-regular-tcp). A proxy that sees them close removes them.
IDLE_NS = 8_000_000_000_000

# So many flows at a time are hashed before the first of them is decided.
BLOCK = 512
# So many flows before its turn, a flow's frontend is asked of the memory, which answers while others are decided, and
# twice as many before, where its frontend is, and its conntrack entry. Nearer and it comes too late, further and it is
# gone again.
AHEAD = 12

_NONE = np.uint32(0)
_1 = np.uint64(1)


def empty_fib() -> Fib:
    """A Fib of generation 0 that knows no frontend."""
    frontends = np.zeros(1, FRONTEND)
    nothing, nowhere = freeze(np.zeros(0, np.uint32)), freeze(np.zeros(0, RANGE))
    return Fib(
        generation=0,
        frontends=freeze(frontends),
        frontend_index=build_index(frontends),
        pools=freeze(np.zeros(1, POOL)),
        backends=freeze(np.zeros(1, BACKEND)),
        members=nothing,
        weights=freeze(np.zeros(0, np.uint16)),
        rings=nothing,
        sources=nowhere,
        ranges=nowhere,
    )


def create_steering(fib: Fib, capacity: int) -> Steering:
    """What a forwarding thread needs beside ``fib``; it tracks ``capacity`` flows, and with 0 remembers none."""
    return Steering(
        conntrack=conntrack.create(capacity),
        affinity=conntrack.create(capacity),
        turns=np.zeros((len(fib.pools), 2), np.int64),
        active=np.zeros(len(fib.backends), np.int32),
        ready_ns=np.zeros(len(fib.backends), np.int64),
        warm_ns=np.zeros(1, np.int64),
        outcomes=np.zeros(len(OUTCOMES), np.int64),
        idle_ns=np.full(1, IDLE_NS, np.int64),
        arrival=np.zeros(1, np.int64),
        keys=np.zeros(BLOCK, np.uint64),
    )


@kernel
def forward(fib, steering, flows, now_ns, verdicts):
    """Decide for each flow of a batch, in order; all of it happens at ``now_ns``.

    fib       Fib, read-only
    steering  Steering; its table, turns and counts move on
    flows     Flows of n
    verdicts  Verdicts of n, every row of which is written
    """
    for first in range(0, flows.proto.size, BLOCK):
        some, given_to = block(flows, verdicts, first)
        begin(fib, steering, some, given_to)
        for i in range(some.proto.size):
            ask(fib, steering, given_to, i)
            flow = (some.src_ip[i], some.dst_ip[i], some.src_port[i], some.dst_port[i], some.proto[i])
            row = find_from(fib, np.uint64(given_to.frontend[i]), flow[1], flow[3], flow[4])
            outcome, backend = _decide(fib, steering, row, flow, steering.keys[i], now_ns)
            given_to.outcome[i] = outcome
            given_to.frontend[i] = row
            given_to.backend[i] = backend
            steering.outcomes[outcome] += 1


@kernel
def block(flows, verdicts, first):
    """The rows of the block that begins at ``first``, of both."""
    last = min(first + BLOCK, flows.proto.size)
    return (
        Flows(
            flows.src_ip[first:last],
            flows.dst_ip[first:last],
            flows.src_port[first:last],
            flows.dst_port[first:last],
            flows.proto[first:last],
        ),
        Verdicts(verdicts.outcome[first:last], verdicts.frontend[first:last], verdicts.backend[first:last]),
    )


@kernel
def begin(fib, steering, flows, verdicts):
    """Hashes the flows of a block, by vector instructions, and asks the memory for what the first of them need.

    Until its turn, ``verdicts.frontend`` of a flow is the slot at which the search for its frontend begins.
    """
    keys, index = steering.keys, fib.frontend_index
    for i in range(min(flows.proto.size, keys.size)):
        keys[i] = flow_hash(flows.src_ip[i], flows.dst_ip[i], flows.src_port[i], flows.dst_port[i], flows.proto[i])
    for i in range(flows.proto.size):
        verdicts.frontend[i] = home(index, flows.dst_ip[i], flows.dst_port[i], flows.proto[i])
    for i in range(min(2 * AHEAD, flows.proto.size)):
        _ask_first(fib, steering, verdicts, i)
    for i in range(min(AHEAD, flows.proto.size)):
        _ask_next(fib, verdicts, i)


@kernel
def ask(fib, steering, verdicts, i):
    """Asks the memory for what flows of the block need that come after flow ``i``."""
    if i + 2 * AHEAD < verdicts.frontend.size:
        _ask_first(fib, steering, verdicts, i + 2 * AHEAD)
    if i + AHEAD < verdicts.frontend.size:
        _ask_next(fib, verdicts, i + AHEAD)


@kernel
def _ask_first(fib, steering, verdicts, i):
    """Asks the memory for where a flow is looked for: in the index of frontends and in conntrack."""
    entries = steering.conntrack.entries
    prefetch_read(fib.frontend_index, np.uint64(verdicts.frontend[i]))
    if entries.size > 0:
        prefetch(entries, conntrack.home(entries, steering.keys[i]))


@kernel
def _ask_next(fib, verdicts, i):
    """Asks the memory for the frontend of a flow of which the index is there."""
    row = np.uint64(fib.frontend_index[verdicts.frontend[i]])
    prefetch_read(fib.frontends, row)
    prefetch_read(fib.frontends, row + _1)  # where it ends


@kernel
def _decide(fib, steering, row, flow, key, now_ns):
    """(outcome, backend) of a flow of hash ``key`` whose frontend is ``row``, 0 for none."""
    outcome, backend, pool = without_pick(fib, steering, row, flow[0], key, now_ns)
    if outcome != NEW:
        return outcome, backend
    if fib.frontends[row]["affinity"] != 0:
        backend = _pick_again(fib, steering, row, pool, flow[0], now_ns)
    else:
        backend = pick(fib, steering, pool, flow, key, now_ns)
    return given(fib, steering, pool, key, backend, now_ns)


@kernel
def without_pick(fib, steering, row, src_ip, key, now_ns):
    """(outcome, backend, 0) of a flow of hash ``key`` that needs no pick, else (NEW, 0, the pool to pick from)."""
    if row == 0:
        return NO_FRONTEND, _NONE, np.int64(0)
    backend = tracked(fib, steering, key, now_ns)
    if backend != 0:
        return TRACKED, backend, np.int64(0)
    outcome, pool = pool_for(fib, steering, row, src_ip)
    return outcome, _NONE, pool


@kernel
def tracked(fib, steering, key, now_ns):
    """The backend that a flow of hash ``key`` has and keeps, uint32; 0 for a flow that is new."""
    entries = steering.conntrack.entries
    place = conntrack.find(steering.conntrack, key, now_ns)
    if place >= 0 and is_there(fib.backends, entries[place]["held"]):
        held = entries[place]["held"]
        entries[place]["held"] = conntrack.until(held, now_ns + steering.idle_ns[0], now_ns)
        return conntrack.backend_of(held)
    return _NONE


@kernel
def given(fib, steering, pool, key, backend, now_ns):
    """(outcome, backend) of a new flow of hash ``key`` that a pool has given ``backend``: counted and remembered."""
    if backend == 0 or backend >= fib.backends.size:
        return fib.pools[pool]["otherwise"], _NONE
    if backend < steering.active.size:
        steering.active[backend] += 1
    if steering.conntrack.entries.size > 0:
        track = (now_ns + steering.idle_ns[0], backend, fingerprint(fib.backends[backend]))
        conntrack.insert(steering.conntrack, key, track, now_ns)
    return NEW, backend


@kernel
def pool_for(fib, steering, row, src_ip):
    """(NEW, the row of ``fib.pools`` that a client of frontend ``row`` may use), or (DROP, 0) where it may not."""
    frontend = fib.frontends[row]
    pool = np.int64(frontend["inside"])
    if frontend["ranges"] != 0 and not _is_allowed(fib, frontend, src_ip):
        return DROP, np.int64(0)
    if frontend["by_node"] != 0 or frontend["inside"] != frontend["outside"]:
        node = node_of(fib.sources, src_ip)
        if node > 0:
            pool += node if frontend["by_node"] & INSIDE else 0
        else:
            arrival = np.int64(frontend["node"]) if frontend["node"] != 0 else steering.arrival[0]
            pool = np.int64(frontend["outside"]) + (arrival if frontend["by_node"] & OUTSIDE else 0)
    return (NEW, pool) if 0 <= pool < fib.pools.size else (DROP, np.int64(0))


@kernel
def node_of(sources, ip):
    """N of the node that an address is at, int64; 0 for one outside the cluster."""
    low, high = np.int64(0), np.int64(sources.size)
    while low < high:  # the first range that begins above the address
        middle = (low + high) // 2
        if not_above(sources[middle]["first"], ip):
            low = middle + 1
        else:
            high = middle
    if low > 0 and not_above(ip, sources[low - 1]["last"]):
        return np.int64(sources[low - 1]["node"])
    return np.int64(0)


@kernel
def _is_allowed(fib, frontend, src_ip):
    first = np.int64(frontend["first_range"])
    for i in range(first, min(first + np.int64(frontend["ranges"]), fib.ranges.size)):
        if not_above(fib.ranges[i]["first"], src_ip) and not_above(src_ip, fib.ranges[i]["last"]):
            return True
    return False


@kernel
def _pick_again(fib, steering, row, pool, src_ip, now_ns):
    """The backend that this client had last, else its first one: by rendezvous, so that every node gives the same."""
    frontend = fib.frontends[row]
    client = mix64(joined(src_ip, frontend["affinity"])) | _1
    entries = steering.affinity.entries
    place = conntrack.find(steering.affinity, client, now_ns)
    backend = _NONE
    if place >= 0:
        kept = conntrack.backend_of(entries[place]["held"])
        if is_there(fib.backends, entries[place]["held"]) and fib.backends[kept]["state"] == READY:
            backend = kept if is_member(fib, pool, kept) else _NONE
    if backend == 0:
        backend = rendezvous(fib, pool, client)
    if backend != 0 and backend < fib.backends.size and entries.size > 0:
        expires_ns = now_ns + np.int64(frontend["affinity_s"]) * 1_000_000_000
        conntrack.insert(steering.affinity, client, (expires_ns, backend, fingerprint(fib.backends[backend])), now_ns)
    return backend


@kernel
def is_there(backends, held):
    """Whether the backend id that a conntrack entry has still stands for its endpoint, ready or draining."""
    backend = conntrack.backend_of(held)
    if backend >= backends.size:
        return False
    return backends[backend]["state"] != GONE and conntrack.is_of(held, fingerprint(backends[backend]))


@kernel
def fingerprint(backend):
    """32 bits that tell an endpoint from another one that was given its id later."""
    return np.uint32(endpoint_seed(backend["ip"], backend["port"], backend["proto"]) & np.uint64(0xFFFFFFFF))
