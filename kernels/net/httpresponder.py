"""The responder for HTTP/1.1: it costs next to nothing, so that what asks it or stands before it is measured.

One thread drives it in bounded *breaths*, with the GIL released. Each request gets an answer of fixed length, which the
counter where its connection came in has for its target; a HEAD gets the head of it. Requests have no body or one of a
length that they announce, over HTTP/1.1 or 1.0, with or without keep-alive. A *receipt* is an answer that says what
arrived, so that proxies can be held to it.

Law: a client has one request under way. What is no such request, chunked ones and more than one at a time among it,
ends its connection by reset and is counted, as is a connection that there is no row for. Nothing here allocates, blocks
beyond ``until_ns`` or raises.
"""

import select
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kernels.jit import kernel
from kernels.layout_load import ANSWER, COUNTER, DISH, HALL, SERVED, VISITOR, WHOLE, HttpResponder
from kernels.net import heads, syscalls, text
from kernels.reference import reference

BUFFER_BYTES = 1 << 16
COUNTER_KEY = 1 << 31  # an event's key: this bit and the row of a counter; without it, the row of a visitor
WATCHED = syscalls.EPOLLIN | syscalls.EPOLLOUT | syscalls.EPOLLRDHUP | syscalls.EPOLLET
OVER = syscalls.EPOLLRDHUP | syscalls.EPOLLHUP | syscalls.EPOLLERR
IS_HEAD = np.frombuffer(b"head ", np.uint8)
HOST = np.frombuffer(b"host", np.uint8)
REQUEST_ID = np.frombuffer(b"x-request-id", np.uint8)
ID_DIGITS = 16
VERSION_BYTES = 9  # HTTP/1.1 and CR
RECEIPT_BYTES, SUM_DIGITS, SIZE_DIGITS = 100, 8, 12
HOST_AT = SUM_DIGITS + SIZE_DIGITS + 2
DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
ALL_ONES = 0xFFFFFFFF


def _table_of_crc() -> np.ndarray:
    """CRC-32 of zlib, a byte at a time (RFC 1952 8)."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(0xEDB88320), table >> 1)
    return table


CRC = _table_of_crc()


class Counter(NamedTuple):
    """A listening nonblocking socket, and what is answered there.

    answer   to each request, head and body
    menu     but to a request for one of these targets that
    receipt  the body of ``answer`` has RECEIPT_BYTES, in the place of which each request gets its ``receipt_of``
    """

    fd: int
    answer: bytes
    menu: Mapping[bytes, bytes] = {}
    receipt: bool = False


def answer_of(size: int) -> bytes:
    """An answer with a body of so many bytes."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size


def receipt_of(host: bytes, body: bytes) -> bytes:
    """The receipt of a request: CRC-32 and length of its body, its Host as far as there is room."""
    return (b"%08x %012d %b" % (zlib.crc32(body), len(body), host))[:RECEIPT_BYTES].ljust(RECEIPT_BYTES)


def create(counters: Sequence[Counter], capacity: int, keeping: int = 0) -> HttpResponder:
    """A responder for so many connections; its owner sets ``hall[0]["epoll"]`` and calls ``listen``.

    ``keeping``: so many rows of SERVED has it room for, which its owner takes after each breath; 0: it keeps none.
    Raises ValueError where an answer has no head, or one with receipts no room for them.
    """
    table = np.zeros(len(counters), COUNTER)
    dishes = np.zeros(sum(len(counter.menu) + 1 for counter in counters), DISH)
    texts: list[bytes] = []
    at = dish = 0
    for row, counter in zip(table, counters, strict=True):
        row["fd"], row["first"], row["last"] = counter.fd, dish, dish + len(counter.menu)
        for target, answer in [*counter.menu.items(), (b"", counter.answer)]:
            head, end, body = answer.partition(b"\r\n\r\n")
            if not end:
                raise ValueError("an answer has a head, which ends with an empty line")
            size, start = len(head) + len(end), at + len(target)
            receipt = counter.receipt and dish == row["last"]
            if receipt and (len(body) != RECEIPT_BYTES or len(answer) > heads.HEAD_BYTES):
                raise ValueError(f"an answer with receipts has a body of {RECEIPT_BYTES} bytes, and a short head")
            dishes[dish] = (at, len(target), start, len(answer), size, receipt, 0)
            texts += [target, answer]
            at += len(target) + len(answer)
            dish += 1
    hall = np.zeros(1, HALL)
    hall[0]["epoll"], hall[0]["free"] = -1, capacity
    visitors = np.zeros(capacity, VISITOR)
    visitors["fd"] = -1
    return HttpResponder(
        hall=hall,
        counters=table,
        dishes=dishes,
        visitors=visitors,
        free=np.arange(capacity - 1, -1, -1, dtype=np.uint32),
        answers=np.frombuffer(b"".join(texts), np.uint8).copy(),
        buffer=np.empty(heads.HEAD_BYTES + BUFFER_BYTES, np.uint8),
        heads=np.empty((capacity, heads.HEAD_BYTES), np.uint8),
        asked=np.zeros(1, ANSWER),
        served=np.zeros(keeping, SERVED),
        exchange=syscalls.create_exchange(),
    )


@kernel
def listen(responder):
    """Have breaths hear of all counters. Returns 0 or ``-errno``."""
    responder = reference(responder)
    for row in range(responder.counters.size):
        fd = responder.counters[row].fd
        key = COUNTER_KEY | row
        answer = syscalls.watch(responder.exchange, responder.hall[0].epoll, fd, syscalls.EPOLLIN, key, 0)
        if answer < 0:
            return answer
    return np.int64(0)


@kernel
def breath(responder, until_ns):
    """Answer until the clock shows ``until_ns``, or half of the room for rows is taken.

    Returns 0, or ``-errno`` where the epoll set is broken.
    """
    responder = reference(responder)
    exchange = responder.exchange
    now_ns = syscalls.monotonic_ns(exchange)
    while now_ns < until_ns and 2 * responder.hall[0].served <= responder.served.size:
        count = syscalls.wait(exchange, responder.hall[0].epoll, syscalls.patience_ms(now_ns, until_ns))
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
    for row in range(responder.visitors.size):
        if responder.visitors[row].fd >= 0:
            _end(responder, row)


@kernel
def end_idle(responder):
    """Close every connection that has no request under way."""
    responder = reference(responder)
    for row in range(responder.visitors.size):
        visitor = responder.visitors[row]
        if visitor.fd >= 0 and not visitor.answering and visitor.held == 0 and visitor.left == 0:
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
    visitor.request_id = 0


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
        if size == 0 or not _read_head(responder, row, size):
            return False
        start = size
    taken = min(visitor.left, end - start)
    visitor.left -= taken
    visitor.answering = visitor.left == 0
    if responder.dishes[visitor.dish].receipt:
        _sum_up(responder, row, start, start + taken)
    return start + taken == end  # more of them is another request, while this one is not answered


@kernel
def _read_head(responder, row, size):
    """Read the head ``buffer[:size]``. Returns whether it is that of a request."""
    visitor = responder.visitors[row]
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
    if responder.served.size > 0:
        visitor.request_id = _number_in(responder.buffer, line + 1, size - 2)
        visitor.received_ns = syscalls.monotonic_ns(responder.exchange)
    visitor.dish = _dish_for(responder, visitor.counter, version)
    if responder.dishes[visitor.dish].receipt:
        _begin_receipt(responder, row, line + 1, size - 2)
    return True


@kernel
def _dish_for(responder, counter, version):
    """What a counter has for the request line ``buffer[:version]``, of which only the version is missing."""
    start = np.int64(0)
    while start < version and responder.buffer[start] != heads.SP:
        start += 1
    start += 1
    for row in range(responder.counters[counter].first, responder.counters[counter].last):
        dish = responder.dishes[row]
        differing = dish.target_size != version - 1 - start
        i = np.int64(0)
        while not differing and i < dish.target_size:
            differing = responder.answers[dish.target + i] != responder.buffer[start + i]
            i += 1
        if not differing:
            return np.int64(row)
    return np.int64(responder.counters[counter].last)


@kernel
def _begin_receipt(responder, row, start, end):
    """A receipt with the Host that is in the fields ``buffer[start:end]``."""
    visitor = responder.visitors[row]
    dish = responder.dishes[visitor.dish]
    visitor.crc = ALL_ONES
    visitor.size = 0
    for i in range(dish.size):
        responder.heads[row, i] = responder.answers[dish.start + i]
    first, last = _value_in(responder.buffer, start, end, HOST)
    for i in range(dish.head, dish.size):
        at = first + i - dish.head - HOST_AT
        responder.heads[row, i] = responder.buffer[at] if first <= at < last else heads.SP


@kernel
def _value_in(buffer, start, end, name):
    """Where the value of the first field of that name begins and ends; nowhere, twice 0, if there is none."""
    line = start
    colon = 0
    for at in range(start, end):
        if buffer[at] == heads.COLON and colon == 0:
            colon = at
        elif buffer[at] == heads.LF:
            if heads.is_field(buffer, line, colon, name):
                return heads.value_of(buffer, colon, at)
            line = at + 1
            colon = 0
    return np.int64(0), np.int64(0)


@kernel
def _number_in(buffer, start, end):
    """The uint64 that an X-Request-ID of 16 hex digits is, in the fields ``buffer[start:end]``; else 0."""
    first, last = _value_in(buffer, start, end, REQUEST_ID)
    number = np.uint64(0)
    if last - first != ID_DIGITS:
        return number
    for i in range(first, last):
        digit = text.hex_value(buffer[i])
        if digit < 0:
            return np.uint64(0)
        number = number << np.uint64(4) | np.uint64(digit)
    return number


@kernel
def _sum_up(responder, row, start, end):
    """Add ``buffer[start:end]`` of the body to the receipt, and once it is whole write its sum and its length."""
    visitor = responder.visitors[row]
    crc = np.int64(visitor.crc)
    for i in range(start, end):
        crc = np.int64(CRC[(crc ^ responder.buffer[i]) & 255]) ^ (crc >> 8)
    visitor.crc = crc
    visitor.size += end - start
    if not visitor.answering:
        return
    at = responder.dishes[visitor.dish].head
    _write(responder.heads[row], at, SUM_DIGITS, crc ^ ALL_ONES, 16)
    _write(responder.heads[row], at + SUM_DIGITS + 1, SIZE_DIGITS, visitor.size, 10)


@kernel
def _write(text, start, count, value, base):
    """A number in so many digits."""
    left = np.int64(value)
    for i in range(count):
        text[start + count - 1 - i] = DIGITS[left % base]
        left //= base


@kernel
def _answer(responder, row):
    """Write of the answer. Returns 1 while the connection stays; ``answering`` is 0 once all is handed over."""
    visitor = responder.visitors[row]
    dish = responder.dishes[visitor.dish]
    size = dish.head if visitor.bodiless else dish.size
    if visitor.sent == 0 and visitor.request_id != 0:
        _keep(responder, row)
    while visitor.sent < size:
        if dish.receipt:
            sent = syscalls.transmit(visitor.fd, responder.heads[row][visitor.sent : size])
        else:
            sent = syscalls.transmit(visitor.fd, responder.answers[dish.start + visitor.sent : dish.start + size])
        if sent == -syscalls.EAGAIN:
            return np.int64(1)
        if sent < 0:
            return np.int64(0)
        visitor.sent += sent
    visitor.answering = 0
    responder.hall[0].answered += 1
    return np.int64(1)


@kernel
def _keep(responder, row):
    """Keep the row of a request whose answer is about to be sent. More than there is room for is never answered in one
    go, but if a client asks thousands of times while a breath is with it: those are not kept."""
    hall, visitor = responder.hall[0], responder.visitors[row]
    if hall.served < responder.served.size:
        served = responder.served[hall.served]
        served.request_id, served.received_ns = visitor.request_id, visitor.received_ns
        served.done_ns = syscalls.monotonic_ns(responder.exchange)
        hall.served += 1
    visitor.request_id = 0


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
        responder = create([Counter(-1, answer_of(0))], 1)
        responder.hall[0]["epoll"] = epoll.fileno()
        listen(responder)
        breath(responder, 0)
        end_idle(responder)
        end_all(responder)
