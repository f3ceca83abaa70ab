"""explain tcp:// and udp://: kube-proxy's packet flows, on the addresses of some other cluster, from a dump of it."""

import io
import json
from typing import Any

import pytest

from plane import offline
from plane.errors import ManifestError
from plane.explain import FlowExplanation, explain
from plane.model import Object, Snapshot

PODS = {"a": ("10.180.0.1", "node-1"), "b": ("10.180.0.2", "node-1"), "c": ("10.180.1.1", "node-2")}


def service(**spec: Any) -> Object:
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080, "nodePort": 30080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "ns1", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"type": "LoadBalancer", "clusterIP": "172.30.0.41", "ports": ports, "selector": {"a": "b"}, **spec},
        "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}},
    }


def node(number: int, zone: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"node-{number}", "labels": {"topology.kubernetes.io/zone": zone}},
        "spec": {"podCIDR": f"10.180.{number - 1}.0/24"},
        "status": {"addresses": [{"type": "InternalIP", "address": f"192.168.0.{number}"}]},
    }


def slice_of(*rows: str, terminating: str = "", unready: str = "", hints: str = "") -> Object:
    def endpoint(name: str) -> Object:
        ip, at = PODS[name]
        conditions = {
            "ready": name not in terminating + unready,
            "serving": name not in unready,
            "terminating": name in terminating,
        }
        row = {"addresses": [ip], "conditions": conditions, "nodeName": at}
        zone = {"node-1": "east", "node-2": "west"}[at]
        return {**row, "hints": {"forZones": [{"name": zone}]}} if name in hints else row

    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "namespace": "ns1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [endpoint(name) for name in rows],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


def cluster(*objects: Object) -> Snapshot:
    """What ``kubectl get -o yaml`` of the cluster gives, with kinds that are none of ours in it."""
    items = [{"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "x"}}, node(1, "east"), node(2, "west")]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [*items, *objects]})
    return offline.snapshot(["-"], io.StringIO(text))


def names(found: FlowExplanation) -> str:
    by_address = {f"{ip}:8080": name for name, (ip, _) in PODS.items()}
    return "".join(by_address[each] for each in found.endpoints)


POD, NODE, OUTSIDE = "10.180.0.77", "192.168.0.1", "203.0.113.9"
CLUSTER_IP, NODE_PORT, BALANCER = "172.30.0.41:80", "192.168.0.1:30080", "1.2.3.4:80"
LOCAL = {"externalTrafficPolicy": "Local"}
ALL = slice_of("a", "b", "c")

# (spec of the Service, slice, address, client, node) → (verdict, policy, endpoints, masquerade)
FLOWS = {
    "a pod to the ClusterIP": (({}, ALL, CLUSTER_IP, POD, None), ("NEW", "Cluster", "abc", False)),
    "a node to the ClusterIP": (({}, ALL, CLUSTER_IP, NODE, None), ("NEW", "Cluster", "abc", True)),
    "somebody outside to the ClusterIP": (({}, ALL, CLUSTER_IP, OUTSIDE, "node-1"), ("NEW", "Cluster", "abc", True)),
    "a pod to a node port": (({}, ALL, NODE_PORT, POD, None), ("NEW", "Cluster", "abc", True)),
    "outside to a node port": (({}, ALL, NODE_PORT, OUTSIDE, None), ("NEW", "Cluster", "abc", True)),
    "outside to a balancer": (({}, ALL, BALANCER, OUTSIDE, "node-1"), ("NEW", "Cluster", "abc", True)),
    "outside to a node port of policy Local": ((LOCAL, ALL, NODE_PORT, OUTSIDE, None), ("NEW", "Local", "ab", False)),
    "outside to a balancer of policy Local, at node 2": (
        (LOCAL, ALL, BALANCER, OUTSIDE, "node-2"),
        ("NEW", "Local", "c", False),
    ),
    "a pod to a balancer of policy Local": ((LOCAL, ALL, BALANCER, POD, None), ("NEW", "Cluster", "abc", False)),
    "a node to a balancer of policy Local": ((LOCAL, ALL, BALANCER, NODE, None), ("NEW", "Cluster", "abc", True)),
    "policy Local without an endpoint at the node drops": (
        (LOCAL, slice_of("c"), NODE_PORT, OUTSIDE, None),
        ("DROP", "Local", "", False),
    ),
    "no endpoint anywhere rejects": (({}, slice_of(), CLUSTER_IP, POD, None), ("REJECT", "Cluster", "", False)),
    "no ready endpoint anywhere rejects": (
        (LOCAL, slice_of("a", unready="a"), NODE_PORT, OUTSIDE, None),
        ("REJECT", "Local", "", False),
    ),
    "only terminating ones that serve are used": (
        ({}, slice_of("a", "b", terminating="ab", unready="b"), CLUSTER_IP, POD, None),
        ("NEW", "Cluster", "a", False),
    ),
    "policy Local falls to terminating ones of the node": (
        (LOCAL, slice_of("a", "c", terminating="a"), NODE_PORT, OUTSIDE, None),
        ("NEW", "Local", "a", False),
    ),
    "internal policy Local": (
        ({"internalTrafficPolicy": "Local"}, ALL, CLUSTER_IP, POD, None),
        ("NEW", "Local", "ab", False),
    ),
    "internal policy Local without an endpoint at the node drops": (
        ({"internalTrafficPolicy": "Local"}, slice_of("c"), CLUSTER_IP, POD, None),
        ("DROP", "Local", "", False),
    ),
    "hints for the zone": (
        ({}, slice_of("a", "b", "c", hints="abc"), CLUSTER_IP, POD, None),
        ("NEW", "Cluster", "ab", False),
    ),
    "hints count only if every ready endpoint has one": (
        ({}, slice_of("a", "b", "c", hints="ac"), CLUSTER_IP, POD, None),
        ("NEW", "Cluster", "abc", False),
    ),
    "hints of an endpoint that is not ready are not asked for": (
        ({}, slice_of("a", "b", "c", hints="ac", unready="b"), CLUSTER_IP, POD, None),
        ("NEW", "Cluster", "a", False),
    ),
    "outside the source ranges": (
        ({"loadBalancerSourceRanges": ["198.51.100.0/24"]}, ALL, BALANCER, OUTSIDE, "node-1"),
        ("DROP", "Cluster", "", True),
    ),
    "source ranges do not bind the ClusterIP": (
        ({"loadBalancerSourceRanges": ["198.51.100.0/24"]}, ALL, CLUSTER_IP, POD, None),
        ("NEW", "Cluster", "abc", False),
    ),
    "an external address": (
        ({"externalIPs": ["192.0.2.50"]}, ALL, "192.0.2.50:80", OUTSIDE, "node-2"),
        ("NEW", "Cluster", "abc", True),
    ),
}


@pytest.mark.parametrize(("asked", "expected"), FLOWS.values(), ids=FLOWS.keys())
def test_flows_are_answered_as_kube_proxy_would(asked: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    spec, slices, address, client, at = asked
    found = explain(cluster(service(**spec), slices), f"tcp://{address}", from_ip=client, node=at)
    assert isinstance(found, FlowExplanation)
    assert (found.verdict, found.policy, names(found), found.masquerade) == expected
    assert (found.chosen in found.endpoints) if found.verdict == "NEW" else found.chosen is None
    assert json.loads(json.dumps(found.to_json()))["verdict"] == found.verdict
    assert found.render()


def test_a_pod_that_reaches_itself_would_be_masqueraded() -> None:
    found = explain(cluster(service(), slice_of("a")), f"tcp://{CLUSTER_IP}", from_ip=PODS["a"][0])
    assert isinstance(found, FlowExplanation)
    assert (found.chosen, found.masquerade) == ("10.180.0.1:8080", True)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("tcp://172.30.0.41:81", "Service ns1/web has no port 81/TCP, it has 80/TCP: refused"),
        ("udp://172.30.0.41:80", "Service ns1/web has no port 80/UDP, it has 80/TCP: refused"),
        ("tcp://172.30.9.9:80", "no Service has 172.30.9.9:80/TCP"),
        ("tcp://shop.ns1.svc:80", "neither an IPv4 address nor the DNS name of a Service"),
    ],
)
def test_where_nobody_is_no_frontend(url: str, reason: str) -> None:
    found = explain(cluster(service(), ALL), url)
    assert isinstance(found, FlowExplanation)
    assert found.verdict == "NO_FRONTEND"
    assert reason in found.reasons[0]


def test_a_balancer_of_mode_proxy_is_left_to_itself() -> None:
    web = service()
    web["status"]["loadBalancer"]["ingress"] = [
        {"ip": "1.2.3.4", "ipMode": "Proxy"},
        {"ip": "1.2.3.5", "ipMode": "VIP"},
    ]
    verdicts = [explain(cluster(web, ALL), f"tcp://1.2.3.{last}:80", from_ip=OUTSIDE) for last in (4, 5)]
    assert [found.verdict for found in verdicts] == ["NO_FRONTEND", "NEW"]
    assert "ipMode Proxy" in verdicts[0].reasons[0]


def test_a_service_is_found_by_its_dns_name_and_session_affinity_is_told() -> None:
    found = explain(cluster(service(sessionAffinity="ClientIP"), ALL), "tcp://web.ns1.svc.cluster.local:80")
    assert isinstance(found, FlowExplanation)
    assert found.frontend == "172.30.0.41:80/TCP"
    assert any("10800 s" in reason for reason in found.reasons)


def external(name: str, target: str) -> Object:
    metadata = {"name": name, "namespace": "ns1", "uid": name}
    spec = {"type": "ExternalName", "externalName": target}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def test_an_external_name_is_followed_to_its_service() -> None:
    chain = [external("one", "two.ns1.svc.cluster.local"), external("two", "web.ns1.svc.cluster.local.")]
    found = explain(cluster(service(), ALL, *chain), "tcp://one.ns1.svc:80", from_ip=POD)
    assert isinstance(found, FlowExplanation)
    assert (found.verdict, found.service, found.frontend) == ("NEW", "ns1/web", "172.30.0.41:80/TCP")
    assert found.reasons[0] == (
        "Service ns1/one is an ExternalName: DNS says two.ns1.svc.cluster.local → web.ns1.svc.cluster.local"
    )


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("db.example.org", "DNS says db.example.org, and the client connects to that host itself"),
        ("one.ns1.svc.cluster.local", "DNS says one.ns1.svc.cluster.local, which leads back to itself"),
    ],
)
def test_an_external_name_that_is_no_service_has_no_frontend(target: str, reason: str) -> None:
    found = explain(cluster(external("one", target)), "tcp://one.ns1.svc:80")
    assert isinstance(found, FlowExplanation)
    assert found.verdict == "NO_FRONTEND"
    assert reason in found.reasons[0]


def test_a_dump_has_its_own_kube_dns() -> None:
    dns = service(clusterIP="172.30.0.10", ports=[{"name": "dns", "port": 53, "protocol": "UDP"}])
    metadata = {"name": "kube-dns", "namespace": "kube-system", "uid": "9"}
    slices = json.loads(json.dumps(ALL).replace('"web', '"kube-dns').replace('"ns1"', '"kube-system"'))
    slices["ports"] = [{"name": "dns", "port": 53, "protocol": "UDP"}]
    found = explain(cluster({**dns, "metadata": metadata}, slices), "udp://172.30.0.10:53", from_ip=POD)
    assert isinstance(found, FlowExplanation)
    assert (found.verdict, found.service) == ("NEW", "kube-system/kube-dns")


@pytest.mark.parametrize(
    ("algorithm", "spec", "reason"),
    [
        ("lc", {}, "slow start: one that has been ready for less than 30 s gets less"),
        ("maglev", {}, "slow start of 30 s has no effect beside maglev"),
        ("lc", {"sessionAffinity": "ClientIP"}, "slow start of 30 s has no effect beside session affinity"),
    ],
)
def test_slow_start_is_told_and_where_it_has_no_effect(algorithm: str, spec: Object, reason: str) -> None:
    web = service(**spec)
    web["metadata"]["annotations"] = {
        "trafficplane.dev/slow-start": "30s",
        "trafficplane.dev/lb-algorithm": algorithm,
    }
    found = explain(cluster(web, ALL), f"tcp://{CLUSTER_IP}", from_ip=POD)
    assert isinstance(found, FlowExplanation)
    assert any(each.startswith(reason) for each in found.reasons)


@pytest.mark.parametrize(
    ("options", "field"),
    [({"node": "node-9"}, "--node"), ({"from_pod": "ns1/x"}, "--from-pod"), ({"from_ip": "here"}, "--from-ip")],
)
def test_what_is_asked_about_must_exist(options: dict[str, str], field: str) -> None:
    with pytest.raises(ManifestError, match=field):
        explain(cluster(service(), ALL), f"tcp://{CLUSTER_IP}", **options)


def test_without_slices_in_a_dump_they_follow_from_pods() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "namespace": "ns1", "labels": {"a": "b"}, "uid": "2"},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "nginx"}]},
        "status": {
            "podIP": "10.180.0.1",
            "hostIP": "192.168.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    found = explain(cluster(service(), pod), f"tcp://{CLUSTER_IP}", from_pod="ns1/a")
    assert isinstance(found, FlowExplanation)
    assert found.chosen == "10.180.0.1:8080"


def test_a_service_of_both_families_is_explained_by_its_ipv4() -> None:
    six = {**slice_of(), "addressType": "IPv6", "endpoints": [{"addresses": ["fd01::1"]}]}
    six["metadata"] = {**six["metadata"], "name": "web-6"}
    both = service(clusterIP="fd00::41", clusterIPs=["fd00::41", "172.30.0.41"], ipFamilies=["IPv6", "IPv4"])
    found = explain(cluster(both, slice_of("a", "b"), six), "tcp://web.ns1.svc:80")
    assert isinstance(found, FlowExplanation)
    assert (found.frontend, names(found)) == ("172.30.0.41:80/TCP", "ab")
    alone = explain(cluster(service(clusterIP="fd00::41"), six), "tcp://web.ns1.svc:80")
    assert "Service ns1/web has addresses of IPv6 alone" in " ".join(alone.reasons)
