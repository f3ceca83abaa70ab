"""``python -m harness.drivers.ceiling``: how much the generator asks of a target that costs next to nothing.

The compiled generator and, where they are installed, wrk: in turns, on one core, each against the same responder on
another, which is afresh for each. Medians over the rounds, and of the rates also the ratio to wrk's of the same round.
"""

import contextlib
import os
import re
import select
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator

import click
import numpy as np

from harness.drivers import compiled
from harness.units import NS_PER_S
from harness.workload import Workload
from kernels import warm
from kernels.net import httpresponder
from kernels.net.httpresponder import Counter
from plane.descriptors import allow_descriptors

BODY_BYTES = 34
CAPACITY = 4096
BREATH_NS = 100_000_000
PERCENTS = (50, 90, 99)
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}

# (requests/s, percentiles of PERCENTS in us)
Turn = tuple[float, list[float]]


def main() -> None:
    measure.main(standalone_mode=True)


@click.command(help="How much the generator asks of a target that costs next to nothing, beside wrk.")
@click.option("--connections", type=click.IntRange(1, CAPACITY), default=32, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1), default=3.0, show_default=True, help="How long each turn is.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
def measure(connections: int, seconds: float, rounds: int) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise click.ClickException("two cores are needed, one for who asks and one for who answers; there is one")
    compiled.prepare()
    os.sched_setaffinity(0, {cores[0]})
    turns: dict[str, list[Turn]] = {"compiled": []}
    if shutil.which("wrk"):
        turns["wrk"] = []
    for number in range(rounds):
        for name in list(turns) if number % 2 else list(reversed(turns)):
            with responding(cores[1]) as port:
                ask = _compiled if name == "compiled" else _wrk
                turns[name].append(ask(port, connections, seconds))
    print(f"| {connections} connections | requests/s | to wrk | " + " | ".join(f"p{p} µs" for p in PERCENTS) + " |")
    print("|---|---|---|" + "---|" * len(PERCENTS))
    for name, taken in turns.items():
        rates = [rate for rate, _ in taken]
        ratios = [rate / wrk for (rate, _), (wrk, _) in zip(taken, turns.get("wrk", []), strict=False)]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})" if ratios else ""
        latencies = [statistics.median(values) for values in zip(*(each for _, each in taken), strict=True)]
        spread = f"{statistics.median(rates):,.0f} ({min(rates):,.0f}–{max(rates):,.0f})"
        print(f"| {name} | {spread} | {ratio} | " + " | ".join(f"{value:.0f}" for value in latencies) + " |")


@contextlib.contextmanager
def responding(core: int | None) -> Iterator[int]:
    """A responder in a process of its own, on that core if one is named, on 127.0.0.1; yields its port."""
    command = [sys.executable, "-c", "from harness.drivers import ceiling; ceiling.respond()"]
    pinned = command if core is None else ["taskset", "-c", str(core), *command]
    with subprocess.Popen(pinned, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdin
        line = process.stdout.readline()
        if not line:
            raise click.ClickException("the responder does not start")
        try:
            yield int(line)
        finally:
            process.stdin.close()


def respond() -> None:
    """Answers until standard input ends; says its port first."""
    warm.once("httpresponder", httpresponder.warm)
    allow_descriptors(CAPACITY + 64)
    with socket.create_server(("127.0.0.1", 0), backlog=CAPACITY) as listener, select.epoll() as epoll:
        listener.setblocking(False)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
        responder = httpresponder.create([Counter(listener.fileno(), httpresponder.answer_of(BODY_BYTES))], CAPACITY)
        responder.hall[0]["epoll"] = epoll.fileno()
        if (status := httpresponder.listen(responder)) < 0:
            raise OSError(-status, os.strerror(-status))
        print(listener.getsockname()[1], flush=True)
        while not select.select([sys.stdin], [], [], 0)[0]:
            httpresponder.breath(responder, time.monotonic_ns() + BREATH_NS)


def _compiled(port: int, connections: int, seconds: float) -> Turn:
    """Rows are kept as a run keeps them."""
    answers = compiled.ask(
        [("127.0.0.1", port)],
        [compiled.asked(Workload(f"127.0.0.1:{port}"))],
        connections=connections,
        seconds=seconds,
    )
    if answers.errors:
        raise click.ClickException(f"the responder did not answer: {answers.errors}")
    return answers.rate, percentiles_us(answers.latencies_ns)


def percentiles_us(latencies_ns: np.ndarray) -> list[float]:
    """Of PERCENTS, nearest rank."""
    ordered = np.sort(latencies_ns)
    return [float(ordered[-(-len(ordered) * percent // 100) - 1]) / (NS_PER_S / 1e6) for percent in PERCENTS]


def _wrk(port: int, connections: int, seconds: float) -> Turn:
    """With a header that is as long as the generator's id and User-Agent, so that requests have equally many bytes."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    filling = ["-H", "User-Agent: trafficplane", "-H", "Accept: */*", "-H", "X-Request-ID: 0123456789abcdef"]
    said = subprocess.run(
        [*command, *filling, f"http://127.0.0.1:{port}/"], capture_output=True, text=True, check=True
    ).stdout
    return read_wrk(said)


def read_wrk(said: str) -> Turn:
    """What ``wrk --latency`` prints. Raises ClickException where it is no measurement without errors."""
    rate = re.search(r"Requests/sec:\s+([\d.]+)", said)
    latencies = {int(p): float(x) * _UNITS[unit] for p, x, unit in re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)\b", said)}
    if not rate or "Non-2xx" in said or "Socket errors" in said or not latencies.keys() >= set(PERCENTS):
        raise click.ClickException(f"wrk did not measure: {said}")
    return float(rate[1]), [latencies[percent] for percent in PERCENTS]


if __name__ == "__main__":
    main()
