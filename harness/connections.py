"""The connections that loads have opened: ``connections.arrow``, a row each, also of those that never came about.

Law: a connection has the number that rows of ``requests.arrow`` name it by, within its load. What a relay decided is
there where a relay carried it; behind an ingress each request may go elsewhere, and has that in its own row. Until the
file is there, its rows are in a *journal* for each generator: without what the plane knows, and without what carried
which request, which ``read`` finds out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness import records
from harness.journal import Header, Written
from harness.recorder import NEVER
from harness.records import PREFIX, LoadRows, Names, column, names_of
from harness.workload import Share
from plane.addresses import int_to_ip

VERSION = "connections/1"
FILE = "connections.arrow"
_JOURNALS = "connections.*.arrows"

_NAME = pa.dictionary(pa.int32(), pa.string())


SCHEMA = pa.schema(
    [
        column("load", _NAME, "1", "name of the load"),
        column("connection_id", pa.int32(), "1", "its number within the load, as requests have it"),
        column("began_ns", pa.int64(), "ns", "just before it was dialled"),
        column("client", _NAME, "1", "address that it came from; null: it never came about", nullable=True),
        column("client_port", pa.uint16(), "1", "port that it came from", nullable=True),
        column("client_pod", _NAME, "1", "namespace/name of the pod whose address that is", nullable=True),
        column("client_node", _NAME, "1", "node of that pod", nullable=True),
        column("accepted_ns", pa.int64(), "ns", "when a relay accepted it", nullable=True),
        column("service", _NAME, "1", "namespace/name of the Service that was dialled", nullable=True),
        column("pod", _NAME, "1", "namespace/name of the pod that the relay chose", nullable=True),
        column("node", _NAME, "1", "node of that pod", nullable=True),
        column("generation", pa.int64(), "1", "generation of the tables that chose it", nullable=True),
        column("requests", pa.int32(), "1", "requests whose last attempt it carried"),
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
    """The connections of all loads under SCHEMA, those of a load as they were dialled; times from the epoch."""
    schema = _schema(run)
    each = [_named(rows, opened) for rows, opened in loads]
    names = [field.name for field in SCHEMA if field.type == _NAME]
    texts = {name: sorted({text for named in each for text in named[name].texts}) for name in names}
    dictionaries = {name: pa.array(values, pa.string()) for name, values in texts.items()}
    batches = [
        _batch(schema, {name: names_of(named[name], dictionaries[name]) for name in names}, rows, opened, epoch_ns)
        for named, (rows, opened) in zip(each, loads, strict=True)
    ]
    by_load: dict[str, list[pa.RecordBatch]] = {}
    for (rows, _), batch in zip(loads, batches, strict=True):
        by_load.setdefault(rows.load, []).append(batch)
    return _joined([_in_order(parts, schema) for parts in by_load.values()], schema)


class Journal(Written):
    """The connections of a load while it runs: rows of ``kernels.layout_load.DIAL``, or their fields by name."""

    def __init__(self, header: Header, epoch_ns: int):
        super().__init__(_beside(header.path), _schema(header.facts["run"]), "connection")
        self._share = header.share
        self._epoch_ns = epoch_ns
        self._load = pa.array([header.load])

    def _batch(self, parts: Sequence[Any]) -> pa.RecordBatch:
        columns = {
            name: np.concatenate([part[name] for part in parts]) for name in ("connection", "began_ns", "ip", "port")
        }
        number, never = len(columns["connection"]), columns["port"] == 0
        addresses, client = np.unique(columns["ip"], return_inverse=True)
        index = pa.array(client.astype(np.int32), mask=never)
        made = {
            "load": pa.DictionaryArray.from_arrays(np.zeros(number, np.int32), self._load),
            "connection_id": _numbers(columns["connection"], self._share),
            "began_ns": pa.array(columns["began_ns"] - self._epoch_ns),
            "client": pa.DictionaryArray.from_arrays(index, pa.array([int_to_ip(ip) for ip in addresses])),
            "client_port": pa.array(columns["port"], mask=never),
            "requests": pa.array(np.zeros(number, np.int32)),
        }
        columns_of = [made[each.name] if each.name in made else pa.nulls(number, each.type) for each in self._schema]
        return pa.RecordBatch.from_arrays(columns_of, schema=self._schema)


def read(folder: Path) -> pa.Table | None:
    """The connections of a run; of one that was killed those in its journals, of one of before there was that None.

    Raises OSError and pa.ArrowInvalid.
    """
    if (folder / FILE).exists():
        return records.read(folder / FILE)
    left = [table for path in sorted(folder.glob(_JOURNALS)) if (table := records.read_journal(path)) is not None]
    if not left:
        return None
    return _together(left, records.read(folder))


def with_rescued(table: pa.Table, requests: pa.Table, journals: Sequence[Path]) -> pa.Table:
    """The connections of a run with those that lost generators have left, in their places.

    requests  the rows of the run, with theirs
    journals  of their requests; those that are not there are on machines that are lost with them
    """
    there = [path for path in map(_beside, journals) if path.exists()]
    left = [part for part in map(records.read_journal, there) if part]
    return _together([table, *left], requests) if left else table


def _together(parts: Sequence[pa.Table], requests: pa.Table) -> pa.Table:
    """Connections by load, those of a load as they were dialled, with how many requests each carried."""
    by_load: dict[str, list[pa.RecordBatch]] = {}
    for batch in pa.concat_tables(parts).unify_dictionaries().to_batches():
        if batch.num_rows:
            by_load.setdefault(batch["load"][0].as_py(), []).append(batch)
    carried, schema = requests.select(["load", "connection_id"]), parts[0].schema
    return _joined([_with_requests(_in_order(rows, schema), load, carried) for load, rows in by_load.items()], schema)


def _beside(journal: Path) -> Path:
    """The journal of connections beside one of requests."""
    return journal.with_name(f"connections{journal.name.removeprefix('requests')}")


def _schema(run: str) -> pa.Schema:
    return SCHEMA.with_metadata({PREFIX + "schema": VERSION, PREFIX + "run": run})


def _in_order(parts: Sequence[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """What the generators of one load have dialled, as it was dialled."""
    whole = pa.Table.from_batches(parts, schema)
    return whole.sort_by([("began_ns", "ascending"), ("connection_id", "ascending")])


def _joined(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _with_requests(table: pa.Table, load: str, carried: pa.Table) -> pa.Table:
    """A load's connections, with how many requests say that each carried them."""
    own = carried.filter(pc.equal(carried["load"], load))["connection_id"].drop_null().to_numpy()
    number, count = np.unique(own, return_counts=True)
    asked = table["connection_id"].to_numpy()
    place = np.minimum(np.searchsorted(number, asked), max(len(number) - 1, 0))
    found = np.where(number[place] == asked, count[place], 0) if len(number) else np.zeros(len(asked), np.int64)
    at = table.schema.get_field_index("requests")
    return table.set_column(at, table.schema.field(at), pa.array(found.astype(np.int32)))


def _numbers(connection: np.ndarray, share: Share) -> pa.Array:
    """As requests have them: those of several generators in turn, so that none has that of another."""
    return pa.array((connection * share.of + share.place).astype(np.int32))


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
        "connection_id": _numbers(np.arange(number), rows.share),
        "began_ns": pa.array(columns["began_ns"] - epoch_ns),
        "client_port": pa.array(columns["client_port"], mask=never),
        "accepted_ns": pa.array(opened.accepted_ns - epoch_ns, mask=opened.accepted_ns == NEVER),
        "generation": pa.array(opened.generation, mask=opened.generation < 0),
        "requests": pa.array(np.bincount(used[used != NEVER], minlength=number).astype(np.int32)),
        **named,
    }
    return pa.RecordBatch.from_arrays([made[name] for name in schema.names], schema=schema)
