"""The connections to endpoints, kept alive, and which endpoints have failed lately.

Law: of an endpoint's idle connections the one that was used last goes first, so that those in excess grow old and are
closed. Age is counted in ticks of one timer, so that no request asks for the time or sets a timer of its own.

An endpoint that gave a request no answer is out for a while, as by NGINX's ``max_fails=1 fail_timeout=10s``
(https://nginx.org/en/docs/http/ngx_http_upstream_module.html#server), or until it gives one: whoever chooses passes it
over while there are others. That holds for an address, as long as there is an endpoint of it.
"""

import asyncio
import os
import ssl
from collections.abc import Callable, Collection

from plane.balance import Standing
from plane.ingress.connection import Connection, UnansweredError
from plane.ingress.handing import Begun, adopt
from plane.ingress.timeouts import Timeouts
from plane.ingress.upstreamtls import UpstreamTls
from plane.sharing import ensure_accepted

TICK_S = 0.25  # how exactly timeouts are kept, unless they are shorter themselves
Address = tuple[str, int]


class Pool:
    """Every connection to every endpoint. Use from one event loop.

    ``timed``: its connections read the clock when an answer begins.
    """

    def __init__(self, timeouts: Timeouts, *, idle_per_endpoint: int = 256, timed: bool = False):
        self.idle_per_endpoint = idle_per_endpoint
        self.timed = timed
        self.connections: set[Connection] = set()
        self.now = 0  # in ticks
        self._connect_s = timeouts.connect_s
        self._tick_s = min(TICK_S, timeouts.read_s / 4, timeouts.idle_s / 4, timeouts.out_s / 4)
        self.read_ticks = timeouts.read_s / self._tick_s
        self._idle_ticks = timeouts.idle_s / self._tick_s
        self._out_ticks = timeouts.out_s / self._tick_s
        self._out: dict[Endpoint, float] = {}  # tick at which they are in again
        self._endpoints: dict[Address, Endpoint] = {}
        self.failing: Callable[[Address, float], None] = lambda address, seconds: None
        self._out_s = timeouts.out_s
        self.loop = asyncio.get_running_loop()
        self._timer = self.loop.call_later(self._tick_s, self._tick)

    @property
    def idle(self) -> int:
        return sum(endpoint.waiting for endpoint in self._endpoints.values())

    def endpoint(self, address: Address) -> "Endpoint":
        """The endpoint at an address, always the same one while it is known."""
        if address not in self._endpoints:
            self._endpoints[address] = Endpoint(address, self.loop.time())
        return self._endpoints[address]

    def keep(self, addresses: Collection[Address], secured: Collection[UpstreamTls] = ()) -> None:
        """Forget the other endpoints, and ways to secure connections to them.

        Idle connections to them are closed, those at work are closed after it.
        """
        for address in self._endpoints.keys() - addresses:
            endpoint = self._endpoints.pop(address)
            self.put_in(endpoint)
            endpoint.leave()
        for endpoint in self._endpoints.values():
            for tls in endpoint.secured.keys() - secured:
                endpoint.secured.pop(tls).leave()

    @property
    def out(self) -> int:
        """How many endpoints are out."""
        return len(self._out)

    def put_out(self, endpoint: "Endpoint") -> None:
        """It has failed; its idle connections may have too."""
        if not endpoint.left:
            endpoint.out = True
            self.failing(endpoint.address, self._out_s)
            self._out[endpoint] = self.now + self._out_ticks

    def put_in(self, endpoint: "Endpoint") -> None:
        """It has answered, or nobody asks it any more."""
        if endpoint.out:
            self.failing(endpoint.address, 0)
        endpoint.out = False
        self._out.pop(endpoint, None)

    def ticks(self, seconds: float) -> float:
        return seconds / self._tick_s

    async def connection(
        self, endpoint: "Endpoint", *, fresh: bool = False, connect_s: float = 0.0, tls: UpstreamTls | None = None
    ) -> "Connection":
        """An idle connection, or a new one, which it always is if ``fresh``. Raises UnansweredError.

        ``connect_s`` is how long that may take, with the handshake of ``tls``; 0 for as long as usual.
        """
        if tls is not None:
            endpoint = endpoint.by(tls)
        connect_s = connect_s or self._connect_s
        while endpoint.idle and not fresh:
            connection = endpoint.idle.pop()
            if connection.is_quiet:
                return connection
            connection.abort()
        ip, port = endpoint.address
        try:
            async with asyncio.timeout(connect_s):
                transport, protocol = await self.loop.create_connection(
                    lambda: Connection(self, endpoint),
                    ip,
                    port,
                    ssl=tls.context if tls is not None else None,
                    server_hostname=tls.name_of(ip) if tls is not None else None,
                )
            ensure_accepted(transport)
        except TimeoutError:
            raise UnansweredError(504, f"no connection within {connect_s:g} s", kind="timeout", unsent=True) from None
        except ssl.SSLError as error:
            why = getattr(error, "verify_message", "") or error.reason or str(error)
            raise UnansweredError(502, f"no TLS: {why}", unsent=True) from error
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else str(error)
            raise UnansweredError(502, f"no connection: {why}", unsent=True) from error
        return protocol

    async def adopted(self, endpoint: "Endpoint", begun: Begun, *, bodiless: bool) -> "Connection":
        """The connection on which the gateway has sent a request. Raises UnansweredError."""
        assert begun.upstream is not None
        connection = Connection(self, endpoint)
        connection.begun(bodiless=bodiless, used=begun.used, whole=begun.whole, age_ticks=self.ticks(begun.age_s))
        try:
            since = connection.since
            await adopt(begun.upstream, begun.data, connection)
            connection.since = since
        except OSError as error:
            why = "the endpoint closed the connection"
            raise UnansweredError(502, why, no_answer=not begun.data) from error
        return connection

    def close(self) -> None:
        """Close everything at once."""
        self._timer.cancel()
        self.keep(())
        for connection in list(self.connections):
            connection.abort()

    def _tick(self) -> None:
        self.now += 1
        self._timer = self.loop.call_later(self._tick_s, self._tick)
        for endpoint in [endpoint for endpoint, until in self._out.items() if until <= self.now]:
            self.put_in(endpoint)
        for connection in list(self.connections):
            age = self.now - connection.since
            if connection.at_work:
                if age > connection.patience and not connection.held_up:
                    connection.fail(UnansweredError(504, "no answer in time", kind="timeout"))
            elif age > self._idle_ticks:
                connection.abort()


class Endpoint(Standing):
    """Where requests go: an address, and its idle connections, the one used last at the end."""

    __slots__ = ("address", "idle", "left", "secured")

    def __init__(self, address: Address, since_s: float):
        super().__init__(since_s)
        self.address = address
        self.idle: list[Connection] = []
        self.left = False
        self.secured: dict[UpstreamTls, Endpoint] = {}  # the same one, reached by TLS

    def by(self, tls: UpstreamTls) -> "Endpoint":
        """The connections to it that are secured in a way."""
        if tls not in self.secured:
            self.secured[tls] = Endpoint(self.address, self.since_s)
            self.secured[tls].left = self.left
        return self.secured[tls]

    @property
    def waiting(self) -> int:
        """How many connections wait for a request."""
        return len(self.idle) + sum(other.waiting for other in self.secured.values())

    def leave(self) -> None:
        self.left = True
        for other in self.secured.values():
            other.leave()
        while self.idle:
            self.idle.pop().abort()
