"""The ``plane`` command as a person meets it: its words, its exit codes, and how soon it answers."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from plane import statuses
from plane.addresses import AddressPlan
from plane.model import Key, Object, key_of
from plane.store import utc_now
from tests.plane.served import PLANE, Served, deployment, ingress, service, serving

PATIENCE_S = 60.0


@pytest.fixture
def api(plan: AddressPlan, tmp_path: Path) -> Iterator[Served]:
    """A plane of two nodes that run nothing until ``make_ready``."""
    with serving(plan, tmp_path) as served:
        nodes = [statuses.node(number, plan, ready=True, now=utc_now()) for number in (1, 2)]
        served.call(lambda store: store.update(nodes))
        yield served


def make_ready(api: Served) -> None:
    """What nodes would report."""

    def report(store) -> None:
        waiting = [pod for pod in store.snapshot.all("Pod") if not statuses.ready(pod)]
        store.update(statuses.assumed_ready(pod, utc_now()) for pod in waiting)

    api.call(report)


def eventually(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


@contextmanager
def running(api: Served, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A command that goes on."""
    pipe = subprocess.PIPE
    environment = {**api.environment(), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen([PLANE, *arguments], stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def manifest(folder: Path, *objects: Object, name: str = "all.yaml") -> str:
    path = folder / name
    path.write_text(yaml.safe_dump_all(objects))
    return str(path)


def said(done: "subprocess.CompletedProcess[str]") -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


# apply


def test_apply_says_what_became_of_each_object_and_passes_warnings_on(api, tmp_path):
    path = manifest(tmp_path, service(), deployment(paused=True), ingress())
    assert said(api.plane("apply", "-f", path)) == (
        0,
        "service/web created\ndeployment.apps/web created\ningress.networking.k8s.io/web created\n",
        "Warning: Deployment default/web: not acted on: spec.paused\n",
    )
    path = manifest(tmp_path, service(), ingress())
    assert said(api.plane("apply", "-f", path)) == (
        0,
        "service/web unchanged\ningress.networking.k8s.io/web unchanged\n",
        "",
    )
    path = manifest(tmp_path, service(), deployment(replicas=3))
    assert api.plane("apply", "-f", path).stdout == "service/web unchanged\ndeployment.apps/web configured\n"


def test_apply_reads_folders_several_paths_and_standard_input(api, tmp_path):
    (tmp_path / "folder").mkdir()
    manifest(tmp_path / "folder", service("a"))
    more = manifest(tmp_path, service("b"), name="b.yaml")
    done = api.plane("apply", "-f", str(tmp_path / "folder"), "-f", "-", more, stdin=yaml.safe_dump(service("c")))
    assert done.stdout == "service/a created\nservice/c created\nservice/b created\n"


def test_apply_returns_when_traffic_goes_by_the_new_tables(api, tmp_path):
    api.free.clear()
    with running(api, "apply", "-f", manifest(tmp_path, service())) as process:
        assert process.stdout.readline() == "service/web created\n"
        eventually(lambda: api.waited)
        assert api.waited == [api.call(lambda store: store.snapshot.generation)]
        assert process.poll() is None
        api.free.set()
        assert process.wait(PATIENCE_S) == 0


def test_apply_wait_returns_when_the_pods_are_ready(api, tmp_path):
    with running(api, "apply", "--wait", "-f", manifest(tmp_path, deployment())) as process:
        assert process.stdout.readline() == "deployment.apps/web created\n"
        assert process.poll() is None
        make_ready(api)
        assert process.wait(PATIENCE_S) == 0
    assert api.waited == [int(api.get("Deployment", "default", "web")["metadata"]["resourceVersion"])]


def test_bad_manifests_are_refused_whole_with_file_document_object_and_field(api, tmp_path):
    path = manifest(tmp_path, service("good"), service("bad", ports=[{"port": 99999}]), service("worse", typo=1))
    before = api.call(lambda store: store.snapshot)
    code, out, err = said(api.plane("apply", "-f", path))
    assert (code, out) == (2, "")
    assert f"error: {path} (document 2): Service default/bad: spec.ports[0].port: 99999 is out of range" in err
    assert f"error: {path} (document 3): Service default/worse: spec.typo: unknown field" in err
    assert api.call(lambda store: store.snapshot) is before


def test_what_only_the_server_can_know_is_told_with_the_file_too(api, tmp_path):
    path = manifest(tmp_path, service("a"), service("b", clusterIP="192.0.2.1"))
    code, _, err = said(api.plane("apply", "-f", path))
    assert code == 2
    assert (
        f"error: {path} (document 2): Service default/b: spec.clusterIP: 192.0.2.1 is not in this plane's range" in err
    )
    assert api.call(lambda store: [key_of(obj).name for obj in store.snapshot.all("Service")]) == ["kube-dns"]


def test_apply_dry_run_changes_nothing(api, tmp_path):
    before = api.call(lambda store: store.snapshot)
    done = api.plane("apply", "--dry-run", "-f", manifest(tmp_path, service()))
    assert (done.returncode, done.stdout) == (0, "service/web created (dry run)\n")
    assert api.call(lambda store: store.snapshot) is before


def test_apply_puts_objects_without_a_namespace_into_the_one_given(api, tmp_path):
    obj = service()
    del obj["metadata"]["namespace"]
    api.plane("apply", "-n", "team", "-f", manifest(tmp_path, obj))
    assert api.get("Service", "team", "web")


# get


@pytest.fixture
def filled(api: Served) -> Served:
    api.call(lambda store: store.apply([service(), deployment(), ingress()]))
    make_ready(api)
    make_ready(api)
    return api


@pytest.mark.parametrize("words", [["svc"], ["services"], ["Service"], ["service", "web"], ["svc/web"]])
def test_a_kind_has_many_names(filled, words):
    code, out, _ = said(filled.plane("get", *words))
    header, row = out.splitlines()
    assert code == 0
    assert header.split() == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    assert row.split()[:2] == ["web", "ClusterIP"]


def test_several_kinds_are_told_apart_by_prefix(filled):
    code, out, _ = said(filled.plane("get", "svc,deploy"))
    services, deployments = out.split("\n\n")
    assert code == 0
    assert services.splitlines()[1].startswith("service/web ")
    assert deployments.splitlines()[1].startswith("deployment.apps/web ")
    again = filled.plane("get", "svc/web", "deploy/web").stdout
    assert [line.split()[:2] for line in again.splitlines()] == [line.split()[:2] for line in out.splitlines()]


def test_all_shows_everything_that_runs(filled):
    out = filled.plane("get", "all").stdout
    for name in (
        "pod/web-",
        "service/web",
        "deployment.apps/web",
        "replicaset.apps/web-",
        "ingress.networking.k8s.io/web",
    ):
        assert name in out
    for name in ("endpointslice.discovery.k8s.io/web-", "node/node-1", "node/node-2"):
        assert name in out


def test_one_object_as_json_is_that_object_and_several_are_a_list(filled):
    one = json.loads(filled.plane("get", "service", "web", "-o", "json").stdout)
    assert (one["kind"], one["apiVersion"]) == ("Service", "v1")
    assert one["spec"]["clusterIP"]
    several = json.loads(filled.plane("get", "pods", "-o", "json").stdout)
    assert (several["kind"], several["apiVersion"]) == ("List", "v1")
    assert {item["kind"] for item in several["items"]} == {"Pod"}
    assert all(item["status"]["podIP"] and item["status"]["hostIP"] for item in several["items"])
    everything = json.loads(filled.plane("get", "all", "-A", "-o", "json").stdout)
    assert {"Pod", "Service", "Node", "Ingress"} < {item["kind"] for item in everything["items"]}
    assert json.loads(filled.plane("get", "secrets", "-o", "json").stdout)["items"] == []


def test_other_outputs(filled):
    assert filled.plane("get", "svc,ing", "-o", "name").stdout == "service/web\ningress.networking.k8s.io/web\n"
    assert yaml.safe_load(filled.plane("get", "svc", "web", "-o", "yaml").stdout)["metadata"]["name"] == "web"
    header, *rows = filled.plane("get", "pods", "-o", "wide").stdout.splitlines()
    assert header.split()[5:7] == ["IP", "NODE"]
    assert len(rows) == 2
    assert filled.plane("get", "-o", "name", "deployment.apps/web").stdout == "deployment.apps/web\n"


def test_namespaces_and_selectors_choose(filled):
    filled.call(lambda store: store.create({**service(), "metadata": {"name": "far", "namespace": "other"}}))
    assert filled.plane("get", "svc", "-n", "other", "-o", "name").stdout == "service/far\n"
    header, *rows = filled.plane("get", "svc", "-A").stdout.splitlines()
    assert header.split()[:2] == ["NAMESPACE", "NAME"]
    assert [row.split()[:2] for row in rows] == [["default", "web"], ["kube-system", "kube-dns"], ["other", "far"]]
    assert filled.plane("get", "svc", "-A", "-l", "app=web", "-o", "name").stdout == "service/web\n"


@pytest.mark.parametrize(
    ("arguments", "code", "err"),
    [
        (["secrets"], 0, "No resources found in default namespace.\n"),
        (["secrets", "-A"], 0, "No resources found\n"),
        (["ingressclasses"], 0, "No resources found\n"),
        (["svc", "nope"], 1, 'Error from server (NotFound): services "nope" not found\n'),
        (["svc", "nope", "-o", "json"], 1, 'Error from server (NotFound): services "nope" not found\n'),
        (["svc", "-l", "a b"], 1, "Error from server (BadRequest): unable to read the label selector 'a b'"),
        (["things"], 2, 'the plane has no resource type "things"'),
        (["svc", "x", "-A"], 2, "an object cannot be shown by name across all namespaces"),
        (["all", "x"], 2, "all takes no names"),
        (["svc/web", "web"], 2, "where one argument is KIND/NAME, all must be"),
        (["svc", "-o", "xml"], 2, "'xml' is not one of"),
        ([], 2, "Missing argument"),
    ],
)
def test_get_says_what_is_not_there_and_what_makes_no_sense(filled, arguments, code, err):
    done = filled.plane("get", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert err in done.stderr


def test_what_is_there_is_shown_also_when_something_else_is_not(filled):
    code, out, err = said(filled.plane("get", "svc", "web", "nope", "-o", "name"))
    assert (code, out, err) == (1, "service/web\n", 'Error from server (NotFound): services "nope" not found\n')


def test_get_watch_goes_on_with_each_change(filled):
    with running(filled, "get", "svc", "-w") as process:
        assert process.stdout.readline().startswith("NAME")
        assert process.stdout.readline().startswith("web ")
        filled.call(lambda store: store.create(service("later")))
        assert process.stdout.readline().startswith("later ")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130


def test_a_reader_that_has_enough_is_no_error(filled):
    command = f"{PLANE} get all -A -o json | head -1"
    done = filled.run("bash", "-c", command)
    assert (done.stdout, done.stderr) == ("{\n", "")


# describe


def test_describe_shows_what_belongs_to_an_object(filled):
    code, out, _ = said(filled.plane("describe", "svc", "web"))
    assert code == 0
    assert "Selector:" in out
    assert ":8080" in out
    assert filled.plane("describe", "svc/web", "ing/web").stdout.count("Name:") == 2
    assert filled.plane("describe", "nodes").stdout.count("InternalIP:") == 2


def test_describe_says_what_is_not_there(filled):
    assert said(filled.plane("describe", "svc", "x"))[::2] == (
        1,
        'Error from server (NotFound): services "x" not found\n',
    )
    assert "No resources found" in filled.plane("describe", "secrets").stderr


# scale


def test_scale_sets_the_number_of_pods(filled):
    for words in (["deployment", "web"], ["deploy/web"]):
        assert said(filled.plane("scale", *words, "--replicas", "4")) == (0, "deployment.apps/web scaled\n", "")
    assert filled.get("Deployment", "default", "web")["spec"]["replicas"] == 4


def test_scale_wait_returns_when_that_many_pods_are_ready_and_carry_traffic(filled):
    with running(filled, "scale", "deploy", "web", "--replicas=4", "--wait") as process:
        assert process.stdout.readline() == "deployment.apps/web scaled\n"
        assert process.poll() is None
        make_ready(filled)
        assert process.wait(PATIENCE_S) == 0
    assert filled.get("Deployment", "default", "web")["status"]["readyReplicas"] == 4
    assert filled.waited


def test_scale_wait_gives_up_in_time(filled):
    code, _, err = said(filled.plane("scale", "deploy", "web", "--replicas=4", "--wait", "--timeout", "0.2"))
    assert code == 1
    assert "deployment.apps/web is not ready in time; see: plane describe deployment web" in err


@pytest.mark.parametrize(
    ("arguments", "code", "err"),
    [
        (["deploy", "nope", "--replicas", "1"], 1, 'Error from server (NotFound): deployments "nope" not found'),
        (["svc", "web", "--replicas", "1"], 2, "services cannot be scaled"),
        (["deploy", "web", "--replicas", "-1"], 2, "-1"),
        (["deploy", "web"], 2, "--replicas"),
        (["deploy", "--replicas", "1"], 2, "which one?"),
    ],
)
def test_scale_says_what_it_cannot_do(filled, arguments, code, err):
    done = filled.plane("scale", *arguments)
    assert done.returncode == code
    assert err in done.stderr


# delete


def test_delete_by_name_and_by_manifest(filled, tmp_path):
    assert said(filled.plane("delete", "svc", "web")) == (0, 'service "web" deleted\n', "")
    path = manifest(tmp_path, ingress(), service())
    code, out, err = said(filled.plane("delete", "-f", path))
    assert (code, out) == (1, 'ingress.networking.k8s.io "web" deleted\n')
    assert err == 'Error from server (NotFound): services "web" not found\n'
    assert said(filled.plane("delete", "--ignore-not-found", "-f", path)) == (0, "", "")


def first_pod(api: Served) -> Key:
    pod = api.call(lambda store: next(store.snapshot.all("Pod")))
    return Key("Pod", "default", pod["metadata"]["name"])


def test_delete_waits_until_a_pod_is_gone(filled):
    key = first_pod(filled)
    with running(filled, "delete", f"pod/{key.name}", "--grace-period", "7") as process:
        assert process.stdout.readline() == f'pod "{key.name}" deleted\n'
        assert filled.get(*key)["metadata"]["deletionGracePeriodSeconds"] == 7
        assert process.poll() is None
        filled.call(lambda store: store.update(drop=[key]))
        assert process.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("flag", ["--wait=false", "--no-wait"])
def test_delete_need_not_wait(filled, flag):
    key = first_pod(filled)
    assert filled.plane("delete", flag, "pod", key.name).returncode == 0
    assert "deletionTimestamp" in filled.get(*key)["metadata"]


@pytest.mark.parametrize(
    ("arguments", "err"),
    [
        ([], "say what to delete"),
        (["svc"], "which one?"),
        (["all"], "which one?"),
        (["-f", "/nowhere.yaml"], "/nowhere.yaml"),
    ],
)
def test_delete_without_a_name_deletes_nothing(filled, arguments, err):
    done = filled.plane("delete", *arguments)
    assert done.returncode == 2
    assert err in done.stderr


# without a plane


@pytest.mark.parametrize(
    "arguments",
    [["get", "svc"], ["describe", "svc", "x"], ["delete", "svc", "x"], ["scale", "deploy/x", "--replicas=1"]],
)
def test_without_a_plane_it_says_how_to_start_one(api, tmp_path, arguments):
    api.kubeconfig.unlink()
    code, out, err = said(api.plane(*arguments))
    assert (code, out) == (1, "")
    assert err == f"error: no plane is running ({api.kubeconfig} is not there); start one with: plane up -f PATH\n"


def test_a_plane_that_died_leaves_a_clear_message(plan, tmp_path):
    with serving(plan, tmp_path) as served:
        pass
    code, _, err = said(served.plane("get", "svc"))
    assert code == 1
    assert f"no plane answers at {served.api.url}" in err


# offline


def offline(*arguments: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
    return subprocess.run([PLANE, *arguments], input=stdin, capture_output=True, text=True, timeout=240, check=False)


def test_validate_accepts_with_warnings_and_refuses_with_everything_that_is_wrong(tmp_path):
    good = manifest(tmp_path, ingress(), name="good.yaml")
    code, out, err = said(offline("validate", "-f", good))
    assert (code, out) == (0, "1 object valid\n")
    assert "Warning: Ingress default/web" in err
    bad = manifest(tmp_path, service(typo=1), service("b", ports=[{"port": 0}]), name="bad.yaml")
    code, out, err = said(offline("validate", "-f", bad))
    assert (code, out) == (2, "")
    assert f"error: {bad} (document 1): Service default/web: spec.typo" in err
    assert f"error: {bad} (document 2): Service default/b: spec.ports[0].port" in err
    clash = manifest(tmp_path, service("a", clusterIP="127.96.0.9"), service("b", clusterIP="127.96.0.9"))
    assert f"error: {clash} (document 2): Service default/b: spec.clusterIP" in offline("validate", "-f", clash).stderr
    assert offline("validate", "-f", "-", stdin="{").returncode == 2


def test_explain_says_where_a_request_would_go(tmp_path):
    path = manifest(tmp_path, service(), deployment(), ingress())
    done = offline("explain", "http://192.0.2.1/", "-H", "Host: example.com", "-f", path, "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert {"status", "ingress", "rule", "service", "port", "endpoints", "chosen", "reasons"} <= found.keys()
    assert (found["status"], found["ingress"], found["service"]) == (200, "default/web", "default/web")
    assert len(found["endpoints"]) == 2
    text = offline("explain", "http://example.com/", "-f", path).stdout
    assert "default/web" in text


def test_explain_refuses_what_is_no_header_and_what_is_no_url(tmp_path):
    path = manifest(tmp_path, service())
    for arguments in (["http://example.com/", "-H", "nonsense"], ["ftp://example.com/"]):
        done = offline("explain", *arguments, "-f", path)
        assert (done.returncode, done.stdout) == (2, "")
        assert "nonsense" in done.stderr or "ftp" in done.stderr


@pytest.mark.parametrize("command", ["apply", "validate", "explain"])
def test_manifests_must_be_named(command, api):
    url = ["http://example.com/"] if command == "explain" else []
    done = api.plane(command, *url)
    assert done.returncode == 2
    assert "which manifests? write -f PATH" in done.stderr


def test_threads_of_a_gateway_that_is_not_wanted_are_bad_input():
    code, _, err = said(offline("up", "--no-gateway", "--gateway-threads", "2"))
    assert code == 2
    assert "leave it out, or --no-gateway" in err


def test_version():
    assert offline("version").stdout.startswith("trafficplane ")


def test_help_lists_all_commands_also_those_of_rooms_above():
    out = offline("--help").stdout
    for name in ("up", "apply", "delete", "scale", "get", "describe", "explain", "validate", "version", "bench"):
        assert f"  {name} " in out


def test_an_unknown_command_is_bad_input():
    code, _, err = said(offline("fly"))
    assert code == 2
    assert "No such command 'fly'" in err


# how soon it answers

HEAVY = (
    "numpy",
    "numba",
    "ray",
    "pyarrow",
    "aiohttp",
    "asyncio",
    "kubernetes_validate",
    "rich",
    "harness",
    "importlib.metadata",
)


@pytest.mark.parametrize(
    "arguments", [["get", "pods"], ["describe", "svc", "web"], ["scale", "deploy/web", "--replicas=1"]]
)
def test_talking_to_a_plane_imports_nothing_that_takes_long(filled, arguments):
    code = (
        "import sys; from plane.cli import main; code = main(sys.argv[1:]);"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    done = filled.run(sys.executable, "-c", code, *arguments)
    assert (done.returncode, done.stderr) == (0, "[]\n")


def test_get_takes_less_than_a_second_of_a_processor(filled):
    times = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert filled.plane("get", "all").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 1.0, times


def test_the_environment_names_the_kubeconfig_file(filled, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    filled.kubeconfig.rename(elsewhere)
    environment = {**os.environ, "HOME": str(tmp_path), "TRAFFICPLANE_KUBECONFIG": str(elsewhere)}
    done = subprocess.run([PLANE, "get", "svc"], capture_output=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0


# connections


def test_connections_are_a_table_or_json_of_all_or_of_one_service(api):
    lines = api.plane("connections").stdout.splitlines()
    assert lines[0].split() == [
        "CLIENT", "SERVICE", "FRONTEND", "BACKEND", "POD", "NODE", "STATE", "TO-POD", "TO-CLIENT", "AGE", "BECAUSE"
    ]  # fmt: skip
    assert [cell for cell in lines[1].split("  ") if cell.strip()][-1].strip() == "random"
    assert "78 B" in lines[1]
    assert "4.8 MiB" in lines[1]
    [row] = json.loads(api.plane("connections", "-s", "web", "-o", "json").stdout)["items"]
    assert row["pod"] == "default/web-1"
    assert api.plane("connections", "-s", "other").stdout == "No connection is open.\n"
