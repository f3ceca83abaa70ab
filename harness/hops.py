"""Where the time of a request went: from when it was due to its whole answer, in parts by who had it.

Law: the parts of a row are never negative and sum up to its latency exactly. They are the distances of timestamps on
its way, in order; one that is not known takes no time, and what it would have taken is in the next that is. Client,
ingress and pod read one clock (CLOCK_MONOTONIC of the machine), but each notes a time when it comes to it, so that two
sides of one system call may be noted the wrong way round, by microseconds: then the later point counts as reached.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# What is around a percentile reaches so far to both sides, as a share of the requests that are slower than it: around
# p99 is p98.75 to p99.25, around the median the middle quarter.
BREADTH = 0.25
UNKNOWN = -1 << 62  # before every other time; twice that is an int64 still
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}


@dataclass(frozen=True)
class Hop:
    """A part of a request's time. ``timer``: HAProxy's name for it, where it has one."""

    name: str
    meaning: str
    timer: str = ""


# In the order of the way. Timers: https://docs.haproxy.org/3.2/configuration.html#8.4
HOPS = (
    Hop("client queue", "due, and waiting in the generator for a connection"),
    Hop("client connect", "connecting to the target"),
    Hop("client TLS", "shaking hands with the target, by HTTPS"),
    Hop("to ingress", "on the way to the ingress, and waiting for its thread", "TR"),
    Hop("ingress", "route, policies, tries that failed, choice of an endpoint", "Tw"),
    Hop("upstream connect", "the ingress connecting to the pod; nothing on a kept connection", "Tc"),
    Hop(
        "to pod",
        "on the way to the pod, through a relay or another's ingress if there is one, and waiting for its thread",
        "Tr",
    ),
    Hop("pod", "in the pod, waiting for its workers included; with both ways where the pod keeps no record", "Tr"),
    Hop("from pod", "on the way from the pod to the ingress, or to the client where there is none", "Tr"),
    Hop("answer", "the ingress passing the answer on", "Td"),
    Hop("to client", "on the way from the ingress to the client, and waiting for its thread"),
    Hop("wait", "until the first byte, where neither ingress nor pod has a record"),
    Hop("receive", "rest of the answer, where neither ingress nor pod has a record"),
)
NAMES = tuple(hop.name for hop in HOPS)


def parts_ns(rows: pa.Table) -> np.ndarray:
    """int64[n, HOPS] of answered requests, rows of ``records.SCHEMA`` or of an earlier form of it."""
    due, sent, first, done = (_times(rows, name) for name in ("intended_ns", "sent_ns", "first_byte_ns", "done_ns"))
    received, pod = _times(rows, "ingress_received_ns"), _times(rows, "pod_received_ns")
    by_ingress, by_pod = received >= 0, pod >= 0
    first_byte = _times(rows, "upstream_first_byte_ns")
    secured = _times(rows, "tls_done_ns") >= 0
    ends = (
        _times(rows, "start_ns"),
        np.where(secured, _times(rows, "connected_ns"), sent),
        sent,
        received,
        _times(rows, "ingress_picked_ns"),
        _times(rows, "upstream_connected_ns"),
        pod,
        np.where(by_pod, pod + _times(rows, "service_ns"), first_byte),
        np.where(by_ingress, first_byte, np.where(by_pod, done, UNKNOWN)),
        _times(rows, "ingress_done_ns"),
        np.where(by_ingress, done, UNKNOWN),
        first,
        done,
    )
    reached = due
    found = np.empty((len(due), len(HOPS)), np.int64)
    for place, end in enumerate(ends):
        end = np.minimum(np.maximum(reached, end), done)
        found[:, place] = end - reached
        reached = end
    return found


def around(parts: np.ndarray) -> dict[str, np.ndarray]:
    """float64[HOPS] by name of a percentile: mean parts in ns of the requests whose latency is around it.

    parts  int64[n, HOPS] of at least one request
    """
    ordered = parts[np.argsort(parts.sum(axis=1), kind="stable")]
    number = len(ordered)
    found = {}
    for name, share in SHARES.items():
        breadth = BREADTH * (1 - share)
        first = min(int((share - breadth) * number), number - 1)
        last = max(round((share + breadth) * number), first + 1)
        found[name] = ordered[first:last].mean(axis=0)
    return found


def summarise(rows: pa.Table) -> dict[str, dict[str, int]]:
    """``around`` for answered requests of a load, by percentile and hop in whole ns; hops that took nothing left out.

    Empty where nothing was answered.
    """
    answered = rows.filter(pc.is_valid(rows["done_ns"]))
    if not answered.num_rows:
        return {}
    return {name: named(means) for name, means in around(parts_ns(answered)).items()}


def named(means: np.ndarray) -> dict[str, int]:
    return {name: round(mean) for name, mean in zip(NAMES, means.tolist(), strict=True) if round(mean)}


def known(summary: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The hops of a ``summarise`` that took any time, in their order."""
    return [name for name in NAMES if any(name in means for means in summary.values())]


def _times(rows: pa.Table, name: str) -> np.ndarray:
    """A column, UNKNOWN where it is null or the file has none."""
    if name not in rows.schema.names:
        return np.full(rows.num_rows, UNKNOWN, np.int64)
    return pc.fill_null(rows[name], UNKNOWN).to_numpy()
