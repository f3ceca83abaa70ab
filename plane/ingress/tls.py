"""Certificates by the name a client asks for (SNI).

Law: a handshake looks at the certificates in force when it begins; a change touches no connection that is there. What
cannot be used, does not name the host, or is not there, is answered with a certificate of our own making, as
ingress-nginx does, so that the route still serves. Private keys stay in memory.
"""

import ssl
from collections.abc import Iterable

import trustme

from plane.certificates import is_for, load_pair
from plane.routes import Certificate

HTTP_2, HTTP_1 = "h2", "http/1.1"  # as ALPN calls them
DEFAULT_NAME = "ingress.trafficplane.invalid"
DEFAULT_TITLE = "Trafficplane Default Certificate"
Pair = tuple[bytes, bytes]


class Certificates:
    """``listening`` is the context to listen with; it hands each handshake the one for its host.

    ``default`` is shown to who asks for nobody.
    """

    def __init__(self) -> None:
        authority = trustme.CA(organization_name="Trafficplane", organization_unit_name="made by this ingress")
        own = authority.issue_cert(
            DEFAULT_NAME,
            common_name=DEFAULT_TITLE,
            organization_name="Trafficplane",
            organization_unit_name="made by this ingress",
        )
        chain = b"".join(blob.bytes() for blob in own.cert_chain_pems)
        self.default = chain, own.private_key_pem.bytes()
        self.listening = _context(*self.default)
        self.listening.sni_callback = self._choose
        self._by_host: dict[str, Certificate] = {}
        self._contexts: dict[Pair, ssl.SSLContext] = {}

    def install(self, certificates: Iterable[Certificate]) -> None:
        """These from the next handshake on; contexts of those that stay are kept."""
        by_host = {row.host: row for row in certificates}
        used = {(row.chain, row.key) for row in by_host.values()}
        self._by_host = by_host
        self._contexts = {pair: context for pair, context in self._contexts.items() if pair in used}

    def _choose(self, connection: ssl.SSLObject, host: str | None, _: ssl.SSLContext) -> None:
        name = (host or "").lower().removesuffix(".")
        row = self._by_host.get(name) or self._by_host.get(f"*.{name.partition('.')[2]}")
        if row is not None and is_for(row.chain, row.host):
            connection.context = self._context_of((row.chain, row.key))

    def _context_of(self, pair: Pair) -> ssl.SSLContext:
        """Made at the first handshake that wants it, so that an install does not wait for thousands."""
        if pair not in self._contexts:
            try:
                self._contexts[pair] = _context(*pair)
            except (ssl.SSLError, ValueError, OSError):
                self._contexts[pair] = self.listening
        return self._contexts[pair]


def _context(chain: bytes, key: bytes) -> ssl.SSLContext:
    """Raises ssl.SSLError or OSError where certificate and key cannot be used together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([HTTP_2, HTTP_1])
    load_pair(context, chain, key)
    return context
