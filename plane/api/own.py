"""The plane's own part of the API: what Kubernetes has no path for.

``apply``  takes a List whole or not at all, so that a folder of manifests is never half in force
``connections``  those through Services that are open
``wait``   returns once all nodes and ingresses carry traffic by a generation
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from plane.api.discovery import OWN_GROUP_VERSION, READ_ONLY
from plane.api.resources import mapping, part
from plane.api.status import RequestError
from plane.errors import ManifestError, Problem
from plane.kinds import KINDS
from plane.model import Key, Object, Snapshot, key_of
from plane.store import Store

ROOT = f"/apis/{OWN_GROUP_VERSION}"
DEFAULT_NAMESPACE = "default"
DEFAULT_WAIT_S = 30.0
MAX_WAIT_S = 3600.0


Advise = Callable[[Snapshot, Collection[Key]], list[str]]  # warnings about some objects


def apply(store: Store, body: Any, query: Mapping[str, str], advise: Advise) -> Object:
    """What became of each object, warnings, and the generation to wait for. Raises RequestError and ManifestError."""
    dry_run = query.get("dryRun", "") not in ("", "false")
    given, warnings = _objects(body)
    results = store.apply(given, dry_run=dry_run)
    after = store.snapshot.changed(obj for _, obj in results) if dry_run else store.snapshot
    return {
        "apiVersion": OWN_GROUP_VERSION,
        "kind": "Applied",
        "generation": store.snapshot.generation,
        "items": [
            {"verb": verb, "kind": key.kind, "namespace": key.namespace, "name": key.name}
            for verb, obj in results
            for key in [key_of(obj)]
        ],
        "warnings": [*warnings, *advise(after, {key_of(obj) for _, obj in results})],
    }


async def wait(query: Mapping[str, str], acknowledged: Callable[[int], Awaitable[None]]) -> Object:
    """Returns when the generation is acknowledged. Raises RequestError 504 where that takes too long."""
    try:
        generation = int(query["generation"])
        timeout_s = float(query.get("timeoutSeconds", DEFAULT_WAIT_S))
        if not 0 <= timeout_s <= MAX_WAIT_S:
            raise ValueError
    except (KeyError, ValueError):
        message = f"wait needs ?generation=NUMBER, and takes timeoutSeconds=NUMBER up to {MAX_WAIT_S:g}"
        raise RequestError(400, message) from None
    try:
        async with asyncio.timeout(timeout_s):
            await acknowledged(generation)
    except TimeoutError:
        message = f"generation {generation} is not acknowledged by all nodes and ingresses after {timeout_s:g} s"
        raise RequestError(504, message) from None
    return {"apiVersion": OWN_GROUP_VERSION, "kind": "Acknowledged", "generation": generation}


def _objects(body: Any) -> tuple[list[Object], list[str]]:
    """The objects of a List, and a warning for each that only the plane makes."""
    items = mapping(body, "the body").get("items")
    if not isinstance(items, list):
        raise RequestError(400, "the body must be a List, with the objects in items")
    kept, warnings, problems = [], [], []
    seen: set[Key] = set()
    for index, item in enumerate(items):
        obj = _named(mapping(item, f"items[{index}]"))
        key = key_of(obj)
        if key.kind in READ_ONLY:
            warnings.append(f"{key}: left out, the plane makes its own")
        elif key in seen:
            problems.append(Problem("", 0, str(key), "metadata.name", "is in this List twice; keep one of them"))
        else:
            seen.add(key)
            kept.append(obj)
    if problems:
        raise ManifestError(problems)
    return kept, warnings


def _named(obj: Object) -> Object:
    """The object with the namespace it is in. Raises RequestError where it cannot be told what it is called."""
    metadata = part(obj, "metadata")
    part(metadata, "annotations")
    words = {"kind": obj.get("kind"), **{f"metadata.{name}": metadata.get(name) for name in ("namespace", "name")}}
    for field, value in words.items():
        if value is not None and not isinstance(value, str):
            raise RequestError(400, f"{field} must be text")
    kind = KINDS.get(obj.get("kind") or "")
    namespace = (metadata.get("namespace") or DEFAULT_NAMESPACE) if kind and kind.namespaced else None
    return {**obj, "metadata": {**metadata, **({"namespace": namespace} if namespace else {})}}
