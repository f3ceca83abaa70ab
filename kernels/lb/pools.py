"""The pools of a Fib while it is built.

Law: equal pools of one owner are one row, whatever number of frontends they serve, so that turns are taken together;
pools of equal members share a run of members, those that hash share a ring. There is no ring where nothing hashes.
"""

import math
from collections.abc import Sequence

import numpy as np

from kernels.layout import MAGLEV, MH, POOL, REJECT, freeze
from kernels.lb import hashing, maglev

HASHING = (MAGLEV, MH)


class Pools:
    """Collects pools over BACKEND[B+1]. ``slots``: the size of rings, None for what follows from their endpoints."""

    def __init__(self, backends: np.ndarray, slots: int | None = None):
        self._seeds = np.zeros(len(backends), np.uint64)
        hashing.endpoint_seeds(freeze(backends), self._seeds)
        self._slots = slots
        self._rows: list[tuple[int, ...]] = [tuple(np.zeros((), POOL).item())]
        self._known: dict[tuple[object, ...], int] = {}
        self._runs: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        self._rings: dict[tuple[tuple[int, int], ...], tuple[int, int]] = {}
        self._members: list[int] = []
        self._weights: list[int] = []
        self._slot_parts: list[np.ndarray] = []
        self._slot_count = 0

    def add(self, owner: object, *choices: tuple[int, Sequence[int], Sequence[int], int], slow_start_s: int = 0) -> int:
        """The row of the first of these pools, each (algorithm, backend ids, weights, outcome where there are none).

        Several pools stand in consecutive rows, as those of nodes 0, 1, 2, … do. Members of weight 0 are left out.
        """
        wanted = tuple(_usable(*choice) for choice in choices)
        key = (owner, wanted, slow_start_s)
        if key not in self._known:
            self._known[key] = len(self._rows)
            self._rows += [(*self._row(*each), slow_start_s) for each in wanted]
        return self._known[key]

    def tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """``pools, members, weights, rings`` of the Fib, read-only."""
        rings = np.concatenate([np.zeros(0, np.uint32), *self._slot_parts])
        return (
            freeze(np.array(self._rows, POOL)),
            freeze(np.array(self._members, np.uint32)),
            freeze(np.array(self._weights, np.uint16)),
            freeze(rings),
        )

    def _row(self, algorithm: int, ids: tuple[int, ...], weights: tuple[int, ...], otherwise: int) -> tuple[int, ...]:
        first = self._runs.get((ids, weights))
        if first is None:
            first = self._runs[ids, weights] = len(self._members)
            self._members += ids
            self._weights += weights
        first_slot, slots = self._ring(ids, weights) if algorithm in HASHING and ids else (0, 0)
        heaviest, step = max(weights, default=0), math.gcd(*weights)
        return first, len(ids), first_slot, slots, sum(weights), heaviest, step, algorithm, otherwise

    def _ring(self, ids: tuple[int, ...], weights: tuple[int, ...]) -> tuple[int, int]:
        members = tuple(sorted(zip(ids, weights, strict=True)))
        if members not in self._rings:
            numbers = np.array(ids, np.uint32)
            size = self._slots or maglev.table_size(len(ids))
            ring = numbers[maglev.build(self._seeds[numbers], np.array(weights, np.uint16), size)]
            self._slot_parts.append(ring)
            self._rings[members] = self._slot_count, len(ring)
            self._slot_count += len(ring)
        return self._rings[members]


def _usable(
    algorithm: int, ids: Sequence[int], weights: Sequence[int], otherwise: int = REJECT
) -> tuple[int, tuple[int, ...], tuple[int, ...], int]:
    kept = [(number, weight) for number, weight in zip(ids, weights, strict=True) if weight > 0]
    return algorithm, tuple(number for number, _ in kept), tuple(weight for _, weight in kept), otherwise
