"""The sockets that a node's relay listens on: which there should be, and how they are made and handed over.

Law: a node listens at the addresses that all nodes serve and at its own, and only where some client would be given an
endpoint: elsewhere the machine itself refuses at once, with a reset or ICMP's port unreachable, as kube-proxy has it.
What cannot be bound is said and the others are served; an address of another machine is left to that. Where many of
the addresses have one port, one shared listener takes its place for all of them (``plane.sharing``).
"""

import errno
import os
import socket
from collections.abc import Collection, Container, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from kernels import layout
from kernels.layout import TCP, UDP, Relay
from kernels.net import datagrams, shared, syscalls
from kernels.net import relay as connections
from plane.addresses import AddressPlan, int_to_ip
from plane.errors import PlaneError
from plane.partition import take_side
from plane.reuseport import by_client, by_flow
from plane.sharing import SHARE_FROM, SHARE_UNTIL, claim

COLUMNS = ("ip", "port", "proto", "node", "served", "affinity")  # of FRONTEND
BACKLOG = 4096
DATAGRAMS_BYTES = 1 << 22  # that may wait in a listener; Linux gives less where net.core.rmem_max is less
REMEDIES = {
    errno.EADDRINUSE: "stop what has it, or choose another --instance",
    errno.EACCES: "choose a --port-offset, or lower net.ipv4.ip_unprivileged_port_start",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


class Frontend(NamedTuple):
    """Address, port and protocol of a Service, as in the Fib; with address 0, what a shared listener stands for."""

    ip: int
    port: int
    proto: int

    def __str__(self) -> str:
        return f"{int_to_ip(self.ip)}:{self.port}/{'UDP' if self.proto == UDP else 'TCP'}"


class Listener(NamedTuple):
    row: int  # of ``table(relay, proto)``
    sockets: tuple[socket.socket, ...]  # the one that listens, and with a shared one its claim


class Wanted(NamedTuple):
    """What a node is to listen on.

    own     frontends with a listener each, and whether they have session affinity
    shared  shared listeners, and the addresses (uint32) that each stands for
    """

    own: dict[Frontend, bool]
    shared: dict[Frontend, np.ndarray]


def wanted(
    frontends: np.ndarray, node: int, plan: AddressPlan, have: Collection[Frontend], *, share_udp: bool = True
) -> Wanted:
    """What node N is to listen on for FRONTEND[…] that listens on ``have`` now; it follows from COLUMNS of them."""
    rows = frontends[(frontends["served"] > 0) & np.isin(frontends["node"], (0, node))]
    own, chosen = np.ones(len(rows), bool), {}
    for each in _worth_sharing(rows, plan, {frontend for frontend in have if not frontend.ip}):
        if each.proto == TCP or share_udp:
            those = shared.shareable(rows) & (rows["port"] == each.port) & (rows["proto"] == each.proto)
            chosen[each] = rows["ip"][those]
            own &= ~those
    columns = (rows[name][own].tolist() for name in ("ip", "port", "proto", "affinity"))
    each_own = {Frontend(ip, port, proto): bool(affinity) for ip, port, proto, affinity in zip(*columns, strict=True)}
    return Wanted(each_own, chosen)


def _worth_sharing(rows: np.ndarray, plan: AddressPlan, have: Collection[Frontend]) -> list[Frontend]:
    """The shared listeners that these frontends make worth it; of ports that are shifted to one, only one has one."""
    those = rows[shared.shareable(rows)]
    names, counts = np.unique(those["proto"].astype(np.int64) << 16 | those["port"], return_counts=True)
    found: dict[tuple[int, int], tuple[bool, int, Frontend]] = {}
    for name, count in zip(names[counts > SHARE_UNTIL].tolist(), counts[counts > SHARE_UNTIL].tolist(), strict=True):
        each = Frontend(0, name & 0xFFFF, name >> 16)
        if count >= SHARE_FROM or each in have:
            bound, candidate = (each.proto, plan.bound_port(each.port)), (each in have, count, each)
            found[bound] = max(found.get(bound, candidate), candidate)
    return [each for _, _, each in found.values()]


class Opened(NamedTuple):
    """What there is to listen on.

    sockets    for each frontend that has none yet
    listening  all that are listened on once those are handed over, and no others
    problems   why some are not
    """

    sockets: dict[Frontend, tuple[socket.socket, ...]]
    listening: frozenset[Frontend]
    problems: tuple[str, ...]


def opened(wanted: Wanted, have: Collection[Frontend], plan: AddressPlan, nodes: int) -> Opened:
    """Sockets for what is wanted and not there; where a port cannot be shared, one for each of its addresses.

    ``nodes`` share each port.
    """
    sockets: dict[Frontend, tuple[socket.socket, ...]] = {}
    listening: set[Frontend] = set()
    problems: list[str] = []
    own, stay = dict(wanted.own), (frontend for frontend in have if frontend in wanted.own or frontend in wanted.shared)
    taken = {_bound(frontend, plan): frontend.port for frontend in stay}
    shared_at: dict[Frontend, tuple[int, frozenset[int]]] = {}
    for frontend, ips in wanted.shared.items():
        bound = _bound(frontend, plan)
        if frontend not in have and taken.setdefault(bound, frontend.port) == frontend.port:
            sockets |= _sharing(frontend, bound, plan, nodes)
        if frontend in have or frontend in sockets:
            listening.add(frontend)
            # Of one address, two ports may be bound to this one only where ports are shifted.
            shared_at[bound] = frontend.port, frozenset(ips.tolist() if plan.port_offset else ())
        else:
            own |= {frontend._replace(ip=ip): False for ip in ips.tolist()}
    for frontend, affinity in own.items():
        bound = _bound(frontend, plan)
        port, theirs = shared_at.get(bound._replace(ip=0), (0, frozenset()))
        other = port if frontend.ip in theirs else taken.setdefault(bound, frontend.port)
        if other != frontend.port:
            problems.append(
                f"cannot listen on {bound} for port {frontend.port}: port {other} of the same address is bound to it; "
                f"choose another --port-offset than {plan.port_offset}"
            )
            continue
        try:
            if frontend not in have:
                sockets[frontend] = (_listening(bound, nodes, affinity),)
            listening.add(frontend)
        except OSError as problem:
            if problem.errno != errno.EADDRNOTAVAIL:  # an external IP may be another machine's
                shifted = f" (for port {frontend.port})" if bound != frontend else ""
                remedy = REMEDIES.get(problem.errno or 0, "choose another address or port")
                problems.append(f"cannot listen on {bound}{shifted}: {problem.strerror}; {remedy}")
    return Opened(sockets, frozenset(listening), tuple(problems))


def _bound(frontend: Frontend, plan: AddressPlan) -> Frontend:
    """The same with the port that its socket is bound to."""
    port = plan.bound_port(frontend.port)
    return frontend if port == frontend.port else frontend._replace(port=port)


def _sharing(
    frontend: Frontend, bound: Frontend, plan: AddressPlan, nodes: int
) -> dict[Frontend, tuple[socket.socket, ...]]:
    """A shared listener and its claim; nothing where the port cannot be shared.

    Why not is not said: nothing is lost, and what also keeps frontends from listening by themselves is said of them.
    """
    try:
        claimed = claim(plan, bound.port, bound.proto)
    except OSError:
        return {}
    try:
        return {frontend: (_listening(bound, nodes, affinity=False), claimed)}
    except OSError:
        claimed.close()
        return {}


def _listening(bound: Frontend, nodes: int, affinity: bool) -> socket.socket:
    """A socket that listens. Raises OSError, and then holds nothing."""
    kind = socket.SOCK_STREAM if bound.proto == TCP else socket.SOCK_DGRAM
    listener = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if not bound.ip:
            _mark_as_shared(listener)
        if bound.proto == TCP:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAMS_BYTES)
        listener.bind((int_to_ip(bound.ip), bound.port))
        take_side(listener)
        if bound.proto == TCP:
            listener.listen(BACKLOG)
        if affinity:
            by_client(listener, nodes)
        elif bound.proto == UDP:
            by_flow(listener, nodes)
    except OSError:
        listener.close()
        raise
    return listener


def _mark_as_shared(listener: socket.socket) -> None:
    """Has a socket that will be bound to 0.0.0.0 take what is for this machine only, and say what it is."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    if listener.type == socket.SOCK_STREAM:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, layout.SHARED_SEGMENT_BYTES)
    else:
        listener.setsockopt(socket.IPPROTO_IP, syscalls.IP_PKTINFO, 1)


# The relay has a table of listeners for each protocol; what follows is the same for both. Between breaths only.


def table(relay: Relay, proto: int) -> np.ndarray:
    """LISTENER[…] of the protocol."""
    return relay.datagrams.listeners if proto == UDP else relay.listeners


def with_room(relay: Relay, rows: int) -> Relay:
    """The same relay with room for at least so many listeners of each protocol."""
    return datagrams.with_listeners(connections.with_listeners(relay, rows), rows)


def hand_over(relay: Relay, sockets: Mapping[Frontend, tuple[socket.socket, ...]]) -> dict[Frontend, Listener]:
    """Has the relay listen on these. Raises PlaneError, and then it listens on none of them."""
    added = {}
    free = {proto: iter(np.flatnonzero(table(relay, proto)["fd"][1:] < 0) + 1) for proto in (TCP, UDP)}
    for frontend, several in sockets.items():
        row = int(next(free[frontend.proto]))
        serial = int(table(relay, frontend.proto)[row]["serial"])
        watch = datagrams.watch if frontend.proto == UDP else connections.watch
        if (problem := watch(relay, several[0].fileno(), row, serial)) < 0:
            raise PlaneError(f"cannot watch {frontend}: {os.strerror(-problem)}; raise fs.epoll.max_user_watches")
        added[frontend] = Listener(row, several)
    for frontend, (row, several) in added.items():
        entry = table(relay, frontend.proto)[row]
        entry["ip"], entry["port"], entry["fd"] = frontend.ip, frontend.port, several[0].fileno()
    return added


def heir(frontend: Frontend, listening: Container[Frontend]) -> Frontend | None:
    """Who listens for a frontend, of these: it itself, or the one that is shared by its port."""
    for each in (frontend, frontend._replace(ip=0)):
        if each in listening:
            return each
    return None


def attend(relay: Relay, frontend: Frontend, row: int) -> None:
    """Has the listener's queue looked into."""
    if frontend.proto == UDP:
        datagrams.attend(relay.datagrams, row)
    else:
        connections.attend(relay, row)


def are_waiting(relay: Relay, listeners: Iterable[tuple[Frontend, Listener]]) -> bool:
    """Whether the queue of one of these may hold something still."""
    rows: dict[int, list[int]] = {TCP: [], UDP: []}
    for frontend, listener in listeners:
        rows[frontend.proto].append(listener.row)
    return any(table(relay, proto)["queued"][each].any() for proto, each in rows.items())


def take_back(relay: Relay, frontend: Frontend, listener: Listener) -> None:
    """Has the relay listen on it no more, and closes it."""
    entry = table(relay, frontend.proto)[listener.row]
    entry["fd"] = -1
    entry["serial"] += 1
    close_all([listener.sockets])


def close_all(sockets: Iterable[tuple[socket.socket, ...]]) -> None:
    for several in sockets:
        for each in several:
            each.close()
