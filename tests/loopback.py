"""Fibs written by hand and pods on real sockets, for tests of what carries traffic."""

import contextlib
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from kernels.layout import BACKEND, FRONTEND, READY, REJECT, RR, TCP, Fib, freeze
from kernels.lb.forward import empty_fib
from kernels.lb.frontends import build_index
from kernels.lb.pools import Pools
from plane.addresses import AddressPlan, ip_to_int
from plane.proxy import Proxy

Address = tuple[str, int]
PATIENCE_S = 30.0  # with a machine that has much else to do


def make_fib(
    generation: int,
    frontends: Mapping[Address, Sequence[Address]],
    algorithm: int = RR,
    node: int = 1,
    *,
    proto: int = TCP,
    slow_start_s: int = 0,
) -> Fib:
    """A Fib of frontends, each with its endpoints; ids go by first mention, all endpoints are pods of ``node``."""
    ids: dict[Address, int] = {}
    for endpoints in frontends.values():
        for endpoint in endpoints:
            ids.setdefault(endpoint, len(ids) + 1)
    backends = np.zeros(len(ids) + 1, BACKEND)
    for (ip, port), number in ids.items():
        backends[number] = (ip_to_int(ip), port, 1, node, proto, READY)
    pools = Pools(backends)
    rows = np.zeros(len(frontends) + 1, FRONTEND)
    for row, ((ip, port), endpoints) in zip(rows[1:], frontends.items(), strict=True):
        row["ip"], row["port"], row["proto"] = ip_to_int(ip), port, proto
        members = [ids[endpoint] for endpoint in endpoints]
        row["served"] = bool(members)
        choice = algorithm, members, [1] * len(members), REJECT
        row["inside"] = row["outside"] = pools.add((ip, port), choice, slow_start_s=slow_start_s)
    return empty_fib()._replace(
        generation=generation,
        frontends=freeze(rows),
        frontend_index=build_index(rows),
        backends=freeze(backends),
        **pools.tables(),
    )


class Pod:
    """A listening socket whose connections are each given to ``serve`` on a thread of its own.

    peers  addresses that connections came from, in order
    """

    def __init__(self, address: Address, serve: Callable[[socket.socket], None], backlog: int = 512):
        self.address = address
        self.peers: list[Address] = []
        self._serve = serve
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(address, backlog=backlog)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._threads: list[threading.Thread] = []
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE_S)
            self.peers.append(peer)
            self._open.add(connection)
            thread = threading.Thread(target=self._run, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _run(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._serve(connection)
        self._open.discard(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def __enter__(self) -> "Pod":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def echo(connection: socket.socket) -> None:
    """Send back what comes until the other side ends."""
    while data := connection.recv(65536):
        connection.sendall(data)


def saying(word: bytes) -> Callable[[socket.socket], None]:
    """A pod that answers each request of up to 64 bytes with ``word``."""

    def serve(connection: socket.socket) -> None:
        while connection.recv(64):
            connection.sendall(word)

    return serve


def dial(address: Address, source: str = "") -> socket.socket:
    """A client's connection, from ``source`` where one is given."""
    return socket.create_connection(address, PATIENCE_S, (source, 0) if source else None)


def receive(connection: socket.socket, count: int) -> bytes:
    """Exactly ``count`` bytes, fewer only where the other side ended first."""
    parts: list[bytes] = []
    while count and (part := connection.recv(min(count, 1 << 16))):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def ask(address: Address, request: bytes = b"?", length: int = 1, source: str = "") -> bytes:
    """One request on a connection of its own."""
    with dial(address, source) as connection:
        connection.sendall(request)
        return receive(connection, length)


def reset(connection: socket.socket) -> None:
    """Close by RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    connection.close()


def eventually(what: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    """Return once ``what()`` is true; fail after a deadline."""
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline, f"not within {patience_s} s: {what}"
        time.sleep(0.002)


def open_descriptors() -> list[str]:
    """What this process's descriptors stand for, apart from the one this takes to find out."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{number}"))
    return sorted(name for name in found if not name.startswith("/proc/"))


def leftovers(proxy: Proxy) -> list[str]:
    """What a proxy that has stopped still counts or remembers and should not, by name."""
    _, steering, relay = proxy._in_force
    datagrams = relay.datagrams
    held = {
        "rows of connections": len(relay.free) - relay.loop[0]["free"],
        "rows twice in the list of free ones": len(relay.free) - len(np.unique(relay.free)),
        "states": relay.connections["state"].any(),
        "connects under way": relay.loop[0]["connecting"],
        "tracked flows": steering.conntrack.counts[0],
        "connections of backends": steering.active[1:].any(),
        "rows of datagram flows": len(datagrams.free) - datagrams.loop[0]["free"],
        "places in the index of datagram flows": datagrams.flow_index.any(),
        "a socket kept for the next connection": relay.loop[0]["socket"] >= 0,
        "listeners": (relay.listeners["fd"] >= 0).any() or (datagrams.listeners["fd"] >= 0).any(),
    }
    return [f"{name}: {count}" for name, count in held.items() if count]


def listening(plan: AddressPlan) -> list[str]:
    """What is bound to the plan's addresses, in whatever process: ``protocol ip:port`` in the kernel's hexadecimal."""
    spans = (plan.nodes, plan.pods, plan.cluster_ips, plan.vips)
    found = []
    for protocol, state in (("tcp", "0A"), ("udp", "07")):  # TCP_LISTEN; a UDP socket that is not connected
        rows = [row.split() for row in Path("/proc/net", protocol).read_text().splitlines()[1:]]
        for local in (row[1] for row in rows if row[3] == state):
            ip = ipaddress.IPv4Address(bytes.fromhex(local[:8])[::-1])  # the machine is little-endian
            if any(ip in span for span in spans):
                found.append(f"{protocol} {local}")
    return sorted(found)


def addresses(plan: AddressPlan, port: int) -> Iterator[Address]:
    """Addresses for the pods of node 1, one after the other, all with one port."""
    return ((str(ip), port) for ip in list(plan.pods_of(1).hosts())[1:])
