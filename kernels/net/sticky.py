"""The cookie that keeps a client at its endpoint: ``plane.affinity``, of what a RULE and a GOAL say.

Law: a key that leads to an endpoint of the request's Service is kept to, whatever turn it is; who has none is given
one, and its endpoint. An endpoint that a key leads to and that is out is left to whom it was handed over to.
"""

import numpy as np

from kernels.jit import kernel, part
from kernels.layout_routes import STICKY
from kernels.net import balancing, digests, fields, text

KEYS = 32  # that are tried, as in plane.ingress.policed
_DIGITS = 16  # of a digest
_BAR = np.frombuffer(b"|", np.uint8)
_EQUALS = np.frombuffer(b"=", np.uint8)
_SET_COOKIE = np.frombuffer(b"Set-Cookie: ", np.uint8)


@part
def pick(way, endpoints, heard, asked, out, words):
    """The backend id of the endpoint for a request, 0 for none; a reason to punt, negative.

    It goes by the client's cookie, if the route has one, and else by the goal's algorithm. Of ``asked``, a
    row of ASK, count the rule and what ``balancing.pick`` goes by; ``sticks`` and ``key`` are written to it. ``out``
    and ``words`` are room to work in.
    """
    roads = way.roads
    rule, goal = roads.rules[asked["rule"]], roads.goals[asked["goal"]]
    asked["sticks"] = 0
    name, found = rule["cookie"], np.int64(0)
    if name["length"] != 0:
        first, last = fields.cookie(heard, roads.text, np.int64(name["offset"]), np.int64(name["length"]))
        if first == fields.ODD:
            return np.int64(-STICKY)
        bar = _bar(heard.data, first, last) if first >= 0 else first
        if bar > first and _is_of(heard.data, bar + 1, last, goal["digest"], out):
            size = text.put(out, np.int64(0), heard.data, first, bar)
            if rule["persistent"] == 0:
                found = _balanced(roads, goal, size, out, words)
            elif size == _DIGITS:
                found = _named(roads, goal, out, words)
    if found != 0:
        return found
    found = balancing.pick(way, endpoints, asked)
    if name["length"] == 0 or found == 0 or way.memory.out_ns[found] > asked["now_ns"]:
        return found
    return _given(way, found, asked, out, words)


@kernel
def _bar(data, first, last):
    """Where the first bar is, ``last`` where there is none."""
    while first < last and data[first] != _BAR[0]:
        first += 1
    return first


@kernel
def _is_of(data, first, last, digest, out):
    """Whether ``data[first:last]`` is this digest."""
    end = text.put_hex(out, np.int64(0), digest, _DIGITS)
    return fields.is_same(data, first, last, out, np.int64(0), end)


@part
def _named(roads, goal, out, words):
    """The backend of a Service whose address has the digest ``out[:_DIGITS]``, 0 where none has."""
    at = np.int64(_DIGITS)
    first, last = balancing.endpoints_of(roads, goal)
    for place in range(first, last):
        backend = np.int64(roads.endpoints[place])
        size = balancing.put_address(roads.backends, backend, out, at) - at
        digest = digests.digest(out[at:], size, words)
        end = text.put_hex(out, at, digest, _DIGITS)
        if fields.is_same(out, np.int64(0), at, out, at, end - at):
            return backend
    return np.int64(0)


@part
def _balanced(roads, goal, size, out, words):
    """The backend that scores highest with the key ``out[:size]``, 0 where there is none."""
    found, best = np.int64(0), np.uint64(0)
    at = text.put_all(out, size, _BAR)
    absorbed = digests.absorb(out, at, words)
    first, last = balancing.endpoints_of(roads, goal)
    for place in range(first, last):
        backend = np.int64(roads.endpoints[place])
        score = digests.finish(out, absorbed, balancing.put_address(roads.backends, backend, out, at), words)
        if found == 0 or score > best:
            found, best = backend, score
    return found


@kernel
def _given(way, chosen, asked, out, words):
    """The endpoint of a client that is given a key, of which another one was chosen that is in, and that key."""
    roads, memory = way.roads, way.memory
    rule, goal = roads.rules[asked["rule"]], roads.goals[asked["goal"]]
    now_ns = np.int64(asked["now_ns"])
    asked["sticks"] = 1
    if rule["persistent"] != 0:
        asked["key"] = digests.digest(out, balancing.put_address(roads.backends, chosen, out, np.int64(0)), words)
        return chosen
    for _ in range(KEYS):
        asked["key"] = asked["draw"]
        size = text.put_hex(out, np.int64(0), np.uint64(asked["key"]), _DIGITS)
        found = _balanced(roads, goal, size, out, words)
        if memory.out_ns[found] <= now_ns:
            return found
        asked["draw"] = digests.digest(out, size, words)
    return chosen


@part
def put_cookie(roads, asked, out, at):
    """Write the line that gives a client its key."""
    rule = roads.rules[asked["rule"]]
    name, rest = rule["cookie"], rule["secure_after_key"] if asked["secure"] != 0 else rule["after_key"]
    first, start = np.int64(name["offset"]), np.int64(rest["offset"])
    at = text.put_all(out, at, _SET_COOKIE)
    at = text.put(out, at, roads.text, first, first + np.int64(name["length"]))
    at = text.put_hex(out, text.put_all(out, at, _EQUALS), np.uint64(asked["key"]), _DIGITS)
    at = text.put_hex(out, text.put_all(out, at, _BAR), np.uint64(roads.goals[asked["goal"]]["digest"]), _DIGITS)
    return text.put(out, at, roads.words, start, start + np.int64(rest["length"]))
