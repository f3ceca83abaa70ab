"""Readiness probes over real sockets."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from plane.pods.probes import Readiness
from tests.pods.hosting import AGNHOST, NODE, WHOAMI, address, container, fetch, hosting, pod_object

PERIOD_S = 0.05


@pytest.fixture
def ip(plan):
    return address(plan, 2)


def probe(**fields):
    return {"periodSeconds": PERIOD_S, **fields}


@contextlib.asynccontextmanager
async def answering(ip: str, port: int, answer: Callable[[bytes], bytes], **options) -> AsyncIterator[list[tuple]]:
    """A server that answers each request head; yields (peer address, head) of those that came."""
    seen: list[tuple] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            seen.append((writer.get_extra_info("peername")[0], head))
            writer.write(answer(head))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, ip, port, **options)
    try:
        yield seen
    finally:
        server.close()
        await server.wait_closed()


def saying(status: int) -> Callable[[bytes], bytes]:
    return lambda head: b"HTTP/1.1 %d X\r\nContent-Length: 0\r\nLocation: /elsewhere\r\n\r\n" % status


async def test_ready_follows_the_probe_down_and_up_again(plan, ip):
    http_get = probe(httpGet={"path": "/health", "port": 8000}, failureThreshold=2)
    async with hosting(plan) as host:
        pod = await host.ready(pod_object(ip, container(WHOAMI, args=["--port=8000"], readinessProbe=http_get)))
        await fetch(f"http://{ip}:8000/health", method="POST", data=b"500")
        status = await host.until(pod, lambda status: not status.ready)
        assert status.phase == "Running"
        assert status.reason == "ReadinessProbeFailed"
        assert status.message == "Readiness probe failed: HTTP probe failed with statuscode: 500"
        await fetch(f"http://{ip}:8000/health", method="POST", data=b"200")
        status = await host.until(pod, lambda status: status.ready)
        assert (status.reason, status.message) == ("", "")


async def test_a_pod_is_not_ready_before_its_probe_succeeds(plan, ip):
    async with hosting(plan) as host:
        tcp = probe(tcpSocket={"port": 9000})
        pod = host.start(pod_object(ip, container(AGNHOST, args=["netexec"], readinessProbe=tcp)))
        status = await host.until(pod, lambda status: status.reason == "ReadinessProbeFailed")
        assert not status.ready
        assert status.message == f"Readiness probe failed: dial tcp {ip}:9000: connection refused"
        async with answering(ip, 9000, saying(200)):
            await host.until(pod, lambda status: status.ready)
        await host.until(pod, lambda status: not status.ready)


async def test_the_probe_comes_from_the_node_as_the_kubelets_with_its_headers(plan, ip):
    headers = [{"name": "Host", "value": "shop.example.com"}, {"name": "X-Probe", "value": "1"}]
    http_get = {"path": "healthz?full=1", "port": 9000, "httpHeaders": headers}
    row = container(AGNHOST, args=["pause"], readinessProbe=probe(httpGet=http_get))
    async with hosting(plan) as host, answering(ip, 9000, saying(204)) as seen:
        await host.ready(pod_object(ip, row))
    peer, head = seen[0]
    assert peer == plan.node(NODE)
    lines = head.decode().split("\r\n")
    assert lines[0] == "GET /healthz?full=1 HTTP/1.1"
    assert {"Host: shop.example.com", "X-Probe: 1"} <= set(lines)
    assert any(line.startswith("User-Agent: kube-probe/") for line in lines)


@pytest.mark.parametrize(("status", "ready"), [(200, True), (302, True), (399, True), (400, False), (503, False)])
async def test_statuses_from_200_to_399_are_success(plan, ip, status, ready):
    row = container(AGNHOST, args=["pause"], readinessProbe=probe(httpGet={"port": 9000}))
    async with hosting(plan) as host, answering(ip, 9000, saying(status)):
        pod = host.start(pod_object(ip, row))
        known = await host.until(pod, lambda status: status.ready or status.reason == "ReadinessProbeFailed")
        assert known.ready == ready


async def test_https_is_probed_without_checking_the_certificate(plan, ip):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("elsewhere.example.com").configure_cert(context)
    row = container(AGNHOST, args=["pause"], readinessProbe=probe(httpGet={"port": 9000, "scheme": "HTTPS"}))
    async with hosting(plan) as host, answering(ip, 9000, saying(200), ssl=context):
        await host.ready(pod_object(ip, row))


async def test_another_host_and_a_named_port_are_probed(plan, ip):
    other = address(plan, 3)
    ports = [{"name": "health", "containerPort": 9000}]
    http_get = {"port": "health", "host": other}
    row = container(AGNHOST, args=["pause"], ports=ports, readinessProbe=probe(httpGet=http_get))
    async with hosting(plan) as host, answering(other, 9000, saying(200)):
        await host.ready(pod_object(ip, row))


async def test_a_port_name_that_no_port_has_is_a_failure_that_says_so(plan, ip):
    row = container(AGNHOST, args=["netexec"], readinessProbe=probe(httpGet={"port": "web"}))
    async with hosting(plan) as host:
        pod = host.start(pod_object(ip, row))
        status = await host.until(pod, lambda status: status.reason == "ReadinessProbeFailed")
        assert 'no port named "web"' in status.message


async def test_no_answer_in_time_is_a_failure(plan, ip):
    held = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await held.wait()
        writer.close()

    server = await asyncio.start_server(hold, ip, 9000)
    row = container(AGNHOST, args=["pause"], readinessProbe=probe(httpGet={"port": 9000}, timeoutSeconds=0.1))
    async with hosting(plan) as host:
        pod = host.start(pod_object(ip, row))
        status = await host.until(pod, lambda status: status.reason == "ReadinessProbeFailed")
        assert status.message == "Readiness probe failed: no answer within 0.1 s"
    held.set()
    server.close()
    await server.wait_closed()


async def test_the_first_probe_waits_for_the_initial_delay(plan, ip):
    loop = asyncio.get_running_loop()
    row = container(AGNHOST, args=["netexec"], readinessProbe=probe(tcpSocket={"port": 8080}, initialDelaySeconds=0.4))
    async with hosting(plan) as host:
        begun = loop.time()
        pod = host.start(pod_object(ip, row))
        status = await host.until(pod, lambda status: status.phase == "Running")
        assert (status.ready, status.reason) == (False, "ContainersNotReady")
        await host.until(pod, lambda status: status.ready)
        assert loop.time() - begun >= 0.4


@pytest.mark.parametrize("handler", [{"exec": {"command": ["true"]}}, {"grpc": {"port": 9000}}])
async def test_a_probe_that_cannot_be_made_counts_as_ready_and_says_so(plan, ip, handler):
    async with hosting(plan) as host:
        pod = await host.ready(pod_object(ip, container(AGNHOST, args=["netexec"], readinessProbe=probe(**handler))))
        assert f"readinessProbe.{next(iter(handler))} is not made" in pod.status.message


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 4), st.integers(1, 4))
def test_readiness_changes_after_the_thresholds_in_a_row(outcomes, needed, allowed):
    readiness = Readiness(needed, allowed)
    for end in range(1, len(outcomes) + 1):
        ready = readiness.after(outcomes[end - 1])
        # The slow twin: the last run, long enough, that ends at or before here decides.
        decided = False
        for last in range(1, end + 1):
            for outcome, threshold in ((True, needed), (False, allowed)):
                if last >= threshold and all(row == outcome for row in outcomes[last - threshold : last]):
                    decided = outcome
        assert ready == decided
