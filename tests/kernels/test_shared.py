"""Shared listeners: what they answer for, how they are known, and how a datagram that is for nobody is refused."""

import socket

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.layout import FRONTEND, MARKS, SHARED_SEGMENT_BYTES, TCP, UDP
from kernels.lb.forward import empty_fib
from kernels.lb.frontends import build_index
from kernels.net import refusal, shared, syscalls
from plane.addresses import ip_to_int
from tests.reference import internet_checksum

addresses = st.sampled_from([0x7F600101, 0x7FFFFFFF, 0x7F000001, 0x80000000, 0xC0000201, 0x7EFFFFFF])
frontends = st.tuples(addresses, st.sampled_from([80, 53]), st.sampled_from([TCP, UDP]), *[st.sampled_from([0, 1])] * 2)


@given(st.lists(frontends, max_size=12, unique_by=lambda row: row[:3]))
def test_a_shared_listener_answers_for_what_may_be_shared_and_no_other(rows: list[tuple[int, ...]]) -> None:
    table = np.zeros(len(rows) + 1, FRONTEND)
    for name, column in zip(("ip", "port", "proto", "node", "affinity"), zip(*rows, strict=True), strict=False):
        table[name][1:] = column
    fib = empty_fib()._replace(frontends=table, frontend_index=build_index(table))
    expected = dict(zip((row[:3] for row in rows), shared.shareable(table)[1:].tolist(), strict=True))
    for ip in (0x7F600101, 0x7FFFFFFF, 0x80000000, 0x7F000001):
        for port in (80, 53):
            for proto in (TCP, UDP):
                answer = shared.answers(fib, np.uint32(ip), np.uint16(port), np.uint8(proto))
                assert bool(answer) == expected.get((ip, port, proto), False)


def test_what_is_shared_is_at_a_loopback_address_of_every_node_and_without_affinity() -> None:
    table = np.zeros(4, FRONTEND)
    table["ip"] = ip_to_int("127.96.1.1"), ip_to_int("192.0.2.1"), ip_to_int("127.18.0.1"), ip_to_int("127.96.1.2")
    table["node"][2], table["affinity"][3] = 1, 9
    assert shared.shareable(table).tolist() == [True, False, False, False]


ends = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1))


@given(ends, ends)
def test_a_refusal_is_icmp_port_unreachable_for_the_datagram(client: tuple[int, int], refused: tuple[int, int]) -> None:
    packet = refusal.create()
    for one, other in ((refused, client), (client, refused)):  # what was written before leaves no trace
        ends = ((np.uint32(ip), np.uint16(port)) for ip, port in (one, other))
        refusal.address(packet, *ends)
    raw = packet.tobytes()
    own, theirs = refused[0].to_bytes(4), client[0].to_bytes(4)
    assert raw[:1] + raw[8:10] + raw[12:20] == b"\x45\x40\x01" + own + theirs
    assert raw[20:22] + raw[24:28] == b"\x03\x03" + bytes(4)
    assert internet_checksum(raw[20:]) == 0
    assert raw[28:29] + raw[30:32] + raw[36:38] == b"\x45\x00\x1c\x40\x11"
    assert raw[40:48] == theirs + own
    assert raw[48:54] == client[1].to_bytes(2) + refused[1].to_bytes(2) + b"\x00\x08"


@pytest.mark.syscalls
def test_a_shared_listener_is_known_by_its_mark() -> None:
    exchange = syscalls.create_exchange()
    with socket.socket() as marked, socket.create_server(("127.0.0.1", 0)) as other:
        marked.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SHARED_SEGMENT_BYTES)
        marked.bind(("127.0.0.1", 0))
        marked.listen()
        backend = empty_fib().backends[0]
        for listener, known in ((marked, True), (other, False)):
            with socket.create_connection(listener.getsockname()) as client:
                assert (syscalls.segment_bytes(exchange, client.fileno()) in MARKS) == known
                assert shared.refuses(empty_fib(), exchange, client.fileno(), backend) == known
    assert not shared.refuses(empty_fib(), exchange, -1, backend)


@pytest.mark.syscalls
def test_datagrams_say_where_they_came_to_and_answers_come_from_there() -> None:
    messages = syscalls.create_messages()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as anywhere:
        anywhere.setsockopt(socket.IPPROTO_IP, syscalls.IP_PKTINFO, 1)
        anywhere.bind(("0.0.0.0", 0))
        port = anywhere.getsockname()[1]
        for ip in ("127.96.200.1", "127.96.200.2"):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.bind(("127.0.0.1", 0))
                client.settimeout(30)
                for data in (b"one", b"two"):
                    client.sendto(data, (ip, port))
                assert syscalls.receive_messages(messages, anywhere.fileno()) == 2
                for i in range(2):
                    assert syscalls.swap32(messages.arrivals[i]["destination"]) == ip_to_int(ip)
                to = client.getsockname()
                syscalls.send_from(messages, 2, np.uint32(ip_to_int(ip)))
                assert (
                    syscalls.send_messages(messages, anywhere.fileno(), 0, 2, np.uint32(ip_to_int(to[0])), to[1]) == 2
                )
                assert [client.recvfrom(9) for _ in range(2)] == [(b"one", (ip, port)), (b"two", (ip, port))]
                syscalls.send_from(messages, 2, np.uint32(0))
                assert (
                    syscalls.send_messages(messages, anywhere.fileno(), 0, 1, np.uint32(ip_to_int(to[0])), to[1]) == 1
                )
                assert client.recvfrom(9) == (b"one", ("127.0.0.1", port))
