"""The file that ``plane check`` takes: cases, each a request or a connection and what must become of it.

The schema is the classes below, and nothing else; ``docs/check.md`` shows every field.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from plane import strict
from plane.errors import ManifestError
from plane.families import ipv4
from plane.strict import Contradiction, Part, at, read_by

FORWARDED, REFUSED = "forwarded", "refused"
FLOW_SCHEMES = ("tcp", "udp")
# What can be expected of both, and of one only.
OF_REQUESTS, OF_FLOWS = ("status", "redirect", "headers", "path", "ingress"), ("verdict", "policy", "masquerade")

_NAME = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_NAMED = re.compile(rf"({_NAME}/)?{_NAME}")
_SERVICE = re.compile(rf"({_NAME}/)?{_NAME}(:[1-9][0-9]{{0,4}})?")


def _url(value: Any) -> str:
    example = "write one such as http://example.com/path or tcp://web.default.svc:80"
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        valid = parts and parts.scheme in ("http", "https", *FLOW_SCHEMES) and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid or not parts:
        raise ValueError(f"{value!r} is no URL; {example}")
    if parts.scheme in FLOW_SCHEMES and not parts.port:
        raise ValueError(f"{value!r} needs a port; {example}")
    return str(value)


def _address(value: Any) -> str:
    if not isinstance(value, str) or not ipv4(value):
        raise ValueError(f"{value!r} is no IPv4 address")
    return value


def _status(value: Any) -> int | str:
    if value in (FORWARDED, REFUSED) or (type(value) is int and (value == 204 or 300 <= value <= 599)):
        return value
    raise ValueError(
        f"{value!r} is no answer of the plane: write {FORWARDED} for a request that an endpoint answers, {REFUSED} for "
        "a connection that is not taken, 204 or a status from 300 to 599 that the plane answers with"
    )


def _service(value: Any) -> str:
    if not isinstance(value, str) or not _SERVICE.fullmatch(value):
        raise ValueError(f"{value!r} is no Service: write [NAMESPACE/]NAME[:PORT], as default/web:80")
    return value


def _named(value: Any) -> str:
    if not isinstance(value, str) or not _NAMED.fullmatch(value):
        raise ValueError(f"{value!r} is no name: write [NAMESPACE/]NAME")
    return value


class Expect(Part):
    """What must become of it; a field that is not given is not judged. Names without a namespace are in default."""

    status: Annotated[int | str, read_by(_status)] | None = None
    redirect: str | None = None
    headers: dict[str, str] | None = None
    path: str | None = None
    service: Annotated[str, read_by(_service)] | None = None
    ingress: Annotated[str, read_by(_named)] | None = None
    endpoints: list[str] | None = None
    verdict: Literal["NEW", "REJECT", "DROP", "NO_FRONTEND"] | None = None
    policy: Literal["Cluster", "Local"] | None = None
    masquerade: bool | None = None

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        if not given:
            yield (), f"expects nothing; give one of {', '.join(cls.known())}"


class Case(Part):
    """One request, or one connection where the URL's scheme is tcp or udp."""

    name: str = ""
    url: Annotated[str, read_by(_url)]
    method: str = "GET"
    headers: dict[str, str] = Field(default_factory=dict)
    from_ip: Annotated[str, read_by(_address)] | None = None
    from_pod: Annotated[str, read_by(_named)] | None = None
    node: str | None = None
    expect: Expect

    @property
    def is_flow(self) -> bool:
        return urlsplit(self.url).scheme in FLOW_SCHEMES

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        url = given.get("url")
        flow = isinstance(url, str) and url.startswith(tuple(f"{scheme}://" for scheme in FLOW_SCHEMES))
        kind, other = ("connection", "requests (http, https)") if flow else ("request", "connections (tcp, udp)")
        for name in ("method", "headers") if flow else ("fromPod", "node"):
            if name in given:
                yield (name,), f"is for {other}, and this is a {kind}"
        for name in OF_REQUESTS if flow else OF_FLOWS:
            if at(given, "expect", name) is not None:
                yield ("expect", name), f"is for {other}, and this is a {kind}"


class Metadata(Part):
    name: str


class Spec(Part):
    cases: Annotated[list[Case], Field(min_length=1)]


class Check(Part):
    """The whole of a file."""

    api_version: Literal["trafficplane.dev/v1alpha1"]
    kind: Literal["Check"]
    metadata: Metadata
    spec: Spec


def parse(text: str, file: str = "") -> Check:
    """The check that the text is; ``file`` is for messages. Raises ManifestError with everything that is wrong."""
    found = strict.parse(Check, text, file)
    if isinstance(found, list):
        raise ManifestError(found)
    return found
