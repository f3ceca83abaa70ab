"""What each load of a scenario sends, where and when, as its driver takes it.

Law: all of it is decided before the first request and follows from the scenario and its seed, so that equal scenarios
send equal requests. Which of its requests a row is, is drawn by their weights, and by Zipf's law within one that has
``zipf`` (Zipf 1949; of URLs: Breslau et al., INFOCOM '99).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from harness.drivers.stream import Task
from harness.mix import Mix
from harness.requests import NUMBER, Request
from harness.scenario import Scenario
from harness.stages import slopes
from harness.targets import Resolved
from harness.workload import Workload, id_key

# Rows after which a mix repeats itself.
PERIOD = 1 << 20
# Apart from the arrivals, which are drawn by the seed and the place of the load alone.
_OF_MIX = 1


def task(scenario: Scenario, place: int, target: Resolved) -> Task:
    """What the load at that place is to its driver."""
    load = scenario.spec.loads[place]
    seed = scenario.spec.seed, place
    return Task(
        target.destination,
        mixed(load.requests, target.workload, (*seed, _OF_MIX)),
        load.arrivals.rate,
        load.arrivals.connections or load.arrivals.max_connections,
        load.start,
        load.duration,
        scenario.timeout_ns(load),
        id_key(*seed),
        seed if load.arrivals.process == "poisson" else None,
        slopes(load.arrivals.stages or ()),
    )


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
