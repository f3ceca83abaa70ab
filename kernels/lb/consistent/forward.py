"""``lb.forward`` with another algorithm in place of those of the pools: the same tables, stages and verdicts.

Law: as there. Session affinity is left out: who keeps clients apart by address is not compared by how flows spread.
"""

import numpy as np

from kernels.jit import kernel, prefetch
from kernels.layout import NEW, NO_FRONTEND, TRACKED
from kernels.lb import conntrack
from kernels.lb.consistent.tables import pick
from kernels.lb.forward import AHEAD, given, pool_for, tracked
from kernels.lb.frontends import find_frontend
from kernels.lb.hashing import flow_hash

_NONE = np.uint32(0)


@kernel
def forward(fib, rival, steering, flows, now_ns, verdicts):
    """Decide for each flow of a batch, in order; ``rival`` is the Rival of this Fib."""
    entries = steering.conntrack.entries
    for i in range(flows.proto.size):
        j = i + AHEAD
        if j < flows.proto.size and entries.size > 0:
            key = flow_hash(flows.src_ip[j], flows.dst_ip[j], flows.src_port[j], flows.dst_port[j], flows.proto[j])
            prefetch(entries, conntrack.home(entries, key))
        flow = (flows.src_ip[i], flows.dst_ip[i], flows.src_port[i], flows.dst_port[i], flows.proto[i])
        outcome, row, backend = _decide(fib, rival, steering, flow, now_ns)
        verdicts.outcome[i] = outcome
        verdicts.frontend[i] = row
        verdicts.backend[i] = backend
        steering.outcomes[outcome] += 1


@kernel
def _decide(fib, rival, steering, flow, now_ns):
    src_ip, dst_ip, src_port, dst_port, proto = flow
    row = find_frontend(fib, dst_ip, dst_port, proto)
    if row == 0:
        return NO_FRONTEND, row, _NONE
    key = flow_hash(src_ip, dst_ip, src_port, dst_port, proto)
    backend = tracked(fib, steering, key, now_ns)
    if backend != 0:
        return TRACKED, row, backend
    outcome, pool = pool_for(fib, steering, row, src_ip)
    if outcome != NEW:
        return outcome, row, _NONE
    backend = pick(fib, rival, pool, key)
    outcome = given(fib, steering, pool, key, backend, now_ns)
    return outcome, row, backend if outcome == NEW else _NONE
