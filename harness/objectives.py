"""Whether a load met what its scenario asked of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from harness.scenario import Objectives
from harness.units import format_ns

PERCENTILES = ("p50", "p90", "p99", "p99.9", "max")


@dataclass(frozen=True)
class Judgement:
    """One objective of one load: what was asked and what was, as text for people; and whether it was met."""

    load: str
    objective: str
    limit: str
    actual: str
    met: bool


def judge(load: Mapping[str, Any], objectives: Objectives) -> Iterator[Judgement]:
    """Holds the summary of a load (``report.summarise``) against its objectives, one judgement for each that is set.

    A percentile that fell on a request without an answer is longer than every limit.
    """
    name, scheduled, errors = load["name"], load["scheduled"], load["errors"]
    if isinstance(objectives.errors, Fraction):
        actual = Fraction(errors, max(scheduled, 1))
        limit = f"{float(objectives.errors * 100):g}%"
        yield Judgement(name, "errors", limit, f"{float(actual * 100):.3g}%", actual <= objectives.errors)
    elif objectives.errors is not None:
        yield Judgement(name, "errors", str(objectives.errors), str(errors), errors <= objectives.errors)
    for percentile in PERCENTILES:
        most = getattr(objectives, percentile.replace(".", "_"))
        if most is not None:
            latency = load["latency_ns"][percentile]
            met = latency is not None and latency <= most
            yield Judgement(name, percentile, format_ns(most), latency_text(latency), met)
    if scheduled == 0 and objectives.model_fields_set:
        yield Judgement(name, "requests", "1", "0", False)


def latency_text(ns: int | None) -> str:
    """A latency for people; None is the rank of a request that was never answered."""
    return "never" if ns is None else format_ns(ns)
