"""The HTTP responder asked by Python's own client and by raw sockets, well-behaved and not, and by the generator."""

import contextlib
import http.client
import itertools
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from harness.drivers import compiled
from harness.drivers.busy import Busy
from harness.recorder import Generator
from harness.workload import Workload
from kernels.layout_load import HttpResponder
from kernels.net import httpload, httpresponder
from kernels.net.httpload import Asked
from kernels.net.httpresponder import RECEIPT_BYTES, Counter, receipt_of
from plane.addresses import AddressPlan, ip_to_int
from tests.loopback import PATIENCE_S, Address, addresses, dial, eventually, receive

pytestmark = pytest.mark.syscalls

SIZES = (0, 34, 3_000_000)
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OK = httpresponder.answer_of(34)


@contextlib.contextmanager
def answering(
    plan: AddressPlan, port: int, capacity: int = 64, counter: Callable[[int, bytes], Counter] = Counter
) -> Iterator[tuple[HttpResponder, Address]]:
    """A responder on a thread; its counters, at ``port`` and the following, give bodies of SIZES."""
    ip = next(addresses(plan, port))[0]
    over = threading.Event()
    with contextlib.ExitStack() as stack:
        counters = []
        for number, size in enumerate(SIZES):
            listener = stack.enter_context(socket.create_server((ip, port + number), backlog=128))
            listener.setblocking(False)
            counters.append(counter(listener.fileno(), httpresponder.answer_of(size)))
        responder = httpresponder.create(counters, capacity)
        epoll = stack.enter_context(select.epoll())
        responder.hall[0]["epoll"] = epoll.fileno()
        assert httpresponder.listen(responder) == 0
        httpresponder.breath(responder, 0)  # compiles, before anybody waits

        def run() -> None:
            while not over.is_set():
                assert httpresponder.breath(responder, time.monotonic_ns() + 5_000_000) == 0

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield responder, (ip, port)
        finally:
            over.set()
            thread.join(PATIENCE_S)
            httpresponder.end_all(responder)
        assert responder.hall[0]["free"] == capacity


def test_each_counter_has_its_answer_on_a_kept_connection(plan: AddressPlan) -> None:
    with answering(plan, 7301) as (responder, (ip, port)):
        for number, size in enumerate(SIZES):
            client = http.client.HTTPConnection(ip, port + number, timeout=PATIENCE_S)
            for method, body in (("GET", None), ("POST", b"y" * 200_000), ("HEAD", None), ("PUT", b"")):
                client.request(method, "/any", body)
                answer = client.getresponse()
                assert (answer.status, answer.read()) == (200, b"" if method == "HEAD" else b"x" * size)
            client.close()
        eventually(lambda: responder.hall[0]["answered"] == 4 * len(SIZES))
        assert responder.hall[0]["turned_away"] == 0


def test_a_target_on_the_menu_has_its_answer_and_others_their_receipt(plan: AddressPlan) -> None:
    menu = {b"/one": httpresponder.answer_of(1), b"/a/two": httpresponder.answer_of(2)}

    def counter(fd: int, _: bytes) -> Counter:
        return Counter(fd, httpresponder.answer_of(RECEIPT_BYTES), menu, receipt=True)

    body = bytes(range(256)) * 1000
    with answering(plan, 7371, counter=counter) as (responder, (ip, port)):
        client = http.client.HTTPConnection(ip, port, timeout=PATIENCE_S)
        for target, sent, right in (
            ("/one", b"", b"x"),
            ("/a/two", body, b"xx"),
            ("/on", b"", receipt_of(b"here.example", b"")),
            ("/one/", body, receipt_of(b"here.example", body)),
            ("/one?a=b", b"c", receipt_of(b"here.example", b"c")),
            ("/one", b"", b"x"),
        ):
            client.request("POST", target, sent, {"X-Host": "x", "Host": "here.example"})
            assert client.getresponse().read() == right
        client.request("HEAD", "/two", headers={"Host": "h" * 200})
        answer = client.getresponse()
        assert (answer.read(), answer.headers["Content-Length"]) == (b"", str(RECEIPT_BYTES))
        client.request("GET", "/two", headers={"Host": "h" * 200})
        assert client.getresponse().read() == receipt_of(b"h" * 200, b"")
        client.close()
        assert responder.hall[0]["turned_away"] == 0


def test_answers_without_a_head_or_room_for_receipts_are_refused() -> None:
    for counter in (Counter(-1, b"OK"), Counter(-1, httpresponder.answer_of(RECEIPT_BYTES + 1), receipt=True)):
        with pytest.raises(ValueError, match="an answer"):
            httpresponder.create([counter], 1)


def test_a_request_in_single_bytes_is_one_request(plan: AddressPlan) -> None:
    with answering(plan, 7311) as (responder, (ip, port)), dial((ip, port + 1)) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc":
            client.sendall(bytes([byte]))
        assert receive(client, len(OK)) == OK
        eventually(lambda: responder.hall[0]["answered"] == 1)


@pytest.mark.parametrize("request_", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"])
def test_who_does_not_keep_a_connection_gets_its_end(plan: AddressPlan, request_: bytes) -> None:
    with answering(plan, 7321) as (_, (ip, port)), dial((ip, port + 1)) as client:
        client.sendall(request_)
        assert receive(client, len(OK)) == OK
        assert client.recv(1) == b""


@pytest.mark.parametrize(
    "request_",
    [
        b"nothing of the kind\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        GET + GET,
        b"GET / HTTP/1.1\r\nX: " + b"x" * 9000,
    ],
    ids=["no head", "chunks", "no length", "two at a time", "a long head"],
)
def test_what_is_not_one_request_is_reset(plan: AddressPlan, request_: bytes) -> None:
    with answering(plan, 7331) as (responder, (ip, port)), dial((ip, port + 1)) as client:
        client.sendall(request_)
        with pytest.raises(ConnectionResetError):
            receive(client, 1)
        assert responder.hall[0]["turned_away"] == 1


def test_more_connections_than_there_are_rows_for_are_turned_away(plan: AddressPlan) -> None:
    with answering(plan, 7341, capacity=1) as (responder, (ip, port)), dial((ip, port + 1)) as first:
        first.sendall(GET)
        assert receive(first, len(OK)) == OK
        with contextlib.suppress(ConnectionResetError), dial((ip, port + 1)) as second:
            second.recv(1)
        eventually(lambda: responder.hall[0]["turned_away"] == 1)
        first.sendall(GET)
        assert receive(first, len(OK)) == OK


@pytest.mark.parametrize("fresh", [False, True])
def test_the_generator_and_the_responder_count_the_same(plan: AddressPlan, fresh: bool) -> None:
    with answering(plan, 7351 + 3 * fresh, capacity=256) as (responder, (ip, port)):
        workload = Workload("x", keep_alive=not fresh)
        due_ns = np.arange(200) * 500_000
        asked = [compiled.asked(workload)]
        answers = compiled.ask([(ip, port + 1)], asked, connections=16, seconds=9, fresh=fresh, due_ns=due_ns)
        assert answers.errors == {}
        assert len(answers.latencies_ns) == len(answers.rows) == 200
        eventually(lambda: responder.hall[0]["answered"] == 200)  # counted once the answer is sent
        assert set(answers.rows["bytes_in"]) == {len(OK)}
        assert (answers.rows["reused"] == 0).all() == fresh
        times = [answers.rows[name] for name in ("intended_ns", "start_ns", "sent_ns", "request_sent_ns", "done_ns")]
        assert all((earlier <= later).all() for earlier, later in itertools.pairwise(times))
        dialled = answers.rows[answers.rows["reused"] == 0]
        assert (dialled["start_ns"] <= dialled["connected_ns"]).all()
        assert (
            (dialled["start_ns"] <= dialled["connected_ns"]) & (dialled["connected_ns"] <= dialled["sent_ns"])
        ).all()
        assert answers.cpu_ns < answers.duration_ns


def test_a_mix_is_by_weight_and_by_number_alone(plan: AddressPlan) -> None:
    with answering(plan, 7361) as (_, (ip, port)):
        requests = [Asked(GET, weight=3), compiled.asked(Workload("x", method="HEAD"), weight=1)]
        due_ns = np.zeros(400, np.int64)
        rows = []
        for _ in range(2):
            answers = compiled.ask([(ip, port + 1)], requests, connections=8, seconds=9, due_ns=due_ns)
            rows.append(np.sort(answers.rows, order="number"))
        assert (rows[0]["bytes_out"] == rows[1]["bytes_out"]).all()
        assert set(rows[0]["bytes_in"]) == {len(OK), len(OK) - 34}
        # 300 of 400, with a standard deviation of 9.
        assert 255 <= (rows[0]["bytes_out"] == len(GET)).sum() <= 345


def test_a_generator_at_its_limit_says_so() -> None:
    assert not Generator("compiled", late=9, latest_ns=1, busy=0.5).limited(1000)
    assert Generator("compiled", late=11, latest_ns=1, busy=0.5).limited(1000)
    assert Generator("compiled", busy=0.95).limited(1000)
    assert not Generator().limited(1000)


def test_a_closed_loop_that_never_waits_is_busy(plan: AddressPlan) -> None:
    with answering(plan, 7371) as (_, (ip, port)):
        answers = compiled.ask([(ip, port + 1)], [Asked(GET)], connections=16, seconds=0.2, warm_s=0.1)
    assert answers.errors == {}
    assert answers.rate > 100
    assert answers.generator.busy is not None
    assert 0 < answers.generator.busy <= 1.05
    assert len(answers.latencies_ns) == len(answers.rows)


def test_looks_without_a_sleep_grow_rare_where_they_are_in_vain() -> None:
    compiled.prepare()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = ip_to_int("127.0.0.1"), int(silent.getsockname()[1])
        load = httpload.create([address], [Asked(GET)], 1, start_ns=time.monotonic_ns())
        loop, seen, until_s = load.loop[0], [], time.monotonic() + PATIENCE_S
        with compiled.Asking.of(load) as asking:
            while loop["vain"] < 3:
                assert time.monotonic() < until_s
                asking.breathe(time.monotonic_ns() + 1_000_000)
                seen.append(int(loop["vain"]))
    assert set(seen) == {0, 1, 3} or set(seen) == {1, 3}
    assert loop["spun_ns"] >= 2 * httpload.SPIN_NS
    assert Busy().share(10**15) == 0
