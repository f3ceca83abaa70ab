"""Certificates that a run makes for its own hosts: the schema of ``spec.certificates``, and the Secrets it becomes.

Law: one authority is made for each run and forgotten with it. Loads by HTTPS trust it beside those of the system, so
that a scenario with TLS needs no key in its folder and never expires. It also signs those that take another's place.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import trustme
from pydantic import Field

from harness.requests import Label
from plane.model import Object
from plane.strict import Contradiction, Part, at, read_by


def _host(value: Any) -> str:
    labels = value.removeprefix("*.").split(".") if isinstance(value, str) else []
    if not labels or not all(label and label.replace("-", "a").isalnum() and label.isascii() for label in labels):
        raise ValueError(f"{value!r} is no host: write a name, as shop.example or *.shop.example")
    return str(value)


class Certificate(Part):
    """A Secret of that name with a certificate for these ``hosts``."""

    secret: Label
    namespace: Label = "default"
    hosts: Annotated[list[Annotated[str, read_by(_host)]], Field(min_length=1)]


def contradictions(given: Any) -> Iterator[Contradiction]:
    """What is wrong between the certificates of a spec."""
    seen = set()
    for place, certificate in enumerate(given if isinstance(given, list) else ()):
        name = at(certificate, "namespace") or "default", at(certificate, "secret")
        if all(isinstance(part, str) for part in name) and name in seen:
            yield (
                ("certificates", place, "secret"),
                f"Secret {'/'.join(name)} is another one, too: give it all hosts",
            )
        seen.add(name)


def clashes(certificates: Sequence[Certificate], objects: Iterable[Object]) -> Iterator[tuple[str, str]]:
    """(field, reason) of those whose Secret is among the objects already."""
    there = {
        (obj["metadata"].get("namespace", "default"), obj["metadata"]["name"])
        for obj in objects
        if obj["kind"] == "Secret"
    }
    for place, certificate in enumerate(certificates):
        if (certificate.namespace, certificate.secret) in there:
            named = f"Secret {certificate.namespace}/{certificate.secret}"
            yield f"spec.certificates[{place}].secret", f"{named} is in the manifests, too: leave one of them out"


@dataclass(frozen=True)
class Issued:
    """Secrets, of type ``kubernetes.io/tls``, and the authority that signed what is in them, PEM.

    ``again`` makes another Secret of a certificate's, with a new key, by the same authority.
    """

    secrets: Sequence[Object] = ()
    authority: str = ""
    again: Callable[[Certificate], Object] | None = None


def issued(certificates: Sequence[Certificate]) -> Issued:
    """All of them, by an authority of their own; none where there are none."""
    if not certificates:
        return Issued()
    authority = trustme.CA(organization_name="Trafficplane", organization_unit_name="made for this run")
    again = partial(_secret, authority)
    return Issued([again(each) for each in certificates], authority.cert_pem.bytes().decode(), again)


def _secret(authority: trustme.CA, certificate: Certificate) -> Object:
    made = authority.issue_cert(*certificate.hosts)
    chain = b"".join(blob.bytes() for blob in made.cert_chain_pems).decode()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": certificate.secret, "namespace": certificate.namespace},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": chain, "tls.key": made.private_key_pem.bytes().decode()},
    }
