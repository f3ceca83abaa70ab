"""Service ``kube-dns`` in ``kube-system``: cluster DNS as any other Service, whose endpoints are the nodes. Pure.

Law: it is there as soon as there is a node, with the ClusterIP that clusters give it, and it is the plane's alone. A
node that is not ready answers nobody, so it is no endpoint.
"""

from plane.controllers.endpointslices import MANAGED_LABEL
from plane.controllers.lifecycle import Pass, digest_uid
from plane.controllers.scheduling import node_address, node_is_ready
from plane.defaults import defaulted
from plane.dns.names import KUBE_DNS, NODE_PORT
from plane.model import SERVICE_LABEL, Key, Object, Snapshot, key_of

PORTS = (("dns", "UDP"), ("dns-tcp", "TCP"))
SLICE = Key("EndpointSlice", KUBE_DNS.namespace, f"{KUBE_DNS.name}-nodes")
LABELS = {"k8s-app": KUBE_DNS.name, "kubernetes.io/cluster-service": "true"}
MANAGER = "clusterdns.trafficplane.dev"


def cluster_dns(snapshot: Snapshot, given: Pass) -> Snapshot:
    """The Service and its EndpointSlice as the nodes call for them; what is equal already is left as it is."""
    nodes = list(snapshot.all("Node"))
    if not nodes:
        return snapshot
    service = snapshot.get(*KUBE_DNS) or _service(snapshot, given)
    endpoints = [_endpoint(node) for node in nodes if node_is_ready(node)]
    before = snapshot.get(*SLICE)
    put = [] if snapshot.get(*KUBE_DNS) is service else [service]
    if before is None or before["endpoints"] != endpoints:
        put.append(_slice(before or _made(SLICE, snapshot, given), service, endpoints))
    return snapshot.changed(put)


def is_cluster_dns(obj: Object) -> bool:
    """Whether an object is cluster DNS, or gives it endpoints."""
    key, labels = key_of(obj), (obj.get("metadata") or {}).get("labels") or {}
    if key.kind == SLICE.kind and key.namespace == SLICE.namespace:
        return key == SLICE or labels.get(SERVICE_LABEL) == KUBE_DNS.name
    return key == KUBE_DNS


def _made(key: Key, snapshot: Snapshot, given: Pass) -> Object:
    """A new object without content."""
    metadata = {"name": key.name, "namespace": key.namespace, "uid": digest_uid(*key, snapshot.generation)}
    api_version = "v1" if key.kind == "Service" else "discovery.k8s.io/v1"
    return {"apiVersion": api_version, "kind": key.kind, "metadata": {**metadata, "creationTimestamp": given.now}}


def _service(snapshot: Snapshot, given: Pass) -> Object:
    obj = _made(KUBE_DNS, snapshot, given)
    ports = [{"name": name, "port": 53, "protocol": protocol, "targetPort": NODE_PORT} for name, protocol in PORTS]
    spec = {"clusterIP": given.plan.dns, "ports": ports}
    return defaulted({**obj, "metadata": {**obj["metadata"], "labels": LABELS}, "spec": spec})


def _slice(obj: Object, service: Object, endpoints: list[Object]) -> Object:
    owner = {"apiVersion": "v1", "kind": "Service", "name": KUBE_DNS.name, "uid": service["metadata"]["uid"]}
    labels = {SERVICE_LABEL: KUBE_DNS.name, MANAGED_LABEL: MANAGER}
    return {
        **obj,
        "metadata": {**obj["metadata"], "labels": labels, "ownerReferences": [{**owner, "controller": True}]},
        "addressType": "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": name, "port": NODE_PORT, "protocol": protocol} for name, protocol in PORTS],
    }


def _endpoint(node: Object) -> Object:
    conditions = {"ready": True, "serving": True, "terminating": False}
    return {"addresses": [node_address(node)], "conditions": conditions, "nodeName": node["metadata"]["name"]}
