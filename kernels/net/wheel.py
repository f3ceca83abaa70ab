"""A hashed timer wheel: timers that cost next to nothing before they are due.

    due_ns ─► tick = due_ns // tick_ns + 1 ─► slot = tick mod slots     beyond the last slot: in that, to be filed again

After Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", scheme 6 (https://doi.org/10.1145/37499.37504).

Law: a row is in one slot or in none, and ``take`` gives it once the clock has come to that slot: within a tick after it
is due, never before, unless it was due beyond the last slot. Filing is lazy: a later time leaves a row where it is, for
who takes it asks when it is due anyway, and an earlier one moves it. So whoever shows signs of life all the time costs
one comparison each.
"""

import numpy as np

from kernels.jit import kernel, part
from kernels.layout_wheel import NEVER, TIMER, WHEEL_CLOCK, Wheel

SLOTS = 1024
LOOKS = 256  # at rows whose slots have come up, in one pass: a crowd that came together holds up nobody


def create(rows: int, tick_ns: int, slots: int = SLOTS) -> Wheel:
    """A wheel for row numbers below ``rows``, with nothing filed; ``slots``: a power of two."""
    timers, clock = np.zeros(rows + slots, TIMER), np.zeros(1, WHEEL_CLOCK)
    timers["from_ns"] = NEVER
    timers["after"] = timers["before"] = np.arange(rows + slots)
    clock[0] = tick_ns, slots, 0, NEVER
    return Wheel(timers, clock)


@kernel
def file(wheel, row, due_ns, now_ns):
    """Have ``take`` give a row once this time is over, and not now, unless it does earlier; NEVER: nothing is asked."""
    due_ns = max(due_ns, now_ns)
    if due_ns < wheel.timers[row]["from_ns"]:
        _move(wheel, row, due_ns, now_ns)


@part
def _move(wheel, row, due_ns, now_ns):
    timers, clock = wheel.timers, wheel.clock[0]
    tick_ns = np.int64(clock["tick_ns"])
    if now_ns < next_ns(wheel):  # no slot that has come up holds anything
        clock["turned"] = now_ns // tick_ns
    tick = min(due_ns // tick_ns + 1, np.int64(clock["turned"]) + np.int64(clock["slots"]))
    _unlink(timers, row)
    slot = _slot(wheel, tick)
    last = timers[slot]["before"]
    timers[row]["before"], timers[row]["after"] = last, slot
    timers[last]["after"] = timers[slot]["before"] = row
    timers[row]["from_ns"] = (tick - 1) * tick_ns
    clock["next_ns"] = min(next_ns(wheel), tick * tick_ns)


@kernel
def next_ns(wheel):
    """``take`` has nothing to give before; NEVER: nothing is filed."""
    return np.int64(wheel.clock[0]["next_ns"])


@kernel
def take(wheel, now_ns):
    """One of the rows whose slots have come up, which is filed no more; 0: there is none, ask again at ``next_ns``."""
    timers, clock = wheel.timers, wheel.clock[0]
    now, slots = now_ns // np.int64(clock["tick_ns"]), np.int64(clock["slots"])
    clock["turned"] = max(np.int64(clock["turned"]), now - slots)  # which is once around
    while clock["turned"] < now:
        slot = _slot(wheel, np.int64(clock["turned"]) + 1)
        row = np.int64(timers[slot]["after"])
        if row != slot:
            _unlink(timers, row)
            timers[row]["from_ns"] = NEVER
            return row
        clock["turned"] += 1
    clock["next_ns"] = _first_ns(wheel)
    return np.int64(0)


@kernel
def is_late(wheel, row, due_ns, now_ns):
    """Whether a row that ``take`` gave is late; else it is filed again, for when it is due."""
    if due_ns < now_ns:
        return True
    file(wheel, row, due_ns, now_ns)
    return False


@part
def _first_ns(wheel):
    """When the next slot that holds something comes up."""
    clock = wheel.clock[0]
    first = np.int64(clock["turned"]) + 1
    for tick in range(first, first + np.int64(clock["slots"])):
        slot = _slot(wheel, tick)
        if wheel.timers[slot]["after"] != slot:
            return tick * np.int64(clock["tick_ns"])
    return np.int64(NEVER)


@kernel
def _slot(wheel, tick):
    """The row of a tick's slot."""
    slots = np.int64(wheel.clock[0]["slots"])
    return wheel.timers.size - slots + (tick & (slots - 1))


@kernel
def _unlink(timers, row):
    """Take a row out of its ring; one that is in none is a ring by itself."""
    before, after = timers[row]["before"], timers[row]["after"]
    timers[before]["after"], timers[after]["before"] = after, before
    timers[row]["before"] = timers[row]["after"] = row
