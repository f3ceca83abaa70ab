"""Compile the data path once, before the processes start that run it.

Law: processes that fill one cache at the same time can spoil it for each other, so only the holder of the lock
compiles, and a mark is left once a part is there. The calls below have the types that are used live, a read-only Fib
first of all: to Numba a writable array is another type and another compilation.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from kernels import cache
from kernels.jit import INTERPRETED
from kernels.layout import TCP, Flows, Verdicts, freeze
from kernels.lb import conntrack, forward, frontends, hashing, maglev

MARK = "warm"
UNUSED_FOR_S = 30 * 24 * 3600  # other versions' code is thrown away after a month


def warm(progress: Callable[[str], None] | None = None, *parts: str) -> None:
    """Have everything compiled, and loaded into this process; or these of PARTS.

    All of it takes under a minute the first time, and part of a second afterwards. ``progress`` is called with a line
    to show before each part, the first time only. Several processes may call it at the same time; one of them compiles.
    """
    if INTERPRETED:
        return
    wanted = parts or tuple(PARTS)
    if not all(map(is_there, wanted)):
        with _alone(cache.directory()):
            for what in wanted:
                if progress and not is_there(what):
                    progress(f"compiling for this machine, once: {what}")
                PARTS[what]()
                _mark(what).touch()
            _throw_away_unused(cache.directory())
    else:
        for what in wanted:
            PARTS[what]()
    (cache.directory() / MARK).touch()


def once(name: str, call: Callable[[], object]) -> None:
    """Calls what compiles something that is not in PARTS: alone the first time, as ``warm`` does. ``name`` names it."""
    if is_there(name):
        call()
        return
    with _alone(cache.directory()):
        call()
        _mark(name).touch()


def is_there(name: str) -> bool:
    """Whether one of PARTS, or what ``once`` knows by this name, is compiled; it need not be with the JIT off."""
    return INTERPRETED or _mark(name).exists()


def _mark(name: str) -> Path:
    return cache.directory() / f"{MARK}-{name}"


def _load_balancer() -> None:
    """One flow through everything in ``lb`` that Python calls."""
    one = np.ones(1, np.uint32)
    flows = Flows(one, one, one.astype(np.uint16), one.astype(np.uint16), np.full(1, TCP, np.uint8))
    hashing.flow_hashes(flows, np.empty(1, np.uint64))
    nothing = forward.empty_fib()
    seeds = np.empty(1, np.uint64)
    hashing.endpoint_seeds(nothing.backends, seeds)
    many = 1 << 8  # endpoints, whose numbers take two bytes; so many that they take four are not seen in a Service
    maglev.build(np.zeros(many, np.uint64), np.ones(many, np.uint16), maglev.SIZE_OF_ONE)
    ring = maglev.build(seeds, np.ones(1, np.uint16), maglev.SIZE_OF_ONE)
    maglev.steer(freeze(ring), flows, np.empty(1, np.uint32))
    table = np.zeros(2, nothing.frontends.dtype)
    table[1]["ip"], table[1]["port"], table[1]["proto"] = 1, 1, TCP
    fib = nothing._replace(frontends=freeze(table), frontend_index=frontends.build_index(table))
    frontends.find_frontend(fib, 1, 1, TCP)
    steering = forward.create_steering(fib, 1)
    forward.forward(fib, steering, flows, 0, Verdicts(np.empty(1, np.uint8), one.copy(), one.copy()))
    conntrack.remove(steering.conntrack, np.uint64(1))


def _relay() -> None:
    from kernels.net import relay  # here, because nothing else in this file needs compiled system calls

    relay.warm()


def _measuring() -> None:
    from kernels.net import httpload, httpresponder, loadgen, responder

    loadgen.warm()
    responder.warm()
    httpload.warm()
    httpresponder.warm()


LOAD_BALANCING = "load balancing"
PARTS: dict[str, Callable[[], None]] = {
    LOAD_BALANCING: _load_balancer,
    "connection relay": _relay,
    "load generator and responder": _measuring,
}


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Hold the lock of a cache directory, which is made; the lock goes when its holder does, whatever becomes of it."""
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _throw_away_unused(directory: Path) -> None:
    """Remove the neighbours of ``directory`` that nobody has warmed up for a month."""
    for mark in directory.parent.glob(f"*/{MARK}"):
        if mark.parent != directory and mark.stat().st_mtime < time.time() - UNUSED_FOR_S:
            shutil.rmtree(mark.parent, ignore_errors=True)
