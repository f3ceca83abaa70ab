"""What UDP through the relay costs beside a direct way: ``ratio`` of medians of one run, and the relay's ``cpu_us``."""

import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from kernels.layout import RR, UDP
from kernels.lb.forward import create_steering
from kernels.net import datagrams, relay, udpflows
from plane.addresses import AddressPlan, ip_to_int
from tests.batches import Backend, Frontend, fib_of
from tests.loopback import PATIENCE_S, Address

pytestmark = pytest.mark.syscalls

PAGE = bytes(200)
ASKED = 10  # questions in a measured call
BURST = 50

SERVER = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pod:
    pod.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    pod.bind((sys.argv[1], int(sys.argv[2])))
    print("ready", flush=True)
    while True:
        data, client = pod.recvfrom(4096)
        pod.sendto(data, client)
"""


class Way(NamedTuple):
    """An address that echoes, and how much CPU time the relay in front of it has taken, in s."""

    address: Address
    cpu_s: Callable[[], float]


@pytest.fixture(scope="module")
def ways(plan: AddressPlan) -> Iterator[dict[str, Way]]:
    """A pod in a process of its own, and the Service in front of it."""
    pod, vip = (str(plan.pods_of(1)[9]), 5353), (str(plan.cluster_ips[702]), 5353)
    command = [sys.executable, "-c", SERVER, pod[0], str(pod[1])]
    fib = fib_of([Frontend(ip_to_int(vip[0]), vip[1], UDP, RR, [1])], {1: Backend(ip_to_int(pod[0]), pod[1])})
    carrying = datagrams.with_listeners(relay.create(1, 1, ip_to_int(plan.node(1)), 10**9, 8192), 1)
    steering = create_steering(fib, 8192)
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            relay.breath(fib, steering, carrying, time.monotonic_ns() + 20_000_000)

    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
        select.epoll() as epoll,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as listener,
    ):
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        listener.bind(vip)
        carrying.loop[0]["epoll"] = epoll.fileno()
        carrying.datagrams.loop[0]["idle_ns"] = 500_000_000  # rounds of single questions leave thousands of flows
        entry = carrying.datagrams.listeners[1]
        entry["ip"], entry["port"], entry["fd"] = ip_to_int(vip[0]), vip[1], listener.fileno()
        assert datagrams.watch(carrying, listener.fileno(), 1, 0) == 0
        relay.breath(fib, steering, carrying, 0)
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert thread.ident
        clock = time.pthread_getcpuclockid(thread.ident)
        try:
            yield {"direct": Way(pod, lambda: 0.0), "relay": Way(vip, lambda: time.clock_gettime(clock))}
        finally:
            over.set()
            thread.join()
            relay.end_all(steering, carrying)
            assert udpflows.live(carrying.datagrams) == 0
            process.kill()


@pytest.fixture(scope="module")
def direct_medians() -> dict[str, float]:
    return {}


def open_client(way: Way) -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(PATIENCE_S)
    client.connect(way.address)
    return client


def measure(
    benchmark: BenchmarkFixture, medians: dict[str, float], way: str, ways: dict[str, Way], each: int, call: Callable
) -> None:
    """Run ``call``, which moves ``each`` datagrams there and back, and note what the relay adds."""
    calls = 0

    def counted() -> bool:
        nonlocal calls
        calls += 1
        return bool(call())

    counted()
    calls, begun_s = 0, ways[way].cpu_s()
    assert benchmark(counted)
    spent_s = ways[way].cpu_s() - begun_s
    if benchmark.stats is None:  # benchmarks are switched off: what is measured ran once, as a test
        return
    median = benchmark.stats.stats.median
    group = str(benchmark.group)
    if way == "direct":
        medians[group] = median
        return
    benchmark.extra_info["cpu_us"] = round(spent_s / calls / each * 1e6, 2)
    if group in medians:
        benchmark.extra_info["ratio"] = round(median / medians[group], 2)


@pytest.mark.benchmark(group="datagrams: ten questions, one after the other")
@pytest.mark.parametrize("way", ["direct", "relay"])
def test_questions_of_one_client(
    benchmark: BenchmarkFixture, ways: dict[str, Way], direct_medians: dict[str, float], way: str
) -> None:
    with open_client(ways[way]) as client:

        def ping_pong() -> bool:
            for _ in range(ASKED):
                client.send(PAGE)
                if client.recv(4096) != PAGE:
                    return False
            return True

        measure(benchmark, direct_medians, way, ways, ASKED, ping_pong)


@pytest.mark.benchmark(group="datagrams: fifty at once")
@pytest.mark.parametrize("way", ["direct", "relay"])
def test_a_burst_of_one_client(
    benchmark: BenchmarkFixture, ways: dict[str, Way], direct_medians: dict[str, float], way: str
) -> None:
    with open_client(ways[way]) as client:

        def burst() -> bool:
            for _ in range(BURST):
                client.send(PAGE)
            return all(client.recv(4096) == PAGE for _ in range(BURST))

        measure(benchmark, direct_medians, way, ways, BURST, burst)


@pytest.mark.benchmark(group="datagrams: a flow for each question")
@pytest.mark.parametrize("way", ["direct", "relay"])
def test_a_flow_for_each_question(
    benchmark: BenchmarkFixture, ways: dict[str, Way], direct_medians: dict[str, float], way: str
) -> None:
    def ask() -> bool:
        with open_client(ways[way]) as client:
            client.send(PAGE)
            return client.recv(4096) == PAGE

    measure(benchmark, direct_medians, way, ways, 1, ask)
