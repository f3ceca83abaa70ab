"""What an update of a Service says nothing about: what the plane gave it stays, or goes with the type it was for. Pure.

Law: as in the API server (``patchAllocatedValues`` and ``dropTypeDependentFields`` of pkg/registry/core/service): a
value that the update leaves out is that of before, and one that it only repeats goes where the new type has no use for
it. So `kubectl apply` with another ``type`` works although node ports were given in between.
"""

from plane.model import Object

CLUSTER_IP = ("clusterIP", "clusterIPs")
# Defaulted or given for a type; they go with it.
FOR_BALANCERS = ("allocateLoadBalancerNodePorts", "loadBalancerClass", "healthCheckNodePort")
FOR_OUTSIDE = ("externalTrafficPolicy",)
FOR_CLUSTER = (*CLUSTER_IP, "internalTrafficPolicy", "ipFamilies", "ipFamilyPolicy")


def inherited(spec: Object, before: Object) -> Object:
    """The spec of a Service with what it has from the spec before."""
    kind = spec.get("type") or "ClusterIP"
    spec = dict(spec)
    if kind != "ExternalName" and not spec.get("clusterIP"):
        spec |= {name: before[name] for name in CLUSTER_IP if name in before}
    numbered = kind in ("NodePort", "LoadBalancer")
    given = {_name(port): port["nodePort"] for port in before.get("ports") or () if port.get("nodePort")}
    rows = spec.get("ports")
    if given and isinstance(rows, list) and all(isinstance(row, dict) for row in rows):
        spec["ports"] = [_port(row, given, numbered=numbered) for row in rows]
    local = numbered and spec.get("externalTrafficPolicy", before.get("externalTrafficPolicy")) == "Local"
    if kind == "LoadBalancer" and local and before.get("healthCheckNodePort"):
        spec.setdefault("healthCheckNodePort", before["healthCheckNodePort"])
    useless = (
        *(FOR_BALANCERS if kind != "LoadBalancer" else () if local else ("healthCheckNodePort",)),
        *(FOR_OUTSIDE if not numbered and not spec.get("externalIPs") else ()),
        *(FOR_CLUSTER if kind == "ExternalName" else ()),
    )
    return {name: value for name, value in spec.items() if name not in useless or value != before.get(name)}


def _port(row: Object, given: dict[object, int], *, numbered: bool) -> Object:
    number = given.get(_name(row))
    if numbered:
        return {**row, "nodePort": row.get("nodePort") or number} if number else row
    return {name: value for name, value in row.items() if name != "nodePort" or value != number}


def _name(port: Object) -> object:
    return port.get("name") or (port.get("port"), port.get("protocol") or "TCP")
