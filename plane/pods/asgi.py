"""Servers of Python apps: uvicorn for ASGI, aiohttp's own for a ``web.Application``. Each runs in the running loop."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn
from aiohttp import web

from plane.pods.served import REQUEST_ID
from plane.pods.server import (
    ABORT_PATIENCE_S,
    Deadline,
    Server,
    WebServer,
    descriptors,
    listening,
    quiet,
    until,
)
from plane.pods.spec import Listen, StartError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]

# As long as nginx's. uvicorn's 5 s would close idle connections under the hands of whoever keeps a pool of them.
KEEP_ALIVE_S = 75


class AiohttpServer(WebServer):
    """An aiohttp application, with its start-up, shutdown and clean-up."""

    def __init__(self, listen: Listen, app: web.Application):
        super().__init__(listen)
        self._app = app

    async def make(self) -> web.Server:
        self._app.on_response_prepare.append(self._announce)
        runner = web.AppRunner(self._app, access_log=None)
        await runner.setup()
        assert runner.server is not None
        return runner.server

    async def start(self) -> None:
        try:
            await super().start()
        except BaseException:
            await self._app.cleanup()
            raise

    async def drain(self, deadline: Deadline) -> None:
        await super().drain(deadline)
        await self._app.cleanup()

    async def stopping(self) -> None:
        await self._app.shutdown()

    async def _announce(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """A streamed response, too, says that its connection is to be closed: before its head is sent."""
        if self.draining:
            response.force_close()
            response.headers["Connection"] = "close"


class AsgiServer(Server):
    """An ASGI application by uvicorn, with its lifespan."""

    def __init__(self, listen: Listen, app: AsgiApp):
        self._listen = listen
        self._app = app
        self._accepted = 0
        self._requests = 0
        self._draining = False
        self._startup_failure = ""
        self._listener: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                self._tracked,
                http="httptools",
                interface="asgi3",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )

    async def start(self) -> None:
        server = self._uvicorn
        server.config.load()
        server.lifespan = server.config.lifespan_class(server.config)
        try:
            # The lifespan only: uvicorn is given no socket, the listener below is ours to close.
            await server.startup(sockets=[])
        except SystemExit:
            lines = self._startup_failure.strip().splitlines() or ["its lifespan said so"]
            raise StartError("CrashLoopBackOff", f"the app's start-up failed: {lines[-1]}") from None
        try:
            self._listener = await listening(self._accept, self._listen)
        except BaseException:
            await server.lifespan.shutdown()
            raise
        self._tasks.append(asyncio.create_task(server.main_loop()))

    async def drain(self, deadline: Deadline) -> None:
        self._draining = True
        if self._listener is not None:
            await quiet(lambda: (self._accepted, self._requests), deadline)
            self._listener.close()
            self._uvicorn.should_exit = True
            ending = asyncio.create_task(self._uvicorn.shutdown(sockets=[]))
            self._tasks.append(ending)
            await until(ending.done, deadline)
        await self.abort()

    async def abort(self) -> None:
        if self._listener is not None:
            self._listener.close()
        state = self._uvicorn.server_state
        tasks = [*self._tasks, *state.tasks]
        for task in tasks:
            task.cancel()
        for connection in list(state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()
        patience = Deadline(ABORT_PATIENCE_S)
        await until(lambda: not state.connections and all(task.done() for task in tasks), patience, 0)
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                if task.done():
                    task.result()

    def descriptors(self) -> list[int]:
        connections = list(self._uvicorn.server_state.connections)
        transports = [getattr(row, "transport", None) for row in connections]
        return descriptors(self._listener, [row for row in transports if row is not None])

    def _accept(self) -> asyncio.Protocol:
        self._accepted += 1
        server = self._uvicorn
        return server.config.http_protocol_class(  # type: ignore[call-arg]
            config=server.config, server_state=server.server_state, app_state=server.lifespan.state
        )

    async def _tracked(self, scope: Message, receive: Receive, send: Send) -> None:
        """The app, with its requests counted, and its responses closing their connections while it drains."""
        if scope["type"] != "lifespan":
            self._requests += 1
        received_ns = time.monotonic_ns() if self.served is not None else 0

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start" and self._draining:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            elif message["type"] == "lifespan.startup.failed":
                self._startup_failure = message.get("message", "")
            if self.served is not None and _ends_answer(message):
                self.served.add(_request_id(scope), received_ns, time.monotonic_ns())
            await send(message)

        await self._app(scope, receive, sent)


def _ends_answer(message: Message) -> bool:
    return message["type"] == "http.response.body" and not message.get("more_body", False)


def _request_id(scope: Message) -> str:
    found = (value for name, value in scope["headers"] if name == REQUEST_ID.lower().encode())
    return next(found, b"").decode("latin-1")
