"""The HTTP/1.1 client of a load: connections, requests on them, and a row for what became of each.

Law: a request that was given to ``send`` ends exactly once, answered or with an error, at the latest when its timeout
is over; the timeout counts from the *intended* time, as the latency does. Requests are not pipelined. A kept-alive
connection that turns out closed before any byte of an answer costs an idempotent request one more attempt on a new
connection, as with every HTTP client (RFC 9112 9.3.1), and is no error.

Responses are parsed by httptools (llhttp). What it does not do is here: answers to HEAD, interim answers (1xx), bodies
that end with the connection (RFC 9112 6.3), and bytes nobody asked for.
"""

import asyncio
import errno
import re
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import httptools

from harness import recorder
from harness.drivers.tls import Tls
from harness.mix import Mix
from harness.recorder import Recorder
from harness.units import NS_PER_S
from harness.workload import Echo, Workload
from plane.addresses import ip_to_int

# How often timeouts are looked for; an expired request is noticed that much later at most.
SWEEP_S = 0.02
HANDSHAKE_LONGER_S = 1.0

_IP_BIND_ADDRESS_NO_PORT = 24
_FRAMED = re.compile(rb"^(?:content-length|transfer-encoding)[ \t]*:", re.IGNORECASE | re.MULTILINE)
_CONNECT_ERRORS = {
    errno.ECONNREFUSED: recorder.CONNECT_REFUSED,
    errno.EADDRNOTAVAIL: recorder.NO_LOCAL_PORT,
    errno.EADDRINUSE: recorder.NO_LOCAL_PORT,
    errno.EMFILE: recorder.NO_DESCRIPTOR,
    errno.ENFILE: recorder.NO_DESCRIPTOR,
}


@dataclass(frozen=True)
class Destination:
    """Where connections go, by TLS or not, and from which addresses in turn (none: the kernel chooses)."""

    ip: str
    port: int
    sources: tuple[str, ...] = ()
    tls: Tls | None = None


class _Rendered(NamedTuple):
    """A request, all of it but the 16 hex digits of its id between ``head`` and ``tail``."""

    head: bytes
    tail: bytes
    size: int
    bodiless: bool
    idempotent: bool

    @classmethod
    def of(cls, workload: Workload | Echo) -> "_Rendered":
        return cls(*workload.render(), workload.size, workload.method == "HEAD", workload.idempotent)


class Client:
    """Connections to one destination. ``ended(row, answered)`` is called when a request is over."""

    def __init__(
        self,
        destination: Destination,
        mix: Mix,
        record: Recorder,
        *,
        id_key: int,
        timeout_ns: int,
        max_connections: int,
        ended: Callable[[int, bool], None],
    ):
        self.record = record
        self.id_key = id_key
        self.keep_alive = mix.keep_alive
        self.done = 0
        self.errors = 0
        self._requests = [_Rendered.of(workload) for workload in mix.workloads]
        self._order = mix.order.tolist()
        self._destination = destination
        self._address = destination.ip, destination.port
        self._timeout_ns = timeout_ns
        self._max_connections = max_connections
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._connections: set[Connection] = set()
        self._dialled = 0
        self._secured: dict[str, Any] = {}
        self.secured = destination.tls is not None
        if tls := destination.tls:
            # Who is still shaking hands when its request has timed out for long is given up.
            patience_s = timeout_ns / NS_PER_S + HANDSHAKE_LONGER_S
            self._secured = {"ssl": tls.context(), "server_hostname": tls.server_name}
            self._secured["ssl_handshake_timeout"] = patience_s
        self._idle: dict[Connection, None] = {}  # the one used last is used next
        self._waiting: deque[int] = deque()
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def send(self, row: int) -> None:
        """The request of that row goes out on a free connection, on a new one, or when one comes free."""
        if self._idle:
            self._idle.popitem()[0].send(row)
        elif len(self._connections) < self._max_connections:
            self._open(row)
        else:
            self._waiting.append(row)

    def close(self) -> None:
        """Ends every request that has not ended as interrupted, and every connection."""
        self._sweeper.cancel()
        while self._waiting:
            self.ended(self._waiting.popleft(), recorder.INTERRUPTED)
        for connection in list(self._connections):
            connection.abandon(recorder.INTERRUPTED)

    def ended(self, row: int, error: int = 0) -> None:
        """The request of that row is over, and its row complete but for ``error``."""
        if error:
            self.record.error[row] = error
        self.done += 1
        self.errors += error != 0 or self.record.status[row] >= recorder.ERROR_STATUS
        self._ended(row, error == 0)

    def released(self, connection: "Connection") -> None:
        """A connection has nothing to do and may be used again."""
        if self._waiting:
            connection.send(self._waiting.popleft())
        else:
            self._idle[connection] = None

    def lost(self, connection: "Connection") -> None:
        """A connection is no more; whoever waits may have a new one."""
        self._forget(connection)
        if self._waiting and len(self._connections) < self._max_connections:
            self._open(self._waiting.popleft())

    def rendered(self, row: int) -> "_Rendered":
        """What a row asks for."""
        return self._requests[self._order[row % len(self._order)]]

    def may_repeat(self, row: int) -> bool:
        return self.rendered(row).idempotent and self.record.attempts[row] == 1

    def repeat(self, connection: "Connection", row: int) -> None:
        """Sends a request once more, on a new connection that takes the place of the lost one."""
        self._forget(connection)
        self._open(row)

    def _forget(self, connection: "Connection") -> None:
        self._connections.discard(connection)
        self._idle.pop(connection, None)

    def _open(self, row: int) -> None:
        connection = Connection(self, row)
        self._connections.add(connection)
        connection.connecting = self._loop.create_task(self._connect(connection))

    async def _connect(self, connection: "Connection") -> None:
        sock = None
        try:
            sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if sources := self._destination.sources:
                # The port is chosen at connect(2), so that one address has 28,000 ports to each destination.
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((sources[self._dialled % len(sources)], 0))
            self._dialled += 1
            connection.number = self.record.connect(now := time.monotonic_ns())
            if self.record.start[connection.row] == recorder.NEVER:
                self.record.start[connection.row] = now
            await self._loop.sock_connect(sock, self._address)
            ip, port = sock.getsockname()
            self.record.connected(connection.number, ip_to_int(ip), port)
        except OSError as error:
            if sock is not None:
                sock.close()
            connection.abandon(_CONNECT_ERRORS.get(error.errno or 0, recorder.CONNECT_FAILED))
        except asyncio.CancelledError:
            if sock is not None:
                sock.close()
        else:
            # From here on the transport owns the socket, and nobody may cancel what hands it over.
            connection.connecting = None
            if not self._secured:
                await self._loop.create_connection(lambda: connection, sock=sock)
                return
            if connection.row >= 0:
                self.record.connected_at[connection.row] = time.monotonic_ns()
            try:
                await self._loop.create_connection(lambda: connection, sock=sock, **self._secured)
            except OSError:  # that of TLS is one, as is that of a handshake that takes too long
                if connection.row >= 0:
                    connection.abandon(recorder.TLS_FAILED)

    def _sweep(self) -> None:
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        before = time.monotonic_ns() - self._timeout_ns
        intended = self.record.intended
        while self._waiting and intended[self._waiting[0]] <= before:
            self.ended(self._waiting.popleft(), recorder.TIMEOUT)
        for connection in [c for c in self._connections if c.row >= 0 and intended[c.row] <= before]:
            connection.abandon(recorder.TIMEOUT)


# How far the answer to the request under way is.
HEAD = 0
BODY = 1
BODY_TO_END = 2  # the body ends with the connection
COMPLETE = 3


class Connection(asyncio.Protocol):
    """One connection, which carries one request at a time; ``row`` is its request, negative while it has none."""

    __slots__ = (
        "_bodiless",
        "_client",
        "_head",
        "_interim",
        "_keep",
        "_parser",
        "_received",
        "_record",
        "_reused",
        "_state",
        "_transport",
        "connecting",
        "number",
        "row",
    )

    def __init__(self, client: Client, row: int):
        self.row = row
        self.number = recorder.NEVER
        self.connecting: asyncio.Task[None] | None = None
        self._client = client
        self._record = client.record
        self._transport: Any = None
        self._parser: Any = None
        self._reused = False
        self._bodiless = False
        self._state = HEAD
        self._head = b""
        self._received = 0
        self._interim = False
        self._keep = False

    def send(self, row: int) -> None:
        client = self._client
        record = self._record
        asked = client.rendered(row)
        self.row = row
        self._bodiless = asked.bodiless
        record.connection[row] = self.number
        record.attempts[row] += 1
        record.bytes_out[row] += asked.size
        record.reused[row] = self._reused
        record.sent[row] = now = time.monotonic_ns()
        if record.start[row] == recorder.NEVER:
            record.start[row] = now
        self._transport.write(asked.head + b"%016x" % (client.id_key ^ row) + asked.tail)

    def abandon(self, error: int) -> None:
        """Ends the request, if there is one, with that error, and the connection with it."""
        row, self.row = self.row, -1
        if self._transport is not None:
            self._transport.abort()
        elif self.connecting is not None:
            self.connecting.cancel()
        self._client.lost(self)
        if row >= 0:
            self._record.bytes_in[row] = self._received
            self._client.ended(row, error)

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)
        if self.row < 0:  # abandoned while it was connecting
            self._transport.abort()
        else:
            there = self._record.tls_done if self._client.secured else self._record.connected_at
            there[self.row] = time.monotonic_ns()
            self.send(self.row)

    def data_received(self, data: bytes) -> None:
        row = self.row
        if row < 0:  # bytes nobody asked for: no answer on this connection could be trusted any more
            self.abandon(recorder.PROTOCOL)
            return
        if not self._received:
            self._record.first_byte[row] = time.monotonic_ns()
        self._received += len(data)
        if self._state == HEAD:
            self._head = self._head + data if self._head else data
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._keep = False
            if self._state != COMPLETE:
                self.abandon(recorder.PROTOCOL)
                return
        if self._state == COMPLETE:
            self._answered(row)

    def connection_lost(self, error: Exception | None) -> None:
        self._parser = None  # it holds methods of this object
        row = self.row
        if row >= 0 and error is None and self._state == BODY_TO_END:
            self._keep = False
            self._answered(row)
        elif row >= 0 and self._reused and not self._received and self._client.may_repeat(row):
            self.row = -1
            self._client.repeat(self, row)
        else:
            self.abandon(recorder.EOF if error is None else recorder.RESET)

    # What httptools calls.

    def on_message_begin(self) -> None:
        if self._state == COMPLETE:
            self._keep = False

    def on_headers_complete(self) -> None:
        if self._state != HEAD:
            return
        status = self._parser.get_status_code()
        if status < 200:
            self._interim = True
            return
        self._record.status[self.row] = status
        self._keep = self._parser.should_keep_alive()
        if self._bodiless:
            self._state = COMPLETE
        elif self._keep or _FRAMED.search(self._head.partition(b"\r\n\r\n")[0]):
            self._state = BODY
        else:
            self._state = BODY_TO_END

    def on_message_complete(self) -> None:
        if not self._interim:
            self._state = COMPLETE
            return
        self._interim = False
        self._head = self._head.partition(b"\r\n\r\n")[2]

    def _begin(self) -> None:
        self._state = HEAD
        self._head = b""
        self._received = 0
        self._interim = False
        self._keep = False

    def _answered(self, row: int) -> None:
        self._record.done[row] = time.monotonic_ns()
        self._record.bytes_in[row] = self._received
        self.row = -1
        client = self._client
        if self._keep and client.keep_alive:
            self._reused = True
            self._begin()
            if self._bodiless:  # the parser still waits for the body that its head announced
                self._parser = httptools.HttpResponseParser(self)
            client.released(self)
        else:
            self._transport.close()
            client.lost(self)
        client.ended(row)
