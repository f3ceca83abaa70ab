"""Which endpoint of a goal has a request, by every algorithm that Services have: ``plane.balance``, compiled.

Law: who is chosen is who would be chosen there of the same endpoints, by what this thread has seen itself: under way
are the requests that it has sent to an endpoint, and has no whole answer to. Nobody is chosen who is out, unless all
are. Chance is 64 bits that are given.
"""

import math

import numpy as np

from kernels.jit import inner, kernel, part
from kernels.layout import EWMA, LC, MAGLEV, MH, NQ, P2C, RR, SED, SH, WLC, WRR
from kernels.lb.hashing import GOLDEN, mix64, reduce
from kernels.net import text

DECAY_NS = 1e10  # as plane.balance has it
_ALL_IN = np.int64(np.iinfo(np.int64).max)  # the time as of which nobody is out
_POLYNOMIAL = np.uint64(0xEDB88320)  # of CRC-32, as zlib has it
_ALL = np.uint64(0xFFFFFFFF)
_DOT, _ZERO = 46, 48
_0, _1, _12, _16 = map(np.uint64, (0, 1, 12, 16))
_COLON = np.frombuffer(b":", np.uint8)


@part
def pick(way, endpoints, asked):
    """The backend id of the endpoint for a request, int64; 0 for none.

    endpoints  ENDPOINT[…], in which ``way.endpoint_of`` says where each is
    asked      row of ASK, of which goal, draw, now_ns, client and port count
    """
    roads, memory, row = way.roads, way.memory, np.int64(asked["goal"])
    goal, now_ns = roads.goals[row], np.int64(asked["now_ns"])
    algorithm = goal["algorithm"]
    if algorithm == RR:
        return in_turn(roads, memory, row, now_ns)
    first, last = endpoints_of(roads, goal)
    if first == last:
        return np.int64(0)
    there = roads.endpoints[first:last]
    fit, as_of_ns = count_fit(memory, there, now_ns)
    if algorithm == WRR:
        return _in_weighted_turn(roads.backends, memory, row, there, as_of_ns)
    if algorithm in (SH, MH, MAGLEV):
        client = client_of(asked["client"], asked["port"] if algorithm == MAGLEV else np.uint16(0))
        return _ranked(roads.backends, memory, there, client, as_of_ns)
    if fit == 1:
        return _nth(memory, there, np.int64(0), as_of_ns)
    if algorithm in (LC, WLC, SED, NQ):
        return _least(way, endpoints, there, fit, asked, as_of_ns)
    draw = np.uint64(asked["draw"])
    if algorithm in (P2C, EWMA):
        place = reduce(draw, fit)
        after = reduce(mix64(draw), fit - 1)
        one = _nth(memory, there, place, as_of_ns)
        other = _nth(memory, there, after + (after >= place), as_of_ns)
        return _better(way, endpoints, algorithm, one, other, now_ns)
    return _by_weight(roads.backends, memory, there, draw, as_of_ns)


@kernel
def endpoints_of(roads, goal):
    """Where a goal's endpoints are in ``roads.endpoints``, int64 both: the first one, and behind the last.

    There is none where the tables have not all of them.
    """
    first, last = np.int64(goal["first"]), np.int64(goal["first"]) + np.int64(goal["endpoints"])
    return first, last if last <= roads.endpoints.size else first


@inner
def count_fit(memory, there, now_ns):
    """How many of these endpoints may have a request, and as of when: those that are in now, or all if none is.

    That time is ``as_of_ns`` to the functions below: now, or one as of which all are in.
    """
    fit = np.int64(0)
    for place in range(there.size):
        fit += is_in(memory, np.int64(there[place]), now_ns)
    if fit == 0:
        return np.int64(there.size), _ALL_IN
    return fit, np.int64(now_ns)


@inner
def is_in(memory, backend, as_of_ns):
    return memory.out_ns[backend] <= as_of_ns


@inner
def put_address(backends, backend, out, at):
    """Write the address of an endpoint, row of BACKEND[…], and its port."""
    to = text.put_ip(out, at, np.int64(backends[backend]["ip"]))
    return text.put_decimal(out, text.put_all(out, to, _COLON), np.int64(backends[backend]["port"]))


@kernel
def _nth(memory, there, number, as_of_ns):
    """The endpoint with this number of those that are in; there are more than that."""
    for place in range(there.size):
        backend = np.int64(there[place])
        if is_in(memory, backend, as_of_ns):
            if number == 0:
                return backend
            number -= 1
    return np.int64(0)


@kernel
def _weight(backends, backend):
    return max(np.int64(backends[backend]["weight"]), np.int64(1))


@kernel
def _row_of(rows, endpoints, backend):
    """The row of an endpoint, 0 where it has none."""
    row = np.int64(rows[backend]) if backend < rows.size else np.int64(0)
    return row if row < endpoints.size else np.int64(0)


# Turns


@inner
def in_turn(roads, memory, row, now_ns):
    """By turns, which is what most goals have: the backend id of the endpoint, int64; 0 for none."""
    first, last = endpoints_of(roads, roads.goals[row])
    there = roads.endpoints[first:last]
    backend = _in_turn(memory, row, there, now_ns)
    return backend if backend != 0 else _in_turn(memory, row, there, _ALL_IN)


@kernel
def _in_turn(memory, row, there, as_of_ns):
    """Turns go by the places of all, so that who comes back finds its own."""
    for _ in range(there.size):
        turn = memory.turns[row, 0] if memory.turns[row, 0] < there.size else np.int64(0)
        memory.turns[row, 0] = turn + 1
        if is_in(memory, np.int64(there[turn]), as_of_ns):
            return np.int64(there[turn])
    return np.int64(0)


@kernel
def _in_weighted_turn(backends, memory, row, there, as_of_ns):
    """IPVS' wrr: round after round, those whose weight is not below a mark that comes down from the heaviest."""
    heaviest, heaviest_in, step = np.int64(0), np.int64(0), np.int64(0)
    for place in range(there.size):
        backend = np.int64(there[place])
        weight = _weight(backends, backend)
        step = _common(step, weight)
        heaviest = max(heaviest, weight)
        if is_in(memory, backend, as_of_ns):
            heaviest_in = max(heaviest_in, weight)
    turn, mark = memory.turns[row, 0], memory.turns[row, 1]
    while True:  # ends: at the latest when the mark has come down to the heaviest that is in
        if turn >= there.size or mark <= 0 or mark > heaviest:
            turn, mark = np.int64(0), mark - step
            if mark <= 0 or mark > heaviest:
                mark = heaviest
        if mark > heaviest_in:  # nobody in this round
            turn = np.int64(there.size)
            continue
        backend = np.int64(there[turn])
        turn += 1
        if _weight(backends, backend) >= mark and is_in(memory, backend, as_of_ns):
            memory.turns[row, 0], memory.turns[row, 1] = turn, mark
            return backend


@kernel
def _common(one, other):
    """The greatest common divisor."""
    while other != 0:
        one, other = other, one % other
    return one


# What is under way, and how fast answers come


@kernel
def _least(way, endpoints, there, fit, asked, as_of_ns):
    """That with the least to do, by the measure of its algorithm; of equals that whose turn it is."""
    roads, memory, row = way.roads, way.memory, np.int64(asked["goal"])
    algorithm = roads.goals[row]["algorithm"]
    turn = memory.turns[row, 0] % fit
    memory.turns[row, 0] = turn + 1
    best, least, number = np.int64(0), math.inf, np.int64(0)
    for place in range(2 * there.size):  # once around, from whose turn it is
        backend = np.int64(there[place % there.size])
        if not is_in(memory, backend, as_of_ns):
            continue
        number += 1
        if number <= turn or number > turn + fit:
            continue
        load = _under_way(way.endpoint_of, endpoints, backend)
        if algorithm == NQ and load == 0:
            return backend
        cost = np.float64(load)
        if algorithm != LC:
            cost = np.float64(load + (algorithm != WLC)) / np.float64(_weight(roads.backends, backend))
        if cost < least:
            best, least = backend, cost
    return best


@kernel
def _under_way(rows, endpoints, backend):
    """How many requests an endpoint has of this thread."""
    there = endpoints[_row_of(rows, endpoints, backend)]
    return np.int64(there["all"]) - np.int64(there["idle"])


@kernel
def _better(way, endpoints, algorithm, one, other, now_ns):
    """That of two that has less under way for its weight, or answers faster; the first where they are alike."""
    rows, backends = way.endpoint_of, way.roads.backends
    if algorithm == EWMA:
        return one if _score(rows, endpoints, one, now_ns) <= _score(rows, endpoints, other, now_ns) else other
    load, other_load = _under_way(rows, endpoints, one), _under_way(rows, endpoints, other)
    return one if load * _weight(backends, other) <= other_load * _weight(backends, one) else other


@kernel
def _score(rows, endpoints, backend, now_ns):
    there = endpoints[_row_of(rows, endpoints, backend)]
    return there["latency_ns"] * _kept(there, now_ns)


@kernel
def _kept(there, now_ns):
    """What has not faded of what is known."""
    return math.exp(-np.float64(max(now_ns - there["heard_ns"], 0)) / DECAY_NS)


@kernel
def hear(there, took_ns, now_ns):
    """The answer of an endpoint, a row of ENDPOINT, took so long: ``Standing.heard``."""
    kept = _kept(there, now_ns)
    there["latency_ns"] = there["latency_ns"] * kept + np.float64(took_ns) * (1.0 - kept)
    there["heard_ns"] = now_ns


# Chance, and hashes of clients


@kernel
def _by_weight(backends, memory, there, draw, as_of_ns):
    total, chosen = np.int64(0), np.int64(0)
    for place in range(there.size):
        backend = np.int64(there[place])
        if is_in(memory, backend, as_of_ns):
            total += _weight(backends, backend)
    left = reduce(draw, total)
    for place in range(there.size):
        backend = np.int64(there[place])
        if is_in(memory, backend, as_of_ns) and left >= 0:
            chosen = backend
            left -= _weight(backends, backend)
    return chosen


@kernel
def client_of(ip, port):
    """The number that stands for a client: ``plane.balance.client_of`` of its address as it is written."""
    word = _ALL
    for i in range(4):
        byte = (np.int64(ip) >> (24 - 8 * i)) & 255
        if i > 0:
            word = _checked(word, np.int64(_DOT))
        if byte >= 100:
            word = _checked(word, _ZERO + byte // 100)
        if byte >= 10:
            word = _checked(word, _ZERO + byte // 10 % 10)
        word = _checked(word, _ZERO + byte % 10)
    return mix64(((word ^ _ALL) << _16 | np.uint64(port)) + GOLDEN)


@kernel
def _checked(word, byte):
    """CRC-32 with one more byte."""
    word ^= np.uint64(byte)
    for _ in range(8):
        word = word >> _1 ^ (_POLYNOMIAL if word & _1 != _0 else _0)
    return word


@kernel
def _ranked(backends, memory, there, client, as_of_ns):
    """That which ranks highest for a client, as ``plane.balance._rank`` has it."""
    best, highest = np.int64(0), -math.inf
    for place in range(there.size):
        backend = np.int64(there[place])
        if is_in(memory, backend, as_of_ns):
            row = backends[backend]
            seed = mix64(np.uint64(row["ip"]) << _16 | np.uint64(row["port"]))
            share = (np.float64(mix64(client ^ seed) >> _12) + 0.5) * 2.0**-52
            rank = -np.float64(_weight(backends, backend)) / math.log(share)
            if rank > highest:
                best, highest = backend, rank
    return best
