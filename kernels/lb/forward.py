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

from kernels.jit import inner, kernel, prefetch, prefetch_far, vectorised
from kernels.layout import (
    AFFINITY,
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
    Steering,
    freeze,
)
from kernels.lb import conntrack
from kernels.lb.families import not_above
from kernels.lb.frontends import build_index, find, home
from kernels.lb.hashing import endpoint_seed, flow_hash, frontend_hash, joined, mix64, reduce
from kernels.lb.select import is_member, pick, rendezvous

# Linux' nf_conntrack forgets an established TCP flow after five days; Cilium, which like us sees connections being
# opened only, after 2 h 13 min 20 s (its --bpf-ct-timeout-regular-tcp). A proxy that sees them close removes them.
IDLE_NS = 8_000_000_000_000

# So many flows at a time are hashed, then looked for, then decided: a power of two. The memory is asked for what a
# block needs while the one before is looked for and decided. With fewer it would answer too late; what two blocks of
# many more need is too much for a core's first cache.
BLOCK = 128
# In so many buckets behind their own flows are looked for together; one in three hundred is further on.
FURTHER = 4
# For a batch of so many flows an endpoint, the endpoints' marks are made first.
WORTH_MARKS = 4

_NONE = np.uint32(0)
_0, _1, _32, _LOW = np.uint64(0), np.uint64(1), np.uint64(32), np.uint64(0xFFFFFFFF)
_BLOCK, _TWO_BLOCKS = np.uint64(BLOCK), np.uint64(2 * BLOCK)
_ROWS_OF_LINE = np.uint64(16)
_NO_MARK, _NOWHERE = np.uint32(1 << 16), np.uint64(0xFFFFFFFFFFFFFFFF)


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
        ring_of=freeze(np.zeros(1, np.uint64)),
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
        keys=np.zeros(2 * BLOCK, np.uint64),
        places=np.zeros(2 * BLOCK, np.uint64),
        buckets=np.zeros(2 * BLOCK, np.uint64),
        late=np.zeros(BLOCK + 1, np.uint16),
        marks=np.zeros(len(fib.backends), np.uint32),
    )


@kernel
def forward(fib, steering, flows, now_ns, verdicts):
    """Decide for each flow of a batch, in order; all of it happens at ``now_ns``.

    fib       Fib, read-only
    steering  Steering; its table, turns and counts move on
    flows     Flows of n
    verdicts  Verdicts of n, every row of which is written
    """
    marked = _mark(fib, steering, flows.proto.size)
    for first in range(-BLOCK, flows.proto.size, BLOCK):
        last = look(fib, steering, flows, verdicts, first)
        i = np.int64(max(first, 0))
        if steering.conntrack.entries.size == 0:
            _look_in_rings(fib, steering, verdicts, i, last)
        while i < last:
            i = _go_on(fib, steering, verdicts, (i, last, marked), now_ns)
            i = _spread(fib, steering, verdicts, i, last)
            if i < last:
                flow = (flows.src_ip[i], flows.dst_ip[i], flows.src_port[i], flows.dst_port[i], flows.proto[i])
                outcome, backend = _decide(fib, steering, found(steering, verdicts, i), flow, now_ns)
                write(steering, verdicts, i, outcome, backend)
                i += 1


@kernel
def forward_singly(fib, steering, flows, now_ns, verdicts):
    """``forward`` one flow after the other, without what is done for those to come: for few, as a relay has them."""
    for i in range(flows.proto.size):
        flow = (flows.src_ip[i], flows.dst_ip[i], flows.src_port[i], flows.dst_port[i], flows.proto[i])
        row, pool = find(fib, frontend_hash(flow[1], flow[3], flow[4]), flow[1])
        known = np.int64(row), np.int64(pool), flow_hash(flow[0], flow[1], flow[2], flow[3], flow[4])
        outcome, backend = _decide(fib, steering, known, flow, now_ns)
        verdicts.frontend[i] = row
        write(steering, verdicts, i, outcome, backend)


@kernel
def _mark(fib, steering, flows):
    """Makes the marks of endpoints, where that is little beside so many flows; whether it has.

    ``is_there`` makes the fingerprint of an endpoint for each flow, which is a quarter of what a known one takes.
    """
    marks, backends = steering.marks, fib.backends
    is_little = WORTH_MARKS * backends.size <= flows and backends.size <= marks.size
    if steering.conntrack.entries.size == 0 or not is_little:
        return False
    for i in range(backends.size):
        mark = conntrack.endpoint_of(conntrack.holding(_NONE, fingerprint(backends[i])))
        marks[i] = mark if backends[i]["state"] != GONE else _NO_MARK
    return True


@kernel
def look(fib, steering, flows, verdicts, first):
    """Looks for the flows of the block from row ``first`` on, for their frontends and in conntrack; the row behind it.

    Until a flow is decided, ``verdicts`` has its frontend, and for its backend the pool that the index names. The next
    block is hashed here too, and the memory asked for what it needs; so there is one before the first, without flows.
    """
    index, places = fib.frontend_index, steering.places
    upcoming = _hash(steering, flows, first + BLOCK)
    _ask_for_rows(flows, verdicts, first + 2 * BLOCK)
    if first < 0:
        _ask_at_once(fib, steering, upcoming)
        return np.int64(0)
    size, row, half = np.uint64(min(BLOCK, flows.proto.size - first)), np.uint64(first), _half(first)
    left = _look_at_home(steering, half, size)
    for j in range(size):
        prefetch(index, home(index, places[(half ^ _BLOCK) + j]))
        i = row + j
        verdicts.frontend[i], verdicts.backend[i] = find(fib, places[half + j], flows.dst_ip[i])
    _look_further(steering, left)
    return np.int64(row + size)


@kernel
def _ask_for_rows(flows, verdicts, first):
    """Asks the memory for the columns of a block, those of 32 bits line by line; what is not there does no harm.

    To the second cache: the first can wait for few lines at once, and those of the index and of conntrack are urgent.
    """
    for i in range(np.uint64(first), np.uint64(first + BLOCK), _ROWS_OF_LINE):
        prefetch_far(flows.src_ip, i)
        prefetch_far(flows.dst_ip, i)
        prefetch_far(flows.src_port, i)
        prefetch_far(flows.dst_port, i)
        prefetch_far(flows.proto, i)
        prefetch_far(verdicts.outcome, i)
        prefetch_far(verdicts.frontend, i)
        prefetch_far(verdicts.backend, i)


@kernel
def _ask_at_once(fib, steering, size):
    """Asks the memory for all that the first block needs."""
    index, entries = fib.frontend_index, steering.conntrack.entries
    for j in range(size):
        prefetch(index, home(index, steering.places[j]))
    if entries.size > 0:
        for j in range(size):
            prefetch(entries, steering.buckets[j])


@kernel
def _half(first):
    """Which half of the room for two blocks a block has, uint64: where it begins."""
    return np.uint64(first) & _BLOCK


@kernel
def _room(row):
    """The place of a row in the room for two blocks, uint64."""
    return row & (_TWO_BLOCKS - _1)


@vectorised
def _hash(steering, flows, first):
    """Hashes the flows of a block, by vector instructions; how many these are, uint64."""
    keys, places, buckets, entries = steering.keys, steering.places, steering.buckets, steering.conntrack.entries
    size, row, half = np.uint64(max(min(BLOCK, flows.proto.size - first), 0)), np.uint64(first), _half(first)
    for j in range(size):
        i = row + j
        key = flow_hash(flows.src_ip[i], flows.dst_ip[i], flows.src_port[i], flows.dst_port[i], flows.proto[i])
        keys[half + j] = key
        places[half + j] = frontend_hash(flows.dst_ip[i], flows.dst_port[i], flows.proto[i])
    if entries.size > 0:
        for j in range(size):
            buckets[half + j] = conntrack.home(entries, keys[half + j])
    return size


@kernel
def _look_at_home(steering, half, size):
    """Lists in ``late`` the flows of a block that are not in their own bucket of conntrack; how many, uint64.

    They are looked for in the next bucket, those that are not there either in the one behind it, and so on: all of them
    together, so that the memory is asked for all of them at once. It answers while frontends are looked for. Of a flow
    that is found, ``buckets`` has the entry.
    """
    keys, buckets, late, entries = steering.keys, steering.buckets, steering.late, steering.conntrack.entries
    left = np.uint64(0)
    if entries.size > 0:
        for j in range(half, half + size):
            late[left] = j  # one of them too many, without a branch that nobody can foresee
            left += _look_in(entries, buckets, keys, j)
    return _next_bucket(steering, left)


@kernel
def _look_in(entries, buckets, keys, j):
    """Puts the entry of a flow in place of its bucket's first one; 1 where it is not in that bucket, else 0, uint64."""
    offset, is_not_in = conntrack.offset_in(entries, buckets[j], keys[j])
    buckets[j] += offset
    return is_not_in


@kernel
def _look_further(steering, left):
    """Looks for those that are late in the buckets that they have by now, and in a few more."""
    keys, buckets, late, entries = steering.keys, steering.buckets, steering.late, steering.conntrack.entries
    for _ in range(FURTHER):
        looked_for, left = left, np.uint64(0)
        for k in range(looked_for):
            j = np.uint64(late[k])
            late[left] = j
            left += _look_in(entries, buckets, keys, j)
        left = _next_bucket(steering, left)


@kernel
def _next_bucket(steering, looked_for):
    """Has the first of ``late`` looked for in the next bucket, but for those whose search ends; how many, uint64."""
    buckets, late, entries = steering.buckets, steering.late, steering.conntrack.entries
    left = np.uint64(0)
    for k in range(looked_for):
        j = np.uint64(late[k])
        late[left] = j
        left += conntrack.is_full(entries, buckets[j])
    for k in range(left):
        j = np.uint64(late[k])
        buckets[j] = conntrack.following(entries, buckets[j])
        prefetch(entries, buckets[j])
    return left


@kernel
def found(steering, verdicts, i):
    """What is known of the flow in row ``i``: (row of its frontend, pool, hash)."""
    return np.int64(verdicts.frontend[i]), np.int64(verdicts.backend[i]), steering.keys[_room(np.uint64(i))]


@kernel
def write(steering, verdicts, i, outcome, backend):
    """Writes and counts what became of the flow in row ``i``."""
    verdicts.outcome[i] = outcome
    verdicts.backend[i] = backend
    steering.outcomes[outcome] += 1


@kernel
def _go_on(fib, steering, verdicts, rows, now_ns):
    """Decides flows for as long as conntrack has them where they were found; the first one left.

    As ``_decide`` does, in a loop of its own, and that has those which an earlier flow of the block moved or inserted.
    ``rows`` are the flow it begins with, the one behind the last, and whether endpoints have marks.
    """
    begun, last, marked = rows
    entries = steering.conntrack.entries
    if entries.size == 0:
        return begun
    expires_ns = now_ns + steering.idle_ns[0]
    i, end = np.uint64(begun), np.uint64(last)
    while i < end:
        j = _room(i)
        prefetch_far(entries, steering.buckets[j ^ _BLOCK])  # of the next block
        place = steering.buckets[j]
        if entries[place]["key"] != steering.keys[j] or verdicts.frontend[i] == 0:
            break
        held = entries[place]["held"]
        if not conntrack.is_live(held, now_ns) or not _is_as_marked(fib, steering, held, marked):
            break
        again = conntrack.until(held, expires_ns, now_ns)
        if again != held:  # what has not changed is not written, so that its line need not go back to the memory
            entries[place]["held"] = again
        verdicts.outcome[i] = TRACKED
        verdicts.backend[i] = conntrack.backend_of(held)
        i += _1
    steering.outcomes[TRACKED] += np.int64(i) - begun
    return np.int64(i)


@kernel
def _is_as_marked(fib, steering, held, marked):
    """``is_there``, by the marks if there are any."""
    if not marked:
        return is_there(fib.backends, held)
    backend = conntrack.backend_of(held)
    return backend < fib.backends.size and steering.marks[backend] == conntrack.endpoint_of(held)


@kernel
def _look_in_rings(fib, steering, verdicts, begun, last):
    """Puts in ``places`` where in ``rings`` the flows of a block, all of it, fall to, and asks the memory for that.

    ``_NOWHERE`` stands for those that are picked otherwise.
    """
    first, size = np.uint64(begun), np.uint64(last - begun)
    _find_in_rings(fib, steering, verdicts, first, size)
    for j in range(_room(first), _room(first) + size):
        prefetch(fib.rings, steering.places[j])


@vectorised
def _find_in_rings(fib, steering, verdicts, first, size):
    ring_of, keys, places, room = fib.ring_of, steering.keys, steering.places, _room(first)
    for j in range(size):
        pool = np.uint64(verdicts.backend[first + j])
        ring = ring_of[pool] if pool < np.uint64(ring_of.size) else _0
        slots = ring & _LOW
        place = (ring >> _32) + np.uint64(reduce(keys[room + j], slots))
        places[room + j] = place if slots != _0 else _NOWHERE


@kernel
def _spread(fib, steering, verdicts, begun, last):
    """As ``_go_on``, for as long as nothing is remembered and ``_look_in_rings`` found where flows fall to."""
    rings, active, chosen = fib.rings, steering.active, verdicts.backend
    if steering.conntrack.entries.size > 0 or not 0 < fib.backends.size <= active.size:
        return begun
    i, end = np.uint64(begun), np.uint64(last)
    while i < end:
        place = steering.places[_room(i)]
        if place >= np.uint64(rings.size):
            break
        backend = np.uint64(rings[place])
        if backend - _1 >= np.uint64(fib.backends.size) - _1:  # 0 is none, and one less is the largest there is
            break
        active[backend] += 1
        chosen[i] = backend
        i += _1
    for decided in range(np.uint64(begun), i):
        verdicts.outcome[decided] = NEW
    steering.outcomes[NEW] += np.int64(i) - begun
    return np.int64(i)


@kernel
def _decide(fib, steering, found, flow, now_ns):
    """(outcome, backend) of a flow of which this was found: (row of its frontend, pool that the index names, hash)."""
    row, of_all, key = found
    outcome, backend, pool = without_pick(fib, steering, found, flow[0], now_ns)
    if outcome != NEW:
        return outcome, backend
    if of_all == 0 and fib.frontends[row]["affinity"] != 0:
        outcome, backend = _pick_again(fib, steering, row, pool, flow[0], now_ns)
    else:
        backend = pick(fib, steering, pool, flow, key, now_ns)
    return given(fib, steering, pool, key, (outcome, backend), now_ns)


@inner
def without_pick(fib, steering, found, src_ip, now_ns):
    """(outcome, backend, 0) of a flow that needs no pick, else (NEW, 0, the pool to pick from)."""
    row, of_all, key = found
    if row == 0:
        return NO_FRONTEND, _NONE, np.int64(0)
    backend = _tracked(fib, steering, key, now_ns)
    if backend != 0:
        return TRACKED, backend, np.int64(0)
    if 0 < of_all < fib.pools.size:
        return NEW, _NONE, np.int64(of_all)
    outcome, pool = pool_for(fib, steering, row, src_ip)
    return outcome, _NONE, pool


@kernel
def _tracked(fib, steering, key, now_ns):
    """The backend that a flow of hash ``key`` has and keeps, uint32; 0 for a flow that is new."""
    entries = steering.conntrack.entries
    place = conntrack.find(steering.conntrack, key, now_ns)
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
