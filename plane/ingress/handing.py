"""What the compiled gateway hands over to the asyncio side, and how an event loop goes on with it.

Law: nothing compiled is known here, so that an ingress without a gateway does not load the compiler.
"""

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import Callable
from typing import NamedTuple, cast

Address = tuple[str, int]


class Begun(NamedTuple):
    """A request of which something has been done: its endpoint was chosen, and maybe asked.

    upstream   the connection that it was sent on, None: it was not sent; ``data`` is what came of the answer
    since_s    how long ago it was begun
    used       that connection had carried another request before; age_s: since it last gave a sign of life
    streaming  the beginning of its body is with the endpoint, and in nobody else's hands; what the client's bytes hold
               of it is the rest. Before that the endpoint gets ``owed``, which is the end of it where it is ``over``.
    waited_s   how long more of it has been waited for
    """

    address: Address
    upstream: socket.socket | None = None
    data: bytes = b""
    used: bool = False
    age_s: float = 0.0
    since_s: float = 0.0
    whole: bool = True  # all of it was sent, or will be
    streaming: bool = False
    owed: bytes = b""
    over: bool = False
    waited_s: float = 0.0


class Back(NamedTuple):
    """A client's way back to compiled code.

    take   has that go on with it, by a descriptor that says what it says; it waits for nothing
    after  so many of its requests are to be answered before
    """

    take: Callable[[int], object]
    after: int


class Carried(NamedTuple):
    """A client by TLS, carried for the asyncio side.

    end        a socket that says what it says, deciphered
    give_back  have nobody carry it any more: called with ``take``, ``keep`` and a descriptor of ``end``, the last one.
               It calls ``take()`` once what the client was told has gone to it, and its own socket is the caller's;
               or ``keep(end)``, and carries on, where the client has said more by then
    """

    end: socket.socket
    give_back: Callable[[Callable[[], object], Callable[[socket.socket], object], int], object]


class Handed(NamedTuple):
    """A client for the asyncio side: its socket, what it has sent and got no answer to, and what was begun of that.

    secured  who it is and to which port of ours it came, where the socket is not its own but says what it says by TLS
    named    who it is by the PROXY protocol; unheard: a header of that is what it begins with, and is still to be read
    back     None: it stays
    """

    client: socket.socket
    data: bytes
    begun: Begun | None
    secured: tuple[Address, int] | None = None
    named: Address | None = None
    unheard: bool = False
    back: Back | None = None


class Secured(NamedTuple):
    """A client by TLS, after its handshake, for compiled code: its descriptor, its SSL's address, and who it is.

    Both are whose this is: somebody has to go on with them, or to close them.
    """

    fd: int
    ssl: int
    peer: Address


class Waiting(asyncio.Protocol):
    """Keeps what a socket says until the protocol is there that it is meant for.

    A loop's transport owns its socket only once the call that made it has returned; a protocol that closed it before
    would leave two owners of one descriptor, and the second would close somebody else's.
    """

    def __init__(self, data: bytes):
        self._data = data
        self._ended = False

    def data_received(self, data: bytes) -> None:
        self._data += data

    def eof_received(self) -> bool:
        self._ended = True
        return True

    def give_way(self, transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
        """Have ``protocol`` go on from here."""
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        chosen = cast(asyncio.Protocol, transport.get_protocol())  # it may have chosen another
        if self._data:
            chosen.data_received(self._data)
        if self._ended and not transport.is_closing() and not chosen.eof_received():
            transport.close()


async def adopt(end: socket.socket, data: bytes, protocol: asyncio.Protocol, tls: ssl.SSLContext | None = None) -> None:
    """Have the event loop go on, by ``protocol``, with a socket that said ``data``. Raises OSError: it is closed."""
    waiting = Waiting(data)
    try:
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: waiting, end, ssl=tls)
        if transport.is_closing():
            await asyncio.sleep(0)  # asyncio closes the socket itself by then
            end.detach()  # and uvloop has closed the descriptor before it knew of the socket
            raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    except OSError:
        end.close()
        raise
    waiting.give_way(transport, protocol)
