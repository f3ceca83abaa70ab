"""Descriptions of what leads traffic: Services, their endpoints, Ingresses, and the Secrets of their TLS. Pure."""

from collections.abc import Iterable, Sequence

from plane.columns import NONE, ingress_addresses, joined, pairs
from plane.describe.text import Row, block
from plane.endpoints import eligible
from plane.model import Endpoint, Object, Service, Snapshot, service_endpoints, slices_by_service

POLICIES = {
    "External Traffic Policy": "externalTrafficPolicy",
    "Internal Traffic Policy": "internalTrafficPolicy",
    "Traffic Distribution": "trafficDistribution",
    "HealthCheck NodePort": "healthCheckNodePort",
    "LoadBalancer Source Ranges": "loadBalancerSourceRanges",
}


def _state_of(endpoint: Endpoint) -> str:
    if endpoint.terminating:
        return "Terminating, serving" if endpoint.serving else "Terminating"
    return "Ready" if endpoint.ready else "NotReady"


def _endpoints(snapshot: Snapshot, namespace: str, name: str) -> tuple[Service | None, dict[str, list[Endpoint]]]:
    """The Service, None where there is none, and its endpoints by port name."""
    obj = snapshot.get("Service", namespace, name)
    if obj is None:
        return None, {}
    service = Service.of(obj)
    return service, service_endpoints(service, slices_by_service(snapshot).get((namespace, name), ()))


def _addresses(endpoints: Iterable[Endpoint]) -> str:
    return joined(f"{row.ip}:{row.port}" for row in eligible(endpoints))


def service(snapshot: Snapshot, obj: Object) -> tuple[list[Row], list[str]]:
    spec = obj["spec"]
    known, endpoints = _endpoints(snapshot, obj["metadata"]["namespace"], obj["metadata"]["name"])
    assert known is not None
    rows: list[Row] = [
        ("Selector", pairs(spec.get("selector"))),
        ("Type", known.type),
        ("IP", spec.get("clusterIP", NONE)),
    ]
    if spec.get("externalName"):
        rows.append(("External Name", spec["externalName"]))
    if known.outside_ips:
        rows.append(("External IPs", joined(known.outside_ips)))
    if known.type == "LoadBalancer":
        rows.append(("LoadBalancer Ingress", joined(known.balancer_ips, "<pending>")))
    table: list[Sequence[str]] = [("Address", "Port", "Pod", "Node", "State")]
    for port in known.ports:
        rows += [
            ("Port", f"{port.name or '<unset>'}  {port.port}/{port.protocol}"),
            ("TargetPort", f"{port.target_port}/{port.protocol}"),
            *([("NodePort", f"{port.name or '<unset>'}  {port.node_port}/{port.protocol}")] if port.node_port else ()),
            ("Endpoints", _addresses(endpoints[port.name])),
        ]
        table += [
            (f"{row.ip}:{row.port}", port.name or str(port.port), row.pod or NONE, row.node or NONE, _state_of(row))
            for row in endpoints[port.name]
        ]
    rows.append(("Session Affinity", f"ClientIP, {known.affinity_s} s" if known.affinity_s else "None"))
    if known.slow_start_s:
        rows.append(("Slow Start", f"{known.slow_start_s} s"))
    for name, field in POLICIES.items():
        if spec.get(field):
            rows.append((name, joined(spec[field]) if isinstance(spec[field], list) else str(spec[field])))
    return rows, [block("Endpoint States", table)]


def ingress(snapshot: Snapshot, obj: Object) -> tuple[list[Row], list[str]]:
    spec, namespace = obj["spec"], obj["metadata"]["namespace"]
    default = spec.get("defaultBackend")
    where = [
        f"{row.get('ip', '')} (ports {joined(port['port'] for port in row.get('ports') or ())})"
        for row in ingress_addresses(obj)
    ]
    rows: list[Row] = [
        ("Address", where),
        ("Ingress Class", spec.get("ingressClassName") or NONE),
        ("Default backend", _backend(snapshot, namespace, default) if default else "<default>"),
    ]
    if spec.get("tls"):
        rows.append(
            (
                "TLS",
                [f"{row.get('secretName', NONE)} terminates {joined(row.get('hosts') or ())}" for row in spec["tls"]],
            )
        )
    table: list[Sequence[str]] = [("Host", "Path", "Type", "Backends")]
    for rule in spec.get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            backend = _backend(snapshot, namespace, path["backend"])
            table.append((rule.get("host") or "*", path.get("path", ""), path.get("pathType", ""), backend))
    return rows, [block("Rules", table)]


def _backend(snapshot: Snapshot, namespace: str, backend: Object) -> str:
    """``web:80 (127.244.1.2:8080,…)``."""
    wanted = backend.get("service")
    if not wanted:
        return "<resource backend, not served>"
    given = wanted.get("port") or {}
    name, port = wanted["name"], given.get("name") or given.get("number", "")
    known, endpoints = _endpoints(snapshot, namespace, name)
    if known is None:
        return f'{name}:{port} (<error: services "{name}" not found>)'
    found = next((row for row in known.ports if port in (row.port, row.name)), None)
    if found is None:
        return f"{name}:{port} (<error: the Service has no such port, but {_ports(known)}>)"
    return f"{name}:{port} ({_addresses(endpoints[found.name])})"


def _ports(service: Service) -> str:
    return joined(f"{row.name}={row.port}" if row.name else str(row.port) for row in service.ports)


def endpoint_slice(snapshot: Snapshot, obj: Object) -> tuple[list[Row], list[str]]:
    ports = [
        f"{row.get('name') or '<unset>'}  {row.get('port')}/{row.get('protocol')}" for row in obj.get("ports") or ()
    ]
    rows: list[Row] = [("AddressType", obj.get("addressType", NONE)), ("Ports", ports)]
    table: list[Sequence[str]] = [("Addresses", "Ready", "Serving", "Terminating", "Target", "Node")]
    for row in obj.get("endpoints") or ():
        conditions, target = row.get("conditions") or {}, row.get("targetRef") or {}
        table.append(
            (
                joined(row.get("addresses") or ()),
                *(str(conditions.get(name, "<unset>")) for name in ("ready", "serving", "terminating")),
                f"{target['kind']}/{target['name']}" if target else NONE,
                row.get("nodeName", NONE),
            )
        )
    return rows, [block("Endpoints", table)]


def secret(snapshot: Snapshot, obj: Object) -> tuple[list[Row], list[str]]:
    """Names and sizes only, as kubectl: a description is pasted into tickets."""
    sizes = [
        f"{name}: {len(value) * 3 // 4 - value.count('=')} bytes"
        for name, value in sorted((obj.get("data") or {}).items())
    ]
    return [("Type", obj.get("type", "Opaque")), ("Data", sizes)], []


def config_map(snapshot: Snapshot, obj: Object) -> tuple[list[Row], list[str]]:
    """Each key with its text as it is, as kubectl."""
    return [], [f"{name}:\n----\n{text}\n" for name, text in sorted((obj.get("data") or {}).items())]
