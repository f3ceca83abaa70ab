"""HTTP/2 from clients: each stream is a request as any other, and no client can cost more than requests do."""

import asyncio
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from plane.ingress import http2 as session
from plane.ingress.timeouts import Timeouts
from tests.ingress.http2wire import Field, Http2Client, careless, head, http2
from tests.ingress.manifests import web
from tests.ingress.test_streaming import DIGEST, LARGE, MIB, PIECE, framed, framing, settled
from tests.ingress.wire import (
    PATIENCE_S,
    Address,
    Endpoint,
    client,
    eventually,
    read_body,
    read_head,
    running,
    saying,
)

POST = head(method="POST")


async def holding(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes a request and never answers."""
    endpoint.requests.append(await read_head(reader))
    await reader.read()


async def echoing(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Sends back what it gets, chunk by chunk, as it gets it."""
    endpoint.requests.append(await read_head(reader))
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while size := int(await reader.readuntil(b"\r\n"), 16):
        writer.write(framed(await reader.readexactly(size), True))
        await reader.readexactly(2)
    writer.write(b"0\r\n\r\n")


async def test_a_request_is_forwarded_as_this(vip: str, pods: list[Address], tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with (
        Endpoint(pods[0]) as endpoint,
        running(vip, web(pods[0]), access_log=str(log)) as here,
        http2(here.https) as one,
    ):
        crumbs = ("cookie", "a=b"), ("user-agent", "probe/2"), ("cookie", "c=d"), ("te", "trailers")
        answer = await one.get("/a%2Fb?c=%20d", "Example.COM:80", *crumbs, ("x-request-id", "00c0ffee00c0ffee"))
        request = endpoint.requests[0]
        assert request.start == "GET /a%2Fb?c=%20d HTTP/1.1"
        assert request.fields == [
            ("host", "Example.COM:80"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", str(here.https[1])),
            ("x-forwarded-host", "Example.COM:80"),
            ("x-request-id", "00c0ffee00c0ffee"),
            ("user-agent", "probe/2"),
            ("te", "trailers"),
            ("cookie", "a=b; c=d"),
        ]
        assert (answer.status, answer.body, answer.get("content-length")) == (200, b"hello", "5")
        assert [name for name, _ in answer.fields] == [":status", "content-type", "date", "server", "content-length"]
        await eventually(lambda: log.exists() and log.read_text())
        line = json.loads(log.read_text())
        assert [line[name] for name in ("protocol", "method", "target", "status")] == [
            "HTTP/2.0",
            "GET",
            "/a%2Fb?c=%20d",
            200,
        ]


async def test_what_is_announced(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0])) as here, http2(here.https) as one:
        assert (await one.get()).status == 200
        assert one.settings[SettingCodes.MAX_CONCURRENT_STREAMS] == 128
        assert one.settings[SettingCodes.MAX_HEADER_LIST_SIZE] == 32768
        assert not one.settings.get(SettingCodes.ENABLE_CONNECT_PROTOCOL)


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "DELETE"])
async def test_methods(vip: str, pods: list[Address], method: str) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0])) as here, http2(here.https) as one:
        if method == "HEAD":
            endpoint.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"
        answer = await one.get(method=method)
        assert (answer.status, answer.body) == (200, b"" if method == "HEAD" else b"hello")
        assert answer.get("content-length") == ("7" if method == "HEAD" else "5")


@pytest.mark.parametrize(
    ("said", "status", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", 304, b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 200, b"hello"),
        (b"HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: a\r\nContent-Length: 0\r\n\r\n", 200, b""),
    ],
    ids=["204", "304", "chunked", "fields of one hop"],
)
async def test_answers(vip: str, pods: list[Address], said: bytes, status: int, body: bytes) -> None:
    async with Endpoint(pods[0], said), running(vip, web(pods[0])) as here, http2(here.https) as one:
        for _ in range(2):
            answer = await one.get()
            assert (answer.status, answer.body) == (status, body)
            assert not {"connection", "x-hop", "keep-alive", "transfer-encoding"} & {name for name, _ in answer.fields}


async def test_an_endpoint_that_breaks_off_resets_its_stream_only(vip: str, pods: list[Address]) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_head(reader)
        short = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
        writer.write(short if "broken" in request.start else saying(b"whole"))

    async with Endpoint(pods[0], serve=serve), running(vip, web(pods[0])) as here, http2(here.https) as one:
        broken, whole = one.request(head("/broken")), one.request(head())
        assert (await one.answer(broken)).reset == ErrorCodes.INTERNAL_ERROR
        assert (await one.answer(whole)).body == b"whole"
        assert (await one.get(host="none.org")).status == 404


# Bodies.


@pytest.mark.parametrize("announced", [True, False], ids=["Content-Length", "no length"])
@pytest.mark.parametrize("body", [b"", b"hello"], ids=["empty", "small"])
async def test_a_small_body_is_framed_anew(vip: str, pods: list[Address], body: bytes, announced: bool) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0])) as here, http2(here.https) as one:
        length = [("content-length", str(len(body)))] if announced else []
        answer = await one.answer(one.request([*POST, *length], body))
        assert answer.status == 200
        request = endpoint.requests[0]
        assert request.body == body
        assert request.get("content-length") == (str(len(body)) if body or announced else None)
        assert request.get("transfer-encoding") is None


@pytest.mark.parametrize("announced", [True, False], ids=["Content-Length", "no length"])
async def test_a_large_request_reaches_a_slow_endpoint_whole_and_holds_up_itself_only(
    vip: str, pods: list[Address], announced: bool
) -> None:
    go, digests = asyncio.Event(), []

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await read_head(reader)
            if request.start.startswith("POST"):
                await go.wait()
                digests.append(hashlib.sha256(await read_body(reader, request)).hexdigest())
            writer.write(endpoint.answer)

    async with Endpoint(pods[0], serve=serve), running(vip, web(pods[0])) as here, http2(here.https) as one:
        length = [("content-length", str(LARGE))] if announced else []
        number = one.open([*POST, *length])
        sending = asyncio.create_task(one.pour(number, PIECE * (LARGE // MIB)))
        await settled(lambda: one.h2.local_flow_control_window(number))
        assert one.h2.local_flow_control_window(number) == 0
        assert one.h2.outbound_flow_control_window > 0
        assert (await one.get()).body == b"hello"
        go.set()
        await sending
        assert (await one.answer(number)).body == b"hello"
        assert digests == [DIGEST]


async def test_a_large_answer_waits_for_a_client_that_does_not_take_it_and_holds_up_nobody_else(
    vip: str, pods: list[Address]
) -> None:
    sent = 0

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        while True:
            request = await read_head(reader)
            if "large" not in request.start:
                writer.write(endpoint.answer)
                continue
            writer.write(b"HTTP/1.1 200 OK\r\n" + framing(True))
            for _ in range(LARGE // MIB):
                writer.write(framed(PIECE, True))
                await writer.drain()
                sent += MIB
            writer.write(b"0\r\n\r\n")

    async with Endpoint(pods[0], serve=serve), running(vip, web(pods[0])) as here, http2(here.https) as one:
        one.h2.increment_flow_control_window(MIB)  # that of the connection
        one.taking = False
        number = one.request(head("/large"))
        await settled(lambda: sent)
        assert len(one.answers[number].body) == 65535
        assert sent < LARGE
        assert (await one.get()).body == b"hello"
        one.taking = True
        one.h2.increment_flow_control_window(16 * MIB, number)
        one.h2.increment_flow_control_window(16 * MIB)
        one.flush()
        assert hashlib.sha256((await one.answer(number)).body).hexdigest() == DIGEST


async def test_streams_go_both_ways_for_as_long_as_they_like(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0], serve=echoing), running(vip, web(pods[0])) as here, http2(here.https) as one:
        numbers = [one.open(POST) for _ in range(3)]
        for turn in range(5):
            for number in numbers:
                one.send(number, b"%d" % turn)
            for number in numbers:
                await one.until(lambda number=number, turn=turn: one.answers[number].body.endswith(b"%d" % turn))
        for number in numbers:
            one.send(number, b"", end=True)
            assert (await one.answer(number)).body == b"01234"


async def test_events_of_a_server_arrive_one_by_one(vip: str, pods: list[Address]) -> None:
    go = asyncio.Semaphore(0)

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(3):
            await go.acquire()
            writer.write(b"data: %d\n\n" % number)

    async with Endpoint(pods[0], serve=serve), running(vip, web(pods[0])) as here, http2(here.https) as one:
        number = one.request(head())
        await one.until(lambda: one.answers[number].status)
        for count in range(1, 4):
            go.release()
            await one.until(lambda count=count: one.answers[number].body.count(b"\n\n") == count)
        assert (await one.answer(number)).ended


async def test_as_many_requests_as_are_allowed_are_under_way_at_once(vip: str, pods: list[Address]) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.requests.append(await read_head(reader))
        await eventually(lambda: len(endpoint.requests) == session.STREAMS)
        writer.write(endpoint.answer)

    async with Endpoint(pods[0], serve=serve), running(vip, web(pods[0])) as here, http2(here.https) as one:
        await one.until(lambda: one.settings)
        numbers = [one.request(head(f"/{number}")) for number in range(session.STREAMS)]
        assert {(await one.answer(number)).status for number in numbers} == {200}


async def test_expect_continue(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0])) as here, http2(here.https) as one:
        number = one.open([*POST, ("expect", "100-continue"), ("content-length", "5")])
        await one.until(lambda: one.answers[number].interim == [100])
        one.send(number, b"hello", end=True)
        assert (await one.answer(number)).status == 200
        assert endpoint.requests[0].body == b"hello"


async def test_an_answer_before_the_end_of_its_request_asks_the_client_to_stop(vip: str, pods: list[Address]) -> None:
    async with running(vip, web(pods[0])) as here, http2(here.https) as one:
        number = one.open(head(host="none.org", method="POST"))
        answer = await one.answer(number)
        assert (answer.status, answer.ended) == (404, True)
        await one.until(lambda: answer.reset == ErrorCodes.NO_ERROR)
        assert (await one.get(host="none.org")).status == 404


# What is refused: one request, and nothing of it goes on.


def changed(name: str, value: str | None) -> list[Field]:
    """The usual head with one field changed, or without it."""
    return [(key, value if key == name else old) for key, old in head() if key != name or value is not None]


MALFORMED: dict[str, tuple[list[Field], int]] = {
    "no method": (changed(":method", None), 400),
    "no scheme": (changed(":scheme", None), 400),
    "no path": (changed(":path", None), 400),
    "no authority": (changed(":authority", None), 400),
    "an empty authority": (changed(":authority", ""), 400),
    "another scheme": (changed(":scheme", "ftp"), 400),
    "a method in small letters": (changed(":method", "get"), 400),
    "a method with a blank": (changed(":method", "GET /admin HTTP/1.1"), 400),
    "a method with a line": (changed(":method", "GET\r\nA: b"), 400),
    "an empty path": (changed(":path", ""), 400),
    "a path with a blank": (changed(":path", "/ HTTP/1.1"), 400),
    "a path with a line": (changed(":path", "/\r\nA: b"), 400),
    "a path with a byte of no ASCII": (changed(":path", "/\xff"), 400),
    "a path that is a URL": (changed(":path", "https://example.com/"), 400),
    "an asterisk for another method": (changed(":path", "*"), 400),
    "a path that is too long": (changed(":path", "/" + "a" * 9000), 414),
    "an authority with a line": (changed(":authority", "example.com\r\nA: b"), 400),
    "an authority with a path": (changed(":authority", "example.com/x"), 400),
    "an authority with a user": (changed(":authority", "me@example.com"), 400),
    "a pseudo-header field twice": ([*head()[:1], *head()], 400),
    "an unknown pseudo-header field": ([(":evil", "1"), *head()], 400),
    "a pseudo-header field of answers": ([(":status", "200"), *head()], 400),
    "a pseudo-header field behind others": ([("a", "b"), *head()], 400),
    "extended CONNECT": ([(":protocol", "websocket"), *changed(":method", "CONNECT")], 400),
    "CONNECT": ([(":method", "CONNECT"), (":authority", "example.com:80")], 405),
    "Host that contradicts": (head("/", "example.com", ("host", "other.org")), 400),
    "two Hosts": (head("/", "example.com", ("host", "example.com"), ("host", "example.com")), 400),
    "Connection": (head("/", "example.com", ("connection", "close")), 400),
    "Keep-Alive": (head("/", "example.com", ("keep-alive", "timeout=5")), 400),
    "Proxy-Connection": (head("/", "example.com", ("proxy-connection", "close")), 400),
    "Upgrade": (head("/", "example.com", ("upgrade", "websocket")), 400),
    "Transfer-Encoding": (head("/", "example.com", ("transfer-encoding", "chunked")), 400),
    "TE but for trailers": (head("/", "example.com", ("te", "gzip")), 400),
    "TE with more than trailers": (head("/", "example.com", ("te", "trailers, gzip")), 400),
    "a name in capitals": (head("/", "example.com", ("X-Up", "1")), 400),
    "an empty name": (head("/", "example.com", ("", "1")), 400),
    "a name with a blank": (head("/", "example.com", ("a b", "1")), 400),
    "a name with a colon": (head("/", "example.com", ("a: b\r\nc", "1")), 400),
    "a name with a line": (head("/", "example.com", ("a\r\nc", "1")), 400),
    "a value with a line": (head("/", "example.com", ("a", "b\r\nc: d")), 400),
    "a value with a line feed": (head("/", "example.com", ("a", "b\nc: d")), 400),
    "a value with NUL": (head("/", "example.com", ("a", "b\0")), 400),
    "a value with a control byte": (head("/", "example.com", ("a", "b\x01")), 400),
    "a value that begins with a blank": (head("/", "example.com", ("a", " b")), 400),
    "a value that ends with a tab": (head("/", "example.com", ("a", "b\t")), 400),
    "a length without a body": (head("/", "example.com", ("content-length", "5")), 400),
    "two lengths": (head("/", "example.com", ("content-length", "0"), ("content-length", "0")), 400),
    "a length beyond 64 bits": (head("/", "example.com", ("content-length", "9" * 20)), 400),
    "fields that are too long together": (head("/", "example.com", *[(f"a{n}", "b" * 1000) for n in range(40)]), 431),
    "too many fields": (head("/", "example.com", *[("a", "b")] * 200), 431),
    "an expectation that nobody knows": (head("/", "example.com", ("expect", "wonders")), 417),
}


async def test_what_is_malformed_is_refused_alone_and_goes_nowhere(
    vip: str, pods: list[Address], subtests: pytest.Subtests
) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0])) as here, http2(here.https) as one:
        for description, (fields, status) in MALFORMED.items():
            with subtests.test(msg=description):
                endpoint.requests.clear()
                refused = one.request(fields)
                assert (await one.answer(refused)).status == status
                assert (await one.get("/good")).status == 200
                assert [request.start for request in endpoint.requests] == ["GET /good HTTP/1.1"]


async def test_host_stands_in_for_a_missing_authority(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0])) as here, http2(here.https) as one:
        fields = [*changed(":authority", None), ("host", "example.com")]
        assert (await one.answer(one.request(fields))).status == 200
        assert endpoint.requests[0].get("host") == "example.com"


async def test_a_body_that_is_shorter_than_it_says_with_trailers_is_refused(vip: str, pods: list[Address]) -> None:
    """Which h2 does not notice; the rest would be taken from the next request on the endpoint's connection."""
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0])) as here, http2(here.https) as one:
        for pause in (False, True):
            number = one.open([*POST, ("content-length", "50")])
            if pause:
                await eventually(lambda: endpoint.connections)
            one.send(number, b"hello")
            one.h2.send_headers(number, [("t", "1")], end_stream=True)
            one.flush()
            assert (await one.answer(number)).status == 400
            await eventually(lambda: not endpoint.open)
        assert (await one.get()).status == 200
        assert [request.start for request in endpoint.requests] == ["GET / HTTP/1.1"]


@pytest.mark.parametrize(("said", "sent"), [("3", b"hello"), ("9", b"hello")], ids=["longer", "shorter"])
async def test_a_body_that_is_not_as_long_as_it_says_goes_nowhere(
    vip: str, pods: list[Address], said: str, sent: bytes
) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0])) as here:
        async with http2(here.https) as one:
            number = one.open([*POST, ("content-length", said)])
            frame = DataFrame(number, sent)
            frame.flags.add("END_STREAM")
            one.writer.write(frame.serialize())
            await one.at_end()
            assert one.goaway[0][0] == ErrorCodes.PROTOCOL_ERROR
        await eventually(lambda: not endpoint.open)
        assert endpoint.requests == []


# Coming and going.


async def test_a_stream_that_its_client_leaves_takes_the_endpoints_connection_along(
    vip: str, pods: list[Address]
) -> None:
    async with (
        Endpoint(pods[0], serve=holding) as endpoint,
        running(vip, web(pods[0]), recording=True) as here,
        http2(here.https) as one,
    ):
        left, stays = one.request(head("/left")), one.request(head("/stays"))
        await eventually(lambda: len(endpoint.requests) == 2)
        one.reset(left)
        await eventually(lambda: endpoint.open == 1)
        assert list((await here.ingress.records())["status"]) == [499]
        assert one.answers[stays].reset is None


async def test_a_connection_that_is_lost_takes_all_its_requests_along(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0], serve=holding) as endpoint, running(vip, web(pods[0]), recording=True) as here:
        async with http2(here.https) as one:
            one.open(POST)
            one.request(head())
            await eventually(lambda: len(endpoint.requests) == 2)
            one.writer.transport.abort()
        await eventually(lambda: not endpoint.open)
        assert list((await here.ingress.records())["status"]) == [499, 499]


async def test_stop_says_goaway_and_lets_requests_finish(vip: str, pods: list[Address]) -> None:
    go = asyncio.Event()

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.requests.append(await read_head(reader))
        await go.wait()
        writer.write(saying(b"late"))

    async with (
        Endpoint(pods[0], serve=serve) as endpoint,
        running(vip, web(pods[0])) as here,
        http2(here.https) as one,
        http2(here.https) as idle,
    ):
        assert (await idle.get(host="none.org")).status == 404
        number = one.request(head())
        await eventually(lambda: endpoint.requests)
        stop = asyncio.create_task(here.ingress.stop(5))
        await idle.at_end()
        assert [code for code, _ in idle.goaway] == [ErrorCodes.NO_ERROR]
        await one.until(lambda: one.goaway)
        assert one.goaway == [(ErrorCodes.NO_ERROR, 2**31 - 1)]
        go.set()
        assert (await one.answer(number)).body == b"late"
        await stop
        await one.at_end()


async def test_a_client_that_says_goaway_still_gets_its_answers(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0], serve=echoing), running(vip, web(pods[0])) as here, http2(here.https) as one:
        number = one.open(POST)
        one.send(number, b"hello")
        await one.until(lambda: one.answers[number].body)
        state = one.h2.state_machine.state
        one.h2.close_connection()
        one.flush()
        one.h2.state_machine.state = state
        one.send(number, b" and goodbye", end=True)
        assert (await one.answer(number)).body == b"hello and goodbye"
        await one.at_end()


async def test_an_idle_connection_is_closed_in_time(vip: str, pods: list[Address]) -> None:
    quick = Timeouts(keep_alive_s=0.5, head_s=1.0)
    async with Endpoint(pods[0]), running(vip, web(pods[0]), timeouts=quick) as here:
        async with http2(here.https) as silent:
            await silent.at_end()
        async with http2(here.https) as one:
            assert (await one.get()).status == 200
            await one.at_end()
            assert [code for code, _ in one.goaway] == [ErrorCodes.NO_ERROR]


async def test_a_body_that_does_not_come_is_408(vip: str, pods: list[Address]) -> None:
    async with (
        Endpoint(pods[0]),
        running(vip, web(pods[0]), timeouts=Timeouts(body_s=0.2)) as here,
        http2(here.https) as one,
    ):
        assert (await one.answer(one.open([*POST, ("content-length", "5")]))).status == 408


# What a client may cost.


async def flood(one: Http2Client, make: Callable[[int], bytes]) -> None:
    """Send frames until the ingress has had enough."""
    number = 0
    while not one.closed:
        one.writer.write(b"".join(make(number + row) for row in range(1000)))
        number += 1000
        assert number < 1_000_000, "it takes any number"
        with_deadline = asyncio.timeout(PATIENCE_S)
        try:
            async with with_deadline:
                await one.writer.drain()
        except ConnectionError:
            break
        await asyncio.sleep(0)


FLOODS: dict[str, Callable[[int], bytes]] = {
    "PING": lambda number: PingFrame(0, number.to_bytes(8)).serialize(),
    "SETTINGS": lambda number: SettingsFrame(0, settings={}).serialize(),
    "PRIORITY": lambda number: PriorityFrame(2 * number + 1, depends_on=0, stream_weight=1).serialize(),
    "empty DATA": lambda number: DataFrame(1, b"").serialize(),
    "WINDOW_UPDATE": lambda number: WindowUpdateFrame(0, window_increment=1).serialize(),
}


@pytest.mark.parametrize("make", FLOODS.values(), ids=FLOODS.keys())
async def test_noise_is_not_listened_to_for_ever(vip: str, pods: list[Address], make: Callable[[int], bytes]) -> None:
    async with (
        Endpoint(pods[0], serve=holding) as endpoint,
        running(vip, web(pods[0])) as here,
        http2(here.https) as one,
        client(here.http) as other,
    ):
        one.open(POST)
        await eventually(lambda: endpoint.requests)
        await flood(one, make)
        await one.at_end()
        if one.goaway:  # which a reset may overtake, where bytes were left unread
            assert one.goaway[0][0] == ErrorCodes.ENHANCE_YOUR_CALM
        await eventually(lambda: not endpoint.open)
        assert (await other.get(host="none.org")).status == 404


async def test_a_block_without_end_is_not_listened_to(vip: str, pods: list[Address]) -> None:
    async with running(vip, web(pods[0])) as here, http2(here.https) as one:
        await one.until(lambda: one.settings)
        one.writer.write(HeadersFrame(1, one.h2.encoder.encode(head())).serialize())
        await flood(one, lambda number: ContinuationFrame(1, b"").serialize())
        await one.at_end()


async def test_a_block_that_grows_beyond_bounds_is_not_unpacked(vip: str, pods: list[Address]) -> None:
    """One entry of the table, named by a byte each time."""
    async with running(vip, web(pods[0])) as here, http2(here.https) as one:
        await one.until(lambda: one.settings)
        block = one.h2.encoder.encode([*head(), ("bomb", "b" * 3000)]) + b"\xbe" * 1000
        frame = HeadersFrame(1, block)
        frame.flags |= {"END_HEADERS", "END_STREAM"}
        one.writer.write(frame.serialize())
        await one.at_end()
        assert one.goaway[0][0] == ErrorCodes.ENHANCE_YOUR_CALM


async def test_requests_that_are_taken_back_at_once_end_the_connection(vip: str, pods: list[Address]) -> None:
    """CVE-2023-44487; what few endpoints hear of it ends too."""
    async with Endpoint(pods[0], serve=holding) as endpoint, running(vip, web(pods[0])) as here:
        async with http2(here.https) as one:
            await one.until(lambda: one.settings)
            for _ in range(session.RESETS + 1):
                one.reset(one.request(head()))
            await one.at_end()
            assert one.goaway[0][0] == ErrorCodes.ENHANCE_YOUR_CALM
        await eventually(lambda: not endpoint.open)


async def test_so_do_those_that_their_client_has_us_break_off(vip: str, pods: list[Address]) -> None:
    """CVE-2025-8671: a window beyond what there may be makes an error of the stream."""
    async with Endpoint(pods[0], serve=holding) as endpoint, running(vip, web(pods[0])) as here:
        async with http2(here.https) as one:
            await one.until(lambda: one.settings)
            for _ in range(session.RESETS + 1):
                number = one.request(head())
                one.writer.write(WindowUpdateFrame(number, window_increment=2**31 - 1).serialize())
                await one.until(lambda number=number: one.answers[number].reset is not None or one.closed)
            await one.at_end()
            assert one.goaway[0][0] == ErrorCodes.ENHANCE_YOUR_CALM
        await eventually(lambda: not endpoint.open)


async def test_a_client_that_takes_back_some_requests_among_others_is_served(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0])) as here, http2(here.https) as one:
        await one.until(lambda: one.settings)
        for _ in range(2 * session.RESETS):
            one.reset(one.request(head()))
            assert (await one.get()).status == 200


async def test_a_client_cannot_make_the_table_of_the_encoder_large(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0])) as here, http2(here.https) as one:
        one.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: 2**31})
        assert (await one.get()).status == 200
        (found,) = here.ingress._front.sessions
        assert found.h2.encoder.header_table_size == session.TABLE


DATA, HEADERS, SETTINGS, WINDOW_UPDATE = 0, 1, 4, 8  # types of frames


@pytest.mark.parametrize(
    ("kind", "number", "body"),
    [
        pytest.param(DATA, 0, b"x", id="DATA of no stream"),
        pytest.param(DATA, 1, b"x", id="DATA of a stream that was not opened"),
        pytest.param(HEADERS, 2, b"\x82", id="an even stream"),
        pytest.param(HEADERS, 1, b"\xff\xff\xff\xff\xff", id="a broken block"),
        pytest.param(WINDOW_UPDATE, 0, b"\x7f\xff\xff\xff", id="too large a window"),
        pytest.param(SETTINGS, 0, b"\0\4\xff\xff\xff\xff", id="a setting that cannot be"),
        pytest.param(SETTINGS, 0, b"\0\4\0", id="half a setting"),
        pytest.param(DATA, 1, b"x" * 16385, id="a frame that is too long"),
    ],
)
async def test_what_is_no_http_2_ends_the_connection_with_a_code(
    vip: str, pods: list[Address], kind: int, number: int, body: bytes
) -> None:
    async with running(vip, web(pods[0])) as here, http2(here.https) as one:
        await one.until(lambda: one.settings)
        whole = 4 if kind == HEADERS else 0
        one.writer.write(len(body).to_bytes(3) + bytes([kind, whole]) + number.to_bytes(4) + body)
        await one.at_end()
        assert one.goaway[0][0] not in (ErrorCodes.NO_ERROR, ErrorCodes.ENHANCE_YOUR_CALM)


async def test_who_agreed_on_http_2_and_speaks_another_is_left(vip: str, pods: list[Address]) -> None:
    async with running(vip, web(pods[0])) as here, client(here.https, careless(), "example.com") as one:
        one.send(b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            data = await one.reader.read()
        assert not data.startswith(b"HTTP/")


# Other people's clients.


async def output_of(program: str, *arguments: str) -> str:
    """What a program says; the test is skipped where there is none of that name."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    process = await asyncio.create_subprocess_exec(program, *arguments, stdout=subprocess.PIPE)
    async with asyncio.timeout(PATIENCE_S):
        said, _ = await process.communicate()
    return said.decode()


async def test_curl(vip: str, pods: list[Address], tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(PIECE)
    async with Endpoint(pods[0], saying(PIECE)) as endpoint, running(vip, web(pods[0])) as here:
        url = f"https://example.com:{here.https[1]}/"
        resolved = f"example.com:{here.https[1]}:{vip}"
        told = "%{http_version} %{http_code} %{size_download}"
        options = ("-sk", "--http2", "--resolve", resolved, "-w", told, "-o", "/dev/null", "--data-binary", f"@{body}")
        assert await output_of("curl", *options, url) == f"2 200 {MIB}"
        assert endpoint.requests[0].body == PIECE


async def test_h2load(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0])) as here:
        options = ("-n", "2000", "-c", "4", "-m", "50", "-H", ":authority: example.com")
        said = await output_of("h2load", *options, f"https://{vip}:{here.https[1]}/")
        assert "2000 succeeded, 0 failed, 0 errored" in said


async def test_requests_taken_back_at_once_are_counted(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0])) as here, http2(here.https) as one:
        for _ in range(20):
            number = one.h2.get_next_available_stream_id()
            one.h2.send_headers(number, head(), end_stream=True)
            one.h2.reset_stream(number)
        one.flush()
        assert (await one.get()).status == 200
        counted = {status: sum(row[:-1]) for (_, _, _, status), row in here.ingress._metrics._durations.items()}
        assert counted == {499: 20, 200: 1}


async def test_a_stream_whose_client_takes_nothing_ends(vip: str, pods: list[Address]) -> None:
    body = saying(b"x" * 400_000)
    async with (
        Endpoint(pods[0], body) as pod,
        running(vip, web(pods[0]), timeouts=Timeouts(send_s=0.3)) as here,
        http2(here.https) as one,
    ):
        one.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        one.flush()
        for _ in range(10):
            one.request(head())
        await eventually(lambda: len(pod.requests) == 10)
        await eventually(lambda: pod.open == 0)
