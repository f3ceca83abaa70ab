"""The control plane with real nodes and a real ingress in this process: the same objects that Ray's actors hold."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from plane import fib, nodetables, routes
from plane.control import ControlPlane
from plane.errors import PlaneError
from plane.installed import Installed
from plane.model import SERVICE_LABEL, Key, Object, Snapshot
from tests.plane.local import LocalFleet, fetch, serving

pytestmark = pytest.mark.syscalls
DEPLOYMENT = Key("Deployment", "default", "web")


def manifests(replicas: int = 3) -> list[Object]:
    container = {
        "name": "web",
        "image": "registry.k8s.io/e2e-test-images/agnhost:2.53",
        "args": ["netexec", "--http-port=8080"],
    }
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {
                "rules": [
                    {
                        "host": "example.com",
                        "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
                    }
                ]
            },
        },
    ]


def ready_pods(control: ControlPlane) -> set[str]:
    return {
        pod["metadata"]["name"]
        for pod in control.store.snapshot.all("Pod")
        if "deletionTimestamp" not in pod["metadata"]
    }


async def test_every_pod_answers_through_the_cluster_ip_and_through_the_ingress(plan):
    async with serving(plan, manifests()) as control:
        service = control.store.get(Key("Service", "default", "web"))
        status = control.store.get(Key("Ingress", "default", "web"))["status"]["loadBalancer"]["ingress"][0]
        assert status["ip"] == plan.vip(1)
        for host, port in (
            (service["spec"]["clusterIP"], plan.bound_port(80)),
            (status["ip"], status["ports"][0]["port"]),
        ):
            answers = [await fetch(host, port) for _ in range(40)]
            assert {body for _, body in answers} == ready_pods(control)
            assert {code for code, _ in answers} == {200}


async def test_scaling_3_6_2_while_requests_run_fails_none(plan):
    async with serving(plan, manifests()) as control:
        service_ip = control.store.get(Key("Service", "default", "web"))["spec"]["clusterIP"]
        targets = ((service_ip, plan.bound_port(80)), (plan.vip(1), plan.bound_port(80)))
        answers: list[tuple[int, str]] = []
        done = asyncio.Event()

        async def client(host: str, port: int) -> None:
            while not done.is_set():
                answers.append(await fetch(host, port))

        async with asyncio.TaskGroup() as group:
            for host, port in targets:
                group.create_task(client(host, port))
            for replicas in (6, 2):
                control.store.merge_patch(DEPLOYMENT, {"spec": {"replicas": replicas}})
                await control.wait(control.store.snapshot.generation)
                await control.ready(60)
                async with asyncio.timeout(60):
                    generation = 0
                    while sum(1 for _ in control.store.snapshot.all("Pod")) != replicas:
                        generation = (await control.store.changed_since(generation)).generation
                    enough = len(answers) + 100
                    async with asyncio.timeout(60):
                        while len(answers) < enough:
                            await asyncio.sleep(0.01)
            done.set()
        assert {code for code, _ in answers} == {200}
        assert len({body for _, body in answers}) == 6


async def test_a_lost_node_leaves_the_tables_the_others_go_on_and_it_comes_back(plan):
    async with serving(plan, manifests()) as control:
        fleet = control.fleet
        there = {
            pod["metadata"]["name"] for pod in control.store.snapshot.all("Pod") if pod["spec"]["nodeName"] == "node-1"
        }
        generation = control.store.snapshot.generation
        fleet.nodes[1].lost.set()
        async with asyncio.timeout(60):
            while control.nodes[1].acknowledged is not None:
                generation = (await control.store.changed_since(generation)).generation
        await control.wait(control.store.snapshot.generation)
        survivors = {body for _, body in [await fetch(plan.vip(1), plan.bound_port(80)) for _ in range(20)]}
        assert survivors == ready_pods(control) - there
        await control.ready(60)
        answers = [await fetch(plan.vip(1), plan.bound_port(80)) for _ in range(20)]
        assert {body for _, body in answers} == ready_pods(control)
        back = [pod for pod in control.store.snapshot.all("Pod") if pod["metadata"]["name"] in there]
        assert [pod["status"]["containerStatuses"][0]["restartCount"] for pod in back] == [1] * len(there)


def handed_to(
    agent: Any, generation: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[tuple[Any, ...]], list[bool]]:
    """What an agent is handed from now on, and where to say, by [True], that its next install does nothing."""
    handed: list[tuple[Any, ...]] = []
    misses: list[bool] = []
    install = agent.install

    async def noted(*tables: Any) -> Installed:
        handed.append(tables)
        if misses and misses.pop():
            return Installed(generation())
        return await install(*tables)

    monkeypatch.setattr(agent, "install", noted)
    return handed, misses


async def test_a_change_is_handed_over_as_a_patch_and_all_tables_to_a_node_that_missed_one_or_has_just_come(
    plan, monkeypatch
):
    monkeypatch.setattr(nodetables, "PATCHES", 3)  # then they are laid down whole
    async with serving(plan, manifests(1)) as control:
        node = control.fleet.nodes[1].agent
        handed, misses = handed_to(node, lambda: node._proxy.generation, monkeypatch)

        async def moved(address: str) -> None:
            """Another endpoint, which nobody dials; it is in the tables of both nodes then."""
            rows = [{"addresses": [address], "conditions": {"ready": True}}]
            metadata = {"name": "by-hand", "namespace": "default", "labels": {SERVICE_LABEL: "web"}}
            obj = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata}
            ports = [{"name": "", "port": 8080, "protocol": "TCP"}]
            await control.apply([{**obj, "addressType": "IPv4", "endpoints": rows, "ports": ports}])
            wanted = fib.compile(control.store.snapshot)
            for each in control.fleet.nodes.values():
                assert fib.equal(each.agent._proxy._in_force.fib, wanted)

        await moved("192.0.2.1")
        [(whole, patch, health, names)] = handed
        assert (whole, health, names) == (None, None, None)
        assert patch.before
        assert patch.nbytes < 2000
        handed.clear()
        misses[:] = [True]
        await moved("192.0.2.2")
        [(_, missed, _, _), (whole, patch, health, names)] = handed
        assert missed.before
        assert whole is not None or not patch.before
        assert None not in (health, names)
        handed.clear()
        for host in range(3, 9):
            await moved(f"192.0.2.{host}")
        assert all(whole is None and patch.before for whole, patch, _, _ in handed)
        assert control._published.journal.whole is not None
        control.fleet.nodes[1].lost.set()
        async with asyncio.timeout(60):
            while control.nodes[1].lives < 2:
                await asyncio.sleep(0.01)
        await moved("192.0.2.9")


async def test_a_change_of_routes_is_handed_over_as_a_patch_and_whole_to_an_ingress_that_missed_one(plan, monkeypatch):
    async with serving(plan, manifests(1)) as control:
        ingress = control.fleet.ingresses[1].agent
        handed, misses = handed_to(ingress, lambda: ingress.generation, monkeypatch)

        async def more(host: str) -> None:
            """One host more, for which an Ingress of its own asks."""
            [found] = [obj for obj in manifests(1) if obj["kind"] == "Ingress"]
            rules = [{**found["spec"]["rules"][0], "host": host}]
            await control.apply([{**found, "metadata": {**found["metadata"], "name": host}, "spec": {"rules": rules}}])
            assert (await fetch(plan.vip(1), plan.bound_port(80), name=host))[0] == 200
            assert routes.equal(ingress._routes, control._published.routes)

        await more("one.com")
        [(whole, patch)] = handed
        assert whole is None
        assert patch.routes["hosts"].numbers.tolist() == [2]
        handed.clear()
        misses[:] = [True]
        await more("two.com")
        assert [(whole is None, patch is None) for whole, patch in handed] == [(True, False), (False, True)]
        handed.clear()
        await more("three.com")
        assert [(whole is None, patch is None) for whole, patch in handed] == [(True, False)]


async def test_a_lost_ingress_comes_back_by_itself_with_nothing_else_going_on(plan):
    lines: list[str] = []
    async with serving(plan, manifests(), notice=lines.append) as control:
        control.fleet.ingresses[1].lost.set()
        async with asyncio.timeout(60):
            while control.ingresses[1].lives < 2:
                await asyncio.sleep(0.01)
        assert (await fetch(plan.vip(1), plan.bound_port(80)))[0] == 200
    assert lines == ["ingress-1 is lost, it is started again", "ingress-1 is back"]


async def test_a_port_that_is_taken_is_told_once_and_everything_else_is_served(plan):
    lines: list[str] = []
    async with serving(plan, manifests(), notice=lines.append) as control:
        with socket.create_server(("0.0.0.0", 0)) as taken:
            port = taken.getsockname()[1]
            other = {**manifests()[1], "metadata": {"name": "other", "namespace": "default"}}
            other["spec"] = {"selector": {"app": "web"}, "ports": [{"port": port, "targetPort": 8080}]}
            await control.apply([other])
            [line] = lines
            address = control.store.get(Key("Service", "default", "other"))["spec"]["clusterIP"]
            assert f"cannot listen on {address}:{port}/TCP: Address already in use" in line
            assert [line] == [
                row["message"] for row in control.store.snapshot.all("Event") if "cannot listen" in row["message"]
            ]
            assert all(member.acknowledged is not None for member in control.nodes.values())
            assert (await fetch(plan.vip(1), plan.bound_port(80)))[0] == 200


async def test_what_cannot_be_compiled_is_told_and_the_tables_before_stay_in_force(plan, monkeypatch):
    lines: list[str] = []
    async with serving(plan, manifests(), notice=lines.append) as control:
        compiled = nodetables.Compiler.compile

        def broken(self: nodetables.Compiler, snapshot: Snapshot, *given: Any) -> nodetables.NodeTables:
            if snapshot.get("Service", "default", "other"):
                raise ValueError("what nobody thought of")
            return compiled(self, snapshot, *given)

        monkeypatch.setattr(nodetables.Compiler, "compile", broken)
        other = {**manifests()[1], "metadata": {"name": "other", "namespace": "default"}}
        with pytest.raises(PlaneError, match="what nobody thought of"):
            await control.apply([other])
        assert "those before stay in force" in lines[0]
        assert (await fetch(plan.vip(1), plan.bound_port(80)))[0] == 200
        control.store.delete(Key("Service", "default", "other"))
        await control.wait(control.store.snapshot.generation)


async def test_tables_that_cannot_be_handed_out_are_told_and_the_next_ones_are(plan, monkeypatch):
    lines: list[str] = []
    async with serving(plan, manifests(), notice=lines.append) as control:
        other = {**manifests()[1], "metadata": {"name": "other", "namespace": "default"}}
        with monkeypatch.context() as patch:
            patch.setattr(control.fleet, "share", lambda tables: (_ for _ in ()).throw(MemoryError("no room")))
            with pytest.raises(PlaneError, match="no room"):
                await control.apply([other])
        assert "those before stay in force" in lines[0]
        await control.apply([{**other, "metadata": {**other["metadata"], "labels": {"a": "b"}}}])
        address = control.store.get(Key("Service", "default", "other"))["spec"]["clusterIP"]
        assert (await fetch(address, plan.bound_port(80)))[0] == 200


async def test_an_agent_that_fails_as_nobody_thought_of_is_started_again(plan, monkeypatch):
    lines: list[str] = []
    async with serving(plan, manifests(), notice=lines.append) as control:
        with monkeypatch.context() as patch:
            patch.setattr(control.fleet.nodes[1].agent, "install", lambda *_: (_ for _ in ()).throw(ValueError("odd")))
            other = {**manifests()[1], "metadata": {"name": "other", "namespace": "default"}}
            await control.apply([other])
        async with asyncio.timeout(60):
            while control.nodes[1].lives < 2:
                await asyncio.sleep(0.01)
        await control.ready(60)
        assert (await fetch(plan.vip(1), plan.bound_port(80)))[0] == 200
    assert lines == ["node-1 is lost, it is started again", "node-1 is back"]


async def test_a_node_whose_relay_has_died_is_started_again_with_nothing_else_going_on(plan):
    lines: list[str] = []
    async with serving(plan, manifests(), notice=lines.append) as control:
        control.fleet.nodes[1].agent._proxy._in_force.relay.loop[0]["epoll"] = -1
        async with asyncio.timeout(60):
            while control.nodes[1].lives < 2:
                await asyncio.sleep(0.01)
        await control.ready(60)
    assert lines == ["node-1 is lost, it is started again", "node-1 is back"]


async def test_a_pod_that_names_its_node_is_told_to_it_once_it_has_an_address(plan):
    template = manifests()[0]["spec"]["template"]["spec"]
    metadata = {"name": "early", "namespace": "default"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**template, "nodeName": "node-1"}}
    control = ControlPlane(plan, LocalFleet(plan))
    control.store.apply([pod])  # there is no node that could give it one
    await control.start(nodes=1)
    try:
        await control.ready(60)
        status = control.store.get(Key("Pod", "default", "early"))["status"]
        assert status["containerStatuses"][0]["restartCount"] == 0
        assert (await fetch(status["podIP"], 8080))[1] == "early"
    finally:
        await control.stop(grace_s=1)


async def test_ready_says_what_is_not_and_why(plan):
    control = ControlPlane(plan, LocalFleet(plan))
    await control.start(nodes=1)
    try:
        broken = manifests(1)[0]
        probe = {"tcpSocket": {"port": 9}, "periodSeconds": 1}
        broken["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] = probe
        await control.apply([broken])
        with pytest.raises(PlaneError, match=r"(?s)not ready after 3 s.*Pod default/web-.*refused"):
            await control.ready(3)
    finally:
        await control.stop(grace_s=0)


async def test_a_port_that_is_taken_stops_the_start_and_is_named(plan):
    taken = await asyncio.start_server(lambda r, w: w.close(), plan.vip(1), plan.bound_port(80))
    control = ControlPlane(plan, LocalFleet(plan))
    async with taken:
        with pytest.raises(PlaneError, match=f"{plan.vip(1)}:{plan.bound_port(80)}"):
            await control.start(nodes=1)
