"""Quantities: what is taken, and how times look to people."""

from collections.abc import Callable
from fractions import Fraction

import pytest

from harness import units

MS = 1_000_000
S = 1_000_000_000


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (units.duration, "10s", 10 * S),
        (units.duration, "500ms", 500 * MS),
        (units.duration, "2m", 120 * S),
        (units.duration, "1.5h", 5400 * S),
        (units.duration, " 3 s ", 3 * S),
        (units.pause, "0s", 0),
        (units.latency, "250us", 250_000),
        (units.latency, "0.1ms", 100_000),
        (units.rate, "500/s", Fraction(500)),
        (units.rate, "30/m", Fraction(1, 2)),
        (units.rate, "1/h", Fraction(1, 3600)),
        (units.rate, "0.1 / s", Fraction(1, 10)),
        (units.share, 0, 0),
        (units.share, 7, 7),
        (units.share, "0.1%", Fraction(1, 1000)),
        (units.share, "100%", Fraction(1)),
    ],
)
def test_reads(parse: Callable[[object], object], text: object, value: object) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "value"),
    [
        (units.duration, "s"),
        (units.duration, "-1s"),
        (units.duration, "1us"),
        (units.duration, "1e3s"),
        (units.duration, True),
        (units.duration, None),
        (units.latency, "0ms"),
        (units.latency, "1h"),
        (units.rate, "500"),
        (units.rate, "/s"),
        (units.rate, ["1/s"]),
        (units.share, -1),
        (units.share, True),
        (units.share, 0.5),
        (units.share, "half"),
    ],
)
def test_refuses(parse: Callable[[object], object], value: object) -> None:
    with pytest.raises(ValueError, match=r"writ|more than 0"):
        parse(value)


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (12_345, "12.3 µs"),
        (999_499, "999 µs"),
        (999_500, "1.00 ms"),
        (4_070_000, "4.07 ms"),
        (1_200_000_000, "1.20 s"),
        (123_456_000_000, "123 s"),
    ],
)
def test_times_have_three_digits(ns: int, text: str) -> None:
    assert units.format_ns(ns) == text
