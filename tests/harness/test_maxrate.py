"""The search for the highest rate: what it tries of subjects that are known, what it says, and what it refuses."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from harness import maxrate, scenario
from harness.cli import bench
from harness.maxrate import BISECT, CONFIRM, DOUBLE, GENERATOR, HALVE, ROWS, START, SUBJECT, Probe, Search, Wanted
from harness.scenario import Objectives
from tests.harness.test_scenario import GOOD, changed

MOST = Fraction(1_000_000)


def tried(search: Search, probe: Callable[[str, Fraction], Probe]) -> list[tuple[str, int]]:
    """(why, rate) of all probes of a search of a subject that answers like that."""
    steps = []
    while (step := search.next()) is not None:
        steps.append((step[0], int(step[1])))
        search.tell(step[0], probe(*step))
        assert len(steps) < 100
    return steps


def able(rate: float, *, generator: float = 1e9) -> Callable[[str, Fraction], Probe]:
    """A subject that can do that, asked by a generator that can do so much."""
    return lambda why, tried: Probe(tried, tried <= min(rate, generator), tried > generator)


def test_the_rate_is_doubled_then_bisected_then_confirmed() -> None:
    search = Search(Fraction(100), MOST, 0.05)
    steps = tried(search, able(730))
    assert steps == [
        (START, 100),
        (DOUBLE, 200),
        (DOUBLE, 400),
        (DOUBLE, 800),
        (BISECT, 600),
        (BISECT, 700),
        (BISECT, 750),
        (BISECT, 725),
        (CONFIRM, 725),
    ]
    assert (search.kept, search.missed, search.confirmed, search.limit) == (725, 750, True, SUBJECT)


@given(
    capacity=st.integers(1, 400_000),
    start=st.integers(1, 50_000),
    precision=st.sampled_from([0.02, 0.05, 0.2]),
)
def test_what_is_found_is_close_to_what_the_subject_can(capacity: int, start: int, precision: float) -> None:
    search = Search(maxrate.rounded(Fraction(start)), MOST, precision)
    tried(search, able(capacity))
    assert search.confirmed
    assert search.kept is not None
    assert search.missed is not None
    assert search.kept <= capacity < search.missed
    # Rates have three digits: where the step between two of these is larger than asked for, it gets no closer.
    step = max(Fraction(precision) * search.kept, Fraction(10) ** (len(str(int(search.kept))) - 3))
    assert search.missed - search.kept <= 2 * step


def test_a_subject_that_keeps_nothing_is_asked_ever_less() -> None:
    search = Search(Fraction(5), MOST, 0.05)
    assert tried(search, able(0)) == [(START, 5), (HALVE, 2), (HALVE, 1), (HALVE, 1)]
    assert (search.kept, search.confirmed) == (None, False)


def test_a_rate_that_was_luck_is_not_the_answer() -> None:
    lucky = {400: [True, False]}

    def probe(why: str, rate: Fraction) -> Probe:
        return Probe(rate, lucky[int(rate)].pop(0) if int(rate) in lucky else rate <= 300)

    search = Search(Fraction(200), MOST, 0.5)
    steps = tried(search, probe)
    assert steps == [
        (START, 200),
        (DOUBLE, 400),
        (DOUBLE, 800),
        (BISECT, 600),
        (CONFIRM, 400),
        (BISECT, 300),
        (CONFIRM, 300),
    ]
    assert (search.kept, search.missed, search.confirmed) == (300, 400, True)


def test_a_probe_that_the_generator_spoilt_is_repeated_and_counts_only_then() -> None:
    spoilt = [400]

    def probe(why: str, rate: Fraction) -> Probe:
        if int(rate) in spoilt:
            spoilt.remove(int(rate))
            return Probe(rate, False, True)
        return Probe(rate, rate <= 500)

    search = Search(Fraction(200), MOST, 0.3)
    assert [rate for _, rate in tried(search, probe)] == [200, 400, 400, 800, 600, 500, 500]
    assert (search.kept, search.limit) == (500, SUBJECT)


def test_a_generator_that_ends_the_search_is_named() -> None:
    search = Search(Fraction(100), MOST, 0.3)
    steps = tried(search, able(1e9, generator=500))
    assert steps[:5] == [(START, 100), (DOUBLE, 200), (DOUBLE, 400), (DOUBLE, 800), (DOUBLE, 800)]
    assert search.confirmed
    assert search.limit == GENERATOR


def test_a_search_ends_where_there_is_no_room_for_more_rows() -> None:
    search = Search(Fraction(100), Fraction(500), 0.3)
    assert tried(search, able(1e9)) == [(START, 100), (DOUBLE, 200), (DOUBLE, 400), (CONFIRM, 400)]
    assert (search.limit, search.confirmed) == (ROWS, True)


@pytest.mark.parametrize(("rate", "expected"), [(1234, 1230), (999, 999), (12_345_678, 12_300_000), (1.5, 1.5)])
def test_rates_have_three_digits(rate: float, expected: float) -> None:
    assert maxrate.rounded(Fraction(rate)) == Fraction(expected)


def test_a_probe_is_a_scenario_of_its_own() -> None:
    wanted = Wanted("via-clusterip", ("p99=20ms", "errors=3"), "50/s", "2s")
    text = maxrate.text_of(GOOD, 1, wanted, Fraction(1500), 4)
    probe = scenario.parse(text).spec
    before = scenario.parse(GOOD).spec
    assert (probe.loads[1].arrivals.rate, probe.loads[1].duration, probe.seed) == (1500, 2_000_000_000, before.seed + 4)
    assert probe.loads[1].objectives.model_dump(exclude_none=True) == {
        "errors": 3,
        "p99": 20_000_000,
        "p99_9": 250_000_000,
    }
    assert probe.loads[0] == before.loads[0].model_copy(update={"lasts": 2_000_000_000})
    fast = maxrate.text_of(GOOD, 1, wanted, Fraction(2_500_000), 4)
    assert yaml.safe_load(fast)["spec"]["loads"][1]["arrivals"] == {"rate": "2500000/s"}
    assert (probe.loads[1].target, probe.loads[1].start) == (before.loads[1].target, before.loads[1].start)


REFUSED: dict[str, tuple[Callable[[Any], object], list[str], str]] = {
    "which load": (
        lambda spec: None,
        [],
        "spec.loads: say whose rate is looked for: --load via-ingress, via-clusterip",
    ),
    "no such load": (lambda spec: None, ["--load", "x"], "spec.loads: there is no load 'x'; there are: via-ingress"),
    "several runs": (
        lambda spec: spec.update(repeats=2),
        ["--load", "via-ingress"],
        "spec: max-rate makes runs of its",
    ),
    "events": (
        lambda spec: spec.update(timeline=[{"at": "1s", "restart": "x"}]),
        ["--load", "via-ingress"],
        "spec.timeline: does not go with max-rate",
    ),
    "no rate": (
        lambda spec: None,
        ["--load", "via-clusterip"],
        "spec.loads[1].arrivals: has no rate to begin with: give it one, or --start, as --start 100/s",
    ),
    "nothing to keep": (
        lambda spec: spec.pop("objectives"),
        ["--load", "via-ingress"],
        "spec.loads[0].objectives: are none: say what a rate must keep",
    ),
    "no objective": (
        lambda spec: None,
        ["--objective", "p98=1ms"],
        "error: --objective 'p98=1ms' is no objective: "
        "write one of errors, p50, p90, p99, p99.9, max and its limit, as p99=100ms",
    ),
    "no limit": (lambda spec: None, ["--objective", "p99=1"], "--objective 'p99=1': '1' has no unit: a latency"),
    "shorter than a warm-up": (
        lambda spec: spec["loads"][0].update(warmUp="3s"),
        ["--load", "via-ingress", "--duration", "2s"],
        "spec.loads[0].warmUp: with --duration 2s: is all of the duration",
    ),
    "no rate to begin with": (lambda spec: None, ["--start", "5"], "error: --start '5' is not a rate"),
    "too many rows": (
        lambda spec: None,
        ["--load", "via-ingress", "--start", "99999999/s"],
        "spec.loads[0].arrivals.rate: with --start 99999999/s: makes",
    ),
    "no rate to reach": (lambda spec: None, ["--at-least", "fast"], "--at-least 'fast' is not a rate"),
    "no duration": (lambda spec: None, ["--duration", "5"], "--duration '5' has no unit: a duration"),
    "no precision": (lambda spec: None, ["--precision", "0%"], "'--precision': '0%' is no share: write a part of more"),
    "no tolerance": (lambda spec: None, ["--tolerance", "5"], "'--tolerance': '5' is no share: write a part of more"),
}


@pytest.mark.parametrize(("change", "options", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_makes_no_sense_is_named_before_anything_starts(
    tmp_path: Path, change: Callable[[Any], object], options: list[str], said: str
) -> None:
    file = tmp_path / "bench.yaml"
    text = yaml.safe_load(changed(change))
    text["spec"].pop("manifests")
    text["spec"].pop("nodes")
    text["spec"]["loads"][1].pop("from")
    text["spec"]["loads"][1]["target"] = {"url": "http://127.0.0.1:9/"}
    if "timeline" in text["spec"]:
        text["spec"]["manifests"] = ["x.yaml"]
        (tmp_path / "x.yaml").touch()
    file.write_text(yaml.safe_dump(text))
    done = CliRunner().invoke(bench, ["max-rate", str(file), "--out", str(tmp_path / "out"), *options])
    assert done.exit_code == 2, done.output
    assert said in re.sub(r"\s+", " ", done.output)
    assert not (tmp_path / "out").exists()


def made(search: Search, *probes: tuple[str, int, bool, bool], interrupted: bool = False) -> dict[str, Any]:
    """The summary of a search, and of probes (why, rate, met, limited)."""
    asked = scenario.parse(GOOD)
    rows = []
    for why, rate, met, limited in probes:
        objective = {"load": "via-ingress", "objective": "p99", "limit": "1 ms", "actual": "9 ms", "met": met}
        row = {"name": "via-ingress", "achieved_rate": 9.0, "scheduled": 9, "errors": 0, "generator_limited": limited}
        row["generator"] = {"busy": 0.95, "latest_ns": 0}
        latency = dict.fromkeys(("p50", "p90", "p99", "p99.9", "max"), 9)
        summary = {"loads": [{**row, "latency_ns": latency}], "objectives": [objective]}
        told = (summary, "via-ingress", asked.spec.objectives, Path("x"), float(rate), 0.05)
        rows.append(maxrate.probe_of(why, Fraction(rate), *told))
        search.tell(why, Probe(Fraction(rate), met, limited))
    return maxrate.summarise(asked, asked.spec.loads[0], search, rows, "r", tolerance=0.05, interrupted=interrupted)


def test_a_summary_says_what_was_found_and_what_was_not(tmp_path: Path) -> None:
    def of(*probes: tuple[str, int, bool, bool], **other: bool) -> str:
        return maxrate.verdict(made(Search(Fraction(100), MOST, 0.05), *probes, **other))

    kept, missed = (START, 100, True, False), (DOUBLE, 200, False, False)
    again = (CONFIRM, 100, True, False)
    spoilt = (DOUBLE, 200, False, True)
    assert of(kept, missed, again) == "load via-ingress keeps its objectives at 100/s, and misses them at 200/s"
    assert "the generator, at its limit at 200/s: the subject may do more" in of(kept, spoilt, spoilt, again)
    assert "the highest that this duration has room for" in of(kept, again)
    assert of(kept, missed, (CONFIRM, 100, False, False)).startswith("no rate is kept, not even 100/s")
    assert of((START, 1, False, False)) == "no rate is kept, not even 1/s"
    assert of(kept, interrupted=True) == "interrupted: the search had not ended"
    summary = made(Search(Fraction(100), MOST, 0.05), kept, spoilt, missed, again)
    (tmp_path / maxrate.FILE).write_text(json.dumps(summary))
    done = CliRunner().invoke(bench, ["report", str(tmp_path)])
    assert done.exit_code == 0
    assert "generator-limited" in done.output
    assert "keeps its objectives at 100/s" in done.output
    paged = CliRunner().invoke(bench, ["report", str(tmp_path), "-o", "html"])
    assert (paged.exit_code, "a search has no page" in paged.output) == (2, True)


@pytest.mark.parametrize(
    ("limited", "busy", "latest_ms", "p99_ms", "spoilt"),
    [
        (False, 0.95, 900, 150, False),
        (True, 0.95, 0, 150, True),
        (True, 0.5, 60, 150, True),
        (True, 0.5, 40, 150, False),
        (True, 0.5, 60, None, False),
    ],
    ids=["not at its limit", "no time left", "as late as that", "not as late as that", "no answer"],
)
def test_a_miss_is_the_generators_only_where_its_lateness_may_be_all_of_it(
    limited: bool, busy: float, latest_ms: int, p99_ms: int | None, spoilt: bool
) -> None:
    latency = {"p99": p99_ms and p99_ms * 1_000_000}
    row = {"name": "a", "achieved_rate": 9.0, "scheduled": 9, "errors": 0, "latency_ns": latency}
    row |= {"generator_limited": limited, "generator": {"busy": busy, "latest_ns": latest_ms * 1_000_000}}
    missed = {"load": "a", "objective": "p99", "limit": "100 ms", "actual": "", "met": False}
    probe = maxrate.probe_of(
        START,
        Fraction(1),
        {"loads": [row], "objectives": [missed]},
        "a",
        Objectives.model_validate({"p99": "100ms"}),
        Path("x"),
        1.0,
        0.05,
    )
    assert probe["spoilt"] is spoilt


def probed(rate: int, capacity: float, service_ms: np.ndarray | float, *, busy: float = 0.1) -> dict[str, Any]:
    """A probe of two seconds of a subject of that capacity, where each answer takes so much besides waiting."""
    due_ns = np.arange(2 * rate) * 1_000_000_000 // rate
    waits_ns = np.arange(2 * rate) * max(1e9 / capacity - 1e9 / rate, 0)
    done_ns = due_ns + np.rint(waits_ns + np.broadcast_to(service_ms, len(due_ns)) * 1e6).astype(np.int64)
    rows = pa.table({"intended_ns": due_ns, "done_ns": done_ns})
    achieved = maxrate.achieved_rate(rows, Fraction(rate))
    row = {"name": "a", "achieved_rate": 0.0, "scheduled": len(due_ns), "errors": 0, "latency_ns": {}}
    row |= {"generator_limited": busy > 0.9, "generator": {"busy": busy, "latest_ns": 0}}
    summary = {"loads": [row], "objectives": []}
    return maxrate.probe_of(START, Fraction(rate), summary, "a", Objectives(), Path("x"), achieved, 0.05)


def test_a_rate_at_which_the_queue_grows_is_missed_whatever_the_latencies_are_still() -> None:
    probe = probed(1100, 1000, 1)
    assert probe["missed"] == [{"objective": "achieved", "limit": "1,045/s", "actual": "1,000/s"}]
    assert not probe["met"]
    assert not probe["spoilt"]
    assert probe["achieved_rate"] == pytest.approx(1000, rel=1e-3)
    assert "missed, achieved 1,000/s" in maxrate.line(probe)
    assert probed(1100, 1000, 1, busy=0.95)["spoilt"]


@pytest.mark.parametrize("service_ms", [1, 500, "exponential"])
def test_a_rate_that_is_answered_is_kept_however_long_answers_take(service_ms: float | str) -> None:
    drawn = np.random.default_rng(1).exponential(100, 2000) if service_ms == "exponential" else service_ms
    assert probed(1000, 1e9, drawn)["missed"] == []  # type: ignore[arg-type]


def test_what_has_no_answer_is_not_achieved() -> None:
    due_ns = np.arange(100) * 10_000_000
    done = pa.array(due_ns + 5, mask=np.arange(100) % 10 == 0)
    rows = pa.table({"intended_ns": due_ns, "done_ns": done})
    assert maxrate.achieved_rate(rows, Fraction(100)) == pytest.approx(90, rel=0.02)
    assert maxrate.achieved_rate(rows.slice(0, 10), Fraction(100)) == pytest.approx(90)
    assert maxrate.achieved_rate(rows.slice(0, 0), Fraction(100)) == 0


def test_the_page_says_what_a_summary_holds() -> None:
    page = (Path(__file__).parents[2] / "docs" / "records.md").read_text()
    summary = made(Search(Fraction(100), MOST, 0.05), (START, 100, True, False))
    names = [*summary, *summary["probes"][0]]
    assert [name for name in names if f"`{name}`" not in page.partition("## `max-rate.json`")[2]] == []


# A server that answers 200 a second: one after the other, in 5 ms each.
SLOW = """
import socket, threading, time
lock = threading.Lock()
def serve(connection):
    data = b""
    while chunk := connection.recv(4096):
        data += chunk
        while b"\\r\\n\\r\\n" in data:
            data = data.partition(b"\\r\\n\\r\\n")[2]
            with lock:
                time.sleep(0.005)
            connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\nok")
listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=serve, args=(connection,), daemon=True).start()
"""


@pytest.mark.soak
@pytest.mark.ray
def test_a_server_of_a_known_rate_is_found_to_have_that(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SLOW], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            file = tmp_path / "slow.yaml"
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/"
            load = {"name": "one", "target": {"url": url}, "arrivals": {"rate": "100/s"}, "duration": "1s"}
            spec = {"loads": [load], "objectives": {"p90": "150ms", "errors": 0}}
            head = {"apiVersion": "trafficplane.dev/v1alpha1", "kind": "Scenario", "metadata": {"name": "slow"}}
            file.write_text(yaml.safe_dump({**head, "spec": spec}))
            command = [Path(sys.executable).with_name("plane"), "bench", "max-rate", file, "--precision", "25%"]
            began = time.monotonic()
            done = subprocess.run(
                [*command, "--out", tmp_path / "out", "-o", "json"], capture_output=True, text=True, env=os.environ
            )
            assert done.returncode == 0, (done.stderr, time.monotonic() - began)
        finally:
            server.kill()
    summary = json.loads(done.stdout)
    assert 80 <= summary["rate"] <= 215
    assert (summary["confirmed"], summary["probes"][-1]["why"]) == (True, "confirm")
    assert f"probe {len(summary['probes'])}: confirm" in done.stderr
    folders = [Path(summary["results"]) / probe["results"] for probe in summary["probes"]]
    assert all((folder / "requests.arrow").exists() for folder in folders)
    assert np.diff([probe["rate"] for probe in summary["probes"]]).any()
