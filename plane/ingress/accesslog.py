"""The access log: a line of JSON for each request that was answered. Off unless asked for.

Law: a request never waits for the log. Lines gather and are written together, by one ``write`` to a descriptor that
appends, so that several ingresses share a file. What is not taken at once, by a FIFO say, or a disk that is full, waits
for the next time, up to PENDING_BYTES; lines beyond that are lost and counted, for ``/metrics``, and told when the log
is closed. Lines of requests that compiled code carries come ready made (``fastlog``), many at once.
"""

import asyncio
import json
import logging
import os
from datetime import UTC, datetime
from typing import NamedTuple

from plane.errors import PlaneError

FLUSH_S = 0.25
RETRY_S = 0.005  # after a write that did not take everything: a FIFO that is read soon has room again
FLUSH_BYTES = 1 << 16
PENDING_BYTES = 1 << 22

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK

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
    method: str = ""
    host: str = ""
    target: str = ""
    protocol: str = ""
    status: int = 0
    bytes_sent: int = 0
    duration_ms: float = 0.0
    request_id: str = ""
    route: str = ""
    service: str = ""
    endpoint: str = ""
    retries: int = 0
    generation: int = 0
    user_agent: str = ""
    referer: str = ""


class AccessLog:
    """Appends to a file. Use from one event loop. Raises PlaneError where the file cannot be opened.

    ``lost``: how many lines could not be written.
    """

    def __init__(self, path: str):
        try:
            self._file = os.open(path, _FLAGS, 0o644)
        except OSError as error:
            raise PlaneError(f"--access-log {path}: {error.strerror}; choose a file that can be written") from error
        self._lines = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self.lost = 0
        self._held_up = ""  # why the last write did not take everything
        self._told = ""  # the last of these that people were told

    def add(self, entry: Entry) -> None:
        time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = json.dumps({"time": time, **entry._asdict()}, ensure_ascii=True).encode() + b"\n"
        self.add_lines(line)

    def add_lines(self, lines: bytes) -> None:
        """Whole lines, as ``add`` makes them."""
        while lines:
            room = max(0, PENDING_BYTES - len(self._lines))
            taken = lines if len(lines) <= room else lines[: lines.rfind(b"\n", 0, room) + 1]
            self._lines += taken
            lines = lines[len(taken) :]
            if len(self._lines) >= FLUSH_BYTES and not self._held_up:
                self._flush()
            if not taken:
                self.lost += lines.count(b"\n")
                break
        if self._lines and self._timer is None:
            after_s = RETRY_S if self._held_up else FLUSH_S
            self._timer = asyncio.get_running_loop().call_later(after_s, self._flush_and_follow)

    def _flush_and_follow(self) -> None:
        self._timer = None
        self._flush()
        if self._lines:
            self._timer = asyncio.get_running_loop().call_later(RETRY_S, self._flush_and_follow)

    def _flush(self) -> None:
        """Write what is taken now; the rest stays."""
        self._held_up = ""
        try:
            del self._lines[: os.write(self._file, self._lines)]
        except BlockingIOError:
            pass  # told as where a part was taken: a reader that is behind leaves room for some, or for none
        except OSError as error:
            self._held_up = os.strerror(error.errno or 0)
        if self._lines and not self._held_up:
            self._held_up = "not all of it is taken at once"
        if self._held_up and self._held_up != self._told:
            self._told = self._held_up
            log.warning("the access log waits: %s", self._held_up)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._lines:
            self._flush()
        os.close(self._file)
        self.lost += self._lines.count(b"\n")
        if self.lost:
            log.warning("the access log has lost %d lines", self.lost)
