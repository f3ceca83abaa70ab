"""The file a run leaves: one row for each scheduled request, documented, with where it came from in its metadata.

Law: the file explains itself. Units are in the metadata of the fields, provenance in the metadata of the schema, names
are dictionaries that are complete before the first row is written (the IPC file format cannot replace one). Nothing is
computed here but differences to the run's epoch; whatever judges the rows is in ``report``. ``docs/records.md`` is the
same table for people. ``VERSION`` changes when a column changes its meaning, not when one is added.

Until that file is there, the rows are in *journals*, one a load (``harness.journal``): a run that was killed is read
from them. So it is with the files beside it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness import workload
from harness.recorder import ERRORS, NEVER, Recorded
from harness.workload import WHOLE, Share
from plane.ingress.records import PATHS

VERSION = "requests/1"
PREFIX = "trafficplane."
FILE = "requests.arrow"
_JOURNALS = "requests.*.arrows"

_NAME = pa.dictionary(pa.int32(), pa.string())
_OF_ROUTE = ("route", "service", "pod", "node")
_OF_ASKED = ("request", "url_path")


# What OpenTelemetry's semantic conventions (1.44) call it, attribute or metric: key ``otel`` of a field's metadata.
OTEL = {
    "request_id": "http.request.header.x-request-id",
    "status": "http.response.status_code",
    "bytes_in": "http.response.size",
    "bytes_out": "http.request.size",
    "error": "error.type",
    "route": "http.route",
    "service": "k8s.service.name",
    "pod": "k8s.pod.name",
    "node": "k8s.node.name",
    "service_ns": "http.server.request.duration",
}


def column(name: str, kind: pa.DataType, unit: str, meaning: str, *, nullable: bool = False, **more: str) -> pa.Field:
    """A column that explains itself: ``unit``, ``description`` and what ``more`` is said are its metadata."""
    return pa.field(name, kind, nullable=nullable, metadata={"unit": unit, "description": meaning, **more})


def _column(name: str, kind: pa.DataType, unit: str, meaning: str, *, nullable: bool = False) -> pa.Field:
    more = {"otel": OTEL[name]} if name in OTEL else {}
    return column(name, kind, unit, meaning, nullable=nullable, **more)


def _seen(name: str, meaning: str) -> pa.Field:
    """A time that the plane noted, null where it has not."""
    return _column(name, pa.int64(), "ns", meaning, nullable=True)


# Units are UCUM's, as in OpenTelemetry: ns, By (bytes), 1 (a number or a name).
SCHEMA = pa.schema(
    [
        _column("request_id", pa.uint64(), "1", "sent as X-Request-ID in 16 hex digits; unique in the run"),
        _column("load", _NAME, "1", "name of the load"),
        _column("request", _NAME, "1", "which of the load's requests: its name, else method and path", nullable=True),
        _column("url_path", _NAME, "1", "path and query that were asked for", nullable=True),
        _column("intended_ns", pa.int64(), "ns", "when the request was due"),
        _column("start_ns", pa.int64(), "ns", "when it had a connection, or one was dialled for it", nullable=True),
        _column("connected_ns", pa.int64(), "ns", "when the connection dialled for it was there", nullable=True),
        _column("tls_done_ns", pa.int64(), "ns", "when that connection was secured, by TLS", nullable=True),
        _column("sent_ns", pa.int64(), "ns", "when it was last handed to the kernel; null: never", nullable=True),
        _column("request_sent_ns", pa.int64(), "ns", "when the kernel had taken all of it", nullable=True),
        _column("first_byte_ns", pa.int64(), "ns", "when the first byte of the answer was read", nullable=True),
        _column("done_ns", pa.int64(), "ns", "when the answer was there in full; null: never", nullable=True),
        _column("status", pa.uint16(), "1", "HTTP status of the answer", nullable=True),
        _column("bytes_in", pa.int64(), "By", "bytes of the answer, head and body, as far as they came"),
        _column("bytes_out", pa.int64(), "By", "bytes of the request, head and body, over all attempts"),
        _column("error", _NAME, "1", "why there is no whole answer; null: there is one", nullable=True),
        _column("route", _NAME, "1", "Ingress, rule and path that matched", nullable=True),
        _column("service", _NAME, "1", "namespace/name of the Service", nullable=True),
        _column("pod", _NAME, "1", "namespace/name of the pod that was chosen", nullable=True),
        _column("node", _NAME, "1", "node of that pod", nullable=True),
        _column("generation", pa.int64(), "1", "generation of the tables that chose the pod", nullable=True),
        _column("path", _NAME, "1", "how the ingress took it: fast is compiled code, slow asyncio", nullable=True),
        _column("retries", pa.uint8(), "1", "tries of the ingress after the first", nullable=True),
        _column("upstream_reused", pa.uint8(), "1", "1: it had asked the pod by that connection before", nullable=True),
        _seen("ingress_received_ns", "when the ingress had its head"),
        _seen("ingress_routed_ns", "when the ingress knew where it goes"),
        _seen("ingress_picked_ns", "when the ingress had chosen the endpoint; of its last try"),
        _seen("upstream_connected_ns", "when the ingress had a connection to it; of its last try"),
        _seen("upstream_first_byte_ns", "when the ingress read the first byte of the pod's answer"),
        _seen("ingress_done_ns", "when the ingress had handed the last byte of the answer to the kernel"),
        _seen("pod_received_ns", "when the pod had its head"),
        _column("service_ns", pa.int64(), "ns", "how long the pod took, waiting in it included", nullable=True),
        _column("connection_id", pa.int32(), "1", "number of the connection within its load", nullable=True),
        _column("warm_up", pa.uint8(), "1", "1: it was due while the load warmed up; no summary counts it"),
        _column("attempts", pa.uint8(), "1", "how often the request was sent"),
        _column("reused", pa.uint8(), "1", "1: its connection had carried another request before"),
    ]
)


# What the plane has seen of a request: the ingress, then the pod.
SEEN = tuple(SCHEMA.names[SCHEMA.get_field_index("path") : SCHEMA.get_field_index("service_ns") + 1])


@dataclass(frozen=True)
class Names:
    """A column of names: ``texts``, and for each row the index int32 of its text, negative where there is none."""

    index: np.ndarray
    texts: Sequence[str] = ()


@dataclass(frozen=True)
class Route:
    """Which way each request of a load went through the plane; ``generation`` int64, negative where unknown.

    ``seen``: columns of SEEN as far as there are any, int64 and NEVER where nothing is known; times are absolute.
    """

    route: Names
    service: Names
    pod: Names
    node: Names
    generation: np.ndarray
    seen: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def unknown(cls, rows: int) -> "Route":
        none = Names(np.full(rows, -1, np.int32))
        return cls(none, none, none, none, np.full(rows, -1, np.int64))


@dataclass(frozen=True)
class Asked:
    """What each request of a load asked for."""

    request: Names
    url_path: Names

    @classmethod
    def unknown(cls, rows: int) -> "Asked":
        none = Names(np.full(rows, -1, np.int32))
        return cls(none, none)


@dataclass(frozen=True)
class LoadRows:
    """All there is to write of one load; ``asked`` None: nobody knows any more. Until ``warm_ns`` it warmed up.

    ``share``: it is what one of the load's generators has found.
    """

    load: str
    recorded: Recorded
    route: Route
    id_key: int
    asked: Asked | None = None
    warm_ns: int = 0
    share: Share = WHOLE


def tabulate(loads: Sequence[LoadRows], epoch_ns: int, provenance: Mapping[str, str]) -> pa.Table:
    """The rows of all loads under ``SCHEMA``, times counted from the epoch; one chunk for each load, in their order.

    What generators of one load found, one after the other in ``loads``, is one chunk, in the order in which it was due.
    """
    schema = schema_of(provenance)
    every = [rows.asked or Asked.unknown(len(rows.recorded.requests["intended_ns"])) for rows in loads]
    texts = {
        name: sorted({text for part in parts for text in getattr(part, name).texts})
        for names, parts in ((_OF_ROUTE, [rows.route for rows in loads]), (_OF_ASKED, every))
        for name in names
    }
    dictionaries = dictionaries_of([rows.load for rows in loads], texts)
    batches: dict[str, list[pa.RecordBatch]] = {}
    for rows, asked in zip(loads, every, strict=True):
        requests = rows.recorded.requests
        ids = workload.request_ids(rows.id_key, len(requests["intended_ns"]))
        made = batch(
            schema, rows.load, ids, requests, asked, rows.route, epoch_ns, dictionaries, rows.warm_ns, rows.share
        )
        batches.setdefault(rows.load, []).append(made)
    return pa.Table.from_batches([_in_order(parts) for parts in batches.values()], schema)


def _in_order(parts: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """What generators of one load found, as one."""
    if len(parts) == 1:
        return parts[0]
    whole = pa.concat_batches(parts)
    return whole.take(pa.array(np.lexsort((whole["request_id"].to_numpy(), whole["intended_ns"].to_numpy()))))


def with_rescued(table: pa.Table, journals: Sequence[Path], loads: Sequence[str]) -> pa.Table:
    """The rows of a run with those that lost generators have left in their journals, in their places.

    journals  those that are not there are on machines that are lost with them
    loads     the names of all loads, in their order
    """
    there = [path for path in journals if path.exists()]
    left = [part.replace_schema_metadata(table.schema.metadata) for part in map(read_journal, there) if part]
    if not left:
        return table
    whole = pa.concat_tables([table, *left]).unify_dictionaries().combine_chunks()
    place = np.array([loads.index(load) for load in whole["load"].to_pylist()], np.int64)
    order = np.lexsort((whole["request_id"].to_numpy(), whole["intended_ns"].to_numpy(), place))
    return whole.take(pa.array(order)).combine_chunks()


def schema_of(provenance: Mapping[str, str]) -> pa.Schema:
    return SCHEMA.with_metadata({PREFIX + key: text for key, text in {"schema": VERSION, **provenance}.items()})


def dictionaries_of(loads: Sequence[str], texts: Mapping[str, Sequence[str]]) -> dict[str, pa.Array]:
    """The names of each column of names, for all rows of a run."""
    every = {"load": loads, "error": ERRORS[1:], "path": PATHS, **texts}
    return {name: pa.array(values, pa.string()) for name, values in every.items()}


def write(table: pa.Table, path: Path) -> None:
    """Writes an Arrow IPC file, zstd; it has its name once it is whole."""
    unfinished = path.with_name(path.name + ".part")
    with (
        pa.OSFile(str(unfinished), "wb") as sink,
        pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer,
    ):
        writer.write_table(table)
    os.replace(unfinished, path)


def read(path: Path) -> pa.Table:
    """The rows of a run, from its file or from the folder that holds it. Raises OSError and pa.ArrowInvalid.

    Those of a run that was killed are from its journals, in the same order; its metadata says that it was interrupted.
    """
    if path.is_dir() and not (path / FILE).exists() and (journals := _journals(path)):
        return _rescued(journals)
    with pa.memory_map(str(path / FILE if path.is_dir() else path)) as source, pa.ipc.open_file(source) as reader:
        return reader.read_all()


def holds_run(folder: Path) -> bool:
    """Whether ``read`` finds the rows of a run there."""
    return (folder / FILE).exists() or bool(_journals(folder))


def journal_of(folder: Path, load: int) -> Path:
    """The journal of a load, by its number in the run."""
    return folder / _JOURNALS.replace("*", f"{load:03}")


def stream_of(file: Path) -> Path:
    """The journal of a file that lies beside a run's rows."""
    return file.with_suffix(".arrows")


def read_beside(file: Path) -> pa.Table | None:
    """The rows of a file that lies beside a run's, or of its journal where that is all there is; None: nothing is.

    Raises OSError and pa.ArrowInvalid.
    """
    if file.exists():
        return read(file)
    found = read_journal(stream_of(file)) if stream_of(file).exists() else None
    return found and found.unify_dictionaries()


def forget_journals(folder: Path) -> None:
    """Takes a run's journals away: its files are there."""
    for path in folder.glob("*.arrows"):
        path.unlink()


def provenance_of(table: pa.Table) -> dict[str, str]:
    """The metadata of a run's schema, without the prefix."""
    metadata = table.schema.metadata or {}
    return {
        key.decode().removeprefix(PREFIX): text.decode()
        for key, text in metadata.items()
        if key.startswith(PREFIX.encode())
    }


def settled(rows: pa.Table) -> pa.Table:
    """Those that were not due while their load warmed up; all of a file of before there was that."""
    return rows.filter(pc.equal(rows["warm_up"], 0)) if "warm_up" in rows.column_names else rows


def measured(load: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a load (``loads`` in the metadata) as from the end of its warm-up on."""
    warm_up_ns = load.get("warm_up_ns", 0)
    lasts_ns = max(load["duration_ns"] - warm_up_ns, 1)
    return {**load, "start_ns": load["start_ns"] + warm_up_ns, "duration_ns": lasts_ns}


def batch(
    schema: pa.Schema,
    load: str,
    ids: np.ndarray,
    requests: Mapping[str, np.ndarray],
    asked: Asked,
    route: Route,
    epoch_ns: int,
    dictionaries: Mapping[str, pa.Array],
    warm_ns: int = 0,
    share: Share = WHOLE,
) -> pa.RecordBatch:
    """Rows of one load under ``SCHEMA``: ``ids`` uint64[n], ``requests`` columns of ``recorder.Recorded``, as long.

    What was due before ``warm_ns`` of the monotonic clock was warm-up. Connections of a load's several generators
    have numbers in turn, so that none has that of another.
    """
    connection = requests["connection"] * share.of + share.place
    error = requests["error"].astype(np.int32) - 1
    columns = {
        "request_id": pa.array(ids),
        "load": names_of(Names(np.zeros(len(ids), np.int32), [load]), dictionaries["load"]),
        "status": _unless(requests["status"], requests["status"] == 0),
        "bytes_in": pa.array(requests["bytes_in"]),
        "bytes_out": pa.array(requests["bytes_out"]),
        "error": names_of(Names(error, ERRORS[1:]), dictionaries["error"]),
        "generation": _unless(route.generation, route.generation < 0),
        "connection_id": _unless(connection.astype(np.int32), requests["connection"] == NEVER),
        "warm_up": pa.array((requests["intended_ns"] < warm_ns).astype(np.uint8)),
        "attempts": pa.array(requests["attempts"]),
        "reused": pa.array(requests["reused"]),
    }
    nothing = np.full(len(ids), NEVER, np.int64)
    seen = {name: route.seen.get(name, nothing) for name in SEEN}
    columns["path"] = names_of(Names(seen["path"], PATHS), dictionaries["path"])
    for name in ("retries", "upstream_reused"):
        columns[name] = _unless(np.maximum(seen[name], 0).astype(np.uint8), seen[name] == NEVER)
    columns["service_ns"] = _unless(seen["service_ns"], seen["service_ns"] == NEVER)
    for name in (name for name in schema.names if name.endswith("_ns") and name not in columns):
        times = seen[name] if name in seen else requests[name]
        columns[name] = _unless(times - epoch_ns, times == NEVER)
    for part, names in ((route, _OF_ROUTE), (asked, _OF_ASKED)):
        columns |= {name: names_of(getattr(part, name), dictionaries[name]) for name in names}
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _journals(folder: Path) -> list[Path]:
    return sorted(folder.glob(_JOURNALS))


def _rescued(journals: Sequence[Path]) -> pa.Table:
    """The rows of journals, by load and within a load by when they were due. Raises pa.ArrowInvalid where none is."""
    tables: dict[str, list[pa.Table]] = {}
    for path in journals:
        if (table := read_journal(path)) is not None:
            load = table["load"][0].as_py() if table.num_rows else str(path)
            tables.setdefault(load, []).append(table)
    if not tables:
        raise pa.ArrowInvalid(f"the run was killed before it wrote anything: {journals[0]} and the like have no schema")
    order = [("intended_ns", "ascending"), ("request_id", "ascending")]
    return pa.concat_tables([pa.concat_tables(parts).sort_by(order) for parts in tables.values()])


def read_journal(path: Path) -> pa.Table | None:
    """The rows of a journal in the order in which they ended; None: it was killed before it had said what they are."""
    with pa.OSFile(str(path)) as source:
        try:
            stream = pa.ipc.open_stream(source)
        except pa.ArrowInvalid:
            return None
        return pa.Table.from_batches(_whole(stream), stream.schema)


def _whole(stream: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """The batches of a stream up to its end, or to one whose end is torn off."""
    while True:
        try:
            yield stream.read_next_batch()
        except (StopIteration, pa.ArrowInvalid, OSError):
            return


def _unless(values: np.ndarray, null: np.ndarray) -> pa.Array:
    return pa.array(values, mask=null)


def names_of(names: Names, dictionary: pa.Array) -> pa.DictionaryArray:
    """The column over the run's dictionary instead of its own texts."""
    place = {text: index for index, text in enumerate(dictionary.to_pylist())}
    # The last item is where an index of -1 leads.
    translated = np.array([*(place[text] for text in names.texts), -1], np.int32)[names.index]
    return pa.DictionaryArray.from_arrays(_unless(translated, translated < 0), dictionary)
