"""Who a client is: a stranger, one whom a trusted proxy names by fields, or one named by the PROXY protocol."""

import contextlib
import json
import ssl
import struct
from pathlib import Path

import pytest

from plane.errors import PlaneError
from plane.ingress.edge import Edge, networks
from plane.ingress.timeouts import Timeouts
from tests.ingress.manifests import web
from tests.ingress.test_policed import annotated
from tests.ingress.wire import Address, Endpoint, Message, ask, client, eventually, running

PORT = 10293
HERE = "127.0.0.1"  # whom a connection comes from in these tests
TRUSTING = Edge(networks("127.0.0.0/8, 10.0.0.0/8"))
ANNOUNCED = Edge(proxy_protocol=True)
V2 = b"\r\n\r\n\0\r\nQUIT\n"
GET = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"


def said(request: Message) -> dict[str, str]:
    names = ("x-forwarded-for", "x-real-ip", "x-forwarded-proto", "x-forwarded-port", "x-forwarded-host")
    return {name.removeprefix("x-"): request.get(name) or "" for name in names}


def careless() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def v2(source: str, port: int, *, command: int = 1, tail: bytes = b"") -> bytes:
    """A header of version 2 for TCP over IPv4."""
    addresses = bytes(map(int, source.split("."))) + bytes([127, 0, 0, 1]) + struct.pack("!HH", port, 80)
    return V2 + bytes([0x20 | command, 0x11]) + struct.pack("!H", len(addresses + tail)) + addresses + tail


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ("", {"forwarded-for": HERE, "real-ip": HERE, "forwarded-proto": "http", "forwarded-host": "example.com"}),
        ("X-Forwarded-For: 1.2.3.4\r\n", {"forwarded-for": f"1.2.3.4, {HERE}", "real-ip": "1.2.3.4"}),
        (
            "X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.1.1.1\r\n",
            {"forwarded-for": f"6.6.6.6, 1.2.3.4, 10.1.1.1, {HERE}", "real-ip": "1.2.3.4"},
        ),
        ("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For: 1.2.3.4\r\n", {"real-ip": "1.2.3.4"}),
        ("X-Forwarded-For: 1.2.3.4, nonsense\r\n", {"real-ip": HERE}),
        ("X-Forwarded-For: 2001:db8::1\r\n", {"real-ip": "2001:db8::1"}),
        ("X-Forwarded-For: 192.0.2.1:4711\r\n", {"real-ip": "192.0.2.1"}),
        ("X-Forwarded-For: [2001:DB8::1]:4711\r\n", {"real-ip": "2001:db8::1"}),
        ("X-Forwarded-For: [2001:db8::1]\r\n", {"real-ip": "2001:db8::1"}),
        ("X-Forwarded-For: 1.2.3.4, ::ffff:10.1.1.1\r\n", {"real-ip": "1.2.3.4"}),
        (f"X-Forwarded-For: 1.2.3.4{', 10.0.0.1' * 63}\r\n", {"real-ip": "1.2.3.4"}),
        (f"X-Forwarded-For: 1.2.3.4{', 10.0.0.1' * 64}\r\n", {"real-ip": "10.0.0.1"}),
        ("X-Forwarded-Host: shop.example, b.example\r\n", {"forwarded-host": "shop.example"}),
        ("X-Forwarded-Host: shop.example/x\r\n", {"forwarded-host": "example.com"}),
        ("X-Real-IP: 6.6.6.6\r\n", {"real-ip": HERE}),
        (
            "X-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Host: shop.example\r\n",
            {"forwarded-proto": "https", "forwarded-port": "443", "forwarded-host": "shop.example"},
        ),
    ],
)
async def test_what_a_trusted_proxy_says_counts(
    vip: str, pods: list[Address], fields: str, expected: dict[str, str]
) -> None:
    async with (
        Endpoint(pods[0]) as endpoint,
        running(vip, web(pods[0]), edge=TRUSTING) as here,
        client(here.http) as one,
    ):
        assert (await one.get(fields=fields)).status == 200
        found = said(endpoint.requests[0])
        assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("edge", [Edge(), Edge(networks("10.0.0.0/8"))], ids=["nobody is trusted", "others are"])
async def test_what_a_stranger_says_is_replaced(vip: str, pods: list[Address], edge: Edge) -> None:
    fields = "X-Forwarded-For: 10.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nX-Real-IP: 6.6.6.6\r\n"
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0]), edge=edge) as here, client(here.http) as one:
        assert (await one.get(fields=fields)).status == 200
        assert said(endpoint.requests[0]) == {
            "forwarded-for": HERE,
            "real-ip": HERE,
            "forwarded-proto": "http",
            "forwarded-port": str(here.http[1]),
            "forwarded-host": "example.com",
        }


@pytest.mark.parametrize("edge", [Edge(), TRUSTING], ids=["a stranger", "trusted"])
async def test_kin_of_the_forwarding_fields_go_on_from_trusted_proxies_only(
    vip: str, pods: list[Address], edge: Edge
) -> None:
    names = ("forwarded", "x-forwarded-scheme", "x-scheme", "x-original-forwarded-for")
    fields = "".join(f"{name}: a\r\n" for name in names)
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0]), edge=edge) as here, client(here.http) as one:
        assert (await one.get(fields=fields)).status == 200
        expected = "a" if edge is TRUSTING else None
        assert [endpoint.requests[0].get(name) for name in names] == [expected] * 4


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n", "203.0.113.9"),
        (b"PROXY TCP6 2001:db8::9 ::1 4711 80\r\n", "2001:db8::9"),
        (b"PROXY TCP6 ::ffff:203.0.113.9 ::1 4711 80\r\n", "203.0.113.9"),
        (b"PROXY UNKNOWN\r\n", HERE),
        (v2("203.0.113.9", 4711), "203.0.113.9"),
        (v2("203.0.113.9", 4711, tail=b"\x04\x00\x03abc"), "203.0.113.9"),
        (v2("203.0.113.9", 4711, command=0), HERE),
    ],
    ids=["TCP4", "TCP6", "mapped", "UNKNOWN", "version 2", "with a value", "LOCAL"],
)
@pytest.mark.parametrize("pieces", [1, 0], ids=["whole", "byte by byte"])
async def test_a_connection_says_who_its_client_is(
    vip: str, pods: list[Address], header: bytes, address: str, pieces: int
) -> None:
    async with (
        Endpoint(pods[0]) as endpoint,
        running(vip, web(pods[0]), edge=ANNOUNCED) as here,
        client(here.http) as one,
    ):
        for part in [header + GET] if pieces else [bytes([byte]) for byte in header + GET]:
            one.send(part)
            await one.writer.drain()
        assert (await one.answer()).status == 200
        assert (await one.get()).status == 200
        assert [request.get("x-forwarded-for") for request in endpoint.requests] == [address] * 2


async def test_tls_follows_the_header(vip: str, pods: list[Address]) -> None:
    async with (
        Endpoint(pods[0]) as endpoint,
        running(vip, web(pods[0]), edge=ANNOUNCED) as here,
        client(here.https) as one,
    ):
        one.send(v2("203.0.113.9", 4711))
        await one.writer.start_tls(careless())
        assert (await one.get()).status == 200
        assert said(endpoint.requests[0])["forwarded-for"] == "203.0.113.9"
        assert said(endpoint.requests[0])["forwarded-proto"] == "https"


@pytest.mark.parametrize(
    "sent",
    [
        GET,
        b"PROXY TCP4 300.0.0.1 127.0.0.1 1 2\r\n" + GET,
        b"PROXY TCP4 1.2.3.4 127.0.0.1 1 99999\r\n" + GET,
        b"PROXY " + b"x" * 200 + b"\r\n" + GET,
        b"PROXY TCP4 1.2.3.4 127.0.0.1 1 2\n" + GET,
        V2 + b"\x21\x11" + struct.pack("!H", 65000) + b"x" * 5000,
        V2 + b"\x21\x11" + struct.pack("!H", 4) + bytes(4) + GET,
        V2 + b"\x51\x11" + struct.pack("!H", 12) + bytes(12) + GET,
        b"",
        b"PROXY TCP4 1.2.3",
    ],
    ids=["none", "address", "port", "long", "line feed", "huge", "short", "version", "silence", "half"],
)
async def test_a_connection_without_a_proper_header_is_closed(vip: str, pods: list[Address], sent: bytes) -> None:
    async with (
        Endpoint(pods[0]) as endpoint,
        running(vip, web(pods[0]), edge=ANNOUNCED, timeouts=Timeouts(head_s=0.5)) as here,
    ):
        async with client(here.http) as one:
            one.send(sent)
            with contextlib.suppress(ConnectionError):  # closed with bytes of ours unread
                assert await one.at_end()
        async with client(here.http) as other:
            other.send(v2("1.2.3.4", 1) + GET)
            assert (await other.answer()).status == 200
        assert len(endpoint.requests) == 1


WHO = "203.0.113.9"
RULED = {
    "denied": {"denylist_source_range": f"{WHO}/32"},
    "allowed": {"whitelist_source_range": f"{WHO}/32"},
    "limited": {"limit_rpm": "1", "limit_burst_multiplier": "1"},
}


@pytest.mark.parametrize(
    ("rule", "announced", "expected"),
    [
        ("denied", [WHO, "203.0.113.8"], [403, 200]),
        ("allowed", [WHO, "203.0.113.8"], [200, 403]),
        ("limited", [WHO, WHO, WHO, "203.0.113.8"], [200, 200, 503, 200]),
    ],
)
@pytest.mark.parametrize("by_tls", [False, True], ids=["plain HTTP", "TLS"])
async def test_policies_and_the_log_see_who_is_announced(
    vip: str, pods: list[Address], tmp_path: Path, rule: str, announced: list[str], expected: list[int], by_tls: bool
) -> None:
    log, snapshot = tmp_path / "access.log", annotated(pods[0], **RULED[rule])
    async with Endpoint(pods[0]), running(vip, snapshot, edge=ANNOUNCED, access_log=str(log)) as here:
        found = []
        for source in announced:
            async with client(here.https if by_tls else here.http) as one:
                one.send(v2(source, 0))
                if by_tls:
                    await one.writer.start_tls(careless())
                found.append((await one.get()).status)
    assert found == expected
    assert [json.loads(line)["client"] for line in log.read_text().splitlines()] == announced


@pytest.mark.syscalls
@pytest.mark.one_loop
async def test_compiled_code_leaves_alone_what_is_unusual_and_nothing_else(vip: str, pods: list[Address]) -> None:
    edge, unusual = Edge(networks("127.0.0.0/8"), proxy_protocol=True), b"PROXY TCP6 2001:db8::9 ::1 4711 80\r\n"
    which = running(vip, web(pods[0]), edge=edge, gateway=True, metrics_port=PORT)
    async with Endpoint(pods[0]) as endpoint, which as here:
        gateway = here.ingress._gateway
        assert gateway is not None
        for header in (b"PROXY TCP4 203.0.113.9 127.0.0.1 4711 80\r\n", v2("203.0.113.9", 1, tail=b"\x04\0\x03abc")):
            for address in (here.http, here.https):
                async with client(address) as one:
                    one.send(header)
                    if address == here.https:
                        await one.writer.start_tls(careless())
                    assert (await one.get()).status == 200
                    assert gateway.clients > 0
        assert gateway.punts() == {}
        async with client(here.http) as one, client(here.https) as other:
            for each in (one, other):
                each.send(unusual)
            await other.writer.start_tls(careless())
            for each in (one, other):
                assert (await each.get()).status == 200
        said = (await ask((vip, PORT), b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).body
        reason = b'{reason="a header of the PROXY protocol that is unusual"} 2.0'
        assert b"trafficplane_ingress_punts_total" + reason in said
        names = ["203.0.113.9"] * 4 + ["2001:db8::9"] * 2
        assert [request.get("x-forwarded-for") for request in endpoint.requests] == names


@pytest.mark.parametrize("tail", [b"", b"PROPFIND / HTTP/1.1\r\nHost: example.com\r\n\r\n"])
async def test_who_is_handed_over_stays_who_was_announced(vip: str, pods: list[Address], tail: bytes) -> None:
    context = careless()
    context.set_alpn_protocols(["h2", "http/1.1"] if not tail else ["http/1.1"])
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0]), edge=ANNOUNCED) as here:
        async with client(here.http) as one:
            one.send(v2("203.0.113.9", 4711) + GET + (tail or GET))
            assert [(await one.answer()).status for _ in range(2)] == [200] * 2
        async with client(here.https) as one:
            one.send(v2("203.0.113.9", 4711))
            await one.writer.start_tls(context)
            if tail:
                one.send(tail)
                assert (await one.answer()).status == 200
            else:
                secured = one.writer.get_extra_info("ssl_object")
                assert secured.selected_alpn_protocol() == "h2"
        assert {request.get("x-real-ip") for request in endpoint.requests} == {"203.0.113.9"}


async def test_a_connection_that_is_to_be_announced_still_is_left_at_the_end(vip: str, pods: list[Address]) -> None:
    async with (
        running(vip, web(pods[0]), edge=ANNOUNCED) as here,
        client(here.http) as one,
        client(here.https) as other,
        client(here.http) as odd,
    ):
        for each, half in ((one, b"PROXY TCP4 1."), (other, b""), (odd, b"PROXY TCP6 2001")):
            each.send(half)
        await here.ingress.stop(1)
        for each in (one, other, odd):
            with contextlib.suppress(ConnectionError):
                assert await each.at_end()


@pytest.mark.syscalls
@pytest.mark.one_loop
async def test_where_a_gateway_has_failed_clients_are_announced_still(
    vip: str, pods: list[Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise RuntimeError("no more")

    which = running(vip, web(pods[0]), edge=ANNOUNCED, gateway=True)
    async with Endpoint(pods[0]) as endpoint, which as here, client(here.http) as early:
        early.send(v2("203.0.113.9", 1)[:20])
        gateway = here.ingress._gateway
        assert gateway is not None
        await eventually(lambda: gateway.clients)
        monkeypatch.setattr(gateway.threads[0], "_date", fails)
        await eventually(lambda: not gateway.serves and here.ingress._problems)
        early.send(v2("203.0.113.9", 1)[20:] + GET)
        async with client(here.http) as late, client(here.http) as nobody:
            late.send(v2("203.0.113.8", 1) + GET)
            nobody.send(GET)
            for one in (early, late):
                assert (await one.answer()).status == 200
            with contextlib.suppress(ConnectionError):
                assert await nobody.at_end()
        assert {request.get("x-real-ip") for request in endpoint.requests} == {"203.0.113.9", "203.0.113.8"}


async def test_only_trusted_proxies_may_announce_where_they_are_named(vip: str, pods: list[Address]) -> None:
    edge = Edge(networks("10.0.0.0/8"), proxy_protocol=True)
    async with Endpoint(pods[0]), running(vip, web(pods[0]), edge=edge) as here, client(here.http) as one:
        one.send(v2("1.2.3.4", 1) + GET)
        with contextlib.suppress(ConnectionError):
            assert await one.at_end()


def test_networks() -> None:
    assert [str(each) for each in networks("10.0.0.1/8, 192.0.2.1 ,2001:db8::/32,")] == [
        "10.0.0.0/8",
        "192.0.2.1/32",
        "2001:db8::/32",
    ]
    with pytest.raises(PlaneError, match=r'"10\.0\.0" is no address and no network'):
        networks("10.0.0")
