"""What an access log is told of a request that compiled code has answered, and the lines that are made of it.

Law: as in ``kernels.layout``. A row of SAID stands beside the row of DONE_REQUEST of the same number, and holds what
that has not; text that clients have sent is kept whole, host, target, request id, User-Agent and Referer one behind the
other. It is no longer than a head, so none of it is cut off: there is room for all of it, or the line is lost.
"""

from typing import NamedTuple

import numpy as np

TEXT_BYTES = 2 << 20  # of requests done that are to be logged; a breath ends when half of it is used

# Whether a request has a line.
UNSAID = 0  # nobody asked for one
SAID_ALL = 1
LOST = 2  # there was no room for its text
FATES_OF_LINES = ("UNSAID", "SAID_ALL", "LOST")

SAID = np.dtype(
    [
        ("bytes", "i8"),  # of the answer that the client's socket has taken, with its head
        ("text", "i4"),  # where its text begins
        ("host", "i4"),  # bytes of it: of Host,
        ("target", "i4"),
        ("request_id", "i4"),  # of the client's X-Request-ID, 0: it gave none, and DONE_REQUEST's stands for it
        ("agent", "i4"),
        ("referer", "i4"),
        ("ip", "u4"),  # of the client
        ("method", "u1"),
        ("secured", "u1"),  # it came by TLS
        ("fate", "u1"),
        ("spare", "u1"),
    ],
    align=True,
)


class Page(NamedTuple):
    """Requests that lines are to be made of, all of them SAID_ALL.

    rows, said  DONE_REQUEST[n] and SAID[n]; texts: uint8[…], what those point at
    wall_ns     int64[n]: when each was done, since 1970
    seconds     int64[n]: rows of stamps, uint8[…, 20]: that time up to its full second, as ``2026-11-26T23:20:11.``
    kinds       int64[n]: whose words each has
    words       uint8[…]: of kind k there are pieces 2k and 2k + 1, and ``ends`` has where each begins, and the end
    """

    rows: np.ndarray
    said: np.ndarray
    texts: np.ndarray
    wall_ns: np.ndarray
    seconds: np.ndarray
    stamps: np.ndarray
    kinds: np.ndarray
    words: np.ndarray
    ends: np.ndarray
