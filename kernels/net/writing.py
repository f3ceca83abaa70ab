"""Heads of HTTP/1.1 written anew, as they go on.

Law: as in ``http1``. What is written is, byte for byte, what ``plane.ingress.forwarding`` makes of it.
"""

import numpy as np

from kernels.jit import kernel
from kernels.layout_http import CHUNKED, GOES_ON, UNTIL_CLOSE
from kernels.net import octets, text

_ANSWERED = octets.of("HTTP/1.1 ")
_BLANK = octets.of(" ")
_SAYS = octets.of(": ")
_HOST_FIELD = octets.of("Host: ")
_FORWARDED_HOST_FIELD = octets.of("X-Forwarded-Host: ")
_REQUEST_ID_FIELD = octets.of("X-Request-ID: ")
_LENGTH_FIELD = octets.of("Content-Length: ")
_CHUNKED_FIELD = octets.of("Transfer-Encoding: chunked\r\n")
_CLOSE_FIELD = octets.of("Connection: close\r\n")


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
    to = text.put_all(out, to, octets.VERSION)
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
