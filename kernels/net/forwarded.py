"""Who has sent a request, and what its endpoint is told of that: ``plane.ingress.edge``, and ``forwarding.Origin``.

Law: what a stranger says of a client is not believed. What a trusted proxy says is taken where it is plain: each field
once, lists of IPv4 addresses as far as they are looked at, the scheme and the host that a port of ours would have said.
Anything else is unusual, which is no judgement: the slow path is to see it.
"""

import numpy as np

from kernels.jit import kernel, part
from kernels.net import announced, fields, text

HOP_BYTES = 768  # of forwarding fields
LIST_BYTES = 512  # of X-Forwarded-For: a longer one is unusual
HOPS = 64  # of it that are looked at, as in plane.ingress.edge
_COMMA, _SPACE, _TAB, _ZERO, _NINE = 0x2C, 32, 9, 48, 57
_PORT_DIGITS = 5


def _bytes(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8)


_FOR, _PROTO, _PORT = _bytes(b"x-forwarded-for"), _bytes(b"x-forwarded-proto"), _bytes(b"x-forwarded-port")
_HOST = _bytes(b"x-forwarded-host")
_HTTP, _HTTPS = _bytes(b"http"), _bytes(b"https")
_FOR_FIELD, _REAL_FIELD = _bytes(b"X-Forwarded-For: "), _bytes(b"\r\nX-Real-IP: ")
_PROTO_FIELD, _PORT_FIELD = _bytes(b"\r\nX-Forwarded-Proto: "), _bytes(b"\r\nX-Forwarded-Port: ")
_NEXT = _bytes(b", ")


@part
def begin(client, loop, out):
    """A client, row of CLIENT, sends its requests itself: write their forwarding fields to ``out``."""
    client["who"], client["by_https"] = client["ip"], client["secured"]
    client["hop"] = _write(out, client, out, np.int64(0), np.int64(0), _port_of(client, loop))


@part
def hear(client, loop, trusted, heard, out):
    """As ``begin``, of a client that is one of the proxies ``trusted``: what it says of who sent the request counts.

    Returns whether it can be told here.
    """
    begin(client, loop, out)
    head, data = heard.head, heard.data
    if head["told"] == 0:
        return True
    list_, list_end = _value(heard, _FOR)
    scheme, scheme_end = _value(heard, _PROTO)
    number, number_end = _value(heard, _PORT)
    host, host_end = _value(heard, _HOST)
    said = np.int64(list_ >= 0) + np.int64(scheme >= 0) + np.int64(number >= 0) + np.int64(host >= 0)
    if said != head["told"] or list_end - list_ > LIST_BYTES:  # a field comes twice, is empty, or is of another kind
        return False
    start = np.int64(head["start"])
    first = start + np.int64(head["host"])
    if host >= 0 and not fields.is_same(data, host, host_end, data, first, np.int64(head["host_size"])):
        return False
    if scheme >= 0:
        client["by_https"] = fields.is_same(data, scheme, scheme_end, _HTTPS, 0, _HTTPS.size)
        if client["by_https"] == 0 and not fields.is_same(data, scheme, scheme_end, _HTTP, 0, _HTTP.size):
            return False
    port = _number(data, number, number_end) if number >= 0 else _port_of(client, loop)
    who = _sender(trusted, data, list_, list_end, np.int64(client["ip"])) if list_ >= 0 else np.int64(client["ip"])
    if port < 0 or who < 0:
        return False
    client["who"] = who
    client["hop"] = _write(out, client, data, list_, list_end, port)
    return client["hop"] >= 0


@kernel
def _port_of(client, loop):
    """The port that a client came to."""
    return np.int64(loop["https_port"] if client["secured"] != 0 else loop["port"])


@part
def _write(out, client, data, first, last, port):
    """Write the fields, of a client that is named in the list ``data[first:last]``, if there is one. Their size."""
    to = text.put_all(out, np.int64(0), _FOR_FIELD)
    if last > first:
        to = text.put_all(out, text.put(out, to, data, first, last), _NEXT)
    to = text.put_ip(out, to, np.int64(client["ip"]))
    to = text.put_ip(out, text.put_all(out, to, _REAL_FIELD), np.int64(client["who"]))
    to = text.put_all(out, text.put_all(out, to, _PROTO_FIELD), _HTTPS if client["by_https"] != 0 else _HTTP)
    return text.end_line(out, text.put_decimal(out, text.put_all(out, to, _PORT_FIELD), port))


@part
def _value(heard, name):
    """Where the value of the one field with this name is: (first, last). The first is negative where there is none."""
    i, start = fields.find(heard, name, 0, name.size), np.int64(heard.head["start"])
    if i < 0 or heard.lines[i]["value"] >= heard.lines[i]["end"]:
        return fields.NONE, fields.NONE
    return start + np.int64(heard.lines[i]["value"]), start + np.int64(heard.lines[i]["end"])


@kernel
def _number(data, at, end):
    """A port as it is usually written, -1 for anything else."""
    number = np.int64(0)
    if end - at > _PORT_DIGITS or data[at] == _ZERO:
        return np.int64(-1)
    for place in range(at, end):
        if not _ZERO <= data[place] <= _NINE:
            return np.int64(-1)
        number = number * 10 + np.int64(data[place]) - _ZERO
    return number


@kernel
def _sender(trusted, data, first, last, ip):
    """The last address of a list that is no trusted proxy's, ``ip`` before it; -1 where that takes more than IPv4."""
    end, found = last, ip
    for _ in range(HOPS):
        if end < first or not announced.is_within(trusted, np.uint32(found)):
            break
        at = end
        while at > first and data[at - 1] != _COMMA:
            at -= 1
        found = _address(data, at, end)
        if found < 0:
            break
        end = at - 1
    return found


@kernel
def _address(data, at, end):
    """The address that ``data[at:end]`` is, with blanks around it or without; -1: it is none of IPv4."""
    while at < end and (data[at] == _SPACE or data[at] == _TAB):
        at += 1
    while end > at and (data[end - 1] == _SPACE or data[end - 1] == _TAB):
        end -= 1
    address, last = announced.read_address(data, at, end)
    return address if last == end and end > at else np.int64(-1)
