"""Deployments and ReplicaSets: how many pods of which template there are. Pure.

A Deployment owns one ReplicaSet for each template it had. ``roll`` moves replicas from the old ones to the new one
within ``maxSurge`` and ``maxUnavailable``; ``scale`` gives each ReplicaSet its pods; ``statuses`` counts. Rules and
names are those of https://kubernetes.io/docs/concepts/workloads/controllers/deployment/.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from typing import Any

from plane.controllers.endpointslices import is_finished, is_ready
from plane.controllers.lifecycle import Pass, digest_uid, removed
from plane.defaults import defaulted
from plane.model import DELETION_COST_ANNOTATION, Name, Object, Snapshot
from plane.rows import Followed

# Letters of generated names: no vowels and no look-alikes, so that no word and no misreading comes out of a digest.
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
DEFAULT_HISTORY = 10
OWNERS = ("Deployment", "ReplicaSet")

Step = Callable[[Snapshot, Pass], Snapshot]


class Owned:
    """Pods and ReplicaSets by the uid of who controls them, and the owners that each step has to look at again.

    A step is done with an owner once nothing follows from it any more, until the owner or something of its changes.
    """

    def __init__(self) -> None:
        self._followed: dict[str, Followed[Name, Object]] = {kind: Followed() for kind in (*OWNERS, "Pod")}
        self._of: dict[tuple[str, str], dict[Name, Object]] = {}  # by kind and owner's uid
        self._names: dict[str, dict[str, Name]] = {kind: {} for kind in OWNERS}  # by uid
        self._due: dict[Step, set[str]] = {step: set() for step in (roll, scale, statuses)}

    def follow(self, snapshot: Snapshot) -> None:
        touched: set[str] = set()
        for kind, followed in self._followed.items():
            for name, old, new in followed.news(snapshot.rows(kind)):
                for obj, holds in ((old, False), (new, True)):
                    if obj is not None:
                        touched |= self._noted(kind, name, obj, holds=holds)
        for uid in touched & self._names["ReplicaSet"].keys():
            touched |= _controllers(snapshot.rows("ReplicaSet")[self._names["ReplicaSet"][uid]])
        for due in self._due.values():
            due |= touched

    def _noted(self, kind: str, name: Name, obj: Object, *, holds: bool) -> set[str]:
        """Notes an object that came or went; the uids of the owners that this is of interest to."""
        owners = _controllers(obj)
        for uid in owners:
            rows = self._of.setdefault((kind, uid), {})
            if holds:
                rows[name] = obj
            else:
                del rows[name]
            if not rows:
                del self._of[kind, uid]
        if kind not in OWNERS:
            return owners
        if holds:
            self._names[kind][_uid(obj)] = name
        else:
            self._names[kind].pop(_uid(obj), None)
        return {*owners, _uid(obj)}

    def of(self, kind: str, owner: Object) -> list[Object]:
        """The objects of a kind that the owner controls, in order of their names."""
        rows = self._of.get((kind, _uid(owner)), {})
        return [rows[name] for name in sorted(rows)]

    def due(self, step: Step, kind: str, snapshot: Snapshot) -> list[Object]:
        """The objects of a kind that a step has to look at, in order of their names."""
        names, rows = self._names[kind], snapshot.rows(kind)
        return [rows[name] for name in sorted(names[uid] for uid in self._due[step] & names.keys())]

    def done(self, step: Step, still: Iterable[Object]) -> None:
        """Says that the step has looked at all, and that from these something followed."""
        self._due[step] = set(map(_uid, still))


def roll(snapshot: Snapshot, given: Pass) -> Snapshot:
    """Each Deployment's ReplicaSets with the replica counts that this moment allows."""
    index = given.index(Owned)
    index.follow(snapshot)
    still = []
    for deployment in index.due(roll, "Deployment", snapshot):
        after = _rolled(snapshot, deployment, index, given.now)
        if after is not snapshot:
            still.append(deployment)
        snapshot = after
    index.done(roll, still)
    return snapshot


def _rolled(snapshot: Snapshot, deployment: Object, index: Owned, now: str) -> Snapshot:
    sets = index.of("ReplicaSet", deployment)
    current = next((row for row in sets if _template_hash(row) == template_hash(deployment)), None)
    if current is None:
        current = _new_set(snapshot, deployment, sets, now)
        sets = [*sets, current]
    pods = {_uid(row): index.of("Pod", row) for row in sets}
    counts = _allowed(deployment, current, sets, pods)
    put = []
    for row in sets:
        wanted = {**row, "spec": {**row["spec"], "replicas": counts[_uid(row)]}}
        if row is current and _revision(row) < max(map(_revision, sets)):  # rolled back to a template it had
            annotations = {**row["metadata"]["annotations"], REVISION: str(max(map(_revision, sets)) + 1)}
            wanted["metadata"] = {**row["metadata"], "annotations": annotations}
        put.append(row if wanted == row else wanted)
    empty = [row for row in sets if row is not current and not counts[_uid(row)] and not pods[_uid(row)]]
    empty.sort(key=_revision)
    history = deployment["spec"].get("revisionHistoryLimit", DEFAULT_HISTORY)
    return removed(snapshot.changed(put), empty[: max(0, len(empty) - history)], now)


def scale(snapshot: Snapshot, given: Pass) -> Snapshot:
    """Each ReplicaSet with as many pods as it wants: made, or on their way out, the least useful first."""
    index = given.index(Owned)
    index.follow(snapshot)
    still = []
    for row in index.due(scale, "ReplicaSet", snapshot):
        after = _scaled(snapshot, row, index.of("Pod", row), given.now)
        if after is not snapshot:
            still.append(row)
        snapshot = after
    index.done(scale, still)
    return snapshot


def _scaled(snapshot: Snapshot, row: Object, owned: list[Object], now: str) -> Snapshot:
    pods = [pod for pod in owned if _counts(pod)]
    wanted = row["spec"].get("replicas", 1)
    if len(pods) < wanted:
        return snapshot.changed(_new_pod(snapshot, row, index, now) for index in range(len(pods), wanted))
    if len(pods) == wanted:
        return snapshot
    crowd: dict[str, int] = {}
    for pod in pods:
        name = pod["spec"].get("nodeName", "")
        crowd[name] = crowd.get(name, 0) + 1
    pods.sort(key=lambda pod: _worth(pod, crowd))
    return removed(snapshot, pods[: len(pods) - wanted], now)


def statuses(snapshot: Snapshot, given: Pass) -> Snapshot:
    """``status`` of ReplicaSets and Deployments, counted from their pods."""
    index = given.index(Owned)
    index.follow(snapshot)
    put = [_with_status(row, _replicas(index.of("Pod", row))) for row in index.due(statuses, "ReplicaSet", snapshot)]
    snapshot = snapshot.changed(put)
    index.follow(snapshot)
    still = []
    put = []
    for deployment in index.due(statuses, "Deployment", snapshot):
        rows = index.of("ReplicaSet", deployment)
        updated = [row for row in rows if _template_hash(row) == template_hash(deployment)]
        ready = sum(row["status"]["readyReplicas"] for row in rows)
        wanted = deployment["spec"].get("replicas", 1)
        counts = {
            "replicas": sum(row["status"]["replicas"] for row in rows),
            "updatedReplicas": sum(row["status"]["replicas"] for row in updated),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, wanted - ready),
        }
        name = updated[0]["metadata"]["name"] if updated else ""
        put.append(_with_status(deployment, counts, conditions=_conditions(deployment, counts, name, given.now)))
        if put[-1] is not deployment:
            still.append(deployment)
    index.done(statuses, still)
    return snapshot.changed(put)


def _conditions(deployment: Object, counts: dict[str, int], current: str, now: str) -> list[Object]:
    """Available and Progressing, as the Deployment controller has them; ``current`` is the newest ReplicaSet's name.

    *Differs*: nothing fails by ``progressDeadlineSeconds``, for that takes a clock.
    https://github.com/kubernetes/kubernetes/blob/master/pkg/controller/deployment/progress.go, ``syncRolloutStatus``
    """
    before = {row["type"]: row for row in (deployment.get("status") or {}).get("conditions") or ()}
    wanted = deployment["spec"].get("replicas", 1)
    rolling = (deployment["spec"].get("strategy") or {}).get("type") != "Recreate"
    spare = min(rolling_bounds(deployment)[1], wanted) if rolling else 0
    enough = counts["availableReplicas"] >= wanted - spare
    available = (
        ("MinimumReplicasAvailable", "Deployment has minimum availability.")
        if enough
        else ("MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    )
    done = "NewReplicaSetAvailable", f'ReplicaSet "{current}" has successfully progressed.'
    # What has come to its end once stays so while it is only scaled.
    was = before.get("Progressing", {})
    at_end = counts["updatedReplicas"] == counts["replicas"] and (was.get("reason"), was.get("message")) == done
    all_there = all(counts[name] == wanted for name in ("replicas", "updatedReplicas", "availableReplicas"))
    progressing = done if at_end or all_there else ("ReplicaSetUpdated", f'ReplicaSet "{current}" is progressing.')
    return [
        _condition(before.get("Available", {}), "Available", enough, available, now),
        _condition(was, "Progressing", True, progressing, now),
    ]


def _condition(before: Object, kind: str, met: bool, why: tuple[str, str], now: str) -> Object:
    """A condition, whose times move only where it does: ``lastTransitionTime`` with its status."""
    said = {"type": kind, "status": "True" if met else "False", "reason": why[0], "message": why[1]}
    if said.items() <= before.items():
        return before
    since = before.get("lastTransitionTime", now) if before.get("status") == said["status"] else now
    return {**said, "lastUpdateTime": now, "lastTransitionTime": since}


def _replicas(owned: list[Object]) -> dict[str, int]:
    pods = [pod for pod in owned if _counts(pod)]
    ready = sum(map(is_ready, pods))
    return {"replicas": len(pods), "readyReplicas": ready, "availableReplicas": ready}


def template_hash(deployment: Object) -> str:
    """The digest of a pod template that names its ReplicaSet."""
    text = json.dumps(deployment["spec"]["template"], sort_keys=True)
    return generated(10, text)


def generated(length: int, *parts: object) -> str:
    """A name's random-looking end, made from a digest of the parts."""
    number = int.from_bytes(hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=12).digest())
    letters = []
    for _ in range(length):
        number, index = divmod(number, len(ALPHABET))
        letters.append(ALPHABET[index])
    return "".join(letters)


def rolling_bounds(deployment: Object) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) as counts: percentages of ``replicas``, rounded up and down; never both 0."""
    wanted = deployment["spec"].get("replicas", 1)
    strategy = deployment["spec"].get("strategy") or {}
    rolling = strategy.get("rollingUpdate") or {}

    def count(value: int | str, rounding: object) -> int:
        if isinstance(value, str):
            share = wanted * int(value.rstrip("%")) / 100
            return math.ceil(share) if rounding is math.ceil else math.floor(share)
        return value

    surge = count(rolling.get("maxSurge", "25%"), math.ceil)
    unavailable = count(rolling.get("maxUnavailable", "25%"), math.floor)
    return surge, unavailable if surge or unavailable else 1


def _allowed(deployment: Object, current: Object, sets: list[Object], pods: dict[str, list[Object]]) -> dict[str, int]:
    """Replicas that each ReplicaSet may have now, by uid (the Deployment controller's rolling update)."""
    wanted = deployment["spec"].get("replicas", 1)
    old = sorted((row for row in sets if row is not current), key=_revision)
    counts = {_uid(row): int(row["spec"].get("replicas", 0)) for row in sets}
    mine = {uid: [pod for pod in pods.get(uid, []) if _counts(pod)] for uid in counts}
    if (deployment["spec"].get("strategy") or {}).get("type") == "Recreate":
        for row in old:
            counts[_uid(row)] = 0
        counts[_uid(current)] = 0 if any(pods.get(_uid(row)) for row in old) else wanted
        return counts
    surge, unavailable = rolling_bounds(deployment)
    total = sum(counts.values())
    if not any(counts[_uid(row)] for row in old):
        counts[_uid(current)] = wanted
        return counts
    if counts[_uid(current)] < wanted:
        counts[_uid(current)] += max(0, min(wanted - counts[_uid(current)], wanted + surge - total))
    else:
        counts[_uid(current)] = wanted
    # Old pods may go as far as enough ready ones remain; those that are not ready serve nobody and go first.
    spare = sum(sum(map(is_ready, rows)) for rows in mine.values()) - (wanted - unavailable)
    # As many of the latter as leave the pods that are wanted at least, whether these are ready yet or not.
    new = _uid(current)
    room = total - (wanted - unavailable) - max(0, counts[new] - sum(map(is_ready, mine[new])))
    for row in old:
        idle = max(0, counts[_uid(row)] - sum(map(is_ready, mine[_uid(row)])))
        step = max(0, min(idle, room))
        counts[_uid(row)] -= step
        room -= step
    for row in old:
        step = max(0, min(spare, counts[_uid(row)]))
        counts[_uid(row)] -= step
        spare -= step
    return counts


def _controllers(obj: Object) -> set[str]:
    """uids of the owners that control the object: one, as a rule."""
    return {owner["uid"] for owner in obj["metadata"].get("ownerReferences") or () if owner.get("controller")}


def _uid(obj: Object) -> str:
    return str(obj["metadata"]["uid"])


def _template_hash(replica_set: Object) -> str | None:
    return (replica_set["metadata"].get("labels") or {}).get(HASH_LABEL)


def _revision(replica_set: Object) -> int:
    return int((replica_set["metadata"].get("annotations") or {}).get(REVISION, 0))


def _counts(pod: Object) -> bool:
    """Whether a pod stands for a replica: it is not on its way out and not finished."""
    return "deletionTimestamp" not in pod["metadata"] and not is_finished(pod)


def _worth(pod: Object, crowd: dict[str, int]) -> tuple[bool, bool, int, float, str]:
    """Order in which a ReplicaSet gives up pods: unplaced, not ready, cheap to delete, on crowded nodes, the newest.

    https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/#scaling-a-replicaset
    """
    metadata = pod["metadata"]
    cost = (metadata.get("annotations") or {}).get(DELETION_COST_ANNOTATION, "0")
    node = pod["spec"].get("nodeName", "")
    return bool(node), is_ready(pod), int(cost), -crowd[node], metadata["name"]


def _owner(obj: Object) -> list[Object]:
    return [
        {
            "apiVersion": obj["apiVersion"],
            "kind": obj["kind"],
            "name": obj["metadata"]["name"],
            "uid": _uid(obj),
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]


def _new_set(snapshot: Snapshot, deployment: Object, sets: list[Object], now: str) -> Object:
    metadata, spec, digest = deployment["metadata"], deployment["spec"], template_hash(deployment)
    name = f"{metadata['name']}-{digest}"
    template = spec["template"]
    labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH_LABEL: digest}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": {REVISION: str(max(map(_revision, sets), default=0) + 1)},
            "ownerReferences": _owner(deployment),
            "uid": digest_uid("ReplicaSet", _uid(deployment), digest, snapshot.generation),
            "creationTimestamp": now,
        },
        "spec": {
            "replicas": 0,
            "selector": {
                **spec["selector"],
                "matchLabels": {**(spec["selector"].get("matchLabels") or {}), HASH_LABEL: digest},
            },
            "template": {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}},
        },
    }


def _new_pod(snapshot: Snapshot, replica_set: Object, index: int, now: str) -> Object:
    template, uid = replica_set["spec"]["template"], _uid(replica_set)
    metadata = template.get("metadata") or {}
    kept = {name: metadata[name] for name in ("labels", "annotations") if metadata.get(name)}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{replica_set['metadata']['name']}-{generated(5, uid, snapshot.generation, index)}",
            "namespace": replica_set["metadata"]["namespace"],
            **kept,
            "ownerReferences": _owner(replica_set),
            "uid": digest_uid("Pod", uid, snapshot.generation, index),
            "creationTimestamp": now,
        },
        "spec": template["spec"],
        "status": {"phase": "Pending"},
    }
    return defaulted(pod)  # a template is not defaulted in all that a Pod is, and who changes a Pod gives all of it


def _with_status(obj: Object, counts: dict[str, int], **more: Any) -> Object:
    kept = {name: count for name, count in counts.items() if count or name == "replicas" or name == "readyReplicas"}
    status = {**kept, **more}
    status["observedGeneration"] = (obj.get("status") or {}).get("observedGeneration", 0)  # the store's to move
    return obj if obj.get("status") == status else {**obj, "status": status}
