"""Ingresses, Services and EndpointSlices as Kubernetes JSON, and the Snapshots they make up, for tests."""

import base64
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from plane.model import SERVICE_LABEL, Object, Snapshot, endpoints_of

Address = tuple[str, int]


def backend(service: str, port: int | str = 80) -> Object:
    return {"service": {"name": service, "port": {"name" if isinstance(port, str) else "number": port}}}


def path(kind: str, text: str, service: str, port: int | str = 80) -> Object:
    return {"pathType": kind, "path": text, "backend": backend(service, port)}


def exact(text: str, service: str) -> Object:
    return path("Exact", text, service)


def prefix(text: str, service: str, port: int | str = 80) -> Object:
    return path("Prefix", text, service, port)


def rule(host: str, *paths: Object) -> Object:
    """A rule for ``host``, for any if it is empty; one without paths has no ``http`` at all."""
    return {**({"host": host} if host else {}), **({"http": {"paths": list(paths)}} if paths else {})}


def ingress(
    name: str,
    *rules: Object,
    default: str = "",
    created: str = "2026-01-01T00:00:00Z",
    namespace: str = "default",
    annotations: dict[str, str] | None = None,
    **spec: Any,
) -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "creationTimestamp": created,
            "annotations": annotations or {},
        },
        "spec": {
            **({"rules": list(rules)} if rules else {}),
            **({"defaultBackend": backend(default)} if default else {}),
            **spec,
        },
    }


def ingress_class(name: str, controller: str, *, default: bool = False) -> Object:
    annotations = {"ingressclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"controller": controller},
    }


def service(name: str, *, namespace: str = "default", cluster_ip: str = "", port_name: str = "", **spec: Any) -> Object:
    """A Service with one TCP port, 80."""
    port = {"port": 80, "protocol": "TCP", **({"name": port_name} if port_name else {})}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "annotations": spec.pop("annotations", {})},
        "spec": {"clusterIP": cluster_ip, "ports": [port], **spec},
    }


def endpoint(ip: str, *, ready: bool = True, serving: bool | None = None, terminating: bool = False) -> Object:
    return {
        "addresses": [ip],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "nodeName": "node-1",
        "targetRef": {"kind": "Pod", "name": f"pod-{ip.rpartition('.')[2]}"},
    }


def slice_of(
    name: str, *endpoints: Object, port: int = 8080, namespace: str = "default", port_name: str = ""
) -> Object:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-{port}", "namespace": namespace, "labels": {SERVICE_LABEL: name}},
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
    }


def slices(name: str, addresses: Sequence[Address]) -> list[Object]:
    """A slice for each address, all endpoints ready."""
    return [
        {**made, "metadata": {**made["metadata"], "name": f"{name}-{number}"}}
        for number, (ip, port) in enumerate(addresses)
        for made in [slice_of(name, endpoint(ip), port=port)]
    ]


def secret(name: str, chain: bytes, key: bytes) -> Object:
    data = {"tls.crt": base64.b64encode(chain).decode(), "tls.key": base64.b64encode(key).decode()}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "default"},
        "type": "kubernetes.io/tls",
        "data": data,
    }


def snapshot_of(*objects: Object, generation: int = 1) -> Snapshot:
    """A Snapshot whose backends have ids as the controllers give them: from 1, in order of the slices."""
    keys = {row.key: None for obj in objects if obj["kind"] == "EndpointSlice" for row in endpoints_of(obj)}
    ids = {key: number for number, key in enumerate(keys, start=1)}
    return replace(Snapshot(generation).changed(objects), backends=ids)


def web(*addresses: Address, generation: int = 1, **spec: Any) -> Snapshot:
    """The quickstart: all of ``example.com`` to the Service ``web``, which has these endpoints."""
    return snapshot_of(
        service("web"),
        *slices("web", addresses),
        ingress("web", rule("example.com", prefix("/", "web")), **spec),
        generation=generation,
    )
