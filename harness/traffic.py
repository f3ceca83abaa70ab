"""What each load of a scenario sends, where and when, as its driver takes it.

Law: all of it is decided before the first request and follows from the scenario and its seed, so that equal scenarios
send equal requests. Which of its requests a row is, is drawn by their weights, and by Zipf's law within one that has
``zipf`` (Zipf 1949; of URLs: Breslau et al., INFOCOM '99).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness import replay
from harness.drivers.stream import Task
from harness.mix import Mix
from harness.replay import Log
from harness.requests import NUMBER, Request
from harness.scenario import Scenario, ScenarioError
from harness.stages import slopes
from harness.targets import Resolved
from harness.units import NS_PER_S
from harness.workload import Echo, Workload, id_key
from plane.errors import Problem

# Rows after which a mix repeats itself.
PERIOD = 1 << 20
# Lines of a log that are no requests, as far as a message has room for them.
LINES_SHOWN = 3
# Apart from the arrivals, which are drawn by the seed and the place of the load alone.
_OF_MIX = 1


def logs_of(scenario: Scenario, file: Path) -> dict[int, Log]:
    """The logs that loads replay, by the loads' places. Raises ScenarioError with all that are none."""
    logs: dict[int, Log] = {}
    problems = []
    for place, load in enumerate(scenario.spec.loads):
        if load.arrivals.replay is None:
            continue
        try:
            logs[place] = replay.read(file.parent / load.arrivals.replay.log)
        except (OSError, ValueError) as error:
            reason = f"{error.filename} cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)
            field = f"spec.loads[{place}].arrivals.replay.log"
            problems.append(Problem(str(file), 1, f"Scenario {scenario.name}", field, reason))
    if problems:
        raise ScenarioError(problems)
    return logs


def warnings(scenario: Scenario, logs: Mapping[int, Log]) -> Iterator[str]:
    """What people are told of logs before they are replayed."""
    for place, log in logs.items():
        if log.unreadable:
            first = "; ".join(f"line {row.line} {row.reason}" for row in log.unread[:LINES_SHOWN])
            more = ", …" if log.unreadable > LINES_SHOWN else ""
            count = f"{log.unreadable:,} of {log.lines:,} lines of {log.name}"
            yield f"load {scenario.spec.loads[place].name}: {count} are no requests and not replayed: {first}{more}"


def task(scenario: Scenario, place: int, target: Resolved, log: Log | None = None) -> Task:
    """What the load at that place is to its driver; ``log`` is what it replays, if it does."""
    load = scenario.spec.loads[place]
    seed = scenario.spec.seed, place
    asked = target.workload
    made = Task(
        target.destination,
        Mix.of(asked) if isinstance(asked, Echo) else mixed(load.requests, asked, (*seed, _OF_MIX)),
        load.arrivals.rate,
        load.arrivals.connections or load.arrivals.max_connections,
        load.start,
        load.duration,
        scenario.timeout_ns(load),
        id_key(*seed),
        seed if load.arrivals.process == "poisson" else None,
        slopes(load.arrivals.stages or ()),
    )
    if load.arrivals.replay is None or log is None or isinstance(asked, Echo):  # messages are in no log
        return made
    due_ns = log.at(load.arrivals.replay.speed)
    if load.lasts is not None:
        due_ns = due_ns[due_ns < load.lasts]
    workloads = [replace(asked, method=method, path=path) for method, path in log.asked]
    mix = Mix(workloads, [workload.called for workload in workloads], log.order)
    pace = log.name if load.arrivals.replay.speed == 1 else f"{log.name}, {load.arrivals.replay.speed:g} times its pace"
    duration_ns = load.lasts or max(int(due_ns[-1]) + 1, NS_PER_S)
    return replace(made, mix=mix, duration_ns=duration_ns, replayed=due_ns, pace=pace)


def mixed(requests: Sequence[Request], base: Workload, seed: Sequence[int]) -> Mix:
    """The mix of requests that, but for what each of them says, are ``base``; without any it is that alone."""
    if not requests:
        return Mix.of(base)
    workloads: list[Workload] = []
    names: list[str] = []
    chances: list[np.ndarray] = []
    total = sum(request.weight for request in requests)
    for request in requests:
        each = list(_workloads(request, base))
        workloads += each
        names += [request.name or replace(each[0], path=request.path or base.path).called] * len(each)
        chances.append(_chances(request) * request.weight / total)
    chance = np.concatenate(chances)
    order = np.random.default_rng(seed).choice(len(chance), PERIOD, p=chance / chance.sum()).astype(np.uint32)
    return Mix(workloads, names, order)


def _workloads(request: Request, base: Workload) -> Iterator[Workload]:
    """The requests that one of a scenario stands for, the most frequent first."""
    own = {name.lower() for name in request.headers}
    headers = {name: text for name, text in base.headers.items() if name.lower() not in own} | request.headers
    path = request.path or base.path
    one = replace(base, method=request.method, path=path, headers=headers, body=request.body)
    if request.zipf is None:
        yield one
        return
    for number in range(1, request.zipf.count + 1):
        yield replace(one, path=path.replace(NUMBER, str(number)))


def _chances(request: Request) -> np.ndarray:
    """Of each of them, float64[n]; together 1."""
    if request.zipf is None:
        return np.ones(1)
    share = np.arange(1, request.zipf.count + 1, dtype=np.float64) ** -float(request.zipf.s)
    return share / share.sum()
