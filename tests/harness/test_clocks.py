"""Times of another clock by ours: made clocks, and a real one of another time namespace."""

import asyncio
import json
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import clocks
from harness.clocks import Estimate, Offset, Reading
from harness.journal import Header
from harness.recorder import NEVER, Recorded
from harness.records import journal_of, read
from tests.harness.subjects import MS, OK, S, head, in_turn, serving

AHEAD_S = 1000
UNSHARE = ["unshare", "--time", "--monotonic", str(AHEAD_S), "--fork", "--kill-child"]

# A load's process by its orders on standard input: a name of one of its methods, and the arguments.
REMOTE = """
import pickle, sys
from harness.drivers.process import LoadProcess

orders, answers, load = sys.stdin.buffer, sys.stdout.buffer, None
while True:
    name, arguments = pickle.load(orders)
    if name == "take":
        load, answer = LoadProcess(*arguments), None
    else:
        answer = getattr(load, name)(*arguments)
    answer = pickle.dumps(answer)
    answers.write(len(answer).to_bytes(8) + answer)
    answers.flush()
"""


class Made:
    """Ours and another clock, and answers that take given times: until the other reads its own, and from there on."""

    def __init__(self, ahead_ns: int, ways_ns: list[tuple[int, int]], drift: float = 0.0):
        self.now_ns, self._ahead_ns, self._drift = 5 * S, ahead_ns, drift
        self._ways = iter(ways_ns)

    def now(self) -> int:
        return self.now_ns

    def other(self) -> int:
        return self.now_ns + self._ahead_ns + round(self.now_ns * self._drift)

    async def ask(self) -> Reading:
        there, back = next(self._ways, (7 * MS, 9 * MS))
        self.now_ns += there
        reading = Reading("other", "far", self.other())
        self.now_ns += back
        return reading


async def test_the_answer_that_took_least_says_the_offset_and_its_bound() -> None:
    made = Made(-3 * S, [(MS, MS), (40_000, 60_001), (5 * MS, 100), (90_000, 90_000)])
    found = await clocks.offset(made.ask, "ours", made.now)
    # The first question is which clock it is; of the others this one took least, and is off by half of 20,001 ns.
    assert (found.clock, found.host) == ("other", "far")
    assert found.before == Estimate(5 * S + 2 * MS + 50_001, -3 * S - 10_001, 50_001)
    assert abs(found.before.offset_ns + 3 * S) <= found.before.bound_ns


@pytest.mark.parametrize("seed", range(20))
async def test_it_is_never_off_by_more_than_its_bound(seed: int) -> None:
    draw = np.random.default_rng(seed)
    ways = [(int(there), int(back)) for there, back in draw.exponential(80_000, (clocks.EXCHANGES + 1, 2))]
    ahead_ns = int(draw.integers(-(10**15), 10**15))
    found = (await clocks.offset((made := Made(ahead_ns, ways)).ask, "ours", made.now)).before
    assert abs(found.offset_ns - ahead_ns) <= found.bound_ns
    assert 2 * found.bound_ns <= min(sum(way) for way in ways[1:]) + 1


async def test_between_two_comparisons_clocks_drift_evenly() -> None:
    made = Made(10**14, [(0, 0)] * 1000, drift=40e-6)
    before = await clocks.offset(made.ask, "ours", made.now)
    ours, others = [], []
    for _ in range(50):
        made.now_ns += S
        ours.append(made.now())
        others.append(made.other())
    after = await clocks.again(before, made.ask, made.now)
    assert after.after is not None
    assert after.after.offset_ns - before.before.offset_ns == 2 * MS  # 40 ppm of 50 s
    assert np.abs(after.ours(np.array(others)) - ours).max() <= 2
    assert np.abs(before.ours(np.array(others)) - ours).max() > MS
    crowded = np.arange(others[0], others[0] + 10**6)
    assert (np.diff(after.ours(crowded)) >= 0).all()
    assert after.ours(np.array([NEVER, others[0]]))[0] == NEVER


async def test_of_one_clock_the_offset_is_nothing_and_nothing_is_estimated() -> None:
    asked = 0

    async def ask() -> Reading:
        nonlocal asked
        asked += 1
        return clocks.read()

    found = await clocks.again(await clocks.offset(ask, clocks.name()), ask)
    assert asked == 1
    assert found.after is not None
    assert [(each.offset_ns, each.bound_ns) for each in (found.before, found.after)] == [(0, 0)] * 2
    times = np.array([NEVER, 5])
    assert found.ours(times) is times


async def test_a_machine_that_is_a_copy_has_a_clock_of_its_own() -> None:
    made = Made(AHEAD_S * S, [(0, 0), (30, 30)])
    found = await clocks.offset(made.ask, "other", made.now)
    assert (found.before.offset_ns, found.before.bound_ns) == (AHEAD_S * S, 30)


def test_all_times_of_a_recording_are_carried_over_and_nothing_else() -> None:
    offset = Offset("other", "far", Estimate(0, 100, 1))
    recorded = Recorded(
        {"done_ns": np.array([150, NEVER]), "bytes_in": np.array([150, 0])}, {"began_ns": np.array([101])}
    )
    ours = clocks.by_ours(recorded, offset)
    assert {name: column.tolist() for name, column in ours.requests.items()} == {
        "done_ns": [50, NEVER],
        "bytes_in": [150, 0],
    }
    assert ours.connections["began_ns"].tolist() == [1]
    said = json.loads(clocks.described([("a", ""), ("b", "2")], [offset, offset], 40))
    assert said[1] == {
        "load": "b",
        "generator": 2,
        "host": "far",
        "clock": "other",
        "offsets": [{"at_ns": -40, "offset_ns": 100, "bound_ns": 1}],
    }
    assert said[0]["generator"] == 1


def _may_have_another_clock() -> bool:
    return bool(shutil.which("unshare")) and subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0


@asynccontextmanager
async def remote() -> AsyncIterator[Callable[..., Any]]:
    """A load's process on a clock that is ahead of ours by AHEAD_S; calls its methods."""
    child = await asyncio.create_subprocess_exec(
        *UNSHARE,
        *["env", "NUMBA_DISABLE_JIT=1", sys.executable, "-c", REMOTE],
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    orders, answers = child.stdin, child.stdout
    assert orders
    assert answers

    async def call(name: str, *arguments: Any) -> Any:
        orders.write(pickle.dumps((name, arguments)))
        return pickle.loads(await answers.readexactly(int.from_bytes(await answers.readexactly(8))))

    try:
        yield call
    finally:
        orders.close()
        child.kill()
        await child.wait()


async def test_a_generator_on_another_clock_is_on_the_epoch_of_the_run(tmp_path: Path) -> None:
    if not _may_have_another_clock():
        pytest.skip("this system lets nobody make a time namespace")
    came_ns: list[int] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await head(reader):
            came_ns.append(time.monotonic_ns())
            writer.write(OK)

    async with serving(handler) as server, remote() as call:
        task = in_turn(server, 100, 100)
        await call("take", task)
        offset = await clocks.offset(lambda: call("clock"), clocks.name())
        assert offset.clock != clocks.name()
        before = offset.before
        assert before.bound_ns > 0
        assert abs(before.offset_ns - AHEAD_S * S) <= before.bound_ns
        epoch_ns = time.monotonic_ns() + 50 * MS
        header = Header(journal_of(tmp_path / "made" / "there", 0), "a", ["a"], {"run": "r"})
        theirs = await call("run", epoch_ns + before.offset_ns, header)
        offset = await clocks.again(offset, lambda: call("clock"))
        assert offset.after is not None
        found = clocks.by_ours(theirs, offset).requests
        journalled = read(header.path.parent)
        await call("forget", header.path.parent)
    bound_ns = max(before.bound_ns, offset.after.bound_ns)
    due = task.due(epoch_ns)
    assert due is not None
    assert len(came_ns) == len(due) == 10
    assert np.abs(found["intended_ns"] - due).max() <= 2 * bound_ns
    # The server, whose clock is ours, had each request after it was sent and before it was answered.
    assert (found["sent_ns"] - bound_ns <= came_ns).all()
    assert (came_ns <= found["done_ns"] + bound_ns).all()
    assert journalled["intended_ns"].to_pylist() == (due - epoch_ns).tolist()
    assert not header.path.parent.exists()
