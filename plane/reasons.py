"""Why each rule of each Ingress takes a request or does not, in words. Pure."""

from collections.abc import Iterator

from kernels.layout import EXACT, PATH_KINDS, PREFIX, REGEX
from plane import dialects, routes
from plane.ingressclass import served, unserved_because
from plane.model import Object, Snapshot
from plane.regex import compiled, of_path
from plane.router import names_for
from plane.routes import Origin, Routes


class Reasons:
    """What is said of a request for ``host`` and ``path``, both normal, taken by ``winner``, which may be none."""

    def __init__(self, snapshot: Snapshot, table: Routes, host: str, path: str, winner: Origin):
        self._snapshot = snapshot
        self._host = host
        self._path = path
        self._winner = winner
        rows = {table.host_name(row): row for row in range(1, len(table.hosts))}
        row = next((rows[name] for name in names_for(host) if name in rows), 0)
        if table.hosts[row]["alias"]:
            row = next((each for each in rows.values() if _same_paths(table, each, row)), row)
        self._named = table.host_name(row) if row else None  # the host whose rules count
        first, count = int(table.hosts[row]["first_path"]), int(table.hosts[row]["paths"])
        self._regex = REGEX in table.paths["kind"][first : first + count]

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
        canary = bool(dialects.asked(obj, self._snapshot).canary)
        for number, rule in enumerate(obj["spec"].get("rules") or ()):
            paths = (rule.get("http") or {}).get("paths") or ()
            if not paths:
                yield False, f"{_name(obj)} spec.rules[{number}]: {self._pathless(rule)}"
            for index, path in enumerate(paths):
                origin = Origin(*_key(obj), number, index)
                won = origin == self._winner
                if canary:
                    why = "this canary takes the request" if won else "a canary, of the same rule of another Ingress"
                else:
                    why = "this rule takes the request" if won else self._why_not(obj, rule, path)
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

    def _why_not(self, obj: Object, rule: Object, path: Object) -> str:
        host = (rule.get("host") or "").lower()
        if host != self._named:
            return self._other_host(host)
        kind, text, slash = routes.matched(path, regex=self._regex)
        if not _takes(kind, text, self._path):
            if kind == REGEX:
                return f"the path {self._path} does not begin with what this regular expression matches"
            return f"the path {self._path} is {'another' if kind == EXACT else 'not below it'}"
        winner = self._snapshot.get("Ingress", self._winner.namespace, self._winner.ingress)
        assert winner is not None
        if self._winner.rule < 0:
            return f"it matches, but {_name(winner)} redirects this path of the host"
        if dialects.asked(winner, self._snapshot).canary:
            return "it matches, and its canary takes the request"
        best = winner["spec"]["rules"][self._winner.rule]["http"]["paths"][self._winner.path]
        best_kind, best_text, best_slash = routes.matched(best, regex=self._regex)
        if best_kind != kind:
            return "it matches, but Exact comes before Prefix"
        if best_text != text:
            than = "is longer" if len(best_text) > len(text) else "comes after it in the alphabet, and so before it"
            return f"it matches, but {best['path']} {than}"
        if best_slash != slash:
            return f"it matches, but {best['path']} with its slash comes first"
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


def _takes(kind: int, text: str, path: str) -> bool:
    if kind == REGEX:
        return bool(compiled(of_path(text), fold=True).search(path))
    if kind == EXACT:
        return path == text
    return path == text or path.startswith(f"{text}/")


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
