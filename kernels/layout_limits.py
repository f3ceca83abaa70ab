"""What clients have used of the limits of routes: one table of an ingress, for compiled code and asyncio alike.

Law: as in ``kernels.layout``, row 0 is none. The other rows stand in sets of WAYS; which set a client's is follows from
its limit and its address, and a set is written by who holds its lock (``kernels.net.limits``), in whatever thread.
"""

import numpy as np

WAYS = 16

# What a limit allows each client.
LIMIT = np.dtype(
    [
        ("key", "u8"),  # of routes that are counted together; 0: there is no limit
        ("rps", "u4"),  # requests a second; 0 here and below: any number
        ("rpm", "u4"),
        ("burst", "u4"),  # how many times as much may come at once
        ("connections", "u4"),  # requests under way
    ],
    align=True,
)

# What a client has used of one.
TALLY = np.dtype(
    [
        ("key", "u8"),  # of the limit; 0: the row is nobody's. Of row 0: what hashes begin with
        ("client", "u8"),
        ("second", "f8"),  # excess in requests, over the rate a second, when the last one was let in,
        ("minute", "f8"),  # and over that a minute
        ("seen_ns", "i8"),  # and when that was
        ("rps", "u4"),  # the rates that these are over
        ("rpm", "u4"),
        ("at_work", "u4"),  # requests under way
        ("lock", "u4"),  # of the set, in its first row; 0: nobody has it
        ("spare", "u8"),
    ],
    align=True,
)

# What ``limits.enter`` says of a request.
LET_IN = 0
COUNTED = 1  # it is let in, and among those under way until ``limits.leave``
OVER_SECOND, OVER_MINUTE, OVER_AT_ONCE = 2, 3, 4
