"""Connections that begin with a header of the PROXY protocol, which says who the client is; listening for such.

https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt, read by the library ``proxy-protocol``.

Law: not a byte beyond the header is read here, so that TLS or HTTP follow as if it had not been there. A connection
whose header is broken, late or from somebody not trusted is closed without a word: there is nobody to answer.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import Callable

from proxyprotocol import ProxyProtocolIncompleteError
from proxyprotocol.detect import ProxyProtocolDetect
from proxyprotocol.result import ProxyResult

from plane.ingress.edge import Edge

V1_BYTES = 107  # longest header of version 1
V2_BYTES = 4096  # longest of version 2 that is taken, with its type-length-values
SHORTAGE_S = 0.05  # how long accepting pauses where descriptors have run out

Peer = tuple[str, int]


Make = Callable[[Peer | None], asyncio.BaseProtocol]


class Announced:
    """A listener whose connections are welcomed, if those may announce clients whom they come from."""

    def __init__(
        self,
        listener: socket.socket,
        make: Make,
        edge: Edge,
        *,
        tls: ssl.SSLContext | None,
        patience_s: float,
    ):
        self._listener = listener
        self._make = make
        self._edge = edge
        self._tls = tls
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._welcoming: set[asyncio.Task[None]] = set()
        self._accepting = asyncio.create_task(self._accept())

    def close(self) -> None:
        """Take no more, and leave those whose header is not here."""
        self._accepting.cancel()
        for task in self._welcoming:
            task.cancel()
        self._listener.close()

    async def wait_closed(self) -> None:
        await asyncio.gather(self._accepting, *self._welcoming, return_exceptions=True)

    async def _accept(self) -> None:
        while True:
            try:
                connection, peer = await self._loop.sock_accept(self._listener)
            except OSError:
                await asyncio.sleep(SHORTAGE_S)
                continue
            if self._edge.trusted and not self._edge.trusts(peer[0]):
                connection.close()
                continue
            task = asyncio.create_task(welcome(connection, self._make, self._tls, self._patience_s))
            self._welcoming.add(task)
            task.add_done_callback(self._welcoming.discard)


async def welcome(connection: socket.socket, make: Make, tls: ssl.SSLContext | None, patience_s: float) -> None:
    """Hand a connection to ``make(peer)``, a protocol, once its header is read, or close it."""
    try:
        async with asyncio.timeout(patience_s):
            found = await _header(connection)
    # The library's errors are ValueErrors, but where a header is shorter than its family's addresses.
    except (OSError, EOFError, ValueError, struct.error, asyncio.CancelledError):
        connection.close()
        return
    peer = found.peername if found.proxied else None
    named = (str(peer[0]), int(peer[1])) if isinstance(peer, tuple) else None
    with contextlib.suppress(OSError, ssl.SSLError):  # the transport has closed it
        await asyncio.get_running_loop().connect_accepted_socket(lambda: make(named), connection, ssl=tls)


async def _header(connection: socket.socket) -> ProxyResult:
    """What the header says. Raises OSError, EOFError, and ValueError for what is no header."""
    data = b""
    while True:
        try:
            return _PARSER.unpack(data)
        except ProxyProtocolIncompleteError as error:
            wanted = error.want_read.want_bytes
        if wanted is None:
            data += await _to_end_of_line(connection, V1_BYTES - len(data))
        elif len(data) + wanted <= V2_BYTES:
            data += await _exactly(connection, wanted)
        else:
            raise ValueError(f"a header of {len(data) + wanted} bytes")


async def _exactly(connection: socket.socket, count: int) -> bytes:
    loop, parts = asyncio.get_running_loop(), b""
    while len(parts) < count:
        part = await loop.sock_recv(connection, count - len(parts))
        if not part:
            raise EOFError
        parts += part
    return parts


async def _to_end_of_line(connection: socket.socket, most: int) -> bytes:
    """What is there up to a line feed, of which there is at least a byte."""
    if most <= 0:
        raise ValueError("a line that is too long")
    try:
        there = connection.recv(most, socket.MSG_PEEK)
    except BlockingIOError:
        there = b"?"
    return await _exactly(connection, there.find(b"\n") + 1 or len(there) or 1)


_PARSER = ProxyProtocolDetect()
