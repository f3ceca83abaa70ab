"""An endpoint that fails is left out for a while; the others have its requests, and it comes back."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from plane.ingress.timeouts import Timeouts
from tests.ingress.manifests import web
from tests.ingress.test_balance import all_of
from tests.ingress.test_balance import web as balanced
from tests.ingress.test_failures import GET, hanging_up, silent
from tests.ingress.wire import Address, Endpoint, Message, ask, client, eventually, read_head, running, saying
from tests.loopback import reset

LASTING = Timeouts(out_s=3600.0)  # so that nothing comes back while a test looks
BRIEF = Timeouts(out_s=0.2)


async def resetting(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    endpoint.requests.append(await read_head(reader))
    reset(writer.get_extra_info("socket"))


async def nonsense(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    endpoint.requests.append(await read_head(reader))
    writer.write(b"SSH-2.0-x\r\n\r\n")


FAILURES = [
    pytest.param(hanging_up, id="closes"),
    pytest.param(resetting, id="resets"),
    pytest.param(silent, id="is silent"),
    pytest.param(nonsense, id="speaks no HTTP"),
]


@pytest.mark.parametrize("algorithm", ["rr", "random", "lc", "sh", "ewma"])
@pytest.mark.parametrize("serve", FAILURES)
async def test_a_failed_backend_is_out_of_rotation_within_one_request(
    vip: str, pods: list[Address], serve: object, algorithm: str
) -> None:
    """Whatever became of that request: no later one meets it."""
    said = {"load_balance": "ewma"} if algorithm == "ewma" else {}
    snapshot = balanced(*pods[:2], algorithm="" if said else algorithm, **said)
    async with (
        Endpoint(pods[0], serve=serve) as bad,  # type: ignore[arg-type]
        Endpoint(pods[1]) as good,
        running(vip, snapshot, timeouts=replace(LASTING, read_s=0.5) if serve is silent else LASTING) as here,
    ):
        for number in range(12):
            await ask(here.http, GET)
            if bad.requests:
                break
            if algorithm == "sh" and number:  # the client's own endpoint is the good one
                return
        assert len(bad.requests) == 1
        asked = len(good.requests)
        for _ in range(6):
            assert (await ask(here.http, GET)).status == 200
        assert (len(bad.requests), len(good.requests)) == (1, asked + 6)
        assert here.ingress._pool.out == 1


async def test_a_refused_connection_puts_its_endpoint_out(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[1]), running(vip, web(*pods[:2]), recording=True, timeouts=LASTING) as here:
        for _ in range(6):
            assert (await ask(here.http, GET)).status == 200
        assert Counter((await here.ingress.records())["retries"]) == {0: 5, 1: 1}


async def test_where_all_are_out_all_are_in(vip: str, pods: list[Address]) -> None:
    async with running(vip, web(*pods[:3]), timeouts=LASTING) as here:
        assert (await ask(here.http, GET)).status == 502
        assert here.ingress._pool.out == 3
        async with all_of(pods[:3]):
            found = [(await ask(here.http, GET)).body for _ in range(6)]
            assert here.ingress._pool.out < 3  # who answers is in again
        assert found[0] in (b"0", b"1", b"2")


async def test_who_answers_is_in_again(vip: str, pods: list[Address]) -> None:
    """Of a single endpoint nothing is lost by being out: it is asked as ever, and one answer is enough."""
    async with running(vip, web(pods[0]), timeouts=LASTING) as here:
        assert (await ask(here.http, GET)).status == 502
        assert here.ingress._pool.out == 1
        async with Endpoint(pods[0]):
            assert (await ask(here.http, GET)).status == 200
        assert here.ingress._pool.out == 0


async def test_the_time_out_of_rotation_ends(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[1]), running(vip, web(*pods[:2]), timeouts=BRIEF) as here:
        while not here.ingress._pool.out:
            assert (await ask(here.http, GET)).status == 200
        async with Endpoint(pods[0]) as back:
            await eventually(lambda: not here.ingress._pool.out)
            for _ in range(2):
                assert (await ask(here.http, GET)).status == 200
            assert len(back.requests) == 1


async def test_an_install_keeps_who_is_out_and_forgets_who_is_gone(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[1]), running(vip, web(*pods[:2]), timeouts=LASTING, recording=True) as here:
        while not here.ingress._pool.out:
            await ask(here.http, GET)
        await here.install(web(*pods[:2], generation=2))
        for _ in range(2):
            await ask(here.http, GET)
        assert sum((await here.ingress.records())["retries"]) == 1
        await here.install(web(pods[1], generation=3))
        assert here.ingress._pool.out == 0
        async with Endpoint(pods[0]) as replaced:
            await here.install(web(*pods[:2], generation=4))
            for _ in range(2):
                await ask(here.http, GET)
            assert len(replaced.requests) == 1


async def test_clients_that_break_off_blame_no_endpoint(vip: str, pods: list[Address]) -> None:
    timeouts = replace(LASTING, body_s=0.2)
    async with Endpoint(pods[0]), running(vip, web(*pods[:1]), timeouts=timeouts) as here, client(here.http) as one:
        one.send(b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 4\r\n\r\nab")
        assert (await one.answer()).status == 408
        assert here.ingress._pool.out == 0


async def test_a_connection_that_went_stale_blames_no_endpoint(vip: str, pods: list[Address]) -> None:
    """The endpoint closes a kept connection as a request arrives on it; on a new one it answers."""
    first: list[Message] = []

    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.requests.append(await read_head(reader))
        writer.write(saying(b"hello"))
        if not first:
            first.append(await read_head(reader))
            return
        await reader.read()

    async with Endpoint(pods[0], serve=serve), running(vip, web(pods[0]), timeouts=LASTING) as here:
        for _ in range(2):
            assert (await ask(here.http, GET)).status == 200
        assert first
        assert here.ingress._pool.out == 0


@pytest.mark.parametrize(("condition", "status", "out"), [("http_503", 503, 1), ("http_404", 404, 0)])
async def test_an_answer_that_is_tried_elsewhere_is_a_failure_but_for_404(
    vip: str, pods: list[Address], condition: str, status: int, out: int
) -> None:
    answer = b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status
    snapshot = balanced(*pods[:2], proxy_next_upstream=condition)
    async with Endpoint(pods[0], answer) as bad, Endpoint(pods[1]), running(vip, snapshot, timeouts=LASTING) as here:
        while not bad.requests:
            assert (await ask(here.http, GET)).status == 200
        assert here.ingress._pool.out == out


async def test_equal_requests_go_to_one_other_endpoint(vip: str, pods: list[Address]) -> None:
    """upstream-hash-by: while its endpoint is out, a key has the endpoint that is next for it."""
    snapshot = balanced(*pods, upstream_hash_by="$request_uri")
    async with all_of(pods) as endpoints, running(vip, snapshot, timeouts=LASTING) as here, client(here.http) as one:
        own = int((await one.get("/x")).body)
        await endpoints[own].__aexit__()
        found = [(await one.get("/x")).body for _ in range(6)]
        assert len(set(found)) == 1
        assert int(found[0]) != own
        await endpoints[own].__aenter__()


async def test_metrics_count_faults_and_who_is_out(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[1]), running(vip, web(*pods[:2]), timeouts=LASTING) as here:
        for _ in range(4):
            await ask(here.http, GET)
        families = {row.name: row.samples for row in here.ingress._collect()}
        assert families["trafficplane_ingress_upstream_endpoints_out"][0].value == 1
        (counted,) = [row for row in families["trafficplane_ingress_faults"] if row.name.endswith("_total")]
        assert counted.value == 1
        assert counted.labels == {"namespace": "default", "ingress": "web", "service": "default/web:80"}


async def test_an_upload_that_its_client_holds_up_blames_no_endpoint(vip: str, pods: list[Address]) -> None:
    async def impatient(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_head(reader)
        try:
            async with asyncio.timeout(0.2):
                await reader.readexactly(int(request.get("content-length") or 0))
        except TimeoutError:
            writer.close()

    async with Endpoint(pods[0], serve=impatient), running(vip, web(pods[0])) as here, client(here.http) as one:
        one.send(b"POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 10\r\n\r\nhello")
        assert (await one.answer()).status == 502
        assert here.ingress._pool.out == 0
