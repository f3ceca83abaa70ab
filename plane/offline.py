"""What a plane would be after ``apply``, without running one: for ``explain``. Pure but for reading files."""

from collections.abc import Iterable, Sequence
from typing import TextIO

from plane import statuses
from plane.addresses import AddressPlan
from plane.manifests import load
from plane.model import Object, Snapshot
from plane.store import Store, utc_now

NODES = 3
# Each pass makes the pods of the pass before ready; a rolling update of a fresh Deployment needs two.
PASSES = 8


def snapshot(paths: Sequence[str], stdin: TextIO | None = None, *, nodes: int = NODES) -> Snapshot:
    """The Snapshot that these manifests settle into on a plane of ``nodes`` nodes, with every pod ready.

    Raises ManifestError.
    """
    return settled((manifest.object for manifest in load(paths, stdin).objects), nodes=nodes)


def settled(objects: Iterable[Object], *, nodes: int = NODES, plan: AddressPlan | None = None) -> Snapshot:
    """The Snapshot that the objects settle into, with every pod ready."""
    plan = plan or AddressPlan()
    store = Store(plan)
    store.update(statuses.node(number, plan, ready=True, now=utc_now()) for number in range(1, nodes + 1))
    store.apply([obj for obj in objects if obj["kind"] != "Node"])
    for _ in range(PASSES):
        waiting = [pod for pod in store.snapshot.all("Pod") if pod["spec"].get("nodeName") and not statuses.ready(pod)]
        if not waiting:
            break
        store.update(statuses.assumed_ready(pod, utc_now()) for pod in waiting)
    return store.snapshot
