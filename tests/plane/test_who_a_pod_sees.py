"""Who a pod sees: every row of that table in docs/services.md, pod by pod over two nodes, by TCP and by UDP.

What a pod is shown comes from agnhost's ``/clientip``; what kube-proxy would show, from ``explain``.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pytest

from plane.control import ControlPlane
from plane.explain import FlowExplanation, explain
from plane.model import Key, Object
from tests.plane.local import serving
from tests.plane.tables import rows
from tests.plane.test_services import Datagrams, service, udp_pod

pytestmark = pytest.mark.syscalls
NODES = {"a": "node-1", "b": "node-2", "c": "node-2"}
HTTP, UDP = ("http", 80, 8080), ("udp", 90, 8081)  # of each Service: name, port and its pods' port
PORTS = [
    {"name": name, "port": port, "targetPort": target, "protocol": "UDP" if name == "udp" else "TCP"}
    for name, port, target in (HTTP, UDP)
]
TRIES = 100  # connections, after which an endpoint that is picked at random is given up


class Way(NamedTuple):
    """Where a client connects, who may answer there, and the same address as a cluster would have it."""

    ip: str
    http_port: int
    udp_port: int
    answering: str  # names of pods
    explained: str = ""  # ADDRESS:PORT for TCP; empty where no Service is on the way


class World:
    """A plane with three pods on two nodes, behind Services of both policies and each behind one of its own."""

    def __init__(self, control: ControlPlane):
        self.control = control
        self.pods = {name: self._get("Pod", name)["status"]["podIP"] for name in NODES}
        self.outside = ("127.0.0.1", str(control.plan.pods_of(9)[7]))

    def _get(self, kind: str, name: str) -> Object:
        return dict(self.control.store.get(Key(kind, "default", name)))

    def cluster_ip(self, name: str, answering: str) -> Way:
        ip, bound = self._get("Service", name)["spec"]["clusterIP"], self.control.plan.bound_port
        return Way(ip, bound(80), bound(90), answering, f"{ip}:80")

    def balancer(self, name: str, answering: str) -> Way:
        [row] = self._get("Service", name)["status"]["loadBalancer"]["ingress"]
        return Way(row["ip"], *(port["port"] for port in row["ports"]), answering, f"{row['ip']}:80")

    def node_port(self, name: str, node: int, answering: str) -> Way:
        ip, ports = self.control.plan.node(node), self._get("Service", name)["spec"]["ports"]
        http, udp = (port["nodePort"] for port in ports)
        return Way(ip, http, udp, answering, f"{ip}:{http}")

    def ways(self, client: str, through: str) -> Iterator[tuple[str, Way]]:
        """(address of a client, where it connects) for all that a row of the table means."""
        sources = self.outside if client == "outside" else tuple(self.pods.values())
        there = "abc"
        match client, through:
            case "a pod", "the pod's own address":
                yield from ((ip, Way(self.pods[name], 8080, 8081, name)) for ip in sources for name in there)
            case "a pod", "ClusterIP":
                for name in ("all", "near"):
                    yield from ((ip, self.cluster_ip(name, there)) for ip in sources)
            case "a pod, to itself", "ClusterIP":
                yield from ((ip, self.cluster_ip(f"only-{name}", name)) for name, ip in self.pods.items())
            case _, "node port or balancer, policy Cluster":
                ways = self.node_port("all", 1, there), self.node_port("all", 2, there), self.balancer("all", there)
                yield from ((ip, way) for ip in sources for way in ways)
            case _, "node port or balancer, policy Local":
                at_1, at_2 = ("a", "bc") if client == "outside" else (there, there)
                ways = self.node_port("near", 1, at_1), self.node_port("near", 2, at_2), self.balancer("near", there)
                yield from ((ip, way) for ip in sources for way in ways)
            case _:
                pytest.fail(f"docs/services.md has a row that this test does not know: {client} | {through}")


ROWS = {
    ("a pod", "the pod's own address"),
    ("a pod", "ClusterIP"),
    ("a pod, to itself", "ClusterIP"),
    ("a pod", "node port or balancer, policy Cluster"),
    ("a pod", "node port or balancer, policy Local"),
    ("outside", "node port or balancer, policy Cluster"),
    ("outside", "node port or balancer, policy Local"),
}


async def over_tcp(address: tuple[str, int], source: str) -> tuple[str, str]:
    """(name of the pod that answers, whom it sees), both asked on one connection."""
    reader, writer = await asyncio.open_connection(*address, local_addr=(source, 0))
    try:
        answers = []
        for path in ("hostname", "clientip"):
            writer.write(f"GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            answers.append((await reader.readexactly(int(length.partition(b":")[2]))).decode())
    finally:
        writer.close()
    return answers[0], answers[1].rpartition(":")[0]


async def over_udp(address: tuple[str, int], source: str) -> tuple[str, str]:
    with Datagrams(address, source) as client:
        return await client.ask("hostname"), (await client.ask("clientip")).rpartition(":")[0]


async def shown(way: Way, source: str) -> set[str]:
    """Whom the pods behind a way see, once each of them has answered this client by TCP and by UDP."""
    found: set[str] = set()
    for ask, port in ((over_tcp, way.http_port), (over_udp, way.udp_port)):
        answered: set[str] = set()
        for _ in range(TRIES):
            name, client = await ask((way.ip, port), source)
            answered.add(name)
            found.add(client)
            if answered == set(way.answering):
                break
        assert answered == set(way.answering), f"{source} to {way}"
    return found


def whom(world: World, seen: set[str], source: str) -> str:
    """A client's address in the words of the table."""
    if seen != {source}:
        return f"{seen}, for {source}"
    return "the client pod" if source in world.pods.values() else "the client"


def said_of_kube_proxy(world: World, way: Way, source: str) -> str:
    if not way.explained:
        return whom(world, {source}, source)
    found = explain(world.control.store.snapshot, f"tcp://{way.explained}", from_ip=source)
    assert isinstance(found, FlowExplanation)
    if found.chosen == f"{source}:8080" and way.answering in NODES:
        return "the node (hairpin)" if found.masquerade else "itself"
    # Where a pod may meet itself, it is asked as another one of its node would be.
    if found.chosen == f"{source}:8080":
        host = source.rpartition(".")[0] + ".200"
        found = explain(world.control.store.snapshot, f"tcp://{way.explained}", from_ip=host)
        assert isinstance(found, FlowExplanation)
    return "the node" if found.masquerade else whom(world, {source}, source)


def documented() -> Sequence[list[str]]:
    return rows("services.md", "Who a pod sees")


async def test_clientip_says_what_the_table_says_pod_by_pod(plan):
    pods = [udp_pod(name, node) for name, node in NODES.items()]
    for each in pods:
        each["metadata"]["labels"]["only"] = each["metadata"]["name"]
    services = [
        service("all", type="LoadBalancer", ports=PORTS),
        service("near", type="LoadBalancer", ports=PORTS, externalTrafficPolicy="Local"),
        *(service(f"only-{name}", ports=PORTS, selector={"only": name}) for name in NODES),
    ]
    async with serving(plan, [*services, *pods]) as control:
        world, found = World(control), []
        for client, through, *_ in documented():
            here, elsewhere = set(), set()
            for source, way in world.ways(client, through):
                said = whom(world, await shown(way, source), source)
                here.add("itself" if client == "a pod, to itself" and said == "the client pod" else said)
                elsewhere.add(said_of_kube_proxy(world, way, source))
            found.append([client, through, " or ".join(sorted(elsewhere)), " or ".join(sorted(here))])
    assert found == documented()


def test_the_table_has_every_row():
    assert {(client, through) for client, through, *_ in documented()} == ROWS
