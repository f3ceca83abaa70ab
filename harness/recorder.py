"""What one load writes down while it runs: a row for each scheduled request, a row for each connection.

Law: recording is storing integers at an index, and nothing else; no object is made for a row. The columns are NumPy
arrays, written through memoryviews (an item store through one costs a third of NumPy's own) and handed on without a
copy. Times are absolute, of the monotonic clock; ``NEVER`` stands where nothing happened.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kernels.layout_load import (  # noqa: F401  # the codes of errors are one list, which compiled code writes too
    CONNECT_FAILED,
    CONNECT_REFUSED,
    EOF,
    ERRORS,
    INTERRUPTED,
    NEVER,
    NO_DESCRIPTOR,
    NO_LOCAL_PORT,
    PROTOCOL,
    RESET,
    TIMEOUT,
    TLS_FAILED,
)

# A request that was answered in full is an error, too, where its HTTP status is this or more.
ERROR_STATUS = 400

_ROWS_AT_FIRST = 1 << 14

# Columns of the rows of a load: dtype, and what stands where nothing happened.
REQUEST_COLUMNS = {
    "intended_ns": ("i8", NEVER),
    "start_ns": ("i8", NEVER),
    "connected_ns": ("i8", NEVER),
    "tls_done_ns": ("i8", NEVER),
    "sent_ns": ("i8", NEVER),
    "request_sent_ns": ("i8", NEVER),
    "first_byte_ns": ("i8", NEVER),
    "done_ns": ("i8", NEVER),
    "bytes_in": ("i8", 0),
    "bytes_out": ("i8", 0),
    "connection": ("i4", NEVER),
    "status": ("u2", 0),
    "error": ("u1", 0),
    "attempts": ("u1", 0),
    "reused": ("u1", 0),
}

# A generator that is on a core so much of the time, or for which that share of the requests was late, is itself what a
# measurement shows.
BUSY_SHARE = 0.9
LATE_SHARE = 0.01


@dataclass(frozen=True)
class Generator:
    """How the generator itself fared.

    driver     which one it was: ``asyncio`` or ``compiled``
    late       requests that it gave to a connection more than 1 ms after they were due, although one was free; of the
               asyncio driver those that it saw to be due so late
    latest_ns  the most that one was
    busy       share of the time that its thread ran or waited for a core; None: it was not measured
    resumed    TLS handshakes that resumed a session
    reason     why it was not compiled code; empty: it was
    """

    driver: str = "asyncio"
    late: int = 0
    latest_ns: int = 0
    busy: float | None = None
    resumed: int = 0
    reason: str = ""

    def limited(self, requests: int) -> bool:
        """Whether a run of so many requests shows the generator's limits and not the subject's."""
        return self.busy is not None and (self.busy >= BUSY_SHARE or self.late > LATE_SHARE * requests)


UNMEASURED = Generator()


@dataclass(frozen=True)
class Recorded:
    """The rows of one load, as equally long columns in the order in which the requests were scheduled.

    requests     intended_ns, sent_ns, first_byte_ns, done_ns, bytes_in, bytes_out: int64; status uint16 (0 never);
                 error uint8 (index of ERRORS), attempts uint8, connection int32 (row of ``connections``, NEVER none);
                 start_ns, connected_ns, tls_done_ns, request_sent_ns int64 and reused uint8 (docs/records.md)
    connections  began_ns int64 (just before connect), client_ip uint32, client_port uint16 (0 never connected)
    """

    requests: dict[str, np.ndarray]
    connections: dict[str, np.ndarray]
    generator: Generator = UNMEASURED

    @property
    def limited(self) -> bool:
        """Whether they show the generator's limits and not the subject's."""
        return self.generator.limited(len(self.requests["intended_ns"]))


class Columns:
    """Equally long integer columns that grow by doubling; ``view(name)`` is where the writer stores."""

    def __init__(self, columns: dict[str, tuple[str, int]], rows: int = 0):
        self._arrays = {name: np.full(max(rows, 1), empty, dtype) for name, (dtype, empty) in columns.items()}
        self._empty = {name: empty for name, (_, empty) in columns.items()}
        self.rows = rows
        self.room = max(rows, 1)

    def view(self, name: str) -> memoryview:
        return self._arrays[name].data

    def grow(self) -> None:
        """Twice the room, and every view is of the past: the writer takes new ones."""
        more = max(self.room, _ROWS_AT_FIRST)
        for name, array in self._arrays.items():
            self._arrays[name] = np.concatenate([array, np.full(more, self._empty[name], array.dtype)])
        self.room += more

    def taken(self) -> dict[str, np.ndarray]:
        """The columns, as long as there are rows."""
        return {name: array[: self.rows] for name, array in self._arrays.items()}


class Recorder:
    """The rows of a load while it runs. Writers store into the views at a row that ``schedule`` gave or made."""

    def __init__(self, due: np.ndarray | None = None):
        """``due`` int64[n] are the intended times of an open loop, which are rows from the start."""
        self._requests = Columns(REQUEST_COLUMNS, rows=0 if due is None else len(due))
        self._connections = Columns({"began_ns": ("i8", NEVER), "client_ip": ("u4", 0), "client_port": ("u2", 0)})
        self._made: list[int] = []
        self._take_views()
        if due is not None:
            self._requests.taken()["intended_ns"][:] = due

    @property
    def rows(self) -> int:
        return self._requests.rows

    def schedule(self, intended_ns: int) -> int:
        """A new row for a request that is due then."""
        row = self._requests.rows
        if row == self._requests.room:
            self._requests.grow()
            self._take_views()
        self._requests.rows = row + 1
        self.intended[row] = intended_ns
        return row

    def truncate(self, rows: int) -> None:
        """Forgets the rows from ``rows`` on: requests of an open loop that ended before they were due."""
        self._requests.rows = rows

    def connect(self, began_ns: int) -> int:
        """A new row for a connection that is about to be made."""
        row = self._connections.rows
        if row == self._connections.room:
            self._connections.grow()
            self._take_views()
        self._connections.rows = row + 1
        self._began[row] = began_ns
        return row

    def connected(self, connection: int, client_ip: int, client_port: int) -> None:
        self._client_ip[connection] = client_ip
        self._client_port[connection] = client_port
        self._made.append(connection)

    def made(self) -> dict[str, np.ndarray]:
        """Of connections that have come about since this was last asked: fields of ``kernels.layout_load.DIAL``."""
        number, self._made = np.array(self._made, np.int64), []
        columns = self._connections.taken()
        named = {"began_ns": "began_ns", "ip": "client_ip", "port": "client_port"}
        return {"connection": number, **{name: columns[source][number] for name, source in named.items()}}

    def numbered(self, rows: Sequence[int]) -> dict[str, np.ndarray]:
        """Copies of some of the rows, with their ``number``."""
        number = np.array(rows, np.int64)
        return {"number": number, **{name: array[number] for name, array in self._requests.taken().items()}}

    def recorded(self, generator: Generator = UNMEASURED) -> Recorded:
        return Recorded(self._requests.taken(), self._connections.taken(), generator)

    def _take_views(self) -> None:
        view = self._requests.view
        self.intended = view("intended_ns")
        self.start = view("start_ns")
        self.connected_at = view("connected_ns")
        self.tls_done = view("tls_done_ns")
        self.sent = view("sent_ns")
        self.first_byte = view("first_byte_ns")
        self.done = view("done_ns")
        self.bytes_in = view("bytes_in")
        self.bytes_out = view("bytes_out")
        self.connection = view("connection")
        self.status = view("status")
        self.error = view("error")
        self.attempts = view("attempts")
        self.reused = view("reused")
        self._began = self._connections.view("began_ns")
        self._client_ip = self._connections.view("client_ip")
        self._client_port = self._connections.view("client_port")
