"""Bodies of requests that are larger than a buffer, or come in chunks, by the compiled gateway.

Whatever is odd about one is for the asyncio side to say, which goes on with it where the gateway has left it.
"""

import asyncio
import random
from asyncio import StreamReader, StreamWriter

import pytest

from plane.ingress.timeouts import Timeouts
from tests.ingress.manifests import web
from tests.ingress.wire import (
    Address,
    Client,
    Endpoint,
    Running,
    ask,
    client,
    eventually,
    read_body,
    read_head,
    running,
    saying,
)

pytestmark = [pytest.mark.syscalls, pytest.mark.one_loop]

BODY = random.Random(2).randbytes(1_000_003)
POST = b"POST / HTTP/1.1\r\nHost: example.com\r\n"
SIZED = POST + b"Content-Length: %d\r\n\r\n" % len(BODY)
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: example.com\r\n\r\n"


def chunks(body: bytes = BODY) -> bytes:
    said, at, sizes = b"", 0, random.Random(3)
    while at < len(body):
        piece = body[at : at + sizes.choice((1, 15, 255, 4_000, 32_768, 100_000))]
        said += b"%X;a=b\r\n%b\r\n" % (len(piece), piece)
        at += len(piece)
    return said + b"0\r\nA: b\r\n\r\n"


WAYS = {"by length": SIZED + BODY, "in chunks": CHUNKED + chunks()}


async def echoing(endpoint: Endpoint, reader: StreamReader, writer: StreamWriter) -> None:
    """Answers with the body that it has got."""
    while True:
        request = await read_head(reader)
        request.body = await read_body(reader, request)
        endpoint.requests.append(request)
        writer.write(saying(request.body))
        await writer.drain()


async def answering_early(endpoint: Endpoint, reader: StreamReader, writer: StreamWriter) -> None:
    """Begins to answer after the first bytes of a body, and ends when all of it is here."""
    request = await read_head(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    request.body = await read_body(reader, request)
    writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(request.body), request.body))
    await writer.drain()


def punts(here: Running) -> dict[str, int]:
    assert here.ingress._gateway is not None
    return here.ingress._gateway.punts()


async def in_pieces(one: Client, data: bytes, size: int) -> None:
    for at in range(0, len(data), size):
        one.send(data[at : at + size])
        await one.writer.drain()


@pytest.mark.parametrize("size", [7_001, len(BODY)])
@pytest.mark.parametrize("how", WAYS)
async def test_a_large_body_goes_by_compiled_code(vip: str, pods: list[Address], how: str, size: int) -> None:
    async with Endpoint(pods[0], serve=echoing) as endpoint, running(vip, web(pods[0]), gateway=True) as here:
        async with client(here.http) as one:
            sending = asyncio.create_task(in_pieces(one, WAYS[how] + NEXT, size))
            assert (await one.answer()).body == BODY
            assert (await one.answer()).body == b""
            await sending
        assert punts(here) == {}
        assert [request.start for request in endpoint.requests] == ["POST / HTTP/1.1", "GET /next HTTP/1.1"]
        assert endpoint.connections == 1
        framing = endpoint.requests[0].get("content-length"), endpoint.requests[0].get("transfer-encoding")
        assert framing == ((str(len(BODY)), None) if how == "by length" else (None, "chunked"))


@pytest.mark.parametrize("how", WAYS)
async def test_a_body_waits_for_its_endpoint(vip: str, pods: list[Address], how: str) -> None:
    """What an endpoint does not take stays with the client; others are served meanwhile."""
    go = asyncio.Event()

    async def waiting(endpoint: Endpoint, reader: StreamReader, writer: StreamWriter) -> None:
        request = await read_head(reader)
        if "next" not in request.start:
            await go.wait()
        writer.write(saying(await read_body(reader, request)))

    head, _, body = WAYS[how].partition(b"\r\n\r\n")
    if how == "by length":
        head, body = head.replace(str(len(BODY)).encode(), str(8 * len(BODY)).encode()), 8 * body
    else:
        body = chunks(8 * BODY)
    async with (
        Endpoint(pods[0], serve=waiting),
        running(vip, web(pods[0]), gateway=True) as here,
        client(here.http) as one,
        client(here.http) as other,
    ):
        sending = asyncio.create_task(in_pieces(one, head + b"\r\n\r\n" + body, 1 << 16))
        other.send(NEXT)
        assert (await other.answer()).status == 200
        done, _ = await asyncio.wait([sending], timeout=0.1)
        assert not done
        go.set()
        assert (await one.answer()).body == 8 * BODY
        await sending


@pytest.mark.parametrize("how", WAYS)
async def test_an_answer_that_begins_before_its_request_ends(vip: str, pods: list[Address], how: str) -> None:
    async with Endpoint(pods[0], serve=answering_early), running(vip, web(pods[0]), gateway=True) as here:
        async with client(here.http) as one:
            one.send(WAYS[how][:300_007])
            answer = await read_head(one.reader)
            one.send(WAYS[how][300_007:])
            assert await read_body(one.reader, answer) == BODY
        assert punts(here) == {"an answer before its request was whole": 1}


async def test_an_endpoint_that_ends_within_a_body_is_502(vip: str, pods: list[Address]) -> None:
    async def ending(_: Endpoint, reader: StreamReader, __: StreamWriter) -> None:
        await read_head(reader)
        await reader.readexactly(100_000)

    async with (
        Endpoint(pods[0], serve=ending),
        running(vip, web(pods[0]), gateway=True) as here,
        client(here.http) as one,
    ):
        one.send(SIZED + BODY[:200_000])
        assert (await one.answer()).status == 502
        assert await one.at_end()


STALLING = [
    SIZED + BODY[:200_000],
    CHUNKED + b"1\r\na\r\n20000\r\n" + BODY[:100_000],
    CHUNKED + b"1\r\na\r\n2",
    CHUNKED + b"1\r\na",
    CHUNKED + b"1\r\na\r\n0\r\nA: ",
]
BROKEN = [
    CHUNKED + b"10000\r\n" + BODY[:65_536] + b"x",
    CHUNKED + b"10000\r\n" + BODY[:65_536] + b"\r\nx\r\n",
]


async def test_a_body_that_does_not_go_on_is_408_and_one_that_is_broken_400(vip: str, pods: list[Address]) -> None:
    quick = Timeouts(body_s=0.5)
    async with Endpoint(pods[0], serve=echoing), running(vip, web(pods[0]), gateway=True, timeouts=quick) as here:
        answers = await asyncio.gather(*(ask(here.http, raw) for raw in STALLING + BROKEN))
        assert [answer.status for answer in answers] == [408] * len(STALLING) + [400] * len(BROKEN)
        assert set(punts(here)) <= {"a body that does not go on", "line_end", "chunk"}
        assert sum(punts(here).values()) == len(answers)


async def test_a_client_that_leaves_within_its_body_leaves_nothing(vip: str, pods: list[Address]) -> None:
    async with (
        Endpoint(pods[0], serve=echoing) as endpoint,
        running(vip, web(pods[0]), gateway=True, recording=True) as here,
    ):
        async with client(here.http) as one:
            one.send(SIZED + BODY[:200_000])
            await eventually(lambda: endpoint.open)
        await eventually(lambda: not endpoint.open)
        assert here.ingress._gateway is not None
        assert here.ingress._gateway.at_work == 0
        assert list((await here.ingress.records())["status"]) == [499]
