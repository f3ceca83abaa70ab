"""A node: its pods, its relay and what it says of them, on real sockets."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import pytest

from plane.addresses import AddressPlan
from plane.errors import PlaneError
from plane.model import Object
from plane.node import Node
from plane.pods import server
from tests.loopback import make_fib, open_descriptors
from tests.pods.hosting import AGNHOST, PATIENCE_S, address, container, datagram, fetch, pod_object, refuses

pytestmark = pytest.mark.syscalls


@contextlib.asynccontextmanager
async def running(plan: AddressPlan, number: int = 1) -> AsyncIterator[Node]:
    node = Node(f"node-{number}", number, plan)
    await node.start()
    try:
        yield node
    finally:
        await node.stop(0)


def netexec(plan: AddressPlan, last: int, *, node: int = 1, name: str = "", uid: str = "", **spec: object) -> Object:
    row = container(AGNHOST, args=["netexec"])
    obj = pod_object(address(plan, last, node), row, name=name or f"web-{last}", **spec)
    return {**obj, "metadata": {**obj["metadata"], **({"uid": uid} if uid else {})}}


def deleted(obj: Object, grace_s: int = 30) -> Object:
    marks = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace_s}
    return {**obj, "metadata": {**obj["metadata"], **marks}}


async def said(node: Node, met) -> dict:
    """Statuses by pod name, the first that meet the condition, by long polls."""
    seen = 0
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                seen, rows = await node.statuses(seen, PATIENCE_S)
                if met(rows):
                    return {row.name: row for row in rows}
    except TimeoutError:
        raise AssertionError(f"last: {await node.statuses(0, 0)}") from None


def all_ready(rows) -> bool:
    return all(row.ready for row in rows)


async def test_pods_are_started_each_on_its_own_address(plan):
    pods = [netexec(plan, last) for last in (2, 3, 4)]
    async with running(plan) as node:
        await node.sync(pods)
        statuses = await said(node, all_ready)
        assert {name: (row.phase, row.reason, row.namespace) for name, row in statuses.items()} == {
            obj["metadata"]["name"]: ("Running", "", "default") for obj in pods
        }
        for obj in pods:
            assert (await fetch(f"http://{obj['status']['podIP']}:8080/hostname")).body == obj["metadata"]["name"]


async def test_statuses_wait_for_a_change_or_the_time(plan):
    async with running(plan) as node:
        begun = time.monotonic()
        assert await node.statuses(0, 0.2) == (0, [])
        assert time.monotonic() - begun >= 0.2
        polling = asyncio.create_task(node.statuses(0, PATIENCE_S))
        await node.sync([netexec(plan, 2)])
        version, rows = await polling
        assert version > 0
        assert [row.name for row in rows] == ["web-2"]


async def test_sync_again_changes_nothing(plan):
    pods = [netexec(plan, 2)]
    async with running(plan) as node:
        await node.sync(pods)
        before = (await said(node, all_ready))["web-2"]
        version, _ = await node.statuses(0, 0)
        await node.sync(pods)
        assert await node.statuses(version, 0.1) == (version, [before])


async def test_a_deleted_pod_drains_and_is_reported_gone_until_it_is_left_out(plan):
    obj, other = netexec(plan, 2), netexec(plan, 3)
    async with running(plan) as node:
        await node.sync([obj, other])
        await said(node, all_ready)
        await node.sync([deleted(obj), other])  # which does not wait for it
        statuses = await said(node, lambda rows: not all_ready(rows))
        assert (statuses["web-2"].ready, statuses["web-2"].gone, statuses["web-3"].ready) == (False, False, True)
        assert (await said(node, lambda rows: any(row.gone for row in rows)))["web-2"].gone
        await node.sync([deleted(obj), other])
        assert (await said(node, lambda rows: True))["web-2"].gone
        await node.sync([other])
        assert set(await said(node, lambda rows: True)) == {"web-3"}


async def test_a_deletion_again_with_no_grace_ends_it_at_once(plan, monkeypatch):
    monkeypatch.setattr(server, "QUIET_TICKS", 10**9)  # so that only a grace ends it
    monkeypatch.setattr(server, "LISTEN_AT_MOST_S", 3600.0)
    obj = netexec(plan, 2)
    async with running(plan) as node:
        await node.sync([obj])
        await said(node, all_ready)
        await node.sync([deleted(obj)])
        begun = time.monotonic()
        await node.sync([deleted(obj, 0)])
        await said(node, lambda rows: rows[0].gone)
        assert time.monotonic() - begun < 25  # of a grace of 30


async def test_a_missing_pod_is_killed_and_its_address_can_be_given_again(plan):
    async with running(plan) as node:
        await node.sync([netexec(plan, 2, name="old")])
        await said(node, all_ready)
        await node.sync([netexec(plan, 2, name="new", uid="another")])
        statuses = await said(node, all_ready)
        assert {name: row.restarts for name, row in statuses.items()} == {"new": 0}
        assert (await fetch(f"http://{address(plan, 2, 1)}:8080/hostname")).body == "new"


async def test_pods_of_two_nodes_reach_each_other_and_see_who_asks(plan):
    here, there = netexec(plan, 2, node=1), netexec(plan, 2, node=2)
    async with running(plan, 1) as first, running(plan, 2) as second:
        await first.sync([here])
        await second.sync([there])
        await said(first, all_ready)
        await said(second, all_ready)
        source, target = here["status"]["podIP"], there["status"]["podIP"]
        for port, protocol in ((8080, "http"), (8081, "udp")):
            dial = f"/dial?host={target}&port={port}&protocol={protocol}&request=clientip"
            responses = json.loads((await fetch(f"http://{source}:8080{dial}")).body)["responses"]
            assert [response.rpartition(":")[0] for response in responses] == [source]
        assert await datagram(target, 8081, b"hostname", source=source) == b"web-2"


async def test_a_cluster_ip_leads_to_its_pods_with_the_client_s_address(plan):
    service = str(plan.cluster_ips[300])
    pods = [netexec(plan, last) for last in (2, 3)]
    endpoints = [(obj["status"]["podIP"], 8080) for obj in pods]
    client = address(plan, 9, node=3)
    async with running(plan) as node:
        await node.sync(pods)
        await said(node, all_ready)
        assert (await node.install(make_fib(3, {(service, 7000): endpoints}))).generation == 3
        assert (await node.install(make_fib(2, {}))).generation == 3
        names = {(await fetch(f"http://{service}:7000/hostname")).body for _ in range(4)}
        assert names == {"web-2", "web-3"}
        seen = await fetch(f"http://{service}:7000/clientip", source=client)
        assert seen.body.rpartition(":")[0] == client
        records = await node.connections()
        assert len(records["client_ip"]) == 5


async def test_stop_leaves_no_socket(plan):
    before = open_descriptors()
    service = str(plan.cluster_ips[300])
    pods = [netexec(plan, last) for last in (2, 3)]
    async with running(plan) as node:
        await node.sync(pods)
        await said(node, all_ready)
        await node.install(make_fib(1, {(service, 7000): [(pods[0]["status"]["podIP"], 8080)]}))
        assert (await fetch(f"http://{service}:7000/hostname")).body == "web-2"
        await node.stop(5)
        assert refuses(service, 7000)
        assert all(refuses(obj["status"]["podIP"], 8080) for obj in pods)
        with pytest.raises(PlaneError, match="stopped"):
            await node.sync(pods)
    assert open_descriptors() == before


async def test_stop_waits_for_requests_as_long_as_it_may(plan):
    obj = netexec(plan, 2)
    arrived, silent = asyncio.Event(), asyncio.Event()

    async def answer_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        arrived.set()
        await silent.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nlate")
        writer.close()

    ip = obj["status"]["podIP"]
    late = await asyncio.start_server(answer_late, address(plan, 3, 1), 9000)
    async with running(plan) as node:
        await node.sync([obj])
        await said(node, all_ready)
        dial = f"http://{ip}:8080/dial?host={address(plan, 3, 1)}&port=9000&request=x"
        asking = asyncio.create_task(fetch(dial))
        await arrived.wait()
        stopping = asyncio.create_task(node.stop(10))
        await asyncio.wait([stopping], timeout=1.5)
        assert not stopping.done()
        silent.set()
        assert json.loads((await asking).body) == {"responses": ["late"]}
        await stopping
    late.close()
    await late.wait_closed()
