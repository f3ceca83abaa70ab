"""Warnings: what is in a Snapshot that will not do what its author may expect.

Law: nothing is ignored in silence. A field that the plane does not act on is a row of a table below, and a row goes
when the plane acts on the field. A warning is one line: object, field, what happens instead or what to do.
"""

import base64
import binascii
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Any, NamedTuple

from kernels.layout import ALGORITHMS, DH, RANDOM
from plane import dialects
from plane.annotationadvice import remarks
from plane.certificates import is_for, names_of, trouble_with_pair
from plane.controllers.addressing import is_balanced
from plane.dns.names import followed, loops
from plane.frontends import algorithm_of, slow_start_of
from plane.ingressclass import CLASS_ANNOTATION, served, unserved_because, winning
from plane.ingressrules import find_port, hosts_of
from plane.matching import slot_of
from plane.model import (
    SERVICE_LABEL,
    SLOW_START_ANNOTATION,
    Key,
    Name,
    Object,
    Service,
    Snapshot,
    key_of,
    slices_by_service,
)
from plane.pods import images
from plane.policies import Asked
from plane.rows import Followed
from plane.validation.findings import Place
from plane.validation.metadata import APP_ANNOTATION

DEPLOYMENT_FIELDS = ("paused", "minReadySeconds")
# Below a pod's spec. What concerns pulling images is not here: the plane pulls none and says so for each image.
POD_FIELDS = (
    "volumes",
    "initContainers",
    "ephemeralContainers",
    "containers[*].command",
    "containers[*].workingDir",
    "containers[*].envFrom",
    "containers[*].env[*].valueFrom.configMapKeyRef",
    "containers[*].env[*].valueFrom.secretKeyRef",
    "containers[*].env[*].valueFrom.fileKeyRef",
    "containers[*].ports[*].hostPort",
    "containers[*].ports[*].hostIP",
    "containers[*].volumeMounts",
    "containers[*].volumeDevices",
    "containers[*].resources.limits",
    "containers[*].resources.requests",
    "containers[*].resources.claims",
    "containers[*].lifecycle",
    "containers[*].livenessProbe",
    "containers[*].startupProbe",
    "containers[*].readinessProbe.exec",
    "containers[*].readinessProbe.grpc",
    "containers[*].securityContext",
    "securityContext",
    "resources",
    "affinity",
    "tolerations",
    "topologySpreadConstraints",
    "readinessGates",
    "activeDeadlineSeconds",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "setHostnameAsFQDN",
    "hostnameOverride",
    "priorityClassName",
    "runtimeClassName",
)
RESOLVER_OPTIONS = ("ndots", "timeout", "attempts")  # of dnsConfig, that pods' resolvers act on


def advise(
    snapshot: Snapshot,
    about: Collection[Key] | None = None,
    *,
    algorithm: int = RANDOM,
    rivals: "Rivals | None" = None,
) -> list[str]:
    """All warnings about the objects of a Snapshot, or about some of them, in order of kind and name.

    Objects that a controller made are left out: their owner is warned about. ``algorithm`` is that of Services which
    name none; with ``rivals`` that have followed the Snapshots before, not all Ingresses are gone through for a few.
    """
    return list(_warnings(snapshot, about, algorithm, rivals))


def _warnings(
    snapshot: Snapshot, about: Collection[Key] | None, algorithm: int, rivals: "Rivals | None"
) -> Iterator[str]:
    def among(kind: str) -> list[Object]:
        if about is None:
            return list(snapshot.all(kind))
        found = (snapshot.get(*key) for key in sorted(about) if key.kind == kind)
        return [obj for obj in found if obj is not None]

    if services := among("Service"):
        templates, with_slices = _Templates(snapshot), slices_by_service(snapshot)
        controllers = dialects.controllers_of_services(snapshot)
        for obj in services:
            yield from _service(obj, snapshot, templates, with_slices, controllers)
            yield from _slow_start(obj, algorithm)
    yield from _slices(among("EndpointSlice"), snapshot)
    for kind in ("Deployment", "ReplicaSet", "Pod"):
        for obj in filter(_is_root, among(kind)):
            yield from _pods(obj)
    for obj in among("IngressClass"):
        if obj["spec"].get("parameters"):
            yield _said(obj, "spec.parameters", "not acted on: no class has parameters here, only the plane has")
    if ingresses := among("Ingress"):
        for obj in ingresses:
            yield from _ingress(obj, snapshot)
        few = about is not None and rivals is not None
        yield from _conflicts(
            ingresses, snapshot, rivals.of(ingresses, snapshot) if few and rivals else served(snapshot)
        )


def _said(obj: Object, field: str, what: str) -> str:
    return f"{key_of(obj)}: {field}: {what}" if field else f"{key_of(obj)}: {what}"


def _found(place: Place, path: str) -> Iterator[Place]:
    """The places that a path of a table leads to, where there is anything."""
    step, _, rest = path.partition(".")
    place = place.at(step.removesuffix("[*]"))
    for row in place.rows() if step.endswith("[*]") else (place,):
        if rest:
            yield from _found(row, rest)
        elif row.value:
            yield row


def _roots(snapshot: Snapshot, kind: str) -> Iterator[Object]:
    """The objects of a kind that no controller made."""
    return filter(_is_root, snapshot.all(kind))


def _is_root(obj: Object) -> bool:
    return not any(owner.get("controller") for owner in obj["metadata"].get("ownerReferences") or ())


class _Template(NamedTuple):
    """Pods that there will be: their labels, and the names of their containers' ports."""

    labels: dict[str, str]
    ports: set[tuple[str, str]]  # (name, protocol)


class _Templates:
    """All Pods and pod templates, to be found by a label."""

    def __init__(self, snapshot: Snapshot):
        self._by_label: dict[tuple[str, str, str], list[_Template]] = {}
        self._values: dict[tuple[str, str], set[str]] = {}
        for kind in ("Deployment", "ReplicaSet", "Pod"):
            for obj in _roots(snapshot, kind):
                self._add(
                    obj["metadata"].get("namespace", "default"), obj if kind == "Pod" else obj["spec"]["template"]
                )

    def _add(self, namespace: str, pod: Object) -> None:
        ports = {
            (port["name"], port.get("protocol") or "TCP")
            for container in pod["spec"].get("containers") or ()
            for port in container.get("ports") or ()
            if port.get("name")
        }
        labels = (pod.get("metadata") or {}).get("labels") or {}
        for key, value in labels.items():
            self._by_label.setdefault((namespace, key, value), []).append(_Template(labels, ports))
            self._values.setdefault((namespace, key), set()).add(value)

    def chosen(self, service: Service) -> list[_Template]:
        """Those that a Service with a selector selects."""
        key, value = next(iter(service.selector.items()))
        rows = self._by_label.get((service.namespace, key, value), ())
        return [row for row in rows if service.selector.items() <= row.labels.items()]

    def near(self, service: Service) -> list[str]:
        """Labels there are under the keys of a Service's selector, those like the ones it wants first."""
        return [
            f"{key}={value}"
            for key, wanted in service.selector.items()
            for value in get_close_matches(wanted, self._values.get((service.namespace, key), ()), cutoff=0)
        ]


def _service(
    obj: Object,
    snapshot: Snapshot,
    templates: _Templates,
    with_slices: Container[Name],
    controllers: Mapping[Name, Collection[str]],
) -> Iterator[str]:
    service = Service.of(obj)
    yield from _dialect(obj, controllers.get((service.namespace, service.name), ()))
    if service.type == "ExternalName":
        if loops(snapshot, service):
            chain = " → ".join(followed(snapshot, service)[0])
            yield _said(obj, "spec.externalName", f"leads back to itself, by {chain}: it has no address")
        return
    if service.type == "LoadBalancer" and not is_balanced(obj):
        named = obj["spec"]["loadBalancerClass"]
        yield _said(obj, f"spec.loadBalancerClass {named}", "left pending: the plane gives no address of this class")
    for index, address in enumerate(service.outside_ips):
        if not ip_address(address).is_loopback:
            yield _said(obj, f"spec.externalIPs[{index}] {address}", "served only where the machine has this address")
    if not service.selector:
        if (service.namespace, service.name) not in with_slices:
            yield _said(
                obj, "", f"no spec.selector and no EndpointSlice with label {SERVICE_LABEL}: it has no endpoint"
            )
        return
    chosen = templates.chosen(service)
    if not chosen:
        yield _said(obj, "spec.selector", _unmatched(service, templates))
        return
    for index, port in enumerate(service.ports):
        named = (str(port.target_port), port.protocol)
        if isinstance(port.target_port, str) and not any(named in row.ports for row in chosen):
            names = sorted({name for row in chosen for name, _ in row.ports})
            hint = f"; they have {', '.join(names)}" if names else "; give one a port of that name"
            what = f'no container of its pods has a {port.protocol} port named "{port.target_port}"{hint}'
            yield _said(obj, f"spec.ports[{index}].targetPort", what)


def _slow_start(obj: Object, algorithm: int) -> Iterator[str]:
    service = Service.of(obj)
    chosen = algorithm_of(service, algorithm)
    if service.slow_start_s and not slow_start_of(service, chosen):
        why = "session affinity" if service.affinity_s else f"{ALGORITHMS[chosen]}, which hashes"
        yield _said(obj, f"metadata.annotations[{SLOW_START_ANNOTATION}]", f"has no effect beside {why}; leave one out")


def _unmatched(service: Service, templates: _Templates) -> str:
    wanted = ",".join(f"{key}={value}" for key, value in service.selector.items())
    near = templates.near(service)
    hint = f"; pods there have {', '.join(near)}" if near else ""
    return f"no pod in namespace {service.namespace} has {wanted}: it has no endpoint{hint}"


def _slices(slices: Iterable[Object], snapshot: Snapshot) -> Iterator[str]:
    for obj in slices:
        metadata = obj["metadata"]
        namespace, name = metadata.get("namespace", "default"), (metadata.get("labels") or {}).get(SERVICE_LABEL)
        field = f"metadata.labels[{SERVICE_LABEL}]"
        if not name:
            yield _said(obj, field, "is missing, so its endpoints belong to no Service; add it")
        elif not snapshot.get("Service", namespace, name):
            yield _said(obj, field, f'there is no Service "{name}" in namespace {namespace}')
        yield from _of_slice(obj)


def _of_slice(obj: Object) -> Iterator[str]:
    """Warnings about what kube-proxy takes no notice of either."""
    for row in Place("", obj).at("endpoints").rows():
        addresses = row.at("addresses")
        if len(addresses.value) > 1:
            yield _said(
                obj, addresses.path, f"only the first, {addresses.value[0]}, is used; write an endpoint for each"
            )
        if row.at("deprecatedTopology").given:
            yield _said(obj, row.at("deprecatedTopology").path, "not acted on; write nodeName and zone")
    for row in Place("", obj).at("ports").rows():
        if row.at("port").value is None:
            yield _said(obj, row.at("port").path, "is missing, so no Service port leads to it; add it")


def _pods(obj: Object) -> Iterator[str]:
    """Warnings about a Pod, or about a workload's pod template."""
    pod = Place("", obj) if obj["kind"] == "Pod" else Place("", obj).at("spec", "template")
    spec = pod.at("spec")
    own = ((Place("", obj).at("spec"), name) for name in DEPLOYMENT_FIELDS if obj["kind"] == "Deployment")
    fields = [
        place.path for base, name in (*own, *((spec, name) for name in POD_FIELDS)) for place in _found(base, name)
    ]
    for option in spec.at("dnsConfig", "options").rows():
        if option.at("name").text() not in RESOLVER_OPTIONS:
            fields.append(f"{option.path} ({option.at('name').text()})")
    if fields:
        yield _said(obj, "", f"not acted on: {', '.join(fields)}")
    is_app = pod.at("metadata", "annotations").at(APP_ANNOTATION).given
    for number, container in enumerate(spec.at("containers").rows()):
        image = container.at("image")
        if not (is_app and number == 0) and not images.known(image.text()):
            yield _said(obj, image.path, f"the plane does not run {image.text()}, it runs an echo server in its place")
        names = {port.at("name").value for port in container.at("ports").rows()}
        for port in (container.at("readinessProbe", kind, "port") for kind in ("httpGet", "tcpSocket")):
            if isinstance(port.value, str) and port.value not in names:
                yield _said(obj, port.path, f'the container has no port named "{port.value}", so it never gets ready')


def _dialect(obj: Object, controllers: Collection[str]) -> Iterator[str]:
    """Of a Service: some controllers read annotations there; these are those of the Ingresses that lead to it."""
    for row in dialects.not_acted_on_of_service(obj, controllers):
        yield _said(obj, f"metadata.annotations[{row.annotation}]", row.what)
    for unfit in dialects.unfit_of_service(obj["metadata"].get("annotations") or {}):
        yield _said(obj, f"metadata.annotations[{unfit.annotation}]", f"left out: {unfit.reason}")


def _ingress(obj: Object, snapshot: Snapshot) -> Iterator[str]:
    for field, what in remarks(obj, snapshot):
        yield _said(obj, field, what)
    unserved = unserved_because(obj, snapshot)
    if unserved:
        named = (obj["metadata"].get("annotations") or {}).get(CLASS_ANNOTATION)
        field = f"metadata.annotations[{CLASS_ANNOTATION}]" if named else "spec.ingressClassName"
        yield _said(obj, field, f"not served: {unserved}")
        return
    spec = Place("", obj).at("spec")
    for place in (*_found(spec, "defaultBackend"), *_found(spec, "rules[*].http.paths[*].backend")):
        yield from _backend(obj, place.at("service"), snapshot)
    named = [rule["host"] for rule in obj["spec"].get("rules") or () if rule.get("host")]
    for row in spec.at("tls").rows():
        if row.at("secretName").value:
            secret = snapshot.get("Secret", obj["metadata"]["namespace"], row.at("secretName").text())
            yield from _certificate(obj, row.at("secretName"), secret, row.value.get("hosts") or named)


def _certificate(obj: Object, place: Place, secret: Object | None, hosts: list[str]) -> Iterator[str]:
    """What keeps the hosts of a row of spec.tls from the certificate of its Secret."""
    trouble = _certificate_trouble(secret)
    if trouble or secret is None:
        what = f'Secret "{place.value}" {trouble}; HTTPS for these hosts gets the default certificate'
        yield _said(obj, place.path, what)
        return
    chain = base64.b64decode(secret["data"]["tls.crt"])
    others = [host for host in dict.fromkeys(map(str.lower, hosts)) if not is_for(chain, host)]
    if others:
        names = ", ".join(names_of(chain)) or "no DNS name"
        what = f'Secret "{place.value}" has a certificate for {names}, not for {", ".join(others)}'
        yield _said(obj, place.path, f"{what}; HTTPS there gets the default certificate")


def _backend(obj: Object, backend: Place, snapshot: Snapshot) -> Iterator[str]:
    namespace, name = obj["metadata"]["namespace"], backend.at("name").text()
    service, found = find_port(snapshot, namespace, backend.value)
    if service is None:
        what = f'there is no Service "{name}" in namespace {namespace}; requests get 503'
        yield _said(obj, backend.at("name").path, what)
    elif found is not None and algorithm_of(service, RANDOM) == DH:
        what = (
            f'Service "{name}" is balanced by the address that is connected to (dh), which says nothing of requests '
            "through an Ingress: endpoints take turns there"
        )
        yield _said(obj, backend.at("name").path, what)
    elif found is None:
        port = backend.at("port", "name") if backend.at("port", "name").given else backend.at("port", "number")
        rows = [row for row in service.ports if row.protocol == "TCP"]
        there = ", ".join(f"{row.port} ({row.name})" if row.name else str(row.port) for row in rows) or "none"
        target = next((row for row in rows if port.value == row.target_port), None)
        hint = f"; {port.value} is its targetPort, write {target.port}" if target else ""
        what = f'Service "{name}" has no TCP port {port.value}, it has {there}; requests get 503{hint}'
        yield _said(obj, port.path, what)


def _certificate_trouble(secret: Object | None) -> str:
    """Why a Secret gives no certificate, empty where it does."""
    if secret is None:
        return "does not exist"
    for key, mark in (("tls.crt", b"-----BEGIN CERTIFICATE-----"), ("tls.key", b"PRIVATE KEY-----")):
        text = (secret.get("data") or {}).get(key)
        if not text:
            return f"has no {key}"
        try:
            if mark not in base64.b64decode(text):
                return f"has a {key} that is no PEM"
        except binascii.Error:
            return f"has a {key} that is no base64"
    if b"ENCRYPTED" in base64.b64decode(secret["data"]["tls.key"]):
        return "has a tls.key with a passphrase; store it without one"
    return trouble_with_pair(*(base64.b64decode(secret["data"][key]) for key in ("tls.crt", "tls.key")))


class Rivals:
    """Which Ingresses have a rule for the same host and path, kept up to date from one Snapshot to the next."""

    def __init__(self) -> None:
        self._begin(None)

    def _begin(self, classes: object) -> None:
        self._classes = classes
        self._followed: Followed[Name, Object] = Followed()
        self._slots: dict[Name, set[tuple[Any, ...]]] = {}
        self._names: dict[tuple[Any, ...], set[Name]] = {}  # by slot

    def of(self, ingresses: Iterable[Object], snapshot: Snapshot) -> list[Object]:
        """Those that are served, and all that have a rule in common with one of them, the one that wins first."""
        if self._classes is not snapshot.rows("IngressClass"):
            self._begin(snapshot.rows("IngressClass"))
        rows = snapshot.rows("Ingress")
        for name, _, now in self._followed.news(rows):
            for slot in self._slots.pop(name, ()):
                self._names[slot].discard(name)
                if not self._names[slot]:
                    del self._names[slot]
            if now is not None and not unserved_because(now, snapshot):
                self._slots[name] = {slot for slot, _ in _slots(now, dialects.asked(now, snapshot))}
                for slot in self._slots[name]:
                    self._names.setdefault(slot, set()).add(name)
        names = (key_of(obj)[1:] for obj in ingresses)
        found = {other for name in names for slot in self._slots.get(name, ()) for other in self._names[slot]}
        return sorted((rows[name] for name in found), key=winning)


def _conflicts(ingresses: Iterable[Object], snapshot: Snapshot, all_served: Iterable[Object]) -> Iterator[str]:
    """Rules of some for the same host and path: the oldest Ingress wins, then the first by namespace and name.

    ``all_served`` are those that they may have something in common with, in this order.
    """
    taken: dict[tuple[Any, ...], str] = {}
    keys = set(map(key_of, ingresses))
    for obj in all_served:
        asked = dialects.asked(obj, snapshot)
        if asked.canary:
            continue
        for slot, place in _slots(obj, asked):
            if slot not in taken:
                taken[slot] = f"{key_of(obj)} {place.path}"
                continue
            if key_of(obj) not in keys:
                continue
            what = "the default backend"
            if slot:
                what = f"{place.at('pathType').text()} {slot[0] or 'any host'}{place.at('path').text('/')}"
            yield _said(
                obj, place.path, f"{what} is also in {taken[slot]}, which wins as the older or the first by name"
            )


def _slots(obj: Object, asked: Asked) -> Iterator[tuple[tuple[Any, ...], Place]]:
    """(host, Slot of its path) of each rule of an Ingress, and its place; nothing for the default backend."""
    spec = Place("", obj).at("spec")
    if spec.at("defaultBackend").given and not spec.at("rules").given:
        yield (), spec.at("defaultBackend")
    for rule in spec.at("rules").rows():
        for row in rule.at("http", "paths").rows():
            for host in hosts_of(rule.value, asked):
                yield (host, slot_of(row.value, host, asked)), row
