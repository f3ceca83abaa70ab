"""What a header of the PROXY protocol says, and how far a connection is with it.

Law: as in ``kernels.layout``.
"""

import numpy as np

# Of a connection: no such header is to come or it named nobody, so its own address counts; it is to come; it is read.
OWN_ADDRESS, AWAITED, NAMED = range(3)

ANNOUNCEMENT = np.dtype(
    [
        ("ip", "u4"),  # of the client
        ("port", "u2"),
        ("named", "u1"),  # there is one: else the connection is its proxy's own, or about that nothing is known
        ("spare", "u1"),
    ],
    align=True,
)
