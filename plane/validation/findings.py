"""What a check says, and how it walks an object.

Law: a rule reads an object through ``Place`` only, which answers for what is absent and never fails on what is there:
values of a wrong type have been taken out before by the schema check. null means absent, as it does to the API server.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*\Z")


class Finding(NamedTuple):
    """One thing wrong with an object.

    field    path as kubectl prints it, ``spec.ports[0].port``
    reason   what is wrong, and the remedy
    refusal  another version of Kubernetes may take it, and this plane has nothing that could honour it
    """

    field: str
    reason: str
    refusal: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A value in an object, None where it is absent, and the path that leads to it."""

    path: str
    value: Any

    def at(self, *names: str) -> "Place":
        """The value under a key, or under a key of a key."""
        place = self
        for name in names:
            value = place.value.get(name) if isinstance(place.value, dict) else None
            place = Place(joined(place.path, name), value)
        return place

    def rows(self) -> Iterator["Place"]:
        """The items of a list that are there."""
        for index, value in enumerate(self.value if isinstance(self.value, list) else ()):
            if value is not None:
                yield Place(joined(self.path, index), value)

    def entries(self) -> Iterator[tuple[str, "Place"]]:
        """The keys and values of a mapping."""
        for key, value in self.value.items() if isinstance(self.value, dict) else ():
            yield key, Place(joined(self.path, key), value)

    @property
    def given(self) -> bool:
        """Whether the value is there and not empty."""
        return self.value not in (None, "", [], {})

    def text(self, default: str = "") -> str:
        return self.value if isinstance(self.value, str) and self.value else default

    def wrong(self, reason: str) -> Finding:
        return Finding(self.path, reason)

    def refused(self, reason: str) -> Finding:
        return Finding(self.path, reason, refusal=True)

    def one_of(self, words: tuple[str, ...]) -> Iterator[Finding]:
        """A finding where the value is there and none of the words."""
        if self.given and self.value not in words:
            allowed = ", ".join(words)
            yield self.wrong(f"{shown(self.value)} is not allowed; write {'one of ' * (len(words) > 1)}{allowed}")

    def between(self, low: int, high: int) -> Iterator[Finding]:
        """A finding where the value is a number outside low … high."""
        if isinstance(self.value, int) and not low <= self.value <= high:
            yield self.wrong(f"{self.value} is out of range; write a number from {low} to {high}")

    def at_least(self, low: int) -> Iterator[Finding]:
        """A finding where the value is a smaller number."""
        if isinstance(self.value, int) and self.value < low:
            yield self.wrong(f"{self.value} is too small; write {low} or more")


def joined(path: str, step: str | int) -> str:
    """The path one step further: ``.name``, ``[0]``, or ``[a.label/key]`` for a key that is no identifier."""
    if isinstance(step, int):
        return f"{path}[{step}]"
    if not IDENTIFIER.match(step):
        return f"{path}[{step}]"
    return f"{path}.{step}" if path else step


def shown(value: Any) -> str:
    """A value as a message shows it: text in quotes, cut where it is long."""
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 80 else f"{text[:76]}…{text[-1] if isinstance(value, str) else ''}"
