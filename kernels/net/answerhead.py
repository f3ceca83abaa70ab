"""What the head of an answer says, line by line: status, phrase, framing, whether its connection goes on.

Law: as in ``http1``, which calls it. Each returns 0 or one of REASONS.
"""

import numpy as np

from kernels.jit import inner, kernel
from kernels.layout_http import (
    BODILESS,
    CHUNKED,
    DROPPED,
    HEAD_METHOD,
    NAME_RULES,
    NO_CONNECTION,
    NO_LENGTH,
    NO_STATUS,
    OF_CODING,
    OF_CONNECTION,
    OF_DATE,
    OF_LENGTH,
    OF_PROXY,
    OF_SERVER,
    PASS,
    SIZED,
    TWO_ENDS,
    UNTIL_CLOSE,
)
from kernels.net import bodies, octets

_STATUS_LINE = octets.of("HTTP/1.")


@inner
def take_line(data, at, stop, head):
    """Take the first line of an answer: a version, three digits and a phrase, which may be missing."""
    digits = at + _STATUS_LINE.size + 2
    if stop - digits < 3 or not octets.is_same(data, at, at + _STATUS_LINE.size, _STATUS_LINE):
        return NO_STATUS
    minor = np.int64(data[digits - 2]) - 48
    if minor < 0 or minor > 1 or data[digits - 1] != octets.SPACE:
        return NO_STATUS
    status = octets.decimal(data, digits, digits + 3, 3)
    if status < 100 or (stop > digits + 3 and data[digits + 3] != octets.SPACE):
        return NO_STATUS
    head["version10"] = minor == 0
    head["status"] = status
    head["reason"] = min(digits + 4, stop) - at
    head["reason_size"] = stop - min(digits + 4, stop)
    return 0


@inner
def take_field(data, value, end, head, line, rule):
    """Do what the rule of a known field says; those of framing and of the connection are written anew."""
    if rule == OF_DATE:
        head["dated"] = 1
    elif rule == OF_SERVER:
        head["served"] = 1
    elif rule != PASS:
        line["what"] = DROPPED
        if rule in (OF_LENGTH, OF_CODING):
            return bodies.take_framing(data, value, end, head, rule)
        if rule == OF_CONNECTION:
            _note_tokens(data, value, end, head)
        elif rule == OF_PROXY:
            head["closes"] = 1  # whatever it says, nothing is sent after it
    return 0


@kernel
def _note_tokens(data, value, end, head):
    """Take an answer's Connection."""
    while value < end:
        first, last, value = octets.member(data, value, end)
        if octets.is_folded(data, first, last, octets.CLOSE):
            head["closes"] = 1
        elif octets.is_folded(data, first, last, octets.KEEP_ALIVE):
            head["keeps"] = 1
        elif last > first:
            head["names_others"] = 1


@inner
def conclude(data, head, lines, method):
    """What the fields of an answer come to."""
    if head["lengths"] and head["codings"]:
        return TWO_ENDS
    interim = head["status"] < 200
    if interim and (head["length"] > 0 or head["codings"]):
        return NO_LENGTH
    if interim or head["status"] == 204 or head["status"] == 304 or method == HEAD_METHOD:
        head["framing"] = BODILESS
    elif head["codings"]:
        head["framing"] = CHUNKED
    else:
        head["framing"] = SIZED if head["lengths"] else UNTIL_CLOSE
    kept = head["keeps"] or not head["version10"]
    head["keep_alive"] = kept and not head["closes"] and head["framing"] != UNTIL_CLOSE
    framed = head["codings"] != 0 or head["length"] > 0
    if (head["status"] == 204 and framed) or (head["version10"] and head["codings"]):
        head["keep_alive"] = 0  # RFC 9110, 8.6, and RFC 9112, 6.1: who frames it so may go on otherwise too
    if interim and not head["keep_alive"]:
        return NO_CONNECTION
    if head["names_others"]:
        _drop_named(data, head, lines)
    return 0


@kernel
def _drop_named(data, head, lines):
    """Drop the fields that Connection names, but TE: they were meant for us."""
    start = np.int64(head["start"])
    for i in range(head["lines"]):
        at, value, end = start + lines[i]["start"], start + lines[i]["value"], start + lines[i]["end"]
        row = octets.name_row(data, at, start + lines[i]["name_end"])
        if row == 0 or NAME_RULES[row, 2] != OF_CONNECTION:
            continue
        while value < end:
            first, last, value = octets.member(data, value, end)
            if last > first:
                _drop(data, head, lines, first, last)


@kernel
def _drop(data, head, lines, first, last):
    """Drop the fields with the name ``data[first:last]``."""
    start = np.int64(head["start"])
    te = last - first == 2 and data[first] | 0x20 == 116 and data[first + 1] | 0x20 == 101
    for i in range(head["lines"]):
        at = start + lines[i]["start"]
        same = not te and start + lines[i]["name_end"] - at == last - first
        for j in range(last - first if same else 0):
            same &= _lower(data[at + j]) == _lower(data[first + j])
        if same:
            lines[i]["what"] = DROPPED


@kernel
def _lower(byte):
    return byte | 0x20 if 65 <= byte <= 90 else byte
