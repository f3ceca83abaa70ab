"""A scenario of queues from its file to its rows, and what is refused."""

import json
import threading
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from harness.cli import bench
from harness.flows import queues, waiting
from harness.flows.queues import arrivals_of, carry, made
from harness.flows.queuescenario import QueueScenario, QueueSpec, read_scenario
from harness.flows.shapes import Shape
from harness.scenario import ScenarioError, parse_as
from harness.tables import console
from kernels.jit import INTERPRETED

CONFIG = Path(__file__).parents[2] / "configs" / "flows-queueing.yaml"
SPEC: dict[str, Any] = {"connections": 50_000, "endpoints": 20, "loads": ["50%"], "algorithms": ["random"]}

pytestmark = pytest.mark.skipif(INTERPRETED, reason="needs many connections")


def text_of(**spec: Any) -> str:
    head = {"apiVersion": "trafficplane.dev/v1alpha1", "kind": "QueueScenario", "metadata": {"name": "made"}}
    return yaml.safe_dump(
        {**head, "spec": {key: value for key, value in {**SPEC, **spec}.items() if value is not None}}
    )


def spec_of(**spec: Any) -> QueueSpec:
    return parse_as(QueueScenario, text_of(**spec)).spec


def test_the_scenario_that_comes_with_it_is_whole() -> None:
    scenario, _ = read_scenario(CONFIG)
    assert scenario.spec.shape == Shape("lognormal", 1.5)
    assert scenario.spec.lasts == 10_000_000


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loads": ["100%"]}, "write a part of what backends can serve, from 1% to less than 100%"),
        ({"loads": [1]}, "1 is no load"),
        ({"loads": ["50%", "50%"]}, "'50%' is there already"),
        ({"algorithms": ["ring"]}, "'ring' is no algorithm of the plane"),
        ({"algorithms": []}, "spec.algorithms"),
        ({"shape": "pareto/1"}, "is no shape"),
        ({"shape": "lognormal"}, "write exponential, constant, lognormal/1.5"),
        ({"shape": "lognormal/nan"}, "is no shape"),
        ({"lasts": "1000h"}, "more than a hundred years"),
        ({"places": 0}, "spec.places"),
        ({"queue": 5}, "queue"),
        ({"loads": None}, "spec.loads"),
        ({"trace": "t.csv"}, "exactly one of connections and trace"),
        ({"trace": "t.csv", "connections": None, "lasts": "1s"}, "goes with connections"),
        ({"slow": {"endpoints": 21, "times": 2}}, "are 21, more than there are endpoints"),
        ({"slow": {"endpoints": 2, "times": 1}}, "spec.slow.times"),
        ({"algorithms": ["peak"]}, "mh, maglev, p2c, ewma, peak-ewma"),
    ],
)
def test_what_is_wrong_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        spec_of(**change)
    assert words in str(caught.value)


@pytest.mark.parametrize("shape", ["exponential", "constant", "lognormal/0.8", "pareto/3"])
def test_arrivals_keep_the_load_busy(shape: str) -> None:
    arrivals = arrivals_of(spec_of(shape=shape, places=3, lasts="2ms"), Fraction(1, 2), 200_000)
    assert arrivals.lasts_ns.mean() == pytest.approx(2e6, rel=0.02)
    assert arrivals.lasts_ns.sum() / arrivals.at_ns[-1] == pytest.approx(0.5 * 20 * 3, rel=0.02)
    assert (np.diff(arrivals.at_ns) >= 0).all()


def test_rows_have_littles_law_and_m_m_1() -> None:
    """L = λW, and the mean of both in M/M/1 at half load: one connection, and one mean duration waited."""
    waits, active = carry(spec_of(), "random", made(spec_of(), Fraction(1, 2), 200_000))
    assert waits["waited_ns"][0].as_py() == pytest.approx(10e6, rel=0.05)
    assert waits["waiting"][0].as_py() / waits["connections"][0].as_py() == pytest.approx(0.5, abs=0.01)
    assert np.mean(active["active"].to_numpy()) == pytest.approx(1.0, rel=0.1)  # 2,000 looks, of deviation 1.4 each
    assert active["active"].to_numpy().min() == 0


def test_a_run_is_what_its_seed_says_and_can_be_reported_again(tmp_path: Path) -> None:
    file = tmp_path / "made.yaml"
    file.write_text(text_of(loads=["50%", "80%"], algorithms=["random", "lc"]))
    done = CliRunner().invoke(bench, ["run", str(file), "--out", str(tmp_path), "-o", "json"])
    assert done.exit_code == 0, done.output
    first = json.loads(done.stdout)
    again = queues.run(file, tmp_path, console(), threading.Event())
    one, other = (queues.read(folder) for folder in (Path(first["results"]), again.folder))
    assert one[1].equals(other[1])
    assert one[0].drop_columns("spent_ns").equals(other[0].drop_columns("spent_ns"))
    random, least = first["queues"][2:]
    assert (random["algorithm"], least["algorithm"], random["load"]) == ("random", "lc", 0.8)
    assert least["waited_ns"]["p99"] < random["waited_ns"]["p99"] / 5
    assert random["flows"] == SPEC["connections"]
    shown = CliRunner().invoke(bench, ["report", str(again.folder)])
    assert shown.exit_code == 0, shown.output
    assert "load 80 %" in shown.output
    reported = CliRunner().invoke(bench, ["report", str(again.folder), "-o", "json"])
    assert json.loads(reported.stdout) == waiting.summarise(*other) == again.summary


@pytest.mark.parametrize("algorithm", ["rr", "lc", "peak-ewma"])
def test_queues_over_ipv6_are_those_over_ipv4(algorithm: str) -> None:
    """Turns know no addresses: all waits are the same. Others are as long within what chance makes of ties."""
    one, other = (
        carry(spec, algorithm, made(spec, Fraction(4, 5), 50_000))[0]
        for spec in (spec_of(addresses="IPv4"), spec_of(addresses="IPv6"))
    )
    if algorithm == "rr":
        assert one.drop_columns("spent_ns").equals(other.drop_columns("spent_ns"))
    assert other["waited_ns"][0].as_py() == pytest.approx(one["waited_ns"][0].as_py(), rel=0.1)


def test_a_run_that_is_interrupted_at_once_leaves_what_was_finished(tmp_path: Path) -> None:
    """The signal comes before the third algorithm."""

    class Signalled(threading.Event):
        asked = 0

        def is_set(self) -> bool:
            self.asked += 1
            if self.asked == 3:
                raise KeyboardInterrupt
            return super().is_set()

    (tmp_path / "made.yaml").write_text(text_of(algorithms=["random", "lc", "rr"], connections=1_000))
    summary = queues.run(tmp_path / "made.yaml", tmp_path, console(), Signalled()).summary
    assert (summary["interrupted"], [row["algorithm"] for row in summary["queues"]]) == (True, ["random", "lc"])


def test_a_run_that_was_stopped_before_anything_was_finished_is_none(tmp_path: Path) -> None:
    (tmp_path / "made.yaml").write_text(text_of())
    stop = threading.Event()
    stop.set()
    with pytest.raises(KeyboardInterrupt):
        queues.run(tmp_path / "made.yaml", tmp_path, console(), stop)
