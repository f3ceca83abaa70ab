"""The two families of addresses, as far as tables are made of them.

Law: tables are of one family (``kernels.layout_ipv6``). A plane's are those of IPv4; whoever steers flows without a
plane may have either.
"""

import functools
import ipaddress
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from kernels.layout import BACKEND, FRONTEND, RANGE
from kernels.layout_ipv6 import ADDRESS6, BACKEND6, FRONTEND6, RANGE6

_LOW = (1 << 64) - 1


class Family(NamedTuple):
    """One of them.

    name      as in ``EndpointSlice.addressType``
    number    text → the address as an integer; 0 for what is no address of this family
    cell      such an integer → what a table has of it
    text      what a table has → text
    network   text → a network; raises ValueError
    address   what a column of addresses consists of; and rows of tables
    """

    name: str
    number: Callable[[str], int]
    cell: Callable[[int], Any]
    text: Callable[[Any], str]
    network: Callable[..., ipaddress.IPv4Network | ipaddress.IPv6Network]
    address: np.dtype
    frontend: np.dtype
    backend: np.dtype
    range: np.dtype


@functools.lru_cache(maxsize=1 << 17)
def ipv4(text: str) -> int:
    """The address in host order; 0 for what is no IPv4 address, which nothing here is reached by."""
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET, text))
    except OSError:
        return 0


@functools.lru_cache(maxsize=1 << 17)
def ipv6(text: str) -> int:
    """The address in host order; 0 for what is no IPv6 address."""
    try:
        return int.from_bytes(socket.inet_pton(socket.AF_INET6, text))
    except OSError:
        return 0


def halves(number: int) -> tuple[int, int]:
    """An address of IPv6 as a row of ADDRESS6."""
    return number >> 64, number & _LOW


def _text_of_number(number: Any) -> str:
    return socket.inet_ntoa(int(number).to_bytes(4))


def _text_of_halves(row: Any) -> str:
    high, low = row if isinstance(row, tuple) else row.item()
    return socket.inet_ntop(socket.AF_INET6, (high << 64 | low).to_bytes(16))


IPV4 = Family("IPv4", ipv4, int, _text_of_number, ipaddress.IPv4Network, np.dtype(np.uint32), FRONTEND, BACKEND, RANGE)
IPV6 = Family("IPv6", ipv6, halves, _text_of_halves, ipaddress.IPv6Network, ADDRESS6, FRONTEND6, BACKEND6, RANGE6)
FAMILIES = {family.name: family for family in (IPV4, IPV6)}
