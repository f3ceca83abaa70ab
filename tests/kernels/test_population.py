"""Flows made by number: the same however they are cut, spread as they should be; and what became of them."""

import ipaddress
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.jit import INTERPRETED
from kernels.layout import (
    AFFINITY,
    DISRUPTED,
    FATES_OF_FLOWS,
    NEW,
    RR,
    TCP,
    TRACKED,
    UDP,
    Fib,
    Flows,
    Population,
    freeze,
)
from kernels.layout_ipv6 import ADDRESS6, Population6
from kernels.lb.forward import create_steering
from kernels.lb.population import count_off, follow, generate, key_of, words
from plane.families import IPV6, halves
from tests import reference
from tests.batches import POD, VIP, Backend, Frontend, fib_of, flows_of, one_service, rows_of, verdicts_for

FIRST, CLIENTS = 0x64400000, 1 << 22
ROWS = np.array([1, 2], np.uint32)


def two_frontends() -> Fib:
    return fib_of([Frontend(VIP, 80, TCP, RR, [1]), Frontend(VIP + 1, 53, UDP, RR, [1])], {1: Backend(POD)})


def population_of(seed: int = 1, frontends: tuple[int, ...] = (1, 2), clients: int = CLIENTS) -> Population:
    return Population(key_of(seed), np.uint32(FIRST), np.uint64(clients), freeze(np.array(frontends, np.uint32)))


def empty(count: int) -> Flows:
    kinds = (np.uint32, np.uint32, np.uint16, np.uint16, np.uint8)
    return Flows(*(np.zeros(count, kind) for kind in kinds))


def made(fib: Fib, population: Population, first: int, count: int) -> Flows:
    flows = empty(count)
    generate(fib, population, first, flows)
    return flows


@settings(max_examples=40)
@given(st.integers(0, (1 << 63) - 1), st.integers(0, 1 << 40), st.integers(1, (1 << 32) - 1))
def test_flows_equal_their_twins(seed: int, first: int, clients: int) -> None:
    fib, population = two_frontends(), population_of(seed, clients=clients)
    population = population._replace(first=np.uint32(0))
    frontends = [fib.frontends[row].item()[:3] for row in (1, 2)]
    wanted = [reference.made_flow(int(population.key), 0, clients, frontends, first + each) for each in range(5)]
    assert rows_of(made(fib, population, first, 5)) == wanted


@settings(max_examples=40)
@given(st.integers(0, (1 << 63) - 1), st.integers(0, 1 << 40), st.integers(0, 128))
def test_flows_of_ipv6_equal_their_twins_and_stay_in_their_network(seed: int, first: int, prefix: int) -> None:
    network = ipaddress.IPv6Network((0x20010DB8 << 96, prefix), strict=False)
    backends = {1: Backend(POD)}
    fib = fib_of([Frontend(VIP, 80, TCP, RR, [1]), Frontend(VIP + 1, 53, UDP, RR, [1])], backends, family=IPV6)
    base, own = (halves(int(each)) for each in (network.network_address, network.hostmask))
    population = Population6(key_of(seed), *(freeze(np.array([each], ADDRESS6)) for each in (base, own)), freeze(ROWS))
    flows = flows_of([((0, 0), (0, 0), 0, 0, 0)] * 5, IPV6)
    generate(fib, population, first, flows)
    frontends = [fib.frontends[row].item()[:3] for row in (1, 2)]
    made = rows_of(flows)
    assert made == [reference.made_flow(int(population.key), base, own, frontends, first + each) for each in range(5)]
    assert all(ipaddress.IPv6Address(high << 64 | low) in network for (high, low), *_ in made)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 1000), max_size=5))
def test_flows_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    fib, population = two_frontends(), population_of()
    edges = [0, *sorted(cuts), 1000]
    parts = [made(fib, population, 77 + one, other - one) for one, other in pairwise(edges)]
    assert [row for part in parts for row in rows_of(part)] == rows_of(made(fib, population, 77, 1000))


@pytest.mark.skipif(INTERPRETED, reason="needs many flows")
def test_flows_spread_over_clients_ports_and_frontends() -> None:
    """Chi-squared of 64 classes each; 103 is what one in a thousand draws at random exceeds."""
    count = 1 << 20
    flows = made(two_frontends(), population_of(), 0, count)
    assert (flows.src_ip >= FIRST).all()
    assert (flows.src_ip < FIRST + CLIENTS).all()
    assert flows.src_port.min() == 1024
    by_client, by_port = (flows.src_ip - FIRST) * 64 // CLIENTS, (flows.src_port.astype(int) - 1024) // 1008
    of_both = (flows.src_ip & 7).astype(int) * 8 + (flows.src_port & 7)
    for classes in (by_client, by_port, of_both):
        found = np.bincount(classes, minlength=64)
        assert (np.square(found - count / 64) / (count / 64)).sum() < 103
    assert abs(np.mean(flows.proto == TCP) - 0.5) < 0.002
    assert len({*zip(*(column[:100_000].tolist() for column in flows), strict=True)}) > 99_990


@settings(max_examples=20)
@given(st.integers(0, reference.WORD), st.integers(0, 1 << 40))
def test_words_equal_their_twins(key: int, first: int) -> None:
    out = np.zeros(5, np.uint64)
    words(np.uint64(key), first, out)
    assert out.tolist() == [reference.mix64((key + (first + i) * reference.GOLDEN) & reference.WORD) for i in range(5)]


def test_seeds_have_nothing_in_common() -> None:
    fib = two_frontends()
    one, other = (set(rows_of(made(fib, population_of(seed), 0, 200))) for seed in (0, 1))
    assert not one & other


@given(
    st.lists(st.booleans(), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.sampled_from([NEW, AFFINITY, TRACKED])), max_size=20),
    st.booleans(),
)
def test_fates_equal_their_twins(stays: list[bool], rows: list[tuple[int, int, int]], only_new: bool) -> None:
    """Ids beyond the tables too: nothing is counted for them but that they moved."""
    steering, verdicts = create_steering(one_service(RR, 3), 0), verdicts_for(len(rows))
    steering.active[:] = 100
    last = np.array([was for was, _, _ in rows], np.uint32)
    verdicts.backend[:] = [now for _, now, _ in rows]
    verdicts.outcome[:] = [outcome for _, _, outcome in rows]
    counts, loads = np.zeros(len(FATES_OF_FLOWS), np.int64), np.zeros(5, np.int64)
    standing = freeze(np.array(stays, np.uint8))
    count_off(standing, steering, last, verdicts, only_new)
    follow(standing, verdicts, last, counts, loads)
    there = [was < len(stays) and stays[was] for was, _, _ in rows]
    wanted = Counter(
        word for (was, now, _), stay in zip(rows, there, strict=True) for word in reference.fate(was, now, stay)
    )
    assert dict(zip(FATES_OF_FLOWS, counts.tolist(), strict=True)) == {name: wanted[name] for name in FATES_OF_FLOWS}
    assert last.tolist() == [now for _, now, _ in rows]
    assert loads.tolist() == [0, *(sum(now == each for _, now, _ in rows) for each in range(1, 5))]
    ends = [stay and not (only_new and outcome == TRACKED) for (_, _, outcome), stay in zip(rows, there, strict=True)]
    left = Counter(was for (was, _, _), each in zip(rows, ends, strict=True) if each)
    assert steering.active.tolist() == [100 - left[each] for each in range(4)]


def test_a_flow_that_moves_off_a_living_endpoint_is_disrupted() -> None:
    verdicts, last = verdicts_for(1), np.array([1], np.uint32)
    verdicts.backend[0], verdicts.outcome[0] = 2, NEW
    counts = np.zeros(len(FATES_OF_FLOWS), np.int64)
    stays = freeze(np.ones(4, np.uint8))
    follow(stays, verdicts, last, counts, np.zeros(4, np.int64))
    assert counts[DISRUPTED] == 1
