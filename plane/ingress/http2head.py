"""What the header block of a request in HTTP/2 must be like (RFC 9113, 8.2 and 8.3). Pure.

Law: it goes on in HTTP/1.1, whose lines and blanks divide what HTTP/2 counts: nothing goes on that could be taken for
two fields, two requests or another framing there. One request that is malformed is refused alone; the others of its
connection, which may be of other people, are not touched.
"""

import re
from collections.abc import Iterable

from plane.ingress import forwarding
from plane.ingress.downstream import Field
from plane.ingress.forwarding import RefusedError, RequestHead

FIELDS = 128  # of one request, as in HTTP/1.1
LONGEST = 2**63  # no body has so many bytes
METHOD, SCHEME, PATH, AUTHORITY = b":method", b":scheme", b":path", b":authority"
_PSEUDO = (METHOD, SCHEME, PATH, AUTHORITY)
_ONE_HOP = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_METHOD = re.compile(rb"[A-Z][A-Z_-]*")  # as in NGINX
_TARGET = re.compile(rb"/[\x21-\x7e]*")


class Http2Head:
    """A header block. ``fields`` are those that are no pseudo-header fields, cookies in one."""

    def __init__(self, block: Iterable[Field]):
        self.fields: list[Field] = []
        self._pseudo: dict[bytes, bytes] = {}
        self._wrong = ""
        for name, value in block:
            if name[:1] != b":":
                self.fields.append((name, value))
            elif name not in _PSEUDO or name in self._pseudo or self.fields:
                self._wrong = "a pseudo-header field is unknown, twice there, or behind others"
            else:
                self._pseudo[name] = value

    @property
    def method(self) -> str:
        return self._pseudo.get(METHOD, b"").decode("latin-1")

    @property
    def target(self) -> str:
        return self._pseudo.get(PATH, b"").decode("latin-1")

    def check(self) -> None:
        """Raises RefusedError where it may not go on."""
        if len(self.fields) > FIELDS:
            raise RefusedError(431, "too many header fields")
        wrong = self._wrong or self._wrong_pseudo() or next(filter(None, map(_wrong, self.fields)), "")
        if wrong:
            raise RefusedError(400, wrong)
        if len(self._pseudo.get(PATH, b"")) > forwarding.TARGET_BYTES:
            raise RefusedError(414, f"the target is longer than {forwarding.TARGET_BYTES} bytes")

    def find_host(self, head: RequestHead) -> None:
        """``head.host`` becomes that of :authority, with which Host must agree. Raises RefusedError."""
        authority = self._pseudo.get(AUTHORITY, head.host)
        hosts = [value for name, value in self.fields if name == b"host"]
        if not authority or len(hosts) > 1 or (hosts and hosts[0].lower() != authority.lower()):
            raise RefusedError(400, "the host is missing, or said twice, and not the same")
        head.host = authority

    def length(self) -> int | None:
        """What Content-Length says, None without one. Raises RefusedError."""
        said = [value for name, value in self.fields if name == b"content-length"]
        if not said:
            return None
        if len(said) > 1 or not said[0].isdigit() or len(said[0]) > len(str(LONGEST)) or int(said[0]) >= LONGEST:
            raise RefusedError(400, "Content-Length is no number, or there are several")
        return int(said[0])

    def _wrong_pseudo(self) -> str:
        method, path = self._pseudo.get(METHOD, b""), self._pseudo.get(PATH, b"")
        if not _METHOD.fullmatch(method):
            return "no HTTP method"
        if method == b"CONNECT":
            return ""
        if self._pseudo.get(SCHEME) not in (b"https", b"http"):
            return "the scheme is neither https nor http"
        if not _TARGET.fullmatch(path) and (method, path) != (b"OPTIONS", b"*"):
            return "the path is none"
        return "" if _VALUE.fullmatch(self._pseudo.get(AUTHORITY, b"")) else "the authority is none"


def _wrong(field: Field) -> str:
    """Why a field may not go on, empty where it may."""
    name, value = field
    if not _NAME.fullmatch(name):
        return "the name of a header field is empty, or has a character that it may not have"
    if not _VALUE.fullmatch(value) or value != value.strip(b" \t"):
        return "the value of a header field has a character that it may not have, or a blank at an end"
    if name in _ONE_HOP or (name == b"te" and value.lower() != b"trailers"):
        return "a header field speaks of the connection, which HTTP/2 does otherwise"
    return ""
