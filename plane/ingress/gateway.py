"""A compiled gateway of an ingress: one thread that carries HTTP/1.1, and leaves the rest to the asyncio side.

Law: the thread owns all that compiled code writes; whoever else wants something of it has it done between two breaths.
What is handed over goes to the asyncio loop as it came: the client's socket with the bytes that are not answered, and,
where its request was sent already, the endpoint's socket with what came of the answer. There it is one request as any,
and once that has its answer the client may come back. To go there and back costs what compiled code saves on two or
three requests. So who is handed over again before WORTHWHILE answers stays for twice as many requests as before.
"""

import re
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from kernels import layout_gateway as layout
from kernels.layout_announced import AWAITED, NAMED
from kernels.layout_gateway import Way
from kernels.layout_http import IN_CHUNK, IN_TRAILERS, OVER, SIZED
from kernels.layout_log import LOST, TEXT_BYTES, UNSAID
from kernels.layout_routes import Roads
from kernels.net import gateway as kernel
from kernels.net import hostpath, openssl, requests, upstreams
from kernels.warm import is_there, once
from plane import fastroutes
from plane.addresses import int_to_ip
from plane.driver import Driver
from plane.ingress import fastedge, fastlog, fastspeeds, forwarding, sharedlimits
from plane.ingress.edge import Edge
from plane.ingress.fastlog import Done
from plane.ingress.forwarding import LAST_CHUNK
from plane.ingress.handing import Address, Back, Begun, Carried, Handed, Secured
from plane.ingress.timeouts import Timeouts
from plane.model import Snapshot
from plane.routecompiler import compile as compile_routes

BREATH_NS = 250_000_000
LOG_S = 0.2  # so often, at most, are lines of the log made, unless there are many
LOG_BATCHES = 16  # batches of them that may wait for the event loop
TICK_NS = 50_000_000  # how exactly times are kept, unless they are shorter themselves
LEAST_TICK_NS = 1_000_000
TIMES = ("read", "idle", "head", "body", "send", "keep_alive")
NOBODY = Edge()
NAME = "gateway"  # of what is compiled for it
WORTHWHILE = 8  # answers of compiled code
LONGEST_STAY = 1024  # requests of a client that the asyncio side answers before it gives it back
FOR_GOOD = frozenset(map(int, (layout.DRAINING, layout.FAILED, layout.ANNOUNCED_ODDLY)))

_LENGTH = re.compile(rb"(?im)^(content-length:)[^\r\n]*")


def warm(progress: Callable[[str], None] | None = None) -> None:
    """Compile, or load, what a gateway runs. Blocks, the first time for a minute; then ``progress`` gets a line."""

    def compile_all() -> None:
        if progress is not None and not is_there(NAME):
            progress("compiling for this machine, once: the gateway of the ingress")
        hostpath.warm()
        sharedlimits.warm()
        fastlog.warm()
        roads = fastroutes.compile(compile_routes(Snapshot()))
        kernel.warm(Way(roads, fastroutes.create_memory(roads), np.zeros(1, np.uint32)))

    once(NAME, compile_all)


def _leads_alike(one: Roads, other: Roads) -> bool:
    """Whether the same endpoints have the same ids; which they do as long as nothing but rules has changed."""
    return np.array_equal(one.endpoints, other.endpoints) and np.array_equal(one.backends, other.backends)


class Known(NamedTuple):
    """A client that may come back: what is known of it, as CLIENT has that, and after how many requests it may."""

    ip: int
    port: int
    ssl: int
    announced: int
    stay: int

    @property
    def peer(self) -> Address:
        return int_to_ip(self.ip), self.port

    @property
    def stays_longer(self) -> "Known":
        return self._replace(stay=_longer(self.stay))


class Gateway:
    """The gateway's thread. ``ports``: those of plain HTTP, which it has, and of HTTPS, which redirects name.

    ``tallies``: TALLY[…], which all who serve for its ingress share; None: it has some of its own. ``timed``: rows of
    requests done have the times of each, not those of the pass that it was looked at in. ``logs``: they have what an
    access log is told.

    What it calls there: ``take`` with what is handed over, ``count`` with requests done, and ``fail`` with why it has
    ended unasked: by then it has handed over everybody whom it can, and its listener is somebody else's. Of a
    client by TLS, ``carry`` makes what to hand over, or nothing, and may not wait for this thread.
    """

    def __init__(
        self,
        timeouts: Timeouts,
        ports: tuple[int, int],
        take: Callable[[Handed], object],
        count: Callable[[Done], object],
        fail: Callable[[str], object],
        carry: Callable[[Secured], Carried | None],
        *,
        edge: Edge = NOBODY,
        timed: bool = False,
        logs: bool = False,
        capacity: int,
        tallies: np.ndarray | None = None,
    ):
        self._take = take
        self._count = count
        self._fail = fail
        self._carry = carry
        times_ns = {f"{name}_ns": int(getattr(timeouts, f"{name}_s") * 1e9) for name in TIMES}
        tick_ns = max(LEAST_TICK_NS, min(TICK_NS, min(times_ns.values()) // 4))
        networks = fastedge.networks(edge)
        self._gateway = kernel.create(capacity, 64, networks, openssl.load(), tallies, logs=logs, tick_ns=tick_ns)
        self._room = threading.Semaphore(LOG_BATCHES)
        self._log_due_s = 0.0
        self._endpoints: dict[tuple[int, int], int] = {}  # (ip, port) → row
        self._way: Way | None = None
        self.given_back = 0  # how often a client has been, by the asyncio side
        self._driver = Driver("gateway", self._breathe, self._close, self._failed)
        loop = self._gateway.loop[0]
        loop["epoll"] = self._driver.epoll.fileno()
        loop["port"], loop["https_port"] = ports
        fastedge.announce(loop, edge)
        loop["timed"] = timed
        for name, time_ns in times_ns.items():
            loop[name] = time_ns
        kernel.watch(self._gateway, self._driver.wake, kernel.WAKE_KEY)
        self._listener: socket.socket | None = None

    def start(self, listener: socket.socket) -> None:
        """Accept from a listener; there is an ``install`` before."""
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # of which each client inherits it
        kernel.watch(self._gateway, listener.fileno(), kernel.LISTENER_KEY)
        self._gateway.loop[0]["listener"], self._gateway.loop[0]["backlog"] = listener.fileno(), 1
        self._listener = listener
        self._driver.start()

    def install(self, roads: Roads, number: int) -> Future[None]:
        """Put Roads in force, which rows of requests done will name by ``number``."""
        return self._driver.asked(lambda: self._swap(roads, number))

    def named(self) -> Future[list[int]]:
        """What rows of requests that are under way will name. Those that are done are counted by then."""
        return self._driver.asked(self._named)

    def hear(self, channel: int) -> None:
        """Take clients by TLS of a terminator's channel; before ``start``."""
        kernel.watch(self._gateway, channel, kernel.CHANNEL_KEY)
        self._gateway.loop[0]["channel"] = channel

    def put_out(self, address: Address, seconds: float) -> Future[None]:
        """An endpoint has failed (or, with 0 seconds, answered): it is passed over for so long."""
        until_ns = time.monotonic_ns() + int(seconds * 1e9) if seconds else 0
        return self._driver.asked(lambda: self._put_out(address, until_ns))

    def take_back(self, client: Known, fd: int) -> None:
        """Go on with a client that was handed over, or hand it over once more; waits for nothing."""
        self._driver.tell(lambda: self._take_back(client, fd))

    @property
    def idle(self) -> int:
        """How many connections to endpoints wait for a request."""
        return int(self._gateway.loop[0]["idle"])

    @property
    def at_work(self) -> int:
        return int(self._gateway.loop[0]["at_work"])

    @property
    def crowded_out(self) -> int:
        """How many clients were closed, idle, to make room for others."""
        return int(self._gateway.loop[0]["crowded_out"])

    @property
    def serves(self) -> bool:
        """Whether it carries requests, or has not begun."""
        return self._driver.running or not self._driver.has_begun

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

    def settle(self) -> Future[Done]:
        """The requests done that ``count`` has not been given."""
        return self._driver.asked(self._take_done)

    def drain(self) -> None:
        """Accept who waits for it and no more; hand over who asks for nothing, the others once they are answered."""
        if not self._driver.has_stopped:
            self._driver.ask(self._drain)

    def stop(self) -> None:
        """Close everything at once. Blocks for a moment."""
        self._driver.stop()

    # What follows runs in the gateway's thread.

    def _breathe(self) -> int:
        status = int(kernel.breath(self._way, self._gateway, time.monotonic_ns() + BREATH_NS))
        self._give_away()
        if self._is_due():
            self._count_done()
        self._date()
        return status

    def _close(self, problem: Exception | None) -> None:
        """Leave nothing behind; after a problem, as much as can be to the asyncio side."""
        self._count_done()
        if problem is not None:
            self._leave_listener()
            kernel.leave(self._gateway)
        self._give_away()
        kernel.end_all(self._gateway, time.monotonic_ns())
        self._count_done()

    def _failed(self, problem: Exception) -> None:
        why = "a thread of the compiled gateway has failed, and what it carried goes by asyncio until a restart"
        self._fail(f"{why}: {problem}")

    def _drain(self) -> None:
        kernel.drain(self._gateway, time.monotonic_ns())
        self._leave_listener()

    def _leave_listener(self) -> None:
        self._gateway.loop[0]["listener"] = -1
        if self._listener is not None:
            self._driver.epoll.unregister(self._listener)
            self._listener = None

    def _date(self) -> None:
        self._gateway.ours.date[:] = np.frombuffer(forwarding.date() + b"\r\n", np.uint8)

    def _is_due(self) -> bool:
        """Whether what is done is to be counted now: there is much of it, or the log waits for it."""
        loop = self._gateway.loop[0]
        if loop["texts"] and time.monotonic() >= self._log_due_s:
            return True
        return bool(loop["done"] > kernel.DONE_ROWS // 2 or 2 * loop["texts"] > TEXT_BYTES)

    def _count_done(self) -> None:
        done = self._take_done()
        if not len(done.rows):
            return
        if len(done.texts) and self._room.acquire(blocking=False):
            done = done._replace(room=self._room)
        elif len(done.texts):  # the event loop is behind: it is not for requests to wait, but for lines to be lost
            done.said["fate"][done.said["fate"] != UNSAID] = LOST
            done = done._replace(texts=done.texts[:0])
        self._count(done)

    def _take_done(self) -> Done:
        gateway, loop = self._gateway, self._gateway.loop[0]
        count = loop["done"]
        done = Done(gateway.done[:count].copy(), gateway.said[:count].copy(), gateway.texts[: loop["texts"]].copy())
        loop["done"] = loop["texts"] = 0
        self._log_due_s = time.monotonic() + LOG_S
        return done

    def _swap(self, roads: Roads, number: int) -> None:
        self._count_done()
        rows = self._rows_of(roads)
        if self._way is None:
            memory = fastroutes.create_memory(roads)
        else:
            memory = fastroutes.carry_over(self._way.roads, self._way.memory, roads)
        if self._way is None or roads.rules is not self._way.roads.rules:
            self._gateway.loop[0]["ruling"] += 1
        if self._way is not None and rows is not self._way.endpoint_of:
            fastspeeds.settle(roads, rows, self._gateway.endpoints, time.monotonic_ns())
        self._way = Way(roads, memory, rows)
        self._gateway.loop[0]["install"] = number
        self._date()

    def _named(self) -> list[int]:
        self._count_done()
        clients = self._gateway.clients
        under_way = (clients["state"] >= layout.CONNECTING) & (clients["state"] <= layout.ANSWERING)
        named: list[int] = np.unique(clients["install"][under_way | (clients["upstream"] != 0)]).tolist()
        return named

    def _rows_of(self, roads: Any) -> np.ndarray:
        """For each backend id the row of its endpoint; others have left, and their rows go to new ones when empty."""
        if self._way is not None and _leads_alike(self._way.roads, roads):
            return self._way.endpoint_of
        used = np.unique(roads.endpoints)
        addresses = {
            int(row): (int(roads.backends[row]["ip"]), int(roads.backends[row]["port"])) for row in used if row
        }
        wanted = set(addresses.values())
        table = self._gateway.endpoints
        self._let_go({address: row for address, row in self._endpoints.items() if address not in wanted})
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
            self._gateway.endpoints[row] = (*address, 0, 0, 0, 0, 0, 0.0, 0)
        rows = np.zeros(len(roads.backends), np.uint32)
        for backend, address in addresses.items():
            rows[backend] = self._endpoints[address]
        return rows

    def _let_go(self, left: dict[tuple[int, int], int]) -> None:
        """These endpoints have left, and no others: what is idle closes, and who has nothing besides is forgotten."""
        table, rows = self._gateway.endpoints, np.array(list(left.values()), np.int64)
        table["left"] = 0
        table["left"][rows] = 1
        if len(rows):
            kernel.close_left(self._gateway, rows)
        for address, row in left.items():
            if not table[row]["all"]:
                del self._endpoints[address]

    def _put_out(self, address: Address, until_ns: int) -> None:
        assert self._way is not None
        row = next((row for (ip, port), row in self._endpoints.items() if (int_to_ip(ip), port) == address), 0)
        if row:
            self._way.memory.out_ns[self._way.endpoint_of == row] = until_ns

    def _give_away(self) -> None:
        """Take what compiled code has handed over, and leave its rows free."""
        gateway = self._gateway
        loop = gateway.loop[0]
        while loop["handed"]:
            loop["handed"] -= 1  # first, so that none is taken twice
            row = int(gateway.handed[loop["handed"]])
            client = gateway.clients[row]
            data, begun = self._request(row), self._begun(row)
            fd = int(client["fd"])
            self._driver.epoll.unregister(fd)
            known, back = _known(client), int(client["reason"]) not in FOR_GOOD
            requests.forget(gateway, row)
            self._hand_over(known, fd, data, begun, back=back)

    def _hand_over(self, client: Known, fd: int, data: bytes = b"", begun: Begun | None = None, *, back: bool) -> None:
        """Give a client to the asyncio side, with a way back or without."""
        if not client.ssl:
            way, named = Back(partial(self.take_back, client), client.stay), client.announced == NAMED
            handed = Handed(socket.socket(fileno=fd), data, begun, named=client.peer if named else None)
            self._take(handed._replace(unheard=client.announced == AWAITED, back=way if back else None))
            return
        carried = self._carry(Secured(fd, client.ssl, client.peer))
        if carried is not None:
            handed = self._carried(client, fd, carried, carried.end)
            self._take(handed._replace(data=data, begun=begun, back=handed.back if back else None))
        elif begun is not None and begun.upstream is not None:
            begun.upstream.close()

    def _carried(self, client: Known, fd: int, carried: Carried, end: socket.socket) -> Handed:
        """A client by TLS, to be handed over; and once more, should it have said more before it was given back."""
        port = int(self._gateway.loop[0]["https_port"])

        def keep(end: socket.socket) -> None:
            self._take(self._carried(client.stays_longer, fd, carried, end))

        way = Back(partial(carried.give_back, partial(self.take_back, client, fd), keep), client.stay)
        return Handed(end, b"", None, secured=(client.peer, port), back=way)

    def _take_back(self, client: Known, fd: int) -> None:
        goes_on = self._driver.running and not self._gateway.loop[0]["draining"]
        who = fd, client.ssl, client.ip, client.port, client.announced, client.stay
        if goes_on and kernel.welcome_back(self._gateway, *who, time.monotonic_ns()):
            self.given_back += 1
        else:
            self._hand_over(client.stays_longer, fd, back=goes_on)

    def _request(self, row: int) -> bytes:
        """What a client has sent and has no answer to; of a body that is streaming the rest, framed as a whole one."""
        gateway, client = self._gateway, self._gateway.clients[row]
        data: bytes = gateway.requests[row, client["start"] : client["end"]].tobytes()
        if not client["streamed"]:
            return data
        head, body = gateway.heads[row], gateway.uploads[row]
        lines, rest = data[: head["size"]], data[head["size"] :]
        if head["framing"] == SIZED:
            return _LENGTH.sub(rb"\g<1>%d" % body["left"], lines) + rest
        begins = {OVER: LAST_CHUNK, IN_TRAILERS: b"0\r\n", IN_CHUNK: b"%x\r\n" % body["left"]}
        return lines + begins.get(int(body["state"]), b"") + rest

    def _begun(self, row: int) -> Begun | None:
        gateway, client = self._gateway, self._gateway.clients[row]
        number, now_ns = int(client["upstream"]), time.monotonic_ns()
        since_s = (now_ns - int(client["received_ns"])) / 1e9
        same = client["install"] == gateway.loop[0]["install"]  # or the number may be another's
        if not number and client["reason"] == layout.NO_CONNECTION and same and self._way is not None:
            backend = self._way.roads.backends[client["backend"]]
            return Begun((int_to_ip(int(backend["ip"])), int(backend["port"])), since_s=since_s)
        if not number:
            return None
        upstream = gateway.upstreams[number]
        endpoint = gateway.endpoints[upstream["endpoint"]]
        address = int_to_ip(int(endpoint["ip"])), int(endpoint["port"])
        data = gateway.answers[number, upstream["start"] : upstream["end"]].tobytes()
        streaming = bool(client["streamed"])
        self._driver.epoll.unregister(int(upstream["fd"]))
        begun = Begun(
            address,
            upstream=socket.socket(fileno=int(upstream["fd"])),
            data=data,
            used=bool(upstream["used"]),
            since_s=since_s,
            age_s=(now_ns - int(upstream["since_ns"])) / 1e9,
            whole=streaming or client["sent"] == client["unsent"],
            streaming=streaming,
            owed=gateway.unsent[row, client["sent"] : client["unsent"]].tobytes() if streaming else b"",
            over=streaming and gateway.uploads[row]["state"] == OVER,
            waited_s=(now_ns - int(client["since_ns"])) / 1e9,
        )
        upstreams.forget(gateway, number)
        gateway.loop[0]["at_work"] -= 1
        return begun


def _known(client: np.void) -> Known:
    """What is to be known of a row of CLIENT that is handed over."""
    stay = 1 if client["answers"] >= WORTHWHILE else _longer(int(client["stay"]))
    return Known(int(client["ip"]), int(client["port"]), int(client["ssl"]), int(client["announced"]), stay)


def _longer(stay: int) -> int:
    return min(max(2 * stay, 1), LONGEST_STAY)
