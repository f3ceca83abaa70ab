"""One request in is one request out: what ``tests.ingress.smuggling`` lists, and what nobody has thought of."""

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterable, AsyncIterator, Iterable

import httptools
import pytest

from plane.ingress.timeouts import Timeouts
from plane.model import Snapshot
from tests.ingress.manifests import ingress, prefix, rule, service, slices, snapshot_of
from tests.ingress.smuggling import LAST, LAST_SEEN, ROWS, Row
from tests.ingress.wire import PATIENCE_S, Address, Endpoint, running, saying

WAITED_S = 0.2  # for what does not come
BAD = 400
NO_HTTP = (BAD, 501, 505)  # of several things that are wrong, either may be told
TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
LINE = re.compile(TOKEN + rb" [!-~]+ HTTP/1\.1")
FIELD = re.compile(TOKEN + rb": [\t -~\x80-\xff]*")
FRAMING = re.compile(rb"(?i)(content-length: (0|[1-9][0-9]*)|transfer-encoding: chunked)")


class Strict:
    """What llhttp, which is strict, sees in the bytes of a connection: ``seen``, one string for each whole request."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> int:
        """Returns how many requests ended. Raises HttpParserError."""
        before = len(self.seen)
        while data:
            try:
                self._parser.feed_data(data)
                data = b""
            except httptools.HttpParserUpgrade as upgrade:  # answered as if it had not asked
                data = data[upgrade.args[0] :]
                self._parser = httptools.HttpRequestParser(self)
        return len(self.seen) - before

    def on_message_begin(self) -> None:
        self._url, self._body = b"", b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        method = self._parser.get_method()
        body = b" " + self._body if self._body else b""
        self.seen.append((method + b" " + self._url + body).decode("latin-1"))


class Recording:
    """An endpoint that keeps what every connection said, and answers what llhttp takes for a request.

    seen   whole requests, in order
    wrong  what no endpoint should be sent
    """

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.wrong: list[str] = []

    async def serve(self, endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        strict, said = Strict(), b""
        while data := await reader.read(1 << 16):
            said += data
            try:
                ended = strict.feed(data)
            except httptools.HttpParserError as error:
                self.wrong.append(f"{error}: {said!r}")
                return
            if ended:
                if ended > 1:
                    self.wrong.append(f"{ended} requests at once: {said!r}")
                self.wrong += unsound(said)
                self.seen += strict.seen[-ended:]
                said = b""
                writer.write(saying(b"hello"))


def unsound(request: bytes) -> list[str]:
    """What is wrong with a request by the letter of RFC 9112; it shares no code with any parser."""
    head = request.partition(b"\r\n\r\n")[0]
    line, *fields = head.split(b"\r\n")
    framing = [field for field in fields if re.match(rb"(?i)\s*(content.length|transfer.encoding)\s*:", field)]
    hosts = [field for field in fields if field.lower().startswith(b"host:")]
    right = (
        LINE.fullmatch(line),
        all(FIELD.fullmatch(field) for field in fields),
        len(framing) < 2 and all(FRAMING.fullmatch(field) for field in framing),
        len(hosts) == 1,
    )
    return [] if all(right) else [f"unsound: {request!r}"]


def statuses(answers: bytes) -> list[int]:
    """Statuses of the answers that these bytes are; each must be whole, with a Content-Length, and nothing between."""
    found = []
    while answers:
        head, end, answers = answers.partition(b"\r\n\r\n")
        assert end, head
        found.append(int(head.split()[1]))
        lengths = re.findall(rb"(?im)^content-length: ([0-9]+)\r?$", head)
        assert head.startswith(b"HTTP/1.1 ")
        assert len(lengths) == 1, head
        assert len(answers) >= int(lengths[0])
        answers = answers[int(lengths[0]) :]
    return found


async def everything(address: Address, sent: Iterable[bytes] | AsyncIterable[bytes], *, until: bytes = b"") -> bytes:
    """All that an ingress says to these pieces until it closes the connection, or has said ``until``."""
    loop, said = asyncio.get_running_loop(), b""

    async def send() -> None:
        with contextlib.suppress(OSError):  # it has closed already
            async for piece in _each(sent):
                await loop.sock_sendall(end, piece)
                await asyncio.sleep(0)

    with socket.socket() as end:
        end.setblocking(False)
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await loop.sock_connect(end, address)
        sending = asyncio.create_task(send())
        with contextlib.suppress(ConnectionResetError):
            async with asyncio.timeout(PATIENCE_S):
                while (not until or until not in said) and (piece := await loop.sock_recv(end, 1 << 16)):
                    said += piece
        await sending
    return said


async def _each(pieces: Iterable[bytes] | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(pieces, AsyncIterable):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece


def catching_all(*pods: Address) -> Snapshot:
    return snapshot_of(service("web"), *slices("web", pods), ingress("web", rule("", prefix("/", "web"))))


@pytest.mark.parametrize("dribbled", [False, True], ids=["whole", "a byte at a time"])
async def test_one_request_in_is_one_request_out(
    vip: str, pods: list[Address], subtests: pytest.Subtests, dribbled: bool
) -> None:
    recording = Recording()
    async with Endpoint(pods[0], serve=recording.serve), running(vip, catching_all(pods[0])) as here:
        for row in ROWS:
            if row.waits:
                continue
            with subtests.test(msg=row.description):
                sent = row.sent + LAST
                recording.seen.clear()
                recording.wrong.clear()
                answers = await everything(here.http, pieces(sent) if dribbled else [sent])
                assert recording.wrong == []
                assert (statuses(answers), recording.seen) in outcomes(row)


async def test_what_does_not_end_is_given_up_and_no_request(vip: str, pods: list[Address]) -> None:
    recording, hasty = Recording(), Timeouts(head_s=WAITED_S, body_s=WAITED_S)
    rows = [row for row in ROWS if row.waits]
    async with Endpoint(pods[0], serve=recording.serve), running(vip, catching_all(pods[0]), timeouts=hasty) as here:
        sent = [each for row in rows for each in ([row.sent], pieces(row.sent))]
        answers = await asyncio.gather(*(everything(here.http, each) for each in sent))
        found = [(b"".join(each), statuses(said)) for each, said in zip(sent, answers, strict=True)]
        assert found == [(b"".join(each), [408]) for each in sent]
    assert (recording.seen, recording.wrong) == ([], [])


def pieces(data: bytes) -> list[bytes]:
    return [bytes([byte]) for byte in data]


def outcomes(row: Row) -> list[tuple[list[int], list[str]]]:
    """Statuses of all answers, and all that an endpoint sees: what may become of a row."""
    answers, seen = [200] * len(row.seen), list(row.seen)
    if row.goes_on:
        return [([*answers, 200], [*seen, LAST_SEEN])]
    if row.status not in (0, BAD):
        return [([*answers, row.status], seen)]
    found = [([*answers, status], seen) for status in NO_HTTP] if row.status else [(answers, seen)]
    return [*found, *(([status], []) for status in NO_HTTP if seen)]
