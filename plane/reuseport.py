"""Which of the sockets that share a port takes a client: always the same one, by the client's address; and none more.

Nodes on one machine listen on one ClusterIP by SO_REUSEPORT, and Linux spreads connections over them by all four of
addresses and ports. For session affinity that will not do: what a client had last is known to the node that it reached.
A classic BPF program on the group makes Linux go by the client's address alone (socket(7), SO_ATTACH_REUSEPORT_CBPF).
"""

import contextlib
import ctypes
import socket
import struct

# <asm-generic/socket.h>; the socket module has no names for these
SO_ATTACH_FILTER = 26
SO_ATTACH_REUSEPORT_CBPF = 51
SO_BINDTOIFINDEX = 62
NOWHERE = 0x7FFFFFFF  # the number of no network interface
_SKF_NET_OFF = -0x100000  # <linux/filter.h>: offsets from here are into the IP header
SOURCE = _SKF_NET_OFF + 12  # of an IPv4 packet
_HEADER = 20  # its length without options; the source port is next

# struct sock_filter: code, jump if true, jump if false, k.
LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _TO_X, _ADD_X = 0x20, 0x28, 0x30, 0x07, 0x0C
_MULTIPLY, _SHIFT_RIGHT, _MODULO, _RETURN = 0x24, 0x74, 0x94, 0x16
AND, JUMP_IF_EQUAL, RETURN_NUMBER = 0x54, 0x15, 0x06
_FLAGS, _SYN, _SYN_ACK = 13, 0x02, 0x12  # of a TCP header, which is where a filter's packet begins
WHOLE = 0xFFFFFFFF


def by_client(listener: socket.socket, sockets: int) -> None:
    """Has the group of ``listener`` choose by the client's address, of so many sockets.

    Where fewer are there and the chosen one is not, Linux chooses as it would without. Raises OSError.
    """
    attach(listener, ((LOAD_WORD, SOURCE), *_one_of(sockets)))


def by_flow(listener: socket.socket, sockets: int) -> None:
    """The same by address and port of the client, for UDP: whatever sockets come, those that are there keep theirs."""
    port = ((_LOAD_HALF, _SKF_NET_OFF + _HEADER), (_TO_X, 0), (LOAD_WORD, SOURCE), (_ADD_X, 0))
    attach(listener, (*port, *_one_of(sockets)))


def withdraw(listener: socket.socket) -> None:
    """Have a listening socket get nothing more, so that what waits in it is the last; another listens in its place.

    Linux finds it no longer. Where it is one of a group by whose other sockets it is chosen still, a TCP client's SYN
    goes unanswered, and the one that the client sends a second later finds the group without it. Where a
    process without privileges may not attach the program that sees to it, such a client may be reset.
    """
    with contextlib.suppress(OSError):  # then a client may be reset that comes in this very moment
        listener.setsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX, NOWHERE)
    if listener.type == socket.SOCK_STREAM:
        no_syn = ((_LOAD_BYTE, _FLAGS), (AND, _SYN_ACK), (JUMP_IF_EQUAL, _SYN), (RETURN_NUMBER, 0))
        with contextlib.suppress(PermissionError):
            attach(listener, (*no_syn, (RETURN_NUMBER, WHOLE)), SO_ATTACH_FILTER)


def _one_of(sockets: int) -> tuple[tuple[int, int], ...]:
    """From the number in the accumulator to the socket that is chosen."""
    return (_MULTIPLY, 0x9E3779B1), (_SHIFT_RIGHT, 16), (_MODULO, sockets), (_RETURN, 0)  # Fibonacci hashing


def attach(
    listener: socket.socket, program: tuple[tuple[int, int], ...], option: int = SO_ATTACH_REUSEPORT_CBPF
) -> None:
    """Has a socket go by a program of (code, k). A jump is over the next instruction where its condition does not hold.

    Raises OSError.
    """
    filters = b"".join(struct.pack("=HBBI", code, 0, int(code == JUMP_IF_EQUAL), k & 0xFFFFFFFF) for code, k in program)
    memory = ctypes.create_string_buffer(filters, len(filters))
    described = struct.pack("@HP", len(program), ctypes.addressof(memory))
    listener.setsockopt(socket.SOL_SOCKET, option, described)
