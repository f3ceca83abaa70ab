"""Both paths of an ingress route alike: each request of the tables is sent down each, and what becomes of it compared.

What is compared is every byte that client and endpoint get, but for times, ids and ports, and the rows that are kept.
Copies of mirrored requests, which nobody waits for, are left out.
"""

import asyncio
import contextlib
import json
import re
import ssl
from typing import Any
from urllib.parse import urlsplit

import pytest

from plane.model import Object
from tests.ingress.corpus import CORPUS, NAMES, services
from tests.ingress.manifests import snapshot_of
from tests.ingress.test_policies import ROWS, placed
from tests.ingress.wire import Address, Endpoint, Running, client, running, saying

pytestmark = [pytest.mark.syscalls, pytest.mark.one_loop]

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


async def test_a_request_of_the_tables_becomes_the_same_on_both_paths(
    vip: str, pods: list[Address], subtests: pytest.Subtests
) -> None:
    addresses = dict(zip(NAMES, pods, strict=True))
    base = services(8080, {name: ip for name, (ip, _) in addresses.items()})
    async with contextlib.AsyncExitStack() as stack:
        endpoints = [
            await stack.enter_async_context(Endpoint(address, saying(name.encode())))
            for name, address in addresses.items()
        ]
        ways = [
            await stack.enter_async_context(running(vip, snapshot_of(*base), gateway=gateway, recording=True))
            for gateway in (False, True)
        ]
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


async def became(here: Running, raw: bytes, endpoints: list[Endpoint], tls: ssl.SSLContext | None) -> object:
    """What the client got, and each endpoint."""
    for endpoint in endpoints:
        endpoint.requests.clear()
    async with client(here.https if tls else here.http, tls, "foo.com" if tls else None) as one:
        one.send(raw)
        answer = await one.answer(method=raw.partition(b" ")[0].decode())
    return [
        (
            named(message.start, here),
            [(name, "" if name in HIDDEN else named(value, here)) for name, value in message.fields],
            message.body,
        )
        for message in (answer, *(message for endpoint in endpoints for message in endpoint.requests))
    ]


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
