"""Which frontend a destination is: a hash table from (VIP, port, protocol) to a row of ``Fib.frontends``.

Law: open addressing with linear probing, at most a quarter full, built anew when what is looked up changes; an empty
slot ends a search. It begins with a cache line, of whose four slots all are compared without a branch that nobody can
foresee. Of an index as full as that one frontend in 230 is further on, where its flows wait for that branch and then
for the memory; where half of it is full it would be one in 25. A slot has the whole hash, which of IPv4 says all that
the address does; of IPv6 all 128 bits are compared in the frontend's row besides. It also has the pool, where all
clients have one, so that most flows ask the memory for nothing but their slot.
"""

from collections.abc import Collection

import numpy as np

from kernels.jit import among, by_family, kernel, part
from kernels.layout import INDEX, freeze
from kernels.lb.families import same
from kernels.lb.hashing import frontend_hash
from kernels.lb.tables import lined_up

TOGETHER = 4

# The fields of a frontend that a slot of the index follows from.
INDEXED = ("ip", "port", "proto", "by_node", "inside", "outside", "affinity", "ranges")

_1 = np.uint64(1)


def build_index(frontends: np.ndarray, shadowed: Collection[int] = ()) -> np.ndarray:
    """The read-only index of FRONTEND[F+1] or FRONTEND6[F+1], whose row 0 is none: INDEX[power of two ≥ 4·F].

    Rows without a protocol are no frontends, and those that are ``shadowed`` are not found. Of others with the same
    address, port and protocol the first is.
    """
    rows = max(len(frontends) - 1, 1)
    index = lined_up(np.zeros(0, INDEX), 1 << (TOGETHER * rows - 1).bit_length())
    found = frontends["proto"] != 0
    found[list(shadowed)] = False
    place(freeze(frontends[:]), np.flatnonzero(found), index)
    return freeze(index)


@kernel
def place(frontends, rows, index):
    mask = np.uint64(index.size - 1)
    for row in rows:
        frontend = frontends[row]
        key = frontend_hash(frontend["ip"], frontend["port"], frontend["proto"])
        at = home(index, key)
        while index[at]["row"] != 0:  # ends: the index is at most a quarter full
            at = (at + _1) & mask
        index[at]["key"] = key
        index[at]["row"] = row
        index[at]["pool"] = _pool_of_all(frontend)


@kernel
def _pool_of_all(frontend):
    """The pool that all flows to a frontend are picked from, uint32; 0 where that depends on the client."""
    by_client = frontend["by_node"] != 0 or frontend["inside"] != frontend["outside"] or frontend["ranges"] != 0
    return np.uint32(0) if by_client or frontend["affinity"] != 0 else frontend["inside"]


@kernel
def home(index, key):
    """The slot of the index, uint64, at which the search for a frontend of this hash begins."""
    return key & np.uint64(index.size - TOGETHER)


@kernel
def find_frontend(fib, ip, port, proto):
    """The row of the frontend with this address, port and protocol, int64; 0 where there is none."""
    return np.int64(find(fib, frontend_hash(ip, port, proto), ip)[0])


@kernel
def find(fib, key, ip):
    """(row, pool) of the frontend with this hash and address, uint32 both, as in INDEX; (0, 0) where there is none."""
    index, frontends = fib.frontend_index, fib.frontends
    first = home(index, key)
    i = among(index, first, key)
    if i < np.uint64(TOGETHER):
        slot = index[first + i]
        if slot["row"] < frontends.size and _is_at(ip, frontends, slot["row"]):
            return slot["row"], slot["pool"]
    return _search(index, frontends, key, ip)


@part
def _search(index, frontends, key, ip):
    """``find`` one after the other."""
    mask = np.uint64(index.size - 1)
    at = home(index, key)
    for _ in range(index.size):
        slot = index[at]
        row = slot["row"]
        if row == 0 or row >= frontends.size:
            break
        if slot["key"] == key and _is_at(ip, frontends, row):
            return row, slot["pool"]
        at = (at + _1) & mask
    return np.uint32(0), np.uint32(0)


@kernel
def _of_number(ip, frontends, row):
    return True


@kernel
def _of_row(ip, frontends, row):
    return same(frontends[row]["ip"], ip)


# (ip, frontends, row): whether the frontend in this row, whose hash is that of the address, has the address.
_is_at = by_family(_of_number, _of_row)
