"""The clients, none of them the subject's process or on its core: compiled, wrk, and one for whole TLS handshakes.

Law: the CPU of who is measured is read right before what is measured and right after it. One answer that is not 2xx,
broken, late or too short is an error, and then there is no number. The compiled client asks what plain HTTP can: it has
every answer's time and size. wrk, which ``--client wrk`` takes for all, asks by TLS.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.peers import cpu
from harness.peers.client import Measured
from harness.peers.process import Process
from harness.peers.rounds import Cores
from harness.peers.web.asking import Job
from harness.peers.web.site import HTTP_PORT, HTTPS_PORT
from harness.peers.web.workloads import Workload
from plane.errors import PlaneError

COMPILED, WRK, HANDSHAKES = "compiled", "wrk", "Python's ssl"
CLIENTS = (COMPILED, WRK)  # that may be preferred
SCRIPT = Path(__file__).with_name("wrk.lua")
PATIENCE_S = 30.0  # beyond the time that is measured
COMPILING_S = 180.0  # the first time on a machine


def chosen(workload: Workload, preferred: str) -> str:
    """The client that asks a workload."""
    if workload.tls:
        return HANDSHAKES if workload.fresh else WRK
    return preferred


def lacks(workloads: Iterable[Workload], preferred: str) -> str:
    """What this machine has not got that it takes to ask these, and the remedy; empty where nothing."""
    asked = [each.name for each in workloads if chosen(each, preferred) == WRK]
    return f"no wrk found, which asks {', '.join(asked)}; apt install wrk" if asked and not shutil.which("wrk") else ""


def told(workloads: Iterable[Workload], preferred: str) -> str:
    """Who asks which workload, for people."""
    asked: dict[str, list[str]] = {}
    for workload in workloads:
        asked.setdefault(chosen(workload, preferred), []).append(workload.name)
    names = {WRK: _version_of_wrk()} if WRK in asked else {}
    return "; ".join(f"{names.get(client, client)} for {', '.join(each)}" for client, each in asked.items())


def _version_of_wrk() -> str:
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout
    found = re.search(r"wrk (?:debian/)?(\S+)", said)
    return f"wrk {found[1] if found else ''}".strip()


class Client:
    """Who asks: the compiled client's process, which stays, and what is started for a measurement each time."""

    def __init__(self, preferred: str, places: Cores):
        self._preferred = preferred
        self._places = places
        self._compiled: Process | None = None

    @classmethod
    @contextmanager
    def of(cls, preferred: str, places: Cores) -> Iterator["Client"]:
        """Ended on the way out."""
        client = cls(preferred, places)
        try:
            yield client
        finally:
            if client._compiled is not None:
                client._compiled.end()

    def measure(
        self, workload: Workload, where: tuple[str, int], hosts: Sequence[str], seconds: float, pids: Sequence[int]
    ) -> Measured:
        """One measurement of whoever listens there. Raises PlaneError where the client does not end as it should."""
        if chosen(workload, self._preferred) == COMPILED:
            return self._by_compiled(workload, where, hosts, seconds, pids)
        return _by_program(workload, where, hosts, seconds, self._places, pids)

    def _by_compiled(
        self, workload: Workload, where: tuple[str, int], hosts: Sequence[str], seconds: float, pids: Sequence[int]
    ) -> Measured:
        if self._compiled is None:
            self._compiled = Process([sys.executable, "-m", "harness.peers.web.asking"], self._places.others)
            if (line := self._compiled.line(COMPILING_S)) != "ready":
                raise PlaneError(line)
        job = Job(
            *where,
            method=workload.method,
            target=workload.target,
            hosts=list(hosts),
            posted_bytes=workload.posted_bytes,
            answer_bytes=workload.answer_bytes,
            connections=workload.connections,
            fresh=workload.fresh,
            seconds=seconds,
            pids=list(pids),
            core=self._places.subject,
        )
        self._compiled.say(json.dumps(asdict(job)))
        return Measured(**json.loads(self._compiled.line(seconds + PATIENCE_S)))


def _by_program(
    workload: Workload, where: tuple[str, int], hosts: Sequence[str], seconds: float, places: Cores, pids: Sequence[int]
) -> Measured:
    before = time.monotonic_ns(), cpu.of_processes(pids), cpu.of_core(places.subject)
    said = _asked(command(workload, where, hosts, seconds), places.others, seconds)
    _, cpu_ns, core_ns = (
        now - then
        for then, now in zip(
            before, (time.monotonic_ns(), cpu.of_processes(pids), cpu.of_core(places.subject)), strict=True
        )
    )
    misses = dict(said["errors"])
    if not misses and said["bytes"] < said["answered"] * workload.answer_bytes:
        misses["too short"] = said["answered"]
    if not misses and not said["answered"]:
        misses["no answer"] = 1
    times = said["p50_ns"], said["p99_ns"], said["max_ns"]
    return Measured(said["answered"], said["duration_ns"], cpu_ns, core_ns, *times, misses=misses)


def command(workload: Workload, where: tuple[str, int], hosts: Sequence[str], seconds: float) -> list[str]:
    """What is run to ask for ``seconds``."""
    ip, port = where
    if workload.tls and workload.fresh:
        module = [sys.executable, "-m", "harness.peers.web.handshakes", ip, str(port)]
        return [*module, hosts[0], workload.target, str(workload.connections), f"{seconds:g}"]
    url = f"{'https' if workload.tls else 'http'}://{ip}:{port}{workload.target}"
    options = [
        "-t1",
        f"-c{workload.connections}",
        f"-d{seconds:g}s",
        "--timeout",
        "10s",
        "--latency",
        "-s",
        str(SCRIPT),
    ]
    body, kept = str(workload.posted_bytes), "close" if workload.fresh else "keep"
    return ["wrk", *options, url, "--", workload.method, workload.target, body, kept, *hosts]


def port_of(workload: Workload) -> int:
    return HTTPS_PORT if workload.tls else HTTP_PORT


def _asked(words: list[str], core: int, seconds: float) -> dict[str, Any]:
    process = Process(words, core)
    try:
        deadline = time.monotonic() + seconds + PATIENCE_S
        while time.monotonic() < deadline:
            line = process.line(seconds + PATIENCE_S)
            if line.startswith("{"):
                return json.loads(line)
        raise PlaneError(f"{words[0]}: said nothing of what it measured")
    finally:
        process.end()
