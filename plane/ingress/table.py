"""The Routes in force, as the objects that requests meet.

Law: a table never changes but for the turns of its targets, which tables share that have the same; a request keeps to
the table it began with.
"""

import asyncio
from collections.abc import Collection, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kernels.layout import EWMA, RR
from plane.addresses import int_to_ip, ip_to_int
from plane.balance import BY_CLIENT, Balancer, seed_of
from plane.conduct import Conduct
from plane.dns.resolver import UnresolvedError
from plane.externalauth import ExternalAuth
from plane.ingress.external import Hosts
from plane.ingress.forwarding import RefusedError
from plane.ingress.hashing import Hashing
from plane.ingress.limits import Limits
from plane.ingress.mirror import Mirrors
from plane.ingress.records import Records
from plane.ingress.retry import retry_of
from plane.ingress.subrequest import Asking, Decisions
from plane.ingress.upstream import Address, Endpoint, Pool
from plane.ingress.upstreamtls import UpstreamTls, tls_of
from plane.policies import Canary, Policies
from plane.router import Router
from plane.routes import Difference, External, Port, RouteNames, Routes, difference


class Backend:
    """An endpoint of a target, with what records call it, and its weight there."""

    __slots__ = ("endpoint", "ip", "number", "port", "seed", "weight")

    def __init__(self, endpoint: Endpoint, number: int, ip: int, weight: int = 1):
        self.endpoint = endpoint
        self.number = number
        self.ip = ip
        self.port = endpoint.address[1]
        self.seed = seed_of(ip, self.port)
        self.weight = weight


class Target:
    """A port of a Service, and the algorithm by which its endpoints are chosen.

    watched    the algorithm is not that of turns, and what it goes by has to be kept: see ``Watch``
    by_client  it has to know who asks
    """

    __slots__ = (
        "_backends",
        "_balancer",
        "_loop",
        "_turn",
        "algorithm",
        "by_client",
        "row",
        "service",
        "status",
        "watched",
    )

    def __init__(self, service: Port, row: np.void, backends: tuple[Backend, ...], loop: asyncio.AbstractEventLoop):
        self.service = service
        self.status = int(row["status"])  # what clients are told while there is no endpoint
        self.algorithm = int(row["algorithm"])
        self.by_client = self.algorithm in BY_CLIENT
        self.row = -1  # index of the Service's name in the records
        self._backends = backends
        self._turn = 0
        self._loop = loop
        slow_start_s = int(row["slow_start_s"])
        in_turn = self.algorithm == RR and not slow_start_s
        self._balancer = None if in_turn else Balancer(self.algorithm, slow_start_s)
        self.watched = not in_turn

    def go_on(self, before: "Target") -> None:
        """With the turns of the target that this one replaces."""
        self._turn = before._turn
        if self._balancer is not None:
            if before._balancer is not None:
                self._balancer.go_on(before._balancer)
            if self.algorithm == EWMA:
                self._balancer.settle(self._backends, self._loop.time())

    @property
    def backends(self) -> tuple[Backend, ...]:
        return self._backends

    def host_of(self, backend: Backend) -> str:
        """What Host is where it is the endpoint's own."""
        return "{}:{}".format(*backend.endpoint.address)

    def next(self, failed: Collection[Backend] = (), client: int = 0) -> Backend | None:
        """The backend for a request; none of those that failed, and none that is out unless all others are.

        ``client`` is a number that stands for who asks, where the target is ``by_client``.
        """
        backends = self._backends
        if self._balancer is not None:
            there = self.fit(failed)
            return self._balancer.next(backends, there, client, self._loop.time()) if there else None
        for _ in backends:
            turn = self._turn if self._turn < len(backends) else 0
            self._turn = turn + 1
            backend = backends[turn]
            if not backend.endpoint.out and backend not in failed:
                return backend
        return self._next_of_all(failed)

    def _next_of_all(self, failed: Collection[Backend]) -> Backend | None:
        """Whose turn it is, out or not."""
        for _ in self._backends:
            turn = self._turn if self._turn < len(self._backends) else 0
            self._turn = turn + 1
            if self._backends[turn] not in failed:
                return self._backends[turn]
        return None

    def fit(self, failed: Collection[Backend]) -> Sequence[Backend]:
        """The backends that may have a request: of those that did not fail those that are in, or all."""
        rest = [backend for backend in self._backends if backend not in failed] if failed else self._backends
        return [backend for backend in rest if not backend.endpoint.out] or rest


class Rules(Conduct):
    """The policies of a route, ready for requests, with what is known to an ingress only.

    tls        how endpoints are spoken to, None for plain HTTP, or ``broken``: why they cannot be
    known      digests of the Authorization fields that were right: to look at a password takes its time
    external   who is asked whether a request goes on, if anybody is
    decisions  answers of that one that are kept
    """

    def __init__(self, policies: Policies):
        super().__init__(policies)
        self.retry = retry_of(policies)
        self.known: set[bytes] = set()
        self.tls: UpstreamTls | None = None
        self.broken = ""
        try:
            self.tls = tls_of(policies)
        except ValueError as error:
            self.broken = str(error)
        self.external = ExternalAuth(policies) if policies.auth_url else None
        self.decisions = Decisions()


class Alternative(NamedTuple):
    """A canary, the rows of the target and the origin that it leads to, and whether there is an endpoint."""

    canary: Canary
    target: int
    origin: int
    is_served: bool


class NamedTarget(Target):
    """A port of an ExternalName, whose endpoints are the addresses of a host: ``find`` comes before ``next``."""

    __slots__ = ("_external", "_hosts", "_pool")

    def __init__(self, service: Port, row: np.void, external: External, hosts: Hosts, pool: Pool):
        super().__init__(service, row, (), pool.loop)
        self._external = external
        self._hosts = hosts
        self._pool = pool

    def host_of(self, backend: Backend) -> str:
        return f"{self._external.name}:{self._external.port}"

    async def find(self) -> None:
        """Returns once its backends are known. Raises RefusedError where they cannot be."""
        try:
            found = await self._hosts.addresses(self._external)
        except UnresolvedError as problem:
            what = f"Service {self.service} stands for {self._external.name}, which cannot be reached: {problem}"
            raise RefusedError(self.status, what) from problem
        if found != tuple(backend.endpoint.address for backend in self._backends):
            self._backends = tuple(Backend(self._pool.endpoint(row), 0, ip_to_int(row[0])) for row in found)


class Numbers:
    """For each row of ``origins`` the index of its name in the records, which get it when it is first asked for."""

    def __init__(self, named: RouteNames, records: Records | None):
        self._named = named
        self._records = records
        self._known: dict[int, int] = {}

    def __getitem__(self, origin: int) -> int:
        assert self._records is not None
        if origin not in self._known:
            self._known[origin] = self._records.name("routes", self._named[origin])
        return self._known[origin]


class Table:
    """What an install puts in force. ``before`` is the table it replaces: what is the same in both is one object, and
    of targets that are not, the turns go on.

    rules     by the rows of POLICY, the first of which is none
    canaries  by the rows of CANARY
    whens     by the rows of WHEN
    """

    def __init__(
        self,
        routes: Routes,
        pool: Pool,
        hosts: Hosts,
        records: Records | None,
        before: "Table | None" = None,
        *,
        limits: Limits,
        hashing: Hashing,
        asking: Asking,
        mirrors: Mirrors,
        https_port: int,
    ):
        self.generation = routes.generation
        self.origins = routes.origins
        self.limits = limits
        self.hashing = hashing
        self.asking = asking
        self.mirrors = mirrors
        self.https_port = https_port
        self._routes = routes
        self._pool = pool
        self._hosts = hosts
        differs = difference(before._routes, routes) if before else None
        self.rules = self._all_rules(before, differs)
        self.canaries = [
            Alternative(
                routes.canary(row), int(found["target"]), int(found["origin"]), routes.is_served(int(found["target"]))
            )
            for row, found in enumerate(routes.policies.canaries)
        ]
        self.whens = [routes.when(row) for row in range(len(routes.policies.whens))]
        self.router: Router = Router(routes, before.router if before else None, differs)
        self._addresses = self._all_addresses(before, differs)
        self.addresses: set[Address] = set(self._addresses.values())
        for external in routes.externals.values():
            self.addresses.update(hosts.in_use(external))
        self.targets = self._all_targets(before, differs, records)
        self.names = RouteNames(routes)  # of origins
        self.routes = Numbers(self.names, records)

    def _all_rules(self, before: "Table | None", differs: Difference | None) -> list[Rules]:
        count = len(self._routes.policies.policies)
        if before is not None and differs is not None:
            asked = map(self._routes.policy, range(len(before.rules), count))
            return [*before.rules, *map(Rules, asked)]
        known = {rules.policies: rules for rules in before.rules} if before else {}
        return [known.get(policies) or Rules(policies) for policies in map(self._routes.policy, range(count))]

    def _all_addresses(self, before: "Table | None", differs: Difference | None) -> dict[int, Address]:
        """Of the endpoints that are used, by their ids."""
        backends = self._routes.backends
        known: dict[int, Address] = {}
        numbers = np.flatnonzero(backends["ip"])
        if before is not None and differs is not None:
            known = before._addresses.copy()
            numbers = np.flatnonzero(differs.backends)
            for number in range(len(backends), len(before._routes.backends)):
                known.pop(number, None)
        for number in numbers.tolist():
            if ip := int(backends[number]["ip"]):
                known[number] = int_to_ip(ip), int(backends[number]["port"])
            else:
                known.pop(number, None)
        return known

    def _all_targets(self, before: "Table | None", differs: Difference | None, records: Records | None) -> list[Target]:
        count = len(self._routes.targets)
        rows = range(count) if differs is None else np.flatnonzero(differs.targets).tolist()
        targets: list[Any] = [None] * count
        replaced: Iterable[Target] = ()
        if before is not None and differs is not None:
            targets[: len(before.targets)] = before.targets[:count]
            replaced = [before.targets[row] for row in rows if row < len(before.targets)] + before.targets[count:]
        elif before is not None:
            replaced = before.targets
        there = {(target.service, target.algorithm): target for target in replaced}
        for row in rows:
            targets[row] = target = self._target(row)
            if same := there.get((target.service, target.algorithm)):
                target.go_on(same)
            if records is not None and self._routes.targets[row]["service"]:
                target.row = records.name("services", str(target.service))
        return targets

    def _target(self, number: int) -> Target:
        routes, row = self._routes, self._routes.targets[number]
        service = routes.services[row["service"]]
        if external := routes.externals.get(number):
            return NamedTarget(service, row, external, self._hosts, self._pool)
        first = int(row["first_endpoint"])
        numbers = routes.endpoints[first : first + int(row["endpoints"])].tolist()
        return Target(service, row, tuple(map(self._backend, numbers)), self._pool.loop)

    def _backend(self, number: int) -> Backend:
        row = self._routes.backends[number]
        return Backend(self._pool.endpoint(self._addresses[number]), number, int(row["ip"]), int(row["weight"]))
