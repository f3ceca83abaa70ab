"""The tables of a Fib, laid end to end from parts that are made apart and put in one another's place.

Law: in a part, rows of pools, members and ranges are counted from the part's own beginning; where a part stands is
added when the tables are taken. So putting one part in another's place copies bytes and touches no other part, and the
same parts in the same order have the same tables, whatever was there in between.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from kernels.layout import FRONTEND, POOL, RANGE, freeze


class Part(NamedTuple):
    """Rows of the tables of one Service, as tuples and numbers.

    frontends  of FRONTEND; ``inside`` and ``outside`` are 1 for the part's first pool, ``first_range`` is 0 for its
               first range, ``service`` is filled in when the tables are taken
    pools      of POOL; ``first_member`` is 0 for the part's first member
    held       the number of each pool's ring (``Rings``)
    members, weights, ranges
    """

    frontends: Sequence[tuple[Any, ...]] = ()
    pools: Sequence[tuple[Any, ...]] = ()
    held: Sequence[int] = ()
    members: Sequence[int] = ()
    weights: Sequence[int] = ()
    ranges: Sequence[tuple[Any, ...]] = ()


class Edit(NamedTuple):
    """These parts in place of those from ``first`` until before ``last``."""

    first: int
    last: int
    parts: list[Part]


class Tables(NamedTuple):
    """What the parts come to; ``held`` goes with the pools. Slots of pools are still to be filled in."""

    frontends: np.ndarray
    pools: np.ndarray
    held: np.ndarray
    members: np.ndarray
    weights: np.ndarray
    ranges: np.ndarray


DTYPES = (FRONTEND, POOL, np.dtype(np.uint32), np.dtype(np.uint32), np.dtype(np.uint16), RANGE)


class Parts:
    """Parts in order, as arrays."""

    def __init__(self) -> None:
        self._arrays = [np.zeros(0, dtype) for dtype in DTYPES]
        self._counts = np.zeros((0, len(DTYPES)), np.int64)  # rows of each part in each of the arrays

    def edit(self, edits: Sequence[Edit]) -> None:
        """Edits in ascending order, none of which overlaps another; they count parts as they are before all of them."""
        ends = np.vstack([np.zeros((1, len(DTYPES)), np.int64), np.cumsum(self._counts, axis=0)])
        counts = [[[len(rows) for rows in part] for part in edit.parts] for edit in edits]
        fresh = [np.array(rows, np.int64).reshape(-1, len(DTYPES)) for rows in counts]
        for column, dtype in enumerate(DTYPES):
            rows = [np.array(list(chain.from_iterable(p[column] for p in edit.parts)), dtype) for edit in edits]
            self._arrays[column] = _spliced(self._arrays[column], edits, rows, ends[:, column])
        self._counts = _spliced(self._counts, edits, fresh, np.arange(len(self._counts) + 1))

    def tables(self) -> Tables:
        """The tables with their row 0, read-only but for ``pools``."""
        frontends, pools, held = (_with_none(array) for array in self._arrays[:3])
        members, weights, ranges = self._arrays[3:]
        before = np.cumsum(self._counts, axis=0) - self._counts  # rows of the parts before each
        rows, their_pools, _, _, _, _ = self._counts.T
        for side in ("inside", "outside"):
            frontends[side][1:] += np.repeat(before[:, 1], rows).astype(np.uint32)
        frontends["service"][1:] = np.repeat(np.arange(1, len(rows) + 1), rows)
        frontends["first_range"][1:] += np.repeat(before[:, 5], rows).astype(np.uint32)
        pools["first_member"][1:] += np.repeat(before[:, 3], their_pools).astype(np.uint32)
        return Tables(freeze(frontends), pools, freeze(held), *(freeze(each) for each in (members, weights, ranges)))


def _spliced(array: np.ndarray, edits: Iterable[Edit], rows: Iterable[np.ndarray], ends: np.ndarray) -> np.ndarray:
    """The array with each edit's rows in place of those of the parts that go; part p has rows ends[p] … ends[p + 1]."""
    pieces = []
    at = 0
    for edit, put in zip(edits, rows, strict=True):
        pieces += [array[at : ends[edit.first]], put]
        at = ends[edit.last]
    return np.concatenate([*pieces, array[at:]], dtype=array.dtype)


def _with_none(array: np.ndarray) -> np.ndarray:
    """A copy with a row of zeros before it."""
    table = np.zeros(len(array) + 1, array.dtype)
    table[1:] = array
    return table
