"""The Fib of a Snapshot: what is wanted, in names, compiled to what is looked up, in integers. Pure.

Law: equal Snapshots give equal bytes. A frontend is an address and port that a Service port is reached at: its
ClusterIP, its node port at every node's address, its external and load balancer addresses. Its pools hold the endpoints
that a new flow may go to, for clients in the cluster and for those outside, and where policy or hints make a difference
for each node (``plane.endpoints``). Every endpoint in any slice is a backend, because flows may still be going there;
one that is in no pool drains, or is unready.
"""

import hashlib
import ipaddress
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from kernels.layout import (
    ALGORITHMS,
    BACKEND,
    BACKEND_STATES,
    DRAINING,
    FRONTEND,
    INSIDE,
    OUTCOMES,
    OUTSIDE,
    RANDOM,
    RANGE,
    READY,
    UNREADY,
    Fib,
    freeze,
)
from kernels.lb import frontends
from kernels.lb.pools import Pools
from plane.addresses import int_to_ip
from plane.frontends import PROTOCOLS, Frontend, Node, algorithm_of, frontends_of, ipv4, nodes_of, slow_start_of
from plane.model import Endpoint, Service, Snapshot, endpoints_of

_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


def compile(snapshot: Snapshot, algorithm: int = RANDOM) -> Fib:
    """All tables of ``layout.Fib``, read-only. ``algorithm`` is that of Services which name none."""
    nodes = nodes_of(snapshot)
    reached = list(frontends_of(snapshot, nodes))
    backends = _backends(snapshot, nodes, reached)
    pools = Pools(backends)
    rows: list[tuple[int, ...]] = [tuple(np.zeros((), FRONTEND).item())]
    ranges: list[tuple[int, int, int, int]] = []
    for each in reached:
        chosen = algorithm_of(each.service, algorithm)
        owner, slow_start_s = (each.row, each.service_port.name), slow_start_of(each.service, chosen)
        inside, outside = (
            pools.add(owner, *(_pool(snapshot, chosen, *choice) for choice in choices), slow_start_s=slow_start_s)
            for choices in (each.inside, each.outside)
        )
        affinity = (_affinity_number(each), each.service.affinity_s) if each.service.affinity_s else (0, 0)
        by_node = (INSIDE if len(each.inside) > 1 else 0) | (OUTSIDE if len(each.outside) > 1 else 0)
        where = ipv4(each.ip), each.port, PROTOCOLS[each.service_port.protocol], by_node
        rows.append((*where, inside, outside, each.row, *affinity, len(ranges), len(each.source_ranges), each.node))
        ranges += map(_range, each.source_ranges)
    table = np.array(rows, FRONTEND)
    pool_rows, members, weights, rings = pools.tables()
    return Fib(
        generation=snapshot.generation,
        frontends=freeze(table),
        frontend_index=frontends.build_index(table),
        pools=pool_rows,
        backends=backends,
        members=members,
        weights=weights,
        rings=rings,
        sources=_sources(snapshot, nodes),
        ranges=freeze(np.array(ranges, RANGE)),
    )


def _pool(
    snapshot: Snapshot, algorithm: int, endpoints: Sequence[Endpoint], otherwise: int
) -> tuple[int, list[int], list[int], int]:
    ids = [snapshot.backends[row.key] for row in endpoints]
    return algorithm, ids, [row.weight for row in endpoints], otherwise


def service_names(snapshot: Snapshot) -> tuple[str, ...]:
    """``namespace/name`` of the Services of a Snapshot by the rows that ``FRONTEND.service`` means; row 0 is none."""
    return ("", *(Service.of(obj).full_name for obj in snapshot.all("Service")))


def equal(one: Fib, other: Fib) -> bool:
    """Whether two Fibs steer alike: the same but for their generation."""
    return all(np.array_equal(left, right) for left, right in zip(one[1:], other[1:], strict=True))


def dump(fib: Fib) -> str:
    """The Fib as text for people and expectations: equal text for Fibs that steer alike, whatever their generation."""
    lines: list[str] = []
    order = np.argsort(fib.frontends[1:], order=("ip", "port", "proto")) + 1
    for row in fib.frontends[order]:
        sides = {"inside": INSIDE, "outside": OUTSIDE} if row["inside"] != row["outside"] else {"anyone": INSIDE}
        lines.append(f"{_address(row)} service {row['service']}{_traits(fib, row)}")
        for side, flag in sides.items():
            first = int(row["outside" if side == "outside" else "inside"])
            last = first + (highest_node(fib) if row["by_node"] & flag else 0)
            for pool in range(first, last + 1):
                at = f" at node {pool - first}" if first < last else ""
                lines += _pool_lines(fib, pool, f"{side}{at}")
    for number in np.flatnonzero(fib.backends["state"]):
        row = fib.backends[number]
        state = BACKEND_STATES[row["state"]].lower()
        lines.append(f"backend {number} {_address(row)} {state} weight {row['weight']} node {row['node']}")
    lines += [f"node {row['node']} {int_to_ip(row['first'])}-{int_to_ip(row['last'])}" for row in fib.sources]
    return "".join(f"{line}\n" for line in lines)


def highest_node(fib: Fib) -> int:
    """N of the last node there is, 0 for none."""
    return int(max(fib.frontends["node"].max(), *fib.sources["node"], 0))


def _traits(fib: Fib, row: np.void) -> str:
    first, count = int(row["first_range"]), int(row["ranges"])
    spans = ",".join(f"{int_to_ip(span['first'])}-{int_to_ip(span['last'])}" for span in fib.ranges[first:][:count])
    return (
        (f" node {row['node']}" if row["node"] else "")
        + (f" affinity {row['affinity_s']} s" if row["affinity"] else "")
        + (f" from {spans}" if spans else "")
    )


def _pool_lines(fib: Fib, number: int, whom: str) -> Iterator[str]:
    pool = fib.pools[number]
    first, count, slots = int(pool["first_member"]), int(pool["members"]), int(pool["slots"])
    traits = f" slow start {pool['slow_start_s']} s" if pool["slow_start_s"] else ""
    traits += "" if count else f" {OUTCOMES[pool['otherwise']]}"
    yield f"  {whom} {ALGORITHMS[pool['algorithm']]}{traits}"
    owned = np.bincount(fib.rings[int(pool["first_slot"]) :][:slots], minlength=len(fib.backends))
    for member, weight in zip(fib.members[first:][:count], fib.weights[first:][:count], strict=True):
        share = (f" weight {weight}" if weight != 1 else "") + (f" {owned[member]}/{slots} slots" if slots else "")
        yield f"    -> {member} {_address(fib.backends[member])}{share}"


def _backends(snapshot: Snapshot, nodes: Sequence[Node], reached: Iterable[Frontend]) -> np.ndarray:
    """BACKEND[B+1]: every endpoint that has an id; READY where a pool has it."""
    table = np.zeros(max(snapshot.backends.values(), default=0) + 1, BACKEND)
    numbers = {node.name: node.number for node in nodes}
    used = {
        row.key: row
        for each in reached
        for choices in (each.inside, each.outside)
        for rows, _ in choices
        for row in rows
        if row.weight > 0
    }
    for obj in snapshot.all("EndpointSlice"):
        for row in endpoints_of(obj):
            number, ip = snapshot.backends.get(row.key, 0), ipv4(row.ip)
            if not number or not ip or row.protocol not in PROTOCOLS:
                continue
            weight, state = (used[row.key].weight, READY) if row.key in used else (0, DRAINING)
            if not row.serving and state != READY:
                state = UNREADY
            if table[number]["state"] in (0, UNREADY):  # in several slices: the best of them counts
                node = numbers.get(row.node, 0)
                table[number] = (ip, row.port, weight, node, PROTOCOLS[row.protocol], state)
    return freeze(table)


def _sources(snapshot: Snapshot, nodes: Sequence[Node]) -> np.ndarray:
    """RANGE[...]: the addresses of nodes, of their ranges for pods, and of pods beyond those; sorted and apart."""
    spans: list[tuple[int, int, int, int]] = []

    def add(first: int, last: int, node: int) -> None:
        place = bisect_right(spans, (first, last, node, 0))
        before = spans[place - 1] if place else None
        after = spans[place] if place < len(spans) else None
        if first and not (before and before[1] >= first) and not (after and after[0] <= last):
            spans.insert(place, (first, last, node, 0))

    for node in nodes:
        for text in node.pod_ranges:
            first, last, *_ = _range(text)
            add(first, last, node.number)
    for node in nodes:
        for address in node.addresses:
            add(ipv4(address), ipv4(address), node.number)
    numbers = {node.name: node.number for node in nodes}
    for obj in snapshot.all("Pod"):
        ip = ipv4((obj.get("status") or {}).get("podIP") or "")
        if ip and (number := numbers.get(obj["spec"].get("nodeName") or "", 0)):
            add(ip, ip, number)
    return freeze(np.array(spans, RANGE))


def _affinity_number(frontend: Frontend) -> int:
    """What a client's backend is kept under: the same in every Fib, and at every address of the Service port."""
    name = f"{frontend.service.full_name}:{frontend.service_port.port}/{frontend.service_port.protocol}"
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest()) or 1


def _range(text: str) -> tuple[int, int, int, int]:
    """A CIDR as a row of RANGE; one that holds no address for what is no IPv4."""
    try:
        span = ipaddress.IPv4Network(text.strip(), strict=False)
    except ValueError:
        return 1, 0, 0, 0
    return int(span.network_address), int(span.broadcast_address), 0, 0


def _address(row: np.void) -> str:
    return f"{int_to_ip(row['ip'])}:{row['port']}/{_PROTOCOL_NAMES.get(int(row['proto']), row['proto'])}"
