"""Which header fields go on, in either direction, and which are ours to write. Pure functions on bytes.

Law: framing and the connection end here. Fields that speak of one hop are dropped and written anew, and so are the
forwarding fields, which say what *we* saw (RFC 9110, 7.6; ingress-nginx's defaults), after what a proxy that we trust
has said; their kin that we do not write go on from such a proxy only; all others go on as they came, in their order. A
request that two parsers could take differently is refused, or both its connections are closed after it.
"""

import random
import re
import time
from collections.abc import Collection, Iterable, Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from plane.ingress.edge import Edge, address_of

CLOSE = b"Connection: close"
SERVER = b"Server: trafficplane"
UPGRADE = (b"Connection: Upgrade", b"Upgrade: websocket")
LAST_CHUNK = b"0\r\n\r\n"
TARGET_BYTES = 8192  # of a request's target, as in NGINX
HEAD_BYTES = 32768  # of all header fields of a request: NGINX's four buffers of 8 KiB
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})  # RFC 9110, 9.2.2
# Methods that nobody is asked for: CONNECT, and those of RTSP, whose version llhttp takes too (RFC 2326, 10).
_OF_RTSP = ("ANNOUNCE", "DESCRIBE", "FLUSH", "GET_PARAMETER", "PAUSE", "PLAY", "RECORD", "REDIRECT", "SET_PARAMETER")
NOT_HERE = frozenset({"CONNECT", *_OF_RTSP, "SETUP", "TEARDOWN"})
BODILESS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})  # a body is unusual and may be taken for the next request

# What only a trusted proxy may say.
_TOLD = frozenset({b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-port", b"x-forwarded-proto"})
_DROP, _HOST, _CONNECTION, _LENGTH, _ENCODING, _TE, _UPGRADE, _EXPECT, _REQUEST_ID, _HEARSAY = range(1, 11)
_REQUEST_FIELDS = {
    b"host": _HOST,
    b"connection": _CONNECTION,
    b"content-length": _LENGTH,
    b"transfer-encoding": _ENCODING,
    b"te": _TE,
    b"upgrade": _UPGRADE,
    b"expect": _EXPECT,
    b"x-request-id": _REQUEST_ID,
    b"keep-alive": _DROP,
    b"proxy-connection": _DROP,
    b"x-forwarded-for": _DROP,
    b"x-forwarded-host": _DROP,
    b"x-forwarded-port": _DROP,
    b"x-forwarded-proto": _DROP,
    b"x-real-ip": _DROP,
    b"forwarded": _HEARSAY,
    b"x-forwarded-scheme": _HEARSAY,
    b"x-original-forwarded-for": _HEARSAY,
    b"x-scheme": _HEARSAY,
}
# Fields of an answer that do not simply go on; the values are asked for by name.
ANSWER_FIELDS = frozenset(
    {b"connection", b"content-length", b"transfer-encoding", b"keep-alive", b"proxy-connection", b"upgrade", b"trailer"}
)
# A host name or an address, with a port or without (RFC 3986, 3.2.2; names as DNS and Windows have them, with "_").
_AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_PLAIN = ("http", "ws")  # schemes that are not secured; of others nobody is sent to HTTPS
_HEX_DIGITS = b"0123456789abcdefABCDEF"
_DESYNC = frozenset({b"transfer_encoding", b"content_length"})


class RefusedError(Exception):
    """A request that is answered here and goes nowhere; ``lines`` are further fields of the answer."""

    def __init__(self, status: int, reason: str, lines: Sequence[bytes] = ()):
        super().__init__(reason)
        self.status = status
        self.lines = lines


class RequestHead:
    """What the header of a request says, and ``lines``, those of its fields that go on.

    ``trusted``: it comes from a proxy whose forwarding fields count; they are in ``told`` then.
    """

    __slots__ = (
        "chunked",
        "client",
        "desync",
        "expects_continue",
        "host",
        "length",
        "lines",
        "named",
        "request_id",
        "told",
        "upgrade",
        "upstream_host",
    )

    def __init__(self, fields: Iterable[tuple[bytes, bytes]], *, trusted: bool = False):
        """Raises RefusedError with 417, 431 or 501."""
        self.lines: list[bytes] = []
        self.client = ""  # who sent it, once that has been found out
        self.host = b""
        self.upstream_host = b""  # what the endpoint is told instead, if anything
        self.length = b""
        self.chunked = False
        self.upgrade = b""
        self.expects_continue = False
        self.request_id = b""
        self.named: set[bytes] = set()  # by Connection
        self.told: dict[bytes, bytes] = {}
        self.desync = False  # another parser may see another end of this request: neither connection is used again
        lines, size = self.lines, 0
        for name, value in fields:
            size += len(name) + len(value) + 4
            key = name.lower()
            rule = _REQUEST_FIELDS.get(key)
            if rule is None:
                # Who maps "-" to "_", as CGI does, would take it for a field that we drop or write. NGINX drops it too.
                if b"_" not in key:
                    lines.append(name + b": " + value)
                elif key in _DESYNC:
                    self.desync = True
            elif rule == _HOST:
                self.host = value
            elif rule == _HEARSAY:
                if trusted:
                    lines.append(name + b": " + value)
            elif rule != _DROP:
                self._note(rule, value)
            elif trusted and key in _TOLD:
                self.told[key] = self.told[key] + b", " + value if key in self.told else value
        if size > HEAD_BYTES:
            raise RefusedError(431, f"the header fields are longer than {HEAD_BYTES} bytes")
        if self.named:
            self.lines = without(lines, self.named)

    def _note(self, rule: int, value: bytes) -> None:
        if rule == _CONNECTION:
            self.named |= tokens(value)
        elif rule == _LENGTH:
            self.length = value
        elif rule == _ENCODING:
            if value.strip().lower() != b"chunked":
                raise RefusedError(501, "the only transfer coding taken is chunked")
            self.chunked = True
        elif rule == _TE:
            if b"trailers" in tokens(value):
                self.lines.append(b"TE: trailers")
        elif rule == _UPGRADE:
            self.upgrade = value
        elif rule == _REQUEST_ID:
            self.request_id = value
        else:
            if value.strip().lower() != b"100-continue":
                raise RefusedError(417, "the only expectation met is 100-continue")
            self.expects_continue = True

    @property
    def asked_host(self) -> bytes:
        """The host that the client asked for: what a trusted proxy says first, if that may be one, else Host."""
        said = self.told.get(b"x-forwarded-host", b"").partition(b",")[0].strip()
        return said if said and is_authority(said) else self.host

    @property
    def is_websocket(self) -> bool:
        """Whether the client asks to go on as a WebSocket, the one upgrade that is passed on."""
        return b"upgrade" in self.named and self.upgrade.strip().lower() == b"websocket"


@lru_cache(4096)
def is_authority(host: bytes) -> bool:
    """Whether this may stand in Host: a name or an address, with a port or without; nothing that a path may hold."""
    return _AUTHORITY.fullmatch(host) is not None


@lru_cache(256)
def tokens(value: bytes) -> frozenset[bytes]:
    """The members of a list field, lower case."""
    return frozenset(token.strip().lower() for token in value.split(b","))


def without(lines: Sequence[bytes], names: Collection[bytes]) -> list[bytes]:
    """The field lines whose name, in lower case, is not one of ``names``; TE stays, which Connection must name."""
    return [line for line in lines if (name := line[: line.index(b":")].lower()) not in names or name == b"te"]


class Origin:
    """Who is at the other end of a connection: the client, or a proxy of ``edge.trusted`` that speaks for others.

    peer     its address, and ``peer_port``
    scheme   by which it came, ``http`` or ``https``, to ``port``
    trusted  whether what its requests say of their clients counts
    """

    __slots__ = ("_edge", "_fields", "peer", "peer_port", "port", "scheme", "trusted")

    def __init__(self, peer: str, scheme: str, port: int, edge: Edge, peer_port: int = 0):
        self.peer = peer = address_of(peer) or peer
        self.peer_port = peer_port
        self.scheme = scheme
        self.port = port
        self.trusted = edge.trusts(peer)
        self._edge = edge
        self._fields = _forwarding(peer, peer, scheme, port)

    def client(self, head: RequestHead) -> str:
        """The address of who sent the request."""
        if not self.trusted:
            return self.peer
        if not head.client:
            head.client = self._edge.client(self.peer, _text(head.told.get(b"x-forwarded-for")))
        return head.client

    def came_by(self, head: RequestHead) -> str:
        """The scheme by which the client sent the request, ``http`` or ``https``: the first that a proxy names."""
        said = _text(head.told.get(b"x-forwarded-proto")).partition(",")[0].strip().lower() or self.scheme
        return "http" if said in _PLAIN else "https"

    def fields(self, head: RequestHead) -> bytes:
        """The forwarding fields of a request: our own, or those of a trusted proxy with it added to the list."""
        told = head.told
        if not told:
            return self._fields
        before = _text(told.get(b"x-forwarded-for"))
        chain = f"{before}, {self.peer}" if before else self.peer
        scheme = _text(told.get(b"x-forwarded-proto")) or self.scheme
        return _forwarding(chain, self.client(head), scheme, _text(told.get(b"x-forwarded-port")) or self.port)


def _forwarding(chain: str, client: str, scheme: str, port: int | str) -> bytes:
    return (
        f"X-Forwarded-For: {chain}\r\nX-Real-IP: {client}\r\nX-Forwarded-Proto: {scheme}\r\nX-Forwarded-Port: {port}"
    ).encode("latin-1")


def _text(value: bytes | None) -> str:
    return value.decode("latin-1") if value else ""


def field_lines(fields: Iterable[tuple[str, str]]) -> list[bytes]:
    """Fields as lines."""
    return [f"{name}: {value}".encode("utf-8", "surrogateescape") for name, value in fields]


def new_request_id() -> bytes:
    """16 hex digits."""
    return b"%016x" % random.getrandbits(64)


def request_number(request_id: bytes) -> int:
    """The 64-bit number that a request id of 16 hex digits is, 0 for any other id."""
    return int(request_id, 16) if len(request_id) == 16 and not request_id.strip(_HEX_DIGITS) else 0


def request_bytes(method: str, target: str, head: RequestHead, hop: bytes, framing: Sequence[bytes]) -> bytes:
    """The head of a request as it goes to an endpoint; ``hop`` are the forwarding fields, ``Origin.fields``."""
    line = f"{method} {target} HTTP/1.1".encode("utf-8", "surrogateescape")
    number = head.request_id
    ours = (
        line,
        b"Host: " + (head.upstream_host or head.host),
        hop,
        b"X-Forwarded-Host: " + head.asked_host,
        b"X-Request-ID: " + number,
    )
    return b"\r\n".join((*ours, *head.lines, *framing, b"", b""))


def readdressed(head: bytes, host: str) -> bytes:
    """What ``request_bytes`` gave, with another Host, which is its first field."""
    line, _, rest = head.split(b"\r\n", 2)
    return b"\r\n".join((line, b"Host: " + host.encode(), rest))


@lru_cache(1024)
def status_line(status: int, reason: bytes) -> bytes:
    return b"HTTP/1.1 %d %b" % (status, reason)


def chunk(data: bytes) -> bytes:
    """A piece of a body whose length is not said before."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def date() -> bytes:
    """A Date field of now."""
    return _date(int(time.time()))


@lru_cache(1)
def _date(second: int) -> bytes:
    return b"Date: " + formatdate(second, usegmt=True).encode()


def own_message(status: int, reason: str, lines: Sequence[bytes] = ()) -> tuple[bytes, list[bytes], bytes]:
    """(phrase, field lines with these among them, body) of an answer of ours; 204 has no body."""
    phrase = HTTPStatus(status).phrase
    if status == HTTPStatus.NO_CONTENT:
        return phrase.encode(), [SERVER, date(), *lines], b""
    typed = any(line[:13].lower() == b"content-type:" for line in lines)
    kind = () if typed else (b"Content-Type: text/plain; charset=utf-8",)
    body = f"{status} {phrase}: {reason}\n".encode("utf-8", "surrogateescape")
    return phrase.encode(), [SERVER, date(), *kind, *lines], body


def own_answer(status: int, reason: str) -> bytes:
    """An answer of ours to what was no request: in HTTP/1.1, whole, and the connection closes after it."""
    phrase, lines, body = own_message(status, reason)
    length = b"Content-Length: %d" % len(body)
    return b"\r\n".join((status_line(status, phrase), *lines, length, CLOSE, b"", body))
