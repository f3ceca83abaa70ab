"""The Routes of an ingress: the tables that requests are looked up in, and what they name. Pure.

Law: all that decides about a request is in the tables, so that whoever reads them (``plane.router`` in Python, the
gateway in compiled code) routes alike. They are made by ``plane.routecompiler``. What a change does not concern keeps
its row. So Routes may know by the numbers of rows what they have otherwise than others before them; to yet others they
are compared table by table.
"""

import hashlib
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np

from kernels.layout import (
    HOST_MARKS,
    INGRESS_ALGORITHMS,
    PATH_KINDS,
    WILDCARD,
)
from plane.addresses import int_to_ip
from plane.policies import (
    Canary,
    Policies,
    Tables,
    When,
)

NO_ENDPOINT_STATUS = 503
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

    def __repr__(self) -> str:
        return f"Certificate({self.host!r}, …)"  # whatever prints it, the key is nobody's to see


class Edits(NamedTuple):
    """The rows that Routes have otherwise than those of generation ``before``, or beyond theirs: int64[n], in order.

    By the names of tables, ``policies`` apart. Of a table that is not named, and is another, it is not known.
    """

    before: int
    routes: Mapping[str, np.ndarray]
    policies: Mapping[str, np.ndarray]


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
    edits         what is known of how they differ from Routes before them
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
    edits: Edits | None = field(default=None, compare=False, repr=False)

    def has_tables_of(self, other: "Routes") -> bool:
        """Whether all tables are the very objects of others."""
        names = (row.name for row in fields(self) if row.name not in ("generation", "policies", "externals", "edits"))
        same = all(getattr(self, name) is getattr(other, name) for name in names)
        return same and all(map(operator.is_, self.policies, other.policies))

    def edits_since(self, before: "Routes") -> Edits:
        """What is known of how these differ from others of the same control plane."""
        if self.edits is not None and self.edits.before == before.generation:
            return self.edits
        return Edits(before.generation, {}, {})

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

    def path_rows(self, host: int) -> range:
        """The rows of the paths of a host."""
        first = int(self.hosts[host]["first_path"])
        return range(first, first + int(self.hosts[host]["paths"]))

    def policy(self, row: int) -> Policies:
        return self.policies.policy(row, self.text)

    def canary(self, row: int) -> Canary:
        return self.policies.canary(row, self.text)

    def when(self, row: int) -> When:
        return self.policies.when(row, self.text)


def equal(one: Routes, other: Routes) -> bool:
    """Whether two Routes route alike: the same but for their generation."""
    names = [row.name for row in fields(Routes) if row.name not in ("generation", "edits")]
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    return all(_same(left, right) for left, right in pairs)


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, Tables):
        return all(map(_same, one, other))
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


class Difference(NamedTuple):
    """What Routes have otherwise than others before them; all of it is bool[rows], where all else is alike.

    hosts       rows of HOST that say something else, themselves or in their paths, also those beyond the last before
    targets     the same of TARGET: another Service, or other endpoints
    backends    the same of BACKEND
    """

    hosts: np.ndarray
    targets: np.ndarray
    backends: np.ndarray


def difference(before: Routes, now: Routes) -> Difference | None:
    """By the edits, or by comparing tables, in time that goes by their bytes; None where all must be taken for new.

    Rows are compared by what they refer to only so far as it may change under them: to text, policies and conditions
    nothing but new rows may come.
    """
    _, known, known_policies = now.edits_since(before)

    def differ(name: str) -> np.ndarray:
        return differing(getattr(before, name), getattr(now, name), known.get(name))

    canaryless = (tables._replace(canaries=tables.strings) for tables in (before.policies, now.policies))
    if not _goes_on(before.text, now.text, known.get("text")) or not all(map(_goes_on, *canaryless)):
        return None
    canaries = differing(before.policies.canaries, now.policies.canaries, known_policies.get("canaries"))
    paths = differ("paths") | canaries[now.paths["canary"]]
    hosts = differ("hosts") | _any_of(paths, now.hosts["first_path"], now.hosts["paths"])
    backends = differ("backends")
    endpoints = differ("endpoints") | backends[now.endpoints]
    targets = differ("targets")
    targets |= _any_of(endpoints, now.targets["first_endpoint"], now.targets["endpoints"])
    if before.services is not now.services:
        renamed = np.ones(len(now.services), bool)
        both = min(len(before.services), len(now.services))
        renamed[:both] = np.fromiter(map(operator.ne, before.services, now.services), bool, both)
        targets |= renamed[now.targets["service"]]
    targets[[row for row in before.externals.keys() | now.externals.keys() if row < len(targets)]] = True
    return Difference(hosts, targets, backends)


def differing(before: np.ndarray, now: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
    """bool[len(now)]: the rows that ``before`` has not, or not with the same bytes; by their numbers, if known."""
    if known is not None:
        marked = np.zeros(len(now), bool)
        marked[known] = True
        return marked
    differ = np.ones(len(now), bool)
    both = min(len(before), len(now))
    word = np.dtype(np.uint8 if now.itemsize % 4 else np.uint32)  # of which rows consist
    one, other = (rows[:both].view(word) for rows in (before, now))
    differ[:both] = False
    if before is not now:
        differ[np.flatnonzero(one != other) // (now.itemsize // word.itemsize)] = True  # of which there are few
    return differ


def _goes_on(before: np.ndarray, now: np.ndarray, known: np.ndarray | None = None) -> bool:
    """Whether all rows of one table are in another at the same place; ``known`` are those that differ, if they are."""
    if before is now:
        return True
    if known is not None:
        return len(now) >= len(before) and (not len(known) or int(known[0]) >= len(before))
    there = now[: len(before)]
    return len(there) == len(before) and np.array_equal(there.view(np.uint8), before.view(np.uint8))


def _any_of(marked: np.ndarray, first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """For each of these runs of rows, whether one of its rows is marked."""
    until = np.concatenate(([0], np.cumsum(marked)))
    start = first.astype(np.int64)
    return until[start + count] > until[start]


class RouteNames:
    """What ``names`` says, of the row that it is asked for: for tables that change all the time.

    A rule that requests for other hosts meet too has the name of its own, which comes first.
    """

    def __init__(self, routes: Routes):
        self._routes = routes
        self._places: dict[int, tuple[int, int]] | None = None  # row of origins → of HOST, and of PATH or 0

    def __getitem__(self, origin: int) -> str:
        if not origin:
            return ""
        routes, row = self._routes, self._routes.origins[origin]
        if self._places is None:
            self._places = self._found()
        host, path = self._places.get(origin, (0, 0))
        if not host:
            return f"{row.namespace}/{row.ingress} default backend"
        name = routes.host_name(host) or "*"
        return f"{row.namespace}/{row.ingress} {name}" + (f" {routes.path_text(path)}" if path else "")

    def _found(self) -> dict[int, tuple[int, int]]:
        routes = self._routes
        hosts = routes.hosts
        wide = np.where(hosts["kind"] == WILDCARD, 1, 2) * (hosts["name_length"] > 0)
        own = np.argsort(wide, kind="stable")  # whose rules others meet too come before those
        own = own[hosts["alias"][own] == 0]
        said = own[(hosts["policy"][own] > 0) & (hosts["default"][own] == 0)]
        found = {int(hosts["origin"][row]): (row, 0) for row in said[::-1].tolist()}
        count = hosts["paths"][own].astype(np.int64)
        ends = np.cumsum(count)
        rows = np.arange(ends[-1] if len(ends) else 0) + np.repeat(hosts["first_path"][own] - (ends - count), count)
        of = np.repeat(own, count)
        forked = np.flatnonzero(routes.paths["canary"][rows])
        canaries = routes.policies.canaries["origin"][routes.paths["canary"][rows[forked]]]
        for origins, places in ((canaries, forked), (routes.paths["origin"][rows], np.arange(len(rows)))):
            pairs = zip(of[places][::-1].tolist(), rows[places][::-1].tolist(), strict=True)
            found.update(zip(origins[::-1].tolist(), pairs, strict=True))  # the first host that has one has it last
        return found


def names(routes: Routes) -> list[str]:
    """For each row of ``origins``, the route as people name it: ``namespace/ingress host path``."""
    found = RouteNames(routes)
    return [found[origin] for origin in range(len(routes.origins))]


def dump(routes: Routes) -> str:
    """The Routes as text, for people and expectations: equal for Routes that route alike, whatever their generation."""
    lines = []
    for number in sorted(range(len(routes.hosts)), key=lambda row: (row > 0, routes.host_name(row))):
        host = routes.hosts[number]
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
    for number in sorted(range(1, len(routes.targets)), key=lambda row: _named(routes, row)):
        target = routes.targets[number]
        if not target["service"]:  # a row that nobody has
            continue
        lines.append(f"target {routes.services[target['service']]} {_balanced(target)}")
        if external := routes.externals.get(number):
            lines.append(f"  -> {external.name}:{external.port}")
        for backend in routes.endpoints[int(target["first_endpoint"]) :][: int(target["endpoints"])]:
            row = routes.backends[backend]
            lines.append(f"  -> {backend} {int_to_ip(row['ip'])}:{row['port']}")
    for certificate in sorted(routes.certificates, key=lambda row: row.host):
        lines.append(f"certificate {certificate.host} {hashlib.sha256(certificate.chain).hexdigest()[:16]}")
    return "".join(f"{line}\n" for line in lines)


def _named(routes: Routes, target: int) -> tuple[str, int]:
    row = routes.targets[target]
    return str(routes.services[row["service"]]), int(row["algorithm"])


def _balanced(target: np.void) -> str:
    slow_start = f" slow start {target['slow_start_s']} s" if target["slow_start_s"] else ""
    return f"{INGRESS_ALGORITHMS[target['algorithm']]}{slow_start}"


def _said(routes: Routes, target: int, origin: int, policy: int) -> str:
    row = routes.origins[origin]
    rule = "default backend" if row.rule < 0 else f"rule {row.rule} path {row.path}"
    service = routes.services[routes.targets[target]["service"]] if target else "nobody"
    policies = f" [{routes.policy(policy)}]" if policy else ""
    return f"{service} ({row.namespace}/{row.ingress} {rule}){policies}"
