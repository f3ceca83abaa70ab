"""``lb.forward`` with another algorithm in place of those of the pools: the same tables, stages and verdicts.

Law: as there. Session affinity is left out: who keeps clients apart by address is not compared by how flows spread.
"""

from kernels.jit import kernel
from kernels.layout import NEW
from kernels.lb.consistent.tables import pick
from kernels.lb.forward import BLOCK, found, given, look, without_pick, write


@kernel
def forward(fib, rival, steering, flows, now_ns, verdicts):
    """Decide for each flow of a batch, in order; ``rival`` is the Rival of this Fib."""
    for first in range(-BLOCK, flows.proto.size, BLOCK):
        last = look(fib, steering, flows, verdicts, first)
        for i in range(max(first, 0), last):
            flow = found(steering, verdicts, i)
            outcome, backend, pool = without_pick(fib, steering, flow, flows.src_ip[i], now_ns)
            if outcome == NEW:
                choice = NEW, pick(fib, rival, pool, flow[2])
                outcome, backend = given(fib, steering, pool, flow[2], choice, now_ns)
            write(steering, verdicts, i, outcome, backend)
