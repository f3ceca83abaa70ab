"""The store: one way in, whole or not at all, and a history that can be watched."""

import asyncio
from itertools import count

import pytest

from plane import statuses
from plane.addresses import AddressPlan
from plane.errors import ConflictError, ManifestError, NotFoundError
from plane.merge import merge_applied, merge_patch
from plane.model import Key, Object, key_of
from plane.store import LAST_APPLIED, ExpiredError, Store

SERVICE = Key("Service", "default", "web")


@pytest.fixture
def store() -> Store:
    seconds = count()
    return Store(AddressPlan(0), clock=lambda: f"2026-01-01T00:00:{next(seconds) % 60:02}Z")


def service(name: str = "web", port: int = 80, **spec: object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [{"port": port}], **spec},
    }


def deployment(**spec: object) -> Object:
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template, **spec},
    }


def test_a_created_object_is_defaulted_stamped_and_given_an_address(store):
    obj = store.create(service())
    assert obj["spec"]["clusterIP"] == "127.96.1.1"
    assert obj["spec"]["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert obj["metadata"]["resourceVersion"] == str(store.snapshot.generation)
    assert obj["metadata"]["generation"] == 1
    assert obj["metadata"]["uid"]


def test_a_name_is_given_once(store):
    store.create(service())
    with pytest.raises(ConflictError, match='services "web" already exists'):
        store.create(service())


def test_generate_name_makes_one(store):
    obj = store.create({**service(), "metadata": {"generateName": "web-", "namespace": "default"}})
    assert obj["metadata"]["name"].startswith("web-")


def test_what_is_not_there_is_not_found(store):
    with pytest.raises(NotFoundError, match='services "web" not found'):
        store.get(SERVICE)
    with pytest.raises(NotFoundError):
        store.delete(SERVICE)


def test_replace_with_an_old_resource_version_conflicts_and_says_what_to_do(store):
    old = store.create(service())
    store.merge_patch(SERVICE, {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(ConflictError, match="read it again"):
        store.replace(old)
    assert store.get(SERVICE)["metadata"]["labels"] == {"a": "b"}


def test_an_update_without_a_cluster_ip_keeps_the_one_it_has(store):
    address = store.create(service())["spec"]["clusterIP"]
    assert store.replace(service(port=81))["spec"]["clusterIP"] == address


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"clusterIP": "127.0.0.5"}, "127.0.0.5 is not in this plane's range 127.96.0.0/12"),
        ({"clusterIP": "127.96.0.9"}, "127.96.0.9 is already that of Service default/first"),
    ],
    ids=["an address out of range", "an address that is taken"],
)
def test_a_cluster_ip_that_cannot_be_had_is_refused_with_its_field(store, spec, reason):
    store.create(service("first", clusterIP="127.96.0.9"))
    before = store.snapshot
    with pytest.raises(ManifestError) as caught:
        store.create(service(**spec))
    [problem] = caught.value.problems
    assert (problem.object, problem.field) == ("Service default/web", "spec.clusterIP")
    assert reason in problem.reason
    assert store.snapshot is before


def test_a_cluster_ip_cannot_be_changed(store):
    store.create(service())
    with pytest.raises(ManifestError, match=r"spec\.clusterIP: cannot be changed from"):
        store.replace(service(clusterIP="127.96.0.9"))


def test_apply_takes_all_or_nothing_and_names_every_problem(store):
    before = store.snapshot
    with pytest.raises(ManifestError) as caught:
        store.apply([service("good"), service("bad", port=99999), service("worse", type="Cluster")])
    assert {problem.object for problem in caught.value.problems} == {"Service default/bad", "Service default/worse"}
    assert store.snapshot is before


def test_apply_says_created_then_unchanged_then_configured(store):
    assert [verb for verb, _ in store.apply([service(), deployment()])] == ["created", "created"]
    generation = store.snapshot.generation
    assert [verb for verb, _ in store.apply([service(), deployment()])] == ["unchanged", "unchanged"]
    assert store.snapshot.generation == generation
    assert [verb for verb, _ in store.apply([service(port=81), deployment()])] == ["configured", "unchanged"]


def test_apply_dry_run_changes_nothing(store):
    before = store.snapshot
    assert [verb for verb, _ in store.apply([service()], dry_run=True)] == ["created"]
    assert store.snapshot is before


def test_apply_keeps_what_others_set_and_drops_what_the_manifest_no_longer_says(store):
    store.apply([{**deployment(), "metadata": {**deployment()["metadata"], "labels": {"a": "1", "b": "2"}}}])
    key = Key("Deployment", "default", "web")
    store.merge_patch(key, {"spec": {"replicas": 5}})
    store.apply([{**deployment(), "metadata": {**deployment()["metadata"], "labels": {"a": "1"}}}])
    live = store.get(key)
    assert live["spec"]["replicas"] == 5
    assert live["metadata"]["labels"] == {"a": "1"}
    assert LAST_APPLIED in live["metadata"]["annotations"]


def test_metadata_generation_counts_changes_of_the_spec_only(store):
    store.create(service())
    store.merge_patch(SERVICE, {"metadata": {"labels": {"a": "b"}}})
    assert store.get(SERVICE)["metadata"]["generation"] == 1
    store.merge_patch(SERVICE, {"spec": {"ports": [{"port": 81}]}})
    assert store.get(SERVICE)["metadata"]["generation"] == 2


def test_an_object_in_a_snapshot_is_never_changed(store):
    store.create(service())
    before = store.snapshot
    held = before.get(*SERVICE)
    copy = {**held, "metadata": dict(held["metadata"])}
    store.merge_patch(SERVICE, {"metadata": {"labels": {"a": "b"}}})
    assert before.get(*SERVICE) == copy


def test_a_patch_cannot_rename(store):
    store.create(service())
    with pytest.raises(ManifestError, match="cannot change kind, namespace or name"):
        store.merge_patch(SERVICE, {"metadata": {"name": "other"}})


async def take(stream, number: int) -> list[tuple[str, str]]:
    async with asyncio.timeout(30):
        return [(kind, obj["metadata"]["name"]) for kind, obj in [await anext(stream) for _ in range(number)]]


async def test_watch_gives_what_is_there_and_then_each_change_in_order(store):
    store.create(service("a"))
    stream = store.watch("Service", "default")
    assert await take(stream, 1) == [("ADDED", "a")]
    store.create(service("b"))
    store.merge_patch(Key("Service", "default", "a"), {"metadata": {"labels": {"x": "y"}}})
    store.delete(Key("Service", "default", "b"))
    assert await take(stream, 3) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]


async def test_watch_from_a_generation_gives_only_what_came_after(store):
    store.create(service("a"))
    since = store.snapshot.generation
    store.create(service("b"))
    assert await take(store.watch("Service", None, since), 1) == [("ADDED", "b")]


async def test_watch_from_a_forgotten_generation_expires(store, monkeypatch):
    monkeypatch.setattr("plane.store.HISTORY", 3)
    small = Store(AddressPlan(0))
    small._history = type(small._history)(maxlen=3)
    for number in range(5):
        small.create(service(f"s{number}"))
    with pytest.raises(ExpiredError):
        await take(small.watch("Service", None, 1), 1)


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_is_that_of_rfc_7386_appendix_a(target, patch, expected):
    assert merge_patch(target, patch) == expected


@pytest.mark.parametrize(
    ("last", "wanted", "live", "expected"),
    [
        (None, {"a": 1}, {"b": 2}, {"b": 2, "a": 1}),
        ({"a": 1, "b": 1}, {"a": 1}, {"a": 1, "b": 1, "c": 3}, {"a": 1, "c": 3}),
        ({"a": {"x": 1}}, {"a": {"y": 2}}, {"a": {"x": 1, "z": 3}}, {"a": {"z": 3, "y": 2}}),
        ({"l": [1]}, {"l": [2]}, {"l": [1, 9]}, {"l": [2]}),
    ],
    ids=["others' fields stay", "a field the manifest dropped goes", "so in depth", "lists are replaced whole"],
)
def test_merge_applied(last, wanted, live, expected):
    assert merge_applied(last, wanted, live) == expected


def pod(image: str = "nginx", **metadata: object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "namespace": "default", **metadata},
        "spec": {"containers": [{"name": "c", "image": image}]},
    }


def test_a_pod_that_is_there_cannot_be_changed_but_applied_again_and_labelled(store):
    store.apply([pod()])
    [(verb, _)] = store.apply([pod()])
    assert verb == "unchanged"
    [(verb, _)] = store.apply([pod(labels={"a": "b"})])
    assert verb == "configured"
    with pytest.raises(ManifestError, match=r"Pod default/web: spec: of a Pod that is there cannot be changed"):
        store.apply([pod("traefik/whoami")])


def test_a_pod_that_a_deployment_made_can_be_annotated_while_it_runs(store):
    store.update([statuses.node(1, store.plan, ready=True, now="2026-01-01T00:00:00Z")])
    store.apply([deployment(replicas=1)])
    (pod,) = store.snapshot.all("Pod")
    store.update([statuses.assumed_ready(pod, "2026-01-01T00:00:00Z")])
    (pod,) = store.snapshot.all("Pod")
    changed = store.merge_patch(key_of(pod), {"metadata": {"annotations": {"a": "b"}}})
    assert changed["metadata"]["annotations"] == {"a": "b"}
    assert changed["spec"] == pod["spec"]


def test_a_pod_of_an_owner_that_the_plane_does_not_run_stays(store):
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "1"}
    store.apply([pod(ownerReferences=[owner])])
    assert store.get(Key("Pod", "default", "web"))


def test_a_pod_for_a_node_that_is_not_there_can_be_deleted(store):
    obj = pod()
    obj["spec"]["nodeName"] = "worker-7"
    store.apply([obj])
    store.delete(Key("Pod", "default", "web"))
    assert store.snapshot.get("Pod", "default", "web") is None


@pytest.mark.parametrize("kind", ["Pod", "Service"])
def test_a_status_that_the_plane_acts_on_is_written_by_the_plane_alone(store, kind):
    store.apply([pod() if kind == "Pod" else service()])
    with pytest.raises(ManifestError, match=r"status: .* the plane's to write"):
        store.merge_patch(Key(kind, "default", "web"), {"status": {"podIP": "nowhere"}}, status=True)
