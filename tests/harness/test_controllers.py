"""Somebody else's ingress before the pods of a scenario: what it is told, and that it carries it and is gone after."""

import http.client
import io
from pathlib import Path
from typing import get_args

import pytest

from harness import controllers
from harness.controllers import HTTP_PORT
from harness.peers.process import is_listening
from harness.peers.web import rounds
from harness.scenario import OURS, Controller
from plane import manifests, offline
from plane.addresses import AddressPlan
from plane.errors import ManifestError, PlaneError
from plane.model import Snapshot

SITE = Path(__file__).parents[2] / "configs" / "peers-ingress" / "site.yaml"


def settled(plan: AddressPlan, change: tuple[str, str] = ("", "")) -> Snapshot:
    text = SITE.read_text().replace("127.244.1.", str(plan.pods_of(1)[0])[:-1])
    text = text.replace(*change) if change[0] else text
    objects = [row.object for row in manifests.load(["-"], io.StringIO(text)).objects]
    return offline.settled(objects, nodes=1, plan=plan)


def test_each_that_a_scenario_may_name_is_a_peer_that_routes() -> None:
    routing = {name for name, peer in rounds.peers().items() if peer.routes}
    assert set(get_args(Controller)) <= routing | {OURS}


def test_it_is_told_endpoints_or_cluster_ips(plan: AddressPlan) -> None:
    snapshot = settled(plan)
    pods = {end for rule in controllers.site_of(snapshot, plan, "endpoints").rules for end in rule.upstream.endpoints}
    assert {ip for ip, _ in pods} == {str(plan.pods_of(1)[last]) for last in (2, 3, 4)}
    services = controllers.site_of(snapshot, plan, "service")
    told = {rule.upstream.name: rule.upstream.endpoints for rule in services.rules}
    by_name = {obj["metadata"]["name"]: obj["spec"]["clusterIP"] for obj in snapshot.all("Service")}
    for name in ("web", "api"):
        assert told[f"default-{name}-80"] == ((by_name[name], plan.bound_port(80)),)
    assert (services.address, HTTP_PORT) == controllers.address_of(plan)


def test_what_it_cannot_be_told_is_an_error(plan: AddressPlan) -> None:
    with pytest.raises(ManifestError, match="without policies"):
        controllers.site_of(settled(plan, ('ssl-redirect: "false"', 'enable-cors: "true"')), plan, "endpoints")


@pytest.mark.syscalls
async def test_it_carries_the_rules_and_leaves_nothing(plan: AddressPlan) -> None:
    if reason := controllers.lacks("nginx"):
        pytest.skip(reason)
    site = controllers.site_of(settled(plan), plan, "endpoints")
    with rounds.answering(site, rounds.cores()):
        async with controllers.running("nginx", site) as peer:
            assert peer.pids()
            client = http.client.HTTPConnection(site.address, HTTP_PORT, timeout=60)
            client.request("GET", "/api/exact", headers={"Host": "shop.example.com"})
            answer = client.getresponse()
            assert answer.status == 200
            backend = next(rule for rule in site.rules if rule.path == "/api/exact").upstream.endpoints
            assert answer.headers["X-Backend"] in [f"{ip}:{port}" for ip, port in backend]
            client.close()
    assert not peer.pids()
    assert not is_listening("TCP", site.address, HTTP_PORT)


async def test_one_that_reaches_no_pod_is_an_error(plan: AddressPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := controllers.lacks("nginx"):
        pytest.skip(reason)
    monkeypatch.setattr(controllers, "READY_S", 0.2)
    site = controllers.site_of(settled(plan), plan, "endpoints")  # nobody answers there
    with pytest.raises(PlaneError, match=r"nginx: GET http://shop\.example\.com/.* had no answer of a pod"):
        async with controllers.running("nginx", site):
            pass
    assert not is_listening("TCP", site.address, HTTP_PORT)
