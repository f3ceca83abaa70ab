"""HTTPS: which certificate a client is shown, and that a change of certificates disturbs nobody."""

import asyncio
import base64
import socket
import ssl

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from plane.ingress.tls import DEFAULT_NAME, DEFAULT_TITLE
from plane.model import Object, Snapshot
from tests.ingress.http2wire import careless, http2
from tests.ingress.manifests import ingress, prefix, rule, secret, service, slices, snapshot_of, web
from tests.ingress.test_streaming import WEBSOCKET, tunnelling
from tests.ingress.wire import Address, Endpoint, Running, client, eventually, running


def trusting(*authorities: trustme.CA) -> ssl.SSLContext:
    """A client's context that believes these authorities only."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for authority in authorities:
        authority.configure_trust(context)
    return context


def issued(authority: trustme.CA, name: str, *hosts: str) -> Object:
    """A Secret with a certificate for ``hosts``."""
    certificate = authority.issue_cert(*hosts)
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    return secret(name, chain, certificate.private_key_pem.bytes())


def snapshot(pod: Address, *objects: Object, tls: dict[str, list[str]], generation: int = 1) -> Snapshot:
    """A plane that serves every host, with certificates of Secrets for hosts."""
    rows = [{"secretName": name, "hosts": hosts} for name, hosts in tls.items()]
    served = ingress("web", rule("", prefix("/", "web")), tls=rows)
    return snapshot_of(service("web"), *slices("web", [pod]), served, *objects, generation=generation)


async def shown(here: Running, name: str | None) -> bytes | None:
    """The certificate that is shown to a client who asks for ``name``, whatever it is worth."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    async with client(here.https, context, name or "") as one:
        assert (await one.get()).status == 200
        return one.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)


async def test_sni_chooses_the_certificate_and_host_the_route(vip: str, pods: list[Address]) -> None:
    authority = trustme.CA()
    exact = issued(authority, "exact", "a.foo.com")
    wild = issued(authority, "wild", "*.foo.com")
    tls = {"wild": ["*.foo.com"], "exact": ["a.foo.com"]}
    async with Endpoint(pods[0]) as endpoint, running(vip, snapshot(pods[0], exact, wild, tls=tls)) as here:
        for name in ("a.foo.com", "b.foo.com", "A.FOO.COM"):
            async with client(here.https, trusting(authority), name) as one:
                assert (await one.get(host="elsewhere.org")).status == 200
        assert await shown(here, "a.foo.com") != await shown(here, "b.foo.com")
        request = endpoint.requests[0]
        assert request.get("x-forwarded-proto") == "https"
        assert request.get("x-forwarded-port") == str(here.https[1])
        assert request.get("host") == "elsewhere.org"


@pytest.mark.parametrize(
    "name",
    ["c.foo.com", "locked.com", "x.org", "a.b.d.com", "e.com", None],
    ids=["broken", "a key with a passphrase", "unknown", "deeper", "of another name", "no SNI"],
)
async def test_the_default_certificate_is_shown_where_there_is_no_other(
    vip: str, pods: list[Address], name: str | None
) -> None:
    authority = trustme.CA()
    mixed = issued(authority, "mixed", "c.foo.com")
    mixed["data"]["tls.key"] = issued(authority, "x", "x.com")["data"]["tls.key"]
    good = issued(authority, "good", "*.d.com")
    locked = issued(authority, "locked", "locked.com")
    key = serialization.load_pem_private_key(base64.b64decode(locked["data"]["tls.key"]), None)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    closed = key.private_bytes(*form, serialization.BestAvailableEncryption(b"secret"))
    locked["data"]["tls.key"] = base64.b64encode(closed).decode()
    tls = {"mixed": ["c.foo.com"], "missing": ["m.com"], "good": ["*.d.com", "e.com"], "locked": ["locked.com"]}
    async with Endpoint(pods[0]), running(vip, snapshot(pods[0], mixed, good, locked, tls=tls)) as here:
        certificate = await shown(here, name)
        assert certificate is not None
        assert DEFAULT_NAME.encode() in certificate
        assert DEFAULT_TITLE.encode() in certificate
        assert b"trustme" not in certificate
        assert await shown(here, "m.com") == certificate


async def test_an_install_changes_certificates_for_new_handshakes_and_drops_no_connection(
    vip: str, pods: list[Address]
) -> None:
    first, second = trustme.CA(), trustme.CA()
    tls = {"cert": ["foo.com"]}
    before = snapshot(pods[0], issued(first, "cert", "foo.com"), tls=tls)
    after = snapshot(pods[0], issued(second, "cert", "foo.com"), tls=tls, generation=2)
    async with Endpoint(pods[0]), running(vip, before) as here:
        async with client(here.https, trusting(first), "foo.com") as old:
            assert (await old.get()).status == 200
            await here.install(after)
            async with client(here.https, trusting(second), "foo.com") as new:
                assert (await new.get()).status == 200
            assert (await old.get()).status == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            async with client(here.https, trusting(first), "foo.com"):
                pass


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1")
async def test_tls_1_1_is_refused(vip: str, pods: list[Address]) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with running(vip, snapshot(pods[0], tls={})) as here:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            async with client(here.https, context, "foo.com"):
                pass


async def test_a_session_is_resumed_also_with_a_certificate_of_its_own_and_after_another_has_changed(
    vip: str, pods: list[Address]
) -> None:
    authority = trustme.CA()
    kept, before, after = (issued(authority, *row) for row in (("a", "a.com"), ("b", "b.com"), ("b", "b.com")))
    tls = {"a": ["a.com"], "b": ["b.com"]}
    async with Endpoint(pods[0]), running(vip, snapshot(pods[0], kept, before, tls=tls)) as here:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = trusting(authority)
            context.minimum_version = context.maximum_version = version
            first, resumed = await asyncio.to_thread(visited, context, here.https, "a.com", None)
            assert not resumed
            await here.install(snapshot(pods[0], kept, after, tls=tls, generation=here.ingress.generation + 1))
            _, resumed = await asyncio.to_thread(visited, context, here.https, "a.com", first)
            assert resumed


def visited(
    context: ssl.SSLContext, address: Address, name: str, known: ssl.SSLSession | None
) -> tuple[ssl.SSLSession | None, bool]:
    """The session of a connection on which a request was answered, and whether it went on from a known one."""
    with (
        socket.create_connection(address) as raw,
        context.wrap_socket(raw, server_hostname=name, session=known) as secured,
    ):
        secured.sendall(b"GET / HTTP/1.1\r\nHost: a.com\r\n\r\n")
        assert secured.recv(65536).startswith(b"HTTP/1.1 200")
        return secured.session, bool(secured.session_reused)


@pytest.mark.parametrize(
    ("changes", "pause_s"), [(10, 0.02), pytest.param(60, 1.0, marks=pytest.mark.soak)], ids=["short", "a minute"]
)
async def test_certificates_that_change_all_the_time_fail_no_request(
    vip: str, pods: list[Address], changes: int, pause_s: float
) -> None:
    """On connections that stay, of either HTTP, and on new ones, each of which is shown what its client believes."""
    authority = trustme.CA()
    tls = {"cert": ["example.com"]}
    done, answers, shown_to = asyncio.Event(), [0, 0, 0], set()

    async def stays() -> None:
        async with client(here.https, trusting(authority), "example.com") as one:
            while not done.is_set():
                assert (await one.get()).status == 200
                answers[0] += 1

    async def stays_by_http2() -> None:
        async with http2(here.https) as one:
            while not done.is_set():
                assert (await one.get()).status == 200
                answers[1] += 1

    async def comes_anew() -> None:
        while not done.is_set():
            async with client(here.https, trusting(authority), "example.com") as one:
                shown_to.add(one.writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
                assert (await one.get()).status == 200
                answers[2] += 1

    first = snapshot(pods[0], issued(authority, "cert", "example.com"), tls=tls)
    async with Endpoint(pods[0]), running(vip, first) as here, asyncio.TaskGroup() as load:
        for work in (stays, stays, stays_by_http2, comes_anew):
            load.create_task(work())
        for generation in range(2, 2 + changes):
            await here.install(
                snapshot(pods[0], issued(authority, "cert", "example.com"), tls=tls, generation=generation)
            )
            before = answers[2]
            await asyncio.sleep(pause_s)
            await eventually(lambda before=before: answers[2] > before + 1)
        gateway = here.ingress._gateway
        assert gateway is None or (gateway.clients >= 2 and gateway.punts() == {}), "but for HTTP/2 it is compiled code"
        done.set()
    assert min(answers) > changes
    assert len(shown_to) > changes / 2


async def test_a_websocket_goes_through_https_beside_http_2(vip: str, pods: list[Address]) -> None:
    """A client that offers both speaks HTTP/1.1 where it wants a WebSocket, since RFC 8441 is not announced."""
    context = careless()
    async with Endpoint(pods[0], serve=tunnelling) as endpoint, running(vip, web(pods[0])) as here:
        async with http2(here.https) as page:
            assert (await page.get(host="none.org")).status == 404
        context.set_alpn_protocols(["http/1.1"])
        async with client(here.https, context, "example.com") as one:
            assert one.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            one.send(b"GET /chat HTTP/1.1\r\nHost: example.com\r\n" + WEBSOCKET)
            assert (await one.answer()).status == 101
            one.send(b"hello")
            assert await one.reader.readexactly(14) == b"greetingshello"
            assert endpoint.requests[0].get("x-forwarded-proto") == "https"
        await eventually(lambda: not endpoint.open)


async def test_hsts_takes_the_place_of_what_an_endpoint_says(vip: str, pods: list[Address]) -> None:
    said = b"HTTP/1.1 200 OK\r\nStrict-Transport-Security: max-age=1\r\nContent-Length: 0\r\n\r\n"
    spec = {"ingressClassName": "nginx", "tls": [{"hosts": ["example.com"]}]}
    async with Endpoint(pods[0], said), running(vip, web(pods[0], **spec)) as here:
        async with http2(here.https) as one:
            found = [value for name, value in (await one.get()).fields if name == "strict-transport-security"]
        assert found == ["max-age=31536000; includeSubDomains"]
