"""Quantities as people write them, and the exact integers they mean.

Law: a quantity without a unit is refused, whatever it would most likely mean. Every parser raises ``ValueError`` whose
text names the units that are accepted and shows one that is right. Times become integer nanoseconds; a rate stays an
exact fraction, so that ten hours of ``30/m`` are not off by a rounding error.
"""

import re
from fractions import Fraction

NS_PER_S = 1_000_000_000
NS_BY_UNIT = {"us": 1_000, "ms": 1_000_000, "s": NS_PER_S, "m": 60 * NS_PER_S, "h": 3600 * NS_PER_S}
DURATION_UNITS = ("ms", "s", "m", "h")
LATENCY_UNITS = ("us", "ms", "s")
RATE_UNITS = ("s", "m", "h")

_NUMBER = r"\d{1,12}(?:\.\d{1,6})?"
_QUANTITY = re.compile(rf"({_NUMBER})\s*([A-Za-zµ]*)")
_RATE = re.compile(rf"({_NUMBER})\s*/\s*([A-Za-z]+)")
_SHARE = re.compile(rf"({_NUMBER})\s*%")


def duration(value: object) -> int:
    """Nanoseconds of ``10s``, ``500ms``, ``2m`` or ``1.5h``; more than zero. Raises ValueError."""
    return _time(value, "a duration", DURATION_UNITS, "10s")


def pause(value: object) -> int:
    """Nanoseconds of a duration that may be zero: ``0s``, ``500ms``. Raises ValueError."""
    return _time(value, "a time", DURATION_UNITS, "5s", least=0)


def latency(value: object) -> int:
    """Nanoseconds of ``250us``, ``100ms`` or ``1.5s``; more than zero. Raises ValueError."""
    return _time(value, "a latency", LATENCY_UNITS, "100ms")


def rate(value: object) -> Fraction:
    """Requests per second of ``500/s``, ``30/m`` or ``90/h``; more than zero. Raises ValueError."""
    requests = pace(value)
    if not requests:
        raise ValueError(f"{_shown(value)}: a rate is more than 0; leave the load out instead")
    return requests


def pace(value: object) -> Fraction:
    """The same of a rate that may be zero, ``0/s``. Raises ValueError."""
    found = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or found[2] not in RATE_UNITS:
        raise ValueError(
            f"{_shown(value)} is not a rate: write {_listed([f'/{unit}' for unit in RATE_UNITS])}, as 500/s"
        )
    return Fraction(found[1]) * NS_PER_S / NS_BY_UNIT[found[2]]


def share(value: object) -> int | Fraction:
    """A count, ``0`` or ``12``, as an int; a part of all, ``0.1%``, as a Fraction of 1. Raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    found = _SHARE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise ValueError(
            f"{_shown(value)} is neither a count nor a share: write a whole number, as 0, or a part, as 0.1%"
        )
    if Fraction(found[1]) > 100:
        raise ValueError(f"{_shown(value)} is more than all: a share is 100% at most")
    return Fraction(found[1]) / 100


def format_ns(ns: int) -> str:
    """A time for people, three digits: ``870 ns``, ``12.3 µs``, ``4.07 ms``, ``1.20 s``."""
    for factor, unit in ((1, "ns"), (1_000, "µs"), (1_000_000, "ms")):
        if abs(ns) < 999.5 * factor:
            return f"{_three_digits(ns / factor) if factor > 1 else ns} {unit}"
    return f"{_three_digits(ns / NS_PER_S)} s"


def format_rate(per_second: float) -> str:
    """A rate for people: ``500/s``, ``12,345/s``, ``0.5/s``."""
    return f"{per_second:,.0f}/s" if per_second >= 100 else f"{per_second:.3g}/s"


def _time(value: object, what: str, units: tuple[str, ...], example: str, least: int = 1) -> int:
    found = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(f"{value} has no unit: {what} is written with {_listed(units)}, as {example}")
        raise ValueError(f"{_shown(value)} is not {what}: write a number and {_listed(units)}, as {example}")
    if not found[2]:
        raise ValueError(f"{_shown(value)} has no unit: {what} is written with {_listed(units)}, as {example}")
    if found[2] not in units:
        raise ValueError(
            f"{_shown(value)}: no unit {found[2]!r} here; {what} is written with {_listed(units)}, as {example}"
        )
    ns = int(Fraction(found[1]) * NS_BY_UNIT[found[2]])
    if ns < least:
        raise ValueError(f"{_shown(value)}: {what} is more than 0, as {example}")
    return ns


def _three_digits(number: float) -> str:
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:#.3g}"


def _listed(words: tuple[str, ...] | list[str]) -> str:
    return ", ".join(words[:-1]) + f" or {words[-1]}"


def _shown(value: object) -> str:
    return repr(value) if isinstance(value, str) else f"{value}"
