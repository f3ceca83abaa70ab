"""A torn network: what is lost and what is not, on real sockets of nodes that really run."""

import asyncio
import contextlib
import errno
import select
import socket
import time
from collections.abc import Collection, Iterator

import pytest

from plane import partition
from plane.addresses import AddressPlan
from plane.model import Key
from tests.plane.local import fetch, serving
from tests.plane.served import deployment, service

AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.53"
LOST_S = 0.3  # what is lost does not come in that time
PATIENCE_S = 30.0  # what is not does in that


@pytest.fixture(autouse=True)
def whole(plan: AddressPlan) -> Iterator[None]:
    yield
    partition.tear(plan, frozenset())


@contextlib.contextmanager
def listening(ip: str) -> Iterator[socket.socket]:
    """A socket as a pod's server makes it."""
    with socket.socket() as bound:
        bound.bind((ip, 0))
        partition.take_side(bound)
        bound.listen()
        yield bound


def connecting(source: str, to: socket.socket) -> socket.socket:
    """A connection from an address, under way."""
    client = socket.socket()
    client.setblocking(False)
    client.bind((source, 0))
    assert client.connect_ex(to.getsockname()) in (0, errno.EINPROGRESS)
    return client


def there(clients: Collection[socket.socket]) -> set[socket.socket]:
    """Those that are connected after a while; none is refused. Linux connects them, and no process has a part in it."""
    until_s = time.monotonic() + LOST_S
    found: set[socket.socket] = set()
    while len(found) < len(clients) and (left_s := until_s - time.monotonic()) > 0:
        found |= set(select.select([], [each for each in clients if each not in found], [], left_s)[1])
    assert not any(each.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for each in clients)
    return found


@pytest.mark.parametrize("before", [True, False], ids=["a listener of before", "one of after"])
def test_only_what_goes_from_one_side_to_the_other_is_lost(plan: AddressPlan, before: bool) -> None:
    pod = {number: [str(plan.pods_of(number)[200 + each]) for each in (0, 1)] for number in (1, 2, 3)}
    nobody = "127.0.0.1"
    with contextlib.ExitStack() as stack:
        if not before:
            partition.tear(plan, frozenset({2}))
        servers = {ip: stack.enter_context(listening(ip)) for ip in (pod[1][0], pod[2][0], plan.node(2), plan.vip(1))}
        if before:
            partition.tear(plan, frozenset({2}))
        clients = {
            (source, ip): stack.enter_context(connecting(source, server))
            for source in (pod[1][1], pod[2][1], pod[3][1], plan.node(2), nobody)
            for ip, server in servers.items()
        }
        passed = there(clients.values())
        inside = {*pod[2], plan.node(2)}
        assert {way: client in passed for way, client in clients.items()} == {
            (source, ip): (source in inside) == (ip in inside) for source, ip in clients
        }


def test_what_is_lost_is_sent_again_once_the_network_is_whole(plan: AddressPlan) -> None:
    source, ip = str(plan.pods_of(1)[201]), str(plan.pods_of(2)[200])
    with listening(ip) as at, connecting(source, at) as client, at.accept()[0] as server:
        client.setblocking(True)
        server.settimeout(LOST_S)
        partition.tear(plan, frozenset({2}))
        client.sendall(b"late")
        with pytest.raises(TimeoutError):
            server.recv(4)
        partition.tear(plan, frozenset())
        server.settimeout(PATIENCE_S)
        assert server.recv(4) == b"late"


@pytest.mark.syscalls
async def test_a_node_that_is_cut_off_answers_nobody_but_its_own(plan: AddressPlan) -> None:
    """A Service with a pod on each of two nodes; its relays take turns."""
    turns, web = service(), deployment("web", replicas=2)
    turns["metadata"]["annotations"] = {"trafficplane.dev/lb-algorithm": "rr"}
    web["spec"]["template"]["spec"]["containers"] = [{"name": "web", "image": AGNHOST, "args": ["netexec"]}]
    async with serving(plan, [web, turns], nodes=2) as control:
        pods = {pod["spec"]["nodeName"]: pod for pod in control.store.snapshot.all("Pod")}
        assert len(pods) == 2
        address = pods["node-2"]["status"]["podIP"]
        vip = control.store.get(Key("Service", "default", "web"))["spec"]["clusterIP"]
        generation = control.store.snapshot.generation

        async def answers(within_s: float, ip: str = address, port: int = 8080) -> bool:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    return (await fetch(ip, port))[0] == 200
            return False

        assert await answers(PATIENCE_S)
        await control.cut_off({2})
        assert not await answers(LOST_S)
        asking = [asyncio.create_task(answers(PATIENCE_S, vip, plan.bound_port(80))) for _ in range(4)]
        assert await next(asyncio.as_completed(asking))
        _, lost = await asyncio.wait(asking, timeout=LOST_S)
        assert lost
        for each in lost:
            each.cancel()
        await asyncio.wait(lost)
        assert control.store.snapshot.generation == generation  # nobody is told
        await control.cut_off(())
        assert await answers(PATIENCE_S)
