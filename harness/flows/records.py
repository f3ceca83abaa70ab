"""The files that a run of flows leaves: what became of each balancer's flows in each phase, and what each backend had.

Law: as ``harness.records``: the files explain themselves, and whatever judges their rows is in ``summary``. But for the
columns of times, equal scenarios leave equal rows, however many workers there were.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from harness.flows.columns import packed
from harness.flows.steering import STAGES, Carried, Course
from harness.flows.timeline import Made, Phase
from harness.records import PREFIX
from kernels.layout import BACKEND_STATES, FATES_OF_FLOWS, GONE, OUTCOMES

VERSION = "flows/1"
FILE, BACKENDS_FILE = "steering.arrow", "backends.arrow"
COUNTED = OUTCOMES[1:-1]  # nothing is punted here

_NAME = pa.dictionary(pa.int32(), pa.string())

_MEANING = {
    "NEW": "flows that were given a backend",
    "TRACKED": "flows that conntrack knew",
    "AFFINITY": "new flows whose client was known: session affinity gave them the backend that it had",
    "NO_FRONTEND": "flows to what is no frontend",
    "REJECT": "flows for which there was no endpoint anywhere",
    "DROP": "flows whose client may have none of the endpoints there are",
    "begun": "flows with a backend that had none in the phase before",
    "kept": "flows that kept their backend",
    "unavoidable": "flows that moved because their endpoint is gone",
    "disrupted": "flows that moved although their endpoint is there: connections broken without need",
    "without": "flows that have no backend now",
}


def _column(name: str, kind: pa.DataType, unit: str, meaning: str) -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={"unit": unit, "description": meaning})


STEERING = pa.schema(
    [
        _column("algorithm", _NAME, "1", "how backends were picked"),
        _column("phase", pa.int32(), "1", "number of the phase, from 0"),
        _column("event", _NAME, "1", "what happened before the phase"),
        _column("balancer", pa.int32(), "1", "number of the balancer, from 0"),
        _column("first_flow", pa.int64(), "1", "number of its first flow"),
        _column("flows", pa.int64(), "1", "its flows, each of which sent once in the phase"),
        *(_column(name.lower(), pa.int64(), "1", _MEANING[name]) for name in (*COUNTED, *FATES_OF_FLOWS)),
        _column("held", pa.int64(), "1", "flows that conntrack held after the phase"),
        _column("refused", pa.int64(), "1", "flows that conntrack had no room for"),
        *(_column(f"{stage}_ns", pa.int64(), "ns", f"time that stage {stage} took") for stage in STAGES),
    ]
)
BACKENDS = pa.schema(
    [
        _column("algorithm", _NAME, "1", "how backends were picked"),
        _column("phase", pa.int32(), "1", "number of the phase, from 0"),
        _column("backend", pa.uint32(), "1", "id of the backend, the same as long as it is there"),
        _column("ip", pa.uint32(), "1", "its address in host order: 127.0.0.1 is 0x7f000001"),
        _column("port", pa.uint16(), "1", "its port"),
        _column("proto", pa.uint8(), "1", "its protocol, 6 for TCP and 17 for UDP"),
        _column("state", _NAME, "1", "READY, DRAINING or UNREADY"),
        _column("weight", pa.uint16(), "1", "its weight"),
        _column("member", pa.uint8(), "1", "1 where a new flow of the scenario may go to it"),
        _column("flows", pa.int64(), "1", "flows that it had in the phase, of all balancers"),
        _column("bytes", pa.int64(), "By", "bytes of these flows; 0 of all where neither scenario nor trace says"),
    ]
)


# The same of backends whose addresses are of IPv6.
BACKENDS6 = BACKENDS.set(
    BACKENDS.get_field_index("ip"), _column("ip", pa.binary(16), "1", "its address, 16 bytes in network order")
)


@dataclass(frozen=True)
class Measured:
    """One algorithm's whole course.

    shards  in the order of their balancers, perhaps not all there are; without their loads
    loads   for each phase int64[...]: flows by backend id, of all these shards
    volumes likewise, their bytes
    """

    algorithm: str
    course: Course
    made: Sequence[Made]
    shards: Sequence[Carried]
    loads: Sequence[np.ndarray]
    volumes: Sequence[np.ndarray]


def tabulate(
    phases: Sequence[Phase], measured: Sequence[Measured], facts: Mapping[str, str]
) -> tuple[pa.Table, pa.Table]:
    """The rows under ``STEERING`` and ``BACKENDS`` or ``BACKENDS6``, by algorithm and phase; ``facts`` are metadata."""
    metadata = {PREFIX + key: text for key, text in {"schema": VERSION, **facts}.items()}
    names = pa.array([each.algorithm for each in measured], pa.string())
    events = pa.array(list(dict.fromkeys(phase.name for phase in phases)), pa.string())
    is_wide = any(each.course.address.names for each in measured)
    steering, backends = STEERING.with_metadata(metadata), (BACKENDS6 if is_wide else BACKENDS).with_metadata(metadata)
    rows = [
        (place, each, number) for place, each in enumerate(measured) for number in range(len(phases)) if each.shards
    ]
    steered = [_steered(steering, names, events, phases, *row) for row in rows]
    counted = [_counted(backends, names, *row) for row in rows]
    return pa.Table.from_batches(steered, steering), pa.Table.from_batches(counted, backends)


def _steered(
    schema: pa.Schema,
    names: pa.Array,
    events: pa.Array,
    phases: Sequence[Phase],
    place: int,
    each: Measured,
    number: int,
) -> pa.RecordBatch:
    balancers = np.concatenate([np.arange(*carried.shard) for carried in each.shards])
    outcomes, fates, tracked, spent = (
        np.concatenate([getattr(carried, name)[:, number] for carried in each.shards])
        for name in ("outcomes", "fates", "tracked", "spent_ns")
    )
    course, first = each.course, balancers * each.course.share
    columns = {
        "algorithm": _constant(place, names, len(balancers)),
        "phase": np.full(len(balancers), number, np.int32),
        "event": _constant(events.to_pylist().index(phases[number].name), events, len(balancers)),
        "balancer": balancers.astype(np.int32),
        "first_flow": first,
        "flows": np.minimum(course.share, course.flows - first),
        "held": tracked[:, 0],
        "refused": tracked[:, 1],
        **{name.lower(): outcomes[:, OUTCOMES.index(name)] for name in COUNTED},
        **{name: fates[:, column] for column, name in enumerate(FATES_OF_FLOWS)},
        **{f"{stage}_ns": spent[:, column] for column, stage in enumerate(STAGES)},
    }
    return _batch(schema, columns)


def _counted(schema: pa.Schema, names: pa.Array, place: int, each: Measured, number: int) -> pa.RecordBatch:
    table = each.course.tables[number].fib.backends
    ids = np.flatnonzero(table["state"] != GONE)
    columns = {
        "algorithm": _constant(place, names, len(ids)),
        "phase": np.full(len(ids), number, np.int32),
        "backend": ids.astype(np.uint32),
        "state": pa.DictionaryArray.from_arrays(
            pa.array(table["state"][ids].astype(np.int32)), pa.array(BACKEND_STATES, pa.string())
        ),
        "member": np.isin(ids, each.made[number].members).astype(np.uint8),
        "flows": each.loads[number][ids],
        "bytes": each.volumes[number][ids],
        "ip": packed(table["ip"][ids]),
        **{name: np.ascontiguousarray(table[name][ids]) for name in ("port", "proto", "weight")},
    }
    return _batch(schema, columns)


def _constant(place: int, dictionary: pa.Array, rows: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.full(rows, place, np.int32)), dictionary)


def _batch(schema: pa.Schema, columns: Mapping[str, object]) -> pa.RecordBatch:
    arrays = [
        columns[name] if isinstance(columns[name], pa.Array) else pa.array(np.ascontiguousarray(columns[name]))
        for name in schema.names
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
