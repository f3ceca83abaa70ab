"""Certificates by the name a client asks for (SNI).

Law: a handshake looks at the certificates in force when it begins; a change touches no connection that is there. What
cannot be used, or is not there, is answered with a certificate of our own making, as ingress-nginx does, so that the
route still serves. Private keys stay in memory.
"""

import contextlib
import os
import ssl
from collections.abc import Iterable

import trustme

from plane.routes import Certificate

HTTP_2, HTTP_1 = "h2", "http/1.1"  # as ALPN calls them
DEFAULT_NAME = "ingress.trafficplane.invalid"
Pair = tuple[bytes, bytes]


class Certificates:
    """``listening`` is the context to listen with; it hands each handshake the one for its host."""

    def __init__(self) -> None:
        own = trustme.CA(organization_name="trafficplane").issue_cert(DEFAULT_NAME)
        chain = b"".join(blob.bytes() for blob in own.cert_chain_pems)
        self.listening = _context(chain, own.private_key_pem.bytes())
        self.listening.sni_callback = self._choose
        self._by_host: dict[str, Pair] = {}
        self._contexts: dict[Pair, ssl.SSLContext] = {}

    def install(self, certificates: Iterable[Certificate]) -> None:
        """These from the next handshake on; contexts of those that stay are kept."""
        by_host = {row.host: (row.chain, row.key) for row in certificates}
        used = set(by_host.values())
        self._by_host = by_host
        self._contexts = {pair: context for pair, context in self._contexts.items() if pair in used}

    def _choose(self, connection: ssl.SSLObject, host: str | None, _: ssl.SSLContext) -> None:
        name = (host or "").lower().removesuffix(".")
        pair = self._by_host.get(name) or self._by_host.get(f"*.{name.partition('.')[2]}")
        if pair is not None:
            connection.context = self._context_of(pair)

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


def load_pair(context: ssl.SSLContext, chain: bytes, key: bytes) -> None:
    """What a context shows. Raises ssl.SSLError or OSError where certificate and key cannot be used together."""
    # OpenSSL loads a chain from a file only: give it one that lives in memory.
    memory = os.memfd_create("certificate", os.MFD_CLOEXEC)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, memory)
        with open(memory, "wb", closefd=False) as file:
            file.write(key.rstrip() + b"\n" + chain)
        # A key with a passphrase can't be used; without one here, OpenSSL would ask for it on the terminal.
        context.load_cert_chain(f"/proc/self/fd/{memory}", password=lambda: b"")
