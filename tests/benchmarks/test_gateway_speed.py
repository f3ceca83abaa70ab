"""What the gateway spares itself: looks at who is idle, packets at the end of a connection, tickets of TLS.

Each is beside what it would do otherwise. Nothing here goes by a gateway, which has too much else to do.
"""

import contextlib
import socket
import ssl
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kernels.jit import INTERPRETED, kernel
from kernels.layout_gateway import CLIENT, READING
from kernels.layout_wheel import Wheel
from kernels.net import wheel
from kernels.net.times import BEAT_NS
from plane.addresses import AddressPlan
from plane.certificates import load_pair
from plane.ingress.tls import DEFAULT_NAME, Certificates

TICKS = 2 * wheel.SLOTS
KEEP_ALIVE_NS = 75_000_000_000
SIZES = pytest.mark.parametrize("clients", [1, 1_000, 10_000])


def idle(count: int) -> np.ndarray:
    """Clients who said something last at times that are evenly spread."""
    clients = np.zeros(count + 1, CLIENT)
    clients["state"][1:], clients["since_ns"][1:] = READING, np.linspace(0, KEEP_ALIVE_NS, count + 1)[1:]
    return clients


@kernel
def go_by_wheel(timers, clients, now_ns, ticks):
    """Let so many ticks pass, in which who is late says something."""
    for _ in range(ticks):
        now_ns += BEAT_NS
        while now_ns >= wheel.next_ns(timers):
            row = wheel.take(timers, now_ns)
            if row != 0 and wheel.is_late(timers, row, clients[row].since_ns + KEEP_ALIVE_NS, now_ns):
                clients[row].since_ns = now_ns
                wheel.file(timers, row, now_ns + KEEP_ALIVE_NS, now_ns)


def go_by_looks(clients: np.ndarray, now_ns: int, ticks: int) -> None:
    """The same by a look at each in each tick."""
    for _ in range(ticks):
        now_ns += BEAT_NS
        rows = np.flatnonzero((clients["state"] == READING) & (clients["since_ns"] + KEEP_ALIVE_NS < now_ns))
        clients["since_ns"][rows] = now_ns


def filed(clients: np.ndarray) -> Wheel:
    timers = wheel.create(len(clients), BEAT_NS)
    for row in range(1, len(clients)):
        wheel.file(timers, row, int(clients["since_ns"][row]) + KEEP_ALIVE_NS, KEEP_ALIVE_NS)
    return timers


def note_tick(benchmark: Any, clients: int, ticks: int) -> None:
    benchmark.extra_info["clients"] = clients
    if benchmark.stats:  # none where benchmarks run as tests
        benchmark.extra_info["ns_a_tick"] = round(benchmark.stats["median"] / ticks * 1e9)


@pytest.mark.skipif(INTERPRETED, reason="compares machine code")
@pytest.mark.benchmark(group="gateway: a tick")
@SIZES
def test_wheel(benchmark: Any, clients: int) -> None:
    rows, now_ns = idle(clients), KEEP_ALIVE_NS
    timers = filed(rows)

    def work() -> None:
        nonlocal now_ns
        go_by_wheel(timers, rows, now_ns, TICKS)
        now_ns += TICKS * BEAT_NS

    benchmark(work)
    assert (now_ns - rows["since_ns"][1:] <= KEEP_ALIVE_NS + 2 * BEAT_NS).all()
    note_tick(benchmark, clients, TICKS)


@pytest.mark.benchmark(group="gateway: a tick")
@SIZES
def test_looks_at_all(benchmark: Any, clients: int) -> None:
    rows, now_ns = idle(clients), KEEP_ALIVE_NS

    def work() -> None:
        nonlocal now_ns
        go_by_looks(rows, now_ns, 10)
        now_ns += 10 * BEAT_NS

    benchmark(work)
    assert (now_ns - rows["since_ns"][1:] <= KEEP_ALIVE_NS).all()
    note_tick(benchmark, clients, 10)


# Ends of connections

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
ALERT = bytes(24)  # as long as the word by TLS that no more comes


def end_in_one_packet(end: socket.socket) -> None:
    end.send(ANSWER, socket.MSG_MORE)
    end.shutdown(socket.SHUT_WR)
    end.close()


def end_in_two(end: socket.socket) -> None:
    end.send(ANSWER)
    end.close()


def end_tls_in_one_packet(end: socket.socket) -> None:
    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
    end.send(ANSWER)
    end.send(ALERT)
    end.shutdown(socket.SHUT_WR)
    end.close()


def end_tls_in_three(end: socket.socket) -> None:
    end.send(ANSWER)
    end.send(ALERT)
    end.close()


@pytest.mark.benchmark(group="gateway: the last answer and the end")
@pytest.mark.parametrize(
    ("work", "said"),
    [
        (end_in_one_packet, ANSWER),
        (end_in_two, ANSWER),
        (end_tls_in_one_packet, ANSWER + ALERT),
        (end_tls_in_three, ANSWER + ALERT),
    ],
    ids=["one packet", "two", "TLS, one packet", "TLS, three"],
)
def test_end(benchmark: Any, plan: AddressPlan, work: Callable[[socket.socket], None], said: bytes) -> None:
    with socket.create_server((str(plan.pods_of(1)[11]), 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        clients: list[socket.socket] = []

        def connected() -> tuple[tuple[socket.socket], dict[str, Any]]:
            for one in clients:
                one.close()
            clients[:] = [socket.create_connection(listener.getsockname(), timeout=30)]
            return (listener.accept()[0],), {}

        benchmark.pedantic(work, setup=connected, rounds=4_000)
        with clients[0] as one:
            assert one.recv(1 << 16, socket.MSG_WAITALL) == said


# Tickets


@pytest.mark.benchmark(group="gateway: a handshake of TLS 1.3, both ends")
@pytest.mark.parametrize("tickets", [0, 1, 2])
def test_handshake(benchmark: Any, tickets: int) -> None:
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_pair(server, *Certificates().default)
    server.num_tickets = tickets
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE

    def work() -> int:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        asking = client.wrap_bio(to_client, to_server, server_hostname=DEFAULT_NAME)
        asked = server.wrap_bio(to_server, to_client, server_side=True)
        for one in (asking, asked, asking):
            with contextlib.suppress(ssl.SSLWantReadError):
                one.do_handshake()
        asked.do_handshake()
        assert asking.version() == "TLSv1.3"
        return to_client.pending

    size = benchmark.pedantic(work, rounds=1_500)
    assert (size > 0) == (tickets > 0)
    benchmark.extra_info["bytes_of_tickets"] = size
