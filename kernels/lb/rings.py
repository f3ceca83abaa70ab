"""The rings of a Fib.

Law: a ring follows from its endpoints and their weights. It is built when it is first held, and there is one of it for
all who hold it, in one place until nobody does.
"""

import numpy as np

from kernels.layout import freeze
from kernels.lb import hashing, maglev
from kernels.lb.tables import Place, Rooms, Table


class Rings:
    """Rings in a table of slots."""

    def __init__(self) -> None:
        self.table = Table(np.dtype(np.uint32))
        self._rooms = Rooms()
        self._places: dict[bytes, Place] = {}  # by what a ring follows from
        self._holders: dict[int, tuple[bytes, int]] = {}  # the same, and how many hold it, by first slot

    def hold(self, ids: np.ndarray, weights: np.ndarray, endpoints: np.ndarray, slots: int) -> int:
        """The first slot of the ring of these backends, which has one holder more from here on.

        ids, weights  uint32[n] and uint16[n]; at least one, no weight is 0
        endpoints     BACKEND[n], of which address, port and protocol count
        slots         the ring's size
        """
        seeds = np.empty(len(ids), np.uint64)
        hashing.endpoint_seeds(freeze(endpoints), seeds)
        order = ids.argsort(kind="stable")
        key = slots.to_bytes(4) + ids[order].tobytes() + weights[order].tobytes() + seeds[order].tobytes()
        if (place := self._places.get(key)) is None:
            place = self._places[key] = self._rooms.lend(slots)
            self.table.lengthen(place.first + place.room)
            maglev.build(seeds, weights, slots, ids, self.table.fresh(place.first, slots))
        self._holders[place.first] = key, self._holders.get(place.first, (key, 0))[1] + 1
        return place.first

    def release(self, first: int) -> None:
        """One holder less of the ring that begins at this slot."""
        key, holders = self._holders.pop(first)
        if holders > 1:
            self._holders[first] = key, holders - 1
        else:
            self._rooms.give_back(self._places.pop(key))
