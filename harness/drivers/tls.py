"""TLS as a load's client speaks it: whom it trusts, and the name it asks for."""

import ssl
from dataclasses import dataclass


@dataclass(frozen=True)
class Tls:
    """What a connection by TLS needs to know.

    server_name  sent as SNI, and what the certificate must name
    authorities  PEM of those that are trusted beside the system's
    only         these alone are trusted
    insecure     any certificate will do
    resume       a connection resumes the session of the one whose place it takes
    """

    server_name: str
    authorities: str = ""
    only: bool = False
    insecure: bool = False
    resume: bool = False

    def context(self) -> ssl.SSLContext:
        """TLS 1.2 and 1.3, HTTP/1.1 by ALPN. Raises ssl.SSLError where the authorities are none."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.set_alpn_protocols(["http/1.1"])
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            return context
        if not self.only:
            context.load_default_certs()
        if self.authorities:
            context.load_verify_locations(cadata=self.authorities)
        return context
