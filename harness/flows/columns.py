"""Flows and what conntrack holds, as Arrow (flows also as CSV): to be kept, looked at, and steered again.

Law: what is read is checked whole before any of it is used; the first value that is wrong is named by column and row.
Addresses are integers in host order or dotted IPv4 text, and whatever numbers are whole and in range are taken, also
from columns of floats.
"""

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from harness import records
from harness.scenario import ScenarioError
from kernels.layout import TRACK, Conntrack, Flows
from kernels.lb import conntrack as tracking
from plane.errors import Problem

FLOWS: Mapping[str, Any] = {
    "src_ip": np.uint32,
    "dst_ip": np.uint32,
    "src_port": np.uint16,
    "dst_port": np.uint16,
    "proto": np.uint8,
}
# What a trace may have beside; all of them from 0 on.
MEASURES: Mapping[str, Any] = {"arrival_ns": np.int64, "duration_ns": np.int64, "bytes": np.int64}
TRACKED: Mapping[str, Any] = {"key": np.uint64, "expires_ns": np.int64, "backend": np.uint32, "endpoint": np.uint32}
ADDRESSES = ("src_ip", "dst_ip")
_LINE = re.compile(r"Row #(\d+):")
MAGIC = b"ARROW1\0\0"


def read_flows(path: Path) -> Flows:
    """The flows of an Arrow IPC file or one in CSV, in its order. Raises ScenarioError, which names column and row."""
    return read_measured(path)[0]


def read_measured(path: Path) -> tuple[Flows, dict[str, np.ndarray]]:
    """The same, and those of MEASURES that there are."""
    table = _read_csv(path) if path.suffix.lower() == ".csv" else _read(path)
    beside = {name: kind for name, kind in MEASURES.items() if name in table.column_names}
    return Flows(**_columns(table, FLOWS, path)), _columns(table, beside, path)


def write_flows(flows: Flows, path: Path) -> None:
    records.write(pa.table(flows._asdict()), path)


def read_conntrack(path: Path, capacity: int) -> Conntrack:
    """A table in which ``capacity`` flows have room at half load, with what was written. Raises ScenarioError."""
    columns = _columns(_read(path), TRACKED, path)
    if not columns["key"].all():
        raise _wrong(path, "key", int(np.argmin(columns["key"])), "is 0, which no flow has")
    _, places = np.unique(columns["key"], return_index=True)
    if len(places) < len(columns["key"]):
        row = int(np.setdiff1d(np.arange(len(columns["key"])), places)[0])
        raise _wrong(path, "key", row, "is there already: a flow has one backend")
    table = tracking.create(capacity)
    rows = zip(*(columns[name].tolist() for name in ("expires_ns", "backend", "endpoint")), strict=True)
    for place, (key, track) in enumerate(zip(columns["key"], rows, strict=True)):
        if not (table.entries.size and tracking.insert(table, key, track, np.int64(-(1 << 63)))):
            raise _wrong(path, "key", place, f"has no room in a table for {capacity:,} flows: give it a larger one")
    return table


def write_conntrack(table: Conntrack, path: Path) -> None:
    """What the table holds, in the order in which it lies there."""
    held = table.entries[table.entries["key"] != 0]
    records.write(pa.table({name: np.ascontiguousarray(held[name]) for name in TRACK.names or ()}), path)


def _read(path: Path) -> pa.Table:
    try:
        with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
            return reader.read_all()
    except (OSError, pa.ArrowException) as error:
        reason = f"can't be read as an Arrow IPC file: {error}; is it whole? {_whole_rows(path):,} rows of it are"
        raise ScenarioError([Problem(str(path), 0, "", "", reason)]) from None


def _whole_rows(path: Path) -> int:
    """How many rows of a file that lost its end can still be read: it is a stream, between a word and a table."""
    rows = 0
    try:
        with pa.OSFile(str(path)) as source:
            source.seek(len(MAGIC))
            for batch in pa.ipc.open_stream(source):
                rows += batch.num_rows
    except (OSError, pa.ArrowException):
        pass
    return rows


def _read_csv(path: Path) -> pa.Table:
    """A file whose first line names its columns; the first of the rows below is row 0."""
    try:
        return pa.csv.read_csv(str(path), pa.csv.ReadOptions(use_threads=False))  # with threads no error names its row
    except (OSError, pa.ArrowException) as error:
        line = _LINE.search(str(error))
        row = f"row {int(line[1]) - 2}" if line else ""  # Arrow counts lines, from 1
        raise ScenarioError([Problem(str(path), 0, "", row, f"can't be read as CSV: {error}")]) from None


def _columns(table: pa.Table, kinds: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    if missing := [name for name in kinds if name not in table.column_names]:
        reason = f"has no column {', '.join(missing)}; there are: {', '.join(table.column_names) or 'none'}"
        raise ScenarioError([Problem(str(path), 0, "", "", reason)])
    return {name: _column(table[name].combine_chunks(), name, kind, path) for name, kind in kinds.items()}


def _column(values: pa.Array, name: str, kind: Any, path: Path) -> np.ndarray:
    if values.null_count:
        raise _wrong(path, name, int(np.argmin(values.is_valid().to_numpy(zero_copy_only=False))), "is null")
    if pa.types.is_string(values.type) or pa.types.is_dictionary(values.type):
        if name not in ADDRESSES:
            raise _wrong(path, name, 0, f"is text; this column has {_range(name, kind)}")
        return _addresses(values.cast(pa.string()), name, path)
    if not (pa.types.is_integer(values.type) or pa.types.is_floating(values.type)):
        raise _wrong(path, name, 0, f"is a {values.type}; this column has {_range(name, kind)}")
    found = values.to_numpy(zero_copy_only=False)
    if pa.types.is_floating(values.type):
        _refuse(np.isnan(found), found, path, name, kind)
        _refuse(found != np.trunc(found), found, path, name, kind)
    least, most = _limits(name, kind)
    # Of a float the largest integer may be rounded up to one that is too large.
    too_large = found >= float(most) + 1 if pa.types.is_floating(values.type) else found > most
    _refuse((found < least) | too_large, found, path, name, kind)
    return np.require(found.astype(kind), requirements=["C", "A", "W"])


def _refuse(wrong: np.ndarray, found: np.ndarray, path: Path, name: str, kind: Any) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        raise _wrong(path, name, row, f"is {found[row]}; this column has {_range(name, kind)}")


def _addresses(values: pa.Array, name: str, path: Path) -> np.ndarray:
    encoded = pc.dictionary_encode(values)
    numbers = np.zeros(len(encoded.dictionary), np.uint32)
    for place, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            numbers[place] = int(ipaddress.IPv4Address(text))
        except ValueError:
            row = int(np.argmax(encoded.indices.to_numpy() == place))
            raise _wrong(path, name, row, f"is {text!r}, no IPv4 address") from None
    return numbers[encoded.indices.to_numpy()]


def _range(name: str, kind: Any) -> str:
    least, most = _limits(name, kind)
    return f"whole numbers from {least} to {most}"


def _limits(name: str, kind: Any) -> tuple[int, int]:
    limits = np.iinfo(kind)
    return 0 if name in MEASURES else int(limits.min), int(limits.max)


def _wrong(path: Path, column: str, row: int, reason: str) -> ScenarioError:
    return ScenarioError([Problem(str(path), 0, f"column {column}", f"row {row}", reason)])
