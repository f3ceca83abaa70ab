"""Rates that change: the schema of ``spec.loads[].arrivals.stages``.

Law: as in ``scenario``. When requests are due under them is in ``arrivals``.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Annotated, Any, ClassVar

from pydantic import InstanceOf

from harness import units
from harness.arrivals import Slope
from harness.units import NS_PER_S
from plane.strict import Contradiction, Part, read_by

Pace = Annotated[InstanceOf[Fraction], read_by(units.pace)]


class Stage(Part):
    """For a ``duration``, requests at one ``rate``, or at one that goes evenly from that before ``to`` another."""

    one_of: ClassVar = ("rate", "to")
    duration: Annotated[int, read_by(units.duration)]
    rate: Pace | None = None
    to: Pace | None = None

    @classmethod
    def known(cls) -> list[str]:
        return ["duration", "rate", "to"]


def slopes(stages: Sequence[Stage]) -> tuple[Slope, ...]:
    """What they mean, after the other; the first begins at nothing where it says only what it goes to."""
    found: list[Slope] = []
    for stage in stages:
        before = found[-1] if found else Slope(0, 0, Fraction(0), Fraction(0))
        first, last = (before.last, stage.to) if stage.to is not None else (stage.rate, stage.rate)
        assert first is not None
        assert last is not None
        found.append(Slope(before.start_ns + before.duration_ns, stage.duration, first, last))
    return tuple(found)


def duration(given: Any) -> int:
    """ns of stages as they stand in a file. Raises ValueError where they have none."""
    if not isinstance(given, list) or not all(isinstance(stage, dict) for stage in given):
        raise ValueError("no stages")
    return sum(units.duration(stage.get("duration")) for stage in given)


def requests(given: Any) -> Fraction:
    """Requests of stages as they stand in a file. Raises ValueError where what they say is no rate."""
    duration(given)
    total, before = Fraction(0), Fraction(0)
    for stage in given:
        after = units.pace(stage.get("to", stage.get("rate")))
        first = before if "to" in stage else after
        total += (first + after) / 2 * units.duration(stage.get("duration")) / NS_PER_S
        before = after
    return total


def contradictions(given: Any) -> Iterator[Contradiction]:
    """What is wrong between the stages of arrivals."""
    try:
        if given and requests(given) == 0:
            yield ("stages",), "make no request ever due: give one of them a rate of more than 0"
    except ValueError:
        return  # what is wrong within them is said elsewhere
