"""plane explain --all: every rule, in the order it is matched, and which of them no request reaches."""

import json
from pathlib import Path

from click.testing import CliRunner

from plane.cli import plane
from plane.explain.table import render, routing_table
from plane.requestpath import normalised
from plane.routecompiler import compile
from plane.router import Router
from tests.ingress.corpus import CORPUS, NAMES, services
from tests.ingress.manifests import exact, ingress, prefix, rule, snapshot_of
from tests.ingress.policies import regex, with_

BASE = services(8080, {name: f"127.244.1.{number}" for number, name in enumerate(NAMES, start=2)})
OLD, YOUNG = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
MANIFESTS = str(Path(__file__).parents[2] / "configs" / "quickstart")


def test_rules_stand_in_the_order_they_are_matched() -> None:
    snapshot = snapshot_of(
        *BASE,
        ingress("all", default="old"),
        ingress("any", rule("", prefix("/", "old"))),
        ingress("one", rule("*.com", prefix("/", "api")), rule("b.com", prefix("/x", "web"), exact("/x/y", "web"))),
        ingress("two", rule("a.com", prefix("/x/", "web"), prefix("/long/er", "empty")), default="api"),
    )
    table = routing_table(snapshot)
    assert [(row.host, row.path_type, row.path, row.service, row.endpoints) for row in table] == [
        ("a.com", "Prefix", "/long/er", "default/empty", 0),
        ("a.com", "Prefix", "/x/", "default/web", 1),
        ("a.com", "default", "", "default/api", 1),
        ("b.com", "Exact", "/x/y", "default/web", 1),
        ("b.com", "Prefix", "/x", "default/web", 1),
        ("*.com", "Prefix", "/", "default/api", 1),
        ("", "Prefix", "/", "default/old", 1),
        ("", "default", "", "default/old", 1),
    ]
    assert not any(row.shadowed for row in table)


def test_a_rule_that_an_older_one_repeats_is_shadowed() -> None:
    snapshot = snapshot_of(
        *BASE,
        ingress("b", rule("a.com", prefix("/", "web")), created=OLD),
        ingress("a", rule("a.com", prefix("/", "api"), prefix("/x", "ghost")), created=YOUNG),
        ingress("c", rule("a.com", prefix("/x", "api")), created=YOUNG),
    )
    first = "default/b spec.rules[0].http.paths[0]"
    found = [(row.path, row.service, row.endpoints, row.ingress, row.shadowed) for row in routing_table(snapshot)]
    assert found == [
        ("/x", "default/ghost", 0, "default/a", ""),
        ("/x", "default/api", 1, "default/c", "default/a spec.rules[0].http.paths[1]"),
        ("/", "default/web", 1, "default/b", ""),
        ("/", "default/api", 1, "default/a", first),
    ]


def test_a_prefix_is_shadowed_by_its_twin_with_a_slash() -> None:
    snapshot = snapshot_of(*BASE, ingress("a", rule("a.com", prefix("/x", "old"), prefix("/x/", "web"))))
    winner, twin = routing_table(snapshot)
    assert (winner.path, winner.shadowed, twin.path) == ("/x/", "", "/x")
    assert twin.shadowed == "default/a spec.rules[0].http.paths[1]"


def test_a_rule_that_app_root_replaces_is_shadowed() -> None:
    snapshot = snapshot_of(*BASE, with_(exact("/", "web"), exact("/app", "old"), app_root="/app"))
    found = [(row.path, row.service, row.field, row.shadowed) for row in routing_table(snapshot)]
    assert found == [
        ("/app", "default/old", "spec.rules[0].http.paths[1]", ""),
        ("/", "", "metadata.annotations", ""),
        ("/", "default/web", "spec.rules[0].http.paths[0]", "default/web metadata.annotations"),
    ]


def test_no_request_of_the_corpus_meets_a_shadowed_rule() -> None:
    for row in CORPUS:
        snapshot = snapshot_of(*BASE, *row.objects)
        routes = compile(snapshot)
        origin = routes.origins[Router(routes).match(row.host, normalised(row.path.partition("?")[0])).origin]
        met = [
            rule
            for rule in routing_table(snapshot)
            if (rule.ingress, rule.field.startswith("spec.rules")) == (f"{origin.namespace}/{origin.ingress}", True)
            and rule.field == f"spec.rules[{origin.rule}].http.paths[{origin.path}]"
        ]
        assert len(met) == (origin.rule >= 0), row.description
        assert not any(rule.shadowed for rule in met), row.description


def test_as_text_and_as_json() -> None:
    found = CliRunner().invoke(plane, ["explain", "--all", "-f", MANIFESTS], standalone_mode=False)
    assert found.stdout == (
        "HOST          MATCH    PATH   SERVICE                 ENDPOINTS   INGRESS              RULE\n"
        "example.com   Prefix   /      default/my-service:80   3           default/my-ingress   "
        "spec.rules[0].http.paths[0]\n"
    )
    found = CliRunner().invoke(plane, ["explain", "--all", "-f", MANIFESTS, "-o", "json"], standalone_mode=False)
    [rule_found] = json.loads(found.stdout)["rules"]
    assert rule_found["pathType"] == "Prefix"
    assert render([]) == "no Ingress is served\n"


def test_a_url_or_all() -> None:
    for arguments in ([], ["http://a", "--all"]):
        found = CliRunner().invoke(plane, ["explain", "-f", MANIFESTS, *arguments], standalone_mode=False)
        assert "explain what? write one URL, or --all" in str(found.exception)


def test_paths_behind_f_count_with_all_too(tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text(json.dumps(with_(prefix("/", "web"), host="more.example", name="more")))
    for arguments in (["--all", "-f", MANIFESTS, str(more)], ["-f", MANIFESTS, str(more), "--all"]):
        found = CliRunner().invoke(plane, ["explain", *arguments], standalone_mode=False)
        assert [line.split()[0] for line in found.stdout.splitlines()] == ["HOST", "example.com", "more.example"]


def test_policies_canaries_and_expressions_stand_in_the_table() -> None:
    snapshot = snapshot_of(
        *BASE,
        with_(regex("/a.*", "web"), use_regex="true", limit_rps="3", from_to_www_redirect="true"),
        with_(exact("/b", "old"), name="more", created=YOUNG, app_root="/app"),
        with_(regex("/a.*", "old"), name="late", created=YOUNG),
        with_(regex("/a.*", "api"), name="new", created=OLD, canary="true", canary_weight="7"),
    )
    limits = "limit_key=default/web limit_rps=3 limit_burst=5"
    first, late = "default/web spec.rules[0].http.paths[0]", "default/late spec.rules[0].http.paths[0]"
    found = [line.split("   ") for line in render(routing_table(snapshot)).splitlines()[1:]]
    shown = [" ".join(cell.strip() for cell in row if cell.strip()) for row in found]
    assert shown == [
        "example.com Exact / - 0 default/more metadata.annotations "
        "redirect=$scheme://$http_host/app redirect_status=302",
        f"example.com Regex /a.* default/web:80 1 default/web spec.rules[0].http.paths[0] {limits}",
        f"example.com Regex /a.* default/old:80 1 {late} shadowed by {first}",
        f"example.com Regex /a.* default/api:80 1 default/new spec.rules[0].http.paths[0] canary of {first}",
        "example.com Regex /b default/old:80 1 default/more spec.rules[0].http.paths[0]",
        f"example.com default - 0 default/web metadata.annotations {limits}",
        "www.example.com default - 0 default/web metadata.annotations "
        "redirect=$scheme://example.com$trimmed_uri redirect_status=308",
    ]
