"""What the fields of a request say, looked up by name in a head that was scanned.

Law: as ``Downstream.values`` has them, whether they go on or not. Where that takes more than comparing bytes, because a
field comes twice or holds bytes that are no ASCII, the answer is ODD, and the request is one for the slow path.
"""

import numpy as np

from kernels.jit import kernel, part

NONE, ODD = np.int64(-1), np.int64(-2)  # no place among lines is negative
ALWAYS, NEVER, NEITHER = np.int64(1), np.int64(0), np.int64(-1)

_SPACE, _TAB, _EQUALS, _SEMICOLON, _QUOTE, _DEL = 32, 9, 61, 59, 34, 127


def _bytes(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


_COOKIE, _ALWAYS, _NEVER = _bytes(b"cookie"), _bytes(b"always"), _bytes(b"never")


@part
def find(heard, text, offset, size):
    """The line of the field whose name, in lower case, is ``text[offset : offset + size]``; NONE, ODD: two do."""
    found, start = NONE, np.int64(heard.head["start"])
    for i in range(heard.head["lines"]):
        first = start + heard.lines[i]["start"]
        if is_folded(heard.data, first, start + heard.lines[i]["name_end"], text, offset, size):
            if found >= 0:
                return ODD
            found = np.int64(i)
    return found


@kernel
def lower(byte):
    return np.uint8(byte + 32) if 0x41 <= byte <= 0x5A else byte


@part
def is_folded(data, first, last, text, offset, size):
    """Whether ``data[first:last]`` is ``text[offset : offset + size]`` in whatever case, which that has none of."""
    if last - first != size or first < 0 or last > data.size or offset + size > text.size:
        return False
    for i in range(size):  # noqa: SIM110  # all() of a generator does not compile
        if lower(data[first + i]) != text[offset + i]:
            return False
    return True


@part
def is_same(data, first, last, text, offset, size):
    """Whether it is that text, as it is written."""
    if last - first != size or first < 0 or last > data.size or offset + size > text.size:
        return False
    for i in range(size):  # noqa: SIM110  # as above
        if data[first + i] != text[offset + i]:
            return False
    return True


@kernel
def word(data, first, last):
    """ALWAYS or NEVER, if that is what ``data[first:last]`` says."""
    if is_same(data, first, last, _ALWAYS, 0, _ALWAYS.size):
        return ALWAYS
    return NEVER if is_same(data, first, last, _NEVER, 0, _NEVER.size) else NEITHER


@part
def cookie(heard, text, offset, size):
    """Where the value of the first cookie of this name is (``plane.affinity.cookie_of``): (first, last).

    The first is NONE where there is no such cookie, or ODD.
    """
    start, data = np.int64(heard.head["start"]), heard.data
    for i in range(heard.head["lines"]):
        line = heard.lines[i]
        if not is_folded(data, start + line["start"], start + line["name_end"], _COOKIE, 0, _COOKIE.size):
            continue
        at, end = start + np.int64(line["value"]), start + np.int64(line["end"])
        for j in range(at, end):
            if data[j] >= _DEL:
                return ODD, at
        while at < end:
            last = place(data, at, end, _SEMICOLON)
            first, stop = _trimmed(data, at, last)
            equals = place(data, first, stop, _EQUALS)
            if is_same(data, first, equals, text, offset, size):
                return _unquoted(data, min(equals + 1, stop), stop)
            at = last + 1
    return NONE, start


@kernel
def place(data, at, end, byte):
    """Where this byte is first, ``end`` where it is not."""
    while at < end and data[at] != byte:
        at += 1
    return at


@kernel
def _trimmed(data, first, last):
    """Without blanks around it: (first, last)."""
    while first < last and (data[first] == _SPACE or data[first] == _TAB):
        first += 1
    while last > first and (data[last - 1] == _SPACE or data[last - 1] == _TAB):
        last -= 1
    return first, last


@kernel
def _unquoted(data, first, last):
    while first < last and data[first] == _QUOTE:
        first += 1
    while last > first and data[last - 1] == _QUOTE:
        last -= 1
    return first, last
