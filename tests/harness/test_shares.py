"""One load by several generators: they send what one would, and what they found is put together row by row."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from ray.exceptions import ActorDiedError, RayTaskError
from rich.console import Console

import harness
from harness import connections, records, report, run, shares, tally
from harness.arrivals import Slope
from harness.clocks import Estimate, Offset
from harness.drivers import compiled
from harness.drivers.http import Destination
from harness.drivers.process import LoadProcess
from harness.drivers.stream import Progress, Task
from harness.join import opened
from harness.journal import Header
from harness.mix import Mix
from harness.recorder import Generator, Recorded
from harness.records import LoadRows, Route
from harness.scenario import Load
from harness.tally import Tally
from harness.workload import Workload, request_ids
from tests.harness.subjects import MS, OK, S, answering, closed_loop, open_loop, serving
from tests.harness.test_scenario import changed, problems

NOWHERE = Destination("127.0.0.1", 9)
MIXED = Mix([Workload("x", f"/{n}") for n in range(3)], ["a", "b", "c"], np.array([0, 1, 1, 2, 0], np.uint32))
STAGES = (Slope(0, 100 * MS, Fraction(0), Fraction(400)), Slope(100 * MS, 50 * MS, Fraction(400), Fraction(400)))
LOADS = {
    "constant": open_loop(NOWHERE, 333, 500, mix=MIXED),
    "poisson": open_loop(NOWHERE, 333, 500, mix=MIXED, poisson=(1, 2)),
    "stages": replace(open_loop(NOWHERE, 1, 150, mix=MIXED), rate=None, stages=STAGES),
    "replay": replace(open_loop(NOWHERE, 1, 150, mix=MIXED), rate=None, replayed=np.arange(5) * MS),
    "one request": open_loop(NOWHERE, 2, 500),
}


@pytest.mark.parametrize("task", LOADS.values(), ids=LOADS.keys())
@pytest.mark.parametrize("generators", [1, 2, 3, 7])
def test_together_they_send_what_one_would(task: Task, generators: int) -> None:
    whole_due = task.due(S)
    assert whole_due is not None
    found = []
    for part in shares.parts([task], [generators]):
        due = part.task.due(S)
        assert due is not None
        order = part.task.mix.order
        found += [(int(at), int(order[i % len(order)])) for i, at in enumerate(due)]
    order = task.mix.order
    assert sorted(found) == [(int(at), int(order[i % len(order)])) for i, at in enumerate(whole_due)]


def test_connections_are_divided_and_ids_are_never_the_same() -> None:
    parts = shares.parts([closed_loop(NOWHERE, 7, 10), closed_loop(NOWHERE, 2, 10)], [3, 1])
    assert [(part.load, part.number, part.task.connections) for part in parts] == [
        (0, "1", 3),
        (0, "2", 2),
        (0, "3", 2),
        (1, "", 2),
    ]
    ids = np.concatenate([request_ids(part.task.id_key, 1000) for part in parts[:3]])
    assert len(np.unique(ids)) == 3000
    assert parts[3].task.id_key == 7 << 40


def test_generators_are_on_the_first_machine_but_where_they_are_spread() -> None:
    parts = shares.parts([closed_loop(NOWHERE, 7, 10), closed_loop(NOWHERE, 7, 10)], [3, 2])
    assert shares.placed(parts, [True, False], ["here", "there"]) == ["here", "there", "here", "here", "here"]
    assert shares.placed(parts, [True, True], ["here"]) == ["here"] * 5


def test_a_generator_is_given_the_epoch_and_the_end_of_warm_up_by_its_own_clock(tmp_path: Path) -> None:
    header = Header(tmp_path / "x", "a", ["a"], {}, warm_ns=700)
    ahead = Offset("other", "far", Estimate(0, 1000, 5))
    assert run._by_clock(500, header, ahead) == (1500, replace(header, warm_ns=1700))
    assert run._by_clock(500, replace(header, warm_ns=0), ahead) == (1500, replace(header, warm_ns=0))


def test_what_is_shown_is_of_all_counts_together() -> None:
    latencies_ns = np.random.default_rng(1).integers(1000, 10**7, 300)
    whole, parts = Tally(), [Tally(), Tally()]
    for tallied, own in ((whole, latencies_ns), (parts[0], latencies_ns[:250]), (parts[1], latencies_ns[250:])):
        rows = {"intended_ns": np.zeros(len(own), np.int64), "done_ns": own}
        tallied.add(rows)
    shown = shares.progress([Progress(9, 8, 1, {}, part.counts()) for part in parts])
    assert (shown.scheduled, shown.done, shown.errors) == (18, 16, 2)
    assert shown.latency_ns == whole.percentiles() == tally.percentiles_of(whole.counts())
    assert shares.progress([Progress(1, 1, 0), Progress()]).latency_ns == {}


def test_how_generators_fared_is_said_of_the_worst() -> None:
    fared = shares.generator([Generator("compiled", 2, 5, 0.4, 1), Generator("compiled", 3, 4, 0.9, 1)])
    assert fared == Generator("compiled", 5, 5, 0.9, 2)


def test_each_generator_needs_a_connection() -> None:
    def change(spec: Any) -> None:
        spec["loads"][0].update(generators=3)
        spec["loads"][0]["arrivals"] = {"connections": 2}

    reason = "are more than its 2 connections: each has one at least"
    assert problems(changed(change)) == {"spec.loads[0].generators": reason}


def rows_of(part: shares.Part, recorded: Recorded) -> LoadRows:
    task = part.task
    number = len(recorded.requests["intended_ns"])
    return LoadRows("a", recorded, Route.unknown(number), task.id_key, task.mix.asked_first(number), share=task.share)


@pytest.mark.syscalls
async def test_rows_are_put_together_and_a_lost_generators_are_kept(tmp_path: Path) -> None:
    compiled.prepare()
    async with serving(answering(OK)) as server:
        task = open_loop(server, 200, 150, mix=MIXED, connections=4)
        parts = shares.parts([task], [2])
        epoch_ns = time.monotonic_ns() + 20 * MS
        facts = {"run": "r", "epoch_monotonic_ns": str(epoch_ns)}
        headers = [
            Header(records.journal_of(tmp_path, place), "a", ["a"], facts, share=part.task.share)
            for place, part in enumerate(parts)
        ]
        both = zip(parts, headers, strict=True)
        running = [asyncio.to_thread(LoadProcess(part.task).run, epoch_ns, header) for part, header in both]
        found = await asyncio.gather(*running)
    whole = records.tabulate([rows_of(part, each) for part, each in zip(parts, found, strict=True)], epoch_ns, facts)
    due = task.due(0)
    assert due is not None
    assert whole["intended_ns"].to_pylist() == due.tolist()
    assert whole["request"].to_pylist() == ["abbca"[number % 5] for number in range(30)]
    assert whole["done_ns"].null_count == 0
    assert len(set(whole["request_id"].to_pylist())) == 30
    own = [set(whole["connection_id"].to_pylist()[place::2]) for place in range(2)]
    assert not own[0] & own[1]
    killed = records.read(tmp_path)  # no file yet: from the journals of both
    assert killed["request_id"].to_pylist() == whole["request_id"].to_pylist()
    assert killed["connection_id"].to_pylist() == whole["connection_id"].to_pylist()
    rest = records.tabulate([rows_of(parts[0], found[0])], epoch_ns, facts)
    (tmp_path / "empty").touch()
    kept = records.with_rescued(rest, [headers[1].path, tmp_path / "empty"], ["a"])
    records.write(kept, tmp_path / records.FILE)
    assert records.read(tmp_path).to_pylist() == whole.to_pylist()
    assert records.with_rescued(rest, [], ["a"]) is rest

    def dialled(places: list[int]) -> pa.Table:
        nothing = {"frontend": (0, 0), "service": "", "connections": [], "pods": {}}
        rows = [(rows_of(parts[place], found[place]), opened(found[place], **nothing)) for place in places]
        return connections.tabulate(rows, epoch_ns, "r")

    lost = [headers[1].path, records.journal_of(tmp_path / "of another machine", 2)]
    assert connections.with_rescued(dialled([0]), whole, lost).to_pylist() == dialled([0, 1]).to_pylist()


def a_load() -> Load:
    load = {"name": "a", "target": {"url": "http://x/"}, "arrivals": {"rate": "1/s"}, "duration": "1s"}
    return Load.model_validate({**load, "generators": 2})


def test_one_lost_generator_is_said_and_all_of_them_end_the_run() -> None:
    parts = shares.parts([closed_loop(NOWHERE, 2, 10)], [2])
    there = Recorded({"intended_ns": np.zeros(0, np.int64)}, {})
    console = Console(record=True, width=400, file=io.StringIO())
    assert run._unless_lost([a_load()], parts, [there, ActorDiedError()], console) == [there, None]
    assert "load a: generator 2 of 2 was lost; of its rows those are kept" in console.export_text()
    with pytest.raises(ActorDiedError):
        run._unless_lost([a_load()], parts, [ActorDiedError(), ActorDiedError()], console)
    broken = RayTaskError("run", "a journal can't be written", OSError())
    with pytest.raises(RayTaskError):
        run._unless_lost([a_load()], parts, [there, broken], console)


@pytest.mark.soak
@pytest.mark.ray
def test_a_run_goes_on_without_a_generator_that_is_killed(tmp_path: Path) -> None:
    server = [sys.executable, "-c", "from harness.drivers import ceiling; ceiling.respond()"]
    with subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as answering:
        assert answering.stdout
        url = f"http://127.0.0.1:{int(answering.stdout.readline())}/"
        load = {"name": "one", "target": {"url": url}, "arrivals": {"rate": "200/s"}, "duration": "8s"}
        head = {"apiVersion": "trafficplane.dev/v1alpha1", "kind": "Scenario", "metadata": {"name": "lost"}}
        file = tmp_path / "lost.yaml"
        file.write_text(yaml.safe_dump({**head, "spec": {"loads": [{**load, "generators": 2}]}}))
        command = [Path(sys.executable).with_name("plane"), "bench", "run", file, "--out", tmp_path / "out"]
        with subprocess.Popen(
            [*command, "-o", "json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as bench:
            until = time.monotonic() + 60
            while not (begun := [path for path in tmp_path.rglob("*.arrows") if path.stat().st_size > 20_000]):
                assert time.monotonic() < until
                time.sleep(0.1)
            os.kill(_writer_of(next(path for path in begun[0].parent.glob("*.001.arrows"))), signal.SIGKILL)
            said, errors = bench.communicate(timeout=60)
    assert bench.returncode == 1, errors
    assert "load one: generator 2 of 2 was lost" in errors
    summary = json.loads(said)
    assert (summary["loads"][0]["generators_lost"], summary["met"]) == (1, False)
    table = records.read(Path(summary["results"]))
    assert report.rows_of(table, "one")[0].num_rows == summary["loads"][0]["scheduled"]
    by_generator = np.bincount(table["connection_id"].to_numpy() % 2)
    assert by_generator[0] == 800
    assert 0 < by_generator[1] < 800
    dialled = harness.load(Path(summary["results"]))["connections"]
    assert set(dialled["connection_id"].to_pylist()) == set(table["connection_id"].to_pylist())
    assert sum(dialled["requests"].to_pylist()) == table.num_rows


def _writer_of(path: Path) -> int:
    """The process that has the file open."""
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if descriptor.resolve() == path:
                return int(descriptor.parts[2])
        except OSError:
            continue
    raise AssertionError(f"nobody writes {path}")
