"""The hashes: fixed for ever, equal to their twins, well mixed."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.layout import Flows, freeze
from kernels.layout_ipv6 import BACKEND6
from kernels.lb import hashing
from plane.addresses import ip_to_int
from plane.families import IPV6, halves, ipv6
from tests import reference
from tests.batches import flows_of, random_flows

GOLDEN_FLOWS = {
    ("0.0.0.0", "0.0.0.0", 0, 0, 0): 0x0000000000000001,
    ("127.244.1.2", "127.96.1.1", 40000, 80, 6): 0x53D7A18A58E9B012,
    ("127.244.1.2", "127.96.1.1", 40001, 80, 6): 0x55E716B465356E01,
    ("127.244.1.2", "127.96.1.1", 40000, 80, 17): 0x2BACC4AF543021C1,
    ("127.96.1.1", "127.244.1.2", 80, 40000, 6): 0xA24AF3254F160ED3,
    ("255.255.255.255", "255.255.255.255", 65535, 65535, 255): 0xEB5BEB086152B7E3,
}

ips = st.integers(0, (1 << 32) - 1)
ports = st.integers(0, (1 << 16) - 1)
protos = st.integers(0, 255)
tuples = st.tuples(ips, ips, ports, ports, protos)


def hashes(flows: Flows) -> np.ndarray:
    out = np.zeros(len(flows.proto), np.uint64)
    hashing.flow_hashes(flows, out)
    return out


@pytest.mark.parametrize(("flow", "expected"), GOLDEN_FLOWS.items(), ids=str)
def test_flow_hash_golden_vectors(flow: tuple[str, str, int, int, int], expected: int) -> None:
    assert int(hashing.flow_hash(ip_to_int(flow[0]), ip_to_int(flow[1]), *flow[2:])) == expected


def test_frontend_and_endpoint_golden_vectors() -> None:
    assert int(hashing.frontend_hash(ip_to_int("127.96.1.1"), 80, 6)) == 0x0150973C8905341F
    assert int(hashing.endpoint_seed(ip_to_int("127.244.1.2"), 8080, 6)) == 0x649C038C35F7DDFA


def test_mixer_is_splitmix64_by_its_published_sequence() -> None:
    with np.errstate(over="ignore"):
        states = [np.uint64(1234567) + np.uint64(step) * hashing.GOLDEN for step in range(1, 6)]
    assert [int(hashing.mix64(state)) for state in states] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


@settings(deadline=None)
@given(st.lists(tuples, max_size=20))
def test_batch_hash_equals_twin(rows: list[reference.Flow]) -> None:
    assert hashes(flows_of(rows)).tolist() == [reference.flow_hash(row) for row in rows]


GOLDEN_FLOWS6 = {
    ("::", "::", 0, 0, 0): 0xEF845A1478CE3D76,
    ("2001:db8::1", "fd00:10:96::1", 40000, 80, 6): 0xEE173D2D1BE5B4EF,
    ("fd00:10:96::1", "2001:db8::1", 80, 40000, 6): 0x7C8124F6B245E4AE,
    ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::1", 65535, 65535, 255): 0x9085542B4E90320D,
}
words = st.integers(0, (1 << 64) - 1)
tuples6 = st.tuples(st.tuples(words, words), st.tuples(words, words), ports, ports, protos)


@pytest.mark.parametrize(("flow", "expected"), GOLDEN_FLOWS6.items(), ids=str)
def test_flow_hash_golden_vectors_of_ipv6(flow: tuple[str, str, int, int, int], expected: int) -> None:
    row = (*(halves(ipv6(text)) for text in flow[:2]), *flow[2:])
    assert hashes(flows_of([row], IPV6)).tolist() == [reference.flow_hash(row)] == [expected]


@settings(deadline=None)
@given(st.lists(tuples6, max_size=20))
def test_batch_hash_of_ipv6_equals_twin(rows: list[reference.Flow]) -> None:
    assert hashes(flows_of(rows, IPV6)).tolist() == [reference.flow_hash(row) for row in rows]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.tuples(words, words), ports, protos), max_size=5))
def test_endpoint_seeds_of_ipv6_equal_twins(rows: list[tuple[tuple[int, int], int, int]]) -> None:
    backends = np.array([(ip, port, 1, 0, proto, 1) for ip, port, proto in rows], BACKEND6)
    seeds = np.zeros(len(rows), np.uint64)
    hashing.endpoint_seeds(freeze(backends), seeds)
    assert seeds.tolist() == [reference.endpoint_seed(*row) for row in rows]


@settings(deadline=None)
@given(ips, ports, protos)
def test_frontend_and_endpoint_hash_equal_twins(ip: int, port: int, proto: int) -> None:
    assert int(hashing.frontend_hash(ip, port, proto)) == reference.frontend_hash(ip, port, proto)
    assert int(hashing.endpoint_seed(ip, port, proto)) == reference.endpoint_seed(ip, port, proto)


@pytest.mark.parametrize("kind", [int, np.uint32, np.int64, np.uint64])
def test_hash_does_not_depend_on_the_type_of_integer(kind: type) -> None:
    row = (ip_to_int("127.244.1.2"), ip_to_int("127.96.1.1"), 40000, 80, 6)
    assert int(hashing.flow_hash(*map(kind, row))) == reference.flow_hash(row)


def test_no_flow_hashes_to_zero() -> None:
    # mix64 is a bijection that keeps 0, so a client that cancels the word of where it goes would hash to 0. It can
    # where the 16 bits of that which nothing of a client falls to are 0.
    ip = next(ip for ip in itertools.count(1) if not reference.destination(ip, 80, 6) & 0xFFFF0000)
    place = reference.destination(ip, 80, 6)
    row = (place >> 32, ip, place & 0xFFFF, 80, 6)
    assert int(hashing.flow_hash(*row)) == 1 == reference.flow_hash(row)


@pytest.mark.parametrize("half", ["high", "low"])
@pytest.mark.parametrize("column", ["src_ip", "dst_ip"])
def test_every_bit_of_an_address_of_ipv6_flips_each_output_bit_half_of_the_time(column: str, half: str) -> None:
    flows = random_flows(2000, family=IPV6)
    before, bits = hashes(flows), np.uint64(1) << (np.arange(2000, dtype=np.uint64) % np.uint64(64))
    changed = getattr(flows, column).copy()
    changed[half] ^= bits  # each of the 64 in turn
    flipped = before ^ hashes(flows._replace(**{column: changed}))
    rates = np.array([np.mean((flipped >> np.uint64(place)) & np.uint64(1)) for place in range(64)])
    assert np.abs(rates - 0.5).max() < 0.06


@pytest.mark.parametrize(
    ("column", "bit"),
    [(0, 0), (0, 31), (1, 0), (1, 31), (2, 0), (2, 15), (3, 0), (3, 15), (4, 0), (4, 4), (4, 7)],
)
def test_flipping_an_input_bit_flips_each_output_bit_half_of_the_time(column: int, bit: int) -> None:
    flows = random_flows(2000)
    changed = list(flows)
    changed[column] = changed[column] ^ changed[column].dtype.type(1 << bit)
    flipped = hashes(flows) ^ hashes(Flows(*changed))
    rates = np.array([np.mean((flipped >> np.uint64(place)) & np.uint64(1)) for place in range(64)])
    assert np.abs(rates - 0.5).max() < 0.06  # 5 standard deviations of 2000 draws


@pytest.mark.parametrize("shift", [0, 24, 56], ids=["low byte", "middle byte", "high byte"])
def test_neighbouring_ports_and_addresses_spread_evenly(shift: int) -> None:
    rows = [(0x7FF40102 + i % 8, 0x7F600101, 32768 + i // 8, 80, 6) for i in range(16 * 256)]
    places = (hashes(flows_of(rows)) >> np.uint64(shift)).astype(np.uint8)
    counts = np.bincount(places, minlength=256)
    chi_square = ((counts - 16) ** 2 / 16).sum()
    assert 160 < chi_square < 370  # 255 degrees of freedom, about 4.5 standard deviations each way


@settings(deadline=None)
@given(st.integers(0, (1 << 64) - 1), st.integers(1, (1 << 32) - 1))
def test_reduce_stays_below_size_and_equals_twin(word: int, size: int) -> None:
    place = int(hashing.reduce(np.uint64(word), size))
    assert place == reference.scale(word, size)
    assert 0 <= place < size
