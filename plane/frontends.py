"""The frontends of a Snapshot: where Services are reached, and which endpoints a client may have there. Pure.

Law: a frontend is a Service port at its ClusterIP, at an external or load balancer address, or as a node port at a
node's address. A client in the cluster and one outside may have different endpoints: the ClusterIP goes by
internalTrafficPolicy, the others by externalTrafficPolicy for clients outside and by policy Cluster for those inside.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from kernels.layout import ALGORITHMS, DH, DROP, MAGLEV, MH, REJECT, SH, TCP, UDP
from plane.endpoints import NOWHERE, Place, anywhere, eligible, local, topology
from plane.errors import PlaneError
from plane.families import IPV4, Family, ipv4, ipv6
from plane.model import (
    ALGORITHM_ANNOTATIONS,
    NODE_NUMBER_ANNOTATION,
    PROXY_MODES,
    ZONE_LABEL,
    Endpoint,
    Object,
    Service,
    ServicePort,
    Snapshot,
    endpoints_of,
    merged,
    slices_by_service,
)

PROTOCOLS = {"TCP": TCP, "UDP": UDP}

# The endpoints a client may have, and the outcome where there are none; several for nodes 0, 1, 2, …
Choices = tuple[tuple[tuple[Endpoint, ...], int], ...]


@dataclass(frozen=True)
class Node:
    """A Node as far as steering cares. ``number`` is N of its address in a plane."""

    name: str
    number: int
    place: Place
    addresses: tuple[str, ...]
    pod_ranges: tuple[str, ...]


@dataclass(frozen=True)
class Frontend:
    """One address and port of a Service port.

    kind           ClusterIP, NodePort, ExternalIP or LoadBalancer
    node           N of the node whose address it is, 0 for an address that all nodes serve
    row            number of the Service in the order of the Snapshot, from 1
    inside         for clients in the cluster
    outside        for all others
    source_ranges  where clients may come from, empty: anywhere
    endpoints      all of the port, in whatever condition
    """

    kind: str
    ip: str
    port: int
    node: int
    row: int
    service: Service
    service_port: ServicePort
    inside: Choices
    outside: Choices
    source_ranges: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]


def frontends_of(snapshot: Snapshot, nodes: Sequence[Node]) -> Iterator[Frontend]:
    """All that are carried: TCP and UDP ports of Services with an IPv4 ClusterIP."""
    slices = slices_by_service(snapshot)
    for row, obj in enumerate(snapshot.all("Service"), start=1):
        service = Service.of(obj)
        endpoints = (each for part in slices.get((service.namespace, service.name), ()) for each in endpoints_of(part))
        yield from frontends_of_service(row, service, endpoints, nodes)


def frontends_of_service(
    row: int, service: Service, endpoints: Iterable[Endpoint], nodes: Sequence[Node], family: Family = IPV4
) -> Iterator[Frontend]:
    """Those of one Service that are of a family, with the endpoints of its slices, slice by slice."""
    cluster_ip = next(filter(family.number, service.cluster_ips), "")
    if not cluster_ip:
        return
    by_port = merged(service, endpoints)
    for port in service.ports:
        if port.protocol in PROTOCOLS:
            fitting = [each for each in by_port[port.name] if each.protocol == port.protocol and family.number(each.ip)]
            yield from _of_port(row, service, port, cluster_ip, fitting, nodes, family)


def _of_port(
    row: int,
    service: Service,
    port: ServicePort,
    cluster_ip: str,
    endpoints: Sequence[Endpoint],
    nodes: Sequence[Node],
    family: Family,
) -> Iterator[Frontend]:
    cluster = _of_cluster(endpoints, nodes)
    at_node = _of_node(endpoints, nodes) if service.internal_local or service.external_local else cluster
    internal = at_node if service.internal_local else cluster
    external = at_node if service.external_local else cluster

    def frontend(
        kind: str, ip: str, inside: Choices, outside: Choices, *, node: int = 0, ranges: tuple[str, ...] = ()
    ) -> Frontend:
        number = port.node_port if node else port.port
        return Frontend(kind, ip, number, node, row, service, port, inside, outside, ranges, tuple(endpoints))

    yield frontend("ClusterIP", cluster_ip, internal, internal)
    for ip in filter(family.number, service.outside_ips):
        yield frontend("ExternalIP", ip, cluster, external)
    for ip in filter(family.number, service.balancer_ips):
        yield frontend("LoadBalancer", ip, cluster, external, ranges=service.source_ranges)
    for node in nodes if port.node_port else ():
        for ip in filter(family.number, node.addresses):
            yield frontend("NodePort", ip, cluster, external, node=node.number)


def _of_cluster(endpoints: Sequence[Endpoint], nodes: Sequence[Node]) -> Choices:
    """Policy Cluster: the same for all nodes, unless hints count somewhere."""
    ready = [row for row in endpoints if row.ready]
    everyone = (tuple(eligible(endpoints)), REJECT)
    if not any(topology(ready, node.place) for node in nodes):
        return (everyone,)
    places = {node.number: node.place for node in nodes}
    return (
        everyone,
        *((tuple(eligible(endpoints, places.get(number, NOWHERE))), REJECT) for number in _numbers(nodes)),
    )


def _of_node(endpoints: Sequence[Endpoint], nodes: Sequence[Node]) -> Choices:
    """Policy Local: for each node its own; first, for those whom a load balancer sends to nodes that have some, all."""
    names = {node.number: node.name for node in nodes}
    otherwise = DROP if anywhere(endpoints) else REJECT
    return (
        (tuple(eligible(endpoints)), REJECT),
        *((tuple(local(endpoints, names.get(number, ""))), otherwise) for number in _numbers(nodes)),
    )


def _numbers(nodes: Sequence[Node]) -> range:
    return range(1, max((node.number for node in nodes), default=0) + 1)


def nodes_of(snapshot: Snapshot) -> list[Node]:
    """The Nodes by number: that of their annotation, or one that no other has, in order of their names."""
    given = {
        obj["metadata"]["name"]: int((obj["metadata"].get("annotations") or {}).get(NODE_NUMBER_ANNOTATION, 0))
        for obj in snapshot.all("Node")
    }
    used = set(given.values())
    free = (number for number in range(1, len(given) + len(used) + 1) if number not in used)
    nodes = [_node(obj, given[obj["metadata"]["name"]] or next(free)) for obj in snapshot.all("Node")]
    return sorted(nodes, key=lambda node: node.number)


def _node(obj: Object, number: int) -> Node:
    name, spec = obj["metadata"]["name"], obj.get("spec") or {}
    rows = (obj.get("status") or {}).get("addresses") or ()
    addresses = [row["address"] for row in rows if row["type"] in ("InternalIP", "ExternalIP")]
    zone = (obj["metadata"].get("labels") or {}).get(ZONE_LABEL, "")
    return Node(
        name=name,
        number=number,
        place=Place(name, zone),
        addresses=tuple(dict.fromkeys(address for address in addresses if ipv4(address) or ipv6(address))),
        pod_ranges=tuple(spec.get("podCIDRs") or filter(None, [spec.get("podCIDR")])),
    )


def algorithm_of(service: Service, default: int) -> int:
    """The algorithm that a Service's annotation names, else ``default``."""
    named = (service.annotations.get(name) for name in ALGORITHM_ANNOTATIONS)
    return next((ALGORITHMS.index(name) for name in named if name in ALGORITHMS), default)


def slow_start_of(service: Service, algorithm: int) -> int:
    """Seconds of slow start; 0 also where the choice is by a hash or by session affinity, which give no shares."""
    return 0 if service.affinity_s or algorithm in (SH, DH, MH, MAGLEV) else service.slow_start_s


def algorithm_of_mode(mode: str) -> int:
    """The algorithm that kube-proxy has in a mode, or of that name. Raises PlaneError."""
    name = PROXY_MODES.get(mode, mode)
    if name not in ALGORITHMS:
        raise PlaneError(f'--proxy-mode "{mode}": choose one of {", ".join((*PROXY_MODES, *ALGORITHMS))}')
    return ALGORITHMS.index(name)
