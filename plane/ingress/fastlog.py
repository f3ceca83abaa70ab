"""Requests that compiled code has done, and the lines of the access log that are made of them.

Law: a line is the one that ``accesslog`` makes of the same request; ``tests/ingress/test_logged_alike.py`` compares
them. It is made by compiled code, many at once, in the event loop, where names are known that rows have numbers of.
"""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np

from kernels.layout_gateway import DONE_REQUEST
from kernels.layout_log import LOST, SAID, SAID_ALL, Page
from kernels.net import loglines
from plane.ingress.table import Table

_SECOND_NS = 1_000_000_000
_HALF = np.uint64(32)


class Done(NamedTuple):
    """Requests that are done.

    rows         DONE_REQUEST[n]
    said, texts  SAID[n] and uint8[…]: what the access log is told of each; empty where there is no log
    room         given back once somebody sees to them, None: nobody waits for that
    """

    rows: np.ndarray
    said: np.ndarray
    texts: np.ndarray
    room: threading.Semaphore | None = None

    def give_back(self) -> None:
        if self.room is not None:
            self.room.release()


Words = Callable[[int, int, int], tuple[bytes, bytes]]


def lines(done: Done, words: Words) -> tuple[bytes, int]:
    """Lines of those that are to have one, and how many have none for want of room.

    ``words`` of an install, an origin and a goal: those between request id and endpoint, and behind that.
    """
    lost = int(np.count_nonzero(done.said["fate"] == LOST))
    told = done.said["fate"] == SAID_ALL
    rows, said = done.rows[told], done.said[told]
    if not len(rows):
        return b"", lost
    wall_ns = rows["done_ns"] + (time.time_ns() - time.monotonic_ns())
    seconds, of_second = np.unique(wall_ns // _SECOND_NS, return_inverse=True)
    firsts, kinds = _kinds(rows)
    pieces = [piece for where in rows[firsts][["install", "origin", "goal"]].tolist() for piece in words(*where)]
    sizes = [len(piece) for piece in pieces]
    page = Page(
        rows,
        said,
        done.texts,
        wall_ns,
        of_second,
        np.frombuffer(b"".join(map(_stamp, seconds.tolist())), np.uint8).reshape(len(seconds), -1),
        kinds,
        np.frombuffer(b"".join(pieces), np.uint8),
        np.array([0, *np.cumsum(sizes)], np.int64),
    )
    out = np.empty(len(rows) * (loglines.LINE_BYTES + 2 * max(sizes)) + loglines.ESCAPED * len(done.texts), np.uint8)
    size = int(loglines.write(page, out))
    assert size > 0  # there is room for the longest
    return out[:size].tobytes(), lost


def _kinds(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Install, origin and goal of rows taken together: where each such kind is first, and which each row is of."""
    where = rows["origin"].astype(np.uint64) << _HALF | rows["goal"]
    where = np.unique(where, return_inverse=True)[1].astype(np.uint64)
    _, firsts, kinds = np.unique(
        rows["install"].astype(np.uint64) << _HALF | where, return_index=True, return_inverse=True
    )
    return firsts, kinds


def _stamp(second: int) -> bytes:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.").encode()


def words_of(table: Table, origin: int, goal: int) -> tuple[bytes, bytes]:
    """What a line has between request id and endpoint, and behind that up to the User-Agent."""
    route = json.dumps(str(table.origins[origin]) if origin else "")
    service = json.dumps(str(table.targets[goal].service) if goal else "")
    return (
        f'", "route": {route}, "service": {service}, "endpoint": "'.encode(),
        f'", "retries": 0, "generation": {table.generation}, "user_agent": "'.encode(),
    )


def warm() -> None:
    """Compile, or load, what Python calls."""
    said = np.zeros(1, SAID)
    said["fate"] = SAID_ALL
    lines(Done(np.zeros(1, DONE_REQUEST), said, np.zeros(1, np.uint8)), lambda *_: (b"a", b"b"))
