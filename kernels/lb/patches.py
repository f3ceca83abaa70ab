"""Patches: what makes the Fib of one generation that of another, and a Fib of one's own that they are applied to.

Law: a patch holds every row that differs, and every row that the other Fib has beyond the length of the first. Patches
are values. Applying one writes what it holds and touches no other row, after all that may fail is over; what it gives
back undoes it. So it costs what the change is worth, whatever the tables hold besides.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kernels.layout import Fib, freeze
from kernels.lb.forward import empty_fib
from kernels.lb.tables import Run, differing, lined_up

TABLES = Fib._fields[1:]


class Patch(NamedTuple):
    """From one Fib to another.

    before      generation of the first; 0 is the empty Fib, so that such a patch makes tables from nothing
    generation  of the other
    lengths     rows of its tables, in their order
    runs        by table, those that have any: rows from a first one on. Of two that overlap the later one counts
    """

    before: int
    generation: int
    lengths: tuple[int, ...]
    runs: dict[str, list[Run]]

    @property
    def nbytes(self) -> int:
        return sum(rows.nbytes for runs in self.runs.values() for _, rows in runs)


def composed(patches: Sequence[Patch]) -> Patch:
    """One patch for several, each of which begins where the one before it ends."""
    runs: dict[str, list[Run]] = {}
    for patch in patches:
        for name, several in patch.runs.items():
            runs.setdefault(name, []).extend(several)
    return Patch(patches[0].before, patches[-1].generation, patches[-1].lengths, runs)


def between(one: Fib, other: Fib) -> Patch:
    """The patch from one Fib to another; where any frontend differs it has all, for a new one may share old pools."""
    runs: dict[str, list[Run]] = {}
    for name in TABLES:
        if found := _differing(getattr(one, name), getattr(other, name)):
            runs[name] = [(0, other.frontends)] if name == "frontends" else [found]
    return Patch(int(one.generation), int(other.generation), tuple(map(len, other[1:])), runs)


def _differing(old: np.ndarray, new: np.ndarray) -> Run | None:
    """The rows of ``new`` from the first to the last that is not so in ``old``; None where all are."""
    both = min(len(old), len(new))
    differ = differing(old[:both], new[:both])
    last = len(new) if len(new) > both else int(differ[-1]) + 1 if differ.size else 0
    first = int(differ[0]) if differ.size else both
    return (first, new[first:last]) if first < last else None


def patched(fib: Fib | None, patch: Patch | None) -> Fib:
    """What a patch makes of a Fib, of the empty one where there is none. The tables given stay as they are."""
    replica = Replica(fib)
    if patch is not None:
        replica.apply(patch)
    return replica.fib


class Replica:
    """A Fib of one's own. ``fib`` is read-only to whoever looks into it, and another tuple after each patch.

    The tables of it are views of memory that this object writes to in ``apply``. So nobody may read them meanwhile, and
    nobody may keep a row over it.
    """

    def __init__(self, fib: Fib | None = None):
        fib = empty_fib() if fib is None else fib
        self._own = {name: lined_up(getattr(fib, name)) for name in TABLES}
        self.fib = Fib(int(fib.generation), *(freeze(own[:]) for own in self._own.values()))

    def apply(self, patch: Patch) -> Patch:
        """Makes the Fib that of the patch; returns the patch that makes it what it was.

        Raises ValueError, as well as MemoryError, before anything has changed.
        """
        self._check(patch)
        views = dict(zip(TABLES, self.fib[1:], strict=True))
        back = {name: self._with_room(name, runs) for name, runs in patch.runs.items()}
        for name, length in zip(TABLES, patch.lengths, strict=True):
            if length > len(self._own[name]):
                raise ValueError(f"a patch makes {name} {length} rows long, and has not all that are new")
            if len(views[name]) != length or views[name].ctypes.data != self._own[name].ctypes.data:
                views[name] = freeze(self._own[name][:length])
        undo = Patch(patch.generation, int(self.fib.generation), tuple(map(len, self.fib[1:])), back)
        fib = Fib(patch.generation, *views.values())
        for name, runs in patch.runs.items():
            for first, rows in runs:
                self._own[name][first : first + len(rows)] = rows
        self.fib = fib
        return undo

    def rows(self, name: str, patch: Patch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows of a table that a patch holds: their numbers, in order, what they are now, and what they will be.

        Rows that are beyond the table, now or then, are zeros.
        """
        runs, length = patch.runs.get(name, []), patch.lengths[TABLES.index(name)]
        table = getattr(self.fib, name)
        beyond = [np.arange(length, len(table))] if length < len(table) else []
        numbers = np.unique(np.concatenate([_NONE, *beyond, *(first + np.arange(len(rows)) for first, rows in runs)]))
        was, now = np.zeros(len(numbers), table.dtype), np.zeros(len(numbers), table.dtype)
        there = numbers < len(table)
        was[there] = table[numbers[there]]
        for first, rows in runs:
            now[np.searchsorted(numbers, first) :][: len(rows)] = rows
        now[numbers >= length] = 0
        return numbers, was, now

    def table(self, name: str, patch: Patch) -> np.ndarray:
        """A copy of a table as the patch will make it."""
        length = patch.lengths[TABLES.index(name)]
        numbers, _, now = self.rows(name, patch)
        table = np.zeros(length, now.dtype)
        before = getattr(self.fib, name)[:length]
        table[: len(before)] = before
        table[numbers[numbers < length]] = now[numbers < length]
        return table

    def _check(self, patch: Patch) -> None:
        if patch.before != self.fib.generation:
            raise ValueError(f"a patch of generation {patch.before} is for no Fib of {self.fib.generation}")
        if len(patch.lengths) != len(TABLES):
            raise ValueError(f"a patch says how long {len(TABLES)} tables are, not {len(patch.lengths)}")
        for name, runs in patch.runs.items():
            for first, rows in runs:
                if name not in self._own or first < 0 or rows.ndim != 1 or rows.dtype != self._own[name].dtype:
                    raise ValueError(f"a patch has rows {first} … of {rows.shape} {rows.dtype} for a table {name}")

    def _with_room(self, name: str, runs: Sequence[Run]) -> list[Run]:
        """Has room for what will be written to a table; returns what is there now."""
        own = self._own[name]
        needed = max(first + len(rows) for first, rows in runs)
        if needed > len(own):
            self._own[name] = lined_up(own, needed + needed // 4)
        return [(first, own[first : first + len(rows)].copy()) for first, rows in runs]


_NONE = np.zeros(0, np.int64)
