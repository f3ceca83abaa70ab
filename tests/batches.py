"""Batches of flows and small Fibs: inputs that tests and benchmarks of the kernels share."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kernels.layout import BACKEND, FRONTEND, MAGLEV, READY, TCP, Fib, Flows, Verdicts, freeze
from kernels.lb import frontends, hashing, maglev

VIP = 0x7F600101  # 127.96.1.1
POD = 0x7FF40102  # 127.244.1.2


class Backend(NamedTuple):
    """A row of BACKEND, as far as tests care."""

    ip: int
    port: int = 8080
    state: int = READY
    weight: int = 1


class Frontend(NamedTuple):
    """A row of FRONTEND and its members, by backend id."""

    ip: int
    port: int
    proto: int
    algorithm: int
    members: Sequence[int] = ()


def fib_of(rows: Sequence[Frontend], backends: Mapping[int, Backend], *, slots: int = 251, generation: int = 1) -> Fib:
    """A Fib of these frontends, with a ring of ``slots`` for each Maglev frontend that has members."""
    table = np.zeros(max(backends, default=0) + 1, BACKEND)
    for number, backend in backends.items():
        table[number] = (backend.ip, backend.port, backend.weight, 0, TCP, backend.state)
    seeds = np.zeros(len(table), np.uint64)
    hashing.endpoint_seeds(freeze(table), seeds)
    packed = [np.zeros((), FRONTEND).item()]
    members: list[int] = []
    rings = [np.zeros(0, np.uint32)]
    for row in rows:
        ring = np.zeros(0, np.uint32)
        if row.algorithm == MAGLEV:
            numbers = np.array(row.members, np.uint32)
            ring = numbers[maglev.build(seeds[numbers], table["weight"][numbers], slots)]
        packed.append((*row[:4], len(members), len(row.members), sum(map(len, rings)), len(ring), 0))
        members += row.members
        rings.append(ring)
    lines = np.array(packed, FRONTEND)
    return Fib(
        generation,
        freeze(lines),
        frontends.build_index(lines),
        table,
        freeze(np.array(members, np.uint32)),
        freeze(np.concatenate(rings)),
    )


def one_service(algorithm: int, endpoints: int, *, slots: int = 251) -> Fib:
    """A Fib of one frontend, VIP:80/TCP, over ready backends 1 … endpoints."""
    backends = {number: Backend(POD + number - 1) for number in range(1, endpoints + 1)}
    return fib_of([Frontend(VIP, 80, TCP, algorithm, range(1, endpoints + 1))], backends, slots=slots)


def flows_of(rows: Sequence[tuple[int, int, int, int, int]]) -> Flows:
    """Flows from tuples in the order of their columns."""
    columns = zip(*rows, strict=True) if rows else ((),) * 5
    types = (np.uint32, np.uint32, np.uint16, np.uint16, np.uint8)
    return Flows(*(np.array(column, kind) for column, kind in zip(columns, types, strict=True)))


def rows_of(flows: Flows) -> list[tuple[int, int, int, int, int]]:
    """The flows as tuples of Python's integers."""
    return list(zip(*(column.tolist() for column in flows), strict=True))


def random_flows(count: int, *, seed: int = 1) -> Flows:
    """TCP flows of random clients to VIP:80."""
    draw = np.random.default_rng(seed)
    return Flows(
        draw.integers(0, 1 << 32, count, np.uint32),
        np.full(count, VIP, np.uint32),
        draw.integers(1024, 1 << 16, count, np.uint16),
        np.full(count, 80, np.uint16),
        np.full(count, TCP, np.uint8),
    )


def verdicts_for(count: int) -> Verdicts:
    """Columns that hold nothing a kernel would write, so that a row left out shows."""
    return Verdicts(
        np.full(count, 255, np.uint8), np.full(count, 1 << 31, np.uint32), np.full(count, 1 << 31, np.uint32)
    )
