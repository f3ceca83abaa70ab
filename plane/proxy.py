"""The Service proxy of one node: TCP connections to Services, carried to pods by the compiled relay.

It listens at the addresses that all nodes serve and at its own node's, and only where some client would be given an
endpoint: elsewhere the machine itself refuses at once, as kube-proxy has it.

Law: one thread owns everything the relay writes. What is in force is one tuple (Fib, Steering, Relay), replaced by one
assignment between two breaths; whatever other threads want to know or change is done there too. So a change needs no
lock on the data path, and a connection that is open never notices one.
"""

import errno
import logging
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

import numpy as np

from kernels import layout
from kernels.layout import Fib, Relay, Steering
from kernels.lb.forward import create_steering, empty_fib
from kernels.net import relay as kernel
from plane.addresses import AddressPlan, int_to_ip, ip_to_int
from plane.errors import PlaneError
from plane.fib import highest_node
from plane.installed import Installed
from plane.reuseport import by_client

BACKLOG = 4096
BREATH_NS = 250_000_000
LAST_BREATH_NS = 5_000_000  # once stopping, to notice soon that the last connection has ended
DRAIN_BREATHS = 2 * BACKLOG // kernel.BATCH

OPEN_COLUMNS = ("client_ip", "client_port", "frontend_ip", "frontend_port", "opened_ns", "state", "tries")

log = logging.getLogger(__name__)

Frontend = tuple[int, int]  # address and port of a Service, as integers
Answer = TypeVar("Answer")

REMEDIES = {
    errno.EADDRINUSE: "stop what has it, or choose another --instance",
    errno.EACCES: "choose a --port-offset, or lower net.ipv4.ip_unprivileged_port_start",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


class InForce(NamedTuple):
    """What a breath is given."""

    fib: Fib
    steering: Steering
    relay: Relay


class Listener(NamedTuple):
    row: int  # of Relay.listeners
    socket: socket.socket


class Proxy:
    """Listens on every TCP frontend of the Fib in force, and relays.

    connections        most at one time; more wait in the listeners' queues
    records            how many of the last connections ``recorded`` gives
    connect_timeout_s  how long a pod has to answer before its client is reset
    """

    def __init__(
        self,
        plan: AddressPlan,
        node: int,
        *,
        connections: int = 4096,
        records: int = 65536,
        connect_timeout_s: float = 5.0,
    ):
        self._plan = plan
        self._node = node
        self._name = f"relay of node {plan.node(node)}"
        self._connections = connections
        relay = kernel.create(
            connections,
            records,
            ip_to_int(plan.node(node)),
            int(connect_timeout_s * 1e9),
        )
        fib = _read_only(empty_fib())
        self._in_force = InForce(fib, create_steering(fib, 2 * connections), relay)
        self._listeners: dict[Frontend, Listener] = {}
        self._nodes = 1  # that share the listeners
        self._changing = threading.Lock()  # one start, install or stop at a time
        self._thread: threading.Thread | None = None
        self._epoll: select.epoll | None = None
        self._wake = -1
        self._asking = threading.Lock()  # guards the three that follow
        self._running = False
        self._failure: BaseException | None = None
        self._questions: queue.SimpleQueue[tuple[Callable[[], Any], Future]] = queue.SimpleQueue()
        self._stop_at_ns: int | None = None

    @property
    def generation(self) -> int:
        """Generation of the Fib in force."""
        return int(self._in_force.fib.generation)

    def start(self) -> None:
        """Start the thread; the relay listens nowhere until a Fib is installed."""
        with self._changing:
            if self._thread is not None:
                raise PlaneError(f"{self._name}: started before")
            self._epoll = select.epoll()
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            relay = self._in_force.relay
            relay.loop[0]["epoll"] = self._epoll.fileno()
            kernel.watch(relay, self._wake, kernel.WAKE_KEY, 0)
            kernel.breath(*self._in_force, 0)  # loads the compiled code, so that the first traffic does not wait for it
            self._running = True
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()

    def stop(self, grace_s: float) -> None:
        """Accept no more, let connections end for so long, then reset those that are left. Blocks."""
        with self._changing:
            if self._thread is None or self._epoll is None:
                return
            self._stop_at_ns = time.monotonic_ns() + int(grace_s * 1e9)
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            self._epoll.close()
            self._epoll = None
            os.close(self._wake)

    def install(self, fib: Fib) -> Installed:
        """Put a Fib in force and listen on its frontends; any thread may call it.

        An older one than that in force is refused. When this returns, the swap is done and every new frontend listens,
        but for those whose address and port can't be bound: they are named in ``problems``, and are tried again at the
        next install. Listeners of frontends that are gone have been emptied and closed.

        Raises PlaneError, and changes nothing, where the relay does not run.
        """
        with self._changing:
            if self._thread is None or self._epoll is None:
                raise PlaneError(f"{self._name}: not running, so nothing can be installed")
            if fib.generation < self.generation:
                return Installed(self.generation)
            self._nodes = max(highest_node(fib), 1)
            wanted = self._served(fib)
            opened, problems = self._listen(wanted)
            gone = tuple(self._listeners.keys() - wanted.keys())
            fib, pools_before = _read_only(fib), _same_pools(self._in_force.fib, fib)
            try:
                return Installed(self._between_breaths(lambda: self._swap(fib, pools_before, opened, gone)), problems)
            except BaseException:
                _close_all(opened.values())
                raise

    def recorded(self) -> dict[str, np.ndarray]:
        """The last connections, oldest first, as columns of the fields of ``layout.RECORD``."""
        rows = self._between_breaths(self._copy_records)
        return {name: np.ascontiguousarray(rows[name]) for name in layout.RECORD.names or () if name != "spare"}

    def open(self) -> dict[str, np.ndarray]:
        """The connections there are now, oldest first, as columns.

        ``client_ip, client_port, frontend_ip, frontend_port, backend_ip, backend_port`` and ``opened_ns`` as in
        ``layout.RECORD``; ``state`` (CONNECTION_STATES), ``tries`` (backends it was offered), ``to_backend`` and
        ``to_client`` (bytes, int64), ``algorithm`` (ALGORITHMS; 255 where the Fib has changed since it was picked).
        """
        return self._between_breaths(self._copy_open)

    def outcomes(self) -> dict[str, int]:
        """How many connections were given each outcome."""
        return self._between_breaths(lambda: _named(layout.OUTCOMES, self._in_force.steering.outcomes))

    def ends(self) -> dict[str, int]:
        """How many connections to a backend ended in each way."""
        return self._between_breaths(lambda: _named(layout.ENDS, self._in_force.relay.ends))

    def live(self) -> int:
        """How many connections there are now."""
        return self._between_breaths(self._live)

    # What follows runs in the relay's thread, apart from _between_breaths and _listen.

    def _run(self) -> None:
        try:
            while self._stop_at_ns is None:
                self._answer()
                self._breathe(time.monotonic_ns() + BREATH_NS)
            self._close(tuple(self._listeners))
            while self._live() and time.monotonic_ns() < self._stop_at_ns:
                self._answer()
                self._breathe(time.monotonic_ns() + LAST_BREATH_NS)
        except Exception as failure:
            log.exception("%s has failed", self._name)
            self._failure = failure
        finally:
            with self._asking:
                self._running = False
            kernel.end_all(self._in_force.steering, self._in_force.relay)
            _close_all(listener.socket for listener in self._listeners.values())
            self._listeners.clear()
            self._answer()

    def _breathe(self, until_ns: int) -> None:
        status = kernel.breath(*self._in_force, until_ns)
        if status < 0:
            raise PlaneError(f"{self._name}: epoll_wait: {os.strerror(-status)}")

    def _between_breaths(self, question: Callable[[], Answer]) -> Answer:
        """What ``question`` returns or raises when the relay's thread calls it; without a thread it is called here."""
        future: Future[Answer] = Future()
        with self._asking:
            if self._running:
                self._questions.put((question, future))
                os.eventfd_write(self._wake, 1)
            else:
                return self._call(question)
        return future.result()

    def _answer(self) -> None:
        for _ in range(self._questions.qsize()):
            question, future = self._questions.get()
            try:
                future.set_result(self._call(question))
            except BaseException as problem:
                future.set_exception(problem)

    def _call(self, question: Callable[[], Answer]) -> Answer:
        if self._failure is not None:
            raise PlaneError(f"{self._name} has failed: {self._failure}") from self._failure
        return question()

    def _live(self) -> int:
        return self._connections - int(self._in_force.relay.loop[0]["free"])

    def _copy_records(self) -> np.ndarray:
        relay = self._in_force.relay
        count = int(relay.loop[0]["recorded"])
        if count <= relay.records.size:
            return relay.records[:count].copy()
        return np.roll(relay.records, -(count % relay.records.size))

    def _served(self, fib: Fib) -> dict[Frontend, bool]:
        """The TCP frontends to listen on, and whether each has session affinity."""
        rows, nodes = fib.frontends, highest_node(fib)
        people = np.concatenate(
            [[0], np.cumsum(fib.pools["members"])]
        )  # people[b] - people[a]: members of pools a … b-1
        some = np.zeros(len(rows), bool)
        for side, flag in (("inside", layout.INSIDE), ("outside", layout.OUTSIDE)):
            first = rows[side].astype(np.int64)
            last = np.minimum(first + np.where(rows["by_node"] & flag, nodes, 0), len(fib.pools) - 1)
            some |= people[last + 1] > people[first]
        mine = (rows["proto"] == layout.TCP) & np.isin(rows["node"], (0, self._node)) & some
        columns = (rows[name][mine].tolist() for name in ("ip", "port", "affinity"))
        return {(ip, port): bool(affinity) for ip, port, affinity in zip(*columns, strict=True)}

    def _copy_open(self) -> dict[str, np.ndarray]:
        fib, _, relay = self._in_force
        rows = np.flatnonzero(relay.connections["state"] != layout.FREE)
        rows = rows[np.argsort(relay.connections["opened_ns"][rows], kind="stable")]
        live = relay.connections[rows]
        known = (live["generation"] == fib.generation) & (live["pool"] < len(fib.pools))
        algorithms = fib.pools["algorithm"][np.where(known, live["pool"], 0)]
        backends = fib.backends[np.where(live["backend"] < len(fib.backends), live["backend"], 0)]
        return {
            **{name: live[name].copy() for name in OPEN_COLUMNS},
            "backend_ip": backends["ip"],
            "backend_port": backends["port"],
            "to_backend": relay.streams["moved"][2 * rows],
            "to_client": relay.streams["moved"][2 * rows + 1],
            "algorithm": np.where(known, algorithms, 255).astype(np.uint8),
        }

    def _listen(self, wanted: Mapping[Frontend, bool]) -> tuple[dict[Frontend, socket.socket], tuple[str, ...]]:
        """A listening socket for each wanted frontend that has none, and why some could not be had."""
        opened: dict[Frontend, socket.socket] = {}
        problems: list[str] = []
        taken = {(ip, self._plan.bound_port(port)): port for ip, port in self._listeners}
        for (ip, port), affinity in wanted.items():
            bound = self._plan.bound_port(port)
            if (ip, port) in self._listeners:
                continue
            if (other := taken.setdefault((ip, bound), port)) != port:
                problems.append(
                    f"cannot listen on {int_to_ip(ip)}:{bound} for port {port}: port {other} of the same address is "
                    f"bound to it; choose another --port-offset than {self._plan.port_offset}"
                )
                continue
            try:
                opened[ip, port] = _listening(int_to_ip(ip), bound)
                if affinity:
                    by_client(opened[ip, port], self._nodes)
            except OSError as problem:
                if problem.errno != errno.EADDRNOTAVAIL:  # another machine's address, as an external IP may be, is its
                    shifted = f" (for port {port})" if bound != port else ""
                    remedy = REMEDIES.get(problem.errno or 0, "choose another address or port")
                    problems.append(f"cannot listen on {int_to_ip(ip)}:{bound}{shifted}: {problem.strerror}; {remedy}")
        return opened, tuple(problems)

    def _swap(
        self, fib: Fib, pools_before: np.ndarray, opened: dict[Frontend, socket.socket], gone: Iterable[Frontend]
    ) -> int:
        """Empty the listeners that go, watch those that come, and put the Fib in force."""
        self._drain(gone)
        relay = kernel.with_listeners(self._in_force.relay, len(self._listeners) + len(opened))
        free = np.flatnonzero(relay.listeners["fd"][1:] < 0) + 1
        added = {frontend: Listener(int(row), opened[frontend]) for frontend, row in zip(opened, free, strict=False)}
        for (ip, port), (row, listener) in added.items():
            problem = kernel.watch(relay, listener.fileno(), row, int(relay.listeners[row]["serial"]))
            if problem < 0:
                raise PlaneError(f"{self._name}: cannot watch {int_to_ip(ip)}:{port}: {os.strerror(-problem)}")
        for (ip, port), (row, listener) in added.items():
            entry = relay.listeners[row]
            entry["ip"], entry["port"], entry["fd"] = ip, port, listener.fileno()
        steering = self._in_force.steering
        turns = np.where(pools_before[:, None] > 0, steering.turns[pools_before], np.int64(0))
        active = self._counted(fib, relay)
        self._in_force = InForce(fib, steering._replace(turns=turns, active=active), relay)
        self._listeners |= added
        self._close(gone)
        return self.generation

    def _counted(self, fib: Fib, relay: Relay) -> np.ndarray:
        """Steering.active under a new Fib. A connection whose backend's id has another endpoint now counts nowhere."""
        old, rows = self._in_force.fib.backends, relay.connections
        live = np.flatnonzero(rows["state"] != layout.FREE)
        ids = rows["backend"][live]
        beyond = ids >= min(len(old), len(fib.backends))
        ids = np.where(beyond, 0, ids)
        moved = beyond | np.any([old[name][ids] != fib.backends[name][ids] for name in ("ip", "port", "proto")], axis=0)
        rows["backend"][live[moved]] = 0
        return np.bincount(rows["backend"][live], minlength=len(fib.backends)).astype(np.int32)

    def _drain(self, frontends: Iterable[Frontend]) -> None:
        """Accept what waits in these frontends' queues, as far as the table of connections has room for it."""
        rows = [self._listeners[frontend].row for frontend in frontends]
        for row in rows:
            kernel.attend(self._in_force.relay, row)
        for _ in range(DRAIN_BREATHS if rows else 0):
            if not self._in_force.relay.listeners["queued"][rows].any():
                return
            self._breathe(0)

    def _close(self, frontends: Iterable[Frontend]) -> None:
        self._drain(frontends)
        for frontend in frontends:
            row, listener = self._listeners.pop(frontend)
            entry = self._in_force.relay.listeners[row]
            entry["fd"] = -1
            entry["serial"] += 1
            listener.close()


def _listening(ip: str, port: int) -> socket.socket:
    """A socket that listens. Accepted connections inherit TCP_NODELAY. Raises OSError, and then holds nothing."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((ip, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _close_all(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()


def _read_only(fib: Fib) -> Fib:
    """The same tables in the one form that the kernels are compiled for."""

    def frozen(array: np.ndarray) -> np.ndarray:
        return layout.freeze(np.require(array, requirements=["C", "A"]).view())

    return Fib(int(fib.generation), *(frozen(array) for array in fib[1:]))


def _same_pools(old: Fib, new: Fib) -> np.ndarray:
    """For each pool of ``new`` the one that the same frontend has in ``old``; 0 for none."""

    def names(fib: Fib) -> list[tuple[int, int, int]]:
        return list(zip(*(fib.frontends[column].tolist() for column in ("ip", "port", "proto")), strict=True))

    rows, nodes = {name: row for row, name in enumerate(names(old)) if row}, highest_node(new)
    before = np.zeros(len(new.pools), np.intp)
    for row, name in enumerate(names(new)):
        if not row or name not in rows:
            continue
        was, now = old.frontends[rows[name]], new.frontends[row]
        for side, flag in (("inside", layout.INSIDE), ("outside", layout.OUTSIDE)):
            several = was["by_node"] & now["by_node"] & flag
            for number in range(1 + (nodes if several else 0)):
                place, source = int(now[side]) + number, int(was[side]) + number
                if place < len(before) and source < len(old.pools):
                    before[place] = source
    return before


def _named(words: tuple[str, ...], counts: np.ndarray) -> dict[str, int]:
    return dict(zip(words, counts.tolist(), strict=True))
