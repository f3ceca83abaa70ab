"""What a client takes for an answer of HTTP/1.1: heads until the final one, then a body by its framing (RFC 9112 6, 7).

Law: bytes in, and how far the answer is into the columns of the CLIENT; no socket. A head that is not whole is put
aside until there is more of it. What is no answer is PROTOCOL; after bytes behind its end the connection is not kept.
"""

import numpy as np

from kernels.jit import inner, kernel
from kernels.layout_load import (
    CHUNKED,
    DATA,
    DATA_CR,
    DATA_LF,
    EXTENSION,
    HEAD,
    LAST_LF,
    PROTOCOL,
    SIZE,
    SIZE_LF,
    SIZED,
    TO_END,
    TRAILER,
    TRAILER_LINE,
    WHOLE,
)
from kernels.net import heads

MORE = -1  # the answer is not whole
MOST_CHUNK_DIGITS = 15


@inner
def take_in(buffer, end, client, asked, answer, aside):
    """Go through what was read: ``buffer[:end]``. Returns 0 where the answer is whole, MORE while it is not, PROTOCOL.

    asked   the REQUEST that it is an answer to
    answer  ANSWER, for the head
    aside   uint8[HEAD_BYTES]: where the beginning of a head stays, the client's ``held`` bytes
    """
    start = np.int64(0)
    while client.part == HEAD:
        size = heads.scan(buffer, start, end, answer, asked.bodiless)
        if size == 0:
            put_aside(buffer, start, end, client, aside)
            return np.int64(MORE)
        if size < 0 or answer.status == 101:
            return np.int64(PROTOCOL)
        start += size
        if answer.status >= 200:
            client.row.status = answer.status
            client.keep = answer.keep
            client.part = answer.framing
            client.left = answer.length
            client.chunk = SIZE
            client.digits = 0
        elif start == end:
            return np.int64(MORE)
    if client.part == SIZED:
        taken = min(client.left, end - start)
        client.left -= taken
        start += taken
        if client.left == 0:
            client.part = WHOLE
    elif client.part == CHUNKED:
        start = _unchunk(buffer, start, end, client)
        if start < 0:
            return np.int64(PROTOCOL)
    elif client.part == TO_END:
        start = end
    if client.part != WHOLE:
        return np.int64(MORE)
    if start < end or client.sent < asked.size:  # bytes nobody asked for, or an early answer
        client.keep = 0
    return np.int64(0)


@inner
def put_aside(buffer, start, end, client, aside):
    """Put the beginning of a head aside until there is more of it."""
    for i in range(end - start):
        aside[i] = buffer[start + i]
    client.held = end - start


@kernel
def _unchunk(data, start, end, client):
    """Go through a chunked body. Returns where it or the data ends, negative where it is none."""
    at = start
    while at < end:
        if client.chunk == DATA:
            taken = min(client.left, end - at)
            client.left -= taken
            at += taken
            if client.left == 0:
                client.chunk = DATA_CR
            continue
        byte = data[at]
        at += 1
        if client.chunk == SIZE:
            digit = _digit(byte)
            if digit >= 0 and client.digits < MOST_CHUNK_DIGITS:
                client.left = digit + (client.left * 16 if client.digits > 0 else 0)
                client.digits += 1
            elif digit >= 0 or client.digits == 0:
                return np.int64(heads.BROKEN)
            elif byte == heads.CR:
                client.chunk = SIZE_LF
            elif byte == 59 or byte == heads.SP or byte == heads.HTAB:  # ';'
                client.chunk = EXTENSION
            else:
                return np.int64(heads.BROKEN)
        elif client.chunk == EXTENSION:
            if byte == heads.CR:
                client.chunk = SIZE_LF
            elif byte == heads.LF:
                return np.int64(heads.BROKEN)
        elif client.chunk == DATA_CR:
            if byte != heads.CR:
                return np.int64(heads.BROKEN)
            client.chunk = DATA_LF
        elif client.chunk == TRAILER or client.chunk == TRAILER_LINE:
            if byte == heads.LF:
                if client.chunk == TRAILER:
                    return np.int64(heads.BROKEN)
                client.chunk = TRAILER
            else:
                client.chunk = LAST_LF if byte == heads.CR and client.chunk == TRAILER else TRAILER_LINE
        elif byte != heads.LF:
            return np.int64(heads.BROKEN)
        elif client.chunk == LAST_LF:
            client.part = WHOLE
            return at
        elif client.chunk == SIZE_LF:
            client.chunk = DATA if client.left > 0 else TRAILER
        else:
            client.chunk = SIZE
            client.digits = 0
    return at


@kernel
def _digit(byte):
    """The number that a hex digit is, negative where it is none."""
    if 48 <= byte <= 57:
        return np.int64(byte) - 48
    lower = np.int64(byte) | 32
    return lower - 87 if 97 <= lower <= 102 else np.int64(-1)
