"""Warnings: what will not do what its author may expect is named, and the quickstart is quiet."""

import base64
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from kernels.layout import MAGLEV
from plane.advice import advise
from plane.defaults import defaulted
from plane.manifests import load
from plane.model import Object, Snapshot
from plane.offline import settled
from plane.validation import check

ROOT = Path(__file__).parents[2]
SIDECAR = {"name": "side", "image": "redis"}
IMAGE = "registry.k8s.io/e2e-test-images/agnhost:2.53"


def snapshot(*objects: Object) -> Snapshot:
    for obj in objects:
        assert check(obj) == []
    return Snapshot().changed(map(defaulted, objects))


def named(kind: str, name: str, version: str, metadata: Object | None = None, **fields: Any) -> Object:
    metadata = {"name": name, "namespace": "default", **(metadata or {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def service(name: str = "web", annotations: Object | None = None, **spec: Any) -> Object:
    metadata = {"annotations": annotations} if annotations else {}
    return named("Service", name, "v1", metadata, spec={"selector": {"app": "a"}, "ports": [{"port": 80}], **spec})


def pod(image: str = IMAGE, annotations: Object | None = None, spec: Object | None = None, **container: Any) -> Object:
    metadata: Object = {"labels": {"app": "a"}, **({"annotations": annotations} if annotations else {})}
    ports = [{"name": "http", "containerPort": 8080}]
    containers = [{"name": "c", "image": image, "ports": ports, **container}]
    return named("Pod", "web-1", "v1", metadata, spec={"containers": containers, **(spec or {})})


def path(name: str = "web", port: Object | None = None, text: str = "/", kind: str = "Prefix") -> Object:
    return {"path": text, "pathType": kind, "backend": {"service": {"name": name, "port": port or {"number": 80}}}}


def ingress(
    *paths: Object, name: str = "web", host: str = "a.com", metadata: Object | None = None, **spec: Any
) -> Object:
    rules = [{"host": host, "http": {"paths": list(paths or (path(),))}}]
    return named("Ingress", name, "networking.k8s.io/v1", metadata, spec={"rules": rules, **spec})


def ingress_class(name: str, controller: str, *, default: bool = False) -> Object:
    annotations = {"ingressclass.kubernetes.io/is-default-class": "true"} if default else {}
    spec = {"controller": controller}
    metadata = {"name": name, "annotations": annotations}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": metadata, "spec": spec}


def slow(algorithm: str, **spec: Any) -> Object:
    annotations = {"trafficplane.dev/slow-start": "30s", "trafficplane.dev/lb-algorithm": algorithm}
    return service(annotations=annotations, **spec)


NGINX, TRAEFIK = "nginx.ingress.kubernetes.io/", "traefik.ingress.kubernetes.io/"


def canary(name: str, text: str, to: str) -> Object:
    said = {f"{NGINX}canary": "true", f"{NGINX}canary-weight": "1"}
    return ingress(path(to, text=text), name=name, metadata={"annotations": said})


def authenticated(secret: str) -> Object:
    return {"annotations": {f"{NGINX}auth-type": "basic", f"{NGINX}auth-secret": secret}}


def test_what_a_dump_has_and_no_plane_would_take_is_named() -> None:
    obj = ingress(metadata={"annotations": {f"{NGINX}server-snippet": "return 200;", f"{NGINX}limit-rps": "many"}})
    there = Snapshot().changed(map(defaulted, (service(), pod(), obj)))
    assert [line.partition(": ")[2].partition(",")[0].partition(";")[0] for line in advise(there)] == [
        f"metadata.annotations[{NGINX}server-snippet]: left out: is configuration of NGINX itself",
        f'metadata.annotations[{NGINX}limit-rps]: left out: "many" is not allowed',
    ]


def test_the_quickstart_warns_of_nothing() -> None:
    manifests = load([str(ROOT / "configs" / "quickstart")]).objects
    objects = [row.object for row in manifests]
    assert advise(Snapshot().changed(objects)) == []
    assert advise(settled(objects)) == []


def test_pods_of_a_deployment_are_warned_about_once_by_their_deployment() -> None:
    (manifest,) = load([str(ROOT / "configs" / "quickstart" / "deployment.yaml")]).objects
    text = yaml.safe_dump(manifest.object).replace(IMAGE, "redis:8")
    (line,) = advise(settled([yaml.safe_load(text)]))
    assert line.startswith("Deployment default/my-app: spec.template.spec.containers[0].image: ")


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        pytest.param((service(), pod(), ingress()), [], id="nothing to say"),
        pytest.param((slow("lc"), pod(), ingress()), [], id="slow start"),
        pytest.param(
            (slow("maglev"), pod()),
            [
                "Service default/web: metadata.annotations[trafficplane.dev/slow-start]: "
                "has no effect beside maglev, which hashes; leave one out"
            ],
            id="slow start with a hash",
        ),
        pytest.param(
            (slow("lc", sessionAffinity="ClientIP"), pod()),
            [
                "Service default/web: metadata.annotations[trafficplane.dev/slow-start]: "
                "has no effect beside session affinity; leave one out"
            ],
            id="slow start with session affinity",
        ),
        pytest.param(
            (service(annotations={"trafficplane.dev/lb-algorithm": "dh"}), pod(), ingress()),
            [
                'Ingress default/web: spec.rules[0].http.paths[0].backend.service.name: Service "web" is balanced by '
                "the address that is connected to (dh), which says nothing of requests through an Ingress: endpoints "
                "take turns there"
            ],
            id="what an Ingress cannot balance by",
        ),
        pytest.param(
            (service(selector={"app": "b"}), pod()),
            [
                "Service default/web: spec.selector: no pod in namespace default has app=b: it has no endpoint; "
                "pods there have app=a"
            ],
            id="a selector that matches no pod",
        ),
        pytest.param(
            (service(ports=[{"port": 80, "targetPort": "web"}]), pod()),
            [
                'Service default/web: spec.ports[0].targetPort: no container of its pods has a TCP port named "web"; '
                "they have http"
            ],
            id="a target port that no container has",
        ),
        pytest.param(
            (service(selector={}),),
            [
                "Service default/web: no spec.selector and no EndpointSlice with label kubernetes.io/service-name: "
                "it has no endpoint"
            ],
            id="neither selector nor EndpointSlice",
        ),
        pytest.param(
            (
                service(selector={}),
                named(
                    "EndpointSlice",
                    "web-1",
                    "discovery.k8s.io/v1",
                    {"labels": {"kubernetes.io/service-name": "web"}},
                    addressType="IPv4",
                    endpoints=[],
                ),
            ),
            [],
            id="an EndpointSlice in place of a selector",
        ),
        pytest.param(
            (named("EndpointSlice", "b", "discovery.k8s.io/v1", addressType="IPv4", endpoints=[]),),
            [
                "EndpointSlice default/b: metadata.labels[kubernetes.io/service-name]: is missing, so its endpoints "
                "belong to no Service; add it"
            ],
            id="an EndpointSlice of no Service",
        ),
        pytest.param(
            (
                service(selector={}),
                named(
                    "EndpointSlice",
                    "web-1",
                    "discovery.k8s.io/v1",
                    {"labels": {"kubernetes.io/service-name": "web"}},
                    addressType="IPv4",
                    endpoints=[{"addresses": ["127.0.0.7", "127.0.0.8"], "deprecatedTopology": {"a": "b"}}],
                    ports=[{"name": "", "port": 80}, {"name": "b"}],
                ),
            ),
            [
                "EndpointSlice default/web-1: endpoints[0].addresses: only the first, 127.0.0.7, is used; "
                "write an endpoint for each",
                "EndpointSlice default/web-1: endpoints[0].deprecatedTopology: not acted on; write nodeName and zone",
                "EndpointSlice default/web-1: ports[1].port: is missing, so no Service port leads to it; add it",
            ],
            id="what kube-proxy takes no notice of in an EndpointSlice",
        ),
        pytest.param(
            (service(type="LoadBalancer", externalTrafficPolicy="Local", sessionAffinity="ClientIP"), pod()),
            [],
            id="what Services can say",
        ),
        pytest.param(
            (service(type="LoadBalancer", loadBalancerClass="example.com/cloud"), pod()),
            [
                "Service default/web: spec.loadBalancerClass example.com/cloud: left pending: the plane gives no "
                "address of this class"
            ],
            id="a load balancer of another class",
        ),
        pytest.param(
            (service(type="ExternalName", externalName="a.com", selector={}, ports=[]),),
            [],
            id="an ExternalName",
        ),
        pytest.param(
            (
                service(type="ExternalName", externalName="b.default.svc.cluster.local", selector={}, ports=[]),
                service("b", type="ExternalName", externalName="web.default.svc.cluster.local.", selector={}, ports=[]),
            ),
            [
                "Service default/b: spec.externalName: leads back to itself, by web.default.svc.cluster.local → "
                "b.default.svc.cluster.local: it has no address",
                "Service default/web: spec.externalName: leads back to itself, by b.default.svc.cluster.local → "
                "web.default.svc.cluster.local: it has no address",
            ],
            id="ExternalNames that lead to each other",
        ),
        pytest.param(
            (service(ports=[{"port": 53, "protocol": "UDP"}], externalIPs=["10.0.0.1"]), pod()),
            [
                "Service default/web: spec.externalIPs[0] 10.0.0.1: served only where the machine has this address",
            ],
            id="UDP and external addresses",
        ),
        pytest.param(
            (
                pod(
                    spec={
                        "hostname": "a",
                        "subdomain": "web",
                        "setHostnameAsFQDN": True,
                        "dnsPolicy": "None",
                        "dnsConfig": {
                            "nameservers": ["10.0.0.1"],
                            "searches": ["_sites.example.com", "."],
                            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
                        },
                        "hostAliases": [{"ip": "10.0.0.2", "hostnames": ["cache"]}],
                    }
                ),
            ),
            ["Pod default/web-1: not acted on: spec.setHostnameAsFQDN, spec.dnsConfig.options[1] (edns0)"],
            id="how a pod resolves names",
        ),
        pytest.param(
            (pod("docker.io/library/redis:8"),),
            [
                "Pod default/web-1: spec.containers[0].image: the plane does not run docker.io/library/redis:8, "
                "it runs an echo server in its place"
            ],
            id="an image that is not known",
        ),
        pytest.param(
            (pod("redis", annotations={"trafficplane.dev/app": "shop:app"}),), [], id="a Python app in its place"
        ),
        pytest.param(
            (
                pod(
                    spec={"volumes": [{"name": "v", "emptyDir": {}}], "initContainers": [{"name": "i", "image": "i"}]},
                    command=["sh"],
                    resources={"limits": {"cpu": "1"}, "requests": {}},
                    livenessProbe={"tcpSocket": {"port": 80}},
                ),
            ),
            [
                "Pod default/web-1: not acted on: spec.volumes, spec.initContainers, spec.containers[0].command, "
                "spec.containers[0].resources.limits, spec.containers[0].livenessProbe"
            ],
            id="fields of a pod that are not acted on",
        ),
        pytest.param(
            (
                pod(
                    spec={
                        "readinessGates": [{"conditionType": "example.com/ready"}],
                        "hostNetwork": True,
                        "setHostnameAsFQDN": True,
                    },
                    ports=[{"name": "http", "containerPort": 8080, "hostPort": 8080, "hostIP": "127.0.0.9"}],
                ),
            ),
            [
                "Pod default/web-1: not acted on: spec.containers[0].ports[0].hostPort, "
                "spec.containers[0].ports[0].hostIP, spec.readinessGates, spec.hostNetwork, spec.setHostnameAsFQDN"
            ],
            id="what a pod says of its traffic that is not acted on",
        ),
        pytest.param(
            (pod(spec={"hostnameOverride": "web.example.com"}),),
            ["Pod default/web-1: not acted on: spec.hostnameOverride"],
            id="another name for a pod",
        ),
        pytest.param(
            (pod(readinessProbe={"httpGet": {"port": "web"}}),),
            [
                "Pod default/web-1: spec.containers[0].readinessProbe.httpGet.port: the container "
                'has no port named "web", '
                "so it never gets ready"
            ],
            id="a probe of a port that is not there",
        ),
        pytest.param(
            (ingress(),),
            [
                'Ingress default/web: spec.rules[0].http.paths[0].backend.service.name: there is no Service "web" in '
                "namespace default; requests get 503"
            ],
            id="an Ingress to a Service that is not there",
        ),
        pytest.param(
            (
                service(ports=[{"name": "http", "port": 80, "targetPort": 8080}]),
                pod(),
                ingress(path(port={"number": 8080})),
            ),
            [
                "Ingress default/web: spec.rules[0].http.paths[0].backend.service.port.number: "
                'Service "web" has no TCP port '
                "8080, it has 80 (http); requests get 503; 8080 is its targetPort, write 80"
            ],
            id="an Ingress to a port that its Service lacks",
        ),
        pytest.param(
            (service(), pod(), ingress(path(port={"name": "http"}))),
            [
                "Ingress default/web: spec.rules[0].http.paths[0].backend.service.port.name: Service "
                '"web" has no TCP port '
                "http, it has 80; requests get 503"
            ],
            id="an Ingress to a port's name that its Service lacks",
        ),
        pytest.param(
            (
                service(annotations={"konghq.com/path": "/a"}),
                pod(),
                ingress(
                    metadata={
                        "annotations": {
                            "nginx.ingress.kubernetes.io/limit-rate": "5",
                            "traefik.ingress.kubernetes.io/router.tls": "true",
                            "example.com/owner": "me",
                        }
                    }
                ),
            ),
            [
                "Service default/web: metadata.annotations[konghq.com/path]: not acted on, "
                "for no Ingress of Kong's class leads to this Service",
                "Ingress default/web: metadata.annotations: not acted on yet: nginx.ingress.kubernetes.io/limit-rate",
                "Ingress default/web: metadata.annotations[traefik.ingress.kubernetes.io/router.tls]: not acted on, "
                "for there is no class of Traefik; write spec.ingressClassName",
            ],
            id="annotations of a dialect",
        ),
        pytest.param(
            (
                service(
                    annotations={
                        f"{TRAEFIK}service.passHostHeader": "false",
                        f"{TRAEFIK}service.serverstransport": "internal@file",
                        f"{TRAEFIK}service.nativelb": "false",
                        f"{TRAEFIK}service.stickey.cookie": "true",
                        f"{TRAEFIK}router.tls": "true",
                    }
                ),
                pod(),
                ingress(
                    ingressClassName="traefik",
                    metadata={
                        "annotations": {
                            f"{TRAEFIK}router.entrypoints": "web",
                            f"{TRAEFIK}router.tls": "true",
                            f"{TRAEFIK}router.tls.domains.0.main": "a.com",
                            f"{TRAEFIK}router.tls.options": "default",
                            f"{TRAEFIK}router.middlewares": "a@file",
                            f"{TRAEFIK}service.passhostheader": "false",
                            "konghq.com/strip-path": "true",
                        }
                    },
                ),
            ),
            [
                f"Service default/web: metadata.annotations[{TRAEFIK}router.tls]: Traefik reads this on an Ingress; "
                "write it there",
                f"Service default/web: metadata.annotations[{TRAEFIK}service.serverstransport]: not acted on yet: "
                "an endpoint's certificate is verified by the machine's authorities",
                f"Service default/web: metadata.annotations[{TRAEFIK}service.stickey.cookie]: "
                f"Traefik has no such annotation; did you mean {TRAEFIK}service.sticky.cookie?",
                "Ingress default/web: metadata.annotations[konghq.com/strip-path]: "
                "not acted on, for the class is of controller traefik.io/ingress-controller",
                f"Ingress default/web: metadata.annotations[{TRAEFIK}router.middlewares]: "
                "not acted on yet, so that nobody is let in: every request gets 503",
                f"Ingress default/web: metadata.annotations[{TRAEFIK}router.tls.domains.0.main]: not acted on yet: "
                "the plane makes no certificates, it takes those of spec.tls",
                f"Ingress default/web: metadata.annotations[{TRAEFIK}service.passhostheader]: "
                "Traefik reads this on a Service; write it there",
                f"Ingress default/web: metadata.annotations[{TRAEFIK}router.entrypoints]: leaves no request: "
                "rules with router.tls are for HTTPS, which never comes by web; add websecure",
            ],
            id="Traefik's",
        ),
        pytest.param(
            (
                service(
                    annotations={"konghq.com/retries": "3", "konghq.com/plugins": "a", "konghq.com/protocol": "http"}
                ),
                pod(),
                ingress(
                    path(text="/~/(?=a)", kind="ImplementationSpecific"),
                    ingressClassName="kong",
                    metadata={
                        "annotations": {
                            "konghq.com/headers.X-A": "1",
                            "konghq.com/path-handling": "v0",
                            "konghq.com/read-timeout": "1",
                            "konghq.com/snis": "a.com",
                            "konghq.com/strip_path": "true",
                            "konghq.com/tags": "a",
                        }
                    },
                ),
            ),
            [
                "Service default/web: metadata.annotations[konghq.com/plugins]: "
                "not acted on yet, so that nobody is let in: every request gets 503",
                "Ingress default/web: metadata.annotations[konghq.com/read-timeout]: Kong reads this on a Service; "
                "write it there",
                "Ingress default/web: metadata.annotations[konghq.com/snis]: not acted on yet: "
                "a rule takes requests of any name that TLS was asked for",
                "Ingress default/web: metadata.annotations[konghq.com/strip_path]: Kong has no such annotation; "
                "did you mean konghq.com/strip-path?",
                "Ingress default/web: spec.rules[0].http.paths[0].path: is meant as a regular expression, but invalid "
                "perl operator: (?=; write an expression of RE2, which has no lookaround and no backreferences; "
                "it takes only what it says literally",
            ],
            id="Kong's",
        ),
        pytest.param(
            (
                service(),
                pod(),
                ingress(
                    metadata={"annotations": {f"{NGINX}rewrite-traget": "/", f"{NGINX}fastcgi-params-configmap": "a"}}
                ),
            ),
            [
                f"Ingress default/web: metadata.annotations[{NGINX}fastcgi-params-configmap]: not acted on yet: "
                "there is no FastCGI",
                f"Ingress default/web: metadata.annotations[{NGINX}rewrite-traget]: "
                f"ingress-nginx has no such annotation; did you mean {NGINX}rewrite-target?",
            ],
            id="annotations that there are not",
        ),
        pytest.param(
            (
                service(),
                pod(),
                ingress(
                    metadata={
                        "annotations": {
                            f"{NGINX}proxy-buffering": "on",
                            f"{NGINX}backend-protocol": "HTTP",
                            f"{NGINX}app-root": "/app",
                        }
                    }
                ),
            ),
            [],
            id="annotations that act, need nothing or say what happens anyway",
        ),
        pytest.param(
            (
                service(),
                pod(),
                ingress(ingressClassName="traefik", metadata={"annotations": {f"{NGINX}app-root": "/a"}}),
            ),
            [
                f"Ingress default/web: metadata.annotations[{NGINX}app-root]: "
                "not acted on, for the class is of controller traefik.io/ingress-controller"
            ],
            id="annotations of another controller's dialect",
        ),
        pytest.param(
            (service(), service("new"), pod(), canary("a", "/", "new"), canary("b", "/", "new"), ingress()),
            ["Ingress default/b: spec.rules[0].http.paths[0]: takes nothing: the rule has the canary a, and one only"],
            id="two canaries",
        ),
        pytest.param(
            (
                service(),
                service("new"),
                pod(),
                ingress(),
                ingress(
                    path("new"),
                    name="a",
                    metadata={
                        "annotations": {
                            f"{NGINX}canary": "true",
                            f"{NGINX}canary-weight": "1",
                            f"{NGINX}load-balance": "ewma",
                            f"{NGINX}auth-type": "basic",
                            f"{NGINX}auth-secret": "ghost",
                            f"{NGINX}auth-tls-secret": "a/b",
                            f"{NGINX}allowlist-source-range": "10.0.0.0/8",
                            f"{NGINX}rewrite-target": "/$1",
                            f"{NGINX}ssl-redirect": "false",
                        }
                    },
                ),
            ),
            [
                *(
                    f"Ingress default/a: metadata.annotations[{NGINX}{name}]: keeps nobody out of a canary: "
                    "who is let in is said by the Ingress of its rule; write it there"
                    for name in ("allowlist-source-range", "auth-secret", "auth-tls-secret", "auth-type")
                ),
                "Ingress default/a: metadata.annotations: not acted on, for the Ingress is a canary, whose requests "
                f"have what the Ingress of its rule says: {NGINX}rewrite-target, {NGINX}ssl-redirect",
            ],
            id="annotations of a canary that do nothing",
        ),
        pytest.param(
            (service(), pod(), canary("a", "/x", "web"), canary("b", "/", "web"), ingress()),
            [
                "Ingress default/a: spec.rules[0].http.paths[0]: a canary of no rule takes nothing; "
                "write it for host, path and pathType of another Ingress",
                "Ingress default/b: spec.rules[0].http.paths[0]: the canary is the Service of the rule itself, "
                "so it changes nothing",
            ],
            id="canaries that take nothing",
        ),
        pytest.param(
            (
                service(),
                pod(),
                named("Secret", "users", "v1", stringData={"auth": "ada:{SHA}x\nbob:plain"}),
                named("Secret", "empty", "v1", stringData={"x": "y"}),
                ingress(path(text="/a"), name="a", metadata=authenticated("users")),
                ingress(path(text="/b"), name="b", metadata=authenticated("empty")),
                ingress(path(text="/c"), name="c", metadata=authenticated("ghost")),
                ingress(path(text="/d"), name="d", metadata=authenticated("other/users")),
            ),
            [
                f'Ingress default/a: metadata.annotations[{NGINX}auth-secret]: Secret "users", user bob: '
                "the password's hash is none of bcrypt, apr1, MD5, SHA-256, SHA-512, {SHA} and {SSHA}; "
                "this user gets 401",
                f'Ingress default/b: metadata.annotations[{NGINX}auth-secret]: Secret "empty" has no lines name:hash '
                "under its key auth; every request gets 401",
                f'Ingress default/c: metadata.annotations[{NGINX}auth-secret]: there is no Secret "ghost" in namespace '
                "default; requests get 503",
                f"Ingress default/d: metadata.annotations[{NGINX}auth-secret]: auth-secret is of namespace other, "
                "not of its own; requests get 503",
            ],
            id="passwords",
        ),
        pytest.param(
            (
                service(),
                pod(),
                ingress(
                    name="a",
                    host="a.com",
                    metadata={
                        "annotations": {
                            f"{NGINX}auth-url": "http://auth.shop.svc.cluster.local/check",
                            f"{NGINX}auth-proxy-set-headers": "fields",
                        }
                    },
                ),
                named("ConfigMap", "fields", "v1", data={"Host": "x"}),
                ingress(name="b", host="b.com", metadata={"annotations": {f"{NGINX}auth-tls-secret": "a/b"}}),
                ingress(
                    name="c",
                    host="c.com",
                    metadata={
                        "annotations": {f"{NGINX}auth-tls-secret": "a/b", f"{NGINX}auth-tls-verify-client": "off"}
                    },
                ),
            ),
            [
                f"Ingress default/a: metadata.annotations[{NGINX}auth-url]: "
                'there is no Service "auth" in namespace shop; requests get 500',
                f"Ingress default/a: metadata.annotations[{NGINX}auth-proxy-set-headers]: "
                'ConfigMap "default/fields" has the key "Host", which the plane alone writes; requests get 503',
                f"Ingress default/b: metadata.annotations[{NGINX}auth-tls-secret]: "
                "not acted on yet, so that nobody is let in: every request gets 503",
                f"Ingress default/c: metadata.annotations: not acted on yet: {NGINX}auth-tls-secret",
            ],
            id="guards that let nobody in",
        ),
        pytest.param(
            (
                service(),
                pod(),
                ingress(name="a", host="a.com", metadata={"annotations": {f"{NGINX}custom-http-errors": "404,503"}}),
                ingress(
                    name="b",
                    host="b.com",
                    metadata={
                        "annotations": {f"{NGINX}custom-http-errors": "503", f"{NGINX}default-backend": "errors"}
                    },
                ),
                ingress(name="c", host="c.com", metadata={"annotations": {f"{NGINX}default-backend": "web"}}),
            ),
            [
                f"Ingress default/a: metadata.annotations[{NGINX}custom-http-errors]: answers with 404, 503 become "
                f"404, for there is no {NGINX}default-backend to make them",
                f"Ingress default/b: metadata.annotations[{NGINX}default-backend]: there is no Service "
                '"errors" in namespace default; answers with 503 become 404',
            ],
            id="errors that nobody makes an answer for",
        ),
        pytest.param(
            (
                service(),
                pod(),
                ingress(metadata={"annotations": {f"{NGINX}server-alias": "b.com,c.com"}}),
                ingress(name="b", host="b.com", metadata={"annotations": {f"{NGINX}allowlist-source-range": "::1"}}),
                ingress(name="c", host="d.com", metadata={"annotations": {f"{NGINX}denylist-source-range": "::1"}}),
            ),
            [
                "Ingress default/b: metadata.annotations[nginx.ingress.kubernetes.io/allowlist-source-range]: "
                "a range of IPv6 holds nobody: only IPv4 addresses are compared with ranges",
                f"Ingress default/c: metadata.annotations[{NGINX}denylist-source-range]: "
                "a range of IPv6 denies every client of IPv6: only IPv4 addresses are compared with ranges",
                f'Ingress default/web: metadata.annotations[{NGINX}server-alias]: "b.com" has rules of its own, '
                "which count",
            ],
            id="an alias that is a host, a range of IPv6",
        ),
        pytest.param(
            (service(), pod(), ingress(tls=[{"hosts": ["a.com"], "secretName": "cert"}])),
            [
                'Ingress default/web: spec.tls[0].secretName: Secret "cert" does not exist; HTTPS '
                "for these hosts gets the "
                "default certificate"
            ],
            id="a certificate that is not there",
        ),
        pytest.param(
            (
                service(),
                pod(),
                ingress(tls=[{"secretName": "cert"}]),
                named("Secret", "cert", "v1", stringData={"tls.crt": "-----BEGIN CERTIFICATE-----", "tls.key": "x"}),
            ),
            [
                'Ingress default/web: spec.tls[0].secretName: Secret "cert" has a tls.key that is no '
                "PEM; HTTPS for these "
                "hosts gets the default certificate"
            ],
            id="a certificate that is broken",
        ),
        pytest.param(
            (
                service(),
                pod(),
                ingress(ingressClassName="theirs", name="a"),
                ingress(metadata={"annotations": {"kubernetes.io/ingress.class": "theirs"}}, name="b"),
                ingress(ingressClassName="nginx", name="c"),
                ingress_class("theirs", "example.com/controller"),
                ingress_class("nginx", "k8s.io/ingress-nginx"),
            ),
            [
                'Ingress default/a: spec.ingressClassName: not served: class "theirs" is of '
                "controller example.com/controller, "
                "which this plane does not stand in for",
                "Ingress default/b: metadata.annotations[kubernetes.io/ingress.class]: not served: "
                'class "theirs" is of controller example.com/controller, which this plane does not stand in for',
            ],
            id="a class of another controller",
        ),
        pytest.param(
            (
                service(),
                pod(),
                ingress(ingressClassName="nginx"),
                ingress_class("nginx", "k8s.io/ingress-nginx")
                | {"spec": {"controller": "k8s.io/ingress-nginx", "parameters": {"kind": "ConfigMap", "name": "a"}}},
            ),
            ["IngressClass nginx: spec.parameters: not acted on: no class has parameters here, only the plane has"],
            id="parameters of a class",
        ),
        pytest.param(
            (
                service(),
                pod(),
                ingress(),
                ingress_class("a", "k8s.io/ingress-nginx", default=True),
                ingress_class("b", "k8s.io/ingress-nginx", default=True),
            ),
            [
                "Ingress default/web: spec.ingressClassName: not served: it names no class, and of the 2 IngressClass "
                "objects 2 are the default: a, b",
            ],
            id="two default classes",
        ),
        pytest.param(
            (
                service(),
                pod(),
                ingress(metadata={"creationTimestamp": "2026-01-02T00:00:00Z"}, name="a"),
                ingress(
                    path(text="/", kind="ImplementationSpecific"),
                    metadata={"creationTimestamp": "2026-01-01T00:00:00Z"},
                    name="b",
                ),
                ingress(path(kind="Exact"), name="c"),
                ingress(host="b.com", name="d"),
            ),
            [
                "Ingress default/a: spec.rules[0].http.paths[0]: Prefix a.com/ is also in "
                "Ingress default/b spec.rules[0].http.paths[0], which wins as the older or the first by name"
            ],
            id="the same host and path in two Ingresses",
        ),
        pytest.param(
            (service(), pod(), *(ingress(name=name, rules=[], defaultBackend=path()["backend"]) for name in "ab")),
            [
                "Ingress default/b: spec.defaultBackend: the default backend is also in "
                "Ingress default/a spec.defaultBackend, which wins as the older or the first by name"
            ],
            id="two default backends",
        ),
        pytest.param(
            (
                pod(
                    annotations={"trafficplane.dev/app": "shop:app"},
                    spec={"containers": [SIDECAR, {**SIDECAR, "name": "b"}]},
                ),
            ),
            [
                "Pod default/web-1: spec.containers[1].image: the plane does not run redis, "
                "it runs an echo server in its place"
            ],
            id="a Python app in place of the first container only",
        ),
    ],
)
def test_warnings(objects: tuple[Object, ...], expected: list[str]) -> None:
    assert advise(snapshot(*objects)) == expected


def test_certificates_that_are_not_shown_are_warned_of() -> None:
    authority = trustme.CA()
    one, other = authority.issue_cert("a.com", "*.b.com"), authority.issue_cert("a.com")

    def warned(chain: bytes, key: bytes, *hosts: str) -> list[str]:
        data = {name: base64.b64encode(text).decode() for name, text in (("tls.crt", chain), ("tls.key", key))}
        stored = named("Secret", "cert", "v1", type="kubernetes.io/tls", data=data)
        return advise(snapshot(service(), pod(), stored, ingress(tls=[{"hosts": list(hosts), "secretName": "cert"}])))

    chain, key = one.cert_chain_pems[0].bytes(), one.private_key_pem.bytes()
    where = 'Ingress default/web: spec.tls[0].secretName: Secret "cert"'
    hosts = "HTTPS for these hosts gets the default certificate"
    assert warned(chain, key, "a.com", "x.b.com", "*.b.com") == []
    assert warned(chain, other.private_key_pem.bytes(), "a.com") == [
        f"{where} has a tls.crt and a tls.key that do not belong together; {hosts}"
    ]
    (line,) = warned(chain[:80] + b"\n-----END CERTIFICATE-----\n", key, "a.com")
    assert line.startswith(f"{where} has a tls.crt or a tls.key that OpenSSL cannot use")
    assert line.endswith(hosts)
    assert warned(chain, key, "a.com", "b.com", "c.d.b.com") == [
        f"{where} has a certificate for a.com, *.b.com, not for b.com, c.d.b.com; "
        "HTTPS there gets the default certificate"
    ]


def test_slow_start_beside_a_hash_of_the_whole_plane_is_warned_of() -> None:
    web = service(annotations={"trafficplane.dev/slow-start": "30s"})
    assert advise(snapshot(web, pod())) == []
    (line,) = advise(snapshot(web, pod()), algorithm=MAGLEV)
    assert line.endswith("has no effect beside maglev, which hashes; leave one out")
