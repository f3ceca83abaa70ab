"""Routes made ready for compiled code: ``plane.routes.Routes`` as ``kernels.layout_routes.Roads``. Pure.

Law: Roads say what ``plane.router``, ``plane.conduct`` and ``plane.ingress.table`` say of the same Routes, or they say
punt, with a reason; which policies are compiled is listed in ``docs/gateway.md``. What differs from the Routes before
is made anew and nothing else: when endpoints change, as they do most often, no path is looked at.
"""

from collections.abc import Callable, Hashable, Iterable
from http import HTTPStatus
from typing import Any

import numpy as np

from kernels.layout import RETRY_CONDITIONS, STRING, freeze
from kernels.layout_routes import (
    EXTERNAL,
    FIELDS_BYTES,
    FORK,
    GOAL,
    GUARD,
    HOST_BYTES,
    MANY_TRIES,
    MIRROR,
    PIECE,
    REPLY,
    REWRITE,
    ROAD,
    RULE,
    SITE,
    SLOT,
    SLOW_START,
    STAND_IN,
    STICKY,
    TEXT,
    TRIES,
    UPSTREAM_TLS,
    WORDING,
    Memory,
    Roads,
)
from kernels.net import hostpath
from plane import fastpolicies
from plane.conduct import UPGRADE_REQUIRED, Conduct, pieces_of
from plane.policies import PERMANENT_REDIRECT, Policies
from plane.routes import Routes

# The first replies of all, in the order of NO_RULE, NOT_ALLOWED and DENIED.
_ALWAYS = (
    (404, "no Ingress has a rule for this host and path"),
    (403, "the client's address is not one of those allowed"),
    (403, "the client's address is denied"),
)
_NO_HTTPS = "this is served by HTTPS only"
_PREFLIGHT = b"Content-Type: text/plain charset=UTF-8\r\n"
_UPGRADE = b"Upgrade: TLS/1.2, HTTP/1.1\r\nConnection: Upgrade\r\n"
# Fields of a rule that would stand in place of one that an answer of the plane's own is about.
_OURS = frozenset({b"location", b"upgrade", b"connection"})
_ORIGIN_ROOM = 1024  # for that of a request, and the name of its field
_OFF = 1 << RETRY_CONDITIONS.index("off")


def compile(routes: Routes) -> Roads:
    """All tables of ``Roads``, read-only."""
    return Compiler().compile(routes)


class Compiler:
    """Compiles one Routes after the other: anew only what differs."""

    def __init__(self) -> None:
        self._routes: Routes | None = None
        self._found: _Found | None = None
        self._made: _Made | None = None
        self._led: _Led | None = None

    def compile(self, routes: Routes) -> Roads:
        """As the function of this name."""
        before = self._routes
        named = before is not None and _goes_on(before.text, routes.text)
        if (
            before is None
            or not named
            or not _same(before.hosts, routes.hosts)
            or not _same(before.paths, routes.paths)
        ):
            self._found = _Found(routes)
        ruled = before is not None and named and all(map(_same, *map(_read, (before, routes))))
        if not ruled:
            self._made = _Made(routes)
        assert self._made is not None
        if before is None or not ruled or not all(map(_same, *map(_read_by_goals, (before, routes)))):
            self._led = _Led(routes, self._made)
        assert self._found is not None
        assert self._led is not None
        self._routes = routes
        found, made, led = self._found, self._made, self._led
        return Roads(
            generation=routes.generation,
            hosts=found.hosts,
            host_slots=found.host_slots,
            expressed=found.expressed,
            roads=found.roads,
            slots=found.slots,
            text=routes.text,
            rules=made.rules,
            forks=led.forks,
            networks=routes.policies.ranges,
            names=made.names,
            pieces=made.pieces,
            replies=led.replies,
            words=led.words,
            goals=led.goals,
            endpoints=routes.endpoints,
            backends=routes.backends,
        )


def create_memory(roads: Roads) -> Memory:
    """Of a gateway that has carried nothing yet."""
    return Memory(np.zeros((len(roads.goals), 2), np.int64), np.zeros(len(roads.backends), np.int64))


def carry_over(before: Roads, memory: Memory, roads: Roads) -> Memory:
    """What goes on under new Roads: the turns of the same Services, and which of the same endpoints are out."""
    if roads.goals is before.goals and roads.backends is before.backends:
        return memory
    after = create_memory(roads)
    both = min(len(before.goals), len(roads.goals))
    stays = before.goals["key"][:both] == roads.goals["key"][:both]
    after.turns[:both][stays] = memory.turns[:both][stays]
    moved = np.setdiff1d(np.arange(len(roads.goals)), np.flatnonzero(stays))
    if len(moved):
        _, now, then = np.intersect1d(roads.goals["key"][moved], before.goals["key"], return_indices=True)
        after.turns[moved[now]] = memory.turns[then]
    shared = min(len(before.backends), len(roads.backends))
    one, other = before.backends[:shared], roads.backends[:shared]
    same = (one["ip"] == other["ip"]) & (one["port"] == other["port"])
    after.out_ns[:shared][same] = memory.out_ns[:shared][same]
    return after


class _Found:
    """What requests are looked up in."""

    def __init__(self, routes: Routes):
        hosts, paths = routes.hosts, routes.paths
        sites, roads = np.zeros(len(hosts), SITE), np.zeros(len(paths) + len(hosts), ROAD)
        host_slots, slots, expressed = _slots(len(hosts)), _slots(len(paths)), np.zeros(1, np.uint8)
        plain = fastpolicies.kinds_of(routes)
        hostpath.lay_out(routes.text, hosts, paths, *plain, sites, roads, host_slots, slots, expressed)
        self.hosts, self.roads = freeze(sites), freeze(roads)
        self.host_slots, self.slots, self.expressed = freeze(host_slots), freeze(slots), freeze(expressed)


class _Words:
    """Bytes while they are gathered, equal ones once."""

    def __init__(self) -> None:
        self.bytes = bytearray()
        self._places: dict[bytes, tuple[int, int]] = {}

    def add(self, text: bytes) -> tuple[int, int]:
        """(offset, length)."""
        if text not in self._places:
            self._places[text] = len(self.bytes), len(text)
            self.bytes += text
        return self._places[text]

    def array(self) -> np.ndarray:
        return np.frombuffer(bytes(self.bytes), np.uint8)


class _Made:
    """Rules, and all that follows from policies alone."""

    def __init__(self, routes: Routes):
        self._words = _Words()
        self._replies: list[Any] = [np.zeros((), REPLY).item()]
        self._known: dict[Hashable, int] = {}  # replies that many rules have
        self._pieces: list[tuple[Any, ...]] = []
        self._names: list[tuple[int, int]] = []
        for status, reason in _ALWAYS:
            self._reply(status, reason)
        policies, strings = routes.policies.policies, routes.policies.strings
        rules = np.zeros(len(policies), RULE)
        for name, of in _COPIED:
            rules[name] = policies[of]
        rules["punt"] = _punts(policies, strings["length"])
        rules["host"], rules["cookie"] = strings[policies["upstream_host"]], strings[policies["cookie"]]
        speaking = (policies["denied"] > 0) | (policies["redirect"] > 0) | (policies["https"] > 0)
        speaking |= (policies["fields"]["count"] > 0) | (policies["hsts_max_age_s"] > 0)
        speaking |= (policies["cors"] > 0) | (policies["limit_key"] > 0) | (policies["rewrite_from"] > 0)
        speaking |= (policies["cookie"] > 0) | (policies["hash_by"] > 0)
        for row in np.flatnonzero(speaking & (rules["punt"] == 0)).tolist():
            self._say(rules[row], routes.policy(row))
        self.rules = freeze(rules)
        self.words = freeze(self._words.array())
        self.replies = freeze(np.array(self._replies, REPLY))
        self.pieces = freeze(np.array(self._pieces, PIECE))
        self.names = freeze(np.array(self._names, STRING))

    def _say(self, rule: np.void, policies: Policies) -> None:
        """What a rule answers itself, and what it adds to answers."""
        conduct = Conduct(policies)
        names = [name.lower() for name in conduct.replaced]
        if _OURS & set(names) and (policies.redirect or policies.https):
            rule["punt"] = WORDING
            return
        plain, hsts = _lines(policies.fields), f"max-age={policies.hsts_max_age_s}; includeSubDomains"
        secure = _lines((f"Strict-Transport-Security: {hsts}",)) if policies.hsts_max_age_s else b""
        always, shared = fastpolicies.lines_of_cors(conduct)
        plain = always + plain
        size = len(secure) + len(plain) + len(shared) + fastpolicies.say_cookie(rule, policies, self._words.add)
        if size > FIELDS_BYTES - _ORIGIN_ROOM or not all(map(str.isascii, policies.cors_origins)):
            rule["punt"] = WORDING
            return
        if policies.cors:
            self._share(rule, policies, shared)
        rule["fields"], rule["secure_fields"] = self._words.add(plain), self._words.add(secure + plain)
        rule["typed"] = b"content-type" in names
        rule["replaced"] = len(self._names), len(names)
        self._names += [self._words.add(name) for name in sorted(names)]
        if not policies.denied and not policies.redirect:
            fastpolicies.say_limit(rule, policies, self._reply)
            if not fastpolicies.say_rewrite(rule, policies, self._words.add, self._pieces):
                rule["punt"] = REWRITE
            if not fastpolicies.say_hash(rule, conduct, self._words.add, self._pieces):
                rule["punt"] = STICKY
        if policies.denied:
            rule["answer"] = self._reply(503, policies.denied)
        elif policies.redirect:
            rule["answer"] = self._redirect(rule, policies.redirect_status, policies.redirect)
        elif policies.https and policies.https_status == UPGRADE_REQUIRED:
            rule["https"] = self._reply(UPGRADE_REQUIRED, _NO_HTTPS, fields=_UPGRADE)
        elif policies.https:
            status = policies.https_status or PERMANENT_REDIRECT
            rule["https"] = self._add(status, _seen(status), keep_slash=policies.keep_slash, secures=True)

    def _share(self, rule: np.void, policies: Policies, lines: bytes) -> None:
        """What CORS makes of answers besides, and of OPTIONS."""
        rule["varies"], rule["shared"] = bool(lines), self._words.add(lines)
        if lines:
            pieces = fastpolicies.origins_of(policies, self._words.add)
            rule["origins"] = len(self._pieces), len(pieces)
            self._pieces += pieces
        if not policies.denied:
            rule["preflight"] = self._once(("preflight",), lambda: self._add(204, b"", _PREFLIGHT))

    def _redirect(self, rule: np.void, status: int, url: str) -> int:
        pieces = pieces_of(url)
        if any(name not in fastpolicies.VARIABLE_KINDS for name in pieces[1::2]) or pieces[-1] != pieces[-1].rstrip():
            rule["punt"] = WORDING
            return 0
        first = len(self._pieces)
        for number, piece in enumerate(pieces):
            if number % 2:
                self._pieces.append((fastpolicies.VARIABLE_KINDS[piece], (0, 0)))
            elif piece:
                self._pieces.append((TEXT, self._words.add(piece.encode())))
        return self._add(status, _seen(status), location=(first, len(self._pieces) - first))

    def _reply(self, status: int, reason: str, fields: bytes = b"") -> int:
        return self._once((status, reason, fields), lambda: self._add(status, _body(status, reason), fields))

    def _once(self, key: Hashable, make: Callable[[], int]) -> int:
        """The reply that goes by this key."""
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def _add(
        self,
        status: int,
        body: bytes,
        fields: bytes = b"",
        *,
        keep_slash: bool = False,
        secures: bool = False,
        location: tuple[int, int] = (0, 0),
    ) -> int:
        add = self._words.add
        self._replies.append((status, keep_slash, secures, add(_head(status)), add(fields), add(body), location))
        return len(self._replies) - 1


class _Led:
    """Where rules lead, and the replies and words of all."""

    def __init__(self, routes: Routes, made: _Made):
        goals, words, replies = _goals(routes, len(made.replies), len(made.words))
        self.forks, self.goals = freeze(_forks(routes)), freeze(goals)
        self.replies = freeze(np.concatenate((made.replies, replies)))
        self.words = freeze(np.concatenate((made.words, words)))


_COPIED = (
    ("body_limit", "body_limit"),
    ("connect_ms", "connect_timeout_ms"),
    ("read_ms", "read_timeout_ms"),
    ("send_ms", "send_timeout_ms"),
    ("retry_on", "retry_on"),
    ("retry_tries", "retry_tries"),
    ("retry_ms", "retry_timeout_ms"),
    ("denied", "sources_denied"),
    ("allowed", "sources_allowed"),
    ("unlimited", "unlimited"),
    ("own_host", "own_host"),
    ("unlogged", "unlogged"),
    ("subset", "hash_subset"),
)


def _punts(rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """For each of POLICY[…], why its requests are punted, 0 where they are not; the first reason counts.

    ``lengths`` are those of the strings that they name.
    """
    answered = (rows["denied"] > 0) | (rows["redirect"] > 0)  # nothing that comes after that is of concern
    reasons = [
        (STAND_IN, (rows["errors"]["count"] > 0) & (rows["denied"] == 0)),
        (GUARD, ((rows["auth"] > 0) | (rows["auth_url"] > 0)) & ~answered),
        (STICKY, fastpolicies.chooses_oddly(rows) & ~answered),
        (STAND_IN, (rows["fallback"] > 0) & ~answered),
        (MIRROR, (rows["mirror"] > 0) & ~answered),
        (UPSTREAM_TLS, (rows["upstream_tls"] > 0) & ~answered),
        (WORDING, (rows["upstream_host"] > 0) & (lengths[rows["upstream_host"]] > HOST_BYTES)),
        (MANY_TRIES, (rows["retry_tries"] > TRIES) & (rows["retry_on"] & _OFF == 0) & ~answered),
    ]
    return np.select([mask for _, mask in reasons], [reason for reason, _ in reasons], 0)


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode()


def _seen(status: int) -> bytes:
    """What stands before the Location in the body of a redirect."""
    return _said(status, "see ")


def _body(status: int, reason: str) -> bytes:
    return _said(status, f"{reason.strip()}\n")


def _said(status: int, text: str) -> bytes:
    return f"{status} {HTTPStatus(status).phrase}: {text}".encode()


def _head(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nServer: trafficplane\r\n".encode()


def _forks(routes: Routes) -> np.ndarray:
    canaries = routes.policies.canaries
    forks = np.zeros(len(canaries), FORK)
    for name, of in (("goal", "target"), ("origin", "origin"), ("weight", "weight")):
        forks[name] = canaries[of]
    served = routes.targets["endpoints"] > 0
    if routes.externals:
        served = served.copy()
        served[list(routes.externals)] = True
    forks["total"] = np.where(served[canaries["target"]], canaries["total"], 0)
    fastpolicies.say_conditions(forks, routes)
    return forks


def _goals(routes: Routes, first_reply: int, first_word: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """GOAL[T+1], with the words and the replies that they refer to, which follow those of rules."""
    targets = routes.targets
    goals = np.zeros(len(targets), GOAL)
    for name, of in (("first", "first_endpoint"), ("endpoints", "endpoints"), ("algorithm", "algorithm")):
        goals[name] = targets[of]
    services = np.fromiter(map(hash, routes.services), np.int64, len(routes.services))
    goals["key"] = services[targets["service"]].view(np.uint64) ^ targets["algorithm"]
    goals["punt"] = np.where(targets["slow_start_s"] > 0, SLOW_START, 0)
    if routes.externals:
        goals["punt"][list(routes.externals)] = EXTERNAL
    fastpolicies.say_services(goals, routes)
    words = bytearray()
    replies: list[tuple[Any, ...]] = []
    deserted = (targets["service"] > 0) & (targets["endpoints"] == 0) & (goals["punt"] != EXTERNAL)
    for row in (np.flatnonzero(deserted[1:]) + 1).tolist():
        status, service = int(targets[row]["status"]), routes.services[int(targets[row]["service"])]
        head, body = _head(status), _body(status, f"Service {service} has no ready endpoint")
        start = first_word + len(words)
        goals["reply"][row] = first_reply + len(replies)
        replies.append((status, 0, 0, (start, len(head)), (0, 0), (start + len(head), len(body)), (0, 0)))
        words += head + body
    return goals, np.frombuffer(bytes(words), np.uint8), np.array(replies, REPLY)


def _goes_on(before: np.ndarray, now: np.ndarray) -> bool:
    """Whether a text has at most grown at its end, so that what was said by offsets still is."""
    return len(before) <= len(now) and _same(before, now[: len(before)])


def _read(routes: Routes) -> tuple[np.ndarray, ...]:
    """The tables that rules are made of."""
    policies = routes.policies
    return policies.policies, policies.strings, policies.ranges


def _read_by_goals(routes: Routes) -> tuple[Any, ...]:
    """What goals and forks are made of besides. Where clients stay at their endpoints it counts who leads where."""
    ways = (routes.hosts, routes.paths) if fastpolicies.are_sticky(routes).any() else ()
    return routes.targets, routes.services, routes.externals, routes.policies.canaries, *ways


def _slots(rows: int) -> np.ndarray:
    """Slots for so many rows, of which they are at most half full."""
    return np.zeros(1 << (2 * max(rows, 1) - 1).bit_length(), SLOT)


def _same(one: Any, other: Any) -> bool:
    """Whether two tables hold the same, by their bytes or, where there are some between fields, by their fields."""
    if one is other:
        return True
    if not isinstance(one, np.ndarray):
        return bool(one == other)
    if one.shape != other.shape:
        return False
    if np.array_equal(one.view(np.uint8), other.view(np.uint8)):
        return True
    return all(np.array_equal(one[name], other[name]) for name in one.dtype.names or ()) if one.dtype.names else False
