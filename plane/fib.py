"""The Fib of a Snapshot: what is wanted, in names, compiled to what is looked up, in integers. Pure.

Law: equal Snapshots give equal bytes. A frontend is an address and port that a Service port is reached at: its
ClusterIP, its node port at every node's address, its external and load balancer addresses. Its pools hold the endpoints
that a new flow may go to, for clients in the cluster and for those outside, and where policy or hints make a difference
for each node (``plane.endpoints``). Every endpoint in any slice is a backend, because flows may still be going there;
one that is in no pool drains, or is unready.

A ``Compiler`` goes from Snapshot to Snapshot, and what it does in Python goes by what differs between them: it makes
the parts of the Services that changed (``kernels.lb.parts``) and the rows of the backends that did; the rest it copies.
"""

import hashlib
import ipaddress
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

import numpy as np

from kernels.layout import (
    ALGORITHMS,
    BACKEND,
    BACKEND_STATES,
    DRAINING,
    GONE,
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
from kernels.lb.forward import empty_fib
from kernels.lb.parts import Edit, Part, Parts
from kernels.lb.pools import Pools
from kernels.lb.rings import Rings
from plane.addresses import int_to_ip
from plane.endpointindex import Change, EndpointIndex
from plane.frontends import (
    PROTOCOLS,
    Choices,
    Frontend,
    Node,
    algorithm_of,
    frontends_of_service,
    ipv4,
    slow_start_of,
)
from plane.model import Endpoint, EndpointKey, Name, Object, Service, Snapshot
from plane.rows import Followed

_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


def compile(snapshot: Snapshot, algorithm: int = RANDOM) -> Fib:
    """All tables of ``layout.Fib``, read-only. ``algorithm`` is that of Services which name none."""
    index = EndpointIndex()
    return Compiler(algorithm).compile(snapshot, index, index.follow(snapshot))


class _Held(NamedTuple):
    """What is remembered of a Service's part: the weights of the endpoints that its pools have, and its rings."""

    weights: dict[EndpointKey, int]
    rings: tuple[int, ...]


_NOTHING = _Held({}, ())


class Compiler:
    """Compiles one Snapshot after the other. One that has raised is of no more use."""

    def __init__(self, algorithm: int = RANDOM):
        self._algorithm = algorithm
        self._names: list[Name] = []  # of the Services, in the order of ``_parts``
        self._parts = Parts()
        self._held: dict[Name, _Held] = {}  # of Services that have any
        self._rings = Rings()
        self._sources = _Sources()
        self._fib = empty_fib()

    def compile(self, snapshot: Snapshot, index: EndpointIndex, change: Change) -> Fib:
        """As the function of this name. The index has followed the Snapshot, and ``change`` is what came of it."""
        fib, stale = self._fib, dict(change.endpoints)
        backends = _placed(fib.backends, index, change)
        if change.services:
            stale |= dict.fromkeys(self._remake(snapshot, index, change.services, backends))
            tables = self._parts.tables()
            rings = self._rings.lay(tables.pools, tables.held)
            fib = fib._replace(
                frontends=tables.frontends,
                frontend_index=_frontend_index(tables.frontends, fib),
                pools=freeze(tables.pools),
                members=tables.members,
                weights=tables.weights,
                rings=rings,
                ranges=tables.ranges,
            )
        if stale:
            self._fill(backends, index, stale)
            fib = fib._replace(backends=freeze(backends))
        sources = self._sources.of(snapshot, index.nodes, anew=change.nodes)
        self._fib = fib._replace(generation=snapshot.generation, sources=sources)
        return self._fib

    def _remake(
        self, snapshot: Snapshot, index: EndpointIndex, names: Iterable[Name], backends: np.ndarray
    ) -> set[EndpointKey]:
        """Puts new parts in place of those of these Services; the endpoints that are used otherwise than before."""
        services = snapshot.rows("Service")
        edits: list[Edit] = []
        stale: set[EndpointKey] = set()
        others = False  # whether a Service came or went
        for name in sorted(names):
            place = bisect_left(self._names, name)
            last = place + (place < len(self._names) and self._names[place] == name)
            before, held, parts = self._held.pop(name, _NOTHING), _NOTHING, []
            if (obj := services.get(name)) is not None:
                part, held = self._part(obj, index, backends)
                parts.append(part)
                if held != _NOTHING:
                    self._held[name] = held
            others |= last - place != len(parts)
            if edits and edits[-1].last == place:
                edits[-1] = Edit(edits[-1].first, last, edits[-1].parts + parts)
            elif parts or place < last:
                edits.append(Edit(place, last, parts))
            for number in before.rings:
                self._rings.release(number)
            stale.update(_weighed_otherwise(before.weights, held.weights))
        self._parts.edit(edits)
        if others:
            self._names = list(services)
        return stale

    def _part(self, obj: Object, index: EndpointIndex, backends: np.ndarray) -> tuple[Part, _Held]:
        """The tables of one Service, and what is to be remembered of it."""
        service = Service.of(obj)
        endpoints = index.of_service((service.namespace, service.name))
        reached = list(frontends_of_service(0, service, endpoints, index.nodes))
        pools, algorithm = Pools(backends, rings=self._rings), algorithm_of(service, self._algorithm)
        slow_start_s = slow_start_of(service, algorithm)
        known: dict[int, int] = {}  # the pools of a port's choices, which several of its frontends have

        def pool(owner: str, choices: Choices) -> int:
            if id(choices) not in known:
                each = (_pool(index, algorithm, *choice) for choice in choices)
                known[id(choices)] = pools.add(owner, *each, slow_start_s=slow_start_s)
            return known[id(choices)]

        rows: list[tuple[int, ...]] = []
        ranges: list[tuple[int, int, int, int]] = []
        for each in reached:
            inside, outside = (pool(each.service_port.name, choices) for choices in (each.inside, each.outside))
            affinity = (_affinity_number(each), service.affinity_s) if service.affinity_s else (0, 0)
            by_node = (INSIDE if len(each.inside) > 1 else 0) | (OUTSIDE if len(each.outside) > 1 else 0)
            where = ipv4(each.ip), each.port, PROTOCOLS[each.service_port.protocol], by_node
            rows.append((*where, inside, outside, 0, *affinity, len(ranges), len(each.source_ranges), each.node))
            ranges += map(_range, each.source_ranges)
        every = {id(choices): choices for each in reached for choices in (each.inside, each.outside)}
        weights = {row[:3]: row.weight for choices in every.values() for few, _ in choices for row in few if row.weight}
        part = Part(rows, pools.rows, pools.held, pools.members, pools.weights, ranges)
        return part, _Held(weights, tuple(filter(None, pools.held)))

    def _fill(self, backends: np.ndarray, index: EndpointIndex, keys: Iterable[EndpointKey]) -> None:
        """Sets weight, node and state of these endpoints, of those that have an id; addresses are there already."""
        nodes = {node.name: node.number for node in index.nodes}
        there = [(number, key) for key in keys if (number := index.ids.get(key))]
        reached = (backends["proto"][[number for number, _ in there]] > 0).tolist()
        there = [each for each, is_reached in zip(there, reached, strict=True) if is_reached]
        rows = [self._standing(index, key, nodes) for _, key in there]
        _set(backends, [number for number, _ in there], ("weight", "node", "state"), rows)

    def _standing(self, index: EndpointIndex, key: EndpointKey, nodes: Mapping[str, int]) -> tuple[int, int, int]:
        """(weight, node, state) of an endpoint that is in some slice: READY where a pool has it."""
        said = index.at(key)
        users = [name for name, _ in said if name in self._held and key in self._held[name].weights]
        weight = self._held[max(users)].weights[key] if users else 0
        node, best = 0, GONE
        for _, endpoints in said:
            for endpoint in endpoints:
                if best in (GONE, UNREADY):  # in several slices: the best of them counts
                    node = nodes.get(endpoint.node, 0)
                    best = READY if users else DRAINING if endpoint.serving else UNREADY
        return weight, node, best


def _weighed_otherwise(one: Mapping[EndpointKey, int], other: Mapping[EndpointKey, int]) -> Iterable[EndpointKey]:
    """The endpoints that have not the same weight in both."""
    if not one or not other:
        return one or other
    return {key for key, _ in one.items() ^ other.items()}


def _placed(before: np.ndarray, index: EndpointIndex, change: Change) -> np.ndarray:
    """BACKEND[B+1] with the addresses of endpoints by their ids as they are now: what rings follow from.

    A row without an address is that of an endpoint which is in no slice, or which we can't reach.
    """
    there = [(number, key) for key in change.endpoints if (number := index.ids.get(key))]
    numbers = [number for number, _ in there]
    size = max(len(before), max(numbers, default=0) + 1)
    if size - 1 in change.freed and size - 1 not in numbers:
        size = max(index.ids.values(), default=0) + 1
    table = before[:size].copy() if size <= len(before) else np.append(before, np.zeros(size - len(before), BACKEND))
    table[[number for number in change.freed if number < size]] = np.zeros((), BACKEND)
    table[numbers] = np.zeros((), BACKEND)
    _set(table, numbers, ("ip", "port", "proto"), [_address_of(key, index) for _, key in there])
    return table


def _address_of(key: EndpointKey, index: EndpointIndex) -> tuple[int, int, int]:
    text, port, protocol = key
    ip = ipv4(text) if protocol in PROTOCOLS and index.is_there(key) else 0
    return (ip, port, PROTOCOLS[protocol]) if ip else (0, 0, 0)


def _set(table: np.ndarray, numbers: list[int], names: Sequence[str], rows: Sequence[tuple[int, ...]]) -> None:
    """Sets these columns of these rows."""
    columns = np.array(rows, np.int64).reshape(-1, len(names)).T
    for name, column in zip(names, columns, strict=True):
        table[name][numbers] = column


def _frontend_index(table: np.ndarray, last: Fib) -> np.ndarray:
    """The index of these frontends: the last one for as long as they are reached at the same addresses."""
    same = all(np.array_equal(table[name], last.frontends[name]) for name in ("ip", "port", "proto"))
    return last.frontend_index if same else frontends.build_index(table)


def _pool(
    index: EndpointIndex, algorithm: int, endpoints: Sequence[Endpoint], otherwise: int
) -> tuple[int, list[int], list[int], int]:
    return algorithm, [index.ids[row[:3]] for row in endpoints], [row.weight for row in endpoints], otherwise


def service_names(snapshot: Snapshot) -> tuple[str, ...]:
    """``namespace/name`` of the Services of a Snapshot by the rows that ``FRONTEND.service`` means; row 0 is none."""
    return ("", *(Service.of(obj).full_name for obj in snapshot.all("Service")))


def equal(one: Fib, other: Fib) -> bool:
    """Whether two Fibs steer alike: the same but for their generation."""
    return all(map(_same, one[1:], other[1:]))


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two tables of one kind hold the same; as bytes, which are compared much faster than fields."""
    return one is other or (len(one) == len(other) and np.array_equal(one.view(np.uint8), other.view(np.uint8)))


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
    return int(max(fib.frontends["node"].max(), fib.sources["node"].max(initial=0)))


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


class _Sources:
    """RANGE[...]: the addresses of nodes, of their ranges for pods, and of pods beyond those; sorted and apart."""

    def __init__(self) -> None:
        self._pods: Followed[Name, Object] = Followed()
        self._spans: list[Span] = []  # of nodes and their ranges
        self._beyond: dict[Name, tuple[int, int]] = {}  # address and node of pods that are in none of them
        self._table = freeze(np.zeros(0, RANGE))

    def of(self, snapshot: Snapshot, nodes: Sequence[Node], *, anew: bool) -> np.ndarray:
        """Those of a Snapshot. ``anew``: its nodes are others than those of the one before."""
        news = [(name, pod) for name, _, pod in self._pods.news(snapshot.rows("Pod"))]
        if anew:
            self._spans, self._beyond = _of_nodes(nodes), {}
            news = list(snapshot.rows("Pod").items())
        if self._set_beyond(news, {node.name: node.number for node in nodes}) or anew:
            spans = list(self._spans)
            for _, (ip, node) in sorted(self._beyond.items()):
                _add(spans, ip, ip, node)
            self._table = freeze(np.array(spans, RANGE))
        return self._table

    def _set_beyond(self, pods: Iterable[tuple[Name, Object | None]], nodes: Mapping[str, int]) -> bool:
        """Notes where these pods are; whether that changes anything."""
        changed = False
        for name, pod in pods:
            ip = ipv4(((pod or {}).get("status") or {}).get("podIP") or "")
            node = nodes.get(pod["spec"].get("nodeName") or "", 0) if pod else 0
            before = self._beyond.pop(name, None)
            if ip and node and not _is_within(self._spans, ip):
                self._beyond[name] = ip, node
            changed |= before != self._beyond.get(name)
        return changed


Span = tuple[int, int, int, int]  # a row of RANGE


def _of_nodes(nodes: Sequence[Node]) -> list[Span]:
    spans: list[Span] = []
    for node in nodes:
        for text in node.pod_ranges:
            first, last, *_ = _range(text)
            _add(spans, first, last, node.number)
    for node in nodes:
        for address in node.addresses:
            _add(spans, ipv4(address), ipv4(address), node.number)
    return spans


def _is_within(spans: Sequence[Span], ip: int) -> bool:
    place = bisect_right(spans, ip, key=itemgetter(0))
    return place > 0 and spans[place - 1][1] >= ip


def _add(spans: list[Span], first: int, last: int, node: int) -> None:
    """Adds a span unless it is within or across another."""
    place = bisect_right(spans, (first, last, node, 0))
    before = spans[place - 1] if place else None
    after = spans[place] if place < len(spans) else None
    if first and not (before and before[1] >= first) and not (after and after[0] <= last):
        spans.insert(place, (first, last, node, 0))


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
