"""``python -m harness.peers.web.asking``: the compiled client. A line of JSON in, a ``Job``; one out, ``Measured``.

Law: as that of ``harness.peers.client``: what is measured begins when connections are open and have been used, and the
CPU of who is measured is read at its beginning and its end, here. Every answer is looked at: one that is not 2xx,
breaks off, is late or too short is a miss.
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from harness.drivers import compiled
from harness.peers import cpu
from harness.peers.client import Measured, percentiles
from kernels.net.httpload import Asked

WARM_S = 0.3
TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Job:
    """What to ask whom, and whose CPU to read meanwhile."""

    address: str
    port: int
    method: str
    target: str
    hosts: list[str]
    posted_bytes: int
    answer_bytes: int
    connections: int
    fresh: bool
    seconds: float
    pids: list[int]
    core: int


def measure(job: Job) -> Measured:
    """Runs one job from first connection to last."""
    edges: list[tuple[int, ...]] = []
    answers = compiled.ask(
        [(job.address, job.port)],
        [Asked(request(job, host), idempotent=False) for host in job.hosts],
        connections=job.connections,
        seconds=job.seconds,
        warm_s=WARM_S,
        fresh=job.fresh,
        timeout_s=TIMEOUT_S,
        at_edge=lambda: edges.append((time.monotonic_ns(), cpu.of_processes(job.pids), cpu.of_core(job.core))),
    )
    duration_ns, cpu_ns, core_ns = (after - before for before, after in zip(*edges, strict=True))
    if misses := _misses(answers, job.answer_bytes):
        return Measured(0, 0, 0, 0, 0, 0, 0, misses)
    return Measured(len(answers.rows), duration_ns, cpu_ns, core_ns, *percentiles(answers.latencies_ns))


def request(job: Job, host: str) -> bytes:
    """All bytes of one of its requests."""
    fields = [f"{job.method} {job.target} HTTP/1.1", f"Host: {host}"]
    fields += [f"Content-Length: {job.posted_bytes}"] if job.posted_bytes else []
    fields += ["Connection: close"] if job.fresh else []
    return "\r\n".join([*fields, "", ""]).encode() + b"x" * job.posted_bytes


def _misses(answers: compiled.Answers, answer_bytes: int) -> Mapping[str, int]:
    rows = answers.rows
    misses = Counter(answers.errors)
    whole = rows[(rows["error"] == 0) & (rows["status"] < 400)]
    misses["not 2xx"] = int(np.count_nonzero(whole["status"] // 100 != 2))
    misses["too short"] = int(np.count_nonzero(whole["bytes_in"] < answer_bytes))
    misses["no answer"] = int(not len(rows))
    return {why: count for why, count in misses.items() if count}


def main() -> None:
    """Serves jobs until standard input ends."""
    compiled.prepare()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(measure(Job(**json.loads(line))))), flush=True)


if __name__ == "__main__":
    main()
