"""Somebody else's ingress before the pods of a scenario, told the same rules as ours.

Law: it is the peer of ``harness.peers.web``, with the configuration that peer has in comparisons, made from the
Snapshot of the plane that runs. It listens at the last address of the load balancers' pool, has a core of its own, and
is told everything once: which is why endpoints that come and go need ``ingressUpstream: service``. What it cannot be
told is an error before anything runs. No row says which pod answered: only our ingress records that.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from http.client import HTTPConnection, HTTPException

from harness.peers.rounds import cores
from harness.peers.web.peer import Peer
from harness.peers.web.rounds import peers
from harness.peers.web.site import HTTP_PORT, NOBODY, End, Site, issued, survey
from plane.addresses import AddressPlan
from plane.errors import PlaneError
from plane.model import Object, Service, Snapshot
from plane.routes import Port

READY_S = 60.0  # some listen before they know their routes
PROBE_S = 2.0
UNREADY = (404, 502, 503, 504)  # what they answer until then


def address_of(plan: AddressPlan) -> tuple[str, int]:
    """Where it listens for HTTP."""
    return str(plan.vips[-2]), HTTP_PORT


def lacks(name: str) -> str:
    """What this machine has not got that the controller needs, and the remedy; empty where nothing."""
    return peers()[name].lacks()


def site_of(snapshot: Snapshot, plan: AddressPlan, upstream: str, file: str = "") -> Site:
    """What it is told. Raises ManifestError where an Ingress asks for what not every peer is told."""
    hosts = sorted({str(rule["host"]) for obj in snapshot.all("Ingress") for rule in _rules(obj) if rule.get("host")})
    address, _ = address_of(plan)
    instead = dict(_addresses(snapshot, plan)) if upstream == "service" else NOBODY
    return survey(snapshot, address, issued(hosts or [address]), file, instead)


@asynccontextmanager
async def running(name: str, site: Site) -> AsyncIterator[Peer]:
    """The controller with this name, which carries the site until the way out. Raises PlaneError."""
    peer = peers()[name]
    try:
        peer.start(site, cores().subject)
        await asyncio.to_thread(_wait_for_routes, name, site)
        yield peer
    finally:
        peer.stop()


def _rules(ingress: Object) -> list[Object]:
    return list((ingress.get("spec") or {}).get("rules") or ())


def _addresses(snapshot: Snapshot, plan: AddressPlan) -> Iterator[tuple[Port, End]]:
    """Where the relay takes connections for each TCP port of each Service that has a ClusterIP."""
    for service in map(Service.of, snapshot.all("Service")):
        for port in service.ports if service.cluster_ip else ():
            if port.protocol == "TCP":
                yield Port(service.full_name, port.port), (service.cluster_ip, plan.bound_port(port.port))


def _wait_for_routes(name: str, site: Site) -> None:
    """Returns once it hands on a request to the first rule. Raises PlaneError where it does not in time."""
    rule = site.rules[0]
    said = ""
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        client = HTTPConnection(site.address, HTTP_PORT, timeout=PROBE_S)
        try:
            client.request("GET", rule.path or "/", headers={"Host": rule.host})
            said = f"status {client.getresponse().status}"
            if int(said.split()[1]) not in UNREADY:
                return
        except (OSError, HTTPException) as error:
            said = f"{type(error).__name__}: {error}"
        finally:
            client.close()
        time.sleep(0.05)
    raise PlaneError(
        f"{name}: GET http://{rule.host}{rule.path or '/'} had no answer of a pod in {READY_S:g} s: {said}"
    )
