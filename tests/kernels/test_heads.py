"""Heads of answers, whole and not, held against what RFC 9112 says of them."""

import numpy as np
import pytest

from kernels.jit import INTERPRETED
from kernels.layout_load import ANSWER, CHUNKED, SIZED, TO_END, WHOLE
from kernels.net import heads

LENGTH_5 = b"Content-Length: 5\r\n"
ANSWERS = {
    "a length": (b"HTTP/1.1 200 OK\r\n" + LENGTH_5, (200, SIZED, 5, 1)),
    "no reason": (b"HTTP/1.1 404\r\n" + LENGTH_5, (404, SIZED, 5, 1)),
    "names in any case, space around": (b"HTTP/1.1 200 OK\r\ncOnTent-LENGTH:\t 5 \r\n", (200, SIZED, 5, 1)),
    "a length of nothing": (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n", (200, WHOLE, 0, 1)),
    "the same length twice": (b"HTTP/1.1 200 OK\r\n" + 2 * LENGTH_5, (200, SIZED, 5, 1)),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", (200, CHUNKED, -1, 1)),
    "chunks before a length": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n" + LENGTH_5, (200, CHUNKED, -1, 1)),
    "another coding": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n" + LENGTH_5, (200, TO_END, -1, 0)),
    "until the end": (b"HTTP/1.1 200 OK\r\n", (200, TO_END, -1, 0)),
    "close": (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n" + LENGTH_5, (200, SIZED, 5, 0)),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n" + LENGTH_5, (200, SIZED, 5, 0)),
    "HTTP/1.0 that keeps": (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + LENGTH_5, (200, SIZED, 5, 1)),
    "no content": (b"HTTP/1.1 204 No Content\r\n", (204, WHOLE, -1, 1)),
    "not modified": (b"HTTP/1.1 304 Not Modified\r\n" + LENGTH_5, (304, WHOLE, 5, 1)),
    "a similar name": (b"HTTP/1.1 200 OK\r\nContent-Lengtz: 9\r\n" + LENGTH_5, (200, SIZED, 5, 1)),
}
BROKEN = {
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "no status": b"HTTP/1.1 OK fine\r\n\r\n",
    "no number": b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n",
    "no digits": b"HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\n",
    "too long a number": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 19 + b"\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    "a line without a colon": b"HTTP/1.1 200 OK\r\nnothing\r\n\r\n",
    "too long a head": b"HTTP/1.1 200 OK\r\nX: " + b"x" * heads.HEAD_BYTES,
}


def scan(data: bytes, *, before: bytes = b"", bodiless: bool = False) -> tuple[int, np.void]:
    """The head between bytes that belong to nobody, in a buffer of its own size."""
    answer = np.zeros(1, ANSWER)
    if INTERPRETED:
        answer = answer.view(np.recarray)  # whose rows have their fields as attributes, as those of compiled code
    buffer = np.frombuffer(before + data + b"\r\n\r\n", np.uint8).copy()
    return int(heads.scan(buffer, len(before), len(before) + len(data), answer[0], bodiless)), answer[0]


@pytest.mark.parametrize(("head", "expected"), ANSWERS.values(), ids=ANSWERS.keys())
def test_what_a_head_says(head: bytes, expected: tuple[int, int, int, int]) -> None:
    for before in (b"", b"\r\n\r"):
        size, answer = scan(head + b"\r\nbody", before=before)
        assert size == len(head) + 2
        assert tuple(int(answer[name]) for name in ("status", "framing", "length", "keep")) == expected


@pytest.mark.parametrize("head", [head for head, _ in ANSWERS.values()], ids=ANSWERS.keys())
def test_a_head_that_is_not_whole_is_not_read(head: bytes) -> None:
    assert {scan((head + b"\r\n")[:end])[0] for end in range(len(head) + 2)} == {0}


@pytest.mark.parametrize("head", BROKEN.values(), ids=BROKEN.keys())
def test_what_is_no_head_is_broken(head: bytes) -> None:
    assert scan(head)[0] == heads.BROKEN


def test_the_answer_to_head_has_no_body() -> None:
    assert scan(b"HTTP/1.1 200 OK\r\n" + LENGTH_5 + b"\r\n", bodiless=True)[1]["framing"] == WHOLE
