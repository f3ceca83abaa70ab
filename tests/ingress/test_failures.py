"""Endpoints that are not there, do not answer or stop in the middle, and clients that leave."""

import asyncio
import socket

import pytest

from plane.ingress.timeouts import Timeouts
from tests.ingress.manifests import web
from tests.ingress.wire import Address, Endpoint, Message, ask, client, eventually, read_head, running, saying
from tests.loopback import reset

HEAD = b"Host: example.com\r\n"
GET = b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n"
POST = b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\n\r\nhi"
QUICK = Timeouts(connect_s=0.2, read_s=0.2, body_s=0.2)


async def hanging_up(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reads a request and closes without a word."""
    endpoint.requests.append(await read_head(reader))


async def silent(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    endpoint.requests.append(await read_head(reader))
    await reader.read()


async def test_refused_is_502(vip: str, pods: list[Address]) -> None:
    async with running(vip, web(pods[0]), recording=True) as here, client(here.http) as one:
        for _ in range(2):
            answer = await one.get()
            assert answer.status == 502
            assert answer.body == b"502 Bad Gateway: %b:8080 no connection: Connection refused\n" % pods[0][0].encode()
            assert answer.get("content-type") == "text/plain; charset=utf-8"
        rows = await here.ingress.records()
        assert (list(rows["status"]), list(rows["retries"])) == ([502] * 2, [0] * 2)


@pytest.mark.parametrize("raw", [GET, POST], ids=["GET", "POST"])
async def test_a_refused_connection_is_tried_elsewhere(vip: str, pods: list[Address], raw: bytes) -> None:
    async with Endpoint(pods[2]), running(vip, web(*pods[:3])) as here:
        for _ in range(6):
            assert (await ask(here.http, raw)).status == 200


async def test_three_tries_and_no_more(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[3]) as last, running(vip, web(*pods), recording=True) as here:
        assert (await ask(here.http, GET)).status == 502
        assert last.connections == 0
        assert list((await here.ingress.records())["retries"]) == [2]


async def test_a_body_that_is_still_coming_is_not_lost_by_a_refused_connection(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[1]) as endpoint, running(vip, web(*pods[:2])) as here, client(here.http) as one:
        one.send(b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 4\r\n\r\nab")
        await eventually(lambda: endpoint.connections)
        one.send(b"cd")
        assert (await one.answer()).status == 200
        assert endpoint.requests[0].body == b"abcd"


async def test_no_answer_is_504(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0], serve=silent) as endpoint, running(vip, web(*pods[:2]), timeouts=QUICK) as here:
        answer = await ask(here.http, GET)
        assert answer.status == 504
        assert b"no answer in time" in answer.body
        await eventually(lambda: not endpoint.open)


async def test_no_connection_in_time_is_504(vip: str, pods: list[Address]) -> None:
    """A listener whose queue is full takes no more connections."""
    with socket.create_server(pods[0], backlog=0) as full, socket.create_connection(pods[0]):
        assert full
        async with running(vip, web(pods[0]), timeouts=QUICK) as here:
            assert (await ask(here.http, GET)).status == 504


async def test_an_answer_that_stops_for_too_long_breaks_off(vip: str, pods: list[Address]) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        await reader.read()

    async with Endpoint(pods[0], serve=serve), running(vip, web(pods[0]), timeouts=Timeouts(read_s=0.5)) as here:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await ask(here.http, GET)


async def test_a_slow_request_is_not_the_endpoints_fault(vip: str, pods: list[Address]) -> None:
    timeouts = Timeouts(read_s=0.4)
    async with Endpoint(pods[0]), running(vip, web(pods[0]), timeouts=timeouts) as here, client(here.http) as one:
        one.send(b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 4\r\n\r\n")
        for half in (b"ab", b"cd"):
            await asyncio.sleep(0.5)
            one.send(half)
        assert (await one.answer()).status == 200


async def test_a_body_that_does_not_come_is_408(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0]), timeouts=QUICK) as here:
        async with client(here.http) as one:
            one.send(b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 4\r\n\r\nab")
            answer = await one.answer()
            assert (answer.status, answer.get("connection")) == (408, "close")
        await eventually(lambda: not endpoint.open)


async def test_a_body_that_turns_out_broken_is_400(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0])) as here, client(here.http) as one:
        one.send(b"POST / HTTP/1.1\r\n" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        await eventually(lambda: endpoint.open)
        one.send(b"nonsense\r\n")
        answer = await one.answer()
        assert (answer.status, answer.get("connection")) == (400, "close")
        assert await one.at_end()
        await eventually(lambda: not endpoint.open)
        assert endpoint.requests == []


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"SSH-2.0-x\r\n\r\n", id="no HTTP"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="CL and TE"
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx", id="another coding"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", id="two lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", id="a bad length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\0c\r\nContent-Length: 0\r\n\r\n", id="NUL"),
    ],
)
async def test_an_answer_that_is_no_http_is_502(vip: str, pods: list[Address], said: bytes) -> None:
    async with Endpoint(pods[0], said) as endpoint, running(vip, web(pods[0])) as here, client(here.http) as one:
        assert (await one.get()).status == 502
        assert (await one.get()).status == 502
        assert endpoint.connections == 2


@pytest.mark.parametrize(
    "start",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello", id="Content-Length"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", id="chunked"),
    ],
)
async def test_a_client_sees_that_an_answer_broke_off(vip: str, pods: list[Address], start: bytes) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(start)

    async with Endpoint(pods[0], serve=serve) as endpoint, running(vip, web(pods[0])) as here, client(here.http) as one:
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await one.get()
        assert endpoint.connections == 1  # its head was here: it is not asked again


async def test_an_endpoint_that_dies_within_its_head_is_502_and_is_not_asked_again(
    vip: str, pods: list[Address]
) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nConte")

    async with Endpoint(pods[0], serve=serve) as endpoint, running(vip, web(pods[0])) as here:
        assert (await ask(here.http, GET)).status == 502
        assert endpoint.connections == 1


async def test_an_endpoint_that_dies_before_its_answer_costs_an_idempotent_request_nothing(
    vip: str, pods: list[Address]
) -> None:
    async with (
        Endpoint(pods[0], serve=hanging_up) as dying,
        Endpoint(pods[1]),
        running(vip, web(*pods[:2])) as here,
    ):
        for _ in range(4):
            assert (await ask(here.http, GET)).status == 200
        assert dying.connections == 1
        await here.install(web(pods[1], generation=2))
        await here.install(web(*pods[:2], generation=3))  # it is new, so that it is asked again
        for _ in range(2):
            put = await ask(here.http, b"PUT / HTTP/1.1\r\n" + HEAD + b"Content-Length: 2\r\n\r\nhi")
            assert put.status == 200
        assert dying.connections == 2


async def test_but_is_never_asked_twice_to_do_what_may_be_done_already(vip: str, pods: list[Address]) -> None:
    async with (
        Endpoint(pods[0], serve=hanging_up) as dying,
        Endpoint(pods[1]) as other,
        running(vip, web(*pods[:2])) as here,
    ):
        assert (await ask(here.http, POST)).status == 502
        assert (dying.connections, other.connections) == (1, 0)


async def once(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers the first request of a connection and lets it die with the second."""
    await read_head(reader)
    writer.write(endpoint.answer)
    await read_head(reader)
    writer.transport.abort()


async def test_a_kept_connection_that_has_gone_stale_is_replaced(vip: str, pods: list[Address]) -> None:
    """Also where there is no other endpoint."""
    async with Endpoint(pods[0], serve=once) as endpoint, running(vip, web(pods[0])) as here, client(here.http) as one:
        for _ in range(5):
            assert (await one.get()).status == 200
        assert endpoint.connections == 5


async def test_a_kept_connection_that_its_endpoint_closed_is_not_used(vip: str, pods: list[Address]) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(endpoint.answer)

    async with Endpoint(pods[0], serve=serve) as endpoint, running(vip, web(pods[0])) as here, client(here.http) as one:
        for number in range(5):
            assert (await one.get(method="POST", fields="Content-Length: 0\r\n")).status == 200
            await eventually(lambda number=number: endpoint.connections == number + 1 and not endpoint.open)
            await eventually(lambda: not here.ingress.idle_connections)


async def test_connections_are_kept_and_the_one_used_last_is_used_first(vip: str, pods: list[Address]) -> None:
    both = asyncio.Event()

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Says which connection it is; the first two wait for one another."""
        own = saying(b"%d" % endpoint.connections)
        while True:
            await read_head(reader)
            if endpoint.connections == 2:
                both.set()
            await both.wait()
            writer.write(own)

    async with (
        Endpoint(pods[0], serve=serve) as endpoint,
        running(vip, web(pods[0])) as here,
        client(here.http) as one,
        client(here.http) as other,
    ):
        await asyncio.gather(one.get(), other.get())
        said = {(await one.get()).body for _ in range(10)}
        assert len(said) == 1
        await eventually(lambda: here.ingress.idle_connections == 2)  # the gateway's thread tells nobody
        assert endpoint.connections == 2


async def test_idle_connections_to_endpoints_close_in_time(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0]), timeouts=Timeouts(idle_s=0.1)) as here:
        assert (await ask(here.http, GET)).status == 200
        await eventually(lambda: not endpoint.open)
        assert here.ingress.idle_connections == 0


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"], ids=["no answer", "within it"]
)
async def test_when_a_client_leaves_its_endpoint_is_told(vip: str, pods: list[Address], sent: bytes) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.requests.append(await read_head(reader))
        writer.write(sent)
        await reader.read()

    async with Endpoint(pods[0], serve=serve) as endpoint, running(vip, web(pods[0]), recording=True) as here:
        with socket.create_connection(here.http) as gone:
            gone.sendall(GET)
            await eventually(lambda: endpoint.requests)
            reset(gone)
        await eventually(lambda: not endpoint.open)
        rows = await here.ingress.records()
        assert list(rows["status"]) == [499]


async def test_a_client_that_leaves_within_its_request_takes_the_endpoints_connection_along(
    vip: str, pods: list[Address]
) -> None:
    async with Endpoint(pods[0], serve=silent) as endpoint, running(vip, web(pods[0]), recording=True) as here:
        with socket.create_connection(here.http) as gone:
            gone.sendall(b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 100\r\n\r\nab")
            await eventually(lambda: endpoint.requests)
            reset(gone)
        await eventually(lambda: not endpoint.open)
        assert list((await here.ingress.records())["status"]) == [499]


async def test_503_keeps_the_clients_connection(vip: str, pods: list[Address]) -> None:
    async with running(vip, web()) as here, client(here.http) as one:
        for _ in range(2):
            answer: Message = await one.get()
            assert answer.status == 503
            assert answer.body == b"503 Service Unavailable: Service default/web:80 has no ready endpoint\n"
        assert (await one.get(method="HEAD")).status == 503


SHORT = Timeouts(head_s=0.2)


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\nHost: example.com\r\nA: b", b"GET / HTTP/1.1\r\n"])
async def test_a_head_that_does_not_come_is_408(vip: str, pods: list[Address], sent: bytes) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0]), timeouts=SHORT) as here:
        async with client(here.http) as one:
            one.send(sent)
            answer = await one.answer()
            assert (answer.status, answer.get("connection")) == (408, "close")
            assert await one.at_end()
        assert endpoint.requests == []


@pytest.mark.parametrize(
    "request_before", [GET, b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 4\r\n\r\nabcd"], ids=["GET", "POST"]
)
@pytest.mark.parametrize("later", [False, True], ids=["with it", "while it is under way"])
async def test_a_head_that_began_before_an_answer_has_its_time_too(
    vip: str, pods: list[Address], request_before: bytes, later: bool
) -> None:
    go = asyncio.Event()

    async def held(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.requests.append(await read_head(reader))
        await go.wait()
        writer.write(saying(b"hello"))

    async with (
        Endpoint(pods[0], serve=held) as endpoint,
        running(vip, web(pods[0]), timeouts=SHORT) as here,
        client(here.http) as one,
    ):
        one.send(request_before + (b"" if later else b"GET / HT"))
        await eventually(lambda: endpoint.requests)
        if later:
            one.send(b"GET / HT")
            for connection in here.ingress._front.connections:  # none where it is the gateway's
                await eventually(lambda connection=connection: connection._following)
        go.set()
        assert (await one.answer()).status == 200
        assert (await one.answer()).status == 408
        assert await one.at_end()


async def test_nor_does_a_byte_now_and_then_buy_more_time(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0]), timeouts=SHORT) as here, client(here.http) as one:
        one.send(b"GET / HTTP/1.1\r\nHost: example.com\r\nA: ")
        waiting = asyncio.create_task(one.answer())
        for _ in range(400):
            if waiting.done():
                break
            one.send(b"b")
            await asyncio.sleep(0.025)
        assert (await waiting).status == 408


async def test_who_says_nothing_at_all_is_left_without_a_word(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0]), timeouts=SHORT) as here, client(here.http) as one:
        assert await one.at_end()


async def test_the_time_for_a_head_is_each_requests_own(vip: str, pods: list[Address]) -> None:
    """A kept connection may be idle for longer, and a request or an answer under way is not a head."""

    async def slow(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            endpoint.requests.append(await read_head(reader))
            await asyncio.sleep(0.5)
            writer.write(saying(b"slow"))

    async with (
        Endpoint(pods[0], serve=slow) as endpoint,
        running(vip, web(pods[0]), timeouts=SHORT) as here,
        client(here.http) as one,
    ):
        for _ in range(2):
            assert (await one.get()).body == b"slow"
            await asyncio.sleep(0.5)
        one.send(b"GET /")
        assert (await one.answer()).status == 408
        assert len(endpoint.requests) == 2
