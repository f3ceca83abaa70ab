"""The bytes, defined once: every structured dtype, every integer code, every tuple of arrays.

Law: row 0 of every table means *none*, so an index of 0 is the answer "nothing found" and needs no flag.
IPv4 addresses are ``uint32`` in host order (``127.0.0.1`` is ``0x7f000001``), ports ``uint16`` in host order, times
``int64`` nanoseconds of the monotonic clock. A kernel is given tables of a Fib read-only (``freeze``): Numba compiles
a read-only array as another type, so a process that saw both would compile everything twice. Their owner may write the
same memory by another view of it (``lb.patches``), while no kernel runs that reads it.
"""

from typing import NamedTuple

import numpy as np

# Protocols, by their IANA numbers.
TCP = 6
UDP = 17

# What became of a flow. A verdict carries one of these; ``OUTCOMES`` gives the word people see and the counter's name.
NONE = 0
NEW = 1
TRACKED = 2
AFFINITY = 3  # as NEW, but not picked: session affinity remembered which backend the client has
NO_FRONTEND = 4
REJECT = 5  # no endpoint anywhere
DROP = 6  # there are endpoints, but none that the policy lets this client have; or the client is not allowed in
PUNT = 7
OUTCOMES = ("NONE", "NEW", "TRACKED", "AFFINITY", "NO_FRONTEND", "REJECT", "DROP", "PUNT")

# How a pool picks a backend for a new flow: kube-proxy's iptables and nftables modes, IPVS' schedulers by their names,
# Cilium's Maglev, and the power of two choices (Mitzenmacher).
RANDOM, RR, WRR, LC, WLC, SH, DH, SED, NQ, MH, MAGLEV, P2C = range(12)
ALGORITHMS = ("random", "rr", "wrr", "lc", "wlc", "sh", "dh", "sed", "nq", "mh", "maglev", "p2c")
# An ingress has one more, which goes by how long answers take: ingress-nginx's.
EWMA = len(ALGORITHMS)
INGRESS_ALGORITHMS = (*ALGORITHMS, "ewma")

# Other ways to pick consistently, which no pool of a Fib has: what the plane's own are compared with (lb.consistent).
RING, JUMP, RENDEZVOUS, ANCHOR, SLOTS = range(5)
RIVALS = ("ring", "jump", "rendezvous", "anchor", "maglev")  # the last with as many slots as one likes

# What became of a flow from one Fib to the next. BEGUN: it has a backend and had none before. WITHOUT: it has none now.
# Of those that had one: KEPT, or moved because its endpoint is gone (UNAVOIDABLE) or although it is not (DISRUPTED).
BEGUN, KEPT, UNAVOIDABLE, DISRUPTED, WITHOUT = range(5)
FATES_OF_FLOWS = ("begun", "kept", "unavoidable", "disrupted", "without")

# State of a backend. Only a READY one is in pools. The flows of a DRAINING one, which terminates and still serves, go
# on; of an UNREADY one TCP connections do, while UDP flows, which nobody ends, are picked again as kube-proxy has it.
GONE = 0
READY = 1
DRAINING = 2
UNREADY = 3
BACKEND_STATES = ("GONE", "READY", "DRAINING", "UNREADY")

# Which clients a frontend has an own pool for each node for, in FRONTEND.by_node.
INSIDE, OUTSIDE = 1, 2

FRONTEND = np.dtype(
    [
        ("ip", "u4"),
        ("port", "u2"),
        ("proto", "u1"),
        ("by_node", "u1"),  # INSIDE | OUTSIDE: the pool's row is the one below plus N of the node the client is at
        ("inside", "u4"),  # row of pools for clients in the cluster: pods and nodes
        ("outside", "u4"),  # row of pools for all others
        ("served", "u4"),  # 1 where some client is given an endpoint, 0 where nobody is
        ("affinity", "u4"),  # what clients keep a backend of: a number of Service and port, 0 for no session affinity
        ("affinity_s", "u4"),  # for how long after a client's last new connection
        ("first_range", "u4"),  # outside clients come from ranges[first_range : first_range + ranges]; 0: from anywhere
        ("ranges", "u2"),
        ("node", "u2"),  # N of the node whose address this is, 0 for an address that every node serves
    ],
    align=True,
)

# A slot of the index of frontends, which says all that most flows need to be told of theirs: 16 bytes.
INDEX = np.dtype(
    [
        ("key", "u8"),  # hash of address, port and protocol; of IPv4 no two have the same one
        ("row", "u4"),  # of the frontend, 0 where the slot is empty
        ("pool", "u4"),  # that all flows to it are picked from; 0 where that depends on the client
    ],
    align=True,
)

# Whom a flow may go to. Frontends with equal endpoints share one.
POOL = np.dtype(
    [
        ("first_member", "u4"),  # members[first_member : first_member + members], weights likewise
        ("members", "u4"),
        ("first_slot", "u4"),  # rings[first_slot : first_slot + slots]; slots is 0 where nothing hashes to a ring
        ("slots", "u4"),
        ("weight", "u4"),  # sum of the members' weights
        ("heaviest", "u2"),  # the largest of them
        ("step", "u2"),  # their greatest common divisor
        ("algorithm", "u1"),  # one of ALGORITHMS
        ("otherwise", "u1"),  # REJECT or DROP: the outcome where there is no member
        ("slow_start_s", "u2"),  # for how long a member that has become ready gets less than its share
    ],
    align=True,
)

BACKEND = np.dtype(
    [
        ("ip", "u4"),
        ("port", "u2"),
        ("weight", "u2"),
        ("node", "u2"),  # N of the node's address, 0 for an address that is no pod of ours
        ("proto", "u1"),
        ("state", "u1"),
    ],
    align=True,
)

# Addresses from first to last, both included. In Fib.sources, sorted and apart: those of node N and its pods.
RANGE = np.dtype([("first", "u4"), ("last", "u4"), ("node", "u2"), ("spare", "u2")], align=True)


RUN = np.dtype([("first", "u4"), ("count", "u4")])  # rows first … first + count - 1 of some table

# A bucket of AnchorHash: the A and K of its paper.
BUCKET = np.dtype([("left", "u4"), ("successor", "u4")])


class Fib(NamedTuple):
    """What is looked up to steer a flow: the compiled form of one Snapshot, read-only.

    generation      int, the Snapshot it was compiled from
    frontends       FRONTEND[F+1]; a row of protocol 0 is none
    frontend_index  INDEX[power of two ≥ 4·F]: open addressing by hash of (ip, port, proto); an empty slot ends
    pools           POOL[P+1]
    backends        BACKEND[B+1], the row is the backend's stable id
    members         uint32[...]: backend ids, one run for each pool
    weights         uint16[...]: of the members, none of them 0
    rings           uint32[...]: Maglev slots holding backend ids, runs may be shared by pools of equal members
    sources         RANGE[...]: which node a client is at
    ranges          RANGE[...]: where clients of load balancers may come from, one run for each frontend that says so
    ring_of         uint64[P+1]: where the ring of each pool lies that goes by Maglev, ``first_slot << 32 | slots``; 0
                    of others. It follows from ``pools``, so who replaces them replaces it (``lb.pools.ring_of``), and
                    is what vector instructions fetch for each flow
    """

    generation: int
    frontends: np.ndarray
    frontend_index: np.ndarray
    pools: np.ndarray
    backends: np.ndarray
    members: np.ndarray
    weights: np.ndarray
    rings: np.ndarray
    sources: np.ndarray
    ranges: np.ndarray
    ring_of: np.ndarray


class Rival(NamedTuple):
    """What picks in place of the algorithms of a Fib's pools, in a comparison; read-only.

    algorithm  int, one of RIVALS
    runs       RUN[P+1]: which rows of the tables below each pool of the Fib has; unused by jump and rendezvous
    points     uint32[...], ring: places on the circle, ascending in each run
    owners     uint32[...]: backend ids, of the points, of anchor's buckets (0: none) or of maglev's slots
    buckets    BUCKET[...], anchor
    """

    algorithm: int
    runs: np.ndarray
    points: np.ndarray
    owners: np.ndarray
    buckets: np.ndarray


class Population(NamedTuple):
    """Flows that are made by number: whom they come from and where they go.

    key        uint64, see ``population.key_of``
    first      uint32, the first client address
    clients    uint64, how many there are, below 2^32
    frontends  uint32[...]: rows of ``Fib.frontends``, each as likely as the others; at least one
    """

    key: np.uint64
    first: np.uint32
    clients: np.uint64
    frontends: np.ndarray


class Flows(NamedTuple):
    """A batch of 5-tuples, as columns of equal length."""

    src_ip: np.ndarray  # uint32
    dst_ip: np.ndarray  # uint32
    src_port: np.ndarray  # uint16
    dst_port: np.ndarray  # uint16
    proto: np.ndarray  # uint8


class Verdicts(NamedTuple):
    """What ``forward`` decided for each flow of a batch; the caller owns the columns."""

    outcome: np.ndarray  # uint8, one of OUTCOMES
    frontend: np.ndarray  # uint32
    backend: np.ndarray  # uint32


# One tracked flow: 16 bytes, so that four are a cache line. ``key`` is the 64-bit flow hash, never 0 in a used entry.
# ``held`` has the backend, when the flow is forgotten, and a fingerprint of the backend's address, so that an id which
# is given to another endpoint is not taken for the one it stood for; ``conntrack`` says where.
TRACK = np.dtype([("key", "u8"), ("held", "u8")])


class Conntrack(NamedTuple):
    """Which backend a live flow has. One for each thread, never shared: no kernel locks.

    entries  TRACK[4 * buckets], each bucket a cache line; or of 0: a table that holds nothing
    counts   int64[3]: entries held (live ones, and expired ones that have not been swept yet), inserts refused for want
             of room, where the sweep of expired entries goes on
    """

    entries: np.ndarray
    counts: np.ndarray


class Steering(NamedTuple):
    """What one forwarding thread remembers between batches; it owns and writes all of it.

    Columns of pools and backends are as long as those tables at least.

    conntrack  Conntrack of flows
    affinity   Conntrack of clients of frontends with session affinity
    turns      int64[pools, 2]: the next member in turn of a pool, and the weight its turns have come down to
    active     int32[backends]: flows that a backend has now; each that is NEW or by AFFINITY is counted, who sees it
               end counts it off
    ready_ns   int64[backends]: since when a backend has been ready; 0: longer than anybody remembers
    warm_ns    int64[1]: from when on no backend is new to a pool with slow start
    outcomes   int64[len(OUTCOMES)]: how often each outcome was given
    idle_ns    int64[1]: how long a tracked flow is remembered after its last packet or batch
    arrival    int64[1]: N of the node at which clients from outside reach an address of no node, 0: wherever a load
               balancer sends them, which is to nodes that have an endpoint for them
    keys       uint64[2 * forward.BLOCK]: room for hashes of the flows that are being decided, and of those behind them
    places     likewise, for the hashes of where they go; without conntrack then for their slots of ``rings``
    buckets    likewise, for their entries of conntrack; until these are found, the first ones of their buckets
    late       uint16[forward.BLOCK + 1]: room for which of them are not where most are
    marks      uint32[backends]: room for what conntrack has for the fingerprints of endpoints that are there; a batch
               for which it is too short does without
    """

    conntrack: Conntrack
    affinity: Conntrack
    turns: np.ndarray
    active: np.ndarray
    ready_ns: np.ndarray
    warm_ns: np.ndarray
    outcomes: np.ndarray
    idle_ns: np.ndarray
    arrival: np.ndarray
    keys: np.ndarray
    places: np.ndarray
    buckets: np.ndarray
    late: np.ndarray
    marks: np.ndarray


# Ingress tables. A host owns a run of paths in match order; a path leads to a target; a target is a run of endpoints.
EXACT = 0
PREFIX = 1
REGEX = 2  # the text is a regular expression that matches where a path begins, in whatever case
STARTS = 3  # the text is what a path begins with, character by character
PATTERN = 4  # the text is a regular expression that matches anywhere, as it is written
PATH_KINDS = ("Exact", "Prefix", "Regex", "StartsWith", "Pattern")

NAMED, WILDCARD, MATCHED = range(3)
HOST_MARKS = ("", "*", "~")  # what such a host begins with in manifests

HOST = np.dtype(
    [
        ("name", "u4"),  # offset in Routes.text, lower case; a wildcard's name is what follows "*", an expression's "~"
        ("name_length", "u2"),  # 0: the rules for any host
        ("kind", "u1"),  # NAMED, WILDCARD or MATCHED
        ("alias", "u1"),  # another name of a host: it has the paths of that one's row
        ("first_path", "u4"),
        ("paths", "u4"),
        ("default", "u4"),  # target of a path miss under this host, of a host miss in row 0; 0: there is none
        ("origin", "u4"),  # row of Routes.origins: which Ingress gave the default
        ("policy", "u4"),  # row of POLICY, of a path miss; it may be there without a default
    ],
    align=True,
)

PATH = np.dtype(
    [
        ("text", "u4"),  # offset in Routes.text; a Prefix is kept without its trailing slash
        ("text_length", "u2"),
        ("kind", "u1"),
        ("slash", "u1"),  # the manifest's Prefix ended in "/": it wins over its twin without
        ("target", "u4"),
        ("origin", "u4"),  # row of Routes.origins: which Ingress, rule and path said so
        ("policy", "u4"),  # row of POLICY; 0: nothing but to forward
        ("canary", "u4"),  # row of CANARY; 0: there is none
        ("when", "u4"),  # row of WHEN; 0: any request
    ],
    align=True,
)

TARGET = np.dtype(
    [
        ("first_endpoint", "u4"),  # endpoints[first_endpoint : first_endpoint + endpoints]
        ("endpoints", "u4"),
        ("service", "u4"),  # row of Routes.services
        ("algorithm", "u1"),  # one of INGRESS_ALGORITHMS
        ("spare", "u1"),
        ("status", "u2"),  # answered when there is no endpoint
        ("slow_start_s", "u2"),  # for how long an endpoint that has become ready gets less than its share
    ],
    align=True,
)

# What is done with the requests of a route besides forwarding them (``plane.policies`` has the words). Row 0 is none.
# Text is a row of STRING, of which row 0 is empty; a list is a RUN of rows of STRING, of addresses one of NETWORK.

STRING = np.dtype([("offset", "u4"), ("length", "u4")])  # in Routes.text
NETWORK = np.dtype([("ip", "u4"), ("mask", "u4")])  # an address is in it if ``address & mask == ip``

POLICY = np.dtype(
    [
        ("denied", "u4"),  # text: why nothing is served
        ("body_limit", "u8"),  # bytes; 0: none
        ("cors", "u1"),
        ("cors_credentials", "u1"),
        ("cors_origins", RUN),
        ("cors_methods", "u4"),  # text
        ("cors_headers", "u4"),  # text
        ("cors_expose", "u4"),  # text
        ("cors_max_age_s", "i8"),
        ("redirect", "u4"),  # text: where to, with variables
        ("redirect_status", "u2"),
        ("https", "u1"),  # plain HTTP is redirected to HTTPS
        ("https_status", "u2"),  # by which that is said; 0: 308
        ("keep_slash", "u1"),  # also one at the end of its URL
        ("hsts_max_age_s", "u4"),  # of Strict-Transport-Security; 0: there is none
        ("limit_key", "u4"),  # text: routes with the same one are counted together
        ("limit_rps", "u4"),
        ("limit_rpm", "u4"),
        ("limit_burst", "u4"),  # how many times as much may come at once
        ("limit_connections", "u4"),
        ("unlimited", RUN),  # of networks
        ("sources_denied", RUN),  # of networks
        ("sources_allowed", RUN),  # of networks
        ("auth", "u1"),
        ("auth_realm", "u4"),  # text
        ("auth_users", RUN),  # lines of htpasswd
        ("auth_any", "u1"),
        ("auth_url", "u4"),  # text, with variables
        ("auth_method", "u4"),  # text
        ("auth_redirect", "u4"),  # text
        ("auth_sent", RUN),  # lines "name: value", with variables
        ("auth_fields", RUN),  # names of fields
        ("auth_signin", "u4"),  # text, with variables
        ("auth_cookie_always", "u1"),
        ("auth_cache_key", "u4"),  # text, with variables
        ("auth_cache", RUN),  # "200 401 5m": statuses, if any, and a time
        ("rewrite_from", "u4"),  # text: a regular expression
        ("rewrite_to", "u4"),  # text, with $1 to $9
        ("forwarded_prefix", "u4"),  # text, with $1 to $9
        ("upstream_host", "u4"),  # text
        ("own_host", "u1"),  # the endpoint's address instead
        ("connect_timeout_ms", "u4"),  # 0 here and below: the plane's own
        ("read_timeout_ms", "u4"),
        ("send_timeout_ms", "u4"),
        ("retry_on", "u4"),  # RETRY_… bits
        ("retry_tries", "u4"),
        ("retry_timeout_ms", "u4"),
        ("hash_by", "u4"),  # text, with variables
        ("hash_subset", "u4"),  # how many endpoints share the requests that are equal by it; 0: one has them
        ("errors", RUN),  # statuses
        ("errors_own", "u1"),
        ("errors_target", "u4"),  # row of TARGET
        ("fallback", "u4"),  # row of TARGET
        ("fields", RUN),  # lines "name: value"
        ("mirror", "u4"),  # text, with variables
        ("mirror_host", "u4"),  # text
        ("mirror_body", "u1"),
        ("cookie", "u4"),  # text: its name
        ("cookie_persistent", "u1"),
        ("cookie_change_on_failure", "u1"),
        ("cookie_secure", "u1"),
        ("cookie_by_http", "u1"),
        ("cookie_readable", "u1"),
        ("cookie_path", "u4"),  # text
        ("cookie_domain", "u4"),  # text
        ("cookie_same_site", "u4"),  # text
        ("cookie_conditional", "u1"),
        ("cookie_expires_s", "u4"),
        ("cookie_max_age_s", "u4"),
        ("upstream_tls", "u1"),  # endpoints speak HTTPS
        ("tls_name", "u4"),  # text, here and below
        ("tls_verify", "u1"),
        ("tls_protocols", "u4"),
        ("tls_ciphers", "u4"),
        ("tls_authorities", "u4"),
        ("tls_certificate", "u4"),
        ("tls_key", "u4"),
        ("unlogged", "u1"),
    ],
    align=True,
)

# Which requests a rule takes, of those for its host and path.
WHEN = np.dtype(
    [
        ("http", "u1"),
        ("https", "u1"),
        ("methods", RUN),  # one of these; none: any
        ("headers", RUN),  # "name:value", name in lower case; of each name one of its values
    ],
    align=True,
)

RETRY_CONDITIONS = (
    "error",
    "timeout",
    "invalid_header",
    "http_500",
    "http_502",
    "http_503",
    "http_504",
    "http_403",
    "http_404",
    "http_429",
    "non_idempotent",
    "off",
)

CANARY = np.dtype(
    [
        ("target", "u4"),
        ("origin", "u4"),
        ("header", "u4"),  # text, lower case
        ("header_value", "u4"),  # text
        ("header_pattern", "u4"),  # text: a regular expression
        ("cookie", "u4"),  # text
        ("weight", "u4"),  # out of total
        ("total", "u4"),
        ("forgetful", "u4"),  # the cookie of affinity does not count
    ],
    align=True,
)


def freeze(array: np.ndarray) -> np.ndarray:
    """The same array, read-only from here on."""
    array.setflags(write=False)
    return array


# The relay: what one thread holds for the connections it carries (``kernels.net.relay``); TCP first.

# State of a connection. Only an OPEN one moves bytes.
FREE = 0  # the row is in the list of free rows
CONNECTING = 1  # the client is accepted, the upstream has not answered yet
OPEN = 2
CONNECTION_STATES = ("FREE", "CONNECTING", "OPEN")

# State of one direction of a connection. Both ENDED: the connection is closed.
FLOWING = 0
ENDING = 1  # the source has sent its FIN, the buffer is not empty yet
ENDED = 2  # the sink has got its FIN
STREAM_STATES = ("FLOWING", "ENDING", "ENDED")

# How a connection ended. All but CLOSED are passed on as a reset to whoever is still there.
CLOSED = 1  # both sides sent their FIN
CLIENT_RESET = 2
UPSTREAM_RESET = 3
REFUSED = 4  # the upstream could not be connected to
TIMEOUT = 5  # the upstream did not answer in time
STOPPED = 6  # the relay stopped and its grace was over
ENDS = ("NONE", "CLOSED", "CLIENT_RESET", "UPSTREAM_RESET", "REFUSED", "TIMEOUT", "STOPPED")

CONNECTION = np.dtype(
    [
        ("opened_ns", "i8"),
        ("dialled_ns", "i8"),  # when the backend it has now was first tried
        ("record", "i8"),  # LOOP.recorded before its record was written
        ("client_ip", "u4"),
        ("frontend_ip", "u4"),
        ("client_port", "u2"),
        ("frontend_port", "u2"),
        ("backend", "u4"),
        ("pool", "u4"),  # row of Fib.pools that it was picked from
        ("generation", "i8"),  # of the Fib that row is of
        ("serial", "u4"),  # counts the uses of the row: an event that carries another serial is stale
        ("state", "u1"),  # one of CONNECTION_STATES
        ("queued", "u1"),  # the row is in Relay.ready, whatever its state
        ("tries", "u1"),  # backends that it has been offered
        ("spare", "u1"),
    ],
    align=True,
)

# One direction of a connection: streams[2·row] goes from client to upstream, streams[2·row + 1] back.
# readable and writable are what edge-triggered epoll reported and no system call has contradicted since.
# What is read and not yet written, end - start bytes, is in the stream's pipe where it has one, else in its buffer.
STREAM = np.dtype(
    [
        ("moved", "i8"),  # bytes given to the sink so far
        ("source", "i4"),  # file descriptor read from
        ("sink", "i4"),  # file descriptor written to
        ("start", "i4"),  # buffers[stream, start:end] is read and not yet written
        ("end", "i4"),
        ("pipe", "u2"),  # row of Pipes.ends, held while there is something in it; 0: none
        ("state", "u1"),  # one of STREAM_STATES
        ("readable", "u1"),
        ("writable", "u1"),
        ("hangup", "u1"),  # the source's FIN is here: read on to the end, no further edge will come
        ("failed", "u1"),  # the source is reset: what the sink does not take now is lost
        ("bulk", "u1"),  # the last read brought much: a pipe is worth its while
    ],
    align=True,
)

LISTENER = np.dtype(
    [
        ("ip", "u4"),  # of the frontend; 0: shared, of every frontend of that port that ``shared.answers`` names
        ("port", "u2"),  # of the frontend; the socket may be bound to a shifted one
        ("queued", "u1"),  # the row is in Relay.backlog
        ("spare", "u1"),
        ("fd", "i4"),  # -1: the row is free
        ("serial", "u4"),
    ],
    align=True,
)

# The mark of a shared listener is the longest segment that it says it takes. A handshake carries it to the other side,
# and no other server asks for so little over the loopback device, or for so much over another. 12 bytes are taken by
# timestamps, unless Linux is told to send none.
SHARED_SEGMENT_BYTES = 32000
MARKS = (SHARED_SEGMENT_BYTES, SHARED_SEGMENT_BYTES - 12)

# One row for each connection or flow of datagrams that was accepted and decided on, in the order of decision.
RECORD = np.dtype(
    [
        ("opened_ns", "i8"),  # the ``now_ns`` that ``forward`` was given
        ("generation", "i8"),
        ("client_ip", "u4"),
        ("frontend_ip", "u4"),
        ("backend_ip", "u4"),
        ("backend", "u4"),
        ("client_port", "u2"),
        ("frontend_port", "u2"),
        ("backend_port", "u2"),
        ("outcome", "u1"),  # one of OUTCOMES
        ("proto", "u1"),
    ],
    align=True,
)

# The scalars of one relay; there is one row of it.
LOOP = np.dtype(
    [
        ("paused_until_ns", "i8"),  # no accepting before: the table or the descriptors had run out
        ("next_scan_ns", "i8"),  # when connects are next checked for having taken too long
        ("connect_timeout_ns", "i8"),
        ("recorded", "i8"),  # records written, ever; row of the next one is recorded % len(records)
        ("epoll", "i4"),
        ("socket", "i4"),  # a fresh upstream socket held for the next connection, -1 for none
        ("free", "i4"),  # Relay.free[:free] are the free rows
        ("connecting", "i4"),  # connections in state CONNECTING
        ("node_ip", "u4"),
        ("spare", "i4"),
    ],
    align=True,
)


# UDP: who sends from one address and port to one frontend has a flow, with a socket of its own towards the backend.

# What became of a datagram that was read.
FORWARDED = 1  # handed to the socket towards the backend
ANSWERED = 2  # handed to the listener's socket, for the client
NO_BACKEND = 3  # ``forward`` gave none; why, its outcomes count
TABLE_FULL = 4  # a new flow, no free row, and none to be crowded out: all have just been heard
NO_SOCKET = 5  # a new flow, and no descriptor, port or memory for its socket
TURNED_AWAY = 6  # refused twice: by the flow's backend, and by the one that was picked instead
UNSENT = 7  # the system did not take it: a full queue, no route, longer than can be sent
FATES = ("NONE", "FORWARDED", "ANSWERED", "NO_BACKEND", "TABLE_FULL", "NO_SOCKET", "TURNED_AWAY", "UNSENT")

# How a flow ended.
UNOPENED = 1  # it never had a socket towards a backend; its datagrams' fate says why
IDLE = 2
BACKEND_GONE = 3  # or unready, or no longer one of the frontend's
BACKEND_REFUSED = 4  # ICMP said so
UNHEARD = 5  # its listener is closed
HALTED = 6  # the relay stopped
CROWDED_OUT = 7  # silent for longest when a new one had no room
FLOW_ENDS = ("NONE", "UNOPENED", "IDLE", "BACKEND_GONE", "BACKEND_REFUSED", "UNHEARD", "HALTED", "CROWDED_OUT")

DATAGRAM_FLOW = np.dtype(
    [
        ("key", "u8"),  # its flow hash
        ("opened_ns", "i8"),
        ("last_ns", "i8"),  # of the last datagram, either way
        ("moved_on", "i8"),  # bytes to the backend so far
        ("moved_back", "i8"),  # and to the client
        ("client_ip", "u4"),
        ("frontend_ip", "u4"),
        ("client_port", "u2"),
        ("frontend_port", "u2"),
        ("listener", "u4"),  # row of Datagrams.listeners
        ("backend", "u4"),  # 0 until the flow is open
        ("endpoint", "u4"),  # fingerprint of the backend's address, as in TRACK
        ("serial", "u4"),  # counts the uses of the row: an event that carries another serial is stale
        ("fd", "i4"),  # of the socket towards the backend; -1: the row is free
        ("answered", "u1"),
        ("refused", "u1"),  # ends once the answers that came before are read
        ("queued", "u1"),  # the row is in Datagrams.answering, whatever its state
        ("fate", "u1"),  # of the datagrams that are placed at a flow which did not open, one of FATES
    ],
    align=True,
)

# The scalars of the datagrams' part of a relay; there is one row of it.
DATAGRAM_LOOP = np.dtype(
    [
        ("paused_until_ns", "i8"),  # no new flows before: descriptors had run out
        ("next_scan_ns", "i8"),  # when flows are next checked for being idle
        ("idle_ns", "i8"),  # a flow ends so long after its last datagram
        ("stream_after_ns", "i8"),  # but one that has been answered, and goes on for so long,
        ("stream_idle_ns", "i8"),  # so long after its last
        ("overflowed", "i8"),  # answers that a flow's socket had no room for, as far as flows have ended
        ("free", "i4"),  # Datagrams.free[:free] are the free rows
        ("cursor", "i4"),  # the flow row that was looked at last for one to be crowded out
        ("raw", "i4"),  # descriptor to refuse by, -1 where this process may have none: then nothing is shared
        ("spare", "i4"),
    ],
    align=True,
)


class Ring(NamedTuple):
    """A queue of row numbers, none of them twice, so that as many slots as rows are enough.

    slots  uint32[power of two]
    ends   int64[2]: how many were ever taken out, how many were ever put in
    """

    slots: np.ndarray
    ends: np.ndarray


class Datagrams(NamedTuple):
    """What one relay thread writes for UDP. Row 0 of flows and listeners is none.

    loop        DATAGRAM_LOOP[1]
    flows       DATAGRAM_FLOW[F+1]
    free        uint32[F]: stack of free flow rows
    flow_index  uint32[power of two ≥ 2·F]: open addressing by flow hash, flow rows; 0 ends
    answering   Ring of flow rows that may have answers to read
    listeners   LISTENER[L+1]
    asking      Ring of listener rows that may have datagrams to read
    places      uint32[batch]: the flow row of each datagram of a batch
    decided     uint8[batch]: its fate, NONE as long as that is open
    opening     uint32[batch]: the flow rows that are new in a batch
    fates       int64[len(FATES)]: how many datagrams had each fate
    ends        int64[len(FLOW_ENDS)]: how many flows ended so
    refusal     uint8[refusal.BYTES]: the packet that says nobody is there
    messages    the memory that system calls read and write, ``kernels.net.syscalls.Messages``
    exchange    likewise, the relay's own
    """

    loop: np.ndarray
    flows: np.ndarray
    free: np.ndarray
    flow_index: np.ndarray
    answering: Ring
    listeners: np.ndarray
    asking: Ring
    places: np.ndarray
    decided: np.ndarray
    opening: np.ndarray
    fates: np.ndarray
    ends: np.ndarray
    refusal: np.ndarray
    messages: tuple
    exchange: tuple


class Pipes(NamedTuple):
    """The pipes through which a relay's bulk goes from socket to socket without being copied. Row 0 is none.

    ends   int32[P+1, 2]: descriptors to read from and to write to; -1: not open
    free   uint32[P]: stack of free rows
    left   int64[1]: free[:left] are the free rows
    """

    ends: np.ndarray
    free: np.ndarray
    left: np.ndarray


class Relay(NamedTuple):
    """Everything one relay thread writes, apart from Steering. Row 0 of connections and listeners is none.

    loop         LOOP[1]
    connections  CONNECTION[C+1]
    streams      STREAM[2·(C+1)]
    buffer       uint8[bytes of a buffer]: what a stream reads, until it has been written
    buffers      uint8[2·(C+1), bytes of a buffer]: what was read and the sink has not taken, each stream's
    pipes        Pipes
    free         uint32[C]: stack of free connection rows
    ready        Ring of connection rows that had more to move when their turn was over
    listeners    LISTENER[L+1]
    backlog      Ring of listener rows that may have connections to accept
    flows        Flows of one batch of accepted connections, or of new flows of datagrams
    verdicts     Verdicts on them
    sockets      int32[batch, 2]: their client and upstream descriptors
    records      RECORD[...], written round and round
    ends         int64[len(ENDS)]: how often connections ended so
    exchange     the memory that system calls read and write, ``kernels.net.syscalls.Exchange``
    datagrams    Datagrams
    """

    loop: np.ndarray
    connections: np.ndarray
    streams: np.ndarray
    buffer: np.ndarray
    buffers: np.ndarray
    pipes: Pipes
    free: np.ndarray
    ready: Ring
    listeners: np.ndarray
    backlog: Ring
    flows: Flows
    verdicts: Verdicts
    sockets: np.ndarray
    records: np.ndarray
    ends: np.ndarray
    exchange: tuple
    datagrams: Datagrams


# What measures: the load generator and the responder that it asks (``kernels.net.loadgen``, ``kernels.net.responder``).

# State of one of the generator's clients.
ALONE = 0  # without a connection
DIALLING = 1  # its connect is under way
HOLDING = 2  # connected, and not to ask yet
ASKING = 3  # its request or the answer to it is under way
CLIENT_STATES = ("ALONE", "DIALLING", "HOLDING", "ASKING")

# Why a request was not answered as it should be.
NO_CONNECTION = 1  # refused, or reset before anything was sent
NO_PORT = 2  # this machine has no local port, descriptor or memory left: a limit of the generator
RESET = 3  # the connection failed while the answer was awaited; of a datagram: its receiver is not there
EOF = 4  # it was closed before the answer was whole
WRONG = 5  # other bytes than were expected, or more of them
OVERDUE = 6  # no whole answer in time
MISSES = ("NONE", "NO_CONNECTION", "NO_PORT", "RESET", "EOF", "WRONG", "OVERDUE")

CLIENT = np.dtype(
    [
        ("began_ns", "i8"),  # when the connection was dialled; later, of a kept one, when the request was sent first
        ("id", "u8"),  # of the request, its first bytes
        ("received", "i8"),  # bytes of the answer so far
        ("fd", "i4"),
        ("sent", "i4"),  # bytes of the request handed to the kernel
        ("serial", "u4"),  # counts the connections of the row: an event that carries another serial is stale
        ("state", "u1"),  # one of CLIENT_STATES
        ("spare", "u1", (3,)),
    ],
    align=True,
)

ADDRESS = np.dtype([("ip", "u4"), ("port", "u2"), ("spare", "u2")], align=True)

# The scalars of one load; there is one row of it.
LOAD = np.dtype(
    [
        ("answer_bytes", "i8"),  # of each answer
        ("asked", "u8"),  # requests begun, ever: the id of the next
        ("answered", "i8"),  # Load.latencies[:answered] are filled
        ("epoll", "i4"),
        ("idle", "i4"),  # Load.idle[:idle] are the idle clients
        ("dialling", "i4"),  # clients in state DIALLING
        ("proto", "u1"),
        ("fresh", "u1"),  # a connection for each request
        ("hold", "u1"),  # who has connected does not ask yet
        ("spare", "u1"),
    ],
    align=True,
)


class Load(NamedTuple):
    """What one thread holds to ask in a closed loop: each client sends its next request when the last is answered.

    loop       LOAD[1]
    clients    CLIENT[C]
    idle       uint32[C]: stack of rows of clients
    targets    ADDRESS[...]: where clients connect to, in turn
    sources    uint32[...]: addresses that clients connect from, in turn; 0: as the system has it
    request    uint8[bytes of a request]
    block      uint8[...]: what requests and answers consist of, ``kernels.net.answers``
    buffer     uint8[...]: where answers are read to
    latencies  int64[...]: in ns, the caller's: who takes them out sets ``loop.answered`` back
    misses     int64[len(MISSES)]: requests without a right answer
    exchange   the memory that system calls read and write
    """

    loop: np.ndarray
    clients: np.ndarray
    idle: np.ndarray
    targets: np.ndarray
    sources: np.ndarray
    request: np.ndarray
    block: np.ndarray
    buffer: np.ndarray
    latencies: np.ndarray
    misses: np.ndarray
    exchange: tuple


# A connection to the responder.
CALLER = np.dtype(
    [
        ("id", "u8"),  # of the request
        ("answer_bytes", "i8"),
        ("sent", "i8"),  # bytes of the answer handed to the kernel
        ("fd", "i4"),  # -1: the row is free
        ("got", "i4"),  # bytes of the request so far; all of them: it is being answered
        ("serial", "u4"),
        ("hangup", "u1"),  # the client's FIN is here
        ("spare", "u1", (3,)),
    ],
    align=True,
)

# Where the responder listens.
DESK = np.dtype([("answer_bytes", "i8"), ("fd", "i4"), ("proto", "u1"), ("spare", "u1", (3,))], align=True)

# The scalars of one responder; there is one row of it.
ROOM = np.dtype(
    [
        ("answered", "i8"),  # requests and datagrams answered, ever
        ("turned_away", "i8"),  # connections reset: no row was free, or more than one request at a time
        ("unsent", "i8"),  # datagrams that the system did not take
        ("epoll", "i4"),
        ("free", "i4"),  # Responder.free[:free] are the free rows
    ],
    align=True,
)


class Responder(NamedTuple):
    """What one thread holds to answer.

    room           ROOM[1]
    desks          DESK[D]
    callers        CALLER[C]
    free           uint32[C]: stack of free rows
    request        uint8[bytes of a request, and one more]: where requests are read to
    block          uint8[...]: what answers consist of, ``kernels.net.answers``
    messages       the memory of a batch of datagrams
    exchange       the memory that system calls read and write
    """

    room: np.ndarray
    desks: np.ndarray
    callers: np.ndarray
    free: np.ndarray
    request: np.ndarray
    block: np.ndarray
    messages: tuple
    exchange: tuple
