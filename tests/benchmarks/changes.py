"""What a change of routes costs those who send requests meanwhile: ``make bench-changes``.

A plane: the control plane with its API, a node, and an ingress with its compiled gateway, in one process or, with
``--ray``, the latter two in actors, as with ``plane up``. In it as many Ingresses as the size says, each with a host of
its own, of a hundred Services. Changes go through the API by HTTPS, as those of kubectl do. Endpoints are servers of
compiled code in another process, and so are clients.

new route      an Ingress is created whose Service and endpoints are there: from the moment that the request to the
               API is sent until the gateway's first 200, asked for again and again on a kept connection, where 404 is
               the answer until then, and any other an error
change         a rule under load goes to another Service and back, rules come and go: RATE a second for so long,
               written by API clients side by side; errors are those of requests at LOAD a second to hosts that change
pause          the latency of those requests, p99.9, beside that of the same load in quiet just before
failed backend one of two endpoints is killed: of the requests that follow, one after the other, those that fail, and
               tries after the first, of which there should be one
websockets     opened before CHANGES changes, some of their own route: how many of them still echo
"""

import argparse
import asyncio
import base64
import contextlib
import functools
import http.client
import itertools
import json
import os
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop
from rich.console import Console
from rich.table import Table

from harness.drivers import compiled
from harness.peers.process import Process
from kernels.layout import RANDOM
from kernels.net.httpload import Asked
from plane import cluster, garbage
from plane.addresses import AddressPlan, needed_port_offset
from plane.advice import Rivals, advise
from plane.api import Api
from plane.control import ControlPlane
from plane.descriptors import allow_descriptors
from plane.metrics import INGRESS_PORT
from plane.model import SERVICE_LABEL, Object
from tests.plane.local import LocalFleet

SIZES = (1, 1_000, 10_000)
SERVICES = 100
NEW_ROUTES = 400
PAUSE_S = 0.0002  # between two requests for it
RATE = 200
WRITERS = 4
SECONDS = 5.0
CHANGES = 1_000
WEBSOCKETS = 100
LOAD = 1_000  # requests a second
CONNECTIONS = 32
AFTER_FAILURE = 50
PORT = 8080
STEADY, DOOMED, ECHO = "127.244.200.1", "127.244.200.2", "127.244.200.3"
INGRESSES = "/apis/networking.k8s.io/v1/namespaces/default/ingresses"
PATIENCE_S = 600.0  # compiled code may have to be compiled


def host(number: int) -> str:
    return f"h{number:05}.example.com"


def ingress(name: str, named: str, service: str, *paths: str) -> Object:
    rules = [
        {"path": path, "pathType": "Prefix", "backend": {"service": {"name": service, "port": {"number": 80}}}}
        for path in paths or ("/",)
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"rules": [{"host": named, "http": {"paths": rules}}]},
    }


def route(number: int, service: int | None = None) -> Object:
    """The Ingress of a number, as it is at first or with another Service."""
    return ingress(f"r{number:05}", host(number), f"s{(number if service is None else service) % SERVICES:03}")


def service_of(name: str, *addresses: str) -> list[Object]:
    """A Service and its endpoints."""
    metadata = {"name": name, "namespace": "default"}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}]}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {SERVICE_LABEL: name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address]} for address in addresses],
            "ports": [{"name": "", "port": PORT}],
        },
    ]


def objects_of(size: int) -> list[Object]:
    services = [obj for number in range(SERVICES) for obj in service_of(f"s{number:03}", STEADY)]
    others = [*service_of("doomed", DOOMED, STEADY), *service_of("echo", ECHO)]
    routes = [ingress("doomed", "doomed.example.com", "doomed"), ingress("echo", "echo.example.com", "echo")]
    return [*services, *others, *routes, *map(route, range(size))]


@contextlib.asynccontextmanager
async def control_of(ray: bool) -> AsyncIterator[ControlPlane]:
    """A control plane with a node and an ingress: actors of a Ray of its own, or all of it in this process."""

    def notice(line: str) -> None:
        print(line, file=sys.stderr)

    if ray:
        async with cluster.running(nodes=1, gateway=True, gateway_threads=1, grace_s=0, progress=notice) as control:
            yield control
        return
    plan = AddressPlan(0)
    plan = AddressPlan(0, needed_port_offset(plan))
    fleet = LocalFleet(plan, gateway=True, metrics_port=INGRESS_PORT)
    control = ControlPlane(plan, fleet, notice=notice)
    await control.start(nodes=1)
    try:
        yield control
    finally:
        await control.stop(grace_s=0)


async def serve(size: int, ray: bool) -> None:
    """The plane, until standard input ends; says in one line of JSON where it is."""
    async with control_of(ray) as control:
        advice = functools.partial(advise, algorithm=RANDOM, rivals=Rivals())
        api = Api(control.store, token="bench", wait=control.wait, advise=advice, connections=control.open_connections)
        await api.start()
        try:
            begin = time.perf_counter()
            await control.apply(objects_of(size))
            await control.ready(PATIENCE_S)
            garbage.settle()  # as ``plane up`` does
            where = {
                "url": api.url,
                "ca": api.ca_pem,
                "address": [control.plan.vip(1), control.plan.bound_port(80)],
                "metrics": INGRESS_PORT,
                "apply": time.perf_counter() - begin,
            }
            print(json.dumps(where), flush=True)
            await asyncio.to_thread(sys.stdin.read)
        finally:
            await api.stop()


class Latencies(NamedTuple):
    """Of a load, in seconds; ``errors``: requests without a 200, by why."""

    count: int
    p50: float
    p99: float
    p999: float
    most: float
    errors: dict[str, int]


def load() -> None:
    """A load for each line of JSON on standard input: address, hosts, seconds. One line of ``Latencies`` each."""
    compiled.prepare()
    print("ready", flush=True)
    for line in sys.stdin:
        address, hosts, seconds = json.loads(line)
        due_ns = (np.arange(int(LOAD * (seconds + 1))) * (1e9 / LOAD)).astype(np.int64)
        asked = [Asked(f"GET /bytes/100 HTTP/1.1\r\nHost: {each}\r\n\r\n".encode(), idempotent=False) for each in hosts]
        answers = compiled.ask(
            [tuple(address)], asked, connections=CONNECTIONS, seconds=seconds, warm_s=1.0, due_ns=due_ns
        )
        took = answers.latencies_ns / 1e9
        quantiles = np.quantile(took, [0.5, 0.99, 0.999, 1]).tolist() if len(took) else [0.0] * 4
        print(json.dumps(Latencies(len(took), *quantiles, answers.errors)), flush=True)


class Writer:
    """A client of the API with a connection of its own."""

    def __init__(self, url: str, ca_pem: str):
        self._connection = http.client.HTTPSConnection(
            url.removeprefix("https://"), context=ssl.create_default_context(cadata=ca_pem)
        )
        self._headers = {"Authorization": "Bearer bench", "Content-Type": "application/json"}

    def begin(self, method: str, path: str, body: Object | None = None) -> None:
        self._connection.request(method, path, json.dumps(body) if body else None, self._headers)

    def end(self) -> None:
        """Reads what the API says of it. Raises RuntimeError where it was refused."""
        response = self._connection.getresponse()
        said = response.read()
        if response.status >= 300:
            raise RuntimeError(f"the API answered {response.status}: {said[:300]!r}")

    def write(self, method: str, path: str, body: Object | None = None) -> None:
        self.begin(method, path, body)
        self.end()


class Probe:
    """A kept connection to the gateway, on which requests go one after the other."""

    def __init__(self, address: tuple[str, int]):
        self._socket = socket.create_connection(address, timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def get(self, named: str) -> tuple[int, bytes]:
        """(status, whole answer) to a GET."""
        self._socket.sendall(f"GET /bytes/100 HTTP/1.1\r\nHost: {named}\r\n\r\n".encode())
        answer = b""
        while True:
            piece = self._socket.recv(65536)
            if not piece:
                raise RuntimeError(f"{named}: the connection was closed after {answer!r}")
            answer += piece
            head, end, body = answer.partition(b"\r\n\r\n")
            if end and len(body) >= int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]):
                return int(answer.split()[1]), answer

    def close(self) -> None:
        self._socket.close()


class WebSockets:
    """Connections through the gateway that were upgraded, and the endpoint behind them, which echoes."""

    def __init__(self, address: tuple[str, int]):
        self._address = address
        self._ready = threading.Event()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        self._ready.wait(10)
        self._clients = [self._opened() for _ in range(WEBSOCKETS)]

    async def _serve(self) -> None:
        echoing: set[asyncio.Task[None] | None] = set()

        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            echoing.add(asyncio.current_task())
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                while piece := await reader.read(4096):
                    writer.write(piece)
            writer.close()

        self._loop = asyncio.get_running_loop()
        async with await asyncio.start_server(echo, ECHO, PORT):
            self._ready.set()
            await self._over.wait()  # by then the clients have closed
            await asyncio.wait(filter(None, echoing), timeout=5)

    def _opened(self) -> socket.socket:
        client = socket.create_connection(self._address, timeout=10)
        key = base64.b64encode(os.urandom(16)).decode()
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: echo.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key.encode() + b"\r\n\r\n"
        )
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += client.recv(4096) or b"\r\n\r\n"
        if not answer.startswith(b"HTTP/1.1 101 "):
            raise RuntimeError(f"a WebSocket was not opened: {answer!r}")
        return client

    def alive(self) -> int:
        """How many of them echo."""
        found = 0
        for number, client in enumerate(self._clients):
            word = f"word {number:08}".encode()
            with contextlib.suppress(OSError):
                client.sendall(word)
                found += client.recv(4096) == word
        return found

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)


class Measured:
    """One size, from a plane that is there to its rows."""

    def __init__(self, size: int, where: dict[str, Any], clients: Process, doomed: Process):
        self._size = size
        self._address: tuple[str, int] = tuple(where["address"])
        self._metrics = where["metrics"]
        self._clients, self._doomed = clients, doomed
        self._writers = [Writer(where["url"], where["ca"]) for _ in range(WRITERS)]
        self._numbers = itertools.count(size)

    def new_route(self) -> dict[str, Any]:
        """Of routes that come one after the other: how long until the first 200, and errors on the way."""
        self._lag()  # the first change after a large apply finds that apply's own results new
        probe, writer, took = Probe(self._address), self._writers[0], []
        errors: Counter[int] = Counter()
        for number in itertools.islice(self._numbers, NEW_ROUTES):
            probe.get(host(number))
            begin = time.perf_counter()
            writer.begin("POST", INGRESSES, route(number))
            while (status := probe.get(host(number))[0]) != 200:
                errors[status] += status != 404
                time.sleep(PAUSE_S)
                if time.perf_counter() > begin + 30:
                    raise RuntimeError(f"{host(number)} has no route 30 s after it was applied; it answers {status}")
            took.append(time.perf_counter() - begin)
            writer.end()
        probe.close()
        p50, p99 = np.quantile(took, [0.5, 0.99]).tolist()
        return {"new_p50": p50, "new_p99": p99, "new_errors": sum((+errors).values())}

    def at_rate(self) -> dict[str, Any]:
        """A load in quiet, then the same under changes."""
        hosts = [host(number) for number in range(min(self._size, SERVICES))]
        quiet = self._loaded(hosts, lambda: time.sleep(SECONDS))
        rate = 0.0

        def change() -> None:
            nonlocal rate
            rate = self.change(int(RATE * SECONDS))

        under = self._loaded(hosts, change)
        return {"quiet": quiet._asdict(), "under": under._asdict(), "rate": rate, "lag": self._lag()}

    def _loaded(self, hosts: list[str], work: Callable[[], object]) -> Latencies:
        self._clients.say(json.dumps([self._address, hosts, SECONDS]))
        time.sleep(1.0)
        work()
        return Latencies(*json.loads(self._clients.line(PATIENCE_S)))

    def change(self, count: int) -> float:
        """So many changes, ``RATE`` a second; how many a second it were."""
        begin = time.perf_counter()
        added = itertools.islice(self._numbers, count)

        def write(writer: Writer, changes: range, new: Iterator[int]) -> None:
            for at in changes:
                time.sleep(max(begin + at / RATE - time.perf_counter(), 0))
                if at % 3 == 0:  # a rule under load, there and back
                    number = at // 3 % min(self._size, SERVICES)
                    obj = route(number, number + 1 + at // 3)
                    writer.write("PUT", f"{INGRESSES}/{obj['metadata']['name']}", obj)
                elif at % 3 == 1:
                    paths = ("/", f"/more-{at}")
                    writer.write("PUT", f"{INGRESSES}/echo", ingress("echo", "echo.example.com", "echo", *paths))
                else:
                    obj = route(next(new))
                    writer.write("POST", INGRESSES, obj)
                    writer.write("DELETE", f"{INGRESSES}/{obj['metadata']['name']}")

        fresh = list(added)
        with ThreadPoolExecutor(WRITERS) as pool:
            running = [
                pool.submit(write, writer, range(at, count, WRITERS), iter(fresh[at::WRITERS]))
                for at, writer in enumerate(self._writers)
            ]
            for each in running:
                each.result()
        return count / (time.perf_counter() - begin)

    def _lag(self) -> float:
        """How long a route that is applied now takes: what is left to do of those before comes first."""
        number, probe, begin = next(self._numbers), Probe(self._address), time.perf_counter()
        self._writers[0].write("POST", INGRESSES, route(number))
        while probe.get(host(number))[0] != 200:
            pass
        probe.close()
        return time.perf_counter() - begin

    def websockets(self) -> dict[str, Any]:
        sockets = WebSockets(self._address)
        try:
            self.change(CHANGES)
            return {"websockets": sockets.alive()}
        finally:
            sockets.close()

    def failed_backend(self) -> dict[str, Any]:
        probe = Probe(self._address)
        there = Counter(_backend(probe.get("doomed.example.com")[1]) for _ in range(20))
        if set(there) != {f"{ip}:{PORT}" for ip in (STEADY, DOOMED)}:
            raise RuntimeError(f"not both of the endpoints answer: {dict(there)}")
        before = self._retries()
        self._doomed.end()
        failed = sum(probe.get("doomed.example.com")[0] != 200 for _ in range(AFTER_FAILURE))
        probe.close()
        return {"failed": failed, "retries": self._retries() - before}

    def _retries(self) -> int:
        connection = http.client.HTTPConnection(self._address[0], self._metrics, timeout=30)
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
        connection.close()
        return int(
            sum(float(line.rsplit(" ")[-1]) for line in lines if line.startswith("trafficplane_ingress_retries_t"))
        )


def _backend(answer: bytes) -> str:
    return answer.partition(b"X-Backend: ")[2].partition(b"\r\n")[0].decode()


def measure(size: int, ray: bool) -> dict[str, Any]:
    """All rows of a size."""
    with contextlib.ExitStack() as stack:

        def process(*command: str) -> Process:
            started = Process([sys.executable, "-m", *command], None)
            stack.callback(started.end)
            return started

        backends = process("harness.peers.web.backends", json.dumps([(STEADY, PORT)]))
        doomed = process("harness.peers.web.backends", json.dumps([(DOOMED, PORT)]))
        clients = process("tests.benchmarks.changes", "--load")
        for each in (backends, doomed, clients):
            each.line(PATIENCE_S)
        plane = process("tests.benchmarks.changes", "--plane", str(size), *["--ray"] * ray)
        where = json.loads(plane.line(PATIENCE_S))
        measured = Measured(size, where, clients, doomed)
        found: dict[str, Any] = {"routes": size, "apply": where["apply"]}
        for step in (measured.new_route, measured.at_rate, measured.websockets, measured.failed_backend):
            found |= step()
        return found


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms"


class Goal(NamedTuple):
    """What is asked of a row, as text, what it is, and whether it is met."""

    what: str
    limit: str
    shown: Callable[[dict[str, Any]], str]
    met: Callable[[dict[str, Any]], bool]


GOALS = (
    Goal(
        "a new route carries traffic (p50)",
        "10 ms",
        lambda row: _ms(row["new_p50"]),
        lambda row: row["new_p50"] <= 0.01,
    ),
    Goal(
        "a new route carries traffic (p99)",
        "10 ms",
        lambda row: _ms(row["new_p99"]),
        lambda row: row["new_p99"] <= 0.01,
    ),
    Goal(
        "answers on the way that are neither 404 nor 200",
        "0",
        lambda row: str(row["new_errors"]),
        lambda row: not row["new_errors"],
    ),
    Goal("changes a second", f"{RATE}", lambda row: f"{row['rate']:.0f}", lambda row: row["rate"] > RATE - 2),
    Goal(
        "errors meanwhile",
        "0",
        lambda row: f"{sum(row['under']['errors'].values())} of {row['under']['count']:,}",
        lambda row: not row["under"]["errors"],
    ),
    Goal("a route that is applied after them", "", lambda row: _ms(row["lag"]), lambda row: True),
    Goal("p50 in quiet, and under changes", "", lambda row: _beside(row, "p50"), lambda row: True),
    Goal(
        "p99.9 in quiet, and under changes",
        "2 ×",
        lambda row: _beside(row, "p999"),
        lambda row: row["under"]["p999"] <= 2 * row["quiet"]["p999"],
    ),
    Goal(
        f"WebSockets open after {CHANGES:,} changes",
        f"{WEBSOCKETS}",
        lambda row: str(row["websockets"]),
        lambda row: row["websockets"] == WEBSOCKETS,
    ),
    Goal(
        "requests that fail after an endpoint does",
        "0",
        lambda row: f"{row['failed']} of {AFTER_FAILURE}",
        lambda row: not row["failed"],
    ),
    Goal(
        "requests that the failed endpoint is tried for",
        "1",
        lambda row: str(row["retries"]),
        lambda row: row["retries"] <= 1,
    ),
)


def _beside(row: dict[str, Any], name: str) -> str:
    return f"{_ms(row['quiet'][name])}, {_ms(row['under'][name])}"


def lines_of(found: list[dict[str, Any]]) -> list[list[str]]:
    """The table: a line for each goal, a column for each size."""
    head = ["", "goal", *(f"{row['routes']:,} route{'s' * (row['routes'] > 1)}" for row in found)]
    shown = ((goal, [goal.shown(row) + " ✗" * (not goal.met(row)) for row in found]) for goal in GOALS)
    return [head, *([goal.what, goal.limit, *cells] for goal, cells in shown)]


def markdown(lines: list[list[str]]) -> str:
    rows = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([rows[0], "|" + "---|" * len(lines[0]), *rows[1:]]) + "\n"


def main() -> None:
    arguments = argparse.ArgumentParser(description="What a change of routes costs those who send requests meanwhile.")
    default = " ".join(map(str, SIZES))
    arguments.add_argument("sizes", nargs="*", type=int, metavar="ROUTES", help=f"default: {default}")
    arguments.add_argument("--ray", action="store_true", help="node and ingress are actors, as with `plane up`")
    arguments.add_argument("-o", dest="output", choices=["table", "json"], default="table")
    arguments.add_argument(
        "--out", type=Path, help="file for the table as Markdown; default: results/changes.md, or changes-ray.md"
    )
    arguments.add_argument("--plane", type=int, help=argparse.SUPPRESS)
    arguments.add_argument("--load", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    allow_descriptors(20_000)
    if given.plane is not None:
        uvloop.run(serve(given.plane, given.ray))
        return
    if given.load:
        load()
        return
    found = [measure(size, given.ray) for size in given.sizes or SIZES]
    lines = lines_of(found)
    out = given.out or Path("results", f"changes{'-ray' * given.ray}.md")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(markdown(lines))
    if given.output == "json":
        print(json.dumps(found, indent=2))
        return
    table = Table(*lines[0], box=None)
    for line in lines[1:]:
        table.add_row(*line)
    Console(width=160).print(table)
    print(f"✗: the goal is not met. As Markdown: {out}")


if __name__ == "__main__":
    main()
