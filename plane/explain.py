"""Where a request would go, and why nowhere else: from a Snapshot alone, without sockets and without Ray. Pure.

Law: the answer comes from what would carry the request, the compiled Routes or the compiled Fib and the kernels that pick
from them; this file only says it in words. Every rule of every Ingress gets its reason.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

import numpy as np

from kernels.layout import ALGORITHMS, EXACT, NO_ENDPOINT, NO_FRONTEND, OUTCOMES, PATH_KINDS, TCP, Fib, Flows, Verdicts
from kernels.lb import select
from kernels.lb.forward import create_steering, forward
from plane import fib, routes
from plane.addresses import int_to_ip, ip_to_int
from plane.errors import ManifestError, Problem
from plane.ingressclass import served, unserved_because
from plane.model import Endpoint, Object, Service, ServicePort, Snapshot, service_endpoints, slices_by_service
from plane.requestpath import host_of, normalised
from plane.router import Match, Router, names_for
from plane.routes import Routes

FORWARDED = 200
# The connection that is asked about, as far as the URL does not say: a client's first port on Linux, at time 0.
CLIENT_IP, CLIENT_PORT, NOW_NS = "127.0.0.1", 32768, 0


@dataclass(frozen=True)
class Explanation:
    """The answer. ``status`` is what the client would see of the plane: 200 stands for whatever the endpoint answers, and
    None for no HTTP at all, a refused connection."""

    request: str
    status: int | None = None
    ingress: str | None = None
    rule: dict[str, Any] | None = None
    service: str | None = None
    port: int | str | None = None
    endpoints: tuple[dict[str, Any], ...] = ()
    chosen: dict[str, Any] | None = None
    reasons: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """``{"status", "ingress", "rule", "service", "port", "endpoints", "chosen", "reasons"}``, the last but one an item
        of ``endpoints``."""
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
            rows.append(("endpoint", f"{_address(endpoint)}  {endpoint['state']}  {endpoint['pod'] or ''}".rstrip()))
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
    return _Ingresses(snapshot, host, parts).explanation(request)


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
        return _with(known, reasons=[f"Service {service.full_name} {why}: it has no ClusterIP to connect to"])
    found = next((row for row in service.ports if row.port == port and row.protocol == "TCP"), None)
    endpoints = _endpoints(snapshot, service, found) if found else []
    table = fib.compile(snapshot)
    outcome, row, backend = _decided(table, client, service.cluster_ip, port)
    reasons = []
    if outcome == NO_FRONTEND:
        there = ", ".join(str(each.port) for each in service.ports if each.protocol == "TCP") or "none"
        reasons.append(f"Service {service.full_name} has no TCP port {port}; it has {there}: the connection is refused")
        return _with(known, reasons=reasons)
    algorithm = ALGORITHMS[table.frontends[row]["algorithm"]]
    rule = {"frontend": f"{service.cluster_ip}:{port}/TCP", "algorithm": algorithm}
    if outcome == NO_ENDPOINT:
        reasons += [_nobody(service.full_name, endpoints), "the connection is refused"]
        return _with(known, rule=rule, endpoints=_rows(endpoints), reasons=reasons)
    reasons.append(f"{service.full_name} has ClusterIP {service.cluster_ip}; no Ingress is on the way")
    connection = f"the connection from {client}:{CLIENT_PORT}"
    reasons.append(
        {
            "random": f"random: {connection} draws this endpoint at time {NOW_NS}, another time maybe another",
            "roundrobin": "roundrobin: the first in turn; the next connection gets the next",
            "maglev": f"maglev: {connection} hashes to this endpoint's slot, and always does",
        }[algorithm]
    )
    address = int_to_ip(table.backends[backend]["ip"]), int(table.backends[backend]["port"])
    return _with(
        known,
        status=FORWARDED,
        rule=rule,
        endpoints=_rows(endpoints),
        chosen=_row_at(endpoints, address),
        reasons=reasons,
    )


def _decided(table: Fib, client: str, ip: str, port: int) -> tuple[int, int, int]:
    """(outcome, frontend, backend) of one new connection."""
    columns = ((ip_to_int(client), "u4"), (ip_to_int(ip), "u4"), (CLIENT_PORT, "u2"), (port, "u2"), (TCP, "u1"))
    flows = Flows(*(np.array([value], kind) for value, kind in columns))
    verdicts = Verdicts(np.zeros(1, np.uint8), np.zeros(1, np.uint32), np.zeros(1, np.uint32))
    forward(table, create_steering(table, 0), flows, NOW_NS, verdicts)
    return int(verdicts.outcome[0]), int(verdicts.frontend[0]), int(verdicts.backend[0])


class _Ingresses:
    """A request to the Ingress: what each rule says of it."""

    def __init__(self, snapshot: Snapshot, host: str, parts: SplitResult):
        self._snapshot = snapshot
        self._routes = routes.compile(snapshot)
        self._parts = parts
        self._host = host_of(host)
        self._path = normalised(parts.path or "/")
        self._match = Router(self._routes).match(host, parts.path or "/")
        names = {self._routes.host_name(row) for row in range(1, len(self._routes.hosts))}
        self._named = next((name for name in names_for(self._host) if name in names), None)
        self._winner = self._routes.origins[self._match.origin]

    def explanation(self, request: str) -> Explanation:
        known = Explanation(request)
        reasons = [*self._tls(), *self._rules(), *self._unserved()]
        if not self._match.target:
            return _with(
                known, status=404, reasons=["no rule takes the request, and there is no default backend", *reasons]
            )
        obj = self._snapshot.get("Ingress", self._winner.namespace, self._winner.ingress)
        assert obj is not None
        backend, rule = self._backend(obj)
        service, port = routes.find_port(self._snapshot, self._winner.namespace, backend)
        target = self._routes.targets[self._match.target]
        named = self._routes.services[target["service"]]
        endpoints = _endpoints(self._snapshot, service, port) if service and port else []
        answer = _with(
            known,
            ingress=f"{self._winner.namespace}/{self._winner.ingress}",
            rule=rule,
            service=named.service,
            port=named.port,
            endpoints=_rows(endpoints),
        )
        if not target["endpoints"]:
            return _with(
                answer, status=int(target["status"]), reasons=[self._unready(service, port, endpoints), *reasons]
            )
        chosen = _first_in_turn(self._routes, self._match.target)
        reasons.append("round robin: this endpoint is the first in turn; the next request gets the next")
        return _with(answer, status=FORWARDED, chosen=_row_at(endpoints, chosen), reasons=reasons)

    def _backend(self, obj: Object) -> tuple[Object, dict[str, Any]]:
        """The Service that the winning rule names, and the rule."""
        if self._winner.rule < 0:
            return obj["spec"]["defaultBackend"].get("service") or {}, {"field": "spec.defaultBackend"}
        rule = obj["spec"]["rules"][self._winner.rule]
        path = rule["http"]["paths"][self._winner.path]
        said = {"host": rule.get("host") or "", "pathType": path.get("pathType"), "path": path.get("path") or "/"}
        return path["backend"].get("service") or {}, {"field": _field(self._winner.rule, self._winner.path), **said}

    def _unready(self, service: Service | None, port: ServicePort | None, endpoints: Sequence[Endpoint]) -> str:
        named = self._routes.services[self._routes.targets[self._match.target]["service"]]
        if service is None:
            return f"there is no Service {named.service}"
        if port is None:
            there = (
                ", ".join(f"{row.port} ({row.name})" if row.name else str(row.port) for row in service.ports) or "none"
            )
            return f"Service {named.service} has no TCP port {named.port}; it has {there}"
        if service.type == "ExternalName":
            return f"Service {named.service} is an ExternalName, which has no endpoints"
        return _nobody(named.service, endpoints)

    def _tls(self) -> Iterator[str]:
        if self._parts.scheme == "https":
            asked = names_for(self._parts.hostname or "")
            hosts = {row.host for row in self._routes.certificates}
            found = next((name for name in asked if name in hosts), None)
            what = f'that of spec.tls for "{found}"' if found else "the default one, no spec.tls has one for this host"
            yield f"HTTPS: the certificate is {what}"

    def _unserved(self) -> Iterator[str]:
        for obj in self._snapshot.all("Ingress"):
            because = unserved_because(obj, self._snapshot)
            if because:
                yield f"{_name(obj)} is not served: {because}"

    def _rules(self) -> Iterator[str]:
        """The reason of each rule of each Ingress, the winner's first."""
        lines: list[tuple[bool, str]] = []
        for obj in served(self._snapshot):
            for number, rule in enumerate(obj["spec"].get("rules") or ()):
                paths = (rule.get("http") or {}).get("paths") or ()
                if not paths:
                    lines.append((False, f"{_name(obj)} spec.rules[{number}]: {self._host_only(rule)}"))
                for index, path in enumerate(paths):
                    won = (*_key(obj), number, index) == self._winner
                    why = "this rule takes the request" if won else self._why_not(obj, rule, path)
                    lines.append((won, f"{_name(obj)} {_field(number, index)}: {_shown(rule, path)}: {why}"))
            if obj["spec"].get("defaultBackend"):
                won = (*_key(obj), -1, -1) == self._winner
                why = "it takes what no rule does" if won else self._why_not_default(obj)
                lines.append((won, f"{_name(obj)} spec.defaultBackend: {why}"))
        yield from (line for _, line in sorted(lines, key=lambda row: not row[0]))

    def _host_only(self, rule: Object) -> str:
        host = (rule.get("host") or "").lower()
        if host != self._named:
            return self._other_host(host)
        return f'host "{host}" has no paths here, so it gets a default backend' if host else "it has no paths"

    def _why_not(self, obj: Object, rule: Object, path: Object) -> str:
        host = (rule.get("host") or "").lower()
        if host != self._named:
            return self._other_host(host)
        kind, text, slash = routes.matched(path)
        if not _takes(kind, text, self._path):
            return f"the path {self._path} is {'another' if kind == EXACT else 'not below it'}"
        winner = self._snapshot.get("Ingress", self._winner.namespace, self._winner.ingress)
        assert winner is not None
        best = winner["spec"]["rules"][self._winner.rule]["http"]["paths"][self._winner.path]
        best_kind, best_text, best_slash = routes.matched(best)
        if best_kind != kind:
            return "it matches, but Exact comes before Prefix"
        if best_text != text:
            return f"it matches, but {best['path']} is longer"
        if best_slash != slash:
            return f"it matches, but {best['path']} with its slash comes first"
        return f"{_name(winner)} says the same and {_precedes(winner, obj)}"

    def _other_host(self, host: str) -> str:
        if host not in names_for(self._host):
            if host.startswith("*") and self._host.endswith(host[1:]):
                return f'"*" stands for one label, and "{self._host}" has more'
            return f'the host is "{self._host}"'
        return (
            f'it matches the host, but "{self._named}" does so more exactly, and nothing falls through to other rules'
        )

    def _why_not_default(self, obj: Object) -> str:
        if self._winner.rule >= 0:
            return "a rule takes the request"
        if not self._match.target:
            return "it is not asked"
        return f"the one of {self._winner.namespace}/{self._winner.ingress} comes first"


def _takes(kind: int, text: str, path: str) -> bool:
    if kind == EXACT:
        return path == text
    return path == text or path.startswith(f"{text}/")


def _precedes(winner: Object, other: Object) -> str:
    times = [obj["metadata"].get("creationTimestamp") or "" for obj in (winner, other)]
    if _key(winner) == _key(other):
        return "comes first"
    return "is older" if times[0] != times[1] else "comes first by name, being of the same age"


def _first_in_turn(table: Routes, target: int) -> tuple[str, int]:
    """Address of the endpoint that a round robin which begins gives."""
    row = table.targets[target]
    turns = np.zeros(len(table.targets), np.uint32)
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


def _rows(endpoints: Sequence[Endpoint]) -> tuple[dict[str, Any], ...]:
    used = routes.usable(endpoints)
    return tuple(_row(endpoint, endpoint in used) for endpoint in endpoints)


def _row(endpoint: Endpoint, used: bool) -> dict[str, Any]:
    state = "terminating" if endpoint.terminating else "ready" if endpoint.ready else "not ready"
    return {
        "ip": endpoint.ip,
        "port": endpoint.port,
        "pod": endpoint.pod or None,
        "node": endpoint.node or None,
        "ready": endpoint.ready,
        "serving": endpoint.serving,
        "terminating": endpoint.terminating,
        "used": used,
        "state": state,
    }


def _row_at(endpoints: Sequence[Endpoint], address: tuple[str, int]) -> dict[str, Any]:
    return next(row for row in _rows(endpoints) if (row["ip"], row["port"]) == address)


def _address(row: dict[str, Any]) -> str:
    return f"{row['ip']}:{row['port']}"


def _with(explanation: Explanation, *, reasons: Sequence[str] | None = None, **known: Any) -> Explanation:
    """The explanation with more known."""
    from dataclasses import replace

    return replace(explanation, **known, **({} if reasons is None else {"reasons": tuple(reasons)}))


def _key(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace", "default"), obj["metadata"]["name"]


def _name(obj: Object) -> str:
    return "/".join(_key(obj))


def _field(rule: int, path: int) -> str:
    return f"spec.rules[{rule}].http.paths[{path}]"


def _shown(rule: Object, path: Object) -> str:
    return f"{rule.get('host') or '*'} {path.get('pathType', PATH_KINDS[1])} {path.get('path') or '/'}"
