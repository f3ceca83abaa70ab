"""Controllers: what follows from Deployments, Services and nodes, pass by pass, without a clock and without sockets."""

from unittest import mock

import pytest

from plane.addresses import AddressPlan
from plane.controllers import Reconciler, endpointslices, reconcile
from plane.controllers.deployments import rolling_bounds
from plane.controllers.endpointslices import is_ready
from plane.controllers.lifecycle import removed
from plane.dns.names import KUBE_DNS, NODE_PORT
from plane.errors import PlaneError
from plane.model import SERVICE_LABEL, Key, Object, Snapshot, endpoints_of, key_of

NOW = "2026-01-01T00:00:00Z"
PLAN = AddressPlan(0)


def node(number: int, *, ready: bool = True) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"node-{number}", "uid": f"n{number}", "labels": {"zone": "ab"[number % 2]}},
        "status": {
            "addresses": [{"type": "InternalIP", "address": PLAN.node(number)}],
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def deployment(name: str = "web", replicas: int = 3, image: str = "v1", **spec: object) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default", "uid": f"d-{name}"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]
                },
            },
            **spec,
        },
    }


def service(name: str = "web", target: int | str = 8080, **spec: object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "uid": f"s-{name}"},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": target}],
            **spec,
        },
    }


def cluster(*objects: Object, nodes: int = 3) -> Snapshot:
    return reconcile(Snapshot(generation=1).changed([*map(node, range(1, nodes + 1)), *objects]), PLAN, NOW)


def again(snapshot: Snapshot) -> Snapshot:
    return reconcile(Snapshot(snapshot.generation + 1, snapshot.objects, snapshot.backends), PLAN, NOW)


def ours(snapshot: Snapshot, kind: str) -> list[Object]:
    """Objects of a kind without those of cluster DNS, which is there as soon as a node is."""
    return [obj for obj in snapshot.all(kind) if obj["metadata"].get("namespace") != "kube-system"]


def backends(snapshot: Snapshot) -> dict[tuple[str, int, str], int]:
    return {key: number for key, number in snapshot.backends.items() if key[1] != NODE_PORT}


def with_ready(snapshot: Snapshot, *, ready: bool = True, image: str | None = None) -> Snapshot:
    """Every pod (of an image) reported ready by its node, or not."""
    rows = [{"type": "Ready", "status": "True" if ready else "False"}]
    put = [
        {**pod, "status": {**pod["status"], "phase": "Running", "conditions": rows}}
        for pod in snapshot.all("Pod")
        if image in (None, pod["spec"]["containers"][0]["image"])
    ]
    return again(snapshot.changed(put))


def gone(snapshot: Snapshot) -> Snapshot:
    """Every terminating pod reported gone by its node."""
    return again(snapshot.changed(drop=[key_of(pod) for pod in snapshot.all("Pod") if terminating(pod)]))


def terminating(pod: Object) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def live(snapshot: Snapshot, image: str | None = None) -> list[Object]:
    return [
        pod
        for pod in snapshot.all("Pod")
        if not terminating(pod) and image in (None, pod["spec"]["containers"][0]["image"])
    ]


def test_a_deployment_has_its_pods_spread_over_the_nodes_each_with_an_address_of_its_node():
    snapshot = cluster(deployment(replicas=6))
    pods = list(snapshot.all("Pod"))
    assert [sorted(pod["spec"]["nodeName"] for pod in pods).count(f"node-{n}") for n in (1, 2, 3)] == [2, 2, 2]
    for pod in pods:
        number = int(pod["spec"]["nodeName"][-1])
        assert pod["status"]["podIP"].startswith(f"127.244.{number}.")
        assert pod["status"]["hostIP"] == f"127.18.0.{number}"
    assert len({pod["status"]["podIP"] for pod in pods}) == 6


def test_a_pass_over_a_settled_snapshot_changes_nothing():
    snapshot = with_ready(cluster(deployment(), service()))
    assert again(snapshot).objects == snapshot.objects
    assert again(snapshot).backends == snapshot.backends


def test_reconciling_twice_from_the_same_snapshot_gives_the_same_names_and_uids():
    assert cluster(deployment(), service()).objects == cluster(deployment(), service()).objects


def test_scaling_down_gives_up_pods_that_are_not_ready_first():
    snapshot = with_ready(cluster(deployment(replicas=3)))
    lame = live(snapshot)[1]
    snapshot = again(snapshot.changed([{**lame, "status": {**lame["status"], "conditions": []}}]))
    snapshot = again(snapshot.changed([deployment(replicas=2)]))
    assert [pod["metadata"]["name"] for pod in snapshot.all("Pod") if terminating(pod)] == [lame["metadata"]["name"]]
    assert live(gone(snapshot)) == live(snapshot)


def test_a_pod_on_its_way_out_is_replaced_at_once_and_keeps_its_address_until_it_is_gone():
    snapshot = with_ready(cluster(deployment(replicas=1), service()))
    [old] = live(snapshot)
    snapshot = again(removed(snapshot, [old], NOW))
    [new] = live(snapshot)
    assert new["status"]["podIP"] != old["status"]["podIP"]
    assert snapshot.get(*key_of(old))["metadata"]["deletionGracePeriodSeconds"] == 30
    assert [key_of(pod) for pod in gone(snapshot).all("Pod")] == [key_of(new)]


def test_a_second_deletion_may_only_shorten_the_grace_period():
    snapshot = cluster(deployment(replicas=1))
    [pod] = live(snapshot)
    for grace, expected in ((10, 10), (20, 10), (5, 5)):
        snapshot = removed(snapshot, [snapshot.get(*key_of(pod))], NOW, grace)
        assert snapshot.get(*key_of(pod))["metadata"]["deletionGracePeriodSeconds"] == expected
    assert snapshot.get(*key_of(pod))["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:10Z"


def test_deleting_a_deployment_takes_its_replicaset_and_drains_its_pods():
    snapshot = with_ready(cluster(deployment()))
    snapshot = again(snapshot.changed(drop=[Key("Deployment", "default", "web")]))
    assert not list(snapshot.all("ReplicaSet"))
    assert all(map(terminating, snapshot.all("Pod")))
    assert len(list(snapshot.all("Pod"))) == 3


@pytest.mark.parametrize(
    ("replicas", "rolling", "expected"),
    [
        (3, {}, (1, 0)),
        (4, {}, (1, 1)),
        (10, {"maxSurge": "25%", "maxUnavailable": "25%"}, (3, 2)),
        (1, {"maxSurge": 0, "maxUnavailable": "25%"}, (0, 1)),
        (5, {"maxSurge": 2, "maxUnavailable": 0}, (2, 0)),
    ],
)
def test_rolling_bounds_round_surge_up_and_unavailable_down(replicas, rolling, expected):
    spec = {"strategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}
    assert rolling_bounds(deployment(replicas=replicas, **spec)) == expected


@pytest.mark.parametrize("replicas", [1, 3, 10])
def test_a_rolling_update_never_leaves_its_bounds(replicas):
    snapshot = with_ready(cluster(deployment(replicas=replicas), nodes=3))
    surge, unavailable = rolling_bounds(deployment(replicas=replicas))
    snapshot = again(snapshot.changed([deployment(replicas=replicas, image="v2")]))
    for _ in range(4 * replicas + 4):
        assert len(live(snapshot)) <= replicas + surge
        assert sum(map(is_ready, live(snapshot))) >= replicas - unavailable
        if len(live(snapshot, "v2")) == replicas and not live(snapshot, "v1"):
            break
        snapshot = gone(with_ready(snapshot, image="v2"))
    assert len(live(snapshot, "v2")) == replicas
    assert not live(snapshot, "v1")


def test_a_rolling_update_to_pods_that_never_get_ready_keeps_the_old_ones():
    snapshot = with_ready(cluster(deployment(replicas=3)))
    snapshot = again(snapshot.changed([deployment(replicas=3, image="broken")]))
    for _ in range(5):
        snapshot = gone(again(snapshot))
    assert len(live(snapshot, "v1")) == 3
    assert len(live(snapshot, "broken")) == 1


def test_a_rolling_update_from_pods_that_no_node_takes_goes_on_at_once():
    def placed(snapshot: Snapshot) -> list[bool]:
        return sorted("podIP" in pod["status"] for pod in snapshot.all("Pod"))

    strategy = {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    nowhere, somewhere = (deployment(replicas=2, strategy=strategy, image=image) for image in ("v1", "v2"))
    nowhere["spec"]["template"]["spec"]["nodeSelector"] = {"zone": "none"}
    before = cluster(nowhere)
    assert placed(before) == [False, False]
    assert placed(again(before.changed([somewhere]))) == [False, True]


def test_a_rolling_update_gives_up_no_more_unready_pods_than_may_be_unavailable():
    whole = with_ready(cluster(deployment(replicas=8), nodes=3))
    unready = list(whole.all("Pod"))[:6]
    for pod in unready:
        conditions = [{**row, "status": "False"} for row in pod["status"]["conditions"]]
        whole = whole.changed([{**pod, "status": {**pod["status"], "conditions": conditions}}])
    snapshot = again(whole.changed([deployment(replicas=8, image="broken")]))
    for _ in range(5):
        snapshot = gone(again(snapshot))
    assert len(live(snapshot, "v1")) == 6  # 8 and maxUnavailable 25 %
    assert sum(map(is_ready, live(snapshot, "v1"))) == 2


def test_recreate_ends_every_old_pod_before_the_first_new_one():
    spec = {"strategy": {"type": "Recreate"}}
    snapshot = with_ready(cluster(deployment(**spec)))
    snapshot = again(snapshot.changed([deployment(image="v2", **spec)]))
    assert not live(snapshot)
    assert len(live(gone(snapshot), "v2")) == 3


def test_going_back_to_a_template_reuses_its_replicaset_as_the_newest_revision():
    snapshot = with_ready(cluster(deployment(replicas=1)))
    [first] = snapshot.all("ReplicaSet")
    for image in ("v2", "v1"):
        snapshot = again(snapshot.changed([deployment(replicas=1, image=image)]))
        for _ in range(4):
            snapshot = gone(with_ready(snapshot))
    sets = {row["metadata"]["name"]: row for row in snapshot.all("ReplicaSet")}
    assert len(sets) == 2
    again_first = sets[first["metadata"]["name"]]
    assert again_first["spec"]["replicas"] == 1
    assert again_first["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"


def test_endpoints_follow_readiness_and_termination():
    snapshot = cluster(deployment(replicas=2), service())
    [row] = ours(snapshot, "EndpointSlice")
    assert row["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
    assert row["ports"] == [{"name": "http", "protocol": "TCP", "port": 8080}]
    assert [endpoint.ready for endpoint in endpoints_of(row)] == [False, False]
    snapshot = with_ready(snapshot)
    [row] = ours(snapshot, "EndpointSlice")
    assert [endpoint.ready for endpoint in endpoints_of(row)] == [True, True]
    leaving = live(snapshot)[0]
    snapshot = again(removed(snapshot, [leaving], NOW))
    [row] = ours(snapshot, "EndpointSlice")
    [endpoint] = [endpoint for endpoint in endpoints_of(row) if endpoint.ip == leaving["status"]["podIP"]]
    assert (endpoint.ready, endpoint.serving, endpoint.terminating) == (False, True, True)


def test_services_that_all_select_by_one_label_are_not_all_looked_at_for_one_pod():
    services = [service(f"s{number}", selector={"part-of": "shop", "app": f"s{number}"}) for number in range(50)]
    metadata = {"name": "p", "namespace": "default", "uid": "p", "labels": {"part-of": "shop", "app": "s7"}}
    reconciler = Reconciler(PLAN)
    snapshot = reconciler(Snapshot(1).changed([node(1), *services]), NOW)
    with mock.patch.object(endpointslices, "selects", wraps=endpointslices.selects) as asked:
        snapshot = reconciler(snapshot.changed([{"kind": "Pod", "metadata": metadata, "spec": {}}]), NOW)
    assert [row["metadata"]["labels"][SERVICE_LABEL] for row in ours(snapshot, "EndpointSlice")] == ["s7"]
    assert asked.call_count < 10


def test_publish_not_ready_addresses_makes_endpoints_ready_before_their_pods_are():
    [row] = ours(cluster(deployment(), service(publishNotReadyAddresses=True)), "EndpointSlice")
    assert [(endpoint.ready, endpoint.serving) for endpoint in endpoints_of(row)] == [(True, False)] * 3


def test_a_target_port_by_name_is_resolved_in_each_pod():
    other = deployment("web2")
    other["spec"]["template"]["metadata"]["labels"]["app"] = "web"
    other["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = 9090
    snapshot = cluster(
        deployment(replicas=1), {**other, "spec": {**other["spec"], "replicas": 1}}, service(target="http")
    )
    ports = sorted(row["ports"][0]["port"] for row in ours(snapshot, "EndpointSlice"))
    assert ports == [8080, 9090]


def test_hand_written_endpoint_slices_are_left_alone():
    mine = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "mine", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.9"]}],
        "ports": [{"name": "http", "port": 9}],
    }
    snapshot = again(cluster(service(selector=None), mine))
    assert ours(snapshot, "EndpointSlice") == [mine]
    assert backends(snapshot).keys() == {("127.0.0.9", 9, "TCP")}


def test_cluster_ips_come_after_the_static_band_and_are_kept():
    asked = service("asked", clusterIP="127.96.0.77")
    snapshot = cluster(service("a"), asked, service("none", clusterIP="None"))
    addresses = {obj["metadata"]["name"]: obj["spec"]["clusterIP"] for obj in ours(snapshot, "Service")}
    assert addresses == {"a": "127.96.1.1", "asked": "127.96.0.77", "none": "None"}
    more = again(snapshot.changed([service("b")]))
    assert more.get("Service", "default", "b")["spec"]["clusterIP"] == "127.96.1.2"
    assert more.get("Service", "default", "a") == snapshot.get("Service", "default", "a")


def test_cluster_dns_comes_with_the_first_node_and_leads_to_those_that_are_ready():
    assert cluster(nodes=0).get(*KUBE_DNS) is None
    snapshot = reconcile(Snapshot().changed([node(1), node(2, ready=False)]), PLAN, NOW)
    service = snapshot.get(*KUBE_DNS)
    assert (service["spec"]["type"], service["spec"]["clusterIP"]) == ("ClusterIP", "127.96.0.10")
    [row] = snapshot.all("EndpointSlice")
    assert {endpoint.ip for endpoint in endpoints_of(row)} == {"127.18.0.1"}
    assert again(snapshot).get(*KUBE_DNS) is service
    assert next(again(snapshot).all("EndpointSlice")) is row
    [row] = again(snapshot.changed([node(2)])).all("EndpointSlice")
    assert {endpoint.ip for endpoint in endpoints_of(row)} == {"127.18.0.1", "127.18.0.2"}


def test_backend_ids_are_stable_and_given_again_only_once_their_endpoint_is_gone():
    snapshot = with_ready(cluster(deployment(replicas=3), service()))
    before = backends(snapshot)
    taken = set(snapshot.backends.values()) - set(before.values())  # by the DNS servers of the nodes
    assert sorted({*before.values(), *taken}) == list(range(1, 4 + len(taken)))
    snapshot = again(snapshot.changed([deployment(replicas=2)]))
    assert backends(snapshot) == before
    snapshot = again(gone(snapshot))
    kept = backends(snapshot)
    assert kept.items() < before.items()
    snapshot = again(snapshot.changed([deployment(replicas=4)]))
    assert kept.items() < backends(snapshot).items()
    assert sorted(snapshot.backends.values()) == list(range(1, 5 + len(taken)))


def test_pods_wait_while_no_node_fits_and_go_when_one_does():
    snapshot = cluster(deployment(replicas=1), nodes=0)
    [pod] = snapshot.all("Pod")
    assert pod["status"]["conditions"][0]["reason"] == "Unschedulable"
    [pod] = again(snapshot.changed([node(2)])).all("Pod")
    assert pod["spec"]["nodeName"] == "node-2"


def test_a_node_selector_is_honoured():
    pinned = deployment(replicas=4)
    pinned["spec"]["template"]["spec"]["nodeSelector"] = {"zone": "a"}
    assert {pod["spec"]["nodeName"] for pod in cluster(pinned).all("Pod")} == {"node-2"}


def test_pods_do_not_go_to_a_node_that_is_not_ready():
    snapshot = reconcile(Snapshot().changed([node(1), node(2, ready=False), deployment(replicas=4)]), PLAN, NOW)
    assert {pod["spec"]["nodeName"] for pod in snapshot.all("Pod")} == {"node-1"}


def test_pods_do_not_go_to_a_node_that_is_cordoned_until_it_is_not():
    cordoned = {**node(1), "spec": {**node(1).get("spec", {}), "unschedulable": True}}
    snapshot = reconcile(Snapshot().changed([cordoned, deployment(replicas=1)]), PLAN, NOW)
    (pod,) = snapshot.all("Pod")
    assert "nodeName" not in pod["spec"]
    snapshot = reconcile(snapshot.changed([node(1)]), PLAN, NOW)
    (pod,) = snapshot.all("Pod")
    assert pod["spec"]["nodeName"] == "node-1"


def test_a_full_node_takes_no_more_and_the_rest_waits():
    snapshot = cluster(deployment(replicas=260), nodes=1)
    placed = [pod for pod in snapshot.all("Pod") if pod["spec"].get("nodeName")]
    assert len(placed) == 253
    assert len(list(snapshot.all("Pod"))) == 260


def test_an_exhausted_range_is_an_error_that_names_it():
    with pytest.raises(PlaneError, match=r"pod addresses of node 1 \(127\.244\.1\.0/24\) are all in use"):
        PLAN.free_pod_ip(1, {f"127.244.1.{n}" for n in range(256)})


def test_a_deleted_namespace_takes_everything_in_it_and_then_goes():
    snapshot = with_ready(cluster(deployment(), service()))
    default = snapshot.get("Namespace", "", "default")
    marked = {**default, "metadata": {**default["metadata"], "name": "default", "deletionTimestamp": NOW}}
    snapshot = again(snapshot.changed([marked]))
    assert not ours(snapshot, "Service")
    assert all(map(terminating, snapshot.all("Pod")))
    assert snapshot.get("Namespace", "", "default") is not None


def conditions(snapshot: Snapshot) -> dict[str, tuple[str, str, str]]:
    """Status, reason and message of each condition of the Deployment web."""
    rows = snapshot.objects["Deployment"]["default", "web"]["status"]["conditions"]
    return {row["type"]: (row["status"], row["reason"], row["message"]) for row in rows}


ENOUGH = ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
TOO_FEW = ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")


def newest(snapshot: Snapshot, image: str) -> str:
    (row,) = (
        row
        for row in ours(snapshot, "ReplicaSet")
        if row["spec"]["template"]["spec"]["containers"][0]["image"] == image
    )
    return row["metadata"]["name"]


def test_a_deployment_is_available_and_progresses_as_the_deployment_controller_says():
    snapshot = cluster(deployment(replicas=3))
    first = newest(snapshot, "v1")
    moving = ("True", "ReplicaSetUpdated", f'ReplicaSet "{first}" is progressing.')
    done = ("True", "NewReplicaSetAvailable", f'ReplicaSet "{first}" has successfully progressed.')
    assert conditions(snapshot) == {"Available": TOO_FEW, "Progressing": moving}
    snapshot = with_ready(snapshot)
    assert conditions(snapshot) == {"Available": ENOUGH, "Progressing": done}
    # Scaled up it has too few, but its rollout is over.
    assert conditions(again(snapshot.changed([deployment(replicas=9) | {"status": web_status(snapshot)}]))) == {
        "Available": TOO_FEW,
        "Progressing": done,
    }
    # A new template is a rollout, during which enough stay.
    rolled = again(snapshot.changed([deployment(replicas=3, image="v2") | {"status": web_status(snapshot)}]))
    second = newest(rolled, "v2")
    moving = ("True", "ReplicaSetUpdated", f'ReplicaSet "{second}" is progressing.')
    assert conditions(rolled) == {"Available": ENOUGH, "Progressing": moving}
    for _ in range(6):
        rolled = gone(with_ready(rolled))
    assert conditions(rolled)["Progressing"] == (
        "True",
        "NewReplicaSetAvailable",
        f'ReplicaSet "{second}" has successfully progressed.',
    )


def web_status(snapshot: Snapshot) -> Object:
    return snapshot.objects["Deployment"]["default", "web"]["status"]


def test_one_of_three_may_be_missing_unless_the_strategy_is_to_recreate():
    for spec, expected in (
        ({"strategy": {"rollingUpdate": {"maxUnavailable": 1}}}, ENOUGH),
        ({"strategy": {"rollingUpdate": {"maxUnavailable": 0}}}, TOO_FEW),
        ({"strategy": {"type": "Recreate"}}, TOO_FEW),
    ):
        snapshot = with_ready(cluster(deployment(replicas=3, **spec)))
        assert conditions(snapshot)["Available"] == ENOUGH
        pod = live(snapshot, "v1")[0]
        rows = [{"type": "Ready", "status": "False"}]
        snapshot = again(snapshot.changed([{**pod, "status": {**pod["status"], "conditions": rows}}]))
        assert conditions(snapshot)["Available"] == expected


def test_a_condition_keeps_the_time_of_its_last_transition():
    def later(snapshot: Snapshot, now: str) -> tuple[Snapshot, dict[str, tuple[str, str]]]:
        snapshot = reconcile(Snapshot(snapshot.generation + 1, snapshot.objects, snapshot.backends), PLAN, now)
        rows = web_status(snapshot)["conditions"]
        return snapshot, {row["type"]: (row["lastTransitionTime"], row["lastUpdateTime"]) for row in rows}

    def ready(snapshot: Snapshot) -> Snapshot:
        rows = [{"type": "Ready", "status": "True"}]
        pods = [{**pod, "status": {**pod["status"], "conditions": rows}} for pod in live(snapshot, "v1")]
        return snapshot.changed(pods)

    snapshot = cluster(deployment(replicas=2))
    before = web_status(snapshot)
    snapshot, times = later(snapshot, "2026-01-01T00:00:05Z")
    assert times == {"Available": (NOW, NOW), "Progressing": (NOW, NOW)}
    assert web_status(snapshot) is before
    then = "2026-01-01T00:00:10Z"
    snapshot, times = later(ready(snapshot), then)
    assert times == {"Available": (then, then), "Progressing": (NOW, then)}
    assert later(snapshot, "2026-01-01T00:00:15Z")[1] == times


def test_a_namespace_that_somebody_made_is_active():
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "uid": "n"}}
    snapshot = cluster(made, nodes=1)
    phases = {row["metadata"]["name"]: row["status"]["phase"] for row in snapshot.all("Namespace")}
    assert phases == {"default": "Active", "kube-system": "Active", "shop": "Active"}
    ending = {**made, "metadata": {**made["metadata"], "deletionTimestamp": NOW}, "status": {"phase": "Terminating"}}
    assert reconcile(snapshot.changed([ending]), PLAN, NOW).get("Namespace", "", "shop") is None
