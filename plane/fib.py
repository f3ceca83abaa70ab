"""The Fib of a Snapshot: what is wanted, in names, compiled to what is looked up, in integers. Pure.

Law: equal Snapshots give equal bytes. A frontend is one TCP or UDP port of a Service that has a ClusterIP; its members
are the endpoints that a new flow may go to, by kube-proxy's rule (``model.eligible``). Frontends that hash over equal
members share one ring, and there is no ring where nothing hashes. Every endpoint in any slice is a backend, because
flows may still be going there; one that is no member of any Service drains.
"""

import functools
import socket
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from kernels.layout import (
    ALGORITHMS,
    BACKEND,
    BACKEND_STATES,
    DRAINING,
    FRONTEND,
    MAGLEV,
    RANDOM,
    READY,
    TCP,
    UDP,
    Fib,
    freeze,
)
from kernels.lb import frontends, hashing, maglev
from plane.addresses import int_to_ip
from plane.model import Endpoint, Service, ServicePort, Snapshot, eligible, service_endpoints, slices_by_service

ALGORITHM_ANNOTATION = "trafficplane.dev/lb-algorithm"
PROTOCOLS = {"TCP": TCP, "UDP": UDP}
_PROTOCOL_NAMES = {number: name for name, number in PROTOCOLS.items()}


def compile(snapshot: Snapshot) -> Fib:
    """All tables of ``layout.Fib``, read-only."""
    choices = list(_choices(snapshot))
    backends = _backends(snapshot, choices)
    rings = _Rings(backends)
    members: list[int] = []
    rows: list[tuple[int, ...]] = [tuple(np.zeros((), FRONTEND).item())]
    for number, service, port, endpoints in choices:
        ip, proto = _ipv4(service.cluster_ip), PROTOCOLS.get(port.protocol)
        if not ip or proto is None:
            continue
        ids = [snapshot.backends[endpoint.key] for endpoint in endpoints]
        algorithm, weights = _algorithm(service), [endpoint.weight for endpoint in endpoints]
        first_slot, slots = rings.of(ids, weights) if algorithm == MAGLEV else (0, 0)
        rows.append((ip, port.port, proto, algorithm, len(members), len(ids), first_slot, slots, number))
        members += ids
    table = np.array(rows, FRONTEND)
    return Fib(
        generation=snapshot.generation,
        frontends=freeze(table),
        frontend_index=frontends.build_index(table),
        backends=backends,
        members=freeze(np.array(members, np.uint32)),
        rings=rings.table(),
    )


def service_names(snapshot: Snapshot) -> tuple[str, ...]:
    """``namespace/name`` of the Services of a Snapshot by the rows that ``FRONTEND.service`` means; row 0 is none."""
    return ("", *(Service.of(obj).full_name for obj in snapshot.all("Service")))


def equal(one: Fib, other: Fib) -> bool:
    """Whether two Fibs steer alike: the same but for their generation."""
    return all(np.array_equal(left, right) for left, right in zip(one[1:], other[1:], strict=True))


def dump(fib: Fib) -> str:
    """The Fib as text for people and expectations: equal text for Fibs that steer alike, whatever their generation."""
    lines = []
    order = np.argsort(fib.frontends[1:], order=("ip", "port", "proto")) + 1
    for row in fib.frontends[order]:
        lines.append(f"{_address(row)} {ALGORITHMS[row['algorithm']]} service {row['service']}")
        first, slots = int(row["first_slot"]), int(row["slots"])
        owned = np.bincount(fib.rings[first : first + slots], minlength=len(fib.backends))
        for number in fib.members[int(row["first_member"]) :][: int(row["members"])]:
            share = f" {owned[number]}/{slots} slots" if slots else ""
            lines.append(f"  -> {number} {_address(fib.backends[number])}{share}")
    for number in np.flatnonzero(fib.backends["state"]):
        row = fib.backends[number]
        state = BACKEND_STATES[row["state"]].lower()
        lines.append(f"backend {number} {_address(row)} {state} weight {row['weight']} node {row['node']}")
    return "".join(f"{line}\n" for line in lines)


def _choices(snapshot: Snapshot) -> Iterator[tuple[int, Service, ServicePort, list[Endpoint]]]:
    """Each port of each Service, with the Service's row and the endpoints that a new flow may go to."""
    slices = slices_by_service(snapshot)
    for number, obj in enumerate(snapshot.all("Service"), start=1):
        service = Service.of(obj)
        endpoints = service_endpoints(service, slices.get((service.namespace, service.name), ()))
        for port in service.ports:
            fitting = [row for row in endpoints[port.name] if row.protocol == port.protocol and _ipv4(row.ip)]
            # As in IPVS, weight 0 takes no new flow and keeps those it has.
            yield number, service, port, [row for row in eligible(fitting) if row.weight > 0]


def _backends(
    snapshot: Snapshot, choices: Iterable[tuple[int, Service, ServicePort, Sequence[Endpoint]]]
) -> np.ndarray:
    """BACKEND[B+1]: every endpoint that has an id; READY where a Service uses it, else DRAINING."""
    table = np.zeros(max(snapshot.backends.values(), default=0) + 1, BACKEND)
    nodes = _node_numbers(snapshot)
    used = {row.key: row for *_, endpoints in choices for row in endpoints}
    for key, number in snapshot.backends.items():
        ip, port, protocol = key
        if not _ipv4(ip) or protocol not in PROTOCOLS:
            continue
        row = used.get(key)
        weight, state = (row.weight, READY) if row else (0, DRAINING)
        table[number] = (_ipv4(ip), port, weight, nodes.get(ip, 0), PROTOCOLS[protocol], state)
    return freeze(table)


def _node_numbers(snapshot: Snapshot) -> dict[str, int]:
    """Pod address → N of its node's address."""
    numbers = {}
    for obj in snapshot.all("Pod"):
        status = obj.get("status") or {}
        if status.get("podIP") and status.get("hostIP"):
            numbers[status["podIP"]] = int(status["hostIP"].rpartition(".")[2])
    return numbers


def _algorithm(service: Service) -> int:
    name = service.annotations.get(ALGORITHM_ANNOTATION)
    return ALGORITHMS.index(name) if name in ALGORITHMS else RANDOM


class _Rings:
    """The rings of a Fib while it is compiled, one for each distinct set of members and weights."""

    def __init__(self, backends: np.ndarray):
        self._seeds = np.zeros(len(backends), np.uint64)
        hashing.endpoint_seeds(backends, self._seeds)
        self._places: dict[tuple[tuple[int, int], ...], tuple[int, int]] = {}
        self._parts: list[np.ndarray] = []
        self._size = 0

    def of(self, ids: Sequence[int], weights: Sequence[int]) -> tuple[int, int]:
        """(first slot, slots) of the ring over these backends; no slots where there are no backends."""
        if not ids:
            return 0, 0
        members = tuple(sorted(zip(ids, weights, strict=True)))
        if members not in self._places:
            numbers = np.array(ids, np.uint32)
            ring = maglev.build(self._seeds[numbers], np.array(weights, np.uint16), maglev.table_size(len(ids)))
            self._parts.append(numbers[ring])
            self._places[members] = self._size, len(ring)
            self._size += len(ring)
        return self._places[members]

    def table(self) -> np.ndarray:
        return freeze(np.concatenate([np.zeros(0, np.uint32), *self._parts]))


@functools.lru_cache(maxsize=1 << 17)
def _ipv4(text: str) -> int:
    """The address in host order; 0 for what is no IPv4 address, which nothing here is reached by."""
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET, text))
    except OSError:
        return 0


def _address(row: np.void) -> str:
    return f"{int_to_ip(row['ip'])}:{row['port']}/{_PROTOCOL_NAMES.get(int(row['proto']), row['proto'])}"
