"""One load in a process of its own: what the runner makes an actor of.

It is apart from the runner so that such a process imports the driver and nothing of the plane. One thread runs the
load, others answer meanwhile.
"""

import contextlib
import gc
from dataclasses import replace
from pathlib import Path

import uvloop

from harness import clocks, connections, records
from harness.clocks import Reading
from harness.drivers import compiled
from harness.drivers.compiled import CompiledStream
from harness.drivers.stream import Progress, Stream, Task
from harness.journal import Header, Journal
from harness.recorder import Recorded
from harness.tally import Tally, percentiles_of
from kernels.jit import INTERPRETED


def not_compiled(task: Task) -> str:
    """Why compiled code cannot run a load; empty where it can."""
    if INTERPRETED:
        return "compiling is switched off (NUMBA_DISABLE_JIT)"
    if task.destination.tls and not compiled.can_secure():
        return "Python's OpenSSL does not show its functions to compiled code; no session is resumed"
    return ""


class LoadProcess:
    """A load that waits for its start: compiled code runs it, asyncio where that cannot."""

    def __init__(self, task: Task):
        self.take(task)

    def take(self, task: Task) -> None:
        """That load from here on; the one before has ended."""
        self._task = task
        self._tally = Tally()
        reason = not_compiled(task)
        self._stream: Stream | CompiledStream = Stream(task, reason) if reason else CompiledStream(task)

    def ready(self) -> None:
        """Returns once the process is there and has nothing else to do."""
        if isinstance(self._stream, CompiledStream):
            compiled.prepare()
        # What is there by now stays as long as the process: no collection during the run need look at it.
        gc.collect()
        gc.freeze()

    def clock(self) -> Reading:
        """What this process has for a clock, by which all its times are."""
        return clocks.read()

    def run(self, epoch_ns: int, header: Header) -> Recorded:
        """Runs the load in this thread, its rows in a journal meanwhile; see ``Stream.run``."""
        task = self._task
        with contextlib.suppress(OSError):  # the journal says why it can't be written
            header.path.parent.mkdir(parents=True, exist_ok=True)  # on another machine nobody else makes it
        with (
            Journal(header, task.id_key, epoch_ns, task.mix, also=self._tally.add) as journal,
            connections.Journal(header, epoch_ns) as dialled,
        ):
            if isinstance(self._stream, CompiledStream):
                return self._stream.run(epoch_ns, journal.put, dialled.put)
            return uvloop.run(self._stream.run(epoch_ns, journal.put, dialled.put))

    def progress(self) -> Progress:
        counts = self._tally.counts()
        return replace(self._stream.progress(), latency_ns=percentiles_of(counts), counted=counts)

    def stop(self) -> None:
        self._stream.stop()

    def forget(self, folder: Path) -> None:
        """Takes the journals of a run away that are on this machine, and their folder where nothing else is in it."""
        records.forget_journals(folder)
        with contextlib.suppress(OSError):
            folder.rmdir()
