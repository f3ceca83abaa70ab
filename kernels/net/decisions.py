"""What becomes of a request whose road is known: what its rule says, to which goal it goes, or an answer of our own.

    hostpath.find ─► road ─► decide ─► GO: goal ─► balancing.pick ─► endpoint
                      │ 0      │ ANSWER: reply ─► write_answer
                      └────────┴── negative: a reason to punt

Law: what is said here is what ``plane.conduct`` and ``plane.ingress.table`` say, byte by byte, or it is a punt. Nothing
here knows sockets. Each index that follows from what was sent stands beside its check.
"""

import numpy as np

from kernels.jit import kernel
from kernels.layout_http import DROPPED
from kernels.layout_limits import COUNTED, LET_IN, OVER_MINUTE, OVER_SECOND
from kernels.layout_routes import (
    ANSWER,
    BODY,
    CANARY_BY_REQUEST,
    DENIED,
    GO,
    NO_RULE,
    NOT_ALLOWED,
    REWRITE,
)
from kernels.net import canaries, fields, limits, rewrites, sharing, text, variables

_T, _E = 0x74, 0x65
# A Python integer would be a type of its own to the compiler, each.
_NO_RULE, _NOT_ALLOWED, _DENIED = map(np.uint32, (NO_RULE, NOT_ALLOWED, DENIED))


@kernel
def decide(roads, tallies, heard, asked, row):
    """GO, ANSWER, or a reason to punt, negative, for a request that ``find`` gave ``row``; ``asked`` says the rest.

    ``asked`` is a row of ASK, of which all that is asked is filled; what was decided is written to it. A request that
    its limit has let in is one of those in ``tallies``, also where it is answered or punted.
    """
    asked["goal"], asked["origin"], asked["rule"], asked["reply"] = 0, 0, 0, 0
    asked["limit"], asked["counted"], asked["shares"] = 0, 0, 0
    if row <= 0 or row >= roads.roads.size:
        return _answer(roads, asked, _NO_RULE)
    road = roads.roads[row]
    asked["goal"], asked["origin"], asked["rule"] = road["goal"], road["origin"], road["rule"]
    if road["rule"] != 0:
        said = _comply(roads, tallies, heard, asked, roads.rules[road["rule"]])
        if said != GO:
            return said
    if road["fork"] != 0:
        fork = roads.forks[road["fork"]]
        keeps = roads.rules[road["rule"]]["cookie"]["length"] != 0 and fork["forgetful"] == 0
        if keeps and fork["total"] != 0:
            return np.int64(-CANARY_BY_REQUEST)
        took = canaries.takes(roads, heard, fork, asked["draw"])
        if took < 0:
            return took
        if took != 0:
            asked["goal"], asked["origin"] = fork["goal"], fork["origin"]
    if asked["goal"] == 0:
        return _answer(roads, asked, _NO_RULE)
    goal = roads.goals[asked["goal"]]
    if goal["punt"] != 0:
        return -np.int64(goal["punt"])
    return _answer(roads, asked, goal["reply"]) if goal["endpoints"] == 0 else np.int64(GO)


@kernel
def _answer(roads, asked, reply):
    asked["reply"] = reply
    asked["status"] = roads.replies[reply]["status"]
    return np.int64(ANSWER)


@kernel
def _comply(roads, tallies, heard, asked, rule):
    """What a rule says of a request, in the order of ``plane.conduct``: GO where it has no objection."""
    if rule["punt"] != 0:
        return -np.int64(rule["punt"])
    if rule["varies"] != 0:
        said = sharing.note_origin(roads, heard, asked, rule)
        if said != 0:
            return said
    if rule["body_limit"] != 0 and (asked["length"] < 0 or np.uint64(asked["length"]) > rule["body_limit"]):
        return np.int64(-BODY)
    if rule["preflight"] != 0 and asked["options"] != 0 and (rule["varies"] == 0 or asked["shares"] != 0):
        return _answer(roads, asked, rule["preflight"])
    if rule["answer"] != 0:
        return _answer(roads, asked, rule["answer"])
    if rule["https"] != 0 and asked["secure"] == 0:
        return _answer(roads, asked, rule["https"])
    if rule["rewrite"]["count"] != 0:
        path, size = np.int64(asked["uri"]), np.int64(asked["path_size"])
        if not rewrites.is_clear(roads, rule, heard.data, path, size):
            return np.int64(-REWRITE)
    if rule["limit"]["key"] != 0 and not _holds(roads, rule["unlimited"], asked["client"]):
        over = _limited(roads, tallies, asked, rule)
        if over != 0:
            return _answer(roads, asked, over)
    if _holds(roads, rule["denied"], asked["client"]):
        return _answer(roads, asked, _DENIED)
    if rule["allowed"]["count"] != 0 and not _holds(roads, rule["allowed"], asked["client"]):
        return _answer(roads, asked, _NOT_ALLOWED)
    return np.int64(GO)


@kernel
def _limited(roads, tallies, asked, rule):
    """The reply to who has used up a limit, 0 to whom it lets in."""
    said = limits.enter(tallies, rule["limit"], np.uint64(asked["client"]), np.int64(asked["now_ns"]))
    if said in (LET_IN, COUNTED):
        asked["limit"], asked["counted"] = rule["limit"]["key"], said == COUNTED
        return np.uint32(0)
    if said == OVER_SECOND:
        return rule["over_second"]
    return rule["over_minute"] if said == OVER_MINUTE else rule["over_at_once"]


@kernel
def _holds(roads, run, client):
    """Whether an address is in one of these networks."""
    for row in range(np.int64(run["first"]), np.int64(run["first"]) + np.int64(run["count"])):
        if client & roads.networks[row]["mask"] == roads.networks[row]["ip"]:
            return True
    return False


@kernel
def drop_replaced(roads, rule, data, head, lines):
    """Drops those fields of a scanned answer that a rule has its own for, or that it does not let through.

    ``head`` and ``lines`` are those of ``http1.scan_response``; what is in their place are the bytes of the rule's
    ``fields``. TE stays, as in ``plane.ingress.forwarding.without``.
    """
    first, start = np.int64(rule["replaced"]["first"]), np.int64(head["start"])
    for row in range(first, min(first + np.int64(rule["replaced"]["count"]), roads.names.size)):
        for i in range(head["lines"]):
            name = start + lines[i]["start"]
            if _is_field(roads, roads.names[row], data, name, start + lines[i]["name_end"] - name):
                lines[i]["what"] = DROPPED


@kernel
def _is_field(roads, word, data, start, size):
    """Whether a field has this name, which is in lower case and not that of TE."""
    offset = np.int64(word["offset"])
    if word["length"] != size or offset + size > roads.words.size or start + size > data.size:
        return False
    if size == 2 and roads.words[offset] == _T and roads.words[offset + 1] == _E:
        return False
    for i in range(size):  # noqa: SIM110  # as above
        if roads.words[offset + i] != fields.lower(data[start + i]):
            return False
    return True


# Answers of the plane's own


@kernel
def write_answer(roads, data, asked, date, keep_alive, out):
    """The whole answer that ``decide`` meant, into ``out``: how many bytes, or -1 where there is no room.

    ``date`` is a line of Date without its end; ``data`` holds the request as ``asked`` says. Equal to what
    ``plane.ingress.forwarding.own_message`` and ``Http1.answer`` make of it.
    """
    reply, rule = roads.replies[asked["reply"]], roads.rules[asked["rule"]]
    bodiless = reply["status"] == _NO_CONTENT
    at = _put_word(roads, reply["head"], out, 0)
    at = text.put_all(out, at, date)
    at = text.end_line(out, at)
    if rule["typed"] == 0 and not bodiless:
        at = text.put_all(out, at, _CONTENT_TYPE)
    place, size = np.int64(0), np.int64(0)
    if reply["secures"] != 0 or reply["location"]["count"] != 0:
        at = text.put_all(out, at, _LOCATION)
        place = at
        at = _put_location(roads, reply, data, asked, out, at)
        size = at - place
        at = text.end_line(out, at)
    if rule["typed"] == 0 or not bodiless:  # all that one without a body says is its type
        at = _put_word(roads, reply["fields"], out, at)
    at = sharing.put_fields(roads, data, asked, out, at)
    body = np.int64(reply["body"]["length"])
    if not bodiless:
        at = text.put_all(out, at, _CONTENT_LENGTH)
        at = text.put_decimal(out, at, body + size + 1 if size != 0 else body)
        at = text.end_line(out, at)
    if keep_alive == 0:
        at = text.put_all(out, at, _CLOSE)
    at = text.end_line(out, at)
    if asked["bodiless"] == 0:
        at = _put_word(roads, reply["body"], out, at)
        if size != 0:
            at = text.put(out, at, out, place, place + size)
            at = text.put_all(out, at, _NEW_LINE)
    return at


def _bytes(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


_NEW_LINE = _bytes(b"\n")
_CONTENT_TYPE = _bytes(b"Content-Type: text/plain; charset=utf-8\r\n")
_LOCATION, _CONTENT_LENGTH = _bytes(b"Location: "), _bytes(b"Content-Length: ")
_CLOSE = _bytes(b"Connection: close\r\n")
_SECURE = _bytes(b"https://")
_HTTPS_PORT, _NO_CONTENT = 443, 204
_PORT = _bytes(b":")


@kernel
def _put_location(roads, reply, data, asked, out, at):
    host, host_size = np.int64(asked["host"]), np.int64(asked["host_size"])
    uri, uri_size = np.int64(asked["uri"]), np.int64(asked["uri_size"])
    if reply["secures"] != 0:
        name_size = variables.name_size(data, host, host_size)
        trimmed = variables.trimmed(data, uri, uri_size)
        at = text.put_all(out, at, _SECURE)
        at = text.put(out, at, data, host, host + name_size)
        if name_size != host_size and asked["https_port"] not in (0, _HTTPS_PORT):
            at = text.put_all(out, at, _PORT)
            at = text.put_decimal(out, at, np.int64(asked["https_port"]))
        return text.put(out, at, data, uri, uri + (uri_size if reply["keep_slash"] != 0 else trimmed))
    first = np.int64(reply["location"]["first"])
    for row in range(first, first + np.int64(reply["location"]["count"])):
        at = variables.put(roads.words, roads.pieces[row], data, asked, out, at)
    return at


@kernel
def _put_word(roads, word, out, at):
    first = np.int64(word["offset"])
    return text.put(out, at, roads.words, first, first + np.int64(word["length"]))
