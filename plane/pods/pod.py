"""One pod: its containers, and its way from creation to gone.

Law: a pod is named by its uid; a status is made from its containers' states each time it is asked for. Termination runs
in a task of the pod's own: asking for it never waits, asking again may only shorten the grace.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from plane.addresses import AddressPlan
from plane.model import Object
from plane.pods.container import Container
from plane.pods.probes import Prober
from plane.pods.served import Served
from plane.pods.server import Deadline, until
from plane.pods.spec import ContainerSpec
from plane.pods.status import Phase, PodStatus

DEFAULT_GRACE_S = 30

log = logging.getLogger(__name__)


class Pod:
    """Runs from ``start`` to ``gone``; ``changed`` is called after each change of its status.

    ``record``: makes of a container's spec where its requests are written down; None: nowhere.
    """

    def __init__(
        self,
        obj: Object,
        plan: AddressPlan,
        prober: Prober,
        changed: Callable[[], None],
        record: Callable[[ContainerSpec], Served] | None = None,
    ):
        self.grace_s = grace_of(obj)
        self._object = obj
        self._changed = changed
        specs = [ContainerSpec(obj, container, plan) for container in obj["spec"]["containers"]]
        self._containers = [Container(spec, prober, changed, record(spec) if record else None) for spec in specs]
        self._deadline: Deadline | None = None
        self._ending: asyncio.Task[None] | None = None
        self._draining = False
        self._gone = asyncio.Event()

    def start(self) -> None:
        for container in self._containers:
            container.start()

    def behave(self, annotations: Object) -> None:
        """Has it go on as these annotations ask, which are its own from now on."""
        if annotations != (self._object["metadata"].get("annotations") or {}):
            self._object = {**self._object, "metadata": {**self._object["metadata"], "annotations": annotations}}
            for container in self._containers:
                container.behave(annotations)

    def terminate(self, grace_s: float) -> None:
        """Begins graceful termination, or shortens the grace of one that has begun."""
        if self._deadline is not None:
            self._deadline.shorten(grace_s)
            return
        self._deadline = Deadline(grace_s)
        self._ending = asyncio.create_task(self._end(self._deadline))

    async def kill(self) -> None:
        """Ends at once; returns when nothing is left."""
        if self._ending is not None:
            self._ending.cancel()
            await asyncio.wait([self._ending])
        await self._abort()

    async def gone(self) -> None:
        """Returns when nothing is left of it."""
        await self._gone.wait()

    @property
    def status(self) -> PodStatus:
        metadata = self._object["metadata"]
        states = [(container.spec.name, container.state) for container in self._containers]
        phases: set[Phase] = {state.phase for _, state in states}
        running = phases == {"Running"}
        troubled = [(name, state) for name, state in states if state.reason] or states[:1]
        name, told = troubled[0]
        several = len(states) > 1 and told.message
        return PodStatus(
            namespace=metadata.get("namespace", "default"),
            name=metadata["name"],
            uid=metadata["uid"],
            phase="Failed" if "Failed" in phases else "Running" if running else "Pending",
            ready=all(state.ready for _, state in states) and not self._draining,
            restarts=sum(state.restarts for _, state in states),
            started_ns=max(state.started_ns for _, state in states) if running else 0,
            reason="Terminating" if self._draining else told.reason,
            message="" if self._draining else f'container "{name}": {told.message}' if several else told.message,
            gone=self._gone.is_set(),
        )

    async def _end(self, deadline: Deadline) -> None:
        delayed = Deadline(max(container.delay_shutdown_s for container in self._containers))
        await until(lambda: delayed.over, deadline)
        self._draining = True
        self._changed()
        if not deadline.over:
            await self._each(container.drain(deadline) for container in self._containers)
        await self._abort()

    async def _abort(self) -> None:
        await self._each(container.abort() for container in self._containers)
        self._gone.set()
        self._changed()

    async def _each(self, endings: Iterable[Coroutine[Any, Any, None]]) -> None:
        """Runs them all to their end: a failure in one may not keep the pod from going."""
        for result in await asyncio.gather(*endings, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("pod %s: failed to end gracefully", self._object["metadata"]["name"], exc_info=result)


def grace_of(obj: Object) -> float:
    """Seconds that a pod object has to end once it is told to."""
    given = obj["metadata"].get("deletionGracePeriodSeconds")
    return float(obj["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE_S) if given is None else given)
