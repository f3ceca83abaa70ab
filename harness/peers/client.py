"""``python -m harness.peers.client``: the client's process. A line of JSON in (a ``Job``), a line out (a ``Measured``).

Law: what is measured begins when all connections are open and have been used, and the warm-up is over; the CPU of who
is measured is read at its beginning and its end, here, so that both are of one stretch of time. The first request
without a right answer ends it: there is no number then.
"""

import json
import select
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import numpy as np

from harness.peers import cpu
from harness.peers.workloads import MOST_CONNECTIONS
from kernels import warm
from kernels.layout import HOLDING, MISSES, TCP, UDP, Load
from kernels.net import loadgen
from plane.addresses import ip_to_int
from plane.descriptors import allow_descriptors

NS_PER_S = 1_000_000_000
BREATH_NS = 50_000_000
TIMEOUT_NS = 10 * NS_PER_S  # an answer, or a connect, that takes longer is missing
WARM_ASKED = 4  # requests of each client before anything is measured
PERCENTS = (50, 99, 100)


@dataclass(frozen=True)
class Job:
    """What to ask, and whose CPU to read meanwhile. ``seconds`` and ``warm_s`` are times, the others as in Workload."""

    protocol: str
    addresses: list[tuple[str, int]]
    sources: list[str]
    connections: int
    fresh: bool
    request_bytes: int
    answer_bytes: int
    warm_s: float
    seconds: float
    pids: list[int]
    core: int


@dataclass(frozen=True)
class Measured:
    """What came of it; where ``misses`` are counted the rest is of no use."""

    answered: int
    duration_ns: int
    cpu_ns: int
    core_ns: int
    p50_ns: int
    p99_ns: int
    max_ns: int
    misses: Mapping[str, int] = field(default_factory=dict)


def measure(job: Job) -> Measured:
    """Runs one job from first connection to last."""
    with _load(job) as load:
        if not _all_connected(load, job) or not _warmed_up(load, job):
            return _missed(load)
        before_ns = time.monotonic_ns(), cpu.of_processes(job.pids), cpu.of_core(job.core)
        latencies: list[np.ndarray] = []
        fine = _run(load, int(job.seconds * NS_PER_S), latencies)
        while fine and sum(map(len, latencies)) < job.connections:  # longer where it is slow: too few are no number
            fine = _run(load, BREATH_NS, latencies)
        after_ns = time.monotonic_ns(), cpu.of_processes(job.pids), cpu.of_core(job.core)
        if not fine:
            return _missed(load)
    duration_ns, cpu_ns, core_ns = (after - before for before, after in zip(before_ns, after_ns, strict=True))
    every = np.concatenate(latencies)
    return Measured(len(every), duration_ns, cpu_ns, core_ns, *percentiles(every))


def percentiles(latencies: np.ndarray) -> tuple[int, int, int]:
    """Of 50, 99 and 100 %, by nearest rank as in reports; 0 where nothing was answered."""
    if not len(latencies):
        return 0, 0, 0
    ordered = np.sort(latencies)
    p50, p99, highest = (int(ordered[-(-len(ordered) * percent // 100) - 1]) for percent in PERCENTS)
    return p50, p99, highest


@contextmanager
def _load(job: Job) -> Iterator[Load]:
    load = loadgen.create(
        {"TCP": TCP, "UDP": UDP}[job.protocol],
        [(ip_to_int(ip), port) for ip, port in job.addresses],
        [ip_to_int(ip) for ip in job.sources],
        job.connections,
        job.request_bytes,
        job.answer_bytes,
        fresh=job.fresh,
        hold=not job.fresh,
    )
    with select.epoll() as epoll:
        load.loop[0]["epoll"] = epoll.fileno()
        try:
            yield load
        finally:
            loadgen.end_all(load)


def _all_connected(load: Load, job: Job) -> bool:
    """Returns once all that stay connected are, and have begun to ask; false where one misses."""
    while not job.fresh and np.count_nonzero(load.clients["state"] == HOLDING) < job.connections:
        if not _run(load, BREATH_NS // 10, []):
            return False
    loadgen.ask_all(load)
    return True


def _warmed_up(load: Load, job: Job) -> bool:
    """Returns once the warm-up is over and each client has asked some times; false where one misses.

    Whoever is measured takes memory for a connection at its first bytes; what is measured is how it goes on.
    """
    fine = _run(load, int(job.warm_s * NS_PER_S), [])
    while fine and load.loop[0]["asked"] < WARM_ASKED * job.connections:
        fine = _run(load, BREATH_NS, [])
    return fine


def _run(load: Load, for_ns: int, latencies: list[np.ndarray]) -> bool:
    """Asks for so long and takes the latencies out. Returns whether every request was answered rightly."""
    end_ns = time.monotonic_ns() + for_ns
    while (now_ns := time.monotonic_ns()) < end_ns:
        if (status := loadgen.breath(load, min(end_ns, now_ns + BREATH_NS))) < 0:
            raise OSError(-status, "epoll_wait")
        answered = int(load.loop[0]["answered"])
        latencies.append(load.latencies[:answered].copy())
        load.loop[0]["answered"] = 0
        loadgen.give_up_overdue(load, time.monotonic_ns() - TIMEOUT_NS)
        if load.misses.any():
            return False
    return True


def _missed(load: Load) -> Measured:
    counts = zip(MISSES, load.misses.tolist(), strict=True)
    return Measured(0, 0, 0, 0, 0, 0, 0, {name: count for name, count in counts if count})


def main() -> None:
    """Serves jobs until standard input ends."""
    warm.warm()
    allow_descriptors(MOST_CONNECTIONS + 1024)
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(measure(Job(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    main()
