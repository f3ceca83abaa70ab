"""The rows of a timer wheel, ``kernels.net.wheel``.

Law: as in ``kernels.layout``, row 0 is none. Behind the rows of who has a timer come those of the slots: a slot and the
rows filed in it are a ring, in which each knows the one after it and the one before.
"""

from typing import NamedTuple

import numpy as np

NEVER = (1 << 63) - 1

TIMER = np.dtype(
    [
        ("from_ns", "i8"),  # the tick that it is filed for ends one later: its slot is for what is due from then on
        ("after", "u4"),
        ("before", "u4"),
    ],
    align=True,
)

WHEEL_CLOCK = np.dtype(
    [
        ("tick_ns", "i8"),
        ("slots", "i8"),  # a power of two
        ("turned", "i8"),  # the last tick whose slot is empty for good
        ("next_ns", "i8"),  # nothing comes up before; NEVER: nothing is filed
    ],
    align=True,
)


class Wheel(NamedTuple):
    """Timers of rows of one table.

    timers  TIMER[rows + slots]: of a row ``from_ns`` is NEVER while it is not filed; of a slot it means nothing
    clock   WHEEL_CLOCK[1]
    """

    timers: np.ndarray
    clock: np.ndarray
