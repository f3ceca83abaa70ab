"""Heads of HTTP/1.1 a second on one core, beside llhttp (httptools) and h11. Each is first made sure to see the same.

The compiled reader is asked from compiled code, as the gateway asks it, and writes the head that goes to an endpoint
in a row of its own; the others are asked from Python, which is the only way to ask them, and call back for every field.
"""

from typing import Any

import h11
import httptools
import numba
import numpy as np
import pytest

from kernels.jit import INTERPRETED
from kernels.layout_http import Hop
from kernels.net import http1, writing

pytestmark = [
    pytest.mark.skipif(INTERPRETED, reason="compares machine code"),
    pytest.mark.benchmark(group="http1"),
]

HEADS = 1000
PLAIN = b"GET /api/v1/items?page=2 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n"
BROWSER = PLAIN[:-2] + (
    b"Accept-Language: en-GB,en;q=0.7\r\nAccept-Encoding: gzip, deflate, br\r\nConnection: keep-alive\r\n"
    b"Cookie: session=0123456789abcdef0123456789abcdef\r\nSec-Fetch-Mode: cors\r\nPriority: u=1\r\n\r\n"
)
SIZES = pytest.mark.parametrize("head", [PLAIN, BROWSER], ids=["100 bytes", "300 bytes"])
FORWARDING = (
    b"X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Port: 80\r\n"
)


def measure(benchmark: Any, work: Any, bytes_of_head: int, heads: int = HEADS) -> None:
    benchmark(work)
    if benchmark.stats:  # none where benchmarks run as tests
        ns = benchmark.stats["median"] / heads * 1e9
        benchmark.extra_info.update(bytes=bytes_of_head, ns_a_head=round(ns), million_heads_per_s=round(1e3 / ns, 2))


def uint8(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8).copy()


@numba.njit(nogil=True, error_model="numpy")
def scan_all(data, heads, lines, count):
    """The sum of what ``count`` scans of one head answer."""
    total = 0
    for _ in range(count):
        total += http1.scan_request(data, 0, data.size, heads[0], lines)
    return total


@numba.njit(nogil=True, error_model="numpy")
def write_all(out, data, heads, lines, hop, count):
    total = 0
    for number in range(count):
        total += writing.write_request(out, data, heads[0], lines, hop, np.uint64(number))
    return total


@SIZES
def test_scanned(benchmark: Any, head: bytes) -> None:
    data, heads, lines = uint8(head), http1.create_heads(1), http1.create_lines()
    assert scan_all(data, heads, lines, HEADS) == HEADS * len(head)
    assert heads[0]["lines"] == head.count(b"\r\n") - 2
    measure(benchmark, lambda: scan_all(data, heads, lines, HEADS), len(head))


@SIZES
def test_written(benchmark: Any, head: bytes) -> None:
    data, heads, lines, out = uint8(head), http1.create_heads(1), http1.create_lines(), np.zeros(4096, np.uint8)
    nothing = np.zeros(0, np.uint8)
    hop = Hop(uint8(FORWARDING), nothing, nothing, nothing)
    scan_all(data, heads, lines, 1)
    assert write_all(out, data, heads, lines, hop, HEADS) > HEADS * len(head)
    measure(benchmark, lambda: write_all(out, data, heads, lines, hop, HEADS), len(head))


class Fields:
    """What llhttp calls back for."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def on_url(self, target: bytes) -> None:
        self.target = target

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


@SIZES
def test_llhttp(benchmark: Any, head: bytes) -> None:
    def work() -> None:
        for _ in range(HEADS):
            seen = Fields()
            httptools.HttpRequestParser(seen).feed_data(head)
        assert len(seen.fields) == head.count(b"\r\n") - 2

    measure(benchmark, work, len(head))


@SIZES
def test_h11(benchmark: Any, head: bytes) -> None:
    def work() -> None:
        for _ in range(HEADS // 10):
            reader = h11.Connection(h11.SERVER)
            reader.receive_data(head)
            seen = reader.next_event()
        assert isinstance(seen, h11.Request)
        assert len(seen.headers) == head.count(b"\r\n") - 2

    measure(benchmark, work, len(head), HEADS // 10)
