"""One object in full, as ``kubectl describe`` shows it: its fields, what belongs to it, and its events. Pure."""

from datetime import datetime

from plane.columns import NONE, event_time, since
from plane.describe import traffic, workloads
from plane.describe.text import Description, Row, block, fields, lines
from plane.errors import NotFoundError
from plane.kinds import KINDS
from plane.model import Key, Object, Snapshot

HIDDEN_ANNOTATIONS = ("kubectl.kubernetes.io/last-applied-configuration",)
# What else must be in the Snapshot for a kind to be described.
RELATED: dict[str, tuple[str, ...]] = {
    "Service": ("EndpointSlice",),
    "Ingress": ("Service", "EndpointSlice"),
    "Deployment": ("ReplicaSet",),
    "ReplicaSet": ("Pod",),
    "Node": ("Pod",),
}
DESCRIPTIONS: dict[str, Description] = {
    "Pod": workloads.pod,
    "Deployment": workloads.deployment,
    "ReplicaSet": workloads.replica_set,
    "Node": workloads.node,
    "Service": traffic.service,
    "Ingress": traffic.ingress,
    "EndpointSlice": traffic.endpoint_slice,
    "Secret": traffic.secret,
    "ConfigMap": traffic.config_map,
}


def needed(kind: str) -> tuple[str, ...]:
    """The kinds that ``describe`` reads for an object of this kind."""
    return tuple(dict.fromkeys((kind, *RELATED.get(kind, ()), "Event")))


def describe(snapshot: Snapshot, key: Key, now: datetime) -> str:
    """The description of an object in the Snapshot. Raises NotFoundError."""
    obj = snapshot.get(*key)
    if obj is None:
        raise NotFoundError(f'{KINDS[key.kind].plural} "{key.name}" not found')
    rows, blocks = DESCRIPTIONS.get(key.kind, _plain)(snapshot, obj)
    metadata = obj["metadata"]
    annotations = {
        name: value for name, value in (metadata.get("annotations") or {}).items() if name not in HIDDEN_ANNOTATIONS
    }
    head: list[Row] = [
        ("Name", metadata["name"]),
        *([("Namespace", metadata["namespace"])] if metadata.get("namespace") else []),
        ("Labels", lines(metadata.get("labels"), "=")),
        ("Annotations", lines(annotations, ": ")),
        ("Created", f"{metadata.get('creationTimestamp', NONE)} ({since(metadata.get('creationTimestamp'), now)} ago)"),
        *([("Controlled By", owner)] if (owner := _controller(obj)) else []),
    ]
    return fields([*head, *rows]) + "".join(blocks) + _events(snapshot, key, metadata.get("uid", ""), now)


def _plain(snapshot: Snapshot, obj: Object) -> tuple[list[Row], list[str]]:
    phase = (obj.get("status") or {}).get("phase")
    return ([("Status", phase)] if phase else []), []


def _controller(obj: Object) -> str:
    owners = obj["metadata"].get("ownerReferences") or ()
    return next((f"{row['kind']}/{row['name']}" for row in owners if row.get("controller")), "")


def _events(snapshot: Snapshot, key: Key, uid: str, now: datetime) -> str:
    about = [
        obj
        for obj in snapshot.all("Event")
        for row in [obj.get("involvedObject") or {}]
        if (row.get("kind"), row.get("name")) == (key.kind, key.name)
        and (row.get("namespace") or "") == key.namespace
        and row.get("uid") in (None, "", uid)
    ]
    about.sort(key=lambda obj: (event_time(obj) or "", int(obj["metadata"].get("resourceVersion") or 0)))
    rows = [
        (
            obj.get("type", ""),
            obj.get("reason", ""),
            since(event_time(obj), now) + (f" (x{obj['count']})" if obj.get("count", 1) > 1 else ""),
            (obj.get("source") or {}).get("component", ""),
            str(obj.get("message", "")).strip(),
        )
        for obj in about
    ]
    return block("Events", [("Type", "Reason", "Age", "From", "Message"), *rows])
