"""What a client's connection becomes after an upgrade: bytes for the endpoint, unread."""

from aiohttp import web

from plane.ingress.connection import Connection


class Tunnel:
    """The half from client to endpoint, in the place of aiohttp's parser; it reads at the pace of the endpoint."""

    def __init__(self, client: web.RequestHandler, connection: Connection):
        self._client = client
        self._connection = connection

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        drained = self._connection.push(data)
        transport = self._client.transport
        if drained is not None and transport is not None:
            transport.pause_reading()
            drained.add_done_callback(lambda _: transport.resume_reading())
        return False, b""

    def feed_eof(self) -> None:
        self._connection.abort()
