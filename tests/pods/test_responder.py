"""The compiled responder as a pod: what it answers, how it ends, and what it says it cannot do."""

import asyncio
import threading

import aiohttp
import pytest

from kernels.net import httpresponder
from plane.pods import responder
from tests.loopback import open_descriptors
from tests.pods.hosting import address, client, container, fetch, hosting, pod_object, refuses

pytestmark = pytest.mark.syscalls


@pytest.fixture(scope="module", autouse=True)
def _compiled():
    httpresponder.warm()


@pytest.fixture
def ip(plan):
    return address(plan, 2)


def pod_of(ip, *args, annotations=None):
    made = pod_object(ip, container("trafficplane/responder", args=list(args)))
    made["metadata"]["annotations"] = annotations or {}
    return made


def threads():
    return [thread for thread in threading.enumerate() if thread.name == responder.PROGRAM]


async def test_it_answers_every_request_alike_with_as_many_bytes_as_asked_for(plan, ip):
    async with hosting(plan) as host, client() as session:
        await host.ready(pod_of(ip, "--size", "10240"))
        for method, body in (("GET", None), ("POST", b"x" * 100_000), ("PUT", b"")):
            async with session.request(method, f"http://{ip}:8080/any/path", data=body) as answer:
                assert (answer.status, len(await answer.read())) == (200, 10_240)
        async with session.head(f"http://{ip}:8080/") as answer:
            assert (answer.status, answer.content_length) == (200, 10_240)
    assert not threads()


async def test_an_idle_connection_is_closed_when_it_is_told_to_end_and_nothing_is_left(plan, ip):
    before = open_descriptors()
    async with hosting(plan) as host:
        pod = await host.ready(pod_of(ip, "--port", "8090"))
        reader, writer = await asyncio.open_connection(ip, 8090)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        pod.terminate(30)
        assert (await fetch(f"http://{ip}:8090/")).status == 200  # it goes on accepting for a quiet time
        await reader.readexactly(100)
        assert await asyncio.wait_for(reader.read(), 60) == b""
        await host.until(pod, lambda status: status.gone, 10)
        assert refuses(ip, 8090)
        writer.close()
        await writer.wait_closed()
    assert open_descriptors() == before
    assert not threads()


async def test_behaviour_is_refused_where_it_would_do_nothing(plan, ip):
    async with hosting(plan) as host:
        pod = host.start(pod_of(ip, annotations={"pod.trafficplane.dev/service-time": "10ms"}))
        status = await host.until(pod, lambda status: "serves none as it runs here" in status.message)
        assert status.reason == "RunContainerError"


async def test_a_request_in_chunks_ends_its_connection(plan, ip):
    async def chunks():
        yield b"x"

    async with hosting(plan) as host, client() as session:
        await host.ready(pod_of(ip))
        with pytest.raises(aiohttp.ClientError):
            async with session.post(f"http://{ip}:8080/", data=chunks()) as answer:
                await answer.read()
