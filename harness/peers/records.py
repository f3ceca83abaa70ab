"""The file a comparison leaves: one row for each subject, workload and round, documented in ``docs/peers.md``.

Law: as with ``harness.records``: the file explains itself, nothing in it is computed but differences of clocks, and
whatever judges the rows reads them from it. ``VERSION`` changes when a column changes its meaning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa

from harness.records import PREFIX, column

VERSION = "peers/1"
FILE = "measures.arrow"


@dataclass(frozen=True)
class Row:
    """One measurement. ``error`` says why there is none; the columns that follow from it are None then."""

    subject: str
    workload: str
    round: int
    place: int
    connections: int
    unit: str
    answer_bytes: int
    answered: int | None = None
    duration_ns: int | None = None
    cpu_ns: int | None = None
    core_ns: int | None = None
    p50_ns: int | None = None
    p99_ns: int | None = None
    max_ns: int | None = None
    error: str | None = None


SCHEMA = pa.schema(
    [
        column("subject", pa.string(), "1", "what carried it"),
        column("workload", pa.string(), "1", "what was asked of it"),
        column("round", pa.int32(), "1", "from 1; each has every subject once"),
        column("place", pa.int32(), "1", "in the order of the round, from 1"),
        column("connections", pa.int32(), "1", "clients, each with one request under way"),
        column("unit", pa.string(), "1", "what is counted as answered: requests, connections, datagrams or bytes"),
        column("answer_bytes", pa.int64(), "By", "of each answer"),
        column("answered", pa.int64(), "1", "whole, right answers; null: an error", nullable=True),
        column("duration_ns", pa.int64(), "ns", "how long was measured", nullable=True),
        column("cpu_ns", pa.int64(), "ns", "CPU time of the subject's processes; null: it has none", nullable=True),
        column("core_ns", pa.int64(), "ns", "how long the subject's core was not idle", nullable=True),
        column("p50_ns", pa.int64(), "ns", "latency: half of the answers took no longer", nullable=True),
        column("p99_ns", pa.int64(), "ns", "latency: 99 % took no longer", nullable=True),
        column("max_ns", pa.int64(), "ns", "latency: none took longer", nullable=True),
        column("error", pa.string(), "1", "why there is no number", nullable=True),
    ]
)


def tabulate(rows: Sequence[Row], facts: Mapping[str, str]) -> pa.Table:
    """The rows under ``SCHEMA``; ``facts`` go into its metadata."""
    schema = SCHEMA.with_metadata({PREFIX + key: text for key, text in {"schema": VERSION, **facts}.items()})
    return pa.Table.from_pylist([asdict(row) for row in rows], schema)
