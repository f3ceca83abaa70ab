"""The Service proxy of one node: connections and datagrams to Services, carried to pods by the compiled relay.

Law: one thread owns everything the relay writes. What is in force is one tuple (Fib, Steering, Relay). The Fib is this
proxy's own, and patched where it lies between two breaths, when nobody reads it; whatever other threads want to know or
change is done there too. So a change needs no lock on the data path, a connection that is open never notices one, and
what it costs goes by the rows that it changes. One that fails is undone.
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
from kernels.lb.forward import create_steering
from kernels.lb.patches import Patch, Replica, between, patched
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
        self._replica = Replica()
        fib = self._replica.fib
        self._in_force = InForce(fib, create_steering(fib, 2 * connections), relay)
        self._listeners: dict[Frontend, Listener] = {}
        self._listens_everywhere = True  # where the last install wanted it to
        self._highest_node = 0
        self._pools = 0  # in force,
        self._slowest_s = 0  # and the slow start of the slowest
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
            # Both load the compiled code, so that the first traffic does not wait for it.
            kernel.breath(*self._in_force, 0)
            udpflows.forget_gone(*self._in_force)
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

    def install(self, fib: Fib | None, patch: Patch | None = None) -> Installed:
        """Put a Fib in force, or what a patch makes of it, and listen on its frontends; any thread may call it.

        Without a Fib the patch is for the one that is in force, or, where it says so, for the empty one. A patch for
        another, and a Fib that is older than that in force, is refused. When this returns, the swap is done and every
        new frontend listens, but for those whose address and port can't be bound: they are named in ``problems``, and
        are tried again at the next install. Listeners of frontends that are gone have been emptied and closed.

        Raises PlaneError, and changes nothing, where the relay does not run.
        """
        with self._changing:
            if self._thread is None or self._epoll is None:
                raise PlaneError(f"{self._name}: not running, so nothing can be installed")
            whole = patched(fib, patch) if fib is not None or patch is None or not patch.before else None
            step = patch if whole is None else between(self._in_force.fib, whole)
            if step is None or step.before != self.generation or step.generation < self.generation:
                return Installed(self.generation)
            change = self._change(step, is_whole=whole is not None)
            sockets, gone, problems, everywhere = self._listening_under(change)
            try:
                generation = self._between_breaths(lambda: self._swap(change, sockets, gone))
            except BaseException:
                listeners.close_all(sockets.values())
                raise
            self._highest_node, self._listens_everywhere = change.highest_node, everywhere
            return Installed(generation, problems)

    def _change(self, patch: Patch, *, is_whole: bool) -> "_Change":
        """What is to be known of a patch; one that is whole may have other nodes, whatever else it has."""
        frontends = _Rows(*self._replica.rows("frontends", patch))
        highest = max(self._highest_node, int(frontends.now["node"].max(initial=0)))
        if is_whole or "sources" in patch.runs:
            highest = highest_node(*(self._replica.table(name, patch) for name in ("frontends", "sources")))
        return _Change(patch, frontends, _Rows(*self._replica.rows("backends", patch)), highest)

    def _listening_under(self, change: "_Change") -> "_Listening":
        """What is to be done about listeners: nothing for as long as they are where the same frontends want them."""
        _, was, now = change.frontends
        same = all(np.array_equal(was[name], now[name]) for name in listeners.COLUMNS)
        if same and self._listens_everywhere:
            return _Listening({}, (), (), everywhere=True)
        table, index = (self._replica.table(name, change.patch) for name in ("frontends", "frontend_index"))
        reached = np.sort(index["row"][index["row"] > 0])  # without those that another takes
        table, have = table[reached], self._listeners.keys()
        wanted = listeners.wanted(table, self._node, self._plan, have, share_udp=self._refuser is not None)
        sockets, listening, problems = listeners.opened(wanted, have, self._plan, max(change.highest_node, 1))
        everywhere = listening >= {*wanted.own, *wanted.shared}
        return _Listening(sockets, tuple(have - listening), problems, everywhere)

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
        self, change: "_Change", sockets: Mapping[Frontend, tuple[socket.socket, ...]], gone: Collection[Frontend]
    ) -> int:
        """Empty the listeners that go, watch those that come, and put the Fib in force."""
        self._drain(gone)
        relay = listeners.with_room(self._in_force.relay, len(self._listeners) + len(sockets))
        added = listeners.hand_over(relay, sockets)
        undo = None
        try:
            self._withdraw(gone, added)
            steering = _with_room(self._in_force.steering, change.patch.lengths)
            news = self._remembered(change, steering)
            undo = self._replica.apply(change.patch)
            if udpflows.live(relay.datagrams):  # a look at each row costs as much as all of a small change
                udpflows.forget_gone(self._replica.fib, steering, relay)
        except BaseException:  # whose sockets are closed then
            if undo is not None:
                self._replica.apply(undo)
                self._in_force = self._in_force._replace(fib=self._replica.fib)
            for frontend, listener in added.items():
                listeners.take_back(relay, frontend, listener)
            raise
        for column, rows, values in news:
            column[rows] = values
        self._in_force = InForce(self._replica.fib, steering, relay)
        self._warm_up(change.patch)
        self._listeners |= added
        self._close(gone)
        return self.generation

    def _remembered(self, change: "_Change", steering: Steering) -> list[tuple[np.ndarray, np.ndarray, Any]]:
        """What is remembered otherwise from a change on: columns, rows of them, and what is to be there."""
        rows, before = _same_pools(*change.frontends[1:], self._highest_node, change.highest_node)
        rows, before = rows[rows < len(steering.turns)], before[rows < len(steering.turns)]
        known = (before > 0) & (before < len(steering.turns))
        numbers, was, now = change.backends
        moved = np.any([was[name] != now[name] for name in ("ip", "port", "proto")], axis=0)
        was_ready = ~moved & (was["state"] == layout.READY)
        # With the first Fib all are equally new, and so nobody is held back.
        since = np.where(was_ready, steering.ready_ns[numbers], np.int64(time.monotonic_ns()))
        connections = self._in_force.relay.connections
        is_affected = moved.any() and self._live()
        live = np.flatnonzero(connections["state"] != layout.FREE) if is_affected else np.zeros(0, np.intp)
        lost = live[np.isin(connections["backend"][live], numbers[moved])]
        return [
            (steering.turns, rows, 0),
            (steering.turns, rows[known], steering.turns[before[known]]),
            (steering.ready_ns, numbers, np.where(now["state"] == layout.READY, since, np.int64(0))),
            (steering.active, numbers[moved], 0),
            (connections["backend"], lost, 0),  # their ids have other endpoints now, so they count nowhere
        ]

    def _warm_up(self, patch: Patch) -> None:
        """Notes from when on nobody is new to a pool with slow start."""
        fib, steering, _ = self._in_force
        if "pools" in patch.runs or len(fib.pools) != self._pools:
            self._pools = len(fib.pools)
            self._slowest_s = int(fib.pools["slow_start_s"].max())
        if self._slowest_s:
            steering.warm_ns[0] = steering.ready_ns[: len(fib.backends)].max() + self._slowest_s * 1_000_000_000

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


class _Rows(NamedTuple):
    """Rows of a table that a patch has: their numbers, what they are, and what they will be."""

    numbers: np.ndarray
    was: np.ndarray
    now: np.ndarray


class _Change(NamedTuple):
    """A patch, and what is to be known of it before it is applied."""

    patch: Patch
    frontends: _Rows
    backends: _Rows
    highest_node: int


class _Listening(NamedTuple):
    """Sockets that are to listen, frontends that are to be listened on no more, and what cannot be, see ``Opened``."""

    sockets: dict[Frontend, tuple[socket.socket, ...]]
    gone: tuple[Frontend, ...]
    problems: tuple[str, ...]
    everywhere: bool


def _with_room(steering: Steering, lengths: tuple[int, ...]) -> Steering:
    """With room for so many pools and backends, and for some more."""
    _, _, pools, backends, *_ = lengths
    return steering._replace(
        turns=_lengthened(steering.turns, pools),
        active=_lengthened(steering.active, backends),
        ready_ns=_lengthened(steering.ready_ns, backends),
    )


def _lengthened(array: np.ndarray, length: int) -> np.ndarray:
    if length <= len(array):
        return array
    longer = np.zeros((length + length // 4, *array.shape[1:]), array.dtype)
    longer[: len(array)] = array
    return longer


def _same_pools(was: np.ndarray, now: np.ndarray, nodes_before: int, nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """The pools of FRONTEND[…] that are now, and for each the one that the same frontend had before; 0 for none.

    A pool that several frontends share comes several times. ``nodes`` is N of the last node there is.
    """
    now = now[now["proto"] > 0]
    was = np.concatenate([np.zeros(1, was.dtype), was[was["proto"] > 0]])
    was = was[_same_frontends(was, now)]
    sides = (("inside", layout.INSIDE), ("outside", layout.OUTSIDE))
    firsts, sources = (np.array([rows[side] for side, _ in sides], np.int64).T.ravel() for rows in (now, was))
    several, had = (np.array([rows["by_node"] & flag for _, flag in sides]).T.ravel() > 0 for rows in (now, was))
    counts = np.where(several, nodes + 1, 1)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # 0, 1, … for each run of pools
    known = np.repeat(np.repeat(was["proto"] > 0, 2), counts) & (within <= np.repeat(had, counts) * nodes_before)
    return np.repeat(firsts, counts) + within, np.where(known, np.repeat(sources, counts) + within, 0)


def _same_frontends(was: np.ndarray, now: np.ndarray) -> np.ndarray:
    """For each frontend of ``now`` the row of ``was`` with its address, port and protocol, the last; 0 for none."""
    before, names = (
        rows["ip"].astype(np.int64) << 24 | rows["port"].astype(np.int64) << 8 | rows["proto"] for rows in (was, now)
    )
    order = np.argsort(before, kind="stable")
    found = order[np.searchsorted(before[order], names, side="right") - 1]
    return np.where(before[found] == names, found, 0)


def _named(words: tuple[str, ...], counts: np.ndarray) -> dict[str, int]:
    return dict(zip(words, counts.tolist(), strict=True))
