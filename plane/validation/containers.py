"""Containers of a pod: names, ports, probes and environment (``pkg/apis/core/validation``)."""

import re
from collections.abc import Iterator

from plane.environment import FIELDS, offered
from plane.validation import names
from plane.validation.findings import Finding, Place, shown
from plane.validation.metadata import name_at
from plane.validation.services import PROTOCOLS, port_or_name

PULL_POLICIES = ("Always", "IfNotPresent", "Never")
VARIABLE = re.compile(r"[ -<>-~]+\Z")  # printable ASCII without "="
HEADER = re.compile(r"[-A-Za-z0-9]+\Z")
PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
PROBE_NUMBERS = ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold")
# Sources of a variable, and whether they have a key that may be missing ("optional").
SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
NO_SOURCE = "this plane cannot read it; write the value itself, or optional: true to run without the variable"


def containers(spec: Place) -> Iterator[Finding]:
    """Those of a pod spec, with init containers."""
    rows = list(spec.at("containers").rows())
    if isinstance(spec.at("containers").value, list) and not rows:
        yield spec.at("containers").wrong("is empty; add at least one container")
    volumes = {row.at("name").value for row in spec.at("volumes").rows()}
    seen: dict[str, str] = {}
    for row in (*spec.at("initContainers").rows(), *rows):
        name = row.at("name")
        if name.text() in seen:
            yield name.wrong(f"{shown(name.value)} is also that of {seen[name.text()]}; choose another")
        elif name.given:
            seen[name.value] = row.path
        yield from _container(row)
        for mount in row.at("volumeMounts").rows():
            wanted = mount.at("name")
            if wanted.given and wanted.value not in volumes:
                yield wanted.wrong(f"there is no volume {shown(wanted.value)} in this pod; add it to volumes")


def _container(row: Place) -> Iterator[Finding]:
    if row.at("name").value == "":
        yield row.at("name").wrong("is empty; write a name")
    yield from name_at(row.at("name"), names.label)
    image = row.at("image")
    if not image.given:
        yield image.wrong("is required; write the name of an image")
    elif image.value != image.value.strip():
        yield image.wrong(f"{shown(image.value)} begins or ends with a space; take it out")
    yield from row.at("imagePullPolicy").one_of(PULL_POLICIES)
    yield from _ports(row.at("ports"))
    for entry in row.at("env").rows():
        yield from _variable(entry)
    for entry in row.at("envFrom").rows():
        for name in ("configMapRef", "secretRef"):
            if entry.at(name).given and not entry.at(name, "optional").value:
                yield entry.at(name).refused(
                    "this plane cannot read it; write the variables under env, or optional: true"
                )
    for name in PROBES:
        yield from _probe(row.at(name), name)
    for kind in ("limits", "requests"):
        for _, quantity in row.at("resources", kind).entries():
            if isinstance(quantity.value, str) and not names.QUANTITY.match(quantity.value):
                yield quantity.wrong(f"{shown(quantity.value)} is no quantity; write one such as 500m or 128Mi")


def _ports(ports: Place) -> Iterator[Finding]:
    seen: dict[str, str] = {}
    for row in ports.rows():
        name = row.at("name")
        yield from name_at(name, names.port_name)
        if name.text() in seen:
            yield name.wrong(f"{shown(name.value)} is also that of {seen[name.text()]}; choose another")
        elif name.given:
            seen[name.value] = row.path
        yield from row.at("containerPort").between(1, 65535)
        if row.at("hostPort").value:
            yield from row.at("hostPort").between(1, 65535)
        yield from row.at("protocol").one_of(PROTOCOLS)


def _variable(entry: Place) -> Iterator[Finding]:
    name, source = entry.at("name"), entry.at("valueFrom")
    if name.value == "":
        yield name.wrong("is empty; write a name")
    elif name.given and not VARIABLE.match(name.value):
        yield name.wrong(f'{shown(name.value)} is no name of a variable; write printable characters without "="')
    if source.value is None:
        return
    given = [row for row in (source.at(kind) for kind in SOURCES) if row.value is not None]
    if entry.at("value").given:
        yield source.wrong("cannot go together with value; keep one of them")
    if len(given) != 1:
        sources = ", ".join(row.path.rpartition(".")[2] for row in given)
        yield source.wrong(
            f"has {len(given)} sources{f' ({sources})' if sources else ''}; write exactly one, such as fieldRef"
        )
        return
    only = given[0]
    if only == source.at("fieldRef"):
        yield from _field_reference(only)
    elif not only.at("optional").value:
        remedy = NO_SOURCE.partition(", or")[0] if only == source.at("resourceFieldRef") else NO_SOURCE
        yield only.refused(remedy)


def _field_reference(place: Place) -> Iterator[Finding]:
    path, version = place.at("fieldPath"), place.at("apiVersion")
    yield from version.one_of(("v1",))
    if path.value == "" or (path.given and not offered(path.value)):
        allowed = ", ".join((*FIELDS, "metadata.labels['KEY']", "metadata.annotations['KEY']"))
        yield path.wrong(f"{shown(path.value)} is not offered to a variable; write one of {allowed}")


def _probe(probe: Place, kind: str) -> Iterator[Finding]:
    if probe.value is None:
        return
    given = [name for name in HANDLERS if probe.at(name).value is not None]
    if len(given) != 1:
        said = f"has {len(given)} handlers ({', '.join(given)})" if given else "has no handler"
        yield probe.wrong(f"{said}; write exactly one of {', '.join(HANDLERS)}")
    for name in PROBE_NUMBERS:
        yield from probe.at(name).at_least(0)
    if kind != "readinessProbe" and (probe.at("successThreshold").value or 1) > 1:
        yield probe.at("successThreshold").wrong(f"must be 1 in a {kind}")
    grace = probe.at("terminationGracePeriodSeconds")
    if grace.value is not None and kind == "readinessProbe":
        yield grace.wrong("goes with livenessProbe and startupProbe; leave it out")
    else:
        yield from grace.at_least(1)
    http = probe.at("httpGet")
    yield from http.at("scheme").one_of(("HTTP", "HTTPS"))
    for header in http.at("httpHeaders").rows():
        if header.at("name").value is not None and not HEADER.match(header.at("name").value):
            yield header.at("name").wrong(f"{shown(header.at('name').value)} is no name of a header")
    for handler in (http, probe.at("tcpSocket")):
        yield from port_or_name(handler.at("port"))
    yield from probe.at("grpc", "port").between(1, 65535)
