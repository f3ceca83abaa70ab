"""What a scenario varies: the schema of ``spec.matrix``, and what its variants are called.

Law: a variant is one value of each axis; variants come in the order of the file, the last axis fastest. Its name is the
name of its folder, so values whose names look alike there are an error. What a value does to the manifests is decided
in ``matrix``.
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from plane.strict import Contradiction, Part, at, read_by

INGRESS = "ingress"  # the field of a scenario that an axis may vary
# More are hours, and most likely a mistake.
TURNS_AT_MOST = 1000

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_OBJECT = re.compile(r"[A-Z][A-Za-z]*/[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_STEP = re.compile(r"\.?([A-Za-z_][\w-]*)|\[(\d{1,4})\]|\[([^\[\]]+)\]")
_UNFIT = re.compile(r"[^A-Za-z0-9._]+")

Step = str | int


def _name(value: Any) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is no name: write 1 to 63 of a-z, 0-9 and '-'")
    return value


def _object(value: Any) -> str:
    if not isinstance(value, str) or not _OBJECT.fullmatch(value):
        raise ValueError(f"{value!r} names no object: write kind and name, as Service/my-service")
    return value


def _steps(value: Any) -> tuple[Step, ...]:
    """``spec.ports[0].port`` and ``metadata.annotations[a.b/c]``, a step after the other."""
    steps: list[Step] = []
    end = 0
    while isinstance(value, str) and (found := _STEP.match(value, end)):
        name, place, key = found.groups()
        steps.append(int(place) if place else name or key)
        end = found.end()
    if not steps or end < len(value) or value.startswith((".", "[")):
        raise ValueError(f"{value!r} is no field: write it as spec.replicas or metadata.annotations[a.example/b]")
    return tuple(steps)


def _values(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError("needs a list of values, as [2, 4, 8]")
    for each in value:
        if not isinstance(each, str | int | float | bool) or not slug(each):
            raise ValueError(f"{each!r} is no value for a field: write text, a number or a boolean")
    for one, other in itertools.combinations(value, 2):
        if slug(one) == slug(other):
            raise ValueError(f"{one!r} and {other!r} would have the same folder, {slug(one)}: leave one out")
    return value


class Axis(Part):
    """One ``field`` of one ``object`` of the manifests, and the ``values`` that it has in turn.

    Without an ``object`` it is a field of the scenario itself: ``ingress``, which alone may vary.
    """

    name: Annotated[str, read_by(_name)]
    object: Annotated[str, read_by(_object)] | None = None
    namespace: Annotated[str, read_by(_name)] = "default"
    field: Annotated[Any, read_by(_steps)]
    values: Annotated[list[Any], read_by(_values)]

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        if given.get("object") is None and given.get("field") != INGRESS:
            reason = f"is required, as Service/my-service: of the scenario itself only the field {INGRESS} may vary"
            yield ("object",), reason


def others(given: dict[str, Any], ours: str) -> list[Any]:
    """The values of ``ingress`` in a spec, as it was given, that are another's."""
    axes = given.get("matrix")
    varied = [at(axis, "values") for axis in axes if _is_ingress(axis)] if isinstance(axes, list) else []
    values = [value for each in varied if isinstance(each, list) for value in each] or [given.get("ingress", ours)]
    return [value for value in values if value != ours]


def _is_ingress(axis: Any) -> bool:
    return at(axis, "object") is None and at(axis, "field") == INGRESS


def slug(value: Any) -> str:
    """A value as a part of a folder's name: ``exponential-10ms``."""
    return _UNFIT.sub("-", str(value).lower() if isinstance(value, bool) else str(value)).strip("-.")


def combinations(axes: Sequence[Axis]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """(name, a value of each axis) of each variant; without axes one, whose name is empty."""
    for values in itertools.product(*(axis.values for axis in axes)):
        yield ",".join(f"{axis.name}={slug(value)}" for axis, value in zip(axes, values, strict=True)), values


def contradictions(given: dict[str, Any]) -> Iterator[Contradiction]:
    """What is wrong between the fields of a spec that has ``repeats`` and a ``matrix``."""
    axes = given.get("matrix")
    axes = axes if isinstance(axes, list) else []
    if axes and not given.get("manifests"):
        yield ("matrix",), "needs manifests: it is their fields that vary"
    if INGRESS in given and any(_is_ingress(axis) for axis in axes):
        yield (INGRESS,), f"is varied by the matrix: leave it out, or the axis whose field is {INGRESS}"
    names = [at(axis, "name") for axis in axes]
    for place, name in enumerate(names):
        if isinstance(name, str) and name in names[:place]:
            yield ("matrix", place, "name"), f"{name!r} is the name of another axis; names are unique"
    sizes = [len(values) for axis in axes if isinstance(values := at(axis, "values"), list)]
    repeats = given.get("repeats", 1)
    if isinstance(repeats, int) and math.prod(sizes) * repeats > TURNS_AT_MOST:
        reason = f"makes {math.prod(sizes) * repeats:,} runs with its repeats; {TURNS_AT_MOST:,} are the most"
        yield ("matrix",) if axes else ("repeats",), reason
