"""The client and the kubeconfig file that leads it to a plane."""

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from plane import kubeconfig
from plane.addresses import AddressPlan
from plane.client import Client, StatusError
from plane.errors import ConflictError, ManifestError, NotFoundError, PlaneError
from plane.kinds import KINDS
from plane.kubeconfig import Access
from plane.model import Key
from tests.plane.served import Served, deployment, ingress, service, serving

WEB = Key("Service", "default", "web")


@pytest.fixture
def api(plan: AddressPlan, tmp_path: Path) -> Iterator[Served]:
    with serving(plan, tmp_path) as served:
        yield served


# The kubeconfig file.


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "config"


def test_what_was_written_is_read(path):
    kubeconfig.write(path, "https://127.0.0.1:6443", "secret", "PEM\n")
    assert kubeconfig.read(path) == Access("https://127.0.0.1:6443", "secret", "PEM\n", "default")


def test_the_file_is_for_its_owner_alone_whatever_the_umask(path):
    before = os.umask(0)
    try:
        kubeconfig.write(path, "https://127.0.0.1:6443", "secret", "PEM")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_file_replaces_a_readable_one_and_leaves_nothing_beside_it(path):
    kubeconfig.write(path, "https://127.0.0.1:6442", "older", "PEM")
    path.chmod(0o644)
    kubeconfig.write(path, "https://127.0.0.1:6443", "secret", "PEM")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("text", ["not yaml: [", '{"contexts": [{"name": "production"}]}', "contexts: []"])
def test_a_file_of_other_clusters_is_left_as_it_is(path, text):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(PlaneError, match="left as it is; set TRAFFICPLANE_KUBECONFIG"):
        kubeconfig.write(path, "https://127.0.0.1:6443", "secret", "PEM")
    assert path.read_text() == text


def test_the_file_is_not_written_through_a_link(path, tmp_path):
    target = tmp_path / "target"
    target.write_text("untouched")
    path.parent.mkdir()
    path.symlink_to(target)
    with pytest.raises(PlaneError, match="left as it is"):
        kubeconfig.write(path, "https://127.0.0.1:6443", "secret", "PEM")
    assert target.read_text() == "untouched"
    assert path.is_symlink()


def test_a_file_that_kubectl_rewrote_as_yaml_is_read_with_its_namespace(path):
    kubeconfig.write(path, "https://127.0.0.1:6443", "secret", "PEM")
    document = json.loads(path.read_text())
    document["contexts"][0]["context"]["namespace"] = "team"
    path.write_text(yaml.safe_dump(document))
    assert kubeconfig.read(path) == Access("https://127.0.0.1:6443", "secret", "PEM", "team")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "a: [", "{}", '{"current-context": "x", "contexts": []}', "current-context: 1"]
)
def test_a_file_that_is_none_is_named(path, text):
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(PlaneError, match="is no kubeconfig file of a plane"):
        kubeconfig.read(path)


def test_no_file_means_no_plane(path):
    with pytest.raises(PlaneError, match=r"no plane is running .* start one with: plane up"):
        kubeconfig.read(path)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlaneError, match="cannot write the kubeconfig file"):
        kubeconfig.write(tmp_path / "file" / "config", "https://127.0.0.1:6443", "secret", "PEM")


def test_a_plane_removes_its_own_file_only(path):
    kubeconfig.write(path, "https://127.0.0.1:6443", "newer", "PEM")
    kubeconfig.remove(path, "older")
    assert path.exists()
    kubeconfig.remove(path, "newer")
    assert not path.exists()
    kubeconfig.remove(path, "newer")


def test_the_place_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv(kubeconfig.VARIABLE, str(tmp_path / "here"))
    assert kubeconfig.default_path() == tmp_path / "here"
    monkeypatch.delenv(kubeconfig.VARIABLE)
    assert kubeconfig.default_path() == Path.home() / ".trafficplane" / "config"


# The client.


def test_verbs_do_on_the_server_what_they_say(api):
    with api.client() as client:
        applied = client.apply([service(), deployment()])
        assert applied.results == [("created", WEB), ("created", Key("Deployment", "default", "web"))]
        assert client.get(WEB)["spec"]["clusterIP"]
        rows, version = client.list(KINDS["Service"], "default", "app=web")
        assert [row["metadata"]["name"] for row in rows] == ["web"]
        assert version == str(applied.generation)
        assert client.scale(Key("Deployment", "default", "web"), 4)["spec"] == {"replicas": 4}
        assert client.delete(WEB)["status"] == "Success"
        with pytest.raises(NotFoundError, match='services "web" not found'):
            client.get(WEB)


def test_a_snapshot_holds_the_kinds_asked_for(api):
    with api.client() as client:
        client.apply([service(), ingress()])
        snapshot = client.snapshot(["Service", "Node"])
    assert snapshot.get(*WEB)
    assert set(snapshot.objects) == {"Service"}


def test_refusals_come_back_as_the_store_raised_them(api):
    with api.client() as client:
        with pytest.raises(ManifestError) as caught:
            client.apply([service("a", ports=[{"port": 0}]), service("b", typo=1)])
        assert {(row.object, row.field) for row in caught.value.problems} == {
            ("Service default/a", "spec.ports[0].port"),
            ("Service default/b", "spec.typo"),
        }
        client.apply([service()])
        with pytest.raises(ConflictError):
            client._ask("POST", "/api/v1/namespaces/default/services", body=service())
        with pytest.raises(StatusError) as refused:
            client._ask("GET", "/nowhere")
        assert (refused.value.code, refused.value.reason) == (404, "NotFound")


def test_wait_returns_on_acknowledgement_and_gives_up_in_time(api):
    with api.client() as client:
        client.wait(1)
        api.free.clear()
        with pytest.raises(StatusError) as caught:
            client.wait(1, timeout_s=0.1)
    assert caught.value.code == 504


def test_a_client_can_go_on_after_it_left_a_watch(api):
    with api.client() as client:
        events = client.watch(KINDS["Namespace"])
        next(events)
        events.close()
        assert client.list(KINDS["Service"])[0] == []


def test_a_wrong_token_is_unauthorized(api):
    access = kubeconfig.read(api.kubeconfig)
    with Client(Access(access.server, "wrong", access.ca_pem)) as client, pytest.raises(StatusError) as caught:
        client.get(WEB)
    assert (caught.value.code, caught.value.reason) == (401, "Unauthorized")


def test_a_plane_that_is_gone_is_said_so_with_what_to_do(api):
    access = kubeconfig.read(api.kubeconfig)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: dialling it is refused
        server = f"https://127.0.0.1:{taken.getsockname()[1]}"
        with (
            Client(Access(server, access.token, access.ca_pem)) as client,
            pytest.raises(PlaneError, match=r"no plane answers at .* start one with: plane up"),
        ):
            client.get(WEB)


def test_a_plane_with_another_certificate_is_not_trusted(api, plan, tmp_path):
    (tmp_path / "other").mkdir()
    with serving(plan, tmp_path / "other") as other:
        mixed = Access(api.api.url, api.token, other.api.ca_pem)
        with (
            Client(mixed) as client,
            pytest.raises(PlaneError, match="is not the plane that the kubeconfig file is for"),
        ):
            client.get(WEB)


def test_names_cannot_lead_to_another_path(api):
    with api.client() as client:
        client.apply([service()])
        with pytest.raises((NotFoundError, StatusError)):
            client.get(Key("Service", "default", "../services/web"))


def test_the_client_imports_nothing_that_takes_long():
    heavy = ("numpy", "numba", "ray", "pyarrow", "aiohttp", "yaml", "kubernetes_validate", "asyncio")
    code = f"import sys, plane.client; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=180, check=True)
    assert done.stdout.strip() == "[]"
