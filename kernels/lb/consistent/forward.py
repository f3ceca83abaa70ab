"""``lb.forward`` with another algorithm in place of those of the pools: the same tables, stages and verdicts.

Law: as there. Session affinity is left out: who keeps clients apart by address is not compared by how flows spread.
"""

from kernels.jit import kernel
from kernels.layout import NEW
from kernels.lb.consistent.tables import pick
from kernels.lb.forward import BLOCK, block, found, given, look, without_pick


@kernel
def forward(fib, rival, steering, flows, now_ns, verdicts):
    """Decide for each flow of a batch, in order; ``rival`` is the Rival of this Fib."""
    for first in range(0, flows.proto.size, BLOCK):
        some, given_to = block(flows, verdicts, first)
        look(fib, steering, some, given_to)
        for i in range(some.proto.size):
            flow = found(steering, given_to, i)
            outcome, backend, pool = without_pick(fib, steering, flow, some.src_ip[i], now_ns)
            if outcome == NEW:
                choice = NEW, pick(fib, rival, pool, steering.keys[i])
                outcome, backend = given(fib, steering, pool, steering.keys[i], choice, now_ns)
            given_to.outcome[i] = outcome
            given_to.backend[i] = backend
            steering.outcomes[outcome] += 1
