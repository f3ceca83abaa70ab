"""Who an Ingress belongs to, and that its status says where it is served: there and nowhere else."""

import asyncio
from collections.abc import Callable

import pytest

from plane import control as planes
from plane.control import ControlPlane
from plane.model import Key, Object
from tests.ingress.manifests import ingress, ingress_class, prefix, rule
from tests.plane.local import fetch, serving
from tests.plane.test_services import pod, service

pytestmark = pytest.mark.syscalls
WEB = Key("Ingress", "default", "web")


def of_class(name: str) -> Object:
    return ingress("web", rule("example.com", prefix("/", "web")), ingressClassName=name)


def addresses(control: ControlPlane) -> list[Object]:
    obj = control.store.get(WEB)
    return list(((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ())


async def eventually(what: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not what():
            await asyncio.sleep(0.01)


async def test_an_ingress_has_an_address_while_its_class_is_served_and_no_other_ever(plan):
    classes = [ingress_class("ours", "trafficplane.dev/ingress"), ingress_class("alien", "example.com/alien")]
    ports = [{"port": plan.bound_port(port), "protocol": "TCP"} for port in (80, 443)]
    here = [{"ip": plan.vip(1), "ports": ports}]
    other = ingress("other", rule("other.com", prefix("/", "web")), ingressClassName="ours")
    alien = ingress("alien", rule("alien.com", prefix("/", "web")), ingressClassName="alien")
    async with serving(plan, [service(), pod("a"), *classes, of_class("ours"), other, alien], nodes=1) as control:
        await eventually(lambda: addresses(control) == here)
        assert await fetch(plan.vip(1), plan.bound_port(80)) == (200, "a")
        await control.apply([of_class("alien")])
        await eventually(lambda: addresses(control) == [])
        assert (await fetch(plan.vip(1), plan.bound_port(80)))[0] == 404
        await control.apply([of_class("ours")])
        await eventually(lambda: addresses(control) == here)
        assert not (control.store.get(Key("Ingress", "default", "alien")).get("status") or {}).get("loadBalancer")


async def test_addresses_are_written_together_and_a_route_waits_for_none(plan, monkeypatch):
    monkeypatch.setattr(planes, "ADDRESSES_PAUSE_S", 600.0)
    web = ingress("web", rule("example.com", prefix("/", "web")))
    async with serving(plan, [service(), pod("a"), web], nodes=1) as control:
        await eventually(lambda: addresses(control) != [])
        for name in ("more", "third", "fourth"):  # whoever would write, had the time
            await control.apply([ingress(name, rule(f"{name}.com", prefix("/", "web")))])
        where = plan.vip(1), plan.bound_port(80)
        assert await fetch(*where, name="more.com") == (200, "a")
        assert not control.store.get(Key("Ingress", "default", "more")).get("status")
