"""Services and EndpointSlices (``k8s.io/kubernetes/pkg/apis/core/validation``, ``pkg/apis/discovery/validation``)."""

from collections.abc import Iterator

from kernels.layout import ALGORITHMS
from plane import dialects
from plane.addresses import NODE_PORTS
from plane.model import (
    ALGORITHM_ANNOTATIONS,
    SLOW_START_ANNOTATION,
    SLOW_START_LIMIT_S,
    WEIGHT_ANNOTATION,
    duration_s,
)
from plane.validation import names
from plane.validation.findings import Finding, Place, shown
from plane.validation.metadata import labels, name_at, unique

TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
PROTOCOLS = ("TCP", "UDP", "SCTP")
POLICIES = ("Cluster", "Local")
DISTRIBUTIONS = ("PreferSameZone", "PreferSameNode", "PreferClose")
ADDRESS_TYPES = ("IPv4", "IPv6", "FQDN")
BALANCER_FIELDS = ("loadBalancerIP", "loadBalancerSourceRanges", "loadBalancerClass", "allocateLoadBalancerNodePorts")
NO_SCTP = "this plane has no SCTP; write TCP or UDP, or leave the port out"
NO_IPV6 = "this plane has IPv4 only"


def service(obj: Place) -> Iterator[Finding]:
    spec = obj.at("spec")
    if not isinstance(spec.value, dict):
        yield spec.wrong("is required; add it")
        return
    kind = spec.at("type").text("ClusterIP")
    yield from spec.at("type").one_of(TYPES)
    yield from labels(spec.at("selector"))
    yield from _ports(spec, kind)
    yield from _addresses(spec, kind)
    yield from _affinity(spec)
    yield from _outside(spec, kind)
    yield from spec.at("internalTrafficPolicy").one_of(POLICIES)
    yield from spec.at("trafficDistribution").one_of(DISTRIBUTIONS)
    for annotation in ALGORITHM_ANNOTATIONS:
        yield from obj.at("metadata", "annotations").at(annotation).one_of(ALGORITHMS)
    annotations = obj.at("metadata", "annotations")
    yield from _slow_start(annotations.at(SLOW_START_ANNOTATION))
    said = {name: row.value for name, row in annotations.entries() if isinstance(row.value, str)}
    for row in dialects.unfit_of_service(said):
        yield annotations.at(row.annotation).refused(row.reason)


def _ports(spec: Place, kind: str) -> Iterator[Finding]:
    ports = spec.at("ports")
    rows = list(ports.rows())
    if not rows and kind != "ExternalName" and spec.at("clusterIP").value != "None":
        yield ports.wrong("is required; add at least one port")
    taken: dict[tuple[object, str], str] = {}
    node_ports: dict[tuple[object, str], str] = {}
    for row in rows:
        yield from _port(row, kind)
        if len(rows) > 1 and not row.at("name").given:
            yield row.at("name").wrong("is required where a Service has several ports; give each its own name")
        protocol = row.at("protocol").text("TCP")
        for place, seen in ((row.at("port"), taken), (row.at("nodePort"), node_ports)):
            if place.value and (place.value, protocol) in seen:
                first = seen[place.value, protocol]
                yield place.wrong(f"{place.value}/{protocol} is also that of {first}; choose another")
            seen.setdefault((place.value, protocol), row.path)
    yield from unique(iter(rows), "name")


def _port(row: Place, kind: str) -> Iterator[Finding]:
    yield from name_at(row.at("name"), names.label)
    yield from row.at("port").between(1, 65535)
    yield from port_or_name(row.at("targetPort"))
    yield from name_at(row.at("appProtocol"), names.qualified)
    yield from _protocol(row.at("protocol"))
    node_port = row.at("nodePort")
    if node_port.value:
        if kind in ("ClusterIP", "ExternalName"):
            yield node_port.wrong(f"goes with type NodePort or LoadBalancer; leave it out with type {kind}")
        else:
            yield from node_port.between(*NODE_PORTS)


def port_or_name(place: Place) -> Iterator[Finding]:
    """A port as a number or as the name of a container's port."""
    if isinstance(place.value, int):
        yield from place.between(1, 65535)
    elif place.given:
        if place.value.isdecimal():
            yield place.wrong(
                f"{shown(place.value)} is text and so the name of a port; write {place.value} without quotes"
            )
        else:
            yield from name_at(place, names.port_name)


def _protocol(place: Place) -> Iterator[Finding]:
    yield from place.one_of(PROTOCOLS)
    if place.value == "SCTP":
        yield place.refused(NO_SCTP)


def _addresses(spec: Place, kind: str) -> Iterator[Finding]:
    cluster_ip, cluster_ips = spec.at("clusterIP"), spec.at("clusterIPs")
    if kind == "ExternalName":
        for place in (cluster_ip, cluster_ips):
            if place.given:
                yield place.wrong("a Service of type ExternalName has no address; leave it out")
        name = spec.at("externalName")
        if not name.given:
            yield name.wrong("is required with type ExternalName; write the DNS name it stands for")
        elif reason := names.subdomain(name.value.removesuffix(".")):
            yield name.wrong(reason)
        return
    for place in (cluster_ip, *cluster_ips.rows()):
        if place.value != "None":
            yield from _address(place, ', "None" for a headless Service, or leave it out')
    rows = list(cluster_ips.rows())
    if len(rows) > 1:
        yield cluster_ips.refused(f"{NO_IPV6}; write one address")
    if rows and cluster_ip.given and rows[0].value != cluster_ip.value:
        yield rows[0].wrong(f"must be the same as spec.clusterIP, {cluster_ip.value}; leave clusterIPs out")
    if cluster_ip.value == "None" and kind in ("NodePort", "LoadBalancer"):
        yield cluster_ip.wrong(f'"None" cannot go with type {kind}; leave it out, or write type ClusterIP')
    for family in spec.at("ipFamilies").rows():
        yield from family.one_of(("IPv4", "IPv6"))
        if family.value == "IPv6":
            yield family.refused(f"{NO_IPV6}; write IPv4, or leave ipFamilies out")
    policy = spec.at("ipFamilyPolicy")
    yield from policy.one_of(("SingleStack", "PreferDualStack", "RequireDualStack"))
    if policy.value == "RequireDualStack":
        yield policy.refused(f"{NO_IPV6}; write SingleStack or PreferDualStack")


def _affinity(spec: Place) -> Iterator[Finding]:
    affinity, config = spec.at("sessionAffinity"), spec.at("sessionAffinityConfig")
    yield from affinity.one_of(("None", "ClientIP"))
    if affinity.value == "ClientIP":
        yield from config.at("clientIP", "timeoutSeconds").between(1, 86400)
    elif config.given:
        yield config.wrong("goes with sessionAffinity ClientIP; write that, or leave it out")


def _outside(spec: Place, kind: str) -> Iterator[Finding]:
    """What concerns clients from outside: externalIPs and load balancers."""
    external_ips = spec.at("externalIPs")
    for address in external_ips.rows():
        yield from _address(address)
    policy = spec.at("externalTrafficPolicy")
    yield from policy.one_of(POLICIES)
    if policy.given and kind not in ("NodePort", "LoadBalancer") and not external_ips.given:
        yield policy.wrong(
            f"goes with type NodePort or LoadBalancer, or with externalIPs; leave it out with type {kind}"
        )
    if kind != "LoadBalancer":
        for name in BALANCER_FIELDS:
            if spec.at(name).given:
                yield spec.at(name).wrong(f"goes with type LoadBalancer; leave it out with type {kind}")
    for span in spec.at("loadBalancerSourceRanges").rows():
        yield from name_at(span, names.cidr)
    yield from name_at(spec.at("loadBalancerClass"), names.qualified)
    yield from _address(spec.at("loadBalancerIP"))
    health = spec.at("healthCheckNodePort")
    if health.value:
        yield from health.between(1, 65535)
        if kind != "LoadBalancer" or policy.value != "Local":
            yield health.wrong("goes with type LoadBalancer and externalTrafficPolicy Local; leave it out")


def endpoint_slice(obj: Place) -> Iterator[Finding]:
    yield from weight(obj.at("metadata", "annotations").at(WEIGHT_ANNOTATION))
    family = obj.at("addressType")
    if family.value in ("IPv6", "FQDN"):
        yield family.refused(f"{NO_IPV6}; write IPv4 and IPv4 addresses")
    else:
        yield from family.one_of(ADDRESS_TYPES)
    endpoints = list(obj.at("endpoints").rows())
    if len(endpoints) > 1000:
        yield obj.at("endpoints").wrong(f"has {len(endpoints)} and 1000 are allowed; make several EndpointSlices")
    for row in endpoints:
        addresses = row.at("addresses")
        rows = list(addresses.rows())
        if not 1 <= len(rows) <= 100:
            yield addresses.wrong(f"has {len(rows)} addresses; write 1 to 100")
        for address in rows if family.value == "IPv4" else ():
            if reason := names.ipv4(address.value):
                yield address.wrong(reason)
        yield from name_at(row.at("nodeName"), names.subdomain)
        yield from name_at(row.at("hostname"), names.label)
    for row in obj.at("ports").rows():
        yield from row.at("port").between(1, 65535)
        yield from name_at(row.at("name"), names.label)
        yield from name_at(row.at("appProtocol"), names.qualified)
        yield from _protocol(row.at("protocol"))
    yield from _unique_slice_ports(obj.at("ports"))


def _address(place: Place, otherwise: str = "") -> Iterator[Finding]:
    """An address of IPv4, or ``otherwise``; one of IPv6 is one that the plane has nothing for."""
    if place.given and (reason := names.ipv4(place.value)):
        say = place.refused if names.is_ipv6(place.value) else place.wrong
        yield say(reason + otherwise)


def weight(place: Place) -> Iterator[Finding]:
    """An annotation's weight; annotations are text."""
    if place.given and not (place.text().isdecimal() and int(place.text()) <= 65535):
        yield place.wrong(f"{shown(place.value)} is no weight; write a whole number from 0 to 65535")


def _slow_start(place: Place) -> Iterator[Finding]:
    if place.value is not None and not 1 <= duration_s(place.text()) <= SLOW_START_LIMIT_S:
        limit = f"{SLOW_START_LIMIT_S // 3600}h"
        what = f"{shown(place.value)} is no duration from 1s to {limit}; write one such as 30s, 2m or 1m30s"
        yield place.wrong(f"{what}, or leave it out for none")


def _unique_slice_ports(ports: Place) -> Iterator[Finding]:
    """Port names, of which the empty one is a name too."""
    seen: dict[str, str] = {}
    for row in ports.rows():
        name = row.at("name").text()
        if name in seen:
            yield row.at("name").wrong(f"{shown(name)} is also that of {seen[name]}; choose another")
        seen.setdefault(name, row.path)
