"""A watch: the changes of the objects that a query selects, as the API tells them.

https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from collections.abc import AsyncGenerator

from plane.api import tables
from plane.api.resources import Request, selection
from plane.api.selectors import Predicate
from plane.api.status import RequestError, failure
from plane.model import Key, Object, key_of
from plane.store import ExpiredError, Store


def is_watch(request: Request) -> bool:
    return request.method == "GET" and request.query.get("watch", "").lower() in ("1", "true")


def since(request: Request) -> int | None:
    """The generation a watch goes on from; None begins with what there is. Raises RequestError."""
    if request.query.get("sendInitialEvents", "").lower() == "true":
        # What an API server without streaming lists says, and what makes clients list first.
        raise RequestError(422, "sendInitialEvents is forbidden: list first, then watch from its resourceVersion")
    text = request.query.get("resourceVersion") or "0"
    if not text.isdecimal():
        raise RequestError(400, f"resourceVersion {text!r} is no number")
    return int(text) or None


def changes(store: Store, request: Request) -> AsyncGenerator[Object]:
    """Events ``{"type": …, "object": …}`` without end. Raises RequestError for a query that cannot be read.

    An object that no longer matches the selector is DELETED for this watch, one that begins to match is ADDED. Where
    the resourceVersion is too old the only event is an ERROR with a 410 Status, upon which clients list again.
    """
    chosen, matches = selection(request)
    start = since(request)
    rows = store.snapshot.all(request.target.kind.kind)
    # Whether an object matched when the watch began; not known of those that have changed between then and now.
    matched = {key_of(row): matches(row) for row in rows if int(row["metadata"]["resourceVersion"]) <= (start or 0)}
    return _changes(store, request, chosen, matches, start, matched)


async def _changes(
    store: Store,
    request: Request,
    chosen: Predicate,
    matches: Predicate,
    start: int | None,
    matched: dict[Key, bool],
) -> AsyncGenerator[Object]:
    target = request.target
    try:
        async for kind, obj in store.watch(target.kind.kind, target.namespace, start):
            if not chosen(obj):
                continue
            key = key_of(obj)
            before = False if kind == "ADDED" else matched.get(key)
            matched[key] = kind != "DELETED" and matches(obj)
            if matched[key]:
                kind = "ADDED" if before is False else kind
            elif before is False:
                continue
            else:
                kind = "DELETED"
            yield {"type": kind, "object": _shown(request, obj)}
    except ExpiredError as error:
        yield {"type": "ERROR", "object": failure(410, str(error))}


def _shown(request: Request, obj: Object) -> Object:
    if not request.wants_table:
        return obj
    include = request.query.get("includeObject", "Metadata")
    return tables.table(request.target.kind.kind, [obj], obj["metadata"]["resourceVersion"], include)
