"""Where a request would go, and why nowhere else: from a Snapshot alone, without sockets and without Ray. Pure.

Law: the answer comes from what would carry the request, the compiled Routes or the compiled Fib, and from the kernels
that pick from them; this file only puts it in words.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any
from urllib.parse import SplitResult

import numpy as np

from kernels.layout import (
    EWMA,
    INGRESS_ALGORITHMS,
    LC,
    MAGLEV,
    MH,
    NQ,
    P2C,
    RANDOM,
    RR,
    SED,
    SH,
    WLC,
    WRR,
)
from kernels.lb import select
from plane import ingressrules, routecompiler
from plane.addresses import int_to_ip, ip_to_int
from plane.balance import BY_CLIENT, Balancer, Standing, client_of, seed_of
from plane.certificates import is_for, trouble_with_pair
from plane.conduct import UPGRADE_REQUIRED, Request, Upstream, met
from plane.dns.names import followed, loops, service_key
from plane.errors import ManifestError, Problem
from plane.explain.flow import explain_flow, service_named
from plane.explain.policed import excused, policed, sticky
from plane.explain.redirects import redirected_by
from plane.families import ipv4
from plane.model import Endpoint, Object, Service, ServicePort, Snapshot, service_endpoints, slices_by_service
from plane.reasons import Reasons
from plane.requestpath import host_of, normalised
from plane.router import Match, Router, names_for
from plane.routes import External, Origin, Port, Routes

FORWARDED = 200
ELSEWHERE = (301, 302, 307, 308, UPGRADE_REQUIRED)  # what HTTPS is asked for with


@dataclass(frozen=True)
class Explanation:
    """The answer.

    status     what the client would see of the plane: 200 stands for whatever the endpoint answers, None for no answer
               at all, a connection that is refused
    redirect   where the client is sent instead
    rule       of an Ingress ``field``, ``host``, ``pathType`` and ``path``, of a Service ``frontend`` and ``algorithm``
    endpoints  all of the Service's port, in whatever condition; ``used`` tells those that a request may go to
    chosen     the one of them that this client gets
    upstream   ``method``, ``path``, ``host`` and ``headers`` that the endpoint gets of an Ingress, the headers where
               they are of a policy
    response_headers  that policies put into the answer
    decided_by        a URL that is asked whether the request goes on; the rest is what follows if it says so
    reasons    sentences
    """

    request: str
    status: int | None = None
    redirect: str | None = None
    ingress: str | None = None
    rule: dict[str, Any] | None = None
    service: str | None = None
    port: int | str | None = None
    endpoints: tuple[dict[str, Any], ...] = ()
    chosen: dict[str, Any] | None = None
    upstream: dict[str, Any] | None = None
    response_headers: dict[str, str] = field(default_factory=dict)
    decided_by: str | None = None
    reasons: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """An object of all the fields but ``request``."""
        found = asdict(self)
        del found["request"]
        return {**found, "endpoints": list(found["endpoints"]), "reasons": list(found["reasons"])}

    def render(self) -> str:
        """Some lines of text for people."""
        rows: list[tuple[str, Any]] = [("request", self.request), ("status", self.status or "connection refused")]
        if self.status == FORWARDED:
            rows[1] = ("status", "forwarded")
        rows.append(("if", f"{self.decided_by} lets it in" if self.decided_by else None))
        rows.append(("redirect", self.redirect))
        rows.append(("ingress", self.ingress))
        if self.rule:
            rows.append(("rule", "  ".join(f"{name} {value}" for name, value in self.rule.items() if value != "")))
        rows.append(("service", f"{self.service} port {self.port}" if self.service else None))
        for endpoint in self.endpoints:
            rows.append(("endpoint", f"{_address(endpoint)}  {_state(endpoint)}  {endpoint['pod'] or ''}".rstrip()))
        rows.append(("chosen", _address(self.chosen) if self.chosen else None))
        rows += [("header", f"{name}: {value}") for name, value in self.response_headers.items()]
        rows += [("because" if number == 0 else "", reason) for number, reason in enumerate(self.reasons)]
        return "".join(f"{name:9} {value}\n" for name, value in rows if value is not None)

    __str__ = render


def explain_request(
    snapshot: Snapshot,
    url: SplitResult,
    *,
    method: str = "GET",
    headers: Iterable[tuple[str, str]] = (),
    from_ip: str | None = None,
) -> Explanation:
    """What becomes of a request to ``url``, which names a host of an Ingress, a ClusterIP or ``<svc>.<ns>.svc``.

    ``headers`` may hold another Host; ``from_ip`` is the client's address. Raises ManifestError for one that is none.
    """
    if from_ip and not ipv4(from_ip):
        raise ManifestError([Problem("", 0, "", "--from-ip", f'"{from_ip}" is no IPv4 address')])
    request = f"{method} {url.geturl()}"
    service = _service_of(snapshot, url.hostname or "")
    if service is not None:
        return _through_cluster_ip(snapshot, request, service, url.port or _default_port(url), from_ip)
    sent = {name.lower(): value for name, value in headers}
    host = sent.get("host") or url.netloc.rpartition("@")[2]
    if host_of(host) != url.hostname:
        request += f" (Host: {host})"
    length = sent.get("content-length", "")
    seen = Request(
        method=method,
        scheme=url.scheme,
        host=host,
        uri=(url.path or "/") + (f"?{url.query}" if url.query else ""),
        client=ip_to_int(from_ip) if from_ip else 0,
        address=from_ip or "",
        length=int(length) if length.isdecimal() else 0,
        value=lambda name: sent.get(name.lower(), ""),
    )
    return _through_ingress(snapshot, request, seen, url)


def _default_port(parts: SplitResult) -> int:
    return 443 if parts.scheme == "https" else 80


def _service_of(snapshot: Snapshot, host: str) -> Service | None:
    """The Service that a URL's host means by ClusterIP or by DNS name."""
    if not ipv4(host):
        return service_named(snapshot, host) if host.endswith((".svc", ".svc.cluster.local")) else None
    return next((each for each in map(Service.of, snapshot.all("Service")) if each.cluster_ip == host), None)


def _through_cluster_ip(
    snapshot: Snapshot, request: str, service: Service, port: int, client: str | None
) -> Explanation:
    """A connection to a ClusterIP, as ``explain.flow`` has it."""
    found = explain_flow(
        snapshot, "TCP", service.cluster_ip or f"{service.name}.{service.namespace}", port, from_ip=client
    )
    if service.type == "ExternalName":
        service = followed(snapshot, service)[1] or service
    there = next((row for row in service.ports if row.port == port and row.protocol == "TCP"), None)
    rows = _rows(service, _endpoints(snapshot, service, there)) if there else ()
    chosen = None
    if found.chosen:
        ip, _, number = found.chosen.rpartition(":")
        chosen = _row_at(rows, (ip, int(number)))
    return Explanation(
        request,
        status=FORWARDED if chosen else None,
        service=service.full_name,
        port=port,
        rule={"frontend": found.frontend, "algorithm": found.algorithm} if found.frontend else None,
        endpoints=rows,
        chosen=chosen,
        reasons=(f"{service.full_name} has ClusterIP {service.cluster_ip}, no Ingress is on the way", *found.reasons)
        if chosen
        else found.reasons,
    )


def _through_ingress(snapshot: Snapshot, request: str, seen: Request, parts: SplitResult) -> Explanation:
    """A request to the Ingress, decided by its Router, its policies and ``kernels.lb.select``."""
    table = routecompiler.compile(snapshot)
    path = parts.path or "/"
    router = Router(table)

    def meets(row: int) -> bool:
        return met(table.when(row), seen.method, seen.scheme, seen.value)

    if unclear := router.unclear(seen.host, path, meets):
        return Explanation(request, status=400, reasons=(unclear,))
    match = router.match(seen.host, path, meets)
    known = _by_rule(snapshot, table, match, seen, parts, request)
    upstream = excused(table, match, seen, known.status or 0)
    return known if upstream is None else _excused(snapshot, table, match, known, upstream, seen)


def _excused(
    snapshot: Snapshot, table: Routes, match: Match, instead_of: Explanation, upstream: Upstream, seen: Request
) -> Explanation:
    """The answer of a default backend in the place of one of the plane's own."""
    row = table.policy(match.policy).errors_target
    known = replace(instead_of, status=404, redirect=None, endpoints=(), chosen=None, upstream=None)
    if not row:
        why = f"an answer of {instead_of.status} is for a default backend, and there is none: 404"
        return replace(known, reasons=(why, *instead_of.reasons))
    named = table.services[table.targets[row]["service"]]
    service, port = _named(snapshot, named)
    endpoints = _rows(service, _endpoints(snapshot, service, port)) if service and port else ()
    sent = {"method": seen.method, "path": upstream.uri, "host": seen.host, "headers": dict(upstream.fields)}
    why = f"an answer of {instead_of.status} is made by the default backend, Service {named.service}"
    known = replace(known, status=FORWARDED, service=named.service, port=named.port, endpoints=endpoints)
    chosen = None if row in table.externals else _row_at(endpoints, _first_in_turn(table, row))
    return replace(known, chosen=chosen, upstream=sent, reasons=(why, *instead_of.reasons))


def _by_rule(
    snapshot: Snapshot, table: Routes, match: Match, seen: Request, parts: SplitResult, request: str
) -> Explanation:
    """By its rule and that rule's policies, whatever a default backend makes of it."""
    path = parts.path or "/"
    found = policed(table, match, seen, functools.partial(_unanswered, snapshot))
    winner = table.origins[found.origin]
    reasons = list(Reasons(snapshot, table, seen, normalised(path), winner).lines())
    if parts.scheme == "https":
        reasons.insert(0, _certificate(table, parts.hostname or ""))
    reasons = [*found.reasons, *reasons]
    known = Explanation(request, status=404, response_headers=dict(found.fields), reasons=tuple(reasons))
    known = replace(known, decided_by=found.asked or None)
    if found.answer is not None:
        fields = {**dict(found.answer.fields), **dict(found.fields)}
        redirect = found.answer.location or None
        policies = table.policy(match.policy)
        by_https = policies.https and seen.scheme == "http" and found.answer.status in ELSEWHERE
        if by_https or (redirect and policies.redirect):
            reasons[0] = redirected_by(snapshot, winner, policies, seen)
            known = replace(known, reasons=tuple(reasons))
        known = replace(known, status=found.answer.status, redirect=redirect, response_headers=fields)
        return replace(known, ingress=f"{winner.namespace}/{winner.ingress}", rule=_place_of(snapshot, winner))
    if not found.target:
        return replace(known, reasons=("no rule takes the request, and there is no default backend", *reasons))
    target = table.targets[found.target]
    named = table.services[target["service"]]
    service, port = _named(snapshot, named)
    endpoints = _endpoints(snapshot, service, port) if service and port else []
    known = replace(
        known,
        status=int(target["status"]),
        ingress=f"{winner.namespace}/{winner.ingress}",
        rule=_place_of(snapshot, winner),
        service=named.service,
        port=named.port,
        endpoints=_rows(service, endpoints),
    )
    upstream = {
        "method": seen.method,
        "path": found.upstream.uri,
        "host": found.upstream.host or seen.host,
        "headers": dict(found.upstream.fields),
    }
    if external := table.externals.get(found.target):
        assert service is not None
        if table.policy(match.policy).own_host:
            upstream["host"] = f"{external.name}:{external.port}"
        why = (_by_name(snapshot, service, external), *reasons)
        return replace(known, status=FORWARDED, upstream=upstream, reasons=why)
    if not target["endpoints"]:
        return replace(known, reasons=(_why_nobody(named, service, port, endpoints), *reasons))
    chosen, turn = _chosen(table, match, found.target, seen)
    if table.policy(match.policy).own_host:
        upstream["host"] = "{}:{}".format(*chosen)
    return replace(
        known, status=FORWARDED, chosen=_row_at(known.endpoints, chosen), upstream=upstream, reasons=(*reasons, turn)
    )


def _chosen(table: Routes, match: Match, target: int, seen: Request) -> tuple[tuple[str, int], str]:
    """Address of the endpoint that gets the request, and why that one."""
    row = table.targets[target]
    numbers = table.endpoints[int(row["first_endpoint"]) :][: int(row["endpoints"])]
    addresses = [(int_to_ip(table.backends[number]["ip"]), int(table.backends[number]["port"])) for number in numbers]
    kept = sticky(table, match, target, seen, [f"{ip}:{port}" for ip, port in addresses])
    if kept is not None:
        return addresses[kept], "affinity: the cookie says so, or what requests are told apart by"
    algorithm = int(row["algorithm"])
    if algorithm not in BY_CLIENT:
        return _first_in_turn(table, target), BALANCED[algorithm]
    backends = [
        _Candidate(int(table.backends[number]["weight"]), seed_of(ip_to_int(ip), port))
        for number, (ip, port) in zip(numbers, addresses, strict=True)
    ]
    chosen = Balancer(algorithm).next(backends, backends, client_of(seen.address), 0.0)
    return addresses[backends.index(chosen)], BALANCED[algorithm]


@dataclass(eq=False)
class _Candidate:
    """An endpoint that has not been asked yet."""

    weight: int
    seed: int
    endpoint: Standing = field(default_factory=Standing)


_LOADED = "of endpoints without requests it is one in turn, and a running plane counts them"
_BY_ADDRESS = "the client's address leads to this endpoint"
# Why an algorithm gives this endpoint, on a plane that nobody has used yet.
BALANCED = {
    RANDOM: "random: the endpoint is drawn, and may be another one",
    RR: "round robin: this endpoint is the first in turn, the next request gets the next",
    WRR: "wrr: this endpoint is in turn by weight",
    **{each: f"{INGRESS_ALGORITHMS[each]}: {_LOADED}" for each in (LC, WLC, SED, NQ)},
    **{each: f"{INGRESS_ALGORITHMS[each]}: {_BY_ADDRESS}" for each in (SH, MH)},
    MAGLEV: "maglev: the client's address and the port of its connection lead to an endpoint, with port 0 to this one",
    P2C: "p2c: of two endpoints that are drawn the one with fewer requests",
    EWMA: "ewma: of two endpoints that are drawn the one that has been faster",
}


def _place_of(snapshot: Snapshot, origin: Origin) -> dict[str, Any]:
    """The rule of an Ingress that an origin means."""
    if origin.rule < 0:
        return {"field": origin.field}
    rule = _spec(snapshot, origin)["rules"][origin.rule]
    path = rule["http"]["paths"][origin.path]
    said = {"host": rule.get("host") or "", "pathType": path.get("pathType"), "path": path.get("path") or "/"}
    return {"field": origin.field, **said}


def _named(snapshot: Snapshot, named: Port) -> tuple[Service | None, ServicePort | None]:
    """The Service and its port that a target is."""
    namespace, _, name = named.service.partition("/")
    port = {"name" if isinstance(named.port, str) else "number": named.port}
    return ingressrules.find_port(snapshot, namespace, {"name": name, "port": port})


def _spec(snapshot: Snapshot, origin: Origin) -> Object:
    return (snapshot.get("Ingress", origin.namespace, origin.ingress) or {})["spec"]


def _certificate(table: Routes, host: str) -> str:
    by_host = {row.host: row for row in table.certificates}
    found = next((by_host[name] for name in names_for(host) if name in by_host), None)
    if found is None:
        return "HTTPS: the certificate is the default one: no spec.tls has one for this host"
    trouble = trouble_with_pair(found.chain, found.key)
    if not trouble and not is_for(found.chain, found.host):
        trouble = "has a certificate that does not name it"
    if trouble:
        return f'HTTPS: the certificate is the default one: the Secret of spec.tls for "{found.host}" {trouble}'
    return f'HTTPS: the certificate is that of spec.tls for "{found.host}"'


def _unanswered(snapshot: Snapshot, url: SplitResult) -> str:
    """Why nobody answers a URL, as far as a Snapshot tells: it is that of a Service, which leads nowhere."""
    host = url.hostname or ""
    try:
        number = url.port or _default_port(url)
    except ValueError:
        return f"{url.netloc} is no host"
    service = _service_of(snapshot, host)
    if service is None:
        name, _, rest = host.partition(".")
        in_cluster = service_key(host.removesuffix(".cluster.local") + ".cluster.local")
        return f'there is no Service "{name}" in namespace {rest.partition(".")[0]}' if in_cluster else ""
    if service.type == "ExternalName":
        end = followed(snapshot, service)[1]
        if end is None:
            loop = f"Service {service.full_name} is an ExternalName that leads back to itself"
            return loop if loops(snapshot, service) else ""
        service = end
    slices = slices_by_service(snapshot).get((service.namespace, service.name), ())
    by_port = service_endpoints(service, slices)
    if not service.cluster_ip:  # its name is that of its endpoints, whatever ports they have
        endpoints = [row for rows in by_port.values() for row in rows]
        return "" if ingressrules.usable(endpoints) else _nobody(service.full_name, endpoints)
    port = next((row for row in service.ports if row.port == number and row.protocol == "TCP"), None)
    if port is None:
        return _why_nobody(Port(service.full_name, number), service, None, ())
    return "" if ingressrules.usable(by_port[port.name]) else _nobody(service.full_name, by_port[port.name])


def _why_nobody(named: Port, service: Service | None, port: ServicePort | None, endpoints: Sequence[Endpoint]) -> str:
    if service is None:
        return f"there is no Service {named.service}"
    if port is None:
        there = ", ".join(f"{row.port} ({row.name})" if row.name else str(row.port) for row in service.ports) or "none"
        return f"Service {named.service} has no TCP port {named.port}; it has {there}"
    if service.type == "ExternalName":
        return f"Service {named.service} is an ExternalName that leads back to itself"
    return _nobody(named.service, endpoints)


def _by_name(snapshot: Snapshot, service: Service, external: External) -> str:
    names, end = followed(snapshot, service)
    where = f"which is Service {end.full_name}" if end else f"whose address the ingress asks for, port {external.port}"
    return f"Service {service.full_name} is an ExternalName: the request goes to {' → '.join(names)}, {where}"


def _first_in_turn(table: Routes, target: int) -> tuple[str, int]:
    """Address of the endpoint that a round robin which begins gives."""
    row = table.targets[target]
    turns = np.zeros((len(table.targets), 2), np.int64)
    turn = select.take_turn(turns, target, row["endpoints"])
    backend = table.backends[select.at(table.endpoints, row["first_endpoint"], row["endpoints"], turn)]
    return int_to_ip(backend["ip"]), int(backend["port"])


def _endpoints(snapshot: Snapshot, service: Service, port: ServicePort) -> list[Endpoint]:
    """All endpoints of a port, whatever their condition."""
    slices = slices_by_service(snapshot).get((service.namespace, service.name), ())
    return service_endpoints(service, slices)[port.name]


def _nobody(service: str, endpoints: Sequence[Endpoint]) -> str:
    if not endpoints:
        return f"Service {service} has no endpoints: its selector selects no pod, or there is none"
    return f"none of the {len(endpoints)} endpoints of Service {service} is ready"


def _rows(service: Service | None, endpoints: Sequence[Endpoint]) -> tuple[dict[str, Any], ...]:
    used = ingressrules.usable(endpoints)
    return tuple(
        {
            "ip": row.ip,
            "port": row.port,
            "pod": f"{service.namespace}/{row.pod}" if service and row.pod else None,
            "node": row.node or None,
            "ready": row.ready,
            "serving": row.serving,
            "terminating": row.terminating,
            "used": row in used,
        }
        for row in endpoints
    )


def _row_at(rows: Iterable[dict[str, Any]], address: tuple[str, int]) -> dict[str, Any]:
    return next(row for row in rows if (row["ip"], row["port"]) == address)


def _state(row: dict[str, Any]) -> str:
    return "terminating" if row["terminating"] else "ready" if row["ready"] else "not ready"


def _address(row: dict[str, Any]) -> str:
    return f"{row['ip']}:{row['port']}"
