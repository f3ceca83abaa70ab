"""``lb.forward`` with another algorithm in place of those of the pools: the same tables, stages and verdicts.

Law: as there. Session affinity is left out: who keeps clients apart by address is not compared by how flows spread.
"""

import numpy as np

from kernels.jit import kernel
from kernels.layout import NEW
from kernels.lb.consistent.tables import pick
from kernels.lb.forward import AHEAD, ask, given, without_pick
from kernels.lb.frontends import find_from
from kernels.lb.hashing import flow_hash


@kernel
def forward(fib, rival, steering, flows, now_ns, verdicts):
    """Decide for each flow of a batch, in order; ``rival`` is the Rival of this Fib."""
    for i in range(-2 * AHEAD, flows.proto.size):
        ask(fib, steering, flows, i + 2 * AHEAD, verdicts)
        if i < 0:
            continue
        key = flow_hash(flows.src_ip[i], flows.dst_ip[i], flows.src_port[i], flows.dst_port[i], flows.proto[i])
        row = find_from(fib, np.uint64(verdicts.frontend[i]), flows.dst_ip[i], flows.dst_port[i], flows.proto[i])
        outcome, backend, pool = without_pick(fib, steering, row, flows.src_ip[i], key, now_ns)
        if outcome == NEW:
            outcome, backend = given(fib, steering, pool, key, pick(fib, rival, pool, key), now_ns)
        verdicts.outcome[i] = outcome
        verdicts.frontend[i] = row
        verdicts.backend[i] = backend
        steering.outcomes[outcome] += 1
