"""Pods onto nodes, and an address for each. Pure."""

from collections import Counter

from plane.controllers.lifecycle import Pass, Taking, count, note
from plane.errors import PlaneError
from plane.model import Name, Object, Snapshot
from plane.rows import Followed


class Places:
    """Where pods are, which addresses they have, and which have none."""

    def __init__(self) -> None:
        self._followed: Followed[Name, Object] = Followed()
        self.taken: Counter[str] = Counter()
        self.load: Counter[str] = Counter()  # by the name of the node
        self.waiting: set[Name] = set()

    def follow(self, snapshot: Snapshot) -> None:
        for name, old, new in self._followed.news(snapshot.rows("Pod")):
            for pod, by in ((old, -1), (new, 1)):
                if pod is not None:
                    count(self.taken, _address(pod), by)
                    count(self.load, pod["spec"].get("nodeName"), by)
            waits = new is not None and not _address(new) and "deletionTimestamp" not in new["metadata"]
            note(self.waiting, name, holds=waits)


def schedule(snapshot: Snapshot, given: Pass) -> Snapshot:
    """Pods without a node go to the ready node that has the fewest; each gets an address of its node's range.

    A cordoned node (``spec.unschedulable``) gets only pods that name it.
    """
    index = given.index(Places)
    index.follow(snapshot)
    if not index.waiting:
        return snapshot
    ready = {obj["metadata"]["name"]: obj for obj in snapshot.all("Node") if _is_open(obj)}
    load = {name: index.load[name] for name in ready}
    taken = Taking(index.taken)
    put = []
    for pod in (snapshot.rows("Pod")[name] for name in sorted(index.waiting)):
        name = pod["spec"].get("nodeName") or _choose(pod, ready, load)
        node = snapshot.get("Node", "", name) if name else None
        if node is None:
            put.append(_unschedulable(pod, given.now))
            continue
        try:
            address = given.plan.free_pod_ip(node_number(node), taken)
        except PlaneError:  # the node is full: for this pass it takes no more, and the pod waits for room
            ready.pop(name, None)
            put.append(_unschedulable(pod, given.now))
            continue
        taken.add(address)
        load[name] = load.get(name, 0) + 1
        put.append(_placed(pod, node, address, given.now))
    return snapshot.changed(put)


def _address(pod: Object) -> str:
    return (pod.get("status") or {}).get("podIP") or ""


def node_number(node: Object) -> int:
    """N of a node's address 127.x.0.N."""
    return int(node_address(node).rpartition(".")[2])


def node_address(node: Object) -> str:
    return str(next(row["address"] for row in node["status"]["addresses"] if row["type"] == "InternalIP"))


def node_is_ready(node: Object) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(row["type"] == "Ready" and row["status"] == "True" for row in conditions)


def _is_open(node: Object) -> bool:
    return node_is_ready(node) and not (node.get("spec") or {}).get("unschedulable")


def _choose(pod: Object, ready: dict[str, Object], load: dict[str, int]) -> str:
    wanted = (pod["spec"].get("nodeSelector") or {}).items()
    fitting = [name for name, node in ready.items() if wanted <= (node["metadata"].get("labels") or {}).items()]
    return min(fitting, key=lambda name: (load[name], node_number(ready[name])), default="")


def condition(kind: str, *, met: bool, now: str, reason: str = "", message: str = "") -> Object:
    row = {"type": kind, "status": "True" if met else "False", "lastTransitionTime": now}
    return {**row, **({"reason": reason} if reason else {}), **({"message": message} if message else {})}


def _placed(pod: Object, node: Object, address: str, now: str) -> Object:
    status = {
        "phase": "Pending",
        "hostIP": node_address(node),
        "podIP": address,
        "podIPs": [{"ip": address}],
        "conditions": [condition("PodScheduled", met=True, now=now), condition("Ready", met=False, now=now)],
    }
    return {**pod, "spec": {**pod["spec"], "nodeName": node["metadata"]["name"]}, "status": status}


def _unschedulable(pod: Object, now: str) -> Object:
    before = (pod.get("status") or {}).get("conditions") or ()
    if any(row.get("reason") == "Unschedulable" for row in before):
        return pod
    why = condition(
        "PodScheduled",
        met=False,
        now=now,
        reason="Unschedulable",
        message="no ready node that is not cordoned matches spec.nodeName or spec.nodeSelector and has a free address",
    )
    return {**pod, "status": {"phase": "Pending", "conditions": [why]}}
