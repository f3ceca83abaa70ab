"""What an ingress has to answer rightly before it is measured: one list of requests, asked through plain sockets.

Law: an answer is right by its status, every byte of its body, and whose it is; a request by the Host and the body that
arrive. What is measured is among them, so that no number stands for a wrong answer.
"""

import contextlib
import http.client
import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

from harness.peers.web.backends import body_of
from harness.peers.web.site import HTTP_PORT, HTTPS_PORT, Site, Upstream
from harness.peers.web.workloads import ANSWERS, KIB, POSTED
from kernels.net.httpresponder import receipt_of

PATIENCE_S = 10.0
POST = b"0123456789abcdef" * (10 * KIB // 16)


class Case(NamedTuple):
    """A request and its right answer; ``upstream`` None: 404, whatever the body."""

    host: str
    target: str
    upstream: Upstream | None
    answer: bytes = b""
    body: bytes = b""


def cases(site: Site) -> Iterator[Case]:
    """Every kind of rule that the site has, and what falls beside it."""
    for host, rules in (next(iter(site.hosts.items())), next(reversed(site.hosts.items()))):
        for rule in rules:
            seen = rule.path if rule.exact else f"{rule.path}/seen?a=/b"
            yield Case(host, seen, rule.upstream, receipt_of(host.encode(), b""))
            if rule.path and not rule.exact:
                yield Case(host, rule.path, rule.upstream, receipt_of(host.encode(), b""))
                beside = next(each.upstream for each in rules if not each.path)
                yield Case(host, f"{rule.path}x/seen", beside, receipt_of(host.encode(), b""))
    host, rules = next((host, rules) for host, rules in site.hosts.items() if any(not rule.path for rule in rules))
    front = next(rule.upstream for rule in rules if not rule.path)
    for size in ANSWERS:
        yield Case(host, f"/bytes/{size}", front, body_of(size))
    yield Case(host, "/post", front, body_of(POSTED), POST)
    yield Case(host, "/receipt", front, receipt_of(host.encode(), POST), POST)
    yield Case("nobody.example.org", "/bytes/100", None)


def difference(site: Site, *, tls: bool) -> str:
    """The first answer that is wrong, over HTTP or HTTPS; empty where all are right."""
    for case in cases(site):
        try:
            wrong = _wrong(site.address, case, tls=tls)
        except (OSError, http.client.HTTPException) as error:
            wrong = f"{type(error).__name__}: {error}"
        if wrong:
            scheme = "https" if tls else "http"
            return f"{'POST' if case.body else 'GET'} {scheme}://{case.host}{case.target}: {wrong}"
    return ""


def _wrong(address: str, case: Case, *, tls: bool) -> str:
    with contextlib.closing(http.client.HTTPConnection(address, timeout=PATIENCE_S)) as client:
        client.sock = dial(address, HTTPS_PORT, case.host) if tls else dial(address, HTTP_PORT)
        client.request("POST" if case.body else "GET", case.target, case.body or None, {"Host": case.host})
        answer = client.getresponse()
        body, backend = answer.read(), answer.headers.get("X-Backend", "nobody")
    if case.upstream is None:
        return "" if answer.status == 404 else f"status {answer.status}, not 404"
    if answer.status != 200:
        return f"status {answer.status}, not 200"
    if backend not in (f"{ip}:{port}" for ip, port in case.upstream.endpoints):
        return f"answered by {backend}, not {case.upstream.name}"
    return "" if body == case.answer else f"{len(body)} bytes that are not the {len(case.answer)} of the backend"


def dial(address: str, port: int, sni: str = "") -> socket.socket:
    """A connection, with TLS where ``sni`` is given; the certificate is not checked. Raises OSError."""
    plain = socket.create_connection((address, port), PATIENCE_S)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not sni:
        return plain
    try:
        return unchecked().wrap_socket(plain, server_hostname=sni)
    except OSError:
        plain.close()
        raise


def unchecked() -> ssl.SSLContext:
    """A client that takes any certificate and speaks HTTP/1.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context
