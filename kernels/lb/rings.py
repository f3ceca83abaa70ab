"""The rings of a Fib from one compilation to the next.

Law: a ring follows from its endpoints and their weights. It is built when it is first held, and there is one of it for
all who hold it, until nobody does. ``rings`` of a Fib is made of them in the order in which pools come to hold them, so
that the same pools have the same bytes, however they came about.
"""

import numpy as np

from kernels.layout import freeze
from kernels.lb import hashing, maglev


class Rings:
    """Rings by number, from 1 on. A number that nobody holds is given again once the next ``lay`` is over."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}  # by what a ring follows from
        self._keys: list[bytes] = [b""]  # the same by number
        self._holders: list[int] = [0]
        self._left: set[int] = set()  # numbers that lost their last holder since the last ``lay``
        self._free: list[int] = []
        self._built: dict[int, np.ndarray] = {}  # rings that are not laid yet
        self._sizes = np.zeros(64, np.int64)  # by number
        self._places = np.zeros(64, np.int64)  # by number, in what is laid
        self._held = self._order = np.zeros(0, np.uint32)  # numbers by pool, and in the order in which they are laid
        self._laid = freeze(np.zeros(0, np.uint32))

    def hold(self, ids: np.ndarray, weights: np.ndarray, endpoints: np.ndarray, slots: int | None = None) -> int:
        """The number of the ring of these backends, which has one holder more from here on.

        ids, weights  uint32[n] and uint16[n]; at least one, no weight is 0
        endpoints     BACKEND[n], of which address, port and protocol count
        slots         the ring's size, None for what follows from n
        """
        seeds = np.empty(len(ids), np.uint64)
        hashing.endpoint_seeds(freeze(endpoints), seeds)
        size = slots or maglev.table_size(len(ids))
        order = np.argsort(ids, kind="stable")
        key = size.to_bytes(4) + b"".join(column[order].tobytes() for column in (ids, weights, seeds))
        number = self._numbers.get(key)
        if number is None:
            number = self._new(key, size)
            self._built[number] = ids[maglev.build(seeds, weights, size)]
        self._holders[number] += 1
        return number

    def _new(self, key: bytes, size: int) -> int:
        if self._free:
            number = self._free.pop()
            self._keys[number] = key
        else:
            number = len(self._keys)
            self._keys.append(key)
            self._holders.append(0)
            if number == len(self._sizes):
                self._sizes, self._places = np.resize(self._sizes, 2 * number), np.resize(self._places, 2 * number)
        self._numbers[key] = number
        self._sizes[number] = size
        return number

    def release(self, number: int) -> None:
        """One holder less; 0 is no ring and has none."""
        if number:
            self._holders[number] -= 1
            if not self._holders[number]:
                self._left.add(number)

    def lay(self, pools: np.ndarray, held: np.ndarray) -> np.ndarray:
        """``rings`` of the Fib, read-only; sets ``first_slot`` and ``slots`` of POOL[P+1].

        held  uint32[P+1]: the number of each pool's ring, 0 for none; every ring that is held is among them
        """
        if not np.array_equal(held, self._held):
            numbers, firsts = np.unique(held, return_index=True)
            order = numbers[np.argsort(firsts)]
            self._lay(order[order > 0])
            self._held = held
        pools["slots"] = self._sizes[held]
        pools["first_slot"] = np.where(held > 0, self._places[held], 0)
        for number in self._left:
            if not self._holders[number]:
                del self._numbers[self._keys[number]]
                self._built.pop(number, None)
                self._free.append(number)
        self._left.clear()
        return self._laid

    def _lay(self, order: np.ndarray) -> None:
        """Lays the rings in this order. What stands at both ends as before is copied at once, the rest ring by ring."""
        before = self._order
        head = _alike(order, before)
        tail = _alike(order[head:][::-1], before[head:][::-1])
        sizes = self._sizes[order]
        ends = np.cumsum(sizes)
        rings = [
            self._built[number] if number in self._built else self._laid[self._places[number] :][: self._sizes[number]]
            for number in order[head : len(order) - tail].tolist()
        ]
        first, last = int(sizes[:head].sum()), int(sizes[len(order) - tail :].sum())
        self._laid = freeze(np.concatenate([self._laid[:first], *rings, self._laid[self._laid.size - last :]]))
        self._places[order] = ends - sizes
        self._order = order
        self._built.clear()


def _alike(one: np.ndarray, other: np.ndarray) -> int:
    """How many elements two arrays have in common at the front."""
    count = min(len(one), len(other))
    differ = np.flatnonzero(one[:count] != other[:count])
    return int(differ[0]) if differ.size else count
