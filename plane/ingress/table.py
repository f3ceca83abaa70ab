"""The Routes in force, as the objects that requests meet.

Law: a table never changes but for the turns of its targets; a request keeps to the table it began with.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import NamedTuple

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
from plane.routes import External, Port, Routes, names


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


class Table:
    """What an install puts in force. ``before`` is the table it replaces, whose turns go on.

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
        known = {rules.policies: rules for rules in before.rules} if before else {}
        asked = [routes.policy(row) for row in range(len(routes.policies.policies))]
        self.rules: list[Rules] = [known.get(policies) or Rules(policies) for policies in asked]
        self.canaries = [
            Alternative(
                routes.canary(row), int(found["target"]), int(found["origin"]), routes.is_served(int(found["target"]))
            )
            for row, found in enumerate(routes.policies.canaries)
        ]
        self.whens = [routes.when(row) for row in range(len(routes.policies.whens))]
        self.router = Router(routes)
        self.addresses: set[Address] = set()
        self.targets: list[Target] = []
        replaced = {(target.service, target.algorithm): target for target in before.targets} if before else {}
        for number, row in enumerate(routes.targets):
            service = routes.services[row["service"]]
            if external := routes.externals.get(number):
                target: Target = NamedTarget(service, row, external, hosts, pool)
                self.addresses.update(hosts.in_use(external))
            else:
                first = int(row["first_endpoint"])
                numbers = routes.endpoints[first : first + int(row["endpoints"])]
                backends = tuple(self._backend(routes, int(backend), pool) for backend in numbers)
                target = Target(service, row, backends, pool.loop)
            if there := replaced.get((service, target.algorithm)):
                target.go_on(there)
            self.targets.append(target)
        self.names = names(routes)  # of origins
        self.routes: list[int] = []  # row of origins → index of its name in the records
        if records is not None:
            self.routes = [records.name("routes", name) for name in self.names]
            for target in self.targets[1:]:
                target.row = records.name("services", str(target.service))

    def _backend(self, routes: Routes, number: int, pool: Pool) -> Backend:
        ip = int(routes.backends[number]["ip"])
        address = int_to_ip(ip), int(routes.backends[number]["port"])
        self.addresses.add(address)
        return Backend(pool.endpoint(address), number, ip, int(routes.backends[number]["weight"]))
