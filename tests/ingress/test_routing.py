"""The corpus on real sockets: the same rows that the Router and explain are held to."""

import contextlib

import pytest

from plane.validation import check
from tests.ingress.corpus import CORPUS, NAMES, services
from tests.ingress.manifests import ingress, prefix, rule, service, slices, snapshot_of, web
from tests.ingress.sites import SITES
from tests.ingress.wire import Address, Endpoint, ask, client, running, saying


def test_every_manifest_of_the_sites_is_valid() -> None:
    assert [(site, problem) for site, (objects, _) in SITES.items() for obj in objects for problem in check(obj)] == []


async def test_corpus_by_sockets(vip: str, pods: list[Address], subtests: pytest.Subtests) -> None:
    addresses = dict(zip(NAMES, pods, strict=True))
    base = services(8080, {name: ip for name, (ip, _) in addresses.items()})
    async with contextlib.AsyncExitStack() as stack:
        for name, address in addresses.items():
            await stack.enter_async_context(Endpoint(address, saying(name.encode())))
        here = await stack.enter_async_context(running(vip, snapshot_of(*base)))
        for generation, row in enumerate(CORPUS, start=2):
            await here.install(snapshot_of(*base, *row.objects, generation=generation))
            with subtests.test(msg=row.description):
                answer = await ask(here.http, f"GET {row.path} HTTP/1.1\r\nHost: {row.host}\r\n\r\n".encode())
                assert (answer.body.decode() if answer.status == 200 else answer.status) == row.expected


async def test_endpoints_take_turns_and_keep_them_over_an_install(vip: str, pods: list[Address]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for ip, port in pods:
            await stack.enter_async_context(Endpoint((ip, port), saying(ip.encode())))
        here = await stack.enter_async_context(running(vip, web(*pods)))
        one = await stack.enter_async_context(client(here.http))
        said = [(await one.get()).body.decode() for _ in range(6)]
        assert (await here.install(web(*pods, generation=2))).generation == 2
        said += [(await one.get()).body.decode() for _ in range(6)]
        assert said == [ip for ip, _ in pods] * 3


async def test_http_1_0_without_a_host_meets_the_rules_for_any_host(vip: str, pods: list[Address]) -> None:
    snapshot = snapshot_of(service("web"), *slices("web", pods[:1]), ingress("web", rule("", prefix("/", "web"))))
    async with Endpoint(pods[0]), running(vip, snapshot) as here:
        assert (await ask(here.http, b"GET / HTTP/1.0\r\n\r\n")).status == 200


@pytest.mark.parametrize(
    ("target", "host"),
    [("http://example.com/x?y=z", "example.com"), ("https://user@EXAMPLE.com:80/x?y=z", "example.com:80")],
)
async def test_the_absolute_form_is_taken(vip: str, pods: list[Address], target: str, host: str) -> None:
    async with Endpoint(pods[0]) as endpoint, running(vip, web(pods[0])) as here:
        answer = await ask(here.http, f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert answer.status == 200
        assert endpoint.requests[0].start == "GET /x?y=z HTTP/1.1"
        assert (endpoint.requests[0].get("host") or "").lower().startswith("example.com")
