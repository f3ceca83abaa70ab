"""Connections to hosts that URLs name, by HTTP and by HTTPS: whom a request is not for, but who is asked or told of it.

Law: connections are kept alive and given up as those of the Pool, whose clock they share; a name is asked for as that
of an ExternalName is, the cluster's own names first. Certificates are not verified, as NGINX does not by default.
"""

import asyncio
import os
import ssl
from urllib.parse import SplitResult

from plane.dns.resolver import UnresolvedError
from plane.ingress import forwarding
from plane.ingress.connection import Connection, UnansweredError
from plane.ingress.external import Hosts
from plane.ingress.upstream import Address, Endpoint, Pool
from plane.routes import External
from plane.sharing import ensure_accepted

BODY_BYTES = 1 << 16  # of an answer that are read so that its connection can be used again
PLACES = 1024  # that connections are kept to: clients may choose some of them
Place = tuple[Address, str]  # where, and the name that TLS is asked for, empty without TLS


class Outside:
    """Use from one event loop.

    connect_s    how long a connection may take
    may_be_here  a name may lead to this ingress itself
    """

    def __init__(self, pool: Pool, hosts: Hosts, connect_s: float, *, may_be_here: bool):
        self._pool = pool
        self._connect_s = connect_s
        self._addresses = hosts.anywhere if may_be_here else hosts.addresses
        self._places: dict[Place, Endpoint] = {}
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE

    async def answer(self, url: SplitResult, method: str, data: bytes) -> tuple[int, tuple[bytes, ...]]:
        """Status and fields of the answer to a whole request; sent again where a kept connection goes stale under it.

        Raises UnansweredError.
        """
        connection = await self.connection(url, fresh=method not in forwarding.IDEMPOTENT)
        try:
            return await _asked(connection, method, data)
        except UnansweredError as error:
            if not connection.used or not error.no_answer:
                raise
        return await _asked(await self.connection(url, fresh=True), method, data)

    async def connection(self, url: SplitResult, *, fresh: bool = False) -> Connection:
        """A connection to the host of a URL; an idle one, unless it is to be ``fresh``. Raises UnansweredError."""
        host, port = _named(url)
        try:
            addresses = await self._addresses(External(host, port))
        except UnresolvedError as problem:
            raise UnansweredError(502, f"{host} cannot be reached: {problem}", unsent=True) from problem
        failure = UnansweredError(502, f"{host} has no address", unsent=True)
        for address in addresses:
            endpoint = self._endpoint((address, host if url.scheme == "https" else ""))
            while endpoint.idle and not fresh:
                connection = endpoint.idle.pop()
                if connection.is_quiet:
                    return connection
                connection.abort()
            try:
                return await self._connected(endpoint, host if url.scheme == "https" else "")
            except UnansweredError as error:
                failure = error
        raise failure

    async def _connected(self, endpoint: Endpoint, tls_name: str) -> Connection:
        """A new connection. Raises UnansweredError."""
        ip, port = endpoint.address
        tls = self._tls if tls_name else None
        try:
            async with asyncio.timeout(self._connect_s):
                transport, connection = await self._pool.loop.create_connection(
                    lambda: Connection(self._pool, endpoint), ip, port, ssl=tls, server_hostname=tls_name or None
                )
            ensure_accepted(transport)
        except TimeoutError:
            raise UnansweredError(504, f"no connection within {self._connect_s:g} s", unsent=True) from None
        except OSError as error:
            raise UnansweredError(502, f"no connection: {_why(error)}", unsent=True) from error
        return connection

    def _endpoint(self, place: Place) -> Endpoint:
        if place not in self._places:
            if len(self._places) >= PLACES:
                self._places.pop(next(iter(self._places))).leave()
            self._places[place] = Endpoint(place[0], self._pool.loop.time())
        return self._places[place]


async def _asked(connection: Connection, method: str, data: bytes) -> tuple[int, tuple[bytes, ...]]:
    """Status and fields of the answer to one request. Raises UnansweredError."""
    try:
        connection.send(data, bodiless=method == "HEAD")
        await connection.head()
        size = 0
        while size <= BODY_BYTES and (piece := await connection.read()):
            size += len(piece)
    except BaseException:
        connection.abort()
        raise
    found = connection.status, tuple(connection.lines)
    connection.release()
    return found


def _named(url: SplitResult) -> tuple[str, int]:
    """Host and port that a URL names. Raises UnansweredError."""
    try:
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
    except ValueError:
        host, port = "", 0
    if not port or not forwarding.is_authority(url.netloc.encode("latin-1", "replace")):
        raise UnansweredError(502, f"{url.netloc} is no host", unsent=True)
    return host, port


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS: {error.reason or 'it failed'}"
    return os.strerror(error.errno) if error.errno else str(error)
