"""Values of annotations, which are text. Each function reads one, or raises ValueError with what it should be."""

import re
import ssl
from collections.abc import Callable
from ipaddress import IPv4Network, ip_network
from typing import Any, NamedTuple

from plane.headerlists import WRITTEN
from plane.policies import ANY_CASE, ASKING_VARIABLES, NOBODY, REQUEST_VARIABLES, Range
from plane.regex import why_not

Reader = Callable[[str], Any]
LONGEST = 2**31 - 1
TLS_VERSIONS = ("TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")
_FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")
_REQUESTED = "scheme|http_host|host|request_uri"
_ASKED = "|".join((_REQUESTED, *ASKING_VARIABLES, "remote_addr", "request_method", r"cookie_\w+", r"http_\w+"))
_VISIBLE = re.compile(r"[\x21-\x7e]+\Z")


class Unfit(NamedTuple):
    """Why an annotation cannot be honoured, with a remedy."""

    annotation: str
    reason: str


def boolean(text: str) -> bool:
    """As Go's strconv.ParseBool."""
    if text in _TRUE + _FALSE:
        return text in _TRUE
    raise ValueError('write "true" or "false"')


def whole(low: int = 0, high: int = LONGEST) -> Reader:
    """A number from ``low`` to ``high``."""

    def read(text: str) -> int:
        digits = text.removeprefix("-")
        if digits.isascii() and digits.isdecimal() and low <= int(text) <= high:
            return int(text)
        upto = f"to {high}" if high < LONGEST else "upwards"
        raise ValueError(f'write a whole number from {low} {upto}, as in "{max(low, 1)}"')

    return read


def one_of(*words: str, fold: bool = False) -> Reader:
    def read(text: str) -> str:
        found = text.strip().lower() if fold else text.strip()
        if found in words:
            return found
        raise ValueError(f"write {'one of ' * (len(words) > 1)}{', '.join(words)}")

    return read


def words_of(*words: str) -> Reader:
    """Several of the words, with spaces between."""

    def read(text: str) -> tuple[str, ...]:
        found = tuple(text.split())
        if found and set(found) <= set(words):
            return found
        raise ValueError(f"write some of: {' '.join(words)}")

    return read


def list_of(*words: str) -> Reader:
    """Several of the words, with commas between, in their order here."""

    def read(text: str) -> tuple[str, ...]:
        found = {part.strip() for part in text.split(",")} - {""}
        if found and found <= set(words):
            return tuple(word for word in words if word in found)
        raise ValueError(f"write some of {', '.join(words)}, with commas between")

    return read


def methods(text: str) -> tuple[str, ...]:
    """Methods of HTTP, in order."""
    found = {part.strip().upper() for part in text.split(",")} - {""}
    if not found or not all(re.fullmatch("[A-Z]+", name) for name in found):
        raise ValueError('write methods with commas between, as in "GET,POST"')
    return tuple(sorted(found))


def size(text: str) -> int:
    """Bytes, as NGINX writes them."""
    found = re.fullmatch(r"(\d{1,9})([bkmg]?)", text.strip().lower(), re.ASCII)
    if not found:
        raise ValueError('write a number of bytes, as in "8m", "512k" or "0" for no limit')
    return int(found[1]) * _UNITS[found[2]]


def ranges(text: str) -> tuple[Range, ...]:
    """Addresses and networks; one of IPv6 holds no client of ours."""
    found = []
    for part in filter(None, map(str.strip, text.split(","))):
        try:
            network = ip_network(part, strict=False)
        except ValueError:
            raise ValueError('write addresses or networks with commas between, as in "10.0.0.0/8,192.0.2.7"') from None
        found.append(Range.of(network) if isinstance(network, IPv4Network) else NOBODY)
    if not found:
        raise ValueError('write at least one address or network, as in "10.0.0.0/8"')
    return tuple(found)


def url(*variables: str) -> Reader:
    """Where to redirect to; NGINX's ``variables`` may stand in it."""

    def read(text: str) -> str:
        unknown = sorted(set(re.findall(r"\$\w*", text)) - {f"${name}" for name in variables})
        if unknown:
            raise ValueError(f"{unknown[0]} is not known here; of variables it takes ${', $'.join(variables)}")
        if not re.match(r"(https?|\$scheme)://[^/]", text) or not _VISIBLE.match(text):
            raise ValueError('write a URL, as in "https://example.com/"')
        return text

    return read


def hashed(text: str) -> str:
    """What requests are told apart by: text with variables."""
    known = "|".join(REQUEST_VARIABLES)
    unknown = [name for name in re.findall(r"\$(\w*)", text) if not re.fullmatch(rf"{_REQUESTED}|{known}", name)]
    if unknown or "$" not in text:
        plain = ", ".join(f"${name}" for name in _REQUESTED.split("|") + list(REQUEST_VARIABLES[:4]))
        said = f"${unknown[0]} is not known here; " if unknown else ""
        raise ValueError(f"{said}write variables, of {plain}, $arg_…, $cookie_… and $http_…")
    return line(text)


def asked_url(text: str) -> str:
    """A URL that is asked on behalf of a request: its host may hold ``$host``, and what follows other variables."""
    if not re.match(r"https?://([A-Za-z0-9._-]|\$host\b)+(:\d{1,5})?([/?]|\Z)", text) or not _VISIBLE.match(text):
        raise ValueError(
            'write a URL, as in "http://auth.default.svc.cluster.local/verify" or "https://$host/verify"; '
            "in the place of a host it takes no variable but $host"
        )
    return _with_variables(text, _ASKED)


def mirrored_url(text: str) -> str:
    """A URL that gets copies of requests; variables may follow its host, of which no client may say a part."""
    if not re.match(r"https?://[A-Za-z0-9._-]+(:\d{1,5})?([/?]|\$request_uri\b|\Z)", text) or not _VISIBLE.match(text):
        raise ValueError('write a URL whose host holds no variable, as in "https://test.example.com$request_uri"')
    return _with_variables(text, _ASKED)


def sign_in(text: str) -> str:
    """A URL or a path that a client is sent to."""
    if not re.match(r"(https?|\$scheme|\$pass_access_scheme)://[^/]|/", text) or not _VISIBLE.match(text):
        raise ValueError('write a URL, as in "https://$host/oauth2/start"')
    return _with_variables(text, f"{_ASKED}|uri|args|arg_\\w+")


def cache_key(text: str) -> str:
    """What answers are told apart by, which are kept."""
    if not re.fullmatch(r"[A-Za-z0-9_$-]*\$[A-Za-z0-9_$-]*", text):
        raise ValueError('write variables of NGINX, as in "$remote_user$http_authorization"')
    return _with_variables(text, _ASKED)


def _with_variables(text: str, known: str) -> str:
    unknown = [name for name in re.findall(r"\$(\w*)", text) if not re.fullmatch(known, name)]
    if unknown:
        raise ValueError(
            f"${unknown[0]} is not known here; of variables it takes $scheme, $host, $http_host, $request_uri, "
            "$escaped_request_uri, $remote_addr, $request_method, $cookie_… and $http_…"
        )
    return text


def path(text: str) -> str:
    if not text.startswith("/") or not _VISIBLE.match(text):
        raise ValueError('write a path that begins with /, as in "/app"')
    return text


def literal_path(text: str) -> str:
    """A path in which nothing is a variable."""
    if not re.fullmatch(r"/[A-Za-z0-9._~/:-]*", text):
        raise ValueError('write a path of letters, digits and - . _ ~ / :, as in "/app"')
    return text


def rewritten(text: str) -> str:
    if not re.fullmatch(r"[/$][A-Za-z0-9._~/:$-]*", text):
        raise ValueError('write a path of letters, digits and - . _ ~ / : with $1 to $9, as in "/$2"')
    return text


def host(text: str) -> str:
    """What goes into a Host field."""
    if not re.fullmatch(r"[A-Za-z0-9._:\[\]-]+", text):
        raise ValueError('write a host, as in "internal.example.com" or "web:8080"')
    return text


def hosts(text: str) -> tuple[str, ...]:
    """Names of hosts, lower case, in order."""
    found = {part.strip().lower() for part in text.split(",") if part.strip()}
    for name in found:
        if not re.fullmatch(r"(\*\.)?[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name):
            raise ValueError('write names of hosts with commas between, as in "example.org,*.example.org"')
    return tuple(sorted(found))


def aliases(text: str) -> tuple[str, ...]:
    """Names of hosts, and expressions for such behind ``~``, in order."""
    parts = [part.strip() for part in text.split(",")]
    expressions = sorted({part for part in parts if part.startswith("~")})
    for part in expressions:
        pattern(part.removeprefix("~"))
    return (*hosts(",".join(part for part in parts if not part.startswith("~"))), *expressions)


def field_name(text: str) -> str:
    if not _FIELD_NAME.match(text.strip()):
        raise ValueError('write the name of a header or cookie, as in "X-Canary"')
    return text.strip()


def field_values(text: str) -> str:
    """Values of a field, or one expression behind ``~*``."""
    if text.startswith(ANY_CASE):
        pattern(text.removeprefix(ANY_CASE))
    return line(text)


def line(text: str) -> str:
    """Text that fits into a header."""
    if not text or not text.isascii() or not text.isprintable():
        raise ValueError("write printable ASCII text")
    return text


def quotable(text: str) -> str:
    """Text that fits into a header between quotes."""
    if '"' in text or "\\" in text:
        raise ValueError('write text without " and \\')
    return line(text)


def secret(text: str) -> str:
    """A Secret, by name or by namespace/name."""
    if not re.fullmatch(r"([a-z0-9-]+/)?[a-z0-9][a-z0-9.-]*", text):
        raise ValueError('write the name of a Secret, as in "users"')
    return text


def switch(text: str) -> bool:
    """As NGINX writes what is on or off."""
    if text not in ("on", "off"):
        raise ValueError('write "on" or "off"')
    return text == "on"


def protocols(text: str) -> str:
    """Versions of TLS, in order."""
    found = set(text.split())
    if not found or not found <= set(TLS_VERSIONS):
        raise ValueError(f"write some of: {' '.join(TLS_VERSIONS)}")
    return " ".join(sorted(found))


def ciphers(text: str) -> str:
    """Ciphers as OpenSSL's library lists them, of which it has some."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).set_ciphers(text)
    except ssl.SSLError:
        raise ValueError('write ciphers as OpenSSL does, as in "HIGH:!aNULL"') from None
    return line(text)


def token(text: str) -> str:
    """Text that fits into an attribute of a cookie."""
    if not _VISIBLE.match(text) or ";" in text or "," in text:
        raise ValueError('write text without spaces, ";" and ","')
    return text


def names(text: str) -> str:
    """A list for a header: names or * with commas between."""
    for name in text.rstrip(", ").split(","):
        if not re.fullmatch(r"[A-Za-z0-9_-]+|\*", name.strip()):
            raise ValueError('write names with commas between, as in "X-One, X-Two"')
    return text.strip()


def visible(text: str) -> str:
    """Text for a header, without spaces."""
    if not _VISIBLE.match(text):
        raise ValueError("write printable ASCII text without spaces")
    return text


def field_names(text: str) -> tuple[str, ...]:
    """Names of fields that go on, none of those that say where a request ends or goes, or that the plane writes."""
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in found:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise ValueError('write names with commas between, as in "X-User, X-Groups"')
        if name.lower() in WRITTEN:
            raise ValueError(f"{name} is written by the plane alone; leave it out")
    return found


def statuses(text: str) -> tuple[str, ...]:
    """Statuses of errors, in order."""
    found = {part.strip() for part in text.split(",") if part.strip()}
    if not found or not all(re.fullmatch(r"[45]\d\d", part) for part in found):
        raise ValueError('write statuses from 400 to 599 with commas between, as in "404,503"')
    return tuple(sorted(found))


def service(text: str) -> str:
    """The name of a Service."""
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", text):
        raise ValueError('write the name of a Service of the same namespace, as in "errors"')
    return text


def cache_times(text: str) -> tuple[str, ...]:
    """Statuses and for how long answers with them are kept, as NGINX writes it."""
    found = tuple(" ".join(part.split()) for part in text.split(",") if part.strip())
    for part in found:
        if not re.fullmatch(r"((\d{3}|any) )*\d+(ms|s|m|h|d|w|M|y)( \d+(ms|s|m|h|d|w|M|y))*", part):
            raise ValueError('write statuses and a time, with commas between, as in "200 202 10m, 401 30s"')
    return found


def config_map(text: str) -> str:
    """A ConfigMap, by name or by namespace/name."""
    if not re.fullmatch(r"([a-z0-9-]+/)?[a-z0-9][a-z0-9.-]*", text):
        raise ValueError('write the name of a ConfigMap, as in "default/headers"')
    return text


def origins(text: str) -> tuple[str, ...]:
    found = tuple(part.strip() for part in text.split(",") if part.strip())
    for origin in found:
        if not re.fullmatch(r"[a-z]+://(\*\.)?[A-Za-z0-9.-]+(:\d+)?|\*|null", origin):
            raise ValueError('write origins with commas between, as in "https://example.com, https://*.example.org"')
    if not found:
        raise ValueError('write at least one origin, as in "https://example.com", or "*"')
    return ("*",) if "*" in found else found


def pattern(text: str) -> str:
    """A regular expression."""
    if reason := why_not(text):
        raise ValueError(reason)
    return text
