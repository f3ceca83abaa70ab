"""System calls from compiled code: libc through ``numba.types.ExternalFunction``, which caches on disk.

Law: every function here is one call, returns what libc returned, and ``-errno`` where that was -1, as the kernel itself
does. Nothing else in ``kernels`` touches the operating system. With Numba's JIT switched off an ``ExternalFunction``
is no function, so this is the only file that cannot run interpreted.

Addresses and ports are in host order on our side; both machines that are supported (x86-64, aarch64) are
little-endian, so turning them round for the network is unconditional.
"""

import errno
import fcntl
import os
import platform
import select
import socket
from typing import Any, NamedTuple

import numpy as np
from numba import types
from numba.extending import intrinsic

from kernels.jit import inner, kernel

EAGAIN, EINTR, EINPROGRESS = errno.EAGAIN, errno.EINTR, errno.EINPROGRESS
EMFILE, ENFILE, ENOBUFS, ENOMEM = errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM
EBADF, EINVAL, ENOSYS = errno.EBADF, errno.EINVAL, errno.ENOSYS
EADDRNOTAVAIL, EADDRINUSE = errno.EADDRNOTAVAIL, errno.EADDRINUSE
ECONNREFUSED, ECONNABORTED, ECONNRESET = errno.ECONNREFUSED, errno.ECONNABORTED, errno.ECONNRESET

EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR, select.EPOLLHUP
EPOLLRDHUP, EPOLLET, EPOLLPRI = select.EPOLLRDHUP, int(select.EPOLLET), select.EPOLLPRI

AF_INET = int(socket.AF_INET)
STREAM_SOCKET = int(socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
DATAGRAM_SOCKET = int(socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
NONBLOCKING = int(socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
SOL_SOCKET, SO_LINGER, SO_RCVBUF = socket.SOL_SOCKET, socket.SO_LINGER, socket.SO_RCVBUF
IPPROTO_TCP, TCP_NODELAY, TCP_MAXSEG = int(socket.IPPROTO_TCP), socket.TCP_NODELAY, socket.TCP_MAXSEG
TCP_CORK = socket.TCP_CORK
SO_MEMINFO = 55  # <asm-generic/socket.h>; the socket module has no name for it
IPPROTO_IP = int(socket.IPPROTO_IP)
IP_BIND_ADDRESS_NO_PORT = 24  # <linux/in.h>; the socket module has no name for it before Python 3.12
IP_PKTINFO = 8  # <linux/in.h>; the socket module has no name for it before Python 3.14
MSG_NOSIGNAL, MSG_DONTWAIT = int(socket.MSG_NOSIGNAL), int(socket.MSG_DONTWAIT)
MSG_PEEK, MSG_MORE = int(socket.MSG_PEEK), int(socket.MSG_MORE)
SHUT_WR = socket.SHUT_WR
PIPE = os.O_NONBLOCK | os.O_CLOEXEC
F_SETPIPE_SZ = fcntl.F_SETPIPE_SZ
SPLICE = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CTL_MOD = 1, 2, 3
CLOCK_MONOTONIC = 1
SYS_EPOLL_PWAIT2 = 441

SOCKADDR = np.dtype([("family", "u2"), ("port", "u2"), ("ip", "u4"), ("zero", "u8")])
SOCKADDR_BYTES = 16

# struct epoll_event: packed on x86-64 only (<linux/eventpoll.h>). Its 64 bits of data are ours: a key and a serial.
_PACKED = platform.machine() in ("x86_64", "AMD64")
EPOLL_EVENT = np.dtype(
    [("events", "u4"), *([] if _PACKED else [("spare", "u4")]), ("key", "u4"), ("serial", "u4")],
)
EVENTS = 256

# struct mmsghdr of both machines: a message, and how much of it was received. struct iovec.
MESSAGE = np.dtype(
    [
        ("name", "u8"),  # address of a SOCKADDR
        ("name_bytes", "u4"),
        ("spare", "u4"),
        ("vector", "u8"),  # address of its VECTORs
        ("vectors", "u8"),
        ("control", "u8"),
        ("control_bytes", "u8"),
        ("flags", "i4"),
        ("more_spare", "u4"),
        ("bytes", "u4"),
        ("most_spare", "u4"),
    ]
)
VECTOR = np.dtype([("base", "u8"), ("bytes", "u8")])
# struct cmsghdr with a struct in_pktinfo, padded: the address of ours that a datagram came to, or is to come from.
CONTROL = np.dtype(
    [
        ("bytes", "u8"),
        ("level", "i4"),
        ("kind", "i4"),
        ("interface", "i4"),
        ("source", "u4"),  # ipi_spec_dst
        ("destination", "u4"),  # ipi_addr
        ("spare", "u4"),
    ]
)
CONTROL_BYTES = CONTROL.itemsize
MESSAGES = 64
# A datagram over IPv4 has 65,507 bytes at most, so none is ever cut off. One line more sets the buffers' beginnings
# apart: with a power of two between them, all would fall to the same few lines of the caches.
DATAGRAM_BYTES = 65536
_STRIDE = DATAGRAM_BYTES + 64


class Exchange(NamedTuple):
    """The memory through which one thread passes arguments to system calls and gets answers.

    events   EPOLL_EVENT[EVENTS], filled by ``wait``
    event    EPOLL_EVENT[1], read by ``watch``
    address  SOCKADDR[1]
    length   uint32[1]
    option   int32[16]
    time     int64[2]: seconds and nanoseconds
    """

    events: np.ndarray
    event: np.ndarray
    address: np.ndarray
    length: np.ndarray
    option: np.ndarray
    time: np.ndarray


class Messages(NamedTuple):
    """The memory of a batch of datagrams: what is received is sent on from where it is.

    buffers   uint8[MESSAGES, DATAGRAM_BYTES and some]
    incoming  MESSAGE[MESSAGES], filled by ``receive_messages``
    senders   SOCKADDR[MESSAGES], likewise
    whole     VECTOR[MESSAGES]: the buffers, for incoming
    arrivals  CONTROL[MESSAGES], likewise where the socket asks for IP_PKTINFO
    outgoing  MESSAGE[MESSAGES], all to receiver
    receiver  SOCKADDR[1]
    sender    CONTROL[1], for outgoing: where they come from
    filled    VECTOR[MESSAGES]: what was received in each buffer, for outgoing
    """

    buffers: np.ndarray
    incoming: np.ndarray
    senders: np.ndarray
    whole: np.ndarray
    arrivals: np.ndarray
    outgoing: np.ndarray
    receiver: np.ndarray
    sender: np.ndarray
    filled: np.ndarray


def create_messages() -> Messages:
    """Memory for ``MESSAGES`` datagrams of any length; a page of it is taken once it has been used."""
    messages = Messages(
        buffers=np.empty((MESSAGES, _STRIDE), np.uint8),
        incoming=np.zeros(MESSAGES, MESSAGE),
        senders=np.zeros(MESSAGES, SOCKADDR),
        whole=np.zeros(MESSAGES, VECTOR),
        arrivals=np.zeros(MESSAGES, CONTROL),
        outgoing=np.zeros(MESSAGES, MESSAGE),
        receiver=np.zeros(1, SOCKADDR),
        sender=np.zeros(1, CONTROL),
        filled=np.zeros(MESSAGES, VECTOR),
    )
    messages.whole["base"] = messages.filled["base"] = _places(messages.buffers)
    messages.whole["bytes"] = DATAGRAM_BYTES
    messages.incoming["vector"], messages.incoming["name"] = _places(messages.whole), _places(messages.senders)
    messages.outgoing["vector"], messages.outgoing["name"] = _places(messages.filled), _places(messages.receiver)
    for each in (messages.incoming, messages.outgoing):
        each["name_bytes"], each["vectors"] = SOCKADDR_BYTES, 1
    messages.incoming["control"], messages.outgoing["control"] = _places(messages.arrivals), _places(messages.sender)
    messages.incoming["control_bytes"] = CONTROL_BYTES
    messages.sender[0] = (CONTROL_BYTES - 4, IPPROTO_IP, IP_PKTINFO, 0, 0, 0, 0)
    return messages


def _places(rows: np.ndarray) -> np.ndarray:
    """Where in memory each row begins."""
    return np.uint64(rows.ctypes.data) + np.arange(len(rows), dtype=np.uint64) * np.uint64(rows.strides[0])


def create_exchange() -> Exchange:
    return Exchange(
        events=np.zeros(EVENTS, EPOLL_EVENT),
        event=np.zeros(1, EPOLL_EVENT),
        address=np.zeros(1, SOCKADDR),
        length=np.zeros(1, np.uint32),
        option=np.zeros(16, np.int32),
        time=np.zeros(2, np.int64),
    )


def _libc(name: str, signature: Any) -> Any:
    return types.ExternalFunction(name, signature)


_int: Any = types.intc
_long: Any = types.intp
_size: Any = types.uintp
_address: Any = types.uintp
_errno_location = _libc("__errno_location", types.CPointer(types.intc)())
_clock_gettime = _libc("clock_gettime", _int(_int, _address))
_socket = _libc("socket", _int(_int, _int, _int))
_accept4 = _libc("accept4", _int(_int, _address, _address, _int))
_bind = _libc("bind", _int(_int, _address, types.uint32))
_connect = _libc("connect", _int(_int, _address, types.uint32))
_getsockname = _libc("getsockname", _int(_int, _address, _address))
_setsockopt = _libc("setsockopt", _int(_int, _int, _int, _address, types.uint32))
_getsockopt = _libc("getsockopt", _int(_int, _int, _int, _address, _address))
_recv = _libc("recv", _long(_int, _address, _size, _int))
_send = _libc("send", _long(_int, _address, _size, _int))
_sendto = _libc("sendto", _long(_int, _address, _size, _int, _address, types.uint32))
_recvmmsg = _libc("recvmmsg", _int(_int, _address, types.uintc, _int, _address))
_sendmmsg = _libc("sendmmsg", _int(_int, _address, types.uintc, _int))
_pipe2 = _libc("pipe2", _int(_address, _int))
_fcntl = _libc("fcntl", _int(_int, _int, _int))
_splice = _libc("splice", _long(_int, _address, _int, _address, _size, types.uintc))
_shutdown = _libc("shutdown", _int(_int, _int))
_close = _libc("close", _int(_int))
_sched_yield = _libc("sched_yield", _int())
_epoll_ctl = _libc("epoll_ctl", _int(_int, _int, _int, _address))
_epoll_wait = _libc("epoll_wait", _int(_int, _address, _int, _int))
# epoll_pwait2(2) by its number, which both machines share: libc has a name for it only since glibc 2.35.
_syscall = _libc("syscall", _long(_long, _long, _address, _long, _address, _long, _long))


@intrinsic
def _load(typing_context, pointer):
    """The C int that a pointer points at."""

    def generate(context, builder, signature, arguments):
        return builder.load(arguments[0])

    return types.intc(pointer), generate


@kernel
def _answer(returned):
    """What a call returned, or ``-errno``. To be asked before anything else is called."""
    if returned != -1:
        return np.int64(returned)
    return np.int64(-_load(_errno_location()))  # type: ignore[call-arg]  # an intrinsic's context is implied


@kernel
def swap16(number):
    """A port in the other byte order."""
    return np.uint16(((number & 0xFF) << 8) | ((number >> 8) & 0xFF))


@kernel
def swap32(number):
    """An IPv4 address in the other byte order."""
    low = ((number & 0xFF) << 24) | ((number & 0xFF00) << 8)
    return np.uint32(low | ((number >> 8) & 0xFF00) | ((number >> 24) & 0xFF))


@kernel
def monotonic_ns(exchange):
    """CLOCK_MONOTONIC in ns, the clock of Python's ``time.monotonic_ns``."""
    _clock_gettime(CLOCK_MONOTONIC, exchange.time.ctypes.data)
    return exchange.time[0] * 1_000_000_000 + exchange.time[1]


@inner
def stream_socket():
    """A new nonblocking IPv4 TCP socket, closed on exec."""
    return _answer(_socket(AF_INET, STREAM_SOCKET, 0))


@inner
def datagram_socket():
    """A new nonblocking IPv4 UDP socket, closed on exec."""
    return _answer(_socket(AF_INET, DATAGRAM_SOCKET, 0))


@kernel
def accept(exchange, fd):
    """The next connection of a listener, nonblocking; the peer is left in ``exchange.address``."""
    exchange.length[0] = SOCKADDR_BYTES
    return _answer(_accept4(fd, exchange.address.ctypes.data, exchange.length.ctypes.data, NONBLOCKING))


@kernel
def _put_address(exchange, ip, port):
    address = exchange.address[0]
    address.family = AF_INET
    address.port = swap16(port)
    address.ip = swap32(ip)


@kernel
def bind(exchange, fd, ip, port):
    _put_address(exchange, ip, port)
    return _answer(_bind(fd, exchange.address.ctypes.data, SOCKADDR_BYTES))


@kernel
def connect(exchange, fd, ip, port):
    _put_address(exchange, ip, port)
    return _answer(_connect(fd, exchange.address.ctypes.data, SOCKADDR_BYTES))


@inner
def own_address(exchange, fd):
    """``getsockname``: the socket's own address is left in ``exchange.address``."""
    exchange.length[0] = SOCKADDR_BYTES
    return _answer(_getsockname(fd, exchange.address.ctypes.data, exchange.length.ctypes.data))


@kernel
def segment_bytes(exchange, fd):
    """``TCP_MAXSEG`` of a connection: the longest segment that the other side takes."""
    exchange.length[0] = 4
    returned = _answer(
        _getsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, exchange.option.ctypes.data, exchange.length.ctypes.data)
    )
    return returned if returned < 0 else np.int64(exchange.option[0])


@inner
def set_option(exchange, fd, level, option, value):
    """Set an integer socket option."""
    exchange.option[0] = value
    return _answer(_setsockopt(fd, level, option, exchange.option.ctypes.data, 4))


@kernel
def overflowed(exchange, fd):
    """How many datagrams the socket's queue has had no room for; 0 where the system does not say."""
    exchange.option[8] = 0  # SK_MEMINFO_DROPS
    exchange.length[0] = 36
    _getsockopt(fd, SOL_SOCKET, SO_MEMINFO, exchange.option.ctypes.data, exchange.length.ctypes.data)
    return np.int64(exchange.option[8])


@inner
def reset_on_close(exchange, fd):
    """``SO_LINGER`` with a time of 0: ``close`` throws away what is unsent and sends RST."""
    exchange.option[0] = 1
    exchange.option[1] = 0
    return _answer(_setsockopt(fd, SOL_SOCKET, SO_LINGER, exchange.option.ctypes.data, 8))


@kernel
def receive(fd, buffer):
    """``recv`` into a slice of uint8."""
    return _answer(_recv(fd, buffer.ctypes.data, buffer.size, 0))


@inner
def peek(fd, buffer):
    """The same, of bytes that stay where they are."""
    return _answer(_recv(fd, buffer.ctypes.data, buffer.size, MSG_PEEK))


@inner
def transmit(fd, buffer):
    """``send`` a slice of uint8; a broken pipe is an error and no signal."""
    return _answer(_send(fd, buffer.ctypes.data, buffer.size, MSG_NOSIGNAL))


@inner
def transmit_last(fd, buffer):
    """The same, of bytes that wait for ``end_sending``, which is to come at once, and go in one packet with it."""
    return _answer(_send(fd, buffer.ctypes.data, buffer.size, MSG_NOSIGNAL | MSG_MORE))


@inner
def transmit_to(exchange, fd, packet, ip):
    """``sendto`` of a whole packet, IP header and all, by a raw socket."""
    _put_address(exchange, ip, 0)
    address = exchange.address.ctypes.data
    return _answer(_sendto(fd, packet.ctypes.data, packet.size, MSG_DONTWAIT, address, SOCKADDR_BYTES))


@kernel
def pipe(exchange):
    """A new nonblocking pipe, closed on exec; the ends to read from and write to are left in ``exchange.option``."""
    return _answer(_pipe2(exchange.option.ctypes.data, PIPE))


@inner
def size_pipe(fd, size):
    """Have a pipe hold so many bytes, a page in each place. Returns how many it holds."""
    return _answer(_fcntl(fd, F_SETPIPE_SZ, size))


@kernel
def splice(source, sink, count):
    """Move at most so many bytes between a pipe and a socket. A broken pipe is a signal too, which Python ignores."""
    return _answer(_splice(source, 0, sink, 0, np.uintp(count), SPLICE))


@kernel
def receive_messages(messages, fd):
    """``recvmmsg``: the datagrams that wait, ``MESSAGES`` at most. Fewer mean that no more wait, or that the next call
    will answer what is wrong.
    """
    count = _answer(_recvmmsg(fd, messages.incoming.ctypes.data, MESSAGES, MSG_DONTWAIT, 0))
    for i in range(count):
        messages.incoming[i].name_bytes = SOCKADDR_BYTES
        messages.incoming[i].control_bytes = CONTROL_BYTES
        messages.filled[i].bytes = messages.incoming[i].bytes
    return count


@inner
def transmit_message(messages, fd, i):
    """``send`` datagram ``i`` of those received to whom the socket is connected to."""
    return _answer(_send(fd, np.uintp(messages.filled[i].base), np.uintp(messages.filled[i].bytes), MSG_NOSIGNAL))


@kernel
def send_from(messages, count, ip):
    """Have the next ``send_messages`` send its first ``count`` from an address of ours; 0: from that of the socket."""
    messages.sender[0].source = swap32(ip)
    for i in range(count):
        messages.outgoing[i].control_bytes = CONTROL_BYTES if ip != 0 else 0


@kernel
def send_messages(messages, fd, first, end, ip, port):
    """``sendmmsg``: datagrams ``first`` to ``end - 1`` of those received to one address. Returns how many were sent."""
    receiver = messages.receiver[0]
    receiver.family = AF_INET
    receiver.port = swap16(port)
    receiver.ip = swap32(ip)
    rest = messages.outgoing[first:end]
    return _answer(_sendmmsg(fd, rest.ctypes.data, np.uint32(rest.size), MSG_NOSIGNAL))


@inner
def end_sending(fd):
    """``shutdown(SHUT_WR)``: FIN after what is in the socket's buffer."""
    return _answer(_shutdown(fd, SHUT_WR))


@kernel
def close(fd):
    return _answer(_close(fd))


@kernel
def give_way():
    """``sched_yield``: let another thread have the core."""
    return _answer(_sched_yield())


@kernel
def watch(exchange, epoll, fd, events, key, serial):
    """Add a descriptor to an epoll set; its events will carry ``key`` and ``serial``."""
    return _ask_for(exchange, epoll, EPOLL_CTL_ADD, fd, events, key, serial)


@inner
def rewatch(exchange, epoll, fd, events, key, serial):
    """The same of one that is in the set: have it tell of other events. Those that are there by now are told, too."""
    return _ask_for(exchange, epoll, EPOLL_CTL_MOD, fd, events, key, serial)


@kernel
def _ask_for(exchange, epoll, how, fd, events, key, serial):
    event = exchange.event[0]
    event.events, event.key, event.serial = events, key, serial
    return _answer(_epoll_ctl(epoll, how, fd, exchange.event.ctypes.data))


@inner
def unwatch(epoll, fd):
    """Hear of a descriptor no more. 0 or ``-errno``."""
    return _answer(_epoll_ctl(epoll, EPOLL_CTL_DEL, fd, 0))


@kernel
def wait(exchange, epoll, timeout_ms):
    """Wait for events for at most so long; they are left in ``exchange.events``."""
    return _answer(_epoll_wait(epoll, exchange.events.ctypes.data, EVENTS, timeout_ms))


@kernel
def patience_ms(now_ns, until_ns):
    """How long to wait in ``wait``, int64: rounded up, so that the time has come when it is over; 0 once it has."""
    return max(np.int64(0), (until_ns - now_ns + 999_999) // 1_000_000)


@inner
def wait_ns(exchange, epoll, timeout_ns):
    """The same by nanoseconds; ``-ENOSYS`` where the kernel is older than Linux 5.11."""
    exchange.time[0] = timeout_ns // 1_000_000_000
    exchange.time[1] = timeout_ns % 1_000_000_000
    events, timeout = exchange.events.ctypes.data, exchange.time.ctypes.data
    return _answer(_syscall(SYS_EPOLL_PWAIT2, epoll, events, EVENTS, timeout, 0, 0))
