"""What was decided, row by row: the last connections and flows, written round and round."""

from kernels.jit import kernel


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
