"""Several gateway threads share the port of an ingress, and are one gateway to everybody else."""

import contextlib
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from plane import routecompiler
from tests.ingress.corpus import NAMES, services
from tests.ingress.manifests import snapshot_of, web
from tests.ingress.policies import WEB, with_
from tests.ingress.wire import Address, Client, Endpoint, Running, ask, client, eventually, running, saying

PORT = 10295
CLIENTS = 24  # that all come to one of two threads once in eight million times
RAW = b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n"
pytestmark = [pytest.mark.syscalls, pytest.mark.one_loop]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert not [thread for thread in threading.enumerate() if thread.name in ("gateway", "terminator")]


@contextlib.asynccontextmanager
async def clients(here: Running) -> AsyncIterator[list[Client]]:
    """Connections to both threads, each of which has been answered."""
    async with contextlib.AsyncExitStack() as stack:
        ones = [await stack.enter_async_context(client(here.http)) for _ in range(CLIENTS)]
        for one in ones:
            assert (await one.get()).status == 200
        assert here.ingress._gateway is not None
        assert all(thread.clients for thread in here.ingress._gateway.threads)
        yield ones


async def scraped(vip: str) -> str:
    return (await ask((vip, PORT), b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")).body.decode()


async def test_what_they_do_adds_up(vip: str, pods: list[Address]) -> None:
    which = running(vip, web(pods[0]), gateway=True, gateway_threads=2, recording=True, metrics_port=PORT)
    async with Endpoint(pods[0]) as endpoint, which as here, clients(here) as ones:
        for one in ones:
            one.send(b"PROPFIND / HTTP/1.1\r\nHost: example.com\r\n\r\n")  # which is not taken
            assert (await one.answer()).status == 200
        gateway, front = here.ingress._gateway, here.ingress._front
        assert gateway is not None
        await eventually(lambda: gateway.clients == CLIENTS and not front.open_connections)  # it is back
        said = await scraped(vip)
        assert f'trafficplane_ingress_punts_total{{reason="method"}} {CLIENTS}.0' in said
        assert f"trafficplane_ingress_client_connections {CLIENTS}.0" in said
        assert "trafficplane_ingress_gateway_up 1.0" in said
        counted = [line for line in said.splitlines() if line.startswith("trafficplane_ingress_requests_total")]
        assert [line.rpartition(" ")[2] for line in counted] == [f"{2 * CLIENTS}.0"]
        rows = await here.ingress.records()
        assert sorted(rows["path"]) == [0] * CLIENTS + [1] * CLIENTS
        assert len(endpoint.requests) == 2 * CLIENTS


async def test_routes_are_in_force_in_all_once_they_are_installed(vip: str, pods: list[Address]) -> None:
    which = running(vip, web(pods[0]), gateway=True, gateway_threads=2)
    async with Endpoint(pods[0]), Endpoint(pods[1], saying(b"other")), which as here, clients(here) as ones:
        await here.install(web(pods[1]))
        assert {(await one.get()).body for one in ones} == {b"other"}
        await eventually(lambda: set(here.ingress._tables) == {2})


async def test_an_endpoint_that_failed_for_one_is_passed_over_by_all(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[1]), running(vip, web(pods[1]), gateway=True, gateway_threads=2) as here:
        async with clients(here) as ones:
            await here.install(web(*pods[:2]))
            for one in ones:
                assert (await one.get()).status == (await one.get()).status == 200
        assert here.ingress._gateway is not None
        assert here.ingress._gateway.punts() == {"the endpoint takes no connection at once": 1}


async def test_a_limit_holds_for_all_of_them_together(vip: str, pods: list[Address]) -> None:
    base = services(8080, {name: ip for name, (ip, _) in zip(NAMES, pods, strict=True)})
    limited = snapshot_of(*base, with_(WEB, limit_rpm="1", limit_burst_multiplier="9"))
    async with Endpoint(pods[0]), running(vip, limited, gateway=True, gateway_threads=2) as here:
        got = [(await ask(here.http, RAW)).status for _ in range(CLIENTS)]
        assert got == [200] * 10 + [503] * (CLIENTS - 10)
        assert here.ingress._gateway is not None
        assert here.ingress._gateway.punts() == {}


async def test_one_that_fails_leaves_the_other_alone(
    vip: str, pods: list[Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise RuntimeError("no more")

    which = running(vip, web(pods[0]), gateway=True, gateway_threads=2, metrics_port=PORT)
    async with Endpoint(pods[0]), which as here, clients(here) as ones:
        gateway = here.ingress._gateway
        assert gateway is not None
        monkeypatch.setattr(gateway.threads[1], "_date", fails)
        for one in ones:
            assert (await one.get()).status == 200
        await eventually(lambda: here.ingress._problems)
        assert [thread.serves for thread in gateway.threads] == [True, False]
        assert {(await ask(here.http, RAW)).status for _ in range(CLIENTS)} == {200}
        assert "trafficplane_ingress_gateway_up 0.0" in await scraped(vip)
        installed = await here.ingress.install(routecompiler.compile(web(pods[0])))
        assert ["a thread of the compiled gateway has failed" in said for said in installed.problems] == [True]
        assert {(await one.get()).status for one in ones} == {200}


async def test_who_waits_to_be_accepted_by_either_when_it_stops_is_answered(vip: str, pods: list[Address]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(Endpoint(pods[0]))
        here = await stack.enter_async_context(running(vip, web(pods[0]), gateway=True, gateway_threads=2))
        ones = [await stack.enter_async_context(client(here.http)) for _ in range(CLIENTS)]
        for one in ones:
            one.send(RAW)
        await here.ingress.stop(10)
        assert {(await one.answer()).status for one in ones} == {200}
