"""Bodies that are larger than any buffer, and connections that become tunnels."""

import asyncio
import hashlib
import os
import socket

import pytest

from plane.ingress.timeouts import Timeouts
from tests.ingress.manifests import web
from tests.ingress.wire import PATIENCE_S, Address, Endpoint, client, eventually, read_body, read_head, running, saying

MIB = 1024 * 1024
LARGE = 32 * MIB
PIECE = os.urandom(MIB)
DIGEST = hashlib.sha256(PIECE * (LARGE // MIB)).hexdigest()
HEAD = b"Host: example.com\r\n"


def framed(piece: bytes, chunked: bool) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece


def framing(chunked: bool) -> bytes:
    return b"Transfer-Encoding: chunked\r\n\r\n" if chunked else b"Content-Length: %d\r\n\r\n" % LARGE


async def pour(writer: asyncio.StreamWriter, chunked: bool) -> None:
    for _ in range(LARGE // MIB):
        writer.write(framed(PIECE, chunked))
        await writer.drain()
    if chunked:
        writer.write(b"0\r\n\r\n")


@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
async def test_a_large_answer_reaches_a_slow_reader_whole_and_does_not_pile_up(
    vip: str, pods: list[Address], chunked: bool
) -> None:
    sent = 0

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            await read_head(reader)
            writer.write(b"HTTP/1.1 200 OK\r\n" + framing(chunked))
            for _ in range(LARGE // MIB):
                writer.write(framed(PIECE, chunked))
                await writer.drain()
                sent += MIB
            if chunked:
                writer.write(b"0\r\n\r\n")

    async with Endpoint(pods[0], serve=serve) as endpoint, running(vip, web(pods[0])) as here:
        async with client(here.http) as one:
            one.send(b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n")
            head = await read_head(one.reader)
            assert head.get("transfer-encoding") == ("chunked" if chunked else None)
            await settled(lambda: sent)
            assert sent < LARGE  # the kernel takes some MiB, the ingress half of one
            async with asyncio.timeout(PATIENCE_S):
                body = await read_body(one.reader, head)
            assert hashlib.sha256(body).hexdigest() == DIGEST
            one.send(b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n")
            assert (await one.answer()).status == 200
        assert endpoint.connections == 1


@pytest.mark.parametrize("chunked", [False, True], ids=["Content-Length", "chunked"])
async def test_a_large_request_reaches_a_slow_endpoint_whole_and_does_not_pile_up(
    vip: str, pods: list[Address], chunked: bool
) -> None:
    go, digests, sent = asyncio.Event(), [], 0

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        endpoint.requests.append(head)
        await go.wait()
        digests.append(hashlib.sha256(await read_body(reader, head)).hexdigest())
        writer.write(endpoint.answer)

    async def send(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for _ in range(LARGE // MIB):
            writer.write(framed(PIECE, chunked))
            await writer.drain()
            sent += MIB
        if chunked:
            writer.write(b"0\r\n\r\n")

    async with Endpoint(pods[0], serve=serve) as endpoint, running(vip, web(pods[0])) as here, client(here.http) as one:
        one.send(b"POST / HTTP/1.1\r\n" + HEAD + framing(chunked))
        sending = asyncio.create_task(send(one.writer))
        await settled(lambda: sent)
        assert sent < LARGE
        go.set()
        await sending
        assert (await one.answer()).body == b"hello"
        assert digests == [DIGEST]
        assert endpoint.requests[0].get("content-length") == (None if chunked else str(LARGE))
        assert endpoint.requests[0].get("transfer-encoding") == ("chunked" if chunked else None)


async def test_bodies_flow_both_ways_at_once(vip: str, pods: list[Address]) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n" + framing(False))
        left = int(head.get("content-length") or 0)
        while left:
            piece = await reader.read(65536)
            left -= len(piece)
            writer.write(piece)
            await writer.drain()

    async with Endpoint(pods[0], serve=serve), running(vip, web(pods[0])) as here, client(here.http) as one:
        one.send(b"POST / HTTP/1.1\r\n" + HEAD + framing(False))
        sending = asyncio.create_task(pour(one.writer, False))
        head = await read_head(one.reader)
        async with asyncio.timeout(PATIENCE_S):
            body = await read_body(one.reader, head)
        await sending
        assert hashlib.sha256(body).hexdigest() == DIGEST


async def test_an_answer_before_the_end_of_the_request_ends_both_connections(vip: str, pods: list[Address]) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        await reader.read()

    async with Endpoint(pods[0], serve=serve), running(vip, web(pods[0])) as here, client(here.http) as one:
        one.send(b"POST / HTTP/1.1\r\n" + HEAD + framing(False) + PIECE[:1000])
        answer = await one.answer()
        assert (answer.status, answer.get("connection")) == (413, "close")
        assert await one.at_end()


async def test_expect_continue_is_answered_when_the_body_can_go_on(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0])) as here, client(here.http) as one:
        one.send(b"PUT / HTTP/1.1\r\n" + HEAD + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert (await one.answer()).start == "HTTP/1.1 100 Continue"
        one.send(b"hello")
        assert (await one.answer()).status == 200
        assert endpoint.requests[0].body == b"hello"
        assert (await one.get()).status == 200


async def test_expect_continue_is_not_answered_where_the_body_goes_nowhere(vip: str, pods: list[Address]) -> None:
    async with running(vip, web(pods[0])) as here, client(here.http) as one:
        one.send(b"PUT / HTTP/1.1\r\nHost: nobody.com\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        answer = await one.answer()
        assert (answer.status, answer.get("connection")) == (404, "close")


WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n"
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\n"
)


async def tunnelling(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accepts an upgrade, greets, and echoes."""
    endpoint.requests.append(await read_head(reader))
    writer.write(SWITCHED + b"greetings")
    while piece := await reader.read(65536):
        writer.write(piece)
        await writer.drain()


async def test_a_websocket_becomes_a_tunnel(vip: str, pods: list[Address]) -> None:
    async with (
        Endpoint(pods[0], serve=tunnelling) as endpoint,
        running(vip, web(pods[0])) as here,
    ):
        async with client(here.http) as one:
            one.send(b"GET /chat HTTP/1.1\r\n" + HEAD + WEBSOCKET + b"early")
            answer = await one.answer()
            assert answer.status == 101
            assert (answer.get("connection"), answer.get("upgrade")) == ("Upgrade", "websocket")
            assert answer.get("sec-websocket-accept") == "y"
            assert await one.reader.readexactly(14) == b"greetingsearly"
            sending = asyncio.create_task(pour(one.writer, False))
            async with asyncio.timeout(PATIENCE_S):
                assert hashlib.sha256(await one.reader.readexactly(LARGE)).hexdigest() == DIGEST
            await sending
            request = endpoint.requests[0]
            assert (request.get("connection"), request.get("upgrade")) == ("Upgrade", "websocket")
            assert request.get("sec-websocket-key") == "x"
        await settled(lambda: endpoint.open)
        assert endpoint.open == 0


async def test_a_tunnel_ends_when_its_endpoint_does(vip: str, pods: list[Address]) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(SWITCHED + b"bye")

    async with Endpoint(pods[0], serve=serve), running(vip, web(pods[0])) as here, client(here.http) as one:
        one.send(b"GET /chat HTTP/1.1\r\n" + HEAD + WEBSOCKET)
        assert (await one.answer()).status == 101
        async with asyncio.timeout(PATIENCE_S):
            assert await one.reader.read() == b"bye"


async def test_an_endpoint_may_refuse_to_switch(vip: str, pods: list[Address]) -> None:
    said = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
    async with Endpoint(pods[0], said), running(vip, web(pods[0])) as here, client(here.http) as one:
        one.send(b"GET /chat HTTP/1.1\r\n" + HEAD + WEBSOCKET)
        answer = await one.answer()
        assert (answer.status, answer.body) == (403, b"no")
        assert (await one.get()).status == 403


async def test_an_endpoint_may_not_switch_unasked(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0], serve=tunnelling), running(vip, web(pods[0])) as here, client(here.http) as one:
        assert (await one.get()).status == 502


async def settled(value: object) -> None:
    """Return once a value has stood still for a while."""
    last, same = None, 0
    async with asyncio.timeout(PATIENCE_S):
        while same < 20:
            now = value()  # type: ignore[operator]
            same = same + 1 if now == last else 0
            last = now
            await asyncio.sleep(0.005)


async def test_a_client_that_takes_nothing_is_left(vip: str, pods: list[Address]) -> None:
    body = saying(b"x" * 8_000_000)
    async with (
        Endpoint(pods[0], body) as pod,
        running(vip, web(pods[0]), timeouts=Timeouts(send_s=0.3)) as here,
    ):
        with socket.socket() as end:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            end.connect(here.http)
            end.sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
            await eventually(lambda: pod.requests)
            await eventually(lambda: pod.open == 0)
