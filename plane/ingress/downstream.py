"""The client's side of one request, in whatever version of HTTP it speaks: what an Exchange knows of its client.

Law: how a message is framed and whether its connection goes on is known on this side only; which request goes where,
under which policies, is known to the Exchange only. ``http1.Http1`` and ``http2.Stream`` are the two that there are.
"""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

from plane.ingress.announced import Peer
from plane.ingress.edge import Edge
from plane.ingress.forwarding import Origin, RequestHead
from plane.ingress.handing import Begun

Field = tuple[bytes, bytes]


def origin_of(transport: asyncio.BaseTransport, announced: Peer | None, edge: Edge) -> Origin:
    """Who is at the other end of a client's connection; ``announced`` is whom the PROXY protocol named, if anyone."""
    peer = announced or transport.get_extra_info("peername") or ("unknown", 0)
    own = transport.get_extra_info("sockname")
    scheme = "https" if transport.get_extra_info("sslcontext") else "http"
    return Origin(peer[0], scheme, own[1] if own else 0, edge, peer[1])


class Body(Protocol):
    """A request's body while it comes; what is taken makes room for more."""

    def is_eof(self) -> bool:
        """Whether all of it is here."""

    def read_nowait(self) -> bytes:
        """What is here."""

    async def readany(self) -> bytes:
        """The next piece, empty at the end. Raises ConnectionError, RequestPayloadError."""


class Downstream(Protocol):
    """One request and its client.

    target      as it was sent
    protocol    ``HTTP/1.1``, as logs have it
    sent        bytes of the answer so far, with its head
    keep_alive  another request may follow this one where nothing frames them apart; HTTP/2 does, and does not ask
    """

    @property
    def origin(self) -> Origin: ...
    @property
    def method(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def protocol(self) -> str: ...
    @property
    def content(self) -> Body: ...
    @property
    def sent(self) -> int: ...

    keep_alive: bool

    def fields(self) -> Iterable[Field]:
        """Its header fields. Raises RefusedError where they may not be passed on."""

    def values(self, name: str) -> Sequence[str]:
        """All values of a field, of which the name may be in any case."""

    def asked(self, head: RequestHead) -> str:
        """Path and query of what is asked for; ``head.host`` becomes the host that counts. Raises RefusedError."""

    def taken_on(self) -> Begun | None:
        """What the gateway has begun of this request; told once."""

    async def go_on(self) -> None:
        """Tell the client that waits with its body to send it."""

    async def answer(
        self, status: int, reason: bytes, lines: Sequence[bytes], body: bytes, *, length: int | None, whole: bool
    ) -> None:
        """The head of the answer, and the first piece of its body; ``whole``: there is no more.

        ``lines`` are header fields, ``length`` is that of the body where it is to be announced. Raises ConnectionError.
        """

    async def write(self, piece: bytes) -> None:
        """More of the body, at the pace of the client. Raises ConnectionError."""

    async def end(self) -> None:
        """That was all of it. Raises ConnectionError."""

    def break_off(self) -> None:
        """There is more of it, but it will not come: the client must notice."""
