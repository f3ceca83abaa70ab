"""The ``status`` of nodes and pods as Kubernetes objects, made from what nodes report. Pure."""

import functools
import platform

from plane import __version__
from plane.addresses import AddressPlan
from plane.controllers.endpointslices import is_ready as ready
from plane.model import NODE_NUMBER_ANNOTATION, ZONE_LABEL, Object
from plane.pods.status import PodStatus

__all__ = ["assumed_ready", "node", "node_name", "pod", "pod_lost", "ready"]


def node_name(number: int) -> str:
    return f"node-{number}"


def node(
    number: int, plan: AddressPlan, *, ready: bool, now: str, before: Object | None = None, zones: int = 1
) -> Object:
    """The Node object of node ``number``, with its Ready condition, in one of so many zones."""
    name, address = node_name(number), plan.node(number)
    reason = (
        ("NodeReady", "the node has acknowledged its tables") if ready else ("NodeLost", "the node does not answer")
    )
    spec = {"podCIDR": str(plan.pods_of(number)), "podCIDRs": [str(plan.pods_of(number))]}
    obj: Object = before or {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                ZONE_LABEL: f"zone-{(number - 1) % zones + 1}",
            },
            "annotations": {NODE_NUMBER_ANNOTATION: str(number)},
            "uid": f"trafficplane-{plan.instance}-{name}",
            "creationTimestamp": now,
        },
        "spec": spec,
    }
    return {
        **obj,
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}, {"type": "Hostname", "address": name}],
            "conditions": _conditions(obj, {"Ready": (ready, *reason)}, now),
            "nodeInfo": node_info(),
        },
    }


@functools.cache
def node_info() -> Object:
    """What ``kubectl get nodes -o wide`` says of the machine; every node of a plane is on the same one."""
    system = platform.uname()
    version = f"trafficplane-{__version__}"
    return {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}.get(system.machine, system.machine),
        "operatingSystem": system.system.lower(),
        "kernelVersion": system.release,
        "osImage": system.version,
        "containerRuntimeVersion": f"python://{platform.python_version()}",
        "kubeletVersion": version,
        "kubeProxyVersion": version,
        "machineID": "",
        "systemUUID": "",
        "bootID": "",
    }


def pod(obj: Object, report: PodStatus, now: str, *, restarts: int = 0) -> Object:
    """The pod with the status its node reports; ``restarts`` are those of earlier lives of the node."""
    state: Object
    if report.phase == "Running":
        state = {"running": {"startedAt": now}}
    elif report.phase in ("Succeeded", "Failed"):
        code = 0 if report.phase == "Succeeded" else 1
        state = {"terminated": {"exitCode": code, "reason": report.reason, "message": report.message}}
    else:
        state = {"waiting": {"reason": report.reason or "ContainerCreating", "message": report.message}}
    before = obj.get("status") or {}
    containers = []
    for index, container in enumerate(obj["spec"]["containers"]):
        earlier = (before.get("containerStatuses") or [])[index : index + 1]
        kept = earlier[0].get("state") if earlier and earlier[0].get("state", {}).keys() == state.keys() else None
        containers.append(
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",  # the API wants it there; nothing is pulled here
                "ready": report.ready,
                "started": report.phase == "Running",
                "restartCount": report.restarts + restarts,
                "state": kept if kept and "running" in kept else state,
            }
        )
    why = (
        report.ready,
        "" if report.ready else report.reason or "ContainersNotReady",
        "" if report.ready else report.message,
    )
    met = {"PodScheduled": (True, "", ""), "Initialized": (True, "", ""), "ContainersReady": why, "Ready": why}
    return {
        **obj,
        "status": {
            **before,
            "phase": report.phase,
            "startTime": before.get("startTime", now),
            "conditions": _conditions(obj, met, now),
            "containerStatuses": containers,
        },
    }


def pod_lost(obj: Object, now: str) -> Object:
    """The pod while its node is gone: it serves nobody until the node is back."""
    why = (False, "NodeLost", "the node of this pod does not answer")
    before = obj.get("status") or {}
    containers = [{**row, "ready": False} for row in before.get("containerStatuses") or ()]
    conditions = _conditions(obj, {"PodScheduled": (True, "", ""), "ContainersReady": why, "Ready": why}, now)
    return {**obj, "status": {**before, "conditions": conditions, "containerStatuses": containers}}


def assumed_ready(obj: Object, now: str) -> Object:
    """The pod as if its node had said that it runs and is ready."""
    metadata = obj["metadata"]
    report = PodStatus(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        phase="Running",
        ready=True,
        restarts=0,
        started_ns=0,
        reason="",
        message="",
        gone=False,
    )
    return pod(obj, report, now)


def _conditions(obj: Object, wanted: dict[str, tuple[bool, str, str]], now: str) -> list[Object]:
    """Conditions as the API writes them; ``lastTransitionTime`` moves only when the status does."""
    before = {row["type"]: row for row in (obj.get("status") or {}).get("conditions") or ()}
    rows = []
    for kind, (met, reason, message) in wanted.items():
        status = "True" if met else "False"
        earlier = before.get(kind, {})
        since = earlier.get("lastTransitionTime", now) if earlier.get("status") == status else now
        row = {"type": kind, "status": status, "lastTransitionTime": since}
        row.update({"reason": reason} if reason else {})
        row.update({"message": message} if message else {})
        rows.append(row)
    return rows
