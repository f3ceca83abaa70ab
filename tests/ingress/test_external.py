"""ExternalNames behind an Ingress: hosts by name, whose addresses are asked for when a request needs them."""

import asyncio
import math
import threading

import pytest

from plane.dns.resolver import Found, UnresolvedError
from plane.ingress import external
from plane.ingress.external import Hosts
from plane.routes import External
from tests.ingress.manifests import ingress, prefix, rule, service, snapshot_of
from tests.ingress.wire import Address, Endpoint, client, eventually, running, saying


class Names:
    """A resolver that says what it is told to, and counts."""

    def __init__(self, *addresses: str, ttl_s: float = math.inf):
        self.found: Found | None = Found(addresses, ttl_s)
        self.asked = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def addresses(self, host: str) -> Found:
        self.asked += 1
        self.go_on.wait(20)
        if self.found is None:
            raise UnresolvedError("no such host")
        return self.found


def hosts(names: Names, own: Address = ("127.0.0.1", 1)) -> Hosts:
    return Hosts(names, [own], lambda ip, port: port)  # type: ignore[arg-type]


SHOP = External("shop.example", 80)


def shop(name: str, port: int, **spec: object) -> list:
    return [
        service("shop", type="ExternalName", externalName=name, ports=[], **spec),
        ingress("shop", rule("example.com", prefix("/", "shop", port))),
    ]


async def test_all_that_wait_for_a_name_ask_once() -> None:
    names = Names("192.0.2.1", "192.0.2.2")
    names.go_on.clear()
    known = hosts(names)
    waiting = [asyncio.create_task(known.addresses(SHOP)) for _ in range(20)]
    await eventually(lambda: names.asked == 1)
    names.go_on.set()
    assert set(await asyncio.gather(*waiting)) == {(("192.0.2.1", 80), ("192.0.2.2", 80))}
    assert await known.addresses(External("shop.example", 8080)) == (("192.0.2.1", 8080), ("192.0.2.2", 8080))
    assert names.asked == 1


async def test_who_leaves_takes_the_answer_from_nobody_else() -> None:
    names = Names("192.0.2.1")
    names.go_on.clear()
    known = hosts(names)
    leaving, staying = (asyncio.create_task(known.addresses(SHOP)) for _ in range(2))
    await eventually(lambda: names.asked == 1)
    leaving.cancel()
    names.go_on.set()
    assert await staying == (("192.0.2.1", 80),)


async def test_an_answer_holds_for_its_time_and_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "SHORTEST_S", 0.05)
    names = Names("192.0.2.1", ttl_s=0)
    known = hosts(names)
    await known.addresses(SHOP)
    names.found = Found(("192.0.2.2",), math.inf)

    async def moved() -> bool:
        return await known.addresses(SHOP) == (("192.0.2.2", 80),)

    async with asyncio.timeout(30):
        while not await moved():
            await asyncio.sleep(0.01)
    for _ in range(5):
        await known.addresses(SHOP)
    assert names.asked == 2


async def test_no_answer_holds_too_and_the_name_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "FAILED_S", 0.05)
    names = Names()
    names.found = None
    known = hosts(names)
    with pytest.raises(UnresolvedError, match="no such host"):
        await known.addresses(SHOP)
    assert known.in_use(SHOP) == []
    names.found = Found(("192.0.2.2",), math.inf)
    async with asyncio.timeout(30):
        while True:
            try:
                assert await known.addresses(SHOP) == (("192.0.2.2", 80),)
                break
            except UnresolvedError:
                await asyncio.sleep(0.01)
    assert known.in_use(SHOP) == [("192.0.2.2", 80)]


async def test_a_resolver_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "LOOKUP_S", 0.05)
    names = Names("192.0.2.1")
    names.go_on.clear()
    try:
        with pytest.raises(UnresolvedError, match=r"no answer within 0\.05 s"):
            await hosts(names).addresses(SHOP)
    finally:
        names.go_on.set()


async def test_names_that_no_route_has_are_forgotten() -> None:
    names = Names("192.0.2.1")
    known = hosts(names)
    await known.addresses(SHOP)
    known.keep([SHOP])
    await known.addresses(SHOP)
    assert names.asked == 1
    known.keep([])
    await known.addresses(SHOP)
    assert names.asked == 2


async def test_the_ingress_itself_is_no_host() -> None:
    own = ("192.0.2.1", 80)
    with pytest.raises(UnresolvedError, match="leads back to this ingress"):
        await hosts(Names("192.0.2.1"), own).addresses(SHOP)
    assert await hosts(Names("192.0.2.1", "192.0.2.2"), own).addresses(SHOP) == (("192.0.2.2", 80),)


async def test_requests_go_to_the_named_host_on_kept_connections(vip: str, pods: list[Address]) -> None:
    """By an address in the place of a name, which needs no resolver; over an install too."""
    ip, port = pods[0]
    async with (
        Endpoint(pods[0], saying(b"shop")) as endpoint,
        running(vip, snapshot_of(*shop(ip, port)), recording=True) as here,
        client(here.http) as one,
    ):
        for _ in range(3):
            assert (await one.get("/cart")).body == b"shop"
        await here.install(snapshot_of(*shop(ip, port), generation=2))
        assert (await one.get("/cart")).body == b"shop"
        assert endpoint.connections == 1
        assert endpoint.requests[0].get("host") == "example.com"
        records = await here.ingress.records()
        assert list(records["status"]) == [200] * 4
        assert set(records["pod_port"]) == {port}


@pytest.mark.parametrize(
    ("ports", "port", "reached"),
    [
        ([{"port": 80, "targetPort": 8080, "protocol": "TCP"}], 80, True),
        ([{"name": "http", "port": 8080, "targetPort": "http", "protocol": "TCP"}], 8080, True),
        ([{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}], "http", True),
        ([], 8080, True),
        ([], "http", False),
    ],
    ids=["targetPort", "targetPort by name", "a port by name", "no ports", "a name without ports"],
)
async def test_ports_of_an_external_name(
    vip: str, pods: list[Address], ports: list, port: int | str, reached: bool
) -> None:
    objects = [
        service("shop", type="ExternalName", externalName=pods[0][0], ports=ports),
        ingress("shop", rule("example.com", prefix("/", "shop", port))),
    ]
    async with Endpoint(pods[0]), running(vip, snapshot_of(*objects)) as here, client(here.http) as one:
        assert (await one.get()).status == (200 if reached else 503)


@pytest.mark.parametrize("name", ["nobody.invalid", "nobody.default.svc.cluster.local"])
async def test_a_host_that_is_not_there_is_503_and_says_so(vip: str, name: str) -> None:
    async with running(vip, snapshot_of(*shop(name, 80)), recording=True) as here, client(here.http) as one:
        answer = await one.get()
        assert answer.status == 503
        assert f"Service default/shop:80 stands for {name}, which cannot be reached".encode() in answer.body
        records = await here.ingress.records()
        assert [list(records[column]) for column in ("status", "pod_ip", "retries")] == [[503], [0], [0]]
        assert records["services"] == ["default/shop:80"]


async def test_a_name_that_leads_to_the_ingress_is_refused(vip: str) -> None:
    async with running(vip, snapshot_of(*shop(vip, 1))) as here:
        await here.install(snapshot_of(*shop(vip, here.http[1]), generation=2))
        async with client(here.http) as one:
            answer = await one.get()
            assert (answer.status, b"leads back to this ingress" in answer.body) == (503, True)
