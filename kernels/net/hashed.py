"""The endpoint that equal requests have: ``plane.ingress.policed`` where a route says ``hash_by``, compiled.

Law: what requests have in common is the text that a rule's pieces come to, byte by byte that of ``hash_key``, and
its endpoint the one that scores highest with it (``plane.affinity``). What takes more than comparing bytes, as a field
that comes twice does, is punted.
"""

import numpy as np

from kernels.jit import kernel, part
from kernels.layout_routes import ARG, ARGS, COOKIE, FIELD, REMOTE_ADDR, REQUEST_METHOD, STICKY, URI
from kernels.lb.hashing import reduce
from kernels.net import balancing, digests, fields, text, variables

_AND, _EQUALS = 0x26, 0x3D
_ADDRESS_BYTES = 21  # at most, with a port
_BAR = np.frombuffer(b"|", np.uint8)


@part
def pick(way, heard, asked, out, words):
    """The backend id of the endpoint for a request, int64, 0 for none; a reason to punt, negative.

    Of ``asked``, a row of ASK, all that is asked counts, and the goal. ``out`` and ``words`` are room to work in.
    """
    roads, memory = way.roads, way.memory
    rule, goal = roads.rules[asked["rule"]], roads.goals[asked["goal"]]
    first, last = balancing.endpoints_of(roads, goal)
    there = roads.endpoints[first:last]
    size = text.put_all(out, _put_key(roads, rule, heard, asked, out), _BAR)
    if size < 0 or size + _ADDRESS_BYTES > out.size or there.size < goal["endpoints"]:
        return np.int64(-STICKY)
    fit, as_of_ns = balancing.count_fit(memory, there, np.int64(asked["now_ns"]))
    sharing = min(max(np.int64(rule["subset"]), np.int64(1)), fit)
    absorbed = digests.absorb(out, size, words)
    found, highest = np.int64(0), np.uint64(0)
    for turn in range(reduce(np.uint64(asked["draw"]), sharing) + 1):
        found, below = np.int64(0), highest
        for place in range(there.size):
            backend = np.int64(there[place])
            if not balancing.is_in(memory, backend, as_of_ns):
                continue
            score = digests.finish(out, absorbed, balancing.put_address(roads.backends, backend, out, size), words)
            if (turn == 0 or score < below) and (found == 0 or score > highest):
                found, highest = backend, score
    return found


@kernel
def _put_key(roads, rule, heard, asked, out):
    """Write what a request has in common with those that go where it goes. Its size, -1: it cannot be said here."""
    at, first = np.int64(0), np.int64(rule["hashed"]["first"])
    for row in range(first, first + np.int64(rule["hashed"]["count"])):
        piece = roads.pieces[row]
        if piece["kind"] < URI:
            at = variables.put(roads.words, piece, heard.data, asked, out, at)
        else:
            begin, end = _value(roads.words, piece, heard, asked)
            if piece["kind"] == REMOTE_ADDR:
                at = text.put_ip(out, at, np.int64(asked["client"]))
            elif begin == fields.ODD:
                return np.int64(-1)
            elif begin >= 0:
                at = text.put(out, at, heard.data, begin, end)
    return at


@kernel
def _value(words, piece, heard, asked):
    """Where a variable's value is in the request: (first, last). The first is negative where it has none, or ODD."""
    kind, offset, size = piece["kind"], np.int64(piece["text"]["offset"]), np.int64(piece["text"]["length"])
    uri, path_end = np.int64(asked["uri"]), np.int64(asked["uri"]) + np.int64(asked["path_size"])
    end = uri + np.int64(asked["uri_size"])
    if kind == URI:
        return uri, path_end
    if kind == ARGS:
        return min(path_end + 1, end), end
    if kind == ARG:
        return _argument(words, heard.data, min(path_end + 1, end), end, offset, size)
    start = np.int64(heard.head["start"])
    if kind == REQUEST_METHOD:
        return start, start + np.int64(heard.head["target"]) - 1
    if kind == COOKIE:
        return fields.cookie(heard, words, offset, size)
    if kind == FIELD:
        i = fields.find(heard, words, offset, size)
        if i >= 0:
            return start + np.int64(heard.lines[i]["value"]), start + np.int64(heard.lines[i]["end"])
        return i, start
    return fields.NONE, start


@kernel
def _argument(words, data, at, end, offset, size):
    """Where the value of the first argument of this name, in whatever case, is: (first, last)."""
    while at < end:
        last = fields.place(data, at, end, _AND)
        equals = fields.place(data, at, last, _EQUALS)
        if fields.is_folded(data, at, equals, words, offset, size):
            return min(equals + 1, last), last
        at = last + 1
    return fields.NONE, at
