"""Lines of the access log, made of requests that the gateway has done: JSON, byte by byte as Python's would be.

Law: what is written is what ``plane.ingress.accesslog`` makes of the same ``Entry``, field by field. Text that is no
UTF-8 is written as ``surrogateescape`` has it. Nothing is checked here but room: what a row points at was put there by
``kernels.net.notes``.
"""

import numpy as np

from kernels.jit import kernel, part
from kernels.layout_http import METHODS
from kernels.net import text

LINE_BYTES = 512  # of a line, but for its words and for what clients have sent
ESCAPED = 6  # bytes that one of those may become
_US, _MS = 1_000, 1_000_000


def _bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)


_TIME, _CLIENT, _SCHEME = _bytes('{"time": "'), _bytes('Z", "client": "'), _bytes('", "scheme": "')
_HTTP, _HTTPS, _METHOD = _bytes("http"), _bytes("https"), _bytes('", "method": "')
_HOST, _TARGET = _bytes('", "host": "'), _bytes('", "target": "')
_STATUS, _SENT = _bytes('", "protocol": "HTTP/1.1", "status": '), _bytes(', "bytes_sent": ')
_DURATION, _ID = _bytes(', "duration_ms": '), _bytes(', "request_id": "')
_REFERER, _END, _COLON, _DOT = _bytes('", "referer": "'), _bytes('"}\n'), _bytes(":"), _bytes(".")
_UNICODE = _bytes("\\u")
_NAMES = _bytes("".join(f"{name:8}" for name in METHODS))  # of methods, eight bytes each
_SIZES = np.array([len(name) for name in METHODS])
# What follows a backslash in place of a byte, 0: nothing does.
_SHORT = np.zeros(256, np.uint8)
for _byte, _letter in zip(b'"\\\b\f\n\r\t', b'"\\bfnrt', strict=True):
    _SHORT[_byte] = _letter


@kernel
def write(page, out):
    """Write a line for each request of a Page to ``out``: the size of all, -1 where there is no room."""
    to = np.int64(0)
    for i in range(page.rows.size):
        to = _write_line(page, i, out, to)
    return to


@part
def _write_line(page, i, out, to):
    row, said, texts = page.rows[i], page.said[i], page.texts
    kind, at = 2 * np.int64(page.kinds[i]), np.int64(said["text"])
    to = text.put_all(out, text.put_all(out, to, _TIME), page.stamps[page.seconds[i]])
    to = _put_thousandths(out, to, page.wall_ns[i] // _MS % 1000)
    to = text.put_ip(out, text.put_all(out, to, _CLIENT), np.int64(said["ip"]))
    to = text.put_all(out, text.put_all(out, to, _SCHEME), _HTTPS if said["secured"] else _HTTP)
    method = 8 * np.int64(said["method"])
    to = text.put(out, text.put_all(out, to, _METHOD), _NAMES, method, method + _SIZES[said["method"]])
    to = _put_text(out, text.put_all(out, to, _HOST), texts, at, at + said["host"])
    at += said["host"]
    to = _put_text(out, text.put_all(out, to, _TARGET), texts, at, at + said["target"])
    at += said["target"]
    to = text.put_decimal(out, text.put_all(out, to, _STATUS), np.int64(row["status"]))
    to = text.put_decimal(out, text.put_all(out, to, _SENT), np.int64(said["bytes"]))
    to = _put_duration(out, text.put_all(out, to, _DURATION), np.int64(row["done_ns"] - row["received_ns"]))
    to = text.put_all(out, to, _ID)
    if said["request_id"] == 0 and row["request_id"] != 0:
        to = text.put_hex(out, to, row["request_id"], 16)
    to = _put_text(out, to, texts, at, at + said["request_id"])
    at += said["request_id"]
    to = text.put(out, to, page.words, page.ends[kind], page.ends[kind + 1])
    if row["ip"] != 0:
        to = text.put_all(out, text.put_ip(out, to, np.int64(row["ip"])), _COLON)
        to = text.put_decimal(out, to, np.int64(row["port"]))
    to = text.put(out, to, page.words, page.ends[kind + 1], page.ends[kind + 2])
    to = _put_text(out, to, texts, at, at + said["agent"])
    at += said["agent"]
    to = _put_text(out, text.put_all(out, to, _REFERER), texts, at, at + said["referer"])
    return text.put_all(out, to, _END)


@kernel
def _put_thousandths(out, to, number):
    """Three digits."""
    if to < 0 or out.size - to < 3:
        return np.int64(-1)
    for i in range(3):
        out[to + 2 - i] = 48 + number % 10
        number //= 10
    return np.int64(to + 3)


@kernel
def _put_duration(out, to, ns):
    """Milliseconds with up to three places, and one at least, as Python writes a float."""
    us = (ns + _US // 2) // _US
    to = text.put_decimal(out, to, us // 1000)
    to = _put_thousandths(out, text.put_all(out, to, _DOT), us % 1000)
    if to < 0 or us % 10 != 0:
        return to
    return to - 2 if us % 100 == 0 else to - 1


@part
def _put_text(out, to, data, at, end):
    """Write ``data[at:end]`` as it stands between quotes in JSON of ASCII only."""
    if to < 0 or at < 0 or end > data.size or out.size - to < ESCAPED * (end - at):
        return np.int64(-1)
    while at < end:
        byte = data[at]
        if _SHORT[byte] != 0:
            out[to], out[to + 1] = 92, _SHORT[byte]
            to += 2
        elif 32 <= byte < 127:
            out[to] = byte
            to += 1
        elif byte < 128:
            to = _put_unit(out, to, np.int64(byte))
        else:
            size, code = _decoded(data, at, end)
            if code > 0xFFFF:
                to = _put_unit(out, to, 0xD800 + (code - 0x10000 >> 10))
                code = 0xDC00 + (code & 0x3FF)
            to = _put_unit(out, to, code)
            at += size - 1
        at += 1
    return to


@kernel
def _put_unit(out, to, unit):
    """Write one unit of UTF-16."""
    return text.put_hex(out, text.put_all(out, to, _UNICODE), np.uint64(unit), 4)


@kernel
def _decoded(data, at, end):
    """The character whose UTF-8 begins at ``data[at]``, which is no ASCII: (bytes, code).

    Where none does it is the byte alone, at 0xDC00 (Python's ``surrogateescape``, PEP 383).
    """
    first = np.int64(data[at])
    size = 2 if 0xC2 <= first < 0xE0 else 3 if 0xE0 <= first < 0xF0 else 4 if 0xF0 <= first < 0xF5 else 1
    code = first & (0xFF >> (size + 1))
    if size > end - at:
        size = 1
    for i in range(1, size):
        byte = np.int64(data[at + i])
        if byte & 0xC0 != 0x80:
            return 1, 0xDC00 + first
        code = code << 6 | (byte & 0x3F)
    shorter = (size == 3 and code < 0x800) or (size == 4 and not 0x10000 <= code < 0x110000)
    if size == 1 or shorter or 0xD800 <= code < 0xE000:
        return 1, 0xDC00 + first
    return size, code
