"""Which endpoints of a Service port a client may be given: kube-proxy's ``CategorizeEndpoints``. Pure.

Law: ready endpoints are used; with none ready, those that serve while they terminate. *Local* means the same among the
endpoints of one node. Topology hints count only if every ready endpoint has one and at least one is for this node, or
else for its zone; the choice is made for the whole set at once, never endpoint by endpoint
(https://github.com/kubernetes/kubernetes/blob/master/pkg/proxy/topology.go).
"""

from collections.abc import Iterable
from typing import NamedTuple

from plane.model import Endpoint


class Place(NamedTuple):
    """Where traffic arrives: a node's name and zone. Both empty: nowhere in particular."""

    node: str = ""
    zone: str = ""


NOWHERE = Place()


def eligible(endpoints: Iterable[Endpoint], place: Place = NOWHERE) -> list[Endpoint]:
    """Those that a new connection may go to under policy *Cluster*, arriving at ``place``."""
    rows = list(endpoints)
    ready = [row for row in rows if row.ready]
    match topology(ready, place):
        case "node":
            return [row for row in ready if place.node in row.for_nodes]
        case "zone":
            return [row for row in ready if place.zone in row.for_zones]
    return ready or [row for row in rows if row.serving and row.terminating]


def local(endpoints: Iterable[Endpoint], node: str) -> list[Endpoint]:
    """Those that a new connection may go to under policy *Local*, arriving at a node."""
    return eligible(row for row in endpoints if row.node == node)  # at no place: Local takes no notice of hints


def topology(ready: list[Endpoint], place: Place) -> str:
    """Which hints of these endpoints count at ``place``: ``node``, ``zone``, or empty for none."""
    if place.node and all(row.for_nodes for row in ready) and any(place.node in row.for_nodes for row in ready):
        return "node"
    if place.zone and all(row.for_zones for row in ready) and any(place.zone in row.for_zones for row in ready):
        return "zone"
    return ""


def anywhere(endpoints: Iterable[Endpoint]) -> bool:
    """Whether there is an endpoint that somebody may be given: without one connections are refused, not dropped."""
    return any(row.ready or (row.serving and row.terminating) for row in endpoints)
