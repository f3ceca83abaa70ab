"""One load by several generators: what each of them has of it, and what they say together.

Law: nothing is drawn anew, and nothing averaged. Generator g of n has requests g, g + n, … of the load's schedule and
of its mix, so that together they send what one would have sent, when it would have; of its connections it has a share.
What they have found is put together row by row (``records.tabulate``), and percentiles are of these rows; while it
runs, of their counts together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness import tally
from harness.drivers.stream import Progress, Task
from harness.recorder import Generator
from harness.workload import SHARE_BITS, Share


@dataclass(frozen=True)
class Part:
    """What a generator has to do: of the load at that place in the scenario."""

    load: int
    task: Task

    @property
    def number(self) -> str:
        """Which of several it is, for people; empty where it is the only one."""
        share = self.task.share
        return f"{share.place + 1}" if share.of > 1 else ""


def parts(tasks: Sequence[Task], generators: Sequence[int]) -> list[Part]:
    """Those of all loads, one after the other; ``generators``: how many each has."""
    return [
        Part(load, part(task, Share(place, count)))
        for load, (task, count) in enumerate(zip(tasks, generators, strict=True))
        for place in range(count)
    ]


def placed(parts: Sequence[Part], spread: Sequence[bool], machines: Sequence[str]) -> list[str]:
    """The machine of each part: the first of them, and of a load that is spread over them one after the other."""
    return [machines[part.task.share.place % len(machines) if spread[part.load] else 0] for part in parts]


def part(task: Task, share: Share) -> Task:
    """A generator's share of a load; request i of it is request ``place + of * i`` of the whole."""
    place, of = share
    order = task.mix.order
    taken = order[(place + of * np.arange(len(order))) % len(order)]
    return replace(
        task,
        mix=replace(task.mix, order=taken),
        connections=task.connections // of + (place < task.connections % of),
        id_key=task.id_key ^ (place << SHARE_BITS),
        share=share,
    )


def progress(of_parts: Sequence[Progress]) -> Progress:
    """How far a load is whose generators are so far."""
    if len(of_parts) == 1:
        return of_parts[0]
    counts: dict[int, int] = {}
    for each in of_parts:
        for bucket, count in each.counted.items():
            counts[bucket] = counts.get(bucket, 0) + count
    return Progress(
        sum(each.scheduled for each in of_parts),
        sum(each.done for each in of_parts),
        sum(each.errors for each in of_parts),
        tally.percentiles_of(counts),
        counts,
    )


def generator(of_parts: Sequence[Generator]) -> Generator:
    """How a load's generators fared: late together, the latest of them, and the busiest."""
    return replace(
        of_parts[0],
        late=sum(each.late for each in of_parts),
        latest_ns=max(each.latest_ns for each in of_parts),
        busy=max((each.busy for each in of_parts if each.busy is not None), default=None),
        resumed=sum(each.resumed for each in of_parts),
    )
