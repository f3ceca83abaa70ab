"""Comparisons of made runs whose difference is known, or known to be none."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner, Result

from harness import records
from harness.cli import bench
from harness.compare.limits import broken, limit
from harness.compare.sides import CompareError, Side, asked_differently
from harness.compare.verdict import BETTER, FEW, SAME, WORSE, Finding, compare
from harness.recorder import NEVER, TIMEOUT, Recorder
from harness.records import LoadRows, Route

S = 1_000_000_000
REQUESTS = 1000
SCENARIO = """
apiVersion: trafficplane.dev/v1alpha1
kind: Scenario
metadata: {name: made}
spec:
  loads:
  - name: steady
    target: {url: "http://127.0.0.1/"}
    arrivals: {rate: 100/s}
    duration: 10s
"""
LOAD = {"name": "steady", "arrivals": "100/s", "rate": 100.0, "start_ns": 0, "duration_ns": 10 * S}


def run(seed: int, factor: float = 1.0, *, mood: float = 0.0, failing: float = 0.0, **facts: str) -> pa.Table:
    """A run of 1,000 requests of about 5 ms times ``factor``; ``mood`` is by how much whole runs differ by chance."""
    rng = np.random.default_rng(seed)
    record = Recorder(np.arange(REQUESTS) * (10 * S // REQUESTS))
    columns = record.recorded().requests
    latency = rng.lognormal(np.log(5e6 * factor) + mood * rng.standard_normal(), 0.4, REQUESTS)
    columns["done_ns"][:] = columns["intended_ns"] + latency.astype(np.int64)
    columns["status"][:] = 200
    lost = rng.random(REQUESTS) < failing
    columns["done_ns"][lost], columns["status"][lost], columns["error"][lost] = NEVER, 0, TIMEOUT
    given = {
        "run": f"run-{seed}",
        "interrupted": "false",
        "scenario": SCENARIO,
        "scenario_sha256": "one",
        "loads": json.dumps([LOAD]),
    }
    rows = LoadRows("steady", record.recorded(), Route.unknown(REQUESTS), 0)
    return records.tabulate([rows], 0, {**given, **facts})


def side(*tables: pa.Table) -> Side:
    return Side("made", tables, [records.provenance_of(table) for table in tables])


def found(base: Side, other: Side) -> dict[str, Finding]:
    return {row.metric: row for row in compare(base, other, 0.02)}


def several(seed: int, number: int, factor: float = 1.0) -> Side:
    """Runs that differ by chance as runs do, by 3 % and more."""
    return side(*(run(seed * 100 + place, factor, mood=0.03) for place in range(number)))


@pytest.mark.parametrize("number", [1, 5])
def test_a_known_difference_is_found_and_its_size_is_in_the_interval(number: int) -> None:
    rows = found(several(1, number), several(2, number, 1.3))
    for metric in ("p50", "p90"):
        assert rows[metric].verdict == WORSE
        low, high = rows[metric].change.low, rows[metric].change.high
        assert low is not None
        assert high is not None
        assert low < 0.3 + 0.1
        assert high > 0.3 - 0.1
        assert low > 0.02
    assert rows["errors"].verdict == SAME
    assert rows["rate"].verdict == SAME


def test_the_other_way_round_it_is_better() -> None:
    rows = found(several(2, 5, 1.3), several(1, 5))
    assert rows["p50"].verdict == BETTER


def test_runs_that_differ_by_chance_only_seldom_differ() -> None:
    claims = [
        any(row.verdict in (BETTER, WORSE) for row in compare(several(10 + seed, 5), several(50 + seed, 5), 0.02))
        for seed in range(12)
    ]
    assert sum(claims) <= 2  # 5 % of 12 are 0.6: with other seeds, more than 2 would be there once in fifty times


def test_a_comparison_says_the_same_each_time() -> None:
    one, two = side(run(1)), side(run(2))
    assert compare(one, two, 0.02) == compare(one, two, 0.02)


def test_errors_are_compared_as_shares_and_rank_last() -> None:
    rows = found(side(run(1)), side(run(2, failing=0.02)))
    assert rows["errors"].verdict == WORSE
    assert rows["errors"].change.value == pytest.approx(0.02, abs=0.01)
    assert rows["p99"].verdict == WORSE
    assert rows["p99"].other.value is None  # never
    assert rows["p99"].change.value is None
    assert rows["p50"].verdict == SAME


def test_what_is_shown_is_what_the_rows_say() -> None:
    table = run(1)
    rows = found(side(table), side(run(2)))
    latencies = np.sort(table["done_ns"].to_numpy() - table["intended_ns"].to_numpy())
    assert rows["p50"].base.value == latencies[REQUESTS // 2 - 1]
    assert rows["p99"].base.value == latencies[REQUESTS * 99 // 100 - 1]
    assert rows["rate"].base.value == pytest.approx(100)


def test_a_percentile_of_a_few_requests_is_not_judged() -> None:
    row = found(side(run(1)), side(run(2, 2.0)))["p99.9"]
    assert (row.verdict, row.p, row.change.low) == (FEW, None, None)


@pytest.fixture(scope="module")
def slower() -> list[Finding]:
    """What is found in a run that is slower by 30 %."""
    return compare(side(run(1)), side(run(2, 1.3)), 0.02)


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("p50 > +5%", True),
        ("p50 > +90%", False),
        ("p50 < -5%", False),
        ("steady p90 > +5%", True),
        ("p50 > 1ms", True),
        ("p50 > 1s", False),
        ("errors > 0", False),
        ("errors > +0.5%", False),
        ("rate < 50/s", False),
        ("rate < 1000/s", True),
    ],
)
def test_limits(slower: list[Finding], text: str, fails: bool) -> None:
    assert bool(broken([limit(text)], slower)) == fails


def test_a_change_that_chance_explains_breaks_no_limit() -> None:
    findings = compare(side(run(1)), side(run(2)), 0.02)
    row = next(row for row in findings if row.metric == "p99")
    assert row.change.value is not None
    sense = ">" if row.change.value > 0 else "<"
    assert not broken([limit(f"p99 {sense} {'+' if sense == '>' else '-'}0.001%")], findings)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("p99", "write it as 'p99 > +5%'"),
        ("p98 > +5%", "there are p50, p90, p99, p99.9, errors, rate"),
        ("p99 > +5ms", "a change is a share, as +5%"),
        ("p99 > 5", "no unit"),
        ("errors > 3", "only 0 is also a count"),
    ],
)
def test_a_limit_that_is_none_says_how_to_write_it(text: str, remedy: str) -> None:
    with pytest.raises(ValueError, match=re.escape(remedy)):
        limit(text)


def test_a_limit_that_nothing_can_break_is_an_error() -> None:
    findings = compare(side(run(1)), side(run(2)), 0.02)
    with pytest.raises(CompareError, match="no load 'checkout' in both; there are: steady"):
        broken([limit("checkout p99 > +5%")], findings)
    with pytest.raises(CompareError, match=r"too few requests for its p99\.9"):
        broken([limit("p99.9 > +5%")], findings)


def test_scenarios_differ_by_their_fields_and_not_by_their_layout() -> None:
    def facts(text: str, digest: str) -> dict[str, str]:
        return {"scenario": text, "scenario_sha256": digest}

    assert asked_differently(facts(SCENARIO, "a"), facts("# another\n" + SCENARIO, "b")) == []
    faster = facts(SCENARIO.replace("100/s", "150/s"), "c")
    assert asked_differently(facts(SCENARIO, "a"), faster) == ["spec.loads[0].arrivals.rate: 100/s and 150/s"]


Compare = Callable[..., Result]


@pytest.fixture
def compared(tmp_path: Path) -> Compare:
    """Writes runs under the names they are given and compares them by the command."""

    def command(*arguments: str, **runs: pa.Table) -> Result:
        for name, table in runs.items():
            folder = tmp_path / name.replace("__", "/")
            folder.mkdir(parents=True)
            records.write(table, folder / records.FILE)
        names = list(dict.fromkeys(name.partition("__")[0] for name in runs))
        return CliRunner().invoke(bench, ["compare", *(str(tmp_path / name) for name in names), *arguments])

    return command


def test_the_command_prints_a_table_and_fails_where_it_is_told_to(compared: Compare) -> None:
    result = compared("--fail-if", "p50 > +5%", a=run(1), b=run(2, 1.3))
    assert result.exit_code == 1, result.output
    assert "worse" in result.output
    assert "steady: p50 > +5% is so in" in result.output
    assert "blocks of time changed sides" in result.output


def test_the_command_as_json_with_runs_that_repeat_each_other(compared: Compare) -> None:
    runs = {f"{name}__{place}": run(10 * place + bool(name == "b")) for name in "ab" for place in range(5)}
    result = compared("-o", "json", **runs)
    assert result.exit_code == 0, result.output
    summary: dict[str, Any] = json.loads(result.output)
    assert len(summary["base"]["runs"]) == 5
    pair = summary["comparisons"][0]
    assert pair["test"].startswith("runs changed sides")
    assert {row["verdict"] for row in pair["findings"]} <= {SAME, FEW}


def test_runs_of_different_scenarios_need_force(compared: Compare, tmp_path: Path) -> None:
    other = {"scenario": SCENARIO.replace("100/s", "150/s"), "scenario_sha256": "two"}
    refused = compared(a=run(1), b=run(2, **other))
    assert refused.exit_code == 2
    assert "spec.loads[0].arrivals.rate: 100/s and 150/s" in refused.output
    forced = CliRunner().invoke(bench, ["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--force"])
    assert forced.exit_code == 0
    assert "forced although: spec.loads[0].arrivals.rate" in forced.output


def test_a_run_that_was_cut_short_needs_force(compared: Compare) -> None:
    refused = compared(a=run(1), b=run(2, interrupted="true"))
    assert refused.exit_code == 2
    assert "run run-2 was interrupted" in refused.output


def test_runs_in_one_folder_must_repeat_each_other(compared: Compare) -> None:
    refused = compared(a__1=run(1, variant="maglev"), a__2=run(2, variant="random"), b=run(3))
    assert refused.exit_code == 2
    assert "variant: maglev and random. Name the runs themselves" in refused.output


def test_a_folder_without_runs_is_bad_input(compared: Compare, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = CliRunner().invoke(bench, ["compare", str(tmp_path / "empty"), str(tmp_path / "empty")])
    assert result.exit_code == 2
    assert "holds no run" in result.output
    assert CliRunner().invoke(bench, ["compare", str(tmp_path / "empty")]).exit_code == 2
