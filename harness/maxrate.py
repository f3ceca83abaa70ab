"""The highest rate at which a load keeps its objectives: which rates are tried, and what they say together.

Law: a rate is kept where the load met its objectives and was answered at that rate, to within a tolerance: a queue that
has only begun to grow has not missed a latency yet, and no rate is kept at which it grows. The rate is doubled while it
is kept (halved until it is), then the gap between the highest kept and the lowest missed is halved until it is small,
then the highest kept is tried once more: only a rate that was kept twice is the answer. Each try, a *probe*, is a run
like any other, with a folder and a scenario of its own that differs in the rate. A probe that missed by what the
generator's own lateness may have cost says nothing about the subject: it is repeated once, and if it is so again then
the generator is named as what ended the search.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from rich.console import Group, RenderableType
from rich.text import Text

from harness import units
from harness.objectives import PERCENTILES, latency_text
from harness.recorder import BUSY_SHARE
from harness.records import settled
from harness.scenario import ROWS_AT_MOST, Load, Objectives, Scenario, ScenarioError, parse
from harness.tables import table_of
from harness.units import NS_PER_S, format_rate
from plane.errors import Problem

KIND = "max-rate"
FILE = "max-rate.json"
START, DOUBLE, HALVE, BISECT, CONFIRM = "start", "double", "halve", "bisect", "confirm"
LEAST_RATE = Fraction(1)
CONFIRMED_AT_MOST = 4
SUBJECT, GENERATOR, ROWS = "subject", "generator", "rows"
OBJECTIVES = ("errors", *PERCENTILES)
ACHIEVED = "achieved"  # what a probe missed that was not answered at its rate
LEAST_ANSWERS = 20  # of fewer there is no pace
EDGE = 0.1  # share of the answers at either end that its pace is not taken from: there an even flow begins, and ebbs


@dataclass(frozen=True)
class Wanted:
    """What is looked for, as it was asked for; what is None is what the scenario says.

    load        name of the load whose rate is tried; None: there is only one
    objectives  ``name=limit`` in place of those of the load
    start       rate of the first probe, text
    duration    of each probe, text
    precision   the search ends where the lowest missed is at most that share above the highest kept
    tolerance   a rate is achieved that is missed by that share at most
    """

    load: str | None = None
    objectives: tuple[str, ...] = ()
    start: str | None = None
    duration: str | None = None
    precision: float = 0.05
    tolerance: float = 0.05


@dataclass(frozen=True)
class Probe:
    """What a try came to; ``spoilt``: it missed, and the generator may be to blame."""

    rate: Fraction
    met: bool
    spoilt: bool = False


@dataclass
class Search:
    """Which rate is next. ``next`` and ``tell`` take turns, until ``next`` is None."""

    start: Fraction
    most: Fraction
    precision: float
    confirmed: bool = False
    _probes: list[Probe] = field(default_factory=list)
    _confirms: int = 0
    _again: tuple[str, Fraction] | None = None

    @property
    def missed(self) -> Fraction | None:
        """The lowest rate that was not kept."""
        return min((probe.rate for probe in self._probes if not probe.met), default=None)

    @property
    def kept(self) -> Fraction | None:
        """The highest rate that was kept, of those below."""
        missed = self.missed
        rates = (probe.rate for probe in self._probes if probe.met and (missed is None or probe.rate < missed))
        return max(rates, default=None)

    @property
    def limit(self) -> str:
        """What ended the search upwards."""
        at_limit = [probe.spoilt for probe in self._probes if not probe.met and probe.rate == self.missed]
        return ROWS if not at_limit else GENERATOR if all(at_limit) else SUBJECT

    def next(self) -> tuple[str, Fraction] | None:
        """(why, rate) of the next probe."""
        kept, missed = self.kept, self.missed
        if self._again is not None:
            return self._again
        if self.confirmed or self._confirms == CONFIRMED_AT_MOST:
            return None
        if missed is None:
            above = rounded(kept * 2) if kept else self.start
            return (DOUBLE if kept else START, above) if above <= self.most or not kept else (CONFIRM, kept)
        if kept is None:
            return (HALVE, max(rounded(missed / 2), LEAST_RATE)) if missed > LEAST_RATE else None
        middle = rounded((kept + missed) / 2)
        small = missed <= kept * (1 + Fraction(self.precision))
        return (CONFIRM, kept) if small or not kept < middle < missed else (BISECT, middle)

    def tell(self, why: str, probe: Probe) -> None:
        """What the probe that was next came to."""
        if probe.spoilt and not probe.met and self._again is None:
            self._again = why, probe.rate
            return
        self._again = None
        self._probes.append(probe)
        if why == CONFIRM:
            self.confirmed = probe.met
            self._confirms += 1


def rounded(rate: Fraction) -> Fraction:
    """To three digits, which is as much as a rate that was found this way is good for."""
    digits = len(str(int(rate))) if rate >= 1 else 0
    step = Fraction(10) ** (digits - 3)
    return round(rate / step) * step


def place_of(scenario: Scenario, file: str, wanted: Wanted) -> int:
    """Which load's rate is looked for. Raises ScenarioError with what does not go with it."""
    names = [load.name for load in scenario.spec.loads]
    if wanted.load is None and len(names) > 1:
        _refuse(scenario, file, "spec.loads", f"say whose rate is looked for: --load {', '.join(names)}")
    if wanted.load is not None and wanted.load not in names:
        _refuse(scenario, file, "spec.loads", f"there is no load {wanted.load!r}; there are: {', '.join(names)}")
    if scenario.spec.in_rounds:
        _refuse(scenario, file, "spec", "max-rate makes runs of its own: it goes without repeats and matrix")
    if scenario.spec.timeline:
        reason = "does not go with max-rate: what an event does would stay for all probes after it"
        _refuse(scenario, file, "spec.timeline", reason)
    place = 0 if wanted.load is None else names.index(wanted.load)
    if scenario.spec.loads[place].arrivals.replay is not None:
        _refuse(
            scenario, file, f"spec.loads[{place}].arrivals.replay", "has the pace of its log: give another load a rate"
        )
    if scenario.spec.loads[place].arrivals.rate is None and wanted.start is None:
        reason = "has no rate to begin with: give it one, or --start, as --start 100/s"
        _refuse(scenario, file, f"spec.loads[{place}].arrivals", reason)
    if scenario.spec.loads[place].lasts is None and wanted.duration is None:
        _refuse(
            scenario, file, f"spec.loads[{place}].duration", "is required: give it, or --duration, as --duration 5s"
        )
    if not scenario.objectives(scenario.spec.loads[place]).model_fields_set and not wanted.objectives:
        reason = "are none: say what a rate must keep, here or by --objective, as --objective p99=100ms"
        _refuse(scenario, file, f"spec.loads[{place}].objectives", reason)
    return place


def check(wanted: Wanted) -> None:
    """Raises ValueError, which names the option, where a quantity of it is none."""
    for option, read_by, given in (
        ("--objective", objectives_of, (wanted.objectives,)),
        ("--start", units.rate, (wanted.start,)),
        ("--duration", units.duration, (wanted.duration,)),
    ):
        for value in given:
            try:
                if value is not None:
                    read_by(value)
            except ValueError as error:
                raise ValueError(f"{option} {error}") from None


def objectives_of(texts: Iterable[str]) -> dict[str, Any]:
    """``p99=100ms`` and ``errors=0.1%`` as they would stand in a scenario. Raises ValueError."""
    found: dict[str, Any] = {}
    for text in texts:
        name, _, limit = (part.strip() for part in text.partition("="))
        if name not in OBJECTIVES or not limit:
            known = ", ".join(OBJECTIVES)
            raise ValueError(f"{text!r} is no objective: write one of {known} and its limit, as p99=100ms")
        try:
            units.latency(limit) if name != "errors" else units.share(int(limit) if limit.isdecimal() else limit)
        except ValueError as error:
            raise ValueError(f"{text!r}: {error}") from None
        found[name] = int(limit) if limit.isdecimal() else limit
    return found


def search(scenario: Scenario, place: int, wanted: Wanted) -> Search:
    """The search for a load's rate, of what ``check`` and ``place_of`` have let through."""
    load = scenario.spec.loads[place]
    start = load.arrivals.rate if wanted.start is None else units.rate(wanted.start)
    assert start is not None
    duration_ns = load.duration if wanted.duration is None else units.duration(wanted.duration)
    return Search(rounded(start), Fraction(ROWS_AT_MOST) * NS_PER_S / duration_ns, wanted.precision)


def text_of(text: str, place: int, wanted: Wanted, rate: Fraction, number: int) -> str:
    """The scenario of a probe: that of ``text`` with the load at that rate, and another seed for each."""
    document = yaml.safe_load(text)
    spec = document["spec"]
    load = spec["loads"][place]
    arrivals = {name: value for name, value in load["arrivals"].items() if name in ("process", "maxConnections")}
    load["arrivals"] = {**arrivals, "rate": f"{float(rate):.6f}".rstrip("0").rstrip(".") + "/s"}
    if wanted.duration is not None:
        for each in spec["loads"]:
            if "duration" in each or each is load:
                each["duration"] = wanted.duration
    load["objectives"] = {**load.get("objectives", {}), **objectives_of(wanted.objectives)}
    spec["seed"] = spec.get("seed", 0) + number
    return yaml.safe_dump(document, sort_keys=False)


def first_probe(text: str, file: str, place: int, wanted: Wanted, rate: Fraction) -> Scenario:
    """The scenario of a first probe. Raises ScenarioError, which names the option that brought it in."""
    here = f"spec.loads[{place}]."
    brought = {
        f"{here}arrivals.rate": ("--start", wanted.start),
        f"{here}warmUp": ("--duration", wanted.duration),
        f"{here}duration": ("--duration", wanted.duration),
    }
    try:
        return parse(text_of(text, place, wanted, rate, 0), file)
    except ScenarioError as error:
        problems = []
        for problem in error.problems:
            option, value = brought.get(problem.field, ("", None))
            said = f"with {option} {value}: {problem.reason}" if value is not None else problem.reason
            problems.append(replace(problem, reason=said))
        raise ScenarioError(problems) from None


def achieved_rate(rows: pa.Table, rate: Fraction) -> float:
    """Answers per second that a probe's load was given, of its rows at that rate.

    It is the pace of the answers, the slope of the line through the times at which the first, the second, … of them
    came (least squares, without EDGE), beside the pace of the requests, and less by those that had no answer. So a
    latency that stays as it is costs nothing, however long, and a queue that grows shows, however short it is still.
    """
    due_ns = rows["intended_ns"].to_numpy()
    done_ns = np.sort(rows["done_ns"].drop_null().to_numpy())
    share = len(done_ns) / max(len(due_ns), 1)
    if len(done_ns) < LEAST_ANSWERS:
        return float(rate) * share
    due, done = (_slope(times) for times in (np.sort(due_ns), done_ns))
    return float(rate) * share * min(due / done, 1.0)


def _slope(times_ns: np.ndarray) -> float:
    """How long it is from first to last of these int64[n], by the line through those that are no edge."""
    edge = int(len(times_ns) * EDGE)
    place = np.linspace(0, 1, len(times_ns))[edge : len(times_ns) - edge]
    middle = times_ns[edge : len(times_ns) - edge]
    return float(np.polyfit(place, (middle - middle[0]).astype(np.float64), 1)[0])


def line(probe: Mapping[str, Any]) -> str:
    """A probe for a log."""
    missed = ", ".join(f"{row['objective']} {row['actual']}" for row in probe["missed"])
    text = f"{probe['why']} {format_rate(probe['rate'])}: " + (f"missed, {missed}" if missed else "kept")
    return text + (", for which the generator may be to blame" if probe["spoilt"] else "")


def probe_of(
    why: str,
    rate: Fraction,
    summary: Mapping[str, Any],
    load: str,
    objectives: Objectives,
    folder: Path,
    achieved: float,
    tolerance: float,
) -> dict[str, Any]:
    """What a probe came to, for the summary; ``achieved`` as of ``achieved_rate``."""
    row = next(row for row in summary["loads"] if row["name"] == load)
    missed = [each for each in summary["objectives"] if each["load"] == load and not each["met"]]
    least = float(rate) * (1 - tolerance)
    if achieved < least:
        missed.append({"objective": ACHIEVED, "limit": format_rate(least), "actual": format_rate(achieved)})
    names = [each["objective"] for each in missed]
    return {
        "why": why,
        "rate": float(rate),
        "achieved_rate": achieved,
        "scheduled": row["scheduled"],
        "errors": row["errors"],
        "latency_ns": row["latency_ns"],
        "met": not missed,
        "missed": [{name: each[name] for name in ("objective", "limit", "actual")} for each in missed],
        "generator_limited": bool(row["generator_limited"]),
        "spoilt": bool(missed) and _may_be_to_blame(row, names, objectives),
        "results": folder.name,
    }


def _may_be_to_blame(row: Mapping[str, Any], missed: Sequence[str], objectives: Objectives) -> bool:
    """Whether the generator was at its limit, and its being late may be all that made a load miss these objectives.

    Where its thread had time left, it has added at most as much to a latency as it was late at the latest.
    """
    generator = row["generator"]
    if not row["generator_limited"] or generator["busy"] >= BUSY_SHARE:
        return bool(row["generator_limited"])
    for name in missed:  # a pace is no latency: lateness that stays as it is does not change it
        latency_ns = row["latency_ns"].get(name)
        most_ns = getattr(objectives, name.replace(".", "_"), None)
        if latency_ns is None or most_ns is None or latency_ns - generator["latest_ns"] > most_ns:
            return False
    return True


def summarise(
    scenario: Scenario,
    load: Load,
    found: Search,
    probes: Sequence[Mapping[str, Any]],
    run: str,
    *,
    tolerance: float,
    interrupted: bool,
) -> dict[str, Any]:
    """What all probes say together; it is what ``max-rate.json`` holds (docs/records.md)."""
    kept, missed = found.kept, found.missed
    return {
        "kind": KIND,
        "run": run,
        "scenario": scenario.name,
        "load": load.name,
        "rate": None if kept is None or not found.confirmed else float(kept),
        "highest_kept": None if kept is None else float(kept),
        "lowest_missed": None if missed is None else float(missed),
        "limit": found.limit,
        "tolerance": tolerance,
        "confirmed": found.confirmed,
        "probes": list(probes),
        "interrupted": interrupted,
        "met": found.confirmed,
    }


def tables(summary: Mapping[str, Any]) -> RenderableType:
    """A row for each probe, and the rate."""
    columns = ("rate", "achieved", "requests", "errors", *PERCENTILES)
    table = table_of(f"{summary['scenario']}  {summary['run']}: load {summary['load']}", "probe", numbers=columns)
    table.add_column("", no_wrap=True)
    for probe in summary["probes"]:
        word = Text("kept", style="green") if probe["met"] else Text("missed", style="bold red")
        if not probe["met"]:
            word.append(" " + ", ".join(each["objective"] for each in probe["missed"]))
        if probe["generator_limited"]:
            word.append(" generator-limited", style="yellow")
        if probe["spoilt"]:
            word.append(", does not count", style="yellow")
        table.add_row(
            probe["why"],
            format_rate(probe["rate"]),
            format_rate(probe["achieved_rate"]),
            f"{probe['scheduled']:,}",
            f"{probe['errors']:,}",
            *(latency_text(probe["latency_ns"][name]) for name in PERCENTILES),
            word,
        )
    return Group(table, "", Text(verdict(summary), style="" if summary["met"] else "bold red"))


def verdict(summary: Mapping[str, Any]) -> str:
    """What was found, for people."""
    if summary["interrupted"]:
        return "interrupted: the search had not ended"
    if summary["highest_kept"] is None:
        return f"no rate is kept, not even {format_rate(summary['lowest_missed'])}"
    if summary["rate"] is None:
        return f"no rate was kept twice; the highest kept once is {format_rate(summary['highest_kept'])}"
    text = f"load {summary['load']} keeps its objectives at {format_rate(summary['rate'])}"
    if summary["limit"] == SUBJECT:
        return f"{text}, and misses them at {format_rate(summary['lowest_missed'])}"
    if summary["limit"] == GENERATOR:
        where = format_rate(summary["lowest_missed"])
        return f"{text}; what ends there is the generator, at its limit at {where}: the subject may do more"
    return f"{text}, the highest that this duration has room for: the subject may do more"


def answered_at(table: pa.Table, load: str, rate: Fraction) -> float:
    """``achieved_rate`` of a load of a run, without its warm-up."""
    return achieved_rate(settled(table.filter(pc.equal(table["load"], load))), rate)


def read(folder: Path) -> dict[str, Any]:
    """The summary in a folder of results. Raises OSError and ValueError."""
    return dict(json.loads((folder / FILE).read_text(encoding="utf-8")))


def _refuse(scenario: Scenario, file: str, field: str, reason: str) -> None:
    raise ScenarioError([Problem(file, 1, f"Scenario {scenario.name}", field, reason)])
