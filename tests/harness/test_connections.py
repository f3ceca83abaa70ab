"""The rows of connections: who dialled, and which pod a relay chose."""

from dataclasses import replace
from pathlib import Path

import numpy as np

import harness
from harness import connections, records
from harness.connections import Opened
from harness.join import opened
from harness.recorder import NEVER
from harness.records import LoadRows, Route
from harness.workload import Share
from tests.harness.test_join import FRONTEND, KEY, PODS, A, B, recorded, relay

CLIENTS = {**PODS, "127.244.3.9": [(0, "default/shop-client", "node-3")]}
EPOCH = 50


def rows_of(load: str, *, relayed: bool = True) -> tuple[LoadRows, Opened]:
    """Three connections, of which a relay accepted two, and the third never came about."""
    made = recorded([0, 1, 0, NEVER], began_ns=[100, 200, 300], client_port=[5000, 5001, 0])
    records_of = [relay((205, 5001, B, 7), (105, 5000, A, 6))] if relayed else []
    found = opened(made, frontend=FRONTEND, service="default/my-service", connections=records_of, pods=CLIENTS)
    return LoadRows(load, made, Route.unknown(4), KEY), found


def test_a_connection_says_who_dialled_it_and_where_a_relay_sent_it(tmp_path: Path) -> None:
    table = connections.tabulate([rows_of("one"), rows_of("other", relayed=False)], EPOCH, "r")
    columns = {name: table[name].to_pylist() for name in table.column_names}
    assert columns.pop("load") == ["one"] * 3 + ["other"] * 3
    own = {name: values[:3] for name, values in columns.items()}
    assert own == {
        "connection_id": [0, 1, 2],
        "began_ns": [50, 150, 250],
        "client": ["127.244.3.9", "127.244.3.9", None],
        "client_port": [5000, 5001, None],
        "client_pod": ["default/shop-client"] * 3,
        "client_node": ["node-3"] * 3,
        "accepted_ns": [55, 155, None],
        "service": ["default/my-service", "default/my-service", None],
        "pod": ["default/a", "default/b", None],
        "node": ["node-1", "node-2", None],
        "generation": [6, 7, None],
        "requests": [2, 1, 0],
    }
    of_relays = ("accepted_ns", "service", "pod", "node", "generation")
    assert {name: columns[name][3:] for name in of_relays} == dict.fromkeys(of_relays, [None] * 3)
    records.write(table, tmp_path / connections.FILE)
    records.write(records.tabulate([], 0, {}), tmp_path / records.FILE)
    assert harness.load(tmp_path)["connections"].equals(table)


def test_connections_of_several_generators_have_the_numbers_that_requests_have() -> None:
    both = [(replace(rows, share=Share(place, 2)), found) for place, (rows, found) in enumerate([rows_of("one")] * 2)]
    later = both[1][0].recorded
    moved = replace(later, connections={**later.connections, "began_ns": later.connections["began_ns"] + 1})
    table = connections.tabulate([both[0], (replace(both[1][0], recorded=moved), both[1][1])], EPOCH, "r")
    assert table["connection_id"].to_pylist() == [0, 1, 2, 3, 4, 5]
    assert table["began_ns"].to_pylist() == [50, 51, 150, 151, 250, 251]
    assert table["requests"].to_pylist() == [2, 2, 1, 1, 0, 0]


def test_a_client_that_is_no_pod_is_none() -> None:
    load, _ = rows_of("one")
    stranger = replace(load.recorded, connections={**load.recorded.connections, "client_ip": np.full(3, 1, np.uint32)})
    found = opened(stranger, frontend=FRONTEND, service="", connections=[], pods=CLIENTS)
    table = connections.tabulate([(replace(load, recorded=stranger), found)], EPOCH, "r")
    assert table["client"].to_pylist() == ["0.0.0.1", "0.0.0.1", None]
    assert {name: set(table[name].to_pylist()) for name in ("client_pod", "client_node")} == {
        "client_pod": {None},
        "client_node": {None},
    }


def test_each_column_is_documented_with_its_unit() -> None:
    page = (Path(__file__).parents[2] / "docs" / "records.md").read_text()
    section = page.partition("## `connections.arrow`")[2].partition("\n## ")[0]
    for field in connections.SCHEMA:
        assert f"`{field.name}`" in section
        assert field.metadata[b"unit"] == (b"ns" if field.name.endswith("_ns") else b"1")
