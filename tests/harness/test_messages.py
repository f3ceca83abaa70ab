"""Loads of messages over TCP and UDP: what is an answer, what is an error, and where they go on a plane."""

import asyncio
import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pyarrow as pa
import pytest
import yaml

from harness import arrivals, records, report, scenario, targets
from harness.drivers import compiled
from harness.drivers.http import Destination
from harness.drivers.process import LoadProcess, not_compiled
from harness.drivers.stream import Task
from harness.journal import Header
from harness.mix import Mix
from harness.recorder import NEVER, Recorded
from harness.records import LoadRows, Route
from harness.scenario import ScenarioError
from harness.targets import Surroundings
from harness.workload import Echo, request_ids
from kernels.jit import INTERPRETED
from plane import offline
from plane.addresses import AddressPlan, ip_to_int
from plane.model import Object
from tests.harness.subjects import MS, Handler, closed_loop, in_turn, open_loop, serving
from tests.harness.test_http_driver import Threaded, answered, texts
from tests.harness.test_scenario import changed, problems

on_sockets = pytest.mark.syscalls
KEY = 7 << 40


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    if not INTERPRETED:
        compiled.prepare()


async def run(task: Task) -> Recorded:
    return await Threaded(task).run(time.monotonic_ns() + 10 * MS)


def of(protocol: str, size: int = 64, *, keep_alive: bool = True) -> dict[str, Any]:
    return {"mix": Mix.of(Echo(protocol, "test", size, keep_alive))}


async def mirror(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()


@asynccontextmanager
async def datagrams(reply: Callable[[bytes], list[bytes]]) -> AsyncIterator[tuple[Destination, list[tuple[str, int]]]]:
    """A server that answers each datagram by those; and who has asked."""
    seen: list[tuple[str, int]] = []

    class Server(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
            seen.append(address)
            for answer in reply(data):
                sock.sendto(answer, address)  # asyncio sends no empty one

    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind(("127.0.0.1", 0))
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Server, sock=sock)
    try:
        yield Destination(*transport.get_extra_info("sockname")), seen
    finally:
        transport.close()


def test_a_message_is_its_id_and_a_filling() -> None:
    head, tail = Echo("tcp", "x", 200).render()
    assert (head, len(tail), tail[:4], tail[94:98]) == (b"", 184, b'!"#$', b'!"#$')
    assert Echo("udp", "x", 16).render() == (b"", b"")


@on_sockets
async def test_an_open_loop_over_tcp_keeps_its_schedule_and_its_connection() -> None:
    came = bytearray()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            came.extend(data)
            writer.write(data)

    async with serving(handler) as server:
        epoch_ns = time.monotonic_ns() + 20 * MS
        task = in_turn(server, 300, 50, start_ns=5 * MS, poisson=(1, 2), **of("tcp", 100))
        recorded = await Threaded(task).run(epoch_ns)
    rows = recorded.requests
    due = arrivals.poisson(Fraction(300), 50 * MS, (1, 2))
    assert (rows["intended_ns"] - epoch_ns - 5 * MS).tolist() == due.tolist()
    assert set(texts(recorded)) == {""}
    assert set(rows["status"]) == {0}
    assert set(rows["bytes_in"]) == set(rows["bytes_out"]) == {100}
    assert (rows["connected_ns"] != NEVER).tolist() == [True] + [False] * (len(due) - 1)
    order = ("intended_ns", "start_ns", "sent_ns", "first_byte_ns", "done_ns")
    for earlier, later in itertools.pairwise(order):
        assert (rows[earlier] <= rows[later]).all()
    ids = [bytes(came[at : at + 16]) for at in range(0, len(came), 100)]
    assert ids == [b"%016x" % number for number in request_ids(KEY, len(due))]


@on_sockets
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
async def test_without_keep_alive_each_message_has_a_connection_of_its_own(protocol: str) -> None:
    load = of(protocol, keep_alive=False)
    if protocol == "tcp":
        async with serving(mirror) as server:
            recorded = await run(in_turn(server, 100, 40, **load))
        ports = recorded.connections["client_port"].tolist()
    else:
        async with datagrams(lambda data: [data]) as (server, seen):
            recorded = await run(in_turn(server, 100, 40, **load))
        ports = [port for _, port in seen]
        assert recorded.connections["client_port"].tolist() == ports
    assert texts(recorded) == [""] * 4
    assert recorded.requests["connection"].tolist() == [0, 1, 2, 3]
    assert (recorded.requests["connected_ns"] != NEVER).all()
    assert len(set(ports)) == 4


@on_sockets
async def test_a_closed_loop_over_udp_asks_from_its_sources() -> None:
    async with datagrams(lambda data: [data]) as (server, seen):
        sources = ("127.1.2.3", "127.1.2.4")
        recorded = await run(closed_loop(replace(server, sources=sources), 4, 500, **of("udp", 1200)))
    assert answered(recorded).all()
    assert len(texts(recorded)) > 8
    assert {ip for ip, _ in seen} == set(sources)
    assert sorted(recorded.connections["client_ip"]) == [ip_to_int(ip) for ip in sources for _ in range(2)]


@on_sockets
async def test_a_message_larger_than_all_buffers_on_its_way_comes_back() -> None:
    size = 16 << 20
    async with serving(mirror) as server:
        recorded = await run(in_turn(server, 10, 100, timeout_ns=60_000 * MS, **of("tcp", size)))
    assert texts(recorded) == [""]
    assert recorded.requests["bytes_in"].tolist() == [size]


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write((await reader.read(64))[:32])


async def _reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(64)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


async def _another(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    data = await reader.read(64)
    writer.write(b"f" * 16 + data[16:])
    await reader.read()


async def _changed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    data = await reader.read(64)
    writer.write(data[:-1] + b"?")
    await reader.read()


async def _early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"220 welcome\r\n")
    await reader.read()


async def _more(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    data = await reader.read(64)
    writer.write(data + b"?")
    await reader.read()


@on_sockets
@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (_silent, "timeout"),
        (_half, "eof"),
        (_reset, "reset"),
        (_another, "protocol"),
        (_changed, "protocol"),
        (_early, "protocol"),
        (_more, "protocol"),
    ],
    ids=["silent", "half of it", "reset", "another's id", "one byte changed", "speaks first", "one byte more"],
)
async def test_what_does_not_come_back_as_it_was_over_tcp_is_an_error(handler: Handler, error: str) -> None:
    async with serving(handler) as server:
        recorded = await run(in_turn(server, 100, 10, timeout_ns=150 * MS, **of("tcp")))
    assert texts(recorded) == [error]
    assert not answered(recorded).any()
    assert recorded.requests["attempts"].tolist() == [1]


@on_sockets
@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (lambda data: [], "timeout"),
        (lambda data: [data[:-1]], "protocol"),
        (lambda data: [data + b"?"], "protocol"),
        (lambda data: [b""], "protocol"),
        (lambda data: [data[:20], data[20:]], "protocol"),
        (lambda data: [data[:-1] + b"?"], "protocol"),
        (lambda data: [b"f" * 16 + data[16:]], "timeout"),
    ],
    ids=["lost", "shorter", "longer", "empty", "in two", "one byte changed", "another's id"],
)
async def test_what_does_not_come_back_as_it_was_over_udp_is_an_error(
    reply: Callable[[bytes], list[bytes]], error: str
) -> None:
    async with datagrams(reply) as (server, _):
        recorded = await run(in_turn(server, 100, 10, timeout_ns=150 * MS, **of("udp")))
    assert texts(recorded) == [error]
    assert (recorded.requests["first_byte_ns"][0] == NEVER) == (recorded.requests["bytes_in"][0] == 0)


@on_sockets
async def test_an_echo_of_a_former_message_is_not_taken_for_the_next() -> None:
    """A datagram that comes twice is passed over, and its socket kept."""
    async with datagrams(lambda data: [data, b"0" * 64, data]) as (server, seen):
        recorded = await run(in_turn(server, 100, 50, **of("udp")))
    assert texts(recorded) == [""] * 5
    assert set(recorded.requests["bytes_in"]) == {64}
    assert len(set(seen)) == 1


@on_sockets
@pytest.mark.parametrize("protocol", ["tcp", "udp"])
async def test_where_nobody_listens_is_refused(protocol: str) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        free = Destination(*taken.getsockname())
    recorded = await run(in_turn(free, 100, 20, **of(protocol)))
    assert texts(recorded) == ["connect_refused"] * 2


@on_sockets
async def test_rows_of_messages_are_rows_of_requests(tmp_path: Any) -> None:
    async with serving(mirror) as server:
        task = open_loop(server, 100, 100, **of("tcp"))
        epoch_ns = time.monotonic_ns() + 10 * MS
        header = Header(tmp_path / "requests.000.arrows", "echo", ["echo"], {"run": "r"})
        recorded = await asyncio.to_thread(LoadProcess(task).run, epoch_ns, header)
    with pa.OSFile(str(header.path)) as source:
        kept = pa.ipc.open_stream(source).read_all()
    route = Route.unknown(len(texts(recorded)))
    asked = task.mix.asked_first(len(texts(recorded)))
    table = records.tabulate([LoadRows("echo", recorded, route, KEY, asked)], epoch_ns, {})
    for rows in (kept, table):
        assert rows["status"].null_count == rows["url_path"].null_count == rows["pod"].null_count == 10
        assert set(rows["request"].to_pylist()) == {"tcp echo"}
        assert rows["done_ns"].null_count == 0
        assert report.part(rows)["errors"] == 0


def test_what_cannot_be_a_load_of_messages_is_named() -> None:
    def change(spec: Any) -> None:
        first, second = spec["loads"]
        first["target"] = {"url": "udp://echo:9000"}
        first.update(method="POST", headers={"A": "b"}, body="x", bytes=70_000, requests=[{"name": "a"}])
        second.update(bytes=64)

    found = problems(changed(change))
    for name in ("method", "headers", "body", "requests"):
        assert "is of HTTP; what goes to udp:// are messages" in found[f"spec.loads[0].{name}"]
    assert found["spec.loads[0].bytes"] == "are 65,507 at most over udp"
    assert found["spec.loads[1].bytes"].startswith("is of messages: it goes with a url")


@pytest.mark.parametrize("url", ["tcp://echo", "tcp://echo:9/", "udp://echo:9?x", "udp://u@echo:9"])
def test_a_url_of_messages_is_a_place_and_nothing_else(url: str) -> None:
    found = problems(changed(lambda spec: spec["loads"][0]["target"].update(url=url)))
    assert found.keys() == {"spec.loads[0].target.url"}


SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: default}
spec:
  type: LoadBalancer
  clusterIP: 127.176.0.30
  ports:
  - {name: tcp, port: 9000, nodePort: 30900}
  - {name: udp, port: 9000, protocol: UDP, nodePort: 30901}
---
apiVersion: v1
kind: Service
metadata: {name: inner, namespace: shop}
spec: {clusterIP: 127.176.0.31, ports: [{port: 53, protocol: UDP}]}
"""


@pytest.fixture(scope="module")
def resolve() -> Callable[[dict[str, Any]], targets.Resolved]:
    plan = AddressPlan(5, 8000)
    objects: list[Object] = list(yaml.safe_load_all(SERVICES))

    def call(target: dict[str, Any]) -> targets.Resolved:
        load = {"name": "a", "target": target, "arrivals": {"rate": "1/s"}, "duration": "1s"}
        head = {"apiVersion": "trafficplane.dev/v1alpha1", "kind": "Scenario", "metadata": {"name": "s"}}
        asked = scenario.parse(yaml.safe_dump({**head, "spec": {"manifests": ["x"], "loads": [load]}}))
        settled = offline.settled([*objects, *targets.client_pods(asked)], nodes=3, plan=plan)
        return targets.resolve(asked, "s.yaml", Surroundings(settled, plan, ("127.205.0.1", 8080)))[0]

    return call


@pytest.mark.parametrize(
    ("target", "place", "service"),
    [
        ({"url": "tcp://echo:9000"}, ("127.176.0.30", 9000), "default/echo"),
        ({"url": "udp://echo.default:9000"}, ("127.176.0.30", 9000), "default/echo"),
        ({"url": "udp://inner.shop.svc.cluster.local:53"}, ("127.176.0.31", 8053), "shop/inner"),
        ({"url": "udp://echo:9000", "via": "nodePort", "node": 3}, ("127.23.0.3", 30901), "default/echo"),
        ({"service": "echo", "via": "nodePort"}, ("127.23.0.1", 30900), "default/echo"),
        ({"url": "tcp://echo:9000", "via": "loadBalancer"}, ("127.205.0.2", 9000), "default/echo"),
        ({"url": "tcp://127.249.1.9:9000"}, ("127.249.1.9", 9000), ""),
    ],
)
@on_sockets
def test_messages_go_where_their_target_leads(
    resolve: Callable[[dict[str, Any]], targets.Resolved], target: dict[str, Any], place: tuple[str, int], service: str
) -> None:
    found = resolve(target)
    assert (found.destination.ip, found.destination.port, found.service) == (*place, service)
    assert found.destination.sources == ()
    if "url" in target:
        assert isinstance(found.workload, Echo)
        assert found.workload.protocol == target["url"][:3]


@pytest.mark.parametrize(
    ("target", "field", "reason"),
    [
        ({"url": "udp://inner.shop:54"}, "target.url", "Service shop/inner has no UDP port 54; its ports are 53"),
        ({"url": "tcp://inner.shop:53"}, "target.url", "Service shop/inner has no TCP port 53; its ports are none"),
        (
            {"url": "udp://inner.shop:53", "via": "nodePort"},
            "target.via",
            "port 53 of Service shop/inner has no nodePort",
        ),
        ({"url": "udp://inner.shop:53", "via": "loadBalancer"}, "target.via", "no address of a load balancer"),
        (
            {"url": "tcp://127.0.0.1:9", "via": "nodePort"},
            "target.via",
            "goes with a Service, and 127.0.0.1 names none",
        ),
        ({"url": "tcp://nobody.invalid:9"}, "target.url", "no Service has this name, and the system does not know it"),
    ],
)
@on_sockets
def test_where_messages_cannot_go_is_named(
    resolve: Callable[[dict[str, Any]], targets.Resolved], target: dict[str, Any], field: str, reason: str
) -> None:
    with pytest.raises(ScenarioError) as caught:
        resolve(target)
    (problem,) = caught.value.problems
    assert problem.field == f"spec.loads[0].{field}"
    assert reason in problem.reason


def test_without_compiled_code_messages_are_refused_by_name(
    resolve: Callable[[dict[str, Any]], targets.Resolved], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "INTERPRETED", True)
    with pytest.raises(ScenarioError, match="tcp:// is spoken by compiled code only: run it without NUMBA_DISABLE_JIT"):
        resolve({"url": "tcp://echo:9000"})


@on_sockets
def test_a_load_says_why_compiled_code_does_not_run_it(monkeypatch: pytest.MonkeyPatch) -> None:
    task = closed_loop(Destination("127.0.0.1", 9), 1, 1)
    assert not_compiled(task) == ""
    monkeypatch.setattr("harness.drivers.process.INTERPRETED", True)
    assert not_compiled(task) == "compiling is switched off (NUMBA_DISABLE_JIT)"
