"""Mixes: how mistakes in them are named, what is drawn from the seed, and that rows say which request each was."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import records, report, traffic
from harness.drivers import compiled
from harness.drivers.compiled import CompiledStream
from harness.drivers.stream import Stream, Task
from harness.journal import Header, Journal
from harness.mix import Mix
from harness.recorder import Recorded, Recorder
from harness.records import LoadRows, Route
from harness.requests import Request
from harness.tables import console, tables
from harness.workload import Workload
from tests.harness.subjects import MS, S, closed_loop, open_loop, serving
from tests.harness.test_scenario import check_named

SHOP = [
    {"weight": 3, "path": "/"},
    {"name": "item", "weight": 6, "path": "/item/{i}?full=1", "zipf": {"s": 1.1, "count": 50}},
    {"name": "buy", "weight": 1, "method": "POST", "path": "/cart", "headers": {"x-a": "own"}, "body": "{}"},
]
BASE = Workload("shop.example", "/base", headers={"X-A": "all", "X-B": "all"})


def shop(seed: int = 1) -> Mix:
    return traffic.mixed([Request.model_validate(request) for request in SHOP], BASE, (seed, 0))


def with_requests(*requests: Any) -> Callable[[Any], object]:
    return lambda spec: spec["loads"][0].update(requests=list(requests))


WRONG: dict[str, tuple[Callable[[Any], object], dict[str, str]]] = {
    "no place for the number": (
        with_requests({"path": "/item", "zipf": {"s": 1, "count": 9}}),
        {"spec.loads[0].requests[0].path": "write {i} where it belongs, as /item/{i}"},
    ),
    "a number nobody draws": (
        with_requests({"path": "/item/{i}"}),
        {"spec.loads[0].requests[0].zipf": "add it, as {s: 1.1, count: 1000}"},
    ),
    "more than there is room for": (
        with_requests({"path": "/{i}", "zipf": {"s": 1, "count": 100_000}}, {}),
        {"spec.loads[0].requests": "are 100,001 different ones; 100,000 are the most: lower the count"},
    ),
    "two of one name": (
        with_requests({"name": "a"}, {"name": "a", "path": "/b"}),
        {"spec.loads[0].requests[1].name": "'a' is another request, too"},
    ),
    "two without a name that look alike": (
        with_requests({"path": "/b"}, {"path": "/b", "body": "x"}),
        {"spec.loads[0].requests[1].name": "'GET /b' is another request, too: give them names"},
    ),
    "what belongs into each": (
        lambda spec: spec["loads"][0].update(requests=[{}], method="PUT", body="x"),
        {
            "spec.loads[0].method": "goes into each of the requests",
            "spec.loads[0].body": "goes into each of the requests",
        },
    ),
    "fields of its own": (
        with_requests({"weight": 0, "method": "get", "headers": {"Connection": "x"}, "wieght": 1}),
        {
            "spec.loads[0].requests[0].weight": "greater than or equal to 1",
            "spec.loads[0].requests[0].method": "'get' is no method",
            "spec.loads[0].requests[0].headers": "Connection is set by the load itself",
            "spec.loads[0].requests[0].wieght": "did you mean weight?",
        },
    ),
}


@pytest.mark.parametrize(("change", "expected"), WRONG.values(), ids=WRONG.keys())
def test_each_mistake_is_named_by_its_field(change: Callable[[Any], object], expected: dict[str, str]) -> None:
    check_named(change, expected)


def test_requests_take_from_the_load_what_they_do_not_say() -> None:
    mix = shop()
    front, item, buy = mix.workloads[0], mix.workloads[1], mix.workloads[-1]
    assert (front.path, front.headers, item.path, buy.path) == ("/", BASE.headers, "/item/1?full=1", "/cart")
    assert (buy.method, buy.body, buy.headers) == ("POST", "{}", {"X-B": "all", "x-a": "own"})
    assert [mix.workloads[place].path for place in (2, 50)] == ["/item/2?full=1", "/item/50?full=1"]
    assert Counter(mix.names) == {"GET /": 1, "item": 50, "buy": 1}
    plain = traffic.mixed([Request()], BASE, (1, 0))
    assert (plain.workloads[0].path, plain.names) == ("/base", ["GET /base"])


def test_a_mix_is_drawn_by_weight_and_by_zipfs_law_from_the_seed() -> None:
    mix = shop()
    assert (mix.order == shop().order).all()
    assert (mix.order != shop(2).order).any()
    drawn = np.bincount(mix.order, minlength=52) / traffic.PERIOD
    law = np.arange(1, 51) ** -1.1
    expected = np.r_[0.3, 0.6 * law / law.sum(), 0.1]
    # Of 2^20 draws the deviation is at most sqrt(p/2^20): 5 of them are one in a million.
    assert (np.abs(drawn - expected) < 5 * np.sqrt(expected / traffic.PERIOD)).all()


class Seen:
    """A server that keeps the method and the path of what it is asked for, by id."""

    def __init__(self) -> None:
        self.lines: dict[int, str] = {}

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            fields = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:-2])
            line = head.decode().partition(" HTTP/1.1")[0]
            body = await reader.readexactly(int(fields.get("Content-Length", 0)))
            self.lines[int(fields["X-Request-ID"], 16)] = f"{line} {body.decode()}".strip()
            text = b"" if line.startswith("HEAD") else b"ok"
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + text)


@pytest.fixture(params=["asyncio", pytest.param("compiled", marks=pytest.mark.syscalls)])
def run(request: pytest.FixtureRequest) -> Callable[[Task], Any]:
    async def by_asyncio(task: Task) -> Recorded:
        return await Stream(task).run(time.monotonic_ns() + 10 * MS)

    async def by_compiled(task: Task) -> Recorded:
        return await asyncio.to_thread(CompiledStream(task).run, time.monotonic_ns() + 10 * MS)

    if request.param == "compiled":
        compiled.prepare()
        return by_compiled
    return by_asyncio


@pytest.mark.parametrize("opened", [True, False])
async def test_rows_say_which_request_each_was(run: Callable[[Task], Any], opened: bool) -> None:
    paths = ("/item/1", "/cart", "/front")
    workloads = [Workload("x", path, method) for path, method in zip(paths, ("HEAD", "POST", "GET"), strict=True)]
    workloads[1] = Workload("x", "/cart", "POST", body="three")
    mix = Mix(workloads, ["item", "buy", "front"], np.array([0, 2, 2, 1, 0], np.uint32))
    seen = Seen()
    async with serving(seen) as server:
        task = open_loop(server, 400, 100, mix=mix) if opened else closed_loop(server, 3, 500, mix=mix)
        recorded = await run(task)
    rows = len(recorded.requests["intended_ns"])
    assert rows > 12
    asked = mix.asked(np.arange(rows))
    table = records.tabulate([LoadRows("one", recorded, Route.unknown(rows), task.id_key, asked)], 0, {})
    assert set(table["status"].to_pylist()) == {200}
    assert table["request"].to_pylist()[:5] == ["item", "front", "front", "buy", "item"]
    lines = {"item": "HEAD /item/1", "buy": "POST /cart three", "front": "GET /front"}
    assert [seen.lines[number] for number in table["request_id"].to_pylist()] == [
        lines[name] for name in table["request"].to_pylist()
    ]
    assert set(zip(table["request"].to_pylist(), table["url_path"].to_pylist(), strict=True)) == {
        ("item", "/item/1"),
        ("buy", "/cart"),
        ("front", "/front"),
    }
    size = {name: workload.size for name, workload in zip(mix.names, workloads, strict=True)}
    assert table["bytes_out"].to_pylist() == [size[name] for name in table["request"].to_pylist()]


def test_a_journal_says_so_too(tmp_path: Path) -> None:
    mix = shop()
    number = np.arange(7)
    columns = {**recorded_of(7), "number": number}
    with Journal(Header(tmp_path / "requests.000.arrows", "one", ["one"], {}), 0, 0, mix) as journal:
        journal.put(columns)
    table = records.read(tmp_path)
    workloads = [mix.workloads[place] for place in mix.order[:7]]
    assert table["url_path"].to_pylist() == [workload.path for workload in workloads]
    assert table["request"].to_pylist() == [mix.names[place] for place in mix.order[:7]]


def recorded_of(rows: int) -> dict[str, np.ndarray]:
    return Recorder(np.arange(rows) * 10).recorded().requests


def test_a_summary_tells_requests_apart_and_adds_up_the_rest() -> None:
    names = [f"r{number:02}" for number in range(25)]
    mix = Mix([Workload("x", f"/{name}") for name in names], names, np.array([0] * 75 + list(range(25)), np.uint32))
    record = Recorder(np.arange(100) * S // 100)
    columns = record.recorded().requests
    columns["status"][:], columns["done_ns"][:] = 200, columns["intended_ns"] + np.arange(100) * MS
    columns["status"][99], columns["status"][0] = 503, 404
    text = """{apiVersion: trafficplane.dev/v1alpha1, kind: Scenario, metadata: {name: made}, spec: {loads: [
        {name: one, target: {url: "http://a/"}, arrivals: {rate: 100/s}, duration: 1s}]}}"""
    facts = {"scenario": text, "interrupted": "false", "run": "r", "started": ""}
    load = {"name": "one", "arrivals": "100/s", "rate": 100.0, "start_ns": 0, "duration_ns": S}
    rows = LoadRows("one", record.recorded(), Route.unknown(100), 0, mix.asked(np.arange(100)))
    summary = report.summarise(records.tabulate([rows], 0, {**facts, "loads": json.dumps([load])}))
    first, *_, last = found = summary["loads"][0]["requests"]
    assert len(found) == 21
    assert (first["request"], first["scheduled"], first["errors"]) == ("r00", 76, 1)
    assert first["latency_ns"]["max"] == 75 * MS
    assert (last["request"], last["scheduled"], last["errors"]) == ("5 others", 5, 1)
    assert sum(row["scheduled"] for row in found) == 100
    terminal = console()
    with terminal.capture() as said:
        terminal.print(tables(summary))
    assert "one by request" in said.get()
