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

from kernels.jit import high_half, kernel, part, vectorised
from kernels.lb.hashing import GOLDEN, flow_hash, mix64, reduce

# Prime, so that every skip visits every slot; Cilium's sizes, from its default on. They are few, because nearly all
# flows move when a pool's ring gets another size.
SIZES = (16381, 32749, 65521, 131071)
SIZE_OF_ONE = 251  # where every slot is the same
SLOTS_PER_ENDPOINT = 100  # the paper's M ≥ 100·N: the busiest endpoint has about 1 % more than the mean

# An endpoint on its walk along the permutation of slots that follows from its seed. ``at``, ``skip`` and ``back`` are
# places, and a place is what ``_place`` makes of a slot; for the last turns ``at`` is a slot, and ``back`` is made.
_WALK = np.dtype([("seed", "u8"), ("weight", "i8"), ("earned", "i8"), ("at", "u8"), ("skip", "u8"), ("back", "u8")])
SIZE_LIMIT = 1 << 30  # of twice as many a walk's places could get out of their slots
# Where one slot in so many is free, and not more than so many times the root of all, those that are get listed: a turn
# then takes as long as the list is, where it would walk over as many slots as there are for each that is free.
SPARSE, ROOTS = 64, 3
TOGETHER = 16  # so many bytes of ``taken`` are looked at as one

_WORD = np.uint64(0xFFFFFFFFFFFFFFFF)
_1, _2, _3, _4 = (np.uint64(number) for number in range(1, 5))
_INDEX = np.uint64((1 << 24) - 1)  # enough for all that are listed of SIZE_LIMIT slots


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
    taken = np.zeros(size + -size % TOGETHER, np.uint8)
    taken[size:] = 1
    free = np.empty(min(size // SPARSE, ROOTS * math.isqrt(size)) + 1, np.uint64)
    populate(walks, order.astype(np.uint32) if names is None else names[order], taken, free, ring)
    return ring


@functools.cache
def is_prime(number: int) -> bool:
    return 1 < number < SIZE_LIMIT and all(number % factor for factor in range(2, math.isqrt(number) + 1))


@kernel
def _place(slot, size):
    """⌊slot · 2^64 / size⌋: a fraction of the circle, on which going round is the overflow of 64 bits."""
    whole = _WORD // size
    return slot * whole + slot * (_WORD - whole * size + _1) // size


@kernel
def _slot(place, size):
    """The slot that a place is in."""
    return high_half(place, size)


@kernel
def populate(walks, names, taken, free, ring):
    """Fill ``ring`` with ``names``, one for each walk; at least one walk, all weights above 0.

    taken  uint8[a multiple of TOGETHER, at least slots]: room for which slots are; 0 for each slot, 1 behind them
    free   uint64[one more than are listed]: room for a list of those that are not

    A walk goes by places: a step is then one addition, and which slots come next depends on no slot before them, so the
    processor looks at several at once: at two while half are free, then at four. It begins in the middle of its slot.
    Each step rounds down by less than one, and there are fewer than slots, so that a walk never gets as far as the slot
    below.

    The last slots would take the longest walks. Of those that are free then, the next one is the nearest, by which step
    of the walk each is: as many skips as lie between, modulo slots, which is a multiplication by the skip's inverse.
    """
    size = np.uint64(ring.size)
    full = np.int64(0)
    for i in range(walks.size):
        walk = walks[i]
        walk["at"] = _place(mix64(walk["seed"]) % size, size) + _WORD // (_2 * size)
        walk["skip"] = _place(_skip(walk["seed"], size), size)
        full = max(full, walk["weight"])
    is_alike = True
    for i in range(walks.size):
        walks[i]["earned"] = full // 2
        is_alike &= walks[i]["weight"] == full
    if is_alike:
        left = _take_turns(walks, names, taken, ring, (full, True), free.size)
    else:
        left = _take_turns(walks, names, taken, ring, (full, False), free.size)
    if left > 0:
        _take_last(walks, names, free, _list_free(taken, free), ring, full)


@kernel
def _take_turns(walks, names, taken, ring, weights, few):
    """Has walks take turns until fewer than ``few`` slots are free; how many. Compiled by itself for weights alike."""
    full, is_alike = weights
    left = ring.size
    while 2 * left > ring.size:
        left -= _round(walks, names, taken, ring, left, (full, is_alike, True))
    while left >= few:
        left -= _round(walks, names, taken, ring, left, (full, is_alike, False))
    return left


@kernel
def _round(walks, names, taken, ring, left, how):
    """A turn for each walk that has earned one, while there are slots; how many turns that are."""
    full, is_alike, is_half_free = how
    size, turns = np.uint64(ring.size), 0
    for i in range(walks.size):
        walk = walks[i]
        if not is_alike and not _earns_turn(walk, full):
            continue
        if is_half_free:
            at = _free_by_two(taken, walk["at"], walk["skip"], size)
        else:
            at = _free_by_four(taken, walk["at"], walk["skip"], size)
        slot = _slot(at, size)
        taken[slot] = 1
        ring[slot] = names[i]
        walk["at"] = at + walk["skip"]
        turns += 1
        if turns == left:
            break
    return turns


@kernel
def _earns_turn(walk, full):
    """Whether a walk has a turn in this round; adds what it earns, and takes off what a turn costs."""
    walk["earned"] += walk["weight"]
    if walk["earned"] < full:
        return False
    walk["earned"] -= full
    return True


@kernel
def _free_by_two(taken, at, skip, size):
    """The place of the first slot that is free, on a walk that is at ``at``."""
    while True:  # ends: the skip visits every slot, and one is free
        one = taken[_slot(at, size)]
        if not one & taken[_slot(at + skip, size)]:
            return at + np.uint64(one) * skip
        at += _2 * skip


@kernel
def _free_by_four(taken, at, skip, size):
    """The same, for a walk that has some way to go."""
    while True:
        one = taken[_slot(at, size)]
        two = one & taken[_slot(at + skip, size)]
        three = two & taken[_slot(at + _2 * skip, size)]
        if not three & taken[_slot(at + _3 * skip, size)]:
            return at + np.uint64(one + two + three) * skip
        at += _4 * skip


@kernel
def _list_free(taken, free):
    """Lists the slots that are free, in ascending order; how many, uint64. Of most TOGETHER there is none."""
    left = np.uint64(0)
    for first in range(np.uint64(0), np.uint64(taken.size), np.uint64(TOGETHER)):
        if not _are_taken(taken, first):
            for slot in range(first, first + np.uint64(TOGETHER)):
                free[left] = slot  # one too many, without a branch that nobody can foresee
                left += _1 - taken[slot]
    return left


@kernel
def _are_taken(taken, first):
    found = taken[first]
    for j in range(np.uint64(TOGETHER)):
        found &= taken[first + j]
    return found != 0


@part
def _take_last(walks, names, free, left, ring, full):
    """Has walks take turns at the first ``left`` slots of ``free``, whose order is lost.

    From its first turn here on a walk's ``at`` is a slot: the next one of its walk, then the last one that it took.
    """
    size, i = np.uint64(ring.size), 0
    while left > 0:
        walk, name = walks[i], names[i]
        i = (i + 1) % walks.size
        if not _earns_turn(walk, full):
            continue
        if walk["back"] == 0:
            walk["at"] = _slot(walk["at"], size)
            walk["back"] = _place(_inverse(_skip(walk["seed"], size), size), size)
        nearest = _nearest(free, left, walk["at"], walk["back"])
        slot = free[nearest]
        ring[slot] = name
        walk["at"] = slot
        left -= _1
        free[nearest] = free[left]


@vectorised
def _nearest(free, left, at, back):
    """Which of the first ``left`` slots of ``free``, at least one, a walk at slot ``at`` comes to first, uint64.

    A slot's step of the walk, as a fraction of 2^64, is what lies between times ``back``: the inverse of the skip, as a
    place. That is less than ``size`` off, and steps are 2^64 / size apart, so the low bits have room for an index.
    """
    nearest = _WORD
    for k in range(left):
        nearest = min(nearest, ((free[k] - at) * back & ~_INDEX) | k)
    return nearest & _INDEX


@kernel
def _skip(seed, size):
    """How many slots a walk goes at each step, from 1 on."""
    return mix64(seed + GOLDEN) % (size - _1) + _1


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
