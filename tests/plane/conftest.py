"""What tests of the Service proxy share: a proxy of its own for each, and an address."""

import contextlib
import itertools
import threading
from collections.abc import Iterator

import pytest

from plane.addresses import AddressPlan
from plane.proxy import Proxy
from tests.loopback import Address, eventually, listening, open_descriptors


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


@pytest.fixture
def nothing_is_left(plan: AddressPlan) -> Iterator[None]:
    """No descriptor, thread or listener more after a test than before it."""

    def held() -> tuple[list[str], list[str], list[str]]:
        return open_descriptors(), [thread.name for thread in threading.enumerate()], listening(plan)

    before = held()
    yield
    with contextlib.suppress(AssertionError):  # the comparison below says more
        eventually(lambda: held() == before)
    assert held() == before
