"""Algorithms that the plane is compared with: equal to their twins, ready backends only, and what moves on a change."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels import layout
from kernels.jit import INTERPRETED
from kernels.layout import ANCHOR, DRAINING, GONE, JUMP, NEW, RANDOM, READY, RENDEZVOUS, RING, SLOTS, TCP, TRACKED, Fib
from kernels.lb import maglev
from kernels.lb.consistent import anchor, jump, ring
from kernels.lb.consistent.forward import forward
from kernels.lb.consistent.tables import Builder
from kernels.lb.forward import create_steering
from kernels.lb.forward import forward as plain_forward
from tests import reference
from tests.batches import POD, VIP, Backend, Frontend, fib_of, random_flows, rows_of, verdicts_for

U64 = np.uint64
RIVALS = [pytest.param(number, id=name) for number, name in enumerate(layout.RIVALS)]
FLOWS = 300 if INTERPRETED else 20_000

keys = st.integers(0, (1 << 64) - 1)
endpoints = st.dictionaries(keys, st.sampled_from([1, 1, 2, 3, 100, 65535]), min_size=1, max_size=8)


def a_service(weights: Sequence[int]) -> Fib:
    """VIP:80 over backends 1 … n of these weights; one of weight 0 is in no pool."""
    backends = {number: Backend(POD + number, weight=weight) for number, weight in enumerate(weights, start=1)}
    return fib_of([Frontend(VIP, 80, TCP, RANDOM, [*backends])], backends)


def steered(fib: Fib, builder: Builder, count: int = FLOWS) -> np.ndarray:
    """The backend of each of so many flows, with nobody remembered."""
    verdicts = verdicts_for(count)
    forward(fib, builder.build(fib), create_steering(fib, 0), random_flows(count), 0, verdicts)
    return verdicts.backend


@settings(max_examples=30)
@given(endpoints, st.lists(keys, min_size=1, max_size=20))
def test_ring_equals_twin(given_endpoints: dict[int, int], words: list[int]) -> None:
    seeds, weights = [*given_endpoints], [*given_endpoints.values()]
    points, owners = ring.build(np.array(seeds, U64), np.array(weights, np.uint16))
    twin = reference.ketama(seeds, weights)
    assert list(zip(points.tolist(), owners.tolist(), strict=True)) == [(place, owner) for place, _, owner in twin]
    for word in words:
        row = ring.next_point(points, 0, len(points), U64(word))
        assert row == reference.next_on_circle(points.tolist(), word)


@given(keys, st.integers(1, 100_000))
def test_jump_equals_twin(key: int, buckets: int) -> None:
    found = jump.bucket(U64(key), np.int64(buckets))
    assert found == reference.jump(key, buckets)
    assert 0 <= found < buckets


@pytest.mark.parametrize(
    ("key", "buckets", "chosen"),
    [(1, 1, 0), (42, 57, 43), (0xDEAD10CC, 1, 0), (0xDEAD10CC, 666, 361), (256, 1024, 520)],
)
def test_jump_chooses_as_other_implementations_do(key: int, buckets: int, chosen: int) -> None:
    assert jump.bucket(U64(key), np.int64(buckets)) == chosen


@settings(max_examples=60)
@given(st.integers(1, 9), st.integers(0, 5), st.lists(st.integers(0, 20), max_size=20), st.lists(keys, min_size=5))
def test_anchor_equals_its_definition(used: int, spare: int, steps: list[int], words: list[int]) -> None:
    """Each step removes the endpoint of that place, or where there is none adds one."""
    capacity, names = used + spare, [*range(1, used + 1)]
    held, twin = anchor.Anchor(names, capacity), reference.Anchor(capacity, used)
    owners, latest = dict(enumerate(names)), used
    for step in steps:
        if step < len(names) > 1:
            gone = names.pop(step)
            bucket = next(number for number, name in owners.items() if name == gone)
            del owners[bucket]
            twin.remove(bucket)
        elif len(names) < capacity:
            latest += 1
            names.append(latest)
            owners[twin.add()] = latest
        assert held.update(names)
        for word in words:
            bucket = anchor.bucket(held.buckets, 0, capacity, U64(word))
            assert bucket == twin.bucket(word)
            assert held.owners[bucket] == owners[bucket]


def test_an_anchor_whose_endpoints_are_all_replaced_has_the_new_ones() -> None:
    held = anchor.Anchor([1, 2, 3], 4)
    assert held.update([7, 8])
    assert set(held.names) == {7, 8} == set(held.owners.tolist()) - {0}


def test_an_anchor_refuses_more_endpoints_than_it_has_buckets() -> None:
    held = anchor.Anchor([1, 2], 3)
    assert not held.update([1, 2, 3, 4])
    assert set(held.names) == {1, 2}
    with pytest.raises(ValueError, match="4 endpoints do not begin in an anchor of 3"):
        anchor.Anchor([1, 2, 3, 4], 3)


@pytest.mark.parametrize("algorithm", RIVALS)
@settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from([GONE, READY, DRAINING]), st.integers(0, 5)), max_size=12))
def test_only_ready_backends_of_some_weight_are_picked(algorithm: int, rows: list[tuple[int, int]]) -> None:
    backends = {number: Backend(POD + number, 8080, *row) for number, row in enumerate(rows, start=1)}
    ready = [number for number, backend in backends.items() if backend.state == READY]
    fib = fib_of([Frontend(VIP, 80, TCP, RANDOM, ready)], backends)
    picked = set(steered(fib, Builder(algorithm, 251), 100).tolist())
    assert picked <= {number for number in ready if backends[number].weight} or picked == {0}
    assert (0 in picked) == all(backends[number].weight == 0 for number in ready)


@pytest.mark.skipif(INTERPRETED, reason="needs many flows")
@pytest.mark.parametrize(
    ("algorithm", "within"), [(RING, 0.35), (JUMP, 0.05), (RENDEZVOUS, 0.05), (ANCHOR, 0.05), (SLOTS, 0.05)]
)
def test_flows_spread_evenly(algorithm: int, within: float) -> None:
    fib = a_service([1] * 20)
    counts = np.bincount(steered(fib, Builder(algorithm), 200_000), minlength=21)[1:]
    assert np.abs(counts / 10_000 - 1).max() < within


@pytest.mark.skipif(INTERPRETED, reason="needs many flows")
@pytest.mark.parametrize(("algorithm", "within"), [(RING, 0.12), (RENDEZVOUS, 0.02), (SLOTS, 0.02)])
def test_weights_are_shares(algorithm: int, within: float) -> None:
    counts = np.bincount(steered(a_service([1, 2, 5, 8]), Builder(algorithm), 100_000), minlength=5)[1:]
    assert np.abs(counts / 100_000 - np.array([1, 2, 5, 8]) / 16).max() < within


@pytest.mark.parametrize(("algorithm", "moving"), [(RING, 0), (RENDEZVOUS, 0), (ANCHOR, 0), (SLOTS, 0.05)])
def test_flows_of_endpoints_that_stay_do_not_move(algorithm: int, moving: float) -> None:
    """All but maglev move exactly what they must, when endpoints go and when others come."""
    builder = Builder(algorithm, 1021)
    before = steered(a_service([1] * 10), builder)
    after = steered(a_service([1, 1, 0, 1, 1, 1, 0, 1, 1, 1]), builder)
    stayed = ~np.isin(before, [3, 7])
    assert np.mean(before[stayed] != after[stayed]) <= moving
    assert not np.isin(after, [3, 7]).any()
    again = steered(a_service([1, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1]), builder)
    moved = after != again
    assert np.mean(~np.isin(again[moved], [3, 11])) <= moving / 0.2


def test_jump_moves_only_what_it_must_when_the_last_endpoint_goes() -> None:
    builder = Builder(JUMP)
    before, after = steered(a_service([1] * 10), builder), steered(a_service([1] * 9 + [0]), builder)
    assert np.array_equal(before[before != 10], after[before != 10])


def test_a_twin_of_the_planes_own_rings_steers_alike() -> None:
    """The same slots for the same endpoints: maglev of the plane's size is maglev of the plane."""
    backends = {number: Backend(POD + number) for number in range(1, 8)}
    fib = fib_of([Frontend(VIP, 80, TCP, layout.MAGLEV, [*backends])], backends, slots=1021)
    verdicts = verdicts_for(FLOWS)
    plain_forward(fib, create_steering(fib, 0), random_flows(FLOWS), 0, verdicts)
    assert np.array_equal(steered(fib, Builder(SLOTS, 1021)), verdicts.backend)


@pytest.mark.parametrize("algorithm", RIVALS)
def test_known_flows_keep_their_backend(algorithm: int) -> None:
    before, after = a_service([1] * 5), a_service([0] + [1] * 5)
    builder, flows = Builder(algorithm, 251), random_flows(200)
    steering, first, second = create_steering(before, 500), verdicts_for(200), verdicts_for(200)
    forward(before, builder.build(before), steering, flows, 0, first)
    assert (first.outcome == NEW).all()
    forward(after, builder.build(after), steering, flows, 1, second)
    assert (second.outcome == TRACKED).all()
    assert np.array_equal(first.backend, second.backend)


@pytest.mark.parametrize("algorithm", RIVALS)
def test_a_pool_without_members_rejects(algorithm: int) -> None:
    fib = a_service([0, 0])
    assert not steered(fib, Builder(algorithm, 251), 10).any()


def test_rendezvous_equals_twin() -> None:
    fib = a_service([1, 2, 3])
    pool = reference.Pool.of(fib, int(fib.frontends[1]["inside"]))
    wanted = [reference.rendezvous(fib, pool, reference.flow_hash(flow)) for flow in rows_of(random_flows(100))]
    assert steered(fib, Builder(RENDEZVOUS), 100).tolist() == wanted


def test_a_size_that_is_no_prime_is_refused() -> None:
    with pytest.raises(ValueError, match=f"such as one of \\({maglev.SIZES[0]}"):
        Builder(SLOTS, 1000).build(a_service([1]))
