"""Flows in, verdicts out: the page to read first.

    flow ─► frontend? ─► known flow? ─► pick a backend ─► remember ─► verdict, counted
             │ no          │ yes           │ none
             NO_FRONTEND   TRACKED         NO_ENDPOINT

Law: a batch in, caller-owned columns out; no allocation, no exception, no clock. A known flow keeps its backend as long
as that is the endpoint it was given, ready or draining; it is given another once the id is gone or stands for another
endpoint. A new flow is NEW also where the table has no room for it: it is served, and its next batch picks again.
"""

import numpy as np

from kernels.jit import kernel, prefetch
from kernels.layout import (
    BACKEND,
    FRONTEND,
    GONE,
    NEW,
    NO_ENDPOINT,
    NO_FRONTEND,
    OUTCOMES,
    TRACKED,
    Fib,
    Steering,
    freeze,
)
from kernels.lb import conntrack
from kernels.lb.frontends import build_index, find_frontend
from kernels.lb.hashing import endpoint_seed, flow_hash
from kernels.lb.select import pick

# Linux' nf_conntrack forgets an established TCP flow after five days; Cilium, which like us sees connections being
# opened only, after 2 h 13 min 20 s (its --bpf-ct-timeout-regular-tcp). A proxy that sees them close removes them.
IDLE_NS = 8_000_000_000_000

# So many flows before its turn, a flow's conntrack entry is asked of the memory, which answers while others are
# decided. Triples the rate with a million flows; nearer and it comes too late, further and it is gone again.
AHEAD = 12

_NONE = np.uint32(0)


def empty_fib() -> Fib:
    """A Fib of generation 0 that knows no frontend."""
    frontends = np.zeros(1, FRONTEND)
    nothing = freeze(np.zeros(0, np.uint32))
    return Fib(0, freeze(frontends), build_index(frontends), freeze(np.zeros(1, BACKEND)), nothing, nothing)


def create_steering(fib: Fib, capacity: int) -> Steering:
    """What a forwarding thread needs beside ``fib``; it tracks ``capacity`` flows, and with 0 remembers none."""
    return Steering(
        conntrack.create(capacity),
        np.zeros(len(fib.frontends), np.uint32),
        np.zeros(len(OUTCOMES), np.int64),
        np.full(1, IDLE_NS, np.int64),
    )


@kernel
def forward(fib, steering, flows, now_ns, verdicts):
    """Decide for each flow of a batch, in order; all of it happens at ``now_ns``.

    fib       Fib, read-only
    steering  Steering; its table, turns and counts move on
    flows     Flows of n
    verdicts  Verdicts of n, every row of which is written
    """
    entries = steering.conntrack.entries
    for i in range(flows.proto.size):
        j = i + AHEAD
        if j < flows.proto.size and entries.size > 0:
            key = flow_hash(flows.src_ip[j], flows.dst_ip[j], flows.src_port[j], flows.dst_port[j], flows.proto[j])
            prefetch(entries, conntrack.home(entries, key))
        flow = (flows.src_ip[i], flows.dst_ip[i], flows.src_port[i], flows.dst_port[i], flows.proto[i])
        outcome, row, backend = decide(fib, steering, flow, now_ns)
        verdicts.outcome[i] = outcome
        verdicts.frontend[i] = row
        verdicts.backend[i] = backend
        steering.outcomes[outcome] += 1


@kernel
def decide(fib, steering, flow, now_ns):
    """(outcome, frontend, backend) of one flow, a 5-tuple in the order of ``Flows``."""
    src_ip, dst_ip, src_port, dst_port, proto = flow
    row = find_frontend(fib, dst_ip, dst_port, proto)
    if row == 0:
        return NO_FRONTEND, row, _NONE
    key = flow_hash(src_ip, dst_ip, src_port, dst_port, proto)
    expires_ns = now_ns + steering.idle_ns[0]
    entries = steering.conntrack.entries
    slot = conntrack.find(steering.conntrack, key, now_ns)
    if slot >= 0 and is_there(fib.backends, entries[slot]["backend"], entries[slot]["endpoint"]):
        entries[slot]["expires_ns"] = expires_ns
        return TRACKED, row, entries[slot]["backend"]
    backend = pick(fib, steering.turns, row, key, now_ns)
    if backend == 0 or backend >= fib.backends.size:
        return NO_ENDPOINT, row, _NONE
    if entries.size > 0:
        conntrack.insert(steering.conntrack, key, (expires_ns, backend, fingerprint(fib.backends[backend])), now_ns)
    return NEW, row, backend


@kernel
def is_there(backends, backend, endpoint):
    """Whether backend id ``backend`` still stands for the endpoint of that fingerprint, ready or draining."""
    if backend >= backends.size:
        return False
    return backends[backend]["state"] != GONE and fingerprint(backends[backend]) == endpoint


@kernel
def fingerprint(backend):
    """32 bits that tell an endpoint from another one that was given its id later."""
    return np.uint32(endpoint_seed(backend["ip"], backend["port"], backend["proto"]) & np.uint64(0xFFFFFFFF))
