"""Slow start: what share of new connections a member gets by its age, for every algorithm that takes notice of it.

All draws follow from flows, times and endpoints that are fixed here, so each of these shares is always the same.
"""

import numpy as np
import pytest

from kernels import layout
from kernels.jit import INTERPRETED
from kernels.layout import DH, LC, MAGLEV, MH, NQ, P2C, RANDOM, RR, SED, SH, TCP, WLC, WRR, Fib, Steering
from kernels.lb.forward import create_steering, forward, forward_singly
from tests.batches import POD, VIP, Backend, Frontend, fib_of, one_service, random_flows, verdicts_for

WINDOW_S = 30
WINDOW_NS = WINDOW_S * 10**9
READY_NS = 10**15  # when those that are new became ready
PICKS = 1000 if INTERPRETED else 4000
MEMBERS = 5
NEWCOMER = 3
BUSY = 1000  # connections that the others have

BY_SHARE = [RANDOM, RR, WRR]
LEAST = [LC, WLC, SED, NQ]
HASHING = [SH, DH, MH, MAGLEV]


def named(algorithms: list[int]) -> list[object]:
    return [pytest.param(algorithm, id=layout.ALGORITHMS[algorithm]) for algorithm in algorithms]


def steering_with(fib: Fib, ready_ns: dict[int, int], *, idle: tuple[int, ...] = ()) -> Steering:
    """What a thread remembers that saw these backends become ready; all are busy but for those ``idle``."""
    steering = create_steering(fib, 0)
    for backend, since_ns in ready_ns.items():
        steering.ready_ns[backend] = since_ns
    steering.warm_ns[0] = max(ready_ns.values(), default=0) + WINDOW_NS
    steering.active[:] = [0 if backend in idle else BUSY for backend in range(len(fib.backends))]
    return steering


def picked(fib: Fib, steering: Steering, age_ns: int, *, picks: int = PICKS) -> np.ndarray:
    """How often each backend was picked for so many connections, one after the other, none of which lasts."""
    count = np.zeros(len(fib.backends), np.int64)
    for number in range(picks):
        verdicts = verdicts_for(1)
        forward_singly(fib, steering, random_flows(1, seed=number), READY_NS + age_ns, verdicts)
        [backend] = verdicts.backend
        count[backend] += 1
        steering.active[backend] -= 1
    return count


def share(algorithm: int, age_ns: int, *, idle: tuple[int, ...] = (NEWCOMER,)) -> float:
    """The newcomer's share of new connections at an age, of what a fair share is."""
    fib = one_service(algorithm, MEMBERS, slow_start_s=WINDOW_S)
    count = picked(fib, steering_with(fib, {NEWCOMER: READY_NS}, idle=idle), age_ns)
    assert count.sum() == PICKS
    return float(count[NEWCOMER] / PICKS * MEMBERS)


def near(wanted: float, *, of: int = MEMBERS) -> object:
    """Within four standard deviations of a share that is ``wanted`` of a fair one."""
    chance = wanted / of
    return pytest.approx(wanted, abs=4 * of * (chance * (1 - chance) / PICKS) ** 0.5 + 0.02)


@pytest.mark.parametrize("algorithm", named(BY_SHARE))
def test_share_grows_in_a_straight_line_from_a_tenth(algorithm: int) -> None:
    def wanted(part: float) -> object:  # whose turn is passed over has the next one earlier
        return near(part if algorithm == RANDOM else part * MEMBERS / (MEMBERS - 1 + part))

    assert share(algorithm, 0) == wanted(0.1)
    assert share(algorithm, WINDOW_NS // 20) == wanted(0.1), "the floor lasts until age has grown to it"
    assert share(algorithm, WINDOW_NS // 2) == wanted(0.5)
    assert share(algorithm, WINDOW_NS) == wanted(1)


@pytest.mark.parametrize("algorithm", named(LEAST))
def test_who_has_no_connections_gets_no_more_than_its_part_of_a_fair_share(algorithm: int) -> None:
    assert share(algorithm, 0) == near(0.1)
    assert share(algorithm, WINDOW_NS // 2) == near(0.5)
    assert share(algorithm, WINDOW_NS - 1) == near(1)
    assert share(algorithm, WINDOW_NS) == MEMBERS, "once warm, the least loaded gets everything, as ever"


def test_of_two_the_new_one_is_passed_over_as_often_as_it_is_new() -> None:
    # Drawn in two of N pairs, and then the less loaded: twice a fair share, as far as it takes part.
    assert share(P2C, 0) == near(0.2)
    assert share(P2C, WINDOW_NS // 2) == near(1)
    assert share(P2C, WINDOW_NS) == near(2)


@pytest.mark.parametrize("algorithm", named([*BY_SHARE, *LEAST, P2C]))
def test_those_that_are_warm_share_evenly_what_the_newcomer_does_not_get(algorithm: int) -> None:
    fib = one_service(algorithm, MEMBERS, slow_start_s=WINDOW_S)
    steering = steering_with(fib, {NEWCOMER: READY_NS}, idle=(NEWCOMER,))
    if algorithm in LEAST:  # among equals they take the first, so let connections last
        steering.active[:] = 0
        verdicts = verdicts_for(PICKS)
        forward(fib, steering, random_flows(PICKS), READY_NS, verdicts)
        others = np.bincount(verdicts.backend)
    else:
        others = picked(fib, steering, 0)
    others = np.delete(others, [0, NEWCOMER])
    assert others.min() > others.mean() - 4 * others.mean() ** 0.5  # standard deviations of a draw


@pytest.mark.parametrize("algorithm", named([*BY_SHARE, *LEAST, P2C]))
def test_where_all_are_new_nobody_is_held_back(algorithm: int) -> None:
    slow, plain = one_service(algorithm, MEMBERS, slow_start_s=WINDOW_S), one_service(algorithm, MEMBERS)
    all_new = dict.fromkeys(range(1, MEMBERS + 1), READY_NS)
    counts = [picked(fib, steering_with(fib, all_new), 1, picks=200).tolist() for fib in (slow, plain)]
    assert counts[0] == counts[1]


def test_of_those_that_are_new_the_younger_gets_less() -> None:
    fib = one_service(RANDOM, 2, slow_start_s=WINDOW_S)
    count = picked(fib, steering_with(fib, {1: READY_NS, 2: READY_NS - WINDOW_NS // 4}), WINDOW_NS // 4)
    assert count[1] / PICKS * 2 == near(0.5, of=2), "a quarter of the time beside a half of it"


@pytest.mark.parametrize("algorithm", named(HASHING))
def test_what_hashes_takes_no_notice_of_age(algorithm: int) -> None:
    slow, plain = one_service(algorithm, MEMBERS, slow_start_s=WINDOW_S), one_service(algorithm, MEMBERS)
    counts = [picked(fib, steering_with(fib, {NEWCOMER: READY_NS}), 0, picks=200).tolist() for fib in (slow, plain)]
    assert counts[0] == counts[1]


def test_a_client_with_session_affinity_has_the_same_backend_new_or_not() -> None:
    backends = {number: Backend(POD + number - 1) for number in range(1, MEMBERS + 1)}
    fib = fib_of(
        [Frontend(VIP, 80, TCP, LC, list(backends), affinity=1, affinity_s=9, slow_start_s=WINDOW_S)], backends
    )
    counts = [picked(fib, steering_with(fib, ready), 0, picks=200).tolist() for ready in ({}, {NEWCOMER: READY_NS})]
    assert counts[0] == counts[1]


def test_a_pool_without_slow_start_takes_no_notice_of_age() -> None:
    fib = one_service(LC, MEMBERS)
    assert picked(fib, steering_with(fib, {NEWCOMER: READY_NS}, idle=(NEWCOMER,)), 0, picks=50)[NEWCOMER] == 50


def test_a_new_one_that_outweighs_all_others_does_not_keep_its_turns() -> None:
    backends = {1: Backend(POD, weight=1), 2: Backend(POD + 1, weight=60000)}
    fib = fib_of([Frontend(VIP, 80, TCP, WRR, [1, 2], slow_start_s=WINDOW_S)], backends)
    count = picked(fib, steering_with(fib, {2: READY_NS}), 0)
    assert count[2] / PICKS == near(0.1, of=1)
