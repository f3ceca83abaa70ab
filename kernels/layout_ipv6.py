"""The bytes of IPv6: the tables of ``layout`` with addresses of 128 bits in place of those of 32.

Law: a Fib is of one family, as kube-proxy has a proxier for each. One of IPv6 is ``layout.Fib`` with FRONTEND6,
BACKEND6 and RANGE6 in place of FRONTEND, BACKEND and RANGE, its ``Flows`` have columns of ADDRESS6, and all else is as
there. So which family a kernel is for follows from the types of what it is given, and it is compiled once for each.
"""

from typing import NamedTuple

import numpy as np

from kernels.layout import BACKEND, FRONTEND, RANGE

ADDRESS6 = np.dtype([("high", "u8"), ("low", "u8")])  # in host order: ::1 is (0, 1)


def _wide(table: np.dtype, *addresses: str) -> np.dtype:
    """The same fields in the same order, of which these are addresses."""
    fields = [(name, ADDRESS6 if name in addresses else table[name]) for name in table.names or ()]
    return np.dtype(fields, align=True)


FRONTEND6 = _wide(FRONTEND, "ip")
BACKEND6 = _wide(BACKEND, "ip")
RANGE6 = _wide(RANGE, "first", "last")


class Population6(NamedTuple):
    """``layout.Population`` whose clients are all addresses of a network.

    key        uint64, see ``population.key_of``
    first      ADDRESS6[1], the network's address
    own        ADDRESS6[1], 1 where its addresses differ from each other
    frontends  uint32[...]: rows of ``Fib.frontends``, each as likely as the others; at least one
    """

    key: np.uint64
    first: np.ndarray
    own: np.ndarray
    frontends: np.ndarray
