"""A request on a route that has policies: what they do to it, from its head to the fields of its answer.

Law: ``plane.conduct`` decides; here is only what takes a connection, a clock or a memory: limits, passwords, bodies,
timeouts and the cookie of affinity. A request of a route without policies never has one of these.
"""

import hashlib
import random
import time
from collections.abc import Sequence
from ipaddress import IPv4Address
from urllib.parse import urlsplit

from plane import affinity
from plane.conduct import Answer, Request, Rule, Upstream, choose
from plane.externalauth import WITH_COOKIES
from plane.ingress import forwarding
from plane.ingress.connection import Connection
from plane.ingress.downstream import Downstream
from plane.ingress.forwarding import RefusedError, RequestHead
from plane.ingress.hashing import BusyError
from plane.ingress.mirror import Copy
from plane.ingress.retry import DEFAULT
from plane.ingress.subrequest import Decision
from plane.ingress.table import Backend, Table, Target
from plane.ingress.upstream import Pool
from plane.policies import Policies
from plane.router import Match
from plane.routes import Origin

KNOWN = 1024  # passwords that were right are remembered, so many of a route
KEYS = 32  # keys of affinity that are tried until one leads past the endpoints that failed


class Policed:
    """One request. ``asked`` is its path and query as it was sent."""

    __slots__ = (
        "_client",
        "_cookie",
        "_copy",
        "_counted",
        "_decision",
        "_excused",
        "_route",
        "_rule",
        "_seen",
        "_table",
        "rules",
    )

    def __init__(self, client: Downstream, table: Table, match: Match, head: RequestHead, asked: str):
        origin = client.origin
        address = origin.client(head)
        self.rules = table.rules[match.policy]
        self._table = table
        self._client = origin
        self._copy: Copy | None = None  # for whom the route mirrors its requests to
        self._route = table.names[match.origin]
        self._rule = _rule(table.origins[match.origin], table.targets[match.target] if match.target else None)
        self._excused = False  # the default backend is asked for the answer
        self._decision: Decision | None = None  # of who was asked
        self._counted = False  # among the client's requests under way
        self._cookie = b""  # a field that the answer gets
        self._seen = Request(
            method=client.method,
            scheme=origin.came_by(head),
            host=head.asked_host.decode("utf-8", "surrogateescape"),
            uri=asked,
            client=_number(address),
            address=address,
            length=int(head.length or 0),
            value=lambda name: ("; " if name == "cookie" else ", ").join(client.values(name)),
            https_port=table.https_port,
        )

    def admit(self, match: Match) -> tuple[int, int]:
        """Rows of the target and the origin that the request has, by its rule or its canary. Raises RefusedError."""
        if answer := self.rules.answer(self._seen, self._limited):
            raise _refusal(answer)
        if fallback := self.rules.policies.fallback:
            return fallback, match.origin
        if not match.canary:
            return match.target, match.origin
        alternative = self._table.canaries[match.canary]
        own, other = (str(self._table.targets[row].service) for row in (match.target, alternative.target))
        policies, is_served = self.rules.policies, alternative.is_served
        if choose(alternative.canary, self._seen, policies, (own, other), is_served=is_served).canary:
            return alternative.target, alternative.origin
        return match.target, match.origin

    async def comply(self, head: RequestHead) -> str:
        """What is asked of the endpoint, once the request is let in; ``head`` becomes what it gets.

        Raises RefusedError.
        """
        head.request_id = head.request_id or forwarding.new_request_id()
        if refused := await self._turned_away(head):
            auth = self.rules.external
            raise _refusal(auth.signed_in(refused, self._seen) if auth else refused)
        if self.rules.broken:
            raise RefusedError(503, self.rules.broken)
        upstream = self.rules.upstream(self._seen)
        if self.rules.policies.fallback:
            upstream = upstream._replace(fields=(*upstream.fields, *self.rules.stand_in(self._seen, self._rule)))
        self._write(head, upstream)
        head.lines += self._said()
        self._copy = self._copied(head)
        return upstream.uri

    def excuses(self, status: int, *, own: bool) -> bool:
        """Whether the default backend is to be asked for the answer, which it is once only."""
        return not self._excused and self.rules.excuses(status, own=own)

    def excuse(self, head: RequestHead, status: int) -> tuple[Target | None, str]:
        """The default backend, if there is one, and what it is asked for; ``head`` becomes what it gets: no body."""
        self._excused = True
        if self._copy is not None:
            self._copy.leave()
            self._copy = None
        upstream = self.rules.excuse(self._seen, status, self._rule)
        self._write(head, upstream)
        if self._seen.method not in forwarding.BODILESS:
            head.lines.append(b"Content-Length: 0")
        head.length = head.upgrade = b""
        head.chunked = head.expects_continue = False
        row = self.rules.policies.errors_target
        return self._table.targets[row] if row else None, upstream.uri

    def _write(self, head: RequestHead, upstream: Upstream) -> None:
        names = self.rules.hidden | {name.lower().encode() for name, _ in upstream.fields}
        if names:
            head.lines = forwarding.without(head.lines, names)
        head.lines += forwarding.field_lines(upstream.fields)
        head.upstream_host = upstream.host.encode()

    async def _turned_away(self, head: RequestHead) -> Answer | None:
        """The answer to who is not let in; with ``any_lets_in`` 401 counts before 403, as in NGINX."""
        rules, any_lets_in = self.rules, self.rules.any_lets_in
        if any_lets_in and rules.welcomes(self._seen):
            return None
        refused = rules.turned_away(self._seen) if any_lets_in else None
        if rules.policies.auth:
            right = await self._knows(self._seen.value("authorization"))
            if right and any_lets_in:
                return None
            refused = refused if right else rules.challenge()
            if refused and not any_lets_in:
                return refused
        if rules.external is None:
            return refused
        asking, kept = self._table.asking, rules.decisions
        route = f"{self._route} {self._seen.host}"
        self._decision = await asking.decision(rules.external, self._seen, head, route, kept)
        challenges = [value.decode("latin-1") for value in self._decision.values(b"www-authenticate")]
        said = rules.external.refusal(self._decision.status, challenges)
        if said is None:
            return None
        return refused if refused and refused.status == 401 and said.status == 403 else said

    def _said(self) -> list[bytes]:
        """Fields that the endpoint gets of the answer of who was asked."""
        if self.rules.external is None or self._decision is None:
            return []
        found = ((name, self._decision.values(name.lower())) for name in self.rules.external.names)
        return [name + b": " + b", ".join(values) for name, values in found if any(values)]

    def check_body(self, length: int, piece: bytes) -> None:
        """More of the request's body, which has this length by now. Raises RefusedError where the route takes less."""
        limit = self.rules.policies.body_limit
        if limit and length > limit:
            raise RefusedError(413, f"the body is larger than {limit} bytes")
        if self._copy is not None:
            self._copy.add(piece)

    def send_copy(self) -> None:
        """The whole of the request's body is here."""
        if self._copy is not None:
            self._copy.end()
            self._copy = None

    def _copied(self, head: RequestHead) -> Copy | None:
        """A copy of what the endpoint gets, if the route mirrors its requests."""
        url = self.rules.mirror(self._seen)
        if not url or head.is_websocket:
            return None
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = (
            f"{self._seen.method} {target} HTTP/1.1".encode("utf-8", "surrogateescape"),
            b"Host: " + self.rules.policies.mirror_host.encode(),
            self._client.fields(head),
            b"X-Forwarded-Host: " + head.asked_host,
            b"X-Request-ID: " + head.request_id,
            *head.lines,
            b"",
        )
        with_body = self.rules.policies.mirror_body
        return Copy(self._table.mirrors, url, self._seen.method, b"\r\n".join(lines), with_body=with_body)

    def be_patient(self, connection: Connection, pool: Pool) -> None:
        """With an endpoint as long as the route says."""
        policies = self.rules.policies
        if policies.read_timeout_ms:
            connection.read_ticks = pool.ticks(policies.read_timeout_ms / 1000)
        if policies.send_timeout_ms:
            connection.send_ticks = pool.ticks(policies.send_timeout_ms / 1000)

    def next(self, target: Target, failed: Sequence[Backend], client: int) -> Backend | None:
        """The backend to try: that of the client's cookie, if the route has affinity, else as the target chooses."""
        policies = self.rules.policies
        if self._excused or (not policies.cookie and not policies.hash_by):
            return target.next(failed, client)
        if not policies.cookie:
            return self._hashed(target.fit(failed))
        backends, service = target.backends, str(target.service)
        addresses = [_address(backend) for backend in backends]
        key, of = affinity.held(self._seen.value("cookie"), policies.cookie)
        if key and of == affinity.backend_key(service) and not (failed and policies.cookie_change_on_failure):
            found = affinity.endpoint_of(key, addresses, persistent=policies.cookie_persistent)
            if found is not None and not (policies.cookie_change_on_failure and backends[found].endpoint.out):
                return backends[found] if list(failed).count(backends[found]) < DEFAULT.tries else None
        chosen = target.next(failed, client)
        if chosen is None:
            return None
        key = affinity.new_key(_address(chosen), persistent=policies.cookie_persistent)
        if not policies.cookie_persistent:
            key, chosen = self._balanced(key, chosen, backends, addresses, failed)
        self._give(key, service)
        return chosen

    def keep_to(self, target: Target, backend: Backend) -> None:
        """The gateway has chosen the backend: a client whose cookie does not lead there is given one that does."""
        policies = self.rules.policies
        if not policies.cookie or backend not in target.backends:
            return
        addresses, place = [_address(each) for each in target.backends], target.backends.index(backend)
        service, persistent = str(target.service), policies.cookie_persistent
        key, of = affinity.held(self._seen.value("cookie"), policies.cookie)
        held = key and of == affinity.backend_key(service)
        if held and affinity.endpoint_of(key, addresses, persistent=persistent) == place:
            return
        key = affinity.new_key(addresses[place], persistent=persistent)
        for _ in range(KEYS * len(addresses)):
            if affinity.endpoint_of(key, addresses, persistent=persistent) == place:
                self._give(key, service)
                return
            key = affinity.new_key("", persistent=False)

    def _give(self, key: str, service: str) -> None:
        """Have the answer give the client a key."""
        policies, secure = self.rules.policies, self._seen.scheme == "https"
        agent = self._seen.value("user-agent")
        cookie = affinity.set_cookie(policies, key, service, secure=secure, now_s=time.time(), agent=agent)
        self._cookie = f"Set-Cookie: {cookie}".encode()

    def adorned(self, lines: Sequence[bytes], status: int) -> list[bytes]:
        """Fields of an answer with those that policies put in."""
        found = list(lines)
        if ours := self.rules.fields(self._seen):
            found = [*forwarding.without(found, self.rules.replaced), *forwarding.field_lines(ours)]
        if self._cookie:
            found.append(self._cookie)
        auth = self.rules.external
        if auth is not None and self._decision is not None and (auth.cookie_always or status in WITH_COOKIES):
            found += (b"Set-Cookie: " + value for value in self._decision.values(b"set-cookie"))
        return found

    def leave(self) -> None:
        """The request is done."""
        if self._copy is not None:
            self._copy.leave()
        if self._counted:
            self._table.limits.leave(self.rules.policies, self._seen.who)

    def _limited(self, policies: Policies, client: int | str) -> str:
        why = self._table.limits.limited(policies, client)
        self._counted = bool(policies.limit_connections) and not why
        return why

    async def _knows(self, authorization: str) -> bool:
        """Whether the password is right, which takes long to find out, unless nobody has that name."""
        digest = hashlib.sha256(authorization.encode("utf-8", "surrogateescape")).digest()
        if digest in self.rules.known:
            return True
        hashed, password = self.rules.claimed(authorization)
        try:
            right = bool(hashed) and await self._table.hashing.verified(hashed, password)
        except BusyError as error:
            raise RefusedError(503, str(error)) from error
        if right and len(self.rules.known) < KNOWN:
            self.rules.known.add(digest)
        return right

    def _hashed(self, there: Sequence[Backend]) -> Backend | None:
        """The backend that equal requests have of those that are there, or one of some that share them."""
        addresses, subset = [_address(backend) for backend in there], self.rules.policies.hash_subset
        found = affinity.endpoints_of(self.rules.hash_key(self._seen), addresses, subset or 1)
        return there[random.choice(found)] if found else None

    @staticmethod
    def _balanced(
        key: str, chosen: Backend, backends: Sequence[Backend], addresses: Sequence[str], failed: Sequence[Backend]
    ) -> tuple[str, Backend]:
        """A key that leads to an endpoint that has not failed, lately or now, if there is one, and that endpoint."""
        for _ in range(KEYS):
            found = affinity.endpoint_of(key, addresses, persistent=False)
            if (
                found is not None
                and backends[found] not in failed
                and backends[found].endpoint.out <= chosen.endpoint.out
            ):
                return key, backends[found]
            key = affinity.new_key("", persistent=False)
        return key, chosen


def _number(address: str) -> int:
    """An IPv4 address as a number, 0 for anything else that a proxy may say."""
    try:
        return int(IPv4Address(address))
    except ValueError:
        return 0


def _address(backend: Backend) -> str:
    ip, port = backend.endpoint.address
    return f"{ip}:{port}"


def _rule(origin: Origin, target: Target | None) -> Rule:
    if target is None:
        return Rule(origin.namespace, origin.ingress)
    return Rule(origin.namespace, origin.ingress, target.service.service.partition("/")[2], str(target.service.port))


def _refusal(answer: Answer) -> RefusedError:
    fields = (("Location", answer.location), *answer.fields) if answer.location else answer.fields
    return RefusedError(answer.status, answer.reason, forwarding.field_lines(fields))
