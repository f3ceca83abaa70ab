"""The environment of a container: values, references between variables, and fields of the pod."""

from typing import Any

import pytest

from plane.environment import expand, field, offered, resolve

POD: dict[str, Any] = {
    "metadata": {
        "name": "web-1",
        "namespace": "shop",
        "uid": "u-1",
        "labels": {"app.kubernetes.io/name": "web"},
        "annotations": {"note": "it's"},
    },
    "spec": {"nodeName": "node-2"},
    "status": {"hostIP": "127.18.0.2", "podIP": "127.244.2.9", "podIPs": [{"ip": "127.244.2.9"}, {"ip": "fd00::9"}]},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(MISSING)", "$(MISSING)"),
        ("$A ${A} $", "$A ${A} $"),
        ("$(A", "$(A"),
        ("$()", "$()"),
        ("$(A$(B))", "$(A$(B))"),
        ("$$", "$"),
        ("", ""),
    ],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "web-1"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['app.kubernetes.io/name']", "web"),
        ("metadata.labels['other']", ""),
        ("metadata.annotations['note']", "it's"),
        ("spec.nodeName", "node-2"),
        ("spec.serviceAccountName", "default"),
        ("status.hostIP", "127.18.0.2"),
        ("status.hostIPs", "127.18.0.2"),
        ("status.podIP", "127.244.2.9"),
        ("status.podIPs", "127.244.2.9,fd00::9"),
    ],
)
def test_fields_of_the_pod(path: str, expected: str) -> None:
    assert offered(path)
    assert field(POD, path) == expected


@pytest.mark.parametrize("path", ["metadata.labels", "metadata.labels[a]", "spec.containers", "status.phase", ""])
def test_other_fields_are_not_offered(path: str) -> None:
    assert not offered(path)
    with pytest.raises(KeyError):
        field(POD, path)


def test_variables_see_those_before_them() -> None:
    env = [
        {"name": "LATER", "value": "$(POD)"},
        {"name": "POD", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
        {"name": "URL", "value": "http://$(POD):$(PORT)/"},
        {"name": "PORT", "value": "80"},
        {"name": "EMPTY"},
        {"name": "OPTIONAL", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}},
        {"name": "PORT", "value": "$(PORT)81"},
    ]
    assert resolve(POD, {"env": env}) == {
        "LATER": "$(POD)",
        "POD": "web-1",
        "URL": "http://web-1:$(PORT)/",
        "PORT": "8081",
        "EMPTY": "",
    }


def test_a_container_without_variables_has_none() -> None:
    assert resolve(POD, {}) == {}
