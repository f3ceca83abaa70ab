"""Runs of flows and of queues, from their file to their results and page. With ``run`` all there is of Ray here.

Law: such a run needs no plane, and Ray only for more than one worker: then actors carry shards, by tables that lie in
the object store, and what an actor had under way when it was lost is carried by another. A first SIGINT or SIGTERM has
a run end once the shards that are under way are finished, a second one without them; what was finished is its result.
"""

import plane.rayenvironment  # noqa: F401  # Ray reads it when it is imported

# isort: split
import asyncio
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, TaskCancelledError
from rich.console import Console

from harness.flows import growth, pages, queues, running
from harness.flows.queuescenario import KIND as QUEUES
from harness.flows.running import Prepared, Result
from harness.flows.scenario import KIND as FLOWS
from harness.flows.scenario import FlowScenario
from harness.flows.steering import Carried, Course, Shard, Worker
from harness.scenario import read_as
from plane.cluster import connected
from plane.errors import PlaneError

POLL_S = 0.2
LOST_AT_MOST = 8  # workers of one run
# Shards that a worker has under way: one at work, and one that it goes on with while this process hears of the first.
SHARDS_AT_A_TIME = 2


def of_flows(file: Path, out: Path, address: str | None, console: Console) -> Result:
    """One run, or one for each count of Services. Raises as ``running.run``.

    address  of the Ray cluster, where there are several workers
    """
    stop = threading.Event()

    def carried(prepared: Prepared, folder: Path) -> Result:
        if prepared.scenario.spec.workers == 1:
            return pages.with_page(running.run(prepared, folder, console, running.here, stop))
        return pages.with_page(asyncio.run(_on_actors(prepared, folder, address, console, stop)))

    scenario, _ = read_as(FlowScenario, file)
    with _stopping(stop, console, _interrupt):
        if scenario.spec.counts:
            return pages.with_page(growth.play(scenario, file, carried, out, console))
        return carried(running.prepare(file), out / scenario.name)


def of_queues(file: Path, out: Path, address: str | None, console: Console) -> Result:
    """One run, in this process, whatever the ``address`` of Ray. Raises as ``queues.run``."""
    stop = threading.Event()
    with _stopping(stop, console, _interrupt):
        return pages.with_page(queues.run(file, out, console, stop))


# What has a scenario of that kind run: (file, folder of results, address of Ray, console).
KINDS: Mapping[str, Callable[[Path, Path, str | None, Console], Result]] = {FLOWS: of_flows, QUEUES: of_queues}


async def _on_actors(
    prepared: Prepared, folder: Path, address: str | None, console: Console, stop: threading.Event
) -> Result:
    spec = prepared.scenario.spec
    async with connected(address):
        carrying = FlowActors(min(spec.workers, spec.balancer_count))
        try:
            with _stopping(stop, console, carrying.end):
                return await asyncio.to_thread(
                    running.run, prepared, folder, console, carrying, stop, carrying.load, lambda: carrying.lost
                )
        finally:
            carrying.end()


@contextmanager
def _stopping(stop: threading.Event, console: Console, at_once: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM set ``stop``, and the second time call ``at_once``."""

    def act(*_: object) -> None:
        if stop.is_set():
            at_once()
            return
        stop.set()
        console.print("what is under way is finished first; once more ends it at once", markup=False)

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, act) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _interrupt() -> None:
    raise KeyboardInterrupt


class FlowActors:
    """Carries shards by so many actors; ``lost`` counts those that had to be replaced.

    The actors start at once, while this process loads compiled code.
    """

    def __init__(self, workers: int):
        self.lost = 0
        self.actors = [_actor() for _ in range(workers)]
        self._course: Any = None  # where it is in the object store
        self._turns: list[Any] = []  # an actor for each shard that can be given out, the next one last
        self._under_way: dict[Any, tuple[Any, Shard | None]] = {}  # an actor and its shard, None for the course

    def load(self) -> None:
        """Returns once the actors have loaded compiled code. One that is lost shows when it is to carry a shard."""
        loading = [actor.load.remote() for actor in self.actors]
        ray.wait(loading, num_returns=len(loading))

    def __call__(self, course: Course, shards: Sequence[Shard], stop: threading.Event) -> Iterator[Carried]:
        """As ``running.here``. Raises PlaneError where actors are lost again and again."""
        if stop.is_set():  # while the tables were made
            return
        self._course = ray.put(course)
        try:
            for actor in self.actors:
                self._hand_over_to(actor)
            yield from self._carried(list(reversed(shards)), stop)
        finally:
            self._course = None  # the next one may need its room in the object store
            for actor in self.actors:
                actor.take.remote(None)

    def _hand_over_to(self, actor: Any) -> None:
        """Gives an actor the course, before any shard of it."""
        self._under_way[actor.take.remote(self._course)] = actor, None

    def _carried(self, waiting: list[Shard], stop: threading.Event) -> Iterator[Carried]:
        """Shards that are carried, of those that wait, from the last one on."""
        finished: list[Carried] = []
        self._turns = self.actors * SHARDS_AT_A_TIME
        while self._under_way or (waiting and not stop.is_set()):
            while waiting and self._turns and not stop.is_set():
                actor, following = self._turns.pop(), waiting.pop()
                self._under_way[actor.carry.remote(following)] = actor, following
            yield from finished  # what becomes of them takes time: the actors have their next shards by then
            finished.clear()
            under_way = list(self._under_way)
            done, _ = ray.wait(under_way, timeout=POLL_S) if under_way else ([], [])
            for reference in done:
                actor, shard = self._under_way.pop(reference)
                try:
                    carried = ray.get(reference)
                except RayActorError as error:
                    if not stop.is_set():
                        self._replace(actor, error)
                        if shard:
                            waiting.append(shard)
                except TaskCancelledError:
                    continue
                except RayError as error:
                    balancers = shard and f"balancers {shard.first} to {shard.last - 1} can't be carried"
                    raise PlaneError(f"{balancers or 'a worker cannot have the tables'}: {error}") from error
                else:
                    if shard:
                        finished.append(carried)
                    if shard and actor in self.actors:
                        self._turns.append(actor)
            if stop.is_set():
                self._leave_those_that_wait()
        yield from finished

    def _leave_those_that_wait(self) -> None:
        """Of shards that an actor has, only the earliest is at work."""
        at_work = set()
        for reference, (actor, _) in self._under_way.items():
            if actor in at_work:
                ray.cancel(reference)
            at_work.add(actor)

    def _replace(self, actor: Any, error: RayActorError) -> None:
        """Puts another in the place of an actor, unless an earlier one of its shards has."""
        if actor not in self.actors:
            return
        self.lost += 1
        if self.lost > LOST_AT_MOST:
            raise PlaneError(f"{self.lost} workers were lost one after the other, the last because: {error}") from error
        self.actors.remove(actor)
        ray.kill(actor)  # which may only have been out of reach
        another = _actor()
        self.actors.append(another)
        self._hand_over_to(another)
        self._turns = [each for each in self._turns if each != actor] + [another] * SHARDS_AT_A_TIME

    def end(self) -> None:
        """Ends all actors, also with shards under way; may be called from any thread, and again."""
        for actor in list(self.actors):
            ray.kill(actor)


def _actor() -> Any:
    actor_class: Any = ray.remote(Worker)
    return actor_class.options(num_cpus=0, scheduling_strategy="SPREAD").remote()
