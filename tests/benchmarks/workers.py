"""What a second worker is worth: a hundred million flows by one actor and by two, in turns: ``make bench-workers``.

The actors of both are there all the time, and whoever has no turn waits. So what the machine does besides falls on
both, where it lasts longer than a turn. A turn is from the course's being given out until all shards have come back: of
a run, that is what grows with its flows.
"""

import argparse
import asyncio
import statistics
import threading
import time
from pathlib import Path

from rich.console import Console

from harness.flowruns import FlowActors
from harness.flows import running
from harness.flows.steering import Course, ready
from kernels.warm import LOAD_BALANCING, warm
from plane.cluster import connected

SCENARIO = Path("configs/flows-billion.yaml")
BALANCERS = 100
TURNS = 60


def seconds(carrying: FlowActors, course: Course, workers: int) -> float:
    """How long these actors take for the first balancers."""
    begin = time.monotonic()
    shards = running.shards_of(BALANCERS, workers)
    carried = sum(int(each.outcomes.sum()) for each in carrying(course, shards, threading.Event()))
    assert carried == BALANCERS * course.share * len(course.tables)
    return time.monotonic() - begin


async def main(turns: int, console: Console) -> None:
    prepared = running.prepare(SCENARIO)
    warm(lambda line: console.print(line, markup=False), LOAD_BALANCING)
    course, _ = running.course_of(prepared, prepared.algorithms[0])
    ready(course)
    async with connected(None):
        actors = {workers: FlowActors(workers) for workers in (1, 2)}
        try:
            for workers, each in actors.items():
                await asyncio.to_thread(each.load)
                await asyncio.to_thread(seconds, each, course, workers)  # they see the tables for the first time
            took: dict[int, list[float]] = {workers: [] for workers in actors}
            for turn in range(turns):
                for workers in sorted(actors, reverse=bool(turn % 2)):
                    took[workers].append(await asyncio.to_thread(seconds, actors[workers], course, workers))
                one, two = (took[workers][-1] for workers in (1, 2))
                line = f"turn {turn + 1:3}: one {one:.2f} s, two {two:.2f} s, {one / two:.2f} times"
                console.print(line, highlight=False)
        finally:
            for each in actors.values():
                each.end()
    low, median, high = statistics.quantiles([one / two for one, two in zip(took[1], took[2], strict=True)], n=4)
    console.print(
        f"two carry {median:.2f} times what one does (quartiles {low:.2f} to {high:.2f}); "
        f"by all of the time {sum(took[1]) / sum(took[2]):.2f} times",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=TURNS, metavar="N", help="of each (default: %(default)s)")
    given = parser.parse_args()
    if given.turns < 2:
        parser.error("--turns: of fewer than 2 there are no quartiles")
    asyncio.run(main(given.turns, Console()))
