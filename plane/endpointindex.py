"""Which endpoints Services have, kept up to date from one Snapshot to the next: what the compilers of tables read.

Law: after ``follow`` the index says of a Snapshot what an index made from nothing would, and the ``Change`` names all
that may differ from the Snapshot followed before. What it costs goes by what differs, not by what there is.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import NamedTuple

from plane.frontends import Node, nodes_of
from plane.model import SERVICE_LABEL, Endpoint, EndpointKey, Name, Object, Snapshot, endpoints_of
from plane.rows import Followed


class Change(NamedTuple):
    """What a Snapshot may have otherwise than the one followed before it.

    services   names of those that came, went, or changed, themselves or in their slices or the ids of their endpoints;
               all of them where ``nodes`` is true
    endpoints  those of which a slice says something else, or which have or had an id that changed; likewise. In order
               of the slices, in which it takes half of the time to go through many
    freed      ids that endpoints had and have no more; others may have them now
    nodes      whether nodes differ in what steering cares for
    """

    services: set[Name]
    endpoints: dict[EndpointKey, None]
    freed: list[int]
    nodes: bool


class _Slice(NamedTuple):
    """What an EndpointSlice says: whose it is, and endpoints by their keys, in order."""

    service: Name | None
    endpoints: dict[EndpointKey, tuple[Endpoint, ...]]


_NOTHING = _Slice(None, {})


class EndpointIndex:
    """Slices by Service and by endpoint, and the ids of endpoints, of the Snapshot that was followed last."""

    def __init__(self) -> None:
        self._services: Followed[Name, Object] = Followed()
        self._slices: Followed[Name, Object] = Followed()
        self._ids: Followed[EndpointKey, int] = Followed()
        self._nodes: Followed[Name, Object] = Followed()
        self._objects: Mapping[Name, Object] = {}  # the slices
        self._slices_of: dict[Name, set[Name]] = {}  # by the Service's name
        self._slices_with: dict[EndpointKey, tuple[Name, ...]] = {}
        self._read: dict[Name, _Slice] = {}  # those that are in use
        self.ids: dict[EndpointKey, int] = {}
        self.nodes: list[Node] = []

    def follow(self, snapshot: Snapshot) -> Change:
        """Goes on to this Snapshot."""
        self.forget()
        change = Change(set(), {}, [], self._follow_nodes(snapshot))
        for name, _, _ in self._services.news(snapshot.rows("Service")):
            change.services.add(name)
        self._objects = snapshot.rows("EndpointSlice")
        for name, old, new in self._slices.news(self._objects):
            before, now = (_NOTHING if obj is None else _said_by(obj) for obj in (old, new))
            if new is not None:
                self._read[name] = now
            change.endpoints.update(self._noted(name, before, now))
            change.services.update(each.service for each in (before, now) if each.service)
        renumbered: set[Name] = set()
        for key, number, now_number in self._ids.news(snapshot.backends):
            change.endpoints[key] = None
            if number is not None:
                change.freed.append(number)
                del self.ids[key]
            if now_number is not None:
                self.ids[key] = now_number
            renumbered.update(self._slices_with.get(key, ()))
        change.services.update(each.service for each in map(self._slice, renumbered) if each.service)
        if change.nodes:
            change.services.update(snapshot.rows("Service"))
            change.endpoints.update(dict.fromkeys(self._slices_with))
        return change

    def _follow_nodes(self, snapshot: Snapshot) -> bool:
        if not self._nodes.news(snapshot.rows("Node")):
            return False
        before, self.nodes = self.nodes, nodes_of(snapshot)
        return before != self.nodes

    def _noted(self, name: Name, before: _Slice, now: _Slice) -> dict[EndpointKey, None]:
        """Notes what a slice says instead of what it said before; the keys of the endpoints of which that differs."""
        if before.service != now.service:
            _file(self._slices_of, before.service, name, holds=False)
            _file(self._slices_of, now.service, name, holds=True)
        keys = dict.fromkeys((*before.endpoints, *now.endpoints))
        if before.service == now.service:
            keys = {key: None for key in keys if before.endpoints.get(key) != now.endpoints.get(key)}
        for key in before.endpoints.keys() - now.endpoints.keys():
            kept = tuple(other for other in self._slices_with.pop(key) if other != name)
            if kept:
                self._slices_with[key] = kept
        for key in now.endpoints.keys() - before.endpoints.keys():
            there = self._slices_with.get(key)
            self._slices_with[key] = tuple(sorted((*there, name))) if there else (name,)
        return keys

    def of_service(self, name: Name) -> Iterator[Endpoint]:
        """The endpoints of a Service, slice by slice in order of their names."""
        slices = (self._slice(each).endpoints.values() for each in sorted(self._slices_of.get(name, ())))
        return chain.from_iterable(chain.from_iterable(slices))

    def is_there(self, key: EndpointKey) -> bool:
        """Whether an endpoint is in any slice."""
        return key in self._slices_with

    def at(self, key: EndpointKey) -> list[tuple[Name | None, tuple[Endpoint, ...]]]:
        """What is said of an endpoint, slice by slice in order of their names: whose Service the slice is, and what."""
        slices = map(self._slice, self._slices_with.get(key, ()))
        return [(each.service, each.endpoints[key]) for each in slices]

    def _slice(self, name: Name) -> _Slice:
        if (found := self._read.get(name)) is None:
            found = self._read[name] = _said_by(self._objects[name])
        return found

    def forget(self) -> None:
        """Frees what was read for the Snapshot that was followed last; it is read again where it is needed again."""
        self._read.clear()


def _said_by(obj: Object) -> _Slice:
    endpoints: dict[EndpointKey, tuple[Endpoint, ...]] = {}
    for endpoint in endpoints_of(obj):
        key = endpoint[:3]
        endpoints[key] = (*endpoints[key], endpoint) if key in endpoints else (endpoint,)
    metadata = obj["metadata"]
    service = (metadata.get("labels") or {}).get(SERVICE_LABEL)
    return _Slice((metadata.get("namespace", "default"), service) if service else None, endpoints)


def _file(table: dict[Name, set[Name]], service: Name | None, name: Name, *, holds: bool) -> None:
    """Has the table hold a slice under its Service, or not; one that is of no Service it does not hold."""
    if service is None:
        return
    names = table.setdefault(service, set())
    if holds:
        names.add(name)
    else:
        names.discard(name)
    if not names:
        del table[service]
