"""How cost grows with the number of Services: ``make bench-growth``.

Each size is a process of its own, with the control plane, two nodes and an ingress in it (``tests.plane.local``: the
same objects that Ray's actors hold, without Ray's copies between processes). All Services but one have hand-written
EndpointSlices, whose endpoints nobody dials; the one that is connected to has two pods. All processes are there at one
time and take turns, in one order and then in the other, so that what the machine does besides falls on all of them.

change        from a write of one endpoint into the store until every node has acknowledged; ``store`` is the write,
              with ``controllers`` in it; then the tables are compiled, and installed by the nodes side by side
check         the validation of that very object, which has nothing to do with others, in the same process just before:
              how much slower the same work is in a process that has become large
growth        both of them as multiples of those of the first size with that algorithm, in the median of the turns, with
              quartiles
calls, KiB    of functions in a change, and memory that it takes meanwhile, in yet another process with one node and
              without the control plane's tasks (``tests.plane.counted``): in these there is no noise
connect       a connection through the relay, one request, the answer; ``direct`` is the same with the pod itself
at 200/s      so many changes a second for five seconds: how many of them were written, and how long after the last one
              all nodes had acknowledged it
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from plane.addresses import INSTANCES, AddressPlan, int_to_ip, ip_to_int, needed_port_offset
from plane.control import ControlPlane
from plane.model import ALGORITHM_ANNOTATIONS, SERVICE_LABEL, Key, Object
from plane.validation import check
from tests.plane.counted import cost
from tests.plane.local import LocalFleet

PER_SERVICE = 10
NODES = 2
TURNS = 20
CHANGES = 10  # a turn
CONNECTIONS = 50  # likewise
RATE = 200
FIRST_ENDPOINT = ip_to_int("10.0.0.1")
DIALLED = "dialled"
PORTS = range(8001, 8001 + INSTANCES)  # of Services, by instance, for of two planes on a machine one shares a port


class Size(NamedTuple):
    services: int
    algorithm: str = ""

    def __str__(self) -> str:
        return f"{self.services}:{self.algorithm}"


SIZES = (Size(1), Size(100), Size(10_000), Size(1, "maglev"), Size(10_000, "maglev"))


def service(number: int, algorithm: str, port: int = PORTS[0]) -> Object:
    annotations = {ALGORITHM_ANNOTATIONS[1]: algorithm} if algorithm else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"s{number:05}", "namespace": "default", "annotations": annotations},
        "spec": {"ports": [{"port": port}]},
    }


def endpoint_slice(number: int, change: int = 0) -> Object:
    """Ten endpoints; each change replaces one of them."""
    first = FIRST_ENDPOINT + 64 * number
    hosts = [first + at + (PER_SERVICE if at == change % PER_SERVICE and change else 0) for at in range(PER_SERVICE)]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"s{number:05}",
            "namespace": "default",
            "labels": {SERVICE_LABEL: f"s{number:05}"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [int_to_ip(host)]} for host in hosts],
        "ports": [{"name": "", "port": 8080}],
    }


def objects_of(services: int, algorithm: str = "") -> tuple[list[Object], Callable[[int, int], Object]]:
    """So many Services with their endpoints, and what they are changed by."""
    numbers = range(services)
    return [obj for number in numbers for obj in (service(number, algorithm), endpoint_slice(number))], endpoint_slice


def dialled(algorithm: str, port: int) -> list[Object]:
    """The Service that is connected to, and its pods."""
    image = "registry.k8s.io/e2e-test-images/agnhost:2.53"
    container = {"name": "web", "image": image, "args": ["netexec", "--http-port=8080"]}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": DIALLED, "namespace": "default"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": DIALLED}},
                "template": {
                    "metadata": {"labels": {"app": DIALLED}},
                    # Variables for each of 10,000 Services are another matter.
                    "spec": {"enableServiceLinks": False, "containers": [container]},
                },
            },
        },
        {
            **service(0, algorithm),
            "metadata": {**service(0, algorithm)["metadata"], "name": DIALLED},
            "spec": {"selector": {"app": DIALLED}, "ports": [{"port": port, "targetPort": 8080}]},
        },
    ]


class Stopwatch:
    """What was spent in calls that are watched, by name, since the last ``lap``."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = defaultdict(float)

    def watch(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*given: Any) -> Any:
            begin = time.perf_counter()
            try:
                return call(*given)
            finally:
                self._spent[name] += time.perf_counter() - begin

        return timed

    def watch_async(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def timed(*given: Any) -> Any:
            begin = time.perf_counter()
            try:
                return await call(*given)
            finally:
                self._spent[name] = max(self._spent[name], time.perf_counter() - begin)  # nodes install side by side

        return timed

    def lap(self) -> dict[str, float]:
        spent, self._spent = self._spent, defaultdict(float)
        return spent


def counted(size: Size) -> dict[str, float]:
    """What a change costs beside time."""
    plan = AddressPlan(0)
    found = cost(AddressPlan(0, needed_port_offset(plan)), *objects_of(*size))
    return {"calls": found.calls, "nbytes": found.nbytes}


class Measured:
    """One size: what is measured in a turn, and what is measured once."""

    def __init__(self, size: Size, instance: int):
        plan = AddressPlan(instance)
        self._size, self._port = size, PORTS[instance]
        self._fleet, self._watch = LocalFleet(AddressPlan(instance, needed_port_offset(plan))), Stopwatch()
        self._control = ControlPlane(self._fleet.plan, self._fleet)
        self._numbers = range(1, max(size.services, 2))
        self._changes = 0

    async def begin(self) -> dict[str, Any]:
        """The plane with all of its Services; what that took."""
        control, algorithm = self._control, self._size.algorithm
        await control.start(nodes=NODES)
        await control.apply(dialled(algorithm, self._port))
        await control.ready(60)
        others = ((service(number, algorithm, self._port), endpoint_slice(number)) for number in self._numbers)
        begin = time.perf_counter()
        await control.apply([obj for pair in others for obj in pair])
        took = time.perf_counter() - begin
        _watch(control, self._fleet, self._watch)
        await self.turn()  # the first changes after a large apply find that apply's own results new
        services = self._size.services
        return {
            "services": services,
            "endpoints": PER_SERVICE * services,
            "algorithm": algorithm or "random",
            "apply": took,
        }

    async def turn(self) -> dict[str, float]:
        """Medians of some changes and connections, in seconds."""
        laps = [await self._change() for _ in range(CHANGES)]
        found = {name: statistics.median(lap[name] for lap in laps) for name in laps[0]}
        return found | await asyncio.to_thread(_connects, self._control, self._port)

    async def end(self) -> dict[str, Any]:
        """What is measured once, at the end."""
        descriptors = len(os.listdir("/proc/self/fd"))
        return {"rss_bytes": _rss_bytes(), "descriptors": descriptors} | await self._at_rate()

    async def stop(self) -> None:
        await self._control.stop(grace_s=0)

    def _next(self) -> Object:
        self._changes += 1
        return endpoint_slice(self._numbers[self._changes * 977 % len(self._numbers)], self._changes)

    async def _change(self) -> dict[str, float]:
        control, obj = self._control, self._next()
        begin = time.perf_counter()
        check(obj)
        checked = time.perf_counter()
        self._watch.lap()
        started, used = time.perf_counter(), time.process_time()
        control.store.replace(obj)
        written = time.perf_counter()
        await control.wait(control.store.snapshot.generation)
        done = {"change": time.perf_counter() - started, "cpu": time.process_time() - used}
        return self._watch.lap() | done | {"store": written - started, "check": checked - begin}

    async def _at_rate(self, seconds: float = 5.0) -> dict[str, float]:
        """Changes a second that were written of ``RATE``, and the time from the last one until all nodes had it."""
        control, begin, count = self._control, time.perf_counter(), int(RATE * seconds)
        for change in range(count):
            await asyncio.sleep(max(begin + change / RATE - time.perf_counter(), 0))
            control.store.replace(self._next())
        written = time.perf_counter()
        await control.wait(control.store.snapshot.generation)
        return {"rate": count / (written - begin), "lag": time.perf_counter() - written}


async def serve(size: Size, instance: int) -> None:
    """Measures what the lines of standard input name, a method of ``Measured`` each, and prints what it finds."""
    measured = Measured(size, instance)
    try:
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            print(json.dumps(await getattr(measured, line)()), flush=True)
    finally:
        await measured.stop()


def _watch(control: ControlPlane, fleet: LocalFleet, watch: Stopwatch) -> None:
    store: Any = control.store
    store._reconciled = watch.watch("controllers", store._reconciled)
    compiler: Any = control._compiler
    compiler.compile = watch.watch("compile", compiler.compile)
    for node in fleet.nodes.values():
        agent: Any = node.agent
        agent.install = watch.watch_async("install", agent.install)


def _connects(control: ControlPlane, port: int) -> dict[str, float]:
    obj = control.store.get(Key("Service", "default", DIALLED))
    pods = [pod for pod in control.store.snapshot.all("Pod") if DIALLED in pod["metadata"]["name"]]
    through = obj["spec"]["clusterIP"], control.plan.bound_port(port)
    direct = pods[0]["status"]["podIP"], 8080
    return {"connect": _connect_s(through), "direct": _connect_s(direct)}


def _connect_s(address: tuple[str, int]) -> float:
    times = []
    for _ in range(CONNECTIONS):
        begin = time.perf_counter()
        with socket.create_connection(address) as connection:
            connection.sendall(b"GET /hostname HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = connection.recv(4096)
        times.append(time.perf_counter() - begin)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"{address} answered {answer!r}")
    return statistics.median(times)


def _rss_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "Services": lambda row: f"{row['services']:,}",
    "endpoints": lambda row: f"{row['endpoints']:,}",
    "algorithm": lambda row: row["algorithm"],
    "apply s": lambda row: f"{row['apply']:.2f}",
    "change ms": lambda row: f"{1e3 * row['change']:.1f}",
    "growth": lambda row: _multiple(row, "change"),
    "of check": lambda row: _multiple(row, "check"),
    "store": lambda row: f"{1e3 * row['store']:.1f}",
    "controllers": lambda row: f"{1e3 * row['controllers']:.1f}",
    "compile": lambda row: f"{1e3 * row['compile']:.1f}",
    "install": lambda row: f"{1e3 * row['install']:.1f}",
    "CPU": lambda row: f"{1e3 * row['cpu']:.1f}",
    "calls": lambda row: f"{row['calls']:,.0f}",
    "KiB": lambda row: f"{row['nbytes'] / 1024:.0f}",
    "connect µs": lambda row: f"{1e6 * row['connect']:.0f}",
    "direct": lambda row: f"{1e6 * row['direct']:.0f}",
    "RSS MiB": lambda row: f"{row['rss_bytes'] / 2**20:.0f}",
    "descriptors": lambda row: f"{row['descriptors']:,}",
    "at 200/s": lambda row: f"{row['rate']:.0f}/s, {1e3 * row['lag']:.0f} ms",
}


_SELF = sys.executable, "-m", __spec__.name


def _multiple(row: dict[str, Any], name: str) -> str:
    first, median, third = row["growth"][name]
    return f"{median:.3f} ({first:.3f} – {third:.3f})"


def rows(sizes: list[Size]) -> list[dict[str, Any]]:
    """The table. Each row is from a process of its own; all are there at one time, and take turns."""
    with contextlib.ExitStack() as stack:
        there = [stack.enter_context(_process(size, INSTANCES - 1 - at)) for at, size in enumerate(sizes)]
        found = [_asked(each, "begin") for each in there]
        turns: list[list[dict[str, float]]] = [[] for _ in there]
        for turn in range(TURNS):
            for at in sorted(range(len(there)), reverse=bool(turn % 2)):
                turns[at].append(_asked(there[at], "turn"))
        for row, each, size, those in zip(found, there, sizes, turns, strict=True):
            row |= {name: statistics.median(turn[name] for turn in those) for name in those[0]}
            first = turns[[other.algorithm for other in sizes].index(size.algorithm)]
            row["growth"] = {name: _quartiles(those, first, name) for name in ("change", "check", "direct")}
            row |= _asked(each, "end")
    for row, size in zip(found, sizes, strict=True):
        command = [*_SELF, "--count", str(size)]
        row |= json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


def _quartiles(those: list[dict[str, float]], first: list[dict[str, float]], name: str) -> list[float]:
    """Of what the turns took, as multiples of the same turns of the first size."""
    return statistics.quantiles([turn[name] / base[name] for turn, base in zip(those, first, strict=True)], n=4)


@contextlib.contextmanager
def _process(size: Size, instance: int) -> Iterator[subprocess.Popen[str]]:
    command = [*_SELF, "--row", str(size), "--instance", str(instance)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process  # which ends with its standard input


def _asked(process: subprocess.Popen[str], what: str) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{what}\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError(f"{' '.join(map(str, process.args))} has ended")  # type: ignore[arg-type]
    found: dict[str, Any] = json.loads(answer)
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description="How cost grows with the number of Services.")
    default = " ".join(map(str, SIZES))
    arguments.add_argument("sizes", nargs="*", metavar="SERVICES[:ALGORITHM]", help=f"default: {default}")
    arguments.add_argument("--out", type=Path, default=Path("results/growth.json"))
    arguments.add_argument("--row", help=argparse.SUPPRESS)
    arguments.add_argument("--count", help=argparse.SUPPRESS)
    arguments.add_argument("--instance", type=int, default=0, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.row:
        asyncio.run(serve(_size(given.row), given.instance))
        return
    if given.count:
        print(json.dumps(counted(_size(given.count))))
        return
    table = Table(*COLUMNS, title=f"{PER_SERVICE} endpoints a Service, {NODES} nodes in one process", box=None)
    found = rows([*map(_size, given.sizes)] or list(SIZES))
    for row in found:
        table.add_row(*(show(row) for show in COLUMNS.values()))
    Console(width=220).print(table)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"times in seconds: {given.out}")


def _size(text: str) -> Size:
    services, _, algorithm = text.partition(":")
    return Size(int(services), algorithm)


if __name__ == "__main__":
    main()
