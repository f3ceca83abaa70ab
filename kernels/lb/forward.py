"""Flows in, verdicts out: the page to read first.

    flow ─► frontend? ─► known flow? ─► pool for this client? ─► known client? ─► pick a backend ─► remember ─► verdict
             │ no          │ yes           │ not allowed           │ yes            │ none           NEW
             NO_FRONTEND   TRACKED         DROP                    AFFINITY         REJECT or DROP

Law: a batch in, caller-owned columns out; no allocation, no exception, no clock. Flows and Fib are of one family, IPv4
or, with the tables of ``layout_ipv6``, IPv6; how an address counts is in ``families`` and ``hashing``. A known flow
keeps its backend as long as that is the endpoint it was given, ready or draining; it is given another once the id is
gone or stands for another endpoint. A new flow is NEW also where the table has no room for it: it is served, and its
next batch picks again. Session affinity is kept per client address and Service port: the first flow of a client is NEW,
and those that are given what it was given are AFFINITY, and new flows all the same. Its time begins anew with each of
them, and it ends with the endpoint's readiness (kube-proxy's ``recent`` match,
https://kubernetes.io/docs/reference/networking/virtual-ips).
"""

import numpy as np

from kernels.jit import kernel, prefetch, prefetch_read
from kernels.layout import (
    AFFINITY,
    BACKEND,
    DROP,
    FRONTEND,
    GONE,
    INSIDE,
    MAGLEV,
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
from kernels.lb.frontends import build_index, find, home
from kernels.lb.hashing import endpoint_seed, flow_hash, frontend_hash, joined, mix64, reduce
from kernels.lb.select import at, is_member, pick, rendezvous

# Linux' nf_conntrack forgets an established TCP flow after five days; Cilium, which like us sees connections being
# opened only, after 2 h 13 min 20 s (its --bpf-ct-timeout-regular-tcp). A proxy that sees them close removes them.
IDLE_NS = 8_000_000_000_000

# So many flows at a time are hashed, then looked for, then decided.
BLOCK = 256
# So many flows before its turn, the memory is asked for where a flow is looked for, and answers while others are.
# Nearer and it comes too late, further and it is gone again.
AHEAD = 32

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
        places=np.zeros(BLOCK, np.uint64),
        late=np.zeros(BLOCK, np.uint16),
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
        look(fib, steering, some, given_to)
        i = np.int64(0)
        while i < some.proto.size:
            i = _go_on(fib, steering, given_to, i, now_ns)
            i = _spread(fib, steering, given_to, i)
            if i < some.proto.size:
                flow = (some.src_ip[i], some.dst_ip[i], some.src_port[i], some.dst_port[i], some.proto[i])
                outcome, backend = _decide(fib, steering, found(steering, given_to, i), flow, now_ns)
                given_to.outcome[i] = outcome
                given_to.backend[i] = backend
                steering.outcomes[outcome] += 1
                i += 1


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
def look(fib, steering, flows, verdicts):
    """Looks for the flows of a block: for their frontends, and in conntrack.

    Until a flow is decided, ``verdicts`` has its frontend, and for its backend the pool that the index names.
    """
    keys, places = steering.keys, steering.places
    size = min(flows.proto.size, keys.size, places.size)
    for i in range(size):  # by vector instructions, as is the next one
        keys[i] = flow_hash(flows.src_ip[i], flows.dst_ip[i], flows.src_port[i], flows.dst_port[i], flows.proto[i])
    for i in range(size):
        places[i] = frontend_hash(flows.dst_ip[i], flows.dst_port[i], flows.proto[i])
    for i in range(min(AHEAD, size)):
        _ask(fib, steering, i)
    for i in range(size):
        if i + AHEAD < size:
            _ask(fib, steering, i + AHEAD)
        row, pool = find(fib, places[i], flows.dst_ip[i])
        verdicts.frontend[i] = row
        verdicts.backend[i] = pool
    if steering.conntrack.entries.size > 0:
        _look_further(steering, size)


@kernel
def _ask(fib, steering, i):
    """Asks the memory for where a flow is looked for: in the index of frontends and in conntrack."""
    index, entries = fib.frontend_index, steering.conntrack.entries
    prefetch_read(index, home(index, steering.places[i]))
    if entries.size > 0:
        prefetch(entries, conntrack.home(entries, steering.keys[i]))


@kernel
def _look_further(steering, size):
    """Looks for the flows of a block in conntrack: in the bucket that each has, then in the next one."""
    entries, keys, places, late = steering.conntrack.entries, steering.keys, steering.places, steering.late
    left = np.int64(0)
    for i in range(min(size, late.size)):
        place = conntrack.among(entries, conntrack.home(entries, keys[i]), keys[i])
        places[i] = np.uint64(place)
        late[left] = i  # one of them too many, without a branch that nobody can foresee
        left += place < 0
    for i in range(left):
        prefetch(entries, conntrack.behind(entries, keys[late[i]]))
    for i in range(left):
        key = keys[late[i]]
        places[late[i]] = np.uint64(conntrack.among(entries, conntrack.behind(entries, key), key))


@kernel
def found(steering, verdicts, i):
    """What is known of flow ``i`` of a block: (row of its frontend, pool, hash, where it is expected in conntrack)."""
    return np.int64(verdicts.frontend[i]), np.int64(verdicts.backend[i]), steering.keys[i], steering.places[i]


@kernel
def _go_on(fib, steering, verdicts, first, now_ns):
    """Decides flows from ``first`` on for as long as conntrack has them where they were expected; the first one left.

    As ``_decide`` does, in a loop of its own, which has all it needs in registers.
    """
    entries = steering.conntrack.entries
    expires_ns = now_ns + steering.idle_ns[0]
    i = np.uint64(first)
    while i < np.uint64(verdicts.outcome.size):
        place = steering.places[i]
        if place >= np.uint64(entries.size) or entries[place]["key"] != steering.keys[i] or verdicts.frontend[i] == 0:
            break
        held = entries[place]["held"]
        if not conntrack.is_live(held, now_ns) or not is_there(fib.backends, held):
            break
        entries[place]["held"] = conntrack.until(held, expires_ns, now_ns)
        verdicts.outcome[i] = TRACKED
        verdicts.backend[i] = conntrack.backend_of(held)
        i += _1
    steering.outcomes[TRACKED] += np.int64(i) - first
    return np.int64(i)


@kernel
def _spread(fib, steering, verdicts, first):
    """The same for as long as nothing is remembered, and all clients of their frontends have one Maglev ring."""
    if steering.conntrack.entries.size > 0:
        return first
    i = np.uint64(first)
    while i < np.uint64(verdicts.outcome.size):
        pool = np.int64(verdicts.backend[i])
        if pool == 0 or pool >= fib.pools.size or fib.pools[pool]["algorithm"] != MAGLEV:
            break
        row = fib.pools[pool]
        backend = at(fib.rings, row["first_slot"], row["slots"], reduce(steering.keys[i], row["slots"]))
        if backend == 0 or backend >= fib.backends.size:
            break
        if backend < steering.active.size:
            steering.active[backend] += 1
        verdicts.outcome[i] = NEW
        verdicts.backend[i] = backend
        i += _1
    steering.outcomes[NEW] += np.int64(i) - first
    return np.int64(i)


@kernel
def _decide(fib, steering, found, flow, now_ns):
    """(outcome, backend) of a flow of which that was found."""
    row, of_all, key, _ = found
    outcome, backend, pool = without_pick(fib, steering, found, flow[0], now_ns)
    if outcome != NEW:
        return outcome, backend
    if of_all == 0 and fib.frontends[row]["affinity"] != 0:
        outcome, backend = _pick_again(fib, steering, row, pool, flow[0], now_ns)
    else:
        backend = pick(fib, steering, pool, flow, key, now_ns)
    return given(fib, steering, pool, key, (outcome, backend), now_ns)


@kernel
def without_pick(fib, steering, found, src_ip, now_ns):
    """(outcome, backend, 0) of a flow that needs no pick, else (NEW, 0, the pool to pick from)."""
    row, of_all, key, place = found
    if row == 0:
        return NO_FRONTEND, _NONE, np.int64(0)
    backend = _tracked(fib, steering, key, place, now_ns)
    if backend != 0:
        return TRACKED, backend, np.int64(0)
    if 0 < of_all < fib.pools.size:
        return NEW, _NONE, of_all
    outcome, pool = pool_for(fib, steering, row, src_ip)
    return outcome, _NONE, pool


@kernel
def _tracked(fib, steering, key, expected, now_ns):
    """The backend that a flow of hash ``key`` has and keeps, uint32; 0 for a flow that is new."""
    entries = steering.conntrack.entries
    place = conntrack.find_at(steering.conntrack, expected, key, now_ns)
    if place >= 0 and is_there(fib.backends, entries[place]["held"]):
        held = entries[place]["held"]
        entries[place]["held"] = conntrack.until(held, now_ns + steering.idle_ns[0], now_ns)
        return conntrack.backend_of(held)
    return _NONE


@kernel
def given(fib, steering, pool, key, choice, now_ns):
    """(outcome, backend) of a new flow of hash ``key`` that is given ``choice``, both too: counted and remembered."""
    outcome, backend = choice
    if backend == 0 or backend >= fib.backends.size:
        return fib.pools[pool]["otherwise"], _NONE
    if backend < steering.active.size:
        steering.active[backend] += 1
    if steering.conntrack.entries.size > 0:
        track = (now_ns + steering.idle_ns[0], backend, fingerprint(fib.backends[backend]))
        conntrack.insert(steering.conntrack, key, track, now_ns)
    return outcome, backend


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
    """(AFFINITY, what this client had last), else NEW and its first backend: by rendezvous, equal at every node."""
    frontend = fib.frontends[row]
    client = mix64(joined(src_ip, frontend["affinity"])) | _1
    entries = steering.affinity.entries
    place = conntrack.find(steering.affinity, client, now_ns)
    outcome, backend = NEW, _NONE
    if place >= 0:
        kept = conntrack.backend_of(entries[place]["held"])
        if is_there(fib.backends, entries[place]["held"]) and fib.backends[kept]["state"] == READY:
            outcome, backend = (AFFINITY, kept) if is_member(fib, pool, kept) else (NEW, _NONE)
    if backend == 0:
        backend = rendezvous(fib, pool, client)
    if backend != 0 and backend < fib.backends.size and entries.size > 0:
        expires_ns = now_ns + np.int64(frontend["affinity_s"]) * 1_000_000_000
        conntrack.insert(steering.affinity, client, (expires_ns, backend, fingerprint(fib.backends[backend])), now_ns)
    return outcome, backend


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
