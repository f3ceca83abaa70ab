"""Header rules, in both directions, and requests that two parsers could take differently."""

import asyncio
import re

import pytest

from plane.ingress import forwarding
from tests.ingress.manifests import web
from tests.ingress.wire import Address, Endpoint, Message, ask, client, read_head, running

HOST = "Host: example.com\r\n"


async def forwarded(vip: str, pod: Address, raw: str, body: bytes = b"") -> tuple[Message, Message]:
    """(the request as an endpoint got it, the answer as the client did)."""
    async with Endpoint(pod) as endpoint, running(vip, web(pod)) as here:
        answer = await ask(here.http, raw.encode() + body)
        return endpoint.requests[0], answer


async def test_a_request_is_forwarded_as_this(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0])) as here:
        await ask(
            here.http,
            b"GET /a%2Fb?c=%20d HTTP/1.1\r\nHost: Example.COM:80\r\nuser-agent: probe/1\r\n"
            b"X-REQUEST-ID: 00c0ffee00c0ffee\r\nAccept: */*\r\nX-Real-IP: 6.6.6.6\r\nX-Forwarded-For: 6.6.6.6\r\n"
            b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.com\r\nX-Forwarded-Port: 1\r\n"
            b"X_Forwarded_For: 6.6.6.6\r\nCookie: a=b\r\n\r\n",
        )
        request = endpoint.requests[0]
        assert request.start == "GET /a%2Fb?c=%20d HTTP/1.1"
        assert request.fields == [
            ("host", "Example.COM:80"),
            ("x-forwarded-for", "127.0.0.1"),
            ("x-real-ip", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-port", str(here.http[1])),
            ("x-forwarded-host", "Example.COM:80"),
            ("x-request-id", "00c0ffee00c0ffee"),
            ("user-agent", "probe/1"),
            ("accept", "*/*"),
            ("cookie", "a=b"),
        ]


async def test_a_request_id_is_made_where_there_is_none(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0])) as here, client(here.http) as one:
        for _ in range(3):
            await one.get()
        made = [request.get("x-request-id") or "" for request in endpoint.requests]
        assert all(re.fullmatch("[0-9a-f]{16}", text) for text in made)
        assert len(set(made)) == 3


@pytest.mark.parametrize(
    ("fields", "gone"),
    [
        pytest.param(
            "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n", ["connection", "keep-alive"], id="keep-alive"
        ),
        pytest.param("Connection: close, X-Hop\r\nX-Hop: 1\r\n", ["connection", "x-hop"], id="named by Connection"),
        pytest.param("X-Hop: 1\r\nConnection: x-hop\r\n", ["connection", "x-hop"], id="named by Connection later"),
        pytest.param("Proxy-Connection: keep-alive\r\n", ["proxy-connection"], id="Proxy-Connection"),
        pytest.param("TE: gzip\r\n", ["te"], id="TE"),
        pytest.param("Upgrade: h2c\r\nConnection: Upgrade\r\n", ["upgrade", "connection"], id="Upgrade"),
        pytest.param("Expect: 100-continue\r\n", ["expect"], id="Expect"),
    ],
)
async def test_fields_of_one_hop_are_dropped(vip: str, pods: list[Address], fields: str, gone: list[str]) -> None:
    request, answer = await forwarded(vip, pods[0], f"GET / HTTP/1.1\r\n{HOST}{fields}X-Stays: 1\r\n\r\n")
    assert answer.status == 200
    assert request.get("x-stays") == "1"
    assert [request.get(name) for name in gone] == [None] * len(gone)


async def test_connection_cannot_drop_what_we_say(vip: str, pods: list[Address]) -> None:
    request, _ = await forwarded(
        vip, pods[0], f"GET / HTTP/1.1\r\n{HOST}Connection: Host, X-Forwarded-For, X-Request-ID\r\n\r\n"
    )
    assert request.get("host") == "example.com"
    assert request.get("x-forwarded-for") == "127.0.0.1"
    assert request.get("x-request-id")


async def test_te_trailers_goes_on(vip: str, pods: list[Address]) -> None:
    request, _ = await forwarded(vip, pods[0], f"GET / HTTP/1.1\r\n{HOST}TE: gzip, Trailers\r\nConnection: TE\r\n\r\n")
    assert request.get("te") == "trailers"


@pytest.mark.parametrize(
    ("head", "body", "framing"),
    [
        pytest.param("Content-Length: 5\r\n", b"hello", "content-length: 5", id="Content-Length"),
        pytest.param("Content-Length: 0\r\n", b"", "content-length: 0", id="empty"),
        pytest.param(
            "Transfer-Encoding: chunked\r\n",
            b"2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nT: 1\r\n\r\n",
            "content-length: 5",
            id="chunked",
        ),
    ],
)
async def test_a_small_body_is_framed_anew(vip: str, pods: list[Address], head: str, body: bytes, framing: str) -> None:
    request, answer = await forwarded(vip, pods[0], f"POST / HTTP/1.1\r\n{HOST}{head}\r\n", body)
    name, _, value = framing.partition(": ")
    assert request.get(name) == value
    assert request.get("transfer-encoding") is None
    assert request.body == (b"hello" if body else b"")
    assert answer.status == 200


def answer_of(fields: str, body: bytes = b"hello", start: str = "HTTP/1.1 200 Fine") -> bytes:
    return f"{start}\r\n{fields}\r\n".encode() + body


async def test_an_answer_is_forwarded_as_this(vip: str, pods: list[Address]) -> None:
    said = answer_of(
        "content-type: text/plain\r\nSERVER: nginx\r\nDate: Mon, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 5\r\n"
        "Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n"
    )
    async with Endpoint(pods[0], said), running(vip, web(pods[0])) as here:
        answer = await ask(here.http, f"GET / HTTP/1.1\r\n{HOST}\r\n".encode())
        assert answer.start == "HTTP/1.1 200 Fine"
        assert answer.fields == [
            ("content-type", "text/plain"),
            ("server", "nginx"),
            ("date", "Mon, 01 Jan 2026 00:00:00 GMT"),
            ("set-cookie", "a=b"),
            ("set-cookie", "c=d"),
            ("content-length", "5"),
        ]
        assert answer.body == b"hello"


async def test_date_and_server_are_added_where_they_miss(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0], answer_of("Content-Length: 5\r\n")), running(vip, web(pods[0])) as here:
        answer = await ask(here.http, f"GET / HTTP/1.1\r\n{HOST}\r\n".encode())
        assert answer.get("server") == "trafficplane"
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", answer.get("date") or "")


ANSWERS = {
    "Content-Length": (answer_of("Content-Length: 5\r\n"), "GET", b"hello", "content-length: 5"),
    "chunked": (
        answer_of("Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\nT: 1\r\n\r\n"),
        "GET",
        b"hello",
        "content-length: 5",
    ),
    "empty": (answer_of("Content-Length: 0\r\n", b""), "GET", b"", "content-length: 0"),
    "HEAD": (answer_of("Content-Length: 5\r\n", b""), "HEAD", b"", "content-length: 5"),
    "HEAD, chunked": (answer_of("Transfer-Encoding: chunked\r\n", b""), "HEAD", b"", ""),
    "204": (answer_of("", b"", "HTTP/1.1 204 No Content"), "GET", b"", ""),
    "304": (answer_of("Content-Length: 5\r\n", b"", "HTTP/1.1 304 Not Modified"), "GET", b"", "content-length: 5"),
    "after interim answers": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        + answer_of("Content-Length: 5\r\n"),
        "GET",
        b"hello",
        "content-length: 5",
    ),
}


@pytest.mark.parametrize(("said", "method", "body", "framing"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_answers_end_where_they_should_and_connections_go_on(
    vip: str, pods: list[Address], said: bytes, method: str, body: bytes, framing: str
) -> None:
    async with Endpoint(pods[0], said) as endpoint, running(vip, web(pods[0])) as here, client(here.http) as one:
        for _ in range(3):
            answer = await one.get(method=method)
            assert answer.body == body
            found = [f"{name}: {value}" for name, value in answer.fields if name in FRAMING]
            assert found == ([framing] if framing else [])
        assert endpoint.connections == 1


async def test_of_an_interim_answer_nothing_holds_for_the_one_behind_it(vip: str, pods: list[Address]) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nDate: yesterday\r\nServer: other\r\n\r\n"
    said = interim + answer_of("Content-Length: 5\r\n", b"hello", "HTTP/1.1 404 ")
    async with Endpoint(pods[0], said), running(vip, web(pods[0])) as here, client(here.http) as one:
        answer = await one.get()
        assert answer.start == "HTTP/1.1 404 "
        assert answer.get("date") not in (None, "yesterday")
        assert answer.get("server") not in (None, "other")


FRAMING = ("content-length", "transfer-encoding", "connection", "link")


async def test_an_answer_that_ends_with_its_connection_is_chunked_for_1_1_and_closes_1_0(
    vip: str, pods: list[Address]
) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(answer_of("", b"hello"))

    async with Endpoint(pods[0], serve=serve), running(vip, web(pods[0])) as here:
        async with client(here.http) as one:
            answer = await one.get()
            assert answer.body == b"hello"
            assert (await one.get()).body == b"hello"
        async with client(here.http) as one:
            one.send(f"GET / HTTP/1.0\r\n{HOST}Connection: keep-alive\r\n\r\n".encode())
            answer = await one.answer()
            assert answer.body == b"hello"
            assert (answer.get("transfer-encoding"), answer.get("connection")) == (None, "close")


async def test_http_1_0_keeps_its_connection_if_it_asks_to(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0])) as here, client(here.http) as one:
        for _ in range(2):
            one.send(f"GET / HTTP/1.0\r\n{HOST}Connection: keep-alive\r\n\r\n".encode())
            assert (await one.answer()).get("connection") == "keep-alive"
        one.send(f"GET / HTTP/1.0\r\n{HOST}\r\n".encode())
        assert (await one.answer()).get("connection") == "close"
        assert await one.at_end()


async def test_pipelined_requests_are_answered_in_order(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0])) as here, client(here.http) as one:
        one.send(b"".join(f"GET /{number} HTTP/1.1\r\n{HOST}\r\n".encode() for number in range(5)))
        assert [(await one.answer()).body for _ in range(5)] == [b"hello"] * 5
        assert [request.start for request in endpoint.requests] == [f"GET /{number} HTTP/1.1" for number in range(5)]


POST = f"POST / HTTP/1.1\r\n{HOST}"
LINE = "A: b\r\n"
MALFORMED = {
    "Content-Length and Transfer-Encoding": (
        f"{POST}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "Transfer-Encoding and Content-Length": (
        f"{POST}Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        400,
    ),
    "Transfer-Encoding on HTTP/1.0": (f"POST / HTTP/1.0\r\n{HOST}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "no Host": ("GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (f"GET / HTTP/1.1\r\n{HOST}Host: b\r\n\r\n", 400),
    "a bad Content-Length": (f"{POST}Content-Length: +3\r\n\r\nabc", 400),
    "an empty Content-Length": (f"{POST}Content-Length: \r\n\r\n", 400),
    "two Content-Lengths": (f"{POST}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "another transfer coding": (f"{POST}Transfer-Encoding: gzip\r\n\r\n", 501),
    "chunked over another": (f"{POST}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "another coding over chunked": (f"{POST}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 501),
    "a bare line feed": ("GET / HTTP/1.1\nHost: example.com\n\n", 400),
    "a bare carriage return": (f"GET / HTTP/1.1\r\n{HOST}A: b\rC: d\r\n\r\n", 400),
    "NUL in a value": (f"GET / HTTP/1.1\r\n{HOST}A: b\0\r\n\r\n", 400),
    "a line without colon": (f"GET / HTTP/1.1\r\n{HOST}nonsense\r\n\r\n", 400),
    "a space before the colon": (f"{POST}Content-Length : 3\r\n\r\nabc", 400),
    "a folded line": (f"GET / HTTP/1.1\r\n{HOST}A: b\r\n c\r\n\r\n", 400),
    "another version": (f"GET / HTTP/3.1\r\n{HOST}\r\n", 400),
    "no HTTP": ("SSH-2.0-x\r\n\r\n", 400),
    "a chunk size with a sign": (f"{POST}Transfer-Encoding: chunked\r\n\r\n+1\r\na\r\n0\r\n\r\n", 400),
    "a chunk size in C's way": (f"{POST}Transfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n", 400),
    "a chunk size with an underscore": (f"{POST}Transfer-Encoding: chunked\r\n\r\n1_0\r\na\r\n0\r\n\r\n", 400),
    "a chunk that is longer than it says": (f"{POST}Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n", 400),
    "an expectation that nobody knows": (f"{POST}Content-Length: 3\r\nExpect: wonders\r\n\r\nabc", 417),
    "a chunk extension with a line feed": (f"{POST}Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\na\r\n0\r\n\r\n", 400),
    "a chunk size with a space": (f"{POST}Transfer-Encoding: chunked\r\n\r\n1 \r\na\r\n0\r\n\r\n", 400),
    "a chunk size beyond 64 bits": (f"{POST}Transfer-Encoding: chunked\r\n\r\n{'f' * 17}\r\na\r\n0\r\n\r\n", 400),
    "framing in a trailer": (
        f"{POST}Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nContent-Length: 5\r\n\r\n",
        400,
    ),
    "a bare line feed in a trailer": (f"{POST}Transfer-Encoding: chunked\r\n\r\n0\r\nA: b\n\r\n", 400),
    "chunked twice": (f"{POST}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 501),
    "chunked in two fields": (
        f"{POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        501,
    ),
    "identity with a length": (f"{POST}Transfer-Encoding: identity\r\nContent-Length: 0\r\n\r\n", 400),
    "a list of lengths": (f"{POST}Content-Length: 3, 3\r\n\r\nabc", 400),
    "a length beyond 64 bits": (f"{POST}Content-Length: {'9' * 20}\r\n\r\n", 400),
    "a control byte in a value": (f"GET / HTTP/1.1\r\n{HOST}A: b\x01\r\n\r\n", 400),
    "a control byte in the target": (f"GET /\x01 HTTP/1.1\r\n{HOST}\r\n", 400),
    "a byte of no ASCII in the target": (f"GET /\xff HTTP/1.1\r\n{HOST}\r\n", 400),
    "a field without a name": (f"GET / HTTP/1.1\r\n{HOST}: b\r\n\r\n", 400),
    "a tab in the request line": (f"GET\t/\tHTTP/1.1\r\n{HOST}\r\n", 400),
    "a space after the version": (f"GET / HTTP/1.1 \r\n{HOST}\r\n", 400),
    "a method that is none": (f"G@T / HTTP/1.1\r\n{HOST}\r\n", 400),
    "HTTP/2 in the words of HTTP/1": (f"GET / HTTP/2.0\r\n{HOST}\r\n", 505),
    "HTTP/0.9": ("GET /\r\n\r\n", 505),
    "a preface of HTTP/2": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS on the port of HTTP": ("\x16\x03\x01\x02\x00\x01\x00\x01", 400),
    "a target that is too long": (f"GET /{'a' * 9000} HTTP/1.1\r\n{HOST}\r\n", 414),
    "a target that never ends": (f"GET /{'a' * 100_000}", 414),
    "a field that is too long": (f"GET / HTTP/1.1\r\n{HOST}A: {'b' * 40_000}\r\n\r\n", 431),
    "fields that are too long together": (
        f"GET / HTTP/1.1\r\n{HOST}{40 * LINE.replace('b', 1000 * 'b')}\r\n",
        431,
    ),
    "too many fields": (f"GET / HTTP/1.1\r\n{HOST}{200 * LINE}\r\n", 431),
    "a Host with a space": ("GET / HTTP/1.1\r\nHost: exa mple.com\r\n\r\n", 400),
    "a Host with a path": ("GET / HTTP/1.1\r\nHost: example.com/x\r\n\r\n", 400),
    "a Host with a user": ("GET / HTTP/1.1\r\nHost: me@example.com\r\n\r\n", 400),
    "a Host that is empty": ("GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
    "an absolute form that Host contradicts": (f"GET http://other.com/ HTTP/1.1\r\n{HOST}\r\n", 400),
    "an absolute form of another scheme": (f"GET ftp://example.com/ HTTP/1.1\r\n{HOST}\r\n", 400),
    "an absolute form without a host": (f"GET http:///x HTTP/1.1\r\n{HOST}\r\n", 400),
    "an absolute form with a broken host": (f"GET http://[::1/x HTTP/1.1\r\n{HOST}\r\n", 400),
    "CONNECT": (f"CONNECT example.com:80 HTTP/1.1\r\n{HOST}\r\n", 405),
}


@pytest.mark.parametrize(("raw", "status"), MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_not_plainly_one_request_is_refused_and_goes_nowhere(
    vip: str, pods: list[Address], raw: str, status: int
) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0])) as here, client(here.http) as one:
        one.send(raw.encode("latin-1"))
        answer = await one.answer()
        assert answer.status == status
        assert answer.get("server") == "trafficplane"
        if status in (400, 414, 431, 501, 505):
            assert answer.get("connection") == "close"
            assert await one.at_end()
        assert endpoint.requests == []


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(f"GET / HTTP/1.1\r\n{HOST}Content-Length: 5\r\n\r\nhello", id="GET with a body"),
        pytest.param(f"GET / HTTP/1.1\r\n{HOST}Transfer_Encoding: chunked\r\n\r\n", id="Transfer_Encoding"),
        pytest.param(f"POST / HTTP/1.1\r\n{HOST}Content_Length: 5\r\nContent-Length: 0\r\n\r\n", id="Content_Length"),
    ],
)
async def test_after_a_doubtful_request_both_connections_close(vip: str, pods: list[Address], raw: str) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0])) as here, client(here.http) as one:
        one.send(raw.encode())
        answer = await one.answer()
        assert (answer.status, answer.get("connection")) == (200, "close")
        assert await one.at_end()
        assert endpoint.requests[0].get("connection") == "close"
        await ask(here.http, f"GET / HTTP/1.1\r\n{HOST}\r\n".encode())
        assert endpoint.connections == 2


async def test_an_endpoint_that_says_more_than_it_should_is_not_asked_again(vip: str, pods: list[Address]) -> None:
    """The second answer would be given to whoever asks next."""
    async with (
        Endpoint(pods[0], answer_of("Content-Length: 5\r\n") * 2) as endpoint,
        running(vip, web(pods[0])) as here,
        client(here.http) as one,
    ):
        for _ in range(3):
            assert (await one.get()).body == b"hello"
        assert endpoint.connections == 3


@pytest.mark.parametrize(
    ("request_id", "number"),
    [
        (b"00c0ffee00c0ffee", 0x00C0FFEE00C0FFEE),
        (b"FFFFFFFFFFFFFFFF", 2**64 - 1),
        (b"c0ffee", 0),
        (b"00c0ffee00c0ffeg", 0),
        (b"0x00c0ffee00c0ff", 0),
        (b"+0c0ffee00c0ffee", 0),
        (b"00c0_ffee_00c0_f", 0),
        (b"", 0),
    ],
)
def test_a_request_id_is_a_number_if_it_is_16_hex_digits(request_id: bytes, number: int) -> None:
    assert forwarding.request_number(request_id) == number
