"""What a node says of a pod. Law: a value, and the only thing of this room that leaves the node's process."""

from dataclasses import dataclass
from typing import Literal

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]


@dataclass(frozen=True)
class PodStatus:
    """One pod as its node sees it.

    phase       as in ``status.phase``; Pending also while a container waits to be started again
    ready       every container runs and its readiness probe succeeds, and the pod is not draining
    restarts    starts of its containers after the first, in this life of the node
    started_ns  when the last of its containers started, monotonic clock; 0 while one has not
    reason      one word in kubectl's vocabulary, empty when all is well
    message     for people: what is wrong, and the remedy
    gone        its termination is complete, nothing of it is left
    """

    namespace: str
    name: str
    uid: str
    phase: Phase
    ready: bool
    restarts: int
    started_ns: int
    reason: str
    message: str
    gone: bool
