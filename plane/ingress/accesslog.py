"""The access log: a line of JSON for each request that was answered. Off unless asked for.

Law: a request never waits for the log. Lines gather and are written together, by one ``write`` to a descriptor that
appends, so that several ingresses share a file; what cannot be written is counted, and told when the log is closed.
"""

import asyncio
import json
import logging
import os
from datetime import UTC, datetime
from typing import NamedTuple

from plane.errors import PlaneError

FLUSH_S = 0.25
FLUSH_BYTES = 1 << 16

log = logging.getLogger("trafficplane.ingress")


class Entry(NamedTuple):
    """A request as the log has it; the names are those of the JSON, empty where there is nothing to say.

    client       address of who sent it, as far as a trusted proxy has said
    bytes_sent   of the answer, with its head
    duration_ms  from the end of the request's head to the last byte of the answer
    route        ``namespace/ingress field``; ``service`` is ``namespace/name:port``, ``endpoint`` the last one asked
    status       499 where the client left before its answer was whole
    """

    client: str
    scheme: str
    method: str
    host: str
    target: str
    protocol: str
    status: int
    bytes_sent: int
    duration_ms: float
    request_id: str
    route: str
    service: str
    endpoint: str
    retries: int
    generation: int
    user_agent: str
    referer: str


class AccessLog:
    """Appends to a file. Use from one event loop. Raises PlaneError where the file cannot be opened."""

    def __init__(self, path: str):
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise PlaneError(f"--access-log {path}: {error.strerror}; choose a file that can be written") from error
        self._lines = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._lost = 0

    def add(self, entry: Entry) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self._lines += json.dumps({"time": time, **entry._asdict()}, ensure_ascii=True).encode() + b"\n"
        if len(self._lines) >= FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self.flush)

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, bytearray()
        try:
            if lines and os.write(self._file, lines) < len(lines):
                raise OSError("the disk is full")
        except OSError as error:
            if not self._lost:
                log.warning("the access log loses lines: %s", error)
            self._lost += lines.count(b"\n")

    def close(self) -> None:
        self.flush()
        os.close(self._file)
        if self._lost:
            log.warning("the access log has lost %d lines", self._lost)
