"""The address plan: which address everything has on one machine (the ``loopback`` CNI).

All of 127.0.0.0/8 is local on Linux without set-up and without root, so each pod has an address and real sockets.
The last octets are those that kubeadm and kind users know; the table is in ``docs/addresses.md``. An *instance*
(0 to 5) moves the whole plan aside, so that several planes live on one machine.
"""

import functools
import ipaddress
import socket
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TypeVar

from plane.errors import PlaneError

INSTANCES = 6
SHIFT_WHERE_UNPRIVILEGED = 8000
T = TypeVar("T", bound=object)
NODE_PORTS = 30000, 32767  # kube-apiserver's --service-node-port-range by default


def ip_to_int(text: str) -> int:
    """Dotted IPv4 text to its integer in host order."""
    return int(ipaddress.IPv4Address(text))


def int_to_ip(number: int) -> str:
    """An integer in host order to dotted IPv4 text."""
    return socket.inet_ntoa(int(number).to_bytes(4))


@dataclass(frozen=True)
class AddressPlan:
    """Ranges of one plane; ``port_offset`` is added to ports that this process may not bind."""

    instance: int = 0
    port_offset: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.instance < INSTANCES:
            raise PlaneError(f"--instance {self.instance}: choose 0 to {INSTANCES - 1}")

    @property
    def nodes(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(f"127.{18 + self.instance}.0.0/24")

    @property
    def pods(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(f"127.{244 + self.instance}.0.0/16")

    @property
    def cluster_ips(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(f"127.{96 + 16 * self.instance}.0.0/12")

    @property
    def vips(self) -> ipaddress.IPv4Network:
        return ipaddress.IPv4Network(f"127.{200 + self.instance}.0.0/16")

    @property
    def dns(self) -> str:
        """ClusterIP of cluster DNS: the tenth, as in kubeadm."""
        return str(self.cluster_ips[10])

    def has(self, ip: str) -> bool:
        """Whether an address is one of this plane's Services, pods or load balancers."""
        address = ipaddress.ip_address(ip)
        return any(address in span for span in (self.cluster_ips, self.pods, self.vips))

    def node(self, number: int) -> str:
        """Address of node ``number``, counted from 1."""
        return str(self.nodes[number])

    def pods_of(self, number: int) -> ipaddress.IPv4Network:
        """The /24 that node ``number`` gives its pods addresses from."""
        return ipaddress.IPv4Network(f"127.{244 + self.instance}.{number}.0/24")

    def node_of(self, pod_ip: str) -> int:
        """Number of the node whose pod range holds the address, 0 where it is no pod address of this plan."""
        address = ipaddress.IPv4Address(pod_ip)
        return address.packed[2] if address in self.pods else 0

    def vip(self, number: int) -> str:
        """Address ``number`` of the LoadBalancer pool, counted from 1; 1 is the Ingress."""
        return str(self.vips[number])

    def free_pod_ip(self, node: int, taken: Container[str]) -> str:
        """First free address of a node, from .2 on (.1 is the bridge in other clusters).

        Raises PlaneError where the range is exhausted.
        """
        span = self.pods_of(node)
        return next(_free((str(span[i]) for i in range(2, 255)), taken, f"pod addresses of node {node} ({span})"))

    def free_cluster_ips(self, taken: Container[str]) -> Iterator[str]:
        """Free addresses after the static band, which is left for ``spec.clusterIP`` (KEP-3070), then those in it.

        ``taken`` may grow meanwhile. Raises PlaneError where the range is exhausted.
        """
        span = self.cluster_ips
        first, band, size = int(span.network_address), static_band(span.num_addresses), span.num_addresses
        ordered = (int_to_ip(first + i) for i in chain(range(band + 1, size - 1), range(1, band + 1)))
        return _free(ordered, taken, f"ClusterIPs ({span})")

    def free_vips(self, taken: Container[str]) -> Iterator[str]:
        """Free addresses of the LoadBalancer pool after that of the Ingress, likewise."""
        span = self.vips
        ordered = (str(span[i]) for i in range(2, span.num_addresses - 1))
        return _free(ordered, taken, f"load balancer addresses ({span})")

    def free_node_ports(self, taken: Container[int]) -> Iterator[int]:
        """Free node ports after the static band, which is left for ``nodePort`` (KEP-3668), then those in it."""
        first, last = NODE_PORTS
        band = min(max(16, (last - first + 1) // 32), 128)
        ordered = chain(range(first + band, last + 1), range(first, first + band))
        return _free(ordered, taken, f"node ports ({first} to {last})")

    def bound_port(self, port: int) -> int:
        """The port a socket is bound to for a manifest's ``port``: shifted where it needs a privilege we lack."""
        return port + self.port_offset if port < unprivileged_port_start() else port


def is_service_address(ip: str) -> bool:
    """Whether it is one that planes of this machine, of whatever instance, give to Services."""
    first, second = ipaddress.IPv4Address(ip).packed[:2]
    return first == 127 and (96 <= second < 96 + 16 * INSTANCES or 200 <= second < 200 + INSTANCES)


@contextmanager
def claimed(plan: AddressPlan) -> Iterator[None]:
    """Keeps the plan's addresses for one plane: listeners share ports, so two planes would share traffic in silence.

    The claim is a name of an abstract socket, which ends with the process, however that ends, and holds within a
    network namespace, as the addresses do. Raises PlaneError where another plane has it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as claim:
        try:
            claim.bind(f"\0trafficplane-instance-{plan.instance}")
        except OSError:
            raise PlaneError(
                f"a plane with --instance {plan.instance} is running on this machine already; end that one, or choose "
                f"another instance from 0 to {INSTANCES - 1}"
            ) from None
        yield


def static_band(size: int) -> int:
    """How many addresses at the low end of a Service range are given only by hand (KEP-3070)."""
    return min(max(16, size // 16), 256)


@functools.cache
def unprivileged_port_start() -> int:
    """The first port that needs no privilege; it is the machine's and read once."""
    return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


def needed_port_offset(plan: AddressPlan) -> int:
    """0 where this process may bind ports below 1024, else how far to shift them."""
    if unprivileged_port_start() <= 1:
        return 0
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((plan.vip(254), 1))
        except PermissionError:
            return SHIFT_WHERE_UNPRIVILEGED
        except OSError:
            return 0
    return 0


def _free(ordered: Iterable[T], taken: Container[T], what: str) -> Iterator[T]:
    yield from (each for each in ordered if each not in taken)
    raise PlaneError(f"none left: {what} are all in use; delete some objects or add nodes")
