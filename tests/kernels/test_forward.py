"""forward: verdicts equal to the twin's, whatever the tables, the flows and the changes between batches."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import layout
from kernels.jit import INTERPRETED
from kernels.layout import (
    DRAINING,
    GONE,
    INSIDE,
    MAGLEV,
    MH,
    NEW,
    NO_FRONTEND,
    OUTCOMES,
    OUTSIDE,
    RANDOM,
    READY,
    REJECT,
    RR,
    TCP,
    TRACKED,
    UDP,
    Fib,
    Flows,
    Steering,
    Verdicts,
    freeze,
)
from kernels.lb import conntrack
from kernels.lb.conntrack import TICK_NS
from kernels.lb.forward import BLOCK, IDLE_NS, create_steering, empty_fib, forward, forward_singly
from kernels.lb.pools import ring_of
from plane.families import FAMILIES, IPV4, IPV6, Family
from tests import reference
from tests.batches import (
    POD,
    VIP,
    Backend,
    Frontend,
    address_of,
    fib_of,
    flows_of,
    one_service,
    random_flows,
    rows_of,
    verdicts_for,
)

ALGORITHMS = [pytest.param(number, id=name) for number, name in enumerate(layout.ALGORITHMS)]


def decide(fib: Fib, steering: Steering, flows: Flows, now_ns: int = 0, by: Callable[..., None] = forward) -> Verdicts:
    verdicts = verdicts_for(len(flows.proto))
    by(fib, steering, flows, now_ns, verdicts)
    return verdicts


def names(verdicts: Verdicts) -> list[str]:
    return [OUTCOMES[outcome] for outcome in verdicts.outcome]


def some(flows: Flows, chosen: slice) -> Flows:
    return Flows(*(column[chosen] for column in flows))


# Few addresses, so that frontends are hit, flows come back and an id stands for another endpoint in the next Fib.
frontend_keys = st.tuples(st.integers(VIP, VIP + 2), st.sampled_from([80, 443]), st.sampled_from([TCP, UDP]))
flow_rows = st.tuples(
    st.integers(POD, POD + 3), st.integers(VIP, VIP + 2), st.integers(40000, 40002), st.sampled_from([80, 443])
)
flows_strategy = st.lists(st.builds(lambda row, proto: (*row, proto), flow_rows, st.sampled_from([TCP, UDP])))
backend_rows = st.builds(
    Backend,
    st.integers(POD, POD + 4),
    st.sampled_from([8080, 9090]),
    st.sampled_from([GONE, READY, READY, DRAINING]),
    st.integers(0, 3),
)


@st.composite
def fibs(draw: st.DrawFn, family: Family) -> Fib:
    backends = draw(st.dictionaries(st.integers(1, 6), backend_rows, max_size=6))
    members = st.lists(st.sampled_from(sorted(backends)), unique=True) if backends else st.just([])
    keys = draw(st.lists(frontend_keys, unique=True, max_size=5))
    frontend = st.builds(
        Frontend,
        *(st.none() for _ in range(3)),
        algorithm=st.integers(0, len(layout.ALGORITHMS) - 1),
        members=members,
        outside=st.none() | members,
        by_node=st.sampled_from([0, 0, INSIDE, OUTSIDE, INSIDE | OUTSIDE]),
        affinity=st.sampled_from([0, 0, 1, 2]),
        affinity_s=st.just(1),
        ranges=st.just(()) | st.lists(st.just((POD + 1, POD + 2)) | st.just((POD, POD)), max_size=2),
        node=st.integers(0, 2),
        slow_start_s=st.sampled_from([0, 0, 1]),
    )
    rows = [draw(frontend)._replace(ip=ip, port=port, proto=proto) for ip, port, proto in keys]
    return fib_of(rows, backends, family=family)


def steps_of(family: Family) -> st.SearchStrategy[tuple[Family, list[tuple[Fib, list[reference.Flow], int]]]]:
    """Fibs of the family, with flows under each of them, and the time that passes before."""
    step = st.tuples(fibs(family), flows_strategy, st.sampled_from([0, 3 * 10**8, TICK_NS, 2 * TICK_NS + 7]))
    return st.tuples(st.just(family), st.lists(step, min_size=1, max_size=5))


@settings(deadline=None, max_examples=200)
@given(
    steps_of(IPV4) | steps_of(IPV6),
    st.booleans(),
    st.lists(st.integers(0, 3), min_size=7, max_size=7),
    st.lists(st.sampled_from([0, 1, 20, 5 * 10**8]), max_size=7),
    st.sampled_from([0, 10**9, 2 * 10**9]),
    st.integers(0, 2),
    st.booleans(),
)
def test_verdicts_equal_the_twins_through_changes_of_the_fib(
    family_and_steps: tuple[Family, list[tuple[Fib, list[reference.Flow], int]]],
    remembers: bool,
    active: list[int],
    ready_ns: list[int],
    warm_ns: int,
    arrival: int,
    singly: bool,
) -> None:
    family, steps = family_and_steps
    by = forward_singly if singly and family is IPV4 else forward  # a relay's flows are of IPv4
    steering = create_steering(steps[0][0], 256 if remembers else 0)._replace(
        active=np.array(active, np.int32), ready_ns=np.array(ready_ns, np.int64)
    )
    steering.idle_ns[0], steering.arrival[0], steering.warm_ns[0] = 2 * TICK_NS, arrival, warm_ns
    twin = reference.Steering(
        2 * TICK_NS,
        len(steering.turns),
        len(active),
        active=dict(enumerate(active)),
        ready_ns=dict(enumerate(ready_ns)),
        warm_ns=warm_ns,
        arrival=arrival,
        remembers=remembers,
    )
    counted = [0] * len(OUTCOMES)
    now_ns = 0
    for fib, numbers, passed_ns in steps:
        now_ns += passed_ns
        rows = [(*(address_of(ip, family) for ip in row[:2]), *row[2:]) for row in numbers]
        verdicts = decide(fib, steering, flows_of(rows, family), now_ns, by)
        expected = reference.forward(fib, twin, rows, now_ns)
        assert list(zip(*(column.tolist() for column in verdicts), strict=True)) == expected
        for outcome, _, _ in expected:
            counted[outcome] += 1
    assert steering.outcomes.tolist() == counted
    turns = {row: tuple(turn) for row, turn in enumerate(steering.turns.tolist()) if any(turn)}
    assert turns == {row: turn for row, turn in twin.turns.items() if any(turn)}
    assert steering.conntrack.counts[conntrack.REFUSED] == 0


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_large_batch_equals_the_twin(algorithm: int, family: Family) -> None:
    fib, flows = one_service(algorithm, 7, family=family), random_flows(600, family=family)
    steering = create_steering(fib, 600)
    verdicts = decide(fib, steering, flows, 12345)
    expected = reference.forward(fib, reference.Steering(IDLE_NS, 2, 8), rows_of(flows), 12345)
    assert list(zip(*(column.tolist() for column in verdicts), strict=True)) == expected


@pytest.mark.parametrize("count", [1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1, 4 * BLOCK + 1])
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_blocks_of_flows_equal_the_twin_where_none_is_remembered(family: Family, count: int) -> None:
    """To rings of several sizes, to pools that have none or are picked from otherwise, and to nobody; tables change."""
    backends = {number: Backend(POD + number, weight=1 + number // 7) for number in range(1, 10)}
    served = [
        Frontend(VIP, 80, TCP, MAGLEV, [1, 2, 3]),
        Frontend(VIP + 1, 80, TCP, MH, [1, 2, 3]),
        Frontend(VIP + 2, 80, TCP, RR, [4, 5]),
        Frontend(VIP + 3, 80, TCP, MAGLEV, []),
        Frontend(VIP + 4, 80, TCP, MAGLEV, [2, 7, 9]),
        Frontend(VIP + 5, 80, TCP, MAGLEV, [1, 2], outside=[3, 4]),
        Frontend(VIP + 6, 80, TCP, MAGLEV, [6]),
    ]
    fibs = [
        fib_of(served, backends, family=family),
        fib_of(served[::-1], backends, family=family, slots=127),
        fib_of(served[:2], backends, family=family),
    ]
    assert len(set(fibs[0].ring_of[fibs[0].ring_of > 0].tolist())) == 5
    draw = np.random.default_rng(count)
    steering = create_steering(fibs[0], 0)
    twin = reference.Steering(IDLE_NS, len(steering.turns), len(steering.active), remembers=False)
    for fib in fibs:
        clients, to = POD + draw.integers(0, 50, count), VIP + draw.integers(0, 8, count)
        ports = draw.integers(1024, 65536, count), np.where(draw.integers(0, 20, count), 80, 81)
        columns = (column.tolist() for column in (clients, to, *ports))
        rows = [
            (address_of(src, family), address_of(dst, family), src_port, dst_port, TCP)
            for src, dst, src_port, dst_port in zip(*columns, strict=True)
        ]
        verdicts = decide(fib, steering, flows_of(rows, family))
        expected = reference.forward(fib, twin, rows, 0)
        assert list(zip(*(column.tolist() for column in verdicts), strict=True)) == expected
    active = {backend: count for backend, count in enumerate(steering.active.tolist()) if count}
    assert active == {backend: count for backend, count in twin.active.items() if count}


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_blocks_of_flows_equal_the_twin_whose_endpoints_and_entries_come_and_go(family: Family) -> None:
    """Known, new, forgotten and twice in one block, in a table so full that many are far from their own bucket."""
    before = {number: Backend(POD + number) for number in range(1, 6)}
    after = before | {1: Backend(POD + 1, state=GONE), 2: Backend(POD + 9), 3: Backend(POD + 3, state=DRAINING)}
    served, changed = (
        fib_of([Frontend(VIP, 80, TCP, RANDOM, members)], backends, family=family)
        for backends, members in ((before, [1, 2, 3, 4, 5]), (after, [2, 4, 5]))
    )
    flows = random_flows(3 * BLOCK, family=family)
    draw, size = np.random.default_rng(7), len(flows.proto)
    steering = create_steering(served, size * 7 // 8)  # all of them fill three quarters
    steering.idle_ns[0] = 10 * TICK_NS
    twin = reference.Steering(10 * TICK_NS, 2, 6)
    outcomes: set[str] = set()
    for fib, tick, chosen in (
        (served, 0, np.arange(size // 2)),
        (served, 5, np.concatenate([np.arange(size // 4), np.arange(size // 2, size), np.arange(size // 2, size)])),
        (served, 5, draw.permutation(size)),
        (changed, 9, np.repeat(draw.permutation(size), 2)),
        (changed, 10, draw.permutation(size)),
        (served, 17, draw.permutation(size)[: size // 2]),
        (served, 20, np.arange(size)),
    ):
        some_flows = Flows(*(column[chosen] for column in flows))
        verdicts = decide(fib, steering, some_flows, tick * TICK_NS)
        expected = reference.forward(fib, twin, rows_of(some_flows), tick * TICK_NS)
        assert list(zip(*(column.tolist() for column in verdicts), strict=True)) == expected
        outcomes |= set(names(verdicts))
    assert outcomes == {"NEW", "TRACKED"}
    assert steering.conntrack.counts[conntrack.REFUSED] == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_verdicts_do_not_depend_on_how_flows_are_batched(algorithm: int) -> None:
    fib, flows = one_service(algorithm, 5), random_flows(100)
    whole, parts = create_steering(fib, 100), create_steering(fib, 100)
    expected = decide(fib, whole, flows, 7)
    for start, end in ((0, 1), (1, 14), (14, 14), (14, 100)):
        verdicts = decide(fib, parts, some(flows, slice(start, end)), 7)
        assert verdicts.backend.tolist() == expected.backend[start:end].tolist()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_run_replayed_at_its_times_gives_equal_verdicts(algorithm: int) -> None:
    fib, flows = one_service(algorithm, 5), random_flows(60)
    runs = []
    for _ in range(2):
        steering = create_steering(fib, 100)
        runs.append([decide(fib, steering, some(flows, slice(i, i + 1)), i * 1000).backend[0] for i in range(60)])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_known_flow_keeps_its_backend(algorithm: int) -> None:
    fib, flows = one_service(algorithm, 5), random_flows(50)
    steering = create_steering(fib, 50)
    first = decide(fib, steering, flows, 0)
    again = decide(fib, steering, flows, 1)
    assert set(names(first)) == {"NEW"}
    assert set(names(again)) == {"TRACKED"}
    assert again.backend.tolist() == first.backend.tolist()


def test_the_first_flow_of_a_client_is_new_and_others_are_there_by_affinity_until_it_ends() -> None:
    backends = {number: Backend(POD + number) for number in range(1, 4)}
    fib = fib_of([Frontend(VIP, 80, TCP, RANDOM, [1, 2, 3], affinity=1, affinity_s=10)], backends)
    steering = create_steering(fib, 16)
    flows = flows_of([(POD + client, VIP, port, 80, TCP) for port, client in ((1, 0), (2, 0), (2, 1), (2, 0))])
    verdicts = decide(fib, steering, flows)
    assert names(verdicts) == ["NEW", "AFFINITY", "NEW", "TRACKED"]
    assert len(set(verdicts.backend[[0, 1, 3]].tolist())) == 1
    assert steering.active.sum() == 3, "connections by affinity are new ones"
    next_one = flows_of([(POD, VIP, 3, 80, TCP)])
    assert names(decide(fib, steering, next_one, 5 * 10**9)) == ["AFFINITY"]
    assert names(decide(fib, steering, flows_of([(POD, VIP, 4, 80, TCP)]), 30 * 10**9)) == ["NEW"]


def test_round_robin_goes_round() -> None:
    fib = one_service(RR, 3)
    verdicts = decide(fib, create_steering(fib, 0), random_flows(7))
    assert verdicts.backend.tolist() == [1, 2, 3, 1, 2, 3, 1]


def test_random_is_even_over_members_and_draws_again_for_the_next_connection() -> None:
    fib, flows = one_service(RANDOM, 4), random_flows(2000)
    steering = create_steering(fib, 0)
    first, second = (decide(fib, steering, flows, now_ns).backend for now_ns in (1, 2))
    assert (np.bincount(first)[1:] > 400).all()
    assert 0.2 < (first == second).mean() < 0.3


def test_maglev_gives_a_flow_the_same_backend_on_every_node_without_conntrack() -> None:
    fib, flows = one_service(MAGLEV, 4), random_flows(500)
    first, second = (decide(fib, create_steering(fib, 0), flows, now_ns).backend for now_ns in (1, 2))
    assert first.tolist() == second.tolist()
    assert len(set(first.tolist())) == 4


def service_over(backends: dict[int, Backend], members: list[int]) -> Fib:
    return fib_of([Frontend(VIP, 80, TCP, RR, members)], backends)


def test_flows_of_a_draining_backend_go_on_and_new_ones_do_not_come() -> None:
    steering = create_steering(service_over({1: Backend(POD)}, [1]), 16)
    flows = random_flows(2)
    decide(service_over({1: Backend(POD)}, [1]), steering, some(flows, slice(0, 1)))
    drained = service_over({1: Backend(POD, state=DRAINING), 2: Backend(POD + 1)}, [2])
    verdicts = decide(drained, steering, flows)
    assert verdicts.outcome.tolist() == [TRACKED, NEW]
    assert verdicts.backend.tolist() == [1, 2]


@pytest.mark.parametrize(
    "after",
    [
        pytest.param({1: Backend(POD, state=GONE), 2: Backend(POD + 1)}, id="backend gone"),
        pytest.param({1: Backend(POD + 9), 2: Backend(POD + 1)}, id="id given to another endpoint"),
        pytest.param({1: Backend(POD, port=9090), 2: Backend(POD + 1)}, id="id given to another port"),
    ],
)
def test_a_flow_whose_endpoint_is_gone_is_picked_again(after: dict[int, Backend]) -> None:
    before = service_over({1: Backend(POD)}, [1])
    steering = create_steering(before, 16)
    flow = random_flows(1)
    assert decide(before, steering, flow).backend.tolist() == [1]
    again = decide(service_over(after, [2]), steering, flow)
    assert (names(again), again.backend.tolist()) == (["NEW"], [2])
    assert names(decide(service_over(after, [2]), steering, flow)) == ["TRACKED"]


def test_a_flow_whose_backend_row_no_longer_exists_is_picked_again() -> None:
    before = service_over({1: Backend(POD), 5: Backend(POD + 5)}, [5])
    steering = create_steering(before, 16)
    flow = random_flows(1)
    assert decide(before, steering, flow).backend.tolist() == [5]
    assert decide(service_over({1: Backend(POD)}, [1]), steering, flow).backend.tolist() == [1]


def test_a_known_flow_is_forgotten_after_its_idle_time() -> None:
    fib = one_service(RR, 2)
    steering = create_steering(fib, 16)
    steering.idle_ns[0] = 100 * TICK_NS
    flow = random_flows(1)
    seen = [names(decide(fib, steering, flow, ticks * TICK_NS))[0] for ticks in (0, 99, 198, 298)]
    assert seen == ["NEW", "TRACKED", "TRACKED", "NEW"]


def test_no_frontend_and_no_endpoint_are_told_apart() -> None:
    fib = fib_of([Frontend(VIP, 80, TCP, algorithm, []) for algorithm in (RANDOM,)], {})
    rows = [(POD, VIP, 40000, 80, TCP), (POD, VIP, 40000, 81, TCP), (POD, VIP, 40000, 80, UDP)]
    verdicts = decide(fib, create_steering(fib, 16), flows_of(rows))
    assert verdicts.outcome.tolist() == [REJECT, NO_FRONTEND, NO_FRONTEND]
    assert verdicts.frontend.tolist() == [1, 0, 0]
    assert verdicts.backend.tolist() == [0, 0, 0]


@pytest.mark.parametrize("tracked", [0, 16])
def test_a_service_without_endpoints_has_none_of_its_neighbours(tracked: int) -> None:
    """Its ring of no slots begins where another one does."""
    rows = [Frontend(VIP, 80, TCP, MAGLEV, [1]), Frontend(VIP + 1, 80, TCP, MAGLEV, [])]
    fib = fib_of(rows, {1: Backend(POD)})
    steering = create_steering(fib, tracked)
    flows = flows_of([(POD, VIP + which, 40000, 80, TCP) for which in (1, 0, 1)])
    verdicts = decide(fib, steering, flows)
    assert verdicts.outcome.tolist() == [REJECT, NEW, REJECT]
    assert verdicts.backend.tolist() == [0, 1, 0]
    assert steering.active.tolist() == [0, 1]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_service_without_endpoints_refuses_and_recovers(algorithm: int) -> None:
    nobody = fib_of([Frontend(VIP, 80, TCP, algorithm, [])], {})
    steering = create_steering(nobody, 16)
    flow = random_flows(1)
    assert names(decide(nobody, steering, flow)) == ["REJECT"]
    assert names(decide(one_service(algorithm, 1), steering, flow)) == ["NEW"]


def test_flows_are_served_though_conntrack_is_full() -> None:
    fib, flows = one_service(MAGLEV, 3), random_flows(50)
    steering = create_steering(fib, 4)  # two buckets, of which seven entries are used
    verdicts = decide(fib, steering, flows)
    assert set(names(verdicts)) == {"NEW"}
    assert steering.conntrack.counts.tolist()[:2] == [7, 43]
    assert decide(fib, steering, flows).backend.tolist() == verdicts.backend.tolist()


@pytest.mark.parametrize("tracked", [0, 16])
def test_a_fib_with_runs_beyond_its_tables_gives_no_endpoint_and_reads_nothing_else(tracked: int) -> None:
    for algorithm in range(len(layout.ALGORITHMS)):
        fib = one_service(algorithm, 3)
        table = fib.pools.copy()
        table["first_member"], table["first_slot"] = 1 << 31, 1 << 31
        broken = fib._replace(pools=freeze(table), ring_of=freeze(ring_of(table)))
        assert set(names(decide(broken, create_steering(fib, tracked), random_flows(20)))) == {"REJECT"}


@pytest.mark.skipif(INTERPRETED, reason="so many are too many for interpreted code")
def test_as_many_backends_as_there_can_be() -> None:
    """65,535: by every algorithm flows go to them and to nobody else; a ring has two or three slots of each."""
    fib = one_service(MAGLEV, 65_535, slots=131_071)
    assert set(np.bincount(fib.rings)[1:]) == {2, 3}
    for algorithm, name in enumerate(layout.ALGORITHMS):
        pools = fib.pools.copy()
        pools["algorithm"] = algorithm
        count = 200 if name in ("lc", "wlc", "sed", "nq", "wrr") else 20_000
        chosen = fib._replace(pools=freeze(pools), ring_of=freeze(ring_of(pools)))
        verdicts = decide(chosen, create_steering(chosen, count), random_flows(count))
        assert (verdicts.outcome == NEW).all(), name
        assert 1 <= verdicts.backend.min() <= verdicts.backend.max() <= 65_535
        different = len(np.unique(verdicts.backend))
        if name in ("maglev", "random", "sh", "mh"):  # of so many draws 17,230 different ones are expected
            assert 16_900 < different < 17_600, name
        assert different > 16_900 or name in ("dh", "nq", "lc", "wlc", "sed", "wrr"), name


def test_the_empty_fib_has_no_frontend_for_anything() -> None:
    fib = empty_fib()
    assert set(names(decide(fib, create_steering(fib, 16), random_flows(5)))) == {"NO_FRONTEND"}


def test_an_empty_batch_changes_nothing() -> None:
    fib = one_service(RANDOM, 1)
    steering = create_steering(fib, 16)
    decide(fib, steering, flows_of([]))
    assert steering.outcomes.sum() == 0
