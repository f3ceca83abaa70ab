"""What one change costs does not grow with the number of other Services: counted, not timed.

Counted are calls, of Python and of C, in the thread that makes the change and in the relay's: what goes through all of
something in Python makes as many. What copies all of something shows in the bytes that are allocated meanwhile. Both
may grow with the logarithm, as the trees of ``plane.rows`` do. How long it takes, ``make bench-growth`` measures.
"""

import contextlib
import math
import statistics
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from plane import statuses
from plane.addresses import AddressPlan
from plane.compiler import Compiler
from plane.defaults import defaulted
from plane.journal import Journal
from plane.proxy import Proxy
from plane.store import Store
from tests.benchmarks.growth import endpoint_slice, service

pytestmark = pytest.mark.syscalls

FEW, MANY = 20, 1_000
TIMES_TEN = 0.02  # of the calls, for ten times as many Services: half a level more of trees
BYTES = 0.1
CHANGES = 5


class Plane:
    """Store, controllers, compiler, journal and the relay of a node, one after the other as ``ControlPlane`` has it."""

    def __init__(self, plan: AddressPlan, proxy: Proxy, services: int):
        self._store, self._compiler, self._journal = Store(plan), Compiler(bound_port=plan.bound_port), Journal()
        self._proxy, self._services, self._changes = proxy, services, 0
        numbers = range(services)
        others = [obj for number in numbers for obj in (defaulted(service(number, "")), endpoint_slice(number))]
        self._store.update([statuses.node(1, plan, ready=True, now="2026-01-01T00:00:00Z"), *others])
        self._install()

    def change(self) -> None:
        """One endpoint of one Service, each time of another one, is replaced."""
        self._changes += 1
        self._store.replace(endpoint_slice(7 * self._changes % self._services, self._changes))
        self._install()

    def _install(self) -> None:
        tables, _, _ = self._compiler.compile(self._store.snapshot)
        self._journal = self._journal.noted(tables.patch)
        assert self._proxy.install(*self._journal.since(self._proxy.generation or None)).problems == ()
        assert self._proxy.generation == tables.generation


@pytest.fixture
def counting() -> Iterator[Callable[[Callable[[], None]], int]]:
    """How many calls something makes, those of threads included that are started in the test."""
    calls = [0]

    def count(_frame: Any, event: str, _given: Any) -> None:
        calls[0] += event in ("call", "c_call")

    def counted(work: Callable[[], None]) -> int:
        before = calls[0]
        sys.setprofile(count)
        try:
            work()
        finally:
            sys.setprofile(None)
        return calls[0] - before

    threading.setprofile(count)
    yield counted
    threading.setprofile(None)  # type: ignore[arg-type]


@contextlib.contextmanager
def planned(plan: AddressPlan, services: int) -> Iterator[Plane]:
    proxy = Proxy(plan, 1, connections=64)
    proxy.start()
    try:
        yield Plane(plan, proxy, services)
    finally:
        proxy.stop(0)


def allocated(work: Callable[[], None]) -> int:
    """Bytes that there were at most beyond those before."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_change_costs_as_much_among_many_services_as_among_few(plan: AddressPlan, counting):
    costs = []
    for services in (FEW, MANY):
        with planned(plan, services) as plane:
            plane.change()  # the first one after a large change finds that one's results new
            calls = [counting(plane.change) for _ in range(CHANGES)]
            nbytes = [allocated(plane.change) for _ in range(CHANGES)]
            costs.append((statistics.median(calls), statistics.median(nbytes)))
    (few, few_bytes), (many, many_bytes) = costs
    assert many <= few * (1 + TIMES_TEN * math.log10(MANY / FEW))
    assert many_bytes <= few_bytes * (1 + BYTES)
