"""``plane bench run`` on bad input: everything is said, nothing is started, the exit code is 2."""

import plane.rayenvironment  # noqa: F401  # Ray reads it when it is imported

# isort: split
from pathlib import Path

import pytest
import ray
from click.testing import CliRunner, Result

from harness.cli import bench
from harness.scenario import read

CONFIGS = Path(__file__).parents[2] / "configs"


def run(tmp_path: Path, text: str) -> Result:
    file = tmp_path / "bench.yaml"
    file.write_text(text)
    result = CliRunner().invoke(bench, ["run", str(file), "--out", str(tmp_path / "out")])
    assert not ray.is_initialized()
    assert not (tmp_path / "out").exists()
    return result


def quickstart() -> str:
    """The quickstart with its manifests named from anywhere."""
    return (CONFIGS / "quickstart.yaml").read_text().replace("[quickstart/]", f"[{CONFIGS}/quickstart/]")


def test_the_quickstart_is_the_scenario_of_the_tour() -> None:
    scenario, _ = read(CONFIGS / "quickstart.yaml")
    assert [load.name for load in scenario.spec.loads] == ["via-ingress", "via-clusterip"]
    assert (scenario.spec.objectives.errors, scenario.spec.objectives.p99) == (0, 100_000_000)


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        (("500/s", "500"), ["spec.loads[0].arrivals.rate: 500 is not a rate: write /s, /m or /h, as 500/s"]),
        (
            ("10s", "10sec"),
            ["spec.loads[0].duration: '10sec': no unit 'sec' here", "spec.loads[1].duration: '10sec'"],
        ),
        (("/quickstart/]", "/nothing/]"), ["spec.manifests[0]: there is no "]),
        (
            ("service: my-service", "service: my-servcie"),
            ["spec.loads[1].target.service: there is no Service default/my-servcie; there are: default/my-service"],
        ),
        (("port: 80,", "port: 81,"), ["spec.loads[1].target.port: Service default/my-service has no TCP port 81"]),
        (
            ("http://example.com/", "http://exmaple.invalid/"),
            ["spec.loads[0].target.url: exmaple.invalid: no Ingress has this host"],
        ),
    ],
)
def test_bad_input_is_named_by_file_and_field(tmp_path: Path, change: tuple[str, str], problems: list[str]) -> None:
    text = quickstart()
    assert change[0] in text
    result = run(tmp_path, text.replace(*change))
    assert result.exit_code == 2
    for problem in problems:
        assert f"bench.yaml (document 1): Scenario quickstart: {problem}" in result.output


def test_bad_manifests_are_named_too(tmp_path: Path) -> None:
    manifest = tmp_path / "service.yaml"
    text = (CONFIGS / "quickstart" / "service.yaml").read_text()
    assert "port: 80" in text
    manifest.write_text(text.replace("port: 80", "port: 80000", 1))
    result = run(tmp_path, quickstart().replace(f"{CONFIGS}/quickstart/", "service.yaml"))
    assert result.exit_code == 2
    assert "service.yaml" in result.output
    assert "spec.ports[0].port" in result.output


def test_a_scenario_of_no_kind_is_told_which_there_are(tmp_path: Path) -> None:
    result = run(tmp_path, quickstart().replace("kind: Scenario", "kind: FlowScenari"))
    assert result.exit_code == 2
    words = "kind: 'FlowScenari' is no kind of scenario: write Scenario, FlowScenario, QueueScenario"
    assert words in result.output


def test_a_scenario_that_is_not_there(tmp_path: Path) -> None:
    result = CliRunner().invoke(bench, ["run", str(tmp_path / "none.yaml")])
    assert result.exit_code == 2
    assert "No such file" in result.output
