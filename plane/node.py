"""One node: the relay for Services, its health checks, its DNS server and the pods, as an ordinary asyncio object.

Law: ``sync`` is told the whole of what is wanted and makes it so, however often it is told; it never waits for a pod to
end gracefully. Whatever blocks (the relay is a thread) is called from another thread, so the loop that pods answer in
never stands still.
"""

import asyncio
import contextlib
import time
from collections.abc import Collection, Sequence
from itertools import chain

import numpy as np

from kernels.layout import Fib
from kernels.lb.patches import Patch
from plane import relaymetrics
from plane.addresses import AddressPlan, ip_to_int
from plane.dns.names import NO_NAMES, Names
from plane.dns.server import DnsServer
from plane.errors import PlaneError
from plane.healthchecks import HealthCheck, HealthServer
from plane.installed import Installed
from plane.metrics import NODE_PORT, Exposition
from plane.model import Object
from plane.partition import tear
from plane.pods import served
from plane.pods.pod import Pod, grace_of
from plane.pods.probes import Prober
from plane.pods.served import Served
from plane.pods.spec import ContainerSpec
from plane.pods.status import PodStatus
from plane.proxy import Proxy


class Node:
    """Node ``number`` of a plan. All methods are for the loop it was started in.

    ``recording``: its pods keep a row for each request that carries a number, for ``served``.
    """

    def __init__(self, name: str, number: int, plan: AddressPlan, *, recording: bool = False):
        self.name = name
        self._plan = plan
        self._loop: asyncio.AbstractEventLoop | None = None
        self._proxy = Proxy(plan, number, failed=self._relay_failed)
        self._health = HealthServer(plan.node(number), number)
        self._exposition = Exposition(
            plan.node(number), NODE_PORT, lambda: relaymetrics.collect(self._proxy), blocking=True
        )
        self._problems: dict[str, tuple[str, ...]] = {"metrics": (), "relay": (), "health": (), "names": ()}
        self._checks: Collection[HealthCheck] = ()
        self._names = NO_NAMES
        self._dns = DnsServer(plan.node(number))
        self._installing = asyncio.Lock()
        self._prober = Prober(plan.node(number))
        self._pods: dict[str, Pod] = {}  # by uid
        self._recording = recording
        self._served: list[Served] = []  # of every container there ever was
        self._version = 0
        self._news = asyncio.Event()
        self._syncing = asyncio.Lock()
        self._stopped = False

    async def start(self) -> None:
        """Raises PlaneError where the relay can't start."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._proxy.start)
        await self._prober.open()
        self._problems["metrics"] = tuple(filter(None, (await self._exposition.start(),)))

    async def install(
        self,
        fib: Fib | None = None,
        patch: Patch | None = None,
        health: Collection[HealthCheck] | None = None,
        names: Names | None = None,
    ) -> Installed:
        """Puts tables, as ``Proxy.install`` has them, and names in force, and listens where it can.

        What is None stays as it is. Where the Fib that comes of it is refused, so is the rest.
        """
        async with self._installing:
            if newest := patch or fib:
                installed = await asyncio.to_thread(self._proxy.install, fib, patch)
                if installed.generation != newest.generation:
                    return installed
                self._problems["relay"] = installed.problems
            if health is not None or self._problems["health"]:
                self._checks = self._checks if health is None else health
                self._problems["health"] = await self._health.install(self._checks)
            if names is not None or self._problems["names"]:
                self._names = self._names if names is None else names
                self._problems["names"] = await self._dns.install(self._names)
            return Installed(self._proxy.generation, tuple(chain.from_iterable(self._problems.values())))

    async def sync(self, pods: Sequence[Object]) -> None:
        """Makes the node's pods those that are given, Pod objects with ``metadata.uid`` and ``status.podIP``.

        New ones are started, those with a ``deletionTimestamp`` begin to terminate, those that are missing are killed;
        others go on, and behave as their annotations now ask.
        """
        async with self._syncing:
            if self._stopped:
                raise PlaneError(f"{self.name}: stopped, so it takes no pods")
            wanted = {obj["metadata"]["uid"]: obj for obj in pods}
            missing = [self._pods.pop(uid) for uid in self._pods.keys() - wanted.keys()]
            # First, since a new pod may have the address of one that is missing.
            await asyncio.gather(*(pod.kill() for pod in missing))
            new = [obj for uid, obj in wanted.items() if uid not in self._pods]
            for obj in new:
                pod = self._pods[obj["metadata"]["uid"]] = Pod(
                    obj, self._plan, self._prober, self._changed, self._record if self._recording else None
                )
                pod.start()
            for uid, obj in wanted.items():
                self._pods[uid].behave(obj["metadata"].get("annotations") or {})
                if "deletionTimestamp" in obj["metadata"]:
                    self._pods[uid].terminate(grace_of(obj))
            if new or missing:
                self._changed()

    async def statuses(self, seen: int, timeout_s: float) -> tuple[int, list[PodStatus]]:
        """(version, all pods) as soon as the version is greater than ``seen``, or after ``timeout_s``.

        Raises PlaneError where the relay has failed.
        """
        deadline = time.monotonic() + timeout_s
        while self._version <= seen:
            try:
                await asyncio.wait_for(self._news.wait(), deadline - time.monotonic())
            except TimeoutError:
                break
        self._proxy.check()
        return self._version, [pod.status for pod in self._pods.values()]

    async def connections(self) -> dict[str, np.ndarray]:
        """The relay's connections as columns, ``Proxy.recorded``."""
        return await asyncio.to_thread(self._proxy.recorded)

    async def open_connections(self) -> dict[str, np.ndarray]:
        """The relay's connections that are there now as columns, ``Proxy.open``."""
        return await asyncio.to_thread(self._proxy.open)

    async def served(self) -> dict[str, np.ndarray | list[str]]:
        """When each request was with its pod as columns, ``plane.pods.served.columns``; none without ``recording``."""
        return served.columns(self._served)

    async def served_counts(self) -> dict[str, int]:
        """How many requests that carry a number each pod has answered so far, by ``namespace/name``."""
        return served.counts(self._served)

    async def cut_off(self, nodes: frozenset[int]) -> None:
        """Tears the network between these nodes of the plan and everybody else, ``plane.partition``."""
        await asyncio.to_thread(tear, self._plan, nodes)

    async def stop(self, grace_s: float) -> None:
        """Drains pods and relay for so long at most, then ends all of it. Nothing listens any more when it returns."""
        async with self._syncing:
            self._stopped = True
            relay = asyncio.create_task(asyncio.to_thread(self._proxy.stop, grace_s))
            pods = list(self._pods.values())
            for pod in pods:
                pod.terminate(min(grace_s, pod.grace_s))
            await asyncio.gather(relay, *(pod.gone() for pod in pods))
            self._pods.clear()
            await self._prober.close()
            async with self._installing:  # one that was under way opens nothing afterwards
                await self._health.stop()
                await self._dns.stop()
            await self._exposition.stop()

    def _record(self, spec: ContainerSpec) -> Served:
        found = Served(f"{spec.namespace}/{spec.pod_name}", ip_to_int(spec.ip))
        self._served.append(found)
        return found

    def _relay_failed(self) -> None:
        """Called in the relay's thread: whoever waits for statuses is to hear of it now."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended before
                self._loop.call_soon_threadsafe(self._changed)

    def _changed(self) -> None:
        self._version += 1
        self._news.set()
        self._news = asyncio.Event()
