"""``python -m harness.peers.web.backends ADDRESSES``: the backends' process, one compiled server for all of them.

ADDRESSES is JSON: address and port of each. ``/bytes/N`` answers N bytes, ``/post`` POSTED bytes, anything else a
receipt of what arrived (``kernels.net.httpresponder``). Every answer says in X-Backend whose it is. It says ``ready``
once all listen, and answers until standard input ends.
"""

import contextlib
import json
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Sequence

from harness.peers.web.workloads import ANSWERS, POSTED
from kernels import warm
from kernels.net import httpresponder
from kernels.net.httpresponder import RECEIPT_BYTES, Counter
from plane.descriptors import allow_descriptors

BACKLOG = 4096
CAPACITY = 16_384
BREATH_NS = 50_000_000
PATTERN = bytes(range(32, 127))


def body_of(size: int) -> bytes:
    """The body of the answer at /bytes/``size``, and of that to a POST at /post."""
    return (PATTERN * (size // len(PATTERN) + 1))[:size]


def answered(name: bytes, body: bytes) -> bytes:
    """A whole answer."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Backend: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (name, len(body)) + body


def serve(addresses: Sequence[tuple[str, int]]) -> None:
    """Returns when standard input ends. Raises OSError."""
    over = threading.Event()
    with contextlib.ExitStack() as stack:
        counters = []
        for ip, port in addresses:
            listener = stack.enter_context(socket.create_server((ip, port), backlog=BACKLOG))
            listener.setblocking(False)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted connections inherit it
            counters.append(_counter(listener.fileno(), f"{ip}:{port}".encode()))
        responder = httpresponder.create(counters, CAPACITY)
        epoll = stack.enter_context(select.epoll())
        responder.hall[0]["epoll"] = epoll.fileno()
        if (status := httpresponder.listen(responder)) < 0:
            raise OSError(-status, os.strerror(-status))
        print("ready", flush=True)
        threading.Thread(target=_wait_for_end, args=(over,), daemon=True).start()
        while not over.is_set():
            if (status := httpresponder.breath(responder, time.monotonic_ns() + BREATH_NS)) < 0:
                raise OSError(-status, os.strerror(-status))


def _wait_for_end(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def _counter(fd: int, name: bytes) -> Counter:
    menu = {b"/bytes/%d" % size: answered(name, body_of(size)) for size in ANSWERS}
    return Counter(fd, answered(name, bytes(RECEIPT_BYTES)), {**menu, b"/post": answered(name, body_of(POSTED))}, True)


def main() -> None:
    warm.once("httpresponder", httpresponder.warm)
    allow_descriptors(CAPACITY + 64)
    serve([(ip, port) for ip, port in json.loads(sys.argv[1])])


if __name__ == "__main__":
    main()
