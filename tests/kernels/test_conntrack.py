"""Conntrack against a dict: no live flow is lost, overwritten or given another backend."""

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kernels.jit import INTERPRETED, kernel
from kernels.layout import Conntrack
from kernels.lb import conntrack as ct
from kernels.lb.tables import LINE_BYTES

U64 = np.uint64


def found(table: Conntrack, key: int, tick: int) -> int:
    """Backend of a live flow, 0 where there is none."""
    place = int(ct.find(table, U64(key), tick * ct.TICK_NS))
    return int(ct.backend_of(table.entries[place]["held"])) if place >= 0 else 0


def put(table: Conntrack, key: int, backend: int, *, now: int = 0, idle: int = 1000) -> bool:
    """Times are in ticks."""
    track = ((now + idle) * ct.TICK_NS, np.uint32(backend), np.uint32(backend * 7))
    return bool(ct.insert(table, U64(key), track, now * ct.TICK_NS))


def hash_to(share: float, high: int = 0) -> int:
    """A hash that points to the bucket which is so far into a table; one of many."""
    return int(share * (1 << 32)) + 1 + (high << 32)


def assert_sound(table: Conntrack) -> None:
    """What the module's law says about a table at rest."""
    keys = [int(key) for key in table.entries["key"]]
    buckets = [keys[first : first + ct.BUCKET] for first in range(0, len(keys), ct.BUCKET)]
    held = [key for key in keys if key]
    assert len(held) == len(set(held)) == table.counts[ct.HELD]
    for number, bucket in enumerate(buckets):
        for key in filter(None, bucket):
            home = (key & 0xFFFFFFFF) * len(buckets) >> 32
            distance = (number - home) % len(buckets)
            assert distance < ct.NEIGHBOURHOOD
            assert all(all(buckets[(home + step) % len(buckets)]) for step in range(distance))


# Few hashes, which point to few buckets, the last of the table too: runs are long and wrap around.
KEYS = [hash_to(share, high) for share in (0.1, 0.4, 0.9, 0.99) for high in range(4)]
keys = st.sampled_from(KEYS)


class AgainstADict(RuleBasedStateMachine):
    @initialize(capacity=st.sampled_from([1, 2, 4, 10]))
    def begin(self, capacity: int) -> None:
        self.table = ct.create(capacity)
        self.model: dict[int, tuple[int, int]] = {}
        self.now = 0
        self.refused = 0

    def live(self) -> dict[int, int]:
        return {key: backend for key, (backend, end) in self.model.items() if end > self.now}

    @rule(key=keys, backend=st.integers(1, 9), idle=st.integers(1, 100))
    def insert(self, key: int, backend: int, idle: int) -> None:
        if put(self.table, key, backend, now=self.now, idle=idle):
            self.model[key] = backend, self.now + idle
        else:
            self.refused += 1
            size = len(self.table.entries)
            assert key not in self.live()
            assert self.table.counts[ct.HELD] >= size - size // 8

    @rule(key=keys)
    def remove(self, key: int) -> None:
        was_live = key in self.live()
        assert bool(ct.remove(self.table, U64(key))) >= was_live
        self.model.pop(key, None)

    @rule(passed=st.integers(1, 20))
    def wait(self, passed: int) -> None:
        self.now += passed

    @invariant()
    def every_live_flow_is_found_and_no_other(self) -> None:
        live = self.live()
        assert {key: found(self.table, key, self.now) for key in KEYS} == {key: live.get(key, 0) for key in KEYS}

    @invariant()
    def table_is_sound(self) -> None:
        assert_sound(self.table)
        assert self.table.counts[ct.REFUSED] == self.refused


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(deadline=None, max_examples=40, stateful_step_count=40)


def test_thousands_of_flows_come_and_go() -> None:
    draw = np.random.default_rng(3)
    table, model = ct.create(640), {}
    for step in range(4000):
        key = int(draw.integers(1, 1 << 64, dtype=np.uint64))
        if put(table, key, step + 1, idle=1 << 20):
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


def test_a_table_is_as_small_as_it_is_said_to_be_and_has_room_for_all_it_is_made_for() -> None:
    """24 bytes a flow; of a million draws a run that is longer than the neighbourhood is as good as impossible."""
    count = 1_000 if INTERPRETED else 1_000_000
    table = ct.create(count)
    assert table.entries.nbytes <= 24 * count + LINE_BYTES
    assert table.entries.ctypes.data % LINE_BYTES == 0
    fill(table, np.random.default_rng(5).integers(1, 1 << 64, count, np.uint64))
    assert table.counts.tolist()[:2] == [count, 0]


@kernel
def fill(table: Conntrack, hashes: np.ndarray) -> None:
    for i in range(hashes.size):
        ct.insert(table, hashes[i], (np.int64(1) << 40, np.uint32(1), np.uint32(1)), np.int64(0))


def test_a_full_table_refuses_counts_and_keeps_what_it_has() -> None:
    table = ct.create(10)  # 16 entries, of which 14 are used
    hashes = [hash_to(number / 16) for number in range(16)]
    accepted = [key for key in hashes if put(table, key, 5)]
    assert accepted == hashes[:14]
    assert table.counts[ct.REFUSED] == 2
    assert [found(table, key, 0) for key in hashes] == [5] * 14 + [0, 0]


@pytest.mark.skipif(INTERPRETED, reason="so many are too many for interpreted code")
def test_a_full_neighbourhood_refuses_though_the_table_has_room() -> None:
    table, room = ct.create(4 * 1024), ct.NEIGHBOURHOOD * ct.BUCKET
    same_home = [hash_to(0.99, high) for high in range(room + 1)]
    assert [put(table, key, 1) for key in same_home] == [True] * room + [False]
    assert all(found(table, key, 0) for key in same_home[:-1])
    assert table.counts[ct.REFUSED] == 1
    assert_sound(table)


def test_a_flow_is_forgotten_when_its_time_is_over_and_not_before() -> None:
    table = ct.create(4)
    put(table, 5, 1, idle=10)
    assert [found(table, 5, tick) for tick in (0, 9, 10, 11)] == [1, 1, 0, 0]
    ct.insert(table, U64(5), (10 * ct.TICK_NS + 1, np.uint32(1), np.uint32(1)), 0)
    assert [found(table, 5, tick) for tick in (10, 11)] == [1, 0]  # up to a tick longer


def test_a_flow_is_remembered_for_half_of_all_ticks_at_most() -> None:
    table, now = ct.create(4), 5 << 24
    put(table, 5, 1, now=now, idle=1 << 30)
    assert [found(table, 5, now + ticks) for ticks in (0, (1 << 23) - 1, 1 << 23, (1 << 24) - 1)] == [1, 1, 0, 0]


def test_an_expired_flow_makes_room_in_a_full_table() -> None:
    table = ct.create(10)
    hashes = [hash_to(number / 16) for number in range(14)]
    for key in hashes:
        put(table, key, 1, idle=100 if key == hashes[7] else 1000)
    assert put(table, hash_to(7 / 16, 1), 2, now=100)
    assert found(table, hash_to(7 / 16, 1), 100) == 2
    assert found(table, hashes[7], 100) == 0


def test_inserts_sweep_expired_flows_from_the_whole_table() -> None:
    table = ct.create(64)
    for key in range(1, 65):
        put(table, key * 0x9E3779B1, 1, idle=10)
    for step in range(200):
        put(table, 99, 1, now=20 + step)
    assert table.counts[ct.HELD] == 1


def test_inserting_a_known_flow_again_changes_it_in_place() -> None:
    table = ct.create(4)
    put(table, 5, 1)
    put(table, 5, 2)
    assert found(table, 5, 0) == 2
    assert table.counts[ct.HELD] == 1


def test_a_backend_whose_id_has_more_than_24_bits_is_refused() -> None:
    table = ct.create(4)
    assert [put(table, 5, backend) for backend in ((1 << 24) - 1, 1 << 24)] == [True, False]
    assert found(table, 5, 0) == (1 << 24) - 1
    assert table.counts[ct.REFUSED] == 1


def test_an_entry_is_of_the_endpoint_it_was_made_for() -> None:
    table = ct.create(4)
    ct.insert(table, U64(5), (ct.TICK_NS, np.uint32(3), np.uint32(0xABCD1234)), 0)
    held = table.entries[int(ct.find(table, U64(5), 0))]["held"]
    others = 0xABCD1235, 0xABCD9234
    assert [bool(ct.is_of(held, np.uint32(each))) for each in (0xABCD1234, *others)] == [True, False, False]
    assert [column.tolist() for column in ct.rows(table, 0).values()] == [[5], [ct.TICK_NS], [3], [0x1234]]


def test_a_table_without_entries_finds_nothing_and_refuses_all() -> None:
    table = ct.create(0)
    assert not put(table, 5, 1)
    assert found(table, 5, 0) == 0
    assert not ct.remove(table, U64(5))
