"""The bytes of HTTP/1.1 in compiled code: a scanned head, its lines, a body under way, and why one is not taken.

Law: a place in a head is counted from the head's first byte, which is at ``start`` in the data, so a head may be moved
as long as its ``start`` is. Codes are small integers; ``REASONS`` has a word and a text for each, and only for those.
"""

from typing import NamedTuple

import numpy as np

from kernels.layout import freeze

# Methods that are taken. 0 is none.
GET, HEAD_METHOD, POST, PUT, DELETE, PATCH, OPTIONS = range(1, 8)
METHODS = ("", "GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")

# Where a message ends (RFC 9112, 6.3).
BODILESS, SIZED, CHUNKED, UNTIL_CLOSE = range(4)
FRAMINGS = ("BODILESS", "SIZED", "CHUNKED", "UNTIL_CLOSE")

# What becomes of a line of a head.
GOES_ON = 0
DROPPED = 1  # it speaks of one hop, or its sender may not say it, or it is written anew
LINE_FATES = ("GOES_ON", "DROPPED")

# Bounds. A request beyond them goes the slow way, which has wider ones; an answer or a body beyond them is broken.
HEAD_BYTES = 16384  # of a head
TARGET_BYTES = 4096  # of a request's target
LINES = 100  # fields of a head
LINE_BYTES = 4096  # of a line within a chunked body
TRAILER_BYTES = 16384  # of all trailers
LENGTH_DIGITS = 18  # of a Content-Length, without zeroes before it
CHUNK_DIGITS = 15  # of a chunk's size, likewise

# Why a head or a body is not taken: of a request's head it is why it goes the slow way, else what is broken about it.
(
    NO_METHOD,
    NO_TARGET,
    NO_VERSION,
    LINE_END,
    CONTROL,
    NO_NAME,
    NO_HOST,
    NO_LENGTH,
    NO_CODING,
    TWO_ENDS,
    UNUSUAL_BODY,
    NO_CONNECTION,
    EXPECTATION,
    SWITCH,
    TRAILERS,
    PROXY,
    LOOKALIKE,
    REPEATED,
    TOO_LONG,
    TOO_MANY,
    NO_STATUS,
    CHUNK,
    EXTENSION,
    TRAILER,
) = range(1, 25)
REASONS = (
    ("", ""),
    ("method", "a method other than GET, HEAD, POST, PUT, DELETE, PATCH and OPTIONS, or no request at all"),
    ("target", "a target that is no path and query of visible ASCII: an absolute URL, an asterisk, a fragment"),
    ("version", "a version other than HTTP/1.1"),
    ("line_end", "a line that does not end in CR LF"),
    ("control", "a control byte"),
    ("name", "a line without a colon, or whose name is no token; so a folded one"),
    ("host", "no Host, two, or one that is no name or IPv4 address, with a port or without"),
    ("length", "a Content-Length that is no number, is beyond all measure, or comes twice"),
    ("coding", "a transfer coding that is not plainly chunked, or comes twice"),
    ("two_ends", "a Content-Length and a transfer coding"),
    ("unusual_body", "a body of GET, HEAD or OPTIONS"),
    (
        "connection",
        "a Connection that is not plainly close or keep-alive, or comes twice; an interim answer that closes",
    ),
    ("expectation", "an Expect"),
    ("switch", "an Upgrade, or what belongs to one"),
    ("trailers", "TE or Trailer"),
    ("proxy", "a Proxy-Connection"),
    ("lookalike", "a name that another reader may take for one of framing: Content_Length, Transfer_Encoding, Close"),
    ("repeated", "a field twice that may come once: Content-Type, User-Agent and their like"),
    ("too_long", f"a head of more than {HEAD_BYTES} bytes; a target, or a line in a body, of more than {TARGET_BYTES}"),
    ("too_many", f"more than {LINES} fields"),
    ("status", "a first line that is not that of an answer in HTTP/1.1 or 1.0"),
    ("chunk", "a chunk without a plain size, or that does not end where it says"),
    ("extension", "a chunk extension that is none"),
    ("trailer", "a trailer that is no field, or one of framing or of the connection"),
)

# One head. It is all zeroes before its first byte is looked at (``http1.begin``).
HEAD = np.dtype(
    [
        ("length", "i8"),  # of the body where it is SIZED; what Content-Length says where it is BODILESS; -1: nothing
        ("start", "i4"),  # where in the data it begins; every other place is counted from there
        ("size", "i4"),  # with the empty line at its end
        ("at", "i4"),  # not whole yet: where the line begins that is not
        ("looked", "i4"),  # likewise: how much has been looked at
        ("target", "i4"),
        ("target_size", "i4"),
        ("path_size", "i4"),  # of the target, up to "?"
        ("host", "i4"),  # with its port
        ("host_size", "i4"),
        ("request_id", "i4"),  # X-Request-ID, the last one
        ("request_id_size", "i4"),
        ("reason", "i4"),  # the phrase after the status
        ("reason_size", "i4"),
        ("once", "u4"),  # a bit for each field seen that may come once
        ("status", "u2"),
        ("lines", "u2"),  # rows of LINE
        ("method", "u1"),
        ("framing", "u1"),
        ("keep_alive", "u1"),  # another message may follow on this connection
        ("version10", "u1"),
        ("told", "u1"),  # how many fields it has that only a trusted proxy may send
        ("dated", "u1"),  # it has a Date
        ("served", "u1"),  # it has a Server
        ("hosts", "u1"),
        ("lengths", "u1"),
        ("codings", "u1"),
        ("connections", "u1"),
        ("closes", "u1"),  # Connection names close
        ("keeps", "u1"),  # and keep-alive
        ("names_others", "u1"),  # and fields, which are of this hop only
        ("spare", "u1", (2,)),
    ],
    align=True,
)

# One field of a head.
LINE = np.dtype(
    [
        ("start", "i4"),  # of its name
        ("name_end", "i4"),
        ("value", "i4"),
        ("end", "i4"),  # of its value
        ("what", "u1"),  # one of LINE_FATES
        ("spare", "u1", (3,)),
    ],
    align=True,
)

# What becomes of the bytes of a body.
CANONICAL = 0  # as they are; of a chunked one sizes in lower case without zeroes, no extensions and no trailers
PLAIN = 1  # what is in the chunks
SKIPPED = 2  # only looked at: nothing is written

# Where in a body the next byte is.
OVER, COUNTED, ENDLESS, CHUNK_SIZE, IN_CHUNK, CHUNK_END, IN_TRAILERS = range(7)
BODY_STATES = ("OVER", "COUNTED", "ENDLESS", "CHUNK_SIZE", "IN_CHUNK", "CHUNK_END", "IN_TRAILERS")

# What ``bodies.reframe`` answers, if not -reason.
MORE, DONE = range(2)

# One body under way (``bodies.begin``).
BODY = np.dtype(
    [
        ("left", "i8"),  # bytes of what is COUNTED, or of the chunk
        ("content", "i8"),  # bytes of content so far, without what frames them
        ("consumed", "i8"),  # by the last call, of what it was given
        ("produced", "i8"),  # by it, from where that begins
        ("trailers", "i4"),  # bytes of them
        ("state", "u1"),
        ("mode", "u1"),
        ("spare", "u1", (2,)),
    ],
    align=True,
)


class Hop(NamedTuple):
    """What is written into a request's head on its way to an endpoint; each uint8[], empty: nothing.

    forwarding  field lines, each with its CR LF: X-Forwarded-For, X-Real-IP, X-Forwarded-Proto, X-Forwarded-Port
    host        what Host becomes, empty: it stays
    target      what the target becomes, empty: it stays
    more        further field lines, each with its CR LF
    """

    forwarding: np.ndarray
    host: np.ndarray
    target: np.ndarray
    more: np.ndarray


class Ours(NamedTuple):
    """What is written into an answer's head on its way to a client; each uint8[], whole lines with their CR LF.

    date    where the endpoint said none
    server  likewise
    more    further fields, before those
    """

    date: np.ndarray
    server: np.ndarray
    more: np.ndarray


# What fields mean. A rule says what is done about one; its argument is a reason, or a bit of HEAD.once.
(
    PASS,
    DROP,
    OF_HOST,
    OF_CONNECTION,
    OF_LENGTH,
    OF_CODING,
    OF_REQUEST_ID,
    HEARSAY,
    ONCE,
    REFUSE,
    OF_DATE,
    OF_SERVER,
    OF_PROXY,
) = range(13)
FIELD_RULES: dict[str, tuple[int, int, int]] = {  # name → rule in a request, its argument, rule in an answer
    "host": (OF_HOST, 0, PASS),
    "connection": (OF_CONNECTION, 0, OF_CONNECTION),
    "content-length": (OF_LENGTH, 0, OF_LENGTH),
    "transfer-encoding": (OF_CODING, 0, OF_CODING),
    "x-request-id": (OF_REQUEST_ID, 0, PASS),
    "keep-alive": (DROP, 0, DROP),
    "x-real-ip": (DROP, 0, PASS),
    "x-forwarded-for": (HEARSAY, 0, PASS),
    "x-forwarded-host": (HEARSAY, 0, PASS),
    "x-forwarded-port": (HEARSAY, 0, PASS),
    "x-forwarded-proto": (HEARSAY, 0, PASS),
    "x-forwarded-scheme": (HEARSAY, 0, PASS),
    "x-original-forwarded-for": (HEARSAY, 0, PASS),
    "x-scheme": (HEARSAY, 0, PASS),
    "forwarded": (HEARSAY, 0, PASS),
    "te": (REFUSE, TRAILERS, PASS),
    "trailer": (REFUSE, TRAILERS, DROP),
    "upgrade": (REFUSE, SWITCH, DROP),
    "sec-websocket-key1": (REFUSE, SWITCH, PASS),
    "expect": (REFUSE, EXPECTATION, PASS),
    "proxy-connection": (REFUSE, PROXY, OF_PROXY),
    "content_length": (REFUSE, LOOKALIKE, PASS),
    "transfer_encoding": (REFUSE, LOOKALIKE, PASS),
    "close": (REFUSE, LOOKALIKE, PASS),
    "content-type": (ONCE, 1, PASS),
    "content-location": (ONCE, 2, PASS),
    "content-range": (ONCE, 4, PASS),
    "etag": (ONCE, 8, PASS),
    "max-forwards": (ONCE, 16, PASS),
    "user-agent": (ONCE, 32, PASS),
    "server": (ONCE, 64, OF_SERVER),
    "date": (PASS, 0, OF_DATE),
}
NAME_BYTES = max(map(len, FIELD_RULES))
SLOTS_OF_NAMES = 256


def _folded(name: str) -> np.ndarray:
    """uint8[]: a name as it is compared, every byte with 0x20 set."""
    return np.frombuffer(name.encode(), np.uint8) | 0x20


def slot_of_name(size: int, middle: int, last_but_one: int, multiplier: int) -> int:
    """The slot of a name by its length and two of its bytes, folded; the kernel's twin."""
    return ((size * 65536 + middle * 256 + last_but_one) * multiplier >> 16) % SLOTS_OF_NAMES


def _multiplier() -> int:
    """The smallest that puts every name in a slot of its own."""
    keys = [(len(name), int(_folded(name)[len(name) // 2]), int(_folded(name)[-2])) for name in FIELD_RULES]
    return next(by for by in range(1, 1 << 20) if len({slot_of_name(*key, by) for key in keys}) == len(keys))


NAME_MULTIPLIER = _multiplier()


def _names() -> tuple[np.ndarray, ...]:
    slots = np.zeros(SLOTS_OF_NAMES, np.uint8)
    names = np.zeros((len(FIELD_RULES) + 1, NAME_BYTES), np.uint8)
    sizes = np.zeros(len(FIELD_RULES) + 1, np.int64)
    rules = np.zeros((len(FIELD_RULES) + 1, 3), np.int64)
    for row, (name, meaning) in enumerate(FIELD_RULES.items(), 1):
        folded = _folded(name)
        slots[slot_of_name(len(name), int(folded[len(name) // 2]), int(folded[-2]), NAME_MULTIPLIER)] = row
        names[row, : len(name)], sizes[row], rules[row] = folded, len(name), meaning
    return freeze(slots), freeze(names), freeze(sizes), freeze(rules)


# uint8[slots]: row of a name, 0: none; uint8[rows, NAME_BYTES]; int64[rows]; int64[rows, 3]: as FIELD_RULES has it.
NAME_SLOTS, NAMES, NAME_SIZES, NAME_RULES = _names()
