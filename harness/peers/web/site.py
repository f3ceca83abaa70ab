"""What every ingress is to carry: the Routes of one Snapshot, and their rules in words any proxy can be told. Pure.

Law: manifests in, once; a peer renders its configuration from the Site and never from anything written by hand. What
not every peer could be told is refused here, by Ingress and field, so that all are measured at the same work.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import trustme

from harness.peers.scene import NODE
from kernels.layout import EXACT, NAMED, PREFIX
from plane import offline, routecompiler
from plane.addresses import AddressPlan, int_to_ip
from plane.errors import ManifestError, Problem
from plane.model import Object, Snapshot
from plane.routes import Port, Routes

HTTP_PORT, HTTPS_PORT = 8080, 8443
RULES_EACH = 100  # rules of one Ingress, of those that are added


End = tuple[str, int]  # address and port
NOBODY: Mapping[Port, End] = {}


@dataclass(frozen=True)
class Upstream:
    """A port of a Service: a name that every configuration language takes, and who answers there."""

    name: str
    endpoints: tuple[End, ...]


@dataclass(frozen=True)
class Rule:
    """One path of one host. ``path`` is without a slash at its end, empty for all paths; it is of whole elements."""

    host: str
    path: str
    exact: bool
    upstream: Upstream


@dataclass(frozen=True)
class Site:
    """The same for all peers: where to listen, what to carry, and the certificate to show, as PEM."""

    address: str
    routes: Routes
    rules: tuple[Rule, ...]
    chain: str
    key: str

    @property
    def upstreams(self) -> tuple[Upstream, ...]:
        return tuple(dict.fromkeys(rule.upstream for rule in self.rules))

    @property
    def hosts(self) -> dict[str, list[Rule]]:
        """Rules by host, in order of matching: Exact first, then the longest."""
        found: dict[str, list[Rule]] = {}
        for rule in sorted(self.rules, key=lambda rule: (rule.host, not rule.exact, -len(rule.path))):
            found.setdefault(rule.host, []).append(rule)
        return found


def compose(objects: Iterable[Object], plan: AddressPlan, rules: int = 1, file: str = "") -> Site:
    """The Site that these objects settle into, with copies of the first rule until ``rules`` hosts have rules.

    Raises ManifestError where an Ingress asks for what not every peer is told.
    """
    objects = list(objects)
    ingresses = [obj for obj in objects if obj["kind"] == "Ingress"]
    if not ingresses or not ingresses[0]["spec"].get("rules") or not ingresses[0]["spec"].get("tls"):
        reason = "the first Ingress needs a rule with a host, and tls with a secretName"
        raise ManifestError([Problem(file, 0, "Ingress", "spec", reason)])
    secret = _secret(ingresses[0])
    snapshot = offline.settled([*objects, secret, *_more(ingresses[0], rules - 1)], nodes=NODE, plan=plan)
    pem = secret["stringData"]
    return survey(snapshot, plan.vip(1), (pem["tls.crt"], pem["tls.key"]), file)


def survey(
    snapshot: Snapshot, address: str, pair: tuple[str, str], file: str = "", instead: Mapping[Port, End] = NOBODY
) -> Site:
    """The Site of a Snapshot, to listen at an address, with a certificate's chain and key to show.

    ``instead`` names for a port of a Service who is connected to instead of its endpoints. Raises ManifestError where
    an Ingress asks for what not every peer is told.
    """
    compiled = routecompiler.compile(snapshot)
    if problems := list(_problems(compiled, file)):
        raise ManifestError(problems)
    return Site(address, compiled, tuple(_rules(compiled, instead)), *pair)


def issued(hosts: Iterable[str]) -> tuple[str, str]:
    """Chain and key, PEM, of a certificate that was made for these hosts; nobody knows who signed it."""
    made = trustme.CA().issue_cert(*hosts)
    return b"".join(blob.bytes() for blob in made.cert_chain_pems).decode(), made.private_key_pem.bytes().decode()


def _secret(ingress: Object) -> Object:
    tls = ingress["spec"]["tls"][0]
    chain, key = issued(tls["hosts"])
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": tls["secretName"], "namespace": ingress["metadata"].get("namespace", "default")},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": chain, "tls.key": key},
    }


def _more(ingress: Object, count: int) -> list[Object]:
    """Ingresses with the first path of this one for ``count`` further hosts."""
    first = ingress["spec"]["rules"][0]
    paths = {"paths": first["http"]["paths"][:1]}
    rules = [{"host": f"rule-{number}.{first['host'].partition('.')[2]}", "http": paths} for number in range(count)]
    return [
        {
            "apiVersion": ingress["apiVersion"],
            "kind": "Ingress",
            "metadata": {**ingress["metadata"], "name": f"{ingress['metadata']['name']}-{start}"},
            "spec": {"rules": rules[start : start + RULES_EACH]},
        }
        for start in range(0, count, RULES_EACH)
    ]


def _rules(compiled: Routes, instead: Mapping[Port, End]) -> Iterable[Rule]:
    upstreams = [_upstream(compiled, row, instead) for row in range(len(compiled.targets))]
    for number, host in enumerate(compiled.hosts[1:], start=1):
        first = int(host["first_path"])
        for row in range(first, first + int(host["paths"])):
            path = compiled.paths[row]
            text = compiled.path_text(row).rstrip("/") if path["kind"] == PREFIX else compiled.path_text(row)
            yield Rule(compiled.host_name(number), text, bool(path["kind"] == EXACT), upstreams[int(path["target"])])


def _upstream(compiled: Routes, row: int, instead: Mapping[Port, End]) -> Upstream:
    target = compiled.targets[row]
    first = int(target["first_endpoint"])
    backends = compiled.backends[compiled.endpoints[first : first + int(target["endpoints"])]]
    port = compiled.services[int(target["service"])]
    name = "".join(letter if letter.isalnum() else "-" for letter in str(port)) if row else ""
    if port in instead:
        return Upstream(name, (instead[port],))
    return Upstream(name, tuple((int_to_ip(int(each["ip"])), int(each["port"])) for each in backends))


def _problems(compiled: Routes, file: str) -> Iterable[Problem]:
    """What peers are not told of, by the Ingress that says so."""
    for number, host in enumerate(compiled.hosts):
        origin = compiled.origins[int(host["origin"])]
        if number and host["kind"] != NAMED:
            yield Problem(file, 0, f"host {compiled.host_name(number)}", "", "peers are measured with plain host names")
        if host["default"]:
            yield Problem(file, 0, f"Ingress {origin.ingress}", origin.field, "peers are measured without a default")
    for path in compiled.paths[1:]:
        origin = compiled.origins[int(path["origin"])]
        where = f"Ingress {origin.namespace}/{origin.ingress}"
        if path["kind"] not in (EXACT, PREFIX):
            yield Problem(file, 0, where, origin.field, "peers are measured with pathType Exact and Prefix")
        if path["policy"] or path["canary"] or path["when"]:
            yield Problem(file, 0, where, "metadata.annotations", "peers are measured without policies; remove them")
        if not compiled.targets[int(path["target"])]["endpoints"]:
            service = compiled.services[int(compiled.targets[int(path["target"])]["service"])]
            yield Problem(file, 0, where, origin.field, f"{service} has no ready endpoint; write an EndpointSlice")
