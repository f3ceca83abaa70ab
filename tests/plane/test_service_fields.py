"""Fields of Services and EndpointSlices on real sockets, by the names of Kubernetes' own end-to-end tests."""

import asyncio
from typing import Any

import pytest

from plane.control import ControlPlane
from plane.model import SERVICE_LABEL, Key, Object
from tests.plane.local import serving
from tests.plane.test_services import ask, asked, cluster_ip, pod, pod_ip, service, spec_of

pytestmark = pytest.mark.syscalls


def listening(obj: Object, at: int, **ports: int) -> Object:
    """The pod with its server at a port, and these container ports by name."""
    [container] = obj["spec"]["containers"]
    container["args"] = ["netexec", f"--http-port={at}"]
    container["ports"] = [{"name": name, "containerPort": number} for name, number in ports.items()]
    return obj


def slices_of(control: ControlPlane, name: str = "web") -> list[Object]:
    return [
        obj
        for obj in control.store.snapshot.all("EndpointSlice")
        if obj["metadata"]["labels"].get(SERVICE_LABEL) == name
    ]


def slice_of(name: str, part: int, addresses: list[str], **ports: int) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-{part}", "namespace": "default", "labels": {SERVICE_LABEL: name}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address]} for address in addresses],
        "ports": [{"name": port, "port": number} for port, number in ports.items()],
    }


async def test_a_target_port_by_name_is_another_number_in_another_pod(plan):
    ports = [
        {"name": "web", "port": 80, "targetPort": "http"},
        {"name": "admin", "port": 81, "targetPort": "admin"},
    ]
    pods = [
        listening(pod("a", "node-1"), 8080, http=8080, admin=8080),
        listening(pod("b", "node-2"), 9090, http=9090),  # without admin, it is no endpoint of that port
    ]
    async with serving(plan, [service(ports=ports), *pods]) as control:
        ip, bound = spec_of(control)["clusterIP"], control.plan.bound_port
        assert set(await asked((ip, bound(80)))) == {"a", "b"}
        assert set(await asked((ip, bound(81)), 12)) == {"a"}
        assert len(slices_of(control)) == 2


async def test_an_app_protocol_is_kept_and_told_in_slices(plan):
    ports = [
        {"name": "http", "port": 80, "targetPort": 8080, "appProtocol": "kubernetes.io/h2c"},
        {"name": "other", "port": 81, "targetPort": 8080},
    ]
    async with serving(plan, [service(ports=ports), pod("a")], nodes=1) as control:
        assert [port.get("appProtocol") for port in spec_of(control)["ports"]] == ["kubernetes.io/h2c", None]
        [row] = slices_of(control)
        assert [port.get("appProtocol") for port in row["ports"]] == ["kubernetes.io/h2c", None]
        ports[0]["appProtocol"] = "https"
        await control.apply([service(ports=ports)])
        [row] = slices_of(control)
        assert row["ports"][0]["appProtocol"] == "https"
        assert await ask(cluster_ip(control)) == "a"


async def test_an_endpoint_has_the_hostname_of_a_pod_whose_subdomain_names_its_service(plan):
    said = {"a": {"hostname": "first", "subdomain": "web"}, "b": {"hostname": "second", "subdomain": "other"}, "c": {}}
    pods = [pod(name, "node-1") for name in said]
    for obj in pods:
        obj["spec"] |= said[obj["metadata"]["name"]]
    async with serving(plan, [service(), *pods], nodes=1) as control:
        [row] = slices_of(control)
        found = {each["targetRef"]["name"]: each.get("hostname") for each in row["endpoints"]}
        assert found == {"a": "first", "b": None, "c": None}
        assert set(await asked(cluster_ip(control))) == {"first", "second", "c"}, "and the pods call themselves so"


async def test_services_should_publish_not_ready_addresses_where_they_say_so(plan):
    probe = {"tcpSocket": {"port": 9}, "periodSeconds": 1}  # where nobody listens
    unready = pod("a", "node-1")
    unready["spec"]["containers"][0]["readinessProbe"] = probe
    early, late = service("early", publishNotReadyAddresses=True), service("late")
    async with serving(plan, [early, late], nodes=1) as control:
        await control.apply([unready])
        address = spec_of(control, Key("Service", "default", "early"))["clusterIP"], control.plan.bound_port(80)
        assert await answer(address) == "a"
        conditions = {name: slices_of(control, name)[0]["endpoints"][0]["conditions"] for name in ("early", "late")}
        assert (conditions["early"]["ready"], conditions["early"]["serving"]) == (True, False)
        assert (conditions["late"]["ready"], conditions["late"]["serving"]) == (False, False)
        with pytest.raises(ConnectionRefusedError):
            await ask((spec_of(control, Key("Service", "default", "late"))["clusterIP"], address[1]))


async def answer(address: tuple[str, int]) -> str:
    """The first there is, from a pod whose server may not be up yet: no condition says when it is."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await ask(address)
            except ConnectionError:
                await asyncio.sleep(0.02)


PODS = [pod("a", "node-1"), pod("b", "node-2"), pod("c", "node-2")]


async def test_endpointslice_should_support_a_service_with_multiple_endpoint_ips_in_multiple_endpointslices(plan):
    """Written by hand, with one endpoint in both; each counts once."""
    spec: dict[str, Any] = {"selector": {}, "ports": [{"name": "http", "port": 80}]}
    async with serving(plan, [service(**spec), *PODS]) as control:
        a, b, c = (pod_ip(control, name) for name in "abc")
        await control.apply([slice_of("web", 1, [a, b], http=8080), slice_of("web", 2, [b, c], http=8080)])
        assert set(await asked(cluster_ip(control))) == {"a", "b", "c"}
        await control.apply([slice_of("web", 2, [c], http=9999), slice_of("web", 1, [a], http=8080)])
        # Where c is said to be nobody listens, so its connections are offered to the next.
        assert set(await asked(cluster_ip(control))) == {"a"}


async def test_endpointslice_should_support_a_service_with_multiple_ports_specified_in_multiple_endpointslices(plan):
    ports = [{"name": "http", "port": 80}, {"name": "again", "port": 81}]
    async with serving(plan, [service(selector={}, ports=ports), *PODS]) as control:
        a, b = (pod_ip(control, name) for name in "ab")
        await control.apply([slice_of("web", 1, [a], http=8080), slice_of("web", 2, [b], again=8080)])
        ip, bound = spec_of(control)["clusterIP"], control.plan.bound_port
        assert set(await asked((ip, bound(80)), 6)) == {"a"}
        assert set(await asked((ip, bound(81)), 6)) == {"b"}
