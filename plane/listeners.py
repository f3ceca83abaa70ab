"""The sockets that a node's relay listens on: which there should be, and how they are made and handed over.

Law: a node listens at the addresses that all nodes serve and at its own, and only where some client would be given an
endpoint: elsewhere the machine itself refuses at once, with a reset or ICMP's port unreachable, as kube-proxy has it.
What cannot be bound is said and the others are served; an address of another machine is left to that.
"""

import errno
import os
import socket
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from kernels import layout
from kernels.layout import TCP, UDP, Fib, Relay
from kernels.net import datagrams
from kernels.net import relay as connections
from plane.addresses import AddressPlan, int_to_ip
from plane.errors import PlaneError
from plane.fib import highest_node
from plane.reuseport import by_client, by_flow

BACKLOG = 4096
DATAGRAMS_BYTES = 1 << 22  # that may wait in a listener; Linux gives less where net.core.rmem_max is less
REMEDIES = {
    errno.EADDRINUSE: "stop what has it, or choose another --instance",
    errno.EACCES: "choose a --port-offset, or lower net.ipv4.ip_unprivileged_port_start",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
}


class Frontend(NamedTuple):
    """Address, port and protocol of a Service, as in the Fib."""

    ip: int
    port: int
    proto: int

    def __str__(self) -> str:
        return f"{int_to_ip(self.ip)}:{self.port}/{'UDP' if self.proto == UDP else 'TCP'}"


class Listener(NamedTuple):
    row: int  # of ``table(relay, proto)``
    socket: socket.socket


def wanted(fib: Fib, node: int) -> dict[Frontend, bool]:
    """The frontends that node N is to listen on, and whether each has session affinity."""
    rows, nodes = fib.frontends, highest_node(fib)
    before = np.concatenate([[0], np.cumsum(fib.pools["members"])])  # members of the pools before each
    some = np.zeros(len(rows), bool)
    for side, flag in (("inside", layout.INSIDE), ("outside", layout.OUTSIDE)):
        first = rows[side].astype(np.int64)
        last = np.minimum(first + np.where(rows["by_node"] & flag, nodes, 0), len(fib.pools) - 1)
        some |= before[last + 1] > before[first]
    mine = some & np.isin(rows["node"], (0, node))
    columns = (rows[name][mine].tolist() for name in ("ip", "port", "proto", "affinity"))
    return {Frontend(ip, port, proto): bool(affinity) for ip, port, proto, affinity in zip(*columns, strict=True)}


def opened(
    wanted: Mapping[Frontend, bool], have: Collection[Frontend], plan: AddressPlan, nodes: int
) -> tuple[dict[Frontend, socket.socket], tuple[str, ...]]:
    """A socket for each wanted frontend that has none, and why some could not be had. ``nodes`` share each port."""
    sockets: dict[Frontend, socket.socket] = {}
    problems: list[str] = []
    taken = {frontend._replace(port=plan.bound_port(frontend.port)): frontend.port for frontend in have}
    for frontend, affinity in wanted.items():
        bound = frontend._replace(port=plan.bound_port(frontend.port))
        if frontend in have:
            continue
        if (other := taken.setdefault(bound, frontend.port)) != frontend.port:
            problems.append(
                f"cannot listen on {bound} for port {frontend.port}: port {other} of the same address is bound to it; "
                f"choose another --port-offset than {plan.port_offset}"
            )
            continue
        try:
            sockets[frontend] = _listening(bound)
            if affinity:
                by_client(sockets[frontend], nodes)
            elif frontend.proto == UDP:
                by_flow(sockets[frontend], nodes)
        except OSError as problem:
            if problem.errno != errno.EADDRNOTAVAIL:  # an external IP may be another machine's
                shifted = f" (for port {frontend.port})" if bound != frontend else ""
                remedy = REMEDIES.get(problem.errno or 0, "choose another address or port")
                problems.append(f"cannot listen on {bound}{shifted}: {problem.strerror}; {remedy}")
    return sockets, tuple(problems)


def _listening(bound: Frontend) -> socket.socket:
    """A socket that listens. Raises OSError, and then holds nothing."""
    kind = socket.SOCK_STREAM if bound.proto == TCP else socket.SOCK_DGRAM
    listener = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if bound.proto == TCP:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAMS_BYTES)
        listener.bind((int_to_ip(bound.ip), bound.port))
        if bound.proto == TCP:
            listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


# The relay has a table of listeners for each protocol; what follows is the same for both. Between breaths only.


def table(relay: Relay, proto: int) -> np.ndarray:
    """LISTENER[…] of the protocol."""
    return relay.datagrams.listeners if proto == UDP else relay.listeners


def with_room(relay: Relay, rows: int) -> Relay:
    """The same relay with room for at least so many listeners of each protocol."""
    return datagrams.with_listeners(connections.with_listeners(relay, rows), rows)


def hand_over(relay: Relay, sockets: Mapping[Frontend, socket.socket]) -> dict[Frontend, Listener]:
    """Has the relay listen on these. Raises PlaneError, and then it listens on none of them."""
    added = {}
    free = {proto: iter(np.flatnonzero(table(relay, proto)["fd"][1:] < 0) + 1) for proto in (TCP, UDP)}
    for frontend, listener in sockets.items():
        row = int(next(free[frontend.proto]))
        serial = int(table(relay, frontend.proto)[row]["serial"])
        watch = datagrams.watch if frontend.proto == UDP else connections.watch
        if (problem := watch(relay, listener.fileno(), row, serial)) < 0:
            raise PlaneError(f"cannot watch {frontend}: {os.strerror(-problem)}")
        added[frontend] = Listener(row, listener)
    for frontend, (row, listener) in added.items():
        entry = table(relay, frontend.proto)[row]
        entry["ip"], entry["port"], entry["fd"] = frontend.ip, frontend.port, listener.fileno()
    return added


def attend(relay: Relay, frontend: Frontend, row: int) -> None:
    """Has the listener's queue looked into."""
    if frontend.proto == UDP:
        datagrams.attend(relay.datagrams, row)
    else:
        connections.attend(relay, row)


def take_back(relay: Relay, frontend: Frontend, listener: Listener) -> None:
    """Has the relay listen on it no more, and closes it."""
    entry = table(relay, frontend.proto)[listener.row]
    entry["fd"] = -1
    entry["serial"] += 1
    listener.socket.close()


def close_all(sockets: Iterable[socket.socket]) -> None:
    for each in sockets:
        each.close()
