"""The relay's UDP half: datagrams to frontends, carried to the backend of their flow, and answers back.

    listeners ── recvmmsg ─► place each at its flow ── new: forward, connect ─► send ─► backend
       client ◄── sendmmsg from the frontend's address ── recvmmsg ◄─ the flow's own socket ◄── its answers

Law: every datagram that is read has one fate, and it is counted (``layout.FATES``); none is cut short, none waits here,
and those of one flow keep their order. Nothing blocks, allocates or raises. A breath reads one batch at a time from
each who has some, so nobody starves the others; answers go first, for they end work. One that refuses has a flow ended
and not the client: what could not be sent goes to the backend that is picked next, at once.
"""

import numpy as np

from kernels.jit import kernel
from kernels.layout import (
    AFFINITY,
    ANSWERED,
    BACKEND_GONE,
    BACKEND_REFUSED,
    FORWARDED,
    LISTENER,
    NEW,
    NO_BACKEND,
    NO_FRONTEND,
    NO_SOCKET,
    NONE,
    TABLE_FULL,
    TRACKED,
    TURNED_AWAY,
    UDP,
    UNHEARD,
    UNSENT,
    Relay,
)
from kernels.lb.hashing import flow_hash
from kernels.net import refusal, ring, shared, syscalls, udpflows
from kernels.net.records import decide, record
from kernels.reference import reference

LISTENER_KEY = 1 << 29  # an event's key: this bit and the listener's row; udpflows.FLOW_KEY: a flow's
TRIES = 4  # backends that may refuse a batch: where all do, a datagram does not cost a socket each


def with_listeners(relay: Relay, rows: int) -> Relay:
    """The same relay with room for at least so many UDP listeners; between breaths only."""
    have = relay.datagrams.listeners.size
    if have > rows:
        return relay
    listeners = np.full(2 * rows + 1, np.array((0, 0, 0, 0, -1, 0), LISTENER))
    listeners[:have] = relay.datagrams.listeners
    asking = ring.create(listeners.size)
    waiting = [row for row in range(have) if listeners[row]["queued"]]
    asking.slots[: len(waiting)] = waiting
    asking.ends[1] = len(waiting)
    return relay._replace(datagrams=relay.datagrams._replace(listeners=listeners, asking=asking))


@kernel
def watch(relay, fd, row, serial):
    """Have a breath hear of a UDP listener. 0 or ``-errno``."""
    relay = reference(relay)
    events = syscalls.EPOLLIN | syscalls.EPOLLET
    return syscalls.watch(relay.exchange, relay.loop[0].epoll, fd, events, LISTENER_KEY | row, serial)


@kernel
def attend(datagrams, row):
    """Have a listener's queue looked into."""
    datagrams = reference(datagrams)
    listener = datagrams.listeners[row]
    if not listener.queued:
        listener.queued = 1
        ring.put(datagrams.asking, row)


@kernel
def _attend_flow(datagrams, row):
    """Have the answers to a flow looked into."""
    flow = datagrams.flows[row]
    if not flow.queued:
        flow.queued = 1
        ring.put(datagrams.answering, row)


@kernel
def on_event(datagrams, key, serial):
    """Note who has something to read, or an error: a flow or a listener."""
    if key & udpflows.FLOW_KEY:
        row = key ^ udpflows.FLOW_KEY
        if row < datagrams.flows.size and datagrams.flows[row].serial == serial:
            _attend_flow(datagrams, row)
    else:
        row = key ^ LISTENER_KEY
        if row < datagrams.listeners.size and datagrams.listeners[row].serial == serial:
            attend(datagrams, row)


@kernel
def is_waiting(datagrams):
    """Whether somebody has more to read than one batch."""
    return ring.size(datagrams.answering) > 0 or ring.size(datagrams.asking) > 0


@kernel
def answer(fib, steering, datagrams, now_ns):
    """Carry a batch of answers back from each flow that may have some."""
    for _ in range(ring.size(datagrams.answering)):
        row = ring.take(datagrams.answering)
        datagrams.flows[row].queued = 0
        if datagrams.flows[row].fd >= 0:
            _carry_back(fib, steering, datagrams, row, now_ns)


@kernel
def _carry_back(fib, steering, datagrams, row, now_ns):
    """Answers to one flow, to its client."""
    flow = datagrams.flows[row]
    listener = datagrams.listeners[flow.listener if flow.listener < datagrams.listeners.size else 0]
    if not udpflows.holds(fib, flow):
        udpflows.end(steering, datagrams, row, BACKEND_GONE)
        return
    if not udpflows.is_heard(fib, datagrams, flow):
        udpflows.end(steering, datagrams, row, UNHEARD)
        return
    count = syscalls.receive_messages(datagrams.messages, flow.fd)
    if count < 0 and count != -syscalls.EAGAIN:  # the error comes before the answers that were there first
        flow.refused = 1
        count = syscalls.receive_messages(datagrams.messages, flow.fd)
    syscalls.send_from(datagrams.messages, count, flow.frontend_ip if listener.ip == 0 else np.uint32(0))
    done = np.int64(0)
    while done < count:
        sent = syscalls.send_messages(
            datagrams.messages, listener.fd, done, count, flow.client_ip, np.int64(flow.client_port)
        )
        datagrams.fates[ANSWERED if sent > 0 else UNSENT] += max(sent, 1)
        for i in range(done, done + sent):
            flow.moved_back += np.int64(datagrams.messages.filled[i].bytes)
        done += max(sent, 1)
    if count > 0:
        flow.answered = 1
        flow.last_ns = now_ns
    if count == syscalls.MESSAGES:
        _attend_flow(datagrams, row)
    elif flow.refused:
        udpflows.end(steering, datagrams, row, BACKEND_REFUSED)


@kernel
def ask(fib, steering, relay, now_ns):
    """Carry a batch of datagrams on from each listener that may have some."""
    datagrams = relay.datagrams
    for _ in range(ring.size(datagrams.asking)):
        row = ring.take(datagrams.asking)
        count = _receive(datagrams, row)
        left = count
        for _ in range(TRIES):
            if left == 0:
                break
            opening = _place(fib, steering, datagrams, relay.flows, row, count, now_ns)
            if opening > 0:
                _open(fib, steering, relay, opening, now_ns)
            left = _send(steering, datagrams, count)
        for i in range(count):
            fate = datagrams.decided[i]
            datagrams.fates[fate if fate != NONE else TURNED_AWAY] += 1
            if fate == NO_BACKEND and datagrams.listeners[row].ip == 0:
                _refuse(datagrams, row, i)


@kernel
def _refuse(datagrams, at_listener, i):
    """Say that nobody is there, which the machine would say if the shared listener did not take all of its port."""
    messages, exchange = datagrams.messages, datagrams.exchange
    if syscalls.own_address(exchange, datagrams.listeners[at_listener].fd) < 0:
        return
    port = syscalls.swap16(exchange.address[0].port)  # that was sent to: the frontend's may be a shifted one
    client = syscalls.swap32(messages.senders[i].ip), syscalls.swap16(messages.senders[i].port)
    refusal.send(datagrams, client, (syscalls.swap32(messages.arrivals[i].destination), port))


@kernel
def _receive(datagrams, row):
    """Read a batch from one listener, each datagram of which has its fate before it. Returns how many they are."""
    listener = datagrams.listeners[row]
    listener.queued = 0
    if listener.fd < 0:
        return np.int64(0)
    count = syscalls.receive_messages(datagrams.messages, listener.fd)
    if count < 0 and count != -syscalls.EAGAIN:  # once more, for no other edge would come
        count = syscalls.receive_messages(datagrams.messages, listener.fd)
    if count == syscalls.MESSAGES:
        attend(datagrams, row)
    for i in range(count):
        datagrams.decided[i] = NONE
    return max(count, np.int64(0))


@kernel
def _place(fib, steering, datagrams, batch, at_listener, count, now_ns):
    """Find the flow of each datagram that has no fate yet, or begin one. Returns how many have begun.

    Those are in ``opening``, and in the same places of the relay's batch.
    """
    listener = datagrams.listeners[at_listener]
    opening = 0
    for i in range(count):
        if datagrams.decided[i] != NONE:
            continue
        sender = datagrams.messages.senders[i]
        ip, port = syscalls.swap32(sender.ip), syscalls.swap16(sender.port)
        to_ip = listener.ip if listener.ip != 0 else syscalls.swap32(datagrams.messages.arrivals[i].destination)
        key = flow_hash(ip, to_ip, port, listener.port, np.uint8(UDP))
        row = udpflows.find(datagrams, key, (ip, port), (to_ip, listener.port))
        if row != 0 and datagrams.flows[row].backend != 0 and not udpflows.holds(fib, datagrams.flows[row]):
            udpflows.end(steering, datagrams, row, BACKEND_GONE)
            row = np.int64(0)
        if row == 0 and listener.ip == 0 and not shared.answers(fib, to_ip, listener.port, np.uint8(UDP)):
            steering.outcomes[NO_FRONTEND] += 1
            datagrams.decided[i] = NO_BACKEND
            continue
        if row == 0:
            if datagrams.loop[0].free == 0:
                udpflows.make_room(steering, datagrams, now_ns)
            full = datagrams.loop[0].free == 0
            row = udpflows.begin(datagrams, key, (ip, port), (to_ip, listener.port), at_listener, now_ns)
            if row == 0:
                datagrams.decided[i] = TABLE_FULL if full else NO_SOCKET
                continue
            datagrams.opening[opening] = row
            batch.src_ip[opening] = ip
            batch.src_port[opening] = port
            batch.dst_ip[opening] = to_ip
            batch.dst_port[opening] = listener.port
            batch.proto[opening] = UDP
            opening += 1
        datagrams.places[i] = row
        datagrams.flows[row].last_ns = now_ns
    return opening


@kernel
def _open(fib, steering, relay, count, now_ns):
    """Lead the flows that have begun to the backends that they are given."""
    verdicts = relay.verdicts
    decide(fib, steering, relay.flows, verdicts, count, now_ns)
    for i in range(count):
        outcome = verdicts.outcome[i]
        backend = np.int64(verdicts.backend[i])
        if outcome not in (NEW, TRACKED, AFFINITY) or backend >= fib.backends.size:
            backend = np.int64(0)
        record(fib, relay, i, backend, now_ns)
        udpflows.lead(fib, steering, relay, np.int64(relay.datagrams.opening[i]), backend, outcome == TRACKED)


@kernel
def _send(steering, datagrams, count):
    """Send each datagram that has no fate yet, in order. Returns how many are left, for their flow has ended.

    One system call each: ``sendmmsg`` would swallow the error that tells which was refused.
    """
    left = 0
    for i in range(count):
        if datagrams.decided[i] != NONE:
            continue
        row = np.int64(datagrams.places[i])
        flow = datagrams.flows[row]
        if flow.backend == 0:
            datagrams.decided[i] = flow.fate
            left += flow.fate == NONE
            continue
        sent = syscalls.transmit_message(datagrams.messages, flow.fd, i)
        if sent == -syscalls.ECONNREFUSED:  # one before was: this one has not been sent
            udpflows.end(steering, datagrams, row, BACKEND_REFUSED)
            left += 1
        else:
            datagrams.decided[i] = FORWARDED if sent >= 0 else UNSENT
            flow.moved_on += max(sent, 0)
    return left
