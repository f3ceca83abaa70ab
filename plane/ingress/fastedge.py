"""What compiled code knows of who stands in front: of ``edge`` what concerns IPv4, as its clients are."""

from ipaddress import IPv4Network

import numpy as np

from kernels.layout import NETWORK
from plane.ingress.edge import Edge


def networks(edge: Edge) -> np.ndarray:
    """NETWORK[…]: the proxies whose word counts."""
    spans = [span for span in edge.trusted if isinstance(span, IPv4Network)]
    return np.array([(int(span.network_address), int(span.netmask)) for span in spans], NETWORK)


def announce(loop: np.void, edge: Edge) -> None:
    """Have a loop expect a header of the PROXY protocol where the edge says so, and of whom."""
    loop["announced"], loop["vetted"] = edge.proxy_protocol, bool(edge.trusted)
