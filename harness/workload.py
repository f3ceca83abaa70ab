"""What a load sends: one HTTP/1.1 request, or one message that comes back; only the id differs by row.

Law: it is rendered once. A row of a run is one logical request, and its 64-bit id is unique in the run. It travels in
16 hex digits, as ``X-Request-ID`` or as the beginning of the message, so that whatever the subject records can be
joined to the row. A request that is sent again after a kept-alive connection turned out closed keeps its id.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np

# RFC 9110 9.2.2. Only these are sent again when a kept-alive connection was closed before any byte of an answer.
IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
# Methods whose request states a length even without a body (RFC 9110 8.6).
WITH_LENGTH = ("POST", "PUT", "PATCH")
ROW_BITS = 40
SHARE_BITS = 32  # of these, beyond which is the generator of a load that has several
ID_BYTES = 16
# A message after its id, over and over.
_FILLING = bytes(range(33, 127))


class Share(NamedTuple):
    """Generator ``place`` of so many that run one load together."""

    place: int = 0
    of: int = 1


WHOLE = Share()


@dataclass(frozen=True)
class Workload:
    """One request. ``path`` is the request target with its query, ``host`` the text of the Host header."""

    host: str
    path: str = "/"
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    keep_alive: bool = True
    protocol: ClassVar[str] = "http"

    @property
    def idempotent(self) -> bool:
        return self.method in IDEMPOTENT

    @property
    def called(self) -> str:
        """The name of one that has none: method and path."""
        return f"{self.method} {self.path.partition('?')[0]}"

    @property
    def size(self) -> int:
        """Bytes of one request on the wire, head and body."""
        head, tail = self.render()
        return len(head) + ID_BYTES + len(tail)

    def render(self) -> tuple[bytes, bytes]:
        """What comes before and after the 16 hex digits of the request id."""
        body = self.body.encode()
        names = {name.lower() for name in self.headers}
        lines = [f"{self.method} {self.path} HTTP/1.1"]
        lines += [f"Host: {self.host}"] if "host" not in names else []
        lines += ["User-Agent: trafficplane"] if "user-agent" not in names else []
        lines += ["Accept: */*"] if "accept" not in names else []
        lines += [f"{name}: {text}" for name, text in self.headers.items()]
        lines += [f"Content-Length: {len(body)}"] if body or self.method in WITH_LENGTH else []
        lines += ["Connection: close"] if not self.keep_alive else []
        return "\r\n".join([*lines, "X-Request-ID: "]).encode(), b"\r\n\r\n" + body


@dataclass(frozen=True)
class Echo:
    """A message of ``size`` bytes that its target sends back as it is; ``protocol`` is tcp or udp.

    ``host`` is the target as the scenario names it. It has neither method nor path, and is sent once.
    """

    protocol: str
    host: str
    size: int
    keep_alive: bool = True
    method: ClassVar[str] = ""
    path: ClassVar[str] = ""
    idempotent: ClassVar[bool] = False

    @property
    def called(self) -> str:
        return f"{self.protocol} echo"

    def render(self) -> tuple[bytes, bytes]:
        """As of a Workload."""
        filling = self.size - ID_BYTES
        return b"", (_FILLING * (filling // len(_FILLING) + 1))[:filling]


def id_key(seed: int, load: int) -> int:
    """The key whose exclusive-or with a row number is that row's id: unique over the loads of a run, new by seed."""
    mixed = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
    return int(mixed) ^ (load << ROW_BITS)


def request_ids(key: int, rows: int) -> np.ndarray:
    """The ids uint64[rows] of a load's rows."""
    return np.arange(rows, dtype=np.uint64) ^ np.uint64(key)
