"""The names that follow from a Snapshot, by the Kubernetes DNS specification. Pure.

Law: equal Snapshots give equal bytes. A name has records by type, and a name without any exists all the same. What
follows from Services alone is apart from what follows from the endpoints of headless ones, and either is the same
object as before where what it follows from is: endpoints of a Service with a ClusterIP change no name.
https://github.com/kubernetes/dns/blob/master/docs/specification.md
"""

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from plane.model import SERVICE_LABEL, Key, Name, Object, Service, Snapshot, slices_by_service
from plane.rows import Followed, News

ZONE = "cluster.local"
REVERSE = "in-addr.arpa"
SERVICES, PODS = f"svc.{ZONE}", f"pod.{ZONE}"
SPECIFICATION = "1.1.0"
KUBE_DNS = Key("Service", "kube-system", "kube-dns")
# Where a node's server listens on the node's own address; the Service leads there from port 53.
NODE_PORT = 10053
LONGEST_CHAIN = 8  # of ExternalNames that lead to each other

# name → type → its records, as zone files write them; names in lower case and without the dot at their end.
Records = dict[str, dict[str, list[str]]]
BoundPort = Callable[[int], int]


class Names(NamedTuple):
    """All names, as JSON of ``Records`` in uint8[...], so that they travel as two blocks of memory.

    services    names that follow from Services and Namespaces
    headless    names of headless Services and of their endpoints
    generation  of the first Snapshot that had these names
    """

    services: np.ndarray
    headless: np.ndarray
    generation: int = 0


def _block(text: str) -> np.ndarray:
    packed = np.frombuffer(text.encode(), np.uint8)
    packed.setflags(write=False)
    return packed


def _members(records: Records) -> str:
    """The records as members of a JSON object, without its braces."""
    return json.dumps(records, separators=(",", ":"))[1:-1]


NO_NAMES = Names(_block("{}"), _block("{}"))


def compile(snapshot: Snapshot, bound_port: BoundPort) -> Names:
    """All names. ``bound_port`` gives the port that is really listened on, which SRV records say."""
    return Compiler(bound_port).compile(snapshot)


class Compiler:
    """``compile`` for one Snapshot after the other. One that has raised is of no more use.

    What each Service says is written down once, until it changes; what headless ones say, all together.
    """

    def __init__(self, bound_port: BoundPort):
        self._bound_port = bound_port
        self._services: Followed[Name, Object] = Followed()
        self._namespaces: Followed[Name, Object] = Followed()
        self._slices: Followed[Name, Object] = Followed()
        self._said: dict[Name, str] = {}  # by Services, as members of a JSON object; nothing by headless ones
        self._headless: set[Name] = set()
        self._inhabited: Counter[str] = Counter()  # namespaces that Services are in
        self._names = NO_NAMES

    def compile(self, snapshot: Snapshot) -> Names:
        """As the function of this name; what is as it was is the very block of the names before."""
        services = self._services.news(snapshot.rows("Service"))
        namespaces = self._namespaces.news(snapshot.rows("Namespace"))
        headless = self._is_headless_touched(self._slices.news(snapshot.rows("EndpointSlice")))
        for name, old, new in services:
            headless |= any(obj is not None and _is_headless(obj) for obj in (old, new))
            self._note(name, old, new)
        before = self._names
        first = before is NO_NAMES
        self._names = Names(
            _same(before.services, self._of_services(snapshot)) if first or services or namespaces else before.services,
            _same(before.headless, self._of_headless(snapshot)) if headless else before.headless,
            snapshot.generation,
        )
        return self._names

    def _is_headless_touched(self, news: Iterable[News[Name, Object]]) -> bool:
        """Whether a slice of a Service that was headless so far is another than before."""
        labelled = (obj["metadata"] for _, old, new in news for obj in (old, new) if obj is not None)
        return any(
            (each.get("namespace", "default"), (each.get("labels") or {}).get(SERVICE_LABEL)) in self._headless
            for each in labelled
        )

    def _note(self, name: Name, old: Object | None, new: Object | None) -> None:
        for obj, by in ((old, -1), (new, 1)):
            if obj is not None:
                namespace = Service.of(obj).namespace
                self._inhabited[namespace] += by
                if not self._inhabited[namespace]:
                    del self._inhabited[namespace]
        self._headless.discard(name)
        self._said.pop(name, None)
        if new is not None and _is_headless(new):
            self._headless.add(name)
        if new is not None and (said := _members(_of_service(Service.of(new), self._bound_port))):
            self._said[name] = said

    def _of_services(self, snapshot: Snapshot) -> np.ndarray:
        """What follows from Services and Namespaces; where two Services say the same name, the last one's counts."""
        namespaces = self._inhabited.keys() | {obj["metadata"]["name"] for obj in snapshot.all("Namespace")}
        said = (self._said[name] for name in snapshot.rows("Service") if name in self._said)
        return _block(f"{{{','.join(filter(None, (_members(_common(snapshot, namespaces)), *said)))}}}")

    def _of_headless(self, snapshot: Snapshot) -> np.ndarray:
        return _block(f"{{{_members(_of_headless(snapshot, self._headless))}}}")


def _same(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """The block before where it says the same, so that nobody has to compare the two again."""
    return before if np.array_equal(before, now) else now


def equal(one: Names, other: Names) -> bool:
    return all(left is right or np.array_equal(left, right) for left, right in zip(one[:2], other[:2], strict=True))


def unpacked(part: np.ndarray) -> Records:
    """The records of one part of ``Names``."""
    return json.loads(part.tobytes())


def dump(names: Names) -> str:
    """The names as text, a record a line as in zone files; what has none is followed by ``exists``."""
    lines = []
    for part in names[:2]:
        for name, kinds in sorted(unpacked(part).items()):
            lines += [f"{name} {kind} {record}" for kind, rows in kinds.items() for record in rows] or [
                f"{name} exists"
            ]
    return "".join(f"{line}\n" for line in lines)


def service_name(namespace: str, name: str) -> str:
    return f"{name}.{namespace}.{SERVICES}"


def service_key(name: str) -> tuple[str, str] | None:
    """(namespace, Service) of a Service's full name, None for any other name."""
    labels = name.lower().removesuffix(".").removesuffix(f".{SERVICES}").split(".")
    return (labels[1], labels[0]) if len(labels) == 2 and name.lower().removesuffix(".").endswith(SERVICES) else None


def followed(snapshot: Snapshot, service: Service) -> tuple[list[str], Service | None]:
    """The names that an ExternalName leads to, one after the other, and the Service at their end, if it is one.

    A loop ends with a name that was there before.
    """
    names: list[str] = []
    seen = {service_name(service.namespace, service.name)}
    while service.type == "ExternalName":
        name = service.external_name.lower().removesuffix(".")
        names.append(name)
        key = service_key(name)
        obj = snapshot.get("Service", *key) if key else None
        if name in seen or obj is None:
            return names, None
        seen.add(name)
        service = Service.of(obj)
    return names, service


def loops(snapshot: Snapshot, service: Service) -> bool:
    """Whether an ExternalName leads back to a name that it came from."""
    names, _ = followed(snapshot, service)
    return bool(names) and names[-1] in (service_name(service.namespace, service.name), *names[:-1])


def _common(snapshot: Snapshot, namespaces: Iterable[str]) -> Records:
    """What is there whatever Services there are besides that of cluster DNS."""
    records: Records = {f"dns-version.{ZONE}": {"TXT": [f'"{SPECIFICATION}"']}}
    for namespace in sorted(namespaces):
        records |= {f"{namespace}.{parent}": {} for parent in (SERVICES, PODS)}
    dns = snapshot.get(*KUBE_DNS)
    if dns is not None and _is_ipv4(dns["spec"].get("clusterIP") or ""):
        records[f"ns.dns.{ZONE}"] = {"A": [dns["spec"]["clusterIP"]]}
    return records


def _of_service(service: Service, bound_port: BoundPort) -> Records:
    """The names of a Service, but for those that its endpoints give to a headless one."""
    name = service_name(service.namespace, service.name)
    if service.type == "ExternalName":
        return {name: {"CNAME": [f"{service.external_name.lower().removesuffix('.')}."]}}
    if not _is_ipv4(service.cluster_ip):
        return {}
    records: Records = {name: {"A": [service.cluster_ip]}, reverse_name(service.cluster_ip): {"PTR": [f"{name}."]}}
    for port in service.ports:
        if port.name:
            target = f"0 100 {bound_port(port.port)} {name}."
            records[f"_{port.name}._{port.protocol.lower()}.{name}"] = {"SRV": [target]}
    return records


def _of_headless(snapshot: Snapshot, services: Collection[Name]) -> Records:
    records: Records = {}
    said: set[tuple[str, str, str]] = set()
    slices = slices_by_service(snapshot) if services else {}
    for key in sorted(services):
        obj = snapshot.get("Service", *key)
        assert obj is not None
        for name, kind, record in _of_endpoints(Service.of(obj), slices.get(key, ())):
            if (name, kind, record) not in said:
                said.add((name, kind, record))
                records.setdefault(name, {}).setdefault(kind, []).append(record)
    return records


class _Address(NamedTuple):
    """A ready endpoint as DNS knows it: the host's name within its Service, and its address."""

    host: str
    ip: str


def _of_endpoints(service: Service, slices: Iterable[Object]) -> Iterator[tuple[str, str, str]]:
    """(name, type, record) of a headless Service; nothing, not even its name, where no endpoint is ready."""
    name = service_name(service.namespace, service.name)
    named = {(port.name, port.protocol) for port in service.ports if port.name}
    ready: dict[_Address, None] = {}
    targets: dict[str, dict[tuple[int, str], None]] = {}
    for obj in slices:
        if obj.get("addressType", "IPv4") != "IPv4":
            continue
        ports = [
            (row.get("name") or "", row.get("protocol") or "TCP", row.get("port")) for row in obj.get("ports") or ()
        ]
        for address in _ready(obj):
            ready[address] = None
            for port, protocol, number in ports:
                if number and (port, protocol) in named:
                    where = f"_{port}._{protocol.lower()}.{name}"
                    targets.setdefault(where, {})[number, f"{address.host}.{name}."] = None
    for host, ip in sorted(ready):
        yield name, "A", ip
        yield f"{host}.{name}", "A", ip
        yield reverse_name(ip), "PTR", f"{host}.{name}."
    for where, rows in sorted(targets.items()):
        for number, target in sorted(rows):
            yield where, "SRV", f"0 {max(100 // len(rows), 1)} {number} {target}"


def _ready(endpoint_slice: Object) -> Iterator[_Address]:
    """The endpoints of a slice that names lead to: ``ready`` null counts as ready."""
    for row in endpoint_slice.get("endpoints") or ():
        if (row.get("conditions") or {}).get("ready") is not False:
            for ip in row["addresses"]:
                yield _Address((row.get("hostname") or ip.replace(".", "-")).lower(), ip)


def _is_headless(service: Object) -> bool:
    return service["spec"].get("clusterIP") == "None"


def reverse_name(ip: str) -> str:
    return f"{'.'.join(reversed(ip.split('.')))}.{REVERSE}"


def _is_ipv4(address: str) -> bool:
    return "." in address and ":" not in address
