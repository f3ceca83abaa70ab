"""Who a client of the gateway is: whom its connection comes from, or whom a header of the PROXY protocol names.

Law: who a client is has been found out before anything else of it is read. A header is looked at before a byte of it is
taken: one that is unusual is left to the slow path with its connection, untouched.
"""

import numpy as np

from kernels.jit import kernel, part
from kernels.layout_announced import NAMED, OWN_ADDRESS
from kernels.layout_gateway import ANNOUNCED_ODDLY, READING
from kernels.net import announced, requests, syscalls, text

_FOR = np.frombuffer(b"X-Forwarded-For: ", np.uint8)
_REAL = np.frombuffer(b"\r\nX-Real-IP: ", np.uint8)
_PROTO = np.frombuffer(b"\r\nX-Forwarded-Proto: http", np.uint8)
_SECURED = np.frombuffer(b"s", np.uint8)
_PORT = np.frombuffer(b"\r\nX-Forwarded-Port: ", np.uint8)


@part
def introduce(gateway, row, ip, port):
    """A client is at this address: what it says of others counts if that is trusted, and endpoints are told it."""
    client, loop = gateway.clients[row], gateway.loop[0]
    client.ip, client.port = ip, port
    client.trusted = announced.is_within(gateway.trusted, np.uint32(ip))
    here = np.int64(loop.https_port if client.secured else loop.port)
    client.hop = _write_hop(gateway.hops[row], np.int64(ip), here, client.secured != 0)


@kernel
def _write_hop(out, ip, port, secured):
    """Write a client's forwarding fields, as ``forwarding.Origin.fields`` has them. Returns their size."""
    to = text.put_all(out, np.int64(0), _FOR)
    to = text.put_all(out, text.put_ip(out, to, ip), _REAL)
    to = text.put_all(out, text.put_ip(out, to, ip), _PROTO)
    if secured:
        to = text.put_all(out, to, _SECURED)
    to = text.put_all(out, to, _PORT)
    return text.end_line(out, text.put_decimal(out, to, port))


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
