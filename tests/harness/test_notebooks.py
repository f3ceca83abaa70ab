"""The notebooks, executed on the run that is kept for them."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import hops, records, report

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "results" / "reference"


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a notebook from the first cell to the last, and gives what its cells have defined."""

    def run(name: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [name])
        _, defined = runpy.run_path(str(ROOT / "notebooks" / name))["app"].run()
        return dict(defined)

    return run


def test_a_tail_is_taken_apart(executed: Any) -> None:
    found = executed("a_tail.py")
    assert found["folder"] == REFERENCE / "rr"
    slowest = found["slowest"]
    assert np.array_equal(found["parts"].sum(axis=1), found["latency_ns"])
    assert found["latency_ns"][slowest].min() >= np.delete(found["latency_ns"], slowest).max()
    assert found["culprit"] == "pod"  # one request at a time, and no say in which pod
    pods = found["by_pod"].to_pydict()
    assert len(set(pods["pod"])) == 4
    assert (sum(pods["requests"]), sum(pods["in_tail"])) == (len(found["latency_ns"]), len(slowest))


def test_two_algorithms_are_compared(executed: Any) -> None:
    found = executed("two_algorithms.py")
    assert found["names"] == ["algorithm=rr", "algorithm=lc"]
    verdicts = {row["metric"]: row["verdict"] for row in found["findings"]}
    assert verdicts["p90"] == "better"
    assert verdicts["errors"] == "no difference"
    (pod,) = [row for row in found["saved"] if row["part"] == "pod"]
    assert pod["algorithm=lc p50"] < pod["algorithm=rr p50"]


@pytest.mark.parametrize("run", ["rr", "lc"])
def test_what_is_kept_is_whole_and_of_the_scenario_that_is_there(run: str) -> None:
    table = records.read(REFERENCE / run)
    facts = records.provenance_of(table)
    assert facts["scenario"] == (ROOT / "configs" / "reference.yaml").read_text()
    assert facts["schema"] == records.VERSION
    stored = json.loads((REFERENCE / run / "summary.json").read_text())
    now = report.summarise(table, report.beside(REFERENCE / run))
    assert [load["latency_ns"] for load in now["loads"]] == [load["latency_ns"] for load in stored["loads"]]
    assert hops.parts_ns(table).min() >= 0
    assert sum(path.stat().st_size for path in (REFERENCE / run).iterdir()) < 200_000
