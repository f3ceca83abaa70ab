"""HTTPS by compiled code: what clients and endpoints see is what they see by asyncio, whoever the client is."""

import asyncio
import contextlib
import errno
import functools
import os
import queue
import random
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from kernels.layout_tls import SHAKING
from kernels.net import openssl
from plane.cluster import compile_gateway
from plane.descriptors import allow_descriptors
from plane.ingress.edge import Edge
from plane.ingress.handing import Secured
from plane.ingress.server import HTTPS, NO_COMPILED_TLS
from plane.ingress.terminator import Terminator
from plane.ingress.timeouts import Timeouts
from plane.ingress.tls import Certificates
from tests import loopback
from tests.ingress.http2wire import http2
from tests.ingress.manifests import secret, web
from tests.ingress.test_tls import issued, snapshot, trusting
from tests.ingress.wire import PATIENCE_S, Address, Endpoint, Running, client, eventually, running, saying
from tests.loopback import reset

pytestmark = pytest.mark.syscalls

GET = b"GET /x?y HTTP/1.1\r\nHost: example.com\r\n\r\n"
PUNTED = b"POST /x HTTP/1.1\r\nHost: example.com\r\nTE: trailers\r\nContent-Length: 3\r\n\r\nabc"
NEW_TICKET = 4  # a message of the handshake, RFC 8446 B.3
WHERE = {GET: [(1, 0), (1, 0)], PUNTED: [(1, 0), (0, 1)]}  # one connection is, after one request and after another
SOAK = functools.partial(pytest.param, marks=pytest.mark.soak)


def careless() -> ssl.SSLContext:
    """A client's context that believes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def greeting(protocols: list[str] | None = None) -> bytes:
    """The first bytes of a client."""
    context, hello = careless(), ssl.MemoryBIO()
    if protocols:
        context.set_alpn_protocols(protocols)
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="foo.com").do_handshake()
    return hello.read()


HELLO = greeting()


def taken(here: Running) -> int:
    """How many connections the gateway has."""
    assert here.ingress._gateway is not None
    return here.ingress._gateway.clients


def carried(here: Running) -> int:
    """How many connections are in a handshake, or deciphered for the asyncio side."""
    assert here.ingress._terminator is not None
    return len(here.ingress._terminator._some.clients) - 1 - int(here.ingress._terminator._some.loop[0]["free"])


async def said(*command: str) -> str:
    """What a program says, which is to succeed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(PATIENCE_S):
        output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.parametrize("raw", [GET, PUNTED], ids=["taken", "handed over"])
async def test_both_ways_are_alike(vip: str, pods: list[Address], raw: bytes) -> None:
    seen = []
    for gateway in (True, False):
        async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0]), gateway=gateway) as here:
            async with client(here.https, careless(), "foo.com") as one:
                for again in (False, True):
                    one.send(raw)
                    answer = await one.answer()
                    fields = [row for row in answer.fields if row[0] != "date"]
                    seen.append((gateway, answer.start, fields, answer.body))
                    if gateway:  # who is handed over comes back, but not at once the second time
                        where = WHERE[raw][again]
                        await eventually(lambda where=where: (taken(here), carried(here)) == where)
            for request in endpoint.requests:
                fields = [row for row in request.fields if row[0] not in ("x-request-id", "x-forwarded-port")]
                assert request.get("x-forwarded-proto") == "https"
                assert request.get("x-forwarded-port") == str(here.https[1])
                seen.append((gateway, request.start, fields, request.body))
    assert [row[1:] for row in seen if row[0]] == [row[1:] for row in seen if not row[0]]


async def test_curl_gets_a_large_answer_and_sends_a_large_body(vip: str, pods: list[Address], tmp_path: Path) -> None:
    body = random.Random(2).randbytes(2_000_003)
    (tmp_path / "sent").write_bytes(body)
    async with Endpoint(pods[0], saying(body)) as endpoint, running(vip, web(pods[0]), gateway=True) as here:
        where = f"https://example.com:{here.https[1]}/"
        ask = ["curl", "-sk", "--http1.1", "--resolve", f"example.com:{here.https[1]}:{vip}", where]
        for how in ("", "TE: trailers"):
            await said(
                *ask, "-o", str(tmp_path / "got"), "--data-binary", f"@{tmp_path / 'sent'}", "-H", "Expect:", "-H", how
            )
            assert (tmp_path / "got").read_bytes() == body
            assert endpoint.requests.pop().body == body
        assert here.ingress._gateway is not None
        assert here.ingress._gateway.punts() == {"trailers": 1}
        await eventually(lambda: taken(here) == carried(here) == 0)


@pytest.mark.parametrize(
    ("version", "options"),
    [
        (ssl.TLSVersion.TLSv1_2, ssl.OP_NO_TICKET),
        (ssl.TLSVersion.TLSv1_2, ssl.Options(0)),
        (ssl.TLSVersion.TLSv1_3, ssl.Options(0)),
    ],
    ids=["1.2 by number", "1.2 by ticket", "1.3"],
)
async def test_sessions_are_resumed(
    vip: str, pods: list[Address], version: ssl.TLSVersion, options: ssl.Options
) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0]), gateway=True) as here:
        context, session = careless(), None
        context.minimum_version = context.maximum_version = version
        context.options |= options
        tickets: list[int] = []
        context._msg_callback = lambda *said: tickets.append(said[4]) if said[4] == NEW_TICKET else None  # type: ignore[attr-defined]
        for reused in (False, True, True):
            end = context.wrap_socket(socket.socket(), server_hostname="foo.com", session=session)
            await asyncio.to_thread(end.connect, here.https)
            await asyncio.to_thread(end.sendall, b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
            await asyncio.to_thread(end.recv, 1000)
            assert end.session_reused == reused
            await eventually(lambda: (taken(here), carried(here)) == (1, 0))
            session = end.session
            (await asyncio.to_thread(end.unwrap)).close()  # whom its client leaves without a word OpenSSL forgets
        if version == ssl.TLSVersion.TLSv1_3:
            assert len(tickets) == 3  # one each, also of the first handshake


async def test_certificates_rotate_under_clients(vip: str, pods: list[Address]) -> None:
    authority, tls = trustme.CA(), {"cert": ["foo.com"]}
    async with (
        Endpoint(pods[0]),
        running(vip, snapshot(pods[0], tls={}), gateway=True) as here,
        client(here.https, careless(), "foo.com") as old,
    ):
        assert (await old.get()).status == 200
        certificates = set()
        for generation in range(2, 8):
            certificate = issued(authority, "cert", "foo.com")
            await here.install(snapshot(pods[0], certificate, tls=tls, generation=generation))
            async with client(here.https, trusting(authority), "foo.com") as new:
                assert (await new.get()).status == 200
                certificates.add(new.writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
            assert (await old.get()).status == 200
        assert len(certificates) == 6
        assert here.ingress._terminator is not None
        assert len(here.ingress._terminator._made) == 2  # the default one, and the last


async def test_who_asks_for_http2_gets_it_untouched(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0]), gateway=True) as here, http2(here.https) as one:
        assert (await one.get()).status == 200
        assert taken(here) == carried(here) == 0


async def test_who_stops_in_a_handshake_or_speaks_no_tls_costs_nobody(vip: str, pods: list[Address]) -> None:
    halves = (b"", HELLO[:1], HELLO[:50], HELLO, b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\0\x05\x02\0\0\1\0")
    quick = Timeouts(head_s=1.0)
    async with Endpoint(pods[0]), running(vip, web(pods[0]), gateway=True, timeouts=quick) as here:
        ends = [await asyncio.open_connection(*here.https) for _ in halves]
        for (_, writer), half in zip(ends, halves, strict=True):
            writer.write(half)
        async with client(here.https, careless(), "foo.com") as other:
            assert (await other.get()).status == 200
        for reader, writer in ends:
            async with asyncio.timeout(PATIENCE_S):
                with contextlib.suppress(ConnectionResetError):
                    await reader.read()  # until it is left
            writer.close()
        await eventually(lambda: carried(here) == 0)


async def test_an_ingress_that_stops_answers_by_tls_what_is_under_way(vip: str, pods: list[Address]) -> None:
    go = asyncio.Event()

    async def held(_: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        writer.write(saying(b"hello"))

    async with (
        Endpoint(pods[0], serve=held) as endpoint,
        running(vip, web(pods[0]), gateway=True) as here,
        client(here.https, careless(), "foo.com") as one,
        client(here.https, careless(), "foo.com") as other,
    ):
        one.send(GET)
        other.send(PUNTED)
        await eventually(lambda: endpoint.open == 2)
        _, stalled = await asyncio.open_connection(*here.https)
        stalled.write(greeting(["h2"]))
        await eventually(lambda: here.ingress._greeting)
        stopping = asyncio.create_task(here.ingress.stop(5))
        go.set()
        assert (await one.answer()).body == (await other.answer()).body == b"hello"
        async with asyncio.timeout(PATIENCE_S):
            await stopping
        stalled.close()


async def test_tls_that_fails_is_left_to_the_other_side(
    vip: str, pods: list[Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise RuntimeError("no more")

    async with Endpoint(pods[0]), running(vip, web(pods[0]), gateway=True) as here:
        ways = [client(here.https, careless(), "foo.com") for _ in range(2)]
        async with ways[0] as kept, ways[1] as one:
            assert (await kept.get()).status == 200
            for _ in range(2):
                one.send(PUNTED)
                assert (await one.answer()).status == 200
            await eventually(lambda: (taken(here), carried(here)) == (1, 1))
            monkeypatch.setattr(here.ingress._terminator, "_see_to_handed", fails)
            await eventually(lambda: here.ingress._problems and here.ingress._servers)
            assert await one.at_end()
            assert (await kept.get()).status == 200
        async with client(here.https, careless(), "foo.com") as other:
            assert (await other.get()).status == 200
        assert "the TLS of compiled code has failed" in here.ingress._problems[0]


async def test_without_an_openssl_to_call_https_goes_by_asyncio_which_is_said(
    vip: str, pods: list[Address], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(openssl, "_file_of_ssl", lambda: "/no/such/library")
    async with Endpoint(pods[0]), running(vip, web(pods[0]), gateway=True) as here:
        async with client(here.https, careless(), "foo.com") as one:
            assert (await one.get()).status == 200
        assert here.ingress._gateway is not None
        assert here.ingress._terminator is None
    assert NO_COMPILED_TLS in caplog.messages
    lines: list[str] = []
    await asyncio.to_thread(compile_gateway, lines.append)
    assert NO_COMPILED_TLS in lines


async def ask_slowly(address: Address, pieces: int) -> bytes:
    """What a client is answered whose every message comes in so many pieces."""
    coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = careless().wrap_bio(coming, going, server_hostname="foo.com")
    reader, writer = await asyncio.open_connection(*address)

    async def through(step: Callable[[], Any]) -> Any:
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                return step()
            said = going.read()
            size = -(-len(said) // pieces)
            for first in range(0, len(said), size or 1):
                writer.write(said[first : first + size])
                await asyncio.sleep(0.005)
            coming.write(await reader.read(1 << 16) or b"no TLS")

    await through(tls.do_handshake)
    tls.write(GET)
    answer: bytes = await through(tls.read)
    writer.close()
    return answer


@pytest.mark.parametrize("count", [60, SOAK(1_000)])
async def test_slow_handshakes_come_to_their_end_and_hold_nobody_up(vip: str, pods: list[Address], count: int) -> None:
    allow_descriptors(5 * count + 100)
    threads = {thread.name for thread in threading.enumerate()}
    async with Endpoint(pods[0]), running(vip, web(pods[0]), gateway=True) as here, asyncio.TaskGroup() as crowd:
        slow = [crowd.create_task(ask_slowly(here.https, 20)) for _ in range(count)]
        for _ in range(5):
            async with client(here.https, careless(), "foo.com") as quick:
                assert (await quick.get()).status == 200
        assert not all(each.done() for each in slow)
        answers = await asyncio.gather(*slow)
        assert all(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
        await eventually(lambda: taken(here) == carried(here) == 0)
    assert {thread.name for thread in threading.enumerate()} == threads


@pytest.mark.parametrize("leave", [reset, socket.socket.close], ids=["by RST", "by FIN"])
async def test_who_leaves_in_a_handshake_leaves_nothing_behind(
    vip: str, pods: list[Address], leave: Callable[[socket.socket], None]
) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0]), gateway=True) as here:
        for sent in (b"", HELLO[:1], HELLO[:-1], HELLO):
            for answered in (False, True):
                end = socket.create_connection(here.https)
                end.sendall(sent)
                await eventually(lambda: carried(here) == 1)
                if answered and sent == HELLO:
                    assert await asyncio.to_thread(end.recv, 1)
                leave(end)
                await eventually(lambda: carried(here) == 0)


async def test_a_handshake_that_no_buffer_holds_waits_for_room(vip: str, pods: list[Address]) -> None:
    authority = trustme.CA()
    own = authority.issue_cert("foo.com")
    chain = b"".join(blob.bytes() for blob in own.cert_chain_pems) + 160 * authority.cert_pem.bytes()
    long = secret("long", chain, own.private_key_pem.bytes())
    routes = snapshot(pods[0], long, tls={"long": ["foo.com"]})
    async with Endpoint(pods[0]), running(vip, routes, gateway=True) as here:
        assert here.ingress._terminator is not None
        clients = here.ingress._terminator._some.clients
        here.ingress._sockets[HTTPS].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        plain.connect(here.https)
        plain.setblocking(False)
        with careless().wrap_socket(plain, server_hostname="foo.com", do_handshake_on_connect=False) as end:
            with pytest.raises(ssl.SSLWantReadError):
                end.do_handshake()
            await eventually(lambda: ((clients["state"] == SHAKING) & (clients["readable"] == 0)).any())
            end.settimeout(PATIENCE_S)
            await asyncio.to_thread(end.do_handshake)
            shown = end.getpeercert(binary_form=True)
            assert shown == ssl.PEM_cert_to_DER_cert(own.cert_chain_pems[0].bytes().decode())
            await eventually(lambda: (taken(here), carried(here)) == (1, 0))


@pytest.mark.parametrize("secured", [False, True], ids=["HTTP", "HTTPS"])
async def test_a_last_answer_arrives_though_something_its_client_has_said_is_unread(
    vip: str, pods: list[Address], secured: bool
) -> None:
    """The answer waits for the end of the connection, to go with it, and such an end is a reset."""
    go = asyncio.Event()

    async def held(_: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        writer.write(saying(b"hello"))

    def said_to(end: socket.socket) -> bytes:
        said = b""
        with contextlib.suppress(OSError):
            while part := end.recv(1000):
                said += part
        return said

    async with Endpoint(pods[0], serve=held) as endpoint, running(vip, web(pods[0]), gateway=True) as here:
        plain = socket.create_connection(here.https if secured else here.http, PATIENCE_S)
        with careless().wrap_socket(plain, do_handshake_on_connect=False) if secured else plain as end:
            if isinstance(end, ssl.SSLSocket):
                await asyncio.to_thread(end.do_handshake)
            end.sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")
            await eventually(lambda: endpoint.open == 1)
            end.sendall(b"more")
            go.set()
            assert (await asyncio.to_thread(said_to, end)).endswith(b"\r\n\r\nhello")
            await eventually(lambda: taken(here) == 0)


@pytest.mark.parametrize("gateway", [False, True], ids=["by asyncio", "compiled"])
@pytest.mark.parametrize(
    ("begun", "fields"),
    [
        (b"", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", b""),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n",
        ),
    ],
    ids=["no answer", "events", "websocket"],
)
async def test_a_client_that_says_its_end_gets_ours_and_its_endpoint_is_let_go(
    vip: str, pods: list[Address], begun: bytes, fields: bytes, gateway: bool
) -> None:
    """Such a client, by asyncio for one, closes its socket only then."""

    async def held(_: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begun)
        await reader.read()

    async with Endpoint(pods[0], serve=held) as endpoint, running(vip, web(pods[0]), gateway=gateway) as here:
        plain = socket.create_connection(here.https, PATIENCE_S)
        with careless().wrap_socket(plain, do_handshake_on_connect=False) as end:
            await asyncio.to_thread(end.do_handshake)
            end.sendall(b"GET / HTTP/1.1\r\nHost: example.com\r\n" + fields + b"\r\n")
            await eventually(lambda: endpoint.open == 1)
            if begun:
                assert (await asyncio.to_thread(end.recv, 1000)).startswith(begun[:12])
            await asyncio.to_thread(end.unwrap)
            await eventually(lambda: endpoint.open == 0)


async def test_requests_that_come_in_few_records_are_answered_in_turn(vip: str, pods: list[Address]) -> None:
    paths = [f"/{number}" for number in range(500)]
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0]), gateway=True) as here:
        async with client(here.https, careless(), "foo.com") as one:
            one.send(b"".join(b"GET %b HTTP/1.1\r\nHost: example.com\r\n\r\n" % path.encode() for path in paths))
            assert {(await one.answer()).status for _ in paths} == {200}
            await eventually(lambda: (taken(here), carried(here)) == (1, 0))
        assert [request.start.split()[1] for request in endpoint.requests] == paths


async def test_who_comes_by_tls_waits_for_room_in_the_gateway(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]), running(vip, web(pods[0]), gateway=True) as here:
        assert here.ingress._gateway is not None
        loop = here.ingress._gateway.threads[0]._gateway.loop[0]
        loop["clients"], free = 0, int(loop["clients"])
        async with client(here.https, careless(), "foo.com") as one:
            one.send(GET)
            await eventually(lambda: loop["comers"] and carried(here) == 0)
            assert (taken(here), int(loop["clients"])) == (free, 0)
            loop["clients"] = free
            assert (await one.answer()).status == 200
            assert taken(here) == 1


async def test_whom_no_gateway_hears_of_the_asyncio_side_serves(vip: str, pods: list[Address]) -> None:
    """Nor who has come meanwhile."""
    async with Endpoint(pods[0]), running(vip, web(pods[0]), gateway=True) as here:
        gateway, terminator = here.ingress._gateway, here.ingress._terminator
        assert gateway is not None
        assert terminator is not None
        loop = gateway.threads[0]._gateway.loop[0]
        loop["clients"], free = 0, int(loop["clients"])
        ways = [client(here.https, careless(), "foo.com") for _ in range(2)]
        async with ways[0] as before:
            await eventually(lambda: loop["comers"])
            terminator.unheard()
            async with ways[1] as after:
                for one in (before, after):
                    assert (await one.get()).status == 200
                assert carried(here) == 2
        loop["clients"] = free


async def test_where_no_descriptor_is_left_who_would_be_handed_over_is_closed(
    vip: str, pods: list[Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    async with Endpoint(pods[0]), running(vip, web(pods[0]), gateway=True) as here:
        async with client(here.https, careless(), "foo.com") as one:
            assert (await one.get()).status == 200
            with monkeypatch.context() as patched:
                patched.setattr(socket, "socketpair", fails)
                one.send(PUNTED)
                assert await one.at_end()
        async with client(here.https, careless(), "foo.com") as other:
            other.send(PUNTED)
            assert (await other.answer()).status == 200


@contextlib.contextmanager
def carrying(vip: str) -> Iterator[tuple[Terminator, ssl.SSLSocket, Secured]]:
    """A terminator by itself, and a client whose handshake is done, with sockets that hold little."""
    shaken: queue.SimpleQueue[Secured] = queue.SimpleQueue()
    terminator = Terminator(
        Timeouts(), Certificates().default, shaken.put, print, print, edge=Edge(), capacity=1, kept=1
    )
    terminator.unheard()
    with socket.create_server((vip, 0)) as listener, socket.socket() as plain:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        listener.setblocking(False)
        terminator.start(listener)
        try:
            plain.connect(listener.getsockname())
            plain.settimeout(PATIENCE_S)
            with careless().wrap_socket(plain, server_hostname="foo.com") as end:
                yield terminator, end, shaken.get(timeout=PATIENCE_S)
        finally:
            terminator.stop()


def test_who_dies_on_its_way_back_is_forgotten(vip: str) -> None:
    back: list[str] = []
    with carrying(vip) as (terminator, end, secured):
        carried = terminator.carry(secured)
        assert carried is not None
        with contextlib.suppress(BlockingIOError):
            while True:
                carried.end.send(bytes(1 << 16))  # more than the sockets hold of a client that reads nothing
        carried.give_back(lambda: back.append("taken"), lambda _: back.append("kept"), carried.end.detach())
        loopback.eventually(lambda: terminator._leaving)
        reset(end)
        loopback.eventually(lambda: not terminator._leaving)
        assert terminator._some.loop[0]["free"] == 2
    assert not back


def test_whom_a_terminator_is_still_to_carry_keeps_it_busy(vip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go, carry = threading.Event(), threading.Event(), Terminator._carry

    def slow(terminator: Terminator, client: Secured, pair: int) -> None:
        begun.set()
        assert go.wait(PATIENCE_S)
        carry(terminator, client, pair)

    monkeypatch.setattr(Terminator, "_carry", slow)
    with carrying(vip) as (terminator, _, secured):
        assert not terminator.is_busy()
        carried = terminator.carry(secured)
        assert carried is not None
        assert begun.wait(PATIENCE_S)
        threading.Timer(0.05, go.set).start()  # the answer is waited for, and comes behind what was told before
        assert terminator.is_busy()
        carried.end.close()
        loopback.eventually(lambda: not terminator.is_busy())
