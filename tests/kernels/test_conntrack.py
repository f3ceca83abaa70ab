"""Conntrack against a dict: no live flow is lost, overwritten or given another backend."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kernels.layout import Conntrack
from kernels.lb import conntrack as ct

U64 = np.uint64


def found(table: Conntrack, key: int, now_ns: int) -> int:
    """Backend of a live flow, 0 where there is none."""
    slot = int(ct.find(table, U64(key), now_ns))
    return int(table.entries[slot]["backend"]) if slot >= 0 else 0


def put(table: Conntrack, key: int, backend: int, *, now_ns: int = 0, idle_ns: int = 1000) -> bool:
    return bool(ct.insert(table, U64(key), (now_ns + idle_ns, backend, backend * 7), now_ns))


def assert_sound(table: Conntrack) -> None:
    """What the module's law says about a table at rest."""
    keys = [int(key) for key in table.entries["key"]]
    size = len(keys)
    held = [key for key in keys if key]
    assert len(held) == len(set(held)) == table.counts[ct.HELD] < size
    for slot, key in enumerate(keys):
        if key:
            distance = (slot - key) % size
            assert distance < ct.NEIGHBOURHOOD
            assert all(keys[(key + step) % size] for step in range(distance))


# Few hashes, which point to few entries, those at the end of the table too: runs are long and wrap around.
KEYS = [home + (high << 32) for home in (1, 2, 14, 15) for high in range(3)]
keys = st.sampled_from(KEYS)


class AgainstADict(RuleBasedStateMachine):
    @initialize(capacity=st.sampled_from([1, 2, 4, 8]))
    def begin(self, capacity: int) -> None:
        self.table = ct.create(capacity)
        self.model: dict[int, tuple[int, int]] = {}
        self.now_ns = 0
        self.refused = 0

    def live(self) -> dict[int, int]:
        return {key: backend for key, (backend, end_ns) in self.model.items() if end_ns > self.now_ns}

    @rule(key=keys, backend=st.integers(1, 9), idle_ns=st.integers(1, 100))
    def insert(self, key: int, backend: int, idle_ns: int) -> None:
        if put(self.table, key, backend, now_ns=self.now_ns, idle_ns=idle_ns):
            self.model[key] = backend, self.now_ns + idle_ns
        else:
            self.refused += 1
            size = len(self.table.entries)
            assert key not in self.live()
            assert self.table.counts[ct.HELD] >= size - max(size // 4, 1)

    @rule(key=keys)
    def remove(self, key: int) -> None:
        was_live = key in self.live()
        assert bool(ct.remove(self.table, U64(key))) >= was_live
        self.model.pop(key, None)

    @rule(passed_ns=st.integers(1, 20))
    def wait(self, passed_ns: int) -> None:
        self.now_ns += passed_ns

    @invariant()
    def every_live_flow_is_found_and_no_other(self) -> None:
        live = self.live()
        assert {key: found(self.table, key, self.now_ns) for key in KEYS} == {key: live.get(key, 0) for key in KEYS}

    @invariant()
    def table_is_sound(self) -> None:
        assert_sound(self.table)
        assert self.table.counts[ct.REFUSED] == self.refused


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(deadline=None, max_examples=40, stateful_step_count=40)


def test_thousands_of_flows_come_and_go() -> None:
    draw = np.random.default_rng(3)
    table, model = ct.create(512), {}
    for step in range(4000):
        key = int(draw.integers(1, 1 << 64, dtype=np.uint64))
        if put(table, key, step + 1, idle_ns=1 << 40):
            model[key] = step + 1
        if len(model) > 600:
            gone = list(model)[int(draw.integers(len(model)))]
            assert ct.remove(table, U64(gone))
            del model[gone]
    assert table.counts[ct.REFUSED] == 0
    assert {key: found(table, key, 0) for key in model} == model
    assert_sound(table)


def test_capacity_flows_have_room() -> None:
    table = ct.create(1000)
    draw = np.random.default_rng(5).integers(1, 1 << 64, 1000, np.uint64)
    assert all(put(table, int(key), 1) for key in draw)


def test_a_full_table_refuses_counts_and_keeps_what_it_has() -> None:
    table = ct.create(8)  # 16 entries, of which 12 are used
    accepted = [key for key in range(1, 17) if put(table, key, key)]
    assert accepted == list(range(1, 13))
    assert table.counts[ct.REFUSED] == 4
    assert [found(table, key, 0) for key in range(1, 17)] == [*range(1, 13), 0, 0, 0, 0]


def test_a_full_neighbourhood_refuses_though_the_table_has_room() -> None:
    table = ct.create(128)
    same_home = [7 + (high << 32) for high in range(ct.NEIGHBOURHOOD + 1)]
    assert [put(table, key, 1) for key in same_home] == [True] * ct.NEIGHBOURHOOD + [False]
    assert all(found(table, key, 0) for key in same_home[:-1])
    assert table.counts[ct.REFUSED] == 1


def test_a_flow_is_forgotten_when_its_time_is_over_and_not_before() -> None:
    table = ct.create(4)
    put(table, 5, 1, idle_ns=10)
    assert found(table, 5, 9) == 1
    assert found(table, 5, 10) == 0


def test_an_expired_flow_makes_room_in_a_full_table() -> None:
    table = ct.create(8)
    for key in range(1, 13):
        put(table, key, 1, idle_ns=100 if key == 7 else 1000)
    assert put(table, 7 + (1 << 32), 2, now_ns=100)
    assert found(table, 7 + (1 << 32), 100) == 2
    assert found(table, 7, 100) == 0


def test_inserts_sweep_expired_flows_from_the_whole_table() -> None:
    table = ct.create(64)
    for key in range(1, 65):
        put(table, key * 0x9E3779B1, 1, idle_ns=10)
    for step in range(200):
        put(table, 99, 1, now_ns=20 + step)
    assert table.counts[ct.HELD] == 1


def test_inserting_a_known_flow_again_changes_it_in_place() -> None:
    table = ct.create(4)
    put(table, 5, 1)
    put(table, 5, 2)
    assert found(table, 5, 0) == 2
    assert table.counts[ct.HELD] == 1


def test_a_table_without_entries_finds_nothing_and_refuses_all() -> None:
    table = ct.create(0)
    assert not put(table, 5, 1)
    assert found(table, 5, 0) == 0
    assert not ct.remove(table, U64(5))


@pytest.mark.parametrize("capacity", [1, 3, 4, 1000, 4096])
def test_table_is_a_power_of_two_with_twice_the_capacity(capacity: int) -> None:
    size = len(ct.create(capacity).entries)
    assert size & (size - 1) == 0
    assert 2 * capacity <= size < 4 * capacity
