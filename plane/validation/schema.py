"""The shape of an object, against the official Kubernetes schemas that ``kubernetes-validate`` ships.

Strict: a field that the schema does not know is an error. All errors of an object are found, not the first.
"""

import copy
import difflib
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from plane.kinds import Kind
from plane.validation.findings import joined, shown

Steps = tuple[str | int, ...]

WORDS = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
}
INTEGERS = {"int32": 2**31, "int64": 2**63}
REMEDIES = {
    "pathType": "write Exact, Prefix or ImplementationSpecific",
    "selector": "write matchLabels with a label that the template has",
}
FEW = 8  # as many field names as a message lists


class Misfit(NamedTuple):
    """A value that the schema has no room for: keys and indexes that lead to it, and the reason with the remedy."""

    steps: Steps
    reason: str
    unknown: bool = False  # a field that the schema does not know

    @property
    def field(self) -> str:
        path = ""
        for step in self.steps:
            path = joined(path, step)
        return path


def misfits(obj: dict[str, Any], kind: Kind) -> list[Misfit]:
    """Everything about the object that its schema does not allow, one for each place."""
    found = {misfit.steps: misfit for misfit in _nulls(obj, ())}
    for error in validator(kind).iter_errors(obj):
        for misfit in _misfits(error):
            found.setdefault(misfit.steps, misfit)
    return list(found.values())


def without(obj: dict[str, Any], found: list[Misfit]) -> dict[str, Any]:
    """A copy of the object without the misfits; in lists null takes their place, so that indexes stay."""
    sound = copy.deepcopy(obj) if found else obj
    for misfit in found:
        holder: Any = sound
        for step in misfit.steps[:-1]:
            try:
                holder = holder[step]
            except (KeyError, IndexError, TypeError):
                holder = None
        last = misfit.steps[-1] if misfit.steps else None
        if isinstance(holder, dict):
            holder.pop(last, None)
        elif isinstance(holder, list) and isinstance(last, int):
            holder[last] = None
    return sound


def _nulls(value: Any, steps: Steps) -> Iterator[Misfit]:
    """Items of lists that are null, which the schemas allow and the API server takes for an empty object."""
    if isinstance(value, dict):
        for key, row in value.items():
            if isinstance(row, dict | list):
                yield from _nulls(row, (*steps, key))
    else:
        for index, row in enumerate(value):
            if row is None:
                yield Misfit((*steps, index), "is null; write a value, or take it out of the list")
            elif isinstance(row, dict | list):
                yield from _nulls(row, (*steps, index))


@cache
def validator(kind: Kind) -> Any:
    """The compiled check of a kind, from the newest schemas there are."""
    # Imported here, because the command line answers most commands without ever checking an object.
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend
    from kubernetes_validate import utils

    group = kind.group.partition(".")[0]
    name = "-".join(part for part in (kind.kind.lower(), group, kind.version) if part)
    version = utils.latest_version()
    schema = utils.schema_contents(f"kubernetes-json-schema/v{version}-local-strict/{name}.json", version)
    # In JSON Schema 3.0 is an integer; to the API server it is none.
    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    # ``int32`` and ``int64`` are ranges, and a required field must not be null either.
    checks = {"format": _integer_format, "required": _required}
    return extend(Draft202012Validator, checks, type_checker=types)(schema, registry=_registry(version))


@cache
def _registry(version: str) -> Any:
    from kubernetes_validate import utils
    from referencing import Registry, Resource

    path = f"kubernetes-json-schema/v{version}-local-strict/_definitions.json"
    return (Resource.from_contents(utils.schema_contents(path, version)) @ Registry()).crawl()


def _integer_format(validator: Any, name: Any, value: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    limit = INTEGERS.get(name) if isinstance(name, str) else None
    if limit and type(value) is int and not -limit <= value < limit:
        yield ValidationError(f"{value} does not fit {name}")


def _required(validator: Any, names: list[str], value: Any, schema: Any) -> Iterator[Any]:
    from jsonschema import ValidationError

    if isinstance(value, dict) and any(value.get(name) is None for name in names):
        yield ValidationError(f"some of {names} are missing")


def _misfits(error: Any) -> Iterator[Misfit]:
    steps: Steps = tuple(error.absolute_path)
    match error.validator:
        case "additionalProperties":
            known = error.schema.get("properties", {})
            for name in error.instance:
                if name not in known:
                    yield Misfit((*steps, name), _unknown(str(name), sorted(known)), unknown=True)
        case "required":
            for name in error.validator_value:
                if error.instance.get(name) is None:
                    yield Misfit((*steps, name), f"is required; {REMEDIES.get(name, 'add it')}")
        case "type":
            allowed = error.validator_value
            yield Misfit(steps, _mistyped([allowed] if isinstance(allowed, str) else allowed, error.instance))
        case "oneOf" if error.instance is None:
            pass  # null means absent, and matches more than one
        case "oneOf":
            types = [name for row in error.validator_value for name in row.get("type", ()) if name != "null"]
            yield Misfit(steps, _mistyped(types, error.instance))
        case "enum":
            words = ", ".join(map(str, error.validator_value))
            yield Misfit(steps, f"{shown(error.instance)} is not allowed; write {words}")
        case _:
            yield Misfit(steps, error.message)


def _unknown(name: str, known: list[str]) -> str:
    by_lower = {word.lower(): word for word in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    if close:
        return f"unknown field; did you mean {by_lower[close[0]]}?"
    if len(known) <= FEW:
        return f"unknown field; known here: {', '.join(known)}"
    return "unknown field; leave it out, or look for the place it belongs to"


def _mistyped(types: list[str], value: Any) -> str:
    types = [name for name in types if name != "null"]
    expected = " or ".join(WORDS[name] for name in types)
    got, remedy = "null", "write a value"
    if isinstance(value, bool):
        got, remedy = str(value).lower(), "put what you wrote in quotes" if "string" in types else ""
        if remedy:
            remedy += " (without them yes, no, on, off, y and n mean true and false)"
    elif isinstance(value, int | float):
        got, remedy = f"the number {value}", f'put it in quotes: "{value}"' if "string" in types else ""
    elif isinstance(value, str):
        got, remedy = f"the text {shown(value)}", _without_quotes(types, value)
    elif isinstance(value, list):
        got, remedy = "a list", "write its fields without the dash" if "object" in types else ""
    elif isinstance(value, dict):
        got, remedy = "a mapping", "put a dash before it" if "array" in types else ""
    return f"expected {expected}, got {got}" + (f"; {remedy}" if remedy else "")


def _without_quotes(types: list[str], value: str) -> str:
    number = value.strip().removeprefix("-").isdecimal()
    truth = value.strip().lower() in ("true", "false")
    if (number and {"integer", "number"} & set(types)) or (truth and "boolean" in types):
        return f"write {value.strip().lower()} without quotes"
    return ""
