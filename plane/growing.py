"""Tables that are made version by version, each at the cost of a copy and of what differs.

Law: a version that was given out stays as it is, and where nothing differs the next one is the same object. A row keeps
its place until it is dropped; its place goes to rows that come later, and holds nothing until then. ``edited`` are the
rows that the last version has otherwise than the one before it, or beyond it, int64[n] in order.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from kernels.layout import freeze

V = TypeVar("V")
NO_ROWS = freeze(np.zeros(0, np.int64))


class Growing:
    """The rows of a structured array, or of one of numbers. ``rows`` are those that it begins with."""

    def __init__(self, dtype: Any, rows: Sequence[Any] = ()):
        self._nothing = np.zeros((), dtype).item()
        self._version = freeze(np.array(list(rows), dtype))
        self._size = len(rows)
        self._edits: dict[int, Any] = {}
        self._vacant: defaultdict[int, list[int]] = defaultdict(list)  # first rows, by how many there are
        self.edited = NO_ROWS

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, row: int) -> Any:
        """What a row holds, as it was put."""
        return self._edits[row] if row in self._edits else self._version[row].item()

    def __setitem__(self, row: int, value: Any) -> None:
        """A row that is there, or the first beyond them, with nothing in those between."""
        self._edits[row] = value
        self._size = max(self._size, row + 1)

    def put(self, rows: Sequence[Any]) -> int:
        """Puts rows one after the other, where there is room for just so many, or at the end; which is the first."""
        if not rows:
            return 0
        vacant = self._vacant[len(rows)]
        first = vacant.pop() if vacant else self._size
        self._edits.update(enumerate(rows, start=first))
        self._size = max(self._size, first + len(rows))
        return first

    def drop(self, first: int, count: int = 1) -> None:
        """Leaves a run of rows, as it was put, to others."""
        if count:
            self._vacant[count].append(first)
            self._edits.update(dict.fromkeys(range(first, first + count), self._nothing))

    def shorten(self) -> None:
        """Takes the last row off."""
        self._size -= 1
        self._edits.pop(self._size, None)

    def version(self) -> np.ndarray:
        """All rows as they are now, read-only."""
        self.edited = NO_ROWS
        if self._edits or self._size != len(self._version):
            before, now = self._version, np.zeros(self._size, self._version.dtype)
            kept = min(len(before), len(now)) * now.itemsize
            now.view(np.uint8)[:kept] = before.view(np.uint8)[:kept]  # whole rows, and not field by field
            if self._edits:
                now[list(self._edits)] = np.array(list(self._edits.values()), now.dtype)
            self.edited, self._edits = self._differing(before, now), {}
            if len(self.edited) or len(now) != len(before):
                self._version = freeze(now)
        return self._version

    def _differing(self, before: np.ndarray, now: np.ndarray) -> np.ndarray:
        numbers = np.array(sorted(row for row in self._edits if row < len(before)), np.int64)
        one, other = (rows[numbers].view(np.uint8).reshape(len(numbers), rows.itemsize) for rows in (before, now))
        return np.concatenate((numbers[(one != other).any(axis=1)], np.arange(len(before), len(now))))


class Numbered(Generic[V]):
    """The same of objects, one a row; row 0 holds ``nothing``, as do rows that were dropped."""

    def __init__(self, nothing: V):
        self._rows = [nothing]
        self._vacant: list[int] = []
        self._version: tuple[V, ...] = ()
        self._touched = {0}
        self.edited = NO_ROWS

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> V:
        return self._rows[row]

    def put(self, value: V) -> int:
        """Its row."""
        if self._vacant:
            row = self._vacant.pop()
            self._rows[row] = value
        else:
            row = len(self._rows)
            self._rows.append(value)
        self._touched.add(row)
        return row

    def drop(self, row: int) -> None:
        self._rows[row] = self._rows[0]
        self._vacant.append(row)
        self._touched.add(row)

    def version(self) -> tuple[V, ...]:
        """All objects as they are now; another one makes a row another."""
        self.edited = NO_ROWS
        if self._touched:
            before, now = self._version, tuple(self._rows)
            edited = [row for row in sorted(self._touched) if row >= len(before) or before[row] is not now[row]]
            self.edited, self._touched = np.array(edited, np.int64), set()
            if edited:
                self._version = now
        return self._version
