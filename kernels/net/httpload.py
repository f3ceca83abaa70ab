"""The load generator: requests in a closed or an open loop, and a row for what became of each.

It speaks HTTP/1.1, plain or by TLS, and echo over TCP or UDP: a message that begins with the request's id, and whose
answer is the message itself.

One thread drives it in bounded *breaths*, with the GIL released. What is due is given to an idle client, else to one
that connects for it; it waits while there is neither, and its row says so.

    UNCONNECTED ── due ─► CONNECTING (► SHAKING) ► ASKING ── whole answer ─► the next that is due, IDLE or UNCONNECTED
         ▲                    └────────────┴──────────┴── anything else ─► an error, then UNCONNECTED
         └─ the other side closes ── IDLE

Law: what is due ends exactly once, as one row, answered or with an error, at the latest when its timeout is over, which
counts from when it was *due*. Nothing is pipelined. An idempotent request on a kept connection that turns out closed
before any byte of an answer is sent once more (RFC 9112 9.3.1), and an echo never. A breath ends where there is no room
for rows, so none is lost. Nothing here allocates, blocks beyond ``until_ns`` or raises.

All work is steps of one client at a time (``_carry``), so that each is compiled once.
"""

import select
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kernels.jit import kernel, part
from kernels.layout import ADDRESS
from kernels.layout_load import (
    ANSWER,
    ASKING,
    CLIENT,
    CONNECT_FAILED,
    CONNECT_REFUSED,
    CONNECTING,
    DIAL,
    EOF,
    HEAD,
    HTTP,
    IDLE,
    INTERRUPTED,
    LOOP,
    NEVER,
    NO_DESCRIPTOR,
    NO_LOCAL_PORT,
    PROTOCOL,
    REQUEST,
    RESET,
    ROW,
    SHAKING,
    TIMEOUT,
    TLS_FAILED,
    TO_END,
    UDP_ECHO,
    UNCONNECTED,
    Load,
)
from kernels.net import clienttls, heads, httpanswers, messages, openssl, syscalls
from kernels.net.httpanswers import MORE
from kernels.net.messages import ID_DIGITS
from kernels.reference import reference

BUFFER_BYTES = 1 << 18
ROWS = 1 << 15
ROOM = 4  # rows and dials that one client's steps may fill
DIALLED_AT_ONCE = 128  # connects under way: fewer than any listener's queue has room for
SWEEP_NS = 20_000_000
LATE_NS = 1_000_000
PAUSE_NS = 100_000_000  # of a closed loop's turn after a request without an answer: an outage is not amplified
SPIN_NS = 20_000  # an answer that comes sooner costs less to look for than to be woken by
MOST_ASLEEP = 1023
FAR_NS = 1 << 62
ERROR_STATUS = 400
DRAWN = 1 << 16

WATCHED = syscalls.EPOLLIN | syscalls.EPOLLOUT | syscalls.EPOLLRDHUP | syscalls.EPOLLET
OVER = syscalls.EPOLLRDHUP | syscalls.EPOLLHUP | syscalls.EPOLLERR

# Steps of a client; those above 0 are errors of its request, which ends with them.
ANSWERED, WAIT, DIALLING, SECURING, SENDING, READING = 0, -1, -2, -3, -4, -5
NOBODY = -1


class Asked(NamedTuple):
    """One of the requests of a load.

    content     all its bytes
    id_at       where in them the 16 hex digits of the request's id are put; negative: nowhere
    weight      how often it is sent, beside the others, where the load has no order
    bodiless    its method is HEAD
    idempotent  it may be sent a second time
    """

    content: bytes
    id_at: int = -1
    weight: int = 1
    bodiless: bool = False
    idempotent: bool = True


class Secured(NamedTuple):
    """How connections are secured by TLS.

    library  ``openssl.load_client``
    context  address of an SSL_CTX, ``openssl.ClientContext``
    name     whom they ask for (SNI); empty: nobody
    resume   a client's next connection resumes the session of its last
    """

    library: np.ndarray
    context: int
    name: str = ""
    resume: bool = False


def create(
    targets: Sequence[tuple[int, int]],
    requests: Sequence[Asked],
    clients: int,
    *,
    due: np.ndarray | None = None,
    start_ns: int = 0,
    end_ns: int = FAR_NS,
    timeout_ns: int = FAR_NS,
    sources: Sequence[int] = (),
    kept: bool = True,
    id_key: int = 0,
    order: np.ndarray | None = None,
    speech: int = HTTP,
    secured: Secured | None = None,
) -> Load:
    """A load that has not begun; its owner sets ``loop[0]["epoll"]`` before the first breath.

    targets   (address, port) as integers in host order, for clients in turn
    due       int64[n], ascending: an open loop of these times; None: a closed loop from ``start_ns`` to ``end_ns``
    sources   addresses that connections come from, in turn; empty: as the system has it
    kept      connections are used again as far as answers allow it
    order     uint32[...]: which of the requests each row is, by its number, over and over; None: drawn by weight
    speech    HTTP, TCP_ECHO or UDP_ECHO, whose requests have their id and are not idempotent
    secured   by TLS, which HTTP alone may be

    Raises ValueError where there is nobody to ask, nothing to ask for, or no room for an id.
    """
    if not targets or not requests or clients < 1:
        raise ValueError("a load needs at least one target, one request and one client")
    for asked in requests:
        if asked.weight < 1 or asked.id_at > len(asked.content) - ID_DIGITS:
            raise ValueError("a request needs a weight of at least 1, and 16 bytes where its id is put")
    if order is not None and not (len(order) and order.min() >= 0 and order.max() < len(requests)):
        raise ValueError("an order names at least one request, and none that is not there")
    if speech != HTTP and (secured or any(asked.id_at < 0 or asked.idempotent for asked in requests)):
        raise ValueError("an echo has its id in it, is sent once, and goes without TLS")
    loop = np.zeros(1, LOOP)
    for name, value in {
        "end_ns": end_ns,
        "timeout_ns": timeout_ns,
        "free_ns": NEVER,
        "id_key": id_key,
        "epoll": -1,
        "unconnected": clients,
        "waiting": 0 if due is not None else clients,
        "open": due is not None,
        "kept": kept,
        "speech": speech,
        "context": secured.context if secured else 0,
        "resume": bool(secured and secured.resume),
    }.items():
        loop[0][name] = value
    rows = np.zeros(clients, CLIENT)
    rows["fd"] = -1
    sizes = [len(asked.content) for asked in requests]
    table = np.zeros(len(requests), REQUEST)
    table["start"], table["size"] = np.cumsum([0, *sizes[:-1]]), sizes
    for name in ("id_at", "bodiless", "idempotent"):
        table[name] = [getattr(asked, name) for asked in requests]
    return Load(
        loop=loop,
        clients=rows,
        idle=np.zeros(clients, np.uint32),
        unconnected=np.arange(clients - 1, -1, -1, dtype=np.uint32),
        due=np.zeros(0, np.int64) if due is None else np.array(due, np.int64),
        turns=np.full(clients, start_ns, np.int64),
        targets=np.array([(ip, port, 0) for ip, port in targets], ADDRESS),
        sources=np.array(list(sources) or [0], np.uint32),
        requests=table,
        order=_drawn(requests) if order is None else np.array(order, np.uint32),
        bytes=np.frombuffer(b"".join(asked.content for asked in requests), np.uint8).copy(),
        answer=np.zeros(1, ANSWER),
        buffer=np.empty(heads.HEAD_BYTES + BUFFER_BYTES, np.uint8),
        heads=np.empty((clients, heads.HEAD_BYTES), np.uint8),
        rows=np.zeros(ROWS, ROW),
        dials=np.zeros(ROWS, DIAL),
        library=secured.library if secured else np.zeros(0, np.uint64),
        name=np.frombuffer(secured.name.encode() + b"\0" if secured and secured.name else b"", np.uint8).copy(),
        exchange=syscalls.create_exchange(),
    )


def _drawn(requests: Sequence[Asked]) -> np.ndarray:
    """An order by weight, the same for equal weights."""
    share = np.array([asked.weight for asked in requests], np.float64)
    if len(share) == 1:
        return np.zeros(1, np.uint32)
    return np.random.default_rng(0).choice(len(share), DRAWN, p=share / share.sum()).astype(np.uint32)


def is_over(load: Load) -> bool:
    """Whether everything that was due has ended, and nothing more will be due."""
    loop = load.loop[0]
    if loop["active"]:
        return False
    if loop["stopping"] or not loop["open"]:
        return bool(loop["stopping"] or loop["now_ns"] >= loop["end_ns"])
    return int(loop["next"]) >= len(load.due)


@kernel
def breath(load, until_ns):
    """Ask until the clock shows ``until_ns``, until all is over, or until there is too little room for rows.

    Returns 0, or ``-errno`` where the epoll set is broken.
    """
    load = reference(load)
    loop = load.loop[0]
    loop.now_ns = syscalls.monotonic_ns(load.exchange)
    while loop.now_ns < until_ns and load.rows.size - loop.rows >= ROOM and load.dials.size - loop.dials >= ROOM:
        row, step = _pick(load)
        if row != NOBODY:
            _carry(load, row, step)
        elif step != WAIT:
            _put_unsent(load, step)
        elif loop.active == 0 and (loop.stopping or _is_all_sent(load)):
            return np.int64(0)
        else:
            loop.event = 0
            loop.events = 0
            count = _wait(load, min(until_ns, _next_ns(load)) - loop.now_ns)
            if count < 0 and count != -syscalls.EINTR:
                return count
            loop.events = max(0, count)
            loop.now_ns = syscalls.monotonic_ns(load.exchange)
    return np.int64(0)


@kernel
def end_all(load):
    """Close every connection there is, and forget sessions."""
    load = reference(load)
    for row in range(load.clients.size):
        client = load.clients[row]
        if client.ssl != 0:
            clienttls.end(load.library, client, load.loop[0].resume)
        if client.session != 0:
            openssl.free_session(load.library, np.int64(client.session))
            client.session = 0
        if client.fd >= 0:
            syscalls.close(client.fd)
            client.fd = -1


@kernel
def _is_all_sent(load):
    loop = load.loop[0]
    return loop.next >= load.due.size if loop.open else loop.now_ns >= loop.end_ns


@kernel
def _wait(load, timeout_ns):
    """Wait for events. An old kernel waits by whole milliseconds, and the rest of one is spent on asking again."""
    loop = load.loop[0]
    if loop.coarse == 0:
        if loop.active > 0 and timeout_ns > 0:
            count = _look(load, timeout_ns)
            if count != 0 and count != -syscalls.ENOSYS:
                return count
            timeout_ns -= syscalls.monotonic_ns(load.exchange) - loop.now_ns
        count = syscalls.wait_ns(load.exchange, loop.epoll, max(0, timeout_ns))
        if count != -syscalls.ENOSYS:
            return count
        loop.coarse = 1
    return syscalls.wait(load.exchange, loop.epoll, max(0, timeout_ns) // 1_000_000)


@kernel
def _look(load, timeout_ns):
    """Look for events without a sleep, as long as they are likely to be there sooner than a thread that sleeps.

    Falling asleep and being woken take microseconds, and of the latter whoever answers pays the most. After a look in
    vain twice as many waits begin without one, so that a server that is slow, or has the same core, is left in peace.
    """
    loop = load.loop[0]
    if loop.asleep < loop.vain:
        loop.asleep += 1
        return np.int64(0)
    loop.asleep = 0
    count = syscalls.wait_ns(load.exchange, loop.epoll, np.int64(0))
    spun_ns = np.int64(0)
    while count == 0 and spun_ns < min(SPIN_NS, timeout_ns):
        count = syscalls.wait_ns(load.exchange, loop.epoll, np.int64(0))
        spun_ns = syscalls.monotonic_ns(load.exchange) - loop.now_ns
    loop.spun_ns += spun_ns
    if count == 0 and spun_ns >= SPIN_NS:
        loop.vain = min(2 * loop.vain + 1, MOST_ASLEEP)
    elif count > 0 and spun_ns > 0:
        loop.vain = 0
    return count


@kernel
def _due_ns(load):
    """When the next request is due, FAR_NS where none is."""
    loop = load.loop[0]
    if loop.stopping:
        return np.int64(FAR_NS)
    if loop.open:
        return load.due[loop.next] if loop.next < load.due.size else np.int64(FAR_NS)
    if loop.waiting == 0 or load.turns[loop.turn] >= loop.end_ns:
        return np.int64(FAR_NS)
    return load.turns[loop.turn]


@kernel
def _has_client(loop):
    return loop.idle > 0 or (loop.unconnected > 0 and loop.dialling < DIALLED_AT_ONCE)


@kernel
def _next_ns(load):
    """When there is something to do even if nothing happens."""
    loop = load.loop[0]
    due_ns = _due_ns(load)
    next_ns = np.int64(FAR_NS) if loop.open else loop.end_ns
    if loop.active > 0 or due_ns <= loop.now_ns:
        next_ns = min(next_ns, loop.sweep_ns)
    return min(next_ns, due_ns) if due_ns > loop.now_ns or _has_client(loop) else next_ns


@kernel
def _pick(load):
    """What to do next: a client and its step. NOBODY with an error: what waits for a client ends with that.

    What is due comes first, so that answers, however many, do not make it late.
    """
    loop = load.loop[0]
    if loop.now_ns >= loop.sweep_ns or loop.swept > 0:
        row, step = _sweep(load)
        if row != NOBODY or step != WAIT:
            return row, step
    due_ns = _due_ns(load)
    if due_ns <= loop.now_ns:
        if _has_client(loop):
            return _give(load, due_ns)
        loop.full = 1
    while loop.event < loop.events:
        event = load.exchange.events[loop.event]
        loop.event += 1
        row = np.int64(event.key)
        if row < load.clients.size and load.clients[row].serial == event.serial:
            return row, _heard(load, row, np.int64(event.events))
    return np.int64(NOBODY), np.int64(WAIT)


@kernel
def _give(load, due_ns):
    """Give what is due to a client. Returns it and its first step."""
    loop = load.loop[0]
    if loop.full:
        loop.full = 0
        loop.free_ns = loop.now_ns
    late_ns = loop.now_ns - max(due_ns, loop.free_ns)
    loop.late += late_ns > LATE_NS
    loop.latest_ns = max(loop.latest_ns, late_ns)
    if loop.idle > 0:
        loop.idle -= 1
        row = np.int64(load.idle[loop.idle])
        step = np.int64(SENDING)
    else:
        loop.unconnected -= 1
        row = np.int64(load.unconnected[loop.unconnected])
        step = np.int64(DIALLING)
    _take(load, row)
    return row, step


@kernel
def _take(load, row):
    """The client has the next request that is due."""
    loop, client = load.loop[0], load.clients[row]
    asked = client.row
    asked.intended_ns = loop.now_ns
    if loop.open:
        asked.intended_ns = load.due[loop.next]
    else:
        loop.waiting -= 1
        loop.turn = (loop.turn + 1) % load.turns.size
    asked.number = loop.next
    loop.next += 1
    asked.start_ns = loop.now_ns
    asked.connected_ns = NEVER
    asked.tls_done_ns = NEVER
    asked.attempts = 0
    asked.bytes_out = 0
    asked.connection = NEVER
    asked.reused = 0
    client.answers = load.order[asked.number % load.order.size]
    client.busy = 1
    loop.active += 1
    _begin(client)


@kernel
def _begin(client):
    """Nothing of its request is sent, nothing of the answer there."""
    asked = client.row
    asked.sent_ns = NEVER
    asked.request_sent_ns = NEVER
    asked.first_byte_ns = NEVER
    asked.done_ns = NEVER
    asked.bytes_in = 0
    asked.status = 0
    asked.error = 0
    client.sent = 0
    client.held = 0
    client.part = HEAD
    client.state = ASKING


@kernel
def _sweep(load):
    """The next client whose request is overdue, and else what waits for a client and is."""
    loop = load.loop[0]
    before_ns = loop.now_ns - loop.timeout_ns
    error = np.int64(INTERRUPTED) if loop.stopping else np.int64(TIMEOUT)
    while loop.swept < load.clients.size:
        row = np.int64(loop.swept)
        loop.swept += 1
        if load.clients[row].busy and (loop.stopping or load.clients[row].row.intended_ns <= before_ns):
            return row, error
    if loop.open and loop.next < load.due.size and load.due[loop.next] <= (loop.now_ns if loop.stopping else before_ns):
        return np.int64(NOBODY), error
    loop.swept = 0
    loop.sweep_ns = loop.now_ns + SWEEP_NS
    return np.int64(NOBODY), np.int64(WAIT)


@kernel
def _put_unsent(load, error):
    """A row for the next request that is due: it ends before a client had it."""
    loop = load.loop[0]
    row = load.rows[loop.rows]
    loop.rows += 1
    row.number = loop.next
    row.intended_ns = load.due[loop.next]
    row.start_ns = NEVER
    row.connected_ns = NEVER
    row.tls_done_ns = NEVER
    row.sent_ns = NEVER
    row.request_sent_ns = NEVER
    row.first_byte_ns = NEVER
    row.done_ns = NEVER
    row.bytes_in = 0
    row.bytes_out = 0
    row.connection = NEVER
    row.status = 0
    row.error = error
    row.attempts = 0
    row.reused = 0
    loop.next += 1
    loop.done += 1
    loop.bad += 1


@kernel
def _heard(load, row, events):
    """What an event means to its client: its next step."""
    client = load.clients[row]
    client.over = (events & OVER) != 0
    if client.state == CONNECTING:
        if events & (syscalls.EPOLLERR | syscalls.EPOLLHUP):
            return _why(syscalls.receive(client.fd, load.buffer[:1]))
        if events & syscalls.EPOLLOUT:
            client.over = (events & (OVER | syscalls.EPOLLIN)) != 0  # who speaks unasked is heard, and not asked again
            return _connected(load, row)
        return np.int64(WAIT)
    if client.state == SHAKING:
        return np.int64(SECURING)
    if client.state == IDLE:
        by_tls = client.ssl != 0 and not client.over  # what TLS has to say for itself may be all there is
        if by_tls and clienttls.receive(load.library, client, load.buffer[:1]) == -syscalls.EAGAIN:
            return np.int64(WAIT)
        # Closed, or bytes nobody asked for: no answer here could be trusted; a datagram is told by its id.
        if events & OVER or (events & syscalls.EPOLLIN and load.loop[0].speech != UDP_ECHO):
            _leave_idle(load, row)
            _hang_up(load, row)
        return np.int64(WAIT)
    if client.state == ASKING and client.sent < load.requests[client.answers].size:
        return np.int64(SENDING)
    return np.int64(READING if client.state == ASKING else WAIT)


@kernel
def _why(answer):
    """Why there is no connection."""
    if answer == -syscalls.ECONNREFUSED:
        return np.int64(CONNECT_REFUSED)
    if answer == -syscalls.EADDRNOTAVAIL or answer == -syscalls.EADDRINUSE:
        return np.int64(NO_LOCAL_PORT)
    if answer == -syscalls.EMFILE or answer == -syscalls.ENFILE:
        return np.int64(NO_DESCRIPTOR)
    return np.int64(CONNECT_FAILED)


@kernel
def _carry(load, row, step):
    """Take a client's steps until it waits for an event, or for something to do."""
    while step != WAIT:
        if step == DIALLING:
            step = _dial(load, row)
        elif step == SECURING:
            step = _secure(load, row)
        elif step == SENDING:
            step = _send(load, row)
        elif step == READING:
            step = _read(load, row)
        else:
            step = _ended(load, row, step)


@kernel
def _dial(load, row):
    loop, client, exchange = load.loop[0], load.clients[row], load.exchange
    client.state = CONNECTING
    loop.dialling += 1
    client.began_ns = loop.now_ns
    client.connection = NEVER
    client.used = 0
    client.over = 0
    client.fd = syscalls.datagram_socket() if loop.speech == UDP_ECHO else syscalls.stream_socket()
    if client.fd < 0:
        return _why(np.int64(client.fd))
    if loop.speech != UDP_ECHO:
        syscalls.set_option(exchange, client.fd, syscalls.IPPROTO_TCP, syscalls.TCP_NODELAY, 1)
    source = load.sources[loop.dialled % load.sources.size]
    if source:
        # The port is chosen at connect(2), so that one address has 28,000 ports to each destination.
        syscalls.set_option(exchange, client.fd, syscalls.IPPROTO_IP, syscalls.IP_BIND_ADDRESS_NO_PORT, 1)
        answer = syscalls.bind(exchange, client.fd, source, 0)
        if answer < 0:
            return _why(answer)
    client.connection = loop.dialled
    loop.dialled += 1
    target = load.targets[row % load.targets.size]
    answer = syscalls.connect(exchange, client.fd, target.ip, np.int64(target.port))
    if answer < 0 and answer != -syscalls.EINPROGRESS:
        return _why(answer)
    answer = syscalls.watch(exchange, loop.epoll, client.fd, WATCHED, row, client.serial)
    if answer != 0:
        return _why(answer)
    return _connected(load, row) if loop.speech == UDP_ECHO else np.int64(WAIT)


@kernel
def _connected(load, row):
    """The connection is there, or the socket of datagrams. Returns the next step."""
    loop, client = load.loop[0], load.clients[row]
    loop.dialling -= 1
    client.row.connected_ns = loop.now_ns
    syscalls.own_address(load.exchange, client.fd)
    address = load.exchange.address[0]
    _put_dial(load, client, loop.now_ns, syscalls.swap32(address.ip), syscalls.swap16(address.port))
    if loop.context == 0:
        _begin(client)
        return np.int64(SENDING)
    client.state = SHAKING
    client.ssl = openssl.create(load.library, np.int64(loop.context), client.fd)
    if client.ssl == 0:
        return np.int64(TLS_FAILED)
    openssl.ask_for(load.library, np.int64(client.ssl), load.name)
    if client.session != 0:
        openssl.resume(load.library, np.int64(client.ssl), np.int64(client.session))
    return np.int64(SECURING)


@part
def _secure(load, row):
    """Go on with the handshake."""
    loop, client = load.loop[0], load.clients[row]
    done = openssl.connect(load.library, np.int64(client.ssl))
    if done == -syscalls.EAGAIN:
        return np.int64(WAIT)
    if done <= 0:
        return np.int64(TLS_FAILED)
    loop.now_ns = syscalls.monotonic_ns(load.exchange)
    client.row.tls_done_ns = loop.now_ns
    loop.resumed += openssl.is_resumed(load.library, np.int64(client.ssl))
    _begin(client)
    return np.int64(SENDING)


@kernel
def _put_dial(load, client, connected_ns, ip, port):
    dial = load.dials[load.loop[0].dials]
    load.loop[0].dials += 1
    dial.began_ns = client.began_ns
    dial.connected_ns = connected_ns
    dial.connection = client.connection
    dial.ip = ip
    dial.port = port


@kernel
def _send(load, row):
    """Hand the request to the kernel, as far as it takes it."""
    loop, client = load.loop[0], load.clients[row]
    asked = load.requests[client.answers]
    if client.sent == 0 and client.row.sent_ns == NEVER:
        client.state = ASKING
        client.row.sent_ns = loop.now_ns
        client.row.connection = client.connection
        client.row.reused = client.used > 0
        client.row.attempts += 1
        client.row.bytes_out += asked.size
        client.left = asked.size  # of an echo
        client.used += 1
    if asked.id_at >= 0:
        messages.put_id(load.bytes, asked.start + asked.id_at, np.uint64(client.row.number) ^ loop.id_key)
    first = asked.start + client.sent
    sent = clienttls.transmit(load.library, client, load.bytes[first : asked.start + asked.size])
    if sent < 0:
        return np.int64(READING) if sent == -syscalls.EAGAIN else _lost(sent)
    client.sent += sent
    loop.now_ns = syscalls.monotonic_ns(load.exchange)
    if client.sent == asked.size:
        client.row.request_sent_ns = loop.now_ns
        return np.int64(READING if client.over else WAIT)
    return np.int64(SENDING)  # until there is no room: then it reads, for an echo may wait for some


@kernel
def _lost(answer):
    """Why there is no connection any more; that nobody takes datagrams is known once one is sent."""
    return np.int64(CONNECT_REFUSED if answer == -syscalls.ECONNREFUSED else RESET)


@kernel
def _read(load, row):
    """Read what there is of the answer."""
    loop, client = load.loop[0], load.clients[row]
    while True:
        held = np.int64(client.held)
        for i in range(held):
            load.buffer[i] = load.heads[row, i]
        client.held = 0
        room = load.buffer.size - held
        got = clienttls.receive(load.library, client, load.buffer[held:])
        if got == -syscalls.EAGAIN:
            httpanswers.put_aside(load.buffer, np.int64(0), held, client, load.heads[row])
            return np.int64(WAIT)
        if got < 0:
            return _lost(got)
        if got == 0:
            return np.int64(ANSWERED if client.part == TO_END else PROTOCOL if loop.speech == UDP_ECHO else EOF)
        loop.now_ns = syscalls.monotonic_ns(load.exchange)
        if client.row.bytes_in == 0:
            client.row.first_byte_ns = loop.now_ns
        client.row.bytes_in += got
        asked = load.requests[client.answers]
        if loop.speech == HTTP:
            step = httpanswers.take_in(load.buffer, held + got, client, asked, load.answer[0], load.heads[row])
        else:
            number = np.uint64(client.row.number) ^ loop.id_key
            step = messages.compare(load.buffer, got, client, asked, load.bytes, number, loop.speech == UDP_ECHO)
        if step == ANSWERED and client.ssl != 0:
            client.keep &= clienttls.is_quiet(load.library, client, load.buffer)
        if step != MORE:
            return step
        # By TLS a read ends with a record, and of datagrams with each.
        if client.ssl == 0 and loop.speech != UDP_ECHO and got < room and not client.over:
            return np.int64(WAIT)


@kernel
def _ended(load, row, error):
    """The request is over, or is sent once more; the client goes on with the next."""
    loop, client = load.loop[0], load.clients[row]
    asked = client.row
    lost = error in (EOF, RESET)
    again = lost and client.state == ASKING and asked.reused and asked.bytes_in == 0 and asked.attempts == 1
    if again and load.requests[client.answers].idempotent:
        _hang_up(load, row)
        loop.unconnected -= 1
        _begin(client)
        return np.int64(DIALLING)
    if client.state == CONNECTING and client.connection >= 0:
        _put_dial(load, client, np.int64(NEVER), np.uint32(0), np.uint16(0))
    if error == 0:
        asked.done_ns = loop.now_ns
    asked.error = error
    load.rows[loop.rows] = asked
    loop.rows += 1
    loop.done += 1
    loop.bad += error != 0 or asked.status >= ERROR_STATUS
    loop.bytes_in += asked.bytes_in
    loop.active -= 1
    client.busy = 0
    if not loop.open:
        _put_turn(load, error)
    if error != 0 or not client.keep or not loop.kept or client.over:
        if error != 0 and error != EOF and client.fd >= 0:
            syscalls.reset_on_close(load.exchange, client.fd)
        _hang_up(load, row)
        return np.int64(WAIT)
    if _due_ns(load) <= loop.now_ns and loop.idle == 0:
        loop.full = 0
        loop.free_ns = loop.now_ns
        _take(load, row)
        return np.int64(SENDING)
    client.state = IDLE
    client.place = loop.idle
    load.idle[loop.idle] = row
    loop.idle += 1
    return np.int64(WAIT)


@kernel
def _put_turn(load, error):
    """Closed loop: the next request is due, at once and before those that pause, or after a pause."""
    loop = load.loop[0]
    if error == 0:
        loop.turn = (loop.turn + load.turns.size - 1) % load.turns.size
        load.turns[loop.turn] = loop.now_ns
    else:
        load.turns[(loop.turn + loop.waiting) % load.turns.size] = loop.now_ns + PAUSE_NS
    loop.waiting += 1


@kernel
def _leave_idle(load, row):
    """Take a client out of those that are idle; the last of them takes its place."""
    loop, place = load.loop[0], load.clients[row].place
    loop.idle -= 1
    last = load.idle[loop.idle]
    load.idle[place] = last
    load.clients[last].place = place


@kernel
def _hang_up(load, row):
    """Close a client's connection; it is unconnected from here on."""
    loop, client = load.loop[0], load.clients[row]
    if client.state == CONNECTING:
        loop.dialling -= 1
    if client.ssl != 0:
        clienttls.end(load.library, client, load.loop[0].resume)
    if client.fd >= 0:
        syscalls.close(client.fd)
    client.fd = -1
    client.serial += 1
    client.state = UNCONNECTED
    load.unconnected[loop.unconnected] = row
    loop.unconnected += 1


def warm() -> None:
    """Compile everything that a live load calls, with the types it is called with."""
    with select.epoll() as epoll:
        load = create([(0x7F000001, 9)], [Asked(b"GET / HTTP/1.1\r\n\r\n")], 1)
        load.loop[0]["epoll"] = epoll.fileno()
        breath(load, 0)
        end_all(load)
