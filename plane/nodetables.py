"""What a node is told of Services, compiled from one Snapshot and handed over as one object. Pure."""

from typing import NamedTuple

from kernels.layout import RANDOM, Fib
from plane import fib, healthchecks
from plane.endpointindex import Change, EndpointIndex
from plane.healthchecks import HealthCheck
from plane.model import Snapshot


class NodeTables(NamedTuple):
    """The tables of one generation: equal for all nodes, each of which knows its own number."""

    fib: Fib
    health: tuple[HealthCheck, ...]

    @property
    def generation(self) -> int:
        return self.fib.generation


class Compiler:
    """Compiles one Snapshot after the other, at the cost of what differs. One that has raised is of no more use.

    ``algorithm`` is that of Services which name none.
    """

    def __init__(self, algorithm: int = RANDOM):
        self._fib = fib.Compiler(algorithm)
        self._health = healthchecks.Compiler()

    def compile(self, snapshot: Snapshot, index: EndpointIndex, change: Change) -> NodeTables:
        """All that follows for nodes. The index has followed the Snapshot, and ``change`` is what came of it."""
        return NodeTables(
            self._fib.compile(snapshot, index, change),
            self._health.compile(snapshot, index, change),
        )


def compile(snapshot: Snapshot, algorithm: int = RANDOM) -> NodeTables:
    """All that follows for nodes. ``algorithm`` is that of Services which name none."""
    index = EndpointIndex()
    return Compiler(algorithm).compile(snapshot, index, index.follow(snapshot))


def equal(one: NodeTables, other: NodeTables) -> bool:
    """Whether nodes would do the same with either: the same but for their generation."""
    return one.health == other.health and fib.equal(one.fib, other.fib)
