"""The pools of a Fib while it is built.

Law: equal pools of one owner are one row, whatever number of frontends they serve, so that turns are taken together;
pools of equal members share a run of members, those that hash share a ring. There is no ring where nothing hashes.
"""

import math
from collections.abc import Sequence

import numpy as np

from kernels.layout import MAGLEV, MH, POOL, REJECT, freeze
from kernels.lb.maglev import table_size
from kernels.lb.rings import Rings

HASHING = (MAGLEV, MH)


class Pools:
    """Collects pools over BACKEND[B+1].

    slots  the size of rings, None for what follows from their endpoints
    rings  where rings are had from; each ring of these pools is held there once for each pool
    """

    def __init__(self, backends: np.ndarray, slots: int | None = None, rings: Rings | None = None):
        self._backends = backends
        self._slots = slots
        self._rings = Rings() if rings is None else rings
        self.rows: list[tuple[int, ...]] = []  # of POOL from row 1 on
        self.held: list[int] = []  # the first slots of rings that are held for them
        self.members: list[int] = []
        self.weights: list[int] = []
        self._known: dict[tuple[object, ...], int] = {}
        self._runs: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}

    def add(self, owner: object, *choices: tuple[int, Sequence[int], Sequence[int], int], slow_start_s: int = 0) -> int:
        """The row of the first of these pools, each (algorithm, backend ids, weights, outcome where there are none).

        Several pools stand in consecutive rows, as those of nodes 0, 1, 2, … do. Members of weight 0 are left out.
        """
        wanted = tuple(_usable(*choice) for choice in choices)
        key = (owner, wanted, slow_start_s)
        if key not in self._known:
            self._known[key] = len(self.rows) + 1
            self.rows += [(*self._row(*each), slow_start_s) for each in wanted]
        return self._known[key]

    def tables(self) -> dict[str, np.ndarray]:
        """``pools, members, weights, rings, ring_of`` of the Fib, read-only."""
        pools = np.array([tuple(np.zeros((), POOL).item()), *self.rows], POOL)
        members, weights = np.array(self.members, np.uint32), np.array(self.weights, np.uint16)
        tables = {"pools": pools, "members": members, "weights": weights}
        tables |= {"rings": self._rings.table.rows.copy(), "ring_of": ring_of(pools)}
        return {name: freeze(table) for name, table in tables.items()}

    def _row(self, algorithm: int, ids: tuple[int, ...], weights: tuple[int, ...], otherwise: int) -> tuple[int, ...]:
        first = self._runs.get((ids, weights))
        if first is None:
            first = self._runs[ids, weights] = len(self.members)
            self.members += ids
            self.weights += weights
        ring = self._ring(ids, weights) if algorithm in HASHING and ids else (0, 0)
        heaviest, step = max(weights, default=0), math.gcd(*weights)
        return first, len(ids), *ring, sum(weights), heaviest, step, algorithm, otherwise

    def _ring(self, ids: tuple[int, ...], weights: tuple[int, ...]) -> tuple[int, int]:
        """First slot and number of slots."""
        numbers, slots = np.array(ids, np.uint32), self._slots or table_size(len(ids))
        self.held.append(self._rings.hold(numbers, np.array(weights, np.uint16), self._backends[numbers], slots))
        return self.held[-1], slots


def ring_of(pools: np.ndarray) -> np.ndarray:
    """``Fib.ring_of`` for these rows of POOL."""
    rings = pools["first_slot"].astype(np.uint64) << np.uint64(32) | pools["slots"]
    return np.where(pools["algorithm"] == MAGLEV, rings, np.uint64(0))


def _usable(
    algorithm: int, ids: Sequence[int], weights: Sequence[int], otherwise: int = REJECT
) -> tuple[int, tuple[int, ...], tuple[int, ...], int]:
    if all(weights):
        return algorithm, tuple(ids), tuple(weights), otherwise
    kept = [(number, weight) for number, weight in zip(ids, weights, strict=True) if weight > 0]
    return algorithm, tuple(number for number, _ in kept), tuple(weight for _, weight in kept), otherwise
