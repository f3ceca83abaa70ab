"""What the head of a request says, line by line: method, target, Host, framing, whether its connection goes on.

Law: as in ``http1``, which calls it. Each returns 0 or one of REASONS.
"""

import numpy as np

from kernels.jit import inner, kernel
from kernels.layout_http import (
    BODILESS,
    CHUNKED,
    DROPPED,
    GET,
    HEAD_METHOD,
    HEARSAY,
    METHODS,
    NAME_RULES,
    NO_CONNECTION,
    NO_HOST,
    NO_METHOD,
    NO_TARGET,
    NO_VERSION,
    OF_CODING,
    OF_CONNECTION,
    OF_DATE,
    OF_HOST,
    OF_LENGTH,
    OF_REQUEST_ID,
    ONCE,
    OPTIONS,
    PASS,
    REFUSE,
    REPEATED,
    SIZED,
    TARGET_BYTES,
    TOO_LONG,
    TWO_ENDS,
    UNUSUAL_BODY,
    freeze,
)
from kernels.net import bodies, octets, text

_PARTS_OF_METHODS = octets.of("".join(f"{name} " for name in METHODS))
_METHOD_ENDS = freeze(np.cumsum([len(name) + 1 for name in METHODS]))


@inner
def take_line(data, at, stop, head):
    """Take the first line of a request. Returns 0 or a reason, as those below do."""
    head["method"] = method_of(data, at, stop)
    if head["method"] == 0:
        return NO_METHOD
    first = at + _METHOD_ENDS[head["method"]] - _METHOD_ENDS[head["method"] - 1]
    last = stop - (octets.VERSION.size - 2)
    if last <= first:
        return NO_TARGET
    if not octets.is_same(data, last, stop, octets.VERSION[: octets.VERSION.size - 2]):
        return NO_VERSION
    if last - first > TARGET_BYTES:
        return TOO_LONG
    if data[first] != octets.SLASH:
        return NO_TARGET
    path_end = last
    for i in range(first, last):
        if not octets.CLASSES[data[i]] & octets.IN_TARGET:
            return NO_TARGET
        if data[i] == octets.QUERY:
            path_end = min(path_end, i)
    head["target"] = first - at
    head["target_size"] = last - first
    head["path_size"] = path_end - first
    return 0


@inner
def method_of(data, at, end):
    """The method that ``data[at:end]`` begins with or, if it is too short for one, may begin with; 0 if none."""
    for method in range(GET, OPTIONS + 1):
        first, size = _METHOD_ENDS[method - 1], _METHOD_ENDS[method] - _METHOD_ENDS[method - 1]
        if octets.is_same(data, at, min(at + size, end), _PARTS_OF_METHODS[first : first + min(size, end - at)]):
            return method
    return 0


@inner
def take_field(data, start, value, end, head, line, row):
    """Do what the rule of a known field says; most of them are written anew."""
    rule, argument = NAME_RULES[row, 0], NAME_RULES[row, 1]
    if rule == REFUSE:
        return argument
    if rule == ONCE:
        repeated = head["once"] & argument
        head["once"] |= argument
        return REPEATED if repeated else 0
    if rule in (PASS, OF_DATE):
        return 0
    line["what"] = DROPPED
    if rule == OF_HOST:
        return _host(data, start, value, end, head)
    if rule == OF_CONNECTION:
        return _connection(data, value, end, head)
    if rule == OF_REQUEST_ID:
        head["request_id"] = value - start
        head["request_id_size"] = end - value
    elif rule == HEARSAY:
        head["told"] += 1
    elif rule in (OF_LENGTH, OF_CODING):
        return bodies.take_framing(data, value, end, head, rule)
    return 0


@kernel
def _host(data, start, value, end, head):
    """Take Host: a name or an IPv4 address, and a port of up to five digits, as ``forwarding.is_authority`` has it."""
    name_end = value
    while name_end < end and octets.CLASSES[data[name_end]] & octets.IN_HOST:
        name_end += 1
    head["hosts"] += 1
    if head["hosts"] > 1 or name_end == value:
        return NO_HOST
    if name_end < end:
        if data[name_end] != octets.COLON or end - name_end > 6:
            return NO_HOST
        for i in range(name_end + 1, end):
            if data[i] < 48 or data[i] > 57:
                return NO_HOST
    head["host"] = value - start
    head["host_size"] = end - value
    return 0


@kernel
def _connection(data, value, end, head):
    """Take a request's Connection, which says one of two things and says it once."""
    head["connections"] += 1
    head["closes"] = octets.is_folded(data, value, end, octets.CLOSE)
    keeps = octets.is_folded(data, value, end, octets.KEEP_ALIVE)
    return 0 if head["connections"] == 1 and (head["closes"] or keeps) else NO_CONNECTION


@inner
def conclude(data, head):
    """What the fields of a request come to."""
    if head["hosts"] != 1:
        return NO_HOST
    if head["lengths"] and head["codings"]:
        return TWO_ENDS
    head["framing"] = CHUNKED if head["codings"] else SIZED if head["length"] > 0 else BODILESS
    bodiless = head["method"] == GET or head["method"] == HEAD_METHOD or head["method"] == OPTIONS
    if bodiless and head["framing"] != BODILESS:
        return UNUSUAL_BODY
    head["keep_alive"] = not head["closes"]
    return 0


@kernel
def request_number(data, head):
    """The uint64 that a request's X-Request-ID of 16 hex digits is, 0 for any other."""
    number = np.uint64(0)
    if head["request_id_size"] != 16:
        return number
    for i in range(16):
        digit = text.hex_value(data[head["start"] + head["request_id"] + i])
        if digit < 0:
            return np.uint64(0)
        number = number << np.uint64(4) | np.uint64(digit)
    return number
