"""The join against relays that really run: what it says of a request is what the pod that answered saw."""

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from harness.drivers.http import Destination
from harness.drivers.stream import Stream
from harness.join import STAMP_EARLY_NS, join, opened
from harness.workload import Workload, request_ids
from kernels.layout import RR
from plane.addresses import AddressPlan, ip_to_int
from plane.proxy import Proxy
from tests.harness.subjects import OK, S, closed_loop
from tests.loopback import Pod, make_fib

pytestmark = pytest.mark.syscalls


@pytest.fixture
def relays(plan: AddressPlan) -> Iterator[list[Proxy]]:
    """Two nodes, which share the listeners of every frontend."""
    proxies = [Proxy(plan, node, connections=512) for node in (1, 2)]
    for proxy in proxies:
        proxy.start()
    yield proxies
    for proxy in proxies:
        proxy.stop(0)


@pytest.mark.parametrize("keep_alive", [True, False])
async def test_each_request_has_the_pod_that_saw_it(relays: list[Proxy], plan: AddressPlan, keep_alive: bool) -> None:
    vip = str(plan.cluster_ips[1200 + keep_alive]), 8080
    addresses = [(str(plan.pods_of(node)[100 + node]), 8080) for node in (1, 2, 3)]
    seen: dict[int, str] = {}
    with contextlib.ExitStack() as stack:
        for address in addresses:
            stack.enter_context(Pod(address, noting(seen, address[0])))
        for relay in relays:
            relay.install(make_fib(41, {vip: addresses}, RR))
        workload = Workload("test", keep_alive=keep_alive)
        task = closed_loop(Destination(*vip, (str(plan.pods_of(3)[7]),)), 12, 500, workload=workload)
        recorded = await Stream(task).run(time.monotonic_ns())
        route = join(
            recorded,
            id_key=task.id_key,
            frontend=(ip_to_int(vip[0]), vip[1]),
            service="default/web",
            ingress=[],
            connections=(accepted := [relay.recorded() for relay in relays]),
            pods={ip: [(0, f"default/{ip}", "")] for ip, _ in addresses},
        )
    rows = len(recorded.requests["done_ns"])
    assert rows > 12
    assert not recorded.requests["error"].any()
    assert set(route.generation) == {41}
    pods = [route.pod.texts[index] for index in route.pod.index]
    assert pods == [f"default/{seen[number]}" for number in request_ids(task.id_key, rows).tolist()]
    assert len(set(pods)) == 3  # one of the relays has six connections or more, and takes turns
    each = opened(
        recorded,
        frontend=(ip_to_int(vip[0]), vip[1]),
        service="default/web",
        connections=accepted,
        pods={ip: [(0, f"default/{ip}", "")] for ip, _ in addresses},
    )
    carried = recorded.requests["connection"]
    assert [each.pod.texts[index] for index in each.pod.index[carried]] == pods
    waited_ns = each.accepted_ns - recorded.connections["began_ns"]
    assert waited_ns.min() > -STAMP_EARLY_NS
    assert waited_ns.max() < 60 * S


def noting(seen: dict[int, str], name: str) -> Callable[[socket.socket], None]:
    """A pod that answers every request and notes under its own name which it was."""

    def serve(connection: socket.socket) -> None:
        while head := connection.recv(4096):
            found = re.search(rb"X-Request-ID: ([0-9a-f]{16})\r\n\r\n$", head)
            assert found
            seen[int(found[1], 16)] = name
            connection.sendall(OK)

    return serve
