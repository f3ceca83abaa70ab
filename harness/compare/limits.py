"""``--fail-if 'p99 > +5%'``: what of a comparison is to fail a build.

    [LOAD] METRIC (> | <) LIMIT

LIMIT with a sign is a change from the base: ``+5%`` or ``-10%`` of its value, and for ``errors`` so much more or less
of all requests. Without a sign it is the other side's own value: ``50ms``, ``0.1%`` of errors, ``900/s``. A change
counts where the test holds it for real; a value counts as it is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from harness import units
from harness.compare.blocks import METRICS, PERCENTILES
from harness.compare.sides import CompareError
from harness.compare.verdict import ALPHA, FEW, Finding

_LIMIT = re.compile(r"(?:([a-z0-9][-a-z0-9]*)\s+)?([a-z0-9.]+)\s*([<>])\s*([+-]?)\s*(\S.*)")
EXAMPLE = "write it as 'p99 > +5%', 'errors > 0', 'rate < -10%' or 'checkout p50 > 20ms'"


@dataclass(frozen=True)
class Limit:
    """``value`` is in the metric's unit or, where ``relative``, a share; ``load`` empty: of any load."""

    text: str
    load: str
    metric: str
    above: bool
    relative: bool
    value: float

    def broken_by(self, row: Finding) -> bool:
        """Raises CompareError where the finding can't tell."""
        if row.metric != self.metric or self.load not in ("", row.load):
            return False
        if row.verdict == FEW:
            raise CompareError(f"--fail-if {self.text!r}: load {row.load} has too few requests for its {row.metric}")
        if self.relative and (row.p is None or row.p > ALPHA):
            return False
        measured = (row.change if self.relative else row.other).value
        value = float("inf") if measured is None else measured
        return value > self.value if self.above else value < self.value


def limit(text: str) -> Limit:
    """Raises ValueError with the remedy."""
    found = _LIMIT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no limit: {EXAMPLE}")
    load, metric, sense, sign, quantity = found.groups()
    if metric not in METRICS:
        raise ValueError(f"{text!r}: {metric!r} is no metric of a comparison; there are {', '.join(METRICS)}")
    if sign:
        if not quantity.endswith("%"):
            raise ValueError(f"{text!r}: a change is a share, as +5%: {EXAMPLE}")
        try:
            value = units.share(quantity)
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}") from None
        return Limit(text, load or "", metric, sense == ">", True, float(value) * (-1 if sign == "-" else 1))
    return Limit(text, load or "", metric, sense == ">", False, _value(text, metric, quantity))


def broken(limits: Sequence[Limit], findings: Sequence[Finding]) -> list[tuple[Limit, Finding]]:
    """The limits that do not hold, with what breaks them. Raises CompareError where one can't be judged."""
    for each in limits:
        if not any(row.metric == each.metric and each.load in ("", row.load) for row in findings):
            known = ", ".join(dict.fromkeys(row.load for row in findings)) or "none"
            raise CompareError(f"--fail-if {each.text!r}: there is no load {each.load!r} in both; there are: {known}")
    return [(each, row) for each in limits for row in findings if each.broken_by(row)]


def _value(text: str, metric: str, quantity: str) -> float:
    try:
        if metric in PERCENTILES:
            return float(units.latency(quantity))
        if metric == "rate":
            return float(units.rate(quantity))
        share = units.share(int(quantity) if quantity.isdecimal() else quantity)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from None
    if not isinstance(share, Fraction) and share:
        raise ValueError(f"{text!r}: errors are compared as a share of the requests, as 0.1%; only 0 is also a count")
    return float(share)
