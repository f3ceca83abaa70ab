"""OpenSSL's libssl from compiled code: the one that Python's ``ssl`` has loaded, by the addresses of its functions.

https://docs.openssl.org/3.0/man7/ssl/. Law: every compiled function here is one call, and answers as those of
``syscalls`` do: what it returned, ``-EAGAIN`` where the socket has to be readable or writable first, 0 at the end that
the peer has announced, ``-ECONNRESET`` for everything else. An SSL belongs to one thread; an SSL_CTX to all.
"""

import contextlib
import ctypes
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from kernels.jit import inner, kernel, part
from kernels.net import syscalls

FUNCTIONS = (
    "SSL_new",
    "SSL_free",
    "SSL_set_fd",
    "SSL_accept",
    "SSL_read",
    "SSL_peek",
    "SSL_write",
    "SSL_shutdown",
    "SSL_has_pending",
    "SSL_get_error",
    "SSL_want",
    "ERR_clear_error",
)
_NEW, _FREE, _SET_FD, _ACCEPT, _READ, _PEEK, _WRITE, _SHUTDOWN, _PENDING, _GET_ERROR, _WANT, _CLEAR = range(
    len(FUNCTIONS)
)
# <openssl/ssl.h>, which has them as macros of ``SSL_CTX_ctrl``.
_CTRL_MODE, _CTRL_READ_AHEAD, _CTRL_TICKET_KEYS, _CTRL_MIN_VERSION, _TLS_1_2 = 33, 41, 59, 123, 0x0303
_TICKET_KEY_BYTES = 80
# After a handshake of TLS 1.3, where OpenSSL's default is 2. Two are for browsers, which use each once and open several
# connections, and ask for HTTP/2, which is not spoken here. Others keep one, and get the next with each one resumed.
_TICKETS = 1
_PARTIAL_WRITE, _MOVING_BUFFER, _NO_AUTO_CHAIN, _RELEASE_BUFFERS = 1, 2, 8, 16
_PEM = 1
_WANT_READ, _WANT_WRITE, _ZERO_RETURN = 2, 3, 6
_WRITING = 2  # of SSL_want
_PROTOCOL = np.frombuffer(b"http/1.1", np.uint8).copy()  # libssl is given its address


def load() -> np.ndarray | None:
    """uint64[len(FUNCTIONS)], the addresses of FUNCTIONS; None where Python's libssl does not show them."""
    try:
        library = ctypes.CDLL(_file_of_ssl())
        addresses = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in FUNCTIONS]
    except (OSError, AttributeError):
        return None
    return np.array(addresses, np.uint64)


def _file_of_ssl() -> str:
    import _ssl

    return str(_ssl.__file__)


class Contexts:
    """Makes SSL_CTXs of a server, each with a certificate; they speak HTTP/1.1 and are else like those of Python.

    A session that began with one may go on with another, as with those of Python's that share a listener.
    """

    def __init__(self) -> None:
        library = ctypes.CDLL(_file_of_ssl())

        def function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
            found = library[name]
            found.restype, found.argtypes = result, arguments
            return found

        pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
        self._method = function("TLS_server_method", pointer)
        self._new = function("SSL_CTX_new", pointer, pointer)
        self._free = function("SSL_CTX_free", None, pointer)
        self._free_connection = function("SSL_free", None, pointer)
        self._control = function("SSL_CTX_ctrl", ctypes.c_long, pointer, number, ctypes.c_long, pointer)
        self._options = function("SSL_CTX_set_options", ctypes.c_uint64, pointer, ctypes.c_uint64)
        self._ciphers = function("SSL_CTX_set_cipher_list", number, pointer, text)
        self._tickets = function("SSL_CTX_set_num_tickets", number, pointer, ctypes.c_size_t)
        self._chain = function("SSL_CTX_use_certificate_chain_file", number, pointer, text)
        self._key = function("SSL_CTX_use_PrivateKey_file", number, pointer, text, number)
        self._password = function("SSL_CTX_set_default_passwd_cb_userdata", None, pointer, pointer)
        self._select = function("SSL_CTX_set_alpn_select_cb", None, pointer, pointer, pointer)
        self._clear = function("ERR_clear_error", None)
        self._like = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._chooser = _chooser()
        self._ticket_keys = os.urandom(_TICKET_KEY_BYTES)

    def create(self, chain: bytes, key: bytes) -> int:
        """The address of an SSL_CTX. Raises ValueError where certificate and key cannot be used together."""
        context: int = self._new(self._method())
        self._control(context, _CTRL_MIN_VERSION, _TLS_1_2, None)
        # The chain is what is given; OpenSSL would look for more of it in each handshake, among no authorities at all.
        modes = _PARTIAL_WRITE | _MOVING_BUFFER | _NO_AUTO_CHAIN | _RELEASE_BUFFERS
        self._control(context, _CTRL_MODE, modes, None)
        self._control(context, _CTRL_READ_AHEAD, 1, None)
        self._options(context, int(self._like.options))
        names = [row["name"] for row in self._like.get_ciphers() if row["protocol"] != "TLSv1.3"]
        self._ciphers(context, ":".join((f"@SECLEVEL={self._like.security_level}", *names)).encode())
        self._control(context, _CTRL_TICKET_KEYS, _TICKET_KEY_BYTES, self._ticket_keys)
        self._tickets(context, _TICKETS)
        self._password(context, b"")  # a key with a passphrase can't be used, and OpenSSL would ask on the terminal
        self._select(context, self._chooser.address, _PROTOCOL.ctypes.data)
        memory = os.memfd_create("certificate", os.MFD_CLOEXEC)
        with contextlib.closing(open(memory, "wb")) as file:
            file.write(key.rstrip() + b"\n" + chain)
            file.flush()
            path = f"/proc/self/fd/{memory}".encode()
            right = self._chain(context, path) == 1 and self._key(context, path, _PEM) == 1
        self._clear()
        if not right:
            self._free(context)
            raise ValueError("certificate and key cannot be used together")
        return context

    def free(self, context: int) -> None:
        """Let go of one; connections that were made with it hold it themselves."""
        self._free(context)

    def free_connection(self, connection: int) -> None:
        """Let go of an SSL."""
        self._free_connection(connection)


def _chooser() -> Any:
    """The C function that chooses among the protocols a client offers: always http/1.1, which is known to be one."""
    word = types.uint64
    signature = types.int32(word, types.CPointer(word), types.CPointer(types.uint8), word, types.uint32, word)

    @numba.cfunc(signature, cache=True)
    def choose(ssl, out, size, offered, offered_size, protocol):
        out[0] = protocol
        size[0] = 8
        return 0  # SSL_TLSEXT_ERR_OK

    return choose


def _calling(returns: int) -> Callable[..., Any]:
    """The machine code of a call of a C function by its address, with three arguments of which it may want fewer."""

    def code(context, builder, signature, arguments):
        word = ir.IntType(64)
        kind = ir.FunctionType(ir.IntType(returns), [word, word, word])
        returned = builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return returned if returns == 64 else builder.sext(returned, word)

    return code


def _typed(returns: int) -> Callable[..., Any]:
    def typed(context, address, a, b, c):
        return types.int64(types.uint64, types.int64, types.int64, types.int64), _calling(returns)

    return typed


_call: Callable[..., Any] = intrinsic(_typed(32))  # of what returns int
_call_for_address: Callable[..., Any] = intrinsic(_typed(64))


@kernel
def create(library, context, fd):
    """A new SSL of a server for a connection: its address, 0 where none is to be had."""
    made = _call_for_address(library[_NEW], context, 0, 0)
    if made != 0:
        _call(library[_SET_FD], made, fd, 0)
    return made


@kernel
def free(library, connection):
    _call(library[_FREE], connection, 0, 0)


@kernel
def _answer(library, connection, returned):
    """What a call came to that returned so much."""
    if returned > 0:
        return np.int64(returned)
    why = _call(library[_GET_ERROR], connection, returned, 0)
    if why in (_WANT_READ, _WANT_WRITE):
        return np.int64(-syscalls.EAGAIN)
    return np.int64(0 if why == _ZERO_RETURN else -syscalls.ECONNRESET)


@part
def accept(library, connection):
    """Go on with the handshake: 1 once it is done."""
    _call(library[_CLEAR], 0, 0, 0)
    return _answer(library, connection, _call(library[_ACCEPT], connection, 0, 0))


@inner
def waits_for_room(library, connection):
    """Whether what was answered ``-EAGAIN`` goes on once the socket takes more, not once there is more to read."""
    return _call(library[_WANT], connection, 0, 0) == _WRITING


@part
def receive(library, connection, buffer):
    """Decipher into a slice of uint8, of one record at most."""
    _call(library[_CLEAR], 0, 0, 0)
    returned = _call(library[_READ], connection, np.int64(buffer.ctypes.data), buffer.size)
    return _answer(library, connection, returned)


@part
def has_ended(library, connection, room):
    """Whether the peer has announced its end, or its TLS is broken, and nothing that it said before is unread.

    room  uint8[1], written to
    """
    _call(library[_CLEAR], 0, 0, 0)
    returned = _call(library[_PEEK], connection, np.int64(room.ctypes.data), 1)
    said = _answer(library, connection, returned)
    return said <= 0 and said != -syscalls.EAGAIN


@inner
def holds_bytes(library, connection):
    """Whether bytes of the peer wait in the SSL, which no event will tell of."""
    return _call(library[_PENDING], connection, 0, 0) != 0


@part
def transmit(library, connection, buffer):
    """Encipher and send a slice of uint8, as far as the socket takes it; the next call has to begin with the rest."""
    sent, said = np.int64(0), np.int64(1)
    while said > 0 and sent < buffer.size:  # one record each
        rest = buffer[sent:]
        _call(library[_CLEAR], 0, 0, 0)
        returned = _call(library[_WRITE], connection, np.int64(rest.ctypes.data), rest.size)
        said = _answer(library, connection, returned)
        sent += max(said, np.int64(0))
    return sent if sent > 0 else said


@inner
def announce_end(library, connection):
    """Tell the peer that no more is coming."""
    _call(library[_CLEAR], 0, 0, 0)
    return _call(library[_SHUTDOWN], connection, 0, 0)


# The side of a client. Its functions are those of a server, and these.
CLIENT_FUNCTIONS = (
    *FUNCTIONS,
    "SSL_connect",
    "SSL_ctrl",
    "SSL_set_session",
    "SSL_get1_session",
    "SSL_SESSION_free",
    "SSL_session_reused",
    "SSL_has_pending",
)
_CONNECT, _CTRL, _SET_SESSION, _GET_SESSION, _FREE_SESSION, _REUSED, _HAS_PENDING = range(
    len(FUNCTIONS), len(CLIENT_FUNCTIONS)
)
_CTRL_HOSTNAME, _HOST_NAME = 55, 0  # <openssl/tls1.h>: SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name
_VERIFY_PEER, _WHOLE_LABELS = 1, 4  # <openssl/ssl.h>, and X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, as Python has it


def load_client() -> np.ndarray | None:
    """As ``load``, of CLIENT_FUNCTIONS."""
    try:
        library = ctypes.CDLL(_file_of_ssl())
        addresses = [ctypes.cast(getattr(library, name), ctypes.c_void_p).value for name in CLIENT_FUNCTIONS]
    except (OSError, AttributeError):
        return None
    return np.array(addresses, np.uint64)


class ClientContext:
    """An SSL_CTX of a client, ``address``: HTTP/1.1 by ALPN, TLS 1.2 and 1.3, else like those of Python's ``ssl``.

    name         whom the certificate must name, a host or an IP address; empty: any certificate will do
    authorities  PEM of those that are trusted, beside the system's
    only         these alone are trusted

    Raises ValueError where the authorities are none.
    """

    def __init__(self, name: str, authorities: str = "", *, only: bool = False):
        self._library = ctypes.CDLL(_file_of_ssl())
        like = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        names = ":".join(row["name"] for row in like.get_ciphers() if row["protocol"] != "TLSv1.3")
        method = self._function("TLS_client_method", ctypes.c_void_p)()
        self.address: int = self._function("SSL_CTX_new", ctypes.c_void_p, ctypes.c_void_p)(method)
        control = self._of_context("SSL_CTX_ctrl", ctypes.c_int, ctypes.c_long, ctypes.c_void_p)
        control(_CTRL_MIN_VERSION, _TLS_1_2, None)
        control(_CTRL_MODE, _PARTIAL_WRITE | _MOVING_BUFFER | _RELEASE_BUFFERS, None)
        control(_CTRL_READ_AHEAD, 1, None)
        self._of_context("SSL_CTX_set_options", ctypes.c_uint64, returns=ctypes.c_uint64)(int(like.options))
        self._of_context("SSL_CTX_set_cipher_list", ctypes.c_char_p)(names.encode())
        self._of_context("SSL_CTX_set_alpn_protos", ctypes.c_char_p, ctypes.c_uint)(b"\x08http/1.1", 9)
        if name and not self._trust(name, authorities, only=only):
            self.free()
            raise ValueError("the authorities are no certificates in PEM")

    def free(self) -> None:
        """Let go of it; connections that were made with it hold it themselves."""
        self._of_context("SSL_CTX_free")()

    def _trust(self, name: str, authorities: str, *, only: bool) -> bool:
        """Have it look at certificates. Returns whether the authorities are some."""
        self._of_context("SSL_CTX_set_verify", ctypes.c_int, ctypes.c_void_p)(_VERIFY_PEER, None)
        pointer = ctypes.c_void_p
        wanted = self._of_context("SSL_CTX_get0_param", returns=pointer)()
        self._function("X509_VERIFY_PARAM_set_hostflags", None, pointer, ctypes.c_uint)(wanted, _WHOLE_LABELS)
        if is_ip(name):
            self._function("X509_VERIFY_PARAM_set1_ip_asc", ctypes.c_int, pointer, ctypes.c_char_p)(
                wanted, name.encode()
            )
        else:
            self._function("X509_VERIFY_PARAM_set1_host", ctypes.c_int, pointer, ctypes.c_char_p, ctypes.c_size_t)(
                wanted, name.encode(), 0
            )
        if not only:
            self._of_context("SSL_CTX_set_default_verify_paths")()
        right = True
        if authorities:
            memory = os.memfd_create("authorities", os.MFD_CLOEXEC)
            with contextlib.closing(open(memory, "wb")) as file:
                file.write(authorities.encode())
                file.flush()
                load_from = self._of_context("SSL_CTX_load_verify_locations", ctypes.c_char_p, ctypes.c_char_p)
                right = load_from(f"/proc/self/fd/{memory}".encode(), None) == 1
        self._function("ERR_clear_error", None)()
        return right

    def _function(self, name: str, returns: Any, *arguments: Any) -> Callable[..., Any]:
        found = self._library[name]
        found.restype, found.argtypes = returns, arguments
        return found

    def _of_context(self, name: str, *arguments: Any, returns: Any = ctypes.c_int) -> Callable[..., Any]:
        """A function whose first argument is the context."""
        function = self._function(name, returns, ctypes.c_void_p, *arguments)
        return lambda *given: function(self.address, *given)


def is_ip(name: str) -> bool:
    """Whether a name is an IPv4 address, which is not asked for by SNI (RFC 6066 3)."""
    try:
        socket.inet_pton(socket.AF_INET, name)
    except OSError:
        return False
    return True


def _code_of_four(context, builder, signature, arguments):
    """As ``_calling``, of a function with four arguments that returns a long."""
    word = ir.IntType(64)
    kind = ir.FunctionType(word, [word] * 4)
    return builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])


def _typed_four(context, address, a, b, c, d):
    return types.int64(types.uint64, types.int64, types.int64, types.int64, types.int64), _code_of_four


_call_with_four: Callable[..., Any] = intrinsic(_typed_four)


@inner
def ask_for(library, connection, name):
    """Have the handshake ask for a host (SNI): uint8[...] that ends with a zero; an empty one is nobody."""
    if name.size > 0:
        _call_with_four(library[_CTRL], connection, _CTRL_HOSTNAME, _HOST_NAME, np.int64(name.ctypes.data))


@kernel
def connect(library, connection):
    """As ``accept``, of the client's side."""
    _call(library[_CLEAR], 0, 0, 0)
    return _answer(library, connection, _call(library[_CONNECT], connection, 0, 0))


@kernel
def resume(library, connection, session):
    """Have the handshake resume that session, if the server will."""
    _call(library[_SET_SESSION], connection, session, 0)


@inner
def is_resumed(library, connection):
    """1 where the handshake resumed a session."""
    return _call(library[_REUSED], connection, 0, 0)


@inner
def session_of(library, connection):
    """The address of a connection's session, which is the caller's to free; 0 where it has none."""
    return _call_for_address(library[_GET_SESSION], connection, 0, 0)


@inner
def free_session(library, session):
    _call(library[_FREE_SESSION], session, 0, 0)


@inner
def has_pending(library, connection):
    """1 where bytes were read from the socket that nobody has received yet, deciphered or not."""
    return _call(library[_HAS_PENDING], connection, 0, 0)
