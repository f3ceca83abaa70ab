"""Hellos of real clients, whole, in pieces and broken: what is said of them is what OpenSSL would make of them."""

import ssl

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.layout_tls import HELLO
from kernels.net import hello

GUARD = bytes(range(64))


def greeting(name: str | None, protocols: list[str] | None = None) -> bytes:
    """The first bytes of a client of Python's ssl."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(protocols)
    said = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), said, server_hostname=name).do_handshake()
    return said.read()


def read(data: bytes) -> tuple[int, bytes, bool, bool]:
    """(answer, name, http/1.1 is offered, others are) of bytes behind which are others that nobody may look at."""
    found = np.zeros(1, HELLO)[0]
    memory = np.frombuffer(data + GUARD, np.uint8)[: len(data)]
    answer = int(hello.read(np.concatenate([memory, np.zeros(32768 - len(data), np.uint8)]), len(data), found))
    first = int(found["name"])
    return answer, data[first : first + found["name_size"]], bool(found["http1"]), bool(found["others"])


@pytest.mark.parametrize(
    ("protocols", "http1", "others"),
    [(None, True, False), (["http/1.1"], True, False), (["h2", "http/1.1"], True, True), (["spdy/1"], False, True)],
)
def test_a_hello_says_whom_it_asks_for_and_what_it_would_speak(
    protocols: list[str] | None, http1: bool, others: bool
) -> None:
    assert read(greeting("a.Example", protocols)) == (1, b"a.Example", http1, others)
    assert read(greeting(None, protocols)) == (1, b"", http1, others)


def test_a_part_of_a_hello_wants_more() -> None:
    whole = greeting("a.example", ["http/1.1"])
    assert {read(whole[:size])[0] for size in range(len(whole))} == {0}
    assert read(whole + b"more")[0] == 1


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"\x15\x03\x01\x00\x02", b"\x16\x03\x01\x00\x05\x02\0\0\x01\0"]
)
def test_what_is_no_hello_is_unusual(data: bytes) -> None:
    assert read(data)[0] == hello.UNUSUAL


@given(st.data())
def test_a_broken_hello_is_read_within_its_bytes(draw: st.DataObject) -> None:
    whole = bytearray(greeting("a.example", ["http/1.1"]))
    for _ in range(draw.draw(st.integers(1, 4))):
        whole[draw.draw(st.integers(5, len(whole) - 1))] = draw.draw(st.integers(0, 255))
    answer, name, *_ = read(bytes(whole))
    assert answer in (-1, 0, 1)
    assert len(name) < len(whole)


def test_names_are_found_as_sni_says() -> None:
    def hashed(name: bytes) -> int:
        return int(hello.hash_of(np.frombuffer(name, np.uint8), 0, len(name)))

    hosts = [b"a.foo.com", b"*.foo.com", b"bar.com"]
    names = np.array([0, *sorted(map(hashed, hosts))], np.uint64)

    def found(name: str) -> bytes:
        data = np.frombuffer(greeting(name), np.uint8)
        row = np.zeros(1, HELLO)[0]
        memory = np.zeros(32768, np.uint8)
        memory[: len(data)] = data
        assert hello.read(memory, len(data), row) == 1
        at = int(hello.find(names, memory, row))
        return next((host for host in hosts if at and names[at] == hashed(host)), b"")

    assert found("A.foo.com") == b"a.foo.com"
    assert found("b.foo.com") == b"*.foo.com"
    assert found("c.b.foo.com") == found("foo.com") == found("com") == b""
    assert found("bar.com") == b"bar.com"
    assert found("x.bar.com") == b""
