"""What a load sends: the schema of ``spec.loads[].requests``, and how methods, paths and headers are read.

Law: as in ``scenario``. What the requests are on the wire, and which of them each row is, is decided in ``traffic``.
"""

import re
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from plane.strict import Contradiction, Part, at, read_by

# Headers that the driver writes itself, because a wrong one would change what is measured.
OWN_HEADERS = ("connection", "content-length", "transfer-encoding", "x-request-id")
# Each is kept as it is on the wire, so that none is made while the load runs.
REQUESTS_AT_MOST = 100_000
# What a path says in the place of the number that ``zipf`` draws.
NUMBER = "{i}"

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def label(value: Any) -> str:
    if not isinstance(value, str) or not _LABEL.fullmatch(value):
        raise ValueError(
            f"{value!r} is no name: write 1 to 63 of a-z, 0-9 and '-', beginning and ending with a-z or 0-9"
        )
    return value


def path(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"/[!-~]*", value) or "#" in value:
        raise ValueError(f"{value!r} is no path: it begins with '/' and is percent-encoded, as /hostname?full=1")
    return value


def method(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Z]+", value) or value in ("CONNECT", "TRACE"):
        raise ValueError(f"{value!r} is no method for a load: write GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS")
    return value


def headers(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError("headers are a mapping of names to text, as {Accept: application/json}")
    for name, text in value.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} is no header name")
        if name.lower() in OWN_HEADERS:
            raise ValueError(f"{name} is set by the load itself: leave it out")
        if not isinstance(text, str) or not re.fullmatch(r"[\t -~]*", text):
            raise ValueError(f"{name}: {text!r} is no header text: put printable ASCII into quotes")
    return value


Label = Annotated[str, read_by(label)]
Path = Annotated[str, read_by(path)]
Method = Annotated[str, read_by(method)]
Headers = Annotated[dict[str, str], read_by(headers)]


class Zipf(Part):
    """A number from 1 to ``count`` for each request: i with a probability in proportion to 1/i^s, so 1 comes most."""

    s: Annotated[float, Field(ge=0, le=10)]
    count: Annotated[int, Field(ge=1, le=REQUESTS_AT_MOST)]


class Request(Part):
    """One of the requests of a load, sent ``weight`` times in as many as all weights are together.

    What is not given here is the load's: the path of its target, and headers beside those that have a name in common.
    """

    name: Label | None = None
    weight: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    method: Method = "GET"
    path: Path | None = None
    headers: Headers = Field(default_factory=dict)
    body: str = ""
    zipf: Zipf | None = None

    @classmethod
    def contradictions(cls, given: dict[str, Any]) -> Iterator[Contradiction]:
        numbered = NUMBER in str(given.get("path"))
        if "zipf" in given and not numbered:
            yield ("path",), f"has no place for the number of zipf: write {NUMBER} where it belongs, as /item/{NUMBER}"
        if numbered and "zipf" not in given:
            yield (
                ("zipf",),
                f"draws the number that stands for {NUMBER} in the path: add it, as {{s: 1.1, count: 1000}}",
            )


def contradictions(load: dict[str, Any]) -> Iterator[Contradiction]:
    """What is wrong between a load and its requests, and between these."""
    requests = load.get("requests")
    if not isinstance(requests, list):
        return
    if not requests:
        yield ("requests",), "is empty: list some, or leave it out"
        return
    for name in ("method", "body"):
        if name in load:
            yield (name,), "goes into each of the requests, where there are some"
    seen: set[str] = set()
    total = 0
    for place, request in enumerate(requests):
        name = at(request, "name")
        text = name or f"{at(request, 'method') or 'GET'} {at(request, 'path') or 'of the target'}"
        if isinstance(text, str) and text in seen:
            reason = f"{text!r} is another request, too: give them names, so that rows tell them apart"
            yield ("requests", place, "name"), reason
        seen.add(text)
        size = at(request, "zipf", "count")
        total += size if isinstance(size, int) else 1
    if total > REQUESTS_AT_MOST:
        yield ("requests",), f"are {total:,} different ones; {REQUESTS_AT_MOST:,} are the most: lower the count of zipf"
