"""What Services are given (ClusterIPs, node ports, load balancer addresses), and ids of backends. Pure.

Law: what is given stays given while its owner lives and wants it. What is asked for has been checked by the store.
"""

from collections.abc import Callable, Container
from dataclasses import replace
from typing import NamedTuple

from plane.controllers.lifecycle import Pass
from plane.model import Object, Snapshot, endpoints_of

LOAD_BALANCER_CLASS = "trafficplane.dev/loopback"


def services(snapshot: Snapshot, given: Pass) -> Snapshot:
    """Services without a ClusterIP, a node port or a load balancer's address that they should have get one."""
    there = list(snapshot.all("Service"))
    ips = {obj["spec"].get("clusterIP", "") for obj in there}
    ports = {number for obj in there for number in node_ports_of(obj)}
    vips = {ip for obj in there for ip in (*balancer_ips_of(obj), *(obj["spec"].get("externalIPs") or ()))}
    put = [_given(obj, given, ips, ports, vips) for obj in there]
    return snapshot.changed(after for before, after in zip(there, put, strict=True) if after is not before)


class Claim(NamedTuple):
    """Something that one Service alone can have."""

    field: str
    what: str
    value: object


def claims(service: Object) -> list[Claim]:
    """Everything that a Service asks for, or has been given, and no other may have."""
    spec = service["spec"]
    found = []
    if spec.get("clusterIP") not in (None, "", "None"):
        found.append(Claim("spec.clusterIP", "address", spec["clusterIP"]))
    if spec.get("loadBalancerIP"):
        found.append(Claim("spec.loadBalancerIP", "address", spec["loadBalancerIP"]))
    for address in balancer_ips_of(service):
        if address != spec.get("loadBalancerIP"):
            found.append(Claim("status.loadBalancer", "address", address))
    for index, port in enumerate(spec.get("ports") or ()):
        if port.get("nodePort"):
            found.append(Claim(f"spec.ports[{index}].nodePort", "node port", port["nodePort"]))
        protocol = port.get("protocol", "TCP")
        for place, address in enumerate(spec.get("externalIPs") or ()):
            found.append(Claim(f"spec.externalIPs[{place}]", "address", f"{address}:{port['port']}/{protocol}"))
    if spec.get("healthCheckNodePort"):
        found.append(Claim("spec.healthCheckNodePort", "node port", spec["healthCheckNodePort"]))
    return found


def node_ports_of(service: Object) -> list[int]:
    """Every node port that a Service has, that of health checks included."""
    spec = service["spec"]
    rows = [port.get("nodePort") for port in spec.get("ports") or ()]
    return [number for number in dict.fromkeys((*rows, spec.get("healthCheckNodePort"))) if number]


def balancer_ips_of(service: Object) -> list[str]:
    """The load balancer addresses that a Service has, or asks for."""
    asked = [service["spec"]["loadBalancerIP"]] if service["spec"].get("loadBalancerIP") else []
    rows = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return asked + [row["ip"] for row in rows if row.get("ip")]


def is_balanced(service: Object) -> bool:
    """Whether the plane gives the Service a load balancer's address: one of another class is left to whom it means."""
    spec = service["spec"]
    return spec.get("type") == "LoadBalancer" and spec.get("loadBalancerClass") in (None, LOAD_BALANCER_CLASS)


def _given(obj: Object, given: Pass, ips: set[str], ports: set[int], vips: set[str]) -> Object:
    spec, kind = obj["spec"], obj["spec"].get("type", "ClusterIP")
    if kind != "ExternalName" and not spec.get("clusterIP"):
        address = given.plan.free_cluster_ip(ips)
        ips.add(address)
        spec = {**spec, "clusterIP": address, "clusterIPs": [address]}
    if kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True)):
        spec = _with_node_ports(spec, _taker(ports, given.plan.free_node_port))
    if kind == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local" and not spec.get("healthCheckNodePort"):
        spec = {**spec, "healthCheckNodePort": _taker(ports, given.plan.free_node_port)()}
    obj = obj if spec is obj["spec"] else {**obj, "spec": spec}
    balancer = _balancer(obj, given, vips)
    before = (obj.get("status") or {}).get("loadBalancer") or {}
    if balancer != before:
        obj = {**obj, "status": {**(obj.get("status") or {}), "loadBalancer": balancer}}
    return obj


def _taker(taken: set[int], free: Callable[[Container[int]], int]) -> Callable[[], int]:
    def take() -> int:
        number = free(taken)
        taken.add(number)
        return number

    return take


def _with_node_ports(spec: Object, take: Callable[[], int]) -> Object:
    """A node port for each port; one number serves TCP and UDP of the same port, as in Kubernetes."""
    if all(port.get("nodePort") for port in spec["ports"]):
        return spec
    numbers = {port["port"]: port["nodePort"] for port in spec["ports"] if port.get("nodePort")}
    rows = []
    for port in spec["ports"]:
        if not port.get("nodePort"):
            shared = numbers.get(port["port"])
            numbers[port["port"]] = number = shared or take()
            port = {**port, "nodePort": number}
        rows.append(port)
    return {**spec, "ports": rows}


def _balancer(obj: Object, given: Pass, vips: set[str]) -> Object:
    """``status.loadBalancer``: the address asked for, the one it has, or a free one; nothing for other types."""
    if not is_balanced(obj):
        return {}
    have = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or [{}]
    address = obj["spec"].get("loadBalancerIP") or have[0].get("ip") or given.plan.free_vip(vips)
    vips.add(address)
    ports = [
        {"port": given.plan.bound_port(port["port"]), "protocol": port["protocol"]} for port in obj["spec"]["ports"]
    ]
    return {"ingress": [{"ip": address, "ipMode": "VIP", "ports": ports}]}


def backend_ids(snapshot: Snapshot, given: Pass) -> Snapshot:
    """Every endpoint has an id for as long as it is in a slice; an id is given again, lowest first, once it is free.

    A terminating pod stays in its slice until its node says it is gone, so no live flow ever sees its id reused.
    """
    present = {endpoint.key for obj in snapshot.all("EndpointSlice") for endpoint in endpoints_of(obj)}
    if present == snapshot.backends.keys():
        return snapshot
    kept = {key: number for key, number in snapshot.backends.items() if key in present}
    used = set(kept.values())
    free = (number for number in range(1, len(present) + len(used) + 1) if number not in used)
    kept.update(zip(sorted(present - kept.keys()), free, strict=False))
    return replace(snapshot, backends=kept)
