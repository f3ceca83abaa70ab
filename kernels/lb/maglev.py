"""Maglev's consistent hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI '16,
section 3.4), with weights.

Law: a ring follows from its endpoints' seeds and weights alone. Each endpoint has a permutation of the slots, and in
turn takes the first of its slots that is free. In which order the endpoints are listed does not matter: turns go by
seed. Weights are proportional: in each round an endpoint earns its weight, and takes a turn whenever it has earned the
largest weight of all, as in Katran's second version. It begins with half of that, which rounds its number of turns to
the nearest instead of down.
"""

import functools
import math

import numpy as np

from kernels.jit import LANES, kernel, modular_sum, part, unmarked, vectorised
from kernels.lb.hashing import GOLDEN, flow_hash, mix64, reduce

# Prime, so that every skip visits every slot; Cilium's sizes, from its default on. They are few, because nearly all
# flows move when a pool's ring gets another size.
SIZES = (16381, 32749, 65521, 131071)
SIZE_OF_ONE = 251  # where every slot is the same
SLOTS_PER_ENDPOINT = 100  # the paper's M ≥ 100·N: the busiest endpoint has about 1 % more than the mean
SIZE_LIMIT = 1 << 30  # the sum of two slots fits an int32

# An endpoint on its walk along the permutation of slots that follows from its seed: ``at`` is the next slot to look at,
# or for the last turns the one to look from; ``reach`` is as many skips as it looks ahead, modulo slots; those that it
# found free then are ``seen`` from ``next`` to ``end``. ``back`` is the inverse of the skip, for the last turns.
_WALK = np.dtype(
    [("seed", "u8"), ("weight", "i8"), ("earned", "i8"), ("back", "u8")]
    + [(name, "u4") for name in ("at", "skip", "reach", "next", "end")]
)
# A walk looks so many times the root of its share of slots ahead. The longer, the more turns share what looking costs,
# and the more of the slots found free are taken before their turn comes: best is in proportion to the root.
AHEAD = 3

_WORD = np.uint64(0xFFFFFFFFFFFFFFFF)
_0, _1, _LANES = (np.uint64(number) for number in (0, 1, LANES))
_INDEX = np.uint64((1 << 24) - 1)  # enough for the root of SIZE_LIMIT


def table_size(endpoints: int) -> int:
    """The smallest of SIZES with 100 slots for each endpoint, or the largest there is; few where there is no choice."""
    if endpoints <= 1:
        return SIZE_OF_ONE
    return next((size for size in SIZES if size >= SLOTS_PER_ENDPOINT * endpoints), SIZES[-1])


def build(
    seeds: np.ndarray, weights: np.ndarray, size: int, names: np.ndarray | None = None, ring: np.ndarray | None = None
) -> np.ndarray:
    """The ring of endpoints: uint32[size] of their ``names``; of no slots where no weight is above 0.

    seeds    uint64[n], ``hashing.endpoint_seed`` of each
    weights  uint16[n]; an endpoint of weight 0 is in no slot
    size     a prime below SIZE_LIMIT; the plane's are SIZES
    names    uint32[n]; None: indices into ``seeds``
    ring     uint32[size], contiguous, that is filled and returned; None: a new one is

    Raises ValueError for another size.
    """
    if not is_prime(size):
        raise ValueError(f"a Maglev table has a prime number of slots, such as one of {SIZES}, not {size}")
    # By seed, and of twins with one seed by weight: what is left to the order listed makes no difference.
    order = np.lexsort((weights, seeds))
    order = order[np.asarray(weights)[order] > 0]
    if not order.size:
        return np.empty(0, np.uint32)
    walks = np.zeros(order.size, _WALK)
    walks["seed"] = np.asarray(seeds)[order]
    walks["weight"] = np.asarray(weights)[order]
    if ring is None:
        ring = np.empty(size, np.uint32)
    takers = np.zeros(size + -size % LANES + LANES, np.min_scalar_type(order.size))
    takers[size:] = 1
    ahead = max(AHEAD * math.isqrt(size // order.size) // LANES, 1) * LANES
    seen = np.empty(order.size * (ahead + LANES), np.uint32)
    free = np.empty(math.isqrt(size) + LANES, np.uint32)
    populate(walks, order.astype(np.uint32) if names is None else names[order], takers, seen, free, ring)
    return ring


@functools.cache
def is_prime(number: int) -> bool:
    return 1 < number < SIZE_LIMIT and all(number % factor for factor in range(2, math.isqrt(number) + 1))


@kernel
def populate(walks, names, takers, seen, free, ring):
    """Fill ``ring`` with ``names``, one for each walk; at least one walk, all weights above 0.

    takers  uint8, uint16 or uint32[slots and at least LANES more, a multiple of LANES]: room for by which walk each is
            taken, counted from 1, which its numbers are wide enough for; 0 for each slot, 1 behind them
    seen    uint32[walks × a multiple of LANES]: room for the slots that each walk finds free ahead, and LANES more
    free    uint32[n]: room for a list of the last n - LANES slots that are free, less than all

    A walk looks at some slots ahead at once, which takes no branch, and lists those that are free; a turn then takes
    the first that still is. Looked at one by one, each turn would end where no processor can foresee it.

    The last slots would take the longest walks: over as many slots as there are for each that is free. From there on a
    turn takes the nearest of those instead, by which step of the walk each is: as many skips as lie between, modulo
    slots, which is a multiplication by the skip's inverse. That takes as long as they are many, so they are best listed
    when they are the root of all.
    """
    size, room, full = np.uint64(ring.size), np.uint64(seen.size // walks.size), np.int64(0)
    for i in range(walks.size):
        walk = walks[i]
        walk["at"] = mix64(walk["seed"]) % size
        walk["skip"] = mix64(walk["seed"] + GOLDEN) % (size - _1) + _1
        walk["reach"] = (room - _LANES) * walk["skip"] % size
        full = max(full, walk["weight"])
    is_alike = True
    for i in range(walks.size):
        walks[i]["earned"] = full // 2
        is_alike &= walks[i]["weight"] == full
    few = np.uint64(free.size) - _LANES
    if is_alike:
        i = _take_turns(walks, takers, seen, room, size, few, (full, True))
    else:
        i = _take_turns(walks, takers, seen, room, size, few, (full, False))
    whole = np.uint64(takers.size - LANES)
    unmarked(takers, _0, _1, whole, whole, free, _0)
    _take_last(walks, takers, seen, free, size, few, full, i)
    _write(takers, names, ring)


@kernel
def _take_turns(walks, takers, seen, room, size, few, weights):
    """Has walks take turns until ``few`` slots are free; whose turn is next. Compiled by itself for weights alike."""
    full, is_alike = weights
    left = size
    while True:
        for i in range(walks.size):
            walk = walks[i]
            if not is_alike and not _earns_turn(walk, full):
                continue
            slot = _next_free(walk, np.uint64(i) * room, room, takers, seen, size)
            takers[slot] = i + 1
            left -= _1
            if left == few:
                return i + 1


@kernel
def _earns_turn(walk, full):
    """Whether a walk has a turn in this round; adds what it earns, and takes off what a turn costs."""
    walk["earned"] += walk["weight"]
    if walk["earned"] < full:
        return False
    walk["earned"] -= full
    return True


@kernel
def _next_free(walk, first, room, takers, seen, size):
    """The first slot of a walk that is free; ``first`` is where in ``seen`` its own ``room`` begins."""
    while True:  # ends, and so does the inner one: the skip visits every slot, and one is free
        while walk["next"] == walk["end"]:
            walk["next"] = first
            walk["end"] = first + unmarked(takers, walk["at"], walk["skip"], size, room - _LANES, seen, first)
            walk["at"] = modular_sum(walk["at"], walk["reach"], size)
        slot = seen[walk["next"]]
        walk["next"] += _1
        if not takers[slot]:
            return slot


@part
def _take_last(walks, takers, seen, free, size, left, full, i):
    """Has walks from ``i`` on take turns at the first ``left`` slots of ``free``, whose order is lost."""
    while left > 0:
        i = i if i < walks.size else 0
        walk = walks[i]
        i += 1
        if not _earns_turn(walk, full):
            continue
        if walk["back"] == 0:  # its first turn here
            walk["back"] = _fraction(_inverse(walk["skip"], size), size)
            if walk["next"] < walk["end"]:
                walk["at"] = seen[walk["next"]]
        nearest = _nearest(free, left, walk["at"], walk["back"])
        slot = free[nearest]
        takers[slot] = i
        walk["at"] = slot
        left -= _1
        free[nearest] = free[left]


@vectorised
def _nearest(free, left, at, back):
    """Which of the first ``left`` slots of ``free``, at least one, a walk at slot ``at`` comes to first, uint64.

    A slot's step of the walk, as a fraction of 2^64, is what lies between times ``back``, the ``_fraction`` of the
    skip's inverse. That is less than ``size`` off, and steps are 2^64 / size apart: low bits have room for an index.
    """
    nearest = _WORD
    for k in range(left):
        nearest = min(nearest, ((np.uint64(free[k]) - at) * back & ~_INDEX) | k)
    return nearest & _INDEX


@vectorised
def _write(takers, names, ring):
    """The ring: of each slot the name of who took it."""
    for slot in range(ring.size):
        ring[slot] = names[np.uint64(takers[slot]) - _1]


@kernel
def _fraction(slot, size):
    """⌊slot · 2^64 / size⌋."""
    whole = _WORD // size
    return slot * whole + slot * (_WORD - whole * size + _1) // size


@kernel
def _inverse(number, size):
    """By what to multiply ``number`` for 1 modulo the prime ``size``: the extended Euclidean algorithm."""
    rest, next_rest, factor, next_factor = size, number, np.uint64(0), _1
    while next_rest > _1:
        whole = rest // next_rest
        rest, next_rest = next_rest, rest - whole * next_rest
        factor, next_factor = next_factor, factor - whole * next_factor
    return next_factor if next_factor < size else next_factor + size  # below 0 it has wrapped


@kernel
def steer(ring, flows, out):
    """The backend that a ring alone gives each flow of a batch: all that a stateless balancer does.

    ring  uint32[slots], at least one slot
    out   uint32[n], the value of each flow's slot; it lies apart from the others
    """
    _steer(ring, flows, out)


@vectorised
def _steer(ring, flows, out):
    for i in range(flows.proto.size):
        word = flow_hash(flows.src_ip[i], flows.dst_ip[i], flows.src_port[i], flows.dst_port[i], flows.proto[i])
        out[i] = ring[reduce(word, ring.size)]
