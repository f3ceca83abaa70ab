"""The DNS server of one node: UDP and TCP on the node's own address, as NodeLocal DNSCache has it.

Law: it answers from the newest Zone it was given, which it takes by one assignment. A client can do nothing to it:
bytes that are no DNS are refused or passed over, a TCP connection that says nothing is closed, and so are those in
excess.
"""

import asyncio
import contextlib
import os
import socket
from typing import cast

from plane.dns import names
from plane.dns.answers import answer
from plane.dns.names import NO_NAMES, NODE_PORT, Names
from plane.dns.zone import Zone

IDLE_S = 10.0  # for the next question on a TCP connection; RFC 7766 wants some seconds
CONNECTIONS = 512  # by TCP at one time
BACKLOG = 512
DATAGRAMS_BYTES = 1 << 20  # that may wait


class DnsServer:
    """Answers on one address. All methods are for the loop it is used in."""

    def __init__(self, address: str, port: int = NODE_PORT):
        self._address = address
        self._port = port
        self._names = NO_NAMES
        self._zone: Zone | None = None
        self._listener: asyncio.Server | None = None
        self._datagrams: asyncio.DatagramTransport | None = None
        self._connections: set[asyncio.Task] = set()
        self._stopped = False

    async def install(self, given: Names) -> tuple[str, ...]:
        """Answers from these names from here on; returns a line where it cannot listen, which is tried each time."""
        if self._zone is None or not names.equal(given, self._names):
            self._zone = await asyncio.to_thread(Zone, given, given.generation)
            self._names = given
        if self._datagrams is not None or self._stopped:
            return ()
        try:
            await self._listen()
        except OSError as problem:
            await self._close()
            why = os.strerror(problem.errno) if problem.errno else str(problem)
            what = "stop what has it, perhaps on 0.0.0.0, which is every address"
            return (f"cannot listen on {self._address}:{self._port} for cluster DNS: {why}; {what}",)
        if self._stopped:  # meanwhile
            await self._close()
        return ()

    async def stop(self) -> None:
        self._stopped = True
        await self._close()

    async def _close(self) -> None:
        if self._datagrams is not None:
            self._datagrams.abort()
            self._datagrams = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._listener = await asyncio.start_server(
            self._serve, self._address, self._port, backlog=BACKLOG, reuse_address=True
        )
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            bound.setblocking(False)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, DATAGRAMS_BYTES)
            bound.bind((self._address, self._port))
            transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), sock=bound)
        except BaseException:
            bound.close()
            raise
        self._datagrams = transport

    def answer(self, data: bytes, *, stream: bool = False) -> bytes | None:
        assert self._zone is not None
        return answer(self._zone, data, stream=stream)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One TCP connection: messages behind their length, answered in turn (RFC 7766)."""
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= CONNECTIONS:
            writer.transport.abort()
            return
        self._connections.add(task)
        try:
            with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, ConnectionError):
                while True:
                    async with asyncio.timeout(IDLE_S):
                        length = int.from_bytes(await reader.readexactly(2))
                        found = self.answer(await reader.readexactly(length), stream=True)
                        if found is None:
                            break
                        writer.write(len(found).to_bytes(2) + found)
                        await writer.drain()
        finally:
            self._connections.discard(task)
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer):
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        found = self._server.answer(data)
        if found is not None:
            self._transport.sendto(found, addr)
