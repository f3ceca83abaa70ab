"""What tests of the Service proxy share: a proxy of its own for each, and an address."""

import itertools
from collections.abc import Iterator

import pytest

from plane.addresses import AddressPlan
from plane.proxy import Proxy
from tests.loopback import Address


@pytest.fixture
def proxy(plan: AddressPlan) -> Iterator[Proxy]:
    proxy = Proxy(plan, 1, connections=512)
    proxy.start()
    yield proxy
    proxy.stop(0)


_hosts = itertools.count(20)


@pytest.fixture
def vip(plan: AddressPlan) -> Address:
    """A ClusterIP that no other test uses."""
    return str(plan.cluster_ips[256 + next(_hosts)]), 8080
