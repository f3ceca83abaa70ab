"""Who stands in front of an ingress, and so who a client really is. Pure.

Law: what a stranger says of a client is not believed. Only a peer of ``trusted`` may say it, by X-Forwarded-For and its
kin; then the client is the last address in that list that is not trusted itself (as NGINX's ``real_ip_recursive``).
Addresses are read in one way only, ``address_of``, and of a list no more than its last HOPS.
"""

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

from plane.errors import PlaneError

HOPS = 64  # of X-Forwarded-For that are looked at
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


# What proxies make of an address: of IPv4 with a port, of IPv6 between brackets, with a port or without.
_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}|\[([^\]]*)\](?::[0-9]{1,5})?")


@dataclass(frozen=True)
class Edge:
    """What is in front.

    trusted         proxies whose word counts, empty: nobody's
    proxy_protocol  each connection begins with a header of the PROXY protocol, version 1 or 2, that names the client;
                    from whom such connections are taken is for the network to say, or for ``trusted`` where it is given
    """

    trusted: tuple[Network, ...] = ()
    proxy_protocol: bool = False

    def trusts(self, address: str) -> bool:
        return bool(self.trusted) and _within(address, self.trusted)

    def client(self, peer: str, forwarded_for: str) -> str:
        """The address of the client whom ``peer`` forwards, ``peer`` itself where it is nobody we trust."""
        found = peer
        for said in reversed(forwarded_for.rsplit(",", HOPS)[-HOPS:]):
            address = address_of(said.strip()) if self.trusts(found) else ""
            if not address:
                break
            found = address
        return found


def networks(text: str) -> tuple[Network, ...]:
    """Networks and addresses, separated by commas. Raises PlaneError."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            found.append(ipaddress.ip_network(part, strict=False))
        except ValueError:
            raise PlaneError(f'--trusted-proxies: "{part}" is no address and no network; write 10.0.0.0/8') from None
    return tuple(found)


@lru_cache(4096)
def _within(address: str, spans: tuple[Network, ...]) -> bool:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(found in span for span in spans)


@lru_cache(4096)
def address_of(text: str) -> str:
    """The address that a proxy names, with a port or without, as it is written here; empty where it is none.

    An IPv4 address that is written as one of IPv6 is that of IPv4.
    """
    with_port = _WITH_PORT.fullmatch(text)
    try:
        found = ipaddress.ip_address((with_port[1] or with_port[2]) if with_port else text)
    except ValueError:
        return ""
    return str((found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None) or found)
