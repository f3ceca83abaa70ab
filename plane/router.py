"""Which rule takes a request: ``plane.routes.Routes`` as dictionaries. Pure.

Law: all that is decided here is in the tables already, in order of matching; dictionaries only find it sooner.
"""

from typing import NamedTuple

import numpy as np

from kernels.layout import EXACT, REGEX
from plane.regex import compiled, of_path
from plane.requestpath import climbs, host_of, normalised, separated
from plane.routes import Routes


class Match(NamedTuple):
    """What became of a request: rows of the Routes' tables.

    Without a target no rule takes it; there may be a policy all the same, which redirects it, say.
    """

    target: int
    origin: int
    policy: int = 0
    canary: int = 0


def names_for(host: str) -> tuple[str, ...]:
    """Names that rules may have for a host, the first counts first: its own, a wildcard for its first label, none."""
    label, _, rest = host.partition(".")
    return (host, f"*.{rest}", "") if label and rest else (host, "")


class Router:
    """Routes as dictionaries, for lookups from Python: built once for each install, then read only.

    A lookup hashes a few strings: the Host header as it was sent, and the path for each length that a Prefix has. The
    regular expressions of a host that has such paths are tried one after another.
    """

    # Host headers that were seen, so that none is taken apart twice; clients can make up many, so it has a bound.
    SEEN = 4096

    def __init__(self, routes: Routes):
        text, paths = routes.text.tobytes(), routes.paths.tolist()  # thousands of rows are read faster so
        self._none, *hosts = (_Paths(text, paths, host) for host in routes.hosts.tolist())
        for host in hosts:
            host.inherit(self._none.default)
        rows = routes.policies.policies
        ranged = rows["sources_denied"]["count"] + rows["sources_allowed"]["count"]
        guarded = (rows["auth"] > 0) | (rows["auth_url"] > 0) | (rows["denied"] > 0) | (ranged > 0)
        self._guarded = frozenset(np.flatnonzero(guarded).tolist())
        self._hosts = {routes.host_name(row): host for row, host in enumerate(hosts, start=1)}
        self._seen: dict[str, _Paths] = {}

    def match(self, host: str, path: str) -> Match:
        """Where a request goes. ``host`` is its Host header, ``path`` as it was sent, without the query."""
        paths = self._seen.get(host)
        if paths is None:
            if len(self._seen) >= self.SEEN:
                self._seen.clear()
            paths = self._seen[host] = self._paths(host_of(host))
        return paths.match(path)

    def unclear(self, host: str, path: str) -> str:
        """Why a request cannot be routed, for others may read its path otherwise; empty for nearly all."""
        if "%" not in path and "\\" not in path:
            return ""
        if climbs(path):
            return "the path has .. beside an encoded slash or a backslash"
        read = separated(path)
        if read != path and self._guarded & {self.match(host, path).policy, self.match(host, read).policy}:
            return "a path that is guarded may not have %2F, %5C or %00"
        return ""

    def _paths(self, host: str) -> "_Paths":
        return next((self._hosts[name] for name in names_for(host) if name in self._hosts), self._none)


class _Paths:
    """The rules of one host."""

    __slots__ = ("_exact", "_expressions", "_lengths", "_prefixes", "default")

    def __init__(self, text: bytes, paths: list[tuple[int, ...]], host: tuple[int, ...]):
        """``host`` is a row of HOST; ``paths`` are all of PATH, ``text`` is that of the Routes."""
        *_, first, count, default, origin, policy = host
        self.default = Match(default, origin, policy)
        self._exact: dict[str, Match] = {}
        self._prefixes: dict[str, Match] = {}
        self._expressions = []
        for start, length, kind, _, *found in paths[first : first + count]:
            match, said = Match(*found), text[start : start + length].decode()
            if kind == REGEX:
                self._expressions.append((compiled(of_path(said), fold=True), match))
            else:
                (self._exact if kind == EXACT else self._prefixes).setdefault(said, match)
        self._lengths = sorted({len(said) for said in self._prefixes}, reverse=True)

    def inherit(self, default: Match) -> None:
        """What no path takes is the general default's, with its policies, unless the host says something of it."""
        if not self.default.target and not self.default.policy:
            self.default = default

    def match(self, path: str) -> Match:
        if "//" in path or "/." in path or "%" in path or not path.isascii():
            path = normalised(path)
        if self._exact and path in self._exact:
            return self._exact[path]
        if path[:1] == "/":
            for length in self._lengths:
                if path[length : length + 1] in ("/", "") and path[:length] in self._prefixes:
                    return self._prefixes[path[:length]]
            for expression, match in self._expressions:
                if expression.search(path):
                    return match
        return self.default
