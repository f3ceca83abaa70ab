"""What became of each request, one row each, in columns.

Law: a row costs one ``pack_into`` when its request is done, and before that four readings of the clock (``Hops``);
rows of the compiled gateway come in batches that are copied, and its clock is read as often. Names are indices of lists
that only grow, so a row means the same whatever is installed later.
"""

import struct
import time
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
        ("path", "u1"),  # index of PATHS
        ("reused", "u1"),  # 1: the connection to the endpoint had carried another request before
        ("spare", "u1"),
        # When it came to each point of its way, of its last try; NEVER where it did not, or nobody looked.
        ("routed_ns", "i8"),  # where it goes was found, or that it goes nowhere
        ("picked_ns", "i8"),  # an endpoint was chosen: past what policies ask for, and past tries before
        ("connected_ns", "i8"),  # there was a connection to it, made or kept
        ("first_byte_ns", "i8"),  # a byte of its answer was read
    ]
)
PATHS = ("fast", "slow")  # by compiled code; by asyncio
FAST, SLOW = range(2)
NEVER = -1
_PACK: Callable[..., None] = struct.Struct("<QqqqiiIIHHBBBxqqqq").pack_into


class Hops:
    """When a request that is under way came to each point of its way: columns of ROW."""

    __slots__ = ("connected_ns", "first_byte_ns", "picked_ns", "reused", "routed_ns")

    def __init__(self) -> None:
        self.routed_ns = self.picked_ns = self.connected_ns = self.first_byte_ns = NEVER
        self.reused = False

    def pick(self) -> None:
        """An endpoint has been chosen, and what was known of one before no longer counts."""
        self.picked_ns = time.monotonic_ns()
        self.connected_ns = self.first_byte_ns = NEVER
        self.reused = False


UNSEEN = Hops()  # of a request that nobody looked at


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

    def add(self, *row: int, hops: Hops = UNSEEN) -> None:
        """Append a row of the slow path: the fields of ROW up to ``retries``, in order."""
        self._make_room(1)
        times = hops.routed_ns, hops.picked_ns, hops.connected_ns, hops.first_byte_ns
        _PACK(self._bytes, self._end, *row, SLOW, hops.reused, *times)
        self._end += ROW.itemsize

    def add_fast(self, done: np.ndarray, *, generation: int, route: int, service: int) -> None:
        """Append rows of the fast path, DONE_REQUEST[n] of ``kernels.layout_gateway``, that have all this in common.

        None was tried twice: one that is goes on by the slow path.
        """
        rows = np.zeros(len(done), ROW)
        for name in ("request_id", "received_ns", "done_ns", "backend", "status", "reused", "routed_ns"):
            rows[name] = done[name]
        rows["generation"], rows["route"], rows["service"], rows["path"] = generation, route, service, FAST
        rows["pod_ip"], rows["pod_port"] = done["ip"], done["port"]
        rows["picked_ns"] = np.where(done["ip"], done["routed_ns"], NEVER)
        for name in ("connected_ns", "first_byte_ns"):
            rows[name] = np.where(done[name], done[name], NEVER)
        self._make_room(len(rows))
        self._bytes[self._end : self._end + rows.nbytes] = rows.tobytes()
        self._end += rows.nbytes

    def _make_room(self, rows: int) -> None:
        missing = self._end + rows * ROW.itemsize - len(self._bytes)
        if missing > 0:
            self._bytes += bytes(max(missing, len(self._bytes)))

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
