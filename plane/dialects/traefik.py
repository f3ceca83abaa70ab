"""The annotations of Traefik, ``traefik.ingress.kubernetes.io/…``: of routers on Ingresses, of services on Services.

Law: the names and meanings are those of Traefik 3.7, by its documentation and ``pkg/provider/kubernetes/ingress``;
where the plane differs ``docs/ingress.md`` says so. What Traefik keeps elsewhere, middlewares and TLS options, may ask
who a client is: an Ingress that names it serves nobody. Names are read in whatever case, as Traefik reads them. Pure.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace

from plane.dialects import values
from plane.dialects.vocabulary import Said, Vocabulary, denied_by
from plane.matching import MATCHERS, TRAEFIK
from plane.policies import NONE, Asked, Policies, When

PREFIX = "traefik.ingress.kubernetes.io/"
CONTROLLER = "Traefik"
ENTRY_POINTS = ("web", "websecure")  # the ports for HTTP and HTTPS, by the names that Traefik's chart gives them
_DOMAIN = re.compile(r"router\.tls\.domains\.\d+\.")


def _canonical(name: str) -> str:
    """Lower case, and any index is n."""
    return _DOMAIN.sub("router.tls.domains.n.", name.lower())


_NO_CERTIFICATES = ": the plane makes no certificates, it takes those of spec.tls"
_ON_INGRESS = (
    "router.entrypoints",
    "router.middlewares",
    "router.observability.accesslogs",
    "router.observability.metrics",
    "router.observability.traceverbosity",
    "router.observability.tracing",
    "router.pathmatcher",
    "router.priority",
    "router.rulesyntax",
    "router.tls",
    "router.tls.certresolver",
    "router.tls.domains.n.main",
    "router.tls.domains.n.sans",
    "router.tls.options",
)
_ON_SERVICE = (
    "service.middlewares",
    "service.nativelb",
    "service.nodeportlb",
    "service.passhostheader",
    "service.serversscheme",
    "service.serverstransport",
    "service.sticky.cookie",
    "service.sticky.cookie.domain",
    "service.sticky.cookie.httponly",
    "service.sticky.cookie.maxage",
    "service.sticky.cookie.name",
    "service.sticky.cookie.path",
    "service.sticky.cookie.samesite",
    "service.sticky.cookie.secure",
)
INGRESS = Vocabulary(
    prefix=PREFIX,
    controller=CONTROLLER,
    acted_on={
        "router.entrypoints": values.list_of(*ENTRY_POINTS),
        "router.priority": values.whole(-(2**31) + 1),
        "router.tls": values.boolean,
        "router.pathmatcher": values.one_of(*MATCHERS),
        "router.observability.accesslogs": values.boolean,
    },
    not_yet={
        "router.middlewares": "",
        "router.observability.metrics": "",
        "router.observability.tracing": "",
        "router.observability.traceverbosity": "",
        "router.rulesyntax": ": rules are those of Traefik 3",
        "router.tls.certresolver": _NO_CERTIFICATES,
        "router.tls.domains.n.main": _NO_CERTIFICATES,
        "router.tls.domains.n.sans": _NO_CERTIFICATES,
        "router.tls.options": "",
    },
    anyway={
        "router.observability.metrics": ("true",),
        "router.observability.tracing": ("false",),
        "router.rulesyntax": ("v3", "default"),
        "router.tls.options": ("default",),
    },
    needless=(),
    guards=("router.middlewares", "router.tls.options"),
    elsewhere=("a Service", _ON_SERVICE),
    needed=(),
    canonical=_canonical,
)
SERVICE = Vocabulary(
    prefix=PREFIX,
    controller=CONTROLLER,
    acted_on={
        "service.passhostheader": values.boolean,
        "service.serversscheme": values.one_of("http", "https"),
        "service.sticky.cookie": values.boolean,
        "service.sticky.cookie.name": values.field_name,
        "service.sticky.cookie.secure": values.boolean,
        "service.sticky.cookie.httponly": values.boolean,
        "service.sticky.cookie.samesite": values.one_of("none", "lax", "strict", fold=True),
        "service.sticky.cookie.maxage": values.whole(0),
        "service.sticky.cookie.path": values.token,
        "service.sticky.cookie.domain": values.token,
    },
    not_yet={
        "service.middlewares": "",
        "service.nativelb": ": requests go to endpoints",
        "service.nodeportlb": ": requests go to endpoints",
        "service.serverstransport": ": an endpoint's certificate is verified by the machine's authorities",
    },
    anyway={"service.nativelb": ("false",), "service.nodeportlb": ("false",)},
    needless=(),
    guards=("service.middlewares",),
    elsewhere=("an Ingress", _ON_INGRESS),
    needed=(),
    canonical=_canonical,
)


def asked(annotations: Mapping[str, str]) -> Asked:
    """What an Ingress asks for by its annotations."""
    said, _ = INGRESS.read(annotations)
    guard = INGRESS.guarded_by(annotations)
    doors = frozenset(said.get("router.entrypoints", ENTRY_POINTS))
    secured = _has_tls(said, annotations)
    return Asked(
        policies=replace(
            NONE,
            denied=denied_by(guard) if guard else "",
            unlogged=not said.get("router.observability.accesslogs", True),
        ),
        manner=TRAEFIK,
        priority=said.get("router.priority", 0),
        matcher=said.get("router.pathmatcher", ""),
        # HTTPS never comes by the port for HTTP, which is all that a rule with TLS may be left.
        when=When(http="web" in doors and not secured, https="websecure" in doors),
    )


def _has_tls(said: Said, annotations: Mapping[str, str]) -> bool:
    """Whether the rules are for HTTPS only: by router.tls, or by anything below it."""
    below = (_canonical(name.removeprefix(PREFIX)) for name in annotations if name.startswith(PREFIX))
    return bool(said.get("router.tls", any(name.startswith("router.tls.") for name in below)))


def settled(policies: Policies, annotations: Mapping[str, str], service: str, *, https: bool) -> Policies:
    """The policies of a path that leads to a Service with these annotations, which Traefik calls ``service``.

    ``https``: its port is one for HTTPS, by number or name.
    """
    said, _ = SERVICE.read(annotations)
    guard = SERVICE.guarded_by(annotations)
    if guard and not policies.denied:
        policies = replace(policies, denied=denied_by(guard))
    scheme = said.get("service.serversscheme", "https" if https else "http")
    policies = replace(
        policies,
        own_host=not said.get("service.passhostheader", True),
        upstream_tls=scheme == "https",
        tls_verify=scheme == "https",  # by the machine's authorities, for the endpoint's address
    )
    cookie = "service.sticky.cookie"
    if not said.get(cookie, any(name.startswith(f"{cookie}.") for name in said)):
        return policies
    return replace(
        policies,
        cookie=said.get(f"{cookie}.name", cookie_name(service)),
        cookie_persistent=True,
        cookie_secure=said.get(f"{cookie}.secure", False),
        cookie_by_http=True,
        cookie_readable=not said.get(f"{cookie}.httponly", False),
        cookie_same_site=said.get(f"{cookie}.samesite", "").capitalize(),
        cookie_max_age_s=said.get(f"{cookie}.maxage", 0),
        cookie_path=said.get(f"{cookie}.path", "/"),
        cookie_domain=said.get(f"{cookie}.domain", ""),
    )


def cookie_name(service: str) -> str:
    """The name of the cookie of a service for which nobody says one."""
    return f"_{hashlib.sha1(f'_TRAEFIK_BACKEND_{service}'.encode(), usedforsecurity=False).hexdigest()}"[:6]
