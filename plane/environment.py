"""The environment of a container: the Services around it, and ``env`` with ``$(VAR)`` and the downward API resolved.

https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/ and
https://kubernetes.io/docs/concepts/workloads/pods/downward-api/
"""

import re
from collections.abc import Callable, Iterable, Mapping

from plane.model import Object, Service

REFERENCE = re.compile(r"\$(?:\$|\((?P<name>[^)]*)\))")
SUBSCRIPTED = re.compile(r"metadata\.(?P<map>labels|annotations)\['(?P<key>[^']+)'\]\Z")

FIELDS: dict[str, Callable[[Object], str]] = {
    "metadata.name": lambda pod: pod["metadata"]["name"],
    "metadata.namespace": lambda pod: pod["metadata"].get("namespace", "default"),
    "metadata.uid": lambda pod: pod["metadata"].get("uid", ""),
    "spec.nodeName": lambda pod: pod["spec"].get("nodeName", ""),
    "spec.serviceAccountName": lambda pod: pod["spec"].get("serviceAccountName") or "default",
    "status.hostIP": lambda pod: _status(pod).get("hostIP", ""),
    "status.hostIPs": lambda pod: _addresses(pod, "hostIP"),
    "status.podIP": lambda pod: _status(pod).get("podIP", ""),
    "status.podIPs": lambda pod: _addresses(pod, "podIP"),
}


def resolve(pod: Object, container: Object) -> dict[str, str]:
    """The variables of a container of a pod that has its node and its address.

    A variable whose only source is one that ``check`` let pass because it is optional is left out, as the kubelet does.
    Raises KeyError for a fieldPath that ``check`` would have refused.
    """
    variables: dict[str, str] = {}
    for entry in container.get("env") or ():
        source = entry.get("valueFrom")
        if not source:
            variables[entry["name"]] = expand(entry.get("value") or "", variables)
        elif source.get("fieldRef"):
            variables[entry["name"]] = field(pod, source["fieldRef"]["fieldPath"])
    return variables


def of_services(services: Iterable[Service], bound_port: Callable[[int], int]) -> dict[str, str]:
    """What containers are told of the Services of their namespace that have an address when they start.

    https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables, with the variables that
    Docker's links had. ``bound_port`` gives the port that is really listened on.
    """
    variables: dict[str, str] = {}
    for service in services:
        if not service.cluster_ip or not service.ports:
            continue
        name, address = _variable(service.name), service.cluster_ip
        first = service.ports[0]
        variables[f"{name}_SERVICE_HOST"] = address
        variables[f"{name}_SERVICE_PORT"] = str(bound_port(first.port))
        variables[f"{name}_PORT"] = f"{first.protocol.lower()}://{address}:{bound_port(first.port)}"
        for port in service.ports:
            number = str(bound_port(port.port))
            if port.name:
                variables[f"{name}_SERVICE_PORT_{_variable(port.name)}"] = number
            link = f"{name}_PORT_{number}_{port.protocol}"
            variables[link] = f"{port.protocol.lower()}://{address}:{number}"
            variables[f"{link}_PROTO"] = port.protocol.lower()
            variables[f"{link}_PORT"] = number
            variables[f"{link}_ADDR"] = address
    return variables


def with_services(pod: Object, variables: Mapping[str, str]) -> Object:
    """The pod with these variables before its containers' own, unless ``enableServiceLinks`` is false."""
    if pod["spec"].get("enableServiceLinks") is False or not variables:
        return pod
    entries = [{"name": name, "value": value} for name, value in variables.items()]
    containers = [{**row, "env": [*entries, *(row.get("env") or ())]} for row in pod["spec"]["containers"]]
    return {**pod, "spec": {**pod["spec"], "containers": containers}}


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Text with each ``$(NAME)`` replaced; one that is not set stays as written, and ``$$`` is a plain ``$``."""

    def value(match: re.Match[str]) -> str:
        name = match["name"]
        return "$" if name is None else variables.get(name, match[0])

    return REFERENCE.sub(value, text)


def field(pod: Object, path: str) -> str:
    """The text of a field of a pod that the downward API offers. Raises KeyError for any other."""
    subscript = SUBSCRIPTED.match(path)
    if subscript:
        return (pod["metadata"].get(subscript["map"]) or {}).get(subscript["key"]) or ""
    return FIELDS[path](pod)


def offered(path: str) -> bool:
    """Whether the downward API offers this field to a variable."""
    return path in FIELDS or bool(SUBSCRIPTED.match(path))


def _status(pod: Object) -> Object:
    return pod.get("status") or {}


def _addresses(pod: Object, name: str) -> str:
    status = _status(pod)
    rows = [row["ip"] for row in status.get(f"{name}s") or ()]
    return ",".join(rows) or status.get(name, "")
