"""Text to JSON documents: YAML and JSON as Kubernetes reads them.

Law: a fault in one document hides nothing in the next. Every document has a number, counted as YAML counts them, and
every fault a line and a column where they are known.

Plain scalars mean what they mean to ``sigs.k8s.io/yaml`` (YAML 1.1 without its dates and base-60 numbers), so what
passes here passes ``kubectl apply``. Three things that YAML would let through are faults: a key given twice, of which
only the last would count; a key that is no text; an alias that expands to far more than was written.
"""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

# libyaml's parser where PyYAML was built with it: the same events, ten times as fast.
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DEPTH = 100
MAX_BY_ALIAS = 100_000  # nodes of one document that come from aliases

MARKER = re.compile(r"^(?:---|\.\.\.)(?=\s|$)", re.MULTILINE)
BLANK = re.compile(r"\s*")
BARE = re.compile(r"(?:(?:---|\.\.\.)?[ \t]*(?:#[^\n]*)?\r?(?:\n|\Z)|%[^\n]*(?:\n|\Z))*\Z")

WORDS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
INTEGER = re.compile(r"[-+]?(?:0[bB][01]+|0[oO]?[0-7]+|0[xX][0-9a-fA-F]+|0|[1-9][0-9]*)\Z")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
NOT_JSON = re.compile(r"[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z")
TAG = "tag:yaml.org,2002:"
BEGINNING = ("apiVersion", "kind")  # keys that documents begin with


class Fault(NamedTuple):
    """Something unreadable; ``line`` and ``column`` count from 1, 0 where they are not known."""

    line: int
    column: int
    reason: str


class Document(NamedTuple):
    """One document: its value as JSON would give it, None where it is empty or broken."""

    number: int
    value: Any
    faults: tuple[Fault, ...] = ()


def parse(text: str, *, only_json: bool = False) -> Iterator[Document]:
    """The documents of a text: JSON where it reads as JSON, otherwise YAML, whose faults have lines."""
    text = text.removeprefix("\ufeff")
    if only_json or text.lstrip().startswith("{"):
        documents = list(_json(text))
        if only_json or not any(document.faults for document in documents):
            return iter(documents)
    return _yaml(text)


def _yaml(text: str) -> Iterator[Document]:
    # Cut at the document markers, which YAML allows at the start of a line for nothing else, because a parser cannot
    # go on behind a syntax error.
    cuts = [0, *(match.start() for match in MARKER.finditer(text) if match.start()), len(text)]
    number, line = 0, 0
    for start, end in itertools.pairwise(cuts):
        chunk = text[start:end]
        if chunk.startswith("---") or not BARE.match(chunk):
            number += 1
            yield _Builder(chunk, line).document(number)
        line += chunk.count("\n")


class _BrokenError(Exception):
    """The rest of the document cannot be read."""


class _Builder:
    """Makes one document's value from the parser's events."""

    def __init__(self, text: str, first_line: int):
        self.text = text
        self.events = yaml.parse(text, Loader=LOADER)
        self.first_line = first_line
        self.faults: list[Fault] = []
        self.anchors: dict[str, tuple[Any, int]] = {}  # name → value, nodes in it
        self.nodes = 0
        self.by_alias = 0

    def document(self, number: int) -> Document:
        value = None
        try:
            for event in self.events:
                if isinstance(event, yaml.NodeEvent):
                    value = self._value(event, 0)
        except _BrokenError:
            value = None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            begun = (
                f" that begins on line {error.context_mark.line + 1 + self.first_line}" if error.context_mark else ""
            )
            what = ", ".join(filter(None, (error.problem, error.context and f"{error.context}{begun}")))
            self._fault(mark, f"not YAML: {what}{_hint(self.text, mark)}")
            value = None
        except yaml.reader.ReaderError as error:
            self.faults.append(Fault(0, 0, f"not YAML: {error.reason} (character {error.character!r})"))
            value = None
        return Document(number, value, tuple(self.faults))

    def _fault(self, mark: Any, reason: str) -> None:
        line, column = (mark.line + 1 + self.first_line, mark.column + 1) if mark else (0, 0)
        self.faults.append(Fault(line, column, reason))

    def _value(self, event: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            self._fault(event.start_mark, f"nested deeper than {MAX_DEPTH} levels")
            raise _BrokenError
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        before = self.nodes
        self.nodes += 1
        value: Any
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._check_tag(event, "seq")
            value = [self._value(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        else:
            self._check_tag(event, "map")
            value = self._mapping(depth + 1)
        if event.anchor:
            self.anchors[event.anchor] = value, self.nodes - before
        return value

    def _until(self, end: type) -> Iterator[Any]:
        return itertools.takewhile(lambda event: not isinstance(event, end), self.events)

    def _alias(self, event: Any) -> Any:
        if event.anchor not in self.anchors:
            self._fault(event.start_mark, f"alias *{event.anchor} has no anchor &{event.anchor} before it")
            return None
        value, nodes = self.anchors[event.anchor]
        self.nodes += nodes
        self.by_alias += nodes
        if self.by_alias > MAX_BY_ALIAS:
            self._fault(event.start_mark, f"aliases expand to more than {MAX_BY_ALIAS} values; write fewer")
            raise _BrokenError
        return value

    def _mapping(self, depth: int) -> dict[str, Any]:
        rows: dict[str, Any] = {}
        lines: dict[str, int] = {}
        merged: dict[str, Any] = {}
        for event in self._until(yaml.MappingEndEvent):
            mark = event.start_mark
            key = self._value(event, depth)
            value = self._value(next(self.events), depth)
            if key == "<<" and isinstance(event, yaml.ScalarEvent) and event.implicit[0]:
                for source in value if isinstance(value, list) else [value]:
                    if isinstance(source, dict):
                        merged = {**source, **merged}
                    else:
                        self._fault(mark, '"<<" merges mappings and nothing else')
                continue
            if not isinstance(key, str):
                if not isinstance(event, yaml.ScalarEvent):
                    self._fault(mark, f"a key must be text{_hint(self.text, mark)}")
                    continue
                self._fault(mark, f'key {event.value} is no text; put it in quotes: "{event.value}"')
                key = event.value
            if key in rows:
                remedy = "keep one of them"
                if depth == 1 and key in BEGINNING:
                    remedy = "where another document begins, put a line --- before it"
                self._fault(mark, f'key "{key}" is here twice (first on line {lines[key]}); {remedy}')
            rows[key] = value
            lines.setdefault(key, mark.line + 1 + self.first_line)
        return {**merged, **rows} if merged else rows

    def _scalar(self, event: Any) -> Any:
        tag = (event.tag or "").removeprefix(TAG)
        if (event.implicit[0] and tag in ("", "!")) or tag in ("null", "bool", "int", "float"):
            value = plain(event.value)
            if isinstance(value, float) and value in (float("inf"), float("-inf")):
                self._fault(
                    event.start_mark, f'{event.value} is no number in JSON; text goes in quotes: "{event.value}"'
                )
                return None
            if tag not in ("", "!") and _tag_of(value) != tag and not (tag == "float" and isinstance(value, int)):
                self._fault(event.start_mark, f"{event.value!r} is no !!{tag}")
            return value
        self._check_tag(event, "str")
        return event.value

    def _check_tag(self, event: Any, expected: str) -> None:
        tag = event.tag or "!"
        if tag not in ("!", TAG + expected):
            shown = tag.replace(TAG, "!!")
            self._fault(event.start_mark, f"tag {shown} means nothing to Kubernetes; leave it out")


def plain(text: str) -> Any:
    """What an unquoted YAML scalar means."""
    if text in WORDS:
        return WORDS[text]
    if text[0] in "+-.0123456789":
        digits = text.replace("_", "")
        if INTEGER.match(digits):
            return _integer(digits)
        if FLOAT.match(digits):
            return float(digits)
        if NOT_JSON.match(text):
            return float("-inf") if text.startswith("-") else float("inf")
    return text


def _integer(digits: str) -> int:
    body = digits.lstrip("+-")
    if len(body) > 1 and body[0] == "0" and body[1].isdigit():
        digits = digits.replace("0", "0o", 1)  # YAML 1.1 octal: 0644
    return int(digits, 0)


def _tag_of(value: Any) -> str:
    return {"NoneType": "null", "bool": "bool", "int": "int", "float": "float"}.get(type(value).__name__, "str")


def _hint(text: str, mark: Any) -> str:
    """What a fault most often comes from, judged by its line and the one before, where it may have begun."""
    if not mark:
        return ""
    lines = text.split("\n")[: mark.line + 1][-2:]
    if any("{{" in line for line in lines):
        return "; this looks like a template, render it first"
    return "; indent with spaces, not tabs" if "\t" in lines[-1][: mark.column + 1] else ""


def _json(text: str) -> Iterator[Document]:
    """JSON documents one after the other, as ``jq`` and ``kubectl get -o json`` write them."""
    faults: list[Fault] = []

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        rows = dict(pairs)
        if len(rows) < len(pairs):
            names = [name for name, _ in pairs]
            twice = sorted({name for name in names if names.count(name) > 1})
            faults.extend(Fault(0, 0, f'key "{name}" is here twice in one object; keep one of them') for name in twice)
        return rows

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is no number in JSON")

    decoder = json.JSONDecoder(object_pairs_hook=mapping, parse_constant=refuse)
    place = 0
    for number in itertools.count(1):
        place = BLANK.match(text, place).end()  # type: ignore[union-attr]  # it matches no characters too
        if place == len(text):
            return
        faults.clear()
        try:
            value, place = decoder.raw_decode(text, place)
            if _too_deep(value, MAX_DEPTH):
                raise RecursionError
        except json.JSONDecodeError as error:
            yield Document(number, None, (Fault(error.lineno, error.colno, f"not JSON: {error.msg}"),))
            return
        except ValueError as error:
            yield Document(number, None, (Fault(0, 0, f"not JSON: {error}"),))
            return
        except RecursionError:
            yield Document(number, None, (Fault(0, 0, f"nested deeper than {MAX_DEPTH} levels"),))
            return
        yield Document(number, value, tuple(faults))


def _too_deep(value: Any, left: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    return left == 0 or any(_too_deep(row, left - 1) for row in (value.values() if isinstance(value, dict) else value))
