"""Manifests: files, folders and standard input → Kubernetes objects that are known to be sound.

Law: input is judged as a whole. ``load`` gives every object, or raises a ManifestError with everything that is wrong
with any of them, each with its file, document, object and field. Nothing is left out in silence: a kind that the plane
does not run is named in a warning.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from plane.documents import Document, parse
from plane.errors import ManifestError, Problem
from plane.kinds import KINDS
from plane.model import Key, Object, key_of
from plane.validation import check, foreign, like, name_of

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"


@dataclass(frozen=True)
class Manifest:
    """One object and where it was read: the file as it was named, and the 1-based number of the document in it."""

    file: str
    document: int
    object: Object


@dataclass(frozen=True)
class Loaded:
    """What ``load`` found: objects in the order of reading, and warnings for people."""

    objects: tuple[Manifest, ...]
    warnings: tuple[str, ...]


def load(
    paths: Sequence[str], stdin: TextIO | None = None, *, namespace: str = "default", lenient: bool = False
) -> Loaded:
    """The objects of files, of folders (read through, in order of name) and, for ``-``, of standard input.

    An object without a namespace gets ``namespace``, if its kind has them. ``lenient`` reads what some cluster gave
    out, such as ``kubectl get all -A -o yaml``: kinds that are none of ours are left out without a word, objects of
    ours that the plane could not read are left out with a warning, and features it has nothing for are let pass.

    Raises ManifestError with every problem of every file.
    """
    reading = _Reading(namespace, lenient)
    files = (file for path in paths for file in reading.files(path))
    for file in {os.path.realpath(file): file for file in files}.values():
        if str(file) == STDIN:
            reading.text(STDIN, (stdin or sys.stdin).read())
        else:
            reading.file(file)
    problems = [*reading.problems, *cross_check(reading.manifests if lenient else reading.named)]
    if problems:
        raise ManifestError(problems)
    return Loaded(tuple(reading.manifests), tuple(reading.warnings))


def cross_check(manifests: Iterable[Manifest]) -> list[Problem]:
    """What is wrong between objects: two of the same kind, namespace and name."""
    first: dict[Key, Manifest] = {}
    problems = []
    for row in manifests:
        key = key_of(row.object)
        earlier = first.setdefault(key, row)
        if earlier is not row:
            place = f"{earlier.file} (document {earlier.document})"
            reason = f"the same object is in {place}; rename one of them, or take it out"
            problems.append(Problem(row.file, row.document, str(key), "metadata.name", reason))
    return problems


@contextmanager
def locate(manifests: Iterable[Manifest]) -> Iterator[None]:
    """Problems that are raised inside about these objects get the file and the document they were read from."""
    places = {str(key_of(row.object)): row for row in manifests}
    try:
        yield
    except ManifestError as error:
        raise ManifestError([_located(problem, places.get(problem.object)) for problem in error.problems]) from None


def _located(problem: Problem, place: Manifest | None) -> Problem:
    if problem.file or place is None:
        return problem
    return Problem(place.file, place.document, problem.object, problem.field, problem.reason)


class _Reading:
    """One call of ``load``: what has been found so far."""

    def __init__(self, namespace: str, lenient: bool):
        self.namespace = namespace
        self.lenient = lenient
        self.manifests: list[Manifest] = []
        self.named: list[Manifest] = []  # these and those with problems of their own, which may be twins too
        self.warnings: list[str] = []
        self.problems: list[Problem] = []

    def files(self, path: str) -> list[Path]:
        """The file, or the manifests under the folder; hidden ones are left out."""
        root = Path(path)
        if path == STDIN or not root.is_dir():
            return [root]
        found = sorted(
            file
            for file in root.rglob("*")
            if file.suffix.lower() in SUFFIXES
            and file.is_file()
            and not any(part.startswith(".") for part in file.relative_to(root).parts)
        )
        if not found:
            self._problem(path, f"no {', '.join(f'*{suffix}' for suffix in SUFFIXES)} in this folder; name another")
        return found

    def file(self, file: Path) -> None:
        name = str(file)
        try:
            text = file.read_text(encoding="utf-8")
        except FileNotFoundError:
            self._problem(name, "there is no such file or folder")
        except UnicodeDecodeError as error:
            self._problem(name, f"is not UTF-8 text (byte {error.start}); save it as UTF-8")
        except OSError as error:
            self._problem(name, f"cannot be read: {error.strerror or error}")
        else:
            self.text(name, text)

    def text(self, name: str, text: str) -> None:
        documents = list(parse(text, only_json=name.lower().endswith(".json")))
        for document in documents:
            self._document(name, document)
        if not any(document.faults or document.value is not None for document in documents):
            self.warnings.append(f"{'standard input' if name == STDIN else name}: no object in it")

    def _document(self, name: str, document: Document) -> None:
        value = document.value
        if isinstance(value, dict) and value.get("kind") and foreign(value) and not _is_list(value):
            self._skip(name, document.number, value)
            return
        for fault in document.faults:
            where = f"{name}:{fault.line}:{fault.column}" if fault.line else name
            self.problems.append(Problem(where, document.number, name_of(value), "", fault.reason))
        if value is not None and not document.faults:
            self._value(name, document.number, value)

    def _value(self, name: str, number: int, value: Any) -> None:
        if isinstance(value, dict) and _is_list(value):
            items = value.get("items") or []
            if not isinstance(items, list):
                self.problems.append(Problem(name, number, str(value["kind"]), "items", "must be a list of objects"))
                return
            common = _item_type(value)
            for item in items:
                self._value(name, number, {**common, **item} if isinstance(item, dict) else item)
            return
        if isinstance(value, dict) and value.get("kind") and foreign(value):
            self._skip(name, number, value)
            return
        obj = self._with_namespace(value)
        problems = check(obj, file=name, document=number, lenient=self.lenient)
        if not problems:
            self.manifests.append(Manifest(name, number, obj))
        elif self.lenient:
            self.warnings.append(f"{problems[0]} (left out)")
        else:
            self.problems.extend(problems)
        if isinstance(obj, dict) and isinstance(obj.get("metadata"), dict) and obj["metadata"].get("name"):
            self.named.append(Manifest(name, number, obj))

    def _with_namespace(self, obj: Any) -> Any:
        kind = KINDS.get(obj["kind"]) if isinstance(obj, dict) and isinstance(obj.get("kind"), str) else None
        metadata = (obj.get("metadata") or {}) if isinstance(obj, dict) else None
        if not kind or not kind.namespaced or not isinstance(metadata, dict) or metadata.get("namespace"):
            return obj
        return {**obj, "metadata": {**metadata, "namespace": self.namespace}}

    def _skip(self, name: str, number: int, obj: Object) -> None:
        """A kind that is none of ours."""
        if self.lenient:
            return
        close = like(obj["kind"]) if obj["kind"] not in KINDS else ""
        version = f"{obj.get('apiVersion')} " if obj["kind"] in KINDS else ""
        hint = f"; did you mean {close}?" if close else ""
        what = f"skipped, the plane runs no {version}{obj['kind']}{hint}"
        self.warnings.append(str(Problem(name, number, name_of(obj), "", what)))

    def _problem(self, file: str, reason: str) -> None:
        self.problems.append(Problem(file, 0, "", "", reason))


def _is_list(obj: Object) -> bool:
    """Whether it is a ``List``, or a ``ServiceList`` and so on as the API answers."""
    kind = obj.get("kind")
    return kind == "List" or (isinstance(kind, str) and kind.endswith("List") and "items" in obj)


def _item_type(obj: Object) -> Object:
    """The kind and apiVersion that the items of a typed list have without saying so."""
    kind = str(obj["kind"]).removesuffix("List")
    return {"apiVersion": obj.get("apiVersion"), "kind": kind} if kind else {}
