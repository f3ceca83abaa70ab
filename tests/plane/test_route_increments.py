"""Routes that follow from one change after the other, and all that is made of them, say what those made anew say."""

import asyncio
import itertools
import pickle
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plane import fastroutes, routecompiler, routepatches, routes
from plane.compiler import Compiler
from plane.dns.resolver import Resolver
from plane.endpointindex import EndpointIndex
from plane.growing import Growing
from plane.ingress.external import Hosts
from plane.ingress.hashing import Hashing
from plane.ingress.limits import Limits
from plane.ingress.table import Table, Target
from plane.ingress.timeouts import Timeouts
from plane.ingress.upstream import Pool
from plane.model import Key, Object, Snapshot, endpoint_keys, key_of
from plane.router import Match, Router
from plane.rows import Rows
from tests.ingress.manifests import endpoint, exact, ingress, path, prefix, rule, secret, service, slice_of
from tests.ingress.policies import BASIC, USERS, named
from tests.plane.fast import found as code_of

some = st.sampled_from
maybe = st.booleans()
NAMES = ("s0", "s1", "s2")
HOSTS = ("a.com", "b.com", "c.com", "x.b.com", "A.com", "*.b.com", "*.com")
WIDE = ("", "")
ASKED_HOSTS = ("a.com", "b.com", "x.b.com", "www.a.com", "d.com")
ASKED_PATHS = ("/", "/a", "/ab")
PLAIN: tuple[dict[str, str], ...] = (
    {},
    {},
    {},
    {"canary": "true", "canary_weight": "30"},
    {"canary": "true", "canary_by_header": "x-canary"},
    {"rewrite_target": "/new"},
    {"app_root": "/app"},
    {"ssl_redirect": "false"},
    {"permanent_redirect": "https://e.com"},
    {"load_balance": "ewma"},
    {"affinity": "cookie"},
    {"custom_headers": "default/answers"},
    BASIC,
    {"backend_protocol": "HTTPS", "proxy_ssl_secret": "default/cert"},
)
FAR: tuple[dict[str, str], ...] = (
    {"server_alias": "d.com,b.com"},
    {"from_to_www_redirect": "true"},
    {"default_backend": "s2"},
)


@st.composite
def an_ingress(draw: st.DrawFn, *, wide: bool) -> Object:
    hosts = HOSTS + WIDE if wide else HOSTS
    kinds = some([exact, prefix, lambda text, name: path("ImplementationSpecific", text, name, "http")])
    rules = [
        rule(
            draw(some(hosts)),
            *(
                draw(kinds)(draw(some(["/", "/a", "/a/"])), draw(some((*NAMES, "gone"))))
                for _ in range(draw(st.integers(0, 2)))
            ),
        )
        for _ in range(draw(st.integers(1, 2)))
    ]
    tls = [{"hosts": [draw(some(HOSTS)).lower()], "secretName": draw(some(["cert", "other"]))}] if draw(maybe) else []
    return ingress(
        f"i{draw(st.integers(0, 4))}",
        *rules,
        default=draw(some(["", "s0"])) if wide else "",
        created=f"2026-01-0{draw(st.integers(1, 3))}T00:00:00Z",
        annotations=named(**draw(some(PLAIN + FAR if wide else PLAIN))),
        **({"tls": tls} if tls else {}),
        **draw(some([{}, {}, {}, {"ingressClassName": "traefik"}, {"ingressClassName": "kong"}])),
    )


@st.composite
def a_service(draw: st.DrawFn) -> Object:
    said = draw(some([{}, {}, {"trafficplane.dev/lb-algorithm": "lc"}, {"trafficplane.dev/slow-start": "5s"}]))
    outside = {"type": "ExternalName", "externalName": "elsewhere.com"} if draw(st.integers(0, 7)) == 0 else {}
    return service(draw(some(NAMES)), annotations=said, port_name=draw(some(["", "http"])), **outside)


@st.composite
def a_slice(draw: st.DrawFn) -> Object:
    rows = draw(st.lists(st.tuples(st.integers(2, 6), maybe), max_size=3, unique_by=lambda row: row[0]))
    endpoints = [endpoint(f"127.244.1.{host}", ready=ready) for host, ready in rows]
    made = slice_of(draw(some(NAMES)), *endpoints, port_name=draw(some(["", "http"])))
    weight = {"service.cilium.io/weight": draw(some(["1", "3"]))}
    return {**made, "metadata": {**made["metadata"], "annotations": weight}}


def steps(*, wide: bool) -> st.SearchStrategy[Any]:
    put = st.one_of(an_ingress(wide=wide), an_ingress(wide=wide), a_service(), a_slice())
    chains = [secret("cert", b"one", b"key"), secret("cert", b"two", b"key"), secret("other", b"three", b"key")]
    put = st.one_of(put, put, some([*chains, USERS, OTHER_USERS]))
    return st.lists(st.tuples(st.lists(put, max_size=3), st.lists(st.integers(0, 30), max_size=2)), max_size=8)


OTHER_USERS: Object = {**USERS, "data": {"auth": "Yjp4"}}
ALWAYS = (secret("cert", b"chain", b"key"), *(service(name) for name in NAMES))


def followed(changes: list[tuple[list[Object], list[int]]]) -> list[Snapshot]:
    """The Snapshots that changes lead to; ids of endpoints stay, and are given again."""
    snapshot = Snapshot(1).changed(ALWAYS)
    snapshots = [snapshot]
    for generation, (put, places) in enumerate(changes, start=2):
        kinds = ("Ingress", "Service", "EndpointSlice", "Secret")
        keys = [key_of(each) for kind in kinds for each in snapshot.all(kind)]
        drop: list[Key] = [keys[place] for place in places if place < len(keys)]
        snapshot = snapshot.changed(put, drop)
        there = {key for each in snapshot.all("EndpointSlice") for key in endpoint_keys(each)}
        kept = {key: number for key, number in snapshot.backends.items() if key in there}
        free = (number for number in range(1, 99) if number not in kept.values())
        ids = kept | dict(zip(sorted(there - kept.keys()), list(free), strict=False))
        snapshot = replace(snapshot, generation=generation, backends=Rows(ids))
        snapshots.append(snapshot)
    return snapshots


def led(table: routes.Routes, match: Match) -> tuple[Any, ...]:
    """What a match says, whatever the numbers of rows are."""
    canary = table.policies.canaries[match.canary]
    return (
        str(table.services[table.targets[match.target]["service"]]),
        ends(table, match.target),
        str(table.origins[match.origin]),
        routes.RouteNames(table)[match.origin],
        replace(table.policy(match.policy), fallback=0, errors_target=0),
        [ends(table, int(table.policies.policies[match.policy][name])) for name in ("fallback", "errors_target")],
        table.canary(match.canary),
        ends(table, int(canary["target"])),
        str(table.origins[canary["origin"]]),
    )


def ends(table: routes.Routes, target: int) -> tuple[Any, ...]:
    row = table.targets[target]
    numbers = table.endpoints[int(row["first_endpoint"]) :][: int(row["endpoints"])].tolist()
    rest = row["algorithm"], row["slow_start_s"], table.externals.get(target)
    return [(number, table.backends[number].item()) for number in numbers], *rest


def without_rows(text: str) -> str:
    """A dump without the numbers of targets that it names."""
    return re.sub(r"(fallback|errors_target)=\d+", r"\1", text)


def check(changes: list[tuple[list[Object], list[int]]]) -> int:
    """How many of the changes were followed, and did not have everything made anew."""
    index, compiler, fast = EndpointIndex(), routecompiler.Compiler(), fastroutes.Compiler()
    router: Router | None = None
    before: routes.Routes | None = None
    kept = 0
    for snapshot in followed(changes):
        known = compiler._table
        table, anew = compiler.compile(snapshot, index, index.follow(snapshot)), routecompiler.compile(snapshot)
        kept += compiler._table is known
        assert without_rows(routes.dump(table)) == without_rows(routes.dump(anew))
        assert sorted(table.certificates) == sorted(anew.certificates)
        router = Router(table, router, routes.difference(before, table) if before else None)
        slow = Router(anew)
        roads, whole, other = fast.compile(table), fastroutes.compile(table), fastroutes.compile(anew)
        assert all(np.array_equal(one, two) for one, two in zip(roads, whole, strict=True))
        for host in ASKED_HOSTS:
            for asked in ASKED_PATHS:
                one, two = router.match(host, asked), slow.match(host, asked)
                assert led(table, one) == led(anew, two)
                code, new = code_of(roads, host, asked), code_of(other, host, asked)
                assert (code < 0) == (new < 0)
                if code >= 0:
                    assert int(roads.roads[code]["goal"]) == one.target
                    assert int(other.roads[new]["goal"]) == two.target
        if before is not None:
            check_patch(before, table)
        before = table
    return kept


def test_a_patch_is_as_small_as_what_it_changes() -> None:
    """So one that makes most of it anew is not handed over; and of certificates no other is in it than the renewed."""
    hosts = [ingress(f"i{n}", rule(f"h{n}.com", prefix("/", "s0")), tls=[tls(n)]) for n in range(50)]
    secrets = [secret(f"cert{number}", b"chain", b"key") for number in range(50)]
    snapshots = followed([(hosts[:1], []), ([*hosts, *secrets], []), ([secret("cert0", b"renewed", b"key")], [])])
    index, compiler = EndpointIndex(), routecompiler.Compiler()
    tables = [compiler.compile(each, index, index.follow(each)) for each in snapshots[1:]]
    large, small = map(routepatches.between, tables, tables[1:])
    assert not routepatches.is_small(large, tables[1])
    assert routepatches.is_small(small, tables[2])
    assert small.routes["certificates"].numbers.tolist() == [0]
    assert "key" not in repr(small)


def tls(number: int) -> Object:
    return {"hosts": [f"h{number}.com"], "secretName": f"cert{number}"}


def check_patch(before: routes.Routes, table: routes.Routes) -> None:
    """By a patch that has travelled an ingress has what its control plane has, and of what stayed the same objects."""
    made = routepatches.between(before, table)
    check_same(made, routepatches.between(before, replace(table, edits=None)))
    patch = pickle.loads(pickle.dumps(made))
    found = routepatches.patched(before, patch)
    check_same(routes.difference(before, found), routes.difference(before, replace(found, edits=None)))
    assert found.generation == table.generation
    assert routes.equal(found, table)
    for name in ("origins", "services", "text", "paths"):
        if getattr(before, name) is getattr(table, name):
            assert getattr(found, name) is getattr(before, name)
    with pytest.raises(ValueError, match=f"for no Routes of {table.generation}"):
        routepatches.patched(table, patch)


def check_same(one: Any, other: Any) -> None:
    """Whether what is found by edits is what is found by comparing."""
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), [other[name] for name in one]
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        assert len(one) == len(other)
        for each, its in zip(one, other, strict=True):
            check_same(each, its)
    elif isinstance(one, np.ndarray):
        assert one.tolist() == other.tolist()
    else:
        assert one == other


def test_edits_are_known_from_change_to_change_whatever_else_is_compiled_between() -> None:
    def web(number: int, **status: Any) -> Object:
        return {**ingress(f"i{number}", rule(f"h{number}.com", prefix("/", "s0"))), **status}

    said = {"status": {"loadBalancer": {"ingress": [{"ip": "127.200.0.1"}]}}}
    compiler = Compiler()
    tables = [
        compiler.compile(each)[2]
        for each in followed([([web(1)], []), ([web(1, **said)], []), ([web(2)], []), ([], [1]), ([web(3)], [])])
    ]
    assert tables[2] is tables[1]
    given = [tables[place] for place in (0, 1, 3, 4, 5)]
    for before, table in itertools.pairwise(given):
        assert table.edits is not None
        assert table.edits.before == before.generation
        check_patch(before, table)
    patch = routepatches.between(given[1], given[2])
    assert {name: len(rows.numbers) for name, rows in patch.routes.items() if name != "text"} == {
        "hosts": 1,
        "paths": 1,
        "origins": 1,
    }
    check_patch(given[1], given[3])  # the edits are of others: tables are compared


@settings(max_examples=20, deadline=None)
@given(steps(wide=False))
def test_what_is_said_of_plain_hosts_is_followed(changes: list[tuple[list[Object], list[int]]]) -> None:
    check(changes)


@pytest.mark.soak
@settings(max_examples=1000, deadline=None)
@given(st.booleans().flatmap(lambda wide: steps(wide=wide)))
def test_whatever_changes_often(changes: list[tuple[list[Object], list[int]]]) -> None:
    check(changes)


@settings(max_examples=20, deadline=None)
@given(steps(wide=True))
def test_whatever_changes_it_is_as_if_made_anew(changes: list[tuple[list[Object], list[int]]]) -> None:
    check(changes)


@settings(max_examples=20, deadline=None)
@given(steps(wide=True))
def test_a_table_that_replaces_another_is_as_one_made_anew(changes: list[tuple[list[Object], list[int]]]) -> None:
    asyncio.run(compare_tables(changes))


async def compare_tables(changes: list[tuple[list[Object], list[int]]]) -> None:
    index, compiler, pool = EndpointIndex(), routecompiler.Compiler(), Pool(Timeouts())
    hosts = Hosts(Resolver(servers=(), timeout_s=1), [], lambda _, port: port)
    context: dict[str, Any] = {"limits": Limits(), "hashing": Hashing(), "asking": None, "mirrors": None}
    before: Table | None = None
    for snapshot in followed(changes):
        found = compiler.compile(snapshot, index, index.follow(snapshot))
        table, anew = (Table(found, pool, hosts, None, each, https_port=443, **context) for each in (before, None))
        assert table.addresses == anew.addresses
        assert [rules.policies for rules in table.rules] == [rules.policies for rules in anew.rules]
        assert list(map(shown, table.targets)) == list(map(shown, anew.targets))
        assert table.canaries == anew.canaries
        assert table.whens == anew.whens
        before = table
    hosts.close()
    pool.close()


def shown(target: Target) -> tuple[Any, ...]:
    backends = [(each.endpoint.address, each.number, each.weight) for each in target.backends]
    return target.service, target.algorithm, target.status, target.watched, backends


def test_a_route_more_is_followed_and_shares_the_rest() -> None:
    """So that the tests above are about something: nothing begins anew for what names hosts, or concerns who does."""
    first = [ingress(f"i{number}", rule(f"h{number}.com", prefix("/", "s0"))) for number in range(50)]
    slices = [slice_of(name, endpoint("127.244.1.2"), endpoint("127.244.1.3")) for name in NAMES]
    added = ingress("new", rule("new.com", prefix("/", "s1"), exact("/a", "s2")))
    canary = named(canary="true", canary_weight="5")
    changes: list[tuple[list[Object], list[int]]] = [
        ([*first, *slices], []),
        ([added], []),
        ([ingress("canary", rule("new.com", exact("/a", "s0")), annotations=canary)], []),
        ([slice_of("s1", endpoint("127.244.1.9"))], []),
        ([ingress("new", rule("new.com", prefix("/b", "s1")), tls=[{"hosts": ["new.com"], "secretName": "cert"}])], []),
        ([service("s2", annotations={"trafficplane.dev/lb-algorithm": "lc"})], []),
        ([secret("cert", b"renewed", b"key")], []),
        ([ingress("wide", rule("*.com", prefix("/", "s1")), tls=[{"hosts": ["*.com"], "secretName": "cert"}])], []),
        ([ingress("guarded", rule("a.com", prefix("/", "s1")), annotations=named(**BASIC)), USERS], []),
        ([OTHER_USERS], []),
        ([], [0]),
        ([], [0]),
    ]
    assert check(changes) == len(changes)
    index, compiler = EndpointIndex(), routecompiler.Compiler()
    tables = [compiler.compile(each, index, index.follow(each)) for each in followed(changes)]
    differs = routes.difference(tables[1], tables[2])
    assert differs is not None
    assert (differs.hosts.sum(), differs.targets.sum(), differs.backends.sum()) == (1, 2, 0)


def test_what_is_for_any_host_stays_when_its_service_changes() -> None:
    default = ingress("any", rule("a.com"), default="s0", ingressClassName="traefik")
    check([([default], []), ([service("s0", annotations={"trafficplane.dev/lb-algorithm": "lc"})], [])])


def test_a_rule_of_a_wildcard_that_comes_later_has_the_name_of_its_own_host() -> None:
    one = ingress("one", rule("a.com", exact("/a", "s0")), ingressClassName="kong")
    wide = ingress("wide", rule("*.com", exact("/", "s1")), ingressClassName="kong")
    check([([one], []), ([wide], [])])


def test_nothing_stays_of_ingresses_and_secrets_that_have_gone() -> None:
    def one(number: int) -> Object:
        host = f"h{number}.com"
        return ingress("i", rule(host, prefix("/", "s0")), tls=[{"hosts": [host], "secretName": f"c{number}"}])

    index, compiler = EndpointIndex(), routecompiler.Compiler()
    for each in followed([([one(number)], []) for number in range(20)]):
        compiler.compile(each, index, index.follow(each))
    table = compiler._table
    assert table is not None
    assert (len(table._naming), len(table._certified)) == (1, 1)


def test_rows_that_were_dropped_are_given_again_and_versions_stay_as_they_are() -> None:
    rows = Growing(np.dtype([("one", "u4"), ("two", "u4")]), [(0, 0)])
    first = rows.put([(1, 2), (3, 4)])
    before = rows.version()
    assert rows.version() is before
    rows[first] = (1, 2)
    assert rows.version() is before
    assert rows.edited.tolist() == []
    rows.drop(first, 2)
    assert rows.version().tolist() == [(0, 0)] * 3
    assert rows.edited.tolist() == [1, 2]
    assert rows.put([(5, 6)]) == 3
    assert rows.put([(7, 8), (9, 9)]) == first
    rows.shorten()
    assert rows.version().tolist() == [(0, 0), (7, 8), (9, 9)]
    rows[4] = (1, 1)
    assert rows.version().tolist() == [(0, 0), (7, 8), (9, 9), (0, 0), (1, 1)]
    assert before.tolist() == [(0, 0), (1, 2), (3, 4)]
