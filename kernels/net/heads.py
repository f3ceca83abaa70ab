"""The heads of HTTP/1.1 messages, as far as one who measures has to read them: where they end, what body follows.

Law: bytes in, numbers out; no socket, no copy. Each index stands between ``start`` and ``end``. A head that is not
whole yet is 0, one that is none BROKEN. Names of fields are read in any case (RFC 9110 5.1), lines end in CRLF.
"""

import numpy as np

from kernels.jit import inner, kernel
from kernels.layout_load import CHUNKED, SIZED, TO_END, WHOLE

HEAD_BYTES = 8192  # longer heads are BROKEN
BROKEN = -1
MOST_DIGITS = 18  # of a length: more would not fit into int64

CR, LF, SP, HTAB, COLON, ZERO, NINE = 13, 10, 32, 9, 58, 48, 57

VERSION = np.frombuffer(b"http/1.", np.uint8)
LENGTH = np.frombuffer(b"content-length", np.uint8)
CODING = np.frombuffer(b"transfer-encoding", np.uint8)
CONNECTION = np.frombuffer(b"connection", np.uint8)
IS_CHUNKED = np.frombuffer(b"chunked", np.uint8)
IS_CLOSE = np.frombuffer(b"close", np.uint8)
IS_KEPT = np.frombuffer(b"keep-alive", np.uint8)


@inner
def size_of_head(data, start, end):
    """Bytes of the head that begins at ``start``, with its empty line; 0 where that is not there."""
    at = start + 3
    while at < end:
        # Of four bytes that end a head the last is LF, and each other says how far the end may be at the least.
        byte = data[at]
        if byte == LF:
            if data[at - 1] == CR and data[at - 2] == LF and data[at - 3] == CR:
                return np.int64(at + 1 - start)
            at += 2
        elif byte == CR:
            at += 1
        else:
            at += 4
    return np.int64(0)


@inner
def begins_as(data, start, end, text):
    """Whether the bytes are ``text``, in lower case, as far as both go."""
    differing = 0
    for i in range(min(text.size, end - start)):
        byte = data[start + i]
        lower = byte | 32 if 65 <= byte <= 90 else byte
        differing += lower != text[i]
    return differing == 0


@inner
def is_field(data, start, colon, name):
    return colon - start == name.size and begins_as(data, start, colon, name)


@kernel
def number(data, start, end):
    """The decimal number of those digits; BROKEN where they are none."""
    if not 0 < end - start <= MOST_DIGITS:
        return np.int64(BROKEN)
    found = np.int64(0)
    for at in range(start, end):
        if not ZERO <= data[at] <= NINE:
            return np.int64(BROKEN)
        found = found * 10 + (np.int64(data[at]) - ZERO)
    return found


@kernel
def scan(data, start, end, answer, bodiless):
    """Reads the head of an answer at ``start`` into ``answer``, an ANSWER.

    ``bodiless``: the request was HEAD. Returns the size of the head, 0 where it is not whole yet, BROKEN where it is
    none, or has a length that is no number or is said twice differently.
    """
    if not begins_as(data, start, end, VERSION):
        return np.int64(BROKEN)
    size = size_of_head(data, start, end)
    if size == 0:
        return np.int64(BROKEN if end - start >= HEAD_BYTES else 0)
    if size < 14 or size > HEAD_BYTES or data[start + 8] != SP:  # HTTP/1.1 200 and what ends a head
        return np.int64(BROKEN)
    status = number(data, start + 9, start + 12)
    if status < 100 or (data[start + 12] != SP and data[start + 12] != CR):
        return np.int64(BROKEN)
    first_line = start + 12
    while data[first_line] != LF:
        first_line += 1
    answer.status = status
    answer.size = size
    answer.length = BROKEN
    answer.keep = data[start + 7] == 49  # HTTP/1.1
    if read_fields(data, first_line + 1, start + size - 2, answer) == BROKEN:
        return np.int64(BROKEN)
    if bodiless or status < 200 or status == 204 or status == 304 or answer.length == 0:
        answer.framing = WHOLE
    elif answer.framing != CHUNKED:
        answer.framing = SIZED if answer.length > 0 else TO_END
    answer.keep = answer.keep and answer.framing != TO_END
    return size


@inner
def read_fields(data, start, end, answer):
    """What the fields from ``start``, the second line, to ``end``, the empty one, say. Returns 0 or BROKEN.

    Of ``answer`` its ``length``, which is to be BROKEN before, and ``keep`` are changed where a field says so; its
    ``framing`` is CHUNKED or TO_END where a coding says so, else WHOLE.
    """
    answer.framing = WHOLE
    line = start
    at = start
    colon = 0
    while at < end:
        byte = data[at]
        if byte == COLON and colon == 0:
            colon = at
        elif byte == LF:
            if _read_field(data, line, colon, at, answer) == BROKEN:
                return np.int64(BROKEN)
            line = at + 1
            colon = 0
        at += 1
    if answer.framing != WHOLE:
        answer.length = BROKEN  # RFC 9112 6.3: a coding overrides a length
    return np.int64(0)


@kernel
def _read_field(data, line, colon, end, answer):
    """One field: ``line`` is where it begins, ``end`` its LF, ``colon`` 0 where it has none."""
    if colon == 0:
        return np.int64(BROKEN)
    size = colon - line
    if size != LENGTH.size and size != CODING.size and size != CONNECTION.size:
        return np.int64(0)
    first, last = value_of(data, colon, end)
    if is_field(data, line, colon, LENGTH):
        length = number(data, first, last)
        if length == BROKEN or (answer.length != BROKEN and answer.length != length):
            return np.int64(BROKEN)
        answer.length = length
    elif is_field(data, line, colon, CODING):
        answer.framing = CHUNKED if ends_as(data, first, last, IS_CHUNKED) else TO_END
    elif is_field(data, line, colon, CONNECTION):
        if has_word(data, first, last, IS_CLOSE):
            answer.keep = 0
        elif has_word(data, first, last, IS_KEPT):
            answer.keep = 1
    return np.int64(0)


@inner
def value_of(data, colon, end):
    """Where a field's value begins and ends, without the white space and the CR around it."""
    first, last = colon + 1, end
    while first < last and (data[first] == SP or data[first] == HTAB):
        first += 1
    while last > first and (data[last - 1] == SP or data[last - 1] == HTAB or data[last - 1] == CR):
        last -= 1
    return first, last


@inner
def ends_as(data, first, last, text):
    return last - first >= text.size and begins_as(data, last - text.size, last, text)


@inner
def has_word(data, first, last, word):
    """Whether a value has that word somewhere; those looked for are parts of no other that is in use."""
    found = False
    for at in range(first, last - word.size + 1):
        found |= begins_as(data, at, last, word)
    return found
