"""The client: wrk, and for whole TLS handshakes one of our own; neither is the subject's process or on its core.

Law: the CPU of who is measured is read right before the client starts and right after it ends. One answer that is not
2xx, broken, late or too short is an error, and then there is no number.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.peers import cpu
from harness.peers.client import Measured
from harness.peers.process import Process
from harness.peers.rounds import Cores
from harness.peers.web.site import HTTP_PORT, HTTPS_PORT
from harness.peers.web.workloads import Workload
from plane.errors import PlaneError

SCRIPT = Path(__file__).with_name("wrk.lua")
PATIENCE_S = 30.0  # beyond the time that is measured


def lacks() -> str:
    return "" if shutil.which("wrk") else "no wrk found, which asks the questions; apt install wrk"


def version() -> str:
    said = subprocess.run(["wrk", "-v"], capture_output=True, text=True).stdout
    found = re.search(r"wrk (?:debian/)?(\S+)", said)
    return f"wrk {found[1] if found else ''}".strip()


def measure(
    workload: Workload, where: tuple[str, int], hosts: Sequence[str], seconds: int, places: Cores, pids: Sequence[int]
) -> Measured:
    """One measurement of whoever listens there. Raises PlaneError where the client does not end as it should."""
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


def command(workload: Workload, where: tuple[str, int], hosts: Sequence[str], seconds: int) -> list[str]:
    """What is run to ask for ``seconds``."""
    ip, port = where
    if workload.tls and workload.fresh:
        module = [sys.executable, "-m", "harness.peers.web.handshakes", ip, str(port)]
        return [*module, hosts[0], workload.target, str(workload.connections), str(seconds)]
    url = f"{'https' if workload.tls else 'http'}://{ip}:{port}{workload.target}"
    options = ["-t1", f"-c{workload.connections}", f"-d{seconds}s", "--timeout", "10s", "--latency", "-s", str(SCRIPT)]
    method = "POST" if workload.posted_bytes else "GET"
    asked = [method, workload.target, str(workload.posted_bytes), "close" if workload.fresh else "keep", *hosts]
    return ["wrk", *options, url, "--", *asked]


def port_of(workload: Workload) -> int:
    return HTTPS_PORT if workload.tls else HTTP_PORT


def _asked(words: list[str], core: int, seconds: int) -> dict[str, Any]:
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
