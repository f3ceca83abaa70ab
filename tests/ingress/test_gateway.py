"""The compiled gateway: one request by it and one by the asyncio side are answered and forwarded alike."""

import asyncio
import contextlib
import re
import socket
import time
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from kernels import layout_gateway as layout
from kernels.net import gateway as kernel
from kernels.net import wheel
from kernels.net.gateway import BATCH
from plane import fastroutes, routecompiler
from plane.ingress.edge import Edge, networks
from plane.ingress.gateway import Gateway
from plane.ingress.handing import Handed
from plane.ingress.timeouts import Timeouts
from plane.model import Snapshot
from tests.ingress.manifests import ingress, prefix, rule, service, slices, snapshot_of, web
from tests.ingress.policies import named
from tests.ingress.wire import PATIENCE_S, Address, Endpoint, ask, client, eventually, read_head, running, saying

PORT = 10297
pytestmark = pytest.mark.syscalls

HOST = b"Host: example.com\r\n"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
Until = Callable[[Callable[[], object]], None]
REQUESTS = {
    "GET": (b"GET /a?b HTTP/1.1\r\n" + HOST + b"Accept: */*\r\n\r\n", saying(b"hello")),
    "POST": (b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc", saying(b"hello")),
    "HEAD": (b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
    "close": (b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n", saying(b"hello")),
    "chunked answer": (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", CHUNKS),
    "304": (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n"),
    "large": (b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", saying(b"x" * 300_000)),
    "chunked request": (
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        saying(b""),
    ),
    "no rule": (b"GET / HTTP/1.1\r\nHost: other.com\r\n\r\n", saying(b"hello")),
    "no HTTP": (b"GET /\r\n\r\n", saying(b"hello")),
}


async def sent(vip: str, pod: Address, raw: bytes, answer: bytes, *, gateway: bool) -> tuple[object, object]:
    """(what the endpoint got, what the client got), without times, ids and ports."""
    async with Endpoint(pod, answer) as endpoint, running(vip, web(pod), gateway=gateway) as here:
        async with client(here.http) as one:
            one.send(raw)
            got = await one.answer(method=raw.partition(b" ")[0].decode())
        hidden = ("date", "x-request-id", "x-forwarded-port")
        return [
            (message.start, [(name, "" if name in hidden else value) for name, value in message.fields], message.body)
            for message in endpoint.requests
        ], (got.start, [(name, "" if name in hidden else value) for name, value in got.fields], got.body)


@pytest.mark.parametrize("what", REQUESTS)
async def test_both_ways_are_alike(vip: str, pods: list[Address], what: str) -> None:
    raw, answer = REQUESTS[what]
    one = await sent(vip, pods[0], raw, answer, gateway=True)
    assert one == await sent(vip, pods[0], raw, answer, gateway=False)


async def test_pipelined_requests_are_answered_in_order_and_recorded(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0]), recording=True, gateway=True) as here:
        async with client(here.http) as one:
            one.send(b"".join(b"GET /%d HTTP/1.1\r\n%b\r\n" % (number, HOST) for number in range(20)))
            for _ in range(20):
                assert (await one.answer()).body == b"hello"
        assert [request.start for request in endpoint.requests] == [f"GET /{n} HTTP/1.1" for n in range(20)]
        assert endpoint.connections == 1
        assert re.fullmatch("[0-9a-f]{16}", endpoint.requests[0].get("x-request-id") or "")
        rows = await here.ingress.records()
        assert list(rows["status"]) == [200] * 20
        assert here.ingress.idle_connections == 1


@contextlib.contextmanager
def by_hand(vip: str, pod: Address, taken: list[Handed]) -> Iterator[tuple[Gateway, Until]]:
    """A gateway without a thread, and what makes breaths until something is so; ``taken``: whom it hands over."""
    gateway = Gateway(Timeouts(), (PORT, 443), taken.append, lambda _: None, print, lambda _: None, capacity=8)
    gateway.install(fastroutes.compile(routecompiler.compile(web(pod))), 1).result()
    loop = gateway._gateway.loop[0]

    def breathe_until(what: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + PATIENCE_S
        while not what():
            assert time.monotonic() < deadline_s, "what was waited for did not come"
            kernel.breath(gateway._way, gateway._gateway, 0)

    with socket.create_server((vip, PORT)) as listener:
        listener.setblocking(False)
        kernel.watch(gateway._gateway, listener.fileno(), kernel.LISTENER_KEY)
        loop["listener"], loop["backlog"] = listener.fileno(), 1
        try:
            yield gateway, breathe_until
        finally:
            kernel.end_all(gateway._gateway, time.monotonic_ns())
            gateway.stop()


def test_an_endpoint_that_answers_before_it_is_asked_is_heard(vip: str, pods: list[Address]) -> None:
    """Which is news only once, with that of the connection: breaths are made here, so that both come at once."""
    taken: list[Handed] = []
    with (
        socket.create_server(pods[0]) as endpoint,
        by_hand(vip, pods[0], taken) as (gateway, breathe_until),
        socket.create_connection((vip, PORT)) as one,
    ):
        one.sendall(REQUESTS["GET"][0])
        breathe_until(lambda: gateway.at_work)
        with endpoint.accept()[0] as hasty:
            hasty.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            hasty.shutdown(socket.SHUT_WR)
            breathe_until(lambda: not gateway.at_work)
            one.setblocking(False)
            assert one.recv(4096).startswith(b"HTTP/1.1 503 ")
    assert not taken


def test_whatever_a_request_waits_for_when_all_is_ended_it_has_a_row(vip: str, pods: list[Address]) -> None:
    body = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999\r\n\r\n"
    taken: list[Handed] = []
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(socket.create_server(pods[0]))
        gateway, breathe_until = stack.enter_context(by_hand(vip, pods[0], taken))
        clients = gateway._gateway.clients

        def sent(raw: bytes, state: int) -> None:
            """One more client, whose request is in this state now."""
            count = int((clients["state"] == state).sum())
            stack.enter_context(socket.create_connection((vip, PORT))).sendall(raw)
            breathe_until(lambda: (clients["state"] == state).sum() > count)

        sent(REQUESTS["GET"][0], layout.WAITING)
        stack.enter_context(endpoint.accept()[0]).sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        breathe_until(lambda: (clients["state"] == layout.ANSWERING).any())
        sent(REQUESTS["GET"][0], layout.WAITING)
        sent(body, layout.STREAMING)
        sent(REQUESTS["GET"][0], layout.CONNECTING)  # which the endpoint has taken, but nobody has seen that
        there = gateway._gateway.endpoints[1]
        assert (gateway.at_work, there["all"]) == (4, 4)
        kernel.end_all(gateway._gateway, time.monotonic_ns())
        assert (gateway.at_work, there["all"]) == (0, 0)
        assert gateway.settle().result().rows["status"].tolist() == [499] * 4
    assert not taken


async def test_each_of_many_who_ask_at_once_gets_its_own_answers_in_order(vip: str, pods: list[Address]) -> None:
    many, nowhere = BATCH + 16, b"GET / HTTP/1.1\r\nHost: other.com\r\n\r\n"
    async with (
        Endpoint(pods[0]) as endpoint,
        running(vip, web(pods[0]), recording=True, gateway=True) as here,
        AsyncExitStack() as stack,
    ):
        clients = [await stack.enter_async_context(client(here.http)) for _ in range(many)]
        for number, one in enumerate(clients):
            somewhere = [b"GET /%d/%d HTTP/1.1\r\n%b\r\n" % (number, place, HOST) for place in range(2)]
            one.send(nowhere + somewhere[0] + nowhere + nowhere + somewhere[1])
        for one in clients:
            assert [(await one.answer()).status for _ in range(5)] == [404, 200, 404, 404, 200]
        asked = sorted(request.start for request in endpoint.requests)
        assert asked == sorted(f"GET /{number}/{place} HTTP/1.1" for number in range(many) for place in range(2))
        assert sorted((await here.ingress.records())["status"]) == [200] * 2 * many + [404] * 3 * many


@pytest.mark.parametrize("gateway", [False, True], ids=["asyncio", "compiled"])
@pytest.mark.parametrize(
    ("said", "connections"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 1),
        (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 2),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", 2),
        (CHUNKS.replace(b"1.1", b"1.0").replace(b"OK\r\n", b"OK\r\nConnection: keep-alive\r\n"), 2),
    ],
)
async def test_an_answer_that_is_framed_oddly_is_the_last_of_its_connection(
    vip: str, pods: list[Address], said: bytes, connections: int, gateway: bool
) -> None:
    async with Endpoint(pods[0], said) as endpoint, running(vip, web(pods[0]), gateway=gateway) as here:
        async with client(here.http) as one:
            assert (await one.get()).status == (await one.get()).status
        assert endpoint.connections == connections


async def test_a_refused_connection_is_tried_elsewhere(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[1]), running(vip, web(*pods[:2]), gateway=True) as here, client(here.http) as one:
        for _ in range(4):
            assert (await one.get()).status == 200


async def test_no_answer_in_time_is_504(vip: str, pods: list[Address]) -> None:
    async def silent(_: Endpoint, reader: StreamReader, __: StreamWriter) -> None:
        await reader.read()

    quick = Timeouts(read_s=0.2)
    async with Endpoint(pods[0], serve=silent), running(vip, web(pods[0]), gateway=True, timeouts=quick) as here:
        assert (await ask(here.http, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 1\r\n\r\na")).status == 504


async def test_a_crowd_that_asks_for_nothing_more_is_left_in_time(vip: str, pods: list[Address]) -> None:
    brief = Timeouts(keep_alive_s=0.2)
    async with running(vip, web(pods[0]), gateway=True, timeouts=brief) as here:
        crowd = [await asyncio.open_connection(*here.http) for _ in range(wheel.LOOKS + 50)]
        for _, writer in crowd:
            writer.write(REQUESTS["no rule"][0])
        for reader, writer in crowd:
            async with asyncio.timeout(PATIENCE_S):
                assert (await reader.read()).startswith(b"HTTP/1.1 404 ")  # and then it is left
            writer.close()
        gateway = here.ingress._gateway
        assert gateway is not None
        await eventually(lambda: gateway.clients == 0)
        assert gateway.punts() == {}


async def test_idle_connections_to_an_endpoint_that_leaves_close_at_once(vip: str, pods: list[Address]) -> None:
    async with (
        Endpoint(pods[0]) as stays,
        Endpoint(pods[1]) as leaves,
        running(vip, web(*pods[:2]), gateway=True) as here,
    ):
        for _ in range(2):
            assert (await ask(here.http, REQUESTS["GET"][0])).status == 200
        await eventually(lambda: here.ingress.idle_connections == 2)
        await here.install(web(pods[0]))
        await eventually(lambda: not leaves.open)
        assert (stays.open, here.ingress.idle_connections) == (1, 1)


async def test_half_an_answer_costs_its_connection_only(vip: str, pods: list[Address]) -> None:
    async def half(_: Endpoint, reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
        await writer.drain()

    async with Endpoint(pods[0], serve=half), running(vip, web(pods[0]), gateway=True) as here:
        async with client(here.http) as one:
            one.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
            await one.reader.readuntil(b"he")
            assert await one.at_end()
        await eventually(lambda: here.ingress._gateway is not None and not here.ingress._gateway.at_work)


async def test_a_gateway_that_fails_leaves_all_to_the_other_side(
    vip: str, pods: list[Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise RuntimeError("no more")

    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0]), gateway=True, metrics_port=PORT) as here:
        async with client(here.http) as one, client(here.http) as idle:
            assert (await one.get()).status == 200
            gateway = here.ingress._gateway
            assert gateway is not None
            monkeypatch.setattr(gateway.threads[0], "_date", fails)
            assert (await idle.get()).status == 200
            await eventually(lambda: not gateway.serves and here.ingress._problems)
            assert (await one.get()).status == (await idle.get()).status == 200
        assert (await ask(here.http, b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")).status == 200
        assert len(endpoint.requests) == 5
        installed = await here.ingress.install(routecompiler.compile(web(pods[0])))
        assert "the compiled gateway has failed" in installed.problems[0]
        assert "no more" in installed.problems[0]
        scraped = (await ask((vip, PORT), b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n")).body
        assert b"trafficplane_ingress_gateway_up 0" in scraped


async def test_only_tables_that_a_request_may_name_are_kept(vip: str, pods: list[Address]) -> None:
    go = asyncio.Event()

    async def held(_: Endpoint, reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        writer.write(saying(b"hello"))

    async with Endpoint(pods[0], serve=held) as endpoint, running(vip, web(pods[0]), gateway=True) as here:
        async with client(here.http) as one:
            asking = asyncio.create_task(one.get())
            await eventually(lambda: endpoint.open)
            await eventually(lambda: here.ingress._gateway is not None and here.ingress._gateway.at_work)
            for _ in range(3):
                await here.install(web(pods[0]))
            await eventually(lambda: set(here.ingress._tables) == {1, 4})
            go.set()
            assert (await asking).status == 200
        await here.install(web(pods[0]))
        await eventually(lambda: set(here.ingress._tables) == {5})


async def test_an_answer_to_a_request_that_is_refused_meanwhile_is_none_to_the_next(
    vip: str, pods: list[Address]
) -> None:
    """The policies change while an endpoint is asked, so that its request is asked for anew, and turned away."""
    go = asyncio.Event()

    async def serve(endpoint: Endpoint, reader: StreamReader, writer: StreamWriter) -> None:
        while True:
            endpoint.requests.append(await read_head(reader))
            await go.wait()
            writer.write(saying(endpoint.requests[-1].start.split()[1].encode()))

    def ruled(**annotations: str) -> Snapshot:
        made = ingress("web", rule("example.com", prefix("/", "web")), annotations=named(**annotations))
        return snapshot_of(service("web"), *slices("web", [pods[0]]), made)

    open_to_all, closed = ruled(proxy_read_timeout="7"), ruled(denylist_source_range="127.0.0.0/8")
    async with (
        Endpoint(pods[0], serve=serve) as endpoint,
        running(vip, open_to_all, gateway=True) as here,
        client(here.http) as one,
    ):
        asking = asyncio.create_task(one.get("/first"))
        await eventually(lambda: endpoint.requests)
        await here.install(closed)
        go.set()
        assert (await asking).status == 403
        await here.install(open_to_all)
        assert (await one.get("/second")).body == b"/second"
        assert here.ingress._gateway is not None
        assert here.ingress._gateway.punts() == {"the policies have changed meanwhile": 1}


async def test_who_waits_to_be_accepted_when_it_stops_is_answered(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0]), gateway=True) as here, client(here.http) as one:
        one.send(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
        await here.ingress.stop(10)
        assert (await one.answer()).status == 200


async def test_a_proxy_that_is_trusted_speaks_for_its_clients(vip: str, pods: list[Address]) -> None:
    edge = Edge(networks("127.0.0.0/30"))
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0]), gateway=True, edge=edge) as here:
        assert (await ask(here.http, b"GET / HTTP/1.1\r\n" + HOST + b"X-Forwarded-For: 10.1.2.3\r\n\r\n")).status == 200
        assert endpoint.requests[0].get("x-real-ip") == "10.1.2.3"
        assert here.ingress._gateway is not None
        assert not here.handed_over
        odd = b"X-Forwarded-For: 10.1.2.4:80\r\n\r\n"
        assert (await ask(here.http, b"GET / HTTP/1.1\r\n" + HOST + odd)).status == 200
        assert endpoint.requests[1].get("x-real-ip") == "10.1.2.4"
        assert here.handed_over == {"a proxy that is trusted says of its client what is unusual"}


async def test_lines_that_the_event_loop_has_not_come_to_are_lost_and_counted(
    vip: str, pods: list[Address], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plane.ingress.gateway.LOG_BATCHES", 0)
    path = tmp_path / "access.log"
    which = running(vip, web(pods[0]), gateway=True, access_log=str(path), metrics_port=PORT)
    async with Endpoint(pods[0]), which as here, client(here.http) as one:
        for _ in range(5):
            assert (await one.get()).status == 200
        await eventually(lambda: here.ingress._log is not None and here.ingress._log.lost == 5)
        scraped = (await ask((vip, PORT), b"GET /metrics HTTP/1.1\r\n" + HOST + b"\r\n")).body
        assert b"trafficplane_ingress_access_log_lost_total 5.0" in scraped
    assert path.read_text() == ""


async def test_a_line_that_there_is_no_room_for_is_lost_and_counted_alone(
    vip: str, pods: list[Address], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kernels.net.gateway.TEXT_BYTES", 1000)
    path = tmp_path / "access.log"
    which = running(vip, web(pods[0]), gateway=True, access_log=str(path))
    async with Endpoint(pods[0]), which as here, client(here.http) as one:
        for fields in ("", f"User-Agent: {'a' * 1000}\r\n"):
            assert (await one.get(fields=fields)).status == 200
        await here.ingress.records()  # what is done is counted then
        assert here.ingress._log is not None
        assert here.ingress._log.lost == 1
    assert path.read_text().count("\n") == 1
