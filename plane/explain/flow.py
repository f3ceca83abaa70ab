"""Where a new connection or datagram to a Service would go, and why. Pure.

Law: the verdict, the endpoints and the choice come from the compiled Fib and the kernels that steer by it; this file
puts them in words, and says beside them what kube-proxy would do to the source address
(https://github.com/kubernetes/kubernetes/blob/master/pkg/proxy/iptables/proxier.go, ``writeServiceToEndpointRules``).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from kernels.layout import ALGORITHMS, NEW, NO_FRONTEND, OUTCOMES, RANDOM, Fib, Flows, Verdicts
from kernels.lb.forward import create_steering, forward, node_of, pool_for
from plane import fib
from plane.addresses import int_to_ip, ip_to_int
from plane.dns.names import followed, loops
from plane.endpoints import topology
from plane.errors import ManifestError, Problem
from plane.families import ipv4
from plane.frontends import PROTOCOLS, Frontend, Node, frontends_of, nodes_of, slow_start_of
from plane.model import Endpoint, Service, Snapshot, service_endpoints, slices_by_service

# The flow that is asked about, as far as nobody says: a client's first port on Linux, at time 0.
CLIENT_IP, CLIENT_PORT, NOW_NS = "127.0.0.1", 32768, 0

_LOADED = "of endpoints without connections this is the first, and a running plane counts them"
# Why an algorithm gives this endpoint, on a plane that nobody has used yet.
BECAUSE = {
    "random": f"{{flow}} draws this endpoint at time {NOW_NS}, at another time perhaps another",
    "rr": "this endpoint is the first in turn, the next connection gets the next",
    "wrr": "this endpoint is the first in turn by weight",
    "sh": "the client's address falls to this endpoint",
    "dh": "the address that is connected to falls to this endpoint",
    "mh": "the client's address hashes to a slot of this endpoint",
    "maglev": "{flow} hashes to a slot of this endpoint, and always will",
    "p2c": "of two endpoints drawn, neither of which has connections yet, this is the first",
    **dict.fromkeys(("lc", "wlc", "sed", "nq"), _LOADED),
}


@dataclass(frozen=True)
class FlowExplanation:
    """The answer.

    verdict     NEW, REJECT, DROP or NO_FRONTEND
    frontend    ``address:port/protocol`` of the frontend, ``kind`` says by what, ``service`` whose
    policy      the traffic policy that applies to this client, Cluster or Local
    endpoints   ``ip:port`` of those that this client may have
    chosen      the one that it gets
    masquerade  whether kube-proxy would show the endpoint another source address than the client's
    """

    flow: str
    verdict: str
    frontend: str | None = None
    kind: str | None = None
    service: str | None = None
    policy: str | None = None
    algorithm: str | None = None
    endpoints: tuple[str, ...] = ()
    chosen: str | None = None
    masquerade: bool = False
    reasons: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        return {**found, "endpoints": list(self.endpoints), "reasons": list(self.reasons)}

    def render(self) -> str:
        """Some lines of text for people."""
        rows: list[tuple[str, Any]] = [("flow", self.flow), ("verdict", self.verdict)]
        if self.frontend:
            rows.append(("frontend", f"{self.frontend}  {self.kind} of Service {self.service}"))
            rows.append(("policy", self.policy))
        rows += [("endpoint", each) for each in self.endpoints]
        rows.append(("chosen", self.chosen))
        if self.chosen:
            rows.append(("source", "kube-proxy would masquerade it, here it is kept" if self.masquerade else "kept"))
        rows += [("because" if number == 0 else "", reason) for number, reason in enumerate(self.reasons)]
        return "".join(f"{name:9} {value}\n" for name, value in rows if value is not None)


@dataclass(frozen=True)
class Client:
    """Who connects. ``node`` is N of the node it is at, or arrives at from outside; 0 for nowhere in particular."""

    ip: str
    kind: str  # pod, node or outside
    node: int
    called: str


def explain_flow(
    snapshot: Snapshot,
    protocol: str,
    host: str,
    port: int,
    *,
    from_ip: str | None = None,
    from_pod: str | None = None,
    node: str | None = None,
    algorithm: int = RANDOM,
) -> FlowExplanation:
    """What becomes of a new TCP or UDP flow to an address, or to a Service by its DNS name.

    ``from_pod`` is ``name`` or ``namespace/name``; ``node`` is where a client from outside arrives, or a pod is.
    Raises ManifestError where what is asked about does not exist.
    """
    nodes = nodes_of(snapshot)
    table = fib.compile(snapshot, algorithm)
    client = _client(snapshot, table, nodes, from_ip, from_pod, node)
    flow = f"{protocol.lower()}://{host}:{port} from {client.called}"
    address, how = _address_of(snapshot, host)
    if not address:
        return FlowExplanation(flow, OUTCOMES[NO_FRONTEND], reasons=(how,))
    steering = create_steering(table, 0)
    steering.arrival[0] = client.node
    columns = (
        (ip_to_int(client.ip), "u4"),
        (ip_to_int(address), "u4"),
        (CLIENT_PORT, "u2"),
        (port, "u2"),
        (PROTOCOLS[protocol], "u1"),
    )
    verdicts = Verdicts(np.zeros(1, np.uint8), np.zeros(1, np.uint32), np.zeros(1, np.uint32))
    forward(table, steering, Flows(*(np.array([value], kind) for value, kind in columns)), NOW_NS, verdicts)
    row, backend = int(verdicts.frontend[0]), int(verdicts.backend[0])
    outcome = OUTCOMES[verdicts.outcome[0]]
    if not row:
        nobody = _nobody_there(snapshot, address, port, protocol)
        return FlowExplanation(flow, outcome, reasons=(*filter(None, [how]), nobody))
    frontend = list(frontends_of(snapshot, nodes))[row - 1]
    allowed, pool = pool_for(table, steering, row, np.uint32(ip_to_int(client.ip)))
    policy, why = _policy(frontend, client)
    eligible = _members(table, int(pool)) if allowed == NEW else ()
    chosen = _endpoint(table, backend) if backend else None
    name = ALGORITHMS[table.pools[pool]["algorithm"]]
    reasons = [why, *_about_hints(frontend, client, nodes, policy)]
    if allowed != NEW:
        ranges = ", ".join(frontend.source_ranges)
        reasons = [f"{client.ip} is in none of spec.loadBalancerSourceRanges ({ranges})"]
    elif chosen is None:
        reasons.append(_why_nobody(frontend, outcome, client, nodes))
    elif frontend.service.affinity_s:
        kept = f"until {frontend.service.affinity_s} s after its last new connection"
        reasons.append(f"session affinity: {client.ip} keeps this endpoint {kept}")
    else:
        reasons.append(f"{name}: {BECAUSE[name].format(flow=f'the flow from {client.ip}:{CLIENT_PORT}')}")
    reasons += _about_slow_start(frontend, int(table.pools[pool]["algorithm"])) if chosen else ()
    masquerade, masquerading = _masqueraded(frontend, client, chosen)
    return FlowExplanation(
        flow=flow,
        verdict=outcome,
        frontend=f"{frontend.ip}:{frontend.port}/{protocol}",
        kind=frontend.kind,
        service=frontend.service.full_name,
        policy=policy,
        algorithm=name,
        endpoints=eligible,
        chosen=chosen,
        masquerade=masquerade,
        reasons=(*filter(None, [how]), *reasons, *([masquerading] if masquerading and chosen else ())),
    )


def service_named(snapshot: Snapshot, host: str) -> Service | None:
    """The Service that a host means by its DNS name: ``svc.ns``, ``svc.ns.svc``, ``svc.ns.svc.cluster.local``."""
    name, _, rest = host.lower().removesuffix(".").partition(".")
    namespace, _, zone = rest.partition(".")
    obj = snapshot.get("Service", namespace, name) if zone in ("", "svc", "svc.cluster.local") else None
    return Service.of(obj) if obj else None


def _wrong(field: str, reason: str) -> ManifestError:
    return ManifestError([Problem("", 0, "", field, reason)])


def _client(
    snapshot: Snapshot, table: Fib, nodes: Sequence[Node], from_ip: str | None, from_pod: str | None, at: str | None
) -> Client:
    numbers = {node.name: node.number for node in nodes}
    if at is not None and at not in numbers:
        raise _wrong("--node", f'there is no Node "{at}"; there are {", ".join(numbers) or "none"}')
    if from_pod is not None:
        namespace, _, name = ("default/" + from_pod if "/" not in from_pod else from_pod).partition("/")
        pod = snapshot.get("Pod", namespace, name)
        ip = ((pod or {}).get("status") or {}).get("podIP")
        if not ip:
            known = ", ".join(
                f"{obj['metadata']['namespace']}/{obj['metadata']['name']}" for obj in snapshot.all("Pod")
            )
            raise _wrong(
                "--from-pod", f'there is no Pod "{namespace}/{name}" with an address; there are {known or "none"}'
            )
        return Client(ip, "pod", int(node_of(table.sources, np.uint32(ip_to_int(ip)))), f"pod {namespace}/{name}, {ip}")
    ip = from_ip or CLIENT_IP
    if not ipv4(ip):
        raise _wrong("--from-ip", f'"{ip}" is no IPv4 address')
    number = int(node_of(table.sources, np.uint32(ip_to_int(ip))))
    if number:
        kind = "node" if any(ip in node.addresses for node in nodes) else "pod"
        return Client(ip, kind, number, f"{ip}, a {kind} of the cluster")
    return Client(ip, "outside", numbers.get(at or "", 0), f"{ip}, outside the cluster" + (f", at {at}" if at else ""))


def _address_of(snapshot: Snapshot, host: str) -> tuple[str, str]:
    """(address, by which other names, if any), or (empty, why there is none)."""
    if ipv4(host):
        return host, ""
    service = service_named(snapshot, host)
    if service is None:
        return "", f'"{host}" is neither an IPv4 address nor the DNS name of a Service, such as web.default.svc'
    how = ""
    if service.type == "ExternalName":
        names, end = followed(snapshot, service)
        how = f"Service {service.full_name} is an ExternalName: DNS says {' → '.join(names)}"
        if loops(snapshot, service):
            return "", f"{how}, which leads back to itself: it has no address"
        if end is None:
            return "", f"{how}, and the client connects to that host itself: no Service is on the way"
        service = end
    if service.cluster_ip:
        return service.cluster_ip, how
    if service.cluster_ips:
        return "", f"Service {service.full_name} has addresses of IPv6 alone, and a plane carries IPv4"
    ready = sorted({row.ip for rows in _endpoints(snapshot, service).values() for row in rows if row.ready})
    names_of = f"; DNS says {', '.join(ready)}, and the client connects to one itself" if ready else ""
    headless = f"Service {service.full_name} is headless: it has no ClusterIP to connect to{names_of}"
    return "", "; ".join(filter(None, [how, headless]))


def _endpoints(snapshot: Snapshot, service: Service) -> dict[str, list[Endpoint]]:
    slices = slices_by_service(snapshot).get((service.namespace, service.name), ())
    return service_endpoints(service, slices)


def _nobody_there(snapshot: Snapshot, address: str, port: int, protocol: str) -> str:
    for obj in snapshot.all("Service"):
        service = Service.of(obj)
        if address in (service.cluster_ip, *service.outside_ips, *service.balancer_ips):
            there = ", ".join(f"{row.port}/{row.protocol}" for row in service.ports) or "none"
            return f"Service {service.full_name} has no port {port}/{protocol}, it has {there}: refused"
        balanced = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        if any(row.get("ip") == address for row in balanced):
            return (
                f"{address} is a load balancer of Service {service.full_name} of ipMode Proxy: nodes leave it to that"
            )
    for obj in snapshot.all("Pod"):
        if (obj.get("status") or {}).get("podIP") == address:
            name = f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
            return f"{address} is pod {name} itself: no Service is on the way"
    return f"no Service has {address}:{port}/{protocol}"


def _policy(frontend: Frontend, client: Client) -> tuple[str, str]:
    service, kind = frontend.service, frontend.kind
    if kind == "ClusterIP":
        policy = "Local" if service.internal_local else "Cluster"
        return policy, f"ClusterIP: internalTrafficPolicy {policy} applies"
    policy = "Local" if service.external_local else "Cluster"
    if policy == "Local" and client.kind != "outside":
        return "Cluster", f"{kind}: externalTrafficPolicy Local is for clients outside, this one may have all endpoints"
    return policy, f"{kind}: externalTrafficPolicy {policy} applies"


def _about_hints(frontend: Frontend, client: Client, nodes: Sequence[Node], policy: str) -> list[str]:
    place = next((node.place for node in nodes if node.number == client.node), None)
    ready = [row for row in frontend.endpoints if row.ready]
    if policy == "Local" or place is None or not any(row.for_nodes or row.for_zones for row in ready):
        return []
    near = topology(ready, place)
    if not near:
        return [f"hints: not every ready endpoint has one, or none is for {place.node} or its zone: all are used"]
    return [f"hints: those for {near} {place.node if near == 'node' else place.zone} are used"]


def _about_slow_start(frontend: Frontend, algorithm: int) -> list[str]:
    asked_s, held_s = frontend.service.slow_start_s, slow_start_of(frontend.service, algorithm)
    if not asked_s:
        return []
    if not held_s:
        what = "session affinity" if frontend.service.affinity_s else ALGORITHMS[algorithm]
        return [f"slow start of {asked_s} s has no effect beside {what}"]
    return [f"slow start: one that has been ready for less than {held_s} s gets less, which a running plane remembers"]


def _why_nobody(frontend: Frontend, outcome: str, client: Client, nodes: Sequence[Node]) -> str:
    name = frontend.service.full_name
    if outcome == "DROP":
        number = frontend.node if client.kind == "outside" and frontend.node else client.node
        at = next((node.name for node in nodes if node.number == number), "this node")
        return f"Service {name} has endpoints, but none on {at}: dropped (here the client is refused at once)"
    if not frontend.endpoints:
        return f"Service {name} has no endpoints: its selector selects no pod, or there is none: refused"
    return f"none of the {len(frontend.endpoints)} endpoints of Service {name} is ready: refused"


def _masqueraded(frontend: Frontend, client: Client, chosen: str | None) -> tuple[bool, str]:
    if chosen and chosen.rpartition(":")[0] == client.ip:
        return True, "kube-proxy would masquerade: the client is the endpoint itself"
    if frontend.kind == "ClusterIP":
        if client.kind == "pod":
            return False, ""
        return True, "kube-proxy would masquerade: the client is no pod of the cluster"
    if not frontend.service.external_local:
        return True, f"kube-proxy would masquerade: {frontend.kind} with externalTrafficPolicy Cluster"
    if client.kind == "node":
        return True, "kube-proxy would masquerade: the client is a node"
    return False, ""


def _members(table: Fib, pool: int) -> tuple[str, ...]:
    first, count = int(table.pools[pool]["first_member"]), int(table.pools[pool]["members"])
    return tuple(_endpoint(table, int(number)) for number in table.members[first : first + count])


def _endpoint(table: Fib, backend: int) -> str:
    row = table.backends[backend]
    return f"{int_to_ip(row['ip'])}:{row['port']}"
