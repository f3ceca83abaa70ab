"""How many requests a client may send: the leaky buckets of ``plane.ingress.limits`` in a table that threads share.

    enter ─► LET_IN or COUNTED ─► leave          the request is done
       │                    └───► give_back      it goes to who asks again: the slow path
       └───► OVER_…                              nothing is taken

Law: a client's excess drains at the rate and grows by one with each request that is let in; one that would bring it
over the burst is turned away. A tally is read and written under the lock of its set, which is held for a few dozen
instructions and never over a call that waits, so whichever threads ask, of Python's or not, no request is let in twice
on one allowance. Memory is bounded: in a set that is full the client that was quiet longest is forgotten, of those that
have nothing under way; where all have, one more is let in and not counted.
"""

from collections.abc import Callable

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from kernels.jit import INTERPRETED, kernel
from kernels.layout_limits import COUNTED, LET_IN, OVER_AT_ONCE, OVER_MINUTE, OVER_SECOND, TALLY, WAYS
from kernels.lb.hashing import GOLDEN, mix64
from kernels.net import syscalls

CLIENTS = 65_536  # that are remembered
SPINS = 256  # before a thread that waits for a lock lets others have its core
_A_NS = 1e-9


def create(clients: int = CLIENTS) -> np.ndarray:
    """TALLY[1 + …] for so many clients, a multiple of WAYS whose quotient is a power of two. Pages are taken in use."""
    tallies = np.zeros(1 + clients, TALLY)
    tallies[0]["key"] = np.random.default_rng().integers(1, 1 << 63)  # so that nobody knows whom he shares a set with
    return tallies


@kernel
def enter(tallies, limit, client, now_ns):
    """Let a request of a client (uint64) in, or say why not; ``limit`` is a row of LIMIT, the clock CLOCK_MONOTONIC."""
    first = _set_of(tallies, limit["key"], client)
    _lock(tallies[first])
    said = _enter(tallies, first, limit, client, now_ns)
    _unlock(tallies[first])
    return said


@kernel
def leave(tallies, key, client):
    """A request that was COUNTED is done."""
    first = _set_of(tallies, key, client)
    _lock(tallies[first])
    row = _find(tallies, first, key, client)
    if row and tallies[row]["at_work"] > 0:
        tallies[row]["at_work"] -= np.uint32(1)
    _unlock(tallies[first])


@kernel
def give_back(tallies, key, client, counted):
    """Take back that a request was let in, which asks again: then it is as if it had not asked before.

    An excess may be below 0 by that, and no less than -1: that is what it has drained beyond 0.
    """
    first = _set_of(tallies, key, client)
    _lock(tallies[first])
    row = _find(tallies, first, key, client)
    if row:
        tally = tallies[row]
        tally["second"] -= 1.0
        tally["minute"] -= 1.0
        if counted and tally["at_work"] > 0:
            tally["at_work"] -= np.uint32(1)
    _unlock(tallies[first])


@kernel
def _set_of(tallies, key, client):
    """The first row of the set that a client has for a limit."""
    sets = np.uint64((tallies.size - 1) // WAYS)
    word = mix64(tallies[0]["key"] + mix64(np.uint64(key) + np.uint64(client) * GOLDEN))
    return np.int64(1) + np.int64(word & (sets - np.uint64(1))) * WAYS


@kernel
def _find(tallies, first, key, client):
    """The row of a client's tally, 0 where there is none."""
    for row in range(first, first + WAYS):
        if tallies[row]["key"] == key and tallies[row]["client"] == client:
            return np.int64(row)
    return np.int64(0)


@kernel
def _enter(tallies, first, limit, client, now_ns):
    row = _find(tallies, first, limit["key"], client)
    tally = tallies[row]
    second = _excess(tally["second"], np.float64(limit["rps"]), tally, now_ns)
    minute = _excess(tally["minute"], np.float64(limit["rpm"]) / 60.0, tally, now_ns)
    burst = np.float64(limit["burst"])
    if row == 0 or tally["rps"] != limit["rps"]:
        second = 0.0  # the first of a client, or since the rate is another
    if row == 0 or tally["rpm"] != limit["rpm"]:
        minute = 0.0
    if limit["rps"] != 0 and second > np.float64(limit["rps"]) * burst:
        return np.int64(OVER_SECOND)
    if limit["rpm"] != 0 and minute > np.float64(limit["rpm"]) * burst:
        return np.int64(OVER_MINUTE)
    counts = limit["connections"] != 0
    if counts and row != 0 and tally["at_work"] >= limit["connections"]:
        return np.int64(OVER_AT_ONCE)
    if row == 0:
        row = _forgotten(tallies, first)
        if row == 0:
            return np.int64(LET_IN)
        tally = tallies[row]
        tally["key"], tally["client"], tally["at_work"], tally["seen_ns"] = limit["key"], client, 0, now_ns
    tally["second"], tally["minute"] = second, minute
    tally["rps"], tally["rpm"] = limit["rps"], limit["rpm"]
    tally["seen_ns"] = max(tally["seen_ns"], now_ns)
    if counts:
        tally["at_work"] += np.uint32(1)
    return np.int64(COUNTED if counts else LET_IN)


@kernel
def _excess(before, a_second, tally, now_ns):
    """In requests, if this one is let in."""
    return max(0.0, before - a_second * (_A_NS * max(np.int64(0), now_ns - tally["seen_ns"])) + 1.0)


@kernel
def _forgotten(tallies, first):
    """A row of a set that is free, or becomes so; 0 where all have requests under way."""
    found, quiet_ns = np.int64(0), np.int64(0)
    for row in range(first, first + WAYS):
        tally = tallies[row]
        if tally["key"] == 0:
            return np.int64(row)
        if tally["at_work"] == 0 and (found == 0 or tally["seen_ns"] < quiet_ns):
            found, quiet_ns = np.int64(row), tally["seen_ns"]
    return found


def _place_of_lock(signature, builder, arguments):
    """Where in memory the lock of a TALLY is."""
    place = builder.gep(builder.bitcast(arguments[0], cgutils.voidptr_t), [_i32(signature.args[0].offset("lock"))])
    return builder.bitcast(place, _i32.as_pointer())


_i32 = ir.IntType(32)


@intrinsic
def _exchange(context, tally):
    """Take the lock, and return what it was: 0 where it was free."""

    def code(context, builder, signature, arguments):
        return builder.atomic_rmw("xchg", _place_of_lock(signature, builder, arguments), _i32(1), "acquire")

    return types.uint32(tally), code


@intrinsic
def _release(context, tally):
    def code(context, builder, signature, arguments):
        builder.store_atomic(_i32(0), _place_of_lock(signature, builder, arguments), "release", 4)
        return context.get_dummy_value()

    return types.void(tally), code


@kernel
def _spin(tally):
    turns = np.int64(0)
    while _exchange(tally) != 0:  # type: ignore[call-arg]  # an intrinsic's context is implied
        turns += 1
        if turns % SPINS == 0:
            syscalls.give_way()


def _nothing(tally):
    """Interpreted code has one thread at a time."""


_lock: Callable[..., None] = _nothing if INTERPRETED else _spin
_unlock: Callable[..., None] = _nothing if INTERPRETED else _release
