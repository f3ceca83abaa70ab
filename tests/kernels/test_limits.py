"""Limits in a table that threads share: what they let in, what they take back, and whom they forget."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.layout_limits import COUNTED, LET_IN, LIMIT, OVER_AT_ONCE, OVER_MINUTE, OVER_SECOND
from kernels.net import limits
from tests import reference

SAID = {LET_IN: "", COUNTED: "", OVER_SECOND: "second", OVER_MINUTE: "minute", OVER_AT_ONCE: "at once"}
# Two limits, and the first with other rates.
LIMITS = [(5, 2, 9, 2, 0), (6, 0, 3, 1, 2), (5, 1, 9, 3, 1)]
START_NS = 1 << 40


def row_of(limit: tuple[int, ...]) -> np.void:
    found: np.void = np.array([limit], LIMIT)[0]
    return found


def enter(tallies: np.ndarray, limit: tuple[int, ...], client: int, now_ns: int = START_NS) -> int:
    return int(limits.enter(tallies, row_of(limit), np.uint64(client), now_ns))


steps = st.tuples(
    st.sampled_from(LIMITS),
    st.sampled_from([7, 8]),
    st.sampled_from([0, 1, 10**8, 3 * 10**8, 5 * 10**8, 10**9, 20 * 10**9, -(10**8)]),
    st.booleans(),  # it is given back at once, and asked for again
    st.booleans(),  # somebody of those at work is done before
)


@given(st.lists(steps, max_size=60))
def test_what_is_let_in_is_what_leaky_buckets_let_in(steps: list) -> None:
    tallies, twin, now_ns = limits.create(4 * limits.WAYS), reference.Limits(), START_NS
    at_work: list[tuple[int, int]] = []
    for limit, client, step_ns, gives_back, leaves in steps:
        now_ns += step_ns
        if leaves and at_work:
            gone = at_work.pop()
            limits.leave(tallies, np.uint64(gone[0]), np.uint64(gone[1]))
            twin.leave(*gone)
        said = enter(tallies, limit, client, now_ns)
        if gives_back and SAID[said] == "":
            limits.give_back(tallies, np.uint64(limit[0]), np.uint64(client), np.uint8(said == COUNTED))
            said = enter(tallies, limit, client, now_ns)
        assert SAID[said] == twin.enter(limit, client, now_ns)
        if said == COUNTED:
            at_work.append((limit[0], client))


def test_the_client_that_was_quiet_longest_is_forgotten_but_none_with_requests_under_way() -> None:
    tallies = limits.create(limits.WAYS)
    rated, counting = (1, 0, 1, 0, 0), (2, 0, 0, 0, 1)
    assert enter(tallies, counting, 100, START_NS) == COUNTED
    for client in range(limits.WAYS - 1):
        assert enter(tallies, rated, client, START_NS + 1 + client) == LET_IN
    assert enter(tallies, rated, 50, START_NS + 90) == LET_IN  # in place of the first
    assert [enter(tallies, rated, client, START_NS + 91) for client in (1, 50)] == [OVER_MINUTE, OVER_MINUTE]
    assert enter(tallies, rated, 0, START_NS + 92) == LET_IN
    assert enter(tallies, counting, 100, START_NS + 93) == OVER_AT_ONCE
    full = limits.create(limits.WAYS)
    assert [enter(full, counting, client) for client in range(limits.WAYS)] == [COUNTED] * limits.WAYS
    assert [enter(full, counting, 99) for _ in range(2)] == [LET_IN, LET_IN]  # and nobody counts them
    limits.leave(full, np.uint64(2), np.uint64(3))
    assert [enter(full, counting, 99) for _ in range(2)] == [COUNTED, OVER_AT_ONCE]


@pytest.mark.syscalls
def test_threads_share_an_allowance() -> None:
    tallies, limit = limits.create(4 * limits.WAYS), (9, 0, 100, 50, 0)

    def ask(_: int) -> int:
        row, client = row_of(limit), np.uint64(7)
        return sum(limits.enter(tallies, row, client, START_NS) == LET_IN for _ in range(4000))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(ask, range(4))) == 100 * 50 + 1
