"""routecompiler.compile and the Router: what Ingresses mean, in tables."""

import base64
import pickle
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.layout import CANARY, POLICY, READY
from plane import routecompiler, routes
from plane.model import Snapshot
from plane.policies import RANGED, Canary, Packer, Policies, Range
from plane.requestpath import host_of, normalised
from plane.router import Match, Router
from tests.ingress.corpus import CORPUS, NAMES, Row, services
from tests.ingress.manifests import (
    endpoint,
    exact,
    ingress,
    prefix,
    rule,
    secret,
    service,
    slice_of,
    snapshot_of,
    web,
)

ADDRESSES = {name: f"127.244.1.{number}" for number, name in enumerate(NAMES, start=2)}
BASE = services(8080, ADDRESSES)
POD = ("127.244.1.2", 8080)


def target_of(table: routes.Routes, host: str, path: str) -> str | int:
    """Name of the Service a request goes to, else the status it gets."""
    match = Router(table).match(host, path.partition("#")[0].partition("?")[0])
    target = table.targets[match.target]
    if not match.target:
        return 404
    return (
        table.services[target["service"]].service.rpartition("/")[2] if target["endpoints"] else int(target["status"])
    )


@pytest.mark.parametrize("row", CORPUS, ids=[row.description for row in CORPUS])
def test_corpus_by_router(row: Row) -> None:
    table = routecompiler.compile(snapshot_of(*BASE, *row.objects))
    assert target_of(table, row.host, row.path) == row.expected


def test_dump_of_a_small_plane_reads_as_expected() -> None:
    table = routecompiler.compile(
        snapshot_of(
            service("web"),
            service("api"),
            slice_of("web", endpoint("127.244.1.2"), endpoint("127.244.1.3"), endpoint("127.244.1.4", ready=False)),
            secret("cert", b"chain", b"key"),
            ingress(
                "shop",
                rule(
                    "shop.com", prefix("/", "web"), exact("/buy", "api"), prefix("/api/", "api"), prefix("/api", "web")
                ),
                rule("*.shop.com", prefix("/", "web")),
                default="web",
                tls=[{"hosts": ["Shop.com"], "secretName": "cert"}],
            ),
        )
    )
    assert routes.dump(table) == (
        "no host\n"
        "  default -> default/web:80 (default/shop default backend)\n"
        "host *.shop.com\n"
        "  Prefix / -> default/web:80 (default/shop rule 1 path 0) [https]\n"
        "  default -> default/web:80 (default/shop default backend) [https]\n"
        "host shop.com\n"
        "  Exact /buy -> default/api:80 (default/shop rule 0 path 1) [https]\n"
        "  Prefix /api/ -> default/api:80 (default/shop rule 0 path 2) [https]\n"
        "  Prefix /api -> default/web:80 (default/shop rule 0 path 3) [https]\n"
        "  Prefix / -> default/web:80 (default/shop rule 0 path 0) [https]\n"
        "  default -> default/web:80 (default/shop default backend) [https]\n"
        "target default/api:80 rr\n"
        "target default/web:80 rr\n"
        "  -> 1 127.244.1.2:8080\n"
        "  -> 2 127.244.1.3:8080\n"
        "certificate shop.com 9414886b1ebf025d\n"
    )
    assert routes.names(table) == [
        "",
        "default/shop default backend",
        "default/shop shop.com /",
        "default/shop shop.com /buy",
        "default/shop shop.com /api/",
        "default/shop shop.com /api",
        "default/shop *.shop.com /",
    ]


def test_an_empty_snapshot_compiles_to_tables_that_find_nothing() -> None:
    table = routecompiler.compile(Snapshot(7))
    assert table.generation == 7
    assert routes.dump(table) == ""
    assert Router(table).match("example.com", "/") == Match(0, 0)


def test_every_table_is_read_only_and_leaves_a_pickle_out_of_band() -> None:
    table = routecompiler.compile(web(POD))
    arrays = [value for value in (*vars(table).values(), *table.policies) if isinstance(value, np.ndarray)]
    assert len(arrays) == 11
    assert not any(array.flags.writeable for array in arrays)
    buffers: list[pickle.PickleBuffer] = []
    packed = pickle.dumps(table, protocol=5, buffer_callback=buffers.append)
    assert len(buffers) == len(arrays)
    assert routes.equal(pickle.loads(packed, buffers=buffers), table)


def test_equal_sees_a_change_of_endpoints_and_none_of_generation() -> None:
    table = routecompiler.compile(web(POD))
    assert routes.equal(table, routecompiler.compile(web(POD, generation=2)))
    assert not routes.equal(table, routecompiler.compile(web(("127.244.1.3", 8080))))


ENDPOINTS = {
    "only those that are ready": ([endpoint("127.244.1.2"), endpoint("127.244.1.3", ready=False)], ["127.244.1.2"]),
    "none that terminates while others are ready": (
        [endpoint("127.244.1.2"), endpoint("127.244.1.3", ready=False, serving=True, terminating=True)],
        ["127.244.1.2"],
    ),
    "those that terminate if all do": (
        [endpoint("127.244.1.3", ready=False, serving=True, terminating=True)],
        ["127.244.1.3"],
    ),
    "no IPv6": ([endpoint("fd00::1"), endpoint("127.244.1.2")], ["127.244.1.2"]),
}


@pytest.mark.parametrize(("rows", "expected"), ENDPOINTS.values(), ids=ENDPOINTS.keys())
def test_requests_go_to(rows: list, expected: list[str]) -> None:
    table = routecompiler.compile(
        snapshot_of(service("web"), slice_of("web", *rows), ingress("web", rule("", prefix("/", "web"))))
    )
    used = table.backends[table.endpoints]
    assert [f"127.244.1.{ip & 255}" for ip in used["ip"]] == expected
    assert all(used["state"] == READY)


def test_rules_for_one_port_share_a_target_however_they_name_it() -> None:
    by_name_and_number = ingress("web", rule("", prefix("/a", "web", "http"), prefix("/b", "web", 80)))
    table = routecompiler.compile(snapshot_of(*BASE, by_name_and_number))
    assert table.services == (routes.Port("", 0), routes.Port("default/web", 80))


def test_certificates_are_for_the_hosts_of_spec_tls_or_those_of_the_rules() -> None:
    def tls(name: str, *hosts: str, secret_name: str = "good") -> dict:
        row = {"secretName": secret_name, **({"hosts": list(hosts)} if hosts else {})}
        return ingress(name, rule(f"{name}.com", prefix("/", "web")), tls=[row])

    broken = {**secret("broken", b"", b""), "data": {"tls.crt": "%%%", "tls.key": "a2V5"}}
    table = routecompiler.compile(
        snapshot_of(
            tls("a", "A.com", "*.a.com"),
            tls("b"),
            tls("c", secret_name="broken"),
            tls("d", secret_name="missing"),
            secret("good", b"chain", b"key"),
            broken,
        )
    )
    assert table.certificates == tuple(
        routes.Certificate(host, b"chain", b"key") for host in ("a.com", "*.a.com", "b.com")
    )
    assert "b'chain'" not in repr(table)


SEGMENT = st.sampled_from(["a", "b", "aa", "a.b"])
PATHS = st.lists(SEGMENT, max_size=3).map(lambda parts: "/" + "/".join(parts))


@given(rules=st.lists(st.tuples(st.booleans(), PATHS, st.booleans()), max_size=8), asked=PATHS, slash=st.booleans())
def test_router_finds_what_a_look_at_every_rule_finds(
    rules: list[tuple[bool, str, bool]], asked: str, slash: bool
) -> None:
    """The slow twin reads KEP-1453 rule by rule: each rule leads to a Service of its own."""
    asked += "/" if slash and asked != "/" else ""
    paths, wanted = [], []
    for number, (is_exact, text, with_slash) in enumerate(rules):
        text += "/" if with_slash and text != "/" else ""
        paths.append((exact if is_exact else prefix)(text, f"s{number}"))
        elements, asked_elements = [[part for part in row.split("/") if part] for row in (text, asked)]
        if asked == text if is_exact else asked_elements[: len(elements)] == elements:
            wanted.append((not is_exact, -len(elements), not text.endswith("/"), number))
    snapshot = snapshot_of(ingress("web", rule("", *paths))) if paths else Snapshot()
    table = routecompiler.compile(snapshot)
    match = Router(table).match("x", asked)
    found = table.services[table.targets[match.target]["service"]].service
    assert found == (f"default/s{min(wanted)[-1]}" if wanted else "")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("/a/./b/../c/", "/a/c/"),
        ("/..", "/"),
        ("/a/..", "/"),
        ("/a/b/..", "/a/"),
        ("//", "/"),
        ("/%41%2f%2e%2e/", "/A%2F../"),
        ("/%zz%", "/%zz%"),
        ("/ü", "/%C3%BC"),
        ("/\udcff", "/%FF"),
        ("/...", "/..."),
    ],
)
def test_normalised(path: str, expected: str) -> None:
    assert normalised(path) == expected
    assert normalised(expected) == expected


@given(st.text("/.%2eEaf", max_size=12))
def test_a_normal_path_is_normal_and_has_no_way_up(text: str) -> None:
    path = normalised("/" + text)
    assert path.startswith("/")
    assert "//" not in path
    assert not {".", ".."} & set(path.split("/"))


@pytest.mark.parametrize(
    ("header", "host"),
    [("A.com:80", "a.com"), ("a.com.", "a.com"), ("[::1]:80", "[::1]"), ("", ""), (":80", ""), (" a.com ", "a.com")],
)
def test_host_of(header: str, host: str) -> None:
    assert host_of(header) == host


def test_made_up_hosts_do_not_pile_up_in_the_router() -> None:
    router = Router(routecompiler.compile(web(POD)))
    for number in range(3 * Router.SEEN):
        assert router.match(f"{number}.com", "/") == Match(0, 0)
    assert len(router._seen) <= Router.SEEN
    assert router.match("example.com", "/").target


NETWORKS = st.lists(st.builds(Range, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)), max_size=3).map(tuple)


def column(name: str) -> st.SearchStrategy:
    """Values of a field of Policies that fit its column."""
    default = getattr(Policies(), name)
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int):
        return st.integers(0, 2**16 - 1)
    if isinstance(default, str):
        return st.text(max_size=5)
    return NETWORKS if name in RANGED else st.lists(st.text(max_size=5), max_size=3).map(tuple)


POLICIES = st.builds(Policies, **{row.name: column(row.name) for row in fields(Policies)})


@settings(max_examples=30)  # each draws hundreds of columns
@given(policies=st.lists(POLICIES, max_size=4), canary=st.builds(Canary, header=st.text(max_size=5)))
def test_policies_come_out_of_their_tables_as_they_went_in(policies: list[Policies], canary: Canary) -> None:
    text = bytearray()

    def add(string: str) -> tuple[int, int]:
        text.extend(string.encode())
        return len(text) - len(string.encode()), len(string.encode())

    packer = Packer(add)
    rows = [packer.policy(each) for each in policies]
    row = packer.canary(canary, 7, 8)
    tables, blob = packer.tables(), np.frombuffer(bytes(text), np.uint8)
    assert [tables.policy(number, blob) for number in (0, *rows)] == [Policies(), *policies]
    assert tables.canary(row, blob) == canary
    assert (tables.canaries[row]["target"], tables.canaries[row]["origin"]) == (7, 8)
    assert rows == [packer.policy(each) for each in policies]


def test_a_column_for_each_field_of_policies_and_no_other() -> None:
    assert POLICY.names == tuple(row.name for row in fields(Policies))
    assert CANARY.names == ("target", "origin", *(row.name for row in fields(Canary)))


def test_equal_sees_a_change_of_policies() -> None:
    def compiled(**annotations: str) -> routes.Routes:
        return routecompiler.compile(
            web(POD, annotations={f"nginx.ingress.kubernetes.io/{k}": v for k, v in annotations.items()})
        )

    assert routes.equal(compiled(canary="false"), compiled())
    assert not routes.equal(compiled(app="1"), compiled(affinity="cookie"))
    assert "[cookie=INGRESSCOOKIE cookie_path=/]" in routes.dump(compiled(affinity="cookie"))


def test_passwords_are_in_no_dump() -> None:
    users = {**secret("users", b"", b""), "data": {"auth": base64.b64encode(b"ada:{SHA}hash").decode()}}
    said = {"auth-type": "basic", "auth-secret": "users"}
    made = web(POD, annotations={f"nginx.ingress.kubernetes.io/{name}": value for name, value in said.items()})
    table = routecompiler.compile(snapshot_of(*made.all("Ingress"), users))
    assert table.policy(1).auth_users == ("ada:{SHA}hash",)
    assert "SHA" not in routes.dump(table) + repr(table.policy(1)) + repr(table)


def test_default_backends_have_the_policies_of_their_own_ingress() -> None:
    made = [
        ingress(
            f"i{number}",
            rule(f"h{number}.com", prefix("/x", "web")),
            default="web",
            annotations={
                "nginx.ingress.kubernetes.io/limit-rps": str(number + 1),
                "nginx.ingress.kubernetes.io/force-ssl-redirect": "true",
            },
        )
        for number in range(50)
    ]
    table = routecompiler.compile(snapshot_of(*BASE, *made))
    router = Router(table)
    for number in range(50):
        for path in ("/x", "/y"):
            policies = table.policy(router.match(f"h{number}.com", path).policy)
            assert (policies.limit_rps, policies.https) == (number + 1, True)
    unknown = table.policy(router.match("other.org", "/").policy)
    assert (unknown.limit_rps, unknown.https) == (1, False)
