"""explain: where a request would go and why, offline."""

import base64
import json

import pytest
import trustme

from kernels.layout import ALGORITHMS
from plane import affinity
from plane.errors import ManifestError
from plane.explain import Explanation, explain
from tests.ingress.corpus import CORPUS, NAMES, NESTED, Row, services
from tests.ingress.manifests import (
    endpoint,
    exact,
    ingress,
    ingress_class,
    prefix,
    rule,
    secret,
    service,
    slice_of,
    snapshot_of,
    web,
)
from tests.ingress.policies import with_

SAME_FOR_ALL = ("rr", "wrr", "lc", "wlc", "sed", "nq", "dh")  # for the first connection of all
ADDRESSES = {name: f"127.244.1.{number}" for number, name in enumerate(NAMES, start=2)}
BASE = services(8080, ADDRESSES)
PODS = [("127.244.1.2", 8080), ("127.244.1.3", 8080), ("127.244.1.4", 8080)]


def outcome(found: Explanation) -> str | int | None:
    return found.service.rpartition("/")[2] if found.status == 200 and found.service else found.status


@pytest.mark.parametrize("row", CORPUS, ids=[row.description for row in CORPUS])
def test_corpus_by_explain(row: Row) -> None:
    found = explain(snapshot_of(*BASE, *row.objects), f"http://127.0.0.1{row.path}", headers=[("host", row.host)])
    assert outcome(found) == row.expected
    assert found.reasons
    assert found.render()


def test_json_of_the_quickstart() -> None:
    found = explain(web(*PODS), "http://example.com/").to_json()
    assert json.loads(json.dumps(found)) == found
    endpoints = [
        {
            "ip": ip,
            "port": port,
            "pod": f"default/pod-{ip[-1]}",
            "node": "node-1",
            "ready": True,
            "serving": True,
            "terminating": False,
            "used": True,
        }
        for ip, port in PODS
    ]
    assert found == {
        "status": 200,
        "redirect": None,
        "ingress": "default/web",
        "rule": {"field": "spec.rules[0].http.paths[0]", "host": "example.com", "pathType": "Prefix", "path": "/"},
        "service": "default/web",
        "port": 80,
        "endpoints": endpoints,
        "chosen": endpoints[0],
        "upstream": {"method": "GET", "path": "/", "host": "example.com", "headers": {}},
        "response_headers": {},
        "decided_by": None,
        "reasons": [
            "default/web spec.rules[0].http.paths[0]: example.com Prefix /: this rule takes the request",
            "round robin: this endpoint is the first in turn, the next request gets the next",
        ],
    }


def test_text_of_the_quickstart() -> None:
    text = explain(web(*PODS[:1]), "example.com/x?y=z", method="POST").render()
    assert text == (
        "request   POST http://example.com/x?y=z\n"
        "status    forwarded\n"
        "ingress   default/web\n"
        "rule      field spec.rules[0].http.paths[0]  host example.com  pathType Prefix  path /\n"
        "service   default/web port 80\n"
        "endpoint  127.244.1.2:8080  ready  default/pod-2\n"
        "chosen    127.244.1.2:8080\n"
        "because   default/web spec.rules[0].http.paths[0]: example.com Prefix /: this rule takes the request\n"
        "          round robin: this endpoint is the first in turn, the next request gets the next\n"
    )


def test_every_rule_that_does_not_win_says_why() -> None:
    old, young = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
    found = explain(
        snapshot_of(
            *BASE,
            ingress(
                "one",
                rule("a.foo.com", prefix("/x", "web"), exact("/y", "web"), prefix("/x/y", "api"), prefix("/z", "web")),
                rule("b.com", prefix("/", "web")),
                rule("*.foo.com", prefix("/x", "old")),
                rule("*.com", prefix("/", "old")),
                default="old",
                created=old,
            ),
            ingress("two", rule("a.foo.com", prefix("/x/y", "old")), created=young),
            ingress("three", rule("a.foo.com", prefix("/x/y", "old")), ingressClassName="alien"),
            ingress_class("alien", "example.com/alien"),
            ingress_class("mine", "trafficplane.dev/ingress", default=True),
        ),
        "http://a.foo.com/x/y/z",
    )
    rules = "default/one spec.rules"
    assert found.reasons == (
        f"{rules}[0].http.paths[2]: a.foo.com Prefix /x/y: this rule takes the request",
        f"{rules}[0].http.paths[0]: a.foo.com Prefix /x: it matches, but /x/y is longer",
        f"{rules}[0].http.paths[1]: a.foo.com Exact /y: the path /x/y/z is another",
        f"{rules}[0].http.paths[3]: a.foo.com Prefix /z: the path /x/y/z is not below it",
        f'{rules}[1].http.paths[0]: b.com Prefix /: the host is "a.foo.com"',
        f'{rules}[2].http.paths[0]: *.foo.com Prefix /x: it matches the host, but "a.foo.com" does so more exactly, '
        "and no request falls through",
        f'{rules}[3].http.paths[0]: *.com Prefix /: "*" stands for one label, and "a.foo.com" has more',
        "default/one spec.defaultBackend: a rule takes the request",
        "default/two spec.rules[0].http.paths[0]: a.foo.com Prefix /x/y: default/one says the same and is older",
        'default/three is not served: class "alien" is of controller example.com/alien, '
        "which this plane does not stand in for",
        "round robin: this endpoint is the first in turn, the next request gets the next",
    )


def test_exact_twins_and_ages_have_their_reasons() -> None:
    found = explain(
        snapshot_of(
            *BASE,
            ingress("b", rule("", exact("/x", "web"))),
            ingress("a", rule("", prefix("/x/", "api"), prefix("/x", "api"), exact("/x", "old"), exact("/x", "api"))),
        ),
        "http://anything/x",
    )
    assert [line.rpartition(": ")[2] for line in found.reasons[:-1]] == [
        "this rule takes the request",
        "it matches, but Exact comes before Prefix",
        "it matches, but Exact comes before Prefix",
        "default/a says the same and comes first",
        "default/a says the same and comes first by name, being of the same age",
    ]
    twins = explain(snapshot_of(*BASE, ingress("a", rule("", prefix("/x", "web"), prefix("/x/", "api")))), "http://h/x")
    assert twins.reasons[1].endswith("it matches, but /x/ with its slash comes first")


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        pytest.param([], "there is no Service default/shop", id="no Service"),
        pytest.param(
            [service("shop", port_name="https")],
            "Service default/shop has no TCP port http; it has 80 (https)",
            id="no port",
        ),
        pytest.param(
            [service("shop", port_name="http")],
            "Service default/shop has no endpoints: its selector selects no pod, or there is none",
            id="no endpoint",
        ),
        pytest.param(
            [
                service("shop", port_name="http"),
                slice_of("shop", endpoint("127.244.1.2", ready=False), port_name="http"),
            ],
            "none of the 1 endpoints of Service default/shop is ready",
            id="none ready",
        ),
        pytest.param(
            [service("shop", port_name="http", type="ExternalName", externalName="shop.default.svc.cluster.local")],
            "Service default/shop is an ExternalName that leads back to itself",
            id="an ExternalName that leads back to itself",
        ),
    ],
)
def test_503_says_what_is_missing(objects: list, reason: str) -> None:
    found = explain(snapshot_of(*objects, ingress("a", rule("", prefix("/", "shop", "http")))), "http://x.com/")
    assert (found.status, found.ingress, found.service, found.chosen) == (503, "default/a", "default/shop", None)
    assert found.reasons[0] == reason


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("Docs.example.org", "the request goes to docs.example.org, whose address the ingress asks for, port 80"),
        (
            "web.default.svc.cluster.local.",
            "the request goes to web.default.svc.cluster.local, which is Service default/web",
        ),
    ],
)
def test_an_external_name_takes_the_request_to_its_host(target: str, reason: str) -> None:
    external = service("shop", type="ExternalName", externalName=target)
    found = explain(snapshot_of(*BASE, external, ingress("a", rule("", prefix("/", "shop")))), "http://x.com/")
    assert (found.status, found.service, found.endpoints, found.chosen) == (200, "default/shop", (), None)
    assert found.reasons[0] == f"Service default/shop is an ExternalName: {reason}"
    assert "status    forwarded" in found.render()


def test_a_service_by_its_external_name_is_that_service() -> None:
    external = service("shop", type="ExternalName", externalName="web.default.svc.cluster.local")
    objects = [service("web", cluster_ip="127.96.1.1"), slice_of("web", endpoint("127.244.1.2")), external]
    found = explain(snapshot_of(*objects), "http://shop.default.svc/")
    assert (found.status, found.service, found.chosen["ip"]) == (200, "default/web", "127.244.1.2")


def test_404_says_so_first() -> None:
    found = explain(snapshot_of(*BASE, *NESTED), "http://example.org/")
    assert (found.status, found.ingress, found.rule, found.service) == (404, None, None, None)
    assert found.reasons[0] == "no rule takes the request, and there is no default backend"
    assert len(found.reasons) == 4


def test_https_says_which_certificate() -> None:
    tls = [{"hosts": ["*.foo.com"], "secretName": "cert"}]
    authority = trustme.CA()
    own, other = authority.issue_cert("*.foo.com"), authority.issue_cert("a.bar.com")

    def says(chain: trustme.LeafCert, key: trustme.LeafCert, url: str) -> str:
        stored = secret("cert", chain.cert_chain_pems[0].bytes(), key.private_key_pem.bytes())
        snapshot = snapshot_of(*BASE, stored, ingress("a", rule("", prefix("/", "web")), tls=tls))
        return explain(snapshot, url).reasons[0]

    assert says(own, own, "https://a.foo.com/") == 'HTTPS: the certificate is that of spec.tls for "*.foo.com"'
    assert "the default one: no spec.tls" in says(own, own, "https://foo.com/")
    default = 'HTTPS: the certificate is the default one: the Secret of spec.tls for "*.foo.com"'
    mixed = f"{default} has a tls.crt and a tls.key that do not belong together"
    assert says(own, other, "https://a.foo.com/") == mixed
    assert says(other, other, "https://a.foo.com/") == f"{default} has a certificate that does not name it"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://auth.default.svc.cluster.local/check", ""),
        ("http://10.96.0.9/check", ""),
        ("http://auth.example/check", ""),
        ("http://away.default.svc/check", ""),
        ("http://auth.default.svc.cluster.local:81/check", "Service default/auth has no TCP port 81; it has 80"),
        ("http://ghost.shop.svc/check", 'there is no Service "ghost" in namespace shop'),
        ("http://empty.default.svc/check", "Service default/empty has no endpoints: its selector selects no pod"),
        ("http://loop.default.svc/check", "Service default/loop is an ExternalName that leads back to itself"),
        ("http://to-empty.default.svc/check", "Service default/empty has no endpoints: its selector selects no pod"),
    ],
)
def test_whom_auth_url_asks_is_looked_for(url: str, why: str) -> None:
    names = {
        "away": "sso.example",
        "loop": "loop.default.svc.cluster.local",
        "to-empty": "empty.default.svc.cluster.local",
    }
    objects = [
        *BASE,
        service("auth", cluster_ip="10.96.0.9"),
        slice_of("auth", endpoint("127.244.1.9")),
        *(service(name, type="ExternalName", externalName=to) for name, to in names.items()),
        with_(prefix("/", "web"), auth_url=url),
    ]
    found = explain(snapshot_of(*objects), "http://example.com/")
    if why:
        assert (found.status, found.decided_by) == (500, None)
        assert found.reasons[0].startswith(f"auth-url: {url} is asked and cannot answer: {why}")
    else:
        assert (found.status, found.decided_by) == (200, url)


def test_a_host_header_counts_before_the_url() -> None:
    found = explain(web(*PODS), "http://127.200.0.1:8080/", headers=[("Host", "example.com")])
    assert found.ingress == "default/web"
    assert found.request == "GET http://127.200.0.1:8080/ (Host: example.com)"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("url", ["http://127.96.1.1/", "http://web.default.svc/", "web.default.svc.cluster.local:80/x"])
def test_a_cluster_ip_is_decided_by_forward(url: str, algorithm: str) -> None:
    annotations = {"trafficplane.dev/lb-algorithm": algorithm}
    snapshot = snapshot_of(
        service("web", cluster_ip="127.96.1.1", annotations=annotations),
        slice_of("web", *(endpoint(ip) for ip, _ in PODS), endpoint("127.244.1.9", ready=False)),
    )
    chosen = set()
    for number in range(40):
        found = explain(snapshot, url, from_ip=f"127.244.2.{number + 1}")
        assert (found.status, found.ingress, found.service, found.port) == (200, None, "default/web", 80)
        assert found.rule == {"frontend": "127.96.1.1:80/TCP", "algorithm": algorithm}
        assert found.chosen in found.endpoints
        assert len(found.endpoints) == 4
        assert found == explain(snapshot, url, from_ip=f"127.244.2.{number + 1}")
        chosen.add(found.chosen["ip"])
    assert len(chosen) == 1 if algorithm in SAME_FOR_ALL else chosen == {ip for ip, _ in PODS}


@pytest.mark.parametrize(
    ("objects", "url", "reason"),
    [
        pytest.param(
            [service("web", cluster_ip="127.96.1.1")],
            "http://127.96.1.1:81/",
            "Service default/web has no port 81/TCP, it has 80/TCP: refused",
            id="no such port",
        ),
        pytest.param(
            [service("web", cluster_ip="127.96.1.1")],
            "https://web.default.svc/",
            "Service default/web has no port 443/TCP, it has 80/TCP: refused",
            id="https is port 443",
        ),
        pytest.param(
            [service("web", cluster_ip="127.96.1.1")],
            "http://web.default.svc/",
            "Service default/web has no endpoints: its selector selects no pod, or there is none: refused",
            id="no endpoint",
        ),
        pytest.param(
            [service("web", cluster_ip="None")],
            "http://web.default.svc/",
            "Service default/web is headless: it has no ClusterIP to connect to",
            id="headless",
        ),
        pytest.param(
            [service("web", type="ExternalName", externalName="example.org")],
            "http://web.default.svc/",
            "Service default/web is an ExternalName: DNS says example.org, and the client connects to that host "
            "itself: no Service is on the way",
            id="ExternalName",
        ),
        pytest.param(
            [service("web", cluster_ip="None"), slice_of("web", endpoint("127.244.1.2"))],
            "http://web.default.svc/",
            "Service default/web is headless: it has no ClusterIP to connect to; DNS says 127.244.1.2, and the client "
            "connects to one itself",
            id="headless with an endpoint",
        ),
    ],
)
def test_a_cluster_ip_that_answers_nobody_has_no_status(objects: list, url: str, reason: str) -> None:
    found = explain(snapshot_of(*objects), url)
    assert (found.status, found.chosen, found.reasons[-1]) == (None, None, reason)
    assert "refused" in found.render()


@pytest.mark.parametrize("url", ["ftp://example.com/", "http://", "http://a:port/", "http://[::1/", ""])
def test_what_is_no_url_is_bad_input(url: str) -> None:
    with pytest.raises(ManifestError, match="is no URL"):
        explain(web(*PODS), url)


def test_what_is_no_address_is_bad_input() -> None:
    with pytest.raises(ManifestError, match="--from-ip"):
        explain(web(*PODS), "http://example.com/", from_ip="localhost")


NGINX = "nginx.ingress.kubernetes.io/"


def annotated(*paths: dict, name: str = "web", created: str = "2026-01-01T00:00:00Z", **annotations: str) -> dict:
    said = {NGINX + key.replace("_", "-"): value for key, value in annotations.items()}
    return ingress(name, rule("example.com", *paths), annotations=said, created=created)


@pytest.mark.parametrize(
    ("annotations", "url", "by"),
    [
        ({"permanent_redirect": "https://new.org"}, "http://example.com/", "permanent-redirect of default/web"),
        ({"temporal_redirect": "https://new.org"}, "http://example.com/", "temporal-redirect of default/web"),
        ({"app_root": "/app"}, "http://example.com/", "app-root of default/web"),
        ({"from_to_www_redirect": "true"}, "http://www.example.com/", "from-to-www-redirect of default/web"),
        ({"force_ssl_redirect": "true"}, "http://example.com/", "force-ssl-redirect of default/web"),
    ],
)
def test_a_redirect_names_the_annotation_that_made_it(annotations: dict[str, str], url: str, by: str) -> None:
    found = explain(snapshot_of(*BASE, annotated(prefix("/", "web"), **annotations)), url)
    assert found.redirect
    assert found.reasons[0] == f"redirect: by nginx.ingress.kubernetes.io/{by}"


def test_a_redirect_to_https_names_the_ingress_with_tls() -> None:
    other = ingress("other", rule("example.com", prefix("/other", "web")), tls=[{"hosts": ["example.com"]}])
    found = explain(snapshot_of(*BASE, annotated(prefix("/", "web")), other), "http://example.com/")
    assert found.redirect == "https://example.com"
    assert found.reasons[0].startswith("redirect: by spec.tls of default/other; ")


def test_kongs_redirect_names_its_annotation() -> None:
    for said, status in (({}, 426), ({"konghq.com/https-redirect-status-code": "301"}, 301)):
        made = ingress(
            "web", rule("example.com", prefix("/", "web")), annotations={"konghq.com/protocols": "https", **said}
        )
        made["spec"]["ingressClassName"] = "kong"
        found = explain(snapshot_of(*BASE, made), "http://example.com/")
        assert found.status == status
        assert found.reasons[0] == "redirect: by konghq.com/protocols of default/web, which is https alone"


def test_text_of_a_redirect() -> None:
    objects = [*BASE, annotated(prefix("/", "web"), permanent_redirect="https://new.org$request_uri")]
    assert explain(snapshot_of(*objects), "http://example.com/x").render() == (
        "request   GET http://example.com/x\n"
        "status    301\n"
        "redirect  https://new.org/x\n"
        "ingress   default/web\n"
        "rule      field spec.rules[0].http.paths[0]  host example.com  pathType Prefix  path /\n"
        "because   redirect: by nginx.ingress.kubernetes.io/permanent-redirect of default/web\n"
        "          default/web spec.rules[0].http.paths[0]: example.com Prefix /: this rule takes the request\n"
    )


def test_every_policy_says_what_it_does_to_the_request() -> None:
    made = annotated(
        {**prefix("/app(/|$)(.*)", "web"), "pathType": "ImplementationSpecific"},
        rewrite_target="/$2",
        upstream_vhost="inside",
        enable_cors="true",
        limit_rps="10",
        limit_connections="3",
        allowlist_source_range="0.0.0.0/0",
        affinity="cookie",
        proxy_body_size="8m",
        proxy_read_timeout="7",
        proxy_next_upstream="error http_503",
    )
    canary = annotated(
        {**prefix("/app(/|$)(.*)", "api"), "pathType": "ImplementationSpecific"},
        name="canary",
        canary="true",
        canary_weight="20",
    )
    found = explain(snapshot_of(*BASE, made, canary), "http://example.com/app/x?y")
    assert found.upstream == {"method": "GET", "path": "/x?y", "host": "inside", "headers": {}}
    assert found.response_headers["Access-Control-Allow-Origin"] == "*"
    assert found.reasons == (
        "canary: of such requests 20 out of 100 go to default/api:80, the others as said here",
        "CORS: origin none is allowed",
        "limits of default/web for one client: 10 requests a second, 50 more at once, 3 at a time; "
        "what is more gets 503",
        "addresses: say --from-ip to see whether the client's is allowed",
        "rewrite: /app(/|$)(.*) to /$2: the endpoint is asked for /x?y",
        "the endpoint is told the host inside",
        "affinity: cookie INGRESSCOOKIE keeps a client at its endpoint",
        "a body of more than 8388608 bytes gets 413",
        "timeouts: read 7 s",
        "another endpoint is tried after error http_503, 3 tries in all",
        "default/web spec.rules[0].http.paths[0]: example.com ImplementationSpecific /app(/|$)(.*): "
        "this rule takes the request",
        "default/canary spec.rules[0].http.paths[0]: example.com ImplementationSpecific /app(/|$)(.*): "
        "a canary, of the same rule of another Ingress",
        "round robin: this endpoint is the first in turn, the next request gets the next",
    )


def test_a_canary_that_takes_the_request_says_so() -> None:
    objects = [
        *BASE,
        annotated(prefix("/", "web")),
        annotated(prefix("/", "api"), name="canary", canary="true", canary_by_header="X-Canary"),
    ]
    found = explain(snapshot_of(*objects), "http://example.com/", headers=[("x-canary", "always")])
    assert (found.ingress, found.service) == ("default/canary", "default/api")
    assert found.rule == {
        "field": "spec.rules[0].http.paths[0]",
        "host": "example.com",
        "pathType": "Prefix",
        "path": "/",
    }
    assert found.reasons[:3] == (
        "canary: header x-canary is always: the request goes to default/api:80",
        "default/canary spec.rules[0].http.paths[0]: example.com Prefix /: this canary takes the request",
        "default/web spec.rules[0].http.paths[0]: example.com Prefix /: it matches, and its canary takes the request",
    )


def test_reasons_of_expressions_aliases_and_roots() -> None:
    objects = [
        *BASE,
        annotated(
            prefix("/[a]", "web"),
            prefix("/[ab]", "api"),
            prefix("/[b]", "old"),
            prefix("/x", "web"),
            use_regex="true",
            server_alias="other.org",
        ),
        annotated(exact("/", "web"), name="root", app_root="/app"),
    ]
    snapshot = snapshot_of(*objects)
    rules = "default/web spec.rules[0].http.paths"
    assert explain(snapshot, "http://other.org/b").reasons[:5] == (
        f"{rules}[1]: example.com Prefix /[ab]: this rule takes the request",
        "default/root spec.rules[0].http.paths[0]: example.com Exact /: it matches, but /[ab] is longer",
        f"{rules}[0]: example.com Prefix /[a]: the path /b does not begin with what this regular expression matches",
        f"{rules}[2]: example.com Prefix /[b]: it matches, but /[ab] is longer",
        f"{rules}[3]: example.com Prefix /x: the path /b does not begin with what this regular expression matches",
    )
    found = explain(snapshot, "http://example.com/")
    assert (found.status, found.redirect, found.ingress) == (302, "http://example.com/app", "default/root")
    assert found.rule == {"field": "metadata.annotations"}
    assert (
        "default/root spec.rules[0].http.paths[0]: example.com Exact /: "
        "it matches, but default/root redirects this path of the host"
    ) in found.reasons


def test_what_a_dump_has_and_the_plane_would_not_take_is_explained_without_it() -> None:
    made = annotated(
        prefix("/a(", "web"), prefix("/b", "web"), rewrite_target="/x", auth_type="digest", server_snippet="return 200;"
    )
    canary = annotated(
        prefix("/b", "api"), name="new", canary="true", canary_by_header="X", canary_by_header_pattern="(?!x)"
    )
    snapshot = snapshot_of(*BASE, made, canary)
    literal = explain(snapshot, "http://example.com/a(/c")
    assert literal.upstream is not None
    assert (literal.status, literal.upstream["path"]) == (200, "/x")
    assert explain(snapshot, "http://example.com/b", headers=[("X", "y")]).service == "default/web"


def test_the_cookie_of_affinity_chooses_the_endpoint() -> None:
    said = {"affinity": "cookie", "affinity-mode": "persistent"}
    snapshot = web(*PODS, annotations={NGINX + name: value for name, value in said.items()})
    for ip, port in PODS:
        key = affinity.new_key(f"{ip}:{port}", persistent=True)
        cookie = f"INGRESSCOOKIE={key}|{affinity.backend_key('default/web:80')}"
        found = explain(snapshot, "http://example.com/", headers=[("Cookie", cookie)])
        assert found.chosen is not None
        assert found.chosen["ip"] == ip
        assert found.reasons[-1] == "affinity: the cookie says so, or what requests are told apart by"


def test_a_password_is_asked_for_and_checked() -> None:
    users = {
        **secret("users", b"", b""),
        "data": {"auth": base64.b64encode(b"ada:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=").decode()},
    }
    snapshot = snapshot_of(*BASE, users, annotated(prefix("/", "web"), auth_type="basic", auth_secret="users"))
    found = explain(snapshot, "http://example.com/")
    assert (found.status, found.response_headers) == (401, {"WWW-Authenticate": 'Basic realm=""'})
    right = [("Authorization", f"Basic {base64.b64encode(b'ada:secret').decode()}")]
    assert explain(snapshot, "http://example.com/", headers=right).status == 200


@pytest.mark.parametrize("name", ["allowlist_source_range", "denylist_source_range"])
@pytest.mark.parametrize("from_ip", [None, "10.0.0.1"])
def test_where_addresses_decide_and_none_is_said_it_is_asked_for(name: str, from_ip: str | None) -> None:
    snapshot = snapshot_of(*BASE, with_(prefix("/", "web"), **{name: "10.0.0.0/8"}))
    found = explain(snapshot, "http://example.com/", from_ip=from_ip)
    asked = "addresses: say --from-ip to see whether the client's is allowed"
    assert (asked in found.reasons) == (from_ip is None)


def test_a_redirect_between_www_and_without_is_its_own_ingress() -> None:
    made = with_(prefix("/", "web"), host="foo.com", from_to_www_redirect="true")
    found = explain(snapshot_of(*BASE, made, ingress("all", default="old")), "http://www.foo.com/")
    assert isinstance(found, Explanation)
    assert (found.status, found.ingress) == (308, "default/web")
