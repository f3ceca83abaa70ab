"""Events of a timeline by the real API, and what processes use by the kernel's own counters."""

import asyncio
import base64
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from harness import certificates, events, records, report, resources
from harness.events import Planned, planned, playing
from harness.resources import watching
from harness.scenario import Scenario, ScenarioError, parse
from plane import kubeconfig, offline, statuses
from plane.addresses import AddressPlan
from plane.client import Client
from plane.kinds import Kind
from plane.model import Key, Object, Snapshot
from tests.harness.test_report import loop, made, steady
from tests.plane.served import Served, deployment, service, serving

SCENARIO = """
apiVersion: trafficplane.dev/v1alpha1
kind: Scenario
metadata: {name: eventful}
spec:
  manifests: [web.yaml]
  loads:
  - name: steady
    target: {url: "http://127.0.0.1/"}
    arrivals: {rate: 100/s}
    duration: 10s
  timeline:
"""


def scenario(*lines: str) -> Scenario:
    return parse(SCENARIO + "".join(f"  - {line}\n" for line in lines))


@pytest.fixture
def api(plan: AddressPlan, tmp_path: Path) -> Iterator[Served]:
    with serving(plan, tmp_path) as served:
        served.call(lambda store: store.apply([deployment("web"), service("web")]))
        yield served


@pytest.fixture
def settled(plan: AddressPlan) -> Snapshot:
    return offline.settled([deployment("web"), service("web")], nodes=1, plan=plan)


class Befallen:
    """Notes what befalls a plane, whose generation is 7."""

    def __init__(self) -> None:
        self.noted: list[object] = []

    async def kill_node(self, number: int) -> int:
        self.noted.append(number)
        return 7

    async def cut_off(self, nodes: frozenset[int]) -> int:
        self.noted.append(set(nodes))
        return 7


class Spared:
    """Nothing was to befall it."""

    async def kill_node(self, number: int) -> int:
        raise AssertionError(f"node {number} was to live")

    async def cut_off(self, nodes: frozenset[int]) -> int:
        raise AssertionError(f"nodes {nodes} were not to be cut off")


def happening(planned: Planned) -> events.Happened:
    """The row of an event that begins now."""
    return events.Happened(planned.event.text, 0, 0)


def test_events_go_by_the_api_and_are_done_once_they_are_acknowledged(
    api: Served, settled: Snapshot, tmp_path: Path
) -> None:
    (tmp_path / "more.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\n")
    lines = [
        "{at: 0s, scale: {deployment: web, replicas: 4}}",
        "{at: 1ms, restart: web}",
        "{at: 2ms, apply: more.yaml}",
        "{at: 3ms, deletePod: web}",
        "{at: 900s, scale: {deployment: web, replicas: 0}}",
    ]
    asked = parse(SCENARIO.replace("duration: 10s", "duration: 1000s") + "".join(f"  - {line}\n" for line in lines))
    plan = planned(asked, tmp_path / "scenario.yaml", settled)
    access = kubeconfig.read(api.kubeconfig)

    async def play() -> list[events.Happened]:
        async with playing(plan, access, Spared(), time.monotonic_ns()) as happened:
            while len(happened) < 4 or any(row.done_ns is None and row.error is None for row in happened):
                await asyncio.sleep(0.01)
        return happened

    happened = {row.event: row for row in asyncio.run(asyncio.wait_for(play(), 60))}
    assert {name: row.error for name, row in happened.items()} == dict.fromkeys(
        ["scale web to 4", "restart web", "apply more.yaml", "delete a pod of web"]
    )
    assert api.get("ConfigMap", "default", "more")
    spec = api.get("Deployment", "default", "web")["spec"]
    assert spec["replicas"] == 4  # and the event that was not due when the run was over did not happen
    assert events.RESTARTED in spec["template"]["metadata"]["annotations"]
    assert (happened["delete a pod of web"].pod or "").startswith("default/web-")
    assert [happened[name].pod for name in ("scale web to 4", "restart web", "apply more.yaml")] == [None] * 3
    for row in happened.values():
        assert row.generation in api.waited
        assert row.done_ns is not None
        assert row.intended_ns <= row.begun_ns < row.done_ns


def test_a_pod_is_made_slow_and_made_to_fail_by_its_annotations(api: Served, settled: Snapshot, tmp_path: Path) -> None:
    asked = scenario(
        "{at: 0s, slowPod: {deployment: web, serviceTime: exponential 50ms}}",
        "{at: 1ms, failPod: {deployment: web, errorRate: 20%}}",
    )
    access = kubeconfig.read(api.kubeconfig)
    name = min(api.call(lambda store: list(store.snapshot.rows("Pod"))))[1]
    for each in planned(asked, tmp_path / "scenario.yaml", settled):
        row = happening(each)
        assert events.act(each, access, row) in api.waited
        assert row.pod == f"default/{name}"
        assert events.told(vars(row)) == f"{each.event.text}: default/{name}"
    annotations = api.get("Pod", "default", name)["metadata"]["annotations"]
    assert (
        annotations.items()
        >= {
            "pod.trafficplane.dev/service-time": "exponential 50ms",
            "pod.trafficplane.dev/error-rate": "20%",
        }.items()
    )


@pytest.mark.parametrize("what", ["deletePod: web", "slowPod: {deployment: web, serviceTime: 50ms}"])
def test_a_pod_that_ends_between_the_look_and_the_deed_is_not_the_one(
    api: Served, settled: Snapshot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    ended: list[str] = []

    class Overtaken(Client):
        def list(self, kind: Kind, namespace: str | None = None, selector: str = "") -> tuple[list[Object], str]:
            found, generation = super().list(kind, namespace, selector)
            if not ended:
                ended.append(min(pod["metadata"]["name"] for pod in found))
                self.delete(Key("Pod", "default", ended[0]))
            return found, generation

    monkeypatch.setattr(events, "Client", Overtaken)
    (event,) = planned(scenario(f"{{at: 0s, {what}}}"), tmp_path / "scenario.yaml", settled)
    row = happening(event)
    assert events.act(event, kubeconfig.read(api.kubeconfig), row) in api.waited
    assert (row.pod or "").startswith("default/web-")
    assert row.pod != f"default/{ended[0]}"


def test_a_node_is_drained_of_what_comes_again(
    api: Served, settled: Snapshot, plan: AddressPlan, tmp_path: Path
) -> None:
    nodes = [statuses.node(number, plan, ready=True, now="2026-01-01T00:00:00Z") for number in (1, 2)]
    web = deployment("web", replicas=4)
    spec = {**web["spec"]["template"]["spec"], "nodeName": "node-2"}
    lone = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lone", "namespace": "default"}, "spec": spec}
    api.call(lambda store: store.update(nodes))
    api.call(lambda store: store.apply([lone, web]))
    drain, uncordon = planned(
        scenario("{at: 0s, drainNode: 2}", "{at: 1ms, uncordonNode: 2}"), tmp_path / "scenario.yaml", settled
    )
    access = kubeconfig.read(api.kubeconfig)
    assert events.act(drain, access, happening(drain)) in api.waited
    pods = api.call(lambda store: list(store.snapshot.all("Pod")))
    staying = {pod["metadata"]["name"]: pod for pod in pods if "deletionTimestamp" not in pod["metadata"]}
    assert staying.pop("lone")["spec"]["nodeName"] == "node-2"
    assert [pod["spec"]["nodeName"] for pod in staying.values()] == ["node-1"] * 4
    assert api.get("Node", "", "node-2")["spec"]["unschedulable"] is True
    assert events.act(uncordon, access, happening(uncordon)) in api.waited
    assert "unschedulable" not in api.get("Node", "", "node-2")["spec"]


def test_a_certificate_is_made_anew_by_the_same_authority(api: Served, settled: Snapshot, tmp_path: Path) -> None:
    asked = parse(
        SCENARIO.replace("  loads:", "  certificates: [{secret: shop-tls, hosts: [shop.example]}]\n  loads:")
        + "  - {at: 0s, rotateCertificate: shop-tls}\n"
    )
    issued = certificates.issued(asked.spec.certificates)
    (first,) = issued.secrets
    api.call(lambda store: store.apply([first]))
    (rotation,) = planned(asked, tmp_path / "scenario.yaml", settled, issued)
    assert events.act(rotation, kubeconfig.read(api.kubeconfig), happening(rotation)) in api.waited
    chain = base64.b64decode(api.get("Secret", "default", "shop-tls")["data"]["tls.crt"])
    now, before = (x509.load_pem_x509_certificate(each) for each in (chain, first["stringData"]["tls.crt"].encode()))
    assert now.serial_number != before.serial_number
    now.verify_directly_issued_by(x509.load_pem_x509_certificate(issued.authority.encode()))


def test_what_a_pod_can_not_be_made_to_do_is_said_with_its_field() -> None:
    with pytest.raises(ScenarioError) as wrong:
        scenario(
            "{at: 0s, slowPod: {deployment: web, serviceTime: 50}}",
            "{at: 0s, slowPod: {deployment: web, serviceTime: quickly}}",
            "{at: 0s, failPod: {deployment: web, errorRate: 200%}}",
        )
    said = {problem.field: problem.reason for problem in wrong.value.problems}
    assert "put it into quotes" in said["spec.timeline[0].slowPod.serviceTime"]
    assert "write 10ms" in said["spec.timeline[1].slowPod.serviceTime"]
    assert "0% to 100%" in said["spec.timeline[2].failPod.errorRate"]


def test_an_event_that_fails_says_why_and_the_run_is_not_what_was_asked_for(
    api: Served, settled: Snapshot, tmp_path: Path
) -> None:
    plan = planned(scenario("{at: 0s, scale: {deployment: web, replicas: 4}}"), tmp_path / "x.yaml", settled)
    api.call(lambda store: store.delete(Key("Deployment", "default", "web")))
    access = kubeconfig.read(api.kubeconfig)

    async def play() -> list[events.Happened]:
        async with playing(plan, access, Spared(), time.monotonic_ns() - 1) as happened:
            await asyncio.sleep(0)
        return happened

    (row,) = asyncio.run(play())
    assert row.error
    assert "web" in row.error
    assert row.done_ns is None
    table = made(steady(), loop())
    assert report.summarise(table, report.Beside(events.tabulate([row], "r")))["met"] is False


def test_a_node_is_killed_and_events_come_in_the_order_of_time(settled: Snapshot, tmp_path: Path) -> None:
    befallen = Befallen()
    plan = planned(scenario("{at: 2ms, killNode: 2}", "{at: 1ms, killNode: 1}"), tmp_path / "x.yaml", settled)

    async def play() -> None:
        async with playing(plan, None, befallen, time.monotonic_ns()) as happened:
            while len(befallen.noted) < 2:
                await asyncio.sleep(0.001)
        assert [(row.event, row.generation) for row in happened] == [("kill node-1", 7), ("kill node-2", 7)]

    asyncio.run(asyncio.wait_for(play(), 60))
    assert befallen.noted == [1, 2]


def test_nodes_are_cut_off_one_after_the_other_and_none_is_when_the_run_is_over(
    settled: Snapshot, tmp_path: Path
) -> None:
    befallen = Befallen()
    lines = ["{at: 0s, partitionNode: 2}", "{at: 1ms, partitionNode: 1}", "{at: 2ms, healNode: 2}"]
    plan = planned(scenario(*lines), tmp_path / "x.yaml", settled)

    async def play() -> None:
        async with playing(plan, None, befallen, time.monotonic_ns()) as happened:
            while len(befallen.noted) < 3:
                await asyncio.sleep(0.001)
        assert [row.event for row in happened] == ["partition node-2", "partition node-1", "heal node-2"]
        assert {row.generation for row in happened} == {7}

    asyncio.run(asyncio.wait_for(play(), 60))
    assert befallen.noted == [{2}, {1, 2}, {1}, set()]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{at: 10s, restart: web}", "spec.timeline[0].at: is not before the end of the last load"),
        ("{at: 1s, killNode: 4}", "spec.timeline[0].killNode: there are 3 nodes, counted from 1"),
        ("{at: 1s, partitionNode: 4}", "spec.timeline[0].partitionNode: there are 3 nodes, counted from 1"),
        ("{at: 1s, healNode: 1}", "spec.timeline[0].healNode: node-1 is not cut off then: put partitionNode before it"),
        ("{at: 1s, uncordonNode: 1, namespace: a}", "spec.timeline[0].namespace: is that of a Deployment or a Secret"),
        (
            "{at: 1s, rotateCertificate: shop-tls}",
            "spec.timeline[0].rotateCertificate: no certificate of spec.certificates has the Secret default/shop-tls; "
            "there are: none",
        ),
        ("{at: 1s, killNode: 1, restart: web}", "spec.timeline[0]"),
        ("{at: 1s}", "spec.timeline[0]"),
    ],
)
def test_events_that_cannot_be_are_named(line: str, problem: str) -> None:
    with pytest.raises(ScenarioError) as caught:
        scenario(line)
    assert any(problem in str(row) for row in caught.value.problems)


def test_a_partition_ends_before_a_cluster_would_give_the_node_up() -> None:
    def problems(*lines: str) -> list[str]:
        text = SCENARIO.replace("duration: 10s", "duration: 60s") + "".join(f"  - {line}\n" for line in lines)
        try:
            parse(text)
        except ScenarioError as wrong:
            return [str(problem) for problem in wrong.problems]
        return []

    assert not problems("{at: 1s, partitionNode: 2}", "{at: 41s, healNode: 2}", "{at: 42s, partitionNode: 2}")
    for lines in (["{at: 1s, partitionNode: 2}"], ["{at: 42s, healNode: 2}", "{at: 1s, partitionNode: 2}"]):
        (problem,) = problems(*lines)
        assert "partitionNode: lasts " in problem
        assert "a cluster would give the node up after 40 s" in problem
    (again,) = problems("{at: 30s, partitionNode: 2}", "{at: 31s, partitionNode: 2}")
    assert "spec.timeline[1].partitionNode: node-2 is cut off already: put healNode between them" in again


def test_a_timeline_needs_a_plane() -> None:
    with pytest.raises(ScenarioError) as caught:
        parse((SCENARIO + "  - {at: 1s, restart: web}\n").replace("  manifests: [web.yaml]\n", ""))
    assert "needs manifests" in str(caught.value.problems[0])


def test_what_an_event_needs_is_looked_for_before_the_run(settled: Snapshot, tmp_path: Path) -> None:
    asked = scenario("{at: 1s, restart: wbe}", "{at: 2s, apply: nothing.yaml}")
    with pytest.raises(ScenarioError) as caught:
        planned(asked, tmp_path / "x.yaml", settled)
    told = [str(row) for row in caught.value.problems]
    assert "there is no Deployment default/wbe; there are: default/web" in told[0]
    assert f"spec.timeline[1].apply: there is no {tmp_path / 'nothing.yaml'}" in told[1]


def test_processes_are_read_by_name_and_found_again_when_they_come_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(resources, "EVERY_S", 0.02)
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    with contextlib.ExitStack() as stack:
        children = [stack.enter_context(subprocess.Popen(sleeper)) for _ in range(2)]
        for child in children:
            stack.callback(child.kill)
        serving_now = [children[0]]
        found: list[int] = []

        async def find() -> dict[str, int]:
            found.append(len(found))
            down = len(found) == 2  # it takes a while to come back
            return {"control": os.getpid()} if down else {"control": os.getpid(), "node-1": serving_now[0].pid}

        async def watch() -> list[resources.Sample]:
            async with watching(find, time.monotonic_ns()) as samples:
                while not samples:
                    await asyncio.sleep(0.01)
                serving_now[0] = children[1]
                children[0].kill()
                children[0].wait()
                while samples[-1].pid != children[1].pid:
                    await asyncio.sleep(0.01)
            return samples

        samples = asyncio.run(asyncio.wait_for(watch(), 60))
    own = [sample for sample in samples if sample.process == "control"]
    assert {sample.pid for sample in own} == {os.getpid()}
    assert own == sorted(own, key=lambda sample: (sample.at_ns, sample.cpu_ns))
    assert all(sample.rss_bytes > 2**20 and sample.fds > 3 for sample in own)
    table = resources.tabulate(samples, "r")
    records.write(table, tmp_path / resources.FILE)
    assert report.beside(tmp_path).resources.equals(table)  # type: ignore[union-attr]


def test_plans_without_events_need_no_api() -> None:
    assert planned(parse(SCENARIO.replace("  timeline:\n", "")), Path("x.yaml"), Snapshot()) == []
    assert Planned(scenario("{at: 1s, killNode: 3}").spec.timeline[0]).event.text == "kill node-3"
