"""Which way each request went, and when it was where: the client's rows joined with what the plane recorded.

Law: a join is by identity, never by nearness. A request through the Ingress is found by its 64-bit id. A connection
through a relay is found by its 4-tuple; where a client port was used more than once, by the first time it was accepted
after the client began to connect. So is a flow of datagrams, which begins anew where its backend is gone: a message
went where the last flow of its port led that began before the answer was there. A pod is found by its address and
the generation that the request was sent under, for an address that is free is given out again. What a pod says of a
request is found by its id, too, and counts where that pod is the one that was chosen, or where nobody of the plane has
chosen: then it also says which pod it was. A request that the plane has no record of stays without a route.

All addresses are ``uint32`` in host order, all times int64 ns of the machine's monotonic clock.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness import workload
from harness.connections import Opened
from harness.recorder import NEVER, Recorded
from harness.records import SEEN, Names, Route
from plane.addresses import ip_to_int

# Columns of equal length by name, and lists of the names that some of them index.
Columns = Mapping[str, Any]
# Pod address → who had it, one after the other: (generation from which on, namespace/name, node).
Pods = Mapping[str, Sequence[tuple[int, str, str]]]

# A relay reads the clock once for a batch of connections, some of which may have begun meanwhile: it may stamp a
# connection so much earlier than it began, a thread's wait for the processor included. The kernel gives a client port
# out again only when it has been through the others, which takes far longer.
STAMP_EARLY_NS = 200_000_000
LAST_GENERATION = (1 << 32) - 1
LAST_NS = np.iinfo(np.int64).max
# Columns of ``records.SEEN`` and where they come from in the records of an ingress.
OF_INGRESS = {
    "path": "path",
    "retries": "retries",
    "upstream_reused": "reused",
    "ingress_received_ns": "received_ns",
    "ingress_routed_ns": "routed_ns",
    "ingress_picked_ns": "picked_ns",
    "upstream_connected_ns": "connected_ns",
    "upstream_first_byte_ns": "first_byte_ns",
    "ingress_done_ns": "done_ns",
}


def join(
    recorded: Recorded,
    *,
    id_key: int,
    frontend: tuple[int, int],
    service: str,
    ingress: Sequence[Columns],
    connections: Sequence[Columns],
    pods: Pods,
    served: Sequence[Columns] = (),
    datagrams: bool = False,
) -> Route:
    """The route of every request of a load.

    frontend     (address, port) that the load's connections were made to, the port as manifests name it
    service      namespace/name of the Service whose frontend that is, empty where it is none
    ingress      of each ingress: request_id uint64, route int32 (index of the list ``routes``), service int32 (of
                 the list ``services``, each ``namespace/name:port``), pod_ip uint32 (0 none), generation int64,
                 those of OF_INGRESS; negative indices and times are none
    connections  of each relay: columns by the fields of ``kernels.layout.RECORD``, of the load's protocol
    served       of each node: what its pods served, ``plane.pods.served.columns``
    datagrams    what the connections carry; their records are of flows
    """
    rows = len(recorded.requests["intended_ns"])
    found = _Found(rows)
    if datagrams:
        _by_flow(found, recorded, frontend, service, connections)
    else:
        _by_connection(found, recorded, frontend, service, connections)
    ids = workload.request_ids(id_key, rows)
    for columns in ingress:
        _by_request_id(found, ids, columns)
    if not found.anything:
        # No ingress and no relay was on the way: the address is a pod's own, or nobody's here.
        found.pod_ip[recorded.requests["connection"] >= 0] = frontend[0]
    for columns in served:
        _by_pod(found, id_key, columns)
    return found.route(pods)


class _Found:
    """What is known of each row so far."""

    def __init__(self, rows: int):
        self.route_index = np.full(rows, -1, np.int32)
        self.service_index = np.full(rows, -1, np.int32)
        self.pod_ip = np.zeros(rows, np.uint32)
        self.generation = np.full(rows, -1, np.int64)
        self.teller = np.full(rows, -1, np.int32)  # which of ``tellers``, (address, name of a pod), says that it had it
        self.tellers: list[tuple[int, str]] = []
        self.seen = {name: np.full(rows, NEVER, np.int64) for name in SEEN}
        self.routes: list[str] = []
        self.services: list[str] = []

    def relayed(self, rows: np.ndarray, service: str, generation: np.ndarray, pod_ip: np.ndarray) -> None:
        """These rows went by a relay, to that Service's frontend and these pods."""
        if rows.size:
            self.services.append(service)
            self.service_index[rows] = 0 if service else -1
            self.generation[rows] = generation
            self.pod_ip[rows] = pod_ip

    @property
    def anything(self) -> bool:
        return bool((self.generation >= 0).any())

    def route(self, pods: Pods) -> Route:
        listed = _listed(pods)
        index = _owners(listed, self.pod_ip, self.generation)
        numbers = {(key >> 32, pod): number for number, (key, pod, _) in enumerate(listed)}
        # The last item is where a teller of -1 leads.
        told = np.array([*(numbers.get(teller, -1) for teller in self.tellers), -1], np.int32)[self.teller]
        index = np.where(told >= 0, told, index)
        return Route(
            route=Names(self.route_index, self.routes),
            service=Names(self.service_index, self.services),
            pod=Names(index, [pod for _, pod, _ in listed]),
            node=Names(index, [node for _, _, node in listed]),
            generation=self.generation,
            seen=self.seen,
        )


def opened(
    recorded: Recorded, *, frontend: tuple[int, int], service: str, connections: Sequence[Columns], pods: Pods
) -> Opened:
    """The connections that a load has opened; arguments as those of ``join``."""
    columns = recorded.connections
    listed = _listed(pods)
    generation, pod_ip, accepted_ns = (column[:-1] for column in _accepted(columns, frontend, connections))
    relayed = generation >= 0
    at_pods = _owners(listed, np.where(relayed, pod_ip, 0).astype(np.uint32), generation)
    names, nodes = [pod for _, pod, _ in listed], [node for _, _, node in listed]
    clients = _owners(listed, columns["client_ip"], generation)
    return Opened(
        client_pod=Names(clients, names),
        client_node=Names(clients, nodes),
        accepted_ns=accepted_ns,
        service=Names(np.where(relayed & bool(service), 0, -1).astype(np.int32), [service] if service else []),
        pod=Names(at_pods, names),
        node=Names(at_pods, nodes),
        generation=generation,
    )


def _listed(pods: Pods) -> list[tuple[int, str, str]]:
    """(address and generation from which on, namespace/name, node) of all pods, in order of the first."""
    return sorted((ip_to_int(ip) << 32 | since, pod, node) for ip, seen in pods.items() for since, pod, node in seen)


def _owners(listed: Sequence[tuple[int, str, str]], ip: np.ndarray, generation: np.ndarray) -> np.ndarray:
    """int32[n]: who of ``_listed`` had each address (uint32[n]) in a generation, -1 where nobody had.

    Where nobody recorded a generation (negative) it is who has the address in the end: the client asked the pod itself.
    """
    known = np.array([key for key, _, _ in listed], np.uint64)
    since = np.where(generation >= 0, generation, LAST_GENERATION).astype(np.uint64)
    address = ip.astype(np.uint64) << np.uint64(32)
    place = np.searchsorted(known, address | since, side="right").astype(np.int32) - 1
    here = place >= 0
    here[here] = known[place[here]] >= address[here]
    return np.where(here, place, np.int32(-1))


def _by_request_id(found: _Found, ids: np.ndarray, columns: Columns) -> None:
    """Fills the rows that an ingress recorded; of several records of one id the last counts: the attempt answered."""
    recorded = np.asarray(columns["request_id"], np.uint64)
    if not recorded.size:
        return
    order = np.argsort(recorded, kind="stable")
    last = np.searchsorted(recorded[order], ids, side="right") - 1
    record = order[last]
    rows = np.flatnonzero((last >= 0) & (recorded[record] == ids))
    record = record[rows]
    for name, source in OF_INGRESS.items():
        found.seen[name][rows] = columns[source][record]
    for index, number, texts in (
        (found.route_index, columns["route"][record], found.routes),
        (found.service_index, columns["service"][record], found.services),
    ):
        index[rows] = np.where(number >= 0, number + len(texts), -1)
    found.routes += columns["routes"]
    found.services += (name.partition(":")[0] for name in columns["services"])
    found.pod_ip[rows] = columns["pod_ip"][record]
    found.generation[rows] = columns["generation"][record]


def _by_pod(found: _Found, id_key: int, columns: Columns) -> None:
    """Fills in what the pods of a node say of their requests; of one that was with pods more than once, the last."""
    row = np.asarray(columns["request_id"], np.uint64) ^ np.uint64(id_key)
    record = np.flatnonzero(row < len(found.pod_ip))
    record = record[np.argsort(columns["received_ns"][record], kind="stable")]
    row, container = row[record].astype(np.int64), columns["container"][record]
    chosen = (found.generation[row] < 0) | (columns["ips"][container] == found.pod_ip[row])
    counts = chosen & (columns["received_ns"][record] > found.seen["pod_received_ns"][row])
    record, row, container = record[counts], row[counts], container[counts]
    received_ns = columns["received_ns"][record]
    found.seen["pod_received_ns"][row] = received_ns
    found.seen["service_ns"][row] = columns["done_ns"][record] - received_ns
    found.teller[row] = container + len(found.tellers)
    found.tellers += zip(columns["ips"].tolist(), columns["pods"], strict=True)


def _by_connection(
    found: _Found, recorded: Recorded, frontend: tuple[int, int], service: str, relays: Sequence[Columns]
) -> None:
    """Fills the rows whose connection a relay recorded."""
    accepted = _accepted(recorded.connections, frontend, relays)
    connection = recorded.requests["connection"]
    generation, pod_ip, _ = (column[connection] for column in accepted)
    rows = np.flatnonzero((connection >= 0) & (generation >= 0))
    found.relayed(rows, service, generation[rows], pod_ip[rows])


def _by_flow(
    found: _Found, recorded: Recorded, frontend: tuple[int, int], service: str, relays: Sequence[Columns]
) -> None:
    """Fills the rows whose flow of datagrams a relay recorded.

    A port has one message under way, and none after one that was not answered until another of the load's sockets has
    it: the flow of it that began last by then, for this message or one before, is the one that carried it.
    """
    theirs, sockets = _theirs(relays, frontend), recorded.connections
    rows = np.flatnonzero(recorded.requests["connection"] >= 0)
    if theirs is None or not rows.size:
        return
    key = _key(sockets["client_ip"], sockets["client_port"])
    begins_ns = sockets["began_ns"] - STAMP_EARLY_NS
    order = np.lexsort((begins_ns, key))
    ends_ns = np.full(len(key), LAST_NS)
    again = np.flatnonzero(key[order[1:]] == key[order[:-1]])
    ends_ns[order[again]] = begins_ns[order[again + 1]]
    socket, done_ns = recorded.requests["connection"][rows], recorded.requests["done_ns"][rows]
    until_ns = np.minimum(np.where(done_ns == NEVER, LAST_NS, done_ns), ends_ns[socket])
    flows = len(theirs["opened_ns"])
    keys = np.concatenate([_key(theirs["client_ip"], theirs["client_port"]), key[socket]])
    order = np.lexsort((np.concatenate([theirs["opened_ns"], until_ns]), keys))  # of equal ones the flows come first
    last = np.maximum.accumulate(np.where(order < flows, np.arange(len(order)), -1))
    asked = np.flatnonzero((order >= flows) & (last >= 0))
    flow, row = order[last[asked]], order[asked] - flows
    own = keys[flow] == keys[row + flows]
    found.relayed(rows[row[own]], service, theirs["generation"][flow[own]], theirs["backend_ip"][flow[own]])


def of_protocol(columns: Columns, proto: int) -> Columns:
    """What a relay recorded of one protocol, a code of ``kernels.layout``."""
    return {name: column[columns["proto"] == proto] for name, column in columns.items()}


def _theirs(relays: Sequence[Columns], frontend: tuple[int, int]) -> Columns | None:
    """What relays recorded of a frontend, together; None: there is no relay."""
    there = [
        {name: column[here] for name, column in columns.items()}
        for columns in relays
        for here in [(columns["frontend_ip"] == frontend[0]) & (columns["frontend_port"] == frontend[1])]
    ]
    return {name: np.concatenate([columns[name] for columns in there]) for name in there[0]} if there else None


def _key(ip: np.ndarray, port: np.ndarray) -> np.ndarray:
    return ip.astype(np.uint64) << np.uint64(16) | port.astype(np.uint64)


def _accepted(
    opened: Mapping[str, np.ndarray], frontend: tuple[int, int], relays: Sequence[Columns]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Generation int64 (negative none), backend address uint32 and when it was accepted, int64 (NEVER), for each of a
    load's connections, and once more for none.

    The client's and the relays' rows are sorted together by 4-tuple and time; a connection's own record is then the row
    right after it, and where that is another connection of the client it was never accepted.
    """
    clients = len(opened["began_ns"])
    generation = np.full(clients + 1, -1, np.int64)  # the last item is where a connection of NEVER leads
    pod_ip = np.zeros(clients + 1, np.uint32)
    accepted_ns = np.full(clients + 1, NEVER, np.int64)
    theirs = _theirs(relays, frontend)
    if theirs is None or not clients:
        return generation, pod_ip, accepted_ns
    key = np.concatenate([_key(each["client_ip"], each["client_port"]) for each in (opened, theirs)])
    time = np.concatenate([opened["began_ns"] - STAMP_EARLY_NS, theirs["opened_ns"]])
    order = np.lexsort((time, key))
    own, after = order[:-1], order[1:]
    matched = (own < clients) & (after >= clients) & (key[own] == key[after])
    own, after = own[matched], after[matched] - clients
    generation[own] = theirs["generation"][after]
    pod_ip[own] = theirs["backend_ip"][after]
    accepted_ns[own] = theirs["opened_ns"][after]
    return generation, pod_ip, accepted_ns
