"""Both ends of an ingress on real sockets: a client that says exactly what it is told, and endpoints that misbehave."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import uvloop

from kernels.layout_gateway import HANDED_REASONS, NO_CONNECTION, SLOW_BODY, SLOW_REQUEST
from plane import routecompiler
from plane.ingress.edge import Edge
from plane.ingress.server import Ingress
from plane.ingress.timeouts import Timeouts
from plane.model import Snapshot

Address = tuple[str, int]
PATIENCE_S = 30.0  # with a machine that has much else to do
# What the suites of the ingress go by: 1, compiled code as far as it goes; 0, asyncio; else that, and on uvloop this.
GATEWAY = os.environ.get("TRAFFICPLANE_TEST_GATEWAY")
LIMIT = 1 << 18  # bytes that wait in a reader


def with_small_buffers(end: socket.socket) -> socket.socket:
    """The socket, of which the kernel holds little: what piles up does so in the ingress or in its sockets."""
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        end.setsockopt(socket.SOL_SOCKET, option, LIMIT)
    return end


@dataclass
class Message:
    """A request or an answer. ``start`` is its first line, field names are lower case."""

    start: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    @property
    def status(self) -> int:
        return int(self.start.split()[1])

    def get(self, name: str) -> str | None:
        """All values of a field, None where there is none."""
        values = [value for key, value in self.fields if key == name]
        return ", ".join(values) if values else None


async def read_head(reader: asyncio.StreamReader) -> Message:
    lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
    message = Message(lines[0])
    for line in lines[1:]:
        name, _, value = line.partition(": ")
        message.fields.append((name.lower(), value))
    return message


async def read_body(reader: asyncio.StreamReader, message: Message, *, until_end: bool = False) -> bytes:
    """The body that the head announces; raises IncompleteReadError where it breaks off."""
    if message.get("transfer-encoding") == "chunked":
        parts = []
        while size := int(await reader.readuntil(b"\r\n"), 16):
            parts.append(await reader.readexactly(size))
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readexactly(2) == b"\r\n"
        return b"".join(parts)
    if message.get("content-length") is not None:
        return await reader.readexactly(int(message.get("content-length") or 0))
    return await reader.read() if until_end else b""


class Client:
    """One connection to an ingress."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, method: str = "GET") -> Message:
        """The next answer, whole."""
        async with asyncio.timeout(PATIENCE_S):
            message = await read_head(self.reader)
            if method != "HEAD" and message.status not in (101, 204, 304) and message.status >= 200:
                message.body = await read_body(self.reader, message, until_end=True)
        return message

    async def get(
        self, path: str = "/", host: str = "example.com", *, method: str = "GET", fields: str = ""
    ) -> Message:
        self.send(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode())
        return await self.answer(method=method)

    async def at_end(self) -> bool:
        """Whether the ingress closes the connection without another byte."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read(1) == b""


@contextlib.asynccontextmanager
async def client(address: Address, tls: ssl.SSLContext | None = None, name: str | None = None) -> AsyncIterator[Client]:
    """A connection; over TLS it asks for the certificate of ``name``."""
    end = with_small_buffers(socket.socket())
    end.setblocking(False)
    await asyncio.get_running_loop().sock_connect(end, address)
    reader, writer = await asyncio.open_connection(sock=end, ssl=tls, server_hostname=name, limit=LIMIT)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def ask(address: Address, raw: bytes) -> Message:
    """One request on a connection of its own."""
    async with client(address) as one:
        one.send(raw)
        return await one.answer(method=raw.partition(b" ")[0].decode())


Serve = Callable[["Endpoint", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def saying(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


async def answering(endpoint: "Endpoint", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads requests whole and gives each the endpoint's answer, on one connection."""
    while True:
        request = await read_head(reader)
        request.body = await read_body(reader, request)
        endpoint.requests.append(request)
        writer.write(endpoint.answer)
        await writer.drain()


class Endpoint:
    """A pod, or what a test wants one to be. ``serve`` has each connection to itself.

    requests     what ``answering`` read
    connections  how many there ever were; ``open`` are there now
    """

    def __init__(self, address: Address, answer: bytes = b"", serve: Serve = answering):
        self.address = address
        self.answer = answer or saying(b"hello")
        self.requests: list[Message] = []
        self.connections = 0
        self.open = 0
        self._serve = serve
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(self, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.close()

    async def __aenter__(self) -> "Endpoint":
        listener = with_small_buffers(socket.create_server(self.address))
        self._server = await asyncio.start_server(self._connected, sock=listener, limit=LIMIT, backlog=1024)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()


@dataclass
class Running:
    """An ingress that serves, and where."""

    ingress: Ingress
    http: Address
    https: Address
    generation: int = 1

    async def install(self, snapshot: Snapshot) -> int:
        return await self.ingress.install(routecompiler.compile(snapshot))

    @property
    def handed_over(self) -> set[str]:
        """Why compiled code has handed over requests, but for its patience, which a machine that is slow may try."""
        gateway = self.ingress._gateway
        patience = {HANDED_REASONS[reason] for reason in (SLOW_REQUEST, SLOW_BODY, NO_CONNECTION)}
        return set(gateway.punts()) - patience if gateway is not None else set()


def goes_by_gateway() -> bool:
    """Whether requests of the test that runs go by compiled code, as far as that takes them."""
    return GATEWAY == "1" if GATEWAY else isinstance(asyncio.get_running_loop(), uvloop.Loop)


@contextlib.asynccontextmanager
async def running(
    address: str,
    snapshot: Snapshot,
    *,
    recording: bool = False,
    timeouts: Timeouts | None = None,
    edge: Edge | None = None,
    metrics_port: int = 0,
    access_log: str = "",
    gateway: bool | None = None,
    gateway_threads: int = 1,
) -> AsyncIterator[Running]:
    """An ingress on free ports of ``address``."""
    ingress = Ingress(
        address,
        0,
        0,
        recording=recording,
        timeouts=timeouts or Timeouts(),
        edge=edge or Edge(),
        metrics_port=metrics_port,
        access_log=access_log,
        gateway=goes_by_gateway() if gateway is None else gateway,
        gateway_threads=gateway_threads,
    )
    http_port, https_port = await ingress.start()
    for listener in ingress._sockets:  # what it accepts inherits this
        with_small_buffers(listener)
    try:
        await ingress.install(routecompiler.compile(snapshot))
        yield Running(ingress, (address, http_port), (address, https_port))
    finally:
        await ingress.stop(0.5)


async def eventually(what: Callable[[], object]) -> None:
    """Return once ``what()`` is true; fail after a deadline."""
    async with asyncio.timeout(PATIENCE_S):
        while not what():
            await asyncio.sleep(0.002)
