"""Policies that take more than an answer, ready for compiled code: of limits, CORS, rewrites, cookies, canaries. Pure.

Law: as in ``plane.fastroutes``: what is put into a RULE or a FORK says what ``plane.conduct`` says of the same
policies, or a reason to punt is put there.
"""

from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b

import numpy as np

from kernels.layout import REGEX
from kernels.layout_routes import (
    ANYTHING,
    ARG,
    ARGS,
    BELOW,
    CANARY_BY_REQUEST,
    COOKIE,
    FIELD,
    FOLDED_PREFIX,
    FOLDED_STARTS,
    GROUP_1,
    GROUP_2,
    HOSTNAME,
    HTTP_HOST,
    IS,
    LABELLED,
    PAST_SLASH,
    REMOTE_ADDR,
    REQUEST_METHOD,
    REQUEST_URI,
    REST,
    SCHEME,
    SLASH,
    SLASH_REST,
    SUBSET,
    TEXT,
    TRIMMED_URI,
    URI,
    WHOLE,
    WORDS,
)
from plane.affinity import backend_key, set_cookie
from plane.conduct import ALLOW_ORIGIN, VARY, Conduct, over_limits
from plane.plainexpressions import compared, plain
from plane.policies import VARIABLES, Policies
from plane.routes import Routes

Word = tuple[int, int]  # (offset, length) in Roads.words
_KINDS = {
    ANYTHING: FOLDED_STARTS,
    REST: FOLDED_STARTS,
    PAST_SLASH: FOLDED_STARTS,
    SLASH: FOLDED_PREFIX,
    SLASH_REST: FOLDED_PREFIX,
    BELOW: FOLDED_PREFIX,
}
# Pieces, by the variables that they stand for.
VARIABLE_KINDS = dict(zip(VARIABLES, (SCHEME, HTTP_HOST, HOSTNAME, REQUEST_URI, TRIMMED_URI), strict=True))
_HASHED_KINDS = VARIABLE_KINDS | {
    "uri": URI,
    "args": ARGS,
    "remote_addr": REMOTE_ADDR,
    "request_method": REQUEST_METHOD,
}
_NAMED_KINDS = {"arg": ARG, "cookie": COOKIE, "http": FIELD}
_GROUPS = {ANYTHING: 0, SLASH_REST: 2}  # of tails; the others have 1


def limit_of(policies: Policies) -> tuple[int, int, int, int, int]:
    """LIMIT: what policies that have one allow each client."""
    rates = policies.limit_rps, policies.limit_rpm, policies.limit_burst, policies.limit_connections
    return (_number(policies.limit_key), *rates)


@lru_cache(4096)
def _number(key: str) -> int:
    """The number by which a limit's key goes in tallies, never 0."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) | 1


def say_limit(rule: np.void, policies: Policies, reply: Callable[[int, str], int]) -> None:
    """What a rule allows each client; ``reply`` makes an answer of a status and a reason."""
    if not policies.limit_key:
        return
    rule["limit"] = limit_of(policies)
    rates = policies.limit_rps, policies.limit_rpm, policies.limit_connections
    names = ("over_second", "over_minute", "over_at_once")
    for name, said, rate in zip(names, over_limits(policies), rates, strict=True):
        rule[name] = reply(503, said) if rate else 0


def say_rewrite(
    rule: np.void, policies: Policies, add: Callable[[bytes], Word], pieces: list[tuple[int, Word]]
) -> bool:
    """What a rule makes of paths, in ``Roads.words`` by ``add`` and in ``pieces``. False: it cannot be said here."""
    if not policies.rewrite_from:
        return True
    found = plain(policies.rewrite_from)
    if found is None or policies.forwarded_prefix or not policies.rewrite_to.isascii():
        return False
    first = len(pieces)
    pieces += _pieces_of(policies.rewrite_to, _GROUPS.get(found.tail, 1), add)
    rule["rewrite"], rule["matched"] = (first, len(pieces) - first), add(found.text.encode())
    rule["tail"], rule["folded"], rule["anchored"] = found.tail, found.folded, found.anchored
    return True


def _pieces_of(template: str, groups: int, add: Callable[[bytes], Word]) -> list[tuple[int, Word]]:
    """``plane.regex.expanded`` of a template, as pieces; there is always one."""
    text, *parts = template.split("$")
    found: list[tuple[int, Word]] = [(TEXT, add(text.encode()))]
    for part in parts:
        number = int(part[0]) if part[:1] in tuple("123456789") else 0
        if 1 <= number <= groups:
            found.append(((GROUP_1, GROUP_2)[number - 1], (0, 0)))
        found.append((TEXT, add((part[1:] if number else f"${part}").encode())))
    return found


def say_cookie(rule: np.void, policies: Policies, add: Callable[[bytes], Word]) -> int:
    """What is said with a key by the cookie that keeps clients at their endpoint. Returns how many bytes at most."""
    if not policies.cookie:
        return 0
    size = len("Set-Cookie: =0123456789abcdef|0123456789abcdef") + len(policies.cookie.encode())
    for name, secure in (("after_key", False), ("secure_after_key", True)):
        parts = set_cookie(policies, "", "", secure=secure, now_s=0).partition("; ")[1:]
        rule[name] = add("".join((*parts, "\r\n")).encode())
    rule["persistent"] = policies.cookie_persistent
    return size + int(rule["secure_after_key"]["length"])


def say_hash(rule: np.void, conduct: Conduct, add: Callable[[bytes], Word], pieces: list[tuple[int, Word]]) -> bool:
    """What equal requests have in common, in ``pieces``. False: it cannot be said here."""
    policies = conduct.policies
    if policies.cookie or not policies.hash_by:
        return True
    if not all(map(str.isascii, conduct.hashed[1::2])):
        return False
    first = len(pieces)
    pieces += (
        _variable(piece, add) if number % 2 else (TEXT, add(piece.encode()))
        for number, piece in enumerate(conduct.hashed)
    )
    rule["hashed"] = first, len(pieces) - first
    return True


def _variable(name: str, add: Callable[[bytes], Word]) -> tuple[int, Word]:
    """The piece of a variable (``plane.conduct.filled``)."""
    if name in _HASHED_KINDS:
        return _HASHED_KINDS[name], (0, 0)
    kind, _, rest = name.partition("_")
    named = {"arg": rest.lower(), "cookie": rest, "http": rest.replace("_", "-").lower()}
    return _NAMED_KINDS[kind], add(named[kind].encode())


def chooses_oddly(rows: np.ndarray) -> np.ndarray:
    """Whether requests that each of POLICY[…] is for have endpoints by a cookie that takes a clock, or share many."""
    dated = (rows["cookie_expires_s"] > 0) | (rows["cookie_conditional"] > 0)
    return np.where(rows["cookie"] > 0, dated, (rows["hash_by"] > 0) & (rows["hash_subset"] > SUBSET))


def are_sticky(routes: Routes) -> np.ndarray:
    """Whether clients of each of POLICY[…] stay at their endpoint by a cookie."""
    sticky: np.ndarray = routes.policies.policies["cookie"] > 0
    return sticky


def say_services(goals: np.ndarray, routes: Routes) -> None:
    """The digests of Services that routes with cookies lead to."""
    sticky = are_sticky(routes)
    if not sticky.any():
        return
    paths, hosts = routes.paths[sticky[routes.paths["policy"]]], routes.hosts[sticky[routes.hosts["policy"]]]
    others = routes.policies.canaries["target"][paths["canary"]]
    for row in np.unique(np.concatenate((paths["target"], others, hosts["default"]))).tolist():
        goals["digest"][row] = _digest(str(routes.services[int(routes.targets[row]["service"])]))


@lru_cache(1 << 16)
def _digest(service: str) -> int:
    return int(backend_key(service), 16)


def origins_of(policies: Policies, add: Callable[[bytes], Word]) -> list[tuple[int, Word]]:
    """A piece for each origin that CORS is for, in lower case."""
    return [
        (LABELLED + text.index("*") if "*" in text else WHOLE, add(text.lower().encode()))
        for text in policies.cors_origins
    ]


def lines_of_cors(conduct: Conduct) -> tuple[bytes, bytes]:
    """Lines that all answers get by CORS, and those for its origins besides, none where it is for any."""
    if not conduct.policies.cors:
        return b"", b""
    if conduct.any_origin:
        return _lines((ALLOW_ORIGIN, "*"), *conduct.shared), b""
    return _lines(VARY), _lines(*conduct.shared)


def _lines(*fields: tuple[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in fields).encode()


def kinds_of(routes: Routes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of paths that are plain expressions, the kind of each (FOLDED_…), and offset and length of its text."""
    rows, kinds, places = [], [], []
    for row in np.flatnonzero(routes.paths["kind"] == REGEX).tolist():
        start, length = int(routes.paths[row]["text"]), int(routes.paths[row]["text_length"])
        found = plain(routes.text[start : start + length].tobytes().decode())
        if found is not None and found.folded and found.tail in _KINDS:
            rows.append(row)
            kinds.append(_KINDS[found.tail])
            places.append((start + found.first, len(found.text)))
    return np.array(rows, np.int64), np.array(kinds, np.uint8), np.array(places, np.int64).reshape(-1, 2)


def say_conditions(forks: np.ndarray, routes: Routes) -> None:
    """By what of a request canaries go."""
    canaries, strings = routes.policies.canaries, routes.policies.strings
    for name, of in (("header", "header"), ("cookie", "cookie"), ("value", "header_value")):
        forks[name] = strings[canaries[of]]
    forks["forgetful"] = canaries["forgetful"]
    forks["match"] = np.where(canaries["header_value"] > 0, IS, WORDS)
    for row in np.flatnonzero(canaries["header_pattern"] > 0).tolist():
        start, length = map(int, strings[canaries[row]["header_pattern"]])
        found = compared(routes.text[start : start + length].tobytes().decode())
        if found is None:
            forks["punt"][row] = CANARY_BY_REQUEST
        else:
            forks["match"][row], forks["value"][row] = found[0], (start + found[1], found[2])
