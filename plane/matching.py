"""What a path of a rule matches, and which rule comes first: Kubernetes' rules, Traefik's and Kong's. Pure.

Law: a Slot says all that tells a rule of a host from others of it, so that two rules with the same Slot are one. Rules
are tried in the order of their Slots and the first that takes a request has it:

    Kubernetes  Exact before Prefix, the longest first, by whole elements
    Traefik     the highest priority first, which is the length of the rule as Traefik writes it where nobody says
                another; Prefix is by characters
    Kong        who says more first (host, methods, headers), then expressions and Exact, by regex-priority, then the
                longest; ImplementationSpecific is by characters, or an expression behind ``/~``

Under Traefik and Kong a request that no rule of its host takes may meet one of a wildcard or of any host; under
Kubernetes never. Sources: ``pkg/provider/kubernetes/ingress`` and ``pkg/muxer/http`` of Traefik 3.7;
``internal/dataplane/translator/subtranslator`` of Kong's ingress controller, ``kong/router/transform.lua`` of Kong.
"""

import json
from typing import Any, NamedTuple

from kernels.layout import EXACT, PATH_KINDS, PATTERN, PREFIX, REGEX, STARTS
from plane.model import Object
from plane.policies import ANY_REQUEST, Asked, When
from plane.regex import compiled, literally, of_path, why_not
from plane.requestpath import normalised

TRAEFIK, KONG = "traefik", "kong"
MATCHERS = {"Path": EXACT, "PathPrefix": STARTS, "PathRegexp": PATTERN}  # of Traefik
EXPRESSION_MARK = "/~"  # what Kong's expressions begin with


class Slot(NamedTuple):
    """What a rule takes of its host's requests.

    text    of a Prefix without the slash at its end, which ``slash`` is
    manner  of ``plane.policies.Asked``, and ``order`` by which, the highest first
    """

    kind: int
    text: str
    slash: bool = False
    manner: str = ""
    order: tuple[int, ...] = ()
    when: When = ANY_REQUEST


def slot_of(path: Object, host: str, asked: Asked, *, regex: bool = False) -> Slot:
    """The Slot of a path of a rule for ``host``.

    ``regex``: paths of that host are regular expressions, as ingress-nginx has it; one that is none is meant literally.
    """
    if asked.manner == TRAEFIK:
        return _of_traefik(path, host, asked)
    if asked.manner == KONG:
        return _of_kong(path, host, asked)
    if regex:
        text = path.get("path") or "/"
        return Slot(REGEX, literally(text) if why_not(of_path(text)) else text)
    text = normalised(path.get("path") or "/")
    if path.get("pathType") == PATH_KINDS[EXACT]:
        return Slot(EXACT, text)
    return Slot(PREFIX, text.removesuffix("/"), text.endswith("/"))


def takes(slot: Slot, path: str) -> bool:
    """Whether a normal path is one of the Slot's."""
    if slot.kind == REGEX:
        return bool(compiled(of_path(slot.text), fold=True).search(path))
    if slot.kind == PATTERN:
        return bool(compiled(slot.text).search(path))
    if slot.kind == EXACT:
        return path == slot.text
    return path.startswith(slot.text) and (slot.kind == STARTS or path[len(slot.text) :][:1] in ("", "/"))


def rank(slot: Slot) -> tuple[Any, ...]:
    """What Slots of a host are sorted by; Kubernetes' rules come before others."""
    return tuple(-part for part in slot.order), slot.kind != EXACT, -len(slot.text), not slot.slash


def is_expression(path: Object, asked: Asked) -> bool:
    """Whether a path of a rule is meant as a regular expression by the manner of its Ingress."""
    if path.get("pathType") != "ImplementationSpecific":
        return False
    if asked.manner == KONG:
        return (path.get("path") or "").startswith(asked.matcher or EXPRESSION_MARK)
    return asked.manner == TRAEFIK and MATCHERS.get(asked.matcher) == PATTERN


def expression_of(path: Object, asked: Asked) -> str:
    """The expression that ``is_expression``, as it is compiled: Kong's match where a path begins."""
    text = path.get("path") or "/"
    return f"^(?:{text.removeprefix(asked.matcher or EXPRESSION_MARK)})" if asked.manner == KONG else text


def _pattern(path: Object, asked: Asked) -> str:
    text = expression_of(path, asked)
    return f"^{literally(path.get('path') or '/')}$" if why_not(text) else text


def _of_traefik(path: Object, host: str, asked: Asked) -> Slot:
    said, text = path.get("path") or "", normalised(path.get("path") or "/")
    kind = EXACT if path.get("pathType") == "Exact" else STARTS
    if path.get("pathType") == "ImplementationSpecific":
        kind = MATCHERS.get(asked.matcher, STARTS)
    matcher = next(name for name, each in MATCHERS.items() if each == kind)
    rules = [f"Host({json.dumps(host)})"] if host else []
    rules += [f"{matcher}({json.dumps(said, ensure_ascii=False)})"] if said else []
    length = len(" && ".join(rules).encode())
    found = _pattern(path, asked) if kind == PATTERN else text
    return Slot(kind, found, manner=TRAEFIK, order=(asked.priority or length,), when=asked.when)


def _of_kong(path: Object, host: str, asked: Asked) -> Slot:
    kind, text = path.get("pathType"), normalised(path.get("path") or "/")
    headers = {line.partition(":")[0] for line in asked.when.headers}
    said = bool(host) + bool(asked.when.methods) + bool(headers)
    plain = bool(host) and not any("*" in name for name in (host, *asked.names))
    if is_expression(path, asked):
        order = (said, plain, 1, len(headers), asked.priority, 0)
        return Slot(PATTERN, _pattern(path, asked), manner=KONG, order=order, when=asked.when)
    if kind == "Exact":
        return Slot(EXACT, text, False, KONG, (said, plain, 1, len(headers), asked.priority, 0), asked.when)
    if kind == "Prefix":
        base = text.strip("/")
        order = (said, plain, 0, len(headers), 0, len(base) + 2)
        return Slot(PREFIX, f"/{base}" if base else "", not base, KONG, order, asked.when)
    return Slot(STARTS, text, False, KONG, (said, plain, 0, len(headers), 0, len(text)), asked.when)
