"""Which frontend a destination is: a hash table from (VIP, port, protocol) to a row of ``Fib.frontends``.

Law: open addressing with linear probing, at most half full, built anew when what is looked up changes; 0 ends a search,
because row 0 is no frontend. A hash says where to look, and the whole address is compared there, of IPv6 all 128 bits.
"""

from collections.abc import Collection

import numpy as np

from kernels.jit import kernel
from kernels.layout import freeze
from kernels.lb.families import same
from kernels.lb.hashing import frontend_hash


def build_index(frontends: np.ndarray, shadowed: Collection[int] = ()) -> np.ndarray:
    """The read-only index of FRONTEND[F+1] or FRONTEND6[F+1], whose row 0 is none: uint32[power of two ≥ 2·F].

    Rows without a protocol are no frontends, and those that are ``shadowed`` are not found. Of others with the same
    address, port and protocol the first is.
    """
    rows = max(len(frontends) - 1, 1)
    index = np.zeros(1 << (2 * rows - 1).bit_length(), np.uint32)
    found = frontends["proto"] != 0
    found[list(shadowed)] = False
    place(freeze(frontends[:]), np.flatnonzero(found), index)
    return freeze(index)


@kernel
def place(frontends, rows, index):
    mask = np.uint64(index.size - 1)
    for row in rows:
        frontend = frontends[row]
        at = frontend_hash(frontend["ip"], frontend["port"], frontend["proto"]) & mask
        while index[at] != 0:  # ends: the index is at most half full
            at = (at + np.uint64(1)) & mask
        index[at] = row


@kernel
def home(index, ip, port, proto):
    """The slot of the index, uint64, at which the search for an address begins."""
    return frontend_hash(ip, port, proto) & np.uint64(index.size - 1)


@kernel
def find_frontend(fib, ip, port, proto):
    """The row of the frontend with this address, port and protocol, int64; 0 where there is none."""
    return find_from(fib, home(fib.frontend_index, ip, port, proto), ip, port, proto)


@kernel
def find_from(fib, at, ip, port, proto):
    """``find_frontend`` of an address whose ``home`` is ``at``."""
    index = fib.frontend_index
    frontends = fib.frontends
    mask = np.uint64(index.size - 1)
    for _ in range(index.size):
        row = index[at]
        if row == 0 or row >= frontends.size:
            return np.int64(0)
        frontend = frontends[row]
        if same(frontend["ip"], ip) and frontend["port"] == port and frontend["proto"] == proto:
            return np.int64(row)
        at = (at + np.uint64(1)) & mask
    return np.int64(0)
