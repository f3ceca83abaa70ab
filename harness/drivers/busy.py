"""How much of its time a thread spends on a core, or waiting for one."""

import time
from pathlib import Path


class Busy:
    """How much of the time since it was made the calling thread ran, or waited for a core to run on."""

    def __init__(self) -> None:
        self._began = self._now()

    def share(self, idle_ns: int = 0) -> float:
        """``idle_ns``: what it ran for so long was only to look whether there is something to do."""
        (ran, at), (ran_before, before) = self._now(), self._began
        return round(max(ran - ran_before - idle_ns, 0) / max(at - before, 1), 4)

    def _now(self) -> tuple[int, int]:
        ran, waited, _ = Path("/proc/thread-self/schedstat").read_text().split()
        return int(ran) + int(waited), time.monotonic_ns()
