"""Flows and what conntrack holds, as Arrow (flows also as CSV): to be kept, looked at, and steered again.

Law: what is read is checked whole before any of it is used; the first value that is wrong is named by column and row.
Addresses are text, or those of IPv4 integers in host order and those of IPv6 16 bytes in network order; of a column all
are of one family. Whatever numbers are whole and in range are taken, also from columns of floats.
"""

import errno
import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from harness import records
from harness.scenario import ScenarioError
from kernels.layout import Conntrack, Flows
from kernels.lb import conntrack as tracking
from plane.errors import Problem
from plane.families import IPV4, Family

ADDRESSES = ("src_ip", "dst_ip")
_NUMBERS: Mapping[str, Any] = {"src_port": np.uint16, "dst_port": np.uint16, "proto": np.uint8}
# What a trace may have beside; all of them from 0 on.
MEASURES: Mapping[str, Any] = {"arrival_ns": np.int64, "duration_ns": np.int64, "bytes": np.int64}
TRACKED: Mapping[str, Any] = {"key": np.uint64, "expires_ns": np.int64, "backend": np.uint32, "endpoint": np.uint32}
_READERS = {"IPv4": ipaddress.IPv4Address, "IPv6": ipaddress.IPv6Address}
_LINE = re.compile(r"Row #(\d+):")
MAGIC = b"ARROW1\0\0"


def read_flows(path: Path, family: Family = IPV4) -> Flows:
    """The flows of an Arrow IPC file or one in CSV, in its order. Raises ScenarioError, which names column and row."""
    return read_measured(path, family)[0]


def read_measured(path: Path, family: Family = IPV4) -> tuple[Flows, dict[str, np.ndarray]]:
    """The same, and those of MEASURES that there are."""
    table = _read_csv(path) if path.suffix.lower() == ".csv" else _read(path)
    beside = {name: kind for name, kind in MEASURES.items() if name in table.column_names}
    _check_names(table, (*ADDRESSES, *_NUMBERS), path)
    addresses = {name: _addresses(table[name].combine_chunks(), name, family, path) for name in ADDRESSES}
    return Flows(**addresses, **_columns(table, _NUMBERS, path)), _columns(table, beside, path)


def write_flows(flows: Flows, path: Path) -> None:
    """Addresses of IPv4 as numbers, those of IPv6 as bytes."""
    addresses = {name: packed(getattr(flows, name)) for name in ADDRESSES}
    records.write(pa.table({**flows._asdict(), **addresses}), path)


def packed(addresses: np.ndarray) -> pa.Array:
    """A column of addresses: of numbers those numbers, of ADDRESS6 16 bytes each, in network order."""
    if addresses.dtype.names is None:
        return pa.array(addresses)
    words = np.column_stack([addresses["high"], addresses["low"]]).astype(">u8")
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(addresses), [None, pa.py_buffer(words.tobytes())])


def read_conntrack(path: Path, capacity: int) -> Conntrack:
    """A table in which ``capacity`` flows have room at half load, with what was written. Raises ScenarioError."""
    columns = _columns(_read(path), TRACKED, path)
    if not columns["key"].all():
        raise _wrong(path, "key", int(np.argmin(columns["key"])), "is 0, which no flow has")
    if (wide := columns["backend"] >= tracking.BACKENDS).any():
        row = int(np.argmax(wide))
        reason = f"is {columns['backend'][row]}; this column has whole numbers from 0 to {tracking.BACKENDS - 1}"
        raise _wrong(path, "backend", row, reason)
    _, places = np.unique(columns["key"], return_index=True)
    if len(places) < len(columns["key"]):
        row = int(np.setdiff1d(np.arange(len(columns["key"])), places)[0])
        raise _wrong(path, "key", row, "is there already: a flow has one backend")
    table = tracking.create(capacity)
    rows = zip(*(columns[name].tolist() for name in ("expires_ns", "backend", "endpoint")), strict=True)
    before_ns = columns["expires_ns"].min(initial=1) - 1  # when nothing of it had expired
    for place, (key, track) in enumerate(zip(columns["key"], rows, strict=True)):
        if not (table.entries.size and tracking.insert(table, key, track, before_ns)):
            raise _wrong(path, "key", place, f"has no room in a table for {capacity:,} flows: give it a larger one")
    return table


def write_conntrack(table: Conntrack, path: Path, now_ns: int) -> None:
    """What the table holds at a time, in the order in which it lies there; expiry to the tick of ``conntrack``."""
    records.write(pa.table(tracking.rows(table, now_ns)), path)


def _read(path: Path) -> pa.Table:
    try:
        with pa.OSFile(str(path)) as source, pa.ipc.open_file(source) as reader:
            return reader.read_all()
    except FileNotFoundError:
        raise _missing(path) from None
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
    except FileNotFoundError:
        raise _missing(path) from None
    except (OSError, pa.ArrowException) as error:
        line = _LINE.search(str(error))
        row = f"row {int(line[1]) - 2}" if line else ""  # Arrow counts lines, from 1
        raise ScenarioError([Problem(str(path), 0, "", row, f"can't be read as CSV: {error}")]) from None


def _check_names(table: pa.Table, names: Iterable[str], path: Path) -> None:
    if missing := [name for name in names if name not in table.column_names]:
        reason = f"has no column {', '.join(missing)}; there are: {', '.join(table.column_names) or 'none'}"
        raise ScenarioError([Problem(str(path), 0, "", "", reason)])


def _columns(table: pa.Table, kinds: Mapping[str, Any], path: Path) -> dict[str, np.ndarray]:
    _check_names(table, kinds, path)
    return {name: _column(table[name].combine_chunks(), name, kind, path) for name, kind in kinds.items()}


def _column(values: pa.Array, name: str, kind: Any, path: Path) -> np.ndarray:
    _refuse_nulls(values, name, path)
    if _is_text(values.type):
        raise _wrong(path, name, 0, f"is text; this column has {_range(name, kind)}")
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


def _refuse_nulls(values: pa.Array, name: str, path: Path) -> None:
    if values.null_count:
        raise _wrong(path, name, int(np.argmin(values.is_valid().to_numpy(zero_copy_only=False))), "is null")


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_dictionary(kind)


def _addresses(values: pa.Array, name: str, family: Family, path: Path) -> np.ndarray:
    _refuse_nulls(values, name, path)
    if _is_text(values.type):
        return _written(values.cast(pa.string()), name, family, path)
    if family.address.names is None:
        return _column(values, name, family.address, path)
    if values.type != pa.binary(16):
        raise _wrong(path, name, 0, f"is a {values.type}; this column has addresses of IPv6, as text or as 16 bytes")
    words = np.frombuffer(b"".join(values.to_pylist()), ">u8").astype(np.uint64)
    return words.view(family.address)


def _written(values: pa.Array, name: str, family: Family, path: Path) -> np.ndarray:
    """Addresses of text."""
    encoded = pc.dictionary_encode(values)
    cells = np.zeros(len(encoded.dictionary), family.address)
    for place, text in enumerate(encoded.dictionary.to_pylist()):
        try:
            cells[place] = family.cell(int(_READERS[family.name](text)))
        except ValueError:
            row = int(np.argmax(encoded.indices.to_numpy() == place))
            raise _wrong(path, name, row, f"is {text!r}, no {family.name} address") from None
    return cells[encoded.indices.to_numpy()]


def _range(name: str, kind: Any) -> str:
    least, most = _limits(name, kind)
    return f"whole numbers from {least} to {most}"


def _limits(name: str, kind: Any) -> tuple[int, int]:
    limits = np.iinfo(kind)
    return 0 if name in MEASURES else int(limits.min), int(limits.max)


def _missing(path: Path) -> ScenarioError:
    return ScenarioError([Problem(str(path), 0, "", "", f"can't be read: {os.strerror(errno.ENOENT)}")])


def _wrong(path: Path, column: str, row: int, reason: str) -> ScenarioError:
    return ScenarioError([Problem(str(path), 0, f"column {column}", f"row {row}", reason)])
