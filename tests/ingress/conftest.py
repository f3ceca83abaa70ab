"""What the tests of the ingress share: addresses of their own, and both event loops that it may run on."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from plane.addresses import AddressPlan
from tests.ingress.wire import Address, eventually
from tests.loopback import open_descriptors

PODS = 60  # the first pod address that these tests use, on node 1


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    uv = {"uvloop": uvloop.new_event_loop}
    return uv if item.get_closest_marker("one_loop") else {"asyncio": asyncio.new_event_loop, **uv}


@pytest.fixture
def vip(plan: AddressPlan) -> str:
    return plan.vip(33)


@pytest.fixture
def pods(plan: AddressPlan) -> list[Address]:
    """Addresses of four pods."""
    return [(str(plan.pods_of(1)[PODS + number]), 8080) for number in range(4)]


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """After each test there are no more sockets and tasks than before."""
    before = sockets()
    yield
    await eventually(lambda: len(asyncio.all_tasks()) == 1)
    await eventually(lambda: sockets() <= before)


def sockets() -> int:
    return sum(name.startswith("socket:") for name in open_descriptors())
