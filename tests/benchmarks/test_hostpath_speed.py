"""Which road a request has, compiled, beside the Router's dictionaries: with 1, 100 and 10,000 rules.

A round is CALLS look-ups from compiled code, of one request again and again or of every rule in turn.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kernels.jit import INTERPRETED, kernel
from kernels.layout import freeze
from kernels.layout_routes import Roads
from kernels.net import hostpath
from plane import fastroutes, routecompiler, routes
from plane.router import Router
from tests.ingress.manifests import ingress, prefix, rule, service, slices, snapshot_of
from tests.plane.fast import multiplied, received

pytestmark = [
    pytest.mark.skipif(INTERPRETED, reason="compares machine code"),
    pytest.mark.benchmark(group="hostpath"),
]

CALLS = 10_000
SIZES = (1, 100, 10_000)
PATH = "/api/v1/things/42"


def routes_of(rules: int) -> routes.Routes:
    """So many hosts with a rule each, of equal length."""
    base = routecompiler.compile(
        snapshot_of(
            service("web"),
            *slices("web", [("127.244.1.2", 80)]),
            ingress("web", rule("example.com", prefix("/api", "web"))),
        )
    )
    return multiplied(base, [f"host-{number:05}.example.com" for number in range(rules)])


@pytest.fixture(scope="module", params=SIZES)
def table(request: pytest.FixtureRequest) -> routes.Routes:
    return routes_of(request.param)


@kernel
def find_all(roads, data, hosts, host_size, path, path_size):
    """The sum of the roads of requests for each of these hosts."""
    total = np.int64(0)
    for host in hosts:
        total += hostpath.find(roads, data, host, host_size, path, path_size)
    return total


def asked(table: routes.Routes, count: int) -> tuple[Any, np.ndarray, int, int, int]:
    """The bytes of as many hosts and of one path, and where they are."""
    names = [table.host_name(row) for row in range(1, len(table.hosts))][:count]
    data = received("".join((*names, PATH)).encode())
    places = np.arange(len(names), dtype=np.int64) * len(names[0])
    order = np.random.default_rng(1).permutation(np.resize(places, CALLS))
    return data, order, len(names[0]), len(data) - len(PATH), len(PATH)


def measure(benchmark: Any, roads: Roads, table: routes.Routes, count: int) -> None:
    data, hosts, host_size, path, path_size = asked(table, count)
    router = Router(table)
    for at in np.unique(hosts)[:50].tolist():
        row = hostpath.find(roads, data, at, host_size, path, path_size)
        assert roads.roads[row]["goal"] == router.match(data[at : at + host_size].tobytes().decode(), PATH).target > 0
    benchmark(find_all, roads, data, hosts, host_size, path, path_size)
    note(benchmark, table)


def note(benchmark: Any, table: routes.Routes) -> None:
    benchmark.extra_info["rules"] = len(table.paths) - 1
    if benchmark.stats:  # none where benchmarks run as tests
        benchmark.extra_info["ns"] = round(benchmark.stats["median"] / CALLS * 1e9)


def test_one_request(benchmark: Any, table: routes.Routes) -> None:
    measure(benchmark, fastroutes.compile(table), table, 1)


def test_every_rule_in_turn(benchmark: Any, table: routes.Routes) -> None:
    measure(benchmark, fastroutes.compile(table), table, len(table.hosts))


def test_router(benchmark: Any, table: routes.Routes) -> None:
    router, name = Router(table), table.host_name(1)

    def work() -> None:
        for _ in range(CALLS):
            router.match(name, PATH)

    benchmark(work)
    note(benchmark, table)


def test_compile_after_a_change_of_endpoints(benchmark: Any, table: routes.Routes) -> None:
    compiler, changing = fastroutes.Compiler(), [table, equal_but_for_endpoints(table)]
    compiler.compile(changing[0])

    def work() -> None:
        changing.reverse()
        compiler.compile(changing[0])

    benchmark(work)
    benchmark.extra_info["rules"] = len(table.paths) - 1


def equal_but_for_endpoints(table: routes.Routes) -> routes.Routes:
    """As ``routecompiler.compile`` makes it anew: equal tables, none of them the same."""
    tables = {name: freeze(getattr(table, name).copy()) for name in ("hosts", "paths", "targets", "backends", "text")}
    policies = type(table.policies)(*(freeze(rows.copy()) for rows in table.policies))
    return replace(
        table, policies=policies, services=tuple(map(type(table.services[0])._make, table.services)), **tables
    )
