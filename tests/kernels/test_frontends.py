"""The frontend index: finds what is there and nothing else."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.layout import FRONTEND, freeze
from kernels.layout_ipv6 import ADDRESS6
from kernels.lb import forward, frontends
from plane.families import IPV4, IPV6, Family
from tests import reference

# Few values each, so that rows share two of three and probes meet.
addresses = st.tuples(st.integers(1, 6), st.integers(80, 83), st.sampled_from([6, 17]))


def table_of(rows: list[tuple[Any, int, int]], family: Family = IPV4) -> np.ndarray:
    table = np.zeros(len(rows) + 1, family.frontend)
    for number, row in enumerate(rows, start=1):
        table[number]["ip"], table[number]["port"], table[number]["proto"] = row
    return table


@settings(deadline=None)
@given(st.lists(addresses, max_size=40), st.lists(addresses, min_size=1, max_size=10))
def test_lookup_equals_a_linear_search(rows: list[tuple[int, int, int]], asked: list[tuple[int, int, int]]) -> None:
    table = table_of(rows)
    fib = forward.empty_fib()._replace(frontends=table, frontend_index=frontends.build_index(table))
    for address in asked + rows:
        assert int(frontends.find_frontend(fib, *address)) == reference.find_frontend(fib, *address)


@settings(deadline=None, max_examples=30)
@given(st.lists(addresses, max_size=40, unique=True))
def test_index_is_a_power_of_two_and_at_most_a_quarter_full(rows: list[tuple[int, int, int]]) -> None:
    index = frontends.build_index(table_of(rows))
    assert index.size & (index.size - 1) == 0
    assert index.size >= max(4 * len(rows), 4)
    assert sorted(index["row"][index["row"] > 0]) == list(range(1, len(rows) + 1))
    assert not index.flags.writeable


halves = st.tuples(st.integers(1, 3), st.integers(1, 3))
wide_addresses = st.tuples(halves, st.integers(80, 82), st.sampled_from([6, 17]))


@settings(deadline=None)
@given(st.lists(wide_addresses, max_size=40), st.lists(wide_addresses, min_size=1, max_size=10))
def test_lookup_of_ipv6_equals_a_linear_search(rows: list[Any], asked: list[Any]) -> None:
    """Addresses that have one half in common with others: all 128 bits count."""
    table = table_of(rows, IPV6)
    fib = forward.empty_fib()._replace(frontends=freeze(table), frontend_index=frontends.build_index(table))
    for address in asked + rows:
        row = np.array([address[0]], ADDRESS6)[0]
        assert int(frontends.find_frontend(fib, row, *address[1:])) == reference.find_frontend(fib, *address)


def test_of_two_addresses_that_have_one_hash_only_the_same_is_found() -> None:
    """Made by turning the hash around: only the comparison of all bits can tell them apart."""
    one = (0xFD00 << 48, 1)
    high = 0xFD01 << 48
    low = reference.mix64((one[0] + reference.GOLDEN) & reference.WORD) ^ one[1]
    low ^= reference.mix64((high + reference.GOLDEN) & reference.WORD)
    assert reference.frontend_hash(one, 80, 6) == reference.frontend_hash((high, low), 80, 6)
    table = table_of([(one, 80, 6)], IPV6)
    fib = forward.empty_fib()._replace(frontends=freeze(table), frontend_index=frontends.build_index(table))
    rows = np.array([one, (high, low)], ADDRESS6)
    assert [int(frontends.find_frontend(fib, row, 80, 6)) for row in rows] == [1, 0]


def test_ten_thousand_frontends_are_each_found() -> None:
    count = 10_000
    table = np.zeros(count + 1, FRONTEND)
    table["ip"][1:] = 0x7F600101 + np.arange(count, dtype=np.uint32)
    table["port"], table["proto"] = 443, 6
    fib = forward.empty_fib()._replace(frontends=table, frontend_index=frontends.build_index(table))
    found = [int(frontends.find_frontend(fib, 0x7F600101 + i, 443, 6)) for i in range(0, count, 37)]
    assert found == [i + 1 for i in range(0, count, 37)]
    assert int(frontends.find_frontend(fib, 0x7F600101, 80, 6)) == 0


NODE_PORTS = np.random.default_rng(3).permutation(2_768) + 30_000


@pytest.mark.parametrize(
    ("addresses", "ports"),
    [
        pytest.param(np.arange(16_384), [80], id="neighbours"),
        pytest.param(np.arange(4_096), [80, 443, 8_080, 9_090], id="ports of neighbours"),
        pytest.param(4 * np.arange(16_384), [80], id="every fourth"),
        pytest.param(256 * np.arange(16_384), [443], id="one of each /24"),
        pytest.param([0], range(1, 16_385), id="ports of one"),
        *(
            pytest.param(
                np.arange(count) << apart, ports[: 16_384 // count], id=f"{kind}, {count} nodes 2^{apart} apart"
            )
            for count, apart in ((8, 0), (16, 8), (16, 12), (16, 14), (8, 16), (16, 16), (64, 16))
            for kind, ports in (("node ports", NODE_PORTS), ("even ports", 30_000 + 2 * np.arange(2_768)))
        ),
        pytest.param(np.arange(256) << 16, 1 + 256 * np.arange(64), id="every 256th port of one of each /16"),
    ],
)
def test_nearly_all_frontends_are_in_the_line_where_their_search_begins(addresses: Any, ports: Any) -> None:
    """In an index that is a quarter full: of an ideal hash one in 230 is not, an eighth of that more or less."""
    ips = 0x0A000001 + np.asarray(addresses)
    table = np.zeros(len(ips) * len(ports) + 1, FRONTEND)
    assert len(table) == 16_385
    table["ip"][1:], table["port"][1:], table["proto"] = np.repeat(ips, len(ports)), np.tile(ports, len(ips)), 6
    index = frontends.build_index(table)
    assert len(index) == 4 * 16_384
    used = np.flatnonzero(index["row"])
    assert len(used) == 16_384
    home = index["key"][used] & np.uint64(len(index) - frontends.TOGETHER)
    beyond = (used - home.astype(np.int64)) % len(index)
    assert np.mean(beyond >= frontends.TOGETHER) < 0.008


def test_empty_fib_has_no_frontend() -> None:
    assert int(frontends.find_frontend(forward.empty_fib(), 1, 80, 6)) == 0
