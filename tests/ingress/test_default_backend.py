"""Answers that a default backend makes in the place of others, on real sockets."""

import asyncio

import pytest

from plane.model import Object, Snapshot
from tests.ingress.manifests import ingress, prefix, rule, service, slices, snapshot_of
from tests.ingress.policies import named
from tests.ingress.test_failures import GET, HEAD, hanging_up
from tests.ingress.wire import Address, Endpoint, ask, client, eventually, read_head, running, saying

BROKEN = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
PAGE = b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\nX-Page: nice\r\n\r\nsorry"


def excused(pods: list[Address], *more: Object, generation: int = 1, **annotations: str) -> Snapshot:
    """All of ``example.com`` to the Service ``web``, the first pod, with ``errors``, the second one, behind it."""
    said = {"default_backend": "errors", "custom_http_errors": "503,502,504", **annotations}
    made = ingress("web", rule("example.com", prefix("/", "web")), annotations=named(**said))
    there = (service("web"), *slices("web", pods[:1]), service("errors"), *slices("errors", pods[1:2]))
    return snapshot_of(*there, made, *more, generation=generation)


async def test_an_endpoints_error_becomes_the_answer_of_the_default_backend(vip: str, pods: list[Address]) -> None:
    async with (
        Endpoint(pods[0], BROKEN) as web,
        Endpoint(pods[1], PAGE) as errors,
        running(vip, excused(pods, affinity="cookie", upstream_vhost="inside"), recording=True) as here,
        client(here.http) as one,
    ):
        for _ in range(2):
            answer = await one.get("/x?y=z", fields="Accept: text/html\r\nX-Request-ID: one\r\n")
            assert (answer.status, answer.body, answer.get("x-page")) == (404, b"sorry", "nice")
        request = errors.requests[0]
        assert request.start == "GET /?y=z HTTP/1.1"
        names = ("x-code", "x-original-uri", "x-service-name", "x-request-id", "host", "x-forwarded-for")
        found = [request.get(name) for name in names]
        assert found == ["503", "/x?y=z", "web", "one", "example.com", "127.0.0.1"]
        assert (web.connections, errors.connections) == (1, 1)
        records = await here.ingress.records()
        assert list(records["status"]) == [404, 404]
        assert set(records["pod_ip"]) == {int.from_bytes(map(int, pods[1][0].split(".")))}


async def test_with_disable_proxy_intercept_errors_only_the_planes_own(vip: str, pods: list[Address]) -> None:
    async with (
        Endpoint(pods[1], PAGE),
        running(vip, excused(pods, disable_proxy_intercept_errors="true")) as here,
    ):
        async with Endpoint(pods[0], BROKEN):
            assert (await ask(here.http, GET)).body == b"busy"
        async with Endpoint(pods[0], serve=hanging_up):
            assert (await ask(here.http, GET)).body == b"sorry"
        assert (await ask(here.http, GET)).body == b"sorry"  # nobody listens


async def test_an_error_of_the_default_backend_itself_goes_on(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0], BROKEN), running(vip, excused(pods)) as here:
        async with Endpoint(pods[1], BROKEN.replace(b"busy", b"same")):
            assert (await ask(here.http, GET)).body == b"same"
        assert (await ask(here.http, GET)).status == 502


@pytest.mark.parametrize("kept", [True, False])
async def test_the_body_of_a_request_is_not_for_the_default_backend(vip: str, pods: list[Address], kept: bool) -> None:
    async def serve(endpoint: Endpoint, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        endpoint.requests.append(await read_head(reader))
        if kept:
            await reader.readexactly(int(endpoint.requests[-1].get("content-length") or 0))
        writer.write(BROKEN)
        await asyncio.Event().wait()

    async with (
        Endpoint(pods[0], serve=serve) as web,
        Endpoint(pods[1], PAGE) as errors,
        running(vip, excused(pods)) as here,
        client(here.http) as one,
    ):
        one.send(b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 10\r\n\r\nhello")
        await eventually(lambda: web.requests)
        if kept:
            one.send(b"world")
        assert (await one.answer()).body == b"sorry"
        assert (errors.requests[0].start, errors.requests[0].get("content-length")) == ("POST / HTTP/1.1", "0")
        if kept:
            assert (await one.get()).body == b"sorry"
        else:
            assert await one.at_end()


async def test_the_default_backend_takes_over_when_the_last_endpoint_goes(vip: str, pods: list[Address]) -> None:
    async with (
        Endpoint(pods[0], saying(b"web")),
        Endpoint(pods[1], PAGE) as errors,
        running(vip, excused(pods)) as here,
        client(here.http) as one,
    ):
        assert (await one.get("/x")).body == b"web"
        alone = excused(pods, generation=2)
        gone = [obj for obj in alone.all("EndpointSlice") if not obj["metadata"]["name"].startswith("web")]
        rest = (*alone.all("Service"), *alone.all("Ingress"), *gone)
        await here.install(snapshot_of(*rest, generation=2))
        assert (await one.get("/x")).body == b"sorry"
        assert (errors.requests[-1].start, errors.requests[-1].get("x-code")) == ("GET /x HTTP/1.1", "503")


async def test_no_endpoint_is_left_counted_as_busy(vip: str, pods: list[Address]) -> None:
    by_load = {"trafficplane.dev/lb-algorithm": "lc"}
    said = named(default_backend="errors", custom_http_errors="503")
    objects = (
        service("web", annotations=by_load),
        *slices("web", pods[:1]),
        service("errors", annotations=by_load),
        *slices("errors", pods[1:2]),
        ingress("web", rule("example.com", prefix("/", "web")), annotations=said),
    )
    async with Endpoint(pods[0], BROKEN), Endpoint(pods[1], PAGE), running(vip, snapshot_of(*objects)) as here:
        assert [(await ask(here.http, GET)).status for _ in range(3)] == [404] * 3
        assert {endpoint.under_way for endpoint in here.ingress._pool._endpoints.values()} == {0}


async def test_what_is_counted_is_of_the_service_that_was_meant(vip: str, pods: list[Address]) -> None:
    said = named(default_backend="errors", custom_http_errors="502")
    objects = (
        service("web"),
        *slices("web", pods[:2]),
        service("errors"),
        *slices("errors", pods[2:3]),
        ingress("web", rule("example.com", prefix("/", "web")), annotations=said),
    )
    async with (
        Endpoint(pods[0], serve=hanging_up),
        Endpoint(pods[1], serve=hanging_up),
        Endpoint(pods[2], PAGE),
        running(vip, snapshot_of(*objects), recording=True) as here,
    ):
        assert (await ask(here.http, GET)).status == 404
        metrics = here.ingress._metrics
        assert {str(service): count for (_, _, service), count in metrics._faults.items()} == {"default/web:80": 2}
        assert {str(service): count for (_, _, service), count in metrics._retries.items()} == {"default/web:80": 1}
        assert (await here.ingress.records())["retries"].tolist() == [1]
