"""Services, endpoints, pods and ingresses as the compilers read them, and the Snapshot they are read from.

Law: a Snapshot is a value. It holds Kubernetes objects as JSON (``Object``), none of which is ever changed once it is
in there; what a Snapshot means is read through the frozen dataclasses below. Everything that follows from the objects
(pods of a Deployment, endpoints of a Service) is itself an object in the Snapshot, put there by ``controllers``.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from typing import Any, NamedTuple

from plane.rows import Rows

Object = dict[str, Any]

SERVICE_LABEL = "kubernetes.io/service-name"
ALGORITHM_ANNOTATIONS = ("service.cilium.io/lb-algorithm", "trafficplane.dev/lb-algorithm")
SLOW_START_ANNOTATION = "trafficplane.dev/slow-start"
SLOW_START_LIMIT_S = 18 * 3600
# What kube-proxy's modes use, by the mode's name; kube-proxy's IPVS mode has rr unless it is told otherwise.
PROXY_MODES = {"iptables": "random", "nftables": "random", "ipvs": "rr"}
WEIGHT_ANNOTATION = "service.cilium.io/weight"  # of an EndpointSlice
DELETION_COST_ANNOTATION = "controller.kubernetes.io/pod-deletion-cost"
POD_WEIGHT_ANNOTATION = "trafficplane.dev/weight"
ZONE_LABEL = "topology.kubernetes.io/zone"
NODE_NUMBER_ANNOTATION = "trafficplane.dev/node-number"


Name = tuple[str, str]  # namespace and name, by which the objects of a kind are ordered
EndpointKey = tuple[str, int, str]  # address, port and protocol


class Key(NamedTuple):
    """What names an object; ``namespace`` is empty for kinds that live outside namespaces."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def key_of(obj: Object) -> Key:
    metadata = obj.get("metadata") or {}
    return Key(obj.get("kind", ""), metadata.get("namespace", ""), metadata.get("name", ""))


@dataclass(frozen=True)
class Snapshot:
    """All objects at one generation, and the stable ids of all backends.

    objects   kind → (namespace, name) → object
    backends  (ip, port, protocol) → backend id (≥ 1); ids of endpoints that are gone may be given again
    """

    generation: int = 0
    objects: Mapping[str, Rows[Name, Object]] = field(default_factory=dict)
    backends: Mapping[EndpointKey, int] = field(default_factory=Rows)

    def rows(self, kind: str) -> Rows[Name, Object]:
        """Objects of a kind by namespace and name, in that order: the same Rows for as long as none of them changes."""
        return self.objects.get(kind, _NO_ROWS)

    def all(self, kind: str) -> Iterator[Object]:
        """Objects of a kind in order of namespace and name."""
        return iter(self.rows(kind).values())

    def inside(self, kind: str, namespace: str) -> Iterator[Object]:
        """Objects of a kind in a namespace, in order of their names."""
        return (
            obj for _, obj in takewhile(lambda pair: pair[0][0] == namespace, self.rows(kind).since((namespace, "")))
        )

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self.rows(kind).get((namespace, name))

    def changed(self, put: Iterable[Object] = (), drop: Iterable[Key] = ()) -> "Snapshot":
        """A Snapshot with some objects replaced or added and others left out; the same generation."""
        puts: dict[str, dict[Name, Object]] = {}
        drops: dict[str, list[Name]] = {}
        for obj in put:
            key = key_of(obj)
            puts.setdefault(key.kind, {})[key.namespace, key.name] = obj
        for key in drop:
            drops.setdefault(key.kind, []).append((key.namespace, key.name))
        kinds = {kind: self.rows(kind).changed(puts.get(kind, {}), drops.get(kind, ())) for kind in puts.keys() | drops}
        kinds = {kind: rows for kind, rows in kinds.items() if rows is not self.rows(kind)}
        return replace(self, objects={**self.objects, **kinds}) if kinds else self


_NO_ROWS: Rows[Name, Object] = Rows()


@dataclass(frozen=True)
class ServicePort:
    name: str
    protocol: str
    port: int
    target_port: int | str
    node_port: int = 0  # 0: none


@dataclass(frozen=True)
class Service:
    """A Service as the compilers need it.

    cluster_ip     of IPv4, empty for headless and ExternalName ones, and for those of IPv6 alone
    cluster_ips    of both families, as far as it has one
    affinity_s     for how long a client keeps its endpoint, 0 without session affinity
    slow_start_s   for how long an endpoint that has become ready gets less than its share, 0 without slow start
    outside_ips    addresses for clients from outside: ``spec.externalIPs``
    balancer_ips   those of ``status.loadBalancer`` that nodes serve themselves, to which alone ``source_ranges`` apply
    """

    namespace: str
    name: str
    type: str
    cluster_ip: str
    ports: tuple[ServicePort, ...]
    selector: Mapping[str, str]
    publish_not_ready: bool
    annotations: Mapping[str, str]
    affinity_s: int = 0
    slow_start_s: int = 0
    internal_local: bool = False
    external_local: bool = False
    outside_ips: tuple[str, ...] = ()
    balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[str, ...] = ()
    health_port: int = 0
    cluster_ips: tuple[str, ...] = ()
    external_name: str = ""  # of type ExternalName: the DNS name that it stands for

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def of(cls, obj: Object) -> "Service":
        spec = obj["spec"]
        cluster_ips = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip not in (None, "", "None")]
        affinity = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        balanced = (obj.get("status") or {}).get("loadBalancer") or {}
        annotations = obj["metadata"].get("annotations") or {}
        return cls(
            namespace=obj["metadata"].get("namespace", "default"),
            name=obj["metadata"]["name"],
            type=spec.get("type", "ClusterIP"),
            cluster_ip=next((ip for ip in cluster_ips if ":" not in ip), ""),
            cluster_ips=tuple(cluster_ips),
            ports=tuple(
                ServicePort(
                    name=port.get("name", ""),
                    protocol=port.get("protocol", "TCP"),
                    port=port["port"],
                    target_port=port.get("targetPort", port["port"]),
                    node_port=port.get("nodePort") or 0,
                )
                for port in spec.get("ports") or ()
            ),
            selector=spec.get("selector") or {},
            publish_not_ready=bool(spec.get("publishNotReadyAddresses")),
            annotations=annotations,
            affinity_s=affinity.get("timeoutSeconds", 10_800) if spec.get("sessionAffinity") == "ClientIP" else 0,
            slow_start_s=duration_s(annotations.get(SLOW_START_ANNOTATION, "")),
            internal_local=spec.get("internalTrafficPolicy") == "Local",
            external_local=spec.get("externalTrafficPolicy") == "Local",
            outside_ips=tuple(spec.get("externalIPs") or ()),
            balancer_ips=tuple(row["ip"] for row in balanced.get("ingress") or () if _is_virtual(row)),
            source_ranges=tuple(spec.get("loadBalancerSourceRanges") or ()),
            health_port=spec.get("healthCheckNodePort") or 0,
            external_name=spec.get("externalName") or "",
        )


NOBODY: frozenset[str] = frozenset()


class Endpoint(NamedTuple):
    """One address of one port of a Service, with its conditions already defaulted as the API defines."""

    ip: str
    port: int
    protocol: str
    port_name: str
    ready: bool
    serving: bool
    terminating: bool
    node: str  # name of the Node, empty if unknown
    pod: str  # name of the Pod, empty if unknown
    weight: int = 1
    for_nodes: frozenset[str] = NOBODY  # hints of the EndpointSlice controller: whom the endpoint is meant for
    for_zones: frozenset[str] = NOBODY

    @property
    def key(self) -> EndpointKey:
        return self[:3]


def _is_virtual(ingress: Object) -> bool:
    """Whether nodes take a load balancer's address for their own; with ipMode Proxy they leave it to the balancer."""
    return bool(ingress.get("ip")) and ingress.get("ipMode") != "Proxy"


def endpoints_of(obj: Object) -> Iterator[Endpoint]:
    """Every endpoint of an EndpointSlice, one for each port. Only its first address counts, as for kube-proxy.

    Conditions may be null: ready null counts as ready, serving null follows ready, terminating null is false
    (https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/).
    """
    weight = weight_of(obj)
    ports = [
        (*_port_of(port), port.get("name") or "") for port in obj.get("ports") or () if port.get("port") is not None
    ]
    for row in obj.get("endpoints") or ():
        conditions, target, hints = row.get("conditions") or {}, row.get("targetRef") or {}, row.get("hints") or {}
        ready, serving = conditions.get("ready"), conditions.get("serving")
        ready = True if ready is None else ready
        rest = (
            ready,
            ready if serving is None else serving,
            bool(conditions.get("terminating")),
            row.get("nodeName") or "",
            target.get("name", "") if target.get("kind") == "Pod" else "",
            weight,
            frozenset(hint["name"] for hint in hints.get("forNodes") or ()) if hints else NOBODY,
            frozenset(hint["name"] for hint in hints.get("forZones") or ()) if hints else NOBODY,
        )
        for port in ports:
            yield Endpoint._make((row["addresses"][0], *port, *rest))


def _port_of(port: Object) -> tuple[int, str]:
    return port["port"], port.get("protocol") or "TCP"


def endpoint_keys(obj: Object) -> Iterator[EndpointKey]:
    """The keys of ``endpoints_of``, in the same order."""
    ports = [_port_of(port) for port in obj.get("ports") or () if port.get("port") is not None]
    return ((row["addresses"][0], *port) for row in obj.get("endpoints") or () for port in ports)


def duration_s(text: str) -> int:
    """Seconds of a duration as Go writes it, in whole hours, minutes and seconds: ``1m30s``; 0 for what is none."""
    found = re.fullmatch(r"(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?", text, re.ASCII)
    hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0)
    return 3600 * hours + 60 * minutes + seconds


def weight_of(endpoint_slice: Object) -> int:
    """The weight of a slice's endpoints, by Cilium's annotation; 1 where it says nothing."""
    return int((endpoint_slice["metadata"].get("annotations") or {}).get(WEIGHT_ANNOTATION, 1))


def slices_by_service(snapshot: Snapshot) -> dict[tuple[str, str], list[Object]]:
    """(namespace, Service name) → its EndpointSlices, by their ``kubernetes.io/service-name`` label."""
    found: dict[tuple[str, str], list[Object]] = {}
    for obj in snapshot.all("EndpointSlice"):
        metadata = obj["metadata"]
        service = (metadata.get("labels") or {}).get(SERVICE_LABEL)
        if service:
            found.setdefault((metadata.get("namespace", "default"), service), []).append(obj)
    return found


def service_endpoints(service: Service, slices: Iterable[Object]) -> dict[str, list[Endpoint]]:
    """Port name → endpoints of a Service, merged over its slices; the same address in two slices counts once."""
    return merged(service, (endpoint for obj in slices for endpoint in endpoints_of(obj)))


def merged(service: Service, endpoints: Iterable[Endpoint]) -> dict[str, list[Endpoint]]:
    """The same of the endpoints of its slices, slice by slice."""
    found: dict[str, dict[EndpointKey, Endpoint]] = {port.name: {} for port in service.ports}
    for endpoint in endpoints:
        if endpoint.port_name in found:
            found[endpoint.port_name].setdefault(endpoint[:3], endpoint)
    return {name: [rows[key] for key in sorted(rows)] for name, rows in found.items()}
