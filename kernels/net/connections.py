"""Connections of the relay: opened towards a backend, carried in turns, ended by FIN or by reset.

Law: a connection ends in ``end`` and nowhere else; it closes both sockets, forgets the flow and frees the row. The two
sides' sockets stand in the connection's streams: 2·row reads from the client, 2·row + 1 from the upstream. One that its
backend refuses, or does not answer in time, is offered first to the next one that its client may have by then.
"""

import numpy as np

from kernels.jit import inner, kernel, part
from kernels.layout import (
    CLIENT_RESET,
    CLOSED,
    CONNECTING,
    ENDED,
    FREE,
    NEW,
    OPEN,
    REFUSED,
    TCP,
    TIMEOUT,
    UPSTREAM_RESET,
)
from kernels.lb import conntrack
from kernels.lb.forward import fingerprint, pool_for
from kernels.lb.frontends import find_frontend
from kernels.lb.hashing import flow_hash
from kernels.lb.select import after
from kernels.net import ring, shared, streams, syscalls

STREAM_KEY = 1 << 31  # an event's key: this bit and the index of the stream that its descriptor is the source of
CLIENT, UPSTREAM = 0, 1
TRIES = 3  # backends that a connection is offered at most
LOOPBACK = 127  # first octet
WATCHED = (
    syscalls.EPOLLIN | syscalls.EPOLLPRI | syscalls.EPOLLOUT | syscalls.EPOLLRDHUP | syscalls.EPOLLET
)  # once, for good: no call ever re-arms


@kernel
def connect(fib, steering, relay, row, now_ns):
    """Start to connect a row whose record, streams and serial are filled in; it is CONNECTING or ended afterwards."""
    relay.connections[row].state = CONNECTING
    relay.connections[row].tries = 1
    relay.loop[0].connecting += 1
    if _watch(relay, row, CLIENT) < 0:
        end(steering, relay, row, REFUSED)
    elif not _dial(fib, relay, row, now_ns):
        try_another(fib, steering, relay, row, REFUSED, now_ns)


@part
def try_another(fib, steering, relay, row, how, now_ns):
    """Offer a connection that its backend did not take to another one of the pool, or end it where there is none.

    Nothing is lost by it: not a byte is read from a client before an upstream has answered.
    """
    while _move_on(fib, steering, relay, row, now_ns):
        if _dial(fib, relay, row, now_ns):
            return
    end(steering, relay, row, how)


@kernel
def _dial(fib, relay, row, now_ns):
    """Start to connect to the backend that the row has. Returns whether that is under way.

    The upstream socket gets the client's own address where this machine has it, else the node's; towards another
    machine the one that leads there.
    """
    connection = relay.connections[row]
    connection.dialled_ns = now_ns
    backend = fib.backends[connection.backend]
    upstream = relay.streams[2 * row].sink
    port = np.int64(backend.port)
    source = np.uint32(0)
    if backend.ip >> 24 == LOOPBACK:  # another machine would not know where to answer a loopback address
        source = _bind_source(relay, upstream, connection.client_ip)
    syscalls.set_option(relay.exchange, upstream, syscalls.IPPROTO_TCP, syscalls.TCP_NODELAY, 1)
    answer = syscalls.connect(relay.exchange, upstream, backend.ip, port)
    started = answer == 0 or answer == -syscalls.EINPROGRESS
    if started and source == backend.ip:
        started = not meets_itself(relay, upstream, port)
    return started and _watch(relay, row, UPSTREAM) >= 0


@kernel
def _move_on(fib, steering, relay, row, now_ns):
    """Give a row the next backend of its pool and a fresh socket for it. Returns whether it has got them."""
    connection = relay.connections[row]
    if connection.tries >= TRIES or not _find_pool(fib, steering, connection):
        return False
    other = np.int64(after(fib, np.int64(connection.pool), connection.backend))
    if other == 0 or other == connection.backend or other >= fib.backends.size:
        return False
    fresh = syscalls.stream_socket()
    if fresh < 0:
        return False
    syscalls.close(relay.streams[2 * row].sink)
    streams.redirect(relay.streams, row, fresh)
    _count_off(steering, connection.backend)
    connection.tries += 1
    connection.backend = other
    if other < steering.active.size:
        steering.active[other] += 1
    track = now_ns + steering.idle_ns[0], np.uint32(other), fingerprint(fib.backends[other])
    if steering.conntrack.entries.size > 0:
        conntrack.insert(steering.conntrack, _flow_of(connection), track, now_ns)
    _correct_record(fib, relay, connection)
    return True


@kernel
def _find_pool(fib, steering, connection):
    """Have a connection's pool be the one that its client may use under this Fib. Returns whether there is one."""
    if connection.generation == fib.generation:
        return connection.pool < fib.pools.size
    frontend = find_frontend(fib, connection.frontend_ip, connection.frontend_port, np.uint8(TCP))
    if frontend == 0:
        return False
    outcome, pool = pool_for(fib, steering, frontend, connection.client_ip)
    connection.pool, connection.generation = pool, fib.generation
    return outcome == NEW


@kernel
def _correct_record(fib, relay, connection):
    """Have the connection's record say where it is sent now, if it is kept still."""
    if relay.loop[0].recorded - connection.record <= relay.records.size:
        record = relay.records[connection.record % relay.records.size]
        record.backend = connection.backend
        record.backend_ip = fib.backends[connection.backend].ip
        record.backend_port = fib.backends[connection.backend].port


@kernel
def _count_off(steering, backend):
    if backend < steering.active.size and steering.active[backend] > 0:
        steering.active[backend] -= 1


@kernel
def _flow_of(connection):
    return flow_hash(
        connection.client_ip, connection.frontend_ip, connection.client_port, connection.frontend_port, np.uint8(TCP)
    )


@kernel
def _bind_source(relay, upstream, client_ip):
    """Bind to the client's address, or else the node's; the port is chosen by connect(2). Returns the address."""
    exchange = relay.exchange
    syscalls.set_option(exchange, upstream, syscalls.IPPROTO_IP, syscalls.IP_BIND_ADDRESS_NO_PORT, 1)
    if syscalls.bind(exchange, upstream, client_ip, 0) == 0:
        return client_ip
    node_ip = relay.loop[0].node_ip
    return node_ip if syscalls.bind(exchange, upstream, node_ip, 0) == 0 else np.uint32(0)


@kernel
def meets_itself(relay, upstream, port):
    """A pod that reaches itself through its Service: with nobody listening, TCP connects a socket to itself."""
    if syscalls.own_address(relay.exchange, upstream) < 0:
        return True
    return syscalls.swap16(relay.exchange.address[0].port) == port


@kernel
def _meets_nobody(fib, relay, row):
    """Whether the upstream that has just answered is a shared listener, which takes the place of a pod that is dead."""
    backend = relay.connections[row].backend
    met = fib.backends[backend if backend < fib.backends.size else 0]
    return shared.refuses(fib, relay.exchange, relay.streams[2 * row].sink, met)


@kernel
def _watch(relay, row, side):
    index = 2 * row + side
    return syscalls.watch(
        relay.exchange,
        relay.loop[0].epoll,
        relay.streams[index].source,
        WATCHED,
        STREAM_KEY | index,
        relay.connections[row].serial,
    )


@kernel
def on_event(fib, steering, relay, index, serial, events, now_ns):
    """Note what an event says of the source of stream ``index``, which is the other stream's sink, and act on it."""
    if index >= relay.streams.size or relay.connections[index >> 1].serial != serial:
        return
    row = index >> 1
    incoming = relay.streams[index]
    over = events & (syscalls.EPOLLHUP | syscalls.EPOLLERR)
    if over or events & (syscalls.EPOLLIN | syscalls.EPOLLRDHUP):
        incoming.readable = 1
    if over or events & (syscalls.EPOLLRDHUP | syscalls.EPOLLPRI):  # a read stops at urgent data too
        incoming.hangup = 1
    if over or events & syscalls.EPOLLOUT:
        relay.streams[index ^ 1].writable = 1
    if events & syscalls.EPOLLERR:
        incoming.failed = 1
    connection = relay.connections[row]
    if connection.state == CONNECTING:
        if events & syscalls.EPOLLERR and index & 1 == CLIENT:
            end(steering, relay, row, CLIENT_RESET)
        elif events & syscalls.EPOLLERR or (index & 1 == UPSTREAM and _meets_nobody(fib, relay, row)):
            try_another(fib, steering, relay, row, REFUSED, now_ns)
        elif index & 1 == UPSTREAM:
            connection.state = OPEN
            relay.loop[0].connecting -= 1
    if connection.state == OPEN:
        carry(steering, relay, row)


@kernel
def carry(steering, relay, row):
    """Give both streams of an open connection a turn; end it when both have ended or one has failed."""
    unfinished = False
    for index in range(2 * row, 2 * row + 2):
        result = streams.turn(relay, index)
        if result >= streams.SOURCE_FAILED:
            at_source = result == streams.SOURCE_FAILED
            if result == streams.SINK_RESET:  # the write took the error: a read would see an end, which is none
                relay.streams[index].state = ENDED  # so that ``turn`` passes none on
            if not at_source:
                _deliver(relay, index ^ 1)
            end(steering, relay, row, CLIENT_RESET if at_source == (index & 1 == CLIENT) else UPSTREAM_RESET)
            return
        unfinished |= result == streams.UNFINISHED
    if relay.streams[2 * row].state == ENDED and relay.streams[2 * row + 1].state == ENDED:
        end(steering, relay, row, CLOSED)
    elif unfinished and not relay.connections[row].queued:
        relay.connections[row].queued = 1
        ring.put(relay.ready, row)


@part
def _deliver(relay, index):
    """Give the stream back from a side that was reset its last turn: what that had sent before arrives still."""
    streams.turn(relay, index)


@inner
def carry_on(steering, relay):
    """Give those whose last turn was over before they were done another one."""
    for _ in range(ring.size(relay.ready)):
        row = ring.take(relay.ready)
        connection = relay.connections[row]
        connection.queued = 0
        if connection.state == OPEN:
            carry(steering, relay, row)


@kernel
def give_up_overdue(fib, steering, relay, now_ns):
    """Offer connections whose upstream has not answered within the connect timeout to another one."""
    dialled_before_ns = now_ns - relay.loop[0].connect_timeout_ns
    for row in range(1, relay.connections.size):
        connection = relay.connections[row]
        if connection.state == CONNECTING and connection.dialled_ns < dialled_before_ns:
            try_another(fib, steering, relay, row, TIMEOUT, now_ns)


@part
def end(steering, relay, row, how):
    """Close a connection's sockets, unless CLOSED by reset, forget its flow and free its row."""
    connection = relay.connections[row]
    loop = relay.loop[0]
    for side in range(2):
        source = relay.streams[2 * row + side].source
        if how != CLOSED:
            syscalls.reset_on_close(relay.exchange, source)
        syscalls.close(source)
        streams.forget(relay, 2 * row + side)
    conntrack.remove(steering.conntrack, _flow_of(connection))
    _count_off(steering, connection.backend)
    if connection.state == CONNECTING:
        loop.connecting -= 1
    connection.state = FREE
    connection.serial += 1
    relay.free[loop.free] = row
    loop.free += 1
    loop.paused_until_ns = 0
    relay.ends[how] += 1
