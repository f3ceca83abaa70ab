"""Flows of datagrams: which client has which backend, and the socket that leads there.

Law: a flow ends in ``end`` and nowhere else; it closes the socket, forgets the flow and frees the row. UDP itself has
no end: a flow ends when it has been idle for as long as Linux' conntrack would remember it, when its backend refuses,
when it is the quietest and another needs its room, and at once when its backend goes, because a client that never falls
silent would stay with a dead pod for ever.
"""

import numpy as np

from kernels.jit import inner, kernel, part
from kernels.layout import (
    BACKEND_GONE,
    CROWDED_OUT,
    DATAGRAM_FLOW,
    DATAGRAM_LOOP,
    DRAINING,
    FATES,
    FLOW_ENDS,
    IDLE,
    INSIDE,
    LISTENER,
    NO_BACKEND,
    NO_SOCKET,
    NONE,
    OUTSIDE,
    READY,
    TURNED_AWAY,
    UDP,
    UNHEARD,
    UNOPENED,
    UNSENT,
    Datagrams,
)
from kernels.lb import conntrack
from kernels.lb.forward import fingerprint
from kernels.lb.frontends import find_frontend
from kernels.lb.select import is_member
from kernels.net import connections, refusal, ring, shared, syscalls
from kernels.reference import reference

FLOW_KEY = 1 << 30  # an event's key: this bit and the flow's row
# Linux' nf_conntrack_udp_timeout and _stream; a question and its answer are no stream yet (nf_conntrack_proto_udp.c).
IDLE_NS = 30_000_000_000
STREAM_IDLE_NS = 120_000_000_000
STREAM_AFTER_NS = 2_000_000_000
RETRY_NS = 20_000_000  # how long no flow begins for want of descriptors that others may hold
SCAN_NS = 250_000_000  # how often flows are checked for being idle
LOOKED_AT = 64  # flows of which one may be crowded out
QUEUE_BYTES = 1 << 20  # of answers that wait; Linux' 208 KiB hold three large ones. It gives less where it must

_1 = np.uint64(1)


def create(capacity: int, exchange: syscalls.Exchange) -> Datagrams:
    """Room for so many flows, and no listeners. ``exchange`` is the relay's."""
    loop = np.zeros(1, DATAGRAM_LOOP)
    loop[0]["free"], loop[0]["raw"] = capacity, -1
    loop[0]["idle_ns"], loop[0]["stream_idle_ns"], loop[0]["stream_after_ns"] = IDLE_NS, STREAM_IDLE_NS, STREAM_AFTER_NS
    flows = np.zeros(capacity + 1, DATAGRAM_FLOW)
    flows["fd"] = -1
    return Datagrams(
        loop=loop,
        flows=flows,
        free=np.arange(capacity, 0, -1, dtype=np.uint32),
        flow_index=np.zeros(1 << (2 * capacity - 1).bit_length(), np.uint32),
        answering=ring.create(capacity + 1),
        listeners=np.full(1, np.array((0, 0, 0, 0, -1, 0), LISTENER)),
        asking=ring.create(2),
        places=np.zeros(syscalls.MESSAGES, np.uint32),
        decided=np.zeros(syscalls.MESSAGES, np.uint8),
        opening=np.zeros(syscalls.MESSAGES, np.uint32),
        fates=np.zeros(len(FATES), np.int64),
        ends=np.zeros(len(FLOW_ENDS), np.int64),
        refusal=refusal.create(),
        messages=syscalls.create_messages(),
        exchange=exchange,
    )


def live(datagrams: Datagrams) -> int:
    """How many flows there are."""
    return datagrams.free.size - int(datagrams.loop[0]["free"])


def backends_in_use(datagrams: Datagrams) -> np.ndarray:
    """The backend id of each flow that there is, in no order."""
    return datagrams.flows["backend"][datagrams.flows["fd"] >= 0]


@kernel
def _home(index, key):
    """The slot of the index, uint64, at which the search for a hash begins, and that of any number modulo its size."""
    return np.uint64(key) & (np.uint64(index.size) - _1)


@kernel
def find(datagrams, key, client, frontend):
    """The row of a client's flow to a frontend, both (address, port), int64; 0 where there is none."""
    index = datagrams.flow_index
    at = _home(index, key)
    for _ in range(index.size):
        row = np.int64(index[at])
        if row == 0 or row >= datagrams.flows.size:
            return np.int64(0)
        flow = datagrams.flows[row]
        same_client = flow.key == key and flow.client_ip == client[0] and flow.client_port == client[1]
        if same_client and flow.frontend_ip == frontend[0] and flow.frontend_port == frontend[1]:
            return row
        at = _home(index, at + _1)
    return np.int64(0)


@kernel
def begin(datagrams, key, client, frontend, at_listener, now_ns):
    """A row for a new flow, which has a socket and no backend yet; 0 where there is no room or no socket for it."""
    loop = datagrams.loop[0]
    if loop.free == 0 or now_ns < loop.paused_until_ns:
        return np.int64(0)
    fd = syscalls.datagram_socket()
    if fd < 0:
        loop.paused_until_ns = now_ns + RETRY_NS
        return np.int64(0)
    loop.free -= 1
    row = np.int64(datagrams.free[loop.free])
    flow = datagrams.flows[row]
    flow.key = key
    flow.opened_ns = now_ns
    flow.last_ns = now_ns
    flow.client_ip, flow.client_port = client
    flow.frontend_ip, flow.frontend_port = frontend
    flow.listener = at_listener
    flow.fd = fd
    flow.moved_on = 0
    flow.moved_back = 0
    flow.answered = 0
    flow.refused = 0
    flow.fate = NONE
    at = _home(datagrams.flow_index, key)
    while datagrams.flow_index[at] != 0:  # at most half of them are taken
        at = _home(datagrams.flow_index, at + _1)
    datagrams.flow_index[at] = row
    return row


@inner
def make_room(steering, datagrams, now_ns):
    """End the flow that has been silent for longest of the next few, as Linux' conntrack does (``early_drop``).

    None that has been heard at ``now_ns`` is ended: datagrams of the batch under way may be placed at it.
    """
    loop = datagrams.loop[0]
    chosen = np.int64(0)
    for _ in range(min(LOOKED_AT, datagrams.flows.size - 1)):
        loop.cursor = loop.cursor % (datagrams.flows.size - 1) + 1
        flow = datagrams.flows[loop.cursor]
        silent = flow.fd >= 0 and flow.last_ns < now_ns
        if silent and (chosen == 0 or flow.last_ns < datagrams.flows[chosen].last_ns):
            chosen = np.int64(loop.cursor)
    if chosen != 0:
        end(steering, datagrams, chosen, CROWDED_OUT)


@kernel
def lead(fib, steering, relay, row, backend, tracked):
    """Lead a flow that has begun to the backend it was given, 0 for none. It is open or ended afterwards."""
    flow = relay.datagrams.flows[row]
    if backend == 0:
        end(steering, relay.datagrams, row, UNOPENED)
        flow.fate = NO_BACKEND
        return
    if tracked and backend < steering.active.size:
        steering.active[backend] += 1  # new ones are counted
    flow.backend = backend
    flow.endpoint = fingerprint(fib.backends[backend])
    if not holds(fib, flow):  # remembered from before: forgotten now, and another is picked
        end(steering, relay.datagrams, row, BACKEND_GONE)
        return
    fate = _connect(relay, row, fib.backends[backend])
    if fate != NONE:
        end(steering, relay.datagrams, row, UNOPENED)
        flow.fate = fate


@kernel
def _connect(relay, row, backend):
    """Connect the flow's socket, from the client's own address where this machine has it, else as connections do.

    Returns NONE, or the fate of its datagrams. From here on the socket hears this backend only.
    """
    exchange = relay.exchange
    flow = relay.datagrams.flows[row]
    port = np.int64(backend.port)
    source = np.uint32(0)
    syscalls.set_option(exchange, flow.fd, syscalls.SOL_SOCKET, syscalls.SO_RCVBUF, QUEUE_BYTES)
    if backend.ip >> 24 == connections.LOOPBACK:
        source = flow.client_ip
        if syscalls.bind(exchange, flow.fd, source, 0) < 0:
            source = relay.loop[0].node_ip
            if syscalls.bind(exchange, flow.fd, source, 0) < 0:
                return NO_SOCKET  # no port is left
    answer = syscalls.connect(exchange, flow.fd, backend.ip, port)
    if answer < 0:
        return NO_SOCKET if answer == -syscalls.EAGAIN else UNSENT
    if source == backend.ip and connections.meets_itself(relay, flow.fd, port):
        return TURNED_AWAY
    events = syscalls.EPOLLIN | syscalls.EPOLLET
    watched = syscalls.watch(exchange, relay.loop[0].epoll, flow.fd, events, FLOW_KEY | row, flow.serial)
    return NONE if watched == 0 else NO_SOCKET


@kernel
def holds(fib, flow):
    """Whether the flow's backend is there, under its id, and serves."""
    if flow.backend >= fib.backends.size:
        return False
    backend = fib.backends[flow.backend]
    if backend.state != READY and backend.state != DRAINING:
        return False
    return fingerprint(backend) == flow.endpoint


@part
def end(steering, datagrams, row, how):
    """Close a flow's socket, forget the flow and free its row."""
    flow = datagrams.flows[row]
    loop = datagrams.loop[0]
    loop.overflowed += syscalls.overflowed(datagrams.exchange, flow.fd)
    syscalls.close(flow.fd)
    _leave_index(datagrams, row)
    conntrack.remove(steering.conntrack, flow.key)
    if flow.backend < steering.active.size and steering.active[flow.backend] > 0:
        steering.active[flow.backend] -= 1
    flow.fd = -1
    flow.backend = 0
    flow.serial += 1
    datagrams.free[loop.free] = row
    loop.free += 1
    loop.paused_until_ns = 0
    datagrams.ends[how] += 1


@kernel
def _leave_index(datagrams, row):
    """Take a row out of the index and close the gap, as ``conntrack`` does."""
    index, flows = datagrams.flow_index, datagrams.flows
    hole = _home(index, flows[row].key)
    for _ in range(index.size):
        if index[hole] == row:
            break
        hole = _home(index, hole + _1)
    at = hole
    for _ in range(index.size):
        at = _home(index, at + _1)
        other = index[at]
        if other == 0 or other >= flows.size:
            break
        if _home(index, at - flows[other].key) >= _home(index, at - hole):
            index[hole] = other
            hole = at
    index[hole] = 0


@kernel
def end_idle(steering, datagrams, now_ns):
    """End the flows whose time is over, if it is time to look for them."""
    loop = datagrams.loop[0]
    if now_ns < loop.next_scan_ns or loop.free == datagrams.free.size:
        return
    loop.next_scan_ns = now_ns + SCAN_NS
    for row in range(1, datagrams.flows.size):
        flow = datagrams.flows[row]
        stream = flow.answered and flow.last_ns - flow.opened_ns >= loop.stream_after_ns
        if flow.fd >= 0 and now_ns - flow.last_ns >= (loop.stream_idle_ns if stream else loop.idle_ns):
            end(steering, datagrams, row, IDLE)


@kernel
def forget_gone(fib, steering, relay):
    """End the flows that would not be given their backend under this Fib, unless it drains; between breaths only.

    A backend that is ready, but for other frontends only, is gone for this one.
    """
    fib, steering, relay = reference(fib), reference(steering), reference(relay)
    nodes = np.int64(0)
    for i in range(fib.sources.size):
        nodes = max(nodes, np.int64(fib.sources[i]["node"]))
    for row in range(1, relay.datagrams.flows.size):
        flow = relay.datagrams.flows[row]
        if flow.fd >= 0 and not (holds(fib, flow) and _serves(fib, flow, nodes)):
            end(steering, relay.datagrams, row, BACKEND_GONE)
        elif flow.fd >= 0 and not is_heard(fib, relay.datagrams, flow):
            end(steering, relay.datagrams, row, UNHEARD)


@inner
def is_heard(fib, datagrams, flow):
    """Whether the flow's listener is there, and is one for its frontend."""
    listener = datagrams.listeners[flow.listener if flow.listener < datagrams.listeners.size else 0]
    if listener.fd < 0 or listener.port != flow.frontend_port:
        return False
    if listener.ip == 0:
        return shared.answers(fib, flow.frontend_ip, flow.frontend_port, np.uint8(UDP))
    return listener.ip == flow.frontend_ip


@kernel
def _serves(fib, flow, nodes):
    """Whether the flow's backend drains, or is in a pool of the flow's frontend for whatever client."""
    if fib.backends[flow.backend].state == DRAINING:
        return True
    frontend = fib.frontends[find_frontend(fib, flow.frontend_ip, flow.frontend_port, np.uint8(UDP))]
    for i in range(nodes + 1):
        for flag, first in ((INSIDE, np.int64(frontend.inside)), (OUTSIDE, np.int64(frontend.outside))):
            pool = first + i if i == 0 or frontend.by_node & flag else first
            if pool < fib.pools.size and is_member(fib, pool, flow.backend):
                return True
    return False


@kernel
def forget_listener(steering, relay, at_listener):
    """End the flows of a listener that is about to be closed; between breaths only."""
    steering, relay = reference(steering), reference(relay)
    _end_where(steering, relay.datagrams, at_listener, UNHEARD)


@kernel
def end_all(steering, datagrams, how):
    """End the flows that are left."""
    steering, datagrams = reference(steering), reference(datagrams)
    _end_where(steering, datagrams, 0, how)


@kernel
def _end_where(steering, datagrams, at_listener, how):
    """End the flows of one listener, 0 for all."""
    for row in range(1, datagrams.flows.size):
        flow = datagrams.flows[row]
        if flow.fd >= 0 and (at_listener == 0 or flow.listener == at_listener):
            end(steering, datagrams, row, how)
