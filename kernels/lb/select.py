"""How a frontend picks a backend for a flow that has none.

Law: a pick is a function of the flow's hash, the time and the frontend's turn, so that a recorded run can be replayed.
The answer 0 is "no backend", also for a row whose run or ring does not lie within its table.
"""

import numpy as np

from kernels.jit import kernel
from kernels.layout import MAGLEV, ROUNDROBIN
from kernels.lb.hashing import mix64, reduce

_NONE = np.uint32(0)


@kernel
def pick(fib, turns, row, key, now_ns):
    """The backend id, uint32, that frontend ``row`` gives a new flow of hash ``key`` at ``now_ns``; 0 for none.

    turns  uint32[frontends], of which round robin moves the row's own
    """
    frontend = fib.frontends[row]
    if frontend["algorithm"] == MAGLEV:
        return at(fib.rings, frontend["first_slot"], frontend["slots"], reduce(key, frontend["slots"]))
    members = frontend["members"]
    if frontend["algorithm"] == ROUNDROBIN:
        choice = take_turn(turns, row, members)
    else:
        choice = draw(key, now_ns, members)
    return at(fib.members, frontend["first_member"], members, choice)


@kernel
def at(table, first, count, choice):
    """``table[first + choice]`` where the run of ``count`` has such a place and lies within the table, else 0."""
    place = np.int64(first) + choice
    if choice < 0 or choice >= np.int64(count) or place >= table.size:
        return _NONE
    return table[place]


@kernel
def draw(key, now_ns, members):
    """A member at random, as kube-proxy does it: from flow and time, so that the next connection draws again."""
    return reduce(mix64(key ^ mix64(np.uint64(now_ns))), members)


@kernel
def take_turn(turns, row, members):
    """The member whose turn it is, and on to the next; rows beyond ``turns`` take turns together, on row 0's."""
    own = row if row < turns.size else 0
    turn = np.int64(turns[own])
    if turn >= np.int64(members):
        turn = np.int64(0)
    turns[own] = turn + 1
    return turn
