"""The join of a load's rows with what the plane recorded."""

from typing import Any

import numpy as np

from harness.join import OF_INGRESS, STAMP_EARLY_NS, join, of_protocol
from harness.recorder import NEVER, Recorded
from harness.records import Names, Route
from harness.workload import id_key, request_ids
from plane.addresses import ip_to_int

KEY = id_key(seed=3, load=1)
FRONTEND = (ip_to_int("127.96.0.10"), 80)
PODS = {"127.244.1.2": [(1, "default/a", "node-1")], "127.244.2.2": [(1, "default/b", "node-2")]}
A, B = (ip_to_int(ip) for ip in PODS)


def recorded(connection: list[int], began_ns: list[int], client_port: list[int]) -> Recorded:
    rows = len(connection)
    return Recorded(
        {"intended_ns": np.zeros(rows, np.int64), "connection": np.array(connection, np.int32)},
        {
            "began_ns": np.array(began_ns, np.int64),
            "client_ip": np.full(len(began_ns), ip_to_int("127.244.3.9"), np.uint32),
            "client_port": np.array(client_port, np.uint16),
        },
    )


def relay(*rows: tuple[int, int, int, int], frontend: tuple[int, int] = FRONTEND) -> dict[str, np.ndarray]:
    """A relay's records: (opened_ns, client port, backend address, generation)."""
    opened, ports, backends, generations = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    number = len(opened)
    return {
        "opened_ns": opened,
        "client_ip": np.full(number, ip_to_int("127.244.3.9"), np.uint32),
        "client_port": ports.astype(np.uint16),
        "frontend_ip": np.full(number, frontend[0], np.uint32),
        "frontend_port": np.full(number, frontend[1], np.uint16),
        "backend_ip": backends.astype(np.uint32),
        "generation": generations,
    }


def joined(rows: Recorded, **recorded_by_plane: Any) -> Route:
    empty: dict[str, Any] = {"ingress": [], "connections": [], "pods": PODS}
    return join(rows, id_key=KEY, frontend=FRONTEND, **{"service": "default/my-service", **empty, **recorded_by_plane})


def by_ingress(number: int, **columns: Any) -> dict[str, Any]:
    """An ingress's records, with what OF_INGRESS names: times that begin with 100, 200, ... of each record."""
    times = [name for name in OF_INGRESS.values() if name.endswith("_ns")]
    seen = {name: np.arange(1, number + 1) * 100 + place for place, name in enumerate(times)}
    return {
        **seen,
        "path": np.ones(number, np.uint8),
        **dict.fromkeys(("retries", "reused"), np.arange(number)),
        **columns,
    }


def texts(names: Names) -> list[str | None]:
    return [names.texts[index] if index >= 0 else None for index in names.index]


def test_requests_have_the_pod_of_their_connection() -> None:
    rows = recorded([0, 1, 0, NEVER], began_ns=[100, 200], client_port=[5000, 5001])
    route = joined(rows, connections=[relay((205, 5001, B, 7)), relay((105, 5000, A, 6))])
    assert texts(route.pod) == ["default/a", "default/b", "default/a", None]
    assert texts(route.node) == ["node-1", "node-2", "node-1", None]
    assert texts(route.service) == ["default/my-service"] * 3 + [None]
    assert texts(route.route) == [None] * 4
    assert route.generation.tolist() == [6, 7, 6, -1]


def test_an_address_that_is_given_out_again_is_told_by_the_generation() -> None:
    pods = {**PODS, "127.244.1.2": [(3, "default/a", "node-1"), (9, "default/c", "node-1")]}
    rows = recorded([0, 1, 2, 3], began_ns=[100, 200, 300, 400], client_port=[5000, 5001, 5002, 5003])
    relayed = relay((105, 5000, A, 2), (205, 5001, A, 3), (305, 5002, A, 8), (405, 5003, A, 9))
    route = joined(rows, connections=[relayed], pods=pods)
    assert texts(route.pod) == [None, "default/a", "default/a", "default/c"]


def test_a_port_that_is_used_again_is_told_by_the_time() -> None:
    s = 1_000_000_000
    rows = recorded([0, 1, 2], began_ns=[1 * s, 2 * s, 3 * s], client_port=[5000, 5000, 5000])
    early = 3 * s - STAMP_EARLY_NS + 1
    route = joined(rows, connections=[relay((s // 2, 5000, B, 1), (s + s // 2, 5000, A, 2), (early, 5000, B, 3))])
    # The second connection was never accepted: the record after it is of the third.
    assert texts(route.pod) == ["default/a", None, "default/b"]
    assert route.generation.tolist() == [2, -1, 3]


def test_a_message_went_where_the_flow_of_its_port_led_before_it_was_answered() -> None:
    s = 1_000_000_000
    # A socket whose flow began anew twice, the last time for a message that nobody answered; one that later has its
    # port, and one that has it with the same flow; one whose flow no relay recorded.
    rows = recorded([0, 0, 0, 0, 1, 3, 2, NEVER], [1 * s, 9 * s, 1 * s, 11 * s], client_port=[5000, 5000, 5001, 5000])
    answered = [2 * s, 3 * s, 4 * s, NEVER, 10 * s, 12 * s, 2 * s, NEVER]
    rows.requests["done_ns"] = np.array(answered, np.int64)
    flows = [
        relay((s // 2, 5000, B, 1), (3 * s, 5000, B, 3), (9 * s - STAMP_EARLY_NS + 1, 5000, A, 8)),
        relay((s, 5000, A, 2), (5 * s, 5000, A, 4)),
    ]
    route = joined(rows, connections=flows, datagrams=True)
    assert route.generation.tolist() == [2, 3, 3, 4, 8, 8, -1, -1]
    assert texts(route.pod) == ["default/a", *["default/b"] * 2, *["default/a"] * 3, None, None]
    assert texts(route.service) == ["default/my-service"] * 6 + [None] * 2
    assert joined(rows, connections=[], datagrams=True).generation.tolist() == [-1] * 8


def test_what_a_relay_recorded_is_told_by_its_protocol() -> None:
    both = {"proto": np.array([6, 17, 6]), "opened_ns": np.array([1, 2, 3])}
    assert of_protocol(both, 17)["opened_ns"].tolist() == [2]
    assert of_protocol(both, 6)["opened_ns"].tolist() == [1, 3]


def test_connections_to_another_frontend_are_not_taken_for_ours() -> None:
    rows = recorded([0], began_ns=[100], client_port=[5000])
    other = relay((105, 5000, A, 6), frontend=(FRONTEND[0], 443))
    route = joined(rows, connections=[other, relay((105, 5001, A, 6))])
    assert texts(route.pod) == [None]


def test_requests_through_an_ingress_are_found_by_their_id() -> None:
    ids = request_ids(KEY, 4)
    first = by_ingress(
        3,
        request_id=np.array([ids[2], 999, ids[0]], np.uint64),
        route=np.array([1, 0, 0]),
        service=np.array([0, 0, -1]),
        pod_ip=np.array([B, A, 0], np.uint32),
        generation=np.array([4, 4, 5], np.int64),
        routes=["x", "y"],
        services=["default/s:80"],
    )
    second = by_ingress(
        1,
        request_id=np.array([ids[3]], np.uint64),
        route=np.array([0]),
        service=np.array([0]),
        pod_ip=np.array([A], np.uint32),
        generation=np.array([6], np.int64),
        routes=["x"],
        services=["default/t:http"],
    )
    rows = recorded([0, 0, 0, 0], began_ns=[100], client_port=[5000])
    route = joined(rows, ingress=[first, second], service="")
    assert texts(route.route) == ["x", None, "y", "x"]
    assert texts(route.service) == [None, None, "default/s", "default/t"]
    assert texts(route.pod) == [None, None, "default/b", "default/a"]
    assert route.generation.tolist() == [5, -1, 4, 6]
    assert route.seen["ingress_received_ns"].tolist() == [300, NEVER, 100, 100]
    assert route.seen["ingress_done_ns"].tolist() == [305, NEVER, 105, 105]
    assert route.seen["retries"].tolist() == [2, NEVER, 0, 0]
    assert route.seen["path"].tolist() == [1, NEVER, 1, 1]


def test_what_a_pod_says_counts_where_it_was_the_one_that_was_chosen() -> None:
    ids = request_ids(KEY, 4)
    served = {  # the third request was sent to B twice, and a copy of it to A
        "request_id": np.array([ids[2], ids[2], ids[2], ids[3], 999], np.uint64),
        "received_ns": np.array([150, 130, 160, 105, 100]),
        "done_ns": np.array([157, 140, 199, 106, 101]),
        "container": np.array([2, 2, 0, 2, 1]),
        "ips": np.array([A, A, B], np.uint32),
        "pods": ["default/a", "default/old", "default/b"],
    }
    rows = recorded([0, 1, 1, 1], began_ns=[100, 200], client_port=[5000, 5001])
    route = joined(rows, connections=[relay((205, 5001, B, 7), (105, 5000, A, 6))], served=[served])
    assert route.seen["pod_received_ns"].tolist() == [NEVER, NEVER, 150, 105]
    assert route.seen["service_ns"].tolist() == [NEVER, NEVER, 7, 1]
    assert set(route.seen["ingress_received_ns"].tolist()) == {NEVER}
    assert texts(route.pod) == ["default/a", "default/b", "default/b", "default/b"]


def test_where_nobody_of_the_plane_has_chosen_the_pods_say_who_it_was() -> None:
    ids = request_ids(KEY, 3)
    nodes = [
        {
            "request_id": np.array(of, np.uint64),
            "received_ns": np.array(at),
            "done_ns": np.array(at) + 5,
            "container": np.zeros(len(of), np.int32),
            "ips": np.array([ip], np.uint32),
            "pods": [pod],
        }
        for of, at, ip, pod in (
            ([ids[0], ids[1]], [100, 120], A, "default/c"),  # the first was asked once more, of the other
            ([ids[0]], [110], B, "default/b"),
        )
    ]
    pods = {
        **PODS,
        "127.244.1.2": [(1, "default/a", "node-1"), (9, "default/c", "node-1"), (12, "default/d", "node-1")],
    }
    for served in (nodes, nodes[::-1]):
        route = joined(recorded([0, 1, 2], [1, 2, 3], [4, 5, 6]), pods=pods, served=served)
        assert texts(route.pod) == ["default/b", "default/c", None]
        assert route.seen["pod_received_ns"].tolist() == [110, 120, NEVER]
        assert route.generation.tolist() == [-1] * 3


def test_of_two_records_of_one_request_the_last_counts() -> None:
    number = request_ids(KEY, 1)[0]
    ingress = by_ingress(
        2,
        request_id=np.array([number, number], np.uint64),
        route=np.array([0, 0]),
        service=np.array([0, 0]),
        pod_ip=np.array([A, B], np.uint32),
        generation=np.array([1, 2], np.int64),
        routes=["x"],
        services=["s"],
    )
    route = joined(recorded([0], [1], [2]), ingress=[ingress], service="")
    assert texts(route.pod) == ["default/b"]


def test_an_address_of_a_pod_is_that_pod() -> None:
    rows = recorded([0, NEVER], began_ns=[100], client_port=[5000])
    route = join(rows, id_key=KEY, frontend=(B, 8080), service="", ingress=[], connections=[], pods=PODS)
    assert texts(route.pod) == ["default/b", None]
    assert route.generation.tolist() == [-1, -1]


def test_without_a_plane_nothing_is_known() -> None:
    route = join(
        recorded([0], [100], [5000]), id_key=KEY, frontend=FRONTEND, service="", ingress=[], connections=[], pods={}
    )
    assert texts(route.pod) == [None]


def test_ids_are_unique_over_the_loads_of_a_run_and_new_with_the_seed() -> None:
    ids = np.concatenate([request_ids(id_key(seed, load), 10_000) for seed in (0, 1) for load in range(5)])
    assert len(np.unique(ids)) == len(ids)
