"""What a run's rows say: a summary computed from the Arrow file alone, the day it was written or years later.

Law: every number comes from rows, none from a bucket or a sample. A latency is ``done_ns - intended_ns``. Percentiles
are nearest-rank (the ⌈p·n⌉-th smallest of n) over all *scheduled* requests, and a request without a whole answer ranks
after all that have one: where the rank falls on such a request the percentile is *never* (None), not a smaller number.
An error is a request without a whole answer, or one answered with a status of 400 or more. Requests that the end of an
interrupted run cut off are counted as such, and in nothing else: nobody knows what would have become of them.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness import connections, events, hops, records, resources, scenario
from harness.objectives import Judgement, judge
from harness.recorder import ERROR_STATUS, ERRORS, INTERRUPTED
from harness.records import provenance_of
from harness.units import NS_PER_S

UNKNOWN_POD = ""
# Requests of a load that are told apart in its summary, those with the most rows; the others are one of them.
REQUESTS_APART = 20
OTHERS = "others"
RANKS = {
    "p50": Fraction(50, 100),
    "p90": Fraction(90, 100),
    "p99": Fraction(99, 100),
    "p99.9": Fraction(999, 1000),
    "max": Fraction(1),
}


@dataclass(frozen=True)
class Beside:
    """What lies beside the rows of a run, None where it does not: by ``SCHEMA`` of rooms with the same names."""

    events: pa.Table | None = None
    resources: pa.Table | None = None
    connections: pa.Table | None = None


NOTHING = Beside()


def beside(path: Path) -> Beside:
    """What lies in the folder of a run, or beside the file of its rows. Raises OSError and pa.ArrowInvalid."""
    folder = path if path.is_dir() else path.parent
    happened, used = (records.read_beside(folder / name) for name in (events.FILE, resources.FILE))
    return Beside(happened, used, connections.read(folder))


def summarise(table: pa.Table, beside: Beside = NOTHING) -> dict[str, Any]:
    """The summary of a run, as ``summary.json`` holds it (docs/records.md). Raises ValueError where it is no run."""
    facts = provenance_of(table)
    if "loads" not in facts:
        raise ValueError("the file was not written by this harness: its schema has no trafficplane metadata")
    asked = scenario.parse(facts["scenario"], "the scenario of the run")
    interrupted = facts["interrupted"] == "true"
    loads: list[dict[str, Any]] = []
    pods: list[dict[str, Any]] = []
    judgements: list[Judgement] = []
    for load, description in zip(asked.spec.loads, json.loads(facts["loads"]), strict=True):
        rows, cut_off = rows_of(table, load.name)
        warm_up = _warm_up(table, load.name)
        description = records.measured(description)
        loads.append({**_load(rows, description, interrupted), "cut_off": cut_off, "warm_up": warm_up})
        pods += _pods(rows, load.name)
        judgements += judge(loads[-1], asked.objectives(load))
    return {
        "run": facts["run"],
        "scenario": asked.name,
        "started": facts["started"],
        "interrupted": interrupted,
        "loads": loads,
        "pods": pods,
        "objectives": [asdict(judgement) for judgement in judgements],
        "events": (happened := beside.events.to_pylist() if beside.events is not None else []),
        "met": all(judgement.met for judgement in judgements)
        and not any(row["error"] for row in happened)
        and not any(load["generators_lost"] for load in loads),
    }


def rows_of(table: pa.Table, load: str) -> tuple[pa.Table, int]:
    """The rows of a load without its warm-up and those that were cut off, and how many of the latter there are."""
    rows = records.settled(table.filter(pc.equal(table["load"], load)))
    cut_off = pc.fill_null(pc.equal(rows["error"], ERRORS[INTERRUPTED]), False)
    return rows.filter(pc.invert(cut_off)), pc.sum(cut_off).as_py() or 0


def _warm_up(table: pa.Table, load: str) -> int:
    """How many of a load's requests were warm-up."""
    rows = table.filter(pc.equal(table["load"], load))
    return len(rows) - len(records.settled(rows))


def percentiles(latencies_ns: np.ndarray, scheduled: int) -> dict[str, int | None]:
    """Nearest-rank percentiles of ``scheduled`` requests, of which those answered took ``latencies_ns`` int64[n]."""
    ordered = np.sort(latencies_ns)
    ranks = {name: -(-share.numerator * scheduled // share.denominator) for name, share in RANKS.items()}
    return {name: int(ordered[rank - 1]) if 0 < rank <= len(ordered) else None for name, rank in ranks.items()}


def _load(rows: pa.Table, description: Mapping[str, Any], interrupted: bool) -> dict[str, Any]:
    intended = rows["intended_ns"].to_numpy()
    done = rows["done_ns"]
    answered = np.asarray(pc.is_valid(done))
    done_ns = done.drop_null().to_numpy()
    kinds = Counter(rows["error"].drop_null().to_pylist())
    status = Counter(rows["status"].filter(pc.is_valid(done)).drop_null().to_pylist())
    kinds.update({f"status {code}": count for code, count in status.items() if code >= ERROR_STATUS})
    start_ns, duration_ns = description["start_ns"], description["duration_ns"]
    # From the start of the load to its last answer, and not less than it was meant to last.
    last_ns = max((int(column.max()) for column in (intended, done_ns) if len(column)), default=start_ns)
    span_ns = max(last_ns - start_ns, 1 if interrupted else duration_ns)
    offered = None
    if description["rate"] is not None:
        offered = len(rows) * NS_PER_S / (span_ns if interrupted else duration_ns)
    return {
        "name": description["name"],
        "arrivals": description["arrivals"],
        "scheduled": len(rows),
        "answered": len(done_ns),
        "offered_rate": offered,
        "achieved_rate": len(done_ns) * NS_PER_S / span_ns,
        "errors": sum(kinds.values()),
        "errors_by_kind": dict(sorted(kinds.items())),
        "sent_again": int(np.sum(rows["attempts"].to_numpy() > 1)),
        "latency_ns": percentiles(done_ns - intended[answered], len(rows)),
        "hops": hops.summarise(rows),
        "requests": list(_requests(rows)),
        "generators": description.get("generators", 1),
        "generators_lost": description.get("generators_lost", 0),
        "generator": description.get("generator"),
        "generator_limited": description.get("generator_limited"),
        "handshakes": _handshakes(rows),
        "replay": description.get("replay"),
        "stages": list(_stages(rows, description.get("stages", ()))),
    }


def _handshakes(rows: pa.Table) -> dict[str, Any] | None:
    """How many connections of a load were secured, and how long that took; None where none was."""
    if "tls_done_ns" not in rows.column_names:  # a run of before
        return None
    took = pc.subtract(rows["tls_done_ns"], rows["connected_ns"]).drop_null().to_numpy()
    return {"made": len(took), "latency_ns": percentiles(took, len(took))} if len(took) else None


def _stages(rows: pa.Table, stages: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """What became of the requests that were due in each stage of a load that has some."""
    intended = rows["intended_ns"].to_numpy()
    for number, stage in enumerate(stages, 1):
        since = intended - stage["start_ns"]
        # By another machine's clock the first may have been due a little before.
        begun = since >= 0 if number > 1 else np.ones(len(since), bool)
        due = rows.filter(pa.array(begun & (since < stage["duration_ns"])))
        times = {"start_ns": stage["start_ns"], "duration_ns": stage["duration_ns"]}
        yield {"stage": f"{number}: {stage['stage']}", **times, **part(due)}


def _requests(rows: pa.Table) -> Iterator[dict[str, Any]]:
    """Of a load that is a mix, what became of each of its requests, the most frequent first."""
    if "request" not in rows.column_names:  # a run of before
        return
    column = rows["request"].combine_chunks()
    code = column.indices.fill_null(-1).to_numpy()
    texts = column.dictionary.to_pylist()
    counts = np.bincount(code[code >= 0], minlength=len(texts))
    order = [place for place in np.argsort(-counts, kind="stable").tolist() if counts[place]]
    if len(order) < 2:
        return
    own, rest = order[:REQUESTS_APART], order[REQUESTS_APART:]
    for place in own:
        yield {"request": texts[place], **part(rows.filter(pa.array(code == place)))}
    if rest:
        yield {"request": f"{len(rest)} {OTHERS}", **part(rows.filter(pa.array(np.isin(code, rest))))}


def part(rows: pa.Table) -> dict[str, Any]:
    """What became of some of the rows of a load."""
    latency = pc.subtract(rows["done_ns"], rows["intended_ns"]).drop_null().to_numpy()
    status = rows["status"].filter(pc.is_valid(rows["done_ns"]))
    wrong = pc.sum(pc.greater_equal(status, ERROR_STATUS)).as_py() or 0
    return {
        "scheduled": len(rows),
        "answered": len(latency),
        "errors": len(rows) - len(latency) + wrong,
        "latency_ns": percentiles(latency, len(rows)),
    }


def _pods(rows: pa.Table, load: str) -> list[dict[str, Any]]:
    """Answered requests of a load by pod; those of which no pod is known come last, under the empty name."""
    answered = rows.filter(pc.is_valid(rows["done_ns"]))
    counted = Counter(zip(answered["pod"].to_pylist(), answered["node"].to_pylist(), strict=True))
    return [
        {"load": load, "pod": pod or UNKNOWN_POD, "node": node or "", "answered": count}
        for (pod, node), count in sorted(counted.items(), key=lambda item: (item[0][0] is None, str(item[0])))
    ]
