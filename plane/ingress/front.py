"""The HTTP server towards clients: aiohttp's, without what a proxy has no use for, and HTTP/2 beside it.

Law: aiohttp reads requests of HTTP/1.1 and paces bodies; how they are answered is in ``http1``. A client that has a way
back to compiled code takes it between two requests, once all of an answer is the kernel's, and not a byte of the next
request has been read here.
A client that takes too long over the head of a request is told so and left; aiohttp itself would wait for ever.
"""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError, LineTooLong

from plane.ingress import forwarding
from plane.ingress.announced import Peer
from plane.ingress.downstream import Downstream, origin_of
from plane.ingress.edge import Edge
from plane.ingress.forwarding import Origin
from plane.ingress.handing import Back, Begun, Handed, adopt
from plane.ingress.http1 import CLOSED, Http1, Sent
from plane.ingress.http2 import Session
from plane.ingress.patience import Patience
from plane.ingress.reach import Reach
from plane.ingress.tls import HTTP_2

log = logging.getLogger("trafficplane.ingress")
LINGERING_S = 2.0  # what is left of a request's body is read for so long, so that the client reads its answer first
TICK_S = 1.0  # how exactly clients' times are kept, unless they are shorter themselves
_HEAD_END = b"\r\n\r\n"  # and that of a chunked body
# What aiohttp's parser says, in part, of what is not simply a bad request.
UNKNOWN_CODING = "`Transfer-Encoding`"
TOO_MANY_FIELDS = "Too many headers"
UNKNOWN_METHOD = "Invalid method"

Handler = Callable[[Downstream], Awaitable[None]]
Refused = Callable[[Origin, int, int], None]  # from whom, status and bytes of the answer


class Refusal(Sent):
    """An answer of ours to what aiohttp's parser refused; the connection closes after it."""

    def __init__(self, status: int, reason: str):
        super().__init__(keep_alive=False)
        self.set_status(status)
        self.data = forwarding.own_answer(status, reason)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        await request.writer.write(self.data)
        return None


class Client(web.RequestHandler):
    """A client's connection.

    origin    who is at its other end
    head_due  loop time at which the head that is being read must be here, None while none is
    begun     what the gateway has begun of the first request, until that one has asked for it
    secured   who it is, and the port it came to, where its TLS ends before it gets here
    back      its way back to compiled code, if it has one
    """

    __slots__ = (
        "_announced",
        "_answered",
        "_begun",
        "_following",
        "_front",
        "_head_s",
        "_patience",
        "_reach",
        "back",
        "begun",
        "head_due",
        "origin",
        "secured",
    )

    origin: Origin
    head_due: float | None

    def __init__(self, manager: "Front", head_s: float, announced: Peer | None, **options: Any):
        super().__init__(manager, **options)
        self._front = manager
        self._head_s = head_s
        self._announced = announced
        self._begun = False  # something of the head is here
        self._following = False  # so it is behind a request that came with it
        self._patience = Patience(manager.send_s)
        self._answered = 0
        self._reach = Reach()
        self.back: Back | None = None
        self.begun: Begun | None = None
        self.secured: tuple[Peer, int] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.head_due = self._loop.time() + self._head_s
        if self.secured is not None:
            (ip, port), here = self.secured
            self.origin = Origin(ip, "https", here, self._front.edge, port)
        else:
            self.origin = origin_of(transport, self._announced, self._front.edge)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        if self.begun is not None and self.begun.upstream is not None:
            self.begun.upstream.close()

    def data_received(self, data: bytes) -> None:
        """As aiohttp does, which queues an answer to what it cannot parse, but forgets who is waiting for that body."""
        before = self._current_request
        between = before is not None and before.content.is_eof() and not self._messages
        if self.back is not None:
            self._reach.note(data)
        super().data_received(data)
        request = self._current_request
        if request is not None or self._messages:
            self.head_due, self._begun = None, False
            self._following = not _ends_with(data, *self._messages[-1]) if self._messages else between
        else:
            self._begun, self._following = True, False
            self.head_due = self.head_due or self._loop.time() + self._head_s
        broken = self._messages and not isinstance(self._messages[-1][0], RawRequestMessage)
        if broken and request is not None and not request.content.is_eof():
            request.content.set_exception(web.RequestPayloadError("not HTTP/1.1"))

    def log_exception(self, *arguments: Any, **options: Any) -> None:
        """As aiohttp does, but a body that turns out broken after its answer is nothing to log."""
        if not isinstance(options.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*arguments, **options)

    async def goes_back(self, request: web.BaseRequest) -> bool:
        """Have compiled code go on with the connection, if that may be after this request, which has its answer.

        From then on nothing that is done here concerns the client.
        """
        if self.back is None:
            return False
        self._answered += 1
        due = self._answered >= self.back.after
        if due and not self._messages:
            await self._all_is_taken()
        ends = self._is_all_of(request)
        self._reach.begin(sure=ends)
        return due and ends and not self._front.draining and self._went_back(self.back)

    async def _all_is_taken(self) -> None:
        """Returns once what was said to the client is the kernel's, or it has left."""
        transport = self.transport
        if transport is None or not transport.get_write_buffer_size():
            return
        transport.set_write_buffer_limits(0)
        with contextlib.suppress(ConnectionError):  # it has left
            await self._drain_helper()
        if not transport.is_closing():
            transport.set_write_buffer_limits()

    def _is_all_of(self, request: web.BaseRequest) -> bool:
        """Whether nothing has come that follows a request, as far as can be told."""
        held = self._messages or self._reading_paused or self._buffer_paused or self._upgraded
        if held or not request.content.is_eof():
            return False
        length = request.headers.get("Content-Length", "")
        return self._reach.ends_with(int(length) if length.isdecimal() else 0)

    def _went_back(self, back: Back) -> bool:
        transport = self.transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size():
            return False
        try:
            fd = os.dup(transport.get_extra_info("socket").fileno())
        except OSError:  # no descriptor is left
            return False
        self.back = None
        transport.abort()  # which closes the other descriptor, and says nothing to the client
        back.take(fd)
        return True

    def is_late(self, now_s: float) -> bool:
        """Whether a head is not here in time; of one that came with a request before it the time begins after that."""
        if self._following and self._current_request is None and not self._messages:
            self._following, self._begun = False, True
            self.head_due = now_s + self._head_s
        return self.head_due is not None and self.head_due < now_s

    def takes_nothing(self, now_s: float) -> bool:
        """Whether what waits to be sent has waited for too long."""
        return self._patience.is_over(self._paused, self.transport, now_s)

    def give_up(self) -> None:
        """The head did not come in time: say so, unless nothing of it came, and close."""
        if self._begun and self.transport is not None:
            reason = f"the head of the request did not come within {self._head_s:g} s"
            data = forwarding.own_answer(408, reason)
            self.transport.write(data)
            self._front.refused(self.origin, 408, len(data))
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP/1.1, which is nothing to log, or to a fault of ours, which is."""
        if isinstance(exc, HttpProcessingError):
            refusal = _refusal(exc)
            self._front.refused(self.origin, refusal.status, len(refusal.data))
            return refusal
        log.error("a request failed in the ingress", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the client has a part of an answer already")
        return Refusal(500, "a fault of the ingress; its log says more")


class Front(web.Server):
    """Makes a ``Client`` or a ``Session`` of each connection; its requests go to ``handler``.

    The handler is cancelled when its client leaves; ``refused`` is told of what was no request, or none in time.
    ``draining``: no further request is wanted. ``sessions`` are the connections that speak HTTP/2.
    """

    def __init__(
        self, handler: Handler, refused: Refused, edge: Edge, *, keep_alive_s: float, head_s: float, send_s: float
    ):
        super().__init__(self._handle, handler_cancellation=True)
        self.handler = handler
        self.refused = refused
        self.edge = edge
        self.keep_alive_s = keep_alive_s
        self.head_s = head_s
        self.send_s = send_s
        self.draining = False
        self.sessions: set[Session] = set()
        self._tick_s = min(TICK_S, head_s / 4, send_s / 4)
        self._timer = self._loop.call_later(self._tick_s, self._tick)

    async def _handle(self, request: web.BaseRequest) -> Sent:
        client = cast(Client, request.protocol)
        one = Http1(request, client, keep_alive=not self.draining)
        await self.handler(one)
        return CLOSED if one.keep_alive and await client.goes_back(request) else one.outcome

    def _tick(self) -> None:
        now = self._loop.time()
        self._timer = self._loop.call_later(self._tick_s, self._tick)
        for client in self.connections:
            if isinstance(client, Client) and client.is_late(now):
                client.give_up()
            if isinstance(client, Client) and client.takes_nothing(now) and client.transport is not None:
                client.transport.abort()
        for session in list(self.sessions):
            session.tick(now)

    @property
    def open_connections(self) -> int:
        return len(self._connections) + len(self.sessions)

    def drain(self) -> None:
        """Take leave of the clients; requests under way go on."""
        self.draining = True
        for session in list(self.sessions):
            session.drain()

    async def shutdown(self, timeout: float | None = None) -> None:
        self._timer.cancel()
        await asyncio.gather(super().shutdown(timeout), *(session.shutdown(timeout) for session in self.sessions))

    def __call__(self, announced: Peer | None = None) -> Client:
        """A protocol for a connection; ``announced`` is whom a header of the PROXY protocol named as its client."""
        return Client(
            self,
            self.head_s,
            announced,
            loop=self._loop,
            access_log=None,
            auto_decompress=False,
            max_line_size=forwarding.TARGET_BYTES,
            max_field_size=forwarding.HEAD_BYTES,
            keepalive_timeout=self.keep_alive_s,
            lingering_time=LINGERING_S,
            logger=log,
        )

    async def adopt(self, handed: Handed) -> None:
        """Go on with a connection that the gateway has handed over."""
        client = self(handed.named)
        client.begun, client.secured, client.back = handed.begun, handed.secured, handed.back
        try:
            await adopt(handed.client, handed.data, client)
        except OSError:  # it has left meanwhile
            if handed.begun is not None and handed.begun.upstream is not None:
                handed.begun.upstream.close()

    async def adopt_secured(self, end: socket.socket, tls: ssl.SSLContext, announced: Peer | None) -> None:
        """Go on with a connection of which nothing else has been read, and which is to be one by TLS."""
        with contextlib.suppress(OSError):  # it has left meanwhile, or speaks no TLS
            await adopt(end, b"", self.secured(announced), tls)

    def secured(self, announced: Peer | None = None) -> "Undecided":
        """The same for a connection by TLS."""
        return Undecided(self, announced)


class Undecided(asyncio.Protocol):
    """A connection by TLS whose handshake is still to say which HTTP it speaks (ALPN, RFC 7301)."""

    def __init__(self, front: Front, announced: Peer | None):
        self._front = front
        self._announced = announced

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        chosen = transport.get_extra_info("ssl_object").selected_alpn_protocol()
        make = Session if chosen == HTTP_2 else Front.__call__
        protocol = make(self._front, self._announced)
        cast(asyncio.Transport, transport).set_protocol(protocol)
        protocol.connection_made(transport)


def _ends_with(data: bytes, message: Any, content: Any) -> bool:
    """Whether data of a client ends where its last request does, or within that, as far as can be told."""
    if data.endswith(_HEAD_END) or not content.is_eof() or not isinstance(message, RawRequestMessage):
        return True
    length = message.headers.get("Content-Length", "")
    end = len(data) - (int(length) if length.isdecimal() else 0)
    return end < len(_HEAD_END) or data[:end].endswith(_HEAD_END)


def _refusal(error: HttpProcessingError) -> Refusal:
    """The answer to what aiohttp's parser refused; what the client sent is not repeated in it."""
    said = error.message.partition("\n")[0].rstrip(":")
    if isinstance(error, LineTooLong):
        in_target = error.args[1] == forwarding.TARGET_BYTES
        what, status = ("the target", 414) if in_target else ("a header field", 431)
        return Refusal(status, f"{what} is longer than {error.args[1]} bytes")
    if TOO_MANY_FIELDS in said:
        return Refusal(431, "too many header fields")
    if UNKNOWN_METHOD in said:
        return Refusal(400, "no HTTP method")
    return Refusal(501 if UNKNOWN_CODING in said else 400, said)
