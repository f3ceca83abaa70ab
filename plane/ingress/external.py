"""Backends that are hosts by name: Services of type ExternalName.

Law: a name is asked for when a request needs it, once for all that wait, and again when its answer no longer holds; the
cluster's own names first, then the machine's. Whether there is an answer is known within ``LOOKUP_S``: a request never
hangs on a name. An address of the ingress itself is none, because a request would come round for ever.
"""

import asyncio
import functools
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from plane.dns.resolver import Found, Resolver, UnresolvedError, threads
from plane.ingress.upstream import Address
from plane.routes import External

LOOKUP_S = 5.0
SHORTEST_S = 1.0  # for which an answer holds at least
KNOWN = 1024  # names that are remembered: clients may choose some of them
FAILED_S = 2.0  # for which it holds that there is none


@dataclass
class _Known:
    """A lookup that is under way, or what came of it, and until when that holds by the loop's clock."""

    asking: "asyncio.Task[Found]"
    until: float = float("inf")


class Hosts:
    """The addresses of named hosts. Use from one event loop.

    own         the ingress' own addresses, which lead nowhere
    bound_port  the port that is really listened on for a port of an address
    """

    def __init__(self, resolver: Resolver, own: Collection[Address], bound_port: Callable[[str, int], int]):
        self._resolver = resolver
        self._own = own
        self._bound_port = bound_port
        self._known: dict[str, _Known] = {}

    async def addresses(self, external: External) -> tuple[Address, ...]:
        """Where a host is reached, other than here. Raises UnresolvedError."""
        there = await self.anywhere(external)
        if all(address in self._own for address in there):
            raise UnresolvedError("it leads back to this ingress")
        return tuple(address for address in there if address not in self._own)

    async def anywhere(self, external: External) -> tuple[Address, ...]:
        """Where a host is reached, which may be here. Raises UnresolvedError."""
        loop = asyncio.get_running_loop()
        known = self._known.get(external.name)
        if known is None or known.until <= loop.time():
            if len(self._known) >= KNOWN:
                self._known.clear()  # who waits for one gets its answer still
            known = self._known[external.name] = _Known(loop.create_task(self._ask(external.name)))
            known.asking.add_done_callback(functools.partial(_hold, known))
        found = await asyncio.shield(known.asking)
        return tuple((ip, self._bound_port(ip, external.port)) for ip in found.addresses)

    def keep(self, externals: Iterable[External]) -> None:
        """Forget all other names; who waits for one gets its answer still."""
        for name in self._known.keys() - {external.name for external in externals}:
            del self._known[name]

    def close(self) -> None:
        """Nobody waits any more."""
        for known in self._known.values():
            known.asking.cancel()

    def in_use(self, external: External) -> list[Address]:
        """Where a host was reached last, nowhere while that is not known."""
        known = self._known.get(external.name)
        if known is None or not known.asking.done() or known.asking.cancelled() or known.asking.exception():
            return []
        return [(ip, self._bound_port(ip, external.port)) for ip in known.asking.result().addresses]

    async def _ask(self, name: str) -> Found:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(LOOKUP_S):
                return await loop.run_in_executor(threads, self._resolver.addresses, name)
        except TimeoutError:
            raise UnresolvedError(f"no answer within {LOOKUP_S:g} s") from None


def _hold(known: _Known, asked: "asyncio.Task[Found]") -> None:
    """Until when the answer holds that has just come."""
    if not asked.cancelled():
        held_s = FAILED_S if asked.exception() else max(asked.result().ttl_s, SHORTEST_S)
        known.until = asked.get_loop().time() + held_s
