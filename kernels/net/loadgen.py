"""The load generator: clients that ask in a closed loop over TCP or UDP, and how long each answer took.

One thread drives it in bounded *breaths*, with the GIL released. Each client has one request under way: it connects,
asks, reads the answer, and asks again, on the same connection or, ``fresh``, on a new one. The request and the answer
are those of ``kernels.net.answers``; a datagram's answer is its echo.

    idle ── connect ─► DIALLING ── writable ─► ASKING ── whole answer ─► its latency, then ASKING or idle again
                           └─ HOLDING, ask_all ─┘└────── anything else ─► a miss, counted by its reason, then idle

Law: nothing is measured that was not answered rightly. A breath ends when there is no room for as many latencies as
one wait may bring, so none is lost. Nothing here allocates, blocks beyond ``until_ns`` or raises.
"""

import select
from collections.abc import Sequence

import numpy as np

from kernels.jit import kernel
from kernels.layout import (
    ADDRESS,
    ALONE,
    ASKING,
    CLIENT,
    DIALLING,
    EOF,
    HOLDING,
    LOAD,
    MISSES,
    NO_CONNECTION,
    NO_PORT,
    OVERDUE,
    RESET,
    TCP,
    UDP,
    WRONG,
    Load,
)
from kernels.net import answers, syscalls
from kernels.reference import reference

BUFFER_BYTES = 1 << 18
LATENCIES = 1 << 16
DIALLED_AT_ONCE = 128  # connects under way: fewer than any listener's queue has room for
WATCHED = syscalls.EPOLLIN | syscalls.EPOLLOUT | syscalls.EPOLLRDHUP | syscalls.EPOLLET
OVER = syscalls.EPOLLRDHUP | syscalls.EPOLLHUP | syscalls.EPOLLERR


def create(
    proto: int,
    targets: Sequence[tuple[int, int]],
    sources: Sequence[int],
    clients: int,
    request_bytes: int,
    answer_bytes: int,
    *,
    fresh: bool = False,
    hold: bool = False,
) -> Load:
    """Clients that are all idle; their owner sets ``loop[0]["epoll"]`` before the first breath.

    targets  (address, port) as integers in host order, for clients in turn
    sources  addresses that clients connect from, in turn; empty: as the system has it
    fresh    a connection for each request
    hold     clients that have connected hold until ``ask_all``, so that no connect competes with requests

    Raises ValueError where a request has no room for its id, or a datagram's answer is not its echo.
    """
    if request_bytes < answers.HEAD or answer_bytes < answers.HEAD:
        raise ValueError(f"a request and its answer have at least {answers.HEAD} bytes, for the request's id")
    if proto == UDP and request_bytes != answer_bytes:
        raise ValueError("the answer to a datagram is its echo: as many bytes")
    loop = np.zeros(1, LOAD)
    loop[0]["proto"], loop[0]["fresh"], loop[0]["answer_bytes"] = proto, fresh, answer_bytes
    loop[0]["epoll"], loop[0]["idle"], loop[0]["hold"] = -1, clients, hold
    block = answers.create_block()
    return Load(
        loop=loop,
        clients=np.zeros(clients, CLIENT),
        idle=np.arange(clients - 1, -1, -1, dtype=np.uint32),
        targets=np.array([(ip, port, 0) for ip, port in targets], ADDRESS),
        sources=np.array(sources or [0], np.uint32),
        request=block[[int(answers.place(i)) for i in range(request_bytes)]],
        block=block,
        buffer=np.empty(BUFFER_BYTES, np.uint8),
        latencies=np.empty(LATENCIES, np.int64),
        misses=np.zeros(len(MISSES), np.int64),
        exchange=syscalls.create_exchange(),
    )


@kernel
def breath(load, until_ns):
    """Ask until the clock shows ``until_ns``, or until there is too little room for latencies.

    Returns 0, or ``-errno`` where the epoll set is broken.
    """
    load = reference(load)
    loop = load.loop[0]
    now_ns = syscalls.monotonic_ns(load.exchange)
    while now_ns < until_ns and load.latencies.size - loop.answered >= syscalls.EVENTS:
        _dial_idle(load, now_ns)
        count = syscalls.wait(load.exchange, loop.epoll, syscalls.patience_ms(now_ns, until_ns))
        if count < 0 and count != -syscalls.EINTR:
            return count
        for i in range(count):
            _on_event(load, load.exchange.events[i])
        now_ns = syscalls.monotonic_ns(load.exchange)
    return np.int64(0)


@kernel
def ask_all(load):
    """Have those that hold ask, and nobody hold from here on."""
    load = reference(load)
    load.loop[0].hold = 0
    for row in range(load.clients.size):
        if load.clients[row].state == HOLDING:
            load.clients[row].state = ASKING
            _ask(load, row, syscalls.monotonic_ns(load.exchange))


@kernel
def give_up_overdue(load, before_ns):
    """Count those requests and connects as missed, and drop their connections, that began before."""
    load = reference(load)
    for row in range(load.clients.size):
        client = load.clients[row]
        if client.began_ns < before_ns and (client.state == DIALLING or client.state == ASKING):
            _miss(load, row, OVERDUE)


@kernel
def end_all(load):
    """Close every connection there is."""
    load = reference(load)
    for row in range(load.clients.size):
        if load.clients[row].state != ALONE:
            _hang_up(load, row)


@kernel
def _dial_idle(load, now_ns):
    """Have idle clients connect, as far as not too many do so already."""
    loop = load.loop[0]
    for _ in range(min(loop.idle, DIALLED_AT_ONCE - loop.dialling)):
        loop.idle -= 1
        if not _dial(load, np.int64(load.idle[loop.idle]), now_ns):
            return


@kernel
def _dial(load, row, now_ns):
    """Start a client's connect. Returns whether that is under way; else the client is idle again, and has missed."""
    loop, client, exchange = load.loop[0], load.clients[row], load.exchange
    client.began_ns = now_ns
    client.state = DIALLING
    loop.dialling += 1
    client.fd = syscalls.stream_socket() if loop.proto == TCP else syscalls.datagram_socket()
    if client.fd < 0:
        _miss(load, row, NO_PORT)
        return False
    if loop.proto == TCP:
        syscalls.set_option(exchange, client.fd, syscalls.IPPROTO_TCP, syscalls.TCP_NODELAY, 1)
    source = load.sources[row % load.sources.size]
    if source:
        syscalls.set_option(exchange, client.fd, syscalls.IPPROTO_IP, syscalls.IP_BIND_ADDRESS_NO_PORT, 1)
        if syscalls.bind(exchange, client.fd, source, 0) < 0:
            _miss(load, row, NO_PORT)
            return False
    target = load.targets[row % load.targets.size]
    answer = syscalls.connect(exchange, client.fd, target.ip, np.int64(target.port))
    if answer < 0 and answer != -syscalls.EINPROGRESS:
        _miss(load, row, NO_PORT if answer == -syscalls.EADDRNOTAVAIL else NO_CONNECTION)
        return False
    if syscalls.watch(exchange, loop.epoll, client.fd, WATCHED, row, client.serial) < 0:
        _miss(load, row, NO_PORT)
        return False
    return True


@kernel
def _on_event(load, event):
    row = np.int64(event.key)
    if row >= load.clients.size or load.clients[row].serial != event.serial:
        return
    client = load.clients[row]
    if client.state == DIALLING:
        if event.events & (syscalls.EPOLLERR | syscalls.EPOLLHUP):
            _miss(load, row, NO_CONNECTION)
        elif event.events & syscalls.EPOLLOUT:
            _connected(load, row)
    elif client.state == HOLDING and event.events & OVER:
        _miss(load, row, EOF)
    elif client.state == ASKING:
        if client.sent < load.request.size and not _send(load, row):
            return
        _read(load, row, event.events & OVER)


@kernel
def _connected(load, row):
    loop, client = load.loop[0], load.clients[row]
    loop.dialling -= 1
    client.state = HOLDING if loop.hold else ASKING
    if client.state == ASKING:
        _ask(load, row, client.began_ns if loop.fresh else syscalls.monotonic_ns(load.exchange))


@kernel
def _ask(load, row, now_ns):
    """Begin a client's next request."""
    loop, client = load.loop[0], load.clients[row]
    client.id = loop.asked
    loop.asked += np.uint64(1)
    client.began_ns = now_ns
    client.sent = 0
    client.received = 0
    _send(load, row)


@kernel
def _send(load, row):
    """Hand the rest of the request to the kernel, as far as it takes it. Returns whether the connection is still up."""
    client = load.clients[row]
    answers.put_id(load.request, client.id)
    sent = syscalls.transmit(client.fd, load.request[client.sent :])
    if sent >= 0:
        client.sent += sent
    elif sent != -syscalls.EAGAIN:
        _miss(load, row, RESET)
        return False
    return True


@kernel
def _read(load, row, over):
    """Read what there is of the answer; one byte more is asked for, so a read that fills what it may is not the last.

    ``over``: the other side has ended or failed, so read to the end, no event will come again.
    """
    loop, client = load.loop[0], load.clients[row]
    while True:
        room = min(loop.answer_bytes - client.received + 1, load.buffer.size)
        got = syscalls.receive(client.fd, load.buffer[:room])
        if got == -syscalls.EAGAIN:
            return
        if got <= 0:
            _miss(load, row, EOF if got == 0 else RESET)
            return
        whole = client.received + got == loop.answer_bytes and client.sent == load.request.size
        cut_off = loop.proto != TCP and not whole
        if cut_off or not answers.is_right(load.block, load.buffer[:got], client.received, client.id):
            _miss(load, row, WRONG)
            return
        client.received += got
        if whole:
            _answered(load, row)
            return
        if client.received >= loop.answer_bytes:
            _miss(load, row, WRONG)
            return
        if got < room and not over:
            return


@kernel
def _answered(load, row):
    """Put down how long the answer took, and go on."""
    loop, client = load.loop[0], load.clients[row]
    now_ns = syscalls.monotonic_ns(load.exchange)
    load.latencies[loop.answered] = now_ns - client.began_ns
    loop.answered += 1
    if loop.fresh:
        _hang_up(load, row)
    else:
        _ask(load, row, now_ns)


@kernel
def _miss(load, row, why):
    """Count a request that has no right answer, and drop its connection by reset."""
    load.misses[why] += 1
    if load.clients[row].fd >= 0:
        syscalls.reset_on_close(load.exchange, load.clients[row].fd)
    _hang_up(load, row)


@kernel
def _hang_up(load, row):
    """Close a client's connection; it is idle from here on."""
    loop, client = load.loop[0], load.clients[row]
    if client.state == DIALLING:
        loop.dialling -= 1
    if client.fd >= 0:
        syscalls.close(client.fd)
    client.fd = -1
    client.serial += 1
    client.state = ALONE
    load.idle[loop.idle] = row
    loop.idle += 1


def warm() -> None:
    """Compile everything that a live load calls, with the types it is called with."""
    with select.epoll() as epoll:
        load = create(UDP, [(0x7F000001, 9)], [], 1, answers.HEAD, answers.HEAD)
        load.loop[0]["epoll"] = epoll.fileno()
        breath(load, 0)
        ask_all(load)
        give_up_overdue(load, 0)
        end_all(load)
