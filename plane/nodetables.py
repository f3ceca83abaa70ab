"""What a node is told of Services, compiled from one Snapshot and handed over as one object. Pure."""

from typing import NamedTuple

from kernels.layout import RANDOM, Fib
from plane import fib
from plane.healthchecks import HealthCheck, health_checks
from plane.model import Snapshot


class NodeTables(NamedTuple):
    """The tables of one generation: equal for all nodes, each of which knows its own number."""

    fib: Fib
    health: tuple[HealthCheck, ...]

    @property
    def generation(self) -> int:
        return self.fib.generation


def compile(snapshot: Snapshot, algorithm: int = RANDOM) -> NodeTables:
    """All that follows for nodes. ``algorithm`` is that of Services which name none."""
    return NodeTables(fib.compile(snapshot, algorithm), health_checks(snapshot))


def equal(one: NodeTables, other: NodeTables) -> bool:
    """Whether nodes would do the same with either: the same but for their generation."""
    return one.health == other.health and fib.equal(one.fib, other.fib)
