"""One more route of 10,000 for an ingress in another process: by a patch, and as a whole.

Packed is what travels, and unpacked that from which the ingress has its Routes.
"""

import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from plane import routecompiler
from plane.endpointindex import EndpointIndex
from plane.routepatches import between, patched
from plane.routes import Routes, equal
from tests.ingress.manifests import ingress, prefix, rule, service, slices, snapshot_of

ROUTES = 10_000
Change = tuple[Routes, Routes]

PACK: dict[str, Callable[[Routes, Routes], bytes]] = {
    "patch": lambda before, now: pickle.dumps(between(before, now), 5),
    "whole": lambda before, now: pickle.dumps(now, 5),
}
UNPACK: dict[str, Callable[[Routes, bytes], Routes]] = {
    "patch": lambda before, data: patched(before, pickle.loads(data)),
    "whole": lambda before, data: pickle.loads(data),
}


@pytest.fixture(scope="module")
def change() -> Change:
    """Routes, and those with one more."""
    hosts = [rule(f"host-{number:05}.example.com", prefix("/api", "web")) for number in range(ROUTES + 1)]
    ingresses = [ingress(f"of-{number:05}", each) for number, each in enumerate(hosts)]
    before = snapshot_of(service("web"), *slices("web", [("127.244.1.2", 80)]), *ingresses[:-1])
    now = replace(before.changed(ingresses[-1:]), generation=before.generation + 1)
    index, compiler = EndpointIndex(), routecompiler.Compiler()
    one, other = (compiler.compile(each, index, index.follow(each)) for each in (before, now))
    return one, other


@pytest.mark.benchmark(group="routepatches: packed")
@pytest.mark.parametrize("form", PACK)
def test_packing(benchmark: Any, change: Change, form: str) -> None:
    data = benchmark(PACK[form], *change)
    benchmark.extra_info["bytes"] = len(data)


@pytest.mark.benchmark(group="routepatches: unpacked")
@pytest.mark.parametrize("form", UNPACK)
def test_unpacking(benchmark: Any, change: Change, form: str) -> None:
    before, now = change
    assert equal(benchmark(UNPACK[form], before, PACK[form](before, now)), now)
