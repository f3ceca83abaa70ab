"""Begins the TLS of clients, which the gateway goes on with; carries that of clients whom the slow path has.

Those are given a socket of a pair, at whose other end their bytes come and go deciphered. One thread drives all of it
in bounded *breaths*, with the GIL released, as it drives the gateway. A connection goes from state to state
(``layout_tls.STATES``); in some of them it waits for its owner, who has a turn between two breaths.

Law: nothing here blocks, allocates or raises. A hello is looked at before anything of it is taken: who asks for what is
not spoken here is left to the slow path untouched. Nothing is read while whom it is for takes nothing.
"""

import select

import numpy as np

from kernels.jit import kernel, part
from kernels.layout import NETWORK
from kernels.layout_announced import ANNOUNCEMENT, AWAITED, NAMED, OWN_ADDRESS
from kernels.layout_tls import (
    ANNOUNCING,
    CARRYING,
    GREETING,
    HELLO,
    RETURNED,
    SHAKEN,
    SHAKEN_CLIENT,
    SHAKING,
    TLS_CLIENT,
    TLS_LOOP,
    UNTOUCHED,
    VACANT,
    WANTING,
    Terminator,
)
from kernels.layout_wheel import NEVER
from kernels.net import announced, hello, openssl, ring, streams, syscalls, text, wheel
from kernels.reference import reference

WAKE_KEY, LISTENER_KEY, PAIR_KEY = 0, 1 << 30, 1 << 29
GONE = syscalls.EPOLLRDHUP | syscalls.EPOLLHUP | syscalls.EPOLLERR
HEARD = syscalls.EPOLLIN | syscalls.EPOLLRDHUP | syscalls.EPOLLET  # it says more, or has left,
WATCHED = HEARD | syscalls.EPOLLOUT  # and takes more
BATCH = 64  # accepted in one pass
ROUNDS = 16  # steps of one connection in one turn
RETRY_NS = 20_000_000
TICK_NS = 250_000_000


def create(capacity: int, kept: int, library: np.ndarray, trusted: np.ndarray | None = None) -> Terminator:
    """For so many clients, and ``kept`` that a gateway may give back; without a listener or certificates.

    ``trusted``: NETWORK[…], who may announce clients where that is not for everybody.
    """
    rows = capacity + kept + 1
    loop = np.zeros(1, TLS_LOOP)
    loop[0]["epoll"] = loop[0]["listener"] = loop[0]["channel"] = -1
    loop[0]["free"], loop[0]["kept"] = capacity + kept, kept
    shaken = np.zeros(1, SHAKEN_CLIENT)
    return Terminator(
        loop=loop,
        clients=np.zeros(rows, TLS_CLIENT),
        names=np.zeros(1, np.uint64),
        contexts=np.zeros(1, np.uint64),
        library=library,
        hello=np.zeros(1, HELLO),
        buffer=np.zeros(streams.BUFFER_BYTES, np.uint8),
        inward=streams.create_buffers(rows),
        outward=streams.create_buffers(rows),
        free=np.arange(capacity + kept, 0, -1, dtype=np.uint32),
        ready=ring.create(rows),
        timers=wheel.create(rows, TICK_NS),
        handed=np.zeros(rows, np.uint32),
        shaken=shaken,
        shaken_bytes=shaken.view(np.uint8),
        trusted=np.zeros(0, NETWORK) if trusted is None else trusted,
        announcement=np.zeros(1, ANNOUNCEMENT),
        exchange=syscalls.create_exchange(),
    )


@kernel
def breath(some, until_ns):
    """Carry connections until the clock shows ``until_ns``, or its owner is wanted; one pass at least. 0 or -errno."""
    some = reference(some)
    loop = some.loop[0]
    now_ns = syscalls.monotonic_ns(some.exchange)
    woken = False
    while True:
        count = syscalls.wait(some.exchange, loop.epoll, _patience_ms(some, now_ns, until_ns))
        if count < 0 and count != -syscalls.EINTR:
            return count
        now_ns = syscalls.monotonic_ns(some.exchange)
        for i in range(count):
            woken |= _on_event(some, some.exchange.events[i])
        _accept(some, now_ns)
        for _ in range(ring.size(some.ready)):
            row = ring.take(some.ready)
            some.clients[row].queued = 0
            _carry(some, row, now_ns)
        if now_ns >= wheel.next_ns(some.timers):
            _check_times(some, now_ns)
        if woken or loop.handed or now_ns >= until_ns:
            return np.int64(0)


@kernel
def _patience_ms(some, now_ns, until_ns):
    loop = some.loop[0]
    if ring.size(some.ready):
        return np.int64(0)
    until_ns = min(until_ns, wheel.next_ns(some.timers))
    if loop.backlog:
        until_ns = min(until_ns, loop.paused_until_ns)
    return syscalls.patience_ms(now_ns, until_ns)


@kernel
def _on_event(some, event):
    """Note what an event says, and give the connection a turn. Returns whether it ends the breath.

    What OpenSSL waits for is not always what was asked of it, so any event is a reason to try both.
    """
    key = np.int64(event.key)
    if key == LISTENER_KEY:
        some.loop[0].backlog = 1
        return False
    if key == WAKE_KEY:
        return True
    row = key & ~np.int64(PAIR_KEY)
    client = some.clients[row]
    if client.serial != event.serial:
        return False
    if key & PAIR_KEY:
        client.pair_readable = client.pair_writable = 1
    else:
        client.readable = client.writable = 1
        client.hangup |= event.events & GONE != 0
    _queue(some, row)
    return False


@kernel
def _queue(some, row):
    """Give it another turn in the next pass."""
    if not some.clients[row].queued:
        some.clients[row].queued = 1
        ring.put(some.ready, row)


@part
def _accept(some, now_ns):
    """Accept a batch of clients."""
    loop = some.loop[0]
    if not loop.backlog or loop.listener < 0 or now_ns < loop.paused_until_ns:
        return
    for _ in range(BATCH):
        if loop.free <= loop.kept:
            loop.paused_until_ns = now_ns + RETRY_NS
            return
        fd = syscalls.accept(some.exchange, loop.listener)
        if fd == -syscalls.EAGAIN or fd == -syscalls.EBADF or fd == -syscalls.EINVAL:
            loop.backlog = 0
            return
        if fd == -syscalls.EMFILE or fd == -syscalls.ENFILE or fd == -syscalls.ENOBUFS or fd == -syscalls.ENOMEM:
            loop.paused_until_ns = now_ns + RETRY_NS
            return
        ip, port = syscalls.swap32(some.exchange.address[0].ip), syscalls.swap16(some.exchange.address[0].port)
        if fd >= 0 and loop.announced and loop.vetted and not announced.is_within(some.trusted, ip):
            syscalls.close(fd)
        elif fd >= 0:
            row = _seat(some, fd, np.uint64(0), now_ns)
            client = some.clients[row]
            client.ip, client.port = ip, port
            if loop.announced:
                client.announced, client.state = AWAITED, ANNOUNCING
            if not _watch(some, fd, row, HEARD):  # what it has said already is an event, too
                _end(some, row)
            else:  # and where that is nothing, it has no turn
                wheel.file(some.timers, row, _due_ns(some, row), now_ns)


@part
def _seat(some, fd, ssl, now_ns):
    """A row for a connection, which is there."""
    loop = some.loop[0]
    loop.free -= 1
    row = np.int64(some.free[loop.free])
    client = some.clients[row]
    client.fd, client.pair, client.ssl, client.state, client.since_ns = fd, -1, ssl, GREETING, now_ns
    client.in_start = client.in_end = client.out_start = client.out_end = 0
    client.readable = client.pair_readable = client.pair_writable = client.hangup = client.leaves = 0
    client.writable = 1
    client.announced = OWN_ADDRESS
    return row


@part
def _watch(some, fd, key, events):
    """Hear of a socket of a connection. Returns whether that can be."""
    serial = some.clients[key & ~np.int64(PAIR_KEY)].serial
    return syscalls.watch(some.exchange, some.loop[0].epoll, fd, events, key, serial) >= 0


@kernel
def carry(some, fd, ssl, pair, now_ns):
    """Carry what a client by TLS says to and from a socket, which is its own from here on; False: there is no room."""
    some = reference(some)
    if some.loop[0].free == 0:
        return False
    row = _seat(some, fd, ssl, now_ns)
    client = some.clients[row]
    client.pair, client.state, client.readable = pair, CARRYING, 1  # no event tells what its SSL holds
    _queue(some, row)
    if not _watch(some, fd, row, WATCHED) or not _watch(some, pair, PAIR_KEY | row, WATCHED):
        _end(some, row)
    return True


@part
def _carry(some, row, now_ns):
    """Take a connection on from state to state, as far as one turn goes."""
    client = some.clients[row]
    for _ in range(ROUNDS):
        if client.state == ANNOUNCING:
            goes_on = _hear(some, row, now_ns)
        elif client.state == GREETING:
            goes_on = _greet(some, row)
        elif client.state == SHAKING:
            goes_on = _shake(some, row)
        elif client.state == CARRYING:
            goes_on = _inward(some, row, now_ns)
            if client.state == CARRYING:
                goes_on |= _outward(some, row, now_ns)
        else:
            return
        if not goes_on:
            break
    else:
        _queue(some, row)
    wheel.file(some.timers, row, _due_ns(some, row), now_ns)


@part
def _hear(some, row, now_ns):
    """ANNOUNCING: take the header once it is whole. Returns whether there may be more to do, as those below do."""
    client, found = some.clients[row], some.announcement[0]
    if not client.readable:
        return False
    size = syscalls.peek(client.fd, some.buffer[: announced.V2_BYTES])
    if size == -syscalls.EAGAIN:
        client.readable = 0
        return False
    said = announced.read(some.buffer, size, found) if size > 0 else np.int64(0)
    if said < 0:
        some.loop[0].odd += 1
        _hand(some, row, UNTOUCHED)
        return False
    if said == 0:
        client.readable = 0  # more of it is an event
        if size <= 0 or client.hangup:
            _end(some, row)
        return False
    syscalls.receive(client.fd, some.buffer[:said])
    client.announced = OWN_ADDRESS
    if found.named:
        client.ip, client.port, client.announced = found.ip, found.port, NAMED
    client.state, client.since_ns = GREETING, now_ns
    return True


@part
def _greet(some, row):
    """GREETING: look at the hello."""
    client = some.clients[row]
    if not client.readable:
        return False
    size = syscalls.peek(client.fd, some.buffer)
    if size == -syscalls.EAGAIN:
        client.readable = 0
        return False
    if size <= 0:
        _end(some, row)
        return False
    asked = some.hello[0]
    said = hello.read(some.buffer, size, asked)
    if said == 0:
        client.readable = 0  # more of it is an event
        if client.hangup:
            _end(some, row)
        return False
    if said < 0 or asked.others or not asked.http1:
        _hand(some, row, UNTOUCHED)
        return False
    client.name = hello.find(some.names, some.buffer, asked)
    if some.contexts[client.name] == 0:
        _hand(some, row, WANTING)
        return False
    return _begin(some, row)


@part
def _begin(some, row):
    """Begin the handshake; the certificate for the name is there."""
    client = some.clients[row]
    client.ssl = openssl.create(some.library, np.int64(some.contexts[client.name]), client.fd)
    if client.ssl == 0:
        _end(some, row)
        return False
    client.state = SHAKING
    return True


@kernel
def go_on(some, row):
    """The certificate that a connection waited for is there."""
    some = reference(some)
    if _begin(some, row):
        _queue(some, row)


@kernel
def _hand(some, row, state):
    """Have its owner see to a connection."""
    loop = some.loop[0]
    some.clients[row].state = state
    some.handed[loop.handed] = row
    loop.handed += 1


@part
def _shake(some, row):
    """SHAKING: go on with the handshake."""
    client = some.clients[row]
    if not client.readable:
        return False
    done = openssl.accept(some.library, np.int64(client.ssl))
    if done == -syscalls.EAGAIN:
        client.readable = 0
        if openssl.waits_for_room(some.library, np.int64(client.ssl)) and not _await_room(some, row):
            _end(some, row)
    elif done <= 0:
        _end(some, row)
    elif not _pass_on(some, row):
        _hand(some, row, SHAKEN)
    return False


@part
def _await_room(some, row):
    """Hear, too, of when a client takes more. Returns whether that can be."""
    client = some.clients[row]
    return syscalls.rewatch(some.exchange, some.loop[0].epoll, client.fd, WATCHED, row, client.serial) >= 0


@part
def _pass_on(some, row):
    """Give a client whose handshake is done to a gateway. Returns whether it could be; here it is heard of no more."""
    client, loop, shaken = some.clients[row], some.loop[0], some.shaken[0]
    syscalls.unwatch(loop.epoll, client.fd)
    shaken.ssl, shaken.fd, shaken.ip, shaken.port = client.ssl, client.fd, client.ip, client.port
    if loop.channel < 0 or syscalls.transmit(loop.channel, some.shaken_bytes) != some.shaken_bytes.size:
        return False
    forget(some, row)
    return True


@part
def _inward(some, row, now_ns):
    """CARRYING: from the client to the pair."""
    client = some.clients[row]
    if client.leaves:
        return False
    if client.in_start < client.in_end:
        if not client.pair_writable:
            return False
        waiting = some.inward[row, client.in_start : client.in_end]
    else:
        if not client.readable:
            return False
        got = openssl.receive(some.library, np.int64(client.ssl), some.buffer)
        if got == -syscalls.EAGAIN:
            client.readable = 0
            return False
        if got <= 0:
            if got == 0:  # it may wait for our word to close
                openssl.announce_end(some.library, np.int64(client.ssl))
            _end(some, row)
            return False
        client.in_start, client.in_end = 0, got
        waiting = some.buffer[:got]
    sent = syscalls.transmit(client.pair, waiting)
    if sent < 0 and sent != -syscalls.EAGAIN and sent != -syscalls.EINTR:
        client.in_start = client.in_end = 0  # nobody reads on; what was said before goes to the client first
        client.pair_readable = 1
        return False
    rest = max(sent, np.int64(0))
    client.pair_writable = rest == waiting.size
    client.in_end = text.put(some.inward[row], np.int64(0), waiting, rest, np.int64(waiting.size))
    client.in_start = 0
    return client.pair_writable != 0


@part
def _outward(some, row, now_ns):
    """CARRYING: from the pair to the client."""
    client = some.clients[row]
    if client.out_start < client.out_end:
        if not client.writable:
            return False
        waiting = some.outward[row, client.out_start : client.out_end]
    else:
        if not client.pair_readable:
            return False
        got = syscalls.receive(client.pair, some.buffer)
        if got == -syscalls.EAGAIN:
            client.pair_readable = 0
            return False
        if got == 0 and client.leaves:
            _hand(some, row, RETURNED)
            return False
        if got <= 0 and got != -syscalls.EINTR:
            openssl.announce_end(some.library, np.int64(client.ssl))
            _end(some, row)
            return False
        waiting = some.buffer[: max(got, np.int64(0))]
        client.since_ns = now_ns
    if waiting.size == 0:
        return True
    sent = openssl.transmit(some.library, np.int64(client.ssl), waiting)
    if sent <= 0 and sent != -syscalls.EAGAIN:
        _end(some, row)
        return False
    rest = max(sent, np.int64(0))
    if rest > 0:
        client.since_ns = now_ns
    client.writable = rest == waiting.size
    client.out_end = text.put(some.outward[row], np.int64(0), waiting, rest, np.int64(waiting.size))
    client.out_start = 0
    return client.writable != 0


@part
def _end(some, row):
    """Close a connection, and its pair."""
    client = some.clients[row]
    if client.ssl != 0:
        openssl.free(some.library, np.int64(client.ssl))
    if client.pair >= 0:
        syscalls.close(client.pair)
    syscalls.close(client.fd)
    forget(some, row)


@kernel
def forget(some, row):
    """Free a row; what it had is closed, or somebody else's."""
    some = reference(some)
    client, loop = some.clients[row], some.loop[0]
    client.state, client.fd, client.pair, client.ssl = VACANT, -1, -1, 0
    client.serial += 1
    some.free[loop.free] = row
    loop.free += 1
    loop.paused_until_ns = 0


@kernel
def _due_ns(some, row):
    """Until when a sign of life of a client is waited for; NEVER: not at all."""
    client, loop = some.clients[row], some.loop[0]
    if client.state in (ANNOUNCING, GREETING, SHAKING):
        return client.since_ns + loop.head_ns
    if client.state == CARRYING and client.out_start < client.out_end:
        return client.since_ns + loop.send_ns
    return np.int64(NEVER)


@part
def _check_times(some, now_ns):
    """Whoever takes too long over a handshake, or takes nothing, is left."""
    for _ in range(wheel.LOOKS):
        row = wheel.take(some.timers, now_ns)
        if row == 0:
            return
        if wheel.is_late(some.timers, row, _due_ns(some, row), now_ns):
            _end(some, row)


@kernel
def drain(some, now_ns):
    """Accept who waits for it, as far as there are rows, and no more."""
    some = reference(some)
    loop = some.loop[0]
    for _ in range((loop.free - loop.kept) // BATCH + 1):
        _accept(some, now_ns)
    loop.listener, loop.backlog = -1, 0


@kernel
def end_all(some):
    """Close everything that is left."""
    some = reference(some)
    for row in range(1, some.clients.size):
        if some.clients[row].state != VACANT:
            _end(some, row)


@kernel
def watch(some, fd, key):
    """Have a breath hear of the listener or of the wake-up descriptor. 0 or ``-errno``."""
    some = reference(some)
    events = syscalls.EPOLLIN | syscalls.EPOLLET
    return syscalls.watch(some.exchange, some.loop[0].epoll, fd, events, key, 0)


def warm(library: np.ndarray) -> None:
    """Compile everything that a live terminator calls, with the types it is called with."""
    with select.epoll() as epoll:
        some = create(1, 0, library)
        some.loop[0]["epoll"] = epoll.fileno()
        watch(some, -1, WAKE_KEY)
        breath(some, 0)
        drain(some, 0)
        hello.hash_of(some.buffer, 0, 1)
        carry(some, -1, np.uint64(0), -1, 0)  # which ends it, for there is no such socket
        some.loop[0]["free"] = 0  # as if the row was somebody's, here and below
        go_on(some, 1)
        some.loop[0]["free"] = 0
        forget(some, 1)
        end_all(some)
