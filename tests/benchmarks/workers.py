"""What a second worker is worth: a hundred million flows an actor, by either and by both: ``make bench-workers``.

Each actor has a core of its own, for where a machine is shared with others its cores are of different speeds, now one
of them faster, now the other, for seconds. A turn is one actor alone, then both, then the other alone, each for as
long, and its figure the rate of both over the mean of the two rates. Such a figure is worth little; of many it is said
how well they know their median (a bootstrap). Rates are of the time from the course's being given out until all shards
have come back: of a run, that is what grows with its flows.

It is also said how much of the cores the actors had: what both lack of two is what this process, Ray and the system
took of them, or nobody while the last shard was carried.
"""

import plane.rayenvironment  # noqa: F401  # Ray reads it when it is imported

# isort: split
import argparse
import asyncio
import os
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
from rich.console import Console
from scipy import stats

from harness.flowruns import FlowActors
from harness.flows import running
from harness.flows.steering import Course, ready
from kernels.warm import LOAD_BALANCING, warm
from plane.cluster import connected
from plane.errors import PlaneError

SCENARIO = Path("configs/flows-billion.yaml")
BALANCERS = 100  # of each actor that carries, a million flows each
TURNS = 60
CONFIDENCE, SEED = 0.95, 1  # of the bootstrap


class Crew:
    """Actors, each on a core, that carry the first balancers of a course as often as they are asked to."""

    def __init__(
        self, carrying: FlowActors, course: Course, actors: Sequence[Any], processes: Sequence[psutil.Process]
    ):
        self.rates: list[float] = []  # of each time, in flows of one phase a second
        self.shares: list[float] = []  # of these cores, that the actors had
        self._carrying, self._course, self._actors, self._processes = carrying, course, actors, processes

    def carry(self) -> None:
        self._carrying.actors = list(self._actors)
        balancers = BALANCERS * len(self._actors)
        shards = running.shards_of(balancers, len(self._actors))
        had, begin = self._cpu_s(), time.monotonic()
        carried = sum(int(each.outcomes.sum()) for each in self._carrying(self._course, shards, threading.Event()))
        took = time.monotonic() - begin
        self.rates.append(carried / took)
        self.shares.append((self._cpu_s() - had) / took / len(self._actors))
        assert carried == balancers * self._course.share * len(self._course.tables)

    def _cpu_s(self) -> float:
        times = [process.cpu_times() for process in self._processes]
        return sum(each.user + each.system for each in times)


def placed(actors: Sequence[Any]) -> list[psutil.Process]:
    """The processes of actors, each on one core of its own from now on. Raises PlaneError where there are too few."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < len(actors):
        raise PlaneError(f"{len(actors)} workers need a core each, this process may use {len(cores)}")
    pids = ray.get([actor.__ray_call__.remote(lambda _: os.getpid()) for actor in actors])
    processes = [psutil.Process(pid) for pid in pids]
    for process, core in zip(processes, cores, strict=False):
        for thread in process.threads():
            os.sched_setaffinity(thread.id, {core})
    return processes


async def main(turns: int, console: Console) -> None:
    prepared = running.prepare(SCENARIO)
    warm(lambda line: console.print(line, markup=False), LOAD_BALANCING)
    course, _ = running.course_of(prepared, prepared.algorithms[0])
    ready(course)
    async with connected(None):
        carrying = FlowActors(2)
        actors = list(carrying.actors)
        try:
            await asyncio.to_thread(carrying.load)
            processes = placed(actors)
            one, other, both = (
                Crew(carrying, course, actors[these], processes[these]) for these in (slice(1), slice(1, 2), slice(2))
            )
            await asyncio.to_thread(Crew(carrying, course, actors, processes).carry)  # they see the tables first
            ratios = []
            for turn in range(turns):
                for crew in (one, both, other)[:: -1 if turn % 2 else 1]:
                    await asyncio.to_thread(crew.carry)
                ratios.append(2 * both.rates[-1] / (one.rates[-1] + other.rates[-1]))
                rates = ", ".join(f"{crew.rates[-1] / 1e6:.1f}" for crew in (one, other, both))
                console.print(f"turn {turn + 1:3}: {rates} M flows/s, {ratios[-1]:.2f} times", highlight=False)
        finally:
            carrying.actors = actors
            carrying.end()
    low, median, high = statistics.quantiles(ratios, n=4)
    known = stats.bootstrap((ratios,), np.median, confidence_level=CONFIDENCE, rng=SEED).confidence_interval
    means = 2 * sum(both.rates) / sum(one.rates + other.rates)
    alone, together = statistics.median(one.shares + other.shares), statistics.median(both.shares)
    console.print(
        f"two carry {median:.2f} times what one does, {known.low:.2f} to {known.high:.2f} with {CONFIDENCE:.0%} "
        f"confidence (quartiles {low:.2f} to {high:.2f}); by the means of all rates {means:.2f} times\n"
        f"one had {alone:.1%} of a core, two had {together:.1%} of two: {2 * together / alone:.2f} times",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=TURNS, metavar="N", help="of each (default: %(default)s)")
    given = parser.parse_args()
    if given.turns < 2:
        parser.error("--turns: of fewer than 2 there are no quartiles")
    try:
        asyncio.run(main(given.turns, Console()))
    except PlaneError as error:
        parser.exit(1, f"error: {error}\n")
