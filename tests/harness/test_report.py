"""Reports of hand-made rows whose numbers are known."""

import json
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from harness import page, plots, records, report
from harness.cli import bench
from harness.compare.blocks import BLOCKS, Rows
from harness.compare.sides import Side
from harness.recorder import CONNECT_REFUSED, INTERRUPTED, NEVER, TIMEOUT, Recorder
from harness.records import LoadRows, Names, Route
from harness.tables import console, tables

MS = 1_000_000
S = 1_000_000_000
EPOCH = 5 * S

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
  - name: loop
    target: {url: "http://127.0.0.1/"}
    arrivals: {connections: 2}
    duration: 10s
    objectives: {errors: 0.5%, max: 1s}
  objectives: {errors: 0, p50: 500ms, p99: 989ms}
"""
LOADS = [
    {"name": "steady", "arrivals": "100/s", "rate": 100.0, "start_ns": 0, "duration_ns": 10 * S},
    {"name": "loop", "arrivals": "2 connections", "rate": None, "start_ns": S, "duration_ns": 10 * S},
]


def rows(load: str, latencies_ms: list[int], *, start_ns: int, step_ns: int, **other: Any) -> LoadRows:
    """Requests due every ``step_ns`` that take as long as listed; pods in turn."""
    number = len(latencies_ms)
    record = Recorder(EPOCH + start_ns + np.arange(number) * step_ns)
    columns = record.recorded().requests
    columns["done_ns"][:] = columns["intended_ns"] + np.array(latencies_ms) * MS
    columns["status"][:] = 200
    columns["attempts"][:] = 1
    for row, error in other.get("errors", {}).items():
        columns["done_ns"][row], columns["status"][row], columns["error"][row] = NEVER, 0, error
    for row, status in other.get("status", {}).items():
        columns["status"][row] = status
    pods = Names((np.arange(number) % 3).astype(np.int32), ("default/a", "default/b", "default/c"))
    nodes = Names((np.arange(number) % 3).astype(np.int32), ("node-1", "node-2", "node-3"))
    none = Names(np.full(number, -1, np.int32))
    return LoadRows(load, record.recorded(), Route(none, none, pods, nodes, np.ones(number, np.int64)), 0)


def made(*loads: LoadRows, interrupted: bool = False) -> Any:
    facts = {
        "run": "20260102T030405Z-0001",
        "started": "2026-01-02T03:04:05.000+00:00",
        "interrupted": str(interrupted).lower(),
        "scenario": SCENARIO,
        "loads": json.dumps(LOADS),
    }
    return records.tabulate(loads, EPOCH, facts)


def steady(**other: Any) -> LoadRows:
    """1,000 requests in 10 s that take 1 to 1,000 ms, in a scrambled order."""
    latencies = np.random.default_rng(4).permutation(np.arange(1, 1001)).tolist()
    return rows("steady", latencies, start_ns=0, step_ns=10 * MS, **other)


def loop(**other: Any) -> LoadRows:
    return rows("loop", [10] * 1000, start_ns=S, step_ns=10 * MS, **other)


def test_percentiles_are_nearest_ranks_of_what_was_scheduled() -> None:
    load = report.summarise(made(steady(), loop()))["loads"][0]
    assert load["latency_ns"] == {
        "p50": 500 * MS,
        "p90": 900 * MS,
        "p99": 990 * MS,
        "p99.9": 999 * MS,
        "max": 1000 * MS,
    }


def test_requests_without_an_answer_rank_last() -> None:
    latencies = list(range(1, 1001))
    errors = dict.fromkeys(range(5), TIMEOUT)  # would have been the five fastest
    load = report.summarise(made(rows("steady", latencies, start_ns=0, step_ns=MS, errors=errors), loop()))["loads"][0]
    assert load["latency_ns"] == {"p50": 505 * MS, "p90": 905 * MS, "p99": 995 * MS, "p99.9": None, "max": None}
    assert (load["scheduled"], load["answered"], load["errors"]) == (1000, 995, 5)
    assert load["errors_by_kind"] == {"timeout": 5}


@given(
    st.lists(st.integers(0, 10**12), max_size=300),
    st.integers(0, 20),
)
def test_percentiles_agree_with_a_plain_count(latencies: list[int], unanswered: int) -> None:
    scheduled = len(latencies) + unanswered
    found = report.percentiles(np.array(latencies, np.int64), scheduled)
    shares = {"p50": "0.5", "p90": "0.9", "p99": "0.99", "p99.9": "0.999", "max": "1"}
    for name, share in shares.items():
        fitting = [
            value
            for value in sorted(latencies)
            if sum(other <= value for other in latencies) >= Fraction(share) * scheduled
        ]
        assert found[name] == (fitting[0] if fitting and scheduled else None)


def test_rates_count_from_the_start_of_a_load_to_its_last_answer() -> None:
    steady_load, loop_load = report.summarise(made(steady(), loop()))["loads"]
    # The last answer of the first load comes after its 10 s; the second lasts its 10 s although it begins 1 s later.
    assert steady_load["offered_rate"] == pytest.approx(100)
    last_s = (steady().recorded.requests["done_ns"].max() - EPOCH) / S
    assert last_s > 10
    assert steady_load["achieved_rate"] == pytest.approx(1000 / last_s)
    assert loop_load["offered_rate"] is None
    assert loop_load["achieved_rate"] == pytest.approx(100)


def test_a_status_of_400_or_more_is_an_error_with_an_answer() -> None:
    status = {3: 404, 4: 503, 5: 503, 6: 302}
    load = report.summarise(made(steady(), loop(status=status, errors={9: CONNECT_REFUSED})))["loads"][1]
    assert (load["answered"], load["errors"]) == (999, 4)
    assert load["errors_by_kind"] == {"connect_refused": 1, "status 404": 1, "status 503": 2}


def test_objectives_are_judged_load_by_load() -> None:
    summary = report.summarise(made(steady(), loop(status={0: 500})))
    verdicts = {(row["load"], row["objective"]): row for row in summary["objectives"]}
    assert {place: row["met"] for place, row in verdicts.items()} == {
        ("steady", "errors"): True,
        ("steady", "p50"): True,
        ("steady", "p99"): False,
        ("loop", "errors"): True,  # its own 0.5 %
        ("loop", "p50"): True,
        ("loop", "p99"): True,
        ("loop", "max"): True,
    }
    assert summary["met"] is False
    missed = verdicts["steady", "p99"]
    assert (missed["limit"], missed["actual"]) == ("989 ms", "990 ms")


def test_a_latency_that_never_came_misses_every_limit() -> None:
    summary = report.summarise(made(steady(), loop(errors={0: TIMEOUT})))
    verdict = next(row for row in summary["objectives"] if (row["load"], row["objective"]) == ("loop", "max"))
    assert (verdict["actual"], verdict["met"]) == ("never", False)


def test_a_load_without_a_single_request_meets_nothing() -> None:
    summary = report.summarise(made(rows("steady", [], start_ns=0, step_ns=1), loop()))
    assert [row["objective"] for row in summary["objectives"] if row["load"] == "steady" and not row["met"]] == [
        "p50",
        "p99",
        "requests",
    ]


def test_answered_requests_are_counted_by_pod() -> None:
    summary = report.summarise(made(steady(errors={0: TIMEOUT}), loop()))
    counts = {(row["load"], row["pod"]): row["answered"] for row in summary["pods"]}
    assert counts == {
        ("steady", "default/a"): 333,
        ("steady", "default/b"): 333,
        ("steady", "default/c"): 333,
        ("loop", "default/a"): 334,
        ("loop", "default/b"): 333,
        ("loop", "default/c"): 333,
    }
    assert {row["node"] for row in summary["pods"]} == {"node-1", "node-2", "node-3"}


def test_an_interrupted_run_offers_what_it_had_time_for() -> None:
    short = rows("steady", [10] * 200, start_ns=0, step_ns=10 * MS, errors={199: INTERRUPTED})
    summary = report.summarise(made(short, loop(), interrupted=True))
    assert summary["interrupted"] is True
    load = summary["loads"][0]
    # The last of 199 answers came 10 ms after the 199th request was due, at 1.98 s.
    assert load["offered_rate"] == pytest.approx(199 / 1.99)
    assert (load["scheduled"], load["cut_off"], load["errors"]) == (199, 1, 0)
    assert load["latency_ns"]["max"] == 10 * MS


def test_a_report_is_printed_again_from_the_file_alone(tmp_path: Path) -> None:
    records.write(made(steady(), loop()), tmp_path / records.FILE)
    printed = CliRunner().invoke(bench, ["report", str(tmp_path)])
    assert printed.exit_code == 1  # an objective was missed
    words = printed.output.split()
    for word in ("steady", "loop", "100/s", "990", "missed", "default/a", "node-2", "20260102T030405Z-0001"):
        assert word in words
    as_json = CliRunner().invoke(bench, ["report", str(tmp_path / records.FILE), "-o", "json"])
    assert json.loads(as_json.output) == report.summarise(made(steady(), loop()))


def test_a_file_of_somebody_else_is_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    records.write(records.tabulate([steady()], EPOCH, {}), path)
    printed = CliRunner().invoke(bench, ["report", str(path)])
    assert printed.exit_code == 2
    assert "cannot be read as a run" in printed.output
    path.write_text("junk")
    assert CliRunner().invoke(bench, ["report", str(path)]).exit_code == 2


def test_tables_show_what_never_came_and_whose_pod_is_unknown() -> None:
    unknown = loop(errors={0: TIMEOUT})
    unknown.route.pod.index[1] = -1
    summary = report.summarise(made(steady(), unknown))
    with (out := console()).capture() as captured:
        out.print(tables(summary))
    lines = captured.get().splitlines()
    assert any("loop" in line and "1 timeout" in line and "never" in line for line in lines)
    assert any("(unknown)" in line for line in lines)


def test_stages_are_told_apart_by_when_requests_were_due(monkeypatch: pytest.MonkeyPatch) -> None:
    marks = [(0, 4, "100/s"), (4, 6, "100 to 300/s")]
    stages = [{"stage": text, "start_ns": at * S, "duration_ns": lasts * S} for at, lasts, text in marks]
    monkeypatch.setitem(LOADS[0], "stages", stages)
    latencies = [10] * 400 + [20] * 600
    table = made(rows("steady", latencies, start_ns=0, step_ns=10 * MS, errors={999: TIMEOUT}), loop())
    summary = report.summarise(table)
    first, second = summary["loads"][0]["stages"]
    assert (first["stage"], first["scheduled"], first["errors"]) == ("1: 100/s", 400, 0)
    assert (second["stage"], second["scheduled"], second["errors"]) == ("2: 100 to 300/s", 600, 1)
    assert (first["latency_ns"]["max"], second["latency_ns"]["p50"]) == (10 * MS, 20 * MS)
    assert "2: 100 to 300/s" in page.page(table, summary)
    assert "> 100 to 300/s<" in plots.over_time(table, json.loads(records.provenance_of(table)["loads"]))


def test_a_stage_without_requests_has_no_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = [{"stage": text, "start_ns": at * S, "duration_ns": S} for text, at in (("100/s", 0), ("0/s", 20))]
    monkeypatch.setitem(LOADS[0], "stages", stages)
    table = made(steady(), loop())
    summary = report.summarise(table)
    with (out := console()).capture() as captured:
        out.print(tables(summary))
    (line,) = (line for line in captured.get().splitlines() if line.startswith("2: 0/s"))
    assert line.split() == ["2:", "0/s", "0", "0.0%", "0"]
    assert re.search(r"<td>2: 0/s</td>(<td class=.number.>[0.%]*</td>)+</tr>", page.page(table, summary))


def test_what_was_due_in_a_warm_up_has_rows_and_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOADS[0], "warm_up_ns", 4 * S)
    warm = replace(rows("steady", [900] * 400 + [20] * 600, start_ns=0, step_ns=10 * MS), warm_ns=EPOCH + 4 * S)
    table = made(warm, loop())
    assert table["warm_up"].to_pylist()[:1000] == [1] * 400 + [0] * 600
    summary = report.summarise(table)
    steady_load, loop_load = summary["loads"]
    assert (steady_load["warm_up"], steady_load["scheduled"], loop_load["warm_up"]) == (400, 600, 0)
    assert steady_load["latency_ns"]["max"] == 20 * MS
    assert steady_load["offered_rate"] == pytest.approx(100)
    assert {row["met"] for row in summary["objectives"] if row["load"] == "steady"} == {True}
    assert "steady: 400 requests of its warm-up have rows" in page.page(table, summary)
    (described, _) = Side("x", [table], [records.provenance_of(table)]).loads
    compared = Rows.of(table, described)
    assert compared.latency_ns.tolist() == [20 * MS] * 600
    assert (compared.block.min(), compared.block.max()) == (0, BLOCKS - 1)
