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

from kernels.layout import CANARY, NETWORK, POLICY, RETRY_CONDITIONS, STRING, freeze

# Variables of a redirect: what the request had. ``$trimmed_uri`` is ``$request_uri`` without a slash at its end.
VARIABLES = ("scheme", "http_host", "host", "request_uri", "trimmed_uri")
# Further ones of what requests are told apart by; of the last three the name goes on: ``$arg_page``, ``$http_x_user``.
REQUEST_VARIABLES = ("uri", "args", "remote_addr", "request_method", r"arg_\w+", r"cookie_\w+", r"http_\w+")
PERMANENT_REDIRECT = 308


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
    https              plain HTTP is redirected to HTTPS, without a slash at the URL's end unless ``keep_slash``
    hsts_max_age_s     for so long clients are told to come by HTTPS only, in every answer by HTTPS; 0: they are not
    limit…             requests a second, a minute, and at a time, of a client's address: 503; not of ``unlimited``
    sources…           addresses that get 403, the denied ones first
    auth…              names and passwords, as lines of htpasswd: 401

    And of what is forwarded:

    rewrite…           the path as a whole is replaced where the expression matches, ``$1`` by what its groups matched
    forwarded_prefix   X-Forwarded-Prefix, of what is rewritten only
    upstream_host      Host
    …_timeout_ms       0 for the plane's own
    retry…             after what, how often and for how long another endpoint is tried; 0 for the plane's own
    hash_by            requests for which this is equal go to one endpoint; with VARIABLES and REQUEST_VARIABLES
    cookie…            its name, if any, keeps a client at its endpoint; persistent: also when endpoints come
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
    rewrite_from: str = ""
    rewrite_to: str = ""
    forwarded_prefix: str = ""
    upstream_host: str = ""
    connect_timeout_ms: int = 0
    read_timeout_ms: int = 0
    send_timeout_ms: int = 0
    retry_on: int = 0
    retry_tries: int = 0
    retry_timeout_ms: int = 0
    hash_by: str = ""
    cookie: str = ""
    cookie_persistent: bool = False
    cookie_change_on_failure: bool = False
    cookie_secure: bool = False
    cookie_path: str = ""
    cookie_domain: str = ""
    cookie_same_site: str = ""
    cookie_expires_s: int = 0
    cookie_max_age_s: int = 0

    @property
    def guards(self) -> bool:
        """Whether not everybody is let in."""
        return bool(self.denied or self.auth or self.sources_denied or self.sources_allowed)

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
    """Which requests of a rule go to another Service: header before cookie before ``weight`` out of ``total``."""

    header: str = ""
    header_value: str = ""
    header_pattern: str = ""
    cookie: str = ""
    weight: int = 0
    total: int = 100


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
    canary       it is no route of its own, but takes a part of the requests of the same rule of another Ingress
    """

    policies: Policies = NONE
    https: bool = False
    app_root: str = ""
    www: bool = False
    aliases: tuple[str, ...] = ()
    regex: bool = False
    rewrite: str = ""
    auth_secret: tuple[str, str, bool] | None = None
    canary: Canary | None = None


NOTHING = Asked()


class Tables(NamedTuple):
    """Policies and canaries as rows; row 0 of each is none, but of ``ranges``, which only RUNs point to."""

    policies: np.ndarray  # POLICY
    canaries: np.ndarray  # CANARY
    strings: np.ndarray  # STRING
    ranges: np.ndarray  # NETWORK

    def policy(self, row: int, text: np.ndarray) -> Policies:
        """The Policies of a row of POLICY; ``text`` is that of the Routes."""
        return Policies(**{name: self._value(self.policies[row][name], text, name) for name in POLICY.names or ()})

    def canary(self, row: int, text: np.ndarray) -> Canary:
        """The Canary of a row of CANARY."""
        return Canary(**{each.name: self._canary_value(row, each.name, text) for each in fields(Canary)})

    def _canary_value(self, row: int, name: str, text: np.ndarray) -> Any:
        value = self.canaries[row][name]
        return self._string(int(value), text) if isinstance(getattr(_CANARY, name), str) else int(value)

    def _value(self, value: Any, text: np.ndarray, name: str) -> Any:
        default = getattr(NONE, name)
        if isinstance(default, str):
            return self._string(int(value), text)
        if isinstance(default, tuple):
            rows = range(int(value["first"]), int(value["first"]) + int(value["count"]))
            if name in RANGED:
                return tuple(Range(*map(int, self.ranges[row])) for row in rows)
            return tuple(self._string(row, text) for row in rows)
        return type(default)(value)

    def _string(self, row: int, text: np.ndarray) -> str:
        place = self.strings[row]
        return text[int(place["offset"]) : int(place["offset"]) + int(place["length"])].tobytes().decode()


RANGED = frozenset({"unlimited", "sources_denied", "sources_allowed"})
_CANARY = Canary()


class Packer:
    """The tables while they are made. ``add_text`` puts a string among the bytes of the Routes: (offset, length)."""

    def __init__(self, add_text: Callable[[str], tuple[int, int]]):
        self._add_text = add_text
        self._strings = [(0, 0)]
        self._string_rows = {"": 0}
        self._ranges: list[Range] = []
        self._policies: dict[Policies, int] = {}
        self._policy_rows: list[tuple[Any, ...]] = []
        self._canaries = [np.zeros((), CANARY).item()]
        self.policy(NONE)

    def policy(self, policies: Policies) -> int:
        """Row of POLICY; equal Policies have the same one."""
        if policies not in self._policies:
            self._policies[policies] = len(self._policy_rows)
            self._policy_rows.append(tuple(self._packed(name, getattr(policies, name)) for name in POLICY.names or ()))
        return self._policies[policies]

    def canary(self, canary: Canary, target: int, origin: int) -> int:
        """A new row of CANARY."""
        said = tuple(self._packed(row.name, getattr(canary, row.name)) for row in fields(canary))
        self._canaries.append((target, origin, *said))
        return len(self._canaries) - 1

    def tables(self) -> Tables:
        return Tables(
            freeze(np.array(self._policy_rows, POLICY)),
            freeze(np.array(self._canaries, CANARY)),
            freeze(np.array(self._strings, STRING)),
            freeze(np.array(self._ranges, NETWORK)),
        )

    def _packed(self, name: str, value: Any) -> Any:
        if isinstance(value, str):
            return self._string(value)
        if not isinstance(value, tuple):
            return value
        if name in RANGED:
            first = len(self._ranges)
            self._ranges += value
        else:
            first = len(self._strings)  # a run is rows of its own, one after another
            self._strings += [self._add_text(string) for string in value]
        return first, len(value)

    def _string(self, string: str) -> int:
        if string not in self._string_rows:
            self._string_rows[string] = len(self._strings)
            self._strings.append(self._add_text(string))
        return self._string_rows[string]


def condition_bits(names: tuple[str, ...]) -> int:
    """RETRY_CONDITIONS as bits."""
    return sum(1 << RETRY_CONDITIONS.index(name) for name in names)


def conditions(bits: int) -> tuple[str, ...]:
    """And back."""
    return tuple(name for number, name in enumerate(RETRY_CONDITIONS) if bits >> number & 1)
