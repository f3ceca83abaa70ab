"""Requests through a plane that really runs: where each was, and that client, ingress and pods count the same."""

import asyncio
import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from harness import hops, records
from harness.drivers.http import Destination
from harness.drivers.stream import Stream, Task
from harness.join import join
from harness.records import LoadRows
from harness.workload import Workload, id_key
from plane.addresses import AddressPlan, ip_to_int
from plane.behaviour import PREFIX
from plane.control import ControlPlane
from plane.model import Key
from tests.harness.subjects import MS, closed_loop, in_turn, open_loop
from tests.ingress.test_seeing import scraped
from tests.ingress.wire import eventually
from tests.plane.local import LocalFleet, serving
from tests.plane.served import deployment, ingress, service

pytestmark = pytest.mark.syscalls

METRICS_PORT = 10254
AGNHOST = {"image": "registry.k8s.io/e2e-test-images/agnhost:2.53", "args": ["netexec", "--http-port=8080"]}
SERVICE_MS = 5
FAILING = {"service-time": f"constant {SERVICE_MS}ms", "concurrency": "2", "queue": "3", "error-rate": "20%"}


@dataclass(frozen=True)
class Counts:
    """One run as each of those who took part has it.

    table  the rows of the client's loads
    log    statuses by the access log, and ``recorded`` by the ingress's records
    series requests by (Ingress, status) by its metrics
    pods   requests answered by each pod, by its node
    """

    table: pa.Table
    sent: int
    log: Counter[int]
    recorded: Counter[int]
    series: Counter[tuple[str, str]]
    pods: dict[str, int]


@pytest.fixture(scope="module")
def counts(plan: AddressPlan, tmp_path_factory: pytest.TempPathFactory) -> Counts:
    log = tmp_path_factory.mktemp("run") / "access.log"
    return replace(asyncio.run(run(plan, log)), log=statuses(log))


def statuses(log: Path) -> Counter[int]:
    return Counter(json.loads(line)["status"] for line in log.read_text().splitlines())


async def run(plan: AddressPlan, log: Path) -> Counts:
    fleet = LocalFleet(plan, recording=True, access_log=str(log), metrics_port=METRICS_PORT)
    web = [behaving("web", 3, FAILING), service(), ingress()]
    slow = [behaving("slow", 1, {"service-time": "constant 60s"}), service("slow"), ingress("slow", "slow.example")]
    async with serving(plan, [*web, *slow], fleet=fleet) as control:
        vip = control.store.get(Key("Service", "default", "web"))["spec"]["clusterIP"]
        to_ingress, to_service = Destination(plan.vip(1), plan.bound_port(80)), Destination(vip, plan.bound_port(80))
        here, nobody, hasty = (Workload(host) for host in ("example.com", "nobody.example", "slow.example"))
        patient = {
            "some": open_loop(to_ingress, 400, 500, workload=here, id_key=id_key(7, 0)),
            "nobody": open_loop(to_ingress, 100, 500, workload=nobody, id_key=id_key(7, 1)),
            "relayed": in_turn(to_service, 20, 500, workload=here, id_key=id_key(7, 3)),
        }
        # Alone, so that all of its requests are there before their time is over.
        gone = closed_loop(to_ingress, 20, 500, workload=hasty, id_key=id_key(7, 2), timeout_ns=1000 * MS)
        loads = [await measured(control, gone, "hasty")]
        loads += await asyncio.gather(*(measured(control, task, name) for name, task in patient.items()))
        sent = sum(int(each.recorded.requests["attempts"].sum()) for each in loads if each.load != "relayed")
        # A client that has given up is heard of a little later.
        await eventually(lambda: statuses(log).total() == sent)
        (one,) = control.ingresses.values()
        samples = (await scraped(plan.vip(1)))["trafficplane_ingress_requests"].samples
        served = [await member.agent.served_counts() for member in control.nodes.values()]
        recorded = (await one.agent.records())["status"]
    return Counts(
        records.tabulate(loads, 0, {}),
        sent,
        Counter(),
        Counter(recorded.tolist()),
        Counter({(row.labels["ingress"], row.labels["status"]): int(row.value) for row in samples}),
        {pod: count for each in served for pod, count in each.items() if count},
    )


def behaving(name: str, replicas: int, behaviour: dict[str, str]) -> Any:
    """A Deployment whose pods behave so."""
    made = deployment(name, replicas=replicas)
    template = made["spec"]["template"]
    template["metadata"]["annotations"] = {f"{PREFIX}{key}": text for key, text in behaviour.items()}
    template["spec"]["containers"][0] |= AGNHOST
    return made


async def by_gateway(plan: AddressPlan) -> pa.Table:
    """The rows of a load whose requests the compiled gateway takes."""
    fleet = LocalFleet(plan, recording=True, gateway=True)
    web = [behaving("web", 2, {"service-time": f"constant {SERVICE_MS}ms"}), service(), ingress()]
    async with serving(plan, web, fleet=fleet) as control:
        to_ingress = Destination(plan.vip(1), plan.bound_port(80))
        task = in_turn(to_ingress, 100, 500, workload=Workload("example.com"), id_key=id_key(7, 0))
        return records.tabulate([await measured(control, task, "some")], 0, {})


async def measured(control: ControlPlane, task: Task, load: str) -> LoadRows:
    """The rows of a load, joined as a run joins them."""
    recorded = await Stream(task).run(time.monotonic_ns())
    nodes = [member.agent for member in control.nodes.values()]
    (one,) = control.ingresses.values()
    route = join(
        recorded,
        id_key=task.id_key,
        frontend=(ip_to_int(task.destination.ip), task.destination.port),
        service="default/web",
        ingress=[await one.agent.records()],
        connections=await asyncio.gather(*(node.connections() for node in nodes)),
        pods=control.pods_seen(),
        served=await asyncio.gather(*(node.served() for node in nodes)),
    )
    return LoadRows(load, recorded, route, task.id_key)


def answered(table: pa.Table, load: str) -> pa.Table:
    return table.filter(pc.and_(pc.equal(table["load"], load), pc.is_valid(table["done_ns"])))


def test_client_ingress_and_pods_count_the_same(counts: Counts) -> None:
    # A client that left before its answer was whole is 499 to the ingress (NGINX's word), and a timeout to itself.
    rows = counts.table.filter(pc.not_equal(counts.table["load"], "relayed")).select(["load", "status", "error"])
    own = Counter((row["load"], 499 if row["error"] == "timeout" else row["status"]) for row in rows.to_pylist())
    assert {status for load, status in own if load == "some"} >= {200, 500}
    assert (own["nobody", 404], own["hasty", 499]) == (50, 20)
    by_status: Counter[int] = Counter()
    for (_, status), count in own.items():
        by_status[status] += count
    assert counts.sent == rows.num_rows
    assert counts.log == counts.recorded == by_status
    ingress_of = {"some": "web", "nobody": "", "hasty": "slow"}
    assert counts.series == {(ingress_of[load], str(status)): count for (load, status), count in own.items()}
    by_pod = Counter(answered(counts.table, "some")["pod"].to_pylist())
    assert counts.pods == by_pod + Counter(answered(counts.table, "relayed")["pod"].to_pylist())


WAY = [
    *("sent_ns", "ingress_received_ns", "ingress_routed_ns", "ingress_picked_ns", "upstream_connected_ns"),
    *("pod_received_ns", "upstream_first_byte_ns", "done_ns"),
]


def check_parts(rows: pa.Table) -> None:
    """They sum up, and whoever has a record has a part of its own."""
    kept_waiting = pc.field("status") < 503  # who finds the queue full is told so at once
    assert pc.min(rows.filter(kept_waiting)["service_ns"]).as_py() >= SERVICE_MS * MS
    parts = hops.parts_ns(rows)
    assert parts.sum(axis=1).tolist() == pc.subtract(rows["done_ns"], rows["intended_ns"]).to_pylist()
    assert (parts[:, hops.NAMES.index("pod")] == rows["service_ns"].to_numpy()).all()
    assert not parts[:, [hops.NAMES.index("wait"), hops.NAMES.index("receive")]].any()


def test_each_row_says_where_its_time_went(counts: Counts) -> None:
    by_ingress, by_relay = answered(counts.table, "some"), answered(counts.table, "relayed")
    assert (np.diff([by_ingress[name].to_numpy() for name in WAY], axis=0) >= 0).all()
    assert set(by_ingress["upstream_reused"].to_pylist()) <= {0, 1}  # a machine that stalls asks all at once
    assert [set(rows["path"].to_pylist()) for rows in (by_ingress, by_relay)] == [{"slow"}, {None}]
    assert set(by_relay["retries"].to_pylist()) == {None}
    assert by_relay.num_rows == 10
    check_parts(by_ingress)
    check_parts(by_relay)


def test_so_does_each_that_the_compiled_gateway_takes(plan: AddressPlan) -> None:
    rows = asyncio.run(by_gateway(plan))
    assert rows.num_rows == 50
    known = ("route", "service", "pod", "node", "generation", *WAY)
    assert {name: rows[name].null_count for name in known} == dict.fromkeys(known, 0)
    assert [set(rows[name].to_pylist()) for name in ("path", "retries", "status")] == [{"fast"}, {0}, {200}]
    assert set(rows["upstream_reused"].to_pylist()) == {0, 1}
    assert (np.diff([rows[name].to_numpy() for name in WAY], axis=0) >= 0).all()
    check_parts(rows)
