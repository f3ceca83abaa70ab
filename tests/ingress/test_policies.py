"""Annotations by explain, by check and on real sockets: the tables of ``policies``, ``traefik`` and ``kong``."""

import contextlib
import json
import ssl
from urllib.parse import urlsplit

import pytest

from plane.check.cases import Case
from plane.check.judge import judge
from plane.explain import explain
from plane.model import Object
from plane.validation import check
from tests.ingress import kong, policies, traefik
from tests.ingress.corpus import NAMES, services
from tests.ingress.manifests import snapshot_of
from tests.ingress.policies import ASKED, ENDPOINT, Row
from tests.ingress.wire import Address, Endpoint, Message, Running, client, running, saying

TABLES = {"": policies.ROWS, "Traefik: ": traefik.ROWS, "Kong: ": kong.ROWS}
ROWS = [row._replace(description=dialect + row.description) for dialect, rows in TABLES.items() for row in rows]
ADDRESSES = {name: f"127.244.1.{number}" for number, name in enumerate(NAMES, start=2)}
ANY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
ANY.check_hostname = False
ANY.verify_mode = ssl.CERT_NONE


def placed(row: Row, address: str) -> list[Object]:
    """The objects of a row, whoever is asked by them being at an address."""
    objects: list[Object] = json.loads(json.dumps(row.objects).replace(ASKED, f"http://{address}:8080"))
    return objects


def test_every_manifest_of_the_table_is_valid() -> None:
    rows = [(row.description, check(obj)) for row in ROWS for obj in row.objects]
    assert [row for row in rows if row[1]] == []


@pytest.mark.parametrize("row", ROWS, ids=[row.description for row in ROWS])
def test_policies_by_explain(row: Row) -> None:
    found = explain(
        snapshot_of(*services(8080, ADDRESSES), *placed(row, ADDRESSES["other"])),
        row.url,
        method=row.method,
        headers=list(row.headers.items()),
        from_ip="127.0.0.1",
    )
    assert found.render()
    assert found.reasons
    assert (found.status, found.redirect or "") == (row.want.status, row.want.location)
    fields = {name.lower(): value for name, value in found.response_headers.items()}
    assert {name: fields.get(name) for name in row.want.fields} == row.want.fields
    if row.want.status == 200:
        parts = urlsplit(row.url)
        asked = parts.path + (f"?{parts.query}" if parts.query else "")
        assert found.service == f"default/{row.want.service}"
        assert found.upstream is not None
        assert found.upstream["path"] == (row.want.uri or asked)
        own = f"{ADDRESSES[row.want.service]}:8080"
        assert found.upstream["host"] == (own if row.want.host == ENDPOINT else row.want.host or parts.netloc)


@pytest.mark.parametrize("row", ROWS, ids=[row.description for row in ROWS])
def test_policies_by_check(row: Row) -> None:
    want, parts = row.want, urlsplit(row.url)
    expected: dict[str, object] = {"status": want.status, "headers": {k: v for k, v in want.fields.items() if v}}
    if want.location:
        expected["redirect"] = want.location
    if want.status == 200:
        path = want.uri or parts.path + (f"?{parts.query}" if parts.query else "")
        expected |= {"status": "forwarded", "service": want.service, "path": path}
    case = Case.model_validate(
        {"url": row.url, "method": row.method, "headers": row.headers, "fromIp": "127.0.0.1", "expect": expected}
    )
    result = judge(snapshot_of(*services(8080, ADDRESSES), *row.objects), case)
    assert result.differences == ()


async def test_policies_by_sockets(vip: str, pods: list[Address], subtests: pytest.Subtests) -> None:
    addresses = dict(zip(NAMES, pods, strict=True))
    base = services(8080, {name: ip for name, (ip, _) in addresses.items()})
    async with contextlib.AsyncExitStack() as stack:
        endpoints = {
            name: await stack.enter_async_context(Endpoint(address, saying(name.encode())))
            for name, address in addresses.items()
        }
        here = await stack.enter_async_context(running(vip, snapshot_of(*base)))
        for generation, row in enumerate(ROWS, start=2):
            await here.install(snapshot_of(*base, *placed(row, addresses["other"][0]), generation=generation))
            with subtests.test(msg=row.description):
                await check_row(row, here, endpoints)


async def check_row(row: Row, here: Running, endpoints: dict[str, Endpoint]) -> None:
    answer = await ask(row, here)
    want = row.want
    assert (answer.status, answer.get("location") or "") == (want.status, want.location)
    assert {name: answer.get(name) for name in want.fields} == want.fields
    if want.status == 200:
        assert answer.body.decode() == want.service
        request = endpoints[want.service].requests[-1]
        parts = urlsplit(row.url)
        asked = parts.path + (f"?{parts.query}" if parts.query else "")
        assert request.start == f"{row.method} {want.uri or asked} HTTP/1.1"
        own = "{}:{}".format(*endpoints[want.service].address)
        assert request.get("host") == (own if want.host == ENDPOINT else want.host or parts.netloc)
        assert {name: request.get(name) for name in want.got} == want.got


async def ask(row: Row, here: Running) -> Message:
    parts = urlsplit(row.url)
    tls = ANY if parts.scheme == "https" else None
    address = here.https if tls else here.http
    asked = parts.path + (f"?{parts.query}" if parts.query else "")
    fields = "".join(f"{name}: {value}\r\n" for name, value in row.headers.items())
    async with client(address, tls, parts.hostname if tls else None) as one:
        return await one.get(asked, parts.netloc, method=row.method, fields=fields)
