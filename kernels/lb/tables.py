"""Tables that change where they lie, and what was written to them of late.

Law: a run of rows that is lent stays in its place until it is given back, so a change writes rows of what changes and
of nothing else. What is written is noted, unless it stood there before; ``taken`` hands it out once. A table never gets
shorter but by ``replace``, and rows that it gains, or gives out ``fresh``, are noted as well, whatever is in them.
"""

import math
from collections import defaultdict
from typing import NamedTuple

import numpy as np

Run = tuple[int, np.ndarray]  # rows from a first one on


LINE_BYTES = 64
HUGE_PAGE_BYTES = 1 << 21
# What a large table has room to grow by, and of which nothing is touched until it does: a copy of it has new pages,
# which cost more than copying.
LARGE_BYTES, RESERVED_BYTES = 1 << 22, 1 << 30
NEAR = 16  # rows no further apart are noted as one run where all are replaced


class Place(NamedTuple):
    """Rows that are lent: ``room`` of them from ``first`` on."""

    first: int
    room: int


NOWHERE = Place(0, 0)


def lined_up(rows: np.ndarray, length: int = 0) -> np.ndarray:
    """A copy that begins with a cache line, a large one with a huge page; so many rows at least, more of them zeros.

    So what is as large as a line lies in one. What NumPy gives begins somewhere within one; from 4 MB on it asks for
    huge pages, and has them for as much as lies within whole ones.
    """
    size = max(length, len(rows)) * rows.itemsize
    whole = HUGE_PAGE_BYTES if size >= HUGE_PAGE_BYTES else LINE_BYTES
    room = np.zeros(size + whole, np.uint8)
    first = -room.ctypes.data % whole
    copy = room[first : first + size].view(rows.dtype)
    copy[: len(rows)] = rows
    return copy


class Table:
    """An array that grows. ``rows`` is a view of it that is good until it does."""

    def __init__(self, dtype: np.dtype, length: int = 0):
        self._array = np.zeros(max(length, 16), dtype)
        self._written: list[tuple[int, int]] = []
        self.rows = self._array[:length]

    def lengthen(self, length: int) -> None:
        """Has so many rows at least; new ones are zeros."""
        before = len(self.rows)
        if length > len(self._array):
            itemsize = self._array.itemsize
            more = max(length, RESERVED_BYTES // itemsize) if length * itemsize >= LARGE_BYTES else 3 * length
            grown = np.zeros(length + more, self._array.dtype)
            grown[:before] = self.rows
            self._array = grown
        if length > before:
            self.rows = self._array[:length]
            self.note(before, length)

    def write(self, first: int, values: np.ndarray) -> None:
        """Puts rows in place of those from ``first`` on; the table has them."""
        there = self.rows[first : first + len(values)]
        if there.tobytes() != values.tobytes():
            there[:] = values
            self.note(first, first + len(values))

    def fresh(self, first: int, count: int) -> np.ndarray:
        """Rows for the caller to fill, all of them and at once: noted as written, whatever stood there before."""
        self.note(first, first + count)
        return self.rows[first : first + count]

    def replace(self, values: np.ndarray) -> None:
        """Puts these rows in place of all; of as many as there were, those that differ are noted, with what is near."""
        if len(values) != len(self.rows):
            self._array, self._written = values.copy(), [(0, len(values))]
            self.rows = self._array[:]
            return
        found = differing(self.rows, values)
        for few in np.split(found, np.flatnonzero(np.diff(found) > NEAR) + 1) if len(found) else ():
            self.write(int(few[0]), values[few[0] : few[-1] + 1])

    def note(self, first: int, last: int) -> None:
        """Notes rows from ``first`` until before ``last`` as written, by whoever writes to ``rows`` directly."""
        if self._written and self._written[-1][0] <= first <= self._written[-1][1]:
            first, before = self._written.pop()
            last = max(last, before)
        self._written.append((first, last))

    def taken(self) -> list[Run]:
        """Copies of the rows that were written since the last call, in order, none of them twice."""
        runs: list[tuple[int, int]] = []
        for first, last in sorted(self._written):
            if runs and first <= runs[-1][1]:
                runs[-1] = runs[-1][0], max(last, runs[-1][1])
            else:
                runs.append((first, last))
        self._written = []
        return [(first, self.rows[first:last].copy()) for first, last in runs]


def differing(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The rows that are not the same in two tables of one length and dtype, ascending int64.

    They are compared as plain words, since NumPy takes longer for rows: it goes field by field.
    """
    word = np.dtype(f"u{math.gcd(one.itemsize, 8)}")
    return np.unique(np.flatnonzero(one.view(word) != other.view(word)) // (one.itemsize // word.itemsize))


class Rooms:
    """Which rows of a table are lent."""

    def __init__(self, end: int = 0):
        self.end = end  # of all that was ever lent
        self._holes: dict[int, list[int]] = defaultdict(list)  # first rows of what was given back, by room

    def lend(self, count: int) -> Place:
        """Room for so many rows: a hole that fits, or is at most twice as large, else beyond the end."""
        if not count:
            return NOWHERE
        fitting = (room for room in self._holes if count <= room <= 2 * count)
        if room := count if count in self._holes else min(fitting, default=0):
            first = self._holes[room].pop()
            if not self._holes[room]:
                del self._holes[room]
            return Place(first, room)
        self.end += count
        return Place(self.end - count, count)

    def give_back(self, place: Place) -> None:
        if place.room:
            self._holes[place.room].append(place.first)

    def moved(self, place: Place, count: int) -> Place:
        """The same place if so many rows have room there. One that has to grow gets room to grow further."""
        if 0 < count <= place.room:
            return place
        self.give_back(place)
        return self.lend(1 << (count - 1).bit_length() if count and place.room else count)
