"""The variants of a scenario: its manifests, with the values of its matrix in their places.

Law: a variant is judged like manifests that say the same, before anything runs; what is wrong names the variant too.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.axes import Axis, Step, combinations
from harness.scenario import CONTROLLERS, Controller, Scenario, ScenarioError
from plane.errors import ManifestError, Problem
from plane.manifests import Loaded, Manifest
from plane.validation import check


@dataclass(frozen=True)
class Variant:
    """Manifests, and whose ingress is before them.

    ``name`` is what tells it apart: ``algorithm=rr,replicas=3``, empty for a scenario without a matrix.
    """

    name: str
    loaded: Loaded
    ingress: Controller


def variants(scenario: Scenario, file: Path, loaded: Loaded) -> list[Variant]:
    """All of them. Raises ScenarioError where an axis leads nowhere, ManifestError where a value may not be there."""
    axes = scenario.spec.matrix
    places = _places(scenario, file, loaded)
    found = []
    problems: list[Problem] = []
    for name, values in combinations(axes):
        manifests = list(loaded.objects)
        ingress = scenario.spec.ingress
        for place, axis, value in zip(places, axes, values, strict=True):
            if place is None:
                ingress = value
                continue
            manifests[place] = replace(manifests[place], object=with_value(manifests[place].object, axis.field, value))
        for place in sorted({place for place in places if place is not None}):
            row = manifests[place]
            wrong = check(row.object, file=row.file, document=row.document)
            problems += [replace(problem, reason=f"{problem.reason} (with {name})") for problem in wrong]
        found.append(Variant(name, replace(loaded, objects=tuple(manifests)), ingress))
    if problems:
        raise ManifestError(problems)
    return found


def with_value(obj: Any, steps: Sequence[Step], value: Any) -> Any:
    """A copy of an object that has the value there; mappings that lack on the way are made. Raises ValueError."""
    made = here = copy.deepcopy(obj)
    *way, last = steps
    for depth, step in enumerate(way):
        _fits(here, step, steps[:depth])
        if isinstance(step, int):
            here = here[step]
            continue
        if here.get(step) is None:
            here[step] = {}
        here = here[step]
    _fits(here, last, way)
    here[last] = value
    return made


def _fits(here: Any, step: Step, way: Sequence[Step]) -> None:
    so_far = "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in way).removeprefix(".")
    if isinstance(step, int) and not (isinstance(here, list) and step < len(here)):
        size = f"a list of {len(here)}" if isinstance(here, list) else "no list"
        raise ValueError(f"{so_far} is {size} in this object, there is no [{step}]")
    if isinstance(step, str) and not isinstance(here, dict):
        raise ValueError(f"{so_far} is no mapping in this object, there is no {step}")


def _places(scenario: Scenario, file: Path, loaded: Loaded) -> list[int | None]:
    """Where in the manifests the object of each axis is, which has room for the field; None: it has no object.

    Raises ScenarioError.
    """
    problems = []
    places: list[int | None] = []
    for number, axis in enumerate(scenario.spec.matrix):
        place = next((place for place, row in enumerate(loaded.objects) if _is(axis, row)), None)
        places.append(place)
        field, reason = _trouble(axis, place, loaded)
        if reason:
            problems.append(
                Problem(str(file), 1, f"Scenario {scenario.name}", f"spec.matrix[{number}].{field}", reason)
            )
    if problems:
        raise ScenarioError(problems)
    return places


def _trouble(axis: Axis, place: int | None, loaded: Loaded) -> tuple[str, str]:
    """(field of the axis, what is wrong with it); empty where nothing is."""
    if axis.object is None:
        strange = next((value for value in axis.values if value not in CONTROLLERS), None)
        return "values", f"{strange!r} is no ingress: write {', '.join(CONTROLLERS)}" if strange is not None else ""
    if place is None:
        kind = axis.object.partition("/")[0]
        there = [_named(row) for row in loaded.objects if row.object["kind"] == kind]
        named = f"there is no {axis.object} in namespace {axis.namespace}"
        return "object", f"{named}; there are: {', '.join(there) or 'none'}"
    try:
        with_value(loaded.objects[place].object, axis.field, axis.values[0])
    except ValueError as error:
        return "field", str(error)
    return "", ""


def _is(axis: Axis, row: Manifest) -> bool:
    metadata = row.object["metadata"]
    named = f"{row.object['kind']}/{metadata['name']}"
    return named == axis.object and metadata.get("namespace", axis.namespace) == axis.namespace


def _named(row: Manifest) -> str:
    metadata = row.object["metadata"]
    return f"{metadata.get('namespace', '')}/{metadata['name']}"
