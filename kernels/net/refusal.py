"""ICMP's port unreachable, which says at once that nobody is there.

Law: the machine says it wherever no socket takes a datagram. A shared listener takes all of its port, so it has to say
it itself, by a raw socket, for which Linux asks CAP_NET_RAW; who may have none shares no UDP port (``plane.sharing``).
The packet quotes the IP and UDP headers of what is refused, so that the sender's socket knows it is meant (RFC 792).
"""

import numpy as np

from kernels.jit import kernel
from kernels.layout import UDP
from kernels.net import syscalls

_IP, _ICMP, _QUOTED, _UDP = 0, 20, 28, 48  # where each header begins
BYTES = 56
_HOPS = 64
_PROTOCOL_ICMP = 1
_UNREACHABLE, _PORT = 3, 3


def create() -> np.ndarray:
    """The packet, but for addresses, ports and ICMP's checksum. Linux writes the outer header's, and its length."""
    packet = np.zeros(BYTES, np.uint8)
    packet[_IP] = packet[_QUOTED] = 0x45  # version 4, a header of five words
    packet[_IP + 8] = packet[_QUOTED + 8] = _HOPS
    packet[_IP + 9], packet[_QUOTED + 9] = _PROTOCOL_ICMP, UDP
    packet[_QUOTED + 3] = BYTES - _QUOTED
    packet[_ICMP], packet[_ICMP + 1] = _UNREACHABLE, _PORT
    packet[_UDP + 5] = BYTES - _UDP
    return packet


@kernel
def send(datagrams, client, refused):
    """Tell a client that nobody is at an address it sent to; both (address, port) in host order."""
    packet = datagrams.refusal
    address(packet, client, refused)
    syscalls.transmit_to(datagrams.exchange, datagrams.loop[0].raw, packet, client[0])


@kernel
def address(packet, client, refused):
    """Write in who is refused what, and the checksum."""
    _put(packet, _IP + 12, refused[0], 4)
    _put(packet, _IP + 16, client[0], 4)
    _put(packet, _QUOTED + 12, client[0], 4)
    _put(packet, _QUOTED + 16, refused[0], 4)
    _put(packet, _UDP, client[1], 2)
    _put(packet, _UDP + 2, refused[1], 2)
    _put(packet, _ICMP + 2, 0, 2)
    total = np.int64(0)
    for i in range(_ICMP, BYTES, 2):
        total += (np.int64(packet[i]) << 8) + np.int64(packet[i + 1])
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    _put(packet, _ICMP + 2, total ^ 0xFFFF, 2)


@kernel
def _put(packet, at, number, count):
    """Write a number in network order."""
    for i in range(count):
        packet[at + i] = (np.int64(number) >> (8 * (count - 1 - i))) & 0xFF
