"""What became of each request, one row each, in columns.

Law: a row costs one ``pack_into`` when its request is done, and nothing before. Names are indices of lists that only
grow, so a row means the same whatever is installed later.
"""

import struct
from collections.abc import Callable

import numpy as np

FIRST_ROWS = 4096

# One finished request; 0 in request_id: its id was no 64-bit number; negative route and service: no rule, no Service.
ROW = np.dtype(
    [
        ("request_id", "u8"),
        ("generation", "i8"),
        ("received_ns", "i8"),  # its head had been read
        ("done_ns", "i8"),  # the last byte of its answer was handed to the kernel, or it was given up
        ("route", "i4"),
        ("service", "i4"),
        ("backend", "u4"),
        ("pod_ip", "u4"),  # 0: no endpoint was chosen
        ("pod_port", "u2"),
        ("status", "u2"),  # 499: the client left before its answer was whole
        ("retries", "u1"),
        ("spare", "u1", (3,)),
    ]
)
_PACK: Callable[..., None] = struct.Struct("<QqqqiiIIHHB3x").pack_into


class Records:
    """Rows of ROW."""

    def __init__(self) -> None:
        self._bytes = bytearray(FIRST_ROWS * ROW.itemsize)
        self._end = 0
        self._names: dict[str, dict[str, int]] = {"routes": {}, "services": {}}

    def __len__(self) -> int:
        return self._end // ROW.itemsize

    def name(self, listed: str, name: str) -> int:
        """Index of a name in the list ``routes`` or ``services``; -1 for the empty name."""
        known = self._names[listed]
        return known.setdefault(name, len(known)) if name else -1

    def add(self, *row: int) -> None:
        """Append a row: the fields of ROW but the last, in order."""
        if self._end == len(self._bytes):
            self._bytes += bytes(len(self._bytes))
        _PACK(self._bytes, self._end, *row)
        self._end += ROW.itemsize

    def columns(self) -> dict[str, np.ndarray | list[str]]:
        """A copy, in order of ``done_ns``.

        Each field of ROW as an array, and the lists that ``route`` and ``service`` are indices of.
        """
        rows = np.frombuffer(bytes(self._bytes[: self._end]), ROW)
        rows = rows[np.argsort(rows["done_ns"], kind="stable")]  # those of the gateway come in batches
        found: dict[str, np.ndarray | list[str]] = {
            name: np.ascontiguousarray(rows[name]) for name in ROW.names or () if name != "spare"
        }
        return {**found, **{listed: list(known) for listed, known in self._names.items()}}
