"""Flows through a scenario's phases: what is counted, that it is the same however carried, and what is refused."""

import plane.rayenvironment  # noqa: F401  # Ray reads it when it is imported

# isort: split
import asyncio
import ipaddress
import json
import math
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import ray
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cli import bench
from harness.flowruns import FlowActors
from harness.flows import pages, running, steering
from harness.flows.columns import write_flows
from harness.flows.fleet import FIRST_ENDPOINTS, Fleet, made_up
from harness.flows.making import Maker, population_of
from harness.flows.running import here, prepare, shards_of
from harness.flows.scenario import KIND, FlowScenario
from harness.flows.shapes import Sizes, shape_of
from harness.flows.steering import Course, Shard, carry
from harness.flows.summary import imbalance
from harness.flows.table import tables
from harness.records import provenance_of
from harness.scenario import ScenarioError, kind_of, parse_as
from harness.tables import console
from kernels.lb.population import generate
from plane.cluster import connected
from plane.errors import PlaneError
from plane.families import IPV4
from plane.model import SLOW_START_ANNOTATION, Snapshot

CONFIGS = Path(__file__).parents[2] / "configs"
SPEC: dict[str, Any] = {"flows": 20_000, "services": {"count": 1, "endpoints": 10}, "conntrack": 0, "balancers": 4}
CLIENTS = ["100.64.0.0/10", "2001:db8::/32"]
CHURN = [
    {"at": "1s", "remove": 2},
    {"at": "2s", "add": 3},
    {"at": "3s", "drain": 1},
    {"at": "4s", "weigh": {"endpoints": 4, "weight": 3}},
    {"at": "5s", "failNode": "node-1"},
    {"at": "6s", "failover": "50%"},
    {"at": "7s", "roll": {"step": 5}},
    {"at": "1m", "restore": True},
]


def written(tmp_path: Path, **spec: Any) -> Path:
    document = {
        "apiVersion": "trafficplane.dev/v1alpha1",
        "kind": "FlowScenario",
        "metadata": {"name": "made"},
        "spec": {**SPEC, **spec},
    }
    file = tmp_path / "flows.yaml"
    file.write_text(yaml.safe_dump(document))
    return file


def result_of(file: Path, carry_by: running.Carry = here, **others: Any) -> running.Result:
    return running.run(prepare(file), file.parent / "out", console(), carry_by, threading.Event(), **others)


def rows_of(result: running.Result) -> list[pa.Table]:
    """The tables of a run without their metadata, and without the columns that tell how long things took."""
    return [
        table.replace_schema_metadata().select([name for name in table.schema.names if not name.endswith("_ns")])
        for table in running.read(result.folder)
    ]


def phases_of(result: running.Result, algorithm: str = "maglev") -> list[dict[str, Any]]:
    return next(row["phases"] for row in result.summary["algorithms"] if row["algorithm"] == algorithm)


def problems(**spec: Any) -> dict[str, str]:
    text = yaml.safe_dump(
        {
            "apiVersion": "trafficplane.dev/v1alpha1",
            "kind": "FlowScenario",
            "metadata": {"name": "made"},
            "spec": {**SPEC, **spec},
        }
    )
    with pytest.raises(ScenarioError) as caught:
        parse_as(FlowScenario, text, "flows.yaml")
    return {problem.field: problem.reason for problem in caught.value.problems}


def test_a_removal_disrupts_nobody_else_by_anchor_and_few_by_maglev(tmp_path: Path) -> None:
    timeline = [{"at": "1s", "remove": 2}, {"at": "2s", "restore": True}]
    result = result_of(written(tmp_path, algorithms=["anchor", "maglev", "random"], timeline=timeline))
    anchor, maglev = phases_of(result, "anchor"), phases_of(result, "maglev")
    assert [row["event"] for row in anchor] == ["begin", "2 fewer of default/s1", "restore"]
    assert anchor[0]["begun"] == anchor[0]["new"] == 20_000
    assert anchor[1]["disrupted"] == 0 < anchor[1]["unavoidable"]
    assert abs(anchor[1]["moved_share"] - 0.2) < 0.02
    assert 0 < maglev[1]["disrupted_share"] < 0.02
    assert maglev[1]["backends"] == 8
    assert maglev[1]["slots"] == 16381 > maglev[1]["slots_changed"] > 0.2 * 16381
    assert (anchor[1]["slots"], anchor[1]["build_ns"] > 0, maglev[1]["build_ns"]) == (0, True, 0)
    assert phases_of(result, "random")[1]["disrupted_share"] > 0.6
    assert [row["min_over_mean"] > 0.9 > 0 for row in (maglev[0]["imbalance"], maglev[2]["imbalance"])] == [True, True]


def test_conntrack_keeps_all_that_can_be_kept_until_a_balancer_fails(tmp_path: Path) -> None:
    timeline = [
        {"at": "1s", "remove": 2},
        {"at": "2s", "add": 2},
        {"at": "3s", "drain": 1},
        {"at": "4s", "failover": 1},
        {"at": "3h", "restore": True},
    ]
    result = result_of(written(tmp_path, algorithms=["rr"], conntrack=5_000, timeline=timeline))
    begin, fewer, more, draining, failed, later = phases_of(result, "rr")
    assert begin["held"] == 20_000
    assert (fewer["disrupted"], fewer["kept"]) == (0, fewer["tracked"])
    assert fewer["unavoidable"] == fewer["new"] > 0
    assert (more["tracked"], draining["tracked"]) == (20_000, 20_000)
    assert more["imbalance"]["min_over_mean"] == 0
    assert draining["backends"] == 9
    assert failed["new"] == 5_000
    assert 0.6 * 5_000 < failed["disrupted"] + failed["unavoidable"] < 5_000
    assert later["tracked"] == 0, "idle for longer than they are remembered"


def test_a_balancer_without_room_says_so(tmp_path: Path) -> None:
    (begin,) = phases_of(result_of(written(tmp_path, algorithms=["maglev"], conntrack=1_000)))
    assert begin["held"] + begin["refused"] == begin["new"] == 20_000
    assert begin["refused"] > 0


@pytest.mark.parametrize("algorithm", ["rr", "p2c", "random", "maglev", "anchor"])
def test_balancers_come_to_the_same_however_they_are_carried(tmp_path: Path, algorithm: str) -> None:
    """Shard by shard, one by one from the last to the first, and all in one go."""

    def backwards(course: Course, shards: Any, stop: threading.Event) -> Any:
        singles = [Shard(each, each + 1) for shard in shards for each in range(*shard)]
        yield from (carry(course, shard) for shard in reversed(singles))

    def at_once(course: Course, shards: Any, stop: threading.Event) -> Any:
        yield carry(course, Shard(shards[0].first, shards[-1].last))

    file = written(tmp_path, algorithms=[algorithm], conntrack=3_000, timeline=CHURN, balancers=7)
    first = rows_of(result_of(file))
    for carried_by in (backwards, at_once):
        again = rows_of(result_of(file, carried_by))
        assert [one.equals(other) for one, other in zip(first, again, strict=True)] == [True, True]


@settings(max_examples=15)
@given(st.integers(1, 3_000), st.integers(1, 300))
def test_shards_are_all_balancers_once(balancers: int, workers: int) -> None:
    shards = shards_of(balancers, workers)
    assert [each for shard in shards for each in range(*shard)] == list(range(balancers))
    sizes = [shard.last - shard.first for shard in shards]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    assert sizes[0] <= max(1, balancers // 16)  # of the whole
    assert sizes[0] * workers <= max(workers, balancers // 2)  # of what each worker's part is


def test_stateless_algorithms_do_not_see_how_many_balancers_there_are(tmp_path: Path) -> None:
    timeline = [{"at": "1s", "remove": 2}]
    one, other = (
        rows_of(result_of(written(tmp_path, algorithms=["maglev"], balancers=count, timeline=timeline)))
        for count in (1, 13)
    )
    assert one[1].equals(other[1])


@pytest.mark.parametrize("clients", CLIENTS)
def test_every_event_leaves_flows_where_they_may_go(tmp_path: Path, clients: str) -> None:
    """Of the flows of each phase all have a backend, and none is at one that new flows may not go to."""
    file = written(tmp_path, algorithms=["maglev", "lc", "ring", "jump"], timeline=CHURN, clients=clients)
    prepared = prepare(file)
    steered, counted = rows_of(result_of(file))
    assert len(steered) == 4 * len(prepared.phases) * 4
    first = ipaddress.ip_address(FIRST_ENDPOINTS[prepared.scenario.spec.family.name])
    assert min(map(ipaddress.ip_address, counted["ip"].to_pylist())) == first
    of_flows = counted.group_by(["algorithm", "phase", "member"]).aggregate([("flows", "sum")]).to_pylist()
    assert {row["flows_sum"] for row in of_flows if row["member"]} == {20_000}
    assert {row["flows_sum"] for row in of_flows if not row["member"]} == {0}
    names = [phase.name for phase in prepared.phases]
    assert names[1:6] == [
        "2 fewer of default/s1",
        "3 more of default/s1",
        "1 of default/s1 drain",
        "4 of default/s1 weigh 3",
        "node-1 fails",
    ]
    assert names[6:] == [
        "2 of 4 balancers fail",
        *(f"roll of default/s1, {step}" for step in ("1 of 2", "2 of 2", "done")),
        "restore",
    ]


def test_least_connections_are_even_and_weights_are_shares(tmp_path: Path) -> None:
    timeline = [{"at": "1s", "weigh": {"endpoints": 4, "weight": 3}}]
    result = result_of(written(tmp_path, algorithms=["wlc", "maglev"], timeline=timeline, balancers=1))
    for algorithm, within in (("wlc", 0.01), ("maglev", 0.1)):
        for phase in phases_of(result, algorithm):
            assert phase["imbalance"]["max_over_mean"] - 1 < within


def test_the_algorithms_of_the_manifests_themselves(tmp_path: Path) -> None:
    manifests = tmp_path / "manifests.yaml"
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default", "annotations": {"trafficplane.dev/lb-algorithm": "maglev"}},
        "spec": {"ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]},
    }
    ports = [{"name": "http", "port": 8080}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [f"127.244.1.{number}"]} for number in (2, 3, 4)],
        "ports": ports,
    }
    manifests.write_text(yaml.safe_dump_all([service, endpoints]))
    spec = {"flows": 9_000, "manifests": ["manifests.yaml"], "conntrack": 0, "target": {"service": "web"}}
    file = written(tmp_path)
    document = yaml.safe_load(file.read_text())
    document["spec"] = {**spec, "timeline": [{"at": "1s", "remove": 1}]}
    file.write_text(yaml.safe_dump(document))
    (row,) = result_of(file).summary["algorithms"]
    assert row["algorithm"] == "configured"
    assert row["phases"][0]["slots"] == 2 * 16381
    assert row["phases"][1]["disrupted_share"] < 0.02
    _, counted = rows_of(result_of(file))
    assert set(counted["proto"].to_pylist()) == {6, 17}


EVERY = ["random", "rr", "lc", "p2c", "maglev", "ring", "jump", "rendezvous", "anchor", "maglev/251"]


@pytest.mark.parametrize(
    ("addresses", "weight", "backends"),
    [
        pytest.param([], None, [], id="no endpoint"),
        pytest.param([2], None, [2], id="one endpoint"),
        pytest.param([2, 3, 2, 2], None, [2, 3], id="an endpoint several times"),
        pytest.param([2, 3], "0", [], id="weights that are all 0"),
    ],
)
def test_every_algorithm_has_few_endpoints_or_none(
    tmp_path: Path, addresses: list[int], weight: str | None, backends: list[int]
) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    listed: dict[str, Any] = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [f"127.244.1.{each}"]} for each in addresses],
        "ports": [{"port": 8080}],
    }
    if weight is not None:
        listed["metadata"]["annotations"] = {"service.cilium.io/weight": weight}
    (tmp_path / "web.yaml").write_text(yaml.safe_dump_all([service, listed]))
    file = written(tmp_path)
    document = yaml.safe_load(file.read_text())
    document["spec"] = {
        "flows": 600,
        "balancers": 2,
        "manifests": ["web.yaml"],
        "target": {"service": "web"},
        "algorithms": EVERY,
        "timeline": [{"at": "1s", "failover": 1}],
    }
    file.write_text(yaml.safe_dump(document))
    result = result_of(file)
    for name in EVERY:
        for phase in phases_of(result, name):
            assert (phase["reject"], phase["without"]) == ((0, 0) if backends else (600, 600))
            assert phase["backends"] == len(backends)
            assert (phase["imbalance"] is None) == (not backends)
    _, counted = rows_of(result)
    busy = counted.filter(pc.and_(pc.greater(counted["flows"], 0), pc.equal(counted["phase"], 0)))
    assert {address & 0xFF for address in busy["ip"].to_pylist()} == set(backends)
    if len(addresses) < 2:  # a page of nothing is a page
        assert pages.page_of(result.folder, result.summary).count("<svg") == (5 if backends else 3)


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"algorithms": ["magelv"]}, "spec.algorithms[0]", "'magelv' is no algorithm: choose from random, rr"),
        ({"algorithms": ["maglev/1000"]}, "spec.algorithms[0]", "slots are a prime number, as in maglev/65537"),
        ({"algorithms": ["rr", "rr"]}, "spec.algorithms[1]", "'rr' is there already"),
        ({"flows": 10**9, "balancers": 2}, "spec.balancers", "write 60 or more"),
        ({"balancers": 20_001}, "spec.balancers", "are 20,001, more than there are flows"),
        ({"clients": "10.0.0.0/33"}, "spec.clients", "write one as 100.64.0.0/10"),
        ({"clients": "0.0.0.0/0"}, "spec.clients", "that is everybody"),
        ({"clients": "::/0"}, "spec.clients", "that is everybody"),
        ({"addresses": "IPv6"}, "spec.addresses", "goes with trace"),
        ({"bytes": {"mean": 0}}, "spec.bytes.mean", "greater than or equal to 1"),
        ({"bytes": {"mean": 9, "shape": "normal"}}, "spec.bytes.shape", "'normal' is no shape"),
        ({"manifests": ["a.yaml"]}, "spec", "needs exactly one of manifests and services"),
        ({"nodes": 3}, "spec.nodes", "goes with manifests"),
        ({"services": {"count": 10**6, "endpoints": 11}}, "spec.services.endpoints", "11,000,000 endpoints in all"),
        (
            {"timeline": [{"at": "2s", "remove": 1}, {"at": "1s", "add": 1}]},
            "spec.timeline[1].at",
            "is not after the event above it",
        ),
        ({"timeline": [{"at": "2s"}]}, "spec.timeline[0]", "needs exactly one of add, remove, drain, weigh, roll"),
        ({"timeline": [{"at": "2s", "restore": True, "service": "s1"}]}, "spec.timeline[0].service", "goes with add"),
    ],
)
def test_what_is_wrong_with_a_scenario_is_said(change: dict[str, Any], field: str, reason: str) -> None:
    assert reason in problems(**change)[field]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timeline": [{"at": "1s", "remove": 11}]}, "spec.timeline[0].remove: default/s1 has 10 endpoints"),
        (
            {"timeline": [{"at": "1s", "failNode": "node-77"}]},
            "spec.timeline[0].failNode: no endpoint is on node 'node-77'",
        ),
        (
            {"timeline": [{"at": "1s", "roll": {"step": 5}}, {"at": "21s", "restore": True}]},
            "spec.timeline[1].restore: the roll before it goes on until 21.0 s: begin after that",
        ),
        ({"timeline": [{"at": "1s", "failover": 5}]}, "spec.timeline[0].failover: 5 of 4 balancers can't fail"),
        ({"timeline": [{"at": "1s", "add": 1, "service": "x"}]}, "spec.timeline[0].add: there is no Service default/x"),
        (
            {"timeline": [{"at": "1s", "drain": 6}, {"at": "2s", "remove": 5}]},
            "spec.timeline[1].remove: default/s1 has 4 endpoints at that time that do not terminate: 5 are needed",
        ),
        (
            {"services": {"count": 2, "endpoints": 1}, "timeline": [{"at": "1s", "add": 1}]},
            "spec.timeline[0].add: there are 2 Services with endpoints: say which by service: NAME",
        ),
        ({"target": {"service": "x"}}, "spec.target.service: there is no Service default/x; there are: default/s1"),
        ({"target": {"service": "s1", "port": 81}}, "spec.target.port: Service default/s1 has no port 81"),
    ],
)
def test_what_can_not_happen_is_said_before_anything_runs(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    file = written(tmp_path, **change)
    found = CliRunner().invoke(bench, ["run", str(file), "--out", str(tmp_path / "out")])
    assert found.exit_code == 2
    assert words in found.output
    assert not (tmp_path / "out").exists()


def test_weights_that_an_algorithm_does_not_know_are_warned_of(tmp_path: Path) -> None:
    prepared = prepare(written(tmp_path, algorithms=["jump", "maglev"], timeline=[CHURN[3]]))
    assert list(running.warnings(prepared)) == [
        "jump knows no weights: endpoints of any weight but 0 have equal shares"
    ]


def test_what_a_service_asks_for_and_does_not_get_is_warned_of(tmp_path: Path) -> None:
    service, endpoints = made_up(1, 3, 1)
    service["spec"]["sessionAffinity"] = "ClientIP"
    service["metadata"] |= {"annotations": {SLOW_START_ANNOTATION: "30s"}, "uid": "u"}
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all([service, endpoints]))
    document = yaml.safe_load(written(tmp_path).read_text())
    document["spec"] = {"flows": 6_000, "manifests": ["all.yaml"], "algorithms": ["maglev", "ring"]}
    (tmp_path / "flows.yaml").write_text(yaml.safe_dump(document))
    assert list(running.warnings(prepare(tmp_path / "flows.yaml"))) == [
        "ring leaves session affinity out",
        "slow start is left out: every endpoint has its whole share at once",
    ]


def test_flows_that_do_not_go_round_make_fewer_balancers(tmp_path: Path) -> None:
    result = result_of(written(tmp_path, algorithms=["rr"], flows=10, balancers=7))
    assert (result.summary["balancers"], result.summary["algorithms"][0]["flows"]) == (5, 10)


def test_a_cluster_is_taken_as_it_stands(tmp_path: Path) -> None:
    """What kubectl gave out, with addresses that no plane of ours would give."""
    snapshot = Snapshot().changed(made_up(2, 3, 1))
    objects = [{**obj, "status": {"loadBalancer": {}}} for obj in snapshot.all("Service")]
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all([*objects, *snapshot.all("EndpointSlice")]))
    document = yaml.safe_load(written(tmp_path).read_text())
    document["spec"] = {"flows": 6_000, "manifests": ["all.yaml"], "target": {"service": "s2"}, "algorithms": ["rr"]}
    (tmp_path / "flows.yaml").write_text(yaml.safe_dump(document))
    _, counted = rows_of(result_of(tmp_path / "flows.yaml"))
    assert counted.filter(pc.equal(counted["member"], 1))["flows"].to_pylist() == [2_000] * 3
    assert counted["ip"].to_pylist() == [0x0A000001 + number for number in range(6)]


DUAL = [
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"clusterIP": addresses[0], "clusterIPs": addresses, "ports": [{"port": 80}]},
    }
    for name, addresses in (("both", ["fd00::1", "10.96.0.1"]), ("six", ["fd00::2"]), ("four", ["10.96.0.2"]))
] + [
    {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": family.lower(), "labels": {"kubernetes.io/service-name": "both"}},
        "addressType": family,
        "endpoints": [{"addresses": [address], "nodeName": "a"} for address in addresses],
        "ports": [{"port": 8080}],
    }
    for family, addresses in (("IPv4", ["10.244.0.1", "10.244.0.2"]), ("IPv6", ["fd01::1", "fd01::2", "fd01::3"]))
]


@pytest.mark.parametrize(("clients", "endpoints"), [(CLIENTS[0], 2), (CLIENTS[1], 3)])
def test_a_cluster_of_both_families_is_seen_over_each(tmp_path: Path, clients: str, endpoints: int) -> None:
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(DUAL))
    document = yaml.safe_load(written(tmp_path).read_text())
    spec = {"flows": 6_000, "manifests": ["all.yaml"], "clients": clients, "algorithms": ["rr"], "balancers": 1}
    document["spec"] = {**spec, "target": {"service": "both"}, "timeline": [{"at": "1s", "add": 1}]}
    (tmp_path / "flows.yaml").write_text(yaml.safe_dump(document))
    first, _ = phases_of(result_of(tmp_path / "flows.yaml"), "rr")
    assert (first["new"], first["backends"], first["frontends"]) == (6_000, endpoints, 2)
    other = {"four": "10.96.0.2", "six": "fd00::2"}
    for name, family in (("four", "IPv6"), ("six", "IPv4")):
        document["spec"] |= {"target": {"service": name}, "timeline": []}
        document["spec"]["clients"] = CLIENTS[family == "IPv6"]
        (tmp_path / "flows.yaml").write_text(yaml.safe_dump(document))
        with pytest.raises(ScenarioError) as caught:
            prepare(tmp_path / "flows.yaml")
        said = f"spec.target.service: Service default/{name} has no ClusterIP of {family}"
        assert said in str(caught.value)
        assert str(caught.value).endswith(f"give it one, it has {other[name]}")


@pytest.mark.parametrize("how", ["told to end", "interrupted at once"])
def test_a_run_that_is_stopped_leaves_the_shards_that_were_finished(tmp_path: Path, how: str) -> None:
    stop = threading.Event()

    def two(course: Course, shards: Any, stop: threading.Event) -> Any:
        for carried in here(course, shards, stop):
            yield carried
            if carried.shard.last == 2:
                stop.set()
                if how == "interrupted at once":
                    raise KeyboardInterrupt

    file = written(tmp_path, algorithms=["rr", "maglev"])
    result = running.run(prepare(file), tmp_path / "out", console(), two, stop)
    assert result.summary["interrupted"]
    assert [(row["algorithm"], row["flows"]) for row in result.summary["algorithms"]] == [("rr", 10_000)]
    with pytest.raises(KeyboardInterrupt):
        running.run(prepare(file), tmp_path / "out", console(), here, stop)
    assert [*(tmp_path / "out").iterdir()] == [result.folder]


def test_a_run_that_breaks_off_is_read_from_the_shards_that_were_finished(tmp_path: Path) -> None:
    """Of 7 balancers in two algorithms the last of the second is missing, in whatever order they were carried."""

    def breaking(course: Course, shards: Any, stop: threading.Event) -> Any:
        for shard in [shards[3], shards[0], *shards[4:6], *shards[1:3], shards[6]]:
            if shard.last == 7 and course.tables[0].rival is not None:
                raise PlaneError("nobody is left")
            yield carry(course, shard)

    file = written(tmp_path, algorithms=["maglev", "anchor"], conntrack=3_000, timeline=CHURN, balancers=7)
    with pytest.raises(PlaneError, match="nobody is left; what was finished until then is in ") as caught:
        result_of(file, breaking)
    folder = Path(str(caught.value).split()[-1])
    whole = result_of(file)
    is_there = pc.or_(pc.equal(rows_of(whole)[0]["algorithm"], "maglev"), pc.less(rows_of(whole)[0]["balancer"], 6))
    steered, counted = rows_of(running.Result(folder, {}))
    assert steered.equals(rows_of(whole)[0].filter(is_there))
    of_maglev = [rows.filter(pc.equal(rows["algorithm"], "maglev")) for rows in (counted, rows_of(whole)[1])]
    assert of_maglev[0].equals(of_maglev[1])
    reported = CliRunner().invoke(bench, ["report", str(folder), "-o", "json"])
    assert reported.exit_code == 0, reported.output
    summary = json.loads(reported.stdout)
    assert summary["interrupted"]
    assert [row["flows"] for row in summary["algorithms"]] == [20_000, 6 * 2_858]


def test_the_command_prints_json_and_the_report_can_be_made_again(tmp_path: Path) -> None:
    file = written(tmp_path, algorithms=["maglev"], timeline=CHURN[:1])
    ran = CliRunner().invoke(bench, ["run", str(file), "--out", str(tmp_path / "out"), "-o", "json"])
    assert ran.exit_code == 0, ran.output
    summary = json.loads(ran.stdout)
    again = CliRunner().invoke(bench, ["report", summary.pop("results"), "-o", "json"])
    assert json.loads(again.stdout) == summary
    stages = summary["algorithms"][0]["stages"]
    assert stages.keys() == {"generate", "steer", "follow", "all"}
    assert stages["all"]["flows"] == 2 * summary["flows"] == 40_000
    assert stages["steer"]["flows_per_s"] == pytest.approx(40_000 / stages["steer"]["seconds"])


def test_the_table_tells_what_moved(tmp_path: Path) -> None:
    result = result_of(written(tmp_path, algorithms=["anchor"], timeline=CHURN[:1]))
    shown = console()
    with shown.capture() as text:
        shown.print(tables(result.summary))
    lines = text.get().splitlines()
    line = lines[lines.index(next(line for line in lines if line.startswith("2 fewer of default/s1"))) + 1]
    assert line.split()[0] == "anchor"
    assert line.split()[3:5] == ["0.00", "%"]
    assert max(map(len, map(str.rstrip, lines))) <= 80


def test_imbalance_is_by_weight_and_nearest_rank() -> None:
    flows, weights = np.array([100] * 98 + [300, 210]), np.array([1] * 98 + [2, 2])
    found = imbalance(flows, weights)
    mean = flows.sum() / weights.sum()
    assert found == pytest.approx(
        {
            "p50_over_mean": 100 / mean,
            "p99_over_mean": 105 / mean,
            "max_over_mean": 150 / mean,
            "min_over_mean": 100 / mean,
        }
    )
    assert imbalance(np.zeros(3), np.ones(3)) is None
    assert imbalance(np.zeros(0), np.ones(0)) is None


def test_an_id_that_is_given_to_another_endpoint_is_no_endpoint_that_stays(tmp_path: Path) -> None:
    """One of ten goes while another comes: the id is reused, and whoever had it has moved, unavoidably."""
    fleet = Fleet(Snapshot().changed(made_up(1, 10, 2)), 0)
    before = dict(fleet.snapshot.backends)
    fleet.remove(("default", "s1"), 1, 0)
    fleet.add(("default", "s1"), 1)
    (gone,), (come,) = before.keys() - fleet.snapshot.backends.keys(), fleet.snapshot.backends.keys() - before.keys()
    assert fleet.snapshot.backends[come] == before[gone]
    timeline = [{"at": "1s", "remove": 1}, {"at": "2s", "add": 1}]
    result = result_of(written(tmp_path, algorithms=["anchor"], conntrack=20_000, timeline=timeline))
    fates = [{name: row[name] for name in ("kept", "disrupted")} for row in phases_of(result, "anchor")]
    assert fates[2] == {"kept": 20_000, "disrupted": 0}


@pytest.mark.parametrize(
    ("name", "median"),
    [
        ("constant", 1.0),
        ("exponential", math.log(2)),
        ("lognormal/1.5", math.exp(-(1.5**2) / 2)),
        ("pareto/3", 2 ** (1 / 3) * 2 / 3),
    ],
)
def test_made_flows_have_bytes_that_follow_from_their_numbers(name: str, median: float) -> None:
    sizes = Sizes(10_000, shape_of(name), 7)
    found = sizes.of(0, 200_000)
    assert np.array_equal(np.concatenate([sizes.of(0, 77), sizes.of(77, 200_000 - 77)]), found)
    assert found.mean() == pytest.approx(10_000, rel=0.03)
    assert np.median(found) == pytest.approx(10_000 * median, rel=0.02)
    assert found.min() >= 1
    others = Sizes(10_000, shape_of(name), 8).of(0, 200_000)
    assert name == "constant" or abs(np.corrcoef(np.log(found), np.log(others))[0, 1]) < 0.02


def test_imbalance_is_also_by_the_bytes_that_are_made(tmp_path: Path) -> None:
    """A heavy tail is uneven where connections are even; each phase has the same bytes."""
    timeline, sizes = [{"at": "1s", "remove": 1}], {"mean": 5_000, "shape": "pareto/1.2"}
    result = result_of(written(tmp_path, algorithms=["rr"], timeline=timeline, bytes=sizes))
    for phase in phases_of(result, "rr"):
        assert phase["imbalance"]["max_over_mean"] < 1.01
        assert phase["imbalance_by_bytes"]["max_over_mean"] > 1.02
    _, counted = rows_of(result)
    sums = counted.group_by("phase").aggregate([("bytes", "sum")])["bytes_sum"].to_pylist()
    assert sums == [int(Sizes(5_000, shape_of("pareto/1.2"), 0).of(0, 20_000).sum())] * 2


def test_rows_of_scenarios_in_the_repository_are_read() -> None:
    for file in CONFIGS.glob("flows-*.yaml"):
        if kind_of(file.read_text()) == KIND:
            assert len(prepare(file).phases) > 1


@pytest.mark.parametrize("clients", CLIENTS)
def test_a_trace_is_steered_as_it_is(tmp_path: Path, clients: str) -> None:
    """Made flows, written and read again, come to what they come to when they are made."""
    made = written(tmp_path, algorithms=["maglev"], timeline=CHURN[:2], conntrack=9_000, clients=clients)
    first = rows_of(result_of(made))
    prepared = prepare(made)
    family = prepared.scenario.spec.family
    fib = Maker(prepared.scenario, "maglev").make(prepared.phases)[0][0].fib
    flows = steering.Batch(20_000, family.address).flows
    generate(fib, population_of(prepared.scenario.spec, fib, prepared.phases[0].snapshot), 0, flows)
    write_flows(flows, tmp_path / "trace.arrow")
    document = yaml.safe_load(made.read_text())
    del document["spec"]["flows"], document["spec"]["clients"]
    document["spec"] |= {"trace": "trace.arrow", "addresses": family.name}
    made.write_text(yaml.safe_dump(document))
    assert [one.equals(other) for one, other in zip(first, rows_of(result_of(made)), strict=True)] == [True, True]


def test_a_trace_without_flows_is_refused(tmp_path: Path) -> None:
    write_flows(steering.Batch(0, IPV4.address).flows, tmp_path / "trace.arrow")
    file = written(tmp_path)
    document = yaml.safe_load(file.read_text())
    del document["spec"]["flows"]
    document["spec"]["trace"] = "trace.arrow"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(ScenarioError, match=r"spec\.trace: has 0 flows for 4 balancers"):
        prepare(file)


@pytest.mark.soak
def test_memory_does_not_grow_with_the_number_of_flows(tmp_path: Path) -> None:
    """Ten times the flows, each run in a process of its own, by its own account."""
    used = []
    for flows in (4_000_000, 40_000_000):
        file = written(tmp_path, algorithms=["maglev"], flows=flows, balancers=flows // 1_000_000, timeline=CHURN[:1])
        command = [sys.executable, "-m", "harness", str(file), "--out", str(tmp_path), "-o", "json"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        steered, _ = running.read(Path(json.loads(done.stdout)["results"]))
        used.append(int(provenance_of(steered)["peak_rss_bytes"]))
    assert abs(used[1] - used[0]) < 32 << 20


@pytest.mark.ray
async def test_a_worker_that_is_lost_is_replaced_and_the_result_is_the_same(tmp_path: Path) -> None:
    """Two actors, which die with shards under way: rows and loads are those of one process."""
    file = written(tmp_path, algorithms=["p2c", "anchor"], conntrack=1_000, timeline=CHURN, balancers=40)
    alone = rows_of(result_of(file))
    carrying: FlowActors

    def killing(course: Course, shards: Any, stop: threading.Event) -> Any:
        for number, carried in enumerate(carrying(course, shards, stop)):
            yield carried
            if number == 3:
                for actor in carrying.actors:
                    ray.kill(actor)

    async with connected():
        carrying = FlowActors(2)
        ray.kill(carrying.actors[0])  # before it is asked for anything
        await asyncio.to_thread(carrying.load)
        try:
            together = await asyncio.to_thread(result_of, file, killing, lost=lambda: carrying.lost)
        finally:
            carrying.end()
    assert together.summary["workers_lost"] == 5  # one before, and two of each algorithm
    assert [one.equals(other) for one, other in zip(alone, rows_of(together), strict=True)] == [True, True]


@pytest.mark.ray
async def test_what_no_worker_has_begun_is_left_when_a_run_is_to_stop(tmp_path: Path) -> None:
    """Of two shards that each of two actors has, the one at work; and none of them once the actors are ended."""
    file = written(tmp_path, algorithms=["maglev"], flows=160_000_000, balancers=32, timeline=CHURN[:1])
    courses: list[Course] = []
    shards = [Shard(number, number + 1) for number in range(32)]

    def noted(course: Course, _: Any, stop: threading.Event) -> Any:
        courses.append(course)
        return here(course, shards[:1], stop)

    result_of(file, noted)
    (course,) = courses
    async with connected():
        carrying, stop = FlowActors(2), threading.Event()
        await asyncio.to_thread(carrying.load)
        try:
            carried = carrying(course, shards, stop)
            await asyncio.to_thread(next, carried)
            stop.set()
            rest = await asyncio.to_thread(list, carried)
            assert 1 <= len(rest) <= 3  # two at work, and one begun before the actor was told

            stop.clear()
            carried = carrying(course, shards, stop)
            await asyncio.to_thread(next, carried)
            stop.set()
            carrying.end()
            assert len(await asyncio.to_thread(list, carried)) <= 2
        finally:
            carrying.end()


def _refuse() -> None:
    raise ValueError("out of room")


class Unreadable:
    """What no process can have of another."""

    def __reduce__(self) -> Any:
        return _refuse, ()


@pytest.mark.ray
async def test_workers_that_cannot_have_the_tables_carry_nothing_by_the_ones_before(tmp_path: Path) -> None:
    courses: list[Course] = []

    def noted(course: Course, shards: Any, stop: threading.Event) -> Any:
        courses.append(course)
        return here(course, shards, stop)

    result_of(written(tmp_path, algorithms=["maglev"], timeline=[], balancers=4), noted)
    shards, stop = [Shard(0, 2), Shard(2, 4)], threading.Event()
    async with connected():
        carrying = FlowActors(2)
        try:
            assert len(await asyncio.to_thread(list, carrying(courses[0], shards, stop))) == 2
            with pytest.raises(PlaneError, match=r"(?s)a worker cannot have the tables: .*out of room"):
                await asyncio.to_thread(list, carrying(Unreadable(), shards, stop))  # type: ignore[arg-type]
        finally:
            carrying.end()
