"""What is decided of a batch, and what was, row by row: the last connections and flows, written round and round."""

from kernels.jit import kernel, part
from kernels.layout import Flows, Verdicts
from kernels.lb.forward import forward_singly


@part
def decide(fib, steering, flows, verdicts, count, now_ns):
    """Have ``forward_singly`` decide about the first ``count`` places of a relay's batch."""
    forward_singly(
        fib,
        steering,
        Flows(
            flows.src_ip[:count],
            flows.dst_ip[:count],
            flows.src_port[:count],
            flows.dst_port[:count],
            flows.proto[:count],
        ),
        now_ns,
        Verdicts(verdicts.outcome[:count], verdicts.frontend[:count], verdicts.backend[:count]),
    )


@kernel
def record(fib, relay, i, backend, now_ns):
    """Record the verdict on place ``i`` of the relay's batch; ``backend`` is 0 or a row of the Fib's backends."""
    loop = relay.loop[0]
    row = relay.records[loop.recorded % relay.records.size]
    row.opened_ns = now_ns
    row.generation = fib.generation
    row.client_ip = relay.flows.src_ip[i]
    row.client_port = relay.flows.src_port[i]
    row.frontend_ip = relay.flows.dst_ip[i]
    row.frontend_port = relay.flows.dst_port[i]
    row.proto = relay.flows.proto[i]
    row.backend = backend
    row.backend_ip = fib.backends[backend].ip
    row.backend_port = fib.backends[backend].port
    row.outcome = relay.verdicts.outcome[i]
    loop.recorded += 1
