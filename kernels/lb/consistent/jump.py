"""Jump consistent hash (Lamping, Veach: "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014, figure 1).

Law: no table at all. Buckets are the numbers below ``buckets``, so only the last can go without others moving, and all
weigh the same.
"""

import numpy as np

from kernels.jit import kernel

_MULTIPLIER = np.uint64(2862933555777941757)
_1 = np.uint64(1)
_33 = np.uint64(33)


@kernel
def bucket(key, buckets):
    """The bucket of a key, int64, of ``buckets`` ≥ 1."""
    chosen, jumped = np.int64(-1), np.int64(0)
    while jumped < buckets:
        chosen = jumped
        key = key * _MULTIPLIER + _1
        jumped = np.int64((chosen + 1) * (2147483648.0 / np.float64((key >> _33) + _1)))
    return chosen
