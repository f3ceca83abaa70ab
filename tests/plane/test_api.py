"""The API: Kubernetes' paths, JSON and refusals over a real store, and nothing at all without the token."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from plane import statuses
from plane.addresses import AddressPlan
from plane.api import selectors, tables, warning
from plane.api.paths import target_of
from plane.api.strategic import PatchError, strategic_merge
from plane.client import StatusError
from plane.kinds import KINDS
from plane.model import Key
from plane.store import HISTORY
from tests.plane.served import Served, deployment, ingress, service, serving

SERVICES = "/api/v1/namespaces/default/services"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


@pytest.fixture
def api(plan: AddressPlan, tmp_path: Path) -> Iterator[Served]:
    with serving(plan, tmp_path) as served:
        yield served


def names(answer) -> list[str]:
    assert answer.code == 200, answer.body
    return [item["metadata"]["name"] for item in answer.body["items"]]


# Who gets in.


@pytest.mark.parametrize("token", ["", "wrong", "ö"], ids=["no token", "a wrong token", "a token that is not ASCII"])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/healthz"),
        ("GET", "/version"),
        ("GET", "/api/v1/secrets"),
        ("POST", SERVICES),
        ("GET", "/nowhere"),
        ("POST", "/apis/trafficplane.dev/v1alpha1/apply"),
    ],
)
def test_nobody_gets_in_without_the_token(api, token, method, path):
    body = service() if method == "POST" else None
    answer = api.request(method, path, body, token=token.encode().decode("latin-1"))
    assert answer.code == 401
    assert (answer.body["kind"], answer.body["reason"]) == ("Status", "Unauthorized")
    assert not list(api.call(lambda store: list(store.snapshot.all("Service"))))


def test_a_body_is_not_waited_for_where_the_token_is_missing(api):
    host, port = api.api.url.removeprefix("https://").split(":")
    context = ssl.create_default_context(cadata=api.api.ca_pem)
    with (
        socket.create_connection((host, int(port)), timeout=30) as raw,
        context.wrap_socket(raw, server_hostname=host) as connection,
    ):
        connection.sendall(b"POST /api/v1/services HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")


def test_plain_http_is_not_served(api):
    host, port = api.api.url.removeprefix("https://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            received = connection.recv(100)
        except ConnectionResetError:
            received = b""
    assert not received.startswith(b"HTTP")


def test_a_certificate_of_another_authority_is_refused_by_the_client(api, plan, tmp_path):
    (tmp_path / "other").mkdir()
    with serving(plan, tmp_path / "other") as other:
        context = ssl.create_default_context(cadata=other.api.ca_pem)
        host, port = api.api.url.removeprefix("https://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as raw, pytest.raises(ssl.SSLError):
            context.wrap_socket(raw, server_hostname=host)


def test_stop_leaves_no_listener_and_ends_watches(plan, tmp_path):
    with serving(plan, tmp_path) as served:
        host, port = served.api.url.removeprefix("https://").split(":")
        client = served.client()
        events = client.watch(KINDS["Namespace"])
        assert next(events)[0] == "ADDED"
    assert [kind for kind, _ in events] in (["ADDED"], [])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=30)


# What is offered.


def test_discovery_lists_every_kind_where_it_is_served(api):
    groups = ["/api/v1", *(f"/apis/{row['preferredVersion']['groupVersion']}" for row in _body(api, "/apis")["groups"])]
    found = {}
    for path in groups:
        body = _body(api, path)
        assert body["kind"] == "APIResourceList"
        found |= {(body["groupVersion"], row["name"]): row for row in body["resources"]}
    for kind in KINDS.values():
        row = found[kind.api_version, kind.plural]
        assert (row["kind"], row["namespaced"]) == (kind.kind, kind.namespaced)
        assert api.request("GET", kind.path()).code == 200
    assert found["apps/v1", "deployments/scale"]["kind"] == "Scale"
    assert "create" not in found["v1", "nodes"]["verbs"]


def _body(api, path):
    answer = api.request("GET", path)
    assert answer.code == 200
    return answer.body


def test_version_and_health(api):
    assert _body(api, "/version")["major"] == "1"
    assert [_body(api, path) for path in ("/healthz", "/livez", "/readyz")] == ["ok"] * 3
    assert _body(api, "/apis/apps")["preferredVersion"]["groupVersion"] == "apps/v1"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/api/v1/nothing",
        "/api/v2/services",
        "/apis/apps/v1/services",
        "/api/v1/services/web",
        "/api/v1/namespaces/default/nodes",
        "/api/v1/namespaces/default/services/web/scale",
        "/api/v1/namespaces//services",
        "/api/v1/namespaces/default/services/web/status/more",
        "/apis/trafficplane.dev/v1alpha1/nothing",
    ],
)
def test_a_path_that_is_nothing_is_not_found(api, path):
    answer = api.request("GET", path)
    assert (answer.code, answer.body["kind"], answer.body["reason"]) == (404, "Status", "NotFound")


def test_every_kind_has_a_path_that_leads_back_to_it():
    for kind in KINDS.values():
        namespace = "ns" if kind.namespaced else None
        target = target_of(kind.path(namespace, "name"))
        assert target is not None
        assert (target.kind, target.key) == (kind, Key(kind.kind, namespace or "", "name"))


# Reading and writing.


@pytest.mark.parametrize("name", ["default", "kube-system"])
def test_a_namespace_that_every_cluster_has_may_not_be_deleted(api, name):
    answer = api.request("DELETE", f"/api/v1/namespaces/{name}")
    assert (answer.code, answer.body["reason"], answer.body["details"]["name"]) == (403, "Forbidden", name)
    assert answer.body["message"] == f'namespaces "{name}" is forbidden: this namespace may not be deleted'
    assert _body(api, f"/api/v1/namespaces/{name}")["status"]["phase"] == "Active"


def test_an_object_can_be_created_read_replaced_and_deleted(api):
    made = api.request("POST", SERVICES, service())
    assert made.code == 201
    assert made.body["spec"]["clusterIP"]
    changed = {**made.body, "spec": {**made.body["spec"], "ports": [{"port": 81}]}}
    assert api.request("PUT", f"{SERVICES}/web", changed).code == 200
    assert _body(api, f"{SERVICES}/web")["spec"]["ports"][0]["port"] == 81
    gone = api.request("DELETE", f"{SERVICES}/web")
    assert (gone.code, gone.body["status"], gone.body["details"]["uid"]) == (
        200,
        "Success",
        made.body["metadata"]["uid"],
    )
    assert api.request("GET", f"{SERVICES}/web").code == 404


def test_kind_namespace_and_name_are_taken_from_the_path(api):
    bare = {"metadata": {"name": "web"}, "spec": service()["spec"]}
    assert api.request("POST", "/api/v1/namespaces/other/services", bare).body["metadata"]["namespace"] == "other"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "Pod"}, "kind 'Pod' does not match the path"),
        ({"apiVersion": "v2"}, "apiVersion 'v2' does not match the path"),
        ({"metadata": {"name": "web", "namespace": "other"}}, "metadata.namespace 'other' does not match"),
        ({"metadata": {"name": ["web"]}}, "metadata.name must be text"),
        ({"metadata": ["web"]}, "metadata must be a JSON object"),
    ],
)
def test_an_object_that_is_not_what_its_path_says_is_a_bad_request(api, change, reason):
    answer = api.request("POST", SERVICES, {**service(), **change})
    assert answer.code == 400
    assert reason in answer.body["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b'"text"', 400),
        (b"\xff\xfe", 400),
        (b'{"a": NaN}', 400),
        (b"[" * 100_000, 400),
        (b"", 400),
        (b'{"metadata": {"name": "' + b"x" * 3 * 2**20 + b'"}}', 413),
    ],
    ids=["half", "a list", "text", "not UTF-8", "NaN", "nested too deep", "nothing", "too large"],
)
def test_a_malformed_body_is_refused_with_a_status(api, body, code):
    answer = api.request("POST", SERVICES, body)
    assert (answer.code, answer.body["kind"], answer.body["status"]) == (code, "Status", "Failure")


def test_yaml_is_an_unsupported_media_type(api):
    assert api.request("POST", SERVICES, b"kind: Service", content_type="application/yaml").code == 415


def test_an_invalid_object_has_a_cause_for_each_field(api):
    answer = api.request("POST", SERVICES, service(ports=[{"port": 99999}], type="Cluster", typo=1))
    assert (answer.code, answer.body["reason"]) == (422, "Invalid")
    assert answer.body["details"]["name"] == "web"
    fields = {row["field"] for row in answer.body["details"]["causes"]}
    assert fields == {"spec.ports[0].port", "spec.type", "spec.typo"}


def test_conflicts_say_which_kind_of_conflict(api):
    made = api.request("POST", SERVICES, service())
    again = api.request("POST", SERVICES, service())
    assert (again.code, again.body["reason"]) == (409, "AlreadyExists")
    api.request("PATCH", f"{SERVICES}/web", {"metadata": {"labels": {"a": "b"}}}, content_type=MERGE)
    stale = api.request("PUT", f"{SERVICES}/web", made.body)
    assert (stale.code, stale.body["reason"]) == (409, "Conflict")


def test_what_only_the_plane_makes_cannot_be_written(api):
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "x"}}
    assert api.request("POST", "/api/v1/nodes", node).code == 405
    assert api.request("DELETE", "/api/v1/nodes/x").code == 405


def test_a_node_is_cordoned_and_nothing_else_of_it_is_changed(api, plan):
    there = statuses.node(1, plan, ready=True, now="2026-01-01T00:00:00Z")
    api.call(lambda store: store.update([there]))
    node = "/api/v1/nodes/node-1"
    assert api.request("PATCH", node, {"spec": {"unschedulable": True}}, content_type=STRATEGIC).code == 200
    (row,) = api.request("GET", "/api/v1/nodes", accept=TABLE).body["rows"]
    assert "Ready,SchedulingDisabled" in row["cells"]
    for field, patch in (("metadata", {"labels": {"a": "b"}}), ("spec", {"podCIDR": "10.0.0.0/24"})):
        refused = api.request("PATCH", node, {field: patch}, content_type=MERGE)
        assert refused.code == 422
        assert f"{field}: of a Node is the plane's to write, but for spec.unschedulable" in refused.body["message"]
    without = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}}
    assert api.request("PUT", node, without).code == 422
    assert api.request("PATCH", node, {"spec": {"unschedulable": None}}, content_type=MERGE).code == 200
    assert "unschedulable" not in api.get("Node", "", "node-1")["spec"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"{SERVICES}?dryRun=All", service("other")),
        ("DELETE", f"{SERVICES}/web?dryRun=All", None),
        ("DELETE", f"{SERVICES}/web", {"dryRun": ["All"]}),
        ("DELETE", f"{SERVICES}/web", {"propagationPolicy": "Orphan"}),
    ],
)
def test_what_cannot_be_honoured_is_refused_and_changes_nothing(api, method, path, body):
    api.request("POST", SERVICES, service())
    before = api.call(lambda store: store.snapshot)
    assert api.request(method, path, body).code == 400
    assert api.call(lambda store: store.snapshot) is before


def test_a_precondition_protects_a_namesake(api):
    api.request("POST", SERVICES, service())
    answer = api.request("DELETE", f"{SERVICES}/web", {"preconditions": {"uid": "another"}})
    assert answer.code == 409
    assert api.get("Service", "default", "web")


def test_lists_are_namespaced_or_of_all_namespaces(api):
    api.request("POST", SERVICES, service())
    api.request("POST", "/api/v1/namespaces/other/services", {**service("far"), "metadata": {"name": "far"}})
    assert names(api.request("GET", SERVICES)) == ["web"]
    everywhere = api.request("GET", "/api/v1/services?limit=1")
    assert names(everywhere) == ["web", "far"]
    assert everywhere.body["kind"] == "ServiceList"
    assert {item["kind"] for item in everywhere.body["items"]} == {"Service"}
    assert everywhere.body["metadata"]["resourceVersion"] == str(api.call(lambda store: store.snapshot.generation))


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("labelSelector=app%3Dweb", ["web"]),
        ("labelSelector=app!%3Dweb", ["api"]),
        ("labelSelector=app+in+(web,api)", ["api", "web"]),
        ("fieldSelector=metadata.name%3Dapi", ["api"]),
        ("fieldSelector=metadata.name!%3Dapi,metadata.namespace%3Ddefault", ["web"]),
        ("labelSelector=app&fieldSelector=metadata.name%3Dnone", []),
    ],
)
def test_selectors_choose(api, query, expected):
    for name in ("web", "api"):
        api.request("POST", SERVICES, service(name))
    assert names(api.request("GET", f"{SERVICES}?{query}")) == expected


@pytest.mark.parametrize("query", ["labelSelector=a%3D%3D%3Db", "labelSelector=(", "fieldSelector=spec.ports%3D1"])
def test_a_selector_that_cannot_be_read_is_a_bad_request(api, query):
    assert api.request("GET", f"{SERVICES}?{query}").code == 400
    assert api.request("GET", f"{SERVICES}?watch=1&{query}").code == 400


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("", {}, True),
        ("a=1", {"a": "1"}, True),
        ("a==1,b=2", {"a": "1"}, False),
        ("a!=1", {}, True),
        ("a notin (1, 2)", {"a": "3"}, True),
        ("a notin (1,2)", {}, True),
        ("a in (1,2),!b", {"a": "2"}, True),
        ("!a", {"a": ""}, False),
        ("a=", {"a": ""}, True),
        ("example.com/a", {"example.com/a": "x"}, True),
    ],
)
def test_label_selectors_mean_what_kubernetes_means(text, labels, matches):
    assert selectors.by_labels(text)({"metadata": {"labels": labels}}) is matches


# Patches, scale and status.


def test_a_merge_patch_changes_what_it_names_and_null_removes(api):
    api.request("POST", SERVICES, service())
    patch = {"metadata": {"labels": {"app": None, "tier": "front"}}}
    answer = api.request("PATCH", f"{SERVICES}/web", patch, content_type=MERGE)
    assert (answer.code, answer.body["metadata"]["labels"]) == (200, {"tier": "front"})


def test_a_strategic_merge_patch_merges_lists_by_key(api):
    api.request("POST", DEPLOYMENTS, deployment())
    patch = {"spec": {"template": {"spec": {"containers": [{"name": "web", "image": "nginx:2"}]}}}}
    answer = api.request("PATCH", f"{DEPLOYMENTS}/web", patch, content_type=STRATEGIC)
    [container] = answer.body["spec"]["template"]["spec"]["containers"]
    assert (container["image"], container["ports"][0]["containerPort"]) == ("nginx:2", 8080)


@pytest.mark.parametrize("kind", ["application/json-patch+json", "application/apply-patch+yaml", "application/json"])
def test_other_patch_types_are_unsupported(api, kind):
    api.request("POST", SERVICES, service())
    answer = api.request("PATCH", f"{SERVICES}/web", {}, content_type=kind)
    assert (answer.code, answer.body["reason"]) == (415, "UnsupportedMediaType")


def test_a_patch_cannot_rename(api):
    api.request("POST", SERVICES, service())
    for kind in (MERGE, STRATEGIC):
        for patch in ({"metadata": {"name": "x"}}, {"kind": "Pod"}, {"metadata": None}):
            assert api.request("PATCH", f"{SERVICES}/web", patch, content_type=kind).code == 400


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        (
            {"spec": {"ports": [{"port": 80, "name": "http"}, {"port": 443}]}},
            {"spec": {"ports": [{"port": 80, "name": "web"}, {"port": 443, "$patch": "delete"}]}},
            {"spec": {"ports": [{"port": 80, "name": "web"}]}},
        ),
        (
            {"spec": {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}]}},
            {"spec": {"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}]}},
            {
                "spec": {
                    "containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}]
                }
            },
        ),
        (
            {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}},
            {"spec": {"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}], "containers": [{"name": "c"}]}},
            {"spec": {"containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}]}},
        ),
        (
            {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}},
            {"spec": {"containers": [{"$patch": "replace"}, {"name": "c"}]}},
            {"spec": {"containers": [{"name": "c"}]}},
        ),
        (
            {"spec": {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}},
            {"spec": {"ports": [{"port": 9153}, {"port": 53, "protocol": "TCP", "name": "dns-tcp"}]}},
            {
                "spec": {
                    "ports": [
                        {"port": 53, "protocol": "UDP"},
                        {"port": 53, "protocol": "TCP", "name": "dns-tcp"},
                        {"port": 9153},
                    ]
                }
            },
        ),
        (
            {"spec": {"rules": [{"host": "a"}]}},
            {"spec": {"rules": [{"host": "b"}]}},
            {"spec": {"rules": [{"host": "b"}]}},
        ),
        ({"a": {"b": 1, "c": 2}}, {"a": {"$patch": "replace", "d": 3}}, {"a": {"d": 3}}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"$retainKeys": ["c"], "c": 4}}, {"a": {"c": 4}}),
        ({"a": {"b": 1}}, {"a": {"b": None}, "x": {"y": None}}, {"a": {}, "x": {}}),
        (
            {"metadata": {"finalizers": ["a", "b"]}},
            {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"]}},
            {"metadata": {"finalizers": ["b", "c"]}},
        ),
    ],
    ids=[
        "elements are merged and deleted by their key",
        "lists in elements too",
        "the order asked for, then the others",
        "a list replaced on demand",
        "one port of two protocols is two elements",
        "lists without a key are replaced",
        "a map replaced on demand",
        "only retained keys stay",
        "null removes",
        "plain values",
    ],
)
def test_strategic_merge(target, patch, expected):
    assert strategic_merge(target, patch) == expected


@pytest.mark.parametrize(
    ("patch", "reason"),
    [
        ({"spec": {"containers": [{"image": "x"}]}}, "an element of containers has no name"),
        ({"spec": {"ports": [{"port": [80]}]}}, "an element of ports has no port"),
        ({"spec": {"$patch": "move"}}, "none of delete, merge, replace"),
        ({"spec": {"$retainKeys": 1}}, "takes a list"),
        ({"spec": {"ports": [], "$setElementOrder/ports": 1}}, "takes a list"),
    ],
)
def test_a_strategic_merge_patch_that_makes_no_sense_is_refused(patch, reason):
    with pytest.raises(PatchError, match=reason):
        strategic_merge({}, patch)


def test_scale_is_a_scale_object_that_sets_replicas(api):
    api.request("POST", DEPLOYMENTS, deployment())
    scale = _body(api, f"{DEPLOYMENTS}/web/scale")
    assert (scale["kind"], scale["spec"], scale["status"]["selector"]) == ("Scale", {"replicas": 2}, "app=web")
    patched = api.request("PATCH", f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 3}}, content_type=MERGE)
    assert patched.body["spec"] == {"replicas": 3}
    assert api.get("Deployment", "default", "web")["spec"]["replicas"] == 3
    assert api.request("PUT", f"{DEPLOYMENTS}/web/scale", scale).code == 409
    fresh = {"spec": {"replicas": 0}}
    assert api.request("PUT", f"{DEPLOYMENTS}/web/scale", fresh).body["spec"] == {"replicas": 0}


@pytest.mark.parametrize("replicas", [-1, "3", 1.5, True])
def test_a_number_of_pods_that_is_none_is_invalid(api, replicas):
    api.request("POST", DEPLOYMENTS, deployment())
    body = {"spec": {"replicas": replicas}}
    assert api.request("PATCH", f"{DEPLOYMENTS}/web/scale", body, content_type=MERGE).code == 422


def test_status_is_written_apart_from_the_rest(api):
    api.request("POST", "/apis/networking.k8s.io/v1/namespaces/default/ingresses", ingress())
    status = {"loadBalancer": {"ingress": [{"ip": "127.204.0.1"}]}}
    path = "/apis/networking.k8s.io/v1/namespaces/default/ingresses/web/status"
    answer = api.request("PATCH", path, {"status": status, "spec": {"rules": []}}, content_type=MERGE)
    assert (answer.code, answer.body["status"]) == (200, status)
    assert answer.body["spec"]["rules"][0]["host"] == "example.com"


# Watches.


def test_a_watch_begins_with_what_there_is_and_goes_on_with_what_happens(api):
    api.request("POST", SERVICES, service("first"))
    with api.client() as client:
        events = client.watch(KINDS["Service"], "default")
        assert _next(events) == ("ADDED", "first")
        api.request("POST", SERVICES, service("second"))
        assert _next(events) == ("ADDED", "second")
        api.request("PATCH", f"{SERVICES}/first", {"metadata": {"labels": {"x": "y"}}}, content_type=MERGE)
        assert _next(events) == ("MODIFIED", "first")
        api.request("DELETE", f"{SERVICES}/second")
        assert _next(events) == ("DELETED", "second")
        events.close()


def test_a_watch_after_a_list_misses_nothing_and_repeats_nothing(api):
    api.request("POST", SERVICES, service("first"))
    with api.client() as client:
        _, version = client.list(KINDS["Service"])
        api.request("POST", SERVICES, service("second"))
        events = client.watch(KINDS["Service"], since=version)
        assert _next(events) == ("ADDED", "second")
        events.close()


def test_an_object_that_stops_matching_is_deleted_for_the_watch_and_one_that_begins_to_is_added(api):
    api.request("POST", SERVICES, service("web"))
    with api.client() as client:
        _, version = client.list(KINDS["Service"], selector="app=web")
        events = client.watch(KINDS["Service"], since=version, selector="app=web")
        api.request("POST", SERVICES, service("other"))
        api.request("PATCH", f"{SERVICES}/web", {"metadata": {"labels": {"app": "x"}}}, content_type=MERGE)
        assert _next(events) == ("DELETED", "web")
        api.request("PATCH", f"{SERVICES}/web", {"metadata": {"labels": {"app": "web"}}}, content_type=MERGE)
        assert _next(events) == ("ADDED", "web")
        events.close()


def _next(events) -> tuple[str, str]:
    kind, obj = next(events)
    return kind, obj["metadata"]["name"]


def test_a_watch_ends_when_its_time_is_up(api):
    answer = api.request("GET", "/api/v1/services?watch=true&timeoutSeconds=1")
    assert (answer.code, answer.body) == (200, "")


def test_a_watch_from_a_forgotten_version_is_told_to_list_again(api):
    def overflow(store):
        web = store.create(service())
        for number in range(HISTORY + 5):  # as controllers do, without the checks of what comes from outside
            store.update([web | {"metadata": web["metadata"] | {"labels": {"n": str(number)}}}])

    api.call(overflow)
    with api.client() as client, pytest.raises(StatusError) as caught:
        next(client.watch(KINDS["Service"], since="1"))
    assert (caught.value.code, caught.value.reason) == (410, "Expired")


def test_streaming_lists_are_refused_as_by_servers_without_them(api):
    assert api.request("GET", "/api/v1/services?watch=1&sendInitialEvents=true").code == 422


def test_a_client_that_leaves_ends_its_watch_on_the_server(api):
    client = api.client()
    events = client.watch(KINDS["Namespace"])
    next(events)
    assert _settles(lambda: len(api.api._watches) == 1)
    events.close()
    assert _settles(lambda: not api.api._watches)


def _settles(condition) -> bool:
    for _ in range(500):
        if condition():
            return True
        threading.Event().wait(0.01)
    return False


# Tables.

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def test_a_table_has_the_columns_of_plane_get(api):
    api.request("POST", SERVICES, service())
    table = api.request("GET", SERVICES, accept=TABLE).body
    assert table["kind"] == "Table"
    shown = [row["name"] for row in table["columnDefinitions"] if row["priority"] == 0]
    assert shown == ["Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age"]
    [row] = table["rows"]
    assert row["cells"][0] == "web"
    assert row["object"]["kind"] == "PartialObjectMetadata"
    single = api.request("GET", f"{SERVICES}/web?includeObject=Object", accept=TABLE).body
    assert single["rows"][0]["object"]["spec"]["type"] == "ClusterIP"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("application/json", False),
        ("", False),
        ("*/*", False),
        (TABLE, True),
        ("application/json;as=Table;v=v2;g=meta.k8s.io, application/json", False),
        ("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io," + TABLE, True),
    ],
)
def test_a_table_is_given_to_those_who_ask_for_one(accept, expected):
    assert tables.wanted(accept) is expected


# The plane's own paths.

APPLY = "/apis/trafficplane.dev/v1alpha1/apply"
WAIT = "/apis/trafficplane.dev/v1alpha1/wait"


def listing(*objects) -> dict:
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}


def test_apply_says_what_became_of_each_object_and_adds_advice(api):
    api.request("POST", SERVICES, service("lonely"))  # warned about when it was made, and not here
    answer = api.request("POST", APPLY, listing(service(), deployment(paused=True)))
    assert answer.code == 200
    assert answer.body["items"] == [
        {"verb": "created", "kind": "Service", "namespace": "default", "name": "web"},
        {"verb": "created", "kind": "Deployment", "namespace": "default", "name": "web"},
    ]
    assert answer.body["warnings"] == ["Deployment default/web: not acted on: spec.paused"]
    assert answer.body["generation"] == api.call(lambda store: store.snapshot.generation)


def test_apply_takes_a_list_whole_or_not_at_all(api):
    before = api.call(lambda store: store.snapshot)
    answer = api.request("POST", APPLY, listing(service("good"), service("bad", ports=[{"port": 0}]), service("good")))
    assert answer.code == 422
    assert {row["object"] for row in answer.body["details"]["causes"]} == {"Service default/good"}
    answer = api.request("POST", APPLY, listing(service("good"), service("bad", ports=[{"port": 0}])))
    assert {row["object"] for row in answer.body["details"]["causes"]} == {"Service default/bad"}
    assert api.call(lambda store: store.snapshot) is before


def test_a_dry_run_of_apply_changes_nothing(api):
    before = api.call(lambda store: store.snapshot)
    assert api.request("POST", f"{APPLY}?dryRun=All", listing(service())).body["items"][0]["verb"] == "created"
    assert api.call(lambda store: store.snapshot) is before


def test_apply_leaves_out_what_the_plane_makes_itself_and_says_so(api):
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}
    answer = api.request("POST", APPLY, listing(node, service()))
    assert "Node n: left out, the plane makes its own" in answer.body["warnings"]
    assert [row["kind"] for row in answer.body["items"]] == ["Service"]


@pytest.mark.parametrize("body", [[], {}, {"items": {}}, {"items": [1]}, {"items": [{"metadata": []}]}, None])
def test_apply_wants_a_list(api, body):
    assert api.request("POST", APPLY, body).code == 400


def test_apply_takes_a_folder_that_is_larger_than_one_object_may_be(api):
    text = "x" * 100_000
    objects = [service(f"s{number}") for number in range(40)]
    for obj in objects:
        obj["metadata"]["annotations"] = {"text": text}
    assert len(api.request("POST", APPLY, listing(*objects)).body["items"]) == 40


def test_an_unknown_kind_in_apply_is_invalid(api):
    answer = api.request("POST", APPLY, listing({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "x"}}))
    assert answer.code == 422


def test_wait_returns_once_the_generation_is_acknowledged(api):
    assert _body(api, f"{WAIT}?generation=1")["generation"] == 1
    assert api.waited == [1]
    api.free.clear()
    late = api.request("GET", f"{WAIT}?generation=2&timeoutSeconds=0.1")
    assert (late.code, late.body["reason"]) == (504, "Timeout")


@pytest.mark.parametrize(
    "query", ["", "generation=x", "generation=1&timeoutSeconds=nan", "generation=1&timeoutSeconds=-1"]
)
def test_wait_wants_numbers(api, query):
    assert api.request("GET", f"{WAIT}?{query}").code == 400


def test_a_mistake_of_the_plane_is_a_status_and_not_a_dropped_connection(api, monkeypatch, capfd):
    monkeypatch.setattr(api.store, "create", lambda obj: 1 / 0)
    answer = api.request("POST", SERVICES, service())
    assert (answer.code, answer.body["reason"]) == (500, "InternalError")
    assert "ZeroDivisionError" in capfd.readouterr().err


# kubectl, where it is installed.

KUBECTL = shutil.which("kubectl")


@pytest.fixture
def kubectl(api):
    """kubectl against this API, with nothing of this machine's own; older than 1.29 it wants ``--validate=false``."""
    if KUBECTL is None:
        pytest.skip("kubectl is not installed")

    def run(*arguments: str, stdin: str = "", code: int = 0) -> str:
        done: subprocess.CompletedProcess[str] = api.run(KUBECTL, *arguments, stdin=stdin)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout + done.stderr

    return run


MANIFEST = """
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec:
  selector: {app: web}
  ports: [{port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "nginx:1"}]}
"""


def test_kubectl_creates_gets_replaces_and_deletes(kubectl):
    assert "service/web created" in kubectl("create", "--validate=false", "-f", "-", stdin=MANIFEST)
    header, row = kubectl("get", "services", "-o", "wide").splitlines()
    assert header.split() == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"]
    assert row.split()[0] == "web"
    assert kubectl("get", "svc", "-A", "-l", "app=web", "-o", "name") == "service/web\n"
    assert "deployment.apps/web" in kubectl("get", "all")
    replaced = kubectl("replace", "--validate=false", "-f", "-", stdin=MANIFEST.replace("port: 80", "port: 81"))
    assert "service/web replaced" in replaced
    assert "81/TCP" in kubectl("get", "svc", "web")
    assert 'service "web" deleted' in kubectl("delete", "svc", "web")
    assert '(NotFound): services "web" not found' in kubectl("get", "svc", "web", code=1)


def test_whoever_writes_an_object_is_warned_of_it_and_of_no_other(api):
    lonely = "Service default/{0}: spec.selector: no pod in namespace default has app={0}: it has no endpoint"

    def warned(method: str, path: str, body: object = None, **more: str) -> list[str] | None:
        answer = api.request(method, path, body, **more)
        assert answer.code < 300, answer.body
        return answer.headers.get_all("Warning")

    for name in ("one", "two"):
        assert warned("POST", SERVICES, service(name)) == [f'299 - "{lonely.format(name)}"']
    assert warned("GET", f"{SERVICES}/one") is None
    assert warned("PUT", f"{SERVICES}/one", service("one")) == [f'299 - "{lonely.format("one")}"']
    assert warned("PATCH", f"{SERVICES}/one", {"spec": {"selector": None}}, content_type=MERGE) == [
        '299 - "Service default/one: no spec.selector and no EndpointSlice with label kubernetes.io/service-name: '
        'it has no endpoint"'
    ]
    assert warned("DELETE", f"{SERVICES}/two") is None
    assert warned("POST", DEPLOYMENTS, deployment()) is None
    assert warned("PATCH", f"{DEPLOYMENTS}/web/scale", {"spec": {"replicas": 1}}, content_type=MERGE) is None


def test_a_warning_is_one_field_that_clients_can_read():
    def values(*lines: str) -> list[str]:
        return [value for _, value in warning.fields(lines)]

    assert values('a "b"\\c\r\nd: e → f\udcff', "x", "x") == ['299 - "a \\"b\\"\\\\c  d: e → f "', '299 - "x"']
    assert values("a" * 4096) == [f'299 - "{"a" * 4096}"']
    many = values(*(f"{number:04}{'a' * 1000}" for number in range(100)))
    assert many == [f'299 - "{number:04}{"a" * 252}"' for number in range(16)]


def test_kubectl_prints_warnings(kubectl):
    said = kubectl("apply", "--validate=false", "-f", "-", stdin=MANIFEST.replace("image: ", "stdin: true, image: "))
    assert "Warning: Service default/web: spec.selector: no pod in namespace default has app=web" in said
    changed = MANIFEST.replace("nginx:1", "redis:7")
    said = kubectl("apply", "--validate=false", "-f", "-", stdin=changed)
    image = "Deployment default/web: spec.template.spec.containers[0].image: the plane does not run redis:7"
    assert f"Warning: {image}" in said
    assert said.count("Warning: ") == 1


def test_kubectl_applies_and_patches_what_changed(kubectl, api):
    assert "deployment.apps/web created" in kubectl("apply", "--validate=false", "-f", "-", stdin=MANIFEST)
    assert "deployment.apps/web unchanged" in kubectl("apply", "--validate=false", "-f", "-", stdin=MANIFEST)
    changed = MANIFEST.replace("nginx:1", "nginx:2")
    assert "deployment.apps/web configured" in kubectl("apply", "--validate=false", "-f", "-", stdin=changed)
    template = api.get("Deployment", "default", "web")["spec"]["template"]
    assert template["spec"]["containers"][0]["image"] == "nginx:2"


def test_kubectl_leaves_the_checking_of_fields_to_the_server(kubectl):
    version = json.loads(kubectl("version", "--client", "-o", "json"))["clientVersion"]
    if int(version["minor"].rstrip("+")) < 29:
        pytest.skip("this kubectl checks fields itself")
    assert "service/web created" in kubectl("apply", "-f", "-", stdin=MANIFEST)
    said = kubectl(
        "apply", "-f", "-", stdin=MANIFEST.replace("selector: {app: web}\n  ports", "selektor: {}\n  ports"), code=1
    )
    assert "selektor" in said


def test_kubectl_scales(kubectl, api):
    kubectl("apply", "--validate=false", "-f", "-", stdin=MANIFEST)
    assert "deployment.apps/web scaled" in kubectl("scale", "deployment", "web", "--replicas=5")
    assert api.get("Deployment", "default", "web")["spec"]["replicas"] == 5


def test_kubectl_describes(kubectl):
    kubectl("apply", "--validate=false", "-f", "-", stdin=MANIFEST)
    assert "Selector:" in kubectl("describe", "service", "web")
    assert "2 desired" in kubectl("describe", "deployment", "web")


def test_kubectl_shows_what_is_wrong_with_each_field(kubectl):
    said = kubectl("create", "--validate=false", "-f", "-", stdin=MANIFEST.replace("port: 80", "port: 0"), code=1)
    assert 'The Service "web" is invalid: spec.ports[0].port' in said


def test_kubectl_watches(api):
    if KUBECTL is None:
        pytest.skip("kubectl is not installed")
    api.request("POST", SERVICES, service("first"))
    command = [KUBECTL, "get", "services", "-w", "-o", "name"]
    environment = {**api.environment(), "PATH": os.environ["PATH"]}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "service/first\n"
            api.request("POST", SERVICES, service("second"))
            assert process.stdout.readline() == "service/second\n"
        finally:
            process.kill()
