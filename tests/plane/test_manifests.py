"""Reading manifests: files, folders, lists and standard input; everything that is wrong, at once."""

import io
import json
import os
import re
from pathlib import Path

import pytest

from plane.errors import ManifestError, Problem
from plane.manifests import Manifest, cross_check, load, locate

ROOT = Path(__file__).parents[2]
NAMESPACE = "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {}}}\n"
SERVICE = (
    "apiVersion: v1\nkind: Service\nmetadata: {{name: {}}}\nspec: {{ports: [{{port: 80}}], selector: {{app: a}}}}\n"
)


def problems(*paths: object, stdin: str | None = None) -> list[Problem]:
    with pytest.raises(ManifestError) as caught:
        load([str(path) for path in paths], None if stdin is None else io.StringIO(stdin))
    return list(caught.value.problems)


def names(*paths: object, **options: bool) -> list[tuple[str, int, str]]:
    """(file name, document, object name) of everything that was loaded."""
    loaded = load([str(path) for path in paths], **options)
    return [(Path(row.file).name, row.document, row.object["metadata"]["name"]) for row in loaded.objects]


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_the_quickstart_is_the_tutorials_and_warns_of_nothing() -> None:
    loaded = load([str(ROOT / "configs" / "quickstart")])
    objects = {row.object["kind"]: row.object for row in loaded.objects}
    assert objects.keys() == {"Service", "Ingress", "Deployment"}
    assert objects["Service"]["spec"] == {
        "selector": {"app": "my-app"},
        "ports": [{"protocol": "TCP", "port": 80, "targetPort": 8080}],
    }
    backend = {"service": {"name": "my-service", "port": {"number": 80}}}
    assert objects["Ingress"]["spec"] == {
        "rules": [{"host": "example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]
    }
    (container,) = objects["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.k8s.io/e2e-test-images/agnhost:2.53"
    assert container["args"] == ["netexec", "--http-port=8080"]
    assert loaded.warnings == ()


def test_a_folder_is_read_through_in_order_of_name(tmp_path: Path) -> None:
    write(
        tmp_path,
        b_yml=NAMESPACE.format("b"),
        a__c_yaml=NAMESPACE.format("c") + "---\n" + NAMESPACE.format("d"),
        z_json=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "z"}}),
        notes_txt="no manifest",
        _github__on_yaml="on: push",
    )
    assert names(tmp_path) == [("c.yaml", 1, "c"), ("c.yaml", 2, "d"), ("b.yml", 1, "b"), ("z.json", 1, "z")]


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, a_yaml=NAMESPACE.format("a"))
    assert names(tmp_path, tmp_path / "a.yaml") == [("a.yaml", 1, "a")]


def test_standard_input_is_a_dash() -> None:
    loaded = load(["-"], io.StringIO(NAMESPACE.format("a") + "---\n---\n" + NAMESPACE.format("b")))
    assert [(row.file, row.document, row.object["metadata"]["name"]) for row in loaded.objects] == [
        ("-", 1, "a"),
        ("-", 3, "b"),
    ]


def test_items_of_lists_are_objects_of_their_document(tmp_path: Path) -> None:
    items = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in "ab"]
    nested = {"apiVersion": "v1", "kind": "List", "items": [items[1]]}
    typed = {"apiVersion": "v1", "kind": "NamespaceList", "items": [{"metadata": {"name": "c"}}]}
    whole = {"apiVersion": "v1", "kind": "List", "items": [items[0], nested]}
    write(tmp_path, a_json=json.dumps(whole) + json.dumps(typed))
    assert names(tmp_path) == [("a.json", 1, "a"), ("a.json", 1, "b"), ("a.json", 2, "c")]


def test_namespaced_objects_get_the_default_namespace(tmp_path: Path) -> None:
    other = SERVICE.format("b").replace("{name: b}", "{name: b, namespace: shop}")
    write(tmp_path, a_yaml="---\n".join((SERVICE.format("a"), other, NAMESPACE.format("c"))))
    a, b, c = (row.object["metadata"] for row in load([str(tmp_path)], namespace="web").objects)
    assert (a["namespace"], b["namespace"], c.get("namespace")) == ("web", "shop", None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "apiVersion: v1\nkind: ReplicationController\nmetadata: {name: settings}\ndata: {on: x}\n",
            "ReplicationController settings: skipped, the plane runs no ReplicationController",
            id="a kind that is none of ours, whatever is in it",
        ),
        pytest.param(
            "apiVersion: v1\nkind: Servce\nmetadata: {name: a}\n",
            "Servce a: skipped, the plane runs no Servce; did you mean Service?",
            id="a misspelt kind",
        ),
        pytest.param(
            "apiVersion: serving.knative.dev/v1\nkind: Service\nmetadata: {name: a}\n",
            "Service a: skipped, the plane runs no serving.knative.dev/v1 Service",
            id="a kind of another group with a name of ours",
        ),
    ],
)
def test_a_kind_that_the_plane_does_not_run_is_named_in_a_warning(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, a_yaml=NAMESPACE.format("a") + "---\n" + text) / "a.yaml"
    loaded = load([str(path)])
    assert [row.object["kind"] for row in loaded.objects] == ["Namespace"]
    assert loaded.warnings == (f"{path} (document 2): {expected}",)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        pytest.param(
            {"a_yaml": "a: 1\nb: ["},
            ["a.yaml:3:1 (document 1): not YAML: did not find expected"],
            id="syntax, with line and column",
        ),
        pytest.param(
            {"a_yaml": NAMESPACE.format("a") + "kind: Pod\n"},
            ['a.yaml:4:1 (document 1): Pod a: key "kind" is here twice (first on line 2)'],
            id="a key twice",
        ),
        pytest.param({"a_yaml": "- a\n- b\n"}, ["a.yaml (document 1): is a list, not an object"], id="a list"),
        pytest.param({"a_yaml": "hello\n"}, ["a.yaml (document 1): is text, not an object"], id="text"),
        pytest.param(
            {"a_yaml": "metadata: {name: a}\n"},
            ["a.yaml (document 1): a: kind: is required", "a.yaml (document 1): a: apiVersion: is required"],
            id="neither kind nor apiVersion",
        ),
        pytest.param(
            {"a_yaml": "kind: Pod\nmetadata: {name: a}\n"},
            ["a.yaml (document 1): Pod default/a: apiVersion: is required; add it, as in apiVersion: v1"],
            id="no apiVersion",
        ),
        pytest.param(
            {"a_yaml": "apiVersion: v1\nkind: Namespace\n"},
            ["a.yaml (document 1): Namespace: metadata.name: is required; add it"],
            id="no metadata",
        ),
        pytest.param(
            {"a_yaml": NAMESPACE.format("a").replace("name", "generateName")},
            ["a.yaml (document 1): Namespace a: metadata.name: is required; generateName is for objects created"],
            id="generateName",
        ),
        pytest.param(
            {"a_yaml": NAMESPACE.format("a"), "b_yaml": "---\n---\n" + NAMESPACE.format("a")},
            ["b.yaml (document 2): Namespace a: metadata.name: the same object is in a.yaml (document 1)"],
            id="an object twice",
        ),
        pytest.param(
            {"a_yaml": "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: a}\n"},
            [
                'a.yaml (document 1): Ingress default/a: apiVersion: "extensions/v1beta1" is not '
                "served for kind Ingress;"
            ],
            id="an apiVersion of the past",
        ),
        pytest.param(
            {"a_yaml": "apiVersion: v1\nkind: List\nitems: {a: b}\n"},
            ["a.yaml (document 1): List: items: must be a list"],
            id="a List whose items are none",
        ),
        pytest.param(
            {"a_json": '{"apiVersion": "v1", "kind": }'},
            ["a.json:1:30 (document 1): not JSON: Expecting value"],
            id="broken JSON",
        ),
        pytest.param(
            {
                "a_yaml": SERVICE.format("a").replace("port: 80", "port: 99999")
                + "---\nb: [\n---\n"
                + SERVICE.format("B"),
                "b_yaml": NAMESPACE.format("ok"),
                "c__d_yaml": SERVICE.format("c").replace("selector", "selectr"),
            },
            [
                "a.yaml (document 1): Service default/a: spec.ports[0].port: 99999 is out of range",
                "a.yaml:7:1 (document 2): not YAML",
                'a.yaml (document 3): Service default/B: metadata.name: "B" is not allowed',
                "c/d.yaml (document 1): Service default/c: spec.selectr: unknown field; did you mean selector?",
            ],
            id="all of it over several files",
        ),
    ],
)
def test_bad_input_is_refused_with_all_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: list[str]
) -> None:
    monkeypatch.chdir(write(tmp_path, **files))
    found = [str(problem) for problem in problems(".")]
    assert [line[: len(start)] for line, start in zip(found, expected, strict=True)] == expected


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    empty, latin = tmp_path / "empty", tmp_path / "latin.yaml"
    empty.mkdir()
    latin.write_bytes(b"name: \xe9t\xe9\n")
    looped = tmp_path / "loop.yaml"
    os.symlink(looped, looped)
    found = {problem.file: problem.reason for problem in problems(tmp_path / "none.yaml", empty, latin, looped)}
    assert found == {
        str(tmp_path / "none.yaml"): "there is no such file or folder",
        str(empty): "no *.yaml, *.yml, *.json in this folder; name another",
        str(latin): "is not UTF-8 text (byte 6); save it as UTF-8",
        str(looped): "cannot be read: Too many levels of symbolic links",
    }


def test_a_file_without_an_object_is_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, a_yaml="# later\n") / "a.yaml"
    assert load([str(path)]).warnings == (f"{path}: no object in it",)
    assert load(["-"], io.StringIO("")).warnings == ("standard input: no object in it",)


def test_a_dump_of_a_cluster_is_read_as_it_stands(tmp_path: Path) -> None:
    def item(kind: str, name: str, version: str = "v1", **fields: object) -> dict:
        managed = [{"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:spec": {}}}]
        metadata = {"name": name, "namespace": "default", "uid": "u", "managedFields": managed}
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}

    secret_ref = {"secretKeyRef": {"name": "s", "key": "k"}}
    container = {"name": "c", "image": "i", "env": [{"name": "A", "valueFrom": secret_ref}]}
    sctp = {"clusterIP": "10.96.0.7", "ports": [{"port": 80, "protocol": "SCTP"}], "fromTheFuture": 1}
    slices = {"addressType": "IPv6", "endpoints": [{"addresses": ["fd00::1"]}]}
    items = [
        item("Service", "a", spec=sctp, status={"loadBalancer": {}}),
        item("Pod", "b", spec={"containers": [container]}, status={"phase": "Running", "podIP": "10.244.1.7"}),
        item("EndpointSlice", "six", "discovery.k8s.io/v1", **slices),
        item("Pod", "wrong", spec={"containers": []}, status={"phase": "Running"}),
        item("DaemonSet", "d", "apps/v1"),
    ]
    path = tmp_path / "dump.json"
    path.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    loaded = load([str(path)], lenient=True)
    service, pod, _ = (row.object for row in loaded.objects)
    assert service["spec"]["clusterIP"] == "10.96.0.7"
    assert pod["status"]["podIP"] == "10.244.1.7"
    (warning,) = loaded.warnings
    assert re.search(r"Pod default/wrong: spec.containers: .* \(left out\)$", warning)
    fields = {problem.field for problem in problems(path)}
    assert fields == {
        "spec.fromTheFuture",
        "spec.ports[0].protocol",
        "spec.containers[0].env[0].valueFrom.secretKeyRef",
        "addressType",
        "spec.containers",
    }


def test_problems_found_later_are_located_in_the_files() -> None:
    obj = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "default"}}
    rows = [Manifest("a.yaml", 3, obj)]
    mine = Problem("", 0, "Service default/a", "spec.clusterIP", "taken")
    other = Problem("", 0, "Service default/b", "spec.clusterIP", "taken")
    with pytest.raises(ManifestError) as caught, locate(rows):
        raise ManifestError([mine, other])
    assert [(problem.file, problem.document) for problem in caught.value.problems] == [("a.yaml", 3), ("", 0)]


def test_objects_of_the_same_name_clash_only_within_kind_and_namespace() -> None:
    def row(document: int, kind: str, namespace: str) -> Manifest:
        return Manifest("a.yaml", document, {"kind": kind, "metadata": {"name": "a", "namespace": namespace}})

    apart = [row(1, "Service", "x"), row(2, "Service", "y"), row(3, "Pod", "x")]
    assert cross_check(apart) == []
    (problem,) = cross_check([*apart, row(4, "Pod", "x")])
    assert (problem.document, problem.object) == (4, "Pod x/a")
    assert "a.yaml (document 3)" in problem.reason
