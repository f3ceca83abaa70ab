"""Access logs as loads: what was asked for, and when. The schema of ``arrivals.replay``, and how lines are read.

Law: each line is a request, or is counted and named with the reason why it is none; none is dropped in silence. Times
are kept to the precision that the log has: requests of one whole second are spread over it, in the order of the log.
What a log does not hold, bodies and most headers, is not made up.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from harness import requests
from harness.units import NS_PER_S
from plane.strict import Part

UNREAD_NAMED = 20
LONGEST_SHOWN = 60

# NGINX's and Apache's; what a format appends to it, as that of ingress-nginx does, is no matter.
_COMBINED = re.compile(r'\S+ \S+ .*?\[([^\]]+)\] "((?:[^"\\]|\\.)*)" \d{3}\b')
_REQUEST = re.compile(r"([A-Za-z]+) (\S+)(?: HTTP/\d(?:\.\d)?)?")
_ISO = re.compile(r"([^.,]{10}T[\d:]{8})(?:[.,](\d{1,9}))?(Z|[+-]\d\d:?\d\d)?")
_CLF_TIME = "%d/%b/%Y:%H:%M:%S %z"
# Where JSON has what is needed: the plane's own log, NGINX's variables, Traefik, Caddy, Envoy.
_TIMES = ("time", "timestamp", "@timestamp", "ts", "time_iso8601", "msec", "StartUTC", "start_time", "time_local")
_METHODS = ("method", "request_method", "RequestMethod")
_TARGETS = ("target", "uri", "request_uri", "RequestPath", "path", "url")


class Replay(Part):
    """The requests of a ``log``, beside the scenario file, ``speed`` times as fast as they came."""

    log: str
    speed: Annotated[float, Field(gt=0, le=10_000)] = 1.0


class Line(NamedTuple):
    """A request of a log; ``whole`` where its time is known to the second only."""

    at_ns: int
    whole: bool
    method: str
    path: str


@dataclass(frozen=True)
class Unread:
    """A line that is no request, by its number from 1."""

    line: int
    reason: str


@dataclass(frozen=True)
class Log:
    """What a log holds.

    lines      how many there were, empty ones left out
    due_ns     int64[n] ascending: when each request was due, from the first one on, at the log's own pace
    asked      (method, path) of each different request
    order      uint32[n]: which of these each request is
    unread     the first UNREAD_NAMED lines that are none; ``unreadable`` is how many there were
    """

    name: str
    sha256: str
    lines: int
    due_ns: np.ndarray
    asked: Sequence[tuple[str, str]]
    order: np.ndarray
    unread: Sequence[Unread]
    unreadable: int

    def at(self, speed: float) -> np.ndarray:
        """When requests are due at so many times the log's pace, int64[n] ns."""
        exact = Fraction(speed).limit_denominator(1_000_000)
        return self.due_ns * exact.denominator // exact.numerator

    def said(self) -> Mapping[str, Any]:
        """What the metadata of a run has of it."""
        unread = [{"line": row.line, "reason": row.reason} for row in self.unread]
        return {
            "log": self.name,
            "sha256": self.sha256,
            "lines": self.lines,
            "requests": len(self.due_ns),
            "unreadable": self.unreadable,
            "unread": unread,
        }


def read(path: Path) -> Log:
    """The log in a file, combined or JSON line by line. Raises OSError; ValueError where no line of it is a request."""
    content = path.read_bytes()
    found: list[Line] = []
    unread: list[Unread] = []
    lines = 0
    for number, line in enumerate(content.decode("utf-8", "backslashreplace").split("\n"), 1):
        if not line.strip():
            continue
        lines += 1
        try:
            found.append(parse(line.strip()))
        except ValueError as error:
            unread.append(Unread(number, str(error)))
    if not found:
        why = f": line {unread[0].line}: {unread[0].reason}" if unread else ", it is empty"
        raise ValueError(f"{path} has no line that is a request{why}")
    found.sort(key=lambda line: line.at_ns)
    places: dict[tuple[str, str], int] = {}
    order = [places.setdefault((line.method, line.path), len(places)) for line in found]
    if len(places) > requests.REQUESTS_AT_MOST:
        raise ValueError(f"{path} has {len(places):,} different requests; {requests.REQUESTS_AT_MOST:,} are the most")
    return Log(
        path.name,
        hashlib.sha256(content).hexdigest(),
        lines,
        np.sort(np.fromiter(_due(found), np.int64, len(found))),
        list(places),
        np.array(order, np.uint32),
        unread[:UNREAD_NAMED],
        len(unread),
    )


def parse(line: str) -> Line:
    """A line of a log. Raises ValueError with the reason why it is no request."""
    if line.startswith("{"):
        return _of_json(line)
    found = _COMBINED.match(line)
    if found is None:
        raise ValueError(f"is neither combined nor JSON: {_shown(line)}")
    try:
        at_ns = int(datetime.strptime(found[1], _CLF_TIME).timestamp()) * NS_PER_S
    except ValueError:
        raise ValueError(f"{_shown(found[1])} is no time as in 27/Nov/2026:08:00:00 +0000") from None
    return Line(at_ns, True, *_request(found[2]))


def _of_json(line: str) -> Line:
    try:
        entry = json.loads(line)
    except ValueError:
        raise ValueError(f"is no JSON, or cut off: {_shown(line)}") from None
    inner = entry.get("request")
    if isinstance(inner, str):  # NGINX's $request
        asked = _request(inner)
    else:  # Caddy has them in a mapping of its own
        fields = {**entry, **(inner if isinstance(inner, dict) else {})}
        asked = _checked(_first(fields, _METHODS, "method"), _first(fields, _TARGETS, "target"))
    return Line(*_time(_first(entry, _TIMES, "time")), *asked)


def _first(fields: Mapping[str, Any], names: Iterable[str], what: str) -> Any:
    for name in names:
        if fields.get(name) not in (None, ""):
            return fields[name]
    raise ValueError(f"has no {what}: none of {', '.join(names)}")


def _time(value: Any) -> tuple[int, bool]:
    """(ns since 1970, whether it is known to the second only) of ISO 8601, of seconds, or of the combined format."""
    if isinstance(value, str) and re.fullmatch(r"\d{9,10}(\.\d{1,9})?", value):
        return int(Fraction(value) * NS_PER_S), "." not in value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e11:
        return int(Fraction(str(value)) * NS_PER_S), isinstance(value, int)
    text = str(value)
    found = None
    try:
        if re.match(r"\d+/", text):
            return int(datetime.strptime(text, _CLF_TIME).timestamp()) * NS_PER_S, True
        found = _ISO.fullmatch(text)
        at = datetime.fromisoformat(f"{found[1]}{found[3] or 'Z'}") if found else None
    except ValueError:
        at = None
    if found is None or at is None:
        raise ValueError(f"{_shown(text)} is no time: neither ISO 8601 nor seconds since 1970") from None
    return int(at.timestamp()) * NS_PER_S + int((found[2] or "0").ljust(9, "0")), found[2] is None


def _request(text: str) -> tuple[str, str]:
    found = _REQUEST.fullmatch(text)
    if found is None:
        raise ValueError(f"{_shown(text)} is no request line, as GET /path HTTP/1.1")
    return _checked(found[1], found[2])


def _checked(method: Any, target: Any) -> tuple[str, str]:
    """Both, as a load may send them; of a URL what follows the host. Raises ValueError."""
    path = re.sub(r"https?://[^/?]*", "", str(target), count=1) if str(target).startswith("http") else str(target)
    if path.startswith("?") or not path:
        path = "/" + path
    return requests.method(method), requests.path(path.partition("#")[0])


def _due(lines: Sequence[Line]) -> Iterator[int]:
    """ns from the first on; those of a whole second that stand together are spread over it."""
    begun_ns = lines[0].at_ns
    start = 0
    for end in range(1, len(lines) + 1):
        if end < len(lines) and lines[end].at_ns == lines[start].at_ns and lines[end].whole == lines[start].whole:
            continue
        for place in range(start, end):
            within = NS_PER_S * (place - start) // (end - start) if lines[start].whole else 0
            yield lines[start].at_ns - begun_ns + within
        start = end


def _shown(text: str) -> str:
    """In quotes, and otherwise as it stands in the log: a backslash there is one."""
    short = text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…"
    return "'" + "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in short) + "'"
