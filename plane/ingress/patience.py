"""How long a client that takes nothing is waited for (NGINX's ``send_timeout``).

Law: the time begins anew whenever something of what waits to be sent has gone. Memory is bounded without it, by the
high-water mark of a connection; what it frees are connections, the client's and those of endpoints behind it.
"""

import asyncio
from typing import cast


class Patience:
    """With one connection, looked at now and then."""

    __slots__ = ("_since_s", "_waiting", "_within_s")

    def __init__(self, within_s: float):
        self._within_s = within_s
        self._waiting = 0  # bytes, when last looked at
        self._since_s: float | None = None

    def is_over(self, paused: bool, transport: asyncio.BaseTransport | None, now_s: float) -> bool:
        """Whether a connection that is ``paused`` has taken nothing for too long."""
        if not paused or transport is None:
            self._since_s = None
            return False
        waiting = cast(asyncio.WriteTransport, transport).get_write_buffer_size()
        if self._since_s is None or waiting < self._waiting:
            self._since_s = now_s
        self._waiting = waiting
        return now_s - self._since_s > self._within_s
