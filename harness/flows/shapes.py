"""How durations and sizes spread around their mean.

Law: a shape has mean 1, before what is longer than ``LONGEST`` is cut. What flows have follows from their numbers
alone, so that any of them is had anywhere; where logarithms of two machines differ in the last bit, it may by a byte.
"""

from typing import Any, NamedTuple

import numpy as np

from kernels.lb.population import key_of, words

LONGEST = 1_000_000  # times the mean: no connection is longer, whatever its tail
_2_53 = float(1 << 53)


class Shape(NamedTuple):
    """How values spread: ``exponential``, ``constant``, ``lognormal/σ`` or ``pareto/α``."""

    name: str
    parameter: float = 0.0

    def draw(self, source: np.random.Generator, count: int) -> np.ndarray:
        """Values of mean 1 (before the longest are cut), float64."""
        if self.name == "constant":
            return np.ones(count)
        if self.name == "lognormal":
            return source.lognormal(-(self.parameter**2) / 2, self.parameter, count)
        if self.name == "pareto":
            return (1 + source.pareto(self.parameter, count)) * (self.parameter - 1) / self.parameter
        return source.exponential(1, count)

    def at(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """The same of numbers that are even between 0 and 1, without either of them; two for each value."""
        if self.name == "constant":
            return np.ones(len(one))
        if self.name == "lognormal":  # Box, Muller 1958
            normal = np.sqrt(-2 * np.log(one)) * np.cos(2 * np.pi * other)
            return np.asarray(np.exp(self.parameter * normal - self.parameter**2 / 2))
        if self.name == "pareto":
            return np.asarray(one ** (-1 / self.parameter) * (self.parameter - 1) / self.parameter)
        return np.asarray(-np.log(one))


def shape_of(value: Any) -> Shape:
    """The shape of a name. Raises ValueError."""
    name, _, text = value.partition("/") if isinstance(value, str) else ("", "", "")
    if value in ("exponential", "constant"):
        return Shape(name)
    above = {"lognormal": 0, "pareto": 1}
    try:
        parameter = float(text)
    except ValueError:
        parameter = 0.0
    if name in above and above[name] < parameter <= 10:
        return Shape(name, parameter)
    raise ValueError(
        f"{value!r} is no shape: write exponential, constant, lognormal/1.5 (σ above 0) or pareto/1.5 (α above 1), "
        "numbers up to 10"
    )


class Sizes(NamedTuple):
    """How many bytes flows have that are made by number; ``seed`` is that of the flows."""

    mean: int
    shape: Shape
    seed: int

    def of(self, first: int, count: int) -> np.ndarray:
        """Bytes of the flows of numbers ``first`` and following, int64, 1 or more."""
        one, other = (self._even(first, count, stream) for stream in (1, 2))
        return np.maximum(np.rint(self.mean * np.minimum(self.shape.at(one, other), LONGEST)), 1).astype(np.int64)

    def _even(self, first: int, count: int, stream: int) -> np.ndarray:
        drawn = np.empty(count, np.uint64)
        words(key_of(self.seed) ^ key_of(stream), first, drawn)
        return ((drawn >> np.uint64(11)).astype(np.float64) + 0.5) / _2_53
