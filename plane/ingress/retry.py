"""Whether and how often a request is tried again at another endpoint.

Law: whatever a policy says, a request that may have reached an endpoint is repeated only if it is idempotent, or the
policy says ``non_idempotent``, and never one whose body is under way.
"""

from typing import NamedTuple

from plane.ingress import forwarding
from plane.ingress.connection import UnansweredError
from plane.policies import Policies, conditions


class Retry(NamedTuple):
    """How often a request is tried, after what (nothing: the plane's own rule), and for how long (0: any time)."""

    tries: int = 3
    on: frozenset[str] = frozenset()
    within_s: float = 0.0

    def after(self, failure: UnansweredError, method: str, streaming: bool) -> bool:
        """Whether it may be tried again after no answer came; ``streaming``: its body is under way."""
        if self.on:
            return failure.kind in self.on and (failure.unsent or self._repeatable(method, streaming))
        return failure.unsent or (failure.no_answer and self._repeatable(method, streaming))

    def after_status(self, status: int, method: str, streaming: bool) -> bool:
        """Whether it may be tried again although an answer has come."""
        return f"http_{status}" in self.on and self._repeatable(method, streaming)

    def blames(self, status: int) -> bool:
        """Whether an answer counts as a failure of its endpoint; 403 and 404 never do, as in NGINX."""
        return status not in (403, 404) and f"http_{status}" in self.on

    def _repeatable(self, method: str, streaming: bool) -> bool:
        return not streaming and (method in forwarding.IDEMPOTENT or "non_idempotent" in self.on)


DEFAULT = Retry()


def retry_of(policies: Policies) -> Retry:
    on = frozenset(conditions(policies.retry_on))
    tries = 1 if "off" in on else policies.retry_tries or DEFAULT.tries
    return Retry(tries, on, policies.retry_timeout_ms / 1000)
