"""The tables of an algorithm that is compared with the plane's own, for all pools of a Fib.

Law: they follow from the members and weights of the Fib's pools; anchor's from those of the Fibs before it as well.
jump and anchor know no weights. A run that is not within its table picks nobody.
"""

from collections.abc import Iterator

import numpy as np

from kernels.jit import kernel
from kernels.layout import ANCHOR, BUCKET, INSIDE, JUMP, OUTSIDE, RENDEZVOUS, RING, RUN, SLOTS, Fib, Rival, freeze
from kernels.lb import hashing, maglev
from kernels.lb.consistent import anchor, jump, ring
from kernels.lb.hashing import reduce
from kernels.lb.select import at, rendezvous

WITHOUT_WEIGHTS = (JUMP, ANCHOR)

Name = tuple[object, ...]  # what tells a pool in one Fib from others also in the next

_NONE = np.uint32(0)


class Builder:
    """Makes the tables of one Fib after the other, whose frontends are the same.

    algorithm  one of ``layout.RIVALS``
    slots      maglev: the size of each ring, a prime
    """

    def __init__(self, algorithm: int, slots: int = maglev.SIZES[0]):
        self._algorithm = algorithm
        self._slots = slots
        self._anchors: dict[Name, anchor.Anchor] = {}

    def build(self, fib: Fib) -> Rival:
        """The tables for the pools of ``fib``, read-only. Raises ValueError for a number of slots that is no prime."""
        runs = np.zeros(len(fib.pools), RUN)
        points, owners = [np.zeros(0, np.uint32)], [np.zeros(0, np.uint32)]
        buckets = [np.zeros(0, BUCKET)]
        if self._algorithm == ANCHOR:
            self._anchor_all(fib, runs, owners, buckets)
        elif self._algorithm in (RING, SLOTS):
            self._lay(fib, runs, points, owners)
        tables = (runs, np.concatenate(points), np.concatenate(owners), np.concatenate(buckets))
        return Rival(self._algorithm, *map(freeze, tables))

    def _lay(self, fib: Fib, runs: np.ndarray, points: list[np.ndarray], owners: list[np.ndarray]) -> None:
        seeds = np.empty(len(fib.backends), np.uint64)
        hashing.endpoint_seeds(fib.backends, seeds)
        first = 0
        for pool in np.flatnonzero(fib.pools["members"]).tolist():
            members, weights = _members(fib, pool), _weights(fib, pool)
            if self._algorithm == RING:
                places, indices = ring.build(seeds[members], weights)
                points.append(places)
            else:
                indices = maglev.build(seeds[members], weights, self._slots)
            owners.append(members[indices])
            runs[pool] = (first, len(indices))
            first += len(indices)

    def _anchor_all(self, fib: Fib, runs: np.ndarray, owners: list[np.ndarray], buckets: list[np.ndarray]) -> None:
        first = 0
        for pool, name in _names_of_pools(fib).items():
            if fib.pools[pool]["members"]:
                held = self._anchor(name, _members(fib, pool).tolist())
                owners.append(held.owners.copy())
                buckets.append(held.buckets.copy())
                runs[pool] = (first, len(held.owners))
                first += len(held.owners)

    def _anchor(self, name: Name, members: list[int]) -> anchor.Anchor:
        """The pool's anchor with these members; a new one, of other buckets, where they have outgrown it."""
        held = self._anchors.get(name)
        if held is None or not held.update(members):
            held = self._anchors[name] = anchor.Anchor(members, anchor.SPARE * len(members))
        return held


def _members(fib: Fib, pool: int) -> np.ndarray:
    row = fib.pools[pool]
    return fib.members[int(row["first_member"]) :][: int(row["members"])]


def _weights(fib: Fib, pool: int) -> np.ndarray:
    row = fib.pools[pool]
    return fib.weights[int(row["first_member"]) :][: int(row["members"])]


def _names_of_pools(fib: Fib) -> dict[int, Name]:
    """What tells a pool in one Fib from others also in the next, where it may be another row: who uses it first."""
    names: dict[int, Name] = {}
    for pool, name in _uses(fib):
        names.setdefault(pool, name)
    return names


def _uses(fib: Fib) -> Iterator[tuple[int, Name]]:
    nodes = int(max(fib.frontends["node"].max(), fib.sources["node"].max(initial=0)))
    addresses = fib.frontends[["ip", "port", "proto"]][1:].tolist()
    for frontend, reached in zip(fib.frontends[1:], addresses, strict=True):
        for side, flag in (("inside", INSIDE), ("outside", OUTSIDE)):
            for node in range(1 + (nodes if frontend["by_node"] & flag else 0)):
                yield int(frontend[side]) + node, (*reached, flag, node)


@kernel
def pick(fib, rival, pool, key):
    """The backend id, uint32, that a pool of ``fib`` gives a new flow of hash ``key`` by ``rival``; 0 for none."""
    row = fib.pools[pool]
    if rival.algorithm == RENDEZVOUS:
        return rendezvous(fib, pool, key)
    if rival.algorithm == JUMP:
        if row["members"] == 0:
            return _NONE
        return at(fib.members, row["first_member"], row["members"], jump.bucket(key, np.int64(row["members"])))
    if pool >= rival.runs.size:
        return _NONE
    run = rival.runs[pool]
    first, count = np.int64(run["first"]), np.int64(run["count"])
    if count == 0 or first + count > rival.owners.size:
        return _NONE
    if rival.algorithm == SLOTS:
        return at(rival.owners, run["first"], run["count"], reduce(key, count))
    if rival.algorithm == RING and first + count <= rival.points.size:
        return rival.owners[ring.next_point(rival.points, first, count, key)]
    if rival.algorithm == ANCHOR and first + count <= rival.buckets.size:
        return at(rival.owners, run["first"], run["count"], anchor.bucket(rival.buckets, first, count, key))
    return _NONE
