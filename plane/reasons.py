"""Why each rule of each Ingress takes a request or does not, in words. Pure."""

from collections.abc import Iterator

from kernels.layout import EXACT, HOST_MARKS, MATCHED, PATH_KINDS, PATTERN, PREFIX, REGEX, STARTS
from plane import dialects
from plane.conduct import Request, met
from plane.ingressclass import served, unserved_because
from plane.ingressrules import hosts_of
from plane.matching import TRAEFIK, Slot, slot_of, takes
from plane.model import Object, Snapshot
from plane.policies import Asked
from plane.requestpath import host_of
from plane.router import names_for
from plane.routes import Origin, Routes


class Reasons:
    """What is said of a request, whose path is ``path`` once it is normal, taken by ``winner``, which may be none."""

    def __init__(self, snapshot: Snapshot, table: Routes, request: Request, path: str, winner: Origin):
        self._snapshot = snapshot
        self._request = request
        self._host = host = host_of(request.host)
        self._path = path
        self._winner = winner
        rows = {table.host_name(row): row for row in range(1, len(table.hosts))}
        matched = [name for name in rows if name.startswith(HOST_MARKS[MATCHED])]
        row = next((rows[name] for name in names_for(host, matched) if name in rows), 0)
        if table.hosts[row]["alias"]:
            row = next((each for each in rows.values() if _same_paths(table, each, row)), row)
        self._named = table.host_name(row) if row else None  # the host whose rules count
        first, count = int(table.hosts[row]["first_path"]), int(table.hosts[row]["paths"])
        self._regex = REGEX in table.paths["kind"][first : first + count]
        self._manners = set(self._manners_of(self._named))

    def lines(self) -> Iterator[str]:
        """A sentence for each rule, the winner's first, then one for each Ingress that is not served."""
        lines = [line for obj in served(self._snapshot) for line in self._ingress(obj)]
        yield from (line for _, line in sorted(lines, key=lambda row: not row[0]))
        for obj in self._snapshot.all("Ingress"):
            because = unserved_because(obj, self._snapshot)
            if because:
                yield f"{_name(obj)} is not served: {because}"

    def _ingress(self, obj: Object) -> Iterator[tuple[bool, str]]:
        """(whether it wins, sentence) for each rule of an Ingress."""
        asked = dialects.asked(obj, self._snapshot)
        for number, rule in enumerate(obj["spec"].get("rules") or ()):
            paths = (rule.get("http") or {}).get("paths") or ()
            if not paths:
                yield False, f"{_name(obj)} spec.rules[{number}]: {self._pathless(rule)}"
            for index, path in enumerate(paths):
                origin = Origin(*_key(obj), number, index)
                won = origin == self._winner
                if asked.canary:
                    why = "this canary takes the request" if won else "a canary, of the same rule of another Ingress"
                else:
                    why = self._why(asked, rule, path) if won else self._why_not(obj, asked, rule, path)
                yield won, f"{origin}: {_shown(rule, path)}: {why}"
        if obj["spec"].get("defaultBackend"):
            won = Origin(*_key(obj), -1, -1) == self._winner
            why = "no rule takes the request" if won else self._not_default()
            yield won, f"{_name(obj)} spec.defaultBackend: {why}"

    def _pathless(self, rule: Object) -> str:
        host = (rule.get("host") or "").lower()
        if host != self._named:
            return self._other_host(host)
        return f'host "{host}" has no paths here, so it gets a default backend' if host else "it has no paths"

    def _manners_of(self, name: str | None) -> Iterator[str]:
        """The manners, but Kubernetes', of the rules for a host."""
        for obj in served(self._snapshot):
            asked = dialects.asked(obj, self._snapshot)
            if asked.manner and any(name in hosts_of(rule, asked) for rule in obj["spec"].get("rules") or ()):
                yield asked.manner

    def _slot(self, rule: Object, path: Object, asked: Asked) -> Slot | None:
        """What a rule takes of the request's host, None where that meets other rules."""
        names = [name for name in names_for(self._host) if name in hosts_of(rule, asked)]
        if self._named in hosts_of(rule, asked):
            names = [self._named or ""]
        elif asked.manner not in self._manners:
            return None
        return slot_of(path, names[0], asked, regex=self._regex) if names else None

    def _why(self, asked: Asked, rule: Object, path: Object) -> str:
        slot = self._slot(rule, path, asked)
        if slot is not None and slot.kind == STARTS and not takes(_whole(slot), self._path):
            return f"this rule takes the request, by characters, as {slot.manner.capitalize()} does"
        return "this rule takes the request"

    def _why_not(self, obj: Object, asked: Asked, rule: Object, path: Object) -> str:
        slot = self._slot(rule, path, asked)
        if slot is None:
            return self._other_host(hosts_of(rule, asked)[0])
        if not takes(slot, self._path):
            if slot.kind == REGEX:
                return f"the path {self._path} does not begin with what this regular expression matches"
            if slot.kind == PATTERN:
                return f"the path {self._path} is not one that this regular expression matches"
            return f"the path {self._path} is {'another' if slot.kind == EXACT else 'not below it'}"
        request = self._request
        if not met(slot.when, request.method, request.scheme, request.value):
            return f"it takes only requests {slot.when}"
        winner = self._snapshot.get("Ingress", self._winner.namespace, self._winner.ingress)
        assert winner is not None
        if self._winner.rule < 0:
            return f"it matches, but {_name(winner)} redirects this path of the host"
        if dialects.asked(winner, self._snapshot).canary:
            return "it matches, and its canary takes the request"
        best_rule = winner["spec"]["rules"][self._winner.rule]
        path = best_rule["http"]["paths"][self._winner.path]
        best = self._slot(best_rule, path, dialects.asked(winner, self._snapshot)) or slot
        if best != slot:
            return f"it matches, but {_sooner(best, slot, path.get('path') or '/')}"
        return f"{_name(winner)} says the same and {_precedes(winner, obj)}"

    def _other_host(self, host: str) -> str:
        if host not in names_for(self._host):
            if host.startswith("*") and self._host.endswith(host[1:]):
                return f'"*" stands for one label, and "{self._host}" has more'
            return f'the host is "{self._host}"'
        return f'it matches the host, but "{self._named}" does so more exactly, and no request falls through'

    def _not_default(self) -> str:
        if self._winner.rule >= 0:
            return "a rule takes the request"
        return f"the one of {self._winner.namespace}/{self._winner.ingress} comes first"


def _same_paths(table: Routes, one: int, other: int) -> bool:
    """Whether a row of HOST is the one that another is an alias of."""
    hosts = table.hosts
    return (
        not hosts[one]["alias"] and hosts[one]["first_path"] == hosts[other]["first_path"] and hosts[one]["paths"] > 0
    )


def _whole(slot: Slot) -> Slot:
    """What a prefix by characters would be by whole elements."""
    return slot._replace(kind=PREFIX, text=slot.text.removesuffix("/"))


def _sooner(best: Slot, slot: Slot, said: str) -> str:
    """Why one Slot, whose path is ``said``, comes before another."""
    if best.manner != slot.manner:
        return f"{said} is of an Ingress of another controller, whose rules come first"
    if best.order != slot.order:
        if best.manner == TRAEFIK:
            return f"the priority of {said} is {best.order[0]}, over {slot.order[0]}"
        return f"{said} says more, is an expression before a prefix, or has the higher regex-priority, or is longer"
    if best.when != slot.when:
        return f"{said} comes first"
    if best.kind != slot.kind:
        return "Exact comes before Prefix"
    if best.text != slot.text:
        longer = len(best.text) > len(slot.text)
        return f"{said} {'is longer' if longer else 'comes after it in the alphabet, and so before it'}"
    return f"{said} with its slash comes first"


def _precedes(winner: Object, other: Object) -> str:
    times = [obj["metadata"].get("creationTimestamp") or "" for obj in (winner, other)]
    if _key(winner) == _key(other):
        return "comes first"
    return "is older" if times[0] != times[1] else "comes first by name, being of the same age"


def _key(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace", "default"), obj["metadata"]["name"]


def _name(obj: Object) -> str:
    return "/".join(_key(obj))


def _shown(rule: Object, path: Object) -> str:
    return f"{rule.get('host') or '*'} {path.get('pathType', PATH_KINDS[PREFIX])} {path.get('path') or '/'}"
