"""The responder asked by clients in plain Python, well-behaved and not, and by the load generator."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from kernels.layout import TCP, UDP, Responder
from kernels.net import answers, responder
from plane.addresses import AddressPlan
from tests import reference
from tests.kernels.test_loadgen import answered, load_on, misses, run_until
from tests.loopback import PATIENCE_S, Address, addresses, dial, eventually, open_descriptors, receive

pytestmark = pytest.mark.syscalls

BLOCK = answers.create_block().tobytes()
REQUEST = 64
LENGTHS = (8, 64, 300_000, 3_000_000)


@contextlib.contextmanager
def answering(plan: AddressPlan, port: int, capacity: int = 64) -> Iterator[tuple[Responder, Address]]:
    """A responder on a thread: TCP desks at ``port`` and the following give answers of LENGTHS, UDP is at ``port``."""
    ip = next(addresses(plan, port))[0]
    over = threading.Event()
    with contextlib.ExitStack() as stack:
        desks = []
        for number, length in enumerate(LENGTHS):
            listener = stack.enter_context(socket.create_server((ip, port + number), backlog=128))
            listener.setblocking(False)
            desks.append((TCP, listener.fileno(), length))
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK))
        datagrams.bind((ip, port))
        answers_to = responder.create([*desks, (UDP, datagrams.fileno(), 0)], capacity, REQUEST)
        epoll = stack.enter_context(select.epoll())
        answers_to.room[0]["epoll"] = epoll.fileno()
        assert responder.listen(answers_to) == 0
        responder.breath(answers_to, 0)  # compiles, before anybody waits

        def run() -> None:
            while not over.is_set():
                assert responder.breath(answers_to, time.monotonic_ns() + 5_000_000) == 0

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield answers_to, (ip, port)
        over.set()
        thread.join(PATIENCE_S)
        responder.end_all(answers_to)
        assert answers_to.room[0]["free"] == capacity


def request(number: int) -> bytes:
    return reference.answer(BLOCK, number, REQUEST)


@pytest.mark.parametrize("desk", range(len(LENGTHS)))
def test_each_desk_answers_with_its_length(plan: AddressPlan, desk: int) -> None:
    with answering(plan, 7201) as (_, (ip, port)), dial((ip, port + desk)) as client:
        for number in (0, 1, 2**64 - 1, 0xFEDCBA9876543210):
            client.sendall(request(number))
            assert receive(client, LENGTHS[desk]) == reference.answer(BLOCK, number, LENGTHS[desk])


def test_a_request_in_single_bytes_is_one_request(plan: AddressPlan) -> None:
    with answering(plan, 7211) as (place, (ip, port)), dial((ip, port + 1)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request(0xFEDCBA9876543210):
            client.sendall(bytes([byte]))
        assert receive(client, 64) == reference.answer(BLOCK, 0xFEDCBA9876543210, 64)
        assert place.room[0]["answered"] == 1


def test_a_client_that_ends_after_its_request_gets_the_answer_and_the_end(plan: AddressPlan) -> None:
    with answering(plan, 7221) as (place, (ip, port)):
        for desk in range(len(LENGTHS)):
            with dial((ip, port + desk)) as client:
                client.sendall(request(7))
                client.shutdown(socket.SHUT_WR)
                assert receive(client, LENGTHS[desk] + 1) == reference.answer(BLOCK, 7, LENGTHS[desk])
        eventually(lambda: place.room[0]["free"] == len(place.callers))


def test_more_than_one_request_at_a_time_is_reset(plan: AddressPlan) -> None:
    with answering(plan, 7231) as (place, (ip, port)), dial((ip, port + 1)) as client:
        client.sendall(request(1) + b"!")
        with pytest.raises(ConnectionResetError):
            receive(client, 64)
        assert place.room[0]["turned_away"] == 1


def test_one_more_than_there_is_room_for_is_reset(plan: AddressPlan) -> None:
    with (
        answering(plan, 7241, capacity=1) as (place, (ip, port)),
        dial((ip, port + 1)) as first,
    ):
        with pytest.raises(ConnectionResetError), dial((ip, port + 1)) as second:  # as early as while it connects
            receive(second, 1)
        first.sendall(request(1))
        assert receive(first, 64) == request(1)
        assert place.room[0]["turned_away"] == 1


def test_datagrams_come_back_as_they_were(plan: AddressPlan) -> None:
    with (
        answering(plan, 7251) as (place, address),
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(PATIENCE_S)
        client.connect(address)
        sent = [bytes([number]) * (number + 1) for number in range(100)]
        for datagram in sent:
            client.send(datagram)
        assert [client.recv(4096) for _ in sent] == sent
        eventually(lambda: place.room[0]["answered"] == 100)
        assert place.room[0]["unsent"] == 0


@pytest.mark.parametrize(("desk", "fresh"), [(1, False), (1, True), (2, False), (3, False)])
def test_generator_and_responder_understand_each_other(plan: AddressPlan, desk: int, fresh: bool) -> None:
    with (
        answering(plan, 7261) as (place, (ip, port)),
        load_on((ip, port + desk), clients=16, answer=LENGTHS[desk], fresh=fresh) as load,
    ):
        run_until(load, lambda: answered(load) >= 200)
        assert misses(load) == {}
        eventually(lambda: place.room[0]["answered"] >= answered(load))  # it counts when it has sent
        assert place.room[0]["turned_away"] == 0


def test_generator_and_responder_over_udp(plan: AddressPlan) -> None:
    with answering(plan, 7271) as (_, address), load_on(address, proto=UDP, clients=16) as load:
        run_until(load, lambda: answered(load) >= 2000)
        assert misses(load) == {}


def test_nothing_is_left_open(plan: AddressPlan) -> None:
    before = open_descriptors()
    with answering(plan, 7281) as (_, (ip, port)):
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                client = stack.enter_context(dial((ip, port + 1)))
                client.sendall(request(3))
                assert receive(client, 64) == request(3)
        with dial((ip, port + 3)) as client:  # gone in the middle of its answer
            client.sendall(request(3))
    assert open_descriptors() == before
