"""Endpoints of Services that come, go and change: one Snapshot after the other.

Law: an event changes EndpointSlices and nothing else, so that frontends stay what they are. Which endpoints it befalls
is drawn from the scenario's seed and their addresses. What is added gets the next address above all that there are, on
the nodes that the Service has endpoints on, in turn.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import NamedTuple

from plane.addresses import AddressPlan
from plane.controllers import addressing
from plane.controllers.lifecycle import Pass
from plane.families import FAMILIES, IPV4, IPV6, Family
from plane.model import SERVICE_LABEL, WEIGHT_ANNOTATION, Key, Name, Object, Snapshot, key_of, weight_of

# Far from the addresses of any plan, so that nobody takes them for something that can be reached.
FIRST_ENDPOINTS = {"IPv4": IPV4.number("10.0.0.1"), "IPv6": IPV6.number("fd00:10:244::1")}
FIRST_SERVICES = {"IPv4": IPV4.number("172.16.0.1"), "IPv6": IPV6.number("fd00:10:96::1")}
PORT, TARGET_PORT = 80, 8080
DRAINING = {"ready": False, "serving": True, "terminating": True}


class Member(NamedTuple):
    """One endpoint of a Service, with what its EndpointSlice says of all that are in it."""

    endpoint: Object
    ports: list[Object]
    weight: int

    @property
    def ip(self) -> int:
        return sum(family.number(self.endpoint["addresses"][0]) for family in FAMILIES.values())

    @property
    def is_leaving(self) -> bool:
        return bool((self.endpoint.get("conditions") or {}).get("terminating"))


def made_up(count: int, endpoints: int, nodes: int, most: int = 1, family: Family = IPV4) -> Iterator[Object]:
    """Services ``s1``, ``s2``, … of that many endpoints each, on nodes ``node-1`` … in turn.

    Their names are those that they have where there are ``most`` Services, if that is more.
    """
    digits = len(str(max(count, most)))
    first_service, first_endpoint = FIRST_SERVICES[family.name], FIRST_ENDPOINTS[family.name]
    for number in range(count):
        name = f"s{number + 1:0{digits}}"
        yield {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"clusterIP": _text(family, first_service + number), "ports": [{"port": PORT}]},
        }
        first = number * endpoints
        rows = (
            {"addresses": [_text(family, first_endpoint + each)], "nodeName": f"node-{each % nodes + 1}"}
            for each in range(first, first + endpoints)
        )
        members = [Member(row, [{"name": "", "port": TARGET_PORT}], 1) for row in rows]
        yield _slice(("default", name), 0, members, family)


class Fleet:
    """The endpoints of a Snapshot's Services that are of a family; ``snapshot`` is what has become of it."""

    def __init__(self, snapshot: Snapshot, seed: int, family: Family = IPV4):
        self._family = family
        self._given = Pass(AddressPlan(), "")
        self._first = self.snapshot = addressing.backend_ids(snapshot, self._given)
        self._seed = seed
        self._latest = 0  # the highest address that was ever added

    def members(self, service: Name) -> list[Member]:
        """The endpoints of a Service, in order of their addresses."""
        found = [
            Member(endpoint, obj.get("ports") or [], weight_of(obj))
            for obj in self._slices(service)
            for endpoint in obj.get("endpoints") or ()
        ]
        return sorted(found, key=lambda member: member.ip)

    def add(self, service: Name, count: int) -> None:
        """As many more, alike in ports and weight to the first. The Service has one at least."""
        members = self.members(service)
        self._put(service, [*members, *self._fresh(members, count)])

    def remove(self, service: Name, count: int, draw: int) -> None:
        chosen = self._drawn(self.members(service), count, draw)
        self._put(service, [member for member in self.members(service) if member.ip not in chosen])

    def drain(self, service: Name, count: int, draw: int) -> None:
        """These terminate: they get no new flow and serve those they have."""
        self._change(service, count, draw, _draining)

    def weigh(self, service: Name, count: int, weight: int, draw: int) -> None:
        self._change(service, count, draw, lambda member: member._replace(weight=weight))

    def roll(self, service: Name, step: int) -> Iterator[str]:
        """A rolling update, ``step`` at a time: as many new ones, of the old ones as many drain, and are gone next."""
        old = [member for member in self.members(service) if not member.is_leaving]
        steps = -(-len(old) // step)
        for number in range(steps):
            now = {member.ip for member in old[number * step : (number + 1) * step]}
            kept = [member for member in self.members(service) if not member.is_leaving]
            after = [_draining(member) if member.ip in now else member for member in kept]
            self._put(service, [*after, *self._fresh(kept, len(now))])
            yield f"{number + 1} of {steps}"
        self._put(service, [member for member in self.members(service) if not member.is_leaving])
        yield "done"

    def fail_node(self, node: str) -> int:
        """How many endpoints were on the node, all of which are gone."""
        lost = 0
        put = []
        for obj in self.snapshot.all("EndpointSlice"):
            rows = obj.get("endpoints") or []
            kept = [row for row in rows if row.get("nodeName") != node]
            lost += len(rows) - len(kept)
            if len(kept) < len(rows):
                put.append({**obj, "endpoints": kept})
        self._become(self.snapshot.changed(put))
        return lost

    def restore(self) -> None:
        """All EndpointSlices as at first."""
        first, now = (snapshot.rows("EndpointSlice") for snapshot in (self._first, self.snapshot))
        gone = [Key("EndpointSlice", *name) for name in now if name not in first]
        self._become(self.snapshot.changed(first.values(), gone))

    def _slices(self, service: Name) -> list[Object]:
        namespace, name = service
        return [
            obj
            for obj in self.snapshot.rows("EndpointSlice").values()
            if (obj["metadata"].get("labels") or {}).get(SERVICE_LABEL) == name
            and obj["metadata"].get("namespace", "default") == namespace
            and obj.get("addressType", "IPv4") == self._family.name
        ]

    def _fresh(self, members: Sequence[Member], count: int) -> list[Member]:
        like = members[0]
        nodes = sorted({member.endpoint.get("nodeName") or "" for member in members})
        self._latest = max(self._latest, *(self._family.number(ip) for ip, _, _ in self.snapshot.backends))
        first, self._latest = self._latest + 1, self._latest + count
        rows = (
            {
                "addresses": [_text(self._family, first + each)],
                **({"nodeName": node} if (node := nodes[each % len(nodes)]) else {}),
            }
            for each in range(count)
        )
        return [Member(row, like.ports, like.weight) for row in rows]

    def _change(self, service: Name, count: int, draw: int, change: Callable[[Member], Member]) -> None:
        members = self.members(service)
        chosen = self._drawn(members, count, draw)
        self._put(service, [change(member) if member.ip in chosen else member for member in members])

    def _drawn(self, members: Iterable[Member], count: int, draw: int) -> set[int]:
        """Addresses of so many that are not leaving already."""
        there = [member.ip for member in members if not member.is_leaving]
        return set(sorted(there, key=lambda ip: sha256(f"{self._seed} {draw} {ip}".encode()).digest())[:count])

    def _put(self, service: Name, members: Iterable[Member]) -> None:
        """The members in EndpointSlices of their own, one for each set of ports and each weight."""
        alike: dict[tuple[str, int], list[Member]] = {}
        for member in members:
            alike.setdefault((str(member.ports), member.weight), []).append(member)
        put = [_slice(service, number, rows, self._family) for number, rows in enumerate(alike.values())]
        kept = {key_of(obj) for obj in put}
        self._become(
            self.snapshot.changed(put, [key for obj in self._slices(service) if (key := key_of(obj)) not in kept])
        )

    def _become(self, snapshot: Snapshot) -> None:
        found = addressing.backend_ids(snapshot, self._given)
        self.snapshot = replace(found, generation=found.generation + 1)


def _draining(member: Member) -> Member:
    return member._replace(endpoint={**member.endpoint, "conditions": DRAINING})


def _text(family: Family, ip: int) -> str:
    return family.text(family.cell(ip))


def _slice(service: Name, number: int, members: Sequence[Member], family: Family) -> Object:
    namespace, name = service
    metadata: Object = {"name": f"{name}-flows-{number}", "namespace": namespace, "labels": {SERVICE_LABEL: name}}
    if members[0].weight != 1:
        metadata["annotations"] = {WEIGHT_ANNOTATION: str(members[0].weight)}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata,
        "addressType": family.name,
        "endpoints": [member.endpoint for member in members],
        "ports": members[0].ports,
    }
