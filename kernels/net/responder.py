"""The responder: a server that costs next to nothing, so that what stands in front of it is measured.

One thread drives it in bounded *breaths*, with the GIL released. Over TCP each request, of a fixed length, gets an
answer of the length of its listener, both as ``kernels.net.answers`` has it; a datagram is sent back as it came.

Law: a client has one request under way; one that sends more, and one that there is no row for, is reset and counted.
Nothing here allocates, blocks beyond ``until_ns`` or raises.
"""

import select
from collections.abc import Sequence

import numpy as np

from kernels.jit import kernel
from kernels.layout import CALLER, DESK, ROOM, TCP, UDP, Responder
from kernels.net import answers, syscalls
from kernels.reference import reference

DESK_KEY = 1 << 31  # an event's key: this bit and the row of a desk; without it, the row of a caller
WATCHED = syscalls.EPOLLIN | syscalls.EPOLLOUT | syscalls.EPOLLRDHUP | syscalls.EPOLLET
OVER = syscalls.EPOLLRDHUP | syscalls.EPOLLHUP | syscalls.EPOLLERR


def create(desks: Sequence[tuple[int, int, int]], capacity: int, request_bytes: int) -> Responder:
    """A responder for so many connections; its owner sets ``room[0]["epoll"]`` and calls ``listen``.

    desks  (protocol, descriptor of a listening nonblocking socket, bytes of an answer)

    Raises ValueError where a request has no room for its id.
    """
    if request_bytes < answers.HEAD:
        raise ValueError(f"a request has at least {answers.HEAD} bytes, for its id")
    room = np.zeros(1, ROOM)
    room[0]["epoll"], room[0]["free"] = -1, capacity
    callers = np.zeros(capacity, CALLER)
    callers["fd"] = -1
    return Responder(
        room=room,
        desks=np.array([(answer_bytes, fd, proto, (0, 0, 0)) for proto, fd, answer_bytes in desks], DESK),
        callers=callers,
        free=np.arange(capacity - 1, -1, -1, dtype=np.uint32),
        request=np.empty(request_bytes + 1, np.uint8),
        block=answers.create_block(),
        messages=syscalls.create_messages(),
        exchange=syscalls.create_exchange(),
    )


@kernel
def listen(responder):
    """Have breaths hear of all desks. Returns 0 or ``-errno``."""
    responder = reference(responder)
    for row in range(responder.desks.size):
        answer = syscalls.watch(
            responder.exchange, responder.room[0].epoll, responder.desks[row].fd, syscalls.EPOLLIN, DESK_KEY | row, 0
        )
        if answer < 0:
            return answer
    return np.int64(0)


@kernel
def breath(responder, until_ns):
    """Answer until the clock shows ``until_ns``. Returns 0, or ``-errno`` where the epoll set is broken."""
    responder = reference(responder)
    exchange = responder.exchange
    now_ns = syscalls.monotonic_ns(exchange)
    while now_ns < until_ns:
        count = syscalls.wait(exchange, responder.room[0].epoll, syscalls.patience_ms(now_ns, until_ns))
        if count < 0 and count != -syscalls.EINTR:
            return count
        for i in range(count):
            _on_event(responder, exchange.events[i])
        now_ns = syscalls.monotonic_ns(exchange)
    return np.int64(0)


@kernel
def end_all(responder):
    """Close every connection there is."""
    responder = reference(responder)
    for row in range(responder.callers.size):
        if responder.callers[row].fd >= 0:
            _end(responder, row)


@kernel
def _on_event(responder, event):
    key = np.int64(event.key)
    if key & DESK_KEY:
        row = key ^ DESK_KEY
        if row < responder.desks.size and responder.desks[row].proto == TCP:
            _welcome(responder, responder.desks[row])
        elif row < responder.desks.size:
            _echo(responder, responder.desks[row].fd)
    elif key < responder.callers.size and responder.callers[key].serial == event.serial:
        if event.events & OVER:
            responder.callers[key].hangup = 1
        _serve(responder, key)


@kernel
def _welcome(responder, desk):
    """Accept one connection; while more wait, the next wait says so again."""
    room, exchange = responder.room[0], responder.exchange
    fd = syscalls.accept(exchange, desk.fd)
    if fd < 0:
        return
    if room.free == 0:
        _turn_away(responder, fd)
        return
    room.free -= 1
    row = np.int64(responder.free[room.free])
    caller = responder.callers[row]
    caller.fd = fd
    caller.answer_bytes = desk.answer_bytes
    caller.id = 0
    caller.got = 0
    caller.hangup = 0
    if syscalls.watch(exchange, room.epoll, fd, WATCHED, row, caller.serial) < 0:
        syscalls.reset_on_close(exchange, fd)
        _end(responder, row)


@kernel
def _turn_away(responder, fd):
    responder.room[0].turned_away += 1
    syscalls.reset_on_close(responder.exchange, fd)
    syscalls.close(fd)


@kernel
def _serve(responder, row):
    """Read and answer as far as the socket lets it."""
    caller = responder.callers[row]
    request_bytes = responder.request.size - 1
    while True:
        if caller.got < request_bytes and not _hear(responder, row):
            return
        if caller.got == request_bytes:
            if not _answer(responder, row):
                return
            responder.room[0].answered += 1
            caller.got = 0
            if not caller.hangup:
                return  # the request was read by a short read: there is nothing more until the next event


@kernel
def _hear(responder, row):
    """Read of the request. Returns whether there may be more to do."""
    caller = responder.callers[row]
    request_bytes = responder.request.size - 1
    got = syscalls.receive(caller.fd, responder.request[: request_bytes - caller.got + 1])
    if got == -syscalls.EAGAIN:
        return False
    if got <= 0:
        _end(responder, row)
        return False
    if caller.got + got > request_bytes:
        responder.room[0].turned_away += 1
        syscalls.reset_on_close(responder.exchange, caller.fd)
        _end(responder, row)
        return False
    for i in range(min(got, answers.HEAD - caller.got)):
        if caller.got + i == 0:
            caller.id = 0
        caller.id |= np.uint64(responder.request[i]) << np.uint64(8 * (caller.got + i))
    caller.got += got
    caller.sent = 0
    return caller.got == request_bytes or caller.hangup == 1


@kernel
def _answer(responder, row):
    """Write of the answer. Returns whether all of it is handed to the kernel."""
    caller = responder.callers[row]
    answers.put_id(responder.block, caller.id)
    while caller.sent < caller.answer_bytes:
        first = answers.place(caller.sent)
        last = min(responder.block.size, first + caller.answer_bytes - caller.sent)
        sent = syscalls.transmit(caller.fd, responder.block[first:last])
        if sent == -syscalls.EAGAIN:
            return False
        if sent < 0:
            _end(responder, row)
            return False
        caller.sent += sent
    return True


@kernel
def _end(responder, row):
    """Close a connection and free its row."""
    room, caller = responder.room[0], responder.callers[row]
    syscalls.close(caller.fd)
    caller.fd = -1
    caller.serial += 1
    responder.free[room.free] = row
    room.free += 1


@kernel
def _echo(responder, fd):
    """Send one batch of datagrams back to where they came from."""
    messages = responder.messages
    for i in range(syscalls.receive_messages(messages, fd)):
        ip, port = syscalls.swap32(messages.senders[i].ip), syscalls.swap16(messages.senders[i].port)
        if syscalls.send_messages(messages, fd, i, i + 1, ip, port) == 1:
            responder.room[0].answered += 1
        else:
            responder.room[0].unsent += 1


def warm() -> None:
    """Compile everything that a live responder calls, with the types it is called with."""
    with select.epoll() as epoll:
        responder = create([(UDP, -1, 0)], 1, answers.HEAD)
        responder.room[0]["epoll"] = epoll.fileno()
        listen(responder)
        breath(responder, 0)
        end_all(responder)
