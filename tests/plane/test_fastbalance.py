"""Compiled code chooses the endpoints that ``plane.balance`` and ``plane.affinity`` choose."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from kernels.layout import EWMA, INGRESS_ALGORITHMS, LC, MAGLEV, MH, NQ, P2C, RANDOM, RR, SED, SH, WLC, WRR, freeze
from kernels.layout_routes import FIRST_PUNT, PUNTS, SUBSET, Memory, Roads
from plane import fastroutes, routecompiler
from plane.addresses import int_to_ip
from plane.affinity import endpoints_of
from plane.balance import Balancer, client_of
from plane.conduct import Conduct, Request
from plane.ingress import fastspeeds
from plane.ingress.table import Backend, Target
from plane.ingress.upstream import Endpoint
from plane.policies import Policies
from plane.routes import Routes
from tests.ingress.manifests import web
from tests.plane.fast import NOW_NS, Asked, chosen, of_key, said, standings, way_of, with_policies

PODS = [(f"127.244.1.{number}", 8080) for number in range(2, 7)]
DETERMINED = (RR, WRR, LC, WLC, SED, NQ, SH, MH, MAGLEV)
MANY = 1 << 64


def balanced(algorithm: int, weights: list[int]) -> Routes:
    """``example.com`` to endpoints with these weights."""
    table = routecompiler.compile(web(*PODS[: len(weights)]))
    targets, backends = table.targets.copy(), table.backends.copy()
    targets["algorithm"], backends["weight"][table.endpoints] = algorithm, weights
    return replace(table, targets=freeze(targets), backends=freeze(backends))


async def its_target(table: Routes) -> Target:
    backends = []
    for number in table.endpoints.tolist():
        row = table.backends[number]
        ip, port = int(row["ip"]), int(row["port"])
        backends.append(Backend(Endpoint((int_to_ip(ip), port), 0.0), number, ip, int(row["weight"])))
    return Target(table.services[1], table.targets[1], tuple(backends), asyncio.get_running_loop())


@dataclass
class Both:
    """The same endpoints as either side sees them."""

    algorithm: int
    weights: list[int]
    roads: Roads = field(init=False)
    memory: Memory = field(init=False)
    endpoints: Any = field(init=False)
    target: Target = field(init=False)
    balancer: Balancer = field(init=False)

    def __post_init__(self) -> None:
        table = balanced(self.algorithm, self.weights)
        self.roads = fastroutes.compile(table)
        self.memory, self.endpoints = fastroutes.create_memory(self.roads), standings(self.roads)
        self.target, self.balancer = asyncio.run(its_target(table)), Balancer(self.algorithm)

    @property
    def backends(self) -> tuple[Backend, ...]:
        return self.target.backends

    def put_out(self, places: set[int]) -> None:
        for place, backend in enumerate(self.backends):
            backend.endpoint.out = place in places
            self.memory.out_ns[backend.number] = NOW_NS + 1 if place in places else 0

    def load(self, loads: list[int]) -> None:
        for backend, load in zip(self.backends, loads, strict=False):
            backend.endpoint.under_way = load
            self.endpoints[backend.number]["all"], self.endpoints[backend.number]["idle"] = load + 3, 3

    def remember(self, speeds: list[tuple[float, float]]) -> None:
        """(how long answers take, for how long that is known), in seconds."""
        for backend, (latency_s, age_s) in zip(self.backends, speeds, strict=False):
            backend.endpoint.latency_s, backend.endpoint.heard_s = latency_s, NOW_NS / 1e9 - age_s
            row = self.endpoints[backend.number]
            row["latency_ns"], row["heard_ns"] = latency_s * 1e9, NOW_NS - int(age_s * 1e9)

    def fast(self, draw: int = 7, client: str = "127.0.0.1", port: int = 0) -> int:
        number = int.from_bytes(map(int, client.split(".")))
        return chosen(way_of(self.roads, self.memory), self.endpoints, draw, number, port)

    def slow(self, client: int = 0) -> int:
        return self.balancer.next(self.backends, self.target.fit(()), client, NOW_NS / 1e9).number


def draws(count: int) -> range:
    """So many numbers of 64 bits, each as far from the next."""
    return range(MANY // count // 2, MANY, MANY // count + 1)


WEIGHTS = st.lists(st.integers(1, 9), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(DETERMINED),
    WEIGHTS,
    st.lists(
        st.tuples(
            st.sets(st.integers(0, 4)),
            st.lists(st.integers(0, 3), min_size=5, max_size=5),
            st.ip_addresses(v=4),
            st.integers(0, 65535),
        ),
        max_size=8,
    ),
)
@example(WRR, [65535, 1], [({0}, [0] * 5, "10.0.0.1", 1), (set(), [0] * 5, "10.0.0.1", 1)])
def test_who_is_chosen_is_who_the_balancer_chooses(
    algorithm: int, weights: list[int], steps: list[tuple[set[int], list[int], object, int]]
) -> None:
    both = Both(algorithm, weights)
    for out, loads, client, port in steps:
        both.put_out(out)
        both.load(loads)
        number = client_of(str(client), port if algorithm == MAGLEV else 0)
        assert both.fast(client=str(client), port=port) == both.slow(number)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([P2C, EWMA]),
    st.lists(st.integers(1, 9), min_size=2, max_size=2),
    st.lists(st.integers(0, 9), min_size=2, max_size=2),
    st.lists(st.tuples(st.floats(0.001, 5), st.floats(0, 0.9)), min_size=2, max_size=2),
    st.integers(0, MANY - 1),
)
def test_of_two_the_better_one_is_chosen_whoever_is_drawn_first(
    algorithm: int, weights: list[int], loads: list[int], speeds: list[tuple[float, float]], draw: int
) -> None:
    assume(algorithm == EWMA or loads[0] * weights[1] != loads[1] * weights[0])
    both = Both(algorithm, weights)
    both.load(loads)
    both.remember(speeds)
    one, other = (backend.endpoint.score(NOW_NS / 1e9) for backend in both.backends)
    assume(algorithm == P2C or abs(one - other) > 1e-9)
    assert both.fast(draw) == both.slow()


@pytest.mark.parametrize("algorithm", [P2C, EWMA], ids=lambda algorithm: INGRESS_ALGORITHMS[algorithm])
def test_the_worst_of_all_is_never_the_better_of_two_and_all_others_are_as_often(algorithm: int) -> None:
    both = Both(algorithm, [1] * 5)
    both.load([0, 0, 0, 0, 9])
    both.remember([(1.0, 0.0)] * 4 + [(2.0, 0.0)])
    rng = np.random.default_rng(7)
    found = Counter(both.fast(int(draw)) for draw in rng.integers(0, MANY, 2000, np.uint64, endpoint=False))
    numbers = [backend.number for backend in both.backends]
    assert found.keys() == set(numbers[:4])
    assert [found[number] / 2000 for number in numbers[:4]] == pytest.approx([0.25] * 4, abs=0.05)


def test_chance_goes_by_weight() -> None:
    both = Both(RANDOM, [1, 2, 5])
    both.put_out({1})
    found = Counter(both.fast(draw) for draw in draws(600))
    assert [found[backend.number] for backend in both.backends] == pytest.approx([100, 0, 500], abs=1)


def test_slow_start_is_punted_and_no_algorithm_is() -> None:
    for algorithm in range(len(INGRESS_ALGORITHMS)):
        assert said(fastroutes.compile(balanced(algorithm, [1, 1])), Asked("example.com")).punt == ""
    table = balanced(LC, [1, 1])
    targets = table.targets.copy()
    targets["slow_start_s"] = 9
    roads = fastroutes.compile(replace(table, targets=freeze(targets)))
    assert said(roads, Asked("example.com")).punt == "the Service has slow start"


def test_an_endpoint_that_is_new_counts_as_fast_as_the_others_do_on_average() -> None:
    for algorithm, expected in ((EWMA, 2e9), (LC, 0)):
        both = Both(algorithm, [1, 1, 1])
        both.remember([(1.0, 0.0), (3.0, 0.0)])
        rows = np.arange(len(both.roads.backends), dtype=np.uint32)
        fastspeeds.settle(both.roads, rows, both.endpoints, NOW_NS)
        new = both.endpoints[both.backends[2].number]
        assert (new["latency_ns"], new["heard_ns"]) == (expected, NOW_NS if expected else 0)
    fresh = Both(EWMA, [1, 1])
    fastspeeds.settle(fresh.roads, np.arange(len(fresh.roads.backends)), fresh.endpoints, NOW_NS)
    assert not fresh.endpoints["heard_ns"].any()


# Hashes of what requests have in common


@cache
def five() -> Both:
    return Both(RANDOM, [1] * 5)


@cache
def hashing(by: str, subset: int = 0) -> Roads:
    """To the same endpoints."""
    return fastroutes.compile(with_policies(balanced(RANDOM, [1] * 5), Policies(hash_by=by, hash_subset=subset)))


KEYS = [
    "$request_uri",
    "$uri$is_args",
    "$scheme://$host$trimmed_uri",
    "$http_host-$request_method",
    "$args",
    "$arg_Page",
    "$http_x_User",
    "$cookie_id",
    "$remote_addr",
    "é$uri",
]
PATHS = ["/", "/a/b", "/a/", "/a?page=1", "/a?x&PAGE=2&page=3", "/a?page", "/?", "/?&page==4=", "/a?" + "k" * 700]
FIELDS = [("X-User", "me"), ("x-user", "é\udcff"), ("X_User", "no"), ("Cookie", "a=b; id=7"), ("Cookie", "id=é")]


@pytest.mark.parametrize("by", KEYS)
@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(["GET", "HEAD", "OPTIONS"]),
    st.sampled_from(PATHS),
    st.sampled_from(["example.com", "Example.com:80"]),
    st.booleans(),
    st.lists(st.sampled_from(FIELDS), max_size=3),
    st.sets(st.integers(0, 4)),
    st.ip_addresses(v=4),
)
@example("GET", PATHS[4], "Example.com:80", True, [FIELDS[0], FIELDS[2], FIELDS[3]], set(), 0x0A010203)
@example("HEAD", PATHS[5], "example.com", False, [FIELDS[1], FIELDS[4]], {1}, 0x7F000001)
@example("GET", PATHS[2], "example.com", False, [FIELDS[0], FIELDS[1], FIELDS[3]], {0, 2}, 0xFFFFFFFF)
def test_equal_requests_have_the_endpoint_that_they_have_elsewhere(
    by: str, method: str, path: str, host: str, secure: bool, fields: list[tuple[str, str]], out: set[int], client: Any
) -> None:
    both = five()
    both.put_out(out)
    asked = Asked(host, path, secure, method, int(client), fields=tuple(fields))
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    raw = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode("utf-8", "surrogateescape")
    found = of_key(hashing(by), both.memory, raw, asked)
    if found < 0:
        assert PUNTS[-found - FIRST_PUNT].startswith("the route chooses endpoints by a cookie, or a hash")
        user, cookies = ([value for key, value in fields if key.lower() == name] for name in ("x-user", "cookie"))
        assert ("x_User" in by and len(user) > 1) or ("cookie" in by and "id=é" in cookies)
        return
    scheme = "https" if secure else "http"

    def value(name: str) -> str:
        return asked.value(name.lower())

    request = Request(method, scheme, host, path, int(client), 0, value, address=int_to_ip(int(client)))
    there = both.target.fit(())
    addresses = ["{}:{}".format(*backend.endpoint.address) for backend in there]
    assert found == there[endpoints_of(Conduct(Policies(hash_by=by)).hash_key(request), addresses, 1)[0]].number


def test_equal_requests_share_as_many_endpoints_as_is_said() -> None:
    both = five()
    both.put_out(set())
    addresses = ["{}:{}".format(*backend.endpoint.address) for backend in both.backends]
    for subset in (1, 2, 3, SUBSET):
        roads, raw = hashing("$uri", subset), b"GET /a HTTP/1.1\r\nHost: example.com\r\n\r\n"
        found = Counter(of_key(roads, both.memory, raw, Asked("example.com", "/a"), draw) for draw in draws(60))
        expected = [both.backends[place].number for place in endpoints_of("/a", addresses, subset)]
        assert found.keys() == set(expected)
        assert [*found.values()] == pytest.approx([60 / len(expected)] * len(expected), abs=1)


def test_more_endpoints_than_a_few_or_a_name_that_is_no_ascii_are_punted() -> None:
    for asks in (Policies(hash_by="$uri", hash_subset=SUBSET + 1), Policies(hash_by="$arg_é")):
        roads = fastroutes.compile(with_policies(balanced(RANDOM, [1]), asks))
        assert PUNTS[int(roads.rules[1]["punt"]) - FIRST_PUNT].startswith("the route chooses endpoints by a cookie, or")
