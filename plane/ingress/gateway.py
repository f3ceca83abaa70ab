"""The compiled gateway of an ingress: one thread that carries plain HTTP, and leaves the rest to the asyncio side.

Law: the thread owns all that compiled code writes; whoever else wants something of it has it done between two breaths.
What is handed over goes to the asyncio loop as it came: the client's socket with the bytes that are not answered, and,
where its request was sent already, the endpoint's socket with what came of the answer. There it is one request as any.
"""

import asyncio
import logging
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from kernels import layout_gateway as layout
from kernels.layout_gateway import Way
from kernels.net import gateway as kernel
from kernels.net import requests, upstreams
from plane import fastroutes
from plane.addresses import int_to_ip
from plane.descriptors import allow_descriptors
from plane.errors import PlaneError
from plane.ingress import forwarding
from plane.ingress.timeouts import Timeouts
from plane.routes import Routes

BREATH_NS = 250_000_000
TICK_S = 0.05
DESCRIPTORS_BESIDES = 4096

log = logging.getLogger("trafficplane.ingress")
Address = tuple[str, int]


class Begun(NamedTuple):
    """A request of which something has been done: its endpoint was chosen, and maybe asked.

    upstream  the connection that it was sent on, None: it was not sent; ``data`` is what came of the answer
    used      that connection had carried another request before; age_s: since it last gave a sign of life
    """

    address: Address
    upstream: socket.socket | None = None
    data: bytes = b""
    used: bool = False
    age_s: float = 0.0
    whole: bool = True  # all of it was sent


class Handed(NamedTuple):
    """A client for the asyncio side: its socket, what it has sent and got no answer to, and what was begun of that."""

    client: socket.socket
    data: bytes
    begun: Begun | None


class Gateway:
    """The gateway's thread. ``take`` gets what is handed over, ``count`` rows of requests done; both in its thread."""

    def __init__(
        self,
        timeouts: Timeouts,
        port: int,
        take: Callable[[Handed], object],
        count: Callable[[np.ndarray], object],
        *,
        capacity: int = 8192,
    ):
        self._take = take
        self._count = count
        allow_descriptors(2 * capacity + DESCRIPTORS_BESIDES)
        self._gateway = kernel.create(capacity, 64)
        self._endpoints: dict[tuple[int, int], int] = {}  # (ip, port) → row
        self._compiler = fastroutes.Compiler()
        self._way: Way | None = None
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop = self._gateway.loop[0]
        loop["epoll"], loop["port"] = self._epoll.fileno(), port
        for name in ("read", "idle", "head", "send", "keep_alive"):
            loop[f"{name}_ns"] = int(getattr(timeouts, f"{name}_s") * 1e9)
        shortest_s = min(timeouts.read_s, timeouts.idle_s, timeouts.head_s, timeouts.send_s, timeouts.keep_alive_s)
        loop["tick_ns"] = int(min(TICK_S, shortest_s / 4) * 1e9)
        kernel.watch(self._gateway, self._wake, kernel.WAKE_KEY)
        self._questions: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._asking = threading.Lock()
        self._running = False
        self._stopping = False
        self._thread: threading.Thread | None = None

    def start(self, listener: socket.socket) -> None:
        """Accept from a listener; there is an ``install`` before."""
        kernel.watch(self._gateway, listener.fileno(), kernel.LISTENER_KEY)
        self._gateway.loop[0]["listener"], self._gateway.loop[0]["backlog"] = listener.fileno(), 1
        self._running = True
        self._thread = threading.Thread(target=self._run, name="gateway", daemon=True)
        self._thread.start()

    def install(self, routes: Routes, number: int) -> None:
        """Put Routes in force, which rows of requests done will name by ``number``."""
        roads = self._compiler.compile(routes)
        self.ask(lambda: self._swap(roads, number))

    def put_out(self, address: Address, seconds: float) -> None:
        """An endpoint has failed (or, with 0 seconds, answered): it is passed over for so long."""
        self.ask(lambda: self._put_out(address, time.monotonic_ns() + int(seconds * 1e9) if seconds else 0))

    @property
    def idle(self) -> int:
        """How many connections to endpoints wait for a request."""
        return int(self._gateway.loop[0]["idle"])

    @property
    def at_work(self) -> int:
        return int(self._gateway.loop[0]["at_work"])

    @property
    def clients(self) -> int:
        return len(self._gateway.clients) - 1 - int(self._gateway.loop[0]["clients"])

    def punts(self) -> dict[str, int]:
        """How many connections were handed over, for each reason there was."""
        return {
            text: int(self._gateway.punts[number])
            for number, text in layout.HANDED_REASONS.items()
            if self._gateway.punts[number]
        }

    def settle(self) -> None:
        """Have all requests that are done counted."""
        self.ask(self._count_done)

    def drain(self) -> None:
        """Accept no more; hand over who asks for nothing now, and the others once they are answered."""
        self._gateway.loop[0]["listener"] = -1
        self.ask(lambda: kernel.drain(self._gateway))

    def stop(self) -> None:
        """Close everything at once. Blocks for a moment."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        if self._thread is not None:
            self._thread.join()
        self._epoll.close()
        os.close(self._wake)

    def ask(self, question: Callable[[], Any]) -> Any:
        """What ``question`` returns when it is called between two breaths."""
        future: Future[Any] = Future()
        with self._asking:
            if not self._running:
                return question()
            self._questions.put((question, future))
            os.eventfd_write(self._wake, 1)
        return future.result()

    # What follows runs in the gateway's thread.

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._answer()
                status = kernel.breath(self._way, self._gateway, time.monotonic_ns() + BREATH_NS)
                if status < 0:
                    raise PlaneError(f"gateway: epoll_wait: {os.strerror(-status)}")
                self._give_away()
                if self._gateway.loop[0]["done"] > kernel.DONE_ROWS // 2:
                    self._count_done()
                self._date()
        except Exception:
            log.exception("the gateway has failed")
        finally:
            with self._asking:
                self._running = False
            self._give_away()
            kernel.end_all(self._gateway, time.monotonic_ns())
            self._count_done()
            self._answer()

    def _answer(self) -> None:
        for _ in range(self._questions.qsize()):
            question, future = self._questions.get()
            try:
                future.set_result(question())
            except BaseException as problem:
                future.set_exception(problem)

    def _date(self) -> None:
        self._gateway.ours.date[:] = np.frombuffer(forwarding.date() + b"\r\n", np.uint8)

    def _count_done(self) -> None:
        loop = self._gateway.loop[0]
        if loop["done"]:
            self._count(self._gateway.done[: loop["done"]].copy())
            loop["done"] = 0

    def _swap(self, roads: Any, number: int) -> None:
        self._count_done()
        rows = self._rows_of(roads)
        memory = fastroutes.create_memory(roads)
        if self._way is not None:
            memory = fastroutes.carry_over(self._way.roads, self._way.memory, roads)
        self._way = Way(roads, memory, rows)
        self._gateway.loop[0]["install"] = number
        self._date()
        kernel.close_left(self._gateway)

    def _rows_of(self, roads: Any) -> np.ndarray:
        """For each backend id the row of its endpoint; others have left, and their rows go to new ones when empty."""
        used = np.unique(roads.endpoints)
        addresses = {
            int(row): (int(roads.backends[row]["ip"]), int(roads.backends[row]["port"])) for row in used if row
        }
        wanted = set(addresses.values())
        table = self._gateway.endpoints
        for address, row in list(self._endpoints.items()):
            table[row]["left"] = address not in wanted
            if address not in wanted and not table[row]["all"]:
                del self._endpoints[address]
        missing = [address for address in sorted(wanted) if address not in self._endpoints]
        taken = set(self._endpoints.values())
        free = [row for row in range(1, len(table)) if row not in taken]
        if len(free) < len(missing):
            longer = np.zeros(len(table) + 2 * len(missing), table.dtype)
            longer[: len(table)] = table
            free += range(len(table), len(longer))
            self._gateway = self._gateway._replace(endpoints=longer)
        for address, row in zip(missing, free, strict=False):
            self._endpoints[address] = row
            self._gateway.endpoints[row] = (*address, 0, 0, 0, 0)
        rows = np.zeros(len(roads.backends), np.uint32)
        for backend, address in addresses.items():
            rows[backend] = self._endpoints[address]
        return rows

    def _put_out(self, address: Address, until_ns: int) -> None:
        assert self._way is not None
        row = next((row for (ip, port), row in self._endpoints.items() if (int_to_ip(ip), port) == address), 0)
        if row:
            self._way.memory.out_ns[self._way.endpoint_of == row] = until_ns

    def _give_away(self) -> None:
        """Take what compiled code has handed over, and leave its rows free."""
        gateway = self._gateway
        loop = gateway.loop[0]
        for row in gateway.handed[: loop["handed"]].tolist():
            client = gateway.clients[row]
            data = gateway.requests[row, client["start"] : client["end"]].tobytes()
            begun = self._begun(row)
            self._epoll.unregister(int(client["fd"]))
            handed = Handed(socket.socket(fileno=int(client["fd"])), data, begun)
            requests.forget(gateway, row)
            self._take(handed)
        loop["handed"] = 0

    def _begun(self, row: int) -> Begun | None:
        gateway, client = self._gateway, self._gateway.clients[row]
        number = int(client["upstream"])
        if not number and client["reason"] == layout.NO_CONNECTION and self._way is not None:
            backend = self._way.roads.backends[client["backend"]]
            return Begun((int_to_ip(int(backend["ip"])), int(backend["port"])))
        if not number:
            return None
        upstream = gateway.upstreams[number]
        endpoint = gateway.endpoints[upstream["endpoint"]]
        address = int_to_ip(int(endpoint["ip"])), int(endpoint["port"])
        data = gateway.answers[number, upstream["start"] : upstream["end"]].tobytes()
        age_s = (time.monotonic_ns() - int(upstream["since_ns"])) / 1e9
        self._epoll.unregister(int(upstream["fd"]))
        sent = socket.socket(fileno=int(upstream["fd"]))
        begun = Begun(address, sent, data, bool(upstream["used"]), age_s, client["sent"] == client["unsent"])
        upstreams.forget(gateway, number)
        gateway.loop[0]["at_work"] -= 1
        return begun


async def adopt(handed: Handed, make: Callable[[bytes, Begun | None], asyncio.BaseProtocol]) -> None:
    """Have the event loop go on with what was handed over."""
    loop = asyncio.get_running_loop()
    try:
        await loop.connect_accepted_socket(lambda: make(handed.data, handed.begun), handed.client)
    except OSError:  # it has left meanwhile
        handed.client.close()
        if handed.begun is not None and handed.begun.upstream is not None:
            handed.begun.upstream.close()
