"""Consistent hashing on a circle (Karger et al., "Consistent hashing and random trees", STOC 1997), as ketama has it
(R. Jones, last.fm, 2007; libmemcached's MEMCACHED_DISTRIBUTION_CONSISTENT_KETAMA): many points for each endpoint, and a
flow goes to the next one.

Law: an endpoint's points follow from its seed and from how many they are: 160 at the mean weight, as in ketama. Their
places are the numbers of SplitMix64 with that seed, where ketama takes four out of each of forty MD5 digests.
"""

import numpy as np

from kernels.jit import kernel
from kernels.lb.hashing import GOLDEN, mix64

POINTS_PER_ENDPOINT = 160

_32 = np.uint64(32)


def build(seeds: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(points, owners)``, uint32 each: places on a circle of 2^32, ascending, and the index of whose they are.

    seeds    uint64[n], ``hashing.endpoint_seed`` of each
    weights  uint16[n], none of them 0
    """
    counts = point_counts(weights)
    owners = np.repeat(np.arange(len(seeds), dtype=np.uint32), counts)
    points = np.empty(len(owners), np.uint32)
    place(seeds, counts, points)
    order = np.lexsort((seeds[owners], points))  # what is left to the order listed makes no difference
    return points[order], owners[order]


def point_counts(weights: np.ndarray) -> np.ndarray:
    """How many points each endpoint has, int64[n]: by weight, 160 on average, at least one."""
    mean = weights.sum(dtype=np.float64) / max(len(weights), 1)
    return np.maximum(np.floor(POINTS_PER_ENDPOINT * weights.astype(np.float64) / mean).astype(np.int64), 1)


@kernel
def place(seeds, counts, points):
    at = 0
    for i in range(seeds.size):
        word = seeds[i]
        for _ in range(counts[i]):
            word += GOLDEN
            points[at] = mix64(word) >> _32
            at += 1


@kernel
def next_point(points, first, count, key):
    """The row of the first of points[first : first + count] not before the flow's place; count must not be 0."""
    place = np.uint32(key >> _32)
    low, high = first, first + count
    while low < high:
        middle = (low + high) // 2
        if points[middle] < place:
            low = middle + 1
        else:
            high = middle
    return low if low < first + count else first
