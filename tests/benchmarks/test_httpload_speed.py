"""A fixed number of requests to the HTTP responder: by the compiled driver, and by the asyncio one as its baseline."""

import asyncio
import time
from fractions import Fraction

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.drivers.ceiling import responding
from harness.drivers.compiled import CompiledStream
from harness.drivers.http import Destination
from harness.drivers.stream import Stream, Task
from harness.mix import Mix
from harness.workload import Workload

pytestmark = pytest.mark.syscalls

REQUESTS = 2000
S = 1_000_000_000


@pytest.mark.benchmark(group="httpload: 2,000 requests at once, 32 connections")
@pytest.mark.parametrize("driver", ["asyncio", "compiled"])
def test_requests_at_once(benchmark: BenchmarkFixture, driver: str) -> None:
    with responding(None) as port:
        # All are due within 2 us, so that how long it takes is what the driver takes.
        task = Task(
            Destination("127.0.0.1", port),
            Mix.of(Workload("x")),
            Fraction(REQUESTS * S // 2000),
            32,
            0,
            2000,
            30 * S,
            0,
        )

        def ask() -> int:
            if driver == "compiled":
                recorded = CompiledStream(task).run(time.monotonic_ns())
            else:
                recorded = asyncio.run(Stream(task).run(time.monotonic_ns()))
            return int((recorded.requests["status"] == 200).sum())

        assert benchmark(ask) == REQUESTS
    if benchmark.stats is not None:
        benchmark.extra_info["requests_per_s"] = round(REQUESTS / benchmark.stats.stats.median)
