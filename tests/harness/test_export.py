"""Runs in other tools' formats, read back as those tools document them, and beside HdrHistogram's own."""

import csv
import io
import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hdrh.histogram import HdrHistogram

from harness import records, report
from harness.cli import bench
from harness.recorder import CONNECT_REFUSED, TIMEOUT
from tests.harness.test_report import LOADS, MS, S, made, rows

NUMBER = 1000
LATENCIES_MS = [10 + (7919 * each) % 480 for each in range(NUMBER)]
FAILED = {"errors": {3: TIMEOUT, 4: CONNECT_REFUSED}, "status": {5: 503, 6: 404}}
TIMEOUT_NS = 2 * S


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    described = {"timeout_ns": TIMEOUT_NS, "method": "GET", "host": "a.example", "path": "/x", "tls": False}
    for load in LOADS:
        monkeypatch.setitem(load, "connections", 4)
        for key, value in described.items():
            monkeypatch.setitem(load, key, value)
    steady = rows("steady", LATENCIES_MS, start_ns=0, step_ns=10 * MS, **FAILED)
    loop = rows("loop", [20] * 100, start_ns=S, step_ns=MS)
    records.write(made(steady, loop), tmp_path / records.FILE)
    return tmp_path


def exported(run: Path, *arguments: str) -> Result:
    return CliRunner().invoke(bench, ["export", str(run), *arguments])


def said(run: Path, *arguments: str) -> str:
    result = exported(run, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def expected_ns() -> np.ndarray:
    """Latencies of the load ``steady`` as each format has them."""
    latency = np.array(LATENCIES_MS) * MS
    latency[[3, 4]] = TIMEOUT_NS
    return latency


def test_vegeta_gets_a_line_for_each_request_in_the_order_in_which_they_were_due(run: Path) -> None:
    lines = list(csv.reader(io.StringIO(said(run, "--as", "vegeta"))))
    assert len(lines) == NUMBER + 100
    assert {len(line) for line in lines} == {12}
    at_ns = [int(line[0]) for line in lines]
    assert at_ns == sorted(at_ns)
    begun = datetime.fromisoformat(records.provenance_of(records.read(run))["started"])
    assert at_ns[0] == round(begun.timestamp() * 1e6) * 1000
    own = [line for line in lines if line[7] == "steady"]
    assert [int(line[8]) for line in own] == list(range(NUMBER))
    assert [int(line[2]) for line in own] == expected_ns().tolist()
    assert [own[row][1] for row in (0, 3, 4, 5, 6)] == ["200", "0", "0", "503", "404"]
    errors = ["", "timeout", "connect_refused", "503 Service Unavailable", "404 Not Found"]
    assert [own[row][5] for row in (0, 3, 4, 5, 6)] == errors
    assert {tuple(line[9:]) for line in own} == {("GET", "http://a.example/x", "")}
    alone = csv.reader(io.StringIO(said(run, "--as", "vegeta", "--load", "loop")))
    assert [line[7] for line in alone] == ["loop"] * 100


def test_fortio_gets_one_load_with_exact_percentiles(run: Path) -> None:
    result = json.loads(said(run, "--as", "fortio", "--load", "steady"))
    spread, seconds = result["DurationHistogram"], np.sort(expected_ns()) / S
    assert (result["RunType"], result["RequestedQPS"], result["RequestedDuration"]) == ("HTTP", "100", "10.0s")
    assert (spread["Count"], result["ErrorsDurationHistogram"]["Count"]) == (NUMBER, 4)
    assert result["RetCodes"] == {"200": NUMBER - 4, "-1": 2, "503": 1, "404": 1}
    assert {row["Percentile"]: row["Value"] for row in spread["Percentiles"]} == {
        50: seconds[499],
        75: seconds[749],
        90: seconds[899],
        99: seconds[989],
        99.9: seconds[998],
    }
    assert (spread["Min"], spread["Max"], spread["Data"][-1]["Percent"]) == (seconds[0], seconds[-1], 100)
    for bucket in spread["Data"]:
        above = seconds > bucket["Start"] if bucket is not spread["Data"][0] else seconds >= bucket["Start"]
        assert (above & (seconds <= bucket["End"])).sum() == bucket["Count"]
    assert result["ActualQPS"] == pytest.approx(NUMBER * S / result["ActualDuration"])


def test_percentiles_are_those_of_hdrhistogram(run: Path) -> None:
    lines = said(run, "--as", "hgrm", "--load", "steady").splitlines()
    theirs = HdrHistogram(1, 10_000_000, 3)  # of µs, with three digits
    for latency in expected_ns().tolist():
        theirs.record_value(latency // 1000)
    printed = io.BytesIO()
    theirs.output_percentile_distribution(printed, 1000, 5)
    wanted = printed.getvalue().decode().splitlines()
    assert lines[0].split() == wanted[0].split()
    values, shares, counts = zip(*numbers(lines), strict=True)
    # Five lines until half of the requests that are left, as C's iterator and so wrk2 has it; Python's has others.
    assert shares[:12] == (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.775)
    assert (shares[-1], counts[-1]) == (1, NUMBER)
    same_us = [theirs.get_value_at_percentile(100 * count / NUMBER) for count in counts]
    assert values == pytest.approx(np.array(same_us) / 1000, rel=2e-3)
    mean, deviation = (float(number) for number in re.findall(r"[\d.]+", lines[-3]))
    assert (mean, deviation) == pytest.approx((theirs.get_mean_value() / 1000, theirs.get_stddev() / 1000), rel=2e-3)
    summary = report.summarise(records.read(run))["loads"][0]
    assert summary["answered"] == NUMBER - 2
    assert "Total count    =         1000]" in lines[-2]


def numbers(lines: list[str]) -> list[tuple[float, float, int]]:
    """(value, percentile, count) of each line that has them."""
    found = [line.split() for line in lines[1:] if line.strip() and not line.startswith("#")]
    return [(float(row[0]), float(row[1]), int(row[2])) for row in found]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--as", "hgrm"], "hgrm has room for one load: choose one by --load; there are: steady, loop"),
        (["--as", "fortio", "--load", "stedy"], "the run has no load 'stedy'; it has: steady, loop"),
        (["--as", "har"], "'har' is not one of"),
    ],
)
def test_what_can_not_be_written_is_said(run: Path, arguments: list[str], why: str) -> None:
    refused = exported(run, *arguments)
    assert refused.exit_code == 2
    assert why in refused.output


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    (tmp_path / records.FILE).write_bytes(b"no rows")
    refused = exported(tmp_path, "--as", "vegeta")
    assert refused.exit_code == 2
    assert "cannot be read as a run" in refused.output


def test_it_writes_to_a_file(run: Path, tmp_path: Path) -> None:
    to: Any = tmp_path / "loop.hgrm"
    assert said(run, "--as", "hgrm", "--load", "loop", "--to", str(to)) == ""
    assert numbers(to.read_text().splitlines())[-1] == (20.0, 1.0, 100)
