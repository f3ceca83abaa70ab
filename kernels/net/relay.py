"""The L4 relay: connections and datagrams to frontends, carried to the backend that ``forward`` picks for each.

One thread drives it in bounded *breaths*, with the GIL released. A breath makes passes: wait for events, carry bytes,
then accept a batch from the listeners, ask ``forward`` once for the whole batch, and start the connects; before that,
what is UDP (``kernels.net.datagrams``). Whoever holds the Relay changes it (listeners, the Fib) only between breaths,
and writes to the wake-up descriptor to end one.

    listeners ── accept4 ─► flows ── forward ─► verdicts ── connect ─► connections ── turns of their streams ─► end

Law: nothing here blocks, allocates for a connection or raises. Where the table or the descriptors run out, accepting
pauses and connections wait in the listeners' queues; the end of any connection, or a moment's time, resumes it.
"""

import select

import numpy as np

from kernels.jit import kernel
from kernels.layout import (
    AFFINITY,
    CONNECTION,
    ENDS,
    FREE,
    HALTED,
    LISTENER,
    LOOP,
    NEW,
    NO_FRONTEND,
    RECORD,
    STOPPED,
    STREAM,
    TCP,
    TRACKED,
    Flows,
    Relay,
    Verdicts,
)
from kernels.lb.forward import create_steering, empty_fib, pool_for
from kernels.net import connections, datagrams, pipes, ring, shared, streams, syscalls, udpflows
from kernels.net.records import decide, record
from kernels.reference import reference

BATCH = syscalls.MESSAGES
WAKE_KEY = 0  # a listener's events carry its row as their key, a connection's have connections.STREAM_KEY set
RETRY_NS = 20_000_000  # how long accepting pauses for want of descriptors that others may hold
PIPES = 64  # a quarter of the pages that Linux lets one user have in pipes
SCAN_NS = 250_000_000  # how often connects are checked for having taken too long


def create(capacity: int, records: int, node_ip: int, connect_timeout_ns: int, datagram_flows: int = 4096) -> Relay:
    """A relay without listeners; its owner sets ``loop[0]["epoll"]`` before the first breath and closes it at the end.

    capacity        most connections at one time
    records         how many of the last records are kept
    node_ip         connects to backends come from here where the client's address is not this machine's
    datagram_flows  most flows of datagrams at one time; each has a descriptor
    """
    loop = np.zeros(1, LOOP)
    loop[0]["epoll"], loop[0]["socket"], loop[0]["free"] = -1, -1, capacity
    loop[0]["node_ip"], loop[0]["connect_timeout_ns"] = node_ip, connect_timeout_ns
    u1, u2, u4 = np.uint8, np.uint16, np.uint32
    exchange = syscalls.create_exchange()
    return Relay(
        loop=loop,
        connections=np.zeros(capacity + 1, CONNECTION),
        streams=np.zeros(2 * (capacity + 1), STREAM),
        buffer=np.empty(streams.BUFFER_BYTES, u1),
        buffers=streams.create_buffers(2 * (capacity + 1)),
        pipes=pipes.create(PIPES),
        free=np.arange(capacity, 0, -1, dtype=u4),
        ready=ring.create(capacity + 1),
        listeners=np.full(1, np.array((0, 0, 0, 0, -1, 0), LISTENER)),
        backlog=ring.create(2),
        flows=Flows(*(np.zeros(BATCH, kind) for kind in (u4, u4, u2, u2, u1))),
        verdicts=Verdicts(*(np.zeros(BATCH, kind) for kind in (u1, u4, u4))),
        sockets=np.zeros((BATCH, 2), np.int32),
        records=np.zeros(records, RECORD),
        ends=np.zeros(len(ENDS), np.int64),
        exchange=exchange,
        datagrams=udpflows.create(datagram_flows, exchange),
    )


def with_listeners(relay: Relay, rows: int) -> Relay:
    """The same relay with room for at least so many listeners; between breaths only."""
    have = relay.listeners.size
    if have > rows:
        return relay
    listeners = np.full(2 * rows + 1, np.array((0, 0, 0, 0, -1, 0), LISTENER))
    listeners[:have] = relay.listeners
    backlog = ring.create(listeners.size)
    waiting = [row for row in range(have) if listeners[row]["queued"]]
    backlog.slots[: len(waiting)] = waiting
    backlog.ends[1] = len(waiting)
    return relay._replace(listeners=listeners, backlog=backlog)


@kernel
def breath(fib, steering, relay, until_ns):
    """Carry traffic until the clock shows ``until_ns`` or the wake-up descriptor is written to; at least one pass.

    fib (Fib, read-only), steering (Steering), relay (Relay). Returns 0, or ``-errno`` where the epoll set is broken.
    """
    fib, steering, relay = reference(fib), reference(steering), reference(relay)
    now_ns = syscalls.monotonic_ns(relay.exchange)
    woken = False
    while True:
        count = syscalls.wait(relay.exchange, relay.loop[0].epoll, _patience_ms(relay, now_ns, until_ns))
        if count < 0 and count != -syscalls.EINTR:
            return count
        connections.carry_on(steering, relay)
        for i in range(count):
            woken |= _on_event(fib, steering, relay, relay.exchange.events[i], now_ns)
        now_ns = syscalls.monotonic_ns(relay.exchange)
        datagrams.answer(fib, steering, relay.datagrams, now_ns)
        datagrams.ask(fib, steering, relay, now_ns)
        udpflows.end_idle(steering, relay.datagrams, now_ns)
        _welcome(fib, steering, relay, now_ns)
        _check_connects(fib, steering, relay, now_ns)
        if woken or now_ns >= until_ns:
            return 0


@kernel
def _patience_ms(relay, now_ns, until_ns):
    """How long a pass may wait for events."""
    if ring.size(relay.ready) or datagrams.is_waiting(relay.datagrams):
        return 0
    if ring.size(relay.backlog):
        until_ns = min(until_ns, relay.loop[0].paused_until_ns)
    return syscalls.patience_ms(now_ns, until_ns)


@kernel
def _on_event(fib, steering, relay, event, now_ns):
    """Hand an event to whom its key names. Returns whether it ends the breath."""
    key = np.int64(event.key)
    if key & connections.STREAM_KEY:
        connections.on_event(fib, steering, relay, key ^ connections.STREAM_KEY, event.serial, event.events, now_ns)
    elif key & (udpflows.FLOW_KEY | datagrams.LISTENER_KEY):
        datagrams.on_event(relay.datagrams, key, event.serial)
    elif key == WAKE_KEY:
        return True
    elif key < relay.listeners.size and relay.listeners[key].serial == event.serial:
        attend(relay, key)
    return False


@kernel
def attend(relay, row):
    """Have the listener's queue looked into: edge-triggered, it will not call again before that is empty."""
    relay = reference(relay)
    if not relay.listeners[row].queued:
        relay.listeners[row].queued = 1
        ring.put(relay.backlog, row)


@kernel
def _welcome(fib, steering, relay, now_ns):
    """Accept one batch of connections and send each on its way."""
    loop = relay.loop[0]
    if ring.size(relay.backlog) == 0 or now_ns < loop.paused_until_ns:
        return
    count = _accept_batch(fib, steering, relay, now_ns)
    if count == 0:
        return
    decide(fib, steering, relay.flows, relay.verdicts, count, now_ns)
    for i in range(count):
        _send_on(fib, steering, relay, i, now_ns)


@kernel
def _accept_batch(fib, steering, relay, now_ns):
    """Accept from the backlog's listeners in turn, as far as batch and table have room. Returns how many."""
    loop = relay.loop[0]
    room = min(relay.sockets.shape[0], loop.free)
    if room == 0:
        loop.paused_until_ns = now_ns + RETRY_NS
    count = 0
    for _ in range(ring.size(relay.backlog) if room else 0):
        row = ring.take(relay.backlog)
        answer = 0
        for _ in range(room - count):
            answer = _accept(fib, steering, relay, relay.listeners[row], count)
            if answer >= 0:
                count += 1
            elif _is_done(answer):
                break
            elif _is_shortage(answer):
                loop.paused_until_ns = now_ns + RETRY_NS
                break  # any other error befell one connection only, accept(2)
        if _is_done(answer):
            relay.listeners[row].queued = 0
        else:
            ring.put(relay.backlog, row)
        if count == room or now_ns < loop.paused_until_ns:
            break
    return count


@kernel
def _is_done(answer):
    """Whether the listener's queue is empty, or the listener closed."""
    return answer == -syscalls.EAGAIN or answer == -syscalls.EBADF or answer == -syscalls.EINVAL


@kernel
def _is_shortage(answer):
    """Whether descriptors or memory have run out."""
    return (
        answer == -syscalls.EMFILE
        or answer == -syscalls.ENFILE
        or answer == -syscalls.ENOBUFS
        or answer == -syscalls.ENOMEM
    )


@kernel
def _accept(fib, steering, relay, listener, i):
    """Accept one connection into place ``i`` of the batch. Returns its descriptor, or ``-errno``.

    The socket for its way on is made first: a connection that is accepted never lacks a descriptor. One that a shared
    listener does not answer for is reset at once, as near as it comes to the machine's refusal, and counted.
    """
    loop = relay.loop[0]
    if loop.socket < 0:
        fresh = syscalls.stream_socket()
        if fresh < 0:
            return fresh
        loop.socket = fresh
    client = syscalls.accept(relay.exchange, listener.fd)
    if client < 0:
        return client
    peer = relay.exchange.address[0]
    relay.flows.src_ip[i] = syscalls.swap32(peer.ip)
    relay.flows.src_port[i] = syscalls.swap16(peer.port)
    relay.flows.dst_ip[i] = listener.ip
    relay.flows.dst_port[i] = listener.port
    relay.flows.proto[i] = TCP
    if listener.ip == 0:
        known = syscalls.own_address(relay.exchange, client) == 0
        relay.flows.dst_ip[i] = syscalls.swap32(relay.exchange.address[0].ip)
        if not known or not shared.answers(fib, relay.flows.dst_ip[i], listener.port, np.uint8(TCP)):
            steering.outcomes[NO_FRONTEND] += 1
            syscalls.reset_on_close(relay.exchange, client)
            syscalls.close(client)
            return np.int64(-syscalls.ECONNABORTED)
    relay.sockets[i, connections.CLIENT] = client
    relay.sockets[i, connections.UPSTREAM] = loop.socket
    loop.socket = -1
    return client


@kernel
def _send_on(fib, steering, relay, i, now_ns):
    """Connect place ``i`` of the batch to the backend it was given, or reset it if there is none."""
    outcome = relay.verdicts.outcome[i]
    backend = np.int64(relay.verdicts.backend[i])
    if outcome not in (NEW, TRACKED, AFFINITY) or backend >= fib.backends.size:
        backend = np.int64(0)
    record(fib, relay, i, backend, now_ns)
    client = relay.sockets[i, connections.CLIENT]
    upstream = relay.sockets[i, connections.UPSTREAM]
    if backend == 0:
        syscalls.reset_on_close(relay.exchange, client)
        syscalls.close(client)
        syscalls.close(upstream)
        return
    if outcome == TRACKED and backend < steering.active.size:
        steering.active[backend] += 1  # its address and port served another connection just now; NEW ones are counted
    loop = relay.loop[0]
    loop.free -= 1
    row = np.int64(relay.free[loop.free])
    connection = relay.connections[row]
    connection.opened_ns = now_ns
    connection.client_ip = relay.flows.src_ip[i]
    connection.client_port = relay.flows.src_port[i]
    connection.frontend_ip = relay.flows.dst_ip[i]
    connection.frontend_port = relay.flows.dst_port[i]
    connection.backend = backend
    connection.record = loop.recorded - 1
    connection.generation = fib.generation
    connection.pool = _pool_of(fib, steering, relay, i)
    streams.begin(relay.streams[2 * row], client, upstream)
    streams.begin(relay.streams[2 * row + 1], upstream, client)
    connections.connect(fib, steering, relay, row, now_ns)


@kernel
def _pool_of(fib, steering, relay, i):
    """The pool that place ``i`` of the batch is served from, as ``forward`` found it."""
    frontend = np.int64(relay.verdicts.frontend[i])
    if frontend >= fib.frontends.size:
        return np.int64(0)
    return pool_for(fib, steering, frontend, relay.flows.src_ip[i])[1]


@kernel
def _check_connects(fib, steering, relay, now_ns):
    loop = relay.loop[0]
    if loop.connecting and now_ns >= loop.next_scan_ns:
        loop.next_scan_ns = now_ns + SCAN_NS
        connections.give_up_overdue(fib, steering, relay, now_ns)


@kernel
def watch(relay, fd, key, serial):
    """Have a breath hear of a listener (key: its row) or of the wake-up descriptor (WAKE_KEY). 0 or ``-errno``."""
    relay = reference(relay)
    events = syscalls.EPOLLIN | syscalls.EPOLLET
    return syscalls.watch(relay.exchange, relay.loop[0].epoll, fd, events, key, serial)


@kernel
def end_all(steering, relay):
    """Reset every connection that is left, end every flow, and close the pipes and the socket held for the next."""
    steering, relay = reference(steering), reference(relay)
    for row in range(1, relay.connections.size):
        if relay.connections[row].state != FREE:
            connections.end(steering, relay, row, STOPPED)
    if relay.loop[0].socket >= 0:
        syscalls.close(relay.loop[0].socket)
        relay.loop[0].socket = -1
    pipes.close_all(relay.pipes)
    udpflows.end_all(steering, relay.datagrams, HALTED)


def warm() -> None:
    """Compile everything that a live relay calls, with the types it is called with."""
    with select.epoll() as epoll:
        relay = with_listeners(create(1, 1, 0, 0), 1)
        relay.loop[0]["epoll"] = epoll.fileno()
        fib = empty_fib()
        steering = create_steering(fib, 1)
        watch(relay, -1, WAKE_KEY, 0)
        attend(relay, 1)
        relay = datagrams.with_listeners(relay, 1)
        datagrams.watch(relay, -1, 1, 0)
        datagrams.attend(relay.datagrams, 1)
        breath(fib, steering, relay, 0)
        udpflows.forget_gone(fib, steering, relay)
        udpflows.forget_listener(steering, relay, 1)
        end_all(steering, relay)
