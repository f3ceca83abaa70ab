"""Warnings about the annotations of Ingresses. Pure.

Law: an annotation that does nothing is named, and so is one that does something other than its author may expect.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import groupby

from plane import dialects
from plane.dialects import nginx, traefik
from plane.headerlists import trouble_with
from plane.ingressclass import served
from plane.ingressrules import path_said, trouble_with_fields
from plane.model import Object, Snapshot
from plane.passwords import unusable, users_of
from plane.policies import NOBODY, Asked, names_any_host

# A Service as the host of a URL.
_SERVICE = re.compile(r"https?://([a-z0-9-]+)\.([a-z0-9-]+)\.svc(?:\.cluster\.local)?(?:[:/?]|\Z)")
Said = tuple[str, str]  # (field, what)


def remarks(ingress: Object, snapshot: Snapshot) -> Iterator[Said]:
    """(field, what) for all that is to say."""
    annotations = ingress["metadata"].get("annotations") or {}
    asked = dialects.asked(ingress, snapshot)
    found = sorted(dialects.not_acted_on(ingress, snapshot), key=lambda row: (row.what != dialects.NOT_YET, row))
    if asked.canary:  # also those that would let nobody in do nothing there
        found = [row for row in found if row.annotation not in _idle_guards(annotations)]
    for what, rows in groupby(found, key=lambda row: row.what):
        if what == dialects.NOT_YET:
            yield "metadata.annotations", f"{what}: {', '.join(row.annotation for row in rows)}"
        else:
            yield from ((_field(row.annotation), row.what) for row in rows)
    for row in dialects.unfit(annotations):
        yield _field(row.annotation), f"left out: {row.reason}"
    if asked.canary:
        yield from _idle_on_canary(annotations)
        yield from _canary(ingress, snapshot)
        return
    yield from dialects.expressions(ingress, asked)
    if not asked.when.http and not asked.when.https:
        what = "leaves no request: rules with router.tls are for HTTPS, which never comes by web; add websecure"
        yield _field(f"{traefik.PREFIX}router.entrypoints"), what
    if not asked.manner and not nginx.guarded_by(annotations):
        yield from _secret(asked, snapshot)
    yield from _external(ingress, asked, snapshot)
    yield from _fields(asked, snapshot)
    yield from _default_backend(asked, snapshot)
    yield from _ranges(asked)
    if asked.aliases:
        yield from _aliases(asked, snapshot)


def _field(annotation: str) -> str:
    return f"metadata.annotations[{annotation}]"


def _secret(asked: Asked, snapshot: Snapshot) -> Iterator[Said]:
    if asked.policies.denied:
        denied, guards = asked.policies.denied, ("proxy-ssl-secret", "custom-headers", *nginx.EXTERNAL)
        name = next((each for each in guards if each in denied), "auth-secret")
        yield _field(nginx.PREFIX + name), f"{denied}; requests get 503"
        return
    yield from _tls_secret(asked, snapshot)
    if asked.auth_secret is None:
        return
    namespace, name, by_key = asked.auth_secret
    field, secret = _field(f"{nginx.PREFIX}auth-secret"), snapshot.get("Secret", namespace, name)
    if secret is None:
        yield field, f'there is no Secret "{name}" in namespace {namespace}; requests get 503'
        return
    users = users_of(secret, by_key=by_key)
    if not users:
        where = "keys" if by_key else "lines name:hash under its key auth"
        yield field, f'Secret "{name}" has no {where}; every request gets 401'
    for user in unusable(users):
        what = "the password's hash is none of bcrypt, apr1, MD5, SHA-256, SHA-512, {SHA} and {SSHA}"
        yield field, f'Secret "{name}", user {user}: {what}; this user gets 401'


def _tls_secret(asked: Asked, snapshot: Snapshot) -> Iterator[Said]:
    """What the Secret with certificates towards endpoints lacks."""
    if asked.tls_secret is None or not asked.policies.upstream_tls:
        return
    namespace, name = asked.tls_secret
    field, secret = _field(f"{nginx.PREFIX}proxy-ssl-secret"), snapshot.get("Secret", namespace, name)
    if secret is None:
        yield field, f'there is no Secret "{name}" in namespace {namespace}; requests get 503'
        return
    data = secret.get("data") or {}
    if asked.policies.tls_verify and not data.get("ca.crt"):
        yield field, f'Secret "{name}" has no ca.crt to verify endpoints by; requests get 503'
    if bool(data.get("tls.crt")) != bool(data.get("tls.key")):
        yield field, f'Secret "{name}" has one of tls.crt and tls.key only; endpoints are shown no certificate'


def _external(ingress: Object, asked: Asked, snapshot: Snapshot) -> Iterator[Said]:
    """What of the external authentication lets nobody in."""
    url, field = asked.policies.auth_url, _field(f"{nginx.PREFIX}auth-url")
    spec = ingress["spec"]
    hostless = spec.get("defaultBackend") or any(not rule.get("host") for rule in spec.get("rules") or ())
    if names_any_host(url) and hostless:
        yield field, "asks whatever host a client names where the rule has none; requests there get 503"
    service = _SERVICE.match(url)
    if service and snapshot.get("Service", service[2], service[1]) is None:
        yield field, f'there is no Service "{service[1]}" in namespace {service[2]}; requests get 500'
    if asked.auth_sent is not None and not asked.policies.denied:
        trouble = trouble_with(snapshot.get("ConfigMap", *asked.auth_sent))
        if trouble:
            field = _field(f"{nginx.PREFIX}auth-proxy-set-headers")
            yield field, f'ConfigMap "{"/".join(asked.auth_sent)}" {trouble}; requests get 503'


def _fields(asked: Asked, snapshot: Snapshot) -> Iterator[Said]:
    if asked.fields is not None and not asked.policies.denied:
        trouble = trouble_with_fields(snapshot, asked.fields)
        if trouble:
            field = _field(f"{nginx.PREFIX}custom-headers")
            yield field, f'ConfigMap "{"/".join(asked.fields)}" {trouble}; requests get 503'


def _default_backend(asked: Asked, snapshot: Snapshot) -> Iterator[Said]:
    """Errors that nobody makes an answer for."""
    statuses = ", ".join(asked.policies.errors)
    if asked.default_backend is None:
        if statuses:
            what = f"answers with {statuses} become 404, for there is no {nginx.PREFIX}default-backend to make them"
            yield _field(f"{nginx.PREFIX}custom-http-errors"), what
        return
    namespace, name = asked.default_backend
    if snapshot.get("Service", namespace, name) is None:
        what = f'there is no Service "{name}" in namespace {namespace}'
        yield (
            _field(f"{nginx.PREFIX}default-backend"),
            f"{what}; answers with {statuses} become 404" if statuses else what,
        )


def _ranges(asked: Asked) -> Iterator[Said]:
    policies = asked.policies
    for name, ranges in (("allowlist-source-range", policies.sources_allowed), ("limit-allowlist", policies.unlimited)):
        if NOBODY in ranges:
            yield (
                _field(nginx.PREFIX + name),
                "a range of IPv6 holds nobody: only IPv4 addresses are compared with ranges",
            )
    if NOBODY in policies.sources_denied:
        what = "a range of IPv6 denies every client of IPv6: only IPv4 addresses are compared with ranges"
        yield _field(f"{nginx.PREFIX}denylist-source-range"), what


def _idle_guards(annotations: Mapping[str, str]) -> list[str]:
    """Annotations of a canary that would keep somebody out, if they acted there."""
    return sorted(name for name in annotations if name.startswith(tuple(map(nginx.PREFIX.__add__, nginx.KEEPING_OUT))))


def _idle_on_canary(annotations: Mapping[str, str]) -> Iterator[Said]:
    """Annotations that do nothing, for those of the rule's own Ingress hold for its canary's requests too."""
    guards = _idle_guards(annotations)
    for name in guards:
        yield (
            _field(name),
            "keeps nobody out of a canary: who is let in is said by the Ingress of its rule; write it there",
        )
    acting = {nginx.PREFIX + name for name in nginx.ACTED_ON if name not in nginx.ON_CANARY}
    if idle := sorted(acting & annotations.keys() - set(guards)):
        what = "not acted on, for the Ingress is a canary, whose requests have what the Ingress of its rule says"
        yield "metadata.annotations", f"{what}: {', '.join(idle)}"


def _canary(ingress: Object, snapshot: Snapshot) -> Iterator[Said]:
    """Rules of a canary that take nothing."""
    mains: dict[tuple[str, object], Object] = {}  # rule → its backend
    canaries: dict[tuple[str, object], Object] = {}  # rule → the Ingress whose canary it has
    for obj in served(snapshot):
        canary = bool(dialects.asked(obj, snapshot).canary)
        for host, slot, path, _ in _rules(obj):
            if canary:
                canaries.setdefault((host, slot), obj)
            else:
                mains.setdefault((host, slot), path["backend"])
    for host, slot, path, field in _rules(ingress):
        main, first = mains.get((host, slot)), canaries.get((host, slot))
        if main is None:
            yield field, "a canary of no rule takes nothing; write it for host, path and pathType of another Ingress"
        elif main == path["backend"]:
            yield field, "the canary is the Service of the rule itself, so it changes nothing"
        elif first is not None and first["metadata"] != ingress["metadata"]:
            yield field, f"takes nothing: the rule has the canary {first['metadata']['name']}, and one only"
    if ingress["spec"].get("defaultBackend"):
        yield "spec.defaultBackend", "a canary has rules only; nothing is sent there"


def _rules(obj: Object) -> Iterator[tuple[str, object, Object, str]]:
    """(host, type and path as they are written, path, field) of each rule."""
    for number, rule in enumerate(obj["spec"].get("rules") or ()):
        for index, path in enumerate((rule.get("http") or {}).get("paths") or ()):
            yield (rule.get("host") or "").lower(), path_said(path), path, f"spec.rules[{number}].http.paths[{index}]"


def _aliases(asked: Asked, snapshot: Snapshot) -> Iterator[Said]:
    hosts = {host for obj in served(snapshot) for host, *_ in _rules(obj)}
    for alias in asked.aliases:
        if alias in hosts:
            yield _field(f"{nginx.PREFIX}server-alias"), f'"{alias}" has rules of its own, which count'
