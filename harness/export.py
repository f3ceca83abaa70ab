"""The rows of a run in other tools' formats: vegeta's CSV, fortio's JSON, and the percentiles of HdrHistogram.

Law: an export says what ``report`` says, so it leaves out what was warm-up and what the end of a run cut off, and its
percentiles are nearest ranks over the rows. A latency counts from when a request was due. None of these formats knows
*never*: a request without a whole answer is given the load's timeout, which its latency is at least.
"""

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness import report, scenario
from harness.recorder import ERROR_STATUS
from harness.records import measured, provenance_of
from harness.units import NS_PER_S, format_ns
from plane import __version__

# Steps of a histogram in each power of ten, those of fortio's: https://github.com/fortio/fortio#statistics
STEPS = (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9)
TICKS_PER_HALF_DISTANCE = 5  # as wrk2 has it: so many lines until half of the requests that are left
SHOWN = (50, 75, 90, 99, 99.9)
PHRASES = {each.value: each.phrase for each in HTTPStatus}


class ExportError(ValueError):
    """What is asked for cannot be written, and why."""


@dataclass(frozen=True)
class Exported:
    """A load of a run as it is written.

    rows        of ``records.SCHEMA``
    described   as ``loads`` of the metadata has it, from the end of its warm-up on
    latency_ns  int64[n], the load's timeout where there is no whole answer
    failed      bool[n]
    methods     by what ``request`` says
    begun       UTC time that ``intended_ns`` counts from
    """

    rows: pa.Table
    described: Mapping[str, Any]
    latency_ns: np.ndarray
    failed: np.ndarray
    methods: Mapping[str, str]
    begun: datetime

    @property
    def url(self) -> str:
        """Without the path."""
        return f"{'https' if self.described['tls'] else 'http'}://{self.described['host']}"


def loads_of(table: pa.Table, only: str | None = None) -> list[Exported]:
    """The loads of a run, or the one of that name. Raises ExportError where there is none, ValueError where no run."""
    facts = provenance_of(table)
    if "loads" not in facts:
        raise ValueError("the file was not written by this harness: its schema has no trafficplane metadata")
    asked = scenario.parse(facts["scenario"], "the scenario of the run")
    begun = datetime.fromisoformat(facts["started"])
    if epoch := facts.get("epoch_unix_ns"):  # a run of before has the instant of its announcement only
        begun = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(epoch) / 1000)
    found = [
        _exported(table, load, described, begun)
        for load, described in zip(asked.spec.loads, json.loads(facts["loads"]), strict=True)
        if only in (None, load.name)
    ]
    if not found:
        raise ExportError(f"the run has no load {only!r}; it has: {', '.join(load.name for load in asked.spec.loads)}")
    return found


def _exported(table: pa.Table, load: scenario.Load, described: Mapping[str, Any], begun: datetime) -> Exported:
    rows, _ = report.rows_of(table, load.name)
    done = np.asarray(pc.is_valid(rows["done_ns"]))
    latency = pc.fill_null(rows["done_ns"], 0).to_numpy() - rows["intended_ns"].to_numpy()
    status = pc.fill_null(rows["status"], 0).to_numpy()
    methods = {each.name: each.method for each in load.requests if each.name}
    return Exported(
        rows,
        measured(described),
        np.where(done, latency, described["timeout_ns"]),
        ~done | (status >= ERROR_STATUS),
        methods,
        begun,
    )


def vegeta(loads: Sequence[Exported], out: TextIO) -> None:
    """A line a request, in the order in which they were due: the columns of ``vegeta encode --to csv``, without heads.

    Time in ns since 1970, status (0 none), latency in ns, bytes out and in, error, body and head fields of the answer
    in base64 (empty: they are not kept), name of the load, number in it, method, URL.
    """
    write = csv.writer(out, lineterminator="\n").writerow
    lines = (line for load in loads for line in _lines(load))
    for line in sorted(lines, key=lambda line: int(line[0])):
        write(line)


def _lines(load: Exported) -> Iterator[list[Any]]:
    begun_ns = round(load.begun.timestamp() * 1_000_000) * 1000
    names = ("intended_ns", "status", "bytes_out", "bytes_in", "error", "request", "url_path")
    columns = [load.rows[name].to_pylist() for name in names]
    for number, (due_ns, status, sent, came, error, request, path) in enumerate(zip(*columns, strict=True)):
        first = (request or "").partition(" ")
        method = load.methods.get(request) or (first[0] if first[1] else load.described["method"])
        why = error or (_phrase(status) if status and status >= ERROR_STATUS else "")
        url = load.url + (path or load.described["path"])
        latency_ns = int(load.latency_ns[number])
        name = load.described["name"]
        yield [begun_ns + due_ns, status or 0, latency_ns, sent, came, why, "", name, number, method, url, ""]


def _phrase(status: int) -> str:
    """A status as Go writes it."""
    return f"{status} {PHRASES.get(status, '')}".rstrip()


def fortio(loads: Sequence[Exported], out: TextIO) -> None:
    """A result of ``fortio load -json``, in seconds. Its percentiles are exact, not interpolated between buckets."""
    (load,) = loads
    described, number = load.described, len(load.latency_ns)
    seconds, failed = load.latency_ns / NS_PER_S, load.failed
    span_ns = max(_span_ns(load), 1)
    codes = pc.fill_null(load.rows["status"], 0).value_counts().to_pylist()
    result = {
        "RunType": "HTTP",
        "Labels": described["name"],
        "StartTime": (load.begun + timedelta(microseconds=described["start_ns"] / 1000)).isoformat(),
        "RequestedQPS": "max" if described["rate"] is None else f"{described['rate']:g}",
        "RequestedDuration": format_ns(described["duration_ns"]).replace(" ", ""),
        "ActualQPS": number * NS_PER_S / span_ns,
        "ActualDuration": span_ns,
        "NumThreads": described["connections"],
        "Version": f"trafficplane {__version__}",
        "DurationHistogram": _histogram(seconds),
        "ErrorsDurationHistogram": _histogram(seconds[failed]),
        "RetCodes": {str(row["values"] or -1): row["counts"] for row in codes},  # fortio's for none: -1
        "URL": load.url + described["path"],
    }
    json.dump(result, out, indent=2)
    out.write("\n")


def _span_ns(load: Exported) -> int:
    """From the load's start to its last answer, and not less than it was meant to last."""
    ended = load.rows["intended_ns"].to_numpy() + load.latency_ns
    last = int(ended.max()) - load.described["start_ns"] if len(ended) else 0
    return max(last, load.described["duration_ns"])


def _histogram(seconds: np.ndarray) -> dict[str, Any]:
    """fortio's HistogramData of float64[n]; the first bucket begins at the smallest, the last ends at the largest."""
    ordered = np.sort(seconds)
    if not len(ordered):
        return {"Count": 0, "Min": 0, "Max": 0, "Sum": 0, "Avg": 0, "StdDev": 0, "Data": None}
    ends = np.array([step * 10.0**power for power in range(-6, 5) for step in STEPS])
    place = np.searchsorted(ends, ordered, side="left")  # a bucket ends with its end
    data, seen = [], 0
    for bucket, count in zip(*np.unique(place, return_counts=True), strict=True):
        start = ends[bucket - 1] if seen else ordered[0]
        seen += int(count)
        end = ends[bucket] if seen < len(ordered) else ordered[-1]
        data.append({"Start": start, "End": end, "Percent": 100 * seen / len(ordered), "Count": int(count)})
    return {
        "Count": len(ordered),
        "Min": ordered[0],
        "Max": ordered[-1],
        "Sum": float(ordered.sum()),
        "Avg": float(ordered.mean()),
        "StdDev": float(ordered.std()),
        "Data": data,
        "Percentiles": [{"Percentile": each, "Value": ordered[_rank(each, len(ordered)) - 1]} for each in SHOWN],
    }


def _rank(percentile: float, number: int) -> int:
    return max(math.ceil(percentile * number / 100 - 1e-9), 1)


def hgrm(loads: Sequence[Exported], out: TextIO) -> None:
    """HdrHistogram's text, as ``wrk2 --latency`` prints it: values in ms, and what share of requests took no longer.

    For the plotters of https://hdrhistogram.github.io/HdrHistogram/plotFiles.html. Values are the rows' own.
    """
    (load,) = loads
    ordered = np.sort(load.latency_ns) / 1e6
    out.write(f"{'Value':>12} {'Percentile':>14} {'TotalCount':>10} {'1/(1-Percentile)':>14}\n\n")
    for value, share, count in _spectrum(ordered):
        distance = f"{1 / (1 - share):14.2f}" if share < 1 else f"{'inf':>14}"
        out.write(f"{value:12.3f} {share:14.12f} {count:10d} {distance}\n")
    mean, deviation = (float(ordered.mean()), float(ordered.std())) if len(ordered) else (0.0, 0.0)
    out.write(f"#[Mean    = {mean:12.3f}, StdDeviation   = {deviation:12.3f}]\n")
    out.write(f"#[Max     = {ordered[-1] if len(ordered) else 0:12.3f}, Total count    = {len(ordered):12d}]\n")
    out.write(f"#[Buckets = {len(np.unique(ordered)):12d}, SubBuckets     = {1:12d}]\n")  # each value is one of its own


def _spectrum(ordered: np.ndarray) -> Iterator[tuple[float, float, int]]:
    """(value, share of the requests asked for, how many took no longer), at HdrHistogram's steps, to the slowest."""
    number, share, count = len(ordered), 0.0, 0
    while count < number:
        value = ordered[_rank(100 * share, number) - 1]
        count = int(np.searchsorted(ordered, value, side="right"))
        yield float(value), share, count
        half_distance = 2 ** (int(math.log2(1 / (1 - share))) + 1)
        share += 1 / (TICKS_PER_HALF_DISTANCE * half_distance)
    if number:
        yield float(ordered[-1]), 1.0, number


# By the name of a format: what writes it, and whether it has room for several loads.
FORMATS: Mapping[str, tuple[Callable[[Sequence[Exported], TextIO], None], bool]] = {
    "vegeta": (vegeta, True),
    "fortio": (fortio, False),
    "hgrm": (hgrm, False),
}


def write(table: pa.Table, form: str, only: str | None, out: TextIO) -> None:
    """Writes the rows of a run in a format. Raises ExportError where that has room for one load and there are more."""
    loads = loads_of(table, only)
    writes, several = FORMATS[form]
    if len(loads) > 1 and not several:
        names = ", ".join(load.described["name"] for load in loads)
        raise ExportError(f"{form} has room for one load: choose one by --load; there are: {names}")
    writes(loads, out)
