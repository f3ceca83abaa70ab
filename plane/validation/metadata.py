"""``metadata``: names, labels and annotations (``k8s.io/apimachinery/pkg/api/validation``)."""

import re
from collections.abc import Callable, Iterator

from plane.kinds import Kind
from plane.validation import names
from plane.validation.findings import Finding, Place, shown

APP_ANNOTATION = "trafficplane.dev/app"
APP = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*\Z")
NAME_RULES: dict[str, Callable[[str], str]] = {"Service": names.service_label, "Namespace": names.label}
ANNOTATIONS_LIMIT = 256 * 1024
OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


def metadata(obj: Place, kind: Kind) -> Iterator[Finding]:
    """The name as the kind wants it, the namespace, labels and annotations."""
    place = obj.at("metadata")
    name = place.at("name")
    if name.given:
        reason = NAME_RULES.get(kind.kind, names.subdomain)(name.value)
        if reason:
            yield name.wrong(reason)
    elif place.at("generateName").given:
        yield name.wrong("is required; generateName is for objects created through the API only, write a name")
    else:
        yield name.wrong("is required; add it")
    namespace = place.at("namespace")
    if namespace.given:
        if not kind.namespaced:
            yield namespace.wrong(f"a {kind.kind} is in no namespace; leave it out")
        elif reason := names.label(namespace.value):
            yield namespace.wrong(reason)
    yield from labels_and_annotations(place)


def labels_and_annotations(place: Place) -> Iterator[Finding]:
    """Those of an object's or a pod template's metadata."""
    yield from labels(place.at("labels"))
    annotations = place.at("annotations")
    size = 0
    for key, value in annotations.entries():
        # Annotation keys may have capitals in the prefix, which label keys may not.
        reason = names.qualified(key.lower())
        if reason:
            yield value.wrong(f"the key: {reason}")
        if value.value is None:
            yield value.wrong('is null; write a value, or "" for none')
        size += len(key) + len(value.text())
    if size > ANNOTATIONS_LIMIT:
        yield annotations.wrong(f"{size} characters in all and {ANNOTATIONS_LIMIT} are allowed")
    app = annotations.at(APP_ANNOTATION)
    if app.given and not APP.match(app.value):
        yield app.wrong(f'{shown(app.value)} names no Python app; write module:attribute, as in "shop.main:app"')


def labels(place: Place) -> Iterator[Finding]:
    """A mapping of labels, or a selector by labels."""
    for key, value in place.entries():
        reason = names.qualified(key)
        if reason:
            yield value.wrong(f"the key: {reason}")
        if value.value is None:
            yield value.wrong('is null; write a value, or "" for none')
        elif isinstance(value.value, str) and (reason := names.label_value(value.value)):
            yield value.wrong(reason)


def label_selector(place: Place) -> Iterator[Finding]:
    """``matchLabels`` and ``matchExpressions``."""
    yield from labels(place.at("matchLabels"))
    for row in place.at("matchExpressions").rows():
        key, operator, values = row.at("key"), row.at("operator"), row.at("values")
        if key.value is not None and (reason := names.qualified(key.value)):
            yield key.wrong(reason)
        yield from operator.one_of(OPERATORS)
        if operator.value in ("In", "NotIn") and not values.given:
            yield values.wrong(f"is required with operator {operator.value}; add at least one value")
        if operator.value in ("Exists", "DoesNotExist") and values.given:
            yield values.wrong(f"goes with In and NotIn only; leave it out with operator {operator.value}")
        for value in values.rows():
            if reason := names.label_value(value.value):
                yield value.wrong(reason)


def selects(selector: dict, labels: dict) -> bool:
    """Whether a label selector selects these labels
    (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/)."""
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    for row in selector.get("matchExpressions") or ():
        key, operator, values = row.get("key"), row.get("operator"), row.get("values") or ()
        held = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not held.get(operator, True):
            return False
    return True


def name_at(place: Place, rule: Callable[[str], str]) -> Iterator[Finding]:
    """A finding where the value is there and the rule gives a reason against it."""
    if place.given and (reason := rule(place.value)):
        yield place.wrong(reason)


def unique(rows: Iterator[Place], name: str) -> Iterator[Finding]:
    """A finding for each row whose value under ``name`` an earlier row has."""
    seen: dict[object, str] = {}
    for row in rows:
        place = row.at(name)
        if not place.given:
            continue
        if place.value in seen:
            yield place.wrong(f"{shown(place.value)} is also that of {seen[place.value]}; choose another")
        else:
            seen[place.value] = row.path
