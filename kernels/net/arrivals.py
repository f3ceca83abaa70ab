"""Who a client of the gateway is: whom its connection comes from, or whom a header of the PROXY protocol names.

Law: who a client is has been found out before anything else of it is read. A header is looked at before a byte of it is
taken: one that is unusual is left to the slow path with its connection, untouched.
"""

import numpy as np

from kernels.jit import part
from kernels.layout_announced import NAMED, OWN_ADDRESS
from kernels.layout_gateway import ANNOUNCED_ODDLY, READING
from kernels.net import announced, forwarded, requests, syscalls


@part
def introduce(gateway, row, ip, port):
    """A client is at this address: what it says of others counts if that is trusted, and endpoints are told it."""
    client = gateway.clients[row]
    client.ip, client.port = ip, port
    client.trusted = announced.is_within(gateway.trusted, np.uint32(ip))
    forwarded.begin(client, gateway.loop[0], gateway.hops[row])


@part
def hear(gateway, row, now_ns):
    """ANNOUNCING: take the header once it is whole. Returns whether there may be more to do."""
    client, data, found = gateway.clients[row], gateway.requests[row], gateway.announcement[0]
    size = syscalls.peek(client.fd, data[: announced.V2_BYTES]) if client.readable else np.int64(-syscalls.EAGAIN)
    if size == -syscalls.EINTR:
        return True
    said = announced.read(data, size, found) if size > 0 else np.int64(0)
    if said < 0:
        requests.hand_over(gateway, row, ANNOUNCED_ODDLY)
        return False
    if said == 0:
        client.readable = 0  # more of it is an event
        if (size <= 0 and size != -syscalls.EAGAIN) or client.hangup or gateway.loop[0].draining:
            requests.end(gateway, row)
        return False
    syscalls.receive(client.fd, data[:said])
    client.announced = OWN_ADDRESS
    if found.named:
        client.announced = NAMED
        introduce(gateway, row, found.ip, found.port)
    client.state, client.since_ns = READING, now_ns
    return True
