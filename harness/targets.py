"""Where the loads of a scenario go on a plane that runs, and from which addresses.

Law: a target is resolved once, before the first request, against one Snapshot; what cannot be resolved is an error of
the scenario, with the field's path. A name that a resolver outside of the plane must know is asked for here, too, so
that a load never waits for DNS.
"""

import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import SplitResult

from harness.drivers.http import Destination
from harness.drivers.tls import Tls
from harness.scenario import Load, Scenario, ScenarioError, is_address
from harness.workload import Workload
from plane.addresses import AddressPlan, ip_to_int
from plane.errors import Problem
from plane.model import Object, Service, Snapshot
from plane.statuses import node_name

CLIENT_IMAGE = "registry.k8s.io/pause:3.10"
HTTP_PORT = 80
HTTPS_PORT = 443


@dataclass(frozen=True)
class Surroundings:
    """What is there for targets to be: a plane's Snapshot, plan and Ingress (address, port of HTTP); or no plane.

    authority  PEM of who signed the run's certificates, if it has any
    """

    snapshot: Snapshot
    plan: AddressPlan
    ingress: tuple[str, int]
    https_port: int = HTTPS_PORT
    authority: str = ""


@dataclass(frozen=True)
class Resolved:
    """A load's target, found.

    destination  where to connect, from where
    frontend     (address in host order, port as manifests name it) that the plane's records call it by
    service      namespace/name of the Service that was dialled, empty where it was none
    """

    destination: Destination
    workload: Workload
    frontend: tuple[int, int]
    service: str = ""


class _UnresolvedError(Exception):
    """(field below the load, reason)"""


def client_pods(scenario: Scenario) -> list[Object]:
    """The pods whose addresses loads come from: of each load that dials a Service or says where it comes from.

    They are real pods, so that their addresses are reserved and known to the plane; they run nothing.
    """
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": load.target.namespace},
            "spec": {
                "containers": [{"name": "client", "image": CLIENT_IMAGE}],
                **({"nodeName": node_name(load.origin.node)} if load.origin and load.origin.node else {}),
            },
        }
        for load in scenario.spec.loads
        for name in client_names(load)
    ]


def client_names(load: Load) -> list[str]:
    """Of a load's client pods; none where it comes from wherever the kernel has it."""
    if load.origin is not None and load.origin.pods > 1:
        return [f"{load.name}-client-{number}" for number in range(1, load.origin.pods + 1)]
    return [f"{load.name}-client"] if load.origin is not None or load.target.service is not None else []


def resolve(scenario: Scenario, file: str, around: Surroundings | None) -> list[Resolved]:
    """The target of every load, in order. Raises ScenarioError with all that lead nowhere."""
    resolved, problems = [], []
    for place, load in enumerate(scenario.spec.loads):
        try:
            found = _resolve(load, around)
            tls = _tls(load, Path(file).parent, around)
            resolved.append(replace(found, destination=replace(found.destination, tls=tls)))
        except _UnresolvedError as error:
            field, reason = error.args
            path = f"spec.loads[{place}].{field}"
            problems.append(Problem(file, 1, f"Scenario {scenario.name}", path, reason))
    if problems:
        raise ScenarioError(problems)
    return resolved


def _resolve(load: Load, around: Surroundings | None) -> Resolved:
    sources = _sources(load, around)
    url = load.target.url
    if url is None:
        assert around is not None  # the schema lets a service be named only with manifests
        service = _service(around.snapshot, load.target.namespace, load.target.service or "", "target.service")
        port = _port(service, load.target.port)
        host = f"{service.name}.{service.namespace}.svc.cluster.local" + (f":{port}" if port != HTTP_PORT else "")
        return _to_service(load, service, port, around, host, load.target.path, sources)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    host = url.hostname or ""
    port = url.port or (HTTPS_PORT if url.scheme == "https" else HTTP_PORT)
    if is_address(host):
        return _to_address(load, host, port, url, path, sources)
    if around is not None:
        dialled = _service_of_name(around.snapshot, host)
        if dialled is not None:
            return _to_service(load, dialled, _port(dialled, port, "target.url"), around, url.netloc, path, sources)
        if _has_rules_for(around.snapshot, host):
            return _to_ingress(load, around, url, path, sources)
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
    except OSError:
        if around is not None and _takes_any_host(around.snapshot):
            return _to_ingress(load, around, url, path, sources)
        if around is None:
            reason = "there are no manifests, and the system does not know it"
        else:
            there = f"they have: {', '.join(hosts)}" if (hosts := _hosts(around.snapshot)) else "they have none"
            reason = f"no Ingress has this host ({there}), no Service this name, and the system does not know it"
        raise _UnresolvedError("target.url", f"{host}: {reason}") from None
    return _to_address(load, str(found), port, url, path, sources)


def _to_ingress(load: Load, around: Surroundings, url: SplitResult, path: str, sources: tuple[str, ...]) -> Resolved:
    ip, port = around.ingress
    port = around.https_port if url.scheme == "https" else port
    return Resolved(Destination(ip, port, sources), _workload(load, url.netloc, path), (ip_to_int(ip), port))


def _to_address(load: Load, ip: str, port: int, url: SplitResult, path: str, sources: tuple[str, ...]) -> Resolved:
    return Resolved(Destination(ip, port, sources), _workload(load, url.netloc, path), (ip_to_int(ip), port))


def _to_service(
    load: Load, service: Service, port: int, around: Surroundings, host: str, path: str, sources: tuple[str, ...]
) -> Resolved:
    destination = Destination(service.cluster_ip, around.plan.bound_port(port), sources)
    return Resolved(destination, _workload(load, host, path), (ip_to_int(service.cluster_ip), port), service.full_name)


def _workload(load: Load, host: str, path: str) -> Workload:
    return Workload(host, path, load.method, load.headers, load.body, load.keep_alive)


def _tls(load: Load, folder: Path, around: Surroundings | None) -> Tls | None:
    """How a load by HTTPS does it, None where it is by plain HTTP."""
    url, trust = load.target.url, load.target.tls
    if url is None or url.scheme != "https":
        return None
    made = Tls(url.hostname or "", around.authority if around else "", insecure=bool(trust and trust.insecure))
    if trust and trust.ca is not None:
        if not (folder / trust.ca).exists():
            raise _UnresolvedError("target.tls.ca", f"there is no {folder / trust.ca}")
        try:
            made = replace(made, authorities=(folder / trust.ca).read_text(encoding="ascii"), only=True)
            made.context()
        except (OSError, UnicodeDecodeError, ssl.SSLError) as error:
            reason = f"{folder / trust.ca} holds no certificates in PEM: {error}"
            raise _UnresolvedError("target.tls.ca", reason) from None
    return made


def _sources(load: Load, around: Surroundings | None) -> tuple[str, ...]:
    """Addresses of the load's client pods."""
    if around is None:
        return ()
    addresses = []
    for name in client_names(load):
        pod = around.snapshot.get("Pod", load.target.namespace, name) or {}
        address = (pod.get("status") or {}).get("podIP")
        if not address:
            raise _UnresolvedError("from", f"the client pod {load.target.namespace}/{name} has no address")
        addresses.append(str(address))
    return tuple(addresses)


def _service(snapshot: Snapshot, namespace: str, name: str, field: str) -> Service:
    obj = snapshot.get("Service", namespace, name)
    if obj is None:
        there = ", ".join(Service.of(other).full_name for other in snapshot.all("Service")) or "none"
        raise _UnresolvedError(field, f"there is no Service {namespace}/{name}; there are: {there}")
    service = Service.of(obj)
    if not service.cluster_ip:
        raise _UnresolvedError(field, f"Service {service.full_name} has no ClusterIP to dial; give it one")
    return service


def _port(service: Service, wanted: int | None, field: str = "target.port") -> int:
    ports: Sequence[int] = [port.port for port in service.ports if port.protocol == "TCP"]
    listed = ", ".join(map(str, ports)) or "none"
    if wanted is None and len(ports) != 1:
        raise _UnresolvedError(field, f"say which of the TCP ports of Service {service.full_name}: {listed}")
    if wanted is not None and wanted not in ports:
        raise _UnresolvedError(field, f"Service {service.full_name} has no TCP port {wanted}; its ports are {listed}")
    return ports[0] if wanted is None else wanted


def _service_of_name(snapshot: Snapshot, host: str) -> Service | None:
    """The Service that a name of the cluster's DNS means: ``<svc>.<ns>.svc`` or ``<svc>.<ns>.svc.cluster.local``."""
    labels = host.rstrip(".").lower().removesuffix(".cluster.local").split(".")
    if len(labels) != 3 or labels[2] != "svc":
        return None
    return _service(snapshot, labels[1], labels[0], "target.url")


def _ingress_specs(snapshot: Snapshot) -> Iterator[Object]:
    return (obj.get("spec") or {} for obj in snapshot.all("Ingress"))


def _hosts(snapshot: Snapshot) -> list[str]:
    """Those that Ingresses have."""
    rules = (rule for spec in _ingress_specs(snapshot) for rule in spec.get("rules") or ())
    return sorted({rule["host"] for rule in rules if rule.get("host")})


def _has_rules_for(snapshot: Snapshot, host: str) -> bool:
    """Whether an Ingress has a rule for that host, by its own name or by a wildcard, which stands for one label."""
    host = host.rstrip(".").lower()
    names = {(rule.get("host") or "").lower() for spec in _ingress_specs(snapshot) for rule in spec.get("rules") or ()}
    return host in names or f"*.{host.partition('.')[2]}" in names


def _takes_any_host(snapshot: Snapshot) -> bool:
    return any(
        spec.get("defaultBackend") or any(not rule.get("host") for rule in spec.get("rules") or ())
        for spec in _ingress_specs(snapshot)
    )
