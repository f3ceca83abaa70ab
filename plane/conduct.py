"""What the policies of a route do to a request: which answer it gets, or what its endpoint gets. Pure.

Law: whoever carries requests and whoever explains them asks here, so that they agree. All that can be made ready of a
row of POLICY is made ready once, when it is put in force; a request whose route has none never comes here. The order is
that of NGINX's phases: what is denied, the body's limit, CORS, redirects, then limits, addresses, passwords.
"""

import random
import re
import string
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import quote

from plane.affinity import backend_key, cookie_of, held
from plane.passwords import credentials, hash_of, verified
from plane.policies import (
    ANY_CASE,
    ASKING_VARIABLES,
    NOBODY,
    PERMANENT_REDIRECT,
    REQUEST_VARIABLES,
    VARIABLES,
    Canary,
    Policies,
    Range,
    When,
)
from plane.regex import compiled, expanded
from plane.requestpath import normalised

VISIBLE = string.ascii_letters + string.digits + string.punctuation
ALWAYS, NEVER = "always", "never"
Fields = tuple[tuple[str, str], ...]
UPGRADE_REQUIRED = 426
_UPGRADE: Fields = (("Upgrade", "TLS/1.2, HTTP/1.1"), ("Connection", "Upgrade"))
_VARIABLE = re.compile(rf"\$({'|'.join(VARIABLES)})\b")
_HASHED = re.compile(rf"\$({'|'.join((*VARIABLES, *REQUEST_VARIABLES))})\b")
_ANY = re.compile(rf"\$({'|'.join((*VARIABLES, *REQUEST_VARIABLES, *ASKING_VARIABLES))})\b")


class Request(NamedTuple):
    """What of a request decides.

    host        Host as it was sent
    uri         path and query as they were sent
    client      IPv4 address of the client as a number, 0 where it is another or not known
    address     address of the client, of whatever kind, as text; empty where it is not known
    length      bytes that its Content-Length announces
    value       value of a field by its name, empty where there is none
    https_port  of the ingress, 0 where it is not known
    """

    method: str
    scheme: str
    host: str
    uri: str
    client: int
    length: int
    value: Callable[[str], str]
    https_port: int = 0
    address: str = ""

    @property
    def hostname(self) -> str:
        return self.host if self.host.endswith("]") else self.host.rpartition(":")[0] or self.host

    @property
    def who(self) -> int | str:
        """What the client is told apart from others by."""
        return self.client or self.address


class Answer(NamedTuple):
    """An answer of the plane's own; ``location`` where it redirects."""

    status: int
    reason: str
    location: str = ""
    fields: Fields = ()


class Upstream(NamedTuple):
    """What of a request is written anew for its endpoint; ``host`` is empty where it stays."""

    uri: str
    host: str = ""
    fields: Fields = ()


class Rule(NamedTuple):
    """The rule that takes a request, as a default backend is told; of a path miss there is no Service."""

    namespace: str
    ingress: str
    service: str = ""
    port: str = ""


def met(when: When, method: str, scheme: str, value: Callable[[str], str]) -> bool:
    """Whether a rule takes a request that came by the port of ``scheme``; ``value`` is of a field by its name."""
    if not (when.http if scheme == "http" else when.https) or (when.methods and method not in when.methods):
        return False
    wanted = [line.partition(":")[::2] for line in when.headers]
    fit = {name for name, text in wanted if any(_fits(text, said) for said in value(name).split(", "))}
    return all(name in fit for name, _ in wanted)


def _fits(wanted: str, value: str) -> bool:
    if wanted.startswith(ANY_CASE):
        text = value.encode("utf-8", "replace").decode()
        return bool(compiled(wanted.removeprefix(ANY_CASE), fold=True).search(text))
    return wanted.lower() == value.lower()


def over_limits(policies: Policies) -> tuple[str, str, str]:
    """Why a request must wait that is one too many a second, a minute, or at a time."""
    return (
        f"more than {policies.limit_rps} requests a second, and the burst is used up",
        f"more than {policies.limit_rpm} requests a minute, and the burst is used up",
        f"more than {policies.limit_connections} requests at a time",
    )


Limiter = Callable[[Policies, int | str], str]  # of ``Request.who``: why it must wait, empty where it may go on


class Conduct:
    """Policies, ready for requests. ``policies`` are they themselves."""

    def __init__(self, policies: Policies):
        self.policies = policies
        # Fields that endpoints do not get, or not from the client.
        self.hidden = frozenset(
            {*((b"authorization",) if policies.auth else ()), *(name.lower().encode() for name in policies.auth_fields)}
        )
        # Whether an address that is not let in may still be, by a password or by who is asked.
        self.any_lets_in = policies.auth_any and (policies.auth or bool(policies.auth_url))
        self._errors = frozenset(map(int, policies.errors)) if not policies.denied else frozenset()
        self._redirect = _VARIABLE.split(policies.redirect)
        self.hashed = _HASHED.split(policies.hash_by)  # pieces, as ``filled`` takes them
        self._rewrite = compiled(policies.rewrite_from, fold=True) if policies.rewrite_from else None
        # CORS is for any origin; fields that it gives to answers for its origins, whichever they are.
        self.any_origin = policies.cors_origins == ("*",)
        self.shared = tuple(_cors(policies))
        self._origins = re.compile("|".join(map(_origin, policies.cors_origins)), re.IGNORECASE)
        fields = (line.partition(": ") for line in policies.fields)
        self._fields = tuple((name, value) for name, _, value in fields)
        self._hsts = _hsts(policies)
        cors = (*self.shared, (ALLOW_ORIGIN, "")) if policies.cors else ()
        self.replaced = frozenset(name.lower().encode() for name, _ in (*cors, *self._hsts, *self._fields))
        self._mirror = pieces_of(policies.mirror)

    def answer(self, request: Request, limited: Limiter | None = None) -> Answer | None:
        """The plane's own answer, None where the request goes on.

        Passwords are another matter, ``admits``, and so is who is asked; and with ``any_lets_in`` addresses are, too.
        """
        policies = self.policies
        if policies.denied:
            return Answer(503, policies.denied)
        if policies.body_limit and request.length > policies.body_limit:
            return Answer(413, f"the body is larger than {policies.body_limit} bytes")
        if policies.cors and request.method == "OPTIONS" and self.allows(request):
            return Answer(204, "", fields=(("Content-Type", "text/plain charset=UTF-8"),))
        if policies.redirect:
            return _redirected(policies.redirect_status, self._url(request))
        if policies.https and request.scheme == "http":
            if not request.host:
                return Answer(400, "there is no Host that could be asked by HTTPS")
            if policies.https_status == UPGRADE_REQUIRED:
                return Answer(UPGRADE_REQUIRED, "this is served by HTTPS only", fields=_UPGRADE)
            url = _secured(request, keep_slash=policies.keep_slash)
            return _redirected(policies.https_status or PERMANENT_REDIRECT, url)
        if limited is not None and (why := limited(policies, request.who)):
            return Answer(503, why)
        return None if self.any_lets_in else self.turned_away(request)

    def turned_away(self, request: Request) -> Answer | None:
        """The answer to who comes from an address that is not let in, None for all others."""
        policies = self.policies
        if _denies(policies.sources_denied, request):
            return Answer(403, "the client's address is denied")
        if policies.sources_allowed and not _allows(policies.sources_allowed, request):
            return Answer(403, "the client's address is not one of those allowed")
        return None

    def welcomes(self, request: Request) -> bool:
        """Whether the client's address is one of those that are allowed."""
        return bool(self.policies.sources_allowed) and self.turned_away(request) is None

    def admits(self, authorization: str) -> bool:
        """Whether the value of an Authorization field has a password that is right."""
        return verified(*self.claimed(authorization))

    def claimed(self, authorization: str) -> tuple[str, str]:
        """The hash that an Authorization field must fit, empty where it names nobody, and the password that it has."""
        name, password = credentials(authorization) or ("", "")
        return hash_of(self.policies.auth_users, name), password

    def challenge(self) -> Answer:
        """What those are told who have no password."""
        realm = f'Basic realm="{self.policies.auth_realm}"'
        return Answer(401, "a name and a password are needed", fields=(("WWW-Authenticate", realm),))

    def fields(self, request: Request) -> Fields:
        """Fields that every answer gets, in place of those that it has."""
        hsts = self._hsts if request.scheme == "https" else ()  # by plain HTTP anybody could say it (RFC 6797, 7.2)
        if not self.policies.cors:
            return (*hsts, *self._fields)
        if self.any_origin:
            return (*hsts, (ALLOW_ORIGIN, "*"), *self.shared, *self._fields)
        # Answers differ by origin, which whoever keeps them must know, also where they have no field of it.
        allowed = ((ALLOW_ORIGIN, request.value("origin")), *self.shared) if self.allows(request) else ()
        return (*hsts, *allowed, VARY, *self._fields)

    def upstream(self, request: Request) -> Upstream:
        """What the endpoint gets."""
        policies = self.policies
        if self._rewrite is None:
            return Upstream(request.uri, policies.upstream_host)
        path, mark, query = request.uri.partition("?")
        found = self._rewrite.search(normalised(path)) if path[:1] == "/" else None
        if found is None:
            return Upstream(request.uri, policies.upstream_host)
        uri = expanded(policies.rewrite_to, found)
        prefix = expanded(policies.forwarded_prefix, found)
        fields = (("X-Forwarded-Prefix", prefix),) if prefix else ()
        return Upstream(("" if uri.startswith("/") else "/") + uri + mark + query, policies.upstream_host, fields)

    def excuses(self, status: int, *, own: bool) -> bool:
        """Whether the default backend makes the answer in the place of one with this status, the plane's ``own``."""
        return status in self._errors and (own or not self.policies.errors_own)

    def excuse(self, request: Request, status: int, of: Rule) -> Upstream:
        """What the default backend is asked for then."""
        _, mark, query = request.uri.partition("?")
        return Upstream(f"/{mark}{query}", "", (*_excuse(request, status, of), ("X-Original-URI", request.uri)))

    def stand_in(self, request: Request, of: Rule) -> Fields:
        """Fields of a request that goes to the default backend because its own has no endpoint."""
        return _excuse(request, 503, of)

    def mirror(self, request: Request) -> str:
        """The URL that gets a copy of a request, empty where none does."""
        return quote(filled(self._mirror, request), safe=VISIBLE, errors="surrogateescape")

    def allows(self, request: Request) -> bool:
        """Whether the request's origin is one that CORS is for."""
        return self.any_origin or bool(self._origins.fullmatch(request.value("origin")))

    def hash_key(self, request: Request) -> str:
        """What a request has in common with others that go to the same endpoint."""
        return filled(self.hashed, request)

    def _url(self, request: Request) -> str:
        """The URL of a redirect."""
        return filled(self._redirect, request)


def _excuse(request: Request, status: int, of: Rule) -> Fields:
    found = (
        ("X-Code", str(status)),
        ("X-Format", request.value("accept")),
        ("X-Namespace", of.namespace),
        ("X-Ingress-Name", of.ingress),
        ("X-Service-Name", of.service),
        ("X-Service-Port", of.port),
    )
    return tuple((name, value) for name, value in found if value)


def _redirected(status: int, url: str) -> Answer:
    return Answer(status, f"see {url}", url)


ALLOW_ORIGIN = "Access-Control-Allow-Origin"
VARY = ("Vary", "Origin")


def _hsts(policies: Policies) -> Fields:
    if not policies.hsts_max_age_s:
        return ()
    return (("Strict-Transport-Security", f"max-age={policies.hsts_max_age_s}; includeSubDomains"),)


def _cors(policies: Policies) -> Sequence[tuple[str, str]]:
    """The fields of CORS that do not depend on the request."""
    found = [("Access-Control-Allow-Credentials", "true")] if policies.cors_credentials else []
    found += [
        ("Access-Control-Allow-Methods", policies.cors_methods),
        ("Access-Control-Allow-Headers", policies.cors_headers),
    ]
    if policies.cors_expose:
        found.append(("Access-Control-Expose-Headers", policies.cors_expose))
    return [*found, ("Access-Control-Max-Age", str(policies.cors_max_age_s))]


def _origin(text: str) -> str:
    """The expression for an origin, in which ``*`` stands for one label."""
    return re.escape(text).replace(r"\*", "[A-Za-z0-9-]+", 1)


def _holds(ranges: tuple[Range, ...], client: int) -> bool:
    return any(client & mask == ip for ip, mask in ranges)


def _denies(ranges: tuple[Range, ...], request: Request) -> bool:
    """Ranges of IPv6 are not compared: where there is one, all clients with such an address are denied."""
    return _holds(ranges, request.client) or (":" in request.address and NOBODY in ranges)


def _allows(ranges: tuple[Range, ...], request: Request) -> bool:
    """An address of IPv6 is in no range, also not in that of all of IPv4."""
    return ":" not in request.address and _holds(ranges, request.client)


def _trimmed(uri: str) -> str:
    return uri.removesuffix("/")


def pieces_of(text: str) -> list[str]:
    """Text that holds any variables, taken apart for ``filled``."""
    return _ANY.split(text)


def filled(pieces: Sequence[str], request: Request) -> str:
    """Pieces that alternate with names of variables, with their values."""
    return "".join(_variable(piece, request) if number % 2 else piece for number, piece in enumerate(pieces))


def _variable(name: str, request: Request) -> str:
    """Value of a variable, as NGINX has it."""
    kind, _, rest = name.partition("_")
    if kind == "arg":
        pairs = (pair.partition("=") for pair in request.uri.partition("?")[2].split("&"))
        return next((value for key, _, value in pairs if key.lower() == rest.lower()), "")
    if kind == "cookie":
        return cookie_of(request.value("cookie"), rest)
    if kind == "http" and name != "http_host":
        return request.value(rest.replace("_", "-"))
    if name == "escaped_request_uri":
        return quote(request.uri, safe="", errors="surrogateescape")
    if name == "remote_user":
        return (credentials(request.value("authorization")) or ("", ""))[0]
    if name == "uri":
        return normalised(request.uri.partition("?")[0])
    if name == "args":
        return request.uri.partition("?")[2]
    if name == "remote_addr":
        return request.address
    if name == "request_method":
        return request.method
    if name in ("scheme", "pass_access_scheme"):
        return request.scheme
    if name == "http_host":
        return request.host
    if name == "host":
        return request.hostname.lower()
    return request.uri if name == "request_uri" else _trimmed(request.uri)


def _secured(request: Request, *, keep_slash: bool) -> str:
    """The URL by HTTPS. Who came by a port of the plane that is not the usual one is sent to the other such port."""
    port = f":{request.https_port}" if request.host != request.hostname and request.https_port not in (0, 443) else ""
    return f"https://{request.hostname}{port}{request.uri if keep_slash else _trimmed(request.uri)}"


class Choice(NamedTuple):
    """Whether a request goes to the canary, and why; ``weighed``: by chance, with ``weight`` out of ``total``."""

    canary: bool
    why: str
    weighed: bool = False


def choose(
    canary: Canary, request: Request, policies: Policies, services: tuple[str, str], *, is_served: bool
) -> Choice:
    """Which of the two ``services``, the rule's own and the canary's, a request goes to: in ingress-nginx's order.

    ``is_served``: the canary has an endpoint; without one it takes nothing, as in ingress-nginx
    (``route_to_alternative_balancer`` of its balancer.lua).
    """
    if not is_served:
        return Choice(False, f"{services[1]} has no endpoint, so the canary takes nothing")
    if policies.cookie and not canary.forgetful:
        _, sticks_to = held(request.value("cookie"), policies.cookie)
        if sticks_to and sticks_to in map(backend_key, services):
            return Choice(sticks_to == backend_key(services[1]), f"cookie {policies.cookie} keeps to its Service")
    if canary.header and (value := request.value(canary.header)):
        decided = _by_header(canary, value)
        if decided is not None:
            return Choice(decided, f"header {canary.header} is {value}")
    if canary.cookie and (value := cookie_of(request.value("cookie"), canary.cookie)) in (ALWAYS, NEVER):
        return Choice(value == ALWAYS, f"cookie {canary.cookie} is {value}")
    return Choice(random.randrange(canary.total) < canary.weight, f"weight {canary.weight} of {canary.total}", True)


def _by_header(canary: Canary, value: str) -> bool | None:
    """What a header decides, None where it decides nothing."""
    if canary.header_value:
        return True if value == canary.header_value else None
    if canary.header_pattern:
        text = value.encode("utf-8", "replace").decode()  # bytes that are no text match nothing
        return True if compiled(canary.header_pattern).search(text) else None
    return {ALWAYS: True, NEVER: False}.get(value)
