"""Both paths of an ingress route alike: each request of the tables is sent down each, and what becomes of it compared.

What is compared is every byte that client and endpoint get, but for times, ids and ports, and the rows that are kept.
Copies of mirrored requests, which nobody waits for, are left out.
"""

import asyncio
import contextlib
import json
import re
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from plane.ingress.edge import Edge, networks
from plane.model import Object
from tests.ingress import kong
from tests.ingress.corpus import CORPUS, NAMES, services
from tests.ingress.manifests import prefix, snapshot_of
from tests.ingress.policies import WEB, canary, regex, with_
from tests.ingress.test_balance import web as balanced
from tests.ingress.test_policed import annotated
from tests.ingress.test_policies import ROWS, placed
from tests.ingress.wire import (
    PATIENCE_S,
    Address,
    Endpoint,
    Running,
    ask,
    client,
    eventually,
    read_head,
    running,
    saying,
)

pytestmark = [pytest.mark.syscalls, pytest.mark.one_loop]

ASYNCIO: dict[str, Any] = {"gateway": False}
COMPILED_BY_TWO: dict[str, Any] = {"gateway": True, "gateway_threads": 2}
HIDDEN = ("date", "x-request-id", "set-cookie")
COMPARED = ("route", "service", "pod_ip", "pod_port", "status", "retries")
Asked = tuple[str, list[Object], str, str, str]  # description, objects, Host, method and target, further fields
ROUTED = 4  # of requests that are only routed, which does not look at TLS, each so-many-th comes by it too
ANY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ANY.check_hostname, ANY.verify_mode = False, ssl.CERT_NONE


def requests(address: str) -> list[Asked]:
    """Those of the tables; whoever is asked by a policy is at an address."""
    found = [(row.description, row.objects, row.host, f"GET {row.path}", "") for row in CORPUS]
    for row in ROWS:
        parts = urlsplit(row.url)
        asked = parts.path + (f"?{parts.query}" if parts.query else "")
        fields = "".join(f"{name}: {value}\r\n" for name, value in row.headers.items())
        if "mirror-target" not in json.dumps(row.objects):
            found.append((row.description, placed(row, address), parts.netloc, f"{row.method} {asked}", fields))
    return found


@contextlib.asynccontextmanager
async def both(
    vip: str, pods: list[Address], *how: dict[str, Any]
) -> AsyncIterator[tuple[list[Object], dict[str, Address], list[Endpoint], list[Running]]]:
    """An ingress for each way before the same endpoints: Services, addresses by name, endpoints, ways."""
    addresses = dict(zip(NAMES, pods, strict=True))
    base = services(8080, {name: ip for name, (ip, _) in addresses.items()})
    async with contextlib.AsyncExitStack() as stack:
        endpoints = [
            await stack.enter_async_context(Endpoint(address, saying(name.encode())))
            for name, address in addresses.items()
        ]
        ways = [await stack.enter_async_context(running(vip, snapshot_of(*base), **way)) for way in how]
        yield base, addresses, endpoints, ways


async def test_a_request_of_the_tables_becomes_the_same_on_both_paths(
    vip: str, pods: list[Address], subtests: pytest.Subtests
) -> None:
    async with both(vip, pods, {**ASYNCIO, "recording": True}, {**COMPILED_BY_TWO, "recording": True}) as (
        base,
        addresses,
        endpoints,
        ways,
    ):
        asked = requests(addresses["other"][0])
        for generation, (description, objects, host, start, fields) in enumerate(asked, start=2):
            snapshot = snapshot_of(*base, *objects, generation=generation)
            await asyncio.gather(*(here.install(snapshot) for here in ways))
            raw = f"{start} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode("utf-8", "surrogateescape")
            for tls in (None, ANY) if generation > len(CORPUS) or not generation % ROUTED else (None,):
                with subtests.test(msg=f"{description}, by {'TLS' if tls else 'plain HTTP'}"):
                    one, other = [await became(here, raw, endpoints, tls) for here in ways]
                    assert one == other
        rows = await recorded(ways[1])
        assert rows == await recorded(ways[0])
        gateway = ways[1].ingress._gateway
        assert gateway is not None
        assert sum(gateway.punts().values()) < len(rows) / 2


STRIPPED = [with_(regex("/app(/|$)(.*)", "web"), regex("/", "api"), rewrite_target="/$2")]
SOME = [with_(WEB, enable_cors="true", cors_allow_origin="https://*.foo.com, http://bar.org")]
CHOSEN = [with_(WEB), canary(canary_by_header="X-Canary", canary_by_header_value="yes", canary_by_cookie="try")]
PATTERN = [with_(WEB), canary(canary_by_header="X-Canary", canary_by_header_pattern="^v2")]
OF_KONG = [kong.with_(prefix("/foo", "web"), kong.specific("/by", "old"), strip_path="true")]
# Requests that compiled code carries to their end, by its policies: objects, method and target, further fields.
COMPILED: list[tuple[list[Object], str, str]] = [
    *((STRIPPED, f"GET {path}", "") for path in ("/app", "/APP/", "/app/a/b?c=/d", "/apple", "/app?", "/App/x/")),
    ([with_(prefix("/app", "web"), rewrite_target="/new")], "POST /app/x?y", ""),
    *((OF_KONG, f"GET {path}", "") for path in ("/foo", "/foo/x?y", "/foo/", "/bypass", "/by/x", "/other")),
    *((CHOSEN, "GET /", f"X-Canary: {value}\r\nCookie: a=b; try=never\r\n") for value in ("yes", "always", "no", "")),
    *((CHOSEN, "GET /", f"Cookie: {value}\r\n") for value in ("try=always", ' try="never" ', "tried=always; x")),
    *((PATTERN, "GET /", f"X-Canary: {value}\r\n") for value in ("v2", "v21", "1v2")),
    *(
        (SOME, f"{method} /", f"Origin: {origin}\r\n")
        for method in ("GET", "OPTIONS")
        for origin in ("https://A.foo.com", "http://evil.org")
    ),
    (SOME, "GET /", ""),
    ([with_(WEB, enable_cors="true")], "OPTIONS /", "Origin: null\r\n"),
    ([with_(WEB, enable_cors="true", denylist_source_range="127.0.0.0/8")], "GET /", ""),
    ([with_(WEB, limit_rps="1", limit_connections="2")], "GET /", ""),
]


async def test_policies_that_are_compiled_do_the_same_on_both_paths_and_hand_nobody_over(
    vip: str, pods: list[Address], subtests: pytest.Subtests
) -> None:
    async with both(vip, pods, {"gateway": False}, {"gateway": True}) as (base, _, endpoints, ways):
        for generation, (objects, start, fields) in enumerate(COMPILED, start=2):
            await asyncio.gather(*(here.install(snapshot_of(*base, *objects, generation=generation)) for here in ways))
            with subtests.test(msg=f"{start} {fields}"):
                raw = f"{start} HTTP/1.1\r\nHost: example.com\r\n{fields}\r\n".encode()
                one, other = [await became(here, raw, endpoints, None) for here in ways]
                assert one == other
        assert ways[1].ingress._gateway is not None
        assert ways[1].ingress._gateway.punts() == {}


# What compiled code leaves to asyncio, for it is not in its normal form.
ODD = b"GET /%7E HTTP/1.1\r\nHost: example.com\r\n\r\n"
PLAIN = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"


@pytest.mark.parametrize("first", [PLAIN, ODD])
async def test_a_client_has_one_allowance_whichever_way_its_requests_go(
    vip: str, pods: list[Address], first: bytes
) -> None:
    base = services(8080, {name: ip for name, (ip, _) in zip(NAMES, pods, strict=True)})
    objects = [with_(WEB, limit_rpm="1", limit_burst_multiplier="4")]
    second = ODD if first == PLAIN else PLAIN
    async with Endpoint(pods[0]), running(vip, snapshot_of(*base, *objects), gateway=True) as here:
        got = [await ask(here.http, raw) for raw in (first, second, first, second, first, second, first)]
        assert [message.status for message in got] == [200] * 5 + [503] * 2
        one, other = ((message.start, fields(message.fields, here), message.body) for message in got[-2:])
        assert one == other
        await here.install(snapshot_of(*base, with_(WEB, limit_rpm="1", limit_burst_multiplier="5"), generation=2))
        assert [(await ask(here.http, raw)).status for raw in (first, second)] == [200, 503]


@pytest.mark.parametrize("first", [PLAIN, ODD])
async def test_requests_under_way_are_counted_together_whichever_way_they_go(
    vip: str, pods: list[Address], first: bytes
) -> None:
    go = asyncio.Event()

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            endpoint.requests.append(await read_head(reader))
            await go.wait()
            writer.write(saying(b"done"))

    base = services(8080, {name: ip for name, (ip, _) in zip(NAMES, pods, strict=True)})
    objects = [with_(WEB, limit_connections="1")]
    async with (
        Endpoint(pods[0], serve=serve) as endpoint,
        running(vip, snapshot_of(*base, *objects), gateway=True) as here,
        client(here.http) as one,
    ):
        for _ in range(2):
            one.send(first)
            await eventually(lambda: endpoint.requests)
            assert [(await ask(here.http, raw)).status for raw in (PLAIN, ODD)] == [503, 503]
            go.set()
            assert (await one.answer()).status == 200
            go.clear()
            endpoint.requests.clear()
        async with client(here.http) as left:
            left.send(first)
            await eventually(lambda: endpoint.requests)
        go.set()
        async with asyncio.timeout(PATIENCE_S):
            while (await ask(here.http, PLAIN)).status != 200:
                pass


async def test_who_is_handed_over_takes_no_more_of_its_allowance_than_one_request(
    vip: str, pods: list[Address]
) -> None:
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    base = services(8080, {name: ip for name, (ip, _) in zip(NAMES, pods, strict=True)})
    asks = {"limit_rpm": "1", "limit_burst_multiplier": "2", "limit_connections": "1"}
    objects = [with_(WEB, proxy_next_upstream="http_404", **asks)]
    async with Endpoint(pods[0], answer), running(vip, snapshot_of(*base, *objects), gateway=True) as here:
        assert [(await ask(here.http, PLAIN)).status for _ in range(4)] == [404, 404, 404, 503]
        assert here.ingress._gateway is not None
        assert here.ingress._gateway.punts() == {"an answer after which another endpoint may be asked": 3}


@pytest.mark.parametrize("mode", ["balanced", "persistent"])
async def test_a_cookie_that_one_path_gives_leads_to_the_same_endpoint_on_the_other(
    vip: str, pods: list[Address], mode: str
) -> None:
    said = {
        "affinity": "cookie",
        "affinity_mode": mode,
        "session_cookie_samesite": "Lax",
        "session_cookie_max_age": "9",
    }
    async with contextlib.AsyncExitStack() as stack:
        for address in pods:
            await stack.enter_async_context(Endpoint(address, saying(address[0].encode())))
        ways = [
            await stack.enter_async_context(running(vip, annotated(*pods, **said), gateway=gateway))
            for gateway in (False, True)
        ]
        bodies, kinds = set(), set()
        for number in range(8):
            given = await ask(ways[number % 2].http, PLAIN)
            bodies.add(given.body)
            cookie = given.get("set-cookie") or ""
            kinds.add(re.sub(r"^(\w+)=[0-9a-f]{16}\|", r"\1=|", cookie))
            raw = PLAIN[:-2] + b"Cookie: a=b; " + cookie.partition(";")[0].encode() + b"\r\n\r\n"
            for here in ways:
                again = await ask(here.http, raw)
                assert (again.body, again.get("set-cookie")) == (given.body, None)
        assert len(bodies) > 1
        assert len(kinds) == 1
        assert ways[1].ingress._gateway is not None
        assert ways[1].ingress._gateway.punts() == {}


async def test_whom_a_hash_leads_to_an_endpoint_it_leads_there_on_both_paths(vip: str, pods: list[Address]) -> None:
    by_request = [{"upstream_hash_by": "$request_uri"}, {"upstream_hash_by": "$arg_id-$cookie_c$host"}]
    ways_to_hash = [*(annotated(*pods, **said) for said in by_request), balanced(*pods, algorithm="sh")]
    async with contextlib.AsyncExitStack() as stack:
        for address in pods:
            await stack.enter_async_context(Endpoint(address, saying(address[0].encode())))
        ways = [
            await stack.enter_async_context(running(vip, annotated(*pods), gateway=gateway))
            for gateway in (False, True)
        ]
        met = set()
        for generation, snapshot in enumerate(ways_to_hash, start=2):
            await asyncio.gather(*(here.install(replace(snapshot, generation=generation)) for here in ways))
            for number in range(6):
                raw = b"GET /?id=%d HTTP/1.1\r\nHost: example.com\r\nCookie: c=%d\r\n\r\n" % (number, number)
                one, other, again = [(await ask(here.http, raw)).body for here in (*ways, ways[1])]
                assert one == other == again
                met.add((generation, one))
        assert len(met) > 2 * len(ways_to_hash)
        assert ways[1].ingress._gateway is not None
        assert not ways[1].handed_over


FROM_HERE = {"whitelist_source_range": "192.0.2.0/24"}
LIMITED = {"limit_rpm": "1", "limit_burst_multiplier": "1"}
CLIENT = "X-Forwarded-For: 6.6.6.6, 192.0.2.7, 127.0.0.2\r\n"
SHOP = "X-Forwarded-Host: example.com\r\nX-Forwarded-Port: 443\r\n"
# Requests that a trusted proxy forwards: annotations, further fields.
FORWARDED: list[tuple[dict[str, str], str]] = [
    ({}, ""),
    ({}, CLIENT),
    ({}, CLIENT + SHOP),
    (FROM_HERE, CLIENT),
    (FROM_HERE, "X-Forwarded-For: 192.0.2.7, 8.8.8.8\r\n"),
    (FROM_HERE, ""),
    (LIMITED, CLIENT),
    (LIMITED, CLIENT),
    (LIMITED, "X-Forwarded-For: 192.0.2.8\r\n"),
    ({"force_ssl_redirect": "true"}, CLIENT + "X-Forwarded-Proto: http\r\n"),
    ({"force_ssl_redirect": "true"}, CLIENT + "X-Forwarded-Proto: https\r\n"),
    ({"upstream_hash_by": "$remote_addr$scheme"}, CLIENT + "X-Forwarded-Proto: https\r\n"),
    ({"affinity": "cookie"}, "X-Forwarded-Proto: https\r\n"),
]


async def test_what_a_trusted_proxy_says_of_its_clients_counts_the_same_on_both_paths(
    vip: str, pods: list[Address], subtests: pytest.Subtests
) -> None:
    edge = {"edge": Edge(networks("127.0.0.0/8"))}
    async with both(vip, pods, ASYNCIO | edge, COMPILED_BY_TWO | edge) as (base, _, endpoints, ways):
        for generation, (said, fields) in enumerate(FORWARDED, start=2):
            snapshot = snapshot_of(*base, with_(WEB, **said), generation=generation)
            await asyncio.gather(*(here.install(snapshot) for here in ways))
            raw = f"GET /x HTTP/1.1\r\nHost: example.com\r\n{fields}\r\n".encode()
            for tls in (None, ANY):
                with subtests.test(msg=f"{said} {fields}, by {'TLS' if tls else 'plain HTTP'}"):
                    one, other = [await became(here, raw, endpoints, tls) for here in ways]
                    assert one == other
        assert ways[1].ingress._gateway is not None
        assert not ways[1].handed_over


async def test_who_is_handed_over_is_given_the_cookie_of_its_endpoint(vip: str, pods: list[Address]) -> None:
    answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    said = {"affinity": "cookie", "proxy_next_upstream": "http_404"}
    async with Endpoint(pods[0], answer), running(vip, annotated(pods[0], **said), gateway=True) as here:
        given = await ask(here.http, PLAIN)
        assert given.status == 404
        assert (given.get("set-cookie") or "").startswith("INGRESSCOOKIE=")
        assert here.ingress._gateway is not None
        assert len(here.ingress._gateway.punts()) == 1


async def became(here: Running, raw: bytes, endpoints: list[Endpoint], tls: ssl.SSLContext | None) -> object:
    """What the client got, and each endpoint."""
    for endpoint in endpoints:
        endpoint.requests.clear()
    async with client(here.https if tls else here.http, tls, "foo.com" if tls else None) as one:
        one.send(raw)
        answer = await one.answer(method=raw.partition(b" ")[0].decode())
    return [
        (named(message.start, here), fields(message.fields, here), message.body)
        for message in (answer, *(message for endpoint in endpoints for message in endpoint.requests))
    ]


def fields(of: list[tuple[str, str]], here: Running) -> list[tuple[str, str]]:
    return [(name, "" if name in HIDDEN else named(value, here)) for name, value in of]


def named(text: str, here: Running) -> str:
    """A text with names in place of the two ports of an ingress."""
    for port, name in ((here.http[1], "http"), (here.https[1], "https")):
        text = re.sub(rf"\b{port}\b", name, text)
    return text


async def recorded(here: Running) -> list[tuple[Any, ...]]:
    columns = await here.ingress.records()
    rows = zip(*(columns[name] for name in COMPARED), strict=True)
    named = [columns["routes"], columns["services"]]
    return [
        (*(names[row[i]] if row[i] >= 0 else "" for i, names in enumerate(named)), *map(int, row[2:])) for row in rows
    ]
