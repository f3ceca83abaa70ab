"""The gateway's rows: a client's connection, an upstream one, an endpoint, and what became of a request.

Law: as in ``kernels.layout``, row 0 of every table is none. STATES is where a request stands; each state has one
function in ``kernels.net.requests`` or ``kernels.net.replies`` that takes it on.
"""

from typing import NamedTuple

import numpy as np

from kernels.layout import Pipes, Ring
from kernels.layout_http import REASONS, Ours
from kernels.layout_routes import FIRST_PUNT, PUNTS, Memory, Roads
from kernels.layout_wheel import Wheel
from kernels.net.syscalls import Exchange

# state        what is waited for                           then
# VACANT       the row is nobody's
# ANNOUNCING   the client: a header of the PROXY protocol   READING or HANDED
# READING      the client: a request, whole                 ASKING or HANDED
# ASKING       the others of its batch, within a pass       CONNECTING, SENDING, STREAMING, ANSWERING or HANDED
# CONNECTING   the endpoint takes the connection            SENDING or HANDED
# SENDING      the endpoint takes the rest of the request   WAITING
# STREAMING    the client, or the endpoint: a large body    WAITING or HANDED
# WAITING      the head of the answer                       ANSWERING or HANDED
# ANSWERING    the body of the answer, or the client        READING, or VACANT; an answer of ours comes from ASKING
# HANDED       its owner gives it to the slow path          VACANT; should it come back, READING in a row of its own
VACANT, READING, CONNECTING, SENDING, STREAMING, WAITING, ANSWERING, HANDED, ANNOUNCING, ASKING = range(10)
STATES = (
    "VACANT",
    "READING",
    "CONNECTING",
    "SENDING",
    "STREAMING",
    "WAITING",
    "ANSWERING",
    "HANDED",
    "ANNOUNCING",
    "ASKING",
)

# Where what waits to be sent is: in unsent[row] of the client, answers[row] of the upstream, or the client's pipe.
ASIDE, IN_PLACE, IN_PIPE = range(3)
PLACES = ("ASIDE", "IN_PLACE", "IN_PIPE")

# Why a connection is handed over, besides what ``layout_http.REASONS`` and ``layout_routes.PUNTS`` name.
OWN = 128
(
    TRUSTED,
    EARLY_ANSWER,
    UNREAD_BODY,
    SLOW_BODY,
    SLOW_REQUEST,
    NO_ROOM,
    NOBODY,
    NO_CONNECTION,
    ODD_ANSWER,
    NO_ANSWER,
    LATE,
    MAY_TRY_AGAIN,
    RULED_ANEW,
    DRAINING,
    FAILED,
    ANNOUNCED_ODDLY,
) = map(np.int64, range(OWN, OWN + 16))  # a Python integer would be a type of its own to the compiler
_OWN_TEXTS = (
    "a proxy that is trusted says of its client what is unusual",
    "an answer before its request was whole",
    "a body that is not all here, and that nobody is to get",
    "a body that does not go on",
    "a request that does not come at once",
    "no room for one more connection to an endpoint",
    "no endpoint, or all have failed lately",
    "the endpoint takes no connection at once",
    "an answer that is unusual",
    "no answer",
    "the answer is late",
    "an answer after which another endpoint may be asked",
    "the policies have changed meanwhile",
    "the ingress stops",
    "the gateway has failed",
    "a header of the PROXY protocol that is unusual",
)
HANDED_REASONS = {
    **{number: word for number, (word, _) in enumerate(REASONS) if number},
    **dict(enumerate(PUNTS, FIRST_PUNT)),
    **dict(enumerate(_OWN_TEXTS, OWN)),
}

GATEWAY_LOOP = np.dtype(
    [
        ("paused_until_ns", "i8"),  # accepting, for want of rows or descriptors
        ("seed", "u8"),  # of request ids
        ("read_ns", "i8"),  # how long is waited, see ``plane.ingress.timeouts``
        ("idle_ns", "i8"),
        ("head_ns", "i8"),
        ("send_ns", "i8"),
        ("body_ns", "i8"),
        ("keep_alive_ns", "i8"),
        ("epoll", "i4"),
        ("listener", "i4"),
        ("backlog", "i4"),  # the listener may have connections
        ("clients", "i4"),  # free rows
        ("upstreams", "i4"),  # likewise
        ("handed", "i4"),  # rows of the batch that wait for their owner
        ("asking", "i4"),  # places of the batch that are taken, all of them while it is decided on
        ("done", "i4"),  # rows of DONE that are filled
        ("idle", "i4"),  # upstream connections without a request
        ("at_work", "i4"),  # requests under way
        ("install", "u4"),  # which of the owner's tables is in force
        ("ruling", "u4"),  # which of the owner's rules are, which change more rarely
        ("draining", "i4"),
        ("crowded_out", "i4"),  # how many clients were closed to make room for others
        ("port", "i4"),
        ("https_port", "i4"),
        ("timed", "i4"),  # the clock is read for each request, not only for each pass: somebody keeps a row of it
        ("channel", "i4"),  # where clients come from that have come by TLS, -1: nobody does
        ("comers", "i4"),  # there may be some
        ("logs", "i4"),  # requests done are noted in ``said``
        ("texts", "i4"),  # bytes of ``texts`` that are used
        ("announced", "i4"),  # connections that are not by TLS begin with a header of the PROXY protocol,
        ("vetted", "i4"),  # and are left where they come from nobody that is trusted
    ],
    align=True,
)

CLIENT = np.dtype(
    [
        ("since_ns", "i8"),  # of the last sign of life, or the beginning of what is timed
        ("received_ns", "i8"),
        ("routed_ns", "i8"),  # of the request in hand, as DONE_REQUEST has them
        ("connected_ns", "i8"),
        ("first_byte_ns", "i8"),
        ("request_id", "u8"),
        ("key", "u8"),  # that its answer gives it, by which it keeps to its endpoint
        ("answered", "i8"),  # bytes of its answer that it has taken
        ("limit", "u8"),  # key of the limit that has let its request in; 0: there is none
        ("ssl", "u8"),  # address of its SSL where it came by TLS, else 0
        ("asked_ns", "i8"),  # when its endpoint was chosen, where how long that takes is remembered; else 0
        ("read_ns", "i8"),  # how long its endpoint is waited for,
        ("send_ns", "i8"),  # and while that takes nothing
        ("fd", "i4"),
        ("serial", "u4"),
        ("ip", "u4"),
        ("who", "u4"),  # sent the request in hand: that address, unless a trusted proxy says another one
        ("start", "i4"),  # requests[row, start:end] is here
        ("end", "i4"),
        ("size", "i4"),  # of the request in hand, with its body
        ("unsent", "i4"),  # [sent:unsent] waits for whom it is meant, see ``where``
        ("sent", "i4"),
        ("upstream", "u4"),  # 0: nobody has been asked
        ("backend", "u4"),
        ("goal", "u4"),
        ("origin", "u4"),
        ("rule", "u4"),
        ("retry_on", "u4"),  # bits of RETRY_CONDITIONS
        ("install", "u4"),
        ("ruling", "u4"),
        ("hop", "i4"),  # bytes of its forwarding fields
        ("reason", "i4"),  # why it is handed over
        ("pipe", "u4"),  # row of Pipes, 0: none
        ("named", "i4"),  # requests[row, start + named : …] is the Origin of its request, so many bytes
        ("named_size", "i4"),
        ("agent", "i4"),  # likewise its first User-Agent,
        ("agent_size", "i4"),
        ("referer", "i4"),  # and Referer
        ("referer_size", "i4"),
        ("answers", "u4"),  # that it has had since it came, or came back
        ("port", "u2"),
        ("status", "u2"),
        ("stay", "u2"),  # how many requests the slow path had answered before it gave it back, 0: it has not yet
        ("state", "u1"),
        ("method", "u1"),
        ("keep_alive", "u1"),
        ("readable", "u1"),
        ("writable", "u1"),
        ("hangup", "u1"),
        ("told_of_room", "u1"),  # when it takes more is an event
        ("corked", "u1"),  # the end of the answer waits for that of the connection, to go with it
        ("used", "u1"),  # it has had an answer
        ("queued", "u1"),
        ("chunked", "u1"),  # the answer goes to it in chunks
        ("over", "u1"),  # all of the answer has been read
        ("secured", "u1"),  # it came by TLS
        ("by_https", "u1"),  # and the request in hand was sent so, unless a trusted proxy says otherwise
        ("trusted", "u1"),  # what it says of clients counts
        ("streams", "u1"),  # its body is too large to be kept, or not whole yet and in chunks
        ("streamed", "u1"),  # and something of it has been sent: of requests[row] only the head, and what follows
        ("unchunked", "u1"),  # its chunks were all here: what is in them is in unsent[row]
        ("where", "u1"),  # what is unsent is: one of PLACES
        ("shares", "u1"),  # CORS is for its Origin
        ("sticks", "u1"),  # its answer gives it a key
        ("counted", "u1"),  # its request is among those of its limit that are under way
        ("logged", "u1"),  # its request has a line in the access log
        ("announced", "u1"),  # one of ``layout_announced``
    ],
    align=True,
)

UPSTREAM = np.dtype(
    [
        ("since_ns", "i8"),
        ("fd", "i4"),
        ("serial", "u4"),
        ("client", "u4"),  # row of the client, 0: it is idle
        ("endpoint", "u4"),
        ("before", "u4"),  # idle ones of an endpoint: the next older,
        ("after", "u4"),  # and the next younger one
        ("start", "i4"),
        ("end", "i4"),
        ("readable", "u1"),
        ("writable", "u1"),
        ("hangup", "u1"),
        ("failed", "u1"),
        ("used", "u1"),
        ("keep_alive", "u1"),
        ("spare", "u1", (2,)),
    ],
    align=True,
)

ENDPOINT = np.dtype(
    [
        ("ip", "u4"),
        ("port", "u2"),
        ("left", "u2"),
        ("last", "u4"),
        ("idle", "i4"),
        ("all", "i4"),
        ("spare", "u4"),
        ("latency_ns", "f8"),  # how long its answers take, as ``plane.balance.Standing`` has it,
        ("heard_ns", "i8"),  # as of then; 0: nothing is known
    ],
    align=True,
)

DONE_REQUEST = np.dtype(
    [
        ("request_id", "u8"),
        ("received_ns", "i8"),  # its head had been read
        ("done_ns", "i8"),  # the last byte of its answer was handed to the kernel, or it was given up
        ("routed_ns", "i8"),  # it was known where it goes, and to which endpoint, if to any
        ("connected_ns", "i8"),  # there was a connection to that, made or kept; 0: there was none
        ("first_byte_ns", "i8"),  # a byte of its answer was read; 0: there was none
        ("install", "u4"),
        ("origin", "u4"),
        ("goal", "u4"),
        ("backend", "u4"),
        ("ip", "u4"),
        ("port", "u2"),
        ("status", "u2"),
        ("reused", "u1"),  # that connection had carried another request before
        ("spare", "u1", (3,)),
    ],
    align=True,
)


class Gateway(NamedTuple):
    """Everything that one gateway thread works with but for the routes; it owns all but ``tallies``, and writes it.

    heads, answer_heads  HEAD, of clients' requests and endpoints' answers; uploads, bodies: BODY of them
    requests, answers    uint8[rows, bytes]: what came; unsent: what waits to be taken; out: what is composed
    hops                 uint8[rows, bytes]: a client's forwarding fields, of a trusted one those of its request in hand
    asking               uint32[1 + n]: the batch, by place: rows of clients that are ASKING
    lines, asked         LINE[1 + n, ...], ASK[1 + n]: the fields of their requests, and what is decided; place 0 is
                         for answers
    host, target, more   what the rule of a request has endpoint and client told
    words                uint64[…]: room for digests
    tallies              TALLY[…]: what clients have used of limits. All that serve for one ingress have the same, in
                         whatever thread: kernels.net.limits
    pipes                Pipes, through which large bodies go
    trusted              NETWORK[...]: proxies that speak for clients
    library              uint64[...]: where the functions of OpenSSL are, ``kernels.net.openssl``
    comers               SHAKEN_CLIENT[...], as they came through the channel, and their bytes
    announcement         ANNOUNCEMENT[1]: what a header of the PROXY protocol has said
    timers               of clients, and behind those, clients.size further, of connections to endpoints
    handed               uint32[...]: rows of clients for their owner; done: DONE_REQUEST[...]
    said                 SAID[...]: what the access log is told of those that are done; texts: uint8[...], of theirs
    """

    loop: np.ndarray
    clients: np.ndarray
    upstreams: np.ndarray
    endpoints: np.ndarray
    heads: np.ndarray
    answer_heads: np.ndarray
    uploads: np.ndarray
    bodies: np.ndarray
    asking: np.ndarray
    lines: np.ndarray
    requests: np.ndarray
    answers: np.ndarray
    unsent: np.ndarray
    out: np.ndarray
    hops: np.ndarray
    asked: np.ndarray
    host: np.ndarray
    target: np.ndarray
    more: np.ndarray
    words: np.ndarray
    tallies: np.ndarray
    free_clients: np.ndarray
    free_upstreams: np.ndarray
    ready: Ring
    timers: Wheel
    handed: np.ndarray
    done: np.ndarray
    said: np.ndarray
    texts: np.ndarray
    punts: np.ndarray
    ours: Ours
    pipes: Pipes
    trusted: np.ndarray
    library: np.ndarray
    comers: np.ndarray
    comers_bytes: np.ndarray
    announcement: np.ndarray
    exchange: Exchange


class Way(NamedTuple):
    """What is in force: Roads, Memory, and for each backend id the row of its endpoint."""

    roads: Roads
    memory: Memory
    endpoint_of: np.ndarray
