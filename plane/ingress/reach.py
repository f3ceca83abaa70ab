"""How far what a client sends goes: whether it ends where its request does. Pure.

Law: in doubt it does not. aiohttp's parser, which knows, does not say, and what it has of a next request would be lost.
"""

_END = b"\r\n\r\n"  # of a head, and of a body in chunks


class Reach:
    """What a client has sent since a request began: it is told each byte, and of each request that has been answered.

    head  where the head of that request ends, 0: it is not all here, -1: nobody knows, for another came with it
    """

    __slots__ = ("_head", "_last", "_size")

    def __init__(self) -> None:
        self._head = self._size = 0
        self._last = b""  # bytes of it, no more than _END has

    def note(self, data: bytes) -> None:
        """The client has sent this."""
        if not self._head:
            at = (self._last + data).find(_END)
            self._head = at + len(_END) + self._size - len(self._last) if at >= 0 else 0
        self._size += len(data)
        self._last = (self._last + data[-len(_END) :])[-len(_END) :]

    def ends_with(self, length: int) -> bool:
        """Whether it ends with the last request that came, all of which is here, its body of ``length`` bytes, too.

        0: it has no body, or one in chunks.
        """
        return self._last == _END if not length else self._head > 0 and self._size == self._head + length

    def begin(self, *, sure: bool) -> None:
        """What comes now is another request, from its first byte on, if that is ``sure``."""
        self._head, self._size = 0 if sure else -1, 0
        if sure:
            self._last = b""
