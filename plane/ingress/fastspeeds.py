"""How fast endpoints count as of which the gateway knows nothing: as ``plane.balance.Balancer.settle`` has it.

Law: an endpoint that is new to a Service begins as fast as the others are on average, and not as the fastest.
"""

import numpy as np

from kernels.layout import EWMA
from kernels.layout_routes import Roads


def settle(roads: Roads, rows: np.ndarray, endpoints: np.ndarray, now_ns: int) -> None:
    """Say it of those that Roads lead to, which are at these ``rows`` of ENDPOINT[…], by their ids."""
    if not (roads.goals["algorithm"] == EWMA).any():
        return
    there = rows[roads.endpoints]
    heard = np.concatenate(([0], np.cumsum(endpoints["heard_ns"][there] > 0)))
    first, count = (roads.goals[name].astype(np.int64) for name in ("first", "endpoints"))
    known = heard[first + count] - heard[first]
    for goal in np.flatnonzero((roads.goals["algorithm"] == EWMA) & (known > 0) & (known < count)).tolist():
        of = there[first[goal] : first[goal] + count[goal]]
        new = endpoints["heard_ns"][of] == 0
        endpoints["latency_ns"][of[new]] = endpoints["latency_ns"][of[~new]].mean()
        endpoints["heard_ns"][of[new]] = now_ns
