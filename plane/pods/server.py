"""How workloads listen, and how they end: HTTP and UDP servers on a pod's address.

Law of ending: while a server drains, it goes on accepting for a short quiet time, because a connection may be under way
that was sent before the tables moved on; each response says ``Connection: close``; a request in flight is finished; a
connection without one is closed once the listener is. What is left at the deadline is aborted.
"""

import asyncio
import errno
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web

from plane.partition import take_side
from plane.pods.answer import Handler
from plane.pods.served import REQUEST_ID, Served
from plane.pods.spec import Listen, StartError
from plane.sharing import bind_alone

BACKLOG = 4096
# A head may be as long as Go's servers take it in practice; aiohttp's own limit is 8 KiB a line.
HEAD_LIMIT = 65536
TICK_S = 0.05
QUIET_TICKS = 20
LISTEN_AT_MOST_S = 5.0
ABORT_PATIENCE_S = 0.5

REMEDIES = {
    errno.EADDRINUSE: (
        "another container of the pod has it or another process, perhaps on 0.0.0.0, which is every address: "
        "change the port, stop the process, or choose another --instance"
    ),
    errno.EACCES: "choose a --port-offset, or lower net.ipv4.ip_unprivileged_port_start",
    errno.EADDRNOTAVAIL: "it is no address of this machine",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


class Deadline:
    """When graceful termination is over, by the monotonic clock; it may come nearer while one waits for it.

    Any thread may read it.
    """

    def __init__(self, in_s: float):
        self._at = time.monotonic() + in_s

    def shorten(self, in_s: float) -> None:
        self._at = min(self._at, time.monotonic() + in_s)

    @property
    def left_s(self) -> float:
        return max(0.0, self._at - time.monotonic())

    @property
    def over(self) -> bool:
        return self.left_s == 0


class Server(ABC):
    """Something that listens on a pod's address. ``served`` gets its requests, if it is set before it starts."""

    served: Served | None = None

    @abstractmethod
    async def start(self) -> None:
        """Returns once clients are served. Raises StartError, and then holds nothing."""

    @abstractmethod
    async def drain(self, deadline: Deadline) -> None:
        """Ends gracefully; returns when nothing is left."""

    @abstractmethod
    async def abort(self) -> None:
        """Ends at once, from whatever state."""

    async def failed(self) -> str:
        """Returns, with the reason, only should the server end by itself."""
        return await asyncio.get_running_loop().create_future()

    def descriptors(self) -> list[int]:
        """File descriptors of its stream sockets that are open. Any thread may call it."""
        return []


@dataclass(frozen=True)
class Workload:
    """What runs for a container: its servers, and how long it goes on as before when it is told to end.

    behave  has it behave from now on as these annotations of its pod ask; raises StartError where it cannot
    """

    servers: Sequence[Server] = ()
    delay_shutdown_s: float = 0.0
    behave: Callable[[Mapping[str, Any]], None] = lambda _annotations: None


def bind(listen: Listen, kind: socket.SocketKind) -> socket.socket:
    """A socket on a pod's address. Raises StartError that names address and port and says the remedy."""
    bound = None
    try:
        bound = socket.socket(socket.AF_INET, kind)
        bound.setblocking(False)
        if kind is socket.SOCK_STREAM:
            # Connections that a former pod of this address closed are still in TIME_WAIT.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bind_alone(bound, listen.ip, listen.bound_port)
        take_side(bound)
        if kind is socket.SOCK_STREAM:
            bound.listen(BACKLOG)
    except OSError as problem:
        if bound is not None:
            bound.close()
        protocol = "TCP" if kind is socket.SOCK_STREAM else "UDP"
        remedy = REMEDIES.get(problem.errno or 0, "choose another port")
        what = f"cannot listen on {listen}/{protocol}: {problem.strerror}; {remedy}"
        raise StartError("CrashLoopBackOff", what) from problem
    return bound


async def listening(accept: Callable[[], asyncio.Protocol], listen: Listen) -> asyncio.Server:
    """A listener in the running loop. Raises StartError."""
    bound = bind(listen, socket.SOCK_STREAM)
    try:
        return await asyncio.get_running_loop().create_server(accept, sock=bound, backlog=BACKLOG)
    except BaseException:
        bound.close()
        raise


def descriptors(listener: asyncio.Server | None, transports: Iterable[asyncio.BaseTransport]) -> list[int]:
    """Those of a listener and of connections that are open."""
    sockets = [transport.get_extra_info("socket") for transport in transports]
    sockets += listener.sockets if listener is not None else ()
    return [row.fileno() for row in sockets if row is not None and row.fileno() >= 0]


async def until(met: Callable[[], bool], deadline: Deadline, tick_s: float = TICK_S) -> None:
    """Returns once ``met()`` is true or the deadline is over. It polls, because what servers wait for happens inside
    aiohttp, uvicorn and other threads, which tell nobody."""
    while not met() and not deadline.over:  # noqa: ASYNC110
        await asyncio.sleep(tick_s)


async def quiet(activity: Callable[[], object], deadline: Deadline) -> None:
    """Returns once ``activity`` has not changed for a second, counted in passes of the loop so that a stall does not
    count; after a few seconds in any case."""
    last, same = activity(), 0
    listening = Deadline(LISTEN_AT_MOST_S)
    while same < QUIET_TICKS and not deadline.over and not listening.over:
        await asyncio.sleep(TICK_S)
        now = activity()
        last, same = now, same + 1 if now == last else 0


class WebServer(Server):
    """HTTP/1.1 by aiohttp's low-level server, in the running loop. A subclass makes that server."""

    def __init__(self, listen: Listen):
        self._listen = listen
        self._listener: asyncio.Server | None = None
        self._web: web.Server | None = None
        self._accepted = 0
        self._in_flight: dict[asyncio.Task, asyncio.Protocol] = {}
        self.draining = False

    @abstractmethod
    async def make(self) -> web.Server:
        """The server of connections, ready to serve. Raises StartError."""

    async def start(self) -> None:
        self._web = await self.make()
        self._web.request_handler = self._tracked(self._web.request_handler)
        self._listener = await listening(self._accept, self._listen)

    async def drain(self, deadline: Deadline) -> None:
        self.draining = True
        server = self._web
        if server is not None and self._listener is not None:
            await quiet(lambda: (self._accepted, server.requests_count), deadline)
            self._listener.close()
            await self.stopping()
            await until(lambda: self._closed_idle(server), deadline)
        await self.abort()

    async def stopping(self) -> None:
        """Called once the listener is closed, while connections may be left."""

    async def abort(self) -> None:
        if self._listener is not None:
            self._listener.close()
        if self._web is None:
            return
        for task in list(self._in_flight):
            task.cancel()
        for connection in self._web.connections:
            if connection.transport is not None:
                connection.transport.abort()
        patience = Deadline(ABORT_PATIENCE_S)
        server = self._web
        await until(lambda: not server.connections, patience, 0)

    def descriptors(self) -> list[int]:
        transports = [row.transport for row in self._web.connections if row.transport] if self._web else []
        return descriptors(self._listener, transports)

    def _closed_idle(self, server: web.Server) -> bool:
        """Closes connections without a request; whether none is left."""
        busy = set(self._in_flight.values())
        for connection in server.connections:
            if connection not in busy:
                connection.force_close()
        return not server.connections

    def _accept(self) -> asyncio.Protocol:
        self._accepted += 1
        assert self._web is not None
        return self._web()

    def _tracked(self, handler: Handler) -> Handler:
        """The handler, with each request known as in flight until its response is written."""

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            received_ns = time.monotonic_ns() if self.served is not None else 0
            # aiohttp runs handler and response in a task of the request's own.
            task = asyncio.current_task()
            assert task is not None
            self._in_flight[task] = request.protocol
            task.add_done_callback(self._in_flight.pop)
            response = await handler(request)
            if self.draining:
                response.force_close()
            if self.served is not None:
                self.served.add(request.headers.get(REQUEST_ID, ""), received_ns, time.monotonic_ns())
            return response

        return handle


class HttpServer(WebServer):
    """HTTP/1.1 by a handler."""

    def __init__(self, listen: Listen, handler: Handler):
        super().__init__(listen)
        self._handler = handler

    def through(self, around: Callable[[Handler], Handler]) -> None:
        """Puts something around its handler. Only before it starts."""
        self._handler = around(self._handler)

    async def make(self) -> web.Server:
        return web.Server(
            self._handler,
            access_log=None,
            tcp_keepalive=False,
            auto_decompress=False,
            max_line_size=HEAD_LIMIT,
            max_field_size=HEAD_LIMIT,
        )


class UdpServer(Server):
    """UDP: a datagram is answered by what ``reply`` makes of it and of the client's ``ip:port``, None by nothing."""

    def __init__(self, listen: Listen, reply: Callable[[bytes, str], bytes | None]):
        self._listen = listen
        self._datagrams = _Datagrams(reply)

    async def start(self) -> None:
        bound = bind(self._listen, socket.SOCK_DGRAM)
        try:
            await asyncio.get_running_loop().create_datagram_endpoint(lambda: self._datagrams, sock=bound)
        except BaseException:
            bound.close()
            raise

    async def drain(self, deadline: Deadline) -> None:
        await quiet(lambda: self._datagrams.received, deadline)
        await self.abort()

    async def abort(self) -> None:
        if self._datagrams.transport is not None:
            self._datagrams.transport.abort()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, reply: Callable[[bytes, str], bytes | None]):
        self.received = 0
        self.transport: asyncio.DatagramTransport | None = None
        self._reply = reply

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received += 1
        answer = self._reply(data, f"{addr[0]}:{addr[1]}")
        if answer is not None and self.transport is not None:
            self.transport.sendto(answer, addr)
