"""The store: every object, its history as events, and the one way in.

Law: a write is a transaction. Its objects are defaulted and checked, the controllers bring in all that follows, and
the result becomes generation n+1 whole, or the write is refused whole with everything that is wrong with it. An object
that a transaction changed carries the generation as its ``resourceVersion``.

A Store belongs to one asyncio loop. Its methods do not wait, so each is atomic there; only ``watch`` is asynchronous.
"""

import asyncio
import uuid
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address
from json import dumps, loads
from typing import Any, NamedTuple

from plane.addresses import AddressPlan
from plane.controllers import Reconciler
from plane.controllers.addressing import Claims, claims
from plane.controllers.clusterdns import is_cluster_dns
from plane.controllers.lifecycle import NAMESPACES, removed
from plane.defaults import defaulted
from plane.dns.names import KUBE_DNS
from plane.errors import ConflictError, ForbiddenError, ManifestError, NotFoundError, PlaneError, Problem
from plane.inheritance import inherited
from plane.kinds import KINDS
from plane.merge import merge_applied, merge_patch
from plane.model import Key, Object, Snapshot, key_of
from plane.rows import differences
from plane.validation import check

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
HISTORY = 10_000
# Set by the store and by controllers; a write through the API leaves them as they are.
SYSTEM_METADATA = (
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "generation",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
)
# Kinds whose status says what is, and is acted on.
OWN_STATUS = ("Node", "Pod", "Service")
# Fields that cannot change once they are set: (kind, path below spec).
IMMUTABLE = (("Service", "clusterIP"), ("Deployment", "selector"), ("ReplicaSet", "selector"), ("Pod", "nodeName"))


class ExpiredError(Exception):
    """A watch from a resourceVersion that is no longer remembered: HTTP 410, list again."""


class Event(NamedTuple):
    """One change of one object: ``type`` is ADDED, MODIFIED or DELETED."""

    generation: int
    type: str
    object: Object


def utc_now() -> str:
    """The time as Kubernetes writes it: RFC 3339, in seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Store:
    """All objects of one plane. ``clock`` gives the time as Kubernetes writes it."""

    def __init__(self, plan: AddressPlan, clock: Callable[[], str] = utc_now):
        self.plan = plan
        self._clock = clock
        self._snapshot = Snapshot()
        self._reconciled = Reconciler(plan)
        self._claims = Claims()
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._forgotten = 0  # generation of the newest event that has left the history
        self._changed = asyncio.Event()
        self._commit(self._snapshot)

    @property
    def snapshot(self) -> Snapshot:
        return self._snapshot

    async def changed_since(self, generation: int) -> Snapshot:
        """The current Snapshot as soon as it is newer than ``generation``."""
        while self._snapshot.generation <= generation:
            await self._changed.wait()
        return self._snapshot

    def get(self, key: Key) -> Object:
        """The object; raises NotFoundError."""
        found = self._snapshot.get(*key)
        if found is None:
            raise NotFoundError(f'{KINDS[key.kind].plural} "{key.name}" not found')
        return found

    def create(self, obj: Object) -> Object:
        """A new object. Raises ConflictError where the name is taken, ManifestError where it is invalid."""
        obj = _named(obj)
        key = key_of(obj)
        if self._snapshot.get(*key):
            raise ConflictError(f'{KINDS[key.kind].plural} "{key.name}" already exists')
        self._write([self._admitted(obj, None)])
        return self.get(key)

    def replace(self, obj: Object, *, status: bool = False) -> Object:
        """An object as given; with ``status`` only its status. Raises NotFoundError, ConflictError and ManifestError.

        A ``metadata.resourceVersion`` in the object must be the current one (optimistic concurrency).
        """
        key = key_of(obj)
        before = self.get(key)
        version = (obj.get("metadata") or {}).get("resourceVersion")
        if version and version != before["metadata"]["resourceVersion"]:
            raise ConflictError(
                f'{KINDS[key.kind].plural} "{key.name}": the object has been modified '
                f"(resourceVersion {before['metadata']['resourceVersion']}, yours is {version}); "
                "read it again and apply your change to that"
            )
        if status and key.kind in OWN_STATUS:
            raise ManifestError([_problem(key, "status", f"of a {key.kind} is the plane's to write; leave it out")])
        if status:
            after = {**before, "status": obj.get("status", {})}
        else:
            after = self._admitted(obj, before)
        self._write([after])
        return self.get(key)

    def merge_patch(self, key: Key, patch: Object, *, status: bool = False) -> Object:
        """The object with a merge patch (RFC 7386) applied; with ``status`` only the patch's status counts."""
        before = self.get(key)
        patch = {"status": patch.get("status", {})} if status else patch
        after = merge_patch(before, patch)
        if key_of(after) != key:
            raise ManifestError([_problem(key, "metadata", "a patch cannot change kind, namespace or name")])
        return self.replace(after, status=status)

    def delete(self, key: Key, grace_s: int | None = None) -> Object:
        """Deletes an object, and what it owns after it; a pod on a node terminates first.

        Raises NotFoundError, and ForbiddenError for a namespace that every cluster has.
        """
        before = self.get(key)
        if key.kind == "Namespace":
            if key.name in NAMESPACES:
                raise ForbiddenError(f'namespaces "{key.name}" is forbidden: this namespace may not be deleted')
            marked = {**before["metadata"], "deletionTimestamp": self._clock()}
            self._write([{**before, "metadata": marked, "status": {"phase": "Terminating"}}])
        else:
            self._commit(removed(self._snapshot, [before], self._clock(), grace_s))
        return self._snapshot.get(*key) or before

    def apply(self, objects: Sequence[Object], *, dry_run: bool = False) -> list[tuple[str, Object]]:
        """Creates or updates all of the objects, or none: (created | configured | unchanged, object) for each.

        Fields that the last applied manifest had and this one has not are removed; others are kept (``merge_applied``).
        Raises ManifestError with every problem of every object.
        """
        problems: list[Problem] = []
        admitted: list[Object] = []
        for obj in objects:
            before = self._snapshot.get(*key_of(obj))
            try:
                admitted.append(self._admitted(_applied(obj, before), before))
            except ManifestError as error:
                problems.extend(error.problems)
        if problems:
            raise ManifestError(problems)
        befores = [self._snapshot.get(*key_of(obj)) for obj in admitted]
        verbs = [
            "created" if before is None else "unchanged" if _same(before, obj) else "configured"
            for before, obj in zip(befores, admitted, strict=True)
        ]
        self._write(admitted, dry_run=dry_run)
        return [
            (verb, obj if dry_run else self._snapshot.get(*key_of(obj)) or obj)
            for verb, obj in zip(verbs, admitted, strict=True)
        ]

    def update(self, put: Iterable[Object] = (), drop: Iterable[Key] = ()) -> None:
        """What controllers outside ``reconcile`` know: statuses that nodes report, nodes that come and go."""
        self._commit(self._snapshot.changed(map(self._marked, put), drop))

    async def watch(
        self, kind: str, namespace: str | None = None, since: int | None = None
    ) -> AsyncIterator[tuple[str, Object]]:
        """(ADDED | MODIFIED | DELETED, object) for each change after generation ``since``, without end.

        ``since`` None begins with every object there is as ADDED. Raises ExpiredError where ``since`` is too old.
        """
        if since is None:
            since = self._snapshot.generation
            for obj in list(self._snapshot.all(kind)):
                if namespace in (None, obj["metadata"].get("namespace")):
                    yield "ADDED", obj
        while True:
            if since < self._forgotten:
                raise ExpiredError(f"resourceVersion {since} is too old; the oldest remembered is {self._forgotten}")
            news = []
            for event in reversed(self._history):
                if event.generation <= since:
                    break
                news.append(event)
            since = self._snapshot.generation
            for event in reversed(news):
                key = key_of(event.object)
                if key.kind == kind and namespace in (None, key.namespace):
                    yield event.type, event.object
            await self.changed_since(since)

    def _admitted(self, obj: Object, before: Object | None) -> Object:
        """An object from outside, defaulted, checked, and with what only the system sets. Raises ManifestError."""
        key = key_of(obj)
        if before and key.kind == "Service" and isinstance(obj.get("spec"), dict):
            obj = {**obj, "spec": inherited(obj["spec"], before["spec"])}
        problems = check(obj)
        if not problems and is_cluster_dns(obj):
            problems = [_problem(key, "metadata", "is the plane's own, which runs cluster DNS itself; leave it out")]
        if problems:
            raise ManifestError(problems)
        old = (before or {}).get("metadata") or {}
        mine = {name: value for name, value in obj["metadata"].items() if name not in SYSTEM_METADATA}
        system = {name: old[name] for name in SYSTEM_METADATA if name in old} or {
            "uid": str(uuid.uuid4()),
            "creationTimestamp": self._clock(),
        }
        obj = defaulted({**obj, "metadata": {**mine, **system}})
        obj.pop("status", None)
        if before and "status" in before:
            obj["status"] = before["status"]
        problems = [
            _problem(key, f"spec.{field}", f"cannot be changed from {before['spec'][field]!r}; delete the object first")
            for kind, field in IMMUTABLE
            if kind == key.kind and before and field in before["spec"]
            if obj["spec"].get("type") != "ExternalName"
            if obj["spec"].get(field) != before["spec"][field]
        ]
        if before and key.kind == "Pod" and _of_template(obj, before) != before["spec"]:
            reason = "of a Pod that is there cannot be changed; delete the Pod first, or write a Deployment"
            problems.append(_problem(key, "spec", reason))
        if before and key.kind == "Node":
            one, other = _uncordoned(obj), _uncordoned(before)
            reason = "of a Node is the plane's to write, but for spec.unschedulable; leave the rest as it is"
            problems += [_problem(key, name, reason) for name in ("metadata", "spec") if one[name] != other[name]]
        if problems:
            raise ManifestError(problems)
        return obj

    def _write(self, put: Iterable[Object], *, dry_run: bool = False) -> None:
        put = list(map(self._marked, put))
        after = self._snapshot.changed(put)
        problems = list(self._address_problems(after, {key_of(obj) for obj in put}))
        if problems:
            raise ManifestError(problems)
        self._commit(after, dry_run=dry_run)

    def _marked(self, obj: Object) -> Object:
        """The object as ``_commit`` would stamp it, so that controllers see what is written once and not twice."""
        before = self._snapshot.get(*key_of(obj))
        return before if before == obj else _stamped(before, obj, self._snapshot.generation + 1)

    def _address_problems(self, after: Snapshot, written: set[Key]) -> Iterable[Problem]:
        """What the Services being written ask for that is outside the plane's ranges, or taken."""
        if not any(key.kind == "Service" for key in written):
            return
        self._claims.follow(after)
        names = {(key.namespace, key.name) for key in written if key.kind == "Service"}
        for name in sorted(names):
            key = Key("Service", *name)
            for claim in claims(after.rows("Service")[name]):
                span = {"spec.clusterIP": self.plan.cluster_ips, "spec.loadBalancerIP": self.plan.vips}.get(claim.field)
                owner = min(self._claims.owners(claim), key=lambda each: (each in names, each))
                if claim.value == self.plan.dns:  # also while it is not there
                    owner = KUBE_DNS[1:]
                if span is not None and IPv4Address(claim.value) not in span:
                    reason = f"{claim.value} is not in this plane's range {span}; choose one of it, or leave it out"
                    yield _problem(key, claim.field, reason)
                elif claim.value == self.plan.vip(1):
                    yield _problem(key, claim.field, f"{claim.value} is the address of the Ingress; choose another")
                elif owner != name:
                    owned = Key("Service", *owner)
                    reason = f"{claim.value} is already that of {owned}; choose another, or leave it out"
                    yield _problem(key, claim.field, reason)

    def _commit(self, wanted: Snapshot, *, dry_run: bool = False) -> None:
        """Reconciles, stamps what changed with the new generation, and tells those who watch."""
        before = self._snapshot
        try:
            after = self._reconciled(wanted, self._clock())
        except PlaneError as error:
            raise ManifestError([Problem("", 0, "", "", str(error))]) from error
        if dry_run:
            return
        generation = before.generation + 1
        events = []
        stamped: list[Object] = []
        for kind in {*before.objects, *after.objects}:
            for name, was, obj in differences(before.rows(kind), after.rows(kind)):
                if obj is None:
                    gone = before.rows(kind)[name]
                    gone = {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(generation)}}
                    events.append(Event(generation, "DELETED", gone))
                elif was is not None and was == _unmarked(obj, was):
                    stamped.append(was)
                else:
                    new = _stamped(was, obj, generation)
                    stamped.append(obj if new == obj else new)
                    events.append(Event(generation, "MODIFIED" if was else "ADDED", stamped[-1]))
        if not events and after.backends is before.backends:
            return
        self._snapshot = replace(after.changed(stamped), generation=generation)
        overflow = len(self._history) + len(events) - HISTORY
        if overflow > 0:
            last = overflow - 1
            lost = self._history[last] if last < len(self._history) else events[last - len(self._history)]
            self._forgotten = lost.generation
        self._history.extend(events)
        self._changed.set()
        self._changed = asyncio.Event()


def _stamped(before: Object | None, obj: Object, generation: int) -> Object:
    """The object with its new resourceVersion; ``metadata.generation`` counts changes of its spec.

    The pass that changed a spec has observed it, which is what ``status.observedGeneration`` says.
    """
    count = (before or {}).get("metadata", {}).get("generation", 0)
    if before is None or before.get("spec") != obj.get("spec"):
        count += 1
    stamped = {**obj, "metadata": {**obj["metadata"], "generation": count, "resourceVersion": str(generation)}}
    if "observedGeneration" in (obj.get("status") or {}):
        stamped["status"] = {**obj["status"], "observedGeneration": count}
    return stamped


def _unmarked(obj: Object, before: Object) -> Object:
    """The object with the versions that it had before."""
    versions = {name: before["metadata"][name] for name in ("generation", "resourceVersion")}
    return {**obj, "metadata": {**obj["metadata"], **versions}}


def _uncordoned(node: Object) -> Object:
    """The Node as if nobody had cordoned it."""
    spec = node.get("spec") or {}
    return {**node, "spec": {name: value for name, value in spec.items() if name != "unschedulable"}}


def _of_template(pod: Object, before: Object) -> Object:
    """The spec of a Pod, on the node that it was given meanwhile."""
    placed = {name: before["spec"][name] for name in ("nodeName",) if name in before["spec"]}
    return {**placed, **pod["spec"]}


def _named(obj: Object) -> Object:
    """The object with a name made from ``generateName`` where it has no name."""
    metadata = obj.get("metadata") or {}
    if metadata.get("name") or not metadata.get("generateName"):
        return obj
    return {**obj, "metadata": {**metadata, "name": metadata["generateName"] + uuid.uuid4().hex[:5]}}


def _applied(obj: Object, before: Object | None) -> Object:
    """The manifest merged into the live object, and remembered in the annotation that kubectl uses too."""
    manifest = {name: value for name, value in obj.items() if name != "status"}
    metadata = manifest.get("metadata") or {}
    annotations = {name: value for name, value in (metadata.get("annotations") or {}).items() if name != LAST_APPLIED}
    remembered = dumps({**manifest, "metadata": {**metadata, "annotations": annotations}}, sort_keys=True)
    merged = manifest
    if before is not None:
        merged = merge_applied(_last_applied(before), manifest, before)
    annotations = {**(merged["metadata"].get("annotations") or {}), LAST_APPLIED: remembered}
    return {**merged, "metadata": {**merged["metadata"], "annotations": annotations}}


def _last_applied(obj: Object) -> Any:
    """The manifest that was applied last; None where there was none, or somebody wrote something else there."""
    try:
        return loads((obj["metadata"].get("annotations") or {}).get(LAST_APPLIED, "null"))
    except ValueError:
        return None


def _same(before: Object, after: Object) -> bool:
    return before == {**after, "metadata": {**after["metadata"], **_system(before)}}


def _system(obj: Object) -> Object:
    return {name: obj["metadata"][name] for name in SYSTEM_METADATA if name in obj["metadata"]}


def _problem(key: Key, field: str, reason: str) -> Problem:
    return Problem("", 0, str(key), field, reason)
