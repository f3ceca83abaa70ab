"""The load generator against servers in plain Python, right ones and wrong ones, and against the responder."""

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from kernels.layout import ALONE, MISSES, TCP, UDP, Load
from kernels.net import answers, loadgen, syscalls
from plane.addresses import AddressPlan, ip_to_int
from tests import reference
from tests.loopback import PATIENCE_S, Address, Pod, addresses, eventually, open_descriptors, receive, reset

pytestmark = pytest.mark.syscalls

BLOCK = answers.create_block().tobytes()
REQUEST = 64
BREATH_NS = 20_000_000

Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def load_on(*targets: Address, proto: int = TCP, clients: int = 1, answer: int = 64, **rest: object) -> Iterator[Load]:
    """Clients of these targets, whose connections are closed at the end."""
    places = [(ip_to_int(ip), port) for ip, port in targets]
    load = loadgen.create(proto, places, rest.pop("sources", []), clients, REQUEST, answer, **rest)  # type: ignore[arg-type]
    with select.epoll() as epoll:
        load.loop[0]["epoll"] = epoll.fileno()
        loadgen.breath(load, 0)  # compiles, before anybody waits
        yield load
        loadgen.end_all(load)
        assert (load.clients["state"] == ALONE).all()
        assert load.loop[0]["idle"] == len(load.clients)


def run_until(load: Load, done: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, (load.loop, misses(load))
        assert loadgen.breath(load, time.monotonic_ns() + BREATH_NS) == 0


def misses(load: Load) -> dict[str, int]:
    return {name: count for name, count in zip(MISSES, load.misses.tolist(), strict=True) if count}


def answered(load: Load) -> int:
    return int(load.loop[0]["answered"])


def answering(length: int, asked: list[int] | None = None) -> Serve:
    """Answers rightly, and keeps the ids it was asked with."""

    def serve(connection: socket.socket) -> None:
        while request := receive(connection, REQUEST):
            number = int.from_bytes(request[:8], "little")
            assert request == reference.answer(BLOCK, number, REQUEST)
            if asked is not None:
                asked.append(number)
            connection.sendall(reference.answer(BLOCK, number, length))

    return serve


def spoiled(change: Callable[[bytes], bytes], length: int = 64) -> Serve:
    """Answers with what ``change`` makes of the right answer, and closes."""

    def serve(connection: socket.socket) -> None:
        number = int.from_bytes(receive(connection, REQUEST)[:8], "little")
        connection.sendall(change(reference.answer(BLOCK, number, length)))

    return serve


@pytest.mark.parametrize("length", [8, 64, 70_000, 3_000_000])
def test_answers_of_any_length_are_read_and_timed(plan: AddressPlan, length: int) -> None:
    asked: list[int] = []
    with (
        Pod(next(addresses(plan, 7101)), answering(length, asked)) as pod,
        load_on(pod.address, clients=3, answer=length) as load,
    ):
        begun_ns = time.monotonic_ns()
        run_until(load, lambda: answered(load) >= 12 and len(pod.peers) == 3)
        took_ns = time.monotonic_ns() - begun_ns
        latencies = load.latencies[: answered(load)]
        assert misses(load) == {}
        assert (latencies > 0).all()
        assert latencies.sum() <= 3 * took_ns
        assert len(asked) == len(set(asked)) >= answered(load)


def test_a_fresh_connection_for_each_request(plan: AddressPlan) -> None:
    with (
        Pod(next(addresses(plan, 7102)), answering(64)) as pod,
        load_on(pod.address, clients=4, fresh=True) as load,
    ):
        run_until(load, lambda: answered(load) >= 40)
        assert misses(load) == {}
        eventually(lambda: len(pod.peers) >= 40)
        assert len(set(pod.peers)) == len(pod.peers)


def test_clients_take_targets_and_sources_in_turn(plan: AddressPlan) -> None:
    one, two = [address for _, address in zip(range(2), addresses(plan, 7103), strict=False)]
    sources = [str(ip) for ip in list(plan.pods_of(2).hosts())[:2]]
    with (
        Pod(one, answering(64)) as first,
        Pod(two, answering(64)) as second,
        load_on(one, two, clients=4, sources=[ip_to_int(ip) for ip in sources]) as load,
    ):
        run_until(load, lambda: answered(load) >= 40)
        assert [sorted(ip for ip, _ in pod.peers) for pod in (first, second)] == [[sources[0]] * 2, [sources[1]] * 2]


def test_those_who_hold_ask_when_they_are_told(plan: AddressPlan) -> None:
    asked: list[int] = []
    with (
        Pod(next(addresses(plan, 7104)), answering(64, asked)) as pod,
        load_on(pod.address, clients=5, hold=True) as load,
    ):
        run_until(load, lambda: len(pod.peers) == 5)
        loadgen.give_up_overdue(load, time.monotonic_ns())  # they have nothing to wait for
        assert (asked, misses(load)) == ([], {})
        loadgen.ask_all(load)
        run_until(load, lambda: answered(load) >= 50)


WRONG_ANSWERS = {
    "a bit is wrong": (lambda right: right[:40] + bytes([right[40] ^ 1]) + right[41:], "WRONG"),
    "it is another request's": (lambda right: b"otherid!" + right[8:], "WRONG"),
    "it is too long": (lambda right: right + b"!", "WRONG"),
    "it ends early": (lambda right: right[:40], "EOF"),
    "there is none": (lambda right: b"", "EOF"),
}


@pytest.mark.parametrize(("change", "why"), WRONG_ANSWERS.values(), ids=WRONG_ANSWERS.keys())
def test_a_wrong_answer_is_a_miss_and_never_a_number(
    plan: AddressPlan, change: Callable[[bytes], bytes], why: str
) -> None:
    with Pod(next(addresses(plan, 7105)), spoiled(change)) as pod, load_on(pod.address) as load:
        run_until(load, lambda: load.misses.any())
        assert set(misses(load)) == {why}
        assert answered(load) == 0


def test_an_early_answer_is_wrong_once_the_next_request_meets_it(plan: AddressPlan) -> None:
    def serve(connection: socket.socket) -> None:
        number = int.from_bytes(receive(connection, REQUEST)[:8], "little")
        connection.sendall(reference.answer(BLOCK, number, 64))
        receive(connection, REQUEST)
        connection.sendall(reference.answer(BLOCK, number, 64))  # the first one again

    with Pod(next(addresses(plan, 7106)), serve) as pod, load_on(pod.address) as load:
        run_until(load, lambda: load.misses.any())
        assert "WRONG" in misses(load)


def test_a_reset_is_a_miss(plan: AddressPlan) -> None:
    def serve(connection: socket.socket) -> None:
        receive(connection, REQUEST)
        reset(connection)

    with Pod(next(addresses(plan, 7107)), serve) as pod, load_on(pod.address) as load:
        run_until(load, lambda: load.misses.any())
        assert set(misses(load)) == {"RESET"}


def test_nobody_there_is_no_connection(plan: AddressPlan) -> None:
    with load_on(next(addresses(plan, 7108))) as load:
        run_until(load, lambda: load.misses.any())
        assert set(misses(load)) == {"NO_CONNECTION"}


def test_a_source_that_is_not_ours_is_a_limit_of_the_generator(plan: AddressPlan) -> None:
    with load_on(next(addresses(plan, 7108)), sources=[ip_to_int("192.0.2.1")]) as load:
        run_until(load, lambda: load.misses.any())
        assert set(misses(load)) == {"NO_PORT"}


def test_silence_is_overdue(plan: AddressPlan) -> None:
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        over.wait(PATIENCE_S)

    with Pod(next(addresses(plan, 7109)), serve) as pod, load_on(pod.address, clients=2) as load:
        run_until(load, lambda: load.loop[0]["asked"] == 2)
        loadgen.give_up_overdue(load, 0)
        assert misses(load) == {}
        loadgen.give_up_overdue(load, time.monotonic_ns())
        assert misses(load) == {"OVERDUE": 2}
        over.set()


def test_a_full_array_of_latencies_ends_the_breath_and_loses_none(plan: AddressPlan) -> None:
    asked: list[int] = []
    with (
        Pod(next(addresses(plan, 7110)), answering(64, asked)) as pod,
        load_on(pod.address, clients=2) as load,
    ):
        load = load._replace(latencies=np.zeros(syscalls.EVENTS + 3, np.int64))
        run_until(load, lambda: answered(load) > 3)
        before = answered(load)
        assert loadgen.breath(load, time.monotonic_ns() + 10**12) == 0
        assert answered(load) == before
        load.loop[0]["answered"] = 0
        run_until(load, lambda: answered(load) > 3)
        assert misses(load) == {}


@contextlib.contextmanager
def udp_server(address: Address, answer: Callable[[bytes], bytes]) -> Iterator[None]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as pod:
        pod.bind(address)
        over = threading.Event()
        pod.settimeout(0.02)

        def run() -> None:
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    data, client = pod.recvfrom(4096)
                    pod.sendto(answer(data), client)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield
        over.set()
        thread.join()


def test_datagrams_are_echoed_and_timed(plan: AddressPlan) -> None:
    address = next(addresses(plan, 7111))
    with udp_server(address, lambda data: data), load_on(address, proto=UDP, clients=4) as load:
        run_until(load, lambda: answered(load) >= 100)
        assert misses(load) == {}
        assert (load.latencies[: answered(load)] > 0).all()


@pytest.mark.parametrize("change", [lambda data: data[:40], lambda data: data + b"!", lambda data: bytes(64)])
def test_a_datagram_that_is_no_echo_is_wrong(plan: AddressPlan, change: Callable[[bytes], bytes]) -> None:
    address = next(addresses(plan, 7112))
    with udp_server(address, change), load_on(address, proto=UDP) as load:
        run_until(load, lambda: load.misses.any())
        assert set(misses(load)) == {"WRONG"}


def test_a_datagram_to_nobody_is_a_reset(plan: AddressPlan) -> None:
    with load_on(next(addresses(plan, 7113)), proto=UDP) as load:
        run_until(load, lambda: load.misses.any())
        assert set(misses(load)) == {"RESET"}


def test_what_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 8 bytes"):
        loadgen.create(TCP, [(1, 1)], [], 1, 7, 64)
    with pytest.raises(ValueError, match="its echo"):
        loadgen.create(UDP, [(1, 1)], [], 1, 64, 65)


def test_nothing_is_left_open(plan: AddressPlan) -> None:
    before = open_descriptors()
    with Pod(next(addresses(plan, 7114)), answering(64)) as pod:
        for fresh in (False, True):
            with load_on(pod.address, clients=8, fresh=fresh) as load:
                run_until(load, lambda load=load: answered(load) >= 40)
    assert open_descriptors() == before
