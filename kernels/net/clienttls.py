"""A client's connection, plain or by TLS: bytes to it and from it, and the end of its TLS.

Law: where the CLIENT has no ``ssl`` it is plain, and OpenSSL is not touched. Negative is an errno, as in ``syscalls``.
"""

import numpy as np

from kernels.jit import inner, kernel, part
from kernels.layout_load import SHAKING
from kernels.net import openssl, syscalls


@inner
def transmit(library, client, data):
    if client.ssl != 0:
        return openssl.transmit(library, np.int64(client.ssl), data)
    return syscalls.transmit(client.fd, data)


@kernel
def receive(library, client, buffer):
    if client.ssl != 0:
        return openssl.receive(library, np.int64(client.ssl), buffer)
    return syscalls.receive(client.fd, buffer)


@kernel
def is_quiet(library, client, buffer):
    """By TLS: whether nothing that was read is left after an answer but what TLS says for itself, as a ticket."""
    if openssl.has_pending(library, np.int64(client.ssl)) == 0:
        return True
    return receive(library, client, buffer[:1]) == -syscalls.EAGAIN


@part
def end(library, client, resume):
    """Let go of a connection's TLS, after a word of it to the other side; ``resume``: keep its session."""
    if client.state != SHAKING:
        openssl.announce_end(library, np.int64(client.ssl))  # without it, OpenSSL resumes no session
        if resume:
            if client.session != 0:
                openssl.free_session(library, np.int64(client.session))
            client.session = openssl.session_of(library, np.int64(client.ssl))
    openssl.free(library, np.int64(client.ssl))
    client.ssl = 0
