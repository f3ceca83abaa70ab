"""The controllers: what follows from what was asked for. Pure: Snapshot → Snapshot.

Law: ``reconcile`` is called after every change and brings in all that follows from it in one pass, in the order in
which things depend on each other. It reads no clock and draws no random number: ``now`` is an argument and names and
uids are digests, so the same Snapshot always gives the same result. A pass that changes nothing returns the same
objects, so that a caller can tell what changed by comparing.

A ``Reconciler`` gives the same results and remembers from pass to pass what it has found out about the objects: what it
then looks at are those that differ from the pass before, and those of which something still follows. Its memory is
indexes, which follow any Snapshot from any other (``plane.rows``), also one that was thrown away in between.

A pod that must go is marked with ``deletionTimestamp`` and stays in the Snapshot, draining, until its node says that it
is gone.
"""

from plane.addresses import AddressPlan
from plane.controllers import addressing, clusterdns, deployments, endpointslices, lifecycle, scheduling
from plane.controllers.lifecycle import Indexes, Pass
from plane.model import Snapshot


def rollout(snapshot: Snapshot, given: Pass) -> Snapshot:
    """Deployments' pods: what one ReplicaSet gives up at once leaves room for another, until nothing follows."""
    before = None
    while before is not snapshot:
        before = snapshot
        for step in (deployments.roll, lifecycle.orphans, deployments.scale):
            snapshot = step(snapshot, given)
    return snapshot


STEPS = (
    lifecycle.namespaces,
    lifecycle.orphans,
    clusterdns.cluster_dns,
    addressing.services,
    rollout,
    scheduling.schedule,
    endpointslices.endpoint_slices,
    addressing.backend_ids,
    deployments.statuses,
)


class Reconciler:
    """``reconcile`` for one Snapshot after the other, at the cost of what differs between them."""

    def __init__(self, plan: AddressPlan):
        self._plan = plan
        self._indexes: Indexes = {}

    def __call__(self, snapshot: Snapshot, now: str) -> Snapshot:
        """As ``reconcile``."""
        given = Pass(self._plan, now, self._indexes)
        try:
            for step in STEPS:
                snapshot = step(snapshot, given)
        except BaseException:
            self._indexes.clear()  # one of them may have followed half of a change
            raise
        return snapshot


def reconcile(snapshot: Snapshot, plan: AddressPlan, now: str) -> Snapshot:
    """The Snapshot with everything in it that follows from the objects in it; ``now`` is RFC 3339.

    Raises PlaneError where a range of addresses is exhausted.
    """
    return Reconciler(plan)(snapshot, now)
