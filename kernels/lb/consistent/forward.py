"""``lb.forward`` with another algorithm in place of those of the pools: the same tables, stages and verdicts.

Law: as there. Session affinity is left out: who keeps clients apart by address is not compared by how flows spread.
"""

import numpy as np

from kernels.jit import kernel
from kernels.layout import NEW
from kernels.lb.consistent.tables import pick
from kernels.lb.forward import BLOCK, ask, begin, block, given, without_pick
from kernels.lb.frontends import find_from


@kernel
def forward(fib, rival, steering, flows, now_ns, verdicts):
    """Decide for each flow of a batch, in order; ``rival`` is the Rival of this Fib."""
    for first in range(0, flows.proto.size, BLOCK):
        some, given_to = block(flows, verdicts, first)
        begin(fib, steering, some, given_to)
        for i in range(some.proto.size):
            ask(fib, steering, given_to, i)
            key = steering.keys[i]
            row = find_from(fib, np.uint64(given_to.frontend[i]), some.dst_ip[i], some.dst_port[i], some.proto[i])
            outcome, backend, pool = without_pick(fib, steering, row, some.src_ip[i], key, now_ns)
            if outcome == NEW:
                outcome, backend = given(fib, steering, pool, key, pick(fib, rival, pool, key), now_ns)
            given_to.outcome[i] = outcome
            given_to.frontend[i] = row
            given_to.backend[i] = backend
            steering.outcomes[outcome] += 1
