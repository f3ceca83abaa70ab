"""A scenario of queues: which connections come, how long they last, and by which algorithms they are given out.

Law: as ``harness.scenario``: strict and whole. ``docs/flows.md`` shows every field.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, InstanceOf

from harness import units
from harness.flows.shapes import Shape, shape_of
from harness.scenario import Duration, Metadata, parse_as, text_of
from kernels.layout import ALGORITHMS, RANDOM
from kernels.lb.ewma import BY_POOL
from kernels.lb.ewma import NAMES as NAMES_BY_SPEED
from plane.families import FAMILIES, Family
from plane.strict import Contradiction, Part, at, read_by

KIND = "QueueScenario"
CONNECTIONS_AT_MOST = 10_000_000
LONGEST_NS = 100 * 365 * 24 * 3600 * units.NS_PER_S
# How each algorithm picks: (one of the pool's, one of ``ewma``'s).
BY = {name: (place, BY_POOL) for place, name in enumerate(ALGORITHMS)} | {
    name: (RANDOM, by) for by, name in enumerate(NAMES_BY_SPEED) if by != BY_POOL
}


def _load(value: Any) -> Fraction:
    found = units.share(value)
    if isinstance(found, int) or not Fraction(1, 100) <= found < 1:
        raise ValueError(f"{value!r} is no load: write a part of what backends can serve, from 1% to less than 100%")
    return found


def _algorithm(value: Any) -> str:
    if value in BY:
        return str(value)
    raise ValueError(f"{value!r} is no algorithm of the plane: choose from {', '.join(BY)}")


class Slow(Part):
    """So many of the endpoints take so many times as long as the others."""

    endpoints: Annotated[int, Field(ge=1, le=1_000)]
    times: Annotated[float, Field(gt=1, le=1_000)]


class QueueSpec(Part):
    """One Service of ``endpoints``, each of which serves ``places`` connections at once."""

    one_of: ClassVar = ("connections", "trace")
    _with_connections: ClassVar = ("lasts", "shape", "loads")
    connections: Annotated[int, Field(ge=1_000, le=CONNECTIONS_AT_MOST)] | None = None
    trace: str | None = None
    addresses: Literal["IPv4", "IPv6"] = "IPv4"
    endpoints: Annotated[int, Field(ge=1, le=1_000)]
    places: Annotated[int, Field(ge=1, le=1_000)] = 1
    slow: Slow | None = None
    lasts: Duration = 10_000_000
    shape: Annotated[InstanceOf[Shape], read_by(shape_of)] = Shape("exponential")
    loads: Annotated[list[Annotated[InstanceOf[Fraction], read_by(_load)]], Field(min_length=1)] | None = None
    algorithms: Annotated[list[Annotated[str, read_by(_algorithm)]], Field(min_length=1)]
    fade: Duration = 10 * units.NS_PER_S
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @property
    def family(self) -> Family:
        """What addresses connections have."""
        return FAMILIES[self.addresses]

    @property
    def able(self) -> float:
        """How many connections are served at once, counted by what an endpoint that is not slow gets done."""
        slow = self.slow.endpoints * (1 - 1 / self.slow.times) if self.slow else 0.0
        return self.places * (self.endpoints - slow)

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        if "trace" in given:
            for name in given.keys() & {*cls._with_connections}:
                yield (name,), "goes with connections; those of a trace come and last as it says"
        elif "loads" not in given:
            yield ("loads",), "is required with connections"
        slow, endpoints = at(given.get("slow"), "endpoints"), given.get("endpoints")
        if isinstance(slow, int) and isinstance(endpoints, int) and slow > endpoints:
            yield ("slow", "endpoints"), f"are {slow:,}, more than there are endpoints"
        for name in ("loads", "algorithms"):
            values = given.get(name)
            listed = values if isinstance(values, list) else []
            for place, value in enumerate(listed):
                if value in listed[:place]:
                    yield (name, place), f"{value!r} is there already"
        try:
            longest = units.duration(given.get("lasts", "10ms")) * int(given.get("connections", 0)) * 100
        except (TypeError, ValueError):
            return
        if longest > LONGEST_NS:
            yield ("lasts",), "makes a run of more than a hundred years: fewer connections, or shorter ones"


class QueueScenario(Part):
    """A file that ``plane bench run`` takes."""

    api_version: Literal["trafficplane.dev/v1alpha1"]
    kind: Literal["QueueScenario"]
    metadata: Metadata
    spec: QueueSpec

    @property
    def name(self) -> str:
        return self.metadata.name


def read_scenario(file: Path) -> tuple[QueueScenario, str]:
    """The scenario in a file, and its text. Raises ScenarioError."""
    text = text_of(file)
    return parse_as(QueueScenario, text, str(file)), text
