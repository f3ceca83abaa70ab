"""All tables of one Snapshot after the other, for a plane that runs.

Law: they are those that ``fib.compile``, ``health_checks``, ``names.compile`` and ``routecompiler.compile`` make of the
Snapshot from nothing, the Fib by way of a patch; the time it takes goes by what differs from the Snapshot before,
whatever number of Services there is besides. But for names: they are put together again where a Service itself changes
(not its endpoints), from what each of them says, and all headless ones are made again where one of those changes.
"""

from kernels.layout import RANDOM
from plane import nodetables, routecompiler, routes
from plane.dns import names
from plane.dns.names import BoundPort, Names
from plane.endpointindex import EndpointIndex
from plane.model import Snapshot
from plane.nodetables import NodeTables
from plane.routes import Routes

# Kinds that tables follow from.
KINDS = ("Namespace", "Service", "EndpointSlice", "Node", "Pod", "Ingress", "IngressClass", "Secret", "ConfigMap")


class Compiler:
    """``algorithm`` is that of Services which name none, ``bound_port`` gives the port that is really listened on."""

    def __init__(self, algorithm: int = RANDOM, bound_port: BoundPort = int):
        self._algorithm = algorithm
        self._bound_port = bound_port
        self._last: tuple[Snapshot, NodeTables, Names, Routes] | None = None
        self._begin()

    def _begin(self) -> None:
        self._index = EndpointIndex()
        self._node_tables = nodetables.Compiler(self._algorithm)
        self._names = names.Compiler(self._bound_port)
        self._routes = routecompiler.Compiler()

    def compile(self, snapshot: Snapshot) -> tuple[NodeTables, Names, Routes]:
        """The tables of a Snapshot: the very objects of the one before where they would be equal to them.

        Whatever it raises, the next Snapshot is compiled as if there had been none before.
        """
        if self._last is not None and _alike(self._last[0], snapshot):
            return self._last[1:]
        try:
            change = self._index.follow(snapshot)
            node_tables = self._node_tables.compile(snapshot, self._index, change)
            found_names = self._names.compile(snapshot)
            found = self._routes.compile(snapshot, self._index, change)
        except BaseException:
            self._begin()  # one of them may have followed half of a change
            raise
        finally:
            self._index.forget()
        if self._last is not None:
            _, _, last_names, last_routes = self._last
            found_names = last_names if names.equal(last_names, found_names) else found_names
            found = last_routes if routes.equal(last_routes, found) else found
        self._last = snapshot, node_tables, found_names, found
        return node_tables, found_names, found


def _alike(one: Snapshot, other: Snapshot) -> bool:
    """Whether two Snapshots have the same objects of all kinds that count."""
    return one.backends is other.backends and all(one.rows(kind) is other.rows(kind) for kind in KINDS)
