"""A hundred thousand rows of a run to a file and back: the Arrow file that a run leaves, beside the same as CSV.

Rows are those of the kept run, over and over, with times that move on: real ones, so that they compress as such do.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import csv

from harness import records

ROWS = 100_000
KEPT = Path(__file__).parents[2] / "results" / "reference" / "rr"
TIMES = [field.name for field in records.SCHEMA if field.name.endswith("_ns") and field.name != "service_ns"]
SPAN_NS = 60_000_000_000


@pytest.fixture(scope="module")
def table() -> pa.Table:
    kept = records.read(KEPT)
    copies = []
    for number in range(ROWS // kept.num_rows + 1):
        later = pa.scalar(number * SPAN_NS, pa.int64())
        columns = {name: pc.add(kept[name], later) for name in TIMES if name in kept.schema.names}
        columns["request_id"] = pa.array(kept["request_id"].to_numpy() + np.uint64(number << 32))
        names = kept.schema.names
        copies.append(pa.table([columns.get(name, kept[name]) for name in names], schema=kept.schema))
    return pa.concat_tables(copies).slice(0, ROWS).unify_dictionaries().combine_chunks()


def _plain(table: pa.Table) -> pa.Table:
    return pa.table({name: _text(table[name]) for name in table.schema.names})


def _text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


WRITE: dict[str, Callable[[pa.Table, Path], None]] = {
    "arrow": records.write,
    "csv": lambda table, path: csv.write_csv(_plain(table), path),
}
READ: dict[str, Callable[[Path], pa.Table]] = {"arrow": records.read, "csv": csv.read_csv}


@pytest.mark.benchmark(group="records: 100,000 rows to a file")
@pytest.mark.parametrize("form", WRITE)
def test_writing(benchmark: Any, tmp_path: Path, table: pa.Table, form: str) -> None:
    path = tmp_path / records.FILE
    benchmark(WRITE[form], table, path)
    benchmark.extra_info.update(bytes_a_row=round(path.stat().st_size / ROWS, 1))


@pytest.mark.benchmark(group="records: 100,000 rows from a file")
@pytest.mark.parametrize("form", READ)
def test_reading(benchmark: Any, tmp_path: Path, table: pa.Table, form: str) -> None:
    path = tmp_path / records.FILE
    WRITE[form](table, path)
    found = benchmark(READ[form], path)
    assert found.num_rows == ROWS
    assert found["done_ns"].to_pylist()[::997] == table["done_ns"].to_pylist()[::997]
