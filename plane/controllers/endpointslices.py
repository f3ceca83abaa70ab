"""The EndpointSlice controller: a Service's selector and its pods → EndpointSlices. Pure.

A slice holds endpoints that have the same ports, as Kubernetes' own controller makes them, because a named
``targetPort`` may mean another number in another pod; a slice holds at most ``SLICE_SIZE`` endpoints.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping

from plane.addresses import AddressPlan
from plane.controllers.lifecycle import Pass, digest_uid
from plane.model import (
    POD_WEIGHT_ANNOTATION,
    SERVICE_LABEL,
    WEIGHT_ANNOTATION,
    ZONE_LABEL,
    Key,
    Name,
    Object,
    Service,
    ServicePort,
    Snapshot,
    key_of,
)
from plane.rows import Followed

MANAGED_LABEL = "endpointslice.kubernetes.io/managed-by"
MANAGER = "endpointslice-controller.k8s.io"
SLICE_SIZE = 100

# (name, protocol, number) of each port, in the order of the Service.
Ports = tuple[tuple[str, str, int], ...]
Zones = dict[str, str]  # of nodes, by name
Label = tuple[str, str, str]  # namespace, name, value


class Selected:
    """Which pods have which label and which Services select by it, and the Services to be looked at again.

    A Service is settled once its slices are as they should be, until it, a pod that it selects or selected, the zone of
    a node, or one of its slices changes.
    """

    def __init__(self) -> None:
        self._nodes: Followed[Name, Object] = Followed()
        self._services: Followed[Name, Object] = Followed()
        self._pods: Followed[Name, Object] = Followed()
        self._slices: Followed[Name, Object] = Followed()
        self._pods_by_label: dict[Label, dict[Name, Object]] = {}
        self._services_by_label: dict[Label, dict[Name, Object]] = {}
        self._label_of: dict[Name, Label] = {}  # the label that a Service is filed by, of those of its selector
        self._calls: dict[Name, set[Name]] = {}  # the slices that a Service calls for
        self._called: dict[Name, Name] = {}  # and who calls for a slice
        self.zones: Zones = {}
        self.unsettled: set[Name] = set()
        self.doubtful: set[Name] = set()  # slices that may be ours, and that nobody may call for any more

    def follow(self, snapshot: Snapshot) -> None:
        for name, old, new in self._services.news(snapshot.rows("Service")):
            self.unsettled.add(name)
            if old is not None and selecting(old):
                _file(self._services_by_label, [self._label_of.pop(name)], name, old, holds=False)
            if new is not None and selecting(new):
                self._label_of[name] = label = self._distinctive(_labels(name, new["spec"]["selector"]))
                _file(self._services_by_label, [label], name, new, holds=True)
        for name, old, new in self._pods.news(snapshot.rows("Pod")):
            for pod, holds in ((old, False), (new, True)):
                if pod is not None:
                    labels = _labels(name, pod["metadata"].get("labels") or {})
                    _file(self._pods_by_label, labels, name, pod, holds=holds)
                    self.unsettled.update(self._selecting(labels, pod))
        if self._nodes.news(snapshot.rows("Node")):
            zones = {obj["metadata"]["name"]: _zone(obj) for obj in snapshot.all("Node")}
            if zones != self.zones:
                self.zones = zones
                self.unsettled |= self._calls.keys()
        for name, _, _ in self._slices.news(snapshot.rows("EndpointSlice")):
            self.doubtful.add(name)
            if name in self._called:
                self.unsettled.add(self._called[name])

    def _distinctive(self, labels: Iterable[Label]) -> Label:
        """The label that fewest Services are filed by: one that all of them select by tells none from another."""
        return min(labels, key=lambda label: len(self._services_by_label.get(label, ())))

    def _selecting(self, labels: Iterable[Label], pod: Object) -> Iterator[Name]:
        """The Services that select a pod with these labels."""
        for label in labels:
            for name, service in self._services_by_label.get(label, {}).items():
                if selects(service["spec"]["selector"].items(), pod):
                    yield name

    def near(self, name: Name, service: Object) -> list[Object]:
        """Pods that have one of the labels a Service selects, the rarest: few of them are looked at in vain."""
        found = (self._pods_by_label.get(label, {}) for label in _labels(name, service["spec"]["selector"]))
        rows = min(found, key=len)
        return [rows[pod] for pod in sorted(rows)]

    def call(self, service: Name, slices: Iterable[Name]) -> None:
        """Says which slices a Service calls for from here on."""
        before, after = self._calls.pop(service, set()), set(slices)
        for name in before - after:
            del self._called[name]
        self.doubtful |= before - after
        self._called.update(dict.fromkeys(after, service))
        if after:
            self._calls[service] = after

    def is_called(self, name: Name) -> bool:
        return name in self._called


def _labels(name: Name, labels: Mapping[str, str]) -> list[Label]:
    return [(name[0], *label) for label in labels.items()]


def _file(
    table: dict[Label, dict[Name, Object]], labels: Iterable[Label], name: Name, obj: Object, *, holds: bool
) -> None:
    """Has the table hold the object under these labels, or not."""
    for label in labels:
        rows = table.setdefault(label, {})
        if holds:
            rows[name] = obj
        else:
            del rows[name]
        if not rows:
            del table[label]


def endpoint_slices(snapshot: Snapshot, given: Pass) -> Snapshot:
    """Slices as selectors call for them; one that is equal to what is there already is left as it is."""
    index = given.index(Selected)
    index.follow(snapshot)
    put: list[Object] = []
    still = set()
    for name in sorted(index.unsettled):
        service = snapshot.get("Service", *name)
        wanted = []
        if service is not None and selecting(service):
            wanted = list(_slices_of(service, index.near(name, service), given.plan, index.zones))
        index.call(name, [(obj["metadata"]["namespace"], obj["metadata"]["name"]) for obj in wanted])
        changes = list(_changes(snapshot, wanted, given.now))
        if changes:
            still.add(name)
        put += changes
    index.unsettled = still
    rows = snapshot.rows("EndpointSlice")
    index.doubtful = {
        name for name in index.doubtful if name in rows and _is_managed(rows[name]) and not index.is_called(name)
    }
    return snapshot.changed(put, (Key("EndpointSlice", *name) for name in index.doubtful))


def _changes(snapshot: Snapshot, wanted: Iterable[Object], now: str) -> Iterator[Object]:
    """What has to be put so that these slices are there."""
    for obj in wanted:
        key = key_of(obj)
        before = snapshot.get(*key)
        if before is None:
            uid = digest_uid(*key, obj["metadata"]["ownerReferences"][0]["uid"], snapshot.generation)
            yield {**obj, "metadata": {**obj["metadata"], "uid": uid, "creationTimestamp": now}}
        elif any(before[name] != obj[name] for name in ("endpoints", "ports")):
            yield {**before, "endpoints": obj["endpoints"], "ports": obj["ports"]}


def selecting(service: Object) -> bool:
    """Whether a Service has slices made for it."""
    return bool(service["spec"].get("selector")) and service["spec"].get("type") != "ExternalName"


def _is_managed(obj: Object) -> bool:
    return bool((obj["metadata"].get("labels") or {}).get(MANAGED_LABEL) == MANAGER)


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
