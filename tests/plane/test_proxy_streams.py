"""Bytes through the Service proxy, on real sockets: ends, resets, bulk and slow readers."""

import hashlib
import os
import socket
import threading
import time

import numpy as np
import pytest

from kernels.net.pipes import PIPE_BYTES
from kernels.net.relay import PIPES
from plane.addresses import AddressPlan
from plane.proxy import Proxy
from tests.loopback import PATIENCE_S, Address, Pod, dial, echo, eventually, make_fib, open_descriptors, receive, reset
from tests.plane.proxied import pod_address, read_until_shut

pytestmark = pytest.mark.syscalls

MIB = 1 << 20


def test_client_that_has_sent_its_end_still_gets_the_answer(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    def measure(connection: socket.socket) -> None:
        size = 0
        while data := connection.recv(65536):
            size += len(data)
        connection.sendall(b"%d" % size)

    with Pod(pod_address(plan, 1), measure) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        with dial(vip) as client:
            client.sendall(bytes(200_000))
            client.shutdown(socket.SHUT_WR)
            assert receive(client, 100) == b"200000"


def test_pod_that_has_sent_its_end_still_gets_requests(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    got: list[bytes] = []

    def greet_and_listen(connection: socket.socket) -> None:
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        got.append(receive(connection, 1000))

    with Pod(pod_address(plan, 1), greet_and_listen) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        with dial(vip) as client:
            assert receive(client, 100) == b"hello"
            client.sendall(b"after your end")
        eventually(lambda: got)
        assert got == [b"after your end"]
        eventually(lambda: proxy.ends()["CLOSED"] == 1)


def test_reset_by_the_client_reaches_the_pod_as_reset(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    ended: list[str] = []

    def wait_for_end(connection: socket.socket) -> None:
        try:
            ended.append(repr(receive(connection, 1000)))
        except ConnectionResetError:
            ended.append("reset")

    with Pod(pod_address(plan, 1), wait_for_end) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        client = dial(vip)
        client.sendall(b"half a requ")
        eventually(lambda: pod.peers)
        reset(client)
        eventually(lambda: ended)
        assert ended == ["reset"]
        assert proxy.ends()["CLIENT_RESET"] == 1


def test_reset_by_the_pod_reaches_the_client_after_what_was_sent_before(
    proxy: Proxy, plan: AddressPlan, vip: Address
) -> None:
    def answer_and_break(connection: socket.socket) -> None:
        connection.recv(1)
        connection.sendall(b"half an answ")
        connection.recv(1)
        reset(connection)

    with Pod(pod_address(plan, 1), answer_and_break) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        with dial(vip) as client:
            client.sendall(b"?")
            assert receive(client, 12) == b"half an answ"
            client.sendall(b"!")
            with pytest.raises(ConnectionResetError):
                client.recv(1)
        assert proxy.ends()["UPSTREAM_RESET"] == 1


@pytest.mark.parametrize("pipes_had", [0, PIPES], ids=["copied", "spliced"])
def test_64_mib_arrive_whole_both_ways_and_wait_for_a_slow_reader(
    proxy: Proxy, plan: AddressPlan, vip: Address, pipes_had: int
) -> None:
    block = os.urandom(MIB)
    wanted = hashlib.sha256(block * 64).digest()
    sent = 0
    relay = proxy._in_force.relay
    relay.pipes.left[0] = pipes_had

    def send(client: socket.socket) -> None:
        nonlocal sent
        for _ in range(64):
            client.sendall(block)
            sent += MIB
        client.shutdown(socket.SHUT_WR)

    with Pod(pod_address(plan, 1), echo) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        with dial(vip) as client:
            sender = threading.Thread(target=send, args=(client,))
            sender.start()
            stands_still(lambda: sent)
            assert sent < 64 * MIB
            assert (relay.streams["end"] - relay.streams["start"]).max() <= PIPE_BYTES, "no more waits in the relay"
            assert relay.streams["pipe"].any() == (pipes_had > 0)
            digest = hashlib.sha256()
            while data := client.recv(65536):
                digest.update(data)
            sender.join()
    assert digest.digest() == wanted
    eventually(lambda: proxy.live() == 0)
    assert relay.pipes.left[0] == pipes_had


@pytest.mark.parametrize("late", ["client", "pod"])
def test_an_end_comes_after_the_megabytes_before_it_and_the_other_direction_goes_on(
    proxy: Proxy, plan: AddressPlan, vip: Address, late: str
) -> None:
    there, back = os.urandom(8 * MIB), os.urandom(8 * MIB)
    got: dict[str, bytes] = {}

    def converse(connection: socket.socket, name: str, words: bytes) -> None:
        """Say all and end, or first hear the other side to its end."""
        if name == late:
            got[name] = receive(connection, 1 << 30)
        connection.sendall(words)
        connection.shutdown(socket.SHUT_WR)
        if name != late:
            got[name] = receive(connection, 1 << 30)

    with Pod(pod_address(plan, 1), lambda connection: converse(connection, "pod", back)) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        with dial(vip) as client:
            converse(client, "client", there)
        eventually(lambda: len(got) == 2)
    assert got == {"pod": there, "client": back}
    eventually(lambda: proxy.ends()["CLOSED"] == 1)


def flood(connection: socket.socket) -> None:
    while True:
        connection.sendall(bytes(MIB))


def test_reset_by_the_client_amid_bulk_reaches_the_pod_as_reset(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    ended: list[type] = []

    def flood_and_tell(connection: socket.socket) -> None:
        try:
            flood(connection)
        except OSError as failure:
            ended.append(type(failure))

    relay = proxy._in_force.relay
    with Pod(pod_address(plan, 1), flood_and_tell) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        client = dial(vip)
        assert len(receive(client, 4 * MIB)) == 4 * MIB
        eventually(lambda: relay.streams["pipe"].any())
        reset(client)
        eventually(lambda: ended)
        assert ended == [ConnectionResetError]
    assert proxy.ends()["CLIENT_RESET"] == 1
    assert relay.pipes.left[0] == PIPES


def test_reset_by_the_pod_amid_bulk_reaches_the_client_as_reset(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    go = threading.Event()

    def flood_and_break(connection: socket.socket) -> None:
        while not go.is_set():
            connection.sendall(bytes(MIB))
        reset(connection)

    relay = proxy._in_force.relay
    with Pod(pod_address(plan, 1), flood_and_break) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        with dial(vip) as client:
            eventually(lambda: relay.streams["pipe"].any())
            go.set()
            with pytest.raises(ConnectionResetError):
                receive(client, 1 << 40)
        eventually(lambda: proxy.ends()["UPSTREAM_RESET"] == 1)
    assert relay.pipes.left[0] == PIPES


def test_slow_readers_beyond_the_pipes_get_every_byte_too(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    wanted = os.urandom(8 * MIB)
    relay = proxy._in_force.relay
    relay.pipes.left[0] = 2
    with Pod(pod_address(plan, 1), lambda connection: connection.sendall(wanted)) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        clients = [dial(vip) for _ in range(6)]
        eventually(lambda: np.count_nonzero(relay.streams["end"] > relay.streams["start"]) == 6)
        assert relay.pipes.left[0] == 0
        for client in clients:
            with client:
                assert receive(client, 1 << 30) == wanted
        eventually(lambda: proxy.ends()["CLOSED"] == 6)
    assert relay.pipes.left[0] == 2


def test_bulk_that_is_under_way_when_grace_ends_leaves_nothing(plan: AddressPlan, vip: Address) -> None:
    before = open_descriptors()
    proxy = Proxy(plan, 1)
    proxy.start()
    with Pod(pod_address(plan, 1), flood) as pod:
        proxy.install(make_fib(1, {vip: [pod.address]}))
        with dial(vip) as client:
            eventually(lambda: proxy._in_force.relay.streams["pipe"].any())
            proxy.stop(0.05)
            with pytest.raises(ConnectionResetError):
                receive(client, 1 << 40)
    assert proxy.ends()["STOPPED"] == 1
    assert open_descriptors() == before


def stands_still(number: object, for_s: float = 0.3) -> None:
    """Return once ``number()`` has been the same for so long."""
    deadline = time.monotonic() + PATIENCE_S
    before, since = number(), time.monotonic()
    while time.monotonic() - since < for_s:
        assert time.monotonic() < deadline
        if number() != before:
            before, since = number(), time.monotonic()
        time.sleep(0.01)


def test_bulk_transfer_does_not_hold_up_others(proxy: Proxy, plan: AddressPlan, vip: Address) -> None:
    bulk = (vip[0], 8081)
    with Pod(pod_address(plan, 1), flood) as flooding, Pod(pod_address(plan, 2), echo) as answering:
        proxy.install(make_fib(1, {bulk: [flooding.address], vip: [answering.address]}))
        with dial(bulk) as greedy, dial(vip) as client:
            drain = threading.Thread(target=read_until_shut, args=(greedy,))
            drain.start()
            begun = time.monotonic()
            for _ in range(50):
                client.sendall(b"?")
                assert client.recv(1) == b"?"
            assert time.monotonic() - begun < 25
            greedy.shutdown(socket.SHUT_RDWR)
            drain.join()
