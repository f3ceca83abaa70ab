"""The HTTP server towards clients: aiohttp's, without what a proxy has no use for.

Law: aiohttp reads requests and paces bodies; answers are written as bytes to ``request.writer`` by whoever forwards.
The handler then returns ``KEPT`` or ``CLOSED``, which tell aiohttp that all is sent and whether the connection goes on.
"""

import asyncio
import logging
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import HttpProcessingError

from plane.ingress import forwarding

log = logging.getLogger("trafficplane.ingress")
LINGERING_S = 2.0  # what is left of a request's body is read for so long, so that the client reads its answer first
UNKNOWN_CODING = "`Transfer-Encoding`"  # in what the parser says of a transfer coding other than chunked


class Sent(web.StreamResponse):
    """An answer that has been written already."""

    def __init__(self, *, keep_alive: bool):
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


class Refusal(Sent):
    """An answer of ours to what aiohttp's parser refused; the connection closes after it."""

    def __init__(self, status: int, reason: str):
        super().__init__(keep_alive=False)
        self._data = forwarding.own_answer(status, reason, bodiless=False, connection=[forwarding.CLOSE])

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        await request.writer.write(self._data)
        return None


KEPT = Sent(keep_alive=True)
CLOSED = Sent(keep_alive=False)


class Client(web.RequestHandler):
    """A client's connection. ``forwarded`` are the forwarding fields of all its requests, ``secure``: it is TLS."""

    __slots__ = ("forwarded",)

    forwarded: bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        peer, own = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        scheme = "https" if transport.get_extra_info("sslcontext") else "http"
        self.forwarded = forwarding.forwarded(peer[0] if peer else "unknown", scheme, own[1] if own else 0)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """As aiohttp does, which queues an answer to what it cannot parse, but forgets who is waiting for that body."""
        super().data_received(data)
        request = self._current_request
        if request is not None and self._messages and not isinstance(self._messages[-1][0], RawRequestMessage):
            request.content.set_exception(web.RequestPayloadError("not HTTP/1.1"))

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no HTTP/1.1, which is nothing to log, or to a fault of ours, which is."""
        if isinstance(exc, HttpProcessingError):
            reason = exc.message.partition("\n")[0].rstrip(":")
            return Refusal(501 if UNKNOWN_CODING in reason else 400, reason)
        log.error("a request failed in the ingress", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the client has a part of an answer already")
        return Refusal(500, "a fault of the ingress; its log says more")


class Front(web.Server):
    """Makes a ``Client`` of each connection; requests go to ``handler``, which is cancelled when its client leaves."""

    def __init__(self, handler: Any, *, keep_alive_s: float):
        super().__init__(handler, handler_cancellation=True)
        self._keep_alive_s = keep_alive_s

    def __call__(self) -> Client:
        return Client(
            self,
            loop=self._loop,
            access_log=None,  # type: ignore[arg-type]
            auto_decompress=False,
            keepalive_timeout=self._keep_alive_s,
            lingering_time=LINGERING_S,
            logger=log,
        )
