"""Manifests, a request, and where it goes: one table, held against every implementation of routing.

The Services ``web``, ``api``, ``old`` and ``other`` have an endpoint each; ``empty`` has none, ``starting`` none that
is ready, ``external`` is an ExternalName that leads back to itself, and ``ghost`` does not exist. What is expected is a
Service or a status.
"""

from typing import NamedTuple

from plane.model import Object
from tests.ingress.manifests import (
    endpoint,
    exact,
    ingress,
    ingress_class,
    path,
    prefix,
    rule,
    service,
    slice_of,
)
from tests.ingress.sites import SITES

NAMES = ("web", "api", "old", "other")
OURS, NGINX, ALIEN = "trafficplane.dev/ingress", "k8s.io/ingress-nginx", "example.com/alien"
CLASS = "kubernetes.io/ingress.class"


class Row(NamedTuple):
    description: str
    objects: list[Object]
    host: str
    path: str
    expected: str | int


def services(port: int, addresses: dict[str, str]) -> list[Object]:
    """The Services of the corpus; ``addresses`` are those of the endpoints of NAMES."""
    return [
        *(service(name, port_name="http") for name in NAMES),
        *(slice_of(name, endpoint(ip), port=port, port_name="http") for name, ip in addresses.items()),
        service("empty"),
        service("starting"),
        slice_of("starting", endpoint(addresses["web"], ready=False), port=port + 1),
        service("external", type="ExternalName", externalName="external.default.svc.cluster.local"),
    ]


def _one(*paths: Object, host: str = "example.com", default: str = "") -> list[Object]:
    return [ingress("web", rule(host, *paths), default=default)]


ROOT = _one(prefix("/", "web"))
FOO = _one(prefix("/foo", "web"))
FOO_SLASH = _one(prefix("/foo/", "web"))
EXACT = _one(exact("/foo", "web"))
TWINS = _one(prefix("/foo", "old"), prefix("/foo/", "web"))
EXACT_AND_PREFIX = _one(prefix("/foo/", "old"), exact("/foo", "web"))
NESTED = _one(prefix("/", "old"), prefix("/aaa/bbb", "web"), prefix("/aaa", "api"))
WILDCARD = [ingress("web", rule("*.foo.com", prefix("/", "web")))]
HOSTS = [
    ingress("any", rule("", prefix("/", "old"))),
    ingress("wild", rule("*.foo.com", prefix("/", "api"), prefix("/only", "other"))),
    ingress("own", rule("a.foo.com", prefix("/own", "web"))),
]
DEFAULTS = [
    ingress("all", default="old"),
    ingress("web", rule("example.com", prefix("/web", "web")), default="api"),
    ingress("bare", rule("bare.com")),
    ingress("host", rule("host.com"), default="other"),
]
RIVALS = [
    ingress("a", rule("example.com", prefix("/", "old"), prefix("/new", "api")), created="2026-02-01T00:00:00Z"),
    ingress("b", rule("example.com", prefix("/", "web"), exact("/x", "other")), created="2026-01-01T00:00:00Z"),
]


def _classed(name: str | None, *classes: Object, annotation: str = "") -> list[Object]:
    spec = {"ingressClassName": name} if name else {}
    annotations = {CLASS: annotation} if annotation else {}
    made = ingress("web", rule("example.com", prefix("/", "web")), annotations=annotations, **spec)
    return [made, *classes]


E, F = "example.com", "a.foo.com"

CORPUS = [
    # Prefix
    Row("Prefix / takes /", ROOT, E, "/", "web"),
    Row("Prefix / takes everything below", ROOT, E, "/a/b?c=d", "web"),
    Row("Prefix takes its own path", FOO, E, "/foo", "web"),
    Row("Prefix takes its own path with a slash", FOO, E, "/foo/", "web"),
    Row("Prefix takes what is below it", FOO, E, "/foo/bar", "web"),
    Row("Prefix takes whole elements only", FOO, E, "/foobar", 404),
    Row("Prefix does not take what is above it", FOO, E, "/", 404),
    Row("Prefix is case-sensitive", FOO, E, "/FOO", 404),
    Row("Prefix with a slash takes its path without", FOO_SLASH, E, "/foo", "web"),
    Row("Prefix with a slash takes what is below it", FOO_SLASH, E, "/foo/bar", "web"),
    Row("of two Prefixes that differ in a slash that with it wins", TWINS, E, "/foo/", "web"),
    Row("and it wins for the path without a slash too", TWINS, E, "/foo", "web"),
    Row("the longest Prefix wins", NESTED, E, "/aaa/bbb/c", "web"),
    Row("the next longest where the longest does not take it", NESTED, E, "/aaa/bbbc", "api"),
    Row("and the shortest where none of them does", NESTED, E, "/aaab", "old"),
    Row("a path longer than every rule", NESTED, E, "/" + "a/" * 200, "old"),
    # Exact
    Row("Exact takes its path", EXACT, E, "/foo", "web"),
    Row("Exact takes its path with a query", EXACT, E, "/foo?bar=/foo/", "web"),
    Row("Exact does not take its path with a slash", EXACT, E, "/foo/", 404),
    Row("Exact does not take what is below it", EXACT, E, "/foo/bar", 404),
    Row("Exact with a slash is not the path without", _one(exact("/foo/", "web")), E, "/foo", 404),
    Row("Exact comes before a longer Prefix", EXACT_AND_PREFIX, E, "/foo", "web"),
    Row("which keeps the rest", EXACT_AND_PREFIX, E, "/foo/", "old"),
    Row("ImplementationSpecific is a Prefix", _one(path("ImplementationSpecific", "/foo", "web")), E, "/foo/x", "web"),
    Row("ImplementationSpecific may be empty", _one(path("ImplementationSpecific", "", "web")), E, "/x", "web"),
    # Normal paths
    Row("unreserved characters are decoded", _one(exact("/~foo", "web")), E, "/%7efo%6F", "web"),
    Row("an encoded slash is no separator", FOO, E, "/foo%2Fbar", 404),
    Row("nor is it in lower case", FOO, E, "/foo%2fbar", 404),
    Row("dot segments go", FOO, E, "/bar/../foo/./x", "web"),
    Row("also encoded ones", FOO, E, "/bar/%2e%2E/foo", "web"),
    Row("and cannot be used to get past a Prefix", FOO, E, "/foo/../bar", 404),
    Row("nothing is above the root", ROOT, E, "/../../x", "web"),
    Row("slashes merge", FOO, E, "//foo///x", "web"),
    Row("a dot at the end keeps its slash", _one(exact("/foo/", "web")), E, "/foo/.", "web"),
    Row("a name that begins with a dot stays", _one(exact("/.well-known/x", "web")), E, "/.well-known/x", "web"),
    Row("other characters stay encoded", _one(exact("/a%20b", "web")), E, "/a%20b", "web"),
    Row("a fragment is no part of the path", EXACT, E, "/foo#x", "web"),
    # Hosts
    Row("a host is case-insensitive", ROOT, "EXAMPLE.Com", "/", "web"),
    Row("a host is compared without its port", ROOT, "example.com:8080", "/", "web"),
    Row("and without the dot of a full name", ROOT, "example.com.", "/", "web"),
    Row("a rule may be in upper case", _one(prefix("/", "web"), host="Example.COM"), E, "/", "web"),
    Row("another host is not found", ROOT, "example.org", "/", 404),
    Row("nor is a part of the host", ROOT, "xexample.com", "/", 404),
    Row("an address is no host", ROOT, "127.0.0.1:80", "/", 404),
    Row("an IPv6 address is no host", ROOT, "[::1]:80", "/", 404),
    Row("a wildcard takes one label", WILDCARD, "a.foo.com", "/", "web"),
    Row("not two", WILDCARD, "a.b.foo.com", "/", 404),
    Row("and not none", WILDCARD, "foo.com", "/", 404),
    Row("an exact host comes before a wildcard", HOSTS, F, "/own", "web"),
    Row("and there is no falling through to it", HOSTS, F, "/only", 404),
    Row("a wildcard comes before no host", HOSTS, "b.foo.com", "/", "api"),
    Row("no host takes the rest", HOSTS, "a.b.foo.com", "/", "old"),
    # Defaults
    Row("a miss of all hosts goes to the default backend", DEFAULTS, "unknown.com", "/", "old"),
    Row("that of an Ingress without rules", DEFAULTS, "unknown.com", "/web", "old"),
    Row("a path miss goes to the default of the host's Ingress", DEFAULTS, E, "/x", "api"),
    Row("and elsewhere the rule counts", DEFAULTS, E, "/web", "web"),
    Row("a host without http goes to the default", DEFAULTS, "bare.com", "/", "old"),
    Row("of its own Ingress if that has one", DEFAULTS, "host.com", "/x", "other"),
    Row("a default backend serves hosts of no rule", _one(prefix("/", "web"), default="api"), "x.com", "/", "api"),
    Row("a host without http hides the wildcard", [*WILDCARD, ingress("x", rule(F))], F, "/", 404),
    Row("nothing at all is not found", [], E, "/", 404),
    # Several Ingresses
    Row("of the same rule in two the older wins", RIVALS, E, "/", "web"),
    Row("rules of one host are merged", RIVALS, E, "/new", "api"),
    Row("from all of its Ingresses", RIVALS, E, "/x", "other"),
    Row(
        "of the same age the first by name wins",
        [ingress("b", rule(E, prefix("/", "old"))), ingress("a", rule(E, prefix("/", "web")))],
        E,
        "/",
        "web",
    ),
    Row(
        "within one Ingress the first rule wins",
        [ingress("a", rule(E, prefix("/", "web")), rule(E, prefix("/", "old"), prefix("/x", "api")))],
        E,
        "/",
        "web",
    ),
    # Backends
    Row("a port by name", _one(prefix("/", "web", "http")), E, "/", "web"),
    Row("a port name that the Service has not", _one(prefix("/", "web", "https")), E, "/", 503),
    Row("a port number that the Service has not", _one(prefix("/", "web", 81)), E, "/", 503),
    Row("a Service that does not exist", _one(prefix("/", "ghost")), E, "/", 503),
    Row("a Service without endpoints", _one(prefix("/", "empty")), E, "/", 503),
    Row("a Service without an endpoint that is ready", _one(prefix("/", "starting")), E, "/", 503),
    Row("an ExternalName that leads back to itself", _one(prefix("/", "external")), E, "/", 503),
    Row("a default backend without endpoints", [ingress("web", default="empty")], E, "/", 503),
    Row(
        "a rule that leads nowhere still hides the default",
        _one(prefix("/x", "ghost"), default="web"),
        E,
        "/x",
        503,
    ),
    Row(
        "a Service of another namespace is not this one",
        [ingress("web", rule(E, prefix("/", "web")), namespace="elsewhere")],
        E,
        "/",
        503,
    ),
    # Classes
    Row("without IngressClasses any class is served", _classed("whatever"), E, "/", "web"),
    Row("our own controller's class is served", _classed("mine", ingress_class("mine", OURS)), E, "/", "web"),
    Row("that of a controller we stand in for is", _classed("nginx", ingress_class("nginx", NGINX)), E, "/", "web"),
    Row("another controller's is not", _classed("alien", ingress_class("alien", ALIEN)), E, "/", 404),
    Row("nor is a class that does not exist", _classed("lost", ingress_class("mine", OURS)), E, "/", 404),
    Row(
        "our name is served without an IngressClass", _classed("trafficplane", ingress_class("x", ALIEN)), E, "/", "web"
    ),
    Row("no class is the default class", _classed(None, ingress_class("mine", OURS, default=True)), E, "/", "web"),
    Row("which may be another's", _classed(None, ingress_class("alien", ALIEN, default=True)), E, "/", 404),
    Row("and need not exist", _classed(None, ingress_class("mine", OURS)), E, "/", 404),
    Row(
        "of two default classes neither counts",
        _classed(None, ingress_class("a", OURS, default=True), ingress_class("b", OURS, default=True)),
        E,
        "/",
        404,
    ),
    Row("the annotation names a class", _classed(None, ingress_class("mine", OURS), annotation="mine"), E, "/", "web"),
    Row(
        "and counts before the field",
        _classed("mine", ingress_class("mine", OURS), ingress_class("alien", ALIEN), annotation="alien"),
        E,
        "/",
        404,
    ),
]
CORPUS += [
    Row(f"{site}: {url}", objects, url[: url.index("/")], url[url.index("/") :], expected)
    for site, (objects, asked) in SITES.items()
    for url, expected in asked.items()
]
