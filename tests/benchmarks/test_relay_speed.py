"""What a connection through the relay costs beside a direct one: ``extra_info["ratio"]``, from medians of one run."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from plane.addresses import AddressPlan
from plane.proxy import Proxy
from tests.loopback import Address, ask, dial, make_fib, receive

pytestmark = pytest.mark.syscalls

PAGE = bytes(200)
ASKED = 10  # requests in a measured call on a kept connection

SERVER = """
import socket, sys, threading
def serve(connection):
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := connection.recv(4096):
            connection.sendall(data)
with socket.create_server((sys.argv[1], int(sys.argv[2]))) as listener:
    print("ready", flush=True)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


@pytest.fixture(scope="module")
def ways(plan: AddressPlan) -> Iterator[dict[str, Address]]:
    """The address of a pod in a process of its own, and that of the Service in front of it."""
    pod, vip = (str(plan.pods_of(1)[9]), 8080), (str(plan.cluster_ips[700]), 8080)
    command = [sys.executable, "-c", SERVER, pod[0], str(pod[1])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        proxy = Proxy(plan, 1)
        proxy.start()
        proxy.install(make_fib(1, {vip: [pod]}))
        try:
            yield {"direct": pod, "relay": vip}
        finally:
            proxy.stop(0)
            process.kill()


@pytest.fixture(scope="module")
def direct_medians() -> dict[str, float]:
    return {}


def note_ratio(benchmark: BenchmarkFixture, medians: dict[str, float], what: str, way: str) -> None:
    """Keep the direct connection's median, and put the relay's ratio to it into the report."""
    if benchmark.stats is None:  # benchmarks are switched off: what is measured ran once, as a test
        return
    median = benchmark.stats.stats.median
    if way == "direct":
        medians[what] = median
    elif what in medians:
        benchmark.extra_info["ratio"] = round(median / medians[what], 2)


@pytest.mark.benchmark(group="relay: ten requests on a kept connection")
@pytest.mark.parametrize("way", ["direct", "relay"])
def test_requests_on_a_kept_connection(
    benchmark: BenchmarkFixture, ways: dict[str, Address], direct_medians: dict[str, float], way: str
) -> None:
    with dial(ways[way]) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def ping_pong() -> bool:
            for _ in range(ASKED):
                client.sendall(PAGE)
                if receive(client, len(PAGE)) != PAGE:
                    return False
            return True

        assert benchmark(ping_pong)
    note_ratio(benchmark, direct_medians, "kept", way)


@pytest.mark.benchmark(group="relay: a connection for each request")
@pytest.mark.parametrize("way", ["direct", "relay"])
def test_a_connection_for_each_request(
    benchmark: BenchmarkFixture, ways: dict[str, Address], direct_medians: dict[str, float], way: str
) -> None:
    assert benchmark(ask, ways[way], PAGE, len(PAGE)) == PAGE
    note_ratio(benchmark, direct_medians, "fresh", way)
