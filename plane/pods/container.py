"""One container of a pod: starts its workload, again with a growing back-off where it can't, and asks its probe."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from plane.model import Object
from plane.pods import images
from plane.pods.probes import Prober
from plane.pods.served import Served
from plane.pods.server import Deadline, Workload
from plane.pods.spec import ContainerSpec, StartError
from plane.pods.status import Phase

FIRST_BACKOFF_S = 0.5
LAST_BACKOFF_S = 30.0
# Who ran so long is not the one that can't start.
STABLE_S = 60.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ContainerState:
    """What there is to say of a container, with reason and message as in PodStatus."""

    phase: Phase = "Pending"
    ready: bool = False
    restarts: int = 0
    started_ns: int = 0
    reason: str = "ContainerCreating"
    message: str = ""


class Container:
    """Runs from ``start`` until ``drain`` or ``abort``; ``changed`` is called after each change of ``state``.

    ``served``: where its requests are written down, None: nowhere.
    """

    def __init__(self, spec: ContainerSpec, prober: Prober, changed: Callable[[], None], served: Served | None = None):
        self.spec = spec
        self.state = ContainerState()
        self._prober = prober
        self._changed = changed
        self._served = served
        self._workload: Workload | None = None
        self._task: asyncio.Task[None] | None = None
        self._refused: asyncio.Future[str] | None = None  # why it can't run on as it is told to, while it runs

    @property
    def delay_shutdown_s(self) -> float:
        """How long it goes on as before when told to end."""
        return self._workload.delay_shutdown_s if self._workload is not None else 0.0

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def behave(self, annotations: Object) -> None:
        """Has it go on as these annotations of its pod ask; where it cannot, it ends as it would at its start."""
        metadata = {**self.spec.pod["metadata"], "annotations": annotations}
        self.spec = replace(self.spec, pod={**self.spec.pod, "metadata": metadata})
        try:
            if self._workload is not None:
                self._workload.behave(annotations)
        except StartError as problem:
            if self._refused is not None and not self._refused.done():
                self._refused.set_result(str(problem))

    async def drain(self, deadline: Deadline) -> None:
        """Ends gracefully; returns when nothing is left. The probe is made no more."""
        await self._stop_running()
        if self._workload is not None:
            await asyncio.gather(*(server.drain(deadline) for server in self._workload.servers))
            self._workload = None

    async def abort(self) -> None:
        """Ends at once."""
        await self._stop_running()
        await self._abort_workload()

    async def _stop_running(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        backoff_s = FIRST_BACKOFF_S
        restarts = 0
        while True:
            began = time.monotonic()
            reason = "CrashLoopBackOff"
            try:
                self._workload = images.workload(self.spec)
                for server in self._workload.servers:
                    server.served = self._served
                    await server.start()
                message = await self._serve(restarts)
            except StartError as problem:
                reason, message = problem.reason, str(problem)
            except Exception as problem:
                log.exception("pod %s: container %s has failed", self.spec.pod_name, self.spec.name)
                message = f"{type(problem).__name__}: {problem}"
            if time.monotonic() - began > STABLE_S:
                backoff_s = FIRST_BACKOFF_S
            await self._abort_workload()
            if self.spec.pod["spec"].get("restartPolicy") == "Never":
                self._set(ContainerState("Failed", restarts=restarts, reason="Error", message=message))
                return
            self._set(ContainerState(restarts=restarts, reason=reason, message=message))
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, LAST_BACKOFF_S)
            restarts += 1

    async def _serve(self, restarts: int) -> str:
        """Probes the running workload; returns why it ended, should it end by itself."""
        assert self._workload is not None
        self._refused = asyncio.get_running_loop().create_future()
        watching: list[asyncio.Future[str]] = [asyncio.create_task(each.failed()) for each in self._workload.servers]
        watching.append(asyncio.create_task(self._probe(restarts)))
        watching.append(self._refused)
        try:
            done, _ = await asyncio.wait(watching, return_when=asyncio.FIRST_COMPLETED)
            return next(iter(done)).result()
        finally:
            for task in watching:
                task.cancel()
            await asyncio.wait(watching)

    async def _probe(self, restarts: int) -> str:
        """Keeps ``state`` as the readiness probe finds it; never returns."""
        started_ns = time.monotonic_ns()
        async with contextlib.aclosing(self._prober.watch(self.spec)) as verdicts:
            async for verdict in verdicts:
                reason = "ReadinessProbeFailed" if verdict.message else "ContainersNotReady"
                self._set(
                    ContainerState(
                        phase="Running",
                        ready=verdict.ready,
                        restarts=restarts,
                        started_ns=started_ns,
                        reason="" if verdict.ready else reason,
                        message=verdict.message,
                    )
                )
        return await asyncio.get_running_loop().create_future()

    async def _abort_workload(self) -> None:
        if self._workload is not None:
            workload, self._workload = self._workload, None
            await asyncio.gather(*(server.abort() for server in workload.servers))

    def _set(self, state: ContainerState) -> None:
        if state != self.state:
            self.state = state
            self._changed()
