"""Slow twins of the kernels in plain Python: integers, lists and dicts, written for reading and not for speed.

A property test gives kernel and twin the same input and wants the same answer. Nothing here imports a kernel.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from kernels.layout import GONE, MAGLEV, NEW, NO_ENDPOINT, NO_FRONTEND, ROUNDROBIN, TRACKED, Fib

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15

Flow = tuple[int, int, int, int, int]  # source and destination address, source and destination port, protocol
Verdict = tuple[int, int, int]  # outcome, frontend, backend


def mix64(word: int) -> int:
    """SplitMix64's finaliser, as in https://prng.di.unimi.it/splitmix64.c."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)


def flow_hash(flow: Flow) -> int:
    src_ip, dst_ip, src_port, dst_port, proto = flow
    rest = src_port << 24 | dst_port << 8 | proto
    return mix64((src_ip << 32 | dst_ip) ^ mix64((rest + GOLDEN) & WORD)) or 1


def frontend_hash(ip: int, port: int, proto: int) -> int:
    return mix64(ip << 32 | port << 8 | proto)


def endpoint_seed(ip: int, port: int, proto: int) -> int:
    return mix64((ip << 32 | port << 8 | proto) ^ 0xD1B54A32D192ED03)


def scale(word: int, size: int) -> int:
    """The hash as a fraction of 2^64, of ``size``."""
    return (word >> 32) * size >> 32


def find_frontend(fib: Fib, ip: int, port: int, proto: int) -> int:
    wanted = ip, port, proto
    rows = range(1, len(fib.frontends))
    return next((row for row in rows if tuple(map(int, fib.frontends[row].item()[:3])) == wanted), 0)


def maglev(seeds: Sequence[int], weights: Sequence[int], size: int) -> list[int]:
    """Section 3.4 of the paper, with whole permutations as in its pseudocode; see ``kernels.lb.maglev`` on weights."""
    order = sorted((i for i in range(len(seeds)) if weights[i]), key=lambda i: (seeds[i], weights[i]))
    permutations = {}
    for i in order:
        offset, skip = mix64(seeds[i]) % size, mix64((seeds[i] + GOLDEN) & WORD) % (size - 1) + 1
        permutations[i] = iter([(offset + j * skip) % size for j in range(size)])
    ring: list[int | None] = [None] * size
    earned = dict.fromkeys(order, max(weights, default=0) // 2)
    while order and None in ring:
        for i in order:
            earned[i] += weights[i]
            if earned[i] >= max(weights) and None in ring:
                earned[i] -= max(weights)
                ring[next(slot for slot in permutations[i] if ring[slot] is None)] = i
    return [i for i in ring if i is not None]


def steer(ring: Sequence[int], flows: Iterable[Flow]) -> list[int]:
    return [ring[scale(flow_hash(flow), len(ring))] for flow in flows]


@dataclass
class Steering:
    """Twin of ``layout.Steering``: tracked flows are key → (backend, endpoint's seed, end of its time)."""

    turns: list[int]
    idle_ns: int
    tracked: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    remembers: bool = True


def forward(fib: Fib, steering: Steering, flows: Iterable[Flow], now_ns: int) -> list[Verdict]:
    return [_decide(fib, steering, flow, now_ns) for flow in flows]


def _decide(fib: Fib, steering: Steering, flow: Flow, now_ns: int) -> Verdict:
    row = find_frontend(fib, flow[1], flow[3], flow[4])
    if not row:
        return NO_FRONTEND, 0, 0
    key, expires_ns = flow_hash(flow), now_ns + steering.idle_ns
    backend, seed, end_ns = steering.tracked.get(key, (0, 0, 0))
    if end_ns > now_ns and _is_there(fib, backend, seed):
        steering.tracked[key] = backend, seed, expires_ns
        return TRACKED, row, backend
    backend = _pick(fib, steering.turns, row, key, now_ns)
    if not backend:
        return NO_ENDPOINT, row, 0
    if steering.remembers:
        steering.tracked[key] = backend, _fingerprint(fib.backends[backend]), expires_ns
    return NEW, row, backend


def _pick(fib: Fib, turns: list[int], row: int, key: int, now_ns: int) -> int:
    frontend = {name: int(fib.frontends[row][name]) for name in fib.frontends.dtype.names or ()}
    ring = fib.rings[frontend["first_slot"] :][: frontend["slots"]].tolist()
    members = fib.members[frontend["first_member"] :][: frontend["members"]].tolist()
    if frontend["algorithm"] == MAGLEV:
        return ring[scale(key, len(ring))] if ring else 0
    if frontend["algorithm"] == ROUNDROBIN:
        own = row if row < len(turns) else 0
        turn = turns[own] if turns[own] < len(members) else 0
        turns[own] = turn + 1
        return members[turn] if members else 0
    return members[scale(mix64(key ^ mix64(now_ns)), len(members))] if members else 0


def _is_there(fib: Fib, backend: int, seed: int) -> bool:
    rows = fib.backends[backend : backend + 1]
    return any(row["state"] != GONE and _fingerprint(row) == seed for row in rows)


def _fingerprint(backend: np.void) -> int:
    return endpoint_seed(int(backend["ip"]), int(backend["port"]), int(backend["proto"])) & 0xFFFFFFFF
