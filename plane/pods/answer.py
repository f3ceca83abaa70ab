"""HTTP answers of built-in workloads: whole, small and written at once.

aiohttp's own Response prepares headers through several layers and costs half of a request's time here; an answer that
is known whole needs one write.
"""

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

TEXT = "text/plain; charset=utf-8"
HTML = "text/html"
JSON = "application/json"
REASONS = {status.value: status.phrase for status in HTTPStatus}
BODILESS = (204, 304)
FORM = "application/x-www-form-urlencoded"


class Answer(web.StreamResponse):
    """A whole response: status, body, content type and further headers.

    Go's net/http, in which most of the images are written, sends Content-Type, Date and Content-Length and no Server.
    """

    def __init__(
        self,
        body: str | bytes = b"",
        status: int = 200,
        content_type: str = TEXT,
        headers: Mapping[str, str] | None = None,
    ):
        self._whole = body.encode() if isinstance(body, str) else body
        self._code = status
        self._type = content_type
        self._further = headers
        self._closing = False
        self._kept = True

    def force_close(self) -> None:
        """Say ``Connection: close`` and do so."""
        self._closing = True

    @property
    def status(self) -> int:
        return self._code

    @property
    def keep_alive(self) -> bool:
        return self._kept

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Writes everything. Raises ConnectionResetError where the client has gone."""
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the client has gone")
        self._kept = request.keep_alive and not self._closing
        body = self._whole
        head = f"HTTP/1.1 {self._code} {REASONS.get(self._code, '')}\r\n{_date()}"
        if self._code not in BODILESS:
            head += f"Content-Length: {len(body)}\r\n"
            if body:
                head += f"Content-Type: {self._type}\r\n"
        for name, value in (self._further or {}).items():
            head += f"{name}: {value.translate(ONE_LINE)}\r\n"
        if not self._kept:
            head += "Connection: close\r\n"
        elif request.version.minor == 0:
            head += "Connection: keep-alive\r\n"
        if request.method == "HEAD" or self._code in BODILESS:
            body = b""
        transport.write(head.encode("utf-8", "surrogateescape") + b"\r\n" + body)
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


def json_answer(value: Any, status: int = 200) -> Answer:
    return Answer(json.dumps(value, indent=1, ensure_ascii=False, default=str), status, JSON)


def routed(table: Mapping[str, Handler], otherwise: Handler) -> Handler:
    """A handler that chooses by the exact path."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        handler = table.get(request.raw_path.partition("?")[0]) or table.get(request.path, otherwise)
        return await handler(request)

    return handle


def query(request: web.BaseRequest) -> dict[str, str]:
    """The query's parameters, the first of each name."""
    return dict(reversed(parse_qsl(request.raw_path.partition("?")[2], keep_blank_values=True)))


async def read_body(request: web.BaseRequest) -> bytes:
    """The whole body, however long; a client that waits for ``100 Continue`` is told to send it."""
    if not request.can_read_body:
        return b""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return await request.content.read()


async def form(request: web.BaseRequest) -> dict[str, str]:
    """Parameters of query and of a form in the body, which goes before: what Go calls FormValue."""
    values = query(request)
    if request.can_read_body and request.content_type == FORM:
        body = (await read_body(request)).decode("utf-8", "replace")
        values |= dict(reversed(parse_qsl(body, keep_blank_values=True)))
    return values


def remote_address(request: web.BaseRequest) -> str:
    """``ip:port`` of the client's end of the connection."""
    host, port = (request.transport and request.transport.get_extra_info("peername")) or ("", 0)
    return f"{host}:{port}"


def canonical_headers(request: web.BaseRequest) -> dict[str, list[str]]:
    """Canonical name → values, by name and without Host, as Go's net/http gives them to a handler."""
    found: dict[str, list[str]] = {}
    for name, value in request.headers.items():
        found.setdefault("-".join(part.capitalize() for part in name.split("-")), []).append(value)
    return {name: found[name] for name in sorted(found.keys() - {"Host", "Transfer-Encoding", "Trailer"})}


def host(request: web.BaseRequest) -> str:
    return request.headers.get("Host", "")


ONE_LINE = str.maketrans("\r\n", "  ")
_dates = (0, "")


def _date() -> str:
    global _dates
    now = int(time.time())
    if _dates[0] != now:
        _dates = now, f"Date: {formatdate(now, usegmt=True)}\r\n"
    return _dates[1]
