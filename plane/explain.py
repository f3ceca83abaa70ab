"""Where a request would go, and why nowhere else: from a Snapshot alone, without sockets and without Ray. Pure.

Law: the answer comes from what would carry the request, the compiled Routes or the compiled Fib, and from the kernels
that pick from them; this file only puts it in words.
"""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any
from urllib.parse import SplitResult, urlsplit

import numpy as np

from kernels.layout import ALGORITHMS, NO_FRONTEND, TCP, Fib, Flows, Verdicts
from kernels.lb import select
from kernels.lb.forward import create_steering, forward, pool_for
from plane import fib, routes
from plane.addresses import int_to_ip, ip_to_int
from plane.errors import ManifestError, Problem
from plane.model import Endpoint, Object, Service, ServicePort, Snapshot, service_endpoints, slices_by_service
from plane.reasons import Reasons, field_of
from plane.requestpath import host_of, normalised
from plane.router import Router, names_for
from plane.routes import Origin, Port, Routes

FORWARDED = 200
# The connection that is asked about, as far as the URL does not say: a client's first port on Linux, at time 0.
CLIENT_IP, CLIENT_PORT, NOW_NS = "127.0.0.1", 32768, 0
_LOADED = "of endpoints without connections this is the first, and a running plane counts them"
# Why an algorithm gives this endpoint, on a plane that nobody has used yet.
BECAUSE = {
    "random": f"{{connection}} draws this endpoint at time {NOW_NS}, at another time perhaps another",
    "rr": "this endpoint is the first in turn, the next connection gets the next",
    "wrr": "this endpoint is the first in turn by weight",
    "sh": "the client's address falls to this endpoint",
    "dh": "the address that is connected to falls to this endpoint",
    "mh": "the client's address hashes to a slot of this endpoint",
    "maglev": "{connection} hashes to a slot of this endpoint, and always will",
    "p2c": "of two endpoints drawn, neither of which has connections yet, this is the first",
    **dict.fromkeys(("lc", "wlc", "sed", "nq"), _LOADED),
}


@dataclass(frozen=True)
class Explanation:
    """The answer.

    status     what the client would see of the plane: 200 stands for whatever the endpoint answers, None for no answer
               at all, a connection that is refused
    rule       of an Ingress ``field``, ``host``, ``pathType`` and ``path``, of a Service ``frontend`` and ``algorithm``
    endpoints  all of the Service's port, in whatever condition; ``used`` tells those that a request may go to
    chosen     the one of them that this client gets
    reasons    sentences
    """

    request: str
    status: int | None = None
    ingress: str | None = None
    rule: dict[str, Any] | None = None
    service: str | None = None
    port: int | str | None = None
    endpoints: tuple[dict[str, Any], ...] = ()
    chosen: dict[str, Any] | None = None
    reasons: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """An object of ``status, ingress, rule, service, port, endpoints, chosen, reasons``."""
        found = asdict(self)
        del found["request"]
        return {**found, "endpoints": list(found["endpoints"]), "reasons": list(found["reasons"])}

    def render(self) -> str:
        """Some lines of text for people."""
        rows: list[tuple[str, Any]] = [("request", self.request), ("status", self.status or "connection refused")]
        if self.status == FORWARDED:
            rows[1] = ("status", "forwarded")
        rows.append(("ingress", self.ingress))
        if self.rule:
            rows.append(("rule", "  ".join(f"{name} {value}" for name, value in self.rule.items() if value != "")))
        rows.append(("service", f"{self.service} port {self.port}" if self.service else None))
        for endpoint in self.endpoints:
            rows.append(("endpoint", f"{_address(endpoint)}  {_state(endpoint)}  {endpoint['pod'] or ''}".rstrip()))
        rows.append(("chosen", _address(self.chosen) if self.chosen else None))
        rows += [("because" if number == 0 else "", reason) for number, reason in enumerate(self.reasons)]
        return "".join(f"{name:9} {value}\n" for name, value in rows if value is not None)

    __str__ = render


def explain(
    snapshot: Snapshot,
    url: str,
    *,
    method: str = "GET",
    headers: Iterable[tuple[str, str]] = (),
    from_ip: str | None = None,
) -> Explanation:
    """What becomes of a request to ``url``, which names a host of an Ingress, a ClusterIP or ``<svc>.<ns>.svc``.

    ``headers`` may hold another Host; ``from_ip`` is the client's address. Raises ManifestError for a URL or an address
    that is none.
    """
    parts = _parsed(url)
    client = _checked_ip(from_ip) if from_ip else CLIENT_IP
    service = _service_of(snapshot, parts.hostname or "")
    request = f"{method} {parts.geturl()}"
    if service is not None:
        return _through_cluster_ip(snapshot, request, service, parts.port or _default_port(parts), client)
    host = next((value for name, value in headers if name.lower() == "host"), parts.netloc.rpartition("@")[2])
    if host_of(host) != parts.hostname:
        request += f" (Host: {host})"
    return _through_ingress(snapshot, request, host, parts)


def _parsed(url: str) -> SplitResult:
    try:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ManifestError(
            [Problem("", 0, "", "URL", f'"{url}" is no URL; write one such as http://example.com/path')]
        )
    return parts


def _checked_ip(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise ManifestError([Problem("", 0, "", "--from-ip", f'"{text}" is no IPv4 address')]) from None


def _default_port(parts: SplitResult) -> int:
    return 443 if parts.scheme == "https" else 80


def _service_of(snapshot: Snapshot, host: str) -> Service | None:
    """The Service that a URL's host means by ClusterIP or by DNS name."""
    name, _, rest = host.partition(".")
    namespace, _, zone = rest.partition(".")
    for obj in snapshot.all("Service"):
        service = Service.of(obj)
        by_name = (service.name, service.namespace) == (name, namespace) and zone in ("svc", "svc.cluster.local")
        if by_name or (service.cluster_ip and service.cluster_ip == host):
            return service
    return None


def _through_cluster_ip(snapshot: Snapshot, request: str, service: Service, port: int, client: str) -> Explanation:
    """A connection to a ClusterIP, decided by ``kernels.lb.forward``."""
    known = Explanation(request, service=service.full_name, port=port)
    if not service.cluster_ip:
        why = "is headless" if service.type == "ClusterIP" else f"is of type {service.type}"
        return replace(known, reasons=(f"Service {service.full_name} {why}: it has no ClusterIP to connect to",))
    found = next((row for row in service.ports if row.port == port and row.protocol == "TCP"), None)
    endpoints = _endpoints(snapshot, service, found) if found else []
    table = fib.compile(snapshot)
    outcome, row, backend = _decided(table, client, service.cluster_ip, port)
    if outcome == NO_FRONTEND:
        there = ", ".join(str(each.port) for each in service.ports if each.protocol == "TCP") or "none"
        why = f"Service {service.full_name} has no TCP port {port}, it has {there}: the connection is refused"
        return replace(known, reasons=(why,))
    _, pool = pool_for(table, create_steering(table, 0), row, ip_to_int(client))
    algorithm = ALGORITHMS[table.pools[pool]["algorithm"]]
    rule = {"frontend": f"{service.cluster_ip}:{port}/TCP", "algorithm": algorithm}
    if not backend:
        why = f"{_nobody(service.full_name, endpoints)}: the connection is refused"
        return replace(known, rule=rule, endpoints=_rows(service, endpoints), reasons=(why,))
    connection = f"the connection from {client}:{CLIENT_PORT}"
    why = f"{algorithm}: {BECAUSE[algorithm].format(connection=connection)}"
    if service.affinity_s:
        why = (
            f"session affinity: {client} keeps this endpoint until {service.affinity_s} s after its last new connection"
        )
    rows = _rows(service, endpoints)
    address = int_to_ip(table.backends[backend]["ip"]), int(table.backends[backend]["port"])
    return replace(
        known,
        status=FORWARDED,
        rule=rule,
        endpoints=rows,
        chosen=_row_at(rows, address),
        reasons=(f"{service.full_name} has ClusterIP {service.cluster_ip}, no Ingress is on the way", why),
    )


def _decided(table: Fib, client: str, ip: str, port: int) -> tuple[int, int, int]:
    """(outcome, frontend, backend) of one new connection."""
    columns = ((ip_to_int(client), "u4"), (ip_to_int(ip), "u4"), (CLIENT_PORT, "u2"), (port, "u2"), (TCP, "u1"))
    flows = Flows(*(np.array([value], kind) for value, kind in columns))
    verdicts = Verdicts(np.zeros(1, np.uint8), np.zeros(1, np.uint32), np.zeros(1, np.uint32))
    forward(table, create_steering(table, 0), flows, NOW_NS, verdicts)
    return int(verdicts.outcome[0]), int(verdicts.frontend[0]), int(verdicts.backend[0])


def _through_ingress(snapshot: Snapshot, request: str, host: str, parts: SplitResult) -> Explanation:
    """A request to the Ingress, decided by its Router and ``kernels.lb.select``."""
    table = routes.compile(snapshot)
    match = Router(table).match(host, parts.path or "/")
    winner = table.origins[match.origin]
    reasons = list(Reasons(snapshot, table, host_of(host), normalised(parts.path or "/"), winner).lines())
    if parts.scheme == "https":
        reasons.insert(0, _certificate(table, parts.hostname or ""))
    known = Explanation(request, status=404)
    if not match.target:
        return replace(known, reasons=("no rule takes the request, and there is no default backend", *reasons))
    backend, rule = _rule(snapshot, winner)
    target = table.targets[match.target]
    named = table.services[target["service"]]
    service, port = routes.find_port(snapshot, winner.namespace, backend)
    endpoints = _endpoints(snapshot, service, port) if service and port else []
    known = replace(
        known,
        status=int(target["status"]),
        ingress=f"{winner.namespace}/{winner.ingress}",
        rule=rule,
        service=named.service,
        port=named.port,
        endpoints=_rows(service, endpoints),
    )
    if not target["endpoints"]:
        return replace(known, reasons=(_why_nobody(named, service, port, endpoints), *reasons))
    chosen = _row_at(known.endpoints, _first_in_turn(table, match.target))
    turn = "round robin: this endpoint is the first in turn, the next request gets the next"
    return replace(known, status=FORWARDED, chosen=chosen, reasons=(*reasons, turn))


def _rule(snapshot: Snapshot, origin: Origin) -> tuple[Object, dict[str, Any]]:
    """The Service that a rule of an Ingress names, and the rule."""
    spec = (snapshot.get("Ingress", origin.namespace, origin.ingress) or {})["spec"]
    if origin.rule < 0:
        return spec["defaultBackend"].get("service") or {}, {"field": "spec.defaultBackend"}
    rule = spec["rules"][origin.rule]
    path = rule["http"]["paths"][origin.path]
    said = {"host": rule.get("host") or "", "pathType": path.get("pathType"), "path": path.get("path") or "/"}
    return path["backend"].get("service") or {}, {"field": field_of(origin.rule, origin.path), **said}


def _certificate(table: Routes, host: str) -> str:
    hosts = {row.host for row in table.certificates}
    found = next((name for name in names_for(host) if name in hosts), None)
    what = f'that of spec.tls for "{found}"' if found else "the default one: no spec.tls has one for this host"
    return f"HTTPS: the certificate is {what}"


def _why_nobody(named: Port, service: Service | None, port: ServicePort | None, endpoints: Sequence[Endpoint]) -> str:
    if service is None:
        return f"there is no Service {named.service}"
    if port is None:
        there = ", ".join(f"{row.port} ({row.name})" if row.name else str(row.port) for row in service.ports) or "none"
        return f"Service {named.service} has no TCP port {named.port}; it has {there}"
    if service.type == "ExternalName":
        return f"Service {named.service} is an ExternalName, which has no endpoints"
    return _nobody(named.service, endpoints)


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
    used = routes.usable(endpoints)
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
