"""The Routes in force, as the objects that requests meet.

Law: a table never changes but for the turns of its targets; a request keeps to the table it began with.
"""

from collections.abc import Collection

from plane.addresses import int_to_ip
from plane.ingress.records import Records
from plane.ingress.upstream import Address, Endpoint, Pool
from plane.router import Router
from plane.routes import Port, Routes, names


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

    def next(self, failed: Collection[Backend] = ()) -> Backend | None:
        """The backend whose turn it is; of those that failed none, unless that leaves nobody."""
        backends = self._backends
        for _ in backends:
            turn = self._turn if self._turn < len(backends) else 0
            self._turn = turn + 1
            if backends[turn] not in failed:
                return backends[turn]
        return None


class Table:
    """What an install puts in force. ``before`` is the table it replaces, whose turns go on."""

    def __init__(self, routes: Routes, pool: Pool, records: Records | None, before: "Table | None" = None):
        self.generation = routes.generation
        self.origins = routes.origins
        self.router = Router(routes)
        self.addresses: set[Address] = set()
        self.targets: list[Target] = []
        turns = {target.service: target.turn for target in before.targets} if before else {}
        for row in routes.targets:
            first, service = int(row["first_endpoint"]), routes.services[row["service"]]
            numbers = routes.endpoints[first : first + int(row["endpoints"])]
            backends = tuple(self._backend(routes, int(number), pool) for number in numbers)
            self.targets.append(Target(service, int(row["status"]), backends, turns.get(service, 0)))
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
