"""Large answers by the compiled gateway: whole to a client that takes its time; of one that breaks nothing stays."""

import random
from asyncio import StreamReader, StreamWriter

import pytest

from kernels.net import gateway as kernel
from tests.ingress.manifests import web
from tests.ingress.wire import Address, Client, Endpoint, Running, client, eventually, read_head, running

pytestmark = pytest.mark.syscalls

SIZE = 3_000_001
BODY = random.Random(1).randbytes(SIZE)
GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def chunks(*sizes: int) -> bytes:
    """The body in chunks of these sizes, and what is left in one more."""
    said, at = b"", 0
    for size in (*sizes, SIZE - sum(sizes)):
        said += b"%X;a=b\r\n%b\r\n" % (size, BODY[at : at + size])
        at += size
    return said + b"0\r\nA: b\r\n\r\n"


ANSWERS = {
    "by length": SIZED + BODY,
    "in chunks": CHUNKED + chunks(1, 15, 16, 255, 32_768, 1_000_000),
    "until the end": b"HTTP/1.1 200 OK\r\n\r\n" + BODY,
}


async def once(endpoint: Endpoint, reader: StreamReader, writer: StreamWriter) -> None:
    """Says its answer, and ends."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(endpoint.answer)
    await writer.drain()


async def rest(one: Client, *, in_chunks: bool) -> bytes:
    """A body, read in small pieces; in chunks of whatever size."""
    pieces = []
    if not in_chunks:
        while sum(map(len, pieces)) < SIZE:
            pieces.append(await one.reader.read(50_000))
        return b"".join(pieces)
    while size := int(await one.reader.readuntil(b"\r\n"), 16):
        pieces.append((await one.reader.readexactly(size + 2))[:-2])
    assert await one.reader.readexactly(2) == b"\r\n"
    return b"".join(pieces)


def settled(here: Running) -> bool:
    """Whether no request is under way and no pipe is held."""
    gateway = here.ingress._gateway
    assert gateway is not None
    return not gateway.at_work and gateway.threads[0]._gateway.pipes.left[0] == kernel.PIPES


@pytest.mark.parametrize("how", ANSWERS)
async def test_a_large_answer_waits_for_its_client(vip: str, pods: list[Address], how: str) -> None:
    async with Endpoint(pods[0], ANSWERS[how], serve=once), running(vip, web(pods[0]), gateway=True) as here:
        async with client(here.http) as slow, client(here.http) as quick:
            slow.send(GET)
            head = await read_head(slow.reader)
            quick.send(GET)  # while the other one takes no more
            assert (await quick.answer()).body == BODY
            assert not settled(here)
            assert await rest(slow, in_chunks=head.get("content-length") is None) == BODY
        await eventually(lambda: settled(here))
        assert here.ingress._gateway is not None
        assert here.ingress._gateway.punts() == {}


async def test_a_large_answer_that_breaks_costs_its_connection_only(vip: str, pods: list[Address]) -> None:
    answer = SIZED + BODY[:-1]
    async with Endpoint(pods[0], answer, serve=once) as endpoint, running(vip, web(pods[0]), gateway=True) as here:
        async with client(here.http) as one:
            one.send(GET)
            head = await read_head(one.reader)
            assert (head.get("content-length"), await one.reader.read()) == (str(SIZE), BODY[:-1])
        await eventually(lambda: settled(here))
        endpoint.answer = SIZED + BODY + b"HTTP/1.1 200 OK\r\n"
        async with client(here.http) as one:
            for _ in range(2):
                one.send(GET)
                assert (await one.answer()).body == BODY
        assert endpoint.connections == 3


async def test_a_client_that_leaves_a_large_answer_leaves_nothing(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0], SIZED + BODY) as endpoint, running(vip, web(pods[0]), gateway=True) as here:
        async with client(here.http) as one:
            one.send(GET)
            await read_head(one.reader)
            assert not settled(here)
        await eventually(lambda: settled(here) and not endpoint.open)
