"""Where results go: a folder, or a URL they are copied to once a run has ended."""

import json
from pathlib import Path

import fsspec
import pytest
from click.testing import CliRunner, Result

from harness.cli import bench
from harness.destination import HERE, Destination, destination

FLOWS = """
apiVersion: trafficplane.dev/v1alpha1
kind: QueueScenario
metadata: {name: quick}
spec: {connections: 10_000, endpoints: 2, places: 1, lasts: 10ms, loads: [50%], algorithms: [rr]}
"""


def test_a_folder_is_a_folder_and_nothing_is_copied(tmp_path: Path) -> None:
    goes = destination(str(tmp_path / "out"))
    assert goes == Destination(tmp_path / "out")
    assert goes.keep(tmp_path / "out" / "s" / "run") == ""
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_run_is_copied_to_a_url_with_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slash: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = HERE / "s" / "run"
    (run / "deeper").mkdir(parents=True)
    (run / "requests.arrow").write_bytes(b"rows")
    (run / "deeper" / "summary.json").write_text("{}")
    url = f"file://{tmp_path}/there"
    goes = destination(url + slash)
    assert goes.folder == HERE
    assert goes.keep(run) == f"{url}/s/run"
    assert (tmp_path / "there/s/run/requests.arrow").read_bytes() == b"rows"
    assert (tmp_path / "there/s/run/deeper/summary.json").read_text() == "{}"
    assert (run / "requests.arrow").exists()


def test_what_arrow_does_not_know_fsspec_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = HERE / "run"
    run.mkdir(parents=True)
    (run / "requests.arrow").write_bytes(b"rows")
    assert destination("memory://bucket").keep(run) == "memory://bucket/run"
    assert fsspec.filesystem("memory").cat("/bucket/run/requests.arrow") == b"rows"


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> Result:
    monkeypatch.chdir(tmp_path)
    Path("quick.yaml").write_text(FLOWS)
    return CliRunner().invoke(bench, ["run", "quick.yaml", "--out", url, "-o", "json"])


@pytest.mark.parametrize("url", ["nothing://bucket/x", "file:///proc/nowhere/x", "http://127.0.0.1:9/x"])
def test_a_url_that_cannot_be_written_to_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    result = run(tmp_path, monkeypatch, url)
    assert result.exit_code == 2
    assert result.output.startswith(f"error: {url}: nothing can be written there: ")
    assert not (tmp_path / HERE).exists()


def test_a_file_where_a_folder_belongs_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "taken"
    file.write_text("mine")
    result = run(tmp_path, monkeypatch, f"{file}/below")
    assert result.exit_code == 2
    assert f"error: --out {file}/below: {file} is no folder; name one" in result.output


def test_a_copy_that_fails_leaves_the_run_here_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> str:
        raise OSError("disk full")

    monkeypatch.setattr(Destination, "keep", full)
    result = run(tmp_path, monkeypatch, f"file://{tmp_path}/there")
    assert result.exit_code == 1
    (folder,) = (HERE / "quick").iterdir()
    assert f"results are in {folder}, but can't be copied to file://{tmp_path}/there: disk full" in result.output


def test_a_run_says_where_it_was_copied_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run(tmp_path, monkeypatch, f"file://{tmp_path}/there")
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    folder = Path(said["copied_to"].removeprefix("file://"))
    assert folder.parent == tmp_path / "there" / "quick"
    assert {file.name for file in folder.iterdir()} == {file.name for file in Path(said["results"]).iterdir()}
