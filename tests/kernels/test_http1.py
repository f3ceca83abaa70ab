"""Heads and bodies of HTTP/1.1 in compiled code: never taken where strict llhttp refuses, never framed otherwise."""

import contextlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import httptools
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import layout_http as layout
from kernels.layout_http import (
    CANONICAL,
    CHUNKED,
    DONE,
    GET,
    HEAD_METHOD,
    LINES,
    MORE,
    OPTIONS,
    PLAIN,
    REASONS,
    SKIPPED,
    UNTIL_CLOSE,
    Hop,
    Ours,
)
from kernels.net import bodies, requesthead, writing
from plane.ingress import forwarding
from plane.ingress.forwarding import RequestHead
from tests.ingress import smuggling, test_answers
from tests.ingress.smuggling import chunks, said
from tests.ingress.test_mutated_requests import mutated
from tests.ingress.test_smuggling import Strict
from tests.kernels.heads import NO_HOP, NOTHING_OURS, Answer, Reader, Requests, uint8

HOST = "Host: a.example"
CORPUS = Path(__file__).parent / "corpus"
TAKEN = [row.sent for row in smuggling.ROWS if not row.status and row.goes_on]
# Why a head goes the slow way: a head for each reason.
HEADS = {
    "method": said("REPORT /x"),
    "target": said("GET http://a.example/x"),
    "version": said("GET /x", version="HTTP/1.0"),
    "line_end": said("GET /x").replace(b"\r\n", b"\n"),
    "control": said("GET /x", "A: \x00"),
    "name": said("GET /x", "A : b"),
    "host": said("GET /x", host="a b"),
    "length": said("PUT /x", "Content-Length: +1"),
    "coding": said("PUT /x", "Transfer-Encoding: gzip"),
    "two_ends": said("PUT /x", "Transfer-Encoding: chunked", "Content-Length: 1"),
    "unusual_body": said("GET /x", "Content-Length: 1"),
    "connection": said("GET /x", "Connection: upgrade"),
    "expectation": said("PUT /x", "Expect: 100-continue"),
    "switch": said("GET /x", "Upgrade: h2c"),
    "trailers": said("GET /x", "TE: trailers"),
    "proxy": said("GET /x", "Proxy-Connection: keep-alive"),
    "lookalike": said("PUT /x", "Content_Length: 1"),
    "repeated": said("GET /x", "User-Agent: a", "user-agent: b"),
    "too_long": said("GET /x", "A: " + layout.HEAD_BYTES * "b"),
    "too_many": said("GET /x", *LINES * ["A: b"]),
}
# Why an answer, or a body, is broken.
ANSWERS = {"status": b"HTTP/1.1 20 OK\r\n"}
BODIES = {
    "chunk": b"1 \r\n",
    "extension": b"1;\r\n",
    "trailer": b"0\r\nA : b\r\n\r\n",
    "control": b"1;\0",
    "line_end": b"1\n",
    "too_long": b"1;" + layout.LINE_BYTES * b"a",
}


def word(why: int) -> str:
    return REASONS[why][0]


def scanned(data: bytes) -> int:
    reader = Reader()
    reader.more(data)
    return reader.request()


def strict(data: bytes) -> list[str]:
    """The requests that llhttp sees before the first fault."""
    judge = Strict()
    with contextlib.suppress(httptools.HttpParserError):
        judge.feed(data)
    return judge.seen


def holds(pieces: list[bytes]) -> Requests:
    """Read a connection; what is taken is what llhttp sees, and cuts change nothing."""
    whole, cut = Requests(), Requests()
    whole.feed(b"".join(pieces))
    for piece in pieces:
        cut.feed(piece)
    seen = strict(b"".join(pieces))
    assert whole.seen == seen[: len(whole.seen)]
    assert (cut.seen, cut.why > 0) == (whole.seen, whole.why > 0)
    return whole


@pytest.mark.parametrize("row", smuggling.ROWS, ids=[row.description for row in smuggling.ROWS])
def test_what_is_taken_of_a_listed_request_is_what_llhttp_sees(row: smuggling.Row) -> None:
    found = holds([bytes([byte]) for byte in row.sent])
    assert found.seen == list(row.seen)[: len(found.seen)]
    if row.status and not row.waits:
        assert found.why, "the slow way refuses it"


def test_most_of_what_is_no_trick_is_taken() -> None:
    taken = [row.description for row in smuggling.CONNECTIONS if not holds([row.sent]).why and not row.waits]
    assert taken[:3] == ["keep-alive said", "two requests", "three with bodies"]


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(mutated())
def test_what_is_taken_of_a_mutated_request_is_what_llhttp_sees(pieces: list[bytes]) -> None:
    holds(pieces)


@pytest.mark.soak
@settings(max_examples=20_000, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(mutated())
def test_what_is_taken_of_a_mutated_request_is_what_llhttp_sees_for_long(pieces: list[bytes]) -> None:
    holds(pieces)


def holds_found_request(data: bytes) -> None:
    """The first byte says where the rest is cut in two."""
    if data:
        cut, sent = in_two(data)
        holds([sent[:cut], sent[cut:]])


def holds_found_answer(data: bytes) -> None:
    if data:
        cut, sent = in_two(data)
        holds_answer(sent, [cut])


def in_two(data: bytes) -> tuple[int, bytes]:
    return data[0] * (len(data) - 1) // 255, data[1:]


def corpus(kind: str) -> list[bytes]:
    """What ``fuzz_http1`` has found and kept."""
    lines = (CORPUS / f"{kind}.txt").read_text().splitlines()
    return [line.encode().decode("unicode_escape").encode("latin-1") for line in lines]


def test_what_has_been_found_holds() -> None:
    for data in corpus("requests"):
        holds_found_request(data)
    for data in corpus("answers"):
        holds_found_answer(data)


@pytest.mark.parametrize("reason", HEADS)
def test_a_reason_has_its_head(reason: str) -> None:
    assert word(-scanned(HEADS[reason])) == reason


def test_every_reason_is_reached() -> None:
    assert {*HEADS, *ANSWERS, *BODIES, ""} == {name for name, _ in REASONS}


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01", b"PRI", b"GEX", b"get", b"\r\n", b"GET /\n", b"GET /x HTTP/1.1\r\nA\x01"]
)
def test_what_cannot_become_right_is_told_before_it_is_whole(data: bytes) -> None:
    assert scanned(data) < 0


@pytest.mark.parametrize(
    ("head", "fits"),
    [
        (said("GET /" + (layout.TARGET_BYTES - 1) * "x"), True),
        (said("GET /" + layout.TARGET_BYTES * "x"), False),
        (said("GET /", *(LINES - 1) * ["A: b"]), True),
        (said("GET /", *LINES * ["A: b"]), False),
        (said("PUT /", "Content-Length: " + 18 * "9"), True),
        (said("PUT /", "Content-Length: 1" + 18 * "0"), False),
    ],
)
def test_bounds_are_where_they_are_said(head: bytes, fits: bool) -> None:
    assert (scanned(head) == len(head)) == fits


def test_a_head_is_bounded_whether_it_ends_or_not() -> None:
    fits = said("GET /", "A: ")
    fits = said("GET /", "A: " + (layout.HEAD_BYTES - len(fits)) * "b")
    assert scanned(fits) == len(fits) == layout.HEAD_BYTES
    assert scanned(fits[:-2]) == 0
    assert word(-scanned(fits[:-4] + b"b\r\n\r\n")) == word(-scanned(fits[:-4] + 5 * b"b")) == "too_long"


names = st.sampled_from(
    [*layout.FIELD_RULES, "Accept", "Cookie", "X-Request-Id", "A_b", "X", "x-forwarded-fox", "Content-Types", "Dates"]
)
values = st.text(st.sampled_from("a1,;=/\t \x80\xff"), max_size=12).map(lambda text: text.strip("\t "))
fields = st.lists(st.tuples(names, values, st.sampled_from([" ", "", "\t "]), st.sampled_from(["", " \t"])), max_size=8)


@given(
    st.sampled_from(layout.METHODS[1:]), fields, st.integers(0, 2**64 - 1), st.sampled_from(["", "Content-Length: 07"])
)
def test_a_request_is_written_as_the_slow_way_writes_it(
    method: str, others: list[tuple[str, str, str, str]], number: int, framing: str
) -> None:
    lines = [f"{name}:{before}{value}{after}" for name, value, before, after in others]
    sent = said(f"{method} /x?a=b", *lines, *([framing] if framing else []))
    reader = Reader()
    reader.more(sent)
    size = reader.request()
    if size < 0:
        return
    slow = RequestHead(
        [(b"Host", b"a.example"), *((name.encode(), value.encode("latin-1")) for name, value, *_ in others)]
    )
    slow.request_id = slow.request_id or b"%016x" % number
    length = [b"Content-Length: 7"] if framing else [f"Content-Length: {slow.length}".encode()] if slow.length else []
    hop = b"X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1"
    out = np.zeros(8192, np.uint8)
    ours = NO_HOP._replace(forwarding=uint8(hop + b"\r\n"))
    wrote = writing.write_request(out, reader.memory, reader.head, reader.lines, ours, np.uint64(number))
    assert out[:wrote].tobytes() == forwarding.request_bytes(method, "/x?a=b", slow, hop, length)
    request_number = int(requesthead.request_number(reader.memory, reader.head))
    assert request_number in (0, forwarding.request_number(slow.request_id))
    assert bool(reader.head["told"]) == any(name in FROM_PROXIES for name, *_ in others)


FROM_PROXIES = {name for name, (rule, *_) in layout.FIELD_RULES.items() if rule == layout.HEARSAY}


def test_a_request_is_readdressed_and_gets_further_fields() -> None:
    reader = Reader()
    reader.more(said("PUT /x?y", "A: b", "X-Request-ID: 0000000000000fF0", "Transfer-Encoding: chunked"))
    assert reader.request() > 0
    hop = Hop(uint8(b"F: g\r\n"), uint8(b"b.example"), uint8(b"/z"), uint8(b"C: d\r\n"))
    out = np.full(4096, 0x7F, np.uint8)
    size = writing.write_request(out, reader.memory, reader.head, reader.lines, hop, np.uint64(7))
    assert out[:size].tobytes() == (
        b"PUT /z HTTP/1.1\r\nHost: b.example\r\nF: g\r\nX-Forwarded-Host: a.example\r\n"
        b"X-Request-ID: 0000000000000fF0\r\nA: b\r\nC: d\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert requesthead.request_number(reader.memory, reader.head) == 0xFF0
    assert set(out[size:].tolist()) == {0x7F}


def test_a_head_that_does_not_fit_is_none_and_goes_nowhere_else() -> None:
    reader = Reader()
    reader.more(said("GET /x", *(f"{i}:{i}" for i in range(20))))
    assert reader.request() > 0
    out = np.full(512, 0x7F, np.uint8)
    whole = writing.write_request(out, reader.memory, reader.head, reader.lines, NO_HOP, np.uint64(7))
    assert 200 < whole < 400
    for room in range(512):
        out[:] = 0x7F
        size = writing.write_request(out[:room], reader.memory, reader.head, reader.lines, NO_HOP, np.uint64(7))
        assert size == (whole if room >= whole else -1)
        assert set(out[room:].tolist()) == {0x7F}


class TestAnswers:
    # What the slow way takes, because llhttp does, and this does not.
    STRICTER = ("an empty line before it", "HTTP/0.9", "RTSP, which llhttp takes", "and ICE")

    @pytest.mark.parametrize("row", test_answers.ROWS, ids=[row.description for row in test_answers.ROWS])
    def test_an_answer_is_framed_as_llhttp_frames_it(self, row: test_answers.Row) -> None:
        method = HEAD_METHOD if row.request.startswith(b"HEAD") else GET
        reader = Reader()
        status, body, why = read_answer(reader, row.said, method)
        if row.description in self.STRICTER:
            assert word(why) in ("status", "line_end")
        elif row.answer is None or row.answer[0] == 502:
            assert why or status == 101 or not body.endswith(b"!")
        else:
            assert why == 0
            assert (status, body) == row.answer

    @settings(max_examples=300)
    @given(st.data())
    def test_a_mutated_answer_is_never_taken_where_llhttp_refuses_it(self, data: st.DataObject) -> None:
        sent = data.draw(st.sampled_from([row.said for row in test_answers.ROWS if row.request == test_answers.GET]))
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(sent)))
            sent = sent[:at] + data.draw(st.sampled_from(BITS)) + sent[at + data.draw(st.integers(0, 2)) :]
        holds_answer(sent, data.draw(st.lists(st.integers(0, len(sent)), max_size=3)))

    def test_an_answer_ends_the_connection_where_llhttp_says_so(self) -> None:
        sized = "Content-Length: 0"
        closes = [("HTTP/1.0 200 -", [sized]), ("HTTP/1.1 200 -", [sized, "Connection: a, CLOSE"])]
        closes += [("HTTP/1.1 304 -", ["Proxy-Connection: a"]), ("HTTP/1.1 200 -", [])]
        goes_on = [("HTTP/1.0 204 -", ["Connection: Keep-Alive"]), ("HTTP/1.1 200 -", [sized])]
        for rows, kept in ((closes, 0), (goes_on, 1)):
            for start, fields in rows:
                reader = Reader()
                read_answer(reader, test_answers.said(*fields, start=start), GET)
                assert reader.head["keep_alive"] == kept
        reader = Reader()
        interim = test_answers.said("Connection: close", start="HTTP/1.1 103 -")
        assert word(read_answer(reader, interim, GET)[2]) == "connection"

    def test_what_connection_names_is_dropped_but_te(self) -> None:
        reader = Reader()
        fields = "Connection: a , keep-alive,, TE", "A: 1", "AA: 2", "a: 3", "te: 4", "Content-Length: 0"
        assert read_answer(reader, test_answers.said(*fields), GET) == (200, b"", 0)
        assert written(reader, NOTHING_OURS) == b"HTTP/1.1 200 OK\r\nAA: 2\r\nte: 4\r\nContent-Length: 0\r\n\r\n"

    def test_our_fields_are_written_where_the_endpoint_has_none(self) -> None:
        ours = Ours(uint8(b"Date: d\r\n"), uint8(b"Server: s\r\n"), uint8(b"C: d\r\n"))
        reader = Reader()
        read_answer(reader, test_answers.said("A: b", start="HTTP/1.0 200"), GET)
        framed = b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        assert written(reader, ours, keep_alive=False) == (
            b"HTTP/1.1 200 \r\nA: b\r\nC: d\r\nDate: d\r\nServer: s\r\n" + framed
        )
        read_answer(reader, test_answers.said("date: x", "SERVER: y", start="HTTP/1.1 204 -"), GET)
        assert written(reader, ours) == b"HTTP/1.1 204 -\r\ndate: x\r\nSERVER: y\r\nC: d\r\n\r\n"


SMALL = [
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b"0",
    b"1",
    b"\xff",
    b"\r\n\r\n",
    b"HTTP/1.0",
    b"204",
    b"",
]
LINES_OF_FRAMING = [
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: a, close\r\n",
    b"A: b \r\n",
]
BITS = [*SMALL, *LINES_OF_FRAMING, b"close"]


def holds_answer(sent: bytes, cuts: list[int]) -> None:
    """Read an answer; what is taken is what llhttp sees, written as the slow way does, and cuts change nothing."""
    judge, reader = Answer(sent), Reader()
    status, body, why = read_answer(reader, sent, GET)
    if why == 0 and status and status != 101:
        assert (status, judge.reason) == (judge.status, reason_of(reader))
        assert judge.body.startswith(body) or judge.error
        assert not reader.head["keep_alive"] or judge.keep_alive
        assert written(reader, NOTHING_OURS) == slow_answer(judge, reader)
    in_cuts = read_answer(Reader(), sent, GET, cuts)
    assert (in_cuts[:2], in_cuts[2] > 0) == ((status, body), why > 0)


def read_answer(reader: Reader, data: bytes, method: int, cuts: Iterable[int] = ()) -> tuple[int, bytes, int]:
    """(status, body, reason) of the first answer that is not interim; the reader keeps its head."""
    pieces = in_pieces(data, sorted(cuts))
    reader.data = next(pieces)
    while True:
        size = reader.answer(method)
        interim = size > 0 and 100 <= reader.head["status"] < 200 and reader.head["status"] != 101
        if interim:
            reader.leave(size)
        elif size == 0 and (piece := next(pieces, None)) is not None:
            reader.more(piece)
        else:
            break
    if size <= 0:
        return 0, b"", -size
    reader.leave(size)
    bodies.begin(reader.body, reader.head, PLAIN)
    answer, body = reader.take()
    for piece in pieces:
        reader.more(piece)
        if answer == MORE:
            answer, more = reader.take()
            body += more
    return int(reader.head["status"]), body, max(0, -answer)


def reason_of(reader: Reader) -> bytes:
    first = 3 + reader.head["reason"]
    return reader.memory[first : first + reader.head["reason_size"]].tobytes()


def written(reader: Reader, ours: Ours, *, keep_alive: bool = True) -> bytes:
    out = np.zeros(8192, np.uint8)
    size = writing.write_response(out, reader.memory, reader.head, reader.lines, ours, keep_alive)
    return out[:size].tobytes()


def slow_answer(judge: Answer, reader: Reader) -> bytes:
    """The head as ``plane.ingress`` writes it: ``Connection.on_header`` and ``Http1.answer``."""
    lines = [name + b": " + value for name, value in judge.fields if name.lower() not in forwarding.ANSWER_FIELDS]
    named = set[bytes]().union(
        *(forwarding.tokens(value) for name, value in judge.fields if name.lower() == b"connection")
    )
    if named - {b"keep-alive", b"close"}:
        lines = forwarding.without(lines, named)
    lengths = [int(value) for name, value in judge.fields if name.lower() == b"content-length"]
    if reader.head["framing"] in (CHUNKED, UNTIL_CLOSE):
        lines.append(b"Transfer-Encoding: chunked")
    elif lengths and judge.status != 204:
        lines.append(b"Content-Length: %d" % lengths[0])
    return b"\r\n".join((forwarding.status_line(judge.status, judge.reason), *lines, b"", b""))


class TestBodies:
    pieces = st.lists(st.binary(min_size=1, max_size=40), max_size=5)
    extensions = st.sampled_from(["", ";a", ";a=b", ';a="b c";d', ';a="\\"\\\\"'])
    trailers = st.sampled_from(["", "A: b\r\n", "A:\r\nB: c\r\n"])

    @given(pieces, st.lists(extensions, min_size=6, max_size=6), trailers, st.lists(st.integers(0, 400), max_size=9))
    def test_chunks_are_reframed(self, parts: list[bytes], said: list[str], trailers: str, cuts: list[int]) -> None:
        sent, expected = b"", b""
        for part, extension in zip(parts, said, strict=False):
            sent += b"00%X%b\r\n%b\r\n" % (len(part), extension.encode(), part)
            expected += b"%x\r\n%b\r\n" % (len(part), part)
        sent += b"000" + said[-1].encode() + b"\r\n" + trailers.encode() + b"\r\n"
        wanted = {CANONICAL: expected + b"0\r\n\r\n", PLAIN: b"".join(parts), SKIPPED: b""}
        for mode, goes_on in wanted.items():
            answers, produced, reader = in_cuts(sent + b"GET /next", cuts, mode)
            assert produced == goes_on
            assert answers[-1] == DONE
            assert reader.data == b"GET /next"
            assert reader.body["content"] == sum(map(len, parts))

    @settings(max_examples=300)
    @given(st.data(), st.lists(st.integers(0, 200), max_size=6))
    def test_a_mutated_body_is_never_taken_where_llhttp_refuses_it(self, data: st.DataObject, cuts: list[int]) -> None:
        head = chunks("")
        sent = data.draw(st.sampled_from(CODED))
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(sent)))
            sent = sent[:at] + data.draw(st.sampled_from(MORE_BITS)) + sent[at + data.draw(st.integers(0, 2)) :]
        answers, produced, reader = in_cuts(sent, sorted(cuts), PLAIN)
        if answers[-1] == DONE:
            judge = strict(head + sent)
            assert judge[:1] == [("PUT /x " + produced.decode("latin-1")) if produced else "PUT /x"]
            assert strict(head + sent[: len(sent) - len(reader.data)]) == judge[:1]

    @pytest.mark.parametrize("reason", BODIES)
    def test_a_reason_has_its_body(self, reason: str) -> None:
        answers, _, _ = in_cuts(BODIES[reason], [], CANONICAL)
        assert word(-answers[-1]) == reason

    def test_a_length_is_counted_to_the_byte(self) -> None:
        reader = Reader()
        reader.more(smuggling.length("5"))
        reader.leave(reader.request())
        bodies.begin(reader.body, reader.head, CANONICAL)
        reader.more(b"hel")
        assert reader.take() == (MORE, b"hel")
        reader.more(b"loGET")
        assert reader.take() == (DONE, b"lo")
        assert reader.data == b"GET"
        assert reader.take() == (DONE, b"")

    def test_trailers_have_an_end(self) -> None:
        trailer = b"A: " + 1000 * b"b" + b"\r\n"
        answers, _, _ = in_cuts(b"0\r\n" + 20 * trailer, [], CANONICAL)
        assert word(-answers[-1]) == "trailer"


CODED = [row.sent.partition(b"\r\n\r\n")[2] for row in smuggling.CODINGS]
MORE_BITS = [
    *BITS,
    b";",
    b";a",
    b'"',
    b"=",
    b"\\",
    b"a",
    b"F",
    b"_",
    b"+",
    b"0\r\n\r\n",
    b"ffffffffffffffff",
    b"A: b\r\n",
]


def in_cuts(data: bytes, cuts: list[int], mode: int) -> tuple[list[int], bytes, Reader]:
    """(what each call answered, all that goes on, the reader) of a chunked body that comes in pieces."""
    reader = Reader()
    reader.more(chunks(""))
    reader.leave(reader.request())
    bodies.begin(reader.body, reader.head, mode)
    answers, produced = [], b""
    for piece in in_pieces(data, sorted(cuts)):
        reader.more(piece)
        answer, part = reader.take() if not answers or answers[-1] == MORE else (answers[-1], b"")
        answers.append(answer)
        produced += part
    return answers, produced, reader


def in_pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    ends = [min(cut, len(data)) for cut in cuts]
    for start, end in zip([0, *ends], [*ends, len(data)], strict=True):
        yield data[start:end]


def test_a_name_is_known_in_any_case_and_no_other_is() -> None:
    for name, (rule, argument, _) in layout.FIELD_RULES.items():
        for spelled in (name, name.upper(), name.title()):
            found = scanned(said("PUT /x", f"{spelled}: @"))
            assert (found < 0) == (
                rule not in (layout.PASS, layout.DROP, layout.HEARSAY, layout.ONCE, layout.OF_REQUEST_ID)
            )
            assert rule != layout.REFUSE or -found == argument
        assert scanned(said("PUT /x", f"{name}x: @", f"x{name}: @")) > 0


def test_the_first_method_and_the_last_are_known() -> None:
    for method in range(GET, OPTIONS + 1):
        reader = Reader()
        reader.more(said(f"{layout.METHODS[method]} /x?y?z", "Connection: Close"))
        assert reader.request() > 0
        head = reader.head
        assert (head["method"], head["path_size"], head["target_size"], head["keep_alive"]) == (method, 2, 6, 0)


def test_no_reason_has_two_words() -> None:
    words = [name for name, _ in REASONS]
    assert len(set(words)) == len(words)
    assert all(re.fullmatch("[a-z_]*", name) for name in words)


def test_the_docs_list_every_reason_and_where_it_is_met() -> None:
    page = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text()
    text, _, _ = page.partition("\n## Which routes are taken\n")
    cells = [line.strip("| ").replace("| |", "||").split("|") for line in text.splitlines() if line.startswith("| `")]
    listed = [(row[0].strip("` "), row[1].strip()) for row in cells]
    assert listed == list(REASONS[1:])
    met = {row[0].strip("` "): [cell.strip() for cell in row[2:]] for row in cells}
    for reason, (request, answer, body) in ((name, [*marks, "", ""][:3]) for name, marks in met.items()):
        assert (request == "yes") == (reason in HEADS)
        assert reason not in ANSWERS or answer == "yes"
        assert (body == "yes") == (reason in BODIES)
