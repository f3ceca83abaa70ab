"""Who stands in front of an ingress, and so who a client really is. Pure.

Law: what a stranger says of a client is not believed. Only a peer of ``trusted`` may say it, by X-Forwarded-For and its
kin; then the client is the last address in that list that is not trusted itself (as NGINX's ``real_ip_recursive``).
"""

import ipaddress
from dataclasses import dataclass
from functools import lru_cache

from plane.errors import PlaneError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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
        for said in reversed(forwarded_for.split(",")):
            if not self.trusts(found) or not _is_address(said.strip()):
                break
            found = said.strip()
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


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
