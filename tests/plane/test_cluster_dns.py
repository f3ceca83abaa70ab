"""Cluster DNS on real sockets, by the names of Kubernetes' own end-to-end tests where it has one.

https://github.com/kubernetes/kubernetes/blob/master/test/e2e/network/dns.go
"""

import asyncio
import contextlib
import json
import shutil
import socket
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from plane.addresses import AddressPlan
from plane.control import ControlPlane
from plane.dns.names import KUBE_DNS, NODE_PORT, Names
from plane.errors import ManifestError
from plane.model import SERVICE_LABEL, Key, Object, key_of
from plane.offline import settled
from plane.store import Store
from tests.plane.local import LocalFleet, fetch, serving
from tests.plane.test_services import ask as fetched
from tests.plane.test_services import pod, pod_ip, service
from tests.pods.asking import WAYS

pytestmark = pytest.mark.syscalls
SVC = "default.svc.cluster.local"
PATIENCE_S = 30.0
PORTS = [
    {"name": "http", "port": 80, "targetPort": 8080},
    {"name": "udp", "port": 81, "protocol": "UDP", "targetPort": 8081},
]
WEB = service(ports=PORTS)


def asking(name: str = "asking", *, namespace: str = "default", labels: Object | None = None, **spec: Any) -> Object:
    """A pod that asks for names, by the app of ``tests.pods.asking``."""
    container = {"name": "main", "image": "python", "ports": [{"containerPort": 8080}]}
    annotations = {"trafficplane.dev/app": "tests.pods.asking:app"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}, "annotations": annotations},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 1, **spec},
    }


async def resolved(control: ControlPlane, host: str, way: str = "loop", *, pod: str = "asking", port: int = 0) -> str:
    """What the pod finds out: an address, or ``unknown``."""
    where = Key("Pod", "default", pod)
    address = control.store.get(where)["status"]["podIP"]
    query = urlencode({"host": host, "port": port})
    reader, writer = await asyncio.open_connection(address, 8080)
    writer.write(f"GET /{way}?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(PATIENCE_S):
        head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return body if head.split()[1] == "200" else "unknown"


async def query(
    plan: AddressPlan, name: str, kind: str = "A", *, tcp: bool = False, source: str | None = None
) -> dns.message.Message:
    """A question to the Service's address, by way of the relay."""
    ask = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
    message = dns.message.make_query(name, kind)
    return await ask(message, plan.dns, port=plan.bound_port(53), timeout=PATIENCE_S, source=source)


def records(found: dns.message.Message) -> set[str]:
    return {str(row) for rrset in found.answer for row in rrset}


def ip_of(control: ControlPlane, name: str = "web") -> str:
    return str(control.store.get(Key("Service", "default", name))["spec"]["clusterIP"])


@contextlib.asynccontextmanager
async def answering(address: str, answers: dict[str, str]) -> AsyncIterator[list[str]]:
    """A name server of somebody else, by UDP; gives the names that it was asked for."""
    asked: list[str] = []

    class Server(asyncio.DatagramProtocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def datagram_received(self, data: bytes, addr: Any) -> None:
            question = dns.message.from_wire(data)
            name = question.question[0].name.to_text(omit_final_dot=True)
            asked.append(name)
            answer = dns.message.make_response(question)
            if name in answers:
                answer.answer.append(dns.rrset.from_text(f"{name}.", 60, "IN", "A", answers[name]))
            else:
                answer.set_rcode(dns.rcode.NXDOMAIN)
            self.transport.sendto(answer.to_wire(), addr)

    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Server, local_addr=(address, 53))
    try:
        yield asked
    finally:
        transport.close()


async def test_dns_should_provide_dns_for_the_cluster(plan):
    async with serving(plan, [asking()]) as control:
        row = control.store.get(KUBE_DNS)
        assert row["spec"]["clusterIP"] == plan.dns == str(plan.cluster_ips[10])
        assert [(port["name"], port["port"], port["protocol"]) for port in row["spec"]["ports"]] == [
            ("dns", 53, "UDP"),
            ("dns-tcp", 53, "TCP"),
        ]
        for tcp in (False, True):
            found = await query(plan, "kube-dns.kube-system.svc.cluster.local", tcp=tcp)
            assert records(found) == {plan.dns}
            found = await query(plan, "_dns._udp.kube-dns.kube-system.svc.cluster.local", "SRV", tcp=tcp)
            assert records(found) == {f"0 100 {plan.bound_port(53)} kube-dns.kube-system.svc.cluster.local."}
        assert await resolved(control, "kube-dns.kube-system.svc.cluster.local") == plan.dns


async def test_dns_should_resolve_dns_of_partial_qualified_names_for_the_cluster(plan):
    async with serving(plan, [asking()], nodes=1) as control:
        for name in ("kube-dns.kube-system", "kube-dns.kube-system.svc", "kube-dns.kube-system.svc.cluster.local."):
            assert await resolved(control, name) == plan.dns
        assert await resolved(control, "kube-dns") == "unknown"  # of another namespace


async def test_dns_should_provide_dns_for_services(plan):
    headless = service("headless", clusterIP="None", ports=PORTS)
    async with serving(plan, [WEB, headless, pod("a", "node-1"), pod("b", "node-2")]) as control:
        pods = {pod_ip(control, name) for name in "ab"}
        assert records(await query(plan, f"web.{SVC}")) == {ip_of(control)}
        assert records(await query(plan, f"headless.{SVC}")) == pods
        assert records(await query(plan, f"_http._tcp.web.{SVC}", "SRV")) == {f"0 100 {plan.bound_port(80)} web.{SVC}."}
        targets = {f"0 50 8080 {ip.replace('.', '-')}.headless.{SVC}." for ip in pods}
        assert records(await query(plan, f"_http._tcp.headless.{SVC}", "SRV")) == targets
        reverse = ".".join(reversed(ip_of(control).split("."))) + ".in-addr.arpa"
        assert records(await query(plan, reverse, "PTR")) == {f"web.{SVC}."}
        assert (await query(plan, f"nobody.{SVC}")).rcode() == dns.rcode.NXDOMAIN
        assert (await query(plan, "example.org")).rcode() == dns.rcode.REFUSED


async def test_dns_should_resolve_dns_of_partial_qualified_names_for_services(plan):
    async with serving(plan, [WEB, asking()], nodes=1) as control:
        for name in ("web", "WEB", "web.default", "web.default.svc", f"web.{SVC}", f"web.{SVC}."):
            assert await resolved(control, name) == ip_of(control)
        for name in ("nobody", "web.elsewhere", f"nobody.{SVC}"):
            assert await resolved(control, name) == "unknown"


async def test_names_follow_services_and_pods_as_they_come_and_go(plan):
    headless = service("headless", clusterIP="None")
    async with serving(plan, [headless, pod("a", "node-1")]) as control:
        assert records(await query(plan, f"headless.{SVC}")) == {pod_ip(control, "a")}
        await control.apply([WEB, pod("b", "node-2")])
        await control.ready(20)
        assert records(await query(plan, f"web.{SVC}")) == {ip_of(control)}
        assert records(await query(plan, f"headless.{SVC}")) == {pod_ip(control, "a"), pod_ip(control, "b")}
        control.store.delete(Key("Service", "default", "web"))
        control.store.delete(Key("Pod", "default", "a"))
        await control.wait(control.store.snapshot.generation)
        assert (await query(plan, f"web.{SVC}")).rcode() == dns.rcode.NXDOMAIN
        assert records(await query(plan, f"headless.{SVC}")) == {pod_ip(control, "b")}  # a drains


async def test_dns_should_provide_dns_for_pods_for_hostname(plan):
    peer = pod("peer")
    peer["spec"] |= {"hostname": "dns-querier-2", "subdomain": "web"}
    async with serving(plan, [service(clusterIP="None"), peer, asking()], nodes=1) as control:
        assert records(await query(plan, f"dns-querier-2.web.{SVC}")) == {pod_ip(control, "peer")}
        assert await resolved(control, "dns-querier-2.web") == pod_ip(control, "peer")


async def test_dns_should_provide_dns_for_pods_for_subdomain(plan):
    spec = {"hostname": "querier", "subdomain": "web", "labels": {"app": "web"}}
    async with serving(plan, [service(clusterIP="None"), asking(**spec)], nodes=1) as control:
        for name in ("querier", f"querier.web.{SVC}", "web"):
            assert await resolved(control, name) == pod_ip(control, "asking")
        reverse = ".".join(reversed(pod_ip(control, "asking").split("."))) + ".in-addr.arpa"
        assert records(await query(plan, reverse, "PTR")) == {f"querier.web.{SVC}."}


async def test_dns_should_provide_dns_for_externalname_services(plan):
    foreign = service("ext", type="ExternalName", externalName="localhost", selector={}, ports=[])
    async with serving(plan, [foreign, WEB, asking()], nodes=1) as control:
        assert records(await query(plan, f"ext.{SVC}", "CNAME")) == {"localhost."}
        assert await resolved(control, "ext") == "127.0.0.1"  # by the machine, which is asked for foreign names
        await control.apply([service("ext", type="ExternalName", externalName=f"web.{SVC}", selector={}, ports=[])])
        assert records(await query(plan, f"ext.{SVC}", "CNAME")) == {f"web.{SVC}."}
        assert records(await query(plan, f"ext.{SVC}")) == {f"web.{SVC}.", ip_of(control)}
        assert await resolved(control, "ext") == ip_of(control)
        await control.apply([service("ext", selector={})])  # to type ClusterIP
        assert records(await query(plan, f"ext.{SVC}")) == {ip_of(control, "ext")}


async def test_dns_should_support_configurable_pod_dns_nameservers(plan):
    server, config = str(plan.pods_of(9)[53]), {"searches": ["resolv.conf.local"]}
    own = asking(dnsPolicy="None", dnsConfig={"nameservers": [server], **config})
    if plan.port_offset:
        pytest.skip("port 53 cannot be bound here")
    async with (
        answering(server, {"notexist.resolv.conf.local": "192.0.2.123"}),
        serving(plan, [WEB, own], nodes=1) as up,
    ):
        assert await resolved(up, "notexist") == "192.0.2.123"
        assert await resolved(up, f"web.{SVC}") == "unknown"  # nor is the machine asked
        assert await resolved(up, "localhost") == "unknown"


async def test_dns_should_support_configurable_pod_resolv_conf(plan):
    server = str(plan.pods_of(9)[54])
    config = {"nameservers": [server], "searches": ["example.test"], "options": [{"name": "ndots", "value": "2"}]}
    if plan.port_offset:
        pytest.skip("port 53 cannot be bound here")
    answers = {"own.example.test": "192.0.2.5", "www.example.net": "192.0.2.6"}
    async with answering(server, answers) as asked, serving(plan, [WEB, asking(dnsConfig=config)], nodes=1) as up:
        assert await resolved(up, "web") == ip_of(up)
        assert await resolved(up, "own") == "192.0.2.5"
        assert asked == ["own.example.test"]  # the cluster's server says that the others are not there
        assert await resolved(up, "www.example.net") == "192.0.2.6"  # which it refuses; two dots: not searched for
        assert asked[1:] == ["www.example.net"]


async def test_dns_should_provide_etc_hosts_entries_for_the_cluster(plan):
    aliases = [
        {"ip": "192.0.2.7", "hostnames": ["cache", "cache.example.com"]},
        {"ip": "192.0.2.8", "hostnames": ["web"]},
    ]
    async with serving(plan, [WEB, asking(hostAliases=aliases)], nodes=1) as control:
        for name in ("cache", "cache.example.com", "CACHE"):
            assert await resolved(control, name) == "192.0.2.7"
        assert await resolved(control, "web") == "192.0.2.8"  # before any name server
        assert await resolved(control, f"web.{SVC}") == ip_of(control)
        assert await resolved(control, "asking") == pod_ip(control, "asking")


async def test_dns_should_work_with_more_than_6_search_paths_of_more_than_256_characters(plan):
    searches = [f"{letter * 60}.example.test" for letter in "abcdefgh"]
    async with serving(plan, [WEB, asking(dnsConfig={"searches": searches})], nodes=1) as control:
        assert await resolved(control, "web") == ip_of(control)


async def test_dns_policy_default_is_the_machines(plan):
    async with serving(plan, [WEB, asking(dnsPolicy="Default")], nodes=1) as control:
        assert await resolved(control, "web") == "unknown"
        assert await resolved(control, "localhost") == "127.0.0.1"


ADDRESS = ("loop", "socket", "socket_in_a_thread", "socket_in_the_executor", "gethostbyname", "sock_connect")
CONNECTED = ("aiohttp", "urllib", "streams")


async def test_apps_find_services_whatever_way_they_ask(plan, subtests):
    async with serving(plan, [WEB, pod("a"), asking()], nodes=1) as control:
        for way in WAYS:
            port = plan.bound_port(81 if way == "datagrams" else 80)
            expected = ip_of(control) if way in ADDRESS else "unknown" if way == "a_thread_of_its_own" else "a"
            with subtests.test(msg=way):
                assert await resolved(control, "web", way, port=port) == expected
                if way in (*ADDRESS, *CONNECTED):
                    assert await resolved(control, "nobody", way, port=port) == "unknown"


async def test_a_headless_service_is_connected_to_where_a_pod_takes_it(plan):
    """Its first address may be that of a pod that refuses; the next is tried."""
    mine = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "mine", "namespace": "default", "labels": {SERVICE_LABEL: "headless"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [str(plan.pods_of(9)[number])]} for number in range(2, 9)],
        "ports": [],
    }
    headless = service("headless", clusterIP="None")
    async with serving(plan, [headless, mine, pod("a"), asking()], nodes=1) as control:
        for way in CONNECTED:
            assert await resolved(control, "headless", way, port=8080) == "a"


@pytest.mark.parametrize("protocol", ["http", "udp"])
async def test_netexec_dials_by_name(plan, protocol):
    async with serving(plan, [WEB, pod("a"), pod("b")], nodes=1) as control:
        port = plan.bound_port(80 if protocol == "http" else 81)
        for host, found in (("web", "responses"), ("web.default.svc", "responses"), ("nobody", "errors")):
            path = f"/dial?host={host}&port={port}&request=hostname&protocol={protocol}"
            said = json.loads(await fetched((pod_ip(control, "a"), 8080), path))
            assert list(said) == [found]
        assert "nobody" in said["errors"][0]


async def test_a_pod_asks_from_its_own_address(plan):
    """Through the relay too, as a pod with a resolver of its own would."""
    async with serving(plan, [WEB], nodes=1) as control:
        source = str(plan.pods_of(1)[77])
        assert records(await query(plan, f"web.{SVC}", source=source)) == {ip_of(control)}


async def test_an_answer_too_long_for_udp_comes_by_tcp(plan):
    mine = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "mine", "namespace": "default", "labels": {SERVICE_LABEL: "many"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [f"192.0.{2 + number // 250}.{number % 250}"]} for number in range(900)],
        "ports": [],
    }
    async with serving(plan, [service("many", clusterIP="None", selector={}), mine, asking()], nodes=1) as control:
        assert (await query(plan, f"many.{SVC}")).flags & dns.flags.TC
        assert len(records(await query(plan, f"many.{SVC}", tcp=True))) == 900
        assert len((await resolved(control, "many")).split()) == 900


async def test_a_node_that_is_lost_leaves_kube_dns_and_is_back_in_it_later(plan):
    async with serving(plan, [WEB]) as control:
        assert endpoints(control) == {plan.node(1), plan.node(2)}
        control.fleet.nodes[1].lost.set()
        async with asyncio.timeout(PATIENCE_S):
            while endpoints(control) != {plan.node(2)}:
                await asyncio.sleep(0.005)
        await control.wait(control.store.snapshot.generation)
        for _ in range(12):
            assert records(await query(plan, f"web.{SVC}")) == {ip_of(control)}
        async with asyncio.timeout(PATIENCE_S):
            while endpoints(control) != {plan.node(1), plan.node(2)}:
                await asyncio.sleep(0.005)
        for number in (1, 2):
            where = {"port": NODE_PORT, "timeout": PATIENCE_S}
            found = await dns.asyncquery.udp(dns.message.make_query(f"web.{SVC}", "A"), plan.node(number), **where)
            assert records(found) == {ip_of(control)}


def endpoints(control: ControlPlane) -> set[str]:
    [obj] = (
        row for row in control.store.snapshot.all("EndpointSlice") if row["metadata"]["namespace"] == "kube-system"
    )
    return {address for row in obj["endpoints"] for address in row["addresses"]}


GARBAGE = [b"", b"\0", b"\xff" * 11, b"\0" * 12, b"\xff" * 600, bytes(range(256)), b"GET / HTTP/1.1\r\n\r\n"]


async def test_garbage_leaves_the_server_answering(plan):
    async with serving(plan, [WEB], nodes=1) as control:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for data in GARBAGE:
                sender.sendto(data, (plan.node(1), NODE_PORT))
        for data in (*GARBAGE, b"\0\0", b"\xff\xff short", b"\0\x0c" + b"\0" * 12):
            reader, writer = await asyncio.open_connection(plan.node(1), NODE_PORT)
            writer.write(data)
            writer.write_eof()
            async with asyncio.timeout(PATIENCE_S):
                await reader.read()
            writer.close()
        silent = [await asyncio.open_connection(plan.node(1), NODE_PORT) for _ in range(20)]
        for tcp in (False, True):
            assert records(await query(plan, f"web.{SVC}", tcp=tcp)) == {ip_of(control)}
        for _, writer in silent:
            writer.close()


async def test_many_questions_on_one_tcp_connection_are_answered_in_turn(plan):
    async with serving(plan, [WEB], nodes=1):
        reader, writer = await asyncio.open_connection(plan.dns, plan.bound_port(53))
        messages = [dns.message.make_query(f"web.{SVC}", "A", id=number) for number in range(1, 30)]
        writer.write(b"".join(message.to_wire(prepend_length=True) for message in messages))
        for message in messages:
            async with asyncio.timeout(PATIENCE_S):
                data = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            assert dns.message.from_wire(data).id == message.id
        writer.close()


async def test_where_it_cannot_listen_it_says_so_and_all_else_goes_on(plan):
    notices: list[str] = []
    with socket.create_server((plan.node(1), NODE_PORT)):
        async with serving(plan, [WEB, pod("a")], nodes=1, notice=notices.append) as control:
            assert await fetched((ip_of(control), plan.bound_port(80))) == "a"
            assert any(f"cannot listen on {plan.node(1)}:{NODE_PORT} for cluster DNS" in line for line in notices)


@pytest.mark.skipif(not shutil.which("dig"), reason="dig is not installed")
@pytest.mark.parametrize("transport", ["+notcp", "+tcp"])
async def test_dig_finds_a_service(plan, transport):
    async with serving(plan, [WEB], nodes=1) as control:
        command = ("dig", f"@{plan.dns}", "-p", str(plan.bound_port(53)), transport, "+short", f"web.{SVC}")
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        assert output.decode() == f"{ip_of(control)}\n"


def own(name: str = "kube-dns", **spec: Any) -> Object:
    obj = service(name, **spec)
    return {**obj, "metadata": {**obj["metadata"], "namespace": "kube-system"}}


def own_slice(name: str, service_name: str) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "kube-system", "labels": {SERVICE_LABEL: service_name}},
        "addressType": "IPv4",
        "endpoints": [],
        "ports": [],
    }


@pytest.mark.parametrize(
    ("obj", "field", "reason"),
    [
        (lambda plan: service("mine", clusterIP=plan.dns), "spec.clusterIP", "is already that of Service kube-system"),
        (lambda plan: own(), "metadata", "is the plane's own, which runs cluster DNS itself; leave it out"),
        (lambda plan: own(clusterIP=plan.dns), "metadata", "is the plane's own"),
        (lambda plan: own_slice("kube-dns-nodes", "other"), "metadata", "is the plane's own"),
        (lambda plan: own_slice("mine", "kube-dns"), "metadata", "is the plane's own"),
    ],
    ids=["its address", "its name", "both", "its EndpointSlice", "another EndpointSlice of it"],
)
@pytest.mark.parametrize("nodes", [0, 1], ids=["before there is a plane", "on a plane"])
async def test_nobody_else_is_cluster_dns(plan, obj, field, reason, nodes):
    made = obj(plan)
    with pytest.raises(ManifestError) as caught:
        settled([made], plan=plan) if nodes else Store(plan).apply([made])
    [problem] = caught.value.problems
    assert (problem.field, problem.object) == (field, str(key_of(made)))
    assert reason in problem.reason


async def test_kube_dns_cannot_be_given_other_endpoints_and_comes_back_when_it_is_deleted(plan):
    async with serving(plan, [WEB], nodes=1) as control:
        [obj] = (row for row in control.store.snapshot.all("EndpointSlice"))
        with pytest.raises(ManifestError, match="is the plane's own"):
            control.store.replace({**obj, "endpoints": []})
        control.store.delete(KUBE_DNS)
        await control.wait(control.store.snapshot.generation)
        assert control.store.get(KUBE_DNS)["spec"]["clusterIP"] == plan.dns
        assert records(await query(plan, f"web.{SVC}")) == {ip_of(control)}


def routed(name: str, port: int = 80) -> Object:
    backend = {"service": {"name": name, "port": {"number": port}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "rules": [
                {
                    "host": f"{name}.example.com",
                    "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
                }
            ]
        },
    }


async def test_an_ingress_reaches_the_host_of_an_external_name(plan):
    """One that is a Service, one that is headless, one that is the machine's, and one that is none."""
    objects = [
        WEB,
        service("headless", clusterIP="None"),
        *(
            service(name, type="ExternalName", externalName=target, selector={}, ports=[])
            for name, target in {
                "to-service": f"web.{SVC}",
                "to-headless": f"headless.{SVC}",
                "to-machine": "localhost",
                "to-nobody": f"nobody.{SVC}",
            }.items()
        ),
        routed("to-service"),
        routed("to-headless", 8080),
        routed("to-machine", 18080),
        routed("to-nobody"),
        routed("headless"),
        pod("a"),
    ]
    async with serving(plan, objects, nodes=1) as control:

        async def answer(name: str) -> tuple[int, str]:
            return await fetch(plan.vip(1), plan.bound_port(80), name=f"{name}.example.com")

        for name in ("to-service", "to-headless", "headless"):
            assert await answer(name) == (200, "a")
        assert (await answer("to-nobody"))[0] == 503
        assert (await answer("to-machine"))[0] == 502  # nobody listens there
        async with await asyncio.start_server(echoing, "127.0.0.1", 18080):
            assert await answer("to-machine") == (200, "machine")
        moved = service("to-nobody", type="ExternalName", externalName=f"web.{SVC}", selector={}, ports=[])
        await control.apply([moved])
        assert await answer("to-nobody") == (200, "a")


async def echoing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nmachine")
    writer.close()


async def test_names_are_shared_again_only_where_they_change(plan, monkeypatch):
    shared: list[object] = []
    monkeypatch.setattr(LocalFleet, "share", lambda fleet, tables: shared.append(tables) or tables)

    def times() -> int:
        return sum(isinstance(tables, Names) for tables in shared)

    async with serving(
        plan, [WEB, service("headless", clusterIP="None", selector={"app": "other"}), pod("a")], nodes=1
    ) as control:
        before, tables = times(), control._published.node_tables
        await control.apply([pod("b")])
        await control.ready(20)
        assert control._published.node_tables is not tables
        assert times() == before  # an endpoint of a ClusterIP
        await control.apply([service("third")])
        assert times() == before + 1
        assert records(await query(plan, f"third.{SVC}")) == {ip_of(control, "third")}
