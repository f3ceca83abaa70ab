"""Whom the compiled gateway has handed over comes back to it, and nothing is lost on the way."""

import asyncio
import contextlib
import random
import socket
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from kernels.layout_gateway import VACANT
from plane.ingress.edge import Edge
from plane.ingress.gateway import LONGEST_STAY, WORTHWHILE, Gateway, Known
from plane.ingress.gateways import Gateways
from plane.ingress.handing import Secured
from plane.ingress.terminator import Terminator
from plane.ingress.timeouts import Timeouts
from plane.model import Snapshot
from tests.ingress.manifests import ingress, prefix, rule, service, slices, snapshot_of, web
from tests.ingress.policies import named
from tests.ingress.test_terminator import careless, carried
from tests.ingress.wire import (
    PATIENCE_S,
    Address,
    Client,
    Endpoint,
    Message,
    Running,
    ask,
    client,
    eventually,
    read_body,
    read_head,
    running,
    saying,
)

PORT = 10289
pytestmark = pytest.mark.syscalls

HOST = b"Host: example.com\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\nabc"
PROPFIND = b"PROPFIND / HTTP/1.1\r\n" + HOST + b"\r\n"
CHUNKED = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTE: trailers\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
# What compiled code does not take, and what it says of it.
ODD = [
    (PROPFIND, "method"),
    (b"GET http://example.com/ HTTP/1.1\r\n" + HOST + b"\r\n", "target"),
    (POST.replace(b"\r\n\r\n", b"\r\nTE: trailers\r\n\r\n"), "trailers"),
    (POST.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"), "expectation"),
    (CHUNKED, "trailers"),
]


def gateway_of(here: Running) -> Gateways:
    assert here.ingress._gateway is not None
    return here.ingress._gateway


def annotated(*pods: Address, **annotations: str) -> Snapshot:
    made = ingress("web", rule("example.com", prefix("/", "web")), annotations=named(**annotations))
    return snapshot_of(service("web"), *slices("web", list(pods)), made)


@contextlib.asynccontextmanager
async def kept(
    vip: str, snapshot: Snapshot, timeouts: Timeouts | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Running, Client]]:
    async with (
        running(vip, snapshot, gateway=True, timeouts=timeouts) as here,
        client(here.https if tls else here.http, tls, "foo.com" if tls else None) as one,
    ):
        yield here, one


async def is_back(here: Running, times: int = 1, *, clients: int = 1) -> None:
    """Return once that many connections are compiled code's, to which some were given back so often."""
    gateway = gateway_of(here)
    await eventually(lambda: gateway.given_back == times and gateway.clients == clients)
    await eventually(lambda: here.ingress._front.open_connections == 0)


async def echoing(endpoint: Endpoint, reader: StreamReader, writer: StreamWriter) -> None:
    """Answers with the path and the body that it got."""
    while True:
        request = await read_head(reader)
        request.body = await read_body(reader, request)
        endpoint.requests.append(request)
        writer.write(saying(request.start.split()[1].encode() + request.body))


async def answer_of(one: Client) -> Message:
    """The next answer that is none of 100."""
    while (answer := await one.answer()).status == 100:
        pass
    return answer


@pytest.mark.parametrize("tls", [None, careless()], ids=["plain", "TLS"])
async def test_who_sent_what_is_not_taken_is_back_with_the_next_request(
    vip: str, pods: list[Address], tls: ssl.SSLContext | None
) -> None:
    async with Endpoint(pods[0]) as pod, running(vip, web(pods[0]), gateway=True) as here:
        for times, (raw, why) in enumerate(ODD, 1):
            async with client(here.https if tls else here.http, tls, "foo.com" if tls else None) as one:
                before = gateway_of(here).punts().get(why, 0)
                one.send(raw)
                assert (await answer_of(one)).status == 200
                await is_back(here, times)
                one.send(POST)
                assert (await one.answer()).status == 200
                assert pod.requests[-1].body == b"abc"
                assert gateway_of(here).punts()[why] == before + 1
        assert sum(gateway_of(here).punts().values()) == len(ODD)
        await eventually(lambda: not gateway_of(here).clients and not carried(here))


async def test_who_met_a_dead_endpoint_is_back(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[1]), kept(vip, web(*pods[:2])) as (here, one):
        while not gateway_of(here).punts():
            assert (await one.get()).status == 200
        await is_back(here)
        for _ in range(4):
            assert (await one.get()).status == 200
        assert gateway_of(here).punts().keys() == {"the endpoint takes no connection at once"}


async def test_whose_service_was_gone_is_back_once_that_is(vip: str, pods: list[Address]) -> None:
    async with kept(vip, web(pods[0])) as (here, one):
        assert (await one.get()).status == 502
        await is_back(here)
        assert (await one.get()).status in (502, 503)
        assert gateway_of(here).punts().keys() <= {
            "the endpoint takes no connection at once",
            "no endpoint, or all have failed lately",
        }
        async with Endpoint(pods[0]):
            await here.install(web(pods[0]))
            async with asyncio.timeout(PATIENCE_S):
                while (await one.get()).status != 200 or not gateway_of(here).clients:
                    await asyncio.sleep(0.01)


BADLY = [
    ("late", 504, "the answer is late"),
    ("ends", 502, "no answer"),
    ("odd", 502, "an answer that is unusual"),
    ("404", 404, "an answer after which another endpoint may be asked"),
]


async def test_whose_endpoint_did_not_answer_well_is_back(vip: str, pods: list[Address]) -> None:
    said = {"/odd": saying(b"")[:-2] + b"Content-Length: 1\r\n\r\n", "/404": saying(b"").replace(b"200", b"404")}

    async def serve(_: Endpoint, reader: StreamReader, writer: StreamWriter) -> None:
        while (asked := (await read_head(reader)).start.split()[1]) != "/ends":
            writer.write(said.get(asked, b""))

    paths = [prefix(f"/{name}", f"of-{name}") for name, _, _ in BADLY]
    asks = named(proxy_next_upstream="http_404", proxy_next_upstream_tries="1")
    objects = [ingress("web", rule("example.com", *paths), annotations=asks)]
    async with contextlib.AsyncExitStack() as stack:
        for (name, _, _), pod in zip(BADLY, pods, strict=True):
            objects += [service(f"of-{name}"), *slices(f"of-{name}", [pod])]
            await stack.enter_async_context(Endpoint(pod, serve=serve))
        quick = Timeouts(read_s=0.3)
        here = await stack.enter_async_context(running(vip, snapshot_of(*objects), gateway=True, timeouts=quick))
        for times, (name, status, why) in enumerate(BADLY, 1):
            async with client(here.http) as one:
                answer = await one.get(f"/{name}", method="POST", fields="Content-Length: 0\r\n")
                assert (answer.status, gateway_of(here).punts().get(why)) == (status, 1)
                await is_back(here, times)


async def test_who_was_slow_once_is_back(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0], serve=echoing) as pod, kept(vip, web(pods[0])) as (here, one):
        for cut in (5, len(POST) - 1):
            one.send(POST[:cut])
            await eventually(lambda: here.ingress._front.open_connections)
            one.send(POST[cut:])
            assert (await one.answer()).body == b"/abc"
            await eventually(lambda: gateway_of(here).clients)
            for _ in range(WORTHWHILE):
                assert (await one.get()).status == 200
        await is_back(here, 2)
        assert gateway_of(here).punts() == {"a request that does not come at once": 2}
        assert len(pod.requests) == 2 + 2 * WORTHWHILE


async def test_whose_policies_changed_meanwhile_is_back(vip: str, pods: list[Address]) -> None:
    go = asyncio.Event()

    async def held(endpoint: Endpoint, reader: StreamReader, writer: StreamWriter) -> None:
        while True:
            endpoint.requests.append(await read_head(reader))
            await go.wait()
            writer.write(saying(b"hello"))

    first = annotated(pods[0], proxy_read_timeout="7")
    async with Endpoint(pods[0], serve=held) as pod, kept(vip, first) as (here, one):
        asking = asyncio.create_task(one.get())
        await eventually(lambda: pod.requests)
        await here.install(annotated(pods[0], proxy_read_timeout="8"))
        go.set()
        assert (await asking).status == 200
        assert gateway_of(here).punts() == {"the policies have changed meanwhile": 1}
        await is_back(here)
        assert (await one.get()).status == 200


@pytest.mark.one_loop
async def test_who_is_handed_over_each_time_is_so_ever_more_rarely(vip: str, pods: list[Address]) -> None:
    """After 1, 2, 4, … requests, so that of 100 there are six hand-overs more than the first."""
    async with Endpoint(pods[0]), kept(vip, annotated(pods[0], mirror_target="http://127.0.0.1:9/")) as (here, one):
        for _ in range(100):
            assert (await one.get()).status == 200
        await eventually(lambda: gateway_of(here).given_back == 6)
        (count,) = gateway_of(here).punts().values()
        assert count == 7


@pytest.mark.one_loop
async def test_it_stays_no_longer_than_that(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), kept(vip, web(pods[0])) as (here, one):
        rows = gateway_of(here).threads[0]._gateway.clients

        def stay() -> int:
            return int(rows["stay"][rows["state"] != VACANT].item())

        assert (await one.get()).status == 200
        rows["stay"], rows["answers"] = LONGEST_STAY - 1, 0  # of the one that there is
        one.send(PROPFIND + GET * (LONGEST_STAY - 2))
        for _ in range(LONGEST_STAY - 1):
            assert (await one.answer()).status == 200
        assert here.ingress._front.open_connections == 1
        assert (await one.get()).status == 200
        await is_back(here)
        assert stay() == LONGEST_STAY
        for _ in range(WORTHWHILE):
            assert (await one.get()).status == 200
        one.send(PROPFIND)
        assert (await one.answer()).status == 200
        await is_back(here, 2)
        assert stay() == 1


async def test_whom_only_the_other_side_knows_is_left_where_it_is(vip: str, pods: list[Address]) -> None:
    edge = Edge(proxy_protocol=True)
    async with Endpoint(pods[0]), running(vip, web(pods[0]), gateway=True, edge=edge) as here, client(here.http) as one:
        one.send(b"PROXY TCP6 2001:db8::9 ::1 4711 80\r\n")
        for _ in range(5):
            assert (await one.get()).status == 200
        assert gateway_of(here).punts() == {"a header of the PROXY protocol that is unusual": 1}
        assert (gateway_of(here).given_back, here.ingress._front.open_connections) == (0, 1)


async def test_whom_a_proxy_has_announced_comes_back_as_that(vip: str, pods: list[Address]) -> None:
    edge = Edge(proxy_protocol=True)
    async with Endpoint(pods[0]) as pod, running(vip, web(pods[0]), gateway=True, edge=edge) as here:
        async with client(here.http) as one:
            one.send(b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n")
            for times in (1, 2):
                for raw in (GET, PROPFIND, GET):
                    one.send(raw)
                    assert (await one.answer()).status == 200
                    if raw == PROPFIND:
                        await is_back(here, times)
                for _ in range(WORTHWHILE):
                    await one.get()
        assert {request.get("x-real-ip") for request in pod.requests} == {"203.0.113.9"}


@pytest.mark.one_loop
async def test_each_comes_back_to_the_thread_that_had_it(vip: str, pods: list[Address]) -> None:
    which = running(vip, web(pods[0]), gateway=True, gateway_threads=2, metrics_port=PORT)
    async with Endpoint(pods[0]), which as here, contextlib.AsyncExitStack() as stack:
        ones = [await stack.enter_async_context(client(here.http)) for _ in range(24)]
        for one in ones:
            assert (await one.get()).status == 200
        before = [thread.clients for thread in gateway_of(here).threads]
        for one in ones:
            one.send(PROPFIND)
            assert (await one.answer()).status == 200
        await is_back(here, 24, clients=24)
        assert [thread.clients for thread in gateway_of(here).threads] == before
        scraped = (await ask((vip, PORT), b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")).body
        assert b"trafficplane_ingress_given_back_total 24.0" in scraped
        assert b"trafficplane_ingress_client_connections 24.0" in scraped


@pytest.mark.parametrize("tls", [None, careless()], ids=["plain", "TLS"])
async def test_no_byte_is_lost_of_a_thousand_requests_on_the_way(
    vip: str, pods: list[Address], tls: ssl.SSLContext | None
) -> None:
    """The client sends up to 8 at once, and goes on as soon as it has their answers, in pieces of any size."""
    chance, number, pieces = random.Random(5), 0, [b"", b"x", b"\r\n\r\n", b"GET / HTTP/1.1\r\n\r\nab", b"y" * 700]
    async with Endpoint(pods[0], serve=echoing) as pod, kept(vip, web(pods[0]), tls=tls) as (here, one):
        one.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while number < 1000:
            waiting, expected = b"", []
            for _ in range(chance.choice([1, 1, 1, 2, 8])):
                method, body = chance.choice([(b"GET", b""), (b"POST", chance.choice(pieces))])
                fields = HOST + b"Content-Length: %d\r\n" % len(body) * (method == b"POST")
                fields += b"TE: trailers\r\n" * (chance.random() < 0.1)
                waiting += b"%b /%d HTTP/1.1\r\n%b\r\n%b" % (method, number, fields, body)
                expected.append(b"/%d%b" % (number, body))
                number += 1
            while waiting:
                size = chance.choice([1, 2, len(waiting) // 2 + 1, len(waiting), len(waiting), len(waiting)])
                one.send(waiting[:size])
                waiting = waiting[size:]
                await asyncio.sleep(0)
            for body in expected:
                assert (await one.answer()).body == body
        assert len(pod.requests) == number
        assert gateway_of(here).given_back > 0


async def test_a_client_that_sends_byte_by_byte_is_answered(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0], serve=echoing), kept(vip, web(pods[0])) as (here, one):
        for raw in (PROPFIND, POST, CHUNKED, GET):
            for byte in raw:
                one.send(bytes([byte]))
                await one.writer.drain()
                await asyncio.sleep(0)
            assert (await one.answer()).body.startswith(b"/")
        assert (await one.get()).status == 200
        assert gateway_of(here).given_back > 0


@pytest.mark.parametrize("tls", [None, careless()], ids=["plain", "TLS"])
async def test_who_takes_an_answer_slowly_is_back_when_it_has_it(
    vip: str, pods: list[Address], tls: ssl.SSLContext | None
) -> None:
    body = bytes(3_000_000)
    async with Endpoint(pods[0], saying(body)), kept(vip, web(pods[0]), tls=tls) as (here, one):
        one.send(PROPFIND)
        await one.reader.readuntil(b"\r\n\r\n")
        assert here.ingress._front.open_connections == 1
        assert len(await one.reader.readexactly(len(body))) == len(body)
        await is_back(here)
        assert (await one.get()).body == body


async def test_who_finds_no_room_comes_back_when_there_is_some(
    vip: str, pods: list[Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[int] = []
    take_back = Gateway._take_back

    def without_room(gateway: Gateway, client: Known, fd: int) -> None:
        loop = gateway._gateway.loop[0]
        free.append(int(loop["clients"]))
        if len(free) == 1:
            loop["clients"] = 0
            take_back(gateway, client, fd)
            loop["clients"] = free[0]
        else:
            take_back(gateway, client, fd)

    monkeypatch.setattr(Gateway, "_take_back", without_room)
    async with Endpoint(pods[0]), kept(vip, web(pods[0])) as (here, one):
        one.send(PROPFIND)
        assert (await one.answer()).status == 200
        for _ in range(2):
            assert gateway_of(here).given_back == 0
            assert (await one.get()).status == 200
        await is_back(here)


@pytest.mark.one_loop
@pytest.mark.parametrize("tls", [None, careless()], ids=["plain", "TLS"])
async def test_a_gateway_that_no_longer_serves_leaves_them_to_the_other_side(
    vip: str, pods: list[Address], monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext | None
) -> None:
    go = asyncio.Event()

    async def held(_: Endpoint, reader: StreamReader, writer: StreamWriter) -> None:
        while await read_head(reader):
            await go.wait()
            writer.write(saying(b"hello"))

    def fails() -> None:
        raise RuntimeError("no more")

    for what in ("fails", "drains"):
        go.clear()
        async with Endpoint(pods[0], serve=held) as pod, kept(vip, web(pods[0]), tls=tls) as (here, one):
            one.send(PROPFIND)
            await eventually(lambda: pod.open and here.ingress._front.open_connections)
            if what == "drains":
                gateway_of(here).drain()
            else:
                monkeypatch.setattr(gateway_of(here).threads[0], "_date", fails)
                await eventually(lambda: not gateway_of(here).serves)
            go.set()
            for _ in range(3):
                assert (await one.answer()).status == 200
                one.send(GET)
            assert (await one.answer()).status == 200
            assert gateway_of(here).given_back == 0


async def test_who_says_more_by_tls_before_it_is_given_back_stays_for_another_round(
    vip: str, pods: list[Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go = Terminator._let_go

    def late(terminator: Terminator, client: Secured, take: Any, keep: Any, end: socket.socket) -> None:
        """As it does, but once the next request has been deciphered."""
        with contextlib.suppress(BlockingIOError):
            end.recv(1, socket.MSG_PEEK)
            let_go(terminator, client, take, keep, end)
            return
        terminator._driver.tell(lambda: late(terminator, client, take, keep, end))

    async with Endpoint(pods[0], serve=echoing), kept(vip, web(pods[0]), tls=careless()) as (here, one):
        with monkeypatch.context() as patched:
            patched.setattr(Terminator, "_let_go", late)
            for raw in (PROPFIND, POST):
                one.send(raw)
                assert (await one.answer()).body == b"/" + b"abc" * (raw == POST)
        assert gateway_of(here).given_back == 0
        assert (await one.get()).status == 200
        await is_back(here)


@pytest.mark.parametrize("tls", [None, careless()], ids=["plain", "TLS"])
async def test_who_is_idle_for_the_longest_makes_room(
    vip: str, pods: list[Address], monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext | None
) -> None:
    monkeypatch.setattr("plane.ingress.gateways.CAPACITY", 3)
    go = asyncio.Event()

    async def held(endpoint: Endpoint, reader: StreamReader, writer: StreamWriter) -> None:
        while request := await read_head(reader):
            endpoint.requests.append(request)
            if request.start.split()[1] == "/held":
                await go.wait()
            writer.write(saying(b"hello"))

    which = running(vip, web(pods[0]), gateway=True, metrics_port=PORT)
    async with Endpoint(pods[0], serve=held) as pod, which as here, contextlib.AsyncExitStack() as stack:

        async def another() -> Client:
            where = (here.https, tls, "foo.com") if tls else (here.http,)
            return await stack.enter_async_context(client(*where))

        busy, oldest, younger = [await another() for _ in range(3)]
        asking = asyncio.create_task(busy.get("/held"))
        await eventually(lambda: pod.requests)
        for one in (oldest, younger):
            assert (await one.get()).status == 200
        for one, who in [(await another(), oldest), (await another(), younger)]:
            assert (await one.get()).status == 200
            assert await who.at_end()
        go.set()
        assert (await asking).status == 200
        scraped = (await ask((vip, PORT), b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")).body
        assert b"trafficplane_ingress_crowded_out_total 2.0" in scraped
        assert gateway_of(here).clients == 3
