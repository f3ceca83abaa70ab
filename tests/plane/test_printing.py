"""Tables, JSON, YAML and descriptions: what a person who knows kubectl expects to read."""

import json
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from plane.columns import COLUMNS, duration, ingress_ports, since
from plane.describe import describe, needed
from plane.errors import NotFoundError
from plane.kinds import KINDS
from plane.model import Key, Object, Snapshot
from plane.offline import settled
from plane.printing import ALL, Table, aligned, as_json, as_list, as_names, as_yaml
from tests.plane.served import deployment, ingress, service

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    """A Deployment of two ready pods, its Service and its Ingress, on two nodes; ages are counted from NOW."""
    return settled([deployment(), service(), ingress()], nodes=2)


def table(kind: str, *objects: Object, **options: bool) -> list[list[str]]:
    """The cells of a table, by its column starts."""
    text = Table(kind, **options).text(objects, NOW)
    header, *rows = text.splitlines()
    starts = [0, *(place for place in range(3, len(header)) if header[place - 3 : place] == "   " != header[place:3])]
    starts = [place for place in starts if header[place] != " "]
    return [[line[a:b].rstrip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for line in (header, *rows)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (-5, "<invalid>"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (600, "10m"),
        (3 * 3600, "3h"),
        (5 * 3600 + 120, "5h2m"),
        (47 * 3600, "47h"),
        (3 * 86400 + 7200, "3d2h"),
        (30 * 86400, "30d"),
        (800 * 86400, "2y70d"),
        (9 * 365 * 86400, "9y"),
    ],
)
def test_ages_are_written_as_kubectl_writes_them(seconds, text):
    assert duration(seconds) == text


def test_an_age_is_unknown_without_a_timestamp():
    assert since(None, NOW) == "<unknown>"
    assert since("2025-12-31T23:59:15Z", NOW) == "45s"


def test_pods_as_in_kubectl_get_pods(snapshot):
    pods = list(snapshot.all("Pod"))
    header, *rows = table("Pod", *pods, wide=True)
    assert header == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE", "READINESS GATES"]
    assert [row[1:4] for row in rows] == [["1/1", "Running", "0"]] * 2
    assert {row[6] for row in rows} == {"node-1", "node-2"}
    assert all(row[5].startswith("127.244.") for row in rows)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"status": {"phase": "Pending"}}, "Pending"),
        ({"status": {"phase": "Failed", "reason": "Evicted"}}, "Evicted"),
        (
            {
                "status": {
                    "phase": "Pending",
                    "containerStatuses": [{"state": {"waiting": {"reason": "CrashLoopBackOff"}}}],
                }
            },
            "CrashLoopBackOff",
        ),
        ({"metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"}}, "Terminating"),
    ],
)
def test_a_pod_status_says_why(change, text):
    obj = {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{}]}, "status": {}, **change}
    assert table("Pod", obj)[1][2] == text


def test_services_show_addresses_ports_and_selector():
    obj = service(clusterIP="127.96.1.1", ports=[{"port": 80}, {"port": 53, "protocol": "UDP", "nodePort": 30053}])
    header, row = table("Service", obj, wide=True)
    assert header == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"]
    assert row == ["web", "ClusterIP", "127.96.1.1", "<none>", "80/TCP,53:30053/UDP", "<unknown>", "app=web"]


@pytest.mark.parametrize(
    ("spec", "status", "text"),
    [
        ({"type": "LoadBalancer"}, {}, "<pending>"),
        ({"type": "LoadBalancer"}, {"loadBalancer": {"ingress": [{"ip": "127.200.0.2"}]}}, "127.200.0.2"),
        ({"type": "ExternalName", "externalName": "example.org"}, {}, "example.org"),
        ({"type": "ClusterIP", "externalIPs": ["192.0.2.1"]}, {}, "192.0.2.1"),
    ],
)
def test_the_external_address_of_a_service(spec, status, text):
    assert table("Service", {**service(**spec), "status": status})[1][3] == text


def test_deployments_and_replica_sets_count(snapshot):
    assert table("Deployment", *snapshot.all("Deployment"))[1][:4] == ["web", "2/2", "2", "2"]
    assert table("ReplicaSet", *snapshot.all("ReplicaSet"))[1][1:4] == ["2", "2", "2"]


def test_ingresses_show_hosts_address_and_the_ports_really_bound():
    obj = ingress()
    assert table("Ingress", obj)[1][1:5] == ["<none>", "example.com", "", "80"]
    ports = [{"port": 8080, "protocol": "TCP"}, {"port": 8443, "protocol": "TCP"}]
    obj["status"] = {"loadBalancer": {"ingress": [{"ip": "127.200.0.1", "ports": ports}]}}
    assert table("Ingress", obj)[1][3:5] == ["127.200.0.1", "8080"]
    obj["spec"]["tls"] = [{"hosts": ["example.com"]}]
    assert ingress_ports(obj) == [8080, 8443]
    obj["spec"]["rules"] = [{"host": f"{name}.example.com"} for name in "abcde"]
    assert table("Ingress", obj)[1][2] == "a.example.com,b.example.com,c.example.com + 2 more..."
    obj["spec"]["rules"] = [{"http": {}}]
    assert table("Ingress", obj)[1][2] == "*"


def test_endpoint_slices_and_nodes(snapshot):
    slices = [obj for obj in snapshot.all("EndpointSlice") if obj["metadata"]["namespace"] == "default"]
    [row] = table("EndpointSlice", *slices)[1:]
    assert row[1:3] == ["IPv4", "8080"]
    assert row[3].count("127.244.") == 2
    rows = table("Node", *snapshot.all("Node"), wide=True)[1:]
    assert [row[:3] for row in rows] == [["node-1", "Ready", "<none>"], ["node-2", "Ready", "<none>"]]
    assert [row[5:] for row in rows] == [["127.18.0.1", "127.244.1.0/24"], ["127.18.0.2", "127.244.2.0/24"]]


def test_every_kind_has_columns_that_end_in_the_age_or_say_the_name():
    assert COLUMNS.keys() == KINDS.keys()
    for columns in COLUMNS.values():
        assert {"Name"} <= {column.name for column in columns}


def test_namespaces_come_first_when_there_are_several():
    header, row = table("Service", service(), namespaces=True)
    assert (header[0], row[0]) == ("NAMESPACE", "default")
    node = {"kind": "Node", "metadata": {"name": "n"}}
    assert table("Node", node, namespaces=True)[0][0] == "NAME"


def test_rows_that_come_later_are_aligned_with_those_before():
    growing = Table("Service")
    first = growing.text([service("a-service-with-a-long-name")], NOW)
    second = growing.text([service("b")], NOW)
    assert first.splitlines()[0].index("TYPE") == second.index("ClusterIP")
    assert "NAME" not in second


def test_columns_have_three_spaces_between_and_none_behind():
    assert aligned([["a", "bb"], ["ccc", "d"]]) == "a     bb\nccc   d\n"


def test_names_say_the_group():
    assert (
        as_names([service(), deployment(), ingress()])
        == "service/web\ndeployment.apps/web\ningress.networking.k8s.io/web\n"
    )


def test_all_as_a_list_carries_kinds_and_the_resource_version(snapshot):
    whole = as_list(snapshot)
    assert (whole["kind"], whole["apiVersion"]) == ("List", "v1")
    assert whole["metadata"]["resourceVersion"] == str(snapshot.generation)
    assert {item["kind"] for item in whole["items"]} == set(ALL)
    assert all(item["apiVersion"] == KINDS[item["kind"]].api_version for item in whole["items"])
    assert json.loads(as_json(whole)) == whole
    assert yaml.safe_load(as_yaml(whole)) == whole


def test_secrets_are_not_part_of_all():
    assert "Secret" not in ALL


# Descriptions.


def sections(text: str) -> dict[str, str]:
    """Field → the rest of its line, at the left margin."""
    found = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and not line.startswith(" "):
            found[name] = value.strip()
    return found


def test_a_service_is_described_with_its_endpoints(snapshot):
    text = describe(snapshot, Key("Service", "default", "web"), NOW)
    found = sections(text)
    assert (found["Name"], found["Selector"], found["Type"]) == ("web", "app=web", "ClusterIP")
    addresses = [pod["status"]["podIP"] for pod in snapshot.all("Pod")]
    assert sorted(found["Endpoints"].split(",")) == sorted(f"{address}:8080" for address in addresses)
    for pod in snapshot.all("Pod"):
        line = next(line for line in text.splitlines() if f"{pod['status']['podIP']}:8080 " in line)
        assert line.split()[1:] == ["80", pod["metadata"]["name"], pod["spec"]["nodeName"], "Ready"]


def test_a_service_with_slow_start_is_described_with_its_time():
    slow = service()
    slow["metadata"]["annotations"] = {"trafficplane.dev/slow-start": "2m"}
    found = sections(describe(settled([slow]), Key("Service", "default", "web"), NOW))
    assert found["Slow Start"] == "120 s"


def test_an_ingress_is_described_with_the_addresses_behind_each_path(snapshot):
    text = describe(snapshot, Key("Ingress", "default", "web"), NOW)
    line = next(line for line in text.splitlines() if "example.com" in line)
    host, path, kind, backend = line.split(maxsplit=3)
    assert (host, path, kind) == ("example.com", "/", "Prefix")
    assert backend.startswith("web:80 (127.244.")


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ([ingress()], '<error: services "web" not found>'),
        ([ingress(), service(ports=[{"port": 81, "name": "http"}])], "the Service has no such port, but http=81"),
        ([ingress(), service()], "web:80 (<none>)"),
    ],
    ids=["no Service", "no such port", "no endpoint"],
)
def test_a_backend_that_leads_nowhere_says_why(objects, said):
    assert said in describe(settled(objects), Key("Ingress", "default", "web"), NOW)


def test_a_deployment_is_described_with_its_counts_template_and_replica_sets(snapshot):
    text = describe(snapshot, Key("Deployment", "default", "web"), NOW)
    assert sections(text)["Replicas"] == "2 desired | 2 updated | 2 total | 2 available | 0 unavailable"
    assert "nginx:1" in text
    [replica_set] = snapshot.all("ReplicaSet")
    assert f"{replica_set['metadata']['name']}   2" in text


def test_a_pod_is_described_with_node_containers_and_conditions(snapshot):
    pod = next(snapshot.all("Pod"))
    text = describe(snapshot, Key("Pod", "default", pod["metadata"]["name"]), NOW)
    found = sections(text)
    assert found["Node"] == f"{pod['spec']['nodeName']}/{pod['status']['hostIP']}"
    assert found["Controlled By"].startswith("ReplicaSet/web-")
    assert "    Image:          nginx:1\n" in text
    assert "Ready" in text[text.index("Conditions:") :]


def test_a_node_is_described_with_its_pods(snapshot):
    text = describe(snapshot, Key("Node", "", "node-1"), NOW)
    assert sections(text)["InternalIP"] == "127.18.0.1"
    assert [line.split()[1][:4] for line in text[text.index("Pods:") :].splitlines()[3:4]] == ["web-"]


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_can_be_described(snapshot, kind):
    obj = {"apiVersion": KINDS[kind].api_version, "kind": kind, "metadata": {"name": "x", "namespace": ""}, "spec": {}}
    there = next(snapshot.all(kind), None)
    if there is None:
        snapshot, there = snapshot.changed([obj]), obj
    key = Key(kind, there["metadata"].get("namespace", ""), there["metadata"]["name"])
    assert sections(describe(snapshot, key, NOW))["Name"] == key.name
    assert set(needed(kind)) >= {kind, "Event"}


def test_a_secret_is_described_without_its_values():
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "default"},
        "data": {"password": "aHVudGVyMg=="},
    }
    text = describe(Snapshot().changed([secret]), Key("Secret", "default", "s"), NOW)
    assert "password: 7 bytes" in text
    assert "aHVudGVy" not in text


def test_events_are_those_of_the_object_oldest_first(snapshot):
    uid = snapshot.get("Service", "default", "web")["metadata"]["uid"]

    def event(reason: str, age_s: int, **about: str) -> Object:
        involved = {"kind": "Service", "namespace": "default", "name": "web", "uid": uid, **about}
        at = (NOW - timedelta(seconds=age_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "kind": "Event",
            "metadata": {"name": reason, "namespace": "default"},
            "involvedObject": involved,
            "reason": reason,
            "message": f"about {reason}",
            "type": "Normal",
            "lastTimestamp": at,
            "count": 2,
        }

    others = [event("Other", 1, name="api"), event("Namesake", 1, uid="an earlier one")]
    text = describe(
        snapshot.changed([event("Late", 5), event("Early", 60), *others]), Key("Service", "default", "web"), NOW
    )
    rows = [line.split()[1:4] for line in text[text.index("Events:") :].splitlines()[3:]]
    assert rows == [["Early", "60s", "(x2)"], ["Late", "5s", "(x2)"]]


def test_what_is_not_there_cannot_be_described(snapshot):
    with pytest.raises(NotFoundError, match='services "nope" not found'):
        describe(snapshot, Key("Service", "default", "nope"), NOW)
