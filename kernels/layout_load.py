"""The bytes of what measures: the load's dtypes and codes (``kernels.net.httpload``), and those of the responder that
it may ask by HTTP (``kernels.net.httpresponder``).

Law: as in ``kernels.layout``. A request that has ended is one ROW, and a connection that was dialled one DIAL; times
are CLOCK_MONOTONIC's, and NEVER where nothing happened.
"""

from typing import NamedTuple

import numpy as np

NEVER = -1

# What became of a request that was not answered in full; 0 is none of these. Texts are documented in docs/records.md.
CONNECT_REFUSED, CONNECT_FAILED, RESET, EOF, TIMEOUT, PROTOCOL, NO_LOCAL_PORT, NO_DESCRIPTOR, INTERRUPTED = range(1, 10)
TLS_FAILED = 10
ERRORS = (
    "",
    "connect_refused",
    "connect_failed",
    "reset",
    "eof",
    "timeout",
    "protocol",
    "no_local_port",
    "no_descriptor",
    "interrupted",
    "tls_failed",
)

# What a load speaks: HTTP/1.1 over TCP, or bytes that come back as they are, over TCP or as a datagram of UDP.
HTTP, TCP_ECHO, UDP_ECHO = range(3)

# State of a client. SHAKING: its connection is there, and is being secured.
UNCONNECTED, CONNECTING, IDLE, ASKING, SHAKING = range(5)
CLIENT_STATES = ("UNCONNECTED", "CONNECTING", "IDLE", "ASKING", "SHAKING")

# What comes next of the answer that is under way, and how much of it: nothing any more; its head; a body of a length
# that was announced, in chunks, or until the connection ends.
WHOLE, HEAD, SIZED, CHUNKED, TO_END = range(5)

# How far a chunked body is (RFC 9112 7.1): in the digits of a size, in the extension after it, before the LF of that
# line, in the data, before the CR and the LF that end it, and in the trailers: at a line's beginning, within it, and
# before the LF of the empty line.
SIZE, EXTENSION, SIZE_LF, DATA, DATA_CR, DATA_LF, TRAILER, TRAILER_LINE, LAST_LF = range(9)

# What a head says. Of a request: its body is WHOLE, which is none, or SIZED.
ANSWER = np.dtype(
    [
        ("length", "i8"),  # of a SIZED body
        ("size", "i4"),  # bytes of the head, with the empty line
        ("status", "u2"),
        ("framing", "u1"),  # WHOLE, SIZED, CHUNKED or TO_END
        ("keep", "u1"),  # the connection stays
    ],
    align=True,
)

# One of the requests that a load sends, of which only the id differs from row to row.
REQUEST = np.dtype(
    [
        ("start", "i8"),  # Load.bytes[start : start + size]
        ("size", "i4"),
        ("id_at", "i4"),  # where in it the 16 hex digits of the id stand; negative: it has none
        ("bodiless", "u1"),  # HEAD: its answer has no body, whatever length it announces
        ("idempotent", "u1"),  # it may be sent a second time
        ("spare", "u1", (6,)),
    ],
    align=True,
)

# A request that has ended. What is not known when it ends is NEVER.
ROW = np.dtype(
    [
        ("number", "i8"),  # of the request within its load, in the order in which they were due
        ("intended_ns", "i8"),  # it was due
        ("start_ns", "i8"),  # it was given a connection, or one was dialled for it
        ("connected_ns", "i8"),  # the connection that was dialled for it was there
        ("tls_done_ns", "i8"),  # it had been secured; of plain HTTP NEVER
        ("sent_ns", "i8"),  # it was handed to the kernel; of its last attempt, as what follows
        ("request_sent_ns", "i8"),  # the kernel had taken all of it
        ("first_byte_ns", "i8"),
        ("done_ns", "i8"),
        ("bytes_in", "i8"),
        ("bytes_out", "i8"),  # over all attempts
        ("connection", "i4"),
        ("status", "u2"),
        ("error", "u1"),  # index of ERRORS
        ("attempts", "u1"),
        ("reused", "u1"),  # the connection had carried another request before
        ("spare", "u1", (7,)),
    ],
    align=True,
)

# A connection, once it is there or has failed.
DIAL = np.dtype(
    [
        ("began_ns", "i8"),
        ("connected_ns", "i8"),
        ("connection", "i4"),
        ("ip", "u4"),  # our end; 0: it never was connected
        ("port", "u2"),
        ("spare", "u2", (3,)),
    ],
    align=True,
)

# A client has one connection, or none, and at most one request under way.
CLIENT = np.dtype(
    [
        ("row", ROW),  # of its request
        ("began_ns", "i8"),  # its connection was dialled
        ("left", "i8"),  # bytes of a SIZED body, of a chunk, or of an echo, that are to come
        ("ssl", "u8"),  # of its connection, by TLS; 0: none
        ("session", "u8"),  # of the connection before, to be resumed; 0: none
        ("fd", "i4"),  # -1: none
        ("connection", "i4"),
        ("serial", "u4"),  # counts its connections: an event that carries another serial is stale
        ("place", "i4"),  # in Load.idle, while it is IDLE
        ("sent", "i4"),  # bytes of the request handed to the kernel
        ("held", "i4"),  # bytes of a head that is not whole yet, in Load.heads
        ("used", "i4"),  # requests that its connection has carried
        ("answers", "u4"),  # REQUEST it sends
        ("state", "u1"),  # one of CLIENT_STATES
        ("part", "u1"),  # what comes next of the answer
        ("chunk", "u1"),  # how far a chunked body is
        ("digits", "u1"),  # of a chunk's size, so far
        ("keep", "u1"),  # the connection stays after this answer
        ("over", "u1"),  # the other side has ended the connection
        ("busy", "u1"),  # it has a request
        ("spare", "u1", (1,)),
    ],
    align=True,
)

# The scalars of one load; there is one row of it.
LOOP = np.dtype(
    [
        ("now_ns", "i8"),  # the clock, as it was read last
        ("end_ns", "i8"),  # closed loop: from here on nothing is due
        ("timeout_ns", "i8"),  # of a request, from its intended time
        ("sweep_ns", "i8"),  # when timeouts are looked for next
        ("next", "i8"),  # number of the next request
        ("done", "i8"),  # requests that have ended
        ("bad", "i8"),  # of these, those without a whole answer or with a status of 400 or more
        ("rows", "i8"),  # Load.rows[:rows] are filled, the caller takes them out
        ("dials", "i8"),  # Load.dials[:dials] likewise
        ("late", "i8"),  # requests that were seen to be due more than LATE_NS late, with a client free for them
        ("latest_ns", "i8"),  # the most that one was
        ("free_ns", "i8"),  # since when there is a client for what is due
        ("spun_ns", "i8"),  # spent on looking for events without a sleep
        ("bytes_in", "i8"),
        ("resumed", "i8"),  # handshakes that resumed a session
        ("id_key", "u8"),  # exclusive-or with a number is its id
        ("context", "u8"),  # SSL_CTX of connections, by TLS; 0: they are plain
        ("epoll", "i4"),
        ("active", "i4"),  # clients with a request
        ("idle", "i4"),  # Load.idle[:idle]
        ("unconnected", "i4"),  # Load.unconnected[:unconnected]
        ("dialling", "i4"),  # clients in state CONNECTING
        ("dialled", "i4"),  # connections, ever
        ("event", "i4"),  # Load.exchange.events[event:events] are to be looked at
        ("events", "i4"),
        ("swept", "i4"),  # the sweep goes on at this client
        ("waiting", "i4"),  # closed loop: turns in Load.turns
        ("turn", "i4"),  # where in Load.turns the first of them stands
        ("asleep", "i4"),  # waits in a row that were not begun by looking
        ("vain", "i4"),  # how many are to be, after looks that found nothing
        ("open", "u1"),  # an open loop: requests are due by Load.due
        ("kept", "u1"),  # connections are used again
        ("full", "u1"),  # something is due, and no client free for it
        ("stopping", "u1"),  # nothing is begun any more, and what is under way is interrupted
        ("coarse", "u1"),  # the kernel waits by milliseconds only
        ("speech", "u1"),  # HTTP, TCP_ECHO or UDP_ECHO
        ("resume", "u1"),  # by TLS: a client's next connection resumes the session of its last
        ("spare", "u1", (1,)),
    ],
    align=True,
)


class Load(NamedTuple):
    """What one thread holds to ask.

    loop         LOOP[1]
    clients      CLIENT[C]
    idle         uint32[C]: rows of clients that are IDLE, the one used last is taken first
    unconnected  uint32[C]: stack of rows of clients that are UNCONNECTED
    due          int64[...]: open loop: when each request is due, ascending
    turns        int64[C]: closed loop: when each turn that nobody has taken is to be taken, a ring, ascending
    targets      ADDRESS[...]: where clients connect to, in turn
    sources      uint32[...]: addresses that connections come from, in turn; 0: as the system has it
    requests     REQUEST[...]
    order        uint32[...]: which of them each row is, by its number, over and over
    bytes        uint8[...]: what they consist of
    answer       ANSWER[1]
    buffer       uint8[...]: where answers are read to
    heads        uint8[C, HEAD_BYTES]: the beginning of a head that is not whole yet
    rows         ROW[...]
    dials        DIAL[...]
    library      uint64[...]: ``openssl.load_client``, by TLS
    name         uint8[...]: who is asked for by TLS (SNI), with a zero at its end; empty: nobody
    exchange     the memory that system calls read and write
    """

    loop: np.ndarray
    clients: np.ndarray
    idle: np.ndarray
    unconnected: np.ndarray
    due: np.ndarray
    turns: np.ndarray
    targets: np.ndarray
    sources: np.ndarray
    requests: np.ndarray
    order: np.ndarray
    bytes: np.ndarray
    answer: np.ndarray
    buffer: np.ndarray
    heads: np.ndarray
    rows: np.ndarray
    dials: np.ndarray
    library: np.ndarray
    name: np.ndarray
    exchange: tuple


# A connection to the responder.
VISITOR = np.dtype(
    [
        ("left", "i8"),  # bytes of a request's body that are to come
        ("size", "i8"),  # bytes of a request's body that came, where they are summed up
        ("sent", "i8"),  # bytes of the answer handed to the kernel
        ("received_ns", "i8"),  # when the head of the request under way was here, where rows are kept
        ("request_id", "u8"),  # of it, likewise; 0: it has no number
        ("dish", "i4"),  # the answer
        ("crc", "u4"),  # of the body, as far as it came
        ("fd", "i4"),  # -1: the row is free
        ("held", "i4"),  # bytes of a head that is not whole yet
        ("serial", "u4"),
        ("counter", "u2"),  # where it came in
        ("answering", "u1"),  # an answer is due, and not sent in full
        ("closing", "u1"),  # the connection ends after the answer
        ("bodiless", "u1"),  # the answer is a head
        ("spare", "u1", (7,)),
    ],
    align=True,
)

# Where the responder listens, and what it answers there: HttpResponder.dishes[first : last + 1], the last of them to
# whatever the others are not for.
COUNTER = np.dtype([("fd", "i4"), ("first", "i4"), ("last", "i4"), ("spare", "i4")], align=True)

# HttpResponder.answers[start : start + size], and the target that it answers, answers[target : target + target_size].
DISH = np.dtype(
    [
        ("target", "i8"),
        ("target_size", "i8"),
        ("start", "i8"),
        ("size", "i8"),
        ("head", "i8"),  # bytes of its head
        ("receipt", "u1"),  # its body is made for each request, of what arrived
        ("spare", "u1", (7,)),
    ],
    align=True,
)

# The scalars of one responder; there is one row of it.
HALL = np.dtype(
    [
        ("answered", "i8"),  # requests answered, ever
        ("turned_away", "i8"),  # connections reset: no row was free, or what came was no request it takes
        ("epoll", "i4"),
        ("free", "i4"),  # HttpResponder.free[:free] are the free rows
        ("served", "i4"),  # HttpResponder.served[:served] are for its owner
        ("spare", "i4"),
    ],
    align=True,
)

# A request that was answered, and when: its head was here, its answer was made.
SERVED = np.dtype([("request_id", "u8"), ("received_ns", "i8"), ("done_ns", "i8")], align=True)


class HttpResponder(NamedTuple):
    """What one thread holds to answer.

    hall      HALL[1]
    counters  COUNTER[...]
    dishes    DISH[...]
    visitors  VISITOR[V]
    free      uint32[V]: stack of free rows
    answers   uint8[...]
    buffer    uint8[...]: where requests are read to
    heads     uint8[V, HEAD_BYTES]: the beginning of a head that is not whole yet, then a receipt
    asked     ANSWER[1]: what the head of a request says of its body and its connection
    served    SERVED[...]: of requests with a number, empty where nobody keeps them
    exchange  the memory that system calls read and write
    """

    hall: np.ndarray
    counters: np.ndarray
    dishes: np.ndarray
    visitors: np.ndarray
    free: np.ndarray
    answers: np.ndarray
    buffer: np.ndarray
    heads: np.ndarray
    asked: np.ndarray
    served: np.ndarray
    exchange: tuple
