"""Asking others whether a request goes on: one question without a body, and its answer.

Law: what is not answered, in whatever way, lets nobody in. A question takes ``WITHIN_S`` at most, however slowly it is
answered, and is asked again only where a kept connection has gone stale under it. Answers are kept where the policies
say by what they are told apart; so many, and none beyond its time.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import SplitResult

from plane.conduct import Request
from plane.externalauth import SENT_FROM, ExternalAuth
from plane.ingress import forwarding
from plane.ingress.connection import UnansweredError
from plane.ingress.forwarding import RefusedError, RequestHead
from plane.ingress.outside import Outside

WITHIN_S = 60.0
KEPT = 4096  # answers of a route
_TOLD = (b"x-forwarded-host", b"x-forwarded-port")  # what a trusted proxy says goes on


class Decision(NamedTuple):
    """An answer: its status, and its fields as lines."""

    status: int
    lines: tuple[bytes, ...]

    def values(self, name: bytes) -> list[bytes]:
        """All values of a field, by its name in lower case."""
        pairs = (line.partition(b": ") for line in self.lines)
        return [value for key, _, value in pairs if key.lower() == name]


Key = tuple[str, str]  # the route and the host, by name; who is asked, and what tells its requests apart


class Decisions:
    """Answers of one route that are kept. ``now_s`` is a clock that never goes back."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic):
        self._now_s = now_s
        self._kept: OrderedDict[Key, tuple[Decision, float]] = OrderedDict()

    def get(self, key: Key) -> Decision | None:
        decision, until_s = self._kept.get(key, (None, 0.0))
        return decision if self._now_s() < until_s else None

    def keep(self, key: Key, decision: Decision, for_s: float) -> None:
        self._kept[key] = decision, self._now_s() + for_s
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)


class Asking:
    """Asks on behalf of requests. Use from one event loop."""

    def __init__(self, outside: Outside):
        self._outside = outside

    async def decision(
        self, auth: ExternalAuth, seen: Request, head: RequestHead, route: str, kept: Decisions
    ) -> Decision:
        """Whether a request, of the route of this name, goes on. Raises RefusedError where nobody says so."""
        if seen.value("x-sent-from") == SENT_FROM:  # it asks whether another one goes on: that would go round for ever
            raise RefusedError(500, "whether a request goes on is asked by way of a route where that is asked again")
        try:
            url = auth.url(seen)
        except ValueError as error:
            raise RefusedError(500, f"the URL of the external authentication becomes none: {error}") from error
        key = (route, f"{url.netloc} {auth.key(seen)}")
        if auth.keeps and (known := kept.get(key)):
            return known
        try:
            async with asyncio.timeout(WITHIN_S):
                decision = await self._answer(auth, url, _lines(auth, seen, head))
        except TimeoutError:
            raise RefusedError(500, f"the external authentication takes more than {WITHIN_S:g} s") from None
        except UnansweredError as error:
            raise RefusedError(500, f"the external authentication does not answer: {error}") from error
        if auth.keeps and (for_s := auth.kept_s(decision.status, decision.lines)):
            kept.keep(key, decision, for_s)
        return decision

    async def _answer(self, auth: ExternalAuth, url: SplitResult, lines: Sequence[bytes]) -> Decision:
        """Raises UnansweredError."""
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        host = (url.hostname or "").encode()
        data = b"\r\n".join((f"{auth.method} {target} HTTP/1.1".encode(), b"Host: " + host, *lines, b"", b""))
        return Decision(*await self._outside.answer(url, auth.method, data))


def _lines(auth: ExternalAuth, seen: Request, head: RequestHead) -> list[bytes]:
    """The fields of a question but Host: those of the client that are not ours to write, then ours."""
    passed = [line for line in forwarding.without(head.lines, auth.written) if line[:3].lower() != b"te:"]
    told = [name + b": " + head.told[name] for name in _TOLD if name in head.told and name not in auth.written]
    ours = forwarding.field_lines(auth.fields(seen, head.request_id.decode("latin-1")))
    length = [b"Content-Length: 0"] if auth.method in ("POST", "PUT", "PATCH") else []
    return [*passed, *told, *ours, *length]
