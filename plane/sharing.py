"""Ports on which one listener serves many frontends, and how others on the machine live beside it.

A *shared* listener is bound to 0.0.0.0 on the loopback device. Linux gives it what comes to a loopback address of its
port that no socket is bound to by name, so 10,000 Services on one port cost one listener a node
(``kernels.net.shared`` says what it answers).

Law: a port is shared where that saves much and harms little. Much: from ``SHARE_FROM`` frontends on; with fewer, each
has a listener of its own, what is no frontend is refused by the machine itself, and nobody else's address is touched.
Little: one plane on a machine shares a port, for two would get each other's connections; and UDP is shared only by who
can say that nobody is there (``kernels.net.refusal``). Where a port cannot be shared, each frontend has a listener.
"""

import asyncio
import errno
import os
import secrets
import socket
from pathlib import Path

from kernels.layout import MARKS, UDP
from plane.addresses import AddressPlan, is_service_address

# So many listeners are nothing to a process that may have tens of thousands, and hardly a laptop's plane has more
# Services on one port. With half of that, the port is not shared any more: between the two it stays as it is. (A node
# that starts in between listens at each address, and so gets all that comes there: a bound address goes before.)
SHARE_FROM = 64
SHARE_UNTIL = SHARE_FROM // 2

_LISTENING = {socket.SOCK_STREAM: ("tcp", "0A"), socket.SOCK_DGRAM: ("udp", "07")}  # /proc/net: file, state


def claim(plan: AddressPlan, port: int, proto: int) -> socket.socket:
    """Keeps a port for sharing by this plane, until it is closed. Raises OSError where another has it.

    The claim is the name of an abstract socket, as that of ``addresses.claimed`` is; each node has one, as each may
    outlive the others. It is made before it is looked whether others are there: of two planes, one at least sees both.
    """
    kind = "UDP" if proto == UDP else "TCP"
    mine = f"trafficplane-shares-{port}-{kind}-instance-{plan.instance}-"
    claimed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claimed.bind(f"\0{mine}{secrets.token_hex(8)}")
        table = Path("/proc/net/unix").read_text(errors="surrogateescape")  # names of others may be any bytes
        names = (line.rpartition(" ")[2] for line in table.split("\n"))
        if any(name.startswith(f"@trafficplane-shares-{port}-{kind}-") and f"@{mine}" not in name for name in names):
            raise OSError(errno.EADDRINUSE, "another plane of this machine shares the port")
    except BaseException:
        claimed.close()
        raise
    return claimed


def refuser() -> socket.socket | None:
    """The raw socket by which a relay refuses datagrams; None where this process may not have one."""
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.IPPROTO_RAW)
    except OSError:
        return None


def bind_alone(bound: socket.socket, address: str, port: int) -> None:
    """Bind a socket to an address that it is to have for itself, whether the port is shared, will be, or not.

    Linux lets a socket be bound beside a shared listener only by SO_REUSEPORT, which would let two be bound to one
    address as well: so the first try is without, and who needs it looks for the other. Raises OSError.
    """
    try:
        bound.bind((address, port))
    except OSError as problem:
        if problem.errno != errno.EADDRINUSE or _is_taken(socket.SocketKind(bound.type), address, port):
            raise
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((address, port))
    else:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _is_taken(kind: socket.SocketKind, address: str, port: int) -> bool:
    """Whether a socket is bound to just this address."""
    table, state = _LISTENING[kind]
    place = f" {socket.inet_aton(address)[::-1].hex().upper()}:{port:04X} "
    with Path(f"/proc/net/{table}").open() as lines:
        return any(place in line and line.split()[3] == state for line in lines)


def ensure_accepted(transport: asyncio.WriteTransport) -> None:
    """Abort a new connection to a pod that has met a shared listener instead: the pod does not listen, a reset follows.

    Raises ConnectionRefusedError then, and ConnectionResetError where the reset is here already.
    """
    connected = transport.get_extra_info("socket")
    try:
        if connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) not in MARKS:
            return
        host, *_ = connected.getpeername()
        if is_service_address(host):
            return
        number = errno.ECONNREFUSED
    except OSError:  # it is not connected any more
        number = errno.ECONNRESET
    transport.abort()
    raise OSError(number, os.strerror(number))
