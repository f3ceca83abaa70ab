"""When the next request of a load is sent: open loop by the schedule, closed loop by the answers.

Law: a request that is due is handed over, whatever the subject does. If the driver itself was late the request is late,
and its latency says so, because it counts from the time it was due; it is never left out (coordinated omission).
"""

import asyncio
import time
from collections.abc import Callable

from harness.drivers.timer import Timer
from harness.recorder import Recorder

# A closed loop against a subject that fails would ask again at once, as fast as it is refused. Each of its connections
# waits this long after a request without an answer, so that an outage is seen and not amplified.
PAUSE_AFTER_FAILURE_S = 0.1
LATE_NS = 1_000_000


class OpenLoop:
    """Sends the rows that the recorder holds already, each when it is due."""

    def __init__(self, record: Recorder, send: Callable[[int], None], over: Callable[[], None]):
        self.sent = 0
        self.late = 0
        self.latest_ns = 0
        self._record = record
        self._send = send
        self._over = over
        self._timer = Timer(asyncio.get_running_loop(), self._due)

    def start(self) -> None:
        self._next()

    def ended(self, row: int, answered: bool) -> None:
        """An answer changes nothing: that is what makes the loop open."""

    def stop(self) -> None:
        """What is not due yet will not be; its rows are forgotten."""
        self._timer.close()
        self._record.truncate(self.sent)

    def _due(self) -> None:
        now = time.monotonic_ns()
        intended = self._record.intended
        rows = self._record.rows
        row = self.sent
        while row < rows and intended[row] <= now:
            late_ns = now - intended[row]
            self.late += late_ns > LATE_NS
            self.latest_ns = max(self.latest_ns, late_ns)
            self.sent = row + 1
            self._send(row)
            row += 1
        self._next()

    def _next(self) -> None:
        if self.sent < self._record.rows:
            self._timer.arm(self._record.intended[self.sent])
        else:
            self._timer.close()
            self._over()


class ClosedLoop:
    """Keeps as many requests under way as there are connections: each answer makes the next request due.

    None is late, because each is due when the one before it is seen to be answered.
    """

    late = 0
    latest_ns = 0

    def __init__(
        self,
        record: Recorder,
        send: Callable[[int], None],
        over: Callable[[], None],
        *,
        connections: int,
        start_ns: int,
        end_ns: int,
    ):
        self.sent = 0
        self._record = record
        self._send = send
        self._over = over
        self._running = connections
        self._connections = connections
        self._start_ns = start_ns
        self._end_ns = end_ns
        self._loop = asyncio.get_running_loop()
        self._timer = Timer(self._loop, self._begin)

    def start(self) -> None:
        self._timer.arm(self._start_ns)

    def ended(self, row: int, answered: bool) -> None:
        if answered:
            self._again()
        else:
            self._loop.call_later(PAUSE_AFTER_FAILURE_S, self._again)

    def stop(self) -> None:
        self._timer.close()
        self._end_ns = 0

    def _begin(self) -> None:
        self._timer.close()
        for _ in range(self._connections):
            self._again()

    def _again(self) -> None:
        now = time.monotonic_ns()
        if now < self._end_ns:
            self.sent += 1
            self._send(self._record.schedule(now))
            return
        self._running -= 1
        if self._running == 0:
            self._over()
