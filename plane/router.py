"""Which rule takes a request: ``plane.routes.Routes`` as dictionaries. Pure.

Law: all that is decided here is in the tables already, in order of matching; dictionaries only find it sooner. So the
paths of a host are taken apart into runs, whose rows follow one another and are found alike.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import NamedTuple

import numpy as np

from kernels.layout import EXACT, HOST_MARKS, MATCHED, PATTERN, PREFIX, REGEX
from plane.regex import compiled, of_path
from plane.requestpath import climbs, host_of, normalised, separated
from plane.routes import Difference, Routes


class Match(NamedTuple):
    """What became of a request: rows of the Routes' tables.

    Without a target no rule takes it; there may be a policy all the same, which redirects it, say.
    """

    target: int
    origin: int
    policy: int = 0
    canary: int = 0
    when: int = 0


Meets = Callable[[int], bool]  # whether a request is one of those of a row of WHEN


def any_request(_: int) -> bool:
    return True


def names_for(host: str, matched: Iterable[str] = ()) -> tuple[str, ...]:
    """Names that rules may have for a host, the first counts first: its own, a wildcard for its first label, none.

    Before none come those of ``matched``, expressions with ``~`` before them, that match it, as in NGINX.
    """
    label, _, rest = host.partition(".")
    wild = (f"*.{rest}",) if label and rest else ()
    return (host, *wild, *(name for name in matched if compiled(name[1:], fold=True).search(host)), "")


class Router:
    """Routes as dictionaries, for lookups from Python: built once for each install, then read only.

    One that comes after another, with the ``difference`` of their Routes, has from it what is the same.

    A lookup hashes a few strings: the Host header as it was sent, and the path for each length that a Prefix has. The
    regular expressions of a host that has such paths are tried one after another.
    """

    # Host headers that were seen, so that none is taken apart twice; clients can make up many, so it has a bound.
    SEEN = 4096

    def __init__(self, routes: Routes, before: "Router | None" = None, differs: Difference | None = None):
        self._routes = routes
        if before is None or differs is None or differs.hosts[0]:
            self._begin(routes)
        else:
            self._go_on(routes, before, np.flatnonzero(differs.hosts).tolist())
        self._matched = tuple(name for name in self._expressed if name in self._hosts)
        rows = routes.policies.policies
        ranged = rows["sources_denied"]["count"] + rows["sources_allowed"]["count"]
        guarded = (rows["auth"] > 0) | (rows["auth_url"] > 0) | (rows["denied"] > 0) | (ranged > 0)
        self._guarded = frozenset(np.flatnonzero(guarded).tolist())
        self._seen: dict[str, _Paths] = {}

    def _begin(self, routes: Routes) -> None:
        text, paths = routes.text.tobytes(), routes.paths.tolist()  # thousands of rows are read faster so
        self._none, *hosts = (_Paths(text, paths, host) for host in routes.hosts.tolist())
        for host in hosts:
            host.inherit(self._none.default)
        self._hosts = {routes.host_name(row): host for row, host in enumerate(hosts, start=1)}
        self._expressed = tuple(filter(_is_expression, self._hosts))

    def _go_on(self, routes: Routes, before: "Router", differing: list[int]) -> None:
        """The hosts that have gone, or whose row is another's now, are among those of the rows that differ."""
        self._none, self._hosts = before._none, before._hosts.copy()
        there = len(before._routes.hosts)
        for row in (*(row for row in differing if row < there), *range(len(routes.hosts), there)):
            del self._hosts[before._routes.host_name(row)]
        text, named = memoryview(routes.text.data), []
        for row in differing:
            rows = routes.path_rows(row)
            paths = routes.paths[rows.start : rows.stop].tolist()
            kind, alias, _, count, *missed = routes.hosts[row].item()[2:]
            host = _Paths(text, paths, (0, 0, kind, alias, 0, count, *missed))
            host.inherit(self._none.default)
            named.append(routes.host_name(row))
            self._hosts[named[-1]] = host
        expressed = filter(_is_expression, named)
        self._expressed = tuple(dict.fromkeys((*before._expressed, *expressed)))

    def match(self, host: str, path: str, meets: Meets = any_request) -> Match:
        """Where a request goes. ``host`` is its Host header, ``path`` as it was sent, without the query."""
        paths = self._seen.get(host)
        if paths is None:
            if len(self._seen) >= self.SEEN:
                self._seen.clear()
            paths = self._seen[host] = self._paths(host_of(host))
        return paths.match(path, meets)

    def unclear(self, host: str, path: str, meets: Meets = any_request) -> str:
        """Why a request cannot be routed, for others may read its path otherwise; empty for nearly all."""
        if "%" not in path and "\\" not in path:
            return ""
        if climbs(path):
            return "the path has .. beside an encoded slash or a backslash"
        read = separated(path)
        if read != path and self._guarded & {self.match(host, each, meets).policy for each in (path, read)}:
            return "a path that is guarded may not have %2F, %5C or %00"
        return ""

    def _paths(self, host: str) -> "_Paths":
        names = names_for(host, self._matched)
        return next((self._hosts[name] for name in names if name in self._hosts), self._none)


Row = tuple[int, str, Match]  # (kind, text, where it leads)


class _Texts:
    """A run of Exact paths."""

    __slots__ = ("_found",)

    def __init__(self, rows: list[Row]):
        self._found = _by_text(rows)

    def find(self, path: str, meets: Meets) -> Match | None:
        return _first(self._found[path], meets) if path in self._found else None


class _Prefixes:
    """A run of paths that others begin with, none longer than one before it; ``whole``: by whole elements."""

    __slots__ = ("_found", "_lengths", "_whole")

    def __init__(self, rows: list[Row], *, whole: bool):
        self._found = _by_text(rows)
        self._lengths = sorted({len(text) for text in self._found}, reverse=True)
        self._whole = whole

    def find(self, path: str, meets: Meets) -> Match | None:
        found = self._found
        for length in self._lengths:
            if self._whole and path[length : length + 1] not in ("/", ""):
                continue
            text = path[:length]
            if text in found and (match := _first(found[text], meets)):
                return match
        return None


class _Expressions:
    """A run of regular expressions."""

    __slots__ = ("_found",)

    def __init__(self, rows: list[Row]):
        self._found = [
            (compiled(of_path(text), fold=True) if kind == REGEX else compiled(text), match)
            for kind, text, match in rows
        ]

    def find(self, path: str, meets: Meets) -> Match | None:
        for expression, match in self._found:
            if (not match.when or meets(match.when)) and expression.search(path):
                return match
        return None


def _is_expression(name: str) -> bool:
    """Whether a host is one."""
    return name.startswith(HOST_MARKS[MATCHED])


def _by_text(rows: list[Row]) -> dict[str, list[Match]]:
    found: dict[str, list[Match]] = {}
    for _, text, match in rows:
        found.setdefault(text, []).append(match)
    return found


def _first(matches: list[Match], meets: Meets) -> Match | None:
    """The first whose condition the request meets."""
    for match in matches:
        if not match.when or meets(match.when):
            return match
    return None


def _runs(rows: list[Row]) -> Iterator[_Texts | _Prefixes | _Expressions]:
    """Rows in order of matching, as runs."""
    for (kind, _), group in groupby(_numbered(rows), key=lambda row: row[0]):
        run = [row for _, row in group]
        if kind == EXACT:
            yield _Texts(run)
        elif kind in (REGEX, PATTERN):
            yield _Expressions(run)
        else:
            yield _Prefixes(run, whole=kind == PREFIX)


def _numbered(rows: list[Row]) -> Iterator[tuple[tuple[int, int], Row]]:
    """Each row with its kind and a number, which changes where a prefix is longer than the one before it."""
    number, before = 0, ""
    for row in rows:
        kind, text, _ = row
        number += kind not in (EXACT, REGEX, PATTERN) and len(text) > len(before)
        before = text
        yield (kind, number), row


class _Paths:
    """The rules of one host."""

    __slots__ = ("_runs", "default")

    def __init__(self, text: bytes | memoryview, paths: list[tuple[int, ...]], host: tuple[int, ...]):
        """``host`` is a row of HOST; ``paths`` are all of PATH, ``text`` is that of the Routes."""
        *_, first, count, default, origin, policy = host
        self.default = Match(default, origin, policy)
        rows = [
            (kind, str(text[start : start + length], "utf-8"), Match(*found))
            for start, length, kind, _, *found in paths[first : first + count]
        ]
        self._runs = tuple(_runs(rows))

    def inherit(self, default: Match) -> None:
        """What no path takes is the general default's, with its policies, unless the host says something of it."""
        if not self.default.target and not self.default.policy:
            self.default = default

    def match(self, path: str, meets: Meets) -> Match:
        if "//" in path or "/." in path or "%" in path or not path.isascii():
            path = normalised(path)
        if path[:1] == "/":
            for run in self._runs:
                if found := run.find(path, meets):
                    return found
        return self.default
