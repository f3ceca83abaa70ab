"""What annotations a dialect has on one kind of object, and how they are read. Pure.

Law: every annotation that the controller has is in one of the tables of a Vocabulary; one that is in none is named in a
warning, with the name it may be a misspelling of.
"""

from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from plane.dialects.values import Reader, Unfit

NOT_YET = "not acted on yet"

Said = Mapping[str, Any]  # values that are fit, by name without prefix


class Remark(NamedTuple):
    """Something to say of an annotation, by its whole name."""

    annotation: str
    what: str


class Vocabulary(NamedTuple):
    """The annotations of ``controller`` on objects of a kind.

    acted_on   with how their values are read; a name that ends in ``.*`` stands for all that begin so
    not_yet    which a warning names, with what it adds; but of those of ``anyway`` that say what the plane does anyway
    needless   which ask for nothing here
    guards     of those not acted on, what may ask who a client is, so that nobody is served without it
    elsewhere  what object the controller reads others on, and which those are
    needed     annotations that mean nothing without another one: (it, the other one, how that must be)
    canonical  of a name as it is written, the one in the tables
    """

    prefix: str
    controller: str
    acted_on: Mapping[str, Reader]
    not_yet: Mapping[str, str]
    anyway: Mapping[str, tuple[str, ...]]
    needless: tuple[str, ...]
    guards: tuple[str, ...]
    elsewhere: tuple[str, tuple[str, ...]]
    needed: tuple[tuple[str, str, str], ...]
    canonical: Callable[[str], str]

    @property
    def known(self) -> tuple[str, ...]:
        return (*self.acted_on, *self.not_yet, *self.needless)

    def read(self, annotations: Mapping[str, str]) -> tuple[dict[str, Any], list[Unfit]]:
        """What is said, and what is unfit, of annotations by their whole names; what ``.*`` stands for stays."""
        said: dict[str, Any] = {}
        unfit = []
        for full_name, text, name in self._own(annotations):
            key = self.canonical(name)
            if key not in self.acted_on:
                continue
            try:
                said[name if key.endswith(".*") else key] = self.acted_on[key](text)
            except ValueError as error:
                shown = f'"{text}" is not allowed' if text else "is empty"
                unfit.append(Unfit(full_name, f"{shown}; {error}"))
        for name, other, how in self.needed:
            if name in said and not any(self.canonical(each) == other for _, _, each in self._own(annotations)):
                what = f"does nothing without {self.prefix}{other}; write that too, as {how}"
                unfit.append(Unfit(self.prefix + name, what))
        return said, unfit

    def guarded_by(self, annotations: Mapping[str, str]) -> str:
        """The annotation, whole, for which nobody is let in; empty where there is none."""
        for full_name, text, name in self._own(annotations):
            key = self.canonical(name)
            if key in self.guards and text.strip() and text not in self.anyway.get(key, ()):
                return full_name
        return ""

    def remarks(self, annotations: Mapping[str, str]) -> Iterator[Remark]:
        """What is to say of annotations that do not act."""
        guard = self.guarded_by(annotations)
        for full_name, text, name in sorted(self._own(annotations)):
            key = self.canonical(name)
            kind, names = self.elsewhere
            if full_name == guard:
                yield Remark(full_name, f"{NOT_YET}, so that nobody is let in: every request gets 503")
            elif key in self.not_yet and text not in self.anyway.get(key, ()):
                yield Remark(full_name, NOT_YET + self.not_yet[key])
            elif key in names and key not in self.known:
                yield Remark(full_name, f"{self.controller} reads this on {kind}; write it there")
            elif key not in self.known:
                close = get_close_matches(key, (*self.known, *names), n=1, cutoff=0.75)
                hint = f"; did you mean {self.prefix}{close[0]}?" if close else ""
                yield Remark(full_name, f"{self.controller} has no such annotation{hint}")

    def _own(self, annotations: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
        """(whole name, value, name) of those with the prefix."""
        for full_name, text in annotations.items():
            name = full_name.removeprefix(self.prefix)
            if name != full_name:
                yield full_name, text, name


def denied_by(annotation: str) -> str:
    """Why nobody is served for an annotation that may ask who a client is."""
    return f"{annotation} is not acted on yet, and without it nobody is let in"
