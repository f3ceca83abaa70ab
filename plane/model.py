"""Services, endpoints, pods and ingresses as the compilers read them, and the Snapshot they are read from.

Law: a Snapshot is a value. It holds Kubernetes objects as JSON (``Object``), none of which is ever changed once it is
in there; what a Snapshot means is read through the frozen dataclasses below. Everything that follows from the objects
(pods of a Deployment, endpoints of a Service) is itself an object in the Snapshot, put there by ``controllers``.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

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
    objects: Mapping[str, Mapping[tuple[str, str], Object]] = field(default_factory=dict)
    backends: Mapping[tuple[str, int, str], int] = field(default_factory=dict)

    def all(self, kind: str) -> Iterator[Object]:
        """Objects of a kind in order of namespace and name."""
        rows = self.objects.get(kind, {})
        return (rows[name] for name in sorted(rows))

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self.objects.get(kind, {}).get((namespace, name))

    def changed(self, put: Iterable[Object] = (), drop: Iterable[Key] = ()) -> "Snapshot":
        """A Snapshot with some objects replaced or added and others left out; the same generation."""
        kinds: dict[str, dict[tuple[str, str], Object]] = {}

        def rows(kind: str) -> dict[tuple[str, str], Object]:
            if kind not in kinds:
                kinds[kind] = dict(self.objects.get(kind, {}))
            return kinds[kind]

        for obj in put:
            key = key_of(obj)
            rows(key.kind)[key.namespace, key.name] = obj
        for key in drop:
            rows(key.kind).pop((key.namespace, key.name), None)
        return replace(self, objects={**self.objects, **kinds}) if kinds else self


@dataclass(frozen=True)
class ServicePort:
    name: str
    protocol: str
    port: int
    target_port: int | str
    node_port: int = 0  # 0: none


@dataclass(frozen=True)
class Service:
    """A Service as the compilers need it; ``cluster_ip`` is empty for headless and ExternalName ones.

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
    external_name: str = ""  # of type ExternalName: the DNS name that it stands for

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def of(cls, obj: Object) -> "Service":
        spec = obj["spec"]
        cluster_ip = spec.get("clusterIP") or ""
        affinity = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        balanced = (obj.get("status") or {}).get("loadBalancer") or {}
        annotations = obj["metadata"].get("annotations") or {}
        return cls(
            namespace=obj["metadata"].get("namespace", "default"),
            name=obj["metadata"]["name"],
            type=spec.get("type", "ClusterIP"),
            cluster_ip="" if cluster_ip == "None" else cluster_ip,
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


@dataclass(frozen=True)
class Endpoint:
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
    for_nodes: frozenset[str] = frozenset()  # hints of the EndpointSlice controller: whom the endpoint is meant for
    for_zones: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[str, int, str]:
        return self.ip, self.port, self.protocol


def _is_virtual(ingress: Object) -> bool:
    """Whether nodes take a load balancer's address for their own; with ipMode Proxy they leave it to the balancer."""
    return bool(ingress.get("ip")) and ingress.get("ipMode") != "Proxy"


def endpoints_of(obj: Object) -> Iterator[Endpoint]:
    """Every endpoint of an EndpointSlice, one for each port. Only its first address counts, as for kube-proxy.

    Conditions may be null: ready null counts as ready, serving null follows ready, terminating null is false
    (https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/).
    """
    weight = weight_of(obj)
    for row in obj.get("endpoints") or ():
        conditions = row.get("conditions") or {}
        ready = conditions.get("ready")
        serving = conditions.get("serving")
        ready = True if ready is None else ready
        target, hints = row.get("targetRef") or {}, row.get("hints") or {}
        for port in obj.get("ports") or ():
            if port.get("port") is None:
                continue
            yield Endpoint(
                ip=row["addresses"][0],
                port=port["port"],
                protocol=port.get("protocol") or "TCP",
                port_name=port.get("name") or "",
                ready=ready,
                serving=ready if serving is None else serving,
                terminating=bool(conditions.get("terminating")),
                node=row.get("nodeName") or "",
                pod=target.get("name", "") if target.get("kind") == "Pod" else "",
                weight=weight,
                for_nodes=frozenset(hint["name"] for hint in hints.get("forNodes") or ()),
                for_zones=frozenset(hint["name"] for hint in hints.get("forZones") or ()),
            )


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
    merged: dict[str, dict[tuple[str, int, str], Endpoint]] = {port.name: {} for port in service.ports}
    for obj in slices:
        for endpoint in endpoints_of(obj):
            if endpoint.port_name in merged:
                merged[endpoint.port_name].setdefault(endpoint.key, endpoint)
    return {name: sorted(rows.values(), key=lambda row: row.key) for name, rows in merged.items()}
