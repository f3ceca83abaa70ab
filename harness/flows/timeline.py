"""What happens to a scenario's flows: its phases, each with the endpoints that there are then.

Law: phases are the same for all algorithms. A phase begins at its time with all that has happened by then, and every
flow sends once in it.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from harness.flows.fleet import Fleet
from harness.flows.scenario import Event, FlowScenario
from harness.scenario import ScenarioError
from harness.units import format_ns
from plane.errors import Problem
from plane.model import Name, Snapshot, slices_by_service


@dataclass(frozen=True)
class Phase:
    """``failed`` balancers, the first ones, have forgotten everything when it begins."""

    name: str
    at_ns: int
    snapshot: Snapshot
    failed: int = 0


def phases(scenario: FlowScenario, file: str, snapshot: Snapshot) -> list[Phase]:
    """The phases of a scenario that begins with this Snapshot. Raises ScenarioError."""
    spec = scenario.spec
    fleet = Fleet(snapshot, spec.seed, spec.family)
    found = [Phase("begin", 0, fleet.snapshot)]
    problems: list[Problem] = []
    for place, event in enumerate(spec.timeline):
        field = f"spec.timeline[{place}]"
        try:
            if event.at <= found[-1].at_ns:
                raise ValueError(f"the roll before it goes on until {format_ns(found[-1].at_ns)}: begin after that")
            for number, name in enumerate(_happen(fleet, event, place, scenario)):
                at_ns = event.at + number * (event.roll.every if event.roll else 0)
                found.append(Phase(name, at_ns, fleet.snapshot, spec.failing(event)))
        except ValueError as error:
            problems.append(Problem(file, 1, f"FlowScenario {scenario.name}", f"{field}.{event.what}", str(error)))
    if problems:
        raise ScenarioError(problems)
    return found


def _happen(fleet: Fleet, event: Event, place: int, scenario: FlowScenario) -> Iterator[str]:
    """Has an event happen; the name of each phase that begins with it. Raises ValueError where it can't."""
    if event.what == "restore":
        fleet.restore()
        yield "restore"
    elif event.fail_node is not None:
        lost = fleet.fail_node(event.fail_node)
        if not lost:
            raise ValueError(f"no endpoint is on node {event.fail_node!r} at that time")
        yield f"{event.fail_node} fails"
    elif event.failover is not None:
        count, balancers = scenario.spec.failing(event), scenario.spec.balancer_count
        if not 0 < count <= balancers:
            raise ValueError(f"{count:,} of {balancers:,} balancers can't fail: write 1 to {balancers:,}, or a share")
        yield f"{count:,} of {balancers:,} balancers fail"
    else:
        yield from _happen_to_a_service(fleet, event, place, _service_of(fleet, event, scenario))


def _happen_to_a_service(fleet: Fleet, event: Event, place: int, service: Name) -> Iterator[str]:
    there, named = sum(not member.is_leaving for member in fleet.members(service)), "/".join(service)
    least = max(event.remove or event.drain or (event.weigh.endpoints if event.weigh else 1), 1)
    if there < least:
        raise ValueError(f"{named} has {there} endpoints at that time that do not terminate: {least} are needed")
    if event.add is not None:
        fleet.add(service, event.add)
        yield f"{event.add} more of {named}"
    elif event.remove is not None:
        fleet.remove(service, event.remove, place)
        yield f"{event.remove} fewer of {named}"
    elif event.drain is not None:
        fleet.drain(service, event.drain, place)
        yield f"{event.drain} of {named} drain"
    elif event.weigh is not None:
        fleet.weigh(service, event.weigh.endpoints, event.weigh.weight, place)
        yield f"{event.weigh.endpoints} of {named} weigh {event.weigh.weight}"
    elif event.roll is not None:
        for step in fleet.roll(service, event.roll.step):
            yield f"roll of {named}, {step}"


def _service_of(fleet: Fleet, event: Event, scenario: FlowScenario) -> Name:
    services = fleet.snapshot.rows("Service")
    target = scenario.spec.target
    if event.service is not None:
        name = event.namespace, event.service
    elif target is not None:
        name = target.namespace, target.service
    else:
        sliced = slices_by_service(fleet.snapshot)
        having = [name for name in services if name in sliced]
        if len(having) != 1:
            raise ValueError(f"there are {len(having):,} Services with endpoints: say which by service: NAME")
        name = having[0]
    if name not in services:
        raise ValueError(f"there is no Service {'/'.join(name)}")
    return name
