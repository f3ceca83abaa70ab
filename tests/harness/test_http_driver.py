"""The HTTP driver against real servers: what it takes for an answer, what it does with connections, what it records."""

import asyncio
import socket
import time
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from harness import arrivals, report
from harness.arrivals import Slope
from harness.drivers import compiled
from harness.drivers.compiled import CompiledStream
from harness.drivers.http import Destination
from harness.drivers.stream import Progress, Stream, Task
from harness.recorder import ERRORS, NEVER, Recorded
from harness.workload import Workload, request_ids
from plane.addresses import AddressPlan, ip_to_int
from tests.harness.subjects import MS, OK, S, answering, closed_loop, head, in_turn, open_loop, serving
from tests.loopback import PATIENCE_S


class Threaded(CompiledStream):
    """The compiled driver on a thread, so that the test's servers answer meanwhile."""

    async def run(self, epoch_ns: int) -> Recorded:  # type: ignore[override]
        return await asyncio.to_thread(super().run, epoch_ns)


@pytest.fixture(autouse=True, params=["asyncio", pytest.param("compiled", marks=pytest.mark.syscalls)])
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test holds both drivers to the same."""
    if request.param == "compiled":
        compiled.prepare()  # before anything is due
        monkeypatch.setattr(request.module, "Stream", Threaded)


async def run(task: Task) -> Recorded:
    return await Stream(task).run(time.monotonic_ns() + 10 * MS)


def texts(recorded: Recorded) -> list[str]:
    return [ERRORS[code] for code in recorded.requests["error"]]


def answered(recorded: Recorded) -> np.ndarray:
    return recorded.requests["done_ns"] != NEVER


async def test_an_open_loop_sends_as_many_as_scheduled_at_the_times_scheduled() -> None:
    async with serving(answering(OK)) as server:
        epoch_ns = time.monotonic_ns() + 20 * MS
        recorded = await Stream(open_loop(server, 200, 250, start_ns=50 * MS)).run(epoch_ns)
    requests = recorded.requests
    assert (requests["intended_ns"] - epoch_ns).tolist() == [50 * MS + 5 * MS * row for row in range(50)]
    assert set(texts(recorded)) == {""}
    assert set(requests["status"]) == {200}
    assert set(requests["bytes_in"]) == {len(OK)}
    assert set(requests["attempts"]) == {1}
    for earlier, later in (("intended_ns", "sent_ns"), ("sent_ns", "first_byte_ns"), ("first_byte_ns", "done_ns")):
        assert (requests[earlier] <= requests[later]).all()


async def test_an_open_loop_sends_at_the_times_of_a_poisson_process() -> None:
    async with serving(answering(OK)) as server:
        epoch_ns = time.monotonic_ns() + 20 * MS
        recorded = await Stream(open_loop(server, 300, 200, start_ns=5 * MS, poisson=(1, 2))).run(epoch_ns)
    due = arrivals.poisson(Fraction(300), 200 * MS, (1, 2))
    assert (recorded.requests["intended_ns"] - epoch_ns - 5 * MS).tolist() == due.tolist()
    assert (recorded.requests["sent_ns"] >= recorded.requests["intended_ns"]).all()
    assert answered(recorded).all()


async def test_an_open_loop_sends_at_the_times_of_its_stages() -> None:
    stages = (Slope(0, 100 * MS, Fraction(0), Fraction(400)), Slope(100 * MS, 50 * MS, Fraction(400), Fraction(400)))
    async with serving(answering(OK)) as server:
        epoch_ns = time.monotonic_ns() + 20 * MS
        task = replace(open_loop(server, 1, 150, start_ns=5 * MS), rate=None, stages=stages)
        recorded = await Stream(task).run(epoch_ns)
    due = arrivals.staged(stages, None)
    assert len(due) == 40
    assert (recorded.requests["intended_ns"] - epoch_ns - 5 * MS).tolist() == due.tolist()
    assert answered(recorded).all()


async def test_a_closed_loop_keeps_its_connections_busy_until_the_end() -> None:
    async with serving(answering(OK)) as server:
        epoch_ns = time.monotonic_ns() + 20 * MS
        recorded = await Stream(closed_loop(server, 4, 500)).run(epoch_ns)
    requests = recorded.requests
    assert len(recorded.connections["began_ns"]) == 4
    assert len(requests["done_ns"]) > 8
    assert answered(recorded).all()
    assert requests["intended_ns"].min() >= epoch_ns
    assert requests["intended_ns"].max() < epoch_ns + 500 * MS
    for connection in range(4):
        own = requests["connection"] == connection
        # The next is due when the one before is answered, on each of them.
        assert (requests["intended_ns"][own][1:] >= requests["done_ns"][own][:-1]).all()


@pytest.mark.parametrize(("lasts_ms", "pause_at_s"), [(1_500, 0.2), pytest.param(10_000, 3, marks=pytest.mark.soak)])
async def test_a_stall_shows_in_an_open_loop_and_hides_in_a_closed_one(lasts_ms: int, pause_at_s: float) -> None:
    """10 ms service and one pause of 1 s: what Tene's coordinated omission is about.

    A busy machine may add to any latency and takes from none: how little it adds is held in the soak only.
    """
    service_s, pause_s, rate = 0.01, 1.0, 100
    epoch_ns = time.monotonic_ns() + 50 * MS
    pause_ns, resume_ns = (epoch_ns + round(at_s * S) for at_s in (pause_at_s, pause_at_s + pause_s))

    def stalling(came_ns: list[int]) -> Any:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while await head(reader):
                came_ns.append(now_ns := time.monotonic_ns())
                stall_s = (resume_ns - now_ns) / S if pause_ns <= now_ns < resume_ns else 0
                await asyncio.sleep(service_s + stall_s)
                writer.write(OK)

        return handler

    came_ns: list[int] = []
    async with serving(stalling([])) as one, serving(stalling(came_ns)) as other:
        opened, closed = await asyncio.gather(
            Stream(open_loop(one, rate, lasts_ms)).run(epoch_ns),
            Stream(closed_loop(other, 1, lasts_ms)).run(epoch_ns),
        )
    latency_ms = {
        name: np.sort((recorded.requests["done_ns"] - recorded.requests["intended_ns"]) / MS)
        for name, recorded in (("open", opened), ("closed", closed))
    }
    assert answered(opened).all()
    assert answered(closed).all()
    # Those due in the pause wait for what is left of it, 10 ms less from one to the next, and for their service.
    number, stalled = lasts_ms * rate // 1000, round(pause_s * rate)
    waits_ms = np.arange(stalled, 0, -1) * 1000 / rate
    expected = np.sort(np.r_[np.full(number - stalled, 10.0), 10 + waits_ms])
    assert len(latency_ms["open"]) == number
    added_ms = latency_ms["open"] - expected
    assert added_ms.min() > -1
    for name, share in (("p90", 90), ("p99", 99), ("max", 100)):
        rank = -(-number * share // 100) - 1
        found = report.percentiles(opened.requests["done_ns"] - opened.requests["intended_ns"], number)[name]
        assert found is not None
        assert found / MS == pytest.approx(latency_ms["open"][rank]), name
    # The closed loop has one request in the pause, so that all but one look as if nothing had been.
    assert sum(pause_ns <= came < resume_ns for came in came_ns) <= 1
    share = 90 if lasts_ms < 10_000 else 99
    assert np.percentile(latency_ms["closed"], share) < np.percentile(latency_ms["open"], share)
    if lasts_ms >= 10_000:
        assert added_ms[-stalled:].max() < 60
        assert (latency_ms["closed"] > 100).sum() == 1
        assert latency_ms["closed"][-1] > pause_s * 1000 - 60
        assert np.percentile(latency_ms["closed"], share) < 60


async def test_requests_beyond_the_bound_of_connections_wait_and_their_latency_says_so() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await head(reader):
            await asyncio.sleep(0.05)
            writer.write(OK)

    async with serving(handler) as server:
        recorded = await run(open_loop(server, 100, 200, connections=2))
    requests = recorded.requests
    assert answered(recorded).all()
    assert len(recorded.connections["began_ns"]) == 2
    # 20 requests at two in 50 ms: the last is answered 500 ms after the first was due, at 190 ms it was due itself; and
    # all but the last 50 it waits to be sent.
    assert requests["done_ns"][-1] - requests["intended_ns"][-1] > 290 * MS
    assert requests["sent_ns"][-1] - requests["intended_ns"][-1] > 240 * MS


async def test_requests_that_time_out_before_they_are_sent_are_rows_too() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        await asyncio.sleep(60)

    async with serving(handler) as server:
        began = time.monotonic()
        recorded = await run(open_loop(server, 1000, 100, connections=1, timeout_ns=1000 * MS))
    assert time.monotonic() - began < 30
    assert texts(recorded) == ["timeout"] * 100
    sent = recorded.requests["sent_ns"] != NEVER
    assert sent[0]
    assert not sent.all()
    assert not answered(recorded).any()


async def test_a_refused_connection_is_an_error_of_its_request() -> None:
    async with serving(answering(OK)) as server:
        pass
    recorded = await run(open_loop(server, 50, 100))
    assert texts(recorded) == ["connect_refused"] * 5
    assert set(recorded.requests["sent_ns"]) == {NEVER}
    assert set(recorded.requests["status"]) == {0}


async def test_a_closed_loop_does_not_storm_a_server_that_refuses() -> None:
    async with serving(answering(OK)) as server:
        pass
    recorded = await run(closed_loop(server, 2, 1000))
    assert 6 <= len(texts(recorded)) <= 20  # each ten times a second
    assert set(texts(recorded)) == {"connect_refused"}


@pytest.mark.parametrize("source", ["127.0.0.1", "127.1.2.3"])
async def test_connections_come_from_the_source_address(source: str) -> None:
    seen: list[tuple[str, int]] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(writer.get_extra_info("peername"))
        await answering(OK)(reader, writer)

    async with serving(handler) as server:
        recorded = await run(closed_loop(Destination(server.ip, server.port, (source,)), 3, 500))
    connections = recorded.connections
    assert {ip for ip, _ in seen} == {source}
    assert set(connections["client_ip"]) == {ip_to_int(source)}
    assert sorted(connections["client_port"]) == sorted(port for _, port in seen)
    assert (connections["began_ns"] <= recorded.requests["sent_ns"].min()).all()


async def test_connections_come_from_several_addresses_in_turn() -> None:
    sources = ("127.1.2.3", "127.1.2.4", "127.1.2.5")
    async with serving(answering(OK)) as server:
        task = in_turn(Destination(server.ip, server.port, sources), 100, 70, workload=Workload("x", keep_alive=False))
        recorded = await run(task)
    assert texts(recorded) == [""] * 7
    assert recorded.connections["client_ip"].tolist() == [ip_to_int(sources[number % 3]) for number in range(7)]


async def test_an_address_that_is_not_of_this_machine_is_named() -> None:
    recorded = await run(open_loop(Destination("127.0.0.1", 9, ("192.0.2.1",)), 50, 60))
    assert texts(recorded) == ["no_local_port"] * 3


async def test_the_request_on_the_wire_is_the_workload_with_the_rows_id() -> None:
    heads: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await head(reader):
            heads.append(request + await reader.readexactly(5))
            writer.write(OK)

    workload = Workload("shop.example:8080", "/cart?n=1", "POST", {"Accept": "text/*", "X-A": "b"}, "h\u00e9llo"[:4])
    async with serving(handler) as server:
        recorded = await run(open_loop(server, 50, 60, workload=workload))
    ids = request_ids(7 << 40, 3)
    assert heads == [
        b"POST /cart?n=1 HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent: trafficplane\r\n"
        b"Accept: text/*\r\nX-A: b\r\nContent-Length: 5\r\nX-Request-ID: %016x\r\n\r\nh\xc3\xa9ll" % number
        for number in ids
    ]
    assert workload.size == len(heads[0])
    assert answered(recorded).all()


ANSWERS = {
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked with trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: y\r\n\r\n",
    "no body": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified with a length": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
    "continue first": b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
    "early hints first": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK,
    "error with a body": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("piece", [1, 1000])
async def test_answers_of_every_shape_keep_the_connection(answer: bytes, piece: int) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while await head(reader):
            for start in range(0, len(answer), piece):
                writer.write(answer[start : start + piece])
                await writer.drain()
                await asyncio.sleep(0)

    async with serving(handler) as server:
        recorded = await run(in_turn(server, 50, 80))
    assert texts(recorded) == [""] * 4
    assert set(recorded.requests["status"]) == {int(answer.rpartition(b"HTTP/1.1 ")[2][:3])}
    assert set(recorded.requests["bytes_in"]) == {len(answer)}
    assert len(recorded.connections["began_ns"]) == 1


async def test_head_is_answered_by_a_head_whatever_length_it_announces() -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    async with serving(answering(answer)) as server:
        recorded = await run(in_turn(server, 50, 80, workload=Workload("test", method="HEAD")))
    assert texts(recorded) == [""] * 4
    assert set(recorded.requests["bytes_in"]) == {len(answer)}
    assert len(recorded.connections["began_ns"]) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\nContent-Length: none",
    ],
)
async def test_an_answer_that_ends_its_connection_opens_a_new_one_for_the_next(answer: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(answer)

    async with serving(handler) as server:
        recorded = await run(in_turn(server, 50, 80))
    assert texts(recorded) == [""] * 4
    assert set(recorded.requests["bytes_in"]) == {len(answer)}
    assert set(recorded.requests["attempts"]) == {1}
    assert recorded.requests["connection"].tolist() == [0, 1, 2, 3]


async def test_without_keep_alive_every_request_has_a_connection_of_its_own() -> None:
    heads: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await head(reader):
            heads.append(request)
            writer.write(OK)

    async with serving(handler) as server:
        recorded = await run(in_turn(server, 50, 80, workload=Workload("test", keep_alive=False)))
    assert texts(recorded) == [""] * 4
    assert all(b"\r\nConnection: close\r\n" in request for request in heads)
    assert recorded.requests["connection"].tolist() == [0, 1, 2, 3]


FAILURES = {
    "closed before the answer": (b"", "eof"),
    "closed within the head": (b"HTTP/1.1 200 OK\r\nContent-Le", "eof"),
    "closed within the body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "eof"),
    "closed within the body, as announced": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 9\r\n\r\nok",
        "eof",
    ),
    "closed within a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok", "eof"),
    "closed after an interim answer": (b"HTTP/1.1 100 Continue\r\n\r\n", "eof"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", "protocol"),
    "broken length": (b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok", "protocol"),
    "broken chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "protocol"),
    "a protocol nobody asked for": (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "protocol",
    ),
}


@pytest.mark.parametrize(("answer", "error"), FAILURES.values(), ids=FAILURES.keys())
async def test_what_is_no_whole_answer_is_an_error(answer: bytes, error: str) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(answer)

    async with serving(handler) as server:
        recorded = await run(in_turn(server, 50, 60))
    assert texts(recorded) == [error] * 3
    assert not answered(recorded).any()
    assert set(recorded.requests["bytes_in"]) == {len(answer)}
    assert set(recorded.requests["attempts"]) == {1}


async def test_a_reset_is_told_from_an_end() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async with serving(handler) as server:
        recorded = await run(in_turn(server, 50, 60))
    assert texts(recorded) == ["reset"] * 3


@pytest.mark.parametrize("surplus", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTT", b"junk"])
async def test_a_connection_with_bytes_nobody_asked_for_is_not_used_again(surplus: bytes) -> None:
    async with serving(answering(OK + surplus)) as server:
        recorded = await run(in_turn(server, 50, 80))
    assert texts(recorded) == [""] * 4
    assert recorded.requests["connection"].tolist() == [0, 1, 2, 3]


def closing_after(requests: int, *, linger: bool) -> Any:
    """Takes that many requests of a connection, and answers all but the last."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(requests - 1):
            await head(reader)
            writer.write(OK)
        await head(reader)
        if linger:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    return handler


@pytest.mark.parametrize("linger", [False, True])
async def test_a_kept_connection_that_was_closed_costs_an_idempotent_request_one_more_attempt(linger: bool) -> None:
    async with serving(closing_after(3, linger=linger)) as server:
        recorded = await run(in_turn(server, 50, 120))
    assert texts(recorded) == [""] * 6
    assert recorded.requests["attempts"].tolist() == [1, 1, 2, 1, 2, 1]


async def test_a_request_that_is_not_idempotent_is_sent_once() -> None:
    async with serving(closing_after(3, linger=False)) as server:
        workload = Workload("test", method="POST")
        recorded = await run(in_turn(server, 50, 120, workload=workload))
    assert texts(recorded) == ["", "", "eof"] * 2
    assert set(recorded.requests["attempts"]) == {1}


async def test_a_second_attempt_is_the_last() -> None:
    taken = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        taken += 1
        if taken == 1:
            await head(reader)
            writer.write(OK)
        await head(reader)

    async with serving(handler) as server:
        recorded = await run(in_turn(server, 50, 60))
    assert texts(recorded) == ["", "eof", "eof"]
    assert recorded.requests["attempts"].tolist() == [1, 2, 1]


async def test_an_idle_connection_that_the_server_closes_is_no_error() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(OK)
        await writer.drain()

    async with serving(handler) as server:
        recorded = await run(in_turn(server, 20, 200))
    assert texts(recorded) == [""] * 4
    assert recorded.requests["connection"].tolist() == [0, 1, 2, 3]


async def test_a_stopped_load_ends_soon_and_keeps_what_it_measured() -> None:
    answers = 0

    stalled = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answers
        while await head(reader):
            answers += 1
            if answers > 5:
                stalled.set()
                await asyncio.sleep(60)
            writer.write(OK)

    async with serving(handler) as server:
        stream = Stream(in_turn(server, 100, 60_000))
        running = asyncio.create_task(stream.run(time.monotonic_ns()))
        await asyncio.wait_for(stalled.wait(), PATIENCE_S)
        await asyncio.to_thread(stream.stop)
        recorded = await asyncio.wait_for(running, PATIENCE_S)
    rows = len(texts(recorded))
    assert 6 <= rows < 6000
    assert texts(recorded) == [""] * 5 + ["interrupted"] * (rows - 5)
    assert stream.progress() == Progress(rows, rows, rows - 5)


async def test_a_load_stopped_before_it_began_has_no_rows() -> None:
    stream = Stream(open_loop(Destination("127.0.0.1", 9), 100, 60_000))
    stream.stop()
    recorded = await asyncio.wait_for(stream.run(time.monotonic_ns() + S), PATIENCE_S)
    assert texts(recorded) == []


async def test_the_driver_works_the_same_from_an_address_of_the_plan(plan: AddressPlan) -> None:
    async with serving(answering(OK), plan.vip(9)) as server:
        source = str(plan.pods_of(1)[200])
        recorded = await run(closed_loop(Destination(server.ip, server.port, (source,)), 2, 500))
    assert answered(recorded).all()
    assert set(recorded.connections["client_ip"]) == {ip_to_int(source)}
