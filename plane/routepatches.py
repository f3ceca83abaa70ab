"""Patches: what makes the Routes of one generation those of another, for an ingress in another process. Pure.

Law: a patch holds each row that differs, and each beyond the length of the first; what it does not name stays the same
object. So it costs what the change is worth, not what the tables hold, and who takes it up finds out as quickly what
is new. It is for the Routes of one generation and for no others, of one control plane: an agent never outlives that.
"""

import operator
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np

from kernels.layout import freeze
from plane.policies import Tables
from plane.routes import Edits, Routes, differing

_FIELDS = tuple(each.name for each in fields(Routes) if each.name not in ("generation", "policies", "edits"))


class Rows(NamedTuple):
    """Of a table or of a tuple: how many rows it has, the numbers of those that differ, int64[n], and these."""

    length: int
    numbers: np.ndarray
    rows: Any


class Patch(NamedTuple):
    """From the Routes of generation ``before`` to those of ``generation``; by name what differs, ``policies`` apart.

    What is neither a table nor a tuple is there as a whole, and is never None.
    """

    before: int
    generation: int
    routes: Mapping[str, Any]
    policies: Mapping[str, Rows]


def between(one: Routes, other: Routes) -> Patch:
    """The patch from one to another: by the edits of the other, or else in time that goes by the bytes of tables."""
    _, known, known_policies = other.edits_since(one)
    return Patch(
        one.generation,
        other.generation,
        _differences(one, other, _FIELDS, known),
        _differences(one.policies, other.policies, Tables._fields, known_policies),
    )


def is_small(patch: Patch, routes: Routes) -> bool:
    """Whether to hand over a patch takes less than whole Routes, of which those who need them share one."""
    tables = (getattr(routes, name) for name in _FIELDS)
    rows = sum(len(table) for table in (*tables, *routes.policies))
    found = (each for each in (*patch.routes.values(), *patch.policies.values()) if isinstance(each, Rows))
    return 4 * sum(len(each.numbers) for each in found) < rows


def patched(routes: Routes, patch: Patch) -> Routes:
    """What a patch makes of Routes, which stay as they are. Raises ValueError where it is for others."""
    if routes.generation != patch.before:
        raise ValueError(f"a patch of generation {patch.before} is for no Routes of {routes.generation}")
    policies = {name: _changed(getattr(routes.policies, name), rows) for name, rows in patch.policies.items()}
    others = {name: _changed(getattr(routes, name), rows) for name, rows in patch.routes.items()}
    kept = {name: getattr(routes, name) for name in _FIELDS if name not in others}
    return Routes(
        generation=patch.generation,
        policies=routes.policies._replace(**policies),
        edits=Edits(patch.before, _numbers(patch.routes), _numbers(patch.policies)),
        **kept,
        **others,
    )


def _numbers(found: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return {name: rows.numbers for name, rows in found.items() if isinstance(rows, Rows)}


def _differences(one: Any, other: Any, names: tuple[str, ...], known: Mapping[str, np.ndarray]) -> dict[str, Any]:
    found = {name: _difference(getattr(one, name), getattr(other, name), known.get(name)) for name in names}
    return {name: difference for name, difference in found.items() if difference is not None}


def _difference(before: Any, now: Any, numbers: np.ndarray | None) -> Any:
    """Rows, or all of what has none; None: there is no difference. ``numbers`` are those of the rows, if known."""
    if before is now:
        return None
    if not isinstance(now, np.ndarray | tuple):
        return None if before == now else now
    if numbers is None:
        differ = differing(before, now) if isinstance(now, np.ndarray) else _differing_objects(before, now)
        numbers = np.flatnonzero(differ)
    if not len(numbers) and len(before) == len(now):
        return None
    return Rows(len(now), numbers, now[numbers] if isinstance(now, np.ndarray) else [now[row] for row in numbers])


def _differing_objects(before: tuple[Any, ...], now: tuple[Any, ...]) -> np.ndarray:
    """By identity: of what did not change it is the same, and what was made anew may as well be handed over."""
    both = min(len(before), len(now))
    differ = np.ones(len(now), bool)
    differ[:both] = np.fromiter(map(operator.is_not, before, now), bool, both)
    return differ


def _changed(before: Any, found: Any) -> Any:
    if not isinstance(found, Rows):
        return found
    if isinstance(before, tuple):
        rows: list[Any] = list(before)
        del rows[found.length :]
        rows += [None] * (found.length - len(rows))
        for number, row in zip(found.numbers.tolist(), found.rows, strict=True):
            rows[number] = row
        return tuple(rows)
    table = np.empty(found.length, before.dtype)
    kept = min(len(before), found.length) * table.itemsize
    table.view(np.uint8)[:kept] = before.view(np.uint8)[:kept]  # whole rows, and not field by field
    table[found.numbers] = found.rows
    return freeze(table)
