"""How a pod behaves: what annotations under ``pod.trafficplane.dev/`` ask for, and the draws that follow from it.

Law: words in, numbers out; nothing here waits or looks at a clock. A draw depends on the seed, the pod's address and
how many were drawn before it, and on nothing else: service times and errors come from streams of their own, so that one
annotation does not change what another one makes of the same seed. ``docs/pods.md`` shows every annotation.
"""

import difflib
import math
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

PREFIX = "pod.trafficplane.dev/"
UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
COUNT_LIMIT = 1_000_000
SIGMA_LIMIT = 5
FACTOR_LIMIT = 1000

_NUMBER = r"\d{1,9}(?:\.\d{1,6})?"
_TIME = re.compile(rf"({_NUMBER})(us|ms|s)", re.ASCII)
_PERCENT = re.compile(rf"({_NUMBER})%", re.ASCII)
_WARM_UP = re.compile(rf"({_NUMBER})x\s+(\S+)", re.ASCII)

Kind = Literal["constant", "exponential", "lognormal", "file"]


@dataclass(frozen=True)
class ServiceTime:
    """A distribution of seconds with its mean; ``sigma`` is of the logarithm, ``file`` holds a time a line."""

    kind: Kind
    mean_s: float = 0.0
    sigma: float = 0.0
    file: str = ""


@dataclass(frozen=True)
class WarmUp:
    """Service times begin at ``factor`` times theirs and fall in a straight line to once theirs over ``over_s``."""

    factor: float
    over_s: float


@dataclass(frozen=True)
class Behaviour:
    """What a pod's annotations ask for. ``concurrency`` and ``queue`` None: no limit; ``error_share`` of 1."""

    service_time: ServiceTime = ServiceTime("constant")
    concurrency: int | None = None
    queue: int | None = None
    error_share: float = 0.0
    warm_up: WarmUp | None = None
    seed: int = 0


def wrong(annotations: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(annotation, what is wrong with it and the remedy), for all under the prefix; the values are text."""
    given = _given(annotations)
    for name, value in given.items():
        if name not in READ:
            close = difflib.get_close_matches(name, READ, 1)
            hint = f"did you mean {PREFIX}{close[0]}?" if close else f"known here: {', '.join(READ)}"
            yield PREFIX + name, f"is no annotation of a pod's behaviour; {hint}"
            continue
        try:
            READ[name][1](value)
        except ValueError as error:
            yield PREFIX + name, str(error)
    for name, other in (("queue", "concurrency"), ("warm-up", "service-time")):
        if name in given and other not in given:
            yield PREFIX + name, f"has no effect without {PREFIX}{other}; add that, or leave this out"


def behaviour_of(annotations: Mapping[str, Any]) -> Behaviour | None:
    """What they ask for, None where they ask for nothing. Only of annotations with which nothing is ``wrong``."""
    asked: dict[str, Any] = {READ[name][0]: READ[name][1](value) for name, value in _given(annotations).items()}
    return Behaviour(**asked) if asked else None


def samples(text: str) -> list[float]:
    """Seconds from the text of a file, a time a line; empty lines and those after ``#`` are none. Raises ValueError."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        word = line.partition("#")[0].strip()
        if word:
            try:
                found.append(_time(word))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
    if not found:
        raise ValueError("holds no time; write one a line, as 12.5ms")
    return found


class Draws:
    """What becomes of a pod's requests, one after the other. ``times_s`` are the samples of a service time by file.

    ``pod`` is its address: unlike its name, a pod of the next run has it too.
    """

    def __init__(self, behaviour: Behaviour, pod: str, times_s: Sequence[float] = ()):
        self._behaviour = behaviour
        self._times = random.Random(f"{behaviour.seed} {pod} times")
        self._errors = random.Random(f"{behaviour.seed} {pod} errors")
        self._samples = times_s

    def service_s(self, age_s: float) -> float:
        """How long the next request takes in a pod that has run for ``age_s``, without waiting for a slot."""
        warm_up = self._behaviour.warm_up
        if warm_up is None or age_s >= warm_up.over_s:
            return self._drawn_s()
        left = 1 - age_s / warm_up.over_s
        return self._drawn_s() * (1 + (warm_up.factor - 1) * left)

    def fails(self) -> bool:
        """Whether the next request is answered with an error."""
        return self._errors.random() < self._behaviour.error_share

    def _drawn_s(self) -> float:
        time = self._behaviour.service_time
        if time.kind == "exponential":
            return self._times.expovariate(1 / time.mean_s)
        if time.kind == "lognormal":
            # The mean of exp(N(mu, sigma²)) is exp(mu + sigma²/2).
            return self._times.lognormvariate(math.log(time.mean_s) - time.sigma**2 / 2, time.sigma)
        return self._times.choice(self._samples) if time.kind == "file" else time.mean_s


def _given(annotations: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix(PREFIX): value for key, value in annotations.items() if key.startswith(PREFIX)}


def _service_time(value: str) -> ServiceTime:
    kind, *rest = value.split() or [""]
    try:
        if not rest:
            return ServiceTime("constant", _time(kind))
        if kind in ("constant", "exponential"):
            (mean,) = rest
            return ServiceTime("constant" if kind == "constant" else "exponential", _time(mean))
        if kind == "lognormal":
            mean, sigma = rest
            return ServiceTime("lognormal", _time(mean), _sigma(sigma))
        if kind == "file":
            (file,) = rest
            return ServiceTime("file", file=file)
    except ValueError:
        pass
    raise ValueError(
        f'"{value}" is no service time; write 10ms, exponential 10ms, lognormal 10ms 0.8 (mean, and sigma up to 5) '
        "or file times.txt; a time has the unit us, ms or s"
    )


def _time(value: str) -> float:
    """Seconds of ``250us``, ``10ms`` or ``1.5s``; more than zero."""
    found = _TIME.fullmatch(value)
    seconds = float(found[1]) * UNITS[found[2]] if found else 0.0
    if not seconds:
        raise ValueError(f'"{value}" is no time more than 0; write one such as 250us, 10ms or 1.5s')
    return seconds


def _sigma(value: str) -> float:
    sigma = float(value) if re.fullmatch(_NUMBER, value, re.ASCII) else 0.0
    if not 0 < sigma <= SIGMA_LIMIT:
        raise ValueError(value)
    return sigma


def _count(least: int) -> Callable[[str], int]:
    def read(value: str) -> int:
        if not re.fullmatch(r"\d{1,7}", value, re.ASCII) or not least <= int(value) <= COUNT_LIMIT:
            raise ValueError(
                f'"{value}" is no number from {least} to {COUNT_LIMIT}; write one, or leave it out for no limit'
            )
        return int(value)

    return read


def _share(value: str) -> float:
    found = _PERCENT.fullmatch(value)
    if not found or float(found[1]) > 100:
        raise ValueError(f'"{value}" is no share; write one from 0% to 100%, as 0.5%')
    return float(found[1]) / 100


def _warm_up(value: str) -> WarmUp:
    found = _WARM_UP.fullmatch(value)
    if not found or not 1 < float(found[1]) <= FACTOR_LIMIT:
        raise ValueError(
            f'"{value}" is no warm-up; write how much longer requests take at first, up to {FACTOR_LIMIT}x, '
            "and for how long, as 5x 30s"
        )
    return WarmUp(float(found[1]), _time(found[2]))


def _seed(value: str) -> int:
    if not re.fullmatch(r"\d{1,18}", value, re.ASCII):
        raise ValueError(f'"{value}" is no seed; write a whole number')
    return int(value)


# Name under the prefix → the field of Behaviour, and what reads its value.
READ: dict[str, tuple[str, Callable[[str], Any]]] = {
    "service-time": ("service_time", _service_time),
    "concurrency": ("concurrency", _count(1)),
    "queue": ("queue", _count(0)),
    "error-rate": ("error_share", _share),
    "warm-up": ("warm_up", _warm_up),
    "seed": ("seed", _seed),
}
