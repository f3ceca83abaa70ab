"""``python -m harness.peers.web.backends ADDRESSES``: the backends' process, one server for all of them.

ADDRESSES is JSON: address and port of each. ``/bytes/N`` answers N bytes, a POST its own checksum, anything else the
Host that arrived. Every answer says in X-Backend whose it is. It says ``ready`` once all listen, and answers until
standard input ends.
"""

import asyncio
import functools
import json
import sys
import zlib
from typing import cast

import uvloop

from harness.peers.web.workloads import ANSWERS, POSTED
from plane.descriptors import allow_descriptors

BACKLOG = 4096
BODIES = {b"/bytes/%d" % size: bytes(range(32, 127)) * (size // 95 + 1) for size in ANSWERS}


def body_of(size: int) -> bytes:
    """The body of the answer at /bytes/``size``."""
    return BODIES[b"/bytes/%d" % size][:size]


def receipt(body: bytes) -> bytes:
    """The body of the answer to a POST: what arrived, as a checksum, filled up to POSTED bytes."""
    return f"{len(body)} {zlib.crc32(body):08x}".encode().ljust(POSTED)


class Backend(asyncio.Protocol):
    """One connection. Requests come from proxies: one at a time, well-formed, with Content-Length or no body."""

    def __init__(self, name: bytes, ready: dict[bytes, bytes]):
        self._name = name
        self._ready = ready
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)

    def data_received(self, data: bytes) -> None:
        self._data = data = self._data + data
        size = data.find(b"\r\n\r\n") + 4
        if size < 4:
            return
        _, target, _ = data[:size].split(b" ", 2)
        answer = self._ready.get(target)
        if answer is None:
            body_size = int(_field(data[:size], b"content-length") or 0)
            if len(data) < size + body_size:
                return
            body = data[size : size + body_size]
            size += body_size
            answer = answered(self._name, receipt(body) if target == b"/post" else _field(data[:size], b"host"))
        self._data = data[size:]
        if b"onnection: close" in data:
            self._transport.write(answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            self._transport.close()
            return
        self._transport.write(answer)


def answered(name: bytes, body: bytes) -> bytes:
    """A whole answer."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nX-Backend: %b\r\nContent-Length: %d\r\n\r\n"
    return head % (name, len(body)) + body


def _field(head: bytes, name: bytes) -> bytes:
    for line in head.split(b"\r\n")[1:]:
        key, _, text = line.partition(b":")
        if key.lower() == name:
            return text.strip()
    return b""


async def serve(addresses: list[tuple[str, int]]) -> None:
    """Returns when standard input ends."""
    loop = asyncio.get_running_loop()
    for ip, port in addresses:
        name = f"{ip}:{port}".encode()
        ready = {b"/bytes/%d" % size: answered(name, body_of(size)) for size in ANSWERS}
        await loop.create_server(functools.partial(Backend, name, ready), ip, port, backlog=BACKLOG)
    print("ready", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main() -> None:
    allow_descriptors(20_000)
    uvloop.run(serve([(ip, port) for ip, port in json.loads(sys.argv[1])]))


if __name__ == "__main__":
    main()
