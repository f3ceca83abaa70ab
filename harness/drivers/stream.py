"""One load from its first request to its last: what an actor of the runner, or a test, runs.

Law: ``run`` ends by itself. Its last request is due before the duration is over, and none outlives its timeout.
"""

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from harness import arrivals
from harness.arrivals import Slope
from harness.drivers.busy import Busy
from harness.drivers.http import Client, Destination
from harness.drivers.pace import ClosedLoop, OpenLoop
from harness.journal import JournalError, Put
from harness.mix import Mix
from harness.recorder import Generator, Recorded, Recorder
from harness.units import NS_PER_S, format_rate
from harness.workload import WHOLE, Share
from plane.descriptors import allow_descriptors

# Descriptors a process needs beside the connections of its load.
OTHER_DESCRIPTORS = 256
PUT_EVERY_S = 0.2
# Rates that a line has room for.
STAGES_SHOWN = 3


@dataclass(frozen=True)
class Task:
    """All that a driver needs to know of a load; times in ns from the start of the run.

    ``rate``, or rates in ``stages``, make an open loop of at most ``connections`` connections; without, it is a closed
    loop of exactly as many. Arrivals of an open loop are Poisson's where ``poisson`` is their seed, else at equal
    distances. ``replayed``, int64[n], are those of a log, and ``pace`` what it is and how fast. ``share``: it is that
    part of a load, by which the rate and all due times are those of the whole; connections and mix are its own.
    """

    destination: Destination
    mix: Mix
    rate: Fraction | None
    connections: int
    start_ns: int
    duration_ns: int
    timeout_ns: int
    id_key: int
    poisson: tuple[int, ...] | None = None
    stages: tuple[Slope, ...] = ()
    replayed: np.ndarray | None = None
    pace: str = ""
    share: Share = WHOLE

    @property
    def opened(self) -> bool:
        return self.rate is not None or bool(self.stages) or self.replayed is not None

    @property
    def mean_rate(self) -> float | None:
        """Of an open loop, requests per second."""
        if self.replayed is not None:
            return len(self.replayed) * NS_PER_S / self.duration_ns
        if self.stages:
            return float(sum(stage.requests for stage in self.stages)) * NS_PER_S / self.duration_ns
        return None if self.rate is None else float(self.rate)

    @property
    def text(self) -> str:
        """How requests come, for people."""
        if not self.opened:
            return f"{self.connections} connection" + ("s" if self.connections > 1 else "")
        if self.pace:
            return self.pace
        rates = [stage.text for stage in self.stages] or [format_rate(float(self.rate or 0))]
        text = ", ".join(rates) if len(rates) <= STAGES_SHOWN else f"{len(rates)} stages"
        return text + (" (Poisson)" if self.poisson else "")

    def due(self, start_ns: int) -> np.ndarray | None:
        """When requests of an open loop are due that begins at ``start_ns``, int64[n]; None: it is a closed loop."""
        if self.replayed is not None:
            due_ns = self.replayed
        elif self.stages:
            due_ns = arrivals.staged(self.stages, self.poisson)
        elif self.rate:
            due_ns = arrivals.schedule(self.rate, self.duration_ns, self.poisson)
        else:
            return None
        return start_ns + due_ns[self.share.place :: self.share.of]


@dataclass(frozen=True)
class Progress:
    """How far a load is: requests that were due, that ended, and that ended badly.

    ``latency_ns``: lately, as ``harness.tally.percentiles_of`` has it of ``counted``, if anybody counts.
    """

    scheduled: int = 0
    done: int = 0
    errors: int = 0
    latency_ns: Mapping[str, int | None] = field(default_factory=dict)
    counted: Mapping[int, int] = field(default_factory=dict)


class Stream:
    """A load that runs in the event loop of whoever awaits ``run``; ``progress`` and ``stop`` are for any thread."""

    def __init__(self, task: Task, reason: str = ""):
        """``reason``: why it is not compiled code that runs it."""
        self._task = task
        self._reason = reason
        self._started = threading.Lock()
        self._stopped = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._client: Client | None = None

    async def run(self, epoch_ns: int, put: Put | None = None, dialled: Put | None = None) -> Recorded:
        """Runs the load, whose times count from ``epoch_ns`` of the monotonic clock, and returns all its rows.

        ``put`` is given the rows that have ended, every now and then and at the end, and ``dialled`` connections that
        have come about. Raises whatever an error of the driver itself was; what the subject does wrong is in the rows.
        """
        task = self._task
        start_ns = epoch_ns + task.start_ns
        allow_descriptors(task.connections + OTHER_DESCRIPTORS)
        record = Recorder(task.due(start_ns))
        self._under_way = 0
        self._ended_rows: list[int] = []
        self._all_sent = False
        self._over = asyncio.Event()
        self._broken: BaseException | None = None
        client = Client(
            task.destination,
            task.mix,
            record,
            id_key=task.id_key,
            timeout_ns=task.timeout_ns,
            max_connections=task.connections,
            ended=self._ended,
        )
        self._send_row = client.send
        self._pace: OpenLoop | ClosedLoop
        if task.opened:
            self._pace = OpenLoop(record, self._send, self._sent)
        else:
            end_ns = start_ns + task.duration_ns
            self._pace = ClosedLoop(
                record, self._send, self._sent, connections=task.connections, start_ns=start_ns, end_ns=end_ns
            )
        self._client = client
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._failed)
        busy = Busy()
        putting = loop.create_task(self._put_all(record, put, dialled)) if put or dialled else None
        try:
            with self._started:
                self._loop = loop
                if not self._stopped:
                    self._pace.start()
            if not self._stopped:
                await self._over.wait()
        finally:
            with self._started:
                self._loop = None
            self._pace.stop()
            client.close()
            if putting:
                putting.cancel()
            loop.set_exception_handler(None)
        if self._broken is not None:
            raise self._broken
        self._put_ended(record, put, dialled)
        late, latest_ns = self._pace.late, self._pace.latest_ns
        return record.recorded(Generator("asyncio", late, latest_ns, busy.share(), reason=self._reason))

    def progress(self) -> Progress:
        if self._client is None:
            return Progress()
        return Progress(self._pace.sent, self._client.done, self._client.errors)

    def stop(self) -> None:
        """Ends the load soon: what is under way is interrupted, what is not due yet is no row."""
        with self._started:
            self._stopped = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._over.set)

    async def _put_all(self, record: Recorder, put: Put | None, dialled: Put | None) -> None:
        while True:
            await asyncio.sleep(PUT_EVERY_S)
            try:
                self._put_ended(record, put, dialled)
            except JournalError as error:
                self._broken = error
                self._over.set()

    def _put_ended(self, record: Recorder, put: Put | None, dialled: Put | None) -> None:
        """What has ended and come about since the last time."""
        ended, self._ended_rows = self._ended_rows, []
        if put and ended:
            put(record.numbered(ended))
        made = record.made()
        if dialled and len(made["connection"]):
            dialled(made)

    def _send(self, row: int) -> None:
        self._under_way += 1
        self._send_row(row)

    def _ended(self, row: int, answered: bool) -> None:
        self._under_way -= 1
        self._ended_rows.append(row)
        self._pace.ended(row, answered)
        if self._all_sent and not self._under_way:
            self._over.set()

    def _sent(self) -> None:
        self._all_sent = True
        if not self._under_way:
            self._over.set()

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError):  # a connection that broke in an unusual way: its row says so
            return
        self._broken = error or RuntimeError(context["message"])
        self._over.set()
