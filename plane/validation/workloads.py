"""Pods, Deployments and ReplicaSets (``k8s.io/kubernetes/pkg/apis/{core,apps}/validation``)."""

from collections.abc import Iterator

from plane.behaviour import PREFIX, wrong
from plane.model import DELETION_COST_ANNOTATION, POD_WEIGHT_ANNOTATION
from plane.validation import names
from plane.validation.containers import containers
from plane.validation.findings import Finding, Place, shown
from plane.validation.metadata import (
    APP_ANNOTATION,
    label_selector,
    labels,
    labels_and_annotations,
    name_at,
    selects,
    unique,
)
from plane.validation.services import weight

RESTART_POLICIES = ("Always", "OnFailure", "Never")
DNS_POLICIES = ("ClusterFirst", "ClusterFirstWithHostNet", "Default", "None")
NAME_SERVERS, SEARCH_PATHS = 3, 32  # of dnsConfig, at most
NUMERIC_OPTIONS = ("ndots", "timeout", "attempts")


def pod(obj: Place) -> Iterator[Finding]:
    spec = obj.at("spec")
    yield from pod_annotations(obj.at("metadata", "annotations"))
    if isinstance(spec.value, dict):
        yield from pod_spec(spec)
    else:
        yield spec.wrong("is required; add it")


def deployment(obj: Place) -> Iterator[Finding]:
    spec = obj.at("spec")
    yield from _replicated(spec)
    yield from spec.at("revisionHistoryLimit").at_least(0)
    yield from _strategy(spec.at("strategy"))
    deadline, ready = spec.at("progressDeadlineSeconds"), spec.at("minReadySeconds").value or 0
    yield from deadline.at_least(0)
    if isinstance(deadline.value, int) and 0 <= deadline.value <= ready:
        yield deadline.wrong(f"{deadline.value} must be more than minReadySeconds, {ready}")


def replica_set(obj: Place) -> Iterator[Finding]:
    yield from _replicated(obj.at("spec"))


def pod_annotations(annotations: Place) -> Iterator[Finding]:
    """Those that the plane reads as numbers, and how the pod behaves."""
    yield from weight(annotations.at(POD_WEIGHT_ANNOTATION))
    given = {key: str(place.value) for key, place in annotations.entries() if place.value is not None}
    for key, reason in wrong(given):
        yield annotations.at(key).wrong(reason)
    for key in given:
        if key.startswith(PREFIX) and annotations.at(APP_ANNOTATION).given:
            yield annotations.at(key).wrong(f"has no effect on a Python app ({APP_ANNOTATION}); leave one of them out")
    cost = annotations.at(DELETION_COST_ANNOTATION)
    if cost.given and not cost.text().removeprefix("-").isdecimal():
        yield cost.wrong(f"{shown(cost.value)} is no cost; write a whole number")


def _replicated(spec: Place) -> Iterator[Finding]:
    if not isinstance(spec.value, dict):
        yield spec.wrong("is required; add it")
        return
    yield from spec.at("replicas").at_least(0)
    yield from spec.at("minReadySeconds").at_least(0)
    selector, template = spec.at("selector"), spec.at("template")
    yield from label_selector(selector)
    template_labels = template.at("metadata", "labels")
    if isinstance(selector.value, dict):
        if not selector.at("matchLabels").given and not selector.at("matchExpressions").given:
            yield selector.wrong("selects nothing; write matchLabels with a label that the template has")
        elif template.value is not None and not selects(selector.value, template_labels.value or {}):
            yield template_labels.wrong("spec.selector does not match these labels; give both the same")
    yield from labels_and_annotations(template.at("metadata"))
    yield from pod_annotations(template.at("metadata", "annotations"))
    pod_template = template.at("spec")
    if isinstance(pod_template.value, dict):
        yield from pod_spec(pod_template)
        restart = pod_template.at("restartPolicy")
        if restart.value in ("OnFailure", "Never"):
            yield restart.wrong(f"{restart.value} is for Pods of their own; write Always, or leave it out")
        deadline = pod_template.at("activeDeadlineSeconds")
        if deadline.given:
            yield deadline.wrong("is for Pods of their own; leave it out")
    elif template.value is None:
        yield template.wrong("is required; add it, with metadata.labels and spec")
    else:
        yield pod_template.wrong("is required; add it, with containers")


def _strategy(strategy: Place) -> Iterator[Finding]:
    kind, rolling = strategy.at("type"), strategy.at("rollingUpdate")
    yield from kind.one_of(("RollingUpdate", "Recreate"))
    if kind.value == "Recreate" and rolling.given:
        yield rolling.wrong("goes with type RollingUpdate; leave it out with Recreate")
    surge, unavailable = rolling.at("maxSurge"), rolling.at("maxUnavailable")
    for place in (surge, unavailable):
        if isinstance(place.value, int):
            yield from place.at_least(0)
        elif place.given and not names.PERCENT.match(place.value):
            yield place.wrong(f'"{place.value}" is neither a number nor a percentage; write 1 or "25%"')
    if unavailable.text() and names.PERCENT.match(unavailable.value) and int(unavailable.value[:-1]) > 100:
        yield unavailable.wrong(f'"{unavailable.value}" is more than all; write at most "100%"')
    if surge.value in (0, "0%") and unavailable.value in (0, "0%"):
        yield unavailable.wrong("cannot be 0 while maxSurge is 0, because nothing could move; write 1 for one of them")


def pod_spec(spec: Place) -> Iterator[Finding]:
    yield from containers(spec)
    yield from spec.at("restartPolicy").one_of(RESTART_POLICIES)
    yield from _names(spec)
    yield from spec.at("terminationGracePeriodSeconds").at_least(0)
    yield from spec.at("activeDeadlineSeconds").at_least(1)
    yield from labels(spec.at("nodeSelector"))
    for name in ("nodeName", "serviceAccountName", "priorityClassName", "runtimeClassName", "schedulerName"):
        yield from name_at(spec.at(name), names.subdomain)
    for name in ("hostname", "subdomain"):
        yield from name_at(spec.at(name), names.label)
    for volume in spec.at("volumes").rows():
        yield from name_at(volume.at("name"), names.label)
    yield from unique(spec.at("volumes").rows(), "name")


def _names(spec: Place) -> Iterator[Finding]:
    """How a pod resolves names (``validatePodDNSConfig``, ``ValidateHostAliases``)."""
    policy, config = spec.at("dnsPolicy"), spec.at("dnsConfig")
    yield from policy.one_of(DNS_POLICIES)
    servers, searches = config.at("nameservers"), config.at("searches")
    if policy.value == "None" and not servers.given:
        yield servers.wrong("is required with dnsPolicy None; add the address of a name server")
    for place, most in ((servers, NAME_SERVERS), (searches, SEARCH_PATHS)):
        if (count := len(list(place.rows()))) > most:
            yield place.wrong(f"has {count} and {most} are allowed; leave some out")
    for address in (*servers.rows(), *(row.at("ip") for row in spec.at("hostAliases").rows())):
        yield from name_at(address, names.ipv4)
    for path in searches.rows():
        yield from name_at(path, _search_path)
    for option in config.at("options").rows():
        if not option.at("name").given:
            yield option.at("name").wrong("is required; write one such as ndots")
        elif option.at("name").value in NUMERIC_OPTIONS and not option.at("value").text().isdecimal():
            yield option.at("value").wrong('is no number; write one in quotes, such as "2"')
    for alias in spec.at("hostAliases").rows():
        for name in alias.at("hostnames").rows():
            yield from name_at(name, names.subdomain)


def _search_path(text: str) -> str:
    """A domain, in which underscores may be since Kubernetes 1.32; "." is the root."""
    return "" if text == "." else names.subdomain(text.removesuffix(".").replace("_", "x"))
