"""The rows of a run on disk while it runs: what is left of one that is killed before it writes its files.

Law: a journal is an Arrow IPC stream under the schema of the file that takes its place, rows in the order in which they
ended; what only a join with the plane's records knows is null. A row is in it at most ``EVERY_S`` after it was put, and
then survives the process, though not the machine. Of a load, a thread of its own converts, compresses and writes, so
that no request waits for it. A journal that can't be written ends its load: rows that nobody would find again are not
measured.
"""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from harness import records
from harness.mix import Mix
from harness.recorder import REQUEST_COLUMNS
from harness.records import Asked, Route
from harness.workload import WHOLE, Share
from plane.errors import PlaneError

EVERY_S = 1.0
BATCH_ROWS = 1 << 14
# The thread that writes gives way to the one that asks, where both share a core.
NICE = 10

_ROUTE = ("route", "service", "pod", "node")
# Takes rows that have ended: columns of ``recorder.Recorded`` and ``number``, by name.
Put = Callable[[Any], None]


class JournalError(PlaneError):
    """A journal can't be written; the text names it and says why."""


@dataclass(frozen=True)
class Header:
    """Where a load's journal is, and what its reader must know: the names of all loads, and the facts of the run.

    Until ``warm_ns`` of the monotonic clock the load warms up. ``share``: of several generators it is that one.
    """

    path: Path
    load: str
    loads: Sequence[str]
    facts: Mapping[str, str]
    warm_ns: int = 0
    share: Share = WHOLE


class Written:
    """What is ``put`` while it is entered is written; leaving it writes the rest. Both raise JournalError.

    What it is put are rows of equal columns by name, of which ``counted`` is one.
    """

    def __init__(self, path: Path, schema: pa.Schema, counted: str):
        self._path = path
        self._schema = schema
        self._counted = counted
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)

    def _batch(self, parts: Sequence[Any]) -> pa.RecordBatch:
        """Under the schema, what was put in so many parts."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._queue.put(None)
        self._thread.join()
        if error is None:
            self._check()

    def put(self, rows: Any) -> None:
        """Rows that have ended, and that nobody changes any more: a structured array, or arrays by name."""
        self._check()
        self._queue.put(rows)

    def _check(self) -> None:
        if self._failed is not None:
            raise JournalError(f"{self._path} can't be written: {self._failed}") from self._failed

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        try:
            with (
                pa.OSFile(str(self._path), "wb") as sink,
                pa.ipc.new_stream(sink, self._schema, options=options) as writer,
            ):
                while parts := self._gathered():
                    writer.write_batch(self._batch(parts))
        except Exception as error:  # whatever it is, ``put`` says it
            self._failed = error

    def _gathered(self) -> list[Any]:
        """What is put until it is a batch, until the first of it has waited long enough, or until the end."""
        parts: list[Any] = []
        rows, until_s = 0, 0.0
        while rows < BATCH_ROWS:
            try:
                part = self._queue.get(timeout=max(0.0, until_s - time.monotonic()) if parts else None)
            except queue.Empty:
                break
            if part is None:
                if parts:
                    self._queue.put(None)  # for the next call to find
                break
            until_s = until_s if parts else time.monotonic() + EVERY_S
            parts.append(part)
            rows += len(part[self._counted])
        return parts


class Journal(Written):
    """The requests of a load."""

    def __init__(self, header: Header, id_key: int, epoch_ns: int, mix: Mix | None = None, also: Put | None = None):
        """``also`` is given, in the thread of the journal, columns of the rows that are written."""
        super().__init__(header.path, records.schema_of(header.facts), "number")
        self._header = header
        self._mix = mix
        self._also = also
        self._id_key = np.uint64(id_key)
        self._epoch_ns = epoch_ns
        asked = self._asked(np.zeros(0, np.int64))
        texts = {"request": asked.request.texts, "url_path": asked.url_path.texts}
        self._dictionaries = records.dictionaries_of(header.loads, {**dict.fromkeys(_ROUTE, ()), **texts})

    def _batch(self, parts: Sequence[Any]) -> pa.RecordBatch:
        columns = {name: np.concatenate([part[name] for part in parts]) for name in ("number", *REQUEST_COLUMNS)}
        if self._also is not None:
            self._also(columns)
        ids = columns["number"].astype(np.uint64) ^ self._id_key
        route = Route.unknown(len(ids))
        asked = self._asked(columns["number"])
        header, names = self._header, self._dictionaries
        return records.batch(
            self._schema, header.load, ids, columns, asked, route, self._epoch_ns, names, header.warm_ns, header.share
        )

    def _asked(self, numbers: np.ndarray) -> Asked:
        return self._mix.asked(numbers) if self._mix else Asked.unknown(len(numbers))


@contextmanager
def noting(path: Path, tabulate: Callable[[Sequence[Any]], pa.Table]) -> Iterator[Callable[[Any], None]]:
    """Takes rows one by one, of which there are few, and writes each at once, in the stream beside the file ``path``.

    ``tabulate`` makes a table of rows. Opening it and a row raise JournalError.
    """
    stream = records.stream_of(path)

    def note(row: Any) -> None:
        try:
            writer.write_table(tabulate([row]))
        except (OSError, pa.ArrowException) as error:
            raise JournalError(f"{stream} can't be written: {error}") from error

    try:
        sink = pa.OSFile(str(stream), "wb")
    except OSError as error:
        raise JournalError(f"{stream} can't be written: {error}") from error
    with sink, pa.ipc.new_stream(sink, tabulate([]).schema) as writer:
        yield note
