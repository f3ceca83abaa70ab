"""Routes as compiled code looks them up and acts on them: what ``plane.fastroutes`` makes of ``plane.routes.Routes``.

Law: as in ``kernels.layout``, row 0 of every table means none. A *road* is what becomes of a request: a path of a host,
or the default of a host; their rows stand in order of matching, so of all that take a request the first counts. A
*rule* is a row of POLICY made ready, a *fork* a canary, a *goal* a port of a Service. What compiled code does not do
bears, in place of what it would need, a reason to punt: the request goes to ``plane.ingress``, which does everything.
"""

from typing import NamedTuple

import numpy as np

from kernels.layout import PATH_KINDS, RUN, STRING
from kernels.layout_limits import LIMIT

# Why a request is left to the slow path: one of FIRST_PUNT + the place of its text in PUNTS, so that none of these
# numbers means something to ``http1``, whose own are lower.
FIRST_PUNT = 64
PUNTS = (
    "Host is not a plain name",
    "the path is not in its normal form",
    "a host that is a regular expression may take it",
    "a path that is a regular expression may take it",
    "a rule that takes some requests only may take it",
    "the route has CORS, and the request an Origin that is none of the plain kind",
    "the route has passwords, or asks somebody who is let in",
    "the route rewrites paths by an expression that is not of the plain kind",
    "the route chooses endpoints by a cookie, or a hash, that is not of the plain kind",
    "the route has a default backend for errors, or for want of endpoints",
    "the route mirrors its requests",
    "the route speaks TLS to endpoints",
    "the route's redirect, or its fields, are not of the plain kind",
    "the route tries more endpoints than are remembered",
    "the body is, or may be, longer than the route takes",
    "a canary goes by a pattern, or a header or a cookie, that is not of the plain kind",
    "the Service is an ExternalName",
    "the Service has slow start",
)
(
    ODD_HOST,
    ODD_PATH,
    HOST_EXPRESSION,
    PATH_EXPRESSION,
    CONDITION,
    CORS,
    GUARD,
    REWRITE,
    STICKY,
    STAND_IN,
    MIRROR,
    UPSTREAM_TLS,
    WORDING,
    MANY_TRIES,
    BODY,
    CANARY_BY_REQUEST,
    EXTERNAL,
    SLOW_START,
) = range(FIRST_PUNT, FIRST_PUNT + len(PUNTS))
# The same, each in a word.
PUNT_WORDS = (
    "odd_host",
    "odd_path",
    "host_expression",
    "path_expression",
    "condition",
    "cors",
    "guard",
    "rewrite",
    "sticky",
    "stand_in",
    "mirror",
    "upstream_tls",
    "wording",
    "many_tries",
    "body_limit",
    "canary",
    "external_name",
    "slow_start",
)

HOST_BYTES = 512  # of what endpoints are told as Host, and
FIELDS_BYTES = 8192  # of the lines that answers get: more go the slow way
TRIES = 8  # endpoints that may be tried for one request: more of them nobody remembers
SUBSET = 8  # endpoints that equal requests may share: for each more all are looked at once more

# What ``decisions.decide`` says; a reason to punt is said by its negative.
GO = 1  # to ASK.goal
ANSWER = 2  # by ASK.reply, which ``decisions.write_answer`` writes

# Paths that are regular expressions of the plain kind, beside PATH_KINDS: a text in whatever case, which a path begins
# with, by whole elements or character by character.
FOLDED_PREFIX, FOLDED_STARTS = len(PATH_KINDS), len(PATH_KINDS) + 1

# What a host leads to.
SITE = np.dtype(
    [
        ("exacts", "u8"),  # bit n is set where an Exact path of length n, modulo 64, may take a request; likewise
        ("prefixes", "u8"),  # of Prefix
        ("starts", "u8"),  # of what paths begin with, character by character,
        ("folded_prefixes", "u8"),  # and of both in whatever case
        ("folded_starts", "u8"),
        ("name", "u4"),  # offset in Roads.text
        ("name_size", "u2"),
        ("kind", "u1"),  # NAMED, WILDCARD or MATCHED
        ("spare", "u1"),
        ("paths", "u4"),  # by which ROAD.paths its roads are known; 0: it has none but the default
        ("longest", "u4"),  # of its prefixes, in bytes
        ("expression", "u4"),  # its first road that is a regular expression of another kind; 0: none is
        ("default", "u4"),  # road of a path miss; 0: 404
    ],
    align=True,
)

ROAD = np.dtype(
    [
        ("text", "u4"),  # of the path: offset in Roads.text
        ("text_size", "u2"),
        ("kind", "u1"),  # one of PATH_KINDS, FOLDED_PREFIX or FOLDED_STARTS
        ("punt", "u1"),
        ("paths", "u4"),  # its host's paths, the row of the first of them; 0: it is a default, which nobody looks up
        ("goal", "u4"),
        ("origin", "u4"),  # row of Routes.origins
        ("rule", "u4"),
        ("fork", "u4"),
        ("spare", "u4"),
    ],
    align=True,
)

# Open addressing: a slot whose row is 0 ends a search.
SLOT = np.dtype([("tag", "u4"), ("row", "u4")])

RULE = np.dtype(
    [
        ("body_limit", "u8"),  # bytes; 0: any number
        ("connect_ms", "u4"),  # 0 here and below: the plane's own
        ("read_ms", "u4"),
        ("send_ms", "u4"),
        ("retry_on", "u4"),  # bits of RETRY_CONDITIONS
        ("retry_tries", "u4"),
        ("retry_ms", "u4"),
        ("answer", "u4"),  # reply that every request gets
        ("https", "u4"),  # reply that those by plain HTTP get
        ("denied", RUN),  # of networks
        ("allowed", RUN),  # of networks; none: everybody
        ("host", STRING),  # in Roads.text: what endpoints are told as Host; empty: what the client said
        ("fields", STRING),  # in Roads.words: lines that every answer gets by plain HTTP,
        ("secure_fields", STRING),  # and by HTTPS,
        ("replaced", RUN),  # in place of fields with these names, rows of Roads.names
        ("origins", RUN),  # pieces, one for each origin that CORS is for; none: for any, or there is no CORS
        ("shared", STRING),  # in Roads.words: lines that answers get besides which are for one of these origins
        ("preflight", "u4"),  # reply that OPTIONS gets where CORS is for its origin; 0: none
        ("limit", LIMIT),
        ("unlimited", RUN),  # of networks, to which no limit applies
        ("over_second", "u4"),  # replies to who has used it up
        ("over_minute", "u4"),
        ("over_at_once", "u4"),
        ("cookie", STRING),  # in Roads.text: name of the cookie that keeps a client at its endpoint; empty: none does
        ("after_key", STRING),  # in Roads.words: what stands behind its value, by plain HTTP,
        ("secure_after_key", STRING),  # and by HTTPS
        ("matched", STRING),  # in Roads.words: what a path begins with that is rewritten
        ("rewrite", RUN),  # pieces of what becomes of it; none: it stays
        ("hashed", RUN),  # pieces of what equal requests have in common, which go to one endpoint; none: nothing
        ("subset", "u4"),  # or share so many
        ("tail", "u1"),  # what follows, one of TAILS
        ("folded", "u1"),  # in whatever case
        ("anchored", "u1"),  # a path that does not begin so stays
        ("varies", "u1"),  # CORS is for some origins only
        ("persistent", "u1"),  # the cookie names the endpoint
        ("own_host", "u1"),  # endpoints are told their own address as Host
        ("typed", "u1"),  # Content-Type is among the fields
        ("unlogged", "u1"),
        ("punt", "u1"),
    ],
    align=True,
)

# What follows the text that a plain expression begins with, as it is written, and what $1 and $2 are.
TAILS = (
    "",  # anything
    "(.*)",  # $1: the rest
    "(/|$)",  # nothing, or a slash and anything; $1: the slash
    "(/|$)(.*)",  # likewise, and $2: the rest
    "(/.*|)$",  # likewise, $1: all of it
    "/?(.*)",  # $1: the rest, without a slash that it begins with
    "(/.*)",  # a slash and anything; $1: all of it
)
ANYTHING, REST, SLASH, SLASH_REST, BELOW, PAST_SLASH, FROM_SLASH = range(len(TAILS))

# What a header says for a canary: always or never, or yes by a text that it is, begins with, ends with or holds.
WORDS, IS, BEGINS, ENDS, HOLDS = range(5)

FORK = np.dtype(
    [
        ("goal", "u4"),
        ("origin", "u4"),
        ("weight", "u4"),  # out of total
        ("total", "u4"),  # 0: it takes nothing
        ("header", STRING),  # in Roads.text: its name, in lower case; empty: none
        ("value", STRING),  # in Roads.text
        ("cookie", STRING),  # in Roads.text: the name of one that says always or never
        ("match", "u2"),  # one of WORDS, IS …
        ("forgetful", "u2"),  # the cookie of affinity does not count
        ("punt", "u4"),
    ],
    align=True,
)

GOAL = np.dtype(
    [
        ("key", "u8"),  # of Service, port and algorithm, in this process only: whose turns go on
        ("digest", "u8"),  # of the Service, as cookies have it; 0: no route with cookies leads to it
        ("first", "u4"),  # endpoints[first : first + endpoints]
        ("endpoints", "u4"),
        ("reply", "u4"),  # while there is no endpoint
        ("algorithm", "u1"),  # one of INGRESS_ALGORITHMS
        ("punt", "u1"),
        ("spare", "u2"),
    ],
    align=True,
)

# An answer of the plane's own, but for its Date and what the request's rule adds to it.
REPLY = np.dtype(
    [
        ("status", "u2"),
        ("keep_slash", "u1"),  # of a URL by HTTPS, also one at its end
        ("secures", "u1"),  # Location is the same URL by HTTPS
        ("head", STRING),  # in Roads.words, here and below: status line and Server
        ("fields", STRING),  # further lines
        ("body", STRING),  # the whole of it, or what stands before the Location in it
        ("location", RUN),  # pieces that Location consists of; none: there is none, unless it secures
    ],
    align=True,
)

# A piece of a Location, of a path or of what equal requests have in common: a text of Roads.words, or what the request
# has; of the last three the text is a name, that of a field in lower case.
TEXT, SCHEME, HTTP_HOST, HOSTNAME, REQUEST_URI, TRIMMED_URI, GROUP_1, GROUP_2 = range(8)
URI, ARGS, REMOTE_ADDR, REQUEST_METHOD, ARG, COOKIE, FIELD = range(8, 15)
# Of an origin: the whole text of one, or one with a label in place of a character of it, which one is its kind less 1.
WHOLE, LABELLED = 0, 1
PIECE = np.dtype([("kind", "u4"), ("text", STRING)])

# One request while it is decided on: what is asked, then what was decided. The caller owns the row.
ASK = np.dtype(
    [
        ("draw", "u8"),  # 64 random bits
        ("now_ns", "i8"),
        ("length", "i8"),  # bytes of the body, 0: none; -1: nobody said how many
        ("client", "u4"),
        ("host", "i4"),  # data[host : host + host_size] is the Host, with its port
        ("host_size", "i4"),
        ("uri", "i4"),  # data[uri : uri + uri_size]: path and query as they were sent
        ("uri_size", "i4"),
        ("path_size", "i4"),
        ("https_port", "u2"),  # of this ingress; 0: not known
        ("secure", "u1"),  # it came by HTTPS
        ("bodiless", "u1"),  # HEAD: an answer has no body
        ("options", "u1"),  # OPTIONS
        ("spare", "u1"),
        ("port", "u2"),  # of the client
        ("key", "u8"),  # decided: the key by which the client is to keep to its endpoint
        ("limit", "u8"),  # key of the limit that has let it in; 0: there is none
        ("goal", "u4"),  # where it goes, also where a reply says that nobody is there
        ("origin", "u4"),  # which Ingress, rule and path said so; of Routes.origins
        ("rule", "u4"),
        ("reply", "u4"),  # where it is answered here
        ("named", "i4"),  # data[named : named + named_size] is its Origin,
        ("named_size", "i4"),
        ("status", "u2"),  # of the reply
        ("shares", "u1"),  # that CORS is for
        ("sticks", "u1"),  # the client is to be given the key
        ("counted", "u1"),  # it is among those of its limit that are under way
        ("said", "i2"),  # by ``decisions.decide``, or a reason to punt of ``hostpath.find``
    ],
    align=True,
)

NO_RULE, NOT_ALLOWED, DENIED = 1, 2, 3  # the first rows of Roads.replies


class Heard(NamedTuple):
    """A request as it was read.

    data   uint8[…]
    head   row of HEAD; lines: LINE[…], its fields
    """

    data: np.ndarray
    head: np.ndarray
    lines: np.ndarray


class Roads(NamedTuple):
    """What the gateway looks requests up in, read-only; of one Routes.

    generation  int, of the Routes
    hosts       SITE[H+1], by the rows of Routes.hosts; row 0 is for hosts that nobody has rules for
    host_slots  SLOT[power of two]: hosts by kind and name
    expressed   uint8[1]: some host is a regular expression
    roads       ROAD[P+H+2]: the rows of Routes.paths, then the default of each host
    slots       SLOT[power of two]: roads by paths, kind and text
    text        uint8[...]: that of the Routes
    rules       RULE[...], by the rows of POLICY
    forks       FORK[...], by the rows of CANARY
    networks    NETWORK[...]
    names       STRING[...] in words: names of fields, lower case
    pieces      PIECE[...]
    replies     REPLY[...]
    words       uint8[...]: what answers say
    goals       GOAL[T+1], by the rows of Routes.targets
    endpoints   uint32[...]: backend ids
    backends    BACKEND[B+1]
    """

    generation: int
    hosts: np.ndarray
    host_slots: np.ndarray
    expressed: np.ndarray
    roads: np.ndarray
    slots: np.ndarray
    text: np.ndarray
    rules: np.ndarray
    forks: np.ndarray
    networks: np.ndarray
    names: np.ndarray
    pieces: np.ndarray
    replies: np.ndarray
    words: np.ndarray
    goals: np.ndarray
    endpoints: np.ndarray
    backends: np.ndarray


class Memory(NamedTuple):
    """What one gateway thread remembers from request to request and over installs; it owns and writes all of it.

    turns   int64[T+1, 2]: of each goal, whose turn is next; of ``wrr`` also the weight that turns have come down to
    out_ns  int64[B+1]: until when an endpoint is passed over because it has failed; 0: it has not
    """

    turns: np.ndarray
    out_ns: np.ndarray
