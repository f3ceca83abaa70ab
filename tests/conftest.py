"""Fixtures that every room's tests share."""

import os
import signal

import hypothesis
import pytest

from plane.addresses import AddressPlan, needed_port_offset

# The first example of a kernel may compile it, and a busy machine may take long to draw any: no time limits. The same
# examples each time, so that no run fails by chance; those of ``--hypothesis-profile=exploring`` (`make soak`) are new.
exploring = hypothesis.settings(deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.register_profile("exploring", exploring)
hypothesis.settings.register_profile("same", exploring, derandomize=True)
hypothesis.settings.load_profile("same")

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
