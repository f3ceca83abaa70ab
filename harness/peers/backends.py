"""``python -m harness.peers.backends DESKS``: the backends' process, one responder for all of them.

DESKS is JSON: protocol, address, port and bytes of an answer of each. It says ``ready`` once all listen, and answers
until standard input ends.
"""

import json
import os
import select
import socket
import sys
import threading
import time

from harness.peers.workloads import MOST_CONNECTIONS, REQUEST_BYTES
from kernels import warm
from kernels.layout import TCP, UDP
from kernels.net import responder
from plane.descriptors import allow_descriptors

BREATH_NS = 250_000_000
BACKLOG = 4096
DATAGRAMS_BYTES = 1 << 22  # that may wait; Linux gives less where net.core.rmem_max is less


def listening(protocol: str, ip: str, port: int) -> socket.socket:
    """A nonblocking socket that listens. Raises OSError."""
    kind = socket.SOCK_STREAM if protocol == "TCP" else socket.SOCK_DGRAM
    listener = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
    if protocol == "TCP":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
    else:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAMS_BYTES)
    listener.bind((ip, port))
    if protocol == "TCP":
        listener.listen(BACKLOG)
    return listener


def main() -> None:
    """Answers until standard input ends, which also the end of whoever holds the other end of it brings about."""
    warm.warm()
    allow_descriptors(2 * MOST_CONNECTIONS + 1024)
    desks = json.loads(sys.argv[1])
    sockets = [listening(protocol, ip, port) for protocol, ip, port, _ in desks]
    rows = [
        ({"TCP": TCP, "UDP": UDP}[protocol], listener.fileno(), answer_bytes)
        for (protocol, _, _, answer_bytes), listener in zip(desks, sockets, strict=True)
    ]
    answering = responder.create(rows, 2 * MOST_CONNECTIONS, REQUEST_BYTES)
    with select.epoll() as epoll:
        answering.room[0]["epoll"] = epoll.fileno()
        if (status := responder.listen(answering)) < 0:
            raise OSError(-status, os.strerror(-status))
        threading.Thread(target=_exit_with_input, daemon=True).start()
        print("ready", flush=True)
        while responder.breath(answering, time.monotonic_ns() + BREATH_NS) == 0:
            pass


def _exit_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
