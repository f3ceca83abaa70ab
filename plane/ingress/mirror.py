"""Copies of requests for somebody who is to see them, and whose answers nobody waits for.

Law: a request is neither slowed nor failed by its copy. A copy is sent in the background once the whole of its request
has gone on, by a bounded number at a time and with a body of bounded size; what is beyond that is dropped, and counted.
"""

import asyncio
from collections.abc import MutableMapping
from urllib.parse import urlsplit

from plane.ingress import forwarding
from plane.ingress.connection import UnansweredError
from plane.ingress.outside import Outside

AT_ONCE = 64  # copies under way
BODY_BYTES = 1 << 20  # of a request that is copied
HELD_BYTES = 64 << 20  # of all that wait for the rest of their requests
WITHIN_S = 60.0
SENT, FAILED, DROPPED = "sent", "failed", "dropped"


class Mirrors:
    """Of one ingress. ``counts`` says how many copies were answered, were not, or were not sent at all."""

    def __init__(self, outside: Outside, counts: MutableMapping[str, int]):
        self._outside = outside
        self._counts = counts
        self._tasks: set[asyncio.Task[None]] = set()
        self._held = 0

    def hold(self, count: int) -> bool:
        """Whether there is room for so many bytes more, which are held then; fewer than none gives them back."""
        if self._held + count > HELD_BYTES:
            return False
        self._held += count
        return True

    def send(self, url: str, method: str, data: bytes) -> None:
        """Send a whole request to the host of a URL, some time."""
        if len(self._tasks) >= AT_ONCE:
            self.drop()
            return
        task = asyncio.create_task(self._send(url, method, data))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def drop(self) -> None:
        """A copy is not sent."""
        self._counts[DROPPED] += 1

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _send(self, url: str, method: str, data: bytes) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                await self._outside.answer(urlsplit(url), method, data)
            self._counts[SENT] += 1
        except (UnansweredError, TimeoutError, ValueError):
            self._counts[FAILED] += 1


class Copy:
    """A request that is to be copied once the whole of it is here. ``head`` lacks where the body ends."""

    def __init__(self, mirrors: Mirrors, url: str, method: str, head: bytes, *, with_body: bool):
        self._mirrors = mirrors
        self._url = url
        self._method = method
        self._head = head
        self._with_body = with_body
        self._body = bytearray()
        self._dropped = False

    def add(self, piece: bytes) -> None:
        """More of the body."""
        if not self._with_body or self._dropped:
            return
        if len(self._body) + len(piece) > BODY_BYTES or not self._mirrors.hold(len(piece)):
            self._dropped = True
            self.leave()
            self._mirrors.drop()
        else:
            self._body += piece

    def leave(self) -> None:
        """There is no more to come."""
        self._mirrors.hold(-len(self._body))
        self._body.clear()

    def end(self) -> None:
        """The body is whole."""
        if self._dropped:
            return
        empty = not self._body and self._method in forwarding.BODILESS
        length = b"" if empty else b"Content-Length: %d\r\n" % len(self._body)
        self._mirrors.send(self._url, self._method, self._head + length + b"\r\n" + self._body)
        self.leave()
