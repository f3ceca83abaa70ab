"""What nodes are told of Services, compiled from one Snapshot after the other. Pure.

Law: what is compiled of a Snapshot is what differs from the one before, and costs as much as that is worth. All of it
is laid down whole only when as much has been handed out in patches, so that nobody has to go through more of them than
that.
"""

from typing import NamedTuple

from kernels.layout import RANDOM, Fib
from kernels.lb.patches import Patch
from plane import fib, healthchecks
from plane.endpointindex import Change, EndpointIndex
from plane.healthchecks import HealthCheck
from plane.model import Snapshot

PATCHES = 1000  # at most, from one time that tables are laid down whole to the next


class NodeTables(NamedTuple):
    """The tables of one generation: equal for all nodes, each of which knows its own number.

    patch   from the tables compiled before; its ``before`` is 0 where there were none
    health  all of them, the same tuple as before if nothing differs
    whole   the Fib, now and then
    """

    patch: Patch
    health: tuple[HealthCheck, ...]
    whole: Fib | None = None

    @property
    def generation(self) -> int:
        return self.patch.generation


class Compiler:
    """Compiles one Snapshot after the other. One that has raised is of no more use.

    ``algorithm`` is that of Services which name none.
    """

    def __init__(self, algorithm: int = RANDOM):
        self._fib = fib.Compiler(algorithm)
        self._health = healthchecks.Compiler()
        self._last: NodeTables | None = None
        self._patches = self._bytes = 0  # since the Fib was laid down whole

    def compile(self, snapshot: Snapshot, index: EndpointIndex, change: Change) -> NodeTables:
        """All that follows for nodes: the very tables of the one before where nothing differs.

        The index has followed the Snapshot, and ``change`` is what came of it.
        """
        last = self._last
        patch = self._fib.compile(snapshot, index, change, last.generation if last else 0)
        health = self._health.compile(snapshot, index, change)
        if last and health is last.health and not patch.runs:
            return last
        self._patches += 1
        self._bytes += patch.nbytes
        whole = None
        if last and (self._patches > PATCHES or self._bytes > self._fib.nbytes):
            whole, self._patches, self._bytes = self._fib.whole(snapshot.generation), 0, 0
        self._last = NodeTables(patch, health, whole)
        return self._last
