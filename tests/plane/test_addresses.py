"""The address plan: who has which address, and that one plane at a time has them."""

import pytest

from plane.addresses import INSTANCES, AddressPlan, claimed, int_to_ip, ip_to_int, static_band
from plane.errors import PlaneError


def test_the_addresses_are_those_that_the_docs_table():
    plan = AddressPlan(0)
    assert plan.node(2) == "127.18.0.2"
    assert str(plan.pods_of(3)) == "127.244.3.0/24"
    assert str(plan.cluster_ips) == "127.96.0.0/12"
    assert plan.vip(1) == "127.200.0.1"
    assert plan.node_of("127.244.7.9") == 7
    assert plan.node_of("127.96.0.1") == 0


def test_no_two_instances_share_an_address():
    spans = [
        span
        for number in range(INSTANCES)
        for plan in [AddressPlan(number)]
        for span in (plan.nodes, plan.pods, plan.cluster_ips, plan.vips)
    ]
    assert not any(one.overlaps(other) for i, one in enumerate(spans) for other in spans[i + 1 :])


@pytest.mark.parametrize("number", [-1, INSTANCES])
def test_an_instance_that_is_none_is_refused(number):
    with pytest.raises(PlaneError, match=f"--instance {number}: choose 0 to 5"):
        AddressPlan(number)


def test_a_plan_is_for_one_plane_at_a_time(plan):
    with claimed(plan):
        again = pytest.raises(PlaneError, match=f"--instance {plan.instance} is running .* choose another instance")
        with again, claimed(plan):
            pass
    with claimed(plan):
        pass


@pytest.mark.parametrize(("size", "band"), [(2**20, 256), (4096, 256), (256, 16), (1024, 64)])
def test_the_static_band_is_that_of_kep_3070(size, band):
    assert static_band(size) == band


def test_addresses_go_to_integers_and_back():
    assert ip_to_int("127.0.0.1") == 0x7F000001
    assert int_to_ip(0x7F000001) == "127.0.0.1"
