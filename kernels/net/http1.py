"""Heads of HTTP/1.1 scanned: what of a request or an answer is plainly one, and where in it what is.

    http1 ─► octets; requesthead, answerhead     lines, and what each of them says
    bodies                                       what follows a head, to its end
    writing                                      a head as it goes on

Law of all of them: no sockets and no state but in the rows that are passed in. What is taken of a request is a strict
subset of what llhttp takes, framed as llhttp frames it; for the rest there is a reason (``layout_http.REASONS``), and
all of HTTP is spoken elsewhere. Nothing is read at or behind ``end``, and every index that comes from the bytes stands
beside its check against it.

A head is scanned line by line, and once: where it is not whole yet its row says where to go on, so that a client that
sends byte by byte costs no more than its bytes; what is wrong with it is said as soon as the line is there.
"""

import numpy as np

from kernels.jit import kernel
from kernels.layout_http import (
    DROPPED,
    GOES_ON,
    HEAD,
    HEAD_BYTES,
    LINE,
    LINE_END,
    LINES,
    NAME_RULES,
    NO_METHOD,
    NO_NAME,
    TOO_LONG,
    TOO_MANY,
)
from kernels.net import answerhead, octets, requesthead


def create_heads(count: int) -> np.ndarray:
    """HEAD[count], of which nothing has been looked at."""
    return np.zeros(count, HEAD)


def create_lines() -> np.ndarray:
    """LINE[LINES]: room for the fields of one head; all heads of a thread may share it, see ``scan_request``."""
    return np.zeros(LINES, LINE)


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
        stop = octets.text_end(data, max(at, looked), end)
        if stop < end and data[stop] != octets.CR:
            return np.int64(-octets.not_text(data[stop]))
        if min(stop + 2, end) - start > HEAD_BYTES:
            return np.int64(-TOO_LONG)
        if stop + 1 >= end:
            head["at"] = at - start
            head["looked"] = stop - start
            if at == start and asks and stop > start and requesthead.method_of(data, start, stop) == 0:
                return np.int64(-NO_METHOD)
            return np.int64(0)
        if data[stop + 1] != octets.LF:
            return np.int64(-LINE_END)
        if at == start:
            why = requesthead.take_line(data, at, stop, head) if asks else answerhead.take_line(data, at, stop, head)
        elif at == stop:
            head["size"] = stop + 2 - start
            why = requesthead.conclude(data, head) if asks else answerhead.conclude(data, head, lines, method)
            return np.int64(-why) if why else np.int64(head["size"])
        else:
            why = _field(data, start, at, stop, head, lines, asks)
        if why:
            return np.int64(-why)
        at = stop + 2


@kernel
def _field(data, start, at, stop, head, lines, asks):
    """Take a field line."""
    name_end = at
    underscore = False
    while name_end < stop and octets.CLASSES[data[name_end]] & octets.TOKEN:
        underscore |= data[name_end] == 95
        name_end += 1
    if name_end in (at, stop) or data[name_end] != octets.COLON:
        return NO_NAME
    value, value_end = name_end + 1, stop
    while value < stop and octets.is_blank(data[value]):
        value += 1
    while asks and value_end > value and octets.is_blank(data[value_end - 1]):  # of an answer they go on
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
    row = octets.name_row(data, at, name_end)
    if row == 0:
        return 0
    if asks:
        return requesthead.take_field(data, start, value, value_end, head, line, row)
    return answerhead.take_field(data, value, value_end, head, line, NAME_RULES[row, 2])
