"""What NGINX's variables that a Location may have stand for: ``plane.conduct.filled``, compiled.

Law: a piece is written as the request has it; what is asked about it is a row of ASK.
"""

import numpy as np

from kernels.jit import inner, kernel, part
from kernels.layout_routes import HOSTNAME, HTTP_HOST, REQUEST_URI, SCHEME, TEXT, TRIMMED_URI
from kernels.net import fields, text

_COLON, _SLASH = 0x3A, 0x2F
_HTTP, _HTTPS = np.frombuffer(b"http", np.uint8), np.frombuffer(b"https", np.uint8)


@part
def put(words, piece, data, asked, out, at):
    """Write a piece, of another kind nothing; ``words`` are those of Roads."""
    host, host_size = np.int64(asked["host"]), np.int64(asked["host_size"])
    uri, uri_size = np.int64(asked["uri"]), np.int64(asked["uri_size"])
    kind, start = piece["kind"], at
    if kind == TEXT:
        first = np.int64(piece["text"]["offset"])
        at = text.put(out, at, words, first, first + np.int64(piece["text"]["length"]))
    elif kind == SCHEME:
        at = text.put_all(out, at, _HTTPS if asked["secure"] != 0 else _HTTP)
    elif kind == HTTP_HOST:
        at = text.put(out, at, data, host, host + host_size)
    elif kind == HOSTNAME:
        at = text.put(out, at, data, host, host + name_size(data, host, host_size))
        for i in range(start, at):
            out[i] = fields.lower(out[i])
    elif kind == REQUEST_URI:
        at = text.put(out, at, data, uri, uri + uri_size)
    elif kind == TRIMMED_URI:
        at = text.put(out, at, data, uri, uri + trimmed(data, uri, uri_size))
    return at


@kernel
def name_size(data, host, size):
    """Bytes of a Host before its port."""
    for i in range(size):
        if data[host + i] == _COLON:
            return np.int64(i)
    return np.int64(size)


@inner
def trimmed(data, uri, size):
    """Bytes of a target without a slash at its end."""
    return size - 1 if size > 0 and data[uri + size - 1] == _SLASH else size
