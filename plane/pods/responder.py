"""trafficplane/responder: the same bytes to every request, by compiled code, so that the pod is not what is measured.

Arguments: ``--port 8080``, ``--size 100`` for the bytes of an answer's body. It swallows bodies of an announced length;
a chunked request ends its connection by reset, as ``kernels.net.httpresponder`` says.
"""

import asyncio
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from functools import partial

from kernels import warm
from kernels.layout_load import HttpResponder
from kernels.net import httpresponder
from kernels.net.httpresponder import Counter
from plane.pods.flags import Flags
from plane.pods.server import Deadline, Server, Workload, bind, quiet, until
from plane.pods.spec import ContainerSpec, Listen, StartError

PROGRAM = "responder"
CONNECTIONS = 4096
LARGEST_BYTES = 16 << 20
BREATH_NS = 20_000_000
ROWS = 16384  # of requests, that are kept until a breath is over


def workload(spec: ContainerSpec) -> Workload:
    """Raises StartError for a flag that is wrong."""
    flags = Flags(PROGRAM, spec.arguments(PROGRAM), {"port": "8080", "size": "100"})
    size = flags.integer("size")
    if not 0 <= size <= LARGEST_BYTES:
        raise StartError("RunContainerError", f"{PROGRAM}: --size {size} is no size, choose 0 to {LARGEST_BYTES}")
    return Workload([Responder(spec.listen(flags.port("port")), size)])


class Responder(Server):
    """Answers in a thread of its own, which holds no lock of Python's while it does."""

    def __init__(self, listen: Listen, size: int):
        self._listen = listen
        self._size = size
        self._draining = threading.Event()
        self._over = threading.Event()
        self._ended: asyncio.Future[str] | None = None
        self._responder: HttpResponder | None = None
        self._listener: socket.socket | None = None

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(warm.once, "httpresponder", httpresponder.warm)
        self._listener = bind(self._listen, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
        counter = Counter(self._listener.fileno(), httpresponder.answer_of(self._size))
        keeping = ROWS if self.served is not None else 0
        self._responder = httpresponder.create([counter], CONNECTIONS, keeping)
        self._ended = loop.create_future()
        ended = partial(_tell, loop, self._ended)
        threading.Thread(
            target=self._run, args=(self._responder, self._listener, ended), name=PROGRAM, daemon=True
        ).start()

    async def failed(self) -> str:
        assert self._ended is not None
        return await asyncio.shield(self._ended)

    async def drain(self, deadline: Deadline) -> None:
        if self._responder is not None:
            hall = self._responder.hall
            await quiet(lambda: (int(hall[0]["free"]), int(hall[0]["answered"])), deadline)
            self._draining.set()
            await until(lambda: hall[0]["free"] == CONNECTIONS, deadline)
        await self.abort()

    async def abort(self) -> None:
        self._over.set()
        if self._ended is not None:
            await self.failed()

    def descriptors(self) -> list[int]:
        here = [] if self._listener is None else [self._listener.fileno()]
        visitors = [] if self._responder is None else self._responder.visitors["fd"].tolist()
        return [fd for fd in here + visitors if fd >= 0]

    def _run(self, responder: HttpResponder, listener: socket.socket, ended: Callable[[str], None]) -> None:
        """The thread. It alone closes sockets: between breaths, when no descriptor of theirs is in use."""
        with select.epoll() as epoll:
            responder.hall[0]["epoll"] = epoll.fileno()
            status = int(httpresponder.listen(responder))
            while status == 0 and not self._over.is_set():
                if self._draining.is_set():
                    listener.close()
                    httpresponder.end_idle(responder)
                status = int(httpresponder.breath(responder, time.monotonic_ns() + BREATH_NS))
                self._take_served(responder)
            listener.close()
            httpresponder.end_all(responder)
        ended(f"{PROGRAM}: {os.strerror(-status)}" if status else f"{PROGRAM} was told to end")

    def _take_served(self, responder: HttpResponder) -> None:
        if self.served is not None and (rows := int(responder.hall[0]["served"])):
            self.served.add_rows(responder.served[:rows])
            responder.hall[0]["served"] = 0


def _tell(loop: asyncio.AbstractEventLoop, future: asyncio.Future[str], said: str) -> None:
    def tell() -> None:
        if not future.done():
            future.set_result(said)

    with contextlib.suppress(RuntimeError):  # nobody is there any more to be told
        loop.call_soon_threadsafe(tell)
