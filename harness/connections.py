"""The connections that loads have opened: ``connections.arrow``, a row each, also of those that never came about.

Law: a connection has the number that rows of ``requests.arrow`` name it by, within its load. What a relay decided is
there where a relay carried it; behind an ingress each request may go elsewhere, and has that in its own row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from harness.recorder import NEVER
from harness.records import PREFIX, LoadRows, Names, names_of
from plane.addresses import int_to_ip

VERSION = "connections/1"
FILE = "connections.arrow"

_NAME = pa.dictionary(pa.int32(), pa.string())


def _column(name: str, kind: pa.DataType, unit: str, meaning: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"unit": unit, "description": meaning})


SCHEMA = pa.schema(
    [
        _column("load", _NAME, "1", "name of the load"),
        _column("connection_id", pa.int32(), "1", "its number within the load, as requests have it"),
        _column("began_ns", pa.int64(), "ns", "just before it was dialled"),
        _column("client", _NAME, "1", "address that it came from; null: it never came about", nullable=True),
        _column("client_port", pa.uint16(), "1", "port that it came from", nullable=True),
        _column("client_pod", _NAME, "1", "namespace/name of the pod whose address that is", nullable=True),
        _column("client_node", _NAME, "1", "node of that pod", nullable=True),
        _column("accepted_ns", pa.int64(), "ns", "when a relay accepted it", nullable=True),
        _column("service", _NAME, "1", "namespace/name of the Service that was dialled", nullable=True),
        _column("pod", _NAME, "1", "namespace/name of the pod that the relay chose", nullable=True),
        _column("node", _NAME, "1", "node of that pod", nullable=True),
        _column("generation", pa.int64(), "1", "generation of the tables that chose it", nullable=True),
        _column("requests", pa.int32(), "1", "requests whose last attempt it carried"),
    ]
)


@dataclass(frozen=True)
class Opened:
    """What the plane knows of each connection of a load, in order; times absolute, NEVER and negative where nothing."""

    client_pod: Names
    client_node: Names
    accepted_ns: np.ndarray
    service: Names
    pod: Names
    node: Names
    generation: np.ndarray


def tabulate(loads: Sequence[tuple[LoadRows, Opened]], epoch_ns: int, run: str) -> pa.Table:
    """The connections of all loads under SCHEMA, those of a load one after the other; times from the epoch."""
    schema = SCHEMA.with_metadata({PREFIX + "schema": VERSION, PREFIX + "run": run})
    each = [_named(rows, opened) for rows, opened in loads]
    names = [field.name for field in SCHEMA if field.type == _NAME]
    texts = {name: sorted({text for named in each for text in named[name].texts}) for name in names}
    dictionaries = {name: pa.array(values, pa.string()) for name, values in texts.items()}
    batches = [
        _batch(schema, {name: names_of(named[name], dictionaries[name]) for name in names}, rows, opened, epoch_ns)
        for named, (rows, opened) in zip(each, loads, strict=True)
    ]
    return pa.Table.from_batches(batches, schema)


def _named(rows: LoadRows, opened: Opened) -> dict[str, Names]:
    """The columns of names."""
    columns = rows.recorded.connections
    addresses, client = np.unique(columns["client_ip"], return_inverse=True)
    return {
        "load": Names(np.zeros(len(client), np.int32), [rows.load]),
        "client": Names(
            np.where(columns["client_port"] > 0, client, -1).astype(np.int32), [int_to_ip(ip) for ip in addresses]
        ),
        **{name: getattr(opened, name) for name in ("client_pod", "client_node", "service", "pod", "node")},
    }


def _batch(
    schema: pa.Schema, named: Mapping[str, pa.Array], rows: LoadRows, opened: Opened, epoch_ns: int
) -> pa.RecordBatch:
    columns, used = rows.recorded.connections, rows.recorded.requests["connection"]
    number, never = len(columns["began_ns"]), columns["client_port"] == 0
    made = {
        "connection_id": pa.array(np.arange(number, dtype=np.int32)),
        "began_ns": pa.array(columns["began_ns"] - epoch_ns),
        "client_port": pa.array(columns["client_port"], mask=never),
        "accepted_ns": pa.array(opened.accepted_ns - epoch_ns, mask=opened.accepted_ns == NEVER),
        "generation": pa.array(opened.generation, mask=opened.generation < 0),
        "requests": pa.array(np.bincount(used[used != NEVER], minlength=number).astype(np.int32)),
        **named,
    }
    return pa.RecordBatch.from_arrays([made[name] for name in schema.names], schema=schema)
