"""The responder for HTTP/1.1: it costs next to nothing, so that what asks it or stands before it is measured.

One thread drives it in bounded *breaths*, with the GIL released. Each request gets the answer of the counter where its
connection came in, of a fixed length; a HEAD gets the head of it. Requests have no body or one of a length that they
announce, over HTTP/1.1 or 1.0, with or without keep-alive.

Law: a client has one request under way. What is no such request, chunked ones and more than one at a time among it,
ends its connection by reset and is counted, as is a connection that there is no row for. Nothing here allocates, blocks
beyond ``until_ns`` or raises.
"""

import select
from collections.abc import Sequence

import numpy as np

from kernels.jit import kernel
from kernels.layout_load import ANSWER, COUNTER, HALL, VISITOR, WHOLE, HttpResponder
from kernels.net import heads, syscalls

BUFFER_BYTES = 1 << 16
COUNTER_KEY = 1 << 31  # an event's key: this bit and the row of a counter; without it, the row of a visitor
WATCHED = syscalls.EPOLLIN | syscalls.EPOLLOUT | syscalls.EPOLLRDHUP | syscalls.EPOLLET
OVER = syscalls.EPOLLRDHUP | syscalls.EPOLLHUP | syscalls.EPOLLERR
IS_HEAD = np.frombuffer(b"head ", np.uint8)
VERSION_BYTES = 9  # HTTP/1.1 and CR


def answer_of(size: int) -> bytes:
    """An answer with a body of so many bytes."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size


def create(counters: Sequence[tuple[int, bytes]], capacity: int) -> HttpResponder:
    """A responder for so many connections; its owner sets ``hall[0]["epoll"]`` and calls ``listen``.

    counters  (descriptor of a listening nonblocking socket, the answer there, head and body)

    Raises ValueError where an answer has no head.
    """
    table = np.zeros(len(counters), COUNTER)
    start = 0
    for row, (fd, answer) in zip(table, counters, strict=True):
        head, end, _ = answer.partition(b"\r\n\r\n")
        if not end:
            raise ValueError("an answer has a head, which ends with an empty line")
        row["start"], row["size"], row["head"], row["fd"] = start, len(answer), len(head) + len(end), fd
        start += len(answer)
    hall = np.zeros(1, HALL)
    hall[0]["epoll"], hall[0]["free"] = -1, capacity
    visitors = np.zeros(capacity, VISITOR)
    visitors["fd"] = -1
    return HttpResponder(
        hall=hall,
        counters=table,
        visitors=visitors,
        free=np.arange(capacity - 1, -1, -1, dtype=np.uint32),
        answers=np.frombuffer(b"".join(answer for _, answer in counters), np.uint8).copy(),
        buffer=np.empty(heads.HEAD_BYTES + BUFFER_BYTES, np.uint8),
        heads=np.empty((capacity, heads.HEAD_BYTES), np.uint8),
        asked=np.zeros(1, ANSWER),
        exchange=syscalls.create_exchange(),
    )


@kernel
def listen(responder):
    """Have breaths hear of all counters. Returns 0 or ``-errno``."""
    for row in range(responder.counters.size):
        fd = responder.counters[row].fd
        key = COUNTER_KEY | row
        answer = syscalls.watch(responder.exchange, responder.hall[0].epoll, fd, syscalls.EPOLLIN, key, 0)
        if answer < 0:
            return answer
    return np.int64(0)


@kernel
def breath(responder, until_ns):
    """Answer until the clock shows ``until_ns``. Returns 0, or ``-errno`` where the epoll set is broken."""
    exchange = responder.exchange
    now_ns = syscalls.monotonic_ns(exchange)
    while now_ns < until_ns:
        patience_ms = max(0, (until_ns - now_ns + 999_999) // 1_000_000)
        count = syscalls.wait(exchange, responder.hall[0].epoll, patience_ms)
        if count < 0 and count != -syscalls.EINTR:
            return count
        for i in range(count):
            _on_event(responder, exchange.events[i])
        now_ns = syscalls.monotonic_ns(exchange)
    return np.int64(0)


@kernel
def end_all(responder):
    """Close every connection there is."""
    for row in range(responder.visitors.size):
        if responder.visitors[row].fd >= 0:
            _end(responder, row)


@kernel
def _on_event(responder, event):
    key = np.int64(event.key)
    if key & COUNTER_KEY:
        if key ^ COUNTER_KEY < responder.counters.size:
            _welcome(responder, key ^ COUNTER_KEY)
    elif key < responder.visitors.size and responder.visitors[key].serial == event.serial:
        going = _serve(responder, key, (event.events & OVER) != 0)
        if going < 0:
            responder.hall[0].turned_away += 1
            syscalls.reset_on_close(responder.exchange, responder.visitors[key].fd)
        if going != 1:
            _end(responder, key)


@kernel
def _welcome(responder, counter):
    """Accept one connection; while more wait, the next wait says so again."""
    hall, exchange = responder.hall[0], responder.exchange
    fd = syscalls.accept(exchange, responder.counters[counter].fd)
    if fd < 0:
        return
    row = np.int64(responder.free[hall.free - 1]) if hall.free > 0 else np.int64(-1)
    serial = responder.visitors[row].serial if row >= 0 else np.uint32(0)
    if row < 0 or syscalls.watch(exchange, hall.epoll, fd, WATCHED, row, serial) < 0:
        hall.turned_away += 1
        syscalls.reset_on_close(exchange, fd)
        syscalls.close(fd)
        return
    hall.free -= 1
    visitor = responder.visitors[row]
    visitor.fd = fd
    visitor.counter = counter
    visitor.left = 0
    visitor.held = 0
    visitor.answering = 0
    visitor.closing = 0


@kernel
def _serve(responder, row, over):
    """Read and answer as far as the socket lets it. Returns 1 while it goes on, 0 at its end, -1 where it is reset.

    ``over``: the other side has ended or failed, so read to the end, no event will come again.
    """
    visitor = responder.visitors[row]
    short = False
    while True:
        if visitor.answering:
            going = _answer(responder, row)
            if going <= 0 or visitor.answering:
                return going
            if visitor.closing:
                return np.int64(0)
        if short and not over:
            return np.int64(1)  # there is nothing more until the next event
        held = np.int64(visitor.held)
        for i in range(held):
            responder.buffer[i] = responder.heads[row, i]
        got = syscalls.receive(visitor.fd, responder.buffer[held:])
        if got == -syscalls.EAGAIN:
            return np.int64(1)
        if got <= 0:
            return np.int64(0)
        short = held + got < responder.buffer.size
        visitor.held = 0
        if not _take_in(responder, row, held + got):
            return np.int64(-1)


@kernel
def _take_in(responder, row, end):
    """Go through what was read, ``buffer[:end]``. Returns whether it is one request, or part of one."""
    visitor = responder.visitors[row]
    start = np.int64(0)
    if visitor.left == 0:
        size = heads.size_of_head(responder.buffer, 0, end)
        if size == 0 and end <= heads.HEAD_BYTES:
            for i in range(end):
                responder.heads[row, i] = responder.buffer[i]
            visitor.held = end
            return True
        if size == 0 or not _read_head(responder, visitor, size):
            return False
        start = size
    taken = min(visitor.left, end - start)
    visitor.left -= taken
    visitor.answering = visitor.left == 0
    return start + taken == end  # more of them is another request, while this one is not answered


@kernel
def _read_head(responder, visitor, size):
    """Read the head ``buffer[:size]``. Returns whether it is that of a request."""
    asked = responder.asked[0]
    line = np.int64(0)
    while responder.buffer[line] != heads.LF:
        line += 1
    version = line - VERSION_BYTES
    if version < 0 or not heads.begins_as(responder.buffer, version, line, heads.VERSION):
        return False
    asked.keep = responder.buffer[line - 2] != heads.ZERO
    asked.length = heads.BROKEN
    if heads.read_fields(responder.buffer, line + 1, size - 2, asked) == heads.BROKEN or asked.framing != WHOLE:
        return False
    visitor.left = max(0, asked.length)
    visitor.closing = not asked.keep
    visitor.bodiless = heads.begins_as(responder.buffer, 0, size, IS_HEAD)
    visitor.sent = 0
    return True


@kernel
def _answer(responder, row):
    """Write of the answer. Returns 1 while the connection stays; ``answering`` is 0 once all is handed over."""
    visitor = responder.visitors[row]
    counter = responder.counters[visitor.counter]
    size = counter.head if visitor.bodiless else counter.size
    while visitor.sent < size:
        sent = syscalls.transmit(visitor.fd, responder.answers[counter.start + visitor.sent : counter.start + size])
        if sent == -syscalls.EAGAIN:
            return np.int64(1)
        if sent < 0:
            return np.int64(0)
        visitor.sent += sent
    visitor.answering = 0
    responder.hall[0].answered += 1
    return np.int64(1)


@kernel
def _end(responder, row):
    """Close a connection and free its row."""
    hall, visitor = responder.hall[0], responder.visitors[row]
    syscalls.close(visitor.fd)
    visitor.fd = -1
    visitor.serial += 1
    responder.free[hall.free] = row
    hall.free += 1


def warm() -> None:
    """Compile everything that a live responder calls, with the types it is called with."""
    with select.epoll() as epoll:
        responder = create([(-1, answer_of(0))], 1)
        responder.hall[0]["epoll"] = epoll.fileno()
        listen(responder)
        breath(responder, 0)
        end_all(responder)
