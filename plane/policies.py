"""What is asked of a route besides forwarding its requests, in no controller's dialect, and as rows of tables. Pure.

Law: a feature exists once. Dialects (``plane.dialects``) turn annotations into ``Asked``; ``plane.routes`` makes of
that, for each path, ``Policies``, a row of POLICY. Every field of ``Policies`` is a column of that name, and a default
does nothing, so that row 0, the default of all, costs a request nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network
from typing import Any, NamedTuple

import numpy as np

from kernels.layout import CANARY, NETWORK, POLICY, RETRY_CONDITIONS, STRING, WHEN
from plane.growing import Growing

# Variables of a redirect: what the request had. ``$trimmed_uri`` is ``$request_uri`` without a slash at its end.
VARIABLES = ("scheme", "http_host", "host", "request_uri", "trimmed_uri")
# Further ones of what requests are told apart by; of the last three the name goes on: ``$arg_page``, ``$http_x_user``.
REQUEST_VARIABLES = ("uri", "args", "remote_addr", "request_method", r"arg_\w+", r"cookie_\w+", r"http_\w+")
# And of what is asked of others on behalf of a request; ``$uri`` and ``$args`` mean something else there, in NGINX.
ASKING_VARIABLES = ("escaped_request_uri", "pass_access_scheme", "remote_user")
PERMANENT_REDIRECT = 308
ANY_CASE = "~*"


class Range(NamedTuple):
    """Addresses: those with ``address & mask == ip``."""

    ip: int
    mask: int

    @classmethod
    def of(cls, network: IPv4Network) -> "Range":
        return cls(int(network.network_address), int(network.netmask))

    def __str__(self) -> str:
        return str(IPv4Network((self.ip, self.mask.bit_count()))) if not self.ip & ~self.mask else "no address"


NOBODY = Range(1, 0)  # holds no address at all: what a range of IPv6 is, which clients are not compared with


@dataclass(frozen=True)
class Policies:
    """What is done with the requests of a route. In this order, the first that answers wins:

    denied             why nothing is served: 503
    body_limit         bytes of a request's body; 0 for any number: 413
    cors…              headers of every answer to these origins; OPTIONS is answered with 204
    redirect           URL with VARIABLES, answered with ``redirect_status``
    https              plain HTTP is redirected to HTTPS, without a slash at the URL's end unless ``keep_slash``; 426
                       as ``https_status`` asks for it without saying where
    hsts_max_age_s     for so long clients are told to come by HTTPS only, in every answer by HTTPS; 0: they are not
    limit…             requests a second, a minute, and at a time, of a client's address: 503; not of ``unlimited``
    sources…           addresses that get 403, the denied ones first
    auth…              names and passwords, as lines of htpasswd: 401
    auth_url…          who is asked whether a request goes on (``plane.externalauth``): 401, 403, or 500
    auth_any           one of addresses, password and ``auth_url`` is enough

    And of what is forwarded:

    rewrite…           the path as a whole is replaced where the expression matches, ``$1`` by what its groups matched
    forwarded_prefix   X-Forwarded-Prefix, of what is rewritten only
    upstream_host      Host; ``own_host``: the endpoint's address
    …_timeout_ms       0 for the plane's own
    retry…             after what, how often and for how long another endpoint is tried; 0 for the plane's own
    hash_by            requests for which this is equal go to one endpoint, or share ``hash_subset`` of them; with
                       VARIABLES and REQUEST_VARIABLES
    errors…            answers with these statuses, only the plane's own with ``errors_own``, are made by the target of
                       that row, told so; 404 where that is 0
    fields             of every answer, as lines, in place of those that it has
    mirror…            URL that gets a copy of a request, whose answer nobody waits for; Host; and whether its body too
    fallback           row of the target that requests go to in the place of their own, which has no endpoint
    cookie…            its name, if any, keeps a client at its endpoint; persistent: also when endpoints come;
                       conditional: without SameSite=None for browsers that take that for Strict; by_http: over HTTPS
                       too it is Secure only if that says so; readable: by scripts
    upstream_tls       endpoints are spoken to by TLS, in every dialect
    tls…               the name they are told (SNI) and, if ``tls_verify``, must have, else their address, by
                       ``tls_authorities``, else those of the machine; versions and ciphers that may be agreed on,
                       empty for OpenSSL's; who we are. Certificates are PEM
    unlogged           no line in the access log
    """

    denied: str = ""
    body_limit: int = 0
    cors: bool = False
    cors_credentials: bool = False
    cors_origins: tuple[str, ...] = ()
    cors_methods: str = ""
    cors_headers: str = ""
    cors_expose: str = ""
    cors_max_age_s: int = 0
    redirect: str = ""
    redirect_status: int = 0
    https: bool = False
    https_status: int = 0
    keep_slash: bool = False
    hsts_max_age_s: int = 0
    limit_key: str = ""
    limit_rps: int = 0
    limit_rpm: int = 0
    limit_burst: int = 0
    limit_connections: int = 0
    unlimited: tuple[Range, ...] = ()
    sources_denied: tuple[Range, ...] = ()
    sources_allowed: tuple[Range, ...] = ()
    auth: bool = False
    auth_realm: str = ""
    auth_users: tuple[str, ...] = field(default=(), repr=False)
    auth_any: bool = False
    auth_url: str = ""
    auth_method: str = ""
    auth_redirect: str = ""
    auth_sent: tuple[str, ...] = field(default=(), repr=False)
    auth_fields: tuple[str, ...] = ()
    auth_signin: str = ""
    auth_cookie_always: bool = False
    auth_cache_key: str = ""
    auth_cache: tuple[str, ...] = ()
    rewrite_from: str = ""
    rewrite_to: str = ""
    forwarded_prefix: str = ""
    upstream_host: str = ""
    own_host: bool = False
    connect_timeout_ms: int = 0
    read_timeout_ms: int = 0
    send_timeout_ms: int = 0
    retry_on: int = 0
    retry_tries: int = 0
    retry_timeout_ms: int = 0
    hash_by: str = ""
    hash_subset: int = 0
    errors: tuple[str, ...] = ()
    errors_own: bool = False
    errors_target: int = 0
    fallback: int = 0
    fields: tuple[str, ...] = ()
    mirror: str = ""
    mirror_host: str = ""
    mirror_body: bool = False
    cookie: str = ""
    cookie_persistent: bool = False
    cookie_change_on_failure: bool = False
    cookie_secure: bool = False
    cookie_by_http: bool = False
    cookie_readable: bool = False
    cookie_path: str = ""
    cookie_domain: str = ""
    cookie_same_site: str = ""
    cookie_conditional: bool = False
    cookie_expires_s: int = 0
    cookie_max_age_s: int = 0
    upstream_tls: bool = False
    tls_name: str = ""
    tls_verify: bool = False
    tls_protocols: str = ""
    tls_ciphers: str = ""
    tls_authorities: str = field(default="", repr=False)
    tls_certificate: str = field(default="", repr=False)
    tls_key: str = field(default="", repr=False)
    unlogged: bool = False

    @property
    def guards(self) -> bool:
        """Whether not everybody is let in."""
        return bool(self.denied or self.auth or self.auth_url or self.sources_denied or self.sources_allowed)

    def __str__(self) -> str:
        """What differs from the default, for people: no secrets."""
        said = []
        for row in fields(self):
            value = getattr(self, row.name)
            if value == row.default or not row.repr:
                continue
            if row.name == "retry_on":
                value = " ".join(conditions(value))
            elif isinstance(value, tuple):
                value = ",".join(map(str, value))
            said.append(row.name if value is True else f"{row.name}={value}")
        return " ".join(said)


NONE = Policies()


@dataclass(frozen=True)
class Canary:
    """Which requests of a rule go to another Service: header before cookie before ``weight`` out of ``total``.

    ``forgetful``: 1 where the cookie of affinity does not keep a client at the choice it once had.
    """

    header: str = ""
    header_value: str = ""
    header_pattern: str = ""
    cookie: str = ""
    weight: int = 0
    total: int = 100
    forgetful: int = 0


@dataclass(frozen=True)
class When:
    """Which requests a rule takes, of those for its host and path; others meet the next rule.

    http     by plain HTTP, and ``https`` by HTTPS
    methods  one of these; none: any
    headers  ``name:value``, the name in lower case; of each name one of its values, or what an expression matches
             that stands behind ``~*``, in whatever case both
    """

    http: bool = True
    https: bool = True
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For people; empty for any request."""
        if not self.http and not self.https:
            return "that there cannot be"
        said = [word for word, there in (("by HTTPS", not self.http), ("by HTTP", not self.https)) if there]
        said += [f"of method {' or '.join(self.methods)}"] if self.methods else []
        said += [f"with {line}" for line in self.headers]
        return ", ".join(said)


ANY_REQUEST = When()


@dataclass(frozen=True)
class Asked:
    """What an Ingress asks for by its annotations.

    policies     of all its paths
    https        plain HTTP is redirected where the host has TLS; ``policies.https`` says: in any case
    app_root     path that a request for ``/`` of its hosts is redirected to
    www          the hosts' names with www., or without where they have it, are redirected to them
    aliases      other names of its hosts
    regex        its paths are regular expressions, and so are all others of its hosts
    rewrite      every path is rewritten to this
    auth_secret  (namespace, name, whether each key is a user) of the Secret with passwords
    tls_secret   (namespace, name) of the Secret with certificates towards endpoints
    algorithm    name in INGRESS_ALGORITHMS by which endpoints are chosen; empty: as their Service says
    auth_sent    (namespace, name) of the ConfigMap with fields for whom ``auth_url`` asks
    fields       (namespace, name) of the ConfigMap with ``policies.fields``
    default_backend  (namespace, name) of the Service that serves where its own have no endpoint, and ``errors``
    canary       it is no route of its own, but takes a part of the requests of the same rule of another Ingress
    manner       whose rules its paths are matched by (``plane.matching``), empty: Kubernetes'
    priority     of its rules, as that manner has it
    matcher      how paths of type ImplementationSpecific are matched, as that manner has it
    when         which requests its rules take
    names        further hosts that its rules are for
    strip        what a rule's path matched is taken off the request's
    """

    policies: Policies = NONE
    https: bool = False
    app_root: str = ""
    www: bool = False
    aliases: tuple[str, ...] = ()
    regex: bool = False
    rewrite: str = ""
    auth_secret: tuple[str, str, bool] | None = None
    tls_secret: tuple[str, str] | None = None
    algorithm: str = ""
    auth_sent: tuple[str, str] | None = None
    fields: tuple[str, str] | None = None
    default_backend: tuple[str, str] | None = None
    canary: Canary | None = None
    manner: str = ""
    priority: int = 0
    matcher: str = ""
    when: When = ANY_REQUEST
    names: tuple[str, ...] = ()
    strip: bool = False


NOTHING = Asked()


class Tables(NamedTuple):
    """Policies and canaries as rows; row 0 of each is none, but of ``ranges``, which only RUNs point to."""

    policies: np.ndarray  # POLICY
    canaries: np.ndarray  # CANARY
    strings: np.ndarray  # STRING
    ranges: np.ndarray  # NETWORK
    whens: np.ndarray  # WHEN

    def policy(self, row: int, text: np.ndarray) -> Policies:
        """The Policies of a row of POLICY; ``text`` is that of the Routes."""
        return Policies(**{name: self._value(self.policies[row][name], text, name) for name in POLICY.names or ()})

    def canary(self, row: int, text: np.ndarray) -> Canary:
        """The Canary of a row of CANARY."""
        return Canary(**{each.name: self._canary_value(row, each.name, text) for each in fields(Canary)})

    def when(self, row: int, text: np.ndarray) -> When:
        """The When of a row of WHEN."""
        found = self.whens[row]
        methods, headers = (self._strings(found[name], text) for name in ("methods", "headers"))
        return When(bool(found["http"]), bool(found["https"]), methods, headers)

    def _canary_value(self, row: int, name: str, text: np.ndarray) -> Any:
        value = self.canaries[row][name]
        return self._string(int(value), text) if isinstance(getattr(_CANARY, name), str) else int(value)

    def _value(self, value: Any, text: np.ndarray, name: str) -> Any:
        default = getattr(NONE, name)
        if isinstance(default, str):
            return self._string(int(value), text)
        if isinstance(default, tuple):
            if name in RANGED:
                rows = range(int(value["first"]), int(value["first"]) + int(value["count"]))
                return tuple(Range(*map(int, self.ranges[row])) for row in rows)
            return self._strings(value, text)
        return type(default)(value)

    def _strings(self, run: Any, text: np.ndarray) -> tuple[str, ...]:
        return tuple(self._string(row, text) for row in range(int(run["first"]), int(run["first"]) + int(run["count"])))

    def _string(self, row: int, text: np.ndarray) -> str:
        place = self.strings[row]
        return text[int(place["offset"]) : int(place["offset"]) + int(place["length"])].tobytes().decode()


RANGED = frozenset({"unlimited", "sources_denied", "sources_allowed"})
_CANARY = Canary()


class Packer:
    """The tables while they are made. ``add_text`` puts a string among the bytes of the Routes: (offset, length)."""

    def __init__(self, add_text: Callable[[str], tuple[int, int]]):
        self._add_text = add_text
        self._strings = Growing(STRING, [(0, 0)])
        self._string_rows = {"": 0}
        self._ranges = Growing(NETWORK)
        self._policies: dict[Policies, int] = {}
        self._policy_rows = Growing(POLICY)
        self._canaries = Growing(CANARY, [np.zeros((), CANARY).item()])
        self._whens: dict[When, int] = {}
        self._when_rows = Growing(WHEN)
        self.policy(NONE)
        self.when(ANY_REQUEST)

    def policy(self, policies: Policies) -> int:
        """Row of POLICY; equal Policies have the same one."""
        if policies not in self._policies:
            row = tuple(self._packed(name, getattr(policies, name)) for name in POLICY.names or ())
            self._policies[policies] = self._policy_rows.put([row])
        return self._policies[policies]

    def canary(self, canary: Canary, target: int, origin: int) -> int:
        """A new row of CANARY."""
        said = tuple(self._packed(row.name, getattr(canary, row.name)) for row in fields(canary))
        return self._canaries.put([(target, origin, *said)])

    def led_by(self, row: int) -> tuple[int, int]:
        """Target and origin of a canary."""
        target, origin, *_ = self._canaries[row]
        return target, origin

    def drop_canary(self, row: int) -> None:
        """Leaves the row to another."""
        self._canaries.drop(row)

    def when(self, when: When) -> int:
        """Row of WHEN; equal ones have the same one."""
        if when not in self._whens:
            row = tuple(self._packed(name, getattr(when, name)) for name in WHEN.names or ())
            self._whens[when] = self._when_rows.put([row])
        return self._whens[when]

    def sizes(self) -> tuple[int, ...]:
        """Rows of the tables in which nothing is ever dropped."""
        return len(self._policy_rows), len(self._strings), len(self._ranges), len(self._when_rows)

    def tables(self) -> Tables:
        """All rows as they are now, of tables in which nothing is new the same objects as before."""
        return Tables._make(each.version() for each in self._tables())

    def edited(self) -> dict[str, np.ndarray]:
        """By the names of tables, the rows that these have otherwise than those before."""
        return {name: each.edited for name, each in zip(Tables._fields, self._tables(), strict=True)}

    def _tables(self) -> tuple[Growing, ...]:
        return self._policy_rows, self._canaries, self._strings, self._ranges, self._when_rows

    def _packed(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            return self._string(value)
        if not isinstance(value, tuple):
            return value
        if name in RANGED:
            return self._ranges.put(value), len(value)
        # A run is rows of its own, one after another.
        return self._strings.put([self._add_text(string) for string in value]), len(value)

    def _string(self, string: str) -> int:
        if string not in self._string_rows:
            self._string_rows[string] = self._strings.put([self._add_text(string)])
        return self._string_rows[string]


def names_any_host(url: str) -> bool:
    """Whether a URL has in the place of its host, or within it, the one that a client names."""
    return "$" in url.partition("://")[2].partition("/")[0].partition("?")[0]


def condition_bits(names: tuple[str, ...]) -> int:
    """RETRY_CONDITIONS as bits."""
    return sum(1 << RETRY_CONDITIONS.index(name) for name in names)


def conditions(bits: int) -> tuple[str, ...]:
    """And back."""
    return tuple(name for number, name in enumerate(RETRY_CONDITIONS) if bits >> number & 1)
