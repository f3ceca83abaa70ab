"""What Ingresses of Traefik's and Kong's classes do that takes a clock, several endpoints, a cookie or the log."""

import contextlib
import json
import re
import socket
from pathlib import Path

import pytest

from plane.dialects.traefik import cookie_name
from plane.model import Snapshot
from tests.ingress import kong, policies, traefik
from tests.ingress.manifests import ingress, prefix, rule, service, slices, snapshot_of
from tests.ingress.test_failures import GET, silent
from tests.ingress.wire import Address, Endpoint, ask, client, eventually, running, saying

STICKY = {"service_sticky_cookie": "true"}
WEB = prefix("/", "web")


def by_traefik(*pods: Address, generation: int = 1, **annotations: str) -> Snapshot:
    """All of ``example.com`` to the Service ``web``, which has these annotations, by an Ingress of Traefik's class."""
    made = service("web", annotations=traefik.named(**annotations))
    return snapshot_of(made, *slices("web", pods), traefik.with_(WEB), generation=generation)


def by_kong(*pods: Address, **annotations: str) -> Snapshot:
    made = service("web", annotations=kong.named(**annotations))
    return snapshot_of(made, *slices("web", pods), kong.with_(WEB))


async def test_sticky_cookie_keeps_a_client_at_its_endpoint(vip: str, pods: list[Address]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for number, pod in enumerate(pods[:3]):
            await stack.enter_async_context(Endpoint(pod, saying(b"%d" % number)))
        here = await stack.enter_async_context(running(vip, by_traefik(*pods[:2], **STICKY)))
        one = await stack.enter_async_context(client(here.http))
        first = await one.get()
        cookie = (first.get("set-cookie") or "").partition(";")[0]
        await here.install(by_traefik(*pods[:3], generation=2, **STICKY))
        for _ in range(4):
            again = await one.get(fields=f"Cookie: {cookie}\r\n")
            assert (again.body, again.get("set-cookie")) == (first.body, None)
        gone = pods[1 - int(first.body)]
        await here.install(by_traefik(gone, generation=3, **STICKY))
        moved = await one.get(fields=f"Cookie: {cookie}\r\n")
        assert moved.body != first.body
        assert moved.get("set-cookie")


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [
        # The name is the one that Traefik gives the service default-web-80@kubernetes.
        pytest.param(STICKY, r"_[0-9a-f]{5}=[^;]+; Path=/", id="as Traefik's default"),
        pytest.param({"service_sticky_cookie_name": "me"}, r"me=[^;]+; Path=/", id="by its name alone"),
        pytest.param(
            {
                **STICKY,
                "service_sticky_cookie_name": "me",
                "service_sticky_cookie_secure": "true",
                "service_sticky_cookie_httpOnly": "true",
                "service_sticky_cookie_sameSite": "strict",
                "service_sticky_cookie_maxage": "60",
                "service_sticky_cookie_path": "/p",
                "service_sticky_cookie_domain": "example.com",
            },
            r"me=[^;]+; Max-Age=60; Domain=example.com; Path=/p; Secure; HttpOnly; SameSite=Strict",
            id="with everything",
        ),
        pytest.param({"service_sticky_cookie": "false", "service_sticky_cookie_name": "me"}, "", id="switched off"),
    ],
)
async def test_the_attributes_of_traefiks_cookie(
    vip: str, pods: list[Address], annotations: dict[str, str], expected: str
) -> None:
    snapshot = by_traefik(pods[0], **annotations)
    async with Endpoint(pods[0]), running(vip, snapshot) as here, client(here.http) as one:
        assert re.fullmatch(expected, (await one.get()).get("set-cookie") or "")


def test_the_name_of_the_cookie_is_traefiks() -> None:
    assert cookie_name("sticky@file") == "_252c2"  # as Traefik 3.7.15 set it


async def test_kongs_timeouts_are_in_milliseconds(vip: str, pods: list[Address]) -> None:
    async with Endpoint(pods[0], serve=silent), running(vip, by_kong(pods[0], read_timeout="300")) as here:
        assert (await ask(here.http, GET)).status == 504


async def test_kongs_connect_timeout(vip: str, pods: list[Address]) -> None:
    with socket.create_server(pods[0], backlog=0) as full, socket.create_connection(pods[0]):
        async with running(vip, by_kong(pods[0], connect_timeout="300", retries="0")) as here:
            answer = await ask(here.http, GET)
            assert (answer.status, b"within 0.3 s" in answer.body) == (504, True)
        assert full


@pytest.mark.parametrize(("retries", "expected"), [("0", [502, 200, 200, 200]), ("1", [200] * 4)])
async def test_kongs_retries(vip: str, pods: list[Address], retries: str, expected: list[int]) -> None:
    async with Endpoint(pods[1]), running(vip, by_kong(*pods[:2], retries=retries)) as here:
        assert [(await ask(here.http, GET)).status for _ in range(4)] == expected


@pytest.mark.parametrize("dialect", ["nginx", "traefik"])
async def test_a_route_may_leave_the_access_log(vip: str, pods: list[Address], tmp_path: Path, dialect: str) -> None:
    path = tmp_path / "access.log"
    quiet = ingress("web", rule("q.com", WEB), annotations=policies.named(enable_access_log="false"))
    if dialect == "traefik":
        quiet = traefik.with_(WEB, host="q.com", router_observability_accesslogs="false")
    loud = ingress("loud", rule("example.com", WEB), annotations=policies.named(enable_access_log="true"))
    snapshot = snapshot_of(service("web"), *slices("web", pods[:1]), quiet, loud)
    async with Endpoint(pods[0]), running(vip, snapshot, access_log=str(path)) as here, client(here.http) as one:
        assert (await one.get(host="q.com")).status == 200
        assert (await one.get()).status == 200
        await eventually(lambda: path.read_text().count("\n"))
    assert [json.loads(line)["host"] for line in path.read_text().splitlines()] == ["example.com"]
