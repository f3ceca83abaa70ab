"""Cluster DNS as a function: names that follow from a Snapshot, questions and answers, bytes that are no question."""

from dataclasses import replace

import dns.edns
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from plane.dns import names
from plane.dns.answers import LARGEST_UDP, MOST_ADDRESSES, SMALLEST_UDP, answer
from plane.dns.zone import TTL_S, Zone
from plane.model import Object, Snapshot
from tests.ingress.manifests import endpoint, service, slice_of, snapshot_of

SVC = "default.svc.cluster.local"
SOA = "ns.dns.cluster.local. hostmaster.cluster.local. 7 7200 1800 86400 5"


def port(number: int, name: str = "", protocol: str = "TCP") -> Object:
    return {"port": number, "protocol": protocol, **({"name": name} if name else {})}


def host(ip: str, hostname: str = "", **conditions: bool) -> Object:
    return {**endpoint(ip, **conditions), **({"hostname": hostname} if hostname else {})}


def external(name: str, target: str) -> Object:
    return service(name, type="ExternalName", externalName=target)


def several(obj: Object, *ports: tuple[str, int]) -> Object:
    return {**obj, "ports": [{"name": name, "port": number, "protocol": "TCP"} for name, number in ports]}


OBJECTS = [
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bare"}},
    service("kube-dns", namespace="kube-system", cluster_ip="127.96.0.10"),
    service("web", cluster_ip="127.96.1.1", ports=[port(80, "http"), port(53, "dns", "UDP"), port(53, "dns-tcp")]),
    service("plain", cluster_ip="127.96.1.2", namespace="shop"),
    service("db", cluster_ip="None", ports=[port(5432, "sql"), port(80)]),
    several(
        slice_of("db", host("127.244.1.2", "db-0"), host("127.244.1.3"), host("127.244.1.4", "db-2", ready=False)),
        ("sql", 5433),
        ("", 8080),
    ),
    slice_of("db", host("127.244.2.2", "db-1", serving=None), port=9000, port_name="sql"),
    service("asleep", cluster_ip="None"),
    slice_of("asleep", endpoint("127.244.1.9", ready=False)),
    external("docs", "Docs.Example.org"),
    external("alias", f"web.{SVC}."),
    external("dangling", f"gone.{SVC}"),
    external("one", f"two.{SVC}"),
    external("two", f"one.{SVC}"),
]
NAMES = names.compile(snapshot_of(*OBJECTS), lambda number: number)
ZONE = Zone(NAMES, serial=7)


def ask(
    question: str, kind: str = "A", *, zone: Zone = ZONE, stream: bool = False, **query: object
) -> dns.message.Message:
    """The answer to a question, by way of the wire."""
    data = answer(zone, dns.message.make_query(question, kind, **query).to_wire(), stream=stream)
    assert data is not None
    return dns.message.from_wire(data)


def records(section: list) -> list[str]:
    return sorted(f"{rrset.name} {dns.rdatatype.to_text(rrset.rdtype)} {row}" for rrset in section for row in rrset)


A, NO, NX = "NOERROR", "NOERROR", "NXDOMAIN"
# What is asked, with what rcode it is answered, and with what records.
QUESTIONS = {
    "a Service": (f"web.{SVC}", "A", A, [f"web.{SVC}. A 127.96.1.1"]),
    "a Service of another namespace": (
        "plain.shop.svc.cluster.local", "A", A, ["plain.shop.svc.cluster.local. A 127.96.1.2"]
    ),
    "a name as it was asked": (f"WeB.{SVC}", "A", A, [f"WeB.{SVC}. A 127.96.1.1"]),
    "no IPv6": (f"web.{SVC}", "AAAA", NO, []),
    "no text": (f"web.{SVC}", "TXT", NO, []),
    "no such Service": (f"nobody.{SVC}", "A", NX, []),
    "no such Service, no IPv6 either": (f"nobody.{SVC}", "AAAA", NX, []),
    "a Service of no such namespace": ("web.nowhere.svc.cluster.local", "A", NX, []),
    "a name below a Service": (f"a.web.{SVC}", "A", NX, []),
    "a namespace": (SVC, "A", NO, []),
    "a namespace without Services": ("bare.svc.cluster.local", "A", NO, []),
    "no such namespace": ("nowhere.svc.cluster.local", "A", NX, []),
    "the parent of namespaces": ("svc.cluster.local", "A", NO, []),
    "the zone": ("cluster.local", "A", NO, []),
    "its SOA": ("cluster.local", "SOA", A, [f"cluster.local. SOA {SOA}"]),
    "its name server": ("cluster.local", "NS", A, ["cluster.local. NS ns.dns.cluster.local."]),
    "the name server's address": ("ns.dns.cluster.local", "A", A, ["ns.dns.cluster.local. A 127.96.0.10"]),
    "the version": ("dns-version.cluster.local", "TXT", A, ['dns-version.cluster.local. TXT "1.1.0"']),
    "a named port": (
        f"_http._tcp.web.{SVC}", "SRV", A, [f"_http._tcp.web.{SVC}. SRV 0 100 80 web.{SVC}."]
    ),
    "a named UDP port": (
        f"_dns._udp.web.{SVC}", "SRV", A, [f"_dns._udp.web.{SVC}. SRV 0 100 53 web.{SVC}."]
    ),
    "a port by another protocol": (f"_http._udp.web.{SVC}", "SRV", NX, []),
    "a port without a name": ("_._tcp.plain.shop.svc.cluster.local", "SRV", NX, []),
    "a port has no address": (f"_http._tcp.web.{SVC}", "A", NO, []),
    "a protocol": (f"_tcp.web.{SVC}", "SRV", NO, []),
    "a headless Service: its ready endpoints": (
        f"db.{SVC}", "A", A, [f"db.{SVC}. A 127.244.1.2", f"db.{SVC}. A 127.244.1.3", f"db.{SVC}. A 127.244.2.2"]
    ),
    "a host of it": (f"db-0.db.{SVC}", "A", A, [f"db-0.db.{SVC}. A 127.244.1.2"]),
    "a host without a name of its own": (f"127-244-1-3.db.{SVC}", "A", A, [f"127-244-1-3.db.{SVC}. A 127.244.1.3"]),
    "a host by its address, though it has a name": (f"127-244-1-2.db.{SVC}", "A", NX, []),
    "a host that is not ready": (f"db-2.db.{SVC}", "A", NX, []),
    "a port of a headless Service": (
        f"_sql._tcp.db.{SVC}",
        "SRV",
        A,
        [
            f"_sql._tcp.db.{SVC}. SRV 0 33 5433 127-244-1-3.db.{SVC}.",
            f"_sql._tcp.db.{SVC}. SRV 0 33 5433 db-0.db.{SVC}.",
            f"_sql._tcp.db.{SVC}. SRV 0 33 9000 db-1.db.{SVC}.",
        ],
    ),
    "a headless Service without a ready endpoint": (f"asleep.{SVC}", "A", NX, []),
    "the name of a ClusterIP": (
        "1.1.96.127.in-addr.arpa", "PTR", A, [f"1.1.96.127.in-addr.arpa. PTR web.{SVC}."]
    ),
    "the name of a headless endpoint": (
        "2.1.244.127.in-addr.arpa", "PTR", A, [f"2.1.244.127.in-addr.arpa. PTR db-0.db.{SVC}."]
    ),
    "an address of nobody": ("9.9.96.127.in-addr.arpa", "PTR", NX, []),
    "a part of an address": ("96.127.in-addr.arpa", "PTR", NO, []),
    "an ExternalName": (f"docs.{SVC}", "CNAME", A, [f"docs.{SVC}. CNAME docs.example.org."]),
    "the address of an ExternalName, which is not ours to know": (
        f"docs.{SVC}", "A", A, [f"docs.{SVC}. CNAME docs.example.org."]
    ),
    "the address of an ExternalName that is a Service": (
        f"alias.{SVC}", "A", A, [f"alias.{SVC}. CNAME web.{SVC}.", f"web.{SVC}. A 127.96.1.1"]
    ),
    "no IPv6 of an ExternalName that is a Service": (
        f"alias.{SVC}", "AAAA", NO, [f"alias.{SVC}. CNAME web.{SVC}."]
    ),
    "an ExternalName of nobody": (f"dangling.{SVC}", "A", NX, [f"dangling.{SVC}. CNAME gone.{SVC}."]),
    "ExternalNames that lead to each other": (f"one.{SVC}", "A", "SERVFAIL", []),
    "one of them": (f"one.{SVC}", "CNAME", A, [f"one.{SVC}. CNAME two.{SVC}."]),
    "a pod": ("10-1-2-3.shop.pod.cluster.local", "A", A, ["10-1-2-3.shop.pod.cluster.local. A 10.1.2.3"]),
    "no IPv6 of a pod": ("10-1-2-3.shop.pod.cluster.local", "AAAA", NO, []),
    "a pod of no such namespace": ("10-1-2-3.nowhere.pod.cluster.local", "A", NX, []),
    "what is no address": ("10-1-2.shop.pod.cluster.local", "A", NX, []),
    "an address out of range": ("10-1-2-333.shop.pod.cluster.local", "A", NX, []),
    "an address with zeros before it": ("010-1-2-3.shop.pod.cluster.local", "A", NX, []),
    "a foreign name": ("example.org", "A", "REFUSED", []),
    "the root": (".", "NS", "REFUSED", []),
    "a name that ends alike": ("xcluster.local", "A", "REFUSED", []),
    "a transfer": ("cluster.local", "AXFR", "REFUSED", []),
}  # fmt: skip


@pytest.mark.parametrize(("question", "kind", "rcode", "expected"), QUESTIONS.values(), ids=QUESTIONS)
def test_questions_are_answered_as_the_specification_has_it(
    question: str, kind: str, rcode: str, expected: list[str]
) -> None:
    found = ask(question, kind)
    assert (dns.rcode.to_text(found.rcode()), records(found.answer)) == (rcode, expected)
    assert found.flags & dns.flags.QR
    assert bool(found.flags & dns.flags.AA) == (rcode != "REFUSED")
    assert not found.flags & (dns.flags.RA | dns.flags.TC)
    assert {rrset.ttl for rrset in found.answer} <= {TTL_S}
    asked_type_found = any(row.split()[1] == kind for row in expected)
    foreign_alias = question == f"docs.{SVC}"
    if rcode in ("REFUSED", "SERVFAIL") or asked_type_found or foreign_alias:
        assert not found.authority
    else:  # whoever is told that there is nothing is told for how long
        origin = "in-addr.arpa" if question.endswith("arpa") else "cluster.local"
        assert records(found.authority) == [f"{origin}. SOA {SOA}"]


def test_all_that_a_name_has_is_told_at_once() -> None:
    assert [row.split()[1] for row in records(ask("cluster.local", "ANY").answer)] == ["NS", "SOA"]
    assert ask(f"docs.{SVC}", "ANY").answer[0].rdtype == dns.rdatatype.CNAME


def test_addresses_of_the_hosts_come_with_srv_records() -> None:
    assert records(ask(f"_sql._tcp.db.{SVC}", "SRV").additional) == [
        f"127-244-1-3.db.{SVC}. A 127.244.1.3",
        f"db-0.db.{SVC}. A 127.244.1.2",
        f"db-1.db.{SVC}. A 127.244.2.2",
    ]


def test_a_port_is_said_as_it_is_bound() -> None:
    zone = Zone(names.compile(snapshot_of(*OBJECTS), lambda number: number + 8000))
    assert ask(f"_http._tcp.web.{SVC}", "SRV", zone=zone).answer[0][0].port == 8080
    assert ask(f"_sql._tcp.db.{SVC}", "SRV", zone=zone).answer[0][0].port in (5433, 9000)  # slices have it already


@pytest.mark.parametrize(
    ("change", "rcode"),
    [
        (lambda query: query.set_opcode(dns.opcode.NOTIFY), dns.rcode.NOTIMP),
        (lambda query: query.use_edns(1), dns.rcode.BADVERS),
        (lambda query: query.question.clear(), dns.rcode.FORMERR),
        (lambda query: query.question.append(query.question[0]), dns.rcode.FORMERR),
        (lambda query: setattr(query.question[0], "rdclass", dns.rdataclass.CH), dns.rcode.REFUSED),
    ],
    ids=["another opcode", "another EDNS", "no question", "two questions", "another class"],
)
def test_what_is_no_question_is_refused_with_its_reason(change, rcode) -> None:
    query = dns.message.make_query(f"web.{SVC}", "A")
    change(query)
    data = answer(ZONE, query.to_wire())
    assert data is not None
    found = dns.message.from_wire(data)
    assert (found.id, found.rcode(), found.answer) == (query.id, rcode, [])


def test_who_can_read_it_is_told_why_nothing_is_said() -> None:
    found = ask("example.org", use_edns=0)
    [option] = found.options
    assert option.code == dns.edns.EDECode.NOT_AUTHORITATIVE
    assert not ask("example.org", use_edns=False).options


def big(count: int) -> Zone:
    """A headless Service of so many endpoints, more than a slice may have."""
    endpoints = [endpoint(f"127.244.{1 + number // 250}.{1 + number % 250}") for number in range(count)]
    return Zone(names.compile(snapshot_of(service("big", cluster_ip="None"), slice_of("big", *endpoints)), int))


@pytest.mark.parametrize(
    ("edns", "count", "whole"),
    [
        (None, 20, True),
        (None, 40, False),
        (1232, 40, True),
        (1232, 100, False),
        (65535, 240, True),
        (65535, 300, False),
    ],
)
def test_what_is_too_long_for_udp_says_so_and_comes_by_tcp(edns: int | None, count: int, whole: bool) -> None:
    zone = big(count)
    options = {"use_edns": 0, "payload": edns} if edns else {"use_edns": False}
    query = dns.message.make_query(f"big.{SVC}", "A", **options)
    data = answer(zone, query.to_wire())
    assert data is not None
    assert len(data) <= min(max(edns or 0, SMALLEST_UDP), LARGEST_UDP)
    assert bool(dns.message.from_wire(data).flags & dns.flags.TC) != whole
    found = ask(f"big.{SVC}", zone=zone, stream=True, **options)
    assert len(found.answer[0]) == count
    assert not found.flags & dns.flags.TC


def test_of_more_addresses_than_an_answer_holds_some_are_told() -> None:
    found = ask(f"big.{SVC}", zone=big(MOST_ADDRESSES + 500), stream=True)
    assert len(found.answer[0]) == MOST_ADDRESSES
    assert not found.flags & dns.flags.TC


def test_addresses_come_in_turn_first() -> None:
    assert len({ask(f"db.{SVC}").answer[0][0].address for _ in range(100)}) == 3


@given(st.binary(max_size=600))
def test_whatever_comes_is_answered_or_passed_over(data: bytes) -> None:
    for stream in (False, True):
        found = answer(ZONE, data, stream=stream)
        if found is None:
            assert len(data) < 12 or data[2] & 0x80
        else:
            assert found[:2] == data[:2]
            assert dns.message.from_wire(found).rcode() != dns.rcode.SERVFAIL or b"\x03one" in data.lower()


@given(st.data())
def test_a_question_with_a_few_bytes_of_it_changed_is_answered_too(data: st.DataObject) -> None:
    name, kind, _, _ = data.draw(st.sampled_from(sorted(QUESTIONS.values(), key=str)))
    wire = bytearray(dns.message.make_query(name, kind, use_edns=0).to_wire())
    for place, byte in data.draw(st.lists(st.tuples(st.integers(0, len(wire) - 1), st.integers(0, 255)), max_size=4)):
        wire[place] = byte
    cut = data.draw(st.integers(0, len(wire)))
    for sent in (bytes(wire), bytes(wire[:cut])):
        found = answer(ZONE, sent)
        assert (found is None) == (len(sent) < 12 or bool(sent[2] & 0x80))


def test_a_message_that_cannot_be_read_keeps_its_id_and_its_flags() -> None:
    data = answer(ZONE, b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xff")
    assert data is not None
    found = dns.message.from_wire(data)
    assert (found.id, found.rcode(), bool(found.flags & dns.flags.RD)) == (0x1234, dns.rcode.FORMERR, True)


# names: what is kept


def test_names_as_text() -> None:
    snapshot = snapshot_of(
        service("web", cluster_ip="127.96.1.1", port_name="http"),
        service("db", cluster_ip="None"),
        slice_of("db", host("127.244.1.2", "db-0")),
    )
    assert names.dump(names.compile(snapshot, int)) == (
        f"1.1.96.127.in-addr.arpa PTR web.{SVC}.\n"
        f"_http._tcp.web.{SVC} SRV 0 100 80 web.{SVC}.\n"
        "default.pod.cluster.local exists\n"
        f"{SVC} exists\n"
        'dns-version.cluster.local TXT "1.1.0"\n'
        f"web.{SVC} A 127.96.1.1\n"
        f"2.1.244.127.in-addr.arpa PTR db-0.db.{SVC}.\n"
        f"db-0.db.{SVC} A 127.244.1.2\n"
        f"db.{SVC} A 127.244.1.2\n"
    )


def again(before: Snapshot, *objects: Object) -> tuple[names.Names, names.Names]:
    """The names of OBJECTS, and those after some have changed, which are held to a compilation from nothing."""
    compiler, after = names.Compiler(int), before.changed(objects)
    first, found = compiler.compile(before), compiler.compile(after)
    assert names.equal(first, NAMES)
    assert names.equal(found, names.compile(after, int))
    return first, found


def test_endpoints_of_a_cluster_ip_change_no_name() -> None:
    before, after = again(snapshot_of(*OBJECTS), slice_of("web", endpoint("127.244.1.7")))
    assert after.services is before.services
    assert after.headless is before.headless


def test_endpoints_of_a_headless_service_change_its_names_only() -> None:
    before, after = again(snapshot_of(*OBJECTS), slice_of("asleep", endpoint("127.244.1.9")))
    assert after.services is before.services
    assert ask(f"asleep.{SVC}", zone=Zone(after)).answer[0][0].address == "127.244.1.9"


def test_a_service_changes_names() -> None:
    _, after = again(snapshot_of(*OBJECTS), service("new", cluster_ip="127.96.1.9"))
    assert ask(f"new.{SVC}", zone=Zone(after)).answer[0][0].address == "127.96.1.9"


def test_names_that_differ_are_of_another_generation() -> None:
    before = snapshot_of(*OBJECTS, generation=3)
    compiler = names.Compiler(int)
    first = compiler.compile(before)
    changed = replace(before.changed([service("new", cluster_ip="127.96.1.9")]), generation=4)
    second = compiler.compile(changed)
    assert [Zone(each, each.generation).records("cluster.local", "SOA")[0].serial for each in (first, second)] == [3, 4]


def test_where_a_change_changes_no_name_the_blocks_are_those_of_before() -> None:
    before = snapshot_of(*OBJECTS)
    compiler = names.Compiler(int)
    first = compiler.compile(before)
    noted = [
        {**obj, "metadata": {**obj["metadata"], "annotations": {"a": "b"}}}
        for kind in ("Service", "EndpointSlice")
        for obj in before.all(kind)
    ]
    second = compiler.compile(before.changed(noted))
    assert second.services is first.services
    assert second.headless is first.headless


def test_a_slice_that_goes_takes_its_names_with_it() -> None:
    before = snapshot_of(*OBJECTS)
    after = before.changed(drop=[names.Key("EndpointSlice", "default", "db-9000")])
    compiler = names.Compiler(int)
    compiler.compile(before)
    found = compiler.compile(after)
    assert names.equal(found, names.compile(after, int))
    assert ask(f"db-1.db.{SVC}", zone=Zone(found)).rcode() == dns.rcode.NXDOMAIN
