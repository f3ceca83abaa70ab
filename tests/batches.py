"""Batches of flows and small Fibs: inputs that tests and benchmarks of the kernels share."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from kernels.layout import READY, REJECT, TCP, Fib, Flows, Verdicts, freeze
from kernels.lb import frontends
from kernels.lb.pools import Pools
from plane.families import IPV4, IPV6, Family
from tests.reference import Flow

VIP = 0x7F600101  # 127.96.1.1
POD = 0x7FF40102  # 127.244.1.2


class Backend(NamedTuple):
    """A row of BACKEND, as far as tests care."""

    ip: int
    port: int = 8080
    state: int = READY
    weight: int = 1


class Frontend(NamedTuple):
    """A row of FRONTEND and its members, by backend id.

    outside   members for clients outside the cluster, where they differ
    by_node   INSIDE | OUTSIDE: that side has a pool for each of nodes 0 … 2, of the members in order from that on
    """

    ip: int
    port: int
    proto: int
    algorithm: int
    members: Sequence[int] = ()
    outside: Sequence[int] | None = None
    by_node: int = 0
    affinity: int = 0
    affinity_s: int = 0
    ranges: Sequence[tuple[int, int]] = ()
    node: int = 0
    slow_start_s: int = 0


NODES = 3
SOURCES = ((POD & ~0xFF, POD, 1), (POD + 2, POD + 2, 2))  # first, last and node: of POD … POD + 3 the last is outside


def address_of(ip: int, family: Family) -> int | tuple[int, int]:
    """An address of the family for each number, in their order; of IPv6 neighbours have one half in common."""
    return ip if family is IPV4 else ((0xFD00 << 48) + (ip >> 1), (ip & 1) << 63)


def fib_of(
    rows: Sequence[Frontend],
    backends: Mapping[int, Backend],
    *,
    slots: int = 251,
    generation: int = 1,
    family: Family = IPV4,
) -> Fib:
    """A Fib of these frontends, with rings of ``slots`` for pools that hash."""
    table = np.zeros(max(backends, default=0) + 1, family.backend)
    for number, backend in backends.items():
        ip = address_of(backend.ip, family)
        table[number] = (ip, backend.port, backend.weight, 0, TCP, backend.state)
    pools = Pools(table, slots)
    packed = [np.zeros((), family.frontend).item()]
    ranges: list[tuple[int, int]] = []
    for number, row in enumerate(rows, start=1):
        sides = []
        for side, members in ((1, row.members), (2, row.members if row.outside is None else row.outside)):
            runs = [members[first:] for first in range(NODES)] if row.by_node & side else [members]
            choices = [(row.algorithm, run, [backends[each].weight for each in run], REJECT) for run in runs]
            sides.append(pools.add(number, *choices, slow_start_s=row.slow_start_s))
        affinity = (row.affinity, row.affinity_s, len(ranges), len(row.ranges), row.node)
        packed.append((address_of(row.ip, family), *row[1:3], row.by_node, *sides, 0, *affinity))
        ranges += row.ranges
    lines = np.array(packed, family.frontend)
    return Fib(
        generation=generation,
        frontends=freeze(lines),
        frontend_index=frontends.build_index(lines),
        backends=freeze(table),
        sources=_ranges(SOURCES, family),
        ranges=_ranges([(*each, 0) for each in ranges], family),
        **pools.tables(),
    )


def _ranges(rows: Sequence[tuple[int, int, int]], family: Family) -> np.ndarray:
    spans = [(address_of(first, family), address_of(last, family), node, 0) for first, last, node in rows]
    return freeze(np.array(spans, family.range))


def one_service(
    algorithm: int, endpoints: int, *, slots: int = 251, slow_start_s: int = 0, family: Family = IPV4
) -> Fib:
    """A Fib of one frontend, VIP:80/TCP, over ready backends 1 … endpoints."""
    backends = {number: Backend(POD + number - 1) for number in range(1, endpoints + 1)}
    frontend = Frontend(VIP, 80, TCP, algorithm, range(1, endpoints + 1), slow_start_s=slow_start_s)
    return fib_of([frontend], backends, slots=slots, family=family)


def flows_of(rows: Sequence[Flow], family: Family = IPV4) -> Flows:
    """Flows from tuples in the order of their columns."""
    columns = zip(*rows, strict=True) if rows else ((),) * 5
    types = (family.address, family.address, np.uint16, np.uint16, np.uint8)
    return Flows(*(np.array([*column], kind) for column, kind in zip(columns, types, strict=True)))


def rows_of(flows: Flows) -> list[Flow]:
    """The flows as tuples of Python's integers."""
    return list(zip(*(column.tolist() for column in flows), strict=True))


def random_flows(count: int, *, seed: int = 1, family: Family = IPV4) -> Flows:
    """TCP flows of random clients to VIP:80."""
    draw = np.random.default_rng(seed)
    clients = draw.integers(0, 1 << 32, count, np.uint32)
    if family is IPV6:
        clients = np.array([address_of(ip, family) for ip in clients.tolist()], family.address)
    return Flows(
        clients,
        np.full(count, np.array(address_of(VIP, family), family.address)),
        draw.integers(1024, 1 << 16, count, np.uint16),
        np.full(count, 80, np.uint16),
        np.full(count, TCP, np.uint8),
    )


def verdicts_for(count: int) -> Verdicts:
    """Columns that hold nothing a kernel would write, so that a row left out shows."""
    return Verdicts(
        np.full(count, 255, np.uint8), np.full(count, 1 << 31, np.uint32), np.full(count, 1 << 31, np.uint32)
    )
