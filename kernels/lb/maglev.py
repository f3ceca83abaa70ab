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

from kernels.jit import kernel
from kernels.lb.hashing import GOLDEN, flow_hash, mix64, reduce

# Prime, so that every skip visits every slot; Cilium's sizes, from its default on. They are few, because nearly all
# flows move when a pool's ring gets another size.
SIZES = (16381, 32749, 65521, 131071)
SIZE_OF_ONE = 251  # where every slot is the same
SLOTS_PER_ENDPOINT = 100  # the paper's M ≥ 100·N: the busiest endpoint has about 1 % more than the mean

# An endpoint on its walk along the permutation of slots that follows from its seed.
_WALK = np.dtype([("seed", "u8"), ("weight", "i8"), ("earned", "i8"), ("at", "i8"), ("skip", "i8")])
_FREE = np.uint32(0xFFFFFFFF)

_32 = np.uint64(32)


def table_size(endpoints: int) -> int:
    """The smallest of SIZES with 100 slots for each endpoint, or the largest there is; few where there is no choice."""
    if endpoints <= 1:
        return SIZE_OF_ONE
    return next((size for size in SIZES if size >= SLOTS_PER_ENDPOINT * endpoints), SIZES[-1])


def build(seeds: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """The ring of endpoints: uint32[size] of indices into ``seeds``; of no slots where no weight is above 0.

    seeds    uint64[n], ``hashing.endpoint_seed`` of each
    weights  uint16[n]; an endpoint of weight 0 is in no slot
    size     a prime below 2^32; the plane's are SIZES

    Raises ValueError for another size.
    """
    if not is_prime(size):
        raise ValueError(f"a Maglev table has a prime number of slots, such as one of {SIZES}, not {size}")
    # By seed, and of twins with one seed by weight: what is left to the order listed makes no difference.
    order = np.lexsort((weights, seeds))
    order = order[np.asarray(weights)[order] > 0].astype(np.uint32)
    if not order.size:
        return np.empty(0, np.uint32)
    walks = np.zeros(order.size, _WALK)
    walks["seed"] = np.asarray(seeds)[order]
    walks["weight"] = np.asarray(weights)[order]
    ring = np.full(size, _FREE, np.uint32)
    _populate(walks, order, ring)
    return ring


@functools.cache
def is_prime(number: int) -> bool:
    return 1 < number < 1 << 32 and all(number % factor for factor in range(2, math.isqrt(number) + 1))


@kernel
def _populate(walks, names, ring):
    """Fill the free ``ring`` with ``names``, one for each walk; at least one walk, all weights above 0."""
    size = np.int64(ring.size)
    full = np.int64(0)
    for i in range(walks.size):
        walk = walks[i]
        walk["at"] = np.int64(mix64(walk["seed"]) % np.uint64(size))
        walk["skip"] = np.int64(mix64(walk["seed"] + GOLDEN) % np.uint64(size - 1)) + 1
        full = max(full, walk["weight"])
    for i in range(walks.size):
        walks[i]["earned"] = full // 2
    left = size
    while left > 0:
        for i in range(walks.size):
            walk = walks[i]
            walk["earned"] += walk["weight"]
            if walk["earned"] < full:
                continue
            walk["earned"] -= full
            at = walk["at"]
            while ring[at] != _FREE:  # ends: the skip visits every slot, and one is free
                at += walk["skip"]
                if at >= size:
                    at -= size
            ring[at] = names[i]
            walk["at"] = at
            left -= 1
            if left == 0:
                return


@kernel
def steer(ring, flows, out):
    """The backend that a ring alone gives each flow of a batch: all that a stateless balancer does.

    ring  uint32[slots], at least one slot
    out   uint32[n], the value of each flow's slot
    """
    slots = ring.size
    # Two loops, because one that also looks up is not compiled to vector instructions: four times the rate.
    for i in range(flows.proto.size):
        word = flow_hash(flows.src_ip[i], flows.dst_ip[i], flows.src_port[i], flows.dst_port[i], flows.proto[i])
        out[i] = word >> _32  # the half of the hash that ``reduce`` takes
    for i in range(flows.proto.size):
        out[i] = ring[reduce(np.uint64(out[i]) << _32, slots)]
