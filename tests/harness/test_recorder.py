"""Rows from the recorder to the Arrow file and back."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from harness import records
from harness.mix import Mix
from harness.recorder import ERRORS, NEVER, TIMEOUT, Recorder
from harness.records import LoadRows, Names, Route
from harness.workload import Workload, request_ids

EPOCH = 1_000_000
ASKED = Mix.of(Workload("x")).asked(np.arange(3))

NOT_SEEN = dict.fromkeys(records.SEEN)


def load_rows(load: str, key: int, pods: tuple[str, ...] = ("default/a",)) -> LoadRows:
    """Three requests: answered, timed out while under way, never sent."""
    record = Recorder(np.array([EPOCH, EPOCH + 10, EPOCH + 20]))
    connection = record.connect(EPOCH + 1)
    record.connected(connection, 0x7F000001, 5000)
    for row in (0, 1):
        record.sent[row] = EPOCH + 10 * row + 2
        record.connection[row] = connection
        record.attempts[row] += 1
        record.bytes_out[row] += 100
    record.first_byte[0], record.done[0] = EPOCH + 5, EPOCH + 6
    record.status[0], record.bytes_in[0] = 200, 42
    record.error[1] = record.error[2] = TIMEOUT
    pod = Names(np.array([len(pods) - 1, -1, -1], np.int32), pods)
    none = Names(np.full(3, -1, np.int32))
    generation = np.array([9, -1, -1])
    return LoadRows(load, record.recorded(), Route(none, none, pod, none, generation), key, ASKED)


def test_every_row_comes_back_from_the_file(tmp_path: Path) -> None:
    table = records.tabulate([load_rows("one", 5)], EPOCH, {"run": "r1"})
    records.write(table, tmp_path / records.FILE)
    read = records.read(tmp_path)
    assert read.schema.equals(table.schema, check_metadata=True)
    assert read.to_pylist() == [
        {
            "request_id": 5,
            "load": "one",
            "request": "GET /",
            "url_path": "/",
            "intended_ns": 0,
            "start_ns": None,
            "connected_ns": None,
            "tls_done_ns": None,
            "sent_ns": 2,
            "request_sent_ns": None,
            "first_byte_ns": 5,
            "done_ns": 6,
            "status": 200,
            "bytes_in": 42,
            "bytes_out": 100,
            "error": None,
            "route": None,
            "service": None,
            "pod": "default/a",
            "node": None,
            "generation": 9,
            **NOT_SEEN,
            "connection_id": 0,
            "warm_up": 0,
            "attempts": 1,
            "reused": 0,
        },
        {
            "request_id": 4,
            "load": "one",
            "request": "GET /",
            "url_path": "/",
            "intended_ns": 10,
            "start_ns": None,
            "connected_ns": None,
            "tls_done_ns": None,
            "sent_ns": 12,
            "request_sent_ns": None,
            "first_byte_ns": None,
            "done_ns": None,
            "status": None,
            "bytes_in": 0,
            "bytes_out": 100,
            "error": "timeout",
            "route": None,
            "service": None,
            "pod": None,
            "node": None,
            "generation": None,
            **NOT_SEEN,
            "connection_id": 0,
            "warm_up": 0,
            "attempts": 1,
            "reused": 0,
        },
        {
            "request_id": 7,
            "load": "one",
            "request": "GET /",
            "url_path": "/",
            "intended_ns": 20,
            "start_ns": None,
            "connected_ns": None,
            "tls_done_ns": None,
            "sent_ns": None,
            "request_sent_ns": None,
            "first_byte_ns": None,
            "done_ns": None,
            "status": None,
            "bytes_in": 0,
            "bytes_out": 0,
            "error": "timeout",
            "route": None,
            "service": None,
            "pod": None,
            "node": None,
            "generation": None,
            **NOT_SEEN,
            "connection_id": None,
            "warm_up": 0,
            "attempts": 0,
            "reused": 0,
        },
    ]
    assert [path.name for path in tmp_path.iterdir()] == [records.FILE]


def test_loads_with_different_names_share_one_dictionary(tmp_path: Path) -> None:
    loads = [load_rows("one", 1 << 40, ("default/b", "default/c")), load_rows("two", 2 << 40, ("default/a",))]
    path = tmp_path / "r.arrow"
    records.write(records.tabulate(loads, EPOCH, {}), path)
    read = records.read(path)
    assert read["load"].to_pylist() == ["one"] * 3 + ["two"] * 3
    assert read["pod"].to_pylist() == ["default/c", None, None, "default/a", None, None]
    assert read["request_id"].to_pylist() == [*request_ids(1 << 40, 3), *request_ids(2 << 40, 3)]


def test_the_schema_says_units_meanings_and_where_it_came_from(tmp_path: Path) -> None:
    path = tmp_path / "r.arrow"
    records.write(records.tabulate([load_rows("one", 0)], EPOCH, {"run": "r1", "commit": "c0ffee"}), path)
    read = records.read(path)
    assert records.provenance_of(read) == {"schema": "requests/1", "run": "r1", "commit": "c0ffee"}
    for field in read.schema:
        assert field.metadata[b"unit"] == (
            b"ns" if field.name.endswith("_ns") else b"By" if field.name.startswith("bytes") else b"1"
        )
        assert field.metadata[b"description"]


def test_every_column_and_error_is_in_the_documentation() -> None:
    page = (Path(__file__).parents[2] / "docs" / "records.md").read_text()
    missing = [name for name in [*records.SCHEMA.names, *ERRORS[1:]] if f"`{name}`" not in page]
    assert missing == []


def test_no_rows_at_all_are_a_file_too(tmp_path: Path) -> None:
    record = Recorder(np.zeros(0, np.int64))
    rows = LoadRows("one", record.recorded(), Route.unknown(0), 0)
    path = tmp_path / "r.arrow"
    records.write(records.tabulate([rows], EPOCH, {}), path)
    assert records.read(path).num_rows == 0


def test_a_closed_loop_grows_its_columns_and_keeps_what_is_there() -> None:
    record = Recorder()
    for number in range(50_000):
        row = record.schedule(number)
        record.done[row] = 2 * number
        assert record.connect(number) == number
    taken = record.recorded()
    assert (taken.requests["intended_ns"] == np.arange(50_000)).all()
    assert (taken.requests["done_ns"] == 2 * np.arange(50_000)).all()
    assert (taken.requests["sent_ns"] == NEVER).all()
    assert (taken.connections["began_ns"] == np.arange(50_000)).all()


def test_a_row_stays_small_on_disk(tmp_path: Path) -> None:
    """At most 80 bytes a request, with times as irregular as real ones."""
    number = 100_000
    random = np.random.default_rng(1)
    record = Recorder(np.arange(number) * 2_000_000)
    columns = record.recorded().requests
    columns["sent_ns"][:] = columns["intended_ns"] + random.integers(1_000, 100_000, number)
    columns["first_byte_ns"][:] = columns["sent_ns"] + random.integers(100_000, 1_000_000, number)
    columns["done_ns"][:] = columns["first_byte_ns"] + random.integers(1_000, 100_000, number)
    columns["connection"][:] = random.integers(0, 50, number)
    columns["status"][:] = 200
    columns["attempts"][:] = 1
    columns["bytes_out"][:] = 100
    pod = Names(random.integers(0, 3, number).astype(np.int32), ("a", "b", "c"))
    rows = LoadRows("one", record.recorded(), Route(pod, pod, pod, pod, np.ones(number, np.int64)), 0)
    path = tmp_path / "r.arrow"
    records.write(records.tabulate([rows], 0, {}), path)
    assert path.stat().st_size <= 80 * number


def test_what_is_no_arrow_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.arrow"
    path.write_bytes(b"nothing of the kind, but long enough to be looked at")
    with pytest.raises(pa.ArrowInvalid):
        records.read(path)
