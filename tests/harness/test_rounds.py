"""Repeats and variants: what a matrix makes of manifests, how the runs take turns, and what they say together."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from rich.console import Console

from harness import matrix, records, rounds, scenario
from harness.cli import bench
from harness.compare import sides
from harness.flows.running import Result
from harness.scenario import Scenario, ScenarioError
from plane import manifests
from plane.errors import ManifestError
from plane.manifests import Loaded
from tests.harness.test_compare import SCENARIO, run

CONFIGS = Path(__file__).parents[2] / "configs"
SHOOTOUT = CONFIGS / "algorithm-shootout.yaml"
ALGORITHM = "trafficplane.dev/lb-algorithm"
REPLICAS = {"name": "replicas", "object": "Deployment/shop", "field": "spec.replicas", "values": [2, 4]}


def asked(change: Callable[[Any], object] = lambda spec: None) -> Scenario:
    document = yaml.safe_load(SHOOTOUT.read_text())
    change(document["spec"])
    return scenario.parse(yaml.safe_dump(document), "bench.yaml")


def loaded() -> Loaded:
    return manifests.load([str(CONFIGS / "algorithm-shootout")])


def objects(variant: matrix.Variant) -> dict[str, Any]:
    return {row.object["kind"]: row.object for row in variant.loaded.objects}


def test_each_variant_has_its_values_and_nothing_else_of_another() -> None:
    made = matrix.variants(asked(lambda spec: spec["matrix"].append(REPLICAS)), SHOOTOUT, before := loaded())
    assert [variant.name for variant in made[:3]] == [
        "algorithm=rr,replicas=2",
        "algorithm=rr,replicas=4",
        "algorithm=random,replicas=2",
    ]
    found = [
        (
            objects(each)["Service"]["metadata"]["annotations"][ALGORITHM],
            objects(each)["Deployment"]["spec"]["replicas"],
        )
        for each in made
    ]
    assert found == [(name, number) for name in ("rr", "random", "p2c", "lc", "maglev") for number in (2, 4)]
    assert before == loaded()


def test_without_a_matrix_there_is_one_variant_without_a_name() -> None:
    (only,) = matrix.variants(asked(lambda spec: spec.pop("matrix")), SHOOTOUT, before := loaded())
    assert only == matrix.Variant("", before, "trafficplane")


def test_an_axis_may_be_the_ingress_of_the_scenario_itself() -> None:
    axis = {"name": "by", "field": "ingress", "values": ["trafficplane", "caddy"]}
    made = matrix.variants(asked(lambda spec: spec.update(matrix=[axis])), SHOOTOUT, before := loaded())
    assert made == [
        matrix.Variant("by=trafficplane", before, "trafficplane"),
        matrix.Variant("by=caddy", before, "caddy"),
    ]


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        (
            {"object": "Service/shop2"},
            "object",
            "there is no Service/shop2 in namespace default; there are: default/shop",
        ),
        ({"namespace": "other"}, "object", "in namespace other"),
        (
            {"object": None, "field": "ingress", "values": ["caddy", "cady"]},
            "values",
            "'cady' is no ingress: write trafficplane, nginx, haproxy, envoy, traefik, caddy",
        ),
        ({"field": "spec.ports[1].port"}, "field", "spec.ports is a list of 1 in this object, there is no [1]"),
        ({"field": "spec.ports.port"}, "field", "spec.ports is no mapping in this object"),
    ],
)
def test_an_axis_that_leads_nowhere_is_named(change: dict[str, Any], field: str, said: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        matrix.variants(asked(lambda spec: spec["matrix"][0].update(change)), SHOOTOUT, loaded())
    (problem,) = caught.value.problems
    assert problem.field == f"spec.matrix[0].{field}"
    assert said in problem.reason


def test_a_value_that_may_not_be_is_named_with_its_object_and_variant() -> None:
    with pytest.raises(ManifestError) as caught:
        matrix.variants(asked(lambda spec: spec["matrix"][0].update(values=["rr", "fastest"])), SHOOTOUT, loaded())
    (problem,) = caught.value.problems
    assert (problem.object, problem.field) == ("Service default/shop", f"metadata.annotations[{ALGORITHM}]")
    assert problem.reason.endswith("(with algorithm=fastest)")


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        (lambda spec: spec["matrix"][0].update(values=[]), "spec.matrix[0].values", "needs a list"),
        (lambda spec: spec["matrix"][0].update(values=["a b", "a/b"]), "spec.matrix[0].values", "the same folder, a-b"),
        (lambda spec: spec["matrix"][0].update(values=[None]), "spec.matrix[0].values", "None is no value"),
        (lambda spec: spec["matrix"][0].update(field="spec..a"), "spec.matrix[0].field", "is no field"),
        (lambda spec: spec["matrix"][0].update(object="shop"), "spec.matrix[0].object", "as Service/my-service"),
        (lambda spec: spec["matrix"].append(spec["matrix"][0]), "spec.matrix[1].name", "another axis"),
        (lambda spec: spec["matrix"][0].pop("object"), "spec.matrix[0].object", "only the field ingress may vary"),
        (lambda spec: spec.update(repeats=0), "spec.repeats", "greater than or equal to 1"),
        (
            lambda spec: spec["matrix"][0].update(values=list(range(101))) or spec.update(repeats=10),
            "spec.matrix",
            "1,010",
        ),
        (lambda spec: spec.pop("manifests"), "spec.matrix", "needs manifests"),
    ],
)
def test_what_is_wrong_with_a_matrix_is_named(change: Callable[[Any], object], field: str, said: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        asked(change)
    assert said in {problem.field: problem.reason for problem in caught.value.problems}[field]


class Made:
    """Runs whose rows are made: the second variant is half as fast again as the first."""

    def __init__(self, interrupted_in: int = 0, raised_in: int = 0):
        self.turns: list[int] = []
        self._interrupted_in = interrupted_in
        self._raised_in = raised_in

    def __call__(self, place: int, folder: Path) -> Result:
        self.turns.append(place)
        turn = len(self.turns)
        if turn == self._raised_in:
            raise KeyboardInterrupt
        interrupted = str(turn == self._interrupted_in).lower()
        variant = {"variant": f"speed={place}"} if folder.name.startswith("speed") else {}
        facts = {"started": "then", "interrupted": interrupted, "run": f"run-{turn}", **variant}
        (folder / f"run-{turn}").mkdir(parents=True)
        records.write(run(turn, 1 + place / 2, **facts), folder / f"run-{turn}" / records.FILE)
        return Result(folder, {"interrupted": interrupted == "true"})


SPEEDS = ("speed=0", "speed=1")


def play(run: Made, folder: Path, repeats: int = 2, names: tuple[str, ...] = SPEEDS) -> Result:
    return rounds.play(names, repeats, run, folder, Console(quiet=True))


def test_variants_take_turns_and_their_rows_are_put_together(tmp_path: Path) -> None:
    result = play(made := Made(), tmp_path)
    assert made.turns == [0, 1, 0, 1]
    slow, fast = (row["loads"][0] for row in reversed(result.summary["variants"]))
    assert [len(row["runs"]) for row in result.summary["variants"]] == [2, 2]
    assert fast["scheduled"] == slow["scheduled"] == 2000
    both = sorted(
        row["done_ns"] - row["intended_ns"]
        for turn in (1, 3)
        for row in records.read(tmp_path / f"speed=0/run-{turn}").to_pylist()
    )
    assert (fast["latency_ns"]["p99"], fast["latency_ns"]["max"]) == (both[1979], both[1999])
    assert slow["latency_ns"]["p50"] > 1.3 * fast["latency_ns"]["p50"]
    assert result.summary["met"]
    assert json.loads((tmp_path / "summary.json").read_text()) == result.summary


def test_report_reads_the_folder(tmp_path: Path) -> None:
    written = play(Made(), tmp_path).summary
    told = CliRunner().invoke(bench, ["report", str(tmp_path), "-o", "json"])
    assert (told.exit_code, json.loads(told.output)) == (0, written)
    table = CliRunner().invoke(bench, ["report", str(tmp_path)]).output
    assert [line.split()[0] for line in table.splitlines()[2:]] == list(SPEEDS)


def test_repeats_without_a_matrix_are_a_side_by_themselves(tmp_path: Path) -> None:
    (only,) = play(Made(), tmp_path, names=("",)).summary["variants"]
    assert (only["variant"], len(only["runs"]), only["loads"][0]["scheduled"]) == ("", 2, 2000)
    assert sides.side(tmp_path).runs == ["run-1", "run-2"]


def test_compare_takes_each_variant_of_the_folder_for_a_side(tmp_path: Path) -> None:
    play(Made(), tmp_path)
    base, other = (sides.side(path) for path in rounds.sides(tmp_path))
    assert [len(base.runs), len(other.runs)] == [2, 2]
    assert sides.differences(base, other)[0] == "variant: speed=0 and speed=1"


def test_compare_finds_the_variants_by_itself(tmp_path: Path) -> None:
    play(Made(interrupted_in=2), tmp_path)
    told = CliRunner().invoke(bench, ["compare", str(tmp_path)])
    assert told.exit_code == 2
    assert f"{tmp_path}/speed=0 and {tmp_path}/speed=1 are no whole runs" in told.output


@pytest.mark.parametrize("made", [Made(interrupted_in=2), Made(raised_in=3)])
def test_an_interruption_ends_the_rounds_and_what_was_measured_stays(made: Made, tmp_path: Path) -> None:
    result = play(made, tmp_path)
    assert result.summary["interrupted"]
    assert sum(len(row["runs"]) for row in result.summary["variants"]) == 2


def test_one_before_the_first_request_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        play(Made(raised_in=1), tmp_path)
    assert not list(tmp_path.iterdir())


def test_runs_that_do_not_repeat_each_other_are_no_rounds(tmp_path: Path) -> None:
    play(Made(), tmp_path, names=("",))
    (tmp_path / "other").mkdir()
    records.write(run(9, started="then", scenario=SCENARIO, scenario_sha256="two"), tmp_path / "other" / records.FILE)
    told = CliRunner().invoke(bench, ["report", str(tmp_path)])
    assert told.exit_code == 2
    assert "do not repeat each other" in told.output
