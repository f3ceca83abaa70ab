"""Both ways through an ingress log alike: each request has the same line, field by field, but for times and ids."""

import asyncio
import contextlib
import json
import ssl
from pathlib import Path
from typing import Any

import pytest

from plane.ingress.edge import Edge, networks
from tests.ingress.corpus import NAMES, services
from tests.ingress.manifests import prefix, snapshot_of
from tests.ingress.policies import WEB, secured, with_
from tests.ingress.test_both_ways import ANY, COMPILED
from tests.ingress.wire import Address, Endpoint, Running, client, eventually, running, saying

pytestmark = [pytest.mark.syscalls, pytest.mark.one_loop]

TRUSTING = Edge(networks("127.0.0.0/8"))
TIMES = ("time", "duration_ms")
OWN_ID = 16  # hex digits of an id that the client did not give
HOST = "Host: example.com\r\n"
BODY = "Content-Length: 3\r\n\r\nabc"
CHUNKS = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
LARGE = "Content-Length: 70000\r\n\r\n" + 70_000 * "x"
SITE = [
    with_(prefix("/", "web"), prefix("/none", "ghost"), custom_headers="none/none", name="broken", host="b.com"),
    with_(prefix("/", "web"), prefix("/none", "ghost"), name="own"),
    secured(prefix("/", "api"), host="foo.com"),
    with_(WEB, host="quiet.com", name="quiet", enable_access_log="false"),
    with_(WEB, host="far.com", name="far", permanent_redirect="https://a.com/"),
    with_(WEB, host="shut.com", name="shut", denylist_source_range="127.0.0.0/8"),
]
# What is asked for, whole, on connections that go on unless they say otherwise.
ASKED = [
    f"GET / HTTP/1.1\r\n{HOST}\r\n",
    f'GET /a/b?c="d\\e" HTTP/1.1\r\n{HOST}User-Agent: a"\\\tb\r\nReferer: http://a.com/?x\r\n\r\n',
    f"GET / HTTP/1.1\r\n{HOST}USER-AGENT: caf\xc3\xa9 \xe2\x82\xac \xff\xc0\xaf\r\nreferer: \xed\xa0\x80\r\n\r\n",
    f"GET / HTTP/1.1\r\n{HOST}Referer: first\r\nReferer: second\r\nUser-Agent:\r\n\r\n",
    f"GET / HTTP/1.1\r\n{HOST}Referer: {8000 * 'r'}\r\nUser-Agent: {7000 * 'u'}\r\n\r\n",
    f"GET /{4000 * 't'} HTTP/1.1\r\n{HOST}\r\n",
    f"GET / HTTP/1.1\r\n{HOST}X-Request-ID: 00c0ffee00c0ffee\r\n\r\n",
    f"GET / HTTP/1.1\r\n{HOST}X-Request-ID: mine \xc3\xa9\xff\r\n\r\n",
    f"HEAD / HTTP/1.1\r\n{HOST}\r\n",
    f"POST / HTTP/1.1\r\n{HOST}{BODY}",
    f"PUT / HTTP/1.1\r\n{HOST}{CHUNKS}",
    f"PATCH /large HTTP/1.1\r\n{HOST}{LARGE}",
    f"OPTIONS / HTTP/1.1\r\n{HOST}\r\n",
    f"GET /none HTTP/1.1\r\n{HOST}\r\n",
    "DELETE / HTTP/1.1\r\nHost: EXAMPLE.com:80\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: nobody.com\r\nX-Request-ID: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: nobody.com\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: b.com\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: quiet.com\r\n\r\n",
    "GET /x HTTP/1.1\r\nHost: far.com\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: shut.com\r\nReferer: a\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: shut.com\r\nX-Forwarded-For: 192.0.2.7\r\n\r\n",
    f"GET / HTTP/1.1\r\n{HOST}X-Forwarded-For: 192.0.2.8, 127.0.0.9\r\nX-Forwarded-Proto: https\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: foo.com\r\n\r\n",
    "GET /last HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n",
]


@contextlib.asynccontextmanager
async def both(vip: str, pods: list[Address], folder: Path) -> Any:
    """The Services of the tables and an ingress for each way before them, and their logs."""
    addresses = dict(zip(NAMES, pods, strict=True))
    base = services(8080, {name: ip for name, (ip, _) in addresses.items()})
    async with contextlib.AsyncExitStack() as stack:
        for name, address in addresses.items():
            await stack.enter_async_context(Endpoint(address, saying(name.encode())))
        logs = [folder / "asyncio.log", folder / "compiled.log"]
        ways = [
            await stack.enter_async_context(
                running(vip, snapshot_of(*base, *SITE), edge=TRUSTING, gateway=gateway, access_log=str(path))
            )
            for gateway, path in zip((False, True), logs, strict=True)
        ]
        yield base, ways, logs


async def tell(here: Running, asked: list[str], tls: ssl.SSLContext | None = None) -> None:
    """Send these on one connection, each once the one before is answered."""
    async with client(here.https if tls else here.http, tls, "foo.com" if tls else None) as one:
        for raw in asked:
            one.send(raw.encode("latin-1"))
            await one.answer(method=raw.partition(" ")[0])


def line(text: str) -> dict[str, Any]:
    """A line without what may differ."""
    found: dict[str, Any] = json.loads(text)
    assert found.pop("time").endswith("Z")
    assert found.pop("duration_ms") > 0
    if len(found["request_id"]) == OWN_ID:
        found["request_id"] = "an id"
    return found


async def test_a_request_has_the_same_line_on_both_paths(vip: str, pods: list[Address], tmp_path: Path) -> None:
    async with both(vip, pods, tmp_path) as (base, ways, logs):
        for here in ways:
            await tell(here, ASKED)
            await tell(here, ASKED[:3] + ASKED[-1:], ANY)
        for generation, (objects, start, fields) in enumerate(COMPILED, start=2):
            await asyncio.gather(*(here.install(snapshot_of(*base, *objects, generation=generation)) for here in ways))
            for here in ways:
                await tell(here, [f"{start} HTTP/1.1\r\n{HOST}{fields}\r\n"])
        count = len(ASKED) - 1 + 4 + len(COMPILED)
        await eventually(lambda: all(path.read_text().count("\n") == count for path in logs))
        gateway = ways[1].ingress._gateway
        assert gateway is not None
        assert gateway.punts() == {}
    one, other = ([line(text) for text in path.read_text().splitlines()] for path in logs)
    for mine, theirs in zip(one, other, strict=True):
        assert mine == theirs


async def test_times_are_those_of_the_request(vip: str, pods: list[Address], tmp_path: Path) -> None:
    async with both(vip, pods, tmp_path) as (_, ways, logs):
        for here in ways:
            await tell(here, ASKED[:1])
        await eventually(lambda: all(path.read_text() for path in logs))
    one, other = (json.loads(path.read_text()) for path in logs)
    assert list(one) == list(other)
    assert len(one["time"]) == len(other["time"])
    assert one["time"] <= other["time"]
