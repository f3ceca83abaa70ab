"""The rows of a terminator: TLS of clients, from the first byte of a hello to the end of the handshake, or of all.

Law: as in ``kernels.layout``. STATES is where a connection stands.
"""

from typing import NamedTuple

import numpy as np

from kernels.layout import Ring
from kernels.layout_wheel import Wheel
from kernels.net.syscalls import Exchange

# state       what is waited for                                 then
# VACANT      the row is nobody's
# ANNOUNCING  the client: a header of the PROXY protocol         GREETING or UNTOUCHED
# GREETING    the client: a ClientHello, whole                   WANTING, SHAKING or UNTOUCHED
# WANTING     its owner: the certificate for the name            SHAKING
# SHAKING     the client: the handshake                          VACANT: the gateway has it; or SHAKEN
# SHAKEN      its owner, for want of room in the channel         VACANT
# CARRYING    bytes, both ways, of whom the slow path has        VACANT; RETURNED, where it has given it back
# RETURNED    its owner, who gives it to the gateway it was of   VACANT
# UNTOUCHED   its owner, who gives it to the slow path           VACANT
VACANT, GREETING, WANTING, SHAKING, SHAKEN, CARRYING, UNTOUCHED, ANNOUNCING, RETURNED = range(9)
STATES = ("VACANT", "GREETING", "WANTING", "SHAKING", "SHAKEN", "CARRYING", "UNTOUCHED", "ANNOUNCING", "RETURNED")

TLS_LOOP = np.dtype(
    [
        ("paused_until_ns", "i8"),  # accepting, for want of rows or descriptors
        ("head_ns", "i8"),  # a handshake takes that long at most
        ("send_ns", "i8"),  # and so long a client takes nothing
        ("epoll", "i4"),
        ("listener", "i4"),
        ("backlog", "i4"),  # the listener may have connections
        ("free", "i4"),  # rows
        ("handed", "i4"),  # rows of ``handed`` that wait for their owner
        ("channel", "i4"),  # where gateways hear of clients whose handshake is done, -1: the owner gives them
        ("kept", "i4"),  # free rows that nobody is accepted for: the gateway may give back so many
        ("announced", "i4"),  # connections begin with a header of the PROXY protocol,
        ("vetted", "i4"),  # and are left where they come from nobody that is trusted
        ("odd", "i4"),  # how many of these headers were left to the slow path
    ],
    align=True,
)

TLS_CLIENT = np.dtype(
    [
        ("since_ns", "i8"),
        ("ssl", "u8"),  # address of its SSL, 0: none
        ("fd", "i4"),
        ("pair", "i4"),  # our end of its pair
        ("serial", "u4"),
        ("ip", "u4"),
        ("name", "u4"),  # row of names
        ("in_start", "i4"),  # inward[row, in_start:in_end] waits for the pair
        ("in_end", "i4"),
        ("out_start", "i4"),  # outward[row, out_start:out_end] for the client
        ("out_end", "i4"),
        ("port", "u2"),
        ("state", "u1"),
        ("readable", "u1"),
        ("writable", "u1"),
        ("pair_readable", "u1"),
        ("pair_writable", "u1"),
        ("hangup", "u1"),
        ("queued", "u1"),
        ("announced", "u1"),  # one of ``layout_announced``
        ("leaves", "u1"),  # the slow path has given it back: what it was told goes to it, and nothing more is read
    ],
    align=True,
)

# What a ClientHello says, as far as it matters here.
HELLO = np.dtype(
    [
        ("name", "i4"),  # where the name is (SNI)
        ("name_size", "i4"),  # 0: it names nobody
        ("http1", "u1"),  # it offers http/1.1, or nothing at all
        ("others", "u1"),  # and something besides, such as h2
        ("spare", "u1", (2,)),
    ],
    align=True,
)


# What goes through the channel, whole or not at all: a client whose handshake is done. Who reads it has the client.
SHAKEN_CLIENT = np.dtype(
    [
        ("ssl", "u8"),
        ("fd", "i4"),
        ("ip", "u4"),
        ("port", "u2"),
        ("spare", "u1", (6,)),
    ],
    align=True,
)


class Terminator(NamedTuple):
    """Everything that one terminator's thread works with; it owns and writes all of it.

    names     uint64[N]: hashes of the names that there are certificates for, ascending; the first is 0, for the others
    contexts  uint64[N]: the address of each one's SSL_CTX, 0: not made yet
    library   uint64[...]: where the functions of OpenSSL are, ``kernels.net.openssl``
    buffer    uint8[...]: what is on its way; inward, outward: uint8[rows, bytes], what could not go on
    timers    of clients
    handed    uint32[...]: rows that wait for their owner
    shaken    SHAKEN_CLIENT[1], on its way into the channel, and its bytes
    trusted   NETWORK[…]: proxies that speak for clients; announcement: ANNOUNCEMENT[1], what one has said by a header
    """

    loop: np.ndarray
    clients: np.ndarray
    names: np.ndarray
    contexts: np.ndarray
    library: np.ndarray
    hello: np.ndarray
    buffer: np.ndarray
    inward: np.ndarray
    outward: np.ndarray
    free: np.ndarray
    ready: Ring
    timers: Wheel
    handed: np.ndarray
    shaken: np.ndarray
    shaken_bytes: np.ndarray
    trusted: np.ndarray
    announcement: np.ndarray
    exchange: Exchange
