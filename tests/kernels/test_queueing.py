"""Waiting at backends: against a twin, against closed forms, and the figures of docs/flows.md.

Run as a module, it prints the table of that page.
"""

import heapq
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.jit import INTERPRETED
from kernels.layout import LC, NQ, P2C, RANDOM, RR, SED, WLC, WRR
from kernels.lb.ewma import BY_EWMA, BY_PEAK_EWMA, BY_POOL, create_speeds, hear
from kernels.lb.forward import create_steering
from kernels.lb.queueing import Arrivals, Waits, create_queues, queue
from tests import reference
from tests.batches import one_service, random_flows, rows_of

S = 1_000_000_000
PAGE = Path(__file__).parents[2] / "docs" / "flows.md"
ENDPOINTS, CONNECTIONS = 50, 200_000
NOBODY: Mapping[int, float] = {}
# The columns of that table.
SHOWN = {
    "random": (RANDOM, BY_POOL),
    "rr": (RR, BY_POOL),
    "ewma": (RANDOM, BY_EWMA),
    "p2c": (P2C, BY_POOL),
    "peak-ewma": (RANDOM, BY_PEAK_EWMA),
    "lc": (LC, BY_POOL),
}


def waits_for(
    algorithm: int,
    endpoints: int,
    places: int,
    arrivals: Arrivals,
    *,
    by: int = BY_POOL,
    fade_ns: int = 10 * S,
    pace: Mapping[int, float] = NOBODY,
) -> tuple[Waits, np.ndarray]:
    """What became of these connections, and what their backends have when the last one has arrived.

    pace  of the backends that are slower than others, by id
    """
    count = len(arrivals.at_ns)
    fib = one_service(algorithm, endpoints)
    steering, queues = create_steering(fib, 0), create_queues(endpoints + 1, places, count, by=by, fade_ns=fade_ns)
    queues.pace[list(pace)] = list(pace.values())
    waits = room_for(count)
    queue(fib, steering, int(fib.frontends[1]["inside"]), random_flows(count), arrivals, queues, waits)
    return waits, steering.active


def room_for(count: int) -> Waits:
    return Waits(np.full(count, 99, np.uint32), np.full(count, -1, np.int64), np.full(count, -1, np.int64))


def poisson(load: float, servers: int, count: int, *, seed: int = 1, sigma: float | None = None) -> Arrivals:
    """Poisson arrivals that keep so many servers busy for ``load`` of the time.

    They last 1 s on average: exponentially, or with ``sigma`` lognormally.
    """
    draw = np.random.default_rng(seed)
    at = np.cumsum(draw.exponential(1 / (load * servers), count))
    lasts = draw.exponential(1, count) if sigma is None else draw.lognormal(-(sigma**2) / 2, sigma, count)
    return Arrivals((at * S).astype(np.int64), (lasts * S).astype(np.int64))


times = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20)), min_size=1, max_size=60)


@settings(deadline=None, max_examples=60)
@given(times, st.sampled_from([RANDOM, RR, WRR, LC, WLC, SED, NQ, P2C]), st.integers(1, 4), st.integers(1, 3))
def test_waits_equal_a_simulation_by_events(
    rows: list[tuple[int, int]], algorithm: int, endpoints: int, places: int
) -> None:
    """The backends that were given, served event by event: nobody overtakes, and no place is idle while one waits."""
    arrivals = Arrivals(np.cumsum([row[0] for row in rows]), np.array([row[1] for row in rows]))
    waits, active = waits_for(algorithm, endpoints, places, arrivals)
    serving: dict[int, list[int]] = {backend: [] for backend in range(1, endpoints + 1)}
    ends = []
    for at, lasts, backend, waited, served in zip(*(column.tolist() for column in (*arrivals, *waits)), strict=True):
        assert served == lasts
        busy = serving[backend]
        begins = at if len(busy) < places else max(at, heapq.heappop(busy))
        heapq.heappush(busy, begins + lasts)
        assert waited == begins - at
        ends.append((backend, begins + lasts))
    last = int(arrivals.at_ns[-1])
    open_now = [backend for backend, end in ends[:-1] if end > last] + [ends[-1][0]]
    assert active.tolist() == np.bincount(open_now, minlength=endpoints + 1).tolist()


@settings(deadline=None, max_examples=40)
@given(times, st.sampled_from([BY_EWMA, BY_PEAK_EWMA]), st.integers(1, 4), st.integers(1, 2), st.integers(1, 40))
def test_picks_by_speed_are_those_of_a_plain_simulation(
    rows: list[tuple[int, int]], by: int, endpoints: int, places: int, fade_ns: int
) -> None:
    arrivals = Arrivals(np.cumsum([row[0] for row in rows]), np.array([row[1] for row in rows]))
    waits, _ = waits_for(RANDOM, endpoints, places, arrivals, by=by, fade_ns=fade_ns, pace={1: 3.0})
    twin = reference.Speeds(by == BY_PEAK_EWMA, fade_ns)
    under_way: list[tuple[int, int, int, int]] = []  # end, place in the order of their beginnings, backend, beginning
    flows = rows_of(random_flows(len(rows)))
    for place, (at, flow) in enumerate(zip(arrivals.at_ns.tolist(), flows, strict=True)):
        for end, _, backend, came in sorted(row for row in under_way if row[0] <= at):
            twin.hear(backend, end - came, end)
        under_way = [row for row in under_way if row[0] > at]
        active = Counter(row[2] for row in under_way)
        backend = int(waits.backend[place])
        assert backend == twin.pick(flow, endpoints, active, at)
        assert waits.served_ns[place] == arrivals.lasts_ns[place] * (3 if backend == 1 else 1)
        under_way.append((at + int(waits.waited_ns[place] + waits.served_ns[place]), place, backend, at))


def test_an_average_is_replaced_by_what_took_longer_and_fades() -> None:
    """Finagle's rule, and ingress-nginx's beside it, in numbers."""
    half_ns = round(math.log(2) * S)
    for by, after_peak in ((BY_EWMA, 60.0), (BY_PEAK_EWMA, 100.0)):
        speeds = create_speeds(2, by, S)
        hear(speeds, 1, 20, 5 * S)
        assert speeds.average_ns[1] == 20
        hear(speeds, 1, 100, 5 * S + half_ns)
        assert speeds.average_ns[1] == pytest.approx(after_peak)


def test_least_connections_gives_to_an_idle_backend_what_it_can() -> None:
    arrivals = Arrivals(np.arange(1, 100), np.full(99, 3))  # at most three at a time
    waits, _ = waits_for(LC, 3, 1, arrivals)
    assert not waits.waited_ns.any()


def test_no_room_and_no_endpoint_are_no_backend() -> None:
    fib = one_service(RANDOM, 1)
    arrivals, flows = Arrivals(np.arange(3), np.full(3, 9)), random_flows(3)
    waits = room_for(3)
    pool = int(fib.frontends[1]["inside"])
    queue(fib, create_steering(fib, 0), pool, flows, arrivals, create_queues(2, 1, 2), waits)
    assert waits.backend.tolist() == [1, 1, 0]
    queue(fib, create_steering(fib, 0), 0, flows, arrivals, create_queues(2, 1, 2), waits)
    assert waits.backend.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="at least one connection at a time, not 0"):
        create_queues(2, 0, 2)


def erlang_c(servers: int, load: float) -> float:
    """The part of arrivals that wait in M/M/c (Erlang 1917)."""
    offered = load * servers
    terms = [offered**n / math.factorial(n) for n in range(servers)]
    waiting = offered**servers / math.factorial(servers) / (1 - load)
    return waiting / (sum(terms) + waiting)


def batch_means(values: np.ndarray) -> tuple[float, float]:
    """(mean, its standard error) of what depends on what came shortly before: by the means of 20 long runs of it."""
    means = np.array([run.mean() for run in np.array_split(values[len(values) // 20 :], 20)])
    return float(means.mean()), float(means.std(ddof=1) / math.sqrt(len(means)))


@pytest.mark.skipif(INTERPRETED, reason="needs many connections")
@pytest.mark.parametrize(("servers", "load"), [(1, 0.5), (1, 0.8), (4, 0.5), (4, 0.8), (16, 0.9)])
def test_one_backend_is_m_m_c(servers: int, load: float) -> None:
    waits, _ = waits_for(RANDOM, 1, servers, poisson(load, servers, 400_000))
    waiting = erlang_c(servers, load)
    for found, wanted in ((waits.waited_ns > 0, waiting), (waits.waited_ns / S, waiting / (servers * (1 - load)))):
        mean, error = batch_means(found.astype(float))
        assert abs(mean - wanted) < 4 * error
        assert error < 0.1 * wanted  # so that the line above says something


@pytest.mark.skipif(INTERPRETED, reason="needs many connections")
def test_random_among_many_is_m_m_1_at_each() -> None:
    """A Poisson process split at random is one at each backend, and by Pollaczek and Khinchine for any durations."""
    for sigma, squares in ((None, 2.0), (0.5, math.exp(0.25))):
        waits, _ = waits_for(RANDOM, 10, 1, poisson(0.7, 10, 500_000, sigma=sigma))
        mean, error = batch_means(waits.waited_ns / S)
        assert abs(mean - 0.7 * squares / 2 / 0.3) < 4 * error
        assert error < 0.06


def longer_than(algorithm: int, load: float, most: int) -> list[float]:
    """The part of 500 backends that have at least 1 … ``most`` connections, seen by those that arrive."""
    arrivals = poisson(load, 500, CONNECTIONS)
    waits, _ = waits_for(algorithm, 500, 1, arrivals)
    ends_ns = arrivals.at_ns + waits.waited_ns + arrivals.lasts_ns
    seen = []
    for at_ns in arrivals.at_ns[CONNECTIONS // 2 :: 2_000]:
        open_now = waits.backend[(arrivals.at_ns <= at_ns) & (ends_ns > at_ns)]
        has = np.bincount(open_now, minlength=501)[1:]
        seen.append([np.mean(has >= least) for least in range(1, most + 1)])
    return np.mean(seen, axis=0).tolist()


@pytest.mark.skipif(INTERPRETED, reason="needs many connections")
def test_of_two_choices_queues_fall_doubly_exponentially() -> None:
    """λ^(2^k - 1) of backends have k connections or more, as their number grows (Mitzenmacher 2001, theorem 1)."""
    found = longer_than(P2C, 0.8, 4)
    wanted = [0.8 ** (2**least - 1) for least in range(1, 5)]
    assert found == pytest.approx(wanted, abs=0.03)
    at_random = longer_than(RANDOM, 0.8, 4)
    assert at_random == pytest.approx([0.8**least for least in range(1, 5)], abs=0.04)
    assert found[3] < 0.15 * at_random[3]


@pytest.mark.skipif(INTERPRETED, reason="needs many connections")
def test_who_goes_by_speed_spares_the_slow() -> None:
    """Of 50 endpoints five take four times as long. By what share of connections they get, and who waits longest.

    At random a tenth, which is 2.6 times what they can serve; least connections fewer, and by speed fewest of all.
    """
    slow = dict.fromkeys(range(1, 6), 4.0)
    able = ENDPOINTS - 5 + 5 / 4
    arrivals = poisson(0.7 * able / ENDPOINTS, ENDPOINTS, 100_000)
    shares, late = {}, {}
    for name, algorithm, by in (
        ("random", RANDOM, BY_POOL),
        ("p2c", P2C, BY_POOL),
        ("ewma", RANDOM, BY_EWMA),
        ("peak-ewma", RANDOM, BY_PEAK_EWMA),
    ):
        waits, _ = waits_for(algorithm, ENDPOINTS, 1, arrivals, by=by, pace=slow)
        half = slice(len(waits.backend) // 2, None)
        shares[name] = np.mean(np.isin(waits.backend[half], list(slow)))
        late[name] = float(np.percentile((waits.waited_ns + waits.served_ns)[half] / S, 99))
    assert shares["random"] == pytest.approx(0.1, abs=0.005)
    assert max(shares["ewma"], shares["peak-ewma"]) < shares["p2c"] < shares["random"] / 2
    assert late["peak-ewma"] < late["p2c"] < late["random"] / 10


def figures() -> str:
    """The table of docs/flows.md: percentiles 50, 99 and 99.9 of the time waited, in times of the mean served."""
    lines = []
    for kind, sigma in (("exponential", None), ("lognormal", 1.5)):
        for load in (0.5, 0.8, 0.95):
            cells = []
            for algorithm, by in SHOWN.values():
                arrivals = poisson(load, ENDPOINTS * 4, CONNECTIONS, sigma=sigma)
                waits, _ = waits_for(algorithm, ENDPOINTS, 4, arrivals, by=by)
                tail = np.percentile(waits.waited_ns[CONNECTIONS // 10 :] / S, [50, 99, 99.9])
                cells.append(" / ".join(f"{each:.2f}" for each in tail))
            lines.append(f"| {kind} | {load:.0%} | {' | '.join(cells)} |")
    return "\n".join(lines)


@pytest.mark.skipif(INTERPRETED, reason="needs many connections")
def test_the_page_says_what_comes_of_it() -> None:
    assert figures() in PAGE.read_text()


if __name__ == "__main__":
    print(*SHOWN)
    print(figures())
