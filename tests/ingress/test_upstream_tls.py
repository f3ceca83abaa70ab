"""Endpoints that speak HTTPS: backend-protocol and proxy-ssl-…"""

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from plane.advice import advise
from plane.explain import explain
from plane.model import Object, Snapshot
from plane.validation import check
from tests.ingress.manifests import ingress, prefix, rule, service, slices, snapshot_of
from tests.ingress.policies import named
from tests.ingress.test_failures import GET, HEAD
from tests.ingress.test_streaming import SWITCHED, WEBSOCKET
from tests.ingress.wire import (
    PATIENCE_S,
    Address,
    Endpoint,
    Message,
    Serve,
    answering,
    ask,
    client,
    read_head,
    running,
    saying,
)

NAME = "web.internal"
AUTHORITY, STRANGER = trustme.CA(), trustme.CA()
PREFIX = "nginx.ingress.kubernetes.io/"


class Secured(Endpoint):
    """An endpoint that speaks TLS with a certificate for these names. ``names`` are those that it was told."""

    def __init__(
        self,
        address: Address,
        answer: bytes = b"",
        *,
        serve: Serve = answering,
        names: Sequence[str] = (NAME,),
        wants: trustme.CA | None = None,
        newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ):
        super().__init__(address, answer, serve)
        self.names: list[str | None] = []
        self.shown: list[object] = []
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.maximum_version = newest
        AUTHORITY.issue_cert(*names).configure_cert(self.context)
        if wants is not None:
            wants.configure_trust(self.context)
            self.context.verify_mode = ssl.CERT_REQUIRED
        self.context.sni_callback = lambda _, name, __: self.names.append(name)

    async def __aenter__(self) -> "Secured":
        self._server = await asyncio.start_server(self._connected, *self.address, ssl=self.context)
        return self

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.shown.append(writer.get_extra_info("peercert"))
        await super()._connected(reader, writer)


def secret(**files: bytes) -> Object:
    data = {name.replace("_", "."): base64.b64encode(value).decode() for name, value in files.items()}
    metadata = {"name": "certs", "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}


def trusting(authority: trustme.CA, **more: bytes) -> Object:
    return secret(ca_crt=authority.cert_pem.bytes(), **more)


def https(*pods: Address, certs: Object | None = None, generation: int = 1, **said: str) -> Snapshot:
    annotations = named(backend_protocol="HTTPS", **said)
    if certs:
        annotations[f"{PREFIX}proxy-ssl-secret"] = "default/certs"
    made = ingress("web", rule("example.com", prefix("/", "web")), annotations=annotations)
    assert check(made) == []
    return snapshot_of(service("web"), *slices("web", pods), made, *([certs] if certs else []), generation=generation)


VERIFIED = {"proxy_ssl_verify": "on", "proxy_ssl_name": NAME}


async def test_backend_protocol_https_by_connections_that_are_kept(vip: str, pods: list[Address]) -> None:
    async with Secured(pods[0]) as pod, running(vip, https(pods[0])) as here, client(here.http) as one:
        for generation in range(2, 5):
            assert (await one.get()).body == b"hello"
            await here.install(https(pods[0], generation=generation))
        assert (await one.get(method="POST", fields="Content-Length: 0\r\n")).status == 200
        assert pod.connections == 1
        assert pod.names == [None]  # who is not to be told a name is not
        assert here.ingress.idle_connections == 1


async def test_large_bodies_both_ways_by_tls(vip: str, pods: list[Address]) -> None:
    body = bytes(range(256)) * 4096
    async with Secured(pods[0], saying(body)) as pod, running(vip, https(pods[0])) as here, client(here.http) as one:
        one.send(b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert (await one.answer()).body == body
        assert pod.requests[0].body == body


async def test_a_websocket_by_tls(vip: str, pods: list[Address]) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.requests.append(await read_head(reader))
        writer.write(SWITCHED)
        while data := await reader.read(100):
            writer.write(data)

    async with Secured(pods[0], serve=serve), running(vip, https(pods[0])) as here, client(here.http) as one:
        one.send(b"GET / HTTP/1.1\r\n" + HEAD + WEBSOCKET)
        assert (await one.answer()).status == 101
        one.send(b"ping")
        async with asyncio.timeout(PATIENCE_S):
            assert await one.reader.readexactly(4) == b"ping"


@pytest.mark.parametrize(
    ("authority", "name", "status"),
    [(AUTHORITY, NAME, 200), (STRANGER, NAME, 502), (AUTHORITY, "other.internal", 502)],
    ids=["right", "another authority", "another name"],
)
async def test_proxy_ssl_verify(vip: str, pods: list[Address], authority: trustme.CA, name: str, status: int) -> None:
    snapshot = https(pods[0], certs=trusting(authority), proxy_ssl_verify="on", proxy_ssl_name=name)
    async with Secured(pods[0]) as pod, running(vip, snapshot) as here:
        answer = await ask(here.http, GET)
        assert answer.status == status
        assert len(pod.requests) == (status == 200)
        if status == 502:
            assert b"no TLS: " in answer.body


async def test_nothing_is_verified_by_default(vip: str, pods: list[Address]) -> None:
    async with Secured(pods[0]), running(vip, https(pods[0], certs=trusting(STRANGER))) as here:
        assert (await ask(here.http, GET)).status == 200


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"proxy_ssl_name": NAME}, None),
        ({"proxy_ssl_name": NAME, "proxy_ssl_server_name": "on"}, NAME),
        ({"upstream_vhost": "vhost.internal:8443", "proxy_ssl_server_name": "on"}, "vhost.internal"),
    ],
    ids=["off", "on", "by upstream-vhost"],
)
async def test_proxy_ssl_server_name(vip: str, pods: list[Address], said: dict[str, str], told: str | None) -> None:
    async with Secured(pods[0]) as pod, running(vip, https(pods[0], **said)) as here:
        assert (await ask(here.http, GET)).status == 200
        assert pod.names == [told]


async def test_proxy_ssl_secret_has_what_endpoints_are_shown(vip: str, pods: list[Address]) -> None:
    own = STRANGER.issue_cert("ingress.internal")
    pair = {"tls_crt": own.cert_chain_pems[0].bytes(), "tls_key": own.private_key_pem.bytes()}
    async with Secured(pods[0], wants=STRANGER) as pod, running(vip, https(pods[0])) as here:
        assert (await ask(here.http, GET)).status == 502
        await here.install(https(pods[0], certs=secret(**pair), generation=2))
        assert (await ask(here.http, GET)).status == 200
        assert "ingress.internal" in str(pod.shown[-1])


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"proxy_ssl_protocols": "TLSv1.3"}, 502),
        ({"proxy_ssl_protocols": "TLSv1.3 TLSv1.2"}, 200),
        ({"proxy_ssl_ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256"}, 200),
        ({"proxy_ssl_ciphers": "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384"}, 502),
    ],
)
async def test_proxy_ssl_protocols_and_ciphers(
    vip: str, pods: list[Address], said: dict[str, str], status: int
) -> None:
    """With an endpoint that speaks TLS 1.2 with one size of key."""
    async with Secured(pods[0], newest=ssl.TLSVersion.TLSv1_2) as pod, running(vip, https(pods[0], **said)) as here:
        pod.context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256")
        assert (await ask(here.http, GET)).status == status


async def test_connections_of_other_certificates_are_not_used_again(vip: str, pods: list[Address]) -> None:
    async with Secured(pods[0]) as pod, running(vip, https(pods[0])) as here:
        assert (await ask(here.http, GET)).status == 200
        await here.install(https(pods[0], certs=trusting(AUTHORITY), generation=2, **VERIFIED))
        assert here.ingress.idle_connections == 0
        assert (await ask(here.http, GET)).status == 200
        assert pod.connections == 2


async def refusing(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Speaks HTTP, as NGINX does to who speaks TLS."""
    await reader.read(1)
    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize("tls", [True, False], ids=["HTTPS to who speaks HTTP", "HTTP to who speaks HTTPS"])
async def test_the_wrong_protocol_is_502_and_tried_elsewhere(vip: str, pods: list[Address], tls: bool) -> None:
    snapshot = https(*pods[:2])
    if not tls:
        snapshot = snapshot.changed([ingress("web", rule("example.com", prefix("/", "web")))])
    bad = Endpoint(pods[0], serve=refusing) if tls else Secured(pods[0])
    async with bad, running(vip, snapshot) as here:
        assert (await ask(here.http, GET)).status == 502
        async with Secured(pods[1]) if tls else Endpoint(pods[1]):
            assert {(await ask(here.http, GET)).status for _ in range(3)} == {200}


@asynccontextmanager
async def answered(vip: str, snapshot: Snapshot) -> AsyncIterator[Message]:
    async with running(vip, snapshot) as here:
        yield await ask(here.http, GET)


async def test_a_secret_that_is_not_there_or_not_enough_lets_nobody_through(vip: str, pods: list[Address]) -> None:
    missing = snapshot_of(*https(pods[0], certs=trusting(AUTHORITY)).all("Ingress"), service("web"))
    async with answered(vip, missing) as answer:
        assert answer.status == 503
        assert b"no Secret default/certs for proxy-ssl-secret" in answer.body
    async with answered(vip, https(pods[0], certs=secret(tls_crt=b"x"), **VERIFIED)) as answer:
        assert answer.status == 503
        assert b"no ca.crt" in answer.body
    async with answered(vip, https(pods[0], certs=secret(tls_crt=b"x", tls_key=b"y"))) as answer:
        assert answer.status == 503
        assert b"cannot be used" in answer.body
    assert any("no ca.crt" in line for line in advise(https(pods[0], certs=secret(tls_crt=b"x"), **VERIFIED)))


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"proxy_ssl_verify": "on", "proxy_ssl_name": NAME}, "verifies nothing without"),
        ({"proxy_ssl_verify": "on", "proxy_ssl_secret": "default/certs"}, "verifies nothing without"),
        ({"proxy_ssl_server_name": "on"}, "has no name to tell"),
        ({"proxy_ssl_ciphers": "nonsense"}, "write ciphers as OpenSSL does"),
        ({"proxy_ssl_protocols": "SSLv3"}, "write some of: TLSv1 "),
        ({"proxy_ssl_verify": "true"}, 'write "on" or "off"'),
    ],
)
def test_what_would_not_protect_is_refused(said: dict[str, str], what: str) -> None:
    annotations = named(backend_protocol="HTTPS", **said)
    found = check(ingress("web", rule("example.com", prefix("/", "web")), annotations=annotations))
    assert len(found) == 1
    assert what in str(found[0])


@pytest.mark.parametrize("protocol", ["GRPC", "GRPCS", "FCGI", "AUTO_HTTP"])
def test_protocols_that_endpoints_are_not_spoken_to_by_are_warned_of(protocol: str) -> None:
    made = ingress("web", rule("example.com", prefix("/", "web")), annotations=named(backend_protocol=protocol))
    (line,) = [line for line in advise(snapshot_of(service("web"), made)) if "backend-protocol" in line]
    assert "endpoints are spoken to by " in line


def test_explain_says_how_endpoints_are_spoken_to() -> None:
    pod = ("127.244.1.2", 8443)
    found = explain(https(pod, certs=trusting(AUTHORITY), **VERIFIED), "http://example.com/")
    assert f"the endpoint is spoken to by HTTPS, and must prove to be {NAME}" in found.reasons
    assert "BEGIN" not in str(found)


def of_class(name: str, pod: Address, made: Object, generation: int = 1) -> Snapshot:
    """An Ingress of the class of this name that leads to a Service."""
    led = ingress("web", rule("example.com", prefix("/", "web")))
    led["spec"]["ingressClassName"] = name
    there = slices("web", [pod])
    for each in there:
        each["ports"][0]["name"] = made["spec"]["ports"][0].get("name", "")
    return snapshot_of(made, *there, led, generation=generation)


async def test_kongs_protocol_https(vip: str, pods: list[Address]) -> None:
    made = service("web", annotations={"konghq.com/protocol": "https"})
    assert check(made) == []
    async with Secured(pods[0]) as pod, running(vip, of_class("kong", pods[0], made)) as here, client(here.http) as one:
        assert (await one.get()).body == b"hello"
        assert pod.names == [None]


@pytest.mark.parametrize("said", ["serversscheme", "the name of the port"])
@pytest.mark.parametrize("trusted", [True, False], ids=["known to the machine", "unknown to it"])
async def test_traefiks_serversscheme_https(
    vip: str, pods: list[Address], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, trusted: bool
) -> None:
    (AUTHORITY if trusted else STRANGER).cert_pem.write_to_path(str(tmp_path / "authorities"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authorities"))
    annotations = {"traefik.ingress.kubernetes.io/service.serversscheme": "https"} if said == "serversscheme" else {}
    made = service("web", port_name="http" if annotations else "https-web", annotations=annotations)
    assert check(made) == []
    snapshot = of_class("traefik", pods[0], made)
    async with Secured(pods[0], names=[pods[0][0]]), running(vip, snapshot) as here, client(here.http) as one:
        assert (await one.get()).status == (200 if trusted else 502)
