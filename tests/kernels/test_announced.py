"""A header of the PROXY protocol that compiled code takes says what it says to the library, or is left to that."""

import struct

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from proxyprotocol.detect import ProxyProtocolDetect

from kernels.layout_announced import ANNOUNCEMENT
from kernels.net import announced
from plane.addresses import int_to_ip

LIBRARY = ProxyProtocolDetect()
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
Found = tuple[int, tuple[str, int] | None]

addresses, ports = st.integers(0, 2**32 - 1).map(int_to_ip), st.integers(0, 65535)
values = st.lists(st.tuples(st.integers(0, 255).filter(lambda kind: kind != 3), st.binary(max_size=40)), max_size=4)
lines = st.builds("PROXY TCP4 {} {} {} {}\r\n".format, addresses, addresses, ports, ports).map(str.encode)


def binary(command: int, kind: int, rest: bytes) -> bytes:
    return SIGNATURE + bytes([command, kind]) + struct.pack("!H", len(rest)) + rest


def packed(source: str, port: int, tail: list[tuple[int, bytes]]) -> bytes:
    addresses = bytes(map(int, source.split("."))) + bytes([127, 0, 0, 1]) + struct.pack("!HH", port, 80)
    return addresses + b"".join(struct.pack("!BH", kind, len(value)) + value for kind, value in tail)


proxied = st.builds(packed, addresses, ports, values).map(lambda rest: binary(0x21, 0x11, rest))
local = values.map(lambda tail: binary(0x20, 0, packed("0.0.0.0", 0, tail)[12:]))
plain = lines | proxied | local | st.just(b"PROXY UNKNOWN\r\n")


def read(data: bytes) -> Found:
    found, buffer = np.zeros(1, ANNOUNCEMENT), np.full(2 * announced.V2_BYTES, 0x7F, np.uint8)
    buffer[: len(data)] = np.frombuffer(data, np.uint8)
    size = int(announced.read(buffer, len(data), found[0]))
    who = int_to_ip(int(found[0]["ip"])), int(found[0]["port"])
    return size, who if found[0]["named"] else None


def by_library(header: bytes) -> tuple[str, int] | None:
    """Whom it names; raises where it is none, or not whole."""
    said = LIBRARY.unpack(header)
    return said.peername if said.proxied and isinstance(said.peername, tuple) else None


@given(plain, st.binary(max_size=20))
def test_a_plain_header_is_taken_and_not_a_byte_beyond_it(header: bytes, behind: bytes) -> None:
    assert read(header + behind) == (len(header), by_library(header))
    assert {read(header[:size])[0] for size in range(len(header))} == {0}


@example(b"PROXY TCP4 1.2.3.4 127.0.0.1 01 2\r\n", 0, b"")
@example(binary(0x21, 0x11, packed("1.2.3.4", 1, [(3, bytes(4))])), 0, b"")
@given(plain, st.integers(0, 200), st.binary(max_size=3))
def test_what_is_taken_of_a_mutated_one_is_what_the_library_reads(header: bytes, at: int, other: bytes) -> None:
    mutated = header[:at] + other + header[at + len(other) :]
    size, who = read(mutated)
    if size > 0:
        assert who == by_library(mutated[:size])


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP6 2001:db8::9 ::1 4711 80\r\n",
        b"PROXY UNKNOWN 1\r\n",
        b"PROXY TCP4 300.0.0.1 127.0.0.1 1 2\r\n",
        b"PROXY TCP4 1.2.3.4 127.0.0.1 1 99999\r\n",
        b"PROXY TCP4 1.2.3.4 127.0.0.1 1 2\n",
        b"PROXY TCP4 1.2.3.4  127.0.0.1 1 2\r\n",
        b"PROXY TCP4 " + b"1" * 100,
        binary(0x21, 0x21, bytes(36)),
        binary(0x21, 0x11, bytes(4)),
        binary(0x51, 0x11, bytes(12)),
        binary(0x22, 0x11, bytes(12)),
        binary(0x21, 0x11, bytes(13)),
        binary(0x21, 0x11, bytes(announced.V2_BYTES)),
        binary(0x20, 0, b"\4\0\xff"),
        binary(0x20, 0, b"\3\0\4abcd"),
    ],
)
def test_what_is_unusual_is_left_alone(sent: bytes) -> None:
    assert read(sent)[0] == announced.UNUSUAL


def test_who_is_in_a_network() -> None:
    from plane.ingress.edge import Edge, networks
    from plane.ingress.fastedge import networks as compiled

    rows = compiled(Edge(networks("10.0.0.0/8, 192.0.2.7, 2001:db8::/32")))
    trusted = [announced.is_within(rows, np.uint32(ip)) for ip in (0x0A010203, 0xC0000207, 0xC0000208, 0)]
    assert trusted == [True, True, False, False]
