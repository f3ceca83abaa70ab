"""The Ingress: HTTP and HTTPS in on one address, straight to the endpoints of the Routes in force.

Law: an install is one assignment, in the gateway and then here: the gateway carries nearly all, and what it leaves is
looked at once both have it. A request keeps to the table that it began with, no connection is dropped, and only idle
ones to endpoints that left are closed. The ports are taken at ``start`` and listened on from the first install, so
that nobody is told 404 by an ingress that has not heard of its routes yet.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import ssl
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import Metric

from plane.addresses import AddressPlan
from plane.dns.resolver import Resolver
from plane.errors import PlaneError
from plane.ingress.accesslog import AccessLog, Entry
from plane.ingress.announced import Announced, Peer, welcome
from plane.ingress.downstream import Downstream
from plane.ingress.edge import Edge
from plane.ingress.exchange import Exchange
from plane.ingress.external import Hosts
from plane.ingress.forwarding import Origin
from plane.ingress.front import Front
from plane.ingress.handing import Carried, Handed, Secured
from plane.ingress.hashing import Hashing
from plane.ingress.limits import Limits
from plane.ingress.metrics import Metrics
from plane.ingress.mirror import Mirrors
from plane.ingress.outside import Outside
from plane.ingress.records import Hops, Records
from plane.ingress.subrequest import Asking
from plane.ingress.table import Table
from plane.ingress.timeouts import Timeouts
from plane.ingress.tls import Certificates
from plane.ingress.upstream import Pool
from plane.installed import Installed
from plane.metrics import Exposition
from plane.partition import tear
from plane.routepatches import Patch, patched
from plane.routes import Routes

if TYPE_CHECKING:
    from plane.ingress.fastlog import Done
    from plane.ingress.gateways import Gateways
    from plane.ingress.terminator import Terminator

BACKLOG = 4096
MOST_THREADS = 4  # of the gateway, unless it is told to have more
HTTP, HTTPS = 0, 1  # which of the sockets; those after them are of HTTP too, for further threads
DEFAULT_TIMEOUTS = Timeouts()
NOBODY = Edge()
DNS_PORT = 53
LOOKUP_TIMEOUT_S = 1.0  # of one question to cluster DNS, which is asked twice
GATEWAY_BEAT_S = 0.005
NO_COMPILED_TLS = (
    "HTTPS goes by asyncio, not by the compiled gateway: Python's OpenSSL is none that compiled code can call"
)
log = logging.getLogger("trafficplane.ingress")
CANCELLING_S = 0.1  # for requests to notice that their grace is over


class Ingress:
    """One ingress; several, in processes of their own, may share an address.

    address           IPv4 address to listen on
    http_port         and ``https_port``: ports to listen on, 0 for any that is free
    recording         keep a row for each request, for ``records``
    edge              who stands in front of it
    metrics_port      where ``/metrics`` is, 0: nowhere
    access_log        file that gets a line for each request, empty: none
    gateway           HTTP/1.1 goes by compiled code as far as that takes it, by TLS too
    gateway_threads   how many threads share its port for that
    plan              of the plane whose DNS is asked for the hosts of ExternalNames; None: the machine's alone
    """

    def __init__(
        self,
        address: str,
        http_port: int,
        https_port: int,
        *,
        recording: bool = False,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        edge: Edge = NOBODY,
        metrics_port: int = 0,
        access_log: str = "",
        gateway: bool = False,
        gateway_threads: int = 1,
        plan: AddressPlan | None = None,
    ):
        self.address = address
        self._ports = http_port, https_port
        self._plan = plan
        self._timeouts = timeouts
        self._edge = edge
        self._metrics = Metrics()
        self._wants_gateway = gateway
        self._gateway_threads = gateway_threads
        self._keeps_gateway_off = gateway_is_kept_off_by()
        self._gateway: Gateways | None = None
        self._terminator: Terminator | None = None
        self._tables: dict[int, Table] = {}  # that requests of the gateway may name
        self._adopting: set[asyncio.Task[None]] = set()
        self._greeting: set[asyncio.Task[None]] = set()  # likewise, but their handshakes may take long
        self._exposition = Exposition(address, metrics_port, self._collect) if metrics_port else None
        self._log_path = access_log
        self._log: AccessLog | None = None
        self._problems: tuple[str, ...] = ()
        self._records = Records() if recording else None
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server | Announced] = []
        self._listens = False
        self._routes: Routes | None = None  # those in force
        self._table: Table | None = None
        self._limits = Limits()  # until there is a gateway to share them with
        self._hashing = Hashing()
        self._installing = asyncio.Lock()
        self._started = False
        self._told_to_stop = asyncio.Event()
        self._at_work = 0
        self._done = asyncio.Event()  # set when the last request under way is done, once stopping

    @property
    def generation(self) -> int:
        """Generation of the Routes in force, -1 before the first."""
        return self._table.generation if self._table else -1

    @property
    def idle_connections(self) -> int:
        """How many connections to endpoints wait for a request."""
        return self._pool.idle + (self._gateway.idle if self._gateway else 0)

    async def start(self) -> tuple[int, int]:
        """Take the two ports and return them. Raises PlaneError where one cannot be had."""
        try:
            for port in self._ports:
                self._sockets.append(_bound(self.address, port))
            if self._wants_gateway and not self._keeps_gateway_off:
                port = self._sockets[HTTP].getsockname()[1]
                self._sockets += [_bound(self.address, port) for _ in range(1, self._gateway_threads)]
        except PlaneError:
            self._close_sockets()
            raise
        try:
            self._log = AccessLog(self._log_path) if self._log_path else None
        except PlaneError:
            self._close_sockets()
            raise
        if self._exposition is not None:
            self._problems = tuple(filter(None, (await self._exposition.start(),)))
        self._pool = Pool(self._timeouts, timed=self._records is not None)
        own = [row.getsockname() for row in self._sockets]
        self._hosts = Hosts(self._resolver(), own, self._bound_port)
        connect_s = self._timeouts.connect_s
        self._asking = Asking(Outside(self._pool, self._hosts, connect_s, may_be_here=True))
        elsewhere = Outside(self._pool, self._hosts, connect_s, may_be_here=False)  # copies of copies would never end
        self._mirrors = Mirrors(elsewhere, self._metrics.mirrored)
        self._certificates = Certificates()
        self._front = Front(
            self._answer,
            self._refused,
            self._edge,
            keep_alive_s=self._timeouts.keep_alive_s,
            head_s=self._timeouts.head_s,
            send_s=self._timeouts.send_s,
        )
        self._started = True
        http_port, self._https_port = (row.getsockname()[1] for row in self._sockets[: HTTPS + 1])
        if self._wants_gateway and self._keeps_gateway_off:
            log.info("the compiled gateway stays off, all requests go by asyncio: %s", self._keeps_gateway_off)
        elif self._wants_gateway:
            from plane.ingress.gateway import warm  # here, for it loads the compiler
            from plane.ingress.gateways import Gateways
            from plane.ingress.sharedlimits import SharedLimits

            warm()  # nobody is served before; `plane up` has it compiled before there is a process
            loop = asyncio.get_running_loop()
            self._limits = shared = SharedLimits()
            self._gateway = Gateways(
                self._gateway_threads,
                self._timeouts,
                (http_port, self._https_port),
                lambda handed: loop.call_soon_threadsafe(self._take, handed),
                lambda done: loop.call_soon_threadsafe(self._count, done),
                lambda thread, why: loop.call_soon_threadsafe(self._do_without_thread, thread, why),
                self._carry,
                edge=self._edge,
                tallies=shared.tallies,
                timed=self._records is not None,
                logs=self._log is not None,
            )
            self._pool.failing = self._gateway.put_out
            self._end_tls(loop, self._gateway.capacity)
        return http_port, self._https_port

    def _end_tls(self, loop: asyncio.AbstractEventLoop, kept: int) -> None:
        """Have compiled code end the TLS of clients, if it can; so many of them the gateway may have."""
        from plane.ingress.terminator import Terminator, warm  # here, likewise

        if not warm():
            log.warning(NO_COMPILED_TLS)
            return
        assert self._gateway is not None
        self._terminator = Terminator(
            self._timeouts,
            self._certificates.default,
            lambda client: loop.call_soon_threadsafe(self._take_secured, client),
            lambda end, *said: loop.call_soon_threadsafe(self._take_untouched, end, *said),
            lambda why: loop.call_soon_threadsafe(self._do_without, why, HTTPS),
            edge=self._edge,
            kept=kept,
        )
        self._gateway.hear(self._terminator.channel)

    async def install(self, routes: Routes | None, patch: Patch | None = None) -> Installed:
        """Put Routes in force unless newer ones are; or what a patch makes of those in force, if it is for them."""
        async with self._installing:
            if patch is not None and self._routes is not None and patch.before == self.generation:
                routes = patched(self._routes, patch)
            if routes is not None and routes.generation >= self.generation:
                self._put_in_force(routes)
                if not self._listens and not self._told_to_stop.is_set():
                    self._listens = True
                    await self._listen()
        return Installed(self.generation, self._problems)

    def _put_in_force(self, routes: Routes) -> None:
        """In one step of the loop. The threads that serve are waited for: they want Python's lock for it."""
        self._certificates.install(routes.certificates)
        if self._terminator is not None:
            self._terminator.install(routes.certificates)
        self._hosts.keep(routes.externals.values())
        number = max(self._tables, default=0) + 1
        gateway = self._gateway if self._gateway is not None and self._gateway.serves else None
        if gateway is not None:
            gateway.install(routes, number)
        table = Table(
            routes,
            self._pool,
            self._hosts,
            self._records,
            self._table,
            limits=self._limits,
            hashing=self._hashing,
            asking=self._asking,
            mirrors=self._mirrors,
            https_port=self._https_port,
        )
        self._routes, self._table = routes, table
        self._metrics.installs += 1
        self._pool.keep(table.addresses, {rules.tls for rules in table.rules if rules.tls is not None})
        if gateway is None:
            self._metrics.keep(table.origins)
            return
        self._tables[number] = table
        named = gateway.named()
        # Once what the gateway has said before is counted.
        asyncio.get_running_loop().call_soon(self._forget_all_but, named, number, table)

    def _forget_all_but(self, named: set[int], number: int, table: Table) -> None:
        """Of the tables before one of the gateway's those that no request names."""
        for other in self._tables.keys() - named:
            if other < number:
                del self._tables[other]
        self._metrics.keep(table.origins)

    async def beat(self, timeout_s: float) -> None:
        """Returns after that long, or as soon as it is told to stop: for whoever watches that it lives."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._told_to_stop.wait(), timeout_s)

    async def records(self) -> dict[str, np.ndarray | list[str]]:
        """A row for each request answered so far, as columns of equal length (``plane.ingress.records.ROW``).

        ``route`` and ``service`` are indices of the lists ``routes`` and ``services``. Without ``recording``: no rows.
        """
        if self._gateway is not None:
            self._settle(self._gateway)
        return (self._records or Records()).columns()

    async def cut_off(self, nodes: frozenset[int]) -> None:
        """Tear the network between these nodes of the plan and everybody else, ``plane.partition``."""
        if self._plan is not None:
            await asyncio.to_thread(tear, self._plan, nodes)

    async def stop(self, grace_s: float) -> None:
        """Take no more connections, let requests under way finish for so long, then close everything."""
        self._told_to_stop.set()
        if not self._started:
            return
        for server in self._servers:
            server.close()
        if self._gateway is not None:
            self._gateway.drain()  # while the listener is there, for those that it has not accepted yet
        if self._terminator is not None:
            self._terminator.drain()
        self._close_sockets()
        self._front.drain()
        if self._gateway is not None:
            await self._drain(self._gateway, grace_s)
        if self._at_work:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._done.wait(), grace_s)
        await self._front.shutdown(CANCELLING_S)
        if self._terminator is not None:
            await self._end_secured(self._terminator)
        for task in self._greeting:
            task.cancel()
        while under_way := self._adopting | self._greeting:
            await asyncio.wait(under_way)
        self._hashing.close()
        self._mirrors.close()
        self._hosts.close()
        self._pool.close()
        for server in self._servers:
            await server.wait_closed()
        if self._exposition is not None:
            await self._exposition.stop()
        if self._log is not None:
            self._log.close()
            self._log = None

    async def _end_secured(self, terminator: "Terminator") -> None:
        """Let what the asyncio side said last go to the clients, and close what is left."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + CANCELLING_S
        while terminator.is_busy() and loop.time() < until_s:  # noqa: ASYNC110  # a thread sets no Event of a loop
            await asyncio.sleep(GATEWAY_BEAT_S)
        terminator.stop()
        await asyncio.sleep(0)  # whom it left last is here then

    async def _drain(self, gateway: "Gateways", grace_s: float) -> None:
        """Let the gateway's requests finish, for so long at most, and close it."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + grace_s
        while gateway.clients and loop.time() < until_s:  # noqa: ASYNC110  # a thread sets no Event of a loop
            await asyncio.sleep(GATEWAY_BEAT_S)
        self._pool.failing = lambda address, seconds: None
        gateway.stop()
        if self._terminator is not None:
            self._terminator.unheard()
        await asyncio.sleep(0)  # what it handed over last is here then
        self._settle(gateway)
        while self._adopting:
            await asyncio.wait(self._adopting)

    def _take(self, handed: Handed) -> None:
        """Go on with what the gateway has handed over."""
        if handed.unheard:
            self._hear(handed.client, HTTP)
        else:
            self._adopt(self._front.adopt(handed), self._adopting)

    def _hear(self, end: socket.socket, number: int) -> None:
        """Go on with a connection whose header of the PROXY protocol compiled code has left alone."""
        self._adopt(welcome(end, *self._served_by_asyncio(number), self._timeouts.head_s), self._greeting)

    def _take_untouched(self, end: socket.socket, named: Peer | None, unheard: bool) -> None:
        """Go on with a client by TLS that asks for what compiled code does not speak."""
        if unheard:
            self._hear(end, HTTPS)
        else:
            self._adopt(self._front.adopt_secured(end, self._certificates.listening, named), self._greeting)

    def _take_secured(self, client: Secured) -> None:
        """Go on with a client by TLS whom no gateway has."""
        carried = self._carry(client)
        if carried is not None:
            self._take(Handed(carried.end, b"", None, (client.peer, self._https_port)))

    def _carry(self, client: Secured) -> Carried | None:
        """What the asyncio side is to have of a client by TLS; called in the gateway's thread too."""
        assert self._terminator is not None
        return self._terminator.carry(client)

    def _adopt(self, work: Coroutine[None, None, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _do_without_thread(self, thread: int, why: str) -> None:
        """One of the gateway has failed."""
        self._do_without(why, thread + HTTPS if thread else HTTP)

    def _do_without(self, why: str, number: int) -> None:
        """A thread of compiled code has failed: its listener goes to the asyncio side."""
        self._problems += (why,)
        if self._terminator is not None and self._gateway is not None and not self._gateway.serves:
            self._terminator.unheard()
        if not self._told_to_stop.is_set():
            self._adopt(self._listen_by_asyncio(number), self._adopting)

    def _settle(self, gateway: "Gateways") -> None:
        """Count what each thread has done up to now."""
        for done in gateway.settle():
            self._count(done)

    def _count(self, done: "Done") -> None:
        """Count, record and log requests that the gateway has done, in its order."""
        done.give_back()
        rows = done.rows
        kinds = np.unique(rows[["install", "origin", "goal", "status"]])
        for install, origin, goal, status in kinds.tolist():
            table = self._tables[install]
            same = (rows["install"] == install) & (rows["origin"] == origin)
            same &= (rows["goal"] == goal) & (rows["status"] == status)
            durations_ns = (rows["done_ns"] - rows["received_ns"])[same]
            service = table.targets[goal].service if goal else None
            self._metrics.add_many(table.origins[origin], service, status, durations_ns)
            if self._records is not None:
                self._records.add_fast(
                    rows[same],
                    generation=table.generation,
                    route=table.routes[origin],
                    service=table.targets[goal].row,
                )
        if self._log is not None:
            self._log_fast(self._log, done)

    def _log_fast(self, access_log: AccessLog, done: "Done") -> None:
        from plane.ingress import fastlog  # here, for it loads the compiler

        lines, lost = fastlog.lines(done, lambda install, *where: fastlog.words_of(self._tables[install], *where))
        access_log.add_lines(lines)
        access_log.lost += lost

    def _resolver(self) -> Resolver:
        servers = ((self._plan.dns, self._plan.bound_port(DNS_PORT)),) if self._plan else ()
        return Resolver(servers=servers, timeout_s=LOOKUP_TIMEOUT_S)

    def _bound_port(self, ip: str, port: int) -> int:
        """The port at an address: one of the plane's may be shifted."""
        return self._plan.bound_port(port) if self._plan and self._plan.has(ip) else port

    async def _listen(self) -> None:
        for number, row in enumerate(self._sockets[: HTTPS + 1]):
            if number == HTTP and self._gateway is not None:
                listeners = [row, *self._sockets[HTTPS + 1 :]]
                for listener in listeners:
                    listener.listen(BACKLOG)
                self._gateway.start(listeners)
            elif number == HTTPS and self._terminator is not None:
                row.listen(BACKLOG)
                self._terminator.start(row)
            else:
                await self._listen_by_asyncio(number)

    async def _listen_by_asyncio(self, number: int) -> None:
        """Serve what comes to one of the sockets."""
        row, (make, tls) = self._sockets[number], self._served_by_asyncio(number)
        if self._edge.proxy_protocol:
            row.listen(BACKLOG)
            self._servers.append(Announced(row, make, self._edge, tls=tls, patience_s=self._timeouts.head_s))
        else:
            loop = asyncio.get_running_loop()
            self._servers.append(await loop.create_server(make, sock=row, backlog=BACKLOG, ssl=tls))

    def _served_by_asyncio(self, number: int) -> tuple[Callable[..., asyncio.BaseProtocol], ssl.SSLContext | None]:
        return (self._front.secured, self._certificates.listening) if number == HTTPS else (self._front, None)

    async def _answer(self, client: Downstream) -> None:
        received_ns = time.monotonic_ns()
        assert self._table is not None
        hops = Hops() if self._records is not None else None
        exchange = Exchange(client, self._table, self._pool, body_timeout_s=self._timeouts.body_s, hops=hops)
        self._at_work += 1
        try:
            await exchange.run()
        finally:
            self._at_work -= 1
            if self._told_to_stop.is_set() and not self._at_work:
                self._done.set()
            duration_ns = time.monotonic_ns() - received_ns
            exchange.count(self._metrics, duration_ns)
            if self._records is not None:
                exchange.record(self._records, received_ns)
            if self._log is not None and exchange.is_logged:
                self._log.add(exchange.entry(duration_ns))

    def _refused(self, origin: Origin, status: int, size: int) -> None:
        """Who sent no request at all was told so, in that many bytes."""
        assert self._table is not None
        self._metrics.add(self._table.origins[0], None, status, 0, 0)
        if self._log is not None:
            found = Entry(client=origin.peer, scheme=origin.scheme, status=status, bytes_sent=size)
            self._log.add(found._replace(generation=self.generation))

    def _collect(self) -> Iterable[Metric]:
        gateway = self._gateway
        if gateway is not None:
            self._settle(gateway)
            left = self._terminator.punts() if self._terminator is not None else {}
            self._metrics.punts = dict(Counter(gateway.punts()) + Counter(left))
            self._metrics.given_back, self._metrics.crowded_out = gateway.given_back, gateway.crowded_out
        return self._metrics.collect(
            at_work=self._at_work + (gateway.at_work if gateway else 0),
            idle=self.idle_connections,
            out=self._pool.out,
            open_connections=self._front.open_connections + (gateway.clients if gateway else 0),
            generation=self.generation,
            lines_lost=self._log.lost if self._log is not None else None,
            compiled=gateway is not None and gateway.is_whole,
        )

    def _close_sockets(self) -> None:
        for row in self._sockets:
            row.close()
        self._sockets.clear()


def gateway_threads_here() -> int:
    """How many gateway threads suit this machine: half of its cores, and four at most.

    The other half is for pods, which are on the same machine, for Services and for what goes by asyncio.
    """
    return min(max(1, len(os.sched_getaffinity(0)) // 2), MOST_THREADS)


def gateway_is_kept_off_by() -> str:
    """What keeps the compiled gateway off where it is wanted; empty: nothing."""
    return "NUMBA_DISABLE_JIT" if int(os.environ.get("NUMBA_DISABLE_JIT") or 0) else ""


def _bound(address: str, port: int) -> socket.socket:
    """A socket that has the port but does not listen. Raises PlaneError."""
    row = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        row.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        row.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        row.setblocking(False)
        row.bind((address, port))
    except OSError as error:
        row.close()
        raise PlaneError(f"ingress: cannot listen on {address}:{port}: {_remedy(error)}") from error
    return row


def _remedy(error: OSError) -> str:
    remedies = {
        errno.EADDRINUSE: "another program has it; stop that, or choose another --instance or --port-offset",
        errno.EACCES: "ports this low need a privilege; choose a --port-offset, such as 8000",
        errno.EADDRNOTAVAIL: "this machine does not have the address",
    }
    return remedies.get(error.errno or 0, os.strerror(error.errno or 0))
