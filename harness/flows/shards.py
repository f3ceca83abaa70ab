"""The rows of each shard on disk as they come, and those of all together: what a run leaves, whether or not it ends.

Law: a shard's rows are those of its balancers, under the schemas of ``records``, and a shard is there once its second
file is. The rows of a run are those of its shards and nothing else, so one that was killed is read as far as it came.

    <run>/shards/<place of the algorithm>-<first balancer>-<after the last>.backends.arrow, ….steering.arrow
"""

import json
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from harness import records
from harness.flows.records import SUMMED
from harness.flows.steering import Shard
from harness.records import PREFIX, provenance_of

FOLDER = "shards"
_STEERING, _BACKENDS = ".steering.arrow", ".backends.arrow"


def put(run: Path, place: int, shard: Shard, rows: tuple[pa.Table, pa.Table]) -> None:
    """Writes what ``records.tabulate`` makes of a shard. Raises OSError."""
    folder = run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{place:03}-{shard.first:07}-{shard.last:07}"
    steering, backends = rows
    records.write(backends, folder / (name + _BACKENDS))
    records.write(steering, folder / (name + _STEERING))


def are_in(run: Path) -> bool:
    """Whether a shard was finished in the run."""
    return bool(_names(run))


def gathered(run: Path) -> tuple[pa.Table, pa.Table]:
    """The rows of all shards of a run that has some, in the order of a run's. Raises OSError and pa.ArrowInvalid.

    Metadata is that of the shard that was written last, with the phases of all algorithms.
    """
    steering: list[pa.Table] = []
    backends: list[pa.Table] = []
    facts: list[dict[str, str]] = []
    phases: dict[str, Any] = {}
    for _, group in groupby(_names(run), lambda name: name.partition("-")[0]):
        names = list(group)
        rows = [records.read(run / FOLDER / (name + _STEERING)) for name in names]
        facts += map(provenance_of, rows)
        phases |= json.loads(facts[-1]["phases"])
        steering.append(_in_order(pa.concat_tables(rows)))
        backends.append(_added_up(records.read(run / FOLDER / (name + _BACKENDS)) for name in names))
    latest = max(facts, key=lambda each: float(each["seconds"]))
    metadata = {PREFIX + key: text for key, text in {**latest, "phases": json.dumps(phases)}.items()}
    both = (pa.concat_tables(each).unify_dictionaries() for each in (steering, backends))
    return next(both).replace_schema_metadata(metadata), next(both).replace_schema_metadata(metadata)


def _names(run: Path) -> list[str]:
    """Of the shards that are there, by algorithm and balancer."""
    return sorted(file.name.removesuffix(_STEERING) for file in (run / FOLDER).glob(f"*{_STEERING}"))


def _in_order(rows: pa.Table) -> pa.Table:
    """One algorithm's rows by phase, then by balancer."""
    order = np.lexsort((rows["balancer"].to_numpy(), rows["phase"].to_numpy()))
    return rows.unify_dictionaries().combine_chunks().take(pa.array(order))


def _added_up(shards: Iterable[pa.Table]) -> pa.Table:
    """One algorithm's backends, which are the same in each of its shards, with what they had of all of these."""
    sums: dict[str, np.ndarray] = {}
    for rows in shards:
        for name in SUMMED:
            found = rows[name].to_numpy()
            sums[name] = sums[name] + found if name in sums else found
    for name, total in sums.items():
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), pa.array(total))
    return rows
