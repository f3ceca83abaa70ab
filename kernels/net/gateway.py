"""The L7 gateway: requests of HTTP/1.1 to the endpoints of the routes in force.

One thread drives it in bounded *breaths*, with the GIL released, as it drives the relay. A breath makes passes: wait
for events, accept, read, decide, write, look at times. To read is to take each client from state to state
(``layout_gateway.STATES``) as far as it goes; requests that are whole then make a batch, on all of which is decided
before the first of them is sent or answered. A pass leaves nothing in the batch, and a client has one request in it.
Its owner changes what it works with only between breaths, and takes what was handed over.

Law: nothing here blocks, allocates or raises. What is not fully understood is handed over, with its bytes, to the slow
path (``plane.ingress``), between requests or before the first byte of an answer has gone to the client; and may come
back between two requests.
"""

import select

import numpy as np

from kernels.jit import kernel, part
from kernels.layout import NETWORK
from kernels.layout_announced import ANNOUNCEMENT, AWAITED, OWN_ADDRESS
from kernels.layout_gateway import (
    ANNOUNCING,
    ANSWERING,
    CLIENT,
    CONNECTING,
    DONE_REQUEST,
    ENDPOINT,
    FAILED,
    GATEWAY_LOOP,
    HANDED,
    READING,
    SENDING,
    STREAMING,
    UPSTREAM,
    VACANT,
    WAITING,
    Gateway,
)
from kernels.layout_http import LINE, LINES, TARGET_BYTES, Ours
from kernels.layout_log import SAID, TEXT_BYTES
from kernels.layout_routes import ASK, FIELDS_BYTES, HOST_BYTES
from kernels.layout_tls import SHAKEN_CLIENT
from kernels.net import (
    announced,
    arrivals,
    bodies,
    digests,
    forwarded,
    http1,
    limits,
    openssl,
    pipes,
    replies,
    requests,
    ring,
    rulings,
    streams,
    syscalls,
    times,
    upstreams,
    wheel,
)
from kernels.reference import reference

WAKE_KEY, LISTENER_KEY, CHANNEL_KEY = 0, 1 << 30, 1 << 29
BATCH = 64  # accepted in one pass, and decided on together
ROUNDS = 16  # steps of one client in one turn
RETRY_NS = 20_000_000
DONE_ROWS = 8192
OUT_BYTES = 3 * streams.BUFFER_BYTES
PIPES = 64
COMER_BYTES = SHAKEN_CLIENT.itemsize


def create(
    capacity: int,
    endpoints: int,
    trusted: np.ndarray | None = None,
    library: np.ndarray | None = None,
    tallies: np.ndarray | None = None,
    *,
    logs: bool = False,
    tick_ns: int = times.BEAT_NS,
) -> Gateway:
    """A gateway for so many clients and upstream connections, without a listener; ``trusted``: NETWORK[…], None: no.

    ``library``: that of ``openssl.load``, None where nobody comes by TLS. ``tallies``: those of its ingress, None: it
    has some of its own. ``logs``: what is done is noted for an access log. ``tick_ns``: how exactly times are kept.
    """
    rows, u1 = capacity + 1, np.uint8
    return Gateway(
        loop=_create_loop(capacity, logs),
        **_create_tables(rows, endpoints),
        **_create_room(),
        tallies=limits.create(limits.WAYS) if tallies is None else tallies,
        free_clients=np.arange(capacity, 0, -1, dtype=np.uint32),
        free_upstreams=np.arange(capacity, 0, -1, dtype=np.uint32),
        ready=ring.create(rows),
        timers=wheel.create(2 * rows, tick_ns),
        handed=np.zeros(rows, np.uint32),
        done=np.zeros(DONE_ROWS + rows, DONE_REQUEST),  # each client's request may end besides
        said=np.zeros((DONE_ROWS + rows) * logs, SAID),
        texts=np.zeros(TEXT_BYTES * logs, u1),
        punts=np.zeros(256, np.int64),
        ours=Ours(np.zeros(37, u1), np.frombuffer(b"Server: trafficplane\r\n", u1).copy(), np.zeros(0, u1)),
        pipes=pipes.create(PIPES),
        trusted=np.zeros(0, NETWORK) if trusted is None else trusted,
        library=np.zeros(len(openssl.FUNCTIONS), np.uint64) if library is None else library,
        exchange=syscalls.create_exchange(),
    )


def _create_loop(capacity: int, logs: bool) -> np.ndarray:
    loop = np.zeros(1, GATEWAY_LOOP)
    loop["epoll"] = loop["listener"] = loop["channel"] = -1
    loop["clients"] = loop["upstreams"] = capacity
    loop["logs"] = logs
    loop["seed"] = np.random.default_rng().integers(1, 1 << 63)
    return loop


def _create_tables(rows: int, endpoints: int) -> dict[str, np.ndarray]:
    """What there is a row of for each client, each connection to an endpoint, or each endpoint."""
    return {
        "clients": np.zeros(rows, CLIENT),
        "upstreams": np.zeros(rows, UPSTREAM),
        "endpoints": np.zeros(endpoints + 1, ENDPOINT),
        "heads": http1.create_heads(rows),
        "answer_heads": http1.create_heads(rows),
        "uploads": bodies.create(rows),
        "bodies": bodies.create(rows),
        "requests": streams.create_buffers(rows),
        "answers": streams.create_buffers(rows),
        "unsent": streams.create_buffers(3 * rows).reshape(rows, OUT_BYTES),
        "hops": np.zeros((rows, forwarded.HOP_BYTES), np.uint8),
    }


def _create_room() -> dict[str, np.ndarray]:
    """The batch, and where something of one request at a time is read, decided or composed."""
    comers = np.zeros(BATCH, SHAKEN_CLIENT)
    return {
        "asking": np.zeros(1 + BATCH, np.uint32),
        "lines": np.zeros((1 + BATCH, LINES), LINE),
        "out": np.zeros(OUT_BYTES, np.uint8),
        "asked": np.zeros(1 + BATCH, ASK),
        "host": np.zeros(HOST_BYTES, np.uint8),
        "target": np.zeros(2 * TARGET_BYTES, np.uint8),
        "more": np.zeros(FIELDS_BYTES, np.uint8),
        "words": np.zeros(digests.WORDS, np.uint64),
        "comers": comers,
        "comers_bytes": comers.view(np.uint8),
        "announcement": np.zeros(1, ANNOUNCEMENT),
    }


@kernel
def breath(way, gateway, until_ns):
    """Carry requests until the clock shows ``until_ns``, or its owner is wanted; at least one pass. 0 or ``-errno``."""
    way, gateway = reference(way), reference(gateway)
    loop = gateway.loop[0]
    now_ns = syscalls.monotonic_ns(gateway.exchange)
    woken = False
    while True:
        count = syscalls.wait(gateway.exchange, loop.epoll, _patience_ms(gateway, now_ns, until_ns))
        if count < 0 and count != -syscalls.EINTR:
            return count
        now_ns = syscalls.monotonic_ns(gateway.exchange)
        for i in range(count):
            woken |= _on_event(gateway, gateway.exchange.events[i])
        _accept(gateway, now_ns)
        _take_comers(gateway, now_ns)
        turns = ring.size(gateway.ready)
        while turns > 0:
            turns = _read(way, gateway, turns, now_ns)
            _decide(way, gateway, now_ns)
            _write(way, gateway, now_ns)
        if now_ns >= wheel.next_ns(gateway.timers):
            times.check(gateway, now_ns)
        if woken or loop.handed or _is_full(loop) or now_ns >= until_ns:
            return np.int64(0)


@kernel
def _is_full(loop):
    """Whether one more turn and the batch may bring more requests done than there is room for, or more text of them."""
    return loop.done + 1 + BATCH > DONE_ROWS or 2 * loop.texts > TEXT_BYTES


@kernel
def _patience_ms(gateway, now_ns, until_ns):
    loop = gateway.loop[0]
    if ring.size(gateway.ready):
        return np.int64(0)
    until_ns = min(until_ns, wheel.next_ns(gateway.timers))
    if loop.backlog or loop.comers:
        until_ns = min(until_ns, loop.paused_until_ns)
    return syscalls.patience_ms(now_ns, until_ns)


@part
def _on_event(gateway, event):
    """Note what an event says, and give the client a turn. Returns whether it ends the breath."""
    key, events = np.int64(event.key), event.events
    readable = events & (syscalls.EPOLLIN | syscalls.EPOLLRDHUP | syscalls.EPOLLHUP | syscalls.EPOLLERR) != 0
    writable = events & syscalls.EPOLLOUT != 0
    hangup = events & (syscalls.EPOLLRDHUP | syscalls.EPOLLHUP) != 0
    failed = events & syscalls.EPOLLERR != 0
    if key & upstreams.UPSTREAM_KEY:
        row = key ^ upstreams.UPSTREAM_KEY
        upstream = gateway.upstreams[row]
        if upstream.serial != event.serial:
            return False
        upstream.readable |= readable
        upstream.writable |= writable
        upstream.hangup |= hangup
        upstream.failed |= failed
        if upstream.client == 0:
            upstreams.on_idle(gateway, row)
            return False
        row = np.int64(upstream.client)
    elif key == LISTENER_KEY:
        gateway.loop[0].backlog = 1
        return False
    elif key == CHANNEL_KEY:
        gateway.loop[0].comers = 1
        return False
    elif key == WAKE_KEY:
        return True
    else:
        row = key
        client = gateway.clients[row]
        if client.serial != event.serial:
            return False
        client.readable |= readable
        client.writable |= writable
        client.hangup |= hangup | failed
        if readable and client.ssl != 0 and CONNECTING <= client.state <= ANSWERING and client.state != STREAMING:
            # Nobody reads meanwhile, and by TLS the end is something that it says: it may wait for ours to close.
            client.hangup |= openssl.has_ended(gateway.library, np.int64(client.ssl), gateway.out[:1])
    requests.queue(gateway, row)
    return False


@part
def _read(way, gateway, turns, now_ns):
    """So many clients have a turn, or fewer, until the batch is full of requests that are whole. The turns left."""
    loop = gateway.loop[0]
    while turns > 0 and loop.asking < BATCH:
        if _is_full(loop):
            return np.int64(0)
        row = ring.take(gateway.ready)
        gateway.clients[row].queued = 0
        _carry(way, gateway, row, now_ns)
        turns -= 1
    return turns


@part
def _decide(way, gateway, now_ns):
    """Decide on the batch."""
    for place in range(1, gateway.loop[0].asking + 1):
        if gateway.clients[gateway.asking[place]].upstream == 0:  # else it was decided on, and is connected now
            rulings.decide(way, gateway, np.int64(place), now_ns)


@part
def _write(way, gateway, now_ns):
    """Send or answer the batch, as was decided. What follows there of a client is for the next pass."""
    loop = gateway.loop[0]
    count = np.int64(loop.asking)
    loop.asking = BATCH
    for place in range(1, count + 1):
        requests.write(way, gateway, place, now_ns)
        row = np.int64(gateway.asking[place])
        client = gateway.clients[row]
        if client.state != WAITING or client.hangup or gateway.upstreams[client.upstream].readable:
            _carry(way, gateway, row, now_ns)
        else:  # an answer to it is an event
            times.file(gateway, row, now_ns)
    loop.asking = 0


@part
def _carry(way, gateway, row, now_ns):
    """Take a client on from state to state, as far as one turn goes."""
    client = gateway.clients[row]
    for _ in range(ROUNDS):
        state = client.state
        if client.hangup and CONNECTING <= state <= ANSWERING:
            requests.give_up(gateway, row, requests.CLIENT_LEFT, now_ns)
            return
        if state == READING:
            goes_on = requests.read(way, gateway, row, now_ns)
        elif state == CONNECTING:
            goes_on = requests.connect(gateway, row)
        elif state == SENDING:
            goes_on = requests.send_rest(gateway, row)
        elif state == STREAMING:
            goes_on = requests.stream(gateway, row, now_ns)
        elif state == WAITING:
            goes_on = replies.read_head(way, gateway, row, now_ns)
        elif state == ANSWERING:
            goes_on = replies.pass_on(gateway, row, now_ns)
        elif state == ANNOUNCING:
            goes_on = arrivals.hear(gateway, row, now_ns)
        else:
            return
        if not goes_on:
            break
    else:
        requests.queue(gateway, row)
    times.file(gateway, row, now_ns)


@part
def _accept(gateway, now_ns):
    """Accept a batch of clients; what they have sent already is read in this pass."""
    loop = gateway.loop[0]
    if not loop.backlog or loop.listener < 0 or now_ns < loop.paused_until_ns:
        return
    for _ in range(BATCH):
        idle = _longest_idle(gateway)
        if loop.clients == 0 and idle == 0:
            loop.paused_until_ns = now_ns + RETRY_NS
            return
        fd = syscalls.accept(gateway.exchange, loop.listener)
        if fd == -syscalls.EAGAIN or fd == -syscalls.EBADF or fd == -syscalls.EINVAL:
            loop.backlog = 0
            return
        if fd == -syscalls.EMFILE or fd == -syscalls.ENFILE or fd == -syscalls.ENOBUFS or fd == -syscalls.ENOMEM:
            loop.paused_until_ns = now_ns + RETRY_NS
            return
        if fd >= 0:
            ip = syscalls.swap32(gateway.exchange.address[0].ip)
            if loop.announced and loop.vetted and not announced.is_within(gateway.trusted, ip):
                syscalls.close(fd)
            else:
                _crowd_out(gateway, idle)
                _welcome(gateway, fd, np.uint64(0), ip, syscalls.swap16(gateway.exchange.address[0].port), now_ns)
                if idle != 0:  # to look for one takes long: others have a turn before the next
                    return


@part
def _take_comers(gateway, now_ns):
    """Take a batch of clients by TLS out of the channel, where more wait than there is room for."""
    loop = gateway.loop[0]
    if not loop.comers or now_ns < loop.paused_until_ns:
        return
    idle = _longest_idle(gateway)
    if loop.clients == 0 and idle == 0:
        loop.paused_until_ns = now_ns + RETRY_NS
        return
    most = min(max(np.int64(loop.clients), 1), gateway.comers.size) * COMER_BYTES
    got = syscalls.receive(loop.channel, gateway.comers_bytes[:most])
    loop.comers = got == most or got == -syscalls.EINTR
    for i in range(max(got, np.int64(0)) // COMER_BYTES):
        comer = gateway.comers[i]
        _crowd_out(gateway, idle)
        _welcome(gateway, np.int64(comer.fd), comer.ssl, comer.ip, comer.port, now_ns)


@part
def _longest_idle(gateway):
    """Where no row is free, that of the client from which nothing has come for the longest; 0: there is none, or room.

    It may be closed as one whose time between two requests is over: nothing of a request of it is here.
    """
    clients, oldest = gateway.clients, np.int64(0)
    if gateway.loop[0].clients > 0:
        return oldest
    for row in range(1, clients.size):
        client = clients[row]
        idle = client.state == READING and client.end == client.start and client.upstream == 0 and not client.queued
        if idle and (oldest == 0 or client.since_ns < clients[oldest].since_ns):
            oldest = np.int64(row)
    if oldest != 0 and syscalls.peek(clients[oldest].fd, gateway.out[:1]) != -syscalls.EAGAIN:
        return np.int64(0)  # of which an event is on its way
    return oldest


@part
def _crowd_out(gateway, row):
    """Close a client, if any, for another who waits."""
    if row != 0:
        requests.end(gateway, row)
        gateway.loop[0].crowded_out += 1


@part
def _welcome(gateway, fd, ssl, ip, port, now_ns):
    """Begin with a client; ``ssl`` is of one that came by TLS, 0 for others. Its row, 0: it is closed."""
    loop = gateway.loop[0]
    loop.clients -= 1
    row = np.int64(gateway.free_clients[loop.clients])
    client = gateway.clients[row]
    client.fd, client.state, client.since_ns, client.ip = fd, READING, now_ns, ip
    client.start = client.end = client.size = client.sent = client.unsent = 0
    client.readable, client.writable, client.hangup, client.used = 1, 1, 0, 0
    client.secured, client.ssl, client.told_of_room, client.corked = ssl != 0, ssl, 0, 0
    if ssl != 0 and not loop.draining:  # who has just shaken hands has seldom said more, and if so, it is an event
        client.readable = openssl.holds_bytes(gateway.library, np.int64(ssl))
    client.announced, client.answers, client.stay = OWN_ADDRESS, 0, 0
    if loop.announced and ssl == 0:
        client.announced, client.state = AWAITED, ANNOUNCING
    arrivals.introduce(gateway, row, ip, port)
    if syscalls.watch(gateway.exchange, loop.epoll, fd, requests.HEARD, row, client.serial) < 0:
        requests.end(gateway, row)
        return np.int64(0)
    requests.queue(gateway, row)
    return row


@kernel
def welcome_back(gateway, fd, ssl, ip, port, heard, stay, now_ns):
    """Go on with a client whom the slow path gives back after ``stay`` requests, and who is known to be at ``ip``.

    ``heard``: OWN_ADDRESS or NAMED, by which that is known. Returns False where there is no room: it is not taken.
    """
    gateway = reference(gateway)
    if gateway.loop[0].clients == 0:
        return False
    row = _welcome(gateway, np.int64(fd), np.uint64(ssl), np.uint32(ip), np.uint16(port), np.int64(now_ns))
    if row != 0:
        client = gateway.clients[row]
        client.state, client.announced, client.used, client.stay = READING, heard, 1, stay
    return True


@kernel
def close_left(gateway, endpoints):
    """Close the idle connections to these endpoints, int64[...] of their rows, which have left."""
    gateway = reference(gateway)
    for i in range(endpoints.size):
        while gateway.endpoints[endpoints[i]].last != 0:
            upstreams.close_idle(gateway, np.int64(gateway.endpoints[endpoints[i]].last))


@kernel
def drain(gateway, now_ns):
    """Accept who waits for it, as far as there are rows, and no more; then clients that ask for nothing leave."""
    gateway = reference(gateway)
    loop = gateway.loop[0]
    for _ in range(loop.clients // BATCH + 1):
        _accept(gateway, now_ns)
    loop.draining, loop.listener, loop.backlog = 1, -1, 0
    for row in range(1, gateway.clients.size):
        if gateway.clients[row].state in (READING, ANNOUNCING):
            requests.queue(gateway, row)


@kernel
def leave(gateway):
    """Hand over everybody who has got nothing of the answer in hand."""
    gateway = reference(gateway)
    for row in range(1, gateway.clients.size):
        state = gateway.clients[row].state
        if state == CONNECTING or (state == READING and gateway.clients[row].upstream != 0):
            requests.redial(gateway, row, FAILED)
        elif state in (READING, ANNOUNCING, SENDING, STREAMING, WAITING):
            requests.hand_over(gateway, row, FAILED)


@kernel
def end_all(gateway, now_ns):
    """Close everything that is left."""
    gateway = reference(gateway)
    for row in range(1, gateway.clients.size):
        state = gateway.clients[row].state
        if CONNECTING <= state <= ANSWERING:
            requests.give_up(gateway, row, requests.CLIENT_LEFT, now_ns)
        elif state != VACANT and state != HANDED:
            requests.end(gateway, row)
    for row in range(1, gateway.upstreams.size):
        if gateway.upstreams[row].fd > 0:
            upstreams.close_idle(gateway, row)
    pipes.close_all(gateway.pipes)


@kernel
def watch(gateway, fd, key):
    """Have a breath hear of the listener, the channel or the wake-up descriptor. 0 or ``-errno``."""
    gateway = reference(gateway)
    events = syscalls.EPOLLIN | syscalls.EPOLLET
    return syscalls.watch(gateway.exchange, gateway.loop[0].epoll, fd, events, key, 0)


def warm(way) -> None:
    """Compile everything that a live gateway calls, with the types it is called with."""
    with select.epoll() as epoll:
        gateway = create(1, 1)
        gateway.loop[0]["epoll"] = epoll.fileno()
        watch(gateway, -1, WAKE_KEY)
        breath(way, gateway, 0)
        welcome_back(gateway, -1, 0, 0, 0, 0, 0, 0)  # which ends it, for there is no such socket
        drain(gateway, 0)
        leave(gateway)
        close_left(gateway, np.zeros(0, np.int64))
        end_all(gateway, 0)
        gateway.loop[0]["clients"] = gateway.loop[0]["upstreams"] = 0  # as if each was somebody's
        requests.forget(gateway, 1)
        upstreams.forget(gateway, 1)
