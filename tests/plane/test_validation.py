"""The check of one object: what is refused, with which field and which remedy; and that nothing sound is refused."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels.layout import ALGORITHMS
from plane import environment
from plane.defaults import defaulted
from plane.model import Service, endpoints_of
from plane.validation import check, foreign, services

LABELS = {"app": "a"}
POD_SPEC = {"containers": [{"name": "c", "image": "nginx", "ports": [{"name": "http", "containerPort": 80}]}]}
SOUND: dict[str, dict[str, Any]] = {
    "Namespace": {"apiVersion": "v1"},
    "Node": {"apiVersion": "v1", "status": {"addresses": [{"type": "InternalIP", "address": "127.18.0.1"}]}},
    "Event": {
        "apiVersion": "v1",
        "involvedObject": {"kind": "Pod", "name": "a"},
        "reason": "Killing",
        "lastTimestamp": "2026-01-01T00:00:00Z",
    },
    "Service": {"apiVersion": "v1", "spec": {"selector": LABELS, "ports": [{"port": 80, "targetPort": "http"}]}},
    "EndpointSlice": {
        "apiVersion": "discovery.k8s.io/v1",
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": None}}],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    },
    "Pod": {"apiVersion": "v1", "spec": POD_SPEC},
    "Deployment": {
        "apiVersion": "apps/v1",
        "spec": {"selector": {"matchLabels": LABELS}, "template": {"metadata": {"labels": LABELS}, "spec": POD_SPEC}},
    },
    "ReplicaSet": {
        "apiVersion": "apps/v1",
        "spec": {"selector": {"matchLabels": LABELS}, "template": {"metadata": {"labels": LABELS}, "spec": POD_SPEC}},
    },
    "Ingress": {
        "apiVersion": "networking.k8s.io/v1",
        "spec": {
            "tls": [{"hosts": ["a.com"], "secretName": "cert"}],
            "rules": [
                {
                    "host": "a.com",
                    "http": {
                        "paths": [
                            {
                                "path": "/",
                                "pathType": "Prefix",
                                "backend": {"service": {"name": "a", "port": {"number": 80}}},
                            }
                        ]
                    },
                }
            ],
        },
    },
    "IngressClass": {"apiVersion": "networking.k8s.io/v1", "spec": {"controller": "k8s.io/ingress-nginx"}},
    "Secret": {"apiVersion": "v1", "type": "Opaque", "data": {"a.b": "eA=="}, "stringData": {"c": "d"}},
    "ConfigMap": {"apiVersion": "v1", "data": {"a.b": "x"}, "binaryData": {"c": "eA=="}},
}
CLUSTER_SCOPED = ("Namespace", "Node", "IngressClass")
MISSING = object()  # as a value of an edit: take the field out


def sound(kind: str) -> dict[str, Any]:
    metadata = {"name": "a"} if kind in CLUSTER_SCOPED else {"name": "a", "namespace": "default"}
    return json.loads(json.dumps({"kind": kind, "metadata": metadata, **SOUND[kind]}))


def edited(obj: dict[str, Any], edits: dict[str, Any]) -> dict[str, Any]:
    """The object with values put at dotted paths; a number is an index, ``~`` in a step stands for a dot."""
    for path, value in edits.items():
        holder: Any = obj
        steps = [int(step) if step.isdigit() else step.replace("~", ".") for step in path.split(".")]
        for step in steps[:-1]:
            holder = holder.setdefault(step, {}) if isinstance(holder, dict) else holder[step]
        if value is MISSING:
            del holder[steps[-1]]
        elif isinstance(holder, list) and steps[-1] == len(holder):
            holder.append(value)
        else:
            holder[steps[-1]] = value
    return obj


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_object_of_each_kind_passes(kind: str) -> None:
    assert check(sound(kind)) == []


PATH = "spec.rules.0.http.paths.0"
CONTAINER = "spec.containers.0"
PROBE = {"httpGet": {"port": 80}}


def variable(**source: Any) -> list[dict[str, Any]]:
    return [{"name": "A", "valueFrom": source}]


@pytest.mark.parametrize(
    ("kind", "edits"),
    [
        pytest.param("Service", {"spec.ports.0.targetPort": None}, id="null means absent"),
        pytest.param("Service", {"spec.clusterIP": "None", "spec.ports": []}, id="headless without ports"),
        pytest.param("Service", {"spec.clusterIP": "127.96.1.1", "spec.clusterIPs": ["127.96.1.1"]}, id="an address"),
        pytest.param("Service", {"spec.type": "NodePort", "spec.ports.0.nodePort": 30000}, id="a node port"),
        pytest.param(
            "Service",
            {"spec.ports": [{"name": "a", "port": 53}, {"name": "b", "port": 53, "protocol": "UDP"}]},
            id="a port for each protocol",
        ),
        pytest.param(
            "Service", {"spec": {"type": "ExternalName", "externalName": "a.example.com."}}, id="ExternalName"
        ),
        pytest.param(
            "Service",
            {"spec.sessionAffinity": "ClientIP", "spec.sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86400}}},
            id="session affinity",
        ),
        pytest.param("Service", {"metadata.annotations": {"a.B/c_d": "", "X": "y"}}, id="annotations"),
        pytest.param(
            "Ingress", {"spec": {"defaultBackend": {"service": {"name": "a", "port": {"name": "http"}}}}}, id="default"
        ),
        pytest.param("Ingress", {"spec.rules.0.host": "*.a.com", f"{PATH}.path": "/%2e"}, id="a wildcard host"),
        pytest.param("Ingress", {"spec.rules.0": {"host": "a.com"}}, id="a host without paths"),
        pytest.param(
            "Ingress",
            {f"{PATH}.path": MISSING, f"{PATH}.pathType": "ImplementationSpecific"},
            id="no path where it may be",
        ),
        pytest.param(
            "Pod", {f"{CONTAINER}.env": variable(fieldRef={"fieldPath": "metadata.labels['a/b']"})}, id="a label"
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.env": variable(secretKeyRef={"name": "s", "key": "k", "optional": True})},
            id="an optional reference",
        ),
        pytest.param("Pod", {f"{CONTAINER}.resources": {"limits": {"cpu": 1, "memory": "1.5Gi"}}}, id="quantities"),
        pytest.param(
            "Pod", {f"{CONTAINER}.livenessProbe": {"exec": {"command": ["a"]}, "periodSeconds": 0}}, id="a probe"
        ),
        pytest.param("Deployment", {"spec.replicas": 0, "spec.strategy": {"type": "Recreate"}}, id="no replicas"),
        pytest.param(
            "Deployment",
            {"spec.selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "b"]}]}},
            id="a selector by expression",
        ),
        pytest.param(
            "Secret", {"type": "kubernetes.io/tls", "data.tls~crt": "", "stringData.tls~key": ""}, id="a certificate"
        ),
    ],
)
def test_sound_variations_pass(kind: str, edits: dict[str, Any]) -> None:
    assert check(edited(sound(kind), edits)) == []


@pytest.mark.parametrize(
    ("kind", "edits", "field", "said"),
    [
        # Shape.
        pytest.param("Service", {"spec.selectr": {}}, "spec.selectr", "did you mean selector?", id="a misspelt field"),
        pytest.param("Service", {"specs": {}}, "specs", "did you mean spec?", id="a misspelt field at the top"),
        pytest.param("Service", {"spec.Ports": []}, "spec.Ports", "did you mean ports?", id="a field in capitals"),
        pytest.param(
            "Deployment",
            {"spec.containers": []},
            "spec.containers",
            "known here: minReadySeconds",
            id="a field elsewhere",
        ),
        pytest.param(
            "Service",
            {"spec.ports.0.port": "80"},
            "spec.ports[0].port",
            "write 80 without quotes",
            id="a quoted number",
        ),
        pytest.param("Service", {"spec.ports.0.port": MISSING}, "spec.ports[0].port", "is required", id="no port"),
        pytest.param(
            "Service", {"spec.ports.0.port": 80.0}, "spec.ports[0].port", "a whole number", id="a broken number"
        ),
        pytest.param(
            "Service", {"spec.ports.0.port": True}, "spec.ports[0].port", "got true", id="a truth value as number"
        ),
        pytest.param(
            "Service", {"spec.ports.0.port": None}, "spec.ports[0].port", "got null", id="null where it must be"
        ),
        pytest.param(
            "Service",
            {"spec.ports.0.targetPort": []},
            "spec.ports[0].targetPort",
            "text or a whole number",
            id="int or text",
        ),
        pytest.param("Service", {"spec.ports": {"port": 80}}, "spec.ports", "put a dash before it", id="no list"),
        pytest.param(
            "Service", {"spec.ports.0": 80}, "spec.ports[0]", "expected a mapping, got the number 80", id="no mapping"
        ),
        pytest.param("Service", {"spec.ports.1": None}, "spec.ports[1]", "is null", id="null in a list"),
        pytest.param("Service", {"spec": [{}]}, "spec", "without the dash", id="a dash too many"),
        pytest.param(
            "Service",
            {"metadata.labels": {"a": 1}},
            "metadata.labels.a",
            'put it in quotes: "1"',
            id="a number as label",
        ),
        pytest.param("Service", {"metadata.labels": {"a": True}}, "metadata.labels.a", "in quotes", id="yes as label"),
        pytest.param(
            "Deployment", {"spec.replicas": 2**31}, "spec.replicas", "does not fit int32", id="too large for its type"
        ),
        pytest.param("Deployment", {"spec.selector": MISSING}, "spec.selector", "write matchLabels", id="no selector"),
        pytest.param("Service", {"apiVersion": "v2"}, "apiVersion", "write v1", id="another apiVersion"),
        # Metadata.
        pytest.param(
            "Service", {"metadata.name": "1a"}, "metadata.name", "beginning with a letter", id="a digit first"
        ),
        pytest.param(
            "Service", {"metadata.name": "My_App"}, "metadata.name", 'as in "my-app"', id="capitals and underscore"
        ),
        pytest.param("Service", {"metadata.name": "a" * 64}, "metadata.name", "64 characters and 63", id="a long name"),
        pytest.param(
            "Service", {"metadata.name": "a.b"}, "metadata.name", 'as in "a-b"', id="a dot in a Service's name"
        ),
        pytest.param("Pod", {"metadata.name": "a..b"}, "metadata.name", "around each dot", id="two dots"),
        pytest.param("Pod", {"metadata.name": MISSING}, "metadata.name", "is required; add it", id="no name"),
        pytest.param(
            "Pod", {"metadata.namespace": "a.b"}, "metadata.namespace", 'as in "a-b"', id="a dot in a namespace"
        ),
        pytest.param(
            "Node",
            {"metadata.namespace": "a"},
            "metadata.namespace",
            "a Node is in no namespace",
            id="a Node's namespace",
        ),
        pytest.param("Pod", {"metadata.labels": {"-a": "b"}}, "metadata.labels[-a]", "the key", id="a label's key"),
        pytest.param(
            "Pod",
            {"metadata.labels": {"A_B/c": "b"}},
            "metadata.labels[A_B/c]",
            "before the slash",
            id="a label's prefix",
        ),
        pytest.param(
            "Pod", {"metadata.labels": {"a.b/c": "d e"}}, "metadata.labels[a.b/c]", 'as in "d-e"', id="a label's value"
        ),
        pytest.param("Pod", {"metadata.labels": {"a": None}}, "metadata.labels.a", "is null", id="null as label"),
        pytest.param(
            "Pod",
            {"metadata.annotations": {"a b": ""}},
            "metadata.annotations[a b]",
            "the key",
            id="an annotation's key",
        ),
        pytest.param(
            "Pod",
            {"metadata.annotations": {"a": "x" * 2**18}},
            "metadata.annotations",
            "262144 are",
            id="long annotations",
        ),
        pytest.param(
            "Pod",
            {"metadata.annotations": {"trafficplane.dev/app": "shop.py"}},
            "metadata.annotations[trafficplane.dev/app]",
            "module:attribute",
            id="no Python app",
        ),
        # Service.
        pytest.param("Service", {"spec": MISSING}, "spec", "is required", id="a Service without spec"),
        pytest.param("Service", {"spec.ports": []}, "spec.ports", "at least one port", id="no ports"),
        pytest.param("Service", {"spec.type": "Clusterip"}, "spec.type", "ClusterIP, NodePort", id="no type"),
        pytest.param("Service", {"spec.ports.0.port": 0}, "spec.ports[0].port", "from 1 to 65535", id="port 0"),
        pytest.param("Service", {"spec.ports.0.port": 65536}, "spec.ports[0].port", "from 1 to 65535", id="port 65536"),
        pytest.param(
            "Service",
            {"spec.ports.0.targetPort": 70000},
            "spec.ports[0].targetPort",
            "out of range",
            id="a target port",
        ),
        pytest.param(
            "Service",
            {"spec.ports.0.targetPort": "8080"},
            "spec.ports[0].targetPort",
            "without quotes",
            id="a quoted target",
        ),
        pytest.param(
            "Service",
            {"spec.ports.0.targetPort": "Web"},
            "spec.ports[0].targetPort",
            "no port name",
            id="a target's name",
        ),
        pytest.param(
            "Service",
            {"spec.ports.0.targetPort": "a" * 16},
            "spec.ports[0].targetPort",
            "15 characters",
            id="a long one",
        ),
        pytest.param(
            "Service", {"spec.ports.0.protocol": "tcp"}, "spec.ports[0].protocol", "TCP, UDP", id="a protocol"
        ),
        pytest.param("Service", {"spec.ports.0.protocol": "SCTP"}, "spec.ports[0].protocol", "has no SCTP", id="SCTP"),
        pytest.param(
            "Service", {"spec.ports.0.name": "Http"}, "spec.ports[0].name", 'as in "http"', id="a port's name"
        ),
        pytest.param(
            "Service", {"spec.ports.0.appProtocol": "a b"}, "spec.ports[0].appProtocol", "letters", id="an appProtocol"
        ),
        pytest.param(
            "Service",
            {"spec.ports.0.nodePort": 30000},
            "spec.ports[0].nodePort",
            "with type ClusterIP",
            id="no node port",
        ),
        pytest.param(
            "Service",
            {"spec.type": "NodePort", "spec.ports.0.nodePort": 80},
            "spec.ports[0].nodePort",
            "30000 to 32767",
            id="a low one",
        ),
        pytest.param(
            "Service",
            {"spec.ports": [{"name": "a", "port": 80}, {"port": 81}]},
            "spec.ports[1].name",
            "several ports",
            id="a port without name",
        ),
        pytest.param(
            "Service",
            {"spec.ports": [{"name": "a", "port": 80}, {"name": "a", "port": 81}]},
            "spec.ports[1].name",
            "also that of spec.ports[0]",
            id="a name twice",
        ),
        pytest.param(
            "Service",
            {"spec.ports": [{"name": "a", "port": 80}, {"name": "b", "port": 80, "protocol": "TCP"}]},
            "spec.ports[1].port",
            "80/TCP is also that of spec.ports[0]",
            id="a port twice",
        ),
        pytest.param("Service", {"spec.selector": {"app": "a b"}}, "spec.selector.app", 'as in "a-b"', id="a selector"),
        pytest.param(
            "Service", {"spec.selector": {"app": None}}, "spec.selector.app", "is null", id="a selector of null"
        ),
        pytest.param("Service", {"spec.clusterIP": "10.0.0"}, "spec.clusterIP", "is no IP address", id="no address"),
        pytest.param("Service", {"spec.clusterIP": "fd00::1"}, "spec.clusterIP", "IPv4 only", id="an IPv6 address"),
        pytest.param(
            "Service",
            {"spec.clusterIPs": ["10.0.0.1", "10.0.0.2"]},
            "spec.clusterIPs",
            "one address",
            id="two addresses",
        ),
        pytest.param(
            "Service",
            {"spec.clusterIP": "10.0.0.1", "spec.clusterIPs": ["10.0.0.2"]},
            "spec.clusterIPs[0]",
            "the same as spec.clusterIP",
            id="two opinions on the address",
        ),
        pytest.param(
            "Service",
            {"spec.type": "LoadBalancer", "spec.clusterIP": "None"},
            "spec.clusterIP",
            "cannot go",
            id="headless",
        ),
        pytest.param("Service", {"spec.ipFamilies": ["IPv6"]}, "spec.ipFamilies[0]", "IPv4 only", id="the family IPv6"),
        pytest.param(
            "Service", {"spec.ipFamilyPolicy": "RequireDualStack"}, "spec.ipFamilyPolicy", "IPv4 only", id="dual stack"
        ),
        pytest.param(
            "Service", {"spec": {"type": "ExternalName"}}, "spec.externalName", "is required", id="no external name"
        ),
        pytest.param(
            "Service",
            {"spec": {"type": "ExternalName", "externalName": "a_b"}},
            "spec.externalName",
            'as in "a-b"',
            id="no DNS name",
        ),
        pytest.param(
            "Service",
            {"spec": {"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.0.0.1"}},
            "spec.clusterIP",
            "has no address",
            id="an ExternalName's address",
        ),
        pytest.param(
            "Service", {"spec.sessionAffinity": "clientip"}, "spec.sessionAffinity", "ClientIP", id="an affinity"
        ),
        pytest.param(
            "Service",
            {"spec.sessionAffinity": "ClientIP", "spec.sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86401}}},
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
            "from 1 to 86400",
            id="a day and a second",
        ),
        pytest.param(
            "Service",
            {"spec.sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}},
            "spec.sessionAffinityConfig",
            "goes with sessionAffinity ClientIP",
            id="a timeout of no affinity",
        ),
        pytest.param(
            "Service", {"spec.internalTrafficPolicy": "local"}, "spec.internalTrafficPolicy", "Local", id="a policy"
        ),
        pytest.param(
            "Service",
            {"spec.externalTrafficPolicy": "Local"},
            "spec.externalTrafficPolicy",
            "NodePort",
            id="a policy for outside",
        ),
        pytest.param(
            "Service",
            {"spec.trafficDistribution": "Near"},
            "spec.trafficDistribution",
            "PreferSameNode",
            id="a distribution",
        ),
        pytest.param(
            "Service", {"spec.externalIPs": ["a"]}, "spec.externalIPs[0]", "is no IP address", id="an external address"
        ),
        pytest.param(
            "Service",
            {"spec.type": "LoadBalancer", "spec.loadBalancerSourceRanges": ["10.0.0.0/33"]},
            "spec.loadBalancerSourceRanges[0]",
            "10.0.0.0/8",
            id="a source range",
        ),
        pytest.param(
            "Service",
            {"spec.loadBalancerClass": "a/b"},
            "spec.loadBalancerClass",
            "LoadBalancer",
            id="a class of no use",
        ),
        pytest.param(
            "Service", {"spec.healthCheckNodePort": 80}, "spec.healthCheckNodePort", "Local", id="a health check"
        ),
        pytest.param(
            "Service",
            {"metadata.annotations": {"trafficplane.dev/lb-algorithm": "fastest"}},
            "metadata.annotations[trafficplane.dev/lb-algorithm]",
            "random, rr, wrr, lc",
            id="an algorithm",
        ),
        *(
            pytest.param(
                "Service",
                {"metadata.annotations": {"trafficplane.dev/slow-start": text}},
                "metadata.annotations[trafficplane.dev/slow-start]",
                "1s to 18h; write one such as 30s, 2m or 1m30s",
                id=f"slow start for {what}",
            )
            for what, text in {
                "no time": "0s",
                "a number": "30",
                "too long": "18h1s",
                "less than seconds": "500ms",
                "days": "1d",
                "nothing": "",
                "some digits": "٣s",
            }.items()
        ),
        pytest.param(
            "Service",
            {"spec.loadBalancerIP": "127.200.0.5"},
            "spec.loadBalancerIP",
            "LoadBalancer",
            id="an IP of no use",
        ),
        pytest.param(
            "Pod",
            {"metadata.annotations": {"trafficplane.dev/weight": "heavy"}},
            "metadata.annotations[trafficplane.dev/weight]",
            "0 to 65535",
            id="a pod's weight",
        ),
        pytest.param(
            "Deployment",
            {"spec.template.metadata.annotations": {"pod.trafficplane.dev/service-time": "10"}},
            "spec.template.metadata.annotations[pod.trafficplane.dev/service-time]",
            "unit us, ms or s",
            id="a service time",
        ),
        pytest.param(
            "Pod",
            {"metadata.annotations": {"pod.trafficplane.dev/error-rate": "1%", "trafficplane.dev/app": "a:b"}},
            "metadata.annotations[pod.trafficplane.dev/error-rate]",
            "no effect on a Python app",
            id="behaviour of an app",
        ),
        pytest.param(
            "Deployment",
            {"spec.template.metadata.annotations": {"controller.kubernetes.io/pod-deletion-cost": "low"}},
            "spec.template.metadata.annotations[controller.kubernetes.io/pod-deletion-cost]",
            "a whole number",
            id="a deletion cost",
        ),
        pytest.param("Service", {"metadata.labels": {"a": "\ud800"}}, "", "surrogate", id="half a character"),
        # EndpointSlice.
        pytest.param(
            "EndpointSlice",
            {"metadata.annotations": {"service.cilium.io/weight": "heavy"}},
            "metadata.annotations[service.cilium.io/weight]",
            "0 to 65535",
            id="a weight",
        ),
        pytest.param("EndpointSlice", {"addressType": "IPv6"}, "addressType", "IPv4 only", id="IPv6 endpoints"),
        pytest.param("EndpointSlice", {"addressType": "FQDN"}, "addressType", "IPv4 only", id="names as endpoints"),
        pytest.param("EndpointSlice", {"addressType": "ipv4"}, "addressType", "IPv4", id="no address type"),
        pytest.param(
            "EndpointSlice", {"endpoints.0.addresses": []}, "endpoints[0].addresses", "1 to 100", id="no addresses"
        ),
        pytest.param(
            "EndpointSlice",
            {"endpoints.0.addresses": ["10.0.0.1"] * 101},
            "endpoints[0].addresses",
            "has 101",
            id="101 addresses",
        ),
        pytest.param(
            "EndpointSlice",
            {"endpoints.0.addresses.0": "::1"},
            "endpoints[0].addresses[0]",
            "IPv6 address",
            id="an address",
        ),
        pytest.param(
            "EndpointSlice",
            {"endpoints": [{"addresses": ["10.0.0.1"]}] * 1001},
            "endpoints",
            "1000",
            id="1001 endpoints",
        ),
        pytest.param("EndpointSlice", {"ports.0.port": 0}, "ports[0].port", "from 1 to 65535", id="an endpoint's port"),
        pytest.param(
            "EndpointSlice", {"ports.0.protocol": "SCTP"}, "ports[0].protocol", "has no SCTP", id="an endpoint's SCTP"
        ),
        pytest.param(
            "EndpointSlice",
            {"ports": [{"port": 1}, {"port": 2}]},
            "ports[1].name",
            "ports[0]",
            id="two ports without name",
        ),
        # Workloads.
        pytest.param("Pod", {"spec": MISSING}, "spec", "is required", id="a Pod without spec"),
        pytest.param("Pod", {"spec.containers": []}, "spec.containers", "at least one container", id="no containers"),
        pytest.param("Pod", {"spec.containers": MISSING}, "spec.containers", "is required", id="no field containers"),
        pytest.param(
            "Pod", {f"{CONTAINER}.name": "C"}, "spec.containers[0].name", 'as in "c"', id="a container's name"
        ),
        pytest.param("Pod", {f"{CONTAINER}.name": ""}, "spec.containers[0].name", "is empty", id="an empty name"),
        pytest.param("Pod", {f"{CONTAINER}.image": MISSING}, "spec.containers[0].image", "is required", id="no image"),
        pytest.param(
            "Pod", {f"{CONTAINER}.image": "a "}, "spec.containers[0].image", "space", id="a space in an image"
        ),
        pytest.param(
            "Pod",
            {"spec.containers.1": {"name": "c", "image": "i"}},
            "spec.containers[1].name",
            "spec.containers[0]",
            id="a container twice",
        ),
        pytest.param(
            "Pod",
            {"spec.initContainers": [{"name": "c", "image": "i"}]},
            "spec.containers[0].name",
            "spec.initContainers[0]",
            id="an init container of the same name",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.ports.0.containerPort": 0},
            "spec.containers[0].ports[0].containerPort",
            "1 to",
            id="a port",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.ports.0.name": "80"},
            "spec.containers[0].ports[0].name",
            "no letter",
            id="a number as name",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.ports.0.protocol": "Tcp"},
            "spec.containers[0].ports[0].protocol",
            "TCP",
            id="its protocol",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.ports.1": {"name": "http", "containerPort": 81}},
            "spec.containers[0].ports[1].name",
            "ports[0]",
            id="a port's name twice",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.imagePullPolicy": "No"},
            "spec.containers[0].imagePullPolicy",
            "Never",
            id="a pull policy",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.resources.limits.cpu": "a lot"},
            "spec.containers[0].resources.limits.cpu",
            "500m",
            id="a quantity",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.volumeMounts": [{"name": "v", "mountPath": "/"}]},
            "spec.containers[0].volumeMounts[0].name",
            "no volume",
            id="a mount",
        ),
        pytest.param(
            "Pod",
            {"spec.volumes": [{"name": "v"}, {"name": "v"}]},
            "spec.volumes[1].name",
            "volumes[0]",
            id="a volume twice",
        ),
        pytest.param("Pod", {"spec.restartPolicy": "always"}, "spec.restartPolicy", "Always", id="a restart policy"),
        pytest.param("Pod", {"spec.dnsPolicy": "Cluster"}, "spec.dnsPolicy", "ClusterFirst", id="a DNS policy"),
        pytest.param(
            "Pod", {"spec.dnsPolicy": "None"}, "spec.dnsConfig.nameservers", "is required", id="no name server"
        ),
        pytest.param(
            "Pod",
            {"spec.dnsConfig": {"nameservers": ["fd00::1"]}},
            "spec.dnsConfig.nameservers[0]",
            "has IPv4 only",
            id="an IPv6 name server",
        ),
        pytest.param(
            "Pod",
            {"spec.dnsConfig": {"nameservers": ["10.0.0.1"] * 4}},
            "spec.dnsConfig.nameservers",
            "has 4 and 3 are allowed",
            id="four name servers",
        ),
        pytest.param(
            "Pod",
            {"spec.dnsConfig": {"searches": ["a..b"]}},
            "spec.dnsConfig.searches[0]",
            "a..b",
            id="a search path",
        ),
        pytest.param(
            "Pod",
            {"spec.dnsConfig": {"options": [{"name": "ndots", "value": "many"}]}},
            "spec.dnsConfig.options[0].value",
            "is no number",
            id="an option of resolvers",
        ),
        pytest.param(
            "Pod",
            {"spec.hostAliases": [{"ip": "10.0.0", "hostnames": ["a"]}]},
            "spec.hostAliases[0].ip",
            "is no IP address",
            id="an alias's address",
        ),
        pytest.param(
            "Pod",
            {"spec.hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a_b"]}]},
            "spec.hostAliases[0].hostnames[0]",
            "a_b",
            id="an alias's name",
        ),
        pytest.param(
            "Pod",
            {"spec.terminationGracePeriodSeconds": -1},
            "spec.terminationGracePeriodSeconds",
            "0 or more",
            id="a grace",
        ),
        pytest.param(
            "Pod", {"spec.nodeSelector": {"a": "b c"}}, "spec.nodeSelector.a", 'as in "b-c"', id="a node selector"
        ),
        pytest.param("Pod", {"spec.nodeName": "A"}, "spec.nodeName", 'as in "a"', id="a node's name"),
        pytest.param("Pod", {"spec.hostname": "a.b"}, "spec.hostname", 'as in "a-b"', id="a host name"),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.readinessProbe": {}},
            "spec.containers[0].readinessProbe",
            "no handler",
            id="an empty probe",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.readinessProbe": {**PROBE, "tcpSocket": {"port": 80}}},
            "spec.containers[0].readinessProbe",
            "2 handlers (httpGet, tcpSocket)",
            id="two handlers",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.readinessProbe": {**PROBE, "periodSeconds": -1}},
            "spec.containers[0].readinessProbe.periodSeconds",
            "0 or more",
            id="a negative period",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.livenessProbe": {**PROBE, "successThreshold": 2}},
            "spec.containers[0].livenessProbe.successThreshold",
            "must be 1",
            id="two successes to be alive",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.readinessProbe": {**PROBE, "terminationGracePeriodSeconds": 1}},
            "spec.containers[0].readinessProbe.terminationGracePeriodSeconds",
            "leave it out",
            id="a grace for readiness",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.readinessProbe": {"httpGet": {"port": 0, "scheme": "HTTP"}}},
            "spec.containers[0].readinessProbe.httpGet.port",
            "from 1 to 65535",
            id="a probe's port",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.readinessProbe": {"httpGet": {"port": 80, "scheme": "https"}}},
            "spec.containers[0].readinessProbe.httpGet.scheme",
            "HTTPS",
            id="a probe's scheme",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.readinessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "a b", "value": ""}]}}},
            "spec.containers[0].readinessProbe.httpGet.httpHeaders[0].name",
            "no name of a header",
            id="a probe's header",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.env": [{"name": "A=B"}]},
            "spec.containers[0].env[0].name",
            'without "="',
            id="a variable",
        ),
        pytest.param(
            "Pod",
            {
                f"{CONTAINER}.env": [
                    {"name": "A", "value": "b", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
                ]
            },
            "spec.containers[0].env[0].valueFrom",
            "together with value",
            id="value and valueFrom",
        ),
        pytest.param(
            "Pod", {f"{CONTAINER}.env": variable()}, "spec.containers[0].env[0].valueFrom", "0 sources", id="no source"
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.env": variable(fieldRef={"fieldPath": "spec.hostNetwork"})},
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath",
            "metadata.labels['KEY']",
            id="a field that is not offered",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.env": variable(configMapKeyRef={"name": "a", "key": "b"})},
            "spec.containers[0].env[0].valueFrom.configMapKeyRef",
            "or optional: true",
            id="a value from a ConfigMap",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.env": variable(resourceFieldRef={"resource": "limits.cpu"})},
            "spec.containers[0].env[0].valueFrom.resourceFieldRef",
            "write the value itself",
            id="a value from a limit",
        ),
        pytest.param(
            "Pod",
            {f"{CONTAINER}.envFrom": [{"secretRef": {"name": "a"}}]},
            "spec.containers[0].envFrom[0].secretRef",
            "under env",
            id="a Secret's",
        ),
        pytest.param("Deployment", {"spec": MISSING}, "spec", "is required", id="a Deployment without spec"),
        pytest.param("Deployment", {"spec.replicas": -1}, "spec.replicas", "0 or more", id="replicas"),
        pytest.param("Deployment", {"spec.selector": {}}, "spec.selector", "selects nothing", id="an empty selector"),
        pytest.param(
            "ReplicaSet",
            {"spec.selector.matchLabels.app": "b"},
            "spec.template.metadata.labels",
            "does not match",
            id="another label",
        ),
        pytest.param(
            "Deployment",
            {"spec.selector": {"matchExpressions": [{"key": "app", "operator": "In"}]}},
            "spec.selector.matchExpressions[0].values",
            "at least one value",
            id="In without values",
        ),
        pytest.param(
            "Deployment",
            {"spec.template.spec": MISSING},
            "spec.template.spec",
            "with containers",
            id="a template without spec",
        ),
        pytest.param(
            "Deployment",
            {"spec.template.spec.restartPolicy": "Never"},
            "spec.template.spec.restartPolicy",
            "Always",
            id="never restarted",
        ),
        pytest.param(
            "Deployment", {"spec.strategy.type": "BlueGreen"}, "spec.strategy.type", "Recreate", id="a strategy"
        ),
        pytest.param(
            "Deployment",
            {"spec.strategy": {"type": "Recreate", "rollingUpdate": {"maxSurge": 1}}},
            "spec.strategy.rollingUpdate",
            "goes with type RollingUpdate",
            id="a surge of no use",
        ),
        pytest.param(
            "Deployment",
            {"spec.strategy.rollingUpdate": {"maxSurge": "1"}},
            "spec.strategy.rollingUpdate.maxSurge",
            "25%",
            id="a surge",
        ),
        pytest.param(
            "Deployment",
            {"spec.strategy.rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}},
            "spec.strategy.rollingUpdate.maxUnavailable",
            "nothing could move",
            id="an update that cannot move",
        ),
        pytest.param(
            "Deployment",
            {"spec.progressDeadlineSeconds": 5, "spec.minReadySeconds": 5},
            "spec.progressDeadlineSeconds",
            "more than minReadySeconds",
            id="a short deadline",
        ),
        pytest.param("ReplicaSet", {"spec.template": None}, "spec.template", "is required", id="no template"),
        # Ingress.
        pytest.param("Ingress", {"spec": {}}, "spec", "add one of them", id="neither rules nor defaultBackend"),
        pytest.param("Ingress", {"spec": MISSING}, "spec", "add one of them", id="an Ingress without spec"),
        pytest.param(
            "Ingress",
            {f"{PATH}.pathType": MISSING},
            "spec.rules[0].http.paths[0].pathType",
            "write Exact",
            id="no pathType",
        ),
        pytest.param(
            "Ingress", {f"{PATH}.pathType": "prefix"}, "spec.rules[0].http.paths[0].pathType", "Prefix", id="a pathType"
        ),
        pytest.param(
            "Ingress", {f"{PATH}.path": MISSING}, "spec.rules[0].http.paths[0].path", "is required", id="no path"
        ),
        pytest.param(
            "Ingress",
            {f"{PATH}.path": "a"},
            "spec.rules[0].http.paths[0].path",
            'such as "/a"',
            id="a path without slash",
        ),
        pytest.param(
            "Ingress", {f"{PATH}.path": "/a//b"}, "spec.rules[0].http.paths[0].path", 'holds "//"', id="two slashes"
        ),
        pytest.param(
            "Ingress", {f"{PATH}.path": "/a/../b"}, "spec.rules[0].http.paths[0].path", 'holds "/../"', id="dots inside"
        ),
        pytest.param(
            "Ingress",
            {f"{PATH}.path": "/a/.."},
            "spec.rules[0].http.paths[0].path",
            'ends in "/.."',
            id="dots at the end",
        ),
        pytest.param(
            "Ingress", {f"{PATH}.path": "/a%2Fb"}, "spec.rules[0].http.paths[0].path", 'holds "%2F"', id="a coded slash"
        ),
        pytest.param(
            "Ingress",
            {f"{PATH}.path": "a", f"{PATH}.pathType": "ImplementationSpecific"},
            "spec.rules[0].http.paths[0].path",
            "does not begin with /",
            id="a free path without slash",
        ),
        pytest.param(
            "Ingress", {"spec.rules.0.http.paths": []}, "spec.rules[0].http.paths", "at least one", id="no paths"
        ),
        pytest.param(
            "Ingress", {f"{PATH}.backend": {}}, "spec.rules[0].http.paths[0].backend", "is empty", id="an empty backend"
        ),
        pytest.param(
            "Ingress",
            {f"{PATH}.backend": {"resource": {"kind": "a", "name": "b"}}},
            "spec.rules[0].http.paths[0].backend.resource",
            "no resource backends",
            id="a resource backend",
        ),
        pytest.param(
            "Ingress",
            {f"{PATH}.backend.resource": {"kind": "a", "name": "b"}},
            "spec.rules[0].http.paths[0].backend",
            "both service and resource",
            id="two backends",
        ),
        pytest.param(
            "Ingress",
            {f"{PATH}.backend.service.port": MISSING},
            "spec.rules[0].http.paths[0].backend.service.port",
            "the name or the number",
            id="no port of a backend",
        ),
        pytest.param(
            "Ingress",
            {f"{PATH}.backend.service.port": {"name": "http", "number": 80}},
            "spec.rules[0].http.paths[0].backend.service.port",
            "both name and number",
            id="a port by name and number",
        ),
        pytest.param(
            "Ingress",
            {f"{PATH}.backend.service.port.number": 65536},
            "spec.rules[0].http.paths[0].backend.service.port.number",
            "from 1 to 65535",
            id="a backend's port",
        ),
        pytest.param(
            "Ingress",
            {f"{PATH}.backend.service.name": ""},
            "spec.rules[0].http.paths[0].backend.service.name",
            "is required",
            id="a backend's name",
        ),
        pytest.param(
            "Ingress",
            {
                f"{PATH}.backend": {
                    "serviceName": "a",
                    "servicePort": 80,
                    "service": {"name": "a", "port": {"number": 1}},
                }
            },
            "spec.rules[0].http.paths[0].backend.serviceName",
            "did you mean service?",
            id="the backend of extensions/v1beta1",
        ),
        pytest.param(
            "Ingress", {"spec.rules.0.host": "10.0.0.1"}, "spec.rules[0].host", "an IP address", id="an address as host"
        ),
        pytest.param(
            "Ingress", {"spec.rules.0.host": "a.com:80"}, "spec.rules[0].host", 'write "a.com"', id="a port in a host"
        ),
        pytest.param(
            "Ingress",
            {"spec.rules.0.host": "https://a.com"},
            "spec.rules[0].host",
            "its host name only",
            id="a URL as host",
        ),
        pytest.param("Ingress", {"spec.rules.0.host": "*"}, "spec.rules[0].host", "leave host out", id="a star"),
        pytest.param(
            "Ingress", {"spec.rules.0.host": "a.*.com"}, "spec.rules[0].host", "*.example.com", id="a star inside"
        ),
        pytest.param(
            "Ingress", {"spec.rules.0.host": "*.*.com"}, "spec.rules[0].host", "*.example.com", id="two stars"
        ),
        pytest.param(
            "Ingress", {"spec.rules.0.host": "A.com"}, "spec.rules[0].host", 'as in "a.com"', id="a host in capitals"
        ),
        pytest.param(
            "Ingress", {"spec.tls.0.hosts.0": "a_b"}, "spec.tls[0].hosts[0]", 'as in "a-b"', id="a certificate's host"
        ),
        pytest.param(
            "Ingress",
            {"spec.tls.0.secretName": "A"},
            "spec.tls[0].secretName",
            'as in "a"',
            id="a certificate's Secret",
        ),
        pytest.param("Ingress", {"spec.ingressClassName": "A"}, "spec.ingressClassName", 'as in "a"', id="a class"),
        pytest.param(
            "Ingress",
            {"spec.ingressClassName": "a", "metadata.annotations": {"kubernetes.io/ingress.class": "a"}},
            "metadata.annotations[kubernetes.io/ingress.class]",
            "keep one of them",
            id="a class twice",
        ),
        pytest.param(
            "IngressClass", {"spec.controller": "nginx"}, "spec.controller", "k8s.io/ingress-nginx", id="a controller"
        ),
        # Secret.
        pytest.param("Secret", {"data.a": "plain text"}, "data.a", "under stringData", id="no base64"),
        pytest.param("Secret", {"data.a b": "eA=="}, "data[a b]", "the key", id="a Secret's key"),
        pytest.param("Secret", {"stringData.a": "x" * 2**20}, "data", "1048576 are allowed", id="a large Secret"),
        pytest.param(
            "Secret",
            {"type": "kubernetes.io/tls", "data.tls~crt": "eA=="},
            "data[tls.key]",
            "is required",
            id="a certificate without key",
        ),
        # ConfigMap.
        pytest.param("ConfigMap", {"data.a b": "x"}, "data[a b]", "the key", id="a ConfigMap's key"),
        pytest.param("ConfigMap", {"binaryData.c": "x y"}, "binaryData.c", "under data", id="binary data"),
        pytest.param("ConfigMap", {"data.c": "x"}, "binaryData.c", "a key of data too", id="a key twice"),
        pytest.param("ConfigMap", {"data.a": "x" * 2**20}, "data", "1048576 are allowed", id="a large ConfigMap"),
    ],
)
def test_what_is_wrong_is_named_with_field_and_remedy(kind: str, edits: dict[str, Any], field: str, said: str) -> None:
    found = check(edited(sound(kind), edits), file="a.yaml", document=7)
    by_field = {problem.field: problem for problem in found}
    assert field in by_field, found
    assert said in by_field[field].reason
    assert (by_field[field].file, by_field[field].document) == ("a.yaml", 7)
    # One mistake is said once; only a Service's old-style backend and a missing name make two of one edit.
    assert len(found) == len(by_field) <= 2, found


def test_everything_wrong_with_an_object_is_found_at_once() -> None:
    service = edited(
        sound("Service"),
        {
            "metadata.name": "A",
            "metadata.labels": {"a": 1, "b": "c d"},
            "spec.ports.0.port": "http",
            "spec.ports.0.nodePort": 30000,
            "spec.ports.0.portocol": "TCP",
            "spec.sessionAffinity": "yes",
        },
    )
    assert {problem.field for problem in check(service)} == {
        "metadata.name",
        "metadata.labels.a",
        "metadata.labels.b",
        "spec.ports[0].port",
        "spec.ports[0].nodePort",
        "spec.ports[0].portocol",
        "spec.sessionAffinity",
    }
    assert {problem.object for problem in check(service)} == {"Service default/A"}


def test_a_secret_is_not_repeated_in_the_message() -> None:
    (problem,) = check(edited(sound("Secret"), {"data.a": "hunter 2"}))
    assert "hunter" not in problem.reason


@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        ({"apiVersion": "v1", "kind": "LimitRange"}, True),
        ({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway"}, True),
        ({"apiVersion": "serving.knative.dev/v1", "kind": "Service"}, True),
        ({"apiVersion": "extensions/v1beta1", "kind": "Ingress"}, False),
        ({"apiVersion": "apps/v1beta1", "kind": "Deployment"}, False),
        ({"apiVersion": "networking.k8s.io/v1beta1", "kind": "Ingress"}, False),
        ({"kind": "Pod"}, False),
    ],
)
def test_a_kind_of_another_group_is_foreign_and_one_of_the_past_is_not(obj: dict, expected: bool) -> None:
    assert foreign(obj) == expected


def test_what_kubernetes_has_and_the_plane_has_not_passes_a_lenient_check() -> None:
    service = edited(sound("Service"), {"spec.ports.0.protocol": "SCTP", "spec.newField": 1, "spec.ports.0.port": 0})
    assert [problem.field for problem in check(service, lenient=True)] == ["spec.ports[0].port"]


def test_addresses_of_ipv6_pass_a_lenient_check_and_what_is_none_does_not() -> None:
    both = {"spec.clusterIP": "fd00::1", "spec.clusterIPs": ["fd00::1", "10.0.0.1"], "spec.externalIPs": ["fd00::2"]}
    families = {"spec.ipFamilies": ["IPv6", "IPv4"], "spec.ipFamilyPolicy": "RequireDualStack"}
    assert check(edited(sound("Service"), both | families), lenient=True) == []
    assert check(edited(sound("EndpointSlice"), {"addressType": "IPv6"}), lenient=True) == []
    wrong = edited(sound("Service"), {"spec.clusterIP": "fd00::g", "spec.externalIPs": ["10.0.0"]})
    assert {problem.field for problem in check(wrong, lenient=True)} == {"spec.clusterIP", "spec.externalIPs[0]"}


def test_the_algorithms_are_those_of_the_kernels() -> None:
    assert services.ALGORITHMS == ALGORITHMS


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5) | st.just("http"),
    lambda rows: (
        st.lists(rows, max_size=2) | st.dictionaries(st.text(max_size=5) | st.sampled_from(["name", "port"]), rows)
    ),
    max_leaves=5,
)


def places(value: Any, steps: tuple = ()) -> list[tuple]:
    rows = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, row in rows for found in ((*steps, key), *places(row, (*steps, key)))]


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_no_object_makes_the_check_fail_and_what_passes_can_be_run(data: st.DataObject) -> None:
    """Whatever stands at any place of an object: it is judged without an exception, and what passes is usable."""
    obj = sound(data.draw(st.sampled_from(sorted(SOUND))))
    for _ in range(data.draw(st.integers(1, 2))):
        *path, last = data.draw(st.sampled_from(places(obj)))
        holder: Any = obj
        for step in path:
            holder = holder[step]
        holder[last] = data.draw(ANYTHING)
    if check(obj):
        return
    full = defaulted(obj)
    assert defaulted(full) == full
    assert check(full) == []
    if obj["kind"] == "Service":
        Service.of(full)
    elif obj["kind"] == "EndpointSlice":
        list(endpoints_of(full))
    elif obj["kind"] == "Pod":
        for container in full["spec"]["containers"]:
            environment.resolve(full, container)


NGINX, TRAEFIK = "nginx.ingress.kubernetes.io/", "traefik.ingress.kubernetes.io/"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("ssl-redirect", "yes", '"yes" is not allowed; write "true" or "false"'),
        ("ssl-redirect", "", 'is empty; write "true" or "false"'),
        ("permanent-redirect", "/here", '"/here" is not allowed; write a URL, as in "https://example.com/"'),
        ("temporal-redirect", "https://a.com/$args", "$args is not known here"),
        ("permanent-redirect-code", "200", "write one of 301, 302, 303, 307, 308"),
        ("app-root", "app", "write a path that begins with /"),
        ("server-alias", "https://a.com,~^b", "write names of hosts with commas between"),
        ("server-alias", "~^(?!www)", "which has no lookaround and no backreferences"),
        ("rewrite-target", "/a b", "write a path of letters, digits"),
        ("rewrite-target", "/$1\r\nX: y", "write a path of letters, digits"),
        ("upstream-vhost", "a\r\nX: y", "write a host"),
        ("canary-weight", "10%", 'write a whole number from 0 upwards, as in "1"'),
        ("canary-weight", "101", '"101" is more than the total, 100; write a number from 0 to 100'),
        ("canary-by-header", "X Canary", "write the name of a header or cookie"),
        ("canary-by-header-pattern", "(?!x)", "which has no lookaround and no backreferences"),
        ("whitelist-source-range", "10.0.0.0/33", 'as in "10.0.0.0/8,192.0.2.7"'),
        ("whitelist-source-range", ",", "write at least one address or network"),
        ("proxy-body-size", "8 MiB", 'as in "8m"'),
        ("proxy-read-timeout", "60s", "write a whole number from 1 to 86400"),
        ("proxy-next-upstream", "error http_501", "write some of: error timeout invalid_header http_500"),
        ("cors-allow-origin", "example.com", 'as in "https://example.com, https://*.example.org"'),
        ("cors-allow-headers", "X-One\r\nX: y", "write names with commas between"),
        ("auth-type", "digest", "write basic"),
        ("auth-realm", 'a"b', 'write text without " and'),
        ("session-cookie-path", "/;Domain=x", "write text without spaces"),
        ("session-cookie-samesite", "maybe", "write one of none, lax, strict"),
        ("affinity", "ip", "write cookie"),
        ("upstream-hash-by", "$geoip", "$geoip is not known here; write variables, of $scheme"),
        ("upstream-hash-by", "all", "write variables"),
    ],
)
def test_a_bad_value_of_an_annotation_is_refused_by_its_name(name: str, value: str, said: str) -> None:
    obj = sound("Ingress")
    obj["metadata"]["annotations"] = {f"{NGINX}{name}": value}
    (problem,) = [row for row in check(obj) if "does nothing without" not in row.reason]
    assert problem.object == "Ingress default/a"
    assert problem.field == f"metadata.annotations[{NGINX}{name}]"
    assert said in problem.reason
    assert check(obj, lenient=True) == []


@pytest.mark.parametrize(
    ("kind", "name", "value", "said"),
    [
        ("Ingress", f"{TRAEFIK}router.entrypoints", "web,metrics", "write some of web, websecure, with commas between"),
        ("Ingress", f"{TRAEFIK}router.entryPoints", "", "is empty; write some of web, websecure"),
        ("Ingress", f"{TRAEFIK}router.priority", "high", "write a whole number from -2147483647"),
        ("Ingress", f"{TRAEFIK}router.tls", "on", 'write "true" or "false"'),
        ("Ingress", f"{TRAEFIK}router.pathmatcher", "PathRegex", "write one of Path, PathPrefix, PathRegexp"),
        ("Service", f"{TRAEFIK}service.passhostheader", "no", 'write "true" or "false"'),
        ("Service", f"{TRAEFIK}service.sticky.cookie.name", "a b", "write the name of a header or cookie"),
        ("Service", f"{TRAEFIK}service.sticky.cookie.samesite", "maybe", "write one of none, lax, strict"),
        ("Service", f"{TRAEFIK}service.sticky.cookie.path", "/;Secure", "write text without spaces"),
        ("Ingress", "konghq.com/strip-path", "maybe", 'write "true" or "false"'),
        ("Ingress", "konghq.com/methods", "GET,P0ST", 'as in "GET,POST"'),
        ("Ingress", "konghq.com/protocols", "grpc", "write some of http, https, with commas between"),
        ("Ingress", "konghq.com/https-redirect-status-code", "303", "write one of 426, 301, 302, 307, 308"),
        ("Ingress", "konghq.com/https-redirect-status-code", "301", "does nothing without konghq.com/protocols"),
        ("Ingress", "konghq.com/host-aliases", "https://a.com", "write names of hosts with commas between"),
        ("Ingress", "konghq.com/headers.X-A", "~*(?=a)", "which has no lookaround"),
        ("Ingress", "konghq.com/headers-separator", ";", "does nothing without konghq.com/headers.*"),
        ("Ingress", "konghq.com/rewrite", "a b", "write a path of letters"),
        ("Ingress", "konghq.com/regex-priority", "-1", "write a whole number from 0 upwards"),
        ("Service", "konghq.com/path", "a", 'as in "/app"'),
        ("Service", "konghq.com/host-header", "a\r\nX: y", "write a host"),
        ("Service", "konghq.com/connect-timeout", "1s", "write a whole number from 1 to 2147483646"),
        ("Service", "konghq.com/retries", "many", "write a whole number from 0 to 32767"),
    ],
)
def test_a_bad_value_of_traefiks_or_kongs_is_refused_by_its_name(kind: str, name: str, value: str, said: str) -> None:
    obj = sound(kind)
    obj["metadata"]["annotations"] = {name: value}
    (problem,) = check(obj)
    assert problem.object == f"{kind} default/a"
    assert problem.field == f"metadata.annotations[{name}]"
    assert said in problem.reason
    assert check(obj, lenient=True) == []


@pytest.mark.parametrize(
    "name", ["configuration-snippet", "server-snippet", "stream-snippet", "auth-snippet", "modsecurity-snippet"]
)
def test_snippets_are_refused_by_name(name: str) -> None:
    obj = sound("Ingress")
    obj["metadata"]["annotations"] = {f"{NGINX}{name}": "return 200;"}
    (problem,) = check(obj)
    assert problem.field == f"metadata.annotations[{NGINX}{name}]"
    assert "there is no safe way to run it" in problem.reason


@pytest.mark.parametrize(
    ("name", "value", "other"),
    [
        ("canary-weight", "10", "canary"),
        ("auth-type", "basic", "auth-secret"),
        ("session-cookie-name", "a", "affinity"),
        ("cors-allow-origin", "*", "enable-cors"),
        ("x-forwarded-prefix", "/a", "rewrite-target"),
    ],
)
def test_an_annotation_that_does_nothing_alone_is_refused(name: str, value: str, other: str) -> None:
    obj = sound("Ingress")
    obj["metadata"]["annotations"] = {f"{NGINX}{name}": value}
    (problem,) = check(obj)
    assert f"does nothing without {NGINX}{other}" in problem.reason


@pytest.mark.parametrize("annotation", [{"use-regex": "true"}, {"rewrite-target": "/$1"}])
def test_paths_that_are_no_expressions_are_refused_where_they_must_be(annotation: dict[str, str]) -> None:
    edits = {f"{PATH}.path": "/a(?=b)", f"{PATH}.pathType": "ImplementationSpecific"}
    obj = edited(sound("Ingress"), edits)
    assert check(obj) == []
    obj["metadata"]["annotations"] = {NGINX + name: value for name, value in annotation.items()}
    (problem,) = check(obj)
    assert problem.field == "spec.rules[0].http.paths[0].path"
    assert "is a regular expression by the annotations, but invalid perl operator" in problem.reason
