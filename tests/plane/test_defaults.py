"""Defaults: what the API server would fill in, and nothing that was written is changed."""

import base64
import copy
from typing import Any

import pytest

from plane.defaults import defaulted, pull_policy


def service(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec}


def pod(**container: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "nginx:1", **container}]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": containers}}


def test_a_service_gets_type_protocol_and_target_port() -> None:
    assert defaulted(service(ports=[{"port": 80}, {"port": 81, "targetPort": "web", "protocol": "UDP"}]))["spec"] == {
        "type": "ClusterIP",
        "sessionAffinity": "None",
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "ports": [
            {"port": 80, "protocol": "TCP", "targetPort": 80},
            {"port": 81, "protocol": "UDP", "targetPort": "web"},
        ],
    }


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"clusterIP": "None"}, {"clusterIP": "None", "clusterIPs": ["None"]}, id="headless"),
        pytest.param(
            {"clusterIPs": ["1.2.3.4"]}, {"clusterIP": "1.2.3.4", "clusterIPs": ["1.2.3.4"]}, id="by clusterIPs"
        ),
        pytest.param({"type": "NodePort"}, {"externalTrafficPolicy": "Cluster"}, id="a NodePort's policy"),
        pytest.param({"type": "LoadBalancer"}, {"allocateLoadBalancerNodePorts": True}, id="a LoadBalancer"),
        pytest.param(
            {"sessionAffinity": "ClientIP"},
            {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}},
            id="affinity",
        ),
        pytest.param({"type": "ExternalName"}, {"ipFamilies": None, "internalTrafficPolicy": None}, id="no address"),
    ],
)
def test_services_by_type(spec: dict[str, Any], expected: dict[str, Any]) -> None:
    found = defaulted(service(**spec))["spec"]
    assert {name: found.get(name) for name in expected} == expected


def test_a_pod_gets_policies_grace_and_probe_numbers() -> None:
    probe = {"httpGet": {"port": 80}, "periodSeconds": 0, "failureThreshold": 5}
    spec = defaulted(pod(readinessProbe=probe, ports=[{"containerPort": 80}]))["spec"]
    assert spec["restartPolicy"] == "Always"
    assert spec["terminationGracePeriodSeconds"] == 30
    (container,) = spec["containers"]
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert container["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert container["readinessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "periodSeconds": 10,
        "failureThreshold": 5,
        "timeoutSeconds": 1,
        "successThreshold": 1,
    }


def test_a_grace_of_zero_is_kept() -> None:
    obj = pod()
    obj["spec"]["terminationGracePeriodSeconds"] = 0
    assert defaulted(obj)["spec"]["terminationGracePeriodSeconds"] == 0


def test_a_deployment_gets_replicas_strategy_and_the_pod_defaults_of_its_template() -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    found = defaulted({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec})["spec"]
    assert found["replicas"] == 1
    assert found["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    assert (found["revisionHistoryLimit"], found["progressDeadlineSeconds"]) == (10, 600)
    assert found["template"]["spec"]["terminationGracePeriodSeconds"] == 30
    spec["replicas"] = 0
    spec["strategy"] = {"type": "Recreate"}
    found = defaulted({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": spec})["spec"]
    assert (found["replicas"], found["strategy"]) == (0, {"type": "Recreate"})


def test_text_of_a_secret_becomes_data_and_wins() -> None:
    obj = {
        "kind": "Secret",
        "metadata": {"name": "a"},
        "data": {"a": "eA==", "b": "eQ=="},
        "stringData": {"a": "zürich"},
    }
    found = defaulted(obj)
    assert base64.b64decode(found["data"]["a"]).decode() == "zürich"
    assert found["data"]["b"] == "eQ=="
    assert "stringData" not in found
    assert found["type"] == "Opaque"


def test_a_port_of_an_endpoint_slice_has_a_name_and_a_protocol() -> None:
    assert defaulted({"kind": "EndpointSlice", "ports": [{"port": 80}]})["ports"] == [
        {"name": "", "port": 80, "protocol": "TCP"}
    ]


def test_a_namespace_is_labelled_with_its_name() -> None:
    found = defaulted({"kind": "Namespace", "metadata": {"name": "a", "labels": {"b": "c"}}})
    assert found["metadata"]["labels"] == {"b": "c", "kubernetes.io/metadata.name": "a"}


def test_null_stands_for_a_field_that_is_not_there_and_the_original_is_left_alone() -> None:
    given = service(type=None, ports=[{"port": 80, "targetPort": None}], selector=None)
    before = copy.deepcopy(given)
    found = defaulted(given)
    assert given == before
    assert found["spec"]["type"] == "ClusterIP"
    assert found["spec"]["ports"][0]["targetPort"] == 80
    assert "selector" not in found["spec"]
    assert defaulted(found) == found


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("nginx:1.29", "IfNotPresent"),
        ("localhost:5000/nginx", "Always"),
        ("localhost:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:0123", "IfNotPresent"),
    ],
)
def test_the_pull_policy_follows_the_tag(image: str, policy: str) -> None:
    assert pull_policy(image) == policy
