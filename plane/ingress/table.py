"""The Routes in force, as the objects that requests meet.

Law: a table never changes but for the turns of its targets; a request keeps to the table it began with.
"""

from collections.abc import Collection
from typing import NamedTuple

from plane.addresses import int_to_ip, ip_to_int
from plane.conduct import Conduct
from plane.dns.resolver import UnresolvedError
from plane.ingress.external import Hosts
from plane.ingress.forwarding import RefusedError
from plane.ingress.hashing import Hashing
from plane.ingress.limits import Limits
from plane.ingress.records import Records
from plane.ingress.retry import retry_of
from plane.ingress.upstream import Address, Endpoint, Pool
from plane.policies import Canary, Policies
from plane.router import Router
from plane.routes import External, Port, Routes, names


class Backend:
    """An endpoint of a target, with what records call it."""

    __slots__ = ("endpoint", "ip", "number", "port")

    def __init__(self, endpoint: Endpoint, number: int, ip: int):
        self.endpoint = endpoint
        self.number = number
        self.ip = ip
        self.port = endpoint.address[1]


class Target:
    """A port of a Service; its endpoints take turns, as ingress-nginx has them do."""

    __slots__ = ("_backends", "_turn", "row", "service", "status")

    def __init__(self, service: Port, status: int, backends: tuple[Backend, ...], turn: int):
        self.service = service
        self.status = status  # what clients are told while there is no endpoint
        self.row = -1  # index of the Service's name in the records
        self._backends = backends
        self._turn = turn

    @property
    def turn(self) -> int:
        return self._turn

    @property
    def backends(self) -> tuple[Backend, ...]:
        return self._backends

    def host_of(self, backend: Backend) -> str:
        """What Host is where it is the endpoint's own."""
        return "{}:{}".format(*backend.endpoint.address)

    def next(self, failed: Collection[Backend] = ()) -> Backend | None:
        """The backend whose turn it is; of those that failed none, unless that leaves nobody."""
        backends = self._backends
        for _ in backends:
            turn = self._turn if self._turn < len(backends) else 0
            self._turn = turn + 1
            if backends[turn] not in failed:
                return backends[turn]
        return None


class Rules(Conduct):
    """The policies of a route, ready for requests, with what is known to an ingress only.

    known  digests of the Authorization fields that were right: to look at a password takes its time
    """

    def __init__(self, policies: Policies):
        super().__init__(policies)
        self.retry = retry_of(policies)
        self.known: set[bytes] = set()


class Alternative(NamedTuple):
    """A canary, and the rows of the target and the origin that it leads to."""

    canary: Canary
    target: int
    origin: int


class NamedTarget(Target):
    """A port of an ExternalName, whose endpoints are the addresses of a host: ``find`` comes before ``next``."""

    __slots__ = ("_external", "_hosts", "_pool")

    def __init__(self, service: Port, status: int, turn: int, external: External, hosts: Hosts, pool: Pool):
        super().__init__(service, status, (), turn)
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
        https_port: int,
    ):
        self.generation = routes.generation
        self.origins = routes.origins
        self.limits = limits
        self.hashing = hashing
        self.https_port = https_port
        there = {rules.policies: rules for rules in before.rules} if before else {}
        asked = [routes.policy(row) for row in range(len(routes.policies.policies))]
        self.rules: list[Rules] = [there.get(policies) or Rules(policies) for policies in asked]
        self.canaries = [
            Alternative(routes.canary(row), int(found["target"]), int(found["origin"]))
            for row, found in enumerate(routes.policies.canaries)
        ]
        self.whens = [routes.when(row) for row in range(len(routes.policies.whens))]
        self.router = Router(routes)
        self.addresses: set[Address] = set()
        self.targets: list[Target] = []
        turns = {target.service: target.turn for target in before.targets} if before else {}
        for number, row in enumerate(routes.targets):
            first, service = int(row["first_endpoint"]), routes.services[row["service"]]
            status, turn = int(row["status"]), turns.get(service, 0)
            if external := routes.externals.get(number):
                self.targets.append(NamedTarget(service, status, turn, external, hosts, pool))
                self.addresses.update(hosts.in_use(external))
                continue
            numbers = routes.endpoints[first : first + int(row["endpoints"])]
            backends = tuple(self._backend(routes, int(backend), pool) for backend in numbers)
            self.targets.append(Target(service, status, backends, turn))
        self.routes: list[int] = []  # row of origins → index of its name in the records
        if records is not None:
            self.routes = [records.name("routes", name) for name in names(routes)]
            for target in self.targets[1:]:
                target.row = records.name("services", str(target.service))

    def _backend(self, routes: Routes, number: int, pool: Pool) -> Backend:
        ip = int(routes.backends[number]["ip"])
        address = int_to_ip(ip), int(routes.backends[number]["port"])
        self.addresses.add(address)
        return Backend(pool.endpoint(address), number, ip)
