"""CPU time from /proc: of processes, and of a core.

A process' time is what the scheduler ran its threads for, in ns (/proc/PID/task/*/schedstat); the kernel's work that
interrupts them meanwhile, such as delivering what they send over loopback, is in it. A core's is all that was not idle,
in ticks of 10 ms (/proc/stat): of the kernel's work for nobody in particular, such as forwarding, it is the only
measure, and it counts whatever else ran there.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_IDLE = (3, 4)  # idle and iowait
_BUSY = 8  # user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in these


def of_processes(pids: Iterable[int]) -> int:
    """What all threads of these processes have run, in ns; without those that have ended."""
    ran_ns = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ends just now
                ran_ns += int(task.read_text().split()[0])
    return ran_ns


def of_core(core: int) -> int:
    """How long a core has not been idle, in ns, and in steps of a tick."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            return sum(int(ticks[i]) for i in range(_BUSY) if i not in _IDLE) * _TICK_NS
    raise ValueError(f"/proc/stat knows no cpu{core}")
