"""plane.matching, and the Router that finds sooner what a scan of the rules in their order finds."""

from hypothesis import given, settings
from hypothesis import strategies as st

from plane import routecompiler, routes
from plane.conduct import met
from plane.endpointindex import EndpointIndex
from plane.explain import explain
from plane.explain.table import routing_table
from plane.matching import KONG, TRAEFIK, Slot, rank, slot_of, takes
from plane.policies import ANY_REQUEST, Asked, When
from plane.router import Match, Router
from tests.ingress import kong, traefik
from tests.ingress.manifests import ingress, path, rule, service, snapshot_of

PATHS = ("/", "/a", "/a/", "/ab", "/a/b", "/a/b/", "/b", "/~/a.*", "/~/(a|b)$", "/[ab]+")
ASKED = ("/", "/a", "/a/", "/ab", "/abc", "/a/b", "/a/b/", "/a/b/c", "/b", "/c", "/~/a")
TYPES = ("Exact", "Prefix", "ImplementationSpecific")
HOSTS = ("a.com", "*.com", "")
SERVICES = [service(f"s{number}") for number in range(8)]


@st.composite
def an_ingress(draw: st.DrawFn, number: int) -> dict:
    rules = [
        rule(
            draw(st.sampled_from(HOSTS)), path(draw(st.sampled_from(TYPES)), draw(st.sampled_from(PATHS)), f"s{number}")
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    manner = draw(st.sampled_from(["", TRAEFIK, KONG]))
    said: dict[str, str] = {}
    if manner == TRAEFIK and draw(st.booleans()):
        said = traefik.named(router_priority=str(draw(st.sampled_from([-3, 5, 40]))), router_pathmatcher="PathRegexp")
    if manner == TRAEFIK and draw(st.booleans()):
        said |= traefik.named(router_entrypoints=draw(st.sampled_from(["web", "websecure"])))
    if manner == KONG and draw(st.booleans()):
        said = kong.named(methods=draw(st.sampled_from(["GET", "POST"])), regex_priority="2")
    made = ingress(f"i{number}", *rules, annotations=said, created=f"2026-01-0{number + 1}T00:00:00Z")
    return {**made, "spec": {**made["spec"], **({"ingressClassName": manner} if manner else {})}}


@settings(max_examples=150, deadline=None)
@given(st.tuples(*(an_ingress(number) for number in range(4))), st.sampled_from(ASKED), st.integers(0, 7))
def test_the_router_finds_what_a_scan_finds(ingresses: tuple[dict, ...], asked: str, conditions: int) -> None:
    table = routecompiler.compile(snapshot_of(*SERVICES, *ingresses))

    def meets(row: int) -> bool:
        return bool(conditions >> (row % 3) & 1)

    found = Router(table).match("a.com", asked, meets)
    assert found == scanned(table, asked, meets)


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(*(an_ingress(number) for number in range(4))),
    st.sampled_from(ASKED),
    st.sampled_from(["GET", "PUT"]),
    st.sampled_from(["http", "https"]),
)
def test_explain_and_its_table_agree_on_who_takes_a_request(
    ingresses: tuple[dict, ...], asked: str, method: str, scheme: str
) -> None:
    snapshot = snapshot_of(*SERVICES, *ingresses)
    table = routecompiler.compile(snapshot)
    match = Router(table).match("a.com", asked, lambda row: met(table.when(row), method, scheme, lambda _: ""))
    origin = table.origins[match.origin]
    found = explain(snapshot, f"{scheme}://a.com{asked}", method=method)
    assert (found.ingress or "/") == f"{origin.namespace}/{origin.ingress}"
    winners = [line for line in found.reasons if ": this rule takes the request" in line]
    assert len(winners) == (match.origin > 0)
    assert all(line.startswith(f"{origin}: ") for line in winners)
    if match.origin:
        met_rules = [row for row in routing_table(snapshot) if f"{row.ingress} {row.field}" == str(origin)]
        assert any(not row.shadowed for row in met_rules)


def scanned(table: routes.Routes, asked: str, meets: object) -> Match:
    """What the first row that takes the path leads to, by the definitions and by nothing that is quick."""
    names = [table.host_name(row) for row in range(len(table.hosts))]
    number = next((names.index(name, 1) for name in ("a.com", "*.com", "") if name in names[1:]), 0)
    host, none = table.hosts[number], table.hosts[0]
    for row in range(int(host["first_path"]), int(host["first_path"]) + int(host["paths"])):
        found = table.paths[row]
        text = table.string(int(found["text"]), int(found["text_length"]))
        if takes(Slot(int(found["kind"]), text), asked) and (not found["when"] or meets(int(found["when"]))):  # type: ignore[operator]
            return Match(*(int(found[name]) for name in Match._fields))
    default = host if host["default"] or host["policy"] else none
    return Match(int(default["default"]), int(default["origin"]), int(default["policy"]))


def test_an_annotation_of_a_service_is_heard_of_when_it_changes() -> None:
    index, compiler = EndpointIndex(), routecompiler.Compiler()
    before = snapshot_of(*SERVICES, kong.with_(path("Prefix", "/", "s0")))
    after = before.changed([service("s0", annotations=kong.named(retries="7"))])
    tries = [
        compiler.compile(each, index, index.follow(each)).policies.policies["retry_tries"].max()
        for each in (before, after)
    ]
    assert tries == [0, 8]


def test_a_rule_that_other_hosts_meet_too_has_the_name_of_its_own() -> None:
    made = [traefik.with_(path("Prefix", "/a", "s0")), traefik.with_(path("Prefix", "/", "s1"), host="", name="any")]
    table = routecompiler.compile(snapshot_of(*SERVICES, *made))
    assert sorted(routes.names(table)) == ["", "default/any * /", "default/web example.com /a"]
    rows = [(row.host, row.path_type, row.path, row.ingress) for row in routing_table(snapshot_of(*SERVICES, *made))]
    assert rows == [
        ("example.com", "StartsWith", "/a", "default/web"),
        ("example.com", "StartsWith", "/", "default/any"),
        ("", "StartsWith", "/", "default/any"),
    ]


def test_explain_says_what_was_decided() -> None:
    made = [
        traefik.with_(path("Prefix", "/a", "s0"), router_priority="-1", router_entrypoints="websecure"),
        traefik.with_(path("Exact", "/a", "s1"), name="b"),
        traefik.with_(path("ImplementationSpecific", "/b+", "s2"), name="c", router_pathmatcher="PathRegexp"),
    ]
    said = explain(snapshot_of(*SERVICES, *made), "https://example.com/a").reasons
    assert "default/b spec.rules[0].http.paths[0]: example.com Exact /a: this rule takes the request" in said
    first = "default/web spec.rules[0].http.paths[0]: example.com Prefix /a"
    assert f"{first}: it matches, but the priority of /a is 33, over -1" in said
    pattern = "default/c spec.rules[0].http.paths[0]: example.com ImplementationSpecific /b+"
    assert f"{pattern}: the path /a is not one that this regular expression matches" in said
    said = explain(snapshot_of(*SERVICES, *made), "https://example.com/ac").reasons
    assert f"{first}: this rule takes the request, by characters, as Traefik does" in said
    said = explain(snapshot_of(*SERVICES, traefik.with_(path("Prefix", "/", "s0"))), "http://example.com/a").reasons
    assert "default/web spec.rules[0].http.paths[0]: example.com Prefix /: this rule takes the request" in said
    said = explain(snapshot_of(*SERVICES, *made), "http://example.com/ab").reasons
    assert f"{first}: it takes only requests by HTTPS" in said


def test_rules_of_kubernetes_keep_their_order_and_come_first() -> None:
    slots = [
        slot_of(path(kind, text, "web"), "a.com", asked)
        for asked in (Asked(manner=TRAEFIK, priority=9000), Asked())
        for kind, text in (("Prefix", "/long/er"), ("Prefix", "/a"), ("Prefix", "/a/"), ("Exact", "/a"))
    ]
    ordered = sorted(slots, key=rank)
    assert [(slot.kind, slot.text, slot.slash) for slot in ordered[:4]] == [
        (0, "/a", False),
        (1, "/long/er", False),
        (1, "/a", True),
        (1, "/a", False),
    ]
    assert {slot.manner for slot in ordered[4:]} == {TRAEFIK}


def test_conditions_come_back_from_their_rows_as_they_went_in() -> None:
    made = kong.with_(path("Prefix", "/", "s0"), methods="GET,POST", also={"konghq.com/headers.X-A": "1,2"})
    table = routecompiler.compile(snapshot_of(*SERVICES, made))
    assert [table.when(row) for row in range(len(table.policies.whens))] == [
        ANY_REQUEST,
        When(methods=("GET", "POST"), headers=("x-a:1", "x-a:2")),
    ]
    assert "Prefix / of method GET or POST, with x-a:1, with x-a:2 -> default/s0:80" in routes.dump(table)
