"""Ingresses of Kong's class, a request, and what becomes of it: rows for the tests of ``tests.ingress.policies``.

Each row's description says what Kong's ingress controller 3 does, by its translation of Ingresses, its annotations and
the order of Kong's router.
"""

from plane.model import Object
from tests.ingress.manifests import exact, ingress, path, prefix, rule, service
from tests.ingress.policies import ENDPOINT, OLD, YOUNG, E, Row, Want, redirected, to

PREFIX = "konghq.com/"


def named(**annotations: str) -> dict[str, str]:
    """Annotations by names with underscores for dashes, without the prefix."""
    return {PREFIX + name.replace("_", "-"): value for name, value in annotations.items()}


def with_(
    *paths: Object,
    host: str = E,
    name: str = "web",
    created: str = OLD,
    also: dict[str, str] | None = None,
    **said: str,
) -> Object:
    """An Ingress of one host."""
    made = ingress(name, rule(host, *paths), created=created, annotations={**named(**said), **(also or {})})
    made["spec"]["ingressClassName"] = "kong"
    return made


def its(**annotations: str) -> Object:
    """The Service ``web`` of the tests, with annotations."""
    return service("web", port_name="http", annotations=named(**annotations))


def specific(text: str, to: str) -> Object:
    return path("ImplementationSpecific", text, to)


WEB = prefix("/", "web")
FOO = prefix("/foo", "web")
STRIPPED = [with_(FOO, exact("/exact", "api"), specific("/chars", "old"), strip_path="true")]
NUMBERED = [with_(specific(r"/~/v(\d+)/(.*)", "web"), strip_path="true")]
BELOW = [its(path="/base"), with_(FOO)]
METHODS = [with_(WEB, methods="post, PUT"), with_(prefix("/", "api"), name="b", created=YOUNG, methods="GET")]
HEADER = f"{PREFIX}headers.X-Version"
VERSIONS = [
    with_(WEB),
    with_(prefix("/", "api"), name="two", created=YOUNG, also={HEADER: "2,v2"}),
    with_(prefix("/", "old"), name="any", created=YOUNG, also={HEADER: "~*^beta"}),
]
SECURE = [with_(WEB, protocols="https")]
MOVED = [with_(WEB, protocols="https", https_redirect_status_code="301")]
HOSTS = [with_(WEB, host_aliases="other.org, *.wild.org"), with_(prefix("/x", "api"), host="other.org", name="own")]

ROWS = [
    Row("without strip-path the path stays", [with_(FOO)], "http://example.com/foo/x", to("web")),
    Row("strip-path", STRIPPED, "http://example.com/foo/x?y", to("web", uri="/x?y")),
    Row("strip-path of all there is", STRIPPED, "http://example.com/foo", to("web", uri="/")),
    Row("strip-path of an Exact", STRIPPED, "http://example.com/exact", to("api", uri="/")),
    Row("strip-path by characters", STRIPPED, "http://example.com/charset", to("old", uri="/et")),
    Row("strip-path of what an expression matched", NUMBERED, "http://example.com/v12/x", to("web", uri="/")),
    Row(
        "and what it did not",
        [with_(specific(r"/~/v(\d+)", "web"), strip_path="true")],
        "http://example.com/v12/x",
        to("web", uri="/x"),
    ),
    Row(
        "a path of more groups than can be counted",
        [with_(specific("/~/" + "(a)" * 9, "web"), strip_path="true")],
        "http://example.com/" + "a" * 9,
        Want(503),
    ),
    Row("path of a Service", BELOW, "http://example.com/foo/x", to("web", uri="/base/foo/x")),
    Row("of the root", [its(path="/base"), with_(WEB)], "http://example.com/", to("web", uri="/base")),
    Row(
        "path with strip-path",
        [its(path="/base/"), with_(FOO, strip_path="true")],
        "http://example.com/foo/x",
        to("web", uri="/base/x"),
    ),
    Row(
        "rewrite with groups",
        [with_(specific("/~/users/(\\w+)", "web"), rewrite="/requests/users/$1")],
        "http://example.com/users/ada?x=y",
        to("web", uri="/requests/users/ada?x=y"),
    ),
    Row(
        "rewrite of a path without groups, before strip-path",
        [with_(FOO, rewrite="/new/$1", strip_path="true")],
        "http://example.com/foo/x",
        to("web", uri="/new/"),
    ),
    Row(
        "ImplementationSpecific is by characters", [with_(specific("/fo", "web"))], "http://example.com/foo", to("web")
    ),
    Row("and Prefix by elements", [with_(FOO)], "http://example.com/foobar", Want(404)),
    Row("an expression behind /~", [with_(specific("/~/v[0-9]+$", "web"))], "http://example.com/v1", to("web")),
    Row(
        "it matches where a path begins", [with_(specific("/~/v[0-9]+$", "web"))], "http://example.com/a/v1", Want(404)
    ),
    Row("as it is written", [with_(specific("/~/v[0-9]+$", "web"))], "http://example.com/V1", Want(404)),
    Row(
        "regex-prefix",
        [with_(specific("/@/v[0-9]+$", "web"), regex_prefix="/@")],
        "http://example.com/v1",
        to("web"),
    ),
    Row(
        "an expression comes before a longer prefix",
        [with_(prefix("/foo/bar", "web"), specific("/~/fo+", "api"))],
        "http://example.com/foo/bar",
        to("api"),
    ),
    Row(
        "regex-priority",
        [with_(specific("/~/fo+", "web")), with_(specific("/~/f", "api"), name="b", regex_priority="1")],
        "http://example.com/foo",
        to("api"),
    ),
    Row("methods", METHODS, "http://example.com/", to("web"), method="PUT"),
    Row("of another Ingress of the same rule", METHODS, "http://example.com/", to("api")),
    Row("and of none", METHODS, "http://example.com/", Want(404), method="DELETE"),
    Row(
        "who says more comes first",
        [with_(prefix("/foo/bar", "web")), with_(prefix("/foo", "api"), name="b", methods="GET")],
        "http://example.com/foo/bar",
        to("api"),
    ),
    Row("headers", VERSIONS, "http://example.com/", to("api"), {"X-Version": "V2"}),
    Row("headers by an expression", VERSIONS, "http://example.com/", to("old"), {"X-Version": "Beta7"}),
    Row("without them", VERSIONS, "http://example.com/", to("web"), {"X-Version": "3"}),
    Row(
        "headers-separator",
        [with_(WEB, also={HEADER: "a,b;c", f"{PREFIX}headers-separator": ";"})],
        "http://example.com/",
        to("web"),
        {"X-Version": "a,b"},
    ),
    Row(
        "protocols https: HTTP is told to upgrade",
        SECURE,
        "http://example.com/x",
        Want(426, fields={"upgrade": "TLS/1.2, HTTP/1.1"}),
    ),
    Row("and HTTPS is served", SECURE, "https://example.com/x", to("web")),
    Row("protocols http takes HTTPS too", [with_(WEB, protocols="http")], "https://example.com/x", to("web")),
    Row(
        "https-redirect-status-code",
        MOVED,
        "http://example.com/x/?y",
        redirected("https://example.com/x/?y", 301),
    ),
    Row(
        "spec.tls alone redirects nobody",
        [{**with_(WEB), "spec": {**with_(WEB)["spec"], "tls": [{"hosts": [E]}]}}],
        "http://example.com/x",
        to("web"),
    ),
    Row("host-aliases", HOSTS, "http://other.org/y", to("web")),
    Row("of wildcards", HOSTS, "http://a.wild.org/y", to("web")),
    Row("other rules of such a host stay", HOSTS, "http://other.org/x", to("api")),
    Row("and are not those of the first", HOSTS, "http://example.com/x", to("web")),
    Row(
        "a path miss goes on to rules for any host",
        [with_(FOO), with_(prefix("/", "old"), host="", name="any")],
        "http://example.com/miss",
        to("old"),
    ),
    Row(
        "but who names the host comes first, however short",
        [with_(prefix("/f", "web")), with_(prefix("/f/oo", "old"), host="", name="any")],
        "http://example.com/f/oo",
        to("web"),
    ),
    Row("preserve-host", [with_(WEB, preserve_host="true")], "http://example.com/", to("web")),
    Row("preserve-host false", [with_(WEB, preserve_host="false")], "http://example.com/", to("web", host=ENDPOINT)),
    Row(
        "host-header",
        [its(host_header="inside.local"), with_(WEB, preserve_host="false")],
        "http://example.com/",
        to("web", host="inside.local"),
    ),
    Row(
        "host-header beside preserve-host",
        [its(host_header="inside.local"), with_(WEB)],
        "http://example.com/",
        to("web"),
    ),
    Row("plugins lets nobody in", [with_(WEB, plugins="key-auth")], "http://example.com/", Want(503)),
    Row(
        "tls-verify lets nobody in",
        [its(protocol="https", tls_verify="true"), with_(WEB)],
        "http://example.com/",
        Want(503),
    ),
    Row("plugins of a Service neither", [its(plugins="key-auth"), with_(WEB)], "http://example.com/", Want(503)),
    Row(
        "without the class they do not act",
        [ingress("web", rule(E, FOO), annotations=named(strip_path="true"))],
        "http://example.com/foo/x",
        to("web"),
    ),
]
