"""HTTP/1.1 on bytes: heads scanned and written anew, and bodies followed to their end.

Law: no sockets and no state but in the rows that are passed in. What is taken of a request is a strict subset of what
llhttp takes, framed as llhttp frames it; for the rest there is a reason (``layout_http.REASONS``), and all of HTTP is
spoken elsewhere. What is written of a head is, byte for byte, what ``plane.ingress.forwarding`` makes of it. Nothing is
read at or behind ``end``, and every index that comes from the bytes stands beside its check against it.

A head is scanned line by line, and once: where it is not whole yet its row says where to go on, so that a client that
sends byte by byte costs no more than its bytes; what is wrong with it is said as soon as the line is there.
"""

import numpy as np

from kernels.jit import kernel, part
from kernels.layout_http import (
    BODILESS,
    BODY,
    CANONICAL,
    CHUNK,
    CHUNK_DIGITS,
    CHUNK_END,
    CHUNK_SIZE,
    CHUNKED,
    CONTROL,
    COUNTED,
    DONE,
    DROPPED,
    ENDLESS,
    EXTENSION,
    GET,
    GOES_ON,
    HEAD,
    HEAD_BYTES,
    HEAD_METHOD,
    HEARSAY,
    IN_CHUNK,
    IN_TRAILERS,
    LENGTH_DIGITS,
    LINE,
    LINE_BYTES,
    LINE_END,
    LINES,
    METHODS,
    MORE,
    NAME_BYTES,
    NAME_MULTIPLIER,
    NAME_RULES,
    NAME_SIZES,
    NAME_SLOTS,
    NAMES,
    NO_CODING,
    NO_CONNECTION,
    NO_HOST,
    NO_LENGTH,
    NO_METHOD,
    NO_NAME,
    NO_STATUS,
    NO_TARGET,
    NO_VERSION,
    OF_CODING,
    OF_CONNECTION,
    OF_DATE,
    OF_HOST,
    OF_LENGTH,
    OF_PROXY,
    OF_REQUEST_ID,
    OF_SERVER,
    ONCE,
    OPTIONS,
    OVER,
    PASS,
    REFUSE,
    REPEATED,
    SIZED,
    SKIPPED,
    SLOTS_OF_NAMES,
    TARGET_BYTES,
    TOO_LONG,
    TOO_MANY,
    TRAILER,
    TRAILER_BYTES,
    TWO_ENDS,
    UNTIL_CLOSE,
    UNUSUAL_BODY,
    freeze,
)
from kernels.net import text

_CR, _LF, _SPACE, _TAB, _COLON, _SLASH, _HASH, _QUERY = 13, 10, 32, 9, 58, 47, 35, 63
_SEMICOLON, _EQUALS, _QUOTE, _BACKSLASH, _COMMA, _DEL = 59, 61, 34, 92, 44, 127


def _bytes(said: str) -> np.ndarray:
    return freeze(np.frombuffer(said.encode("ascii"), np.uint8).copy())


def _classes() -> np.ndarray:
    """uint8[256]: which of the sets below a byte is in."""
    classes = np.zeros(256, np.uint8)
    alphanumeric = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    classes[list(alphanumeric + b"!#$%&'*+-.^_`|~")] |= _TOKEN
    classes[list(alphanumeric + b"-._")] |= _IN_HOST
    classes[[*range(0x21, _HASH), *range(_HASH + 1, _DEL)]] |= _IN_TARGET
    return freeze(classes)


_TOKEN, _IN_HOST, _IN_TARGET = 1, 2, 4
_CLASSES = _classes()
_PARTS_OF_METHODS = _bytes("".join(f"{name} " for name in METHODS))
_METHOD_ENDS = freeze(np.cumsum([len(name) + 1 for name in METHODS]))
_VERSION = _bytes(" HTTP/1.1\r\n")
_ANSWERED = _bytes("HTTP/1.1 ")
_BLANK = _bytes(" ")
_SAYS = _bytes(": ")
_STATUS_LINE = _bytes("HTTP/1.")
_CHUNKED = _bytes("chunked")
_CLOSE = _bytes("close")
_KEEP_ALIVE = _bytes("keep-alive")
_HOST_FIELD = _bytes("Host: ")
_FORWARDED_HOST_FIELD = _bytes("X-Forwarded-Host: ")
_REQUEST_ID_FIELD = _bytes("X-Request-ID: ")
_LENGTH_FIELD = _bytes("Content-Length: ")
_CHUNKED_FIELD = _bytes("Transfer-Encoding: chunked\r\n")
_CLOSE_FIELD = _bytes("Connection: close\r\n")


def create_heads(count: int) -> np.ndarray:
    """HEAD[count], of which nothing has been looked at."""
    return np.zeros(count, HEAD)


def create_lines() -> np.ndarray:
    """LINE[LINES]: room for the fields of one head; all heads of a thread may share it, see ``scan_request``."""
    return np.zeros(LINES, LINE)


def create_bodies(count: int) -> np.ndarray:
    """BODY[count], all over."""
    return np.zeros(count, BODY)


@kernel
def begin(head):
    """Forget a head that was not whole: the next scan begins anew, as it does by itself after any answer but 0."""
    head["at"] = 0
    head["looked"] = 0


@kernel
def scan_request(data, start, end, head, lines):
    """Scan the head of the request that begins at ``data[start]``.

    data   uint8[], of which ``data[start:end]`` is here
    head   row of HEAD, which must be the request's own until its head is whole; ``begin`` it for a new connection
    lines  LINE[LINES]: good after an answer above 0 until another head is scanned with it

    Returns (int64) the size of the head, 0 where more bytes are wanted, or minus one of REASONS: it goes the slow way,
    with all bytes from ``start`` on. Call it again after 0 with the same bytes, and more; they may have been moved.
    """
    return _scan(data, start, end, head, lines, True, 0)


@kernel
def scan_response(data, start, end, head, lines, method):
    """Scan the head of the answer that begins at ``data[start]``, to a request with ``method``; else as scan_request.

    What is refused is no answer in HTTP/1.1 or 1.0, and the connection is to be closed. An answer with a status of 1xx
    is BODILESS and another one follows it; whether 101 was asked for is for the caller to know.
    """
    return _scan(data, start, end, head, lines, False, method)


@kernel
def _scan(data, start, end, head, lines, asks, method):
    resumed = head["looked"] > 0
    if not resumed:
        _clear(head)
    head["start"] = start
    size = _scan_lines(data, start, end, head, lines, asks, method)
    while size > 0 and resumed:  # other heads may have used the lines meanwhile
        resumed = False
        _clear(head)
        size = _scan_lines(data, start, end, head, lines, asks, method)
    if size != 0:
        begin(head)
    return size


@kernel
def _clear(head):
    head["length"] = -1
    head["size"] = head["at"] = head["looked"] = 0
    head["target"] = head["target_size"] = head["path_size"] = 0
    head["host"] = head["host_size"] = 0
    head["request_id"] = head["request_id_size"] = 0
    head["reason"] = head["reason_size"] = 0
    head["once"] = head["status"] = head["lines"] = 0
    head["method"] = head["framing"] = head["keep_alive"] = head["version10"] = 0
    head["told"] = head["dated"] = head["served"] = 0
    head["hosts"] = head["lengths"] = head["codings"] = head["connections"] = 0
    head["closes"] = head["keeps"] = head["names_others"] = 0


@kernel
def _scan_lines(data, start, end, head, lines, asks, method):
    """Scan from where the head was left to its end. Answers as scan_request does."""
    at = start + np.int64(head["at"])
    looked = start + np.int64(head["looked"])
    while True:
        stop = _text_end(data, max(at, looked), end)
        if stop < end and data[stop] != _CR:
            return np.int64(-_not_text(data[stop]))
        if min(stop + 2, end) - start > HEAD_BYTES:
            return np.int64(-TOO_LONG)
        if stop + 1 >= end:
            head["at"] = at - start
            head["looked"] = stop - start
            if at == start and asks and stop > start and _method(data, start, stop) == 0:
                return np.int64(-NO_METHOD)
            return np.int64(0)
        if data[stop + 1] != _LF:
            return np.int64(-LINE_END)
        if at == start:
            why = _request_line(data, at, stop, head) if asks else _status_line(data, at, stop, head)
        elif at == stop:
            head["size"] = stop + 2 - start
            why = _request_end(data, head) if asks else _answer_end(data, head, lines, method)
            return np.int64(-why) if why else np.int64(head["size"])
        else:
            why = _field(data, start, at, stop, head, lines, asks)
        if why:
            return np.int64(-why)
        at = stop + 2


@kernel
def _text_end(data, at, end):
    """Where the first byte is that may not be within a line (all controls but tab), ``end`` if there is none."""
    while at < end:
        byte = data[at]
        if (byte < _SPACE and byte != _TAB) or byte == _DEL:
            break
        at += 1
    return at


@kernel
def _not_text(byte):
    """Why a byte may not be where it is, within a line."""
    return LINE_END if byte == _LF else CONTROL


@kernel
def _method(data, at, end):
    """The method that ``data[at:end]`` begins with or, if it is too short for one, may begin with; 0 if none."""
    for method in range(GET, OPTIONS + 1):
        first, size = _METHOD_ENDS[method - 1], _METHOD_ENDS[method] - _METHOD_ENDS[method - 1]
        if _is(data, at, min(at + size, end), _PARTS_OF_METHODS[first : first + min(size, end - at)]):
            return method
    return 0


@kernel
def _is(data, at, end, word):
    """Whether ``data[at:end]`` is this word."""
    same = end - at == word.size
    for i in range(word.size if same else 0):
        same &= data[at + i] == word[i]
    return same


@kernel
def _is_folded(data, at, end, word):
    """Whether it is this word, of lower-case letters and hyphens, in any case."""
    same = end - at == word.size
    for i in range(word.size if same else 0):
        same &= data[at + i] | 0x20 == word[i]
    return same


@kernel
def _request_line(data, at, stop, head):
    """Take the first line of a request. Returns 0 or a reason, as those below do."""
    head["method"] = _method(data, at, stop)
    if head["method"] == 0:
        return NO_METHOD
    first = at + _METHOD_ENDS[head["method"]] - _METHOD_ENDS[head["method"] - 1]
    last = stop - (_VERSION.size - 2)
    if last <= first:
        return NO_TARGET
    if not _is(data, last, stop, _VERSION[: _VERSION.size - 2]):
        return NO_VERSION
    if last - first > TARGET_BYTES:
        return TOO_LONG
    if data[first] != _SLASH:
        return NO_TARGET
    path_end = last
    for i in range(first, last):
        if not _CLASSES[data[i]] & _IN_TARGET:
            return NO_TARGET
        if data[i] == _QUERY:
            path_end = min(path_end, i)
    head["target"] = first - at
    head["target_size"] = last - first
    head["path_size"] = path_end - first
    return 0


@kernel
def _status_line(data, at, stop, head):
    """Take the first line of an answer: a version, three digits and a phrase, which may be missing."""
    digits = at + _STATUS_LINE.size + 2
    if stop - digits < 3 or not _is(data, at, at + _STATUS_LINE.size, _STATUS_LINE):
        return NO_STATUS
    minor = np.int64(data[digits - 2]) - 48
    if minor < 0 or minor > 1 or data[digits - 1] != _SPACE:
        return NO_STATUS
    status = _number(data, digits, digits + 3, 3)
    if status < 100 or (stop > digits + 3 and data[digits + 3] != _SPACE):
        return NO_STATUS
    head["version10"] = minor == 0
    head["status"] = status
    head["reason"] = min(digits + 4, stop) - at
    head["reason_size"] = stop - min(digits + 4, stop)
    return 0


@kernel
def _number(data, at, end, digits):
    """The decimal number that ``data[at:end]`` is; -1 where it is none, or has more than so many digits."""
    if at >= end:
        return np.int64(-1)
    while at < end - 1 and data[at] == 48:
        at += 1
    if end - at > digits:
        return np.int64(-1)
    number = np.int64(0)
    for i in range(at, end):
        digit = np.int64(data[i]) - 48
        if digit < 0 or digit > 9:
            return np.int64(-1)
        number = 10 * number + digit
    return number


@kernel
def _field(data, start, at, stop, head, lines, asks):
    """Take a field line."""
    name_end = at
    underscore = False
    while name_end < stop and _CLASSES[data[name_end]] & _TOKEN:
        underscore |= data[name_end] == 95
        name_end += 1
    if name_end in (at, stop) or data[name_end] != _COLON:
        return NO_NAME
    value, value_end = name_end + 1, stop
    while value < stop and _is_blank(data[value]):
        value += 1
    while asks and value_end > value and _is_blank(data[value_end - 1]):  # of an answer they go on, as in the slow way
        value_end -= 1
    if head["lines"] >= min(LINES, lines.size):
        return TOO_MANY
    line = lines[head["lines"]]
    line["start"] = at - start
    line["name_end"] = name_end - start
    line["value"] = value - start
    line["end"] = value_end - start
    line["what"] = DROPPED if asks and underscore else GOES_ON
    head["lines"] += 1
    row = _name(data, at, name_end)
    if row == 0:
        return 0
    if asks:
        return _request_field(data, start, value, value_end, head, line, row)
    return _answer_field(data, value, value_end, head, line, NAME_RULES[row, 2])


@kernel
def _is_blank(byte):
    return byte in (_SPACE, _TAB)


@kernel
def _name(data, at, end):
    """The row of NAMES that a field's name, which is not empty, has in any case; 0 for none."""
    size = end - at
    if size < 2 or size > NAME_BYTES:
        return 0
    key = size * 65536 + (np.int64(data[at + size // 2]) | 0x20) * 256 + (np.int64(data[end - 2]) | 0x20)
    row = NAME_SLOTS[(key * NAME_MULTIPLIER >> 16) % SLOTS_OF_NAMES]
    if NAME_SIZES[row] != size:
        return 0
    for i in range(size):
        if data[at + i] | 0x20 != NAMES[row, i]:
            return 0
    return np.int64(row)


@kernel
def _request_field(data, start, value, end, head, line, row):
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
        return _framing_field(data, value, end, head, rule)
    return 0


@kernel
def _framing_field(data, value, end, head, rule):
    """Take a Content-Length or a Transfer-Encoding."""
    if rule == OF_LENGTH:
        while end > value and _is_blank(data[end - 1]):
            end -= 1
        head["length"] = _number(data, value, end, LENGTH_DIGITS)
        head["lengths"] += 1
        return NO_LENGTH if head["lengths"] > 1 or head["length"] < 0 else 0
    last = end  # up to the line's end, which is a CR: a tab behind the coding is a part of it, to llhttp's readers
    while data[last] == _SPACE:
        last += 1
    while end > value and data[end - 1] == _SPACE:
        end -= 1
    head["codings"] += 1
    plain = data[last] == _CR and _is_folded(data, value, end, _CHUNKED)
    return 0 if plain and head["codings"] == 1 else NO_CODING


@kernel
def _host(data, start, value, end, head):
    """Take Host: a name or an IPv4 address, and a port of up to five digits, as ``forwarding.is_authority`` has it."""
    name_end = value
    while name_end < end and _CLASSES[data[name_end]] & _IN_HOST:
        name_end += 1
    head["hosts"] += 1
    if head["hosts"] > 1 or name_end == value:
        return NO_HOST
    if name_end < end:
        if data[name_end] != _COLON or end - name_end > 6:
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
    head["closes"] = _is_folded(data, value, end, _CLOSE)
    keeps = _is_folded(data, value, end, _KEEP_ALIVE)
    return 0 if head["connections"] == 1 and (head["closes"] or keeps) else NO_CONNECTION


@kernel
def _request_end(data, head):
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
def _answer_field(data, value, end, head, line, rule):
    if rule == OF_DATE:
        head["dated"] = 1
    elif rule == OF_SERVER:
        head["served"] = 1
    elif rule != PASS:
        line["what"] = DROPPED
        if rule in (OF_LENGTH, OF_CODING):
            return _framing_field(data, value, end, head, rule)
        if rule == OF_CONNECTION:
            _note_tokens(data, value, end, head)
        elif rule == OF_PROXY:
            head["closes"] = 1  # whatever it says, nothing is sent after it
    return 0


@kernel
def _token(data, at, end):
    """The member of a list that begins at or behind ``at``: (its first byte, its end, where the next one begins)."""
    comma = at
    while comma < end and data[comma] != _COMMA:
        comma += 1
    last = comma
    while at < last and _is_blank(data[at]):
        at += 1
    while last > at and _is_blank(data[last - 1]):
        last -= 1
    return at, last, comma + 1


@kernel
def _note_tokens(data, value, end, head):
    """Take an answer's Connection."""
    while value < end:
        first, last, value = _token(data, value, end)
        if _is_folded(data, first, last, _CLOSE):
            head["closes"] = 1
        elif _is_folded(data, first, last, _KEEP_ALIVE):
            head["keeps"] = 1
        elif last > first:
            head["names_others"] = 1


@kernel
def _answer_end(data, head, lines, method):
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
        row = _name(data, at, start + lines[i]["name_end"])
        if row == 0 or NAME_RULES[row, 2] != OF_CONNECTION:
            continue
        while value < end:
            first, last, value = _token(data, value, end)
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


@kernel
def write_request(out, data, head, lines, hop, number):
    """Write a request's head as it goes to an endpoint, ``plane.ingress.forwarding.request_bytes``.

    out     uint8[], written from its beginning
    hop     Hop
    number  uint64, the X-Request-ID where the client gave none

    ``lines[i].what`` says which fields go on, ``head.framing`` and ``head.length`` how the body is framed: the caller
    may have changed them. Returns how many bytes it is, -1 where ``out`` has no room.
    """
    start = np.int64(head["start"])
    first = start + head["target"]
    to = text.put(out, 0, data, start, first)
    if hop.target.size:
        to = text.put_all(out, to, hop.target)
    else:
        to = text.put(out, to, data, first, first + head["target_size"])
    to = text.put_all(out, to, _VERSION)
    to = text.put_all(out, to, _HOST_FIELD)
    host = start + head["host"]
    if hop.host.size:
        to = text.put_all(out, to, hop.host)
    else:
        to = text.put(out, to, data, host, host + head["host_size"])
    to = text.end_line(out, to)
    to = text.put_all(out, to, hop.forwarding)
    to = text.put_all(out, to, _FORWARDED_HOST_FIELD)
    to = text.end_line(out, text.put(out, to, data, host, host + head["host_size"]))
    to = text.put_all(out, to, _REQUEST_ID_FIELD)
    if head["request_id_size"]:
        request_id = start + head["request_id"]
        to = text.put(out, to, data, request_id, request_id + head["request_id_size"])
    else:
        to = text.put_hex(out, to, number, 16)
    to = _put_lines(out, text.end_line(out, to), data, head, lines)
    to = text.put_all(out, to, hop.more)
    return text.end_line(out, _put_framing(out, to, head))


@kernel
def write_response(out, data, head, lines, ours, keep_alive):
    """Write an answer's head as it goes to a client in HTTP/1.1, ``plane.ingress.http1.Http1.answer``.

    out         uint8[], written from its beginning
    ours        Ours
    keep_alive  whether the client's connection goes on

    ``lines[i].what`` says which fields go on, ``head.framing`` and ``head.length`` how the body is framed: the caller
    may have changed them; UNTIL_CLOSE is written as chunked. Returns how many bytes it is, -1 where ``out`` has no
    room.
    """
    to = text.put_all(out, 0, _ANSWERED)
    to = text.put_all(out, text.put_decimal(out, to, np.int64(head["status"])), _BLANK)
    reason = np.int64(head["start"]) + head["reason"]
    to = text.end_line(out, text.put(out, to, data, reason, reason + head["reason_size"]))
    to = _put_lines(out, to, data, head, lines)
    to = text.put_all(out, to, ours.more)
    if not head["dated"]:
        to = text.put_all(out, to, ours.date)
    if not head["served"]:
        to = text.put_all(out, to, ours.server)
    if head["status"] != 204:
        to = _put_framing(out, to, head)
    if not keep_alive:
        to = text.put_all(out, to, _CLOSE_FIELD)
    return text.end_line(out, to)


@kernel
def _put_lines(out, to, data, head, lines):
    """Write the fields that go on, each with ``: `` between name and value."""
    start = np.int64(head["start"])
    for i in range(head["lines"]):
        line = lines[i]
        if line["what"] == GOES_ON:
            to = text.put(out, to, data, start + line["start"], start + line["name_end"])
            to = text.put_all(out, to, _SAYS)
            to = text.end_line(out, text.put(out, to, data, start + line["value"], start + line["end"]))
    return to


@kernel
def _put_framing(out, to, head):
    """Write where the body ends; a length that was said is said anew, without zeroes before it."""
    if head["framing"] == CHUNKED or head["framing"] == UNTIL_CLOSE:
        return text.put_all(out, to, _CHUNKED_FIELD)
    if head["length"] < 0:
        return to
    return text.end_line(out, text.put_decimal(out, text.put_all(out, to, _LENGTH_FIELD), head["length"]))


@kernel
def begin_body(body, head, mode):
    """Have a body begin, framed as its head says; ``mode`` is CANONICAL, PLAIN or SKIPPED."""
    body["left"] = head["length"] if head["framing"] == SIZED else 0
    body["content"] = body["consumed"] = body["produced"] = 0
    body["trailers"] = 0
    body["mode"] = mode
    if head["framing"] == CHUNKED:
        body["state"] = CHUNK_SIZE
    elif head["framing"] == UNTIL_CLOSE:
        body["state"] = ENDLESS
    else:
        body["state"] = COUNTED if body["left"] > 0 else OVER


@kernel
def pass_over(body, count):
    """Take so many bytes of a body that is COUNTED, and has them yet to come, without seeing them. DONE or MORE."""
    body["left"] -= count
    body["content"] += count
    if body["left"] == 0:
        body["state"] = OVER
    return np.int64(DONE if body["left"] == 0 else MORE)


@part
def reframe(body, data, start, end):
    """Take of a body what is here, ``data[start:end]``, and leave in its place what goes on.

    body  row of BODY, begun by ``begin_body``

    Returns (int64) DONE, MORE, or minus one of REASONS where it is broken, for good. ``body.consumed`` bytes from
    ``start`` on have been taken, the rest is to be given again with what follows it: behind a body that is DONE it is
    the next message, else part of a line. ``data[start : start + body.produced]`` goes on; it is never longer than what
    was consumed, and nothing of it if the body is SKIPPED. The end of one that goes until its connection closes is for
    the caller to see.
    """
    at, to = np.int64(start), np.int64(start)
    while True:
        if body["state"] == OVER:
            answer = DONE
            break
        if body["state"] == COUNTED or body["state"] == ENDLESS or body["state"] == IN_CHUNK:
            if at == end:
                answer = MORE
                break
            count = end - at if body["state"] == ENDLESS else min(end - at, body["left"])
            to = _move(body, data, to, at, count)
            at += count
            body["content"] += count
            if body["state"] != ENDLESS:
                body["left"] -= count
                if body["left"] == 0:
                    body["state"] = OVER if body["state"] == COUNTED else CHUNK_END
            continue
        stop = _text_end(data, at, end)
        if stop < end and data[stop] != _CR:
            answer = -_not_text(data[stop])
            break
        if stop - at > LINE_BYTES:
            answer = -TOO_LONG
            break
        if stop + 1 >= end:
            answer = -CHUNK if body["state"] == CHUNK_END and stop > at else MORE
            break
        answer = -LINE_END if data[stop + 1] != _LF else _line(body, data, at, stop)
        if answer < 0:
            break
        to = _move_line(body, data, to, answer)
        at = stop + 2
    body["consumed"] = at - start
    body["produced"] = to - start
    return np.int64(answer)


@kernel
def _move(body, data, to, at, count):
    """Move bytes of the body to the front; ``to`` is never behind ``at``."""
    if body["mode"] == SKIPPED:
        return to
    return to + count if to == at else text.put(data, to, data, at, at + count)


# What a line within a chunked body was, if it was right.
_SILENT, _SIZE_SAID, _CHUNK_ENDED, _LAST_SAID, _ALL_ENDED = range(5)


@kernel
def _line(body, data, at, stop):
    """Take the line ``data[at:stop]``. Returns what it was, or minus a reason."""
    if body["state"] == CHUNK_END:
        if at != stop:
            return -CHUNK
        body["state"] = CHUNK_SIZE
        return _CHUNK_ENDED
    if body["state"] == CHUNK_SIZE:
        return _size_line(body, data, at, stop)
    if at == stop:
        body["state"] = OVER
        return _ALL_ENDED
    body["trailers"] += stop - at + 2
    return _SILENT if body["trailers"] <= TRAILER_BYTES and _is_trailer(data, at, stop) else -TRAILER


@kernel
def _size_line(body, data, at, stop):
    """Take the size of a chunk, and any extensions, which go no further."""
    first = at
    while at < stop and data[at] == 48:
        at += 1
    digits, size = at, np.int64(0)
    while at < stop and at - digits <= CHUNK_DIGITS and text.hex_value(data[at]) >= 0:
        size = 16 * size + text.hex_value(data[at])
        at += 1
    if at == first or at - digits > CHUNK_DIGITS:
        return -CHUNK
    if at < stop and data[at] != _SEMICOLON:
        return -CHUNK
    if not _are_extensions(data, at, stop):
        return -EXTENSION
    body["left"] = size
    body["state"] = IN_CHUNK if size else IN_TRAILERS
    return _SIZE_SAID if size else _LAST_SAID


@kernel
def _are_extensions(data, at, stop):
    """Whether it is ``*( ";" token [ "=" ( token / quoted-string ) ] )`` (RFC 9112, 7.1.1, without spaces)."""
    while at < stop:
        name = at + 1
        at = _token_end(data, name, stop)
        if data[name - 1] != _SEMICOLON or at == name:
            return False
        if at < stop and data[at] == _EQUALS:
            value = at + 1
            at = _quoted_end(data, value, stop)
            if at == value:
                at = _token_end(data, value, stop)
            if at == value:
                return False
    return True


@kernel
def _token_end(data, at, stop):
    while at < stop and _CLASSES[data[at]] & _TOKEN:
        at += 1
    return at


@kernel
def _quoted_end(data, at, stop):
    """Behind the quoted string that begins at ``at``; ``at`` where none does, or it does not end."""
    if at >= stop or data[at] != _QUOTE:
        return at
    i = at + 1
    while i < stop and data[i] != _QUOTE:
        i += 2 if data[i] == _BACKSLASH else 1
    return i + 1 if i < stop else at


@kernel
def _is_trailer(data, at, stop):
    """Whether a line is a field that may stand behind a body."""
    name_end = _token_end(data, at, stop)
    if name_end in (at, stop) or data[name_end] != _COLON:
        return False
    rule = NAME_RULES[_name(data, at, name_end), 2]
    return rule not in (OF_LENGTH, OF_CODING, OF_CONNECTION, OF_PROXY)


@kernel
def _move_line(body, data, to, said):
    """Write what a line comes to, which is never longer than it was."""
    if body["mode"] != CANONICAL or said == _SILENT:
        return to
    if said in (_SIZE_SAID, _LAST_SAID):
        to = text.put_hex(data, to, np.uint64(body["left"]), text.hex_digits(body["left"]))
    return text.end_line(data, to)
