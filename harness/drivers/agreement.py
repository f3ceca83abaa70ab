"""``python -m harness.drivers.agreement``: what the generator and wrk say of the same target, percentile by percentile.

In turns on one core, each against targets on another: NGINX that returns 100 bytes, and one that answers each request a
millisecond after it has come. With ``--tls`` by HTTPS from NGINX alone, and h2load has a turn as well.

wrk 4 corrects what it prints: for each latency of twice the mean or more it adds those that requests would have had
which were due meanwhile (``stats_correct``). Ours are exact, and beside them is what they would be with that
correction.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from harness import certificates
from harness.certificates import Certificate
from harness.drivers import compiled
from harness.drivers.ceiling import CAPACITY
from harness.drivers.timer import Timer
from harness.drivers.tls import Tls
from harness.units import NS_PER_S
from harness.workload import Workload

HOST = "agreement.example"
BODY_BYTES = 100
DELAY_NS = 1_000_000
PERCENTS = (50.0, 90.0, 99.0, 99.9)
WARM_S = 0.2  # wrk counts no connect and no handshake: those of connections that stay are over by then
PATIENCE_S = 10.0
H2LOAD_ASKS = 20_000  # a second that its turn is to last
US = NS_PER_S / 1e6
# What wrk and h2load ask with, so that requests have as many bytes as ours.
FILLING = ("User-Agent: trafficplane", "Accept: */*", "X-Request-ID: 0123456789abcdef")
COMPILED, CORRECTED, WRK, H2LOAD = "compiled", "compiled, corrected", "wrk", "h2load"
_SCRIPT = """
function done(summary, latency)
  local errors = summary.errors
  local bad = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format('\\n{"answered": %d, "us": %.0f, "bad": %d, "percentiles": [%.0f, %.0f, %.0f, %.0f]}\\n',
    summary.requests, summary.duration, bad,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9)))
end
"""


@dataclass(frozen=True)
class Ask:
    """How a turn goes. ``authority``: PEM of who has signed the target's certificate; empty: it is plain HTTP."""

    connections: int
    seconds: int
    fresh: bool
    authority: str = ""

    def url(self, port: int) -> str:
        return f"{'https' if self.authority else 'http'}://127.0.0.1:{port}/"

    @property
    def fields(self) -> list[str]:
        """What others add to a request, as options of theirs."""
        named = [*FILLING, *(["Connection: close"] if self.fresh else [])]
        return [option for each in named for option in ("-H", each)]


@dataclass
class Seen:
    """Of one client at one target, by turn: answers a second; and percentiles of PERCENTS in µs, if it says any."""

    rates: list[float] = field(default_factory=list)
    percentiles_us: list[Sequence[float]] = field(default_factory=list)

    def add(self, rate: float, percentiles_us: Sequence[float] = ()) -> None:
        self.rates.append(rate)
        if len(percentiles_us):
            self.percentiles_us.append(percentiles_us)


def main() -> None:
    measure.main(standalone_mode=True)


@click.command(help="What the generator and wrk say of the same target, percentile by percentile.")
@click.option("--connections", type=click.IntRange(1, CAPACITY), default=8, show_default=True)
@click.option("--seconds", type=click.IntRange(1), default=3, show_default=True, help="How long each turn is.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--tls", is_flag=True, help="By HTTPS.")
@click.option("--fresh", is_flag=True, help="A connection for each request.")
def measure(connections: int, seconds: int, rounds: int, tls: bool, fresh: bool) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise click.ClickException("two cores are needed, one for who asks and one for who answers; there is one")
    if not shutil.which("wrk"):
        raise click.ClickException("wrk is not installed: apt install wrk")
    if tls and not compiled.can_secure():
        raise click.ClickException("Python's OpenSSL does not show its functions to compiled code")
    compiled.prepare()
    os.sched_setaffinity(0, {cores[0]})
    issued = certificates.issued([Certificate(secret="made", hosts=[HOST])] if tls else [])
    ask = Ask(connections, seconds, fresh, issued.authority)
    secret = issued.secrets[0]["stringData"] if tls else {}
    targets: dict[str, Callable[[], contextlib.AbstractContextManager[int]]] = {
        f"nginx, {BODY_BYTES} B": partial(nginx, cores[1], secret)
    }
    if not tls:
        targets["1 ms"] = partial(delaying, cores[1])
    print(f"| {connections} connections | | requests/s | to wrk | " + " | ".join(f"p{p:g} µs" for p in PERCENTS) + " |")
    print("|---|---|---|---|" + "---|" * len(PERCENTS))
    for name, target in targets.items():
        with target() as port:
            for line in _rows(name, _turns(port, ask, rounds)):
                print(line, flush=True)


def _turns(port: int, ask: Ask, rounds: int) -> dict[str, Seen]:
    """Each client's turns at a target, neighbours in time, in an order that changes from round to round."""
    seen = {COMPILED: Seen(), CORRECTED: Seen(), WRK: Seen()}
    asking = [_ask_compiled, _ask_wrk]
    if ask.authority and shutil.which("h2load") and not ask.fresh:
        seen[H2LOAD] = Seen()
        asking.append(_ask_h2load)
    for number in range(rounds):
        for each in asking if number % 2 else reversed(asking):
            each(port, ask, seen)
    return seen


def _rows(target: str, seen: dict[str, Seen]) -> Iterator[str]:
    for client, each in seen.items():
        if not each.rates:
            continue
        ratios = [rate / other for rate, other in zip(each.rates, seen[WRK].rates, strict=True)]
        rate = f"{statistics.median(each.rates):,.0f} ({min(each.rates):,.0f}–{max(each.rates):,.0f})"
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
        medians = [f"{statistics.median(values):,.0f}" for values in zip(*each.percentiles_us, strict=True)]
        print_as = medians or [""] * len(PERCENTS)
        yield f"| {target} | {client} | {rate} | {ratio} | " + " | ".join(print_as) + " |"


def _ask_compiled(port: int, ask: Ask, seen: dict[str, Seen]) -> None:
    workload = Workload(HOST, keep_alive=not ask.fresh)
    # wrk resumes the session of a connection's last, so its peer does.
    tls = Tls(HOST, ask.authority, only=True, resume=True) if ask.authority else None
    with compiled.securing(tls) as secured:
        answers = compiled.ask(
            [("127.0.0.1", port)],
            [compiled.asked(workload)],
            connections=ask.connections,
            seconds=ask.seconds,
            warm_s=0.0 if ask.fresh else WARM_S,
            fresh=ask.fresh,
            secured=secured,
        )
    if answers.errors:
        raise click.ClickException(f"the target did not answer: {answers.errors}")
    latencies_us = answers.latencies_ns / US
    interval_us = ask.connections * answers.duration_ns / US / len(latencies_us)
    seen[COMPILED].add(answers.rate, percentiles(latencies_us))
    seen[CORRECTED].add(answers.rate, percentiles(corrected(latencies_us, interval_us)))


def percentiles(latencies_us: np.ndarray) -> list[float]:
    """Of PERCENTS, nearest rank."""
    ordered = np.sort(latencies_us)
    ranks = [max(int(np.ceil(len(ordered) * percent / 100)), 1) for percent in PERCENTS]
    return [float(ordered[rank - 1]) for rank in ranks]


def corrected(latencies_us: np.ndarray, interval_us: float) -> np.ndarray:
    """The latencies with those that wrk adds to them, where a connection has an answer each ``interval_us``."""
    expected = max(int(interval_us), 1)
    left = latencies_us.astype(np.int64)
    left = left[left >= 2 * expected] - expected
    parts = [latencies_us]
    while len(left := left[left > expected]):
        parts.append(left.astype(np.float64))
        left = left - expected
    return np.concatenate(parts)


def _ask_wrk(port: int, ask: Ask, seen: dict[str, Seen]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_SCRIPT)
        script.flush()
        options = ["-t1", f"-c{ask.connections}", f"-d{ask.seconds}s", "-s", script.name, "-H", f"Host: {HOST}"]
        said = subprocess.run(
            ["wrk", *options, *ask.fields, ask.url(port)], capture_output=True, text=True, check=True
        ).stdout
    seen[WRK].add(*read_wrk(said))


def read_wrk(said: str) -> tuple[float, list[float]]:
    """(answers a second, percentiles) of what wrk prints by our script. Raises ClickException where it met errors."""
    lines = [line for line in said.splitlines() if line.startswith("{")]
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {"bad": 1}
    if found["bad"] or not found["answered"]:
        raise click.ClickException(f"wrk did not measure: {said}")
    return found["answered"] / found["us"] * 1e6, found["percentiles"]


def _ask_h2load(port: int, ask: Ask, seen: dict[str, Seen]) -> None:
    # By HTTP/1.1 it does not end after a time, so it is told a number.
    options = ["--h1", "-t1", f"-c{ask.connections}", f"-n{H2LOAD_ASKS * ask.seconds}"]
    command = ["h2load", *options, *ask.fields, ask.url(port)]
    said = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=PATIENCE_S * (ask.seconds + 1)
    ).stdout
    seen[H2LOAD].add(read_h2load(said))


def read_h2load(said: str) -> float:
    """Answers a second of what h2load prints. Raises ClickException where there were errors."""
    found = re.search(r"finished in [\d.]+[mu]?s, ([\d.]+) req/s", said)
    failed = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", said)
    if not found or not failed or any(int(count) for count in failed.groups()):
        raise click.ClickException(f"h2load did not measure: {said}")
    return float(found[1])


@contextlib.contextmanager
def nginx(core: int, secret: dict[str, str]) -> Iterator[int]:
    """NGINX on that core with one worker, by TLS where there is a certificate; yields its port on 127.0.0.1."""
    binary = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if binary is None:
        raise click.ClickException("nginx is not installed: apt install nginx-light")
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="agreement") as folder:
        for name, text in secret.items():
            Path(folder, name).write_text(text)
        pair = f"ssl_certificate {folder}/tls.crt; ssl_certificate_key {folder}/tls.key; " if secret else ""
        Path(folder, "nginx.conf").write_text(
            f"daemon off; pid {folder}/pid; error_log stderr crit; worker_processes 1; "
            "events { worker_connections 8192; }\n"
            "http { access_log off; keepalive_requests 1000000000; "
            f"server {{ listen 127.0.0.1:{port}{' ssl' if secret else ''} backlog=4096; {pair}"
            f'location / {{ return 200 "{"x" * BODY_BYTES}"; }} }} }}\n'
        )
        command = ["taskset", "-c", str(core), binary, "-p", folder, "-e", "stderr", "-c", f"{folder}/nginx.conf"]
        with subprocess.Popen(command) as process:
            try:
                _wait_for(port, process)
                yield port
            finally:
                process.terminate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > until_s:
                raise click.ClickException(f"nginx does not listen on port {port}: {error}") from None
            time.sleep(0.01)


@contextlib.contextmanager
def delaying(core: int) -> Iterator[int]:
    """A server on that core that answers each request DELAY_NS after it has come; yields its port on 127.0.0.1."""
    command = [
        "taskset",
        "-c",
        str(core),
        sys.executable,
        "-c",
        "from harness.drivers import agreement; agreement.delay()",
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdin
        line = process.stdout.readline()
        if not line:
            raise click.ClickException("the server that delays does not start")
        try:
            yield int(line)
        finally:
            process.stdin.close()


def delay() -> None:
    """Answers until standard input ends; says its port first."""
    asyncio.run(_delay())


async def _delay() -> None:
    loop = asyncio.get_running_loop()
    over = asyncio.Event()
    waiting: deque[tuple[int, asyncio.Transport]] = deque()
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES + b"x" * BODY_BYTES

    def due() -> None:
        while waiting and waiting[0][0] <= time.monotonic_ns():
            waiting.popleft()[1].write(answer)
        if waiting:
            timer.arm(waiting[0][0])

    timer = Timer(loop, due)

    class Connection(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            self.held = b""

        def data_received(self, data: bytes) -> None:
            *whole, self.held = (self.held + data).split(b"\r\n\r\n")
            for _ in whole:
                waiting.append((time.monotonic_ns() + DELAY_NS, self.transport))
                if len(waiting) == 1:
                    timer.arm(waiting[0][0])

    server = await loop.create_server(Connection, "127.0.0.1", 0, backlog=CAPACITY)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop.add_reader(sys.stdin.fileno(), over.set)
    await over.wait()
    server.close()
    timer.close()


if __name__ == "__main__":
    main()
