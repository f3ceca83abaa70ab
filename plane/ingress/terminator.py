"""The TLS of an ingress' clients by compiled code: one thread that shakes hands, and deciphers for the asyncio side.

Law: the thread owns all that compiled code writes; whoever else wants something of it has it done between two breaths.
A client that would speak HTTP/1.1 goes after its handshake through a channel to the gateways, and to ``take`` where
that takes no more; any other goes to ``leave`` as it came, not a byte of it read. Which certificate it is shown is what
``plane.ingress.tls`` would say. One that a gateway hands over comes back, to be carried: the asyncio side has a socket
that says what it says, deciphered, until it gives it back to that gateway. Then nothing more of the client is read, and
what it was told last goes to it first.
"""

import contextlib
import os
import socket
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from kernels import layout_tls as layout
from kernels.layout_announced import AWAITED, NAMED
from kernels.layout_gateway import ANNOUNCED_ODDLY, HANDED_REASONS
from kernels.net import hello, openssl
from kernels.net import terminator as kernel
from kernels.warm import is_there, once
from plane.addresses import int_to_ip
from plane.certificates import is_for
from plane.descriptors import allow_descriptors
from plane.driver import Driver
from plane.ingress import fastedge
from plane.ingress.edge import Edge
from plane.ingress.handing import Address, Carried, Secured
from plane.ingress.timeouts import Timeouts
from plane.ingress.tls import Pair
from plane.routes import Certificate

BREATH_NS = 250_000_000
DESCRIPTORS_BESIDES = 4096
NAME = "terminator"  # of what is compiled for it


def warm(progress: Callable[[str], None] | None = None) -> bool:
    """Compile, or load, what a terminator runs; the first time ``progress`` gets a line.

    False where there is no OpenSSL to be called.
    """
    library = openssl.load()
    if library is None:
        return False

    def compile_all() -> None:
        if progress is not None and not is_there(NAME):
            progress("compiling for this machine, once: the TLS of the ingress")
        kernel.warm(library)

    once(NAME, compile_all)
    return True


class Terminator:
    """The thread. What it calls there: ``take`` and ``leave`` with clients, ``fail`` with why it has ended unasked.

    Of one to ``leave`` it says besides who a header of the PROXY protocol has said it is, and whether such a header is
    still to be read.
    """

    def __init__(
        self,
        timeouts: Timeouts,
        default: Pair,
        take: Callable[[Secured], object],
        leave: Callable[[socket.socket, Address | None, bool], object],
        fail: Callable[[str], object],
        *,
        edge: Edge,
        capacity: int = 8192,
        kept: int = 8192,
    ):
        """``capacity``: clients at a time, and ``kept`` that come back, as many as the gateways may have."""
        library = openssl.load()
        assert library is not None
        self._take = take
        self._leave = leave
        self._fail = fail
        allow_descriptors(4 * capacity + DESCRIPTORS_BESIDES)
        self._some = kernel.create(capacity, kept, library, fastedge.networks(edge))
        self._maker = openssl.Contexts()
        self._default = default
        self._made: dict[Pair, int] = {default: self._maker.create(*default)}
        self._known: dict[Certificate, int] = {}
        self._installed: Sequence[Certificate] = ()
        self._rows: list[Certificate | None] = [None]
        self._leaving: dict[int, Callable[[], object]] = {}  # rows, and what is called once what they were told is out
        self._some.contexts[0] = self._made[default]
        self._driver = Driver("terminator", self._breathe, self._end, self._failed)
        loop = self._some.loop[0]
        loop["epoll"] = self._driver.epoll.fileno()
        loop["head_ns"], loop["send_ns"] = int(timeouts.head_s * 1e9), int(timeouts.send_s * 1e9)
        fastedge.announce(loop, edge)
        kernel.watch(self._some, self._driver.wake, kernel.WAKE_KEY)
        self._channel = socket.socketpair()  # of streams, so that one read takes all who wait; each is put in whole
        for end in self._channel:
            end.setblocking(False)
        loop["channel"] = self._channel[0].fileno()
        self._ended = False
        self._listener: socket.socket | None = None

    def start(self, listener: socket.socket) -> None:
        """Accept from a listener."""
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # of which each client inherits it
        kernel.watch(self._some, listener.fileno(), kernel.LISTENER_KEY)
        self._some.loop[0]["listener"], self._some.loop[0]["backlog"] = listener.fileno(), 1
        self._listener = listener
        self._driver.start()

    def install(self, certificates: Sequence[Certificate]) -> None:
        """These from the next hello on."""
        if certificates == self._installed:
            return
        self._installed = certificates
        by_hash = {}
        for row in certificates:
            name = np.frombuffer(row.host.encode("utf-8", "replace"), np.uint8)
            by_hash[int(hello.hash_of(name, 0, len(name)))] = row
        hashes = sorted(by_hash)
        self._driver.ask(lambda: self._swap(hashes, [None, *(by_hash[each] for each in hashes)]))

    @property
    def channel(self) -> int:
        """The descriptor of which gateways read SHAKEN_CLIENT, each for one of them."""
        return self._channel[1].fileno()

    def unheard(self) -> None:
        """No gateway reads of the channel any more: who is in it, or would be, goes to ``take``."""
        if not self._driver.has_stopped:
            self._driver.ask(self._leave_channel)

    def is_busy(self) -> bool:
        """Whether it carries anybody's bytes, of all that it was told to. Blocks for a moment.

        Who is still in a handshake does not count, for nobody has a request of it.
        """
        return self._driver.ask(lambda: bool((self._some.clients["state"] == layout.CARRYING).any()))

    def punts(self) -> dict[str, int]:
        """How many connections went to ``leave`` for want of more than TLS, by reason."""
        odd = int(self._some.loop[0]["odd"])
        return {HANDED_REASONS[int(ANNOUNCED_ODDLY)]: odd} if odd else {}

    def carry(self, client: Secured) -> Carried | None:
        """Decipher what a client says; None where no descriptor is left: the client is, too. It waits for nothing."""
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            self._close(client)
            return None
        for end in (ours, theirs):
            end.setblocking(False)
        pair = ours.detach()
        self._driver.tell(lambda: self._carry(client, pair))
        return Carried(theirs, partial(self._give_back, client))

    def _give_back(
        self, client: Secured, take: Callable[[], object], keep: Callable[[socket.socket], object], end: int
    ) -> None:
        """As ``Carried`` says."""
        self._driver.tell(lambda: self._let_go(client, take, keep, socket.socket(fileno=end)))

    def _close(self, client: Secured) -> None:
        self._maker.free_connection(client.ssl)
        os.close(client.fd)

    def drain(self) -> None:
        """Accept who waits for it and no more."""
        if not self._driver.has_stopped:
            self._driver.ask(self._drain)

    def stop(self) -> None:
        """Close everything at once. Blocks for a moment."""
        if self._driver.has_stopped:
            return
        self._driver.stop()
        for context in self._made.values():
            self._maker.free(context)
        for end in self._channel:
            end.close()

    # What follows runs in the terminator's thread.

    def _breathe(self) -> int:
        status = int(kernel.breath(self._some, time.monotonic_ns() + BREATH_NS))
        self._see_to_handed()
        self._forget_who_died()
        return status

    def _end(self, problem: Exception | None) -> None:
        self._ended = True
        self._leave_listener()
        kernel.end_all(self._some)

    def _failed(self, problem: Exception) -> None:
        self._fail(f"the TLS of compiled code has failed, and HTTPS goes by asyncio until a restart: {problem}")

    def _carry(self, client: Secured, pair: int) -> None:
        now_ns = time.monotonic_ns()
        if self._ended or not kernel.carry(self._some, client.fd, np.uint64(client.ssl), pair, now_ns):
            os.close(pair)
            self._close(client)

    def _let_go(
        self, client: Secured, take: Callable[[], object], keep: Callable[[socket.socket], object], end: socket.socket
    ) -> None:
        try:
            said = len(end.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            clients = self._some.clients  # it is there, or ``end`` would be at its end
            (row,) = np.flatnonzero((clients["ssl"] == client.ssl) & (clients["state"] == layout.CARRYING)).tolist()
            if clients[row]["in_start"] == clients[row]["in_end"]:
                clients[row]["leaves"], self._leaving[row] = 1, take
                end.close()  # which says that nothing follows what it was told
            else:
                keep(end)
        except OSError:
            end.close()
        else:
            if said:
                keep(end)
            else:
                end.close()

    def _leave_channel(self) -> None:
        self._some.loop[0]["channel"] = -1
        with contextlib.suppress(BlockingIOError):
            while True:
                data = self._channel[1].recv(layout.SHAKEN_CLIENT.itemsize)
                self._take(_secured(np.frombuffer(data, layout.SHAKEN_CLIENT)[0]))

    def _drain(self) -> None:
        kernel.drain(self._some, time.monotonic_ns())
        self._leave_listener()

    def _leave_listener(self) -> None:
        self._some.loop[0]["listener"] = -1
        if self._listener is not None:
            self._driver.epoll.unregister(self._listener)
            self._listener = None

    def _swap(self, hashes: list[int], rows: list[Certificate | None]) -> None:
        there = set(rows)
        self._known = {row: context for row, context in self._known.items() if row in there}
        used = {self._default, *((row.chain, row.key) for row in self._known)}
        for pair in self._made.keys() - used:
            self._maker.free(self._made.pop(pair))
        self._rows = rows
        contexts = [self._made[self._default], *(self._known.get(row, 0) for row in rows if row)]
        self._some = self._some._replace(
            names=np.array([0, *hashes], np.uint64), contexts=np.array(contexts, np.uint64)
        )

    def _context_for(self, row: Certificate) -> int:
        """Made at the first hello that wants it; that of the default certificate where it cannot be shown."""
        pair = (row.chain, row.key)
        if not is_for(row.chain, row.host):
            return self._made[self._default]
        if pair not in self._made:
            try:
                self._made[pair] = self._maker.create(*pair)
            except ValueError:
                return self._made[self._default]
        return self._made[pair]

    def _see_to_handed(self) -> None:
        """Do what connections wait for."""
        some, loop = self._some, self._some.loop[0]
        while loop["handed"]:
            loop["handed"] -= 1  # first, so that none is taken twice
            row = int(some.handed[loop["handed"]])
            client = some.clients[row]
            if client["state"] == layout.WANTING:
                wanted = self._rows[client["name"]]
                assert wanted is not None
                self._known[wanted] = some.contexts[client["name"]] = self._context_for(wanted)
                kernel.go_on(some, row)
            elif client["state"] == layout.RETURNED:
                take = self._leaving.pop(row)
                self._driver.epoll.unregister(int(client["fd"]))
                os.close(int(client["pair"]))
                kernel.forget(some, row)
                take()
            elif client["state"] == layout.SHAKEN:
                given = _secured(client)
                kernel.forget(some, row)
                self._take(given)
            elif client["state"] == layout.UNTOUCHED:
                self._driver.epoll.unregister(int(client["fd"]))
                end, announced = socket.socket(fileno=int(client["fd"])), int(client["announced"])
                named = _peer(client) if announced == NAMED else None
                kernel.forget(some, row)
                self._leave(end, named, announced == AWAITED)

    def _forget_who_died(self) -> None:
        """Of those that were to go back: compiled code has closed their connections."""
        clients = self._some.clients
        for row in tuple(self._leaving):
            if clients[row]["state"] != layout.CARRYING or not clients[row]["leaves"]:  # or it is somebody else's now
                del self._leaving[row]


def _secured(client: np.void) -> Secured:
    """A client of TLS_CLIENT or SHAKEN_CLIENT, whose handshake is done."""
    return Secured(int(client["fd"]), int(client["ssl"]), _peer(client))


def _peer(client: np.void) -> Address:
    return int_to_ip(int(client["ip"])), int(client["port"])
