"""A server in a thread and an event loop of its own.

Law: what is inside may block, raise or exit as it likes; whoever starts, drains or aborts it from outside is answered
within the deadline. A thread can't be killed: one that goes on blocking has its sockets shut from outside.
"""

import asyncio
import contextlib
import logging
import os
import socket
import threading
from collections.abc import Awaitable, Callable

from plane.dns.resolver import Resolver
from plane.pods import resolving
from plane.pods.server import Deadline, Server, until
from plane.pods.spec import StartError

# How long a loop is waited for that has been told to end: one that blocks does not hear of it.
PATIENCE_S = 1.0

log = logging.getLogger(__name__)


class Threaded(Server):
    """``make`` is called, and the server it returns started, in the thread's loop; ``resolver`` is asked for names."""

    def __init__(self, name: str, make: Callable[[], Awaitable[Server]], resolver: Resolver):
        self._name = name
        self._make = make
        self._resolver = resolver
        self._home: asyncio.AbstractEventLoop | None = None
        self._started: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[str] | None = None
        self._abandoned = False
        # Set by the thread, in this order.
        self._main: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._server: Server | None = None

    async def start(self) -> None:
        self._home = asyncio.get_running_loop()
        self._started, self._ended = self._home.create_future(), self._home.create_future()
        threading.Thread(target=self._run, name=self._name, daemon=True).start()
        await self._started

    async def failed(self) -> str:
        assert self._ended is not None
        return await asyncio.shield(self._ended)

    async def drain(self, deadline: Deadline) -> None:
        if self._loop is not None and self._server is not None and self._ended is not None:
            with contextlib.suppress(RuntimeError):  # the loop has just closed
                drained = asyncio.run_coroutine_threadsafe(self._server.drain(deadline), self._loop)
                ended = self._ended
                await until(lambda: drained.done() or ended.done(), deadline)
        await self.abort()

    async def abort(self) -> None:
        self._abandoned = True
        if self._ended is None:
            return
        if self._loop is not None and self._main is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(self._main.cancel)
        done, _ = await asyncio.wait([self._ended], timeout=PATIENCE_S)
        if not done:
            log.warning("%s blocks and has not ended: its sockets are shut, its thread is left behind", self._name)
            for descriptor in self._server.descriptors() if self._server is not None else ():
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as shut:
                    shut.shutdown(socket.SHUT_RDWR)

    # What follows runs in the thread, apart from _finished.

    def _run(self) -> None:
        problem: BaseException | None = None
        resolving.resolver_here.set(self._resolver)
        try:
            with asyncio.Runner(loop_factory=lambda: resolving.PodLoop(self._resolver)) as runner:
                runner.run(self._live())
        except BaseException as raised:
            problem = raised
        self._tell(lambda: self._finished(problem))

    async def _live(self) -> None:
        self._main, self._loop = asyncio.current_task(), asyncio.get_running_loop()
        if self._abandoned:
            return
        server = await self._make()
        server.served = self.served
        try:
            await server.start()
            self._server = server
            self._tell(self._serving)
            await self._loop.create_future()
        finally:
            await server.abort()

    def _tell(self, what: Callable[[], None]) -> None:
        assert self._home is not None
        with contextlib.suppress(RuntimeError):  # nobody is there any more to be told
            self._home.call_soon_threadsafe(what)

    def _serving(self) -> None:
        if self._started is not None and not self._started.done():
            self._started.set_result(None)

    def _finished(self, problem: BaseException | None) -> None:
        assert self._started is not None
        assert self._ended is not None
        told = f"the app ended: {type(problem).__name__}: {problem}" if problem is not None else "the app ended"
        if not self._started.done():
            known = isinstance(problem, StartError)
            self._started.set_exception(problem if known and problem else StartError("CrashLoopBackOff", told))
        if not self._ended.done():
            self._ended.set_result(told)
