"""Fixtures that every room's tests share."""

import os
import signal

import hypothesis
import pytest

from plane.addresses import AddressPlan, needed_port_offset

# The first example of a kernel may compile it: no time limit for a single example.
hypothesis.settings.register_profile("kernels", deadline=None)
hypothesis.settings.load_profile("kernels")

# Shells have their background jobs ignore SIGINT, and so would every command that the tests start and interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that are marked soak run only where ``-m`` names them."""
    if "soak" not in config.getoption("markexpr"):
        long = [item for item in items if item.get_closest_marker("soak")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)


@pytest.fixture(scope="session")
def plan() -> AddressPlan:
    """An address plan away from the one that a plane on this machine uses."""
    instance = int(os.environ.get("TRAFFICPLANE_TEST_INSTANCE", "5"))
    return AddressPlan(instance, needed_port_offset(AddressPlan(instance)))
