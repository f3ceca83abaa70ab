"""What a node looks up to answer: ``Names`` as a dictionary of names.

Law: never changed once it is made, so that a server takes a newer one by one assignment. A name exists where it has
records or where a name below it has (RFC 8020); ``a-b-c-d.<namespace>.pod`` exists for every address in a namespace
that there is, as with CoreDNS' ``pods insecure``, which kubeadm sets.
"""

import socket
from collections.abc import Mapping
from functools import lru_cache

import dns.rdataclass
import dns.rdataset
import dns.rdatatype

from plane.dns.names import NO_NAMES, PODS, REVERSE, ZONE, Names, unpacked

# CoreDNS' kubernetes plugin has 5 s unless it is told otherwise. Negative answers are kept as long.
TTL_S = 5
ORIGINS = (ZONE, REVERSE)
REFRESH_S, RETRY_S, EXPIRE_S = 7200, 1800, 86400  # nobody transfers the zone: as CoreDNS says
KEPT = 4096  # answers that are made once

Kinds = Mapping[str, list[str]]


class Zone:
    """The names of one generation; ``serial`` is that of the zone."""

    def __init__(self, names: Names = NO_NAMES, serial: int = 0):
        self._records = unpacked(names.headless) | unpacked(names.services)
        for origin in ORIGINS:
            soa = f"ns.dns.{ZONE}. hostmaster.{ZONE}. {serial % 2**32} {REFRESH_S} {RETRY_S} {EXPIRE_S} {TTL_S}"
            self._records[origin] = {"SOA": [soa], "NS": [f"ns.dns.{ZONE}."]}
        for name in list(self._records):
            while name not in ORIGINS:
                name = name.partition(".")[2]
                if name in self._records:
                    break
                self._records[name] = {}
        self.records = lru_cache(KEPT)(self._rdataset)

    def find(self, name: str) -> Kinds | None:
        """The records of a name in lower case by their type, none for one that merely exists; None for no such name."""
        found = self._records.get(name)
        return found if found is not None else self._pod(name)

    def _rdataset(self, name: str, kind: str) -> dns.rdataset.Rdataset | None:
        """The records of one type as dnspython has them; None where there are none. Not to be changed."""
        rows = (self.find(name) or {}).get(kind)
        return (
            dns.rdataset.from_text_list(dns.rdataclass.IN, dns.rdatatype.from_text(kind), TTL_S, rows) if rows else None
        )

    def _pod(self, name: str) -> Kinds | None:
        host, _, namespace = name.partition(".")
        if not namespace.endswith(f".{PODS}") or namespace not in self._records:
            return None
        address = host.replace("-", ".")
        try:
            ip = socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, address))
        except (OSError, ValueError):
            return None
        return {"A": [ip]} if ip == address else None


def origin_of(name: str) -> str | None:
    """Which of ``ORIGINS`` a name belongs to; None for a foreign one."""
    return next((origin for origin in ORIGINS if name == origin or name.endswith(f".{origin}")), None)
