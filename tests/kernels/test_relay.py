"""The relay's parts, one by one, on real descriptors; the whole of it is in tests/plane/test_proxy*.py."""

import contextlib
import errno
import os
import resource
import select
import socket
import time
from collections import deque
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.jit import kernel
from kernels.layout import ENDED, ENDING, LISTENER, OPEN, Relay
from kernels.lb.forward import create_steering, empty_fib
from kernels.net import connections, pipes, relay, ring, streams, syscalls
from plane.addresses import AddressPlan, ip_to_int
from tests.loopback import open_descriptors

pytestmark = pytest.mark.syscalls


@kernel
def pass_on(some, i):
    """What compiled code alone can call."""
    return streams._pass_on(some, i)


@kernel
def bind_source(idle, upstream, ip):
    """Likewise."""
    return connections._bind_source(idle, upstream, ip)


@pytest.fixture
def exchange() -> syscalls.Exchange:
    return syscalls.create_exchange()


@pytest.fixture
def idle(plan: AddressPlan) -> Iterator[Relay]:
    """A relay for four connections that nobody talks to."""
    with select.epoll() as epoll:
        idle = relay.create(4, 4, ip_to_int(plan.node(1)), 10**9)
        idle.loop[0]["epoll"] = epoll.fileno()
        yield idle


@given(st.integers(0, 2**32 - 1))
def test_byte_orders_are_those_of_the_socket_library(number: int) -> None:
    assert syscalls.swap32(np.uint32(number)) == socket.htonl(number)
    assert syscalls.swap16(np.uint16(number & 0xFFFF)) == socket.htons(number & 0xFFFF)


def test_a_failed_call_answers_its_errno(exchange: syscalls.Exchange) -> None:
    assert syscalls.close(-1) == -errno.EBADF
    assert syscalls.receive(-1, np.zeros(1, np.uint8)) == -errno.EBADF
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        assert syscalls.accept(exchange, listener.fileno()) == -errno.EAGAIN


def test_clock_is_pythons_monotonic_clock(exchange: syscalls.Exchange) -> None:
    before = time.monotonic_ns()
    assert before <= syscalls.monotonic_ns(exchange) <= time.monotonic_ns()


def test_accepted_peer_is_in_host_order(exchange: syscalls.Exchange) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted = socket.socket(fileno=int(syscalls.accept(exchange, listener.fileno())))
        with accepted:
            assert not os.get_blocking(accepted.fileno())
            assert not os.get_inheritable(accepted.fileno())
            peer = exchange.address[0]
            assert (syscalls.swap32(peer["ip"]), syscalls.swap16(peer["port"])) == (0x7F000001, client.getsockname()[1])


@given(st.lists(st.booleans(), max_size=200))
def test_ring_is_a_queue(puts: list[bool]) -> None:
    queue, twin = ring.create(5), deque[int]()
    for row, put in enumerate(puts):
        if put and len(twin) < 5:
            ring.put(queue, row)
            twin.append(row)
        elif twin:
            assert ring.take(queue) == twin.popleft()
        assert ring.size(queue) == len(twin)


def carrying(source: socket.socket, sink: socket.socket) -> tuple[Relay, np.ndarray]:
    """A relay of one connection and its two streams; stream 2 carries from source to sink and both are ready."""
    carrying = relay.create(1, 1, 0, 0)
    both = carrying.streams[2:4]
    both[0]["source"], both[0]["sink"] = source.fileno(), sink.fileno()
    both[1]["source"], both[1]["sink"] = sink.fileno(), source.fileno()
    both["readable"] = both["writable"] = 1
    return carrying, both


@pytest.fixture
def pairs() -> Iterator[tuple[socket.socket, ...]]:
    """Sender, source, sink, reader: two pairs of nonblocking sockets, of which a stream joins the middle ones."""
    ends = (*socket.socketpair(), *socket.socketpair())
    for end in ends:
        end.setblocking(False)
    yield ends
    for end in ends:
        end.close()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 400_000), max_size=5),
    st.integers(5_000, 400_000),
    st.sampled_from((0, 1, 64)),
)
def test_a_stream_delivers_every_byte_and_then_the_end(chunks: list[int], read_size: int, pipes_had: int) -> None:
    sender, source = socket.socketpair()
    sink, reader = socket.socketpair()
    for end in (sender, source, sink, reader):
        end.setblocking(False)
    with sender, source, sink, reader:
        some, both = carrying(source, sink)
        some.pipes.left[0] = pipes_had
        wanted = b"".join(os.urandom(size) for size in chunks)
        sent, got = 0, b""
        while both[0]["state"] != ENDED or len(got) < len(wanted):
            if sent < len(wanted):
                with contextlib.suppress(BlockingIOError):
                    sent += sender.send(wanted[sent:])
            elif sender.fileno() >= 0:
                sender.close()
            both["readable"] = both["writable"] = 1
            assert streams.turn(some, 2) in (streams.RESTING, streams.UNFINISHED)
            with contextlib.suppress(BlockingIOError):
                got += reader.recv(read_size)
        assert got == wanted
        assert both[0]["moved"] == len(wanted)
        assert reader.recv(1) == b"", "the end is passed on"
        assert some.pipes.left[0] == pipes_had, "a pipe that is empty is given back"
        relay.end_all(create_steering(empty_fib(), 4), some)


def test_one_turn_is_bounded() -> None:
    sender, source = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sink, reader = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with sender, source, sink, reader:
        some, both = carrying(source, sink)
        both[0]["hangup"] = 1  # so that it reads on after a short read, of one packet
        for _ in range(streams.ROUNDS + 1):
            sender.send(b"packet")
        assert streams.turn(some, 2) == streams.UNFINISHED
        reader.setblocking(False)
        for _ in range(streams.ROUNDS):
            assert reader.recv(100) == b"packet"
        with pytest.raises(BlockingIOError):
            reader.recv(100)


def test_nothing_is_read_for_a_sink_that_takes_nothing(pairs: tuple[socket.socket, ...]) -> None:
    sender, source, sink, _ = pairs
    some, both = carrying(source, sink)
    sender.send(b"waits")
    both[0]["writable"] = 0
    assert streams.turn(some, 2) == streams.RESTING
    assert source.recv(10) == b"waits"


def test_a_reset_source_gives_up_what_its_sink_does_not_take(pairs: tuple[socket.socket, ...]) -> None:
    _, source, sink, _ = pairs
    some, both = carrying(source, sink)
    both[0]["end"], both[0]["writable"] = 5, 0
    assert streams.turn(some, 2) == streams.RESTING
    both[0]["failed"] = 1
    assert streams.turn(some, 2) == streams.SOURCE_FAILED


def test_the_later_end_is_left_to_close(pairs: tuple[socket.socket, ...]) -> None:
    _, source, sink, reader = pairs
    some, both = carrying(source, sink)
    both[0]["state"], both[1]["state"] = ENDING, ENDED
    assert streams.turn(some, 2) == streams.RESTING
    assert both[0]["state"] == ENDED
    with pytest.raises(BlockingIOError):
        reader.recv(1)


def test_bulk_takes_a_pipe_and_little_gives_it_up(pairs: tuple[socket.socket, ...]) -> None:
    sender, source, sink, reader = pairs
    some, both = carrying(source, sink)
    for size, bulk in ((streams.BUFFER_BYTES, 1), (20_000, 1), (streams.BULK_BYTES - 1, 0), (20_000, 0)):
        wanted = os.urandom(size)
        sender.sendall(wanted)
        both["readable"] = 1
        pass_on(some, 2)
        assert reader.recv(size) == wanted
        assert both[0]["bulk"] == bulk
        assert both[0]["pipe"] == 0, "held only while there is something in it"
    relay.end_all(create_steering(empty_fib(), 4), some)


def test_a_full_sink_holds_a_pipe_which_is_closed_with_what_is_in_it(pairs: tuple[socket.socket, ...]) -> None:
    before = open_descriptors()
    sender, source, sink, _ = pairs
    some, both = carrying(source, sink)
    both[0]["bulk"] = 1
    with contextlib.suppress(BlockingIOError):
        while True:
            sink.send(bytes(65536))
    sender.sendall(bytes(50_000))
    assert streams.turn(some, 2) == streams.RESTING
    assert not both[0]["writable"]
    assert both[0]["end"] - both[0]["start"] == 50_000
    assert some.pipes.left[0] == relay.PIPES - 1
    assert len(open_descriptors()) == len(before) + 2
    streams.forget(some, 2)
    assert some.pipes.left[0] == relay.PIPES
    assert (some.pipes.ends == -1).all()
    assert open_descriptors() == before


def test_pipes_that_cannot_be_opened_are_none(pairs: tuple[socket.socket, ...]) -> None:
    sender, source, sink, reader = pairs
    some, both = carrying(source, sink)
    assert streams.turn(some, 2) == streams.RESTING  # loads the code, while there are descriptors for that
    both["readable"] = 1
    with no_descriptors_left():
        both[0]["bulk"] = 1
        sender.sendall(b"copied")
        assert streams.turn(some, 2) == streams.RESTING
    assert reader.recv(10) == b"copied"
    assert some.pipes.left[0] == relay.PIPES
    assert (some.pipes.ends == -1).all()
    both["readable"] = both["bulk"] = 1
    sender.sendall(b"spliced")
    assert streams.turn(some, 2) == streams.RESTING
    assert reader.recv(10) == b"spliced"
    assert (some.pipes.ends[1] >= 0).all()
    pipes.close_all(some.pipes)


def test_where_the_system_cannot_splice_bulk_is_copied(pairs: tuple[socket.socket, ...]) -> None:
    sender, source, sink, reader = pairs
    some, both = carrying(source, sink)
    with select.epoll() as no_source:
        both[0]["source"], both[0]["bulk"] = no_source.fileno(), 1
        assert pass_on(some, 2) == streams.RESTING
    assert both[0]["readable"]
    assert some.pipes.left[0] == relay.PIPES
    both[0]["source"] = source.fileno()
    sender.send(b"copied")
    assert streams.turn(some, 2) == streams.RESTING
    assert reader.recv(10) == b"copied"
    pipes.close_all(some.pipes)


@contextlib.contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Have every call that opens one answer EMFILE."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_an_event_of_an_earlier_connection_is_ignored(idle: Relay) -> None:
    steering = create_steering(empty_fib(), 4)
    idle.connections[2]["serial"], idle.connections[2]["state"] = 7, OPEN
    events = np.uint32(select.EPOLLIN | select.EPOLLHUP)
    connections.on_event(empty_fib(), steering, idle, 4, np.uint32(6), events, 0)
    assert not idle.streams[4]["readable"]
    connections.on_event(empty_fib(), steering, idle, len(idle.streams), np.uint32(0), np.uint32(select.EPOLLIN), 0)
    assert idle.connections[2]["state"] == OPEN
    assert idle.ends.sum() == 0


def test_a_client_from_elsewhere_is_connected_from_the_nodes_address(idle: Relay, plan: AddressPlan) -> None:
    with socket.socket() as upstream:
        node_ip = ip_to_int(plan.node(1))
        assert bind_source(idle, upstream.fileno(), np.uint32(ip_to_int("192.0.2.1"))) == node_ip
        assert upstream.getsockname()[0] == plan.node(1)


def test_a_socket_connected_to_itself_is_recognised(idle: Relay) -> None:
    with socket.socket() as itself, socket.create_server(("127.0.0.1", 0)) as listener:
        itself.bind(("127.0.0.1", 0))
        itself.connect(itself.getsockname())
        assert connections.meets_itself(idle, itself.fileno(), itself.getsockname()[1])
        with socket.create_connection(listener.getsockname()) as client:
            assert not connections.meets_itself(idle, client.fileno(), listener.getsockname()[1])


def test_a_longer_list_of_listeners_keeps_rows_and_backlog(idle: Relay) -> None:
    some = relay.with_listeners(idle, 3)
    some.listeners[2] = np.array((1, 2, 0, 0, 3, 4), LISTENER)
    relay.attend(some, 2)
    relay.attend(some, 2)
    more = relay.with_listeners(some, 100)
    assert len(more.listeners) > 100
    assert more.listeners[2] == some.listeners[2]
    assert ring.size(more.backlog) == 1
    assert ring.take(more.backlog) == 2
    assert (more.listeners["fd"][np.arange(len(more.listeners)) != 2] == -1).all()


def test_a_closed_listener_leaves_the_backlog(idle: Relay) -> None:
    fib = empty_fib()
    some = relay.with_listeners(idle, 1)
    relay.attend(some, 1)
    assert relay.breath(fib, create_steering(fib, 4), some, 0) == 0
    assert ring.size(some.backlog) == 0
    assert not some.listeners[1]["queued"]
    relay.end_all(create_steering(fib, 4), some)


def test_a_breath_ends_at_its_time_and_reports_a_broken_epoll_set(idle: Relay) -> None:
    fib = empty_fib()
    steering = create_steering(fib, 4)
    begun = time.monotonic_ns()
    assert relay.breath(fib, steering, idle, begun + 20_000_000) == 0
    assert time.monotonic_ns() - begun >= 20_000_000
    idle.loop[0]["epoll"] = -1
    assert relay.breath(fib, steering, idle, 0) == -errno.EBADF
