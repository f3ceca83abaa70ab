"""How a pool picks a backend for a flow that has none: every algorithm, by the name its users know it by.

Law: a pick is a function of the flow, the time and what the pool remembers (turns, connections under way), so that a
recorded run can be replayed. The answer 0 is "no backend", also for a row whose run or ring does not lie within its
table. Members have weights above 0; ``random``, ``rr``, ``lc`` and ``nq``'s idle ones take no notice of them where all
weights are equal.

    random          kube-proxy's iptables and nftables modes        by weight, where there are weights
    rr wrr          IPVS, turns; wrr interleaved (Wensong Zhang)    state: turns
    lc wlc sed nq   IPVS, least connections                         state: active
    sh dh           IPVS, hash of source or destination address     all move when endpoints change
    mh              IPVS, Maglev ring by source address
    maglev          Cilium, Maglev ring by 5-tuple
    p2c             the less loaded of two at random (Mitzenmacher) state: active

Where a pool has slow start, a member that is new does not take part in every pick (``slowstart``); those that hash
take no notice of it.
"""

import math

import numpy as np

from kernels.jit import kernel
from kernels.layout import DH, LC, MAGLEV, MH, NQ, P2C, RR, SED, SH, WLC, WRR
from kernels.lb.hashing import GOLDEN, endpoint_seed, mix64, reduce, word_of
from kernels.lb.slowstart import NOBODY_NEW, takes_part, warmth

_NONE = np.uint32(0)
_11 = np.uint64(11)


@kernel
def pick(fib, steering, pool, flow, key, now_ns):
    """The backend id, uint32, that row ``pool`` of ``fib.pools`` gives a new flow of hash ``key``; 0 for none."""
    row = fib.pools[pool]
    algorithm, members = row["algorithm"], np.int64(row["members"])
    first = np.int64(row["first_member"])
    if algorithm == MAGLEV:
        return at(fib.rings, row["first_slot"], row["slots"], reduce(key, row["slots"]))
    if algorithm == MH:
        return at(fib.rings, row["first_slot"], row["slots"], reduce(_address_hash(flow[0]), row["slots"]))
    if members == 0 or first + members > fib.members.size or first + members > fib.weights.size:
        return _NONE
    word = mix64(key ^ mix64(np.uint64(now_ns)))  # from flow and time, so that the next connection draws again
    if algorithm == SH:
        choice = _by_weight(fib, row, _address_hash(flow[0]))
    elif algorithm == DH:
        choice = _by_weight(fib, row, _address_hash(flow[1]))
    elif row["slow_start_s"] != 0 and now_ns < steering.warm_ns[0]:
        choice = _choose(fib, steering, pool, word, warmth(fib, steering, row, now_ns))
    else:  # compiled by itself, without anything that is asked of those that are new
        choice = _choose(fib, steering, pool, word, NOBODY_NEW)
    return at(fib.members, row["first_member"], row["members"], choice)


@kernel
def _choose(fib, steering, pool, word, warm):
    """The place of a member in a pool that has some, by an algorithm that gives shares, among those that take part."""
    row = fib.pools[pool]
    algorithm = row["algorithm"]
    if algorithm in (RR, WRR):
        return _turn(fib, steering, pool, row, word, warm)
    if algorithm in (LC, WLC, SED, NQ):
        return _least(fib, steering, row, word, warm)
    if algorithm == P2C:
        return _better_of_two(fib, steering, row, word, warm)
    return _at_random(fib, steering, row, word, warm)


@kernel
def at(table, first, count, choice):
    """``table[first + choice]`` where the run of ``count`` has such a place and lies within the table, else 0."""
    place = np.int64(first) + choice
    if choice < 0 or choice >= np.int64(count) or place >= table.size:
        return _NONE
    return table[place]


@kernel
def rendezvous(fib, pool, client):
    """The backend that a client of hash ``client`` has of all members, whatever became of the others; 0 for none.

    Highest random weight (Thaler, Ravishankar 1998), with weights as in Schindelhauer, Schomaker 2005.
    """
    row = fib.pools[pool]
    first, members = np.int64(row["first_member"]), np.int64(row["members"])
    best, chosen = math.inf, _NONE
    if first + members > fib.members.size or first + members > fib.weights.size:
        return _NONE
    for i in range(first, first + members):
        if fib.members[i] >= fib.backends.size:
            continue
        backend = fib.backends[fib.members[i]]
        word = mix64(client ^ endpoint_seed(backend["ip"], backend["port"], backend["proto"]))
        cost = -math.log((np.float64(word >> _11) + 1.0) / 9007199254740993.0) / fib.weights[i]
        if cost < best:
            best, chosen = cost, fib.members[i]
    return chosen


@kernel
def is_member(fib, pool, backend):
    """Whether the pool has the backend."""
    row = fib.pools[pool]
    first = np.int64(row["first_member"])
    found = False
    for i in range(first, min(first + np.int64(row["members"]), fib.members.size)):
        found |= fib.members[i] == backend
    return found


@kernel
def after(fib, pool, backend):
    """The member that stands after a backend in the pool's run, the first after the last; 0 where there is no other."""
    row = fib.pools[pool]
    first, members = np.int64(row["first_member"]), np.int64(row["members"])
    if members < 1 or first + members > fib.members.size:
        return _NONE
    other = fib.members[first]
    for i in range(members):
        if fib.members[first + i] == backend:
            other = fib.members[first + (i + 1) % members]
    return _NONE if other == backend else other


@kernel
def _turn(fib, steering, pool, row, word, warm):
    """The member whose turn it is, of those that take part."""
    own = pool if pool < steering.turns.shape[0] else 0
    for _ in range(np.int64(row["members"])):
        if row["algorithm"] == RR:
            choice = take_turn(steering.turns, own, np.int64(row["members"]))
        else:
            choice = _take_weighted_turn(fib, steering.turns, own, row)
        if takes_part(fib, steering, row, choice, word, warm):
            return choice
    return _at_random(fib, steering, row, word, warm)  # a new one is so heavy that all these turns were its own


@kernel
def take_turn(turns, row, members):
    """The member whose turn it is, and on to the next."""
    turn = turns[row, 0]
    if turn >= members:
        turn = np.int64(0)
    turns[row, 0] = turn + 1
    return turn


@kernel
def _take_weighted_turn(fib, turns, own, row):
    """IPVS' wrr: round after round, those whose weight is not below a mark that comes down from the heaviest."""
    first, members = np.int64(row["first_member"]), np.int64(row["members"])
    for _ in range(members + 1):  # each round has somebody, the heaviest
        turn, mark = turns[own, 0], turns[own, 1]
        if turn >= members or mark == 0 or mark > row["heaviest"]:
            turn = np.int64(0)
            mark -= row["step"]
            if mark <= 0 or mark > row["heaviest"]:
                mark = np.int64(row["heaviest"])
        turns[own, 0], turns[own, 1] = turn + 1, mark
        if fib.weights[first + turn] >= mark:
            return turn
    return np.int64(0)


@kernel
def _least(fib, steering, row, word, warm):
    """The first of those with the least: connections (lc), the same by weight (wlc), with this one (sed), idle (nq)."""
    first, algorithm = np.int64(row["first_member"]), row["algorithm"]
    best, best_load, best_weight = np.int64(0), np.int64(0), np.int64(0)
    for i in range(np.int64(row["members"])):
        if not takes_part(fib, steering, row, i, word, warm):
            continue
        load = _load(steering.active, fib.members[first + i])
        weight = np.int64(1) if algorithm == LC else np.int64(fib.weights[first + i])
        if algorithm == NQ and load == 0:
            return np.int64(i)
        if algorithm in (SED, NQ):
            load += 1
        if best_weight == 0 or load * best_weight < best_load * weight:
            best, best_load, best_weight = np.int64(i), load, weight
    return best


@kernel
def _better_of_two(fib, steering, row, word, warm):
    """Two members at random, and of them the one with fewer connections for its weight."""
    first, members = np.int64(row["first_member"]), np.int64(row["members"])
    one = reduce(word, members)
    if members == 1:
        return one
    other = reduce(mix64(word), members - 1)
    other += other >= one
    if not takes_part(fib, steering, row, other, word, warm):
        other = one
    if not takes_part(fib, steering, row, one, word, warm):
        return other if other != one else _at_random(fib, steering, row, word, warm)
    load_of_one = _load(steering.active, fib.members[first + one]) * np.int64(fib.weights[first + other])
    load_of_other = _load(steering.active, fib.members[first + other]) * np.int64(fib.weights[first + one])
    return one if load_of_one <= load_of_other else other


@kernel
def _load(active, backend):
    """Connections a backend has now."""
    return np.int64(active[backend]) if backend < active.size else np.int64(0)


@kernel
def _at_random(fib, steering, row, word, warm):
    """One of the members that take part, each as often as it weighs."""
    if warm[1] == 0:  # nobody is new
        return _by_weight(fib, row, word)
    first, members = np.int64(row["first_member"]), np.int64(row["members"])
    weight, chosen = np.int64(0), np.int64(0)
    for i in range(members):
        if takes_part(fib, steering, row, i, word, warm):
            weight += np.int64(fib.weights[first + i])
    mark = reduce(word, weight)
    for i in range(members):
        if mark >= 0 and takes_part(fib, steering, row, i, word, warm):
            mark -= np.int64(fib.weights[first + i])
            chosen = np.int64(i)
    return chosen


@kernel
def _by_weight(fib, row, word):
    """The member that a hash falls to, each having as much of the range as its weight."""
    first, members = np.int64(row["first_member"]), np.int64(row["members"])
    mark = reduce(word, row["weight"])
    if np.int64(row["weight"]) == members:  # all weigh 1
        return mark
    for i in range(members):
        mark -= np.int64(fib.weights[first + i])
        if mark < 0:
            return i
    return members - 1


@kernel
def _address_hash(ip):
    return mix64(word_of(ip) + GOLDEN)
