"""Steering at the sizes of flow mode: a thousand endpoints, a hundred thousand Services, ten million tracked flows.

Beside the kernels stand NumPy, the same in C (gcc -O3 -march=native, compiled here), a copy of as many bytes, and
uhashring, the ketama of Python. Each answer is compared before time is taken; what does the same work takes turns with
the kernel.
"""

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest

from kernels.jit import INTERPRETED
from kernels.layout import BACKEND, FRONTEND, MAGLEV, NEW, RIVALS, TCP, TRACKED, Fib, Flows, Steering, Verdicts, freeze
from kernels.lb import conntrack, hashing, maglev
from kernels.lb.consistent import forward as consistent
from kernels.lb.consistent.tables import Builder
from kernels.lb.forward import create_steering, fingerprint, forward
from kernels.lb.frontends import build_index
from kernels.lb.rings import Rings
from plane.addresses import int_to_ip
from tests.batches import POD, VIP, one_service, random_flows, verdicts_for
from tests.benchmarks.measuring import Work, in_turns, measure
from tests.benchmarks.test_lb import numpy_steer

pytestmark = pytest.mark.skipif(INTERPRETED, reason="compares machine code")

FLOWS = 1 << 20
MANY_FLOWS = 10_000_000
FEW_FLOWS = 2_000
ENDPOINTS, SLOTS = 1_000, 65_537  # of the Maglev paper
SERVICES = 100_000
CONNTRACKS = [1_000_000, 10_000_000]
SOURCE = Path(__file__).parent / "steering.c"


@pytest.fixture(scope="module")
def flows() -> Flows:
    return random_flows(FLOWS)


@pytest.fixture(scope="module")
def fib() -> Fib:
    return one_service(MAGLEV, ENDPOINTS, slots=SLOTS)


@pytest.fixture(scope="module")
def many(fib: Fib) -> Fib:
    """A hundred thousand frontends with the same endpoints."""
    rows = np.zeros(SERVICES + 1, FRONTEND)
    rows["ip"][1:] = VIP + np.arange(SERVICES)
    rows["port"][1:], rows["proto"][1:] = 80, TCP
    rows["inside"][1:] = rows["outside"][1:] = fib.frontends[1]["inside"]
    return fib._replace(frontends=freeze(rows), frontend_index=build_index(rows))


@pytest.fixture(scope="module")
def seeds(fib: Fib) -> np.ndarray:
    found = np.empty(len(fib.backends), np.uint64)
    hashing.endpoint_seeds(fib.backends, found)
    return np.sort(found[1:])


@pytest.fixture(scope="module")
def c(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The functions of steering.c."""
    gcc = shutil.which("gcc")
    if gcc is None:
        pytest.skip("gcc is not there: the comparison with C needs it")
    library = tmp_path_factory.mktemp("c") / "steering.so"
    subprocess.run([gcc, "-O3", "-march=native", "-shared", "-fPIC", "-o", str(library), str(SOURCE)], check=True)
    return ctypes.CDLL(str(library))


def pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class TestHashAndSelect:
    pytestmark = pytest.mark.benchmark(group="flows: hash and Maglev, 1,000 endpoints, 65,537 slots")

    @pytest.fixture
    def flows(self, benchmark: Any) -> Flows:
        return random_flows(FLOWS if benchmark.disabled else MANY_FLOWS)

    @pytest.fixture
    def ours(self, flows: Flows, fib: Fib) -> Work:
        out = np.zeros(len(flows.proto), np.uint32)
        maglev.steer(fib.rings, flows, out)
        assert np.array_equal(out, numpy_steer(fib.rings, flows))
        return lambda: maglev.steer(fib.rings, flows, out)

    def test_kernel(self, benchmark: Any, flows: Flows, ours: Work) -> None:
        measure(benchmark, ours, len(flows.proto))

    def test_c(self, benchmark: Any, flows: Flows, fib: Fib, c: ctypes.CDLL, ours: Work) -> None:
        out = np.zeros(len(flows.proto), np.uint32)
        slots = ctypes.c_uint64(len(fib.rings))
        given = (*map(pointer, flows), ctypes.c_size_t(len(out)), pointer(fib.rings), slots, pointer(out))
        c.steer(*given)
        assert np.array_equal(out, numpy_steer(fib.rings, flows))
        measure(benchmark, lambda: c.steer(*given), len(flows.proto), ours)

    def test_numpy(self, benchmark: Any, flows: Flows, fib: Fib, ours: Work) -> None:
        measure(benchmark, lambda: numpy_steer(fib.rings, flows), len(flows.proto), ours)

    def test_duckdb(self, benchmark: Any, flows: Flows) -> None:
        """Its own hash of the same columns, a slot by it, and the last such slot: on one thread, from Arrow."""
        duckdb = pytest.importorskip("duckdb")
        with duckdb.connect(config={"threads": 1}) as database:
            database.register("flows", pa.table(flows._asdict()))
            sql = f"SELECT max(hash(src_ip, dst_ip, src_port, dst_port, proto) % {SLOTS}) FROM flows"

            def work() -> int:
                return int(database.execute(sql).fetchone()[0])

            assert SLOTS - 100 < work() < SLOTS
            measure(benchmark, work, len(flows.proto))

    def test_copy(self, benchmark: Any, flows: Flows, ours: Work) -> None:
        """What memory allows: the columns of the flows copied, and nothing else."""
        out = Flows(*(np.empty_like(column) for column in flows))

        def work() -> None:
            for source, target in zip(flows, out, strict=True):
                np.copyto(target, source)

        measure(benchmark, work, len(flows.proto), ours)


class TestRivals:
    """The algorithms that maglev is compared with, as ``forward`` has them, and uhashring, key by key."""

    pytestmark = pytest.mark.benchmark(group="flows: forward by other algorithms, 1,000 endpoints")

    @pytest.mark.parametrize("algorithm", range(len(RIVALS)), ids=RIVALS)
    def test_kernel(self, benchmark: Any, flows: Flows, fib: Fib, algorithm: int) -> None:
        count = FEW_FLOWS if RIVALS[algorithm] == "rendezvous" else FLOWS
        some = Flows(*(column[:count] for column in flows))
        rival, steering, verdicts = Builder(algorithm, SLOTS).build(fib), create_steering(fib, 0), verdicts_for(count)
        consistent.forward(fib, rival, steering, some, 0, verdicts)
        assert (verdicts.outcome == NEW).all()
        assert verdicts.backend.min() >= 1
        measure(benchmark, lambda: consistent.forward(fib, rival, steering, some, 0, verdicts), count)

    def test_uhashring(self, benchmark: Any, flows: Flows) -> None:
        uhashring = pytest.importorskip("uhashring")
        ring = uhashring.HashRing([int_to_ip(POD + number) for number in range(ENDPOINTS)], hash_fn="ketama")
        keys = [f"{flows.src_ip[number]}:{flows.src_port[number]}" for number in range(FEW_FLOWS)]

        def work() -> list[str]:
            return [ring.get_node(key) for key in keys]

        assert len(set(work())) > ENDPOINTS // 2
        measure(benchmark, work, FEW_FLOWS)


class TestManyServices:
    """Frontend, pool, hash, ring and counters, with flows to each of 100,000 Services."""

    pytestmark = pytest.mark.benchmark(group="flows: forward over 100,000 Services, not tracked")

    @pytest.fixture
    def spread(self, flows: Flows) -> Flows:
        draw = np.random.default_rng(1)
        return flows._replace(dst_ip=(VIP + draw.integers(0, SERVICES, FLOWS)).astype(np.uint32))

    @pytest.fixture
    def ours(self, spread: Flows, many: Fib) -> Work:
        steering, verdicts = create_steering(many, 0), verdicts_for(FLOWS)
        forward(many, steering, spread, 0, verdicts)
        assert np.array_equal(verdicts.frontend, spread.dst_ip - VIP + 1)
        assert np.array_equal(verdicts.backend, numpy_steer(many.rings, spread))
        return lambda: forward(many, steering, spread, 0, verdicts)

    def test_kernel(self, benchmark: Any, ours: Work) -> None:
        measure(benchmark, ours, FLOWS)

    def test_c(self, benchmark: Any, spread: Flows, many: Fib, c: ctypes.CDLL, ours: Work) -> None:
        """Without policy, conntrack and outcomes."""
        index, ring = many.frontend_index, many.rings
        active, frontend, backend = (np.zeros(size, np.uint32) for size in (len(many.backends), FLOWS, FLOWS))
        tables = pointer(index), ctypes.c_uint64(len(index)), pointer(ring), ctypes.c_uint64(len(ring))
        given = (*map(pointer, spread), ctypes.c_size_t(FLOWS), *tables, *map(pointer, (active, frontend, backend)))
        c.look_up(*given)
        assert np.array_equal(frontend, spread.dst_ip - VIP + 1)
        assert np.array_equal(backend, numpy_steer(many.rings, spread))
        measure(benchmark, lambda: c.look_up(*given), FLOWS, ours)

    def test_numpy(self, benchmark: Any, spread: Flows, many: Fib, ours: Work) -> None:
        known = many.frontends["ip"][1:]

        def work() -> np.ndarray:
            place = np.searchsorted(known, spread.dst_ip)
            found = known[np.minimum(place, len(known) - 1)] == spread.dst_ip
            return np.bincount(np.where(found, numpy_steer(many.rings, spread), 0))

        assert work().sum() == FLOWS
        measure(benchmark, work, FLOWS, ours)


class Known(NamedTuple):
    """Flows that are all tracked, and ``forward`` of all of them once more."""

    flows: Flows
    steering: Steering
    verdicts: Verdicts
    again: Work


@pytest.mark.parametrize("count", CONNTRACKS)
class TestTracked:
    """All of ``forward`` where so many flows are tracked, and each of them comes again."""

    @pytest.fixture
    def known(self, benchmark: Any, fib: Fib, count: int) -> Known:
        if benchmark.disabled:
            pytest.skip("so many flows only where time is measured")
        benchmark.group = f"flows: forward, {count:,} tracked"
        flows, steering, verdicts = random_flows(count), create_steering(fib, count), verdicts_for(count)
        forward(fib, steering, flows, 0, verdicts)
        forward(fib, steering, flows, 1, verdicts)
        assert steering.outcomes[TRACKED] >= count
        return Known(flows, steering, verdicts, lambda: forward(fib, steering, flows, 2, verdicts))

    def test_kernel(self, benchmark: Any, known: Known, count: int) -> None:
        benchmark.extra_info["bytes_a_flow"] = round(known.steering.conntrack.entries.nbytes / count, 1)
        measure(benchmark, known.again, count)

    def test_c(self, benchmark: Any, known: Known, fib: Fib, c: ctypes.CDLL, count: int) -> None:
        """The look-ups alone, in the table that ``forward`` has filled."""
        fingerprints = np.array([fingerprint(row) for row in fib.backends], np.uint32)
        entries, index = known.steering.conntrack.entries, fib.frontend_index
        frontend, backend = np.zeros(count, np.uint32), np.zeros(count, np.uint32)
        idle = -(-int(known.steering.idle_ns[0]) // conntrack.TICK_NS)
        size, until, now = ctypes.c_uint64(len(entries)), ctypes.c_uint64(idle), ctypes.c_uint64(0)
        tables = pointer(index), ctypes.c_uint64(len(index)), pointer(entries), size
        columns = (*map(pointer, known.flows), ctypes.c_size_t(count))
        given = (*columns, *tables, pointer(fingerprints), until, now, pointer(frontend), pointer(backend))
        c.follow.restype = ctypes.c_size_t
        assert c.follow(*given) == count
        assert np.array_equal(backend, known.verdicts.backend)
        assert np.array_equal(frontend, known.verdicts.frontend)
        measure(benchmark, lambda: c.follow(*given), count, known.again)

    def test_memory(self, benchmark: Any, known: Known, c: ctypes.CDLL, count: int) -> None:
        """A random cache line for each flow, of as many as the table has, read and written by C: what memory allows."""
        words = np.ones(known.steering.conntrack.entries.nbytes // 8, np.uint64)
        given = pointer(words), ctypes.c_uint64(len(words) // 8), ctypes.c_size_t(count)
        c.touch.restype = ctypes.c_uint64
        assert c.touch(*given) >= count
        measure(benchmark, lambda: c.touch(*given), count, known.again)


class TestManyRings:
    """A ring of 16,381 slots for each of so many Services of ten endpoints, each where it lies in a Fib."""

    @pytest.mark.parametrize("services", [1_000, 10_000])
    def test_kernel(self, benchmark: Any, services: int) -> None:
        if benchmark.disabled and services > 1_000:
            pytest.skip("so many rings only where time is measured")
        benchmark.group = f"flows: rings of {services:,} Services with 10 endpoints"
        endpoints = np.zeros(10 * services, BACKEND)
        endpoints["ip"], endpoints["port"], endpoints["proto"] = POD + np.arange(10 * services), 8080, TCP
        ids = np.arange(1, 10 * services + 1, dtype=np.uint32).reshape(-1, 10)
        weights = np.ones(10, np.uint16)

        def work() -> Rings:
            rings = Rings()
            for place, own in enumerate(ids):
                rings.hold(own, weights, endpoints[10 * place : 10 * place + 10], 16_381)
            return rings

        assert set(work().table.rows[:16_381]) == set(range(1, 11))
        benchmark(work)


class TestMaglevBuild:
    pytestmark = pytest.mark.benchmark(group="flows: Maglev table of 65,537 slots for 1,000 endpoints")

    def test_kernel(self, benchmark: Any, seeds: np.ndarray) -> None:
        weights = np.ones(ENDPOINTS, np.uint16)
        benchmark(maglev.build, seeds, weights, SLOTS)

    def test_c(self, benchmark: Any, seeds: np.ndarray, c: ctypes.CDLL) -> None:
        ring = np.empty(SLOTS, np.uint32)
        room = np.empty(ENDPOINTS, np.uint32), np.empty(ENDPOINTS, np.uint32)
        given = (pointer(seeds), ctypes.c_uint32(ENDPOINTS), pointer(ring), ctypes.c_uint32(SLOTS), *map(pointer, room))
        c.populate(*given)
        weights = np.ones(ENDPOINTS, np.uint16)
        assert np.array_equal(ring, maglev.build(seeds, weights, SLOTS))
        in_turns(benchmark, lambda: c.populate(*given), lambda: maglev.build(seeds, weights, SLOTS))
