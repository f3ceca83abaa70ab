"""Load balancing, each kernel beside the same work in NumPy. A run begins by checking that both answer alike.

``extra_info`` holds what one round works on; where that is flows, also flows a second on one core, from the median.
"""

from typing import Any

import numpy as np
import pytest

from kernels.jit import INTERPRETED, kernel
from kernels.layout import MAGLEV, NEW, TRACKED, Fib, Flows
from kernels.lb import hashing, maglev
from kernels.lb.forward import create_steering, forward, forward_singly
from tests.batches import one_service, random_flows, verdicts_for
from tests.benchmarks.measuring import measure

pytestmark = pytest.mark.skipif(INTERPRETED, reason="compares machine code")

FLOWS = 1 << 20
TRACKED_FLOWS = 100_000
ENDPOINTS = 100
SLOTS = maglev.table_size(ENDPOINTS)

U64 = np.uint64


@pytest.fixture(scope="module")
def flows() -> Flows:
    return random_flows(FLOWS)


@pytest.fixture(scope="module")
def fib() -> Fib:
    return one_service(MAGLEV, ENDPOINTS, slots=SLOTS)


def numpy_mix64(words: np.ndarray) -> np.ndarray:
    words = (words ^ (words >> U64(30))) * U64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> U64(27))) * U64(0x94D049BB133111EB)
    return words ^ (words >> U64(31))


def numpy_hashes(flows: Flows) -> np.ndarray:
    to = flows.dst_ip.astype(U64) << U64(32) | flows.dst_port.astype(U64) << U64(8) | flows.proto
    to = (to ^ (to >> U64(32))) * U64(0xBF58476D1CE4E5B9)
    to ^= to >> U64(32)
    words = numpy_mix64((flows.src_ip.astype(U64) << U64(32) | flows.src_port) ^ to)
    return words | (words == 0)


def numpy_steer(ring: np.ndarray, flows: Flows) -> np.ndarray:
    return ring[(numpy_hashes(flows) >> U64(32)) * U64(len(ring)) >> U64(32)]


def numpy_maglev(seeds: np.ndarray, size: int) -> np.ndarray:
    """Equal weights: permutations in NumPy, turns in Python, for turns depend on one another."""
    order = np.argsort(seeds)
    offset = numpy_mix64(seeds[order]) % U64(size)
    skip = numpy_mix64(seeds[order] + hashing.GOLDEN) % U64(size - 1) + U64(1)
    permutations = ((offset[:, None] + np.arange(size, dtype=U64) * skip[:, None]) % U64(size)).astype(np.int64)
    walks = [iter(row) for row in permutations.tolist()]
    ring = [-1] * size
    names = order.tolist()
    for turn in range(size):
        walk = walks[turn % len(walks)]
        ring[next(slot for slot in walk if ring[slot] < 0)] = names[turn % len(walks)]
    return np.array(ring, np.uint32)


class TestFlowHash:
    pytestmark = pytest.mark.benchmark(group="flowhash")

    def test_kernel(self, benchmark: Any, flows: Flows) -> None:
        out = np.zeros(FLOWS, U64)
        hashing.flow_hashes(flows, out)
        assert np.array_equal(out, numpy_hashes(flows))
        measure(benchmark, lambda: hashing.flow_hashes(flows, out), FLOWS)

    def test_numpy(self, benchmark: Any, flows: Flows) -> None:
        measure(benchmark, lambda: numpy_hashes(flows), FLOWS)


class TestMaglev:
    """Building one ring."""

    pytestmark = pytest.mark.benchmark(group="maglev")
    seeds = np.array([hashing.endpoint_seed(0x7FF40102 + i, 8080, 6) for i in range(ENDPOINTS)], U64)
    weights = np.ones(ENDPOINTS, np.uint16)

    def test_kernel(self, benchmark: Any) -> None:
        assert np.array_equal(maglev.build(self.seeds, self.weights, SLOTS), numpy_maglev(self.seeds, SLOTS))
        benchmark.extra_info.update(endpoints=ENDPOINTS, slots=SLOTS)
        benchmark(maglev.build, self.seeds, self.weights, SLOTS)

    def test_numpy(self, benchmark: Any) -> None:
        benchmark.extra_info.update(endpoints=ENDPOINTS, slots=SLOTS)
        benchmark(numpy_maglev, self.seeds, SLOTS)


class TestSteer:
    """Hash and ring, without memory of flows."""

    pytestmark = pytest.mark.benchmark(group="steer")

    def test_kernel(self, benchmark: Any, flows: Flows, fib: Fib) -> None:
        out = np.zeros(FLOWS, np.uint32)
        maglev.steer(fib.rings, flows, out)
        assert np.array_equal(out, numpy_steer(fib.rings, flows))
        measure(benchmark, lambda: maglev.steer(fib.rings, flows, out), FLOWS)

    def test_numpy(self, benchmark: Any, flows: Flows, fib: Fib) -> None:
        measure(benchmark, lambda: numpy_steer(fib.rings, flows), FLOWS)


@kernel
def forward_one_by_one(fib, steering, flows, verdicts):
    """As the relay's loop does it where connections come singly."""
    for i in range(flows.proto.size):
        one = Flows(
            flows.src_ip[i : i + 1],
            flows.dst_ip[i : i + 1],
            flows.src_port[i : i + 1],
            flows.dst_port[i : i + 1],
            flows.proto[i : i + 1],
        )
        forward_singly(fib, steering, one, i, verdicts)


class TestForward:
    """Frontend, hash and ring for new flows that nobody remembers."""

    pytestmark = pytest.mark.benchmark(group="forward")

    def test_kernel(self, benchmark: Any, flows: Flows, fib: Fib) -> None:
        steering, verdicts = create_steering(fib, 0), verdicts_for(FLOWS)
        forward(fib, steering, flows, 0, verdicts)
        assert np.array_equal(verdicts.backend, numpy_steer(fib.rings, flows))
        measure(benchmark, lambda: forward(fib, steering, flows, 0, verdicts), FLOWS)

    def test_kernel_one_by_one(self, benchmark: Any, flows: Flows, fib: Fib) -> None:
        steering, verdicts = create_steering(fib, 0), verdicts_for(1)
        forward_one_by_one(fib, steering, flows, verdicts)
        assert steering.outcomes[NEW] == FLOWS
        measure(benchmark, lambda: forward_one_by_one(fib, steering, flows, verdicts), FLOWS)

    def test_numpy(self, benchmark: Any, flows: Flows, fib: Fib) -> None:
        rows = fib.frontends[1:]
        known = rows["ip"].astype(U64) << U64(32) | rows["port"].astype(U64) << U64(8) | rows["proto"]

        def work() -> np.ndarray:
            wanted = flows.dst_ip.astype(U64) << U64(32) | flows.dst_port.astype(U64) << U64(8) | flows.proto
            place = np.searchsorted(known, wanted)
            found = known[np.minimum(place, len(known) - 1)] == wanted
            return np.where(found, numpy_steer(fib.rings, flows), 0)

        assert work().all()
        measure(benchmark, work, FLOWS)


class TestConntrack:
    """All of ``forward`` for flows that are known already; in NumPy only their look-up, in a sorted array."""

    @pytest.mark.parametrize("count", [TRACKED_FLOWS, FLOWS])
    def test_kernel(self, benchmark: Any, flows: Flows, fib: Fib, count: int) -> None:
        benchmark.group = f"conntrack: {count:,} flows"
        known, steering, verdicts = (
            Flows(*(row[:count] for row in flows)),
            create_steering(fib, count),
            verdicts_for(count),
        )
        forward(fib, steering, known, 0, verdicts)
        forward(fib, steering, known, 1, verdicts)
        assert steering.outcomes[TRACKED] == count
        assert np.array_equal(verdicts.backend, numpy_steer(fib.rings, known))
        measure(benchmark, lambda: forward(fib, steering, known, 2, verdicts), count)

    @pytest.mark.parametrize("count", [TRACKED_FLOWS, FLOWS])
    def test_numpy(self, benchmark: Any, flows: Flows, fib: Fib, count: int) -> None:
        benchmark.group = f"conntrack: {count:,} flows"
        known = Flows(*(row[:count] for row in flows))
        keys = numpy_hashes(known)
        order = np.argsort(keys)
        keys, backends = keys[order], numpy_steer(fib.rings, known)[order]

        def work() -> np.ndarray:
            return backends[np.searchsorted(keys, numpy_hashes(known))]

        assert np.array_equal(work(), numpy_steer(fib.rings, known))
        measure(benchmark, work, count)
