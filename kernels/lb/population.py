"""Flows by the billion: made by number, and what became of them from one Fib to the next.

Law: flow number n follows from the seed and n alone (SplitMix64 as a counter-based generator: its state after n steps
is the seed and n times its step), so any range of flows can be made anywhere, and is the same however it is cut.
"""

import numpy as np

from kernels.jit import by_family, kernel, vectorised
from kernels.layout import AFFINITY, BEGUN, DISRUPTED, KEPT, NEW, UNAVOIDABLE, WITHOUT
from kernels.lb.hashing import GOLDEN, mix64, reduce

FIRST_PORT = 1024
PORTS = (1 << 16) - FIRST_PORT

_1 = np.uint64(1)
_32 = np.uint64(32)


def key_of(seed: int) -> np.uint64:
    """What flows follow from, of a seed below 2^63; seeds next to each other have nothing in common."""
    return np.uint64(mix64(mix64(np.uint64(seed)) ^ GOLDEN))


@kernel
def _put_number(column, i, population, who):
    column[i] = population.first + np.uint32(reduce(who, population.clients))


@kernel
def _put_row(column, i, population, who):
    """Its bits that are not the network's are mixed of all 64 of ``who``, so that no two flows share them."""
    first, own = population.first[0], population.own[0]
    column[i]["high"] = first["high"] | (mix64(who + GOLDEN) & own["high"])
    column[i]["low"] = first["low"] | (mix64(who ^ GOLDEN) & own["low"])


# (column, i, population, who): writes the address of the client that a hash falls to.
_put_client = by_family(_put_number, _put_row)


@kernel
def generate(fib, population, first, flows):
    """Flows number ``first`` and following into the columns of ``flows``, of any length, which lie apart.

    population  Population, or Population6 for a Fib of IPv6
    """
    _put_clients(population, first, flows)
    _put_frontends(fib, population, first, flows)


@vectorised
def _put_clients(population, first, flows):
    for i in range(flows.proto.size):
        who = mix64(_word(population, first, i))
        _put_client(flows.src_ip, i, population, who)
        flows.src_port[i] = FIRST_PORT + reduce(who << _32, PORTS)


@kernel
def _put_frontends(fib, population, first, flows):
    rows = population.frontends
    for i in range(flows.proto.size):
        frontend = fib.frontends[rows[reduce(mix64(_word(population, first, i) + GOLDEN), rows.size)]]
        flows.dst_ip[i] = frontend["ip"]
        flows.dst_port[i] = frontend["port"]
        flows.proto[i] = frontend["proto"]


@kernel
def _word(population, first, i):
    """The first of two words that flow number ``first + i`` follows from; the second is GOLDEN more."""
    return population.key + ((np.uint64(first) + np.uint64(i)) << _1) * GOLDEN


@kernel
def words(key, first, out):
    """The words, uint64, of numbers ``first`` and following: what a flow's number makes of a key, once for each."""
    for i in range(out.size):
        out[i] = mix64(key + (np.uint64(first) + np.uint64(i)) * GOLDEN)


@kernel
def count_off(stays, steering, last, verdicts, only_new):
    """Has the connections of a batch end that its flows had at endpoints that are still there.

    stays     uint8[...], read-only: by backend id, 1 where the endpoint that had it before is still there
    steering  Steering, whose ``active`` goes down
    last      uint32[n]: the backend of each flow before, 0 for none
    only_new  bool: only of flows that ``verdicts`` say are new
    """
    for i in range(last.size):
        was = last[i]
        ends = not only_new or verdicts.outcome[i] in (NEW, AFFINITY)
        if ends and was < stays.size and stays[was] != 0 and was < steering.active.size:
            steering.active[was] -= 1


@kernel
def follow(stays, verdicts, last, counts, loads):
    """What became of each flow of a batch since it was last steered.

    stays   as for ``count_off``
    last    uint32[n]: the backend of each flow before, 0 for none; its backend now afterwards
    counts  int64[len(FATES_OF_FLOWS)]: flows with each fate are added
    loads   int64[...]: flows by backend id are added
    """
    for i in range(last.size):
        was, now = last[i], verdicts.backend[i]
        there = was < stays.size and stays[was] != 0
        if now == 0:
            counts[WITHOUT] += 1
        elif now < loads.size:
            loads[now] += 1
        if was == 0:
            counts[BEGUN] += now != 0
        elif now == was and there:
            counts[KEPT] += 1
        elif there:
            counts[DISRUPTED] += 1
        else:
            counts[UNAVOIDABLE] += 1
        last[i] = now
