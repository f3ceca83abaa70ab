"""Flows and conntrack as Arrow files: what was written comes back, and what is wrong is named by column and row."""

import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import records
from harness.flows.columns import read_conntrack, read_flows, write_conntrack, write_flows
from harness.scenario import ScenarioError
from kernels.lb import conntrack as tracking
from plane.families import IPV6
from tests.batches import random_flows

GOOD: dict[str, list[Any]] = {
    "src_ip": [1, 0xFFFFFFFF],
    "dst_ip": ["127.96.1.1", "10.0.0.1"],
    "src_port": [1024.0, 65535.0],
    "dst_port": [80, 443],
    "proto": [6, 17],
}


def refused(path: Path) -> str:
    with pytest.raises(ScenarioError) as caught:
        read_flows(path)
    return str(caught.value)


def test_flows_come_back_as_they_were(tmp_path: Path) -> None:
    flows = random_flows(1000)
    write_flows(flows, tmp_path / "flows.arrow")
    again = read_flows(tmp_path / "flows.arrow")
    assert all(one.dtype == other.dtype and np.array_equal(one, other) for one, other in zip(flows, again, strict=True))


def test_flows_of_ipv6_come_back_as_they_were_and_text_is_taken(tmp_path: Path) -> None:
    flows = random_flows(100, family=IPV6)
    write_flows(flows, tmp_path / "flows.arrow")
    assert pa.ipc.open_file(tmp_path / "flows.arrow").schema.field("src_ip").type == pa.binary(16)
    again = read_flows(tmp_path / "flows.arrow", IPV6)
    assert all(one.dtype == other.dtype and np.array_equal(one, other) for one, other in zip(flows, again, strict=True))
    text = {**GOOD, "src_ip": ["::1", "2001:db8::ff"], "dst_ip": ["fd00::1", "fe80::2%eth0"]}
    records.write(pa.table(text), tmp_path / "text.arrow")
    found = read_flows(tmp_path / "text.arrow", IPV6)
    assert found.src_ip.tolist() == [(0, 1), (0x20010DB8 << 32, 0xFF)]
    assert found.dst_ip.tolist() == [(0xFD00 << 48, 1), (0xFE80 << 48, 2)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"src_ip": ["::1", "10.0.0.1"]}, "column src_ip: row 1: is '10.0.0.1', no IPv6 address"),
        ({"dst_ip": ["::1", None]}, "column dst_ip: row 1: is null"),
        ({"dst_ip": [1, 2]}, "column dst_ip: row 0: is a int64; this column has addresses of IPv6, as text or as 16"),
    ],
)
def test_what_is_wrong_with_a_column_of_ipv6_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    good = {**GOOD, "src_ip": ["::1", "::2"], "dst_ip": ["::1", "::2"]}
    records.write(pa.table({**good, **change}), tmp_path / "flows.arrow")
    with pytest.raises(ScenarioError, match=re.escape(words)):
        read_flows(tmp_path / "flows.arrow", IPV6)


def test_text_and_floats_are_taken_where_they_mean_whole_numbers(tmp_path: Path) -> None:
    records.write(pa.table(GOOD), tmp_path / "flows.arrow")
    found = read_flows(tmp_path / "flows.arrow")
    assert found.src_port.tolist() == [1024, 65535]
    assert found.dst_ip.tolist() == [0x7F600101, 0x0A000001]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"src_port": [1.0, float("nan")]},
            "column src_port: row 1: is nan; this column has whole numbers from 0 to 65535",
        ),
        ({"src_port": [0.5, 1.0]}, "column src_port: row 0: is 0.5"),
        ({"dst_port": [80, 65536]}, "column dst_port: row 1: is 65536"),
        ({"dst_port": [-1, 80]}, "column dst_port: row 0: is -1"),
        ({"src_ip": [1.0, 4294967296.0]}, "column src_ip: row 1: is 4294967296.0"),
        ({"src_ip": [1.0, float("inf")]}, "column src_ip: row 1: is inf"),
        ({"dst_ip": ["127.96.1.1", "127.96.1"]}, "column dst_ip: row 1: is '127.96.1', no IPv4 address"),
        ({"proto": [6, None]}, "column proto: row 1: is null"),
        ({"proto": ["TCP", "UDP"]}, "column proto: row 0: is text; this column has whole numbers from 0 to 255"),
        ({"proto": [True, False]}, "column proto: row 0: is a bool"),
    ],
)
def test_a_wrong_value_is_named_by_column_and_row(tmp_path: Path, change: dict[str, list[Any]], words: str) -> None:
    records.write(pa.table({**GOOD, **change}), tmp_path / "flows.arrow")
    assert words in refused(tmp_path / "flows.arrow")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    records.write(pa.table({"src_ip": [1], "proto": [6]}), tmp_path / "flows.arrow")
    words = "has no column dst_ip, src_port, dst_port; there are: src_ip, proto"
    assert words in refused(tmp_path / "flows.arrow")


HEAD = "dst_ip,src_ip,src_port,dst_port,proto,note\n"


def test_flows_in_csv_are_those_in_arrow(tmp_path: Path) -> None:
    (tmp_path / "flows.csv").write_text(HEAD + "127.96.1.1,1,1024,80,6,a\n10.0.0.1,4294967295,65535,443,17,\n")
    records.write(pa.table(GOOD), tmp_path / "flows.arrow")
    both = (read_flows(tmp_path / f"flows.{kind}") for kind in ("csv", "arrow"))
    assert all(np.array_equal(one, other) for one, other in zip(*both, strict=True))


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("1.2.3.4,1,1024,80,6,\n1.2.3.4,1,70000,80,6,\n", "column src_port: row 1: is 70000"),
        ("1.2.3.4,1,1024,80,6,\n1.2.3.4,1,NaN,80,6,\n", "column src_port: row 1: is null"),
        ("1.2.3.4,1,1024,80,TCP,\n", "column proto: row 0: is text"),
        ("1.2.3,1,1024,80,6,\n", "column dst_ip: row 0: is '1.2.3', no IPv4 address"),
        (
            "1.2.3.4,1,1,1,6,\n1.2.3.4,1,1024\n",
            "row 1: can't be read as CSV: CSV parse error: Row #3: Expected 6 columns",
        ),
    ],
)
def test_what_is_wrong_in_csv_is_named(tmp_path: Path, rows: str, words: str) -> None:
    (tmp_path / "flows.csv").write_text(HEAD + rows)
    assert words in refused(tmp_path / "flows.csv")


def test_csv_without_anything_is_refused(tmp_path: Path) -> None:
    (tmp_path / "flows.csv").write_text("")
    assert "can't be read as CSV" in refused(tmp_path / "flows.csv")


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "flows.arrow"
    write_flows(random_flows(1000), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    words = refused(path)
    assert "can't be read as an Arrow IPC file" in words
    assert words.endswith(f"is it whole? {1000 if kept > 0.9 else 0:,} rows of it are")
    assert "can't be read" in refused(tmp_path / "nothing.arrow")


@settings(max_examples=20)
@given(
    st.dictionaries(st.integers(1, (1 << 64) - 1), st.tuples(st.integers(1, 1 << 52), st.integers(0, 9)), max_size=50)
)
def test_a_conntrack_comes_back_with_every_flow(tmp_path_factory: pytest.TempPathFactory, rows: dict[int, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / f"{threading.get_ident()}.arrow"
    table = tracking.create(64)
    for key, (expires_ns, backend) in rows.items():
        assert tracking.insert(table, np.uint64(key), (expires_ns, backend, 7), 0)
    write_conntrack(table, path, 5)
    again = read_conntrack(path, 128)
    assert again.counts[tracking.HELD] == len(rows)
    for key, (expires_ns, backend) in rows.items():
        place = tracking.find(again, np.uint64(key), expires_ns - 1)
        assert again.entries[place]["key"] == key
        assert tracking.backend_of(again.entries[place]["held"]) == backend
        assert tracking.is_of(again.entries[place]["held"], np.uint32(7))
        assert tracking.find(again, np.uint64(key), expires_ns + tracking.TICK_NS) < 0


def test_a_conntrack_that_is_wrong_or_too_large_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "conntrack.arrow"
    for keys, capacity, words in (
        ([3, 0], 8, "column key: row 1: is 0, which no flow has"),
        ([3, 3], 8, "column key: row 1: is there already"),
        ([3, 4, 5, 6, 7], 1, "column key: row 4: has no room in a table for 1 flows"),
        ([3, 4], 0, "column key: row 0: has no room in a table for 0 flows"),
    ):
        rest = {"expires_ns": [*range(5, 5 + len(keys))], "backend": [1] * len(keys), "endpoint": [1] * len(keys)}
        records.write(pa.table({"key": pa.array(keys, pa.uint64()), **rest}), path)
        with pytest.raises(ScenarioError, match=words):
            read_conntrack(path, capacity)
    one = {"key": pa.array([3], pa.uint64()), "expires_ns": [5], "backend": [1 << 24], "endpoint": [1]}
    records.write(pa.table(one), path)
    with pytest.raises(ScenarioError, match="column backend: row 0: is 16777216; this column has whole numbers from 0"):
        read_conntrack(path, 8)
