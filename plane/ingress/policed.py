"""A request on a route that has policies: what they do to it, from its head to the fields of its answer.

Law: ``plane.conduct`` decides; here is only what takes a connection, a clock or a memory: limits, passwords, bodies,
timeouts and the cookie of affinity. A request of a route without policies never has one of these.
"""

import hashlib
import time
from collections.abc import Sequence
from ipaddress import IPv4Address

from plane import affinity
from plane.conduct import Answer, Fields, Request, choose
from plane.ingress import forwarding
from plane.ingress.connection import Connection
from plane.ingress.downstream import Downstream
from plane.ingress.forwarding import RefusedError, RequestHead
from plane.ingress.hashing import BusyError
from plane.ingress.retry import DEFAULT
from plane.ingress.table import Backend, Table, Target
from plane.ingress.upstream import Pool
from plane.policies import Policies
from plane.router import Match

KNOWN = 1024  # passwords that were right are remembered, so many of a route
KEYS = 32  # keys of affinity that are tried until one leads past the endpoints that failed


class Policed:
    """One request. ``asked`` is its path and query as it was sent."""

    __slots__ = ("_cookie", "_counted", "_seen", "_table", "rules")

    def __init__(self, client: Downstream, table: Table, match: Match, head: RequestHead, asked: str):
        origin = client.origin
        address = origin.client(head)
        self.rules = table.rules[match.policy]
        self._table = table
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
        if not match.canary:
            return match.target, match.origin
        alternative = self._table.canaries[match.canary]
        own, other = (str(self._table.targets[row].service) for row in (match.target, alternative.target))
        if choose(alternative.canary, self._seen, self.rules.policies, (own, other)).canary:
            return alternative.target, alternative.origin
        return match.target, match.origin

    async def comply(self, head: RequestHead) -> str:
        """What is asked of the endpoint, once the password is right; ``head`` becomes what it gets.

        Raises RefusedError.
        """
        if self.rules.policies.auth and not await self._knows(self._seen.value("authorization")):
            raise _refusal(self.rules.challenge())
        upstream = self.rules.upstream(self._seen)
        names = self.rules.hidden | {name.lower().encode() for name, _ in upstream.fields}
        if names:
            head.lines = forwarding.without(head.lines, names)
        head.lines += _lines(upstream.fields)
        head.upstream_host = upstream.host.encode()
        return upstream.uri

    def check_body(self, length: int) -> None:
        """Raises RefusedError where a body is longer than the route takes."""
        limit = self.rules.policies.body_limit
        if limit and length > limit:
            raise RefusedError(413, f"the body is larger than {limit} bytes")

    def be_patient(self, connection: Connection, pool: Pool) -> None:
        """With an endpoint as long as the route says."""
        policies = self.rules.policies
        if policies.read_timeout_ms:
            connection.read_ticks = pool.ticks(policies.read_timeout_ms / 1000)
        if policies.send_timeout_ms:
            connection.send_ticks = pool.ticks(policies.send_timeout_ms / 1000)

    def next(self, target: Target, failed: Sequence[Backend]) -> Backend | None:
        """The backend to try: that of the client's cookie, if the route has affinity, else that whose turn it is."""
        policies = self.rules.policies
        if not policies.cookie and not policies.hash_by:
            return target.next(failed)
        backends, service = target.backends, str(target.service)
        addresses = [_address(backend) for backend in backends]
        if not policies.cookie:
            found = affinity.endpoint_of(self.rules.hash_key(self._seen), addresses, persistent=False)
            return backends[found] if found is not None and backends[found] not in failed else target.next(failed)
        key, of = affinity.held(self._seen.value("cookie"), policies.cookie)
        if key and of == affinity.backend_key(service) and not (failed and policies.cookie_change_on_failure):
            found = affinity.endpoint_of(key, addresses, persistent=policies.cookie_persistent)
            if found is not None:
                return backends[found] if list(failed).count(backends[found]) < DEFAULT.tries else None
        chosen = target.next(failed)
        if chosen is None:
            return None
        key = affinity.new_key(_address(chosen), persistent=policies.cookie_persistent)
        if not policies.cookie_persistent:
            key, chosen = self._balanced(key, chosen, backends, addresses, failed)
        secure = self._seen.scheme == "https"
        cookie = affinity.set_cookie(policies, key, service, secure=secure, now_s=time.time())
        self._cookie = f"Set-Cookie: {cookie}".encode()
        return chosen

    def adorned(self, lines: Sequence[bytes]) -> list[bytes]:
        """Fields of an answer with those that policies put in."""
        found = list(lines)
        if ours := self.rules.fields(self._seen):
            found = [*forwarding.without(found, self.rules.replaced), *_lines(ours)]
        if self._cookie:
            found.append(self._cookie)
        return found

    def leave(self) -> None:
        """The request is done."""
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

    @staticmethod
    def _balanced(
        key: str, chosen: Backend, backends: Sequence[Backend], addresses: Sequence[str], failed: Sequence[Backend]
    ) -> tuple[str, Backend]:
        """A key that leads to an endpoint that has not failed, if there is one, and that endpoint."""
        for _ in range(KEYS):
            found = affinity.endpoint_of(key, addresses, persistent=False)
            if found is not None and backends[found] not in failed:
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


def _refusal(answer: Answer) -> RefusedError:
    fields = (("Location", answer.location), *answer.fields) if answer.location else answer.fields
    return RefusedError(answer.status, answer.reason, _lines(fields))


def _lines(fields: Fields) -> list[bytes]:
    return [f"{name}: {value}".encode("utf-8", "surrogateescape") for name, value in fields]
