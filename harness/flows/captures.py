"""Packet captures, pcap and pcapng, as flows: who opened which connection when, how long it went on, what it carried.

Law: a TCP connection begins with its SYN, one of UDP with its first datagram, or the first after ``UDP_IDLE_NS``
without one; it ends with the last packet of either direction. What did not begin in the capture is no flow. What is
left out is counted and said. A file that does not end with a whole packet is refused, by the number of the packet, from
0 on.

dpkt reads the files; headers are taken apart here, which is several times as fast as by its classes.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import dpkt
import numpy as np

from harness.scenario import ScenarioError
from kernels.layout import TCP, UDP, Flows
from plane.errors import Problem
from plane.families import IPV4, IPV6, Family

SUFFIXES = (".pcap", ".pcapng", ".cap")
UDP_IDLE_NS = 30_000_000_000  # Linux' nf_conntrack_udp_timeout

# By link type, https://www.tcpdump.org/linktypes.html: what is before the network's header.
_ETHERNET, _ETHERNET_BYTES = 1, 14
_LINK_BYTES = {_ETHERNET: _ETHERNET_BYTES, 0: 4, 108: 4, 12: 0, 101: 0, 228: 0, 113: 16, 276: 20}
_VLANS = (0x8100, 0x88A8)
_SYN, _ACK = 0x02, 0x10

_IP = struct.Struct(">BxHxxHxBxxII")  # version and length, whole length, fragment, protocol, source, destination
_IP6 = struct.Struct(">BxxxHBx16s16s")  # version, length of what follows, what that is, source, destination
# Headers of IPv6 that are passed over: hop-by-hop options, routing, destination options. They say their length in units
# of eight bytes, without the first eight. A fragment's has eight (RFC 8200, section 4).
_PASSED_OVER, _FRAGMENT = (0, 43, 60), 44
_PORTS = struct.Struct(">HH")

Key = tuple[int, int, int, int, int]


class Packet(NamedTuple):
    """What is read of a packet of TCP or UDP.

    size      bytes of IP
    is_later  a fragment that is not the first; it has no ports
    opens     it may begin a flow
    number    of its SYN
    """

    key: Key
    size: int
    is_later: bool = False
    opens: bool = False
    number: int = 0


_NO_KEY = 0, 0, 0, 0, 0


class Capture(NamedTuple):
    """The flows of a capture in the order in which they began, as columns of equal length.

    arrival_ns, duration_ns, bytes  int64: since the first packet; from first packet to last; of IP, both ways
    notes                           what was left out
    """

    flows: Flows
    arrival_ns: np.ndarray
    duration_ns: np.ndarray
    bytes: np.ndarray
    notes: list[str]


class _Seen:
    """A flow while packets of it may come."""

    __slots__ = ("bytes", "first_ns", "key", "last_ns", "number")

    def __init__(self, key: Key, now_ns: int, number: int):
        self.key, self.first_ns, self.number = key, now_ns, number  # of its SYN, which a repeated one shares
        self.last_ns, self.bytes = now_ns, 0


def read(path: Path, family: Family = IPV4) -> Capture:
    """The flows of a capture that are of a family. Raises ScenarioError, which names the packet that is wrong."""
    take_apart = _of_ipv6 if family is IPV6 else _of_ipv4
    seen: list[_Seen] = []
    live: dict[Key, _Seen] = {}
    others = late = fragments = 0
    for now_ns, link_bytes, packet in _packets(path):
        found = take_apart(packet, link_bytes)
        if found is None:
            others += 1
            continue
        key, size, is_later, opens, number = found
        if is_later:
            fragments += 1
            continue
        flow = live.get(key) or live.get((key[1], key[0], key[3], key[2], key[4]))
        idle = flow is not None and key[4] == UDP and now_ns - flow.last_ns > UDP_IDLE_NS
        if (opens and (flow is None or flow.number != number)) or idle:
            flow = live[key] = _Seen(key, now_ns, number)
            seen.append(flow)
        if flow is None:
            late += 1
            continue
        flow.last_ns = max(flow.last_ns, now_ns)
        flow.bytes += size
    if not seen:
        raise _wrong(path, "", f"holds no TCP connection from its SYN on, and no datagram of UDP, over {family.name}")
    seen.sort(key=lambda flow: flow.first_ns)
    return Capture(*_columns(seen, family), list(_notes(others, late, fragments, family)))


def _columns(seen: list[_Seen], family: Family) -> tuple[Flows, np.ndarray, np.ndarray, np.ndarray]:
    src_ip, dst_ip, src_port, dst_port, proto = zip(*(flow.key for flow in seen), strict=True)
    ports = np.array(src_port, np.uint16), np.array(dst_port, np.uint16)
    clients, servers = (np.array([*map(family.cell, column)], family.address) for column in (src_ip, dst_ip))
    flows = Flows(clients, servers, *ports, np.array(proto, np.uint8))
    times = np.array([(flow.first_ns, flow.last_ns - flow.first_ns, flow.bytes) for flow in seen], np.int64)
    arrival_ns, duration_ns, sizes = (np.ascontiguousarray(column) for column in times.T)
    return flows, arrival_ns, duration_ns, sizes


def _notes(others: int, late: int, fragments: int, family: Family) -> Iterator[str]:
    for count, what in (
        (others, f"are no TCP or UDP over {family.name}"),
        (late, "are of connections that began before the capture"),
        (fragments, "are later fragments, which have no ports"),
    ):
        if count:
            yield f"{count:,} packets {what}: they are left out"


def _packets(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """(ns since the first packet, bytes before the IP header but for VLANs, packet) of each. Raises ScenarioError."""
    whole = 0
    try:
        with path.open("rb") as file:
            reader = dpkt.pcap.UniversalReader(_Whole(file))
            link = reader.datalink()
            if link not in _LINK_BYTES:
                known = ", ".join(map(str, sorted(_LINK_BYTES)))
                raise _wrong(path, "", f"is of link type {link}, which is not known here; these are: {known}")
            first_s = None
            for at_s, packet in reader:
                whole += 1
                first_s = at_s if first_s is None else first_s
                start = _ethernet(packet) if link == _ETHERNET else _LINK_BYTES[link]
                yield max(round((at_s - first_s) * 1_000_000_000), 0), start, packet
    except OSError as error:
        raise _wrong(path, "", f"can't be read: {error.strerror or error}") from None
    except (ValueError, dpkt.Error, EOFError, struct.error) as error:
        raise _wrong(path, f"packet {whole}", f"can't be read as pcap or pcapng: {error}; is the file whole?") from None


def _ethernet(packet: bytes) -> int:
    """Where what an Ethernet frame carries begins, behind its VLANs."""
    start = _ETHERNET_BYTES
    while len(packet) >= start and int.from_bytes(packet[start - 2 : start], "big") in _VLANS:
        start += 4
    return start


def _of_ipv4(packet: bytes, start: int) -> Packet | None:
    """A packet of TCP or UDP over IPv4, whose header begins at ``start``; None for another."""
    if len(packet) < start + _IP.size:
        return None
    first, size, fragment, proto, src_ip, dst_ip = _IP.unpack_from(packet, start)
    if first >> 4 != 4 or proto not in (TCP, UDP):
        return None
    if fragment & 0x1FFF:
        return Packet(_NO_KEY, size, is_later=True)
    return _with_ports(packet, start + 4 * (first & 0xF), (src_ip, dst_ip), proto, size)


def _of_ipv6(packet: bytes, start: int) -> Packet | None:
    """The same over IPv6."""
    if len(packet) < start + _IP6.size:
        return None
    first, rest, proto, src_ip, dst_ip = _IP6.unpack_from(packet, start)
    size, at, is_later = _IP6.size + rest, start + _IP6.size, False
    while proto in (*_PASSED_OVER, _FRAGMENT) and not is_later:
        if len(packet) < at + 8:
            return None
        is_later = proto == _FRAGMENT and packet[at + 2 : at + 4] >= b"\0\x08"  # below are no bits of its offset
        length = 8 if proto == _FRAGMENT else 8 + 8 * packet[at + 1]
        proto, at = packet[at], at + length
    if first >> 4 != 6 or proto not in (TCP, UDP):
        return None
    if is_later:
        return Packet(_NO_KEY, size, is_later=True)
    return _with_ports(packet, at, (int.from_bytes(src_ip, "big"), int.from_bytes(dst_ip, "big")), proto, size)


def _with_ports(packet: bytes, at: int, addresses: tuple[int, int], proto: int, size: int) -> Packet | None:
    """A packet whose header of TCP or UDP begins at ``at``, as far as it was captured."""
    if len(packet) < at + (14 if proto == TCP else _PORTS.size):
        return None
    key = (*addresses, *_PORTS.unpack_from(packet, at), proto)
    if proto == UDP:
        return Packet(key, size, opens=True)
    opens = packet[at + 13] & (_SYN | _ACK) == _SYN
    return Packet(key, size, opens=opens, number=int.from_bytes(packet[at + 4 : at + 8], "big") if opens else 0)


class _Whole:
    """A file in which a read that comes to the end in the middle is an error, which dpkt does not take it for."""

    def __init__(self, file: BinaryIO):
        self.name = file.name
        self._read: Callable[[int], bytes] = file.read
        self.seek = file.seek
        self.fileno = file.fileno

    def read(self, count: int) -> bytes:
        found = self._read(count)
        if 0 < len(found) < count:
            raise EOFError(f"it ends after {len(found):,} of {count:,} bytes")
        return found


def _wrong(path: Path, where: str, reason: str) -> ScenarioError:
    return ScenarioError([Problem(str(path), 0, where, "", reason)])
