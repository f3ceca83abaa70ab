"""A listener that many frontends share: one on every loopback address of a port, in place of one for each.

Law: a shared listener answers for the frontends that all nodes serve at a loopback address, without session affinity,
and for nothing else that it catches: not for a node's own addresses, of which only that node may know that it lives,
and not for what is no frontend. It bears a mark, so that whoever connects to a pod that is dead, and meets the shared
listener of the port instead, knows that he has been refused.
"""

import numpy as np

from kernels.jit import kernel
from kernels.layout import MARKS, TCP
from kernels.lb.frontends import find_frontend
from kernels.net import syscalls

LOOPBACK = 127  # first octet


def shareable(frontends: np.ndarray) -> np.ndarray:
    """Which of FRONTEND[…] a shared listener answers for, bool[…]; ``answers`` is the same for one."""
    return (frontends["node"] == 0) & (frontends["affinity"] == 0) & (frontends["ip"] >> 24 == LOOPBACK)


@kernel
def answers(fib, ip, port, proto):
    """Whether a shared listener answers for what came to this address."""
    row = find_frontend(fib, ip, port, proto)
    if row == 0:
        return False
    frontend = fib.frontends[row]
    return frontend["node"] == 0 and frontend["affinity"] == 0 and ip >> 24 == LOOPBACK


@kernel
def refuses(fib, exchange, fd, backend):
    """Whether a connection to a backend has met a shared listener that does not answer for its address."""
    segment_bytes = syscalls.segment_bytes(exchange, fd)
    if segment_bytes != MARKS[0] and segment_bytes != MARKS[1]:
        return False
    return not answers(fib, backend["ip"], backend["port"], np.uint8(TCP))
