"""CORS: which origins a rule shares its answers with, and the fields by which an answer says so.

Law: as ``plane.conduct.Conduct`` has it. What CORS says to any origin alike stands among the fields of the rule; here
is what depends on who asks.
"""

import numpy as np

from kernels.jit import kernel, part
from kernels.layout_routes import CORS, WHOLE
from kernels.net import fields, text

ORIGIN_BYTES = 512  # of an Origin that is repeated to its sender
_ORIGIN = np.frombuffer(b"origin", np.uint8)
_ALLOWS = np.frombuffer(b"Access-Control-Allow-Origin: ", np.uint8)
_HYPHEN, _DEL = 0x2D, 0x7F


@part
def note_origin(roads, heard, asked, rule):
    """Note in a row of ASK which Origin a request has, and whether CORS is for it. 0, or minus a reason to punt."""
    i = fields.find(heard, _ORIGIN, np.int64(0), np.int64(_ORIGIN.size))
    if i == fields.ODD:
        return np.int64(-CORS)
    if i < 0:
        return np.int64(0)
    start = np.int64(heard.head["start"])
    first, last = start + np.int64(heard.lines[i]["value"]), start + np.int64(heard.lines[i]["end"])
    if last - first > ORIGIN_BYTES:
        return np.int64(-CORS)
    for at in range(first, last):
        if heard.data[at] >= _DEL:
            return np.int64(-CORS)
    asked["named"], asked["named_size"] = first, last - first
    row = np.int64(rule["origins"]["first"])
    for each in range(row, row + np.int64(rule["origins"]["count"])):
        if _is_one(roads, roads.pieces[each], heard.data, first, last):
            asked["shares"] = 1
            break
    return np.int64(0)


@kernel
def _is_one(roads, piece, data, first, last):
    """Whether ``data[first:last]`` is an origin that a piece stands for, which has at most one label in its place."""
    offset, size = np.int64(piece["text"]["offset"]), np.int64(piece["text"]["length"])
    if piece["kind"] == WHOLE:
        return fields.is_folded(data, first, last, roads.words, offset, size)
    before = np.int64(piece["kind"]) - 1
    after = size - before - 1
    if last - first <= before + after:
        return False
    for at in range(first + before, last - after):
        byte = fields.lower(data[at])
        if not (0x61 <= byte <= 0x7A or 0x30 <= byte <= 0x39 or byte == _HYPHEN):
            return False
    begins = fields.is_folded(data, first, first + before, roads.words, offset, before)
    return begins and fields.is_folded(data, last - after, last, roads.words, offset + before + 1, after)


@part
def put_fields(roads, data, asked, out, at):
    """Write the fields that every answer of a request's rule gets."""
    rule = roads.rules[asked["rule"]]
    plain, secure = rule["fields"], rule["secure_fields"]
    first = np.int64(plain["offset"])
    if asked["secure"] != 0:  # what is said by HTTPS only stands before the others
        start = np.int64(secure["offset"])
        at = text.put(out, at, roads.words, start, start + np.int64(secure["length"]) - np.int64(plain["length"]))
    if rule["varies"] != 0 and asked["shares"] != 0:
        named, start = np.int64(asked["named"]), np.int64(rule["shared"]["offset"])
        at = text.put_all(out, at, _ALLOWS)
        at = text.end_line(out, text.put(out, at, data, named, named + np.int64(asked["named_size"])))
        at = text.put(out, at, roads.words, start, start + np.int64(rule["shared"]["length"]))
    return text.put(out, at, roads.words, first, first + np.int64(plain["length"]))
