"""Requests about objects → answers from the store. No HTTP library here, so every rule can be read and tested alone.

Law: the store is the one who says no. This file only finds out what is asked for and refuses what the plane could not
honour (a dry run, an orphaning deletion, a patch type it has no code for), rather than doing something else instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from plane.api import discovery, tables
from plane.api.paths import Target
from plane.api.selectors import NAMES, Predicate, SelectorError, by_fields, by_labels
from plane.api.status import RequestError, success
from plane.api.strategic import PatchError, strategic_merge
from plane.errors import ConflictError, ManifestError, Problem
from plane.merge import merge_patch
from plane.model import Key, Object, key_of
from plane.store import Store

MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"


@dataclass(frozen=True)
class Request:
    """One request: HTTP ``method``, what it is about, its query, its body as JSON (None without one)."""

    method: str
    target: Target
    query: Mapping[str, str]
    body: Any = None
    content_type: str = ""
    accept: str = ""

    @property
    def wants_table(self) -> bool:
        return tables.wanted(self.accept)


def answer(store: Store, request: Request) -> tuple[int, Object]:
    """HTTP status and body. Raises RequestError, and what the store raises."""
    target = request.target
    if request.method not in allowed_methods(target):
        raise RequestError(405, f"the server does not allow {request.method} on {target.kind.plural}")
    if request.method != "GET":
        _refuse_dry_run(request)
    if target.subresource == "scale":
        return 200, _scale(store, request)
    match request.method:
        case "GET" if target.name:
            return 200, _shown(request, [store.get(target.key)], single=True)
        case "GET":
            return 200, _list(store, request)
        case "POST":
            return 201, store.create(_identified(request))
        case "PUT":
            return 200, store.replace(_identified(request), status=target.subresource == "status")
        case "PATCH":
            return 200, _patch(store, request)
        case _:
            return 200, _delete(store, request)


def allowed_methods(target: Target) -> tuple[str, ...]:
    """The methods that a path answers to."""
    kind = target.kind.kind
    if target.subresource:
        known = {"scale": kind in discovery.SCALABLE, "status": kind not in discovery.WITHOUT_STATUS}
        if not known.get(target.subresource):
            raise RequestError(404, "the server could not find the requested resource", "NotFound")
        return ("GET", "PUT", "PATCH")
    if kind == discovery.CORDONED and target.name:
        return ("GET", "PUT", "PATCH")
    if kind in discovery.READ_ONLY:
        return ("GET",)
    if target.name:
        return ("GET", "PUT", "PATCH", "DELETE")
    return ("GET", "POST") if bool(target.namespace) == target.kind.namespaced else ("GET",)


def selection(request: Request) -> tuple[Predicate, Predicate]:
    """What path and query select: by what an object is called, which never changes, and by all they say.

    Raises RequestError for a selector that cannot be read.
    """
    target, query = request.target, request.query
    text = query.get("fieldSelector", "")
    try:
        labels = by_labels(query.get("labelSelector", ""))
        fields = by_fields(text, target.kind.kind)
        names = by_fields(text, target.kind.kind, only=NAMES)
    except SelectorError as error:
        raise RequestError(400, str(error)) from None

    def chosen(obj: Object) -> bool:
        metadata = obj["metadata"]
        in_path = target.namespace in (None, metadata.get("namespace")) and target.name in ("", metadata["name"])
        return in_path and names(obj)

    return chosen, lambda obj: chosen(obj) and labels(obj) and fields(obj)


def _list(store: Store, request: Request) -> Object:
    """All of them at once: ``limit`` may be given, and is not needed for as many objects as one plane has."""
    _, matches = selection(request)
    found = filter(matches, store.snapshot.all(request.target.kind.kind))
    return _shown(request, list(found), str(store.snapshot.generation))


def _shown(request: Request, objects: list[Object], resource_version: str = "", *, single: bool = False) -> Object:
    """One object or a list, as JSON or as the rows of a Table, whichever the client asked for."""
    kind = request.target.kind
    if request.wants_table:
        version = objects[0]["metadata"]["resourceVersion"] if single else resource_version
        return tables.table(kind.kind, objects, version, request.query.get("includeObject", "Metadata"))
    if single:
        return objects[0]
    return {
        "kind": f"{kind.kind}List",
        "apiVersion": kind.api_version,
        "metadata": {"resourceVersion": resource_version},
        "items": objects,
    }


def _identified(request: Request) -> Object:
    """The body with kind, namespace and name as the path has them. Raises RequestError where they differ."""
    target, obj = request.target, mapping(request.body, "the body")
    refuse_other_identity(target, obj)
    place = {"namespace": target.namespace, "name": target.name}
    named = {name: text for name, text in place.items() if text}
    kind = target.kind
    return {**obj, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": {**part(obj, "metadata"), **named}}


def refuse_other_identity(target: Target, obj: Object) -> None:
    """Raises RequestError where an object or a patch says that it is about something else than its path."""
    metadata = part(obj, "metadata")
    said = (
        ("apiVersion", obj.get("apiVersion"), target.kind.api_version),
        ("kind", obj.get("kind"), target.kind.kind),
        ("metadata.namespace", metadata.get("namespace"), target.namespace),
        ("metadata.name", metadata.get("name"), target.name),
    )
    for field, value, wanted in said:
        if value is not None and not isinstance(value, str):
            raise RequestError(400, f"{field} must be text")
        if value and wanted and value != wanted:
            raise RequestError(400, f"{field} {value!r} does not match the path, which is about {wanted!r}")


def subject(target: Target, body: Any) -> Key | None:
    """The object that a request is about: named by its path, or by the object that is to be created."""
    metadata = body.get("metadata") if isinstance(body, dict) else None
    given = metadata.get("name") if isinstance(metadata, dict) else None
    name = target.name or (given if isinstance(given, str) else "")
    return target.key._replace(name=name) if name else None


def mapping(value: Any, what: str) -> Object:
    """The value, known to be a mapping. Raises RequestError."""
    if not isinstance(value, dict):
        raise RequestError(400, f"{what} must be a JSON object")
    return value


def part(obj: Object, name: str) -> Object:
    """A field of the object that is a mapping where it is there at all. Raises RequestError."""
    value = obj.get(name)
    return {} if value is None else mapping(value, name)


def _patch(store: Store, request: Request) -> Object:
    target, patch = request.target, mapping(request.body, "a patch")
    status = target.subresource == "status"
    refuse_other_identity(target, patch)
    if "metadata" in patch:
        mapping(patch["metadata"], "metadata")
    if request.content_type == MERGE_PATCH:
        return store.merge_patch(target.key, patch, status=status)
    if request.content_type != STRATEGIC_PATCH:
        raise RequestError(
            415,
            f"patch type {request.content_type or 'without a name'} is not supported; "
            f"use {MERGE_PATCH} or {STRATEGIC_PATCH}",
        )
    try:
        after = strategic_merge(store.get(target.key), patch)
    except PatchError as error:
        raise RequestError(400, str(error)) from None
    if key_of(after) != target.key:
        raise ManifestError([Problem("", 0, str(target.key), "metadata", "a patch cannot change kind or name")])
    return store.replace(after, status=status)


def _delete(store: Store, request: Request) -> Object:
    key = request.target.key
    options = {} if request.body is None else mapping(request.body, "DeleteOptions")
    if "Orphan" in (options.get("propagationPolicy"), request.query.get("propagationPolicy")) or options.get(
        "orphanDependents"
    ):
        raise RequestError(400, "propagationPolicy Orphan is not supported: what an object owns goes with it")
    before = store.get(key)
    uid = before["metadata"].get("uid", "")
    for name, value in part(options, "preconditions").items():
        if value is not None and before["metadata"].get(name) != value:
            raise ConflictError(f'{request.target.kind.plural} "{key.name}": {name} is not {value!r} any more')
    left = store.delete(key, _grace(options.get("gracePeriodSeconds", request.query.get("gracePeriodSeconds"))))
    return left if store.snapshot.get(*key) else success(key, uid)


def _grace(given: Any) -> int | None:
    """Seconds, None for the pod's own. Raises RequestError."""
    if given is None:
        return None
    try:
        seconds = int(given)
    except (TypeError, ValueError):
        raise RequestError(400, f"gracePeriodSeconds {given!r} is no whole number") from None
    if seconds < 0:
        raise RequestError(400, f"gracePeriodSeconds {seconds} is negative")
    return seconds


def _refuse_dry_run(request: Request) -> None:
    options = request.body if request.method == "DELETE" and isinstance(request.body, dict) else {}
    if request.query.get("dryRun") or options.get("dryRun"):
        raise RequestError(
            400, "dryRun is not supported here and nothing was changed; use: plane apply --dry-run, or plane validate"
        )


def _scale(store: Store, request: Request) -> Object:
    """The ``scale`` subresource: an ``autoscaling/v1`` Scale that stands for ``spec.replicas``."""
    key = request.target.key
    scale = _scale_of(store.get(key))
    if request.method == "GET":
        return scale
    body = mapping(request.body, "the body")
    if request.method == "PATCH":
        if request.content_type not in (MERGE_PATCH, STRATEGIC_PATCH):
            raise RequestError(415, f"patch type {request.content_type} is not supported; use {MERGE_PATCH}")
        body = merge_patch(scale, body)
    replicas = part(body, "spec").get("replicas", 0)
    if type(replicas) is not int or replicas < 0:
        reason = f"{replicas!r} is no number of pods; write a whole number from 0 on"
        raise ManifestError([Problem("", 0, str(key), "spec.replicas", reason)])
    version = part(body, "metadata").get("resourceVersion")
    checked = {"metadata": {"resourceVersion": version}} if version else {}
    return _scale_of(store.merge_patch(key, {"spec": {"replicas": replicas}, **checked}))


def _scale_of(obj: Object) -> Object:
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    labels = (obj["spec"].get("selector") or {}).get("matchLabels") or {}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: obj["metadata"][name] for name in kept if name in obj["metadata"]},
        "spec": {"replicas": obj["spec"].get("replicas", 1)},
        "status": {
            "replicas": (obj.get("status") or {}).get("replicas", 0),
            "selector": ",".join(f"{name}={value}" for name, value in sorted(labels.items())),
        },
    }
