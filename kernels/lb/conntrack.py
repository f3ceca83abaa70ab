"""Which backend a live flow has: a hash table of fixed size, keyed by the 64-bit flow hash.

Law: linear probing in which a flow is at most ``NEIGHBOURHOOD`` entries from where its hash points and no entry between
is empty, so a search ends at the first empty one. An insert takes an empty or an expired entry of the neighbourhood;
where there is none, or three quarters of all entries are held, it is refused and counted: a live flow is never
overwritten. Removal shifts later entries back (Knuth, TAOCP 3, 6.4, algorithm R), so that no tombstones pile up.
Expired flows are not found; each insert looks at ``SWEPT`` more entries in passing and frees those that have expired.
"""

import numpy as np

from kernels.jit import kernel
from kernels.layout import TRACK, Conntrack

NEIGHBOURHOOD = 64
SWEPT = 4

# Places in Conntrack.counts.
HELD = 0
REFUSED = 1
CURSOR = 2

_NO_KEY = np.uint64(0)
_1 = np.uint64(1)


def create(capacity: int) -> Conntrack:
    """An empty table in which ``capacity`` flows have room at half load; capacity 0 is a table that holds nothing."""
    size = 1 << (2 * capacity - 1).bit_length() if capacity > 0 else 0
    return Conntrack(np.zeros(size, TRACK), np.zeros(3, np.int64))


@kernel
def home(entries, key):
    """The entry that a hash points to: uint64, the hash modulo the size of the table, which must not be 0."""
    return np.uint64(key) & (np.uint64(entries.size) - _1)


@kernel
def find(conntrack, key, now_ns):
    """The entry of a live flow, int64, good until the next insert or remove; -1 where there is none."""
    entries = conntrack.entries
    at = home(entries, key)
    for _ in range(min(NEIGHBOURHOOD, entries.size)):
        held = entries[at]["key"]
        if held == key:
            return np.int64(at) if entries[at]["expires_ns"] > now_ns else np.int64(-1)
        if held == _NO_KEY:
            return np.int64(-1)
        at = home(entries, at + _1)
    return np.int64(-1)


@kernel
def insert(conntrack, key, track, now_ns):
    """Remember a flow, or what has changed about it; False where it is refused.

    key    uint64 flow hash, not 0
    track  (expires_ns, backend, endpoint) of its entry, see ``layout.TRACK``
    """
    entries = conntrack.entries
    counts = conntrack.counts
    _sweep(conntrack, now_ns)
    at = home(entries, key)
    chosen = np.int64(-1)
    for _ in range(min(NEIGHBOURHOOD, entries.size)):
        held = entries[at]["key"]
        if held == key:
            chosen = np.int64(at)
            break
        if held == _NO_KEY:
            if chosen < 0 and counts[HELD] < entries.size - max(entries.size // 4, 1):
                chosen = np.int64(at)
            break
        if chosen < 0 and entries[at]["expires_ns"] <= now_ns:
            chosen = np.int64(at)
        at = home(entries, at + _1)
    if chosen < 0:
        counts[REFUSED] += 1
        return False
    entry = entries[chosen]
    if entry["key"] == _NO_KEY:
        counts[HELD] += 1
    entry["key"] = key
    entry["expires_ns"], entry["backend"], entry["endpoint"] = track
    return True


@kernel
def remove(conntrack, key):
    """Forget a flow, live or expired; False where it was not there."""
    entries = conntrack.entries
    at = home(entries, key)
    for _ in range(min(NEIGHBOURHOOD, entries.size)):
        held = entries[at]["key"]
        if held == key:
            _release(conntrack, at)
            return True
        if held == _NO_KEY:
            return False
        at = home(entries, at + _1)
    return False


@kernel
def _sweep(conntrack, now_ns):
    """Look at the next few entries and free those that have expired."""
    entries = conntrack.entries
    counts = conntrack.counts
    for _ in range(min(SWEPT, entries.size)):
        at = home(entries, np.uint64(counts[CURSOR]))
        if entries[at]["key"] != _NO_KEY and entries[at]["expires_ns"] <= now_ns:
            _release(conntrack, at)  # another may have come in its place: look here again
        else:
            counts[CURSOR] = np.int64(at + _1)


@kernel
def _release(conntrack, hole):
    """Empty an entry and close the gap: what stands behind it moves up, if its hash points no further than the gap."""
    entries = conntrack.entries
    at = hole
    for _ in range(entries.size):
        at = home(entries, at + _1)
        key = entries[at]["key"]
        if key == _NO_KEY:
            break
        if home(entries, at - key) >= home(entries, at - hole):  # distances, modulo the size
            entries[hole] = entries[at]
            hole = at
    entries[hole]["key"] = _NO_KEY
    conntrack.counts[HELD] -= 1
