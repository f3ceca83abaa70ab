"""A scenario of flows: which Services, how many flows to them, and what happens to endpoints and balancers meanwhile.

Law: as ``harness.scenario``: strict and whole. ``docs/flows.md`` shows every field.
"""

import ipaddress
import itertools
import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, InstanceOf

from harness import units
from harness.flows.shapes import Shape, Sizes, shape_of
from harness.scenario import Duration, Label, Metadata, Share
from kernels.layout import ALGORITHMS, RIVALS, SLOTS
from kernels.lb.forward import IDLE_NS
from kernels.lb.maglev import is_prime
from plane.families import FAMILIES, Family
from plane.strict import Contradiction, Part, at, read_by

KIND = "FlowScenario"
FLOWS_OF_BALANCER = 1_000_000
SERVICES_AT_MOST = 1_000_000
# What a balancer remembers of its flows takes 24 bytes each, in every process that works.
FLOWS_OF_BALANCER_AT_MOST = 1 << 24
CLIENTS = "100.64.0.0/10"
RIVAL_MAGLEV = f"{RIVALS[SLOTS]}/"
NAMES = (*ALGORITHMS, *RIVALS[:SLOTS])


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(value: Any) -> Network:
    """A network of either family that is not everybody."""
    try:
        network = ipaddress.ip_network(value if isinstance(value, str) else "")
    except ValueError:
        raise ValueError(f"{value!r} is no network: write one as 100.64.0.0/10 or 2001:db8::/32") from None
    if network.prefixlen == 0:
        raise ValueError(f"{value!r}: that is everybody; write {CLIENTS} or 2000::/3, or others that are fewer")
    return network


def _algorithm(value: Any) -> str:
    if value in NAMES:
        return str(value)
    if isinstance(value, str) and value.startswith(RIVAL_MAGLEV):
        slots = value.removeprefix(RIVAL_MAGLEV)
        if slots.isascii() and slots.isdigit() and is_prime(int(slots)):
            return value
        raise ValueError(f"{value!r}: slots are a prime number, as in {RIVAL_MAGLEV}65537")
    raise ValueError(f"{value!r} is no algorithm: choose from {', '.join(NAMES)} or {RIVAL_MAGLEV}65537")


def rival_of(name: str) -> tuple[int, int] | None:
    """(one of RIVALS, slots) of an algorithm's name; None for one of the plane's own."""
    if name.startswith(RIVAL_MAGLEV):
        return SLOTS, int(name.removeprefix(RIVAL_MAGLEV))
    return (RIVALS.index(name), 0) if name in RIVALS[:SLOTS] else None


def _counts(value: Any) -> list[int]:
    """How many Services there are, in each run of the scenario: a number, or a list of larger and larger ones."""
    found = value if isinstance(value, list) else [value]
    if not found or not all(type(each) is int and 1 <= each <= SERVICES_AT_MOST for each in found):
        raise ValueError(f"{value!r}: write a number from 1 to {SERVICES_AT_MOST:,}, or a list of such numbers")
    if any(each <= before for before, each in itertools.pairwise(found)):
        raise ValueError(f"{value!r}: each number is larger than the one before it")
    return found


Number = Annotated[int, Field(ge=1)]


class Services(Part):
    """Services that are made up: ``count`` of them with ``endpoints`` each, which are on ``nodes`` nodes in turn.

    Of several counts each has a run of its own.
    """

    count: Annotated[list[int], read_by(_counts)]
    endpoints: Annotated[int, Field(ge=1, le=65_535)]
    nodes: Annotated[int, Field(ge=1, le=10_000)] = 10

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        endpoints = given.get("endpoints")
        try:
            count = _counts(given.get("count"))[-1]
        except ValueError:
            return
        if isinstance(endpoints, int) and count * endpoints > 10_000_000:
            yield ("endpoints",), f"makes {count * endpoints:,} endpoints in all; 10,000,000 are the most"


class Target(Part):
    """Which Service port flows go to; without ``port`` to all of them."""

    service: Label
    namespace: Label = "default"
    port: Annotated[int, Field(ge=1, le=65535)] | None = None


class Weigh(Part):
    endpoints: Number
    weight: Annotated[int, Field(ge=0, le=65535)]


class Bytes(Part):
    """How many bytes flows have: ``mean`` on average, spread as ``shape`` says."""

    mean: Annotated[int, Field(ge=1, le=10**9)]
    shape: Annotated[InstanceOf[Shape], read_by(shape_of)] = Shape("exponential")


class Roll(Part):
    """``step`` endpoints at a time are replaced, ``every`` so often."""

    step: Number
    every: Duration = 10 * units.NS_PER_S


class Event(Part):
    """What happens ``at`` a time; ``service`` where it happens to one, which may be left out where there is one."""

    one_of: ClassVar = ("add", "remove", "drain", "weigh", "roll", "failNode", "failover", "restore")
    of_a_service: ClassVar = ("add", "remove", "drain", "weigh", "roll")
    at: Duration
    service: Label | None = None
    namespace: Label = "default"
    add: Number | None = None
    remove: Number | None = None
    drain: Number | None = None
    weigh: Weigh | None = None
    roll: Roll | None = None
    fail_node: str | None = None
    failover: Share | None = None
    restore: Literal[True] | None = None

    @property
    def what(self) -> str:
        """Which of ``one_of`` it is."""
        names = (
            field.alias or name for name, field in type(self).model_fields.items() if name in self.model_fields_set
        )
        return next(name for name in names if name in self.one_of)

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        if not given.keys() & {*cls.of_a_service}:
            for name in given.keys() & {"service", "namespace"}:
                yield (name,), f"goes with {', '.join(cls.of_a_service[:-1])} or {cls.of_a_service[-1]}"


class FlowSpec(Part):
    """The whole of a scenario of flows; of those with a trace, ``flows`` is known once that has been read."""

    one_of: ClassVar = ("manifests", "services")
    flows: Annotated[int, Field(ge=1, le=10**12)] = 0
    trace: str | None = None
    manifests: list[str] = Field(default_factory=list)
    services: Services | None = None
    nodes: Annotated[int, Field(ge=1, le=250)] = 3
    target: Target | None = None
    clients: Annotated[Network, read_by(_network)] = Field(default=_network(CLIENTS))
    addresses: Literal["IPv4", "IPv6"] | None = None
    bytes: Bytes | None = None
    algorithms: Annotated[list[Annotated[str, read_by(_algorithm)]], Field(min_length=1)] | None = None
    balancers: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    conntrack: Annotated[int, Field(ge=0, le=FLOWS_OF_BALANCER_AT_MOST)] | None = None
    idle: Duration = IDLE_NS
    timeline: list[Event] = Field(default_factory=list)
    workers: Annotated[int, Field(ge=1, le=1_000)] = 1
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @property
    def family(self) -> Family:
        """What addresses all flows have: those of their clients, or of the trace as it is said."""
        return FAMILIES[self.addresses or f"IPv{self.clients.version}"]

    @property
    def sizes(self) -> Sizes | None:
        """How many bytes the flows have that are made; None where nobody says."""
        return Sizes(self.bytes.mean, self.bytes.shape, self.seed) if self.bytes else None

    @property
    def counts(self) -> list[int]:
        """How many Services are made up in each run of the scenario; none where there is but one run."""
        return self.services.count if self.services and len(self.services.count) > 1 else []

    @property
    def of_balancer(self) -> int:
        """How many flows each balancer has; the last one may have fewer."""
        return -(-self.flows // (self.balancers or -(-self.flows // FLOWS_OF_BALANCER)))

    @property
    def balancer_count(self) -> int:
        """How many balancers that makes: as many as are asked for, or fewer where flows do not go round."""
        return -(-self.flows // self.of_balancer)

    @property
    def tracked(self) -> int:
        """How many flows each balancer has room to remember."""
        return self.of_balancer if self.conntrack is None else self.conntrack

    def failing(self, event: Event) -> int:
        """How many balancers an event has fail."""
        share = event.failover or 0
        return share if isinstance(share, int) else math.ceil(share * self.balancer_count)

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        if "services" in given and "nodes" in given:
            yield ("nodes",), "goes with manifests; services have nodes of their own: services.nodes"
        if ("flows" in given) == ("trace" in given):
            yield ("flows",), "is required, or trace: exactly one of them"
        for name in given.keys() & {"clients", "bytes"} if "trace" in given else ():
            yield (name,), f"goes with flows; those of a trace have {name} of their own"
        if "addresses" in given and "trace" not in given:
            yield ("addresses",), "goes with trace; flows that are made have those of their clients"
        flows, balancers = given.get("flows"), given.get("balancers")
        if isinstance(flows, int) and isinstance(balancers, int) and balancers > 0:
            if balancers > flows:
                yield ("balancers",), f"are {balancers:,}, more than there are flows"
            elif -(-flows // balancers) > FLOWS_OF_BALANCER_AT_MOST:
                reason = f"{balancers:,} have {-(-flows // balancers):,} flows each; {FLOWS_OF_BALANCER_AT_MOST:,} are"
                yield ("balancers",), f"{reason} the most: write {-(-flows // FLOWS_OF_BALANCER_AT_MOST):,} or more"
        yield from _twice(given.get("algorithms"))
        yield from _out_of_order(given.get("timeline"))


def _twice(algorithms: Any) -> Iterator[Contradiction]:
    seen: set[str] = set()
    for place, name in enumerate(algorithms if isinstance(algorithms, list) else ()):
        if isinstance(name, str) and name in seen:
            yield ("algorithms", place), f"{name!r} is there already"
        seen.add(name if isinstance(name, str) else "")


def _out_of_order(timeline: Any) -> Iterator[Contradiction]:
    last_ns = 0
    for place, event in enumerate(timeline if isinstance(timeline, list) else ()):
        try:
            at_ns = units.duration(at(event, "at"))
        except ValueError:
            continue
        if at_ns <= last_ns:
            yield ("timeline", place, "at"), "is not after the event above it: events are listed in the order of time"
        last_ns = at_ns


class FlowScenario(Part):
    """A file that ``plane bench run`` takes."""

    api_version: Literal["trafficplane.dev/v1alpha1"]
    kind: Literal["FlowScenario"]
    metadata: Metadata
    spec: FlowSpec

    @property
    def name(self) -> str:
        return self.metadata.name
