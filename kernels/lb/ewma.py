"""Picking by how long connections took of late: an exponentially weighted moving average of each backend.

Law: of two members at random the one that costs less has the connection. What is known of a backend fades, to 1/e in
``fade_ns``, so that one that was slow is tried again. Weights are left out, as by those who do so:

    ewma       ingress-nginx (rootfs/etc/nginx/lua/balancer/ewma.lua), as the plane's own ingress (``plane.balance``):
               the cost is the average
    peak-ewma  Finagle (com.twitter.finagle.loadbalancer.PeakEwma), and after it Linkerd and Envoy's peak_ewma: what
               took longer than the average replaces it, and the cost is the average times the connections that it
               would have; one of which nothing is known yet, and that has some, has to wait for the first to end
"""

import math
from typing import NamedTuple

import numpy as np

from kernels.jit import inner, kernel
from kernels.lb.hashing import mix64, reduce

BY_POOL, BY_EWMA, BY_PEAK_EWMA = range(3)
NAMES = ("", "ewma", "peak-ewma")

_PENALTY = float((1 << 63) - 1 >> 16)  # Finagle's, ns


class Speeds(NamedTuple):
    """How fast backends are, as far as is known.

    by          int64[1]: BY_POOL: nobody asks, the pool picks by its own algorithm; else by which average
    fade_ns     float64[1]
    average_ns  float64[backends]: how long connections took, as of ``heard_ns``
    heard_ns    int64[backends]: when the last of them ended; 0: none has
    """

    by: np.ndarray
    fade_ns: np.ndarray
    average_ns: np.ndarray
    heard_ns: np.ndarray


def create_speeds(backends: int, by: int, fade_ns: int) -> Speeds:
    """Of backends with ids below ``backends``, of which nothing is known."""
    return Speeds(
        np.full(1, by, np.int64), np.full(1, float(fade_ns)), np.zeros(backends), np.zeros(backends, np.int64)
    )


@kernel
def hear(speeds, backend, took_ns, now_ns):
    """A connection of a backend, which they have a row for, took so long."""
    kept = _kept(speeds, backend, now_ns)
    faded = speeds.average_ns[backend] * kept
    if speeds.by[0] == BY_PEAK_EWMA and took_ns > faded:
        speeds.average_ns[backend] = np.float64(took_ns)
    else:
        speeds.average_ns[backend] = faded + np.float64(took_ns) * (1.0 - kept)
    speeds.heard_ns[backend] = now_ns


@inner
def faster_of_two(fib, steering, pool, speeds, key, now_ns):
    """The backend id, uint32, that row ``pool`` of ``fib.pools`` gives a connection of hash ``key``; 0 for none."""
    row = fib.pools[pool]
    first, members = np.int64(row["first_member"]), np.int64(row["members"])
    if members == 0 or first + members > fib.members.size:
        return np.uint32(0)
    word = mix64(key ^ mix64(np.uint64(now_ns)))  # as ``select.pick``
    one = fib.members[first + reduce(word, members)]
    if members == 1:
        return one
    place = reduce(mix64(word), members - 1)
    place += place >= reduce(word, members)
    other = fib.members[first + place]
    return one if _cost(steering, speeds, one, now_ns) <= _cost(steering, speeds, other, now_ns) else other


@kernel
def _cost(steering, speeds, backend, now_ns):
    if backend >= speeds.average_ns.size or backend >= steering.active.size:
        return math.inf
    average_ns = speeds.average_ns[backend] * _kept(speeds, backend, now_ns)
    if speeds.by[0] != BY_PEAK_EWMA:
        return average_ns
    active = np.float64(steering.active[backend])
    if average_ns == 0.0 and active > 0.0:
        return _PENALTY + active
    return average_ns * (active + 1.0)


@kernel
def _kept(speeds, backend, now_ns):
    """The part of what was known of a backend that has not faded by now; of nothing, nothing."""
    if speeds.heard_ns[backend] == 0:
        return 0.0
    return math.exp(-np.float64(max(now_ns - speeds.heard_ns[backend], 0)) / speeds.fade_ns[0])
