"""What is left of a load whose process is killed, and of one whose journal can't be written."""

import asyncio
import json
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

import harness
from harness import connections, events, records, report, resources
from harness.cli import bench
from harness.compare.sides import refusals, side
from harness.drivers.stream import Stream
from harness.events import Happened
from harness.journal import Header, Journal, JournalError, noting
from harness.resources import Sample
from harness.workload import request_ids
from kernels.layout_load import NEVER, ROW
from tests.harness.subjects import MS, OK, answering, open_loop, serving
from tests.loopback import PATIENCE_S

SCENARIO = """
apiVersion: trafficplane.dev/v1alpha1
kind: Scenario
metadata: {name: killed}
spec:
  loads:
  - {name: none, target: {url: "http://127.0.0.1:9/"}, arrivals: {connections: 1}, duration: 1m}
  - {name: steady, target: {url: "http://127.0.0.1:9/"}, arrivals: {rate: 400/s}, duration: 1m}
"""
LOADS = [
    {"name": name, "arrivals": "", "rate": rate, "start_ns": 0, "duration_ns": 60_000 * MS}
    for name, rate in (("none", None), ("steady", 400.0))
]
FACTS = {
    "run": "r1",
    "started": "2026-01-01T00:00:00.000+00:00",
    "scenario": SCENARIO,
    "scenario_sha256": "0",
    "interrupted": "true",
    "loads": json.dumps(LOADS),
}
KEY = 7 << 40
COLD_S = 120  # the load's process may have to compile the generator first

# A load as an actor of the runner has it: asks port argv[1] 400 times a second, one after the other, so that requests
# end in that order; journal in the folder argv[2].
KILLED = f"""
import pathlib, sys, time
from harness import records
from harness.drivers.http import Destination
from harness.drivers.process import LoadProcess
from harness.journal import Header
from tests.harness.subjects import in_turn

load = LoadProcess(in_turn(Destination("127.0.0.1", int(sys.argv[1])), 400, 60_000))
load.ready()
header = Header(records.journal_of(pathlib.Path(sys.argv[2]), 1), "steady", ["none", "steady"], {FACTS!r})
load.run(time.monotonic_ns(), header)
"""


def header(folder: Path, load: int = 1) -> Header:
    return Header(records.journal_of(folder, load), ("none", "steady")[load], ["none", "steady"], FACTS)


def ended(numbers: range) -> np.ndarray:
    """Rows (ROW) that were answered 5 ns after they were due, each 10 ns after the one before."""
    rows = np.zeros(len(numbers), ROW)
    rows["number"] = numbers
    rows["intended_ns"] = 10 * rows["number"]
    rows["done_ns"] = rows["intended_ns"] + 5
    rows["connected_ns"] = NEVER
    rows["status"] = 200
    rows["attempts"] = 1
    return rows


async def test_what_a_killed_load_measured_is_read_like_any_run(tmp_path: Path) -> None:
    with Journal(header(tmp_path, 0), KEY, 0):
        pass  # the other load of the run, of which nothing had ended
    async with serving(answering(OK)) as server:
        load = await asyncio.create_subprocess_exec(sys.executable, "-c", KILLED, str(server.port), str(tmp_path))
        try:
            deadline_s = time.monotonic() + COLD_S
            while records.read(tmp_path).num_rows < 100 or not harness.load(tmp_path)["connections"].num_rows:
                assert time.monotonic() < deadline_s
                await asyncio.sleep(0.05)
        finally:
            load.kill()
            await load.wait()
    tables = harness.load(tmp_path)
    table, dialled = tables["requests"], tables["connections"]
    assert dialled.schema.equals(connections.SCHEMA.with_metadata(dialled.schema.metadata), check_metadata=True)
    own = ("load", "connection_id", "client", "client_pod", "pod", "requests")
    assert dialled.select(own).to_pylist() == [
        dict(zip(own, ("steady", 0, "127.0.0.1", None, None, table.num_rows), strict=True))
    ]
    assert table.schema.equals(records.schema_of(FACTS), check_metadata=True)
    assert set(table["load"].to_pylist()) == {"steady"}
    assert table["request_id"].to_pylist() == request_ids(KEY, table.num_rows).tolist()
    assert (np.diff(table["intended_ns"].to_numpy()) == 2_500_000).all()
    assert set(table["status"].to_pylist()) == {200}
    assert (table["done_ns"].to_numpy() >= table["intended_ns"].to_numpy()).all()
    said = CliRunner().invoke(bench, ["report", str(tmp_path), "-o", "json"])
    summary = json.loads(said.stdout)
    assert summary["interrupted"]
    assert [(load["name"], load["answered"]) for load in summary["loads"]] == [("none", 0), ("steady", table.num_rows)]
    runs = side(tmp_path)
    assert refusals(runs, runs) == [*["run r1 was interrupted"] * 2, "run r1 is on both sides"]


def test_a_journal_whose_end_is_torn_off_is_read_up_to_there(tmp_path: Path) -> None:
    at = header(tmp_path)
    for numbers in (range(3), range(20_000)):
        with Journal(at, KEY, 0) as journal:
            journal.put(ended(range(0)))
            journal.put(ended(numbers[::-1]))
        whole = at.path.read_bytes()
        assert records.read(tmp_path)["intended_ns"].to_pylist() == [10 * number for number in numbers]
    one = len(whole)
    with Journal(at, KEY, 0) as journal:
        for first in (0, 20_000):
            journal.put(ended(range(first, first + 20_000)))
    whole = at.path.read_bytes()
    for end in (one, len(whole) - 9, (one + len(whole)) // 2):
        at.path.write_bytes(whole[:end])
        assert records.read(tmp_path).num_rows == 20_000
    at.path.write_bytes(whole[:100])
    with pytest.raises(pa.ArrowInvalid, match="killed before it wrote anything"):
        records.read(tmp_path)


def test_what_was_used_and_what_happened_is_on_disk_once_it_is_noted(tmp_path: Path) -> None:
    samples = [Sample(number, name, 7, 10, 20, 3) for number, name in enumerate(("control", "load a", "control"))]
    happened = [Happened("kill node 2", 1, 2, 3, 7), Happened("scale", 4, 5, error="refused")]
    with (
        Journal(header(tmp_path), KEY, 0),
        noting(tmp_path / resources.FILE, partial(resources.tabulate, run="r")) as used,
        noting(tmp_path / events.FILE, partial(events.tabulate, run="r")) as happening,
    ):
        for sample in samples:
            used(sample)
        for row in happened:
            happening(row)
        killed = report.beside(tmp_path)  # as it is here
    for found, whole in (
        (killed.resources, resources.tabulate(samples, "r")),
        (killed.events, events.tabulate(happened, "r")),
    ):
        assert found is not None
        assert found.to_pylist() == whole.to_pylist()
        assert found.schema.equals(whole.schema, check_metadata=True)
    records.write(resources.tabulate([], "r"), tmp_path / resources.FILE)
    again = report.beside(tmp_path).resources
    assert again is not None
    assert again.num_rows == 0


def test_what_cannot_be_noted_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(JournalError, match=r"resources\.arrows can't be written: .*No such file"),
        noting(tmp_path / "no" / resources.FILE, partial(resources.tabulate, run="r")),
    ):
        raise AssertionError("there is no such folder")


def test_the_file_of_a_run_takes_the_place_of_its_journals(tmp_path: Path) -> None:
    with Journal(header(tmp_path), KEY, 0) as journal:
        journal.put(ended(range(3)))
    rescued = records.read(tmp_path)
    records.write(rescued.slice(0, 2), tmp_path / records.FILE)
    assert records.read(tmp_path).num_rows == 2
    records.forget_journals(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [records.FILE]


async def test_a_journal_that_cannot_be_written_ends_its_load(tmp_path: Path) -> None:
    at = header(tmp_path / "no" / "such")
    async with serving(answering(OK)) as server:
        load = Stream(open_loop(server, 100, 60_000))
        said = r"requests\.001\.arrows can't be written: .*No such file"
        with pytest.raises(JournalError, match=said), Journal(at, KEY, 0) as journal:
            await asyncio.wait_for(load.run(time.monotonic_ns(), journal.put), PATIENCE_S)
