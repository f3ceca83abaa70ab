"""Pods that behave: what runs for a container, made to take time, to queue and to fail as annotations ask.

Law: only the HTTP servers of a pod's first container behave; the readiness probe is answered as before, at once, so
that a slow pod is slow and not gone. A request holds its slot while it is served, and the order of waiting is the order
of coming. Annotations that change while it runs count for the requests that come from then on. Timers of the event loop
go by milliseconds: a service time is up to 1 ms longer than it was drawn.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiohttp import web

from plane.behaviour import PREFIX, Behaviour, Draws, behaviour_of, samples
from plane.pods.answer import Answer, Handler
from plane.pods.probes import USER_AGENT
from plane.pods.server import HttpServer, Workload
from plane.pods.spec import ContainerSpec, StartError


def behaving(spec: ContainerSpec, made: Workload) -> Workload:
    """The workload of a container, behaving as its pod's annotations ask.

    Raises StartError where they ask it of one without an HTTP server, or name a file without times.
    """
    if not spec.is_first:
        return made
    servers = [server for server in made.servers if isinstance(server, HttpServer)]
    busy = Behaving()
    for server in servers:
        server.through(busy.around)

    def behave(annotations: Mapping[str, Any]) -> None:
        asked = behaviour_of(annotations)
        if asked is not None and not servers:
            what = f"annotations under {PREFIX} ask how HTTP is served, and {spec.image} serves none as it runs here"
            raise StartError("RunContainerError", f"{what}; leave them out")
        busy.slots = None if asked is None else Slots(asked, Draws(asked, spec.ip, _samples(asked)), busy.started)

    behave(spec.pod["metadata"].get("annotations") or {})
    return replace(made, behave=behave)


class Behaving:
    """What is around the handlers of a container's servers. ``slots`` None: as if it were not there."""

    def __init__(self) -> None:
        self.slots: Slots | None = None
        self.started = time.monotonic()

    def around(self, handler: Handler) -> Handler:
        """The handler, served by whatever slots there are when a request comes."""

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            if self.slots is None or request.headers.get("User-Agent") == USER_AGENT:
                return await handler(request)
            return await self.slots.serve(handler, request)

        return handle


class Slots:
    """Where a container's requests are served: so many at once, so many waiting, each for as long as it is drawn."""

    def __init__(self, asked: Behaviour, draws: Draws, started: float):
        """``started``: when the container was, by the monotonic clock."""
        self._draws = draws
        self._queue = asked.queue
        self._slots = None if asked.concurrency is None else asyncio.Semaphore(asked.concurrency)
        self._waiting = 0
        self._started = started

    async def serve(self, handler: Handler, request: web.BaseRequest) -> web.StreamResponse:
        """The handler's answer, or an error, once there is a slot and the time has passed."""
        if self._slots is None:
            return await self._served(handler, request)
        if self._slots.locked() and self._waiting == self._queue:
            return Answer(f"the queue is full, {self._queue} wait in it\n", 503)
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._served(handler, request)
        finally:
            self._slots.release()

    async def _served(self, handler: Handler, request: web.BaseRequest) -> web.StreamResponse:
        takes_s, fails = self._draws.service_s(time.monotonic() - self._started), self._draws.fails()
        if takes_s:
            await asyncio.sleep(takes_s)
        return Answer("an error, as the annotation error-rate asks\n", 500) if fails else await handler(request)


def _samples(asked: Behaviour) -> list[float]:
    """The service times in the file that is asked for, relative to where the plane runs. Raises StartError."""
    file = asked.service_time.file
    if not file:
        return []
    try:
        return samples(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        said = problem.strerror if isinstance(problem, OSError) else problem
        raise StartError("CrashLoopBackOff", f"{PREFIX}service-time: {Path(file).absolute()}: {said}") from None
