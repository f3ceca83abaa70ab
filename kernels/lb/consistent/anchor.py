"""AnchorHash (Mendelson, Vargaftik, Barabash, Lorenz, Keslassy, Orda: "AnchorHash: A Scalable Consistent Hash",
IEEE/ACM Transactions on Networking 29(2), 2021, algorithm 3).

Law: there are more buckets than endpoints, and which ones are in use follows from what came and went before. Of a
bucket that is in use, ``left`` is 0; of another it is how many were in use once it had left, and ``successor`` is the
bucket that took its place among them. Buckets come back in the reverse of the order in which they left. All weigh the
same.
"""

from collections.abc import Collection

import numpy as np

from kernels.jit import kernel
from kernels.layout import BUCKET
from kernels.lb.hashing import GOLDEN, mix64, reduce

SPARE = 2  # so many times the buckets that are used at first: what the paper has for sets that may double


class Anchor:
    """The buckets of one pool over time: whoever is in it has one. Names are ids of backends."""

    def __init__(self, names: Collection[int], capacity: int):
        if not 0 < len(names) <= capacity:
            raise ValueError(f"{len(names)} endpoints do not begin in an anchor of {capacity}: 1 to {capacity} do")
        self.buckets = np.zeros(capacity, BUCKET)
        self.owners = np.zeros(capacity, np.uint32)
        self._used = np.arange(capacity)  # the paper's W: which bucket is at each place; those in use come first
        self._places = np.arange(capacity)  # its L: where each bucket is, or was when it left
        self._count = capacity
        self._left: list[int] = []
        self._bucket_of: dict[int, int] = {}
        self.buckets["successor"] = np.arange(capacity)
        for bucket in range(capacity - 1, len(names) - 1, -1):
            self._remove(bucket)
        for bucket, name in enumerate(names):
            self._give(bucket, name)

    @property
    def names(self) -> Collection[int]:
        return self._bucket_of.keys()

    def update(self, names: Collection[int]) -> bool:
        """Has exactly these names; False, and nothing changes, where it has no room for them or would have none left.

        Those that are gone leave before others come, so that what comes takes the place of what went.
        """
        if not 0 < len(names) <= len(self.buckets):
            return False
        kept = set(names)
        for name in [name for name in self._bucket_of if name not in kept]:
            if self._count == 1:  # the last one: its bucket goes to another name
                break
            self._remove(self._bucket_of.pop(name))
        gone = [name for name in self._bucket_of if name not in kept]
        for name in names:
            if name not in self._bucket_of:
                self._give(self._bucket_of.pop(gone.pop()) if gone else self._add(), name)
        return True

    def _give(self, bucket: int, name: int) -> None:
        self._bucket_of[name] = bucket
        self.owners[bucket] = name

    def _remove(self, bucket: int) -> None:
        self._left.append(bucket)
        self._count -= 1
        last, place = self._used[self._count], self._places[bucket]
        self.buckets[bucket] = (self._count, last)
        self._used[place] = last
        self._places[last] = place
        self.owners[bucket] = 0

    def _add(self) -> int:
        bucket = self._left.pop()
        last = self._used[self._count]
        self.buckets[bucket] = (0, bucket)
        self._places[last] = self._count
        self._used[self._places[bucket]] = bucket
        self._count += 1
        return bucket


@kernel
def bucket(buckets, first, count, key):
    """The bucket in use that a key falls to, of buckets[first : first + count]: int64 from 0 on; -1 for none."""
    chosen = reduce(key, count)
    for _ in range(count):  # ends sooner: ``left`` comes down with each turn
        left = np.int64(buckets[first + chosen]["left"])
        if left == 0:
            return chosen
        other = reduce(mix64(key + np.uint64(chosen + 1) * GOLDEN), left)
        for _ in range(count):
            if np.int64(buckets[first + other]["left"]) < left:
                break
            other = np.int64(buckets[first + other]["successor"])
            if other >= count:
                return np.int64(-1)
        chosen = other
    return np.int64(-1)
