"""Defaults as the Kubernetes API server fills them in (``k8s.io/kubernetes/pkg/apis/*/v1/defaults.go``). Pure.

Law: ``defaulted`` takes an object that ``check`` found nothing wrong with, and returns one in which no field is null
and every field that the plane reads has its value; what was written stays as it was, and it changes nothing twice.
"""

import base64
from collections.abc import Callable
from typing import Any

from plane.model import Object

PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
AFFINITY_SECONDS = 10_800


def defaulted(obj: Object) -> Object:
    """The object with its defaults; the one given is left as it is."""
    obj = _without_nulls(obj)
    rule = DEFAULTS.get(obj.get("kind", ""))
    return rule(obj) if rule else obj


def _without_nulls(value: Any) -> Any:
    """null stands for a field that is not there."""
    if isinstance(value, dict):
        return {key: _without_nulls(row) for key, row in value.items() if row is not None}
    if isinstance(value, list):
        return [_without_nulls(row) for row in value]
    return value


def _filled(fields: Object, defaults: Object) -> Object:
    """The fields, then the defaults for those that are missing or hold a zero value."""
    return {**fields, **{name: value for name, value in defaults.items() if fields.get(name) in (None, "", 0)}}


def _each(fields: Object, name: str, rule: Callable[[Object], Object]) -> Object:
    """The fields with a rule applied to every item of one of them, if it is there."""
    return {**fields, name: [rule(row) for row in fields[name]]} if name in fields else fields


def _service(obj: Object) -> Object:
    spec = _filled(obj["spec"], {"type": "ClusterIP", "sessionAffinity": "None"})
    if spec["sessionAffinity"] == "ClientIP":
        config = spec.get("sessionAffinityConfig") or {}
        client_ip = _filled(config.get("clientIP") or {}, {"timeoutSeconds": AFFINITY_SECONDS})
        spec["sessionAffinityConfig"] = {**config, "clientIP": client_ip}
    if spec["type"] != "ExternalName":
        spec = _filled(spec, {"internalTrafficPolicy": "Cluster", "ipFamilyPolicy": "SingleStack"})
        spec.setdefault("ipFamilies", ["IPv4"])
        if spec.get("clusterIP"):
            spec["clusterIPs"] = spec.get("clusterIPs") or [spec["clusterIP"]]
        elif spec.get("clusterIPs"):
            spec["clusterIP"] = spec["clusterIPs"][0]
    if spec["type"] in ("NodePort", "LoadBalancer") or spec.get("externalIPs"):
        spec = _filled(spec, {"externalTrafficPolicy": "Cluster"})
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    return {**obj, "spec": _each(spec, "ports", _service_port)}


def _service_port(port: Object) -> Object:
    return _filled(port, {"protocol": "TCP", "targetPort": port["port"]})


def _endpoint_slice(obj: Object) -> Object:
    return _each(obj, "ports", lambda port: {"name": "", **_filled(port, {"protocol": "TCP"})})


def _deployment(obj: Object) -> Object:
    obj = _replica_set(obj)
    spec = {"revisionHistoryLimit": 10, "progressDeadlineSeconds": 600, **obj["spec"]}
    strategy = _filled(spec.get("strategy") or {}, {"type": "RollingUpdate"})
    if strategy["type"] == "RollingUpdate":
        rolling = {"maxUnavailable": "25%", "maxSurge": "25%", **strategy.get("rollingUpdate", {})}
        strategy = {**strategy, "rollingUpdate": rolling}
    return {**obj, "spec": {**spec, "strategy": strategy}}


def _replica_set(obj: Object) -> Object:
    template = obj["spec"]["template"]
    template = {**template, "spec": _pod_spec(template["spec"])}
    return {**obj, "spec": {"replicas": 1, **obj["spec"], "template": template}}


def _pod(obj: Object) -> Object:
    return {**obj, "spec": {"enableServiceLinks": True, **_pod_spec(obj["spec"])}}


def _pod_spec(spec: Object) -> Object:
    defaults = {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler"}
    spec = {"terminationGracePeriodSeconds": 30, "securityContext": {}, **_filled(spec, defaults)}
    return _each(_each(spec, "initContainers", _container), "containers", _container)


def _container(container: Object) -> Object:
    defaults = {
        "imagePullPolicy": pull_policy(container["image"]),
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }
    container = {"resources": {}, **_filled(container, defaults)}
    container = _each(container, "ports", lambda port: _filled(port, {"protocol": "TCP"}))
    container = _each(container, "env", _variable)
    probes = {name: _probe(container[name]) for name in PROBES if name in container}
    return {**container, **probes}


def pull_policy(image: str) -> str:
    """Always for an image without a tag or with ``latest``, IfNotPresent for one that is pinned."""
    if "@" in image:
        return "IfNotPresent"
    tag = image.rpartition("/")[2].partition(":")[2]
    return "Always" if tag in ("", "latest") else "IfNotPresent"


def _variable(entry: Object) -> Object:
    source = entry.get("valueFrom") or {}
    if "fieldRef" not in source:
        return entry
    reference = _filled(source["fieldRef"], {"apiVersion": "v1"})
    return {**entry, "valueFrom": {**source, "fieldRef": reference}}


def _probe(probe: Object) -> Object:
    defaults = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    probe = _filled(probe, defaults)
    if "httpGet" in probe:
        probe["httpGet"] = _filled(probe["httpGet"], {"path": "/", "scheme": "HTTP"})
    return probe


def _secret(obj: Object) -> Object:
    written = {key: base64.b64encode(text.encode()).decode() for key, text in (obj.get("stringData") or {}).items()}
    data = {**(obj.get("data") or {}), **written}
    rest = {name: value for name, value in obj.items() if name != "stringData"}
    return _filled({**rest, "data": data} if data else rest, {"type": "Opaque"})


def _namespace(obj: Object) -> Object:
    metadata = obj["metadata"]
    labels = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata["name"]}
    return {**obj, "metadata": {**metadata, "labels": labels}}


DEFAULTS: dict[str, Callable[[Object], Object]] = {
    "Service": _service,
    "EndpointSlice": _endpoint_slice,
    "Deployment": _deployment,
    "ReplicaSet": _replica_set,
    "Pod": _pod,
    "Secret": _secret,
    "Namespace": _namespace,
}
