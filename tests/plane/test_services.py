"""Services on real sockets, by the names of Kubernetes' own end-to-end tests where it has one."""

import asyncio
import json
import socket
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from plane.addresses import AddressPlan
from plane.control import ControlPlane
from plane.errors import ManifestError
from plane.model import Key, Object
from tests.plane.local import serving

pytestmark = pytest.mark.syscalls
WEB = Key("Service", "default", "web")


def service(name: str = "web", **spec: Any) -> Object:
    ports = [{"port": 80, "targetPort": 8080}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": "web"}, "ports": ports, **spec},
    }


def pod(name: str, node: str = "", *, grace_s: int = 1, **annotations: str) -> Object:
    container = {
        "name": "web",
        "image": "registry.k8s.io/e2e-test-images/agnhost:2.53",
        "args": ["netexec", "--http-port=8080"],
    }
    spec = {"containers": [container], "terminationGracePeriodSeconds": grace_s}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}, "annotations": annotations},
        "spec": {**spec, "nodeName": node} if node else spec,
    }


async def ask(address: tuple[str, int], path: str = "/hostname", source: str = "") -> str:
    """The body of one request on a connection of its own."""
    reader, writer = await asyncio.open_connection(*address, local_addr=(source, 0) if source else None)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
    finally:
        writer.close()
    return answer.partition(b"\r\n\r\n")[2].decode()


async def asked(address: tuple[str, int], times: int = 24, source: str = "") -> Counter[str]:
    return Counter([await ask(address, source=source) for _ in range(times)])


def spec_of(control: ControlPlane, key: Key = WEB) -> Object:
    return dict(control.store.get(key)["spec"])


def cluster_ip(control: ControlPlane) -> tuple[str, int]:
    return spec_of(control)["clusterIP"], control.plan.bound_port(80)


def node_port(control: ControlPlane, node: int) -> tuple[str, int]:
    return control.plan.node(node), spec_of(control)["ports"][0]["nodePort"]


def balancer(control: ControlPlane) -> tuple[str, int]:
    [row] = control.store.get(WEB)["status"]["loadBalancer"]["ingress"]
    return row["ip"], row["ports"][0]["port"]


def pod_ip(control: ControlPlane, name: str) -> str:
    return str(control.store.get(Key("Pod", "default", name))["status"]["podIP"])


PODS = [pod("a", "node-1"), pod("b", "node-2"), pod("c", "node-2")]


async def test_services_should_be_able_to_create_a_functioning_nodeport_service(plan):
    async with serving(plan, [service(type="NodePort"), *PODS]) as control:
        assert 30086 <= spec_of(control)["ports"][0]["nodePort"] <= 32767
        for node in (1, 2):
            assert set(await asked(node_port(control, node))) == {"a", "b", "c"}
        assert set(await asked(cluster_ip(control))) == {"a", "b", "c"}


async def test_services_should_be_able_to_change_the_type_and_back(plan):
    async with serving(plan, [service(type="NodePort"), *PODS]) as control:
        before = node_port(control, 1)
        await control.apply([service()])
        assert "nodePort" not in spec_of(control)["ports"][0]
        with pytest.raises(ConnectionRefusedError):
            await ask(before)
        await control.apply([service(type="LoadBalancer")])
        assert set(await asked(balancer(control))) == {"a", "b", "c"}
        await control.apply([service(type="ExternalName", externalName="example.com")])
        assert "clusterIP" not in spec_of(control)
        assert control.store.get(WEB)["status"]["loadBalancer"] == {}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30001}]}, "spec.ports[0].nodePort"),
        ({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}, "spec.ports[0].nodePort"),
        ({"type": "LoadBalancer", "loadBalancerIP": "10.0.0.1"}, "spec.loadBalancerIP"),
        ({"externalIPs": ["127.0.0.9"]}, "spec.externalIPs[0]"),
    ],
    ids=["node port in use", "node port out of range", "balancer address out of range", "external address in use"],
)
async def test_what_cannot_be_had_is_refused_with_its_field(plan: AddressPlan, spec: Object, field: str) -> None:
    first = service(type="NodePort", ports=[{"port": 80, "nodePort": 30001}], externalIPs=["127.0.0.9"])
    async with serving(plan, [first], nodes=1) as control:
        with pytest.raises(ManifestError) as caught:
            control.store.apply([service("other", **spec)])
        assert [problem.field for problem in caught.value.problems] == [field]


async def test_loadbalancer_should_only_allow_access_from_source_ranges(plan):
    allowed = str(plan.pods_of(9)[7])
    spec = {"type": "LoadBalancer", "loadBalancerSourceRanges": [f"{allowed}/32"]}
    async with serving(plan, [service(**spec), *PODS]) as control:
        assert await ask(balancer(control), source=allowed) in "abc"
        with pytest.raises(ConnectionResetError):
            await ask(balancer(control))
        for elsewhere in (cluster_ip(control), node_port(control, 1)):  # ranges bind the balancer's address only
            assert await ask(elsewhere) in "abc"


async def test_loadbalancer_ip_is_honoured_and_node_ports_can_be_left_out(plan):
    wanted = plan.vip(77)
    spec = {"type": "LoadBalancer", "loadBalancerIP": wanted, "allocateLoadBalancerNodePorts": False}
    async with serving(plan, [service(**spec), *PODS]) as control:
        assert balancer(control)[0] == wanted
        assert "nodePort" not in spec_of(control)["ports"][0]
        assert set(await asked(balancer(control))) == {"a", "b", "c"}


async def test_loadbalancer_of_another_class_is_left_pending(plan):
    async with serving(plan, [service(type="LoadBalancer", loadBalancerClass="example.com/cloud")], nodes=1) as control:
        assert not (control.store.get(WEB).get("status") or {}).get("loadBalancer")


async def test_services_should_have_session_affinity_work(plan):
    async with serving(plan, [service(type="NodePort", sessionAffinity="ClientIP"), *PODS]) as control:
        clients = [str(plan.pods_of(9)[host]) for host in range(2, 14)]
        first = {client: await ask(cluster_ip(control), source=client) for client in clients}
        assert len(set(first.values())) > 1
        for client in clients:
            assert set(await asked(cluster_ip(control), 8, client)) == {first[client]}
        # An endpoint that comes changes nothing for clients that are known; one that goes moves its own.
        await control.apply([pod("d", "node-1")])
        await control.ready(20)
        for client in clients:
            assert set(await asked(cluster_ip(control), 4, client)) == {first[client]}


async def test_services_should_implement_internal_traffic_policy_local(plan):
    async with serving(plan, [service(internalTrafficPolicy="Local"), *PODS]) as control:
        assert set(await asked(cluster_ip(control), source=pod_ip(control, "a"))) == {"a"}
        assert set(await asked(cluster_ip(control), source=pod_ip(control, "b"))) == {"b", "c"}


async def test_loadbalancers_should_work_with_external_traffic_policy_local(plan):
    spec = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
    async with serving(plan, [service(**spec), *PODS[1:]], nodes=3) as control:
        assert set(await asked(node_port(control, 2))) == {"b", "c"}
        for node in (1, 3):  # nothing of its own for clients from outside
            with pytest.raises((ConnectionResetError, ConnectionRefusedError)):
                await ask(node_port(control, node))
        # A pod is not outside: it may have every endpoint, at any node's port.
        assert set(await asked(node_port(control, 1), source=pod_ip(control, "b"))) == {"b", "c"}
        # A load balancer sends to nodes that have endpoints.
        assert set(await asked(balancer(control))) == {"b", "c"}


async def health(control: ControlPlane, node: int) -> tuple[int, Object]:
    port = spec_of(control)["healthCheckNodePort"]
    reader, writer = await asyncio.open_connection(control.plan.node(node), port)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), json.loads(body)


async def test_loadbalancers_should_only_target_nodes_with_endpoints(plan):
    async with serving(
        plan, [service(type="LoadBalancer", externalTrafficPolicy="Local"), *PODS[1:]], nodes=2
    ) as control:
        named = {"service": {"namespace": "default", "name": "web"}, "serviceProxyHealthy": True}
        assert await health(control, 1) == (503, {**named, "localEndpoints": 0})
        assert await health(control, 2) == (200, {**named, "localEndpoints": 2})
        where = control.plan.node(2), spec_of(control)["healthCheckNodePort"]
        await control.apply([service(type="LoadBalancer", externalTrafficPolicy="Cluster")])
        assert "healthCheckNodePort" not in spec_of(control)
        with pytest.raises(ConnectionRefusedError):
            await ask(where)


@pytest.mark.parametrize(
    ("distribution", "from_a", "from_b"),
    [
        ("PreferSameNode", {"a"}, {"b", "c"}),
        ("PreferSameZone", {"a", "d"}, {"b", "c"}),
        ("PreferClose", {"a", "d"}, {"b", "c"}),
    ],
)
async def test_traffic_distribution_should_prefer_what_is_near(
    plan: AddressPlan, distribution: str, from_a: set[str], from_b: set[str]
) -> None:
    objects = [service(trafficDistribution=distribution), *PODS, pod("d", "node-3")]
    async with serving(plan, objects, nodes=4, zones=2) as control:  # nodes 1 and 3 are in zone-1
        assert set(await asked(cluster_ip(control), 40, pod_ip(control, "a"))) == from_a
        assert set(await asked(cluster_ip(control), 40, pod_ip(control, "b"))) == from_b
        control.store.delete(Key("Pod", "default", "a"))  # nobody left on node-1: its zone, then everybody
        await control.ready(20)
        while control.store.snapshot.get("Pod", "default", "a"):
            await control.wait(control.store.snapshot.generation + 1)
        on_node_1 = str(plan.pods_of(1)[200])
        assert set(await asked(cluster_ip(control), 40, on_node_1)) == {"d"}


async def test_services_are_reached_at_external_ips_that_the_machine_has(plan):
    address = f"127.{plan.vips.network_address.packed[1]}.9.9"
    async with serving(plan, [service(externalIPs=[address, "192.0.2.77"]), *PODS]):
        assert set(await asked((address, plan.bound_port(80)))) == {"a", "b", "c"}


@pytest.mark.parametrize("annotation", ["trafficplane.dev/lb-algorithm", "service.cilium.io/lb-algorithm"])
async def test_weights_of_pods_are_kept_in_proportion(plan: AddressPlan, annotation: str) -> None:
    web = service()
    web["metadata"]["annotations"] = {annotation: "wrr"}
    weighted = [pod("a", "node-1", **{"trafficplane.dev/weight": "3"}), pod("b", "node-1")]
    async with serving(plan, [web, *weighted], nodes=1) as control:
        assert await asked(cluster_ip(control), 40) == {"a": 30, "b": 10}


async def test_pods_are_told_of_services_by_environment_variables(plan):
    whoami = pod("told", "node-1")
    whoami["spec"]["containers"][0] = {
        "name": "c",
        "image": "traefik/whoami",
        "args": ["--port", "8080"],
        "env": [{"name": "WHERE", "value": "$(MY_WEB_SERVICE_HOST):$(MY_WEB_SERVICE_PORT)"}],
    }
    other = {**service("elsewhere"), "metadata": {"name": "elsewhere", "namespace": "other"}}
    async with serving(plan, [service("my-web"), other, whoami], nodes=1) as control:
        key = Key("Service", "default", "my-web")
        address, port = spec_of(control, key)["clusterIP"], control.plan.bound_port(80)
        said = (await ask((address, port), "/?env=true")).splitlines()
        assert {
            f"MY_WEB_SERVICE_HOST={address}",
            f"MY_WEB_SERVICE_PORT={port}",
            f"MY_WEB_PORT=tcp://{address}:{port}",
            f"MY_WEB_PORT_{port}_TCP_ADDR={address}",
            f"WHERE={address}:{port}",
        } <= set(said)
        assert not any("ELSEWHERE" in line for line in said)
        [container] = control.store.get(Key("Pod", "default", "told"))["spec"]["containers"]
        assert [row["name"] for row in container["env"]] == ["WHERE"], "what a pod is told is not in its object"


def udp_service(**spec: Any) -> Object:
    ports = [{"name": "udp", "port": 90, "protocol": "UDP", "targetPort": 8081}]
    return service(type="NodePort", **{"ports": ports, **spec})


def udp_pod(name: str, node: str) -> Object:
    obj = pod(name, node)
    obj["spec"]["containers"][0]["args"] = ["netexec", "--http-port=8080", "--udp-port=8081"]
    return obj


class Datagrams:
    """A client of UDP, connected so that it hears that one address only, and what ICMP says of it."""

    def __init__(self, address: tuple[str, int], source: str = "127.0.0.1"):
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((source, 0))
        self.socket.connect(address)

    async def ask(self, what: str = "hostname") -> str:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.socket, what.encode())
        async with asyncio.timeout(30):
            return (await loop.sock_recv(self.socket, 1 << 16)).decode().strip()

    def __enter__(self) -> "Datagrams":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


UDP_PODS = [udp_pod("a", "node-1"), udp_pod("b", "node-2"), udp_pod("c", "node-2")]


async def test_services_should_function_for_service_endpoints_using_udp(plan):
    async with serving(plan, [udp_service(), *UDP_PODS]) as control:
        cluster = spec_of(control)["clusterIP"], control.plan.bound_port(90)
        for address in (cluster, node_port(control, 1), node_port(control, 2)):
            heard = set()
            for _ in range(24):
                with Datagrams(address) as client:
                    heard.add(await client.ask())
            assert heard == {"a", "b", "c"}
        own = pod_ip(control, "a")
        for _ in range(6):
            with Datagrams(cluster, own) as client:
                assert (await client.ask("clientip")).rpartition(":")[0] == own


async def test_services_should_keep_a_udp_flow_at_its_pod_and_move_it_at_once_when_that_goes(plan):
    async with serving(plan, [udp_service(), *UDP_PODS]) as control:
        with Datagrams((spec_of(control)["clusterIP"], control.plan.bound_port(90))) as client:
            first = await client.ask()
            assert {await client.ask() for _ in range(20)} == {first}
            control.store.delete(Key("Pod", "default", first))
            while control.store.snapshot.get("Pod", "default", first):
                await control.wait(control.store.snapshot.generation + 1)
            moved = await client.ask()
            assert moved != first
            assert {await client.ask() for _ in range(20)} == {moved}
            [row] = await control.open_connections()
            assert (row["service"], row["pod"], row["state"]) == ("default/web:udp", f"default/{moved}", "OPEN")
            assert row["frontend"].endswith("/UDP")
            assert row["bytesToBackend"] == 21 * len("hostname")


async def test_services_should_be_rejected_for_udp_when_no_endpoints_exist(plan):
    async with serving(plan, [udp_service()], nodes=1) as control:
        for address in ((spec_of(control)["clusterIP"], control.plan.bound_port(90)), node_port(control, 1)):
            with Datagrams(address) as client, pytest.raises(ConnectionRefusedError):
                await client.ask()


async def test_services_should_serve_tcp_and_udp_on_one_port(plan):
    both = [
        {"name": "tcp", "port": 90, "protocol": "TCP", "targetPort": 8080},
        {"name": "udp", "port": 90, "protocol": "UDP", "targetPort": 8081},
    ]
    async with serving(plan, [udp_service(ports=both), *UDP_PODS]) as control:
        tcp, udp = spec_of(control)["ports"]
        assert tcp["nodePort"] == udp["nodePort"]
        address = spec_of(control)["clusterIP"], control.plan.bound_port(90)
        assert await ask(address) in "abc"
        with Datagrams(address) as client:
            assert await client.ask() in "abc"


async def test_connections_are_shown_with_who_has_them_and_why(plan):
    web = service()
    web["metadata"]["annotations"] = {"trafficplane.dev/lb-algorithm": "rr"}
    async with serving(plan, [web, *PODS]) as control:
        assert await control.open_connections() == []
        source = pod_ip(control, "c")
        reader, writer = await asyncio.open_connection(*cluster_ip(control), local_addr=(source, 0))
        request = b"GET /hostname HTTP/1.1\r\nHost: a\r\n\r\n"
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(1)
        [row] = await control.open_connections()
        writer.close()
        host, port = writer.get_extra_info("sockname")
        assert row["client"] == f"{host}:{port}"
        assert (row["service"], row["state"], row["because"]) == ("default/web:80", "OPEN", "rr")
        assert row["pod"] == f"default/{answer[-1:].decode()}"
        assert (row["bytesToBackend"], row["bytesToClient"]) == (len(request), len(answer))
        assert 0 <= row["ageSeconds"] < 60


async def client_ips(control: ControlPlane, addresses: Sequence[tuple[str, int]], source: str) -> set[str]:
    """What pods say of the client's address, over these ways in."""
    seen = [await ask(address, "/clientip", source) for address in addresses for _ in range(8)]
    return {answer.rpartition(":")[0] for answer in seen}


async def test_services_should_preserve_source_pod_ip_for_traffic_through_service_cluster_ip(plan):
    async with serving(plan, [service(type="LoadBalancer"), *PODS]) as control:
        ways = [cluster_ip(control), node_port(control, 1), node_port(control, 2), balancer(control)]
        for name in "abc":
            for other in "abc":  # every pod to every pod, its own Service and itself included
                own, there = pod_ip(control, name), (pod_ip(control, other), 8080)
                assert await client_ips(control, [there], own) == {own}
            assert await client_ips(control, ways, own) == {own}
        assert await client_ips(control, ways, "127.0.0.1") == {"127.0.0.1"}
