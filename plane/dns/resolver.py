"""Who asks: names to addresses for pods and for the ingress, as a resolver library has it from ``/etc/resolv.conf``.

Law: a name is looked for among the hosts that were given by hand, then by the name servers along the search path, then,
unless it is one of the cluster's, by the machine, as CoreDNS forwards what is not its own. Every call ends within
``timeout_s * attempts`` and what the machine's own resolver takes. Any thread may call it; it blocks.
"""

import functools
import math
import socket
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from plane.dns.zone import origin_of

# The machine's resolver does not say how long its answer holds.
MACHINE_TTL_S = 30
machine_getaddrinfo = socket.getaddrinfo
# Lookups block: they have threads of their own, so that a slow name server holds up nobody else.
threads = ThreadPoolExecutor(64, "resolver")


class UnresolvedError(Exception):
    """A name has no address, as far as it can be found out; the text says why."""


class Found(NamedTuple):
    """Addresses of a name, and for how long they hold."""

    addresses: tuple[str, ...]
    ttl_s: float


class Foreign(NamedTuple):
    """The name that the machine is to be asked for, and for how long it is that name."""

    name: str
    ttl_s: float


@dataclass(frozen=True)
class Resolver:
    """What ``/etc/resolv.conf`` and ``/etc/hosts`` would say.

    servers  (address, port) of name servers; none: the machine's resolver only
    search   what short names are tried with, in turn
    ndots    a name with fewer dots is tried along ``search`` first
    source   the address to ask from
    hosts    name in lower case → addresses that count before all else
    machine  whether the machine is asked for what the name servers don't know
    """

    servers: tuple[tuple[str, int], ...] = ()
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout_s: float = 2.0
    attempts: int = 2
    source: str | None = None
    hosts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    machine: bool = True

    def addresses(self, host: str) -> Found:
        """The IPv4 addresses of a name. Raises UnresolvedError."""
        found = self.look_up(host)
        return found if isinstance(found, Found) else _by_machine(found)

    def look_up(self, host: str) -> Found | Foreign:
        """What there is to know of a name without asking the machine. Raises UnresolvedError where that is all."""
        if is_address(host):
            return Found((host,), math.inf)
        name = host.lower().removesuffix(".")
        if name in self.hosts:
            return Found(tuple(self.hosts[name]), math.inf)
        foreign, why = Foreign(name, math.inf), "there is no name server"
        if self.servers:
            try:
                answer = self._asking.resolve(
                    host, dns.rdatatype.A, source=self.source, raise_on_no_answer=False, search=True
                )
                ttl_s = answer.chaining_result.minimum_ttl
                if answer.rrset is not None:
                    return Found(tuple(row.address for row in answer.rrset), ttl_s)
                end = answer.canonical_name.to_text(omit_final_dot=True).lower()
                why = f"{end} has no address"
                if origin_of(end) is None:  # an ExternalName of another domain
                    foreign = Foreign(end, ttl_s)
            except dns.exception.DNSException as problem:
                why = str(problem).rstrip(".")
        if not self.machine or origin_of(foreign.name):
            raise UnresolvedError(why)
        return foreign

    @functools.cached_property
    def _asking(self) -> dns.resolver.Resolver:
        asking = dns.resolver.Resolver(configure=False)
        asking.nameservers = [dns.nameserver.Do53Nameserver(*server) for server in self.servers]
        asking.search = [dns.name.from_text(suffix) for suffix in self.search]
        asking.ndots = self.ndots
        asking.timeout = self.timeout_s
        asking.lifetime = self.timeout_s * self.attempts
        asking.use_edns(0, 0, dns.message.DEFAULT_EDNS_PAYLOAD)
        return asking


def is_address(host: str) -> bool:
    """Whether a host is an address already, IPv4 or IPv6."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except (OSError, ValueError):
            continue
        return True
    return False


def _by_machine(foreign: Foreign) -> Found:
    """What this machine says, by its ``/etc/hosts`` and its name servers. Raises UnresolvedError."""
    try:
        rows = machine_getaddrinfo(foreign.name, None, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as problem:
        raise UnresolvedError(f"this machine finds no address of {foreign.name}: {problem}") from problem
    return Found(tuple(dict.fromkeys(str(row[4][0]) for row in rows)), min(foreign.ttl_s, MACHINE_TTL_S))
