"""What a pod's spec makes of its resolver; what the resolver then does is in ``tests/plane/test_cluster_dns.py``."""

import socket
from typing import Any

import pytest

from plane.addresses import AddressPlan
from plane.dns.resolver import Found, Resolver, UnresolvedError
from plane.pods.resolving import attend, getaddrinfo, resolver_here, resolver_of
from plane.pods.spec import ContainerSpec
from tests.pods.hosting import NODE, address, container, pod_object

SEARCH = ("default.svc.cluster.local", "svc.cluster.local", "cluster.local")


def resolver(plan: AddressPlan, **spec: Any) -> Resolver:
    obj = pod_object(address(plan, 2), container("nginx"), **spec)
    return resolver_of(ContainerSpec(obj, obj["spec"]["containers"][0], plan))


@pytest.mark.parametrize("policy", [{}, {"dnsPolicy": "ClusterFirst"}, {"dnsPolicy": "ClusterFirstWithHostNet"}])
def test_a_pod_asks_its_own_node_along_the_path_of_its_namespace(plan: AddressPlan, policy: dict) -> None:
    found = resolver(plan, **policy)
    assert found.servers == ((plan.node(NODE), 10053),)
    assert (found.search, found.ndots, found.source, found.machine) == (SEARCH, 5, address(plan, 2), True)


def test_dns_config_is_added_to_what_the_policy_says(plan: AddressPlan) -> None:
    config = {"nameservers": ["10.0.0.1"], "searches": ["example.com", "cluster.local"]}
    found = resolver(plan, dnsConfig=config)
    assert found.servers == ((plan.node(NODE), 10053), ("10.0.0.1", 53))
    assert found.search == (*SEARCH, "example.com")


def test_policy_none_knows_its_dns_config_only(plan: AddressPlan) -> None:
    found = resolver(plan, dnsPolicy="None", dnsConfig={"nameservers": ["10.0.0.1"], "searches": ["example.com"]})
    assert (found.servers, found.search, found.ndots) == ((("10.0.0.1", 53),), ("example.com",), 1)
    assert not found.machine


def test_policy_default_asks_the_machine(plan: AddressPlan) -> None:
    found = resolver(plan, dnsPolicy="Default")
    assert (found.servers, found.search, found.ndots, found.machine) == ((), (), 1, True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], (5, 2, 2)),
        ([{"name": "ndots", "value": "0"}], (0, 2, 2)),
        ([{"name": "ndots", "value": "99"}, {"name": "timeout", "value": "99"}], (15, 30, 2)),
        ([{"name": "timeout", "value": "0"}, {"name": "attempts", "value": "0"}], (5, 1, 1)),
        ([{"name": "edns0"}, {"name": "attempts", "value": "9"}], (5, 2, 5)),
    ],
)
def test_options_have_the_bounds_of_glibc(plan: AddressPlan, options: list, expected: tuple) -> None:
    found = resolver(plan, dnsConfig={"options": options})
    assert (found.ndots, found.timeout_s, found.attempts) == expected


def test_hosts_are_the_pods_own_names_and_its_aliases(plan: AddressPlan) -> None:
    aliases = [{"ip": "10.0.0.1", "hostnames": ["cache", "db"]}, {"ip": "10.0.0.2", "hostnames": ["db"]}]
    found = resolver(plan, hostname="web-1", subdomain="web", hostAliases=aliases)
    own = [address(plan, 2)]
    assert found.hosts == {
        "web-1": own,
        "web-1.web.default.svc.cluster.local": own,
        "cache": ["10.0.0.1"],
        "db": ["10.0.0.1", "10.0.0.2"],
    }
    assert found.addresses("DB.") == Found(("10.0.0.1", "10.0.0.2"), float("inf"))


def test_a_name_of_the_cluster_is_never_asked_of_the_machine() -> None:
    for name in ("web.default.svc.cluster.local", "cluster.local", "1.0.0.127.in-addr.arpa"):
        with pytest.raises(UnresolvedError):
            Resolver().addresses(name)


def test_addresses_of_getaddrinfo_are_like_the_machines(plan: AddressPlan) -> None:
    here = Resolver(hosts={"web": ["127.0.0.7", "127.0.0.8"]})
    rows = getaddrinfo(here, "web", 80, type=socket.SOCK_STREAM)
    assert rows == [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 80)) for ip in ("127.0.0.7", "127.0.0.8")]
    assert getaddrinfo(here, b"web", "80", type=socket.SOCK_STREAM) == rows
    assert getaddrinfo(here, "127.0.0.9", 80) == socket.getaddrinfo("127.0.0.9", 80)
    assert getaddrinfo(here, None, 80, flags=socket.AI_PASSIVE) == socket.getaddrinfo(None, 80, flags=socket.AI_PASSIVE)
    with pytest.raises(socket.gaierror):
        getaddrinfo(here, "web", 80, socket.AF_INET6, flags=socket.AI_NUMERICHOST)
    with pytest.raises(socket.gaierror) as caught:
        getaddrinfo(Resolver(machine=False), "web", 80)
    assert caught.value.errno == socket.EAI_NONAME


def test_the_rest_of_the_process_asks_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", socket.getaddrinfo)
    monkeypatch.setattr(socket, "gethostbyname", socket.gethostbyname)
    attend()
    token = resolver_here.set(Resolver(hosts={"localhost": ["127.0.0.7"]}))
    try:
        assert socket.gethostbyname("localhost") == "127.0.0.7"
    finally:
        resolver_here.reset(token)
    assert socket.gethostbyname("localhost") == "127.0.0.1"
