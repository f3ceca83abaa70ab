"""What a plane would be after ``apply``, without running one: for ``explain``. Pure but for reading files."""

import io
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from plane import statuses
from plane.addresses import AddressPlan
from plane.controllers import addressing, endpointslices
from plane.controllers.lifecycle import Pass
from plane.defaults import defaulted
from plane.families import IPV4, Family
from plane.manifests import STDIN, load
from plane.model import Object, Snapshot
from plane.store import Store, utc_now

NODES = 3
# Each pass makes the pods of the pass before ready; a rolling update of a fresh Deployment needs two.
PASSES = 8


def snapshot(
    paths: Sequence[str], stdin: TextIO | None = None, *, nodes: int = NODES, family: Family = IPV4
) -> Snapshot:
    """The Snapshot that these manifests settle into on a plane of ``nodes`` nodes, with every pod ready.

    What another cluster gave out (``kubectl get svc,endpointslices,nodes,pods,ingress -A -o yaml``) is taken as it
    stands instead: any addresses, its own statuses, kinds that are none of ours left out. So is whatever is to be seen
    over IPv6, of which a plane gives nobody an address. Raises ManifestError.
    """
    if STDIN in paths:
        stdin = io.StringIO((stdin or sys.stdin).read())  # read twice below
    given = load(paths, stdin, lenient=True)
    if family is not IPV4 or any(_is_live(manifest.object) for manifest in given.objects):
        return as_it_stands((manifest.object for manifest in given.objects), family)
    if stdin is not None:
        stdin.seek(0)
    return settled((manifest.object for manifest in load(paths, stdin).objects), nodes=nodes)


def _is_live(obj: Object) -> bool:
    """Whether the object comes from a cluster: people write no uid and no status."""
    return bool(obj["metadata"].get("uid") or obj.get("status"))


def as_it_stands(objects: Iterable[Object], family: Family = IPV4) -> Snapshot:
    """The Snapshot of a live cluster as far as it is of a family of addresses.

    Where it has no EndpointSlice at all, those of IPv4 are made from selectors and pods.
    """
    seen = (obj for obj in map(defaulted, objects) if obj.get("addressType", family.name) == family.name)
    found = Snapshot().changed(seen)
    given = Pass(AddressPlan(), utc_now())
    if family is IPV4 and not any(found.all("EndpointSlice")):
        found = endpointslices.endpoint_slices(found, given)
    return addressing.backend_ids(found, given)


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
