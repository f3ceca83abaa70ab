"""Slow start: a backend that has just become ready gets less than its share, until it has warmed up.

Law: a member that is new takes part in a pick with a chance that grows with its age, in a straight line, from a tenth
to all over the ``slow_start_s`` of its pool; one that does not take part is left out of that pick, whatever its
algorithm. Only differences of age count: the oldest member takes part always, so where all are new nobody is held back.
Least connections would give everything to who has none, so there the chance is that part of the member's share by
weight. Whether one takes part follows from flow, time and endpoint, and is asked as often as a pick likes.

The straight line and its floor are Envoy's, with its default aggression and minimum weight
(https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/slow_start). It scales weights;
here members are left out, because a load of 0 stays 0 whatever weight it is divided by.
"""

import numpy as np

from kernels.jit import inner, kernel
from kernels.layout import LC, NQ, SED, WLC
from kernels.lb.hashing import endpoint_seed, mix64

FLOOR = 10  # the least age is a tenth of the time that slow start takes

NOBODY_NEW = (np.int64(0), np.int64(0))  # for ``warmth`` where nobody has to be asked

_11 = np.uint64(11)


@inner
def warmth(fib, steering, row, now_ns):
    """(now, age of the oldest member), both int64 in ns, for ``takes_part``; ``row`` is one of ``fib.pools``."""
    first, oldest_ns = np.int64(row["first_member"]), np.int64(1)
    for i in range(first, first + np.int64(row["members"])):
        oldest_ns = max(oldest_ns, _age_ns(steering, row, fib.members[i], now_ns))
    return np.int64(now_ns), oldest_ns


@kernel
def takes_part(fib, steering, row, i, word, warm):
    """Whether member ``i`` of a pool, whose run lies within its table, takes part in the pick of hash ``word``."""
    now_ns, oldest_ns = warm
    if oldest_ns == 0:
        return True
    place = np.int64(row["first_member"]) + i
    number = fib.members[place]
    age_ns = _age_ns(steering, row, number, now_ns)
    if age_ns >= oldest_ns or number >= fib.backends.size:
        return True
    chance = np.float64(age_ns) / np.float64(oldest_ns)
    if row["algorithm"] in (LC, WLC, SED, NQ):
        chance *= np.float64(fib.weights[place]) / np.float64(row["weight"])
    backend = fib.backends[number]
    drawn = mix64(word ^ endpoint_seed(backend["ip"], backend["port"], backend["proto"]))
    return np.float64(drawn >> _11) / 9007199254740992.0 < chance


@kernel
def _age_ns(steering, row, backend, now_ns):
    """For how long a backend has been ready, as far as slow start cares: from a tenth of its time to all of it."""
    whole_ns = np.int64(row["slow_start_s"]) * 1_000_000_000
    if backend >= steering.ready_ns.size or steering.ready_ns[backend] == 0:
        return whole_ns
    return min(max(now_ns - steering.ready_ns[backend], whole_ns // FLOOR), whole_ns)
