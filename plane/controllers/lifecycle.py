"""How objects begin and end: namespaces, owners, and a pod's way out. Pure."""

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from plane.addresses import AddressPlan
from plane.kinds import KINDS
from plane.model import Key, Object, Snapshot, key_of

DEFAULT_GRACE_S = 30
NAMESPACES = ("default", "kube-system")


@dataclass(frozen=True)
class Pass:
    """What one reconciliation is given: the address plan, and the time as Kubernetes writes it (RFC 3339)."""

    plan: AddressPlan
    now: str


def digest_uid(*parts: object) -> str:
    """A uid that is a digest of what makes the object unique, so that reconciling twice gives the same uid."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, "/".join(map(str, parts))))


def namespaces(snapshot: Snapshot, given: Pass) -> Snapshot:
    """Every namespace that an object names exists; objects of one that is being deleted go, and then it goes."""
    named = {namespace for rows in snapshot.objects.values() for namespace, _ in rows if namespace}
    there = {obj["metadata"]["name"]: obj for obj in snapshot.all("Namespace")}
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
            "status": {"phase": "Active"},
        }
        for name in sorted({*NAMESPACES, *named} - there.keys())
    ]
    snapshot = snapshot.changed(missing)
    for name in (name for name, obj in there.items() if "deletionTimestamp" in obj["metadata"]):
        inside = [
            obj for rows in snapshot.objects.values() for (namespace, _), obj in rows.items() if namespace == name
        ]
        snapshot = removed(snapshot, inside, given.now)
        if not any(namespace == name for rows in snapshot.objects.values() for namespace, _ in rows):
            snapshot = snapshot.changed(drop=[Key("Namespace", "", name)])
    return snapshot


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


def orphans(snapshot: Snapshot, given: Pass) -> Snapshot:
    """Objects whose owners are all gone go too (Kubernetes' garbage collection, background policy).

    Owners of kinds that the plane does not run, such as the StatefulSet of a Pod in a dump, are nobody's to miss.
    """
    uids = {obj["metadata"].get("uid") for rows in snapshot.objects.values() for obj in rows.values()}
    found = [
        obj
        for rows in snapshot.objects.values()
        for obj in rows.values()
        if (owners := obj["metadata"].get("ownerReferences"))
        and not any(owner["uid"] in uids or owner["kind"] not in KINDS for owner in owners)
    ]
    return removed(snapshot, found, given.now) if found else snapshot
