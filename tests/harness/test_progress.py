"""What is seen of a run while it goes."""

import io
import re
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from harness import tally
from harness.drivers.stream import Progress
from harness.events import Happened
from harness.journal import Journal
from harness.progress import Picture, Seen, shown
from harness.recorder import NEVER
from harness.scenario import Load
from harness.tally import Tally
from harness.units import NS_PER_S
from tests.harness.test_journal import KEY, ended, header
from tests.harness.test_report import MS

LATENCY = {"p50": 2 * MS, "p90": 3 * MS, "p99": 40 * MS, "max": None}


def load(name: str = "steady", **other: Any) -> Load:
    target, arrivals = {"url": "http://127.0.0.1/"}, {"rate": "100/s"}
    return Load.model_validate({"name": name, "target": target, "arrivals": arrivals, "duration": "10s", **other})


def rows(latencies_ns: list[int | None]) -> dict[str, np.ndarray]:
    intended = np.arange(len(latencies_ns)) + 7
    done = [NEVER if took is None else due + took for due, took in zip(intended.tolist(), latencies_ns, strict=True)]
    return {"intended_ns": intended, "done_ns": np.array(done, np.int64)}


@settings(max_examples=40)
@given(st.lists(st.none() | st.integers(0, 10**13) | st.integers(0, 100), min_size=1, max_size=60))
def test_a_percentile_is_never_too_low_and_at_most_so_much_too_high(latencies: list[int | None]) -> None:
    counted = Tally()
    for half in (latencies[::2], latencies[1::2]):
        counted.add(rows(half))
    found = counted.percentiles()
    ordered = sorted(latencies, key=lambda took: (took is None, took))
    for name, share in tally.SHARES.items():
        exact = next(took for rank, took in enumerate(ordered, 1) if rank >= share * len(ordered))
        if exact is None:
            assert found[name] is None
        else:
            assert exact <= found[name] <= max(exact * (1 + tally.ERROR), 1)


def test_what_is_long_ago_does_not_count(monkeypatch) -> None:
    now_s = 100.0
    monkeypatch.setattr(tally, "time", SimpleNamespace(monotonic=lambda: now_s))
    counted = Tally()
    assert counted.percentiles() == {}
    counted.add(rows([5 * MS]))
    now_s = 100.0 + tally.SECONDS - 1
    counted.add(rows([1 * MS]))
    assert counted.percentiles()["max"] >= 5 * MS
    now_s += 1
    assert 1 * MS <= counted.percentiles()["max"] < 2 * MS
    now_s += tally.SECONDS
    assert counted.percentiles() == {}


def test_rows_are_counted_where_they_are_written(tmp_path: Path) -> None:
    counted, threads = Tally(), set()

    def also(columns: Any) -> None:
        threads.add(threading.get_ident())
        counted.add(columns)

    with Journal(header(tmp_path), KEY, 0, also=also) as journal:
        journal.put(ended(range(3)))
    assert counted.percentiles()["max"] == 5
    assert threads != {threading.get_ident()}


def test_a_job_log_has_lines_of_loads_and_of_events() -> None:
    out = io.StringIO()
    event = Happened("scale default/web to 5 [x]", NS_PER_S, NS_PER_S, None, 7)
    with shown([load(), load("later", start="5s")], Console(file=out, width=40)) as show:
        show(0.5, Seen([Progress(50, 50, 0), Progress()]))
        show(2.0, Seen([Progress(200, 200, 3, LATENCY), Progress()], {"default/a": 9}, [event]))
        show(2.1, Seen([Progress(210, 210, 3, LATENCY), Progress()], {"default/a": 9}, [event]))
        event.done_ns = event.begun_ns + 120 * MS
        show(4.0, Seen([Progress(400, 300, 3, {**LATENCY, "p99": None}), Progress()], {}, [event]))
    assert out.getvalue().splitlines() == [
        "   1.0 s  scale default/web to 5 [x]: under way",
        "   2.0 s  steady 100/s, 200 done, 3 errors, p50 2.00 ms, p99 40.0 ms; later 0/s, 0 done, 0 errors",
        "   1.0 s  scale default/web to 5 [x]: in force after 120 ms",
        "   4.0 s  steady 50/s, 300 done, 3 errors, p50 2.00 ms, p99 never; later 0/s, 0 done, 0 errors",
    ]


def test_a_terminal_has_a_picture_of_loads_pods_and_events() -> None:
    picture = Picture([load()])
    pods = {f"default/pod-{number:02}": 10 + 10 * number for number in range(15)} | {"default/client": 0}
    failed = Happened("apply web.yaml", NS_PER_S, NS_PER_S, None, None, "refused")
    picture(1.0, Seen([Progress(100, 100, 0)], dict.fromkeys(pods, 8)))
    said = printed(picture(3.0, Seen([Progress(300, 300, 2, LATENCY)], pods, [failed])))
    assert re.search(r"^steady +━+ +10.0 s +100/s +300 +2 +2.00 ms +3.00 ms +40.0 ms +never$", said, re.MULTILINE)
    assert re.search(r"^default/pod-14 +━{24} +71/s +150$", said, re.MULTILINE)
    assert "default/pod-02" not in said  # one of those with the least to do
    assert "default/client" not in said
    assert "and 3 that have less to do" in said
    assert "1.0 s  apply web.yaml: failed: refused" in said
    assert "up to 1.6% too high" in said


def printed(picture: Any) -> str:
    console = Console(file=io.StringIO(), width=140)
    with console.capture() as said:
        console.print(picture)
    return "\n".join(line.rstrip() for line in said.get().splitlines())
