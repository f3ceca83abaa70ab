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
    BACKEND,
    DH,
    EXACT,
    HOST,
    HOST_MARKS,
    INGRESS_ALGORITHMS,
    MATCHED,
    NAMED,
    PATH,
    PATH_KINDS,
    PREFIX,
    READY,
    REGEX,
    RR,
    TARGET,
    TCP,
    WILDCARD,
    freeze,
)
from plane import dialects
from plane.addresses import int_to_ip, ip_to_int
from plane.balance import BY_CLIENT
from plane.dns.names import followed, loops, service_key
from plane.endpointindex import Change, EndpointIndex
from plane.endpoints import eligible
from plane.frontends import algorithm_of
from plane.headerlists import ALLOWED, ANSWERED, CONTROLLER, lines_of, not_allowed, trouble_with
from plane.ingressclass import served
from plane.matching import Slot, rank, slot_of
from plane.model import Endpoint, Name, Object, Service, ServicePort, Snapshot, merged
from plane.passwords import users_of
from plane.policies import (
    NONE,
    NOTHING,
    PERMANENT_REDIRECT,
    Asked,
    Canary,
    Packer,
    Policies,
    Tables,
    When,
    names_any_host,
)

__all__ = ["Certificate", "Origin", "Port", "Routes", "compile", "dump", "equal", "names", "served"]

NO_ENDPOINT_STATUS = 503
_PLAIN = re.compile(r"/[\x21-\x2b\x2d-\x3a\x3c-\x7e]*\Z")  # what may stand in a cookie: visible, but , and ;


WHOLE = -2
LAST = -(2**31)  # priority of Traefik's default backend, below any that an annotation can have


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
    targets       TARGET[T+1], one for each port of a Service that a rule names and each algorithm
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
        return HOST_MARKS[host["kind"]] + self.string(int(host["name"]), int(host["name_length"]))

    def path_text(self, row: int) -> str:
        """A path as it is matched: of a Prefix with the slash at its end that the manifest had."""
        path = self.paths[row]
        return self.string(int(path["text"]), int(path["text_length"])) + "/" * int(path["slash"])

    def is_served(self, target: int) -> bool:
        """Whether there is somebody whom the requests of a target go to."""
        return target in self.externals or bool(self.targets[target]["endpoints"])

    def policy(self, row: int) -> Policies:
        return self.policies.policy(row, self.text)

    def canary(self, row: int) -> Canary:
        return self.policies.canary(row, self.text)

    def when(self, row: int) -> When:
        return self.policies.when(row, self.text)


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
        rows = tuple(map(snapshot.rows, ("Ingress", "IngressClass", "Secret", "ConfigMap")))
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
    named = set()  # a rule that requests for other hosts meet too has the name of its own, which comes first

    def name(origin: int, what: str) -> None:
        if origin in named:
            return
        named.add(origin)
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
            when = f" {routes.when(path['when'])}" if path["when"] else ""
            text = f"{PATH_KINDS[path['kind']]} {routes.path_text(row)}{when}"
            lines.append(f"  {text} -> {_said(routes, path['target'], path['origin'], path['policy'])}")
            if path["canary"]:
                row = routes.policies.canaries[path["canary"]]
                lines.append(f"    canary -> {_said(routes, row['target'], row['origin'], 0)}")
        if host["default"] or host["policy"]:
            lines.append(f"  default -> {_said(routes, host['default'], host['origin'], host['policy'])}")
    for number, target in enumerate(routes.targets[1:], start=1):
        lines.append(f"target {routes.services[target['service']]} {_balanced(target)}")
        if external := routes.externals.get(number):
            lines.append(f"  -> {external.name}:{external.port}")
        for backend in routes.endpoints[int(target["first_endpoint"]) :][: int(target["endpoints"])]:
            row = routes.backends[backend]
            lines.append(f"  -> {backend} {int_to_ip(row['ip'])}:{row['port']}")
    for certificate in routes.certificates:
        lines.append(f"certificate {certificate.host} {hashlib.sha256(certificate.chain).hexdigest()[:16]}")
    return "".join(f"{line}\n" for line in lines)


def _balanced(target: np.void) -> str:
    slow_start = f" slow start {target['slow_start_s']} s" if target["slow_start_s"] else ""
    return f"{INGRESS_ALGORITHMS[target['algorithm']]}{slow_start}"


def _said(routes: Routes, target: int, origin: int, policy: int) -> str:
    row = routes.origins[origin]
    rule = "default backend" if row.rule < 0 else f"rule {row.rule} path {row.path}"
    service = routes.services[routes.targets[target]["service"]] if target else "nobody"
    policies = f" [{routes.policy(policy)}]" if policy else ""
    return f"{service} ({row.namespace}/{row.ingress} {rule}){policies}"


class _Place(NamedTuple):
    """Where a path of a host leads: rows of targets, origins, policies, canaries and conditions."""

    target: int
    origin: int
    policy: int = 0
    canary: int = 0
    when: int = 0


NOWHERE = _Place(0, 0)


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
        self._targets: dict[tuple[Port, int], int] = {}  # by port and algorithm
        self._ports = [Port("", 0)]  # by row of targets
        self._rows = [np.zeros((), TARGET).item()]
        self._endpoints: list[int] = []
        self._used: dict[int, Endpoint] = {}
        self._externals: dict[int, External] = {}
        self._origins = [Origin("", "", -1, -1)]
        self._text = _Text()
        self._packer = Packer(self._text.add)
        # Rows of policies; what was asked lives as long as ``_asked``.
        self._same: dict[tuple[int, bool, bool], int] = {}
        self._asked: list[tuple[Object, Asked]] = []

    def add(self, ingresses: Iterable[Object]) -> None:
        """All Ingresses: first what each says of its hosts as a whole, for that concerns the paths of the others."""
        rows = self._asked = [(ingress, dialects.asked(ingress, self._snapshot)) for ingress in ingresses]
        routed = [row for row in rows if not row[1].canary]
        for ingress, asked in routed:
            for rule in ingress["spec"].get("rules") or ():
                for name in hosts_of(rule, asked):
                    self._note_host(ingress, asked, name, _paths_of(rule))
            if asked.manner and ingress["spec"].get("defaultBackend"):
                self._note_host(ingress, asked, "", [])
        for ingress, asked in routed:
            self._add_rules(ingress, asked)
        for ingress, asked in rows:
            if asked.canary:
                self._add_canary(ingress, asked, asked.canary)

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
        if ingress["spec"].get("defaultBackend") and not asked.manner:
            # What no host takes is neither redirected nor rewritten, in ingress-nginx.
            bare = replace(asked.policies, redirect="", redirect_status=0, https=False)
            backend = {"backend": ingress["spec"]["defaultBackend"]}
            policies = self._policies(ingress, replace(asked, policies=bare), "", backend, secured=False)
            policy = self._packer.policy(policies)
            default = self._place(ingress, asked, ingress["spec"]["defaultBackend"], -1, -1, policy)
            self._defaults.append(_Default(bool(rules), default, policies))
        for number, rule in enumerate(rules):
            for name in hosts_of(rule, asked):
                host = self._hosts[name]
                if default.target and not host.default.target:
                    backend = {"backend": ingress["spec"]["defaultBackend"]}
                    host.default = default._replace(policy=self._policy(ingress, asked, name, backend))
                self._add_paths(ingress, asked, name, number, _paths_of(rule))
        if ingress["spec"].get("defaultBackend") and asked.manner:
            self._add_last(ingress, asked)

    def _add_last(self, ingress: Object, asked: Asked) -> None:
        """A default backend as Traefik and Kong have it: a rule for any host and path, on the conditions of others."""
        path = {"path": "/", "pathType": "Prefix", "backend": ingress["spec"]["defaultBackend"]}
        self._add_paths(ingress, replace(asked, priority=LAST), "", -1, [path])

    def _add_paths(self, ingress: Object, asked: Asked, name: str, rule: int, paths: list[Object]) -> None:
        host = self._hosts[name]
        for index, path in enumerate(paths, start=min(rule, 0)):
            slot = slot_of(path, name, asked, regex=host.regex)
            if slot not in host.paths:
                policy = self._policy(ingress, asked, name, path)
                place = self._place(ingress, asked, path["backend"], rule, index, policy)
                host.paths[slot] = place._replace(when=self._packer.when(asked.when))
                host.said[slot] = path_said(path)

    def _policy(self, ingress: Object, asked: Asked, host: str, path: Object) -> int:
        """Row of the policies of a path, or of a default backend, which has no path, or of neither."""
        secured = self._is_secured(host)
        if asked.rewrite or asked.auth_secret or asked.policies.cookie or asked.manner or asked.default_backend:
            return self._packer.policy(self._policies(ingress, asked, host, path, secured=secured))
        # Of what no path changes: most Ingresses share the one object that asks for nothing.
        key = id(asked), secured, bool(host)
        if key not in self._same:
            self._same[key] = self._packer.policy(self._policies(ingress, asked, host, path, secured=secured))
        return self._same[key]

    def _policies(self, ingress: Object, asked: Asked, host: str, path: Object, *, secured: bool) -> Policies:
        """Of a path, or of a default backend, which has no path, or of neither.

        ``secured``: its host, which may be any, has TLS.
        """
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
        if policies.upstream_tls and not policies.denied and asked.tls_secret:
            policies = self._with_certificates(policies, *asked.tls_secret)
        if policies.auth_url and not policies.denied:
            policies = self._asking(policies, asked.auth_sent, host)
        if asked.fields and not policies.denied:
            policies = self._with_fields(policies, asked.fields)
        if asked.default_backend:
            policies = self._excused(policies, asked.default_backend, path, asked.algorithm)
        if path.get("pathType") and _rewrites(asked, path):
            expression = slot_of(path, "", asked, regex=True).text
            policies = replace(policies, rewrite_from=expression, rewrite_to=asked.rewrite)
        elif policies.forwarded_prefix:
            policies = replace(policies, forwarded_prefix="")
        if policies.cookie and not policies.cookie_path:
            policies = replace(policies, cookie_path=text if _PLAIN.match(text) else "/")
        if asked.manner:
            policies = dialects.settled(policies, asked, path, self._snapshot, ingress)
        return policies

    def _with_certificates(self, policies: Policies, namespace: str, name: str) -> Policies:
        """Those of a Secret, towards endpoints; where it is not there, or has no authorities to verify by, nobody."""
        secret = self._snapshot.get("Secret", namespace, name)
        if secret is None:
            return replace(policies, denied=f"there is no Secret {namespace}/{name} for proxy-ssl-secret")
        authorities, chain, key = (_pem_of(secret, file) for file in ("ca.crt", "tls.crt", "tls.key"))
        if policies.tls_verify and not authorities:
            return replace(policies, denied=f"Secret {namespace}/{name} has no ca.crt for proxy-ssl-verify")
        return replace(policies, tls_authorities=authorities, tls_certificate=chain, tls_key=key)

    def _asking(self, policies: Policies, sent: tuple[str, str] | None, host: str) -> Policies:
        """With what whom they ask is told by a ConfigMap, if there is one; a client must not choose who is asked."""
        if not host and names_any_host(policies.auth_url):
            return replace(policies, denied="auth-url asks whatever host a client names, for the rule has none")
        if sent is None:
            return policies
        found = self._snapshot.get("ConfigMap", *sent)
        if found is None or trouble_with(found):
            why = f"ConfigMap {'/'.join(sent)} for auth-proxy-set-headers {trouble_with(found)}"
            return replace(policies, denied=why)
        return replace(policies, auth_sent=lines_of(found))

    def _with_fields(self, policies: Policies, named: Name) -> Policies:
        """With the fields of answers that a ConfigMap lists."""
        found = self._snapshot.get("ConfigMap", *named)
        if why := trouble_with_fields(self._snapshot, named):
            return replace(policies, denied=f"ConfigMap {'/'.join(named)} for custom-headers {why}")
        return replace(policies, fields=lines_of(found or {}))

    def _excused(self, policies: Policies, default: Name, path: Object, wanted: str) -> Policies:
        """With the Service that serves instead, at its first port; as in ingress-nginx, unless it has no endpoint."""
        namespace, name = default
        self.services.add(default)
        found = self._snapshot.get("Service", namespace, name)
        port = next((port.port for port in Service.of(found).ports if port.protocol == "TCP"), 0) if found else 0
        spare = self._target(namespace, {"name": name, "port": {"number": port}}, wanted) if port else 0
        if not self._is_served(spare):
            return policies
        own = (path.get("backend") or {}).get("service") or {}
        without = bool(own) and not self._is_served(self._target(namespace, own, wanted))
        return replace(policies, errors_target=spare if policies.errors else 0, fallback=spare if without else 0)

    def _is_served(self, target: int) -> bool:
        """Whether there is somebody whom the requests of a target go to."""
        return target in self._externals or bool(self._rows[target][1])

    def _is_secured(self, host: str) -> bool:
        """Whether ingress-nginx has a certificate for a host, if only the default one: by its name or its wildcard."""
        wildcard = f"*.{host.partition('.')[2]}"
        return bool(host) and any(name in self._hosts and self._hosts[name].secured for name in (host, wildcard))

    def _add_canary(self, ingress: Object, asked: Asked, canary: Canary) -> None:
        """To the same rule of another Ingress, unless that has one, or leads to the same Service.

        Of what a canary asks for besides, its algorithm counts, as in ingress-nginx.
        """
        for number, rule in enumerate(ingress["spec"].get("rules") or ()):
            host = self._hosts.get((rule.get("host") or "").lower())
            if host is None:
                continue
            for index, path in enumerate(_paths_of(rule)):
                slot = slot_of(path, "", NOTHING, regex=host.regex)
                main = host.paths.get(slot, NOWHERE)
                if main.canary or host.said.get(slot) != path_said(path):
                    continue
                place = self._place(ingress, asked, path["backend"], number, index, 0)
                if self._ports[place.target] != self._ports[main.target]:
                    row = self._packer.canary(canary, place.target, place.origin)
                    host.paths[slot] = main._replace(canary=row)

    def _place(self, ingress: Object, asked: Asked, backend: Object, rule: int, path: int, policy: int) -> _Place:
        """Where a backend of an Ingress leads."""
        namespace = ingress["metadata"].get("namespace", "default")
        origin = self._origin(ingress, rule, path)
        return _Place(self._target(namespace, backend.get("service") or {}, asked.algorithm), origin, policy)

    def _origin(self, ingress: Object, rule: int, path: int) -> int:
        namespace, name = ingress["metadata"].get("namespace", "default"), ingress["metadata"]["name"]
        self._origins.append(Origin(namespace, name, rule, path))
        return len(self._origins) - 1

    def _target(self, namespace: str, backend: Object, wanted: str) -> int:
        """Row of the target that a backend's ``service`` means; a Service or port that is missing has no endpoint.

        ``wanted`` is the algorithm that the Ingress asks for, if any.
        """
        service, port = find_port(self._snapshot, namespace, backend)
        self.services.add((namespace, backend.get("name", "")))
        named = Port(f"{namespace}/{backend.get('name', '')}", port.port if port else _named_port(backend))
        algorithm = INGRESS_ALGORITHMS.index(wanted) if wanted else balanced_by(service)
        if (named, algorithm) not in self._targets:
            endpoints = []
            if service and port and service.type == "ExternalName":
                self.services.update(filter(None, map(service_key, followed(self._snapshot, service)[0])))
                if not loops(self._snapshot, service):
                    self._externals[len(self._rows)] = _external(service, port)
            elif service and port:
                there = merged(service, self._index.of_service((namespace, service.name)))
                endpoints = usable(there[port.name])
            ids = [self._index.ids[endpoint.key] for endpoint in endpoints]
            self._targets[named, algorithm] = row = len(self._rows)
            self._ports.append(named)
            slow_start_s = service.slow_start_s if service and algorithm not in BY_CLIENT else 0
            self._rows.append((len(self._endpoints), len(ids), row, algorithm, 0, NO_ENDPOINT_STATUS, slow_start_s))
            self._endpoints += ids
            self._used.update(zip(ids, endpoints, strict=True))
        return self._targets[named, algorithm]

    def routes(self, certificates: tuple[Certificate, ...]) -> Routes:
        # What no host takes: the default of an Ingress without rules, as in ingress-nginx, else that of any Ingress.
        default = min(self._defaults, key=lambda row: row.ruled, default=NO_DEFAULT)
        hosts: dict[str, tuple[int, ...]] = {}
        paths = [np.zeros((), PATH).item()]
        for name, host in sorted(self._hosts.items()):
            rows = self._paths(name, host)
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
            (*self._text.add(name[1:] if name[:1] in HOST_MARKS[1:] else name), _host_kind(name), *row)
            for name, row in sorted(hosts.items())
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
            services=tuple(self._ports),
            externals=self._externals,
            certificates=certificates,
        )

    def _paths(self, name: str, host: _Host) -> list[tuple[int, ...]]:
        """Rows of PATH of a host, in order of matching."""
        rows = dict(host.paths)
        for slot, place in self._wider(name, host):
            rows.setdefault(slot, place)
        if host.app_root:
            ingress, root = host.app_root
            policy = self._redirect(f"$scheme://$http_host{root}", 302)
            rows[Slot(EXACT, "/")] = _Place(0, self._origin(ingress, WHOLE, WHOLE), policy)
        by_name = sorted(rows.items(), key=lambda row: row[0].text, reverse=host.regex)
        ordered = sorted(by_name, key=lambda row: rank(row[0]))
        return [(*self._text.add(slot.text), slot.kind, slot.slash, *place) for slot, place in ordered]

    def _wider(self, name: str, host: _Host) -> Iterator[tuple[Slot, _Place]]:
        """The rules of wildcards and of any host that requests for this host meet too, in the manners it has."""
        manners = {slot.manner for slot in host.paths if slot.manner}
        wildcard = f"*.{name.partition('.')[2]}"
        for other in (wildcard, "") if manners else ():
            if other != name and other in self._hosts:
                yield from (row for row in self._hosts[other].paths.items() if row[0].manner in manners)

    def _missed(self, name: str, host: _Host, default: _Default) -> _Place:
        """What becomes of a path miss: as in ingress-nginx the policies of the host's first Ingress hold for it too.

        Where it goes to the general default, those of the default hold instead, and HTTPS as the host says. A host that
        lets not everybody in, or is elsewhere, sends nobody there.
        """
        if host.default.target or {Slot(PREFIX, "", True), Slot(REGEX, "/")} & host.paths.keys():
            return host.default
        ingress, asked = host.first
        policy = 0 if asked.manner else self._policy(ingress, asked, name, {})
        if not policy:
            return NOWHERE
        own = self._policies(ingress, asked, name, {}, secured=self._is_secured(name))
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


def _host_kind(name: str) -> int:
    return WILDCARD if name.startswith("*") else MATCHED if name.startswith("~") else NAMED


def hosts_of(rule: Object, asked: Asked) -> tuple[str, ...]:
    """The hosts that a rule is for, lower case; empty for any."""
    host = (rule.get("host") or "").lower()
    return (*((host,) if host else ()), *asked.names) or ("",)


def _paths_of(rule: Object) -> list[Object]:
    return (rule.get("http") or {}).get("paths") or []


def path_said(path: Object) -> tuple[str, str]:
    """Type and text of a path, as they are written: a canary's are the same as those of its rule."""
    return path.get("pathType") or "", path.get("path") or "/"


def _rewrites(asked: Asked, path: Object) -> bool:
    """Whether a path is rewritten; one that is the target already is not."""
    return bool(asked.rewrite) and not asked.manner and asked.rewrite != (path.get("path") or "/")


def trouble_with_fields(snapshot: Snapshot, named: Name) -> str:
    """Why a ConfigMap's fields cannot be put into answers, empty where they can."""
    found = snapshot.get("ConfigMap", *named)
    if why := trouble_with(found, ANSWERED):
        return why
    name = not_allowed(found or {}, snapshot.get("ConfigMap", *CONTROLLER))
    return f'has the key "{name}", which is not in {ALLOWED} of ConfigMap {"/".join(CONTROLLER)}' if name else ""


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


def balanced_by(service: Service | None) -> int:
    """The algorithm that a Service has requests balanced by, unless an Ingress says otherwise.

    What is chosen by the address that is connected to is in turn: through an Ingress that is nobody's.
    """
    found = algorithm_of(service, RR) if service else RR
    return RR if found == DH else found


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


def _pem_of(secret: Object, key: str) -> str:
    """What a Secret has under a key, empty where that is no text."""
    try:
        return base64.b64decode((secret.get("data") or {}).get(key, ""), validate=True).decode("ascii")
    except ValueError:
        return ""


def _pem(secret: Object | None) -> tuple[bytes, bytes] | None:
    """(chain, key) of a Secret of type kubernetes.io/tls; None where it has none."""
    data = (secret or {}).get("data") or {}
    try:
        return base64.b64decode(data["tls.crt"], validate=True), base64.b64decode(data["tls.key"], validate=True)
    except (KeyError, binascii.Error):
        return None
