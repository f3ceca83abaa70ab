"""What an endpoint says, however odd, reaches the client framed as strict llhttp frames it, or not at all.

The cases are those of llhttp's response tests, said anew, and some of ours. On the client's connection a request
follows whose answer must be its own: nothing that an endpoint says before it is asked becomes an answer. Behind an
answer that comes whole that request is sent at once; where it comes byte by byte, only once all has been said, for what
comes later, on a connection that is in use again, nobody could tell from an answer.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from tests.ingress.smuggling import LAST
from tests.ingress.test_smuggling import catching_all, everything, pieces
from tests.ingress.wire import Address, Endpoint, read_head, running, saying

GET = b"GET /first HTTP/1.1\r\nHost: a.example\r\n\r\n"
HEAD = GET.replace(b"GET", b"HEAD", 1)
UPGRADING = GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
BODILESS = (204, 304)
Answer = tuple[int, bytes]


class Row(NamedTuple):
    """What an endpoint says to ``request``; the answer, None where it breaks off; ``ends``: so does the endpoint."""

    description: str
    said: bytes
    answer: Answer | None
    ends: bool = False
    request: bytes = GET


def said(*fields: str, start: str = "HTTP/1.1 200 OK", body: str = "") -> bytes:
    return "\r\n".join((start, *fields, "", body)).encode("latin-1")


def sized(body: str, *fields: str, start: str = "HTTP/1.1 200 OK") -> bytes:
    return said(f"Content-Length: {len(body)}", *fields, start=start, body=body)


def chunked(body: str, *fields: str) -> bytes:
    return said("Transfer-Encoding: chunked", *fields, body=body)


def refused(description: str, said: bytes, request: bytes = GET) -> Row:
    return Row(description, said, (502, b""), request=request)


def whole(description: str, said: bytes, body: bytes = b"", status: int = 200, request: bytes = GET) -> Row:
    return Row(description, said, (status, body), request=request)


def to_end(description: str, said: bytes, body: bytes = b"", status: int = 200) -> Row:
    return Row(description, said, (status, body), ends=True)


def broken(description: str, said: bytes) -> Row:
    return Row(description, said, None, ends=True)


OTHER = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother"
ROWS = [
    # The status line
    whole("a plain answer", sized("hello", "A: b", "B:\t c"), b"hello"),
    whole("another status", sized("no", start="HTTP/1.1 404 Not Found"), b"no", 404),
    whole("no reason", sized("hello", start="HTTP/1.1 301"), b"hello", 301),
    whole("an empty reason", sized("hello", start="HTTP/1.1 200 "), b"hello"),
    whole("two spaces before the reason", sized("hello", start="HTTP/1.1 200  OK"), b"hello"),
    whole("a reason beyond ASCII", sized("", start="HTTP/1.1 500 Ori\xeb"), b"", 500),
    whole("an empty line before it", b"\r\n" + sized("hello"), b"hello"),
    to_end("no field and no body", said(start="HTTP/1.1 404 Not Found"), b"", 404),
    to_end("HTTP/0.9", said(start="HTTP/0.9 200 OK")),
    to_end("RTSP, which llhttp takes", said(start="RTSP/1.1 200 OK")),
    to_end("and ICE", said(start="ICE/1.1 200 OK")),
    refused("half a name", sized("", start="HTP/1.1 200 OK")),
    refused("more than a name", sized("", start="HTTPER/1.1 200 OK")),
    refused("a zero before the version", sized("", start="HTTP/01.1 200 OK")),
    refused("two digits before the dot", sized("", start="HTTP/11.1 200 OK")),
    refused("two after it", sized("", start="HTTP/1.01 200 OK")),
    refused("HTTP/5.6", sized("", start="HTTP/5.6 200 OK")),
    refused("a tab after the version", sized("", start="HTTP/1.1\t200 OK")),
    refused("and a carriage return before it", sized("", start="\rHTTP/1.1\t200 OK")),
    refused("two spaces after the version", sized("", start="HTTP/1.1  200 OK")),
    refused("a status of one digit", sized("", start="HTTP/1.1 2 OK")),
    refused("a status of letters", sized("", start="HTTP/1.1 2x0 OK")),
    refused("a carriage return for its end", sized("", start="HTTP/1.1 200 OK\rA: b")),
    refused("two of them", said("Content-Length: 4", start="HTTP/1.1 200 OK\r\rA: b", body="Evil")),
    refused("only line feeds", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    refused("and a body", b"HTTP/1.1 200 OK\nFoo: abc\nBar: def\n\nBODY\n"),
    refused("and Connection: close", b"HTTP/1.1 200 OK\nConnection: close\n\nhello"),
    # Fields
    whole("an underscore in a name", sized("", "DCLK_imp: v7;x")),
    whole("a dot before a name", sized("hello", ".et-Cookie: a", "_eep-Alive: b"), b"hello"),
    whole(
        "a field without a value", sized("", "Pragma: ", "Location: http://a/", start="HTTP/1.1 301 Moved"), b"", 301
    ),
    refused("a space in a name", sized("hello", "en-US Content-Type: text/xml")),
    refused("a space before the first field", b"HTTP/1.1 200 OK\r\n Host: a\r\nContent-Length: 0\r\n\r\n"),
    refused("a carriage return in a value", said("Foo: 1\rBar: 2", "Content-Length: 0")),
    refused("a line feed in a value", said("Foo: 1\nBar: 2", "Content-Length: 0")),
    refused("NUL in a value", said("Foo: 1\0", "Content-Length: 0")),
    refused("a fold after chunked", chunked("5\r\nWorld\r\n0\r\n\r\n", "  abc")),
    # Content-Length
    to_end("a body until the end", said("Connection: close", body="<xml>\n</xml>"), b"<xml>\n</xml>"),
    to_end("and no word of it", said("Content-Type: text/plain", body="hello world"), b"hello world"),
    to_end("what looks like another answer", said(body=OTHER), OTHER.encode()),
    to_end("in HTTP/1.0", said("Connection: keep-alive", start="HTTP/1.0 200 OK", body=OTHER), OTHER.encode()),
    whole("tabs around a length", said("Content-Length:\t5\t", body="hello"), b"hello"),
    whole("spaces around a length", said("Content-Length:  5  ", body="hello"), b"hello"),
    whole("zeroes before it, which are decimal", said("Content-Length: 010", body="0123456789"), b"0123456789"),
    whole("a name that begins alike", chunked("2\r\nOK\r\n0\r\n\r\n", "Content-Length-X: 0"), b"OK"),
    whole("a name that goes", sized("hello world", "Proxy-Connection: close"), b"hello world"),
    refused("two lengths", said("Content-Length: 1", "Content-Length: 2", body="ab")),
    refused("two that are equal", said("Content-Length: 2", "Content-Length: 2", body="ab")),
    refused("a list", said("Content-Length: 2, 2", body="ab")),
    refused("a sign", said("Content-Length: +2", body="ab")),
    refused("less than nothing", said("Content-Length: -2", body="ab")),
    refused("hexadecimal", said("Content-Length: 0x2", body="ab")),
    refused("an empty length", said("Content-Length: ", body="ab")),
    refused("beyond 64 bits", said("Content-Length: 18446744073709551618", body="ab")),
    broken("less than the length", said("Content-Length: 10", body="hello")),
    # Transfer-Encoding
    whole("chunks", chunked("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), b"hello world"),
    whole("a chunk of a line feed", chunked("1\r\n\n\r\n0\r\n\r\n"), b"\n"),
    whole("no chunk", chunked("0\r\n\r\n", "Connection: close")),
    whole("chunk extensions, which go", chunked("5;a;b=c\r\nhello\r\n0;d\r\n\r\n"), b"hello"),
    whole("in quotes", chunked('5;a="I b; c";d="e";f\r\nhello\r\n0\r\n\r\n'), b"hello"),
    whole("trailers, which go", chunked("5\r\nhello\r\n0\r\nA: b\r\n\r\n"), b"hello"),
    broken("a space after a size", chunked("5  \r\nhello\r\n0\r\n\r\n")),
    broken("no semicolon before an extension", chunked("2 abc\r\naa\r\n0\r\n\r\n")),
    broken("nothing after the semicolon", chunked("2;\r\naa\r\n0\r\n\r\n")),
    broken("quotes that do not end", chunked('5;a="b; c\r\nhello\r\n0\r\n\r\n')),
    broken("a line feed after a size", chunked("5\nhello\r\n0\r\n\r\n")),
    broken("more than a size", chunked("5\r\nhello!\r\n0\r\n\r\n")),
    broken("a size beyond 64 bits", chunked("ffffffffffffffff1\r\nhello\r\n0\r\n\r\n")),
    broken("no last chunk", chunked("5\r\nhello\r\n")),
    refused("another coding after it", said("Transfer-Encoding: chunked, deflate", body="World")),
    refused("another in a field after it", chunked("World", "Transfer-Encoding: identity")),
    refused("another before it", said("Transfer-Encoding: deflate, chunked", body="0\r\n\r\n")),
    refused("another alone", said("Transfer-Encoding: gzip", body="World")),
    refused("itself twice in a word", said("Transfer-Encoding: chunkedchunked", body="2\r\nOK\r\n0\r\n\r\n")),
    refused("a length too", chunked("0\r\n\r\n", "Content-Length: 5")),
    refused("in other order", said("Content-Length: 5", "Transfer-Encoding: chunked", body="0\r\n\r\n")),
    # What has no body, and what comes unasked
    whole("204", said(start="HTTP/1.1 204 No Content"), b"", 204),
    whole("204 and another answer", said(start="HTTP/1.1 204 No Content", body=OTHER), b"", 204),
    whole("and keep-alive", said("Connection: keep-alive", start="HTTP/1.0 204 No Content", body=OTHER), b"", 204),
    whole("and close", said("Connection: close", start="HTTP/1.1 204 No Content", body=OTHER), b"", 204),
    whole(
        "304 with a length and another answer", said("Content-Length: 10", start="HTTP/1.1 304 -", body=OTHER), b"", 304
    ),
    whole(
        "304 in chunks and another answer",
        said("Transfer-Encoding: chunked", start="HTTP/1.1 304 -", body=OTHER),
        b"",
        304,
    ),
    whole("two answers", sized("hello") + OTHER.encode(), b"hello"),
    whole("three answers", sized("hello") + 2 * OTHER.encode(), b"hello"),
    whole("an answer in chunks and another", chunked("5\r\nhello\r\n0\r\n\r\n" + OTHER), b"hello"),
    whole("what is no answer behind one", sized("hello") + b"2ad731e3", b"hello"),
    whole("behind the last one", sized("hello", "Connection: close") + b"2ad731e3", b"hello"),
    whole("NUL behind one", sized("hello") + b"\0", b"hello"),
    whole("a body to HEAD", sized("hello"), b"", request=HEAD),
    whole("another answer to HEAD", said("Content-Length: 5", body=OTHER), b"", request=HEAD),
    whole("chunks to HEAD", chunked("5\r\nhello\r\n0\r\n\r\n"), b"", request=HEAD),
    # Interim answers and upgrades
    whole(
        "100 and then another", said(start="HTTP/1.1 100 Continue") + sized("no", start="HTTP/1.1 404 -"), b"no", 404
    ),
    whole("103 and then another", said("Link: <a>", start="HTTP/1.1 103 Early Hints") + sized("hello"), b"hello"),
    whole("many", 9 * said(start="HTTP/1.1 102 Processing") + sized("hello"), b"hello"),
    refused("101 unasked", said("Connection: upgrade", "Upgrade: h2c", start="HTTP/1.1 101 Switching Protocols")),
    refused("with a length", said("Upgrade: h2c", "Content-Length: 4", start="HTTP/1.1 101 -", body="bodyproto")),
    refused("in chunks", said("Upgrade: h2c", "Transfer-Encoding: chunked", start="HTTP/1.1 101 -", body="0\r\n\r\n")),
    to_end("200 with an upgrade", said("Connection: upgrade", "Upgrade: h2c", body="body"), b"body"),
    whole("and a length", said("Connection: upgrade", "Upgrade: h2c", "Content-Length: 4", body="body"), b"body"),
    whole("and chunks", chunked("2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n", "Connection: upgrade", "Upgrade: h2c"), b"body"),
    whole("200 where 101 was asked for", sized("hello"), b"hello", request=UPGRADING),
]


def answers(data: bytes, methods: list[bytes]) -> list[Answer | None]:
    """The answers that these bytes are, to requests of these methods; None for one that breaks off, and no more."""
    found: list[Answer | None] = []
    for method in methods:
        head, _, data = data.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        status, body = int(head.split()[1]), b""
        if method != b"HEAD" and status not in BODILESS:
            assert (b"content-length" in fields) != (b"transfer-encoding" in fields), head
        try:
            if method == b"HEAD" or status in BODILESS:
                pass
            elif b"content-length" in fields:
                body, data = taken(data, int(fields[b"content-length"]))
            else:
                while size := int((line := data.partition(b"\r\n"))[0], 16):
                    piece, data = taken(line[2], size)
                    assert data.startswith(b"\r\n")
                    body, data = body + piece, data[2:]
                assert line[2].startswith(b"\r\n")
                data = line[2][2:]
        except ValueError:
            return [*found, None]
        found.append((status, body))
    assert data == b""
    return found


def taken(data: bytes, count: int) -> tuple[bytes, bytes]:
    if len(data) < count:
        raise ValueError(data)
    return data[:count], data[count:]


@pytest.mark.parametrize("dribbled", [False, True], ids=["whole", "a byte at a time"])
async def test_an_answer_is_framed_as_strict_llhttp_frames_it(
    vip: str, pods: list[Address], subtests: pytest.Subtests, dribbled: bool
) -> None:
    current: list[Row] = []
    has_said = asyncio.Event()

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while "/last" in (await read_head(reader)).start:
            writer.write(saying(b"last"))
        [row] = current
        try:
            for piece in pieces(row.said) if dribbled else [row.said]:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        finally:
            has_said.set()
        if not row.ends:
            while "/last" in (await read_head(reader)).start:
                writer.write(saying(b"last"))

    async def requests(row: Row) -> AsyncIterator[bytes]:
        yield row.request
        if dribbled:
            await has_said.wait()
        yield LAST

    async with Endpoint(pods[0], serve=serve), running(vip, catching_all(pods[0])) as here:
        for row in ROWS:
            current[:] = [row]
            has_said.clear()
            with subtests.test(msg=row.description):
                data = await everything(here.http, requests(row))
                found = answers(data, [row.request.split()[0], b"GET"])
                if row.answer is None:
                    assert found == [None]
                else:
                    body = (found[0] or (0, b""))[1] if row.answer[0] == 502 else row.answer[1]
                    assert found == [(row.answer[0], body), (200, b"last")]
