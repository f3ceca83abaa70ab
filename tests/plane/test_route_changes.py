"""A whole plane whose routes change while it is asked, its HTTP carried by compiled code: nobody is told an error."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from plane.addresses import AddressPlan
from plane.control import ControlPlane
from plane.model import Key
from tests.ingress.manifests import endpoint as ready
from tests.ingress.manifests import ingress, prefix, rule, service, slice_of
from tests.ingress.test_under_load import Streams, Tunnel
from tests.ingress.wire import PATIENCE_S, Address, Client, Endpoint, ask, client
from tests.plane.local import LocalFleet, serving

METRICS = 10298
pytestmark = pytest.mark.syscalls


@pytest.fixture
def pods(plan: AddressPlan) -> list[Address]:
    return [(str(plan.pods_of(1)[number]), 8080) for number in (90, 91)]


@pytest.fixture
async def plane(plan: AddressPlan, pods: list[Address]) -> AsyncIterator[ControlPlane]:
    """One Service ``one`` with an endpoint, ``two`` with another, ``both`` with both, and a route to each."""
    there = {"one": pods[:1], "two": pods[1:2], "both": pods[:2]}
    objects = [
        *(service(name) for name in there),
        *(slice_of(name, *(ready(ip) for ip, _ in those)) for name, those in there.items()),
        *(ingress(name, rule(f"{name}.com", prefix("/", name))) for name in there),
    ]
    fleet = LocalFleet(plan, gateway=True, metrics_port=METRICS)
    async with serving(plan, objects, nodes=1, fleet=fleet) as control:
        yield control


@pytest.fixture
def http(plan: AddressPlan) -> Address:
    return plan.vip(1), plan.bound_port(80)


async def asked(one: Client, host: str) -> int:
    one.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return (await one.answer()).status


async def test_routes_come_go_and_change_and_nobody_is_told_an_error(
    plane: ControlPlane, http: Address, pods: list[Address]
) -> None:
    """A host's requests get 404 until its route is there, and 200 from then on; others get 200 all the time."""
    store, streams, answers, done = plane.store, Streams(), Counter[tuple[str, int]](), asyncio.Event()

    async def asking(host: str) -> None:
        async with client(http) as one:
            while not done.is_set():
                answers[host, await asked(one, host)] += 1

    async with Endpoint(pods[0], serve=streams.serve), Endpoint(pods[1]), client(http) as one, client(http) as other:
        tunnel = Tunnel(other)
        one_com = ingress("example", rule("example.com", prefix("/", "one")))
        await plane.apply([one_com])
        await tunnel.open()
        async with asyncio.TaskGroup() as group:
            for host in ("one.com", "two.com"):
                group.create_task(asking(host))
            for number in range(40):
                store.replace(ingress("two", rule("two.com", prefix("/", ("one", "two")[number % 2]))))
                store.replace(ingress("example", *one_com["spec"]["rules"], rule(f"{number}.com", prefix("/", "two"))))
                store.create(ingress(f"new-{number}", rule(f"new-{number}.com", prefix("/", "one"))))
                if number > 2:
                    store.delete(Key("Ingress", "default", f"new-{number - 3}"))
                statuses = [await asked(one, f"new-{number}.com")]
                async with asyncio.timeout(PATIENCE_S):
                    while statuses[-1] != 200:
                        statuses.append(await asked(one, f"new-{number}.com"))
                assert set(statuses[:-1]) <= {404}
                assert await tunnel.says(b"%d" % number)
            done.set()
        assert await asked(one, "new-36.com") == 404
        assert {status for _, status in answers} == {200}
        assert {host for host, _ in answers} == {"one.com", "two.com"}


async def test_an_endpoint_that_fails_is_tried_by_one_request_more_and_by_no_other(
    plane: ControlPlane, http: Address, pods: list[Address]
) -> None:
    async def tries() -> int:
        text = (await ask((http[0], METRICS), b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).body
        found = re.findall(r"^trafficplane_ingress_retries_total\{.*both:80.*\} (\S+)$", text.decode(), re.MULTILINE)
        return int(sum(map(float, found)))

    async with Endpoint(pods[1]) as stays, client(http) as one:
        async with Endpoint(pods[0]) as fails:
            assert [await asked(one, "both.com") for _ in range(6)] == [200] * 6
            assert len(fails.requests) == len(stays.requests) == 3
        assert [await asked(one, "both.com") for _ in range(20)] == [200] * 20
        assert len(stays.requests) == 23
        assert await tries() == 1
