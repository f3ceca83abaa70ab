"""One request: from its head to the last byte of its answer.

    head ─► fields ─► route ─► policies ─► endpoint in turn ─► connection ─► answer ─► client
             │ 4xx/501  │ 404     │ 2xx–5xx     │ 503            │ 502, 504: another endpoint, if it may be repeated

Law: whatever happens, the client gets one answer or sees its connection close, the endpoint's connection is released or
closed, and there is one record. A small answer, one that is here when its head is, leaves in a single write; a larger
one is relayed piece by piece at the pace of the client, as a request's body is at the pace of the endpoint.
"""

import asyncio
import logging
import time
from collections.abc import Sequence
from http import HTTPStatus

from aiohttp import web

from kernels.layout import MAGLEV
from plane.addresses import ip_to_int
from plane.balance import Watch, client_of
from plane.conduct import met
from plane.ingress import forwarding
from plane.ingress.accesslog import Entry
from plane.ingress.connection import Connection, UnansweredError
from plane.ingress.downstream import Downstream
from plane.ingress.forwarding import RefusedError, RequestHead
from plane.ingress.handing import Begun
from plane.ingress.http1 import Http1
from plane.ingress.metrics import Metrics
from plane.ingress.policed import Policed
from plane.ingress.records import UNSEEN, Hops, Records
from plane.ingress.retry import DEFAULT, Retry
from plane.ingress.table import Backend, NamedTarget, Table, Target
from plane.ingress.upstream import Pool

log = logging.getLogger("trafficplane.ingress")
CLIENT_LEFT = 499
CLOSING = (400, 431, 501, 505)  # after these nobody knows where the next request begins, or wants to


class Exchange:
    """A request and what becomes of it; ``hops`` is told when, where somebody records that."""

    __slots__ = (
        "_backend",
        "_bodiless",
        "_body",
        "_client",
        "_connection",
        "_faults",
        "_head",
        "_hops",
        "_meant",
        "_policed",
        "_pool",
        "_retries",
        "_route",
        "_sender",
        "_status",
        "_table",
        "_target",
        "_timeout_s",
        "_watch",
    )

    def __init__(
        self, client: Downstream, table: Table, pool: Pool, *, body_timeout_s: float, hops: Hops | None = None
    ):
        self._client = client
        self._table = table
        self._pool = pool
        self._timeout_s = body_timeout_s
        self._hops = hops
        self._bodiless = client.method == "HEAD"
        self._head: RequestHead | None = None
        self._body: bytes | None = b""  # None: it is still coming
        self._sender: asyncio.Task[None] | None = None
        self._connection: Connection | None = None
        self._target: Target | None = None
        self._meant: Target | None = None  # where a default backend answers in its place
        self._backend: Backend | None = None
        self._policed: Policed | None = None  # the route has policies
        self._watch: Watch | None = None  # what endpoints are chosen by, if not by turns
        self._route = 0
        self._retries = 0
        self._faults = 0  # tries that an endpoint is to blame for
        self._status = CLIENT_LEFT

    async def run(self) -> None:
        """Answers the request."""
        try:
            origin = self._client.origin
            head = self._head = RequestHead(self._client.fields(), trusted=origin.trusted)
            path = self._find_target(head)
            if self._hops is not None:
                self._hops.routed_ns = time.monotonic_ns()
            if self._policed is not None:
                path = await self._policed.comply(head)
            if self._target is None:
                raise RefusedError(404, "no Ingress has a rule for this host and path")
            connection = await self._ask(head, self._target, path, origin.fields(head))
            if connection.switched:
                await self._tunnel(connection)
            elif self._policed is not None and self._policed.excuses(connection.status, own=False):
                await self._excuse(self._policed, head, connection.status)
            else:
                await self._relay(connection)
        except RefusedError as error:
            await self._refuse(error.status, str(error), error.lines)
        except UnansweredError as error:
            where = "{}:{}".format(*self._backend.endpoint.address) if self._backend else ""
            await self._refuse(error.status, f"{where} {error}")
        except web.RequestPayloadError:
            await self._refuse(400, "the request's body is broken")
        except ConnectionError:  # the client's
            self._leave()
        finally:
            if self._sender is not None:
                self._sender.cancel()
            if self._policed is not None:
                self._policed.leave()
            if self._connection is not None:
                self._connection.abort()
            if (begun := self._client.taken_on()) is not None and begun.upstream is not None:
                begun.upstream.close()  # it was answered without: what comes there is no answer to what follows
            if self._watch is not None:
                self._watch.leave()

    def record(self, records: Records, received_ns: int) -> None:
        head, backend, target = self._head, self._backend, self._target
        records.add(
            forwarding.request_number(head.request_id) if head else 0,
            self._table.generation,
            received_ns,
            time.monotonic_ns(),
            self._table.routes[self._route],
            target.row if target else -1,
            backend.number if backend else 0,
            backend.ip if backend else 0,
            backend.port if backend else 0,
            self._status,
            self._retries,
            hops=self._hops or UNSEEN,
        )

    def count(self, metrics: Metrics, duration_ns: int) -> None:
        target = self._meant or self._target
        service = target.service if target else None
        metrics.add(self._table.origins[self._route], service, self._status, duration_ns, self._retries, self._faults)

    def entry(self, duration_ns: int) -> Entry:
        """The request as the access log has it."""
        client, head, origin = self._client, self._head, self._client.origin
        return Entry(
            client=origin.client(head) if head else origin.peer,
            scheme=origin.scheme,
            method=client.method,
            host=head.host.decode("latin-1") if head else "",
            target=client.target,
            protocol=client.protocol,
            status=self._status,
            bytes_sent=client.sent,
            duration_ms=round(duration_ns / 1e6, 3),
            request_id=head.request_id.decode("utf-8", "surrogateescape") if head else "",
            route=str(self._table.origins[self._route]) if self._route else "",
            service=str(self._target.service) if self._target else "",
            endpoint="{}:{}".format(*self._backend.endpoint.address) if self._backend else "",
            retries=self._retries,
            generation=self._table.generation,
            user_agent=next(iter(client.values("user-agent")), ""),
            referer=next(iter(client.values("referer")), ""),
        )

    @property
    def is_logged(self) -> bool:
        """Whether the access log has a line of it."""
        return self._policed is None or not self._policed.rules.policies.unlogged

    def _find_target(self, head: RequestHead) -> str:
        """Finds where the request goes, which may be nowhere, and returns what is asked for. Raises RefusedError."""
        client = self._client
        if client.method in forwarding.NOT_HERE:
            client.keep_alive = False  # what follows may be meant for the other end of a tunnel
            if client.method != "CONNECT":
                raise RefusedError(400, "this is no RTSP")
            raise RefusedError(405, "this is no forward proxy")
        asked = client.asked(head)
        if head.host and not forwarding.is_authority(head.host):
            raise RefusedError(400, "Host is neither a name nor an address")
        if "#" in asked:
            asked = asked.partition("#")[0]
        path = asked.partition("?")[0] if "?" in asked else asked
        host = head.host.decode("latin-1")
        if why := self._table.router.unclear(host, path, self._meets):
            raise RefusedError(400, why)
        match = self._table.router.match(host, path, self._meets)
        row, self._route = match.target, match.origin
        if match.policy or match.canary:
            self._policed = Policed(client, self._table, match, head, asked)
            row, self._route = self._policed.admit(match)
        if row:
            self._target = self._table.targets[row]
        return asked

    def _meets(self, row: int) -> bool:
        """Whether the request is one that a rule with this condition takes, by the port that it really came to."""
        client = self._client
        when, scheme = self._table.whens[row], client.origin.scheme
        return met(when, client.method, scheme, lambda name: ", ".join(client.values(name)))

    async def _ask(self, head: RequestHead, target: Target, path: str, hop: bytes) -> Connection:
        """Send the request, with the forwarding fields ``hop``; returns with the head of an answer.

        Raises RefusedError, UnansweredError.
        """
        method = self._client.method
        if not head.request_id:
            head.request_id = forwarding.new_request_id()
        if isinstance(target, NamedTarget):
            await target.find()
        begun = self._client.taken_on()
        framing = self._frame(head, streaming=begun is not None and begun.streaming)
        if self._policed is not None and self._body is not None:
            self._policed.send_copy()
        data = forwarding.request_bytes(method, path, head, hop, framing)
        if self._body:
            data += self._body
        retry = self._policed.rules.retry if self._policed is not None else DEFAULT
        began_s = self._pool.loop.time() - (begun.since_s if begun is not None else 0.0) if retry.within_s else 0.0
        if self._watch is not None:
            self._watch.leave()
            self._watch = None
        if target.watched:
            self._watch = Watch(self._who(head) if target.by_client else 0)
        failed: list[Backend] = []
        fresh, error, attempt = False, None, 0
        backend = self._begun_at(target, begun)
        if backend is not None and self._policed is not None:
            self._policed.keep_to(target, backend)
        backend = backend or self._next(target, failed)
        while backend is not None:
            self._backend, self._retries, self._connection = backend, attempt, None
            attempt += 1
            if self._hops is not None:
                self._hops.pick()
            try:
                if begun is not None and begun.upstream is not None:
                    connection = await self._go_on(backend, begun, head)
                    begun = None  # of which there is one
                else:
                    connection = await self._try(backend, data, head, fresh=fresh)
                if retry.on and retry.blames(connection.status):
                    self._blame(backend)
                elif backend.endpoint.out:
                    self._pool.put_in(backend.endpoint)
                if not retry.on or not retry.after_status(connection.status, method, self._streaming):
                    return connection
                if self._is_last(retry, attempt - fresh, began_s):
                    return connection
                failed.append(backend)
                following = self._next(target, failed)
                if following is None or following in failed:
                    return connection
                connection.abort()
                backend = following
            except UnansweredError as failure:
                error, begun = failure, None
                # That a connection had gone stale is no fault of the endpoint, but its other idle ones may have too.
                stale = self._connection is not None and self._connection.used
                owed = self._connection is not None and self._sender is not None and self._connection.held_up
                if failure.kind != "request" and not (stale and failure.no_answer) and not owed:
                    self._blame(backend)
                rule = DEFAULT if stale else retry
                if not rule.after(failure, method, self._streaming):
                    raise
                if stale:
                    fresh = True  # this once, and it is no try
                elif self._is_last(retry, attempt - fresh, began_s):
                    raise
                else:
                    failed.append(backend)
                backend = self._next(target, failed)
        if error is None:
            raise RefusedError(target.status, f"Service {target.service} has no ready endpoint")
        raise error

    async def _try(self, backend: Backend, data: bytes, head: RequestHead, *, fresh: bool) -> Connection:
        """One try; returns with the head of an answer. Raises UnansweredError."""
        policed = self._policed
        if self._watch is not None:
            self._watch.take(backend.endpoint, self._pool.loop.time())
        if policed is None:
            connection = await self._pool.connection(backend.endpoint, fresh=fresh)
        else:
            connect_s, tls = policed.rules.policies.connect_timeout_ms / 1000, policed.rules.tls
            connection = await self._pool.connection(backend.endpoint, fresh=fresh, connect_s=connect_s, tls=tls)
        self._connection = connection
        if self._hops is not None:
            self._hops.connected_ns = time.monotonic_ns()
            self._hops.reused = connection.used
        if policed is not None and policed.rules.policies.own_host and self._target is not None:
            data = forwarding.readdressed(data, self._target.host_of(backend))
        connection.send(data, bodiless=self._bodiless, switch=head.is_websocket)
        if policed is not None:
            policed.be_patient(connection, self._pool)
        if self._body is None:
            self._sender = asyncio.create_task(self._send_body(connection, head))
        return await self._head_of(connection)

    async def _head_of(self, connection: Connection) -> Connection:
        """Returns with the head of an answer. Raises UnansweredError."""
        await connection.head()
        if self._hops is not None:
            self._hops.first_byte_ns = connection.first_byte_ns
        return connection

    def _begun_at(self, target: Target, begun: Begun | None) -> Backend | None:
        """The backend that the gateway has chosen, in place of the next; it may have left since."""
        if begun is None:
            return None
        there = (backend for backend in target.backends if backend.endpoint.address == begun.address)
        found = next(there, None)
        if found is None and begun.upstream is not None:
            return Backend(self._pool.endpoint(begun.address), 0, ip_to_int(begun.address[0]))
        return found

    async def _go_on(self, backend: Backend, begun: Begun, head: RequestHead) -> Connection:
        """The first try, where the gateway has made it; returns with the head of an answer. Raises UnansweredError."""
        self._connection = connection = await self._pool.adopted(backend.endpoint, begun, bodiless=self._bodiless)
        if self._policed is not None:
            self._policed.be_patient(connection, self._pool)
        if begun.streaming:
            self._sender = asyncio.create_task(self._send_body(connection, head, begun))
        return await self._head_of(connection)

    def _blame(self, backend: Backend) -> None:
        """The endpoint is why there is no answer, or none that the policy takes for one."""
        self._faults += 1
        self._pool.put_out(backend.endpoint)

    def _who(self, head: RequestHead) -> int:
        """A number that stands for the client and, for Maglev, its connection."""
        origin = self._client.origin
        by_port = self._target is not None and self._target.algorithm == MAGLEV
        return client_of(origin.client(head), origin.peer_port if by_port else 0)

    def _is_last(self, retry: Retry, attempt: int, began_s: float) -> bool:
        """Whether the policy allows no try after so many and for so long."""
        late = retry.within_s and self._pool.loop.time() - began_s >= retry.within_s
        return attempt >= retry.tries or bool(late)

    @property
    def _streaming(self) -> bool:
        """Whether the request's body is under way, which cannot be sent twice."""
        return self._sender is not None

    def _next(self, target: Target, failed: list[Backend]) -> Backend | None:
        client = self._watch.client if self._watch is not None else 0
        return target.next(failed, client) if self._policed is None else self._policed.next(target, failed, client)

    def _frame(self, head: RequestHead, *, streaming: bool) -> list[bytes]:
        """Where the body ends, said anew; takes the body if all of it is here, and none of it ``streaming`` before."""
        framing = []
        if head.length or head.chunked:
            content = self._client.content
            if content.is_eof() and not streaming:
                self._body = content.read_nowait()
                if self._policed is not None:
                    self._policed.check_body(len(self._body), self._body)
                framing.append(b"Content-Length: %d" % len(self._body))
            else:
                self._body = None
                # As a number: who takes zeroes before it for octal digits would see another end.
                length = b"Content-Length: %d" % int(head.length) if head.length else b"Transfer-Encoding: chunked"
                framing.append(length)
            if self._client.method in forwarding.BODILESS and self._body != b"":
                head.desync = True
        if head.upgrade and (framing or not head.is_websocket):
            self._client.keep_alive = False  # aiohttp takes what follows for another protocol's
        if head.desync:
            self._client.keep_alive = False
            framing.append(forwarding.CLOSE)
        elif head.named and head.is_websocket:
            framing += forwarding.UPGRADE
        return framing

    async def _send_body(self, connection: Connection, head: RequestHead, begun: Begun | None = None) -> None:
        """Relay the request's body as it comes, or what is left of one that was ``begun``."""
        content, length = self._client.content, 0
        timeout_s = self._timeout_s - (begun.waited_s if begun is not None else 0.0)
        try:
            if begun is not None and begun.owed:
                await connection.write(begun.owed)
            if begun is not None and begun.over:
                return
            if head.expects_continue:
                await self._client.go_on()
            while True:
                connection.held_up += 1
                async with asyncio.timeout(timeout_s):
                    piece = await content.readany()
                timeout_s = self._timeout_s
                connection.held_up -= 1
                if not piece:
                    break
                length += len(piece)
                if self._policed is not None:
                    self._policed.check_body(length, piece)
                await connection.write(piece if head.length else forwarding.chunk(piece))
            if not head.length:
                await connection.write(forwarding.LAST_CHUNK)
            if self._policed is not None:
                self._policed.send_copy()
        except UnansweredError:
            pass  # whoever waits for the answer hears of it too
        except RefusedError as error:
            connection.fail(UnansweredError(error.status, str(error), kind="request"))
        except TimeoutError:
            connection.fail(UnansweredError(408, "the request's body did not come in time", kind="request"))
        except (web.RequestPayloadError, ConnectionError):
            connection.fail(UnansweredError(400, "the request's body is broken", kind="request"))

    async def _relay(self, connection: Connection) -> None:
        """Write the answer to the client. Raises ConnectionError where it has left."""
        client = self._client
        if self._sender is not None and not self._sender.done():
            client.keep_alive = False  # the client may be sending on when the answer is over
        status, whole, length = connection.status, connection.complete, connection.length
        lines = [*(connection.lines if self._policed is None else self._policed.adorned(connection.lines, status))]
        if not connection.dated:
            lines.append(forwarding.date())
        if not connection.served:
            lines.append(forwarding.SERVER)
        body = connection.taken()
        if whole and not self._bodiless and status not in _WITHOUT_BODY:
            length = len(body)
        elif status == HTTPStatus.NO_CONTENT:
            length = None
        await client.answer(status, connection.reason, lines, body, length=length, whole=whole)
        if not whole and not await self._relay_rest(connection):
            return
        self._status = status
        if self._watch is not None:
            self._watch.answered(self._pool.loop.time())
        if self._head and not self._head.desync and (self._sender is None or self._sender.done()):
            connection.release()
            self._connection = None

    async def _relay_rest(self, connection: Connection) -> bool:
        """Relay what follows the first piece of a body; False where it broke off, which the client must notice."""
        client = self._client
        try:
            while piece := await connection.read():
                await client.write(piece)
        except UnansweredError as error:
            log.debug("an answer broke off: %s", error)
            self._status = error.status
            client.break_off()
            return False
        await client.end()
        return True

    async def _tunnel(self, connection: Connection) -> None:
        """Pass the 101 on, then bytes both ways, until one side ends."""
        client = self._client
        assert isinstance(client, Http1)  # in HTTP/2 nobody can ask for an upgrade
        self._status = connection.status
        lines = connection.lines
        if self._policed is not None:
            lines = self._policed.adorned(lines, connection.status)
        await client.switch(connection.reason, lines, connection)
        try:
            while piece := await connection.read():
                await client.write(piece)
        except UnansweredError as error:
            log.debug("a tunnel ended: %s", error)

    async def _excuse(self, policed: Policed, head: RequestHead, status: int) -> None:
        """The answer of the default backend, in the place of one with this status; the request's body is not for it."""
        client = self._client
        if not client.content.is_eof():
            client.keep_alive = False
        if self._sender is not None:
            self._sender.cancel()
            self._sender = None
        if self._connection is not None and (self._body is None or head.desync):
            self._connection.abort()
        elif self._connection is not None:
            self._connection.release()
        self._connection, self._backend, self._body = None, None, b""
        self._meant, retries, faults = self._target, self._retries, self._faults
        self._target, path = policed.excuse(head, status)
        try:
            if self._target is None:
                raise RefusedError(404, f"an answer of {status} is for a default backend, and there is none")
            connection = await self._ask(head, self._target, path, client.origin.fields(head))
            await self._relay(connection)
        except (RefusedError, UnansweredError) as error:
            await self._refuse(error.status, str(error))
        except ConnectionError:  # the client's
            self._leave()
        finally:
            self._retries, self._faults = retries, faults

    async def _refuse(self, status: int, reason: str, lines: Sequence[bytes] = ()) -> None:
        """An answer of ours. What is left of the request's body is not waited for."""
        head, policed = self._head, self._policed
        if head is not None and policed is not None and status not in CLOSING and policed.excuses(status, own=True):
            await self._excuse(policed, head, status)
            return
        client, self._status = self._client, status
        if not client.content.is_eof() or status in CLOSING:
            client.keep_alive = False
        lines = lines if policed is None else policed.adorned(lines, status)
        phrase, lines, body = forwarding.own_message(status, reason.strip(), lines)
        length = len(body) if status != HTTPStatus.NO_CONTENT else None
        try:
            await client.answer(status, phrase, lines, b"" if self._bodiless else body, length=length, whole=True)
        except ConnectionError:
            self._leave()

    def _leave(self) -> None:
        """The client has."""
        self._status = CLIENT_LEFT
        self._client.keep_alive = False


_WITHOUT_BODY = frozenset({204, 304})
