"""The timer wheel against a dict: nobody is given before it is due, nor later than the tick after that."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from kernels.layout_wheel import NEVER, Wheel
from kernels.net import wheel as timers
from tests import reference

TICK_NS, SLOTS, ROWS = 10, 8, 6
START_NS = 1_234_567
ROUND_NS = TICK_NS * SLOTS

rows = st.integers(1, ROWS - 1)
# Within the tick, in one of the next, around the horizon and far beyond it; and times that are over.
ahead_ns = st.sampled_from([-500, -10, -1, 0, 1, 9, 10, 11, 35, 69, 70, 71, 79, 80, 81, 90, 500, 10_000])
passed_ns = st.sampled_from([0, 1, 5, 9, 10, 11, 40, 79, 80, 81, 170, 5_000])


def filed(wheel: Wheel) -> list[list[int]]:
    """The rows of each slot; every ring is whole in both directions."""
    after, before = wheel.timers["after"].tolist(), wheel.timers["before"].tolist()
    assert all(before[after[row]] == row == after[before[row]] for row in range(len(after)))
    slots = []
    for slot in range(ROWS, ROWS + SLOTS):
        slots.append([])
        row = after[slot]
        while row != slot:
            slots[-1].append(row)
            row = after[row]
    return slots


class AgainstADict(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.wheel = timers.create(ROWS, TICK_NS, SLOTS)
        self.twin = reference.Timers(TICK_NS)
        self.reach_ns: dict[int, int] = {}  # how far the wheel reached when a row was filed
        self.now_ns = START_NS

    def file(self, row: int, due_ns: int) -> None:
        before_ns, is_behind = self.wheel.timers["from_ns"][row], self.now_ns >= self.wheel.clock["next_ns"][0]
        timers.file(self.wheel, row, due_ns, self.now_ns)
        if due_ns != NEVER:
            self.twin.file(row, due_ns, self.now_ns)
        if self.wheel.timers["from_ns"][row] != before_ns:
            self.reach_ns[row] = int(self.wheel.clock["turned"][0] + SLOTS) * TICK_NS
            assert is_behind or self.reach_ns[row] > self.now_ns + ROUND_NS - TICK_NS

    def take(self) -> int:
        """As who is asked does: one that is not due is filed once more, for the same time."""
        row = int(timers.take(self.wheel, self.now_ns))
        if row and row not in self.twin.are_due(self.now_ns):
            assert self.reach_ns[row] < self.twin.comes_up_ns(row)
            assert self.reach_ns[row] <= self.now_ns
            self.file(row, self.twin.due_ns[row])
        elif row:
            self.twin.forget(row)
        return row

    @rule(row=rows, ahead_ns=ahead_ns)
    def has_until(self, row: int, ahead_ns: int) -> None:
        self.file(row, self.now_ns + ahead_ns)

    @rule(row=rows)
    def has_for_ever(self, row: int) -> None:
        self.file(row, NEVER)

    @rule(passed_ns=passed_ns)
    def time_passes(self, passed_ns: int) -> None:
        self.now_ns += passed_ns

    @rule(looks=st.integers(1, 3))
    def looks_at_few(self, looks: int) -> None:
        for _ in range(looks):
            self.take()

    @rule()
    def looks_at_all(self) -> None:
        for _ in range(2 * ROWS):
            if not self.take():
                break
        else:
            raise AssertionError("one is given over and over")
        assert not self.twin.are_due(self.now_ns)
        assert self.now_ns < self.wheel.clock["next_ns"][0]
        assert (self.wheel.clock["next_ns"][0] == NEVER) == (not self.twin.due_ns)

    @invariant()
    def each_is_in_one_slot_or_in_none(self) -> None:
        held = [row for slot in filed(self.wheel) for row in slot]
        assert sorted(held) == sorted(self.twin.due_ns)
        assert all((self.wheel.timers["from_ns"][row] != NEVER) == (row in held) for row in range(1, ROWS))

    @invariant()
    def nobody_sleeps_over_one_that_is_due(self) -> None:
        assert all(self.wheel.clock["next_ns"][0] <= self.twin.comes_up_ns(row) for row in self.twin.due_ns)


TestAgainstADict = AgainstADict.TestCase
TestAgainstADict.settings = settings(max_examples=40, stateful_step_count=30)


def test_who_shows_signs_of_life_stays_where_it_is_and_who_is_due_earlier_moves() -> None:
    wheel = timers.create(ROWS, TICK_NS, SLOTS)
    timers.file(wheel, 1, START_NS + 30, START_NS)
    before = wheel.timers.copy()
    for later_ns in range(30, 5_000, 7):
        timers.file(wheel, 1, START_NS + later_ns, START_NS)
    assert (wheel.timers == before).all()
    timers.file(wheel, 1, START_NS + 5, START_NS)
    assert timers.take(wheel, START_NS + 5) == 0
    assert timers.take(wheel, START_NS + 5 + TICK_NS) == 1
    assert timers.take(wheel, START_NS + 10_000) == 0
    assert wheel.clock["next_ns"] == NEVER


@pytest.mark.parametrize("asleep_ns", [*range(0, 2 * ROUND_NS, TICK_NS), ROUND_NS - 1, 1 << 60])
def test_a_crowd_is_given_once_and_in_the_order_of_ticks_however_late_it_is_asked_for(asleep_ns: int) -> None:
    wheel = timers.create(ROWS, TICK_NS, SLOTS)
    for row in (3, 1, 4, 2):
        timers.file(wheel, row, START_NS + row * TICK_NS, START_NS)
    now_ns = START_NS + 5 * TICK_NS + asleep_ns
    given = [int(timers.take(wheel, now_ns)) for _ in range(5)]
    assert sorted(given) == [0, 1, 2, 3, 4]
    if asleep_ns < ROUND_NS - 5 * TICK_NS:
        assert given == [1, 2, 3, 4, 0]
