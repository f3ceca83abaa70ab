"""How pods end: what they finish, what they refuse, and when they are gone."""

import asyncio
import contextlib
import time

import aiohttp
import pytest

from plane.pods import dial, server
from tests.loopback import open_descriptors
from tests.pods.hosting import (
    AGNHOST,
    NODE,
    address,
    ask,
    client,
    container,
    eventually,
    fetch,
    hosting,
    pod_object,
    refuses,
    says_close,
)


@pytest.fixture
def ip(plan):
    return address(plan, 2)


def netexec(ip, *args, **fields):
    return pod_object(ip, container(AGNHOST, args=["netexec", *args]), **fields)


@pytest.fixture
def never_quiet(monkeypatch):
    """A drain lasts as long as it may, so that no short one is taken for none."""
    monkeypatch.setattr(server, "QUIET_TICKS", 10**9)
    monkeypatch.setattr(server, "LISTEN_AT_MOST_S", 3600.0)


async def timed_gone(host, pod):
    """Seconds until the pod is gone."""
    begun = time.monotonic()
    await host.until(pod, lambda status: status.gone)
    return time.monotonic() - begun


async def test_an_idle_pod_is_gone_after_a_short_quiet_time(plan, ip, monkeypatch):
    monkeypatch.setattr(server, "LISTEN_AT_MOST_S", 3600.0)
    async with hosting(plan) as host:
        pod = await host.ready(netexec(ip))
        pod.terminate(30)
        status = await host.until(pod, lambda status: not status.ready)
        assert (status.reason, status.gone) == ("Terminating", False)
        assert 0.5 < await timed_gone(host, pod) < 25
        assert refuses(ip, 8080)


async def test_a_draining_pod_answers_new_connections_and_closes_each(plan, ip):
    async with hosting(plan) as host, client() as session:
        pod = await host.ready(netexec(ip))
        kept = await ask(session, f"http://{ip}:8080/hostname")
        assert "Connection" not in kept.headers
        pod.terminate(30)
        await eventually(lambda: says_close(session, f"http://{ip}:8080/hostname"))
        new = await fetch(f"http://{ip}:8080/hostname")
        assert (new.body, new.headers.get("Connection")) == ("web-0", "close")
        await host.until(pod, lambda status: status.gone)


async def test_a_pod_under_load_drains_without_a_failed_request(plan, ip):
    """Clients that keep their connections, and stop dialling once they are told to close, see no error."""
    async with hosting(plan) as host:
        pod = await host.ready(netexec(ip))
        answers: list[str | None] = []
        underway = asyncio.Event()

        async def load() -> None:
            async with client() as session:
                while True:
                    reply = await ask(session, f"http://{ip}:8080/hostname")
                    answers.append(reply.headers.get("Connection"))
                    if answers[-1] == "close":
                        return
                    if len(answers) == 100:
                        underway.set()

        loads = [asyncio.create_task(load()) for _ in range(8)]
        await underway.wait()
        pod.terminate(30)
        await asyncio.gather(*loads)
        assert answers.count("close") == 8
        await host.until(pod, lambda status: status.gone)


async def test_an_idle_kept_connection_does_not_hold_the_pod(plan, ip):
    async with hosting(plan) as host:
        pod = await host.ready(netexec(ip))
        reader, writer = await asyncio.open_connection(ip, 8080)
        pod.terminate(30)
        assert await timed_gone(host, pod) < 25
        assert await reader.read() == b""
        writer.close()


@pytest.mark.usefixtures("never_quiet")
async def test_no_grace_is_gone_at_once(plan, ip):
    async with hosting(plan) as host:
        pod = await host.ready(netexec(ip))
        pod.terminate(0)
        assert await timed_gone(host, pod) < 25
        assert refuses(ip, 8080)


async def test_what_is_left_at_the_deadline_is_aborted(plan, ip, monkeypatch):
    monkeypatch.setattr(dial, "TIMEOUT_S", 3600.0)
    async with hosting(plan) as host:
        pod = await host.ready(netexec(ip))
        arrived, silent = asyncio.Event(), asyncio.Event()

        async def never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            arrived.set()
            await silent.wait()
            writer.close()

        listener = await asyncio.start_server(never_answer, ip, 9000)
        # /dial waits for an answer, so it is in flight when the grace of 1.5 s is over.
        dialling = asyncio.create_task(fetch(f"http://{ip}:8080/dial?host={ip}&port=9000&request=x"))
        await arrived.wait()
        pod.terminate(1.5)
        assert 1.0 < await timed_gone(host, pod) < 25
        with pytest.raises(aiohttp.ClientError):
            await dialling
        silent.set()
        listener.close()
        await listener.wait_closed()


async def test_a_second_termination_shortens_the_grace(plan, ip):
    async with hosting(plan) as host:
        pod = await host.ready(netexec(ip, "--delay-shutdown=60"))
        pod.terminate(60)
        pod.terminate(0)
        assert await timed_gone(host, pod) < 25
        assert refuses(ip, 8080)


async def test_with_delay_shutdown_a_pod_goes_on_as_before_for_so_long(plan, ip):
    async with hosting(plan) as host:
        pod = await host.ready(netexec(ip, "--delay-shutdown=2"))
        begun = time.monotonic()
        pod.terminate(30)
        reply = await fetch(f"http://{ip}:8080/hostname")
        assert (reply.body, "Connection" in reply.headers, pod.status.ready) == ("web-0", False, True)
        await host.until(pod, lambda status: not status.ready)
        assert time.monotonic() - begun >= 2
        await host.until(pod, lambda status: status.gone)


@pytest.mark.usefixtures("never_quiet")
async def test_a_pod_that_never_started_is_gone_at_once(plan, ip):
    async with hosting(plan) as host:
        pod = host.start(netexec(ip, "--unknown"))
        await host.until(pod, lambda status: status.reason == "RunContainerError")
        pod.terminate(30)
        assert await timed_gone(host, pod) < 25


async def test_a_killed_pod_leaves_no_socket(plan, ip):
    before = open_descriptors()
    async with hosting(plan) as host:
        pod = await host.ready(netexec(ip))
        connections = [await asyncio.open_connection(ip, 8080, local_addr=(plan.node(NODE), 0)) for _ in range(3)]
        await pod.kill()
        assert pod.status.gone
        for reader, writer in connections:
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
    assert open_descriptors() == before
