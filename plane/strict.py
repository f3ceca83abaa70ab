"""Files with a strict schema of our own (scenarios, checks): its classes derive from ``Part`` and are the whole of it.

Law: everything that is wrong with a file is said at once, each with its place, what is wrong and the remedy; a field
that is wrong hides nothing about the others.
"""

import difflib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic.alias_generators import to_camel
from pydantic_core import InitErrorDetails, PydanticCustomError

from plane import documents
from plane.errors import Problem

# (place below the mapping, reason)
Contradiction = tuple[tuple[str | int, ...], str]


class Part(BaseModel):
    """One mapping of a file: strict, immutable, camelCase; of the fields in ``one_of`` exactly one is given."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, alias_generator=to_camel)
    one_of: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _whole(cls, value: Any, handler: Any) -> Any:
        """All that is wrong with this mapping, also where one of its fields is wrong."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise PydanticCustomError(
                "mapping", "needs a mapping with the fields {known}", {"known": ", ".join(cls.known())}
            )
        errors: list[InitErrorDetails] = []
        if cls.one_of and sum(value.get(name) is not None for name in cls.one_of) != 1:
            errors.append(_detail((), value, f"needs exactly one of {_listed(cls.one_of)}"))
        errors += [_detail(loc, value, reason) for loc, reason in cls.contradictions(value)]
        try:
            part = handler(value)
        except ValidationError as error:
            errors += [_detail(row["loc"], row["input"], cls._reason(row)) for row in error.errors()]
        if errors:
            raise ValidationError.from_exception_data(cls.__name__, errors)
        return part

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        """What is wrong between fields. They are read as they were given, because each may be wrong by itself too."""
        return iter(())

    @classmethod
    def known(cls) -> list[str]:
        return [field.alias or name for name, field in cls.model_fields.items()]

    @classmethod
    def _reason(cls, row: Any) -> str:
        here = len(row["loc"]) == 1
        if row["type"] == "missing" and here:
            return "is required"
        if row["type"] == "extra_forbidden" and here:
            close = difflib.get_close_matches(str(row["loc"][0]), cls.known(), 1)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(cls.known())}"
            return f"unknown field; {hint}"
        if row["type"] in ("int_type", "bool_type", "string_type", "list_type", "literal_error"):
            return f"{row['msg'].removeprefix('Input ')}, not {row['input']!r}"
        if row["type"] == "too_short":
            return f"is empty; give it {row['ctx']['min_length']} at least, or leave it out where it is not required"
        return str(row["msg"].removeprefix("Input "))


def at(value: Any, *steps: str) -> Any:
    """What is at a place below a mapping, None where there is no such place."""
    for step in steps:
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _listed(names: tuple[str, ...]) -> str:
    """As people list them: ``a, b and c``."""
    return " and ".join((", ".join(names[:-1]), names[-1]))


def _detail(loc: tuple[str | int, ...], value: Any, reason: str) -> InitErrorDetails:
    return InitErrorDetails(type=PydanticCustomError("field", "{reason}", {"reason": reason}), loc=loc, input=value)


def field_path(loc: tuple[str | int, ...]) -> str:
    """A place as kubectl prints it: ``spec.loads[0].arrivals.rate``."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in loc).removeprefix(".")


def read_by(parse: Callable[[Any], Any]) -> BeforeValidator:
    """A field's value is what ``parse`` makes of it; the text of its ValueError is the whole message."""

    def validate(value: Any) -> Any:
        try:
            return parse(value)
        except ValueError as error:
            raise PydanticCustomError("value", "{reason}", {"reason": str(error)}) from None

    return BeforeValidator(validate)


Whole = TypeVar("Whole", bound=Part)


def parse(schema: type[Whole], text: str, file: str) -> Whole | list[Problem]:
    """The one document that ``text`` must be, or everything that is wrong with it; ``file`` is for messages."""
    kind = schema.__name__
    found = list(documents.parse(text))
    faults = [
        Problem(f"{file}:{fault.line}:{fault.column}" if fault.line else file, document.number, kind, "", fault.reason)
        for document in found
        for fault in document.faults
    ]
    if faults:
        return faults
    values = [document.value for document in found if document.value is not None]
    if len(values) != 1:
        reason = f"holds {len(values)} YAML documents; a {kind.lower()} is exactly one"
        return [Problem(file, 0, kind, "", reason)]
    name = at(values[0], "metadata", "name")
    named = f"{kind} {name}" if isinstance(name, str) else kind
    try:
        return schema.model_validate(values[0])
    except ValidationError as error:
        return [Problem(file, 1, named, field_path(row["loc"]), row["msg"]) for row in error.errors()]
