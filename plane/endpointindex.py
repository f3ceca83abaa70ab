"""Which endpoints Services have, kept up to date from one Snapshot to the next: what the compilers of tables read.

Law: after ``follow`` the index says of a Snapshot what an index made from nothing would, and the ``Change`` names all
that may differ from the Snapshot followed before. What it costs goes by what differs, not by what there is.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from plane.frontends import Node, nodes_of
from plane.model import SERVICE_LABEL, Endpoint, EndpointKey, Name, Object, Snapshot, endpoint_keys, endpoints_of
from plane.rows import Followed


class Change(NamedTuple):
    """What a Snapshot may have otherwise than the one followed before it.

    services   names of those that came, went, or changed, themselves or in their slices or the ids of their endpoints;
               all of them where ``nodes`` is true
    endpoints  those that are or were in a slice, or have or had an id, that changed; likewise
    freed      ids that endpoints had and have no more; others may have them now
    nodes      whether nodes differ in what steering cares for
    """

    services: set[Name]
    endpoints: set[EndpointKey]
    freed: list[int]
    nodes: bool


class _Slice(NamedTuple):
    """What an EndpointSlice says: whose it is, and endpoints by their keys, in order."""

    service: Name | None
    endpoints: dict[EndpointKey, tuple[Endpoint, ...]]


class EndpointIndex:
    """Slices by Service and by endpoint, and the ids of endpoints, of the Snapshot that was followed last."""

    def __init__(self) -> None:
        self._services: Followed[Name, Object] = Followed()
        self._slices: Followed[Name, Object] = Followed()
        self._ids: Followed[EndpointKey, int] = Followed()
        self._nodes: Followed[Name, Object] = Followed()
        self._slices_of: dict[Name, dict[Name, Object]] = {}  # by the Service's name
        self._slices_with: dict[EndpointKey, tuple[Object, ...]] = {}
        self._read: dict[int, _Slice] = {}  # by identity of slices that are in use
        self.ids: dict[EndpointKey, int] = {}
        self.nodes: list[Node] = []

    def follow(self, snapshot: Snapshot) -> Change:
        """Goes on to this Snapshot."""
        self.forget()
        change = Change(set(), set(), [], self._follow_nodes(snapshot))
        for name, _, _ in self._services.news(snapshot.rows("Service")):
            change.services.add(name)
        for name, old, new in self._slices.news(snapshot.rows("EndpointSlice")):
            for obj, holds in ((old, False), (new, True)):
                if obj is not None:
                    change.endpoints.update(self._noted(name, obj, holds=holds))
                    change.services.update(_service_of(obj))
        renumbered: dict[int, Object] = {}  # slices by identity
        for key, number, now in self._ids.news(snapshot.backends):
            change.endpoints.add(key)
            if number is not None:
                change.freed.append(number)
                del self.ids[key]
            if now is not None:
                self.ids[key] = now
            for obj in self._slices_with.get(key, ()):
                renumbered[id(obj)] = obj
        change.services.update(chain.from_iterable(map(_service_of, renumbered.values())))
        if change.nodes:
            change.services.update(snapshot.rows("Service"))
            change.endpoints.update(self._slices_with)
        return change

    def _follow_nodes(self, snapshot: Snapshot) -> bool:
        if not self._nodes.news(snapshot.rows("Node")):
            return False
        before, self.nodes = self.nodes, nodes_of(snapshot)
        return before != self.nodes

    def _noted(self, name: Name, obj: Object, *, holds: bool) -> Iterable[EndpointKey]:
        """Notes a slice that came or went; the keys of its endpoints."""
        for service in _service_of(obj):
            rows = self._slices_of.setdefault(service, {})
            if holds:
                rows[name] = obj
            else:
                del rows[name]
            if not rows:
                del self._slices_of[service]
        keys = dict.fromkeys(endpoint_keys(obj))
        for key in keys:
            there = self._slices_with.get(key, ())
            kept = (*there, obj) if holds else tuple(other for other in there if other is not obj)
            if kept:
                self._slices_with[key] = kept if len(kept) == 1 else tuple(sorted(kept, key=_name_of))
            else:
                del self._slices_with[key]
        return keys

    def of_service(self, name: Name) -> Iterator[Endpoint]:
        """The endpoints of a Service, slice by slice in order of their names."""
        rows = self._slices_of.get(name, {})
        slices = (self._slice(rows[each]).endpoints.values() for each in sorted(rows))
        return chain.from_iterable(chain.from_iterable(slices))

    def is_there(self, key: EndpointKey) -> bool:
        """Whether an endpoint is in any slice."""
        return key in self._slices_with

    def at(self, key: EndpointKey) -> list[tuple[Endpoint, Name | None]]:
        """What is said of an endpoint, slice by slice in order of their names, and whose Service the slice is."""
        slices = map(self._slice, self._slices_with.get(key, ()))
        return [(endpoint, each.service) for each in slices for endpoint in each.endpoints[key]]

    def _slice(self, obj: Object) -> _Slice:
        if (found := self._read.get(id(obj))) is None:
            endpoints: dict[EndpointKey, tuple[Endpoint, ...]] = {}
            for endpoint in endpoints_of(obj):
                key = endpoint[:3]
                endpoints[key] = (*endpoints[key], endpoint) if key in endpoints else (endpoint,)
            found = self._read[id(obj)] = _Slice(next(_service_of(obj), None), endpoints)
        return found

    def forget(self) -> None:
        """Frees what was read for the Snapshot that was followed last; it is read again where it is needed again."""
        self._read.clear()


def _service_of(obj: Object) -> Iterator[Name]:
    """The name of the Service that a slice is of, if it is of one."""
    metadata = obj["metadata"]
    if name := (metadata.get("labels") or {}).get(SERVICE_LABEL):
        yield metadata.get("namespace", "default"), name


def _name_of(obj: Object) -> Name:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
