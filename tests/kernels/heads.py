"""Connections as the compiled reader sees them, and as llhttp does, which is strict and has the last word.

Law: both are given the same bytes. What the compiled reader takes, llhttp takes and frames alike. Behind what it is
given lies a page that nobody may touch, whatever the size of the array: to read on is the end of the process.
"""

import ctypes
import mmap

import httptools
import numpy as np

from kernels.jit import kernel
from kernels.layout_http import DONE, PLAIN, Hop, Ours
from kernels.net import bodies, http1

ROOM = 1 << 18
NOTHING = np.zeros(0, np.uint8)
NO_HOP = Hop(NOTHING, NOTHING, NOTHING, NOTHING)
NOTHING_OURS = Ours(NOTHING, NOTHING, NOTHING)


@kernel
def reframe(body, data, start, end):
    """What compiled code alone can call."""
    return bodies.reframe(body, data, start, end)


def uint8(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8).copy()


class Guarded:
    """Room for bytes, with a page behind it that ends the process of whoever reads or writes there."""

    def __init__(self) -> None:
        self._bytes = np.frombuffer(mmap.mmap(-1, ROOM + mmap.PAGESIZE, flags=mmap.MAP_PRIVATE), np.uint8)
        guard = ctypes.c_void_p(self._bytes.ctypes.data + ROOM)
        if ctypes.CDLL(None).mprotect(guard, ctypes.c_size_t(mmap.PAGESIZE), 0) != 0:  # PROT_NONE
            raise OSError("mprotect: no page can be made a guard")

    def holding(self, data: bytes) -> np.ndarray:
        """uint8[…]: these bytes, and the page behind them."""
        start = ROOM - len(data)
        assert start >= 0
        self._bytes[start:ROOM] = np.frombuffer(data, np.uint8)
        return self._bytes[start:]


class Reader:
    """What is left to read of a connection, ``data[start:end]``."""

    def __init__(self) -> None:
        self.head = http1.create_heads(1)[0]
        self.body = bodies.create(1)[0]
        self.lines = http1.create_lines()
        self.data = b""
        self._heads, self._bodies = Guarded(), Guarded()

    def more(self, piece: bytes) -> None:
        self.data += piece

    def request(self) -> int:
        """Scans a request, of which the lines are nobody's before: other heads may have used them."""
        self.lines.view(np.uint8)[:] = 0x7F
        self.memory = self._heads.holding(b"GET" + self.data)  # the more, the further in front
        return int(http1.scan_request(self.memory, 3, 3 + len(self.data), self.head, self.lines))

    def answer(self, method: int) -> int:
        self.memory = self._heads.holding(b"HTT" + self.data)
        return int(http1.scan_response(self.memory, 3, 3 + len(self.data), self.head, self.lines, method))

    def leave(self, size: int) -> None:
        self.data = self.data[size:]

    def take(self) -> tuple[int, bytes]:
        """Takes what is here of the body: what ``reframe`` answers, and what goes on."""
        memory = self._bodies.holding(self.data)
        answer = int(reframe(self.body, memory, 0, len(self.data)))
        consumed, produced = int(self.body["consumed"]), int(self.body["produced"])
        assert 0 <= produced <= consumed <= len(self.data)
        assert memory[consumed : len(self.data)].tobytes() == self.data[consumed:]
        self.leave(consumed)
        return answer, memory[:produced].tobytes()


class Requests:
    """A client's connection: ``seen`` as ``Strict`` has it, ``why`` it was ended, ``closed`` by a request."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.why = 0
        self.closed = False
        self._reader = Reader()
        self._said: list[bytes] | None = None  # the request under way, None between two

    def feed(self, piece: bytes) -> None:
        self._reader.more(piece)
        while not self.why and not self.closed and (self._body() if self._said is not None else self._head()):
            pass

    def _head(self) -> bool:
        reader = self._reader
        size = reader.request()
        if size > 0:
            head = reader.head
            first = reader.memory[3 : 3 + head["target"] + head["target_size"]].tobytes()
            self._said = [first]
            reader.leave(size)
            bodies.begin(reader.body, head, PLAIN)
        self.why = max(0, -size)
        return size > 0

    def _body(self) -> bool:
        answer, piece = self._reader.take()
        assert self._said is not None
        self._said.append(piece)
        self.why = max(0, -answer)
        if answer == DONE:
            asked, content = self._said[0], b"".join(self._said[1:])
            self.seen.append((asked + b" " + content if content else asked).decode("latin-1"))
            self._said = None
            self.closed = not self._reader.head["keep_alive"]
        return answer == DONE


class Answer:
    """What llhttp makes of the bytes of one answer, as ``plane.ingress.connection`` asks it.

    fields    of the head that is no interim one
    status    0: the head is not whole, or wrong
    whole     it came to its end
    error     the bytes are no HTTP
    """

    def __init__(self, data: bytes) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.status, self.reason, self.body = 0, b"", b""
        self.whole = self.error = self.keep_alive = False
        self._parser = httptools.HttpResponseParser(self)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError:
            self.error = True

    def on_status(self, reason: bytes) -> None:
        self.reason = reason if not self.status else self.reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:
            self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if not self.status and 100 <= status < 200 and status != 101:
            self.fields, self.reason = [], b""
        elif not self.status:
            self.status = status
            self.keep_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self.body += b"" if self.whole else body

    def on_message_complete(self) -> None:
        self.whole |= self.status > 0
