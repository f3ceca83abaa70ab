"""A timer with the clock's own precision for an asyncio loop.

libuv and asyncio count timers in milliseconds; an open loop that slept so would add up to one to every latency. A
timerfd (timerfd_create(2)) fires on CLOCK_MONOTONIC at the nanosecond asked, as far as the kernel's scheduler allows,
and is just another descriptor to the loop. ``os.timerfd_create`` comes with Python 3.13; until then libc is called.
"""

import asyncio
import ctypes
import os
from collections.abc import Callable

from harness.units import NS_PER_S

_CLOCK_MONOTONIC = 1
_TFD_TIMER_ABSTIME = 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class Timer:
    """Calls ``callback`` once, soon after the time it was last armed for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]):
        self._loop = loop
        self._callback = callback
        self._spec = _Itimerspec()
        self._pointer = ctypes.byref(self._spec)
        self._fd = _libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._fd, self._fired)

    def arm(self, at_ns: int) -> None:
        """Fires at that time of ``time.monotonic_ns``; at once where it has passed."""
        # 0 ns would disarm it.
        self._spec.it_value.tv_sec, self._spec.it_value.tv_nsec = divmod(max(at_ns, 1), NS_PER_S)
        if _libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, self._pointer, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _fired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # armed anew between the wake-up and this call
        self._callback()
