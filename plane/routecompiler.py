"""The Routes of a Snapshot: Ingress rules, in names, compiled to the tables that requests are looked up in. Pure.

Law: equal Snapshots give equal bytes. A request meets one host, or none, and of that host one
path, or its default; it never falls through to another host. An exact host comes before a wildcard, which stands for
one label, and that before rules without a host; Exact before Prefix, the longest Prefix first, element by element.
Where Ingresses say the same the oldest wins, then the first by namespace and name. Which of this is Kubernetes' word
and which ingress-nginx's is listed in ``plane/ingress/README.md``.

A Compiler makes of a change what ``compile`` makes of the Snapshot, but for the numbers of rows: what a change does not
concern keeps its row, so that readers find out by comparing tables what is new (``dump`` is the same). It does so by
host, with a wildcard go the hosts that it is for, with a Secret those of the Ingresses that name it. What says
something of more than hosts of its own makes it begin anew: default backends, rules without a host, further names of
hosts, and a change of any IngressClass or ConfigMap.
"""

import operator
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from kernels.layout import (
    BACKEND,
    EXACT,
    HOST,
    HOST_MARKS,
    INGRESS_ALGORITHMS,
    PATH,
    PREFIX,
    READY,
    REGEX,
    TARGET,
    TCP,
    WILDCARD,
    freeze,
)
from plane import dialects
from plane.addresses import ip_to_int
from plane.balance import BY_CLIENT
from plane.dns.names import followed, loops, service_key
from plane.endpointindex import Change, EndpointIndex
from plane.growing import NO_ROWS, Growing, Numbered
from plane.headerlists import lines_of, trouble_with
from plane.ingressclass import served, unserved_because, winning
from plane.ingressrules import (
    COOKIE_PATH,
    Said,
    all_hosts,
    balanced_by,
    certificate_in,
    certified_hosts,
    certifying,
    external_of,
    find_port,
    host_kind,
    hosts_of,
    is_local,
    is_rewritten,
    name_of,
    path_said,
    paths_of,
    pem_of,
    port_meant,
    read_of,
    rules_for,
    ruling,
    trouble_with_fields,
    usable,
)
from plane.matching import Slot, rank, slot_of
from plane.model import Endpoint, Name, Object, Service, Snapshot, merged
from plane.passwords import users_of
from plane.policies import (
    NONE,
    NOTHING,
    PERMANENT_REDIRECT,
    Asked,
    Canary,
    Packer,
    Policies,
    names_any_host,
)
from plane.routes import NO_ENDPOINT_STATUS, WHOLE, Certificate, Edits, External, Origin, Port, Routes
from plane.rows import Followed, News

TEXT_BYTES = 64  # that a string has, roughly


ROOM = 4096  # rows that may be of nobody before tables are made anew


LAST = -(2**31)  # priority of Traefik's default backend, below any that an annotation can have


def compile(snapshot: Snapshot) -> Routes:
    """All tables of ``Routes``, read-only."""
    index = EndpointIndex()
    return Compiler().compile(snapshot, index, index.follow(snapshot))


class Compiler:
    """Compiles one Snapshot after the other: the hosts anew that Ingresses which changed say something of."""

    def __init__(self) -> None:
        self._rows: tuple[object, ...] = ()  # of the kinds that are read whole, in the Snapshot before
        self._ingresses: Followed[Name, Object] = Followed()
        self._services: Followed[Name, Object] = Followed()
        self._secrets: Followed[Name, Object] = Followed()
        self._table: _Table | None = None

    def compile(self, snapshot: Snapshot, index: EndpointIndex, change: Change) -> Routes:
        """As the function of this name. The index has followed the Snapshot, and ``change`` is what came of it."""
        rows = tuple(map(snapshot.rows, ("IngressClass", "ConfigMap")))
        same, self._rows = all(map(operator.is_, rows, self._rows)), rows
        ingresses = self._ingresses.news(snapshot.rows("Ingress"))
        services = self._services.news(snapshot.rows("Service"))
        secrets = {name for name, _, _ in self._secrets.news(snapshot.rows("Secret"))}
        table, self._table = self._table, None  # whatever is raised, nothing goes on from half of a change
        if table is None or not same or not table.go_on(snapshot, index, ingresses, services, secrets, change):
            table = _Table(snapshot, index)
            table.add(served(snapshot))
        self._table = table
        return table.routes()


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


@dataclass
class _Target:
    """A row of TARGET, as it is kept up to date.

    name     of the Service
    backend  that means it, the ``service`` of a path
    ids      of its endpoints, in order; ``first`` is where they stand
    hosts    that lead to it. A target that none does is for as long as the table, for it is of something else
    """

    name: Name
    backend: Object
    port: Port
    algorithm: int
    first: int = 0
    ids: tuple[int, ...] = ()
    hosts: set[str] = field(default_factory=set)


class _Part(NamedTuple):
    """The rows of a host: a run of PATH, and what nobody else refers to."""

    first: int
    paths: int
    targets: set[int]
    origins: list[int]
    canaries: list[int]


class _Table:
    """The tables while they are made. Ingresses are added in the order in which they win; then some may change.

    What is in it of a host follows from the Ingresses that have rules for it, and from nothing else if all of them are
    ``is_local``.
    """

    def __init__(self, snapshot: Snapshot, index: EndpointIndex):
        self._snapshot = snapshot
        self._index = index
        self._said: dict[Name, Said] = {}  # by Ingress
        self._of_host: defaultdict[str, set[Name]] = defaultdict(set)  # Ingresses that say something of a host
        self._hosts: dict[str, _Host] = {}
        self._defaults: list[_Default] = []
        self._default = NO_DEFAULT  # what no host takes
        self._targets: dict[int, _Target] = {}  # by row
        self._rows_of: dict[tuple[Port, int], int] = {}  # targets by port and algorithm
        self._targets_of: defaultdict[Name, set[int]] = defaultdict(set)  # by Service, whether it is there or not
        self._kept: set[int] = set()  # targets that are not, or not only, of hosts
        self._chained: set[Name] = set()  # Services that count by their names
        self._used: defaultdict[int, dict[int, Endpoint]] = defaultdict(dict)  # endpoints by id, then by target
        self._externals: dict[int, External] = {}
        self._certificates: dict[str, Certificate] = {}  # by host
        self._shown: tuple[Certificate, ...] = ()  # the same
        self._certified: defaultdict[str, set[Name]] = defaultdict(set)  # Ingresses with TLS for a host
        self._naming: defaultdict[Name, set[Name]] = defaultdict(set)  # Ingresses by the Secrets that they name
        self._names: list[str] = [""]  # of hosts, by row
        self._numbers: dict[str, int] = {}
        self._implied: set[str] = set()  # hosts that there are because of others
        self._parts: dict[str, _Part] = {}  # by host
        self._text = _Text()
        self._packer = Packer(self._text.add)
        self._host_rows = Growing(HOST, [np.zeros((), HOST).item()])
        self._path_rows = Growing(PATH, [np.zeros((), PATH).item()])
        self._target_rows = Growing(TARGET, [np.zeros((), TARGET).item()])
        self._endpoints = Growing(np.uint32)
        self._backends = Growing(BACKEND, [np.zeros((), BACKEND).item()])
        self._origins = Numbered(Origin("", "", -1, -1))
        self._ports = Numbered(Port("", 0))  # by row of targets
        # Rows of policies, with what was asked, so that no other object has its id meanwhile.
        self._same: dict[tuple[int, bool, bool], tuple[Asked, int]] = {}
        self._excuses = False  # whether some Service serves instead of others
        self._sizes: tuple[int, ...] = ()  # when all had been added
        self._given: Routes | None = None  # the first that have the tables as they were given last

    def add(self, ingresses: Iterable[Object]) -> None:
        """All Ingresses: first what each says of its hosts as a whole, for that concerns the paths of the others."""
        rows = [(ingress, dialects.asked(ingress, self._snapshot)) for ingress in ingresses]
        routed = [row for row in rows if not row[1].canary]
        for said in rows:
            self._file(said)
        for ingress, asked in routed:
            for rule in ingress["spec"].get("rules") or ():
                for name in hosts_of(rule, asked):
                    self._note_host(ingress, asked, name, paths_of(rule))
            if asked.manner and ingress["spec"].get("defaultBackend"):
                self._note_host(ingress, asked, "", [])
        for ingress, asked in routed:
            self._add_rules(ingress, asked)
        for ingress, asked in rows:
            if asked.canary:
                self._add_canary(ingress, asked, asked.canary)
        for host in list(self._certified):
            self._certify(host)
        self._shown = tuple(self._certificates.values())
        self._excuses = any(asked.default_backend for _, asked in rows)
        self._lay_all()

    def _file(self, said: Said) -> None:
        """Notes whose Ingress it is, by its hosts and those of its certificates."""
        name = name_of(said[0])
        self._said[name] = said
        for host in all_hosts(said):
            self._of_host[host].add(name)
        for host, _ in certified_hosts(said[0]):
            self._certified[host].add(name)
        for secret in certifying(said[0]) | ruling(said[1]):
            self._naming[secret].add(name)

    def go_on(
        self,
        snapshot: Snapshot,
        index: EndpointIndex,
        ingresses: Iterable[News[Name, Object]],
        services: Iterable[News[Name, Object]],
        secrets: Iterable[Name],
        change: Change,
    ) -> bool:
        """Follows a Snapshot from the one before; false where the table has to be made anew, and is of no use."""
        self._snapshot, self._index = snapshot, index
        touched: set[str] = set()
        certified: set[str] = set()
        for name, _, now in ingresses:
            before = self._said.get(name)
            after = (now, dialects.asked(now, snapshot)) if now and not unserved_because(now, snapshot) else None
            if before and after and read_of(before[0]) == read_of(after[0]):
                continue  # only its status differs
            for said in filter(None, (before, after)):
                touched |= all_hosts(said)
                certified.update(host for host, _ in certified_hosts(said[0]))
            if not self._replace(name, before, after):
                return False
        stale: set[int] = set()
        if not self._follow_services(services, change, touched, stale):
            return False
        if not self._follow_secrets(secrets, touched, certified):
            return False
        self._add_narrower(touched)
        if touched & self._implied or not all(map(self._is_apart, touched)):
            return False
        left = {row for host in touched & self._parts.keys() for row in self._parts[host].targets}
        for host in sorted(touched):  # a wildcard before those that it is for
            self._redo(host)
        for row in (left | stale) - self._kept:
            if row in self._targets and not self._targets[row].hosts:
                self._forget(row)
        for row in stale & self._targets.keys():
            self._fill(row)
        for host in sorted(certified):
            self._certify(host)
        if certified:
            self._shown = tuple(self._certificates.values())
        return not self._is_worn()

    def _replace(self, name: Name, before: Said | None, after: Said | None) -> bool:
        """Has one Ingress in the place of another of that name; false where that concerns others' hosts."""
        if not all(map(is_local, filter(None, (before, after)))):
            return False
        if before:
            del self._said[name]
            for host in all_hosts(before):
                self._of_host[host].discard(name)
            for host, _ in certified_hosts(before[0]):
                self._certified[host].discard(name)
            for secret in certifying(before[0]) | ruling(before[1]):
                self._naming[secret].discard(name)
                if not self._naming[secret]:
                    del self._naming[secret]
        if after:
            self._file(after)
        return True

    def _follow_services(
        self, services: Iterable[News[Name, Object]], change: Change, touched: set[str], stale: set[int]
    ) -> bool:
        """Adds the hosts and targets that Services which changed concern; false where they concern more."""
        named = change.services & self._targets_of.keys()
        if change.services & self._chained or (named and (change.nodes or self._excuses)):
            return False
        for name, before, now in services:
            rows = self._targets_of.get(name, set())
            if rows and (before is None or now is None or read_of(before) != read_of(now)):
                if rows & self._kept or rows & self._externals.keys():
                    return False
                touched.update(*(self._targets[row].hosts for row in rows))
        stale.update(*(self._targets_of[name] for name in named))
        return True

    def _follow_secrets(self, secrets: Iterable[Name], touched: set[str], certified: set[str]) -> bool:
        """Adds the hosts whose policies and certificates are of Secrets which changed; false where more is."""
        for secret in secrets:
            for said in (self._said[name] for name in self._naming.get(secret, ())):
                certified.update(host for host, _ in certified_hosts(said[0]))
                if secret in ruling(said[1]):
                    if not is_local(said):
                        return False
                    touched |= all_hosts(said)
        return True

    def _add_narrower(self, touched: set[str]) -> None:
        """Adds the hosts that wildcards among these are for too."""
        wide = {name.removeprefix("*.") for name in touched if host_kind(name) == WILDCARD}
        if wide:
            touched.update(name for name in self._hosts if name.partition(".")[2] in wide)

    def _is_apart(self, host: str) -> bool:
        """Whether what is said of a host is said of nothing besides, but where it is a wildcard; not for any host."""
        return bool(host) and all(is_local(self._said[name]) for name in self._of_host.get(host, ()))

    def _redo(self, name: str) -> None:
        """Makes a host anew, of which nothing may be left. Its targets stay, also those that it has no more."""
        self._hosts.pop(name, None)
        if name in self._parts:
            self._release(self._parts.pop(name), name)
        rows = sorted((self._said[each] for each in self._of_host.get(name, ())), key=lambda said: winning(said[0]))
        routed = [(row, rule, number) for row in rows if not row[1].canary for number, rule in rules_for(name, row)]
        for (ingress, asked), rule, _ in routed:
            self._note_host(ingress, asked, name, paths_of(rule))
        for (ingress, asked), rule, number in routed:
            self._add_paths(ingress, asked, name, number, paths_of(rule))
        for ingress, asked in rows:
            if asked.canary:
                self._add_canary(ingress, asked, asked.canary, name)
        if name in self._hosts:
            self._number(name, self._row(name))
        elif name in self._numbers:
            self._remove(name)
        if not rows:
            self._of_host.pop(name, None)

    def _release(self, part: _Part, host: str) -> None:
        """Leaves the rows of a host to others."""
        self._path_rows.drop(part.first, part.paths)
        for origin in part.origins:
            self._origins.drop(origin)
        for canary in part.canaries:
            self._packer.drop_canary(canary)
        for target in part.targets:
            self._targets[target].hosts.discard(host)

    def _lay_all(self) -> None:
        """Gives all hosts their rows, and what is of none."""
        # What no host takes: the default of an Ingress without rules, as in ingress-nginx, else that of any Ingress.
        self._default = min(self._defaults, key=lambda row: row.ruled, default=NO_DEFAULT)
        self._host_rows[0] = (0, 0, 0, 0, 0, 0, *self._default.place[:3])
        hosts = {name: self._row(name) for name in sorted(self._hosts)}
        for name, host in sorted(self._hosts.items()):
            for alias in host.aliases:
                self._implied.add(alias)
                hosts.setdefault(alias, (1, *hosts[name][1:]))
        for name, host in sorted(self._hosts.items()):
            if host.www:
                other = name.removeprefix("www.") if name.startswith("www.") else f"www.{name}"
                url = f"$scheme://{name}$trimmed_uri"
                self._implied.add(other)
                hosts.setdefault(other, (0, 0, 0, 0, self._origin(host.first[0], WHOLE, WHOLE), self._redirect(url)))
        for name, row in sorted(hosts.items()):
            self._number(name, row)
        self._kept.update(row for row, target in self._targets.items() if not target.hosts)
        self._sizes = self._count()

    def _row(self, name: str) -> tuple[int, ...]:
        """Of a host: that it is no alias, its paths, which are put in place, and its default."""
        host = self._hosts[name]
        rows, missed = self._paths(name, host), self._missed(name, host, self._default)
        first = self._path_rows.put(rows)
        own, whole = host.paths.values(), [missed.origin, *(row[5] for row in rows)]
        canaries = [place.canary for place in own if place.canary]
        led = [self._packer.led_by(row) for row in canaries]
        origins = {place.origin for place in own} | {origin for _, origin in led}
        origins.update(origin for origin in whole if self._origins[origin].rule == WHOLE)
        targets = {missed.target, *(row[4] for row in rows), *(place.target for place in own)}
        targets = targets.union(target for target, _ in led) - {0}
        for target in targets:
            self._targets[target].hosts.add(name)
        self._parts[name] = _Part(first, len(rows), targets, sorted(origins), canaries)
        return 0, first, len(rows), *missed[:3]

    def _number(self, name: str, row: tuple[int, ...]) -> None:
        """Puts a row of HOST where that of the host is, or at the end."""
        if name not in self._numbers:
            self._numbers[name] = len(self._names)
            self._names.append(name)
        text = self._text.add(name[1:] if name[:1] in HOST_MARKS[1:] else name)
        self._host_rows[self._numbers[name]] = (*text, host_kind(name), *row)

    def _remove(self, name: str) -> None:
        """Takes away the row of a host; the last one has its place from then on."""
        number, last = self._numbers.pop(name), self._names.pop()
        if last != name:
            self._host_rows[number] = self._host_rows[len(self._names)]
            self._names[number], self._numbers[last] = last, number
        self._host_rows.shorten()

    def _certify(self, host: str) -> None:
        """The certificate of a host: of the first of the Ingresses that has one."""
        for ingress, _ in sorted(
            (self._said[name] for name in self._certified[host]), key=lambda said: winning(said[0])
        ):
            namespace = ingress["metadata"].get("namespace", "default")
            for name, secret in certified_hosts(ingress):
                if name == host and (pair := certificate_in(self._snapshot.get("Secret", namespace, secret))):
                    self._certificates[host] = Certificate(host, *pair)  # at its place, if it has one
                    return
        self._certificates.pop(host, None)
        if not self._certified[host]:
            del self._certified[host]

    def _count(self) -> tuple[int, ...]:
        """How long the tables are in which nothing is dropped, or not all that is dropped is used again."""
        rows = len(self._path_rows), len(self._endpoints), len(self._text.bytes) // TEXT_BYTES, len(self._same)
        return *rows, *self._packer.sizes()

    def _is_worn(self) -> bool:
        """Whether much of the tables may be of nobody."""
        return any(now > 2 * begun + ROOM for now, begun in zip(self._count(), self._sizes, strict=True))

    def _note_host(self, ingress: Object, asked: Asked, name: str, paths: list[Object]) -> None:
        host = self._hosts.setdefault(name, _Host((ingress, asked)))
        host.regex |= asked.regex or any(is_rewritten(asked, path) for path in paths)
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
            self._kept.add(default.target)
            self._defaults.append(_Default(bool(rules), default, policies))
        for number, rule in enumerate(rules):
            for name in hosts_of(rule, asked):
                host = self._hosts[name]
                if default.target and not host.default.target:
                    backend = {"backend": ingress["spec"]["defaultBackend"]}
                    host.default = default._replace(policy=self._policy(ingress, asked, name, backend))
                self._add_paths(ingress, asked, name, number, paths_of(rule))
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
        if asked.rewrite or ruling(asked) or asked.policies.cookie or asked.manner or asked.default_backend:
            return self._packer.policy(self._policies(ingress, asked, host, path, secured=secured))
        # Of what no path changes: most Ingresses share the one object that asks for nothing.
        key = id(asked), secured, bool(host)
        if key not in self._same:
            row = self._packer.policy(self._policies(ingress, asked, host, path, secured=secured))
            self._same[key] = asked, row
        return self._same[key][1]

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
        if path.get("pathType") and is_rewritten(asked, path):
            expression = slot_of(path, "", asked, regex=True).text
            policies = replace(policies, rewrite_from=expression, rewrite_to=asked.rewrite)
        elif policies.forwarded_prefix:
            policies = replace(policies, forwarded_prefix="")
        if policies.cookie and not policies.cookie_path:
            policies = replace(policies, cookie_path=text if COOKIE_PATH.match(text) else "/")
        if asked.manner:
            policies = dialects.settled(policies, asked, path, self._snapshot, ingress)
        return policies

    def _with_certificates(self, policies: Policies, namespace: str, name: str) -> Policies:
        """Those of a Secret, towards endpoints; where it is not there, or has no authorities to verify by, nobody."""
        secret = self._snapshot.get("Secret", namespace, name)
        if secret is None:
            return replace(policies, denied=f"there is no Secret {namespace}/{name} for proxy-ssl-secret")
        authorities, chain, key = (pem_of(secret, file) for file in ("ca.crt", "tls.crt", "tls.key"))
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
        self._chained.add(default)
        found = self._snapshot.get("Service", namespace, name)
        port = next((port.port for port in Service.of(found).ports if port.protocol == "TCP"), 0) if found else 0
        spare = self._target(namespace, {"name": name, "port": {"number": port}}, wanted) if port else 0
        self._kept.add(spare)
        if not self._is_served(spare):
            return policies
        own = (path.get("backend") or {}).get("service") or {}
        without = bool(own) and not self._is_served(self._target(namespace, own, wanted))
        return replace(policies, errors_target=spare if policies.errors else 0, fallback=spare if without else 0)

    def _is_served(self, target: int) -> bool:
        """Whether there is somebody whom the requests of a target go to."""
        return target in self._externals or bool(target and self._targets[target].ids)

    def _is_secured(self, host: str) -> bool:
        """Whether ingress-nginx has a certificate for a host, if only the default one: by its name or its wildcard."""
        wildcard = f"*.{host.partition('.')[2]}"
        return bool(host) and any(name in self._hosts and self._hosts[name].secured for name in (host, wildcard))

    def _add_canary(self, ingress: Object, asked: Asked, canary: Canary, only: str | None = None) -> None:
        """To the same rule of another Ingress, unless that has one, or leads to the same Service; ``only`` of a host.

        Of what a canary asks for besides, its algorithm counts, as in ingress-nginx.
        """
        for number, rule in enumerate(ingress["spec"].get("rules") or ()):
            name = (rule.get("host") or "").lower()
            host = self._hosts.get(name)
            if host is None or only not in (None, name):
                continue
            for index, path in enumerate(paths_of(rule)):
                slot = slot_of(path, "", NOTHING, regex=host.regex)
                main = host.paths.get(slot, NOWHERE)
                if main.canary or host.said.get(slot) != path_said(path):
                    continue
                if self._port(ingress, path["backend"]) != self._ports[main.target]:
                    target = self._backend(ingress, asked, path["backend"])
                    row = self._packer.canary(canary, target, self._origin(ingress, number, index))
                    host.paths[slot] = main._replace(canary=row)

    def _place(self, ingress: Object, asked: Asked, backend: Object, rule: int, path: int, policy: int) -> _Place:
        """Where a backend of an Ingress leads."""
        origin = self._origin(ingress, rule, path)
        return _Place(self._backend(ingress, asked, backend), origin, policy)

    def _backend(self, ingress: Object, asked: Asked, backend: Object) -> int:
        """Row of the target of a backend of an Ingress."""
        namespace = ingress["metadata"].get("namespace", "default")
        return self._target(namespace, backend.get("service") or {}, asked.algorithm)

    def _port(self, ingress: Object, backend: Object) -> Port:
        """The port of a Service that a backend of an Ingress means."""
        namespace, service = ingress["metadata"].get("namespace", "default"), backend.get("service") or {}
        return port_meant(namespace, service, find_port(self._snapshot, namespace, service)[1])

    def _origin(self, ingress: Object, rule: int, path: int) -> int:
        namespace, name = ingress["metadata"].get("namespace", "default"), ingress["metadata"]["name"]
        return self._origins.put(Origin(namespace, name, rule, path))

    def _target(self, namespace: str, backend: Object, wanted: str) -> int:
        """Row of the target that a backend's ``service`` means; a Service or port that is missing has no endpoint.

        ``wanted`` is the algorithm that the Ingress asks for, if any.
        """
        service, port = find_port(self._snapshot, namespace, backend)
        named = port_meant(namespace, backend, port)
        algorithm = INGRESS_ALGORITHMS.index(wanted) if wanted else balanced_by(service)
        row = self._rows_of.get((named, algorithm))
        if row is None:
            row = self._rows_of[named, algorithm] = self._ports.put(named)
            name = namespace, backend.get("name", "")
            self._targets[row] = _Target(name, backend, named, algorithm)
            self._targets_of[name].add(row)
            self._fill(row)
        self._targets[row].backend = backend  # the last to be looked up means the port by the name that it has now
        return row

    def _fill(self, row: int) -> None:
        """Says of a target who serves it now."""
        target = self._targets[row]
        service, port = find_port(self._snapshot, target.name[0], target.backend)
        endpoints: list[Endpoint] = []
        if service and port and service.type == "ExternalName":
            self._chained.update(filter(None, map(service_key, followed(self._snapshot, service)[0])))
            if not loops(self._snapshot, service):
                self._externals[row] = external_of(service, port)
        elif service and port:
            there = merged(service, self._index.of_service((target.name[0], service.name)))
            endpoints = usable(there[port.name])
        self._lead(row, target, endpoints)
        slow_start_s = service.slow_start_s if service and target.algorithm not in BY_CLIENT else 0
        count = len(target.ids)
        self._target_rows[row] = (target.first, count, row, target.algorithm, 0, NO_ENDPOINT_STATUS, slow_start_s)

    def _lead(self, row: int, target: _Target, endpoints: Sequence[Endpoint]) -> None:
        """Has a target lead to these endpoints and no others."""
        ids = tuple(self._index.ids[endpoint.key] for endpoint in endpoints)
        for number in set(target.ids).difference(ids):
            del self._used[number][row]
            self._show(number)
        for number, endpoint in zip(ids, endpoints, strict=True):
            if self._used[number].get(row) != endpoint:
                self._used[number][row] = endpoint
                self._show(number)
        if ids != target.ids:
            self._endpoints.drop(target.first, len(target.ids))
            target.first, target.ids = self._endpoints.put(ids), ids

    def _show(self, number: int) -> None:
        """Puts in place what targets say of an endpoint: the last by name of those that differ in its weight."""
        if said := self._used[number]:
            last = max(said, key=lambda row: (str(self._targets[row].port), self._targets[row].algorithm))
            endpoint = said[last]
            self._backends[number] = (ip_to_int(endpoint.ip), endpoint.port, endpoint.weight, 0, TCP, READY)
        else:
            del self._used[number]
            self._backends[number] = self._backends[0]

    def _forget(self, row: int) -> None:
        """Takes away a target that no host leads to."""
        target = self._targets[row]
        self._lead(row, target, ())
        del self._targets[row], self._rows_of[target.port, target.algorithm]
        self._targets_of[target.name].discard(row)
        if not self._targets_of[target.name]:
            del self._targets_of[target.name]
        self._externals.pop(row, None)
        self._ports.drop(row)
        self._target_rows[row] = self._target_rows[0]

    def routes(self) -> Routes:
        """All as it is now, with the edits since it was otherwise."""
        tables: dict[str, Growing | Numbered[Any] | _Text] = {
            "hosts": self._host_rows,
            "paths": self._path_rows,
            "targets": self._target_rows,
            "endpoints": self._endpoints,
            "backends": self._backends,
            "text": self._text,
            "origins": self._origins,
            "services": self._ports,
        }
        versions: dict[str, Any] = {name: table.version() for name, table in tables.items()}
        policies, before = self._packer.tables(), self._given
        edited = {name: table.edited for name, table in tables.items()}
        found = Routes(
            generation=self._snapshot.generation,
            policies=policies,
            externals=self._externals.copy(),
            certificates=self._shown,
            edits=None if before is None else Edits(before.generation, edited, self._packer.edited()),
            **versions,
        )
        if before is None or not found.has_tables_of(before):
            self._given = found
        return found

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
    """The text blob while it is made; equal strings share their bytes. ``edited``: as that of ``Growing``."""

    def __init__(self) -> None:
        self.edited = NO_ROWS
        self.bytes = bytearray()
        self._version = freeze(np.zeros(0, np.uint8))
        self._places: dict[str, tuple[int, int]] = {}

    def add(self, string: str) -> tuple[int, int]:
        """(offset, length) of a string."""
        if string not in self._places:
            encoded = string.encode()
            self._places[string] = len(self.bytes), len(encoded)
            self.bytes += encoded
        return self._places[string]

    def version(self) -> np.ndarray:
        """uint8[...], read-only; the same object while nothing was added."""
        self.edited = np.arange(len(self._version), len(self.bytes))
        if len(self.edited):
            self._version = freeze(np.frombuffer(bytes(self.bytes), np.uint8))
        return self._version
