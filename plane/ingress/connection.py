"""One HTTP/1.1 connection to an endpoint.

Law: it carries one request at a time, and is used again only if the answer was whole, its framing left no doubt,
nothing came unasked, and the endpoint still is one. Bytes of an answer wait here, up to a bound, until the client takes
them: then reading pauses. A failure is an UnansweredError, which says whether the request may be tried elsewhere.
"""

import asyncio
import select
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, cast

import httptools

from plane.ingress import forwarding

if TYPE_CHECKING:
    from plane.ingress.upstream import Endpoint, Pool

BUFFERED = 256 * 1024  # bytes of an answer held for a slow client


class UnansweredError(Exception):
    """No whole answer came.

    status     what the client is told, if it has been told nothing
    kind       ``timeout``, ``invalid_header``, ``request`` where the client is to blame, else ``error``
    unsent     the request never left
    no_answer  not a byte of an answer came, so an idempotent request may be sent again
    """

    def __init__(self, status: int, reason: str, *, kind: str = "error", unsent: bool = False, no_answer: bool = False):
        super().__init__(reason)
        self.status = status
        self.kind = kind
        self.unsent = unsent
        self.no_answer = no_answer or unsent


class Connection(asyncio.Protocol):
    """One connection to an endpoint, and what its parser calls back (``on_…``).

    Of the answer to the request in hand there are ``status``, ``reason``, ``lines`` (the fields that go on), ``length``
    (Content-Length, None without one), ``dated`` and ``served`` (it has a Date, a Server), ``switched`` (it is a 101)
    and ``complete``; its body is taken piece by piece with ``read``. ``first_byte_ns`` is when its first byte was read,
    where the pool is ``timed``.
    """

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_chunks",
        "_drained",
        "_error",
        "_head_done",
        "_heard",
        "_held",
        "_interim",
        "_keep_alive",
        "_named",
        "_parser",
        "_partial",
        "_paused",
        "_pool",
        "_switch",
        "_waiter",
        "at_work",
        "complete",
        "dated",
        "endpoint",
        "first_byte_ns",
        "held_up",
        "length",
        "lines",
        "read_ticks",
        "reason",
        "send_ticks",
        "served",
        "since",
        "status",
        "switched",
        "transport",
        "used",
    )

    transport: asyncio.Transport

    def __init__(self, pool: "Pool", endpoint: "Endpoint"):
        self.endpoint = endpoint
        self.used = False  # it carried another request before
        self.at_work = False
        self.since = pool.now  # of the last sign of life
        self._pool = pool
        self._partial = False  # of its request a part was not sent, so there can be no other
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._error: UnansweredError | None = None
        self._begin(bodiless=False, switch=False)

    def _begin(self, *, bodiless: bool, switch: bool) -> None:
        self.switched = self.complete = False
        self.read_ticks = self.send_ticks = self._pool.read_ticks  # after which nothing comes, or nothing is taken
        self.held_up = 0  # how many reasons there are, none of them the endpoint's, that nothing comes
        self._bodiless = bodiless
        self._switch = switch
        self._heard = self._interim = self._head_done = self._paused = False
        self._forget_head()
        self._keep_alive = True
        self._chunks: list[bytes] = []
        self._held = 0  # bytes in _chunks

    def _forget_head(self) -> None:
        """Nothing is known of the answer's head: of one that is interim nothing holds for the one that follows."""
        self.status = 0
        self.reason = b""
        self.lines: list[bytes] = []
        self.length: int | None = None
        self.dated = self.served = self._chunked = False
        self._named: set[bytes] = set()  # by Connection

    # What requests call.

    def send(self, data: bytes, *, bodiless: bool = False, switch: bool = False) -> None:
        """Begin a request. ``bodiless``: it is HEAD. ``switch``: it asks for an upgrade."""
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self._begin(bodiless=bodiless, switch=switch)
        self.at_work = True
        self.since = self._pool.now
        self.transport.write(data)

    def begun(self, *, bodiless: bool, used: bool, whole: bool, age_ticks: float) -> None:
        """A request was begun, and sent, by another before."""
        self._parser = httptools.HttpResponseParser(self)
        self._begin(bodiless=bodiless, switch=False)
        self._partial = not whole
        self.at_work, self.used = True, used
        self.since = self._pool.now - int(age_ticks)

    async def write(self, data: bytes) -> None:
        """Send more, at the pace of the endpoint. Raises UnansweredError."""
        drained = self.push(data)
        if drained is not None:
            await drained
        if self._error is not None:
            raise self._error
        if self.transport.is_closing():
            raise UnansweredError(502, "the endpoint closed the connection")

    def push(self, data: bytes) -> asyncio.Future[None] | None:
        """Send more, without waiting: the future tells when the endpoint takes more again, None that it does so now."""
        if not self.transport.is_closing():
            self.since = self._pool.now
            self.transport.write(data)
        return self._drained

    async def head(self) -> None:
        """Returns once the head of the answer is here, with what came along of the body. Raises UnansweredError."""
        while not self._head_done:
            await self._sign_of_life()

    async def read(self) -> bytes:
        """The next piece of the body, empty at its end. Raises UnansweredError."""
        while not self._chunks and not self.complete:
            await self._sign_of_life()
        return self.taken()

    def taken(self) -> bytes:
        """What is here of the body, to be sent on."""
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        self._chunks = []
        self._held = 0
        if self._paused:
            self._paused = False
            self.held_up -= 1
            self.since = self._pool.now
            self.transport.resume_reading()
        return data

    @property
    def is_quiet(self) -> bool:
        """Whether an idle connection may carry a request: it is open, and nothing has come that nobody asked for.

        Also nothing that the event loop has not read yet, so that it is never taken for the answer. By TLS that is not
        to be told apart from what TLS itself says.
        """
        transport = self.transport
        if transport.is_closing():
            return False
        if transport.get_extra_info("sslcontext") is not None:
            return True
        waiting = select.poll()
        waiting.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not waiting.poll(0)

    @property
    def patience(self) -> float:
        """Ticks without a sign of life after which the endpoint is given up."""
        return self.read_ticks if self._drained is None else self.send_ticks

    def release(self) -> None:
        """The request has its answer: keep the connection for another one if that is safe, else close it."""
        idle = self.endpoint.idle
        reusable = (
            self.complete
            and self._keep_alive
            and not self._partial
            and not self.endpoint.left
            and not self.transport.is_closing()
        )
        if not reusable or len(idle) >= self._pool.idle_per_endpoint:
            self.abort()
            return
        if self._bodiless:
            self._parser = None  # it waits for the body that Content-Length announced
        self.at_work = False
        self.used = True
        self.since = self._pool.now
        idle.append(self)

    def abort(self) -> None:
        """Close at once; what is under way is lost."""
        self._keep_alive = False
        self.transport.abort()

    def fail(self, error: UnansweredError) -> None:
        """End the request in hand: whoever waits for its answer gets the error."""
        self._error = self._error or error
        self._wake()
        self.abort()

    async def _sign_of_life(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = waiter = self._pool.loop.create_future()
        try:
            await waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._pool.connections.add(self)

    def data_received(self, data: bytes) -> None:
        self.since = self._pool.now
        if not self.at_work or self.complete:
            self.abort()  # nobody asked
            return
        if self._pool.timed and not self._heard:
            self.first_byte_ns = time.monotonic_ns()
        self._heard = True
        try:
            if self.switched:
                self.on_body(data)
            elif self._parser is not None:
                self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switch:
            if rest := data[switch.args[0] :]:
                self.on_body(rest)
        except httptools.HttpParserError as error:
            self.fail(UnansweredError(502, f"the endpoint's answer is no HTTP/1.1: {error}", kind="invalid_header"))
        if self._head_done:
            self._wake()

    def pause_writing(self) -> None:
        self._drained = self._pool.loop.create_future()

    def resume_writing(self) -> None:
        if self._drained is not None:
            if not self._drained.done():
                self._drained.set_result(None)
            self._drained = None

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.connections.discard(self)
        self._parser = None
        if not self.at_work:
            if self in self.endpoint.idle:
                self.endpoint.idle.remove(self)
            return
        self._keep_alive = False
        ends_the_body = self.switched or (self._head_done and self.length is None and not self._chunked)
        if ends_the_body and error is None and self._error is None:
            self.complete = True
        elif not self.complete:
            reason = "the endpoint closed the connection" + (" within its answer" if self._heard else "")
            self._error = self._error or UnansweredError(502, reason, no_answer=not self._heard)
        self.resume_writing()
        self._wake()

    # What the parser calls.

    def on_status(self, reason: bytes) -> None:
        if not self._head_done:
            self.reason = reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            return  # a trailer
        key = name.lower()
        if key not in forwarding.ANSWER_FIELDS:
            self.lines.append(name + b": " + value)
            if key == b"date":
                self.dated = True
            elif key == b"server":
                self.served = True
        elif key == b"content-length":
            self.length = int(value)
        elif key == b"transfer-encoding":
            self._chunked = True
            if value.strip().lower() != b"chunked":
                self.fail(UnansweredError(502, "the endpoint's answer has a transfer coding that is not chunked"))
        elif key == b"connection":
            self._named |= forwarding.tokens(value)

    def on_headers_complete(self) -> None:
        if self._head_done or self._parser is None:
            self._keep_alive = False  # a second answer
            return
        if self._error is not None:
            return
        self.status = self._parser.get_status_code()
        if 100 <= self.status < 200 and self.status != 101:
            self._interim = True
            self._forget_head()
            return
        if self.status == 101:
            if not self._switch:
                self.fail(UnansweredError(502, "the endpoint switched protocols unasked"))
                return
            self.switched = True
        elif self._named and self._named - {b"keep-alive", b"close"}:
            self.lines = forwarding.without(self.lines, self._named)
        self._head_done = True
        framed = self._chunked or bool(self.length)
        odd = (self.status == HTTPStatus.NO_CONTENT and framed) or (
            self._chunked and self._parser.get_http_version() == "1.0"
        )  # RFC 9110, 8.6, and RFC 9112, 6.1: who frames it so may go on otherwise too
        self._keep_alive = self._parser.should_keep_alive() and not self.switched and not odd
        if self._bodiless:
            self.complete = True

    def on_body(self, data: bytes) -> None:
        if self.complete:
            self._keep_alive = False  # more than the answer
            return
        self._chunks.append(data)
        self._held += len(data)
        if self._held > BUFFERED and not self._paused:
            self._paused = True
            self.held_up += 1
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        elif not self.switched:
            self.complete = True
