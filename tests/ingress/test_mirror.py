"""Copies of requests, on real sockets: somebody sees them, and nobody waits for it."""

import contextlib
from collections.abc import AsyncIterator

import pytest

from plane.dialects import nginx
from plane.ingress import mirror
from plane.model import Snapshot
from tests.ingress.manifests import ingress, prefix, rule, service, slices, snapshot_of
from tests.ingress.policies import named
from tests.ingress.test_failures import GET, HEAD, hanging_up, silent
from tests.ingress.wire import Address, Endpoint, Running, ask, client, eventually, running, saying

POST = b"POST / HTTP/1.1\r\n" + HEAD


def mirrored(pod: Address, target: str, **annotations: str) -> Snapshot:
    """All of ``example.com`` to the Service ``web``, with copies for ``target``."""
    said = named(mirror_target=target, **annotations)
    made = ingress("web", rule("example.com", prefix("/", "web")), annotations=said)
    return snapshot_of(service("web"), *slices("web", [pod]), made)


def at(address: Address) -> str:
    return f"http://{address[0]}:{address[1]}"


@contextlib.asynccontextmanager
async def serving(
    vip: str, pods: list[Address], path: str = "$request_uri", **annotations: str
) -> AsyncIterator[Running]:
    async with running(vip, mirrored(pods[0], at(pods[1]) + path, **annotations)) as here:
        yield here


def counts(here: Running) -> dict[str, int]:
    return {name: count for name, count in here.ingress._metrics.mirrored.items() if count}


async def test_a_copy_goes_to_the_mirror_and_its_answer_counts_for_nothing(vip: str, pods: list[Address]) -> None:
    async with (
        Endpoint(pods[0]) as web,
        Endpoint(pods[1], saying(b"mirror").replace(b"200", b"500")) as seen,
        serving(vip, pods, mirror_host="test.example", rewrite_target="/other") as here,
        client(here.http) as one,
    ):
        for number in range(3):
            answer = await one.get("/x?y=z", fields="X-Mine: a\r\nX-Request-ID: one\r\n")
            assert (answer.status, answer.body) == (200, b"hello")
            await eventually(lambda number=number: counts(here) == {"sent": number + 1})
        copy, request = seen.requests[0], web.requests[0]
        assert (copy.start, request.start) == ("GET /x?y=z HTTP/1.1", "GET /other?y=z HTTP/1.1")
        assert copy.get("host") == "test.example"
        names = ("x-mine", "x-request-id", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
        assert [copy.get(name) for name in names] == [request.get(name) for name in names]
        assert seen.connections == 1


@pytest.mark.parametrize("with_body", [True, False])
@pytest.mark.parametrize("chunked", [True, False])
async def test_a_copy_of_a_body(vip: str, pods: list[Address], with_body: bool, chunked: bool) -> None:
    async with (
        Endpoint(pods[0]) as web,
        Endpoint(pods[1]) as seen,
        serving(vip, pods, mirror_request_body="on" if with_body else "off") as here,
        client(here.http) as one,
    ):
        one.send(
            POST + (b"Transfer-Encoding: chunked\r\n\r\n5\r\n" if chunked else b"Content-Length: 10\r\n\r\n") + b"hello"
        )
        await eventually(lambda: web.open)
        assert not seen.connections
        one.send(b"\r\n5\r\nworld\r\n0\r\n\r\n" if chunked else b"world")
        assert (await one.answer()).status == 200
        await eventually(lambda: counts(here) == {"sent": 1})
        assert web.requests[0].body == b"helloworld"
        assert seen.requests[0].body == (b"helloworld" if with_body else b"")
        assert seen.requests[0].get("transfer-encoding") is None


async def test_a_large_body_goes_on_and_is_not_copied(
    vip: str, pods: list[Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "BODY_BYTES", 1000)
    async with (
        Endpoint(pods[0]) as web,
        Endpoint(pods[1]) as seen,
        serving(vip, pods) as here,
        client(here.http) as one,
    ):
        one.send(POST + b"Content-Length: 1001\r\n\r\n" + b"x" * 1001)
        assert (await one.answer()).status == 200
        assert (len(web.requests[0].body), counts(here)) == (1001, {"dropped": 1})
        assert not seen.connections


@pytest.mark.parametrize("serve", [silent, hanging_up, None])
async def test_a_mirror_that_does_not_answer_is_nobodys_concern(
    vip: str, pods: list[Address], serve: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "AT_ONCE", 2)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(Endpoint(pods[0]))
        if serve:
            await stack.enter_async_context(Endpoint(pods[1], serve=serve))  # type: ignore[arg-type]
        here = await stack.enter_async_context(serving(vip, pods))
        one = await stack.enter_async_context(client(here.http))
        for _ in range(5):
            assert (await one.get()).status == 200
        if serve is silent:
            assert counts(here) == {"dropped": 3}
        else:
            await eventually(lambda: sum(counts(here).values()) == 5)
            assert "sent" not in counts(here)


async def test_who_is_not_let_in_is_not_copied(vip: str, pods: list[Address]) -> None:
    async with (
        Endpoint(pods[0]),
        Endpoint(pods[1]) as seen,
        serving(vip, pods, denylist_source_range="127.0.0.0/8") as here,
    ):
        assert (await ask(here.http, GET)).status == 403
        assert not seen.connections
        assert counts(here) == {}


async def test_no_copy_comes_back_to_the_ingress(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0]) as web, serving(vip, pods) as here:
        await here.install(mirrored(pods[0], f"http://{vip}:{here.http[1]}$request_uri", mirror_host="example.com"))
        assert (await ask(here.http, GET)).status == 200
        await eventually(lambda: counts(here) == {"failed": 1})
        assert len(web.requests) == 1


@pytest.mark.parametrize(
    "target", ["mirror.example", "http://$host/", "http://a$http_x", "ftp://a", "http://a/$nonsense", "http://a/ b"]
)
def test_a_target_that_cannot_be_is_refused(target: str) -> None:
    _, unfit = nginx.read(named(mirror_target=target))
    assert len(unfit) == 1


async def test_what_waits_to_be_copied_is_bounded_for_all_requests_together(
    vip: str, pods: list[Address], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "HELD_BYTES", 100_000)
    head = b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 60001\r\n\r\n"
    async with (
        Endpoint(pods[0]),
        Endpoint(pods[1]),
        serving(vip, pods) as here,
        client(here.http) as one,
        client(here.http) as other,
    ):
        one.send(head + b"x" * 60_000)
        await eventually(lambda: here.ingress._mirrors._held == 60_000)
        other.send(head + b"x" * 60_001)
        assert (await other.answer()).status == 200
        assert counts(here) == {"dropped": 1}
        one.send(b"x")
        assert (await one.answer()).status == 200
        await eventually(lambda: counts(here) == {"dropped": 1, "sent": 1})
        assert here.ingress._mirrors._held == 0


async def test_a_request_that_leaves_gives_back_what_waited(vip: str, pods: list[Address]) -> None:
    head = b"POST / HTTP/1.1\r\n" + HEAD + b"Content-Length: 10\r\n\r\nhello"
    async with Endpoint(pods[0]), serving(vip, pods) as here:
        async with client(here.http) as one:
            one.send(head)
            await eventually(lambda: here.ingress._mirrors._held == 5)
        await eventually(lambda: here.ingress._mirrors._held == 0)
