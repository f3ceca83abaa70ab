"""What one change costs does not grow with the number of other Services; ``make bench-growth`` says how long it takes.

It may grow with the logarithm, as the trees of ``plane.rows`` do.
"""

import math

import pytest

from plane.addresses import AddressPlan
from tests.benchmarks.growth import objects_of
from tests.plane.counted import Cost, cost

pytestmark = pytest.mark.syscalls

FEW, MANY = 20, 1_000
TIMES_TEN = Cost(calls=0.02, nbytes=0.05)  # more of it, at most, for ten times as many Services: half a level of trees


def test_a_change_costs_as_much_among_many_services_as_among_few(plan: AddressPlan) -> None:
    few, many = (cost(plan, *objects_of(services)) for services in (FEW, MANY))
    for less, more, share in zip(few, many, TIMES_TEN, strict=True):
        assert more <= less * (1 + share * math.log10(MANY / FEW))
