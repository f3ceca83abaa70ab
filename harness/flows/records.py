"""The files of a run of flows: what became of each balancer's flows in each phase, and what each backend had.

Law: as ``harness.records``: the files explain themselves, and whatever judges their rows is in ``summary``. But for the
columns of times, equal scenarios leave equal rows, however many workers there were.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from harness.flows.columns import packed
from harness.flows.making import Made
from harness.flows.steering import STAGES, Carried, Course
from harness.flows.timeline import Phase
from harness.records import PREFIX, column
from kernels.layout import BACKEND_STATES, FATES_OF_FLOWS, GONE, OUTCOMES

VERSION = "flows/1"
FILE, BACKENDS_FILE = "steering.arrow", "backends.arrow"
COUNTED = OUTCOMES[1:-1]  # nothing is punted here
SUMMED = ("flows", "bytes")  # columns of BACKENDS that each shard has a part of; the others are the same in all

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


STEERING = pa.schema(
    [
        column("algorithm", _NAME, "1", "how backends were picked"),
        column("phase", pa.int32(), "1", "number of the phase, from 0"),
        column("event", _NAME, "1", "what happened before the phase"),
        column("balancer", pa.int32(), "1", "number of the balancer, from 0"),
        column("first_flow", pa.int64(), "1", "number of its first flow"),
        column("flows", pa.int64(), "1", "its flows, each of which sent once in the phase"),
        *(column(name.lower(), pa.int64(), "1", _MEANING[name]) for name in (*COUNTED, *FATES_OF_FLOWS)),
        column("held", pa.int64(), "1", "flows that conntrack held after the phase"),
        column("refused", pa.int64(), "1", "flows that conntrack had no room for"),
        *(column(f"{stage}_ns", pa.int64(), "ns", f"time that stage {stage} took") for stage in STAGES),
    ]
)
BACKENDS = pa.schema(
    [
        column("algorithm", _NAME, "1", "how backends were picked"),
        column("phase", pa.int32(), "1", "number of the phase, from 0"),
        column("backend", pa.uint32(), "1", "id of the backend, the same as long as it is there"),
        column("ip", pa.uint32(), "1", "its address in host order: 127.0.0.1 is 0x7f000001"),
        column("port", pa.uint16(), "1", "its port"),
        column("proto", pa.uint8(), "1", "its protocol, 6 for TCP and 17 for UDP"),
        column("state", _NAME, "1", "READY, DRAINING or UNREADY"),
        column("weight", pa.uint16(), "1", "its weight"),
        column("member", pa.uint8(), "1", "1 where a new flow of the scenario may go to it"),
        column("flows", pa.int64(), "1", "flows that it had in the phase, of all balancers of the file"),
        column("bytes", pa.int64(), "By", "bytes of these flows; 0 of all where neither scenario nor trace says"),
    ]
)


# The same of backends whose addresses are of IPv6.
BACKENDS6 = BACKENDS.set(
    BACKENDS.get_field_index("ip"), column("ip", pa.binary(16), "1", "its address, 16 bytes in network order")
)


@dataclass(frozen=True)
class Measured:
    """What a shard of one algorithm's course came to.

    algorithms  names of all that the scenario has, and ``place`` which of them it is
    made        what came of making the tables of each phase
    """

    algorithms: Sequence[str]
    place: int
    phases: Sequence[Phase]
    course: Course
    made: Sequence[Made]
    carried: Carried


def tabulate(shard: Measured, facts: Mapping[str, str]) -> tuple[pa.Table, pa.Table]:
    """The rows under ``STEERING`` and ``BACKENDS`` or ``BACKENDS6``, by phase; ``facts`` are metadata."""
    metadata = {PREFIX + key: text for key, text in {"schema": VERSION, **facts}.items()}
    is_wide = bool(shard.course.address.names)
    steering, backends = STEERING.with_metadata(metadata), (BACKENDS6 if is_wide else BACKENDS).with_metadata(metadata)
    names = pa.array(shard.algorithms, pa.string())
    events = pa.array(list(dict.fromkeys(phase.name for phase in shard.phases)), pa.string())
    numbers = range(len(shard.phases))
    steered = [_steered(steering, names, events, shard, number) for number in numbers]
    counted = [_counted(backends, names, shard, number) for number in numbers]
    return pa.Table.from_batches(steered, steering), pa.Table.from_batches(counted, backends)


def _steered(schema: pa.Schema, names: pa.Array, events: pa.Array, shard: Measured, number: int) -> pa.RecordBatch:
    course, carried = shard.course, shard.carried
    balancers = np.arange(*carried.shard)
    first = balancers * course.share
    outcomes, fates, tracked, spent = (
        rows[:, number] for rows in (carried.outcomes, carried.fates, carried.tracked, carried.spent_ns)
    )
    columns = {
        "algorithm": _constant(shard.place, names, len(balancers)),
        "phase": np.full(len(balancers), number, np.int32),
        "event": _constant(events.to_pylist().index(shard.phases[number].name), events, len(balancers)),
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


def _counted(schema: pa.Schema, names: pa.Array, shard: Measured, number: int) -> pa.RecordBatch:
    table = shard.course.tables[number].fib.backends
    ids = np.flatnonzero(table["state"] != GONE)
    is_member = np.zeros(len(table), np.uint8)
    is_member[shard.made[number].members] = 1
    columns = {
        "algorithm": _constant(shard.place, names, len(ids)),
        "phase": np.full(len(ids), number, np.int32),
        "backend": ids.astype(np.uint32),
        "state": pa.DictionaryArray.from_arrays(
            pa.array(table["state"][ids].astype(np.int32)), pa.array(BACKEND_STATES, pa.string())
        ),
        "member": is_member[ids],
        "flows": shard.carried.loads[number][ids],
        "bytes": shard.carried.volumes[number][ids],
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
