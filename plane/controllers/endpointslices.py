"""The EndpointSlice controller: a Service's selector and its pods → EndpointSlices. Pure.

A slice holds endpoints that have the same ports, as Kubernetes' own controller makes them, because a named
``targetPort`` may mean another number in another pod; a slice holds at most ``SLICE_SIZE`` endpoints.
"""

import hashlib
from collections.abc import Iterable, Iterator

from plane.addresses import AddressPlan
from plane.controllers.lifecycle import Pass, digest_uid
from plane.model import (
    POD_WEIGHT_ANNOTATION,
    SERVICE_LABEL,
    WEIGHT_ANNOTATION,
    ZONE_LABEL,
    Object,
    Service,
    ServicePort,
    Snapshot,
    key_of,
)

MANAGED_LABEL = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
SLICE_SIZE = 100

# (name, protocol, number) of each port, in the order of the Service.
Ports = tuple[tuple[str, str, int], ...]
Zones = dict[str, str]  # of nodes, by name


def endpoint_slices(snapshot: Snapshot, given: Pass) -> Snapshot:
    """Slices as selectors call for them; one that is equal to what is there already is left as it is."""
    wanted, stale = _slices(snapshot, given.plan)
    put = []
    for obj in wanted:
        key = key_of(obj)
        before = snapshot.get(*key)
        if before is None:
            made = {
                "uid": digest_uid(*key, obj["metadata"]["ownerReferences"][0]["uid"], snapshot.generation),
                "creationTimestamp": given.now,
            }
            put.append({**obj, "metadata": {**obj["metadata"], **made}})
        elif any(before[name] != obj[name] for name in ("endpoints", "ports")):
            put.append({**before, "endpoints": obj["endpoints"], "ports": obj["ports"]})
    return snapshot.changed(put, map(key_of, stale))


def _slices(snapshot: Snapshot, plan: AddressPlan) -> tuple[list[Object], list[Object]]:
    """The slices that selectors call for, and those in the Snapshot that no selector calls for any more."""
    pods_by_label: dict[tuple[str, str, str], list[Object]] = {}
    for pod in snapshot.all("Pod"):
        for name, value in (pod["metadata"].get("labels") or {}).items():
            pods_by_label.setdefault((pod["metadata"]["namespace"], name, value), []).append(pod)
    zones = {obj["metadata"]["name"]: _zone(obj) for obj in snapshot.all("Node")}
    wanted = [
        obj
        for service_obj in snapshot.all("Service")
        if service_obj["spec"].get("selector") and service_obj["spec"].get("type") != "ExternalName"
        for obj in _slices_of(service_obj, _near(service_obj, pods_by_label), plan, zones)
    ]
    names = {key_of(obj) for obj in wanted}
    stale = [
        obj
        for obj in snapshot.all("EndpointSlice")
        if (obj["metadata"].get("labels") or {}).get(MANAGED_LABEL) == MANAGER and key_of(obj) not in names
    ]
    return wanted, stale


def _near(service: Object, pods_by_label: dict[tuple[str, str, str], list[Object]]) -> list[Object]:
    """Pods that have one of the labels a Service selects, the rarest: few of them are looked at in vain."""
    selector = service["spec"]["selector"].items()
    found = (pods_by_label.get((service["metadata"]["namespace"], *label), []) for label in selector)
    return min(found, key=len)


def is_ready(pod: Object) -> bool:
    """Whether the pod's Ready condition is true."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(row["type"] == "Ready" and row["status"] == "True" for row in conditions)


def is_finished(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def selects(selector: Iterable[tuple[str, str]], obj: Object) -> bool:
    labels = obj["metadata"].get("labels") or {}
    return all(labels.get(name) == value for name, value in selector)


def target_port(port: ServicePort, pod: Object) -> int | None:
    """The number a Service port has in this pod; None where no container has a port of that name and protocol."""
    if isinstance(port.target_port, int):
        return port.target_port
    for container in pod["spec"].get("containers") or ():
        for row in container.get("ports") or ():
            if row.get("name") == port.target_port and row.get("protocol", "TCP") == port.protocol:
                return int(row["containerPort"])
    return None


def _zone(node: Object) -> str:
    return str((node["metadata"].get("labels") or {}).get(ZONE_LABEL, ""))


def _slices_of(service_obj: Object, pods: Iterable[Object], plan: AddressPlan, zones: Zones) -> Iterator[Object]:
    service = Service.of(service_obj)
    selector = tuple(service.selector.items())
    groups: dict[tuple[Ports, str], list[Object]] = {}
    for pod in pods:
        if not selects(selector, pod) or is_finished(pod) or not (pod.get("status") or {}).get("podIP"):
            continue
        resolved = [(port, target_port(port, pod)) for port in service.ports]
        ports = tuple(
            (port.name, port.protocol, plan.bound_port(number)) for port, number in resolved if number is not None
        )
        weight = (pod["metadata"].get("annotations") or {}).get(POD_WEIGHT_ANNOTATION, "")
        groups.setdefault((ports, weight), []).append(pod)
    for (ports, weight), members in sorted(groups.items()):
        for start in range(0, len(members), SLICE_SIZE):
            obj = _slice(service_obj, service, ports, f"{weight}/{start // SLICE_SIZE}")
            if weight:
                obj["metadata"]["annotations"] = {WEIGHT_ANNOTATION: weight}
            obj["endpoints"] = [_endpoint(service_obj, pod, zones) for pod in members[start : start + SLICE_SIZE]]
            yield obj


def _slice(service_obj: Object, service: Service, ports: Ports, part: str) -> Object:
    uid = service_obj["metadata"].get("uid", "")
    suffix = hashlib.blake2b(f"{uid}{ports}{part}".encode(), digest_size=3).hexdigest()[:5]
    spoken = {row.get("name", ""): row["appProtocol"] for row in service_obj["spec"]["ports"] if row.get("appProtocol")}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service.name}-{suffix}",
            "namespace": service.namespace,
            "labels": {SERVICE_LABEL: service.name, MANAGED_LABEL: MANAGER},
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Service", "name": service.name, "uid": uid, "controller": True}
            ],
        },
        "addressType": "IPv4",
        "endpoints": [],
        "ports": [
            {"name": name, "protocol": protocol, "port": number}
            | ({"appProtocol": spoken[name]} if name in spoken else {})
            for name, protocol, number in ports
        ],
    }


def _endpoint(service: Object, pod: Object, zones: Zones) -> Object:
    publish_not_ready = bool(service["spec"].get("publishNotReadyAddresses"))
    metadata, terminating = pod["metadata"], "deletionTimestamp" in pod["metadata"]
    serving = is_ready(pod)
    endpoint: Object = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {
            "ready": publish_not_ready or (serving and not terminating),
            "serving": serving,
            "terminating": terminating,
        },
        "nodeName": pod["spec"]["nodeName"],
        "targetRef": {
            "kind": "Pod",
            "namespace": metadata["namespace"],
            "name": metadata["name"],
            "uid": metadata.get("uid", ""),
        },
    }
    if zone := zones.get(pod["spec"]["nodeName"]):
        endpoint["zone"] = zone
    if hints := _hints(service["spec"].get("trafficDistribution", ""), pod["spec"]["nodeName"], zone or ""):
        endpoint["hints"] = hints
    if pod["spec"].get("hostname") and pod["spec"].get("subdomain") == service["metadata"]["name"]:
        endpoint["hostname"] = pod["spec"]["hostname"]
    return endpoint


def _hints(distribution: str, node: str, zone: str) -> Object:
    """Whom an endpoint is meant for (KEP-3015: PreferSameZone was PreferClose; PreferSameNode falls to the zone)."""
    hints: Object = {"forNodes": [{"name": node}]} if distribution == "PreferSameNode" else {}
    if distribution in ("PreferSameZone", "PreferClose", "PreferSameNode") and zone:
        hints["forZones"] = [{"name": zone}]
    return hints
