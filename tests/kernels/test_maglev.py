"""Maglev rings: equal to the paper's pseudocode slot for slot, fair by weight, stable under change."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.jit import INTERPRETED, kernel
from kernels.lb import hashing, maglev
from tests import reference
from tests.batches import random_flows, rows_of

SMALL = (251, 509, 1021)
PRIMES = (251, 131_071, 1_073_741_789)  # the last one is the largest below the limit
SIZES = SMALL if INTERPRETED else (*SMALL, *maglev.SIZES)


@kernel
def nearest_to(free, at, skip, size):
    """What compiled code alone can call."""
    return maglev._nearest(free, np.uint64(free.size), at, maglev._fraction(maglev._inverse(skip, size), size))


def seeds_of(count: int, *, first: int = 0x7FF40102) -> np.ndarray:
    return np.array([hashing.endpoint_seed(first + i, 8080, 6) for i in range(count)], np.uint64)


def shares(ring: np.ndarray, count: int) -> np.ndarray:
    return np.bincount(ring, minlength=count) / len(ring)


@st.composite
def endpoints(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    seed = st.integers(0, (1 << 64) - 1) | st.integers(0, 3)  # of which some are there twice
    seeds = draw(st.lists(seed, min_size=1, max_size=12))
    weight = st.one_of(st.integers(0, 4), st.sampled_from([100, 256, 65535]))
    return seeds, draw(st.lists(weight, min_size=len(seeds), max_size=len(seeds)))


@settings(deadline=None, max_examples=60)
@given(endpoints(), st.sampled_from(SMALL[:2]))
def test_ring_equals_twin_slot_for_slot(given_endpoints: tuple[list[int], list[int]], size: int) -> None:
    seeds, weights = given_endpoints
    ring = maglev.build(np.array(seeds, np.uint64), np.array(weights, np.uint16), size)
    assert ring.dtype == np.uint32
    assert ring.tolist() == reference.maglev(seeds, weights, size)


@pytest.mark.parametrize("size", SIZES)
def test_ring_of_each_size_equals_twin(size: int) -> None:
    seeds, weights = seeds_of(7), np.array([1, 2, 3, 1, 0, 1, 9], np.uint16)
    assert maglev.build(seeds, weights, size).tolist() == reference.maglev(seeds.tolist(), weights.tolist(), size)


@pytest.mark.parametrize("is_alike", [True, False])
@pytest.mark.parametrize(
    ("count", "size"), [(1, 127), (2, 2), (5, 3), (40, 4093), (90, 4093), (255, 1021), (256, 1021), (300, 251)]
)
def test_ring_of_any_number_of_endpoints_equals_twin(count: int, size: int, is_alike: bool) -> None:
    """As many slots as the root of all are left for the list of those that are free, from within a round or after one.

    From 256 endpoints on their numbers take two bytes.
    """
    seeds = seeds_of(count)
    weights = np.full(count, 3) if is_alike else 1 + np.arange(count) % 5
    names = np.arange(count, dtype=np.uint32) + np.uint32(100)
    ring = maglev.build(seeds, weights.astype(np.uint16), size, names)
    assert (ring - 100).tolist() == reference.maglev(seeds.tolist(), weights.tolist(), size)


@pytest.mark.parametrize("count", [255, 256] if INTERPRETED else [255, 256, 65535, 65536])
def test_slots_have_room_for_the_number_of_any_endpoint(count: int) -> None:
    """All turns are those of the last three, by seed; the others' weights are too small for one."""
    seeds, weights = np.arange(count, dtype=np.uint64), np.ones(count, np.uint16)
    weights[-3:] = 60_000
    ring = maglev.build(seeds, weights, 251)
    assert (ring - (count - 3)).tolist() == reference.maglev(seeds[-3:].tolist(), [1, 1, 1], 251)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(PRIMES), st.data())
def test_nearest_slot_is_the_one_that_a_walk_comes_to_first(size: int, data: st.DataObject) -> None:
    slots = st.integers(0, size - 1)
    at, skip = data.draw(slots), data.draw(st.integers(1, size - 1) | st.sampled_from([1, size - 1]))
    free = data.draw(st.lists(slots | st.just(at), min_size=1, max_size=40, unique=True))
    steps = [(slot - at) * pow(skip, -1, size) % size for slot in free]
    assert nearest_to(np.array(free, np.uint32), *map(np.uint64, (at, skip, size))) == steps.index(min(steps))


@settings(deadline=None, max_examples=40)
@given(endpoints(), st.randoms(use_true_random=False))
def test_ring_does_not_depend_on_the_order_of_endpoints(given_endpoints, random) -> None:
    seeds, weights = (np.array(column, kind) for column, kind in zip(given_endpoints, ("u8", "u2"), strict=True))
    order = np.array(random.sample(range(len(seeds)), len(seeds)))
    ring = maglev.build(seeds, weights, 251)
    shuffled = maglev.build(seeds[order], weights[order], 251)
    assert seeds[ring].tolist() == seeds[order][shuffled].tolist()
    assert weights[ring].tolist() == weights[order][shuffled].tolist()


@settings(deadline=None, max_examples=60)
@given(endpoints())
def test_shares_of_slots_are_shares_of_weight(given_endpoints: tuple[list[int], list[int]]) -> None:
    seeds, weights = (np.array(column, kind) for column, kind in zip(given_endpoints, ("u8", "u2"), strict=True))
    ring = maglev.build(seeds, weights, 251)
    if not weights.any():
        assert ring.size == 0
        return
    wanted = weights / weights.sum()
    missed = np.bincount(ring, minlength=len(seeds)) - 251 * wanted
    # Each rounds by half a slot, the last round may break off, and what all have rounded away is shared by weight.
    assert (np.abs(missed) <= 1.5 + len(seeds) * wanted).all()


@pytest.mark.parametrize("weights", [(2, 1, 1), (1, 1, 1), (10, 1), (65535, 1, 0), (3, 5, 7, 11)])
def test_weighted_shares_are_within_one_percent(weights: tuple[int, ...]) -> None:
    ring = maglev.build(seeds_of(len(weights)), np.array(weights, np.uint16), 1021)
    assert np.abs(shares(ring, len(weights)) - np.array(weights) / sum(weights)).max() < 0.01


@pytest.mark.skipif(INTERPRETED, reason="a million slots are too many for interpreted code")
def test_busiest_of_a_hundred_endpoints_has_one_percent_more_than_the_mean() -> None:
    ring = maglev.build(seeds_of(100), np.ones(100, np.uint16), maglev.table_size(100))
    assert shares(ring, 100).max() * 100 < 1.011


def test_removing_an_endpoint_moves_little_more_than_its_own_share() -> None:
    seeds, weights = seeds_of(10), np.ones(10, np.uint16)
    before = maglev.build(seeds, weights, 1021)
    weights[3] = 0
    after = maglev.build(seeds, weights, 1021)
    moved = before != after
    assert (before[moved] == 3).sum() == (before == 3).sum()
    assert 0.09 < moved.mean() < 0.2


def test_no_endpoints_give_no_ring() -> None:
    assert maglev.build(np.zeros(0, np.uint64), np.zeros(0, np.uint16), 251).size == 0


@pytest.mark.parametrize("size", [0, 1, 250, 65536, 4_294_967_311])
def test_a_size_that_is_no_prime_or_too_large_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=str(size)):
        maglev.build(seeds_of(1), np.ones(1, np.uint16), size)


@pytest.mark.parametrize(
    ("endpoints", "size"),
    [(0, 251), (1, 251), (2, 16381), (163, 16381), (164, 32749), (1310, 131071), (1 << 20, 131071)],
)
def test_table_has_a_hundred_slots_for_each_endpoint_where_it_can(endpoints: int, size: int) -> None:
    assert maglev.table_size(endpoints) == size


def test_sizes_are_prime() -> None:
    assert all(size % factor for size in maglev.SIZES for factor in range(2, int(size**0.5) + 1))


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1 << 32), st.integers(1, 300))
def test_steer_equals_twin(seed: int, slots: int) -> None:
    flows = random_flows(50, seed=seed)
    ring = np.arange(1000, 1000 + slots, dtype=np.uint32)
    out = np.zeros(50, np.uint32)
    maglev.steer(ring, flows, out)
    assert out.tolist() == reference.steer(ring.tolist(), rows_of(flows))
