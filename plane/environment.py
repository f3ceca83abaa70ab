"""The environment of a container: ``env``, with ``$(VAR)`` expanded and the downward API resolved.

https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/ and
https://kubernetes.io/docs/concepts/workloads/pods/downward-api/
"""

import re
from collections.abc import Callable, Mapping

from plane.model import Object

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
