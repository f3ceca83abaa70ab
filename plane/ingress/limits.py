"""How many requests a client may send: a second, a minute, and at a time.

Law: NGINX's leaky bucket. A client's excess drains at the rate and grows by one with each request that is let through;
one that would bring it over the burst is turned away at once. What is kept outlives installs, has a bound, and the
client that was quiet longest is forgotten first.
"""

import time
from collections import OrderedDict
from collections.abc import Callable

from plane.conduct import over_limits
from plane.policies import Policies

CLIENTS = 65_536  # that are remembered
Client = int | str  # an IPv4 address as a number, another as text
Who = tuple[str, int, Client]  # (key of the limit, requests a minute, client)


def is_unlimited(policies: Policies, client: Client) -> bool:
    """Whether a client is one of those to whom no limit applies."""
    return isinstance(client, int) and any(client & mask == ip for ip, mask in policies.unlimited)


class Limits:
    """Of one ingress. ``now_s`` is a clock that never goes back."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic):
        self._now_s = now_s
        self._buckets: OrderedDict[Who, tuple[float, float]] = OrderedDict()  # (excess, when)
        self._at_work: dict[tuple[str, Client], int] = {}

    def limited(self, policies: Policies, client: Client) -> str:
        """Why a request must be turned away, empty where it is let through, which counts. Then ``leave`` follows."""
        if not policies.limit_key:
            return ""
        if is_unlimited(policies, client):
            return ""
        now_s = self._now_s()
        filled: dict[Who, tuple[float, float]] = {}
        over_second, over_minute, over_at_once = over_limits(policies)
        rates = (policies.limit_rps, 60, over_second), (policies.limit_rpm, 1, over_minute)
        for many, times, why in rates:
            a_minute = times * many
            if not a_minute:
                continue
            who = policies.limit_key, a_minute, client
            excess = self._excess(who, now_s)
            if excess > many * policies.limit_burst:
                return why
            filled[who] = excess, now_s
        if policies.limit_connections and not self._enter(policies, client):
            return over_at_once
        for who, bucket in filled.items():
            self._buckets[who] = bucket
            self._buckets.move_to_end(who)
        while len(self._buckets) > CLIENTS:
            self._buckets.popitem(last=False)
        return ""

    def leave(self, policies: Policies, client: Client) -> None:
        """A request that ``limited`` let through is done."""
        who = policies.limit_key, client
        left = self._at_work.get(who, 0) - 1
        if left > 0:
            self._at_work[who] = left
        else:
            self._at_work.pop(who, None)

    def _excess(self, who: Who, now_s: float) -> float:
        """In requests, if this one is let through; the first of a client is none."""
        if who not in self._buckets:
            return 0.0
        excess, then_s = self._buckets[who]
        return max(0.0, excess - who[1] / 60 * (now_s - then_s) + 1)

    def _enter(self, policies: Policies, client: Client) -> bool:
        who = policies.limit_key, client
        count = self._at_work.get(who, 0)
        if count >= policies.limit_connections:
            return False
        self._at_work[who] = count + 1
        return True
