"""What is compared: a side is one run, or several that repeat it; and whether two sides may be compared at all.

Law: a comparison is of like with like. Runs differ in what their scenarios ask for, or were cut short: then nothing is
said of them but what differs, unless it is forced. What differs otherwise (manifests, a value of the matrix, commit,
machine) is told beside the numbers, because it may be what is being compared.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml

from harness import records

# Facts of a run that one must know of to believe a comparison, as docs/records.md names them.
TOLD = ("manifests_sha256", "variant", "commit", "versions", "kernel", "cpu", "cores")


class CompareError(Exception):
    """Runs that can't be read or may not be compared; the text says why and what to do."""


@dataclass(frozen=True)
class Side:
    """``name`` is the path that was given; ``tables`` and ``facts`` (``records.provenance_of``) are of its runs."""

    name: str
    tables: Sequence[pa.Table]
    facts: Sequence[Mapping[str, str]]

    @property
    def runs(self) -> list[str]:
        return [facts["run"] for facts in self.facts]

    @property
    def loads(self) -> list[dict[str, Any]]:
        """The descriptions of its loads, in the scenario's order, as from the end of their warm-up on."""
        return [records.measured(load) for load in json.loads(self.facts[0]["loads"])]


def side(path: Path) -> Side:
    """The run in a folder, or the runs in its folders. Raises CompareError."""
    folders = [path]
    if path.is_dir() and not records.holds_run(path):
        folders = sorted(folder for folder in path.glob("*/") if records.holds_run(folder))
        if not folders:
            raise CompareError(f"{path} holds no run: no {records.FILE} in it nor in its folders")
    try:
        tables = [records.read(folder) for folder in folders]
    except (OSError, pa.ArrowException) as error:
        raise CompareError(f"{path}: cannot be read as a run: {error}") from error
    made = Side(str(path), tables, [records.provenance_of(table) for table in tables])
    for folder, facts in zip(folders, made.facts, strict=True):
        if "loads" not in facts:
            raise CompareError(f"{folder} was not written by this harness: its schema has no trafficplane metadata")
        unlike = [*asked_differently(made.facts[0], facts), *_told(made.facts[0], facts, ("variant",))]
        if unlike:
            raise CompareError(
                f"{path} holds runs that do not repeat each other: {folders[0].name} and {folder.name} differ in "
                f"{'; '.join(unlike)}. Name the runs themselves"
            )
    return made


def refusals(base: Side, other: Side) -> list[str]:
    """Why the two may not be compared; nothing where they may."""
    cut = [f"run {facts['run']} was interrupted" for facts in (*base.facts, *other.facts) if _interrupted(facts)]
    both = [f"run {run} is on both sides" for run in base.runs if run in other.runs]
    return [*cut, *both, *asked_differently(base.facts[0], other.facts[0])]


def differences(base: Side, other: Side) -> list[str]:
    """What else differs between the two, one line each."""
    return list(_told(base.facts[0], other.facts[0], TOLD))


def asked_differently(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The fields in which two scenarios differ, with both values; comments and layout are none."""
    if one["scenario_sha256"] == other["scenario_sha256"]:
        return []
    fields = [_fields("", yaml.safe_load(facts["scenario"])) for facts in (one, other)]
    here, there = (dict(each) for each in fields)
    return [
        f"{path}: {_shown(here.get(path))} and {_shown(there.get(path))}"
        for path in dict.fromkeys([*here, *there])
        if here.get(path) != there.get(path)
    ]


def _fields(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """(path, value) of every leaf of a document."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _fields(f"{path}.{name}" if path else str(name), inner)
    elif isinstance(value, list) and value:
        for place, inner in enumerate(value):
            yield from _fields(f"{path}[{place}]", inner)
    else:
        yield path, value


def _told(one: Mapping[str, str], other: Mapping[str, str], names: Sequence[str]) -> Iterator[str]:
    for name in names:
        here, there = one.get(name, ""), other.get(name, "")
        if here != there:
            yield f"{name}: {here[:60] or 'none'} and {there[:60] or 'none'}"


def _interrupted(facts: Mapping[str, str]) -> bool:
    return facts.get("interrupted") == "true"


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)
