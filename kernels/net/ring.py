"""A queue of row numbers in a fixed array. The owner puts no row in twice, so it can't run full."""

import numpy as np

from kernels.jit import kernel
from kernels.layout import Ring


def create(rows: int) -> Ring:
    """An empty ring for row numbers below ``rows``."""
    return Ring(np.zeros(1 << (rows - 1).bit_length(), np.uint32), np.zeros(2, np.int64))


@kernel
def size(ring):
    return ring.ends[1] - ring.ends[0]


@kernel
def put(ring, row):
    ring.slots[ring.ends[1] & (ring.slots.size - 1)] = row
    ring.ends[1] += 1


@kernel
def take(ring):
    """The row that has waited longest; the ring must not be empty."""
    row = ring.slots[ring.ends[0] & (ring.slots.size - 1)]
    ring.ends[0] += 1
    return np.int64(row)
