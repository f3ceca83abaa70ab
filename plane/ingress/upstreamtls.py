"""TLS towards endpoints, as their routes want it.

Law: what is shown and what must be shown follows from the policies alone, and connections are kept for those who want
the same. By default nothing is verified, as with ingress-nginx: pods have certificates that nobody else knows. A
name is told (SNI) only where the policies have one; to verify without one is to verify the endpoint's address. What
cannot be used says so to each request.
"""

import ssl
from dataclasses import dataclass

from plane.certificates import load_pair
from plane.policies import Policies

_VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}


@dataclass(frozen=True, eq=False)
class UpstreamTls:
    """How to speak to endpoints. ``name``: what they are told and, if verified, are called; empty for none."""

    context: ssl.SSLContext
    name: str

    def name_of(self, ip: str) -> str:
        """What an endpoint is told, and must prove to be."""
        return self.name or (ip if self.context.check_hostname else "")


def tls_of(policies: Policies) -> UpstreamTls | None:
    """None for plain HTTP. Raises ValueError where what the Secret has cannot be used."""
    if not policies.upstream_tls:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = policies.tls_verify
    context.verify_mode = ssl.CERT_REQUIRED if policies.tls_verify else ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if policies.tls_protocols:
        versions = sorted(_VERSIONS[name] for name in policies.tls_protocols.split())
        context.minimum_version, context.maximum_version = versions[0], versions[-1]
    if policies.tls_ciphers:
        context.set_ciphers(policies.tls_ciphers)
    try:
        if policies.tls_verify and policies.tls_authorities:
            context.load_verify_locations(cadata=policies.tls_authorities)
        elif policies.tls_verify:
            context.load_default_certs()
        if policies.tls_certificate and policies.tls_key:
            load_pair(context, policies.tls_certificate.encode(), policies.tls_key.encode())
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ValueError(f"the Secret of proxy-ssl-secret cannot be used: {error}") from error
    return UpstreamTls(context, policies.tls_name)
