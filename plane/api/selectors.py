"""Label and field selectors as query parameters say them. Pure.

Grammar: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors and
https://kubernetes.io/docs/concepts/overview/working-with-objects/field-selectors/
"""

import re
from collections.abc import Callable, Container

from plane.model import Object

Predicate = Callable[[Object], bool]

TERM = re.compile(
    r"""\s*(?:
        (?P<set>[\w./-]+)\s+(?P<in>in|notin)\s*\((?P<values>[^()]*)\)
      | (?P<key>[\w./-]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[\w.-]*)
      | (?P<absent>!)?\s*(?P<exists>[\w./-]+)
    )\s*(?:,|\Z)""",
    re.VERBOSE,
)
FIELD = re.compile(r"\s*(?P<path>[\w.-]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^,]*)\s*(?:,|\Z)")

# Fields that can be selected by, as Kubernetes has them: all kinds, then each kind's own.
NAMES = ("metadata.name", "metadata.namespace")
FIELDS: dict[str, tuple[str, ...]] = {
    "Pod": ("spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "status.phase", "status.podIP"),
    "Service": ("spec.clusterIP", "spec.type"),
    "Secret": ("type",),
    "Node": ("spec.unschedulable",),
    "ReplicaSet": ("status.replicas",),
    "Namespace": ("status.phase",),
    "Event": (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "type",
        "source",
    ),
}


class SelectorError(ValueError):
    """A selector that cannot be read: HTTP 400."""


def by_labels(text: str) -> Predicate:
    """A test of an object's labels: ``app=web,tier!=db,zone in (a,b),!canary``. Raises SelectorError."""
    terms: list[Predicate] = []
    for match in _terms(TERM, text, "label"):
        if match["set"]:
            values = frozenset(value.strip() for value in match["values"].split(","))
            terms.append(_among(match["set"], values, wanted=match["in"] == "in"))
        elif match["key"]:
            terms.append(_among(match["key"], frozenset([match["value"]]), wanted=match["operator"] != "!="))
        else:
            terms.append(_there(match["exists"], wanted=not match["absent"]))
    return lambda obj: all(term(obj) for term in terms)


def by_fields(text: str, kind: str, *, only: Container[str] | None = None) -> Predicate:
    """A test of an object's fields: ``metadata.name=web``; with ``only``, as far as it is about these fields.

    Raises SelectorError, also for a field that is not on the list of the kind.
    """
    terms: list[Predicate] = []
    known = (*NAMES, *FIELDS.get(kind, ()))
    for match in _terms(FIELD, text, "field"):
        if match["path"] not in known:
            raise SelectorError(
                f"field label not supported: {match['path']}; {kind} can be selected by {', '.join(known)}"
            )
        if only is None or match["path"] in only:
            terms.append(
                _equal(tuple(match["path"].split(".")), match["value"].strip(), wanted=match["operator"] != "!=")
            )
    return lambda obj: all(term(obj) for term in terms)


def _terms(pattern: re.Pattern[str], text: str, what: str) -> list[re.Match[str]]:
    found: list[re.Match[str]] = []
    place = 0
    while place < len(text):
        match = pattern.match(text, place)
        if match is None:
            raise SelectorError(f"unable to read the {what} selector {text!r} from character {place + 1} on")
        found.append(match)
        place = match.end()
    return found


def _labels(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def _among(key: str, values: frozenset[str], *, wanted: bool) -> Predicate:
    """``!=`` and ``notin`` hold for objects without the label too."""
    return lambda obj: (_labels(obj).get(key) in values) is wanted


def _there(key: str, *, wanted: bool) -> Predicate:
    return lambda obj: (key in _labels(obj)) is wanted


def _equal(path: tuple[str, ...], value: str, *, wanted: bool) -> Predicate:
    def holds(obj: Object) -> bool:
        found: object = obj
        for name in path:
            found = found.get(name) if isinstance(found, dict) else None
        text = "" if found is None else str(found).lower() if isinstance(found, bool) else str(found)
        return (text == value) is wanted

    return holds
