"""fib.compile: what Services and EndpointSlices mean, in integers."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kernels.jit import INTERPRETED
from kernels.layout import DRAINING, GONE, MAGLEV, RANDOM, READY, RR, TCP, UDP, UNREADY, Fib
from kernels.lb import frontends, hashing, maglev
from plane import fib
from plane.addresses import int_to_ip, ip_to_int
from plane.model import ALGORITHM_ANNOTATIONS, SERVICE_LABEL, Object, Snapshot, endpoints_of

HTTP = {"name": "http", "port": 80, "protocol": "TCP"}


def service(
    name: str, cluster_ip: str, ports: tuple[Object, ...] = (HTTP,), algorithm: str = "", **spec: Any
) -> Object:
    annotations = {ALGORITHM_ANNOTATIONS[1]: algorithm} if algorithm else {}
    return {
        "kind": "Service",
        "metadata": {"namespace": "default", "name": name, "annotations": annotations},
        "spec": {"clusterIP": cluster_ip, "ports": list(ports), **spec},
    }


def endpoint(
    address: str, *, ready: bool | None = True, serving: bool | None = None, terminating: bool = False
) -> Object:
    conditions = {"ready": ready, "serving": serving, "terminating": terminating}
    return {"addresses": [address], "conditions": conditions}


def slice_of(name: str, *endpoints: Object, port: int = 8080, port_name: str = "http", part: int = 0) -> Object:
    return {
        "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": f"{name}-{part}", "labels": {SERVICE_LABEL: name}},
        "endpoints": list(endpoints),
        "ports": [{"name": port_name, "port": port, "protocol": "UDP" if port_name == "dns" else "TCP"}],
    }


def snapshot_of(*objects: Object, generation: int = 1) -> Snapshot:
    """A Snapshot whose backends have ids as the controllers give them: from 1, in order of the slices."""
    keys = {row.key: None for obj in objects if obj["kind"] == "EndpointSlice" for row in endpoints_of(obj)}
    ids = {key: number for number, key in enumerate(keys, start=1)}
    return replace(Snapshot(generation).changed(objects), backends=ids)


def row_of(table: Fib, ip: str, port: int = 80, proto: int = TCP) -> np.void:
    number = int(frontends.find_frontend(table, ip_to_int(ip), port, proto))
    assert number, f"no frontend {ip}:{port}"
    return table.frontends[number]


def members_of(table: Fib, ip: str, port: int = 80, proto: int = TCP) -> list[str]:
    pool = pool_of(table, ip, port, proto)
    numbers = table.members[int(pool["first_member"]) :][: int(pool["members"])]
    return [f"{int_to_ip(table.backends[n]['ip'])}:{table.backends[n]['port']}" for n in numbers]


def pool_of(table: Fib, ip: str, port: int = 80, proto: int = TCP) -> np.void:
    """The pool for clients in the cluster, at no node in particular."""
    return table.pools[int(row_of(table, ip, port, proto)["inside"])]


def ring_of(table: Fib, ip: str) -> np.ndarray:
    row = pool_of(table, ip)
    return table.rings[int(row["first_slot"]) :][: int(row["slots"])]


def test_dump_of_a_small_plane_reads_as_expected() -> None:
    dns = ({"name": "http", "port": 8000}, {"name": "dns", "port": 53, "protocol": "UDP"})
    table = fib.compile(
        snapshot_of(
            service("web", "127.96.1.1", algorithm="maglev"),
            service("names", "127.96.0.10", dns, algorithm="rr"),
            slice_of("web", endpoint("127.244.1.2"), endpoint("127.244.2.2"), endpoint("127.244.3.2", ready=False)),
            slice_of("names", endpoint("127.244.1.3"), port=5353, port_name="dns"),
        )
    )
    assert fib.dump(table) == (
        "127.96.0.10:53/UDP\n"
        "  anyone rr\n"
        "    -> 4 127.244.1.3:5353/UDP\n"
        "127.96.0.10:8000/TCP\n"
        "  anyone rr REJECT\n"
        "127.96.1.1:80/TCP\n"
        "  anyone maglev\n"
        "    -> 1 127.244.1.2:8080/TCP 8190/16381 slots\n"
        "    -> 2 127.244.2.2:8080/TCP 8191/16381 slots\n"
        "backend 1 127.244.1.2:8080/TCP ready weight 1 node 0\n"
        "backend 2 127.244.2.2:8080/TCP ready weight 1 node 0\n"
        "backend 3 127.244.3.2:8080/TCP unready weight 0 node 0\n"
        "backend 4 127.244.1.3:5353/UDP ready weight 1 node 0\n"
    )


@pytest.mark.parametrize(
    ("algorithm", "spec", "said"),
    [
        ("lc", {}, "lc slow start 90 s"),
        ("maglev", {}, "maglev"),
        ("sh", {}, "sh"),
        ("lc", {"sessionAffinity": "ClientIP"}, "lc"),
    ],
)
def test_slow_start_is_in_pools_that_give_shares(algorithm: str, spec: Object, said: str) -> None:
    web = service("web", "127.96.1.1", algorithm=algorithm, **spec)
    web["metadata"]["annotations"]["trafficplane.dev/slow-start"] = "1m30s"
    table = fib.compile(snapshot_of(web, slice_of("web", endpoint("127.244.1.2"))))
    assert f"  anyone {said}\n" in fib.dump(table)


def test_an_empty_snapshot_compiles_to_an_empty_fib() -> None:
    table = fib.compile(Snapshot(7))
    assert table.generation == 7
    assert [len(array) for array in table[1:]] == [1, 4, 1, 1, 0, 0, 0, 0, 0, 1]
    assert fib.dump(table) == ""


def test_every_table_is_read_only() -> None:
    table = fib.compile(
        snapshot_of(service("web", "127.96.1.1", algorithm="maglev"), slice_of("web", endpoint("127.244.1.2")))
    )
    assert not any(array.flags.writeable for array in table[1:])


@pytest.mark.parametrize(
    ("annotation", "algorithm"),
    [("", RANDOM), ("random", RANDOM), ("rr", RR), ("maglev", MAGLEV), ("fastest", RANDOM)],
)
def test_annotation_chooses_the_algorithm_and_random_is_the_default(annotation: str, algorithm: int) -> None:
    table = fib.compile(snapshot_of(service("web", "127.96.1.1", algorithm=annotation)))
    assert pool_of(table, "127.96.1.1")["algorithm"] == algorithm


@pytest.mark.parametrize(
    "obj",
    [
        pytest.param(service("web", "None"), id="headless"),
        pytest.param(service("web", "", type="ExternalName"), id="ExternalName"),
        pytest.param(service("web", "fd00::1"), id="IPv6"),
        pytest.param(service("web", "127.96.1.1", ({**HTTP, "protocol": "SCTP"},)), id="SCTP"),
    ],
)
def test_services_that_are_not_carried_have_no_frontend(obj: Object) -> None:
    table = fib.compile(snapshot_of(obj, slice_of("web", endpoint("127.244.1.2"))))
    assert len(table.frontends) == 1


def test_each_port_has_a_frontend_with_the_endpoints_of_that_port() -> None:
    ports = (HTTP, {"name": "admin", "port": 9000})
    table = fib.compile(
        snapshot_of(
            service("web", "127.96.1.1", ports),
            slice_of("web", endpoint("127.244.1.2"), endpoint("127.244.1.3")),
            slice_of("web", endpoint("127.244.1.2"), port=9999, port_name="admin", part=1),
        )
    )
    assert members_of(table, "127.96.1.1", 80) == ["127.244.1.2:8080", "127.244.1.3:8080"]
    assert members_of(table, "127.96.1.1", 9000) == ["127.244.1.2:9999"]


def test_only_the_first_address_of_an_endpoint_counts_and_a_port_without_number_leads_nowhere() -> None:
    several = slice_of("web", {"addresses": ["127.244.1.2", "127.244.1.3"]}, {"addresses": ["127.244.1.4"]})
    several["ports"].append({"name": "admin"})
    ports = (HTTP, {"name": "admin", "port": 9000})
    table = fib.compile(snapshot_of(service("web", "127.96.1.1", ports), several))
    assert members_of(table, "127.96.1.1") == ["127.244.1.2:8080", "127.244.1.4:8080"]
    assert members_of(table, "127.96.1.1", 9000) == []


def test_an_address_in_two_slices_counts_once() -> None:
    table = fib.compile(
        snapshot_of(
            service("web", "127.96.1.1"),
            slice_of("web", endpoint("127.244.1.2")),
            slice_of("web", endpoint("127.244.1.2"), endpoint("127.244.1.3"), part=1),
        )
    )
    assert members_of(table, "127.96.1.1") == ["127.244.1.2:8080", "127.244.1.3:8080"]


STATES = {
    "ready": (endpoint("127.244.1.9"), READY),
    "ready unknown": (endpoint("127.244.1.9", ready=None), READY),
    "ready though terminating, as with publishNotReadyAddresses": (
        endpoint("127.244.1.9", ready=True, terminating=True),
        READY,
    ),
    "not ready": (endpoint("127.244.1.9", ready=False), UNREADY),
    "terminating": (endpoint("127.244.1.9", ready=False, serving=True, terminating=True), DRAINING),
    "terminating and not serving": (endpoint("127.244.1.9", ready=False, terminating=True), UNREADY),
}


@pytest.mark.parametrize(("row", "state"), STATES.values(), ids=STATES.keys())
def test_an_endpoint_is_a_member_if_ready_and_drains_if_it_serves_still(row: Object, state: int) -> None:
    snapshot = snapshot_of(service("web", "127.96.1.1"), slice_of("web", endpoint("127.244.1.2"), row))
    table = fib.compile(snapshot)
    assert ("127.244.1.9:8080" in members_of(table, "127.96.1.1")) == (state == READY)
    assert table.backends[2]["state"] == state


def test_with_none_ready_those_that_serve_while_terminating_are_used() -> None:
    table = fib.compile(
        snapshot_of(
            service("web", "127.96.1.1"),
            slice_of(
                "web",
                endpoint("127.244.1.2", ready=False, serving=True, terminating=True),
                endpoint("127.244.1.3", ready=False, serving=False, terminating=True),
            ),
        )
    )
    assert members_of(table, "127.96.1.1") == ["127.244.1.2:8080"]
    assert table.backends["state"].tolist() == [GONE, READY, UNREADY]


def test_a_backend_keeps_its_id_and_ids_without_endpoint_are_gone() -> None:
    snapshot = snapshot_of(service("web", "127.96.1.1"), slice_of("web", endpoint("127.244.1.2")))
    table = fib.compile(replace(snapshot, backends={("127.244.1.2", 8080, "TCP"): 4}))
    assert table.backends["state"].tolist() == [GONE, GONE, GONE, GONE, READY]
    assert table.members.tolist() == [4]


def test_an_endpoint_that_two_services_share_is_ready_if_either_uses_it() -> None:
    ready, unready = endpoint("127.244.1.2"), endpoint("127.244.1.2", ready=False)
    table = fib.compile(
        snapshot_of(
            service("a", "127.96.1.1"), service("b", "127.96.1.2"), slice_of("a", ready), slice_of("b", unready)
        )
    )
    assert table.backends[1]["state"] == READY
    assert members_of(table, "127.96.1.2") == []


def test_an_ipv6_endpoint_is_no_member() -> None:
    table = fib.compile(
        snapshot_of(service("web", "127.96.1.1"), slice_of("web", endpoint("127.244.1.2"), endpoint("fd00::2")))
    )
    assert members_of(table, "127.96.1.1") == ["127.244.1.2:8080"]


def test_only_frontends_that_hash_have_a_ring() -> None:
    table = fib.compile(
        snapshot_of(
            service("a", "127.96.1.1"),
            service("b", "127.96.1.2", algorithm="maglev"),
            slice_of("a", endpoint("127.244.1.2")),
        )
    )
    assert table.rings.size == 0


def test_frontends_with_equal_members_share_one_ring() -> None:
    ports = (HTTP, {"name": "http2", "port": 81})
    shared = slice_of("a", endpoint("127.244.1.2"), endpoint("127.244.1.3"))
    shared["ports"].append({"name": "http2", "port": 8080, "protocol": "TCP"})
    table = fib.compile(
        snapshot_of(
            service("a", "127.96.1.1", ports, algorithm="maglev"),
            service("b", "127.96.1.2", algorithm="maglev"),
            service("c", "127.96.1.3", algorithm="maglev"),
            shared,
            slice_of("b", endpoint("127.244.1.3"), endpoint("127.244.1.2")),
            slice_of("c", endpoint("127.244.1.2")),
        )
    )
    first_slots = [pool_of(table, ip, port)["first_slot"] for ip, port in (("127.96.1.1", 81), ("127.96.1.2", 80))]
    assert first_slots == [pool_of(table, "127.96.1.1")["first_slot"]] * 2
    assert table.rings.size == 16381 + 251
    assert set(ring_of(table, "127.96.1.3").tolist()) == {1}


def test_ring_follows_from_addresses_and_not_from_ids() -> None:
    snapshot = snapshot_of(
        service("web", "127.96.1.1", algorithm="maglev"),
        slice_of("web", *(endpoint(f"127.244.1.{host}") for host in range(2, 7))),
    )
    other = replace(snapshot, backends={key: 40 - number for key, number in snapshot.backends.items()})
    addresses = [table.backends["ip"][ring_of(table, "127.96.1.1")] for table in map(fib.compile, (snapshot, other))]
    assert addresses[0].tolist() == addresses[1].tolist()
    seeds = np.array([hashing.endpoint_seed(ip_to_int(f"127.244.1.{host}"), 8080, TCP) for host in range(2, 7)])
    direct = maglev.build(seeds.astype(np.uint64), np.ones(5, np.uint16), maglev.table_size(5))
    assert addresses[0].tolist() == (ip_to_int("127.244.1.2") + direct).tolist()


def test_equal_snapshots_compile_to_equal_tables_and_generation_makes_no_difference() -> None:
    objects = (service("web", "127.96.1.1", algorithm="maglev"), slice_of("web", endpoint("127.244.1.2")))
    one, two = fib.compile(snapshot_of(*objects)), fib.compile(snapshot_of(*reversed(objects), generation=9))
    assert fib.equal(one, two)
    assert fib.dump(one) == fib.dump(two)
    assert not fib.equal(one, fib.compile(snapshot_of(*objects, service("b", "127.96.1.2"))))


def test_udp_and_tcp_on_one_port_are_two_frontends() -> None:
    ports = ({"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53})
    table = fib.compile(
        snapshot_of(
            service("names", "127.96.0.10", ports),
            slice_of("names", endpoint("127.244.1.2"), port=5353, port_name="dns"),
        )
    )
    assert members_of(table, "127.96.0.10", 53, UDP) == ["127.244.1.2:5353"]
    assert members_of(table, "127.96.0.10", 53, TCP) == []


@pytest.mark.skipif(INTERPRETED, reason="a matter of speed")
def test_thousands_of_services_compile() -> None:
    objects = []
    for number in range(2_000):
        name, address = f"s{number:05}", int_to_ip(ip_to_int("127.96.1.1") + number)
        rows = [endpoint(int_to_ip(ip_to_int("127.244.0.2") + 3 * number + i)) for i in range(3)]
        algorithm = "rr" if number % 10 else "maglev"
        objects += [service(name, address, algorithm=algorithm), slice_of(name, *rows)]
    snapshot = snapshot_of(*objects)
    table = fib.compile(snapshot)
    assert len(table.frontends) == 2_001
    assert table.rings.size == 200 * 16381
