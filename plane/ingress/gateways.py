"""The gateway threads of an ingress, one or several, seen as one.

Law: each thread has a listener of its own on the port, between which Linux spreads clients (SO_REUSEPORT, socket(7)),
and all that it takes to carry a request, so that none waits for another. What is of the ingress as a whole holds for
all of them: routes are in force in each once ``install`` returns, an endpoint that has failed is passed over by each,
what limits allow is kept in one table, and what is counted is their sum. Turns are taken by each thread for itself, as
they are by each of several ingresses. One that fails leaves its clients and its port's share to the asyncio side.
"""

import socket
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from plane import fastroutes
from plane.descriptors import allow_descriptors
from plane.ingress.edge import Edge
from plane.ingress.fastlog import Done
from plane.ingress.gateway import NOBODY, Gateway
from plane.ingress.handing import Address, Carried, Handed, Secured
from plane.ingress.timeouts import Timeouts
from plane.routes import Routes

CAPACITY = 16_384  # clients of a thread, most of whom are idle, and connections to endpoints
DESCRIPTORS_BESIDES = 4096


class Gateways:
    """So many threads. What a ``Gateway`` calls each of them calls; ``fail`` with its number, from 0, first."""

    def __init__(
        self,
        threads: int,
        timeouts: Timeouts,
        ports: tuple[int, int],
        take: Callable[[Handed], object],
        count: Callable[[Done], object],
        fail: Callable[[int, str], object],
        carry: Callable[[Secured], Carried | None],
        *,
        edge: Edge = NOBODY,
        timed: bool = False,
        logs: bool = False,
        tallies: np.ndarray | None = None,
    ):
        allow_descriptors(threads * 2 * CAPACITY + DESCRIPTORS_BESIDES)
        self.capacity = threads * CAPACITY
        self.threads = tuple(
            Gateway(
                timeouts,
                ports,
                take,
                count,
                partial(fail, number),
                carry,
                edge=edge,
                timed=timed,
                logs=logs,
                capacity=CAPACITY,
                tallies=tallies,
            )
            for number in range(threads)
        )
        self._compiler = fastroutes.Compiler()

    def start(self, listeners: Sequence[socket.socket]) -> None:
        """Accept from these, one for each thread; there is an ``install`` before."""
        for thread, listener in zip(self.threads, listeners, strict=True):
            thread.start(listener)

    def install(self, routes: Routes, number: int) -> None:
        """Put Routes in force, which rows of requests done will name by ``number``."""
        roads = self._compiler.compile(routes)
        for installing in [thread.install(roads, number) for thread in self._serving]:
            installing.result()

    def named(self) -> set[int]:
        """What rows of requests that are under way will name. Those that are done are counted by then."""
        return {number for named in [thread.named() for thread in self._serving] for number in named.result()}

    def hear(self, channel: int) -> None:
        """Take clients by TLS of a terminator's channel, each thread those that it reads first; before ``start``."""
        for thread in self.threads:
            thread.hear(channel)

    def put_out(self, address: Address, seconds: float) -> None:
        """An endpoint has failed (or, with 0 seconds, answered): it is passed over for so long."""
        for telling in [thread.put_out(address, seconds) for thread in self.threads]:
            telling.result()

    @property
    def _serving(self) -> list[Gateway]:
        return [thread for thread in self.threads if thread.serves]

    @property
    def serves(self) -> bool:
        """Whether any of them carries requests, or has not begun."""
        return bool(self._serving)

    @property
    def is_whole(self) -> bool:
        """Whether they all do."""
        return len(self._serving) == len(self.threads)

    @property
    def idle(self) -> int:
        """How many connections to endpoints wait for a request."""
        return sum(thread.idle for thread in self.threads)

    @property
    def at_work(self) -> int:
        return sum(thread.at_work for thread in self.threads)

    @property
    def clients(self) -> int:
        return sum(thread.clients for thread in self.threads)

    def punts(self) -> dict[str, int]:
        """How many connections were handed over, for each reason there was."""
        return dict(sum((Counter(thread.punts()) for thread in self.threads), Counter[str]()))

    @property
    def given_back(self) -> int:
        """How many connections the asyncio side has given back."""
        return sum(thread.given_back for thread in self.threads)

    @property
    def crowded_out(self) -> int:
        """How many clients were closed, idle, to make room for others."""
        return sum(thread.crowded_out for thread in self.threads)

    def settle(self) -> list[Done]:
        """The requests done that ``count`` has not been given, of each thread."""
        settling = [thread.settle() for thread in self.threads]
        return [each.result() for each in settling]

    def drain(self) -> None:
        """Accept who waits for it and no more; hand over who asks for nothing, the others once they are answered."""
        for thread in self.threads:
            thread.drain()

    def stop(self) -> None:
        """Close everything at once. Blocks for a moment."""
        for thread in self.threads:
            thread.stop()
