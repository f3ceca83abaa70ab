"""Ingresses of Traefik's class, a request, and what becomes of it: rows for the tests of ``tests.ingress.policies``.

Each row's description says what Traefik 3.7 does. Those of ROUTING were put to Traefik itself too, as rules of its file
provider: matching, order, entry points, the host of a request and the name of the cookie.
"""

from plane.model import Object
from tests.ingress.manifests import exact, ingress, path, prefix, rule, service
from tests.ingress.policies import ENDPOINT, E, Row, Want, to

PREFIX = "traefik.ingress.kubernetes.io/"


def named(**annotations: str) -> dict[str, str]:
    """Annotations by names with underscores for dots, without the prefix."""
    return {PREFIX + name.replace("_", "."): value for name, value in annotations.items()}


def with_(*paths: Object, host: str = E, name: str = "web", default: str = "", **annotations: str) -> Object:
    """An Ingress of one host."""
    made = ingress(name, rule(host, *paths), default=default, annotations=named(**annotations))
    made["spec"]["ingressClassName"] = "traefik"
    return made


def its(**annotations: str) -> Object:
    """The Service ``web`` of the tests, with annotations."""
    return service("web", port_name="http", annotations=named(**annotations))


def specific(text: str, to: str) -> Object:
    return path("ImplementationSpecific", text, to)


WEB = prefix("/", "web")
BOTH = [with_(prefix("/foo", "web"), exact("/foo", "api"))]
ANY = with_(prefix("/", "old"), host="", name="any")
WIDE = [with_(prefix("/only", "web")), ANY]
WILD = [with_(WEB, host="*.foo.com"), with_(prefix("/x", "api"), host="a.foo.com", name="own")]
DOORS = [with_(WEB, router_entrypoints="web"), with_(prefix("/", "api"), name="tls", router_entrypoints="websecure")]

ROUTING = [
    Row("PathPrefix is by characters", BOTH, "http://example.com/foobar", to("web")),
    Row("a longer rule comes first, so Prefix before Exact", BOTH, "http://example.com/foo", to("web")),
    Row(
        "a slash at the end of a Prefix counts",
        [with_(prefix("/foo/", "web"))],
        "http://example.com/foo",
        Want(404),
    ),
    Row("and of an Exact", [with_(exact("/foo/", "web"))], "http://example.com/foo", Want(404)),
    Row("case counts", BOTH, "http://example.com/FOO", Want(404)),
    Row("dot segments go first", BOTH, "http://example.com/x/../foo", to("web")),
    Row("doubled slashes too", BOTH, "http://example.com//foo", to("web")),
    Row("a path miss goes on to rules for any host", WIDE, "http://example.com/miss", to("old")),
    Row("and a match does not", WIDE, "http://example.com/only", to("web")),
    Row("it goes on to a wildcard", WILD, "http://a.foo.com/y", to("web")),
    Row("which stands for one label", WILD, "http://a.b.foo.com/y", Want(404)),
    Row(
        "of hosts and paths the longer rule, whichever host it is for",
        [with_(prefix("/a", "web")), with_(prefix("/a/very/long/path/indeed/it/is", "old"), host="", name="any")],
        "http://example.com/a/very/long/path/indeed/it/is",
        to("old"),
    ),
    Row(
        "router.priority counts before length",
        [with_(prefix("/longer/path", "web")), with_(prefix("/longer", "api"), name="b", router_priority="1000")],
        "http://example.com/longer/path",
        to("api"),
    ),
    Row(
        "a priority below nought is last",
        [with_(WEB, router_priority="-1"), ANY],
        "http://example.com/",
        to("old"),
    ),
    Row(
        "router.pathmatcher Path",
        [with_(specific("/foo", "web"), router_pathmatcher="Path")],
        "http://example.com/foo/x",
        Want(404),
    ),
    Row("without it, PathPrefix", [with_(specific("/foo", "web"))], "http://example.com/foox", to("web")),
    Row(
        "router.pathmatcher PathRegexp matches anywhere",
        [with_(specific("/v[0-9]+", "web"), router_pathmatcher="PathRegexp")],
        "http://example.com/a/v1/b",
        to("web"),
    ),
    Row(
        "and as it is written",
        [with_(specific("/v[0-9]+", "web"), router_pathmatcher="PathRegexp")],
        "http://example.com/V1",
        Want(404),
    ),
    Row(
        "it is for ImplementationSpecific only",
        [with_(prefix("/v[0-9]+", "web"), router_pathmatcher="PathRegexp")],
        "http://example.com/v1",
        Want(404),
    ),
    Row("router.entrypoints web", DOORS, "http://example.com/", to("web")),
    Row("router.entrypoints websecure", DOORS, "https://example.com/", to("api")),
    Row(
        "who comes by another entry point meets no rule",
        [with_(WEB, router_entrypoints="websecure")],
        "http://example.com/",
        Want(404),
    ),
    Row("router.tls is for HTTPS only", [with_(WEB, router_tls="true")], "http://example.com/", Want(404)),
    Row("which it serves", [with_(WEB, router_tls="true")], "https://example.com/", to("web")),
    Row(
        "so is what is below it",
        [with_(WEB, router_tls_certresolver="le")],
        "http://example.com/",
        Want(404),
    ),
    Row(
        "a rule with TLS on the entry point for HTTP takes nothing",
        [with_(WEB, router_tls="true", router_entrypoints="web")],
        "https://example.com/",
        Want(404),
    ),
    Row("service.passhostheader", [its(service_passhostheader="true"), with_(WEB)], "http://example.com/", to("web")),
    Row(
        "service.passhostheader false",
        [its(service_passHostHeader="false"), with_(WEB)],
        "http://example.com/x",
        to("web", host=ENDPOINT, got={"x-forwarded-host": "example.com"}),
    ),
]
OTHERS = [
    Row(
        "spec.tls redirects nobody",
        [{**with_(WEB), "spec": {**with_(WEB)["spec"], "tls": [{"hosts": [E]}]}}],
        "http://example.com/x",
        to("web"),
    ),
    Row(
        "router.middlewares lets nobody in",
        [with_(WEB, router_middlewares="default-auth@kubernetescrd")],
        "http://example.com/",
        Want(503),
    ),
    Row(
        "router.tls.options lets nobody in",
        [with_(WEB, router_tls_options="mtls@file")],
        "https://example.com/",
        Want(503),
    ),
    Row("but for the default ones", [with_(WEB, router_tls_options="default")], "https://example.com/", to("web")),
    Row(
        "service.middlewares lets nobody in",
        [its(service_middlewares="auth@file"), with_(WEB)],
        "http://example.com/",
        Want(503),
    ),
    Row(
        "a default backend has the annotations of its Service",
        [its(service_passhostheader="false"), with_(prefix("/a", "api"), default="web")],
        "http://example.com/b",
        to("web", host=ENDPOINT),
    ),
    Row(
        "a default backend has the entry points of its Ingress",
        [with_(prefix("/a", "api"), default="web", router_entrypoints="websecure", router_tls="true")],
        "http://example.com/b",
        Want(404),
    ),
    Row(
        "and serves by them",
        [with_(prefix("/a", "api"), default="web", router_entrypoints="websecure", router_tls="true")],
        "https://example.com/b",
        to("web"),
    ),
    Row(
        "any host, after all other rules",
        [with_(prefix("/a", "api"), default="web"), with_(prefix("/", "old"), host="", name="any")],
        "http://other.org/b",
        to("old"),
    ),
    Row(
        "without the class they do not act",
        [ingress("web", rule(E, WEB), annotations=named(router_tls="true"))],
        "http://example.com/",
        to("web"),
    ),
    Row(
        "annotations of ingress-nginx do not act for Traefik's class",
        [
            {
                **with_(WEB),
                "metadata": {
                    "name": "web",
                    "namespace": "default",
                    "annotations": {"nginx.ingress.kubernetes.io/app-root": "/a"},
                },
            }
        ],
        "http://example.com/",
        to("web"),
    ),
]
ROWS = [*ROUTING, *OTHERS]
