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
import re
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
    REGEX,
    RR,
    TARGET,
    TCP,
    freeze,
)
from plane import dialects
from plane.addresses import int_to_ip, ip_to_int
from plane.dns.names import followed, loops, service_key
from plane.endpointindex import Change, EndpointIndex
from plane.endpoints import eligible
from plane.ingressclass import served
from plane.model import Endpoint, Name, Object, Service, ServicePort, Snapshot, merged
from plane.passwords import users_of
from plane.policies import NONE, PERMANENT_REDIRECT, Asked, Canary, Packer, Policies, Tables
from plane.regex import literally, of_path, why_not
from plane.requestpath import normalised

__all__ = ["Certificate", "Origin", "Port", "Routes", "compile", "dump", "equal", "names", "served"]

NO_ENDPOINT_STATUS = 503
_PLAIN = re.compile(r"/[\x21-\x2b\x2d-\x3a\x3c-\x7e]*\Z")  # what may stand in a cookie: visible, but , and ;


WHOLE = -2


class Origin(NamedTuple):
    """Which rule of which Ingress said so.

    ``rule`` and ``path`` count from 0; -1 is a default backend, WHOLE what annotations say of a host as a whole.
    """

    namespace: str
    ingress: str
    rule: int
    path: int

    @property
    def field(self) -> str:
        """What it is in the manifest, as kubectl prints fields."""
        if self.rule == WHOLE:
            return "metadata.annotations"
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
    text          uint8[...]: host names and paths, and what policies say
    policies      what else is done with requests, by the rows that PATH and HOST name
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
    policies: Tables
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

    def policy(self, row: int) -> Policies:
        return self.policies.policy(row, self.text)

    def canary(self, row: int) -> Canary:
        return self.policies.canary(row, self.text)


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
        table.add(ingresses)
        self._rows, self._services = rows, table.services
        self._routes = table.routes(tuple(_certificates(ingresses, snapshot)))
        return self._routes


def equal(one: Routes, other: Routes) -> bool:
    """Whether two Routes route alike: the same but for their generation."""
    pairs = [(getattr(one, row.name), getattr(other, row.name)) for row in fields(Routes) if row.name != "generation"]
    return all(_same(left, right) for left, right in pairs)


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, Tables):
        return all(map(_same, one, other))
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


def names(routes: Routes) -> list[str]:
    """For each row of ``origins``, the route as people name it: ``namespace/ingress host path``."""
    found = [f"{origin.namespace}/{origin.ingress} default backend" for origin in routes.origins]

    def name(origin: int, what: str) -> None:
        found[origin] = f"{routes.origins[origin].namespace}/{routes.origins[origin].ingress} {what}"

    for number, host in enumerate(routes.hosts):
        if host["alias"]:
            continue
        host_name = routes.host_name(number) or "*"
        if host["policy"] and not host["default"]:
            name(int(host["origin"]), host_name)
        for row in range(int(host["first_path"]), int(host["first_path"]) + int(host["paths"])):
            path = routes.paths[row]
            origins = [int(path["origin"])]
            if path["canary"]:
                origins.append(int(routes.policies.canaries[path["canary"]]["origin"]))
            for origin in origins:
                name(origin, f"{host_name} {routes.path_text(row)}")
    return ["", *found[1:]]


def dump(routes: Routes) -> str:
    """The Routes as text, for people and expectations: equal for Routes that route alike, whatever their generation."""
    lines = []
    for number, host in enumerate(routes.hosts):
        name = f"host {routes.host_name(number) or 'any'}" if number else "no host"
        if number or host["default"]:
            lines.append(name + " (alias)" * int(host["alias"]))
        for row in range(int(host["first_path"]), int(host["first_path"]) + int(host["paths"])):
            path = routes.paths[row]
            text = f"{PATH_KINDS[path['kind']]} {routes.path_text(row)}"
            lines.append(f"  {text} -> {_said(routes, path['target'], path['origin'], path['policy'])}")
            if path["canary"]:
                row = routes.policies.canaries[path["canary"]]
                lines.append(f"    canary -> {_said(routes, row['target'], row['origin'], 0)}")
        if host["default"] or host["policy"]:
            lines.append(f"  default -> {_said(routes, host['default'], host['origin'], host['policy'])}")
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


def _said(routes: Routes, target: int, origin: int, policy: int) -> str:
    row = routes.origins[origin]
    rule = "default backend" if row.rule < 0 else f"rule {row.rule} path {row.path}"
    service = routes.services[routes.targets[target]["service"]] if target else "nobody"
    policies = f" [{routes.policy(policy)}]" if policy else ""
    return f"{service} ({row.namespace}/{row.ingress} {rule}){policies}"


class _Place(NamedTuple):
    """Where a path of a host leads: rows of targets, origins, policies and canaries."""

    target: int
    origin: int
    policy: int = 0
    canary: int = 0


NOWHERE = _Place(0, 0)
Slot = tuple[int, str, bool]  # (kind, path without slash at the end, slash)


class _Default(NamedTuple):
    """The default backend of an Ingress; ``ruled``: it has rules besides."""

    ruled: bool
    place: _Place
    policies: Policies


NO_DEFAULT = _Default(False, NOWHERE, NONE)


@dataclass
class _Host:
    """The rules of one host while they are gathered.

    first    of all its Ingresses, whose policies are those of a path miss
    regex    paths are regular expressions
    secured  one of its Ingresses has spec.tls
    said     by slots, what a rule of a canary must be equal to
    """

    first: tuple[Object, Asked]
    default: _Place = NOWHERE
    regex: bool = False
    secured: bool = False
    www: bool = False
    aliases: tuple[str, ...] = ()
    app_root: tuple[Object, str] | None = None  # and whose it is
    paths: dict[Slot, _Place] = field(default_factory=dict)
    said: dict[Slot, tuple[str, str]] = field(default_factory=dict)


class _Table:
    """The tables while they are made. Ingresses are added in the order in which they win."""

    def __init__(self, snapshot: Snapshot, index: EndpointIndex):
        self._snapshot = snapshot
        self._index = index
        self.services: set[Name] = set()  # that backends name
        self._hosts: dict[str, _Host] = {}
        self._defaults: list[_Default] = []
        self._targets: dict[Port, int] = {}
        self._rows = [np.zeros((), TARGET).item()]
        self._endpoints: list[int] = []
        self._used: dict[int, Endpoint] = {}
        self._externals: dict[int, External] = {}
        self._origins = [Origin("", "", -1, -1)]
        self._text = _Text()
        self._packer = Packer(self._text.add)
        self._same: dict[tuple[int, bool], int] = {}  # rows of policies; what was asked lives as long as ``_asked``
        self._asked: list[tuple[Object, Asked]] = []

    def add(self, ingresses: Iterable[Object]) -> None:
        """All Ingresses: first what each says of its hosts as a whole, for that concerns the paths of the others."""
        rows = self._asked = [(ingress, dialects.asked(ingress, self._snapshot)) for ingress in ingresses]
        routed = [row for row in rows if not row[1].canary]
        for ingress, asked in routed:
            for rule in ingress["spec"].get("rules") or ():
                self._note_host(ingress, asked, (rule.get("host") or "").lower(), _paths_of(rule))
        for ingress, asked in routed:
            self._add_rules(ingress, asked)
        for ingress, asked in rows:
            if asked.canary:
                self._add_canary(ingress, asked.canary)

    def _note_host(self, ingress: Object, asked: Asked, name: str, paths: list[Object]) -> None:
        host = self._hosts.setdefault(name, _Host((ingress, asked)))
        host.regex |= asked.regex or any(_rewrites(asked, path) for path in paths)
        host.secured |= bool(ingress["spec"].get("tls"))
        host.www |= asked.www and bool(name) and not name.startswith("*")
        host.aliases = host.aliases or asked.aliases
        if asked.app_root and not host.app_root:
            host.app_root = ingress, asked.app_root

    def _add_rules(self, ingress: Object, asked: Asked) -> None:
        rules = ingress["spec"].get("rules") or ()
        default = NOWHERE
        if ingress["spec"].get("defaultBackend"):
            # What no host takes is neither redirected nor rewritten, in ingress-nginx.
            bare = replace(asked.policies, redirect="", redirect_status=0, https=False)
            policies = self._policies(replace(asked, policies=bare), False, {})
            policy = self._packer.policy(policies)
            default = self._place(ingress, ingress["spec"]["defaultBackend"], -1, -1, policy)
            self._defaults.append(_Default(bool(rules), default, policies))
        for number, rule in enumerate(rules):
            name = (rule.get("host") or "").lower()
            host = self._hosts[name]
            if default.target and not host.default.target:
                host.default = default._replace(policy=self._policy(asked, name, {}))
            for index, path in enumerate(_paths_of(rule)):
                slot = matched(path, regex=host.regex)
                if slot not in host.paths:
                    policy = self._policy(asked, name, path)
                    host.paths[slot] = self._place(ingress, path["backend"], number, index, policy)
                    host.said[slot] = path_said(path)

    def _policy(self, asked: Asked, host: str, path: Object) -> int:
        """Row of the policies of a path, which may be a default backend's, without anything."""
        secured = self._is_secured(host)
        if asked.rewrite or asked.auth_secret or asked.policies.cookie:
            return self._packer.policy(self._policies(asked, secured, path))
        key = id(asked), secured  # of what no path changes: most Ingresses share the one object that asks for nothing
        if key not in self._same:
            self._same[key] = self._packer.policy(self._policies(asked, secured, path))
        return self._same[key]

    def _policies(self, asked: Asked, secured: bool, path: Object) -> Policies:
        """Of a path, or of a default backend where there is none; ``secured``: its host has TLS."""
        policies, text = asked.policies, path.get("path") or "/"
        if secured and asked.https:
            policies = replace(policies, https=True)
        if policies.hsts_max_age_s and not secured:
            policies = replace(policies, hsts_max_age_s=0)
        if policies.auth and not policies.denied and asked.auth_secret:
            namespace, name, by_key = asked.auth_secret
            secret = self._snapshot.get("Secret", namespace, name)
            if secret is None:
                policies = replace(policies, denied=f"there is no Secret {namespace}/{name} for auth-secret")
            else:
                policies = replace(policies, auth_users=users_of(secret, by_key=by_key))
        if path and _rewrites(asked, path):
            policies = replace(policies, rewrite_from=matched(path, regex=True)[1], rewrite_to=asked.rewrite)
        elif policies.forwarded_prefix:
            policies = replace(policies, forwarded_prefix="")
        if policies.cookie and not policies.cookie_path:
            policies = replace(policies, cookie_path=text if _PLAIN.match(text) else "/")
        return policies

    def _is_secured(self, host: str) -> bool:
        """Whether ingress-nginx has a certificate for a host, if only the default one: by its name or its wildcard."""
        wildcard = f"*.{host.partition('.')[2]}"
        return bool(host) and any(name in self._hosts and self._hosts[name].secured for name in (host, wildcard))

    def _add_canary(self, ingress: Object, canary: Canary) -> None:
        """To the same rule of another Ingress, unless that has one, or leads to the same Service."""
        for number, rule in enumerate(ingress["spec"].get("rules") or ()):
            host = self._hosts.get((rule.get("host") or "").lower())
            if host is None:
                continue
            for index, path in enumerate(_paths_of(rule)):
                slot = matched(path, regex=host.regex)
                main = host.paths.get(slot, NOWHERE)
                if main.canary or host.said.get(slot) != path_said(path):
                    continue
                place = self._place(ingress, path["backend"], number, index, 0)
                if place.target != main.target:
                    row = self._packer.canary(canary, place.target, place.origin)
                    host.paths[slot] = main._replace(canary=row)

    def _place(self, ingress: Object, backend: Object, rule: int, path: int, policy: int) -> _Place:
        """Where a backend of an Ingress leads."""
        namespace = ingress["metadata"].get("namespace", "default")
        origin = self._origin(ingress, rule, path)
        return _Place(self._target(namespace, backend.get("service") or {}), origin, policy)

    def _origin(self, ingress: Object, rule: int, path: int) -> int:
        namespace, name = ingress["metadata"].get("namespace", "default"), ingress["metadata"]["name"]
        self._origins.append(Origin(namespace, name, rule, path))
        return len(self._origins) - 1

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
        # What no host takes: the default of an Ingress without rules, as in ingress-nginx, else that of any Ingress.
        default = min(self._defaults, key=lambda row: row.ruled, default=NO_DEFAULT)
        hosts: dict[str, tuple[int, ...]] = {}
        paths = [np.zeros((), PATH).item()]
        for name, host in sorted(self._hosts.items()):
            rows = self._paths(host)
            hosts[name] = (0, len(paths), len(rows), *self._missed(name, host, default)[:3])
            paths += rows
        for name, host in sorted(self._hosts.items()):
            for alias in host.aliases:
                hosts.setdefault(alias, (1, *hosts[name][1:]))
        for name, host in sorted(self._hosts.items()):
            if host.www:
                other = name.removeprefix("www.") if name.startswith("www.") else f"www.{name}"
                url = f"$scheme://{name}$trimmed_uri"
                hosts.setdefault(other, (0, 0, 0, 0, self._origin(host.first[0], WHOLE, WHOLE), self._redirect(url)))
        host_rows = [
            (*self._text.add(name.removeprefix("*")), name.startswith("*"), *row) for name, row in sorted(hosts.items())
        ]
        backends = np.zeros(max(self._used, default=0) + 1, BACKEND)
        for number, endpoint in self._used.items():
            backends[number] = (ip_to_int(endpoint.ip), endpoint.port, endpoint.weight, 0, TCP, READY)
        return Routes(
            generation=self._snapshot.generation,
            hosts=freeze(np.array([(0, 0, 0, 0, 0, 0, *default.place[:3]), *host_rows], HOST)),
            paths=freeze(np.array(paths, PATH)),
            targets=freeze(np.array(self._rows, TARGET)),
            endpoints=freeze(np.array(self._endpoints, np.uint32)),
            backends=freeze(backends),
            policies=self._packer.tables(),
            text=freeze(np.frombuffer(bytes(self._text.bytes), np.uint8)),
            origins=tuple(self._origins),
            services=(Port("", 0), *self._targets),
            externals=self._externals,
            certificates=certificates,
        )

    def _paths(self, host: _Host) -> list[tuple[int, ...]]:
        """Rows of PATH of a host, in order of matching."""
        rows = dict(host.paths)
        if host.app_root:
            ingress, root = host.app_root
            policy = self._redirect(f"$scheme://$http_host{root}", 302)
            rows[(EXACT, "/", False)] = _Place(0, self._origin(ingress, WHOLE, WHOLE), policy)
        by_name = sorted(rows.items(), key=lambda row: row[0][1], reverse=host.regex)
        ordered = sorted(by_name, key=lambda row: _order(row[0]))
        return [(*self._text.add(text), kind, slash, *place) for (kind, text, slash), place in ordered]

    def _missed(self, name: str, host: _Host, default: _Default) -> _Place:
        """What becomes of a path miss: as in ingress-nginx the policies of the host's first Ingress hold for it too.

        Where it goes to the general default, those of the default hold instead, and HTTPS as the host says. A host that
        lets not everybody in, or is elsewhere, sends nobody there.
        """
        if host.default.target or {(PREFIX, "", True), (REGEX, "/", False)} & host.paths.keys():
            return host.default
        ingress, asked = host.first
        policy = self._policy(asked, name, {})
        if not policy:
            return NOWHERE
        own = self._policies(asked, self._is_secured(name), {})
        if not default.place.target or own.guards or own.redirect:
            return _Place(0, self._origin(ingress, WHOLE, WHOLE), policy)
        if not own.https and not own.hsts_max_age_s:
            return NOWHERE
        https, keep_slash, hsts_max_age_s = own.https, own.keep_slash, own.hsts_max_age_s
        both = replace(default.policies, https=https, keep_slash=keep_slash, hsts_max_age_s=hsts_max_age_s)
        return default.place._replace(policy=self._packer.policy(both))

    def _redirect(self, url: str, status: int = PERMANENT_REDIRECT) -> int:
        """Row of the policies that redirect everything."""
        return self._packer.policy(Policies(redirect=url, redirect_status=status))


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


def _order(slot: Slot) -> tuple[Any, ...]:
    """Order of matching: Exact first, then the longest; of two that are equal the one with a slash at its end."""
    kind, path, slash = slot
    return kind != EXACT, -len(path), not slash


def matched(path: Object, *, regex: bool = False) -> Slot:
    """What a path of a rule matches: (kind, text, slash); a Prefix is without the slash at its end, which is apart.

    ``regex``: the paths of its host are regular expressions, whatever their type; one that is none is meant literally.
    """
    if regex:
        text = path.get("path") or "/"
        return REGEX, literally(text) if why_not(of_path(text)) else text, False
    text = normalised(path.get("path") or "/")
    if path.get("pathType") == PATH_KINDS[EXACT]:
        return EXACT, text, False
    return PREFIX, text.removesuffix("/"), text.endswith("/")


def _paths_of(rule: Object) -> list[Object]:
    return (rule.get("http") or {}).get("paths") or []


def path_said(path: Object) -> tuple[str, str]:
    """Type and text of a path, as they are written: a canary's are the same as those of its rule."""
    return path.get("pathType") or "", path.get("path") or "/"


def _rewrites(asked: Asked, path: Object) -> bool:
    """Whether a path is rewritten; one that is the target already is not."""
    return bool(asked.rewrite) and asked.rewrite != (path.get("path") or "/")


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
