"""Annotations, a request, and what becomes of it: one table, held against explain and against real sockets.

The Services are those of ``tests.ingress.corpus``. Each row's description says what ingress-nginx does, by its
documentation, its template or its end-to-end tests (``test/e2e/annotations``).
"""

from dataclasses import dataclass, field
from typing import NamedTuple

from plane.model import Object
from tests.ingress.manifests import exact, ingress, ingress_class, path, prefix, rule

PREFIX = "nginx.ingress.kubernetes.io/"
E = "example.com"
ENDPOINT = "the address of the endpoint"
OLD, YOUNG = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"


@dataclass
class Want:
    """What is expected: an answer of the plane's own, or the Service that answers and what it gets.

    status    200 where a Service answers
    location  of a redirect
    uri       that the endpoint gets, where it is not the request's
    host      likewise; ENDPOINT is its own address
    got       fields that the endpoint gets; None: none of that name
    fields    of the answer; None: none of that name
    """

    status: int = 200
    service: str = ""
    location: str = ""
    uri: str = ""
    host: str = ""
    got: dict[str, str | None] = field(default_factory=dict)
    fields: dict[str, str | None] = field(default_factory=dict)


class Row(NamedTuple):
    description: str
    objects: list[Object]
    url: str
    want: Want
    headers: dict[str, str] = {}  # noqa: RUF012  # never changed
    method: str = "GET"


def named(**annotations: str) -> dict[str, str]:
    """Annotations by names with underscores for dashes, without the prefix."""
    return {PREFIX + name.replace("_", "-"): value for name, value in annotations.items()}


def with_(*paths: Object, host: str = E, name: str = "web", created: str = OLD, **annotations: str) -> Object:
    """An Ingress of one host."""
    return ingress(name, rule(host, *paths), created=created, annotations=named(**annotations))


def secured(*paths: Object, host: str = E, **annotations: str) -> Object:
    made = with_(*paths, host=host, **annotations)
    made["spec"]["tls"] = [{"hosts": [host]}]
    return made


def classed(made: Object) -> Object:
    """The Ingress under the class of ingress-nginx."""
    return {**made, "spec": {**made["spec"], "ingressClassName": "nginx"}}


def regex(text: str, service: str) -> Object:
    return path("ImplementationSpecific", text, service)


def to(service: str, **more: object) -> Want:
    return Want(service=service, **more)  # type: ignore[arg-type]


def redirected(location: str, status: int = 308) -> Want:
    return Want(status=status, location=location)


WEB = prefix("/", "web")
USERS: Object = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "users", "namespace": "default"},
    "data": {"auth": "YTp7U0hBfTVlbjZHNk1lelJyb1QzWEtxa2RQT21ZL0JmUT0="},  # a:{SHA}… of "secret"
}
TOLD: dict[str, str | None] = {
    "x-format": "text/html",
    "x-namespace": "default",
    "x-ingress-name": "web",
    "x-service-name": "web",
    "x-service-port": "80",
}
BASIC = {"auth_type": "basic", "auth_secret": "users"}
ASKED = "http://asked.invalid"  # stands for the endpoint of the Service other, which answers everything with 200


def config_map(name: str, namespace: str = "default", **data: str) -> Object:
    metadata = {"name": name, "namespace": namespace}
    named_ = {key.replace("_", "-"): text for key, text in data.items()}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": named_}


def allowing(names: str) -> Object:
    """The settings of ingress-nginx itself."""
    return config_map("ingress-nginx-controller", "ingress-nginx", global_allowed_response_headers=names)


ANSWERS = config_map("answers", X_Frame_Options="DENY", Content_Type="text/x-mine")
LONG = [
    with_(regex("/foo/.*/bar", "web"), regex("/foo/.*", "api"), regex("/f", "old"), use_regex="true"),
    with_(exact("/exact", "other"), prefix("/Pre", "web"), name="plain"),
]
REWRITE = [with_(regex("/something(/|$)(.*)", "web"), rewrite_target="/$2")]
WWW = [with_(WEB, host="foo.com", from_to_www_redirect="true")]
FROM_WWW = [with_(WEB, host="www.foo.com", from_to_www_redirect="true")]

EXPRESSED = [
    with_(WEB, server_alias=r"~^www\d+\.(other|wild)\.org$"),
    with_(prefix("/", "api"), host="www1.other.org", name="own"),
    with_(prefix("/", "old"), host="*.wild.org", name="wild"),
]

HSTS = "strict-transport-security"
A_YEAR = "max-age=31536000; includeSubDomains"
HTTPS_ONLY = [
    Row(
        "HSTS by HTTPS under the class of ingress-nginx",
        [classed(secured(WEB))],
        "https://example.com/",
        to("web", fields={HSTS: A_YEAR}),
    ),
    Row(
        "HSTS where plain HTTP is not redirected",
        [classed(secured(WEB, ssl_redirect="false"))],
        "https://example.com/",
        to("web", fields={HSTS: A_YEAR}),
    ),
    Row(
        "no HSTS by plain HTTP",
        [classed(secured(WEB, ssl_redirect="false"))],
        "http://example.com/",
        to("web", fields={HSTS: None}),
    ),
    Row(
        "no HSTS in a redirect to HTTPS",
        [classed(secured(WEB))],
        "http://example.com/x",
        Want(308, location="https://example.com/x", fields={HSTS: None}),
    ),
    Row(
        "HSTS in an answer of the plane's own",
        [classed(secured(WEB, permanent_redirect="https://foo.com"))],
        "https://example.com/",
        Want(301, location="https://foo.com", fields={HSTS: A_YEAR}),
    ),
    Row(
        "HSTS for a path miss that another Ingress takes",
        [classed(secured(prefix("/a", "web"))), ingress("all", default="other")],
        "https://example.com/b",
        to("other", fields={HSTS: A_YEAR}),
    ),
    Row(
        "no HSTS for a host without TLS",
        [classed(with_(WEB))],
        "https://example.com/",
        to("web", fields={HSTS: None}),
    ),
    Row(
        "no HSTS by default where the class is not ingress-nginx's",
        [secured(WEB)],
        "https://example.com/",
        to("web", fields={HSTS: None}),
    ),
]

REDIRECTS = [
    Row("without TLS nothing is redirected", [with_(WEB)], "http://example.com/", to("web")),
    Row(
        "a host with TLS is redirected to HTTPS",
        [secured(WEB)],
        "http://example.com/x?y=z",
        redirected("https://example.com/x?y=z"),
    ),
    Row("and served there", [secured(WEB)], "https://example.com/x", to("web")),
    Row("a slash at the end is dropped", [secured(WEB)], "http://example.com/x/", redirected("https://example.com/x")),
    Row("also that of the root", [secured(WEB)], "http://example.com/", redirected("https://example.com")),
    Row(
        "preserve-trailing-slash keeps it",
        [secured(WEB, preserve_trailing_slash="true")],
        "http://example.com/x/",
        redirected("https://example.com/x/"),
    ),
    Row("ssl-redirect false", [secured(WEB, ssl_redirect="false")], "http://example.com/", to("web")),
    Row(
        "TLS of one Ingress of a host is that of all",
        [secured(prefix("/a", "web")), with_(prefix("/b", "api"), name="other")],
        "http://example.com/b",
        redirected("https://example.com/b"),
    ),
    Row(
        "force-ssl-redirect needs no TLS",
        [with_(WEB, force_ssl_redirect="true")],
        "http://example.com/x",
        redirected("https://example.com/x"),
    ),
    Row(
        "a path miss is redirected too",
        [secured(prefix("/a", "web"))],
        "http://example.com/b",
        redirected("https://example.com/b"),
    ),
    Row("before it is not found", [secured(prefix("/a", "web"))], "https://example.com/b", Want(404)),
    Row(
        "a host is redirected by its own name",
        [secured(WEB, host="*.foo.com")],
        "http://a.foo.com/x",
        redirected("https://a.foo.com/x"),
    ),
    Row(
        "an Ingress of another controller's class is not redirected",
        [{**secured(WEB), "spec": {**secured(WEB)["spec"], "ingressClassName": "traefik"}}],
        "http://example.com/",
        to("web"),
    ),
    Row(
        "permanent-redirect",
        [with_(WEB, permanent_redirect="https://www.google.com")],
        "http://example.com/x",
        redirected("https://www.google.com", 301),
    ),
    Row(
        "permanent-redirect-code",
        [with_(WEB, permanent_redirect="https://www.google.com", permanent_redirect_code="308")],
        "http://example.com/x",
        redirected("https://www.google.com"),
    ),
    Row(
        "with variables of NGINX",
        [with_(WEB, permanent_redirect="$scheme://new.org$request_uri")],
        "http://example.com/x?y=$host",
        redirected("http://new.org/x?y=$host", 301),
    ),
    Row(
        "temporal-redirect",
        [with_(WEB, temporal_redirect="https://www.google.com")],
        "http://example.com/x",
        redirected("https://www.google.com", 302),
    ),
    Row(
        "temporal-redirect-code, and it counts before permanent-redirect",
        [
            with_(
                WEB,
                temporal_redirect="https://a.com",
                temporal_redirect_code="307",
                permanent_redirect="https://b.com",
            )
        ],
        "http://example.com/x",
        redirected("https://a.com", 307),
    ),
    Row(
        "a redirect counts before that to HTTPS",
        [secured(WEB, permanent_redirect="https://b.com")],
        "http://example.com/",
        redirected("https://b.com", 301),
    ),
    Row(
        "app-root redirects the root",
        [with_(WEB, app_root="/app1")],
        "http://example.com/",
        redirected("http://example.com/app1", 302),
    ),
    Row("and nothing else", [with_(WEB, app_root="/app1")], "http://example.com/app1", to("web")),
    Row(
        "app-root is that of the whole host",
        [with_(prefix("/a", "web"), app_root="/app1"), with_(WEB, name="root")],
        "http://example.com/",
        redirected("http://example.com/app1", 302),
    ),
    Row(
        "app-root among regular expressions",
        [with_(regex("/(.*)", "web"), app_root="/app1", use_regex="true")],
        "http://example.com/",
        redirected("http://example.com/app1", 302),
    ),
    Row("from-to-www-redirect to the bare name", WWW, "http://www.foo.com/x?y", redirected("http://foo.com/x?y")),
    Row("which is served", WWW, "http://foo.com/x", to("web")),
    Row("from-to-www-redirect to www", FROM_WWW, "http://foo.com/x/", redirected("http://www.foo.com/x")),
    Row("keeps the scheme", FROM_WWW, "https://foo.com/x", redirected("https://www.foo.com/x")),
    Row(
        "a host that has rules is not redirected",
        [*WWW, with_(prefix("/", "api"), host="www.foo.com", name="own")],
        "http://www.foo.com/",
        to("api"),
    ),
    Row("server-alias", [with_(WEB, server_alias="other.org, *.wild.org")], "http://other.org/", to("web")),
    Row("of wildcards too", [with_(WEB, server_alias="other.org, *.wild.org")], "http://a.wild.org/", to("web")),
    Row("server-alias by an expression", EXPRESSED, "http://www12.other.org/", to("web")),
    Row("in whatever case", EXPRESSED, "http://WWW12.other.org/", to("web")),
    Row("which must match", EXPRESSED, "http://wwwx.other.org/", Want(404)),
    Row("a name comes before an expression", EXPRESSED, "http://www1.other.org/", to("api")),
    Row("so does a wildcard", EXPRESSED, "http://www2.wild.org/", to("old")),
    Row(
        "and an expression before rules for any host",
        [*EXPRESSED, with_(prefix("/", "other"), host="", name="any")],
        "http://www12.other.org/",
        to("web"),
    ),
    Row(
        "an alias that has rules of its own is none",
        [with_(WEB, server_alias="other.org"), with_(prefix("/", "api"), host="other.org", name="own")],
        "http://other.org/",
        to("api"),
    ),
]

REGEXES = [
    Row("use-regex: the longest first", LONG, "http://example.com/foo/x/bar", to("web")),
    Row("then the next", LONG, "http://example.com/foo/x", to("api")),
    Row("they match where the path begins", LONG, "http://example.com/xf", Want(404)),
    Row("and need not match all of it", LONG, "http://example.com/fx/y", to("old")),
    Row("in whatever case", LONG, "http://example.com/FOO/x", to("api")),
    Row("also those of another Ingress of the host", LONG, "http://example.com/pRe", to("web")),
    Row("which are no whole elements any more", LONG, "http://example.com/prefix", to("web")),
    Row("and Exact is none", LONG, "http://example.com/EXACTLY/x", to("other")),
    Row(
        "another host keeps its types",
        [*LONG, with_(prefix("/pre", "web"), host="b.com", name="b")],
        "http://b.com/prefix",
        Want(404),
    ),
    Row(
        "of the same length the last by name is first",
        [with_(regex("/[a]", "web"), regex("/[ab]", "api"), regex("/[b]", "old"), use_regex="true")],
        "http://example.com/b",
        to("api"),
    ),
    Row(
        "a path that is no expression is meant literally",
        [with_(regex("/x.*", "web"), use_regex="true"), with_(prefix("/(", "api"), name="plain")],
        "http://example.com/(",
        to("api"),
    ),
    Row("rewrite-target with groups", REWRITE, "http://example.com/something/new", to("web", uri="/new")),
    Row("a group that matched nothing is empty", REWRITE, "http://example.com/something", to("web", uri="/")),
    Row("with a slash", REWRITE, "http://example.com/something/", to("web", uri="/")),
    Row("the query stays", REWRITE, "http://example.com/something/a/b?c=/d", to("web", uri="/a/b?c=/d")),
    Row("it implies use-regex", REWRITE, "http://example.com/somethingelse", Want(404)),
    Row("what is rewritten is normal", REWRITE, "http://example.com/x/../something//a%7E", to("web", uri="/a~")),
    Row("what is encoded stays so", REWRITE, "http://example.com/something/a%20b%2Fc", to("web", uri="/a%20b%2Fc")),
    Row("in whatever case, and the rest keeps its", REWRITE, "http://example.com/SomeThing/New", to("web", uri="/New")),
    Row(
        "without groups all of the path goes",
        [with_(prefix("/app", "web"), rewrite_target="/")],
        "http://example.com/app/x",
        to("web", uri="/"),
    ),
    Row(
        "a target that is the path is no rewrite",
        [with_(prefix("/app", "web"), rewrite_target="/app")],
        "http://example.com/app/x",
        to("web", uri="/app/x"),
    ),
    Row(
        "and no use-regex",
        [with_(prefix("/app", "web"), rewrite_target="/app")],
        "http://example.com/apple",
        Want(404),
    ),
    Row(
        "a group beyond the ninth is none, $10 is $1 and 0",
        [with_(regex("/(.)(.*)", "web"), rewrite_target="/$10/$9/$2")],
        "http://example.com/ab",
        to("web", uri="/a0//b"),
    ),
    Row(
        "x-forwarded-prefix",
        [with_(regex("/(v1)/(.*)", "web"), rewrite_target="/$2", x_forwarded_prefix="/$1")],
        "http://example.com/v1/a",
        to("web", uri="/a", got={"x-forwarded-prefix": "/v1"}),
        {"X-Forwarded-Prefix": "/evil"},
    ),
    Row(
        "upstream-vhost",
        [with_(WEB, upstream_vhost="inside.local")],
        "http://example.com/",
        to("web", host="inside.local", got={"x-forwarded-host": "example.com"}),
    ),
    Row(
        "a path that would take exponential time elsewhere",
        [with_(regex("/(a+)+$", "web"), use_regex="true")],
        f"http://example.com/{'a' * 4000}b",
        Want(404),
    ),
]


def canary(
    service: str = "api", *, paths: tuple[str, ...] = ("/",), created: str = YOUNG, **annotations: str
) -> Object:
    rules = [prefix(text, service) for text in paths]
    return with_(*rules, name=f"canary-{service}", created=created, canary="true", **annotations)


BY_HEADER = [with_(WEB), canary(canary_by_header="X-Canary")]
BY_VALUE = [with_(WEB), canary(canary_by_header="X-Canary", canary_by_header_value="yes")]
BY_PATTERN = [with_(WEB), canary(canary_by_header="X-Canary", canary_by_header_pattern="^ye?s")]
BY_COOKIE = [with_(WEB), canary(canary_by_cookie="try")]
BY_ALL = [with_(WEB), canary(canary_by_header="X-Canary", canary_by_cookie="try", canary_weight="100")]
ALWAYS, NEVER = {"X-Canary": "always"}, {"X-Canary": "never"}

CANARIES = [
    Row("a canary without conditions takes nothing", [with_(WEB), canary()], "http://example.com/", to("web")),
    Row("by header: always", BY_HEADER, "http://example.com/", to("api"), ALWAYS),
    Row("by header: never", BY_HEADER, "http://example.com/", to("web"), NEVER),
    Row("by header: another value decides nothing", BY_HEADER, "http://example.com/", to("web"), {"X-Canary": "yes"}),
    Row("by header: its name in whatever case", BY_HEADER, "http://example.com/", to("api"), {"x-canary": "always"}),
    Row("by value", BY_VALUE, "http://example.com/", to("api"), {"X-Canary": "yes"}),
    Row("by value: always is another value", BY_VALUE, "http://example.com/", to("web"), ALWAYS),
    Row("by pattern", BY_PATTERN, "http://example.com/", to("api"), {"X-Canary": "ysss"}),
    Row("by pattern: it does not match", BY_PATTERN, "http://example.com/", to("web"), {"X-Canary": "no yes"}),
    Row(
        "a value counts before a pattern",
        [
            with_(WEB),
            canary(canary_by_header="X-Canary", canary_by_header_value="yes", canary_by_header_pattern="no"),
        ],
        "http://example.com/",
        to("web"),
        {"X-Canary": "no"},
    ),
    Row("by cookie: always", BY_COOKIE, "http://example.com/", to("api"), {"Cookie": "a=b; try=always"}),
    Row("by cookie: never", BY_COOKIE, "http://example.com/", to("web"), {"Cookie": "try=never"}),
    Row("by cookie: another value", BY_COOKIE, "http://example.com/", to("web"), {"Cookie": "try=1"}),
    Row(
        "the header counts before the cookie",
        BY_ALL,
        "http://example.com/",
        to("web"),
        {**NEVER, "Cookie": "try=always"},
    ),
    Row("the cookie before the weight", BY_ALL, "http://example.com/", to("web"), {"Cookie": "try=never"}),
    Row("and then the weight: all", BY_ALL, "http://example.com/", to("api")),
    Row("weight 0", [with_(WEB), canary(canary_weight="0")], "http://example.com/", to("web")),
    Row(
        "weight-total",
        [with_(WEB), canary(canary_weight="1000", canary_weight_total="1000")],
        "http://example.com/",
        to("api"),
    ),
    Row(
        "a weight-total below 100 is 100",
        [with_(WEB), canary(canary_weight="0", canary_weight_total="1")],
        "http://example.com/",
        to("web"),
    ),
    Row("a canary without a rule of its own is none", [canary(canary_weight="100")], "http://example.com/", Want(404)),
    Row(
        "another path has no canary",
        [with_(WEB, prefix("/x", "old")), canary(canary_weight="100")],
        "http://example.com/x",
        to("old"),
    ),
    Row(
        "a canary of another pathType is none",
        [with_(WEB), with_(regex("/", "api"), name="canary", canary="true", canary_weight="100")],
        "http://example.com/",
        to("web"),
    ),
    Row(
        "of two canaries the older counts",
        [with_(WEB), canary("api", created=YOUNG), canary("old", created=OLD, canary_weight="100")],
        "http://example.com/",
        to("old"),
    ),
    Row(
        "a canary may be older than its rule",
        [with_(WEB, created=YOUNG), canary(created=OLD, canary_weight="100")],
        "http://example.com/",
        to("api"),
    ),
    Row(
        "the rule's other annotations hold for it",
        [
            with_(regex("/v(.*)", "web"), rewrite_target="/$1"),
            with_(regex("/v(.*)", "api"), name="c", canary="true", canary_weight="100"),
        ],
        "http://example.com/vx",
        to("api", uri="/x"),
    ),
    Row(
        "its own do not",
        [with_(WEB), canary(canary_weight="100", permanent_redirect="https://a.com")],
        "http://example.com/",
        to("api"),
    ),
    Row(
        "a canary without an endpoint takes nothing by weight",
        [with_(WEB), canary("empty", canary_weight="100")],
        "http://example.com/",
        to("web"),
    ),
    Row(
        "a canary without a ready endpoint takes nothing by header",
        [with_(WEB), canary("starting", canary_by_header="X-Canary")],
        "http://example.com/",
        to("web"),
        ALWAYS,
    ),
    Row(
        "a canary of a Service that is not there takes nothing by cookie",
        [with_(WEB), canary("none", canary_by_cookie="try")],
        "http://example.com/",
        to("web"),
        {"Cookie": "try=always"},
    ),
    Row(
        "a rule without an endpoint leaves its canary what that takes",
        [with_(prefix("/", "empty")), canary(canary_by_header="X-Canary")],
        "http://example.com/",
        to("api"),
        ALWAYS,
    ),
    Row(
        "and what the canary does not take gets 503",
        [with_(prefix("/", "empty")), canary(canary_by_header="X-Canary")],
        "http://example.com/",
        Want(503),
        NEVER,
    ),
    Row(
        "nor does a canary help where neither has an endpoint",
        [with_(prefix("/", "empty")), canary("starting", canary_weight="100")],
        "http://example.com/",
        Want(503),
    ),
    Row(
        "a canary of the rule's own Service changes nothing",
        [with_(WEB), canary("web", canary_weight="100")],
        "http://example.com/",
        to("web"),
    ),
]

HERE, ELSEWHERE = "127.0.0.0/8", "10.0.0.0/8,192.0.2.1"
ORIGIN = {"Origin": "https://a.foo.com"}
CORS = [with_(WEB, enable_cors="true")]
SOME = [with_(WEB, enable_cors="true", cors_allow_origin="https://*.foo.com, http://bar.org:8080")]
ALLOW_ORIGIN = "access-control-allow-origin"
VARIES = {ALLOW_ORIGIN: "https://a.foo.com", "vary": "Origin"}
NONE_OF = {ALLOW_ORIGIN: None, "access-control-allow-methods": None}
PREFLIGHT = {
    ALLOW_ORIGIN: "*",
    "access-control-allow-credentials": "true",
    "access-control-allow-methods": "GET, PUT, POST, DELETE, PATCH, OPTIONS",
    "access-control-max-age": "1728000",
    "content-type": "text/plain charset=UTF-8",
    "content-length": None,
}

ACCESS = [
    Row(
        "whitelist-source-range: not in it",
        [with_(WEB, whitelist_source_range=ELSEWHERE)],
        "http://example.com/",
        Want(403),
    ),
    Row("in it", [with_(WEB, whitelist_source_range=f"10.0.0.0/8, {HERE}")], "http://example.com/", to("web")),
    Row("its other name", [with_(WEB, allowlist_source_range=ELSEWHERE)], "http://example.com/", Want(403)),
    Row("denylist-source-range: in it", [with_(WEB, denylist_source_range=HERE)], "http://example.com/", Want(403)),
    Row("not in it", [with_(WEB, denylist_source_range=ELSEWHERE)], "http://example.com/", to("web")),
    Row(
        "denied counts before allowed",
        [with_(WEB, denylist_source_range=HERE, allowlist_source_range=HERE)],
        "http://example.com/",
        Want(403),
    ),
    Row(
        "a list of IPv6 only lets nobody in",
        [with_(WEB, allowlist_source_range="fd00::/8")],
        "http://example.com/",
        Want(403),
    ),
    Row(
        "HTTPS comes before addresses",
        [secured(WEB, denylist_source_range=HERE)],
        "http://example.com/x",
        redirected("https://example.com/x"),
    ),
    Row("enable-cors: any origin", CORS, "http://example.com/", to("web", fields={ALLOW_ORIGIN: "*"}), ORIGIN),
    Row("also without one", CORS, "http://example.com/", to("web", fields={ALLOW_ORIGIN: "*"})),
    Row("OPTIONS is answered", CORS, "http://example.com/", Want(204, fields=PREFLIGHT), ORIGIN, "OPTIONS"),
    Row(
        "an origin that is allowed",
        SOME,
        "http://example.com/",
        to("web", fields={ALLOW_ORIGIN: "https://a.foo.com"}),
        ORIGIN,
    ),
    Row("its port counts", SOME, "http://example.com/", to("web", fields=NONE_OF), {"Origin": "http://bar.org"}),
    Row(
        "one that is not",
        SOME,
        "http://example.com/",
        to("web", fields=NONE_OF),
        {"Origin": "https://foo.com.evil.org"},
    ),
    Row(
        "a wildcard is one label",
        SOME,
        "http://example.com/",
        to("web", fields=NONE_OF),
        {"Origin": "https://a.b.foo.com"},
    ),
    Row("none at all", SOME, "http://example.com/", to("web", fields=NONE_OF)),
    Row("OPTIONS of another origin goes on", SOME, "http://example.com/", to("web"), {"Origin": "null"}, "OPTIONS"),
    Row(
        "the rest of the family",
        [
            with_(
                WEB,
                enable_cors="true",
                cors_allow_methods="PUT, GET",
                cors_allow_headers="X-One,X-Two",
                cors_expose_headers="X-Three",
                cors_allow_credentials="false",
                cors_max_age="600",
            )
        ],
        "http://example.com/",
        to(
            "web",
            fields={
                "access-control-allow-methods": "PUT, GET",
                "access-control-allow-headers": "X-One,X-Two",
                "access-control-expose-headers": "X-Three",
                "access-control-allow-credentials": None,
                "access-control-max-age": "600",
            },
        ),
    ),
    Row(
        "answers of the plane's own have it too",
        [with_(WEB, enable_cors="true", denylist_source_range=HERE)],
        "http://example.com/",
        Want(403, fields={ALLOW_ORIGIN: "*"}),
    ),
    Row(
        "a missing auth-secret lets nobody in, as in ingress-nginx",
        [with_(WEB, auth_type="basic", auth_secret="ghost")],
        "http://example.com/",
        Want(503),
    ),
    Row(
        "one of another namespace neither",
        [with_(WEB, auth_type="basic", auth_secret="other/users")],
        "http://example.com/",
        Want(503),
    ),
    Row(
        "a body that is announced too large",
        [with_(WEB, proxy_body_size="10")],
        "http://example.com/",
        Want(413),
        {"Content-Length": "11"},
        "POST",
    ),
    Row(
        "auth-url: who is asked lets the request in",
        [with_(WEB, auth_url=f"{ASKED}/check?of=$request_uri")],
        "http://example.com/x",
        to("web"),
    ),
    Row(
        "auth-url: a Service that is not there lets nobody in",
        [with_(WEB, auth_url="http://ghost.default.svc.cluster.local/check")],
        "http://example.com/x",
        Want(500),
    ),
    Row(
        "auth-url: a Service without a ready endpoint lets nobody in",
        [with_(WEB, auth_url="http://starting.default.svc.cluster.local/check")],
        "http://example.com/x",
        Want(500),
    ),
    Row(
        "auth-response-headers are not the client's to say",
        [with_(WEB, auth_url=ASKED, auth_response_headers="X-User, X-Groups")],
        "http://example.com/",
        to("web", got={"x-user": None, "x-groups": None, "x-other": "stays"}),
        {"X-User": "root", "x-groups": "wheel", "X-Other": "stays"},
    ),
    Row(
        "satisfy all: the password counts too",
        [USERS, with_(WEB, auth_url=ASKED, **BASIC)],
        "http://example.com/",
        Want(401),
    ),
    Row(
        "satisfy any: whoever is asked is enough",
        [USERS, with_(WEB, auth_url=ASKED, satisfy="any", **BASIC)],
        "http://example.com/",
        to("web"),
    ),
    Row(
        "satisfy any: an address is enough",
        [USERS, with_(WEB, allowlist_source_range="127.0.0.0/8", satisfy="any", **BASIC)],
        "http://example.com/",
        to("web"),
    ),
    Row(
        "satisfy any: one that is denied may come in by its password",
        [USERS, with_(WEB, denylist_source_range="127.0.0.0/8", satisfy="any", **BASIC)],
        "http://example.com/",
        to("web"),
        {"Authorization": "Basic YTpzZWNyZXQ="},
    ),
    Row(
        "satisfy any: neither address nor password is 401",
        [USERS, with_(WEB, allowlist_source_range="192.0.2.1", satisfy="any", **BASIC)],
        "http://example.com/",
        Want(401),
    ),
    Row(
        "satisfy any: where there is nothing but addresses they count",
        [with_(WEB, allowlist_source_range="192.0.2.1", satisfy="any")],
        "http://example.com/",
        Want(403),
    ),
    Row(
        "auth-signin is where whoever gets 401 is sent",
        [USERS, with_(WEB, auth_url=ASKED, auth_signin="https://$host/start", **BASIC)],
        "http://example.com/x?y=z",
        redirected("https://example.com/start?rd=http://example.com%2Fx%3Fy%3Dz", 302),
    ),
    Row(
        "auth-signin-redirect-param",
        [
            USERS,
            with_(WEB, auth_url=ASKED, auth_signin="/start?a=b", auth_signin_redirect_param="from", **BASIC),
        ],
        "http://example.com/",
        redirected("http://example.com/start?a=b&from=http://example.com%2F", 302),
    ),
    Row(
        "a client does not choose who is asked",
        [with_(WEB, host="", auth_url="http://$host/check")],
        "http://example.com/",
        Want(503),
    ),
    Row(
        "auth-proxy-set-headers without its ConfigMap lets nobody in",
        [with_(WEB, auth_url=ASKED, auth_proxy_set_headers="default/none")],
        "http://example.com/",
        Want(503),
    ),
    Row(
        "nor does one of another namespace",
        [with_(WEB, auth_url=ASKED, auth_proxy_set_headers="other/none")],
        "http://example.com/",
        Want(503),
    ),
    Row(
        "a path miss is for whoever is asked, first",
        [with_(prefix("/a", "web"), auth_url=ASKED)],
        "http://example.com/b",
        Want(404),
    ),
    Row(
        "default-backend serves where the Service has no endpoint",
        [with_(prefix("/", "empty"), default_backend="other")],
        "http://example.com/x?y=z",
        to("other", got={"x-code": "503", "x-original-uri": None, **TOLD, "x-service-name": "empty"}),
        {"Accept": "text/html", "X-Service-Name": "mine"},
    ),
    Row(
        "default-backend does not where it has one",
        [with_(WEB, default_backend="other")],
        "http://example.com/",
        to("web", got={"x-code": None}),
    ),
    Row(
        "a default-backend without an endpoint serves nobody",
        [with_(prefix("/", "empty"), default_backend="starting")],
        "http://example.com/",
        Want(503),
    ),
    Row(
        "custom-http-errors: the default-backend makes the answer",
        [with_(WEB, denylist_source_range="127.0.0.0/8", custom_http_errors="403,404", default_backend="other")],
        "http://example.com/x?y=z",
        to("other", uri="/?y=z", got={"x-code": "403", "x-original-uri": "/x?y=z", **TOLD}),
        {"Accept": "text/html", "X-Code": "200"},
    ),
    Row(
        "also that of a path miss",
        [with_(prefix("/a", "web"), custom_http_errors="403,404", default_backend="other")],
        "http://example.com/b",
        to("other", uri="/", got={"x-code": "404", "x-namespace": "default", "x-service-name": None}),
    ),
    Row(
        "an answer with another status stays",
        [with_(WEB, denylist_source_range="127.0.0.0/8", custom_http_errors="404", default_backend="other")],
        "http://example.com/",
        Want(403),
    ),
    Row(
        "without a default-backend errors are 404",
        [with_(prefix("/", "empty"), custom_http_errors="503")],
        "http://example.com/",
        Want(404),
    ),
    Row(
        "what is denied is for no default-backend",
        [with_(WEB, auth_type="basic", auth_secret="none", custom_http_errors="503", default_backend="other")],
        "http://example.com/",
        Want(503),
    ),
    Row(
        "custom-headers of every answer",
        [with_(WEB, custom_headers="default/answers"), ANSWERS],
        "http://example.com/",
        to("web", fields={"x-frame-options": "DENY", "content-type": "text/x-mine"}),
    ),
    Row(
        "also of the plane's own, once",
        [with_(WEB, custom_headers="answers", denylist_source_range="127.0.0.0/8"), ANSWERS],
        "http://example.com/",
        Want(403, fields={"x-frame-options": "DENY", "content-type": "text/x-mine"}),
    ),
    Row(
        "custom-headers without its ConfigMap is 503",
        [with_(WEB, custom_headers="default/none"), ANSWERS],
        "http://example.com/",
        Want(503),
    ),
    Row(
        "custom-headers that ingress-nginx is told to allow",
        [with_(WEB, custom_headers="answers"), ANSWERS, allowing("Content-Type, X-Frame-Options")],
        "http://example.com/",
        to("web", fields={"x-frame-options": "DENY"}),
    ),
    Row(
        "custom-headers that it is not told to allow are 503",
        [with_(WEB, custom_headers="answers"), ANSWERS, allowing("Content-Type")],
        "http://example.com/",
        Want(503),
    ),
    Row(
        "mirror-target changes nothing of the answer",
        [with_(WEB, mirror_target=f"{ASKED}$request_uri")],
        "http://example.com/x",
        to("web"),
    ),
    Row(
        "auth-tls-secret lets nobody in",
        [with_(WEB, auth_tls_secret="default/ca")],
        "https://example.com/",
        Want(503),
    ),
    Row(
        "unless no certificate is asked for",
        [with_(WEB, auth_tls_secret="default/ca", auth_tls_verify_client="off")],
        "https://example.com/",
        to("web"),
    ),
    Row(
        "a path miss is asked for the password first",
        [USERS, with_(prefix("/a", "web"), auth_type="basic", auth_secret="users")],
        "http://example.com/b",
        Want(401),
    ),
    Row("answers that differ by origin say so", SOME, "http://example.com/", to("web", fields=VARIES), ORIGIN),
    Row("also where there is no origin", SOME, "http://example.com/", to("web", fields={"vary": "Origin"})),
    Row("and not where any may ask", CORS, "http://example.com/", to("web", fields={"vary": None}), ORIGIN),
]


def general(**annotations: str) -> Object:
    """An Ingress that takes what no other does, to the Service ``old``."""
    return ingress("all", default="old", annotations=named(**annotations))


LIMITED = with_(prefix("/a", "web"), proxy_body_size="10")
MISSES = [
    Row(
        "a path miss has the policies of the default it goes to",
        [LIMITED, general(allowlist_source_range=ELSEWHERE)],
        "http://example.com/b",
        Want(403),
    ),
    Row(
        "and all of them",
        [LIMITED, general(upstream_vhost="inside.local")],
        "http://example.com/b",
        to("old", host="inside.local"),
    ),
    Row(
        "but HTTPS as its own host says",
        [secured(prefix("/a", "web")), general()],
        "http://example.com/b",
        redirected("https://example.com/b"),
    ),
    Row(
        "and then the default's",
        [secured(prefix("/a", "web")), general(denylist_source_range=HERE)],
        "https://example.com/b",
        Want(403),
    ),
    Row(
        "a host that lets not everybody in sends nobody to another's default",
        [with_(prefix("/a", "web"), allowlist_source_range=HERE), general()],
        "http://example.com/b",
        Want(404),
    ),
    Row(
        "nor one that is elsewhere",
        [with_(prefix("/a", "web"), permanent_redirect="https://new.org/"), general()],
        "http://example.com/b",
        redirected("https://new.org/", 301),
    ),
    Row(
        "nor one with or without www",
        [*WWW, general(allowlist_source_range=ELSEWHERE)],
        "http://www.foo.com/x",
        redirected("http://foo.com/x"),
    ),
]

GUARDED = [with_(prefix("/a", "web"), allowlist_source_range=HERE), with_(prefix("/", "api"), name="open")]
PATHS = [
    Row("an encoded slash on a route with source ranges", GUARDED, "http://example.com/a/b%2fc", Want(400)),
    Row("a backslash", GUARDED, "http://example.com/a/b%5Cc", Want(400)),
    Row("an encoded zero", GUARDED, "http://example.com/a/b%00", Want(400)),
    Row("a path that would be on such a route", GUARDED, "http://example.com/a%2Fb", Want(400)),
    Row("also by its other end", GUARDED, "http://example.com/a%00b", Want(400)),
    Row("and one that would not", GUARDED, "http://example.com/b%2Fa", to("api")),
    Row("and others go on", GUARDED, "http://example.com/a/b%20c", to("web")),
    Row(
        "on a route with a password",
        [USERS, with_(WEB, auth_type="basic", auth_secret="users")],
        "http://example.com/a%2Fb",
        Want(400),
    ),
    Row("two dots before an encoded slash on any route", [with_(WEB)], "http://example.com/a/..%2Fb", Want(400)),
    Row("behind one", [with_(WEB)], "http://example.com/a%2f..", Want(400)),
    Row("beside a backslash", [with_(WEB)], "http://example.com/a%5C../b", Want(400)),
    Row("written in whatever way", [with_(WEB)], "http://example.com/%2E%2e%5cb", Want(400)),
    Row("two dots elsewhere", [with_(WEB)], "http://example.com/a/../b%2Fc", to("web")),
    Row("and a name with two dots", [with_(WEB)], "http://example.com/a..%2Fb", to("web")),
]
ROWS = [*HTTPS_ONLY, *REDIRECTS, *REGEXES, *CANARIES, *ACCESS, *MISSES, *PATHS]
CLASS = ingress_class("nginx", "k8s.io/ingress-nginx", default=True)
