"""How benchmarks of kernels take time: a kernel by itself, what it is compared with in turns with it."""

import statistics
import time
from collections.abc import Callable
from typing import Any

TURNS_S = 1.5
LEAST_TURNS = 7

Work = Callable[[], object]


def measure(benchmark: Any, work: Work, flows: int, ours: Work | None = None) -> None:
    """Times ``work``, of so many flows; where ``ours`` is given, in turns with that.

    Noted are ``flows_per_s``, by the median, and ``times_ours``: how many times as long as ``ours`` it takes.
    """
    benchmark.extra_info["flows"] = flows
    if ours is None:
        benchmark(work)
    else:
        in_turns(benchmark, work, ours)
    if benchmark.stats:  # none where benchmarks run as tests
        benchmark.extra_info["flows_per_s"] = round(flows / benchmark.stats["median"])


def in_turns(benchmark: Any, work: Work, ours: Work) -> None:
    """Times ``work``, with ``ours`` before each round of it, and notes ``times_ours``: the median, and the quartiles.

    A machine that is shared with others is now slow, now fast, for seconds. One after the other, each of two may meet
    another machine; in turns, both meet the same.
    """
    took: list[float] = []

    def turn_of_ours() -> None:
        begin = time.perf_counter()
        ours()
        took.append(time.perf_counter() - begin)

    turns = 1
    if not benchmark.disabled:
        begin = time.perf_counter()
        turn_of_ours()
        work()
        turns = max(LEAST_TURNS, round(TURNS_S / (time.perf_counter() - begin)))
        took.clear()
    benchmark.pedantic(work, setup=turn_of_ours, rounds=turns)
    if benchmark.stats:
        ratios = [theirs / own for theirs, own in zip(benchmark.stats.stats.data, took, strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4)
        benchmark.extra_info["times_ours"] = f"{median:.2f} ({low:.2f} to {high:.2f})"
