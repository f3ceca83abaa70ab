"""Where the loads of a scenario go on a plane that runs, and from which addresses.

Law: a target is resolved once, before the first request, against one Snapshot; what cannot be resolved is an error of
the scenario, with the field's path. A name that a resolver outside of the plane must know is asked for here, too, so
that a load never waits for DNS.
"""

import socket
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import SplitResult

from harness.drivers.http import Destination
from harness.drivers.tls import Tls
from harness.scenario import Load, Scenario, ScenarioError, is_address
from harness.workload import Echo, Workload
from kernels.jit import INTERPRETED
from plane.addresses import AddressPlan, ip_to_int
from plane.errors import Problem
from plane.model import Object, Service, ServicePort, Snapshot
from plane.statuses import node_name
from plane.validation.metadata import selects

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
    workload: Workload | Echo
    frontend: tuple[int, int]
    service: str = ""


class _UnresolvedError(Exception):
    """(field below the load, reason)"""


def client_pods(scenario: Scenario) -> list[Object]:
    """The pods whose addresses loads come from: of each that dials a Service or a pod, or says where it comes from.

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
    inside = load.target.pod is not None or (load.target.service is not None and load.target.via == "clusterIP")
    return [f"{load.name}-client"] if load.origin is not None or inside else []


def resolve(scenario: Scenario, file: str, around: Surroundings | None) -> list[Resolved]:
    """The target of every load, in order. Raises ScenarioError with all that lead nowhere."""
    resolved, problems = [], []
    for place, load in enumerate(scenario.spec.loads):
        try:
            found = _resolve(load, around)
            if load.spread and ip_address(found.destination.ip).is_loopback:
                reason = f"{found.destination.ip} is each machine's own: give a target that all of them reach"
                raise _UnresolvedError("spread", reason)
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
    if load.target.pod is not None:
        assert around is not None  # the schema lets a pod be named only with manifests
        return _to_pod(load, around, sources)
    if url is None:
        assert around is not None  # nor a service
        service = _service(around.snapshot, load.target.namespace, load.target.service or "", "target.service")
        port = _port(service, load.target.port)
        behind = f":{port.port}" if port.port != HTTP_PORT else ""
        host = f"{service.name}.{service.namespace}.svc.cluster.local{behind}"
        return _to_service(load, service, port, around, host, load.target.path, sources)
    if load.target.messages and INTERPRETED:
        reason = f"{url.scheme}:// is spoken by compiled code only: run it without NUMBA_DISABLE_JIT"
        raise _UnresolvedError("target.url", reason)
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    host = url.hostname or ""
    number = url.port or (HTTPS_PORT if url.scheme == "https" else HTTP_PORT)
    dialled = None
    if around is not None and not is_address(host):
        dialled = _service_of_name(around.snapshot, host, short=bool(load.target.messages))
    if dialled is None and load.target.via != "clusterIP":
        raise _UnresolvedError("target.via", f"goes with a Service, and {host} names none")
    if is_address(host):
        return _to_address(load, host, number, url, path, sources)
    if around is not None:
        if dialled is not None:
            port = _port(dialled, number, "target.url", "UDP" if load.target.messages == "udp" else "TCP")
            return _to_service(load, dialled, port, around, url.netloc, path, sources)
        if not load.target.messages and _has_rules_for(around.snapshot, host):
            return _to_ingress(load, around, url, path, sources)
    try:
        found = socket.getaddrinfo(host, number, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
    except OSError:
        if around is not None and not load.target.messages and _takes_any_host(around.snapshot):
            return _to_ingress(load, around, url, path, sources)
        raise _UnresolvedError("target.url", f"{host}: {_why_unknown(load, around)}") from None
    return _to_address(load, str(found), number, url, path, sources)


def _why_unknown(load: Load, around: Surroundings | None) -> str:
    """Where a host was looked for, and what would have been found there."""
    if around is None:
        return "there are no manifests, and the system does not know it"
    if load.target.messages:
        return "no Service has this name, and the system does not know it"
    there = f"they have: {', '.join(hosts)}" if (hosts := _hosts(around.snapshot)) else "they have none"
    return f"no Ingress has this host ({there}), no Service this name, and the system does not know it"


def _to_ingress(load: Load, around: Surroundings, url: SplitResult, path: str, sources: tuple[str, ...]) -> Resolved:
    ip, port = around.ingress
    port = around.https_port if url.scheme == "https" else port
    return Resolved(Destination(ip, port, sources), _workload(load, url.netloc, path), (ip_to_int(ip), port))


def _to_address(load: Load, ip: str, port: int, url: SplitResult, path: str, sources: tuple[str, ...]) -> Resolved:
    return Resolved(Destination(ip, port, sources), _workload(load, url.netloc, path), (ip_to_int(ip), port))


def _to_pod(load: Load, around: Surroundings, sources: tuple[str, ...]) -> Resolved:
    """The pod itself, without a Service; its port is bound where pods bind it."""
    pod = _pod(around.snapshot, load.target.namespace, load.target.pod or "")
    ip, number = str(pod["status"]["podIP"]), _port_of_pod(pod, load.target.port)
    behind = f":{number}" if number != HTTP_PORT else ""
    destination = Destination(ip, around.plan.bound_port(number), sources)
    return Resolved(destination, _workload(load, ip + behind, load.target.path), (ip_to_int(ip), number))


def _to_service(
    load: Load,
    service: Service,
    port: ServicePort,
    around: Surroundings,
    host: str,
    path: str,
    sources: tuple[str, ...],
) -> Resolved:
    ip, number = _frontend(load, service, port, around)
    destination = Destination(ip, around.plan.bound_port(number), sources)
    return Resolved(destination, _workload(load, host, path), (ip_to_int(ip), number), service.full_name)


def _frontend(load: Load, service: Service, port: ServicePort, around: Surroundings) -> tuple[str, int]:
    """By which address and port a load dials a Service."""
    if load.target.via == "nodePort":
        if not port.node_port:
            reason = f"port {port.port} of Service {service.full_name} has no nodePort: its type is {service.type}"
            raise _UnresolvedError("target.via", reason)
        return around.plan.node(load.target.node), port.node_port
    if load.target.via == "loadBalancer":
        if not service.balancer_ips:
            reason = f"Service {service.full_name} has no address of a load balancer: its type is {service.type}"
            raise _UnresolvedError("target.via", reason)
        return service.balancer_ips[0], port.port
    return service.cluster_ip, port.port


def _workload(load: Load, host: str, path: str) -> Workload | Echo:
    if load.target.messages:
        return Echo(load.target.messages, host, load.size, load.keep_alive)
    return Workload(host, path, load.method, load.headers, load.body, load.keep_alive)


def _tls(load: Load, folder: Path, around: Surroundings | None) -> Tls | None:
    """How a load by HTTPS does it, None where it is by plain HTTP."""
    url, trust = load.target.url, load.target.tls
    if url is None or url.scheme != "https":
        return None
    made = Tls(
        url.hostname or "",
        around.authority if around else "",
        insecure=bool(trust and trust.insecure),
        resume=bool(trust and trust.resume),
    )
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


def _pod(snapshot: Snapshot, namespace: str, wanted: str) -> Object:
    """The pod of that name, or of ``deployment/NAME`` the first by name that is not ending, as events have it."""
    deployment = wanted.removeprefix("deployment/")
    there = [pod for pod in snapshot.inside("Pod", namespace) if "deletionTimestamp" not in pod["metadata"]]
    if deployment != wanted:
        obj = snapshot.get("Deployment", namespace, deployment)
        if obj is None:
            listed = ", ".join(each["metadata"]["name"] for each in snapshot.inside("Deployment", namespace)) or "none"
            reason = f"there is no Deployment {namespace}/{deployment}; there are: {listed}"
            raise _UnresolvedError("target.pod", reason)
        selector = obj["spec"]["selector"]
        pods = [pod for pod in there if selects(selector, pod["metadata"].get("labels") or {})]
        if not pods:
            raise _UnresolvedError("target.pod", f"Deployment {namespace}/{deployment} has no pod")
        there, wanted = pods, str(pods[0]["metadata"]["name"])
    found = next((pod for pod in there if pod["metadata"]["name"] == wanted), None)
    if found is None:
        names = ", ".join(pod["metadata"]["name"] for pod in there) or "none"
        raise _UnresolvedError("target.pod", f"there is no Pod {namespace}/{wanted}; there are: {names}")
    if not (found.get("status") or {}).get("podIP"):
        raise _UnresolvedError("target.pod", f"Pod {namespace}/{wanted} has no address")
    return found


def _port_of_pod(pod: Object, wanted: int | None) -> int:
    """The one that is asked for, else the only TCP port that the pod's containers declare."""
    if wanted is not None:
        return wanted
    declared = [port for container in pod["spec"]["containers"] for port in container.get("ports") or ()]
    ports = sorted({int(port["containerPort"]) for port in declared if port.get("protocol", "TCP") == "TCP"})
    if len(ports) != 1:
        named = f"Pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"
        listed = ", ".join(map(str, ports)) or "none are declared"
        raise _UnresolvedError("target.port", f"say which of the TCP ports of {named}: {listed}")
    return ports[0]


def _service(snapshot: Snapshot, namespace: str, name: str, field: str) -> Service:
    obj = snapshot.get("Service", namespace, name)
    if obj is None:
        there = ", ".join(Service.of(other).full_name for other in snapshot.all("Service")) or "none"
        raise _UnresolvedError(field, f"there is no Service {namespace}/{name}; there are: {there}")
    service = Service.of(obj)
    if not service.cluster_ip:
        raise _UnresolvedError(field, f"Service {service.full_name} has no ClusterIP to dial; give it one")
    return service


def _port(service: Service, wanted: int | None, field: str = "target.port", protocol: str = "TCP") -> ServicePort:
    ports: Sequence[ServicePort] = [port for port in service.ports if port.protocol == protocol]
    listed = ", ".join(str(port.port) for port in ports) or "none"
    if wanted is None and len(ports) != 1:
        raise _UnresolvedError(field, f"say which of the {protocol} ports of Service {service.full_name}: {listed}")
    found = next((port for port in ports if wanted in (None, port.port)), None)
    if found is None:
        reason = f"Service {service.full_name} has no {protocol} port {wanted}; its ports are {listed}"
        raise _UnresolvedError(field, reason)
    return found


def _service_of_name(snapshot: Snapshot, host: str, *, short: bool = False) -> Service | None:
    """The Service that a name of the cluster's DNS means: ``<svc>.<ns>.svc`` or ``<svc>.<ns>.svc.cluster.local``.

    short  also ``<svc>`` and ``<svc>.<ns>`` where there is such a one, as for a pod in the namespace ``default``
    """
    labels = host.rstrip(".").lower().removesuffix(".cluster.local").split(".")
    if len(labels) == 3 and labels[2] == "svc":
        return _service(snapshot, labels[1], labels[0], "target.url")
    if not short or len(labels) > 2:
        return None
    name, namespace = labels[0], labels[1] if len(labels) == 2 else "default"
    return (
        None if snapshot.get("Service", namespace, name) is None else _service(snapshot, namespace, name, "target.url")
    )


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
