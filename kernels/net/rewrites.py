"""What a path becomes on its way to the endpoint, where a rule rewrites it: ``plane.conduct.Conduct.upstream``.

Law: an expression of the plain kind is a text that a path begins with, and one of TAILS; so what its groups matched is
two places in the path, and no part of a path is looked at twice.
"""

import numpy as np

from kernels.jit import kernel, part
from kernels.layout_routes import (
    ANYTHING,
    FROM_SLASH,
    GROUP_1,
    GROUP_2,
    PAST_SLASH,
    REST,
    SLASH,
    SLASH_REST,
    TEXT,
)
from kernels.net import fields, text

_SLASH = 0x2F
_ROOT = np.frombuffer(b"/", np.uint8)


@kernel
def _rest(roads, rule, data, path, size):
    """Where what follows a rule's text begins, for a path ``data[path : path + size]``; -1 where it does not match."""
    word, tail = rule["matched"], rule["tail"]
    length = np.int64(word["length"])
    rest, end, first = path + length, path + size, np.int64(word["offset"])
    if size < length:
        return np.int64(-1)
    if rule["folded"] != 0:
        begins = fields.is_folded(data, path, rest, roads.words, first, length)
    else:
        begins = fields.is_same(data, path, rest, roads.words, first, length)
    if not begins:
        return np.int64(-1)
    if tail in (ANYTHING, REST, PAST_SLASH):
        return rest
    if rest < end and data[rest] == _SLASH:
        return rest
    return rest if rest == end and tail != FROM_SLASH else np.int64(-1)


@part
def is_clear(roads, rule, data, path, size):
    """Whether it is known here what becomes of a path: also nothing, where a path must begin with the expression."""
    return rule["anchored"] != 0 or _rest(roads, rule, data, path, size) >= 0


@part
def put_target(roads, rule, data, head, out):
    """Write what an endpoint is asked for in the place of a request's target: its size, 0: that stays; -1: no room."""
    path = np.int64(head["start"]) + np.int64(head["target"])
    size, tail = np.int64(head["path_size"]), rule["tail"]
    rest, end = _rest(roads, rule, data, path, size), path + size
    if rest < 0:
        return np.int64(0)
    past = rest + 1 if rest < end and data[rest] == _SLASH else rest
    first, second, second_end = rest, end, end  # of $1 and $2, and where $2 ends
    first_end = end
    if tail == ANYTHING:
        first = end
    elif tail in (SLASH, SLASH_REST):
        first_end = past
    elif tail == PAST_SLASH:
        first = past
    if tail == SLASH_REST:
        second = past
    at = np.int64(0)
    row = np.int64(rule["rewrite"]["first"])
    for each in range(row, row + np.int64(rule["rewrite"]["count"])):
        piece = roads.pieces[each]
        if piece["kind"] == TEXT:
            offset = np.int64(piece["text"]["offset"])
            at = text.put(out, at, roads.words, offset, offset + np.int64(piece["text"]["length"]))
        elif piece["kind"] == GROUP_1:
            at = text.put(out, at, data, first, first_end)
        elif piece["kind"] == GROUP_2:
            at = text.put(out, at, data, second, second_end)
    if at == 0 or (at > 0 and out[0] != _SLASH):
        moved = text.put(out, np.int64(1), out, np.int64(0), at)
        text.put_all(out, np.int64(0), _ROOT)
        at = moved
    return text.put(out, at, data, end, path + np.int64(head["target_size"]))
