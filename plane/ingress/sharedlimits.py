"""The limits of an ingress that has compiled gateways: one table, asked by them and by the asyncio side.

Law: as ``limits`` has it, but what is kept is kept in ``kernels.net.limits``, so that a client has one allowance,
whichever way its requests go.
"""

import time
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from kernels.layout_limits import COUNTED, LET_IN, LIMIT, OVER_SECOND
from kernels.net import limits
from plane.conduct import over_limits
from plane.fastpolicies import limit_of
from plane.ingress.limits import Client, Limits, is_unlimited
from plane.policies import Policies

_NO_ADDRESS = 1 << 63  # of the numbers of clients that have no IPv4 address


def warm() -> None:
    """Compile, or load, what Python calls."""
    shared, policies = SharedLimits(clients=limits.WAYS), Policies(limit_key="a", limit_connections=1)
    shared.limited(policies, 1)
    shared.leave(policies, 1)


class SharedLimits(Limits):
    """Of one ingress. ``tallies``: TALLY[…], what its gateways are given; ``now_ns`` is their clock."""

    def __init__(self, now_ns: Callable[[], int] = time.monotonic_ns, *, clients: int = limits.CLIENTS):
        super().__init__()
        self._now_ns = now_ns
        self.tallies = limits.create(clients)

    def limited(self, policies: Policies, client: Client) -> str:
        if not policies.limit_key or is_unlimited(policies, client):
            return ""
        row = _row(limit_of(policies))
        said = int(limits.enter(self.tallies, row[0], _number(client), self._now_ns()))
        return "" if said in (LET_IN, COUNTED) else over_limits(policies)[said - OVER_SECOND]

    def leave(self, policies: Policies, client: Client) -> None:
        if not is_unlimited(policies, client):
            limits.leave(self.tallies, np.uint64(limit_of(policies)[0]), _number(client))


@lru_cache(4096)
def _row(limit: tuple[int, ...]) -> np.ndarray:
    """LIMIT[1]."""
    return np.array([limit], LIMIT)


def _number(client: Client) -> np.uint64:
    if isinstance(client, int):
        return np.uint64(client)
    return np.uint64(int.from_bytes(blake2b(client.encode(), digest_size=8).digest()) | _NO_ADDRESS)
