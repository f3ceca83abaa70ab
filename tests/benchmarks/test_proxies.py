"""What a request through the ingress or the relay costs beside a direct connection and the plainest proxy of aiohttp.

``extra_info["ratio"]`` is the median's to that of the direct connection in the same run, ``cpu_us`` what the proxy's
process spent on a request, ``p99_us`` how long 99 of 100 requests took at most, from when they were sent. Each server
has a process to itself; so many requests are under way at a time that the proxies' work is measured, not their latency.
"""

import asyncio
import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import uvloop
from aiohttp import ClientSession, TCPConnector, web
from pytest_benchmark.fixture import BenchmarkFixture

from plane import routecompiler
from plane.addresses import AddressPlan
from plane.ingress.server import Ingress
from plane.proxy import Proxy
from tests.ingress import manifests
from tests.loopback import Address, dial, make_fib

pytestmark = [pytest.mark.syscalls, pytest.mark.benchmark(group="a request on each of 32 kept connections")]

CONNECTIONS = 32
REQUEST = b"GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
BODY = b"hello from an endpoint, some forty bytes\n"
ANSWER = b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)
WAYS = ("direct", "relay", "naive", "ingress")
ONE_HOP = {"connection", "content-length", "host", "keep-alive", "te", "transfer-encoding", "upgrade"}


class Answering(asyncio.Protocol):
    """An endpoint that costs next to nothing: whatever comes is one request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(ANSWER)  # type: ignore[attr-defined]


async def serve_direct(address: Address, pod: Address) -> None:
    await asyncio.get_running_loop().create_server(Answering, *pod)


async def serve_naive(address: Address, pod: Address) -> None:
    """The proxy of the tutorials: aiohttp's server, ClientSession behind it."""
    session = ClientSession(connector=TCPConnector(limit=0), auto_decompress=False)

    def passed_on(fields: object) -> dict[str, str]:
        return {name: value for name, value in fields.items() if name.lower() not in ONE_HOP}  # type: ignore[attr-defined]

    async def handle(request: web.BaseRequest) -> web.Response:
        url = f"http://{pod[0]}:{pod[1]}{request.raw_path}"
        fields = {**passed_on(request.headers), "Host": request.host, "X-Forwarded-For": request.remote or ""}
        async with session.request(request.method, url, headers=fields, allow_redirects=False) as answer:
            return web.Response(status=answer.status, body=await answer.read(), headers=passed_on(answer.headers))

    await asyncio.get_running_loop().create_server(web.Server(handle, access_log=None), *address)


async def serve_ingress(address: Address, pod: Address) -> None:
    ingress = Ingress(*address, 0)
    await ingress.start()
    await ingress.install(routecompiler.compile(manifests.web(pod)))


async def serve_relay(address: Address, pod: Address) -> None:
    proxy = Proxy(AddressPlan(), 1)
    proxy.start()
    proxy.install(make_fib(1, {address: [pod]}))


SERVERS = {"direct": serve_direct, "relay": serve_relay, "naive": serve_naive, "ingress": serve_ingress}


class Way(NamedTuple):
    """Open connections to a server, and its process."""

    connections: list[socket.socket]
    pid: int

    def cpu_s(self) -> float:
        """CPU time the process has used, user and system (proc(5), fields 14 and 15 of stat)."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def serve(way: str, host: str, pod: str) -> None:
    """Serve until standard input ends."""

    async def forever() -> None:
        await SERVERS[way]((host, 8080), (pod, 8080))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)

    uvloop.run(forever())


@pytest.fixture(scope="module")
def ways(plan: AddressPlan) -> Iterator[dict[str, Way]]:
    """Each of the servers."""
    pod = str(plan.pods_of(1)[9])
    hosts = dict(zip(WAYS, (pod, plan.vip(90), plan.vip(91), plan.vip(92)), strict=True))
    script = f"from {__name__} import serve; import sys; serve(*sys.argv[1:])"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, way, host, pod], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for way, host in hosts.items()
    ]
    connections: dict[str, list[socket.socket]] = {}
    try:
        for process in processes:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        connections = {way: [dial((host, 8080)) for _ in range(CONNECTIONS)] for way, host in hosts.items()}
        yield {way: Way(connections[way], process.pid) for way, process in zip(WAYS, processes, strict=True)}
    finally:
        for connection in itertools.chain.from_iterable(connections.values()):
            connection.close()
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def medians() -> dict[str, float]:
    return {}


@pytest.fixture(scope="module")
def p99s() -> dict[str, float]:
    return {}


@pytest.mark.parametrize("way", WAYS)
def test_a_request_on_each_of_many_kept_connections(
    benchmark: BenchmarkFixture, ways: dict[str, Way], medians: dict[str, float], p99s: dict[str, float], way: str
) -> None:
    connections = ways[way].connections
    rounds = itertools.count()
    sent_ns, took_ns = [0] * CONNECTIONS, []

    def round_of_requests() -> bool:
        next(rounds)
        for number, connection in enumerate(connections):
            sent_ns[number] = time.perf_counter_ns()
            connection.sendall(REQUEST)
        for number, connection in enumerate(connections):
            if not connection.recv(4096).endswith(BODY):
                return False
            took_ns.append(time.perf_counter_ns() - sent_ns[number])
        return True

    used_s = ways[way].cpu_s()
    assert benchmark(round_of_requests)
    if benchmark.stats is None:  # benchmarks are switched off: what is measured ran once, as a test
        return
    medians[way] = benchmark.stats.stats.median
    benchmark.extra_info["requests_per_s"] = round(CONNECTIONS / medians[way])
    benchmark.extra_info["cpu_us"] = round((ways[way].cpu_s() - used_s) * 1e6 / (next(rounds) * CONNECTIONS), 1)
    p99s[way] = float(np.percentile(took_ns, 99)) / 1e3
    benchmark.extra_info["p99_us"] = round(p99s[way])
    benchmark.extra_info["ratio"] = round(medians[way] / medians["direct"], 2)
    if "naive" in medians:
        benchmark.extra_info["faster_than_naive"] = round(medians["naive"] / medians[way], 2)
        benchmark.extra_info["p99_to_naive"] = round(p99s[way] / p99s["naive"], 2)
