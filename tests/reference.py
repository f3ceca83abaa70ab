"""Slow twins of the kernels in plain Python: integers, lists and dicts, written for reading and not for speed.

A property test gives kernel and twin the same input and wants the same answer. Nothing here imports a kernel.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kernels.layout import AFFINITY, ALGORITHMS, DROP, GONE, INSIDE, NEW, NO_FRONTEND, OUTSIDE, READY, TRACKED, Fib

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15

Address = int | tuple[int, int]  # of IPv4; the high and the low half of one of IPv6
Flow = tuple[Address, Address, int, int, int]  # source and destination address, source and destination port, protocol
Verdict = tuple[int, int, int]  # outcome, frontend, backend


def mix64(word: int) -> int:
    """SplitMix64's finaliser, as in https://prng.di.unimi.it/splitmix64.c."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & WORD
    return word ^ (word >> 31)


def word_of(ip: Address) -> int:
    return ip if isinstance(ip, int) else mix64(mix64((ip[0] + GOLDEN) & WORD) ^ ip[1])


def joined(ip: Address, rest: int) -> int:
    return ip << 32 | rest if isinstance(ip, int) else mix64((word_of(ip) + GOLDEN) & WORD) ^ rest


def flow_hash(flow: Flow) -> int:
    src_ip, dst_ip, src_port, dst_port, proto = flow
    return mix64(joined(src_ip, src_port) ^ destination(dst_ip, dst_port, proto)) or 1


def destination(ip: Address, port: int, proto: int) -> int:
    word = joined(ip, port << 8 | proto)
    word = (word ^ word >> 32) * 0xBF58476D1CE4E5B9 & WORD
    return word ^ word >> 32


def frontend_hash(ip: Address, port: int, proto: int) -> int:
    word = destination(ip, port, proto) * 0x94D049BB133111EB & WORD
    return word ^ word >> 32


def endpoint_seed(ip: Address, port: int, proto: int) -> int:
    return mix64(joined(ip, port << 8 | proto) ^ 0xD1B54A32D192ED03)


def seed_of(backend: np.void) -> int:
    """``endpoint_seed`` of a row of BACKEND or BACKEND6."""
    return endpoint_seed(*backend[["ip", "port", "proto"]].item())


def scale(word: int, size: int) -> int:
    """The hash as a fraction of 2^64, of ``size``."""
    return (word >> 32) * size >> 32


def find_frontend(fib: Fib, ip: Address, port: int, proto: int) -> int:
    wanted = ip, port, proto
    rows = range(1, len(fib.frontends))
    return next((row for row in rows if fib.frontends[row].item()[:3] == wanted), 0)


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


def ketama(seeds: Sequence[int], weights: Sequence[int]) -> list[tuple[int, int, int]]:
    """(place on the circle, seed, index) of every point, in order: libketama's counts, SplitMix64's places."""
    mean = sum(weights) / max(len(weights), 1)
    points = []
    for index, (seed, weight) in enumerate(zip(seeds, weights, strict=True)):
        for number in range(1, max(int(160 * weight / mean), 1) + 1):
            points.append((mix64((seed + number * GOLDEN) & WORD) >> 32, seed, index))
    return sorted(points)


def next_on_circle(places: Sequence[int], key: int) -> int:
    """The row of the first place that is not before the key's, around the circle."""
    return next((row for row, place in enumerate(places) if place >= key >> 32), 0)


def jump(key: int, buckets: int) -> int:
    """Figure 1 of the paper."""
    chosen, jumped = -1, 0
    while jumped < buckets:
        chosen = jumped
        key = (key * 2862933555777941757 + 1) & WORD
        jumped = int((chosen + 1) * (float(1 << 31) / float((key >> 33) + 1)))
    return chosen


class Anchor:
    """AnchorHash by its definition (algorithm 1 of the paper): of each bucket that left, which ones it left behind."""

    def __init__(self, capacity: int, used: int):
        self.used = list(range(capacity))
        self.left: list[tuple[int, list[int]]] = []  # (bucket, those in use while it was), in the order of leaving
        self.behind: dict[int, list[int]] = {}
        for bucket in range(capacity - 1, used - 1, -1):
            self.remove(bucket)
        self.capacity = capacity

    def remove(self, bucket: int) -> None:
        self.left.append((bucket, list(self.used)))
        self.used[self.used.index(bucket)] = self.used[-1]
        self.used.pop()
        self.behind[bucket] = list(self.used)

    def add(self) -> int:
        bucket, self.used = self.left.pop()
        del self.behind[bucket]
        return bucket

    def bucket(self, key: int) -> int:
        chosen = scale(key, self.capacity)
        while chosen in self.behind:
            behind = self.behind[chosen]
            chosen = behind[scale(mix64((key + (chosen + 1) * GOLDEN) & WORD), len(behind))]
        return chosen


Reached = tuple[Address, int, int]  # address, port, protocol


def made_flow(key: int, first: Address, clients: Address, frontends: Sequence[Reached], number: int) -> Flow:
    """Flow of a number. There are so many clients, or of IPv6 all that differ from the first in those bits."""
    who, where = (mix64((key + counter * GOLDEN) & WORD) for counter in (2 * number, 2 * number + 1))
    ip, port, proto = frontends[scale(where, len(frontends))]
    if isinstance(first, int) and isinstance(clients, int):
        client: Address = first + scale(who, clients)
    else:
        words = mix64((who + GOLDEN) & WORD), mix64(who ^ GOLDEN)
        client = first[0] | words[0] & clients[0], first[1] | words[1] & clients[1]
    return client, ip, 1024 + scale(who << 32 & WORD, 64512), port, proto


def fate(was: int, now: int, stays: bool) -> list[str]:
    """What is counted of a flow by ``population.follow``."""
    if not was:
        return ["begun"] if now else ["without"]
    moved = "kept" if stays and was == now else "disrupted" if stays else "unavoidable"
    return [moved] if now else [moved, "without"]


def steer(ring: Sequence[int], flows: Iterable[Flow]) -> list[int]:
    return [ring[scale(flow_hash(flow), len(ring))] for flow in flows]


TICK_NS = 1 << 30


def is_live(end_ns: int, now_ns: int) -> bool:
    """Whether conntrack knows a flow: until the first of its ticks that does not begin before the end."""
    return -(-end_ns // TICK_NS) > now_ns // TICK_NS


@dataclass
class Steering:
    """Twin of ``layout.Steering``: what is tracked is key → (backend, endpoint's seed, end of its time)."""

    idle_ns: int
    pools: int  # beyond so many rows, pools take turns together, on row 0's
    backends: int  # beyond so many, nobody counts a backend's flows
    turns: dict[int, tuple[int, int]] = field(default_factory=dict)
    active: dict[int, int] = field(default_factory=dict)
    ready_ns: dict[int, int] = field(default_factory=dict)
    warm_ns: int = 0
    tracked: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    clients: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    arrival: int = 0
    remembers: bool = True


@dataclass
class Pool:
    """A row of ``Fib.pools`` with what it points at."""

    row: int
    algorithm: str
    otherwise: int
    slow_start_s: int
    members: list[tuple[int, int]]  # backend id, weight
    ring: list[int]

    @classmethod
    def of(cls, fib: Fib, row: int) -> "Pool":
        values = {name: int(fib.pools[row][name]) for name in fib.pools.dtype.names or ()}
        run = slice(values["first_member"], values["first_member"] + values["members"])
        slots = slice(values["first_slot"], values["first_slot"] + values["slots"])
        members = list(zip(fib.members[run].tolist(), fib.weights[run].tolist(), strict=True))
        algorithm, ring = ALGORITHMS[values["algorithm"]], fib.rings[slots].tolist()
        return cls(row, algorithm, values["otherwise"], values["slow_start_s"], members, ring)


def forward(fib: Fib, steering: Steering, flows: Iterable[Flow], now_ns: int) -> list[Verdict]:
    return [_decide(fib, steering, flow, now_ns) for flow in flows]


def _decide(fib: Fib, steering: Steering, flow: Flow, now_ns: int) -> Verdict:
    row = find_frontend(fib, flow[1], flow[3], flow[4])
    if not row:
        return NO_FRONTEND, 0, 0
    key, expires_ns = flow_hash(flow), now_ns + steering.idle_ns
    backend, seed, end_ns = steering.tracked.get(key, (0, 0, 0))
    if is_live(end_ns, now_ns) and _is_there(fib, backend, seed):
        steering.tracked[key] = backend, seed, expires_ns
        return TRACKED, row, backend
    frontend = {name: int(fib.frontends[row][name]) for name in (fib.frontends.dtype.names or ())[1:]}
    allowed = fib.ranges[frontend["first_range"] :][: frontend["ranges"]].tolist()
    if len(allowed) and not any(first <= flow[0] <= last for first, last, *_ in allowed):
        return DROP, row, 0
    pool = Pool.of(fib, _pool_row(fib, steering, frontend, flow[0]))
    outcome = NEW
    if frontend["affinity"]:
        client = mix64(joined(flow[0], frontend["affinity"])) | 1
        kept = _kept(fib, steering, pool, client, now_ns)
        outcome, backend = (AFFINITY, kept) if kept else (NEW, rendezvous(fib, pool, client))
        if backend and steering.remembers:
            end_ns = now_ns + frontend["affinity_s"] * 10**9
            steering.clients[client] = backend, _fingerprint(fib.backends[backend]), end_ns
    else:
        backend = _pick(fib, steering, pool, flow, now_ns)
    if not backend:
        return pool.otherwise, row, 0
    if backend < steering.backends:
        steering.active[backend] = steering.active.get(backend, 0) + 1
    if steering.remembers:
        steering.tracked[key] = backend, _fingerprint(fib.backends[backend]), expires_ns
    return outcome, row, backend


def _pool_row(fib: Fib, steering: Steering, frontend: dict[str, int], client: Address) -> int:
    for first, last, node, _ in fib.sources.tolist():
        if first <= client <= last:
            return frontend["inside"] + (node if frontend["by_node"] & INSIDE else 0)
    arrival = frontend["node"] or steering.arrival
    return frontend["outside"] + (arrival if frontend["by_node"] & OUTSIDE else 0)


def _kept(fib: Fib, steering: Steering, pool: Pool, client: int, now_ns: int) -> int:
    backend, seed, end_ns = steering.clients.get(client, (0, 0, 0))
    good = is_live(end_ns, now_ns) and _is_there(fib, backend, seed) and fib.backends[backend]["state"] == READY
    return backend if good and backend in dict(pool.members) else 0


def rendezvous(fib: Fib, pool: Pool, client: int) -> int:
    def cost(backend: int, weight: int) -> float:
        word = mix64(client ^ seed_of(fib.backends[backend]))
        return -math.log(((word >> 11) + 1.0) / 9007199254740993.0) / weight

    return min(((cost(*member), member[0]) for member in pool.members), key=lambda pair: pair[0], default=(0, 0))[1]


def taking_part(fib: Fib, steering: Steering, pool: Pool, drawn: int, now_ns: int) -> list[int]:
    """Ids of the members that slow start does not leave out of a pick."""
    if not pool.slow_start_s or now_ns >= steering.warm_ns:
        return [backend for backend, _ in pool.members]
    whole_ns = pool.slow_start_s * 10**9

    def age_ns(backend: int) -> int:
        since_ns = steering.ready_ns.get(backend, 0)
        return min(max(now_ns - since_ns, whole_ns // 10), whole_ns) if since_ns else whole_ns

    def takes_part(backend: int, weight: int) -> bool:
        age, oldest = age_ns(backend), max(age_ns(each) for each, _ in pool.members)
        chance = age / oldest
        if pool.algorithm in ("lc", "wlc", "sed", "nq"):
            chance *= weight / sum(each for _, each in pool.members)
        word = mix64(drawn ^ seed_of(fib.backends[backend]))
        return age == oldest or (word >> 11) / 2**53 < chance

    return [backend for backend, weight in pool.members if takes_part(backend, weight)]


def _pick(fib: Fib, steering: Steering, pool: Pool, flow: Flow, now_ns: int) -> int:
    if pool.algorithm in ("maglev", "mh"):
        word = flow_hash(flow) if pool.algorithm == "maglev" else mix64((word_of(flow[0]) + GOLDEN) & WORD)
        return pool.ring[scale(word, len(pool.ring))] if pool.ring else 0
    if not pool.members:
        return 0
    drawn = mix64(flow_hash(flow) ^ mix64(now_ns))
    if pool.algorithm in ("sh", "dh"):
        return _by_weight(pool.members, mix64((word_of(flow[0 if pool.algorithm == "sh" else 1]) + GOLDEN) & WORD))
    ids = taking_part(fib, steering, pool, drawn, now_ns)
    members = [member for member in pool.members if member[0] in ids]
    load = {backend: steering.active.get(backend, 0) for backend in ids}
    match pool.algorithm:
        case "rr" | "wrr":
            take_turn = _turn if pool.algorithm == "rr" else _weighted_turn
            turns = (take_turn(steering, pool) for _ in pool.members)
            in_turn = next((backend for backend in turns if backend in ids), 0)
            if in_turn:
                return in_turn
        case "lc":
            return min(ids, key=lambda backend: load[backend])
        case "wlc":
            return min(members, key=lambda row: load[row[0]] / row[1])[0]
        case "nq" if 0 in load.values():
            return next(backend for backend in ids if not load[backend])
        case "sed" | "nq":
            return min(members, key=lambda row: (load[row[0]] + 1) / row[1])[0]
        case "p2c":
            both = [member for member in _two(pool, drawn) if member[0] in ids]
            if both:
                (first, weight), (second, other) = both[0], both[-1]
                return first if load[first] * other <= load[second] * weight else second
    return _by_weight(members, drawn)


def _by_weight(members: list[tuple[int, int]], word: int) -> int:
    spread = [backend for backend, weight in members for _ in range(weight)]
    return spread[scale(word, len(spread))]


def _turn(steering: Steering, pool: Pool) -> int:
    own = pool.row if pool.row < steering.pools else 0
    turn, mark = steering.turns.get(own, (0, 0))
    turn = turn if turn < len(pool.members) else 0
    steering.turns[own] = turn + 1, mark
    return pool.members[turn][0]


def _weighted_turn(steering: Steering, pool: Pool) -> int:
    """IPVS' ip_vs_wrr: Wensong Zhang's pseudocode of interleaved weighted round robin."""
    weights = [weight for _, weight in pool.members]
    own = pool.row if pool.row < steering.pools else 0
    turn, mark = steering.turns.get(own, (0, 0))
    while True:
        if turn >= len(weights) or not 0 < mark <= max(weights):
            turn, mark = 0, mark - math.gcd(*weights)
            if not 0 < mark <= max(weights):
                mark = max(weights)
        turn += 1
        steering.turns[own] = turn, mark
        if weights[turn - 1] >= mark:
            return pool.members[turn - 1][0]


def _two(pool: Pool, drawn: int) -> list[tuple[int, int]]:
    """Two different members drawn at random, or the only one."""
    one = scale(drawn, len(pool.members))
    rest = [number for number in range(len(pool.members)) if number != one]
    two = rest[scale(mix64(drawn), len(rest))] if rest else one
    return [pool.members[one], pool.members[two]]


def _is_there(fib: Fib, backend: int, seed: int) -> bool:
    rows = fib.backends[backend : backend + 1]
    return any(row["state"] != GONE and _fingerprint(row) == seed for row in rows)


def _fingerprint(backend: np.void) -> int:
    return seed_of(backend) & 0xFFFF


class Speeds:
    """``ewma`` and, with ``peak``, ``peak-ewma``, over members 1, 2, …"""

    def __init__(self, peak: bool, fade_ns: int):
        self._peak, self._fade_ns = peak, fade_ns
        self._known: dict[int, tuple[float, int]] = {}  # average, and as of when

    def hear(self, backend: int, took_ns: int, now_ns: int) -> None:
        faded, kept = self._faded(backend, now_ns)
        at_once = self._peak and took_ns > faded
        self._known[backend] = (float(took_ns) if at_once else faded + took_ns * (1 - kept)), now_ns

    def pick(self, flow: Flow, members: int, active: Mapping[int, int], now_ns: int) -> int:
        word = mix64(flow_hash(flow) ^ mix64(now_ns))
        there = list(range(1, members + 1))
        one = there.pop(scale(word, members))
        other = there[scale(mix64(word), members - 1)] if there else one
        return min((one, other), key=lambda backend: self._cost(backend, active.get(backend, 0), now_ns))

    def _cost(self, backend: int, active: int, now_ns: int) -> float:
        average = self._faded(backend, now_ns)[0]
        if not self._peak:
            return average
        return (2**63 - 1 >> 16) + active if not average and active else average * (active + 1)

    def _faded(self, backend: int, now_ns: int) -> tuple[float, float]:
        average, heard_ns = self._known.get(backend, (0.0, 0))
        if not heard_ns:
            return 0.0, 0.0
        kept = math.exp(-(now_ns - heard_ns) / self._fade_ns)
        return average * kept, kept


def internet_checksum(data: bytes) -> int:
    """RFC 1071: 0 for what carries its own."""
    total = sum(int.from_bytes(data[i : i + 2]) for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def answer(block: bytes, number: int, length: int) -> bytes:
    """The request or the answer of so many bytes with this id: the id, then the block's rest over and over."""
    rest = block[8:]
    return (number.to_bytes(8, "little") + rest * (length // len(rest) + 1))[:length]


class Limits:
    """Leaky buckets of clients, as many as there are; ``limit`` is (key, a second, a minute, burst, at a time)."""

    def __init__(self) -> None:
        self._buckets: dict[tuple[int, int, str], tuple[int, float, int]] = {}  # rate, excess, and as of when
        self._at_work: dict[tuple[int, int], int] = {}

    def enter(self, limit: tuple[int, ...], client: int, now_ns: int) -> str:
        """What is exceeded, empty where the request is let in."""
        key, rps, rpm, burst, connections = limit
        filled = {}
        for name, rate, seconds in (("second", rps, 1), ("minute", rpm, 60)):
            before = self._buckets.get((key, client, name))
            excess = 0.0
            if before is not None and before[0] == rate:
                excess = max(0.0, before[1] - rate / seconds * (1e-9 * max(0, now_ns - before[2])) + 1)
            if rate and excess > rate * burst:
                return name
            filled[key, client, name] = rate, excess, max(now_ns, before[2] if before else 0)
        if connections and self._at_work.get((key, client), 0) >= connections:
            return "at once"
        self._buckets |= filled
        if connections:
            self._at_work[key, client] = self._at_work.get((key, client), 0) + 1
        return ""

    def leave(self, key: int, client: int) -> None:
        self._at_work[key, client] -= 1


class Timers:
    """Who is due: of each row the earliest time that it was filed for, but for the past, all looked at every time."""

    def __init__(self, tick_ns: int) -> None:
        self.due_ns: dict[int, int] = {}
        self._tick_ns = tick_ns

    def file(self, row: int, due_ns: int, now_ns: int) -> None:
        due_ns = max(due_ns, now_ns)
        self.due_ns[row] = min(due_ns, self.due_ns.get(row, due_ns))

    def comes_up_ns(self, row: int) -> int:
        """The end of the tick in which it is due."""
        return (self.due_ns[row] // self._tick_ns + 1) * self._tick_ns

    def are_due(self, now_ns: int) -> set[int]:
        return {row for row in self.due_ns if self.comes_up_ns(row) <= now_ns}

    def forget(self, row: int) -> None:
        del self.due_ns[row]
