"""Which backend a live flow has: a hash table of fixed size, keyed by the 64-bit flow hash.

Law: entries lie in buckets of four, each a cache line. A flow is in the bucket that its hash points to or, where that
is full, in one of the next ``NEIGHBOURHOOD``, and all between are full; so a search ends at the first that is not. An
insert takes an empty or an expired entry; where there is none, or seven eighths of all entries are held, it is refused
and counted: a live flow is never overwritten. Removal moves later entries back (Knuth, TAOCP 3, 6.4, algorithm R, by
buckets), so that no tombstones pile up. Expired flows are not found; each insert looks at ``SWEPT`` more entries in
passing and frees those that have expired.

An entry has 16 bytes, which bounds what it says. Time is in ticks of a second or so: a flow is remembered for up to a
tick longer than was asked for, for 104 days at most, and might be taken for live again if nothing were swept for as
long. The id of a backend has 24 bits, and of an endpoint's fingerprint there are 16.
"""

import numpy as np

from kernels.jit import among, inner, kernel, part
from kernels.layout import TRACK, Conntrack
from kernels.lb.tables import lined_up

BUCKET = 4
NEIGHBOURHOOD = 256
SWEPT = 4
BACKENDS = 1 << 24  # what has an id from here on is refused
TICK_NS = 1 << 30

# Places in Conntrack.counts.
HELD = 0
REFUSED = 1
CURSOR = 2

# TRACK["held"], from the low bits on: backend, endpoint, the tick in which the flow is forgotten.
_24, _40 = np.uint64(24), np.uint64(40)
_BITS_16, _BITS_24, _BITS_32, _BITS_40 = (np.uint64((1 << bits) - 1) for bits in (16, 24, 32, 40))
_AHEAD = 1 << 23  # a tick that is no further ahead than this is in the future

_NO_KEY = np.uint64(0)
_1 = np.uint64(1)
_2 = np.uint64(2)
_3 = np.uint64(3)
_4 = np.uint64(BUCKET)
_32 = np.uint64(32)


def create(capacity: int) -> Conntrack:
    """An empty table in which ``capacity`` flows have room, which fill two thirds of it; 0: one that holds nothing."""
    size = BUCKET * -(-3 * capacity // (2 * BUCKET))  # 24 bytes a flow, of which one in eleven is in a further bucket
    return Conntrack(lined_up(np.zeros(0, TRACK), size), np.zeros(3, np.int64))


def rows(conntrack: Conntrack, now_ns: int) -> dict[str, np.ndarray]:
    """Columns key, expires_ns, backend and endpoint of all that is held, in its order; ``now_ns`` is about when."""
    held = conntrack.entries[conntrack.entries["key"] != _NO_KEY]
    now = now_ns // TICK_NS
    ticks = (held["held"] >> _40).astype(np.int64) - now & int(_BITS_24)
    ticks = now + np.where(ticks <= _AHEAD, ticks, ticks - 2 * _AHEAD)
    return {
        "key": held["key"].copy(),
        "expires_ns": ticks * TICK_NS,
        "backend": (held["held"] & _BITS_24).astype(np.uint32),
        "endpoint": (held["held"] >> _24 & _BITS_16).astype(np.uint32),
    }


@kernel
def backend_of(held):
    """The id of a backend, uint32, that an entry's ``held`` says."""
    return np.uint32(held & _BITS_24)


@kernel
def endpoint_of(held):
    """The low 16 bits of an endpoint's fingerprint, uint32, that an entry's ``held`` says."""
    return np.uint32((held >> _24) & _BITS_16)


@kernel
def is_of(held, endpoint):
    """Whether an entry's ``held`` was made for an endpoint of this fingerprint, uint32."""
    return endpoint_of(held) == np.uint32(np.uint64(endpoint) & _BITS_16)


@kernel
def until(held, expires_ns, now_ns):
    """An entry's ``held`` that is forgotten then, in the first tick that does not begin before."""
    now = np.int64(now_ns) // TICK_NS
    tick = min((np.int64(expires_ns) + (TICK_NS - 1)) // TICK_NS, now + _AHEAD)
    return (held & _BITS_40) | (np.uint64(tick) << _40)


@kernel
def holding(backend, endpoint):
    """An entry's ``held`` for a backend and an endpoint's fingerprint, uint32 both, that says no time yet."""
    return (np.uint64(endpoint) & _BITS_16) << _24 | np.uint64(backend)


@kernel
def is_live(held, now_ns):
    """Whether its tick is one of the ``_AHEAD`` that come next."""
    ahead = ((held >> _40) - np.uint64(np.int64(now_ns) // TICK_NS) - _1) & _BITS_24
    return ahead < np.uint64(_AHEAD)


@kernel
def home(entries, key):
    """The first entry, uint64, of the bucket that a hash points to, by its low 32 bits; the table must have one."""
    buckets = np.uint64(entries.size) // _4
    return (((key & _BITS_32) * buckets) >> _32) * _4


@kernel
def following(entries, first):
    """The first entry of the bucket behind that of ``first``."""
    return first + _4 if first + _4 < np.uint64(entries.size) else np.uint64(0)


@kernel
def _distance(entries, one, other):
    """From one entry's bucket on to another's, in entries; ``one`` and ``other`` are the first of theirs."""
    return other - one if other >= one else other + np.uint64(entries.size) - one


@kernel
def within(entries, first, key):
    """The first entry of a bucket that has this key, int64, 0 for one that is empty; -1 where none has."""
    i = among(entries, first, key)
    return np.int64(first + i) if i < _4 else np.int64(-1)


@kernel
def find(conntrack, key, now_ns):
    """The entry of a live flow, int64, good until the next insert or remove; -1 where there is none."""
    entries = conntrack.entries
    place = seek(entries, key)
    return place if place >= 0 and is_live(entries[place]["held"], now_ns) else np.int64(-1)


@kernel
def seek(entries, key):
    """The entry of a flow, live or expired, int64; -1 where there is none."""
    first = home(entries, key)
    for _ in range(min(NEIGHBOURHOOD, entries.size // BUCKET)):
        place = within(entries, first, key)
        if place >= 0:
            return place
        if within(entries, first, _NO_KEY) >= 0:
            break
        first = following(entries, first)
    return np.int64(-1)


@inner
def offset_in(entries, first, key):
    """(which entry of a bucket a flow has, counted from 0, and 0), or (0, 1) where it has none; uint64, no branch."""
    i = among(entries, first, key)
    return i & _3, i >> _2


@inner
def is_full(entries, first):
    """1 where a bucket has no empty entry, so that a search goes on behind it, else 0, uint64."""
    return among(entries, first, _NO_KEY) >> _2


@kernel
def insert(conntrack, key, track, now_ns):
    """Remember a flow, or what has changed about it; False where it is refused.

    key    uint64 flow hash, not 0
    track  (expires_ns, backend, endpoint), the last a fingerprint, uint32
    """
    entries = conntrack.entries
    counts = conntrack.counts
    expires_ns, backend, endpoint = track
    _sweep(conntrack, now_ns)
    chosen = _place_for(conntrack, key, now_ns) if np.uint64(backend) < np.uint64(BACKENDS) else np.int64(-1)
    if chosen < 0:
        counts[REFUSED] += 1
        return False
    entry = entries[chosen]
    if entry["key"] == _NO_KEY:
        counts[HELD] += 1
    entry["key"] = key
    entry["held"] = until(holding(backend, endpoint), expires_ns, now_ns)
    return True


@kernel
def _place_for(conntrack, key, now_ns):
    """The entry that a flow has, else one that it may have, int64; -1 where there is neither."""
    entries = conntrack.entries
    first = home(entries, key)
    chosen = np.int64(-1)
    for _ in range(min(NEIGHBOURHOOD, entries.size // BUCKET)):
        place = within(entries, first, key)
        if place >= 0:
            return place
        empty = within(entries, first, _NO_KEY)
        for i in range(first, first + _4):
            if chosen < 0 and entries[i]["key"] != _NO_KEY and not is_live(entries[i]["held"], now_ns):
                chosen = np.int64(i)
        if empty >= 0:
            if chosen < 0 and conntrack.counts[HELD] < entries.size - entries.size // 8:
                chosen = empty
            break
        first = following(entries, first)
    return chosen


@kernel
def remove(conntrack, key):
    """Forget a flow, live or expired; False where it was not there."""
    entries = conntrack.entries
    first = home(entries, key)
    for _ in range(min(NEIGHBOURHOOD, entries.size // BUCKET)):
        place = within(entries, first, key)
        if place >= 0:
            _release(conntrack, np.uint64(place))
            return True
        if within(entries, first, _NO_KEY) >= 0:
            return False
        first = following(entries, first)
    return False


@kernel
def _sweep(conntrack, now_ns):
    """Look at the next few entries and free those that have expired."""
    entries = conntrack.entries
    counts = conntrack.counts
    for _ in range(min(SWEPT, entries.size)):
        at = np.uint64(counts[CURSOR])
        if entries[at]["key"] != _NO_KEY and not is_live(entries[at]["held"], now_ns):
            _release(conntrack, at)  # another may have come in its place: look here again
        else:
            counts[CURSOR] = counts[CURSOR] + 1 if counts[CURSOR] + 1 < entries.size else 0


@part
def _release(conntrack, hole):
    """Empty an entry; where its bucket was full, one further on that may be there moves into it, and so on."""
    entries = conntrack.entries
    first = hole // _4 * _4
    for _ in range(entries.size // BUCKET):
        if within(entries, first, _NO_KEY) >= 0:
            break
        gap = hole // _4 * _4
        first = following(entries, first)
        for i in range(first, first + _4):
            key = entries[i]["key"]
            if key != _NO_KEY and _distance(entries, home(entries, key), first) >= _distance(entries, gap, first):
                entries[hole] = entries[i]
                hole = i
                break
    entries[hole]["key"] = _NO_KEY
    conntrack.counts[HELD] -= 1
