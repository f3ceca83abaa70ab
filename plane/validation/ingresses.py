"""Ingress and IngressClass (``k8s.io/kubernetes/pkg/apis/networking/validation``)."""

import ipaddress
import re
from collections.abc import Iterator

from plane import dialects
from plane.ingressclass import CLASS_ANNOTATION
from plane.regex import of_path, why_not
from plane.validation import names
from plane.validation.findings import Finding, Place, shown
from plane.validation.metadata import name_at

PATH_TYPES = ("Exact", "Prefix", "ImplementationSpecific")
FORBIDDEN_IN_PATH = ("//", "/./", "/../", "%2f", "%2F")
LONGEST_PATH = 65_535
FORBIDDEN_AT_END = ("/..", "/.")


def ingress(obj: Place) -> Iterator[Finding]:
    spec = obj.at("spec")
    default = spec.at("defaultBackend")
    if not spec.at("rules").given and not default.given:
        yield Finding("spec", "neither rules nor defaultBackend: it would route nothing; add one of them")
    if default.given:
        yield from _backend(default)
    for rule in spec.at("rules").rows():
        yield from name_at(rule.at("host"), _host_reason)
        http = rule.at("http")
        if http.value is None:
            continue
        if not http.at("paths").given:
            yield http.at("paths").wrong("is required; add at least one path")
        for path in http.at("paths").rows():
            yield from _path(path)
    for row in spec.at("tls").rows():
        for host in row.at("hosts").rows():
            reason = _host_reason(host.value)
            if reason:
                yield host.wrong(reason)
        yield from name_at(row.at("secretName"), names.subdomain)
    yield from _annotations(obj.at("metadata", "annotations"), spec)
    name, annotation = spec.at("ingressClassName"), obj.at("metadata", "annotations").at(CLASS_ANNOTATION)
    yield from name_at(name, names.subdomain)
    if name.given and annotation.given:
        yield annotation.refused("cannot go together with spec.ingressClassName; keep one of them")


def _annotations(place: Place, spec: Place) -> Iterator[Finding]:
    """Those of the dialects. The API server takes anything there; a controller would not do what is asked for."""
    said = {name: row.value for name, row in place.entries() if isinstance(row.value, str)}
    for row in dialects.unfit(said):
        yield place.at(row.annotation).refused(row.reason)
    if dialects.takes_expressions(said):
        for rule in spec.at("rules").rows():
            for path in rule.at("http", "paths").rows():
                if reason := why_not(of_path(path.at("path").text("/"))):
                    yield path.at("path").refused(f"is a regular expression by the annotations, but {reason}")


def ingress_class(obj: Place) -> Iterator[Finding]:
    controller = obj.at("spec", "controller")
    if controller.given:
        domain, slash, path = controller.value.partition("/")
        if not slash or not path or names.subdomain(domain) or len(controller.value) > 250:
            yield controller.wrong(
                f'{shown(controller.value)} is not allowed; write a domain and a path, as in "k8s.io/ingress-nginx"'
            )


def _host_reason(host: str) -> str:
    """Why a host cannot be that of a rule or a certificate."""
    name, colon, port = host.rpartition(":")
    if colon and port.isdecimal() and ":" not in name:
        return f'{shown(host)} has a port, which a host cannot have; write "{name}"'
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        pass
    else:
        return f"{shown(host)} is an IP address; write a DNS name, or leave host out for every host"
    if host == "*":
        return '"*" is no host; leave host out for every host, or write "*.example.com"'
    if re.match(r"[a-z]+://", host):
        return f"{shown(host)} is a URL; write its host name only"
    return names.wildcard(host) if "*" in host else names.subdomain(host)


def _path(row: Place) -> Iterator[Finding]:
    kind, path = row.at("pathType"), row.at("path")
    yield from kind.one_of(PATH_TYPES)
    text = path.text()
    if kind.value in ("Exact", "Prefix"):
        if not text.startswith("/"):
            said = f"{shown(text)} does not begin with /" if text else f"is required with pathType {kind.value}"
            yield path.wrong(f'{said}; write an absolute path such as "/{text}"')
        for part in FORBIDDEN_IN_PATH:
            if part in text:
                yield path.wrong(f'{shown(text)} holds "{part}", which no path of a rule may; take it out')
        for part in FORBIDDEN_AT_END:
            if text.endswith(part):
                yield path.wrong(f'{shown(text)} ends in "{part}", which no path of a rule may; take it out')
    elif text and not text.startswith("/"):
        yield path.wrong(f'{shown(text)} does not begin with /; write an absolute path such as "/{text}"')
    if len(text.encode()) > LONGEST_PATH:
        yield path.wrong(f"is longer than {LONGEST_PATH} bytes; no request has such a path")
    backend = row.at("backend")
    if backend.value is not None:
        yield from _backend(backend)


def _backend(place: Place) -> Iterator[Finding]:
    service, resource = place.at("service"), place.at("resource")
    if service.given and resource.given:
        yield place.wrong("has both service and resource; keep service")
    elif resource.given:
        yield resource.wrong("this plane has no resource backends; write a service")
    elif not service.given:
        yield place.wrong("is empty; write a service with its name and port")
    if not service.given:
        return
    name, port = service.at("name"), service.at("port")
    if name.value == "":
        yield name.wrong("is required; write the name of a Service")
    yield from name_at(name, names.service_label)
    number, port_name = port.at("number"), port.at("name")
    has_number = number.value is not None and number.value != 0
    if has_number and port_name.given:
        yield port.wrong("has both name and number; keep one of them")
    elif not has_number and not port_name.given:
        yield port.wrong("is required; write the name or the number of a port of the Service")
    if has_number:
        yield from number.between(1, 65535)
    yield from name_at(port_name, names.port_name)
