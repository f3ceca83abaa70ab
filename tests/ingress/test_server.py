"""The life of an ingress: ports, installs while requests run, records, and its end."""

import asyncio
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from plane import routecompiler
from plane.addresses import ip_to_int
from plane.errors import PlaneError
from plane.ingress.records import FIRST_ROWS, NEVER, Records
from plane.ingress.server import Ingress
from tests.ingress.manifests import ingress, prefix, rule, snapshot_of, web
from tests.ingress.wire import Address, Endpoint, ask, client, eventually, read_head, running, saying

HEAD = b"Host: example.com\r\n"
GET = b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n"


async def test_a_port_that_is_taken_is_named_with_a_remedy(vip: str) -> None:
    with socket.create_server((vip, 0)) as taken:
        port = taken.getsockname()[1]
        one = Ingress(vip, 0, port)
        with pytest.raises(PlaneError, match=f"cannot listen on {vip}:{port}: another program has it; stop that"):
            await one.start()
        await one.stop(0)


async def test_an_address_that_is_not_here_is_named() -> None:
    with pytest.raises(PlaneError, match=r"192\.0\.2\.1:8080: this machine does not have the address"):
        await Ingress("192.0.2.1", 8080, 8443).start()


async def test_nobody_is_answered_before_the_first_install(vip: str) -> None:
    one = Ingress(vip, 0, 0)
    http_port, _ = await one.start()
    with pytest.raises(ConnectionRefusedError):
        await ask((vip, http_port), GET)
    await one.stop(0)


async def test_two_ingresses_share_an_address(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0]), recording=True) as here:
        other = Ingress(vip, here.http[1], here.https[1], recording=True)
        assert await other.start() == (here.http[1], here.https[1])
        await other.install(routecompiler.compile(web(pods[0])))
        for _ in range(60):
            assert (await ask(here.http, GET)).status == 200
        counts = [len((await each.records())["status"]) for each in (here.ingress, other)]
        assert sum(counts) == 60
        assert all(counts)
        await other.stop(0)
        assert (await ask(here.http, GET)).status == 200


async def test_an_older_generation_is_refused(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0], generation=5)) as here:
        assert here.ingress.generation == 5
        assert (await here.install(web(generation=4))).generation == 5
        assert (await ask(here.http, GET)).status == 200
        assert (await here.install(web(generation=6))).generation == 6
        assert (await ask(here.http, GET)).status == 503


async def test_installs_that_cross_leave_the_newest_in_force(vip: str, pods: list[Address]) -> None:
    async with running(vip, web()) as here:
        found = await asyncio.gather(*(here.install(web(generation=number)) for number in (3, 9, 7, 2)))
        assert max(found).generation == here.ingress.generation == 9


async def test_installs_under_load_fail_no_request(vip: str, pods: list[Address]) -> None:
    """Scaling up and down all the time: every answer is of an endpoint that was in some table when it was asked."""
    done, answers = asyncio.Event(), []

    async def load(address: Address) -> None:
        async with client(address) as one:
            while not done.is_set():
                answers.append((await one.get()).status)

    async with (
        Endpoint(pods[0]) as first,
        Endpoint(pods[1]) as second,
        Endpoint(pods[2]) as third,
        running(vip, web(*pods[:3])) as here,
    ):
        loads = [asyncio.create_task(load(here.http)) for _ in range(8)]
        for generation in range(2, 60):
            count = 1 + generation % 3
            await here.install(web(*pods[:count], generation=generation))
            seen = len(answers)
            await eventually(lambda seen=seen: len(answers) > seen + 20)
        done.set()
        await asyncio.gather(*loads)
        assert set(answers) == {200}
        assert min(len(each.requests) for each in (first, second, third)) > 20


async def test_connections_to_an_endpoint_that_left_close_when_they_are_idle(vip: str, pods: list[Address]) -> None:
    go = asyncio.Event()

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            endpoint.requests.append(await read_head(reader))
            if len(endpoint.requests) == 2:
                await go.wait()
            writer.write(saying(b"late"))

    async with (
        Endpoint(pods[0], serve=serve) as leaving,
        Endpoint(pods[1]),
        running(vip, web(pods[0])) as here,
        client(here.http) as one,
        client(here.http) as other,
    ):
        assert (await one.get()).body == b"late"
        slow = asyncio.create_task(one.get())
        await eventually(lambda: len(leaving.requests) == 2)
        assert (await other.get()).body == b"late"
        assert leaving.open == 2
        await here.install(web(pods[1], generation=2))
        await eventually(lambda: leaving.open == 1)
        assert (await other.get()).body == b"hello"
        go.set()
        assert (await slow).body == b"late"
        await eventually(lambda: leaving.open == 0)


async def test_stop_lets_requests_finish_and_says_that_it_closes(vip: str, pods: list[Address]) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.requests.append(await read_head(reader))
        await stopping.wait()
        writer.write(saying(b"late"))
        await reader.read()

    stopping = asyncio.Event()
    async with Endpoint(pods[0], serve=serve) as endpoint:
        async with running(vip, web(pods[0])) as here, client(here.http) as one, client(here.http) as idle:
            assert (await idle.get(host="none.org")).status == 404
            waiting = asyncio.create_task(one.get(fields="Content-Length: 3\r\n"))
            await eventually(lambda: endpoint.requests)
            stop = asyncio.create_task(here.ingress.stop(5))
            await eventually(lambda: refuses(here.http))
            one.send(b"abc")
            stopping.set()
            answer = await waiting
            assert (answer.body, answer.get("connection")) == (b"late", "close")
            await stop
            assert await idle.at_end()
        await eventually(lambda: not endpoint.open)


async def test_stop_does_not_wait_longer_than_its_grace(vip: str, pods: list[Address]) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.requests.append(await read_head(reader))
        await reader.read()

    async with Endpoint(pods[0], serve=serve) as endpoint:
        async with running(vip, web(pods[0]), recording=True) as here, client(here.http) as one:
            one.send(GET)
            await eventually(lambda: endpoint.requests)
            began = time.monotonic()
            await here.ingress.stop(0.1)
            assert time.monotonic() - began < 20
            assert await one.at_end()
            assert list((await here.ingress.records())["status"]) == [499]
        await eventually(lambda: not endpoint.open)


def refuses(address: Address) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(address) != 0


async def test_records_tell_what_became_of_each_request(vip: str, pods: list[Address]) -> None:
    def plane(*addresses: Address, generation: int) -> object:
        more = ingress("api", rule("example.com", prefix("/api", "gone")), default="web")
        base = web(*addresses, generation=generation)
        return base.changed([more])

    async def get(path: str, number: int, host: str = "example.com") -> None:
        async with client(here.http) as one:
            await one.get(path, host, fields=f"X-Request-ID: {number:016x}\r\n")

    before = time.monotonic_ns()
    async with Endpoint(pods[0]), running(vip, plane(pods[0], generation=3), recording=True) as here:
        await get("/x", 1)
        await get("/api/y", 2)
        await get("/", 3, "other.org")
        await here.install(plane(pods[1], pods[0], generation=4))
        await get("/", 4)
        await here.install(snapshot_of(generation=5))
        await get("/", 2**64 - 1)
        async with client(here.http) as one:
            await one.get(fields="X-Request-ID: mine\r\n")
        rows = await here.ingress.records()

    assert list(rows["request_id"]) == [1, 2, 3, 4, 2**64 - 1, 0]
    assert [rows["routes"][n] if n >= 0 else None for n in rows["route"]] == [
        "default/web example.com /",
        "default/api example.com /api",
        "default/api default backend",
        "default/web example.com /",
        None,
        None,
    ]
    assert [rows["services"][n] if n >= 0 else None for n in rows["service"]] == [
        "default/web:80",
        "default/gone:80",
        "default/web:80",
        "default/web:80",
        None,
        None,
    ]
    ip = ip_to_int(pods[0][0])
    assert list(rows["pod_ip"]) == [ip, 0, ip, ip, 0, 0]
    assert list(rows["pod_port"]) == [8080, 0, 8080, 8080, 0, 0]
    assert list(rows["generation"]) == [3, 3, 3, 4, 5, 5]
    assert list(rows["status"]) == [200, 503, 200, 200, 404, 404]
    assert list(rows["retries"]) == [0, 0, 0, 1, 0, 0]
    assert rows["backend"][0] == 1
    times = np.stack([rows["received_ns"], rows["done_ns"]])
    assert (times[0] >= before).all()
    assert (times[0] < times[1]).all()
    assert (times < time.monotonic_ns()).all()
    answered = [0, 2, 3]  # by an endpoint
    way = ("received_ns", "routed_ns", "picked_ns", "connected_ns", "first_byte_ns", "done_ns")
    assert (np.diff([rows[name][answered] for name in way], axis=0) >= 0).all()
    for name in ("picked_ns", "connected_ns", "first_byte_ns"):
        assert list(rows[name][[1, 4, 5]]) == [NEVER] * 3


async def test_without_recording_there_are_no_rows(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0])) as here:
        await ask(here.http, GET)
        rows = await here.ingress.records()
        assert {len(column) for column in rows.values()} == {0}
        assert rows.keys() >= {"request_id", "route", "routes", "service", "services", "pod_ip", "generation"}


def test_records_grow() -> None:
    records = Records()
    for number in range(2 * FIRST_ROWS + 1):
        records.add(number, 1, 2, 3, records.name("routes", f"r{number % 3}"), -1, 4, 5, 6, 200, 0)
    columns = records.columns()
    assert len(records) == 2 * FIRST_ROWS + 1
    assert list(columns["request_id"]) == list(range(2 * FIRST_ROWS + 1))
    assert columns["routes"] == ["r0", "r1", "r2"]
    assert columns["route"][5] == 2


SHARING = """
import asyncio, sys
from plane import routecompiler, routes
from plane.ingress.server import Ingress
from plane.model import Snapshot
async def main():
    ingress = Ingress(sys.argv[1], int(sys.argv[2]), 0)
    await ingress.start()
    await ingress.install(routecompiler.compile(Snapshot(1)))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


async def test_an_ingress_in_another_process_may_die_without_the_port(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0])) as here:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SHARING, vip, str(here.http[1])), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout
        assert await process.stdout.readline() == b"ready\n"
        process.kill()
        await process.communicate()
        for _ in range(20):
            assert (await ask(here.http, GET)).status == 200
