"""One load by compiled code: what ``stream`` and ``http`` do, at a rate that one core gives (``kernels.net.httpload``).

Law: as theirs, which is the same to the last row; the tests hold both to one list of servers. The thread that calls
``run`` does nothing else; ``progress`` and ``stop`` are for any thread. Rows are taken out of the kernel's memory while
it runs, so that there is no bound but the machine's.
"""

import ctypes
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from harness.drivers.busy import Busy
from harness.drivers.stream import OTHER_DESCRIPTORS, Progress, Task
from harness.drivers.tls import Tls
from harness.journal import Put
from harness.recorder import REQUEST_COLUMNS, Generator, Recorded
from harness.units import NS_PER_S
from harness.workload import Echo, Workload
from kernels import warm
from kernels.layout_load import DIAL, ERRORS, HTTP, NEVER, ROW, TCP_ECHO, UDP_ECHO, Load
from kernels.net import httpload, openssl
from kernels.net.httpload import Asked, Secured
from plane.addresses import ip_to_int
from plane.descriptors import allow_descriptors

BREATH_NS = 50_000_000
SPEECHES = {"http": HTTP, "tcp": TCP_ECHO, "udp": UDP_ECHO}
_PR_SET_TIMERSLACK = 29
_libc = ctypes.CDLL(None, use_errno=True)


def prepare() -> None:
    """Have the kernel compiled, once a machine."""
    warm.once("httpload", httpload.warm)


def can_secure() -> bool:
    """Whether compiled code can speak TLS here."""
    return openssl.load_client() is not None


@contextmanager
def securing(tls: Tls | None) -> Iterator[Secured | None]:
    """What a load needs that goes by TLS, None for one that does not; gone when the context ends."""
    if tls is None:
        yield None
        return
    library = openssl.load_client()
    assert library is not None
    context = openssl.ClientContext("" if tls.insecure else tls.server_name, tls.authorities, only=tls.only)
    try:
        yield Secured(library, context.address, "" if openssl.is_ip(tls.server_name) else tls.server_name, tls.resume)
    finally:
        context.free()


def asked(workload: Workload | Echo, weight: int = 1) -> Asked:
    """What a workload is on the wire."""
    head, tail = workload.render()
    content = head + b"0" * httpload.ID_DIGITS + tail
    return Asked(content, len(head), weight, workload.method == "HEAD", workload.idempotent)


class Asking:
    """A load that breathes: what has ended is in ``rows`` and ``dials``, arrays of ROW and DIAL one after the other.

    They are also given to ``put`` and to ``dialled`` as they are taken out, if there are such.
    """

    def __init__(self, load: Load, put: Put | None = None, dialled: Put | None = None):
        self.load = load
        self._puts = {"rows": put, "dials": dialled}
        self.rows: list[np.ndarray] = []
        self.dials: list[np.ndarray] = []

    @classmethod
    @contextmanager
    def of(cls, load: Load, put: Put | None = None, dialled: Put | None = None) -> Iterator["Asking"]:
        """With an epoll set of its own; every connection is closed at the end."""
        with select.epoll() as epoll:
            load.loop[0]["epoll"] = epoll.fileno()
            # By default a sleep may last 50 us longer than asked for (prctl(2)).
            _libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
            try:
                yield cls(load, put, dialled)
            finally:
                httpload.end_all(load)

    def breathe(self, until_ns: int) -> None:
        """Asks until then, or until there is too little room for rows, and takes them out. Raises OSError."""
        status = httpload.breath(self.load, until_ns)
        loop = self.load.loop[0]
        for name, kept in (("rows", self.rows), ("dials", self.dials)):
            if loop[name]:
                kept.append(getattr(self.load, name)[: loop[name]].copy())
                loop[name] = 0
                if put := self._puts[name]:
                    put(kept[-1])
        if status < 0:
            raise OSError(-status, os.strerror(-status))

    def stop(self) -> None:
        """Interrupts what is under way at the next breath, and begins nothing more."""
        self.load.loop[0]["stopping"], self.load.loop[0]["sweep_ns"] = 1, 0

    def ended(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, ROW), *self.rows])


class CompiledStream:
    """A load as ``harness.drivers.stream.Stream`` is one, but that ``run`` is no coroutine."""

    def __init__(self, task: Task):
        self._task = task
        self._stopped = threading.Event()
        self._load: Load | None = None

    def run(self, epoch_ns: int, put: Put | None = None, dialled: Put | None = None) -> Recorded:
        """As ``Stream.run``."""
        task = self._task
        start_ns = epoch_ns + task.start_ns
        allow_descriptors(task.connections + OTHER_DESCRIPTORS)
        with securing(task.destination.tls) as secured:
            return self._run(start_ns, secured, put, dialled)

    def _run(self, start_ns: int, secured: Secured | None, put: Put | None, dialled: Put | None) -> Recorded:
        task, place = self._task, self._task.destination
        load = httpload.create(
            [(ip_to_int(place.ip), place.port)],
            [asked(workload) for workload in task.mix.workloads],
            task.connections,
            due=task.due(start_ns),
            start_ns=start_ns,
            end_ns=start_ns + task.duration_ns,
            timeout_ns=task.timeout_ns,
            sources=[ip_to_int(source) for source in place.sources],
            kept=task.mix.keep_alive,
            order=task.mix.order,
            id_key=task.id_key,
            speech=SPEECHES[task.mix.protocol],
            secured=secured,
        )
        with Asking.of(load, put, dialled) as asking:
            self._load = load
            busy = Busy()
            while not httpload.is_over(load):
                if self._stopped.is_set() and not load.loop[0]["stopping"]:
                    asking.stop()
                asking.breathe(time.monotonic_ns() + BREATH_NS)
            loop = load.loop[0]
            late, latest_ns, resumed = (int(loop[name]) for name in ("late", "latest_ns", "resumed"))
            generator = Generator("compiled", late, latest_ns, busy.share(int(loop["spun_ns"])), resumed)
        return Recorded(_requests(asking.ended()), _connections(asking.dials, int(loop["dialled"])), generator)

    def progress(self) -> Progress:
        if self._load is None:
            return Progress()
        loop = self._load.loop[0]
        return Progress(int(loop["next"]), int(loop["done"]), int(loop["bad"]))

    def stop(self) -> None:
        """Ends the load soon: what is under way is interrupted, what is not due yet is no row."""
        self._stopped.set()


@dataclass(frozen=True)
class Answers:
    """What came of ``ask``: ``rows`` (ROW) of what ended in the time that was measured, and the CPU it took to ask."""

    rows: np.ndarray
    duration_ns: int
    cpu_ns: int
    generator: Generator

    @property
    def latencies_ns(self) -> np.ndarray:
        """Of what was answered, from when it was due."""
        answered = self.rows[self.rows["done_ns"] != NEVER]
        return answered["done_ns"] - answered["intended_ns"]

    @property
    def rate(self) -> float:
        """Whole answers a second."""
        return len(self.latencies_ns) * NS_PER_S / self.duration_ns

    @property
    def errors(self) -> dict[str, int]:
        """Requests without a whole answer by error, and answers of 400 and more by status."""
        counts = np.bincount(self.rows["error"], minlength=len(ERRORS))
        status = self.rows["status"][(self.rows["error"] == 0) & (self.rows["status"] >= httpload.ERROR_STATUS)]
        found = {ERRORS[code]: int(count) for code, count in enumerate(counts) if code and count}
        return found | {f"status {code}": int((status == code).sum()) for code in np.unique(status).tolist()}


def ask(
    targets: Sequence[tuple[str, int]],
    requests: Sequence[Asked],
    *,
    connections: int,
    seconds: float,
    warm_s: float = 0.0,
    fresh: bool = False,
    due_ns: np.ndarray | None = None,
    sources: Sequence[str] = (),
    timeout_s: float = 10.0,
    secured: Secured | None = None,
    at_edge: Callable[[], object] = lambda: None,
) -> Answers:
    """Asks HTTP servers for so long, from this thread; what ends in the first ``warm_s`` is not counted.

    fresh    a connection for each request, which should say ``Connection: close``
    due_ns   an open loop: int64[n], from the beginning on, the warm-up's included; None: a closed loop
    at_edge  is called at the beginning and at the end of what is counted
    """
    prepare()
    allow_descriptors(connections + OTHER_DESCRIPTORS)
    begin_ns = time.monotonic_ns()
    measured_ns = begin_ns + int(warm_s * NS_PER_S)
    end_ns = measured_ns + int(seconds * NS_PER_S)
    load = httpload.create(
        [(ip_to_int(ip), port) for ip, port in targets],
        requests,
        connections,
        due=None if due_ns is None else begin_ns + due_ns,
        start_ns=begin_ns,
        timeout_ns=int(timeout_s * NS_PER_S),
        sources=[ip_to_int(ip) for ip in sources],
        kept=not fresh,
        secured=secured,
    )
    with Asking.of(load) as asking:
        while (now_ns := time.monotonic_ns()) < measured_ns:
            asking.breathe(min(measured_ns, now_ns + BREATH_NS))
        asking.rows.clear()
        load.loop[0]["late"] = load.loop[0]["latest_ns"] = load.loop[0]["spun_ns"] = 0
        at_edge()
        busy, before_ns, cpu_ns = Busy(), time.monotonic_ns(), time.thread_time_ns()
        while (now_ns := time.monotonic_ns()) < end_ns and not (load.loop[0]["open"] and httpload.is_over(load)):
            asking.breathe(min(end_ns, now_ns + BREATH_NS))
        duration_ns, cpu_ns = time.monotonic_ns() - before_ns, time.thread_time_ns() - cpu_ns
        at_edge()
        loop = load.loop[0]
        generator = Generator("compiled", int(loop["late"]), int(loop["latest_ns"]), busy.share(int(loop["spun_ns"])))
    return Answers(asking.ended(), duration_ns, cpu_ns, generator)


def _requests(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Columns as a Recorder has them, in the order in which the requests were due."""
    place = rows["number"]
    columns = {name: np.empty(len(rows), rows.dtype[name]) for name in REQUEST_COLUMNS}
    for name, column in columns.items():
        column[place] = rows[name]
    return columns


def _connections(dials: Sequence[np.ndarray], number: int) -> dict[str, np.ndarray]:
    """The same of connections, by their numbers; one that was still being dialled at the end has no address."""
    every = np.concatenate([np.zeros(0, DIAL), *dials])
    place = every["connection"]
    columns: dict[str, np.ndarray] = {
        "began_ns": np.full(number, NEVER, np.int64),
        "client_ip": np.zeros(number, np.uint32),
        "client_port": np.zeros(number, np.uint16),
    }
    for name, field in (("began_ns", "began_ns"), ("client_ip", "ip"), ("client_port", "port")):
        columns[name][place] = every[field]
    return columns
