"""Whether what a client has sent ends where its request does, however it is cut."""

from hypothesis import given
from hypothesis import strategies as st

from plane.ingress.reach import Reach

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
BODIES = st.sampled_from([b"", b"\r\n", b"\r\n\r\n", b"a", b"ab\r\n\r\nGET /", b"x" * 30])
NEXT = st.sampled_from([b"", b"", b"P", b"PUT / HTTP/1.1\r\n", b"PUT / HTTP/1.1\r\nHost: a\r\n\r"])
CUTS = st.lists(st.integers(0, 99), max_size=5)


def chunked(body: bytes) -> bytes:
    return HEAD + b"%x\r\n%b\r\n" % (len(body), body) * bool(body) + b"0\r\n\r\n"


@given(st.lists(st.tuples(st.booleans(), BODIES, NEXT, CUTS), max_size=4))
def test_it_is_sure_of_what_ends_there_and_of_nothing_else(
    requests: list[tuple[bool, bytes, bytes, list[int]]],
) -> None:
    reach = Reach()
    for by_length, body, following, cuts in requests:
        sent = (HEAD + body if by_length else chunked(body)) + following
        for first, last in zip([0, *sorted(cuts)], [*sorted(cuts), len(sent)], strict=True):
            reach.note(sent[first:last])
        ends = reach.ends_with(len(body) if by_length else 0)
        assert ends == (not following)
        reach.begin(sure=ends)
        if following:
            break


def test_after_a_doubt_it_is_sure_once_a_request_without_a_body_or_in_chunks_ends() -> None:
    for again in (HEAD, chunked(b"\r\n")):
        reach = Reach()
        reach.note(HEAD + b"PUT / HTTP/1.1\r\n")
        reach.begin(sure=False)
        reach.note(b"Content-Length: 4\r\n\r\n\r\n\r\n")
        assert not reach.ends_with(4)
        reach.begin(sure=False)
        reach.note(again)
        assert reach.ends_with(0)
        reach.begin(sure=True)
        reach.note(HEAD + b"ab")
        assert reach.ends_with(2)
