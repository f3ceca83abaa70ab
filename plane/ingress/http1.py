"""The client's side of a request in HTTP/1.1 or 1.0, which aiohttp has read; answers are written as bytes.

Law: how an answer ends and whether the connection goes on after it are one decision: ``keep_alive`` says it to the
client, in the head of the answer, and to aiohttp, by ``outcome``, when all is sent.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import StreamReader, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion10, HttpVersion11

from plane.ingress import forwarding
from plane.ingress.connection import Connection
from plane.ingress.downstream import Field
from plane.ingress.forwarding import Origin, RefusedError, RequestHead
from plane.ingress.tunnel import Tunnel

if TYPE_CHECKING:
    from plane.ingress.front import Client
    from plane.ingress.handing import Begun

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Sent(web.StreamResponse):
    """An answer that has been written already."""

    def __init__(self, *, keep_alive: bool):
        super().__init__()
        self._keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


KEPT = Sent(keep_alive=True)
CLOSED = Sent(keep_alive=False)


class Http1:
    """A request that aiohttp has read. See ``Downstream``."""

    __slots__ = ("_chunked", "_client", "_old", "_request", "_writer", "content", "keep_alive", "method", "target")

    def __init__(self, request: web.BaseRequest, client: "Client", *, keep_alive: bool):
        self._request = request
        self._client = client
        self._writer = request.writer
        self._old = request.version == HttpVersion10
        self._chunked = False  # the answer's body is sent so
        self.content: StreamReader = request.content
        self.keep_alive = keep_alive and request.keep_alive
        self.method = request.method
        self.target = request.raw_path

    @property
    def origin(self) -> Origin:
        return self._client.origin

    @property
    def protocol(self) -> str:
        return "HTTP/{}.{}".format(*self._request.version)

    @property
    def sent(self) -> int:
        return self._writer.output_size

    @property
    def outcome(self) -> Sent:
        """What is left to say to aiohttp."""
        return KEPT if self.keep_alive else CLOSED

    def fields(self) -> Sequence[Field]:
        return self._request.raw_headers

    def values(self, name: str) -> Sequence[str]:
        return self._request.headers.getall(name, ())

    def asked(self, head: RequestHead) -> str:
        request, asked = self._request, self.target
        if request.version != HttpVersion11 and not self._old:
            raise RefusedError(505, "this speaks HTTP/1.1 and HTTP/1.0")
        if head.chunked and self._old:
            raise RefusedError(400, "HTTP/1.0 has no transfer codings")
        if asked[0] != "/" and asked != "*":  # absolute form, whose host counts before Host (RFC 9112, 3.2.2)
            url = urlsplit(asked)
            named = url.netloc.rpartition("@")[2].encode("utf-8", "surrogateescape")
            if url.scheme not in ("http", "https"):
                raise RefusedError(400, "the target is no http or https URL")
            if head.host and named.lower() != head.host.lower():  # who comes after us may go by either
                raise RefusedError(400, "the host of the target and Host differ")
            head.host = named
            asked = (url.path or "/") + (f"?{url.query}" if url.query else "")
        if not head.host and not self._old:
            raise RefusedError(400, "Host is neither a name nor an address")
        return asked

    def taken_on(self) -> "Begun | None":
        begun, self._client.begun = self._client.begun, None
        return begun

    async def go_on(self) -> None:
        await self._writer.write(CONTINUE)

    async def answer(
        self, status: int, reason: bytes, lines: Sequence[bytes], body: bytes, *, length: int | None, whole: bool
    ) -> None:
        head = [forwarding.status_line(status, reason), *lines]
        if length is not None:
            head.append(b"Content-Length: %d" % length)
        elif not whole and self._old:
            self.keep_alive = False  # the end of the connection is that of the body
        elif not whole:
            self._chunked = True
            head.append(b"Transfer-Encoding: chunked")
        if not self.keep_alive:
            head.append(forwarding.CLOSE)
        elif self._old:
            head.append(b"Connection: keep-alive")
        head += (b"", forwarding.chunk(body) if self._chunked and body else body)
        await self._writer.write(b"\r\n".join(head))

    async def write(self, piece: bytes) -> None:
        await self._writer.write(forwarding.chunk(piece) if self._chunked else piece)

    async def end(self) -> None:
        if self._chunked:
            await self._writer.write(forwarding.LAST_CHUNK)

    def break_off(self) -> None:
        self.keep_alive = False
        if self._request.transport is not None:
            self._request.transport.abort()

    async def switch(self, reason: bytes, lines: Sequence[bytes], connection: Connection) -> None:
        """Answer 101; from then on bytes of the client go to ``connection``, unread. Raises ConnectionError."""
        self.keep_alive = False
        head = (forwarding.status_line(101, reason), *lines, *forwarding.UPGRADE, b"", b"")
        await self._writer.write(b"\r\n".join(head))
        self._client.set_parser(Tunnel(self._client, connection))  # type: ignore[arg-type]
