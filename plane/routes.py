"""The Routes of a Snapshot: Ingress rules, in names, compiled to the tables that requests are looked up in. Pure.

Law: equal Snapshots give equal bytes, and all that decides about a request is in the tables, so that whoever reads them
(``plane.router`` in Python, compiled code later) routes alike. A request meets one host, or none, and of that host one
path, or its default; it never falls through to another host. An exact host comes before a wildcard, which stands for
one label, and that before rules without a host; Exact before Prefix, the longest Prefix first, element by element.
Where Ingresses say the same the oldest wins, then the first by namespace and name. Which of this is Kubernetes' word
and which ingress-nginx's is listed in ``plane/ingress/README.md``.
"""

import base64
import binascii
import hashlib
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import numpy as np

from kernels.layout import (
    ALGORITHMS,
    BACKEND,
    EXACT,
    HOST,
    PATH,
    PATH_KINDS,
    PREFIX,
    READY,
    RR,
    TARGET,
    TCP,
    freeze,
)
from plane.addresses import int_to_ip, ip_to_int
from plane.dns.names import followed, loops, service_key
from plane.endpointindex import Change, EndpointIndex
from plane.endpoints import eligible
from plane.ingressclass import served
from plane.model import Endpoint, Name, Object, Service, ServicePort, Snapshot, merged
from plane.requestpath import normalised

__all__ = ["Certificate", "Origin", "Port", "Routes", "compile", "dump", "equal", "names", "served"]

NO_ENDPOINT_STATUS = 503


class Origin(NamedTuple):
    """Which rule of which Ingress said so; ``rule`` and ``path`` count from 0 and are -1 for a default backend."""

    namespace: str
    ingress: str
    rule: int
    path: int

    @property
    def field(self) -> str:
        """What it is in the manifest, as kubectl prints fields."""
        return "spec.defaultBackend" if self.rule < 0 else f"spec.rules[{self.rule}].http.paths[{self.path}]"

    def __str__(self) -> str:
        return f"{self.namespace}/{self.ingress} {self.field}"


class Port(NamedTuple):
    """A port of a Service, as a backend names it: by number, or by name where the Service has no such port."""

    service: str  # namespace/name
    port: int | str

    def __str__(self) -> str:
        return f"{self.service}:{self.port}"


class External(NamedTuple):
    """The host that an ExternalName stands for, and the port that is connected to."""

    name: str
    port: int


class Certificate(NamedTuple):
    """What HTTPS shows to clients that ask for ``host``, as PEM; nobody has checked that it can be used."""

    host: str  # lower case; "*.foo.com" is for one label
    chain: bytes
    key: bytes


@dataclass(frozen=True)
class Routes:
    """What an ingress looks up, read-only; row 0 of every table is none.

    generation    of the Snapshot it was compiled from
    hosts         HOST[H+1]; row 0 holds, as its default, what requests get that no host takes
    paths         PATH[P+1], in order of hosts, of a host in order of matching
    targets       TARGET[T+1], one for each port of a Service that a rule names
    endpoints     uint32[...]: backend ids, one run for each target
    backends      BACKEND[B+1], the row is the backend's stable id; filled where a target uses it
    text          uint8[...]: host names and paths
    origins       by the rows that PATH.origin and HOST.origin mean
    services      by the rows that TARGET.service means
    externals     row of a target that is an ExternalName → the host it stands for
    certificates  of ``spec.tls``, one for each host
    """

    generation: int
    hosts: np.ndarray
    paths: np.ndarray
    targets: np.ndarray
    endpoints: np.ndarray
    backends: np.ndarray
    text: np.ndarray
    origins: tuple[Origin, ...]
    services: tuple[Port, ...]
    externals: dict[int, External]
    certificates: tuple[Certificate, ...] = field(repr=False)

    def string(self, offset: int, length: int) -> str:
        return self.text[offset : offset + length].tobytes().decode()

    def host_name(self, row: int) -> str:
        """Name of a host as manifests write it, empty for the rules without one."""
        host = self.hosts[row]
        return "*" * int(host["wildcard"]) + self.string(int(host["name"]), int(host["name_length"]))

    def path_text(self, row: int) -> str:
        """A path as it is matched: of a Prefix with the slash at its end that the manifest had."""
        path = self.paths[row]
        return self.string(int(path["text"]), int(path["text_length"])) + "/" * int(path["slash"])


def compile(snapshot: Snapshot) -> Routes:
    """All tables of ``Routes``, read-only."""
    index = EndpointIndex()
    return Compiler().compile(snapshot, index, index.follow(snapshot))


class Compiler:
    """Compiles one Snapshot after the other: anew where something that an Ingress names has changed, and only there."""

    def __init__(self) -> None:
        self._rows: tuple[object, ...] = ()  # of the kinds that are read whole, in the Snapshot before
        self._services: set[Name] = set()  # that Ingresses name, whether they are there or not
        self._routes: Routes | None = None

    def compile(self, snapshot: Snapshot, index: EndpointIndex, change: Change) -> Routes:
        """As the function of this name. The index has followed the Snapshot, and ``change`` is what came of it."""
        rows = tuple(map(snapshot.rows, ("Ingress", "IngressClass", "Secret")))
        same = all(map(operator.is_, rows, self._rows)) and not change.services & self._services
        if same and self._routes is not None:
            self._routes = replace(self._routes, generation=snapshot.generation)
            return self._routes
        ingresses = served(snapshot)
        table = _Table(snapshot, index)
        for ingress in ingresses:
            table.add(ingress)
        self._rows, self._services = rows, table.services
        self._routes = table.routes(tuple(_certificates(ingresses, snapshot)))
        return self._routes


def equal(one: Routes, other: Routes) -> bool:
    """Whether two Routes route alike: the same but for their generation."""
    pairs = [(getattr(one, row.name), getattr(other, row.name)) for row in fields(Routes) if row.name != "generation"]
    return all(
        left is right or (np.array_equal(left, right) if isinstance(left, np.ndarray) else left == right)
        for left, right in pairs
    )


def names(routes: Routes) -> list[str]:
    """For each row of ``origins``, the route as people name it: ``namespace/ingress host path``."""
    found = [f"{origin.namespace}/{origin.ingress} default backend" for origin in routes.origins]
    for number, host in enumerate(routes.hosts):
        for row in range(int(host["first_path"]), int(host["first_path"]) + int(host["paths"])):
            row_origin = int(routes.paths[row]["origin"])
            origin = routes.origins[row_origin]
            host_name = routes.host_name(number) or "*"
            found[row_origin] = f"{origin.namespace}/{origin.ingress} {host_name} {routes.path_text(row)}"
    return ["", *found[1:]]


def dump(routes: Routes) -> str:
    """The Routes as text, for people and expectations: equal for Routes that route alike, whatever their generation."""
    lines = []
    for number, host in enumerate(routes.hosts):
        name = f"host {routes.host_name(number) or 'any'}" if number else "no host"
        if number or host["default"]:
            lines.append(name)
        for row in range(int(host["first_path"]), int(host["first_path"]) + int(host["paths"])):
            path = routes.paths[row]
            text = f"{PATH_KINDS[path['kind']]} {routes.path_text(row)}"
            lines.append(f"  {text} -> {_said(routes, int(path['target']), int(path['origin']))}")
        if host["default"]:
            lines.append(f"  default -> {_said(routes, int(host['default']), int(host['origin']))}")
    for number, target in enumerate(routes.targets[1:], start=1):
        lines.append(f"target {routes.services[target['service']]} {ALGORITHMS[target['algorithm']]}")
        if external := routes.externals.get(number):
            lines.append(f"  -> {external.name}:{external.port}")
        for backend in routes.endpoints[int(target["first_endpoint"]) :][: int(target["endpoints"])]:
            row = routes.backends[backend]
            lines.append(f"  -> {backend} {int_to_ip(row['ip'])}:{row['port']}")
    for certificate in routes.certificates:
        lines.append(f"certificate {certificate.host} {hashlib.sha256(certificate.chain).hexdigest()[:16]}")
    return "".join(f"{line}\n" for line in lines)


def _said(routes: Routes, target: int, origin: int) -> str:
    row = routes.origins[origin]
    rule = "default backend" if row.rule < 0 else f"rule {row.rule} path {row.path}"
    return f"{routes.services[routes.targets[target]['service']]} ({row.namespace}/{row.ingress} {rule})"


class _Place(NamedTuple):
    """Where a path of a host leads: rows of targets and origins."""

    target: int
    origin: int


NOWHERE = _Place(0, 0)


@dataclass
class _Host:
    """The rules of one host while they are gathered: (kind, path without slash at the end, slash) → place."""

    paths: dict[tuple[int, str, bool], _Place] = field(default_factory=dict)
    default: _Place = NOWHERE


class _Table:
    """The tables while they are made. Ingresses are added in the order in which they win."""

    def __init__(self, snapshot: Snapshot, index: EndpointIndex):
        self._snapshot = snapshot
        self._index = index
        self.services: set[Name] = set()  # that backends name
        self._hosts: dict[str, _Host] = {}
        self._defaults: list[tuple[bool, _Place]] = []  # (the Ingress has rules, its default backend)
        self._targets: dict[Port, int] = {}
        self._rows = [np.zeros((), TARGET).item()]
        self._endpoints: list[int] = []
        self._used: dict[int, Endpoint] = {}
        self._externals: dict[int, External] = {}
        self._origins = [Origin("", "", -1, -1)]

    def add(self, ingress: Object) -> None:
        rules = ingress["spec"].get("rules") or ()
        default = self._place(ingress, ingress["spec"].get("defaultBackend"), -1, -1)
        if default.target:
            self._defaults.append((bool(rules), default))
        for number, rule in enumerate(rules):
            host = self._hosts.setdefault((rule.get("host") or "").lower(), _Host())
            if not host.default.target:
                host.default = default
            for index, path in enumerate((rule.get("http") or {}).get("paths") or ()):
                slot = matched(path)
                if slot not in host.paths:
                    host.paths[slot] = self._place(ingress, path["backend"], number, index)

    def _place(self, ingress: Object, backend: Object | None, rule: int, path: int) -> _Place:
        """Where a backend of an Ingress leads, nowhere if there is none."""
        if not backend:
            return NOWHERE
        namespace, name = ingress["metadata"].get("namespace", "default"), ingress["metadata"]["name"]
        self._origins.append(Origin(namespace, name, rule, path))
        return _Place(self._target(namespace, backend.get("service") or {}), len(self._origins) - 1)

    def _target(self, namespace: str, backend: Object) -> int:
        """Row of the target that a backend's ``service`` means; a Service or port that is missing has no endpoint."""
        service, port = find_port(self._snapshot, namespace, backend)
        self.services.add((namespace, backend.get("name", "")))
        named = Port(f"{namespace}/{backend.get('name', '')}", port.port if port else _named_port(backend))
        if named not in self._targets:
            endpoints = []
            if service and port and service.type == "ExternalName":
                self.services.update(filter(None, map(service_key, followed(self._snapshot, service)[0])))
                if not loops(self._snapshot, service):
                    self._externals[len(self._rows)] = _external(service, port)
            elif service and port:
                there = merged(service, self._index.of_service((namespace, service.name)))
                endpoints = usable(there[port.name])
            ids = [self._index.ids[endpoint.key] for endpoint in endpoints]
            self._targets[named] = row = len(self._rows)
            self._rows.append((len(self._endpoints), len(ids), row, RR, 0, NO_ENDPOINT_STATUS))
            self._endpoints += ids
            self._used.update(zip(ids, endpoints, strict=True))
        return self._targets[named]

    def routes(self, certificates: tuple[Certificate, ...]) -> Routes:
        text = _Text()
        # What no host takes: the default of an Ingress without rules, as in ingress-nginx, else that of any Ingress.
        default = min(self._defaults, key=lambda row: row[0], default=(False, NOWHERE))[1]
        hosts: list[tuple[int, ...]] = [(0, 0, 0, 0, 0, 0, *default)]
        paths = [np.zeros((), PATH).item()]
        for name, host in sorted(self._hosts.items()):
            hosts.append(
                (*text.add(name.removeprefix("*")), name.startswith("*"), 0, len(paths), len(host.paths), *host.default)
            )
            for (kind, path, slash), place in sorted(host.paths.items(), key=_order):
                paths.append((*text.add(path), kind, slash, *place))
        backends = np.zeros(max(self._used, default=0) + 1, BACKEND)
        for number, endpoint in self._used.items():
            backends[number] = (ip_to_int(endpoint.ip), endpoint.port, endpoint.weight, 0, TCP, READY)
        return Routes(
            generation=self._snapshot.generation,
            hosts=freeze(np.array(hosts, HOST)),
            paths=freeze(np.array(paths, PATH)),
            targets=freeze(np.array(self._rows, TARGET)),
            endpoints=freeze(np.array(self._endpoints, np.uint32)),
            backends=freeze(backends),
            text=freeze(np.frombuffer(bytes(text.bytes), np.uint8)),
            origins=tuple(self._origins),
            services=(Port("", 0), *self._targets),
            externals=self._externals,
            certificates=certificates,
        )


class _Text:
    """The text blob while it is made; equal strings share their bytes."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self._places: dict[str, tuple[int, int]] = {}

    def add(self, string: str) -> tuple[int, int]:
        """(offset, length) of a string."""
        if string not in self._places:
            encoded = string.encode()
            self._places[string] = len(self.bytes), len(encoded)
            self.bytes += encoded
        return self._places[string]


def _order(row: tuple[tuple[int, str, bool], _Place]) -> tuple[Any, ...]:
    """Order of matching: Exact first, then the longest; of two that are equal the one with a slash at its end."""
    (kind, path, slash), _ = row
    return kind != EXACT, -len(path), not slash, path


def matched(path: Object) -> tuple[int, str, bool]:
    """What a path of a rule matches: (kind, text, slash); a Prefix is without the slash at its end, which is apart."""
    text = normalised(path.get("path") or "/")
    if path.get("pathType") == PATH_KINDS[EXACT]:
        return EXACT, text, False
    return PREFIX, text.removesuffix("/"), text.endswith("/")


def find_port(snapshot: Snapshot, namespace: str, backend: Object) -> tuple[Service | None, ServicePort | None]:
    """The Service and its port that the ``service`` of a backend means; None for what is not there.

    An ExternalName need not list its ports: a number that it does not list is that of the host, as in ingress-nginx.
    """
    obj = snapshot.get("Service", namespace, backend.get("name", ""))
    if obj is None:
        return None, None
    service, wanted = Service.of(obj), _named_port(backend)
    ports = (port for port in service.ports if wanted in (port.port, port.name) and port.protocol == "TCP")
    found = next(ports, None)
    if found is None and service.type == "ExternalName" and isinstance(wanted, int) and wanted:
        found = ServicePort("", "TCP", wanted, wanted)
    return service, found


def _external(service: Service, port: ServicePort) -> External:
    number = port.target_port if isinstance(port.target_port, int) else port.port
    return External(service.external_name.lower().removesuffix("."), number)


def usable(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """The endpoints that requests go to: those for new flows, by TCP and IPv4; as in a Fib, none of weight 0."""
    return [row for row in eligible(row for row in endpoints if _reachable(row)) if row.weight > 0]


def _reachable(endpoint: Endpoint) -> bool:
    return endpoint.protocol == "TCP" and ":" not in endpoint.ip


def _named_port(backend: Object) -> int | str:
    port = backend.get("port") or {}
    return port.get("name") or port.get("number") or 0


def _certificates(ingresses: Iterable[Object], snapshot: Snapshot) -> Iterator[Certificate]:
    """One for each host of ``spec.tls`` whose Secret holds something; without hosts it is for those of the rules."""
    taken = set()
    for ingress in ingresses:
        rules = [rule["host"] for rule in ingress["spec"].get("rules") or () if rule.get("host")]
        for row in ingress["spec"].get("tls") or ():
            namespace = ingress["metadata"].get("namespace", "default")
            pair = _pem(snapshot.get("Secret", namespace, row.get("secretName") or ""))
            for host in map(str.lower, row.get("hosts") or rules):
                if pair and host not in taken:
                    taken.add(host)
                    yield Certificate(host, *pair)


def _pem(secret: Object | None) -> tuple[bytes, bytes] | None:
    """(chain, key) of a Secret of type kubernetes.io/tls; None where it has none."""
    data = (secret or {}).get("data") or {}
    try:
        return base64.b64decode(data["tls.crt"], validate=True), base64.b64decode(data["tls.key"], validate=True)
    except (KeyError, binascii.Error):
        return None
