"""Whose clock a time is of, and what it is by another: one epoch for a run on several machines.

Law: a time is of one monotonic clock. A machine has one, told by the id of its boot, and so has each time namespace on
it. Between processes that share one the offset is 0, exactly, and nothing is estimated. Else the other is asked for its
time again and again, and the answer that took least counts (Cristian, "Probabilistic clock synchronization",
Distributed Computing 3, 1989; so do NTP's clients, RFC 5905 10): it was read somewhere between question and answer, so
that what follows for the middle of the two is wrong by half of what they took at the most. Two clocks drift apart,
evenly over the minutes of a run, so they are compared before it and after it, and a line leads from the one to the
other. No offset is without its bound.
"""

import contextlib
import json
import os
import platform
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from harness.recorder import NEVER, Recorded

EXCHANGES = 32

Clock = Callable[[], int]


@dataclass(frozen=True)
class Reading:
    """What a process says of its clock: which one it is, on which host, and what it showed when it was asked."""

    clock: str
    host: str
    at_ns: int


# Asks a process for its Reading.
Ask = Callable[[], Awaitable[Reading]]


@dataclass(frozen=True)
class Estimate:
    """At ``at_ns`` of our clock the other was ``offset_ns`` ahead, give or take ``bound_ns``."""

    at_ns: int
    offset_ns: int
    bound_ns: int


@dataclass(frozen=True)
class Offset:
    """How another's clock stands to ours: before a run, and after it; ``after`` None: that was not to be had."""

    clock: str
    host: str
    before: Estimate
    after: Estimate | None = None

    def ours(self, times_ns: np.ndarray) -> np.ndarray:
        """Times of the other's clock, int64[n], by ours; NEVER stays so. Their order stays what it is."""
        if self.before.bound_ns == 0:  # it is ours
            return times_ns
        before, after = self.before, self.after or self.before
        drifted_ns, lasted_ns = after.offset_ns - before.offset_ns, after.at_ns - before.at_ns
        since_ns = times_ns - (before.at_ns + before.offset_ns)
        # The clocks' difference over a run is small enough for a float, and what it is added to is not.
        drift_ns = np.rint(since_ns * (drifted_ns / (lasted_ns + drifted_ns))).astype(np.int64) if lasted_ns else 0
        return np.where(times_ns == NEVER, NEVER, times_ns - before.offset_ns - drift_ns)


def name() -> str:
    """Which clock this process has: the id of the boot, and the time namespace where the kernel has such.

    Where the id of the boot is not to be had, in some sandboxes, the host's name stands for it.
    """
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts[0] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with contextlib.suppress(OSError):
        parts.append(os.readlink("/proc/self/ns/time"))
    return " ".join(parts)


def read() -> Reading:
    """The clock of this process, read last of all."""
    which, host = name(), platform.node()
    return Reading(which, host, time.monotonic_ns())


async def offset(ask: Ask, own: str, now: Clock = time.monotonic_ns) -> Offset:
    """How the clock of whom one asks stands to the one that is called ``own`` and shows ``now``, before a run."""
    asked_ns = now()
    found = await ask()
    # Machines that began as copies of one that ran have one id and two clocks; what is ours was read in between.
    is_own = found.clock == own and asked_ns <= found.at_ns <= now()
    return Offset(found.clock, found.host, await _estimate(ask, is_own, now))


async def again(before: Offset, ask: Ask, now: Clock = time.monotonic_ns) -> Offset:
    """The same, after the run as well."""
    return replace(before, after=await _estimate(ask, before.before.bound_ns == 0, now))


async def _estimate(ask: Ask, is_own: bool, now: Clock) -> Estimate:
    if is_own:
        return Estimate(now(), 0, 0)
    best: Estimate | None = None
    for _ in range(EXCHANGES):
        asked_ns = now()
        other_ns = (await ask()).at_ns
        took_ns = now() - asked_ns
        half_ns = -(-max(took_ns, 1) // 2)
        if best is None or half_ns < best.bound_ns:
            best = Estimate(asked_ns + half_ns, other_ns - asked_ns - half_ns, half_ns)
    assert best is not None
    return best


def by_ours(recorded: Recorded, offset: Offset) -> Recorded:
    """Rows that another has written by its clock, as ours would have it."""
    requests, connections = (
        {name: offset.ours(column) if name.endswith("_ns") else column for name, column in columns.items()}
        for columns in (recorded.requests, recorded.connections)
    )
    return replace(recorded, requests=requests, connections=connections)


def described(named: Sequence[tuple[str, str]], offsets: Sequence[Offset], epoch_ns: int) -> str:
    """What the metadata of a run says of the clocks of its generators (JSON); ``named``: load and number of each."""
    return json.dumps([_described(*each, epoch_ns) for each in zip(named, offsets, strict=True)])


def _described(named: tuple[str, str], offset: Offset, epoch_ns: int) -> dict[str, Any]:
    load, number = named
    taken = [each for each in (offset.before, offset.after) if each is not None]
    return {
        "load": load,
        "generator": int(number or 1),
        "host": offset.host,
        "clock": offset.clock,
        "offsets": [asdict(replace(each, at_ns=each.at_ns - epoch_ns)) for each in taken],
    }
