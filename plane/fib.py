"""The Fib of a Snapshot: what is wanted, in names, compiled to what is looked up, in integers. Pure.

Law: equal Snapshots steer alike. A frontend is an address and port that a Service port is reached at: its
ClusterIP, its node port at every node's address, its external and load balancer addresses. Its pools hold the endpoints
that a new flow may go to, for clients in the cluster and for those outside, and where policy or hints make a difference
for each node (``plane.endpoints``). Every endpoint in any slice is a backend, because flows may still be going there;
one that is in no pool drains, or is unready. Where two Services are reached at one address and port, the one that is
first by name is.

A ``Compiler`` goes from Snapshot to Snapshot, and gives a patch (``kernels.lb.patches``): what it does goes by what
differs between them. It makes the parts of the Services that changed (``kernels.lb.parts``) and the rows of the
backends that did, each where it lies already, if it fits there. So in which rows what is found depends on what was
there before, and in the Fib of one Snapshot alone all is in order, without gaps. A Fib has the addresses of one family
(``plane.families``).
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

import numpy as np

from kernels.layout import (
    ALGORITHMS,
    BACKEND_STATES,
    DRAINING,
    GONE,
    INDEX,
    INSIDE,
    OUTCOMES,
    OUTSIDE,
    RANDOM,
    READY,
    UNREADY,
    Fib,
    freeze,
)
from kernels.lb import frontends
from kernels.lb.forward import empty_fib
from kernels.lb.parts import Part, Parts, Placed
from kernels.lb.patches import TABLES, Patch
from kernels.lb.pools import Pools
from kernels.lb.rings import Rings
from kernels.lb.tables import Table, lined_up
from plane.endpointindex import Change, EndpointIndex
from plane.families import IPV4, IPV6, Family
from plane.frontends import (
    PROTOCOLS,
    Choices,
    Frontend,
    Node,
    algorithm_of,
    frontends_of_service,
    slow_start_of,
)
from plane.model import Endpoint, EndpointKey, Name, Object, Service, Snapshot
from plane.rows import Followed

Address = tuple[Any, int, int]  # ip, port and protocol

_weight_of = attrgetter("weight")
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


def compile(snapshot: Snapshot, algorithm: int = RANDOM, family: Family = IPV4) -> Fib:
    """All tables of ``layout.Fib``, read-only. ``algorithm`` is that of Services which name none."""
    compiler, index = Compiler(algorithm, family), EndpointIndex()
    compiler.follow(snapshot, index, index.follow(snapshot))
    return compiler.whole(snapshot.generation)


class _Held(NamedTuple):
    """What is remembered of a Service: where its part lies, its rings, and weights of the endpoints that it uses."""

    placed: Placed
    rings: tuple[int, ...]
    weights: dict[EndpointKey, int]


_NOTHING = _Held(Placed(), (), {})


class Compiler:
    """Compiles one Snapshot after the other. One that has raised is of no more use."""

    def __init__(self, algorithm: int = RANDOM, family: Family = IPV4):
        self._algorithm, self._family = algorithm, family
        self._parts = Parts(family.frontend, family.range)
        self._rings = Rings()
        self._backends, self._source_table = Table(family.backend, 1), Table(family.range)
        self._frontend_index = Table(INDEX)
        self._claims = _Claims()
        self._held: dict[Name, _Held] = {}  # of Services that have any
        self._sources = _Sources(family)
        self._tables = (  # in the order of ``layout.Fib``
            self._parts.frontends,
            self._frontend_index,
            self._parts.pools,
            self._backends,
            self._parts.members,
            self._parts.weights,
            self._rings.table,
            self._source_table,
            self._parts.ranges,
            self._parts.ring_of,
        )
        self._frontend_index.replace(empty_fib().frontend_index)
        for table in self._tables:
            table.taken()  # the empty Fib is what the first patch is for

    def compile(self, snapshot: Snapshot, index: EndpointIndex, change: Change, since: int = 0) -> Patch:
        """What makes the Fib that was compiled last, of generation ``since``, the Snapshot's; see ``follow``."""
        self.follow(snapshot, index, change)
        runs = {name: runs for name, table in zip(TABLES, self._tables, strict=True) if (runs := table.taken())}
        return Patch(since, snapshot.generation, tuple(len(table.rows) for table in self._tables), runs)

    def follow(self, snapshot: Snapshot, index: EndpointIndex, change: Change) -> None:
        """Goes on to this Snapshot; what that changes is in the next patch.

        The index has followed the Snapshot, and ``change`` is what came of it.
        """
        if change.services or change.endpoints or change.freed:
            self._follow_endpoints(snapshot, index, change)
        if self._sources.follow(snapshot, index.nodes, anew=change.nodes):
            self._source_table.replace(self._sources.table)

    def _follow_endpoints(self, snapshot: Snapshot, index: EndpointIndex, change: Change) -> None:
        backends = _Edited(self._backends)
        stale = dict(change.endpoints)
        _place(backends, index, change, self._family)
        if change.services:
            stale |= dict.fromkeys(self._remake(snapshot, index, change.services))
        self._fill(backends, index, stale)
        backends.note()

    def whole(self, generation: int) -> Fib:
        """The Fib that was compiled last."""
        return Fib(generation, *(freeze(lined_up(table.rows)) for table in self._tables))

    @property
    def nbytes(self) -> int:
        """What the Fib takes."""
        return sum(table.rows.nbytes for table in self._tables)

    def _remake(self, snapshot: Snapshot, index: EndpointIndex, names: Iterable[Name]) -> set[EndpointKey]:
        """Puts new parts in place of those of these Services; the endpoints that are used otherwise than before."""
        services = snapshot.rows("Service")
        stale: set[EndpointKey] = set()
        reached_otherwise = False
        for name in sorted(names):
            before = self._held.pop(name, _NOTHING)
            part, rings, weights = self._part(obj, index) if (obj := services.get(name)) else (Part(), (), {})
            addresses, indexed = self._addresses(before.placed), self._indexed(before.placed)
            held = _Held(self._parts.put(part, before.placed), rings, weights)
            reached_otherwise |= self._claims.replace(name, addresses, self._addresses(held.placed))
            reached_otherwise |= indexed != self._indexed(held.placed)
            if held != _NOTHING:
                self._held[name] = held
            for first in before.rings:  # now, since most are held again
                self._rings.release(first)
            stale.update(_weighed_otherwise(before.weights, weights))
        if reached_otherwise:
            self._frontend_index.replace(frontends.build_index(self._parts.frontends.rows, self._claims.shadowed))
        return stale

    def _addresses(self, placed: Placed) -> dict[int, Address]:
        """Where a Service is reached, by the rows of its frontends."""
        first, room = placed.frontends
        rows = self._parts.frontends.rows[first : first + room][["ip", "port", "proto"]].tolist()
        return {row: address for row, address in enumerate(rows, start=first) if address[2]}

    def _indexed(self, placed: Placed) -> list[tuple[Any, ...]]:
        """What the index has, or follows it from, of a Service's frontends."""
        first, room = placed.frontends
        return self._parts.frontends.rows[first : first + room][[*frontends.INDEXED]].tolist()

    def _part(self, obj: Object, index: EndpointIndex) -> tuple[Part, tuple[int, ...], dict[EndpointKey, int]]:
        """The tables of one Service, its rings, and the weights of the endpoints that its pools have."""
        service = Service.of(obj)
        endpoints = index.of_service((service.namespace, service.name))
        reached = list(frontends_of_service(0, service, endpoints, index.nodes, self._family))
        pools, algorithm = Pools(self._backends.rows, rings=self._rings), algorithm_of(service, self._algorithm)
        slow_start_s = slow_start_of(service, algorithm)
        known: dict[int, int] = {}  # the pools of a port's choices, which several of its frontends have

        def pool(owner: str, choices: Choices) -> int:
            if id(choices) not in known:
                each = (_pool(index, algorithm, *choice) for choice in choices)
                known[id(choices)] = pools.add(owner, *each, slow_start_s=slow_start_s)
            return known[id(choices)]

        rows: list[tuple[Any, ...]] = []
        ranges: list[tuple[Any, ...]] = []
        for each in reached:
            inside, outside = (pool(each.service_port.name, choices) for choices in (each.inside, each.outside))
            affinity = (_affinity_number(each), service.affinity_s) if service.affinity_s else (0, 0)
            by_node = (INSIDE if len(each.inside) > 1 else 0) | (OUTSIDE if len(each.outside) > 1 else 0)
            ip = self._family.cell(self._family.number(each.ip))
            where = ip, each.port, PROTOCOLS[each.service_port.protocol], by_node
            served = any(weight for few, _ in (*each.inside, *each.outside) for weight in map(_weight_of, few))
            rows.append((*where, inside, outside, served, *affinity, len(ranges), len(each.source_ranges), each.node))
            ranges += _rows(self._family, (_range(self._family, text) for text in each.source_ranges))
        every = {id(choices): choices for each in reached for choices in (each.inside, each.outside)}
        weights = {row[:3]: row.weight for choices in every.values() for few, _ in choices for row in few if row.weight}
        return Part(rows, pools.rows, pools.members, pools.weights, ranges), tuple(pools.held), weights

    def _fill(self, backends: "_Edited", index: EndpointIndex, keys: Iterable[EndpointKey]) -> None:
        """Sets weight, node and state of these endpoints, of those that have an id; addresses are there already."""
        nodes = {node.name: node.number for node in index.nodes}
        there = [(number, key) for key in keys if (number := index.ids.get(key))]
        reached = (self._backends.rows["proto"][[number for number, _ in there]] > 0).tolist()
        there = [each for each, is_reached in zip(there, reached, strict=True) if is_reached]
        rows = [self._standing(index, key, nodes) for _, key in there]
        backends.set([number for number, _ in there], ("weight", "node", "state"), rows)

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


class _Edited:
    """A table of which some columns of some rows are set, one set after the other."""

    def __init__(self, table: Table):
        self._table = table
        self._before: dict[int, bytes] = {}

    def set(self, numbers: list[int], names: Sequence[str], values: Sequence[tuple[Any, ...]]) -> None:
        """Sets these columns of these rows."""
        self._table.lengthen(max(numbers, default=0) + 1)
        rows = self._table.rows
        new = [number for number in numbers if number not in self._before]
        self._before.update(zip(new, map(bytes, rows[new]), strict=True))
        columns = np.array(values, np.dtype([(name, rows.dtype[name]) for name in names]))
        for name in names:
            rows[name][numbers] = columns[name]

    def note(self) -> None:
        """Notes the rows that are not what they were."""
        numbers = sorted(self._before)
        for number, row in zip(numbers, map(bytes, self._table.rows[numbers]), strict=True):
            if row != self._before[number]:
                self._table.note(number, number + 1)


def _place(backends: _Edited, index: EndpointIndex, change: Change, family: Family) -> None:
    """Sets the addresses of endpoints by their ids as they are now: what rings follow from.

    A row without an address is that of an endpoint which is in no slice, or which we can't reach.
    """
    backends.set(change.freed, family.backend.names or (), [np.zeros((), family.backend).item()] * len(change.freed))
    there = [(number, key) for key in change.endpoints if (number := index.ids.get(key))]
    rows = [(*_address_of(key, index, family), 0, 0, 0) for _, key in there]
    backends.set([number for number, _ in there], ("ip", "port", "proto", "weight", "node", "state"), rows)


def _address_of(key: EndpointKey, index: EndpointIndex, family: Family) -> Address:
    text, port, protocol = key
    ip = family.number(text) if protocol in PROTOCOLS and index.is_there(key) else 0
    return (family.cell(ip), port, PROTOCOLS[protocol]) if ip else (family.cell(0), 0, 0)


class _Claims:
    """Which Services want to be reached where, and which of them are not, for another is."""

    def __init__(self) -> None:
        self._claims: dict[Address, list[tuple[Name, int]]] = {}  # with the row of the frontend
        self.shadowed: set[int] = set()  # rows that are not found

    def replace(self, name: Name, before: Mapping[int, Address], now: Mapping[int, Address]) -> bool:
        """Has a Service claim addresses, by row, instead of those before; whether that makes any difference."""
        if before == now:
            return False
        for row, address in before.items():
            self._claims[address].remove((name, row))
            self.shadowed.discard(row)
        for row, address in now.items():
            self._claims.setdefault(address, []).append((name, row))
        for address in {*before.values(), *now.values()}:
            if claims := sorted(self._claims[address]):
                self.shadowed.discard(claims[0][1])
                self.shadowed.update(row for _, row in claims[1:])
            else:
                del self._claims[address]
        return True


def _pool(
    index: EndpointIndex, algorithm: int, endpoints: Sequence[Endpoint], otherwise: int
) -> tuple[int, list[int], list[int], int]:
    return algorithm, [index.ids[row[:3]] for row in endpoints], [row.weight for row in endpoints], otherwise


def equal(one: Fib, other: Fib) -> bool:
    """Whether two Fibs steer alike, whatever their generation and the rows in which they have it."""
    rings = zip(_pools(one), _pools(other), strict=True)
    return dump(one) == dump(other) and all(
        np.array_equal(_ring(one, left), _ring(other, right)) for (_, left), (_, right) in rings
    )


def dump(fib: Fib) -> str:
    """The Fib as text for people and expectations: equal text for Fibs that steer alike, but for the order in rings."""
    lines: list[str] = []
    for row in _reached(fib):
        lines.append(f"{_address(row)}{_traits(fib, row)}")
        for whom, pool in _pools_of(fib, row):
            lines += _pool_lines(fib, pool, whom)
    for number in np.flatnonzero(fib.backends["state"]):
        row = fib.backends[number]
        state = BACKEND_STATES[row["state"]].lower()
        lines.append(f"backend {number} {_address(row)} {state} weight {row['weight']} node {row['node']}")
    lines += [f"node {row['node']} {_text(row['first'])}-{_text(row['last'])}" for row in fib.sources]
    return "".join(f"{line}\n" for line in lines)


def highest_node(frontends: np.ndarray, sources: np.ndarray) -> int:
    """N of the last node there is, 0 for none."""
    return int(max(frontends["node"].max(initial=0), sources["node"].max(initial=0)))


def _reached(fib: Fib) -> np.ndarray:
    """The frontends that are found, by address."""
    rows = fib.frontends[fib.frontend_index["row"][fib.frontend_index["row"] > 0]]
    addresses = rows[["ip", "port", "proto"]].tolist()
    return rows[sorted(range(len(rows)), key=addresses.__getitem__)]


def _pools(fib: Fib) -> Iterator[tuple[str, int]]:
    return chain.from_iterable(_pools_of(fib, row) for row in _reached(fib))


def _pools_of(fib: Fib, row: np.void) -> Iterator[tuple[str, int]]:
    """The pools of a frontend: for whom, and the row."""
    sides = {"inside": INSIDE, "outside": OUTSIDE} if row["inside"] != row["outside"] else {"anyone": INSIDE}
    for side, flag in sides.items():
        first = int(row["outside" if side == "outside" else "inside"])
        last = first + (highest_node(fib.frontends, fib.sources) if row["by_node"] & flag else 0)
        for pool in range(first, last + 1):
            yield side + (f" at node {pool - first}" if first < last else ""), pool


def _ring(fib: Fib, number: int) -> np.ndarray:
    pool = fib.pools[number]
    return fib.rings[int(pool["first_slot"]) :][: int(pool["slots"])]


def _traits(fib: Fib, row: np.void) -> str:
    first, count = int(row["first_range"]), int(row["ranges"])
    spans = ",".join(f"{_text(span['first'])}-{_text(span['last'])}" for span in fib.ranges[first:][:count])
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
    owned = np.bincount(_ring(fib, number), minlength=len(fib.backends))
    for member, weight in zip(fib.members[first:][:count], fib.weights[first:][:count], strict=True):
        share = (f" weight {weight}" if weight != 1 else "") + (f" {owned[member]}/{slots} slots" if slots else "")
        yield f"    -> {member} {_address(fib.backends[member])}{share}"


class _Sources:
    """RANGE[...]: the addresses of nodes, of their ranges for pods, and of pods beyond those; sorted and apart."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._pods: Followed[Name, Object] = Followed()
        self._spans: list[Span] = []  # of nodes and their ranges
        self._beyond: dict[Name, tuple[int, int]] = {}  # address and node of pods that are in none of them
        self.table = freeze(np.zeros(0, family.range))

    def follow(self, snapshot: Snapshot, nodes: Sequence[Node], *, anew: bool) -> bool:
        """Goes on to this Snapshot; whether the table is another. ``anew``: so are its nodes."""
        news = [(name, pod) for name, _, pod in self._pods.news(snapshot.rows("Pod"))]
        if anew:
            self._spans, self._beyond = _of_nodes(nodes, self._family), {}
            news = list(snapshot.rows("Pod").items())
        if not self._set_beyond(news, {node.name: node.number for node in nodes}) and not anew:
            return False
        spans = list(self._spans)
        for _, (ip, node) in sorted(self._beyond.items()):
            _add(spans, ip, ip, node)
        self.table = freeze(np.array(_rows(self._family, spans), self._family.range))
        return True

    def _set_beyond(self, pods: Iterable[tuple[Name, Object | None]], nodes: Mapping[str, int]) -> bool:
        """Notes where these pods are; whether that changes anything."""
        changed = False
        for name, pod in pods:
            ip = self._family.number(((pod or {}).get("status") or {}).get("podIP") or "")
            node = nodes.get(pod["spec"].get("nodeName") or "", 0) if pod else 0
            before = self._beyond.pop(name, None)
            if ip and node and not _is_within(self._spans, ip):
                self._beyond[name] = ip, node
            changed |= before != self._beyond.get(name)
        return changed


Span = tuple[int, int, int, int]  # a row of RANGE, whose addresses are integers of whatever family


def _rows(family: Family, spans: Iterable[Span]) -> list[tuple[Any, ...]]:
    return [(family.cell(first), family.cell(last), *rest) for first, last, *rest in spans]


def _of_nodes(nodes: Sequence[Node], family: Family) -> list[Span]:
    spans: list[Span] = []
    for node in nodes:
        for text in node.pod_ranges:
            first, last, *_ = _range(family, text)
            _add(spans, first, last, node.number)
    for node in nodes:
        for ip in map(family.number, node.addresses):
            _add(spans, ip, ip, node.number)
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


def _range(family: Family, text: str) -> Span:
    """A CIDR; one that holds no address for what is none of the family."""
    try:
        span = family.network(text.strip(), strict=False)
    except ValueError:
        return 1, 0, 0, 0
    return int(span.network_address), int(span.broadcast_address), 0, 0


def _address(row: np.void) -> str:
    wide = row["ip"].dtype.names is not None
    ip = f"[{_text(row['ip'])}]" if wide else _text(row["ip"])
    return f"{ip}:{row['port']}/{_PROTOCOL_NAMES.get(int(row['proto']), row['proto'])}"


def _text(ip: Any) -> str:
    """An address as some table has it."""
    return (IPV4 if ip.dtype.names is None else IPV6).text(ip)
