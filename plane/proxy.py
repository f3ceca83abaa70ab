"""The Service proxy of one node: connections and datagrams to Services, carried to pods by the compiled relay.

Law: one thread owns everything the relay writes. What is in force is one tuple (Fib, Steering, Relay), replaced by one
assignment between two breaths; whatever other threads want to know or change is done there too. So a change needs no
lock on the data path, and a connection that is open never notices one.
"""

import logging
import os
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

import numpy as np

from kernels import layout
from kernels.layout import Fib, Relay, Steering
from kernels.lb.forward import create_steering, empty_fib
from kernels.net import relay as kernel
from kernels.net import udpflows
from plane import listeners
from plane.addresses import AddressPlan, ip_to_int
from plane.descriptors import allow_descriptors
from plane.errors import PlaneError
from plane.fib import highest_node
from plane.installed import Installed
from plane.listeners import Frontend, Listener
from plane.reuseport import withdraw
from plane.sharing import refuser

BREATH_NS = 250_000_000
DESCRIPTORS_BESIDES = 4096  # listeners, pods, and what a process has
LAST_BREATH_NS = 5_000_000  # once stopping, to notice soon that the last connection has ended
DRAIN_BREATHS = 2 * listeners.BACKLOG // kernel.BATCH

OPEN_COLUMNS = ("client_ip", "client_port", "frontend_ip", "frontend_port", "opened_ns", "backend")  # of both protocols

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class InForce(NamedTuple):
    """What a breath is given."""

    fib: Fib
    steering: Steering
    relay: Relay


class Proxy:
    """Listens on every TCP frontend of the Fib in force, and relays.

    connections        most at one time; more wait in the listeners' queues
    records            how many of the last connections ``recorded`` gives
    connect_timeout_s  how long a pod has to answer before its client is reset
    failed             called in the relay's thread should it fail; ``check`` says why
    """

    def __init__(
        self,
        plan: AddressPlan,
        node: int,
        *,
        connections: int = 16384,
        records: int = 65536,
        connect_timeout_s: float = 5.0,
        failed: Callable[[], None] = lambda: None,
    ):
        self._plan = plan
        self._node = node
        self._failed = failed
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
        self._refuser: socket.socket | None = None
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
        """Start the thread; it listens nowhere until a Fib is installed. Raises PlaneError, and then holds nothing."""
        with self._changing:
            if self._thread is not None:
                raise PlaneError(f"{self._name}: started before")
            relay = self._in_force.relay
            sockets = 2 * self._connections + relay.datagrams.free.size
            allow_descriptors(sockets + relay.pipes.ends.size + DESCRIPTORS_BESIDES)
            try:
                self._epoll, self._wake = _waking()
            except OSError as problem:
                remedy = listeners.REMEDIES.get(problem.errno or 0, "free some memory")
                raise PlaneError(f"{self._name}: cannot start: {problem.strerror}; {remedy}") from problem
            relay.loop[0]["epoll"] = self._epoll.fileno()
            self._refuser = refuser()
            relay.datagrams.loop[0]["raw"] = self._refuser.fileno() if self._refuser else -1
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
            if self._refuser is not None:
                self._refuser.close()

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
            have = self._listeners.keys()
            wanted = listeners.wanted(fib, self._node, self._plan, have, share_udp=self._refuser is not None)
            sockets, listening, problems = listeners.opened(wanted, have, self._plan, self._nodes)
            gone = tuple(have - listening)
            fib, pools_before = _read_only(fib), _same_pools(self._in_force.fib, fib)
            try:
                return Installed(self._between_breaths(lambda: self._swap(fib, pools_before, sockets, gone)), problems)
            except BaseException:
                listeners.close_all(sockets.values())
                raise

    def recorded(self) -> dict[str, np.ndarray]:
        """The last connections, oldest first, as columns of the fields of ``layout.RECORD``."""
        rows = self._between_breaths(self._copy_records)
        return {name: np.ascontiguousarray(rows[name]) for name in layout.RECORD.names or () if name != "spare"}

    def open(self) -> dict[str, np.ndarray]:
        """The connections and the flows of datagrams there are now, oldest first, as columns.

        ``client_ip, client_port, frontend_ip, frontend_port, proto, backend_ip, backend_port`` and ``opened_ns`` as in
        ``layout.RECORD``; ``state`` (CONNECTION_STATES), ``tries`` (backends it was offered), ``to_backend`` and
        ``to_client`` (bytes, int64), ``algorithm`` (ALGORITHMS; 255 where that is not known any more).
        """
        return self._between_breaths(self._copy_open)

    def outcomes(self) -> dict[str, int]:
        """How many connections were given each outcome."""
        return self._between_breaths(lambda: _named(layout.OUTCOMES, self._in_force.steering.outcomes))

    def ends(self) -> dict[str, int]:
        """How many connections to a backend ended in each way."""
        return self._between_breaths(lambda: _named(layout.ENDS, self._in_force.relay.ends))

    def datagrams(self) -> dict[str, int]:
        """How many datagrams had each fate (``layout.FATES``)."""
        return self._between_breaths(lambda: _named(layout.FATES, self._in_force.relay.datagrams.fates))

    def live(self) -> int:
        """How many connections there are now."""
        return self._between_breaths(self._live)

    def live_flows(self) -> int:
        """How many flows of datagrams there are now."""
        return self._between_breaths(lambda: udpflows.live(self._in_force.relay.datagrams))

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
            self._failed()
        finally:
            with self._asking:
                self._running = False
            kernel.end_all(self._in_force.steering, self._in_force.relay)
            listeners.close_all(listener.sockets for listener in self._listeners.values())
            self._listeners.clear()
            self._answer()

    def _breathe(self, until_ns: int) -> None:
        status = kernel.breath(*self._in_force, until_ns)
        if status < 0:
            raise PlaneError(f"{self._name}: epoll_wait: {os.strerror(-status)}")

    def check(self) -> None:
        """Raises PlaneError where the relay has failed."""
        if self._failure is not None:
            raise PlaneError(f"{self._name} has failed: {self._failure}") from self._failure

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
        self.check()
        return question()

    def _live(self) -> int:
        return self._connections - int(self._in_force.relay.loop[0]["free"])

    def _copy_records(self) -> np.ndarray:
        relay = self._in_force.relay
        count = int(relay.loop[0]["recorded"])
        if count <= relay.records.size:
            return relay.records[:count].copy()
        return np.roll(relay.records, -(count % relay.records.size))

    def _copy_open(self) -> dict[str, np.ndarray]:
        fib, _, relay = self._in_force
        rows = np.flatnonzero(relay.connections["state"] != layout.FREE)
        flows = relay.datagrams.flows[relay.datagrams.flows["fd"] >= 0]
        live = relay.connections[rows]
        known = (live["generation"] == fib.generation) & (live["pool"] < len(fib.pools))
        algorithms = np.where(known, fib.pools["algorithm"][np.where(known, live["pool"], 0)], 255)
        whole = {name: np.concatenate([live[name], flows[name]]) for name in OPEN_COLUMNS}
        backends = fib.backends[np.where(whole["backend"] < len(fib.backends), whole.pop("backend"), 0)]
        protocols = np.repeat(np.array([layout.TCP, layout.UDP], np.uint8), [len(live), len(flows)])
        other = np.zeros(len(flows), np.uint8)
        columns = {
            **whole,
            "proto": protocols,
            "backend_ip": backends["ip"],
            "backend_port": backends["port"],
            "state": np.concatenate([live["state"], other + layout.OPEN]),
            "tries": np.concatenate([live["tries"], other + 1]),
            "to_backend": np.concatenate([relay.streams["moved"][2 * rows], flows["moved_on"]]),
            "to_client": np.concatenate([relay.streams["moved"][2 * rows + 1], flows["moved_back"]]),
            "algorithm": np.concatenate([algorithms, other + 255]).astype(np.uint8),
        }
        order = np.argsort(columns["opened_ns"], kind="stable")
        return {name: column[order] for name, column in columns.items()}

    def _swap(
        self,
        fib: Fib,
        pools_before: np.ndarray,
        sockets: Mapping[Frontend, tuple[socket.socket, ...]],
        gone: Collection[Frontend],
    ) -> int:
        """Empty the listeners that go, watch those that come, and put the Fib in force."""
        self._drain(gone)
        relay = listeners.with_room(self._in_force.relay, len(self._listeners) + len(sockets))
        added = listeners.hand_over(relay, sockets)
        try:
            self._withdraw(gone, added)
            udpflows.forget_gone(fib, self._in_force.steering, relay)
            self._in_force = InForce(fib, self._steering_under(fib, pools_before, relay), relay)
        except BaseException:  # whose sockets are closed then
            for frontend, listener in added.items():
                listeners.take_back(relay, frontend, listener)
            raise
        self._listeners |= added
        self._close(gone)
        return self.generation

    def _steering_under(self, fib: Fib, pools_before: np.ndarray, relay: Relay) -> Steering:
        """What is remembered, as far as it means something under a new Fib."""
        steering = self._in_force.steering
        turns = np.where(pools_before[:, None] > 0, steering.turns[pools_before], np.int64(0))
        active, ready_ns = self._counted(fib, relay), self._ready_since(fib, time.monotonic_ns())
        warm_ns = np.full(1, ready_ns.max() + int(fib.pools["slow_start_s"].max()) * 1_000_000_000)
        return steering._replace(turns=turns, active=active, ready_ns=ready_ns, warm_ns=warm_ns)

    def _counted(self, fib: Fib, relay: Relay) -> np.ndarray:
        """Steering.active under a new Fib. A connection whose backend's id has another endpoint now counts nowhere."""
        old, rows = self._in_force.fib.backends, relay.connections
        live = np.flatnonzero(rows["state"] != layout.FREE)
        ids = rows["backend"][live]
        beyond = ids >= min(len(old), len(fib.backends))
        ids = np.where(beyond, 0, ids)
        moved = beyond | np.any([old[name][ids] != fib.backends[name][ids] for name in ("ip", "port", "proto")], axis=0)
        rows["backend"][live[moved]] = 0
        backends = np.concatenate([rows["backend"][live], udpflows.backends_in_use(relay.datagrams)])
        return np.bincount(backends, minlength=len(fib.backends)).astype(np.int32)

    def _ready_since(self, fib: Fib, now_ns: int) -> np.ndarray:
        """Steering.ready_ns under a new Fib. With the first one all are equally new, and so nobody is held back."""
        old, before = self._in_force.fib.backends, self._in_force.steering.ready_ns
        since = np.full(len(fib.backends), now_ns, np.int64)
        both = slice(min(len(old), len(since)))
        same = np.all([old[name][both] == fib.backends[name][both] for name in ("ip", "port", "proto")], axis=0)
        was_ready = same & (old["state"][both] == layout.READY)
        since[both] = np.where(was_ready, before[both], since[both])
        return np.where(fib.backends["state"] == layout.READY, since, np.int64(0))

    def _drain(self, frontends: Collection[Frontend]) -> None:
        """Take what waits in these frontends' queues, as far as the tables have room for it."""
        relay = self._in_force.relay
        for frontend in frontends:
            listeners.attend(relay, frontend, self._listeners[frontend].row)
        draining = [(frontend, self._listeners[frontend]) for frontend in frontends]
        for _ in range(DRAIN_BREATHS if frontends else 0):
            if not listeners.are_waiting(relay, draining):
                return
            self._breathe(0)

    def _withdraw(self, gone: Collection[Frontend], added: Mapping[Frontend, Listener]) -> None:
        """Have the listeners that are about to go get no more of what those that have come get without them."""
        for frontend in gone:
            if frontend.ip and listeners.heir(frontend, added):
                withdraw(self._listeners[frontend].sockets[0])

    def _bequeath(self, gone: Mapping[Frontend, Listener]) -> None:
        """Have the flows of datagrams of these listeners go on by those that listen for their frontends now."""
        fib, steering, relay = self._in_force
        flows = relay.datagrams.flows
        rows = [listener.row for frontend, listener in gone.items() if frontend.proto == layout.UDP]
        left = np.flatnonzero((flows["fd"] >= 0) & np.isin(flows["listener"], rows))
        for flow in left:
            frontend = Frontend(int(flows[flow]["frontend_ip"]), int(flows[flow]["frontend_port"]), layout.UDP)
            if heir := listeners.heir(frontend, self._listeners):
                flows[flow]["listener"] = self._listeners[heir].row
        if left.size:
            udpflows.forget_gone(fib, steering, relay)  # a shared listener does not answer for what is no frontend now

    def _close(self, frontends: Collection[Frontend]) -> None:
        self._drain(frontends)
        steering, relay = self._in_force.steering, self._in_force.relay
        gone = {frontend: self._listeners.pop(frontend) for frontend in frontends}
        self._bequeath(gone)
        for frontend, listener in gone.items():
            if frontend.proto == layout.UDP:
                udpflows.forget_listener(steering, relay, listener.row)
            listeners.take_back(relay, frontend, listener)


def _waking() -> tuple[select.epoll, int]:
    """An epoll set and a descriptor to end a wait for it. Raises OSError."""
    epoll = select.epoll()
    try:
        return epoll, os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    except OSError:
        epoll.close()
        raise


def _read_only(fib: Fib) -> Fib:
    """The same tables in the one form that the kernels are compiled for."""

    def frozen(array: np.ndarray) -> np.ndarray:
        return layout.freeze(np.require(array, requirements=["C", "A"]).view())

    return Fib(int(fib.generation), *(frozen(array) for array in fib[1:]))


def _same_pools(old: Fib, new: Fib) -> np.ndarray:
    """For each pool of ``new`` the one that the same frontend has in ``old``; 0 for none."""
    columns = ("ip", "port", "proto", "by_node", "inside", "outside")
    if len(old.pools) == len(new.pools) and all(
        np.array_equal(old.frontends[name], new.frontends[name]) for name in columns
    ):
        return np.arange(len(new.pools))
    rows, nodes = _same_frontends(old, new), highest_node(new)
    was, now = old.frontends[rows], new.frontends
    sides = (("inside", layout.INSIDE), ("outside", layout.OUTSIDE))
    places = np.stack([now[side] for side, _ in sides], axis=1).astype(np.int64)
    sources = np.stack([was[side] for side, _ in sides], axis=1).astype(np.int64)
    several = np.stack([was["by_node"] & now["by_node"] & flag for _, flag in sides], axis=1) > 0
    counts = np.where(rows[:, None] > 0, np.where(several, nodes + 1, 1), 0).ravel()
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # 0, 1, … for each run of pools
    places, sources = (np.repeat(first.ravel(), counts) + within for first in (places, sources))
    there = (places < len(new.pools)) & (sources < len(old.pools))
    before = np.zeros(len(new.pools), np.intp)
    before[places[there]] = sources[there]
    return before


def _same_frontends(old: Fib, new: Fib) -> np.ndarray:
    """For each frontend of ``new`` the row of ``old`` with its address, port and protocol, the last; 0 for none."""
    before, names = (
        rows["ip"].astype(np.int64) << 24 | rows["port"].astype(np.int64) << 8 | rows["proto"]
        for rows in (old.frontends, new.frontends)
    )
    order = np.argsort(before, kind="stable")
    found = order[np.searchsorted(before[order], names, side="right") - 1]
    return np.where(before[found] == names, found, 0)


def _named(words: tuple[str, ...], counts: np.ndarray) -> dict[str, int]:
    return dict(zip(words, counts.tolist(), strict=True))
