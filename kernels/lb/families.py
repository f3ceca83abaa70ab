"""Addresses as numbers are compared: ``uint32`` of IPv4, rows of ``layout_ipv6.ADDRESS6`` of IPv6, both in host order.

Law: two addresses that are compared are of one family.
"""

from kernels.jit import by_family, kernel


@kernel
def _same_numbers(one, other):
    return one == other


@kernel
def _same_rows(one, other):
    return one["high"] == other["high"] and one["low"] == other["low"]


# (one, other): whether they are the same address.
same = by_family(_same_numbers, _same_rows)


@kernel
def _number_not_above(one, other):
    return one <= other


@kernel
def _row_not_above(one, other):
    return one["high"] < other["high"] or (one["high"] == other["high"] and one["low"] <= other["low"])


# (one, other): whether the first is the other or comes before it.
not_above = by_family(_number_not_above, _row_not_above)
