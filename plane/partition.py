"""A network that is torn on one machine: some nodes with their pods, and everybody else, lose each other's packets.

Law: Linux drops what comes from the other side before a program sees it, and tells nobody, as a network does that has
lost a cable: nothing is refused or reset, and what is lost is sent again until the network is whole, or times out. A
classic BPF program on each socket does so (socket(7), SO_ATTACH_FILTER), which needs no privilege. A socket stands on
the side of its address: that of a node, of a pod, or of the Ingress. Sockets of Services' addresses and of strangers
stand on none, and what they send to the other side is lost there: a relay asks pods by its client's own address.

What the plane itself says to its nodes, by Ray, does not go over this network. They keep their tables current, and
nobody is told of the tear, as in the first seconds of one in a cluster (``GIVEN_UP_S``).
"""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator

from plane.addresses import AddressPlan, ip_to_int
from plane.reuseport import (
    AND,
    JUMP_IF_EQUAL,
    LOAD_WORD,
    RETURN_NUMBER,
    SO_ATTACH_FILTER,
    SOURCE,
    WHOLE,
    attach,
)

# After so long a cluster takes the endpoints of a node that it does not hear of out: kube-controller-manager's
# --node-monitor-grace-period, which is 50 s since Kubernetes 1.32.
GIVEN_UP_S = 40
SO_DETACH_FILTER = 27  # <asm-generic/socket.h>
_ELSEWHERE = 0  # the side of the Ingress, which no node has
_ONE, _RANGE = 0xFFFFFFFF, 0xFFFFFF00  # masks of an address, and of a node's range

_tearing = threading.Lock()
_torn: dict[AddressPlan, frozenset[int]] = {}  # by plan, the nodes of it that are cut off


def tear(plan: AddressPlan, nodes: frozenset[int]) -> None:
    """Cut these nodes off, and no others, for all sockets of this process that there are and that ``take_side``."""
    with _tearing:  # nodes and ingresses of one process are told each by itself
        _torn[plan] = nodes
        for each in _sockets():
            _attach(each, plan, nodes)
        if not nodes:
            del _torn[plan]


def take_side(bound: socket.socket) -> None:
    """Have a socket that will listen, and is bound, lose what is lost on its side; who comes to it inherits that."""
    for plan, nodes in list(_torn.items()):
        _attach(bound, plan, nodes)


def _attach(each: socket.socket, plan: AddressPlan, nodes: frozenset[int]) -> None:
    with contextlib.suppress(OSError):  # it is closed meanwhile, or there is nothing to take away
        side = _side(each.getsockname()[0], plan)
        if side is None:
            return
        if nodes:
            attach(each, _program(side, plan, nodes), SO_ATTACH_FILTER)
        else:
            each.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)


def _side(ip: str, plan: AddressPlan) -> int | None:
    """The node that an address is of; None where it is of no side."""
    if ip == plan.vip(1):
        return _ELSEWHERE
    number = ip_to_int(ip)
    nodes = int(plan.nodes.network_address)
    return (number - nodes if number & _RANGE == nodes else plan.node_of(ip)) or None


def _program(side: int, plan: AddressPlan, nodes: frozenset[int]) -> tuple[tuple[int, int], ...]:
    """Keeps what comes from the same node where that is cut off, else all but what comes from one that is."""
    matching, others = (WHOLE, 0) if side in nodes else (0, WHOLE)
    program: list[tuple[int, int]] = []
    for node in (side,) if side in nodes else sorted(nodes):
        for address, mask in (plan.node(node), _ONE), (str(plan.pods_of(node)[0]), _RANGE):
            program += (LOAD_WORD, SOURCE), (AND, mask), (JUMP_IF_EQUAL, ip_to_int(address)), (RETURN_NUMBER, matching)
    return (*program, (RETURN_NUMBER, others))


def _sockets() -> Iterator[socket.socket]:
    """This process' sockets of IPv4, each for a moment; they may be other threads', which close them as they like."""
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptor = os.dup(int(name))
        except OSError:
            continue
        try:
            each = socket.socket(fileno=descriptor)
        except OSError:  # it is no socket
            os.close(descriptor)
            continue
        with each:
            if each.family == socket.AF_INET:
                yield each
