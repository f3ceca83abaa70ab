"""Clients, pods and relays in processes of their own, so that descriptors are counted apart and one can be killed.

A process plays one of ``ROLES``: an object whose methods the test calls by name (``Process.ask``), in lines of JSON
both ways. It ends when its input does.
"""

import asyncio
import contextlib
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import uvloop
from aiohttp import web

from plane import routecompiler
from plane.addresses import AddressPlan
from plane.api import Api
from plane.descriptors import allow_descriptors
from plane.errors import PlaneError
from plane.healthchecks import HealthCheck, HealthServer
from plane.ingress.records import FAST, SLOW
from plane.ingress.server import Ingress
from plane.pods.server import HttpServer
from plane.pods.spec import Listen
from plane.proxy import Proxy
from plane.store import Store
from tests.ingress import manifests
from tests.loopback import PATIENCE_S, Address, dial, leftovers, make_fib, open_descriptors

START_S = 60.0


class Process:
    """A process with a role, and that role's methods."""

    def __init__(self, role: str, *arguments: Any):
        root = str(Path(__file__).parents[1])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.processes", role, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,
            env={**os.environ, "PYTHONPATH": root},
            text=True,
        )
        assert self._hear() == "ready"

    def ask(self, method: str, *arguments: Any) -> Any:
        """What the method returns."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([method, *arguments]) + "\n")
        self._process.stdin.flush()
        return self._hear()

    def kill(self) -> None:
        """SIGKILL; it is gone when this returns, with all of its sockets."""
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"a process ended, which said what was wrong: {self._process.args}"
        return json.loads(line)

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it was killed
            self._process.stdin.close()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            raise
        finally:
            self._process.stdout.close()


class Crowd:
    """Many clients that keep their connections."""

    def __init__(self) -> None:
        self._kept: list[socket.socket] = []

    def open(self, count: int, address: Address, sources: list[str]) -> int:
        """That many more connections, from these addresses in turn. Returns how many there are now."""
        for number in range(count):
            self._kept.append(dial(tuple(address), sources[number % len(sources)]))
        return len(self._kept)

    def say(self, every: int) -> int:
        """A byte through one connection of every so many and back. Returns how many came back."""
        return sum(_echoed(connection) for connection in self._kept[::every])

    def fates(self) -> dict[str, int]:
        """How the connections have ended, each within a time."""
        return Counter(_fate(connection) for connection in self._kept)

    def leave(self, count: int) -> int:
        """So many close. Returns how many are left."""
        for connection in self._kept[:count]:
            connection.close()
        del self._kept[:count]
        return len(self._kept)


def _echoed(connection: socket.socket) -> bool:
    with contextlib.suppress(OSError):
        connection.sendall(b"?")
        return connection.recv(1) == b"?"
    return False


def _fate(connection: socket.socket) -> str:
    try:
        return "closed" if connection.recv(1) == b"" else "served"
    except ConnectionResetError:
        return "reset"
    except TimeoutError:
        return "left alone"


class Load:
    """Clients that ask over and over, each on a new connection: one byte, answered by one."""

    def __init__(self, address: Address, clients: int):
        self._address = tuple(address)
        self._stopping = threading.Event()
        self._answered = [0] * clients
        self._failed: list[tuple[int, int, int, str]] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def answered(self) -> int:
        return sum(self._answered)

    def stop(self) -> dict[str, Any]:
        """``answered`` requests and those that ``failed``: from when to when (ns, monotonic), port and why."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        return {"answered": self.answered(), "failed": self._failed}

    def _run(self, number: int) -> None:
        while not self._stopping.is_set():
            begun_ns, port = time.monotonic_ns(), 0
            try:
                with socket.socket() as connection:
                    connection.setblocking(False)  # so that the port is known of a connection that is reset at once
                    connection.connect_ex(self._address)
                    port = connection.getsockname()[1]
                    connection.settimeout(PATIENCE_S)
                    connection.sendall(b"?")
                    if connection.recv(1) != b"?":
                        raise OSError("ended without an answer")
                self._answered[number] += 1
            except OSError as problem:
                self._failed.append((begun_ns, time.monotonic_ns(), port, repr(problem)))


class _Echo(asyncio.Protocol):
    """Sends back what comes, and closes what is closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class Loop:
    """A role whose work is in a loop such as Ray's actors have, in a thread of its own."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def call(self, work: Awaitable[Any]) -> Any:
        """What the work returns, done in the loop."""

        async def run() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(START_S)

    def leave_descriptors(self, count: int) -> None:
        leave_descriptors(count)

    def free_descriptors(self) -> None:
        free_descriptors()


class EchoPod(Loop):
    """A pod that echoes, for as many connections as there are descriptors."""

    def __init__(self, address: Address):
        super().__init__()
        self.call(self._loop.create_server(_Echo, *address, backlog=4096))


class Health(Loop):
    """A node's health check server, with one check that has an endpoint."""

    def __init__(self, address: str, port: int):
        super().__init__()
        server = HealthServer(address, 1)
        assert self.call(server.install([HealthCheck(port, "default", "web", {1: 1})])) == ()


def sockets() -> Counter[str]:
    return Counter(name for name in open_descriptors() if name.startswith("socket:"))


class OneIngress(Loop):
    """An ingress on one of a vip's ports, all of ``example.com`` to a Service; others may share the port.

    So many ``threads`` of compiled code carry requests; 0: all goes by asyncio.
    """

    def __init__(self, address: str, port: int, threads: int = 0):
        super().__init__()
        self._before = sockets()
        self._ingress = Ingress(address, port, 0, recording=True, gateway=threads > 0, gateway_threads=threads)
        self._port, _ = self.call(self._ingress.start())

    def install(self, generation: int, pods: list[Address]) -> int:
        """Puts these endpoints in force. Returns the port."""
        table = routecompiler.compile(manifests.web(*((ip, port) for ip, port in pods), generation=generation))
        assert self.call(self._ingress.install(table)).problems == ()
        return self._port

    def answered(self) -> list[int]:
        """How many requests were answered: by compiled code, and by asyncio."""
        path = self.call(self._ingress.records())["path"]
        return [int((path == way).sum()) for way in (FAST, SLOW)]

    def clients(self) -> list[int]:
        """How many are connected: to the asyncio side, and to each thread of compiled code."""
        threads = self._ingress._gateway.threads if self._ingress._gateway else ()
        return [len(self._ingress._front.connections), *(thread.clients for thread in threads)]

    def stop(self) -> list[str]:
        """Stops at once. Returns the sockets that are left of it."""
        self.call(self._ingress.stop(0))
        deadline_s = time.monotonic() + PATIENCE_S
        while (left := sockets() - self._before) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        return list(left.elements())


class HttpPod(Loop):
    """A pod's HTTP server."""

    def __init__(self, address: str, port: int):
        super().__init__()

        async def answer(_: web.BaseRequest) -> web.StreamResponse:
            return web.Response(text="well")

        self.call(HttpServer(Listen(address, port, port), answer).start())


class ApiServer(Loop):
    """The API server of an empty plane; its token is ``token``."""

    def __init__(self, address: str, port: int):
        super().__init__()

        async def nothing(*_: object) -> Any:
            return []

        async def start() -> None:
            api = Api(Store(AddressPlan()), token="token", wait=nothing, advise=lambda *_: [], connections=nothing)
            await api.start(address, port)

        self.call(start())


class Relay:
    """The relay of one node."""

    def __init__(self, instance: int, node: int):
        self._plan, self._node = AddressPlan(instance), node
        self._before = Counter(open_descriptors())
        assert self.start() == ""

    def start(self) -> str:
        """Another relay in the place of the one before. Returns why that cannot be."""
        self._proxy = Proxy(self._plan, self._node, connections=9600)
        try:
            self._proxy.start()
        except PlaneError as problem:
            return str(problem)
        return ""

    def install(self, generation: int, frontends: list[tuple[Address, list[Address]]]) -> list[str]:
        """Puts frontends with their endpoints in force. Returns the problems."""
        table = {tuple(frontend): [tuple(pod) for pod in pods] for frontend, pods in frontends}
        return list(self._proxy.install(make_fib(generation, table)).problems)

    def live(self) -> int:
        return self._proxy.live()

    def ends(self) -> dict[str, int]:
        return self._proxy.ends()

    def carried(self) -> list[int]:
        """Ports of the clients of all connections that it has accepted."""
        return self._proxy.recorded()["client_port"].tolist()

    def leave_descriptors(self, count: int) -> None:
        leave_descriptors(count)

    def free_descriptors(self) -> None:
        free_descriptors()

    def take_descriptors(self, left: int) -> None:
        """Lower the hard limit, for good, and use up all but so many: the relay cannot allow itself more."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        self._taken = []
        with contextlib.suppress(OSError):
            while True:
                self._taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(left):
            os.close(self._taken.pop())

    def give_descriptors_back(self) -> None:
        for descriptor in self._taken:
            os.close(descriptor)

    def stop(self) -> list[str]:
        """Stops at once. Returns what is left of it."""
        self._proxy.stop(0)
        return leftovers(self._proxy) + list((Counter(open_descriptors()) - self._before).elements())


def leave_descriptors(count: int) -> None:
    """Set the limit of open files so that the process can open so many more."""
    limit = left = 0
    while left < count:
        try:
            os.fstat(limit)
        except OSError:
            left += 1
        limit += 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def free_descriptors() -> None:
    """As many as the hard limit lets."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


ROLES: dict[str, Callable[..., object]] = {
    "crowd": Crowd,
    "load": Load,
    "echo": EchoPod,
    "relay": Relay,
    "health": Health,
    "http": HttpPod,
    "ingress": OneIngress,
    "api": ApiServer,
}


def main(role: str, arguments: str) -> None:
    allow_descriptors(1 << 20)
    player = ROLES[role](*json.loads(arguments))
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        method, *given = json.loads(line)
        print(json.dumps(getattr(player, method)(*given)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
