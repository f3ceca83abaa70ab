"""What one change costs, counted rather than timed.

Counted are calls, of Python and of C, in the thread that makes the change and in the relay's: what goes through all of
something in Python makes as many. What copies all of something shows in the bytes that are allocated meanwhile.
"""

import sys
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any, NamedTuple

from plane import statuses
from plane.addresses import AddressPlan
from plane.compiler import Compiler
from plane.defaults import defaulted
from plane.journal import Journal
from plane.model import Object
from plane.proxy import Proxy
from plane.store import Store

CHANGES = 5
STRIDE = 7  # from one Service that changes to the next


class Cost(NamedTuple):
    """The least of some changes: calls, and bytes beyond those before that there were at most.

    A relay that waits makes calls too, the more the longer a change takes: that only adds.
    """

    calls: float
    nbytes: float


class Plane:
    """Store, controllers, compiler, journal and the relay of a node, one after the other as ``ControlPlane`` has it."""

    def __init__(self, plan: AddressPlan, proxy: Proxy, objects: list[Object], changed: Callable[[int, int], Object]):
        """``changed(number, n)`` is the nth version of the object that changes in Service ``number``."""
        self._store, self._compiler, self._journal = Store(plan), Compiler(bound_port=plan.bound_port), Journal()
        self._proxy, self._changed, self._changes = proxy, changed, 0
        self._services = sum(obj["kind"] == "Service" for obj in objects)
        node = statuses.node(1, plan, ready=True, now="2026-01-01T00:00:00Z")
        self._store.update([node, *map(defaulted, objects)])
        self._install()

    def change(self) -> None:
        """A change of one Service, each time of another one."""
        self._changes += 1
        self._store.replace(self._changed(STRIDE * self._changes % self._services, self._changes))
        self._install()

    def _install(self) -> None:
        tables, _, _ = self._compiler.compile(self._store.snapshot)
        self._journal = self._journal.noted(tables.patch)
        installed = self._proxy.install(*self._journal.since(self._proxy.generation or None))
        if installed != (tables.generation, ()):
            raise RuntimeError(f"generation {tables.generation} is not in force: {installed}")


def cost(plan: AddressPlan, objects: list[Object], changed: Callable[[int, int], Object]) -> Cost:
    """What a change costs in a plane of these objects, see ``Plane``."""
    calls: dict[int, int] = {}  # by thread, none of which counts over another's count

    def count(_frame: Any, event: str, _given: Any) -> None:
        own = threading.get_ident()
        calls[own] = calls.get(own, 0) + (event in ("call", "c_call"))

    def counted(work: Callable[[], None]) -> int:
        before = sum(calls.values())
        sys.setprofile(count)
        try:
            work()
        finally:
            sys.setprofile(None)
        return sum(calls.values()) - before

    threading.setprofile(count)
    proxy = Proxy(plan, 1, connections=64)
    try:
        proxy.start()
        plane = Plane(plan, proxy, objects, changed)
        plane.change()  # the first one after a large change finds that one's results new
        several = [counted(plane.change) for _ in range(CHANGES)]
        nbytes = [_allocated(plane.change) for _ in range(CHANGES)]
    finally:
        proxy.stop(0)
        threading.setprofile(None)  # type: ignore[arg-type]
    return Cost(min(several), min(nbytes))


def _allocated(work: Callable[[], None]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
