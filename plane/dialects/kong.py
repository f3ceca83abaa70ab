r"""The annotations of Kong's ingress controller, ``konghq.com/…``, on Ingresses and on the Services they lead to.

Law: the names and meanings are those of the controller's version 3, by its documentation, ``internal/annotations`` and
``internal/dataplane``; where the plane differs ``docs/ingress.md`` says so. A plugin may ask who a client is: an
Ingress, or a Service, that names one serves nobody. Pure.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from kernels.layout import EXACT, PATTERN
from kernels.layout import PREFIX as BY_ELEMENTS
from plane.dialects import values
from plane.dialects.vocabulary import Said, Vocabulary, denied_by
from plane.matching import KONG, Slot
from plane.policies import ANY_CASE, NONE, Asked, Policies, When
from plane.regex import groups_of, literally

PREFIX = "konghq.com/"
CONTROLLER = "Kong"
HEADERS = "headers."
MOST_GROUPS = 9  # that a rewrite can name


def _canonical(name: str) -> str:
    return f"{HEADERS}*" if name.startswith(HEADERS) and name != HEADERS else name


_milliseconds = values.whole(1, 2**31 - 2)
_BACKEND_TLS = (
    "ca-certificates-configmaps",
    "ca-certificates-secrets",
    "client-cert",
    "tls-verify",
    "tls-verify-depth",
)
_ON_SERVICE = (
    "connect-timeout",
    "host-header",
    "path",
    "protocol",
    "read-timeout",
    "retries",
    "upstream-policy",
    "write-timeout",
    *_BACKEND_TLS,
)
_ON_INGRESS = (
    "headers-separator",
    f"{HEADERS}*",
    "host-aliases",
    "https-redirect-status-code",
    "methods",
    "path-handling",
    "preserve-host",
    "protocols",
    "regex-prefix",
    "regex-priority",
    "request-buffering",
    "response-buffering",
    "rewrite",
    "snis",
    "strip-path",
)
INGRESS = Vocabulary(
    prefix=PREFIX,
    controller=CONTROLLER,
    acted_on={
        "strip-path": values.boolean,
        "preserve-host": values.boolean,
        "methods": values.methods,
        "protocols": values.list_of("http", "https"),
        "https-redirect-status-code": values.one_of("426", "301", "302", "307", "308"),
        "host-aliases": values.hosts,
        "regex-prefix": values.path,
        "regex-priority": values.whole(),
        f"{HEADERS}*": values.field_values,
        "headers-separator": values.line,
        "rewrite": values.rewritten,
    },
    not_yet={
        "override": "",
        "path-handling": ": paths are joined as v0 does",
        "plugins": "",
        "snis": ": a rule takes requests of any name that TLS was asked for",
    },
    anyway={"path-handling": ("v0",)},
    needless=("request-buffering", "response-buffering", "tags"),
    guards=("plugins",),
    elsewhere=("a Service", _ON_SERVICE),
    needed=(
        ("https-redirect-status-code", "protocols", '"https"'),
        ("headers-separator", f"{HEADERS}*", "the values of a header"),
    ),
    canonical=_canonical,
)
SERVICE = Vocabulary(
    prefix=PREFIX,
    controller=CONTROLLER,
    acted_on={
        "protocol": values.one_of("http", "https"),
        "path": values.literal_path,
        "host-header": values.host,
        "connect-timeout": _milliseconds,
        "read-timeout": _milliseconds,
        "write-timeout": _milliseconds,
        "retries": values.whole(0, 32_767),
    },
    not_yet={
        "override": "",
        "plugins": "",
        "upstream-policy": ": endpoints take turns",
        **dict.fromkeys(_BACKEND_TLS, ": nothing of an endpoint's certificate is verified, and none is shown"),
    },
    anyway={"tls-verify": ("false",)},
    needless=("tags",),
    guards=("plugins", "tls-verify"),
    elsewhere=("an Ingress", _ON_INGRESS),
    needed=(),
    canonical=_canonical,
)


def asked(annotations: Mapping[str, str]) -> Asked:
    """What an Ingress asks for by its annotations."""
    said, _ = INGRESS.read(annotations)
    guard = INGRESS.guarded_by(annotations)
    https = said.get("protocols") == ("https",)
    return Asked(
        policies=replace(
            NONE,
            denied=denied_by(guard) if guard else "",
            https=https,
            https_status=int(said.get("https-redirect-status-code", 426)) if https else 0,
            keep_slash=https,
            own_host=not said.get("preserve-host", True),
        ),
        manner=KONG,
        priority=said.get("regex-priority", 0),
        matcher=said.get("regex-prefix", ""),
        when=When(methods=said.get("methods", ()), headers=_headers(said)),
        names=said.get("host-aliases", ()),
        rewrite=said.get("rewrite", ""),
        strip=said.get("strip-path", False),
    )


def _headers(said: Said) -> tuple[str, ...]:
    """Lines of ``When.headers``; an expression is one value, whatever it holds."""
    separator, found = said.get("headers-separator", ","), []
    for name, text in sorted(said.items()):
        if name.startswith(HEADERS):
            parts = [text] if text.startswith(ANY_CASE) else text.split(separator)
            found += [f"{name.removeprefix(HEADERS).lower()}:{part.strip()}" for part in parts]
    return tuple(found)


def settled(policies: Policies, asked: Asked, slot: Slot | None, annotations: Mapping[str, str]) -> Policies:
    """The policies of a path, if there is one, that leads to a Service with these annotations."""
    said, _ = SERVICE.read(annotations)
    guard = SERVICE.guarded_by(annotations)
    if guard and not policies.denied:
        policies = replace(policies, denied=denied_by(guard))
    if policies.own_host and "host-header" in said:
        policies = replace(policies, own_host=False, upstream_host=said["host-header"])
    return replace(
        policies,
        upstream_tls=said.get("protocol") == "https",
        connect_timeout_ms=said.get("connect-timeout", 0),
        read_timeout_ms=said.get("read-timeout", 0),
        send_timeout_ms=said.get("write-timeout", 0),
        retry_tries=said["retries"] + 1 if "retries" in said else 0,
        **_rewritten(asked, slot, said.get("path", "/")),
    )


def _rewritten(asked: Asked, slot: Slot | None, base: str) -> dict[str, Any]:
    """What is asked of the endpoint instead: ``rewrite``, else the path, stripped or not, below that of the Service."""
    if slot is not None and asked.rewrite:
        return {"rewrite_from": f"^{_matched(slot)[0]}", "rewrite_to": asked.rewrite}
    below = base.removesuffix("/")
    if slot is not None and asked.strip:
        matched, groups = _matched(slot)
        if groups + 1 > MOST_GROUPS:
            return {"denied": f"strip-path cannot count more than {MOST_GROUPS - 1} groups of {slot.text}"}
        if slot.kind in (BY_ELEMENTS, EXACT):
            return {"rewrite_from": f"^{matched}(/.*|)$", "rewrite_to": f"{below}$1"}
        return {"rewrite_from": f"^{matched}/?(.*)$", "rewrite_to": f"{below}/${groups + 1}"}
    if not below:
        return {}
    return {"rewrite_from": "^/$|^(/.*)$" if base == below else "^(/.*)$", "rewrite_to": f"{below}$1"}


def _matched(slot: Slot) -> tuple[str, int]:
    """The expression for what a path matched, without its anchor, and how many groups it has."""
    if slot.kind != PATTERN:
        return f"(?-i:{literally(slot.text)})", 0
    text = f"(?-i:{slot.text.removeprefix('^')})"
    return text, groups_of(text)
