"""Compiled routes say what the Router, Conduct and Target say, or they punt."""

import asyncio
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.layout import POLICY, freeze
from kernels.layout_http import GOES_ON, HEAD, LINE, REASONS
from kernels.layout_routes import FIRST_PUNT, PUNT_WORDS, PUNTS, ROAD
from kernels.net import decisions, hostpath, limits
from plane import fastroutes, routecompiler, routes
from plane.addresses import int_to_ip
from plane.affinity import backend_key, endpoint_of, held, new_key, set_cookie
from plane.conduct import Conduct
from plane.ingress.forwarding import without
from plane.ingress.table import Backend, Target
from plane.ingress.upstream import Endpoint
from plane.model import Snapshot
from plane.policies import NONE, Policies, Range, condition_bits
from plane.router import Match, Router
from tests.ingress import kong, policies, traefik
from tests.ingress.corpus import CORPUS, NAMES, services
from tests.ingress.manifests import exact, ingress, prefix, rule, service, slices, snapshot_of, web
from tests.ingress.policies import with_
from tests.plane import tables
from tests.plane.fast import (
    NOW_NS,
    Asked,
    found,
    multiplied,
    picked,
    received,
    said,
    slow,
    stuck,
    turns,
    with_policies,
)
from tests.plane.test_matching import ASKED, SERVICES, an_ingress

BASE = services(8080, {name: f"127.244.1.{number}" for number, name in enumerate(NAMES, start=2)})
AT = [f"127.244.1.{number}:8080" for number in range(2, 6)]
PODS = [(f"127.244.1.{number}", 8080) for number in range(2, 6)]
ROWS = [row for table in (policies.ROWS, traefik.ROWS, kong.ROWS) for row in table]


def match_of(roads: Any, row: int) -> Match:
    road = roads.roads[row]
    return Match(*(int(road[name]) for name in ("goal", "origin", "rule", "fork")))


def test_the_corpus_is_found_as_the_router_finds_it() -> None:
    punted = 0
    for row in CORPUS:
        table = routecompiler.compile(snapshot_of(*BASE, *row.objects))
        path = row.path.partition("?")[0]
        roads = fastroutes.compile(table)
        code = found(roads, row.host, path)
        punted += code < 0
        if code >= 0:
            assert match_of(roads, code) == Router(table).match(row.host, path)._replace(when=0), row.description
            fast = said(roads, Asked(row.host, row.path))
            assert fast.punt or fast == slow(table, Asked(row.host, row.path)), row.description
    assert punted < len(CORPUS) / 2


@settings(max_examples=100, deadline=None)
@given(st.tuples(*(an_ingress(number) for number in range(4))), st.sampled_from(ASKED))
def test_a_path_is_found_as_the_router_finds_it_whatever_conditions_are_met(
    ingresses: tuple[dict, ...], asked: str
) -> None:
    table = routecompiler.compile(snapshot_of(*SERVICES, *ingresses))
    roads, router = fastroutes.compile(table), Router(table)
    for host in ("a.com", "b.com", "A.com:80", "b.b.com", "com"):
        code = found(roads, host, asked)
        if code >= 0:
            for conditions in range(8):
                match = router.match(host, asked, lambda row, bits=conditions: bool(bits >> (row % 3) & 1))
                assert match_of(roads, code) == match._replace(when=0)
        else:
            assert any(table.paths["kind"] > 1) or any(table.paths["when"] > 0)


HOSTS = ["a.com", "*.com", "*.a.com", "", "c_d-1.com"]
RULED = routecompiler.compile(
    snapshot_of(
        *SERVICES,
        *(
            ingress(f"i{number}", rule(host, prefix("/", f"s{number}"), exact("/a.b", "s7"), prefix("/a/b", "s6")))
            for number, host in enumerate(HOSTS)
        ),
        ingress("last", rule("d.com"), default="s5"),
    )
)
ROADS = fastroutes.compile(RULED)


@settings(max_examples=400, deadline=None)
@given(
    st.one_of(st.sampled_from(["a.com", "x.a.com", "d.com", "A.COM:8080"]), st.text(".:aAcdmo_-1@[]", max_size=9)),
    st.text("/.%\\ab#?\x7f\x80", max_size=9).map(lambda text: "/" + text),
)
def test_what_is_odd_is_punted_and_all_else_found(host: str, path: str) -> None:
    code = found(ROADS, host, path)
    if code >= 0:
        assert match_of(ROADS, code) == RULED_ROUTER.match(host, path)
        assert not RULED_ROUTER.unclear(host, path)
    else:
        assert PUNTS[-code - FIRST_PUNT] in ("Host is not a plain name", "the path is not in its normal form")


RULED_ROUTER = Router(RULED)


def test_plain_hosts_and_paths_are_not_odd() -> None:
    plain = [
        ("a.com", "/"),
        ("10.0.0.1:80", "/a/b/"),
        ("A.com:", "/a.b"),
        ("d.com", "/.well-known/x"),
        ("x", "/..a/.b"),
    ]
    assert all(found(ROADS, host, path) >= 0 for host, path in plain)
    odd = [("a.com.", "/"), ("[::1]", "/"), ("", "/"), ("a.com", "//"), ("a.com", "/."), ("a.com", "/a/.."), ("a", "")]
    assert all(found(ROADS, host, path) < 0 for host, path in odd)


def test_a_path_outside_its_buffer_is_never_read() -> None:
    data = received(b"a.com/")
    for host, host_size, path, path_size in ((0, 9, 5, 1), (-1, 5, 5, 1), (0, 5, 5, 2), (0, 5, 6, 1), (0, 5, -1, 1)):
        assert hostpath.find(ROADS, data, host, host_size, path, path_size) < 0


def test_ten_thousand_hosts_are_each_found() -> None:
    base = routecompiler.compile(snapshot_of(*SERVICES, ingress("a", rule("a.com", prefix("/x", "s0")))))
    names = [f"h{number}.example" for number in range(10_000)]
    table = multiplied(base, names)
    roads = fastroutes.compile(table)
    asked = range(0, len(names), 37)
    assert [found(roads, names[number], "/x/y") for number in asked] == [number + 1 for number in asked]
    assert found(roads, "h10000.example", "/x") == 0


@pytest.mark.parametrize("row", ROWS, ids=[row.description for row in ROWS])
def test_a_row_of_the_policies_is_done_as_it_is_wanted_or_punted(row: policies.Row) -> None:
    table, parts = routecompiler.compile(snapshot_of(*BASE, *row.objects)), urlsplit(row.url)
    uri = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    length = int(row.headers.get("Content-Length", "0"))
    secure, headers = parts.scheme == "https", tuple(row.headers.items())
    asked = Asked(parts.netloc, uri, secure, row.method, length=length, fields=headers)
    fast = said(fastroutes.compile(table), asked)
    if not fast.punt:
        got = int(fast.answer.split()[1]) if fast.answer else 200
        assert got == row.want.status
        slowly = slow(table, asked)
        assert fast.answer == slowly.answer
        if not fast.answer:
            assert routes_service(table, fast.goal) == row.want.service
            assert (fast.target, fast.fields) == (slowly.target, slowly.fields)


def routes_service(table: routes.Routes, target: int) -> str:
    return table.services[int(table.targets[target]["service"])].service.partition("/")[2]


def test_most_of_what_is_common_is_not_punted() -> None:
    """So that the test above is about something."""
    kinds = [
        {"ssl_redirect": "true", "force_ssl_redirect": "true"},
        {"permanent_redirect": "https://b.com"},
        {"upstream_vhost": "b.com"},
        {"whitelist_source_range": "10.0.0.0/8"},
        {"denylist_source_range": "10.0.0.0/8"},
        {"proxy_body_size": "8m", "proxy_read_timeout": "7", "proxy_next_upstream_tries": "2"},
        {"custom_headers": "default/answers"},
        {"app_root": "/app"},
        {"limit_rps": "5", "limit_rpm": "100", "limit_connections": "7", "limit_whitelist": "10.0.0.0/8"},
        {"rewrite_target": "/new"},
        {"enable_cors": "true"},
        {"enable_cors": "true", "cors_allow_origin": "https://*.foo.com"},
    ]
    for kind in kinds:
        table = routecompiler.compile(snapshot_of(*BASE, with_(prefix("/", "web"), **kind)))
        assert not said(fastroutes.compile(table), Asked("example.com")).punt, kind


# Expressions of the plain kind, and the last few of another.
EXPRESSIONS = [
    "/a(/|$)(.*)",
    "/a(/|$)",
    "/(.*)",
    "/A/?(.*)",
    "^/a",
    "/",
    r"^(?-i:\/a)(/.*|)$",
    r"^(?-i:\/a\.b)/?(.*)$",
    "^(/.*)$",
    "/(a)(.*)",
    "/a$",
    "/a.b",
]
ORIGINS = [
    ("Origin", "https://x.foo.com"),
    ("origin", "HTTP://bar.org:8080"),
    ("Origin", "https://.foo.com"),
    ("Origin", "https://x.y.foo.com"),
    ("Origin", "https://é.foo.com"),
    ("ORIGIN", "null"),
    ("Origins", "null"),
]

RANGES = st.lists(st.sampled_from([Range(0x7F000001, 0xFFFFFFFF), Range(0x0A000000, 0xFF000000)]), max_size=2).map(
    tuple
)
PLAIN = routecompiler.compile(web(*PODS))


@settings(max_examples=300, deadline=None)
@given(
    st.builds(
        Policies,
        denied=st.sampled_from(["", "", "", "there is no Secret"]),
        body_limit=st.sampled_from([0, 5]),
        redirect=st.sampled_from(
            ["", "", "https://b.com", "$scheme://$http_host/x", "http://$host$request_uri?a=$x", "//$host$trimmed_uri"]
        ),
        redirect_status=st.sampled_from([301, 308]),
        https=st.booleans(),
        https_status=st.sampled_from([0, 301, 426]),
        keep_slash=st.booleans(),
        hsts_max_age_s=st.sampled_from([0, 60]),
        sources_denied=RANGES,
        sources_allowed=RANGES,
        fields=st.sampled_from([(), ("X-A: b",), ("Content-Type: text/x", "Server: x"), ("Location: /", "X-A: é")]),
        cors=st.booleans(),
        cors_credentials=st.booleans(),
        cors_origins=st.sampled_from([("*",), ("https://*.Foo.com", "http://bar.org:8080"), ("null",)]),
        cors_methods=st.sampled_from(["GET", "PUT, GET"]),
        cors_expose=st.sampled_from(["", "X-Three"]),
        rewrite_from=st.sampled_from(["", "", *EXPRESSIONS]),
        rewrite_to=st.sampled_from(["/$2", "$1", "", "/new", "/b/$1$2$3x$y$", "x$10"]),
    ),
    st.builds(
        Asked,
        st.sampled_from(["Example.com", "example.com:80", "EXAMPLE.com:8080"]),
        st.sampled_from(["/", "/a/", "/a?b=/", "/a/?", "/?x", "/A", "/a/b/c?d", "/ab", "/a.b", "/b/a"]),
        st.booleans(),
        st.sampled_from(["GET", "HEAD", "OPTIONS"]),
        client=st.sampled_from([0x7F000001, 0x0A000001, 0x01020304]),
        length=st.sampled_from([-1, 0, 5, 6]),
        https_port=st.sampled_from([0, 443, 8443]),
        fields=st.lists(st.sampled_from(ORIGINS), max_size=2).map(tuple),
    ),
    st.booleans(),
)
def test_policies_are_done_byte_for_byte_or_punted(asks: Policies, asked: Asked, keep_alive: bool) -> None:
    table = with_policies(PLAIN, asks)
    fast = said(fastroutes.compile(table), asked, keep_alive=keep_alive)
    if fast.punt:
        over = asks.body_limit and not 0 <= asked.length <= asks.body_limit
        worded = (asks.redirect or asks.https) and any(line.startswith("Location") for line in asks.fields)
        named = [value for name, value in asked.fields if name.lower() == "origin"]
        odd = (
            asks.cors and asks.cors_origins != ("*",) and (len(named) > 1 or any(not name.isascii() for name in named))
        )
        why = {"body": over, "fields": worded, "CORS": odd, "rewrites": asks.rewrite_from}
        assert any(there and word in fast.punt for word, there in why.items())
    else:
        assert fast == slow(table, asked, keep_alive=keep_alive)


def test_what_answers_get_besides_stands_in_words() -> None:
    asks = Policies(fields=("X-A: b", "X-C: d"), hsts_max_age_s=60)
    roads = fastroutes.compile(with_policies(PLAIN, asks))
    rule_row = roads.rules[1]
    plain, secure = (
        roads.words[int(each["offset"]) :][: int(each["length"])].tobytes()
        for each in (rule_row["fields"], rule_row["secure_fields"])
    )
    assert plain == b"X-A: b\r\nX-C: d\r\n"
    assert secure == b"Strict-Transport-Security: max-age=60; includeSubDomains\r\n" + plain
    names = roads.names[int(rule_row["replaced"]["first"]) :][: int(rule_row["replaced"]["count"])]
    found_names = {roads.words[int(at) :][: int(size)].tobytes() for at, size in names.tolist()}
    assert found_names == {b"x-a", b"x-c", b"strict-transport-security"}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["X-A: 1", "x-a: 2", "X-AB: 3", "TE: trailers", "X: 4", "Server: nginx"]), max_size=6),
    st.lists(st.sampled_from(["X-A: b", "SERVER: x", "TE: none", "X-Z: c"]), unique=True, max_size=3),
)
def test_fields_of_an_answer_give_way_to_those_of_the_route(lines: list[str], ours: list[str]) -> None:
    asks = Policies(fields=("X-Y: z", *ours))
    roads = fastroutes.compile(with_policies(PLAIN, asks))
    data = received("".join(("x", *lines)).encode())
    head, rows = np.zeros(1, HEAD), np.zeros(len(lines), LINE)
    head["start"], head["lines"] = 1, len(lines)
    for number, line in enumerate(lines):
        rows[number]["start"] = sum(map(len, lines[:number]))
        rows[number]["name_end"] = rows[number]["start"] + line.index(":")
    decisions.drop_replaced(roads, roads.rules[1], data, head[0], rows)
    kept = [line.encode() for line, row in zip(lines, rows, strict=True) if row["what"] == GOES_ON]
    assert kept == without([line.encode() for line in lines], Conduct(asks).replaced)


def canary(weight: int, **more: str) -> Snapshot:
    """A share of ``web`` goes to ``api``."""
    new = with_(prefix("/", "api"), name="new", canary="true", canary_weight=str(weight), **more)
    return snapshot_of(*BASE, with_(prefix("/", "web")), new)


@pytest.mark.parametrize("weight", [0, 1, 37, 100])
def test_a_canary_takes_its_weight_of_all_draws(weight: int) -> None:
    table = routecompiler.compile(canary(weight))
    roads = fastroutes.compile(table)
    draws = [(number << 64) // 100 + (1 << 63) // 100 for number in range(100)]
    got = [said(roads, Asked("example.com", draw=draw)) for draw in draws]
    assert sum(routes_service(table, each.goal) == "api" for each in got) == weight
    assert len({each.origin for each in got}) == 1 + (0 < weight < 100)


CONDITIONS: list[dict[str, str]] = [
    {"canary_by_header": "X-Canary"},
    {"canary_by_header": "X-Canary", "canary_by_header_value": "yes"},
    {"canary_by_cookie": "try"},
    {"canary_by_header": "X-Canary", "canary_by_cookie": "try"},
    {"canary_by_header": "X-Canary", "canary_by_header_pattern": "^yes$", "canary_by_cookie": "try"},
    {"canary_by_header": "X-Canary", "canary_by_header_pattern": "^yes"},
    {"canary_by_header": "X-Canary", "canary_by_header_pattern": "yes$"},
    {"canary_by_header": "X-Canary", "canary_by_header_pattern": "es"},
]
COOKIES = [
    "try=always",
    " a=b;\ttry=never ;try=always",
    'try="always"',
    "Try=always",
    "try",
    "try =always",
    "é=1; try=always",
]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(CONDITIONS),
    st.lists(
        st.one_of(
            st.tuples(
                st.sampled_from(["X-Canary", "x-canary"]),
                st.sampled_from(["always", "never", "yes", "", "eyes", "yess"]),
            ),
            st.tuples(st.sampled_from(["Cookie", "cookie"]), st.sampled_from(COOKIES)),
            st.just(("X-Other", "always")),
        ),
        max_size=3,
    ),
)
def test_a_canary_goes_by_header_and_cookie_or_is_punted(how: dict[str, str], lines: list[tuple[str, str]]) -> None:
    table = routecompiler.compile(canary(0, **how))
    asked = Asked("example.com", fields=tuple(lines))
    fast = said(fastroutes.compile(table), asked)
    if fast.punt:
        twice = sum(name.lower() == "x-canary" for name, _ in lines) > 1
        assert twice or any(not value.isascii() for _, value in lines)
    else:
        assert fast == slow(table, asked)


def test_a_canary_by_a_pattern_that_is_not_plain_is_punted_and_one_without_endpoints_takes_nothing() -> None:
    by_pattern = canary(1, canary_by_header="x-canary", canary_by_header_pattern="^ye?s")
    assert "a canary goes by" in said(fastroutes.compile(routecompiler.compile(by_pattern)), Asked("example.com")).punt
    empty = with_(prefix("/", "empty"), name="new", canary="true", canary_weight="100", canary_by_header="x-canary")
    table = routecompiler.compile(snapshot_of(*BASE, with_(prefix("/", "web")), empty))
    always = Asked("example.com", fields=(("X-Canary", "always"),))
    assert routes_service(table, said(fastroutes.compile(table), always).goal) == "web"


# Expressions


PATHS = ["/a(/|$)(.*)", "/A", "/ab/(.*)", "/a/?(.*)", "/a.c", "/a/b(/|$)(.*)", "/", "/a+(/|$)(.*)", "/c$"]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from(PATHS), unique=True, min_size=1, max_size=4),
    st.sampled_from(["/a", "/A/", "/aB/x", "/abc", "/a/b", "/A/B/C", "/b", "/bx", "/c", "/cc", "/"]),
)
def test_a_path_that_is_a_plain_expression_is_found_as_the_router_finds_it(paths: list[str], asked: str) -> None:
    ingresses = [
        with_(policies.regex(text, f"s{number}"), name=f"i{number}", use_regex="true")
        for number, text in enumerate(paths)
    ]
    table = routecompiler.compile(snapshot_of(*SERVICES, *ingresses))
    code = found(fastroutes.compile(table), "example.com", asked)
    if code >= 0:
        assert match_of(fastroutes.compile(table), code) == Router(table).match("example.com", asked)
    else:
        assert {"/a.c", "/a+(/|$)(.*)", "/c$"} & set(paths)


# Limits


def test_a_limit_is_counted_by_its_key_and_its_client() -> None:
    tallies = limits.create(4 * limits.WAYS)
    asks = Policies(limit_key="a/b", limit_rpm=1, limit_burst=2, unlimited=(Range(0x0A000000, 0xFF000000),))
    roads = fastroutes.compile(with_policies(PLAIN, asks))

    def answers(client: int, times: int) -> list[int]:
        got = [said(roads, Asked("example.com", client=client), tallies=tallies).answer for _ in range(times)]
        return [int(answer.split()[1]) if answer else 200 for answer in got]

    assert answers(7, 5) == [200, 200, 200, 503, 503]
    assert answers(8, 1) == [200]
    assert answers(0x0A000001, 9) == [200] * 9
    text = said(roads, Asked("example.com", client=7), tallies=tallies).answer
    assert text.endswith(b"more than 1 requests a minute, and the burst is used up\n")


# Endpoints


async def the_target(table: routes.Routes) -> Target:
    """The one Target of these Routes, as a Table makes it."""
    backends = []
    for number in table.endpoints.tolist():
        ip, port = int(table.backends[number]["ip"]), int(table.backends[number]["port"])
        backends.append(Backend(Endpoint((int_to_ip(ip), port), 0.0), number, ip))
    return Target(table.services[1], table.targets[1], tuple(backends), asyncio.get_running_loop())


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 4), st.lists(st.sets(st.integers(0, 3)), max_size=12))
def test_picks_are_those_of_the_target(count: int, steps: list[set[int]]) -> None:
    table = routecompiler.compile(web(*PODS[:count]))
    roads = fastroutes.compile(table)
    memory, target = fastroutes.create_memory(roads), asyncio.run(the_target(table))
    for out in steps:
        for place, backend in enumerate(target.backends):
            backend.endpoint.out = place in out
            memory.out_ns[backend.number] = NOW_NS + 1 if place in out else 0
        wanted = target.next()
        assert wanted is not None
        assert picked(roads, memory, 1) == wanted.number


def test_an_endpoint_is_in_again_when_its_time_is_over() -> None:
    roads = fastroutes.compile(routecompiler.compile(web(*PODS[:2])))
    memory = fastroutes.create_memory(roads)
    first, second = (picked(roads, memory, 1) for _ in range(2))
    memory.out_ns[first] = NOW_NS + 5
    assert {picked(roads, memory, 1, now_ns=NOW_NS + 4) for _ in range(4)} == {second}
    assert {picked(roads, memory, 1, now_ns=NOW_NS + 5) for _ in range(4)} == {first, second}


KEY, OTHER = "0123456789abcdef", backend_key("default/other:80")
OWN = backend_key("default/web:80")


@settings(max_examples=60, deadline=None)
@given(
    st.booleans(),
    st.booleans(),
    st.integers(1, 4),
    st.one_of(
        st.lists(
            st.sampled_from(
                [
                    f"c={KEY}|{OWN}",
                    f'a=b; c="x|{OWN}"',
                    f"c={KEY}|{OTHER}",
                    f"c=|{OWN}",
                    "c",
                    f"c={'k' * 300}|{OWN}",
                    f"é; c={KEY}|{OWN}",
                ]
            ),
            max_size=2,
        ),
        st.integers(0, 3).map(lambda place: [f"c={new_key(AT[place], persistent=True)}|{OWN}"]),
    ),
    st.integers(0, (1 << 64) - 1),
)
def test_a_cookie_leads_to_the_endpoint_that_it_leads_to_elsewhere(
    persistent: bool, secure: bool, count: int, cookies: list[str], draw: int
) -> None:
    asks = Policies(cookie="c", cookie_persistent=persistent, cookie_path="/", cookie_secure=secure, cookie_max_age_s=9)
    roads = fastroutes.compile(with_policies(routecompiler.compile(web(*PODS[:count])), asks))
    backend, key, line = stuck(roads, fastroutes.create_memory(roads), tuple(cookies), draw=draw)
    odd = any(not cookie.isascii() for cookie in cookies)
    if backend < 0:
        assert odd
        assert PUNTS[-backend - FIRST_PUNT].startswith("the route chooses endpoints by a cookie, or a hash")
        return
    given_key, of = held("; ".join(cookies), "c")
    found = endpoint_of(given_key, AT[:count], persistent=persistent) if given_key and of == OWN else None
    if found is not None:
        assert (backend, key) == (int(roads.endpoints[found]), "")
        return
    place = endpoint_of(key, AT[:count], persistent=persistent)
    assert place is not None
    assert backend == roads.endpoints[place]
    assert line == f"Set-Cookie: {set_cookie(asks, key, 'default/web:80', secure=False, now_s=0)}\r\n"


@pytest.mark.parametrize("persistent", [False, True])
def test_a_goal_with_endpoints_beyond_the_table_has_none(persistent: bool) -> None:
    asks = Policies(cookie="c", cookie_persistent=persistent, cookie_path="/")
    table = with_policies(routecompiler.compile(web(*PODS[:2])), asks)
    cookie = f"c={new_key(AT[1], persistent=persistent)}|{OWN}"
    roads = fastroutes.compile(table)
    assert stuck(roads, fastroutes.create_memory(roads), (cookie,), draw=1)[0] > 0
    goals = roads.goals.copy()
    goals["endpoints"] += 1
    beyond = roads._replace(goals=freeze(goals))
    assert stuck(beyond, fastroutes.create_memory(beyond), (cookie,), draw=1)[0] == 0
    assert picked(beyond, fastroutes.create_memory(beyond), 1) == 0


def test_a_new_key_leads_past_an_endpoint_that_is_out() -> None:
    asks = Policies(cookie="c", cookie_path="/")
    roads = fastroutes.compile(with_policies(routecompiler.compile(web(*PODS[:2])), asks))
    memory = fastroutes.create_memory(roads)
    memory.out_ns[roads.endpoints[0]] = NOW_NS + 1
    for draw in range(1, 30):
        backend, key, _ = stuck(roads, memory, (), draw=draw)
        assert backend == roads.endpoints[1]
        assert endpoint_of(key, AT[:2], persistent=False) == 1


# Installs


def test_turns_go_on_where_rows_have_moved() -> None:
    before = fastroutes.compile(routecompiler.compile(web(*PODS[:3])))
    memory = fastroutes.create_memory(before)
    said_before = [picked(before, memory, 1) for _ in range(4)]
    after_table = routecompiler.compile(
        snapshot_of(
            service("a"),
            *slices("a", PODS[3:]),
            ingress("a", rule("a.com", prefix("/", "a")), created="2020-01-01T00:00:00Z"),
            service("web"),
            *slices("web", PODS[:3]),
            ingress("web", rule("example.com", prefix("/", "web"))),
            generation=2,
        )
    )
    after = fastroutes.compile(after_table)
    row = next(row for row in range(1, len(after.goals)) if routes_service(after_table, row) == "web")
    assert row != 1
    kept = fastroutes.carry_over(before, memory, after)
    ips = [int(before.backends[number]["ip"]) for number in said_before]
    ips += [int(after.backends[picked(after, kept, row)]["ip"]) for _ in range(5)]
    assert ips == ips[:3] * 3


def test_where_only_rules_differ_turns_and_who_is_out_are_kept_as_they_are() -> None:
    before = fastroutes.compile(routecompiler.compile(web(*PODS[:2])))
    memory = fastroutes.create_memory(before)
    assert fastroutes.carry_over(before, memory, before._replace(generation=9, slots=before.slots.copy())) is memory


def test_who_is_out_stays_out_but_not_another_endpoint_of_its_id() -> None:
    before = fastroutes.compile(routecompiler.compile(web(*PODS[:2])))
    memory = fastroutes.create_memory(before)
    memory.out_ns[before.endpoints] = NOW_NS
    backends = before.backends.copy()
    backends["ip"][before.endpoints[1]] += 1
    kept = fastroutes.carry_over(before, memory, before._replace(backends=freeze(backends)))
    assert kept.out_ns[before.endpoints].tolist() == [NOW_NS, 0]


def test_only_what_differs_is_made_anew() -> None:
    compiler = fastroutes.Compiler()
    one, other = (compiler.compile(routecompiler.compile(web(*PODS[:n], generation=n))) for n in (2, 3))
    assert (one.generation, other.generation) == (2, 3)
    assert all(getattr(one, name) is getattr(other, name) for name in ("hosts", "roads", "slots", "rules", "pieces"))
    assert (len(set(turns(one, 6))), len(set(turns(other, 6)))) == (2, 3)
    second = ingress("second", rule("second.com", prefix("/", "web")), created="2020-01-01T00:00:00Z")
    more = compiler.compile(routecompiler.compile(web(*PODS[:3], generation=5).changed([second])))
    assert len(more.hosts) == len(other.hosts) + 1
    assert all(getattr(more, name) is getattr(other, name) for name in ("goals", "forks", "replies", "words"))
    ruled = compiler.compile(
        routecompiler.compile(snapshot_of(*BASE, with_(prefix("/", "web"), app_root="/app"), generation=4))
    )
    fresh = fastroutes.compile(routecompiler.compile(snapshot_of(*BASE, with_(prefix("/", "web"), app_root="/app"))))
    for name in ruled._fields[1:]:
        assert getattr(ruled, name).tobytes() == getattr(fresh, name).tobytes(), name


def test_a_service_that_a_cookie_leads_to_only_later_is_known_by_it() -> None:
    """To who has none a route is no more than another; so nothing but rules differs."""
    sticky = ingress("web", rule("a.com", prefix("/", "web")), annotations=policies.named(affinity="cookie"))
    plain = ingress("echo", rule("b.com", prefix("/", "echo")))
    there = (*BASE, service("echo"), *slices("echo", PODS), sticky, plain)
    later = ingress("later", rule("c.com", prefix("/", "echo")), annotations=policies.named(affinity="cookie"))
    compiler = fastroutes.Compiler()
    one, other = (
        compiler.compile(routecompiler.compile(snapshot_of(*objects, generation=number)))
        for number, objects in enumerate([there, (*there, later)])
    )
    assert one.rules is other.rules
    assert [sum(roads.goals["digest"][1:] > 0) for roads in (one, other)] == [1, 2]


def test_tables_are_read_only_and_fit_their_rows() -> None:
    assert all(not table.flags.writeable for table in ROADS[1:])
    assert ROAD.itemsize <= 64
    assert len(ROADS.roads) == len(RULED.paths) + len(RULED.hosts)


# The docs

# What a policy may say; of those that are not here any number says something.
SAMPLES: dict[str, Any] = {
    "denied": "why",
    "cors": True,
    "redirect": "http://b.com",
    "limit_key": "a/b",
    "sources_denied": (Range(0, 0),),
    "sources_allowed": (Range(0, 0),),
    "auth": True,
    "auth_url": "http://a.com",
    "rewrite_from": "/a(/|$)(.*)",
    "forwarded_prefix": "/a",
    "upstream_host": "b.com",
    "retry_on": condition_bits(("timeout",)),
    "cookie": "c",
    "hash_by": "$uri",
    "errors": ("503",),
    "fallback": 1,
    "fields": ("X-A: b",),
    "mirror": "http://a.com",
    "upstream_tls": True,
}


def test_each_reason_to_punt_has_a_word_and_a_text_of_its_own() -> None:
    assert len(set(PUNT_WORDS)) == len(set(PUNTS)) == len(PUNTS) == len(PUNT_WORDS)
    assert not set(PUNT_WORDS) & {word for word, _ in REASONS}
    assert len(REASONS) <= FIRST_PUNT


def test_the_docs_say_which_policies_are_compiled() -> None:
    """Each column of POLICY is in one row of the table; what is compiled is, and one of what is punted is why."""
    listed = tables.rows("gateway.md", "Which routes are taken")
    names = [name for cell, _ in listed for name in tables.names(cell)]
    assert sorted(names) == sorted(POLICY.names or ())
    for cell, verdict in listed:
        for name in tables.names(cell):
            default = getattr(NONE, name)
            value = SAMPLES.get(name, type(default)(1) if isinstance(default, int) else default)
            asks = replace(Policies(redirect_status=308), **{name: value})
            punt = int(fastroutes.compile(with_policies(PLAIN, asks)).rules[1]["punt"])
            if verdict.startswith("compiled"):
                assert not punt, name
            elif name in SAMPLES:
                assert verdict == f"punted: {PUNTS[punt - FIRST_PUNT]}", name
        assert verdict.startswith("compiled") or SAMPLES.keys() & set(tables.names(cell)), cell
