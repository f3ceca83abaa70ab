"""What is said by an Ingress's rules and by what these name, one by one. Pure."""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from typing import Any

from kernels.layout import (
    DH,
    MATCHED,
    NAMED,
    RR,
    WILDCARD,
)
from plane.endpoints import eligible
from plane.frontends import algorithm_of
from plane.headerlists import ALLOWED, ANSWERED, CONTROLLER, not_allowed, trouble_with
from plane.model import Endpoint, Name, Object, Service, ServicePort, Snapshot, key_of
from plane.policies import (
    Asked,
)
from plane.routes import External, Port

Said = tuple[Object, Asked]  # an Ingress, and what it asks for
COOKIE_PATH = re.compile(r"/[\x21-\x2b\x2d-\x3a\x3c-\x7e]*\Z")  # what may stand in a cookie: visible, but , and ;


def host_kind(name: str) -> int:
    return WILDCARD if name.startswith("*") else MATCHED if name.startswith("~") else NAMED


def hosts_of(rule: Object, asked: Asked) -> tuple[str, ...]:
    """The hosts that a rule is for, lower case; empty for any."""
    host = (rule.get("host") or "").lower()
    return (*((host,) if host else ()), *asked.names) or ("",)


def paths_of(rule: Object) -> list[Object]:
    return (rule.get("http") or {}).get("paths") or []


def path_said(path: Object) -> tuple[str, str]:
    """Type and text of a path, as they are written: a canary's are the same as those of its rule."""
    return path.get("pathType") or "", path.get("path") or "/"


def is_rewritten(asked: Asked, path: Object) -> bool:
    """Whether a path is rewritten; one that is the target already is not."""
    return bool(asked.rewrite) and not asked.manner and asked.rewrite != (path.get("path") or "/")


def trouble_with_fields(snapshot: Snapshot, named: Name) -> str:
    """Why a ConfigMap's fields cannot be put into answers, empty where they can."""
    found = snapshot.get("ConfigMap", *named)
    if why := trouble_with(found, ANSWERED):
        return why
    name = not_allowed(found or {}, snapshot.get("ConfigMap", *CONTROLLER))
    return f'has the key "{name}", which is not in {ALLOWED} of ConfigMap {"/".join(CONTROLLER)}' if name else ""


def find_port(snapshot: Snapshot, namespace: str, backend: Object) -> tuple[Service | None, ServicePort | None]:
    """The Service and its port that the ``service`` of a backend means; None for what is not there.

    An ExternalName need not list its ports: a number that it does not list is that of the host, as in ingress-nginx.
    """
    obj = snapshot.get("Service", namespace, backend.get("name", ""))
    if obj is None:
        return None, None
    service, wanted = Service.of(obj), _named_port(backend)
    ports = (port for port in service.ports if wanted in (port.port, port.name) and port.protocol == "TCP")
    found = next(ports, None)
    if found is None and service.type == "ExternalName" and isinstance(wanted, int) and wanted:
        found = ServicePort("", "TCP", wanted, wanted)
    return service, found


def balanced_by(service: Service | None) -> int:
    """The algorithm that a Service has requests balanced by, unless an Ingress says otherwise.

    What is chosen by the address that is connected to is in turn: through an Ingress that is nobody's.
    """
    found = algorithm_of(service, RR) if service else RR
    return RR if found == DH else found


def external_of(service: Service, port: ServicePort) -> External:
    number = port.target_port if isinstance(port.target_port, int) else port.port
    return External(service.external_name.lower().removesuffix("."), number)


def usable(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """The endpoints that requests go to: those for new flows, by TCP and IPv4; as in a Fib, none of weight 0."""
    return [row for row in eligible(row for row in endpoints if _reachable(row)) if row.weight > 0]


def _reachable(endpoint: Endpoint) -> bool:
    return endpoint.protocol == "TCP" and ":" not in endpoint.ip


def port_meant(namespace: str, backend: Object, port: ServicePort | None) -> Port:
    """What a backend's ``service`` means, for which ``port`` was found."""
    return Port(f"{namespace}/{backend.get('name', '')}", port.port if port else _named_port(backend))


def _named_port(backend: Object) -> int | str:
    port = backend.get("port") or {}
    return port.get("name") or port.get("number") or 0


def certified_hosts(ingress: Object) -> Iterator[tuple[str, str]]:
    """(host, name of a Secret) for each host of ``spec.tls``; without hosts it is for those of the rules."""
    rules = [rule["host"] for rule in ingress["spec"].get("rules") or () if rule.get("host")]
    for row in ingress["spec"].get("tls") or ():
        yield from ((host.lower(), row.get("secretName") or "") for host in row.get("hosts") or rules)


def name_of(obj: Object) -> Name:
    _, namespace, name = key_of(obj)
    return namespace, name


def read_of(obj: Object) -> tuple[Any, ...]:
    """All that is read of an Ingress or of a Service."""
    metadata = obj["metadata"]
    return obj.get("spec"), metadata.get("annotations") or {}, metadata.get("creationTimestamp")


def all_hosts(said: Said) -> set[str]:
    """The hosts that an Ingress has rules for, with the empty name for any."""
    ingress, asked = said
    return {name for rule in ingress["spec"].get("rules") or () for name in hosts_of(rule, asked)}


def rules_for(host: str, said: Said) -> Iterator[tuple[int, Object]]:
    """The rules of an Ingress for a host, with their numbers."""
    rules = enumerate(said[0]["spec"].get("rules") or ())
    return ((number, rule) for number, rule in rules if host in hosts_of(rule, said[1]))


def is_local(said: Said) -> bool:
    """Whether an Ingress says nothing of other hosts than those of its rules, which are names or wildcards."""
    ingress, asked = said
    wide = ingress["spec"].get("defaultBackend") or asked.aliases or asked.www or asked.default_backend
    return not wide and all(name and host_kind(name) in (NAMED, WILDCARD) for name in all_hosts(said))


def certifying(ingress: Object) -> set[Name]:
    """The Secrets that an Ingress has its certificates from."""
    namespace = ingress["metadata"].get("namespace", "default")
    return {(namespace, secret) for _, secret in certified_hosts(ingress)}


def ruling(asked: Asked) -> set[Name]:
    """The Secrets that policies follow from."""
    return {secret[:2] for secret in (asked.auth_secret, asked.tls_secret) if secret}


def pem_of(secret: Object, key: str) -> str:
    """What a Secret has under a key, empty where that is no text."""
    try:
        return base64.b64decode((secret.get("data") or {}).get(key, ""), validate=True).decode("ascii")
    except ValueError:
        return ""


def certificate_in(secret: Object | None) -> tuple[bytes, bytes] | None:
    """(chain, key) of a Secret of type kubernetes.io/tls; None where it has none."""
    data = (secret or {}).get("data") or {}
    try:
        return base64.b64decode(data["tls.crt"], validate=True), base64.b64decode(data["tls.key"], validate=True)
    except (KeyError, binascii.Error):
        return None
