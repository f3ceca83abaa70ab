"""What Services are given (ClusterIPs, node ports, load balancer addresses), and ids of backends. Pure.

Law: what is given stays given while its owner lives and wants it. What is asked for has been checked by the store.
"""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import replace
from heapq import heappop, heappush
from typing import Generic, NamedTuple, TypeVar

from plane.controllers.lifecycle import Pass, Taking, count, note
from plane.model import EndpointKey, Name, Object, Snapshot, endpoint_keys
from plane.rows import Followed, Rows

LOAD_BALANCER_CLASS = "trafficplane.dev/loopback"

T = TypeVar("T")


class Given:
    """What Services have been given, and which of them lack something that they should have."""

    def __init__(self) -> None:
        self._followed: Followed[Name, Object] = Followed()
        self.ips: Counter[str] = Counter()
        self.ports: Counter[int] = Counter()
        self.vips: Counter[str] = Counter()
        self.lacking: set[Name] = set()

    def follow(self, snapshot: Snapshot) -> None:
        for name, old, new in self._followed.news(snapshot.rows("Service")):
            for obj, by in ((old, -1), (new, 1)):
                if obj is not None:
                    self._add(obj, by)
            note(self.lacking, name, holds=new is not None)

    def _add(self, obj: Object, by: int) -> None:
        count(self.ips, obj["spec"].get("clusterIP", ""), by)
        for number in node_ports_of(obj):
            count(self.ports, number, by)
        for ip in (*balancer_ips_of(obj), *(obj["spec"].get("externalIPs") or ())):
            count(self.vips, ip, by)


class Giving(Generic[T]):
    """What one pass gives of a range, one after the other."""

    def __init__(self, taken: Taking[T], free: Callable[[Container[T]], Iterator[T]]):
        self._taken = taken
        self._free = free(taken)

    def give(self) -> T:
        """The first that is free. Raises PlaneError."""
        what = next(self._free)
        self._taken.add(what)
        return what

    def given(self, what: T) -> None:
        """Says that it is not free any more."""
        self._taken.add(what)


def services(snapshot: Snapshot, given: Pass) -> Snapshot:
    """Services without a ClusterIP, a node port or a load balancer's address that they should have get one."""
    index, plan = given.index(Given), given.plan
    index.follow(snapshot)
    ips = Giving(Taking(index.ips), plan.free_cluster_ips)
    ports = Giving(Taking(index.ports), plan.free_node_ports)
    vips = Giving(Taking(index.vips), plan.free_vips)
    put, still = [], set()
    for name in sorted(index.lacking):
        before = snapshot.rows("Service")[name]
        after = _given(before, given, ips, ports, vips)
        if after is not before:
            still.add(name)
            put.append(after)
    index.lacking = still  # another set, for an emptied one is as long to go through as it was when it was full
    return snapshot.changed(put)


class Claim(NamedTuple):
    """Something that one Service alone can have."""

    field: str
    what: str
    value: object


def claims(service: Object) -> list[Claim]:
    """Everything that a Service asks for, or has been given, and no other may have."""
    spec = service["spec"]
    found = []
    if spec.get("clusterIP") not in (None, "", "None"):
        found.append(Claim("spec.clusterIP", "address", spec["clusterIP"]))
    if spec.get("loadBalancerIP"):
        found.append(Claim("spec.loadBalancerIP", "address", spec["loadBalancerIP"]))
    for address in balancer_ips_of(service):
        if address != spec.get("loadBalancerIP"):
            found.append(Claim("status.loadBalancer", "address", address))
    for index, port in enumerate(spec.get("ports") or ()):
        if port.get("nodePort"):
            found.append(Claim(f"spec.ports[{index}].nodePort", "node port", port["nodePort"]))
        protocol = port.get("protocol", "TCP")
        for place, address in enumerate(spec.get("externalIPs") or ()):
            found.append(Claim(f"spec.externalIPs[{place}]", "address", f"{address}:{port['port']}/{protocol}"))
    if spec.get("healthCheckNodePort"):
        found.append(Claim("spec.healthCheckNodePort", "node port", spec["healthCheckNodePort"]))
    return found


def node_ports_of(service: Object) -> list[int]:
    """Every node port that a Service has, that of health checks included."""
    spec = service["spec"]
    rows = [port.get("nodePort") for port in spec.get("ports") or ()]
    return [number for number in dict.fromkeys((*rows, spec.get("healthCheckNodePort"))) if number]


def balancer_ips_of(service: Object) -> list[str]:
    """The load balancer addresses that a Service has, or asks for."""
    asked = [service["spec"]["loadBalancerIP"]] if service["spec"].get("loadBalancerIP") else []
    rows = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return asked + [row["ip"] for row in rows if row.get("ip")]


def is_balanced(service: Object) -> bool:
    """Whether the plane gives the Service a load balancer's address: one of another class is left to whom it means."""
    spec = service["spec"]
    return spec.get("type") == "LoadBalancer" and spec.get("loadBalancerClass") in (None, LOAD_BALANCER_CLASS)


def _given(obj: Object, given: Pass, ips: Giving[str], ports: Giving[int], vips: Giving[str]) -> Object:
    spec, kind = obj["spec"], obj["spec"].get("type", "ClusterIP")
    if kind != "ExternalName" and not spec.get("clusterIP"):
        address = ips.give()
        spec = {**spec, "clusterIP": address, "clusterIPs": [address]}
    if kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts", True)):
        spec = _with_node_ports(spec, ports.give)
    if kind == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local" and not spec.get("healthCheckNodePort"):
        spec = {**spec, "healthCheckNodePort": ports.give()}
    obj = obj if spec is obj["spec"] else {**obj, "spec": spec}
    balancer = _balancer(obj, given, vips)
    before = (obj.get("status") or {}).get("loadBalancer") or {}
    if balancer != before:
        obj = {**obj, "status": {**(obj.get("status") or {}), "loadBalancer": balancer}}
    return obj


def _with_node_ports(spec: Object, take: Callable[[], int]) -> Object:
    """A node port for each port; one number serves TCP and UDP of the same port, as in Kubernetes."""
    if all(port.get("nodePort") for port in spec["ports"]):
        return spec
    numbers = {port["port"]: port["nodePort"] for port in spec["ports"] if port.get("nodePort")}
    rows = []
    for port in spec["ports"]:
        if not port.get("nodePort"):
            shared = numbers.get(port["port"])
            numbers[port["port"]] = number = shared or take()
            port = {**port, "nodePort": number}
        rows.append(port)
    return {**spec, "ports": rows}


def _balancer(obj: Object, given: Pass, vips: Giving[str]) -> Object:
    """``status.loadBalancer``: the address asked for, the one it has, or a free one; nothing for other types."""
    if not is_balanced(obj):
        return {}
    have = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or [{}]
    address = obj["spec"].get("loadBalancerIP") or have[0].get("ip") or vips.give()
    vips.given(address)
    ports = [
        {"port": given.plan.bound_port(port["port"]), "protocol": port["protocol"]} for port in obj["spec"]["ports"]
    ]
    return {"ingress": [{"ip": address, "ipMode": "VIP", "ports": ports}]}


class Claims:
    """Who claims what, of the Services of a Snapshot."""

    def __init__(self) -> None:
        self._followed: Followed[Name, Object] = Followed()
        self._owners: dict[tuple[str, object], set[Name]] = {}

    def follow(self, snapshot: Snapshot) -> None:
        for name, old, new in self._followed.news(snapshot.rows("Service")):
            for obj, holds in ((old, False), (new, True)):
                for claim in claims(obj) if obj is not None else ():
                    owners = self._owners.setdefault((claim.what, claim.value), set())
                    note(owners, name, holds=holds)
                    if not owners:
                        del self._owners[claim.what, claim.value]

    def owners(self, claim: Claim) -> set[Name]:
        """The Services that claim the same."""
        return self._owners.get((claim.what, claim.value), set())


class Backends:
    """Which endpoints are in slices, which ids are used, and which endpoints may be without an id or have one left."""

    def __init__(self) -> None:
        self._slices: Followed[Name, Object] = Followed()
        self._ids: Followed[EndpointKey, int] = Followed()
        self.present: Counter[EndpointKey] = Counter()  # by how many slices
        self.ids: dict[EndpointKey, int] = {}
        self.numbers = Numbers()
        self.unsettled: set[EndpointKey] = set()

    def follow(self, snapshot: Snapshot) -> None:
        for _, old, new in self._slices.news(snapshot.rows("EndpointSlice")):
            before, now = (set(endpoint_keys(obj)) if obj is not None else set() for obj in (old, new))
            for keys, by in ((before - now, -1), (now - before, 1)):
                self.unsettled |= keys
                for key in keys:
                    count(self.present, key, by)
        changes = self._ids.news(snapshot.backends)
        self.numbers.free(old for _, old, _ in changes if old is not None)
        self.numbers.use(new for _, _, new in changes if new is not None)
        for key, _, number in changes:
            self.unsettled.add(key)
            self.ids.pop(key, None)
            if number is not None:
                self.ids[key] = number


class Numbers:
    """Numbers from 1 on, some of them used, to find the lowest that are not."""

    def __init__(self) -> None:
        self._used: set[int] = set()
        self._end = 1  # no number from here on is used
        self._holes: list[int] = []  # a heap of the numbers below that were free when they came in
        self._queued: set[int] = set()  # those in the heap

    def use(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._used.add(number)
            self._queue(range(self._end, number))
            self._end = max(self._end, number + 1)

    def free(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._used.discard(number)
            self._queue((number,))

    def _queue(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            if number not in self._queued:
                self._queued.add(number)
                heappush(self._holes, number)

    def lowest(self, wanted: int) -> list[int]:
        """The lowest free numbers, as many as are wanted; they stay free."""
        found: list[int] = []
        while self._holes and len(found) < wanted:
            number = heappop(self._holes)
            self._queued.discard(number)
            if number not in self._used:
                found.append(number)
        self._queue(found)
        return [*found, *range(self._end, self._end + wanted - len(found))]


def backend_ids(snapshot: Snapshot, given: Pass) -> Snapshot:
    """Every endpoint has an id for as long as it is in a slice; an id is given again, lowest first, once it is free.

    A terminating pod stays in its slice until its node says it is gone, so no live flow ever sees its id reused.
    """
    index = given.index(Backends)
    index.follow(snapshot)
    ids = index.ids
    new = sorted(key for key in index.unsettled if key in index.present and key not in ids)
    gone = [key for key in index.unsettled if key not in index.present and key in ids]
    index.unsettled = {*new, *gone}
    if not new and not gone:
        return snapshot
    free = sorted({*index.numbers.lowest(len(new)), *(ids[key] for key in gone)})
    put = dict(zip(new, free, strict=False))
    before = snapshot.backends
    return replace(snapshot, backends=(before if isinstance(before, Rows) else Rows(before)).changed(put, gone))
