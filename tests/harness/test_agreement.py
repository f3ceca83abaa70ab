"""What is held against wrk: that its correction is ours, and that the target which delays does so."""

import os
import socket
import time

import click
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.drivers import agreement

SAID = """Running 1s test
{"answered": 1000, "us": 500000, "bad": 0, "percentiles": [10, 20, 30, 40]}
"""


def as_wrk_does(latencies_us: list[int], expected: int) -> list[int]:
    """``stats_correct`` of wrk 4.1.0, on counts by microsecond."""
    counts = [0] * (max(latencies_us) + 1)
    for latency in latencies_us:
        counts[latency] += 1
    for n in range(expected * 2, len(counts)):
        m = n - expected
        while counts[n] and m > expected:
            counts[m] += counts[n]
            m -= expected
    return [latency for latency, count in enumerate(counts) for _ in range(count)]


@given(st.lists(st.integers(1, 300), min_size=1, max_size=20), st.integers(1, 60))
def test_latencies_are_corrected_as_wrk_corrects_them(latencies_us: list[int], expected: int) -> None:
    found = agreement.corrected(np.array(latencies_us, np.float64), expected + 0.5)
    assert sorted(found.tolist()) == as_wrk_does(latencies_us, expected)


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert agreement.percentiles(np.arange(1, 1001, dtype=np.float64)[::-1]) == [500, 900, 990, 999]
    assert agreement.percentiles(np.array([7.0])) == [7, 7, 7, 7]


def test_what_others_print_is_read_and_their_errors_are_none_of_ours() -> None:
    assert agreement.read_wrk(SAID) == (2000, [10, 20, 30, 40])
    text = "finished in 999.84ms, 1234.50 req/s, 1MB/s\nrequests: 5 done, 5 succeeded, 0 failed, 0 errored, 0 timeout"
    assert agreement.read_h2load(text) == 1234.5
    for read, said in (
        (agreement.read_wrk, SAID.replace('"bad": 0', '"bad": 2')),
        (agreement.read_wrk, "nothing"),
        (agreement.read_h2load, text.replace("0 errored", "1 errored")),
    ):
        with pytest.raises(click.ClickException, match="did not measure"):
            read(said)


def test_the_target_that_delays_answers_a_millisecond_later() -> None:
    with (
        agreement.delaying(min(os.sched_getaffinity(0))) as port,
        socket.create_connection(("127.0.0.1", port), 10) as client,
    ):
        for _ in range(3):
            began_ns = time.monotonic_ns()
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(4096).endswith(b"\r\n\r\n" + b"x" * 100)
            assert time.monotonic_ns() - began_ns >= agreement.DELAY_NS
