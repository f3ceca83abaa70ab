"""Bodies of HTTP/1.1: how a head frames them, and where they end, by length, in chunks or with the connection.

Law: as in ``http1``. What goes on of a body is left where the body came, for it is never longer than that.
"""

import numpy as np

from kernels.jit import inner, kernel, part
from kernels.layout_http import (
    BODY,
    CANONICAL,
    CHUNK,
    CHUNK_DIGITS,
    CHUNK_END,
    CHUNK_SIZE,
    CHUNKED,
    COUNTED,
    DONE,
    ENDLESS,
    EXTENSION,
    IN_CHUNK,
    IN_TRAILERS,
    LENGTH_DIGITS,
    LINE_BYTES,
    LINE_END,
    MORE,
    NAME_RULES,
    NO_CODING,
    NO_LENGTH,
    OF_CODING,
    OF_CONNECTION,
    OF_LENGTH,
    OF_PROXY,
    OVER,
    SIZED,
    SKIPPED,
    TOO_LONG,
    TRAILER,
    TRAILER_BYTES,
    UNTIL_CLOSE,
)
from kernels.net import octets, text

_CHUNKED = octets.of("chunked")


def create(count: int) -> np.ndarray:
    """BODY[count], all over."""
    return np.zeros(count, BODY)


@inner
def take_framing(data, value, end, head, rule):
    """Take a Content-Length or a Transfer-Encoding."""
    if rule == OF_LENGTH:
        while end > value and octets.is_blank(data[end - 1]):
            end -= 1
        head["length"] = octets.decimal(data, value, end, LENGTH_DIGITS)
        head["lengths"] += 1
        return NO_LENGTH if head["lengths"] > 1 or head["length"] < 0 else 0
    last = end  # up to the line's end, which is a CR: a tab behind the coding is a part of it, to llhttp's readers
    while data[last] == octets.SPACE:
        last += 1
    while end > value and data[end - 1] == octets.SPACE:
        end -= 1
    head["codings"] += 1
    plain = data[last] == octets.CR and octets.is_folded(data, value, end, _CHUNKED)
    return 0 if plain and head["codings"] == 1 else NO_CODING


@kernel
def begin(body, head, mode):
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


@inner
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

    body  row of BODY, begun by ``begin``

    Returns (int64) DONE, MORE, or minus one of REASONS where it is broken, for good. ``body.consumed`` bytes from
    ``start`` on have been taken, the rest is to be given again with what follows it: behind a body that is DONE it is
    the next message, else part of a line. ``data[start : start + body.produced]`` goes on; it is never longer than what
    was consumed, and nothing of it if the body is SKIPPED. The end of one that goes until its connection closes is for
    the caller to see.
    """
    at, to, answer = np.int64(start), np.int64(start), np.int64(MORE)
    while body["state"] != OVER:
        if body["state"] in (COUNTED, ENDLESS, IN_CHUNK):
            if at == end:
                break
            count = _take_content(body, end - at)
            to = _move(body, data, to, at, count)
            at += count
        else:
            said, stop = _take_line(body, data, at, end)
            if said <= MORE:
                answer = said
                break
            to = _move_line(body, data, to, said)
            at = stop + 2
    body["consumed"] = at - start
    body["produced"] = to - start
    return np.int64(DONE) if body["state"] == OVER else answer


@kernel
def _take_content(body, here):
    """Take of so many bytes that are here those that are within the body or the chunk. Returns how many."""
    count = here
    if body["state"] != ENDLESS:
        count = min(here, np.int64(body["left"]))
        body["left"] -= count
        if body["left"] == 0:
            body["state"] = OVER if body["state"] == COUNTED else CHUNK_END
    body["content"] += count
    return count


@kernel
def _move(body, data, to, at, count):
    """Move bytes of the body to the front; ``to`` is never behind ``at``."""
    if body["mode"] == SKIPPED:
        return to
    return to + count if to == at else text.put(data, to, data, at, at + count)


# What a line within a chunked body was, if it was right; all of it is above MORE.
_SILENT, _SIZE_SAID, _CHUNK_ENDED, _LAST_SAID, _ALL_ENDED = range(MORE + 1, MORE + 6)


@kernel
def _take_line(body, data, at, end):
    """Take the line that begins at ``at``. Returns what it was, MORE, or minus a reason; and where it ends."""
    stop, said = octets.text_end(data, at, end), MORE
    if stop < end and data[stop] != octets.CR:
        said = -octets.not_text(data[stop])
    elif stop - at > LINE_BYTES:
        said = -TOO_LONG
    elif stop + 1 < end:
        said = -LINE_END if data[stop + 1] != octets.LF else _line(body, data, at, stop)
    elif body["state"] == CHUNK_END and stop > at:
        said = -CHUNK
    return np.int64(said), stop


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
    if at < stop and data[at] != octets.SEMICOLON:
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
        at = octets.token_end(data, name, stop)
        if data[name - 1] != octets.SEMICOLON or at == name:
            return False
        if at < stop and data[at] == octets.EQUALS:
            value = at + 1
            at = _quoted_end(data, value, stop)
            if at == value:
                at = octets.token_end(data, value, stop)
            if at == value:
                return False
    return True


@kernel
def _quoted_end(data, at, stop):
    """Behind the quoted string that begins at ``at``; ``at`` where none does, or it does not end."""
    if at >= stop or data[at] != octets.QUOTE:
        return at
    i = at + 1
    while i < stop and data[i] != octets.QUOTE:
        i += 2 if data[i] == octets.BACKSLASH else 1
    return i + 1 if i < stop else at


@kernel
def _is_trailer(data, at, stop):
    """Whether a line is a field that may stand behind a body."""
    name_end = octets.token_end(data, at, stop)
    if name_end in (at, stop) or data[name_end] != octets.COLON:
        return False
    rule = NAME_RULES[octets.name_row(data, at, name_end), 2]
    return rule not in (OF_LENGTH, OF_CODING, OF_CONNECTION, OF_PROXY)


@kernel
def _move_line(body, data, to, said):
    """Write what a line comes to, which is never longer than it was."""
    if body["mode"] != CANONICAL or said == _SILENT:
        return to
    if said in (_SIZE_SAID, _LAST_SAID):
        to = text.put_hex(data, to, np.uint64(body["left"]), text.hex_digits(body["left"]))
    return text.end_line(data, to)
