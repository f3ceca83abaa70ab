"""What the rows of a run of flows say: for each algorithm its speed, and phase by phase what became of the flows.

Law: every number comes from the two tables and their metadata. Imbalance is over the backends that new flows may go to,
each one's flows by its weight, against the mean; percentiles are nearest-rank.
"""

import json
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness.flows.records import COUNTED
from harness.flows.steering import STAGES
from harness.records import provenance_of
from kernels.layout import FATES_OF_FLOWS

RANKS = {"p50": Fraction(50, 100), "p99": Fraction(99, 100), "max": Fraction(1)}


def summarise(steering: pa.Table, backends: pa.Table) -> dict[str, Any]:
    """The summary of a run, as ``summary.json`` holds it (docs/flows.md). Raises ValueError where it is no such run."""
    facts = provenance_of(steering)
    if "phases" not in facts:
        raise ValueError("the file was not written by this harness: its schema has no trafficplane metadata of flows")
    phases = json.loads(facts["phases"])
    algorithms = [
        _algorithm(name, steering.filter(pc.equal(steering["algorithm"], name)), backends, phases)
        for name in pc.unique(steering["algorithm"]).to_pylist()
    ]
    return {
        "kind": "flows",
        "run": facts["run"],
        "scenario": json.loads(facts["name"]),
        "started": facts["started"],
        "interrupted": facts["interrupted"] == "true",
        "flows": int(facts["flows"]),
        "balancers": int(facts["balancers"]),
        "workers": int(facts["workers"]),
        "workers_lost": int(facts["workers_lost"]),
        "seed": int(facts["seed"]),
        "seconds": float(facts["seconds"]),
        "algorithms": algorithms,
        "met": True,
    }


def imbalance(flows: np.ndarray, weights: np.ndarray) -> dict[str, float] | None:
    """What the busiest backends have for their weight, over the mean; None where there are no flows or no backends."""
    if not flows.size or not flows.sum():
        return None
    ordered = np.sort(flows / weights) / (flows.sum() / weights.sum())
    ranks = {name: -(-share.numerator * ordered.size // share.denominator) for name, share in RANKS.items()}
    return {f"{name}_over_mean": float(ordered[rank - 1]) for name, rank in ranks.items()} | {
        "min_over_mean": float(ordered[0])
    }


def _algorithm(name: str, rows: pa.Table, backends: pa.Table, phases: Mapping[str, Any]) -> dict[str, Any]:
    steered = pc.sum(rows["flows"]).as_py()
    spent_s = {stage: pc.sum(rows[f"{stage}_ns"]).as_py() / 1e9 for stage in STAGES}
    spent_s["all"] = sum(spent_s.values())
    of_algorithm = backends.filter(pc.equal(backends["algorithm"], name))
    return {
        "algorithm": name,
        "flows": pc.sum(rows.filter(pc.equal(rows["phase"], 0))["flows"]).as_py(),
        "steered": steered,
        "stages": {
            stage: {"flows": steered, "seconds": seconds, "flows_per_s": steered / seconds if seconds else None}
            for stage, seconds in spent_s.items()
        },
        "phases": [_phase(number, made, rows, of_algorithm) for number, made in enumerate(phases[name])],
    }


def _phase(number: int, made: Mapping[str, Any], rows: pa.Table, backends: pa.Table) -> dict[str, Any]:
    here = rows.filter(pc.equal(rows["phase"], number))
    counts = {
        name: pc.sum(here[name]).as_py() for name in (*map(str.lower, COUNTED), *FATES_OF_FLOWS, "held", "refused")
    }
    there = counts["kept"] + counts["unavoidable"] + counts["disrupted"]
    mine = backends.filter(pc.equal(backends["phase"], number))
    mine = mine.filter(pc.and_(pc.equal(mine["member"], 1), pc.greater(mine["weight"], 0)))
    flows, weights = mine["flows"].to_numpy(), mine["weight"].to_numpy().astype(np.int64)
    return {
        "phase": number,
        **made,
        **counts,
        "disrupted_share": counts["disrupted"] / there if there else None,
        "moved_share": (counts["disrupted"] + counts["unavoidable"]) / there if there else None,
        "backends": len(mine),
        "imbalance": imbalance(flows, weights),
        "imbalance_by_bytes": imbalance(mine["bytes"].to_numpy(), weights),
    }
