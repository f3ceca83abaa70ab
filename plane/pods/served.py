"""When each request was with a pod, for whoever measures: a row each, in columns.

Law: a request that does not carry a 64-bit number in 16 hex digits as its X-Request-ID leaves no row, nor does one that
was cut off. A row costs one ``pack_into`` when its answer is made, and one of compiled code is copied. A pod has one
thread that writes rows; any may read.
"""

import re
import struct
from collections.abc import Callable, Sequence

import numpy as np

FIRST_ROWS = 64
REQUEST_ID = "X-Request-ID"

# A request as the pod saw it; times of the monotonic clock.
ROW = np.dtype(
    [
        ("request_id", "u8"),
        ("received_ns", "i8"),  # its head had been read
        ("done_ns", "i8"),  # its answer was made, and not yet handed to the kernel; of a stream the last piece
    ]
)
_PACK: Callable[..., None] = struct.Struct("<Qqq").pack_into
_NUMBER = re.compile(r"[0-9a-fA-F]{16}")


class Served:
    """Rows of ROW, those of one container. ``pod`` is ``namespace/name``, ``ip`` uint32 in host order."""

    def __init__(self, pod: str, ip: int):
        self.pod = pod
        self.ip = ip
        self._bytes = bytearray(FIRST_ROWS * ROW.itemsize)
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def add(self, request_id: str, received_ns: int, done_ns: int) -> None:
        """A request has its answer."""
        if _NUMBER.fullmatch(request_id) is None:
            return
        at = self._rows * ROW.itemsize
        if at == len(self._bytes):
            self._bytes = self._bytes + bytes(at)  # a new one: whoever reads keeps the old
        _PACK(self._bytes, at, int(request_id, 16), received_ns, done_ns)
        self._rows += 1

    def add_rows(self, rows: np.ndarray) -> None:
        """So have these, ROW[n]."""
        at, end = self._rows * ROW.itemsize, (self._rows + len(rows)) * ROW.itemsize
        if end > len(self._bytes):
            self._bytes = self._bytes + bytes(max(end - len(self._bytes), len(self._bytes)))
        self._bytes[at:end] = rows.tobytes()
        self._rows += len(rows)

    def rows(self) -> np.ndarray:
        """A copy, ROW[n]."""
        rows = self._rows
        return np.frombuffer(bytes(self._bytes), ROW)[:rows]


def columns(served: Sequence[Served]) -> dict[str, np.ndarray | list[str]]:
    """The rows of all of them: each field of ROW as an array, and ``container``, whose they are.

    That is an index int32 of ``ips``, an array uint32, and of ``pods``, a list.
    """
    parts = [each.rows() for each in served]
    rows = np.concatenate([np.zeros(0, ROW), *parts])
    return {
        **{name: np.ascontiguousarray(rows[name]) for name in ROW.names or ()},
        "container": np.repeat(np.arange(len(served), dtype=np.int32), [len(part) for part in parts]),
        "ips": np.array([each.ip for each in served], np.uint32),
        "pods": [each.pod for each in served],
    }


def counts(served: Sequence[Served]) -> dict[str, int]:
    """How many requests each pod has answered, by ``namespace/name``."""
    found: dict[str, int] = {}
    for each in served:
        found[each.pod] = found.get(each.pod, 0) + len(each)
    return found
