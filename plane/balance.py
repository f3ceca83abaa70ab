"""Which endpoint of a Service a request gets, by every algorithm but plain turns, which cost less where they are. Pure.

Law: names mean for requests what they mean for connections (``kernels.lb.select``), as far as a request is like one.
The load of an endpoint is what it has under way of this ingress' requests to such targets. Of those with the least
load it is that whose turn it is, as in NGINX's least_conn, for most requests are over before the next one comes and the
first in the list would get them all. What hashes ranks the endpoints for each client (rendezvous hashing), so that only
the clients of an endpoint that goes, or has failed, move.

    random             by weight
    rr wrr             turns; wrr interleaved by weight, as IPVS has it
    lc wlc sed nq p2c  by requests under way
    sh mh              by the client's address
    maglev             by the client's address and the port of its connection
    ewma               the faster of two at random, as ingress-nginx (rootfs/etc/nginx/lua/balancer/ewma.lua)

An endpoint that is new gets less at first where its Service has slow start, by the law of ``kernels.lb.slowstart``.
"""

import math
import random
from collections.abc import Sequence
from typing import Protocol, TypeVar
from zlib import crc32

from kernels.layout import EWMA, LC, MAGLEV, MH, NQ, P2C, RR, SED, SH, WLC, WRR

DECAY_S = 10.0  # in which what is known of an endpoint's speed fades to 1/e
FLOOR = 10  # the least age is a tenth of the time that slow start takes
BY_CLIENT = frozenset({SH, MH, MAGLEV})  # take notice of who asks
_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class Standing:
    """What an ingress remembers of an endpoint.

    under_way  requests that it has now
    latency_s  how long its answers take: an average that fades, as of ``heard_s``, which is 0 before the first
    since_s    when it was first among those that requests go to
    out        it has failed lately
    """

    __slots__ = ("heard_s", "latency_s", "out", "since_s", "under_way")

    def __init__(self, since_s: float = 0.0):
        self.since_s = since_s
        self.under_way = 0
        self.latency_s = self.heard_s = 0.0
        self.out = False

    def heard(self, took_s: float, now_s: float) -> None:
        """An answer took so long."""
        self.latency_s = self._faded(now_s, took_s)
        self.heard_s = now_s

    def score(self, now_s: float) -> float:
        """How slow it is, in seconds; who was not asked for long is worth a try."""
        return self._faded(now_s, 0.0)

    def _faded(self, now_s: float, took_s: float) -> float:
        kept = math.exp(-max(now_s - self.heard_s, 0.0) / DECAY_S)
        return self.latency_s * kept + took_s * (1 - kept)


class Watch:
    """A request as those see it who choose by more than turns. ``client`` is that of ``Balancer.next``."""

    __slots__ = ("_endpoint", "_since_s", "client")

    def __init__(self, client: int):
        self.client = client
        self._endpoint: Standing | None = None
        self._since_s = 0.0

    def take(self, endpoint: Standing, now_s: float) -> None:
        """An endpoint has the request now, and the one before, if any, has it no more."""
        self.leave()
        endpoint.under_way += 1
        self._endpoint, self._since_s = endpoint, now_s

    def answered(self, now_s: float) -> None:
        """The whole of its answer has come."""
        if self._endpoint is not None:
            self._endpoint.heard(now_s - self._since_s, now_s)

    def leave(self) -> None:
        """The endpoint has it no more."""
        if self._endpoint is not None:
            self._endpoint.under_way -= 1
            self._endpoint = None


class Candidate(Protocol):
    """An endpoint of a target. ``seed`` is a number of 64 bits that follows from its address."""

    @property
    def weight(self) -> int: ...

    @property
    def seed(self) -> int: ...

    @property
    def endpoint(self) -> Standing: ...


C = TypeVar("C", bound=Candidate)


class Balancer:
    """The algorithm of a target, and what it remembers of its turns. ``slow_start_s`` is 0 without slow start."""

    def __init__(self, algorithm: int, slow_start_s: int = 0):
        self.algorithm = algorithm
        self.slow_start_s = slow_start_s
        self._turn = 0
        self._mark = 0  # of wrr: only who weighs as much has a turn

    def go_on(self, before: "Balancer") -> None:
        """With the turns of another one, which this one replaces."""
        self._turn, self._mark = before._turn, before._mark

    def settle(self, backends: Sequence[C], now_s: float) -> None:
        """Endpoints that nobody has heard of begin as fast as the others are on average, and not as the fastest."""
        known = [backend.endpoint.latency_s for backend in backends if backend.endpoint.heard_s]
        for backend in backends:
            if known and not backend.endpoint.heard_s:
                backend.endpoint.latency_s, backend.endpoint.heard_s = sum(known) / len(known), now_s

    def next(self, backends: Sequence[C], there: Sequence[C], client: int, now_s: float) -> C:
        """The backend for a request, of those that are ``there`` of all ``backends``: one at least.

        client  a number of 64 bits that follows from who asks, where the algorithm is one BY_CLIENT
        """
        if self.algorithm in BY_CLIENT:
            return max(there, key=lambda backend: _rank(client, backend))
        if self.slow_start_s:
            there = self._warm(backends, there, now_s)
        if len(there) == 1 and self.algorithm not in (RR, WRR):
            return there[0]
        if self.algorithm in (RR, WRR):
            return self._in_turn(backends, there)
        if self.algorithm in (LC, WLC, SED, NQ):
            return self._least(there)
        if self.algorithm == P2C:
            one, other = random.sample(there, 2)
            return one if _load(one) * other.weight <= _load(other) * one.weight else other
        if self.algorithm == EWMA:
            return min(random.sample(there, 2), key=lambda backend: backend.endpoint.score(now_s))
        return random.choices(there, [backend.weight for backend in there])[0]

    def _in_turn(self, backends: Sequence[C], there: Sequence[C]) -> C:
        """Turns go by the places of all, so that who comes back finds its own."""
        among = set(map(id, there))
        while True:
            backend = self._take_turn(backends) if self.algorithm == RR else self._take_weighted_turn(backends)
            if id(backend) in among:
                return backend

    def _take_turn(self, backends: Sequence[C]) -> C:
        turn = self._turn if self._turn < len(backends) else 0
        self._turn = turn + 1
        return backends[turn]

    def _take_weighted_turn(self, backends: Sequence[C]) -> C:
        """IPVS' wrr: round after round, those whose weight is not below a mark that comes down from the heaviest."""
        weights = [backend.weight for backend in backends]
        while True:
            if self._turn >= len(backends) or not 0 < self._mark <= max(weights):
                self._turn, self._mark = 0, self._mark - math.gcd(*weights)
                if not 0 < self._mark <= max(weights):
                    self._mark = max(weights)
            backend = self._take_turn(backends)
            if backend.weight >= self._mark:
                return backend

    def _least(self, there: Sequence[C]) -> C:
        turn = self._turn % len(there)
        self._turn = turn + 1
        inclusive = self.algorithm in (SED, NQ)
        best, least = there[turn], math.inf
        for backend in (*there[turn:], *there[:turn]):
            load = _load(backend)
            if self.algorithm == NQ and load == 0:
                return backend
            cost = load if self.algorithm == LC else (load + inclusive) / backend.weight
            if cost < least:
                best, least = backend, cost
        return best

    def _warm(self, backends: Sequence[C], there: Sequence[C], now_s: float) -> Sequence[C]:
        """Those that take part in this pick: all that are as old as the oldest, the others as their age has it."""
        ages = [self._age_s(backend, now_s) for backend in there]
        oldest_s = max(self._age_s(backend, now_s) for backend in backends)
        if min(ages) >= oldest_s:
            return there
        shared = sum(backend.weight for backend in backends) if self.algorithm in (LC, WLC, SED, NQ) else 0
        taking_part = [
            backend
            for backend, age_s in zip(there, ages, strict=True)
            if age_s >= oldest_s or random.random() < age_s / oldest_s * (backend.weight / shared if shared else 1.0)
        ]
        return taking_part or there

    def _age_s(self, backend: Candidate, now_s: float) -> float:
        return min(max(now_s - backend.endpoint.since_s, self.slow_start_s / FLOOR), self.slow_start_s)


def _load(backend: Candidate) -> int:
    return backend.endpoint.under_way


def _rank(client: int, backend: Candidate) -> float:
    """Highest random weight (Thaler, Ravishankar 1998), with weights as in Schindelhauer, Schomaker 2005."""
    share = ((mix64(client ^ backend.seed) >> 12) + 0.5) * 2.0**-52  # above 0 and below 1, and exact
    return -backend.weight / math.log(share)


def client_of(address: str, port: int = 0) -> int:
    """What hashes know a client by: its address and, where that counts, the port of its connection."""
    return mix64((crc32(address.encode()) << 16 | port) + _GOLDEN & _WORD)


def seed_of(address: int, port: int) -> int:
    """What hashes know an endpoint by."""
    return mix64(address << 16 | port)


def mix64(word: int) -> int:
    """SplitMix64's finaliser, as ``kernels.lb.hashing.mix64``, but for a single number and without compiled code."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & _WORD
    return word ^ (word >> 31)
