"""The tables that follow from Services, each of which has a part of them.

Law: in a part, rows of pools, members and ranges are counted from the part's own beginning; where it lies is added when
it is put there. It stays there for as long as it has room, so the rows of what did not change stay what they are. A row
of ``frontends`` that is nobody's is zeros, and protocol 0 is no frontend; rows of other tables that are nobody's may
hold anything.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kernels.layout import FRONTEND, POOL, RANGE
from kernels.lb.pools import ring_of
from kernels.lb.tables import NOWHERE, Place, Rooms, Table


class Part(NamedTuple):
    """Rows of the tables of one Service, as tuples and numbers.

    frontends  of FRONTEND; ``inside`` and ``outside`` are 1 for the part's first pool, ``first_range`` is 0 for its
               first range
    pools      of POOL; ``first_member`` is 0 for the part's first member
    members, weights, ranges
    """

    frontends: Sequence[tuple[Any, ...]] = ()
    pools: Sequence[tuple[Any, ...]] = ()
    members: Sequence[int] = ()
    weights: Sequence[int] = ()
    ranges: Sequence[tuple[Any, ...]] = ()


class Placed(NamedTuple):
    """Where the rows of a part lie."""

    frontends: Place = NOWHERE
    pools: Place = NOWHERE
    members: Place = NOWHERE  # and weights
    ranges: Place = NOWHERE


class Parts:
    """Parts in their places. ``frontend`` and ``range`` are the rows of those tables, which differ by family."""

    def __init__(self, frontend: np.dtype = FRONTEND, range: np.dtype = RANGE) -> None:
        self.frontends, self.pools = Table(frontend, 1), Table(POOL, 1)
        self.members, self.weights = Table(np.dtype(np.uint32)), Table(np.dtype(np.uint16))
        self.ranges, self.ring_of = Table(range), Table(np.dtype(np.uint64), 1)
        self._rooms = Rooms(1), Rooms(1), Rooms(), Rooms()

    def put(self, part: Part, before: Placed) -> Placed:
        """Puts a part where the one before it lay, or else where there is room. An empty part lies nowhere."""
        counts = len(part.frontends), len(part.pools), len(part.members), len(part.ranges)
        rooms = zip(self._rooms, before, counts, strict=True)
        placed = Placed(*(room.moved(place, count) for room, place, count in rooms))
        if before.frontends.room and placed.frontends != before.frontends:
            self.frontends.write(before.frontends.first, np.zeros(before.frontends.room, self.frontends.rows.dtype))
        frontends: np.ndarray = np.zeros(
            placed.frontends.room, self.frontends.rows.dtype
        )  # to its end, beyond what it holds
        own = frontends[: counts[0]]
        own[:] = np.array(list(part.frontends), own.dtype)
        for side in ("inside", "outside"):
            own[side] += np.uint32(max(placed.pools.first, 1) - 1)  # an empty part has no first one
        own["first_range"] += np.uint32(placed.ranges.first)
        pools = np.array(list(part.pools), POOL)
        pools["first_member"] += np.uint32(placed.members.first)
        _put(self.frontends, placed.frontends, frontends)
        _put(self.pools, placed.pools, pools)
        _put(self.ring_of, placed.pools, ring_of(pools))
        _put(self.members, placed.members, np.array(part.members, np.uint32))
        _put(self.weights, placed.members, np.array(part.weights, np.uint16))
        _put(self.ranges, placed.ranges, np.array(list(part.ranges), self.ranges.rows.dtype))
        return placed


def _put(table: Table, place: Place, rows: np.ndarray) -> None:
    table.lengthen(place.first + place.room)
    table.write(place.first, rows)
