"""Requests that nobody has thought of: what reaches an endpoint is what strict llhttp saw in the client's bytes.

Mutations of the rows of ``tests.ingress.smuggling``, cut anywhere, each on a connection of its own.
"""

import asyncio
import contextlib
import re

import httptools
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plane.ingress.timeouts import Timeouts
from tests.ingress.smuggling import LAST, ROWS
from tests.ingress.test_smuggling import Recording, Strict, catching_all, everything
from tests.ingress.wire import Address, Endpoint, running

HASTY = Timeouts(head_s=0.1, body_s=0.1)
WORDS = [
    *(
        b"\r\n",
        b"\r",
        b"\n",
        b"\r\n\r\n",
        b"\n\n",
        b"\0",
        b" ",
        b"\t",
        b"\x0b",
        b"\xa0",
        b"\x85",
        b":",
        b";",
        b",",
        b'"',
    ),
    *(
        b"0",
        b"1",
        b"a",
        b"+",
        b"-",
        b"_",
        b"0x",
        b"0\r\n\r\n",
        b"1\r\nZ\r\n",
        b"ffffffffffffffff",
        b"HTTP/1.0",
        b"chunked",
    ),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n", b"Host: b\r\n"),
    *(b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Expect: 100-continue\r\n"),
    *(
        b"GET /smuggled HTTP/1.1\r\nHost: a.example\r\n\r\n",
        b"Content-Length",
        b"Transfer-Encoding",
        b"http://a.example",
    ),
]
UPGRADE = re.compile(rb"(?i)upgrade:")


@st.composite
def mutated(draw: st.DrawFn) -> list[bytes]:
    """The pieces in which a request or two are sent, of which something is wrong."""
    data = b"".join(draw(st.lists(st.sampled_from([row.sent for row in ROWS]), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        end = start + draw(st.sampled_from([0, 0, 1, 2, 8]))
        word = draw(st.one_of(st.sampled_from(WORDS), st.binary(max_size=2), st.just(data[start:end] * 2)))
        data = data[:start] + word + data[end:]
    data += LAST
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def asked(data: bytes) -> list[str]:
    """The requests that strict llhttp sees before the first fault, with their targets as an endpoint is told them.

    It does not see that one asks for an upgrade, of which it would leave the body to another protocol.
    """
    strict = Strict()
    with contextlib.suppress(httptools.HttpParserError):
        strict.feed(UPGRADE.sub(b"X-grade:", data))
    return [as_told(*request.split(" ", 2)) for request in strict.seen]


def as_told(method: str, target: str, *body: str) -> str:
    told = re.sub("(?i)^https?://[^/?#]*", "", target).partition("#")[0]
    return " ".join((method, told if told.startswith(("/", "*")) else "/" + told, *body))


def hold(vip: str, pod: Address, examples: int) -> None:
    recording = Recording()

    @settings(max_examples=examples, suppress_health_check=[HealthCheck.too_slow])
    @given(mutated())
    def holds(sent: list[bytes]) -> None:
        recording.seen.clear()
        recording.wrong.clear()
        answers = runner.run(everything(here.http, sent, until=b"\r\nConnection: close\r\n"))
        assert re.match(rb"(HTTP/1\.1 [1-5]\d\d |$)", answers)
        assert recording.wrong == []
        seen = [UPGRADE.sub(b"X-grade:", request.encode("latin-1")).decode("latin-1") for request in recording.seen]
        expected = iter(asked(b"".join(sent)))  # of which the ingress answers some itself
        assert all(request in expected for request in seen), (seen, asked(b"".join(sent)))
        found["reached"] += bool(recording.seen)
        found["refused"] += not recording.seen

    found = {"reached": 0, "refused": 0}
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        runner.run(stack.enter_async_context(Endpoint(pod, serve=recording.serve)))
        here = runner.run(stack.enter_async_context(running(vip, catching_all(pod), timeouts=HASTY)))
        try:
            holds()
        finally:
            runner.run(stack.aclose())
    assert min(found.values()) > examples / 20, found


def test_a_mutated_request_never_reaches_an_endpoint_as_another(vip: str, pods: list[Address]) -> None:
    hold(vip, pods[0], 200)


@pytest.mark.soak
def test_a_mutated_request_never_reaches_an_endpoint_as_another_for_long(vip: str, pods: list[Address]) -> None:
    hold(vip, pods[0], 10_000)
