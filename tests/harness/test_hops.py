"""Where the time of a request went: parts of rows that were made by hand."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import hops, records
from harness.hops import NAMES, around, parts_ns, summarise
from kernels.layout_gateway import DONE_REQUEST
from plane.addresses import ip_to_int
from plane.ingress.records import NEVER, PATHS, ROW, Hops, Records
from tests.harness.test_report import MS, loop, made, steady

WAY = (
    "intended_ns",
    "start_ns",
    "sent_ns",
    "ingress_received_ns",
    "ingress_routed_ns",
    "ingress_picked_ns",
    "upstream_connected_ns",
    "pod_received_ns",
    "upstream_first_byte_ns",
    "ingress_done_ns",
    "first_byte_ns",
    "done_ns",
)
OF_INGRESS = tuple(name for name in WAY if name.startswith(("ingress", "upstream")))
TOGETHER = ("to ingress", "ingress", "upstream connect", "to pod", "pod", "from pod", "answer", "to client")


def table_of(*rows: dict[str, int | None]) -> pa.Table:
    """Rows that say nothing but these times, with all the columns that ``parts_ns`` reads."""
    names = [*WAY, "service_ns", "connected_ns", "tls_done_ns"]
    return pa.table({name: pa.array([row.get(name) for row in rows], pa.int64()) for name in names})


def whole(**other: int | None) -> dict[str, int | None]:
    """A request of 100 ns by the millisecond, whose every step took another time."""
    at = dict(zip(WAY, (0, 1, 3, 6, 8, 10, 15, 21, 36, 44, 46, 53), strict=True))
    return {**at, "service_ns": 7, **other}


def parts_of(row: dict[str, int | None]) -> dict[str, int]:
    return {name: part for name, part in zip(NAMES, parts_ns(table_of(row))[0].tolist(), strict=True) if part}


def test_a_request_through_the_ingress_is_taken_apart_at_each_point_of_its_way() -> None:
    assert parts_of(whole()) == {
        "client queue": 1,
        "client connect": 2,
        "to ingress": 3,
        "ingress": 4,
        "upstream connect": 5,
        "to pod": 6,
        "pod": 7,
        "from pod": 8,
        "answer": 8,
        "to client": 9,
    }


def test_shaking_hands_is_a_part_of_its_own() -> None:
    secured = parts_of(whole(start_ns=0, sent_ns=6, connected_ns=2, tls_done_ns=5))
    assert (secured["client connect"], secured["client TLS"], "client queue" in secured) == (2, 4, False)
    plain = parts_of(whole(start_ns=0, sent_ns=6, connected_ns=2))
    assert (plain["client connect"], "client TLS" in plain) == (6, False)


def test_what_is_not_known_is_in_the_part_after_it() -> None:
    no_pod = parts_of(whole(pod_received_ns=None, service_ns=None))
    assert (no_pod["pod"], "to pod" in no_pod, "from pod" in no_pod) == (21, False, False)
    refused = dict.fromkeys(WAY[5:9]) | {"service_ns": None}
    assert parts_of(whole(**refused)) == {
        "client queue": 1,
        "client connect": 2,
        "to ingress": 3,
        "answer": 38,
        "to client": 9,
    }
    relayed = parts_of(whole(**dict.fromkeys(OF_INGRESS)))
    assert relayed == {"client queue": 1, "client connect": 2, "to pod": 18, "pod": 7, "from pod": 25}
    elsewhere = parts_of(whole(**dict.fromkeys(OF_INGRESS), pod_received_ns=None, service_ns=None))
    assert elsewhere == {"client queue": 1, "client connect": 2, "wait": 43, "receive": 7}


def test_a_point_that_was_noted_late_takes_no_time_from_the_next() -> None:
    assert (
        parts_of(whole(ingress_done_ns=60))["answer"] == 17
    )  # the client had it before the ingress looked at its clock
    assert sum(parts_of(whole(ingress_received_ns=2)).values()) == 53


TIMES = st.lists(st.none() | st.integers(0, 1000), min_size=len(WAY), max_size=len(WAY))


@settings(max_examples=40)
@given(st.lists(st.tuples(TIMES, st.none() | st.integers(0, 500), st.integers(0, 2000)), min_size=1, max_size=20))
def test_the_parts_sum_up_to_the_whole_whatever_was_noted(made: list[tuple[list[int | None], int | None, int]]) -> None:
    rows = []
    for times, service, latency in made:
        row = dict(zip(WAY, times, strict=True))
        due = row["intended_ns"] or 0
        row |= {"intended_ns": due, "done_ns": due + latency}
        row["service_ns"] = None if row["pod_received_ns"] is None else service or 0
        rows.append(row)
    parts = parts_ns(table_of(*rows))
    assert (parts >= 0).all()
    assert parts.sum(axis=1).tolist() == [latency for _, _, latency in made]


def test_around_a_percentile_is_what_is_near_it() -> None:
    parts = np.zeros((1000, len(NAMES)), np.int64)
    parts[:, NAMES.index("pod")] = np.arange(1, 1001)
    parts[990:, NAMES.index("to ingress")] = 50
    found = around(parts[::-1])
    pod = {name: means[NAMES.index("pod")] for name, means in found.items()}
    assert pod == {"p50": 500.5, "p90": 900.5, "p99": pytest.approx(990, abs=1), "p99.9": 999}
    assert found["p99.9"][NAMES.index("to ingress")] == 50
    assert found["p90"][NAMES.index("to ingress")] == 0
    assert around(parts[:1])["p99"].sum() == 1


def test_rows_of_an_older_run_are_taken_apart_as_far_as_they_go(tmp_path) -> None:
    older = made(steady(), loop()).drop_columns(list(records.SEEN))
    records.write(older, tmp_path / records.FILE)
    read = records.read(tmp_path)
    assert set(summarise(read)["p50"]) == {"receive"}  # made without any time but the last
    assert sum(summarise(read)["p99.9"].values()) == 998 * MS  # the 1998th of 2000
    assert hops.known(summarise(read)) == ["receive"]


def test_both_ways_through_the_ingress_note_the_same_times() -> None:
    kept, done = Records(), np.zeros(2, DONE_REQUEST)
    # One that an endpoint answered by a kept connection, and one that the ingress answered itself.
    done[0] = (0xFF, 60, 440, 70, 80, 400, 1, 1, 1, 9, ip_to_int("10.0.0.1"), 8080, 200, 1, (0, 0, 0))
    done[1] = (0xFE, 61, 441, 71, 0, 0, 1, 1, 0, 0, 0, 0, 503, 0, (0, 0, 0))
    kept.add_fast(done, generation=7, route=3, service=4)
    hops_of = Hops()
    hops_of.routed_ns, hops_of.picked_ns, hops_of.connected_ns, hops_of.first_byte_ns, hops_of.reused = 1, 2, 3, 4, True
    kept.add(0xFD, 7, 62, 442, 3, 4, 9, ip_to_int("10.0.0.1"), 8080, 200, 2, hops=hops_of)
    columns = kept.columns()
    assert [PATHS[path] for path in columns["path"]] == ["fast", "fast", "slow"]
    assert {name: list(columns[name]) for name in ROW.names if name not in ("path", "spare")} == {
        "request_id": [0xFF, 0xFE, 0xFD],
        "generation": [7, 7, 7],
        "received_ns": [60, 61, 62],
        "done_ns": [440, 441, 442],
        "route": [3, 3, 3],
        "service": [4, 4, 4],
        "backend": [9, 0, 9],
        "pod_ip": [ip_to_int("10.0.0.1"), 0, ip_to_int("10.0.0.1")],
        "pod_port": [8080, 0, 8080],
        "status": [200, 503, 200],
        "retries": [0, 0, 2],
        "reused": [1, 0, 1],
        "routed_ns": [70, 71, 1],
        "picked_ns": [70, NEVER, 2],
        "connected_ns": [80, NEVER, 3],
        "first_byte_ns": [400, NEVER, 4],
    }
