"""What each process of a run used, second by second: ``resources.arrow``.

Law: counters are the kernel's own and only ever read. CPU time is counted from the start of a process, so that a second
that was missed is not lost. A process that dies and comes back has another pid, and rows of both.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import psutil
import pyarrow as pa

from harness.records import PREFIX, column
from harness.units import NS_PER_S

VERSION = "resources/1"
FILE = "resources.arrow"
EVERY_S = 1.0


SCHEMA = pa.schema(
    [
        column("at_ns", pa.int64(), "ns", "when it was read"),
        column("process", pa.dictionary(pa.int32(), pa.string()), "1", "what runs in it"),
        column("pid", pa.int32(), "1", "its process id"),
        column("cpu_ns", pa.int64(), "ns", "CPU time since it began, user and system, of all its threads"),
        column("rss_bytes", pa.int64(), "By", "resident memory"),
        column("fds", pa.int32(), "1", "open file descriptors"),
    ]
)


@dataclass(frozen=True)
class Sample:
    """A row of SCHEMA; ``at_ns`` since the run's epoch."""

    at_ns: int
    process: str
    pid: int
    cpu_ns: int
    rss_bytes: int
    fds: int


@asynccontextmanager
async def watching(
    find: Callable[[], Awaitable[Mapping[str, int]]], epoch_ns: int, note: Callable[[Sample], object] = lambda _: None
) -> AsyncIterator[list[Sample]]:
    """Reads every second, from the epoch on, while the context lasts; the list grows as it does.

    ``find`` says the pids of processes by name. It is asked first, and again as long as one of those is gone. ``note``
    is given each sample.
    """
    samples: list[Sample] = []
    task = asyncio.create_task(_watch(find, epoch_ns, samples, note))
    try:
        yield samples
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()):
            raise error


def tabulate(samples: Sequence[Sample], run: str) -> pa.Table:
    """The samples of a run under SCHEMA."""
    schema = SCHEMA.with_metadata({PREFIX + "schema": VERSION, PREFIX + "run": run})
    return pa.Table.from_pylist([vars(sample) for sample in samples], schema)


async def _watch(
    find: Callable[[], Awaitable[Mapping[str, int]]],
    epoch_ns: int,
    samples: list[Sample],
    note: Callable[[Sample], object],
) -> None:
    processes = _opened(await find())
    expected = len(processes)
    due_ns = epoch_ns
    finding: asyncio.Task[Mapping[str, int]] | None = None  # beside the readings: a process that is down may not answer
    try:
        while True:
            await asyncio.sleep(max(0, due_ns - time.monotonic_ns()) / NS_PER_S)
            read = {name: _read(name, process, epoch_ns) for name, process in processes.items()}
            for sample in filter(None, read.values()):
                samples.append(sample)
                note(sample)
            processes = {name: process for name, process in processes.items() if read[name] is not None}
            if finding is not None and finding.done():
                processes, finding = _opened(finding.result()), None
            if finding is None and len(processes) < expected:
                finding = asyncio.create_task(_asked(find))
            due_ns += int(EVERY_S * NS_PER_S)
    finally:
        if finding is not None:
            finding.cancel()


async def _asked(find: Callable[[], Awaitable[Mapping[str, int]]]) -> Mapping[str, int]:
    return await find()


def _opened(pids: Mapping[str, int]) -> dict[str, psutil.Process]:
    found = {}
    for name, pid in pids.items():
        try:
            found[name] = psutil.Process(pid)
        except psutil.NoSuchProcess:
            continue
    return found


def _read(name: str, process: psutil.Process, epoch_ns: int) -> Sample | None:
    """None where the process is gone."""
    try:
        with process.oneshot():
            times = process.cpu_times()
            cpu_ns = round((times.user + times.system) * NS_PER_S)
            at_ns = time.monotonic_ns() - epoch_ns
            return Sample(at_ns, name, process.pid, cpu_ns, process.memory_info().rss, process.num_fds())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return None
