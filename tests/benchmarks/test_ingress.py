"""What a request through the ingress costs beside a direct connection, and beside the plainest proxy made of aiohttp.

``extra_info["ratio"]`` is the median's to that of the direct connection in the same run. Each of the three servers has
a process to itself; so many requests are under way at a time that the proxies' work is measured, not their latency.
"""

import asyncio
import itertools
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest
import uvloop
from aiohttp import ClientSession, TCPConnector, web
from pytest_benchmark.fixture import BenchmarkFixture

from plane import routes
from plane.addresses import AddressPlan
from plane.ingress.server import Ingress
from tests.ingress import manifests
from tests.loopback import Address, dial

pytestmark = [pytest.mark.benchmark(group="ingress")]

CONNECTIONS = 32
REQUEST = b"GET / HTTP/1.1\r\nHost: example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n"
BODY = b"hello from an endpoint, some forty bytes\n"
ANSWER = b"HTTP/1.1 200 OK\r\nServer: bench\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%b" % (
    len(BODY),
    BODY,
)
WAYS = ("direct", "naive", "ingress")
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
    await ingress.install(routes.compile(manifests.web(pod)))


def serve(way: str, host: str, pod: str) -> None:
    """Serve until standard input ends."""

    async def forever() -> None:
        await {"direct": serve_direct, "naive": serve_naive, "ingress": serve_ingress}[way]((host, 8080), (pod, 8080))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)

    uvloop.run(forever())


@pytest.fixture(scope="module")
def ways(plan: AddressPlan) -> Iterator[dict[str, list[socket.socket]]]:
    """Connections to each of the servers."""
    pod = str(plan.pods_of(1)[9])
    hosts = dict(zip(WAYS, (pod, plan.vip(91), plan.vip(92)), strict=True))
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
        yield connections
    finally:
        for connection in itertools.chain.from_iterable(connections.values()):
            connection.close()
        for process in processes:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def medians() -> dict[str, float]:
    return {}


@pytest.mark.parametrize("way", WAYS)
def test_a_request_on_each_of_many_kept_connections(
    benchmark: BenchmarkFixture, ways: dict[str, list[socket.socket]], medians: dict[str, float], way: str
) -> None:
    connections = ways[way]

    def round_of_requests() -> bool:
        for connection in connections:
            connection.sendall(REQUEST)
        return all(connection.recv(4096).endswith(BODY) for connection in connections)

    assert benchmark(round_of_requests)
    if benchmark.stats is None:  # benchmarks are switched off: what is measured ran once, as a test
        return
    medians[way] = benchmark.stats.stats.median
    benchmark.extra_info["requests_per_s"] = round(CONNECTIONS / medians[way])
    benchmark.extra_info["ratio"] = round(medians[way] / medians["direct"], 2)
    if "naive" in medians:
        benchmark.extra_info["faster_than_naive"] = round(medians["naive"] / medians[way], 2)
