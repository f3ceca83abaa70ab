"""Addresses of Services and ids of backends: what is given stays given while its owner lives. Pure."""

from dataclasses import replace

from plane.controllers.lifecycle import Pass
from plane.model import Object, Snapshot, endpoints_of


def needs_cluster_ip(service: Object) -> bool:
    return service["spec"].get("type", "ClusterIP") != "ExternalName" and not service["spec"].get("clusterIP")


def cluster_ips(snapshot: Snapshot, given: Pass) -> Snapshot:
    """Services without an address get one; those that ask for one have been checked by the store."""
    taken = {obj["spec"].get("clusterIP") for obj in snapshot.all("Service")}
    put = []
    for obj in snapshot.all("Service"):
        if needs_cluster_ip(obj):
            address = given.plan.free_cluster_ip(taken)
            taken.add(address)
            put.append({**obj, "spec": {**obj["spec"], "clusterIP": address, "clusterIPs": [address]}})
    return snapshot.changed(put)


def backend_ids(snapshot: Snapshot, given: Pass) -> Snapshot:
    """Every endpoint has an id for as long as it is in a slice; an id is given again, lowest first, once it is free.

    A terminating pod stays in its slice until its node says it is gone, so no live flow ever sees its id reused.
    """
    present = {endpoint.key for obj in snapshot.all("EndpointSlice") for endpoint in endpoints_of(obj)}
    if present == snapshot.backends.keys():
        return snapshot
    kept = {key: number for key, number in snapshot.backends.items() if key in present}
    used = set(kept.values())
    free = (number for number in range(1, len(present) + len(used) + 1) if number not in used)
    kept.update(zip(sorted(present - kept.keys()), free, strict=False))
    return replace(snapshot, backends=kept)
