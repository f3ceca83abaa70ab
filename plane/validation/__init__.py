"""Whether the plane takes an object, judged by the object alone: ``check``.

Law: everything that is wrong with an object is found at once, each with its field and a remedy; nothing is reported
twice. First its shape, by the official schemas; then what the Kubernetes API server checks besides; then what this
plane has nothing for, which would otherwise be ignored in silence.
"""

import difflib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from plane.errors import Problem
from plane.kinds import KINDS
from plane.validation import configmaps, ingresses, schema, secrets, services, workloads
from plane.validation.findings import Finding, Place, shown
from plane.validation.metadata import metadata

__all__ = ["check", "foreign", "like", "name_of"]

RULES: dict[str, Callable[[Place], Iterator[Finding]]] = {
    "Service": services.service,
    "EndpointSlice": services.endpoint_slice,
    "Pod": workloads.pod,
    "Deployment": workloads.deployment,
    "ReplicaSet": workloads.replica_set,
    "Ingress": ingresses.ingress,
    "IngressClass": ingresses.ingress_class,
    "Secret": secrets.secret,
    "ConfigMap": configmaps.config_map,
}


def check(obj: Any, *, file: str = "", document: int = 0, lenient: bool = False) -> list[Problem]:
    """Everything that is wrong with one object, empty where it is fine.

    ``lenient`` is for an object that some API server has accepted and that is to be read and not run: fields this
    version does not know, and features the plane has nothing for, are let pass.
    """
    name = name_of(obj)
    return [
        Problem(file, document, name, finding.field, finding.reason)
        for finding in _findings(obj)
        if not (lenient and finding.refusal)
    ]


def name_of(obj: Any) -> str:
    """``Kind namespace/name``, or what is known of it."""
    if not isinstance(obj, dict):
        return ""
    metadata = obj.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    name = metadata.get("name") or metadata.get("generateName") or ""
    namespace = metadata.get("namespace") or ""
    kind = obj.get("kind") or ""
    return " ".join(filter(None, (str(kind), "/".join(filter(None, (str(namespace), str(name)))) if name else "")))


def foreign(obj: dict[str, Any]) -> bool:
    """Whether the object is of a kind that is none of ours, such as a Job or a Knative Service."""
    kind, version = obj.get("kind"), obj.get("apiVersion")
    if kind not in KINDS:
        return True
    group = version.rpartition("/")[0] if isinstance(version, str) else ""
    return "." in group and not group.endswith(".k8s.io")


def like(kind: object) -> str:
    """A kind of ours that this one may be a misspelling of, empty where there is none."""
    by_lower = {name.lower(): name for name in KINDS}
    close = difflib.get_close_matches(str(kind).lower(), by_lower, n=1, cutoff=0.75)
    return by_lower[close[0]] if close else ""


def _findings(obj: Any) -> Iterable[Finding]:
    if not isinstance(obj, dict):
        return [Finding("", f"is {_said(obj)}, not an object; write a mapping with apiVersion, kind and metadata")]
    try:
        json.dumps(obj, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return [Finding("", "holds half of a surrogate pair (\\ud800 to \\udfff), which is no text; take it out")]
    unusable = list(_type_meta(obj))
    if unusable:
        return unusable
    kind = KINDS[obj["kind"]]
    misfits = schema.misfits(obj, kind)
    sound = Place("", schema.without(obj, misfits))
    rules = RULES.get(kind.kind)
    found = [*metadata(sound, kind), *(rules(sound) if rules else ())]
    shape = [Finding(misfit.field, misfit.reason, misfit.unknown) for misfit in misfits]
    broken = {finding.field for finding in shape}
    return [*shape, *(finding for finding in found if not _within(finding.field, broken))]


def _type_meta(obj: dict[str, Any]) -> Iterator[Finding]:
    """What is wrong with ``apiVersion`` and ``kind``, without which nothing else can be judged."""
    kind, version = obj.get("kind"), obj.get("apiVersion")
    known = KINDS.get(kind) if isinstance(kind, str) else None
    if not kind or not isinstance(kind, str):
        yield Finding("kind", "is required; add it, as in kind: Service")
    elif known is None:
        close = like(kind)
        mean = f"; did you mean {close}?" if close else f"; it runs {', '.join(KINDS)}"
        yield Finding("kind", f"{shown(kind)} is no kind that the plane runs{mean}")
    wanted = f", as in apiVersion: {known.api_version}" if known else ""
    if not version or not isinstance(version, str):
        yield Finding("apiVersion", f"is required; add it{wanted}")
    elif known and version != known.api_version:
        yield Finding("apiVersion", f"{shown(version)} is not served for kind {known.kind}; write {known.api_version}")


def _said(obj: Any) -> str:
    return {"list": "a list", "str": "text", "NoneType": "empty"}.get(type(obj).__name__, shown(obj))


def _within(field: str, broken: set[str]) -> bool:
    """Whether a field, or what it is part of, is known to be broken already."""
    return any(field == path or field.startswith((f"{path}.", f"{path}[")) for path in broken)
