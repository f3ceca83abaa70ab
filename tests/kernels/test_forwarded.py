"""What compiled code makes of what a trusted proxy says of its client is what the asyncio side does, or it is left."""

from typing import Any

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kernels.jit import kernel
from kernels.layout_gateway import CLIENT, GATEWAY_LOOP
from kernels.layout_routes import Heard
from kernels.net import forwarded, http1
from plane.addresses import int_to_ip, ip_to_int
from plane.ingress import fastedge
from plane.ingress.edge import Edge, networks
from plane.ingress.forwarding import Origin, RequestHead

EDGE = Edge(networks("10.0.0.0/8, 127.0.0.1, fd00::/8"))
TRUSTED = fastedge.networks(EDGE)
PEER, PORT = "10.9.9.9", 8080
HOST = "example.com:80"

addresses = st.sampled_from(["10.0.0.1", "127.0.0.1", "192.0.2.7", "8.8.8.8", "0.0.0.0", "255.255.255.255"])
odd = st.sampled_from(
    ["", "10.0.0.01", "10.0.0", "10.0.0.256", "1.2.3.4:5", "fd00::1", "::ffff:10.0.0.1", "a", "10.0.0.1.", "é"]
)
blanks = st.sampled_from(["", " ", "\t ", "  "])
entries = st.tuples(blanks, st.one_of(addresses, addresses, addresses, odd), blanks).map("".join)
lists = st.lists(entries, min_size=1, max_size=5).map(",".join)
fields = st.one_of(
    st.tuples(st.sampled_from(["X-Forwarded-For", "x-forwarded-for"]), lists),
    st.tuples(st.just("X-Forwarded-Proto"), st.sampled_from(["http", "https", "HTTPS", "https, http", "wss", ""])),
    st.tuples(st.just("X-Forwarded-Port"), st.sampled_from(["443", "80", "0443", "443, 80", "65536", "x", ""])),
    st.tuples(st.just("X-Forwarded-Host"), st.sampled_from([HOST, "example.com", "shop.org", ""])),
    st.tuples(st.sampled_from(["Forwarded", "X-Scheme"]), st.just("for=1.2.3.4")),
    st.tuples(st.sampled_from(["X-Real-IP", "Accept"]), st.just("1.2.3.4")),
)


@kernel
def hear(client, loop, trusted, heard, out):
    """What compiled code alone can call."""
    return forwarded.hear(client, loop, trusted, heard, out)


def heard_of(said: list[tuple[str, str]], *, secured: bool) -> tuple[str, bool, bytes] | None:
    """(who sent the request, whether by HTTPS, what the endpoint is told of that), None where it is unusual."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in said)
    raw = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n{lines}\r\n".encode("latin-1")
    data, head, found = np.frombuffer(bytearray(raw), np.uint8), http1.create_heads(1)[0], http1.create_lines()
    assert http1.scan_request(data, 0, len(raw), head, found) == len(raw)
    client: Any = np.zeros(1, CLIENT)[0]
    client["ip"], client["secured"] = ip_to_int(PEER), secured
    loop: Any = np.zeros(1, GATEWAY_LOOP)[0]
    loop["port"] = loop["https_port"] = PORT
    out = np.zeros((2, forwarded.HOP_BYTES), np.uint8)
    if not hear(client, loop, TRUSTED, Heard(data, head, found), out[0]):
        return None
    assert not out[1].any()
    return int_to_ip(int(client["who"])), bool(client["by_https"]), out[0, : client["hop"]].tobytes()


def expected(said: list[tuple[str, str]], *, secured: bool) -> tuple[str, bool, bytes]:
    head = RequestHead([(name.encode(), value.strip(" \t").encode("latin-1")) for name, value in said], trusted=True)
    head.host = HOST.encode()
    origin = Origin(PEER, "https" if secured else "http", PORT, EDGE)
    assert head.asked_host == head.host  # or it had been left
    return origin.client(head), origin.came_by(head) == "https", origin.fields(head) + b"\r\n"


@settings(max_examples=150, deadline=None)
@given(st.lists(fields, max_size=4), st.booleans())
@example([("X-Forwarded-For", "1.2.3.4" + ", 10.0.0.1" * 40)], False)
@example([("X-Forwarded-For", "1.2.3.4" + ",10.0.0.1" * 63)], False)
def test_what_is_taken_is_what_the_asyncio_side_makes_of_it(said: list[tuple[str, str]], secured: bool) -> None:
    found = heard_of(said, secured=secured)
    if found is not None:
        assert found == expected(said, secured=secured)


def test_what_proxies_usually_say_is_taken() -> None:
    usual = [("X-Forwarded-For", "8.8.8.8, 10.0.0.1"), ("X-Forwarded-Proto", "https"), ("X-Forwarded-Port", "443")]
    for said in ([], usual, [*usual, ("X-Forwarded-Host", HOST), ("X-Real-IP", "8.8.8.8")], usual[1:], usual[:1]):
        found = heard_of(said, secured=False)
        assert found == expected(said, secured=False)
        assert found is not None
        assert found[0] == ("8.8.8.8" if usual[0] in said else PEER)
    assert heard_of([("X-Forwarded-For", "odd, 8.8.8.8")], secured=False) is not None  # nobody looks so far


def test_what_takes_more_than_that_is_left() -> None:
    for said in (
        [("X-Forwarded-For", "8.8.8.8")] * 2,
        [("X-Forwarded-For", "8.8.8.8, 10.0.0.1:80")],
        [("X-Forwarded-For", "fd00::1")],
        [("X-Forwarded-For", "8.8.8.8" + ", 10.0.0.1" * 60)],
        [("X-Forwarded-Host", "shop.org")],
        [("X-Forwarded-Proto", "wss")],
        [("X-Forwarded-Port", "http")],
        [("Forwarded", "for=8.8.8.8")],
    ):
        assert heard_of(said, secured=False) is None
