"""How cost grows with the number of Services: ``make bench-growth``.

Each size is a process of its own, with the control plane, two nodes and an ingress in it (``tests.plane.local``: the
same objects that Ray's actors hold, without Ray's copies between processes). All Services but one have hand-written
EndpointSlices, whose endpoints nobody dials; the one that is connected to has two pods.

change        from a write of one endpoint into the store until every node has acknowledged; ``store`` is the write,
              with ``controllers`` in it; then the tables are compiled, and installed by the nodes side by side
connect       a connection through the relay, one request, the answer; ``direct`` is the same with the pod itself
at 200/s      so many changes a second for five seconds: how many of them were written, and how long after the last one
              all nodes had acknowledged it
"""

import argparse
import asyncio
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

from plane.addresses import AddressPlan, int_to_ip, ip_to_int, needed_port_offset
from plane.control import ControlPlane
from plane.model import ALGORITHM_ANNOTATIONS, SERVICE_LABEL, Key, Object
from tests.plane.local import LocalFleet

PER_SERVICE = 10
NODES = 2
CHANGES = 100
CONNECTIONS = 500
RATE = 200
FIRST_ENDPOINT = ip_to_int("10.0.0.1")
DIALLED = "dialled"
PORT = 80


class Size(NamedTuple):
    services: int
    algorithm: str = ""

    def __str__(self) -> str:
        return f"{self.services}:{self.algorithm}"


SIZES = (Size(1), Size(100), Size(10_000), Size(10_000, "maglev"))


def service(number: int, algorithm: str) -> Object:
    annotations = {ALGORITHM_ANNOTATIONS[1]: algorithm} if algorithm else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"s{number:05}", "namespace": "default", "annotations": annotations},
        "spec": {"ports": [{"port": PORT}]},
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


def dialled(algorithm: str) -> list[Object]:
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
            "spec": {"selector": {"app": DIALLED}, "ports": [{"port": PORT, "targetPort": 8080}]},
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


async def measured(size: Size) -> dict[str, Any]:
    """One row of the table, times in seconds."""
    plan = AddressPlan(5)
    plan = AddressPlan(5, needed_port_offset(plan))
    fleet, watch = LocalFleet(plan), Stopwatch()
    control = ControlPlane(plan, fleet)
    await control.start(nodes=NODES)
    try:
        await control.apply(dialled(size.algorithm))
        await control.ready(60)
        numbers = range(1, size.services)
        others = [obj for number in numbers for obj in (service(number, size.algorithm), endpoint_slice(number))]
        row: dict[str, Any] = {"services": size.services, "endpoints": PER_SERVICE * size.services}
        row["algorithm"] = size.algorithm or "random"
        begin = time.perf_counter()
        await control.apply(others or [service(1, size.algorithm), endpoint_slice(1)])
        row["apply"] = time.perf_counter() - begin
        _watch(control, fleet, watch)
        row |= await _changes(control, numbers or range(1, 2), watch)
        row |= await asyncio.to_thread(_connects, control)
        row["rss_bytes"] = _rss_bytes()
        row["descriptors"] = len(os.listdir("/proc/self/fd"))
        row |= await _at_rate(control, numbers or range(1, 2))
        return row
    finally:
        await control.stop(grace_s=0)


def _watch(control: ControlPlane, fleet: LocalFleet, watch: Stopwatch) -> None:
    store: Any = control.store
    store._reconciled = watch.watch("controllers", store._reconciled)
    compiler: Any = control._compiler
    compiler.compile = watch.watch("compile", compiler.compile)
    for node in fleet.nodes.values():
        agent: Any = node.agent
        agent.install = watch.watch_async("install", agent.install)


async def _changes(control: ControlPlane, numbers: range, watch: Stopwatch) -> dict[str, Any]:
    laps = []
    for change in range(1, CHANGES + 1):
        obj = endpoint_slice(numbers[change * 977 % len(numbers)], change)
        watch.lap()
        begin, used = time.perf_counter(), time.process_time()
        control.store.replace(obj)
        written = time.perf_counter()
        await control.wait(control.store.snapshot.generation)
        done = {"change": time.perf_counter() - begin, "store": written - begin, "cpu": time.process_time() - used}
        laps.append(watch.lap() | done)
    laps = laps[CHANGES // 10 :]  # the first changes after a large apply find that apply's own results new
    columns = {name: [lap[name] for lap in laps] for name in laps[0]}
    quartiles = statistics.quantiles(columns["change"], n=4)
    return {name: statistics.median(column) for name, column in columns.items()} | {
        "change_quartiles": [quartiles[0], quartiles[2]]
    }


def _connects(control: ControlPlane) -> dict[str, float]:
    obj = control.store.get(Key("Service", "default", DIALLED))
    pods = [pod for pod in control.store.snapshot.all("Pod") if DIALLED in pod["metadata"]["name"]]
    through = obj["spec"]["clusterIP"], control.plan.bound_port(PORT)
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


async def _at_rate(control: ControlPlane, numbers: range, seconds: float = 5.0) -> dict[str, float]:
    """Changes a second that were written of ``RATE``, and the time from the last one until all nodes had it."""
    begin = time.perf_counter()
    count = int(RATE * seconds)
    for change in range(count):
        await asyncio.sleep(max(begin + change / RATE - time.perf_counter(), 0))
        control.store.replace(endpoint_slice(numbers[change * 977 % len(numbers)], CHANGES + 1 + change))
    written = time.perf_counter()
    await control.wait(control.store.snapshot.generation)
    return {"rate": count / (written - begin), "lag": time.perf_counter() - written}


def _rss_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition("VmRSS:")[2].split()[0])


COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "Services": lambda row: f"{row['services']:,}",
    "endpoints": lambda row: f"{row['endpoints']:,}",
    "algorithm": lambda row: row["algorithm"],
    "apply s": lambda row: f"{row['apply']:.2f}",
    "change ms": lambda row: f"{1e3 * row['change']:.1f}",
    "quartiles": lambda row: " – ".join(f"{1e3 * each:.1f}" for each in row["change_quartiles"]),
    "store": lambda row: f"{1e3 * row['store']:.1f}",
    "controllers": lambda row: f"{1e3 * row['controllers']:.1f}",
    "compile": lambda row: f"{1e3 * row['compile']:.1f}",
    "install": lambda row: f"{1e3 * row['install']:.1f}",
    "CPU": lambda row: f"{1e3 * row['cpu']:.1f}",
    "connect µs": lambda row: f"{1e6 * row['connect']:.0f}",
    "direct": lambda row: f"{1e6 * row['direct']:.0f}",
    "RSS MiB": lambda row: f"{row['rss_bytes'] / 2**20:.0f}",
    "descriptors": lambda row: f"{row['descriptors']:,}",
    "at 200/s": lambda row: f"{row['rate']:.0f}/s, {1e3 * row['lag']:.0f} ms",
}


def rows(sizes: list[Size]) -> Iterator[dict[str, Any]]:
    """The table, each row from a process of its own."""
    for size in sizes:
        command = [sys.executable, "-m", __spec__.name, "--row", str(size)]
        yield json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main() -> None:
    arguments = argparse.ArgumentParser(description="How cost grows with the number of Services.")
    default = " ".join(map(str, SIZES))
    arguments.add_argument("sizes", nargs="*", metavar="SERVICES[:ALGORITHM]", help=f"default: {default}")
    arguments.add_argument("--out", type=Path, default=Path("results/growth.json"))
    arguments.add_argument("--row", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.row:
        print(json.dumps(asyncio.run(measured(_size(given.row)))))
        return
    table = Table(*COLUMNS, title=f"{PER_SERVICE} endpoints a Service, {NODES} nodes in one process", box=None)
    found = []
    for row in rows([*map(_size, given.sizes)] or list(SIZES)):
        found.append(row)
        table.add_row(*(show(row) for show in COLUMNS.values()))
    Console(width=200).print(table)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(found, indent=2) + "\n")
    print(f"times in seconds: {given.out}")


def _size(text: str) -> Size:
    services, _, algorithm = text.partition(":")
    return Size(int(services), algorithm)


if __name__ == "__main__":
    main()
