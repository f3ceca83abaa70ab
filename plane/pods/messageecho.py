"""trafficplane/echo: what comes is sent back as it is, over TCP and UDP, on the ports that its container declares."""

import asyncio
from typing import cast

from plane.pods.server import Deadline, Server, UdpServer, Workload, descriptors, listening, quiet, until
from plane.pods.spec import ContainerSpec, Listen, StartError

PROGRAM = "echo"


def workload(spec: ContainerSpec) -> Workload:
    """Raises StartError where the container declares no port, or has arguments."""
    if arguments := spec.arguments(PROGRAM):
        raise StartError("RunContainerError", f"{PROGRAM}: {arguments[0]} is no flag of it, it has none")
    tcp, udp = spec.ports(), spec.ports("UDP")
    if not tcp and not udp:
        what = f"{PROGRAM}: listens on the ports that are declared: declare one, as containerPort: 9000"
        raise StartError("RunContainerError", what)
    servers: list[Server] = [StreamEcho(spec.listen(port)) for port in tcp]
    return Workload([*servers, *(UdpServer(spec.listen(port), lambda data, client: data) for port in udp)])


class StreamEcho(Server):
    """TCP: each connection gets its own bytes back. When it drains, what has come by then is still sent."""

    def __init__(self, listen: Listen):
        self._listen = listen
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Transport] = set()
        self._received = 0

    async def start(self) -> None:
        self._listener = await listening(lambda: _Connection(self), self._listen)

    async def drain(self, deadline: Deadline) -> None:
        await quiet(lambda: self._received, deadline)
        if self._listener is not None:
            self._listener.close()
        for transport in list(self._connections):
            transport.close()  # what is not sent yet is sent first
        await until(lambda: not self._connections, deadline)
        await self.abort()

    async def abort(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for transport in list(self._connections):
            transport.abort()

    def descriptors(self) -> list[int]:
        return descriptors(self._listener, self._connections)

    def opened(self, transport: asyncio.Transport) -> None:
        self._connections.add(transport)
        self.received()

    def received(self) -> None:
        self._received += 1

    def closed(self, transport: asyncio.Transport) -> None:
        self._connections.discard(transport)


class _Connection(asyncio.Protocol):
    def __init__(self, server: StreamEcho):
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.opened(self._transport)

    def data_received(self, data: bytes) -> None:
        self._server.received()
        self._transport.write(data)

    def pause_writing(self) -> None:
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        self._server.closed(self._transport)
