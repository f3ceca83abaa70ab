"""The L7 gateway: requests of HTTP/1.1 to the endpoints of the routes in force.

One thread drives it in bounded *breaths*, with the GIL released, as it drives the relay. A breath makes passes: wait
for events, accept, read, decide, write, look at times. To read is to take each client from state to state
(``layout_gateway.STATES``) as far as it goes; requests that are whole then make a batch, on all of which is decided
before the first of them is sent or answered. A pass leaves nothing in the batch, and a client has one request in it.
Its owner changes what it works with only between breaths, and takes what was handed over.

Law: nothing here blocks, allocates or raises. What is not fully understood is handed over, with its bytes, to the slow
path (``plane.ingress``), between requests or before the first byte of an answer has gone to the client; it stays there.
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
    LATE,
    NO_CONNECTION,
    READING,
    SENDING,
    SLOW_BODY,
    SLOW_REQUEST,
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
    digests,
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
    upstreams,
)

WAKE_KEY, LISTENER_KEY, CHANNEL_KEY = 0, 1 << 30, 1 << 29
BATCH = 64  # accepted in one pass, and decided on together
ROUNDS = 16  # steps of one client in one turn
RETRY_NS = 20_000_000
BEAT_NS = 50_000_000  # what does not come within it is handed over: the rest of a request, a connection
DONE_ROWS = 8192
OUT_BYTES = 3 * streams.BUFFER_BYTES
HOP_BYTES = 160
PIPES = 64


def create(
    capacity: int,
    endpoints: int,
    trusted: np.ndarray | None = None,
    library: np.ndarray | None = None,
    tallies: np.ndarray | None = None,
    *,
    logs: bool = False,
) -> Gateway:
    """A gateway for so many clients and upstream connections, without a listener; ``trusted``: NETWORK[…], None: no.

    ``library``: that of ``openssl.load``, None where nobody comes by TLS. ``tallies``: those of its ingress, None: it
    has some of its own. ``logs``: what is done is noted for an access log.
    """
    loop = np.zeros(1, GATEWAY_LOOP)
    loop[0]["epoll"], loop[0]["listener"], loop[0]["channel"] = -1, -1, -1
    comer = np.zeros(1, SHAKEN_CLIENT)
    loop[0]["clients"] = loop[0]["upstreams"] = capacity
    loop[0]["clients_end"] = loop[0]["upstreams_end"] = 1
    loop[0]["logs"] = logs
    loop[0]["seed"] = np.random.default_rng().integers(1, 1 << 63)
    rows = capacity + 1
    clients, connections = np.zeros(rows, CLIENT), np.zeros(rows, UPSTREAM)
    u1 = np.uint8
    return Gateway(
        loop=loop,
        clients=clients,
        upstreams=connections,
        endpoints=np.zeros(endpoints + 1, ENDPOINT),
        heads=http1.create_heads(rows),
        answer_heads=http1.create_heads(rows),
        uploads=http1.create_bodies(rows),
        bodies=http1.create_bodies(rows),
        asking=np.zeros(1 + BATCH, np.uint32),
        lines=np.zeros((1 + BATCH, LINES), LINE),
        requests=streams.create_buffers(rows),
        answers=streams.create_buffers(rows),
        unsent=streams.create_buffers(3 * rows).reshape(rows, OUT_BYTES),
        out=np.zeros(OUT_BYTES, u1),
        hops=np.zeros((rows, HOP_BYTES), u1),
        nothing=np.zeros(0, u1),
        asked=np.zeros(1 + BATCH, ASK),
        host=np.zeros(HOST_BYTES, u1),
        target=np.zeros(2 * TARGET_BYTES, u1),
        more=np.zeros(FIELDS_BYTES, u1),
        words=np.zeros(digests.WORDS, np.uint64),
        tallies=limits.create(limits.WAYS) if tallies is None else tallies,
        free_clients=np.arange(capacity, 0, -1, dtype=np.uint32),
        free_upstreams=np.arange(capacity, 0, -1, dtype=np.uint32),
        ready=ring.create(rows),
        handed=np.zeros(rows, np.uint32),
        done=np.zeros(DONE_ROWS + rows, DONE_REQUEST),  # times may end each client's request besides
        said=np.zeros((DONE_ROWS + rows) * logs, SAID),
        texts=np.zeros(TEXT_BYTES * logs, u1),
        punts=np.zeros(256, np.int64),
        ours=Ours(np.zeros(37, u1), np.frombuffer(b"Server: trafficplane\r\n", u1).copy(), np.zeros(0, u1)),
        pipes=pipes.create(PIPES),
        trusted=np.zeros(0, NETWORK) if trusted is None else trusted,
        library=np.zeros(len(openssl.FUNCTIONS), np.uint64) if library is None else library,
        comer=comer,
        comer_bytes=comer.view(u1),
        announcement=np.zeros(1, ANNOUNCEMENT),
        exchange=syscalls.create_exchange(),
    )


@kernel
def breath(way, gateway, until_ns):
    """Carry requests until the clock shows ``until_ns``, or its owner is wanted; at least one pass. 0 or ``-errno``."""
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
        if now_ns >= loop.next_tick_ns:
            loop.next_tick_ns = now_ns + loop.tick_ns
            _check_times(gateway, now_ns)
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
    until_ns = min(until_ns, loop.next_tick_ns)
    if loop.backlog or loop.comers:
        until_ns = min(until_ns, loop.paused_until_ns)
    return max(np.int64(0), (until_ns - now_ns + 999_999) // 1_000_000)


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
    requests.queue(gateway, row)
    return False


@kernel
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


@kernel
def _decide(way, gateway, now_ns):
    """Decide on the batch."""
    for place in range(1, gateway.loop[0].asking + 1):
        if gateway.clients[gateway.asking[place]].upstream == 0:  # else it was decided on, and is connected now
            rulings.decide(way, gateway, np.int64(place), now_ns)


@kernel
def _write(way, gateway, now_ns):
    """Send or answer the batch, as was decided. What follows there of a client is for the next pass."""
    loop = gateway.loop[0]
    count = np.int64(loop.asking)
    loop.asking = BATCH
    for place in range(1, count + 1):
        requests.write(way, gateway, place, now_ns)
        row = np.int64(gateway.asking[place])
        client = gateway.clients[row]
        if client.state != WAITING or client.hangup:  # an answer to it is an event
            _carry(way, gateway, row, now_ns)
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
            return
    requests.queue(gateway, row)


@part
def _accept(gateway, now_ns):
    """Accept a batch of clients; what they have sent already is read in this pass."""
    loop = gateway.loop[0]
    if not loop.backlog or loop.listener < 0 or now_ns < loop.paused_until_ns:
        return
    for _ in range(BATCH):
        if loop.clients == 0:
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
                _welcome(gateway, fd, np.uint64(0), ip, np.uint16(0), now_ns)


@part
def _take_comers(gateway, now_ns):
    """Take a batch of clients by TLS out of the channel, where more wait than there is room for."""
    loop = gateway.loop[0]
    if not loop.comers or now_ns < loop.paused_until_ns:
        return
    for _ in range(BATCH):
        if loop.clients == 0:
            loop.paused_until_ns = now_ns + RETRY_NS
            return
        if syscalls.receive(loop.channel, gateway.comer_bytes) != gateway.comer_bytes.size:
            loop.comers = 0
            return
        comer = gateway.comer[0]
        _welcome(gateway, np.int64(comer.fd), comer.ssl, comer.ip, comer.port, now_ns)


@part
def _welcome(gateway, fd, ssl, ip, port, now_ns):
    """Begin with a client; ``ssl`` and ``port`` are of one that came by TLS, 0 for others."""
    loop = gateway.loop[0]
    loop.clients -= 1
    row = np.int64(gateway.free_clients[loop.clients])
    loop.clients_end = max(loop.clients_end, row + 1)
    client = gateway.clients[row]
    client.fd, client.state, client.since_ns, client.ip = fd, READING, now_ns, ip
    client.start = client.end = client.size = client.sent = client.unsent = 0
    client.readable, client.writable, client.hangup, client.used = 1, 1, 0, 0
    client.secured, client.ssl = ssl != 0, ssl
    client.announced = OWN_ADDRESS
    if loop.announced and ssl == 0:
        client.announced, client.state = AWAITED, ANNOUNCING
    arrivals.introduce(gateway, row, ip, port)
    if syscalls.watch(gateway.exchange, loop.epoll, fd, upstreams.WATCHED, row, client.serial) < 0:
        requests.end(gateway, row)
    else:
        requests.queue(gateway, row)


@part
def _check_times(gateway, now_ns):
    """Whoever has waited too long is left, or handed over to whom can say so."""
    loop = gateway.loop[0]
    while loop.clients_end > 1 and gateway.clients[loop.clients_end - 1].state == VACANT:
        loop.clients_end -= 1
    while loop.upstreams_end > 1 and gateway.upstreams[loop.upstreams_end - 1].fd <= 0:
        loop.upstreams_end -= 1
    for row in range(1, np.int64(loop.clients_end)):
        client = gateway.clients[row]
        state, age = client.state, now_ns - client.since_ns
        if state == READING:
            if client.end > client.start:
                if age > BEAT_NS:
                    requests.hand_over(gateway, row, SLOW_REQUEST)
            elif age > (loop.keep_alive_ns if client.used else loop.head_ns):
                requests.end(gateway, row)
        elif state == ANNOUNCING and age > loop.head_ns:
            requests.end(gateway, row)
        elif state == CONNECTING and age > BEAT_NS:
            requests.redial(gateway, row, NO_CONNECTION)
        elif state == STREAMING and client.sent == client.unsent:
            if age > loop.body_ns:
                requests.hand_over(gateway, row, SLOW_BODY)
        elif state in (SENDING, STREAMING, WAITING):
            patience_ns = client.read_ns if state == WAITING else client.send_ns
            if now_ns - gateway.upstreams[client.upstream].since_ns > patience_ns:
                requests.hand_over(gateway, row, LATE)
        elif state == ANSWERING:
            if client.sent < client.unsent:
                if age > loop.send_ns:
                    requests.give_up(gateway, row, requests.CLIENT_LEFT, now_ns)
            elif now_ns - gateway.upstreams[client.upstream].since_ns > client.read_ns:
                requests.give_up(gateway, row, requests.LATE_ANSWER, now_ns)
    for row in range(1, np.int64(loop.upstreams_end)):
        upstream = gateway.upstreams[row]
        if upstream.fd > 0 and upstream.client == 0 and now_ns - upstream.since_ns > loop.idle_ns:
            upstreams.close_idle(gateway, row)


@kernel
def close_left(gateway):
    """Close the idle connections to endpoints that have left."""
    loop = gateway.loop[0]
    for row in range(1, np.int64(loop.upstreams_end)):
        upstream = gateway.upstreams[row]
        if upstream.fd > 0 and upstream.client == 0 and gateway.endpoints[upstream.endpoint].left:
            upstreams.close_idle(gateway, row)


@kernel
def drain(gateway, now_ns):
    """Accept who waits for it, as far as there are rows, and no more; then clients that ask for nothing leave."""
    loop = gateway.loop[0]
    for _ in range(loop.clients // BATCH + 1):
        _accept(gateway, now_ns)
    loop.draining, loop.listener, loop.backlog = 1, -1, 0
    for row in range(1, np.int64(loop.clients_end)):
        if gateway.clients[row].state in (READING, ANNOUNCING):
            requests.queue(gateway, row)


@kernel
def leave(gateway):
    """Hand over everybody who has got nothing of the answer in hand."""
    loop = gateway.loop[0]
    for row in range(1, np.int64(loop.clients_end)):
        state = gateway.clients[row].state
        if state == CONNECTING or (state == READING and gateway.clients[row].upstream != 0):
            requests.redial(gateway, row, FAILED)
        elif state in (READING, ANNOUNCING, SENDING, STREAMING, WAITING):
            requests.hand_over(gateway, row, FAILED)


@kernel
def end_all(gateway, now_ns):
    """Close everything that is left."""
    loop = gateway.loop[0]
    for row in range(1, np.int64(loop.clients_end)):
        state = gateway.clients[row].state
        if CONNECTING <= state <= ANSWERING:
            requests.give_up(gateway, row, requests.CLIENT_LEFT, now_ns)
        elif state != VACANT and state != HANDED:
            requests.end(gateway, row)
    for row in range(1, np.int64(loop.upstreams_end)):
        if gateway.upstreams[row].fd > 0:
            upstreams.close_idle(gateway, row)
    pipes.close_all(gateway.pipes)


@kernel
def watch(gateway, fd, key):
    """Have a breath hear of the listener, the channel or the wake-up descriptor. 0 or ``-errno``."""
    events = syscalls.EPOLLIN | syscalls.EPOLLET
    return syscalls.watch(gateway.exchange, gateway.loop[0].epoll, fd, events, key, 0)


def warm(way) -> None:
    """Compile everything that a live gateway calls, with the types it is called with."""
    with select.epoll() as epoll:
        gateway = create(1, 1)
        gateway.loop[0]["epoll"] = epoll.fileno()
        watch(gateway, -1, WAKE_KEY)
        breath(way, gateway, 0)
        drain(gateway, 0)
        leave(gateway)
        close_left(gateway)
        end_all(gateway, 0)
        gateway.loop[0]["clients"] = gateway.loop[0]["upstreams"] = 0  # as if each was somebody's
        requests.forget(gateway, 1)
        upstreams.forget(gateway, 1)
