"""How objects begin and end: namespaces, owners, and a pod's way out. Pure."""

import uuid
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Generic, TypeVar

from plane.addresses import AddressPlan
from plane.kinds import KINDS
from plane.model import Key, Name, Object, Snapshot, key_of
from plane.rows import Followed

DEFAULT_GRACE_S = 30
NAMESPACES = ("default", "kube-system")
ACTIVE: Object = {"phase": "Active"}


Indexes = dict[type, Any]  # by their class
Index = TypeVar("Index")
T = TypeVar("T")


@dataclass(frozen=True)
class Pass:
    """What one reconciliation is given: the address plan, the time as Kubernetes writes it (RFC 3339), and what passes
    before it have found out."""

    plan: AddressPlan
    now: str
    indexes: Indexes = field(default_factory=dict)

    def index(self, kind: type[Index]) -> Index:
        """The index of this class, an empty one at first."""
        if kind not in self.indexes:
            self.indexes[kind] = kind()
        found: Index = self.indexes[kind]
        return found


class Taking(Generic[T]):
    """What can't be given any more in one pass: what an index says is taken, and what the pass has given since."""

    def __init__(self, before: Container[T]):
        self._before = before
        self._since: set[T] = set()

    def __contains__(self, what: object) -> bool:
        return what in self._since or what in self._before

    def add(self, what: T) -> None:
        self._since.add(what)


def note(names: set[T], name: T, *, holds: bool) -> None:
    """Has the set hold the name, or not."""
    if holds:
        names.add(name)
    else:
        names.discard(name)


def count(counts: Counter[T], what: T, by: int) -> None:
    """Counts up or down; what comes to nothing is forgotten."""
    counts[what] += by
    if not counts[what]:
        del counts[what]


def digest_uid(*parts: object) -> str:
    """A uid that is a digest of what makes the object unique, so that reconciling twice gives the same uid."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "/".join(map(str, parts))))


class Namespaces:
    """Which namespaces there are, which have no phase yet or are on their way out, which are named by objects, and
    which should be there and are not."""

    def __init__(self) -> None:
        self._followed: dict[str, Followed[Name, Object]] = defaultdict(Followed)
        self.there: set[str] = set()
        self.missing: set[str] = set(NAMESPACES)
        self.fresh: set[str] = set()
        self.ending: set[str] = set()
        self.named: Counter[str] = Counter()

    def follow(self, snapshot: Snapshot) -> None:
        touched: set[str] = set()
        for kind in {*self._followed, *snapshot.objects}:
            for (namespace, name), old, new in self._followed[kind].news(snapshot.rows(kind)):
                touched.add(namespace or name)
                if kind == "Namespace":
                    note(self.there, name, holds=new is not None)
                    note(self.fresh, name, holds=new is not None and not (new.get("status") or {}).get("phase"))
                    note(self.ending, name, holds=new is not None and "deletionTimestamp" in new["metadata"])
                if namespace:
                    count(self.named, namespace, (new is not None) - (old is not None))
        for name in touched:
            wanted = name in NAMESPACES or name in self.named
            note(self.missing, name, holds=wanted and name not in self.there)


def namespaces(snapshot: Snapshot, given: Pass) -> Snapshot:
    """Every namespace that an object names exists, each with a phase; objects of one that is being deleted go, and then
    it goes."""
    index = given.index(Namespaces)
    index.follow(snapshot)
    # Going through a set that was large once costs as if it were.
    names, fresh, ending = (sorted(each) if each else () for each in (index.missing, index.fresh, index.ending))
    missing = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "uid": digest_uid("Namespace", name, snapshot.generation),
                "creationTimestamp": given.now,
            },
            "spec": {"finalizers": ["kubernetes"]},
            "status": ACTIVE,
        }
        for name in names
    ]
    rows = snapshot.rows("Namespace")
    snapshot = snapshot.changed([*missing, *({**rows["", name], "status": ACTIVE} for name in fresh)])
    for name in ending:
        snapshot = removed(snapshot, _inside(snapshot, name), given.now)
        if not any(_inside(snapshot, name)):
            snapshot = snapshot.changed(drop=[Key("Namespace", "", name)])
    return snapshot


def _inside(snapshot: Snapshot, namespace: str) -> Iterator[Object]:
    """The objects of a namespace."""
    return chain.from_iterable(snapshot.inside(kind, namespace) for kind in snapshot.objects)


def removed(snapshot: Snapshot, objects: Iterable[Object], now: str, grace_s: int | None = None) -> Snapshot:
    """The Snapshot after deleting objects: pods that run somewhere begin to terminate, everything else is dropped.

    ``grace_s`` None takes each pod's own ``terminationGracePeriodSeconds``; a second deletion may only shorten it.
    """
    put, drop = [], []
    for obj in objects:
        placed = obj["kind"] == "Pod" and is_placed(snapshot, obj)
        if placed and grace_s != 0:
            put.append(_terminating(obj, now, grace_s))
        else:
            drop.append(key_of(obj))
    return snapshot.changed(put, drop)


def is_placed(snapshot: Snapshot, pod: Object) -> bool:
    """Whether there is a node that runs the pod: one that was never given an address runs nowhere."""
    node = snapshot.get("Node", "", pod["spec"].get("nodeName") or "")
    return node is not None and bool((pod.get("status") or {}).get("podIP"))


def _terminating(pod: Object, now: str, grace_s: int | None) -> Object:
    metadata = pod["metadata"]
    grace = pod["spec"].get("terminationGracePeriodSeconds", DEFAULT_GRACE_S) if grace_s is None else grace_s
    if metadata.get("deletionGracePeriodSeconds", grace + 1) <= grace:
        return pod
    deadline = datetime.fromisoformat(now) + timedelta(seconds=grace)
    marks = {
        "deletionTimestamp": metadata.get("deletionTimestamp", deadline.strftime("%Y-%m-%dT%H:%M:%SZ")),
        "deletionGracePeriodSeconds": grace,
    }
    return {**pod, "metadata": {**metadata, **marks}}


class Owners:
    """Which uids there are, and which objects may have lost all of their owners."""

    def __init__(self) -> None:
        self._followed: dict[str, Followed[Name, Object]] = defaultdict(Followed)
        self._owned: dict[str, set[Key]] = {}  # by the uid of an owner
        self.uids: Counter[str] = Counter()
        self.doubtful: set[Key] = set()

    def follow(self, snapshot: Snapshot) -> None:
        for kind in {*self._followed, *snapshot.objects}:
            for name, old, new in self._followed[kind].news(snapshot.rows(kind)):
                key = Key(kind, *name)
                for obj, by in ((old, -1), (new, 1)):
                    if obj is not None:
                        self._add(key, obj, by)
                if new is not None and new["metadata"].get("ownerReferences"):
                    self.doubtful.add(key)

    def _add(self, key: Key, obj: Object, by: int) -> None:
        metadata = obj["metadata"]
        if uid := metadata.get("uid"):
            count(self.uids, uid, by)
            if uid not in self.uids:
                self.doubtful |= self._owned.get(uid, set())
        for owner in metadata.get("ownerReferences") or ():
            keys = self._owned.setdefault(owner["uid"], set())
            note(keys, key, holds=by > 0)
            if not keys:
                del self._owned[owner["uid"]]


def orphans(snapshot: Snapshot, given: Pass) -> Snapshot:
    """Objects whose owners are all gone go too (Kubernetes' garbage collection, background policy).

    Owners of kinds that the plane does not run, such as the StatefulSet of a Pod in a dump, are nobody's to miss.
    """
    index = given.index(Owners)
    index.follow(snapshot)
    found, still = [], set()
    for key in sorted(index.doubtful):
        obj = snapshot.get(*key)
        owners = obj["metadata"].get("ownerReferences") if obj else None
        if obj and owners and not any(owner["uid"] in index.uids or owner["kind"] not in KINDS for owner in owners):
            still.add(key)
            found.append(obj)
    index.doubtful = still
    return removed(snapshot, found, given.now) if found else snapshot
